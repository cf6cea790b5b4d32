"""What a session of either adapter keeps and decides: states, the outbox's policy, when to try again.

Waits for nothing and opens nothing: what is called here is called from one place at a time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn

from ._outbox import Inbox, Outbox, unsent
from ._payloads import DataLike, DataTypes
from ._reconnecting import Attempts, SessionState
from ._settings import CLOSE_TIMEOUT, MAX_SIZE, JSONCodec, make_limits
from .constants import SendStatus, State
from .exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidState

__all__ = ["SessionBase"]

_logger = logging.getLogger("wsproto_fast.session")


class SessionBase:
    """The part of ``Session`` that knows no I/O."""

    #: In what statement it is used.
    _entering = "with"

    def _set_up(
        self,
        uri: str | Sequence[str] | Callable[[], Any],
        headers: Any,
        outbox: str,
        outbox_limit: int | tuple[int | None, int | None] | None,
        reconnect_delays: Callable[[], Iterable[float]],
        arguments: dict[str, Any],
        check: Callable[..., object],
    ) -> None:
        """``check`` raises what is wrong with the arguments of ``connect``."""
        if outbox not in ("keep", "drop", "error"):
            raise ValueError(f"unknown outbox policy: {outbox!r}")
        if arguments.get("sock") is not None:
            raise ValueError("a socket connects once; a session cannot use it")
        max_messages, max_bytes = outbox_limit if isinstance(outbox_limit, tuple) else (outbox_limit, None)
        self._arguments = arguments
        self._headers = headers
        self._uri = uri if callable(uri) else None
        uris = () if callable(uri) else (uri,) if isinstance(uri, str) else tuple(uri)
        for each in uris:
            check(each, additional_headers=None if callable(headers) else headers, **arguments)
        self._attempts = Attempts(("",) if callable(uri) else uris, reconnect_delays)
        self._policy = outbox
        self._outbox = Outbox(max_messages, max_bytes)
        self._inbox = Inbox()
        self._codec = JSONCodec(arguments.get("json", json))
        self._logger = arguments.get("logger") or _logger
        self._close_timeout = make_limits(
            arguments.get("limits"), MAX_SIZE, None, arguments.get("close_timeout", CLOSE_TIMEOUT)
        ).close_timeout
        #: Messages that were not sent because of the policy "drop".
        self.dropped = 0
        #: Messages of ended connections that nobody took, and that had to go for newer ones.
        self.missed = 0
        self._state = SessionState.CLOSED
        #: Makes connections and looks after them.
        self._runner: Any = None
        self._connection: Any = None
        self._opened_at: float | None = None
        #: Where ``recv`` takes messages from: the connection, until its end; then what is left goes to the inbox.
        self._readable: Any = None
        self._receiving = False
        self._reading = False  # from the connection
        #: How many sends found no room or somebody waiting for it.
        self._blocked = 0
        #: No more messages are taken, and no more attempts made.
        self._closing = False
        #: Why the last attempt failed or the last connection ended.
        self._last_error: Exception | None = None
        #: What ended the session, if it was not ``close``.
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None

    # What subclasses do

    def _notify(self) -> None:
        """Something of all this is another: tell those who wait."""
        raise NotImplementedError

    def _hopeless(self, exc: Exception) -> bool:
        """Whether ``exc`` is to end the session."""
        raise NotImplementedError

    def _tell_state(self, state: SessionState) -> None:
        raise NotImplementedError

    # What it is

    @property
    def state(self) -> SessionState:
        """CONNECTING, OPEN, WAITING for the next attempt, or CLOSED: not entered yet, or ended."""
        return self._state

    @property
    def attempts(self) -> int:
        """How many attempts in a row have failed; a connection that ended at once has too."""
        return self._attempts.failed

    @property
    def pending(self) -> int:
        """How many messages wait in the outbox."""
        return len(self._outbox)

    # Messages

    @staticmethod
    def _decode(message: str | bytes, decode: bool | None) -> str | bytes:
        """A message as ``recv`` is to give it."""
        if decode is None:
            return message
        if isinstance(message, str):
            return message if decode else message.encode()
        return message.decode() if decode else message

    def _try_send(self, message: DataLike, text: bool | None, compress: bool | None) -> SendStatus:
        _check_data(message)
        self._check_running()
        if self._blocked:
            return SendStatus.FULL
        connection = self._direct()
        if connection is not None:
            status: SendStatus = connection.try_send(message, text=text, compress=compress)
            return status
        if self._policy == "error":
            self._raise_not_connected()
        if self._policy == "drop":
            return SendStatus.FULL
        kept = self._outbox.put(unsent(message, text, compress))
        return SendStatus.QUEUED if kept else SendStatus.FULL

    def _send_now(self, message: DataLike, text: bool | None, compress: bool | None) -> bool:
        """Hand a message to the connection, if there is one that takes it without waiting."""
        self._check_running()
        connection = self._direct()
        return connection is not None and bool(connection.try_send(message, text=text, compress=compress))

    def _keep(self, message: DataLike, text: bool | None, compress: bool | None) -> bool:
        """There is no connection: do with a message what the policy says; False if the outbox has no room."""
        if self._policy == "error":
            self._raise_not_connected()
        if self._policy == "drop":
            self.dropped += 1
            return True
        return self._outbox.put(unsent(message, text, compress))

    def _open_connection(self) -> Any:
        connection = self._connection
        return connection if connection is not None and connection.state is State.OPEN else None

    def _direct(self) -> Any:
        """The connection if a message may go to it now: those in the outbox come first."""
        return None if self._outbox else self._open_connection()

    def _raise_not_connected(self) -> NoReturn:
        raise ConnectionClosedError(None, None) from self._last_error

    def _make_room(self) -> None:
        """Another connection's messages go to the inbox."""
        missed = self._inbox.make_room()
        if missed:
            self.missed += missed
            self._logger.warning("nobody received %d messages of earlier connections: dropped", missed)

    # Attempts

    def _judge(self, error: Exception, now: float) -> float | None:
        """Seconds to wait before the next attempt, or None: no more attempts."""
        self._last_error = error
        delay = self._attempts.ended(None if self._opened_at is None else now - self._opened_at)
        if delay is None or self._hopeless(error):
            self._end_with(error)
            return None
        level = logging.INFO if isinstance(error, ConnectionClosedOK) else logging.WARNING
        what = "connecting failed" if self._opened_at is None else "connection ended"
        self._logger.log(level, "%s, next attempt in %.1f seconds: %s", what, delay, describe(error))
        return delay

    def _end_with(self, error: Exception) -> None:
        self._closing = True
        self._error = error
        self._traceback = error.__traceback__
        self._logger.error("session ended: %s", describe(error))

    def _end(self) -> None:
        """No attempt is under way, and none will be."""
        self._closing = True
        if self._outbox:
            self._logger.warning("session ended: %d messages of the outbox were not sent", len(self._outbox))
        self._enter(SessionState.CLOSED)

    def _enter(self, state: SessionState) -> None:
        self._state = state
        try:
            self._tell_state(state)
        except Exception:
            self._logger.exception("on_state failed")
        self._notify()

    # The end

    def _check_running(self) -> None:
        if self._closing or self._runner is None:
            self._raise_ended()

    def _raise_ended(self) -> NoReturn:
        if self._runner is None:
            raise InvalidState(f"the session was not entered: use it in `{self._entering}`")
        if self._error is None:
            raise ConnectionClosedOK(None, None)
        raise self._error.with_traceback(self._traceback)  # whoever raised it before me left his frames in it


def _check_data(message: object) -> None:
    if not isinstance(message, DataTypes):
        raise TypeError("data must be str or bytes-like")


def describe(exc: Exception) -> str:
    """An error in a line of a log."""
    return f"{type(exc).__name__}: {exc}"
