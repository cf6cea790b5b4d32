"""A buffer that generators read from: they yield while bytes are missing. For others' extensions; see ``protocol``."""

from __future__ import annotations

from collections.abc import Generator

__all__ = ["StreamReader"]


class StreamReader:
    """Bytes that were received and not read yet. Its methods are for ``yield from``, one at a time."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.eof = False

    def read_line(self, m: int, too_long_exc_type: type[Exception] = RuntimeError) -> Generator[None, None, bytearray]:
        """A line with its LF. Raises ``too_long_exc_type`` if it exceeds ``m`` bytes, EOFError if it has no end."""
        scanned = 0
        while (end := self.buffer.find(b"\n", scanned) + 1) == 0:
            scanned = len(self.buffer)
            _check(scanned, m, too_long_exc_type)
            if self.eof:
                raise EOFError(f"stream ends after {scanned} bytes, before end of line")
            yield
        _check(end, m, too_long_exc_type)
        return self._take(end)

    def read_exact(self, n: int) -> Generator[None, None, bytearray]:
        """``n`` bytes. Raises EOFError if the stream ends before."""
        while len(self.buffer) < n:
            if self.eof:
                raise EOFError(f"stream ends after {len(self.buffer)} bytes, expected {n} bytes")
            yield
        return self._take(n)

    def read_to_eof(
        self, m: int, too_long_exc_type: type[Exception] = RuntimeError
    ) -> Generator[None, None, bytearray]:
        """All bytes up to the end of the stream. Raises ``too_long_exc_type`` if they are more than ``m``."""
        while not self.eof:
            _check(len(self.buffer), m, too_long_exc_type)
            yield
        return self._take(len(self.buffer))

    def at_eof(self) -> Generator[None, None, bool]:
        """Whether nothing is left to read, as soon as that is known."""
        while not self.buffer and not self.eof:
            yield
        return not self.buffer

    def feed_data(self, data: bytes | bytearray | memoryview) -> None:
        """Append what was received. Raises EOFError after ``feed_eof``."""
        if self.eof:
            raise EOFError("stream ended")
        self.buffer += data

    def feed_eof(self) -> None:
        """Nothing more comes. Raises EOFError the second time."""
        if self.eof:
            raise EOFError("stream ended")
        self.eof = True

    def discard(self) -> None:
        """Drop what was not read."""
        self.buffer.clear()

    def _take(self, n: int) -> bytearray:
        taken = self.buffer[:n]
        del self.buffer[:n]
        return taken


def _check(size: int, limit: int, error: type[Exception]) -> None:
    if size > limit:
        raise error(f"read {size} bytes, expected no more than {limit} bytes")
