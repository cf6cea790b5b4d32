"""What the adapter's tests share: servers in threads, and peers that speak bytes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cases.handshakes import REQUEST
from helpers import encode_frame, parse_frames

from wsproto_fast.threading import ClientConnection, Server, connect, serve

MASK = b"\x01\x02\x03\x04"
#: No wait of a test is to last longer.
LIMIT = 10.0


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

    runner = threading.Thread(target=run)
    runner.start()
    yield outcome
    runner.join(LIMIT)
    assert not runner.is_alive(), "it does not end"


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


@contextlib.contextmanager
def raw(server: Server) -> Iterator[Peer]:
    """A TCP connection to the server."""
    with socket.create_connection(("127.0.0.1", port_of(server))) as sock:
        yield Peer(sock, MASK)


@contextlib.contextmanager
def peer_of(server: Server, headers: bytes = b"") -> Iterator[Peer]:
    """A client made of bytes, its handshake done."""
    with raw(server) as peer:
        peer.sock.sendall(REQUEST + headers + b"\r\n")
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        yield peer


def answer(request: bytes, headers: bytes = b"") -> bytes:
    """The 101 for a request."""
    import base64
    import hashlib

    key = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    digest = hashlib.sha1(key.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + base64.b64encode(digest)
        + b"\r\n"
        + headers
        + b"\r\n"
    )


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


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server, with a certificate for localhost, and of a client that trusts it."""
    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client
