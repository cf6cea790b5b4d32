"""200 connections at once, of which many are reset, stalled or half closed: the others do not notice."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import socket
import threading
from typing import Any

import pytest
from thr import MASK, REQUEST, Peer, port_of, serving, start, until, uri_of

from wsproto_fast import ConnectionClosed, Limits
from wsproto_fast.threading import connect

CONNECTIONS = 200
MESSAGES = 25
#: Under sanitizers, and beside others, all of it takes its time.
LIMIT = 100.0


def payload(rng: random.Random, who: int, number: int) -> str | bytes:
    """A message that tells whose it is and which, of any size."""
    size = rng.choice((0, 10, 125, 126, 1000, 20_000, 70_000))
    text = f"{who} {number} " + "ä" * size
    return text if rng.random() < 0.5 else text.encode()


def healthy(uri: str, who: int, rng: random.Random) -> int:
    """Talk to the echo; returns how many messages came back, each in its turn and whole."""
    compression = rng.choice(("deflate", None))
    with connect(uri, compression=compression, limits=Limits(open_timeout=LIMIT), ping_interval=5) as connection:
        waiting: list[str | bytes] = []
        done = 0
        for number in range(MESSAGES):
            message = payload(rng, who, number)
            if rng.random() < 0.3:
                half = len(message) // 2
                connection.send([message[:half], message[half:]])
            else:
                connection.send(message)
            waiting.append(message)
            while waiting and (len(waiting) > 5 or rng.random() < 0.5):
                assert connection.recv(timeout=LIMIT) == waiting.pop(0)
                done += 1
        for message in waiting:
            assert connection.recv(timeout=LIMIT) == message
            done += 1
    return done


def ill(port: int, rng: random.Random, stop: threading.Event) -> None:
    """A peer that goes wrong in some way."""
    with contextlib.suppress(OSError, EOFError), socket.create_connection(("127.0.0.1", port)) as sock:
        peer = Peer(sock, MASK)
        sock.sendall(REQUEST + b"\r\n")
        if rng.random() < 0.9:
            peer.head()
        for _ in range(rng.randrange(5)):
            peer.send(0x82, bytes(rng.choice((1, 1000, 100_000))))
        way = rng.randrange(5)
        if way == 0:
            peer.reset()
        elif way == 1:
            sock.shutdown(socket.SHUT_WR)
            stop.wait()
        elif way == 2:
            sock.sendall(b"\x82\xfe\xff")  # half a header
            stop.wait()
        elif way == 3:
            for _ in range(200):  # and reads nothing
                peer.send(0x82, bytes(10_000))
            stop.wait()
        else:
            sock.sendall(rng.randbytes(1000))
            peer.rest()


def echo(connection: Any) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)


def counts() -> tuple[int, int]:
    """Descriptors and threads."""
    gc.collect()
    return len(os.listdir("/dev/fd")), threading.active_count()


@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="counts descriptors")
def test_chaos() -> None:
    before = counts()
    rng = random.Random(11)
    stop = threading.Event()
    limits = Limits(open_timeout=LIMIT, close_timeout=1.0)
    with serving(echo, limits=limits, ping_interval=2, ping_timeout=60) as server:
        runs: list[Any] = []
        sick = []
        for who in range(CONNECTIONS):
            own = random.Random(rng.random())
            if who % 2:
                sick.append(start(ill, port_of(server), own, stop))
            else:
                runs.append(start(healthy, uri_of(server), who, own))
        assert [run.result(LIMIT) for run in runs] == [MESSAGES] * (CONNECTIONS // 2)
        stop.set()
        for run in sick:
            run.result(LIMIT)
    until(lambda: counts() <= before, LIMIT)
