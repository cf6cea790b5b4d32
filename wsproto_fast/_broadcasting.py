"""What ``broadcast`` of either adapter does with those who could not be sent the message. Sends nothing itself."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from .exceptions import ConcurrencyError

__all__ = ["MAX_BACKLOG", "Skipped"]

#: Output that may wait for a peer that does not read. As large as the largest message it would accept by default.
MAX_BACKLOG = 2**20


class Skipped:
    """Logs who was skipped, or collects it for an ExceptionGroup."""

    def __init__(self, raise_exceptions: bool) -> None:
        if raise_exceptions and sys.version_info < (3, 11):
            # coverage is measured on newer versions; the tests run on 3.10 too
            raise ValueError("raise_exceptions requires at least Python 3.11")  # pragma: no cover
        self._raise = raise_exceptions
        self._exceptions: list[Exception] = []

    def add(self, connection: Any, exc: Exception) -> None:
        """This one was skipped, for that reason."""
        skipped = exc if isinstance(exc, ConcurrencyError) else RuntimeError("failed to write message")
        if self._raise:
            skipped.__cause__ = None if skipped is exc else exc
            self._exceptions.append(skipped)
        else:
            cause = "" if skipped is exc else f": {traceback.format_exception_only(type(exc), exc)[0].strip()}"
            connection.logger.warning("skipped broadcast: %s%s", skipped, cause)

    def tell(self) -> None:
        """Raise what was collected, if anything."""
        if sys.version_info >= (3, 11) and self._exceptions:
            raise ExceptionGroup("skipped broadcast", self._exceptions)  # noqa: F821 (in the branch for 3.11)
