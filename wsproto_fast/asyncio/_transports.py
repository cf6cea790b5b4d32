"""Which transports connections have: the reactor's where it can serve them, asyncio's everywhere else.

Knows how loops listen and connect; knows no WebSocket.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._reactor import Reactor

try:
    from ._reactor import Listener, Placeholder, adopt, reactor_of
except ImportError:  # the pure-Python build, or no Linux
    HAS_REACTOR = False
else:
    HAS_REACTOR = True

__all__ = ["HAS_REACTOR", "Listening", "listen", "open_transport"]

Factory = Callable[[], asyncio.BaseProtocol]


def _reactor() -> Reactor | None:
    """That of the running loop, if there can be one."""
    return reactor_of(asyncio.get_running_loop()) if HAS_REACTOR else None


class Listening:
    """Listening sockets whose connections the reactor accepts, with what is wanted of asyncio.Server.

    The loop has bound the sockets of ``server``, and never listens on them itself.
    """

    def __init__(self, server: asyncio.Server, reactor: Reactor, factory: Factory, backlog: int) -> None:
        self._server = server
        self._backlog = backlog
        self._duplicates = [socket.socket(fileno=os.dup(sock.fileno())) for sock in server.sockets]
        self._listeners = [Listener(reactor, duplicate, factory, backlog) for duplicate in self._duplicates]
        self._serving = False

    @property
    def sockets(self) -> Sequence[Any]:
        return self._server.sockets

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._server.get_loop()

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None:
        if not self._serving:
            self._serving = True
            for duplicate, listener in zip(self._duplicates, self._listeners, strict=True):
                duplicate.listen(self._backlog)
                listener.start()

    def close(self) -> None:
        self._serving = False
        for duplicate, listener in zip(self._duplicates, self._listeners, strict=True):
            listener.close()
            duplicate.close()
        self._server.close()


async def listen(method: str, factory: Factory, arguments: dict[str, Any]) -> asyncio.Server | Listening:
    """Listen with ``loop.create_server`` or ``create_unix_server`` and its ``arguments``; ``factory`` makes protocols."""
    create = getattr(asyncio.get_running_loop(), method)
    reactor = _reactor()
    if reactor is None or arguments.get("ssl") is not None:
        server: asyncio.Server = await create(factory, **arguments)
        return server
    listening = Listening(
        await create(factory, **{**arguments, "start_serving": False}),
        reactor,
        factory,
        arguments.get("backlog", 100),
    )
    if arguments.get("start_serving", True):
        await listening.start_serving()
    return listening


async def open_transport(method: str, connection: asyncio.BaseProtocol, arguments: dict[str, Any]) -> None:
    """Give ``connection`` a transport, by ``loop.create_connection`` or ``create_unix_connection`` and ``arguments``."""
    create = getattr(asyncio.get_running_loop(), method)
    reactor = _reactor()
    if reactor is None or arguments.get("ssl") is not None:
        await create(lambda: connection, **arguments)
        return
    transport, _ = await create(Placeholder, **arguments)
    adopt(reactor, transport, connection)
