"""``wsproto_fast.threading.server``."""

from __future__ import annotations

from ....threading.broadcast import broadcast
from ....threading.server import SERVER, Server, ServerConnection, basic_auth, serve, unix_serve

__all__ = ["SERVER", "Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]
