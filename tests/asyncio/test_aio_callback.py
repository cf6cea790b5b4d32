"""on_message: what a callback may do to its connection, and what a peer cannot do to the loop through it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from aio import MASK, REQUEST, byte_server, echo, pair, peer_of, port_of, raw, run, serving, tls_contexts, until, uri_of
from helpers import encode_frame, parse_frames
from test_aio_link import Transport, feed, make, text
from test_aio_sending import Blocked

from wsproto_fast import Limits, SendStatus
from wsproto_fast._settings import Settings
from wsproto_fast.asyncio import ClientConnection, Connection, connect
from wsproto_fast.constants import MESSAGE_COST, TURN
from wsproto_fast.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError, InvalidHandshake

OnMessage = Callable[[Any, Any], object]


class Collector:
    """Notes the messages, and does something with each."""

    def __init__(self, then: OnMessage = lambda connection, message: None) -> None:
        self.messages: list[Any] = []
        self.then = then

    def __call__(self, connection: Any, message: Any) -> None:
        self.messages.append(message)
        self.then(connection, message)


def reply(connection: Connection, message: str | bytes) -> None:
    assert connection.try_send(message)


def listen(on_message: OnMessage, **kwargs: Any) -> Any:
    """A server without handlers."""
    return serving(None, on_message=on_message, **kwargs)  # type: ignore[arg-type]


def numbers(count: int) -> bytes:
    return b"".join(text(b"%d" % i) for i in range(count))


# Exceptions


def test_an_exception_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def on_message(connection: Connection, message: str | bytes) -> None:
        if message == "bad":
            raise ValueError("on purpose")
        reply(connection, message)

    async def main() -> None:
        got = Collector(on_message)
        async with listen(got) as server, connect(uri_of(server)) as other, peer_of(server) as peer:
            await other.send("before")
            for message in (b"good", b"bad", b"never", b"never"):
                peer.write(0x81, message)
            assert await peer.frame() == (0x81, b"good")  # what was sent before still leaves
            assert await peer.expect_close(1011) == ""
            await peer.expect_eof()
            await other.send("after")
            assert [await other.recv() for _ in range(2)] == ["before", "after"]
            assert got.messages.count("never") == 0

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError
    assert "on_message" in "".join(logging.Formatter().format(record))
    assert isinstance(record.websocket, Connection)  # type: ignore[attr-defined]


def test_an_exception_of_a_clients_callback(caplog: pytest.LogCaptureFixture) -> None:
    def on_message(connection: Connection, message: str | bytes) -> None:
        raise ValueError("on purpose")

    async def main() -> None:
        async with pair(on_message=on_message) as client:
            await client.send("x")
            await client.wait_closed()
            assert client.protocol.close_code == 1011
            with pytest.raises(ConnectionClosedError) as info:
                await client.send("y")
            assert info.value.sent is not None
            assert info.value.sent.code == 1011

    run(main())
    assert sum(record.exc_info is not None for record in caplog.records) == 1


@pytest.mark.parametrize("before", ["_fail", "abort", "begin close", "held back", "lost"])
def test_an_exception_when_it_is_over_already(before: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        def on_message(connection: Connection, message: str | bytes) -> None:
            if before == "_fail":
                connection._fail(1008, "enough")
            elif before == "abort":
                connection.transport.abort()
            elif before == "begin close":
                connection._begin_close(1000, "")
            elif before in ("held back", "lost") and message != "999":
                return
            raise ValueError("on purpose")

        transport = Transport()
        got = Collector(on_message)
        connection = make(transport, on_message=got)
        feed(connection, numbers(1000))
        if before == "lost":
            connection.connection_lost(None)
        await until(lambda: connection.protocol.close_code is not None)
        assert len(got.messages) == (1000 if before in ("held back", "lost") else 1)
        for _ in range(5):
            await asyncio.sleep(0)
        if before != "lost":
            connection.connection_lost(None)
        assert connection._sink is None

    run(main())
    assert sum(record.exc_info is not None for record in caplog.records) == 1


def test_an_exception_on_what_came_with_the_request(caplog: pytest.LogCaptureFixture) -> None:
    def on_message(connection: Connection, message: str | bytes) -> None:
        raise ValueError("on purpose")

    async def main() -> None:
        async with listen(on_message) as server, raw(server) as (reader, writer):
            writer.write(REQUEST + b"\r\n" + encode_frame(0x81, b"x", mask=MASK))
            await reader.readuntil(b"\r\n\r\n")
            [(first, _, payload)] = parse_frames(await reader.read())
            assert first == 0x88
            assert int.from_bytes(payload[:2], "big") == 1011

    run(main())
    assert sum(record.exc_info is not None for record in caplog.records) == 1


# What a callback may do


def test_sending_until_there_is_no_room() -> None:
    async def main() -> None:
        sent: list[bytes] = []

        def on_message(connection: Connection, message: str | bytes) -> None:
            while True:
                reply = b"%06d" % len(sent) * 1000
                status = connection.try_send(reply)
                if status is SendStatus.FULL:
                    return
                assert status is SendStatus.QUEUED
                sent.append(reply)

        got = Collector(on_message)
        async with listen(got, compression=None, write_limit=2**15) as server, peer_of(server, small=True) as peer:
            for i in range(5):
                peer.write(0x81, b"%d" % i)
            read = 0
            while len(got.messages) < 5 or read < len(sent):
                assert (await peer.frame())[1] == sent[read]
                read += 1
            assert got.messages == [str(i) for i in range(5)]

    run(main())


def test_replies_of_one_read_leave_in_one_write() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport, on_message=reply)
        feed(connection, numbers(100))
        assert len(transport.calls) == 1
        assert [payload for _, _, payload in parse_frames(transport.calls[0])] == [b"%d" % i for i in range(100)]

    run(main())


def test_a_block_of_cork_in_a_callback() -> None:
    def on_message(connection: Connection, message: str | bytes) -> None:
        with connection.cork():
            connection.try_send("a")
            with connection.cork():
                connection.try_send(message)
            connection.try_send("b")

    async def main() -> None:
        async with listen(on_message) as server, connect(uri_of(server)) as client:
            for i in range(50):
                await client.send(str(i))
            for i in range(50):
                assert [await client.recv() for _ in range(3)] == ["a", str(i), "b"]

    run(main())


def test_close_by_a_task_of_a_callback() -> None:
    async def main() -> None:
        tasks = []

        def on_message(connection: Connection, message: str | bytes) -> None:
            if message == "close":
                tasks.append(asyncio.ensure_future(connection.close(4000, "as you wish")))

        async with listen(on_message) as server, connect(uri_of(server)) as client:
            await client.send("close")
            with pytest.raises(ConnectionClosedError) as info:
                await client.recv()
            assert info.value.rcvd is not None
            assert (info.value.rcvd.code, info.value.rcvd.reason) == (4000, "as you wish")
            await tasks[0]

    run(main())


def test_a_task_of_a_callback_may_send() -> None:
    async def main() -> None:
        tasks = set()

        def on_message(connection: Connection, message: str | bytes) -> None:
            task = asyncio.ensure_future(connection.send(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async with listen(on_message) as server, connect(uri_of(server)) as client:
            for i in range(20):
                await client.send(str(i))
            assert [await client.recv() for _ in range(20)] == [str(i) for i in range(20)]

    run(main())


def test_abort_in_a_callback() -> None:
    async def main() -> None:
        def on_message(connection: Connection, message: str | bytes) -> None:
            connection.transport.abort()
            with contextlib.suppress(ConnectionClosed):
                assert connection.try_send("lost") is not SendStatus.SENT

        got = Collector(on_message)
        async with listen(got) as server, connect(uri_of(server)) as client:
            with contextlib.suppress(ConnectionClosed):
                for i in range(10):
                    await client.send(str(i))
            with pytest.raises(ConnectionClosedError):
                await client.recv()
            await until(lambda: not server.connections)
            assert got.messages == [str(i) for i in range(len(got.messages))]

    run(main())


def test_failing_the_connection_in_a_callback() -> None:
    """Nothing that came behind is told."""

    async def main() -> None:
        got = Collector(lambda connection, _: connection._fail(1008, "enough"))
        async with listen(got) as server, peer_of(server) as peer:
            for _ in range(10):
                peer.write(0x81, b"x")
            assert await peer.expect_close(1008) == "enough"
            await peer.expect_eof()
            assert got.messages == ["x"]

    run(main())


def test_closing_others_in_a_callback() -> None:
    async def main() -> None:
        def on_message(connection: Connection, message: str | bytes) -> None:
            for other in server.connections - {connection}:
                other._fail(1001, "")
                other.transport.abort()
            connection.try_send("done")

        async with listen(on_message) as server:
            async with connect(uri_of(server)) as one, connect(uri_of(server)) as other:
                await one.send("x")
                assert await one.recv() == "done"
                with pytest.raises(ConnectionClosed):
                    await other.recv()
                await one.send("x")
                assert await one.recv() == "done"

    run(main())


@pytest.mark.parametrize("how", ["close", "abort", "let go"])
def test_a_callback_that_drops_the_last_reference(how: str) -> None:
    """A client's transport is all that holds it then; it is gone without the garbage collector once it has ended."""

    async def main() -> None:
        clients: list[Any] = []
        held: list[Any] = []

        def on_message(connection: Connection, message: str | bytes) -> None:
            clients.append(weakref.ref(connection))
            if how == "close":
                held.append(asyncio.ensure_future(connection.close()))
            elif how == "abort":
                connection.transport.abort()
            held.remove(connection)

        async def handler(connection: Connection) -> None:
            await connection.send(await connection.recv())
            if how != "let go":
                await connection.wait_closed()

        async with serving(handler) as server:
            gc.collect()
            gc.disable()
            try:
                waiting = connect(uri_of(server), on_message=on_message)
                client: Any = await waiting
                held.append(client)
                await client.send("hello")
                del client, waiting
                await until(lambda: bool(clients))
                await asyncio.gather(*held)
                held.clear()
                await until(lambda: clients[0]() is None)
            finally:
                gc.enable()

    run(main())


@pytest.mark.parametrize("end", ["close", "abort", "error", "peer"])
def test_connections_of_a_server_are_let_go(end: str) -> None:
    async def main() -> None:
        references: list[Any] = []

        def on_message(connection: Connection, message: str | bytes) -> None:
            references.append(weakref.ref(connection))
            if end == "close":
                connection._begin_close(1000, "")
            elif end == "abort":
                connection.transport.abort()
            elif end == "error":
                connection._fail(1008, "")

        async with listen(on_message) as server:
            gc.collect()
            gc.disable()
            try:
                client = await connect(uri_of(server))
                await client.send("x")
                if end == "peer":
                    await client.close()
                await client.wait_closed()
                for _ in range(100):
                    if references and references[0]() is None:
                        break
                    await asyncio.sleep(0.001)
                assert references[0]() is None
            finally:
                gc.enable()

    run(main())


def test_a_client_that_was_refused_does_not_refer_to_itself() -> None:
    async def main() -> None:
        clients: list[Any] = []

        def create(*arguments: Any) -> Any:
            clients.append(ClientConnection(*arguments))
            return clients[0]

        def refuse(connection: Any, request: Any) -> Any:
            return connection.respond(403, "no")

        async with serving(echo, process_request=refuse) as server:
            with pytest.raises(InvalidHandshake):
                await connect(uri_of(server), on_message=lambda *_: None, create_connection=create)
            await until(lambda: clients[0]._ended)
            assert clients[0]._sink is None

    run(main())


# What it gets


def test_what_came_with_the_request_and_before_connect_returned() -> None:
    async def main() -> None:
        got = Collector()
        async with listen(got) as server, raw(server) as (reader, writer):
            writer.write(REQUEST + b"\r\n" + encode_frame(0x81, b"early", mask=MASK))
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: got.messages == ["early"])

        async def handler(connection: Connection) -> None:
            await connection.send("early")
            await connection.wait_closed()

        got = Collector()
        async with pair(handler, on_message=got) as client:
            await until(lambda: got.messages == ["early"])
            await client.close()

    run(main())


def test_fragments_compression_and_control_frames() -> None:
    async def main() -> None:
        got = Collector(reply)
        async with listen(got) as server, connect(uri_of(server)) as client:
            sent: list[Any] = []
            for i in range(60):
                message: Any = [f"é{i}" * 100, b"%d" % i * 3000, ""][i % 3]
                if i % 4 == 0 and message:
                    await client.send([message[:10], message[10:11], message[11:]])
                else:
                    await client.send(message, compress=i % 2 == 0)
                if i % 10 == 0:
                    await (await client.ping())
                sent.append(message)
            assert [await client.recv() for _ in sent] == sent
            assert got.messages == sent

    run(main())


def test_over_tls() -> None:
    async def main() -> None:
        server_context, client_context = tls_contexts()
        async with listen(reply, ssl=server_context) as server:
            got = Collector()
            uri = f"wss://localhost:{port_of(server)}/"
            async with connect(uri, ssl=client_context, on_message=got) as client:
                for i in range(2000):
                    await client.send(str(i))
                await until(lambda: len(got.messages) == 2000)
                assert got.messages == [str(i) for i in range(2000)]

    run(main())


def test_nothing_else_can_be_received() -> None:
    async def main() -> None:
        async with pair(on_message=lambda *_: None) as client:
            for receive in (client.recv, client.recv_json, client.recv_streaming().__anext__, client.__anext__):
                with pytest.raises(ConcurrencyError, match="on_message"):
                    await receive()
        with pytest.raises((ConcurrencyError, ConnectionClosed)):
            await client.recv()

    run(main())


def test_the_peers_close_frame_and_a_handler_beside_the_callback() -> None:
    async def main() -> None:
        ended: list[int | None] = []

        async def handler(connection: Connection) -> None:
            connection.try_send("welcome")
            await connection.wait_closed()
            ended.append(connection.close_code)

        async with serving(handler, on_message=reply) as server:
            async with connect(uri_of(server)) as client:
                await client.send("x")
                assert [await client.recv() for _ in range(2)] == ["welcome", "x"]
                await client.close(4001)
            await until(lambda: ended == [4001])

    run(main())


# Backpressure


def test_a_peer_that_does_not_read_its_echoes_is_not_read() -> None:
    async def main() -> None:
        total = 2000
        echoed: list[int] = []

        def on_message(connection: Connection, message: str | bytes) -> None:
            assert connection.try_send(message) is not SendStatus.FULL  # room is made before a message is told
            echoed.append(int(message[:6]))

        async with listen(on_message, compression=None, ping_interval=None) as server:
            async with peer_of(server, small=True) as peer:
                [connection] = server.connections

                async def write() -> None:
                    for i in range(total):
                        peer.write(0x82, b"%06d" % i + bytes(10_000))
                        await peer.writer.drain()

                writing = asyncio.ensure_future(write())
                await until(lambda: connection._reading_paused)
                before = -1
                while before != len(echoed):  # nothing moves any more
                    before = len(echoed)
                    for _ in range(20):
                        await asyncio.sleep(0.001)
                assert len(echoed) < total / 2
                assert connection.buffered_amount < 2**16 + 2**16 + 20_000
                assert connection.stats.bytes_received - connection.stats.bytes_sent < 2**17 + 2**16
                for i in range(total):
                    first, payload = await peer.frame()
                    assert first == 0x82
                    assert payload == b"%06d" % i + bytes(10_000)
                await writing
                assert echoed == list(range(total))
                await until(lambda: connection.buffered_amount == 0)

    run(main(), limit=60)


def test_a_callback_that_replies_to_what_came_before_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """It cannot; that is nobody's mistake, and no error in the log."""
    caplog.set_level(logging.INFO)

    async def main() -> None:
        transport = Blocked(room=2**30)
        got = Collector(reply)
        connection = make(transport, on_message=got)
        transport.protocol = connection
        feed(connection, numbers(5000))
        told = len(got.messages)
        connection.connection_lost(None)
        await until(lambda: connection.protocol.close_code is not None)
        assert len(got.messages) == told + 1

    run(main())
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert "callback" in record.getMessage()


def test_a_callback_that_sends_to_another_connection_that_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        other = make(Transport())
        other.connection_lost(None)
        connection = make(Transport(), on_message=lambda _, message: other.try_send(message))
        feed(connection, numbers(1))
        assert connection.protocol.close_code == 1011

    run(main())
    [record] = caplog.records
    assert record.exc_info is not None


def test_messages_between_the_marks() -> None:
    """Each change of the transport's mind, in any order with the turns of the callback."""

    async def main() -> None:
        transport = Blocked()
        count = 5000

        def on_message(connection: Connection, message: str | bytes) -> None:
            assert connection.try_send(message) is not SendStatus.FULL

        got = Collector(on_message)
        connection = make(transport, on_message=got, write_limit=(3000, 100), limits=Limits(max_read_ahead=2000))
        transport.protocol = connection
        wire = b"".join(text(b"%d" % i) for i in range(count))
        turn = 0
        while wire or len(got.messages) < count:
            if transport.calls.count("pause") == transport.calls.count("resume"):
                feed(connection, wire[:1500])
                wire = wire[1500:]
            if turn % 3 == 0:
                transport.drain()
            if turn % 2 == 0:
                await asyncio.sleep(0)
            turn += 1
            assert connection.buffered_amount < 2**16 + 10_000
        transport.drain()
        assert got.messages == [str(i) for i in range(count)]
        assert [payload for _, _, payload in parse_frames(transport.written)] == [b"%d" % i for i in range(count)]
        assert not transport.paused

    run(main())


def test_a_turn_that_comes_when_there_is_no_room() -> None:
    async def main() -> None:
        got = Collector()
        connection = make(Transport(), on_message=got)
        feed(connection, numbers(2000))
        told = len(got.messages)
        assert told < 2000  # a turn is due
        connection.pause_writing()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(got.messages) == told
        connection.resume_writing()
        await until(lambda: len(got.messages) == 2000)
        assert got.messages == [str(i) for i in range(2000)]

    run(main())


# The loop is everybody's


@contextlib.asynccontextmanager
async def counting_turns() -> Any:
    turns = [0]

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns[0] += 1

    task = asyncio.ensure_future(count())
    yield turns
    task.cancel()


def bomb(size: int = 2**20) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    payload = deflate.compress(bytes(size)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return encode_frame(0xC2, payload[:-4], mask=MASK)


@pytest.mark.parametrize("kind", ["tiny", "bomb", "medium"])
def test_one_peer_does_not_hold_the_loop(kind: str) -> None:
    wire, size = {
        "tiny": (numbers(1) * 20_000, 1),
        "bomb": (bomb() * 200, 2**20),
        "medium": (encode_frame(0x82, bytes(1000), mask=MASK) * 500, 1000),
    }[kind]
    count = {"tiny": 20_000, "bomb": 200, "medium": 500}[kind]
    at_once = TURN // (size + MESSAGE_COST) + 1

    async def main() -> None:
        told_in: list[int] = []
        extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
        async with counting_turns() as turns:
            async with listen(lambda *_: told_in.append(turns[0])) as server:
                async with peer_of(server, headers=extension) as peer:
                    peer.writer.write(wire)
                    await until(lambda: len(told_in) == count)
        most = max(told_in.count(turn) for turn in set(told_in))
        assert most <= 2 * at_once  # the rest of one read, and the beginning of the next one

    run(main(), limit=60)


def test_a_well_behaved_connection_beside_bombs() -> None:
    async def main() -> None:
        wire = bomb() * 400
        told: list[int] = []
        extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"

        def on_message(connection: Connection, message: str | bytes) -> None:
            told.append(len(message))
            if len(message) < 100:
                reply(connection, message)

        async with listen(on_message) as server:
            async with peer_of(server, headers=extension) as peer, connect(uri_of(server)) as client:
                peer.writer.write(wire)
                slowest = 0.0
                while told.count(2**20) < 400:
                    started = time.perf_counter()
                    await client.send("hello")
                    assert await client.recv() == "hello"
                    slowest = max(slowest, time.perf_counter() - started)
                assert slowest < 0.5

    run(main(), limit=60)


# The end while messages are held back


@pytest.mark.parametrize("end", ["lost", "eof", "close frame", "reset"])
@pytest.mark.parametrize("stalled", [False, True])
def test_all_that_was_received_is_told(end: str, stalled: bool) -> None:
    async def main() -> None:
        transport = Blocked(room=2**30)
        got = Collector()
        connection = make(transport, on_message=got)
        transport.protocol = connection
        count = 5000
        if stalled:
            connection.pause_writing()
        feed(connection, numbers(count))
        assert len(got.messages) < (1 if stalled else TURN // MESSAGE_COST + 1)
        if end == "lost":
            connection.connection_lost(None)
        elif end == "eof":
            assert connection.eof_received()
        elif end == "close frame":
            feed(connection, encode_frame(0x88, b"\x03\xe8", mask=MASK))
        else:
            connection.connection_lost(ConnectionResetError())
        if stalled and end in ("eof", "close frame"):
            for _ in range(10):
                await asyncio.sleep(0)
            assert got.messages == []
            connection.resume_writing()
        await until(lambda: connection.protocol.close_code is not None)
        assert got.messages == [str(i) for i in range(count)]
        assert connection.close_code == (1000 if end == "close frame" else 1006)
        if end in ("eof", "close frame"):
            connection.connection_lost(None)
        assert connection._sink is None

    run(main())


def test_a_peer_that_sends_much_and_leaves() -> None:
    async def main() -> None:
        got = Collector()
        async with listen(got) as server:
            async with connect(uri_of(server), compression=None) as client:
                with client.cork():
                    for i in range(20_000):
                        await client.send(str(i))
            assert got.messages == [str(i) for i in range(20_000)]
            async with raw(server) as (_, writer):
                got.messages.clear()
                writer.write(REQUEST + b"\r\n" + numbers(20_000))
                writer.write_eof()
                await until(lambda: len(got.messages) == 20_000)
                assert got.messages == [str(i) for i in range(20_000)]
            await until(lambda: not server.connections)

    run(main())


def test_closing_while_messages_are_held_back() -> None:
    """Those that came before the peer's Close frame are told."""

    async def main() -> None:
        got = Collector()

        async def talk(peer: Any) -> None:
            peer.writer.write(b"".join(encode_frame(0x81, b"%d" % i) for i in range(5000)))
            assert await peer.expect_close(1000) == ""
            peer.write(0x81, b"last")
            peer.write(0x88, b"\x03\xe8")

        async with byte_server(talk) as uri:
            async with connect(uri, on_message=got) as client:
                await until(lambda: bool(got.messages))
                assert len(got.messages) < 5000
                await client.close()
            assert client.close_code == 1000
            assert got.messages == [*map(str, range(5000)), "last"]

    run(main())


def test_all_is_told_before_wait_closed_returns() -> None:
    async def main() -> None:
        got = Collector()

        async def handler(connection: Connection) -> None:
            for i in range(3000):
                await connection.send(str(i))

        async with serving(handler) as server:
            client = await connect(uri_of(server), on_message=got)
            await client.wait_closed()
            assert len(got.messages) == 3000
            assert client.close_code == 1000

    run(main())


def test_a_coroutine_function_is_refused() -> None:
    async def on_message(connection: Connection, message: str | bytes) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        Settings(on_message=on_message)


def test_wait_closed_waits_for_the_callback() -> None:
    async def main() -> None:
        got = Collector()
        connection = make(transport := Blocked(room=2**30), on_message=got)
        transport.protocol = connection
        feed(connection, numbers(5000))
        connection.connection_lost(None)
        assert len(got.messages) < 5000
        await connection.wait_closed()
        assert got.messages == [str(i) for i in range(5000)]

    run(main())
