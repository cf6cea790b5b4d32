"""Keepalive that is right: who is silent is found, whoever's fault else it was, and who lives is kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from aio import MASK, Peer, byte_server, echo, peer_of, run, serving, until
from helpers import encode_frame, parse_frames
from test_aio_link import feed
from test_aio_sending import Blocked

from wsproto_fast import Connection as Engine
from wsproto_fast import Limits, Role, SendStatus
from wsproto_fast._settings import Settings
from wsproto_fast.asyncio import Connection, connect
from wsproto_fast.exceptions import ConnectionClosed, ConnectionClosedError

PING, PONG, TEXT, CLOSE = 0x89, 0x8A, 0x81, 0x88


def make(transport: Any, **settings: Any) -> Connection:
    """An open server's connection with keepalive."""
    settings = {"ping_interval": 0.02, "ping_timeout": 0.02, "compression": None} | settings
    connection = Connection(Settings(**settings), logging.getLogger("test"))
    transport.protocol = connection
    connection.connection_made(transport)
    keepalive, limits = connection._settings.keepalive, connection._settings.limits
    connection._open(Engine(Role.SERVER, limits=limits, keepalive=keepalive))
    return connection


def frames(transport: Blocked) -> list[tuple[int, bytes]]:
    return [(first, payload) for first, _, payload in parse_frames(transport.written)]


async def answer_pings(transport: Blocked, connection: Connection, count: int) -> None:
    """A peer that lives."""
    answered = 0
    while answered < count:
        pings = [payload for first, payload in frames(transport) if first == PING]
        for payload in pings[answered:]:
            feed(connection, encode_frame(PONG, payload, mask=MASK))
        answered = len(pings)
        await asyncio.sleep(0.001)


# Who is silent


def test_a_silent_peer_is_found() -> None:
    async def main() -> None:
        async def handler(connection: Connection) -> None:
            with pytest.raises(ConnectionClosedError) as info:
                await connection.recv()
            assert info.value.sent is not None
            assert (info.value.sent.code, info.value.sent.reason) == (1011, "keepalive ping timeout")

        async with serving(handler, ping_interval=0.02, ping_timeout=0.02) as server, peer_of(server) as peer:
            assert (await peer.frame())[0] == PING
            assert await peer.expect_close(1011) == "keepalive ping timeout"
            await peer.expect_eof()

    run(main())


@pytest.mark.parametrize("what", [encode_frame(PONG, b"", mask=MASK), encode_frame(TEXT, b"x" * 50, mask=MASK)])
def test_any_byte_proves_life(what: bytes) -> None:
    """A pong that nobody asked for, the middle of a frame: the right pong never comes."""

    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.01, ping_timeout=0.05)
        sent = 0
        while sum(first == PING for first, _ in frames(transport)) < 15:
            byte = what[sent % len(what)]
            feed(connection, bytes([byte]))
            sent += 1
            pings = len(frames(transport))
            await until(lambda pings=pings: len(frames(transport)) > pings)  # type: ignore[misc]
        assert connection.state.name == "OPEN"
        connection.connection_lost(None)

    run(main())


@pytest.mark.parametrize("ping_timeout", [None, 0.01])
def test_ping_timeout_may_be_none(ping_timeout: float | None) -> None:
    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.005, ping_timeout=ping_timeout)
        if ping_timeout is None:
            await until(lambda: len(frames(transport)) >= 20)
            assert connection.state.name == "OPEN"
        else:
            await until(lambda: connection.state.name != "OPEN")
        connection.connection_lost(None)

    run(main())


@pytest.mark.parametrize("mode", ["push", "echo", "callback", "nobody receives"])
def test_a_peer_that_stops_reading_is_aborted(mode: str) -> None:
    """Although it goes on sending as long as anything takes it, and although we do not read it any more."""

    async def main() -> None:
        ended = asyncio.Event()

        async def handler(connection: Connection) -> None:
            with contextlib.suppress(ConnectionClosed):
                if mode == "push":
                    while True:
                        await connection.send(bytes(10_000))
                elif mode == "echo":
                    async for message in connection:
                        await connection.send(message)
                else:
                    while connection.try_send(bytes(10_000)):
                        pass
                    await connection.wait_closed()
            ended.set()

        def on_message(connection: Connection, message: str | bytes) -> None:
            assert connection.try_send(message) is not SendStatus.FULL

        kwargs: dict[str, Any] = {"ping_interval": 0.1, "ping_timeout": 0.1, "compression": None, "close_timeout": 60}
        if mode == "callback":
            kwargs["on_message"] = on_message
        async with serving(None if mode == "callback" else handler, **kwargs) as server:  # type: ignore[arg-type]
            async with peer_of(server, small=True) as peer:
                [connection] = server.connections
                flood = asyncio.ensure_future(send_for_ever(peer))
                await connection.wait_closed()  # long before the close timeout: `run` waits for 15 s
                flood.cancel()
                if mode != "callback":
                    await ended.wait()
            await until(lambda: connection.close_code is not None or mode == "nobody receives")

    async def send_for_ever(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.write(0x82, bytes(10_000))
                await peer.writer.drain()

    run(main())


def test_a_ping_that_the_transport_has_is_not_held_against_the_peer_while_we_do_not_read() -> None:
    """Even when there is output again at the deadline."""

    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, limits=Limits(max_read_ahead=1000), max_queue=1)
        feed(connection, encode_frame(TEXT, bytes(1000), mask=MASK) * 10)
        assert transport.calls.count("pause") == 1
        with connection.cork():
            for _ in range(20):
                connection.try_send("output")
                before = len(frames(transport))
                await until(lambda before=before: len(frames(transport)) > before)  # type: ignore[misc]
        assert connection.state.name == "OPEN"
        connection.connection_lost(None)

    run(main())


# Who lives


def test_a_program_that_does_not_receive_keeps_its_peer() -> None:
    """The queue is full and the peer is not read, for many times the timeout; its pongs wait behind its messages."""

    async def main() -> None:
        answered = 0

        async def talk(peer: Peer) -> None:
            nonlocal answered
            for i in range(500):
                peer.write(TEXT, b"%03d" % i + bytes(1000))
            while True:
                first, payload = await peer.frame()
                if first == CLOSE:
                    return
                peer.write(PONG, payload)
                answered += 1

        async with byte_server(talk) as uri:
            limits = Limits(max_read_ahead=1000)
            async with connect(uri, ping_interval=0.01, ping_timeout=0.02, max_queue=2, limits=limits) as client:
                await until(lambda: client._reading_paused)
                await until(lambda: answered > 20)
                assert client._reading_paused
                for i in range(500):
                    assert (await client.recv())[:3] == f"{i:03}"
                await until(lambda: client.stats.pongs_received > 0)
                assert client.state.name == "OPEN"

    run(main())


def test_a_full_queue_does_not_hide_pongs() -> None:
    """As long as they are within the read-ahead; then nothing is excused either."""

    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.01, ping_timeout=0.05, max_queue=1)
        feed(connection, encode_frame(TEXT, b"x", mask=MASK) * 100)
        assert not connection._reading_paused
        await answer_pings(transport, connection, 10)
        assert connection.stats.pongs_received > 0
        assert connection.state.name == "OPEN"
        await until(lambda: connection.state.name != "OPEN")  # silent now
        assert len(connection._queue) == 1
        connection.connection_lost(None)

    run(main())


def test_pings_are_answered_while_the_queue_is_full() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def handler(connection: Connection) -> None:
            await go_on.wait()
            await echo(connection)

        async with serving(handler, max_queue=1) as server, peer_of(server) as peer:
            for i in range(50):
                peer.write(TEXT, b"%d" % i)
                peer.write(PING, b"%d" % i)
                assert await peer.frame() == (PONG, b"%d" % i)
            go_on.set()
            for i in range(50):
                assert await peer.frame() == (TEXT, b"%d" % i)

    run(main())


@pytest.mark.parametrize("times", [2, 4])
def test_a_loop_that_was_blocked_kills_nobody(times: int) -> None:
    """For longer than ping_timeout, between the ping and its deadline: the pong waits in the socket."""

    async def main() -> None:
        async def talk(peer: Peer) -> None:
            while True:
                first, payload = await peer.frame()
                if first == CLOSE:
                    peer.write(CLOSE, payload)
                    return
                if first == PING:
                    peer.write(PONG, payload)

        async with byte_server(talk) as uri:
            async with connect(uri, ping_interval=0.05, ping_timeout=0.05) as client:
                for _ in range(3):
                    sent = client.stats.bytes_sent
                    await until(lambda sent=sent: client.stats.bytes_sent > sent)  # type: ignore[misc]
                    time.sleep(0.05 * times)  # noqa: ASYNC251 (that is what is tested)
                    pongs = client.stats.pongs_received
                    await until(lambda pongs=pongs: client.stats.pongs_received > pongs)  # type: ignore[misc]
                assert client.state.name == "OPEN"

    run(main())


def test_a_callback_that_is_slow_kills_nobody() -> None:
    """Messages held back by the budget are no silence."""

    async def main() -> None:
        transport = Blocked(room=2**20)
        got: list[Any] = []

        def on_message(_: Any, message: Any) -> None:
            got.append(message)
            if len(got) % 100 == 0:
                time.sleep(0.005)

        connection = make(transport, ping_interval=0.01, ping_timeout=0.01, on_message=on_message)
        feed(connection, encode_frame(TEXT, b"x", mask=MASK) * 6000)
        last = 0
        while len(got) < 6000:
            pings = [payload for first, payload in frames(transport) if first == PING]
            for payload in pings[last:]:
                feed(connection, encode_frame(PONG, payload, mask=MASK))
            last = len(pings)
            await asyncio.sleep(0)
        assert last > 3
        assert connection.state.name == "OPEN"
        connection.connection_lost(None)

    run(main())


# The heartbeat's payload


def test_payload_of_bytes() -> None:
    count = 0

    def payload() -> bytes:
        nonlocal count
        count += 1
        return b"beat %d" % count

    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.005, ping_timeout=1, ping_payload=payload)
        await answer_pings(transport, connection, 5)
        assert frames(transport)[:5] == [(PING, b"beat %d" % i) for i in range(1, 6)]
        assert connection.stats.pongs_received > 0
        connection.connection_lost(None)

    run(main())


@pytest.mark.parametrize("answered", [True, False])
def test_payload_of_text(answered: bool) -> None:
    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.005, ping_timeout=0.02, ping_payload=lambda: '{"op": "ping"}')
        if answered:
            seen = 0
            while seen < 10:
                if len(frames(transport)) > seen:
                    feed(connection, encode_frame(TEXT, b'{"op": "pong"}', mask=MASK))
                    seen = len(frames(transport))
                await asyncio.sleep(0.001)
            assert set(frames(transport)) == {(TEXT, b'{"op": "ping"}')}
            assert await connection.recv() == '{"op": "pong"}'
        else:
            await until(lambda: connection.state.name != "OPEN")
        connection.connection_lost(None)

    run(main())


def test_a_text_heartbeat_amid_a_fragmented_message() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def pieces() -> Any:
            yield "a"
            await go_on.wait()
            yield "b"

        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.01, ping_timeout=None, ping_payload=lambda: "beat")
        sending = asyncio.ensure_future(connection.send(pieces()))
        await until(lambda: len(frames(transport)) >= 3)
        go_on.set()
        await sending
        before = len(frames(transport))
        await until(lambda: len(frames(transport)) > before)
        firsts = [first for first, _ in frames(transport)]
        begin, end = firsts.index(0x01), firsts.index(0x80)
        assert TEXT not in firsts[begin:end]
        assert PING in firsts[begin:end]
        assert frames(transport)[-1] == (TEXT, b"beat")
        connection.connection_lost(None)

    run(main())


def too_long() -> bytes:
    return bytes(126)


def the_same() -> bytes:
    return b"same"


def fail() -> bytes:
    raise ValueError("on purpose")


def surrogate() -> str:
    return "\ud800"


@pytest.mark.parametrize("payload", [fail, too_long, surrogate, lambda: 1])
def test_a_payload_that_cannot_be_sent(payload: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    """It ends its connection, with a traceback; without a heartbeat nobody would notice that the peer is gone."""

    async def main() -> None:
        async with serving(echo, ping_interval=0.02, ping_timeout=0.02, ping_payload=payload) as server:
            async with peer_of(server) as peer:
                await peer.expect_close(1011)
                await peer.expect_eof()

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None


def test_a_payload_that_is_always_the_same() -> None:
    """Nothing forbids it when each has been answered, or given up."""

    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.005, ping_timeout=None, ping_payload=the_same)
        await until(lambda: len(frames(transport)) >= 5)
        assert set(frames(transport)) == {(PING, b"same")}
        connection.connection_lost(None)

    run(main())


def test_a_payload_that_a_ping_of_ours_has() -> None:
    async def main() -> None:
        transport = Blocked(room=2**20)
        connection = make(transport, ping_interval=0.01, ping_timeout=None, ping_payload=the_same)
        await connection.ping(b"same")
        await until(lambda: len(frames(transport)) >= 2 or connection.state.name != "OPEN")
        connection.connection_lost(None)

    run(main())
