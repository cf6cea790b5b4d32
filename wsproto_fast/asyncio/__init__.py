"""WebSocket clients and servers for asyncio: ``connect``, ``serve`` and what they give.

A thin adapter: it moves bytes between asyncio's transports and the engine, wakes tasks and arms one timer. Every
question about the protocol is the engine's.
"""

from __future__ import annotations

from ..groups import BroadcastResult
from .broadcast import broadcast
from .client import ClientConnection, connect, unix_connect
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
    "serve",
    "unix_connect",
    "unix_serve",
]
