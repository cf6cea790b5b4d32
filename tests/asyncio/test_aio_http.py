"""The HTTP edge of a server: plain requests, health checks, hooks, and visitors that have lost their way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio import REQUEST, byte_server, echo, port_of, raw, run, serving, tasks_of, tls_contexts, until, uri_of
from cases.handshakes import NO_ANSWERS

from wsproto_fast import Headers, Limits, Request, Response, State
from wsproto_fast.asyncio import Server, ServerConnection, connect
from wsproto_fast.exceptions import InvalidStatus

Visit = Callable[[Server], Awaitable[None]]

DEBUG_MODE = sys.flags.dev_mode or bool(os.environ.get("PYTHONASYNCIODEBUG"))


async def ask(server: Server, request: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer; the server must close the connection behind it."""
    async with raw(server) as (reader, writer):
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name] = value
    assert headers["Connection"].startswith("close")
    return int(status_line.split(" ")[1]), headers, body


# -- plain HTTP --------------------------------------------------------------------------------------------------------


def health(connection: ServerConnection, request: Request) -> Response | None:
    """As the documentation shows it."""
    return connection.respond(200, "OK\n") if request.path == "/healthz" else None


async def health_async(connection: ServerConnection, request: Request) -> Response | None:
    await asyncio.sleep(0)
    return health(connection, request)


@pytest.mark.parametrize("process_request", [health, health_async])
@pytest.mark.parametrize(
    ("line", "has_body"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", True),
        (b"GET /healthz HTTP/1.0\r\n", True),
        (b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n", False),
        (b"HEAD /healthz HTTP/1.0\r\n", False),
        (b"OPTIONS /healthz HTTP/1.1\r\nHost: a\r\n", True),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n", True),
        (REQUEST.replace(b"GET / ", b"GET /healthz "), True),
    ],
)
def test_health_check(process_request: Any, line: bytes, has_body: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with serving(process_request=process_request) as server:
            status, headers, body = await ask(server, line + b"\r\n")
            assert status == 200
            assert body == (b"OK\n" if has_body else b"")
            assert headers["Content-Length"] == "3"
            assert headers["Content-Type"] == "text/plain; charset=utf-8"
            assert "wsproto_fast" in headers["Server"]
            assert await connect_and_echo(server)

    run(main())
    # A probe every second must not fill the log.
    messages = [record.message for record in caplog.records if "HTTP" in record.message]
    assert messages == ["answered a request with HTTP 200"]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def connect_and_echo(server: Server) -> bool:
    async with connect(uri_of(server)) as ws:
        await ws.send("hello")
        return await ws.recv() == "hello"


@pytest.mark.parametrize(
    ("method", "body", "status", "expected"),
    [
        (b"GET", b"<p>a longer page</p>", 200, ("20", b"<p>a longer page</p>")),
        (b"HEAD", b"<p>a longer page</p>", 200, ("20", b"")),
        (b"GET", b"", 200, ("0", b"")),
        (b"HEAD", b"", 200, ("5", b"")),  # a program may leave the body off itself
        (b"GET", b"x", 304, ("1", b"")),
        (b"GET", b"\x00\xff", 404, ("2", b"\x00\xff")),
    ],
)
def test_a_replaced_body(method: bytes, body: bytes, status: int, expected: tuple[str, bytes]) -> None:
    async def main() -> None:
        def process_request(connection: ServerConnection, request: Request) -> Response:
            response = connection.respond(status, "short")
            response.body = body
            return response

        async with serving(process_request=process_request) as server:
            got_status, headers, got = await ask(server, method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (got_status, headers["Content-Length"], got) == (status, *expected)

    run(main())


def test_a_response_of_ones_own() -> None:
    async def main() -> None:
        constant = Response(200, "OK", Headers({"Content-Type": "text/html"}), b"<p>")

        async with serving(process_request=lambda connection, request: constant, server_header="test") as server:
            for _ in range(2):  # it may be used again
                status, headers, body = await ask(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (status, body) == (200, b"<p>")
                assert headers["Server"] == "test"
        async with serving(process_request=lambda connection, request: constant, server_header="other") as server:
            assert (await ask(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[1]["Server"] == "test"
            with pytest.raises(InvalidStatus) as info:
                await connect(uri_of(server))
            assert info.value.response.body == b"<p>"
        bare = Response(200, "OK", Headers(), b"<p>")
        async with serving(process_request=lambda connection, request: bare, server_header=None) as server:
            assert "Server" not in (await ask(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[1]

    run(main())


def test_hooks_see_every_request() -> None:
    async def main() -> None:
        seen: list[Any] = []

        def process_request(connection: ServerConnection, request: Request) -> None:
            seen.append((request.method, request.path, request.protocol))

        def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
            seen.append(response.status_code)
            response.headers["X-Seen"] = "yes"

        async with serving(process_request=process_request, process_response=process_response) as server:
            for request, status in (
                (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426),
                (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
                (b"DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n", 405),
                (b"GET / HTTP/1.0\r\n\r\n", 505),
            ):
                got, headers, body = await ask(server, request)
                assert got == status
                assert headers["X-Seen"] == "yes"
                assert bool(body) == (not request.startswith(b"HEAD"))
                assert seen.pop() == status
            assert seen == [
                ("GET", "/", "HTTP/1.1"),
                ("HEAD", "/", "HTTP/1.1"),
                ("DELETE", "/x", "HTTP/1.1"),
                ("GET", "/", "HTTP/1.0"),
            ]
            seen.clear()
            assert await connect_and_echo(server)
            assert seen[1:] == [101]
            assert (await ask(server, b"nonsense\r\n\r\n"))[0] == 400  # that is no request
            assert len(seen) == 2

    run(main())


@pytest.mark.parametrize("hook", ["process_request", "process_response"])
def test_a_returned_101_goes_on(hook: str) -> None:
    async def main() -> None:
        def accept(connection: ServerConnection, *_: Any) -> Response:
            response = connection._handshake.accept()
            response.headers["X-Mine"] = "1"
            return response

        options: dict[str, Any] = {hook: accept}
        async with serving(**options) as server, connect(uri_of(server)) as ws:
            assert ws.response is not None
            assert ws.response.headers["X-Mine"] == "1"
            await ws.send("hello")
            assert await ws.recv() == "hello"

    run(main())


@pytest.mark.parametrize("answer", NO_ANSWERS)
@pytest.mark.parametrize("hook", ["process_request", "process_response"])
def test_hooks_that_return_no_answer(hook: str, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        options: dict[str, Any] = {hook: lambda *_: answer}
        async with serving(**options) as server:
            with pytest.raises(InvalidStatus, match="500"):
                await connect(uri_of(server))

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.message, record.exc_info is not None) == ("opening handshake failed", True)


def test_respond_is_for_hooks() -> None:
    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            try:
                ws.respond(200, "too late")
            except Exception as exc:
                await ws.send(type(exc).__name__)

        async with serving(handler) as server, connect(uri_of(server)) as ws:
            assert await ws.recv() == "InvalidState"

    run(main())


def test_a_client_that_leaves_while_a_hook_thinks() -> None:
    """The hook has until the deadline, and there is no handler for nobody."""

    async def main() -> None:
        handled = False
        asked = asyncio.Event()
        go_on = asyncio.Event()

        async def handler(ws: ServerConnection) -> None:
            nonlocal handled
            handled = True

        connections: list[ServerConnection] = []

        async def process_request(connection: ServerConnection, request: Request) -> None:
            connections.append(connection)
            asked.set()
            connection.transport.abort()
            await go_on.wait()

        for answers in (True, False):
            asked.clear()
            go_on.clear()
            async with serving(handler, process_request=process_request, open_timeout=0.1) as server:
                async with raw(server) as (reader, writer):
                    writer.write(REQUEST + b"\r\n")
                    await asked.wait()
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b""
                await until(lambda: connections[0].state is State.CLOSED)
                assert tasks_of(server)
                if answers:
                    go_on.set()
                await until(lambda: not server._alive)
                assert connections.pop()._entry is None  # nothing keeps it in memory
        assert not handled

    run(main())


def test_frames_that_come_while_a_hook_thinks() -> None:
    """They must not (RFC 6455 4.1), but they may: they stay in the socket, or wait if the transport does not obey."""

    async def main() -> None:
        frames = b"\x82\xfe\x03\xe8\0\0\0\0" + bytes(1000)
        go_on = asyncio.Event()

        async def process_request(connection: ServerConnection, request: Request) -> None:
            connection._handshake_received(b"\x81\x81\0\0\0\0a")  # as TLS may
            await go_on.wait()

        async with serving(process_request=process_request, limits=Limits(max_read_ahead=2000)) as server:
            async with raw(server) as (reader, writer):
                writer.write(REQUEST + b"\r\n")
                await until(lambda: bool(tasks_of(server)))
                writer.write(frames * 50)
                await until(lambda: not writer.transport.get_write_buffer_size())
                assert (await ask(server, b"nonsense\r\n\r\n"))[0] == 400  # it would have read them by now
                go_on.set()
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(3) == b"\x81\x01a"
                for _ in range(50):
                    assert await reader.readexactly(4 + 1000) == b"\x82\x7e\x03\xe8" + bytes(1000)

    run(main())


def test_a_hook_that_ignores_its_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        handled = False

        async def handler(ws: ServerConnection) -> None:
            nonlocal handled
            handled = True

        async def process_request(connection: ServerConnection, request: Request) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        async with serving(handler, process_request=process_request, open_timeout=0.05) as server:
            async with raw(server) as (reader, writer):
                writer.write(REQUEST + b"\r\n")
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            await until(lambda: not tasks_of(server))
        assert not handled

    run(main())
    assert "opening handshake timed out" in [record.message for record in caplog.records]


# -- scanners and probes -----------------------------------------------------------------------------------------------


async def connect_and_close(server: Server) -> None:
    async with raw(server):
        pass


async def connect_and_reset(server: Server) -> None:
    """A port scan."""
    with socket.create_connection(("127.0.0.1", port_of(server))) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def half_close(server: Server) -> None:
    async with raw(server) as (reader, writer):
        writer.write_eof()
        assert await reader.read() == b""


def sending(data: bytes, *, reset: bool = False) -> Visit:
    async def visit(server: Server) -> None:
        async with raw(server) as (reader, writer):
            writer.write(data)
            if reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
            else:
                writer.write_eof()
                await reader.read()

    return visit


async def tls_hello(server: Server) -> None:
    context = ssl.create_default_context()
    connecting = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port_of(server), ssl=context))
    with pytest.raises((OSError, asyncio.TimeoutError)):
        await asyncio.wait_for(connecting, 5)


async def silent(server: Server) -> None:
    async with raw(server) as (reader, writer):
        writer.write(b"GET")
        with contextlib.suppress(ConnectionError):
            await reader.read()


VISITS = {
    "silent": silent,
    "connect and close": connect_and_close,
    "connect and reset": connect_and_reset,
    "half-close": half_close,
    "empty line": sending(b"\r\n"),
    "half a request": sending(b"GET / HT"),
    "half a request, reset": sending(b"GET / HT", reset=True),
    "half a WebSocket request": sending(REQUEST),
    "request, reset": sending(REQUEST + b"\r\n", reset=True),
    "plain HTTP": sending(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "plain HTTP, reset": sending(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", reset=True),
    "HTTP/1.0": sending(b"GET / HTTP/1.0\r\n\r\n"),
    "HTTP/2": sending(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HEAD": sending(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "POST": sending(b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b"),
    "CONNECT": sending(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"),
    "traversal": sending(b"GET /../../etc/passwd HTTP/1.1\r\n\r\n"),
    "garbage": sending(bytes(range(256)) * 4),
    "zeros": sending(bytes(10_000)),
    "newlines": sending(b"\n" * 10_000),
    "SSH": sending(b"SSH-2.0-scanner\r\n"),
    "RDP": sending(b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00"),
    "SIP": sending(b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm\r\n\r\n"),
    "TLS": tls_hello,
    "header injection": sending(REQUEST + b"X: a\rb\r\n\r\n"),
}


def check_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """At most one line of the visitor, without a traceback, and nothing of asyncio's."""
    # In debug mode asyncio tells at INFO what it does, and at WARNING what was slow.
    asyncio_level = logging.WARNING if DEBUG_MODE else logging.DEBUG
    records = [record for record in caplog.records if record.name != "asyncio" or record.levelno > asyncio_level]
    assert all(record.levelno <= logging.INFO and record.exc_info is None for record in records), records
    ours = [record.getMessage() for record in records]
    assert all("\n" not in message for message in ours)
    visitor = [message for message in ours if not message.startswith("server ")]
    assert len(visitor) <= 1, visitor


@pytest.mark.parametrize("process_request", [None, health_async], ids=["inline", "hook"])
@pytest.mark.parametrize("visit", VISITS.values(), ids=VISITS)
def test_visitors_make_no_noise(visit: Visit, process_request: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with serving(park, process_request=process_request, open_timeout=0.5) as server:
            await visit(server)
            await until(lambda: not server._alive)

    run(main())
    check_quiet(caplog)


async def park(ws: ServerConnection) -> None:
    await ws.wait_closed()


TLS_VISITS = ["connect and close", "connect and reset", "half-close", "half a request", "plain HTTP", "garbage"]


@pytest.mark.skipif(DEBUG_MODE, reason="asyncio's debug mode reports failed TLS handshakes, as errors of ours")
@pytest.mark.parametrize("visit", TLS_VISITS)
def test_visitors_of_a_tls_port_make_no_noise(visit: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(ssl=server_tls, open_timeout=0.5) as server:
            with contextlib.suppress(ConnectionError):
                await VISITS[visit](server)
            with pytest.raises(ssl.SSLError):  # who does not trust us
                await asyncio.open_connection("127.0.0.1", port_of(server), ssl=ssl.create_default_context())
            async with connect(f"wss://127.0.0.1:{port_of(server)}/", ssl=client_tls) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            await until(lambda: not server._alive)

    run(main())
    check_quiet(caplog)


def test_many_visitors_at_once_leave_nothing() -> None:
    async def main() -> None:
        async with serving(park, open_timeout=0.5) as server:
            visits = [visit(server) for name, visit in VISITS.items() if name != "TLS"] * 3
            await asyncio.gather(*visits)
            await until(lambda: not server._alive)
            assert len(asyncio.all_tasks()) == 1

    run(main())


# -- over TLS ----------------------------------------------------------------------------------------------------------


def test_answer_and_frames_in_one_read_over_tls() -> None:
    """asyncio fills our buffer record by record."""

    async def main() -> None:
        server_tls, client_tls = tls_contexts()

        async def talk(peer: Any) -> None:
            peer.write(0x81, b"one")
            peer.write(0x81, b"two")
            peer.write(0x88, b"\x03\xe8")
            await peer.frame()

        async with byte_server(talk, ssl=server_tls) as uri:
            async with connect(uri.replace("ws:", "wss:"), ssl=client_tls) as ws:
                assert [message async for message in ws] == ["one", "two"]

    run(main())


def test_plain_answers_over_tls() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(echo, ssl=server_tls, process_request=health_async) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), ssl=client_tls)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\nOK\n")
            writer.close()
            await writer.wait_closed()

    run(main())
