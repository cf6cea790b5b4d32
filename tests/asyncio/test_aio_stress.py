"""Many connections that end at random, and ``recv`` cancelled at random: nothing is lost, and nothing is left.

The sizes here are for every run, under AddressSanitizer too; the full ones are marked slow. The clients are plain
sockets in a thread, which know the protocol on their own. The seed is the test's parameter.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import socket
import struct
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aio import MASK, REQUEST, port_of, run, serving, tls_contexts, until, uri_of
from helpers import encode_frame, parse_frames

from wsproto_fast._codec import COMPILED
from wsproto_fast.asyncio import Connection, Server, ServerConnection, connect
from wsproto_fast.asyncio._compat import timeout
from wsproto_fast.exceptions import ConnectionClosed

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

slow = pytest.mark.slow


# recv, cancelled ----------------------------------------------------------------------------------------------------


class Receivers:
    """A server whose handlers receive numbered messages, and cancel that again and again, their own and the others'."""

    def __init__(self, seed: int, wanted: int) -> None:
        self.random = random.Random(seed)
        self.wanted = wanted
        self.cancelled = 0
        self.ways: Counter[str] = Counter()
        self.got: dict[str, int] = {}
        #: By connection, what waits for its next message.
        self.attempts: dict[str, asyncio.Task[Any]] = {}

    @property
    def over(self) -> bool:
        return self.cancelled >= self.wanted

    async def handler(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        name = ws.request.path
        self.got[name] = 0
        while True:
            attempt = getattr(self, self.random.choice(WAYS))
            try:
                message = await attempt(name, ws)
            except asyncio.CancelledError:
                self.cancelled += 1
                self.ways[attempt.__name__] += 1
                continue
            except (asyncio.TimeoutError, TimeoutError):  # two on 3.10
                self.cancelled += 1
                self.ways[attempt.__name__] += 1
                continue
            self.took(name, message)
            if message.endswith("end"):
                return

    def took(self, name: str, message: str) -> None:
        number = int(message.split()[0])
        assert number == self.got[name], f"{name} got {number} after {self.got[name] - 1}"
        self.got[name] += 1
        # Whoever has a message may cancel those who wait, some of which have one in the same tick.
        if not self.over and self.random.random() < 0.3:
            other = self.attempts.get(self.random.choice(list(self.got)))
            if other is not None and other is not asyncio.current_task():
                other.cancel()

    async def plainly(self, name: str, ws: Connection) -> Any:
        if not self.over and self.random.random() < 0.5:
            return await self.cancelled_soon(name, ws)
        return await ws.recv()

    async def cancelled_soon(self, name: str, ws: Connection) -> Any:
        """After some turns of the loop, or before the first one."""
        task = self.attempts[name] = asyncio.ensure_future(self.taking(name, ws))
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        if not self.over:
            task.cancel()
        return await task

    async def cancelled_with_the_selector(self, name: str, ws: Connection) -> Any:
        """In the turn that reads."""
        loop = asyncio.get_running_loop()
        task = self.attempts[name] = asyncio.ensure_future(self.taking(name, ws))
        if not self.over:
            loop.call_later(self.random.random() * 0.0005, task.cancel)
        return await task

    async def by_another(self, name: str, ws: Connection) -> Any:
        task = self.attempts[name] = asyncio.ensure_future(self.taking(name, ws))
        return await task

    async def in_a_loop(self, name: str, ws: Connection) -> Any:
        """A task that takes as much as there is."""

        async def take() -> Any:
            while True:
                message = await anext(ws)
                if message.endswith("end") or self.over:
                    return message
                self.took(name, message)

        task = self.attempts[name] = asyncio.ensure_future(take())
        if not self.over:
            asyncio.get_running_loop().call_later(self.random.random() * 0.0005, task.cancel)
        return await task

    async def by_a_timeout(self, name: str, ws: Connection) -> Any:
        async with timeout(None if self.over else self.random.choice((0, 0.0001, 0.0003))):
            return await self.taking(name, ws)

    async def by_wait_for(self, name: str, ws: Connection) -> Any:
        # The delay is not 0: then it cancels what has not begun, and closes it.
        return await asyncio.wait_for(ws.recv(), None if self.over else self.random.choice((0.00001, 0.0002)))

    async def taking(self, name: str, ws: Connection) -> Any:
        """A message that was received is never dropped: a task that is cancelled right then has it as its result."""
        return await ws.recv()


WAYS = [
    *("plainly", "cancelled_soon", "cancelled_with_the_selector", "by_another", "in_a_loop", "by_a_timeout"),
    "by_wait_for",
]


async def feed(uri: str, rng: random.Random, receivers: Receivers, context: Any) -> int:
    """Numbered messages, in bursts of different sizes, until it was cancelled often enough; returns how many."""
    number = 0
    async with connect(uri, compression=None, ssl=context) as ws:
        while not receivers.over:
            with ws.cork():
                for _ in range(rng.choice((1, 1, 1, 2, 3, 20))):
                    await ws.send(f"{number} " + "x" * rng.choice((0, 0, 200)))
                    number += 1
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
            if rng.random() < 0.05:
                await asyncio.sleep(0.001)
        await ws.send(f"{number} end")
        await ws.wait_closed()
        assert ws.close_code == 1000
    return number + 1


@pytest.mark.parametrize("transport", ["tcp", "tls"])
@pytest.mark.parametrize(
    ("seed", "wanted"),
    [(1, 3_000), pytest.param(2, 100_000, marks=[slow, pytest.mark.timeout(600)])],
)
def test_recv_cancelled_at_random(seed: int, wanted: int, transport: str) -> None:
    async def main() -> None:
        receivers = Receivers(seed, wanted)
        server_context, client_context = tls_contexts() if transport == "tls" else (None, None)
        scheme = "ws" if server_context is None else "wss"
        async with serving(receivers.handler, compression=None, ssl=server_context) as server:
            uris = [f"{scheme}://127.0.0.1:{port_of(server)}/{index}" for index in range(6)]
            sent = await asyncio.gather(
                *[
                    feed(uri, random.Random(seed * 1000 + index), receivers, client_context)
                    for index, uri in enumerate(uris)
                ]
            )
        assert {f"/{index}": count for index, count in enumerate(sent)} == receivers.got
        assert receivers.cancelled >= wanted
        print(f"{receivers.cancelled} cancelled, {sum(sent)} received; {dict(receivers.ways)}")
        for way in WAYS:
            assert receivers.ways[way], way

    run(main(), limit=500)


# Connections that end at random -------------------------------------------------------------------------------------

#: How half of the clients leave.
ENDS = ("close", "reset", "close frame", "half a frame", "shutdown", "unread", "lie")


class Client:
    """A plain socket that speaks the protocol of a text message: "connection number"."""

    def __init__(self, port: int, name: int, rng: random.Random) -> None:
        self.name = name
        self.random = rng
        #: In which round it leaves, and how; a stayer is there to the end.
        self.leaves = rng.randrange(ROUNDS) if name % 2 else None
        self.end = rng.choice(ENDS)
        self.sent = 0
        self.got = 0
        self.sock = socket.create_connection(("127.0.0.1", port), 30)
        self.sock.sendall(REQUEST + b"\r\n")
        self.opened = False
        self.data = b""

    def open(self) -> None:
        while b"\r\n\r\n" not in self.data:
            self.receive()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def receive(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"{self.name}: the end"
        self.data += data

    def send(self) -> None:
        count = self.random.choice((1, 1, 2, 8))
        self.sock.sendall(b"".join(self.message(self.sent + i) for i in range(count)))
        self.sent += count

    def message(self, number: int) -> bytes:
        return encode_frame(0x81, b"%d %d" % (self.name, number), mask=MASK)

    def expect(self) -> None:
        """All echoes, in their order."""
        while self.got < self.sent:
            expected = encode_frame(0x81, b"%d %d" % (self.name, self.got))
            while len(self.data) < len(expected):
                self.receive()
            assert self.data.startswith(expected), (self.name, self.got, self.data[:40])
            self.data = self.data[len(expected) :]
            self.got += 1

    def leave(self) -> None:
        """With messages of ours on their way, and echoes that we have not read."""
        self.send()
        if self.end == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.end == "close frame":
            self.sock.sendall(encode_frame(0x88, (1000).to_bytes(2, "big"), mask=MASK))
        elif self.end == "half a frame":
            self.sock.sendall(self.message(self.sent)[:-1])
        elif self.end == "shutdown":
            self.sock.shutdown(socket.SHUT_WR)
            while self.sock.recv(65536):
                pass
        elif self.end == "unread":
            self.sock.sendall(b"".join(self.message(self.sent + i) for i in range(100)))
            self.sent += 100
        elif self.end == "lie":
            self.sock.sendall(b"\xff\xff")
        self.sock.close()

    def finish(self) -> None:
        self.sock.sendall(encode_frame(0x88, (1000).to_bytes(2, "big"), mask=MASK))
        while data := self.sock.recv(65536):
            self.data += data
        assert parse_frames(self.data) == [(0x88, False, (1000).to_bytes(2, "big"))]
        self.sock.close()


ROUNDS = 4


def play(port: int, count: int, seed: int) -> list[Client]:
    """What the clients do: all at once, as far as one thread can; returns them."""
    rng = random.Random(seed)
    clients = [Client(port, name, random.Random(seed * 10_000 + name)) for name in range(count)]
    for client in clients:
        client.open()
    here = list(clients)
    for number in range(ROUNDS):
        rng.shuffle(here)
        for client in here:
            if client.leaves == number:
                client.leave()
            else:
                client.send()
        here = [client for client in here if client.leaves != number]
        rng.shuffle(here)
        for client in here:
            client.expect()
    for client in here:
        client.finish()
    return clients


class Echo:
    """The server's side: which messages came, by the name of the client, and how each connection ended."""

    def __init__(self) -> None:
        self.received: dict[int, int] = {}
        self.began = 0
        self.ended: Counter[Any] = Counter()
        self.alive: list[weakref.ref[Any]] = []

    def note(self, message: str | bytes) -> None:
        name, number = map(int, message.split())
        assert self.received.get(name, 0) == number, (name, number, self.received.get(name))
        self.received[name] = number + 1

    async def handler(self, ws: ServerConnection) -> None:
        self.begin(ws)
        try:
            async for message in ws:
                self.note(message)
                await ws.send(message)
        except ConnectionClosed:
            pass
        finally:
            await ws.wait_closed()
            self.ended[ws.close_code] += 1

    async def beside(self, ws: ServerConnection) -> None:
        """For ``on_message``."""
        self.begin(ws)
        await ws.wait_closed()
        self.ended[ws.close_code] += 1

    def begin(self, ws: ServerConnection) -> None:
        self.began += 1
        self.alive.append(weakref.ref(ws))

    def on_message(self, ws: Connection, message: str) -> None:
        self.note(message)
        ws.try_send(message)


def objects(name: str) -> int:
    mine = (type(each) for each in gc.get_objects())
    return sum(kind.__name__ == name and kind.__module__.startswith("wsproto_fast") for kind in mine)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def room_for(connections: int) -> Iterator[int]:
    """How many connections, of which both ends are here, the limit of descriptors allows; it is raised meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 300
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield min(connections, (max(soft, wanted) - 300) // 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(resource is None or not os.path.isdir("/proc/self/fd"), reason="needs /proc and RLIMIT_NOFILE")
@pytest.mark.parametrize("mode", ["async for", "on_message"])
@pytest.mark.parametrize(("seed", "wanted"), [(1, 500), pytest.param(2, 5000, marks=[slow, pytest.mark.timeout(900)])])
def test_half_of_the_connections_end_at_random(
    seed: int, wanted: int, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    echo = Echo()

    async def main(count: int) -> None:
        loop = asyncio.get_running_loop()
        settings: dict[str, Any] = {"on_message": echo.on_message} if mode == "on_message" else {}
        handler = echo.beside if mode == "on_message" else echo.handler
        await loop.run_in_executor(None, int)  # its thread is there
        before = descriptors()
        async with serving(handler, backlog=2 * count, close_timeout=1, compression=None, **settings) as server:
            clients = await loop.run_in_executor(None, play, port_of(server), count, seed)
            await until(lambda: not server._alive)
            assert not server.connections
            assert len(asyncio.all_tasks()) == 1
        assert echo.began == count
        assert sum(echo.ended.values()) == count
        for client in clients:
            received = echo.received.get(client.name, 0)
            if client.leaves is None:
                assert received == client.sent == client.got
            elif client.end in ("shutdown", "close frame", "half a frame", "lie"):
                assert client.got <= received <= client.sent
            else:
                assert received <= client.sent
        stayers = sum(client.leaves is None for client in clients)
        assert stayers <= echo.ended[1000]
        print(f"{count} connections, {stayers} stayed; codes {dict(echo.ended)}")
        del client, clients
        await asyncio.sleep(0)
        left = {}
        for fd in descriptors() - before:
            with contextlib.suppress(OSError):  # that of the listing itself
                left[fd] = os.readlink(f"/proc/self/fd/{fd}")
        assert not [name for name in left.values() if name.startswith("socket:")], left

    with room_for(wanted) as count:
        run(main(count), limit=800)
    assert not caplog.records
    gc.collect()
    assert not [reference() for reference in echo.alive if reference() is not None]
    assert objects("Channel") == objects("ServerConnection") == objects("Receive") == 0


@pytest.mark.parametrize("mode", ["recv", "on_message"])
@pytest.mark.parametrize("rounds", [300, pytest.param(5000, marks=[slow, pytest.mark.timeout(600)])])
def test_connections_one_after_another_do_not_grow(rounds: int, mode: str) -> None:
    """Each ends with a task waiting for a message on both sides. Twice as many take no more memory."""

    async def main() -> None:
        gone = 0

        async def handler(ws: ServerConnection) -> None:
            nonlocal gone
            with contextlib.suppress(ConnectionClosed):
                if mode == "recv":
                    await ws.recv()
            await ws.wait_closed()
            gone += 1

        def ignored(ws: Connection, message: Any) -> None:
            pass

        settings: dict[str, Any] = {"on_message": ignored} if mode == "on_message" else {}

        async def many(server: Server, count: int) -> None:
            for number in range(count):
                ws = await connect(uri_of(server))
                reference = weakref.ref(ws)
                receiving = asyncio.ensure_future(ws.recv())
                await asyncio.sleep(0)
                if number % 3 == 0:
                    ws.transport.abort()
                elif number % 3 == 1:
                    receiving.cancel()
                    await asyncio.wait([receiving])
                    await ws.close()
                else:
                    await ws.close()
                await asyncio.wait([receiving])
                if not receiving.cancelled():
                    assert isinstance(receiving.exception(), ConnectionClosed)
                del receiving, ws
                if not COMPILED:  # Python's frames and the exceptions raised in them refer to each other
                    gc.collect()
                await until(lambda reference=reference: reference() is None)  # type: ignore[misc]

        async with serving(handler, close_timeout=2, **settings) as server:
            await many(server, 60)
            await until(lambda: not server._alive)
            before = usage()
            await many(server, rounds)
            await until(lambda: not server._alive)
            grown = {name: value - before[name] for name, value in usage().items()}
            assert gone == rounds + 60
            print(grown)
            assert grown["blocks"] < 10 * rounds  # a connection takes many more
            assert grown["descriptors"] <= 0
            assert grown["objects"] < 300

    run(main(), limit=500)


def usage() -> dict[str, int]:
    gc.collect()
    return {
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(descriptors()) if os.path.isdir("/proc/self/fd") else 0,
        "objects": len(gc.get_objects()),
    }
