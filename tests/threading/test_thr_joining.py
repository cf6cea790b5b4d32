"""Answers to messages that came together leave together, and none waits longer than a moment."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import encode_frame
from thr import LIMIT, Peer, byte_server, thread

from wsproto_fast.constants import SendStatus
from wsproto_fast.threading import _poller, connect

QUEUED, SENT = SendStatus.QUEUED, SendStatus.SENT


def together(*texts: bytes) -> bytes:
    return b"".join(encode_frame(0x81, text) for text in texts)


def test_answers_leave_together() -> None:
    def talk(peer: Peer) -> None:
        for _ in range(3):
            peer.sock.sendall(together(b"a", b"b", b"c", b"d"))
            assert [peer.frame()[1] for _ in range(4)] == [b"a", b"b", b"c", b"d"]
        peer.send(0x88)
        assert peer.frame()[0] == 0x88

    statuses = []
    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        for message in connection:
            statuses.append(connection.try_send(message))
    assert statuses == [QUEUED, QUEUED, QUEUED, SENT] * 3


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The poller does not come to help."""
    monkeypatch.setattr(_poller, "HOLD", 1000.0)
    yield
    poller = _poller.poller()
    with poller._lock:
        poller._held_until = 0.0
        poller._wake(0.0)


def test_an_answer_does_not_wait_for_the_next_recv() -> None:
    arrived = threading.Event()

    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b"))
        assert peer.frame() == (0x81, b"A")
        arrived.set()
        peer.frame()
        peer.send(0x88)

    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        assert connection.recv() == "a"
        connection.send("A")
        assert arrived.wait(LIMIT)
        assert connection.recv() == "b"


@pytest.mark.usefixtures("for_ever")
def test_recv_sends_what_was_held_before_it_waits() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b"))
        assert peer.frame() == (0x81, b"A")
        peer.send(0x81, b"c")
        peer.frame()
        peer.send(0x88)

    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        assert connection.recv() == "a"
        connection.send("A")
        assert connection.buffered_amount > 0
        assert connection.recv() == "b"
        assert connection.recv() == "c"


@pytest.mark.usefixtures("for_ever")
def test_close_sends_what_was_held() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b"))
        assert peer.frame() == (0x81, b"A")
        assert peer.frame()[0] == 0x88
        peer.send(0x88)

    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        assert connection.recv() == "a"
        connection.send("A")


@pytest.mark.usefixtures("for_ever")
def test_other_threads_and_other_messages_do_not_wait() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b"))
        assert [peer.frame()[1] for _ in range(3)] == [b"1", b"2", b"3"]
        peer.frame()
        peer.send(0x88)

    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        assert connection.recv() == "a"
        assert connection.try_send("1") is QUEUED
        with thread(lambda: connection.try_send("2")) as outcome:
            pass
        assert outcome == [SENT]
        assert connection.recv() == "b"
        assert connection.try_send("3") is SENT


@pytest.mark.usefixtures("for_ever")
def test_much_does_not_wait() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b"))
        assert len(peer.frame()[1]) == 70_000
        peer.frame()
        peer.send(0x88)

    with byte_server(talk) as uri, connect(uri, compression=None) as connection:
        assert connection.recv() == "a"
        connection.send(bytes(70_000))
        assert connection.buffered_amount == 0


def test_answers_of_a_callback_leave_together() -> None:
    statuses: list[Any] = []
    done = threading.Event()

    def on_message(connection: Any, message: str) -> None:
        statuses.append(connection.try_send(message))

    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b", b"c"))
        assert [peer.frame()[1] for _ in range(3)] == [b"a", b"b", b"c"]
        done.set()
        peer.frame()
        peer.send(0x88)

    with byte_server(talk) as uri, connect(uri, compression=None, on_message=on_message):
        assert done.wait(LIMIT)
    assert statuses == [QUEUED, QUEUED, SENT]


def test_a_program_may_end_right_after_send() -> None:
    program = """
import sys
from wsproto_fast.threading import _poller, connect
_poller.HOLD = 1000.0
connection = connect(sys.argv[1], compression=None, proxy=None)
assert connection.recv() == "a"
connection.send("A")
assert connection.buffered_amount > 0
"""

    def talk(peer: Peer) -> None:
        peer.sock.sendall(together(b"a", b"b"))
        assert peer.frame() == (0x81, b"A")

    with byte_server(talk) as uri:
        subprocess.run([sys.executable, "-c", program, uri], check=True, timeout=60)
