"""The receive queue: how much waits in it, in messages and in bytes, and that nothing is lost or torn at its limits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
import zlib
from typing import Any

import pytest
from aio import MASK, echo, pair, peer_of, run, serving, until, uri_of
from cases.messages import ENDLESS_QUEUES, QUEUES, QUEUES_IN_BYTES
from helpers import encode_frame
from test_aio_callback import bomb, counting_turns
from test_aio_link import Transport, feed, make, text

from wsproto_fast import Limits
from wsproto_fast.asyncio import Connection, connect
from wsproto_fast.constants import MESSAGE_COST, TURN
from wsproto_fast.exceptions import ConnectionClosedError, ConnectionClosedOK


def binary(size: int) -> bytes:
    return encode_frame(0x82, bytes(size), mask=MASK)


async def drained(connection: Connection, count: int) -> None:
    for i in range(count):
        assert await connection.recv() == str(i)


def full_of_numbers(count: int, **settings: Any) -> Connection:
    connection = make(Transport(), **settings)
    feed(connection, b"".join(text(b"%d" % i) for i in range(count)))
    return connection


# Messages


@pytest.mark.parametrize(("max_queue", "high", "low"), QUEUES)
def test_limits_in_messages(max_queue: Any, high: int, low: int) -> None:
    async def main() -> None:
        connection = full_of_numbers(100, max_queue=max_queue)
        assert len(connection._queue) == high
        taken = 0
        while taken < 100:
            before = len(connection._queue)
            assert await connection.recv() == str(taken)
            taken += 1
            if before - 1 > low:
                assert len(connection._queue) == before - 1  # no more before the low mark
            else:
                assert len(connection._queue) == min(high, 100 - taken)

    run(main())


@pytest.mark.parametrize("max_queue", ENDLESS_QUEUES)
def test_no_limit_in_messages(max_queue: Any) -> None:
    async def main() -> None:
        connection = full_of_numbers(5000, max_queue=max_queue)
        assert len(connection._queue) == 5000
        feed(connection, binary(2**20) * 5)  # nor in bytes, then
        assert len(connection._queue) == 5005
        await drained(connection, 5000)

    run(main())


# Bytes


@pytest.mark.parametrize(("limit", "held"), QUEUES_IN_BYTES)
def test_limits_in_bytes(limit: int, held: int) -> None:
    async def main() -> None:
        connection = make(Transport(), max_queue=1000, max_queue_bytes=limit)
        feed(connection, binary(1000) * 50)
        feed(connection, binary(1000) * 50)
        assert len(connection._queue) == held
        assert connection._queue_bytes == held * 1000
        for left in range(99, -1, -1):
            before = len(connection._queue)
            assert len(await connection.recv()) == 1000
            assert connection._queue_bytes == 1000 * len(connection._queue)
            if (before - 1) * 1000 > limit // 2:
                assert len(connection._queue) == before - 1
            else:
                assert len(connection._queue) == min(held, left)

    run(main())


def test_bytes_without_a_limit_in_messages() -> None:
    async def main() -> None:
        connection = make(Transport(), max_queue=None, max_queue_bytes=5000)
        feed(connection, text(b"") * 3000)
        assert len(connection._queue) == 3000  # of no size
        feed(connection, binary(1000) * 20)
        assert len(connection._queue) == 3005

    run(main())


def test_messages_without_a_limit_in_bytes() -> None:
    async def main() -> None:
        connection = make(Transport(), max_queue=4, max_queue_bytes=None)
        feed(connection, binary(2**20) * 3)
        feed(connection, binary(2**20) * 3)
        assert connection._queue_bytes == 4 * 2**20

    run(main())


def test_large_messages_wait_on_the_wire() -> None:
    """The default: two messages of the largest size, however small the limit in messages lets them be."""

    async def main() -> None:
        async with pair(compression=None, max_queue=16) as client:
            sending = asyncio.ensure_future(send_all(client))
            await until(lambda: client._paused)
            assert len(client._queue) == 2
            for i in range(10):
                assert (await client.recv())[:2] == b"%02d" % i
                assert client._queue_bytes <= 2**21
            await sending

    async def send_all(client: Any) -> None:
        for i in range(10):
            await client.send(b"%02d" % i + bytes(2**20 - 2))

    run(main())


def test_bombs_wait_as_they_came() -> None:
    async def main() -> None:
        async def handler(connection: Connection) -> None:
            await until(lambda: connection._paused)
            for _ in range(100):
                assert connection._queue_bytes <= 2**21
                assert len(connection._queue) <= 2
                assert len(await connection.recv()) == 2**20
            done.set()

        done = asyncio.Event()
        extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
        async with serving(handler) as server, peer_of(server, headers=extension) as peer:
            peer.writer.write(bomb() * 100)
            await done.wait()

    run(main())


# Each way to receive


@pytest.mark.parametrize("settings", [{"max_queue": 1}, {"max_queue": (8, 0)}, {"max_queue_bytes": 10}, {}])
@pytest.mark.parametrize("way", ["recv", "recv_streaming", "async for", "recv_json"])
def test_nothing_is_lost_at_the_limits(settings: dict[str, Any], way: str) -> None:
    async def main() -> None:
        count = 3000
        limits = Limits(max_read_ahead=100)

        async def handler(connection: Connection) -> None:
            for i in range(count):
                message = str(i)
                await connection.send([message[:1], message[1:]] if i % 3 == 0 else message)

        async with serving(handler) as server:
            async with connect(uri_of(server), limits=limits, **settings) as client:
                if way == "async for":
                    assert [int(message) async for message in client] == list(range(count))
                else:
                    for i in range(count):
                        if way == "recv":
                            assert await client.recv() == str(i)
                        elif way == "recv_json":
                            assert await client.recv_json() == i
                        else:
                            assert "".join([part async for part in client.recv_streaming()]) == str(i)
                    with pytest.raises(ConnectionClosedOK):
                        await client.recv()
                assert client._queue_bytes == 0

    run(main())


@pytest.mark.parametrize("first", [0x01, 0x02])
@pytest.mark.parametrize("decode", [None, True, False])
def test_streaming_decodes_across_frames(first: int, decode: bool | None) -> None:
    """Of binary frames too, if that is asked for, as in websockets."""
    payload = "aé€😀".encode()

    async def main() -> None:
        connection = make(Transport())
        for _ in range(2):
            parts: list[Any] = []
            stream = asyncio.ensure_future(collect(connection, parts))
            await asyncio.sleep(0)
            for i in range(len(payload)):
                feed(connection, encode_frame(first if i == 0 else 0x00, payload[i : i + 1], mask=MASK))
            feed(connection, encode_frame(0x80, b"", mask=MASK))
            await stream
            assert len(parts) == len(payload) + 1
            if decode or (decode is None and first == 1):
                assert "".join(parts) == payload.decode()
            else:
                assert b"".join(parts) == payload
        stream = asyncio.ensure_future(collect(connection, []))
        await asyncio.sleep(0)
        feed(connection, encode_frame(first, payload[:2], mask=MASK) + encode_frame(0x80, b"", mask=MASK))
        if first == 2 and not decode:
            await stream
        else:
            with pytest.raises(ConnectionClosedError) as info:
                await stream
            assert info.value.sent is not None
            assert info.value.sent.code == 1007
            if first == 2:
                assert isinstance(info.value.__cause__, UnicodeDecodeError)

    async def collect(connection: Connection, parts: list[Any]) -> None:
        async for part in connection.recv_streaming(decode):  # type: ignore[call-overload]
            parts.append(part)

    run(main())


@pytest.mark.parametrize("way", ["recv", "recv_streaming", "async for", "recv_json"])
@pytest.mark.parametrize("kind", ["tiny", "bomb"])
def test_who_receives_lets_others_run(way: str, kind: str) -> None:
    async def main() -> None:
        told_in: list[int] = []
        count, size = (5000, 1) if kind == "tiny" else (60, 2**20)
        json_bomb = bytes([0x31]) * 2**20 if way != "recv_json" else b" " * (2**20 - 1) + b"1"

        async def handler(connection: Connection) -> None:
            while len(told_in) < count:
                if way == "recv":
                    await connection.recv()
                elif way == "recv_json":
                    await connection.recv_json()
                elif way == "recv_streaming":
                    async for _ in connection.recv_streaming():
                        pass
                else:
                    async for _ in connection:
                        told_in.append(turns[0])
                        if len(told_in) == count:
                            break
                    break
                told_in.append(turns[0])
            done.set()

        done = asyncio.Event()
        deflate = zlib.compressobj(wbits=-15)
        payload = (deflate.compress(json_bomb) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        wire = text(b"1") * count if kind == "tiny" else encode_frame(0xC1, payload, mask=MASK) * count
        extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
        async with counting_turns() as turns:
            async with serving(handler) as server, peer_of(server, headers=extension) as peer:
                peer.writer.write(wire)
                await done.wait()
        at_once = TURN // (size + MESSAGE_COST) + 1
        assert max(told_in.count(turn) for turn in set(told_in)) <= 2 * at_once

    run(main(), limit=60)


# The end of a connection whose queue is full


@pytest.mark.parametrize("end", ["lost", "eof", "close"])
def test_all_can_be_taken_after_the_end(end: str) -> None:
    async def main() -> None:
        connection = full_of_numbers(1000, max_queue=2)
        if end == "lost":
            connection.connection_lost(None)
        elif end == "eof":
            connection.eof_received()
        else:
            feed(connection, encode_frame(0x88, b"\x03\xe8", mask=MASK))
        await drained(connection, 1000)
        with pytest.raises(ConnectionClosedOK if end == "close" else ConnectionClosedError):
            await connection.recv()
        if end != "lost":
            connection.connection_lost(None)

    run(main())


def test_a_handler_that_returns_with_a_full_queue() -> None:
    async def main() -> None:
        async def handler(connection: Connection) -> None:
            await until(lambda: connection._paused)

        async with serving(handler, max_queue=1) as server, connect(uri_of(server)) as client:
            with contextlib.suppress(ConnectionClosedOK):
                for _ in range(1000):
                    await client.send("x" * 1000)
            with pytest.raises(ConnectionClosedOK):
                await client.recv()

    run(main())


@pytest.mark.parametrize("queue", ["never used", "used", "full"])
def test_a_closed_connection_is_let_go(queue: str) -> None:
    """Without the garbage collector, on both sides; the iterator, a stream and a cancelled wait included."""

    async def main() -> None:
        servers: list[Any] = []

        async def handler(connection: Connection) -> None:
            servers.append(weakref.ref(connection))
            await echo(connection)

        async with serving(handler) as server:
            client = await connect(uri_of(server), max_queue=2)
            gc.collect()
            gc.disable()
            try:
                if queue != "never used":
                    for _ in range(10):
                        await client.send("x")
                if queue == "used":
                    task = asyncio.ensure_future(client.recv())
                    await task
                    assert [part async for part in client.recv_streaming()] == ["x"]
                    async for _ in client:
                        break
                    for _ in range(7):
                        await client.recv()
                    task = asyncio.ensure_future(client.recv())
                    await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                    del task
                elif queue == "full":
                    await until(lambda client=client: client._paused)  # type: ignore[misc]
                    client.transport.abort()
                if queue != "full":
                    await client.close()
                await client.wait_closed()
                reference = weakref.ref(client)
                del client
                await until(lambda: reference() is None)
                await until(lambda: servers[0]() is None)
            finally:
                gc.enable()

    run(main())
