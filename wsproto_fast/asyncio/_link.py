"""Between an asyncio transport and an engine: feed, pump, flush, and one timer.

Knows bytes, flow control and the end of the transport; knows no messages and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from ..connection import Connection as Engine
from ..constants import CloseTransport
from ..events import Event
from ..exceptions import InvalidState
from . import _compat
from .._settings import Settings

__all__ = ["Link"]

#: Handed to the transport while there is no engine yet, or while it takes no more. One head is at most 64 KiB.
_SCRATCH_SIZE = 2**14
#: Output that may wait for the end of the loop turn so that replies leave together.
_CORK_SIZE = 2**16


class Link(asyncio.BufferedProtocol):
    """One connection's protocol object. Subclasses do the opening handshake and take what the engine delivers.

    The engine appears when the handshake is over; until then received bytes go to ``_handshake_received``.
    """

    transport: asyncio.Transport
    _engine: Engine

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._opened = False
        #: The memory that the transport fills now, when it is not the engine's.
        self._scratch: bytearray | None = None
        #: Bytes that came although reading was paused; some TLS transports do that.
        self._spill = bytearray()
        self._eof = False
        self._reading_paused = False
        self._write_paused = False
        self._drain_waiters: dict[asyncio.Future[None], None] = {}
        #: Payload bytes given to the engine whose frames the transport does not have yet.
        self._waiting = 0
        self._corked = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._close_transport = CloseTransport.KEEP
        self._half_closed = False
        self._transport_error: Exception | None = None
        #: Done when the transport is closed and everything that waits has been told.
        self._lost: asyncio.Future[None] = self._loop.create_future()

    if not TYPE_CHECKING:  # pragma: no branch (always so at run time)

        def __getattr__(self, name: str) -> object:
            if name == "_engine":
                raise InvalidState("the opening handshake is not over")
            if name == "_handshake":
                raise InvalidState("the opening handshake is over")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # What subclasses do

    def _handshake_received(self, data: bytes) -> None:
        raise NotImplementedError

    def _handshake_eof(self) -> None:
        raise NotImplementedError

    def _on_message(self, data: str | bytes) -> None:
        raise NotImplementedError

    def _on_event(self, event: Event) -> None:
        raise NotImplementedError

    def _on_end(self) -> None:
        """Nothing more will be sent or come, but for what a paused engine still holds. May be told twice."""
        raise NotImplementedError

    # Feed: asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(self._settings.write_high, self._settings.write_low)

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        if self._opened and not self._engine.read_ahead_full:
            self._scratch = None
            return self._engine.get_buffer(sizehint)
        self._scratch = bytearray(_SCRATCH_SIZE)
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._scratch is None:
            self._engine.buffer_updated(nbytes)
            self._pump()
            return
        data = bytes(memoryview(self._scratch)[:nbytes])
        self._scratch = None
        if self._opened:
            self._spill += data
        else:
            self._handshake_received(data)

    def eof_received(self) -> bool:
        if self._opened:
            self._eof = True
            self._feed_spill()
            self._pump()
        else:
            self._handshake_eof()
        # True: the transport stays half-open, and the engine decides. TLS knows no half-open connections.
        return self._can_half_close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport_error = exc
        self._lost.set_result(None)
        self._rearm(None)
        if self._opened:
            self._eof = True
            self._feed_spill()
            self._pump()
        else:
            self._handshake_eof()
        self._on_end()

    def _feed_spill(self) -> None:
        if self._spill and not self._engine.read_ahead_full:
            self._engine.receive_data(bytes(self._spill))
            self._spill.clear()
        if self._eof and not self._spill:
            self._engine.receive_eof()

    # Pump

    def _open(self, engine: Engine) -> None:
        """The opening handshake is over; ``engine`` has been given what followed it."""
        self._engine = engine
        self._opened = True
        engine.handle_timeout(self._loop.time())
        self._pump()

    def _pump(self) -> None:
        """Deliver what the engine has received, then do what follows from it."""
        self._engine.dispatch(self._on_message, self._on_event)
        self._settle()

    def _settle(self) -> None:
        """Do what the engine asks for: write, end the transport, read or not, look at the clock."""
        engine = self._engine
        if engine.has_output:
            self._flush()
        if engine.close_transport != self._close_transport:
            self._obey(engine.close_transport)
        if engine.read_ahead_full != self._reading_paused:
            self._pause_reading(engine.read_ahead_full)
        deadline = engine.next_deadline()
        if deadline != self._deadline:
            self._rearm(deadline)

    def _resume_input(self) -> None:
        """There is room for messages again."""
        self._engine.resume()
        self._pump()
        if self._spill or self._eof:
            self._feed_spill()
            self._pump()

    def _pause_reading(self, pause: bool) -> None:
        self._reading_paused = pause
        if pause:
            self.transport.pause_reading()
        elif not self._eof:
            self.transport.resume_reading()

    # Flush

    def _flush(self) -> None:
        """Write all output, unless the transport has too much of it already.

        Then it stays in the engine, which answers only the latest Ping.
        """
        if not self._write_paused:
            self._write()

    def _flush_send(self, size: int) -> None:
        """Write what a send of ``size`` bytes has added: at once, unless more received messages wait.

        Then their replies leave together: when the last one is there, or at the end of this turn of the loop.
        """
        if self._more_received() and self._waiting + size < _CORK_SIZE and not self._write_paused:
            self._waiting += size
            if not self._corked:
                self._corked = True
                self._loop.call_soon(self._uncork)
        else:
            self._waiting += size
            self._settle()

    def _more_received(self) -> bool:
        raise NotImplementedError

    def _uncork(self) -> None:
        self._corked = False
        self._settle()

    def _backlog(self) -> int:
        """How many bytes that were sent are not written, about."""
        return self._waiting + self.transport.get_write_buffer_size()

    def _write(self) -> None:
        chunks = self._engine.data_to_send()
        self._waiting = 0
        if not chunks or self._half_closed or self.transport.is_closing():
            return
        if len(chunks) == 1:
            self.transport.write(chunks[0])
        elif _compat.WRITELINES_IS_SAFE:
            self.transport.writelines(chunks)
        else:
            self.transport.write(b"".join(chunks))

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._opened:
            self._settle()
        self._wake_senders()

    async def _writable(self) -> None:
        """Wait while the transport is over its high mark and not yet lost."""
        while self._write_paused and not self._lost.done():
            waiter = self._loop.create_future()
            self._drain_waiters[waiter] = None
            try:
                await waiter
            finally:
                del self._drain_waiters[waiter]

    def _wake_senders(self) -> None:
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)

    # The end of the transport

    def _obey(self, close_transport: CloseTransport) -> None:
        self._close_transport = close_transport
        if close_transport == CloseTransport.ABORT:
            self.transport.abort()
            return
        self._write()  # over the high mark too: it is the end
        if close_transport == CloseTransport.SHUTDOWN:
            self._half_close()
        else:
            self.transport.close()

    def _can_half_close(self) -> bool:
        return self.transport.can_write_eof()

    def _half_close(self) -> None:
        """Tell the peer that nothing more comes. Over TLS it has our Close frame, and must end the connection."""
        self._half_closed = self._can_half_close()
        if self._half_closed:
            # The peer may have reset the connection, which asyncio has yet to tell.
            with contextlib.suppress(OSError):
                self.transport.write_eof()

    # The timer

    def _rearm(self, deadline: float | None) -> None:
        self._deadline = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is None or self._lost.done():
            return
        if deadline <= self._loop.time():
            self._on_timer()  # comes back here with the next deadline
        else:
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # The loop may be early by the resolution of its clock.
        self._engine.handle_timeout(max(self._loop.time(), self._deadline or 0.0))
        self._pump()
