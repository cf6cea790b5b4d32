"""The sending half of a connection but for its hot paths: messages in pieces, JSON, groups.

Knows Python's types and who waits for what; knows no sockets and no protocol.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._payloads import DataLike, kind_of
from ..constants import CloseCode
from ..exceptions import InvalidState, LocalProtocolError
from ._core import unwrapped
from ._native import monotonic
from ._receiving import Receiver

__all__ = ["Message", "Sender"]

Message = DataLike | Iterable[DataLike]


class Sender(Receiver):
    """The sending half of a connection."""

    __slots__ = ()

    def send_json(self, data: Any, *, compress: bool | None = None, timeout: float | None = None) -> None:
        """Send ``data`` as JSON in a text message, made by the connection's codec: see ``recv_json`` and ``send``.

        What a codec makes as ``bytes`` is sent as it is. Raises what the codec raises for what it cannot express.
        """
        self.send(self._settings.json.dumps(data), text=True, compress=compress, timeout=timeout)

    @contextlib.contextmanager
    def cork(self) -> Iterator[None]:
        """Messages sent within ``with connection.cork():`` leave together: at its end, or earlier when they reach
        64 KiB. So do those that other threads send meanwhile."""
        with self._lock:
            self._corks += 1
        try:
            yield
        finally:
            with self._lock:
                self._corks -= 1
                if self._opened and not self._corks:
                    self._flush()
                    if self._unsent_size:
                        self._attend()

    # Messages in pieces

    def _send_fragments(
        self, message: Any, text: bool | None, compress: bool | None, timeout: float | None
    ) -> None:
        if isinstance(message, Mapping):  # a common mistake: send(dict)
            raise TypeError("data is a dict-like object")
        if not isinstance(message, Iterable):
            raise TypeError("data must be str, bytes, or iterable")
        deadline = -1.0 if timeout is None else monotonic() + timeout
        kind: type | None = None
        begun = False
        try:
            for chunk in message:
                if kind is None:
                    kind = kind_of(chunk)
                elif kind_of(chunk) is not kind:
                    raise TypeError("iterable must contain uniform types")
                if text is False and isinstance(chunk, str):
                    chunk = chunk.encode()
                self._send_fragment(chunk, not begun, False, text, compress, deadline)
                begun = True
                self._drain_fragment(deadline)
            if begun:
                self._send_fragment(b"", False, True, text, compress, deadline)
                self._drain_fragment(deadline)
        except BaseException:
            if begun and self._fragmenting:
                self._fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")
            raise
        finally:
            if begun:
                with self._lock:
                    self._fragmenting = False
                    self._on_writable()

    def _send_fragment(
        self, chunk: DataLike, first: bool, fin: bool, text: bool | None, compress: bool | None, deadline: float
    ) -> None:
        with self._lock:
            if first:
                self._sendable(deadline)
            try:
                if first:
                    self._engine.send_fragment(chunk, first=True, fin=fin, text=text, compress=compress)
                    self._fragmenting = True
                else:
                    self._engine.send_fragment(chunk, first=False, fin=fin)
            except InvalidState:
                self._raise_closed()
            except LocalProtocolError as exc:
                raise unwrapped(exc) from None
            self._flush()

    def _drain_fragment(self, deadline: float) -> None:
        """Wait until not too much waits to be sent."""
        with self._lock:
            if self._unsent_size:
                self._drain(deadline)
            if self._half_closed:
                self._raise_closed()
            if self._write_paused and 0 <= deadline <= monotonic():
                raise TimeoutError("timed out while waiting for the peer to read")

    # Groups

    def _ready(self) -> bool:
        """Whether a message can be sent and ``send`` would not wait."""
        return not self._write_paused and not self._fragmenting and self._opened and self._engine.is_open

    def _watch(self, watcher: Any) -> None:
        with self._lock:
            self._watchers += (watcher,)

    def _unwatch(self, watcher: Any) -> None:
        with self._lock:
            self._watchers = tuple([other for other in self._watchers if other is not watcher])

    def _on_end(self) -> None:
        super()._on_end()
        self._leave()

    def _leave(self) -> None:
        """No message can be sent any more. The poller tells the groups, which may be in the middle of something."""
        if self._watchers:
            self._leaving += self._watchers
            self._watchers = ()
            self._attend()
