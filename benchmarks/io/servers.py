"""Servers to be measured: ``python -m benchmarks.io.servers NAME JOB``, run by ``running.py``.

Jobs: "echo" sends each message back, "broadcast" sends each to all connections, "group" the same with ``Group``. All
are set alike: no compression unless ``--deflate``, no keepalive, messages up to 1 MiB, TCP_NODELAY, everything else as
it comes. Prints its port; answers each line of standard input with what tracemalloc counts (0 when it does not run),
and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import socket
import ssl
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

HOST = "127.0.0.1"
BACKLOG = 4096
MAX_SIZE = 2**20


class Options(argparse.Namespace):
    name: str
    job: str
    deflate: bool
    loop: str
    tls: str | None

    @property
    def ssl(self) -> ssl.SSLContext | None:
        if self.tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls)
        return context


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def ours(options: Options) -> int:
    from wsproto_fast.asyncio import serve

    return await _as_websockets(options, serve)


async def ours_callback(options: Options) -> int:
    from wsproto_fast.asyncio import serve

    def echo(connection: Any, message: str | bytes) -> None:
        connection.try_send(message)

    return port_of(await serve(None, HOST, 0, on_message=echo, **_settings(options)))


async def websockets(options: Options) -> int:
    from websockets.asyncio.server import serve

    return await _as_websockets(options, serve)


async def picows_websockets(options: Options) -> int:
    from picows.websockets import serve

    return await _as_websockets(options, serve)


def _settings(options: Options) -> dict[str, Any]:
    return {
        "compression": "deflate" if options.deflate else None,
        "ping_interval": None,
        "max_size": MAX_SIZE,
        "backlog": BACKLOG,
        "ssl": options.ssl,
    }


async def _as_websockets(options: Options, serve: Any) -> int:
    """The three that have the same interface."""
    members: set[Any] = set()

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def to_all(connection: Any) -> None:
        members.add(connection)
        try:
            async for message in connection:
                broadcast(members, message)
        finally:
            members.remove(connection)

    async def to_group(connection: Any) -> None:
        group.add(connection)
        async for message in connection:
            group.broadcast(message)

    broadcast = sys.modules[serve.__module__].broadcast
    if options.job == "group":
        from wsproto_fast.asyncio import Group

        group = Group()
    handler = {"echo": echo, "broadcast": to_all, "group": to_group}[options.job]
    return port_of(await serve(handler, HOST, 0, **_settings(options)))


async def picows(options: Options) -> int:
    """Payloads are bytes: it does not look whether text is UTF-8."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

    members: set[WSTransport] = set()

    class Echo(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    class ToAll(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            members.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            members.discard(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            message = frame.get_payload_as_bytes()
            for member in members:
                member.send(frame.msg_type, message)

    listener = {"echo": Echo, "broadcast": ToAll}[options.job]
    server = await ws_create_server(
        lambda request: listener(), HOST, 0, max_frame_size=MAX_SIZE, backlog=BACKLOG, ssl=options.ssl
    )
    return port_of(server)


async def aiohttp(options: Options) -> int:
    from aiohttp import WSMsgType, web

    members: set[web.WebSocketResponse] = set()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=options.deflate, max_msg_size=MAX_SIZE)
        await response.prepare(request)
        members.add(response)
        try:
            async for message in response:
                if message.type is WSMsgType.TEXT:
                    for receiver in members if options.job == "broadcast" else (response,):
                        await receiver.send_str(message.data)
                else:
                    await response.send_bytes(message.data)
        finally:
            members.remove(response)
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, backlog=BACKLOG, ssl_context=options.ssl)
    await site.start()
    port: int = runner.addresses[0][1]
    return port


async def raw(options: Options) -> int:
    """asyncio itself, as cheap as it comes: bytes come and go, without WebSocket."""
    memory = memoryview(bytearray(2**18))

    class Echo(asyncio.BufferedProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self._write = transport.write

        def get_buffer(self, sizehint: int) -> memoryview:
            return memory

        def buffer_updated(self, nbytes: int) -> None:
            self._write(bytes(memory[:nbytes]))  # which it may keep

    return port_of(await asyncio.get_running_loop().create_server(Echo, HOST, 0, backlog=BACKLOG))


async def sockets(options: Options) -> int:
    """Only the socket objects, for the memory of connections: the handshake is answered, and that is all."""
    listener = socket.create_server((HOST, 0), backlog=BACKLOG)
    held = []

    def accept() -> None:
        sock = listener.accept()[0]
        sock.recv(4096)
        # RFC 6455 1.3: the answer to the load's key
        sock.send(b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        held.append(sock)

    asyncio.get_running_loop().add_reader(listener, accept)
    port: int = listener.getsockname()[1]
    return port


SERVERS: dict[str, Callable[[Options], Awaitable[int]]] = {
    function.__name__: function
    for function in (ours, ours_callback, websockets, picows_websockets, picows, aiohttp, raw, sockets)
}


async def serve_until_told(options: Options) -> None:
    print(await SERVERS[options.name](options), flush=True)
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def on_line() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin)
            over.set_result(None)
            return
        gc.collect()
        print(tracemalloc.get_traced_memory()[0], flush=True)

    loop.add_reader(sys.stdin, on_line)
    await over
    os._exit(0)  # nobody is interested in the end of thousands of connections


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.io.servers", description=__doc__)
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("job", choices=("echo", "broadcast", "group"))
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--tls", metavar="PEM", help="a file with certificate and key")
    options = parser.parse_args(namespace=Options())
    logging.basicConfig(level=logging.ERROR)
    run_on(options.loop, serve_until_told(options))


def run_on(loop: str, main: Any) -> None:
    event_loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
    if loop == "uvloop":
        import uvloop

        event_loop = uvloop.new_event_loop()
    asyncio.set_event_loop(event_loop)
    event_loop.run_until_complete(main)


if __name__ == "__main__":
    main()
