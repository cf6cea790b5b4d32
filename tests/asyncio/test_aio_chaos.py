"""Two hundred connections at once, half of them to peers that reset, stall, cut and lie: the others notice nothing.

What is sent names its connection and its number, so that nothing can be lost, doubled, reordered or crossed unseen.
Afterwards descriptors, tasks and memory are where they were, and nothing was logged. The seed is the test's parameter.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aio import REQUEST, answer, port_of, run, uri_of
from helpers import encode_frame, parse_frames

from wsproto_fast import DeflateConfig
from wsproto_fast.asyncio import Server, ServerConnection, connect, serve
from wsproto_fast.exceptions import ConnectionClosed, WebSocketException

CONNECTIONS = 200
SEEDS = [11]
MASK = b"\x00\x00\x00\x00"
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
#: What wears a compressor out, and what does not.
FILLINGS = (os.urandom(300_000), b"chaos " * 50_000, bytes(300_000))


# A program that behaves: what it sends, and that it gets it back ----------------------------------------------------


def message_of(rng: random.Random, who: int, number: int) -> str | bytes:
    size = rng.choice((0, rng.randrange(126), rng.randrange(126), rng.randrange(5000), rng.randrange(5000), 70_000))
    if rng.random() < 0.02:
        size = 300_000
    filling = rng.choice(FILLINGS)[:size]
    head = b"%d:%d:" % (who, number)
    if rng.random() < 0.5:
        return head + filling
    return (head + filling.translate(None, bytes(range(0x80, 0x100)))).decode()


def pieces(rng: random.Random, message: str | bytes) -> list[Any]:
    cuts = sorted(rng.randrange(len(message) + 1) for _ in range(rng.randrange(5)))
    return [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]


async def behave(uri: str, seed: int, who: int, messages: int) -> None:
    """A client of ours that sends, and gets its echoes; in fragments, with pings, compressed or not."""
    rng = random.Random(seed * 1000 + who)
    compression = rng.choice((None, "deflate", DeflateConfig(threshold=0, server_no_context_takeover=True)))
    flying: list[str | bytes] = []
    async with connect(uri, compression=compression, proxy=None, max_queue=rng.choice((1, 16))) as ws:

        async def produce() -> None:
            for number in range(messages):
                message = message_of(rng, who, number)
                flying.append(message)
                if rng.random() < 0.2:
                    await ws.send(pieces(rng, message))
                else:
                    await ws.send(message)
                if rng.random() < 0.2:
                    await ws.ping()
                await asyncio.sleep(rng.choice((0, 0, 0.001, 0.01)))

        producing = asyncio.ensure_future(produce())
        for number in range(messages):
            if rng.random() < 0.3:
                parts: list[Any] = [part async for part in ws.recv_streaming()]
                got = parts[0][:0].join(parts)
            else:
                got = await ws.recv()
            assert got == flying[number], f"connection {who}, message {number}"
            flying[number] = b""
        await producing
        assert await (await ws.ping()) >= 0
    assert ws.close_code == 1000


# Peers that do not ------------------------------------------------------------------------------------------------


class Villain:
    """A bare socket with a handshake, if it comes to that."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self.port = port
        self.rng = rng
        self.loop = asyncio.get_running_loop()
        self.sock = socket.socket()
        self.sock.setblocking(False)

    async def live(self, end: asyncio.Event) -> None:
        try:
            await self.loop.sock_connect(self.sock, ("127.0.0.1", self.port))
            await self.rng.choice(VILLAINIES)(self, end)
        except OSError:
            pass  # the server was quicker
        finally:
            if self.rng.random() < 0.3:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def handshake(self) -> None:
        await self.send(REQUEST + self.rng.choice((b"", DEFLATE)) + b"\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self.read()

    async def read(self) -> bytes:
        data = await self.loop.sock_recv(self.sock, 65536)
        if not data:
            raise ConnectionResetError
        return data

    async def read_to_the_end(self) -> None:
        while True:
            await self.read()

    def frames(self, count: int) -> bytes:
        rng = self.rng
        return b"".join(
            encode_frame(rng.choice((0x81, 0x82, 0x89, 0x8A)), b"villain" * rng.randrange(18), mask=MASK)
            for _ in range(count)
        )


async def vanish(villain: Villain, end: asyncio.Event) -> None:
    """In the handshake, or right behind it."""
    request = REQUEST + b"\r\n" + villain.frames(2)
    await villain.send(request[: villain.rng.randrange(len(request))])


async def talk_nonsense(villain: Villain, end: asyncio.Event) -> None:
    await villain.send(villain.rng.choice((b"\x16\x03\x01" + os.urandom(100), b"GET / HTTP/1.1\r\n\r\n", b"\r\n" * 9)))
    await villain.read_to_the_end()


async def reset(villain: Villain, end: asyncio.Event) -> None:
    await villain.handshake()
    await villain.send(villain.frames(villain.rng.randrange(50)))
    villain.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def cut(villain: Villain, end: asyncio.Event) -> None:
    """In the middle of a frame."""
    await villain.handshake()
    frame = encode_frame(villain.rng.choice((0x01, 0x81, 0x82)), b"c" * villain.rng.choice((10, 70_000)), mask=MASK)
    await villain.send(villain.frames(3) + frame[: villain.rng.randrange(1, len(frame))])
    await asyncio.sleep(villain.rng.random() * 0.05)


async def half_close(villain: Villain, end: asyncio.Event) -> None:
    await villain.handshake()
    await villain.send(villain.frames(20) + villain.rng.choice((b"", b"\x81", b"\x81\xfe\x10")))
    villain.sock.shutdown(socket.SHUT_WR)
    await villain.read_to_the_end()


async def stall(villain: Villain, end: asyncio.Event) -> None:
    """Sends, and reads nothing, while the others live."""
    villain.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await villain.handshake()
    chunk = encode_frame(0x82, b"s" * 30_000, mask=MASK)
    flooding = asyncio.ensure_future(villain.send(chunk * 100))
    await end.wait()
    flooding.cancel()
    with contextlib.suppress(asyncio.CancelledError, OSError):
        await flooding


async def fall_silent(villain: Villain, end: asyncio.Event) -> None:
    await villain.handshake()
    await villain.send(encode_frame(0x01, b"to be continued", mask=MASK))
    await end.wait()


async def violate(villain: Villain, end: asyncio.Event) -> None:
    await villain.handshake()
    bad = villain.rng.choice((
        encode_frame(0x83, b"", mask=MASK),
        encode_frame(0x81, b"unmasked"),
        encode_frame(0x81, b"\xff", mask=MASK),
        encode_frame(0x80, b"x", mask=MASK),
        encode_frame(0x88, b"\x03\xed", mask=MASK),
        encode_frame(0xC2, b"\xff\xff\xff\xff", mask=MASK),
        b"\x82\xff\xff" + bytes(11),
    ))
    await villain.send(villain.frames(3) + bad + villain.frames(30))
    await villain.read_to_the_end()


async def go_without_goodbye(villain: Villain, end: asyncio.Event) -> None:
    """Our Close frame, and no patience for the answer."""
    await villain.handshake()
    await villain.send(villain.frames(5) + encode_frame(0x88, b"\x03\xe8", mask=MASK) + villain.frames(5))


VILLAINIES: list[Callable[[Villain, asyncio.Event], Awaitable[None]]] = [
    *(vanish, talk_nonsense, reset, cut, half_close, stall, fall_silent, violate, go_without_goodbye),
]


# The servers --------------------------------------------------------------------------------------------------------


async def echo(ws: ServerConnection) -> None:
    """In fragments too, and not always at once."""
    rng = random.Random(1)
    async for message in ws:
        if rng.random() < 0.1:
            await asyncio.sleep(rng.random() * 0.01)
        await ws.send(pieces(rng, message) if rng.random() < 0.2 and message else message)


def echo_at_once(ws: ServerConnection, message: str | bytes) -> None:
    # A connection whose peer reads nothing is not read either, so there is always room for an answer.
    assert ws.try_send(message)


async def chaos(server: Server, seed: int, connections: int, messages: int) -> None:
    rng = random.Random(seed)
    end = asyncio.Event()

    async def misbehave() -> None:
        for _ in range(5):
            await Villain(port_of(server), rng).live(end)

    villains = [asyncio.ensure_future(misbehave()) for _ in range(connections // 2)]
    await asyncio.gather(*(behave(uri_of(server), seed, who, messages) for who in range(connections // 2)))
    assert server.connections  # somebody stalls still
    end.set()
    await asyncio.gather(*villains)
    while server._alive:
        await asyncio.sleep(0.01)


def held() -> tuple[int, int, int, int]:
    """Descriptors, tasks, objects and bytes."""
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return descriptors, len(asyncio.all_tasks()), len(gc.get_objects()), tracemalloc.get_traced_memory()[0]


def check_held(before: tuple[int, int, int, int], after: tuple[int, int, int, int]) -> None:
    assert after[:2] == before[:2]
    if asyncio.get_running_loop().get_debug():
        return  # it keeps tracebacks, of cancelled timers too
    # Timers that were cancelled, spare buffers and the tables of sets stay; each connection has dozens of objects.
    assert after[2] - before[2] < 4 * CONNECTIONS, f"{after[2] - before[2]} objects are left"
    assert after[3] - before[3] < 3000 * CONNECTIONS, f"{after[3] - before[3]} bytes are left"


class Complaints(logging.Handler):
    """What was logged with a traceback or as worse than information. Records are not kept: they hold connections."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "asyncio" and record.levelno == logging.DEBUG:
            return  # in debug mode it tells of every reset
        if record.levelno >= logging.WARNING or record.exc_info:
            self.texts.append(self.format(record))


@contextlib.contextmanager
def nothing_logged() -> Iterator[None]:
    # Within the test, not as a fixture: pytest would keep the records of a logger that does not propagate at its start.
    handler = Complaints()
    loggers = [logging.getLogger(name) for name in ("asyncio", "wsproto_fast")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
    assert handler.texts == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("how", ["handler", "callback"])
def test_server(how: str, seed: int) -> None:
    async def main() -> None:
        callback: dict[str, Any] = {} if how == "handler" else {"on_message": echo_at_once}
        async with serve(
            echo if how == "handler" else None,
            "127.0.0.1",
            0,
            close_timeout=0.5,
            open_timeout=5,
            backlog=500,
            **callback,
        ) as server:
            await chaos(server, seed, 40, 3)  # what is made once is there
            tracemalloc.start()
            try:
                before = held()
                await chaos(server, seed, CONNECTIONS, 8)
                check_held(before, held())
            finally:
                tracemalloc.stop()

    with nothing_logged():
        run(main(), limit=60.0)


# The other way round: our clients, and a server made of bytes ---------------------------------------------------------


class BadServer:
    """Echoes for those who ask for ``/good``; does something else to the others."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> BadServer:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.sock.setblocking(False)
        self.uri = f"ws://127.0.0.1:{self.sock.getsockname()[1]}"
        self.last: Any = None
        self.accepting = asyncio.ensure_future(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        with socket.create_connection(self.sock.getsockname()) as sock:  # cancelling an accept could lose a socket
            self.last = sock.getsockname()
            await self.accepting
        await asyncio.gather(*self.tasks)
        self.sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, address = await loop.sock_accept(self.sock)
            if address == self.last:
                sock.close()
                return
            task = asyncio.ensure_future(self._live(loop, sock))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _live(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                data = await loop.sock_recv(sock, 65536)
                if not data:
                    return
                head += data
            if head.startswith(b"GET /good"):
                await self._echo(loop, sock, head)
            else:
                await self._misbehave(loop, sock, head)
        except OSError:
            pass
        finally:
            if not head.startswith(b"GET /good") and self.rng.random() < 0.3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    async def _echo(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, head: bytes) -> None:
        """In pieces of any size."""
        await loop.sock_sendall(sock, answer(head))
        waiting = b""
        while True:
            data = await loop.sock_recv(sock, 65536)
            if not data:
                return
            waiting += data
            with contextlib.suppress(ValueError):
                frames = parse_frames(waiting)
                waiting = b""
                out = b"".join(encode_frame(first, payload) for first, _, payload in frames)
                while out:
                    size = self.rng.choice((1, 100, 10_000))
                    await loop.sock_sendall(sock, out[:size])
                    out = out[size:]
                    await asyncio.sleep(0)
                if any(first == 0x88 for first, _, _ in frames):
                    return

    async def _misbehave(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, head: bytes) -> None:
        rng = self.rng
        fine = answer(head)
        compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
        bomb = compressor.compress(bytes(2**22)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        await loop.sock_sendall(
            sock,
            rng.choice((
                b"",
                fine[: rng.randrange(len(fine))],
                fine.replace(b"101", b"200"),
                fine.replace(b"Accept: ", b"Accept: no"),
                b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\nnot so much",
                os.urandom(1000),
                fine,
                fine + b"\x81",
                fine + b"\x82\x7f" + bytes(8) + b"x",
                fine + encode_frame(0x81, b"masked", mask=MASK),
                fine + encode_frame(0x88, b"\x00\x01"),
                fine + encode_frame(0x81, b"ok") + encode_frame(0x88, b"\x0f\xa0bye"),
                fine + encode_frame(0x89, b"ping") * 2000,
                fine.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
                + encode_frame(0xC2, bomb[:-4]),
                fine + encode_frame(0x82, b"x" * 2**20) * 5,
            )),
        )
        if rng.random() < 0.3:
            sock.shutdown(socket.SHUT_WR)
        if rng.random() < 0.7:
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(loop.sock_recv(sock, 100), rng.random() * 0.5)


async def converse(uri: str, rng: random.Random, who: int) -> None:
    async with connect(uri + "/good", proxy=None, compression=None, open_timeout=60) as ws:
        for number in range(15):
            message = f"{who}:{number}:" + "x" * rng.choice((0, 50, 130, 400))
            await ws.send(message)
            assert await ws.recv() == message
    assert ws.close_code == 1000


async def suffer(uri: str, rng: random.Random) -> str:
    """Whatever the server does, what our user sees is documented. Returns it."""
    try:
        async with connect(uri + "/bad", proxy=None, open_timeout=5, close_timeout=0.5) as ws:
            if rng.random() < 0.2:
                return "left"
            try:
                while True:
                    await asyncio.wait_for(ws.recv(), 1)
            except ConnectionClosed as exc:
                return type(exc).__name__
    except (WebSocketException, OSError, asyncio.TimeoutError) as exc:
        return type(exc).__name__


@pytest.mark.parametrize("seed", SEEDS)
def test_clients(seed: int) -> None:
    seen: set[str] = set()

    async def once(connections: int) -> None:
        rng = random.Random(seed)
        async with BadServer(seed) as server:

            async def suffer_again() -> None:
                for _ in range(2):
                    seen.add(await suffer(server.uri, rng))

            await asyncio.gather(
                *(converse(server.uri, rng, who) for who in range(connections // 2)),
                *(suffer_again() for _ in range(connections // 2)),
            )

    async def main() -> None:
        await once(20)
        tracemalloc.start()
        try:
            before = held()
            await once(CONNECTIONS)
            check_held(before, held())
        finally:
            tracemalloc.stop()

    with nothing_logged():
        run(main(), limit=100.0)
    assert {"ConnectionClosedError", "InvalidStatus", "InvalidMessage", "InvalidHandshake"} & seen
    assert len(seen) > 3
