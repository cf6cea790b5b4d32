"""What idle connections cost a server of the asyncio adapter: memory, tasks, and the CPU time of their keepalive.

``python -m benchmarks.adapter_scale [--connections 10000] [--seconds 60]``. Each server runs in a process of its own;
its clients are bare sockets in another one, which do a browser's opening handshake with permessage-deflate and then
answer pings.

The floor is an asyncio server with the smallest protocol object, which answers the handshake and keeps nothing but its
transport; "and a task" starts a task that waits for a future, too. "new" is what tracemalloc counts (Python's
allocators) for a connection on which nothing was sent, transport, socket and protocol object included, and "ours" that
without its floor. "used" is the growth of the process, zlib's contexts included, when a compressed message of 1 KiB was
received on each connection and sent back. CPU time is the process's, user and system, with pings and without.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from wsproto_fast.asyncio import serve

from . import compare
from .memory import resident

PLAIN = "plain asyncio"
PLAIN_TASK = "plain asyncio and a task"
CALLBACK = "wsproto_fast, on_message"
HANDLER = "wsproto_fast, async for"
#: What is ours, and its floor.
FLOORS = {CALLBACK: PLAIN, HANDLER: PLAIN_TASK}

#: What a browser asks; connections keep it, for ``connection.request``.
REQUEST = (
    b"GET /chat?room=42 HTTP/1.1\r\nHost: 127.0.0.1:8765\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/140.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://127.0.0.1:8765\r\n"
    b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


class Plain(asyncio.BufferedProtocol):
    """The smallest protocol object that answers a handshake."""

    __slots__ = ("_transport",)
    _memory = bytearray(2**14)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


class PlainTask(Plain):
    """And a task."""

    __slots__ = ("_task", "_waiter")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._waiter = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        await self._waiter

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiter.set_result(None)


async def _handler(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


def _on_message(connection: Any, message: Any) -> None:
    connection.try_send(message)


@contextlib.asynccontextmanager
async def serving(kind: str, ping_interval: float | None) -> AsyncIterator[int]:
    """A server of that kind; gives its port."""
    backlog = 4096
    if kind in (PLAIN, PLAIN_TASK):
        protocol = Plain if kind == PLAIN else PlainTask
        plain = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, backlog=backlog)
        async with plain:
            yield plain.sockets[0].getsockname()[1]
        return
    settings: dict[str, Any] = {"backlog": backlog, "ping_interval": ping_interval, "close_timeout": 2}
    if kind == CALLBACK:
        server = serve(None, "127.0.0.1", 0, on_message=_on_message, **settings)
    else:
        server = serve(_handler, "127.0.0.1", 0, **settings)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def measure(
    kind: str, connections: int, seconds: float, ping_interval: float | None, use: bool
) -> dict[str, float]:
    """``seconds`` 0: bytes and tasks a connection, ``use`` them or not. Else the CPU time as a part of one core."""
    async with serving(kind, ping_interval) as port:
        tasks = len(asyncio.all_tasks())
        clients = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __spec__.name, "--clients", str(port), "--connections", str(connections)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert clients.stdin is not None
        assert clients.stdout is not None
        await clients.stdout.readline()  # one connection was opened and closed: what is made once is there
        while len(asyncio.all_tasks()) > tasks:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        gc.collect()
        if not seconds and not use:
            tracemalloc.start()
        held = resident() if use else tracemalloc.get_traced_memory()[0]
        clients.stdin.write(b"\n")
        await clients.stdout.readline()  # all are open
        if use:
            clients.stdin.write(b"\n")
            await clients.stdout.readline()  # each has had its message and its answer
            result = {"bytes": (resident() - held) / connections}
        elif seconds:
            begin, used = time.perf_counter(), time.process_time()
            await asyncio.sleep(seconds)
            result = {"cpu": (time.process_time() - used) / (time.perf_counter() - begin)}
        else:
            gc.collect()
            result = {
                "bytes": (tracemalloc.get_traced_memory()[0] - held) / connections,
                "tasks": (len(asyncio.all_tasks()) - tasks) / connections,
            }
            tracemalloc.stop()
        clients.stdin.close()
        await clients.wait()
    return result


def be_clients(port: int, connections: int) -> None:
    """Open connections, answer their pings, and go when standard input ends."""
    with open_client(port):
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    sockets = {sock.fileno(): sock for sock in (open_client(port) for _ in range(connections))}
    poll = select.epoll()
    for fd in (sys.stdin.fileno(), *sockets):
        poll.register(fd, select.EPOLLIN)
    print("open", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                use(sockets.values())
                print("used", flush=True)
                continue
            data = sockets[fd].recv(4096)
            if not data:
                poll.unregister(fd)
            elif data[0] == 0x89:  # its payload under a masking key of zeros is itself
                sockets[fd].send(bytes([0x8A, 0x80 | data[1], 0, 0, 0, 0]) + data[2 : 2 + data[1]])


def use(sockets: Iterable[socket.socket]) -> None:
    """Send a message, which is worth compressing, on each, and wait for its echo, which is too."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    data = compressor.compress(os.urandom(512).hex().encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = bytes([0xC1, 0x80 | 126]) + (len(data) - 4).to_bytes(2, "big") + bytes(4) + data[:-4]
    for sock in sockets:
        sock.sendall(frame)
        answer = sock.recv(4096)
        if answer[0] == 0x89:  # a ping before it
            answer = answer[2 + answer[1] :] or sock.recv(4096)
        assert answer[0] == 0xC1


def open_client(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(4096)
    return sock


def raise_file_limit(connections: int) -> int:
    """So many connections as this process may have open, at most those asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 200
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(connections, soft - 200)


def in_a_process(
    kind: str, connections: int, seconds: float = 0, ping_interval: float | None = 20, use: bool = False
) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--server", kind, "--connections", str(connections)]
    command += ["--seconds", str(seconds), "--ping-interval", str(ping_interval or 0), *(["--use"] if use else [])]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapter_scale", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look at the CPU time; 0: not at all")
    parser.add_argument("--ping-interval", type=float, default=20.0)
    parser.add_argument("--use", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    connections = raise_file_limit(options.connections)
    if options.clients:
        be_clients(options.clients, connections)
        return
    if options.server:
        interval = options.ping_interval or None
        print(json.dumps(asyncio.run(measure(options.server, connections, options.seconds, interval, options.use))))
        return
    print(f"{connections:,} idle connections, permessage-deflate agreed on. {compare.environment()}\n")
    print(f"{'':26} {'new':>9} {'ours':>9} {'used':>9} {'tasks':>6} {'CPU':>9} {'no pings':>9}")
    for kind, floor in FLOORS.items():
        below = in_a_process(floor, connections)
        print(f"{floor:26} {below['bytes']:9,.0f} {'':9} {'':9} {below['tasks']:6.1f}")
        new = in_a_process(kind, connections)
        used = in_a_process(kind, connections, use=True)["bytes"]
        line = f"{kind:26} {new['bytes']:9,.0f} {new['bytes'] - below['bytes']:9,.0f} {used:9,.0f} {new['tasks']:6.1f}"
        if options.seconds:
            for interval in (options.ping_interval, None):
                line += f" {in_a_process(kind, connections, options.seconds, interval)['cpu']:9.2%}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
