"""Lines of the standard input, read by a thread: on every system, from terminals, pipes, files. Knows no WebSocket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, TextIO

__all__ = ["lines_of"]

_READ_SIZE = 2**16


async def lines_of(stream: TextIO) -> AsyncIterator[bytes]:
    """The lines of ``stream`` without their ends, each as soon as it is there; also a last one that has no end.

    At most two reads are ahead of whoever takes lines.
    """
    reader = _Reader(stream)
    rest: list[bytes] = []  # of a line whose end is still to come
    async for data in reader:
        head, *others = data.split(b"\n")
        rest.append(head)
        for other in others:
            yield b"".join(rest).removesuffix(b"\r")
            rest = [other]
    last = b"".join(rest)
    if last:
        yield last


class _Reader:
    """What a thread reads, in an event loop.

    The thread may be in a read when the program ends, so it reads from below the stream's buffer, whose lock the
    interpreter would wait for in vain.
    """

    def __init__(self, stream: TextIO) -> None:
        buffer = stream.buffer
        self._source: Any = getattr(buffer, "raw", buffer)
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(2)
        self._read: asyncio.Queue[bytes] = asyncio.Queue()
        threading.Thread(target=self._work, name="stdin", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._room.acquire()
            try:
                data = self._source.read(_READ_SIZE)
            except (OSError, ValueError):  # closed, or its terminal has gone
                data = b""
            try:
                self._loop.call_soon_threadsafe(self._read.put_nowait, data)
            except RuntimeError:  # the loop is closed: nobody wants it any more
                return
            if not data:
                return

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._read.get():
            yield data
            self._room.release()
