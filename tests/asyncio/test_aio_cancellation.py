"""Cancellation at every await: 10,000 times in all, at random points, nothing is lost, doubled, reordered or torn.

The peer is made of bytes: what it gets is parsed by the tests' own parser, what it sends is numbered. The seed of a
failure is in its message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio import MASK, Peer, pair, peer_of, run, serving, until
from cases.messages import BytesJSON
from helpers import SOON, encode_frame

from wsproto_fast.asyncio import ServerConnection
from wsproto_fast.asyncio._compat import timeout
from wsproto_fast.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError

CANCELLED = (asyncio.CancelledError, TimeoutError, asyncio.TimeoutError)
SEEDS = [1, 2]


class Canceller:
    """Awaits things and cancels them at random, in every way that a program can."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cancelled = 0
        self.completed = 0

    async def attempt(self, make: Callable[[], Awaitable[Any]]) -> tuple[bool, Any]:
        """Whether it came to its end, and with what."""
        how = self.random.choice((self._by_task, self._by_timeout, self._by_wait_for, self._by_callback))
        try:
            result = await how(make)
        except CANCELLED:
            self.cancelled += 1
            return False, None
        self.completed += 1
        return True, result

    async def turns(self, most: int = 4) -> None:
        for _ in range(self.random.randrange(most)):
            await asyncio.sleep(0)

    async def _by_task(self, make: Callable[[], Awaitable[Any]]) -> Any:
        task = asyncio.ensure_future(make())
        await self.turns()
        task.cancel()
        if self.random.random() < 0.2:
            task.cancel()  # twice before it knows
        return await task

    async def _by_callback(self, make: Callable[[], Awaitable[Any]]) -> Any:
        """From the loop itself, between the delivery and the task's next step."""
        task = asyncio.ensure_future(make())
        loop = asyncio.get_running_loop()
        if self.random.random() < 0.5:
            loop.call_soon(task.cancel)
        else:
            loop.call_later(self.random.random() * 0.0005, task.cancel)
        return await task

    async def _by_timeout(self, make: Callable[[], Awaitable[Any]]) -> Any:
        async with timeout(self.random.choice((0, 0.0001, 0.0005))):
            return await make()

    async def _by_wait_for(self, make: Callable[[], Awaitable[Any]]) -> Any:
        return await asyncio.wait_for(make(), self.random.choice((0.00005, 0.0002, 0.0005)))


async def write_numbered(peer: Peer, rng: random.Random, numbers: range) -> None:
    """Each message names its number; every third is in fragments, with a ping among them, some of them late."""

    async def turns() -> None:
        if rng.random() < 0.3:
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)

    for number in numbers:
        payload = b"%d " % number + b"x" * rng.choice((0, 10, 1000))
        if number % 3:
            peer.write(0x81, payload)
            continue
        cuts = sorted(rng.sample(range(len(payload) + 1), 2))
        peer.write(0x01, payload[: cuts[0]])
        await turns()
        peer.write(0x00, payload[cuts[0] : cuts[1]])
        peer.write(0x89, b"among fragments")
        await turns()
        peer.write(0x80, payload[cuts[1] :])


async def feed(peer: Peer, rng: random.Random, total: int) -> None:
    """Little by little, so that ``recv`` often waits."""
    number = 0
    while number < total:
        step = min(rng.choice((1, 1, 2, 40)), total - number)
        await write_numbered(peer, rng, range(number, number + step))
        number += step
        await peer.writer.drain()
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def handed_over(**settings: Any) -> Any:
    """A peer and the server's connection to it, which the test uses as its handler would."""
    connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handler(ws: ServerConnection) -> None:
        connections.put_nowait(ws)
        await ws.wait_closed()

    async with serving(handler, close_timeout=1, **settings) as server:
        async with peer_of(server) as peer:
            yield peer, await connections.get()


@pytest.mark.parametrize("seed", SEEDS)
def test_recv(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        async with handed_over() as (peer, ws):
            feeding = asyncio.ensure_future(feed(peer, rng, 1000))
            got = 0
            while got < 1000 or canceller.cancelled < 1000:
                if got == 1000:  # nothing is there any more: every attempt is cancelled
                    await canceller.attempt(ws.recv)
                    continue
                done, message = await canceller.attempt(ws.recv)
                if done:
                    assert int(message.split()[0]) == got, f"seed {seed}"
                    assert set(message.split(" ", 1)[1]) <= {"x"}
                    got += 1
            await feeding
            assert not ws._queue
            assert ws._queue_bytes == 0
            assert ws._receiver is None

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_recv_json(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        async with handed_over(json=BytesJSON) as (peer, ws):

            async def write() -> None:
                for number in range(500):
                    peer.write(0x81, json.dumps([number, "ü" * rng.choice((0, 100))], ensure_ascii=False).encode())
                    if rng.random() < 0.5:
                        await asyncio.sleep(0)

            writing = asyncio.ensure_future(write())
            got = 0
            while got < 500:
                as_json = rng.random() < 0.7
                done, message = await canceller.attempt(ws.recv_json if as_json else ws.recv)
                if done:
                    number, filling = message if as_json else json.loads(message)
                    assert number == got, f"seed {seed}"
                    assert set(filling) <= {"ü"}
                    got += 1
            while canceller.cancelled < 500:
                await canceller.attempt(ws.recv_json)
            await writing
            assert ws._queue_bytes == 0

    run(main())


async def whole(ws: ServerConnection) -> str:
    return "".join([part async for part in ws.recv_streaming(decode=True)])


@pytest.mark.parametrize("seed", SEEDS)
def test_recv_streaming(seed: int) -> None:
    """Before the first frame it loses nothing, and ``recv`` may take over; amid a message the connection says so."""

    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        cancelled = torn = 0
        while cancelled < 500:
            async with handed_over() as (peer, ws):
                feeding = asyncio.ensure_future(feed(peer, rng, 200))
                got = 0
                while got < 200:
                    done, message = await canceller.attempt(lambda: whole(ws) if rng.random() < 0.7 else ws.recv())
                    if ws._streaming:  # it was left in the middle
                        with pytest.raises(ConcurrencyError):
                            await ws.recv()
                        torn += 1
                        break
                    if done:
                        assert int(message.split()[0]) == got, f"seed {seed}"
                        got += 1
                else:
                    assert ws._queue_bytes == 0
                    assert not ws._queue
                peer.writer.transport.abort()
                feeding.cancel()
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await feeding
            cancelled = canceller.cancelled
        assert torn

    run(main())


def test_frames_put_back_are_counted_again() -> None:
    """What a cancelled ``recv`` puts back into the queue takes its part of the byte limit again."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            streaming = asyncio.ensure_future(whole(ws))
            await until(lambda: ws._receiver is not None)
            ws._engine.receive_data(encode_frame(0x01, b"one ", mask=MASK))
            ws._pump()  # it is told of a frame, and cancelled before it runs
            streaming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await streaming
            for _ in range(3):
                receiving = asyncio.ensure_future(ws.recv())
                await until(lambda: ws._receiver is not None)
                receiving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await receiving
                assert ws._queue_bytes == sum(len(item.data) for item in ws._queue) == 4
            peer.write(0x80, b"two")
            assert await ws.recv() == "one two"
            assert ws._queue_bytes == 0

    run(main())


async def frame_of(peer: Peer) -> tuple[int, bytes]:
    """As ``peer.frame()``; a server's frames have no mask, which makes it much faster."""
    first, size = await peer.reader.readexactly(2)
    extended = {126: 2, 127: 8}.get(size, 0)
    if extended:
        size = int.from_bytes(await peer.reader.readexactly(extended), "big")
    return first, await peer.reader.readexactly(size)


async def read_messages(peer: Peer, torn: bool = False) -> list[tuple[int, bytes]]:
    """Whole messages until the Close frame: opcode and payload; frames must be legal."""
    messages = []
    parts: list[bytes] = []
    opcode = 0
    while True:
        first, payload = await frame_of(peer)
        if first & 0x8F == 0x88:
            assert torn or not parts
            return messages
        if first & 0x0F >= 8:
            assert first in (0x89, 0x8A)
            continue
        assert bool(first & 0x0F) is not bool(parts), "a frame does not continue what came before"
        opcode = first & 0x0F or opcode
        parts.append(payload)
        if first & 0x80:
            messages.append((opcode, b"".join(parts)))
            parts = []


def check_sent(messages: list[tuple[int, bytes]], told: list[int], size: Callable[[int], int]) -> None:
    """What arrived is in order, whole, at most once, and has everything that a ``send`` returned for."""
    numbers = []
    for _, payload in messages:
        number = int(payload[:7])
        assert payload == b"%07d" % number + b"x" * size(number)
        numbers.append(number)
    assert numbers == told


@pytest.mark.parametrize("seed", SEEDS)
def test_send(seed: int) -> None:
    """A ``send`` that was cancelled was not sent, and one that returned was: the peer has just what we were told."""

    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)

        def size(number: int) -> int:
            return (0, 100, 3000, 20_000)[number % 4]

        async with handed_over(write_limit=(8192, 2048), compression=None) as (peer, ws):
            reading = asyncio.ensure_future(slowly(peer, rng))
            told: list[int] = []
            number = 0
            while canceller.cancelled < 1000:
                payload = b"%07d" % number + b"x" * size(number)
                limit = rng.choice((None, 0, 0.0002))
                done, _ = await canceller.attempt(lambda: ws.send(payload, timeout=limit))  # noqa: B023
                if done:
                    told.append(number)
                number += 1
                if rng.random() < 0.05:
                    await (await ws.ping())
            assert not ws._drain_waiters
            await ws.close()
            check_sent(await reading, told, size)
            assert canceller.completed > 100

    run(main())


async def slowly(peer: Peer, rng: random.Random) -> list[tuple[int, bytes]]:
    """Read, and answer pings and the Close frame; pause now and then."""
    messages = []
    while True:
        first, payload = await frame_of(peer)
        if first == 0x89:
            peer.write(0x8A, payload)
        elif first == 0x88:
            peer.write(0x88, payload)
            return messages
        else:
            messages.append((first & 0x0F, payload))
        if rng.random() < 0.1:
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_send_of_several_tasks(seed: int) -> None:
    """They wait for one another and for the peer; each task's messages stay whole and in its order."""

    async def main() -> None:
        rng = random.Random(seed)
        async with handed_over(write_limit=(8192, 2048), compression=None) as (peer, ws):
            reading = asyncio.ensure_future(read_messages(peer))
            told: dict[int, list[int]] = {}
            cancelled = 0

            async def fragments(payload: bytes) -> Any:
                for i in range(0, len(payload), 4000):
                    yield payload[i : i + 4000]
                    await asyncio.sleep(0)

            async def produce(task: int) -> None:
                nonlocal cancelled
                canceller = Canceller(seed * 100 + task)
                told[task] = []
                for number in range(250):
                    payload = b"%03d%04d" % (task, number) + b"y" * rng.choice((0, 500, 9000))
                    if rng.random() < 0.1:  # never cancelled: that would end the connection
                        await ws.send(fragments(payload))
                        done = True
                    else:
                        done, _ = await canceller.attempt(lambda: ws.send(payload))  # noqa: B023
                    if done:
                        told[task].append(number)
                cancelled += canceller.cancelled

            await asyncio.gather(*map(produce, range(6)))
            peer.write(0x88, b"\x03\xe8")
            got: dict[int, list[int]] = {task: [] for task in told}
            for _, payload in await reading:
                assert set(payload[7:]) <= {ord("y")}
                got[int(payload[:3])].append(int(payload[3:7]))
            assert got == told, f"seed {seed}"
            assert cancelled > 250, cancelled

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_send_in_fragments(seed: int) -> None:
    """Cancelled before the first fragment left, nothing is sent; later it ends the connection with 1011, not torn."""

    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        reasons = set()

        async def chunks(number: int) -> Any:
            await canceller.turns(3)
            yield b"%07d" % number
            for _ in range(rng.randrange(3)):
                await canceller.turns(3)
                yield b"x" * 5000

        while canceller.cancelled < 250:
            async with handed_over(write_limit=(8192, 2048)) as (peer, ws):
                reading = asyncio.ensure_future(read_messages(peer, torn=True))
                told: list[int] = []
                unsent = []
                for number in range(1000):
                    try:
                        done, _ = await canceller.attempt(lambda: ws.send(chunks(number)))  # noqa: B023
                    except ConnectionClosedError as exc:
                        reasons.add(str(exc.sent))
                        break
                    (told if done else unsent).append(number)
                    if not done and ws.state.name == "OPEN":  # before its first fragment: others go on
                        assert ws._fragmenting is None
                peer.write(0x88, b"\x03\xe8")
                numbers = [int(payload[:7]) for _, payload in await reading]
                assert numbers == told, f"seed {seed}"
        assert reasons == {"1011 (internal error) error in fragmented message"}

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_ping(seed: int) -> None:
    """``ping`` itself, and the wait for its pong; the other pings get their answers."""

    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        async with pair() as ws:

            async def ping_and_wait() -> float:
                return await (await ws.ping())

            async def ping() -> Awaitable[float]:
                return await ws.ping()

            answers = []
            while canceller.cancelled < 500:
                await canceller.attempt(ping_and_wait)
                if rng.random() < 0.1:
                    answers.append(await ws.ping())
                if rng.random() < 0.1:
                    await ws.send("between")
                    assert await ws.recv() == "between"
            await (await ws.ping())
            assert all(answer.done() and answer.result() >= 0 for answer in answers)
            assert not ws._pings

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_ping_that_waits_for_a_peer_that_does_not_read(seed: int) -> None:
    async def main() -> None:
        canceller = Canceller(seed)
        async with handed_over(write_limit=1000, compression=None) as (peer, ws):
            peer.writer.transport.pause_reading()
            while not ws._write_paused:
                await ws.send(b"x" * 2**20)
            before = ws.buffered_amount
            for number in range(250):
                for make in (lambda: ws.ping(b"%d" % number), lambda: ws.pong(b"never"), lambda: ws.send(b"never")):  # noqa: B023
                    done, _ = await canceller.attempt(make)
                    assert not done
            assert canceller.cancelled == 750
            assert not ws._drain_waiters
            assert not ws._pings
            assert ws.buffered_amount == before
            reading = asyncio.ensure_future(read_messages(peer))
            peer.writer.transport.resume_reading()
            await ws.send(b"the end")
            peer.write(0x88, b"\x03\xe8")
            messages = await reading
            assert messages.pop() == (2, b"the end")
            assert all(len(payload) == 2**20 for _, payload in messages)

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_close(seed: int) -> None:
    """A ``close`` that is cancelled drops the transport: the connection is gone, and ``recv`` gets what was there."""

    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        over = asyncio.Event()
        over.set()

        async def handler(ws: ServerConnection) -> None:
            for i in range(5):
                await ws.send(str(i))
            await ws.wait_closed()

        async with serving(handler, close_timeout=0.5) as server:
            while canceller.cancelled < 250:
                async with peer_of(server) as peer:
                    [ws] = server.connections
                    if rng.random() < 0.5:
                        await until(lambda: not ws._flush_is_due)  # noqa: B023
                    if rng.random() < 0.3:
                        peer.write(0x88, b"\x03\xe8")
                    if rng.random() < 0.3:
                        await canceller.turns()
                        assert (await frame_of(peer)) == (0x81, b"0")
                    began = False

                    async def close() -> None:
                        nonlocal began
                        began = True  # a task that is cancelled before its first step has done nothing
                        await ws.close()  # noqa: B023

                    await canceller.attempt(close)
                    if not began:
                        assert ws.state.name in ("OPEN", "CLOSED")
                        continue
                    await asyncio.wait_for(ws.wait_closed(), SOON)
                    assert ws.state.name == "CLOSED"
                    assert ws.close_code in (1000, 1006)
                    with pytest.raises(ConnectionClosed):
                        await ws.send("x")
                await until(lambda: not server._alive)

    run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_wait_closed_and_iteration(seed: int) -> None:
    """Neither ends the connection when it is cancelled."""

    async def main() -> None:
        rng = random.Random(seed)
        canceller = Canceller(seed)
        async with handed_over() as (peer, ws):
            feeding = asyncio.ensure_future(feed(peer, rng, 300))
            got = 0
            while got < 300 or canceller.cancelled < 500:
                await canceller.attempt(ws.wait_closed)
                done, message = await canceller.attempt(ws.__anext__)
                if done:
                    assert int(message.split()[0]) == got, f"seed {seed}"
                    got += 1
            await feeding
            assert ws.state.name == "OPEN"

    run(main())
