"""Servers: ``serve`` listens, and closes all connections in the end.

Knows listening, who is connected and how to end them all; what happens on a connection is ``ServerConnection``'s.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json as json_module
import logging
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from threading import get_ident
from types import TracebackType
from typing import Any

from .._auth import BasicAuth, Credentials
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
from ..constants import CloseCode, State
from ..control import checked_close
from ..handshake import ServerHandshake, ServerRules
from ..http11 import Request, Response
from ..limits import Limits
from ._server_connection import (
    Handler,
    ProcessRequest,
    ProcessResponse,
    SelectSubprotocol,
    ServerConnection,
    maybe_await,
)
from ._transports import Listening, listen
from .broadcast import broadcast
from .connection import LoggerLike

__all__ = ["SERVER", "Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

SERVER = f"Python/{sys.version_info.major}.{sys.version_info.minor} wsproto_fast"

_logger = logging.getLogger("wsproto_fast.server")


class Server:
    """A listening server, as ``serve`` returns it: ``await`` it, or use ``async with``.

    ``close`` ends listening and, unless told otherwise, all connections; ``wait_closed`` waits for handlers too. The
    rest is as in asyncio.Server.
    """

    def __init__(
        self,
        *,
        handler: Handler | None,
        process_request: ProcessRequest | None,
        process_response: ProcessResponse | None,
        select_subprotocol: SelectSubprotocol | None,
        rules: ServerRules,
        settings: Settings,
        logger: LoggerLike,
        create_connection: Callable[[Server], ServerConnection],
        method: str,
        address: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        self.logger = logger
        self._handler = handler
        self._process_request = process_request
        self._process_response = process_response
        self._select_subprotocol = select_subprotocol
        self._rules = rules
        self._settings = settings
        #: Nobody in this program has seen a connection's request or response before it is open.
        self._head_is_enough = not (process_request or process_response or select_subprotocol or settings.observer)
        self._create_connection = create_connection
        #: How to listen: a method of the loop, its arguments for the address, and the other ones.
        self._method = method
        self._address = address
        self._options = options
        self._server: asyncio.Server | Listening | None = None
        #: In which it was started.
        self._thread = 0
        #: Every connection whose transport lives, or that a task still handles.
        self._alive: set[ServerConnection] = set()
        self._closing = False
        self._closed = asyncio.Event()
        #: In which we learn that a task is done: a copy for each would cost each connection 64 bytes.
        self._context = contextvars.copy_context()

    @property
    def connections(self) -> set[ServerConnection]:
        """Connections that are open now: a set of your own, made anew each time."""
        return {connection for connection in self._alive if connection.state is State.OPEN}

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; none before the server is started and after it is closed."""
        return () if self._server is None else tuple(self._server.sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the server runs in. Raises RuntimeError before it is started."""
        return self._started().get_loop()

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.is_serving()

    async def start_serving(self) -> None:
        """Accept connections, after ``start_serving=False``."""
        await self._started().start_serving()

    async def serve_forever(self) -> None:
        """Accept connections until ``close`` is called. Cancelling it closes the server gracefully."""
        try:
            if not self._closing:
                await self.start_serving()
            await self.wait_closed()
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    def close(self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop listening, answer handshakes under way with 503, and close all connections with ``code``.

        Who is not through with TLS is dropped; asyncio's own transports keep that to themselves, and go on with it.
        ``close_connections=False`` lets open connections go on until their handlers end. Does nothing the second time.
        Raises ProtocolError when the code or reason must not be sent.
        """
        if self._closing:
            return
        checked_close(code, reason)  # raises here what each connection would raise
        listening = self._started()
        if get_ident() != self._thread:
            raise RuntimeError("a server must be closed in the thread of its loop; see loop.call_soon_threadsafe()")
        listening.close()
        self._closing = True
        self.logger.info("server closing")
        for connection in list(self._alive):
            if connection._opened:
                if close_connections:
                    connection._begin_close(code, reason)  # its own deadline ends it, with no task of ours
            else:
                connection._shut_out()
        self.get_loop().call_soon(self._check_closed)

    async def wait_closed(self) -> None:
        """Wait until ``close`` was called and all connections and handlers have ended.

        A handler should always be waiting for its connection in one way or another, so that it learns of the end.
        """
        await self._closed.wait()

    def _check_closed(self) -> None:
        if self._closing and not self._alive and not self._closed.is_set():
            self.logger.info("server closed")
            self._closed.set()

    def _started(self) -> asyncio.Server | Listening:
        if self._server is None:
            raise RuntimeError("the server is not started")
        return self._server

    async def _start(self) -> Server:
        if self._server is None:
            new_connection = functools.partial(self._create_connection, self)
            self._server = await listen(self._method, new_connection, {**self._address, **self._options})
            self._thread = get_ident()
            for sock in self._server.sockets:
                self.logger.info("server listening on %s", _name_of(sock))
        return self

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        return await self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    def _new_handshake(self, connection: ServerConnection) -> ServerHandshake:
        select = None
        if self._select_subprotocol is not None:
            select = functools.partial(_select_for, self._select_subprotocol, connection)
        return ServerHandshake.under(self._rules, select)


def _select_for(
    select: SelectSubprotocol, connection: ServerConnection, _: ServerHandshake, offered: Sequence[str]
) -> str | None:
    return select(connection, offered)


def _name_of(sock: socket.socket) -> str:
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(
    handler: Handler | None,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    origins: Sequence[str | re.Pattern[str] | None] | None = None,
    extensions: Sequence[Any] | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: Compression = "deflate",
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
    open_timeout: float | None = OPEN_TIMEOUT,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    ping_payload: Callable[[], str | bytes] | None = None,
    close_timeout: float | None = CLOSE_TIMEOUT,
    max_size: MaxSize = MAX_SIZE,
    max_queue: MaxQueue = 16,
    max_queue_bytes: int | None = MAX_QUEUE_BYTES,
    write_limit: WriteLimit = WRITE_LIMIT,
    limits: Limits | None = None,
    on_message: Callable[[Any, Any], object] | None = None,
    json: Any = json_module,
    observer: Any = None,
    logger: LoggerLike | None = None,
    create_connection: Callable[[Server], ServerConnection] | None = None,
    **kwargs: Any,
) -> Server:
    """Serve WebSocket connections: ``async with serve(handler, "localhost", 8765, origins=[...])``.

    ``handler(connection)`` runs as a task for each connection, which is closed with 1000 when it returns and with 1011,
    and a traceback in the log, when it raises. ``on_message(connection, message)``, a plain function, is called for
    each message in place of the connection's queue. With a ``handler`` too, that one sets up and tears down; with None
    there is no task at all, and a connection lives until someone closes it.

    **A browser lets any page connect to your server.** ``origins`` lists the values of the Origin header that are
    accepted: exact strings, compiled patterns, or None for clients that send none; others get a 403.

    ``process_request(connection, request)`` and ``process_response(connection, request, response)``, functions or
    coroutine functions, may return a Response to be sent instead; an exception is logged and answered with 500. They
    see every well-formed request, plain HTTP of any method too: ``connection.respond(200, "OK\\n")`` answers a health
    check. ``basic_auth`` makes a ``process_request``.

    ``subprotocols`` (best first): the client must offer one of them, unless ``select_subprotocol(connection, offered)``
    decides. ``open_timeout`` bounds the whole opening handshake, hooks included. ``create_connection`` is a subclass of
    ServerConnection, or a function that makes one of the Server. For the other settings see ``connect``. Other
    arguments go to ``loop.create_server``: ``ssl``, ``sock``, ``reuse_port``, ``start_serving``, ...

    Raises ValueError for what must not go on the wire, and TypeError when there is neither a handler nor on_message.
    """
    if handler is None and on_message is None:
        raise TypeError("serve() needs a handler or on_message")
    settings = Settings(
        compression=compression,
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
    rules = ServerRules(
        origins=origins,
        subprotocols=subprotocols,
        deflate=settings.deflate,
        server_header=server_header,
        limits=settings.limits,
    )
    if kwargs.get("ssl") is not None:
        kwargs.setdefault("ssl_handshake_timeout", settings.limits.open_timeout)
        if sys.version_info >= (3, 11):  # pragma: no branch (coverage is measured on newer versions)
            kwargs.setdefault("ssl_shutdown_timeout", settings.limits.close_timeout)
    return Server(
        handler=handler,
        process_request=process_request,
        process_response=process_response,
        select_subprotocol=select_subprotocol,
        rules=rules,
        settings=settings,
        logger=_logger if logger is None else logger,
        create_connection=ServerConnection if create_connection is None else create_connection,
        method="create_server",
        address={"host": host, "port": port},
        options=kwargs,
    )


def unix_serve(handler: Handler | None, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """``serve`` on a Unix socket, behind a reverse proxy for example."""
    server = serve(handler, **kwargs)
    server._method, server._address = "create_unix_server", {"path": path}
    return server


def basic_auth(
    realm: str = "",
    credentials: Credentials | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool] | bool] | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """A ``process_request`` that demands HTTP Basic authentication (RFC 7617); over anything but TLS it is no secret.

    ``credentials`` is a pair of user name and password, or several of them; ``check_credentials(username, password)``,
    a function or coroutine function, decides in their place. Who gets in is the connection's ``username``; others get
    a 401 for ``realm``, which is to be ASCII.

    Raises ValueError when both or none are given, or when the realm must not go on the wire; TypeError for credentials
    that are none.
    """
    auth = BasicAuth(realm, credentials, check_credentials)

    async def process_request(connection: ServerConnection, request: Request) -> Response | None:
        claim = auth.claim(request)
        if isinstance(claim, str):
            refusal = claim
        elif await maybe_await(auth.check(*claim)):
            connection.username = claim[0]
            return None
        else:
            refusal = "Invalid credentials\n"
        return auth.refusal(connection, refusal)

    return process_request
