"""One object over reconnects: ``Session``.

Knows who waits for what and what becomes of messages while there is no connection; all else is ``connect``'s and its
connections'.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar, overload

from .._outbox import Inbox, Outbox, unsent
from .._payloads import DataLike, DataTypes
from .._reconnecting import Attempts, SessionState, may_pass
from .._settings import CLOSE_TIMEOUT, MAX_SIZE, JSONCodec, make_limits
from ..backoff import backoff
from ..constants import BURST, CloseCode, SendStatus, State
from ..control import checked_close
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidState
from ..http11 import HeadersLike
from . import _compat
from .client import ClientConnection, connect

__all__ = ["Session", "SessionState"]

T = TypeVar("T")

_logger = logging.getLogger("wsproto_fast.session")


class Session:
    """A client that connects again when its connection ends: ``async with``, ``async for``, ``recv``, ``send``.

    ``uri`` is one URI; several, in order of preference; or a function, plain or async, that is asked for one at each
    attempt. ``additional_headers`` may be such a function too. Other arguments are those of ``connect``.

    ``on_open(connection)``, plain or async, runs after each opening handshake. Only when it is done do messages of the
    outbox and of the session flow: it may send and receive to authenticate and subscribe.

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
        uri: str | Sequence[str] | Callable[[], str | Awaitable[str]],
        *,
        on_open: Callable[[ClientConnection], object] | None = None,
        outbox: Literal["keep", "drop", "error"] = "keep",
        outbox_limit: int | tuple[int | None, int | None] | None = (1000, 2**20),
        reconnect_delays: Callable[[], Iterable[float]] = backoff,
        give_up: Callable[[Session, Exception], bool] | None = None,
        on_state: Callable[[Session, SessionState], object] | None = None,
        additional_headers: HeadersLike | Callable[[], HeadersLike | Awaitable[HeadersLike]] | None = None,
        **arguments: Any,
    ) -> None:
        if outbox not in ("keep", "drop", "error"):
            raise ValueError(f"unknown outbox policy: {outbox!r}")
        if arguments.get("sock") is not None:
            raise ValueError("a socket connects once; a session cannot use it")
        max_messages, max_bytes = outbox_limit if isinstance(outbox_limit, tuple) else (outbox_limit, None)
        self._arguments = arguments
        self._headers = additional_headers
        self._uri = uri if callable(uri) else None
        uris = () if callable(uri) else (uri,) if isinstance(uri, str) else tuple(uri)
        for each in uris:
            # It checks its arguments.
            connect(each, additional_headers=None if callable(additional_headers) else additional_headers, **arguments)
        self._attempts = Attempts(("",) if callable(uri) else uris, reconnect_delays)
        self._on_open = on_open
        self._on_state = on_state
        self._give_up = _hopeless if give_up is None else give_up
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
        #: Makes connections and looks after them, for that must go on although nobody is in a method of the session.
        self._runner: asyncio.Task[None] | None = None
        self._connection: ClientConnection | None = None
        self._opened_at: float | None = None
        #: Where ``recv`` takes messages from: the connection, until its end; then what is left goes to the inbox.
        self._readable: ClientConnection | None = None
        self._receiving = False
        self._reading = False  # from the connection
        #: Tasks that wait until something of all this is another.
        self._waiters: set[asyncio.Future[None]] = set()
        #: How many sends found no room or somebody waiting for it, and whose turn it is.
        self._blocked = 0
        self._burst = 0
        self._line = asyncio.Lock()
        #: No more messages are taken, and no more attempts made.
        self._closing = False
        #: Why the last attempt failed or the last connection ended.
        self._last_error: Exception | None = None
        #: What ended the session, if it was not ``close``.
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None

    # What it is

    @property
    def state(self) -> SessionState:
        """CONNECTING, OPEN, WAITING for the next attempt, or CLOSED: not entered yet, or ended."""
        return self._state

    @property
    def connection(self) -> ClientConnection | None:
        """The connection while ``state`` is OPEN, for all that is not here; it may have ended a moment ago."""
        return self._connection

    @property
    def attempts(self) -> int:
        """How many attempts in a row have failed; a connection that ended at once has too."""
        return self._attempts.failed

    @property
    def pending(self) -> int:
        """How many messages wait in the outbox."""
        return len(self._outbox)

    async def wait_open(self) -> ClientConnection:
        """Wait for the session to be open, and return its connection. Raises what ended the session."""
        while True:
            self._check_running()
            connection = self._open_connection()
            if connection is not None:
                return connection
            await self._changed()

    # Receiving

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Messages of one connection after the other, until the session is closed; what ended it if that was an
        error."""
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...

    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...

    @overload
    async def recv(self, decode: bool | None = None) -> str | bytes: ...

    async def recv(self, decode: bool | None = None) -> str | bytes:
        """The next message: ``str`` for text and ``bytes`` for binary; ``decode`` True or False: ``str`` or ``bytes``.

        Waits for a connection if there is none; what was received before a connection broke comes before the next
        connection's messages. Cancelling it loses nothing.

        Raises what ended the session, ConnectionClosedOK if it was closed; ConcurrencyError while another task is in
        it; UnicodeDecodeError, of which that message is gone, if ``decode`` is True and it is no UTF-8.
        """
        raw = False if decode is False else None
        message: str | bytes = await self._receive(lambda connection: connection.recv(raw), lambda message: message)
        if decode is None:
            return message
        if isinstance(message, str):
            return message if decode else message.encode()
        return message.decode() if decode else message

    async def recv_json(self) -> Any:
        """The next message, parsed by the codec given as ``json``. Raises what ``recv`` and the codec raise."""
        return await self._receive(lambda connection: connection.recv_json(), self._codec.loads)

    async def _receive(self, take: Callable[[ClientConnection], Awaitable[T]], convert: Callable[[Any], T]) -> T:
        if self._receiving:
            raise ConcurrencyError("cannot call recv while another coroutine is already running recv")
        self._receiving = True
        try:
            while not self._inbox:
                connection = self._readable
                if connection is None:
                    if self._state is SessionState.CLOSED:
                        self._raise_ended()
                    await self._changed()
                    continue
                self._reading = True
                try:
                    return await take(connection)
                except ConnectionClosed:
                    pass
                finally:
                    self._reading = False
                    self._notify()
                while self._readable is connection:  # its transport is still closing
                    await self._changed()
            return convert(self._inbox.popleft())
        finally:
            self._receiving = False

    # Sending

    async def send(
        self, message: DataLike, *, text: bool | None = None, compress: bool | None = None, timeout: float | None = None
    ) -> None:
        """Send a message as a connection's ``send`` does, or do what ``outbox`` says while there is no connection.

        Messages leave in the order of the calls. Waits while the peer does not read what was sent before, or the outbox
        is full, for ``timeout`` seconds at most: TimeoutError, like cancelling it, means that the message was neither
        sent nor kept. Fragments are for a connection's ``send``.

        When it returns, the message was handed to a connection or is in the outbox. It is handed to one connection
        only, never twice; the peer may not have received it if that connection breaks.

        Raises what ended the session, ConnectionClosedOK if it was closed; with "error", ConnectionClosed while there
        is no connection; TypeError, UnicodeEncodeError and LocalProtocolError as a connection does.
        """
        if not isinstance(message, DataTypes):
            raise TypeError("data must be str or bytes-like")
        if timeout is not None:
            async with _compat.timeout(timeout):
                await self.send(message, text=text, compress=compress)
            return
        self._burst += 1
        if not self._blocked and self._burst < BURST and self._send_now(message, text, compress):
            return
        if self._blocked:
            self._refuse_in_on_open()
        self._blocked += 1
        try:
            async with self._line:
                if self._burst >= BURST:  # a program that only sends must let others run
                    self._burst = 0
                    await asyncio.sleep(0)
                while not await self._take(message, text, compress):
                    await self._changed()
        finally:
            self._blocked -= 1

    async def send_json(self, data: Any, *, compress: bool | None = None, timeout: float | None = None) -> None:
        """Send ``data`` as JSON in a text message, made now by the codec given as ``json``: see ``send``."""
        await self.send(self._codec.dumps(data), text=True, compress=compress, timeout=timeout)

    def try_send(self, message: DataLike, *, text: bool | None = None, compress: bool | None = None) -> SendStatus:
        """Send a message without waiting: SENT or QUEUED, or FULL, which is false, if it was not taken.

        With "keep", QUEUED also means that it is in the outbox, and FULL that there is no room; with "drop", FULL that
        there is no connection: it is not counted in ``dropped``. Raises what ``send`` raises.
        """
        if not isinstance(message, DataTypes):
            raise TypeError("data must be str or bytes-like")
        self._check_running()
        if self._blocked:
            return SendStatus.FULL
        connection = self._direct()
        if connection is not None:
            return connection.try_send(message, text=text, compress=compress)
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

    async def _take(self, message: DataLike, text: bool | None, compress: bool | None) -> bool:
        """Hand a message to the connection, or do with it what the policy says; False if the outbox has no room."""
        while True:
            self._check_running()
            connection = self._direct()
            if connection is None:
                break
            try:
                await connection.send(message, text=text, compress=compress)
                return True
            except ConnectionClosed:  # it was not sent
                if self._closing or self._policy == "error":
                    raise
        if self._policy == "error":
            self._raise_not_connected()
        if self._policy == "drop":
            self.dropped += 1
            return True
        return self._outbox.put(unsent(message, text, compress))

    def _open_connection(self) -> ClientConnection | None:
        connection = self._connection
        return connection if connection is not None and connection.state is State.OPEN else None

    def _direct(self) -> ClientConnection | None:
        """The connection if a message may go to it now: those in the outbox come first."""
        return None if self._outbox else self._open_connection()

    def _raise_not_connected(self) -> NoReturn:
        raise ConnectionClosedError(None, None) from self._last_error

    async def _flush(self, connection: ClientConnection) -> None:
        """Send what is in the outbox. What could not be sent stays at its front."""
        while self._outbox:
            first = self._outbox.first
            await connection.send(first.payload, text=first.text, compress=first.compress)
            self._outbox.pop()
            self._notify()

    # The runner

    async def _run(self) -> None:
        try:
            while True:
                error = await self._attempt()
                delay = None if self._closing else self._judge(error)
                if delay is None:
                    return
                self._enter(SessionState.WAITING)
                await asyncio.sleep(delay)
        except Exception as exc:  # of our user's rule, or delays
            self._end_with(exc)

    async def _attempt(self) -> Exception:
        """Connect and use the connection until its end; returns why it ended."""
        self._enter(SessionState.CONNECTING)
        self._opened_at = None
        try:
            uri = self._attempts.uri if self._uri is None else await _awaited(self._uri())
            headers = await _awaited(self._headers()) if callable(self._headers) else self._headers
            connection = await connect(uri, additional_headers=headers, **self._arguments)
            try:
                return await self._use(connection)
            except BaseException as exc:
                failed = not isinstance(exc, asyncio.CancelledError)
                await connection.__aexit__(type(exc) if failed else None, exc, None)
                raise
        except Exception as exc:
            return exc
        finally:
            self._connection = self._readable = None

    async def _use(self, connection: ClientConnection) -> Exception:
        if self._on_open is not None:
            await _awaited(self._on_open(connection))
        if self._closing:  # on_open did it
            await connection.close()
            return ConnectionClosedOK(None, None)
        self._opened_at = asyncio.get_running_loop().time()
        self._connection = self._readable = connection
        self._enter(SessionState.OPEN)
        with contextlib.suppress(ConnectionClosed):
            await self._flush(connection)
        await connection.wait_closed()
        self._readable = None
        while self._reading:  # a task is about to take a message
            await self._wait()
        return await self._receive_rest(connection)

    async def _receive_rest(self, connection: ClientConnection) -> ConnectionClosed:
        """Keep the messages that nobody has taken; returns why the connection ended."""
        missed = self._inbox.make_room()
        if missed:
            self.missed += missed
            self._logger.warning("nobody received %d messages of earlier connections: dropped", missed)
        receives = True
        while True:
            try:
                if receives:
                    self._inbox.append(await connection.recv())
                else:
                    await connection.pong()  # raises the same
            except ConcurrencyError:  # messages go to on_message, or somebody receives without us
                receives = False
            except ConnectionClosed as exc:
                return exc

    def _judge(self, error: Exception) -> float | None:
        """Seconds to wait before the next attempt, or None: no more attempts."""
        loop = asyncio.get_running_loop()
        self._last_error = error
        delay = self._attempts.ended(None if self._opened_at is None else loop.time() - self._opened_at)
        if delay is None or self._give_up(self, error):
            self._end_with(error)
            return None
        level = logging.INFO if isinstance(error, ConnectionClosedOK) else logging.WARNING
        what = "connecting failed" if self._opened_at is None else "connection ended"
        self._logger.log(level, "%s, next attempt in %.1f seconds: %s", what, delay, _describe(error))
        return delay

    def _end_with(self, error: Exception) -> None:
        self._closing = True
        self._error = error
        self._traceback = error.__traceback__
        self._logger.error("session ended: %s", _describe(error))

    def _on_runner_done(self, runner: asyncio.Task[None]) -> None:
        # Here and not in the runner, which may have been cancelled before it ran at all.
        self._closing = True
        if self._outbox:
            self._logger.warning("session ended: %d messages of the outbox were not sent", len(self._outbox))
        self._enter(SessionState.CLOSED)

    def _enter(self, state: SessionState) -> None:
        self._state = state
        if self._on_state is not None:
            try:
                self._on_state(self, state)
            except Exception:
                self._logger.exception("on_state failed")
        self._notify()

    # Waiting

    async def _changed(self) -> None:
        """Wait until something of the session may be another."""
        self._refuse_in_on_open()
        await self._wait()

    def _refuse_in_on_open(self) -> None:
        if asyncio.current_task() is self._runner:
            raise ConcurrencyError("on_open must use its connection: the session waits for on_open")

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # The end

    def _check_running(self) -> None:
        if self._closing or self._runner is None:
            self._raise_ended()

    def _raise_ended(self) -> NoReturn:
        if self._runner is None:
            raise InvalidState("the session was not entered: use it in `async with`")
        if self._error is None:
            raise ConnectionClosedOK(None, None)
        raise self._error.with_traceback(self._traceback)  # whoever raised it before me left his frames in it

    async def __aenter__(self) -> Session:
        """Begin to connect; does not wait for it: see ``wait_open``. Raises RuntimeError the second time."""
        if self._runner is not None:
            raise RuntimeError("a session can be entered only once")
        self._state = SessionState.CONNECTING
        self._runner = asyncio.get_running_loop().create_task(self._run())
        self._runner.add_done_callback(self._on_runner_done)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close as ``close`` does, with 1011 after an exception."""
        await self._close(lambda connection: connection.__aexit__(exc_type, exc, traceback))

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """End the session: send what is in the outbox if there is a connection, close it, make no more attempts.

        Each of the two takes at most about ``close_timeout``. Messages received can still be taken. Cancelled, it drops
        the connection at once. Does nothing but wait when the session is closing or ended. Raises LocalProtocolError
        when the code or reason must not be sent.
        """
        checked_close(code, reason)  # before anything is changed
        await self._close(lambda connection: connection.close(code, reason))

    async def _close(self, close_connection: Callable[[ClientConnection], Awaitable[None]]) -> None:
        if self._runner is None:
            return
        in_runner = asyncio.current_task() is self._runner
        try:
            if not self._closing:
                self._closing = True
                self._notify()
                connection = self._connection
                if connection is not None:
                    await self._flushed()
                    await close_connection(connection)
                elif not in_runner:
                    self._runner.cancel()
            if not in_runner:
                await asyncio.wait([self._runner])
        except BaseException:
            if self._connection is None:
                self._runner.cancel()
            else:
                self._connection.transport.abort()
            raise

    async def _flushed(self) -> None:
        """Wait for the outbox to be empty, while there is a connection to empty it."""
        with contextlib.suppress(TimeoutError):
            async with _compat.timeout(self._close_timeout):
                while self._outbox and self._open_connection() is not None:
                    await self._wait()


def _hopeless(session: Session, exc: Exception) -> bool:
    # Before Python 3.11 asyncio's TimeoutError is one of its own.
    return not isinstance(exc, asyncio.TimeoutError) and not may_pass(exc)


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _describe(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"
