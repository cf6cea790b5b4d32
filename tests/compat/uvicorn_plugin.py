"""Puts our class in the place of uvicorn's in uvicorn's own test suite: ``pytest -p uvicorn_plugin``.

The suite asks for ``websockets_sansio_impl.WebSocketsSansIOProtocol`` by its name, as a fixture and directly; since
before its modules are imported that name has been ours. It also looks at a few of that class's fields, and drives it
with a transport of its own that lacks a method: ``Probed`` has what is needed for that, and else is what users get.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from uvicorn.protocols.websockets import websockets_sansio_impl

from wsproto_fast.constants import CloseTransport
from wsproto_fast.contrib.uvicorn import WebSocketProtocol
from wsproto_fast.handshake import ServerHandshake


class Probed(WebSocketProtocol):
    """What the suite wants to know of a connection."""

    close_timeout = 10.0
    #: When the last Ping of the keepalive left, in the loop's time.
    ping_sent_at = 0.0

    @property
    def ping_timer(self) -> float | None:
        return None if self._settings.keepalive is None else self._engine.next_deadline()

    @property
    def close_timer(self) -> float | None:
        """Set while the client's Close frame is waited for."""
        engine = self._engine
        waiting = engine.close_sent is not None and engine.close_rcvd is None
        return engine.next_deadline() if waiting and not self._lost and not self.transport.is_closing() else None

    def _open_after(self, handshake: ServerHandshake, role: Any) -> None:  # type: ignore[override]
        limits = dataclasses.replace(self._settings.limits, close_timeout=self.close_timeout)
        self._settings.limits = limits
        super()._open_after(handshake, role)

    def _on_pong(self, pong: Any) -> None:
        super()._on_pong(pong)
        self.ping_sent_at = pong.sent_at

    def _obey(self, close_transport: CloseTransport) -> None:
        if close_transport is CloseTransport.ABORT and not hasattr(self.transport, "abort"):
            close_transport = CloseTransport.CLOSE
        super()._obey(close_transport)


websockets_sansio_impl.WebSocketsSansIOProtocol = Probed  # type: ignore[assignment, misc]
