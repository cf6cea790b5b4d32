"""What ``serve`` can be told: callbacks in place of handlers, factories, loggers, addresses; and how a server ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from aio import REQUEST, echo, peer_of, port_of, raw, run, serving, tasks_of, until, uri_of
from helpers import SOON
from websockets.asyncio import server as reference
from websockets.version import version

from wsproto_fast import Limits, Request, Response, State
from wsproto_fast.asyncio import Server, ServerConnection, broadcast, connect, serve, unix_connect, unix_serve
from wsproto_fast.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus


async def park(ws: ServerConnection) -> None:
    await ws.wait_closed()


def reply(ws: ServerConnection, message: str | bytes) -> None:
    ws.try_send(message)


def ours(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= level and record.name.startswith("wsproto_fast")]


# -- on_message --------------------------------------------------------------------------------------------------------


def test_a_callback_needs_no_task() -> None:
    async def main() -> None:
        async with serving(None, on_message=reply) as server:
            async with peer_of(server) as one, peer_of(server) as two:
                assert len(server.connections) == 2
                assert len(asyncio.all_tasks()) == 1
                assert not tasks_of(server)
                for peer in (one, two):
                    peer.write(0x81, b"hello")
                    peer.write(0x82, b"\x00")
                    assert [await peer.frame(), await peer.frame()] == [(0x81, b"hello"), (0x82, b"\x00")]
                one.write(0x88, b"\x03\xe8")
                assert await one.frame() == (0x88, b"\x03\xe8")
                await one.expect_eof()
                await until(lambda: len(server._alive) == 1)
                two.writer.transport.abort()
                await until(lambda: not server._alive)
        assert not server.connections

    run(main())


def test_hooks_of_a_callback_server() -> None:
    """Hooks are a task's; it ends with the handshake."""

    async def main() -> None:
        async def process_request(connection: ServerConnection, request: Request) -> Response | None:
            await asyncio.sleep(0)
            return connection.respond(403, "no") if request.path == "/no" else None

        async with serving(None, on_message=reply, process_request=process_request) as server:
            with pytest.raises(InvalidStatus, match="403"):
                await connect(uri_of(server, "/no"))
            async with peer_of(server) as peer:
                await until(lambda: not tasks_of(server))
                peer.write(0x81, b"hello")
                assert await peer.frame() == (0x81, b"hello")

    run(main())


def test_frames_with_the_request_reach_the_callback() -> None:
    async def main() -> None:
        async with serving(None, on_message=reply) as server, raw(server) as (reader, writer):
            writer.write(REQUEST + b"\r\n" + b"\x81\x81\0\0\0\0a")
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(3) == b"\x81\x01a"

    run(main())


def test_closing_a_server_of_callbacks() -> None:
    async def main() -> None:
        async with serving(None, on_message=reply) as server:
            clients = [await connect(uri_of(server)) for _ in range(3)]
            server.close(code=1012, reason="restart")
            assert not server.connections  # at once
            await server.wait_closed()
            for ws in clients:
                with pytest.raises(ConnectionClosedError, match="1012"):
                    await ws.recv()

    run(main())


def test_a_callback_that_closes() -> None:
    async def main() -> None:
        closing: list[asyncio.Future[None]] = []

        def on_message(ws: ServerConnection, message: str | bytes) -> None:
            ws.try_send("bye")
            closing.append(asyncio.ensure_future(ws.close(4000)))

        async with serving(None, on_message=on_message) as server, connect(uri_of(server)) as ws:
            await ws.send("x")
            assert await ws.recv() == "bye"
            await ws.wait_closed()
            assert ws.close_code == 4000
            await closing[0]

    run(main())


def test_a_callback_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def fail(ws: ServerConnection, message: str | bytes) -> None:
            raise RuntimeError("secret")

        async with serving(None, on_message=fail) as server, connect(uri_of(server)) as ws:
            await ws.send("x")
            with pytest.raises(ConnectionClosedError) as info:
                await ws.recv()
            assert info.value.rcvd is not None
            assert (info.value.rcvd.code, info.value.rcvd.reason) == (1011, "")
            await until(lambda: not server._alive)

    run(main())
    [record] = ours(caplog)
    assert record.exc_info is not None


def test_handler_and_callback() -> None:
    """The handler sets up and tears down; the callback has the messages."""

    async def main() -> None:
        log: list[Any] = []

        async def handler(ws: ServerConnection) -> None:
            log.append("up")
            try:
                await ws.wait_closed()
            finally:
                log.append("down")

        def on_message(ws: ServerConnection, message: str | bytes) -> None:
            log.append(message)
            ws.try_send(message)

        async with serving(handler, on_message=on_message) as server:
            async with connect(uri_of(server)) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                assert len(tasks_of(server)) == 1
            await until(lambda: not tasks_of(server))
            assert log == ["up", "hello", "down"]

    run(main())


def test_neither_handler_nor_callback() -> None:
    with pytest.raises(TypeError, match="needs a handler or on_message"):
        serve(None, "127.0.0.1", 0)


# -- tasks of handlers -------------------------------------------------------------------------------------------------


def test_one_task_per_handler_and_none_for_others() -> None:
    async def main() -> None:
        async with serving(park) as server:
            async with raw(server), peer_of(server), peer_of(server):
                await until(lambda: len(server._alive) == 3)
                assert len(asyncio.all_tasks()) == 3
                async with raw(server) as (reader, writer):
                    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert (await reader.readline()).startswith(b"HTTP/1.1 426 ")
                    assert len(asyncio.all_tasks()) == 3

    run(main())


def test_a_task_that_is_cancelled_before_it_begins() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        handled = False

        async def handler(ws: ServerConnection) -> None:
            nonlocal handled
            handled = True

        def cancel(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
            task = asyncio.Task(coroutine, loop=loop, **kwargs)
            if coroutine.__name__ == "_handle":
                task.cancel()
            return task

        async with serving(handler) as server:
            loop.set_task_factory(cancel)
            async with peer_of(server) as peer:
                with contextlib.suppress(ConnectionError):
                    assert await peer.reader.read() == b""
                await until(lambda: not server._alive)
            loop.set_task_factory(None)
        assert not handled

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs eager tasks")
@pytest.mark.parametrize("hook", [False, True])
def test_eager_tasks(hook: bool) -> None:  # pragma: no cover (needs Python 3.12)
    async def main() -> None:
        def process_request(connection: ServerConnection, request: Request) -> None:
            pass

        async def greet(ws: ServerConnection) -> None:
            await ws.send("hello")

        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        options = {"process_request": process_request} if hook else {}
        async with serving(greet, **options) as server, connect(uri_of(server)) as ws:
            assert [message async for message in ws] == ["hello"]

    run(main())


def test_cancelled_twice_a_handler_ends_at_once() -> None:
    async def main() -> None:
        async with serving(park) as server, peer_of(server) as peer:  # which will not answer our Close frame
            [task] = tasks_of(server)
            task.cancel()
            await peer.expect_close(1011)
            assert not task.done()
            task.cancel()
            with contextlib.suppress(ConnectionError):
                assert await peer.reader.read() == b""
            await until(lambda: not tasks_of(server))

    run(main(), limit=SOON)


# -- the end of a server -----------------------------------------------------------------------------------------------


def test_closing_many_connections_makes_no_tasks() -> None:
    async def main() -> None:
        async with serving(None, on_message=reply) as server:
            clients = [await connect(uri_of(server), ping_interval=None) for _ in range(200)]
            assert len(server.connections) == 200
            server.close()
            assert len(asyncio.all_tasks()) == 1
            await server.wait_closed()
            await asyncio.gather(*(ws.wait_closed() for ws in clients))
            assert {ws.close_code for ws in clients} == {1001}

    run(main())


def test_closing_takes_no_longer_than_the_close_timeout() -> None:
    """All the closing handshakes are under way at the same time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for options in ({"handler": park}, {"handler": None, "on_message": reply}):
            async with contextlib.AsyncExitStack() as stack:
                server = await stack.enter_async_context(serving(close_timeout=1, **options))  # type: ignore[arg-type]
                peers = [await stack.enter_async_context(peer_of(server)) for _ in range(10)]  # they do not answer
                begin = loop.time()
                server.close()
                for peer in peers:
                    await peer.expect_close(1001)
                await server.wait_closed()
                assert 0.9 < loop.time() - begin < SOON  # not 10 s

    run(main())


def test_close_lets_connections_without_handler_go_on() -> None:
    async def main() -> None:
        async with serving(None, on_message=reply) as server, connect(uri_of(server)) as ws:
            uri = uri_of(server)
            server.close(close_connections=False)
            with pytest.raises(OSError):
                await connect(uri)
            waiting = asyncio.ensure_future(server.wait_closed())
            await ws.send("still here")
            assert await ws.recv() == "still here"
            assert not waiting.done()
            server.close()  # changes nothing
            await ws.ping()
            await ws.close()
            await waiting
            assert ws.close_code == 1000

    run(main())


def test_close_in_a_handler() -> None:
    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            ws.server.close()
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()

        server = await serve(handler, "127.0.0.1", 0)
        ws = await connect(uri_of(server))
        await server.wait_closed()
        await ws.wait_closed()
        assert ws.close_code == 1001
        server.close()
        await server.wait_closed()

    run(main())


def test_close_in_a_callback_and_in_a_hook() -> None:
    async def main() -> None:
        def on_message(ws: ServerConnection, message: str | bytes) -> None:
            ws.server.close()

        async with serving(None, on_message=on_message) as server, connect(uri_of(server)) as ws:
            await ws.send("close")
            await server.wait_closed()
            assert ws.close_code == 1001

        def process_request(connection: ServerConnection, request: Request) -> Response | None:
            connection.server.close()
            # Only what would open a connection becomes a 503.
            return connection.respond(200, "OK") if request.path == "/health" else None

        for path, status in (("/", "503"), ("/health", "200")):
            async with serving(process_request=process_request) as server:
                with pytest.raises(InvalidStatus, match=status):
                    await connect(uri_of(server, path))

    run(main())


def test_a_handler_that_ignores_the_end_is_waited_for() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        done = False

        async def handler(ws: ServerConnection) -> None:
            nonlocal done
            await go_on.wait()
            done = True

        async with serving(handler, close_timeout=0.1) as server:
            ws = await connect(uri_of(server))
            server.close()
            await ws.wait_closed()
            assert ws.close_code == 1001
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(server.wait_closed(), 0.05)
            go_on.set()
        assert done

    run(main())


def test_wait_closed_before_close_and_by_many() -> None:
    async def main() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        server.close()
        await asyncio.gather(*waiting)

    run(main())


def test_a_silent_client_does_not_hold_up_the_end() -> None:
    async def main() -> None:
        async with serving() as server, raw(server) as (reader, _):
            await until(lambda: len(server._alive) == 1)
            server.close()
            assert await reader.read() == b""
            await server.wait_closed()

    run(main(), limit=SOON)


# -- the server as an object -------------------------------------------------------------------------------------------


def test_connections_are_a_set_of_ones_own() -> None:
    async def main() -> None:
        async with serving(park) as server:
            async with raw(server), connect(uri_of(server)), connect(uri_of(server)) as ws:
                await until(lambda: len(server._alive) == 3)
                connections = server.connections
                assert len(connections) == 2
                assert all(connection.state is State.OPEN for connection in connections)
                broadcast(connections, "hello")
                assert await ws.recv() == "hello"
                connections.clear()
                assert len(server.connections) == 2

    run(main())


def test_listening(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast")

    async def main() -> None:
        try:
            server = await serve(echo, ["127.0.0.1", "::1"], 0)
        except OSError:  # no IPv6 here
            server = await serve(echo, ["127.0.0.1"], 0)
        addresses = [sock.getsockname() for sock in server.sockets]
        server.close()
        await server.wait_closed()
        messages = [record.message for record in ours(caplog, logging.INFO)]
        names = [f"127.0.0.1:{port}" if host == "127.0.0.1" else f"[::1]:{port}" for host, port, *_ in addresses]
        assert messages == [f"server listening on {name}" for name in names] + ["server closing", "server closed"]

    run(main())


def test_name_of_an_ipv6_address() -> None:
    from wsproto_fast.asyncio.server import _name_of

    class Socket:
        def getsockname(self) -> Any:
            return ("::1", 80, 0, 0)

    assert _name_of(Socket()) == "[::1]:80"  # type: ignore[arg-type]


def test_a_socket_of_ones_own() -> None:
    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        async with serve(echo, sock=sock) as server, connect(uri_of(server)) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"

    run(main())


def test_an_address_that_is_taken() -> None:
    async def main() -> None:
        async with serving() as server:
            with pytest.raises(OSError):
                await serve(echo, "127.0.0.1", port_of(server))

    run(main())


def test_unix_serve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast")
    path = str(tmp_path / "socket")

    async def main() -> None:
        async with unix_serve(echo, path), unix_connect(path) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        async with unix_serve(echo, path=path + "2", origins=[None]), unix_connect(path + "2") as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"

    run(main())
    assert f"server listening on {path}" in [record.message for record in caplog.records]


def test_arguments_that_nobody_knows() -> None:
    async def main() -> None:
        for wrong in ({"unix": True}, {"path": "x"}, {"no_such": 1}):
            with pytest.raises(TypeError):
                await serve(echo, "127.0.0.1", 0, **wrong)

    run(main())


def test_other_loops() -> None:
    """uvloop's server is no asyncio.Server."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with serve(echo, "127.0.0.1", 0, start_serving=False) as server:
            assert not server.is_serving()
            await server.start_serving()
            assert server.is_serving()
            assert server.get_loop() is asyncio.get_running_loop()
            async with connect(uri_of(server)) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
                server.close()
                await ws.wait_closed()
                assert ws.close_code == 1001
            await server.wait_closed()
            assert server.sockets == ()
            assert not server.is_serving()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


# -- connections of ones own, loggers, arguments -----------------------------------------------------------------------


class Mine(ServerConnection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.greeting = "hello"

    async def greet(self) -> None:
        await self.send(self.greeting)


def test_create_connection() -> None:
    async def main() -> None:
        async def handler(ws: Mine) -> None:
            await ws.greet()

        made: list[Mine] = []

        def make(server: Server) -> Mine:
            made.append(Mine(server))
            return made[-1]

        for create_connection in (Mine, make):
            async with serving(handler, create_connection=create_connection) as server:
                async with connect(uri_of(server)) as ws:
                    assert await ws.recv() == "hello"
        assert len(made) == 1
        assert isinstance(made[0].server, Server)

    run(main())


def test_loggers(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("my.server")

    class Adapter(logging.LoggerAdapter):  # type: ignore[type-arg]
        def process(self, message: str, kwargs: Any) -> tuple[str, Any]:
            websocket = kwargs.get("extra", {}).get("websocket")
            return f"{message} <{'server' if websocket is None else websocket.request.path}>", kwargs

    caplog.set_level(logging.INFO, "my.server")

    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            ws.logger.warning("from the handler")
            assert ws.logger.extra is not None
            assert ws.logger.extra["websocket"] is ws

        for each in (logger, Adapter(logger, {})):
            async with serving(handler, logger=each) as server:
                assert server.logger is each
                async with connect(uri_of(server, "/path")) as ws:
                    with pytest.raises(ConnectionClosedOK):
                        await ws.recv()

    run(main())
    records = [record for record in caplog.records if record.name == "my.server"]
    by_handlers = [record for record in records if "handler" in record.message]
    assert [record.message for record in by_handlers] == ["from the handler", "from the handler </path>"]
    assert all(isinstance(record.websocket, ServerConnection) for record in by_handlers)  # type: ignore[attr-defined]
    assert [record.message for record in records if "closed" in record.message] == [
        "server closed",
        "server closed <server>",
    ]
    assert not ours(caplog)


def test_settings_reach_the_connections() -> None:
    class Codec:
        dumps = staticmethod(json.dumps)
        loads = staticmethod(lambda text: {"parsed": json.loads(text)})

    class Observer:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *_: self.seen.append(name)

    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            await ws.send_json(await ws.recv_json())

        observer = Observer()
        async with serving(handler, json=Codec, observer=observer, max_queue=(5, 2), max_queue_bytes=123) as server:
            assert (server._settings.queue_high, server._settings.queue_low) == (5, 2)
            assert server._settings.queue_bytes == 123
            async with connect(uri_of(server)) as ws:
                await ws.send("1")
                assert await ws.recv() == '{"parsed": 1}'
        assert observer.seen[:3] == ["connection_opened", "message_received", "message_sent"]
        async with serving(ping_interval=0.01, ping_payload=lambda: b"beat") as server, peer_of(server) as peer:
            assert await peer.frame() == (0x89, b"beat")
        async with serving(extensions=[], compression=None) as server:
            async with connect(uri_of(server)) as ws:
                assert ws.response is not None
                assert "Sec-WebSocket-Extensions" not in ws.response.headers
        async with serving(limits=Limits(max_message_size=3)) as server, connect(uri_of(server)) as ws:
            await ws.send("1234")
            with pytest.raises(ConnectionClosedError, match="1009"):
                await ws.recv()
        with pytest.raises(ValueError, match="unsupported extension"):
            serve(echo, extensions=[object()])

    run(main())


websockets_17 = pytest.mark.skipif(int(version.split(".")[0]) < 17, reason="compares with websockets 17")

#: Deliberate: one full read of the peer; our own name.
DIFFERENT_DEFAULTS = {"write_limit", "server_header"}


@websockets_17
@pytest.mark.parametrize("name", ["serve", "unix_serve", "basic_auth"])
def test_signatures_are_those_of_websockets(name: str) -> None:
    mine = inspect.signature(getattr(sys.modules["wsproto_fast.asyncio.server"], name)).parameters
    theirs = inspect.signature(getattr(reference, name)).parameters
    for parameter in theirs.values():
        assert mine[parameter.name].kind is parameter.kind
        if parameter.name not in DIFFERENT_DEFAULTS:
            assert mine[parameter.name].default == parameter.default
    positional = [[p.name for p in each.values() if p.kind is p.POSITIONAL_OR_KEYWORD] for each in (mine, theirs)]
    assert positional[0] == positional[1]


@websockets_17
def test_methods_are_those_of_websockets() -> None:
    for cls in ("Server", "ServerConnection"):
        mine, theirs = getattr(sys.modules["wsproto_fast.asyncio.server"], cls), getattr(reference, cls)
        internal = {"handshake", "process_event", "start_keepalive", "keepalive", "send_context", "data_received"}
        for name in vars(theirs):
            if not name.startswith("_") and name not in internal:
                assert hasattr(mine, name), name
    arguments = [list(inspect.signature(each.close).parameters) for each in (Server, reference.Server)]
    assert arguments[0] == arguments[1]


def test_closed_servers_leave_nothing() -> None:
    async def main() -> None:
        async with serving(None, on_message=reply) as server, connect(uri_of(server)):
            pass
        await server.wait_closed()
        assert not server._alive
        del server
        gc.collect()
        assert not [item for item in gc.get_objects() if isinstance(item, ServerConnection)]

    run(main())
