"""Servers: ``serve`` listens, and closes all connections in the end.

Knows who is connected and how to end them all; how clients come in is ``_accepting``'s, and what happens on a
connection is ``ServerConnection``'s.
"""

from __future__ import annotations

import contextlib
import functools
import json as json_module
import logging
import os
import re
import socket
import ssl as ssl_module
import sys
import threading
from collections.abc import Callable, Sequence
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
from ._accepting import Acceptor, Newcomer, rest_of
from ._server_connection import Handler, ProcessRequest, ProcessResponse, SelectSubprotocol, ServerConnection
from .connection import LoggerLike

__all__ = ["SERVER", "Server", "ServerConnection", "basic_auth", "serve", "unix_serve"]

SERVER = f"Python/{sys.version_info.major}.{sys.version_info.minor} wsproto_fast"

_logger = logging.getLogger("wsproto_fast.server")


class Server:
    """A listening server, as ``serve`` returns it. ``serve_forever`` accepts clients, in the thread that calls it;
    ``shutdown``, from another one, ends it, and so does the end of a ``with`` block."""

    def __init__(
        self,
        *,
        sock: socket.socket,
        ssl: ssl_module.SSLContext | None,
        handler: Handler | None,
        process_request: ProcessRequest | None,
        process_response: ProcessResponse | None,
        select_subprotocol: SelectSubprotocol | None,
        rules: ServerRules,
        settings: Settings,
        logger: LoggerLike,
        create_connection: Callable[[Server], ServerConnection],
        max_handlers: int | None,
    ) -> None:
        #: The listening socket.
        self.socket = sock
        self.logger = logger
        self._ssl = ssl
        self._handler = handler
        self._process_request = process_request
        self._process_response = process_response
        self._select_subprotocol = select_subprotocol
        self._rules = rules
        self._settings = settings
        self._create_connection = create_connection
        self._max_handlers = max_handlers
        self._doorbell = socket.socketpair()
        for end in self._doorbell:
            end.setblocking(False)
        #: Guards what follows, and tells of changes to it. Whoever has it must not take a connection's lock.
        self._changed = threading.Condition()
        #: Open connections whose transport lives, and the threads of their handlers.
        self._alive: set[ServerConnection] = set()
        self._threads: set[threading.Thread] = set()
        self._refused: list[Newcomer] = []
        #: The thread in serve_forever.
        self._serving = 0
        self._closing = False
        #: What a signal handler wanted, which is that thread.
        self._finish: Callable[[], None] | None = None
        #: With what all connections are closed.
        self._close_with: tuple[int, str] | None = None

    @property
    def connections(self) -> set[ServerConnection]:
        """Connections that are open now: a set of your own, made anew each time."""
        with self._changed:
            alive = list(self._alive)
        return {connection for connection in alive if connection.state is State.OPEN}

    def fileno(self) -> int:
        """The descriptor of the listening socket; -1 once it is closed."""
        return self.socket.fileno()

    def serve_forever(self) -> None:
        """Accept clients until ``shutdown`` is called, in another thread or a signal handler. Raises RuntimeError if it
        runs already."""
        with self._changed:
            if self._closing:
                return
            if self._serving:
                raise RuntimeError("serve_forever() runs already")
            self._serving = threading.get_ident()
        try:
            self.logger.info("server listening on %s", _name_of(self.socket))
            Acceptor(self, self.socket, self._ssl).run(self._doorbell[0])
        finally:
            with self._changed:
                self._serving = 0
                self._closing = True
                self._changed.notify_all()
        if self._finish is not None:
            self._finish()

    def shutdown(self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop listening, answer handshakes under way with 503, close all connections with ``code``, and wait until all
        connections and handlers have ended.

        ``close_connections=False`` lets open connections go on until their handlers end. Does nothing but wait the
        second time. A handler should always be waiting for its connection in one way or another, so that it learns of
        the end. In a signal handler that interrupts ``serve_forever`` it returns at once, and that does it. Raises
        RuntimeError in a handler's thread, for which it would wait for ever, and ProtocolError when the code or reason
        must not be sent.
        """
        checked_close(code, reason)  # raises here what each connection would raise
        with self._changed:
            if threading.current_thread() in self._threads:
                raise RuntimeError("cannot shut down the server in a handler: it waits for all handlers")
            self._closing = True
            if self._serving == threading.get_ident():
                self._finish = functools.partial(self.shutdown, close_connections, code, reason)
                self._ring()
                return
        self.logger.info("server closing")
        self._ring()
        with self._changed:
            self._changed.wait_for(lambda: not self._serving)
            if close_connections and self._close_with is None:
                self._close_with = (code, reason)
            alive = list(self._alive) if close_connections else []
        self.socket.close()
        for connection in alive:
            connection._close_with_server()
        with self._changed:
            self._changed.wait_for(lambda: not self._alive and not self._threads)
            for newcomer in self._refused:
                newcomer.sock.close()
            self._refused.clear()
        for end in self._doorbell:
            end.close()
        self.logger.info("server closed")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    # For connections and the acceptor

    def _new_handshake(self, connection: ServerConnection) -> ServerHandshake:
        select = None
        if self._select_subprotocol is not None:
            select = functools.partial(_select_for, self._select_subprotocol, connection)
        return ServerHandshake.under(self._rules, select)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # it is full, or closed
            self._doorbell[1].send(b"\0")

    def _add(self, connection: ServerConnection) -> None:
        with self._changed:
            self._alive.add(connection)

    def _discard(self, connection: ServerConnection) -> None:
        with self._changed:
            self._alive.discard(connection)
            self._changed.notify_all()

    def _has_hooks(self) -> bool:
        return self._process_request is not None or self._process_response is not None

    def _has_thread(self) -> bool:
        return self._max_handlers is None or len(self._threads) < self._max_handlers

    def _start_handler(self, newcomer: Newcomer) -> bool:
        """Whether there is a thread for it."""
        thread = threading.Thread(target=self._run, args=(newcomer,), name="wsproto_fast-handler", daemon=True)
        with self._changed:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as exc:
            with self._changed:
                self._threads.discard(thread)
                self._changed.notify_all()
            self.logger.error("no thread for a handler: %s", exc)
            return False
        return True

    def _run(self, newcomer: Newcomer) -> None:
        """What a handler's thread does."""
        connection = newcomer.connection
        try:
            if connection._negotiate(newcomer.sock, newcomer.tls, rest_of(newcomer)):
                connection._handle(self._handler)
            else:
                with self._changed:
                    self._refused.append(newcomer)
                self._ring()
        except OSError as exc:  # the client is gone, or the time is over
            connection.logger.info("opening handshake failed: %s", exc)
            newcomer.sock.close()
        except Exception:
            connection.logger.exception("opening handshake failed")
            self._discard(connection)
            newcomer.sock.close()
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()

    def _take_refused(self) -> list[Newcomer]:
        """Clients that were sent a refusal by a handler's thread."""
        with self._changed:
            refused, self._refused = self._refused, []
        return refused


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
    host: str | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
    ssl: ssl_module.SSLContext | None = None,
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
    max_handlers: int | None = None,
    on_message: Callable[[Any, Any], object] | None = None,
    json: Any = json_module,
    observer: Any = None,
    logger: LoggerLike | None = None,
    create_connection: Callable[[Server], ServerConnection] | None = None,
    path: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> Server:
    """Serve WebSocket connections::

        with serve(handler, "localhost", 8765, origins=[...]) as server:
            server.serve_forever()

    ``handler(connection)`` runs in a thread of its own for each connection, which is closed with 1000 when it returns
    and with 1011, and a traceback in the log, when it raises. ``max_handlers`` bounds how many run at once: over it
    clients are refused with 503. ``on_message(connection, message)`` is called, in the same thread, for each message in
    place of the connection's queue; ``handler`` may be None then, or else calls ``connection.wait_closed()``.

    **A browser lets any page connect to your server.** ``origins`` lists the values of the Origin header that are
    accepted: exact strings, compiled patterns, or None for clients that send none; others get a 403.

    ``process_request(connection, request)`` and ``process_response(connection, request, response)`` may return a
    Response to be sent instead; an exception is logged and answered with 500. They see every well-formed request, plain
    HTTP of any method too: ``connection.respond(200, "OK\\n")`` answers a health check. They run in the handler's
    thread, so they may wait. ``basic_auth`` makes a ``process_request``.

    ``subprotocols`` (best first): the client must offer one of them, unless ``select_subprotocol(connection, offered)``
    decides. ``open_timeout`` bounds the whole opening handshake; hooks are not interrupted, but too late after it.
    ``create_connection`` is a subclass of ServerConnection, or a function that makes one of the Server. For the other
    settings see ``connect``. Other arguments go to ``socket.create_server``: ``reuse_port``, ``backlog``, ``family``.

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
    return Server(
        sock=_listen(sock, host, port, path, kwargs),
        ssl=ssl,
        handler=handler,
        process_request=process_request,
        process_response=process_response,
        select_subprotocol=select_subprotocol,
        rules=rules,
        settings=settings,
        logger=_logger if logger is None else logger,
        create_connection=ServerConnection if create_connection is None else create_connection,
        max_handlers=max_handlers,
    )


def _listen(
    sock: socket.socket | None,
    host: str | None,
    port: int | None,
    path: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> socket.socket:
    if sock is not None:
        for name, value in (("host", host), ("port", port), ("path", path)):
            if value is not None:
                raise ValueError(f"{name} is incompatible with sock")
        return sock
    if path is not None:
        options.setdefault("family", socket.AF_UNIX)
        return socket.create_server(os.fspath(path), **options)
    return socket.create_server((host or "", port or 0), **options)


def unix_serve(handler: Handler | None, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """``serve`` on a Unix socket, behind a reverse proxy for example."""
    if path is None and kwargs.get("sock") is None:
        raise ValueError("missing path argument")
    return serve(handler, path=path, **kwargs)


def basic_auth(
    realm: str = "",
    credentials: Credentials | None = None,
    check_credentials: Callable[[str, str], bool] | None = None,
) -> Callable[[ServerConnection, Request], Response | None]:
    """A ``process_request`` that demands HTTP Basic authentication (RFC 7617); over anything but TLS it is no secret.

    ``credentials`` is a pair of user name and password, or several of them; ``check_credentials(username, password)``
    decides in their place. Who gets in is the connection's ``username``; others get a 401 for ``realm``, which is to be
    ASCII.

    Raises ValueError when both or none are given, or when the realm must not go on the wire; TypeError for credentials
    that are none.
    """
    auth = BasicAuth(realm, credentials, check_credentials)

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        claim = auth.claim(request)
        if not isinstance(claim, str):
            if auth.check(*claim):
                connection.username = claim[0]
                return None
            claim = "Invalid credentials\n"
        return auth.refusal(connection, claim)

    return process_request
