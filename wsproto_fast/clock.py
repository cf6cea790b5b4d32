"""When something is due on a connection: pings, pongs, the end of a closing handshake. Knows times, reads no clock and
sends nothing."""

from __future__ import annotations

import math

from .limits import Keepalive, Limits, bounded

__all__ = ["Clock"]

NEVER = math.inf

# A deadline that is noticed later than this part of its time says that we were late, not that the peer was.
LATE = 0.1


class Clock:
    """Deadlines of one connection, in seconds of the clock that ``handle_timeout`` is told.

    ``wanted`` asks to be told the time; until then nothing that began is timed.
    """

    __slots__ = (
        "_close_by",
        "_close_timeout",
        "_closing",
        "_idle_release",
        "_keepalive",
        "_max_control_frames",
        "_ping_at",
        "_pong_by",
        "_prolonged",
        "_rate_since",
        "_release_at",
        "control_frames",
        "excused",
        "heard",
        "stuck",
        "wanted",
    )

    def __init__(self, limits: Limits, keepalive: Keepalive | None, idle_release: float | None) -> None:
        self._keepalive = keepalive
        self._close_timeout = limits.close_timeout
        self._max_control_frames = bounded(limits.max_control_rate)
        self._idle_release = idle_release
        self._closing = False
        self._close_by = NEVER
        self._ping_at = NEVER
        self._pong_by = NEVER
        self._prolonged = False
        self._release_at = NEVER
        self._rate_since = -NEVER
        #: control frames since somebody last looked
        self.control_frames = 0
        #: a byte came since the last ping
        self.heard = False
        #: we did not read for some of the time since the last ping
        self.excused = False
        #: output has waited since the deadline of the last ping was set: whoever clears this has written all of it
        self.stuck = False
        self.wanted = keepalive is not None or idle_release is not None

    def deadline(self) -> float | None:
        """When to be told the time again; 0.0 is at once, None never."""
        if self.wanted:
            return 0.0
        earliest = min(self._close_by, self._ping_at, self._pong_by, self._release_at)
        return None if earliest == NEVER else earliest

    def count_control_frame(self) -> None:
        """A control frame came."""
        self.control_frames += 1
        if self.control_frames > self._max_control_frames:
            self.wanted = True

    def begin_close(self) -> None:
        """The peer and its transport must end within ``Limits.close_timeout`` from now."""
        self.stop()
        self.wanted = self._closing = True

    def stop(self) -> None:
        """The connection is not open any more: only its end is still timed."""
        self._keepalive = None
        self._idle_release = None
        self._ping_at = self._pong_by = self._release_at = NEVER

    def close_overdue(self, now: float) -> bool:
        """Whether the closing handshake took too long. Call this first when the time is told."""
        self.wanted = False
        if self._closing:
            self._closing = False
            if self._close_timeout is not None:
                self._close_by = now + self._close_timeout
        if now < self._close_by:
            return False
        self._close_by = NEVER
        return True

    def flooded(self, now: float) -> bool:
        """Whether more control frames than ``Limits.max_control_rate`` came within a second."""
        too_many = self.control_frames > self._max_control_frames
        if now - self._rate_since < 1.0:
            if too_many:
                return True
        else:
            too_many = True  # a second without a flood is over: count anew
        if too_many:
            self.control_frames = 0
            self._rate_since = now
        return False

    def peer_lost(self, now: float, reading_stopped: bool, output_waits: bool) -> bool:
        """Whether the peer has been silent for ``ping_timeout`` after a ping.

        Time in which we did not read is not held against it, unless it took nothing of what we sent for all that time:
        who echoes to a peer that does not read must not read it, nor keep it for ever. A deadline that we noticed late
        is prolonged once, by as much: what the peer sent meanwhile may still wait in the transport.
        """
        if self.heard:
            self._pong_by = NEVER
        if now < self._pong_by or self._keepalive is None or self._keepalive.ping_timeout is None:
            return False
        late = now - self._pong_by
        timeout = self._keepalive.ping_timeout
        if self.excused and not self.stuck:
            self.excused = reading_stopped
            self.stuck = output_waits
            self._pong_by = now + timeout
        elif late > LATE * timeout and not self._prolonged:
            self._prolonged = True
            self._pong_by = now + min(late, timeout)
        else:
            return True
        return False

    def ping_due(self, now: float, reading_stopped: bool) -> bool:
        """Whether a ping is to be sent now; the first one an interval after the time was first told."""
        keepalive = self._keepalive
        if keepalive is None or keepalive.ping_interval is None:
            return False
        if self._ping_at == NEVER:
            self._ping_at = now + keepalive.ping_interval
        if now < self._ping_at:
            return False
        self._ping_at = now + keepalive.ping_interval
        if self._pong_by == NEVER and keepalive.ping_timeout is not None:
            self.heard = False
            self.stuck = True  # the ping
            self.excused = reading_stopped
            self._prolonged = False
            self._pong_by = now + keepalive.ping_timeout
        return True

    def heartbeat(self) -> str | bytes | None:
        """What our user wants to be sent now (``Keepalive.payload``); None: a Ping of our own."""
        keepalive = self._keepalive
        return None if keepalive is None or keepalive.payload is None else keepalive.payload()

    def contexts_idle(self, now: float) -> bool:
        """Whether it is time to look for compression contexts that were not used for a whole period."""
        if self._idle_release is None:
            return False
        due = now >= self._release_at
        if due or self._release_at == NEVER:
            self._release_at = now + self._idle_release
        return due
