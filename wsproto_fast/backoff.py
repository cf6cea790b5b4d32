"""Whether and when to connect again. Knows errors and delays; knows no connection, and no time but as numbers."""

from __future__ import annotations

import random
from collections.abc import Generator

from .exceptions import InvalidMessage, InvalidStatus

__all__ = ["backoff", "process_exception"]

#: Internal Server Error, Bad Gateway, Service Unavailable, Gateway Timeout: a server that restarts, or one behind it.
_TRANSIENT = (500, 502, 503, 504)


def backoff(
    initial_delay: float = 5, min_delay: float = 3.1, max_delay: float = 90, factor: float = 1.618
) -> Generator[float, None, None]:
    """Endless delays in seconds, one before each new attempt.

    The first is random, from 0 to ``initial_delay``, so that the clients of a server that failed do not come back all
    at once (RFC 6455 7.2.3); the second is ``min_delay``, and each later one ``factor`` times as long, up to
    ``max_delay``.
    """
    yield random.random() * initial_delay
    delay = min_delay
    while delay < max_delay:
        yield delay
        delay *= factor
    while True:
        yield max_delay


def process_exception(exc: Exception) -> Exception | None:
    """None if another attempt to connect may succeed, else ``exc``, which is to be raised.

    Errors of the network may pass: OSError, TimeoutError, InvalidMessage because of an EOFError. So may InvalidStatus
    with 500, 502, 503 or 504.
    """
    # asyncio.TimeoutError and socket.timeout are TimeoutError, and so OSError, from Python 3.11 on.
    if isinstance(exc, (OSError, TimeoutError)):
        return None
    if isinstance(exc, InvalidMessage) and isinstance(exc.__cause__, EOFError):
        return None
    if isinstance(exc, InvalidStatus) and exc.response.status_code in _TRANSIENT:
        return None
    return exc
