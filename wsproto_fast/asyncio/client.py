"""Clients: ``connect`` opens a connection and does the opening handshake.

Knows asyncio's ways to connect and the open deadline; what is said in the handshake is ``ClientHandshake``'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any

from ..connection import Connection as Engine
from ..constants import Role
from ..exceptions import InvalidState
from ..handshake import ClientHandshake
from ..http11 import HeadersLike
from ..limits import Limits
from ..uri import parse_uri
from . import _compat
from .._settings import (
    CLOSE_TIMEOUT,
    MAX_SIZE,
    OPEN_TIMEOUT,
    WRITE_LIMIT,
    Compression,
    MaxQueue,
    MaxSize,
    Settings,
    WriteLimit,
)
from .connection import Connection

__all__ = ["USER_AGENT", "ClientConnection", "connect", "unix_connect"]

USER_AGENT = f"Python/{sys.version_info.major}.{sys.version_info.minor} wsproto_fast"

_logger = logging.getLogger("wsproto_fast.client")


class ClientConnection(Connection):
    """A client's connection; ``connect`` makes it."""

    def __init__(self, settings: Settings, handshake: ClientHandshake, logger: logging.Logger) -> None:
        super().__init__(settings, logger)
        self._handshake = handshake
        self.request = handshake.request
        #: Done when the opening handshake is.
        self._answered: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.writelines(self._handshake.data_to_send())

    def _handshake_received(self, data: bytes) -> None:
        self._handshake.receive_data(data)
        self._proceed()

    def _handshake_eof(self) -> None:
        self._handshake.receive_eof()
        self._proceed()

    def _proceed(self) -> None:
        handshake = self._handshake
        self.response = handshake.response
        if self._answered.done() or not handshake.done:
            return
        if handshake.error is not None:
            error = handshake.error
            error.__cause__ = error.__cause__ or self._transport_error
            self._answered.set_exception(error)
            self._answered.exception()  # nobody may wait for it any more
            return
        self._answered.set_result(None)
        engine = Engine(
            Role.CLIENT,
            limits=self._settings.limits,
            keepalive=self._settings.keepalive,
            deflate=handshake.deflate,
            trailing_data=handshake.trailing_data,
        )
        engine.subprotocol = handshake.subprotocol
        del self._handshake  # it is of no further use
        self._open(engine)


class connect:  # noqa: N801 (it is used like a function)
    """Open a WebSocket connection: ``await connect(uri)``, or ``async with connect(uri) as connection``.

    ``origin``, ``subprotocols`` (best first), ``additional_headers`` and ``user_agent_header`` go into the request;
    ``compression`` is "deflate", a DeflateConfig or None. ``open_timeout`` bounds all from the address lookup to the
    end of the handshake. ``ping_interval``, ``ping_timeout``, ``close_timeout``: seconds; None switches one off.
    ``max_size`` bounds a message (after inflate), or is ``(message, frame)``; ``limits`` takes its place for finer
    settings. ``max_queue`` bounds the messages received and not taken, or is ``(high, low)``; ``write_limit`` bounds
    the bytes sent and not written, or is ``(high, low)``. Other arguments go to ``loop.create_connection``: ``ssl``,
    ``sock``, ``host`` and ``port`` in place of the URI's, ``server_hostname``, ``local_addr``, ...

    Raises InvalidURI, and ValueError for anything that must not go on the wire, before a socket is opened; then
    OSError, TimeoutError, or InvalidHandshake, of which InvalidStatus holds a server's refusal.
    """

    def __init__(
        self,
        uri: str,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: Compression = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        open_timeout: float | None = OPEN_TIMEOUT,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = CLOSE_TIMEOUT,
        max_size: MaxSize = MAX_SIZE,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = WRITE_LIMIT,
        limits: Limits | None = None,
        logger: logging.Logger | None = None,
        **kwargs: Any,
    ) -> None:
        self._uri = parse_uri(uri)
        if not self._uri.secure and kwargs.get("ssl") is not None:
            raise ValueError("ssl argument is incompatible with a ws:// URI")
        if self._uri.secure and kwargs.setdefault("ssl", True) is None:
            raise ValueError("ssl=None is incompatible with a wss:// URI")
        self._settings = Settings(
            compression=compression,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            write_limit=write_limit,
            limits=limits,
        )
        self._request = {
            "origin": origin,
            "subprotocols": subprotocols,
            "additional_headers": additional_headers,
            "user_agent_header": user_agent_header,
        }
        self._new_handshake()  # raises ValueError here, not when it is awaited
        self._logger = _logger if logger is None else logger
        self._kwargs = kwargs
        self._connection: ClientConnection | None = None

    def _new_handshake(self) -> ClientHandshake:
        settings = self._settings
        arguments: dict[str, Any] = self._request
        return ClientHandshake(self._uri, deflate=settings.deflate, limits=settings.limits, **arguments)

    def _new_connection(self) -> ClientConnection:
        return ClientConnection(self._settings, self._new_handshake(), self._logger)

    async def _create_connection(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        kwargs = self._kwargs.copy()
        if self._uri.secure:
            kwargs.setdefault("server_hostname", self._uri.host)
        if kwargs.pop("unix", False):
            _, connection = await loop.create_unix_connection(self._new_connection, **kwargs)
        else:
            if kwargs.get("sock") is None:
                kwargs.setdefault("host", self._uri.host)
                kwargs.setdefault("port", self._uri.port)
            _, connection = await loop.create_connection(self._new_connection, **kwargs)
        return connection

    async def _connect(self) -> ClientConnection:
        connection = None
        try:
            async with _compat.timeout(self._settings.limits.open_timeout):
                connection = await self._create_connection()
                await connection._answered
        except BaseException as exc:
            if connection is not None:
                connection.transport.abort()
            if isinstance(exc, TimeoutError):
                raise TimeoutError("timed out during opening handshake") from exc
            raise
        return connection

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self._connect().__await__()

    async def __aenter__(self) -> ClientConnection:
        if self._connection is not None:
            raise RuntimeError("connect() isn't reentrant")
        self._connection = await self
        return self._connection

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is None:
            raise InvalidState("connect() was not entered")
        connection, self._connection = self._connection, None
        await connection.__aexit__(exc_type, exc, traceback)


def unix_connect(path: str | os.PathLike[str] | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """``connect`` over a Unix socket. ``uri`` tells host and path of the request, ``ws://localhost/`` by default."""
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, unix=True, path=path, **kwargs)
