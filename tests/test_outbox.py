"""What a session keeps between connections: order, limits, and what is refused at once."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def put(ws: ModuleType, outbox: Any, message: str | bytes) -> bool:
    return bool(outbox.put(ws._outbox.unsent(message, None, None)))


def payloads(outbox: Any) -> list[bytes]:
    found = []
    while outbox:
        found.append(outbox.first.payload)
        outbox.pop()
    return found


def test_order(ws: ModuleType) -> None:
    outbox = ws._outbox.Outbox(None, None)
    assert all(put(ws, outbox, str(i)) for i in range(2000))
    assert len(outbox) == 2000
    assert payloads(outbox) == [b"%d" % i for i in range(2000)]


def test_limit_of_messages(ws: ModuleType) -> None:
    outbox = ws._outbox.Outbox(2, None)
    assert [put(ws, outbox, "x" * 1000) for _ in range(3)] == [True, True, False]
    outbox.pop()
    assert put(ws, outbox, "y")
    assert payloads(outbox) == [b"x" * 1000, b"y"]


def test_limit_of_bytes(ws: ModuleType) -> None:
    outbox = ws._outbox.Outbox(None, 10)
    assert put(ws, outbox, "éé")  # four bytes
    assert not put(ws, outbox, "1234567")
    assert put(ws, outbox, "123456")
    assert put(ws, outbox, "")
    assert not put(ws, outbox, "1")
    assert len(payloads(outbox)) == 3
    assert put(ws, outbox, "larger than the limit")  # alone
    assert not put(ws, outbox, "")
    assert payloads(outbox) == [b"larger than the limit"]
    assert put(ws, outbox, "1234567890")


def test_what_is_kept_is_a_copy_with_its_type(ws: ModuleType) -> None:
    unsent = ws._outbox.unsent
    buffer = bytearray(b"abc")
    kept = unsent(memoryview(buffer)[::2], None, True)
    buffer[0] = 0
    assert kept == (b"ac", False, True)
    assert type(kept.payload) is bytes
    assert unsent("é", None, None)[:2] == ("é".encode(), True)
    assert unsent("é", False, None)[:2] == ("é".encode(), False)
    assert unsent("é".encode(), True, None)[:2] == ("é".encode(), True)
    assert unsent(b"\xff", None, None)[:2] == (b"\xff", False)


def test_what_could_never_be_sent_is_refused(ws: ModuleType) -> None:
    with pytest.raises(UnicodeEncodeError):
        ws._outbox.unsent("\ud800", None, None)
    with pytest.raises(ws.LocalProtocolError, match="UTF-8"):
        ws._outbox.unsent(b"\xff", True, None)
    with pytest.raises(ValueError, match="at least one"):
        ws._outbox.Outbox(0, None)


def test_inbox_keeps_the_last_connections_messages(ws: ModuleType) -> None:
    inbox = ws._outbox.Inbox(1000)
    for i in range(20):
        inbox.append(b"%02d" % i)
    assert len(inbox) == 20  # one connection's: more than the limit
    assert inbox.make_room() == 11
    assert inbox.make_room() == 0
    assert [inbox.popleft() for _ in range(9)] == [b"%02d" % i for i in range(11, 20)]
    for message in ("a" * 900, "b"):
        inbox.append(message)
    assert inbox.make_room() == 1
    assert (inbox.popleft(), len(inbox)) == ("b", 0)
