"""WebSocket clients and servers for threads: ``connect``, ``serve`` and what they give.

A thin adapter: the thread that waits for a message reads the socket itself, and one thread looks after all connections
that nobody is reading. Every question about the protocol is the engine's.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":  # pragma: no cover
    raise ImportError("threads need MSG_DONTWAIT and poll(), which Windows has not: use wsproto_fast.asyncio there")

from ..groups import BroadcastResult
from .broadcast import broadcast
from .client import ClientConnection, connect, reconnect, unix_connect, unix_reconnect
from .connection import Connection
from .group import Group
from .server import Server, ServerConnection, basic_auth, serve, unix_serve
from .session import Session, SessionState

__all__ = [
    "BroadcastResult",
    "ClientConnection",
    "Connection",
    "Group",
    "Server",
    "ServerConnection",
    "Session",
    "SessionState",
    "basic_auth",
    "broadcast",
    "connect",
    "reconnect",
    "serve",
    "unix_connect",
    "unix_reconnect",
    "unix_serve",
]
