"""What only this adapter tells an observer: see ``wsproto_fast._observing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._observing import Observed, ObservedMessages, observed_class

if TYPE_CHECKING:
    from .connection import Connection as _Base
else:
    _Base = object

__all__ = ["observed"]


class _Observed(Observed, _Base):  # type: ignore[misc]
    __slots__ = ()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._opened:
            self._tell("connection_closed")

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


class _ObservedMessages(_Observed, ObservedMessages):  # type: ignore[misc]
    __slots__ = ()

    def _on_message(self, data: str | bytes) -> None:
        if self._callback is None:
            self._put(data, len(data))  # through the queue, so that each is told
        else:
            self._tell("message_received", data)
            super()._on_message(data)


def observed(connection_class: Any, observer: Any) -> Any:
    """That class, telling the observer."""
    return observed_class(observer, _Observed, _ObservedMessages, connection_class)
