"""uvicorn servers in the loop of a test, and what its clients and applications see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from wsproto_fast.testing import Frame, encode_frame, request
from wsproto_fast.testing._wire import decode_frame

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = "wsproto_fast.contrib.uvicorn:WebSocketProtocol"
THEIRS = "websockets-sansio"  # uvicorn's default
LIMIT = 60.0  # seconds for a test

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[Any]]
T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], runner: Callable[[Any], Any] = asyncio.run) -> T:
    """What the loop reports to its exception handler fails the test."""
    complaints: list[dict[str, Any]] = []

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        return await asyncio.wait_for(coroutine, LIMIT)

    result: T = runner(main())
    assert not complaints, complaints
    return result


@contextlib.asynccontextmanager
async def serving(app: App, ws: str = OURS, **options: Any) -> AsyncIterator[uvicorn.Server]:
    """A server of that application, until the end of the block."""
    options = {"http": "httptools", "lifespan": "off", "log_config": None, "port": 0, **options}
    config = uvicorn.Config(app, ws=ws, **options)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await server.on_tick(0)  # makes the default headers
    try:
        yield server
    finally:
        await server.shutdown()


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def uri_of(server: uvicorn.Server, target: str = "/") -> str:
    return f"ws://127.0.0.1:{port_of(server)}{target}"


def connection_of(server: uvicorn.Server) -> Any:
    """Our protocol object of the only connection."""
    (connection,) = server.server_state.connections
    return connection


class Raw:
    """A client that writes bytes and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._input = b""

    async def frame(self) -> Frame | None:
        """The next frame; None when the server has closed."""
        while (decoded := decode_frame(self._input)) is None:
            data = await self.reader.read(2**16)
            if not data:
                assert not self._input
                return None
            self._input += data
        frame, masked, end = decoded
        assert not masked
        self._input = self._input[end:]
        return frame

    def send(self, *frames: Frame) -> None:
        """In one write."""
        self.writer.write(b"".join([encode_frame(frame.first, frame.payload, mask=b"abcd") for frame in frames]))


@contextlib.asynccontextmanager
async def raw(server: uvicorn.Server, **changes: Any) -> AsyncIterator[Raw]:
    """An open connection."""
    async with asking(server, **changes) as client:
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield client


@contextlib.asynccontextmanager
async def asking(server: uvicorn.Server, **changes: Any) -> AsyncIterator[Raw]:
    """A connection that has asked for a WebSocket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    try:
        writer.write(request("GET / HTTP/1.1", **changes))
        yield Raw(reader, writer)
    finally:
        writer.close()
