"""Connections in threads: who reads, what waits, how they end."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import Any

import pytest
from helpers import SOON
from thr import LIMIT, Peer, byte_server, echo, narrow, pair, peer_of, serving, thread, until, uri_of

from wsproto_fast import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, InvalidState, SendStatus, State
from wsproto_fast.exceptions import LocalProtocolError, PayloadTooBig
from wsproto_fast.threading import connect
from wsproto_fast.threading._poller import poller


def close(peer: Peer) -> None:
    """Answer the client's Close frame."""
    first, payload = peer.frame()
    while first != 0x88:
        first, payload = peer.frame()
    peer.send(0x88, payload)


def wait_eof(peer: Peer) -> None:
    """Answer nothing."""
    try:
        while peer.sock.recv(65536):
            pass
    except ConnectionError:
        pass


def poller_threads() -> int:
    return sum(other.name == "wsproto_fast-poller" for other in threading.enumerate())


# Receiving


def test_messages_come_back() -> None:
    with pair() as connection:
        connection.send("ä")
        connection.send(b"\x00")
        connection.send(bytearray(b"\x01"))
        connection.send(memoryview(b"\x02"))
        connection.send(b"text", text=True)
        connection.send("bytes", text=False)
        assert [connection.recv() for _ in range(6)] == ["ä", b"\x00", b"\x01", b"\x02", "text", b"bytes"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 8192, 65535, 65536, 1_000_000])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_any_size(size: int, compression: Any) -> None:
    data = os.urandom(size)
    with pair(compression=compression) as connection:
        for _ in range(3):
            connection.send(data)
            assert connection.recv() == data


def test_many_messages_of_one_read_are_taken_without_the_socket() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(b"".join(b"\x81\x03%03d" % number for number in range(500)))
        close(peer)

    with byte_server(talk) as uri, connect(uri) as connection:
        assert [connection.recv() for _ in range(500)] == [f"{number:03}" for number in range(500)]


def test_decode() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x81, "ä".encode())
        peer.send(0x82, "ö".encode())
        peer.send(0x82, b"\xff")
        peer.expect_close(1007)

    with byte_server(talk) as uri, connect(uri) as connection:
        assert connection.recv(decode=False) == "ä".encode()
        assert connection.recv(decode=True) == "ö"
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv(decode=True)
        assert isinstance(info.value.__cause__, UnicodeDecodeError)


def test_timeout_of_recv() -> None:
    with pair() as connection:
        start = time.monotonic()
        for timeout in (0.05, 0, -1):
            with pytest.raises(TimeoutError):
                connection.recv(timeout)
        assert 0.05 <= time.monotonic() - start < SOON
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0.25)  # longer than a thread is away at once
        connection.send("x")
        assert connection.recv(timeout=5) == "x"


def test_recv_without_timeout_takes_what_is_there() -> None:
    with pair() as connection:
        connection.send("x")
        until(lambda: connection._queue)  # the poller has read it
        assert connection.recv(0) == "x"


def test_second_receiver() -> None:
    with pair() as connection:
        with thread(connection.recv) as outcome:
            until(lambda: connection._reader)
            with pytest.raises(ConcurrencyError, match="cannot call recv while another thread"):
                connection.recv()
            with pytest.raises(ConcurrencyError, match="recv_json"):
                connection.recv_json()
            with pytest.raises(ConcurrencyError, match="recv_streaming"):
                list(connection.recv_streaming())
            connection.send("x")
        assert outcome == ["x"]


def test_iteration_ends_with_a_normal_closure() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x81, b"a")
        peer.send(0x81, b"b")
        peer.send(0x88, b"\x03\xe9bye")
        peer.expect_close(1001)

    with byte_server(talk) as uri, connect(uri) as connection:
        assert list(connection) == ["a", "b"]
        assert connection.wait_closed(LIMIT)
        assert (connection.close_code, connection.close_reason) == (1001, "bye")
        assert connection.state is State.CLOSED


def test_iteration_raises_any_other_end() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x81, b"a")

    with byte_server(talk) as uri, connect(uri) as connection:
        received = []
        with pytest.raises(ConnectionClosedError):
            for message in connection:
                received.append(message)
        assert received == ["a"]


def test_a_reset_is_the_cause() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with byte_server(talk) as uri, connect(uri) as connection:
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert isinstance(info.value.__cause__, ConnectionResetError)


def test_too_big() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x82, bytes(1001))
        peer.expect_close(1009)

    with byte_server(talk) as uri, connect(uri, max_size=1000) as connection:
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert isinstance(info.value.__cause__, PayloadTooBig)


def test_streaming() -> None:
    def talk(peer: Peer) -> None:
        until(lambda: opened and opened[0]._reader)
        for first, payload in ((0x01, b"a\xc3"), (0x00, b"\xa4"), (0x80, b"c"), (0x81, b"whole"), (0x82, b"d")):
            peer.send(first, payload)
        close(peer)

    opened: list[Any] = []
    with byte_server(talk) as uri, connect(uri) as connection:
        opened.append(connection)
        assert list(connection.recv_streaming()) == ["a", "ä", "c"]
        assert list(connection.recv_streaming(decode=False)) == [b"whole"]
        assert list(connection.recv_streaming(decode=True)) == ["d"]


def test_streaming_what_was_read_whole() -> None:
    with pair() as connection:
        connection.send("ä")
        until(lambda: connection._queue)
        assert list(connection.recv_streaming(decode=False)) == ["ä".encode()]
        connection.send(["a", "b"])
        assert "".join(connection.recv_streaming()) == "ab"


def test_streaming_given_up_at_its_beginning_and_in_its_middle() -> None:
    def talk(peer: Peer) -> None:
        go.wait(10)
        peer.send(0x01, b"a")
        peer.send(0x80, b"b")
        go_on.wait(10)
        for first, payload in ((0x01, b"c"), (0x80, b"d")):
            peer.send(first, payload)
        close(peer)

    go, go_on = threading.Event(), threading.Event()
    with byte_server(talk) as uri, connect(uri) as connection:
        with thread(lambda: next(connection.recv_streaming())) as outcome:
            until(lambda: connection._reader)
            go.set()
        assert outcome == ["a"]
        connection._streaming = False  # its generator is gone, but has left the rest
        assert connection.recv() == "b"
        go_on.set()
        pieces = connection.recv_streaming()
        assert next(pieces) == "c"
        pieces.close()
        with pytest.raises(ConcurrencyError):
            connection.recv()


def test_bad_text_of_a_stream() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x82, b"\xff")
        peer.expect_close(1007)

    with byte_server(talk) as uri, connect(uri) as connection:
        with pytest.raises(ConnectionClosedError):
            list(connection.recv_streaming(decode=True))


def test_json() -> None:
    with pair() as connection:
        connection.send_json({"a": [1, "ä"]})
        assert connection.recv_json() == {"a": [1, "ä"]}
        connection.send(b"[1]")
        assert connection.recv_json(timeout=5) == [1]
        connection.send("no JSON")
        with pytest.raises(ValueError):
            connection.recv_json()
        with pytest.raises(TimeoutError):
            connection.recv_json(0.01)


class Raw:
    """A codec that makes bytes."""

    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(data: Any) -> bytes:
        return json.dumps(data).encode()


def test_json_of_a_codec_that_makes_bytes() -> None:
    with pair(json=Raw) as connection:
        connection.send_json({"ä": 1})
        assert connection.recv_json() == {"ä": 1}
        connection.send("[1]")
        until(lambda: connection._queue)
        assert connection.recv() == "[1]"  # was read as bytes
        connection.send("x")
        assert connection.recv() == "x"
        connection.send(b"[2]")
        assert connection.recv_json() == [2]
        connection.send("[3]")
        assert list(connection.recv_streaming()) == ["[3]"]


# Nobody reads


def test_pings_are_answered_while_nobody_reads() -> None:
    with serving(lambda connection: connection.wait_closed()) as server, peer_of(server) as peer:
        start = time.monotonic()
        peer.send(0x89, b"1")
        assert peer.frame() == (0x8A, b"1")
        assert time.monotonic() - start < SOON


def test_the_queue_is_bounded_and_goes_on() -> None:
    def talk(peer: Peer) -> None:
        for number in range(2000):
            peer.send(0x82, bytes(1000) + b"%04d" % number)
        peer.send(0x89, b"")
        close(peer)

    with byte_server(talk) as uri, connect(uri, max_queue=4) as connection:
        until(lambda: connection._paused)
        assert len(connection._queue) == 4
        for number in range(2000):
            assert connection.recv()[-4:] == b"%04d" % number


def test_control_frames_behind_a_full_queue_are_answered() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(b"\x81\x01a" * 10 + b"\x89\x01p")
        assert peer.frame() == (0x8A, b"p")
        close(peer)

    with byte_server(talk) as uri, connect(uri, max_queue=2) as connection:
        until(lambda: connection._paused)
        assert [connection.recv() for _ in range(10)] == ["a"] * 10


def test_one_thread_for_all_and_none_when_they_are_gone() -> None:
    with serving() as server:
        connections = [connect(uri_of(server)) for _ in range(20)]
        for connection in connections:
            connection.send("x")
        for connection in connections:
            assert connection.recv() == "x"
        assert poller_threads() == 1
        for connection in connections:
            connection.close()
    until(lambda: poller_threads() == 0)
    with pair() as connection:  # and it comes back
        assert connection.ping().wait(LIMIT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_has_its_own(recwarn: Any) -> None:
    with serving() as server, connect(uri_of(server)) as connection:
        assert connection.ping().wait(LIMIT)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with connect(uri_of(server), close_timeout=2) as other:
                    if other.ping().wait(LIMIT):
                        status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


# Ping


def test_ping_and_latency() -> None:
    with pair() as connection:
        assert connection.latency == 0
        assert connection.ping().wait(LIMIT)
        assert 0 < connection.latency < SOON
        assert connection.ping("data").wait(LIMIT)
        connection.pong()
        connection.pong(b"x")
        assert connection.stats.pongs_received == 2


def test_an_equal_ping() -> None:
    def talk(peer: Peer) -> None:
        peer.frame()
        close(peer)

    with byte_server(talk) as uri, connect(uri) as connection:
        event = connection.ping(b"x")
        with pytest.raises(ConcurrencyError, match="same data"):
            connection.ping(b"x")
        told = connection.ping(ack_on_close=True)
        assert not told.is_set()
        connection.close()
        assert told.wait(LIMIT)
        assert not event.is_set()
        with pytest.raises(ConnectionClosedOK):
            connection.ping()
        with pytest.raises(ConnectionClosedOK):
            connection.pong()
        with pytest.raises(TypeError):
            connection.ping(1)  # type: ignore[arg-type]


def test_keepalive_ends_a_silent_peer() -> None:
    with byte_server(wait_eof) as uri:
        connection = connect(uri, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.1)
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            connection.recv()
        assert connection.wait_closed(LIMIT)


def test_keepalive_of_a_connection_that_nobody_uses() -> None:
    with byte_server(wait_eof) as uri:
        connection = connect(uri, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.1)
        assert connection.wait_closed(LIMIT)
    with pair(ping_interval=0.02, ping_timeout=1) as connection:
        until(lambda: connection.stats.pongs_received > 2)
        assert connection.latency > 0


def test_a_heartbeat_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def payload() -> str:
        raise RuntimeError("no heartbeat")

    with pair(ping_interval=0.02, ping_payload=payload) as connection:
        until(lambda: "no heartbeat" in caplog.text)
        connection.send("x")
        assert connection.recv() == "x"


# Sending


def test_send_fragments() -> None:
    with pair() as connection:
        connection.send(["a", "ä"])
        connection.send(iter([b"a", bytearray(b"b"), memoryview(b"c")]))
        connection.send([b"text"], text=True)
        connection.send(["bytes"], text=False)
        connection.send([])
        assert [connection.recv() for _ in range(4)] == ["aä", b"abc", "text", b"bytes"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({}, "data is a dict-like object"),
        (1, "data must be str, bytes, or iterable"),
        ([1], "iterable must contain bytes or str"),
    ],
)
def test_what_cannot_be_sent(message: Any, text: str) -> None:
    with pair() as connection:
        with pytest.raises(TypeError, match=text):
            connection.send(message)
        connection.send("x")
        assert connection.recv() == "x"


@pytest.mark.parametrize("message", ["\ud800", ["\ud800"]])
def test_lone_surrogates(message: Any) -> None:
    with pair() as connection:
        with pytest.raises(UnicodeEncodeError):
            connection.send(message)
        with pytest.raises(UnicodeEncodeError):
            connection.try_send("\ud800")
        connection.send("x")
        assert connection.recv() == "x"
        with pytest.raises(LocalProtocolError):
            connection.send(b"\xff", text=True)


def test_a_mixed_iterable_ends_the_connection() -> None:
    with pair() as connection:
        with pytest.raises(TypeError, match="uniform types"):
            connection.send(["a", b"b"])
        with pytest.raises(ConnectionClosedError) as info:
            connection.recv()
        assert info.value.sent is not None
        assert info.value.sent.code == 1011


def test_amid_a_fragmented_message() -> None:
    with pair() as connection:

        def chunks() -> Any:
            yield "a"
            go.wait(10)
            yield "b"

        go = threading.Event()
        with thread(lambda: connection.send(chunks())):
            until(lambda: connection._fragmenting)
            with pytest.raises(ConcurrencyError, match="cannot call send while another thread"):
                connection.send("x")
            with pytest.raises(ConcurrencyError):
                connection.send(["x"])
            assert connection.try_send("x") is SendStatus.FULL
            assert connection.ping().wait(LIMIT)
            go.set()
        assert connection.recv() == "ab"


def test_close_amid_a_fragmented_message() -> None:
    def chunks() -> Any:
        yield "a"
        connection.close()
        yield "b"

    with serving() as server:
        connection = connect(uri_of(server))
        with pytest.raises(ConnectionClosedError):
            connection.send(chunks())
        with pytest.raises(ConnectionClosedError, match="1011"):
            connection.recv()


def test_try_send() -> None:
    with pair() as connection:
        assert connection.try_send("x") is SendStatus.SENT
        assert connection.recv() == "x"
        with connection.cork():
            assert connection.try_send("y") is SendStatus.QUEUED
            assert connection.buffered_amount > 0
        assert connection.buffered_amount == 0
        assert connection.recv() == "y"
        with pytest.raises(TypeError):
            connection.try_send(["x"])  # type: ignore[arg-type]
    with pytest.raises(ConnectionClosedOK):
        connection.try_send("x")
    assert connection.buffered_amount == 0


def test_cork_is_no_limit() -> None:
    with pair(compression=None) as connection, connection.cork():
        for _ in range(3):
            connection.send(bytes(30_000))
        assert connection.recv() == bytes(30_000)


class Deaf:
    """A server that reads when it is told to, up to a Close frame."""

    def __init__(self) -> None:
        self.listen = threading.Event()

    def talk(self, peer: Peer) -> None:
        self.listen.wait(10)
        last = peer.data
        while last[:2] != b"\x88\x82":  # to parse megabytes would take too long
            last = (last + peer.sock.recv(65536))[-8:]
        peer.send(0x88, b"\x03\xe8")


def fill(connection: Any) -> None:
    """Send until the peer's and our own buffers are full."""
    full = 0
    while full < 60:  # the system takes a little more in the end
        if connection.try_send(bytes(300_000)) is SendStatus.FULL:
            full += 1
            time.sleep(0.005)
        else:
            full = 0


def test_a_peer_that_does_not_read() -> None:
    deaf = Deaf()
    with byte_server(deaf.talk, small=True) as uri, connect(uri, sock=narrow(uri), compression=None) as connection:
        fill(connection)
        assert connection.buffered_amount > 2**16
        start = time.monotonic()
        sent = connection.stats.messages_sent
        for message in ("x", ["x"]):
            with pytest.raises(TimeoutError):
                connection.send(message, timeout=0.15)
        assert 0.3 <= time.monotonic() - start < SOON
        assert connection.stats.messages_sent == sent
        with thread(lambda: connection.send("last")) as outcome:
            deaf.listen.set()
        assert outcome == [None]
        assert connection.stats.messages_sent == sent + 1
        until(lambda: connection.buffered_amount == 0)


def test_a_large_message_waits_for_the_peer() -> None:
    deaf = Deaf()
    with byte_server(deaf.talk, small=True) as uri, connect(uri, sock=narrow(uri), compression=None) as connection:
        connection.send(bytes(20_000_000), timeout=0.05)  # its time is up, but it was taken
        assert connection.buffered_amount > 0
        deaf.listen.set()
        until(lambda: connection.buffered_amount == 0)
        connection.send(bytes(20_000_000))
        assert connection.buffered_amount <= 2**16


def test_close_unblocks_a_sender() -> None:
    def talk(peer: Peer) -> None:
        over.wait(10)

    over = threading.Event()
    with byte_server(talk, small=True) as uri:
        connection = connect(uri, sock=narrow(uri), compression=None, close_timeout=0.5)
        fill(connection)
        with thread(lambda: connection.send("x")) as outcome:
            with thread(lambda: connection.close()):
                until(lambda: outcome, 2)
                assert isinstance(outcome[0], ConnectionClosedError)
        assert connection.state is State.CLOSED
        over.set()


def test_keepalive_ends_a_peer_that_does_not_read() -> None:
    def talk(peer: Peer) -> None:
        over.wait(10)

    over = threading.Event()
    with byte_server(talk, small=True) as uri:
        connection = connect(uri, sock=narrow(uri), compression=None, ping_interval=0.05, ping_timeout=0.1)
        with pytest.raises(ConnectionClosedError):
            fill(connection)
            connection.send("x")
        assert connection.wait_closed(LIMIT)
        over.set()


def test_sending_to_a_peer_that_is_gone() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x81, b"last words")
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with byte_server(talk) as uri:
        connection = connect(uri)
        with pytest.raises(ConnectionClosedError):
            while True:
                connection.send("x")
        with pytest.raises(ConnectionClosedError):
            while True:
                connection.recv()


def test_threads_may_send_at_once() -> None:
    def sender(number: int) -> None:
        for index in range(200):
            connection.send(f"{number} {index}" + "." * (index * 37 % 5000))

    with pair() as connection:
        threads = [threading.Thread(target=sender, args=(number,), daemon=True) for number in range(4)]
        for each in threads:
            each.start()
        last = dict.fromkeys("0123", -1)
        for _ in range(800):
            number, index = connection.recv().rstrip(".").split()
            assert last[number] + 1 == int(index)
            last[number] = int(index)
        for each in threads:
            each.join()


# The end


def test_close_from_another_thread() -> None:
    with pair() as connection:
        with thread(connection.recv) as outcome:
            until(lambda: connection._reader)
            start = time.monotonic()
            connection.close()
        assert time.monotonic() - start < SOON
        assert isinstance(outcome[0], ConnectionClosedOK)


def test_close_when_the_peer_does_not_answer() -> None:
    with byte_server(wait_eof) as uri:
        connection = connect(uri, close_timeout=1.5)
        with thread(connection.recv) as outcome:
            until(lambda: connection._reader)
            start = time.monotonic()
            connection.close(1001, "bye")
            assert 1.4 < time.monotonic() - start < SOON
        assert isinstance(outcome[0], ConnectionClosedError)
        assert connection.close_code == 1006


def test_close_with_messages_that_nobody_takes() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(b"\x82\x7e\x03\xe8" * 1 + bytes(1000) + b"\x81\x01a" * 20_000)
        close(peer)

    with byte_server(talk) as uri:
        connection = connect(uri)
        until(lambda: connection._paused)
        start = time.monotonic()
        connection.close()
        assert time.monotonic() - start < SOON
        received = []
        with pytest.raises(ConnectionClosedOK):
            while True:
                received.append(connection.recv())
        assert received == [bytes(1000)] + ["a"] * (len(received) - 1)


def test_close_again_and_misuse() -> None:
    with pair() as connection:
        with pytest.raises(LocalProtocolError):
            connection.close(1006)
        with pytest.raises(LocalProtocolError):
            connection.close(1000, "x" * 124)
        assert not connection.wait_closed(0)
        connection.close()
        connection.close(1001)
        assert connection.close_code == 1000
        assert connection.wait_closed()
        with pytest.raises(ConnectionClosedOK):
            connection.recv()
        with pytest.raises(ConnectionClosedOK):
            connection.recv_json()
        with pytest.raises(ConnectionClosedOK):
            list(connection.recv_streaming())
        with pytest.raises(ConnectionClosedOK):
            connection.send("x")
        with pytest.raises(ConnectionClosedOK):
            connection.send(["x"])


def test_an_exception_closes_with_1011() -> None:
    with serving(lambda connection: codes.append(connection.recv)) as server:
        codes: list[Any] = []
        with pytest.raises(RuntimeError), connect(uri_of(server)) as connection:
            raise RuntimeError
        assert connection.protocol.close_sent is not None
        assert connection.protocol.close_sent.code in (1011, 1000)


def test_what_it_tells() -> None:
    with pair(subprotocols=["chat"], server={"subprotocols": ["chat"]}) as connection:
        assert connection.state is State.OPEN
        assert connection.subprotocol == "chat"
        assert connection.id == connection.id
        assert connection.close_code is None
        assert connection.close_reason is None
        assert connection.local_address[0] == "127.0.0.1"
        assert connection.remote_address == connection.socket.getpeername()
        assert connection.request is not None
        assert connection.response is not None
        assert connection.response.status_code == 101
        assert connection.logger.extra == {"websocket": connection}
        assert connection.protocol.stats == connection.stats
    assert connection.remote_address[0] == "127.0.0.1"


def test_descriptors_are_closed() -> None:
    with serving() as server:
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        for _ in range(10):
            with connect(uri_of(server)) as connection:
                connection.send("x")
                connection.recv()
                time.sleep(0.11)  # the poller watches it
        until(lambda: connection.socket.fileno() == -1)
        if before:
            until(lambda: len(os.listdir("/proc/self/fd")) <= before + 4)  # the poller's own


# Callbacks and observers


def test_on_message_of_a_client() -> None:
    received: list[Any] = []
    over = threading.Event()

    def on_message(connection: Any, message: Any) -> None:
        received.append((poller().is_here(), message))
        if len(received) == 300:
            over.set()

    with serving() as server, connect(uri_of(server), on_message=on_message) as connection:
        for number in range(300):
            connection.send(str(number))
        assert over.wait(LIMIT)
        assert received == [(True, str(number)) for number in range(300)]
        for method in (connection.recv, connection.recv_json, lambda: list(connection.recv_streaming())):
            with pytest.raises(ConcurrencyError, match="on_message"):
                method()


def test_on_message_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def on_message(connection: Any, message: Any) -> None:
        raise RuntimeError("callback")

    with serving() as server:
        connection = connect(uri_of(server), on_message=on_message)
        connection.send("x")
        assert connection.wait_closed(LIMIT)
        assert connection.protocol.close_sent is not None
        assert connection.protocol.close_sent.code == 1011
    assert "callback" in caplog.text


def test_on_message_that_closes() -> None:
    with serving() as server:
        connection = connect(uri_of(server), on_message=lambda connection, _: connection.close())
        connection.send("x")
        assert connection.wait_closed(LIMIT)
        assert connection.close_code == 1000


def test_on_message_does_not_read_for_a_peer_that_does_not_read() -> None:
    count = 0

    def on_message(connection: Any, message: Any) -> None:
        nonlocal count
        count += 1
        connection.try_send(bytes(20_000))

    def talk(peer: Peer) -> None:
        for _ in range(1000):
            peer.send(0x81, b"x")
        go.wait(10)
        close(peer)

    go = threading.Event()
    arguments: dict[str, Any] = {"compression": None, "on_message": on_message}
    with byte_server(talk, small=True) as uri, connect(uri, sock=narrow(uri), **arguments) as connection:
        until(lambda: connection._write_paused)
        assert count < 1000
        assert connection.buffered_amount < 200_000
        go.set()
        until(lambda: count == 1000)


class Told:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        def tell(connection: Any, *arguments: Any) -> None:
            if name == "connection_opened":
                raise RuntimeError("observer")
            self.told.append((name, *arguments))

        return tell


def test_observer(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with pair(observer=told) as connection:
        connection.send("x")
        assert connection.recv() == "x"
        connection.send([b"a"])
        assert list(connection.recv_streaming()) in ([b"a"], [b"a", b""])
        assert connection.ping().wait(LIMIT)
    assert ("message_sent", "x") in told.told
    assert ("message_received", "x") in told.told
    assert ("pong_received", connection.latency) in told.told
    assert told.told[-1] == ("connection_closed",)
    assert "observer failed" in caplog.text


def test_an_observer_must_not_use_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Caller:
        def message_received(self, connection: Any, data: Any) -> None:
            connection.send("again")

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    with pair(observer=Caller()) as connection:
        connection.send("x")
        assert connection.recv() == "x"
    assert "an observer, or a signal handler, must not use" in caplog.text


def test_observer_of_pauses() -> None:
    told = Told()
    deaf = Deaf()

    def talk(peer: Peer) -> None:
        peer.sock.sendall(b"\x81\x01a" * 100)
        deaf.talk(peer)

    arguments: dict[str, Any] = {"compression": None, "observer": told}
    with byte_server(talk, small=True) as uri, connect(uri, sock=narrow(uri), **arguments) as connection:
        until(lambda: ("reading_paused",) in told.told)
        fill(connection)
        assert ("writing_paused",) in told.told
        deaf.listen.set()
        until(lambda: ("writing_resumed",) in told.told)
        for _ in range(100):
            connection.recv()
        assert ("reading_resumed",) in told.told


def test_before_it_is_open() -> None:
    seen: list[Any] = []

    def process_request(connection: Any, request: Any) -> None:
        assert connection.state is State.CONNECTING
        for use in (
            lambda: connection.recv(),
            lambda: connection.recv_json(),
            lambda: list(connection.recv_streaming()),
            lambda: connection.send("x"),
            lambda: connection.try_send("x"),
            lambda: connection.ping(),
            lambda: connection.pong(),
            lambda: connection.close(),
            lambda: connection.stats,
        ):
            with pytest.raises(InvalidState):
                use()
            seen.append(use)
        assert connection.subprotocol is None
        assert connection.buffered_amount == 0

    with pair(echo, server={"process_request": process_request}) as connection:
        connection.send("x")
        assert connection.recv() == "x"
    assert len(seen) == 9


def test_the_end_comes_while_a_thread_reads_a_large_message_in_place() -> None:
    done = threading.Event()

    def talk(peer: Peer) -> None:
        peer.sock.sendall(b"\x82\x7f" + (2**20).to_bytes(8, "big") + bytes(2**18))
        done.wait(10)

    with byte_server(talk) as uri:
        connection = connect(uri, compression=None, close_timeout=0.05)
        with thread(lambda: connection.recv(timeout=10)) as outcome:
            until(lambda: connection._engine.reads_in_place())
            connection.close()
        done.set()
    assert isinstance(outcome[0], ConnectionClosedError)
