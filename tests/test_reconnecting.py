"""When and where a session connects again."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest


def test_delays_grow_and_begin_anew_after_a_connection_that_lived(ws: ModuleType) -> None:
    attempts = ws._reconnecting.Attempts(["a"], lambda: itertools.count(1.0))
    assert [attempts.ended(None) for _ in range(3)] == [1.0, 2.0, 3.0]
    assert attempts.failed == 3
    assert attempts.ended(3.0) == 1.0
    assert attempts.failed == 0
    assert attempts.ended(None) == 2.0


def test_a_connection_that_ends_at_once_has_failed(ws: ModuleType) -> None:
    attempts = ws._reconnecting.Attempts(["a"], lambda: itertools.count(1.0))
    assert attempts.ended(0.0) == 1.0  # nothing was waited for before the first
    assert attempts.failed == 0
    assert [attempts.ended(0.9), attempts.ended(1.9), attempts.ended(2.9)] == [2.0, 3.0, 4.0]
    assert attempts.failed == 3


def test_uris_take_turns_without_a_delay(ws: ModuleType) -> None:
    attempts = ws._reconnecting.Attempts(["a", "b", "c"], lambda: iter([5.0, 6.0]))
    seen = []
    for _ in range(8):
        seen.append((attempts.uri, attempts.ended(None)))
    assert seen == [
        *(("a", 0.0), ("b", 0.0), ("c", 5.0)),
        *(("a", 0.0), ("b", 0.0), ("c", 6.0)),
        *(("a", 0.0), ("b", 0.0)),
    ]
    assert (attempts.uri, attempts.ended(None)) == ("c", None)  # no more delays


def test_the_first_uri_again_after_a_success(ws: ModuleType) -> None:
    attempts = ws._reconnecting.Attempts(["a", "b"], lambda: itertools.repeat(5.0))
    assert attempts.ended(None) == 0.0
    assert attempts.uri == "b"
    assert attempts.ended(60.0) == 5.0
    assert attempts.uri == "a"
    assert attempts.ended(1.0) == 0.0  # accepted and dropped
    assert attempts.uri == "b"


def test_no_uri(ws: ModuleType) -> None:
    with pytest.raises(ValueError, match="needs a URI"):
        ws._reconnecting.Attempts([], list)


@pytest.mark.parametrize(
    ("status", "passes"), [(401, False), (404, False), (408, True), (425, True), (429, True), (503, True)]
)
def test_statuses_that_may_pass(ws: ModuleType, status: int, passes: bool) -> None:
    response = ws.Response(status, "No", ws.Headers())
    assert ws._reconnecting.may_pass(ws.InvalidStatus(response)) is passes


def test_errors_that_may_pass(ws: ModuleType) -> None:
    assert ws._reconnecting.may_pass(ws.ConnectionClosedError(None, None))
    assert ws._reconnecting.may_pass(ws.ConnectionClosedOK(None, None))
    assert ws._reconnecting.may_pass(OSError())
    assert not ws._reconnecting.may_pass(ValueError())
