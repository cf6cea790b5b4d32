"""``wsproto_fast.threading.connection``."""

from __future__ import annotations

from ....threading.connection import Connection

__all__ = ["Connection"]
