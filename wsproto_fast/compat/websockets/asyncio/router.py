"""``wsproto_fast.asyncio.router``."""

from __future__ import annotations

from ....asyncio.router import Router, route, unix_route

__all__ = ["Router", "route", "unix_route"]
