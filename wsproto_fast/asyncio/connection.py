"""What a program does with an open connection: receive, send, ping, close.

Knows who waits for what; knows no bytes of the transport and no protocol: each question is the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, TypeVar

from .._facts import Facts, LoggerLike, new_engine
from .._payloads import DataLike, to_bytes
from .._settings import Settings
from ..constants import CloseCode, Role
from ..events import Pong
from ..exceptions import ConcurrencyError, InvalidState
from ..handshake import ClientHandshake, ServerHandshake
from ..http11 import Request, Response
from ._observing import observed
from ._receiving import ABANDONED
from ._sending import Sender

__all__ = ["Connection", "LoggerLike"]

Self = TypeVar("Self", bound="Connection")


class Connection(Facts, Sender, asyncio.BufferedProtocol):
    """One WebSocket connection: ``async for``, ``recv``, ``send``, ``ping``, ``close``.

    Received messages wait in a queue of at most ``max_queue``; while it is full the peer is not read from, but its
    control frames are still answered. Any number of tasks may send; one at a time may receive. Every method raises
    ConnectionClosed once the connection has ended, after the messages that came before its end were received:
    ConnectionClosedOK after a normal closure, else ConnectionClosedError, whose cause is the error if there was one.
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
        #: Pings of our user that are not answered: who waits, and since when.
        self._pings: dict[bytes, tuple[asyncio.Future[float], float]] | None = None
        self._uuid: uuid.UUID | None = None

    # What it is

    @property
    def local_address(self) -> Any:
        """Our address as ``socket.getsockname()`` gives it."""
        return self.transport.get_extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        """The peer's address as ``socket.getpeername()`` gives it."""
        return self.transport.get_extra_info("peername")

    # Control frames

    async def ping(self, data: DataLike | None = None) -> Awaitable[float]:
        """Send a Ping. Returns an awaitable of the round-trip time in seconds, which need not be awaited.

        Its payload is ``data``, at most 125 bytes, or one made for it. The awaitable raises ConnectionClosed if the
        connection ends before the answer. Raises ConnectionClosed, and ConcurrencyError while an equal Ping waits for
        its answer.
        """
        self._check_thread()
        if data is not None:
            data = to_bytes(data)
        self._check_open()
        await self._writable()
        if self._pings and data in self._pings:
            raise ConcurrencyError("already waiting for a pong with the same data")
        try:
            payload = self._engine.send_ping(data)
        except InvalidState:
            await self._raise_closed()
        waiter: asyncio.Future[float] = self._loop.create_future()
        if self._pings is None:
            self._pings = {}
        self._pings[payload] = (waiter, time.perf_counter())  # the loop's time is coarse: on uvloop, milliseconds
        self._settle()
        return waiter

    async def pong(self, data: DataLike = b"") -> None:
        """Send a Pong that nobody asked for (RFC 6455 5.5.3). They are answered without it. Raises ConnectionClosed."""
        self._check_thread()
        self._check_open()
        payload = to_bytes(data)
        await self._writable()
        try:
            self._engine.send_pong(payload)
        except InvalidState:
            await self._raise_closed()
        self._settle()

    def _on_pong(self, pong: Pong) -> None:
        if pong.sent_at is not None:
            self.latency = self._loop.time() - pong.sent_at
        for payload in pong.acknowledged:
            if self._pings and payload in self._pings:
                waiter, sent_at = self._pings.pop(payload)
                self.latency = time.perf_counter() - sent_at
                if not waiter.done():
                    waiter.set_result(self.latency)

    # The end

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._begin_close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR, "")
        await self._end_close(ABANDONED)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection and wait until its transport is closed, at most about ``close_timeout``.

        Does nothing but wait when it is closing already. Received messages can still be taken, and must be, if the
        peer's Close frame waits behind more of them than the queue holds. In the middle of a fragmented message the
        code is 1011. Cancelling it drops the transport at once. Raises ProtocolError when the code or reason must not
        be sent.
        """
        self._check_thread()
        self._begin_close(code, reason)
        await self._end_close(None)

    def _begin_close(self, code: int, reason: str) -> None:
        self._check_open()
        if self._fragmenting is not None:
            self._engine.fail(CloseCode.INTERNAL_ERROR, "close during fragmented message")
        else:
            with contextlib.suppress(InvalidState):
                self._engine.send_close(code, reason)
                self._leave()
        if not self._lost:
            self._pump()

    async def _end_close(self, patience: float | None) -> None:
        """Wait for the end of the transport; for ``patience`` seconds with a queue of which nothing is taken."""
        try:
            while not self._lost:
                oldest = self._queue[0] if self._paused else None
                done, _ = await asyncio.wait([self._until_lost()], timeout=patience)
                if not done and oldest is not None and self._paused and self._queue[0] is oldest:
                    self._abandon()
            await self._all_told()
        except asyncio.CancelledError:
            self.transport.abort()
            raise

    async def wait_closed(self) -> None:
        """Wait until the connection and its transport are closed."""
        await asyncio.shield(self._until_lost())
        await self._all_told()

    async def _all_told(self) -> None:
        """Of what was received before the end some may still wait for its turn in the callback."""
        while self._turn_is_due:  # noqa: ASYNC110 (as often as the callback needs)
            await asyncio.sleep(0)

    def _open_after(self, handshake: ClientHandshake | ServerHandshake, role: Role) -> None:
        """The opening handshake has agreed on a connection."""
        self._open(new_engine(self._settings, handshake, role))

    def _on_failure(self, exc: Exception) -> None:
        self._log_failure(exc)
        self._engine.fail(CloseCode.INTERNAL_ERROR)

    def _on_end(self) -> None:
        super()._on_end()
        pings, self._pings = self._pings, None
        for waiter, _ in pings.values() if pings else ():
            if not waiter.done():
                waiter.set_exception(self._closed_error())
                waiter.exception()  # need not be awaited
