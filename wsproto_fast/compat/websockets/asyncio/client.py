"""``wsproto_fast.asyncio.client``."""

from __future__ import annotations

from ....asyncio.client import USER_AGENT, ClientConnection, connect, process_exception, unix_connect
from ....backoff import backoff

__all__ = ["USER_AGENT", "ClientConnection", "backoff", "connect", "process_exception", "unix_connect"]
