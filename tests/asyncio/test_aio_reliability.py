"""What hostile, broken and slow peers do, as far as an adapter shows it: reliability rows 1.2 to 1.4."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import struct
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aio import Peer, byte_server, echo, pair, peer_of, port_of, run, serving, tls_contexts, until, uri_of
from cases.ends import ERRORS_OF_THE_PEER, STALLED, deflate
from helpers import SOON

from wsproto_fast import Limits, State
from wsproto_fast.asyncio import ServerConnection, connect
from wsproto_fast.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    PayloadTooBig,
    RemoteProtocolError,
)

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def errors_of(talk: Callable[[Peer], Awaitable[Any]], **options: Any) -> ConnectionClosed:
    """What a handler's recv() raises in the end when a peer talks like that."""

    async def main() -> ConnectionClosed:
        ended: asyncio.Future[ConnectionClosed] = asyncio.get_running_loop().create_future()

        async def handler(ws: ServerConnection) -> None:
            try:
                while True:
                    await ws.recv()
            except ConnectionClosed as exc:
                ended.set_result(exc)

        async with serving(handler, **options) as server, peer_of(server, headers=DEFLATE) as peer:
            await talk(peer)
            return await ended

    return run(main())


@pytest.mark.parametrize(("first", "payload", "code"), ERRORS_OF_THE_PEER)
def test_errors_of_the_peer(first: int, payload: bytes, code: int | None) -> None:
    codes: list[int] = []

    async def talk(peer: Peer) -> None:
        peer.write(0x81, b"fine")
        peer.write(first, payload)
        for _ in range(2000):  # in flight and never read by anybody
            peer.write(0x82, b"y" * 1000)
        while True:
            head, answer = await peer.frame()
            if head == 0x88:
                codes.append(int.from_bytes(answer[:2], "big"))
                break
        await peer.expect_eof()

    exc = errors_of(talk, max_size=1000)
    assert isinstance(exc, ConnectionClosedError)
    assert exc.sent is not None
    assert codes == [exc.sent.code]
    assert exc.sent.code == code if code is not None else exc.sent.code in (1002, 1007)
    assert isinstance(exc.__cause__, PayloadTooBig if code == 1009 else RemoteProtocolError)


def test_unmasked_frame() -> None:
    async def talk(peer: Peer) -> None:
        peer.mask = None
        peer.write(0x81, b"fine?")
        await peer.expect_close(1002)

    assert "masking" in str(errors_of(talk).__cause__)


def test_masked_frame_of_a_server() -> None:
    async def main() -> None:
        async def talk(peer: Peer) -> None:
            peer.write(0x81, b"fine")
            peer.mask = b"abcd"
            peer.write(0x81, b"masked")
            await peer.expect_close(1002)
            await peer.expect_eof()

        async with byte_server(talk) as uri, connect(uri) as ws:
            assert await ws.recv() == "fine"
            with pytest.raises(ConnectionClosedError) as info:
                await ws.recv()
            assert isinstance(info.value.__cause__, RemoteProtocolError)

    run(main())


def test_eof_without_close() -> None:
    async def talk(peer: Peer) -> None:
        peer.write(0x81, b"last words")
        peer.writer.write_eof()
        await peer.reader.read()

    exc = errors_of(talk)
    assert isinstance(exc, ConnectionClosedError)
    assert (exc.rcvd, exc.sent) == (None, None)
    assert str(exc) == "no close frame received or sent"


def test_reset() -> None:
    async def talk(peer: Peer) -> None:
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.writer.transport.abort()

    exc = errors_of(talk)
    assert isinstance(exc, ConnectionClosedError)
    assert isinstance(exc.__cause__, ConnectionResetError)
    assert exc.code == 1006


def test_eof_with_messages_that_nobody_has_taken() -> None:
    async def main() -> None:
        received: list[int] = []
        done = asyncio.Event()
        start = asyncio.Event()

        async def handler(ws: ServerConnection) -> None:
            await ws.wait_closed()
            assert ws.state is State.OPEN or ws.state is State.CLOSED
            start.set()
            with contextlib.suppress(ConnectionClosed):
                while True:
                    received.append(int(await ws.recv()))
            assert ws.close_code == 1006
            done.set()

        async with serving(handler) as server, peer_of(server) as peer:
            for i in range(100):
                peer.write(0x81, b"%d" % i)
            peer.writer.write_eof()
            await peer.reader.read()
            await start.wait()
            await done.wait()
        assert received == list(range(100))

    run(main())


def test_pings_are_answered_while_messages_wait() -> None:
    async def main() -> None:
        async with serving(lambda ws: ws.wait_closed()) as server, peer_of(server) as peer:
            for i in range(100):
                peer.write(0x81, b"%d" % i)
            peer.write(0x89, b"are you there")
            assert await peer.frame() == (0x8A, b"are you there")

    run(main())


async def flood(
    peer: Peer, first: int, payload: bytes, seconds: float, enough: Callable[[], bool] = lambda: False
) -> int:
    """Send the same frame for a while, reading nothing; returns how many bytes the other end took."""
    from helpers import encode_frame

    sock = peer.writer.get_extra_info("socket")
    chunk = encode_frame(first, payload, mask=b"\x00\x00\x00\x00") * max(1, 65536 // (len(payload) + 6))
    taken = 0
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    view = memoryview(chunk)
    position = 0
    while loop.time() < end and not enough():
        try:
            n = os.write(sock.fileno(), view[position:])
        except BlockingIOError:
            await asyncio.sleep(0.002)
            continue
        except OSError:
            break
        taken += n
        position = (position + n) % len(chunk)
        await asyncio.sleep(0)
    return taken


@pytest.mark.parametrize(("first", "payload"), STALLED.values(), ids=STALLED)
def test_stalled_reader_costs_bounded_memory(first: int, payload: bytes) -> None:
    """The peer floods and never reads an answer."""

    async def main() -> None:
        limits = Limits(max_control_rate=None, close_timeout=0.2)
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            await echo(ws)

        async with serving(handler, limits=limits) as server, peer_of(server, headers=DEFLATE, small=True) as peer:
            peer.writer.transport.pause_reading()
            gc.collect()
            tracemalloc.start()
            try:
                taken = await flood(peer, first, payload, 20.0, lambda: connections[0]._write_paused)
                taken += await flood(peer, first, payload, 0.5)
                current, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert taken > 50_000
            assert current < 4 * 2**20, f"{current} bytes held"
            assert peak < 16 * 2**20, f"{peak} bytes held at the worst"
            [ws] = connections
            assert ws._write_paused
            if first != 0x89:  # a server that echoes stops reading that peer
                assert ws._reading_paused
            peer.writer.transport.abort()

    run(main())


def test_received_messages_are_bounded_while_nobody_takes_them() -> None:
    async def main() -> None:
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            await ws.wait_closed()

        async with serving(handler, close_timeout=0.2) as server:
            async with peer_of(server) as peer:
                await flood(peer, 0x81, b"x", 0.3)
                [ws] = connections
                assert len(ws._queue) == 16
                assert ws._reading_paused
                peer.writer.transport.abort()
            connections.clear()
            async with peer_of(server) as peer:
                await flood(peer, 0x82, b"x" * 700_000, 0.3)
                [ws] = connections
                assert 2 <= len(ws._queue) <= 4  # two of the largest are the limit
                peer.writer.transport.abort()

    run(main())


def test_queue_marks() -> None:
    async def main() -> None:
        async with pair(max_queue=(10, 8)) as ws:
            for i in range(30):
                await ws.send(str(i))
            await until(lambda: ws._paused)
            assert len(ws._queue) == 10
            await ws.recv()
            assert len(ws._queue) == 9
            await ws.recv()  # at the low mark the rest comes in
            await until(lambda: len(ws._queue) == 10)
            assert [int(await ws.recv()) for _ in range(28)] == list(range(2, 30))
        async with pair(max_queue=None, max_size=None) as ws:
            for _ in range(3):
                await ws.send(b"x" * 1_000_000)
            for _ in range(100):
                await ws.send("y")
            await until(lambda: len(ws._queue) == 103)
        async with pair(max_queue=0) as ws:
            for i in range(5):
                await ws.send(str(i))
            assert [int(await ws.recv()) for _ in range(5)] == list(range(5))

    run(main())


def test_send_waits_over_the_high_mark() -> None:
    async def main() -> None:
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            await ws.wait_closed()

        async with serving(handler, write_limit=(65536, 16384), close_timeout=0.2) as server:
            async with peer_of(server, small=True) as peer:
                await until(lambda: bool(connections))
                ws = connections[0]
                sent = 0

                async def produce() -> None:
                    nonlocal sent
                    while sent < 100:
                        await ws.send(b"%07d" % sent + b"x" * 10_000)
                        sent += 1

                producing = asyncio.ensure_future(produce())
                await until(lambda: ws._write_paused)
                stopped = sent
                await asyncio.sleep(0.02)
                assert sent == stopped < 100
                # A send that is cancelled while it waits is not sent.
                for _ in range(3):
                    waiting = asyncio.ensure_future(ws.send("cancelled"))
                    await asyncio.sleep(0)
                    waiting.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await waiting
                assert len(ws._drain_waiters) == 1
                for i in range(100):
                    first, payload = await peer.frame()
                    assert first == 0x82
                    assert int(payload[:7]) == i
                await producing

    run(main())


@pytest.mark.parametrize("what", ["send", "fragments", "ping", "pong"])
def test_waiting_senders_are_told_of_the_end(what: str) -> None:
    async def main() -> None:
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            await ws.wait_closed()

        async with serving(handler) as server, peer_of(server, small=True) as peer:
            await until(lambda: bool(connections))
            ws = connections[0]
            while not ws._write_paused:
                await ws.send(b"x" * 100_000)
            waiting = {
                "send": lambda: ws.send("more"),
                "fragments": lambda: ws.send(["a", "b"]),
                "ping": ws.ping,
                "pong": ws.pong,
            }
            task: Any = asyncio.ensure_future(waiting[what]())
            await asyncio.sleep(0.01)
            assert not task.done()
            peer.writer.transport.abort()
            with pytest.raises(ConnectionClosedError):
                await task

    run(main())


def test_peer_that_never_answers_our_close() -> None:
    async def main() -> None:
        async def deaf(peer: Peer) -> None:
            await peer.expect_close(1000)
            with contextlib.suppress(ConnectionError):
                await peer.reader.read()

        async with byte_server(deaf) as uri:
            begin = asyncio.get_running_loop().time()
            async with connect(uri, close_timeout=0.1) as ws:
                pass
            assert 0.05 < asyncio.get_running_loop().time() - begin < SOON
            assert ws.close_code == 1006
            with pytest.raises(ConnectionClosedError, match=r"sent 1000 \(OK\); no close frame received"):
                await ws.send("x")

    run(main())


def test_server_that_leaves_tcp_open() -> None:
    async def main() -> None:
        async def lazy(peer: Peer) -> None:
            await peer.expect_close(1000)
            peer.write(0x88, b"\x03\xe8")
            with contextlib.suppress(ConnectionError):
                await peer.reader.read()

        async with byte_server(lazy) as uri:
            async with connect(uri, close_timeout=0.1) as ws:
                pass
            assert ws.close_code == 1000

    run(main())


def test_half_closed_peer_that_does_not_read() -> None:
    """Its EOF must end the connection although our output can never be written."""

    async def main() -> None:
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await ws.send(b"x" * 100_000)

        async with serving(handler, close_timeout=0.2) as server, peer_of(server, small=True) as peer:
            await until(lambda: bool(connections) and connections[0]._write_paused)
            peer.writer.write_eof()
            await asyncio.wait_for(connections[0].wait_closed(), SOON)
            assert connections[0].close_code == 1006

    run(main())


def test_keepalive_drops_a_silent_peer() -> None:
    async def main() -> None:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def handler(ws: ServerConnection) -> None:
            try:
                await ws.recv()
            except ConnectionClosed as exc:
                ended.set_result(exc)

        async with serving(handler, ping_interval=0.05, ping_timeout=0.1, close_timeout=0.1) as server:
            async with peer_of(server) as peer:
                assert await peer.expect_close(1011) == "keepalive ping timeout"
                exc = await ended
                assert str(exc) == "sent 1011 (internal error) keepalive ping timeout; no close frame received"

    run(main())


def test_keepalive_drops_a_peer_that_does_not_read() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def handler(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await ws.send(b"x" * 100_000)
            ended.set()

        async with serving(handler, ping_interval=0.1, ping_timeout=0.2, close_timeout=60) as server:
            async with peer_of(server, small=True):
                await asyncio.wait_for(ended.wait(), SOON)

    run(main())


def test_keepalive_spares_the_peer_of_a_slow_program() -> None:
    async def main() -> None:
        async def slow(ws: ServerConnection) -> None:
            async for message in ws:
                await asyncio.sleep(0.002)
                await ws.send(message)

        async with pair(slow, server={"ping_interval": 0.03, "ping_timeout": 0.05}) as ws:

            async def produce() -> None:
                for _ in range(200):
                    await ws.send("x" * 5000)

            producing = asyncio.ensure_future(produce())
            for _ in range(200):
                await ws.recv()
            await producing
            assert ws.state is State.OPEN

    run(main())


def test_tls_errors_end_within_the_close_timeout() -> None:
    """TLS has no half-close: the peer gets the Close frame and must go."""

    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(ssl=server_tls, close_timeout=0.3) as server:
            async with peer_of(server, ssl=client_tls, server_hostname="127.0.0.1") as peer:
                peer.write(0x81, b"hello")
                assert await peer.frame() == (0x81, b"hello")
                peer.write(0x81, b"\xff")
                await peer.expect_close(1007)
                with contextlib.suppress(OSError):
                    await peer.reader.read()
            async with peer_of(server, ssl=client_tls, server_hostname="127.0.0.1") as peer:
                peer.writer.write(b"")
                peer.writer.close()  # EOF of TLS without a Close frame
            async with peer_of(server, ssl=client_tls, server_hostname="127.0.0.1") as peer:
                peer.write(0x88, b"\x03\xe8")
                await peer.expect_close(1000)

    run(main())


def test_tls_backpressure() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()

        async def slow(ws: ServerConnection) -> None:
            await asyncio.sleep(0.1)
            await echo(ws)

        async with serving(slow, ssl=server_tls) as server:
            uri = f"wss://127.0.0.1:{port_of(server)}/"
            async with connect(uri, ssl=client_tls, compression=None) as ws:

                async def produce() -> None:
                    for i in range(1000):
                        await ws.send(f"{i:05}" * 400)

                producing = asyncio.ensure_future(produce())
                await asyncio.sleep(0.2)
                for i in range(1000):
                    assert await ws.recv() == f"{i:05}" * 400
                await producing

    run(main())


def test_busy_peer_does_not_starve_others() -> None:
    async def main() -> None:
        async with serving() as server, connect(uri_of(server)) as canary, peer_of(server) as peer:
            stop = asyncio.Event()

            async def drain() -> None:
                while await peer.reader.read(2**20):
                    pass

            draining = asyncio.ensure_future(drain())
            flooding = asyncio.ensure_future(flood(peer, 0x81, b"x" * 20, 1.0))
            worst = 0.0
            while not flooding.done():
                begin = time.thread_time()  # not what other processes take
                await canary.send("x")
                await canary.recv()
                worst = max(worst, time.thread_time() - begin)
            stop.set()
            peer.writer.transport.abort()
            await draining
            assert worst < 0.25

    run(main())


def test_bombs_do_not_starve_others() -> None:
    """Frames of 1 KiB that each inflate to a legal 1 MiB, for a handler that takes them as fast as it can."""

    async def sink(ws: ServerConnection) -> None:
        async for _ in ws:
            pass

    async def main() -> None:
        async with serving(sink) as server, peer_of(server, headers=DEFLATE) as peer:
            flooding = asyncio.ensure_future(flood(peer, 0xC2, deflate(bytes(2**20)), 1.0))
            worst = 0.0
            while not flooding.done():
                begin = time.thread_time()
                await asyncio.sleep(0)
                worst = max(worst, time.thread_time() - begin)
            peer.writer.transport.abort()
            assert worst < 0.25

    run(main())


@pytest.mark.parametrize("full", [False, True])
def test_nothing_can_be_sent_to_a_lost_peer(full: bool) -> None:
    """The peer is gone while its messages wait for a handler that only sends: each way to send says so, none grows."""
    told: list[str] = []

    async def main() -> None:
        over = asyncio.Event()

        async def push(ws: ServerConnection) -> None:
            await until(lambda: ws._paused)
            if full:
                while not ws._write_paused:
                    ws._engine.send_binary(bytes(2**20))
                    ws._settle()
            peer.writer.transport.abort()
            await ws.wait_closed()
            for send in (lambda: ws.send("x"), lambda: ws.send(["x", "y"]), ws.ping, ws.pong):
                try:
                    await send()
                except ConnectionClosed as exc:
                    told.append(type(exc).__name__)
            assert not ws._engine.has_output or full
            assert [message async for message in take_all(ws)] == ["x"] * 100
            over.set()

        async with serving(push) as server, peer_of(server) as peer:
            for _ in range(100):
                peer.write(0x81, b"x")
            await over.wait()

    run(main())
    assert told == ["ConnectionClosedError"] * 4


async def take_all(ws: Any) -> Any:
    with contextlib.suppress(ConnectionClosedError):
        while True:
            yield await ws.recv()


def test_close_loses_nothing_that_somebody_takes_slowly() -> None:
    async def many(ws: ServerConnection) -> None:
        for i in range(60):
            await ws.send(f"{i}" + " " * 1000)
        await ws.wait_closed()

    async def main() -> None:
        async with pair(many) as ws:
            await until(lambda: ws._paused)
            closing = asyncio.ensure_future(ws.close())
            await asyncio.sleep(1.3)  # longer than the patience of `async with`
            assert len([message async for message in ws]) == 60
            await closing
            assert ws.close_code == 1000

    run(main())


def test_no_descriptors_tasks_or_objects_are_left() -> None:
    async def once(server: Any, how: int) -> None:
        if how == 0:
            async with connect(uri_of(server)) as ws:
                await ws.send("x")
                await ws.recv()
        elif how == 1:
            async with peer_of(server) as peer:
                peer.writer.transport.abort()
        elif how == 2:
            async with peer_of(server) as peer:
                peer.write(0x81, b"\xff")
                await peer.expect_close(1007)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(b"nonsense\r\n\r\n")
            await reader.read()
            writer.close()
            await writer.wait_closed()

    async def main() -> None:
        async with serving() as server:

            async def many(n: int) -> tuple[int, int]:
                for i in range(n):
                    await once(server, i % 4)
                await until(lambda: not server._alive)
                gc.collect()
                return len(os.listdir("/proc/self/fd")), len(gc.get_objects())

            descriptors, objects = await many(40)
            more_descriptors, more_objects = await many(200)
            assert more_descriptors == descriptors
            # asyncio keeps up to a hundred timers that were cancelled, in debug mode with their tracebacks
            assert more_objects - objects < (2000 if asyncio.get_running_loop().get_debug() else 200)
            assert len(asyncio.all_tasks()) == 1

    if os.path.isdir("/proc/self/fd"):
        run(main())
