"""websockets and wsproto as peers, as client and as server; TLS and Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
import wsproto
import wsproto.events
from aio import echo, port_of, run, serving, tls_contexts, until
from cases.messages import AGREEMENTS, MESSAGES, WINDOWS
from conversations import (
    MIB,
    OURS,
    WEBSOCKETS,
    Library,
    closes,
    fragments,
    large,
    meeting,
    messages,
    pipeline,
    refusals,
    sides,
)
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory

from wsproto_fast import DeflateConfig
from wsproto_fast.asyncio import ServerConnection, connect, serve, unix_connect, unix_serve
from wsproto_fast.exceptions import ConnectionClosed, ConnectionClosedOK


class Watch:
    """A handler of ours that echoes, and knows how each connection ended."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def __call__(self, ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await echo(ws)
        self.ended.put_nowait((ws.protocol.close_code, ws.protocol.close_reason))


# websockets

with_websockets = pytest.mark.parametrize(
    ("server", "client"), [pytest.param(WEBSOCKETS, OURS, id="server"), pytest.param(OURS, WEBSOCKETS, id="client")]
)
compressions = pytest.mark.parametrize("compression", ["deflate", None])


@with_websockets
@compressions
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_websockets(server: Library, client: Library, compression: str | None, tls: bool) -> None:
    async def main() -> None:
        options = {"compression": compression}
        async with meeting(server, client, tls=tls, serving=options, **options) as met:
            assert ("Sec-WebSocket-Extensions" in met.ws.response.headers) is (compression is not None)
            await messages(met.ws)
            await fragments(met.ws)
            async with met.again() as one, met.again() as two:
                await asyncio.gather(pipeline(met.ws), pipeline(one), pipeline(two))
            await met.ws.close(4000, "bye")
            assert met.ws.close_code == 4000

    run(main())


@with_websockets
def test_websockets_compression(server: Library, client: Library) -> None:
    text = "".join(random.Random(1).choices("abcdefgh", k=40_000)) * 2

    async def main() -> None:
        for agreement in AGREEMENTS:
            config = DeflateConfig(**{WINDOWS[0]: 15, WINDOWS[1]: 15, **agreement}, threshold=0)
            if server is OURS:
                factory: Any = ClientPerMessageDeflateFactory(**{"client_max_window_bits": True, **agreement})
            else:
                factory = ServerPerMessageDeflateFactory(**agreement)
            if server is OURS and agreement.get("server_max_window_bits") == 15:
                continue  # websockets asks for none then
            async with meeting(
                server, client, **sides(server, {"compression": config}, {"extensions": [factory]})
            ) as met:
                agreed = met.ws.response.headers["Sec-WebSocket-Extensions"]
                for name, value in agreement.items():
                    if value is True:
                        assert name in agreed
                    elif value < 15:
                        assert f"{name}={value}" in agreed
                for message in (text, "", text.encode(), text):
                    await met.ws.send(message)
                    assert await met.ws.recv() == message
                await met.ws.send([text, text])
                assert await met.ws.recv() == text * 2

    run(main(), limit=60)


@with_websockets
@compressions
def test_websockets_large_messages(server: Library, client: Library, compression: str | None) -> None:
    async def main() -> None:
        options = {"compression": compression, "max_size": 17 * MIB}
        async with meeting(server, client, serving=options, **options) as met:
            await large(met.ws)

    run(main(), limit=60)


@with_websockets
def test_websockets_closes(server: Library, client: Library) -> None:
    run(closes(server, client))


@with_websockets
@compressions
def test_websockets_messages_over_the_limit(server: Library, client: Library, compression: str | None) -> None:
    run(refusals(server, client, compression=compression))


@with_websockets
def test_websockets_keepalive(server: Library, client: Library) -> None:
    async def main() -> None:
        often = {"ping_interval": 0.01, "ping_timeout": 5}
        async with meeting(server, client, serving=often, **often) as met:
            ours = met.ws if client is OURS else next(iter(met.listening.connections))
            await until(lambda: ours.stats.pongs_received >= 3 and ours.stats.pings_received >= 3)
            await messages(met.ws)

    run(main())


@with_websockets
def test_websockets_origins(server: Library, client: Library) -> None:
    async def main() -> None:
        serving = {"origins": ["https://good.example", re.compile(r"https://.*\.better\.example")]}
        async with meeting(server, client, serving=serving, origin="https://good.example") as met:
            async with met.again(origin="https://much.better.example") as ws:
                await messages(ws)
            for origin in ("https://evil.example", "https://good.example.evil", None):
                with pytest.raises(client.refused) as caught:
                    await met.again(origin=origin)
                assert caught.value.response.status_code == 403

    run(main())


@with_websockets
def test_websockets_subprotocols(server: Library, client: Library) -> None:
    async def main() -> None:
        async with meeting(
            server, client, serving={"subprotocols": ["best", "good", "last"]}, subprotocols=["last", "good"]
        ) as met:
            assert met.ws.subprotocol == "good"
            with pytest.raises(client.refused) as caught:
                await met.again(subprotocols=["other"])
            assert caught.value.response.status_code == 400

    run(main())


@with_websockets
def test_websockets_basic_auth(server: Library, client: Library) -> None:
    async def main() -> None:
        process_request = server.basic_auth(realm="room", credentials=("kate", "secret"))
        async with meeting(server, client, serving={"process_request": process_request}, login="kate:secret@") as met:
            await messages(met.ws)
            for login in ("", "kate:wrong@", "nobody:secret@"):
                with pytest.raises(client.refused) as caught:
                    await met.again(login=login)
                assert caught.value.response.status_code == 401
                assert caught.value.response.headers["WWW-Authenticate"].startswith("Basic realm=")

    run(main())


# wsproto


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


# TLS and Unix sockets


def test_tls() -> None:
    async def main() -> None:
        async with meeting(OURS, OURS, tls=True) as met:
            await messages(met.ws)
            await fragments(met.ws)
            await pipeline(met.ws)

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
