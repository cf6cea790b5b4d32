"""How connections come by the reactor's transports, when something goes wrong on the way: nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest
from aio import echo, port_of, run, serving, tls_contexts, until, uri_of

from wsproto_fast.asyncio import connect, serve

pytest.importorskip("wsproto_fast.asyncio._reactor", reason="Linux only, and it needs the extensions")
pytestmark = pytest.mark.skipif(os.environ.get("WSPROTO_FAST_REACTOR") == "0", reason="asyncio's transports")

ADDRESSES = ["127.0.0.1", "127.0.0.2"]


def sockets() -> set[str]:
    """Those that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the listing's own
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def failing(function: Any, count: int) -> Any:
    """The function, of which the call with that number fails."""
    calls: list[Any] = []

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == count:
            raise OSError(errno.EMFILE, "too many")
        return function(*arguments)

    return call


@pytest.mark.parametrize("name", ["listen", "dup"])
def test_serve_fails_at_its_second_address(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner: Any = socket.socket if name == "listen" else os

    async def main() -> None:
        before = sockets()
        port = free_port()
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), 2))
        with pytest.raises(OSError, match="too many"):
            await serve(echo, ADDRESSES, port)
        await until(lambda: sockets() == before)  # uvloop takes a turn
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    run(main())


def test_start_serving_can_be_tried_again() -> None:
    async def main() -> None:
        port = free_port()
        server = await serve(echo, ADDRESSES, port, start_serving=False)
        blocker = socket.socket()
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        blocker.bind((ADDRESSES[1], port))
        blocker.listen()
        for _ in range(2):
            with pytest.raises(OSError):
                await server.start_serving()
            assert not server.is_serving()
        blocker.close()
        await server.start_serving()
        assert server.is_serving()
        for address in ADDRESSES:
            async with connect(f"ws://{address}:{port}/") as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.parametrize("reason", ["name", "timeout", "context", "dup"])
def test_connect_fails_when_there_is_a_connection(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        arguments: dict[str, Any] = {"host": "127.0.0.1", "ssl": client_tls}
        if reason == "name":
            arguments["server_hostname"] = "a" * 300
        elif reason == "timeout":
            arguments["ssl_handshake_timeout"] = -1
        elif reason == "context":
            arguments["ssl"] = server_tls
        async with serving(ssl=server_tls) as server:
            await asyncio.get_running_loop().run_in_executor(None, int)  # its thread is there
            before = sockets()
            if reason == "dup":
                monkeypatch.setattr(os, "dup", failing(os.dup, 1))
            with pytest.raises((ValueError, OSError)):
                await connect(f"wss://localhost:{port_of(server)}/", **arguments)
            await until(lambda: sockets() == before)  # with no help of the garbage collector

    run(main())


def test_closing_a_server_ends_tls_handshakes() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        before = sockets()
        server = await serve(echo, "127.0.0.1", 0, ssl=server_tls)
        async with connect(uri_of(server).replace("ws:", "wss:").replace("127.0.0.1", "localhost"), ssl=client_tls):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            await until(lambda: len(server._server._handshaking) == 1)  # type: ignore[union-attr]
            server.close()
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            await writer.wait_closed()
        await server.wait_closed()
        assert sockets() == before

    run(main())
