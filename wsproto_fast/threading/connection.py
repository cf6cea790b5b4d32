"""What a program does with an open connection: receive, send, ping, close.

Knows who waits for what; knows no bytes of the transport and no protocol: each question is the engine's.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import uuid
from socket import SO_RCVTIMEO, SOL_SOCKET
from socket import socket as Socket  # noqa: N812 (a property has the name)
from sys import is_finalizing
from types import TracebackType
from typing import Any, TypeVar

from .._facts import Facts, LoggerLike, new_engine
from .._payloads import DataLike, to_bytes
from .._settings import Settings
from ..connection import Connection as Engine
from ..constants import CloseCode, Role
from ..events import Pong
from ..exceptions import ConcurrencyError, InvalidState
from ..handshake import ClientHandshake, ServerHandshake
from ..http11 import Request, Response
from ._native import TICK, Wire, get_ident, monotonic
from ._observing import observed
from ._poller import poller
from ._sending import Sender
from ._tls import TLS

__all__ = ["Connection", "LoggerLike"]

Self = TypeVar("Self", bound="Connection")

#: A full receive queue of which nothing is taken for so long while somebody waits in ``close`` is one nobody reads.
_ABANDONED = 0.2
#: As SO_RCVTIMEO takes it, a struct timeval.
_TICK = struct.pack("ll", int(TICK), int(TICK % 1 * 1e6))


class Connection(Facts, Sender):
    """One WebSocket connection: iterate over it, ``recv``, ``send``, ``ping``, ``close``.

    Any thread may ``send``, ``ping`` and ``close``; one at a time may receive. The thread in ``recv`` reads the socket
    itself; while there is none, a thread that all connections share reads up to ``max_queue`` messages into a queue,
    and answers pings. While the queue is full the peer is not read from, but its control frames are still answered.
    Every method raises ConnectionClosed once the connection has ended, after the messages that came before its end were
    received: ConnectionClosedOK after a normal closure, else ConnectionClosedError, whose cause is the error if there
    was one.
    """

    __slots__ = ("__dict__", "__weakref__", "_logger", "_pings", "_uuid", "latency", "request", "response")

    def __init__(self, settings: Settings, logger: LoggerLike) -> None:
        super().__init__(settings)
        if settings.observer is not None:
            self.__class__ = observed(type(self), settings.observer)
        self._logger = logger
        #: The opening handshake: what was asked and what was answered.
        self.request: Request | None = None
        self.response: Response | None = None
        #: Round-trip time in seconds of the last Ping that was answered; 0.0 before the first.
        self.latency = 0.0
        #: Pings of our user that are not answered: who waits, since when, and whether for the end as well.
        self._pings: dict[bytes, tuple[threading.Event, float, bool]] | None = None
        self._uuid: uuid.UUID | None = None

    # What it is

    @property
    def socket(self) -> Socket:
        """The socket, for its options; reading, writing and closing it are the connection's."""
        return self._wire.sock

    @property
    def local_address(self) -> Any:
        """Our address as ``socket.getsockname()`` gives it."""
        return self._addresses()[0]

    @property
    def remote_address(self) -> Any:
        """The peer's address as ``socket.getpeername()`` gives it."""
        return self._addresses()[1]

    # Control frames

    def ping(self, data: DataLike | None = None, *, ack_on_close: bool = False) -> threading.Event:
        """Send a Ping. Returns an event that is set when its Pong is there; then ``latency`` is the round-trip time.

        Its payload is ``data``, at most 125 bytes, or one made for it. With ``ack_on_close`` the event is set when the
        connection ends, too. Raises ConnectionClosed, and ConcurrencyError while an equal Ping waits for its answer.
        """
        if data is not None:
            data = to_bytes(data)
        with self._lock:
            self._check_open()
            if self._pings and data in self._pings:
                raise ConcurrencyError("already waiting for a pong with the same data")
            try:
                payload = self._engine.send_ping(data)
            except InvalidState:
                self._raise_closed()
            event = threading.Event()
            if self._pings is None:
                self._pings = {}
            self._pings[payload] = (event, monotonic(), ack_on_close)
            self._flush()
            if not self._reader:  # its answer must not wait for the next sweep
                self._attend()
        return event

    def pong(self, data: DataLike = b"") -> None:
        """Send a Pong that nobody asked for (RFC 6455 5.5.3). They are answered without it. Raises ConnectionClosed."""
        payload = to_bytes(data)
        with self._lock:
            self._check_open()
            try:
                self._engine.send_pong(payload)
            except InvalidState:
                self._raise_closed()
            self._flush()
            if self._unsent_size:
                self._attend()

    def _on_pong(self, pong: Pong) -> None:
        if pong.sent_at is not None:
            self.latency = monotonic() - pong.sent_at
        for payload in pong.acknowledged:
            if self._pings and payload in self._pings:
                event, sent_at, _ = self._pings.pop(payload)
                self.latency = monotonic() - sent_at
                event.set()

    # The end

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection and wait until its transport is closed, at most about ``close_timeout``.

        Any thread may call it. One that waits in ``recv`` gets the messages that still come, and then ConnectionClosed,
        after half a second even if the peer does not answer. Messages for which there is no room in the queue, of which
        nobody takes one, are dropped. Does nothing but wait when it is closing already. In the middle of a fragmented
        message the code is 1011. Raises ProtocolError when the code or reason must not be sent.
        """
        if is_finalizing():
            return  # the poller's thread stands still for ever, perhaps with our lock
        with self._lock:
            self._begin_close(code, reason)
            if not poller().is_here():
                self._end_close()
        self._tell_groups()

    def _begin_close(self, code: int, reason: str) -> None:
        self._check_open()
        if self._fragmenting:
            self._engine.fail(CloseCode.INTERNAL_ERROR, "close during fragmented message")
        else:
            with contextlib.suppress(InvalidState):
                self._engine.send_close(code, reason)
        self._leave()
        if self._closing_since is None:
            self._closing_since = monotonic()
            self._wire.interrupt = True
        if not self._lost:
            self._news = True
            self._pump()
            self._attend()

    def _end_close(self) -> None:
        """Wait for the end of the transport, but not for somebody who takes messages."""
        if self._reader == get_ident():  # this is a signal handler, and recv goes on when it returns
            self._reader = 0
            self._attend()
        while not self._lost:
            oldest = self._queue[0] if self._paused else None
            if self._wait_for(self._is_lost, _ABANDONED):
                return
            if oldest is not None and self._paused and self._queue[0] is oldest:
                self._abandon()

    def _is_lost(self) -> bool:
        return self._lost

    def _tell_groups(self) -> None:
        """Those that the poller has not told yet."""
        with self._lock:
            leaving, self._leaving = self._leaving, ()
        for group in leaving:
            group._left(self)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection and its transport are closed, ``timeout`` seconds at most; returns whether they
        are. In an ``on_message`` of a client it does not wait."""
        with self._lock:
            return self._wait_for(self._is_lost, 0 if poller().is_here() else timeout)

    def _lose(self) -> None:
        super()._lose()
        self._notify()

    # The beginning

    def _attach(self, sock: Socket, tls: TLS | None) -> None:
        """This is our transport. It is blocking, but for looking up now and then."""
        self._wire = Wire(sock)
        self._tls = tls

    def _open_after(self, handshake: ClientHandshake | ServerHandshake, role: Role) -> None:
        """The opening handshake has agreed on a connection."""
        self._wire.sock.settimeout(None)
        self._wire.sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, _TICK)
        self._open(new_engine(self._settings, handshake, role))

    def _open(self, engine: Engine) -> None:
        with self._lock:
            self._engine = engine
            self._opened = True
            if self._tls is not None:
                self._decrypt()
            self._tell_time(monotonic())
            if self._callback is not None:
                self._attend()
            else:
                self._candidate = True
                poller().left(self)

    def _on_failure(self, exc: BaseException) -> None:
        self._log_failure(exc)

    def _on_end(self) -> None:
        super()._on_end()
        pings, self._pings = self._pings, None
        for event, _, ack_on_close in pings.values() if pings else ():
            if ack_on_close:
                event.set()

