"""Many idle connections, and one busy one among others: what they cost, by reliability rows 1.3.

What is measured in a process of its own is measured by ``benchmarks/adapter_scale.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aio import REACTOR, REQUEST, ROOT, port_of, run, uri_of
from cases.ends import FLOODS
from helpers import encode_frame

import wsproto_fast._codec
from wsproto_fast import Limits
from wsproto_fast.asyncio import Server, ServerConnection, connect, serve

CONNECTIONS = 500
MASK = b"\x00\x00\x00\x00"

in_a_process = pytest.mark.skipif(
    not os.path.exists("/proc/self/status") or not (ROOT / "benchmarks").is_dir() or sys.version_info < (3, 11),
    reason="needs /proc, and benchmarks/ with what it compares with",
)


def measured(kind: str, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.adapter_scale", "--server", kind, "--seconds", "0", *options]
    command += ["--connections", str(CONNECTIONS)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    return result


@in_a_process
@pytest.mark.slow
@pytest.mark.skipif(not wsproto_fast._codec.COMPILED, reason="the pure engine's objects are larger")
@pytest.mark.parametrize(
    ("kind", "floor", "tasks"),
    [
        ("wsproto_fast, on_message", "plain asyncio", 0),
        ("wsproto_fast, async for", "plain asyncio and a task", 1),
    ],
)
def test_memory_of_idle_connections(kind: str, floor: str, tasks: int) -> None:
    """With keepalive and permessage-deflate, and a browser's request that is kept."""
    idle = measured(kind)
    ours = idle["bytes"] - measured(floor)["bytes"]
    print(f"{kind}: {idle['bytes']:.0f} bytes, {ours:.0f} of them ours, {idle['tasks']:.0f} tasks")
    assert idle["tasks"] == tasks
    if REACTOR:
        assert idle["bytes"] < 4096  # everything included
    else:
        assert ours < 4096


@in_a_process
@pytest.mark.slow
def test_memory_of_connections_that_were_used() -> None:
    """zlib's contexts included, with the default windows; what the process grew by."""
    used = measured("wsproto_fast, async for", "--use")["bytes"]
    print(f"{used:.0f} bytes resident")
    assert used < 64 * 1024


def test_no_task_and_no_timer_for_each_connection() -> None:
    """In this process too, where they can be counted while they live: keepalive is on."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serve(None, "127.0.0.1", 0, on_message=lambda ws, message: ws.try_send(message)) as server:
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(open_client(server)) for _ in range(100)]
                while len(server.connections) < 100:
                    await asyncio.sleep(0.001)
                assert all(ws.protocol.next_deadline() for ws in server.connections)
                assert len(asyncio.all_tasks()) == 1
                if hasattr(loop, "_scheduled"):  # not uvloop
                    assert len([handle for handle in loop._scheduled if not handle.cancelled()]) <= 3
                await loop.run_in_executor(None, lambda: [echoes(client) for client in clients])
                assert len(asyncio.all_tasks()) == 1

    run(main())


@contextlib.contextmanager
def open_client(server: Server, extensions: bytes = b"") -> Iterator[socket.socket]:
    """A socket of which the handshake is sent; its answer has still to be read."""
    with socket.create_connection(("127.0.0.1", port_of(server))) as sock:
        sock.sendall(REQUEST + extensions + b"\r\n")
        yield sock


def echoes(sock: socket.socket) -> None:
    sock.sendall(encode_frame(0x81, b"hello", mask=MASK))
    data = b""
    while not data.endswith(b"\x81\x05hello"):
        data += sock.recv(4096)


# One busy peer ------------------------------------------------------------------------------------------------------


async def iterate(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message[:10])


async def stream(ws: ServerConnection) -> None:
    while True:
        async for piece in ws.recv_streaming():
            assert len(piece) <= 2**20


def answer(ws: ServerConnection, message: str | bytes) -> None:
    ws.try_send(message[:10])


SERVERS: dict[str, Callable[..., Server]] = {
    "async for": lambda **settings: serve(iterate, "127.0.0.1", 0, **settings),
    "recv_streaming": lambda **settings: serve(stream, "127.0.0.1", 0, **settings),
    "on_message": lambda **settings: serve(None, "127.0.0.1", 0, on_message=answer, **settings),
}


def flood(sock: socket.socket, data: bytes, over: threading.Event) -> None:
    """Send it over and over, as fast as the server takes it."""
    with contextlib.suppress(OSError):
        while not over.is_set():
            sock.sendall(data)


def drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(2**20):
            pass


async def worst_round_trip(make: Callable[..., Server], flood_of: str, seconds: float) -> float:
    """Of a well-behaved connection, while another one floods; that one's threads share our CPU."""
    loop = asyncio.get_running_loop()
    over = threading.Event()
    async with make(limits=Limits(max_control_rate=None, close_timeout=0.2)) as server:
        async with connect(uri_of(server), proxy=None) as canary:
            with open_client(server, b"Sec-WebSocket-Extensions: permessage-deflate\r\n") as sock:
                threads = [
                    threading.Thread(target=flood, args=(sock, FLOODS[flood_of], over), daemon=True),
                    threading.Thread(target=drain, args=(sock,), daemon=True),
                ]
                for thread in threads:
                    thread.start()
                try:
                    while not [ws for ws in server.connections if ws.stats.bytes_received > 200_000]:
                        await asyncio.sleep(0.001)
                    worst = 0.0
                    end = loop.time() + seconds
                    while loop.time() < end:
                        begin = loop.time()
                        await (await canary.ping())
                        worst = max(worst, loop.time() - begin)
                        await asyncio.sleep(0.001)
                    assert len(server.connections) == 2  # it floods still
                finally:
                    over.set()
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                    for thread in threads:
                        await loop.run_in_executor(None, thread.join)
    return worst


@pytest.mark.skipif(not wsproto_fast._codec.COMPILED, reason="64 KiB of tiny frames take 100 ms and more in Python")
@pytest.mark.parametrize("flood_of", FLOODS)
@pytest.mark.parametrize("how", SERVERS)
def test_one_busy_peer_delays_the_others_little(how: str, flood_of: str) -> None:
    """Under 100 ms is demanded; the rest is for slow machines, and the best of three for busy ones."""
    worst = 1.0
    for _ in range(3):
        worst = min(worst, run(worst_round_trip(SERVERS[how], flood_of, 0.4)))
        print(f"{how}, {flood_of}: {worst * 1000:.1f} ms")
        if worst < 0.25:
            return
    pytest.fail(f"{worst * 1000:.0f} ms")
