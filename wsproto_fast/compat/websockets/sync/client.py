"""``wsproto_fast.threading.client``."""

from __future__ import annotations

from ....backoff import backoff
from ....threading.client import (
    USER_AGENT,
    ClientConnection,
    connect,
    process_exception,
    reconnect,
    unix_connect,
    unix_reconnect,
)

__all__ = [
    "USER_AGENT",
    "ClientConnection",
    "backoff",
    "connect",
    "process_exception",
    "reconnect",
    "unix_connect",
    "unix_reconnect",
]
