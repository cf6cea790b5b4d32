"""What a session keeps while it has no connection: messages to send and messages to deliver.

Knows order and limits; knows no connection and nobody who waits.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

from ._codec import utf8_valid
from ._payloads import DataLike
from .constants import MESSAGE_COST
from .exceptions import LocalProtocolError

__all__ = ["Inbox", "Outbox", "Unsent", "unsent"]


class Unsent(NamedTuple):
    """A message as it will be sent."""

    payload: bytes
    text: bool
    compress: bool | None


class Outbox:
    """Messages in the order in which they were put there. ``None`` as a limit: there is none.

    A message larger than ``max_bytes`` fits when it is alone, so that a full outbox is always one that will empty.
    """

    def __init__(self, max_messages: int | None, max_bytes: int | None) -> None:
        if max_messages is not None and max_messages < 1:
            raise ValueError("the outbox must hold at least one message")
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: collections.deque[Unsent] = collections.deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def first(self) -> Unsent:
        """The message to send next; it stays until it is removed."""
        return self._messages[0]

    def put(self, unsent: Unsent) -> bool:
        """Add a message at the end; False if there is no room for it."""
        if self._messages and not self._fits(len(unsent.payload)):
            return False
        self._messages.append(unsent)
        self._bytes += len(unsent.payload)
        return True

    def pop(self) -> None:
        """Let go the first message: it was sent."""
        self._bytes -= len(self._messages.popleft().payload)

    def _fits(self, size: int) -> bool:
        if self._max_messages is not None and len(self._messages) >= self._max_messages:
            return False
        return self._max_bytes is None or size <= self._max_bytes - self._bytes


def unsent(message: DataLike, text: bool | None, compress: bool | None) -> Unsent:
    """Our own copy of a message, checked now as sending it would check it later.

    Raises UnicodeEncodeError for lone surrogates and LocalProtocolError for text that is not UTF-8.
    """
    if isinstance(message, str):
        return Unsent(message.encode(), text is not False, compress)
    payload = bytes(message)
    if text and not utf8_valid(payload):
        raise LocalProtocolError("text must be valid UTF-8")
    return Unsent(payload, bool(text), compress)


class Inbox:
    """Messages of connections that ended before somebody took them.

    Those of the last connection are all kept; of those before, at most ``max_bytes``, for a program that does not
    receive would otherwise gather more with each connection.
    """

    def __init__(self, max_bytes: int = 2**24) -> None:
        self._max_bytes = max_bytes
        self._messages: collections.deque[str | bytes] = collections.deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def append(self, message: str | bytes) -> None:
        self._messages.append(message)
        self._bytes += len(message) + MESSAGE_COST

    def popleft(self) -> str | bytes:
        message = self._messages.popleft()
        self._bytes -= len(message) + MESSAGE_COST
        return message

    def make_room(self) -> int:
        """Another connection's messages come. Returns how many of the oldest had to go."""
        dropped = 0
        while self._bytes > self._max_bytes:
            self.popleft()
            dropped += 1
        return dropped
