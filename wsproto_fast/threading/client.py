"""Clients: ``connect`` opens a connection and does the opening handshake, ``reconnect`` again and again.

Knows the open deadline; what is said in the handshake is ``ClientHandshake``'s, how a transport is made ``_dialing``'s.
"""

from __future__ import annotations

import json
import os
import socket
import ssl as ssl_module
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, overload

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
from ._dialing import Deadline, Dialer, Opening
from .connection import Connection, LoggerLike

__all__ = [
    "USER_AGENT",
    "ClientConnection",
    "connect",
    "process_exception",
    "reconnect",
    "unix_connect",
    "unix_reconnect",
]


class ClientConnection(Connection):
    """A client's connection; ``connect`` makes it."""

    __slots__ = ("_handshake",)

    def __init__(self, settings: Settings, handshake: ClientHandshake, logger: LoggerLike) -> None:
        super().__init__(settings, logger)
        self._handshake = handshake
        self.request = handshake.request

    def _shake_hands(self, opening: Opening) -> None:
        handshake = self._handshake
        for data in handshake.data_to_send():
            opening.send(data)
        lost: OSError | None = None
        while not handshake.done:
            try:
                data = opening.receive()
            except TimeoutError:
                raise
            except OSError as exc:
                data, lost = b"", exc
            if data:
                handshake.receive_data(data)
            else:
                handshake.receive_eof()
        self.response = handshake.response
        if handshake.error is not None:
            handshake.error.__cause__ = handshake.error.__cause__ or lost
            raise handshake.error
        del self._handshake  # it is of no further use
        self._compact()
        self._attach(opening.sock, opening.tls)
        self._open_after(handshake, Role.CLIENT)


class reconnect(Connecting):  # noqa: N801 (it is used like a function)
    """``for connection in reconnect(uri)`` connects again whenever its body continues, and closes the connection
    before.

    Errors of the network are waited out with ``reconnect_delays()``, until an attempt succeeds; ``process_exception``
    is given what an attempt raised, and returns None to try again, or what to raise. ``with reconnect(uri) as
    connection`` connects once, and so does the method ``connect``. The other arguments and errors are those of
    ``connect``, the function.
    """

    def __init__(
        self,
        uri: str,
        *,
        sock: socket.socket | None = None,
        ssl: ssl_module.SSLContext | None = None,
        server_hostname: str | None = None,
        origin: str | None = None,
        extensions: Sequence[Any] | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: Compression = "deflate",
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | Literal[True] | None = True,
        proxy_ssl: ssl_module.SSLContext | None = None,
        proxy_server_hostname: str | None = None,
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
        path: str | os.PathLike[str] | None = None,
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
        self._dialer = Dialer(
            sock=sock,
            ssl=ssl,
            server_hostname=server_hostname,
            path=path,
            proxy=proxy,
            proxy_ssl=proxy_ssl,
            proxy_server_hostname=proxy_server_hostname,
            user_agent_header=user_agent_header,
            limits=settings.limits,
            options=kwargs,
        )
        self._connection: ClientConnection | None = None
        self._dialer.check(
            self._set_up(uri, settings, additional_headers, request, process_exception, reconnect_delays, logger)
        )

    @property
    def _given(self) -> Collection[str]:  # type: ignore[override]
        return self._dialer.given

    # One connection

    def connect(self) -> ClientConnection:
        """Connect, and follow redirects."""
        headers = self._begin()
        deadline = Deadline(self._settings.limits.open_timeout)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                try:
                    return self._attempt(parse_uri(self.uri), headers, deadline)
                except Exception as exc:
                    headers = self._follow(exc, headers)
            raise SecurityError(f"more than {MAX_REDIRECTS} redirects")
        except TimeoutError as exc:
            raise TimeoutError("timed out during opening handshake") from exc

    def _attempt(self, uri: WebSocketURI, headers: HeadersLike | None, deadline: Deadline) -> ClientConnection:
        connection = self._create_connection(self._settings, self._new_handshake(uri, headers), self._logger)
        opening = self._dialer.dial(uri, deadline)
        try:
            connection._shake_hands(opening)
        except BaseException:
            opening.sock.close()
            raise
        return connection

    def __enter__(self) -> ClientConnection:
        if self._connection is not None:
            raise RuntimeError("connect() isn't reentrant")
        self._connection = self.connect()
        return self._connection

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is None:
            raise InvalidState("connect() was not entered")
        connection, self._connection = self._connection, None
        connection.__exit__(exc_type, exc, traceback)

    # One after the other

    def __iter__(self) -> Iterator[ClientConnection]:
        delays: Iterator[float] | None = None
        while True:
            try:
                connection = self.connect()
            except Exception as exc:
                self._raise_unless_transient(exc)
                if delays is None:
                    delays = iter(self._reconnect_delays())
                delay = next(delays, None)
                if delay is None:
                    raise
                self._log_failure(exc, delay)
                time.sleep(delay)
                continue
            delays = None
            try:
                yield connection
            finally:
                connection.close()


@overload
def connect(uri: str, *, legacy: Literal[False], **kwargs: Any) -> reconnect: ...


@overload
def connect(uri: str, *, legacy: Literal[True] | None = None, **kwargs: Any) -> ClientConnection: ...


def connect(uri: str, *, legacy: bool | None = None, **kwargs: Any) -> ClientConnection | reconnect:
    """Open a WebSocket connection: ``with connect(uri) as connection``, or ``connection = connect(uri)``.

    ``origin``, ``subprotocols`` (best first), ``additional_headers`` and ``user_agent_header`` go into the request;
    ``compression`` is "deflate", a DeflateConfig or None, and ``extensions`` is websockets' way to say it.
    ``open_timeout`` bounds connecting and the handshake, proxies and redirects included, but for the address lookup.
    ``ping_interval``, ``ping_timeout``, ``close_timeout``: seconds; None switches one off. ``ping_payload`` makes the
    payload of each heartbeat. ``max_size`` bounds a message (after inflate), or is ``(message, frame)``; ``limits``
    takes its place for finer settings. ``max_queue`` and ``max_queue_bytes`` bound the messages received and not taken,
    ``write_limit`` the bytes sent and not written; each but the second may be ``(high, low)``. ``json`` has the codec
    of ``send_json`` and ``recv_json``; ``observer`` is told what happens, under the connection's lock: it must not call
    its methods.

    ``on_message(connection, message)`` is called for each message in place of the queue, in a thread that all
    connections share: it must not wait.

    ``proxy`` is the address of one, None, or True for that of the environment or the operating system; ``proxy_ssl``
    and ``proxy_server_hostname`` are for one that is reached by TLS. SOCKS needs the extra ``wsproto_fast[proxy]``.

    ``ssl`` and ``server_hostname`` are for TLS with the server. ``sock`` is a connected socket, ``create_connection``
    makes the connection, for example a subclass of ClientConnection. Other arguments go to
    ``socket.create_connection``: ``source_address``, or ``address`` in place of the URI's host and port.

    Raises InvalidURI or InvalidProxy, and ValueError for anything that must not go on the wire, before a socket is
    opened; then OSError, TimeoutError, or InvalidHandshake, of which InvalidStatus holds a server's refusal. Up to 10
    redirects are followed; InvalidURI, and ValueError when ``sock`` or ``address`` rules one out, then too.

    ``legacy=False`` returns what ``reconnect`` does.
    """
    connecter = reconnect(uri, **kwargs)
    return connecter if legacy is False else connecter.connect()


def unix_reconnect(path: str | os.PathLike[str] | None = None, uri: str | None = None, **kwargs: Any) -> reconnect:
    """``reconnect`` over the Unix socket at ``path``; see ``unix_connect``."""
    if (path is None) == (kwargs.get("sock") is None):
        raise ValueError("missing path argument" if path is None else "path is incompatible with sock")
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return reconnect(uri, path=path, **kwargs)


@overload
def unix_connect(
    path: str | os.PathLike[str] | None = None, uri: str | None = None, *, legacy: Literal[False], **kwargs: Any
) -> reconnect: ...


@overload
def unix_connect(
    path: str | os.PathLike[str] | None = None,
    uri: str | None = None,
    *,
    legacy: Literal[True] | None = None,
    **kwargs: Any,
) -> ClientConnection: ...


def unix_connect(
    path: str | os.PathLike[str] | None = None, uri: str | None = None, *, legacy: bool | None = None, **kwargs: Any
) -> ClientConnection | reconnect:
    """``connect`` over the Unix socket at ``path``, without proxies. ``uri`` tells host and path of the request,
    ``ws://localhost/``, or with ``ssl`` ``wss://localhost/``, by default."""
    connecter = unix_reconnect(path, uri, **kwargs)
    return connecter if legacy is False else connecter.connect()
