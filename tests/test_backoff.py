"""Delays between attempts to connect, and after which errors there is another."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
import socket
import ssl

import pytest

from wsproto_fast import Headers, InvalidMessage, InvalidProxyStatus, InvalidStatus, InvalidURI, Response, SecurityError
from wsproto_fast.backoff import backoff, process_exception


def test_defaults_are_those_of_websockets() -> None:
    import websockets.client

    ours = {name: parameter.default for name, parameter in inspect.signature(backoff).parameters.items()}
    theirs = {
        name: parameter.default for name, parameter in inspect.signature(websockets.client.backoff).parameters.items()
    }
    assert ours == theirs


def test_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    assert list(itertools.islice(backoff(4, 1, 10, 3), 7)) == [2, 1, 3, 9, 10, 10, 10]
    assert list(itertools.islice(backoff(4, 20, 10, 3), 3)) == [2, 10, 10]


def test_the_first_delay_is_random() -> None:
    delays = {next(backoff(5)) for _ in range(20)}
    assert len(delays) > 10
    assert all(0 <= delay < 5 for delay in delays)


def caused(exc: Exception, cause: Exception) -> Exception:
    exc.__cause__ = cause
    return exc


def status(code: int) -> InvalidStatus:
    return InvalidStatus(Response(code, "", Headers()))


@pytest.mark.parametrize(
    ("exc", "transient"),
    [
        (OSError(), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (socket.gaierror(), True),
        (ssl.SSLError(), True),
        (caused(InvalidMessage(), EOFError()), True),
        (caused(InvalidMessage(), ValueError()), False),
        (InvalidMessage(), False),
        *((status(code), True) for code in (500, 502, 503, 504)),
        *((status(code), False) for code in (200, 302, 400, 401, 403, 404, 429, 501, 505)),
        (InvalidProxyStatus(Response(502, "", Headers())), False),
        (SecurityError(), False),
        (InvalidURI("", ""), False),
        (ValueError(), False),
        (asyncio.InvalidStateError(), False),
    ],
    ids=repr,
)
def test_transient_errors(exc: Exception, transient: bool) -> None:
    assert process_exception(exc) is (None if transient else exc)
