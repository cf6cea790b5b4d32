"""The one thread that looks after connections while nobody is in ``recv``, and keeps the time for all of them.

It reads what no other thread reads, so that pings are answered and queues filled; writes what others left to be
written; and calls each connection when its deadline is due. Knows sockets, times and who is to be called; knows no
messages.

A connection that a thread has just left costs no system call: it is looked at every ``SWEEP`` seconds, and watched once
nobody came back in between. The thread is started when there is something to do, and ends when no connection is left.
Whoever calls ``attend``, ``left``, ``call_at`` and ``cancel`` may hold its connection's lock; the poller holds none
when it calls a connection.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
from collections import deque
from threading import get_ident
from time import monotonic, sleep
from typing import Any, Protocol

__all__ = ["SWEEP", "Entry", "Poller", "poller"]

#: Seconds between two looks at the connections that were left by their readers: half of how late a pong may be.
SWEEP = 0.05
#: Seconds after which that is sent which was held so that it might leave with more.
HOLD = 0.001
#: The thread ends when there was nothing to do for so long.
_LINGER = 1.0
#: For so long the end of the program waits for peers to read what was sent.
_LAST_CALL = 5.0

_logger = logging.getLogger("wsproto_fast.poller")

#: When, in which order among equals, and whom to call; None is nobody any more.
Entry = list[Any]


class Watched(Protocol):
    """What a connection does for the poller."""

    def _sweep(self) -> int: ...

    def _look(self, watch: Any) -> None: ...

    def _release(self) -> None: ...

    def _on_timer(self, now: float) -> None: ...


class Poller:
    """See the module. One for each process; any thread may call its methods."""

    def __init__(self) -> None:
        #: A signal handler may come in the middle of any method.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._ident = 0
        #: Of the thread, which has them for itself.
        self._selector: selectors.BaseSelector
        self._watches = 0
        #: Of them, those to write; and whether it has begun to look at connections.
        self._writing = 0
        self._looking = False
        self._doorbell: tuple[socket.socket, socket.socket]
        #: Under the lock: whom to look at now, and whom with the next sweep; when to call whom.
        self._attention: deque[Watched] = deque()
        self._candidates: list[Watched] = []
        self._held: list[Watched] = []
        self._held_until = 0.0
        self._heap: list[Entry] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        #: The thread waits until then, and must be woken for anything earlier. In between it looks by itself.
        self._sleeps_until = 0.0

    def is_here(self) -> bool:
        """Whether it is the poller's thread that asks."""
        return self._ident == get_ident()

    def attend(self, connection: Watched) -> None:
        """Look at a connection now."""
        with self._lock:
            self._attention.append(connection)
            self._wake(0.0)

    def left(self, connection: Watched) -> None:
        """Nobody reads a connection; somebody may again in a moment."""
        with self._lock:
            self._candidates.append(connection)
            self._wake(monotonic() + SWEEP)

    def hold(self, connection: Watched) -> None:
        """Call ``connection._release()`` in a moment."""
        with self._lock:
            if not self._held:
                self._held_until = monotonic() + HOLD
            self._held.append(connection)
            self._wake(self._held_until)

    def release(self) -> None:
        """Have sent all that is held."""
        with self._lock:
            held, self._held = self._held, []
        for connection in held:
            try:
                connection._release()
            except Exception:  # of one connection; all others need us
                _logger.exception("a connection failed")

    def finish(self) -> None:
        """The program ends: have sent what is accepted, if the peers read it."""
        self.release()
        end = monotonic() + _LAST_CALL
        while (self._attention or self._looking or self._writing) and self._thread is not None and monotonic() < end:
            sleep(0.001)

    def call_at(self, when: float, connection: Watched) -> Entry:
        """Call ``connection._on_timer(now)`` at that time."""
        entry = [when, next(self._numbers), connection]
        with self._lock:
            heapq.heappush(self._heap, entry)
            self._wake(when)
        return entry

    def cancel(self, entry: Entry) -> None:
        """Do not call, if it was not called yet."""
        with self._lock:
            if entry[2] is None:
                return
            entry[2] = None
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled > len(self._heap) // 2:
                self._wake(0.0)  # to have them thrown away

    # The thread

    def _wake(self, when: float) -> None:
        """The thread must be awake then."""
        if self._thread is None:
            self._start()
        elif self._sleeps_until > when:
            self._sleeps_until = 0.0
            with contextlib.suppress(OSError):  # it is full of such bytes
                self._doorbell[1].send(b"\0")

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="wsproto_fast-poller", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._watches = self._writing = 0
        self._doorbell = socket.socketpair()
        for end in self._doorbell:
            end.setblocking(False)
        self._selector.register(self._doorbell[0], selectors.EVENT_READ)
        try:
            self._thread.start()
        except RuntimeError:  # pragma: no cover (the interpreter is ending)
            self._thread = None
            self._close()

    def _close(self) -> None:
        self._selector.close()
        for end in self._doorbell:
            end.close()

    def _run(self) -> None:
        self._ident = get_ident()
        idle_since: float | None = None
        sweep_at = 0.0
        while True:
            with self._lock:
                now = monotonic()
                self._tidy()
                idle = not (self._attention or self._candidates or self._held or self._heap or self._watches)
                idle_since = (now if idle_since is None else idle_since) if idle else None
                if idle_since is not None and now - idle_since >= _LINGER:
                    self._ident = 0
                    self._thread = None
                    self._close()
                    return
                wake_at = self._next_time(now, sweep_at)
                if idle_since is not None:
                    wake_at = min(wake_at, idle_since + _LINGER)
                self._sleeps_until = wake_at
                self._looking = False
            ready = self._selector.select(None if wake_at == _NEVER else max(0.0, wake_at - now))
            with self._lock:
                self._sleeps_until = 0.0
                attention, self._attention = self._attention, deque()
                self._looking = True
            for key, _ in ready:
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self._doorbell[0].recv(4096)
                else:
                    self._look_at(key.data)
            for connection in attention:
                self._look_at(connection)
            now = monotonic()
            if self._held and now >= self._held_until:
                self.release()
            self._call_due(now)
            if now >= sweep_at:
                self._sweep()
                sweep_at = now + SWEEP

    def _tidy(self) -> None:
        """Throw away what was cancelled, if it is much."""
        if self._cancelled == len(self._heap) or self._cancelled > max(64, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _next_time(self, now: float, sweep_at: float) -> float:
        """When there is something to do at the latest."""
        if self._attention:
            return now
        when = _NEVER
        if self._heap:
            when = self._heap[0][0]
        if self._candidates:
            when = min(when, max(sweep_at, now))
        if self._held:
            when = min(when, self._held_until)
        return when

    def _look_at(self, connection: Watched) -> None:
        try:
            connection._look(self._watch)
        except Exception:  # of one connection; all others need us
            _logger.exception("a connection failed")

    def _watch(self, sock: socket.socket, events: int, before: int, connection: Watched) -> None:
        """Look out for something else on a socket: 1 is to read, 2 to write."""
        self._writing += (events & 2) // 2 - (before & 2) // 2
        if not before:
            self._watches += 1
            self._selector.register(sock, events, connection)
        elif events:
            self._selector.modify(sock, events, connection)
        else:
            self._watches -= 1
            self._selector.unregister(sock)

    def _call_due(self, now: float) -> None:
        while True:
            with self._lock:
                if not self._heap or self._heap[0][0] > now:
                    return
                entry = heapq.heappop(self._heap)
                connection, entry[2] = entry[2], None
                if connection is None:
                    self._cancelled -= 1
            if connection is None:
                continue
            try:
                connection._on_timer(now)
            except Exception:
                _logger.exception("a connection failed")

    def _sweep(self) -> None:
        with self._lock:
            candidates, self._candidates = self._candidates, []
        keep = []
        for connection in candidates:
            what = connection._sweep()
            if what == 1:
                keep.append(connection)
            elif what == 2:
                self._look_at(connection)
        if keep:
            with self._lock:
                self._candidates += keep


_NEVER = float("inf")

_current = Poller()


def poller() -> Poller:
    """That of this process."""
    return _current


def _after_fork() -> None:
    """The thread is not there in the child, and its descriptors are the parent's too."""
    global _current
    _current = Poller()


# A program may end right after ``send``, without ``close``.
atexit.register(lambda: _current.finish())

if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_after_fork)
