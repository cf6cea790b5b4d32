"""A byte stream that behaves badly, the same way each time: by a seed, and by a clock that somebody else tells.

Knows bytes and times; knows no frames. Nothing here sleeps.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

__all__ = ["Faults", "Stream"]


@dataclass(frozen=True)
class Faults:
    """How a ``Stream`` treats its bytes. Times in seconds. By default it delivers all of them at once."""

    #: A read brings from 1 to so many bytes. None: all that have arrived.
    max_read: int | None = None
    #: Each piece arrives up to so long after it was written, and never before an earlier one.
    max_delay: float = 0.0
    #: How likely a piece is to be held up for ``stall_time`` besides, and with it all behind it.
    stall_chance: float = 0.0
    stall_time: float = 0.0
    #: So many bytes arrive, and then the end. None: it is not cut.
    cut_after: int | None = None

    def __post_init__(self) -> None:
        if self.max_read is not None and self.max_read < 1:
            raise ValueError("max_read must be 1 or more, or None")


class Stream:
    """One direction of a connection. The same ``seed`` and the same calls give the same pieces at the same times."""

    def __init__(self, faults: Faults = Faults(), seed: int = 0) -> None:
        self.faults = faults
        self._random = random.Random(seed)
        self._under_way: deque[tuple[float, bytes]] = deque()  # b"" is the end
        self._arrived = bytearray()
        self._last_arrival = 0.0
        self._written = 0
        self._ended = False
        self._at_end = False

    def write(self, data: bytes, now: float) -> None:
        """Send bytes at this time. What is written behind the end is lost."""
        cut = self.faults.cut_after
        lost = cut is not None and len(data) > cut - self._written
        if cut is not None and lost:
            data = data[: cut - self._written]
        if not self._ended:
            self._written += len(data)
            while data:
                size = self._size(len(data))
                self._under_way.append((self._arrival(now), data[:size]))
                data = data[size:]
        if lost:
            self.write_eof(now)

    def write_eof(self, now: float) -> None:
        """End the stream at this time, behind all that was written."""
        if not self._ended:
            self._ended = True
            self._under_way.append((self._arrival(now), b""))

    def read(self, now: float) -> bytes | None:
        """What a read brings at this time: bytes, ``b""`` for the end (once), or None while there is nothing."""
        while self._under_way and self._under_way[0][0] <= now:
            piece = self._under_way.popleft()[1]
            self._arrived += piece
            self._at_end = not piece
        if self._arrived:
            size = self._size(len(self._arrived))
            data = bytes(self._arrived[:size])
            del self._arrived[:size]
            return data
        if self._at_end:
            self._at_end = False
            return b""
        return None

    def next_arrival(self) -> float | None:
        """When the next piece arrives that is under way; None: there is none."""
        return self._under_way[0][0] if self._under_way else None

    def _size(self, available: int) -> int:
        limit = self.faults.max_read
        return available if limit is None else min(available, self._random.randint(1, limit))

    def _arrival(self, now: float) -> float:
        faults = self.faults
        at = now + self._random.uniform(0.0, faults.max_delay)
        if self._random.random() < faults.stall_chance:
            at += faults.stall_time
        self._last_arrival = max(at, self._last_arrival)
        return self._last_arrival
