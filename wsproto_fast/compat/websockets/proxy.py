"""Addresses of proxies: those of the engine."""

from __future__ import annotations

from ...proxy import Proxy, get_proxy, parse_proxy

__all__ = ["Proxy", "get_proxy", "parse_proxy"]
