"""A chat on all cores: four processes behind one port, and one room by way of Redis.

    redis-server &
    python workers.py --port 8765 --redis redis://localhost

Needs ``wsproto_fast[redis]`` and a system with SO_REUSEPORT that spreads connections over processes, as Linux does.
SIGTERM or Ctrl-C closes every connection with 1001 and ends all processes. A worker that dies is replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from wsproto_fast.asyncio import Group, ServerConnection, serve
from wsproto_fast.contrib.redis import RedisBus

# -- a worker ----------------------------------------------------------------------------------------------------------


async def work(host: str, port: int, redis: str, started: Pipe) -> None:
    bus = RedisBus(redis)
    room = Group(bus=bus, channel="room")

    async def chat(connection: ServerConnection) -> None:
        room.add(connection)
        await connection.send(f"you are with worker {os.getpid()}")
        async for message in connection:
            room.broadcast(message, exclude=[connection])

    async with bus:
        with contextlib.suppress(asyncio.TimeoutError):  # without Redis everybody talks to his own worker's clients
            await asyncio.wait_for(bus.ready(), 5)
        async with serve(chat, host, port, reuse_port=True) as server:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, server.close)
            parent = multiprocessing.parent_process()
            assert parent is not None

            def orphaned() -> None:  # the supervisor was killed
                loop.remove_reader(parent.sentinel)
                server.close()

            loop.add_reader(parent.sentinel, orphaned)
            started.send(os.getpid())
            await server.serve_forever()


def run_worker(host: str, port: int, redis: str, started: Pipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the supervisor passes it on
    asyncio.run(work(host, port, redis, started))


# -- the supervisor ----------------------------------------------------------------------------------------------------


class Supervisor:
    """Starts workers, replaces those that die, ends them all."""

    def __init__(self, host: str, port: int, redis: str) -> None:
        self._arguments = (host, port, redis)
        self._context = multiprocessing.get_context("spawn")  # no copies of what this process has open
        self._workers: dict[int, BaseProcess] = {}
        self._stopping = False

    def start(self) -> None:
        """Start a worker and wait until it listens, or ends."""
        here, there = self._context.Pipe(duplex=False)
        worker = self._context.Process(target=run_worker, args=(*self._arguments, there))
        worker.start()
        self._workers[worker.sentinel] = worker
        there.close()
        if self._stopping:  # the signal came amid this
            worker.terminate()
        with here, contextlib.suppress(EOFError):
            print(f"worker {here.recv()} listens", flush=True)

    def stop(self, *_: object) -> None:
        """Signal handler: no new workers, and the end for those that are there."""
        self._stopping = True
        for worker in list(self._workers.values()):
            worker.terminate()

    def run(self, number: int) -> None:
        """Until ``stop``."""
        for _ in range(number):
            if not self._stopping:
                self.start()
        print("ready", flush=True)
        while self._workers:
            gone = wait(list(self._workers))
            for worker in [self._workers.pop(sentinel) for sentinel in list(self._workers) if sentinel in gone]:
                worker.join()
                if not self._stopping:
                    print(f"worker {worker.pid} ended with {worker.exitcode}", file=sys.stderr, flush=True)
                    time.sleep(0.5)  # one that cannot start must not keep a core busy
                if not self._stopping:
                    self.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--redis", default="redis://localhost", help="its URL, perhaps with user and password")
    parser.add_argument("--workers", type=int, default=4)
    arguments = parser.parse_args()
    # Keeps the port ours while workers come and go, and chooses it. It does not listen, so it gets no connections.
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((arguments.host, arguments.port))
        port = reserved.getsockname()[1]
        supervisor = Supervisor(arguments.host, port, arguments.redis)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, supervisor.stop)
        print(f"ws://{arguments.host}:{port}", flush=True)
        supervisor.run(arguments.workers)
    print("bye", flush=True)


if __name__ == "__main__":
    main()
