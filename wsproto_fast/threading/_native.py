"""What C does quicker than Python's own objects: a lock, and system calls on a connected socket.

The compiled build has another implementation, ``ext/threads.pyx``. Knows sockets; knows no connections.
"""

from __future__ import annotations

import select
import socket
import threading
from threading import get_ident
from time import monotonic
from types import TracebackType

__all__ = ["RECEIVE_SIZE", "TICK", "Lock", "Wire", "get_ident", "monotonic"]

#: One recv() of this size holds hundreds of small messages.
RECEIVE_SIZE = 65536

#: A thread that waits for the network looks up this often, in seconds: then it learns of what other threads did.
TICK = 0.1

# Other systems have no flag for one call that does not wait.
MSG_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)


def _run_signal_handlers() -> None:
    """Where a function begins, the interpreter looks for signals: here their exceptions find nothing half done."""


class Lock:
    """A lock that tells a thread that has it already, and waits for it, that this would be for ever."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def acquire(self) -> bool:
        """Wait for the lock. Raises RuntimeError if this thread has it."""
        me = get_ident()
        if self._owner == me:
            raise RuntimeError("an observer, or a signal handler, must not use a connection in the middle of something")
        self._lock.acquire()
        self._owner = me
        return True

    def release(self) -> None:
        """Let others have it."""
        self._owner = 0
        self._lock.release()

    def _is_owned(self) -> bool:  # threading.Condition asks
        return self._owner == get_ident()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Wire:
    """The system calls of one connected socket, which is blocking for Python.

    Several threads may be in them at once. ``interrupt`` makes those return that wait for the peer's bytes.
    """

    __slots__ = ("__weakref__", "_poll", "interrupt", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.interrupt = False

    def receive(self, wait: bool) -> bytes | None:
        """What has come, at most RECEIVE_SIZE bytes; ``b""`` at the end of the stream, None: nothing.

        With ``wait`` it takes a TICK at least before there is nothing. Raises OSError.
        """
        try:
            return self.sock.recv(RECEIVE_SIZE, 0 if wait else MSG_DONTWAIT)
        except BlockingIOError:
            _run_signal_handlers()
            return None

    def receive_into(self, buffer: memoryview, wait: bool) -> int:
        """``receive`` into memory; returns how many bytes, -1: nothing."""
        try:
            return self.sock.recv_into(buffer, 0, 0 if wait else MSG_DONTWAIT)
        except BlockingIOError:
            _run_signal_handlers()
            return -1

    def send(self, data: bytes, start: int) -> int:
        """Send what can be sent now from ``start``; returns how many bytes. Raises OSError."""
        try:
            return self.sock.send(memoryview(data)[start:] if start else data, MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def wait(self, write: bool, timeout: float) -> bool:
        """Wait until the socket is ready, ``timeout`` seconds or a TICK at most; returns whether it is."""
        poller = select.poll()
        poller.register(self.sock, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(max(0.0, min(timeout, TICK)) * 1000))
