"""Clients: ``connect`` opens a connection and does the opening handshake, again and again if asked to.

Knows asyncio's ways to connect and the open deadline; what is said in the handshake is ``ClientHandshake``'s, where a
redirect leads ``_redirecting``'s, which proxy to use ``proxy``'s.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

from .._connecting import CLIENT_DEFLATE, USER_AGENT, Connecting
from .._redirecting import MAX_REDIRECTS
from .._settings import (
    CLOSE_TIMEOUT,
    MAX_QUEUE_BYTES,
    MAX_SIZE,
    OPEN_TIMEOUT,
    WRITE_LIMIT,
    Compression,
    MaxQueue,
    MaxSize,
    Settings,
    WriteLimit,
)
from ..backoff import backoff, process_exception
from ..constants import Role
from ..exceptions import InvalidState, SecurityError
from ..handshake import ClientHandshake
from ..http11 import HeadersLike
from ..limits import Limits
from ..uri import WebSocketURI, parse_uri
from . import _compat
from ._dialing import Dialer
from .connection import Connection, LoggerLike

__all__ = ["USER_AGENT", "ClientConnection", "connect", "process_exception", "unix_connect"]


class ClientConnection(Connection):
    """A client's connection; ``connect`` makes it."""

    __slots__ = ("_answered", "_handshake")

    def __init__(self, settings: Settings, handshake: ClientHandshake, logger: LoggerLike) -> None:
        super().__init__(settings, logger)
        self._handshake = handshake
        self.request = handshake.request
        #: Done when the opening handshake is.
        self._answered: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.writelines(self._handshake.data_to_send())

    def _handshake_received(self, data: bytes) -> None:
        if not self._answered.done():
            self._handshake.receive_data(data)
            self._proceed()

    def _handshake_eof(self) -> None:
        if not self._answered.done():
            self._handshake.receive_eof()
            self._proceed()

    def _proceed(self) -> None:
        handshake = self._handshake
        self.response = handshake.response
        if not handshake.done:
            return
        if handshake.error is not None:
            error = handshake.error
            error.__cause__ = error.__cause__ or self._transport_error
            self._answered.set_exception(error.with_traceback(None))  # its frames would keep us alive
            self._answered.exception()  # nobody may wait for it any more
            return
        self._answered.set_result(None)
        del self._handshake  # it is of no further use
        self._compact()
        self._open_after(handshake, Role.CLIENT)

    def _give_up(self) -> None:
        """Opening has failed: whatever comes now, this is no connection."""
        self._answered.cancel()
        transport = getattr(self, "transport", None)
        if transport is not None:
            transport.abort()


class connect(Connecting):  # noqa: N801 (it is used like a function)
    """Open a WebSocket connection: ``await connect(uri)``, or ``async with connect(uri) as connection``.

    ``async for connection in connect(uri)`` connects again whenever its body continues, and closes the connection
    before. Errors of the network are waited out with ``reconnect_delays()``, until an attempt succeeds;
    ``process_exception`` is given what an attempt raised, and returns None to try again, or what to raise.

    ``origin``, ``subprotocols`` (best first), ``additional_headers`` and ``user_agent_header`` go into the request;
    ``compression`` is "deflate", a DeflateConfig or None, and ``extensions`` is websockets' way to say it.
    ``open_timeout`` bounds all from the address lookup to the end of the handshake, proxies and redirects included.
    ``ping_interval``, ``ping_timeout``, ``close_timeout``: seconds; None switches one off. ``ping_payload`` makes the
    payload of each heartbeat. ``max_size`` bounds a message (after inflate), or is ``(message, frame)``; ``limits``
    takes its place for finer settings. ``max_queue`` and ``max_queue_bytes`` bound the messages received and not taken,
    ``write_limit`` the bytes sent and not written; each but the second may be ``(high, low)``.
    ``on_message(connection, message)`` is called for each message in place of the queue. ``json`` has the codec of
    ``send_json`` and ``recv_json``; ``observer`` is told what happens.

    ``proxy`` is the address of one, None, or True for that of the environment or the operating system. Arguments
    that begin with ``proxy_`` go without it to the connection to an HTTP proxy, for example ``proxy_ssl``; there they
    stand beside all others but those of TLS. SOCKS needs the extra ``wsproto_fast[proxy]``.

    ``create_connection`` makes the connection, for example a subclass of ClientConnection. Other arguments go to
    ``loop.create_connection``: ``ssl``, ``sock``, ``host`` and ``port`` in place of the URI's, ``server_hostname``,
    ``local_addr``, ...

    Raises InvalidURI or InvalidProxy, and ValueError for anything that must not go on the wire, before a socket is
    opened; then OSError, TimeoutError, or InvalidHandshake, of which InvalidStatus holds a server's refusal. Up to 10
    redirects are followed; InvalidURI, and ValueError when ``sock``, ``host`` or ``port`` rules one out, then too.
    """

    def __init__(
        self,
        uri: str,
        *,
        origin: str | None = None,
        extensions: Sequence[Any] | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: Compression = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        open_timeout: float | None = OPEN_TIMEOUT,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        ping_payload: Callable[[], str | bytes] | None = None,
        close_timeout: float | None = CLOSE_TIMEOUT,
        reconnect_delays: Callable[[], Iterable[float]] = backoff,
        max_size: MaxSize = MAX_SIZE,
        max_queue: MaxQueue = 16,
        max_queue_bytes: int | None = MAX_QUEUE_BYTES,
        write_limit: WriteLimit = WRITE_LIMIT,
        limits: Limits | None = None,
        on_message: Callable[[Any, Any], object] | None = None,
        json: Any = json,
        observer: Any = None,
        logger: LoggerLike | None = None,
        create_connection: Callable[[Settings, ClientHandshake, LoggerLike], ClientConnection] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = Settings(
            compression=CLIENT_DEFLATE if compression == "deflate" else compression,
            extensions=extensions,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            ping_payload=ping_payload,
            close_timeout=close_timeout,
            max_size=max_size,
            max_queue=max_queue,
            max_queue_bytes=max_queue_bytes,
            write_limit=write_limit,
            limits=limits,
            on_message=on_message,
            json=json,
            observer=observer,
        )
        request = {"origin": origin, "subprotocols": subprotocols, "user_agent_header": user_agent_header}
        self._create_connection = ClientConnection if create_connection is None else create_connection
        self._dialer = Dialer(proxy, user_agent_header, settings.limits, kwargs)
        self._connection: ClientConnection | None = None
        self._dialer.check(
            self._set_up(uri, settings, additional_headers, request, process_exception, reconnect_delays, logger)
        )

    @property
    def _given(self) -> Collection[str]:  # type: ignore[override]
        return self._dialer.given

    # One connection

    async def _connect(self) -> ClientConnection:
        headers = self._begin()
        try:
            async with _compat.timeout(self._settings.limits.open_timeout):
                for _ in range(MAX_REDIRECTS + 1):
                    try:
                        return await self._attempt(parse_uri(self.uri), headers)
                    except Exception as exc:
                        headers = self._follow(exc, headers)
                raise SecurityError(f"more than {MAX_REDIRECTS} redirects")
        except TimeoutError as exc:
            raise TimeoutError("timed out during opening handshake") from exc

    async def _attempt(self, uri: WebSocketURI, headers: HeadersLike | None) -> ClientConnection:
        connection = self._create_connection(self._settings, self._new_handshake(uri, headers), self._logger)
        try:
            await self._dialer.dial(uri, connection)
            await connection._answered
        except BaseException:
            connection._give_up()
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

    # One after the other

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        delays: Iterator[float] | None = None
        while True:
            try:
                connection = await self
            except Exception as exc:
                self._raise_unless_transient(exc)
                if delays is None:
                    delays = iter(self._reconnect_delays())
                delay = next(delays, None)
                if delay is None:
                    raise
                self._log_failure(exc, delay)
                await asyncio.sleep(delay)
                continue
            delays = None
            try:
                yield connection
            finally:
                await connection.__aexit__(None, None, None)


def unix_connect(path: str | os.PathLike[str] | None = None, uri: str | None = None, **kwargs: Any) -> connect:
    """``connect`` over the Unix socket at ``path``, without proxies. ``uri`` tells host and path of the request,
    ``ws://localhost/``, or with ``ssl`` ``wss://localhost/``, by default."""
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, path=path, **kwargs)
