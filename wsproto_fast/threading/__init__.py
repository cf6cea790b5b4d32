"""WebSocket clients and servers for threads: ``connect``, ``serve`` and what they give.

A thin adapter: the thread that waits for a message reads the socket itself, and one thread looks after all connections
that nobody is reading. Every question about the protocol is the engine's.
"""

from __future__ import annotations

from .client import ClientConnection, connect, reconnect, unix_connect, unix_reconnect
from .connection import Connection
from .server import Server, ServerConnection, basic_auth, serve, unix_serve

__all__ = [
    "ClientConnection",
    "Connection",
    "Server",
    "ServerConnection",
    "basic_auth",
    "connect",
    "reconnect",
    "serve",
    "unix_connect",
    "unix_reconnect",
    "unix_serve",
]
