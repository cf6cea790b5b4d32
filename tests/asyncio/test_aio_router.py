"""``route``: URLs to handlers through werkzeug."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aio import REQUEST, port_of, raw, run, tls_contexts, uri_of
from werkzeug.routing import Map, Rule

from wsproto_fast import Request, Response
from wsproto_fast.asyncio import Server, ServerConnection, basic_auth, connect, unix_connect
from wsproto_fast.asyncio.router import Router, route, unix_route
from wsproto_fast.exceptions import InvalidStatus


async def echo(ws: ServerConnection, **variables: Any) -> None:
    await ws.send(f"{ws.handler.__name__} {sorted(variables.items())} {ws.handler_kwargs == variables}")


async def home(ws: ServerConnection) -> None:
    await ws.send("home")


def make_map(**kwargs: Any) -> Map:
    return Map(
        [
            Rule("/", endpoint=home),
            Rule("/rooms/<int:number>", endpoint=echo),
            Rule("/rooms/<int:number>/<name>", endpoint=echo),
            Rule("/folder/", endpoint=home),
            Rule("/old", redirect_to="/rooms/7"),
            Rule("/away/<path:rest>", redirect_to="rooms/1/<rest>"),
            Rule("/options", endpoint=home, methods=["OPTIONS"]),
        ],
        **kwargs,
    )


@contextlib.asynccontextmanager
async def routing(**kwargs: Any) -> AsyncIterator[Server]:
    async with route(make_map(), "127.0.0.1", 0, **kwargs) as server:
        yield server


async def first_message(uri: str, **kwargs: Any) -> Any:
    async with connect(uri, **kwargs) as ws:
        return await ws.recv()


async def head_of(server: Server, request: bytes) -> list[str]:
    """The lines of the answer to a request."""
    async with raw(server) as (reader, writer):
        writer.write(request)
        return (await reader.read()).decode().split("\r\n")


def asking(path: str, host: str = "localhost") -> bytes:
    return REQUEST.replace(b"GET / ", f"GET {path} ".encode()).replace(b"localhost", host.encode()) + b"\r\n"


def location(lines: list[str]) -> str:
    [value] = [line for line in lines if line.startswith("Location: ")]
    return value.partition(": ")[2]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/", "home"),
        ("/?a=1", "home"),
        ("/rooms/3", "echo [('number', 3)] True"),
        ("/rooms/3?x=y?z", "echo [('number', 3)] True"),
        ("/rooms/3/lobby", "echo [('name', 'lobby'), ('number', 3)] True"),
    ],
)
def test_handlers_are_found(path: str, message: str) -> None:
    async def main() -> None:
        async with routing() as server:
            assert await first_message(uri_of(server, path)) == message

    run(main())


def test_a_whole_url_as_target() -> None:
    """RFC 9112 3.2.2: a server must take it."""

    async def main() -> None:
        async with routing() as server, raw(server) as (reader, writer):
            writer.write(asking("http://example.com/rooms/3?a"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")

    run(main())


@pytest.mark.parametrize("path", ["/nowhere", "/rooms/x", "/rooms/", "*", "/rooms/3/a/b", "//evil.example/x", "[::"])
def test_not_found(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with routing() as server:
            lines = await head_of(server, asking(path))
            assert lines[0] == "HTTP/1.1 404 Not Found"
            assert lines[-1] == "Not Found"

    run(main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_redirects() -> None:
    async def main() -> None:
        async with routing() as server:
            lines = await head_of(server, asking("/old", "a.example:81"))
            assert lines[0] == "HTTP/1.1 302 Found"
            assert location(lines) == "ws://a.example:81/rooms/7"
            assert lines[-1] == "Found at ws://a.example:81/rooms/7"
            assert location(await head_of(server, asking("/folder?x=1"))) == "ws://localhost/folder/?x=1"
            assert location(await head_of(server, asking("/away/x"))) == "ws://localhost/rooms/1/x"
            # who need not tell its name for us, and asks for no WebSocket
            assert location(await head_of(server, b"GET /old HTTP/1.0\r\n\r\n")) == "ws://localhost/rooms/7"
        async with routing(ssl=True, server_name="public.example") as server:
            assert location(await head_of(server, asking("/old"))) == "wss://public.example/rooms/7"

    run(main())


def test_what_is_no_websocket_request() -> None:
    async def main() -> None:
        async with routing() as server:
            for request, status in (
                (b"GET /rooms/3 HTTP/1.1\r\nHost: a\r\n\r\n", "426"),
                (b"POST /rooms/3 HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
                (b"POST /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
                (b"GET /rooms/3 HTTP/1.0\r\n\r\n", "505"),
            ):
                assert (await head_of(server, request))[0].split(" ")[1] == status

    run(main())


def test_other_refusals(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with routing() as server:
            lines = await head_of(server, asking("/options"))
            assert lines[0] == "HTTP/1.1 405 Method Not Allowed"
            assert "Allow: OPTIONS" in lines
            lines = await head_of(server, asking("/", "a" * 100 + ".example"))  # no host can be called so
            assert lines[0] == "HTTP/1.1 400 Bad Request"
            assert not any(line.startswith("Allow") for line in lines)

    run(main())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_tls() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with routing(ssl=server_tls) as server:
            uri = f"wss://localhost:{port_of(server)}/"
            assert await first_message(uri + "rooms/1", ssl=client_tls) == "echo [('number', 1)] True"

    run(main())


async def ask_async(connection: ServerConnection, request: Request) -> Response | None:
    await asyncio.sleep(0)
    return ask_sync(connection, request)


def ask_sync(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(200, "OK\n") if request.path in ("/health", "/rooms/13") else None


@pytest.mark.parametrize("process_request", [ask_sync, ask_async])
def test_process_request_is_asked_first(process_request: Any) -> None:
    async def main() -> None:
        async with routing(process_request=process_request) as server:
            for path in ("/health", "/rooms/13"):
                with pytest.raises(InvalidStatus, match="200"):
                    await connect(uri_of(server, path))
            assert await first_message(uri_of(server, "/rooms/1")) == "echo [('number', 1)] True"
            with pytest.raises(InvalidStatus, match="404"):
                await connect(uri_of(server, "/nowhere"))

    run(main())


def test_with_basic_auth() -> None:
    async def main() -> None:
        async with routing(process_request=basic_auth(credentials=("hello", "iloveyou"))) as server:
            with pytest.raises(InvalidStatus, match="401"):
                await connect(uri_of(server, "/nowhere"))
            assert await first_message(f"ws://hello:iloveyou@127.0.0.1:{port_of(server)}/") == "home"

    run(main())


def test_a_router_of_ones_own() -> None:
    class Mine(Router):
        def get_server_name(self, connection: Any, request: Request) -> str:
            return "mine.example"

        def not_found(self, connection: Any) -> Response:
            return connection.respond(410, "Gone")  # type: ignore[no-any-return]

        async def handler(self, connection: Any) -> None:
            await connection.send("first")
            await super().handler(connection)

    async def main() -> None:
        async with routing(create_router=Mine) as server:
            async with connect(uri_of(server)) as ws:
                assert [message async for message in ws] == ["first", "home"]
            assert location(await head_of(server, asking("/old"))) == "ws://mine.example/rooms/7"
            with pytest.raises(InvalidStatus, match="410"):
                await connect(uri_of(server, "/nowhere"))

    run(main())


def test_subdomains() -> None:
    async def main() -> None:
        url_map = Map([Rule("/", endpoint=home, host="a.example")], host_matching=True)
        async with route(url_map, "127.0.0.1", 0) as server:
            assert (await head_of(server, asking("/", "b.example")))[0].startswith("HTTP/1.1 404 ")
            async with raw(server) as (reader, writer):
                writer.write(asking("/", "a.example"))
                assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")

    run(main())


def test_unix_route(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with unix_route(make_map(), path, process_request=ask_sync), unix_connect(path) as ws:
            assert await ws.recv() == "home"

    run(main())


def test_without_werkzeug(monkeypatch: pytest.MonkeyPatch) -> None:
    url_map = make_map()
    monkeypatch.setitem(sys.modules, "werkzeug.routing", None)
    with pytest.raises(ImportError, match=r"^route\(\) requires werkzeug: .*wsproto_fast\[router\]"):
        route(url_map, "127.0.0.1", 0)
    with pytest.raises(ImportError, match=r"^unix_route\(\) requires werkzeug"):
        unix_route(url_map, "socket")
