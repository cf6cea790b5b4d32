"""ws of node as a peer, as client and as server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aio import NODE_DIRECTORY, ROOT, node_with, port_of, run, serving
from conversations import CLOSES, MIB, answer, large, messages, pipeline
from peers import make_tls

from wsproto_fast import DeflateConfig
from wsproto_fast.asyncio import Connection, connect
from wsproto_fast.asyncio.server import basic_auth
from wsproto_fast.exceptions import ConnectionClosed

pytestmark = pytest.mark.external


class Node:
    """A script of tests/node, which reads and writes lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def read(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the script has ended"
        return json.loads(line)

    async def ask(self, **scenario: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(scenario).encode() + b"\n")
        return await self.read()


@contextlib.asynccontextmanager
async def node(script: str, *arguments: str) -> AsyncIterator[Node]:
    """The script running, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(node_with("ws"), str(ROOT / "tests" / "node" / script), str(NODE_DIRECTORY), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * MIB,
    )
    try:
        yield Node(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


class Watched:
    """A handler of ours that answers, and knows how each connection began and ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()
        self.agreed = ""

    async def __call__(self, ws: Connection) -> None:
        assert ws.response is not None
        self.agreed = ws.response.headers.get("Sec-WebSocket-Extensions", "")
        with contextlib.suppress(ConnectionClosed):
            await answer(ws)
        await ws.wait_closed()
        self.ended.put_nowait((ws.protocol.close_code, ws.protocol.close_reason))


SAY = [
    *("", "hello", "ünïcödé 🐍", "x" * 70_000, ["fr", "äg", "", "ments"]),
    *({"hex": ""}, {"hex": "00ff"}, [{"hex": "00" * 1000}, {"hex": "ff" * 70_000}]),
]
HEARD = [
    *("", "hello", "ünïcödé 🐍", "x" * 70_000, "frägments"),
    *({"hex": ""}, {"hex": "00ff"}, {"hex": "00" * 1000 + "ff" * 70_000}),
]
#: What ws is given, and what it agrees on with a server of ours.
CLIENTS: list[tuple[Any, list[str]]] = [
    (False, [""]),
    (True, ["permessage-deflate", "server_max_window_bits=12", "client_max_window_bits=12"]),
    (
        {"threshold": 0, "serverMaxWindowBits": 9},
        ["permessage-deflate", "server_max_window_bits=9", "client_max_window_bits=12"],
    ),
    (
        {"threshold": 0, "serverNoContextTakeover": True, "clientNoContextTakeover": True, "clientMaxWindowBits": 10},
        [
            *("permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"),
            *("server_max_window_bits=12", "client_max_window_bits=10"),
        ],
    ),
]


def test_client() -> None:
    async def main() -> None:
        watched = Watched()
        async with node("ws_client.mjs") as client, serving(watched, subprotocols=["best", "good"]) as server:
            common = {"uri": f"ws://127.0.0.1:{port_of(server)}/", "protocols": ["last", "good"]}
            for offered, agreed in CLIENTS:
                seen = await client.ask(
                    **common,
                    options={"perMessageDeflate": offered},
                    say=[*SAY, "/fragments", "/ping"],
                    expect=len(HEARD) + 2,
                    ping="are you there",
                    close=[4321, "döne"],
                )
                assert seen["error"] is None
                assert seen["messages"] == [*HEARD, "frägments", "pinged"]
                assert (seen["pings"], seen["pongs"]) == (["of the server"], ["are you there"])
                assert (watched.agreed, seen["protocol"]) == ("; ".join(agreed), "good")
                assert bool(seen["extensions"]) is bool(offered)
                assert (seen["code"], seen["reason"]) == (4321, "döne")
                assert await watched.ended.get() == (4321, "döne")
            many = [f"{number} " + "ä" * (number % 200) for number in range(500)]
            seen = await client.ask(**common, say=many, expect=len(many), terminate=True)
            assert seen["messages"] == many
            assert seen["code"] == 1006
            assert (await watched.ended.get())[0] == 1006
            for code, reason in CLOSES:
                seen = await client.ask(**common, close=[code, reason])
                assert await watched.ended.get() == (code, reason)
                seen = await client.ask(**common, say=[f"/close {code} {reason}".rstrip()])
                assert (seen["code"], seen["reason"]) == (code, reason)
                assert await watched.ended.get() == (code, reason)

    run(main(), limit=60)


def test_client_and_limits() -> None:
    async def main() -> None:
        watched = Watched()
        async with node("ws_client.mjs") as client, serving(watched, max_size=100_000) as server:
            common = {"uri": f"ws://127.0.0.1:{port_of(server)}/"}
            for compress in (True, False):
                options = {"perMessageDeflate": compress}
                # Each by itself: of two that are read together the first could not be echoed any more.
                seen = await client.ask(**common, options=options, say=["x" * 100_000], expect=1, close=[1000])
                assert seen["messages"] == ["x" * 100_000]
                assert (await watched.ended.get())[0] == 1000
                seen = await client.ask(**common, options=options, say=["x" * 100_001], expect=1)
                assert seen["messages"] == []
                assert seen["code"] == 1009
                assert (await watched.ended.get())[0] == 1009
                options = {"perMessageDeflate": compress, "maxPayload": 50_000}
                seen = await client.ask(**common, options=options, say=["/large 50000", "/large 50001"], expect=3)
                assert seen["messages"] == [{"hex": "00" * 50_000}]
                assert "Max payload size exceeded" in seen["error"]
                assert (await watched.ended.get())[0] == 1009

    run(main())


def test_client_and_refusals() -> None:
    async def main() -> None:
        check = basic_auth(credentials=("kate", "secret"))
        async with (
            node("ws_client.mjs") as client,
            serving(Watched(), origins=["https://good.example"], process_request=check) as server,
        ):
            uri = f"ws://127.0.0.1:{port_of(server)}/"
            right = {"origin": "https://good.example", "auth": "kate:secret"}
            assert (await client.ask(uri=uri, options=right, close=[1000]))["error"] is None
            for options, status in [({"origin": "https://evil.example"}, 403), ({"auth": "kate:wrong"}, 401)]:
                seen = await client.ask(uri=uri, options={**right, **options}, close=[1000])
                assert f"Unexpected server response: {status}" in seen["error"]

    run(main())


def test_server(tmp_path: Path) -> None:
    files, client_tls, _ = make_tls(tmp_path)
    names = {"key": files["key"], "cert": files["cert"]}
    servers: list[Any] = [
        {"perMessageDeflate": False},
        {"perMessageDeflate": {"threshold": 0}},
        {"perMessageDeflate": {"threshold": 0, "serverNoContextTakeover": True, "clientNoContextTakeover": True}},
        {"perMessageDeflate": {"threshold": 0, "serverMaxWindowBits": 9, "clientMaxWindowBits": 10}},
        {"maxPayload": 100_000, "perMessageDeflate": {"threshold": 0}},
        {**names, "perMessageDeflate": {"threshold": 0}},
    ]

    async def main() -> None:
        async with node("ws_server.mjs", json.dumps(servers)) as server:
            ports = await server.read()
            for port in ports[:4]:
                await converse(server, f"ws://127.0.0.1:{port}/")
            for config in (
                *(DeflateConfig(server_max_window_bits=bits, client_max_window_bits=bits) for bits in range(9, 16)),
                DeflateConfig(server_no_context_takeover=True, client_no_context_takeover=True),
            ):
                async with connect(f"ws://127.0.0.1:{ports[1]}/", compression=config, proxy=None) as ws:
                    await messages(ws)
                    agreed = ws.response.headers["Sec-WebSocket-Extensions"]
                    if config.server_max_window_bits < 15:
                        assert f"server_max_window_bits={config.server_max_window_bits}" in agreed
                    assert ("server_no_context_takeover" in agreed) is config.server_no_context_takeover
                assert (await server.read())[0] == 1000
            for code, reason in CLOSES:
                async with connect(f"ws://127.0.0.1:{ports[0]}/", proxy=None) as ws:
                    await ws.send(f"/close {code} {reason}".rstrip())
                    with pytest.raises(ConnectionClosed):
                        await ws.recv()
                    assert (ws.protocol.close_code, ws.protocol.close_reason) == (code, reason)
                assert await server.read() == [code, reason]
                async with connect(f"ws://127.0.0.1:{ports[0]}/", proxy=None) as ws:
                    await ws.close(code, reason)
                assert await server.read() == [code, reason]
            await limits(server, f"ws://127.0.0.1:{ports[4]}/")
            await converse(server, f"wss://127.0.0.1:{ports[5]}/", ssl=client_tls)

    run(main(), limit=60)


async def converse(server: Node, uri: str, **options: Any) -> None:
    options = {"proxy": None, "subprotocols": ["chat", "talk"], "max_size": 17 * MIB, **options}
    async with connect(uri, **options) as ws:
        assert ws.subprotocol == "chat"
        await messages(ws)
        await pipeline(ws)
        await ws.send(["fr", "äg", "", "ments"])
        assert await ws.recv() == "frägments"
        await ws.send("/fragments")
        assert "".join([part async for part in ws.recv_streaming()]) == "frägments"
        await large(ws, MIB)
    assert ws.close_code == 1000
    assert await server.read() == [1000, ""]
    async with connect(uri, **options) as ws:
        await ws.send("/terminate")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1006
    assert (await server.read())[0] == 1006


async def limits(server: Node, uri: str) -> None:
    async with connect(uri, proxy=None, max_size=50_000) as ws:
        await ws.send("/large 50000")
        assert await ws.recv() == bytes(50_000)
        await ws.send("/large 50001")
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert await server.read() == [1009, ws.protocol.close_sent.reason]
    async with connect(uri, proxy=None) as ws:
        await ws.send("x" * 100_000)
        assert await ws.recv() == "x" * 100_000
        await ws.send("x" * 100_001)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == 1009
    await server.read()


def test_client_over_tls(tmp_path: Path) -> None:
    files, _, server_tls = make_tls(tmp_path)

    async def main() -> None:
        watched = Watched()
        async with node("ws_client.mjs") as client, serving(watched, ssl=server_tls) as server:
            seen = await client.ask(
                uri=f"wss://127.0.0.1:{port_of(server)}/",
                options={"ca": files["authority"]},
                say=SAY,
                expect=len(HEARD),
                close=[4000, "bye"],
            )
            assert (seen["error"], seen["messages"], seen["code"]) == (None, HEARD, 4000)
            assert await watched.ended.get() == (4000, "bye")
            seen = await client.ask(uri=f"wss://127.0.0.1:{port_of(server)}/", close=[1000])
            assert "certificate" in seen["error"]

    run(main())
