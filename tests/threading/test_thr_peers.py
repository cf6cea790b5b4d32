"""Connections of the threading adapter: receiving, sending, control frames, and how they end."""

from __future__ import annotations

import _thread
import json
import logging
import signal
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from helpers import SOON, encode_frame
from thr import LARGE, LIMIT, SERVERS, blocked, fill, finish, linked, ours, start, tls_contexts, until

from wsproto_fast import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
    SendStatus,
)
from wsproto_fast.constants import State
from wsproto_fast.threading import ClientConnection, connect

TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
BYE = (CLOSE, b"\x03\xe8")

both = pytest.mark.parametrize("server", SERVERS)


# -- messages ----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_go_and_come(server: str, compression: Any) -> None:
    with SERVERS[server]() as uri, connect(uri, compression=compression, max_size=None) as connection:
        for message in ("", "hällo", b"", b"\x00\xff", "x" * 70_000, b"y" * 70_000):
            connection.send(message)
            assert connection.recv() == message
        for message in (bytearray(b"abc"), memoryview(b"abc")):
            connection.send(message)
            assert connection.recv() == b"abc"
        stats = connection.stats
        assert stats.messages_sent == stats.messages_received == 8
    assert (connection.close_code, connection.close_reason) == (1000, "")
    assert connection.state is State.CLOSED
    assert connection.socket.fileno() == -1


@both
def test_iteration_ends_with_a_normal_closure_and_raises_after_another(server: str) -> None:
    def two(connection: Any) -> None:
        connection.send("a")
        connection.send(b"b")
        if connection.request.path == "/error":
            connection.close(1011)

    with SERVERS[server](two) as uri:
        with connect(uri) as connection:
            assert list(connection) == ["a", b"b"]
            assert list(connection) == []
        with connect(uri + "error") as connection:
            messages = iter(connection)
            assert (next(messages), next(messages)) == ("a", b"b")
            with pytest.raises(ConnectionClosedError):
                next(messages)


def test_a_message_of_many_reads_and_many_messages_of_one() -> None:
    with linked(max_size=None) as (connection, peer):
        big = bytes(range(256)) * 2000
        sending = start(peer.send, BINARY, big)
        assert connection.recv() == big
        finish(sending)
        peer.send_frames(*[(TEXT, b"%d" % number) for number in range(2000)])
        assert [connection.recv() for _ in range(2000)] == [str(number) for number in range(2000)]


@pytest.mark.parametrize(
    ("first", "payload", "decode", "expected"),
    [
        (TEXT, "hä".encode(), None, "hä"),
        (TEXT, "hä".encode(), True, "hä"),
        (TEXT, "hä".encode(), False, "hä".encode()),
        (BINARY, "hä".encode(), None, "hä".encode()),
        (BINARY, "hä".encode(), False, "hä".encode()),
        (BINARY, "hä".encode(), True, "hä"),
    ],
)
def test_decode(first: int, payload: bytes, decode: bool | None, expected: str | bytes) -> None:
    with linked() as (connection, peer):
        peer.send_frames((first, payload), (first, payload))
        assert connection.recv(decode=decode) == expected
        assert list(connection.recv_streaming(decode)) == [expected]


@pytest.mark.parametrize("streaming", [False, True])
def test_decoding_what_is_no_text_ends_the_connection(streaming: bool) -> None:
    with linked() as (connection, peer):
        peer.send_frames((BINARY, b"a\xff"))
        with pytest.raises(ConnectionClosedError) as info:
            if streaming:
                list(connection.recv_streaming(True))
            else:
                connection.recv(decode=True)
        assert isinstance(info.value.__cause__, UnicodeDecodeError)
        peer.expect_close(1007)
        assert connection.close_code == 1006


def test_recv_with_a_timeout_loses_nothing() -> None:
    with linked() as (connection, peer):
        for timeout in (0, 0.01, -1):
            with pytest.raises(TimeoutError, match="timed out while waiting for a message"):
                connection.recv(timeout)
        peer.sock.sendall(encode_frame(TEXT, b"hello")[:4])
        with pytest.raises(TimeoutError):
            connection.recv(0.01)
        peer.sock.sendall(encode_frame(TEXT, b"hello")[4:])
        assert connection.recv(1e9) == "hello"  # more than poll() takes


def test_recv_with_timeout_0_takes_what_is_there() -> None:
    with linked() as (connection, peer):
        peer.send_frames((TEXT, b"a"), (TEXT, b"b"))
        assert connection.recv(LIMIT) == "a"
        assert connection.recv(0) == "b"


def test_one_thread_at_a_time_receives() -> None:
    with linked() as (connection, peer):
        receiving = start(connection.recv)
        until(lambda: connection._reader)
        with pytest.raises(ConcurrencyError, match="cannot call recv while another thread"):
            connection.recv()
        with pytest.raises(ConcurrencyError, match="cannot call recv_streaming while another thread"):
            next(connection.recv_streaming())
        peer.send_frames((TEXT, b"a"))
        assert finish(receiving) == "a"
        peer.send_frames((0x01, b"a"))
        pieces = connection.recv_streaming()
        assert next(pieces) == "a"
        with pytest.raises(ConcurrencyError):
            connection.recv()
        peer.send_frames((0x80, b"b"), (TEXT, b"c"))
        assert list(pieces) in (["b"], ["", "b"])
        assert connection.recv() == "c"


def test_recv_streaming_gives_frames_as_they_come() -> None:
    with linked() as (connection, peer):
        umlaut = "ä".encode()
        peer.send_frames((0x01, b"a" + umlaut[:1]))
        pieces = connection.recv_streaming()
        assert next(pieces) == "a"
        peer.send_frames((PING, b""), (0x00, umlaut[1:]))
        assert next(pieces) == "ä"
        peer.send_frames((0x80, b"end"), (TEXT, b"whole"), (0x02, b"1"), (0x80, b"2"), (TEXT, b"last"))
        assert "".join(pieces) == "end"  # type: ignore[arg-type]
        assert connection.recv() == "whole"
        assert b"".join(connection.recv_streaming()) == b"12"  # type: ignore[arg-type]
        assert connection.recv() == "last"
        assert peer.frame() == (PONG, b"")


def test_recv_streaming_takes_whole_messages_that_wait() -> None:
    with linked() as (connection, peer):
        peer.send_frames((TEXT, "hä".encode()), (BINARY, b"b"))
        until(lambda: len(connection._queue) == 2)
        assert list(connection.recv_streaming(False)) == ["hä".encode()]
        assert list(connection.recv_streaming()) == [b"b"]


def test_json() -> None:
    class Codec:
        """As orjson: its texts are bytes."""

        @staticmethod
        def dumps(data: Any) -> bytes:
            return json.dumps(data).encode()

        @staticmethod
        def loads(data: bytes) -> Any:
            assert isinstance(data, bytes)
            return json.loads(data)

    for codec in (json, Codec):
        with linked(json=codec) as (connection, peer):
            connection.send_json({"a": 1}, timeout=1)
            assert peer.frame() == (TEXT, b'{"a": 1}')
            peer.send_frames((TEXT, b"[1]"), (TEXT, b"no json"), (TEXT, b"2"))
            assert connection.recv_json() == [1]
            with pytest.raises(ValueError):
                connection.recv_json()
            assert connection.recv_json(LIMIT) == 2
            with pytest.raises(TimeoutError):
                connection.recv_json(0)


# -- sending -----------------------------------------------------------------------------------------------------------


def generator(*pieces: Any) -> Iterator[Any]:
    yield from pieces


@pytest.mark.parametrize(
    ("message", "text", "frames"),
    [
        ("hä", None, [(TEXT, "hä".encode())]),
        ("hä", True, [(TEXT, "hä".encode())]),
        ("hä", False, [(BINARY, "hä".encode())]),
        (b"h", None, [(BINARY, b"h")]),
        (b"h", False, [(BINARY, b"h")]),
        (b"h", True, [(TEXT, b"h")]),
        (bytearray(b"h"), True, [(TEXT, b"h")]),
        (memoryview(b"h"), None, [(BINARY, b"h")]),
        (["a", "b"], None, [(0x01, b"a"), (0x00, b"b"), (0x80, b"")]),
        (["a", "b"], False, [(0x02, b"a"), (0x00, b"b"), (0x80, b"")]),
        (generator(b"a", bytearray(b"b")), None, [(0x02, b"a"), (0x00, b"b"), (0x80, b"")]),
        (generator(b"a"), True, [(0x01, b"a"), (0x80, b"")]),
        ([], None, []),
    ],
)
def test_send(message: Any, text: bool | None, frames: list[tuple[int, bytes]]) -> None:
    with linked() as (connection, peer):
        connection.send(message, text=text)
        connection.pong(b"end")
        assert [peer.frame() for _ in frames] == frames
        assert peer.frame() == (PONG, b"end")
        assert connection.buffered_amount == 0


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"a": 1}, TypeError),
        (1, TypeError),
        (None, TypeError),
        ([1], TypeError),
        ("\ud800", UnicodeEncodeError),
        (["\ud800"], UnicodeEncodeError),
    ],
)
def test_what_cannot_be_sent_changes_nothing(message: Any, error: type[Exception]) -> None:
    with linked() as (connection, peer):
        with pytest.raises(error):
            connection.send(message)
        connection.send("next")
        assert peer.frame() == (TEXT, b"next")


@pytest.mark.parametrize(
    ("pieces", "error"), [(["a", b"b"], TypeError), (["a", 1], TypeError), (["a", "\ud800"], UnicodeEncodeError)]
)
def test_an_iterable_that_fails_ends_the_connection(pieces: list[Any], error: type[Exception]) -> None:
    with linked() as (connection, peer):
        with pytest.raises(error):
            connection.send(iter(pieces))
        assert peer.frame() == (0x01, b"a")
        assert peer.expect_close(1011) == "error in fragmented message"
        with pytest.raises(ConnectionClosedError):
            connection.send("next")


@both
def test_compress(server: str) -> None:
    sizes = []

    def measure(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    with SERVERS[server](measure) as uri, connect(uri) as connection:
        for compress in (None, True, False):
            before = connection.stats.bytes_sent
            connection.send("x" * 5000, compress=compress)
            connection.send(iter(["x" * 5000]), compress=compress)
            connection.try_send("x" * 5000, compress=compress)
            connection.send_json("x" * 5000, compress=compress)
            sizes.append(connection.stats.bytes_sent - before)
            for _ in range(4):
                connection.recv()
    assert sizes[0] < 1000
    assert sizes[1] < 1000
    assert sizes[2] > 20_000


def test_send_waits_for_a_peer_that_does_not_read() -> None:
    with linked(small=True, write_limit=(10_000, 5_000)) as (connection, peer):
        count = fill(connection)
        with pytest.raises(TimeoutError):
            connection.send("late", timeout=0.01)
        with pytest.raises(TimeoutError):
            connection.send(["late"], timeout=0.01)
        assert connection.buffered_amount > 10_000
        sending = start(connection.send, "last")
        until(blocked(connection))
        assert [peer.frame() for _ in range(count)] == [(BINARY, LARGE)] * count
        finish(sending)
        assert peer.frame() == (TEXT, b"last")
        assert connection.try_send(b"more") is SendStatus.SENT


def test_try_send_tells_where_the_message_is() -> None:
    with linked(small=True, write_limit=10_000) as (connection, peer):
        assert connection.try_send("a") is SendStatus.SENT
        seen = set()
        while (status := connection.try_send(b"x" * 9000, text=True)) is not SendStatus.FULL:
            seen.add(status)
        assert SendStatus.QUEUED in seen
        assert not status
        peer.reset()
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        with pytest.raises(ConnectionClosedError):
            connection.try_send("b")


def test_many_threads_send_at_once() -> None:
    with ours() as uri, connect(uri, write_limit=2000, max_queue=None) as connection:

        def run(name: int) -> None:
            for number in range(100):
                connection.send(f"{name} {number} " + "x" * 3000)

        sending = [start(run, name) for name in range(8)]
        seen: dict[str, list[int]] = {}
        for _ in range(800):
            name, number, _ = connection.recv(LIMIT, decode=True).split(" ")
            seen.setdefault(name, []).append(int(number))
        for future in sending:
            finish(future)
        assert seen == {str(name): list(range(100)) for name in range(8)}


def test_a_large_message_is_echoed_while_more_is_sent() -> None:
    """Neither side reads all before it writes: nobody may wait for the other for ever."""
    with ours(max_size=None, compression=None) as uri, connect(uri, max_size=None, compression=None) as connection:
        messages = [bytes([number]) * 3_000_000 for number in range(5)]
        sending = start(lambda: [connection.send(message) for message in messages])
        for message in messages:
            assert connection.recv(LIMIT) == message
        finish(sending)


# -- pings -------------------------------------------------------------------------------------------------------------


@both
def test_ping(server: str) -> None:
    with SERVERS[server]() as uri, connect(uri) as connection:
        assert connection.latency == 0.0
        assert connection.ping().wait(LIMIT)
        assert 0 < connection.latency < LIMIT
        receiving = start(connection.recv)
        until(lambda: connection._reader)
        assert connection.ping("data").wait(LIMIT)
        connection.send("a")
        assert finish(receiving) == "a"
        assert connection.stats.pongs_received == 2


def test_pings_and_pongs_by_hand() -> None:
    with linked() as (connection, peer):
        first, second, third = connection.ping(), connection.ping(b"2"), connection.ping("3")
        with pytest.raises(ConcurrencyError, match="already waiting for a pong with the same data"):
            connection.ping("2")
        with pytest.raises(ProtocolError):
            connection.ping(bytes(126))
        opcode, payload = peer.frame()
        assert opcode == PING
        assert len(payload) == 4
        assert [peer.frame(), peer.frame()] == [(PING, b"2"), (PING, b"3")]
        peer.send_frames((PONG, b"unasked for"), (PONG, b"2"))
        assert first.wait(LIMIT)
        assert second.wait(LIMIT)
        assert not third.is_set()
        connection.pong()
        connection.pong("x")
        assert [peer.frame(), peer.frame()] == [(PONG, b""), (PONG, b"x")]


def test_pings_at_the_end() -> None:
    with linked() as (connection, peer):
        told, untold = connection.ping(ack_on_close=True), connection.ping()
        peer.sock.close()
        assert told.wait(LIMIT)
        connection.close()
        assert not untold.is_set()
        for call in (connection.ping, connection.pong):
            with pytest.raises(ConnectionClosedError):
                call()


@pytest.mark.parametrize("waits", [False, True])
def test_pings_are_answered_while_nobody_receives(waits: bool) -> None:
    with linked() as (connection, peer):
        receiving = start(connection.recv) if waits else None
        until(lambda: bool(connection._reader) is waits)
        for number in range(3):
            began = monotonic()
            peer.send_frames((PING, b"%d" % number))
            assert peer.frame() == (PONG, b"%d" % number)
            assert monotonic() - began < SOON
        peer.send_frames((TEXT, b"a"), (PING, b""))
        assert (connection.recv() if receiving is None else finish(receiving)) == "a"
        assert peer.frame() == (PONG, b"")


def test_pings_are_answered_when_the_queue_is_full() -> None:
    with linked(max_queue=2) as (connection, peer):
        peer.send_frames(*[(TEXT, b"x")] * 5, (PING, b"1"))
        assert peer.frame() == (PONG, b"1")
        peer.send_frames((TEXT, b"y"))
        until(lambda: connection._paused)
        assert [connection.recv() for _ in range(6)] == ["x"] * 5 + ["y"]
        peer.send_frames((PING, b"2"))
        assert peer.frame() == (PONG, b"2")


def test_keepalive_ends_a_connection_whose_peer_is_silent() -> None:
    for waits in (False, True):
        with linked(ping_interval=0.05, ping_timeout=0.05, close_timeout=LIMIT) as (connection, peer):
            began = monotonic()
            if waits:
                with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
                    connection.recv()
            else:
                until(lambda: connection.state is State.CLOSED)
            assert monotonic() - began < LIMIT / 2
            assert peer.frame()[0] == PING
            assert connection.close_code == 1006


def test_keepalive_keeps_a_peer_that_answers_and_tells_latency() -> None:
    with ours() as uri, connect(uri, ping_interval=0.02, ping_timeout=1) as connection:
        until(lambda: connection.stats.pongs_received > 3)
        assert 0 < connection.latency < SOON
        assert connection.state is State.OPEN


def test_keepalive_ends_a_connection_when_neither_side_reads() -> None:
    with linked(small=True, ping_interval=0.05, ping_timeout=0.05, max_queue=1, write_limit=1000) as (connection, peer):
        fill(connection)
        peer.sock.settimeout(0.2)
        with pytest.raises(OSError):
            while True:
                peer.send_frames((BINARY, bytes(60_000)))
        sending = start(connection.send, "x")
        with pytest.raises(ConnectionClosedError):
            finish(sending)


# -- the end -----------------------------------------------------------------------------------------------------------


@both
def test_close_codes(server: str) -> None:
    seen = []

    def wait(connection: Any) -> None:
        with pytest.raises(Exception):  # noqa: B017 - of either library
            connection.recv()
        seen.append((connection.close_code, connection.close_reason))

    with SERVERS[server](wait) as uri:
        for code, reason in ((1000, ""), (1001, "away"), (3000, "ä" * 61), (1005, "")):
            connection = connect(uri)
            assert (connection.close_code, connection.close_reason) == (None, None)
            connection.close(code, reason)
            connection.close(1011)
            until(lambda code=code, reason=reason: seen[-1:] == [(code, reason)])
            assert connection.close_code == code
            with pytest.raises(ConnectionClosedOK if code < 2000 else ConnectionClosedError):
                connection.recv()


def test_leaving_a_with_statement() -> None:
    for error, code in ((None, 1000), (ZeroDivisionError, 1011)):
        with linked() as (connection, peer):
            closing = start(peer.expect_close, code)

            def leave(connection: ClientConnection = connection, error: Any = error) -> None:
                with connection:
                    if error is not None:
                        raise error

            leaving = start(leave)
            finish(closing)
            peer.send_frames((CLOSE, struct.pack("!H", code)))
            peer.sock.close()
            if error is None:
                finish(leaving)
            else:
                with pytest.raises(error):
                    finish(leaving)


@pytest.mark.parametrize(("code", "reason"), [(999, ""), (1006, ""), (1000, "x" * 124)])
def test_what_must_not_be_said_at_the_end(code: int, reason: str) -> None:
    with linked() as (connection, peer):
        with pytest.raises(ProtocolError):
            connection.close(code, reason)
        connection.send("next")
        assert peer.frame() == (TEXT, b"next")


@both
def test_close_ends_recv_and_send_of_other_threads(server: str) -> None:
    leave = threading.Event()

    def deaf(connection: Any) -> None:
        leave.wait(LIMIT)

    with SERVERS[server]() as uri:
        connection = connect(uri)
        receiving = start(connection.recv)
        until(blocked(connection))
        connection.close()
        with pytest.raises(ConnectionClosedOK):
            finish(receiving)
    with SERVERS[server](deaf, close_timeout=0.2) as uri:
        connection = connect(uri, close_timeout=0.2, compression=None)
        sending = start(lambda: [connection.send(bytes(100_000)) for _ in range(1000)])
        until(blocked(connection))
        began = monotonic()
        connection.close()
        assert monotonic() - began < SOON
        with pytest.raises(ConnectionClosedError):
            finish(sending)
        leave.set()


def test_close_takes_messages_until_the_peer_has_closed() -> None:
    """And keeps those that fit the queue."""
    with linked(max_queue=4) as (connection, peer):
        closing = start(connection.close)
        peer.expect_close(1000)
        for _ in range(20):
            peer.send_frames(*[(BINARY, bytes(10_000))] * 50)
        assert len(connection._queue) < 4 + 2**16 // 100
        peer.send_frames(BYE)
        peer.sock.close()
        finish(closing)
        assert len(connection._queue) < 30
        assert len(list(connection)) >= 4


def test_close_while_somebody_receives_with_a_timeout() -> None:
    with linked() as (connection, peer):
        receiving = start(connection.recv, 0.05)
        until(lambda: connection._reader)
        closing = start(connection.close)
        with pytest.raises(TimeoutError):
            finish(receiving)
        peer.expect_close(1000)
        peer.send_frames((TEXT, b"late"), BYE)
        peer.sock.close()
        finish(closing)
        assert connection.recv() == "late"


@pytest.mark.parametrize("receives", [False, True])
def test_close_amid_a_message_in_fragments(receives: bool) -> None:
    with linked() as (connection, peer):
        begun, go_on = threading.Event(), threading.Event()

        def pieces() -> Iterator[str]:
            yield "a"
            begun.set()
            go_on.wait(LIMIT)
            yield "b"

        sending = start(connection.send, pieces())
        assert begun.wait(LIMIT)
        receiving = start(connection.recv) if receives else None
        until(lambda: bool(connection._reader) is receives)
        closing = start(connection.close)
        peer.expect_close(1011)
        if receiving is not None:  # it need not wait for the peer
            with pytest.raises(ConnectionClosedError):
                finish(receiving)
        peer.send_frames((CLOSE, b"\x03\xf3"))
        peer.sock.close()
        finish(closing)
        go_on.set()
        with pytest.raises(ConnectionClosedError):
            finish(sending)


@pytest.mark.slow
def test_a_thousand_closes_with_unread_data() -> None:
    def flood(connection: Any) -> None:
        try:
            for _ in range(40):
                connection.send(bytes(1000))
            connection.recv()
        except ConnectionClosed:
            pass

    longest = 0.0
    with ours(flood, compression=None) as uri:
        for number in range(1000):
            connection = connect(uri, compression=None)
            receiving = start(lambda c=connection: [c.recv() for _ in range(1000)]) if number % 2 else None
            began = monotonic()
            connection.close()
            longest = max(longest, monotonic() - began)
            if receiving is not None:
                with pytest.raises(ConnectionClosed):
                    finish(receiving)
    assert longest < 1


def test_wait_closed() -> None:
    with linked() as (connection, peer):
        assert not connection.wait_closed(0)
        assert not connection.wait_closed(0.01)
        waiting = start(connection.wait_closed)
        peer.send_frames(BYE)
        peer.expect_close(1000)
        peer.sock.close()
        assert finish(waiting) is True
        assert connection.wait_closed()
        assert connection.socket.fileno() == -1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x00", 1002),  # an opcode that there is not
        (b"\xc1\x00", 1002),  # RSV1 without an extension
        (b"\x80\x00", 1002),  # a continuation of nothing
        (b"\x09\x00", 1002),  # a Ping in fragments
        (b"\x81\x80\x00\x00\x00\x00", 1002),  # a server that masks
        (encode_frame(CLOSE, b"\x03"), 1002),
        (encode_frame(CLOSE, b"\x03\xe7"), 1002),
        (encode_frame(TEXT, b"\xff"), 1007),
        (encode_frame(BINARY, bytes(200)), 1009),
    ],
)
def test_errors_of_the_peer(data: bytes, code: int) -> None:
    with linked(max_size=100) as (connection, peer):
        peer.send_frames((TEXT, b"before"))
        peer.sock.sendall(data)
        assert connection.recv() == "before"
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert info.value.sent is not None
        assert info.value.sent.code == code
        peer.expect_close(code)


def test_too_many_pings() -> None:
    from wsproto_fast.limits import Limits

    with linked(limits=Limits(max_control_rate=10)) as (connection, peer):
        receiving = start(connection.recv)
        until(lambda: connection._reader)
        peer.send_frames(*[(PING, b"")] * 100)
        with pytest.raises(ConnectionClosedError):
            finish(receiving)
        peer.expect_close(1008)


def test_a_peer_that_goes_away() -> None:
    with linked() as (connection, peer):
        peer.send_frames((TEXT, b"a"))
        until(lambda: connection._queue)
        peer.sock.close()
        assert connection.recv() == "a"
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert (info.value.code, info.value.__cause__) == (1006, None)
    with linked() as (connection, peer):
        peer.reset()
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert isinstance(info.value.__cause__, ConnectionResetError)


def test_a_connection_that_is_closing_lets_its_output_go_first() -> None:
    with linked(small=True, write_limit=100_000) as (connection, peer):
        count = fill(connection)
        closing = start(connection.close)
        for _ in range(count):
            assert peer.frame() == (BINARY, LARGE)
        assert peer.frame() == BYE
        peer.send_frames(BYE)
        peer.sock.close()
        finish(closing)
        assert connection.close_code == 1000


def test_a_peers_error_while_much_waits_to_be_written() -> None:
    with linked(small=True, write_limit=100_000) as (connection, peer):
        count = fill(connection)
        peer.sock.sendall(b"\x83\x00")
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        for _ in range(count):
            assert peer.frame() == (BINARY, LARGE)
        peer.expect_close(1002)
        peer.expect_eof()


@pytest.mark.parametrize("timeout", [None, LIMIT])
def test_an_interrupt_between_two_system_calls(timeout: float | None) -> None:
    """``recv`` looks up now and then. A signal that comes just then interrupts no call, and is noticed all the same."""
    with linked() as (connection, peer):

        def interrupt() -> None:
            until(lambda: connection._reader)
            _thread.interrupt_main()  # without a signal of the system's

        interrupting = start(interrupt)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            connection.recv(timeout)
        assert time.monotonic() - begun < SOON
        finish(interrupting)
        peer.send_frames((TEXT, b"a"))
        assert connection.recv() == "a"


def test_an_interrupt_in_recv_loses_nothing() -> None:
    with linked() as (connection, peer):
        main = threading.main_thread().ident
        assert main is not None

        def kill() -> None:
            until(lambda: connection._reader)
            signal.pthread_kill(main, signal.SIGINT)

        killing = start(kill)
        with pytest.raises(KeyboardInterrupt):
            connection.recv()
        finish(killing)
        peer.send_frames((TEXT, b"a"))
        assert connection.recv() == "a"
        connection.send("b")
        assert peer.frame() == (TEXT, b"b")


# -- on_message --------------------------------------------------------------------------------------------------------


@both
def test_messages_go_to_a_callback(server: str) -> None:
    seen: list[Any] = []
    done = threading.Event()

    def on_message(connection: Any, message: Any) -> None:
        seen.append((threading.current_thread().name, message))
        if len(seen) < 3:
            connection.send(message)
        else:
            done.set()

    with SERVERS[server]() as uri, connect(uri, on_message=on_message) as connection:
        with pytest.raises(ConcurrencyError, match="on_message"):
            connection.recv()
        with pytest.raises(ConcurrencyError, match="on_message"):
            next(connection.recv_streaming())
        connection.send("a")
        assert done.wait(LIMIT)
        assert connection.ping().wait(LIMIT)
    assert seen == [("wsproto_fast-poller", "a")] * 3


def test_a_callback_gets_messages_that_came_with_the_handshake() -> None:
    seen: list[Any] = []
    frames = encode_frame(TEXT, b"a") + encode_frame(BINARY, b"b")
    with linked(trailing=frames, on_message=lambda _, message: seen.append(message)):
        until(lambda: seen == ["a", b"b"])
    with linked(trailing=frames) as (connection, _):
        assert (connection.recv(), connection.recv()) == ("a", b"b")


def test_a_callback_gets_many_messages_and_the_last_ones() -> None:
    seen: list[Any] = []
    with linked(on_message=lambda _, message: seen.append(message), max_queue=1) as (connection, peer):
        peer.send_frames(*[(TEXT, b"x")] * 3000, BYE)
        peer.expect_close(1000)
        peer.sock.close()
        assert connection.wait_closed(LIMIT)
        assert seen == ["x"] * 3000


def test_a_callback_may_close_and_may_send_more_than_fits() -> None:
    def close(connection: Any, message: Any) -> None:
        connection.close(3000, message)
        assert not connection.wait_closed()
        with pytest.raises(ConnectionClosed):
            connection.ping()

    with linked(on_message=close) as (connection, peer):
        peer.send_frames((TEXT, b"bye"))
        assert peer.expect_close(3000) == "bye"
        peer.send_frames((CLOSE, b"\x0b\xb8"))
        peer.sock.close()
        assert connection.wait_closed(LIMIT)

    def flood(connection: Any, message: Any) -> None:
        for _ in range(100):
            connection.send(bytes(1000))

    with linked(on_message=flood, small=True, write_limit=1000) as (connection, peer):
        peer.send_frames((TEXT, b""))
        for _ in range(100):
            assert peer.frame() == (BINARY, bytes(1000))


@pytest.mark.parametrize("error", [ValueError, SystemExit, ConnectionClosedOK])
def test_an_exception_in_a_callback(error: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def on_message(connection: Any, message: Any) -> None:
        seen.append(message)
        raise error(None, None) if error is ConnectionClosedOK else error

    with linked() as (_other, other_peer), linked(on_message=on_message) as (_connection, peer):
        peer.send_frames((TEXT, b"a"), (TEXT, b"b"))
        peer.expect_close(1011)
        other_peer.send_frames((PING, b""))  # whose thread it shares
        assert other_peer.frame() == (PONG, b"")
    assert seen == ["a"]
    assert "connection handler failed" in caplog.text


def test_a_callback_of_a_connection_that_has_been_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def on_message(connection: Any, message: Any) -> None:
        connection.close()
        connection.send("late")

    with linked(on_message=on_message) as (_connection, peer):
        peer.send_frames((TEXT, b"a"))
        peer.expect_close(1000)
    assert "connection closed while its callback ran" in caplog.text


# -- TLS ---------------------------------------------------------------------------------------------------------------


@both
def test_tls_with_two_threads(server: str) -> None:
    server_tls, client_tls = tls_contexts()
    limits: dict[str, Any] = {"max_size": None, "compression": None}
    with SERVERS[server](ssl=server_tls, **limits) as uri, connect(uri, ssl=client_tls, **limits) as connection:
        messages = [bytes([number]) * number * 10_000 for number in range(60)]
        sending = start(lambda: [connection.send(message) for message in messages])
        for message in messages:
            assert connection.recv(LIMIT) == message
        finish(sending)
        assert connection.ping().wait(LIMIT)
    assert connection.close_code == 1000


def test_tls_to_a_peer_that_does_not_read() -> None:
    with linked(tls=tls_contexts(), write_limit=100_000) as (connection, peer):
        count = fill(connection)
        closing = start(connection.close)
        for _ in range(count):
            assert peer.frame() == (BINARY, LARGE)
        assert peer.frame() == BYE
        peer.send_frames(BYE)
        peer.sock.close()
        finish(closing)


def test_tls_that_the_peer_ends() -> None:
    """By a close_notify, after which it still reads."""
    with linked(tls=tls_contexts()) as (connection, peer):
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.send_frames((TEXT, b"a"))
        ending = start(peer.sock.unwrap)
        assert connection.recv() == "a"
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert info.value.code == 1006
        finish(ending).close()


def test_tls_that_we_end_first() -> None:
    with linked(tls=tls_contexts()) as (connection, peer):
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.send_frames((TEXT, b"\xff"))
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        peer.expect_close(1007)
        peer.expect_eof()
        peer.sock.unwrap().close()
        assert connection.wait_closed(LIMIT)


@pytest.mark.parametrize("receives", [False, True])
def test_what_is_no_tls(receives: bool) -> None:
    with linked(tls=tls_contexts()) as (connection, peer):
        with socket.socket(fileno=peer.sock.detach()) as sock:
            peer.sock = sock  # type: ignore[assignment]
            sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
            if receives:
                with pytest.raises(ConnectionClosedError) as info:
                    connection.recv()
                assert isinstance(info.value.__cause__, ssl.SSLError)
            else:
                assert connection.wait_closed(LIMIT)
            with linked() as (_other, other_peer):  # the thread that they share lives
                other_peer.send_frames((PING, b""))
                assert other_peer.frame() == (PONG, b"")


# -- what it is --------------------------------------------------------------------------------------------------------


@both
def test_attributes(server: str) -> None:
    with SERVERS[server](subprotocols=["chat"]) as uri:
        log = logging.getLogger("mine")
        with connect(uri, subprotocols=["chat"], logger=log) as connection, ours() as plain, connect(plain) as other:
            assert isinstance(connection.id, uuid.UUID)
            assert connection.id == connection.id != other.id
            assert connection.logger.logger is log
            assert connection.logger.extra == {"websocket": connection}
            assert connection.socket.fileno() == connection.socket.fileno() >= 0
            assert connection.local_address == connection.socket.getsockname()
            assert connection.remote_address == connection.socket.getpeername()
            assert (connection.subprotocol, other.subprotocol) == ("chat", None)
            assert connection.state is State.OPEN
            assert connection.request is not None
            assert connection.request.path == "/"
            assert connection.response is not None
            assert connection.response.status_code == 101


def test_a_connection_in_its_handshake() -> None:
    seen = []

    def process_request(connection: Any, request: Any) -> None:
        seen.append((connection.state, connection.subprotocol))

    with ours(process_request=process_request, subprotocols=["chat"]) as uri, connect(uri, subprotocols=["chat"]):
        assert seen == [(State.CONNECTING, None)]

