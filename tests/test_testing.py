"""The test kit: its corpus against the oracles, its checks against ends that are broken on purpose, its parts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsproto_fast import (
    Close,
    Closed,
    CloseReceived,
    CloseTransport,
    Connection,
    DeflateConfig,
    DeflateParameters,
    Keepalive,
    Limits,
    Message,
    Opcode,
    PerMessageDeflate,
    Ping,
    Pong,
    Role,
    ServerHandshake,
)
from wsproto_fast.testing import (
    HOSTILE_FRAMES,
    HOSTILE_REQUESTS,
    HOSTILE_RESPONSES,
    LEGAL_FRAMES,
    LEGAL_REQUESTS,
    Faults,
    Frame,
    FrameCase,
    Pair,
    RequestCase,
    ScriptedPeer,
    SocketPeer,
    Stream,
    binary,
    check_client,
    check_connection,
    check_server,
    close,
    continuation,
    encode_frame,
    ping,
    pong,
    request,
    text,
)
from wsproto_fast.testing._wire import decode_frame

ROOT = Path(__file__).resolve().parent.parent
FRAMES = {case.name: case for case in (*HOSTILE_FRAMES, *LEGAL_FRAMES)}
REQUESTS = {case.name: case for case in (*HOSTILE_REQUESTS, *LEGAL_REQUESTS)}


def make(case: FrameCase, **settings: Any) -> Connection:
    deflate = PerMessageDeflate(case.role, DeflateParameters(), DeflateConfig()) if case.deflate else None
    return Connection(case.role, deflate=deflate, **settings)


# -- the corpus --------------------------------------------------------------------


def test_names_are_unique() -> None:
    assert len(FRAMES) == len(HOSTILE_FRAMES) + len(LEGAL_FRAMES)
    assert len(REQUESTS) == len(HOSTILE_REQUESTS) + len(LEGAL_REQUESTS)
    assert len({case.name for case in HOSTILE_RESPONSES}) == len(HOSTILE_RESPONSES)
    assert str(HOSTILE_FRAMES[0]) == HOSTILE_FRAMES[0].name
    assert str(HOSTILE_REQUESTS[0]) == HOSTILE_REQUESTS[0].name
    assert str(HOSTILE_RESPONSES[0]) == HOSTILE_RESPONSES[0].name


def test_what_the_corpus_covers() -> None:
    """Each rule of the reliability table on frames and handshakes has its cases, for both roles."""
    for role in Role:
        names = " ".join(case.name for case in HOSTILE_FRAMES if case.role is role)
        for word in (
            *("rsv1-", "rsv2-", "rsv3-", "opcode-", "fragmented-ping", "of-126-bytes", "in-2-bytes", "in-8-bytes"),
            *("2^63", "masked-", "continuation-of-nothing", "amid-fragments", "utf8-", "over-fragments", "half-a-code"),
            *("close-1005", "close-reason-", "bomb", "compressed-ping", "4097"),
        ):
            assert word in names, (role, word)
    assert {case.code for case in HOSTILE_FRAMES} == {1002, 1007, 1009}
    assert {case.status for case in HOSTILE_REQUESTS} == {400, 405, 414, 426, 431, 505}
    assert all(case.error is not None for case in HOSTILE_REQUESTS)
    assert all((case.status, case.error) == (101, None) for case in LEGAL_REQUESTS)


def test_the_engine_passes() -> None:
    check_connection(make)


def test_the_engine_answers_requests() -> None:
    for case in (*HOSTILE_REQUESTS, *LEGAL_REQUESTS):
        server = ServerHandshake()
        server.receive_data(case.data)
        server.send_response(server.accept())
        assert server.data_to_send()[0].split(b" ")[1] == b"%d" % case.status, case
        assert server.accepted is (case.status == 101)
        assert type(server.error) is (case.error or type(None)), case


# -- what other libraries answer ------------------------------------------------------

#: Where websockets' sans-I/O layer answers otherwise: a part of the names, its code, and why.
WEBSOCKETS_DIFFERS = {
    # RFC 6455 5.2 tells the sender to take the shortest form; it reads any
    "length-2^6": (1009,),  # its limit comes before the sign bit
    "length-0-in-": (None, 1005),
    "length-5-in-": (None,),
    "length-12": (None,),
    "length-65535-in-": (None,),
    # text is decoded, and fragments are counted, by its connections, one layer up: see the live server below
    "utf8-": (None,),
    "4097-empty-fragments": (None,),
    # it keeps the half for the next message, which then is another one than was sent
    "deflate-that-ends-in-a-block": (None,),
    # RFC 6455 5.4: control frames may be injected in the middle of a fragmented message, and Close is one
    "close-amid-fragments": (1002,),
}
#: The same for wsproto.
WSPROTO_DIFFERS = {
    "utf8-in-half-a-frame": (None,),  # it masks and decodes by whole frames when they are short
    # it has no limits
    "size-": (None,),
    "4097-empty-fragments": (None,),
    "bomb": (None,),
    # RFC 7692 names no code for this; 1007 says that data do not fit the type of the message
    "no-deflate": (1007,),
    "deflate-that-ends-in-a-block": (None,),  # as websockets
    "close-1014": (1002,),  # registered at IANA later
    "compressed-behind-bfinal": (1007,),  # zlib's object is at its end then
    "compressed-ping-between": (1007,),  # it takes the ping's payload for a part of the message
}


def websockets_verdict(case: FrameCase) -> int | None:
    """The code of the Close frame that websockets' sans-I/O layer sends."""
    from websockets.extensions.permessage_deflate import PerMessageDeflate as Theirs
    from websockets.protocol import Protocol, Side
    from websockets.protocol import State as Their

    end = Protocol(Side.SERVER if case.role is Role.SERVER else Side.CLIENT, state=Their.OPEN, max_size=2**20)
    if case.deflate:
        end.extensions = [Theirs(False, False, 12, 12)]
    end.receive_data(case.data)
    return None if end.close_sent is None else int(end.close_sent.code)


def wsproto_verdict(case: FrameCase) -> int | None:
    """The code that wsproto tells its user to close with."""
    from wsproto import events
    from wsproto import extensions as theirs
    from wsproto.connection import Connection as Their
    from wsproto.connection import ConnectionType

    extensions: list[theirs.Extension] = []
    if case.deflate:
        deflate = theirs.PerMessageDeflate()
        deflate._enabled = True
        extensions.append(deflate)
    end = Their(ConnectionType.SERVER if case.role is Role.SERVER else ConnectionType.CLIENT, extensions)
    end.receive_data(case.data)
    closes = [int(event.code) for event in end.events() if isinstance(event, events.CloseConnection)]
    return closes[0] if closes else None


@pytest.mark.parametrize(
    ("verdict", "differs"),
    [(websockets_verdict, WEBSOCKETS_DIFFERS), (wsproto_verdict, WSPROTO_DIFFERS)],
    ids=["websockets", "wsproto"],
)
def test_what_others_answer(
    verdict: Callable[[FrameCase], int | None], differs: dict[str, tuple[int | None, ...]]
) -> None:
    """The same code, but for what is listed; and what is listed differs."""
    met: dict[str, set[int | None]] = {part: set() for part in differs}
    for case in FRAMES.values():
        answer = verdict(case)
        if answer != case.code:
            (part,) = {part for part in differs if part in case.name} or {case.name}
            assert answer in differs.get(part, ()), (case.name, case.code, answer)
            met[part].add(answer)
    assert met == {part: set(answers) for part, answers in differs.items()}


# -- ends that are broken -------------------------------------------------------------


class Lax:
    """A connection behind a filter that makes its peer's mistakes good, or that spoils its answers."""

    def __init__(self, case: FrameCase, mend: Any = None, spoil: Any = None, **settings: Any) -> None:
        self.inner = make(case, **settings)
        self.role = case.role
        self.mend = mend
        self.spoil = spoil or (lambda chunks: chunks)
        self.received = bytearray()
        self.mask = b"abcd" if case.role is Role.SERVER else None

    @property
    def close_transport(self) -> CloseTransport:
        return self.inner.close_transport

    def receive_data(self, data: bytes) -> None:
        if self.mend is None:
            self.inner.receive_data(data)
            return
        self.received += data
        while (decoded := decode_frame(self.received)) is not None:
            frame, masked, end = decoded
            del self.received[:end]
            for first, payload in self.mend(frame):
                mask = self.mask if masked == (self.role is Role.SERVER) else (None if self.mask else b"abcd")
                self.inner.receive_data(encode_frame(first, payload, mask=mask))

    def events(self) -> list[Any]:
        return self.inner.events()

    def receive_eof(self) -> None:
        self.inner.receive_eof()

    def data_to_send(self) -> list[bytes]:
        return list(self.spoil(self.inner.data_to_send()))


def any_text(frame: Frame) -> list[Frame]:
    return [Frame(frame.first + 1, frame.payload)] if frame.first & 0x0F == 1 else [frame]


def without_rsv(frame: Frame) -> list[Frame]:
    return [Frame(frame.first & 0x8F, frame.payload)]


def known_opcodes(frame: Frame) -> list[Frame]:
    return [frame] if frame.first & 0x0F in (0, 1, 2, 8, 9, 10) else []


def short_control_frames(frame: Frame) -> list[Frame]:
    return [Frame(frame.first, frame.payload[:125])] if frame.first & 8 else [frame]


def final_control_frames(frame: Frame) -> list[Frame]:
    return [Frame(frame.first | 0x80, frame.payload)] if frame.first & 8 else [frame]


def any_close(frame: Frame) -> list[Frame]:
    return [close(1000)] if frame.first == 0x88 else [frame]


def whole_close(frame: Frame) -> list[Frame]:
    return [close(None)] if frame.first == 0x88 and len(frame.payload) == 1 else [frame]


def as_it_is(frame: Frame) -> list[Frame]:
    return [frame]  # framed anew: in as few bytes as it can be


def without_pings(frame: Frame) -> list[Frame]:
    return [] if frame.first == 0x89 else [frame]


def codes_of_2011(frame: Frame) -> list[Frame]:
    known = frame.first != 0x88 or int.from_bytes(frame.payload[:2], "big") not in (1012, 1013, 1014)
    return [frame] if known else [close(1006)]


def silent(chunks: list[bytes]) -> list[bytes]:
    return []


def vague(chunks: list[bytes]) -> list[bytes]:
    return [chunk.replace(b"\x03\xef", b"\x03\xea") for chunk in chunks]


def talkative(chunks: list[bytes]) -> list[bytes]:
    return [*chunks, *(b"\x81\x00" for chunk in chunks if chunk[0] == 0x88)]


def stuttering(chunks: list[bytes]) -> list[bytes]:
    return [*chunks, *(chunk for chunk in chunks if chunk[0] == 0x88)]


def garbled(chunks: list[bytes]) -> list[bytes]:
    return [chunk[:4] + b"\xff" * (len(chunk) - 4) if chunk[0] == 0x88 else chunk for chunk in chunks]


MUTANTS: list[tuple[dict[str, Any], str, str, str]] = [
    # what is broken, a case that finds it, what it complains of, a case it must not complain of
    ({"mend": any_text}, "utf8-ff-server", "expected Close 1007, but it sent none", "close-999-server"),
    ({"mend": without_rsv}, "rsv2-text-client", "expected Close 1002, but it sent none", "utf8-ff-server"),
    ({"mend": known_opcodes}, "opcode-3-server", "expected Close 1002, but it sent none", "rsv2-text-client"),
    ({"mend": short_control_frames}, "ping-of-126-bytes-server", "expected Close 1002, but", "fragmented-ping-server"),
    ({"mend": final_control_frames}, "fragmented-ping-server", "expected Close 1002, but", "ping-of-126-bytes-server"),
    ({"mend": any_close}, "close-1005-client", "expected Close 1002, got Close 1000", "utf8-ff-server"),
    ({"mend": whole_close}, "close-with-half-a-code-server", "got Close without code", "close-1005-client"),
    ({"mend": as_it_is}, "length-5-in-2-bytes-text-client", "expected Close 1002, but", "utf8-cut-2-server"),
    ({"mend": without_pings}, "ping-of-125-bytes-server", "expected Pong b'", "three-messages-server"),
    ({"mend": codes_of_2011}, "close-1013-server", "expected Close 1013, got Close 1002", "bomb-server"),
    ({"spoil": silent}, "text-amid-fragments-server", "expected Close 1002, but it sent none", ""),
    ({"spoil": vague}, "utf8-ff-server", "expected Close 1007, got ", "rsv2-text-server"),
    ({"spoil": talkative}, "opcode-3-server", "a frame behind its Close frame: Text ''", ""),
    ({"spoil": stuttering}, "opcode-3-server", "a frame behind its Close frame: Close 1002", ""),
    ({"spoil": garbled}, "opcode-3-server", "the reason is no UTF-8", "empty-text-server"),
    ({"limits": Limits(max_fragments=None)}, "4097-empty-fragments-server", "1009, but it sent none", "bomb-server"),
    ({"limits": Limits(max_message_size=2**21)}, "bomb-of-limit+1-server", "but it sent none", "bomb-server"),
    ({"limits": Limits(max_message_size=65535)}, "binary-of-65536-bytes-server", "it sent Close 1009", "bomb-server"),
    ({"delivery": "frame"}, "three-messages-server", "messages ['a', b'b', 'c'], got []", "opcode-3-server"),
    ({"delivery": "frame"}, "binary-of-65536-bytes-client", "...", "opcode-3-server"),
    ({"decode_text": False}, "greek-text-client", "got [b'", "utf8-ff-server"),
    ({"auto_reply": False}, "close-1000-client", "expected Close 1000, but it sent none", "opcode-3-server"),
]


@pytest.mark.parametrize(("broken", "found", "complaint", "spared"), MUTANTS, ids=range(len(MUTANTS)))
def test_broken_connections_are_found(broken: dict[str, Any], found: str, complaint: str, spared: str) -> None:
    with pytest.raises(AssertionError) as info:
        check_connection(lambda case: Lax(case, **broken))
    first, *lines = str(info.value).splitlines()
    assert first == f"{len(lines)} case{'s' * (len(lines) > 1)} of the corpus failed:"
    assert [line for line in lines if line.startswith(f"{found} (RFC ") and complaint in line]
    assert not [line for line in lines if spared and line.startswith(f"{spared} ")]


def test_an_unmasked_client_is_found() -> None:
    def unmasked(chunks: list[bytes]) -> list[bytes]:
        frames = []
        for chunk in chunks:
            decoded = decode_frame(chunk)
            assert decoded is not None
            frames.append(encode_frame(*decoded[0]))
        return frames

    case = FRAMES["opcode-3-client"]
    with pytest.raises(AssertionError, match="expected a frame that is masked, got Close 1002"):
        check_connection(lambda case: Lax(case, spoil=unmasked), [case])


def test_what_is_told_is_checked() -> None:
    class Mute(Lax):
        def events(self) -> list[Any]:
            return [event for event in super().events() if isinstance(event, Message)]

    class Liar(Lax):
        def events(self) -> list[Any]:
            return [Message("x" * 200, Opcode.TEXT), *super().events()]

    case = FRAMES["opcode-3-server"]
    with pytest.raises(AssertionError, match="expected Closed with 1002 as the last event, got None"):
        check_connection(Mute, [case])
    with pytest.raises(AssertionError, match=r"expected the messages \[\], got \['x+\.\.\.$"):
        check_connection(Liar, [case])


# -- servers that listen --------------------------------------------------------------


@contextlib.contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[Callable[[], socket.socket]]:
    """Run ``talk`` in a thread on each connection; gives what connects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                if sock.getpeername() == last:
                    return
                talk(sock)

    last: Any = None
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield lambda: socket.create_connection(listener.getsockname())
    finally:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            last = sock.getsockname()
            sock.connect(listener.getsockname())
            thread.join(10)
        listener.close()


def serve_one(
    sock: socket.socket, wrap: Callable[[FrameCase], Any] = make, edit: Callable[[bytes], bytes] = bytes
) -> None:
    """A server of a few lines, whose engine and whose 101 may be broken."""
    handshake = ServerHandshake()
    while handshake.request is None and handshake.error is None:
        data = sock.recv(65536)
        if not data:
            return
        handshake.receive_data(data)
    handshake.send_response(handshake.accept())
    sock.sendall(edit(b"".join(handshake.data_to_send())))
    if not handshake.accepted:
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
        return
    connection = wrap(FrameCase("", b"", Role.SERVER, None, "", deflate=handshake.deflate is not None))
    talk(sock, connection, handshake.trailing_data)
    while sock.recv(65536):
        pass


def talk(sock: socket.socket, connection: Any, data: bytes) -> None:
    """Do what a connection wants, from the first bytes to the end of what it sends."""
    connection.receive_data(data)
    while True:
        connection.events()
        for chunk in connection.data_to_send():
            sock.sendall(chunk)
        if connection.close_transport >= CloseTransport.SHUTDOWN:
            break
        data = sock.recv(65536)
        connection.receive_data(data) if data else connection.receive_eof()
    sock.shutdown(socket.SHUT_WR)


def failures(talk: Callable[[socket.socket], None], *names: str, timeout: float = 10.0) -> dict[str, str]:
    """What check_server complains of, by the name of the case."""
    cases = [FRAMES.get(name) or REQUESTS[name] for name in names]
    with listening(talk) as connect:
        try:
            assert check_server(connect, cases, timeout=timeout) == []
        except AssertionError as error:
            lines = str(error).splitlines()[1:]
            return dict(line.replace(") ", "): ", 1).split(": ", 1) for line in lines)
    return {}


def only(found: dict[str, str]) -> str:
    (complaint,) = found.values()
    return complaint


def test_our_asyncio_server_passes() -> None:
    from wsproto_fast.asyncio import serve

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> list[str]:
        async with serve(echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            return await asyncio.to_thread(check_server, lambda: socket.create_connection(address))

    left_out = asyncio.run(main())
    assert left_out == [case.name for case in FRAMES.values() if case.role is Role.CLIENT]


def test_our_threading_server_passes() -> None:
    from wsproto_fast.threading import serve

    def echo(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = server.socket.getsockname()
        left_out = check_server(lambda: socket.create_connection(address))
        server.shutdown()
        thread.join(10)
    assert left_out == [case.name for case in FRAMES.values() if case.role is Role.CLIENT or case.deflate]


def test_connections_of_websockets_check_text() -> None:
    """What its sans-I/O layer leaves to them, the corpus demands of them as well."""
    from websockets.sync.server import serve

    def drain(connection: Any) -> None:
        for _ in connection:
            pass

    cases = [case for case in FRAMES.values() if case.role is Role.SERVER and "utf8" in case.name]
    cases = [case for case in cases if "half" not in case.name and "amid" not in case.name]  # these come to their ends
    with serve(drain, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = server.socket.getsockname()
        assert check_server(lambda: socket.create_connection(address), cases) == []
        server.shutdown()
        thread.join(10)


def test_the_little_server_passes() -> None:
    frames = ("opcode-3-server", "bomb-server", "three-messages-server", "close-1001-server", "empty-ping-server")
    assert failures(serve_one, *frames, "no-key", "two-upgrades", "bare-lf") == {}


def test_broken_servers_are_found() -> None:
    def lax(mend: Any = None, spoil: Any = None) -> Callable[[socket.socket], None]:
        return lambda sock: serve_one(sock, lambda case: Lax(case, mend, spoil))

    found = failures(lax(spoil=vague), "utf8-ff-server", "opcode-3-server")
    assert list(found) == ["utf8-ff-server (RFC 6455 8.1)"]
    assert only(found).startswith("expected Close 1007, got Close 1002")
    found = failures(lax(spoil=silent), "opcode-3-server")
    assert only(found) == "expected Close 1002, but the connection was closed without"
    found = failures(lax(mend=known_opcodes), "opcode-3-server", timeout=0.2)
    assert only(found) == "nothing came for 0.2 s"
    found = failures(lax(spoil=talkative), "opcode-3-server")
    assert only(found).startswith("expected the end, got Text ''")
    found = failures(lax(mend=without_pings), "ping-of-125-bytes-server", "opcode-3-server")
    assert only(found).startswith("expected Pong b'")


def test_broken_handshakes_are_found() -> None:
    def edit(old: bytes, new: bytes) -> Callable[[socket.socket], None]:
        return lambda sock: serve_one(sock, edit=lambda data: data.replace(old, new))

    assert only(failures(edit(b"101", b"200"), "as-the-rfc-says")).startswith("expected status 101, got")
    assert only(failures(edit(b"400", b"426"), "no-key")) == "expected status 400, got 'HTTP/1.1 426 Bad Request'"
    wrong = edit(b"Accept: s3p", b"Accept: S3P")
    for name in ("as-the-rfc-says", "opcode-3-server"):
        assert only(failures(wrong, name)).startswith("a wrong Sec-WebSocket-Accept: 'S3P")
    refused = only(failures(edit(b"101", b"200"), "opcode-3-server"))
    assert refused == "the opening handshake was refused: 'HTTP/1.1 200 Switching Protocols'"
    closed = only(failures(lambda sock: None, "no-key"))
    assert "closed before the end of a head" in closed or "reset" in closed

    def hanging(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.recv(65536)  # the end
        over.wait(10)

    over = threading.Event()
    with listening(hanging) as connect:
        with pytest.raises(AssertionError, match="nothing came for 0.2 s"):
            check_server(connect, [REQUESTS["no-key"]], timeout=0.2)
        over.set()


def test_a_server_that_resets_is_found() -> None:
    def reset(sock: socket.socket) -> None:
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    assert "reset" in only(failures(reset, "no-key"))


# -- clients that connect -------------------------------------------------------------


def drain(uri: str) -> None:
    from wsproto_fast.threading import connect

    with connect(uri, subprotocols=["superchat", "chat"]) as connection:  # type: ignore[list-item]
        for _ in connection:
            pass


def test_our_threading_client_passes() -> None:
    left_out = check_client(drain)
    assert left_out == [case.name for case in FRAMES.values() if case.role is Role.SERVER]


def test_our_asyncio_client_passes() -> None:
    from wsproto_fast.asyncio import connect

    async def drain(uri: str) -> None:
        async with connect(uri, subprotocols=["superchat", "chat"], compression=None, proxy=None) as connection:
            async for _ in connection:
                pass

    cases = [*HOSTILE_RESPONSES, *[case for case in FRAMES.values() if case.role is Role.CLIENT][::4]]
    left_out = check_client(lambda uri: asyncio.run(drain(uri)), cases)
    assert left_out == [case.name for case in cases if isinstance(case, FrameCase) and case.deflate]


@pytest.mark.parametrize(
    ("name", "broken", "complaint"),
    [
        ("utf8-ff-client", {"spoil": silent}, "expected Close 1007, but the connection was closed without"),
        ("utf8-ff-client", {"mend": any_text}, "nothing came for 0.2 s"),
        ("ping-of-125-bytes-client", {"mend": without_pings}, "expected Pong b'"),
        ("accept-of-another-key", {}, r"it sent b'\x81"),
        ("hanging", {}, "it has not ended after 0.2 s"),
        ("opcode-3-client", None, "closed before the end of a head"),
        ("reset", None, "reset"),
    ],
)
def test_broken_clients_are_found(name: str, broken: dict[str, Any] | None, complaint: str) -> None:
    over = threading.Event()

    def run(uri: str) -> None:
        with socket.create_connection(("127.0.0.1", int(uri.split(":")[2].strip("/")))) as sock:
            if name == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            if broken is None:
                return
            sock.sendall(request())
            received = b""
            while b"\r\n\r\n" not in received:
                received += sock.recv(65536)
            connection: Any = Lax(FRAMES["opcode-3-client"], **broken)
            if name == "accept-of-another-key":  # which it has not looked at
                sock.sendall(encode_frame(0x81, b"Hello", mask=b"abcd"))
                return
            talk(sock, connection, received.partition(b"\r\n\r\n")[2])
        if name == "hanging":
            over.wait(10)

    cases: list[Any] = [case for case in (*FRAMES.values(), *HOSTILE_RESPONSES) if case.name == name]
    with pytest.raises(AssertionError) as info:
        check_client(run, cases or [FRAMES["close-1000-client"]], timeout=0.2)
    over.set()
    assert complaint in str(info.value)


# -- the pair -------------------------------------------------------------------------


def test_pair() -> None:
    pair = Pair(subprotocols=["chat"])
    assert pair.client.subprotocol == pair.server.subprotocol == "chat"
    pair.client.send_text("Hello")
    pair.server.send_binary(b"there")
    assert pair.client_events == pair.server_events == []
    pair.pump()
    assert pair.server_events == [Message("Hello", Opcode.TEXT)]
    assert pair.client_events == [Message(b"there", Opcode.BINARY)]
    pair.server_events.clear()
    pair.client.send_ping(b"p")
    pair.pump()
    assert pair.server_events == [Ping(b"p")]
    assert pair.client_events[1:] == [Pong(b"p", (b"p",))]


def test_pair_with_compression() -> None:
    plain, packed = Pair(), Pair(deflate=DeflateConfig())
    for pair in (plain, packed):
        pair.client.send_text("Hello" * 100)
        pair.pump()
        assert pair.server_events == [Message("Hello" * 100, Opcode.TEXT)]
    assert packed.server.stats.bytes_received < 30 < plain.server.stats.bytes_received


@pytest.mark.parametrize("closing", ["client", "server"])
def test_pair_closes(closing: str) -> None:
    pair = Pair()
    getattr(pair, closing).send_close(1001, "bye")
    pair.pump()
    told = [CloseReceived(1001, "bye"), Closed(1001, "bye")]
    assert pair.client_events == pair.server_events == told
    assert pair.client.close_transport == pair.server.close_transport == CloseTransport.CLOSE
    assert pair.client.close_rcvd_then_sent is (closing == "server")
    pair.pump()
    assert pair.client_events == told


def test_pair_fails() -> None:
    pair = Pair(server={"limits": Limits(max_message_size=5)})
    pair.client.send_text("too much")
    pair.client.send_text("and more")
    pair.pump()
    assert pair.client_events[0].code == 1009  # type: ignore[attr-defined]
    assert pair.server.close_sent == Close(1009, pair.client_events[0].reason)  # type: ignore[attr-defined]
    assert pair.client.close_transport == pair.server.close_transport == CloseTransport.CLOSE
    assert pair.server_events[0].code == 1009  # type: ignore[attr-defined]


def test_pair_keeps_alive() -> None:
    pair = Pair(client={"keepalive": Keepalive()})
    pair.advance(19.0)
    assert pair.server_events == []
    pair.advance(2.0)
    assert pair.now == 21.0
    assert [type(event) for event in pair.server_events] == [Ping]
    assert [event.sent_at for event in pair.client_events] == [20.0]  # type: ignore[attr-defined]


def test_pair_with_a_stall() -> None:
    """A network that holds all up for longer than the keepalive waits."""
    pair = Pair(client={"keepalive": Keepalive()}, faults=Faults(stall_chance=1.0, stall_time=30.0))
    pair.advance(60.0)
    assert pair.client.close_error is not None
    assert "keepalive" in str(pair.client.close_error)
    assert pair.client_events[-1].code == 1011  # type: ignore[attr-defined]
    pair.settle()
    assert pair.server_events[-1].code == 1011  # type: ignore[attr-defined]


def test_pair_that_is_cut() -> None:
    pair = Pair(faults=Faults(cut_after=20))
    pair.client.send_text("Hello")
    pair.client.send_text("Hello")
    pair.pump()
    assert pair.server_events == [Message("Hello", Opcode.TEXT), Closed(1006, "")]
    assert pair.client.close_code == 1006


def test_pair_whose_server_does_not_read() -> None:
    pair = Pair(server={"limits": Limits(max_read_ahead=1000)}, faults=Faults(max_read=500))
    pair.server.pause()
    for _ in range(10):
        pair.client.send_binary(bytes(400))
    pair.pump()
    assert pair.server_events == []
    assert pair.server.read_ahead_full
    assert pair.server.stats.bytes_received < 1600
    pair.advance(5.0)
    pair.server.resume()
    pair.pump()
    assert pair.server_events == [Message(bytes(400), Opcode.BINARY)] * 10


def test_pair_arguments_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="backwards"):
        Pair().advance(-3)
    with pytest.raises(ValueError, match="max_read must be 1 or more"):
        Faults(max_read=0)


def test_pair_time_that_passes() -> None:
    """Streams deliver at their times, in steps of any size."""
    faults = Faults(max_read=3, max_delay=0.5)
    stepwise, at_once, settled = (Pair(faults=faults, seed=7) for _ in range(3))
    for pair in (stepwise, at_once, settled):
        pair.client.send_text("Hello" * 5)
    for _ in range(100):
        stepwise.advance(0.25)
    at_once.advance(25.0)
    settled.settle()
    told = [Message("Hello" * 5, Opcode.TEXT)]
    assert stepwise.server_events == at_once.server_events == settled.server_events == told
    assert stepwise.now == at_once.now == 25.0
    assert 0 < settled.now < 25.0
    other = Pair(faults=faults, seed=8)
    other.client.send_text("Hello" * 5)
    other.settle()
    assert other.now != settled.now


# -- streams --------------------------------------------------------------------------

FAULTS = st.builds(
    Faults,
    max_read=st.none() | st.integers(1, 20),
    max_delay=st.sampled_from([0.0, 1.0]),
    stall_chance=st.sampled_from([0.0, 0.2]),
    stall_time=st.just(10.0),
    cut_after=st.none() | st.integers(0, 60),
)


@given(faults=FAULTS, seed=st.integers(0, 1000), writes=st.lists(st.binary(max_size=30), max_size=6))
def test_streams(faults: Faults, seed: int, writes: list[bytes]) -> None:
    """All bytes arrive, in order, up to the cut, at their times; and twice the same way."""

    def run() -> list[tuple[float, bytes]]:
        stream = Stream(faults, seed)
        for i, data in enumerate(writes):
            stream.write(data, float(i))
        stream.write_eof(float(len(writes)))
        stream.write(b"lost", 100.0)
        stream.write_eof(100.0)
        pieces = []
        while (now := stream.next_arrival()) is not None:
            assert stream.read(now - 0.001) is None
            while (piece := stream.read(now)) is not None:
                pieces.append((now, piece))
        return pieces

    pieces = run()
    assert pieces == run()
    data = b"".join(writes)
    assert b"".join(piece for _, piece in pieces) == data[: faults.cut_after]
    assert [i for i, (_, piece) in enumerate(pieces) if not piece] == [len(pieces) - 1]
    times = [now for now, _ in pieces]
    assert times == sorted(times)
    assert all(len(piece) <= (faults.max_read or 1000) for _, piece in pieces)
    if not faults.max_delay and not faults.stall_chance:
        assert times[-1] <= len(writes)


# -- scripted peers -------------------------------------------------------------------


def test_script() -> None:
    peer = ScriptedPeer(Connection(Role.SERVER))
    peer.send(text("Hel", fin=False), ping(b"p"), continuation("lo"))
    peer.expect(pong(b"p"))
    peer.expect_nothing()
    assert peer.events == [Ping(b"p"), Message("Hello", Opcode.TEXT)]
    peer.connection.send_text("one")  # type: ignore[attr-defined]
    peer.connection.send_binary(b"two")  # type: ignore[attr-defined]
    peer.expect(text("one"), binary(b"two"))
    peer.send(pong(), b"\x83\x80abcd")
    assert "opcode" in peer.expect_close(1002)
    peer.expect_end()
    peer.send_eof()
    assert peer.events[-1].code == 1002  # type: ignore[attr-defined]


def test_script_for_a_client() -> None:
    connection = Connection(Role.CLIENT)
    peer = ScriptedPeer(connection)
    connection.send_close(1005)
    assert peer.expect_close(1005) == ""
    peer.send(close(None))
    peer.send_eof()
    peer.expect_end()
    assert peer.events == [CloseReceived(1005, ""), Closed(1005, "")]


def failing(steps: Callable[[ScriptedPeer], object], role: Role = Role.SERVER) -> str:
    peer = ScriptedPeer(Connection(role))
    peer.send(ping(b"p"))
    with pytest.raises(AssertionError) as info:
        steps(peer)
    return str(info.value)


def test_failures_can_be_read() -> None:
    story = ":\n  sent Ping b'p'\n  got Pong b'p'"
    assert failing(lambda peer: peer.expect(text("x"))) == f"expected Text 'x', got Pong b'p'{story}"
    assert failing(lambda peer: peer.expect_close(1000)) == f"expected Close 1000, got Pong b'p'{story}"
    assert failing(lambda peer: peer.expect_nothing()) == f"expected nothing, got Pong b'p'{story}"
    assert failing(lambda peer: peer.expect_end()) == f"expected the end, got Pong b'p'{story}"
    missing = failing(lambda peer: peer.expect(pong(b"p"), binary(b"\xff")))
    assert missing == f"expected Binary b'\\xff', got nothing{story}"

    def half(peer: ScriptedPeer) -> None:
        peer.expect(pong(b"p"))
        peer._input += b"\x81"
        peer.expect_nothing()

    assert failing(half) == f"expected nothing, got half a frame: 81{story}"

    def open_still(peer: ScriptedPeer) -> None:
        peer.expect(pong(b"p"))
        peer.expect_end()

    assert failing(open_still) == f"expected the end, got nothing{story}"

    def raw(peer: ScriptedPeer) -> None:
        peer.send(b"\x8a\x00" + bytes(50))
        peer.send_eof()
        peer.expect_close(1001)

    assert "\n  sent bytes 8a 00" + " 00" * 38 + "...\n  sent the end" in failing(raw, Role.CLIENT)
    with pytest.raises(AssertionError, match="^expected Close 1000, got nothing$"):
        ScriptedPeer(Connection(Role.SERVER)).expect_close(1000)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (text("Hello"), "Text 'Hello'"),
        (text(b"\xff", fin=False), "Text b'\\xff' (not final)"),
        (binary(bytes(100), fin=False), f"Binary {bytes(60)!r}... (100 bytes) (not final)"),
        (continuation(b"x", fin=False), "Continuation b'x' (not final)"),
        (continuation("x"), "Continuation b'x'"),
        (Frame(0xF3, b""), "opcode 3 b'' (RSV1, RSV2, RSV3)"),
        (close(), "Close 1000"),
        (close(1002, "é"), "Close 1002 'é'"),
        (close(None), "Close without code"),
        (Frame(0x88, b"\x03"), "Close b'\\x03'"),
    ],
)
def test_frames_can_be_read(frame: Frame, words: str) -> None:
    assert str(frame) == words


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("mask", [None, b"\x01\x02\x03\xff"])
def test_frames_there_and_back(size: int, mask: bytes | None) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    wire = encode_frame(0x82, payload, mask=mask)
    assert decode_frame(b"ab" + wire + b"c", 2) == (binary(payload), mask is not None, len(wire) + 2)
    for cut in {*range(min(14, len(wire))), len(wire) - 1}:
        assert decode_frame(wire[:cut]) is None
    peer = Connection(Role.CLIENT if mask is None else Role.SERVER)
    peer.receive_data(wire)
    assert peer.events() == [Message(payload, Opcode.BINARY)]


def test_script_over_a_socket() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(10)
        peer = SocketPeer(here, Role.CLIENT, received=encode_frame(0x81, b"early", mask=b"abcd"))
        peer.expect(text("early"))
        peer.send(text("Hello"))
        assert there.recv(100) == b"\x81\x05Hello"
        there.sendall(encode_frame(*close(1001, "bye"), mask=b"abcd"))
        assert peer.expect_close(1001) == "bye"
        peer.send_eof()
        assert there.recv(100) == b""
        there.close()
        peer.expect_end()
        assert peer.next_frame() is None


# -- the plugin -----------------------------------------------------------------------

PLUGIN_TESTS = """
import pytest
from wsproto_fast import Connection, DeflateConfig, Role, ServerHandshake
from wsproto_fast.testing import HOSTILE_FRAMES, check_connection, ping, pong

def test_pair(ws_pair):
    ws_pair.client.send_text("Hello")
    ws_pair.pump()
    assert [event.data for event in ws_pair.server_events] == ["Hello"]

@pytest.mark.parametrize("ws_pair", [{"subprotocols": ["chat"]}], indirect=True)
def test_settings(ws_pair):
    assert ws_pair.client.subprotocol == "chat"

def test_peer(ws_peer):
    peer = ws_peer(Connection(Role.CLIENT))
    peer.send(ping(b"x"))
    peer.expect(pong(b"x"))

def test_hostile_frame(ws_hostile_frame):
    if not ws_hostile_frame.deflate:
        check_connection(lambda case: Connection(case.role), [ws_hostile_frame])

def test_request(ws_legal_request):
    server = ServerHandshake()
    server.receive_data(ws_legal_request.data)
    assert server.error is None

@pytest.mark.parametrize("ws_hostile_frame", HOSTILE_FRAMES[:3], ids=str)
def test_some_frames(ws_hostile_frame):
    assert ws_hostile_frame in HOSTILE_FRAMES[:3]

@pytest.mark.parametrize(argnames=("one", "ws_hostile_frame"), argvalues=[(1, 2)])
def test_pairs(one, ws_hostile_frame):
    assert (one, ws_hostile_frame) == (1, 2)

class TestOverridden:
    @pytest.fixture(params=["mine"])
    def ws_hostile_frame(self, request):
        return request.param

    def test_own(self, ws_hostile_frame):
        assert ws_hostile_frame == "mine"

def test_others(ws_hostile_request, ws_hostile_response):
    assert ws_hostile_request.error is not None

def test_legal(ws_legal_frame):
    assert ws_legal_frame.messages is not None
"""


def nested_pytest(directory: Path, source: str) -> tuple[int, list[pytest.TestReport]]:
    """Run tests with the plugin in this process, where coverage sees it."""
    from wsproto_fast import _pytest_plugin

    class Recorder:
        def __init__(self) -> None:
            self.reports: list[pytest.TestReport] = []

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            self.reports += [report] * (report.when == "call")

    recorder = Recorder()
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / f"{directory.name}.py").write_text(source)  # a name of its own: Python remembers modules by names
    options = [f"-pno:{name}" for name in ("cacheprovider", "timeout", "faulthandler", "wsproto_fast")]
    options += ["--capture=no", "--quiet", "-c", str(directory / "pytest.ini")]
    arguments = [*options, str(directory)]
    return int(pytest.main(arguments, plugins=[_pytest_plugin, recorder])), recorder.reports


def test_fixtures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, reports = nested_pytest(tmp_path, PLUGIN_TESTS)
    assert status == 0, capsys.readouterr().out
    names = [report.nodeid.partition("::")[2] for report in reports]
    assert "test_pair" in names
    assert f"test_hostile_frame[{HOSTILE_FRAMES[0]}]" in names
    count = len(HOSTILE_FRAMES) + len(LEGAL_REQUESTS) + len(HOSTILE_REQUESTS) * len(HOSTILE_RESPONSES)
    own = 3 + 1 + 1  # of `test_some_frames`, `test_pairs` and `test_own`
    assert len(names) == 3 + count + len(LEGAL_FRAMES) + own


def test_the_plugin_is_registered() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nwsproto_fast = "wsproto_fast._pytest_plugin"\n' in project


@pytest.mark.external
def test_unused_the_plugin_imports_nothing() -> None:
    code = "import sys, wsproto_fast; a = set(sys.modules); import pytest; b = set(sys.modules)\n"
    code += "import wsproto_fast._pytest_plugin; print(set(sys.modules) - a - b)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{'wsproto_fast._pytest_plugin'}\n"


def test_the_kit_does_not_import_pytest() -> None:
    folder = ROOT / "wsproto_fast"
    for path in [*(folder / "testing").glob("*.py"), folder / "__init__.py"]:
        assert "import pytest" not in path.read_text(), path


def test_requests_can_be_changed() -> None:
    case = RequestCase("x", request("GET /x HTTP/1.1", Host=None, X_Y=["1", "2"]), 400, "RFC", None)
    assert case.data.startswith(b"GET /x HTTP/1.1\r\nConnection: Upgrade\r\n")
    assert case.data.endswith(b"X-Y: 1\r\nX-Y: 2\r\n\r\n")
