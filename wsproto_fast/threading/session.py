"""One object over reconnects: ``Session``.

Knows who waits for what; what becomes of messages while there is no connection, and when there is another attempt, is
``SessionBase``'s, and all else ``connect``'s and its connections'.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Literal, overload

from .._payloads import DataLike, DataTypes
from .._reconnecting import SessionState, may_pass
from .._session import SessionBase
from ..backoff import backoff
from ..constants import CloseCode, SendStatus
from ..control import checked_close
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from ..http11 import HeadersLike
from .client import ClientConnection, reconnect

__all__ = ["Session", "SessionState"]


class Session(SessionBase):
    """A client that connects again when its connection ends: ``with``, iteration, ``recv``, ``send``.

    Any thread may use it; one at a time may receive. A thread of its own makes the connections.

    ``uri`` is one URI; several, in order of preference; or a function that is asked for one at each attempt.
    ``additional_headers`` may be a function too. Other arguments are those of ``connect``.

    ``on_open(connection)`` runs, in the session's thread, after each opening handshake. Only when it is done do
    messages of the outbox and of the session flow: it may send and receive to authenticate and subscribe.

    ``outbox`` says what ``send`` does with a message while there is no connection: "keep" it until there is one, up to
    ``outbox_limit``, a number of messages or ``(messages, bytes)``, and then wait for room; "drop" it and count it in
    ``dropped``; or "error", raise ConnectionClosedError.

    ``reconnect_delays()`` gives the seconds to wait between attempts; the session ends when they do. After each attempt
    that fails and each connection that ends, ``give_up(session, exc)`` says whether to end the session with ``exc``. By
    default that is what another attempt cannot mend: any exception but OSError, TimeoutError, ConnectionClosed however
    the connection was closed, a connection lost in the handshake, and the statuses 408, 425, 429, 500, 502, 503, 504.

    ``on_state(session, state)`` is told each change of ``state``.

    Raises at once what ``connect`` raises for its arguments.
    """

    def __init__(
        self,
        uri: str | Sequence[str] | Callable[[], str],
        *,
        on_open: Callable[[ClientConnection], object] | None = None,
        outbox: Literal["keep", "drop", "error"] = "keep",
        outbox_limit: int | tuple[int | None, int | None] | None = (1000, 2**20),
        reconnect_delays: Callable[[], Iterable[float]] = backoff,
        give_up: Callable[[Session, Exception], bool] | None = None,
        on_state: Callable[[Session, SessionState], object] | None = None,
        additional_headers: HeadersLike | Callable[[], HeadersLike] | None = None,
        **arguments: Any,
    ) -> None:
        self._set_up(uri, additional_headers, outbox, outbox_limit, reconnect_delays, arguments, reconnect)
        self._on_open = on_open
        self._on_state = on_state
        self._give_up = give_up
        #: Guards all of it, and tells of changes.
        self._changed = threading.Condition(threading.RLock())
        #: What on_open has.
        self._opening: ClientConnection | None = None
        #: Who sends although there was no room: in the order of their calls.
        self._line = threading.Lock()

    # What it is

    @property
    def connection(self) -> ClientConnection | None:
        """The connection while ``state`` is OPEN, for all that is not here; it may have ended a moment ago."""
        connection: ClientConnection | None = self._connection
        return connection

    def wait_open(self, timeout: float | None = None) -> ClientConnection:
        """Wait for the session to be open, and return its connection. Raises what ended the session, and
        TimeoutError."""
        deadline = _deadline(timeout)
        with self._changed:
            while True:
                self._check_running()
                connection: ClientConnection | None = self._open_connection()
                if connection is not None:
                    return connection
                self._wait(deadline)

    # Receiving

    def __iter__(self) -> Iterator[str | bytes]:
        """Messages of one connection after the other, until the session is closed; what ended it if that was an
        error."""
        try:
            while True:
                yield self.recv()
        except ConnectionClosedOK:
            return

    @overload
    def recv(self, timeout: float | None, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None, decode: Literal[False]) -> bytes: ...

    @overload
    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes:
        """The next message: ``str`` for text and ``bytes`` for binary; ``decode`` True or False: ``str`` or ``bytes``.

        Waits for a connection if there is none, ``timeout`` seconds at most in all; what was received before a
        connection broke comes before the next connection's messages.

        Raises TimeoutError; what ended the session, ConnectionClosedOK if it was closed; ConcurrencyError while another
        thread is in it; UnicodeDecodeError, of which that message is gone, if ``decode`` is True and it is no UTF-8.
        """
        raw = False if decode is False else None
        message: str | bytes = self._receive(
            timeout, lambda connection, rest: connection.recv(rest, raw), lambda message: message
        )
        return self._decode(message, decode)

    def recv_json(self, timeout: float | None = None) -> Any:
        """The next message, parsed by the codec given as ``json``. Raises what ``recv`` and the codec raise."""
        return self._receive(timeout, lambda connection, rest: connection.recv_json(rest), self._codec.loads)

    def _receive(
        self, timeout: float | None, take: Callable[[Any, float | None], Any], convert: Callable[[Any], Any]
    ) -> Any:
        deadline = _deadline(timeout)
        with self._changed:
            if self._receiving:
                raise ConcurrencyError("cannot call recv while another thread is already running recv")
            self._receiving = True
            try:
                while not self._inbox:
                    connection = self._readable
                    if connection is None:
                        if (self._closing and self._state is SessionState.CLOSED) or self._runner is None:
                            self._raise_ended()
                        self._wait(deadline)
                        continue
                    self._reading = True
                    self._changed.release()
                    try:
                        return take(connection, _rest(deadline))
                    except ConnectionClosed:
                        pass
                    finally:
                        self._changed.acquire()
                        self._reading = False
                        self._notify()
                    while self._readable is connection:  # its transport is still closing
                        self._wait(deadline)
                return convert(self._inbox.popleft())
            finally:
                self._receiving = False

    # Sending

    def send(
        self, message: DataLike, *, text: bool | None = None, compress: bool | None = None, timeout: float | None = None
    ) -> None:
        """Send a message as a connection's ``send`` does, or do what ``outbox`` says while there is no connection.

        Waits while the peer does not read what was sent before, or the outbox is full, for ``timeout`` seconds at most:
        TimeoutError means that the message was neither sent nor kept. Fragments are for a connection's ``send``.

        When it returns, the message was handed to a connection or is in the outbox. It is handed to one connection
        only, never twice; the peer may not have received it if that connection breaks.

        Raises what ended the session, ConnectionClosedOK if it was closed; with "error", ConnectionClosed while there
        is no connection; TypeError, UnicodeEncodeError and LocalProtocolError as a connection does.
        """
        if not isinstance(message, DataTypes):
            raise TypeError("data must be str or bytes-like")
        with self._changed:
            if not self._blocked and self._send_now(message, text, compress):
                return
            self._blocked += 1
        deadline = _deadline(timeout)
        try:
            if not self._line.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)):
                raise TimeoutError("timed out while waiting to send")
            try:
                self._take(message, text, compress, deadline)
            finally:
                self._line.release()
        finally:
            with self._changed:
                self._blocked -= 1

    def _take(self, message: DataLike, text: bool | None, compress: bool | None, deadline: float | None) -> None:
        """Hand a message to the connection, or do with it what the policy says, when there is room."""
        while True:
            with self._changed:
                self._check_running()
                connection = self._direct()
                if connection is None:
                    if self._keep(message, text, compress):
                        return
                    self._wait(deadline)
                    continue
            try:
                connection.send(message, text=text, compress=compress, timeout=_rest(deadline))
                return
            except ConnectionClosed:  # it was not sent
                if self._closing or self._policy == "error":
                    raise

    def send_json(self, data: Any, *, compress: bool | None = None, timeout: float | None = None) -> None:
        """Send ``data`` as JSON in a text message, made now by the codec given as ``json``: see ``send``."""
        self.send(self._codec.dumps(data), text=True, compress=compress, timeout=timeout)

    def try_send(self, message: DataLike, *, text: bool | None = None, compress: bool | None = None) -> SendStatus:
        """Send a message without waiting: SENT or QUEUED, or FULL, which is false, if it was not taken.

        With "keep", QUEUED also means that it is in the outbox, and FULL that there is no room; with "drop", FULL that
        there is no connection: it is not counted in ``dropped``. Raises what ``send`` raises.
        """
        with self._changed:
            return self._try_send(message, text, compress)

    # The runner

    def _run(self) -> None:
        try:
            while True:
                error = self._attempt()
                with self._changed:
                    delay = None if self._closing else self._judge(error, monotonic())
                    if delay is None:
                        return
                    self._enter(SessionState.WAITING)
                    self._changed.wait_for(lambda: self._closing, delay)
                    if self._closing:
                        return
        except Exception as exc:  # of our user's rule, or delays
            with self._changed:
                self._end_with(exc)
        finally:
            with self._changed:
                if self._state is not SessionState.CLOSED:
                    self._end()

    def _attempt(self) -> Exception:
        """Connect and use the connection until its end; returns why it ended."""
        with self._changed:
            if self._closing:
                return ConnectionClosedOK(None, None)
            self._enter(SessionState.CONNECTING)
            self._opened_at = None
        try:
            uri = self._attempts.uri if self._uri is None else self._uri()
            headers = self._headers() if callable(self._headers) else self._headers
            connection = reconnect(uri, additional_headers=headers, **self._arguments).connect()
            try:
                return self._use(connection)
            except BaseException as exc:
                connection.__exit__(type(exc), exc, None)
                raise
        except Exception as exc:
            return exc
        finally:
            with self._changed:
                self._connection = self._readable = self._opening = None
                self._notify()

    def _use(self, connection: ClientConnection) -> Exception:
        if self._on_open is not None:
            with self._changed:
                if not self._closing:
                    self._opening = connection
            if self._opening is not None:
                self._on_open(connection)
        with self._changed:
            if not self._closing:
                self._opened_at = monotonic()
                self._connection = self._readable = connection
                self._enter(SessionState.OPEN)
        if self._opened_at is None:  # somebody closed the session meanwhile
            connection.close()
            return ConnectionClosedOK(None, None)
        with contextlib.suppress(ConnectionClosed):
            self._flush(connection)
        connection.wait_closed()
        with self._changed:
            self._readable = None
            self._changed.wait_for(lambda: not self._reading)  # a thread is about to take a message
            return self._receive_rest(connection)

    def _flush(self, connection: ClientConnection) -> None:
        """Send what is in the outbox. What could not be sent stays at its front."""
        while True:
            with self._changed:
                if not self._outbox:
                    return
                first = self._outbox.first
            connection.send(first.payload, text=first.text, compress=first.compress)
            with self._changed:
                self._outbox.pop()
                self._notify()

    def _receive_rest(self, connection: ClientConnection) -> ConnectionClosed:
        """Keep the messages that nobody has taken; returns why the connection ended."""
        self._make_room()
        receives = True
        while True:
            try:
                if receives:
                    self._inbox.append(connection.recv())
                else:
                    connection.pong()  # raises the same
            except ConcurrencyError:  # messages go to on_message, or somebody receives without us
                receives = False
            except ConnectionClosed as exc:
                return exc

    def _hopeless(self, exc: Exception) -> bool:
        return not may_pass(exc) if self._give_up is None else self._give_up(self, exc)

    def _tell_state(self, state: SessionState) -> None:
        if self._on_state is not None:
            self._on_state(self, state)

    # Waiting

    def _wait(self, deadline: float | None) -> None:
        """Wait until something of the session may be another."""
        if threading.current_thread() is self._runner:
            raise ConcurrencyError("on_open must use its connection: the session waits for on_open")
        rest = _rest(deadline)
        if rest is not None and rest <= 0:
            raise TimeoutError("timed out while waiting for a connection")
        self._changed.wait(None if rest is None else min(rest, threading.TIMEOUT_MAX))

    def _notify(self) -> None:
        self._changed.notify_all()

    # The end

    def __enter__(self) -> Session:
        """Begin to connect; does not wait for it: see ``wait_open``. Raises RuntimeError the second time."""
        with self._changed:
            if self._runner is not None:
                raise RuntimeError("a session can be entered only once")
            self._state = SessionState.CONNECTING
            self._runner = threading.Thread(target=self._run, name="wsproto_fast-session", daemon=True)
            self._runner.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close as ``close`` does, with 1011 after an exception."""
        self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """End the session: send what is in the outbox if there is a connection, close it, make no more attempts.

        Each of the two takes at most about ``close_timeout``. Messages received can still be taken. An attempt under
        way is not waited for: what comes of it is closed. Does nothing but wait when the session is closing or ended.
        Raises LocalProtocolError when the code or reason must not be sent.
        """
        checked_close(code, reason)  # before anything is changed
        with self._changed:
            if self._runner is None:
                return
            first = not self._closing
            self._closing = True
            self._notify()
            connection = self._connection
            if connection is None and self._state is not SessionState.CLOSED:
                self._end()
            if connection is not None and first:
                flushed = lambda: not self._outbox or self._open_connection() is None  # noqa: E731
                self._changed.wait_for(flushed, self._close_timeout)
        if connection is None:
            opening = self._opening
            if opening is not None:  # so that on_open ends
                opening.close(code, reason)
            return
        if first:
            connection.close(code, reason)
        if threading.current_thread() is not self._runner:
            self._runner.join()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else monotonic() + timeout


def _rest(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - monotonic()
