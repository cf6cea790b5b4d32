# cython: nonecheck=True
"""What a task waits with for messages: a future that is used again and again.

A task of asyncio goes on when the future it waits for calls it back, as a rule in the next turn of the loop. Ours can do
so at once, from a callback of the transport, where no task is running: that saves a turn, a handle and a future for
each message. Knows asyncio's rules for futures; knows no connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any

__all__ = ["Waiter"]

PENDING = 0
FINISHED = 1
CANCELLED = 2


class Waiter:
    """A future without a value for one waiting task, as asyncio.Future is: to be armed again when that one went on.

    What a task, and whatever else steps coroutines, does with the future that a coroutine yields.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_loop", "_message", "_more", "_state")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.arm()

    def arm(self) -> None:
        """Begin anew. Whoever waited before must have gone on."""
        #: How asyncio knows that a coroutine which yields this waits for it.
        self._asyncio_future_blocking = True
        self._state = PENDING
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._more: list[tuple[Callable[[Any], object], Context | None]] | None = None
        self._message: Any = None

    def wake(self, direct: bool) -> None:
        """It is over: let the task go on, at once if ``direct`` (then no task may be running), or in the next turn."""
        if self._state != PENDING:
            return
        callback = self._callback
        context = self._context
        if direct and callback is not None and context is not None and self._more is None:
            self._state = FINISHED
            self._callback = self._context = None
            context.run(callback, self)
        else:
            self._finish(FINISHED)

    def _finish(self, state: int) -> None:
        self._state = state
        if self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)
            self._callback = self._context = None
            for callback, context in self._more or ():
                self._loop.call_soon(callback, self, context=context)
            self._more = None

    # What asyncio.Future has

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        if self._state != PENDING:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is None:
            self._callback = callback
            self._context = context
        else:
            if self._more is None:
                self._more = []
            self._more.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        waiting = [] if self._callback is None else [(self._callback, self._context), *(self._more or ())]
        kept = [entry for entry in waiting if entry[0] != callback]
        self._callback, self._context = kept[0] if kept else (None, None)
        self._more = kept[1:] or None
        return len(waiting) - len(kept)

    def cancel(self, msg: Any = None) -> bool:
        if self._state != PENDING:
            return False
        self._message = msg
        self._finish(CANCELLED)
        return True

    def cancelled(self) -> bool:
        return self._state == CANCELLED

    def done(self) -> bool:
        return self._state != PENDING

    def result(self) -> None:
        if self._state == PENDING:
            raise asyncio.InvalidStateError("Result is not ready.")
        if self._state == CANCELLED:
            raise asyncio.CancelledError() if self._message is None else asyncio.CancelledError(self._message)

    def exception(self) -> None:
        self.result()

    def __await__(self) -> Generator[Any, None, None]:
        if self._state == PENDING:
            self._asyncio_future_blocking = True
            yield self
        self.result()

    __iter__ = __await__

