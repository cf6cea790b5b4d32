"""WebSocket URIs: those of the engine."""

from __future__ import annotations

from ...uri import WebSocketURI, parse_uri

__all__ = ["WebSocketURI", "parse_uri"]
