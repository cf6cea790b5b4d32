"""What the engine tells: messages, pieces of them, control frames, the end. Knows no bytes and no state.

Events are immutable by convention, compare by value and match by position.
"""

from __future__ import annotations

from .constants import Opcode
from .exceptions import WebSocketException

__all__ = ["CloseReceived", "Closed", "Event", "Fragment", "Message", "Ping", "Pong"]


class Event:
    """Base of all events."""

    __slots__ = ()

    def _values(self) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._values()))

    def __repr__(self) -> str:
        fields = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__match_args__])  # type: ignore[attr-defined]
        return f"{type(self).__name__}({fields})"


class Message(Event):
    """A whole message. ``data`` is ``str`` for text and ``bytes`` for binary; with ``decode_text=False`` it is
    ``bytes`` for both and ``opcode`` tells which. The data belongs to the receiver (RFC 6455 5.6)."""

    __slots__ = ("data", "opcode")
    __match_args__ = ("data", "opcode")

    def __init__(self, data: str | bytes, opcode: Opcode) -> None:
        self.data = data
        self.opcode = opcode


class Fragment(Event):
    """A data frame (``delivery="frame"``) or a piece of one (``delivery="chunk"``).

    ``opcode`` is that of the message, TEXT or BINARY; ``first`` and ``fin`` mark the first and last event of the
    message, ``frame_fin`` the last event of a frame. Text is decoded as far as its characters are complete
    (RFC 6455 5.4).
    """

    __slots__ = ("data", "fin", "first", "frame_fin", "opcode")
    __match_args__ = ("opcode", "data", "first", "fin", "frame_fin")

    def __init__(
        self, opcode: Opcode, data: str | bytes, first: bool, fin: bool, frame_fin: bool = True
    ) -> None:
        self.opcode = opcode
        self.data = data
        self.first = first
        self.fin = fin
        self.frame_fin = frame_fin


class Ping(Event):
    """A Ping came; it is answered already unless ``auto_reply`` is off (RFC 6455 5.5.2)."""

    __slots__ = ("payload",)
    __match_args__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class Pong(Event):
    """A Pong came (RFC 6455 5.5.3).

    ``acknowledged`` holds the payloads of our pings that it answers, oldest first, empty for an unsolicited pong;
    ``sent_at`` is the time at which the keepalive sent the newest of them, None for pings of our user.
    """

    __slots__ = ("acknowledged", "payload", "sent_at")
    __match_args__ = ("payload", "acknowledged", "sent_at")

    def __init__(self, payload: bytes, acknowledged: tuple[bytes, ...] = (), sent_at: float | None = None) -> None:
        self.payload = payload
        self.acknowledged = acknowledged
        self.sent_at = sent_at


class CloseReceived(Event):
    """The peer's Close frame; ``code`` is 1005 if it carried none (RFC 6455 5.5.1)."""

    __slots__ = ("code", "reason")
    __match_args__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


class Closed(Event):
    """The last event: nothing more will come, and nothing more can be sent (RFC 6455 7.1.4).

    ``code`` is the peer's close code (1005: it sent none in its Close frame), else the code with which we failed the
    connection, else 1006: the transport ended first. ``error`` is the RemoteProtocolError that ended the connection.
    """

    __slots__ = ("code", "error", "reason")
    __match_args__ = ("code", "reason", "error")

    def __init__(self, code: int, reason: str, error: WebSocketException | None = None) -> None:
        self.code = code
        self.reason = reason
        self.error = error

    def _values(self) -> tuple[object, ...]:
        error = self.error  # exceptions compare by identity
        return self.code, self.reason, type(error).__name__, () if error is None else error.args


def new_message(data: str | bytes, opcode: Opcode) -> Message:
    """A Message, made without the cost of a call of its class."""
    event = Message.__new__(Message)
    event.data = data
    event.opcode = opcode
    return event


def new_fragment(opcode: Opcode, data: str | bytes, first: bool, fin: bool, frame_fin: bool) -> Fragment:
    """A Fragment, likewise."""
    event = Fragment.__new__(Fragment)
    event.opcode = opcode
    event.data = data
    event.first = first
    event.fin = fin
    event.frame_fin = frame_fin
    return event
