"""The sending half of a connection but for its hot paths: messages in pieces, and who must wait.

Knows Python's types and who waits for what; knows no bytes of the transport and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from .._payloads import DataLike, DataTypes, kind_of
from ..constants import BURST, CloseCode
from ..exceptions import InvalidState, LocalProtocolError
from . import _compat
from ._core import Watcher, unwrapped
from ._receiving import ABANDONED, Receiver

__all__ = ["Message", "Sender"]

Message = DataLike | Iterable[DataLike] | AsyncIterable[DataLike]


class Sender(Receiver):
    """The sending half of a connection."""

    __slots__ = ()

    if TYPE_CHECKING:

        def send(
            self,
            message: Message,
            *,
            text: bool | None = None,
            compress: bool | None = None,
            timeout: float | None = None,
        ) -> Coroutine[Any, Any, None]: ...

    async def _send_slowly(
        self, message: Message, text: bool | None, compress: bool | None, timeout: float | None
    ) -> None:
        """``send`` where it may have to wait, or raises."""
        if timeout is not None:
            async with _compat.timeout(timeout):
                return await self._send_slowly(message, text, compress, None)
        self._check_thread()
        self._burst += 1
        if self._write_paused or self._drain_waiters or self._fragmenting is not None or self._burst >= BURST:
            await self._sendable()
        self._check_open()
        try:
            if isinstance(message, DataTypes):
                self._send_message(message, text, compress)
            else:
                await self._send_fragments(message, text, compress)
        except InvalidState:
            await self._raise_closed()
        except LocalProtocolError as exc:
            raise unwrapped(exc) from None

    @contextlib.contextmanager
    def cork(self) -> Iterator[None]:
        """Messages sent within ``with connection.cork():`` leave together: at its end, or earlier when they reach
        64 KiB or the block awaits something."""
        self._check_thread()
        self._corks += 1
        try:
            yield
        finally:
            self._corks -= 1
            if self._opened and not self._corks:
                self._on_turn_end()

    async def send_json(self, data: Any, *, compress: bool | None = None, timeout: float | None = None) -> None:
        """Send ``data`` as JSON in a text message, made by the connection's codec: see ``recv_json`` and ``send``.

        What a codec makes as ``bytes`` is sent as it is. Raises what the codec raises for what it cannot express.
        """
        await self.send(self._settings.json.dumps(data), text=True, compress=compress, timeout=timeout)

    # Messages in pieces

    async def _send_fragments(self, message: Any, text: bool | None, compress: bool | None) -> None:
        chunks = _each(message)
        kind: type | None = None
        done = self._loop.create_future()
        try:
            async for chunk in chunks:
                first = kind is None
                if first:
                    kind = kind_of(chunk)
                    await self._sendable()  # another fragmented message may have begun meanwhile
                elif kind_of(chunk) is not kind:
                    raise TypeError("iterable must contain uniform types")
                if text is False and isinstance(chunk, str):
                    chunk = chunk.encode()
                self._send_fragment(chunk, first, False, text, compress)
                self._fragmenting = done
                await self._writable()
            if kind is not None:
                self._send_fragment(b"", False, True)
        except BaseException:
            if self._fragmenting is done:
                self._fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")
            raise
        finally:
            if self._fragmenting is done:
                self._fragmenting = None
                done.set_result(None)
                self._tell_watchers()
            await chunks.aclose()

    def _send_fragment(
        self, chunk: DataLike, first: bool, fin: bool, text: bool | None = None, compress: bool | None = None
    ) -> None:
        self._engine.send_fragment(chunk, first=first, fin=fin, text=text, compress=compress)
        self._settle()

    # Who must wait

    async def _sendable(self) -> None:
        """Wait until nothing hinders a new message. Lets others run if many were sent since the last time."""
        if self._burst >= BURST:
            self._burst = 0
            await self._scheduler.turn()
        if self._drain_waiters and not self._write_paused:
            await asyncio.sleep(0)  # after those who waited, and were woken in this turn of the loop
        while self._write_paused or self._fragmenting is not None:
            if self._fragmenting is not None:
                await asyncio.shield(self._fragmenting)
            else:
                await self._writable()

    async def _writable(self) -> None:
        """Wait while the transport is over its high mark and not yet lost."""
        while self._write_paused and not self._lost:
            if self._drain_waiters is None:
                self._drain_waiters = {}
            waiter = self._loop.create_future()
            self._drain_waiters[waiter] = None
            try:
                await waiter
            finally:
                del self._drain_waiters[waiter]

    def _wake_senders(self) -> None:
        for waiter in self._drain_waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _is_overdue(self, backlog: int) -> bool:
        """Whether more than ``backlog`` bytes wait, and did in an earlier turn of the loop: in this one nobody can have
        read any."""
        if self.buffered_amount <= backlog:
            self._overdue = False
        elif not self._overdue:
            self._loop.call_soon(self._set_overdue)
        return self._overdue

    def _set_overdue(self) -> None:
        self._overdue = self._write_paused

    def _watch(self, watcher: Watcher) -> None:
        self._check_thread()
        self._watchers += (watcher,)

    def _unwatch(self, watcher: Watcher) -> None:
        self._check_thread()
        self._watchers = tuple([other for other in self._watchers if other is not watcher])

    def _on_writable(self) -> None:
        self._overdue = False
        self._wake_senders()
        super()._on_writable()
        if self._watchers:  # later, so that whoever waits in send() goes first: groups may fill the buffer again
            self._loop.call_soon(self._tell_watchers)

    def _tell_watchers(self) -> None:
        for watcher in self._watchers:
            watcher._writable(self)

    def _on_end(self) -> None:
        super()._on_end()
        self._leave()
        self._wake_senders()

    def _leave(self) -> None:
        """No message can be sent any more."""
        watchers, self._watchers = self._watchers, ()
        for watcher in watchers:
            watcher._left(self)

    async def _raise_closed(self) -> NoReturn:
        """The reason is known at the end; which does not come while it is behind more messages than anybody takes."""
        while not self._ended:
            done, _ = await asyncio.wait([self._until_lost()], timeout=ABANDONED)
            if done or self._paused:
                break
        raise self._closed_error()


async def _each(message: object) -> AsyncGenerator[DataLike, None]:
    """The items of an iterable of either kind. Raises TypeError when it is none."""
    if isinstance(message, Mapping):  # a common mistake: send(dict)
        raise TypeError("data is a dict-like object")
    if isinstance(message, AsyncIterable):
        async for chunk in message:
            yield chunk
    elif isinstance(message, Iterable):
        for chunk in message:
            yield chunk
    else:
        raise TypeError("data must be str, bytes, iterable, or async iterable")
