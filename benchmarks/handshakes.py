"""What opening and closing a connection costs a server: CPU time per connection, ours against websockets'.

``python -m benchmarks.handshakes [--rounds 5] [--connections 4000]``. Each server runs in a process of its own and is
charged by the kernel's count of its nanoseconds; the client is bare sockets in this process. A connection is accepted,
asks for the upgrade, reads the 101, sends a Close frame, and reads until the server has closed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import compare
from .adapter_scale import REQUEST as CHROME

#: The least that a client can ask.
MINIMAL = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
REQUESTS = {"Chrome": CHROME, "minimal": MINIMAL}

CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
#: Connections that are under way at once.
AT_ONCE = 32

OURS, CALLBACK, THEIRS = "wsproto_fast", "wsproto_fast, on_message", "websockets"
SERVERS = (OURS, CALLBACK, THEIRS)


async def _handler(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


def _on_message(connection: Any, message: Any) -> None:
    connection.try_send(message)


async def be_server(name: str) -> None:
    if name == THEIRS:
        from websockets.asyncio.server import serve as serve_theirs

        serving: Any = serve_theirs(_handler, "127.0.0.1", 0)
    else:
        from wsproto_fast.asyncio import serve

        if name == CALLBACK:
            serving = serve(None, "127.0.0.1", 0, on_message=_on_message)
        else:
            serving = serve(_handler, "127.0.0.1", 0)
    async with serving as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


@contextlib.contextmanager
def running(name: str) -> Iterator[tuple[int, int]]:
    """A server of that name; gives its process and its port."""
    command = [sys.executable, "-m", __spec__.name, "--server", name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()


def cpu_of(pid: int) -> int:
    """Nanoseconds that the process's threads have run."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in Path(f"/proc/{pid}/task").iterdir())


def connect_and_close(port: int, request: bytes, count: int) -> None:
    for _ in range(0, count, AT_ONCE):
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(AT_ONCE)]
        for sock in sockets:
            sock.send(request)
        for sock in sockets:
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(4096)
            assert head.startswith(b"HTTP/1.1 101 ")
        for sock in sockets:
            sock.send(CLOSE)
        for sock in sockets:
            while sock.recv(4096):
                pass
            sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handshakes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=4000)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        asyncio.run(be_server(options.server))
        return
    print(f"{compare.environment()}\nserver CPU per connection opened and closed, microseconds\n")
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(name)) for name in SERVERS}
        for label, request in REQUESTS.items():
            costs: dict[str, list[float]] = {name: [] for name in SERVERS}
            for _, port in servers.values():
                connect_and_close(port, request, 10 * AT_ONCE)  # what is made once is there
            for _ in range(options.rounds):
                for name, (pid, port) in servers.items():
                    before = cpu_of(pid)
                    connect_and_close(port, request, options.connections)
                    costs[name].append((cpu_of(pid) - before) / options.connections / 1000)
            for name in SERVERS:
                ratios = [theirs / its for its, theirs in zip(costs[name], costs[THEIRS], strict=True)]
                ratio = statistics.median(ratios)
                print(f"{label:8} {name:26} {statistics.median(costs[name]):8.1f}  websockets / it {ratio:5.2f}")


if __name__ == "__main__":
    main()
