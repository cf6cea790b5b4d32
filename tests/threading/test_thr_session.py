"""Session in threads: what it does over reconnects. The rules that both adapters share have their tests elsewhere
(test_reconnecting.py, test_outbox.py); these are about who waits for what, in which thread."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import SOON
from thr import LIMIT, Peer, answer, echo, serving, thread, until, uri_of

from wsproto_fast import (
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    InvalidStatus,
    InvalidURI,
    LocalProtocolError,
    SendStatus,
    State,
)
from wsproto_fast.threading import Session, SessionState

CONNECTING, OPEN, WAITING, CLOSED = SessionState

Script = Callable[[Peer], object]


def at_once() -> Iterator[float]:
    return itertools.repeat(0.0)


def session_of(uri: Any, **kwargs: Any) -> Session:
    """A session that does not wait between attempts."""
    return Session(uri, **{"reconnect_delays": at_once, **kwargs})


@contextlib.contextmanager
def scripted(*scripts: Script | bytes) -> Iterator[str]:
    """A server whose first connection is the first script's, and so on. ``bytes``: an answer instead of a handshake.

    Connections are closed when their script is done. All scripts must be played; connections after them are refused.
    """
    left = list(scripts)
    errors: list[BaseException] = []

    def play(sock: socket.socket) -> None:
        with sock:
            peer = Peer(sock, None)
            try:
                head = peer.head()
                script = left.pop(0) if left else status(503)
                if isinstance(script, bytes):
                    sock.sendall(script)
                else:
                    sock.sendall(answer(head))
                    script(peer)
            except BaseException as exc:
                errors.append(exc)

    def accept() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            play(sock)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        with thread(accept):
            try:
                yield f"ws://127.0.0.1:{listening.getsockname()[1]}/"
            finally:
                listening.shutdown(socket.SHUT_RDWR)
    assert not errors, errors
    assert not left


def status(code: int) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % code


def say(*messages: str, close: int | None = None) -> Script:
    """Send messages; then a Close frame, or the end of the stream."""

    def script(peer: Peer) -> None:
        for message in messages:
            peer.send(0x81, message.encode())
        if close is not None:
            peer.send(0x88, struct.pack("!H", close))
            peer.expect_close(close)

    return script


def hear(heard: list[str], count: int | None = None) -> Script:
    """Note messages until there are ``count`` of them, or until the Close frame, which is answered."""

    def script(peer: Peer) -> None:
        for _ in itertools.count() if count is None else range(count):
            first, payload = peer.frame()
            if first == 0x88:
                heard.append(f"close {int.from_bytes(payload[:2], 'big')}")
                peer.send(0x88, payload)
                return
            heard.append(payload.decode())

    return script


def reset(peer: Peer) -> None:
    """End the connection with a TCP RST."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Reconnecting


@pytest.mark.parametrize("end", [say("a", close=1000), say("a", close=1012), say("a")])
def test_it_connects_again_however_a_connection_ended(end: Script) -> None:
    heard: list[str] = []
    with scripted(end, end, lambda peer: [say("b")(peer), hear(heard)(peer)]) as uri:
        with session_of(uri) as session:
            assert [session.recv() for _ in range(3)] == ["a", "a", "b"]
    assert heard == ["close 1000"]


def test_a_reset_and_a_closed_port() -> None:
    with scripted(reset, say("a")) as uri, session_of([f"ws://127.0.0.1:{free_port()}", uri]) as session:
        assert session.recv(timeout=LIMIT) == "a"


def test_iteration_ends_when_the_session_is_closed() -> None:
    with serving() as server, session_of(uri_of(server)) as session:
        session.send("x")
        with thread(lambda: list(session)) as outcome:
            until(lambda: session.pending == 0 and session.state is OPEN)
            until(lambda: session.connection is not None and session.connection.stats.messages_received)
            session.close()
        assert outcome == [["x"]]


def test_messages_of_a_connection_that_broke_come_before_those_of_the_next() -> None:
    with scripted(say("1", "2", "3"), say("4")) as uri:
        with session_of(uri) as session:
            assert session.recv() == "1"
            until(lambda: session.attempts or session.state is not OPEN)
            assert [session.recv() for _ in range(3)] == ["2", "3", "4"]


def test_decode_and_json() -> None:
    with serving() as server, session_of(uri_of(server), json=json) as session:
        session.send_json({"a": 1})
        assert session.recv_json() == {"a": 1}
        session.send("text")
        assert session.recv(decode=False) == b"text"
        session.send(b"bytes")
        assert session.recv(decode=True) == "bytes"
        session.send(b"\xff")
        with pytest.raises(UnicodeDecodeError):
            session.recv(decode=True)


def test_decode_and_json_of_what_was_kept() -> None:
    with scripted(say("1", '{"a": 2}', "three", "four")) as uri:
        with session_of(uri) as session:
            assert session.recv() == "1"
            until(lambda: session._inbox)
            assert session.recv_json() == {"a": 2}
            assert session.recv(decode=False) == b"three"
            assert session.recv() == "four"


def test_callback() -> None:
    received: list[str] = []
    done = threading.Event()

    def on_message(connection: Any, message: str) -> None:
        received.append(message)
        if len(received) == 2:
            done.set()

    with scripted(say("a"), say("b")) as uri:
        with session_of(uri, on_message=on_message):
            assert done.wait(LIMIT)
    assert received == ["a", "b"]


# on_open


def test_on_open_comes_before_everything() -> None:
    heard: list[str] = []

    def on_open(connection: Any) -> None:
        assert connection.state is State.OPEN
        assert session.connection is None
        connection.send("subscribe")
        assert connection.recv() == "welcome"

    def script(peer: Peer) -> None:
        hear(heard, 1)(peer)
        say("welcome", "news")(peer)
        hear(heard, 1)(peer)

    with scripted(script) as uri:
        session = session_of(uri, on_open=on_open)
        with session:
            session.send("kept")
            assert session.recv() == "news"
    assert heard == ["subscribe", "kept"]


def test_on_open_may_fail_like_an_attempt() -> None:
    def on_open(connection: Any) -> None:
        if connection.request.path == "/":
            raise OSError("not today")

    heard: list[str] = []
    paths = iter(["/", "/again"])
    with scripted(hear(heard), say("a")) as uri:
        with session_of(lambda: uri[:-1] + next(paths, "/again"), on_open=on_open) as session:
            assert session.recv() == "a"
    assert heard == ["close 1011"]


def test_another_error_in_on_open_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    def on_open(connection: Any) -> None:
        raise ZeroDivisionError("oops")

    heard: list[str] = []
    with scripted(hear(heard)) as uri, session_of(uri, on_open=on_open) as session:
        for use in (session.recv, session.wait_open, lambda: session.send("x"), lambda: list(session)):
            with pytest.raises(ZeroDivisionError):
                use()
        assert session.state is CLOSED
    assert heard == ["close 1011"]
    assert "session ended: ZeroDivisionError: oops" in caplog.text


@pytest.mark.parametrize("use", [lambda session: session.recv(), lambda session: session.wait_open()])
def test_on_open_must_not_wait_for_its_session(use: Callable[[Session], object]) -> None:
    with serving() as server:
        session = session_of(uri_of(server), on_open=lambda connection: use(session))
        with session, pytest.raises(ConcurrencyError, match="on_open must use its connection"):
            session.wait_open()


# When it gives up


@pytest.mark.parametrize("code", [503, 429])
def test_statuses_that_may_pass(code: int) -> None:
    with scripted(status(code), say("a")) as uri, session_of(uri) as session:
        assert session.recv() == "a"


def test_statuses_that_will_not_pass() -> None:
    with scripted(status(404)) as uri, session_of(uri) as session:
        with pytest.raises(InvalidStatus, match="HTTP 404"):
            session.recv()
        with pytest.raises(InvalidStatus, match="HTTP 404"):
            session.try_send("x")


def test_the_end_of_the_delays_is_the_end_of_the_session() -> None:
    with session_of(f"ws://127.0.0.1:{free_port()}", reconnect_delays=lambda: [0.0, 0.0]) as session:
        with pytest.raises(OSError):
            session.recv()
        assert session.attempts == 3


def test_give_up_rule() -> None:
    seen: list[Exception] = []

    def give_up(session: Session, exc: Exception) -> bool:
        seen.append(exc)
        return session.attempts == 2

    with session_of(f"ws://127.0.0.1:{free_port()}", give_up=give_up) as session:
        with pytest.raises(OSError):
            session.wait_open()
    assert len(seen) == 2


def test_a_rule_that_fails_ends_the_session() -> None:
    def give_up(session: Session, exc: Exception) -> bool:
        raise KeyError("rule")

    with session_of(f"ws://127.0.0.1:{free_port()}", give_up=give_up) as session:
        with pytest.raises(KeyError, match="rule"):
            session.recv()
        assert session.state is CLOSED


def test_uri_and_headers_are_asked_for_each_time() -> None:
    tokens = itertools.count()
    heads: list[str] = []

    with serving(lambda connection: heads.append(connection.request.headers["Token"])) as server:
        with session_of(lambda: uri_of(server), additional_headers=lambda: {"Token": str(next(tokens))}):
            until(lambda: len(heads) >= 3)
    assert heads[:3] == ["0", "1", "2"]


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(InvalidURI):
        Session("http://localhost")
    with pytest.raises(ValueError, match="unknown outbox policy"):
        Session("ws://localhost", outbox="lose")  # type: ignore[arg-type]
    with socket.socket() as sock, pytest.raises(ValueError, match="a socket connects once"):
        Session("ws://localhost", sock=sock)


# The outbox


def test_keep_has_a_limit() -> None:
    heard: list[str] = []
    ready = threading.Event()

    def uri_when_ready() -> str:
        assert ready.wait(LIMIT)
        return uri

    with scripted(hear(heard)) as uri:
        with session_of(uri_when_ready, outbox_limit=2) as session:
            session.send("1")
            assert session.try_send("2") is SendStatus.QUEUED
            assert session.try_send("3") is SendStatus.FULL
            with pytest.raises(TimeoutError):
                session.send("4", timeout=0.01)
            with thread(lambda: session.send("5")) as outcome:
                until(lambda: session._blocked)
                assert session.try_send("no overtaking") is SendStatus.FULL
                with pytest.raises(TimeoutError):
                    session.send("behind", timeout=0.01)
                ready.set()
            assert outcome == [None]
            until(lambda: session.pending == 0)
    assert heard == ["1", "2", "5", "close 1000"]


def test_try_send() -> None:
    heard: list[str] = []
    with scripted(hear(heard)) as uri, session_of(uri) as session:
        session.wait_open(LIMIT)
        assert session.try_send("x")
        with pytest.raises(TypeError, match="data must be str or bytes-like"):
            session.try_send(1)  # type: ignore[arg-type]
    assert heard == ["x", "close 1000"]
    with session_of(f"ws://127.0.0.1:{free_port()}", outbox="error") as session:
        with pytest.raises(ConnectionClosedError):
            session.try_send("x")


def test_messages_that_nobody_takes_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    big = "x" * 10_000
    with scripted(say(big), say(big, "y"), say("z")) as uri:
        session = session_of(uri)
        session._inbox._max_bytes = 5000
        with session:
            until(lambda: session.missed == 2)
            assert [session.recv() for _ in range(2)] == ["y", "z"]
    assert "nobody received 1 messages of earlier connections: dropped" in caplog.text


def test_drop() -> None:
    with session_of(f"ws://127.0.0.1:{free_port()}", outbox="drop") as session:
        session.send("x")
        assert session.dropped == 1
        assert session.try_send("x") is SendStatus.FULL


def test_error() -> None:
    with session_of(f"ws://127.0.0.1:{free_port()}", outbox="error") as session:
        until(lambda: session.attempts)
        with pytest.raises(ConnectionClosedError) as caught:
            session.send("x")
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("outbox", ["keep", "drop", "error"])
def test_a_connection_that_ends_while_a_message_waits_to_be_sent(outbox: Any) -> None:
    def deaf(peer: Peer) -> None:
        until(lambda: session._blocked)
        reset(peer)

    def sends() -> None:
        while True:
            session.send(bytes(2**16), compress=False)

    heard: list[str] = []
    with scripted(deaf, *([] if outbox == "error" else [hear(heard)])) as uri:
        session = session_of(uri, outbox=outbox, compression=None, outbox_limit=2)
        with session:
            session.wait_open()
            with thread(sends) as outcome:
                if outbox == "error":
                    until(lambda: outcome)
                else:
                    until(lambda: len(heard) > 3)
                session.close()
    assert isinstance(outcome[0], ConnectionClosedError if outbox == "error" else ConnectionClosedOK)


def test_a_flush_that_breaks_goes_on_with_the_next_connection() -> None:
    ready = threading.Event()
    heard: list[str] = []

    def uri_when_ready() -> str:
        assert ready.wait(LIMIT)
        return uri

    def breaks(peer: Peer) -> None:
        assert peer.frame()[0] == 0x82
        reset(peer)

    with scripted(breaks, hear(heard)) as uri:
        with session_of(uri_when_ready, outbox_limit=None, compression=None) as session:
            for i in range(200):
                session.send(b"%07d" % i * 10_000)
            ready.set()
            until(lambda: heard and heard[-1].startswith("0000199"))
    numbers = [int(each[:7]) for each in heard[:-1]]
    assert numbers == list(range(numbers[0], 200))


# States and the end


def test_states_are_told(caplog: pytest.LogCaptureFixture) -> None:
    states: list[SessionState] = []

    def on_state(session: Session, state: SessionState) -> None:
        states.append(state)
        raise KeyError("mine")

    with scripted(say(close=1000), say("x")) as uri, session_of(uri, on_state=on_state) as session:
        assert session.recv() == "x"
    assert states[:5] == [CONNECTING, OPEN, WAITING, CONNECTING, OPEN]
    assert states[-1] is CLOSED
    assert "on_state failed" in caplog.text


def test_wait_open() -> None:
    with serving() as server, session_of(uri_of(server)) as session:
        connection = session.wait_open(timeout=LIMIT)
        assert connection is session.connection
        connection.close()
        until(lambda: session.connection is not connection)
    with session_of(f"ws://127.0.0.1:{free_port()}") as session, pytest.raises(TimeoutError):
        session.wait_open(timeout=0.01)


def test_misuse() -> None:
    session = session_of("ws://localhost")
    for use in (session.recv, lambda: session.send("x"), session.wait_open, lambda: list(session)):
        with pytest.raises(InvalidState, match="use it in `with`"):
            use()
    session.close()  # nothing to close
    with serving() as server, session_of(uri_of(server)) as session:
        with pytest.raises(RuntimeError, match="only once"):
            session.__enter__()
        with pytest.raises(TypeError):
            session.send(["a", "b"])  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError):
            session.close(999)
        with thread(session.recv) as outcome:
            until(lambda: session._receiving)
            with pytest.raises(ConcurrencyError):
                session.recv()
            session.close()
        assert isinstance(outcome[0], ConnectionClosedOK)


def test_timeout_of_recv() -> None:
    with serving() as server, session_of(uri_of(server)) as session:
        session.wait_open()
        with pytest.raises(TimeoutError):
            session.recv(timeout=0.01)
        session.send("x")
        assert session.recv(timeout=LIMIT) == "x"


def test_one_thread_and_none_afterwards() -> None:
    def mine() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name == "wsproto_fast-session"]

    with serving() as server:
        with session_of(uri_of(server)) as session:
            session.wait_open()
            assert len(mine()) == 1
        assert mine() == []


def test_after_the_end() -> None:
    with serving() as server:
        with session_of(uri_of(server)) as session:
            session.send("x")
            until(lambda: session.connection and session.connection.stats.messages_received)
        assert session.recv() == "x"
        for use in (session.recv, session.wait_open, lambda: session.send("x"), lambda: session.try_send("x")):
            with pytest.raises(ConnectionClosedOK):
                use()
        session.close()


def test_an_exception_in_the_block_closes_with_1011() -> None:
    heard: list[str] = []
    with scripted(hear(heard)) as uri:
        with pytest.raises(ZeroDivisionError), session_of(uri) as session:
            session.send("sent before")
            session.wait_open()
            raise ZeroDivisionError
    assert heard == ["sent before", "close 1011"]


def test_leaving_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    ready = threading.Event()

    def uri_when_ready() -> str:
        assert ready.wait(LIMIT)
        return uri

    with scripted(lambda peer: stop.wait(LIMIT)) as uri:
        arguments: dict[str, Any] = {"close_timeout": 0.2, "outbox_limit": None, "compression": None}
        with session_of(uri_when_ready, **arguments) as session:
            for _ in range(500):
                session.send(bytes(100_000))
            ready.set()
            session.wait_open()
            start = time.monotonic()
        assert 0.2 <= time.monotonic() - start < SOON
        stop.set()
    assert "messages of the outbox were not sent" in caplog.text


def test_closing_before_there_is_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with session_of(f"ws://127.0.0.1:{silent.getsockname()[1]}", open_timeout=60) as session:
            with thread(session.recv) as outcome:
                until(lambda: session._receiving)
                session.close()
        assert time.monotonic() - start < SOON  # it does not wait for the attempt
        assert isinstance(outcome[0], ConnectionClosedOK)
    session._runner.join(LIMIT)


def test_closing_while_it_waits_between_attempts() -> None:
    with session_of(f"ws://127.0.0.1:{free_port()}", reconnect_delays=lambda: [1000.0]) as session:
        until(lambda: session.state is WAITING)
        session.send("never sent")
        start = time.monotonic()
    assert time.monotonic() - start < SOON
    assert session.state is CLOSED


def test_closing_in_on_open() -> None:
    heard: list[str] = []
    with scripted(hear(heard)) as uri:
        session = session_of(uri, on_open=lambda connection: session.close())
        with session:
            with pytest.raises(ConnectionClosedOK):
                session.wait_open()
            session._runner.join(LIMIT)
    assert heard == ["close 1000"]


def test_it_logs_where_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with scripted(say(close=1000), say("x")) as uri:
        with session_of(uri, logger=logging.getLogger("mine")) as session:
            assert session.recv() == "x"
    assert {record.name for record in caplog.records} <= {"mine"}


def test_all_that_is_sent_over_clean_restarts_arrives_once_and_in_order() -> None:
    received: list[str] = []

    def few(connection: Any) -> None:
        for message, _ in zip(connection, range(5), strict=False):
            received.append(message)

    with serving(few) as server, session_of(uri_of(server)) as session, thread(lambda: list(session)):
        for i in range(100):
            session.send(str(i))
            until(lambda: str(i) in received or session.state is not OPEN or session.pending == 0)  # noqa: B023
        until(lambda: session.pending == 0)
        session.close()
    numbers = [int(each) for each in received]
    assert numbers == sorted(set(numbers))


def test_a_slow_peer_makes_send_wait_in_its_turn() -> None:
    with serving(echo) as server, session_of(uri_of(server), compression=None) as session:
        session.wait_open()
        with thread(lambda: [len(session.recv()) for _ in range(50)]) as outcome:
            for _ in range(50):
                session.send(bytes(100_000), timeout=LIMIT)
        assert outcome == [[100_000] * 50]
