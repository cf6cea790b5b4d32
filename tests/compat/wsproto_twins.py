"""wsproto and our façade of it side by side: the same calls go to both, and what they answer is compared."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import wsproto
import wsproto.connection
import wsproto.events
import wsproto.extensions
import wsproto.frame_protocol
import wsproto.handshake
import wsproto.typing
import wsproto.utilities

import wsproto_fast.compat.wsproto as facade

ORIGINAL: Any = wsproto
OURS: Any = facade
BOTH = (ORIGINAL, OURS)

KEY = b"\x01\xfe\x03\x80"


@pytest.fixture(scope="module", autouse=True)
def _same_random_bytes() -> Iterator[None]:
    """One masking key and one nonce for both."""
    source = types.SimpleNamespace(urandom=lambda n: (KEY * 4)[:n])
    with pytest.MonkeyPatch.context() as patch:
        for library in BOTH:
            patch.setattr(library.utilities, "os", source)
        patch.setattr(ORIGINAL.frame_protocol, "os", source)
        patch.setattr(OURS.frame_protocol, "new_key", lambda: int.from_bytes(KEY, "little"))
        yield


def plain(value: Any) -> Any:
    """What compares whichever library it comes from, types of payloads included."""
    if dataclasses.is_dataclass(value):
        fields = [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return (type(value).__name__, *fields)
    if isinstance(value, BaseException):
        return (type(value).__name__, str(value), plain(getattr(value, "event_hint", None)))
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, (int, str, type(None))):
        return type(value).__name__, int(value) if isinstance(value, int) else value
    return str(value)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns or raises."""
    try:
        return plain(call())
    except Exception as error:
        return plain(error)


def make(library: Any, what: tuple[Any, ...]) -> Any:
    """An event of this library: its name and its arguments."""
    return getattr(library.events, what[0])(*what[1:])


def operate(library: Any, connection: Any, operation: tuple[Any, ...]) -> Any:
    """Do one thing to a connection: ("receive", data), ("events",), ("event",) for one of them, or ("send", ...)."""
    verb = operation[0]
    if verb == "receive":
        return outcome(lambda: connection.receive_data(operation[1]))
    if verb == "events":
        return outcome(lambda: list(connection.events()))
    if verb == "event":
        return outcome(lambda: next(connection.events(), None))
    return outcome(lambda: connection.send(make(library, operation[1:])))


def record(library: Any, connection: Any, operations: list[tuple[Any, ...]]) -> list[Any]:
    """What each operation answered, and the state behind it."""
    return [(operation, operate(library, connection, operation), str(connection.state)) for operation in operations]


def frame(first: int, payload: bytes, *, client: bool, bits: int = 0, size: int | None = None) -> bytes:
    """A frame as the peer of a ``client`` or of a server sends it. ``bits`` are turned over in its second byte,
    ``size`` is the number of bytes that the length takes if not the fewest."""
    length = len(payload)
    if size is None or length >> 8 * size:
        size = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[size]
    head = bytes((first, (short | (0 if client else 0x80)) ^ bits)) + (length.to_bytes(size, "big") if size else b"")
    if head[1] < 0x80:
        return head + payload
    return head + KEY + bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
