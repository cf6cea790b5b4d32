"""``wsproto_fast.asyncio.server``."""

from __future__ import annotations

from ....asyncio.server import SERVER, Server, ServerConnection, basic_auth, broadcast, serve, unix_serve

__all__ = ["SERVER", "Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]
