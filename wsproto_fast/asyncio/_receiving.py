"""The receiving half of a connection but for its hot paths: JSON, messages frame by frame, the callback's turns.

Knows messages, who waits for one and when to stop the peer; knows no bytes of the transport and no protocol.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, Literal, overload

from .._incoming import Incoming, joined
from ..constants import NO_BUDGET
from ..events import Fragment, Message, Pong
from ..exceptions import ConnectionClosed, ConnectionClosedOK
from ._core import Core, Item, busy

__all__ = ["ABANDONED", "Receiver"]

#: Seconds: when a connection closes, a full queue of which nothing is taken for so long is one that nobody reads.
ABANDONED = 1.0


class Receiver(Incoming, Core):
    """The receiving half of a connection."""

    __slots__ = ()

    def _on_pong(self, pong: Pong) -> None:
        raise NotImplementedError

    if TYPE_CHECKING:  # what Core's methods return is awaited in one way or another

        def __aiter__(self) -> AsyncIterator[str | bytes]: ...

        def __anext__(self) -> Coroutine[Any, Any, str | bytes]: ...

        @overload
        def recv(self, decode: Literal[True]) -> Coroutine[Any, Any, str]: ...

        @overload
        def recv(self, decode: Literal[False]) -> Coroutine[Any, Any, bytes]: ...

        @overload
        def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, str | bytes]: ...

        def recv(self, decode: bool | None = None) -> Any: ...

    async def _recv_next(self) -> str | bytes:
        """For ``async for`` where a subclass has a ``recv`` of its own."""
        try:
            return await self.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    async def recv_json(self) -> Any:
        """The next message, parsed by the connection's JSON codec: ``json``, or what was given as ``json=``.

        A codec that makes bytes of its objects is given bytes too: text is not decoded to ``str`` for it. Raises as
        ``recv`` does, and what the codec raises, a ValueError as a rule, for a message that is no JSON: that message is
        gone, and the next one can be received.
        """
        if self._receiver is not None or self._streaming:
            raise busy("recv_json")
        codec = self._settings.json
        if self._raw is not codec.raw:
            self._set_raw(codec.raw)
        data = await self._next()
        if isinstance(data, Fragment):
            data = await self._join(data)
        return codec.loads(data.data if isinstance(data, Message) else data)

    def _set_raw(self, raw: bool) -> None:
        self._check_queue()
        self._want_raw(raw)

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
        if self._receiver is not None or self._streaming:
            raise busy("recv_streaming")
        if self._raw:
            self._set_raw(False)
        self._streaming = True
        last: bool | None = None  # of the frame taken last
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while not last:
                if not self._queue:
                    self._check_queue()
                    self._deliver("frame")
                    self._pump()  # the beginning of a message may be there
                item = await self._next()
                last = item.fin if isinstance(item, Fragment) else True
                yield self._streamed(item, decode, decoder, last)
        except ConnectionClosed:
            last = None  # there is no more of it
            raise
        finally:
            if last is not False:  # at the end of a message, before its beginning, or it has no end
                self._streaming = False
                self._deliver("message")

    async def _next(self) -> Item:
        """What comes next in the queue."""
        if not self._queue:
            self._check_queue()
        await self._arrival()  # lets others run, too
        if not self._queue:
            raise self._closed_error()
        return self._take()

    async def _recv_rest(self, first: Fragment, decode: bool | None) -> str | bytes:
        return self._converted(await self._join(first), decode)

    async def _join(self, first: Fragment) -> str | bytes | Message:
        """A message of which a cancelled recv_streaming had asked for the frames. Cancelling puts them back."""
        fragments = [first]
        try:
            while not fragments[-1].fin:
                item = await self._next()
                assert isinstance(item, Fragment)
                fragments.append(item)
        except (asyncio.CancelledError, GeneratorExit):
            self._queue.extendleft(reversed(fragments))
            self._queue_bytes += sum(len(fragment.data) for fragment in fragments)
            raise
        return joined(fragments)

    def _on_end(self) -> None:
        self._ended = True
        if not self._opened:
            self._sink = None  # as when the engine tells the end
        self._wake(False)

    def _abandon(self) -> None:
        """Nobody receives any more: let go what does not fit the queue, so that the peer's Close frame gets through."""
        self._abandoned = True
        if self._paused:
            self._paused = False
            self._resume_input()

    # The callback

    def _on_budget_spent(self) -> None:
        if not self._turn_is_due and not self._write_paused:
            self._turn_is_due = True
            self._scheduler.call_in_turn(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_is_due = False
        if not self._write_paused:
            self._resume_input()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._budget != NO_BUDGET and self._opened:
            self._engine.pause()  # who does not read the replies need not be read

    def _on_writable(self) -> None:
        if self._budget != NO_BUDGET and self._opened and self._engine.paused:
            self._resume_input()
