"""Connections that tell an observer: overrides of the places that everything passes. Knows when, and no more.

A class of its own, made at need, so that connections without an observer do not even ask whether there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..events import Event, Pong

if TYPE_CHECKING:
    from .._payloads import DataLike
    from ..connection import Connection as Engine
    from ..prepared import PreparedMessage
    from .connection import Connection as _Base
else:
    _Base = object

__all__ = ["observed"]


class _Observed(_Base):
    """Goes before a Connection class."""

    __slots__ = ()

    def _tell(self, what: str, *arguments: Any) -> None:
        try:
            getattr(self._settings.observer, what)(self, *arguments)
        except Exception:
            self.logger.error("observer failed", exc_info=True)

    def _open(self, engine: Engine) -> None:
        self._tell("connection_opened")
        super()._open(engine)

    def _on_message(self, data: str | bytes) -> None:
        if self._callback is None:
            self._put(data, len(data))  # through the queue, so that each is told
        else:
            self._tell("message_received", data)
            super()._on_message(data)

    def _put(self, item: Any, size: int) -> None:
        self._tell("message_received", item if isinstance(item, (str, bytes)) else item.data)
        super()._put(item, size)

    def _on_event(self, event: Event) -> None:
        super()._on_event(event)
        if isinstance(event, Pong):
            self._tell("pong_received", self.latency if event.acknowledged else None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._opened:
            self._tell("connection_closed")

    def _send_message(self, message: DataLike, text: bool | None, compress: bool | None) -> None:
        super()._send_message(message, text, compress)
        self._tell("message_sent", message)

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        super()._send_prepared(prepared)
        self._tell("message_sent", prepared.payload)

    def _send_fragment(self, chunk: DataLike, *arguments: Any) -> None:
        super()._send_fragment(chunk, *arguments)
        self._tell("message_sent", chunk)

    def _pause_reading(self, pause: bool) -> None:
        super()._pause_reading(pause)
        if self._opened:
            self._tell("reading_paused" if pause else "reading_resumed")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._tell("writing_paused")

    def resume_writing(self) -> None:
        super().resume_writing()
        self._tell("writing_resumed")


def observed(connection_class: Any) -> Any:
    """That class, telling its observer."""
    if "_observed" not in vars(connection_class):
        name = f"Observed{connection_class.__name__}"
        connection_class._observed = type(name, (_Observed, connection_class), {"__slots__": ()})
    return connection_class._observed
