"""Which event loop runs a command, and how Ctrl-C reaches it. Knows no command."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from .failures import usage

__all__ = ["LOOPS", "choose_loop", "interruptible", "run"]

T = TypeVar("T")

LOOPS = ("auto", "asyncio", "uvloop")


def choose_loop(wanted: str) -> str:
    """What "auto" stands for: uvloop where that is installed. Raises Failure when that is wanted and not there."""
    installed = importlib.util.find_spec("uvloop") is not None
    if wanted == "uvloop" and not installed:
        raise usage("uvloop is not installed; `pip install uvloop`, or leave --loop out")
    if wanted == "auto":
        return "uvloop" if installed else "asyncio"
    return wanted


def run(command: Coroutine[Any, Any, T], loop: str) -> T:
    """Run a command to its end, on a loop that ``choose_loop`` has named."""
    if loop == "uvloop":
        result: T = importlib.import_module("uvloop").run(command)
        return result
    return asyncio.run(command)


@contextlib.contextmanager
def interruptible(*numbers: signal.Signals) -> Iterator[asyncio.Event]:
    """An event that the first of these signals sets; the next one ends the program as if we were not there.

    With handlers of Python's own, which every loop and system has. Outside of the main thread there are none: then
    nothing ever sets the event.
    """
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    before: dict[signal.Signals, Any] = {}

    def on_signal(*_: object) -> None:
        restore()
        loop.call_soon_threadsafe(event.set)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    with contextlib.suppress(ValueError):
        for number in numbers:
            before[number] = signal.signal(number, on_signal)
    try:
        yield event
    finally:
        restore()
