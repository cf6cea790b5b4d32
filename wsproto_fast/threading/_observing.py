"""What only this adapter tells an observer: see ``wsproto_fast._observing``. All of it is told under the connection's
lock, in whatever thread it happens."""

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

    def _lose(self) -> None:
        super()._lose()
        self._tell("connection_closed")

    def _pause_input(self) -> None:
        super()._pause_input()
        self._tell("reading_paused")

    def _resume_input(self) -> None:
        super()._resume_input()
        self._tell("reading_resumed")

    def _on_full(self) -> None:
        super()._on_full()
        self._tell("writing_paused")

    def _on_writable(self) -> None:
        super()._on_writable()
        self._tell("writing_resumed")


class _ObservedMessages(_Observed, ObservedMessages):  # type: ignore[misc]
    __slots__ = ()

    def _on_message(self, data: str | bytes) -> None:
        self._put(data, len(data))  # through the queue, so that each is told


def observed(connection_class: Any, observer: Any) -> Any:
    """That class, telling the observer."""
    return observed_class(observer, _Observed, _ObservedMessages, connection_class)
