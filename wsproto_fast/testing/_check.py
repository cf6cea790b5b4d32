"""The corpus, put to an end under test: an engine without I/O, a server that listens, or a client that connects.

Knows what a case demands and how to find out; knows nothing of how the end does it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..constants import Role
from ..events import Closed, Message
from ._frames import HOSTILE_FRAMES, LEGAL_FRAMES, FrameCase
from ._handshakes import (
    HOSTILE_REQUESTS,
    HOSTILE_RESPONSES,
    KEY,
    LEGAL_REQUESTS,
    RequestCase,
    ResponseCase,
    accept_for,
    request,
    response,
)
from ._peer import ScriptedPeer, SocketPeer
from ._wire import Frame, close

__all__ = ["check_client", "check_connection", "check_server"]

#: Streams up to here are also fed byte by byte; longer ones in steps.
BYTEWISE = 4096
STEP = 509


def check_connection(
    make: Callable[[FrameCase], Any], cases: Iterable[FrameCase] = (*HOSTILE_FRAMES, *LEGAL_FRAMES)
) -> None:
    """Feed each case to a connection of its own, whole and byte by byte; all must answer as the case says.

    ``make(case)`` returns a new ``Connection``, or what embeds one and has its ``role``, ``receive_data``, ``events``,
    ``data_to_send`` and ``close_transport``. It has the case's role, permessage-deflate if the case wants it, the
    default limits, and tells whole messages. Raises AssertionError with one line for each case that fails.
    """
    complaints = []
    for case in cases:
        for step in (len(case.data), 1 if len(case.data) <= BYTEWISE else STEP):
            complaint = _try_connection(make(case), case, step)
            if complaint is not None:
                complaints.append(f"{_name(case)}, in pieces of {step} bytes: {complaint}")
                break
    _report(complaints)


def check_server(
    connect: Callable[[], socket.socket],
    cases: Sequence[FrameCase | RequestCase] = (*HOSTILE_REQUESTS, *LEGAL_REQUESTS, *HOSTILE_FRAMES, *LEGAL_FRAMES),
    *,
    path: str = "/",
    timeout: float = 10.0,
) -> list[str]:
    """Put each case to a server that listens, over a connection of its own.

    ``connect()`` returns a connected socket (with TLS, if the server wants that); ``timeout`` bounds each wait on it,
    in seconds. ``path`` is where the server accepts a WebSocket connection that says nothing of origins and
    subprotocols. It must take any message, may send what it likes, must not close by itself, and has the default
    limits. Returns the names of the cases that were left out: those for clients, and those with compression if the
    server does not agree on it. Raises AssertionError with one line for each case that fails.
    """
    complaints, left_out = [], []
    for case in cases:
        if isinstance(case, FrameCase) and case.role is Role.CLIENT:
            left_out.append(case.name)
            continue
        with contextlib.closing(connect()) as sock:
            sock.settimeout(timeout)
            try:
                if isinstance(case, RequestCase):
                    _check_answer(sock, case)
                elif not _check_frames(sock, case, path):
                    left_out.append(case.name)
            except AssertionError as error:
                complaints.append(f"{_name(case)}: {_first_line(error)}")
            except TimeoutError:
                complaints.append(f"{_name(case)}: nothing came for {timeout} s")
            except OSError as error:
                complaints.append(f"{_name(case)}: {error}")
    _report(complaints)
    return left_out


def check_client(
    run: Callable[[str], object],
    cases: Sequence[FrameCase | ResponseCase] = (*HOSTILE_RESPONSES, *HOSTILE_FRAMES, *LEGAL_FRAMES),
    *,
    timeout: float = 10.0,
) -> list[str]:
    """Put each case to a client that connects, over a connection of its own.

    ``run(uri)`` is called in a thread for each case: it opens the connection, with the subprotocols "superchat" and
    "chat" on offer, reads messages until it ends, and may raise any Exception. It must not close by itself, and has
    the default limits. ``timeout`` bounds each wait, in seconds. Returns the names of the cases that were left out:
    those for servers, and those with compression if the client does not offer it. Raises AssertionError with one line
    for each case that fails.
    """
    complaints, left_out = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(timeout)
        uri = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        for case in cases:
            if isinstance(case, FrameCase) and case.role is Role.SERVER:
                left_out.append(case.name)
                continue
            thread = threading.Thread(target=_quietly, args=(run, uri), daemon=True)
            thread.start()
            try:
                with contextlib.closing(listener.accept()[0]) as sock:
                    sock.settimeout(timeout)
                    if not _answer(sock, case):
                        left_out.append(case.name)
            except AssertionError as error:
                complaints.append(f"{_name(case)}: {_first_line(error)}")
            except TimeoutError:
                complaints.append(f"{_name(case)}: nothing came for {timeout} s")
            except OSError as error:
                complaints.append(f"{_name(case)}: {error}")
            thread.join(timeout)
            if thread.is_alive():
                complaints.append(f"{_name(case)}: it has not ended after {timeout} s")
    _report(complaints)
    return left_out


def _first_line(error: AssertionError) -> str:
    return str(error).partition("\n")[0]  # without what went before: a case says that itself


def _name(case: FrameCase | RequestCase | ResponseCase) -> str:
    return f"{case.name} ({case.section})"


def _report(complaints: list[str]) -> None:
    if complaints:
        count = len(complaints)
        raise AssertionError("\n".join([f"{count} case{'s' * (count > 1)} of the corpus failed:", *complaints]))


# -- engines -----------------------------------------------------------------------


def _try_connection(connection: Any, case: FrameCase, step: int) -> str | None:
    """What is wrong with how a connection takes a case, if anything."""
    peer = ScriptedPeer(connection)
    sent: list[Frame] = []
    try:
        for start in range(0, len(case.data), step):
            peer.send(case.data[start : start + step])
            sent += _frames_of(peer)
        if case.code is None:
            _expect_open(sent, case)
            peer.send(close(1000))
            sent += _frames_of(peer)
        _expect_close(sent, case)
        _expect_told(peer.events, case)
    except AssertionError as error:
        return _first_line(error)
    return None


def _frames_of(peer: ScriptedPeer) -> list[Frame]:
    return list(iter(peer.next_frame, None))


def _expect_open(frames: list[Frame], case: FrameCase) -> None:
    for frame in frames:
        if frame.first == 0x88:
            raise AssertionError(f"nothing is wrong, but it sent {frame}")
    _expect_pong(frames, case)


def _expect_pong(frames: list[Frame], case: FrameCase) -> None:
    if case.pong is not None and Frame(0x8A, case.pong) not in frames:
        raise AssertionError(f"expected {Frame(0x8A, case.pong)}, but it sent none")


def _expect_close(frames: list[Frame], case: FrameCase) -> None:
    """One Close frame, of the right code, and nothing behind it (RFC 6455 5.5.1, 7.1.7)."""
    code = 1000 if case.code is None else case.code
    closes = [i for i, frame in enumerate(frames) if frame.first == 0x88]
    if not closes:
        raise AssertionError(f"expected Close {code}, but it sent none")
    frame = frames[closes[0]]
    if (int.from_bytes(frame.payload[:2], "big") or 1005) != code:
        raise AssertionError(f"expected Close {code}, got {frame}")
    with contextlib.suppress(UnicodeDecodeError):
        frame.payload[2:].decode()
        if closes[0] == len(frames) - 1:
            return
        raise AssertionError(f"a frame behind its Close frame: {frames[closes[0] + 1]}")
    raise AssertionError(f"the reason is no UTF-8: {frame}")


def _expect_told(events: list[Any], case: FrameCase) -> None:
    messages = tuple([event.data for event in events if isinstance(event, Message)])
    if messages != case.messages:
        raise AssertionError(f"expected the messages {_brief(case.messages)}, got {_brief(messages)}")
    last = events[-1] if events else None
    code = 1000 if case.code is None else case.code
    if not isinstance(last, Closed) or last.code != code:
        raise AssertionError(f"expected Closed with {code} as the last event, got {last!r}")


def _brief(messages: tuple[Any, ...]) -> str:
    whole = repr(list(messages))
    return whole if len(whole) <= 100 else f"{whole[:100]}..."


# -- servers -----------------------------------------------------------------------


def _check_answer(sock: socket.socket, case: RequestCase) -> None:
    head, received = _exchange_heads(sock, case.data)
    status = head.partition("\r\n")[0]
    if status.split(" ")[1:2] != [str(case.status)]:
        raise AssertionError(f"expected status {case.status}, got {status!r}")
    if case.status != 101:  # else frames would be read as the next request, or the other way round
        _shut(sock)
        _read_all(sock)
        return
    key = case.data.decode("iso-8859-1").partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
    _check_accepted(head, key)
    peer = SocketPeer(sock, Role.SERVER, received)
    peer.send(close(1000))
    _read_close(peer, 1000)


def _check_frames(sock: socket.socket, case: FrameCase, path: str) -> bool:
    """Returns whether the case could be put to the server."""
    extensions = "permessage-deflate" if case.deflate else None
    data = request(f"GET {path} HTTP/1.1", Host="localhost", Sec_WebSocket_Extensions=extensions)
    head, received = _exchange_heads(sock, data)
    _check_accepted(head, KEY)
    agreed = "permessage-deflate" in head.lower() and "client_no_context_takeover" not in head.lower()
    if case.deflate and not agreed:
        return False
    _put(case, SocketPeer(sock, Role.SERVER, received))
    return True


def _put(case: FrameCase, peer: SocketPeer) -> None:
    with contextlib.suppress(OSError):  # it may have closed before the last byte
        peer.send(case.data)
        if case.code is None:
            peer.send(close(1000))
    before = _read_close(peer, 1000 if case.code is None else case.code)
    _expect_pong(before, case)


def _exchange_heads(sock: socket.socket, data: bytes) -> tuple[str, bytes]:
    """The head of the answer to a request, and what came behind it."""
    with contextlib.suppress(OSError):
        sock.sendall(data)
    return _read_head(sock)


def _read_head(sock: socket.socket) -> tuple[str, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        more = sock.recv(65536)
        if not more:
            raise AssertionError(f"the connection was closed before the end of a head; got {received[:100]!r}")
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head.decode("iso-8859-1"), rest


def _check_accepted(head: str, key: str) -> None:
    status, *lines = head.split("\r\n")
    if status.split(" ")[1:2] != ["101"]:
        raise AssertionError(f"the opening handshake was refused: {status!r}")
    headers = {name.lower(): value.strip() for name, _, value in [line.partition(":") for line in lines]}
    if headers.get("sec-websocket-accept") != accept_for(key):
        raise AssertionError(f"a wrong Sec-WebSocket-Accept: {headers.get('sec-websocket-accept')!r}")


def _read_close(peer: SocketPeer, code: int) -> list[Frame]:
    """Read until the Close frame, which must have this code, and to the end of the connection; returns what came
    before."""
    before = []
    frame = peer.next_frame()
    while frame is not None and frame.first != 0x88:
        before.append(frame)
        frame = peer.next_frame()
    if frame is None:
        raise AssertionError(f"expected Close {code}, but the connection was closed without")
    if (int.from_bytes(frame.payload[:2], "big") or 1005) != code:
        raise AssertionError(f"expected Close {code}, got {frame}")
    _shut(peer.sock)
    peer.expect_end()
    return before


# -- clients -----------------------------------------------------------------------


def _quietly(run: Callable[[str], object], uri: str) -> None:
    with contextlib.suppress(Exception):  # a client that is told nonsense raises, and is right
        run(uri)


def _answer(sock: socket.socket, case: FrameCase | ResponseCase) -> bool:
    """Returns whether the case could be put to the client."""
    head, received = _read_head(sock)
    lines = [line.partition(":") for line in head.split("\r\n")]
    headers = {name.lower(): value.strip() for name, _, value in lines}
    key, offer = headers.get("sec-websocket-key", ""), headers.get("sec-websocket-extensions", "")
    if isinstance(case, ResponseCase):
        sock.sendall(case.data(key))
        sent = _read_all(sock)
        if sent:
            raise AssertionError(f"it sent {sent[:40]!r}")
        return True
    agreed = "permessage-deflate; server_max_window_bits=12" if case.deflate else None
    if case.deflate and ("permessage-deflate" not in offer or "server_no_context_takeover" in offer):
        return False
    sock.sendall(response(key, Sec_WebSocket_Extensions=agreed))
    _put(case, SocketPeer(sock, Role.CLIENT, received))
    return True


def _read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        sock.shutdown(socket.SHUT_WR)
