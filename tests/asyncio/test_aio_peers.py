"""Conversations with other people's WebSocket libraries, as client and as server, compressed and not, and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import websockets.asyncio.client
import websockets.asyncio.server
import wsproto
import wsproto.events
from aio import NODE_DIRECTORY, ROOT, echo, missing, port_of, run, serving, tls_contexts, uri_of
from aiohttp import web

from wsproto_fast import DeflateConfig
from wsproto_fast.asyncio import ServerConnection, connect, serve, unix_connect, unix_serve
from wsproto_fast.exceptions import ConnectionClosed, ConnectionClosedOK

MESSAGES: list[str | bytes] = ["", "hello", "ünïcödé 🐍", "x" * 70_000, b"", b"\x00\xff", bytes(range(256)) * 2000]
#: What ours is given, and whether the peer compresses.
COMPRESSION = [("deflate", True), (DeflateConfig(threshold=0, server_max_window_bits=15), True), (None, False)]
compressions = pytest.mark.parametrize(("ours", "theirs"), COMPRESSION, ids=["deflate", "windows", "plain"])


class Watch:
    """A handler of ours that echoes, and knows how each connection ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def __call__(self, ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await echo(ws)
        self.ended.put_nowait((ws.close_code, ws.close_reason))


@compressions
def test_websockets_client(ours: Any, theirs: bool) -> None:
    async def main() -> None:
        watch = Watch()
        async with serving(watch, compression=ours, subprotocols=["chat"]) as server:
            async with websockets.asyncio.client.connect(
                uri_of(server),
                compression="deflate" if theirs else None,
                subprotocols=[websockets.Subprotocol("chat")],
                proxy=None,
            ) as ws:
                assert ("Sec-WebSocket-Extensions" in ws.response.headers) is theirs
                assert ws.subprotocol == "chat"
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send(["fr", "ag", "ments"])
                assert await ws.recv() == "fragments"
                await (await ws.ping())
                await ws.close(4000, "bye")
            assert await watch.ended.get() == (4000, "bye")

    run(main())


@compressions
def test_websockets_server(ours: Any, theirs: bool) -> None:
    async def handler(ws: websockets.asyncio.server.ServerConnection) -> None:
        async for message in ws:
            await ws.send([message[: len(message) // 2], message[len(message) // 2 :]] if len(message) > 9 else message)
            if message == "end":
                await ws.close(4000, "bye")

    async def main() -> None:
        async with websockets.asyncio.server.serve(
            handler, "127.0.0.1", 0, compression="deflate" if theirs else None
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/", compression=ours) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                await (await ws.ping())
                await ws.send(["e", "nd"])
                assert await ws.recv() == "end"
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                assert (ws.close_code, ws.close_reason) == (4000, "bye")

    run(main())


@compressions
def test_aiohttp_client(ours: Any, theirs: bool) -> None:
    async def main() -> None:
        watch = Watch()
        async with (
            serving(watch, compression=ours) as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port_of(server)}/", compress=15 if theirs else 0) as ws,
        ):
            assert bool(ws.compress) is theirs
            for message in MESSAGES:
                if isinstance(message, str):
                    await ws.send_str(message)
                    assert await ws.receive_str() == message
                else:
                    await ws.send_bytes(message)
                    assert await ws.receive_bytes() == message
            await ws.ping(b"ping")
            await ws.close(code=4000, message=b"bye")
            assert await watch.ended.get() == (4000, "bye")

    run(main())


@compressions
def test_aiohttp_server(ours: Any, theirs: bool) -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=theirs)
        await ws.prepare(request)
        async for message in ws:
            if message.data == "end":
                await ws.close(code=4000, message=b"bye")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            async with connect(f"ws://127.0.0.1:{port}/", compression=ours) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                await (await ws.ping())
                await ws.send("end")
                with pytest.raises(ConnectionClosed):
                    await ws.recv()
                assert (ws.close_code, ws.close_reason) == (4000, "bye")
        finally:
            await runner.cleanup()

    run(main())


async def wsproto_talk(
    connection: wsproto.WSConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on: Callable[..., Any]
) -> None:
    """Feed a wsproto connection until either side ends; ``on(event)`` gives events to send, None ends it."""
    while True:
        data = await reader.read(1000)
        connection.receive_data(data or None)
        for event in connection.events():
            replies = on(event)
            if replies is None:
                return
            for reply in replies:
                writer.write(connection.send(reply))


def test_wsproto_client() -> None:
    async def main() -> None:
        watch = Watch()
        received: list[Any] = []
        parts: list[Any] = []

        def on(event: Any) -> Any:
            if isinstance(event, wsproto.events.AcceptConnection):
                return [
                    *(wsproto.events.Message(message) for message in MESSAGES),
                    wsproto.events.Ping(b"ping"),
                    wsproto.events.CloseConnection(4000, "bye"),
                ]
            if isinstance(event, wsproto.events.Message):
                parts.append(event.data)
                if event.message_finished:
                    received.append((b"" if isinstance(parts[0], (bytes, bytearray)) else "").join(parts))
                    parts.clear()
            if isinstance(event, wsproto.events.Pong):
                received.append(("pong", bytes(event.payload)))
            return None if isinstance(event, wsproto.events.CloseConnection) else []

        async with serving(watch) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
            writer.write(connection.send(wsproto.events.Request(host="localhost", target="/")))
            await wsproto_talk(connection, reader, writer, on)
            writer.close()
            await writer.wait_closed()
            assert await watch.ended.get() == (4000, "bye")
        # our echoes may end when its Close is there; those before it are whole and in order
        echoed = [item for item in received if not isinstance(item, tuple)]
        assert echoed == MESSAGES[: len(echoed)]
        assert ("pong", b"ping") in received

    run(main())


def test_wsproto_server() -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)

            def on(event: Any) -> Any:
                if isinstance(event, wsproto.events.Request):
                    return [wsproto.events.AcceptConnection()]
                if isinstance(event, wsproto.events.Message):
                    return [wsproto.events.Message(event.data, message_finished=event.message_finished)]
                if isinstance(event, wsproto.events.Ping):
                    return [event.response()]
                if isinstance(event, wsproto.events.CloseConnection):
                    writer.write(connection.send(event.response()))
                    return None
                return []

            await wsproto_talk(connection, reader, writer, on)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            done.set()

        async with await asyncio.start_server(on_connection, "127.0.0.1", 0) as server:
            async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
                for message in MESSAGES:
                    if message:  # it answers an empty message with nothing
                        await ws.send(message)
                        assert await ws.recv() == message
                await (await ws.ping())
            await done.wait()

    run(main())


def node() -> str:
    path = shutil.which("node")
    if path is None:
        missing("node is not installed")
    if not (NODE_DIRECTORY / "node_modules" / "ws").is_dir():
        missing(f"ws of node is not installed in {NODE_DIRECTORY}")
    assert path is not None
    return path


@pytest.mark.parametrize("compression", ["on", "off"])
def test_node_client(compression: str) -> None:
    arguments = (node(), str(ROOT / "tests" / "node" / "ws_client.mjs"), str(NODE_DIRECTORY))

    async def main() -> None:
        watch = Watch()
        async with serving(watch, compression="deflate" if compression == "on" else None) as server:
            process = await asyncio.create_subprocess_exec(*arguments, uri_of(server), compression)
            assert await process.wait() == 0
            assert await watch.ended.get() == (4321, "done")

    run(main())


@pytest.mark.parametrize("compression", ["on", "off"])
def test_node_server(compression: str) -> None:
    arguments = (node(), str(ROOT / "tests" / "node" / "ws_server.mjs"), str(NODE_DIRECTORY), compression)

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port = int(await process.stdout.readline())
            async with connect(f"ws://127.0.0.1:{port}/") as ws:
                assert ws.response is not None
                assert ("Sec-WebSocket-Extensions" in ws.response.headers) is (compression == "on")
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send(["fr", "ag", "ments"])
                assert await ws.recv() == "fragments"
                await (await ws.ping(b"ping"))
            assert ws.close_code == 1000
        finally:
            process.stdin.close()
            await process.wait()

    run(main())


@pytest.mark.parametrize(
    ("server_kind", "client_kind"), [("ours", "ours"), ("ours", "websockets"), ("websockets", "ours")]
)
def test_tls(server_kind: str, client_kind: str) -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        start: Any = serve if server_kind == "ours" else websockets.asyncio.server.serve
        open_client: Any = connect if client_kind == "ours" else websockets.asyncio.client.connect
        more = {} if client_kind == "ours" else {"proxy": None}

        async def handler(ws: Any) -> None:
            async for message in ws:
                await ws.send(message)

        async with start(handler, "127.0.0.1", 0, ssl=server_tls) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            uri = f"wss://127.0.0.1:{port}/"
            async with open_client(uri, ssl=client_tls, **more) as ws:
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                await (await ws.ping())
            assert ws.close_code == 1000
            ws.transport.close()  # websockets leaves that to asyncio, which on Python 3.10 complains

    run(main())


def test_tls_by_its_host_name_and_a_server_that_is_not_trusted() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serve(echo, "127.0.0.1", 0, ssl=server_tls) as server:
            uri = f"wss://localhost:{port_of(server)}/"
            async with connect(uri, ssl=client_tls, host="127.0.0.1") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            with pytest.raises(OSError, match="(?i)certificate"):
                await connect(uri, host="127.0.0.1")

    run(main())


def test_unix_sockets(tmp_path: Any) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        async with unix_serve(echo, path):
            async with unix_connect(path) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                assert ws.request is not None
                assert ws.request.headers["Host"] == "localhost"
            async with unix_connect(path, "ws://example.com/path") as ws:
                assert ws.request is not None
                assert ws.request.headers["Host"] == "example.com"
        server_tls, client_tls = tls_contexts()
        path = tmp_path / "tls"
        async with unix_serve(echo, path, ssl=server_tls), unix_connect(path, ssl=client_tls) as ws:
            await ws.close()
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()

    run(main())
