"""The receiving half of a connection but for its hot paths: JSON, messages frame by frame, the callback.

Knows messages and who waits for one; knows no sockets and no protocol.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

from .._incoming import Incoming, Item, joined
from ..constants import TURN, CloseCode
from ..events import Fragment, Message
from ..exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from ._core import Core, busy

__all__ = ["Receiver"]


class Receiver(Incoming, Core):
    """The receiving half of a connection."""

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def recv(self, timeout: float | None, decode: Literal[True]) -> str: ...

        @overload
        def recv(self, timeout: float | None, decode: Literal[False]) -> bytes: ...

        @overload
        def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...

        @overload
        def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...

        @overload
        def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes: ...

        def recv(self, timeout: float | None = None, decode: bool | None = None) -> Any: ...

    def __iter__(self) -> Iterator[str | bytes]:
        """Received messages until the connection is closed normally; ConnectionClosedError if it ends otherwise."""
        recv = self.recv
        try:
            while True:
                yield recv()
        except ConnectionClosedOK:
            return

    def recv_json(self, timeout: float | None = None) -> Any:
        """The next message, parsed by the connection's JSON codec: ``json``, or what was given as ``json=``.

        A codec that makes bytes of its objects is given bytes too: text is not decoded to ``str`` for it. Raises as
        ``recv`` does, and what the codec raises, a ValueError as a rule, for a message that is no JSON: that message is
        gone, and the next one can be received.
        """
        codec = self._settings.json
        with self._lock:
            self._check_receiving("recv_json")
            if self._raw is not codec.raw:
                self._set_raw(codec.raw)
            data = self._whole(self._next(timeout))
        return codec.loads(data.data if isinstance(data, Message) else data)

    def _check_receiving(self, name: str) -> None:
        if self._reader or self._streaming:
            raise busy(name)
        if self._callback is not None:
            raise ConcurrencyError("cannot receive: messages go to on_message")
        if not self._queue and self._arrived is None:
            self._check_open()

    def _set_raw(self, raw: bool) -> None:
        self._check_open()
        self._want_raw(raw)

    @overload
    def recv_streaming(self, decode: Literal[True]) -> Iterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> Iterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> Iterator[str | bytes]: ...

    def recv_streaming(self, decode: bool | None = None) -> Iterator[str | bytes]:
        """The next message frame by frame, as its frames arrive; ``decode`` as for ``recv``.

        Must be read to its end: a message left in the middle makes the connection unusable for receiving. Raises what
        ``recv`` raises.
        """
        with self._lock:
            self._check_receiving("recv_streaming")
            if self._raw:
                self._set_raw(False)
            self._streaming = True
        last: bool | None = None  # of the frame taken last
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while not last:
                with self._lock:
                    item = self._next_frame()
                last = item.fin if isinstance(item, Fragment) else True
                yield self._streamed(item, decode, decoder, last)
        except ConnectionClosed:
            last = None  # there is no more of it
            raise
        finally:
            if last is not False:  # at the end of a message, before its beginning, or it has no end
                with self._lock:
                    self._streaming = False
                    self._deliver("message")

    def _next_frame(self) -> Item:
        if not self._queue and self._arrived is None:
            self._check_open()
            self._deliver("frame")
            self._pump()  # the beginning of a message may be there
        item: Item = self._next(None)
        return item

    def _whole(self, item: Item) -> str | bytes | Message:
        """A message of which a recv_streaming that was given up had asked for the frames."""
        if not isinstance(item, Fragment):
            return item
        fragments = [item]
        while not fragments[-1].fin:
            fragments.append(self._next(None))
        return joined(fragments)

    def _convert(self, item: Any, decode: bool | None) -> str | bytes:
        """What ``recv`` is to give, if it is not what was taken."""
        if isinstance(item, Fragment):
            with self._lock:
                item = self._whole(item)
        data: Any = item.data.decode() if isinstance(item, Message) else item  # type: ignore[union-attr]
        if decode is None:
            return data  # type: ignore[no-any-return]
        return self._decoded(data, decode, codecs.getincrementaldecoder("utf-8")(), True)

    # The end

    def _fail(self, code: int, reason: str) -> None:
        with self._lock:
            self._engine.fail(code, reason)
            self._news = True
            self._pump()
            self._attend()

    def _on_end(self) -> None:
        self._ended = True
        self._wire.interrupt = True
        self._notify()

    def _abandon(self) -> None:
        """Nobody receives any more: let go what does not fit the queue, so that the peer's Close frame gets through."""
        self._abandoned = True
        if self._paused:
            self._paused = False
            self._resume_input()
            self._attend()

    # The callback

    def _run_callback(self) -> None:
        """Call it for what there is, but let others have their turn in between."""
        left = TURN
        while True:
            with self._lock:
                if self._write_paused or not self._queue:
                    return  # who does not read the replies need not be read
                if left < 0:
                    self._attend()
                    return
                item = self._take()
            left -= len(item)
            try:
                self._callback(self, item)
            except BaseException as exc:  # sys.exit(), too, must not end a thread that all connections share
                self._on_failure(exc)
                self._drop_messages()
                return

    def _drop_messages(self) -> None:
        """The callback has failed: it gets no more of them."""
        with self._lock:
            self._queue.clear()
            self._queue_bytes = 0
        self._fail(CloseCode.INTERNAL_ERROR, "")
