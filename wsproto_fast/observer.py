"""Observer: what somebody who counts, traces or logs is told about connections. Knows no connection itself."""

from __future__ import annotations

from typing import Any

__all__ = ["Observer"]


class Observer:
    """Give an instance of a subclass as ``observer=`` to ``serve`` or ``connect``; override what is of interest.

    ``connection`` is the adapter's. The methods are called where the thing happens, so they must be quick and must not
    wait; what they raise is logged and otherwise ignored. A connection without an observer pays nothing for them, and
    messages pay nothing where ``message_received`` and ``message_sent`` are not overridden.
    """

    def connection_opened(self, connection: Any) -> None:
        """The opening handshake is over."""

    def connection_closed(self, connection: Any) -> None:
        """The connection has ended; ``close_code`` and ``close_reason`` tell how. Told once. What it had received may
        still be taken."""

    def message_received(self, connection: Any, data: str | bytes) -> None:
        """A message came, or a frame of one that ``recv_streaming`` reads. It may still wait in the queue."""

    def message_sent(self, connection: Any, data: Any) -> None:
        """A message was given to the engine, or a fragment of one; broadcasts included, their ``data`` as bytes."""

    def pong_received(self, connection: Any, latency: float | None) -> None:
        """A Pong came. ``latency`` is the round-trip time in seconds if it answers a Ping of ours."""

    def reading_paused(self, connection: Any) -> None:
        """The peer is not read any more: the receive queue is full, and so is the read-ahead."""

    def reading_resumed(self, connection: Any) -> None:
        """The peer is read again."""

    def writing_paused(self, connection: Any) -> None:
        """The peer does not read: ``send`` waits from now on."""

    def writing_resumed(self, connection: Any) -> None:
        """``send`` goes on."""
