"""wsproto's exceptions, and the header values that a handshake computes. Knows no connection and no events."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .events import Event

__all__ = [
    "ACCEPT_GUID",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "generate_accept_token",
    "generate_nonce",
    "normed_header_dict",
    "split_comma_header",
]

# RFC 6455 1.3
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class ProtocolError(Exception):
    """Base of the two families."""


class LocalProtocolError(ProtocolError):
    """Our user asked for something that the state or the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol during the handshake. ``event_hint`` is the event to answer with, or None."""

    def __init__(self, message: str, event_hint: Event | None = None) -> None:
        super().__init__(message)
        self.event_hint = event_hint


def normed_header_dict(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Values by name; those of a name that stands several times are joined with commas (RFC 9110 5.3)."""
    values: dict[bytes, bytes] = {}
    for name, value in headers:
        values[name] = values[name] + b", " + value if name in values else value
    return values


def split_comma_header(value: bytes) -> list[str]:
    """The items of a comma-separated value. Knows no quoted strings. UnicodeDecodeError for what is not ASCII."""
    return [item.strip() for item in value.decode("ascii").split(",")]


def generate_nonce() -> bytes:
    """A new Sec-WebSocket-Key (RFC 6455 4.1)."""
    return base64.b64encode(os.urandom(16))


def generate_accept_token(token: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(token + ACCEPT_GUID).digest())
