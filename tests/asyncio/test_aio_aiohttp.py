"""aiohttp as a peer, as client and as server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp
import pytest
from aio import run, until
from aiohttp import web
from conversations import MIB, OURS, Library, closes, large, meeting, messages, pipeline, sides

from wsproto_fast import DeflateConfig
from wsproto_fast.asyncio.server import basic_auth


class EndedError(Exception):
    """What ``End.recv`` raises at the end."""


class End:
    """An end of aiohttp's with websockets' interface, as far as it goes: it sends and receives whole messages only."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.close_reason: str | None = None
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def close_code(self) -> int | None:
        return self.ws.close_code

    async def send(self, message: Any) -> None:
        if hasattr(message, "__aiter__"):
            message = "".join([part async for part in message])
        if isinstance(message, str):
            await self.ws.send_str(message)
        else:
            await self.ws.send_bytes(message)

    async def recv(self) -> Any:
        message = await self.ws.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return message.data
        if message.type is aiohttp.WSMsgType.CLOSE:
            self.close_reason = message.extra
        raise EndedError(message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        with contextlib.suppress(EndedError):
            while True:
                yield await self.recv()

    async def ping(self, data: bytes = b"") -> Awaitable[None]:
        """Its answer cannot be waited for."""
        await self.ws.ping(data)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.close_reason = reason
        await self.ws.close(code=code, message=reason.encode())

    async def wait_closed(self) -> None:
        await self.ws.close()


@contextlib.asynccontextmanager
async def open_end(uri: str, *, ssl: Any = None, proxy: None = None, **options: Any) -> AsyncIterator[End]:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(uri, ssl=ssl or True, **options) as ws:
            yield End(ws)


@contextlib.asynccontextmanager
async def serve_ends(handler: Any, host: str, port: int, *, ssl: Any = None, **options: Any) -> AsyncIterator[Any]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(**options)
        await ws.prepare(request)
        await handler(End(ws))
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=ssl)
    await site.start()
    try:
        yield site._server
    finally:
        await runner.cleanup()


AIOHTTP = Library(serve_ends, open_end, EndedError)

with_aiohttp = pytest.mark.parametrize(
    ("server", "client"), [pytest.param(AIOHTTP, OURS, id="server"), pytest.param(OURS, AIOHTTP, id="client")]
)
compressions = pytest.mark.parametrize("compression", ["deflate", None])


def compressing(compression: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ours and aiohttp are given for it."""
    return {"compression": compression}, {"compress": 15 if compression else 0}


@with_aiohttp
@compressions
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_messages(server: Library, client: Library, compression: str | None, tls: bool) -> None:
    async def main() -> None:
        async with meeting(server, client, tls=tls, **sides(server, *compressing(compression))) as met:
            if client is OURS:
                assert ("Sec-WebSocket-Extensions" in met.ws.response.headers) is (compression is not None)
                await met.ws.send(["fr", "äg", "", "ments"])
                assert await met.ws.recv() == "frägments"
            else:
                assert bool(met.ws.ws.compress) is (compression is not None)
                await met.ws.send("/fragments")
                assert await met.ws.recv() == "frägments"
            await messages(met.ws)
            async with met.again() as one, met.again() as two:
                await asyncio.gather(pipeline(met.ws), pipeline(one), pipeline(two))

    run(main())


@pytest.mark.parametrize("bits", range(9, 16))
def test_windows(bits: int) -> None:
    text = "".join(random.Random(1).choices("abcdefgh", k=40_000)) * 2

    async def main() -> None:
        async with meeting(OURS, AIOHTTP, serving={"compression": DeflateConfig(threshold=0)}, compress=bits) as met:
            await met.ws.send(text)
            assert await met.ws.recv() == text
        for takeover in (False, True):
            config = DeflateConfig(
                threshold=0,
                server_max_window_bits=bits,
                server_no_context_takeover=takeover,
                client_no_context_takeover=takeover,
            )
            async with meeting(AIOHTTP, OURS, compression=config) as met:
                for message in (text, "", text):
                    await met.ws.send(message)
                    assert await met.ws.recv() == message

    run(main())


@with_aiohttp
@compressions
def test_large_messages(server: Library, client: Library, compression: str | None) -> None:
    async def main() -> None:
        ours, theirs = compressing(compression)
        ours["max_size"] = theirs["max_msg_size"] = 17 * MIB
        async with meeting(server, client, **sides(server, ours, theirs)) as met:
            await large(met.ws)

    run(main(), limit=60)


@with_aiohttp
def test_closes(server: Library, client: Library) -> None:
    run(closes(server, client))


@with_aiohttp
@compressions
def test_messages_over_the_limit(server: Library, client: Library, compression: str | None) -> None:
    async def main() -> None:
        limit = 100_000
        ours, theirs = compressing(compression)
        async with meeting(server, client, **sides(server, {**ours, "max_size": limit}, theirs)) as met:
            if client is OURS:
                await met.ws.send(f"/large {limit}")
                assert await met.ws.recv() == bytes(limit)
                await met.ws.send(f"/large {limit + 1}")
            else:
                await met.ws.send(bytes(limit))
                assert await met.ws.recv() == bytes(limit)
                await met.ws.send(bytes(limit + 1))
            told = [(await met.receive_end())[0], (await met.ended.get())[0]]
            assert told[server is OURS] in (1006, 1009)  # who fails a connection listens no more
            assert told[client is OURS] == 1009
        async with meeting(server, client, **sides(server, ours, {**theirs, "max_msg_size": limit})) as met:
            if client is OURS:
                await met.ws.send(bytes(limit + 1))
            else:
                await met.ws.send(f"/large {limit + 1}")
            told = [(await met.receive_end())[0], (await met.ended.get())[0]]
            assert told[client is AIOHTTP] == 1009

    run(main())


@with_aiohttp
@pytest.mark.parametrize("who", ["ours", "theirs"])
def test_keepalive(server: Library, client: Library, who: str) -> None:
    async def main() -> None:
        # one at a time: aiohttp pings a peer that is silent
        options: tuple[dict[str, Any], dict[str, Any]] = ({"ping_interval": 0.01}, {})
        if who == "theirs":
            options = ({"ping_interval": None}, {"heartbeat": 0.2})  # waits half of it for an answer
        async with meeting(server, client, **sides(server, *options)) as met:
            ours = met.ws if client is OURS else next(iter(met.listening.connections))
            theirs = asyncio.ensure_future(met.ws.recv())  # aiohttp reads only then
            await until(lambda: (ours.stats.pongs_received if who == "ours" else ours.stats.pings_received) >= 3)
            await ours.send("hello")
            assert await theirs == "hello"

    run(main())


def login(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_handshakes() -> None:
    async def main() -> None:
        async with meeting(AIOHTTP, OURS, serving={"protocols": ["best", "good"]}, subprotocols=["good"]) as met:
            assert met.ws.subprotocol == "good"
        serving = {
            "subprotocols": ["best", "good"],
            "origins": ["https://good.example"],
            "process_request": basic_auth(credentials=("kate", "secret")),
        }
        right = {
            "protocols": ["last", "good"],
            "origin": "https://good.example",
            "headers": login("kate", "secret"),
        }
        async with meeting(OURS, AIOHTTP, serving=serving, **right) as met:
            assert met.ws.ws.protocol == "good"
            wrong = [
                ({"protocols": ["last"]}, 400),
                ({"origin": "https://evil.example"}, 403),
                ({"headers": login("kate", "wrong")}, 401),
            ]
            for options, status in wrong:
                with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                    async with met.again(**options):
                        pass
                assert caught.value.status == status

    run(main())
