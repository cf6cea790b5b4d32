"""wsproto's events: what a connection tells, and what it is told to send. Knows no bytes and no state.

All are frozen dataclasses. The two that tell messages are made by hand-written code, which takes half the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .extensions import Extension
    from .typing import Headers

__all__ = [
    "AcceptConnection",
    "BytesMessage",
    "CloseConnection",
    "Event",
    "Message",
    "Ping",
    "Pong",
    "RejectConnection",
    "RejectData",
    "Request",
    "TextMessage",
]


class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Request(Event):
    """The client's request to upgrade (RFC 6455 4.1).

    ``extensions`` are Extension objects when it is sent, and the header's items as ``str`` when it was received.
    ``extra_headers`` are all others but Host and the lists of extensions and subprotocols.
    """

    host: str
    target: str
    extensions: Sequence[Extension] | Sequence[str] = field(default_factory=list)
    extra_headers: Headers = field(default_factory=list)
    subprotocols: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AcceptConnection(Event):
    """The server's consent, sent or received (RFC 6455 4.2.2). ``extensions`` are those to use, or in use."""

    subprotocol: str | None = None
    extensions: list[Extension] = field(default_factory=list)
    extra_headers: Headers = field(default_factory=list)


@dataclass(frozen=True)
class RejectConnection(Event):
    """The head of an HTTP response that is no consent.

    To send: with ``has_body`` RejectData must follow, without it the response is complete. Received: RejectData
    follows whenever ``has_body`` is set, which only interim responses (1xx) have not.
    """

    status_code: int = 400
    headers: Headers = field(default_factory=list)
    has_body: bool = False


@dataclass(frozen=True)
class RejectData(Event):
    """A piece of the body that follows RejectConnection; ``body_finished`` marks the last one."""

    data: bytes
    body_finished: bool = True


@dataclass(frozen=True)
class CloseConnection(Event):
    """A Close frame, sent or received (RFC 6455 5.5.1), or the loss of the connection (1006).

    Also what to send when the peer broke the protocol: then the state is still OPEN.
    """

    code: int
    reason: str | None = None

    def response(self) -> CloseConnection:
        """The Close frame that answers this one. It is not sent by itself."""
        return CloseConnection(code=self.code, reason=self.reason)


T = TypeVar("T", bytes | bytearray, str)


@dataclass(frozen=True, init=False)
class Message(Event, Generic[T]):
    """A message, or a piece of one, as it came or is to be sent (RFC 6455 5.6).

    A piece with ``frame_finished`` ends a frame, one with ``message_finished`` the message.
    """

    data: T
    frame_finished: bool = True
    message_finished: bool = True

    def __init__(self, data: T, frame_finished: bool = True, message_finished: bool = True) -> None:
        # What is not stored is the class's default. The way of a frozen dataclass, object.__setattr__, takes twice as
        # long: 0.8 us against 0.4.
        fields = self.__dict__
        fields["data"] = data
        if frame_finished is not True:
            fields["frame_finished"] = frame_finished
        if message_finished is not True:
            fields["message_finished"] = message_finished


@dataclass(frozen=True, init=False)
class TextMessage(Message[str]):
    """Text: whole characters, so a piece may have fewer bytes than came."""


@dataclass(frozen=True, init=False)
class BytesMessage(Message[bytearray | bytes]):
    """Binary data. What is received is ``bytes``."""


@dataclass(frozen=True)
class Ping(Event):
    """A Ping, sent or received (RFC 6455 5.5.2). It is not answered by itself."""

    payload: bytes = b""

    def response(self) -> Pong:
        """The Pong that answers this Ping."""
        return Pong(payload=self.payload)


@dataclass(frozen=True)
class Pong(Event):
    """A Pong, sent or received (RFC 6455 5.5.3)."""

    payload: bytes = b""
