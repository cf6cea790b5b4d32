"""What the adapter's tests share: running coroutines, echo servers, and peers that speak bytes.

``WSPROTO_FAST_LOOP=uvloop`` runs them all on uvloop, ``PYTHONASYNCIODEBUG=1`` in debug mode. `make test-loops`
does both.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
from cases.handshakes import REQUEST
from helpers import encode_frame, parse_frames
from peers import NODE_DIRECTORY as NODE_DIRECTORY
from peers import ROOT as ROOT
from peers import answer, missing
from peers import node_with as node_with
from peers import tls_contexts as tls_contexts

from wsproto_fast.asyncio import Connection, Server, connect, serve
from wsproto_fast.asyncio._compat import timeout
from wsproto_fast.asyncio._transports import HAS_REACTOR

T = TypeVar("T")

#: The event loop that `run` takes: "asyncio", which is the stock one, or "uvloop".
LOOP = os.environ.get("WSPROTO_FAST_LOOP") or "asyncio"
if LOOP not in ("asyncio", "uvloop"):
    raise pytest.UsageError(f"WSPROTO_FAST_LOOP is asyncio or uvloop, not {LOOP}")
#: Whether connections have transports of ours; else they have those of the loop.
REACTOR = HAS_REACTOR and os.environ.get("WSPROTO_FAST_REACTOR") != "0"
UVLOOPS_TRANSPORTS = LOOP == "uvloop" and not REACTOR
#: What asyncio tells its exception handler in debug mode, and in no other, of a TLS handshake that failed.
FAILED_HANDSHAKE = "Error on transport creation for incoming connection"

MASK = b"\x01\x02\x03\x04"


def run(coroutine: Coroutine[Any, Any, T], *, limit: float = 60.0) -> T:
    """Run a test's coroutine on the loop that was asked for.

    What asyncio reports to its exception handler fails the test; in debug mode so does, by pytest's filters, a warning
    of what the test has left behind: a transport that is not closed, a coroutine that was not awaited.
    """

    complaints: list[dict[str, Any]] = []

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context["message"] != FAILED_HANDSHAKE:
            complaints.append(context)

    async def main() -> tuple[T, bool]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(complain)
        loop.slow_callback_duration = limit  # that is logged, and some tests read the log
        async with timeout(limit):
            result = await coroutine
        await asyncio.sleep(0)
        return result, loop.get_debug()

    result, debug = runner()(main())
    if debug:
        collect_garbage()  # here, so that it is this test that fails
    assert not complaints, complaints
    return result


def collect_garbage() -> None:
    """Of what tests made: the first call sets aside all that was there, which takes a tenth of a second to look at."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()


def runner() -> Callable[..., Any]:
    """``asyncio.run``, or uvloop's."""
    if LOOP == "asyncio":
        return asyncio.run
    import uvloop

    return uvloop.run


def port_of(server: Server) -> int:
    return int(server.sockets[0].getsockname()[1])


def uri_of(server: Server, path: str = "/") -> str:
    return f"ws://127.0.0.1:{port_of(server)}{path}"


def tasks_of(server: Server) -> set[asyncio.Task[None]]:
    """The tasks that handle its connections."""
    return {connection._task for connection in server._alive if connection._task is not None}


async def echo(connection: Connection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def serving(handler: Callable[..., Awaitable[None]] = echo, **kwargs: Any) -> AsyncIterator[Server]:
    async with serve(handler, "127.0.0.1", 0, **kwargs) as server:
        yield server


@contextlib.asynccontextmanager
async def pair(
    handler: Callable[..., Awaitable[None]] = echo, *, server: dict[str, Any] | None = None, **client: Any
) -> AsyncIterator[Any]:
    """A client connected to a server of ours."""
    async with serving(handler, **(server or {})) as listening, connect(uri_of(listening), **client) as connection:
        yield connection


class Peer:
    """The other end as bytes. Frames are built and parsed without the engine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mask: bytes | None) -> None:
        self.reader = reader
        self.writer = writer
        self.mask = mask

    def write(self, first: int, payload: bytes = b"") -> None:
        self.writer.write(encode_frame(first, payload, mask=self.mask))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte and its payload."""
        head = await self.reader.readexactly(2)
        size = head[1] & 0x7F
        extended = {126: 2, 127: 8}.get(size, 0)
        if extended:
            more = await self.reader.readexactly(extended)
            size, head = int.from_bytes(more, "big"), head + more
        rest = await self.reader.readexactly(size + (4 if head[1] & 0x80 else 0))
        first, _, payload = parse_frames(head + rest)[0]
        return first, payload

    async def expect_close(self, code: int) -> str:
        """Read frames until the Close frame, which must have this code; returns its reason."""
        while True:
            first, payload = await self.frame()
            if first == 0x88:
                assert int.from_bytes(payload[:2], "big") == code
                return payload[2:].decode()

    async def expect_eof(self) -> None:
        assert await self.reader.read() == b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def peer_of(server: Server, *, headers: bytes = b"", **kwargs: Any) -> AsyncIterator[Peer]:
    """A client made of bytes, its handshake done. ``small=True``: little fits between it and the server."""
    if kwargs.pop("small", False):
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # of connections accepted from now on
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port_of(server)))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1000)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), **kwargs)
    peer = Peer(reader, writer, MASK)
    try:
        writer.write(REQUEST + headers + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield peer
    finally:
        await peer.close()


@contextlib.asynccontextmanager
async def raw(server: Server, **kwargs: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), **kwargs)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def byte_server(
    talk: Callable[[Peer], Awaitable[None]], *, handshake: bool = True, **kwargs: Any
) -> AsyncIterator[str]:
    """A server made of bytes; ``talk`` is what it does once its handshake is done. Yields its URI."""
    done: list[BaseException | None] = []
    over = asyncio.Event()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, None)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if handshake:
                writer.write(answer(head))
            await talk(peer)
            done.append(None)
        except BaseException as exc:
            done.append(exc)
        finally:
            await peer.close()
            over.set()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, **kwargs)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await over.wait()
    if done[0] is not None:
        raise done[0]


def chromium() -> str:
    """The path of a browser of its kind."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("chromium is not installed")
    assert path is not None
    return path


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is so. The test's time limit ends the wait."""
    while not condition():
        await asyncio.sleep(0.001)
