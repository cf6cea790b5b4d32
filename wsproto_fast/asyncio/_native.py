"""What C does quicker than Python's own objects: coroutine objects made of steps, and a few calls.

The compiled build has another implementation, ``ext/native.pyx``. Knows Python; knows no connections.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine
from contextvars import Context
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import Any

__all__ = ["Steps", "get_ident", "monotonic", "run_in"]


class Steps:
    """The base of coroutine objects. ``step`` goes on, and says whether that was all; then ``_value`` is what the
    coroutine returns, else the future to wait for. It raises what the coroutine raises. Subclasses have ``step`` and
    ``close``, and no fields: so the memory of one serves for the next.

    One that ends with ``_state`` 0 was never awaited, which a RuntimeWarning says if it has a ``_name``.
    """

    __slots__ = ("_compress", "_connection", "_name", "_rest", "_state", "_text", "_timeout", "_value", "_what")

    _name: str | None
    _state: int
    _value: Any
    #: Whose it is, what it is to do, and what else does it if it is not so simple.
    _connection: Any
    _what: Any
    _text: bool | None
    _compress: bool | None
    _timeout: float | None
    _rest: Any

    def __del__(self) -> None:
        if self._state == 0 and self._name is not None:
            warnings.warn(f"coroutine '{self._name}' was never awaited", RuntimeWarning, stacklevel=2)

    @property
    def __name__(self) -> str:
        return self._name or ""

    def step(self) -> bool:
        raise NotImplementedError

    def __await__(self) -> Steps:
        return self

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        over = self.step()
        result, self._value = self._value, None
        if over:
            raise StopIteration(result)
        return result

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any:
        """What waits is to be stopped by an exception."""
        try:
            if self._rest is not None:
                return self._rest.throw(_exception_of(typ, val, tb))
            self.close()
            raise _exception_of(typ, val, tb)
        finally:
            typ = val = tb = None  # its traceback has this frame

    def close(self) -> None:
        """Nobody will go on."""
        raise NotImplementedError


def _exception_of(typ: Any, val: Any, tb: TracebackType | None) -> BaseException:
    """The exception that the arguments of ``throw`` mean."""
    exc: BaseException = typ
    if isinstance(typ, type):
        exc = val if isinstance(val, BaseException) else typ() if val is None else typ(val)
    return exc if tb is None else exc.with_traceback(tb)


def run_in(context: Context, callback: Callable[[Any], object], argument: Any) -> None:
    """Call ``callback(argument)`` in a context that nobody is in."""
    context.run(callback, argument)


Coroutine.register(Steps)
