"""Where connections of threads come to rarely: broken transports, loops of attempts, a poller that must go on."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from thr import (
    LIMIT,
    REQUEST,
    Peer,
    byte_server,
    finish,
    linked,
    ours,
    peer_of,
    raw,
    serving,
    start,
    thread,
    tls_contexts,
    until,
    uri_of,
)

from wsproto_fast import ConcurrencyError, ConnectionClosed, ConnectionClosedError, InvalidState, SendStatus
from wsproto_fast.events import Fragment
from wsproto_fast.observer import Observer
from wsproto_fast.threading import (
    Group,
    ServerConnection,
    Session,
    SessionState,
    _accepting,
    _poller,
    connect,
    reconnect,
    serve,
)
from wsproto_fast.threading._accepting import Acceptor, Newcomer
from wsproto_fast.threading._native import Wire
from wsproto_fast.threading._receiving import TURN

TEXT, BINARY, CLOSE = 0x81, 0x82, 0x88

# reconnect


def test_reconnect_as_a_block() -> None:
    with ours() as uri:
        again = reconnect(uri)
        with pytest.raises(InvalidState):
            again.__exit__(None, None, None)
        for _ in range(2):
            with again as connection:
                connection.send("x")
                assert connection.recv() == "x"
                with pytest.raises(RuntimeError, match="reentrant"):
                    again.__enter__()


def test_reconnect_as_a_loop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"ws://127.0.0.1:{free.getsockname()[1]}"
    delays: list[float] = []

    def few() -> Iterator[float]:
        for delay in (0.0, 0.0):
            delays.append(delay)
            yield delay

    with pytest.raises(OSError):
        for _ in reconnect(dead, reconnect_delays=few):
            pytest.fail("connected to nothing")
    assert len(delays) == 2
    with ours() as uri:
        seen = []
        for connection in reconnect(uri):
            connection.send("x")
            seen.append(connection.recv())
            if len(seen) == 3:
                break
        assert seen == ["x"] * 3


# The poller


class Watched:
    """Calls of the poller, each of which fails."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any) -> int:
            self.called.append(name)
            raise KeyError(name)

        return call


def test_one_failure_is_not_felt_by_others(caplog: pytest.LogCaptureFixture) -> None:
    poller = _poller.poller()
    watched: Any = Watched()
    with linked() as (connection, peer):
        poller.hold(watched)
        poller.attend(watched)
        poller.call_at(time.monotonic(), watched)
        until(lambda: {"_release", "_look", "_on_timer"} <= set(watched.called))
        peer.send(0x89, b"still there?")
        assert peer.frame() == (0x8A, b"still there?")
        assert connection.state.name == "OPEN"
    assert caplog.text.count("a connection failed") == 3


def test_deadlines_that_are_called_off_are_forgotten() -> None:
    poller = _poller.poller()
    watched: Any = Watched()
    with linked():
        entries = [poller.call_at(time.monotonic() + 1000, watched) for _ in range(200)]
        soon = poller.call_at(time.monotonic() + 0.01, watched)
        poller.cancel(soon)
        for entry in entries:
            poller.cancel(entry)
            poller.cancel(entry)
        until(lambda: len(poller._heap) < 150)
        due = poller.call_at(time.monotonic() + 0.01, watched)
        poller.cancel(due)
        until(lambda: due not in poller._heap)
        with linked(ping_interval=0.02, ping_timeout=None) as (_, peer):
            assert peer.frame()[0] == 0x89  # the heap still works
    assert watched.called == []


def test_a_child_of_fork_has_a_poller_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _poller.poller()
    monkeypatch.setattr(_poller, "_current", before)  # put back afterwards
    _poller._after_fork()
    assert _poller.poller() is not before
    assert _poller.poller()._thread is None


def test_a_wire_without_bytes() -> None:
    one, other = socket.socketpair()
    with one, other:
        wire = Wire(one)
        assert wire.receive(False) is None
        assert wire.receive_into(memoryview(bytearray(10)), False) == -1
        other.send(b"abc")
        buffer = bytearray(10)
        assert wire.receive_into(memoryview(buffer), False) == 3
        assert buffer[:3] == b"abc"


# Broken transports


def test_the_end_amid_a_large_message() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(b"\x82\x7f" + (2**20).to_bytes(8, "big") + bytes(2**18))
        assert reads.wait(LIMIT)

    reads = threading.Event()
    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        with thread(connection.recv) as outcome:
            until(lambda: connection._engine.reads_in_place() and connection._users)
            reads.set()
        assert isinstance(outcome[0], ConnectionClosedError)


@pytest.mark.parametrize("tls", [False, True])
def test_what_came_before_sending_failed_is_received(tls: bool) -> None:
    contexts = tls_contexts() if tls else None
    with linked(tls=contexts) as (connection, peer):
        connection.socket.shutdown(socket.SHUT_WR)
        with connection._lock:  # the poller does not take it
            peer.send(TEXT, b"last words")
            assert connection._wire.wait(False, 10)
        with pytest.raises(ConnectionClosed):
            while True:
                connection.send("x" * 1000)
        received = []
        with pytest.raises(ConnectionClosedError):
            while True:
                received.append(connection.recv())
        assert received == ["last words"] or tls


def test_sending_fails_while_another_thread_receives() -> None:
    with linked() as (connection, peer):
        with thread(connection.recv) as outcome:
            until(lambda: connection._users)
            connection.socket.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionClosed):
                connection.send("x")
            peer.sock.close()
        assert isinstance(outcome[0], ConnectionClosedError)


def test_a_reset_while_nobody_receives() -> None:
    with linked() as (connection, peer):
        connection.send("unread")
        peer.reset()
        with pytest.raises(ConnectionClosedError):
            while True:
                connection.send("x")
        with pytest.raises(ConnectionClosedError):
            connection.pong()
        connection._on_timer(time.monotonic())  # one that was on its way


class NoTLS:
    """Stands for a TLS connection that has broken."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, data: bytes) -> None:
        raise ssl.SSLError("broken")


def test_tls_that_cannot_be_written() -> None:
    with linked(tls=tls_contexts()) as (connection, _):
        connection._tls = NoTLS(connection._tls)
        with pytest.raises(ConnectionClosedError) as info:
            connection.send("x")
        assert isinstance(info.value.__cause__, ssl.SSLError)


# Messages in pieces


def test_a_message_whose_frames_were_asked_for() -> None:
    with linked() as (connection, peer):
        with connection._lock:
            connection._deliver("frame")
        peer.send_frames((0x01, b"a"), (0x00, b"b"), (0x80, b"c"), (TEXT, b"next"))
        until(lambda: len(connection._queue) == 4)
        assert isinstance(connection._queue[0], Fragment)
        assert connection.recv() == "abc"
        assert connection.recv() == "next"


def test_the_end_amid_a_message_that_is_sent_in_pieces() -> None:
    with linked() as (connection, peer):

        def pieces() -> Iterator[str]:
            yield "a"
            peer.send(CLOSE, b"\x03\xe8")
            assert connection.wait_closed(0) is False
            until(lambda: connection.close_code or not connection._engine.is_open)
            yield "b"

        with pytest.raises(ConnectionClosed):
            connection.send(pieces())


def test_text_that_cannot_be_sent_amid_a_message() -> None:
    with linked() as (connection, peer):
        with pytest.raises(UnicodeEncodeError):
            connection.send(["a", "\ud800"])
        assert peer.frame() == (0x01, b"a")
        peer.expect_close(1011)
        peer.sock.close()


def test_pieces_over_a_transport_that_fails() -> None:
    with linked() as (connection, _):

        def pieces() -> Iterator[str]:
            yield "a"
            connection.socket.shutdown(socket.SHUT_WR)
            yield "b"
            yield "c"

        with pytest.raises(ConnectionClosedError):
            connection.send(pieces())


def test_cork_within_cork_and_more_than_fits() -> None:
    with linked(small=True, write_limit=2**24) as (connection, peer):
        with connection.cork():
            with connection.cork():
                assert connection.try_send("a") is SendStatus.QUEUED
            assert connection.try_send("b") is SendStatus.QUEUED
            for _ in range(40):
                connection.try_send(bytes(60_000))
                connection.pong(b"x")
        assert peer.frame() == (TEXT, b"a")
        assert peer.frame() == (TEXT, b"b")
        sizes = [len(peer.frame()[1]) for _ in range(80)]
        assert sizes.count(60_000) == 40


# Callbacks, groups, sessions, servers


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_servers_callback_waits_while_its_replies_are_not_read(timeout: float | None) -> None:
    seen: list[int] = []

    def on_message(connection: Any, message: bytes) -> None:
        seen.append(len(message))
        connection.try_send(bytes(2_000_000), compress=False)

    def handler(connection: Any) -> None:
        connection.wait_closed(timeout)

    arguments: dict[str, Any] = {"on_message": on_message, "compression": None, "write_limit": 1000}
    with serving(handler, ping_interval=None, **arguments) as server, peer_of(server, small=True) as peer:
        peer.send_frames(*[(BINARY, b"x")] * 8)
        until(lambda: seen)
        for number in range(8):
            assert len(seen) <= number + 2
            assert peer.frame() == (BINARY, bytes(2_000_000))
        assert seen == [1] * 8


def test_a_callback_lets_others_have_their_turn() -> None:
    seen: list[int] = []
    size = TURN // 4  # inflated: all of them come in one read

    def handler(connection: Any) -> None:
        with connection.cork():
            for _ in range(20):
                connection.send("x" * size)
        connection.wait_closed()

    arguments: dict[str, Any] = {"max_size": None, "max_queue": None, "max_queue_bytes": None}
    with serving(handler) as server:
        with connect(uri_of(server), on_message=lambda _, message: seen.append(len(message)), **arguments):
            until(lambda: len(seen) == 20)
    assert seen == [size] * 20


def test_a_group_hears_of_the_end_from_who_closes() -> None:
    with linked() as (connection, peer):
        group = Group([connection])
        closing = start(connection.close)
        until(lambda: connection not in group)
        peer.expect_close(1000)
        peer.send(CLOSE, b"\x03\xe8")
        peer.sock.close()
        finish(closing)
        connection._leaving = (group,)  # as if the poller had not come to it
        connection._tell_groups()
        assert connection._leaving == ()


def test_two_threads_close_a_session() -> None:
    with serving() as server, Session(uri_of(server)) as session:
        session.wait_open(LIMIT)
        ends = [start(session.close) for _ in range(4)]
        for each in ends:
            finish(each)
        assert session.state is SessionState.CLOSED


def test_a_session_closed_from_its_own_thread() -> None:
    def on_state(session: Session, state: SessionState) -> None:
        if state is SessionState.OPEN:
            session.close()

    with serving() as server, Session(uri_of(server), on_state=on_state) as session:
        until(lambda: session.state is SessionState.CLOSED)


def test_an_observer_sees_the_end() -> None:
    told: list[str] = []

    class Teller(Observer):
        def connection_closed(self, connection: Any) -> None:
            told.append("closed")

    with linked(observer=Teller()) as (connection, peer):
        peer.sock.close()
        assert connection.wait_closed(LIMIT)
    assert told == ["closed"]


class Faulty(ServerConnection):
    """Fails when it opens."""

    def _open_after(self, *args: Any) -> None:
        raise KeyError("faulty")


def test_a_connection_class_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def never(server: Any) -> Any:
        raise KeyError("never")

    with serving(create_connection=Faulty) as server, raw(server) as peer:
        peer.sock.sendall(REQUEST + b"\r\n")
        with contextlib.suppress(EOFError):
            peer.head()
        until(lambda: "opening handshake failed" in caplog.text)
    with serving(create_connection=never) as server, raw(server) as peer:
        peer.expect_eof()
        caplog.clear()


def test_clients_that_end_tls_early() -> None:
    server_tls, client_tls = tls_contexts()
    with serving(ssl=server_tls) as server:
        for bytes_first in (b"", b"\x16\x03\x01"):
            with raw(server) as peer:
                peer.sock.sendall(bytes_first)
                peer.sock.shutdown(socket.SHUT_WR)
                while peer.sock.recv(1000):
                    pass  # an alert
        with raw(server) as peer:
            secured = client_tls.wrap_socket(peer.sock, server_hostname="localhost", suppress_ragged_eofs=True)
            with secured:
                secured.shutdown(socket.SHUT_WR)
                while secured.recv(1000):
                    pass  # TLS goes on, and ends
        with connect(uri_of(server).replace("ws://127.0.0.1", "wss://localhost"), ssl=client_tls) as connection:
            connection.send("x")
            assert connection.recv() == "x"


def test_receiving_twice_in_pieces() -> None:
    with linked() as (connection, peer):
        peer.send(0x01, b"a")
        pieces = connection.recv_streaming()
        assert next(pieces) == "a"
        with pytest.raises(ConcurrencyError):
            connection.recv()
        peer.send(0x80, b"b")
        assert list(pieces) == ["b"]


def test_a_refused_client_that_is_gone_at_once() -> None:
    gone = threading.Event()

    def process_request(connection: Any, request: Any) -> Any:
        assert gone.wait(LIMIT)
        return connection.respond(403, "no\n")

    with serving(process_request=process_request) as server:
        for _ in range(3):
            with raw(server) as peer:
                peer.sock.sendall(REQUEST + b"\r\n")
                peer.reset()
        gone.set()
        with peer_of_refused(server) as status:
            assert status == b"HTTP/1.1 403 Forbidden"


@contextlib.contextmanager
def peer_of_refused(server: Any) -> Iterator[bytes]:
    with raw(server) as peer:
        peer.sock.sendall(REQUEST + b"\r\n")
        yield peer.head().split(b"\r\n")[0]




def test_pieces_for_a_peer_that_does_not_read() -> None:
    with linked(small=True, write_limit=1000) as (connection, _):
        with pytest.raises(TimeoutError, match="waiting for the peer to read"):
            connection.send((bytes(50_000) for _ in range(100)), timeout=0.05)
        with pytest.raises(ConnectionClosed):
            connection.send("x")


def test_a_session_that_is_closed_before_its_first_attempt() -> None:
    session = Session("ws://localhost")
    session._closing = True
    assert isinstance(session._attempt(), ConnectionClosed)


def test_a_refusal_while_the_server_ends() -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def process_request(connection: Any, request: Any) -> Any:
        asked.set()
        assert goes_on.wait(LIMIT)
        return connection.respond(403, "no\n")

    server = serve(None, "127.0.0.1", 0, process_request=process_request, on_message=print)
    serving_ = start(server.serve_forever)
    with raw(server) as peer:
        peer.sock.sendall(REQUEST + b"\r\n")
        assert asked.wait(LIMIT)
        ending = start(server.shutdown)
        finish(serving_)
        goes_on.set()
        finish(ending)
        assert peer.head().startswith(b"HTTP/1.1 403 ")


# The acceptor, in parts that need a system out of order


class Half:
    """What an acceptor asks of its server."""

    def __init__(self) -> None:
        self.logger = None

    @property
    def _closing(self) -> bool:
        raise KeyError("closing")

    def _take_refused(self) -> list[Any]:
        return []


def test_a_refusal_that_does_not_fit() -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket() as listening:
        one.setblocking(False)
        newcomer = Newcomer(one, SimpleNamespace(_handshake=None), None, float("inf"))  # type: ignore[arg-type]
        newcomer.send(bytes(10_000_000))
        assert newcomer.events() == selectors.EVENT_READ | selectors.EVENT_WRITE
        newcomer.half_close()
        acceptor = Acceptor(Half(), listening, None)  # type: ignore[arg-type]
        acceptor._newcomers.add(newcomer)
        acceptor._selector.register(one, newcomer.events(), newcomer)
        received = 0
        while data := other.recv(2**20):
            received += len(data)
            acceptor._serve(newcomer, selectors.EVENT_WRITE)
        assert received == 10_000_000
        gone = socket.socket()
        gone.close()
        acceptor._linger(Newcomer(gone, None, None, 0.0))  # type: ignore[arg-type]
        assert acceptor._newcomers == {newcomer}
        doorbell, ring = socket.socketpair()
        with doorbell, ring, pytest.raises(KeyError, match="closing"):
            acceptor.run(doorbell)
        assert not acceptor._newcomers
        assert one.fileno() == listening.fileno() == -1


def test_many_clients_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_accepting, "_AT_ONCE", 1)
    with serving() as server, contextlib.ExitStack() as stack:
        for connection in [stack.enter_context(connect(uri_of(server))) for _ in range(5)]:
            connection.send("x")
            assert connection.recv() == "x"


def test_a_server_that_ends_while_it_cannot_accept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(socket.socket):
        def accept(self) -> Any:
            raise OSError("out of descriptors")

    monkeypatch.setattr(_accepting, "_PAUSE", 1000.0)
    with Failing() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with serving(host=None, port=None, sock=listening) as server, raw(server):
            until(lambda: "accepting failed" in caplog.text)
