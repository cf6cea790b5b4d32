"""The receive queue: messages from the engine to the task that asks for them, and when to stop the peer.

Knows messages and who waits for one; knows no bytes of the transport and no protocol.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from typing import Any, Literal, overload

from ..constants import CloseCode
from ..events import Closed, Event, Fragment, Pong
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from ._link import Link
from .._settings import Settings

__all__ = ["Receiver"]

#: What one task may take before others get a turn, in bytes; and what a message counts beside its bytes. Under 1 ms.
_TURN = 2**16
_MESSAGE_COST = 100


class Receiver(Link):
    """The receiving half of a connection."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._queue: collections.deque[str | bytes | Fragment] = collections.deque()
        self._queue_bytes = 0
        #: How much was taken since another task could run.
        self._taken = 0
        self._paused = False
        self._abandoned = False
        #: The task in recv waits for it.
        self._getter: asyncio.Future[None] | None = None
        #: recv_streaming is in the middle of a message, or waits for one.
        self._streaming = False
        #: All that was received has been delivered into the queue, or the transport is gone.
        self._ended = False

    def _on_pong(self, pong: Pong) -> None:
        raise NotImplementedError

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Received messages until the connection is closed normally; ConnectionClosedError if it ends otherwise."""
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

        Cancelling it loses nothing. Raises ConnectionClosed, and ConcurrencyError while another task is in it.
        """
        if self._getter is not None or self._streaming:
            raise ConcurrencyError("cannot call recv while another coroutine is already running recv or recv_streaming")
        if self._taken >= _TURN:
            await self._let_others_run()
        if not self._queue:
            await self._wait_for_message()
        data = self._take()
        if isinstance(data, Fragment):
            data = await self._join(data)
        return data if decode is None else self._convert(data, decode)

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
            raise ConcurrencyError(
                "cannot call recv_streaming while another coroutine is already running recv or recv_streaming"
            )
        self._streaming = True
        last: bool | None = None  # of the frame taken last
        try:
            while not last:
                if not self._queue:
                    self._deliver("frame")
                    self._pump()  # the beginning of a message may be there
                    await self._wait_for_message()
                data = self._take()
                last = data.fin if isinstance(data, Fragment) else True
                data = data.data if isinstance(data, Fragment) else data
                yield data if decode is None else self._convert(data, decode)
        finally:
            if last is not False:  # at the end of a message, or before its beginning
                self._streaming = False
                self._deliver("message")

    async def _wait_for_message(self) -> None:
        _ = self._engine  # raises InvalidState in the opening handshake
        while not self._queue:
            if self._ended:
                raise self._closed_error()
            await self._wait()

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

    def _take(self) -> str | bytes | Fragment:
        item = self._queue.popleft()
        size = len(item.data) if isinstance(item, Fragment) else len(item)
        self._queue_bytes -= size
        self._taken += size + _MESSAGE_COST
        if self._paused and len(self._queue) <= self._settings.queue_low:
            self._paused = False
            self._resume_input()
        return item

    async def _join(self, first: Fragment) -> str | bytes:
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
            raise
        parts: list[Any] = [fragment.data for fragment in fragments]
        return "".join(parts) if isinstance(first.data, str) else b"".join(parts)

    def _convert(self, data: str | bytes, decode: bool) -> str | bytes:
        if isinstance(data, str):
            return data if decode else data.encode()
        if not decode:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")
            raise self._closed_error() from exc

    def _on_message(self, data: str | bytes) -> None:
        self._put(data, len(data))

    def _put(self, item: str | bytes | Fragment, size: int) -> None:
        self._queue.append(item)
        self._queue_bytes += size
        self._wake_getter()
        settings = self._settings
        high = settings.queue_high
        if high is not None and (len(self._queue) >= high or self._queue_bytes >= settings.queue_bytes):
            if self._abandoned:
                self._queue.pop()
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
            self._on_end()

    def _deliver(self, delivery: str) -> None:
        self._engine.delivery = delivery

    def _on_end(self) -> None:
        self._ended = True
        self._wake_getter()

    def _abandon(self) -> None:
        """Nobody receives any more: let go what does not fit the queue, so that the peer's Close frame gets through."""
        self._abandoned = True
        if self._paused:
            self._paused = False
            self._resume_input()

    def _more_received(self) -> bool:
        return bool(self._queue)

    def _fail(self, code: int, reason: str) -> None:
        self._engine.fail(code, reason)
        self._pump()

    def _closed_error(self) -> ConnectionClosed:
        """Why the connection ended, made anew for whoever is told."""
        error = self._engine.closed_exception()
        if error.__cause__ is None:
            error.__cause__ = self._transport_error
        return error
