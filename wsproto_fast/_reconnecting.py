"""When and where a session connects again. Knows URIs, delays and errors; knows no connection, and time as numbers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence

from .backoff import process_exception
from .exceptions import ConnectionClosed, InvalidStatus

__all__ = ["Attempts", "SessionState", "may_pass"]

#: Answers that ask for another attempt later: Request Timeout, Too Early, Too Many Requests.
_LATER = (408, 425, 429)


class SessionState(enum.Enum):
    """What a session is doing."""

    CONNECTING = "connecting"  # up to the end of on_open
    OPEN = "open"
    WAITING = "waiting"  # for the next attempt
    CLOSED = "closed"  # for good, or not yet entered


def may_pass(exc: Exception) -> bool:
    """Whether another attempt makes sense after this: more than what makes ``connect`` try again."""
    if isinstance(exc, ConnectionClosed):
        return True
    if isinstance(exc, InvalidStatus) and exc.response.status_code in _LATER:
        return True
    return process_exception(exc) is None


class Attempts:
    """Which URI is next and how long to wait before.

    The URIs stand in order of preference. An attempt that failed is followed by one with the next URI at once, and by a
    delay when all have failed. A connection that stayed open for longer than the last delay is a success: the next
    attempt waits for the first delay and takes the first URI. One that did not has failed like one that never opened,
    or a server that accepts and drops everybody would be asked as often as if it worked.
    """

    def __init__(self, uris: Sequence[str], delays: Callable[[], Iterable[float]]) -> None:
        if not uris:
            raise ValueError("a session needs a URI")
        self._uris = uris
        self._make_delays = delays
        self._delays: Iterator[float] = iter(delays())
        self._last_delay = 0.0
        #: How many attempts in a row have failed.
        self.failed = 0

    @property
    def uri(self) -> str:
        """The URI of the next attempt."""
        return self._uris[self.failed % len(self._uris)]

    def ended(self, open_for: float | None) -> float | None:
        """An attempt is over: ``open_for`` seconds long, or None if it did not open.

        Returns how long to wait before the next; None when the delays are at their end, and so the attempts.
        """
        if open_for is not None and open_for >= self._last_delay:
            self.failed = 0
            self._delays = iter(self._make_delays())
        else:
            self.failed += 1
            if self.failed % len(self._uris):
                return 0.0
        delay = next(self._delays, None)
        if delay is not None:
            self._last_delay = delay
        return delay
