"""``wsproto_fast.asyncio.connection``."""

from __future__ import annotations

from ....asyncio.connection import Connection

__all__ = ["Connection"]
