"""``broadcast``: one message to many connections, without waiting for any. Knows who gets it; frames nothing itself."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable

from .._payloads import DataLike
from ..constants import CloseCode, State
from ..exceptions import ConcurrencyError
from ..groups import prepare
from ..prepared import PreparedMessage
from ._core import send_to_ready
from .connection import Connection

__all__ = ["broadcast"]

#: Output that may wait for a peer that does not read. As large as the largest message it would accept by default.
MAX_BACKLOG = 2**20


def broadcast(
    connections: Iterable[Connection],
    message: DataLike | PreparedMessage,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send ``message`` to all ``connections``. Never waits; see ``Group`` for more to choose from.

    The message is framed once, and compressed once for all connections that agreed on the same way to compress.
    ``text=True`` sends (UTF-8) bytes as text, ``text=False`` a ``str`` as binary.

    Connections that are not open are skipped. So is, with a warning in its log, one in the middle of sending a
    fragmented message. One that has more than 1 MiB to read of what it was sent in earlier turns of the loop is closed
    with 1008: others must not pay for it.

    ``raise_exceptions`` collects what was skipped in an ExceptionGroup, raised at the end (Python 3.11 or later).
    Raises TypeError when ``message`` is neither str nor bytes-like nor a PreparedMessage.
    """
    prepared = prepare(message, text)
    if raise_exceptions and sys.version_info < (3, 11):
        # coverage is measured on newer versions; the tests run on 3.10 too
        raise ValueError("raise_exceptions requires at least Python 3.11")  # pragma: no cover
    exceptions: list[Exception] = []
    targets = tuple(connections)
    if targets:
        targets[0]._check_thread()  # the others are of the same loop
    for connection in send_to_ready(targets, prepared):
        try:
            if connection._ready():
                connection._send_prepared(prepared)
            elif connection.state is State.OPEN:
                _send_late(connection, prepared)
        except Exception as exc:
            skipped = exc if isinstance(exc, ConcurrencyError) else RuntimeError("failed to write message")
            if raise_exceptions:
                skipped.__cause__ = None if skipped is exc else exc
                exceptions.append(skipped)
            else:
                cause = "" if skipped is exc else f": {traceback.format_exception_only(type(exc), exc)[0].strip()}"
                connection.logger.warning("skipped broadcast: %s%s", skipped, cause)
    if sys.version_info >= (3, 11) and exceptions:
        raise ExceptionGroup("skipped broadcast", exceptions)  # noqa: F821 (in the branch for 3.11)


def _send_late(connection: Connection, prepared: PreparedMessage) -> None:
    """Send to a connection that is amid a fragmented message, or has much to send already."""
    if connection._fragmenting is not None:
        raise ConcurrencyError("sending a fragmented message")
    if connection._is_overdue(MAX_BACKLOG):
        connection._fail(CloseCode.POLICY_VIOLATION, "too slow")
    else:
        connection._send_prepared(prepared)
