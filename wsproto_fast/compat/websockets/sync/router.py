"""``wsproto_fast.threading.router``."""

from __future__ import annotations

from ....threading.router import Router, route, unix_route

__all__ = ["Router", "route", "unix_route"]
