"""Proxies that work, by HTTP and SOCKS, with and without TLS around them. Knows no adapter; runs on any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import anyio
from anyio.streams.tls import TLSListener
from tiny_proxy import HttpProxyHandler, Socks4ProxyHandler, Socks5ProxyHandler

__all__ = ["Proxying", "proxying"]


class Proxying:
    """A proxy that works, and what it has been asked for."""

    def __init__(self, scheme: str, port: int) -> None:
        self.scheme = scheme
        self.port = port
        self.asked: list[tuple[str, int]] = []
        #: Connections that the client has not ended.
        self.open = 0

    def uri(self, user_info: str = "") -> str:
        return f"{self.scheme}://{user_info}localhost:{self.port}"


@contextlib.asynccontextmanager
async def proxying(
    scheme: str, *, username: str | None = None, password: str | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Proxying]:
    handler: Any
    if scheme.startswith("http"):
        handler = HttpProxyHandler(username, password)
    elif scheme.startswith("socks4"):
        handler = Socks4ProxyHandler(username)
    else:
        handler = Socks5ProxyHandler(username, password)
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    proxy = Proxying(scheme, listener.extra(anyio.abc.SocketAttribute.local_port))
    if scheme == "https":
        listener = TLSListener(listener, tls, standard_compatible=False)
    create = handler.create_proxy

    def create_proxy(stream: Any) -> Any:
        made = create(stream)
        negotiate = made.negotiate

        async def remember() -> Any:
            result = await negotiate()
            proxy.asked.append(result if isinstance(result, tuple) else (result.host, result.port))
            return result

        made.negotiate = remember
        return made

    async def handle(stream: Any) -> None:
        proxy.open += 1
        try:
            await handler.handle(stream)
        finally:
            proxy.open -= 1

    handler.create_proxy = create_proxy
    task = asyncio.ensure_future(listener.serve(handle))
    try:
        yield proxy
        while proxy.open:
            await asyncio.sleep(0.001)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await listener.aclose()
