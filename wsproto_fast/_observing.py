"""Connections that tell an observer: overrides of the places that everything passes. Knows when, and no more.

A class of its own, made at need, so that connections without an observer do not even ask whether there is one. Each
adapter adds what only it knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .events import Event, Pong

if TYPE_CHECKING:
    from ._payloads import DataLike
    from .connection import Connection as Engine
    from .prepared import PreparedMessage

__all__ = ["Observed", "observed_class"]


class Observed:
    """Goes before a Connection class."""

    __slots__ = ()

    if TYPE_CHECKING:
        _settings: Any
        _opened: bool
        latency: float
        logger: Any

    def _tell(self, what: str, *arguments: Any) -> None:
        try:
            getattr(self._settings.observer, what)(self, *arguments)
        except Exception:
            self.logger.error("observer failed", exc_info=True)

    def _open(self, engine: Engine) -> None:
        self._tell("connection_opened")
        super()._open(engine)  # type: ignore[misc]

    def _put(self, item: Any, size: int) -> None:
        self._tell("message_received", item if isinstance(item, (str, bytes)) else item.data)
        super()._put(item, size)  # type: ignore[misc]

    def _on_event(self, event: Event) -> None:
        super()._on_event(event)  # type: ignore[misc]
        if isinstance(event, Pong):
            self._tell("pong_received", self.latency if event.acknowledged else None)

    def _send_message(self, message: DataLike, text: bool | None, compress: bool | None) -> None:
        super()._send_message(message, text, compress)  # type: ignore[misc]
        self._tell("message_sent", message)

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        super()._send_prepared(prepared)  # type: ignore[misc]
        self._tell("message_sent", prepared.payload)

    def _send_fragment(self, chunk: DataLike, *arguments: Any) -> None:
        super()._send_fragment(chunk, *arguments)  # type: ignore[misc]
        self._tell("message_sent", chunk)


def observed_class(mixin: Any, connection_class: Any) -> Any:
    """That class, telling its observer."""
    if "_observed" not in vars(connection_class):
        name = f"Observed{connection_class.__name__}"
        connection_class._observed = type(name, (mixin, connection_class), {"__slots__": ()})
    return connection_class._observed
