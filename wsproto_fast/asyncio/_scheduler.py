# cython: nonecheck=True
"""What all connections of one event loop share: one timer, one flush at the end of a turn of the loop, one line.

Knows when to call whom; knows no transports and no protocol.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ._native import get_ident

__all__ = ["Scheduler", "scheduler_of"]

#: Seconds from one ring of the timer to the next, so that ten thousand keepalives wake the loop 100 times a second and
#: not 500 times; nobody's deadline needs more.
_RESOLUTION = 0.01
#: Calls in one ring: a few milliseconds of work. The next ring follows in the next turn of the loop.
_BATCH = 128
#: Cancelled entries are cleared out when there are more than these, and more than there are others.
_MAX_CANCELLED = 64

#: How many go on in one turn of the loop: each may take up to a millisecond.
_GO_ON = 4

#: When, a number that no other entry has, and whom; None: cancelled.
Entry = list[Any]


class Scheduled(Protocol):
    """What a scheduler calls."""

    def _on_timer(self, now: float) -> None: ...

    def _on_turn_end(self) -> None: ...


class Scheduler:
    """The shared timer and flush of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: The one that the loop runs in: what belongs to it must be called there.
        self.thread: int = get_ident()
        self._heap: list[Entry] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._handle: asyncio.Handle | None = None
        self._rings_at = 0.0
        self._waiting: list[Scheduled] = []
        self._line: deque[Callable[[], object]] = deque()
        self._line_moves = False
        #: What tasks that are woken directly are called back with, in place of the future that they wait for.
        self.done: asyncio.Future[None] = loop.create_future()
        self.done.set_result(None)

    # The timer

    def call_at(self, when: float, whom: Scheduled) -> Entry:
        """Call ``whom._on_timer(now)`` once, then or a little later, in the loop's time. ``cancel`` takes the entry."""
        entry = [when, next(self._numbers), whom]
        heapq.heappush(self._heap, entry)
        if self._handle is None or when < self._rings_at:
            self._set(when)
        return entry

    def cancel(self, entry: Entry) -> None:
        """Call nobody for this entry. It must not have been called or cancelled."""
        entry[2] = None
        self._cancelled += 1
        if self._cancelled > max(_MAX_CANCELLED, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _set(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._rings_at = when
        self._handle = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._handle = None
        now = self._loop.time()
        count = 0
        try:
            while self._heap and self._heap[0][0] <= now and count < _BATCH:
                whom = heapq.heappop(self._heap)[2]
                if whom is None:
                    self._cancelled -= 1
                else:
                    count += 1
                    whom._on_timer(now)
        finally:
            if self._heap:
                self._set(now if count == _BATCH else max(self._heap[0][0], now + _RESOLUTION))

    # The flush

    def at_turn_end(self, whom: Scheduled) -> None:
        """Call ``whom._on_turn_end()`` when the callbacks that are ready now have run; ask once at a time."""
        if not self._waiting:
            self._loop.call_soon(self._end_turn)
        self._waiting.append(whom)

    def _end_turn(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            while waiting:
                waiting.pop()._on_turn_end()
        finally:
            for whom in waiting:  # one of them failed
                self.at_turn_end(whom)

    # The line

    def call_in_turn(self, callback: Callable[[], object]) -> None:
        """Call it in one of the coming turns of the loop, after those who came before.

        For who has had its share of time and wants to go on: were a thousand of them to go on in one turn of the loop,
        its other callbacks would wait long.
        """
        self._line.append(callback)
        if not self._line_moves:
            self._line_moves = True
            self._loop.call_soon(self._move_on)

    def _move_on(self) -> None:
        try:
            for _ in range(min(_GO_ON, len(self._line))):
                self._line.popleft()()
        finally:
            self._line_moves = bool(self._line)
            if self._line_moves:
                self._loop.call_soon(self._move_on)

    async def turn(self) -> None:
        """Wait for ``call_in_turn``."""
        waiter = self._loop.create_future()

        def come() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self.call_in_turn(come)
        await waiter


#: By the ids of their loops. A scheduler lives as long as a connection of its loop, and the loop as long as it: a
#: dictionary that kept either would keep every loop that a program ever ran.
_schedulers: weakref.WeakValueDictionary[int, Scheduler] = weakref.WeakValueDictionary()


def scheduler_of(loop: asyncio.AbstractEventLoop) -> Scheduler:
    """The scheduler of that loop; one and the same for all its connections."""
    scheduler = _schedulers.get(id(loop))
    if scheduler is None:
        scheduler = _schedulers[id(loop)] = Scheduler(loop)
    return scheduler
