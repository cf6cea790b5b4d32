"""Connections that tell an observer: overrides of the places that everything passes. Knows when, and no more.

A class of its own, made at need, so that connections without an observer do not even ask whether there is one; nor do
messages of those whose observer takes no interest in messages. Each adapter adds what only it knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .events import Event, Pong
from .observer import Observer

if TYPE_CHECKING:
    from ._payloads import DataLike
    from .connection import Connection as Engine
    from .prepared import PreparedMessage

__all__ = ["Observed", "ObservedMessages", "observed_class"]


class Observed:
    """Goes before a Connection class. Tells all but messages."""

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

    def _on_event(self, event: Event) -> None:
        super()._on_event(event)  # type: ignore[misc]
        if isinstance(event, Pong):
            self._tell("pong_received", self.latency if event.acknowledged else None)


class ObservedMessages(Observed):
    """Tells messages too."""

    __slots__ = ()

    def _put(self, item: Any, size: int) -> None:
        self._tell("message_received", item if isinstance(item, (str, bytes)) else item.data)
        super()._put(item, size)  # type: ignore[misc]

    def _send_message(self, message: DataLike, text: bool | None, compress: bool | None) -> None:
        super()._send_message(message, text, compress)  # type: ignore[misc]
        self._tell("message_sent", message)

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        super()._send_prepared(prepared)  # type: ignore[misc]
        self._tell("message_sent", prepared.payload)

    def _send_fragment(self, chunk: DataLike, *arguments: Any) -> None:
        super()._send_fragment(chunk, *arguments)  # type: ignore[misc]
        self._tell("message_sent", chunk)


def observed_class(observer: Any, mixin: Any, message_mixin: Any, connection_class: Any) -> Any:
    """That class, telling its observer what this one takes an interest in: all, or all but messages."""
    cached = "_observed"
    if _wants_messages(observer):
        cached, mixin = "_observed_messages", message_mixin
    if cached not in vars(connection_class):
        name = f"Observed{connection_class.__name__}"
        setattr(connection_class, cached, type(name, (mixin, connection_class), {"__slots__": ()}))
    return getattr(connection_class, cached)


def _wants_messages(observer: Any) -> bool:
    return any(
        getattr(getattr(observer, hook), "__func__", None) is not getattr(Observer, hook)
        for hook in ("message_received", "message_sent")
    )
