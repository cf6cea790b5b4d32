"""The receiving half of a connection: messages from the engine to the task that asks for them, or to a callback.

Knows messages, who waits for one and when to stop the peer; knows no bytes of the transport and no protocol.
"""

from __future__ import annotations

import asyncio
import codecs
import collections
import functools
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Literal, overload

from .._settings import Settings
from ..constants import MESSAGE_COST, NO_BUDGET, CloseCode, Opcode, State
from ..events import Closed, Event, Fragment, Message, Pong
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from ._link import Link

__all__ = ["Receiver"]

#: What one task or callback may take before others get a turn, in bytes; each message counts ``MESSAGE_COST`` more.
#: Under 1 ms.
_TURN = 2**16

#: ``decode`` for ``async for``, which ends where ``recv`` raises ConnectionClosedOK.
_ITERATING: Any = object()

#: A message for ``recv``, a frame that ``recv_streaming`` asked for, or a text that ``recv_json`` wants as bytes.
_Item = str | bytes | Fragment | Message

#: The queue of a connection that never had a message to keep: a deque takes 760 bytes.
_EMPTY: collections.deque[_Item] = collections.deque()


class Receiver(Link):
    """The receiving half of a connection."""

    __slots__ = (
        *("_queue", "_queue_bytes", "_taken", "_paused", "_abandoned", "_getter", "_streaming", "_ended"),
        *("_raw", "_turn_is_due"),
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._queue = _EMPTY
        self._queue_bytes = 0
        #: How much was taken since another task could run.
        self._taken = 0
        self._paused = False
        self._abandoned = False
        #: The task in recv waits for it.
        self._getter: asyncio.Future[None] | None = None
        #: recv_streaming is in the middle of a message, or waits for one.
        self._streaming = False
        #: All that was received has been delivered, or the transport is gone.
        self._ended = False
        #: Texts are wanted as bytes, for ``recv_json``.
        self._raw = False
        #: The callback goes on in the next turn of the loop.
        self._turn_is_due = False
        if settings.on_message is not None:
            self._sink = functools.partial(settings.on_message, self)
            self._budget = _TURN

    def _on_pong(self, pong: Pong) -> None:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Received messages until the connection is closed normally; ConnectionClosedError if it ends otherwise."""
        return self

    def __anext__(self) -> Awaitable[str | bytes]:
        if type(self).recv is Receiver.recv:
            return self.recv(_ITERATING)
        return self._next()

    async def _next(self) -> str | bytes:
        try:
            return await self.recv()  # of a subclass
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

        Cancelling it loses nothing. Raises ConnectionClosed, and ConcurrencyError while another task is in it or where
        messages go to ``on_message``.
        """
        if self._getter is not None or self._streaming:
            raise _busy("recv")
        if self._raw:
            self._set_raw(False)
        try:
            if self._taken >= _TURN:
                await self._let_others_run()
            if not self._queue:
                self._check_queue()
            while not self._queue:
                if self._ended:
                    raise self._closed_error()
                # As in _wait(), but idle connections are waiting here: each coroutine more would cost them 200 bytes.
                self._taken = 0
                self._getter = self._loop.create_future()
                try:
                    await self._getter
                finally:
                    self._getter = None
            data = self._take()
            if isinstance(data, Fragment):
                data = await self._join(data)
            if isinstance(data, Message):
                data = data.data.decode()  # type: ignore[union-attr]
            return data if decode is None or decode is _ITERATING else self._convert(data, decode)
        except ConnectionClosedOK:
            if decode is _ITERATING:
                raise StopAsyncIteration from None
            raise

    async def recv_json(self) -> Any:
        """The next message, parsed by the connection's JSON codec: ``json``, or what was given as ``json=``.

        A codec that makes bytes of its objects is given bytes too: text is not decoded to ``str`` for it. Raises as
        ``recv`` does, and what the codec raises, a ValueError as a rule, for a message that is no JSON: that message is
        gone, and the next one can be received.
        """
        if self._getter is not None or self._streaming:
            raise _busy("recv_json")
        codec = self._settings.json
        if self._raw is not codec.raw:
            self._set_raw(codec.raw)
        if self._taken >= _TURN:
            await self._let_others_run()
        if not self._queue:
            await self._wait_for_message()
        data = self._take()
        if isinstance(data, Fragment):
            data = await self._join(data)
        return codec.loads(data.data if isinstance(data, Message) else data)

    def _set_raw(self, raw: bool) -> None:
        """Want the texts that come from now on as ``bytes``, or as ``str``."""
        self._check_queue()
        self._engine.decode_text = not raw
        self._raw = raw
        if self._engine.state is not State.CLOSED:  # else nothing comes any more; and it refers to us
            self._sink = self._on_raw_message  # from now on: a text that has begun still comes as was wanted then

    @overload
    def recv_streaming(self, decode: Literal[True]) -> AsyncIterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> AsyncIterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]: ...

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]:
        """The next message frame by frame, as its frames arrive; ``decode`` as for ``recv``.

        Must be read to its end: a message left in the middle makes the connection unusable for receiving. Raises what
        ``recv`` raises.
        """
        if self._getter is not None or self._streaming:
            raise _busy("recv_streaming")
        if self._raw:
            self._set_raw(False)
        self._streaming = True
        last: bool | None = None  # of the frame taken last
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while not last:
                if self._taken >= _TURN:
                    await self._let_others_run()
                if not self._queue:
                    self._deliver("frame")
                    self._pump()  # the beginning of a message may be there
                    await self._wait_for_message()
                item = self._take()
                last = item.fin if isinstance(item, Fragment) else True
                if isinstance(item, (str, bytes)):
                    data, text = item, isinstance(item, str)
                else:
                    data, text = item.data, item.opcode is Opcode.TEXT
                yield self._convert(data, text if decode is None else decode, decoder, last)
        finally:
            if last is not False:  # at the end of a message, or before its beginning
                self._streaming = False
                self._deliver("message")

    async def _wait_for_message(self) -> None:
        self._check_queue()
        while not self._queue:
            if self._ended:
                raise self._closed_error()
            await self._wait()

    def _check_queue(self) -> None:
        _ = self._engine  # raises InvalidState in the opening handshake
        if self._budget != NO_BUDGET:
            raise ConcurrencyError("cannot receive: messages go to on_message")

    async def _let_others_run(self) -> None:
        """A peer whose messages are always there must not keep the loop to itself."""
        self._loop.call_soon(self._wake_getter)
        await self._wait()

    async def _wait(self) -> None:
        self._taken = 0
        self._getter = self._loop.create_future()
        try:
            await self._getter
        finally:
            self._getter = None

    def _wake_getter(self) -> None:
        if self._getter is not None and not self._getter.done():
            self._getter.set_result(None)

    def _take(self) -> _Item:
        if self._paused:
            self._check_thread()  # the transport is to go on; else taking a message touches nothing but the queue
        item = self._queue.popleft()
        size = len(item) if isinstance(item, (str, bytes)) else len(item.data)
        self._queue_bytes -= size
        self._taken += size + MESSAGE_COST
        if self._paused:
            settings = self._settings
            if len(self._queue) <= settings.queue_low and self._queue_bytes <= settings.queue_bytes // 2:
                self._paused = False
                self._resume_input()
        return item

    async def _join(self, first: Fragment) -> str | bytes | Message:
        """A message of which a cancelled recv_streaming had asked for the frames. Cancelling puts them back."""
        fragments = [first]
        try:
            while not fragments[-1].fin:
                if not self._queue:
                    await self._wait_for_message()
                item = self._take()
                assert isinstance(item, Fragment)
                fragments.append(item)
        except asyncio.CancelledError:
            self._queue.extendleft(reversed(fragments))
            self._queue_bytes += sum(len(fragment.data) for fragment in fragments)
            raise
        parts: list[Any] = [fragment.data for fragment in fragments]
        if isinstance(first.data, str):
            return "".join(parts)
        return Message(b"".join(parts), first.opcode) if first.opcode is Opcode.TEXT else b"".join(parts)

    def _convert(
        self, data: str | bytes, decode: bool, decoder: codecs.IncrementalDecoder | None = None, last: bool = True
    ) -> str | bytes:
        """``decoder`` has what the frames before ended in the middle of."""
        if isinstance(data, str):
            return data if decode else data.encode()
        if not decode:
            return data
        try:
            return data.decode() if decoder is None else decoder.decode(data, last)
        except UnicodeDecodeError as exc:
            self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")
            raise self._closed_error() from exc

    # From the engine

    def _on_message(self, data: str | bytes) -> None:
        self._put(data, len(data))

    def _on_raw_message(self, data: str | bytes) -> None:
        if isinstance(data, bytes) and self._engine.message_opcode is Opcode.TEXT:
            self._put(Message(data, Opcode.TEXT), len(data))
        else:
            self._put(data, len(data))

    def _put(self, item: _Item, size: int) -> None:
        if self._queue is _EMPTY:
            self._queue = collections.deque()
        queue = self._queue
        queue.append(item)
        self._queue_bytes += size
        self._wake_getter()
        settings = self._settings
        if len(queue) >= settings.queue_high or self._queue_bytes >= settings.queue_bytes:
            if self._abandoned:
                queue.pop()
                self._queue_bytes -= size
            else:
                self._paused = True
                self._engine.pause()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Fragment):
            if event.fin:
                self._deliver("message")
            self._put(event, len(event.data))
        elif isinstance(event, Pong):
            self._on_pong(event)
        elif isinstance(event, Closed):
            self._sink = None  # it refers to us
            self._on_end()

    def _deliver(self, delivery: str) -> None:
        self._engine.delivery = delivery

    def _on_end(self) -> None:
        self._ended = True
        if not self._opened:
            self._sink = None  # as when the engine tells the end
        self._wake_getter()

    def _abandon(self) -> None:
        """Nobody receives any more: let go what does not fit the queue, so that the peer's Close frame gets through."""
        self._abandoned = True
        if self._paused:
            self._paused = False
            self._resume_input()

    def _more_received(self) -> bool:
        return bool(self._queue)

    # The callback

    def _on_budget_spent(self) -> None:
        if not self._turn_is_due and not self._write_paused:
            self._turn_is_due = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_is_due = False
        if not self._write_paused:
            self._resume_input()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._budget != NO_BUDGET and self._opened:
            self._engine.pause()  # who does not read the replies need not be read

    def _on_writable(self) -> None:
        super()._on_writable()
        if self._budget != NO_BUDGET and self._opened and self._engine.paused:
            self._resume_input()

    def _fail(self, code: int, reason: str) -> None:
        self._engine.fail(code, reason)
        self._pump()

    def _closed_error(self) -> ConnectionClosed:
        """Why the connection ended, made anew for whoever is told."""
        error = self._engine.closed_exception()
        if error.__cause__ is None:
            error.__cause__ = self._transport_error
        return error


def _busy(name: str) -> ConcurrencyError:
    return ConcurrencyError(
        f"cannot call {name} while another coroutine is already running recv or recv_streaming"
    )
