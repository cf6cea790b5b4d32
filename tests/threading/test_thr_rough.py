"""Rough surroundings: signals, no threads to be had, the end of the program, peers and callbacks that hold one up."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from thr import LARGE, LIMIT, REQUEST, Peer, byte_server, fill, finish, linked, raw, serving, start, until, uri_of

from wsproto_fast import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from wsproto_fast.threading import Session, SessionState, connect, serve
from wsproto_fast.threading._poller import poller

# -- signals -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handled(handler: Any) -> Iterator[None]:
    """A signal handler for SIGUSR1."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def interrupt_when(condition: Any) -> Any:
    main = threading.main_thread().ident
    assert main is not None

    def kill() -> None:
        until(condition)
        signal.pthread_kill(main, signal.SIGUSR1)

    return start(kill)


@pytest.mark.parametrize("begun", [b"", b"\x82\x7f" + (1_000_000).to_bytes(8, "big") + bytes(300_000)])
def test_close_in_a_signal_handler(begun: bytes) -> None:
    """The thread in recv is the one that closes; also where it is in the middle of a large message."""
    took: list[float] = []

    def close() -> None:
        start = time.monotonic()
        connection.close()
        took.append(time.monotonic() - start)

    with linked() as (connection, peer), handled(close):
        peer.sock.sendall(begun)
        killing = interrupt_when(lambda: connection._reader and connection.stats.bytes_received >= len(begun))

        def answer() -> None:
            peer.expect_close(1000)
            if begun:
                peer.sock.sendall(bytes(700_000))
            peer.send(0x88, b"\x03\xe8")
            peer.sock.close()

        answering = start(answer)
        with pytest.raises(ConnectionClosedOK):
            while connection.recv():
                pass
        finish(killing)
        finish(answering)
        assert connection.close_code == 1000
    assert took
    assert took[0] < 5


def test_a_signal_handler_uses_another_connection_in_the_middle_of_one() -> None:
    with serving() as server, connect(uri_of(server)) as connection:
        with poller()._lock:  # where a signal comes at the worst time
            assert connection.ping().wait(0) is False
        assert connection.ping().wait(LIMIT)


def test_a_signal_handler_gets_a_clear_error_in_the_middle_of_its_connection() -> None:
    with linked() as (connection, _), connection._lock, pytest.raises(RuntimeError, match="or a signal handler"):
        connection.ping()


def test_shutdown_in_the_thread_that_serves() -> None:
    """As in a signal handler: it is done when ``serve_forever`` looks up."""

    class Ender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("server listening"):
                server.shutdown()

    logger = logging.Logger("ends")
    logger.addHandler(Ender())
    with serve(lambda connection: connection.wait_closed(), "127.0.0.1", 0, logger=logger) as server:
        server.serve_forever()
        assert server.fileno() == -1


def test_shutdown_in_a_signal_handler() -> None:
    program = """
import signal
from wsproto_fast.threading import serve
with serve(lambda connection: connection.wait_closed(), "127.0.0.1", 0) as server:
    signal.signal(signal.SIGTERM, lambda *_: server.shutdown(code=1012))
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
    print("ended", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with connect(f"ws://127.0.0.1:{int(process.stdout.readline())}/", proxy=None) as connection:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosedError):
                connection.recv(LIMIT)
            assert connection.close_code == 1012
        assert process.communicate(timeout=LIMIT)[0] == "ended\n"
        assert process.returncode == 0
    finally:
        process.kill()


# -- the end of the program --------------------------------------------------------------------------------------------


def test_what_was_sent_is_sent_at_the_end_of_the_program() -> None:
    program = """
import sys
from wsproto_fast.threading import connect
connection = connect(sys.argv[1], compression=None, proxy=None, write_limit=1_000_000)
while connection.buffered_amount < 100_000:
    connection.send(bytes(10_000))
print("sent", flush=True)
"""
    received: list[int] = []

    def talk(peer: Peer) -> None:
        assert ended.wait(LIMIT)
        with contextlib.suppress(EOFError, OSError):
            while True:
                received.append(len(peer.frame()[1]))

    ended = threading.Event()
    with byte_server(talk, small=True) as uri:
        process = subprocess.Popen([sys.executable, "-c", program, uri], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        ended.set()
        assert process.wait(LIMIT) == 0
        process.stdout.close()
    assert len(received) > 10
    assert set(received) == {10_000}


def test_a_peer_that_reads_nothing_does_not_hold_up_the_end_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsproto_fast.threading._poller._LAST_CALL", 0.05)
    with linked(small=True) as (connection, peer):
        fill(connection)
        until(lambda: poller()._writing)
        start = time.monotonic()
        poller().finish()
        assert 0.05 <= time.monotonic() - start < 4  # it would be 5 s
        reading = thread_that_reads(peer)
        until(lambda: connection.buffered_amount == 0)
        poller().finish()
    finish(reading)


def thread_that_reads(peer: Peer) -> Any:
    def read() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                peer.frame()

    return start(read)


@pytest.mark.parametrize("end", ["generator", "finaliser"])
def test_closing_while_the_interpreter_ends(end: str) -> None:
    program = """
import sys
from wsproto_fast.threading import connect
class Holder:
    def __init__(self): self.connection = connect(sys.argv[1], proxy=None)
    def __del__(self): self.connection.close()
def messages():
    with connect(sys.argv[1], proxy=None) as connection:
        yield connection.recv()
if sys.argv[2] == "generator":
    held = messages()
    next(held)
else:
    held = Holder()
"""

    def talk(peer: Peer) -> None:
        peer.send(0x81, b"a")
        with contextlib.suppress(EOFError, OSError):
            while True:
                peer.frame()

    with byte_server(talk) as uri:
        subprocess.run([sys.executable, "-c", program, uri, end], check=True, timeout=LIMIT)


def test_close_does_nothing_while_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The poller may have stopped for ever with the connection's lock."""
    with serving() as server, connect(uri_of(server)) as connection:
        with monkeypatch.context() as patch:
            patch.setattr("wsproto_fast.threading.connection.is_finalizing", lambda: True)
            with connection._lock:
                connection.close()
        connection.send("x")
        assert connection.recv(LIMIT) == "x"


# -- no threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_no_thread_for_a_handler(late: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    begin = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "wsproto_fast-handler":
            raise RuntimeError("can't start new thread")
        begin(thread)

    with serving() as server:
        monkeypatch.setattr(threading.Thread, "start", fail)
        if late:
            with raw(server) as peer:
                peer.sock.sendall(REQUEST)
                time.sleep(0.01)  # so that it comes in two reads, as a rule
                peer.sock.sendall(b"\r\n")
                assert peer.head().startswith(b"HTTP/1.1 503 ")
        else:
            with pytest.raises(InvalidStatus, match="503"):
                connect(uri_of(server))
        monkeypatch.undo()
        with connect(uri_of(server)) as connection:
            connection.send("x")
            assert connection.recv(LIMIT) == "x"
    assert "no thread for a handler: can't start new thread" in caplog.text


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_a_callback_that_answers_a_peer_that_does_not_read() -> None:
    """Others do not notice; and it is called no more until the peer has read."""
    called: list[Any] = []

    def echo(connection: Any, message: Any) -> None:
        called.append(message)
        connection.send(message)

    with linked(on_message=echo, small=True) as (_, deaf), serving() as server, connect(uri_of(server)) as other:
        deaf.sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while len(called) < 1000:
                deaf.send(0x82, LARGE)
        assert other.ping().wait(LIMIT)
        taken = len(called)
        assert taken < 1000
        deaf.sock.settimeout(LIMIT)
        for _ in range(taken):
            assert deaf.frame() == (0x82, LARGE)


# -- a stream cut off --------------------------------------------------------------------------------------------------


def test_recv_after_a_stream_that_was_cut_off() -> None:
    with linked() as (connection, peer):
        peer.sock.sendall(b"\x01\x01a")
        stream = connection.recv_streaming()
        assert next(stream) == "a"
        peer.reset()
        with pytest.raises(ConnectionClosedError):
            next(stream)
        for receive in (connection.recv, connection.recv_json, lambda: next(iter(connection))):
            with pytest.raises(ConnectionClosedError):
                receive()


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_session_closed_while_it_connects() -> None:
    asked, answer, opened = threading.Event(), threading.Event(), threading.Event()

    def process_request(*_: Any) -> None:
        asked.set()
        assert answer.wait(LIMIT)

    with serving(lambda connection: connection.wait_closed(), process_request=process_request) as server:
        session = Session(uri_of(server), on_open=lambda _: opened.set())
        with session:
            assert asked.wait(LIMIT)
            session.close()
        answer.set()
        runner = session._runner
        assert runner is not None
        runner.join(LIMIT)
        assert not runner.is_alive()
        assert not opened.is_set()
        until(lambda: not server.connections)


def test_a_session_closed_while_on_open_waits() -> None:
    entered = threading.Event()
    left: list[Exception] = []

    def on_open(connection: Any) -> None:
        entered.set()
        try:
            connection.recv()
        except Exception as exc:
            left.append(exc)
            raise

    with serving(lambda connection: connection.wait_closed()) as server:
        session = Session(uri_of(server), on_open=on_open)
        with session:
            assert entered.wait(LIMIT)
            session.close(4000, "enough")
        assert session.state is SessionState.CLOSED
        session._runner.join(LIMIT)  # type: ignore[union-attr]
        assert not session._runner.is_alive()  # type: ignore[union-attr]
        (error,) = left
        assert isinstance(error, ConnectionClosedError)
        assert error.sent is not None
        assert (error.sent.code, error.sent.reason) == (4000, "enough")


# -- timeouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [math.inf, 1e15])
def test_a_timeout_without_end(timeout: float) -> None:
    with serving() as server, connect(uri_of(server), open_timeout=timeout) as connection:
        connection.send("x", timeout=timeout)
        assert connection.recv(timeout) == "x"
        start(connection.close)
        assert connection.wait_closed(timeout)
        with Session(uri_of(server)) as session:
            session.send("x", timeout=timeout)
            assert session.wait_open(timeout)
            assert session.recv(timeout) == "x"
