"""Reliability rows 1.3 and 1.4 of the asyncio adapter that stand nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from aio import Peer, byte_server, echo, pair, peer_of, run, serving, until
from cases.ends import HALVES, deflate
from helpers import SOON, encode_frame

from wsproto_fast import State
from wsproto_fast.asyncio import ServerConnection, connect
from wsproto_fast.exceptions import ConnectionClosedError

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def in_a_thread(make: Callable[[], Any]) -> BaseException | None:
    """What it raises there; a coroutine is run in a loop of that thread."""
    raised: list[BaseException | None] = [None]

    def target() -> None:
        async def main() -> None:
            await make()

        try:
            asyncio.run(main())
        except BaseException as exc:
            raised[0] = exc

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(5)
    return raised[0]


@pytest.mark.parametrize("what", ["send", "fragments", "try_send", "ping", "pong", "close", "recv", "recv_json"])
def test_calls_from_another_thread(what: str) -> None:
    """A clear RuntimeError, and the connection goes on as if nothing had been."""

    async def main() -> None:
        async with pair() as ws:

            async def try_send() -> None:
                ws.try_send("wrong")

            calls: dict[str, Callable[[], Any]] = {
                "send": lambda: ws.send("wrong"),
                "fragments": lambda: ws.send(["wr", "ong"]),
                "try_send": try_send,
                "ping": lambda: ws.ping(b"wrong"),
                "pong": lambda: ws.pong(b"wrong"),
                "close": lambda: ws.close(4000, "wrong"),
                "recv": lambda: ws.recv(),
                "recv_json": lambda: ws.recv_json(),
            }
            raised = in_a_thread(calls[what])
            assert type(raised) is RuntimeError
            assert "loop" in str(raised)
            await ws.send("right")
            assert await ws.recv() == "right"
            await (await ws.ping(b"wrong"))
            assert ws.stats.messages_sent == 1
            assert ws.state is State.OPEN
        assert ws.close_code == 1000

    run(main())


def test_messages_taken_by_another_thread() -> None:
    """One that would let the peer go on: that is the transport's matter, and this thread's."""

    async def main() -> None:
        async with pair() as ws:
            for i in range(17):
                await ws.send(str(i))
            await until(lambda: ws._paused)
            assert type(in_a_thread(lambda: ws.recv())) is RuntimeError
            assert [int(await ws.recv()) for _ in range(17)] == list(range(17))

    run(main())


def test_bombs_that_nobody_takes() -> None:
    """Two of the largest messages are held; the other bombs stay as they came, whatever one read brought."""
    bomb = deflate(bytes(2**20))

    async def main() -> None:
        async with serving(lambda ws: ws.wait_closed(), close_timeout=0.2) as server:
            async with peer_of(server, headers=DEFLATE) as peer:
                [ws] = server.connections
                gc.collect()
                tracemalloc.start()
                try:
                    peer.writer.write(encode_frame(0xC2, bomb, mask=bytes(4)) * 256)
                    await until(lambda: ws._paused)
                    peer.write(0x89, b"still there?")
                    for _ in range(20):
                        await asyncio.sleep(0)
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                assert len(ws._queue) == 2
                assert peak < 8 * 2**20, f"{peak} bytes"
                peer.writer.transport.abort()

    run(main())


def test_server_that_floods_instead_of_closing() -> None:
    """Our client ends all the same, in ``close_timeout`` from its own Close frame."""

    async def main() -> None:
        async def never_stop(peer: Peer) -> None:
            chunk = encode_frame(0x82, b"x" * 10_000) * 10
            with contextlib.suppress(ConnectionError):
                while True:
                    peer.writer.write(chunk)
                    await peer.writer.drain()
                    await asyncio.sleep(0)

        async with byte_server(never_stop) as uri:
            loop = asyncio.get_running_loop()
            async with connect(uri, close_timeout=0.2) as ws:
                await ws.recv()

                async def take_all() -> None:
                    with contextlib.suppress(ConnectionClosedError):
                        while True:
                            await ws.recv()

                begin = loop.time()
                await asyncio.gather(ws.close(), take_all())
            assert 0.1 < loop.time() - begin < SOON
            assert ws.close_code == 1006

    run(main())


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_open_in_the_middle_of_something(half: bytes) -> None:
    """Gone after ping_interval, ping_timeout and close_timeout together, by default 50 s."""

    async def main() -> None:
        times = {"ping_interval": 0.1, "ping_timeout": 0.1, "close_timeout": 0.1}
        async with serving(echo, **times) as server, peer_of(server) as peer:
            loop = asyncio.get_running_loop()
            [ws] = server.connections
            begin = loop.time()
            peer.writer.write(half)
            await ws.wait_closed()
            assert 0.15 < loop.time() - begin < SOON
            assert ws.protocol.close_code == 1011
            await until(lambda: not server._alive)

    run(main())


def test_handlers_that_fail_leave_nothing() -> None:
    async def fail(ws: ServerConnection) -> None:
        await ws.recv()
        raise RuntimeError("secret")

    async def main() -> None:
        logger = logging.Logger("of nobody")  # pytest keeps records, and records their connections
        async with serving(fail, logger=logger) as server:

            async def once() -> None:
                async with peer_of(server) as peer:
                    peer.write(0x81, b"go")
                    assert await peer.expect_close(1011) == ""
                    peer.write(0x88, b"\x03\xf3")
                    await peer.expect_eof()

            async def many(count: int) -> tuple[int, int]:
                for _ in range(count):
                    await once()
                await until(lambda: not server._alive)
                gc.collect()
                return len(os.listdir("/proc/self/fd")), len(gc.get_objects())

            descriptors, objects = await many(10)
            assert len(asyncio.all_tasks()) == 1
            more_descriptors, more_objects = await many(50)
            assert more_descriptors == descriptors
            if not asyncio.get_running_loop().get_debug():  # which keeps tracebacks of cancelled timers
                assert more_objects - objects < 200

    if os.path.isdir("/proc/self/fd"):
        run(main())
