"""The sending half of a connection: whole messages, messages in pieces, and who must wait.

Knows Python's types and who waits for what; knows no bytes of the transport and no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import Any, NoReturn, Protocol

from .._payloads import DataLike, DataTypes, kind_of
from .._settings import Settings
from ..constants import CloseCode, SendStatus
from ..exceptions import InvalidState, LocalProtocolError
from ..prepared import PreparedMessage
from . import _compat
from ._link import CORK_SIZE
from ._receiving import Receiver

__all__ = ["BURST", "Message", "Sender", "Watcher"]

Message = DataLike | Iterable[DataLike] | AsyncIterable[DataLike]

#: So many messages may be sent before other tasks get a turn, although the transport takes them all: about 1 ms.
BURST = 128


class Watcher(Protocol):
    """Who wants to know when a connection can take more, and when it ends."""

    def _writable(self, connection: Any) -> None: ...

    def _left(self, connection: Any) -> None: ...


class Sender(Receiver):
    """The sending half of a connection."""

    __slots__ = ("_burst", "_fragmenting", "_overdue", "_watchers")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._burst = 0
        #: Done when the fragmented message that is being sent is complete; other messages must wait for it.
        self._fragmenting: asyncio.Future[None] | None = None
        self._watchers: tuple[Watcher, ...] = ()
        #: The transport has been over its high mark since a turn of the loop in which somebody asked.
        self._overdue = False

    async def send(
        self, message: Message, *, text: bool | None = None, compress: bool | None = None, timeout: float | None = None
    ) -> None:
        """Send a message: ``str`` as text, bytes-like as binary, an iterable or async iterable of either in fragments.

        ``text=True`` sends (UTF-8) bytes as text, ``text=False`` a ``str`` as binary. ``compress`` says whether to
        compress this message, where permessage-deflate was agreed on; None decides by its size. Waits while the peer
        does not read what was sent before, for ``timeout`` seconds at most: then TimeoutError.

        Cancelled or timed out, it has sent all or nothing; but leaving off a fragmented message, or an exception of its
        iterable, ends the connection with 1011, since the rest of it can never follow.

        Raises ConnectionClosed; TypeError, for a dict too; UnicodeEncodeError when the text has lone surrogates.
        """
        if timeout is not None:
            async with _compat.timeout(timeout):
                return await self.send(message, text=text, compress=compress)
        self._check_thread()
        self._burst += 1
        if self._write_paused or self._drain_waiters or self._fragmenting is not None or self._burst >= BURST:
            await self._sendable()
        try:
            if isinstance(message, DataTypes):
                self._send_message(message, text, compress)
            else:
                await self._send_fragments(message, text, compress)
        except InvalidState:
            await self._raise_closed()
        except LocalProtocolError as exc:
            raise _unwrapped(exc) from None

    async def send_json(self, data: Any, *, compress: bool | None = None, timeout: float | None = None) -> None:
        """Send ``data`` as JSON in a text message, made by the connection's codec: see ``recv_json`` and ``send``.

        What a codec makes as ``bytes`` is sent as it is. Raises what the codec raises for what it cannot express.
        """
        await self.send(self._settings.json.dumps(data), text=True, compress=compress, timeout=timeout)

    def try_send(
        self, message: DataLike, *, text: bool | None = None, compress: bool | None = None
    ) -> SendStatus:
        """Send a whole message without waiting: SENT or QUEUED, or FULL, which is false, if ``send`` would wait.

        SENT: the operating system has it. QUEUED: it was taken and follows what waits; that includes all that is sent
        from a callback or a block of ``cork``. FULL: it was not taken. Raises ConnectionClosed, TypeError and
        UnicodeEncodeError as ``send`` does.
        """
        if not isinstance(message, DataTypes):
            raise TypeError("data must be str or bytes-like")
        self._check_thread()
        if self._write_paused or self._drain_waiters or self._fragmenting is not None:
            return SendStatus.FULL
        try:
            self._send_message(message, text, compress)
        except InvalidState:
            self._raise_ended()
        except LocalProtocolError as exc:
            raise _unwrapped(exc) from None
        if self.buffered_amount or self.transport.is_closing():
            return SendStatus.QUEUED
        return SendStatus.SENT

    def _send_message(self, message: DataLike, text: bool | None, compress: bool | None) -> None:
        if isinstance(message, str):
            if text is False:
                self._engine.send_binary(message.encode(), compress=compress)
            else:
                self._engine.send_text(message, compress=compress)
        elif text:
            self._engine.send_text(bytes(message), compress=compress)
        else:
            self._engine.send_binary(message, compress=compress)
        self._flush_send()

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        """Send without waiting, with all else of this turn of the loop. Raises InvalidState when not open; must not be
        called amid a fragmented message."""
        self._engine.send_prepared(prepared)
        if self._engine.output_size < CORK_SIZE:
            self._flush_later()
        else:
            self._settle()

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
            await asyncio.sleep(0)
        if self._drain_waiters and not self._write_paused:
            await asyncio.sleep(0)  # after those who waited, and were woken in this turn of the loop
        while self._write_paused or self._fragmenting is not None:
            if self._fragmenting is not None:
                await asyncio.shield(self._fragmenting)
            else:
                await self._writable()

    def _ready(self) -> bool:
        """Whether a message can be sent and ``send`` would not wait."""
        return not self._write_paused and self._fragmenting is None and self._opened and self._engine.is_open

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
        _ = self._engine  # raises InvalidState in the opening handshake
        if not self._ended:
            await asyncio.shield(self._lost)
        raise self._closed_error()

    def _raise_ended(self) -> NoReturn:
        _ = self._engine  # as above
        raise self._closed_error()  # has its cause, so no "from"; in a variable its traceback would hold us alive


def _unwrapped(exc: LocalProtocolError) -> Exception:
    """A text with lone surrogates is UnicodeEncodeError everywhere in Python."""
    cause = exc.__cause__
    return UnicodeEncodeError(*cause.args) if isinstance(cause, UnicodeEncodeError) else exc


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
