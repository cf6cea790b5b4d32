"""Between an asyncio transport and an engine: feed, pump, flush, and the time.

Knows bytes, flow control and the end of the transport; knows no messages and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, cast

from .._settings import Settings
from ..connection import Connection as Engine
from ..constants import NO_BUDGET, CloseTransport
from ..events import Event
from ..exceptions import InvalidState
from . import _compat
from ._scheduler import Entry, scheduler_of

__all__ = ["CORK_SIZE", "Link"]

#: Handed to the transport while there is no engine yet, or while it takes no more. One head is at most 64 KiB.
_SCRATCH_SIZE = 2**14
#: Output that may wait for the end of a turn of the loop, or of a block of ``cork``, so that messages leave together.
CORK_SIZE = 2**16


class Link(asyncio.BufferedProtocol):
    """One connection's protocol object. Subclasses do the opening handshake and take what the engine delivers.

    The engine appears when the handshake is over; until then received bytes go to ``_handshake_received``.
    """

    transport: asyncio.Transport
    _engine: Engine

    # Ten thousand idle connections: each name in a dict would cost five times as much. Users have one of their own.
    __slots__ = (
        *("__dict__", "__weakref__", "transport", "_engine", "_settings", "_loop", "_scheduler", "_opened"),
        *("_scratch", "_spill", "_eof", "_reading_paused", "_write_paused", "_drain_waiters", "_corks"),
        *("_flush_is_due", "_pumping", "_budget", "_sink", "_entry", "_deadline", "_close_transport"),
        *("_half_closed", "_transport_error", "_lost"),
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._scheduler = scheduler_of(self._loop)
        self._opened = False
        #: The memory that the transport fills now, when it is not the engine's.
        self._scratch: bytearray | None = None
        #: Bytes that came although reading was paused; some TLS transports do that.
        self._spill = b""
        self._eof = False
        self._reading_paused = False
        self._write_paused = False
        self._drain_waiters: dict[asyncio.Future[None], None] | None = None
        #: Blocks of ``cork`` that are open; output waits for the end of the turn; the engine is delivering.
        self._corks = 0
        self._flush_is_due = False
        self._pumping = False
        #: Who is called for each message if not ``_on_message``, and how many bytes of them before others get a turn.
        self._sink: Callable[[str | bytes], object] | None = None
        self._budget = NO_BUDGET
        self._entry: Entry | None = None
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

    def _check_thread(self) -> None:
        """Raise RuntimeError in another thread than the loop's. Without it two threads would write to one transport."""
        if get_ident() != self._scheduler.thread:
            raise RuntimeError(
                "a connection must be used in the thread of its event loop; "
                "see loop.call_soon_threadsafe() and asyncio.run_coroutine_threadsafe()"
            )

    # What subclasses do

    def _handshake_received(self, data: bytes) -> None:
        raise NotImplementedError

    def _handshake_eof(self) -> None:
        raise NotImplementedError

    def _on_message(self, data: str | bytes) -> None:
        raise NotImplementedError

    def _on_event(self, event: Event) -> None:
        raise NotImplementedError

    def _on_budget_spent(self) -> None:
        """Messages are held back until ``_resume_input``: others must get a turn, or output waits."""
        raise NotImplementedError

    def _on_failure(self, exc: Exception) -> None:
        """``_on_message`` or ``_on_event`` raised this: something of our user's did."""
        raise NotImplementedError

    def _on_end(self) -> None:
        """Nothing more will be sent or come, but for what a paused engine still holds. May be told twice."""
        raise NotImplementedError

    # Feed: asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are alike, but no asyncio.Transport
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(self._settings.write_high, self._settings.write_low)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._opened and not self._engine.read_ahead_full:
            self._scratch = None
            return self._engine.get_buffer(sizehint)
        self._scratch = bytearray(_SCRATCH_SIZE)
        return memoryview(self._scratch)  # asyncio's TLS reads into slices of it, which must not be copies

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
        # the traceback of a write that failed would hold us alive
        self._transport_error = None if exc is None else exc.with_traceback(None)
        self._write_paused = False
        self._lost.set_result(None)
        if self._entry is not None:
            self._scheduler.cancel(self._entry)
            self._entry = None
        if self._opened:
            self._eof = True
            self._feed_spill()
            self._pump()
        else:
            self._handshake_eof()
        self._on_end()

    def _feed_spill(self) -> None:
        if self._spill and not self._engine.read_ahead_full:
            self._engine.receive_data(self._spill)
            self._spill = b""
        if self._eof and not self._spill:
            self._engine.receive_eof()

    # Pump

    def _open(self, engine: Engine) -> None:
        """The opening handshake is over; ``engine`` has been given what followed it."""
        self._engine = engine
        self._opened = True
        self._tell_time(self._loop.time())

    def _pump(self) -> None:
        """Deliver what the engine has received, then do what follows from it."""
        if self._pumping:
            return  # a callback asks for it; whoever called it goes on
        self._pumping = True
        try:
            self._engine.dispatch(self._sink or self._on_message, self._on_event, self._budget)
        except Exception as exc:
            self._on_failure(exc)
            self._engine.dispatch(self._on_message, self._on_event)
        finally:
            self._pumping = False
        self._settle()
        if self._budget != NO_BUDGET and self._engine.paused:
            self._on_budget_spent()

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

    def _flush_send(self) -> None:
        """Write what was just sent: at once, unless more is likely to follow that can leave with it.

        Replies to messages of one read leave together, when the last one is there or at the end of this turn of the
        loop; so does what a block of ``cork`` or a callback sends.
        """
        if self._engine.output_size < CORK_SIZE:
            if self._pumping:
                return
            if self._corks or self._more_received():
                self._flush_later()
                return
        self._settle()

    def _flush_later(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._scheduler.at_turn_end(self)

    def _more_received(self) -> bool:
        raise NotImplementedError

    def _on_turn_end(self) -> None:
        self._flush_is_due = False
        self._settle()

    @contextlib.contextmanager
    def cork(self) -> Iterator[None]:
        """Messages sent within ``with connection.cork():`` leave together: at its end, or earlier when they reach
        64 KiB or the block awaits something."""
        self._check_thread()
        self._corks += 1
        try:
            yield
        finally:
            self._corks -= 1
            if self._opened and not self._corks:
                self._settle()

    @property
    def buffered_amount(self) -> int:
        """How many bytes were accepted for sending, framed and perhaps compressed, that the operating system does not
        have yet. Over TLS asyncio hides up to 64 KiB more, already encrypted."""
        if not self._opened:
            return 0
        return self._engine.output_size + self.transport.get_write_buffer_size()

    def _write(self) -> None:
        chunks = self._engine.data_to_send()
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
        if not self._write_paused:
            self._on_writable()

    def _on_writable(self) -> None:
        """The transport has fallen under its low mark."""
        self._wake_senders()

    async def _writable(self) -> None:
        """Wait while the transport is over its high mark and not yet lost."""
        while self._write_paused and not self._lost.done():
            if self._drain_waiters is None:
                self._drain_waiters = {}
            waiter = self._loop.create_future()
            self._drain_waiters[waiter] = None
            try:
                await waiter
            finally:
                del self._drain_waiters[waiter]

    def _wake_senders(self) -> None:
        for waiter in self._drain_waiters or ():
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

    # The time

    def _rearm(self, deadline: float | None) -> None:
        """Tell the engine the time at its deadline. An earlier entry of ours stays: the deadline is looked at then."""
        self._deadline = deadline
        if deadline is None or self._lost.done():
            return
        if deadline <= self._loop.time():
            self._tell_time(self._loop.time())
        elif self._entry is None or self._entry[0] > deadline:
            if self._entry is not None:
                self._scheduler.cancel(self._entry)
            self._entry = self._scheduler.call_at(deadline, self)

    def _on_timer(self, now: float) -> None:
        self._entry = None
        self._tell_time(now)

    def _tell_time(self, now: float) -> None:
        self._deadline = None  # looked at anew by _settle()
        try:
            self._engine.handle_timeout(now)
        except Exception as exc:  # of our user's heartbeat
            self._on_failure(exc)
        self._pump()
