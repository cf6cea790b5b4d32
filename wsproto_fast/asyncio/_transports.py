"""Which transports connections have: the reactor's where it can serve them, asyncio's everywhere else.

Knows how loops listen and connect; knows no WebSocket.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ._tls import TLSTransport

if TYPE_CHECKING:
    from ._reactor import Reactor

try:
    from ._reactor import Listener, Placeholder, adopt, reactor_of
except ImportError:  # the pure-Python build, or no Linux
    HAS_REACTOR = False
else:  # pragma: no cover (all that needs the reactor: the pure-Python build, on which coverage is measured, has none)
    HAS_REACTOR = True

__all__ = ["HAS_REACTOR", "Listening", "listen", "open_transport"]

Factory = Callable[[], asyncio.BaseProtocol]


def _reactor() -> Reactor | None:
    """That of the running loop, if there can be one."""
    return reactor_of(asyncio.get_running_loop()) if HAS_REACTOR else None


class Listening:  # pragma: no cover
    """Listening sockets whose connections the reactor accepts, with what is wanted of asyncio.Server.

    The loop has bound the sockets of ``server``, and never listens on them itself. Until its TLS handshake is over
    nobody but us knows a connection: ``close`` ends those.
    """

    def __init__(
        self, server: asyncio.Server, reactor: Reactor, factory: Factory, tls: _TLS | None, backlog: int
    ) -> None:
        self._server = server
        self._factory = factory
        self._tls = tls
        self._backlog = backlog
        self._handshaking: weakref.WeakSet[TLSTransport] = weakref.WeakSet()
        self._duplicates: list[socket.socket] = []
        self._listeners: list[Listener] = []
        self._serving = False
        try:
            for sock in server.sockets:
                self._duplicates.append(socket.socket(fileno=os.dup(sock.fileno())))
                new_protocol = factory if tls is None else self._new_tls
                self._listeners.append(Listener(reactor, self._duplicates[-1], new_protocol, backlog))
        except BaseException:
            self.close()
            raise

    def _new_tls(self) -> TLSTransport:
        def on_handshake(_: BaseException | None) -> None:
            self._handshaking.discard(transport)

        assert self._tls is not None
        transport = self._tls.around(self._factory(), on_handshake, server_side=True)
        self._handshaking.add(transport)
        return transport

    @property
    def sockets(self) -> Sequence[Any]:
        return self._server.sockets

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._server.get_loop()

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None:
        if not self._serving:
            for duplicate in self._duplicates:
                duplicate.listen(self._backlog)
            for listener in self._listeners:
                listener.start()
            self._serving = True

    def close(self) -> None:
        self._serving = False
        for listener in self._listeners:
            listener.close()
        for duplicate in self._duplicates:
            duplicate.close()
        self._server.close()
        for transport in list(self._handshaking):
            transport.abort()


class _TLS:  # pragma: no cover
    """What TLS is made with: the arguments of the loop's methods that are for it."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        context = arguments.pop("ssl")
        self._context: ssl.SSLContext = ssl.create_default_context() if context is True else context
        self._arguments = {
            name: arguments.pop(f"ssl_{name}", None) for name in ("handshake_timeout", "shutdown_timeout")
        }
        self._hostname: str | None = arguments.pop("server_hostname", None)

    def around(self, protocol: asyncio.BaseProtocol, on_handshake: Any, *, server_side: bool) -> TLSTransport:
        """A protocol that becomes the transport of ``protocol``."""
        return TLSTransport(
            asyncio.get_running_loop(),
            protocol,
            self._context,
            server_side=server_side,
            server_hostname=self._hostname,
            on_handshake=on_handshake,
            **self._arguments,
        )


def _tls_of(arguments: dict[str, Any]) -> _TLS | None:  # pragma: no cover
    """Takes from ``arguments`` what is for TLS, if anything is."""
    return None if arguments.get("ssl") is None else _TLS(arguments)


async def listen(method: str, factory: Factory, arguments: dict[str, Any]) -> asyncio.Server | Listening:
    """Listen by ``loop.create_server`` or ``create_unix_server`` with ``arguments``; ``factory`` makes protocols."""
    create = getattr(asyncio.get_running_loop(), method)
    reactor = _reactor()
    context = arguments.get("ssl")
    if reactor is None or not (context is None or isinstance(context, ssl.SSLContext)):  # the loop says what is wrong
        server: asyncio.Server = await create(factory, **arguments)
        return server
    return await _listen(create, factory, dict(arguments), reactor)  # pragma: no cover


async def _listen(
    create: Any, factory: Factory, arguments: dict[str, Any], reactor: Reactor
) -> Listening:  # pragma: no cover
    start = arguments.pop("start_serving", True)
    tls = _tls_of(arguments)
    server = await create(factory, start_serving=False, **arguments)
    listening = Listening(server, reactor, factory, tls, arguments.get("backlog", 100))
    if start:
        try:
            await listening.start_serving()
        except BaseException:
            listening.close()
            raise
    return listening


async def open_transport(method: str, connection: asyncio.BaseProtocol, arguments: dict[str, Any]) -> None:
    """Give ``connection`` a transport, by ``loop.create_connection`` or ``create_unix_connection`` with them."""
    create = getattr(asyncio.get_running_loop(), method)
    reactor = _reactor()
    context = arguments.get("ssl")
    if reactor is None or not (context is None or context is True or isinstance(context, ssl.SSLContext)):
        await create(lambda: connection, **arguments)
        return
    await _adopt(create, connection, dict(arguments), reactor)  # pragma: no cover


async def _adopt(
    create: Any, connection: asyncio.BaseProtocol, arguments: dict[str, Any], reactor: Reactor
) -> None:  # pragma: no cover
    tls = _tls_of(arguments)
    if tls is None:
        transport, _ = await create(Placeholder, **arguments)
        adopt(reactor, transport, connection)
        return
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_handshake(exc: BaseException | None) -> None:
        if opened.done():
            return
        if exc is None:
            opened.set_result(None)
        else:
            opened.set_exception(exc)

    around = tls.around(connection, on_handshake, server_side=False)  # now: it may raise
    transport, _ = await create(Placeholder, **arguments)
    channel = adopt(reactor, transport, around)
    try:
        await opened
    except BaseException:
        channel.abort()
        raise
