# cython: nonecheck=True
"""The hot half of a connection: messages from the engine to the task that waits for them, and whole messages to it.

What ``async for``, ``recv``, ``send``, ``try_send`` and ``broadcast`` cost is decided here, so nothing here is a
coroutine: what must wait for anything but a message is left to ``Receiver`` and ``Sender``. Knows no bytes of the
transport and no protocol.
"""

from __future__ import annotations

import asyncio
import collections
import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from .._payloads import DataLike
from .._settings import Settings
from ..constants import BINARY, BURST, CORK_SIZE, MESSAGE_COST, NO_BUDGET, TEXT, TURN, CloseCode, SendStatus
from ..events import Fragment, Message
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK, InvalidState, LocalProtocolError
from ..prepared import PreparedMessage
from ._link import Link
from ._native import Steps, get_ident, run_in

__all__ = ["Core", "Item", "Receive", "Watcher", "busy", "send_to_ready", "unwrapped"]

#: A message for ``recv``, a frame that ``recv_streaming`` asked for, or a text that ``recv_json`` wants as bytes.
Item = str | bytes | Fragment | Message

#: The queue of a connection that never had a message to keep: a deque takes 760 bytes.
_EMPTY: collections.deque[Item] = collections.deque()

# What a Receive waits for, besides the values of recv's ``decode``.
ITERATING: Any = object()  # the next message, for ``async for``, which ends where ``recv`` raises ConnectionClosedOK
ARRIVAL: Any = object()  # that there is something in the queue, or will be nothing any more

# Members of an Enum are looked up slowly.
SENT, QUEUED, FULL = SendStatus.SENT, SendStatus.QUEUED, SendStatus.FULL

# The states of a coroutine object.
NEW = 0
WAITING = 1
OVER = 2


C = TypeVar("C", bound="Core")


class Watcher(Protocol):
    """Who wants to know when a connection can take more, and when it ends."""

    def _writable(self, connection: Any) -> None: ...

    def _left(self, connection: Any) -> None: ...


class Receive(Steps):
    """The coroutine object of ``recv``: nothing is taken before it is awaited, and nothing when it is cancelled."""

    __slots__ = ()  # _what: what is wanted; _rest: takes the other frames of a message that were asked for

    def step(self) -> bool:
        connection = self._connection
        if self._state == WAITING:
            connection._receiver = None
            if connection._arrived is not None:
                self._state = OVER
                self._value = connection._take_arrived()
                return True
        elif self._rest is not None:
            return self._step_rest()
        elif self._state == OVER:
            raise RuntimeError("cannot reuse already awaited coroutine")
        else:
            self._state = OVER  # should it raise
            connection._check_receiving(self._what)
            if connection._taken >= TURN:  # a peer whose messages are always there must not keep the loop to itself
                connection._scheduler.call_in_turn(functools.partial(connection._wake, False))
                return self._wait()
        if not connection._queue and not connection._ended:
            if self._state == WAITING and not connection._waiter.done():
                connection._receiver = self
                raise RuntimeError("coroutine is being awaited already")
            return self._wait()
        self._state = OVER
        if self._what is ARRIVAL:
            return True
        if not connection._queue:
            return self._end()
        item = connection._take()
        if type(item) is not bytes and type(item) is not str:
            return self._take_other(item)
        self._value = item if self._what is None or self._what is ITERATING else self._converted(item)
        return True

    def _wait(self) -> bool:
        connection = self._connection
        waiter = connection._waiter
        if waiter is None or waiter.done():
            waiter = connection._waiter = connection._loop.create_future()
        waiter._asyncio_future_blocking = True  # how asyncio knows that a coroutine which yields this waits for it
        connection._taken = connection._burst = 0
        connection._receiver = self
        self._state = WAITING
        self._value = waiter
        return False

    def _end(self) -> bool:
        """There will be no message."""
        if self._what is ITERATING and isinstance(self._connection._closed_error(), ConnectionClosedOK):
            raise StopAsyncIteration
        raise self._connection._closed_error()  # in a variable its traceback would hold us alive

    def _take_other(self, item: Any) -> bool:
        """What was asked for in another way than it is taken now."""
        if isinstance(item, Fragment):
            self._rest = self._connection._recv_rest(item, self._decode())
            return self._step_rest()
        self._value = self._converted(item)
        return True

    def _step_rest(self) -> bool:
        try:
            self._value = self._rest.send(None)
        except StopIteration as exc:
            self._value = exc.value
            return True
        return False

    def _converted(self, item: str | bytes | Message) -> str | bytes:
        converted: str | bytes = self._connection._converted(item, self._decode())
        return converted

    def takes_any(self) -> bool:
        """Whether a whole message is wanted, as it comes."""
        return self._what is ITERATING or self._what is None

    def _decode(self) -> bool | None:
        """As ``recv`` was given it."""
        decode: bool | None = None if self._what is ITERATING else self._what
        return decode

    def close(self) -> None:
        """Nobody will go on."""
        if self._state == WAITING:
            self._connection._receiver = None
        self._state = OVER
        if self._rest is not None:
            self._rest.close()


def _new_receive(connection: Core, wanted: Any) -> Receive:
    coroutine = Receive.__new__(Receive)
    coroutine._connection = connection
    coroutine._what = wanted
    coroutine._state = NEW
    coroutine._name = None if wanted is ARRIVAL else "Connection.recv"
    coroutine._text = coroutine._compress = coroutine._timeout = coroutine._rest = coroutine._value = None
    return coroutine


class Send(Steps):
    """The coroutine object of ``send``: nothing is sent before it is awaited, and as a rule it need not wait then."""

    __slots__ = ()  # _what: the message; _rest: what waits, where something must be waited for

    def step(self) -> bool:
        connection = self._connection
        if self._rest is None:
            if self._state != NEW:
                raise RuntimeError("cannot reuse already awaited coroutine")
            self._state = OVER
            if connection._sends_now(self._what) and connection._sent(self._what, self._text, self._compress):
                connection._burst += 1
                return True
            self._rest = connection._send_slowly(self._what, self._text, self._compress, self._timeout)
        try:
            self._value = self._rest.send(None)
        except StopIteration:
            return True
        return False

    def close(self) -> None:
        """Nobody will go on."""
        self._state = OVER
        if self._rest is not None:
            self._rest.close()


def _new_send(
    connection: Core, message: Any, text: bool | None, compress: bool | None, timeout: float | None
) -> Send:
    coroutine = Send.__new__(Send)
    coroutine._connection = connection
    coroutine._what = message
    coroutine._text = text
    coroutine._compress = compress
    coroutine._timeout = timeout
    coroutine._state = NEW
    coroutine._name = "Connection.send"
    coroutine._rest = coroutine._value = None
    return coroutine


class Core(Link):
    """The hot half of a connection."""

    __slots__ = (
        *("_queue", "_queue_bytes", "_queue_high", "_queue_bytes_high"),
        *("_taken", "_paused", "_abandoned", "_receiver", "_waiter", "_arrived", "_streaming"),
        *("_ended", "_raw", "_turn_is_due", "_burst", "_fragmenting", "_drain_waiters", "_overdue", "_watchers"),
        "_callback", "_recv_is_ours",
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._queue = _EMPTY
        self._queue_bytes = 0
        self._queue_high = settings.queue_high
        self._queue_bytes_high = settings.queue_bytes
        #: How much was taken since another task could run.
        self._taken = 0
        self._paused = False
        self._abandoned = False
        #: What waits for a message, and the future that its task waits with.
        self._receiver: Receive | None = None
        self._waiter: Any = None
        #: The message that it is given at once: it need not go through the queue.
        self._arrived: str | bytes | None = None
        #: recv_streaming is in the middle of a message, or waits for one.
        self._streaming = False
        #: All that was received has been delivered, or the transport is gone.
        self._ended = False
        #: Texts are wanted as bytes, for ``recv_json``.
        self._raw = False
        #: The callback goes on in the next turn of the loop.
        self._turn_is_due = False
        #: Called for each message in place of the queue.
        self._callback: Callable[[Any, Any], object] | None = settings.on_message
        if self._callback is not None:
            self._budget = TURN
        #: Messages sent since other tasks had a turn.
        self._burst = 0
        #: Done when the fragmented message that is being sent is complete; other messages must wait for it.
        self._fragmenting: asyncio.Future[None] | None = None
        self._drain_waiters: dict[asyncio.Future[None], None] | None = None
        self._watchers: tuple[Watcher, ...] = ()
        #: The transport has been over its high mark since a turn of the loop in which somebody asked.
        self._overdue = False
        self._recv_is_ours = type(self).recv is Core.recv

    # What subclasses do

    def _set_raw(self, raw: bool) -> None:
        raise NotImplementedError

    def _closed_error(self) -> ConnectionClosed:
        raise NotImplementedError

    async def _recv_rest(self, first: Fragment, decode: bool | None) -> str | bytes:
        raise NotImplementedError

    async def _send_slowly(
        self, message: Any, text: bool | None, compress: bool | None, timeout: float | None
    ) -> None:
        raise NotImplementedError

    async def _recv_next(self) -> str | bytes:
        raise NotImplementedError

    # Receiving

    def __aiter__(self) -> Any:
        """Received messages until the connection is closed normally; ConnectionClosedError if it ends otherwise."""
        return self

    def __anext__(self) -> Any:
        if self._recv_is_ours:
            return _new_receive(self, ITERATING)
        return self._recv_next()

    def recv(self, decode: bool | None = None) -> Any:
        """The next message: ``str`` for text and ``bytes`` for binary; ``decode`` True or False: ``str`` or ``bytes``.

        Cancelling it loses nothing. Raises ConnectionClosed, and ConcurrencyError while another task is in it or where
        messages go to ``on_message``.
        """
        return _new_receive(self, decode)

    def _arrival(self) -> Any:
        """Wait until there is something in the queue, or will be nothing any more. Cancelling it loses nothing."""
        return _new_receive(self, ARRIVAL)

    def _check_receiving(self, wanted: Any) -> None:
        """Raise what keeps a task from waiting for messages."""
        if self._receiver is not None or (self._streaming and wanted is not ARRIVAL):
            raise busy("recv")
        if self._raw and wanted is not ARRIVAL:
            self._set_raw(False)
        if not self._queue:
            self._check_queue()

    def _check_queue(self) -> None:
        self._check_open()
        if self._budget != NO_BUDGET:
            raise ConcurrencyError("cannot receive: messages go to on_message")

    def _take(self) -> Item:
        if self._paused:
            self._check_thread()  # the transport is to go on; else taking a message touches nothing but the queue
        item = self._queue.popleft()
        size = len(item) if isinstance(item, (str, bytes)) else len(item.data)
        self._queue_bytes -= size
        self._taken += size + MESSAGE_COST
        if self._paused:
            if len(self._queue) <= self._settings.queue_low and self._queue_bytes <= self._queue_bytes_high // 2:
                self._paused = False
                self._resume_input()
        return item

    def _converted(self, item: str | bytes | Message, decode: bool | None) -> str | bytes:
        """What ``recv`` is to give."""
        data = item.data.decode() if isinstance(item, Message) else item  # type: ignore[union-attr]
        if decode is None or isinstance(data, str) is decode:
            return data
        if isinstance(data, str):
            return data.encode()
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")
            raise self._closed_error() from exc

    def _on_message(self, data: str | bytes) -> None:
        if self._callback is not None:
            self._callback(self, data)
            return
        receiver = self._receiver
        if receiver is None or self._queue or not receiver.takes_any():
            self._put(data, len(data))
        elif self._arrived is None:
            self._arrived = data
        else:
            self._keep_arrived()
            self._put(data, len(data))

    def _keep_arrived(self) -> None:
        """Its task is not woken at once after all, or another message has come."""
        if self._arrived is not None:
            data, self._arrived = self._arrived, None
            self._put(data, len(data))

    def _take_arrived(self) -> str | bytes:
        data, self._arrived = self._arrived, None
        assert data is not None
        self._taken += len(data) + MESSAGE_COST
        return data

    def _put(self, item: Item, size: int) -> None:
        if self._queue is _EMPTY:
            self._queue = collections.deque()
        queue = self._queue
        queue.append(item)
        self._queue_bytes += size
        if len(queue) >= self._queue_high or self._queue_bytes >= self._queue_bytes_high:
            if self._abandoned:
                queue.pop()
                self._queue_bytes -= size
            else:
                self._paused = True
                self._engine.pause()

    def _has_news(self) -> bool:
        return self._receiver is not None and (self._arrived is not None or len(self._queue) != 0 or self._ended)

    def _wake(self, direct: bool) -> None:
        """A task goes on, as a rule, in the next turn of the loop after its future is done. Ours is called back now:
        that saves the turn, and the future, which can be waited for again."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._keep_arrived()
            return
        if direct:
            callbacks = waiter._callbacks  # of asyncio.Future, in each of its implementations
            if callbacks is not None and len(callbacks) == 1:
                callback, context = callbacks[0]
                waiter.remove_done_callback(callback)
                run_in(context, callback, self._scheduler.done)
                self._keep_arrived()  # should that task have been cancelled in this turn
                return
        self._keep_arrived()
        waiter.set_result(None)

    def _more_received(self) -> bool:
        return len(self._queue) != 0

    def _fail(self, code: int, reason: str) -> None:
        self._engine.fail(code, reason)
        self._pump()

    # Sending

    def send(
        self, message: Any, *, text: bool | None = None, compress: bool | None = None, timeout: float | None = None
    ) -> Any:
        """Send a message: ``str`` as text, bytes-like as binary, an iterable or async iterable of either in fragments.

        ``text=True`` sends (UTF-8) bytes as text, ``text=False`` a ``str`` as binary. ``compress`` says whether to
        compress this message, where permessage-deflate was agreed on; None decides by its size. Waits while the peer
        does not read what was sent before, for ``timeout`` seconds at most: then TimeoutError.

        Cancelled or timed out, it has sent all or nothing; but leaving off a fragmented message, or an exception of its
        iterable, ends the connection with 1011, since the rest of it can never follow.

        Raises ConnectionClosed; TypeError, for a dict too; UnicodeEncodeError when the text has lone surrogates.
        """
        return _new_send(self, message, text, compress, timeout)

    def _sends_now(self, message: Any) -> bool:
        """Whether ``send`` need not wait for anything; it may still raise."""
        return (
            isinstance(message, (str, bytes))
            and self._opened
            and not self._write_paused
            and self._burst < BURST
            and not self._drain_waiters
            and self._fragmenting is None
            and get_ident() == self._scheduler.thread
        )

    def _sent(self, message: DataLike, text: bool | None, compress: bool | None) -> bool:
        """Whether it was sent; else ``_send_slowly`` says why not, where it is awaited."""
        try:
            self._send_message(message, text, compress)
        except (InvalidState, LocalProtocolError, UnicodeEncodeError):
            return False
        return True

    def try_send(self, message: DataLike, *, text: bool | None = None, compress: bool | None = None) -> SendStatus:
        """Send a whole message without waiting: SENT or QUEUED, or FULL, which is false, if ``send`` would wait.

        SENT: the operating system has it. QUEUED: it was taken and follows what waits; that includes all that is sent
        from a callback or a block of ``cork``, or right after something else. FULL: it was not taken. Raises
        ConnectionClosed, TypeError and UnicodeEncodeError as ``send`` does.
        """
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise TypeError("data must be str or bytes-like")
        self._check_thread()
        if self._write_paused or self._drain_waiters or self._fragmenting is not None:
            return FULL
        self._check_open()
        try:
            self._send_message(message, text, compress)
        except InvalidState:
            raise self._closed_error()  # noqa: B904 (has its cause)
        except LocalProtocolError as exc:
            raise unwrapped(exc) from None
        if self._pumping or self.buffered_amount or self.transport.is_closing():
            return QUEUED
        return SENT

    def _send_message(self, message: DataLike, text: bool | None, compress: bool | None) -> None:
        if isinstance(message, str):
            if text is False:
                self._engine.send_message(BINARY, message.encode(), compress)
            else:
                self._engine.send_message(TEXT, message, compress)
        elif text:
            self._engine.send_message(TEXT, bytes(message), compress)
        else:
            self._engine.send_message(BINARY, message, compress)
        self._flush_send()

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        """Send without waiting, with all else of this turn of the loop. Raises InvalidState when not open; must not be
        called amid a fragmented message."""
        self._engine.send_prepared(prepared)
        if self._engine._writer.size < CORK_SIZE:
            self._flush_later()
        else:
            self._settle()

    def _ready(self) -> bool:
        """Whether a message can be sent and ``send`` would not wait."""
        return not self._write_paused and self._fragmenting is None and self._opened and self._engine.is_open


def send_to_ready(connections: Iterable[C], prepared: PreparedMessage) -> list[C]:
    """Send to those of the connections that can take it at once; returns the others, and those that raise."""
    others = []
    for connection in connections:
        try:
            if connection._ready():
                connection._send_prepared(prepared)
                continue
        except Exception:  # raised once more for whoever takes care of the others
            pass
        others.append(connection)
    return others


def busy(name: str) -> ConcurrencyError:
    """Somebody receives already."""
    return ConcurrencyError(f"cannot call {name} while another coroutine is already running recv or recv_streaming")


def unwrapped(exc: LocalProtocolError) -> Exception:
    """A text with lone surrogates is UnicodeEncodeError everywhere in Python."""
    cause = exc.__cause__
    return UnicodeEncodeError(*cause.args) if isinstance(cause, UnicodeEncodeError) else exc
