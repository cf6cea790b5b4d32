"""Opening handshakes end to end: what programs may decide, what peers may get wrong, and the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from typing import Any

import pytest
from aio import (
    REQUEST,
    answer,
    byte_server,
    echo,
    pair,
    peer_of,
    port_of,
    raw,
    run,
    serving,
    tls_contexts,
    until,
    uri_of,
)
from cases.handshakes import (
    BAD_ANSWERS,
    BAD_ORIGINS,
    BAD_REQUESTS,
    BEFORE_LEAVING,
    GOOD_ORIGINS,
    HOOKS,
    WRONG_CLIENT_ARGUMENTS,
    WRONG_SERVER_ARGUMENTS,
    WRONG_URIS,
)
from helpers import SOON

from wsproto_fast import Headers, Limits, Request, Response, State
from wsproto_fast.asyncio import ServerConnection, connect, serve, unix_connect
from wsproto_fast.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidState,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)


async def refusal(reader: asyncio.StreamReader) -> str:
    """The whole answer of a server that refuses; it must close the connection."""
    return (await reader.read()).decode()


# -- the server's side -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_bytes", "status"), BAD_REQUESTS)
def test_malformed_requests_are_answered(request_bytes: bytes, status: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wsproto_fast")

    async def main() -> None:
        async with serving(origins=["http://good"]) as server, raw(server) as (reader, writer):
            writer.write(request_bytes)
            response = await refusal(reader)
            assert response.startswith(f"HTTP/1.1 {status} "), response
            assert "Connection: close" in response

    run(main())
    records = [record for record in caplog.records if "refused" in record.message]
    assert [record.levelno for record in records] == [logging.INFO]
    assert all(record.exc_info is None and "\n" not in record.message for record in caplog.records)


@pytest.mark.parametrize("request_bytes", BEFORE_LEAVING)
def test_clients_that_leave_before_their_request(request_bytes: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast")

    async def main() -> None:
        async with serving() as server:
            async with raw(server) as (reader, writer):
                writer.write(request_bytes)
                writer.write_eof()
                assert await reader.read() == b""
            async with raw(server) as (_, writer):  # and with a reset
                writer.write(request_bytes)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()

    run(main())
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_slow_handshakes_are_cut_at_the_deadline() -> None:
    async def main() -> None:
        async with serving(open_timeout=0.15) as server, raw(server) as (reader, writer):
            begin = asyncio.get_running_loop().time()

            async def drip() -> None:
                with contextlib.suppress(OSError):
                    for byte in REQUEST:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(0.02)

            dripping = asyncio.ensure_future(drip())
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert 0.1 < asyncio.get_running_loop().time() - begin < SOON
            dripping.cancel()

    run(main())


def test_silent_tls_handshake_is_cut_at_the_deadline() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(ssl=server_tls, open_timeout=0.15) as server:
            async with raw(server) as (reader, _):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server), ssl=client_tls)
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.transport.abort()

    run(main())


def test_slow_process_request_is_cut_at_the_deadline() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def process_request(connection: ServerConnection, request: Request) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with (
            serving(process_request=process_request, open_timeout=0.1) as server,
            raw(server) as (reader, writer),
        ):
            writer.write(REQUEST + b"\r\n")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await cancelled.wait()

    run(main())


def test_refused_clients_that_do_not_go() -> None:
    async def main() -> None:
        for open_timeout in (0.1, None):
            async with serving(open_timeout=open_timeout) as server:
                async with raw(server) as (reader, writer):
                    writer.write(b"nonsense\r\n\r\n")
                    assert (await reader.read()).startswith(b"HTTP/1.1 400")
                    if open_timeout is not None:  # they are dropped at the deadline
                        while server._alive:
                            await asyncio.sleep(0.01)

    run(main())


def test_process_request() -> None:
    async def main() -> None:
        seen: list[Any] = []

        def process_request(connection: ServerConnection, request: Request) -> Response | None:
            seen.append((connection.state, request.path, connection.request is request, connection.subprotocol))
            assert connection.close_code is None
            assert connection.close_reason is None
            if request.path == "/health":
                return connection.respond(200, "OK\n")
            if request.path == "/raw":
                return Response(200, "OK", Headers({"Content-Length": "2"}), b"ok")
            return None

        async with serving(process_request=process_request, server_header="test") as server:
            for path in ("health", "raw"):
                async with raw(server) as (reader, writer):
                    writer.write(b"GET /" + path.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                    response = await refusal(reader)
                    assert response.startswith("HTTP/1.1 200 OK\r\n")
                    assert response.lower().endswith(("ok", "ok\n"))
            async with connect(uri_of(server, "/chat")) as ws:
                assert ws.response is not None
                assert ws.response.headers["Server"] == "test"
            with pytest.raises(InvalidStatus, match="200"):
                await connect(uri_of(server, "/health"))
        assert seen[0] == (State.CONNECTING, "/health", True, None)
        assert seen[2][1] == "/chat"

    run(main())


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("response_first", [False, True])
def test_what_a_connection_remembers_of_its_handshake(seen: bool, response_first: bool) -> None:
    """Of an idle connection only the request's head is kept, where nobody has seen the request before."""

    async def main() -> None:
        accepted: list[tuple[Request | None, Response | None]] = []
        connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

        async def handler(ws: ServerConnection) -> None:
            await connections.put(ws)
            await ws.wait_closed()

        def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
            response.headers["X-Seen"] = "1"
            accepted.append((request, response))

        options: dict[str, Any] = {"process_response": process_response} if seen else {}
        async with serving(handler, subprotocols=["b", "a"], server_header="ours", **options) as server:
            async with connect(uri_of(server, "/chat?x=1"), subprotocols=["a", "b"], compression="deflate") as client:
                ws = await connections.get()
                assert isinstance(ws._asked, Request if seen else bytes)
                response, request = (ws.response, ws.request) if response_first else (ws.request, ws.response)[::-1]
                assert request == client.request
                assert response == client.response
                assert response is not None
                assert response.headers["Sec-WebSocket-Protocol"] == "b"
                assert response.headers["Server"] == "ours"
                assert "Sec-WebSocket-Extensions" in response.headers
                assert ("X-Seen" in response.headers) is seen
                assert ws.request is request
                assert ws.response is response
                if seen:
                    assert accepted == [(request, response)]
                    assert accepted[0][0] is request
            assert ws.request is request
            assert ws.response is response

    run(main())


def test_an_open_connection_outlives_its_open_deadline(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with serving(open_timeout=0.05, ping_interval=None) as server, peer_of(server) as peer:
            (connection,) = server.connections
            await until(lambda: connection._entry is None)  # the deadline has come
            peer.write(0x81, b"hello")
            assert await peer.frame() == (0x81, b"hello")

    run(main())
    assert not [record for record in caplog.records if "timed out" in record.message]


def test_process_request_and_response_as_coroutines() -> None:
    async def main() -> None:
        async def process_request(connection: ServerConnection, request: Request) -> Response | None:
            await asyncio.sleep(0)
            with pytest.raises(InvalidState):
                await connection.send("too early")
            with pytest.raises(InvalidState):
                await connection.recv()
            return connection.respond(401, "no") if request.path == "/no" else None

        async def process_response(
            connection: ServerConnection, request: Request, response: Response
        ) -> Response | None:
            await asyncio.sleep(0)
            response.headers["X-Path"] = request.path
            return connection.respond(418, "teapot") if request.path == "/tea" else None

        async with serving(process_request=process_request, process_response=process_response) as server:
            async with connect(uri_of(server, "/yes")) as ws:
                assert ws.response is not None
                assert ws.response.headers["X-Path"] == "/yes"
            for path, status in (("/no", 401), ("/tea", 418)):
                with pytest.raises(InvalidStatus) as info:
                    await connect(uri_of(server, path))
                assert info.value.response.status_code == status

    run(main())


@pytest.mark.parametrize("where", HOOKS)
def test_exceptions_of_the_program_are_logged_and_answered(where: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("secret")

    async def main() -> None:
        options: dict[str, Any] = {where: fail}
        async with serving(**options) as server:
            with pytest.raises(InvalidStatus) as info:
                await connect(uri_of(server))
            assert info.value.response.status_code == 500
            assert b"secret" not in info.value.response.body

    run(main())
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in records] == ["opening handshake failed"]
    assert records[0].exc_info is not None


def test_process_request_that_drops_the_connection() -> None:
    async def main() -> None:
        def process_request(connection: ServerConnection, request: Request) -> None:
            connection.transport.abort()

        async with serving(process_request=process_request) as server:
            with pytest.raises((InvalidMessage, OSError)):
                await connect(uri_of(server))

    run(main())


def test_refusals_over_tls() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(origins=["https://good"], ssl=server_tls) as server:
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"wss://127.0.0.1:{port_of(server)}/", ssl=client_tls)

    run(main())


def test_large_refusals() -> None:
    async def main() -> None:
        def process_request(connection: ServerConnection, request: Request) -> Response:
            return connection.respond(200, "x" * 3_000_000)

        async with serving(process_request=process_request) as server, raw(server) as (reader, writer):
            writer.write(REQUEST + b"\r\n")
            assert len(await refusal(reader)) > 3_000_000

    run(main())


def test_subprotocols() -> None:
    async def main() -> None:
        def select(connection: ServerConnection, offered: Any) -> str | None:
            assert isinstance(connection, ServerConnection)
            if "bad" in offered:
                raise NegotiationError("no bad ones")
            return offered[-1] if offered else None

        async with serving(select_subprotocol=select) as server:
            async with connect(uri_of(server), subprotocols=["a", "b"]) as ws:
                assert ws.subprotocol == "b"
            async with connect(uri_of(server)) as ws:
                assert ws.subprotocol is None
            with pytest.raises(InvalidStatus):
                await connect(uri_of(server), subprotocols=["bad"])
        async with serving(subprotocols=["a"]) as server:
            with pytest.raises(InvalidStatus):
                await connect(uri_of(server))

    run(main())


def test_origins() -> None:
    async def main() -> None:
        async with serving(origins=["http://good", re.compile("http://.*[.]good")]) as server:
            for origin in GOOD_ORIGINS:
                async with connect(uri_of(server), origin=origin):
                    pass
            for origin in BAD_ORIGINS:
                with pytest.raises(InvalidStatus, match="403"):
                    await connect(uri_of(server), origin=origin)

    run(main())


def test_frames_with_the_request_wait_for_the_answer() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def process_request(connection: ServerConnection, request: Request) -> None:
            await go_on.wait()

        async with serving(process_request=process_request) as server, raw(server) as (reader, writer):
            writer.write(REQUEST + b"\r\n" + b"\x81\x81\0\0\0\0a")
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b"\x81\x81\0\0\0\0b")
            go_on.set()
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(6) == b"\x81\x01a\x81\x01b"

    run(main())


def test_server_arguments_are_checked_at_once() -> None:
    async def main() -> None:
        for wrong in WRONG_SERVER_ARGUMENTS:
            with pytest.raises(ValueError):
                serve(echo, "127.0.0.1", 0, **wrong)

    run(main())


# -- the client's side -------------------------------------------------------------------------------------------------


def test_client_arguments_are_checked_at_once() -> None:
    for uri in WRONG_URIS:
        with pytest.raises(InvalidURI):
            connect(uri)
    for wrong in WRONG_CLIENT_ARGUMENTS:
        with pytest.raises(ValueError):
            connect("ws://localhost/", **wrong)
    with pytest.raises(ValueError, match="ssl=None"):
        connect("wss://localhost/", ssl=None)
    with pytest.raises(ValueError, match="ws://"):
        unix_connect("/nowhere", "ws://localhost/", ssl=True)


def test_client_headers() -> None:
    async def main() -> None:
        requests: list[Request] = []

        def process_request(connection: ServerConnection, request: Request) -> None:
            requests.append(request)

        async with serving(process_request=process_request) as server:
            uri = f"ws://user:pass@127.0.0.1:{port_of(server)}/"
            async with connect(uri, additional_headers={"X-A": "1"}, user_agent_header=None, compression=None):
                headers = requests[0].headers
                assert headers["X-A"] == "1"
                assert headers["Authorization"] == "Basic dXNlcjpwYXNz"
                assert "User-Agent" not in headers
                assert "Sec-WebSocket-Extensions" not in headers
            async with connect(uri):
                assert "wsproto_fast" in requests[1].headers["User-Agent"]

    run(main())


@pytest.mark.parametrize(("response", "error"), BAD_ANSWERS)
def test_bad_answers(response: bytes, error: type[InvalidHandshake]) -> None:
    async def main() -> None:
        async def talk(peer: Any) -> None:
            peer.writer.write(response)

        async with byte_server(talk, handshake=False) as uri:
            with pytest.raises(error):
                await connect(uri)

    run(main())


def test_extensions_that_were_not_offered() -> None:
    async def main() -> None:
        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(head, b"Sec-WebSocket-Extensions: x-snappy\r\n"))
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(on_connection, "127.0.0.1", 0) as server:
            with pytest.raises(NegotiationError):
                await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            await asyncio.sleep(0.01)

    run(main())


def test_reset_during_the_handshake() -> None:
    async def main() -> None:
        async def reset(peer: Any) -> None:
            peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.writer.transport.abort()

        async with byte_server(reset, handshake=False) as uri:
            with pytest.raises((InvalidMessage, OSError)) as info:
                await connect(uri)
            if isinstance(info.value, InvalidMessage):
                assert info.value.__cause__ is not None

    run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(OSError):
                await connect(f"ws://127.0.0.1:{taken.getsockname()[1]}/")

    run(main())


def test_client_open_timeout() -> None:
    async def main() -> None:
        async def silent(peer: Any) -> None:
            with contextlib.suppress(OSError):
                assert await peer.reader.read() == b""

        async with byte_server(silent, handshake=False) as uri:
            with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                await connect(uri, open_timeout=0.05)
        async with byte_server(silent, handshake=False) as uri:
            task = asyncio.ensure_future(connect(uri, limits=Limits(open_timeout=None))._connect())
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_existing_socket_and_other_address() -> None:
    async def main() -> None:
        async with serving() as server:
            sock = socket.create_connection(("127.0.0.1", port_of(server)))
            async with connect("ws://example.com/", sock=sock) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            async with connect("ws://example.com/", host="127.0.0.1", port=port_of(server)) as ws:
                assert ws.request is not None
                assert ws.request.headers["Host"] == "example.com"

    run(main())


def test_connect_is_not_reentrant() -> None:
    async def main() -> None:
        async with serving() as server:
            connecting = connect(uri_of(server))
            with pytest.raises(InvalidState):
                await connecting.__aexit__(None, None, None)
            async with connecting:
                with pytest.raises(RuntimeError):
                    await connecting.__aenter__()
            async with connecting as ws:  # but it can be used again
                await ws.send("hello")
                assert await ws.recv() == "hello"

    run(main())


def test_frames_right_behind_the_answer() -> None:
    async def main() -> None:
        async def talk(peer: Any) -> None:
            peer.write(0x81, b"early")
            peer.write(0x88, b"\x03\xe8")
            await peer.frame()

        async with byte_server(talk) as uri, connect(uri) as ws:
            assert [message async for message in ws] == ["early"]

    run(main())


def test_pair_and_peer_helpers_agree() -> None:
    """The byte peer of these tests is understood by our own server."""

    async def main() -> None:
        async with serving() as server, peer_of(server) as peer:
            peer.write(0x81, b"hello")
            assert await peer.frame() == (0x81, b"hello")
        async with pair() as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"

    run(main())
