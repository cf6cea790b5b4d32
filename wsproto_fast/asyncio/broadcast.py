"""``broadcast``: one message to many connections, without waiting for any. Knows who gets it; frames nothing itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable

from .._payloads import DataLike, DataTypes
from ..constants import CloseCode, State
from ..exceptions import ConcurrencyError, WebSocketException
from ..prepared import PreparedMessage
from .connection import Connection

__all__ = ["broadcast"]

#: Output that may wait for a peer that does not read. As large as the largest message it would accept by default.
MAX_BACKLOG = 2**20


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send ``message`` to all ``connections``. Never waits.

    The message is framed once, and compressed once for all connections that agreed on the same way to compress.
    ``text=True`` sends (UTF-8) bytes as text, ``text=False`` a ``str`` as binary.

    Connections that are not open are skipped. So is, with a warning in its log, one in the middle of sending a
    fragmented message. One that has not read 1 MiB of what it was sent is closed with 1008: others must not pay for it.

    ``raise_exceptions`` collects what was skipped in an ExceptionGroup, raised at the end (Python 3.11 or later).
    Raises TypeError when ``message`` is neither str nor bytes-like.
    """
    if not isinstance(message, DataTypes):
        raise TypeError("data must be str or bytes")
    if raise_exceptions and sys.version_info < (3, 11):
        # coverage is measured on newer versions; the tests run on 3.10 too
        raise ValueError("raise_exceptions requires at least Python 3.11")  # pragma: no cover
    prepared = PreparedMessage(message, text=text)
    exceptions: list[Exception] = []
    for connection in connections:
        if connection.state is not State.OPEN:
            continue
        try:
            if connection._fragmenting is not None:
                raise ConcurrencyError("sending a fragmented message")
            if connection.buffered_amount > MAX_BACKLOG:
                connection._fail(CloseCode.POLICY_VIOLATION, "too slow")
            else:
                connection._send_prepared(prepared)
        except WebSocketException as exc:
            if raise_exceptions:
                exceptions.append(exc)
            else:
                connection.logger.warning(
                    "skipped broadcast: %s", traceback.format_exception_only(type(exc), exc)[0].strip()
                )
    if sys.version_info >= (3, 11) and exceptions:
        raise ExceptionGroup("skipped broadcast", exceptions)  # noqa: F821 (in the branch for 3.11)
