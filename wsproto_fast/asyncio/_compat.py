"""What differs between the versions of asyncio. Knows no WebSocket."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType

__all__ = ["HAS_TLS_IN_TLS", "WRITELINES_IS_SAFE", "timeout"]

#: gh-127655: in these releases writelines() never calls pause_writing(), so a stalled peer's output grew without bound.
WRITELINES_IS_SAFE = not (3, 12, 0) <= sys.version_info < (3, 12, 9) and not (3, 13, 0) <= sys.version_info < (3, 13, 2)

#: Whether ``loop.start_tls`` takes the transport of a TLS connection.
HAS_TLS_IN_TLS = sys.version_info >= (3, 11)

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:  # pragma: no cover (coverage is measured on newer versions; the tests run on 3.10 too)

    class timeout:  # noqa: N801 (asyncio's name)
        """asyncio.timeout() as far as it is used here: entered at once, never rescheduled, not nested."""

        def __init__(self, delay: float | None) -> None:
            self._delay = delay
            self._expired = False

        async def __aenter__(self) -> timeout:
            self._task = asyncio.current_task()
            self._handle = None
            if self._delay is not None:
                self._handle = asyncio.get_running_loop().call_later(self._delay, self._expire)
            return self

        def _expire(self) -> None:
            assert self._task is not None
            self._expired = True
            self._task.cancel()

        async def __aexit__(
            self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
        ) -> None:
            if self._handle is not None:
                self._handle.cancel()
            if self._expired and exc_type is asyncio.CancelledError:
                raise TimeoutError from exc
