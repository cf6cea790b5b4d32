"""Bytes of RFC 6455: frame headers, masks, UTF-8, copies. Pure functions over frozen rules; knows no connection.

The reference. ``ext/codec.pyx`` is its compiled twin and takes its place when the extensions are built; what the
two must have in common is written here, how it is made fast is written there.

A *key* is the masking key as the integer that its four bytes make in little-endian order, or -1: no mask.
``data`` is always exactly ``bytes`` or ``bytearray``. Spans outside it are ValueError.
"""

from __future__ import annotations

import codecs
import os
import struct

__all__ = [
    "COMPILED",
    "Accumulator",
    "build_frame",
    "frame_header",
    "has_views",
    "new_key",
    "read_header",
    "rotate_key",
    "simd_level",
    "to_bytes",
    "to_str",
    "utf8_valid",
]

COMPILED = False

# Room that an Accumulator gets ahead of what has arrived: memory follows bytes received, never bytes announced.
_AHEAD = 65536

_KEYS_PER_DRAW = 1024  # one os.urandom call of 4 KiB

_keys: list[int] = []

_integer = int.from_bytes

if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows; a child must not repeat its parent's keys
    os.register_at_fork(after_in_child=_keys.clear)


def new_key() -> int:
    """An unpredictable masking key from the operating system (RFC 6455 5.3, 10.3)."""
    while True:
        try:
            return _keys.pop()  # atomic, so threads never share a key
        except IndexError:
            _keys.extend(struct.unpack(f"<{_KEYS_PER_DRAW}I", os.urandom(4 * _KEYS_PER_DRAW)))


def simd_level() -> str:
    """The kernels in use: "avx512", "avx2", "sse2", "neon" or "portable"; "python" in this build."""
    return "python"


def read_header(data: bytes | bytearray, pos: int, end: int) -> tuple[int, int, int, int, int]:
    """Read the frame header at ``data[pos:end]`` (RFC 6455 5.2).

    Returns (size of the header, first byte, second byte, payload length, key). The size is 0 while bytes are missing;
    the length is -1 when it is not encoded in the fewest bytes, or has its top bit set.
    """
    have = end - pos
    if have < 2 or pos < 0 or end > len(data):
        return 0, 0, 0, 0, -1
    first = data[pos]
    second = data[pos + 1]
    length = second & 0x7F
    size = 2
    if length >= 126:
        size = 4 if length == 126 else 10
        if have < size:
            return 0, 0, 0, 0, -1
        length = int.from_bytes(data[pos + 2 : pos + size], "big")
        if length < (126 if size == 4 else 65536) or length >> 63:
            length = -1
    if second < 0x80:
        return size, first, second, length, -1
    if have < size + 4:
        return 0, 0, 0, 0, -1
    start = pos + size
    return size + 4, first, second, length, _integer(data[start : start + 4], "little")


def rotate_key(key: int, offset: int) -> int:
    """The key as it stands ``offset`` payload bytes later."""
    if key < 0:
        return key
    shift = 8 * (offset & 3)
    return (key >> shift) | ((key << (32 - shift)) & 0xFFFFFFFF)


def _check_span(data: bytes | bytearray, pos: int, n: int) -> None:
    if pos < 0 or n < 0 or n > len(data) - pos:
        raise _outside()


def _outside() -> ValueError:
    return ValueError("span outside the data")


# From this size on four translations, one for each byte of the key, beat one exclusive-or of long integers, whose
# conversions cost 2 ns a byte (1.8 against 2.3 us at 1 KiB, 1.1 against 2.6 ms at 1 MiB).
_LONG = 800

_tables: list[bytes] = []


def _mask(payload: bytes | bytearray, key: int) -> bytes:
    n = len(payload)
    if n < _LONG:
        words = (n + 3) >> 2
        mask = _integer(key.to_bytes(4, "little") * words, "little")
        return (_integer(payload, "little") ^ mask).to_bytes(4 * words, "little")[:n]
    if not _tables:
        _tables.extend([bytes([byte ^ of_key for byte in range(256)]) for of_key in range(256)])
    result = bytearray(payload)
    result[0::4] = result[0::4].translate(_tables[key & 0xFF])
    result[1::4] = result[1::4].translate(_tables[key >> 8 & 0xFF])
    result[2::4] = result[2::4].translate(_tables[key >> 16 & 0xFF])
    result[3::4] = result[3::4].translate(_tables[key >> 24])
    return bytes(result)


def to_bytes(data: bytes | bytearray, pos: int, n: int, key: int) -> bytes:
    """``data[pos:pos+n]``, unmasked."""
    if pos < 0 or n < 0 or n > len(data) - pos:
        raise _outside()
    span = data[pos : pos + n]
    return bytes(span) if key < 0 else _mask(span, key)


def to_str(data: bytes | bytearray, pos: int, n: int, key: int) -> str | None:
    """``data[pos:pos+n]``, unmasked and decoded from UTF-8; None if it is not valid (RFC 3629)."""
    _check_span(data, pos, n)
    span = data[pos : pos + n]
    try:
        return str(span if key < 0 else _mask(span, key), "utf-8")
    except UnicodeDecodeError:
        return None


def has_views(buffer: bytearray) -> bool:
    """Whether somebody still sees this memory, so that it must not be used for anybody else."""
    size = len(buffer)
    try:
        buffer.append(0)
    except BufferError:
        return True
    del buffer[size:]
    return False


def utf8_valid(data: bytes | bytearray) -> bool:
    """Whether ``data`` is valid UTF-8 as a whole."""
    return to_str(data, 0, len(data), -1) is not None


def frame_header(first: int, length: int, key: int) -> bytes:
    """The header of a frame with this first byte, payload length and key (RFC 6455 5.2)."""
    mask_bit = 0 if key < 0 else 0x80
    if length < 126:
        header = bytes((first, mask_bit | length))
    elif length < 65536:
        header = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        header = struct.pack("!BBQ", first, mask_bit | 127, length)
    return header if key < 0 else header + key.to_bytes(4, "little")


def build_frame(first: int, payload: str | bytes | bytearray | memoryview, key: int) -> bytes:
    """A whole frame: header, key and masked payload in one object. A ``str`` goes out as UTF-8."""
    if isinstance(payload, str):
        data = payload.encode()
    elif type(payload) is bytes:
        data = payload
    else:
        data = bytes(memoryview(payload))
    header = frame_header(first, len(data), key)
    return header + (data if key < 0 else _mask(data, key))


class Accumulator:
    """Bytes of a message that arrives in pieces. Holds no memory while empty.

    With ``text`` set each piece is checked as UTF-8 at once: ``write`` and ``commit`` answer False at the first bad
    byte, and ``complete`` tells whether the text ends with a whole character.
    """

    __slots__ = ("_buffer", "_pending", "size", "text")

    def __init__(self) -> None:
        self.size = 0
        self.text = False
        self._buffer = bytearray()
        self._pending = b""

    def write(self, data: bytes | bytearray, pos: int, n: int, key: int) -> bool:
        """Append ``data[pos:pos+n]``, unmasked."""
        piece = to_bytes(data, pos, n, key)
        self._reserve(n)
        self._buffer[self.size : self.size + n] = piece
        self.size += n
        return self._check(piece)

    def space(self, want: int) -> memoryview:
        """Writable memory behind the bytes so far: at most ``want`` bytes, growing with what has arrived.

        Valid until the next call of any other method; ``commit`` takes in what was written to it.
        """
        room = min(want, max(_AHEAD, self.size))
        self._reserve(room)
        return memoryview(self._buffer)[self.size : self.size + room]

    def commit(self, n: int, key: int) -> bool:
        """Take in ``n`` bytes that were written into ``space()``, unmasking them in place."""
        _check_span(self._buffer, self.size, n)
        piece = to_bytes(self._buffer, self.size, n, key)
        self._buffer[self.size : self.size + n] = piece
        self.size += n
        return self._check(piece)

    def complete(self) -> bool:
        """Whether the text so far ends with a whole character."""
        return not self._pending

    def take_bytes(self) -> bytes:
        """All bytes, which leave the accumulator; the check of a text goes on."""
        result = bytes(memoryview(self._buffer)[: self.size])
        self.size = 0
        self._buffer = bytearray()  # a view of the old one may still be held
        return result

    def take_str(self) -> str:
        """As ``take_bytes``, decoded from UTF-8. Call only when the text is complete."""
        return str(self.take_bytes(), "utf-8")

    def begin(self, text: bool) -> None:
        """Forget everything, free the memory and take text or binary from now on."""
        self.size = 0
        self.text = text
        self._pending = b""
        self._buffer = bytearray()

    def _reserve(self, room: int) -> None:
        missing = self.size + room - len(self._buffer)
        if missing > 0:
            try:
                self._buffer.extend(bytes(missing))
            except BufferError:  # somebody still holds a view: leave the old memory to it
                self._buffer = self._buffer[: self.size] + bytes(room)

    def _check(self, piece: bytes) -> bool:
        if self.text:
            piece = self._pending + piece
            try:
                _, consumed = codecs.utf_8_decode(piece, "strict", False)
            except UnicodeDecodeError:
                return False
            self._pending = piece[consumed:]
            # Python's decoder waits for a third byte here, but no character begins so (RFC 3629 4: no surrogates).
            return not (self._pending[:1] == b"\xed" and self._pending[1:2] >= b"\xa0")
        return True
