"""The receive queue of either adapter: what the engine tells it, and what is made of its items. Does no I/O."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

from .constants import CloseCode, Opcode, State
from .events import Closed, Event, Fragment, Message, Pong

if TYPE_CHECKING:
    from .connection import Connection as Engine
    from .exceptions import ConnectionClosed

__all__ = ["Incoming", "Item", "joined"]

#: A message for ``recv``, a frame that ``recv_streaming`` asked for, or a text that ``recv_json`` wants as bytes.
Item = str | bytes | Fragment | Message


class Incoming:
    """Goes before the class that has these fields."""

    __slots__ = ()

    if TYPE_CHECKING:
        _engine: Engine
        _raw: bool
        _sink: Any

        def _put(self, item: Any, size: int) -> None: ...

        def _fail(self, code: int, reason: str) -> None: ...

        def _closed_error(self) -> ConnectionClosed: ...

        def _on_pong(self, pong: Pong) -> None: ...

        def _on_end(self) -> None: ...

    # From the engine

    def _on_raw_message(self, data: str | bytes) -> None:
        if isinstance(data, bytes) and self._engine.message_opcode is Opcode.TEXT:
            self._put(Message(data, Opcode.TEXT), len(data))
        else:
            self._put(data, len(data))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Fragment):
            if event.fin:
                self._deliver("message")
            self._put(event, len(event.data))
        elif isinstance(event, Pong):
            self._on_pong(event)
        elif isinstance(event, Closed):
            self._sink = None  # it refers to us
            self._on_end()

    def _deliver(self, delivery: str) -> None:
        self._engine.delivery = delivery

    def _want_raw(self, raw: bool) -> None:
        """Want the texts that come from now on as ``bytes``, or as ``str``."""
        self._engine.decode_text = not raw
        self._raw = raw  # type: ignore[misc]
        if self._engine.state is not State.CLOSED:  # else nothing comes any more; and it refers to us
            self._sink = self._on_raw_message  # from now on: a text that has begun still comes as was wanted then

    # To our user

    def _decoded(
        self, data: str | bytes, decode: bool, decoder: codecs.IncrementalDecoder, last: bool
    ) -> str | bytes:
        """A frame as ``recv_streaming`` is to give it. ``decoder`` has what the frames before ended amid."""
        if isinstance(data, str):
            return data if decode else data.encode()
        if not decode:
            return data
        try:
            return decoder.decode(data, last)
        except UnicodeDecodeError as exc:
            self._fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")
            raise self._closed_error() from exc

    def _streamed(self, item: Item, decode: bool | None, decoder: codecs.IncrementalDecoder, last: bool) -> str | bytes:
        """An item as ``recv_streaming`` is to give it."""
        if isinstance(item, (str, bytes)):
            data, text = item, isinstance(item, str)
        else:
            data, text = item.data, item.opcode is Opcode.TEXT
        return self._decoded(data, text if decode is None else decode, decoder, last)


def joined(fragments: list[Fragment]) -> str | bytes | Message:
    """A message of which somebody had asked for the frames."""
    first = fragments[0]
    parts: list[Any] = [fragment.data for fragment in fragments]
    if isinstance(first.data, str):
        return "".join(parts)
    return Message(b"".join(parts), first.opcode) if first.opcode is Opcode.TEXT else b"".join(parts)
