"""uvicorn servers in the loop of a test, and what its clients and applications see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = "wsproto_fast.contrib.uvicorn:WebSocketProtocol"
THEIRS = "websockets-sansio"  # uvicorn's default
LIMIT = 15.0  # seconds for a test

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
