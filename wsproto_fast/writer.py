"""Frames to bytes. Knows headers, masks and how to join what is small; knows no messages and no state machine."""

from __future__ import annotations

from ._codec import build_frame, frame_header, new_key
from .constants import CLOSE, FIN, PONG, Role

__all__ = ["FrameWriter"]

# From this size on a payload that needs no mask goes out by reference: joining it would cost a copy that a second
# buffer in one writev() does not.
BY_REFERENCE = 4096

# Pongs that may wait in the output. Over that a new Ping replaces the last one (RFC 6455 5.5.3 allows it), so that
# pings to which the peer does not read the answers cost no memory.
MAX_PONGS = 16


class FrameWriter:
    """The output that nobody has taken yet."""

    __slots__ = ("_first", "_large", "_masked", "_more", "_pong", "_pongs", "size", "taken")

    def __init__(self, role: Role) -> None:
        self._masked = role == Role.CLIENT  # RFC 6455 5.1
        self._first: bytes | None = None  # often the only one: it needs no list
        self._more: list[bytes] | None = None
        self._large = False
        self._pongs = 0
        self._pong: bytes | None = None
        self.size = 0
        self.taken = 0  # bytes, by all calls of take()

    def write(self, first: int, payload: str | bytes | bytearray | memoryview) -> None:
        """Queue a frame with this first byte."""
        if self._masked:
            frame = build_frame(first, payload, new_key())
        elif len(payload) < BY_REFERENCE:
            frame = build_frame(first, payload, -1)
        else:
            if isinstance(payload, str):
                payload = payload.encode()
            if type(payload) is bytes:
                self.append(frame_header(first, len(payload), -1))
                frame = payload
            else:
                frame = build_frame(first, payload, -1)
        self.append(frame)

    def append(self, frame: bytes) -> None:
        """Queue bytes that are a frame already, or a part of one."""
        if len(frame) >= BY_REFERENCE:
            self._large = True
        if self._first is None:
            self._first = frame
        elif self._more is None:
            self._more = [frame]
        else:
            self._more.append(frame)
        self.size += len(frame)

    def write_pong(self, payload: bytes) -> None:
        """Queue the answer to a Ping; where too many wait, only the latest is answered (RFC 6455 5.5.3)."""
        if self._pongs < MAX_PONGS:
            self._pongs += 1
            self.write(FIN | PONG, payload)
        else:
            self._pong = payload

    def write_close(self, payload: bytes) -> None:
        """Queue a Close frame, behind all that waits."""
        self._flush_pong()
        self.write(FIN | CLOSE, payload)

    def _flush_pong(self) -> None:
        if self._pong is not None:
            payload = self._pong
            self._pong = None
            self.write(FIN | PONG, payload)

    def take(self) -> list[bytes]:
        """All output, small frames joined. The writer is empty then."""
        if self._pong is not None:
            self._flush_pong()
        first = self._first
        if first is None:
            return []
        self._first = None
        self._pongs = 0
        self.taken += self.size
        self.size = 0
        large = self._large
        self._large = False
        if self._more is None:
            return [first]
        chunks = [first, *self._more]
        self._more = None
        return _join_small(chunks) if large else [b"".join(chunks)]


def _join_small(chunks: list[bytes]) -> list[bytes]:
    joined: list[bytes] = []
    small: list[bytes] = []
    for chunk in chunks:
        if len(chunk) < BY_REFERENCE:
            small.append(chunk)
        else:
            if small:
                joined.append(b"".join(small))
                small = []
            joined.append(chunk)
    if small:
        joined.append(b"".join(small))
    return joined
