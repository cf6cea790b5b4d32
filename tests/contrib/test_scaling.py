"""Many processes behind one port: ``examples/scaling/workers.py`` run as a program, with a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aio import ROOT, missing, run, until
from redis_servers import redis_server

from wsproto_fast.asyncio import connect, serve

try:
    import redis  # noqa: F401
except ImportError:
    missing("the package redis is not installed")

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT spreads connections on Linux only"),
]

CLIENTS = 40


@contextlib.contextmanager
def workers(redis_url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "examples" / "scaling" / "workers.py"), "--port", "0", "--redis", redis_url]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_line(process: subprocess.Popen[str], wanted: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            return line.strip()
    assert process.stderr is not None
    pytest.fail(f"ended without {wanted!r}: {process.stderr.read()}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def talk(process: subprocess.Popen[str], uri: str, end: signal.Signals) -> None:
    async with contextlib.AsyncExitStack() as stack:

        async def join() -> tuple[Any, int]:
            client = await stack.enter_async_context(connect(uri))
            hello = await client.recv()
            return client, int(hello.removeprefix("you are with worker "))

        clients = dict([await join() for _ in range(CLIENTS)])
        pids = set(clients.values())
        assert len(pids) >= 2

        async def say(sender: Any, word: str) -> None:
            await sender.send(word)
            for client in clients:
                if client is not sender:
                    assert await client.recv() == word

        firsts = [next(client for client, pid in clients.items() if pid == wanted) for wanted in pids]
        for i, sender in enumerate(firsts):
            await say(sender, f"word {i}")  # the next word would not be the next if one had come twice

        victim = pids.pop()
        os.kill(victim, signal.SIGKILL)
        for client in [client for client, pid in clients.items() if pid == victim]:
            await client.wait_closed()
            assert client.close_code == 1006
            del clients[client]
        fresh = await asyncio.to_thread(read_line, process, "listens")
        newcomers: set[int] = set()
        while int(fresh.split()[1]) not in newcomers:
            client, pid = await join()
            clients[client] = pid
            newcomers.add(pid)
        await say(next(iter(clients)), "again")

        pids |= set(clients.values())
        os.killpg(process.pid, end) if end == signal.SIGINT else process.send_signal(end)
        for client in clients:
            await client.wait_closed()
            assert client.close_code == 1001
    await until(lambda: process.poll() is not None)
    assert process.returncode == 0
    assert not any(map(alive, pids))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=lambda end: end.name)
def test_four_workers_behind_one_port(tmp_path: Path, end: signal.Signals) -> None:
    with redis_server(tmp_path) as server, workers(server.url) as process:
        uri = read_line(process, "ws://")
        read_line(process, "ready")
        run(talk(process, uri, end), limit=60)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read().endswith("bye\n")
        errors = process.stderr.read().splitlines()
        assert len(errors) == 1, errors  # of the one that was killed
        assert errors[0].endswith("ended with -9")


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server, workers(server.url) as process:
        uri = read_line(process, "ws://")
        read_line(process, "ready")

        async def main() -> None:
            async with connect(uri) as client:
                pid = int((await client.recv()).split()[-1])
                process.kill()
                await client.wait_closed()
                assert client.close_code == 1001
                await until(lambda: not alive(pid))

        run(main(), limit=30)


def test_two_servers_on_one_port() -> None:
    """``reuse_port`` with either kind of transports: each gets some of the connections."""

    async def main() -> None:
        counts = [0, 0]

        async def first(_: Any) -> None:
            counts[0] += 1

        async def second(_: Any) -> None:
            counts[1] += 1

        with socket.socket() as reserved:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
            async with serve(first, "127.0.0.1", port, reuse_port=True):
                async with serve(second, "127.0.0.1", port, reuse_port=True):
                    for _ in range(100):
                        async with connect(f"ws://127.0.0.1:{port}") as client:
                            await client.wait_closed()
                    assert sum(counts) == 100
                    assert min(counts) > 10
                # the other has closed: all go to the first
                before = counts[0]
                for _ in range(10):
                    async with connect(f"ws://127.0.0.1:{port}") as client:
                        await client.wait_closed()
                assert counts[0] == before + 10

    run(main())
