"""Clients end to end: redirects, reconnection, arguments, and what failed attempts leave behind, which is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets
import websockets.asyncio.client
import websockets.asyncio.server
from aio import answer, echo, pair, port_of, run, serving, tls_contexts, until, uri_of
from answering import Answering, answering, descriptors, found
from cases.handshakes import BROKEN_LOCATIONS, ENDLESS_ANSWERS, NO_REDIRECTS, REDIRECTS, WRONG_PROXIES

from wsproto_fast import (
    DeflateConfig,
    InvalidMessage,
    InvalidProxy,
    InvalidStatus,
    InvalidURI,
    SecurityError,
    State,
    WebSocketURI,
)
from wsproto_fast.asyncio import ClientConnection, Connection, ServerConnection, connect, unix_connect
from wsproto_fast.asyncio._dialing import Dialer
from wsproto_fast.exceptions import ConnectionClosed, ConnectionClosedError


def by_path(answers: dict[str, Callable[[bytes], bytes] | bytes]) -> Callable[[bytes], bytes]:
    def respond(request: bytes) -> bytes:
        made = answers[request.split(b" ")[1].decode()]
        return made if isinstance(made, bytes) else made(request)

    return respond


def fail(request: bytes) -> bytes:
    return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


# -- redirects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REDIRECTS)
def test_redirects_of_websockets(status: int) -> None:
    async def main() -> None:
        def process_request(connection: Any, request: Any) -> Any:
            if request.path == "/old":
                response = connection.respond(status, "")
                response.headers["Location"] = "/new?query"
                return response
            return None

        async def handler(connection: Any) -> None:
            await connection.send(connection.request.path)
            await connection.wait_closed()

        async with websockets.asyncio.server.serve(handler, "127.0.0.1", 0, process_request=process_request) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/old") as ws:
                assert await ws.recv() == "/new?query"

    run(main())


def test_credentials_stay_within_the_origin() -> None:
    async def main() -> None:
        headers = {"Cookie": "a", "Proxy-Authorization": "b", "X-Other": "c"}
        async with answering() as other:
            routes = {
                "/same": found("/here"),
                "/absolute": lambda _: found(one.uri("/here")),
                "/other": found(other.uri("/there").replace("ws:", "http:")),
                "/here": answer,
            }
            async with answering(by_path(routes)) as one:
                for path in ("/same", "/absolute"):
                    uri = one.uri(path).replace("ws://", "ws://user:pass@")
                    async with connect(uri, additional_headers=headers):
                        assert one.headers().items() >= {**headers, "Authorization": "Basic dXNlcjpwYXNz"}.items()
                connecting = connect(one.uri("/other").replace("ws://", "ws://u:p@"), additional_headers=headers)
                for _ in range(2):  # each attempt begins where our user said, and with all headers
                    async with connecting as ws:
                        assert connecting.uri == other.uri("/there")
                        assert ws.request is not None
                        assert ws.request.headers["Host"] == f"localhost:{other.port}"
                        assert one.headers().keys() >= {"Authorization", *headers}
                        assert other.headers().keys() & {"Authorization", *headers} == {"X-Other"}
                async with connect(one.uri("/other"), additional_headers=[("Authorization", "a"), ("X-Other", "c")]):
                    assert other.headers().keys() & {"Authorization", "X-Other"} == {"X-Other"}

    run(main())


def test_the_number_of_redirects_is_limited() -> None:
    async def main() -> None:
        left = 10

        def respond(request: bytes) -> bytes:
            nonlocal left
            left -= 1
            return answer(request) if left < 0 else found("/")

        async with answering(respond) as server:
            async with connect(server.uri()):
                assert len(server.requests) == 11
            left = 11
            with pytest.raises(SecurityError) as info:
                await connect(server.uri())
            assert str(info.value) == "more than 10 redirects"
            assert len(server.requests) == 22

    run(main())


@pytest.mark.parametrize("location", BROKEN_LOCATIONS)
def test_broken_locations(location: str) -> None:
    async def main() -> None:
        async with answering(lambda _: found(location)) as server:
            with pytest.raises(InvalidURI) as info:
                await connect(server.uri())
            assert isinstance(info.value.__cause__, InvalidStatus)

    run(main())


def test_redirects_that_nothing_can_follow() -> None:
    async def main() -> None:
        async with answering() as other, answering(lambda _: found(other.uri())) as server:
            sock = socket.create_connection(("127.0.0.1", server.port))
            with pytest.raises(ValueError, match="cannot follow redirect to .* with a preexisting socket"):
                await connect(server.uri(), sock=sock)
            for override in ({"host": "127.0.0.1"}, {"port": server.port}):
                with pytest.raises(ValueError, match="cannot follow cross-origin redirect to .* explicit host or port"):
                    await connect(server.uri(), **override)
            assert other.requests == []
            async with connect(server.uri(), host=None, port=None):
                assert len(other.requests) == 1
        for response in NO_REDIRECTS:
            async with answering(lambda _, response=response: response + b"\0" * 2**16) as server:
                with pytest.raises(InvalidStatus):
                    await connect(server.uri())
                assert len(server.requests) == 1

    run(main())


def test_redirects_between_schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def main() -> None:
        async with answering(tls=server_tls) as secure, answering(lambda _: found(secure.uri())) as plain:
            for kwargs in ({}, {"ssl": None}):
                async with connect(plain.uri(), **kwargs) as ws:
                    assert ws.transport.get_extra_info("ssl_object") is not None
            secure.respond = lambda _: found(plain.uri())
            with pytest.raises(SecurityError, match="cannot follow redirect to non-secure URI"):
                await connect(secure.uri())
            with pytest.raises(SecurityError, match="cannot follow redirect to non-secure URI"):
                await connect(plain.uri())

    run(main())


def test_redirects_of_unix_sockets(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        routes = {"/": found("/here"), "/here": answer, "/other": found("ws://other/")}
        server = Answering(by_path(routes))
        async with await asyncio.start_unix_server(server.on_connection, path):
            async with unix_connect(path) as ws:
                assert ws.request is not None
                assert (ws.request.path, ws.request.headers["Host"]) == ("/here", "localhost")
            with pytest.raises(
                ValueError, match="cannot follow cross-origin redirect to ws://other/ with a Unix socket"
            ):
                await unix_connect(path, "ws://localhost/other")
            await until(lambda: not server.open)

    run(main())


def test_the_deadline_is_one_for_all_redirects() -> None:
    async def main() -> None:
        async with answering(lambda _: b"") as silent, answering(lambda _: found(silent.uri())) as server:
            with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                await connect(server.uri(), open_timeout=0.1)
            assert len(silent.requests) == 1

    run(main())


def test_a_rule_of_our_users_own() -> None:
    class Stubborn(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc if self.uri.endswith("/stay") else super().process_redirect(exc)

    async def main() -> None:
        async with answering(by_path({"/": found("/stay"), "/stay": found("/")})) as server:
            with pytest.raises(InvalidStatus):
                await Stubborn(server.uri())
            assert len(server.requests) == 2

    run(main())


# -- connecting again --------------------------------------------------------------------------------------------------


def instantly() -> Iterator[float]:
    return itertools.repeat(0.0)


def test_a_server_that_goes_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast.client")

    async def main() -> None:
        async with contextlib.AsyncExitStack() as servers:
            server = await servers.enter_async_context(serving())
            port = port_of(server)
            made: list[list[float]] = []

            def delays() -> Iterator[float]:
                made.append([])
                for delay in (0.0, 0.001, 0.002):
                    made[-1].append(delay)
                    yield delay
                raise AssertionError("the server should be back")

            attempts = 0

            async def come_back(exc: Exception) -> None:
                await servers.enter_async_context(serving_at(port))

            returning: list[asyncio.Task[None]] = []

            def process_exception(exc: Exception) -> None:
                nonlocal attempts
                attempts += 1
                assert isinstance(exc, OSError)
                if attempts == 2:
                    returning.append(asyncio.ensure_future(come_back(exc)))

            uri = uri_of(server)
            seen: list[ClientConnection] = []
            async for ws in connect(uri, reconnect_delays=delays, process_exception=process_exception):
                if seen:
                    assert seen[-1].close_code in (1000, 1001)
                seen.append(ws)
                await ws.send("hello")
                assert await ws.recv() == "hello"
                if len(seen) == 2:
                    await server.__aexit__(None, None, None)
                    with pytest.raises(ConnectionClosed):
                        await ws.recv()
                if len(seen) == 4:
                    break
            assert attempts >= 2
            assert len(made) == 1  # of connections that opened at once, none needs delays
            assert made[0] == [0.0, 0.001, 0.002][:attempts]
            await ws.close()

        records = [record for record in caplog.records if "connect failed" in record.message]
        assert len(records) == attempts
        for record, delay in zip(records, (0.0, 0.0, 0.0), strict=False):
            assert record.levelno == logging.INFO
            assert record.exc_info is None
            assert "\n" not in record.message
            assert record.message.startswith(f"connect failed; reconnecting in {delay:.1f} seconds: ")
            assert "Error: " in record.message

    run(main())


@contextlib.asynccontextmanager
async def serving_at(port: int) -> AsyncIterator[Any]:
    from wsproto_fast.asyncio import serve

    async with serve(echo, "127.0.0.1", port) as server:
        yield server


def test_each_pass_closes_the_connection_before() -> None:
    async def main() -> None:
        ends: list[tuple[int | None, int]] = []

        async def handler(connection: ServerConnection) -> None:
            try:
                await connection.recv()
            except ConnectionClosed as exc:
                ends.append((connection.close_code, exc.code))

        async with serving(handler) as server:
            iterating = aiter_of(connect(uri_of(server)))
            first = await iterating.__anext__()
            assert first.state is State.OPEN
            second = await iterating.__anext__()
            assert first.state is State.CLOSED
            assert second.state is State.OPEN
            await iterating.aclose()  # what `break` comes to
            assert second.state is State.CLOSED
            await until(lambda: len(ends) == 2)
            assert ends == [(1000, 1000), (1000, 1000)]

    run(main())


def aiter_of(connecting: connect) -> Any:
    return connecting.__aiter__()


def test_success_resets_the_delays() -> None:
    async def main() -> None:
        made: list[int] = []

        def delays() -> Iterator[float]:
            made.append(0)
            while True:
                made[-1] += 1
                yield 0.0

        plan = iter([fail, fail, answer, fail, fail, fail, answer, answer])
        async with answering(lambda request: next(plan)(request)) as server:
            passes = 0
            iterating = aiter_of(connect(server.uri(), reconnect_delays=delays))
            async for _ in iterating:
                passes += 1
                if passes == 3:
                    break
            await iterating.aclose()
        assert made == [2, 3]

    run(main())


def test_fatal_errors_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast.client")

    async def main() -> None:
        async with answering(lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as server:
            with pytest.raises(InvalidStatus) as info:
                async for _ in connect(server.uri()):
                    pytest.fail("not reached")
            assert info.value.response.status_code == 404
            assert info.value.__cause__ is None
            assert len(server.requests) == 1

    run(main())
    assert caplog.records == []


class NoMore(Exception):
    pass


@pytest.mark.parametrize("how", ["return", "raise", "same"])
def test_process_exception(how: str) -> None:
    async def main() -> None:
        seen: list[Exception] = []

        def process_exception(exc: Exception) -> Exception | None:
            seen.append(exc)
            if len(seen) < 3:
                return None
            if how == "raise":
                raise NoMore
            return NoMore() if how == "return" else exc

        async with answering(lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as server:
            with pytest.raises(InvalidStatus if how == "same" else NoMore) as info:
                async for _ in connect(server.uri(), process_exception=process_exception, reconnect_delays=instantly):
                    pytest.fail("not reached")
            assert len(seen) == len(server.requests) == 3
            if how == "same":
                assert info.value is seen[-1]
            else:
                assert info.value.__cause__ is seen[-1]

    run(main())


def test_delays_that_come_to_an_end() -> None:
    async def main() -> None:
        async with answering(fail) as server:
            with pytest.raises(InvalidStatus):
                async for _ in connect(server.uri(), reconnect_delays=lambda: [0.0, 0.0]):
                    pytest.fail("not reached")
            assert len(server.requests) == 3

    run(main())


def test_the_body_of_the_loop() -> None:
    async def main() -> None:
        async with serving() as server:
            iterating = aiter_of(connect(uri_of(server), reconnect_delays=instantly))
            with pytest.raises(NoMore):
                async for ws in iterating:
                    assert ws.state is State.OPEN
                    raise NoMore
            await iterating.aclose()
            assert ws.state is State.CLOSED

    run(main())


def test_headers_of_later_attempts() -> None:
    async def main() -> None:
        async with answering() as server:
            token = {"X-Token": "0"}
            iterating = aiter_of(connect(server.uri(), additional_headers=token))
            for i in range(3):
                token["X-Token"] = str(i)
                await iterating.__anext__()
                assert server.headers()["X-Token"] == str(i)
            await iterating.aclose()
            connecting = connect(server.uri(), additional_headers=iter([("X-Token", "a")]))
            for _ in range(2):
                async with connecting:
                    assert server.headers()["X-Token"] == "a"

    run(main())


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_websockets() -> None:
    theirs = dict(inspect.signature(websockets.asyncio.client.connect).parameters)
    ours = dict(inspect.signature(connect).parameters)
    assert theirs.keys() <= ours.keys()
    different = {
        name
        for name, parameter in theirs.items()
        if parameter.default != ours[name].default or parameter.kind != ours[name].kind
    }
    # Our name in the request, our functions, and a larger write buffer.
    # An older websockets has no reconnect_delays.
    assert different == {"user_agent_header", "process_exception", "reconnect_delays", "write_limit"} & theirs.keys()
    unix = inspect.signature(unix_connect).parameters
    assert {name: parameter.default for name, parameter in unix.items()} == {
        name: parameter.default
        for name, parameter in inspect.signature(websockets.asyncio.client.unix_connect).parameters.items()
    }


@pytest.mark.parametrize(
    ("uri", "kwargs", "error"),
    [
        ("wss://a/", {"ssl": False}, "ssl=False is incompatible with a wss:// URI"),
        ("wss://a/", {"ssl": None}, "ssl=None is incompatible with a wss:// URI"),
        ("ws://a/", {"ssl": True}, "ssl argument is incompatible with a ws:// URI"),
    ],
)
def test_illegal_arguments(uri: str, kwargs: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        connect(uri, **kwargs)


def test_a_connection_of_our_users_own() -> None:
    class Mine(ClientConnection):
        async def shout(self, text: str) -> None:
            await self.send(text.upper())

    made: list[Any] = []

    def factory(*arguments: Any) -> ClientConnection:
        made.append(arguments)
        return Mine(*arguments)

    async def main() -> None:
        async with serving() as server:
            for create_connection in (Mine, factory):
                async with connect(uri_of(server), create_connection=create_connection) as ws:
                    assert type(ws) is Mine
                    await ws.shout("hello")
                    assert await ws.recv() == "HELLO"
            settings, handshake, logger = made[0]
            assert settings is ws._settings
            assert handshake.request is ws.request
            assert logger is logging.getLogger("wsproto_fast.client")

    run(main())


def test_loggers() -> None:
    async def main() -> None:
        adapter = logging.LoggerAdapter(logging.getLogger("mine"), {"a": 1})
        async with pair(logger=adapter) as ws:
            assert ws.logger.logger is adapter
        async with pair() as ws:
            assert ws.logger.logger.name == "wsproto_fast.client"

    run(main())


def test_arguments_of_ours() -> None:
    class Codec:
        dumps = staticmethod(lambda obj: "<" + json.dumps(obj) + ">")
        loads = staticmethod(lambda data: json.loads(data[1:-1]))

    class Observer:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: told.append(name)

    told: list[str] = []

    async def main() -> None:
        async with pair(json=Codec, observer=Observer()) as ws:
            await ws.send_json([1])
            assert await ws.recv() == "<[1]>"
        assert {"connection_opened", "message_sent", "message_received", "connection_closed"} <= set(told)
        messages: asyncio.Queue[tuple[Connection, Any]] = asyncio.Queue()
        async with pair(on_message=lambda connection, message: messages.put_nowait((connection, message))) as ws:
            await ws.send("hello")
            assert await messages.get() == (ws, "hello")
        beats: asyncio.Queue[str | bytes] = asyncio.Queue()

        async def hear(connection: Connection) -> None:
            beats.put_nowait(await connection.recv())

        async with pair(hear, ping_interval=0.01, ping_payload=lambda: "beat", max_queue_bytes=5) as ws:
            assert await beats.get() == "beat"
            assert ws._settings.queue_bytes == 5

    run(main())


def test_extensions() -> None:
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

    async def main() -> None:
        async with answering() as server:
            for extensions, offer in (
                ([ClientPerMessageDeflateFactory(client_no_context_takeover=True)], "client_no_context_takeover"),
                ([DeflateConfig(server_max_window_bits=10)], "server_max_window_bits=10"),
            ):
                async with connect(server.uri(), extensions=extensions):
                    assert offer in server.headers()["Sec-WebSocket-Extensions"]

    run(main())


def test_arguments_for_the_socket() -> None:
    async def main() -> None:
        async with serving() as server:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            async with connect(uri_of(server), local_addr=("127.0.0.1", port), family=socket.AF_INET) as ws:
                assert ws.local_address == ("127.0.0.1", port)
                assert ws.remote_address == ("127.0.0.1", port_of(server))

    run(main())


def test_names_of_tls() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(ssl=server_tls) as server:
            uri = f"wss://example.com:{port_of(server)}/"
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(uri, host="127.0.0.1", ssl=client_tls)
            async with connect(uri, host="127.0.0.1", ssl=client_tls, server_hostname="localhost") as ws:
                assert ws.request is not None
                assert ws.request.headers["Host"] == f"example.com:{port_of(server)}"
            sock = socket.create_connection(("127.0.0.1", port_of(server)))
            async with connect("wss://localhost/", sock=sock, ssl=client_tls) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"

    run(main())


def test_unix_sockets_with_tls(tmp_path: Path) -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        server = Answering(answer)
        async with await asyncio.start_unix_server(server.on_connection, tmp_path / "socket", ssl=server_tls):
            async with unix_connect(tmp_path / "socket", ssl=client_tls) as ws:
                assert ws.request is not None
                assert ws.request.headers["Host"] == "localhost"
            await until(lambda: not server.open)

    run(main())


# -- failures ----------------------------------------------------------------------------------------------------------


def test_no_connection_after_the_deadline() -> None:
    async def main() -> None:
        made: list[ClientConnection] = []

        def factory(*arguments: Any) -> ClientConnection:
            made.append(ClientConnection(*arguments))
            return made[-1]

        async with answering(lambda _: b"") as server:
            with pytest.raises(TimeoutError) as info:
                await connect(server.uri(), open_timeout=0.05, create_connection=factory)
            assert str(info.value) == "timed out during opening handshake"
            made[0]._handshake_received(answer(server.requests[0]))  # too late
            assert made[0].state is State.CONNECTING
            await made[0].wait_closed()
            assert made[0].state is State.CLOSED
            with pytest.raises((ConnectionClosed, AssertionError)):
                await made[0].send("hello")

    run(main())


def test_no_connection_after_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it was cancelled when the transport was there, but ``create_connection`` had not returned."""
    made: list[ClientConnection] = []

    async def dial(self: Dialer, uri: WebSocketURI, connection: Any) -> None:
        await really_dial(self, uri, connection)
        made.append(connection)
        raise NoMore

    really_dial = Dialer.dial
    monkeypatch.setattr(Dialer, "dial", dial)

    async def main() -> None:
        async with answering(lambda _: b"") as server:
            with pytest.raises(NoMore):
                await connect(server.uri())
            made[0]._handshake_received(answer(made[0].request.serialize()))  # type: ignore[union-attr]
            assert made[0].state is State.CONNECTING
            await made[0].wait_closed()

    run(main())


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_cancellation_at_any_time(scheme: str) -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        tls = {"ssl": client_tls} if scheme == "wss" else {}
        before = descriptors()
        async with answering(tls=server_tls if tls else None) as server:
            count = descriptors()
            turns = 0
            connected = False
            while not connected:
                task = asyncio.ensure_future(connect(server.uri(), **tls)._connect())
                for _ in range(turns):
                    await asyncio.sleep(0)
                turns += 1
                connected = task.done()
                if connected:
                    await (await task).close()
                    continue
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await until(lambda: not server.open and descriptors() == count and len(asyncio.all_tasks()) == 1)
            assert turns > 2
        assert descriptors() == before

    run(main())


def test_silent_tls_server() -> None:
    async def main() -> None:
        async with answering(lambda _: b"") as server:
            server.scheme = "wss"
            with pytest.raises(TimeoutError):
                await connect(server.uri(), open_timeout=0.05)

    run(main())


@pytest.mark.parametrize(("head", "filler", "error"), ENDLESS_ANSWERS)
def test_endless_answers(head: bytes, filler: bytes | None, error: type[Exception]) -> None:
    async def main() -> None:
        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(head)
            with contextlib.suppress(OSError, RuntimeError):  # uvloop's word for a closed transport
                while True:
                    writer.write(b"x" if filler is None else filler)
                    await writer.drain()
                    await asyncio.sleep(0.01 if filler is None else 0)
            writer.transport.abort()
            over.set()

        over = asyncio.Event()
        async with await asyncio.start_server(on_connection, "127.0.0.1", 0) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            with pytest.raises(error) as info:
                await connect(uri, open_timeout=0.2 if filler is None else 10)
            if isinstance(info.value, InvalidStatus):
                assert len(info.value.response.body) == 2**16
            await over.wait()

    run(main())


def test_every_failure_returns_its_descriptors() -> None:
    async def main() -> None:
        server_tls, _ = tls_contexts()
        before = descriptors()
        async with (
            answering(lambda _: None) as ending,
            answering(lambda _: b"nonsense\r\n\r\n") as nonsense,
            answering(lambda _: b"") as silent,
            answering(fail) as refusing,
            answering(tls=server_tls) as secure,
        ):
            count = descriptors()
            for uri, error in (
                (ending.uri(), InvalidMessage),
                (nonsense.uri(), InvalidMessage),
                (silent.uri(), TimeoutError),
                (refusing.uri(), InvalidStatus),
                (secure.uri(), ssl.SSLCertVerificationError),
                (secure.uri().replace("wss", "ws"), InvalidMessage),
                ("ws://localhost:1/", OSError),
                ("ws://" + "a" * 70 + "/", ValueError),
            ):
                with pytest.raises(error):
                    await connect(uri, open_timeout=0.2 if uri == silent.uri() else 10)
            await until(lambda: descriptors() == count)
            assert len(asyncio.all_tasks()) == 1
        assert descriptors() == before

    run(main())


def test_the_server_ends_before_anything() -> None:
    async def main() -> None:
        async with answering(lambda _: None) as server:
            with pytest.raises(InvalidMessage) as info:
                await connect(server.uri())
            assert isinstance(info.value.__cause__, EOFError)
            plan = iter([lambda _: None, lambda _: None, answer])
            server.respond = lambda request: next(plan)(request)
            iterating = aiter_of(connect(server.uri(), reconnect_delays=instantly))
            await iterating.__anext__()
            assert len(server.requests) == 4
            await iterating.aclose()

    run(main())


def test_illegal_proxies_are_found_at_once() -> None:
    for proxy in WRONG_PROXIES:
        with pytest.raises(InvalidProxy):
            connect("ws://localhost/", proxy=proxy)


def test_a_body_that_raises_closes_with_1011() -> None:
    async def main() -> None:
        codes: list[int | None] = []

        async def handler(connection: ServerConnection) -> None:
            with pytest.raises(ConnectionClosedError):
                await connection.recv()
            codes.append(connection.close_code)

        async with serving(handler) as server:
            with pytest.raises(NoMore):
                async with connect(uri_of(server)):
                    raise NoMore
            await until(lambda: bool(codes))
        assert codes == [1011]

    run(main())
