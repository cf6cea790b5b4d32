"""What the adapter's tests share: servers in threads, and peers that speak bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import websockets.sync.server
from cases.handshakes import REQUEST
from helpers import encode_frame, parse_frames
from peers import ROOT as ROOT
from peers import answer
from peers import descriptors as descriptors
from peers import tls_contexts as tls_contexts

from wsproto_fast.threading import ClientConnection, Connection, Server, ServerConnection, connect, serve

T = TypeVar("T")

#: With it, close() resets the connection.
RESET = struct.pack("ii", 1, 0)

MASK = b"\x01\x02\x03\x04"
#: No wait of a test is to last longer.
LIMIT = 30.0
#: More than fits between a peer that does not read and a small limit.
LARGE = bytes(200_000)


def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait for something that other threads do."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.001)


@contextlib.contextmanager
def thread(function: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run a function beside the block, which waits for its end. What it returns, or raises, is in the list then."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as exc:
            outcome.append(exc)

    runner = threading.Thread(target=run, daemon=True)  # if the block fails, nobody may tell it to end
    runner.start()
    yield outcome
    runner.join(LIMIT)
    assert not runner.is_alive(), "it does not end"


@contextlib.contextmanager
def elsewhere(make: Callable[[], contextlib.AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """An asynchronous context manager that is made and entered in the event loop of another thread, and left there."""
    ready = threading.Event()
    entered: list[T] = []

    async def main() -> None:
        try:
            async with make() as value:
                leave = asyncio.Event()
                leaving.append((asyncio.get_running_loop(), leave))
                entered.append(value)
                ready.set()
                await leave.wait()
        finally:
            ready.set()

    leaving: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    with thread(lambda: asyncio.run(main())) as outcome:
        assert ready.wait(LIMIT)
        try:
            yield entered[0]
        finally:
            for loop, leave in leaving:
                loop.call_soon_threadsafe(leave.set)
    assert outcome == [None], outcome


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def serving(
    handler: Any = echo, host: str | None = "127.0.0.1", port: int | None = 0, **kwargs: Any
) -> Iterator[Server]:
    """A server that runs during the block."""
    with running(serve(handler, host, port, **kwargs)) as server:
        yield server


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    with thread(server.serve_forever) as outcome:
        with server:
            yield server
    assert outcome == [None]


def port_of(server: Server) -> int:
    return int(server.socket.getsockname()[1])


def uri_of(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{port_of(server)}{path}"


@contextlib.contextmanager
def pair(handler: Any = echo, server: dict[str, Any] | None = None, **kwargs: Any) -> Iterator[ClientConnection]:
    """A client of a server of ours."""
    with serving(handler, **(server or {})) as running_server:
        with connect(uri_of(running_server), **kwargs) as connection:
            yield connection


class Peer:
    """One end of a connection, made of bytes."""

    def __init__(self, sock: Any, mask: bytes | None) -> None:
        sock.settimeout(LIMIT)
        self.sock = sock
        self.mask = mask
        self.data = b""

    def send(self, first: int, payload: bytes = b"") -> None:
        self.sock.sendall(encode_frame(first, payload, mask=self.mask))

    def send_frames(self, *frames: tuple[int, bytes]) -> None:
        """At once."""
        self.sock.sendall(b"".join(encode_frame(first, payload, mask=self.mask) for first, payload in frames))

    def read(self, size: int) -> bytes:
        while len(self.data) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.data += data
        data, self.data = self.data[:size], self.data[size:]
        return data

    def head(self) -> bytes:
        """The head of a request or an answer."""
        while b"\r\n\r\n" not in self.data:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.data += data
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame."""
        head = self.read(2)
        size = head[1] & 0x7F
        extended = {126: 2, 127: 8}.get(size, 0)
        if extended:
            more = self.read(extended)
            size, head = int.from_bytes(more, "big"), head + more
        rest = self.read(size + (4 if head[1] & 0x80 else 0))
        first, _, payload = parse_frames(head + rest)[0]
        return first, payload

    def expect_close(self, code: int) -> str:
        """Read frames until the Close frame, which must have this code; returns its reason."""
        while True:
            first, payload = self.frame()
            if first == 0x88:
                assert int.from_bytes(payload[:2], "big") == code
                return payload[2:].decode()

    def expect_eof(self) -> None:
        assert self.sock.recv(1) == b""

    def rest(self) -> bytes:
        """All that comes until the end, however it ends."""
        data, self.data = self.data, b""
        with contextlib.suppress(ConnectionError):
            while more := self.sock.recv(65536):
                data += more
        return data

    def reset(self) -> None:
        """Go away without a word."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def answer_close(self) -> None:
        """Read frames until the Close frame, and answer it."""
        first, payload = self.frame()
        while first != 0x88:
            first, payload = self.frame()
        self.send(0x88, payload)


@contextlib.contextmanager
def raw(server: Server, *, small: bool = False) -> Iterator[Peer]:
    """A TCP connection to the server. ``small``: it takes little before it is read."""
    with socket.socket() as sock:
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(LIMIT)
        sock.connect(("127.0.0.1", port_of(server)))
        yield Peer(sock, MASK)


@contextlib.contextmanager
def peer_of(server: Server, headers: bytes = b"", *, small: bool = False) -> Iterator[Peer]:
    """A client made of bytes, its handshake done."""
    with raw(server, small=small) as peer:
        peer.sock.sendall(REQUEST + headers + b"\r\n")
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        yield peer


@contextlib.contextmanager
def byte_server(
    talk: Callable[[Peer], Any], *, handshake: bool = True, then: bytes = b"", wrap: Any = None, small: bool = False
) -> Iterator[str]:
    """A server made of bytes for one client; ``talk`` is what it does once its handshake is done. Yields its URI."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if small:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

        def run() -> None:
            sock, _ = listening.accept()
            if wrap is not None:
                sock = wrap.wrap_socket(sock, server_side=True)
            with sock:
                peer = Peer(sock, None)
                if handshake:
                    sock.sendall(answer(peer.head()) + then)
                talk(peer)

        with thread(run) as outcome:
            scheme = "ws" if wrap is None else "wss"
            yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/"
    assert outcome == [None]


def narrow(uri: str) -> socket.socket:
    """A socket connected to a server, into which little fits."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sock.connect(("127.0.0.1", int(uri.rpartition(":")[2].rstrip("/"))))
    return sock


class Answering:
    """A server made of bytes for any number of clients. ``respond`` makes the answer to each request; b"" is none, None
    the end at once."""

    def __init__(self, respond: Callable[[bytes], bytes | None], scheme: str = "ws") -> None:
        self.respond = respond
        self.scheme = scheme
        self.port = 0
        self.requests: list[bytes] = []
        #: Connections that the client has not ended.
        self.open = 0

    def talk(self, peer: Peer) -> None:
        self.requests.append(peer.head())
        response = self.respond(self.requests[-1])
        if response is not None:
            peer.sock.sendall(response)
            if peer.sock.recv(65536):
                peer.sock.sendall(b"\x88\x02\x03\xe8")  # to what must be a Close frame

    def uri(self, path: str = "/", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def headers(self, request: int = -1) -> dict[str, str]:
        lines = self.requests[request].decode().split("\r\n")[1:-2]
        return dict(line.split(": ", 1) for line in lines)


@contextlib.contextmanager
def answering(
    respond: Callable[[bytes], bytes | None] = answer, *, tls: ssl.SSLContext | None = None
) -> Iterator[Answering]:
    server = Answering(respond, "ws" if tls is None else "wss")

    def talk(peer: Peer) -> None:
        server.open += 1
        try:
            server.talk(peer)
        finally:
            server.open -= 1

    with talking(talk, tls=tls) as port:
        server.port = port
        yield server
        until(lambda: not server.open)


@contextlib.contextmanager
def talking(talk: Callable[[Peer], object], *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server made of bytes for any number of clients, each in a thread, which may go whenever they like. Yields its
    port; in the end no client may be left, and nothing but a lost connection may have been raised."""
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def run(sock: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
                stack.callback(sock.close)
                sock.settimeout(LIMIT)
                if tls is not None:
                    sock = stack.enter_context(tls.wrap_socket(sock, server_side=True))
                talk(Peer(sock, None))
        except BaseException as exc:
            errors.append(exc)

    def accept() -> None:
        while True:
            sock, _ = listening.accept()
            if over:
                sock.close()
                return
            threads.append(threading.Thread(target=run, args=(sock,), daemon=True))
            threads[-1].start()

    over: list[bool] = []
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listening:
        address = listening.getsockname()
        with thread(accept) as outcome:
            try:
                yield address[1]
            finally:
                over.append(True)
                socket.create_connection(address).close()
        for each in threads:
            each.join(LIMIT)
            assert not each.is_alive(), "a client does not go"
        assert outcome == [None]
        assert errors == []


@contextlib.contextmanager
def handed_over(
    *, headers: bytes = b"", small: bool = False, **settings: Any
) -> Iterator[tuple[ServerConnection, Peer]]:
    """A server's connection with which nothing happens but what the test does, and its peer. ``small``: little fits
    between the two."""
    got: list[ServerConnection] = []
    over = threading.Event()

    def handler(connection: ServerConnection) -> None:
        got.append(connection)
        over.wait(60)

    settings = {"close_timeout": 0.2, **settings}
    with serving(handler, **settings) as server:
        if small:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with contextlib.ExitStack() as stack:
            stack.callback(over.set)
            peer = stack.enter_context(peer_of(server, headers, small=small))
            until(lambda: got)
            yield got[0], peer


def start(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Call it in a thread of its own; ``finish`` gets what it returned or raised."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


def finish(future: Future[Any]) -> Any:
    return future.result(LIMIT)


@contextlib.contextmanager
def ours(handler: Callable[..., None] | None = echo, **kwargs: Any) -> Iterator[str]:
    """A server of ours; its URI."""
    with serve(handler, "127.0.0.1", 0, **kwargs) as server:
        running = start(server.serve_forever)
        yield f"ws{'s' * ('ssl' in kwargs)}://localhost:{server.socket.getsockname()[1]}/"
        server.shutdown()
        finish(running)


@contextlib.contextmanager
def theirs(handler: Callable[..., None] = echo, **kwargs: Any) -> Iterator[str]:
    """A server of websockets.sync; its URI."""
    with websockets.sync.server.serve(handler, "127.0.0.1", 0, **kwargs) as server:
        running = start(server.serve_forever)
        yield f"ws{'s' * ('ssl' in kwargs)}://localhost:{server.socket.getsockname()[1]}/"
        server.shutdown()
        finish(running)


SERVERS = {"ours": ours, "theirs": theirs}


@contextlib.contextmanager
def listening(talk: Callable[[Peer], object], *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server made of bytes for any number of connections, one after the other; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                sock, _ = listener.accept()
                with contextlib.suppress(OSError, EOFError):
                    sock.settimeout(LIMIT)
                    if tls is not None:
                        sock = tls.wrap_socket(sock, server_side=True)
                    with contextlib.closing(sock):
                        talk(Peer(sock, None))
                sock.close()

        running = start(run)
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        assert isinstance(running.exception(LIMIT), OSError), running.exception()


@contextlib.contextmanager
def linked(
    *,
    trailing: bytes = b"",
    headers: bytes = b"",
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    small: bool = False,
    **kwargs: Any,
) -> Iterator[tuple[ClientConnection, Peer]]:
    """A client of ours and a server made of bytes. ``trailing`` follows its answer at once; ``small``: little fits
    between the two."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def accept() -> Peer:
            sock, _ = listener.accept()
            if tls is not None:
                sock = tls[0].wrap_socket(sock, server_side=True)
            peer = Peer(sock, None)
            sock.sendall(answer(peer.head(), headers) + trailing)
            return peer

        accepted = start(accept)
        scheme = "ws"
        if tls is not None:
            scheme = "wss"
            kwargs["ssl"] = tls[1]
        if small:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.connect(listener.getsockname())
            kwargs["sock"] = sock
        kwargs.setdefault("compression", None)
        connection = connect(f"{scheme}://localhost:{listener.getsockname()[1]}/", **kwargs)
        peer = finish(accepted)
        try:
            yield connection, peer
        finally:
            peer.sock.close()
            connection.close()


def fill(connection: Connection) -> int:
    """Send to a peer that does not read until no more is taken; returns how many messages ``LARGE`` were."""
    count = 0
    while connection.try_send(LARGE):
        count += 1
    return count


def blocked(connection: Connection) -> Callable[[], bool]:
    """Whether some thread waits on it: to read, or in another system call."""
    return lambda: connection._reader or connection._users > 0
