"""What the ends of a connection say to each other, whoever made them: ours, websockets and picows have one interface.

``Library`` is one of them; ``meeting`` connects the client of one to the server of another, which answers as ``answer``
does. The conversations are coroutines that a test calls with the client's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from aio import tls_contexts
from cases.ends import CLOSES
from cases.messages import MESSAGES

from wsproto_fast.asyncio import connect, serve
from wsproto_fast.asyncio.server import basic_auth
from wsproto_fast.exceptions import ConnectionClosed, InvalidStatus

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Library:
    """A client and a server, and what their calls raise when the connection has ended."""

    serve: Any
    connect: Any
    closed: type[Exception]
    refused: type[Exception] = InvalidStatus
    basic_auth: Any = basic_auth


OURS = Library(serve, connect, ConnectionClosed)
WEBSOCKETS = Library(
    websockets.asyncio.server.serve,
    websockets.asyncio.client.connect,
    websockets.exceptions.ConnectionClosed,
    websockets.exceptions.InvalidStatus,
    websockets.asyncio.server.basic_auth,
)


@dataclasses.dataclass
class Meeting:
    """A client's end, the server, and how the server's ends ended."""

    ws: Any
    listening: Any
    closed: type[Exception]
    ended: asyncio.Queue[tuple[int | None, str | None]]
    again: Any

    async def receive_end(self) -> tuple[int | None, str | None]:
        """Receive the end of the connection; its code and reason on the client's side."""
        with pytest.raises(self.closed):
            await self.ws.recv()
        return self.ws.close_code, self.ws.close_reason or ""  # picows has None there


async def pieces(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item


async def answer(ws: Any) -> None:
    """Echo; and do what a text asks for that begins with ``/``."""
    async for message in ws:
        command = message.split(" ") if isinstance(message, str) and message.startswith("/") else [""]
        if command[0] == "/close":
            await ws.close(int(command[1]), " ".join(command[2:]))
        elif command[0] == "/ping":
            await (await ws.ping(b"of the server"))
            await ws.send("pinged")
        elif command[0] == "/fragments":
            await ws.send(pieces(["fr", "äg", "", "ments"]))
        elif command[0] == "/stream":
            await ws.send("ready")
            parts = [part async for part in ws.recv_streaming()]
            await ws.send(["".join(parts), f"|{len(parts)}"])
        elif command[0] == "/large":
            await ws.send(bytes(int(command[1])))
        else:
            await ws.send(message)


def drop(ws: Any) -> None:
    """End its transport. websockets leaves that to asyncio, which with TLS, and on Python 3.10, complains."""
    transport = getattr(ws, "transport", None)
    if transport is not None:
        transport.abort()


@contextlib.asynccontextmanager
async def dropping(opening: Any) -> AsyncIterator[Any]:
    async with opening as ws:
        yield ws
    drop(ws)


@contextlib.asynccontextmanager
async def meeting(
    server: Library, client: Library, *, tls: bool = False, serving: dict[str, Any] | None = None, **connecting: Any
) -> AsyncIterator[Meeting]:
    """A client of one library connected to a server of the other. ``again()`` makes another connection.

    ``login="user:password@"`` goes into the URI.
    """
    ended: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()
    server_tls, client_tls = tls_contexts() if tls else (None, None)

    async def handler(ws: Any) -> None:
        with contextlib.suppress(server.closed):
            await answer(ws)
        await ws.wait_closed()
        if tls:
            drop(ws)
        ended.put_nowait((ws.close_code, ws.close_reason or ""))

    async with server.serve(handler, "127.0.0.1", 0, ssl=server_tls, **(serving or {})) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]

        def again(**more: Any) -> Any:
            options = {"proxy": None, "ssl": client_tls, **connecting, **more}
            login = options.pop("login", "")
            opening = client.connect(f"{'wss' if tls else 'ws'}://{login}127.0.0.1:{port}/", **options)
            return dropping(opening) if tls else opening

        async with again() as ws:
            yield Meeting(ws, listening, client.closed, ended, again)


async def messages(ws: Any) -> None:
    """Messages of every kind, and Pings from both ends."""
    for message in MESSAGES:
        await ws.send(message)
        assert await ws.recv() == message
    await (await ws.ping())
    await (await ws.ping(b"p" * 125))
    await ws.send("/ping")
    assert await ws.recv() == "pinged"


async def fragments(ws: Any) -> None:
    """Messages sent in fragments are received whole or, where that is asked for, one by one; by both ends."""
    await ws.send(["fr", "äg", "", "ments"])
    assert await ws.recv() == "frägments"
    await ws.send(pieces([b"by", b"", b"tes" * 30_000]))
    assert await ws.recv() == b"by" + b"tes" * 30_000
    await ws.send("/fragments")
    parts = [part async for part in ws.recv_streaming()]
    assert "".join(parts) == "frägments"
    assert len(parts) > 2
    await ws.send("/stream")
    assert await ws.recv() == "ready"
    await ws.send(["fr", "äg", "ments"])
    text, _, count = (await ws.recv()).partition("|")
    assert text == "frägments"
    assert int(count) >= 3


async def pipeline(ws: Any, count: int = 500) -> None:
    """Many messages, sent while the echoes of others are received."""
    sent = [f"{number} " + "ä" * (number % 200) if number % 3 else bytes(number) for number in range(count)]

    async def send_all() -> None:
        for message in sent:
            await ws.send(message)

    sending = asyncio.ensure_future(send_all())
    assert [await ws.recv() for _ in sent] == sent
    await sending


async def large(ws: Any, size: int = 16 * MIB) -> None:
    """One message of 16 MiB each way, text and binary."""
    data = bytes(range(256)) * (size // 256)
    await ws.send(data)
    assert await ws.recv() == data
    text = "hé" * (size // 3)
    await ws.send(text)
    assert await ws.recv() == text


async def closes(server: Library, client: Library, **options: Any) -> None:
    """Each end closes with each code, and the other one is told."""
    for code, reason in CLOSES:
        async with meeting(server, client, **options) as met:
            await met.ws.close(code, reason)
            assert await met.ended.get() == (code, reason)
        async with meeting(server, client, **options) as met:
            await met.ws.send(f"/close {code} {reason}".rstrip())
            assert await met.receive_end() == (code, reason)


def sides(server: Library, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``meeting`` that give each library its options, whichever end it is."""
    return {"serving": ours, **theirs} if server is OURS else {"serving": theirs, **ours}


async def refusals(server: Library, client: Library, **options: Any) -> None:
    """What is over ``max_size`` ends the connection with 1009, for whoever receives it; what is just under does not."""
    limit = 100_000
    async with meeting(server, client, serving={**options, "max_size": limit}, **options) as met:
        await met.ws.send(b"x" * limit)
        assert await met.ws.recv() == b"x" * limit
        await met.ws.send(b"x" * (limit + 1))
        assert (await met.receive_end())[0] == 1009
        await met.ended.get()
    async with meeting(server, client, serving=options, max_size=limit, **options) as met:
        await met.ws.send(f"/large {limit}")
        assert await met.ws.recv() == bytes(limit)
        await met.ws.send(f"/large {limit + 1}")
        with pytest.raises(met.closed):
            await met.ws.recv()
        assert (await met.ended.get())[0] == 1009
