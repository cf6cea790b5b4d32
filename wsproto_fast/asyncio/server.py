"""Servers: ``serve`` listens, does the opening handshake and runs a handler for each connection.

Knows listening, the open deadline, handlers and how to end them all; what is answered is ``ServerHandshake``'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any

from ..connection import Connection as Engine
from ..constants import CloseCode, Role, State
from ..exceptions import ConnectionClosed
from ..handshake import ServerHandshake
from ..http11 import Request, Response
from ..limits import Limits
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

__all__ = ["SERVER", "Server", "ServerConnection", "serve", "unix_serve"]

SERVER = f"Python/{sys.version_info.major}.{sys.version_info.minor} wsproto_fast"

Handler = Callable[["ServerConnection"], Awaitable[None]]
ProcessRequest = Callable[["ServerConnection", Request], Awaitable[Response | None] | Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Awaitable[Response | None] | Response | None]
SelectSubprotocol = Callable[["ServerConnection", Sequence[str]], str | None]

_logger = logging.getLogger("wsproto_fast.server")

#: How long a refused client may take to read its answer, where there is no open deadline.
_LINGER = 10.0


class ServerConnection(Connection):
    """A server's connection, as handlers get it; ``server`` is the Server."""

    def __init__(self, server: Server) -> None:
        super().__init__(server._settings, server.logger)
        self.server = server
        self._handshake = server._new_handshake(self)
        #: The whole handshake, TLS included, must be over by then; asyncio makes us when it accepts.
        open_timeout = self._settings.limits.open_timeout
        self._open_by = None if open_timeout is None else self._loop.time() + open_timeout
        self._open_timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def respond(self, status: int, text: str) -> Response:
        """A plain text response for ``process_request`` and ``process_response`` to return."""
        return self._handshake.reject(status, text)

    # The opening handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server._alive.add(self)
        if self._open_by is not None:
            self._open_timer = self._loop.call_at(self._open_by, self._expire)
        if self.server._closing:
            self._shut_out()

    def _expire(self) -> None:
        if not self._handshake.done:
            self.logger.info("opening handshake timed out")
            if self._task is not None:
                self._task.cancel()
        self.transport.abort()

    def _handshake_received(self, data: bytes) -> None:
        handshake = self._handshake
        handshake.receive_data(data)  # nothing comes of it when the handshake is over
        if handshake.request is not None:
            if self._task is None and not handshake.done:
                # Frames must wait for our answer (RFC 6455 4.1); what comes early stays in the socket.
                self._pause_reading(True)
                self.request = handshake.request
                self._task = self._loop.create_task(self.server._run(self))
        elif handshake.error is not None and not handshake.done:
            self._answer(handshake.accept())

    def _handshake_eof(self) -> None:
        handshake = self._handshake
        handshake.receive_eof()
        if handshake.done:
            self.transport.close()  # it has read our refusal
        elif handshake.request is None:
            self.logger.debug("connection closed before its request was complete")
            self.transport.close()
        # else somebody thinks about the answer

    def _answer(self, response: Response) -> bool:
        """Send the answer to the request. True: the connection is open."""
        handshake = self._handshake
        handshake.send_response(response)
        self.response = response
        self._pause_reading(False)
        if self.transport.is_closing():
            return False
        self.transport.writelines(handshake.data_to_send())
        if handshake.accepted:
            self._cancel_open_timer()
            del self._handshake  # it is of no further use
            engine = Engine(
                Role.SERVER,
                limits=self._settings.limits,
                keepalive=self._settings.keepalive,
                deflate=handshake.deflate,
                trailing_data=handshake.trailing_data,
            )
            engine.subprotocol = handshake.subprotocol
            self._open(engine)
            return True
        self.logger.info(
            "connection refused: HTTP %d%s", response.status_code, f"; {handshake.error}" if handshake.error else ""
        )
        self._linger()
        return False

    def _linger(self) -> None:
        """Let the client read our refusal: closing with bytes of it unread would reset the connection."""
        if not self._can_half_close():
            self.transport.close()
            return
        self._half_close()
        if self._open_timer is None:
            self._open_timer = self._loop.call_later(_LINGER, self.transport.abort)

    def _shut_out(self) -> None:
        """The server closes before a request was there."""
        if self._task is None and not self._handshake.done:
            self.transport.close()

    def _cancel_open_timer(self) -> None:
        if self._open_timer is not None:
            self._open_timer.cancel()
            self._open_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_open_timer()
        super().connection_lost(exc)
        self.server._alive.discard(self)
        self.server._check_closed()


class Server:
    """A listening server, as ``serve`` returns it: ``await`` it, or use ``async with``.

    ``close`` ends listening and, unless told otherwise, all connections; ``wait_closed`` waits for handlers too.
    """

    def __init__(
        self,
        create_server: Callable[[], Awaitable[asyncio.AbstractServer]],
        new_handshake: Callable[[ServerConnection], ServerHandshake],
        handler: Handler,
        process_request: ProcessRequest | None,
        process_response: ProcessResponse | None,
        settings: Settings,
        logger: logging.Logger,
    ) -> None:
        self.logger = logger
        self._create_server = create_server
        self._new_handshake = new_handshake
        self._handler = handler
        self._process_request = process_request
        self._process_response = process_response
        self._settings = settings
        self._server: asyncio.Server | None = None
        #: Every connection whose transport lives, and every task that handles one.
        self._alive: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._close_task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    @property
    def connections(self) -> set[ServerConnection]:
        """Connections that are open now."""
        return {connection for connection in self._alive if connection.state is State.OPEN}

    @property
    def sockets(self) -> tuple[Any, ...]:
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
        if not self._closing:
            await self._started().start_serving()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    def close(self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop listening, answer handshakes under way with 503, and close all connections with ``code``.

        ``close_connections=False`` lets open connections go on until their handlers end. Does nothing the second time.
        Raises ProtocolError when the code or reason must not be sent.
        """
        if self._closing:
            return
        Engine(Role.SERVER).send_close(code, reason)  # raises here what each connection would raise
        self._started().close()
        self._closing = True
        self.logger.info("server closing")
        for connection in list(self._alive):
            connection._shut_out()
        closing = self.connections if close_connections else set()
        self._close_task = self.get_loop().create_task(self._close(closing, code, reason))

    async def _close(self, connections: set[ServerConnection], code: int, reason: str) -> None:
        await asyncio.gather(*[connection.close(code, reason) for connection in connections])
        self._close_task = None
        self._check_closed()

    def _check_closed(self) -> None:
        if self._closing and self._close_task is None and not self._alive and not self._tasks:
            if not self._closed.is_set():
                self.logger.info("server closed")
            self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until ``close`` was called and all connections and handlers have ended."""
        await self._closed.wait()

    def _started(self) -> asyncio.Server:
        if self._server is None:
            raise RuntimeError("the server is not started")
        return self._server

    async def _start(self) -> Server:
        if self._server is None:
            server = await self._create_server()
            assert isinstance(server, asyncio.Server)
            self._server = server
            for sock in server.sockets:
                self.logger.info("server listening on %s", sock.getsockname())
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

    # One connection

    async def _run(self, connection: ServerConnection) -> None:
        """The task of a connection whose request is there."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if await self._negotiate(connection):
                await self._handle(connection)
        except asyncio.CancelledError:
            connection.transport.abort()
            raise
        finally:
            self._tasks.discard(task)
            self._check_closed()

    async def _negotiate(self, connection: ServerConnection) -> bool:
        request = connection.request
        assert request is not None
        handshake = connection._handshake
        response = None
        try:
            if self._process_request is not None:
                response = await _maybe_await(self._process_request(connection, request))
            if response is None:
                response = handshake.accept()
            if self._process_response is not None:
                response = await _maybe_await(self._process_response(connection, request, response)) or response
            if self._closing:
                response = handshake.reject(503, "Server is shutting down.\n")
            return connection._answer(response)
        except Exception:
            connection.logger.error("opening handshake failed", exc_info=True)
            text = "Failed to open a WebSocket connection.\nSee server log for more information.\n"
            return connection._answer(handshake.reject(500, text))

    async def _handle(self, connection: ServerConnection) -> None:
        code = CloseCode.INTERNAL_ERROR
        try:
            await self._handler(connection)
            code = CloseCode.NORMAL_CLOSURE
        except ConnectionClosed as exc:
            connection.logger.info("connection closed while its handler ran: %s", exc)
        except Exception:
            connection.logger.error("connection handler failed", exc_info=True)
        finally:
            connection._abandon()
            await connection.close(code)


async def _maybe_await(result: Any) -> Any:
    return await result if isinstance(result, Awaitable) else result


def serve(
    handler: Handler,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    origins: Sequence[str | re.Pattern[str] | None] | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: Compression = "deflate",
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
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
) -> Server:
    """Serve WebSocket connections: ``async with serve(handler, "localhost", 8765, origins=[...])``.

    ``handler(connection)`` runs as a task for each connection, which is closed with 1000 when it returns and with 1011,
    and a traceback in the log, when it raises.

    **A browser lets any page connect to your server.** ``origins`` lists the values of the Origin header that are
    accepted: exact strings, compiled patterns, or None for clients that send none; others get a 403.

    ``process_request(connection, request)`` and ``process_response(connection, request, response)``, functions or
    coroutine functions, may return a Response to be sent instead; an exception is logged and answered with 500.
    ``subprotocols`` (best first): the client must offer one of them, unless ``select_subprotocol(connection, offered)``
    decides. ``open_timeout`` bounds the whole opening handshake. For the other settings see ``connect``. Other
    arguments go to ``loop.create_server``: ``ssl``, ``sock``, ``reuse_port``, ``start_serving``, ...

    Raises ValueError for what must not go on the wire.
    """
    settings = Settings(
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
    if kwargs.get("ssl") is not None:
        kwargs.setdefault("ssl_handshake_timeout", settings.limits.open_timeout)
        if sys.version_info >= (3, 11):  # pragma: no branch (coverage is measured on newer versions)
            kwargs.setdefault("ssl_shutdown_timeout", settings.limits.close_timeout)

    def new_handshake(connection: ServerConnection | None) -> ServerHandshake:
        select = None
        if select_subprotocol is not None and connection is not None:

            def select(_: ServerHandshake, offered: Sequence[str]) -> str | None:
                return select_subprotocol(connection, offered)

        return ServerHandshake(
            origins=origins,
            subprotocols=subprotocols,
            select_subprotocol=select,
            deflate=settings.deflate,
            server_header=server_header,
            limits=settings.limits,
        )

    async def create_server() -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        if kwargs.pop("unix", False):
            return await loop.create_unix_server(lambda: ServerConnection(server), **kwargs)
        return await loop.create_server(lambda: ServerConnection(server), host, port, **kwargs)

    new_handshake(None)  # raises ValueError here, not for each client
    server = Server(
        create_server,
        new_handshake,
        handler,
        process_request,
        process_response,
        settings,
        _logger if logger is None else logger,
    )
    return server


def unix_serve(handler: Handler, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """``serve`` on a Unix socket."""
    return serve(handler, unix=True, path=path, **kwargs)
