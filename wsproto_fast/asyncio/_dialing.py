"""How a client's transport comes about: TCP or a Unix socket, a socket of our user's, a proxy, TLS.

Knows the arguments of ``loop.create_connection`` and whose they are; knows no WebSocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from ..limits import Limits
from ..proxy import Proxy, ProxyHandshake, check_proxy, choose_proxy, parse_proxy
from ..uri import WebSocketURI
from . import _compat
from ._proxying import connect_http, connect_socks
from ._transports import open_transport

__all__ = ["Dialer"]


class Dialer:
    """Opens transports. ``arguments`` are those of ``loop.create_connection``, and of ``create_unix_connection`` if
    ``path`` is among them; with ``proxy_`` before it one is for a proxy, see ``connect``."""

    def __init__(
        self,
        proxy: str | Literal[True] | None,
        user_agent_header: str | None,
        limits: Limits,
        arguments: Mapping[str, Any],
    ) -> None:
        self._proxy = parse_proxy(proxy) if isinstance(proxy, str) else proxy
        self._user_agent_header = user_agent_header
        self._limits = limits
        self._arguments = {key: value for key, value in arguments.items() if not key.startswith("proxy_")}
        self._for_proxy = {key[6:]: value for key, value in arguments.items() if key.startswith("proxy_")}

    @property
    def given(self) -> Collection[str]:
        """Names of the arguments that are not None."""
        return [key for key, value in self._arguments.items() if value is not None]

    def check(self, uri: WebSocketURI) -> None:
        """Raise ValueError when the arguments do not fit a URI."""
        ssl = self._arguments.get("ssl", uri.secure or None)
        if uri.secure and not ssl:
            raise ValueError(f"ssl={ssl} is incompatible with a wss:// URI")
        if not uri.secure and ssl is not None:
            raise ValueError("ssl argument is incompatible with a ws:// URI")
        if isinstance(self._proxy, Proxy):
            self._check_proxy(self._proxy, uri.secure)

    async def dial(self, uri: WebSocketURI, connection: asyncio.BaseProtocol) -> None:
        """Give ``connection`` a transport to the server. Raises OSError, ProxyError, InvalidProxy and ValueError."""
        arguments = {**self._arguments, **self._tls(uri)}
        if "path" in arguments:
            await open_transport("create_unix_connection", connection, arguments)
            return
        if arguments.get("sock") is None:
            # Where TCP goes to. TLS and the Host header stay with the URI.
            host, port = arguments.pop("host", None) or uri.host, arguments.pop("port", None) or uri.port
            proxy = choose_proxy(self._proxy, replace(uri, host=host, port=port))
            if proxy is not None:
                self._check_proxy(proxy, uri.secure)
                await self._dial_through(proxy, host, port, connection, self._tls(uri))
                return
            arguments["host"], arguments["port"] = host, port
        await open_transport("create_connection", connection, arguments)

    async def _dial_through(
        self, proxy: Proxy, host: str, port: int, connection: asyncio.BaseProtocol, tls: dict[str, Any]
    ) -> None:
        if proxy.is_socks:
            await connect_socks(proxy, host, port, connection, tls, self._arguments.get("local_addr"))
            return
        handshake = ProxyHandshake(proxy, host, port, user_agent_header=self._user_agent_header, limits=self._limits)
        arguments = {key: value for key, value in self._arguments.items() if not _is_tls(key)}
        arguments.update(self._for_proxy, host=proxy.host, port=proxy.port)
        if proxy.scheme == "https":
            arguments.setdefault("ssl", True)
        await connect_http(handshake, connection, tls, arguments)

    def _tls(self, uri: WebSocketURI) -> dict[str, Any]:
        """The arguments for TLS with the server, none for ws://."""
        if not uri.secure:
            return {}
        given = {key: value for key, value in self._arguments.items() if _is_tls(key)}
        return {"server_hostname": uri.host, **given, "ssl": given.get("ssl") or True}

    def _check_proxy(self, proxy: Proxy, secure: bool) -> None:
        check_proxy(proxy, secure, self._for_proxy.get("ssl", ...), _compat.HAS_TLS_IN_TLS)


def _is_tls(key: str) -> bool:
    """Whether an argument of ``loop.create_connection`` is for TLS with the server."""
    return key.startswith("ssl") or key == "server_hostname"
