"""try_send, send's arguments, cork and buffered_amount: what they say is so, and what they refuse is not sent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio import Peer, pair, peer_of, port_of, run, serving, tls_contexts, until
from cases.messages import COMPRESSED, NOT_FOR_TRY_SEND
from helpers import parse_frames
from test_aio_link import Transport, feed, make, text

from wsproto_fast import PreparedMessage, SendStatus
from wsproto_fast.asyncio import Connection, connect
from wsproto_fast.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidState

FULL, QUEUED, SENT = SendStatus.FULL, SendStatus.QUEUED, SendStatus.SENT


class Blocked(Transport):
    """Takes ``room`` bytes at once, then buffers, as asyncio's transports do."""

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.room = room
        self.buffered = 0
        self.high = 0
        self.protocol: Any = None
        self.paused = False

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        self.high = high

    def write(self, data: Any) -> None:
        super().write(data)
        sent = min(self.room, len(data))
        self.room -= sent
        self.buffered += len(data) - sent
        if self.buffered > self.high and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def drain(self) -> None:
        self.buffered = 0
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()

    @property
    def written(self) -> bytes:
        return b"".join(call for call in self.calls if isinstance(call, bytes))


def blocked(room: int = 0, **settings: Any) -> tuple[Blocked, Connection]:
    transport = Blocked(room)
    settings.setdefault("compression", None)
    connection = make(transport, **settings)
    transport.protocol = connection
    return transport, connection


def frames(data: bytes) -> list[bytes]:
    return [payload for _, _, payload in parse_frames(data)]


@contextlib.asynccontextmanager
async def stalled(**settings: Any) -> AsyncIterator[tuple[Connection, Peer]]:
    """A server's connection, and its peer of which it knows only that it does not read until it is asked to."""
    found: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def handler(connection: Connection) -> None:
        found.set_result(connection)
        with contextlib.suppress(ConnectionClosed):
            await connection.wait_closed()

    settings = {"compression": None, "ping_interval": None, "close_timeout": 0.5} | settings
    async with serving(handler, **settings) as server, peer_of(server, small=True) as peer:
        yield await found, peer


# try_send


def test_nothing_waits_on_a_connection_that_has_ended() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(ssl=server_tls) as server:
            connection = await connect(f"wss://localhost:{port_of(server)}/", ssl=client_tls)
            connection.transport.abort()
            await connection.wait_closed()
            assert connection.buffered_amount == 0

    run(main())


def test_sent_only_if_nothing_waits() -> None:
    async def main() -> None:
        transport, connection = blocked(room=1000, write_limit=2000)
        assert connection.try_send(b"x" * 396) is SENT
        assert connection.try_send(b"y") is QUEUED  # right after another: more may follow
        await asyncio.sleep(0)
        assert connection.buffered_amount == 0
        connection._sent_at = 0.0  # long ago
        assert connection.try_send("y" * 397) is SENT
        assert connection.buffered_amount == 0
        connection._sent_at = 0.0
        assert connection.try_send(b"x" * 400) is QUEUED  # part of it
        assert connection.buffered_amount == 208
        assert connection.try_send(b"") is QUEUED
        await asyncio.sleep(0)
        transport.drain()
        assert connection.buffered_amount == 0
        transport.room = 100
        connection._sent_at = 0.0
        assert connection.try_send(b"") is SENT
        while (status := connection.try_send(b"z" * 100)) is QUEUED:
            pass
        assert status is FULL
        assert not status
        assert connection.buffered_amount == transport.buffered > 2000
        written = len(transport.calls)
        assert connection.try_send(b"not taken") is FULL
        assert len(transport.calls) == written
        assert b"not taken" not in transport.written
        transport.drain()
        assert b"not taken" not in transport.written
        assert connection.try_send(b"taken") is QUEUED
        await asyncio.sleep(0)
        assert frames(transport.written)[-1] == b"taken"

    run(main())


def test_try_send_to_a_real_peer_that_does_not_read() -> None:
    async def main() -> None:
        async with stalled(write_limit=2**14) as (connection, peer):
            taken = []
            i = 0
            status = None
            while status is not FULL:
                message = b"%06d" % i * 100
                status = connection.try_send(message)
                if status:
                    taken.append(message)
                if i % 10 == 0:
                    await asyncio.sleep(0)
                i += 1
            assert connection.buffered_amount > 2**14 - 1
            assert connection.buffered_amount < 2**17
            assert [(await peer.frame())[1] for _ in taken] == taken
            await until(lambda: connection.buffered_amount == 0)
            assert connection.try_send("again")
            assert await peer.frame() == (0x81, b"again")

    run(main())


def test_try_send_within_callbacks_and_blocks_is_queued() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        with connection.cork():
            assert connection.try_send("a") is QUEUED
            assert connection.buffered_amount == 3
        assert connection.buffered_amount == 0
        assert connection.try_send("b") is SENT
        feed(connection, text(b"1") + text(b"2"))
        assert connection.try_send("c") is QUEUED  # more is likely to follow
        await asyncio.sleep(0)
        assert connection.buffered_amount == 0
        assert frames(transport.written) == [b"a", b"b", b"c"]

    run(main())


def test_try_send_amid_a_fragmented_message() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await go_on.wait()
            yield "b"

        async with pair() as client:
            sending = asyncio.ensure_future(client.send(pieces()))
            await until(lambda: client._fragmenting is not None)
            assert client.try_send("between") is FULL
            go_on.set()
            await sending
            assert client.try_send("after")
            assert [await client.recv() for _ in range(2)] == ["ab", "after"]

    run(main())


def test_arguments_of_try_send() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        for nonsense in NOT_FOR_TRY_SEND:
            with pytest.raises(TypeError, match="str or bytes-like"):
                connection.try_send(nonsense)
        with pytest.raises(UnicodeEncodeError):
            connection.try_send("\ud800")
        assert transport.calls == []
        connection.try_send("é", text=False)
        connection.try_send(memoryview(b"\xc3\xa9"), text=True)
        connection.try_send(bytearray(b"x"))
        await asyncio.sleep(0)
        assert [(first, payload) for first, _, payload in parse_frames(transport.written)] == [
            (0x82, b"\xc3\xa9"),
            (0x81, b"\xc3\xa9"),
            (0x82, b"x"),
        ]

    run(main())


def test_try_send_after_the_end() -> None:
    async def main() -> None:
        async with pair() as client:
            await client.close()
            with pytest.raises(ConnectionClosedOK) as info:
                client.try_send("x")
            assert info.value.__cause__ is None
            with pytest.raises(TypeError):
                client.try_send(1)
            assert client.buffered_amount == 0
        _, connection = blocked()
        feed(connection, text(b"\xff"))
        with pytest.raises(ConnectionClosedError) as info:
            connection.try_send("x")
        assert "invalid UTF-8" in str(info.value.__cause__)  # why it ended, as send and recv tell
        connection.connection_lost(None)
        with pytest.raises(ConnectionClosedError) as info:
            await connection.send("x")
        assert "invalid UTF-8" in str(info.value.__cause__)

    run(main())


def test_try_send_to_a_full_connection_that_is_lost() -> None:
    async def main() -> None:
        transport, connection = blocked(write_limit=100)
        while connection.try_send("x" * 100):
            pass
        transport.buffered = 0
        connection.connection_lost(ConnectionResetError("on purpose"))
        with pytest.raises(ConnectionClosedError) as info:
            connection.try_send("x")
        assert isinstance(info.value.__cause__, ConnectionResetError)
        assert connection.buffered_amount == 0

    run(main())


def test_try_send_is_not_sent_by_a_transport_that_is_being_aborted() -> None:
    """asyncio tells the end of it in the next turn of the loop only."""

    async def main() -> None:
        async with stalled() as (connection, _):
            connection.transport.abort()
            with contextlib.suppress(ConnectionClosed):
                assert connection.try_send("lost") is not SENT
            await connection.wait_closed()

    run(main())


def test_before_the_handshake_is_over() -> None:
    async def main() -> None:
        import logging

        from wsproto_fast._settings import Settings

        connection = Connection(Settings(), logging.getLogger("test"))
        assert connection.buffered_amount == 0
        with pytest.raises(InvalidState):
            connection.try_send("x")
        with pytest.raises(InvalidState):
            await connection.send("x")
        with connection.cork():
            pass

    run(main())


def test_over_tls_try_send_stops_and_goes_on() -> None:
    async def main() -> None:
        server_context, client_context = tls_contexts()

        async def handler(connection: Connection) -> None:
            await go_on.wait()
            async for message in connection:
                got.append(message)

        go_on = asyncio.Event()
        got: list[Any] = []
        taken: list[bytes] = []
        async with serving(handler, ssl=server_context, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"wss://localhost:{port}/", ssl=client_context, compression=None) as client:
                i = 0
                while True:
                    message = b"%06d" % i * 5000
                    if not client.try_send(message):
                        break
                    taken.append(message)
                    i += 1
                    await asyncio.sleep(0)
                go_on.set()
                await client.send(b"last")
                assert client.try_send(b"more") or client.buffered_amount
            await until(lambda: len(got) >= len(taken) + 1)
            assert got[: len(taken)] == taken
            assert got[len(taken)] == b"last"

    run(main())


# send(timeout=)


def test_send_in_time() -> None:
    async def main() -> None:
        async with pair() as client:
            await client.send("a", timeout=5)
            await client.send(["b", "c"], timeout=5)
            await client.send_json([1], timeout=5, compress=True)
            await client.send("d", timeout=0)  # need not wait, so it is in time
            assert [await client.recv() for _ in range(4)] == ["a", "bc", "[1]", "d"]

    run(main())


@pytest.mark.parametrize("late", [0, -1, 0.01])
def test_a_message_that_was_late_was_not_sent(late: float) -> None:
    async def main() -> None:
        transport, connection = blocked(write_limit=2**12)
        while connection.try_send(b"x" * 600):
            pass
        size = connection.buffered_amount
        for message in ("late", b"late", "late" * 10_000, ["la", "te"]):
            with pytest.raises(TimeoutError):
                await connection.send(message, timeout=late)
        with pytest.raises(TimeoutError):
            await connection.send_json("late", timeout=late)
        assert connection.buffered_amount == size
        assert connection.state.name == "OPEN"
        assert not connection._drain_waiters
        transport.drain()
        await connection.send("after", timeout=5)  # there is room again
        assert set(frames(transport.written)) == {b"x" * 600, b"after"}
        feed(connection, text(b"hello"))
        assert await connection.recv() == "hello"

    run(main())


def test_a_send_that_waits_is_woken_before_it_is_late() -> None:
    async def main() -> None:
        transport, connection = blocked(write_limit=100)
        while connection.try_send("x" * 100):
            pass
        sends = [asyncio.ensure_future(connection.send(str(i), timeout=10)) for i in range(5)]
        late = asyncio.ensure_future(connection.send("late", timeout=0.005))
        while not late.done():
            await asyncio.sleep(0.001)
        assert isinstance(late.exception(), TimeoutError)
        transport.drain()
        await asyncio.gather(*sends)
        assert frames(transport.written)[-5:] == [b"0", b"1", b"2", b"3", b"4"]
        assert not connection._drain_waiters

    run(main())


def test_time_runs_out_while_another_message_is_being_sent_in_pieces() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await go_on.wait()
            yield "b"

        async with pair() as client:
            sending = asyncio.ensure_future(client.send(pieces()))
            await until(lambda: client._fragmenting is not None)
            with pytest.raises(TimeoutError):
                await client.send("late", timeout=0.01)
            with pytest.raises(TimeoutError):
                await client.send(["la", "te"], timeout=0.01)
            go_on.set()
            await sending
            await client.send("after", timeout=1)
            assert [await client.recv() for _ in range(2)] == ["ab", "after"]

    run(main())


def test_time_runs_out_in_the_middle_of_a_message() -> None:
    """Its rest can never follow."""

    async def main() -> None:
        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await asyncio.Event().wait()

        async with pair() as client:
            with pytest.raises(TimeoutError):
                await client.send(pieces(), timeout=0.01)
            with pytest.raises(ConnectionClosedError, match="1011"):
                await client.send("x")

    run(main())


def test_cancelling_a_send_with_a_timeout() -> None:
    async def main() -> None:
        transport, connection = blocked(write_limit=100)
        while connection.try_send("x" * 100):
            pass
        task = asyncio.ensure_future(connection.send("cancelled", timeout=10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        transport.drain()
        await connection.send("after")
        assert b"cancelled" not in frames(transport.written)

    run(main())


def test_the_connection_ends_before_the_time_is_out() -> None:
    async def main() -> None:
        _, connection = blocked(write_limit=100)
        while connection.try_send("x" * 100):
            pass
        task = asyncio.ensure_future(connection.send("x", timeout=10))
        await asyncio.sleep(0)
        connection.connection_lost(None)
        with pytest.raises(ConnectionClosedError):
            await task

    run(main())


# send(compress=)


@pytest.mark.parametrize("how", ["send", "try_send", "send_json", "fragments"])
@pytest.mark.parametrize(("compress", "size", "compressed"), COMPRESSED)
def test_compress(how: str, compress: bool | None, size: int, compressed: bool) -> None:
    async def main() -> None:
        async def handler(connection: Connection) -> None:
            if how == "send":
                await connection.send("x" * size, compress=compress)
            elif how == "try_send":
                connection.try_send("x" * size, compress=compress)
            elif how == "send_json":
                await connection.send_json("x" * size, compress=compress)
            else:
                await connection.send(["x" * size, "y"], compress=compress)
            await connection.wait_closed()

        extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        async with serving(handler) as server, peer_of(server, headers=extension) as peer:
            first, payload = await peer.frame()
            if how == "fragments":  # no threshold: nobody knows how long they become together
                assert bool(first & 0x40) is (compress is not False)
            else:
                assert bool(first & 0x40) is compressed
                assert compressed or len(payload) == size + (2 if how == "send_json" else 0)

    run(main())


def test_compress_where_nothing_was_agreed_on() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        await connection.send("x" * 100, compress=True)
        connection.try_send("x" * 100, compress=True)
        await asyncio.sleep(0)
        assert [first for first, _, _ in parse_frames(transport.written)] == [0x81, 0x81]

    run(main())


# cork


def test_what_is_sent_in_a_block_leaves_together() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        with connection.cork():
            for i in range(10):
                await connection.send(str(i))
            connection.try_send(b"try")
            await connection.send_json([1])
            assert transport.calls == []
        assert len(transport.calls) == 1
        assert frames(transport.written) == [b"%d" % i for i in range(10)] + [b"try", b"[1]"]
        await connection.send("alone")
        assert len(transport.calls) == 2

    run(main())


def test_blocks_within_blocks() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        with connection.cork():
            with connection.cork():
                await connection.send("a")
            assert transport.calls == []
            with contextlib.suppress(ZeroDivisionError), connection.cork():
                await connection.send("b")
                raise ZeroDivisionError
            assert transport.calls == []
        assert frames(transport.written) == [b"a", b"b"]
        assert len(transport.calls) == 1

    run(main())


def test_a_block_left_by_an_exception() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        with pytest.raises(ZeroDivisionError):
            with connection.cork():
                await connection.send("sent")
                raise ZeroDivisionError
        assert frames(transport.written) == [b"sent"]
        with pytest.raises(asyncio.CancelledError):
            with connection.cork():
                await connection.send("sent too")
                raise asyncio.CancelledError
        await connection.send("at once")
        assert frames(transport.written) == [b"sent", b"sent too", b"at once"]

    run(main())


def test_a_block_that_waits_holds_nothing_back() -> None:
    async def main() -> None:
        async with pair() as ws:
            with ws.cork():
                await ws.send("question")
                assert await ws.recv() == "question"

    run(main())


def test_whoever_waited_sends_first() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        connection.pause_writing()
        first = asyncio.ensure_future(connection.send("first"))
        await asyncio.sleep(0)
        connection.resume_writing()
        assert connection.try_send("not now") is SendStatus.FULL
        await connection.send("second")
        await first
        await asyncio.sleep(0)
        assert frames(transport.written) == [b"first", b"second"]

    run(main())


def test_blocks_of_two_tasks() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        first_done = asyncio.Event()

        async def one() -> None:
            with connection.cork():
                await connection.send("a")
                await asyncio.sleep(0)
                await connection.send("c")
            first_done.set()

        async def other() -> None:
            with connection.cork():
                await connection.send("b")
                await first_done.wait()

        await asyncio.gather(one(), other())
        assert frames(transport.written) == [b"a", b"b", b"c"]

    run(main())


def test_much_does_not_wait_for_the_end_of_a_block() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**30)
        with connection.cork():
            for i in range(1000):
                await connection.send(b"%04d" % i * 250)
                assert connection.buffered_amount < 2**16 + 2000
        assert connection.buffered_amount == 0
        assert 15 <= len(transport.calls) <= 20
        assert frames(transport.written) == [b"%04d" % i * 250 for i in range(1000)]
        with connection.cork():
            await connection.send(b"x" * 100_000)
            assert connection.buffered_amount == 0

    run(main())


def test_a_block_over_the_high_mark_waits() -> None:
    async def main() -> None:
        transport, connection = blocked(write_limit=1000)

        async def sender() -> None:
            with connection.cork():
                for i in range(300):
                    await connection.send(b"%04d" % i * 250)

        task = asyncio.ensure_future(sender())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not task.done()
        assert connection.buffered_amount < 2**16 + 5000
        while not task.done():
            transport.drain()
            await asyncio.sleep(0)
        await task
        assert frames(transport.written) == [b"%04d" % i * 250 for i in range(300)]

    run(main())


def test_pongs_do_not_wait_for_the_end_of_a_block() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        with connection.cork():
            connection.try_send("first")
            feed(connection, b"\x89\x80abcd")
            assert [first for first, _, _ in parse_frames(transport.written)] == [0x81, 0x8A]

    run(main())


def test_a_block_around_the_end() -> None:
    async def main() -> None:
        got: list[Any] = []

        async def handler(connection: Connection) -> None:
            async for message in connection:
                got.append(message)

        async with pair(handler) as client:
            with client.cork():
                await client.send("bye")
                await client.close()
                with pytest.raises(ConnectionClosedOK):
                    await client.send("late")
                with pytest.raises(ConnectionClosedOK):
                    client.try_send("late")
            assert got == ["bye"]
            assert client.buffered_amount == 0
            with client.cork():
                pass

    run(main())


def test_a_lost_connection_in_a_block() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        with connection.cork():
            connection.try_send("x")
            transport.closing = True
            connection.connection_lost(None)
            assert connection.buffered_amount == 0
        assert transport.written == b""

    run(main())


# buffered_amount


def test_buffered_amount_goes_back_to_nothing() -> None:
    async def main() -> None:
        async with stalled(write_limit=2**14) as (connection, peer):
            assert connection.buffered_amount == 0
            count = 0
            while connection.try_send(b"x" * 1000):
                count += 1
            high = connection.buffered_amount
            assert high >= 2**14
            for _ in range(count):
                await peer.frame()
            await until(lambda: connection.buffered_amount == 0)
            assert connection.try_send("x") in (SENT, QUEUED)

    run(main())


def test_buffered_amount_counts_frames_and_prepared_messages() -> None:
    async def main() -> None:
        transport, connection = blocked(room=2**20)
        connection._send_prepared(PreparedMessage("hello"))
        assert connection.buffered_amount == 7
        connection._send_prepared(PreparedMessage(b"hello"))
        assert connection.buffered_amount == 14
        assert transport.calls == []
        await asyncio.sleep(0)
        assert connection.buffered_amount == 0
        assert len(transport.calls) == 1

    run(main())


def test_buffered_amount_after_an_abort() -> None:
    async def main() -> None:
        async with stalled(write_limit=2**14) as (connection, _):
            while connection.try_send(b"x" * 1000):
                pass
            connection.transport.abort()
            await connection.wait_closed()
            assert connection.buffered_amount == 0

    run(main())


# Memory


@pytest.mark.parametrize("end", ["close", "abort", "reset while writing"])
def test_a_closed_connection_is_let_go(end: str) -> None:
    """Without the garbage collector, on both sides."""

    async def main() -> None:
        servers: list[Any] = []

        async def handler(connection: Connection) -> None:
            servers.append(weakref.ref(connection))
            with contextlib.suppress(ConnectionClosed):
                async for message in connection:
                    await connection.send(message, timeout=5)

        async with serving(handler) as server:
            port = server.sockets[0].getsockname()[1]
            client = await connect(f"ws://127.0.0.1:{port}/", write_limit=1000)
            with client.cork():
                await client.send("x", timeout=5)
                client.try_send("y")
            assert [await client.recv() for _ in range(2)] == ["x", "y"]
            gc.collect()
            gc.disable()
            try:
                if end == "close":
                    await client.close()
                elif end == "abort":
                    client.transport.abort()
                else:
                    with socket.socket(fileno=os.dup(client.transport.get_extra_info("socket").fileno())) as sock:
                        sock.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionClosed):
                        for _ in range(1000):
                            client.try_send("z" * 1000)
                            await asyncio.sleep(0)
                await client.wait_closed()
                reference = weakref.ref(client)
                del client
                for _ in range(100):
                    await asyncio.sleep(0.001)
                    if reference() is None and servers[0]() is None:
                        break
                assert reference() is None
                assert servers[0]() is None
            finally:
                gc.enable()

    run(main())
