"""How connections end in threads: the tables of ``cases.ends``, and who learns what of it when."""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import threading
import time
import tracemalloc
from typing import Any

import pytest
from cases.ends import CLOSES, ERRORS_OF_THE_PEER, FLOODS, HALVES, STALLED, WRONG_CLOSES, deflate
from helpers import SOON, encode_frame
from thr import (
    LIMIT,
    Peer,
    byte_server,
    echo,
    handed_over,
    narrow,
    pair,
    peer_of,
    port_of,
    serving,
    thread,
    tls_contexts,
    until,
    uri_of,
)

from wsproto_fast import Limits, State
from wsproto_fast.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    LocalProtocolError,
    PayloadTooBig,
    RemoteProtocolError,
)
from wsproto_fast.threading import ServerConnection, connect

#: In flight, and never read by anybody.
UNREAD = encode_frame(0x82, b"y" * 1000, mask=bytes(4)) * 2000
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def end_of(connection: Any) -> ConnectionClosed:
    """Receive all messages; what is raised in the end."""
    with pytest.raises(ConnectionClosed) as info:
        while True:
            connection.recv(LIMIT)
    return info.value


# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), CLOSES)
@pytest.mark.parametrize("who", ["client", "server"])
def test_codes(code: int, reason: str, who: str) -> None:
    seen: list[ConnectionClosed] = []

    def handler(connection: ServerConnection) -> None:
        if who == "server":
            connection.close(code, reason)
        seen.append(end_of(connection))

    with serving(handler) as server:
        connection = connect(uri_of(server))
        if who == "client":
            connection.close(code, reason)
        seen.append(end_of(connection))
        until(lambda: len(seen) == 2)
        assert (connection.close_code, connection.close_reason) == (code, reason)
    expected = ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError
    for exc in seen:
        assert type(exc) is expected
        assert exc.rcvd is not None
        assert exc.sent is not None
        assert [(close.code, close.reason) for close in (exc.rcvd, exc.sent)] == [(code, reason)] * 2
    assert sorted(exc.rcvd_then_sent is True for exc in seen) == [False, True]


@pytest.mark.parametrize(("code", "reason"), WRONG_CLOSES)
def test_codes_that_must_not_be_sent(code: int, reason: str) -> None:
    with pair() as connection:
        with pytest.raises(LocalProtocolError):
            connection.close(code, reason)
        assert connection.state is State.OPEN
        connection.send("x")
        assert connection.recv() == "x"


def test_attributes_before_and_after() -> None:
    with pair() as connection:
        assert (connection.close_code, connection.close_reason) == (None, None)
        assert connection.state is State.OPEN
        with thread(connection.wait_closed) as outcome:
            connection.close(1001, "bye")
            connection.close()
            assert connection.wait_closed()
        assert outcome == [True]
        assert connection.state is State.CLOSED
        assert (connection.close_code, connection.close_reason) == (1001, "bye")


# -- errors of the peer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("first", "payload", "code"), ERRORS_OF_THE_PEER)
def test_errors_of_the_peer(first: int, payload: bytes, code: int | None, waits: bool) -> None:
    """Noticed by a thread that receives, or by the poller."""
    with handed_over(max_size=1000, headers=DEFLATE, close_timeout=10) as (connection, peer):
        with thread(lambda: end_of(connection)) if waits else contextlib.nullcontext([]) as outcome:
            if waits:
                until(lambda: connection._reader)
            peer.send(0x81, b"fine")
            peer.send(first, payload)
            with contextlib.suppress(ConnectionError):
                peer.sock.sendall(UNREAD)
            head, answer = peer.frame()
            assert head == 0x88
            peer.sock.shutdown(socket.SHUT_WR)
            peer.rest()
        if not waits:
            assert connection.recv() == "fine"
            outcome.append(end_of(connection))
    (exc,) = outcome
    assert isinstance(exc, ConnectionClosedError)
    assert exc.sent is not None
    assert int.from_bytes(answer[:2], "big") == exc.sent.code
    assert exc.sent.code == code if code is not None else exc.sent.code in (1002, 1007)
    assert isinstance(exc.__cause__, PayloadTooBig if code == 1009 else RemoteProtocolError)


def test_unmasked_frame() -> None:
    with handed_over() as (connection, peer):
        peer.mask = None
        peer.send(0x81, b"fine?")
        peer.expect_close(1002)
        assert "masking" in str(end_of(connection).__cause__)


def test_masked_frame_of_a_server() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x81, b"fine")
        peer.mask = b"abcd"
        peer.send(0x81, b"masked")
        peer.expect_close(1002)

    with byte_server(talk) as uri, connect(uri) as connection:
        assert connection.recv() == "fine"
        assert isinstance(end_of(connection).__cause__, RemoteProtocolError)


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_half_open_in_the_middle_of_something(half: bytes) -> None:
    """Gone after ping_interval, ping_timeout and close_timeout together, by default 50 s."""
    with handed_over(ping_interval=0.1, ping_timeout=0.1, close_timeout=0.1) as (connection, peer):
        begin = time.monotonic()
        peer.sock.sendall(half)
        assert connection.wait_closed(LIMIT)
        assert 0.15 < time.monotonic() - begin < SOON
        assert connection.protocol.close_code == 1011


def test_eof_without_close() -> None:
    with handed_over() as (connection, peer):
        peer.send(0x81, b"last words")
        peer.sock.shutdown(socket.SHUT_WR)
        exc = end_of(connection)
        assert isinstance(exc, ConnectionClosedError)
        assert (exc.rcvd, exc.sent) == (None, None)
        assert str(exc) == "no close frame received or sent"
        assert connection.wait_closed(LIMIT)
        assert exc.__cause__ is None
        peer.rest()


@pytest.mark.parametrize("end", ["eof", "reset", "close"])
def test_messages_that_nobody_has_taken_at_the_end(end: str) -> None:
    with handed_over() as (connection, peer):
        for i in range(100):
            peer.send(0x81, b"%d" % i)
        until(lambda: connection._paused)
        if end == "reset":
            until(lambda: connection.stats.bytes_received >= 100 * 7)
            peer.reset()
        elif end == "eof":
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.send(0x88, b"\x03\xe8")
        received = []
        with pytest.raises(ConnectionClosed):
            while True:
                received.append(int(connection.recv(LIMIT)))
        assert received == list(range(100))


def test_a_reset_after_the_end_of_the_stream() -> None:
    """While much waits to be sent to a peer that only said that it sends no more."""
    with handed_over(small=True) as (connection, peer):
        while connection.try_send(b"x" * 100_000):
            pass
        peer.sock.shutdown(socket.SHUT_WR)
        until(lambda: connection._eof)
        peer.reset()
        assert connection.wait_closed(LIMIT)
        assert connection.close_code == 1006


def reply(connection: Any, message: str | bytes) -> None:
    """A callback's answer, for which there must be room: who does not read the replies is not read."""
    assert connection.try_send(message)


# -- floods ------------------------------------------------------------------------------------------------------------


def flood(peer: Peer, chunk: bytes, seconds: float, enough: Any = lambda: False) -> int:
    """Send the same for a while, reading nothing; returns how many bytes the other end took."""
    peer.sock.setblocking(False)
    end = time.monotonic() + seconds
    taken = position = 0
    while time.monotonic() < end and not enough():
        try:
            count = peer.sock.send(memoryview(chunk)[position:])
        except BlockingIOError:
            select.select([], [peer.sock], [], 0.002)
            continue
        except OSError:
            break
        taken += count
        position = (position + count) % len(chunk)
    return taken


@pytest.mark.parametrize(("first", "payload"), STALLED.values(), ids=STALLED)
def test_stalled_reader_costs_bounded_memory(first: int, payload: bytes) -> None:
    """The peer floods and never reads an answer."""
    connections: list[ServerConnection] = []

    def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            echo(connection)

    limits = Limits(max_control_rate=None, close_timeout=0.2)
    chunk = encode_frame(first, payload, mask=bytes(4)) * max(1, 65536 // (len(payload) + 6))
    with serving(handler, limits=limits) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with peer_of(server, DEFLATE, small=True) as peer:
            until(lambda: connections)
            (connection,) = connections

            def enough() -> bool:
                return connection._write_paused or (first == 0x89 and connection._unsent_size > 0)

            gc.collect()
            tracemalloc.start()
            try:
                taken = flood(peer, chunk, 20.0, enough)
                taken += flood(peer, chunk, 0.2)
                current, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert taken > 50_000
            assert current < 4 * 2**20, f"{current} bytes held"
            assert peak < 16 * 2**20, f"{peak} bytes held at the worst"
            assert connection._write_paused or first == 0x89  # of pongs, one waits
            peer.reset()


def test_received_messages_are_bounded_while_nobody_takes_them() -> None:
    with handed_over() as (connection, peer):
        flood(peer, encode_frame(0x81, b"x", mask=bytes(4)) * 9000, 0.2)
        assert len(connection._queue) == 16
        assert connection._engine.paused
        peer.reset()
    with handed_over() as (connection, peer):
        flood(peer, encode_frame(0x82, b"x" * 700_000, mask=bytes(4)), 0.2)
        assert 2 <= len(connection._queue) <= 4  # two of the largest are the limit
        peer.reset()


def test_bombs_that_nobody_takes() -> None:
    """Two of the largest messages are held; the other bombs stay as they came, whatever one read brought."""
    with handed_over(headers=DEFLATE) as (connection, peer):
        gc.collect()
        tracemalloc.start()
        try:
            peer.sock.sendall(encode_frame(0xC2, deflate(bytes(2**20)), mask=bytes(4)) * 256)
            peer.send(0x89, b"still there?")
            until(lambda: connection._paused)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(connection._queue) == 2
        assert peak < 8 * 2**20, f"{peak} bytes"
        peer.reset()


@pytest.mark.parametrize("how", ["handler", "callback"])
@pytest.mark.parametrize("what", FLOODS)
def test_one_busy_peer_does_not_starve_others(what: str, how: str) -> None:
    """A canary gets its replies while another client floods, which goes on until it has them."""
    options: dict[str, Any] = {}
    if how == "callback":
        options["on_message"] = reply
    limits = Limits(max_control_rate=None)
    with serving(None if how == "callback" else echo, limits=limits, **options) as server:
        with connect(uri_of(server), compression=None) as canary, peer_of(server, DEFLATE) as peer:
            over = threading.Event()

            def drain() -> None:
                while not over.is_set():
                    if select.select([peer.sock], [], [], 0.05)[0]:
                        try:
                            if not peer.sock.recv(2**20):
                                return
                        except BlockingIOError:
                            pass
                        except OSError:
                            return

            with thread(drain), thread(lambda: flood(peer, FLOODS[what], 60, over.is_set)):
                try:
                    for _ in range(30):
                        canary.send("x")
                        assert canary.recv(LIMIT) == "x"
                finally:
                    over.set()
            peer.reset()


# -- peers that do not answer, or do not read --------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_peer_that_never_answers_our_close(tls: bool) -> None:
    def deaf(peer: Peer) -> None:
        peer.expect_close(1000)
        with contextlib.suppress(OSError):
            peer.rest()

    server_tls, client_tls = tls_contexts() if tls else (None, None)
    with byte_server(deaf, wrap=server_tls) as uri:
        begin = time.monotonic()
        with connect(uri.replace("127.0.0.1", "localhost"), close_timeout=0.1, ssl=client_tls) as connection:
            pass
        assert 0.05 < time.monotonic() - begin < SOON
        assert connection.close_code == 1006
        with pytest.raises(ConnectionClosedError, match=r"sent 1000 \(OK\); no close frame received"):
            connection.send("x")


def test_server_that_leaves_tcp_open() -> None:
    def lazy(peer: Peer) -> None:
        peer.expect_close(1000)
        peer.send(0x88, b"\x03\xe8")
        peer.rest()

    with byte_server(lazy) as uri:
        begin = time.monotonic()
        with connect(uri, close_timeout=0.1) as connection:
            pass
        assert time.monotonic() - begin < SOON
        assert connection.close_code == 1000


@pytest.mark.parametrize("receives", [False, True])
def test_server_that_floods_instead_of_closing(receives: bool) -> None:
    """Our client ends all the same, in ``close_timeout`` from its own Close frame."""

    def never_stop(peer: Peer) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                peer.sock.sendall(encode_frame(0x82, b"x" * 10_000) * 10)

    with byte_server(never_stop) as uri:
        connection = connect(uri, close_timeout=0.2)
        connection.recv()
        begin = time.monotonic()
        with thread(lambda: end_of(connection)) if receives else contextlib.nullcontext():
            connection.close()
        assert 0.1 < time.monotonic() - begin < SOON
        assert connection.close_code == 1006


def test_half_closed_peer_that_does_not_read() -> None:
    """Its EOF must end the connection although our output can never be written."""
    with handed_over(small=True) as (connection, peer):
        with thread(lambda: [connection.send(b"x" * 100_000) for _ in range(1000)]) as outcome:
            until(lambda: connection._write_paused)
            peer.sock.shutdown(socket.SHUT_WR)
            assert connection.wait_closed(LIMIT)
        assert connection.close_code == 1006
        assert isinstance(outcome[0], ConnectionClosedError)


@pytest.mark.parametrize("mode", ["push", "echo", "callback", "nobody receives"])
def test_keepalive_drops_a_peer_that_does_not_read(mode: str) -> None:
    """Although it goes on sending as long as anything takes it."""
    connections: list[ServerConnection] = []

    def handler(connection: ServerConnection) -> None:
        connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            if mode == "push":
                while True:
                    connection.send(bytes(10_000))
            elif mode == "echo":
                echo(connection)
            elif mode == "nobody receives":
                while connection.try_send(bytes(10_000)):
                    pass
        connection.wait_closed()

    callback: dict[str, Any] = {}
    if mode == "callback":
        callback["on_message"] = reply
    options = {"ping_interval": 0.1, "ping_timeout": 0.1, "close_timeout": 60, "compression": None}
    with serving(handler, **options, **callback) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with peer_of(server, small=True) as peer:
            until(lambda: connections)
            flood(peer, encode_frame(0x82, bytes(10_000), mask=bytes(4)), 5.0, lambda: not server._alive)
            assert not server._alive


def test_keepalive_spares_the_peer_of_a_slow_program() -> None:
    def slow(connection: ServerConnection) -> None:
        for message in connection:
            time.sleep(0.002)
            connection.send(message)

    with pair(slow, server={"ping_interval": 0.05, "ping_timeout": 0.1}) as connection:
        with thread(lambda: [connection.send("x" * 5000) for _ in range(200)]):
            for _ in range(200):
                connection.recv(LIMIT)
        assert connection.state is State.OPEN


def test_keepalive_when_the_callback_is_slow() -> None:
    """It has the thread that all connections share; a handler's callback has its own."""

    def on_message(connection: ServerConnection, message: str | bytes) -> None:
        time.sleep(0.3)
        connection.send(message)

    options: dict[str, Any] = {"ping_interval": 0.05, "ping_timeout": 0.1, "on_message": on_message}
    with pair(None, server=options, ping_interval=0.05, ping_timeout=0.1) as connection:
        connection.send("x")
        assert connection.recv(LIMIT) == "x"


@pytest.mark.parametrize("what", ["send", "fragments"])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_waiting_senders_are_told_of_the_end(what: str, how: str) -> None:
    with handed_over(small=True) as (connection, peer):
        while connection.try_send(b"x" * 100_000):
            pass
        call = {"send": lambda: connection.send("more"), "fragments": lambda: connection.send(["a", "b"])}[what]
        with thread(call) as outcome:
            until(lambda: connection._users)
            assert not outcome
            begin = time.monotonic()
            if how == "reset":
                peer.reset()
            else:
                connection.close()
        assert time.monotonic() - begin < SOON
        assert isinstance(outcome[0], ConnectionClosedError)


@pytest.mark.parametrize("full", [False, True])
def test_nothing_can_be_sent_to_a_lost_peer(full: bool) -> None:
    """The peer is gone while its messages wait for a handler that only sends: each way to send says so, none grows."""
    with handed_over(small=True) as (connection, peer):
        for _ in range(100):
            peer.send(0x81, b"x")
        until(lambda: connection._paused)
        while full and connection.try_send(bytes(2**16)):
            pass
        peer.reset()
        assert connection.wait_closed(LIMIT)
        for use in (
            lambda: connection.send("x"),
            lambda: connection.send(["x", "y"]),
            lambda: connection.try_send("x"),
            lambda: connection.send_json("x"),
            connection.ping,
            connection.pong,
        ):
            with pytest.raises(ConnectionClosedError):
                use()
        assert connection.buffered_amount == 0
        assert [connection.recv() for _ in range(100)] == ["x"] * 100


def test_tls_backpressure() -> None:
    server_tls, client_tls = tls_contexts()
    go = threading.Event()

    def slow(connection: ServerConnection) -> None:
        go.wait(5)
        echo(connection)

    with serving(slow, ssl=server_tls) as server:
        uri = f"wss://localhost:{port_of(server)}/"
        with connect(uri, ssl=client_tls, compression=None) as connection:
            with thread(lambda: [connection.send(f"{i:05}" * 4000) for i in range(500)]):
                until(lambda: connection._write_paused)
                go.set()
                for i in range(500):
                    assert connection.recv(LIMIT) == f"{i:05}" * 4000


def test_tls_errors_end_within_the_close_timeout() -> None:
    """TLS has no half-close: the peer gets the Close frame and must go."""
    server_tls, client_tls = tls_contexts()
    from thr import MASK, REQUEST, raw

    with serving(ssl=server_tls, close_timeout=0.3) as server:
        for what in ("error", "eof of TLS", "eof of TCP", "close"):
            with raw(server) as tcp, client_tls.wrap_socket(tcp.sock, server_hostname="localhost") as sock:
                peer = Peer(sock, MASK)
                sock.sendall(REQUEST + b"\r\n")
                peer.head()
                peer.send(0x81, b"hello")
                assert peer.frame() == (0x81, b"hello")
                if what == "error":
                    peer.send(0x81, b"\xff")
                    peer.expect_close(1007)
                    with contextlib.suppress(OSError):
                        peer.rest()
                elif what == "eof of TLS":
                    with contextlib.suppress(OSError):
                        sock.unwrap()
                elif what == "close":
                    peer.send(0x88, b"\x03\xe8")
                    peer.expect_close(1000)
                if what == "eof of TCP":
                    sock.shutdown(socket.SHUT_RDWR)
                until(lambda: not server._alive, 3)


def test_a_large_message_to_a_client_with_little_room() -> None:
    """It goes out piece by piece, while the client sends one of the same size."""

    def talk(peer: Peer) -> None:
        peer.sock.sendall(encode_frame(0x82, bytes(3_000_000)))
        assert len(peer.frame()[1]) == 3_000_000
        peer.answer_close()

    with byte_server(talk, small=True) as uri:
        with connect("ws://localhost/", sock=narrow(uri), compression=None, max_size=None) as connection:
            with thread(lambda: connection.send(bytes(3_000_000))):
                assert len(connection.recv(LIMIT)) == 3_000_000
