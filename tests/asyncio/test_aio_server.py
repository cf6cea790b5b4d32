"""Life of a server: handlers, closing, broadcast."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

import pytest
from aio import REQUEST, echo, pair, peer_of, port_of, raw, run, serving, until, uri_of
from helpers import SOON

from wsproto_fast import DeflateConfig, State
from wsproto_fast.asyncio import ServerConnection, broadcast, connect, serve
from wsproto_fast.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    InvalidStatus,
    LocalProtocolError,
)


def errors(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    return [
        (record.message, record.exc_info is not None)
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("wsproto_fast")
    ]


async def park(ws: ServerConnection) -> None:
    await ws.wait_closed()


def test_handler_exception(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(ws: ServerConnection) -> None:
        await ws.send("first")
        raise RuntimeError("secret")

    async def main() -> None:
        async with pair(fail) as ws:
            assert await ws.recv() == "first"
            with pytest.raises(ConnectionClosedError) as info:
                await ws.recv()
            assert info.value.rcvd is not None
            assert (info.value.rcvd.code, info.value.rcvd.reason) == (1011, "")

    run(main())
    assert errors(caplog) == [("connection handler failed", True)]


def test_handler_that_is_surprised_by_the_end_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handler(ws: ServerConnection) -> None:
            try:
                await ws.recv()
            finally:
                ended.set()

        async with serving(handler) as server:
            async with peer_of(server) as peer:
                peer.writer.transport.abort()
                await ended.wait()

    run(main())
    assert errors(caplog) == []


def test_cancelled_handler() -> None:
    async def main() -> None:
        tasks: list[Any] = []

        async def handler(ws: ServerConnection) -> None:
            tasks.append(asyncio.current_task())
            await ws.wait_closed()

        async with pair(handler) as ws:
            await until(lambda: bool(tasks))
            tasks[0].cancel()
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            assert ws.close_code == 1011

    run(main())


def test_handler_that_ends_while_the_client_floods() -> None:
    """The client's Close frame stands behind more messages than anybody will take."""

    async def nothing(ws: ServerConnection) -> None:
        await ws.recv()

    async def main() -> None:
        async with serving(nothing) as server, peer_of(server) as peer:
            for _ in range(5000):
                peer.write(0x81, b"x" * 100)
            await peer.expect_close(1000)
            peer.write(0x88, b"\x03\xe8")
            await peer.expect_eof()

    run(main(), limit=SOON)


def test_a_program_that_only_sends_lets_others_run() -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        async with pair(park, compression=None, close_timeout=0.1) as ws:
            begin = ticks
            for _ in range(1000):
                await ws.send("x")
            assert ticks - begin >= 7
        ticking.cancel()

    run(main())


def test_a_handler_that_sends_while_nobody_takes_what_was_received() -> None:
    """``send`` does not wait for the reason of the end: it is behind messages that only this handler would take."""

    async def main() -> None:
        closing = asyncio.Event()
        received = []

        async def handler(ws: ServerConnection) -> None:
            await closing.wait()
            with pytest.raises(ConnectionClosed, match="no close frame received"):
                await ws.send("x")
            with contextlib.suppress(ConnectionClosed):
                async for message in ws:
                    received.append(message)

        async with serving(handler) as server, peer_of(server) as peer:
            for _ in range(100):
                peer.write(0x81, b"x")
            [ws] = server.connections
            await until(lambda: ws._paused)
            server.close()
            await peer.expect_close(1001)
            peer.write(0x88, b"\x03\xe9")
            closing.set()
            await server.wait_closed()
            assert len(received) == 100

    run(main(), limit=SOON)


def test_close_while_nobody_takes_what_was_received() -> None:
    async def firehose(ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await ws.send("x" * 1000)

    async def main() -> None:
        async with pair(firehose, compression=None) as ws:
            await until(lambda: ws._reading_paused)
        assert ws.close_code == 1000
        assert len(ws._queue) <= 16
        async with pair(firehose) as ws:  # compressed it all has arrived
            await until(lambda: ws._paused)
        assert ws.state is State.CLOSED
        assert len([message async for message in ws]) > 16
        assert ws.close_code == 1000

    run(main(), limit=SOON)


def test_server_close() -> None:
    async def main() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        assert server.is_serving()
        assert server.get_loop() is asyncio.get_running_loop()
        first, second = await connect(uri_of(server)), await connect(uri_of(server))
        await first.send("x")
        await first.recv()
        await until(lambda: len(server.connections) == 2)
        assert all(connection.state is State.OPEN for connection in server.connections)
        with pytest.raises(LocalProtocolError):
            server.close(code=1006)
        assert server.is_serving()
        server.close(code=1012, reason="restart")
        server.close()
        await server.wait_closed()
        assert not server.is_serving()
        assert server.sockets == ()
        assert server.connections == set()
        for ws in (first, second):
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (1012, "restart")

    run(main())


def test_server_close_lets_connections_go_on() -> None:
    async def main() -> None:
        async with serving() as server:
            async with connect(uri_of(server)) as ws:
                server.close(close_connections=False)
                await asyncio.sleep(0.01)
                await ws.send("still here")
                assert await ws.recv() == "still here"
            await server.wait_closed()

    run(main())


def test_server_waits_for_its_handlers() -> None:
    async def main() -> None:
        finished = asyncio.Event()

        async def handler(ws: ServerConnection) -> None:
            await ws.wait_closed()
            await asyncio.sleep(0.05)
            finished.set()

        async with serving(handler) as server:
            ws = await connect(uri_of(server))
        assert finished.is_set()
        await ws.wait_closed()
        assert ws.close_code == 1001

    run(main())


def test_newcomers_while_closing_get_503() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        asked = asyncio.Event()

        async def process_request(connection: ServerConnection, request: Any) -> None:
            asked.set()
            await go_on.wait()

        async with serving(process_request=process_request) as server:
            async with raw(server) as (silent, _), raw(server) as (half, writer):
                writer.write(REQUEST)
                connecting = asyncio.ensure_future(connect(uri_of(server))._connect())
                await asked.wait()
                await until(lambda: len(server._alive) == 3)
                server.close()
                assert await silent.read() == b""
                assert await half.read() == b""
                go_on.set()
                with pytest.raises(InvalidStatus, match="503"):
                    await connecting

    run(main())


def test_a_request_on_its_way_to_a_server_that_closes_gets_503() -> None:
    async def main() -> None:
        async with serving() as server:
            async with raw(server) as (early, early_writer), raw(server) as (late, late_writer):
                await until(lambda: len(server._alive) == 2)
                early_writer.write(REQUEST + b"\r\n")
                server.close()
                late_writer.write(REQUEST + b"\r\n")
                for reader in (early, late):
                    assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
                    assert (await reader.read()).endswith(b"Server is shutting down.\n")

    run(main())


def test_close_in_another_thread() -> None:
    async def main() -> None:
        async with serving() as server:
            with pytest.raises(RuntimeError, match="thread"):
                await asyncio.get_running_loop().run_in_executor(None, server.close)
            assert server.is_serving()

    run(main())


def test_connection_that_is_accepted_while_closing() -> None:
    async def main() -> None:
        async with serving() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            server.close()  # asyncio has accepted it, but not told us
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    run(main())


def test_serve_forever() -> None:
    async def main() -> None:
        server = serve(echo, "127.0.0.1", 0, start_serving=False)
        for call in (server.get_loop, server.close):
            with pytest.raises(RuntimeError, match="not started"):
                call()
        assert server.sockets == ()
        assert not server.is_serving()
        await server
        assert await server is server
        assert not server.is_serving()
        task = asyncio.ensure_future(server.serve_forever())
        await until(server.is_serving)
        ws = await connect(uri_of(server))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ws.wait_closed()
        assert ws.close_code == 1001
        await server.serve_forever()  # returns: it is closed

    run(main())


def test_serve_forever_returns_on_close() -> None:
    async def main() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        await server.start_serving()
        asyncio.get_running_loop().call_soon(server.close)
        await server.serve_forever()

    run(main())


# -- broadcast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["deflate", None, DeflateConfig(threshold=0)])
def test_broadcast(compression: Any) -> None:
    async def main() -> None:
        async with serving(park, compression=compression) as server:
            clients = [await connect(uri_of(server), compression=compression) for _ in range(5)]
            await until(lambda: len(server.connections) == 5)
            broadcast(server.connections, "text " * 100)
            broadcast(server.connections, b"binary")
            broadcast(server.connections, b"bytes as text", text=True)
            broadcast(server.connections, "text as bytes", text=False)
            for ws in clients:
                assert [await ws.recv() for _ in range(4)] == [
                    "text " * 100,
                    b"binary",
                    "bytes as text",
                    b"text as bytes",
                ]
            with pytest.raises(TypeError):
                broadcast(server.connections, 1)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                broadcast(server.connections, ["a"])  # type: ignore[arg-type]

    run(main())


def test_broadcast_by_a_client_and_to_the_closed() -> None:
    async def main() -> None:
        async with serving() as server:
            first, second = await connect(uri_of(server)), await connect(uri_of(server))
            await second.close()
            broadcast([first, second], "hello")
            assert await first.recv() == "hello"
            await first.close()

    run(main())


def test_broadcast_skips_who_sends_fragments(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as ws:
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def fragments() -> Any:
                yield "a"
                begun.set()
                await go_on.wait()

            sending = asyncio.ensure_future(ws.send(fragments()))
            await begun.wait()
            broadcast([ws], "skipped")
            if sys.version_info >= (3, 11):
                with pytest.raises(ExceptionGroup) as info:  # noqa: F821
                    broadcast([ws], "skipped", raise_exceptions=True)
                assert [type(exc) for exc in info.value.exceptions] == [ConcurrencyError]
            else:
                with pytest.raises(ValueError, match=r"Python 3\.11"):
                    broadcast([ws], "skipped", raise_exceptions=True)
            go_on.set()
            await sending
            assert await ws.recv() == "a"
            if sys.version_info >= (3, 11):
                broadcast([ws], "sent", raise_exceptions=True)
                assert await ws.recv() == "sent"

    run(main())
    [(message, traceback)] = errors(caplog)
    assert message.startswith("skipped broadcast: ")
    assert "sending a fragmented message" in message
    assert not traceback


def test_broadcast_closes_who_does_not_read() -> None:
    async def main() -> None:
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            await ws.wait_closed()

        async with serving(handler, close_timeout=0.2) as server:
            async with peer_of(server, small=True), connect(uri_of(server)) as reader:
                await until(lambda: len(connections) == 2)
                received = 0

                async def read() -> None:
                    nonlocal received
                    async for _ in reader:
                        received += 1

                reading = asyncio.ensure_future(read())
                sent = 0

                async def all_read() -> None:
                    await until(lambda: received == sent)

                while len(server.connections) == 2:
                    broadcast(server.connections, b"x" * 100_000)
                    sent += 1
                    await all_read()
                slow = next(ws for ws in connections if ws.state is not State.OPEN)
                assert slow.buffered_amount < 2**21
                await slow.wait_closed()  # although the peer reads nothing
                assert slow.protocol.close_code == 1008
                broadcast(server.connections, b"the others go on")
                sent += 1
                await all_read()
                await reader.close()
                await reading

    run(main())
