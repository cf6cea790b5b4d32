"""Connects through proxies: HTTP's CONNECT by ourselves, SOCKS with python-socks, TLS around and inside the tunnel.

Knows asyncio's transports; what is said to an HTTP proxy is ``ProxyHandshake``'s. Knows no WebSocket.
"""

from __future__ import annotations

import asyncio
import socket
from ssl import create_default_context
from typing import Any, cast

from ..exceptions import ProxyError
from ..proxy import Proxy, ProxyHandshake

__all__ = ["connect_http", "connect_socks"]

#: python-socks has a limit of its own, one minute, unless it is given another; ``open_timeout`` is ours.
_FOREVER = 1e6


class _Tunnel(asyncio.Protocol):
    """The protocol of a transport until the tunnel can be used."""

    transport: asyncio.Transport | None = None

    def __init__(self, handshake: ProxyHandshake) -> None:
        self._handshake = handshake
        self._lost: tuple[Exception | None] | None = None
        #: Done when the proxy has answered.
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.transport.write(self._handshake.request)

    def data_received(self, data: bytes) -> None:
        self._handshake.receive_data(data)
        self._proceed()

    def eof_received(self) -> None:
        self._handshake.receive_eof()
        self._proceed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = (exc,)
        self.eof_received()

    def _proceed(self) -> None:
        if self._handshake.done and not self.answered.done():
            self.answered.set_result(None)

    def check(self) -> None:
        """Raise what is wrong, if anything: InvalidProxyMessage, InvalidProxyStatus, ConnectionResetError."""
        if self._handshake.error is not None:
            raise self._handshake.error
        if self._lost is not None:
            raise ConnectionResetError("connection lost before the opening handshake") from self._lost[0]


async def connect_http(
    handshake: ProxyHandshake, connection: asyncio.BaseProtocol, tls: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Give ``connection`` a transport that an HTTP proxy connects to the server.

    ``tls`` holds the arguments for TLS with the server, none without; ``arguments`` are those of
    ``loop.create_connection`` to the proxy. Raises OSError and ProxyError.
    """
    loop = asyncio.get_running_loop()
    tunnel = _Tunnel(handshake)
    try:
        transport: asyncio.Transport
        transport, _ = await loop.create_connection(lambda: tunnel, **arguments)
        await tunnel.answered
        tunnel.check()
        if tls:
            transport = await _start_tls(transport, tunnel, **tls)
            tunnel.check()
        transport.set_protocol(connection)
        connection.connection_made(transport)
    except BaseException:
        if tunnel.transport is not None:
            tunnel.transport.abort()
        raise


async def _start_tls(
    transport: asyncio.Transport, protocol: asyncio.Protocol, ssl: Any, **arguments: Any
) -> asyncio.Transport:
    context = create_default_context() if ssl is True else ssl
    result = await asyncio.get_running_loop().start_tls(transport, protocol, context, **arguments)
    assert result is not None
    return result


async def connect_socks(
    proxy: Proxy, host: str, port: int, connection: asyncio.BaseProtocol, tls: dict[str, Any], local_addr: Any
) -> None:
    """Give ``connection`` a transport that a SOCKS proxy connects to the server. Raises OSError and ProxyError.

    Raises ImportError without python-socks.
    """
    sock = await _open_socks(proxy, host, port, local_addr)
    try:
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock, **tls)
    except BaseException:
        sock.close()
        raise


async def _open_socks(proxy: Proxy, host: str, port: int, local_addr: Any) -> socket.socket:
    try:
        from python_socks import ProxyType
        from python_socks.async_.asyncio import Proxy as Socks
    except ImportError as exc:
        text = "connecting through a SOCKS proxy requires python-socks: pip install wsproto_fast[proxy]"
        raise ImportError(text) from exc
    version = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    socks = Socks(version, proxy.host, proxy.port, proxy.username, proxy.password, proxy.resolves_names)
    try:
        return await socks.connect(host, port, timeout=_FOREVER, local_addr=local_addr)
    except OSError as exc:  # python-socks has a class of its own for what the system said
        raise (exc.__cause__ if isinstance(exc.__cause__, OSError) else exc) from None
    except Exception as exc:
        raise ProxyError("failed to connect to SOCKS proxy") from exc
