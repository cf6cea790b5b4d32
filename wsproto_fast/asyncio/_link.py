# cython: nonecheck=True
"""Between an asyncio transport and an engine: feed, pump, flush, and the time.

Knows bytes, flow control and the end of the transport; knows no messages and no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

from .._settings import Settings
from ..connection import Connection as Engine
from ..constants import CORK_SIZE, NO_BUDGET, CloseTransport
from ..events import Event
from ..exceptions import InvalidState
from . import _compat
from ._native import get_ident, monotonic
from ._scheduler import Entry, scheduler_of

__all__ = ["Link"]

#: Handed to the transport while there is no engine yet, or while it takes no more. One head is at most 64 KiB.
_SCRATCH_SIZE = 2**14
#: A message that follows another within so many seconds waits for the end of the turn of the loop: more may follow it.
_IN_A_ROW = 1e-4


class Link:
    """One connection's protocol object, with the methods of asyncio.BufferedProtocol. Subclasses do the opening
    handshake and take what the engine delivers.

    The engine appears when the handshake is over; until then received bytes go to ``_handshake_received``.
    """

    # Ten thousand idle connections: each name in a dict would cost five times as much.
    __slots__ = (
        *("transport", "_engine", "_settings", "_loop", "_scheduler", "_opened"),
        *("_scratch", "_spill", "_eof", "_reading_paused", "_write_paused", "_corks"),
        *("_flush_is_due", "_pumping", "_waking", "_sent_at", "_budget", "_sink", "_entry", "_deadline"),
        *("_close_transport", "_half_closed", "_transport_error", "_lost", "_lost_waiter"),
    )

    def __init__(self, settings: Settings) -> None:
        self.transport: asyncio.Transport
        self._engine: Engine
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
        #: Blocks of ``cork`` that are open; output waits for the end of the turn.
        self._corks = 0
        self._flush_is_due = False
        #: The engine is delivering; the task that waited for a message is running, and output waits for its end.
        self._pumping = False
        self._waking = False
        #: When a message last left by itself, since something was received.
        self._sent_at = 0.0
        #: Who is called for each message if not ``_on_message``, and how many bytes of them before others get a turn.
        self._sink: Callable[[str | bytes], object] | None = None
        self._budget: int = NO_BUDGET
        self._entry: Entry | None = None
        self._deadline: float | None = None
        self._close_transport = CloseTransport.KEEP
        self._half_closed = False
        self._transport_error: Exception | None = None
        #: The transport is closed and everything that waits has been told; who waits for that.
        self._lost = False
        self._lost_waiter: asyncio.Future[None] | None = None

    def _check_open(self) -> None:
        """Raise InvalidState in the opening handshake."""
        if not self._opened:
            raise InvalidState("the opening handshake is not over")

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

    def _has_news(self) -> bool:
        """Somebody waits for a message, and there is one, or there will be none any more."""
        raise NotImplementedError

    def _wake(self, direct: bool) -> None:
        """Let that task go on: now if ``direct``, when no task is running, else in the next turn of the loop."""
        raise NotImplementedError

    def _more_received(self) -> bool:
        """Messages wait to be taken."""
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
            self._sent_at = 0.0
            self._pump(asyncio.current_task(self._loop) is None)
            return
        data = bytes(memoryview(self._scratch)[:nbytes])
        self._scratch = None
        self._received(data, False)

    def _reads_in_place(self) -> bool:  # pragma: no cover (it is the reactor that asks)
        """Whether the reactor is to read into ``get_buffer()``; else it hands what it has read to ``_received``."""
        return not self._opened or self._engine.reads_in_place()  # in the handshake no more than it needs

    def _received(self, data: bytes, direct: bool) -> None:
        """As ``buffer_updated``, with the bytes. ``direct``: no task is running."""
        if not self._opened:
            self._handshake_received(data)
        elif self._engine.paused and self._engine.read_ahead_full:
            self._spill += data
        else:
            self._engine.receive_data(data)
            self._sent_at = 0.0
            self._pump(direct)

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
        self._lost = True
        if self._lost_waiter is not None:
            self._lost_waiter.set_result(None)
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

    def _until_lost(self) -> asyncio.Future[None]:
        """Done when the transport is closed. Everybody who waits has the same: shield it."""
        if self._lost_waiter is None:
            self._lost_waiter = self._loop.create_future()
            if self._lost:
                self._lost_waiter.set_result(None)
        return self._lost_waiter

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

    def _pump(self, direct: bool = False) -> None:
        """Deliver what the engine has received, then do what follows from it. ``direct``: see ``_wake``."""
        if self._pumping:
            return  # a callback asks for it; whoever called it goes on
        engine = self._engine
        self._pumping = True
        try:
            engine.dispatch(self._on_message if self._sink is None else self._sink, self._on_event, self._budget)
        except Exception as exc:
            self._on_failure(exc)
            engine.dispatch(self._on_message, self._on_event)
        except (KeyboardInterrupt, SystemExit) as exc:
            self._leave_loop(exc)
        finally:
            self._pumping = False
        if self._has_news():
            if direct and not self._waking:
                self._waking = True
                try:
                    self._wake(True)
                except (KeyboardInterrupt, SystemExit) as exc:
                    self._leave_loop(exc)
                finally:
                    self._waking = False
            else:
                self._wake(False)
        self._settle()
        if engine.paused and self._budget != NO_BUDGET:
            self._on_budget_spent()

    def _leave_loop(self, exc: BaseException) -> None:
        """Let it out of ``run_forever``, in a turn of its own: what was sent leaves before, and not every transport
        lets it through (uvloop's close themselves, and the program never ends)."""

        def leave() -> None:
            raise exc

        self._loop.call_soon(leave)

    def _settle(self) -> None:
        """Do what the engine asks for: write, end the transport, read or not, look at the clock."""
        engine = self._engine
        if not self._waking or engine._writer.size >= CORK_SIZE:
            self._flush()
        if engine.close_transport is not self._close_transport:
            self._obey(engine.close_transport)
        if (engine.paused or self._reading_paused) and engine.read_ahead_full != self._reading_paused:
            self._pause_reading(not self._reading_paused)
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
        loop; so does what a block of ``cork`` or a callback sends, and what is sent right after something else.
        """
        if self._engine._writer.size < CORK_SIZE:
            if self._pumping:
                return
            if self._corks or self._more_received() or self._sent_right_before():
                if not self._waking:
                    self._flush_later()
                return
        self._flush()
        self._settle()

    def _sent_right_before(self) -> bool:
        """Whether something was sent right before, and nothing received since."""
        now = monotonic()
        if now - self._sent_at < _IN_A_ROW:
            return True
        self._sent_at = now
        return False

    def _flush_later(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._scheduler.at_turn_end(self)

    def _on_turn_end(self) -> None:
        self._flush_is_due = False
        self._flush()
        self._settle()

    @property
    def buffered_amount(self) -> int:
        """How many bytes were accepted for sending, framed and perhaps compressed, that the operating system does not
        have yet. asyncio's TLS, where connections have it, hides up to 64 KiB more, already encrypted."""
        if not self._opened or self._lost:  # asyncio's TLS transport cannot tell any more, on some releases of Python
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
        raise NotImplementedError

    # The end of the transport

    def _obey(self, close_transport: CloseTransport) -> None:
        self._close_transport = close_transport
        if close_transport is CloseTransport.ABORT:
            self.transport.abort()
            return
        self._write()  # over the high mark too: it is the end
        if close_transport is CloseTransport.SHUTDOWN:
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
        if deadline is None or self._lost:
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
