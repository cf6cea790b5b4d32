"""What our WebSocket class for uvicorn does beyond uvicorn's own, or better: ends, limits, flow, time, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from asgi_serving import (
    OURS,
    App,
    Message,
    Receive,
    Send,
    asking,
    connection_of,
    port_of,
    raw,
    run,
    serving,
    uri_of,
)
from helpers import SOON
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from wsproto_fast.asyncio import connect
from wsproto_fast.contrib.uvicorn import WebSocketProtocol
from wsproto_fast.exceptions import ConcurrencyError, InvalidStatus
from wsproto_fast.testing import Frame, check_server, close, encode_frame, ping, pong, request, text

ACCEPT: Message = {"type": "websocket.accept"}
CONNECT: Message = {"type": "websocket.connect"}
GONE: Message = {"type": "websocket.disconnect", "code": 1006}


def sending(data: str) -> Message:
    return {"type": "websocket.send", "text": data}


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Stage:
    """An application whose moves the test makes."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.receive: Receive
        self.send: Send
        self.server: uvicorn.Server

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> Any:
        self.receive, self.send = receive, send
        self.entered.set()
        return await self.leave

    def end(self) -> None:
        if not self.leave.done():
            self.leave.set_result(None)

    async def accept(self) -> None:
        await self.entered.wait()
        assert await self.receive() == CONNECT
        await self.send(ACCEPT)


@contextlib.asynccontextmanager
async def staged(**options: Any) -> Any:
    """An open connection: the application and the client."""
    stage = Stage()
    async with serving(stage, **options) as server:
        async with asking(server) as client:
            stage.server = server
            await stage.accept()
            await client.reader.readuntil(b"\r\n\r\n")
            try:
                yield stage, client
            finally:
                stage.end()


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("result", "code"), [(None, 1000), (123, 1011), (ValueError("odd"), 1011), ("double", 1011)])
def test_the_end_of_the_application(result: Any, code: int, caplog: pytest.LogCaptureFixture) -> None:
    """The client is told with a Close frame, and answers it before the transport is closed."""

    async def app(scope: Message, receive: Receive, send: Send) -> Any:
        await send(ACCEPT)
        if result == "double":
            await send(ACCEPT)
        if isinstance(result, Exception):
            raise result
        return result

    async def main() -> None:
        async with serving(app) as server, raw(server) as client:
            assert await client.frame() == close(code)
            client.send(close(code))
            assert await client.frame() is None
            assert not server.server_state.connections
            assert not server.server_state.tasks

    run(main())
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    expected = ["ASGI callable should return None, but returned '123'."] if result == 123 else []
    if code == 1011 and not expected:
        expected = ["Exception in ASGI application\n"]
    assert errors == expected


def test_client_disconnected_is_no_error_of_the_application(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with staged() as (stage, client):
            client.send(close(1001))
            assert await client.frame() == close(1001)
            with pytest.raises(ClientDisconnected) as caught:
                await stage.send(sending("x"))
            stage.leave.set_exception(caught.value)

    run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_that_vanishes() -> None:
    """RFC 6455 7.1.5: without a Close frame the code is 1006. The application is told as often as it asks."""

    async def main() -> None:
        async with staged() as (stage, client):
            client.send(text("last"))
            client.writer.write_eof()
            assert await stage.receive() == {"type": "websocket.receive", "text": "last"}
            for _ in range(2):
                assert await stage.receive() == {**GONE, "reason": ""}
            assert await client.reader.read() == b""
            with pytest.raises(OSError):
                await stage.send(sending("x"))
            with pytest.raises(ClientDisconnected):
                await stage.send({"type": "websocket.close"})

    run(main())


def test_a_client_that_vanishes_before_it_is_answered() -> None:
    async def main() -> None:
        stage = Stage()
        async with serving(stage) as server:
            async with asking(server) as client:
                await stage.entered.wait()
                assert await stage.receive() == CONNECT
                waiting = asyncio.gather(stage.receive(), stage.receive())
                await asyncio.sleep(0)
                client.writer.write_eof()
                assert await client.reader.read() == b""
            assert await waiting == [GONE, GONE]
            assert await stage.receive() == GONE
            with pytest.raises(ClientDisconnected):
                await stage.send(ACCEPT)
            stage.end()

    run(main())


def test_messages_of_a_client_that_breaks_the_rules() -> None:
    """What came before is told, then 1002 with the reason."""

    async def main() -> None:
        async with staged() as (stage, client):
            client.writer.write(encode_frame(0x81, b"fine", mask=b"abcd") + b"\xff\x80abcd")
            assert await stage.receive() == {"type": "websocket.receive", "text": "fine"}
            end = await stage.receive()
            assert end["code"] == 1002
            assert end["reason"]
            frame = await client.frame()
            assert frame is not None
            assert frame.payload[2:].decode() == end["reason"]

    run(main())


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (999, ""), (1000, "x" * 124)])
def test_a_close_that_must_not_be_sent(code: int, reason: str) -> None:
    """It is refused, and the connection stays as it is."""

    async def main() -> None:
        async with staged() as (stage, client):
            with pytest.raises(Exception, match=r"code|reason"):
                await stage.send({"type": "websocket.close", "code": code, "reason": reason})
            await stage.send(sending("still here"))
            assert await client.frame() == text("still here")

    run(main())


async def answer_of(app: App, **changes: Any) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in lower case, and body of what a client is answered that asks for a WebSocket."""
    async with serving(app) as server, asking(server, **changes) as client:
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        return status, [line.lower() for line in lines], body


def test_a_refusal_in_parts() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        headers = [(b"transfer-encoding", b"chunked"), (b"x-mine", b"1")]
        await send({"type": "websocket.http.response.start", "status": 409, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"so ", "more_body": True})
        with pytest.raises(RuntimeError, match=r"Expected ASGI message 'websocket.http.response.body' but got 'x'"):
            await send({"type": "x"})
        await send({"type": "websocket.http.response.body", "body": b"far"})

    status, lines, body = run(answer_of(app))
    assert (status, body) == (b"HTTP/1.1 409 Conflict", b"so far")
    assert b"content-length: 6" in lines
    assert b"x-mine: 1" in lines
    assert b"server: uvicorn" in lines
    assert not [line for line in lines if line.startswith(b"transfer-encoding")]


@pytest.mark.parametrize("end", ["returns", "raises", "sends too much"])
def test_a_refusal_that_the_application_does_not_complete(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """Half of it must not look like the whole."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "websocket.http.response.body", "body": b'{"ok": true', "more_body": True})
        if end == "raises":
            raise OSError("the database has gone")
        while end == "sends too much":
            await send({"type": "websocket.http.response.body", "body": bytes(2**16), "more_body": True})

    status, _, body = run(answer_of(app))
    assert (status, body) == (b"HTTP/1.1 500 Internal Server Error", b"Internal Server Error")
    expected = "ASGI callable returned without completing response." if end == "returns" else "Exception in ASGI"
    assert expected in caplog.text


@pytest.mark.parametrize("changes", [{"Sec_WebSocket_Key": "abc"}, {"Sec_WebSocket_Version": "12"}])
def test_refusals_by_the_protocol_have_the_servers_headers(changes: dict[str, str]) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise AssertionError

    status, lines, _ = run(answer_of(app, **changes))
    assert status.split()[1] in (b"400", b"426")
    assert lines.count(b"server: uvicorn") == 1
    assert [line for line in lines if line.startswith(b"date: ")]


@pytest.mark.parametrize(
    "message",
    [{"text": b"abc"}, {"bytes": "abc"}, {"bytes": [b"a", b"b"]}, {"text": ["a", "b"]}, {"text": 1}],
    ids=str,
)
def test_messages_of_the_wrong_type(message: Message) -> None:
    async def main() -> None:
        async with staged() as (stage, client):
            with pytest.raises(TypeError, match=f"{next(iter(message))} must not be"):
                await stage.send({"type": "websocket.send", **message})
            for nothing in ({}, {"text": None, "bytes": None}):  # as uvicorn's own class takes them
                await stage.send({"type": "websocket.send", **nothing})
            await stage.send({"type": "websocket.close", "code": None})
            assert await client.frame() == close(1000)
            client.send(close(1000))

    run(main())


def test_sending_when_the_application_has_returned() -> None:
    """By a task that it has left behind; whether the client answers the Close frame or not."""

    async def main() -> None:
        async with staged() as (stage, client):
            stage.end()
            assert await client.frame() == close(1000)
            with pytest.raises(ClientDisconnected):
                await asyncio.wait_for(stage.send(sending("x")), SOON)
            client.send(close(1000))

    run(main())


def test_the_state_of_the_lifespan() -> None:
    """Each connection has a copy."""
    seen: list[Any] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = "made at the start"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append(dict(scope["state"]))
        scope["state"]["mine"] = True
        await receive()
        await send({"type": "websocket.close"})

    async def main() -> None:
        config = uvicorn.Config(app, ws=OURS, lifespan="on", log_config=None, port=0)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.lifespan.startup()
        await server.startup()
        for _ in range(2):
            async with asking(server) as client:
                assert (await client.reader.read()).startswith(b"HTTP/1.1 403 ")
        await server.shutdown()

    run(main())
    assert seen == [{"pool": "made at the start"}] * 2


@pytest.mark.parametrize("status", [101, 199, 600])
def test_a_status_that_is_no_answer(status: int) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": status, "headers": []})

    async def main() -> bytes:
        async with serving(app) as server, asking(server) as client:
            return await client.reader.read()

    assert run(main()).startswith(b"HTTP/1.1 500 ")


def test_a_subprotocol_that_was_not_offered() -> None:
    """RFC 6455 4.2.2: the client would have to fail the connection. The application can still choose another."""

    async def main() -> None:
        stage = Stage()
        async with serving(stage) as server, asking(server, **{"Sec-WebSocket-Protocol": "a"}) as client:
            await stage.entered.wait()
            for message in ({"subprotocol": "b"}, {"headers": [(b"sec-websocket-protocol", b"a")]}):
                with pytest.raises(ValueError, match=r"(?i)protocol"):
                    await stage.send({**ACCEPT, **message})
            await stage.send({**ACCEPT, "subprotocol": "a"})
            assert b"sec-websocket-protocol: a\r\n" in (await client.reader.readuntil(b"\r\n\r\n")).lower()
            stage.end()

    run(main())


# -- the corpus --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_the_corpus(http: str, caplog: pytest.LogCaptureFixture) -> None:
    """Hostile and legal frames; requests are read by uvicorn before they are ours."""
    caplog.set_level(logging.CRITICAL, logger="uvicorn.error")
    from wsproto_fast.testing import HOSTILE_FRAMES, LEGAL_FRAMES

    async def sink(scope: Message, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def main() -> list[str]:
        async with serving(sink, http=http, ws_max_size=2**20) as server:
            port = port_of(server)
            return await asyncio.to_thread(
                check_server, lambda: socket.create_connection(("127.0.0.1", port)), (*HOSTILE_FRAMES, *LEGAL_FRAMES)
            )

    assert all(name.endswith("-client") for name in run(main()))


# -- flow --------------------------------------------------------------------------------------------------------------


def test_the_queue() -> None:
    """``ws_max_queue`` messages wait; then the client is not read from, but for what its transport and the engine's
    read-ahead hold, until the application receives."""

    async def main() -> None:
        async with staged(ws_max_queue=2) as (stage, client):
            connection = connection_of(stage.server)
            sent = 0
            while connection.transport.is_reading():
                client.send(Frame(0x82, bytes(20_000)))
                sent += 1
                await asyncio.sleep(0)
            assert len(connection._queue) == 2
            for _ in range(sent):
                assert await stage.receive() == {"type": "websocket.receive", "bytes": bytes(20_000)}
            assert connection.transport.is_reading()
            client.send(ping(b"alive"))
            assert await client.frame() == pong(b"alive")

    run(main())


def test_control_frames_behind_waiting_messages() -> None:
    async def main() -> None:
        async with staged(ws_max_queue=1) as (stage, client):
            client.send(text("1"), text("2"), ping(b"x"), text("3"), close(1000))
            assert await client.frame() == pong(b"x")
            assert [(await stage.receive())["text"] for _ in range(3)] == ["1", "2", "3"]
            assert await stage.receive() == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
            assert await client.frame() == close(1000)

    run(main())


def test_a_client_that_does_not_read() -> None:
    """``send`` waits; and goes on when it reads."""

    async def main() -> None:
        async with staged() as (stage, client):
            connection = connection_of(stage.server)
            client.writer.transport.pause_reading()
            sent = 0

            async def send() -> None:
                nonlocal sent
                while not done.is_set():
                    await stage.send({"type": "websocket.send", "bytes": bytes(100_000)})
                    sent += 1

            done = asyncio.Event()
            task = asyncio.create_task(send())
            while not connection._write_paused:
                await asyncio.sleep(0)
            before = sent
            for _ in range(10):
                await asyncio.sleep(0)
            assert sent == before
            done.set()
            client.writer.transport.resume_reading()
            for _ in range(before + 1):
                frame = await client.frame()
                assert frame is not None
                assert len(frame.payload) == 100_000
            await task
            assert sent == before + 1

    run(main())


def test_the_end_wakes_who_waits_in_send() -> None:
    async def main() -> None:
        async with staged() as (stage, client):
            client.writer.transport.pause_reading()
            connection = connection_of(stage.server)

            async def send() -> None:
                while True:
                    await stage.send({"type": "websocket.send", "bytes": bytes(100_000)})

            task = asyncio.create_task(send())
            while not connection._write_paused:
                await asyncio.sleep(0)
            client.writer.transport.abort()
            with pytest.raises(ClientDisconnected):
                await task

    run(main())


class Spy:
    """A transport that counts what is written at once."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.writes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        self.transport.write(data)


@pytest.mark.parametrize("burst", [16, 1])
def test_replies_leave_together(burst: int) -> None:
    async def main() -> list[int]:
        async with serving(echo) as server, raw(server) as client:
            connection = connection_of(server)
            connection.transport = spy = Spy(connection.transport)
            for _ in range(3):
                client.send(*[text("x" * 125)] * burst)
                for _ in range(burst):
                    assert await client.frame() == text("x" * 125)
            return spy.writes.copy()

    assert run(main()) == [127 * burst] * 3


def test_receiving_may_be_cancelled() -> None:
    async def main() -> None:
        async with staged() as (stage, client):
            for number in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(stage.receive(), 0)
                client.send(text(str(number)))
            assert [(await stage.receive())["text"] for _ in range(3)] == ["0", "1", "2"]

    run(main())


def test_one_task_receives() -> None:
    async def main() -> None:
        async with staged() as (stage, client):
            first = asyncio.ensure_future(stage.receive())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError):
                await stage.receive()
            client.send(text("x"))
            assert (await first)["text"] == "x"

    run(main())


@pytest.mark.parametrize(("ws_max_queue", "told"), [(1, 1), (32, 3)])
def test_messages_after_closing_are_not_told(ws_max_queue: int, told: int) -> None:
    """Those that were there before are; the client's answer is heard behind any number of others."""

    async def main() -> None:
        async with staged(ws_max_queue=ws_max_queue) as (stage, client):
            connection = connection_of(stage.server)
            client.send(*[text("before")] * 3)
            while len(connection._queue) < told:
                await asyncio.sleep(0)
            await stage.send({"type": "websocket.close", "code": 4000, "reason": "why"})
            assert await client.frame() == close(4000, "why")
            client.send(*[text("after")] * 200)
            client.send(close(4000))
            assert await client.frame() is None
            for _ in range(told):
                assert await stage.receive() == {"type": "websocket.receive", "text": "before"}
            for _ in range(2):
                assert await stage.receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "why"}

    run(main())


def test_closing_wakes_who_waits_for_a_message() -> None:
    async def main() -> None:
        async with staged() as (stage, _):
            waiting = asyncio.ensure_future(stage.receive())
            await asyncio.sleep(0)
            await stage.send({"type": "websocket.close"})
            assert await waiting == {"type": "websocket.disconnect", "code": 1000, "reason": ""}

    run(main())


# -- settings ----------------------------------------------------------------------------------------------------------


def test_too_large_a_message() -> None:
    async def main() -> None:
        async with staged(ws_max_size=100) as (stage, client):
            client.send(text("x" * 100), Frame(0x01, b"x" * 60), Frame(0x80, b"x" * 60))
            assert len((await stage.receive())["text"]) == 100
            assert (await stage.receive())["code"] == 1009
            frame = await client.frame()
            assert frame is not None
            assert frame.payload[:2] == b"\x03\xf1"

    run(main())


def test_keepalive() -> None:
    async def main() -> None:
        async with staged(ws_ping_interval=0.01, ws_ping_timeout=0.05) as (stage, client):
            for _ in range(2):
                frame = await client.frame()
                assert frame is not None
                assert frame.first == 0x89
                client.send(pong(frame.payload))
            while (frame := await client.frame()) is not None and frame.first == 0x89:
                pass  # and is not answered
            assert frame == close(1011, "keepalive ping timeout")
            assert await stage.receive() == {
                "type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout",
            }  # fmt: skip

    run(main())


@pytest.mark.parametrize("off", [None, 0])
def test_no_keepalive(off: Any) -> None:
    async def main() -> None:
        async with staged(ws_ping_interval=off, ws_ping_timeout=off) as (stage, _):
            assert connection_of(stage.server)._settings.keepalive is None

    run(main())


def test_what_connections_share() -> None:
    async def main() -> None:
        async with serving(echo) as server, raw(server), raw(server):
            one, other = server.server_state.connections
            assert one._settings is other._settings

    run(main())


# -- shutdown ----------------------------------------------------------------------------------------------------------


def test_shutdown() -> None:
    """The client is told 1012 and may answer; the application is told, too."""

    async def main() -> None:
        async with staged() as (stage, client):
            closing = asyncio.create_task(stage.server.shutdown())
            assert await client.frame() == close(1012)
            with pytest.raises(ClientDisconnected):
                await stage.send(sending("x"))
            await stage.send({"type": "websocket.close"})  # it closes already
            assert not connection_of(stage.server).transport.is_closing()
            client.send(close(1012))
            assert await client.frame() is None
            assert await stage.receive() == {"type": "websocket.disconnect", "code": 1012}
            stage.end()
            await closing

    run(main())


def test_shutdown_of_a_connection_that_closes_already() -> None:
    """It does not wait for the client's answer any more."""

    async def main() -> None:
        async with staged() as (stage, client):
            await stage.send({"type": "websocket.close"})
            stage.end()
            begun = time.monotonic()
            await stage.server.shutdown()
            assert time.monotonic() - begun < SOON
            assert await client.frame() == close(1000)
            assert await client.frame() is None

    run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_shutdown_in_the_handshake(begun: bool) -> None:
    async def main() -> bytes:
        stage = Stage()
        async with serving(stage) as server, asking(server) as client:
            await stage.entered.wait()
            if begun:
                await stage.send({"type": "websocket.http.response.start", "status": 200})
            closing = asyncio.create_task(server.shutdown())
            answer = await client.reader.read()
            with pytest.raises(ClientDisconnected):
                await stage.send({"type": "websocket.http.response.body"} if begun else ACCEPT)
            assert await stage.receive() == CONNECT
            assert await stage.receive() == GONE
            stage.end()
            await closing
            return answer

    answer = run(main())
    assert answer.startswith(b"HTTP/1.1 500 ")


# -- transports --------------------------------------------------------------------------------------------------------


def uvloop_runner() -> Any:
    return pytest.importorskip("uvloop").run


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_uvloop(http: str) -> None:
    async def main() -> None:
        async with serving(echo, http=http) as server, connect(uri_of(server)) as connection:
            for size in (0, 10, 10**6):
                await connection.send("x" * size)
                assert await connection.recv() == "x" * size

    run(main(), uvloop_runner())


def test_tls(tmp_path: Any) -> None:
    import ssl

    import trustme

    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["scheme"] == "wss"
        await echo(scope, receive, send)

    async def main() -> None:
        async with serving(app, ssl_certfile=str(tmp_path / "server.pem")) as server:
            uri = uri_of(server).replace("ws:", "wss:")
            async with connect(uri, ssl=context) as connection:
                for size in (10, 10**6):
                    await connection.send(bytes(size))
                    assert await connection.recv() == bytes(size)
            assert connection.close_code == 1000

    run(main())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_unix_socket(tmp_path: Any) -> None:
    from wsproto_fast.asyncio import unix_connect

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send(sending(repr((scope["client"], scope["server"][1]))))

    async def main() -> Any:
        path = str(tmp_path / "socket")
        async with serving(app, uds=path), unix_connect(path) as connection:
            return await connection.recv()

    assert run(main()) == "(None, None)"


# -- driven by hand ----------------------------------------------------------------------------------------------------


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.output = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2)}.get(name, default)

    def write(self, data: bytes) -> None:
        self.output += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def by_hand(app: Any) -> tuple[WebSocketProtocol, Transport, ServerState]:
    """A protocol of which the settings were not loaded yet."""
    config = uvicorn.Config(app, ws=OURS, lifespan="off", log_config=None)
    state, transport = ServerState(), Transport()
    protocol = WebSocketProtocol(config, state, {})
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport, state


@pytest.mark.usefixtures("_quiet")
def test_a_request_in_pieces_with_frames_behind_it() -> None:
    async def main() -> None:
        protocol, transport, state = by_hand(echo)
        data = request("GET / HTTP/1.1")
        protocol.data_received(data[:50])
        assert not state.tasks
        protocol.data_received(data[50:] + encode_frame(0x81, b"early", mask=b"abcd"))
        protocol.data_received(encode_frame(0x81, b"too", mask=b"abcd"))
        (task,) = state.tasks
        while b"too" not in transport.output:
            await asyncio.sleep(0)
        assert transport.output.endswith(b"\x81\x05early\x81\x03too")
        protocol.connection_lost(None)
        await task
        assert not state.connections

    run(main())


@pytest.mark.usefixtures("_quiet")
def test_too_much_before_the_answer() -> None:
    async def main() -> None:
        stage = Stage()
        protocol, transport, state = by_hand(stage)
        protocol.data_received(request("GET / HTTP/1.1"))
        protocol.data_received(bytes(2**17))
        await stage.entered.wait()
        with pytest.raises(ClientDisconnected):
            await stage.send(ACCEPT)
        assert transport.output.startswith(b"HTTP/1.1 400 ")
        assert transport.closed
        with pytest.raises(ClientDisconnected):
            await stage.send(sending("x"))
        assert await stage.receive() == CONNECT
        assert await stage.receive() == GONE
        stage.end()
        await asyncio.gather(*state.tasks)
        protocol.connection_lost(None)

    run(main())


@pytest.mark.usefixtures("_quiet")
def test_a_request_for_something_else() -> None:
    async def main() -> None:
        protocol, transport, state = by_hand(echo)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        assert transport.output.startswith(b"HTTP/1.1 400 ")
        assert transport.closed
        assert not state.tasks
        protocol.data_received(b"more")
        protocol.connection_lost(None)

    run(main())


@pytest.mark.usefixtures("_quiet")
def test_shutdown_before_the_request() -> None:
    async def main() -> None:
        protocol, transport, _ = by_hand(echo)
        protocol.shutdown()
        assert transport.closed
        assert transport.output == b""
        protocol.connection_lost(None)

    run(main())


def test_refused_by_status() -> None:
    """As our client sees it."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 204})
        await send({"type": "websocket.http.response.body"})

    async def main() -> int:
        async with serving(app) as server:
            with pytest.raises(InvalidStatus) as caught:
                await connect(uri_of(server))
        return caught.value.response.status_code

    assert run(main()) == 204
