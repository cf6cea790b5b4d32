"""``broadcast``: one message to many connections, without waiting for any. Knows who gets it; frames nothing itself."""

from __future__ import annotations

from collections.abc import Iterable

from .._broadcasting import MAX_BACKLOG, Skipped
from .._payloads import DataLike
from ..constants import CloseCode, State
from ..exceptions import ConcurrencyError
from ..groups import prepare
from ..prepared import PreparedMessage
from ._core import send_to_ready
from .connection import Connection

__all__ = ["broadcast"]


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
    skipped = Skipped(raise_exceptions)
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
            skipped.add(connection, exc)
    skipped.tell()


def _send_late(connection: Connection, prepared: PreparedMessage) -> None:
    """Send to a connection that is amid a fragmented message, or has much to send already."""
    if connection._fragmenting is not None:
        raise ConcurrencyError("sending a fragmented message")
    if connection._is_overdue(MAX_BACKLOG):
        connection._fail(CloseCode.POLICY_VIOLATION, "too slow")
    else:
        connection._send_prepared(prepared)
