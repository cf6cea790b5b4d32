"""Frames to messages. Knows fragmentation, UTF-8, inflate and their limits; knows no sockets, headers or close codes
but those that answer its own errors."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from ._codec import Accumulator, read_header, to_bytes, to_str, utf8_valid
from .constants import BINARY, CHUNKS, FIN, MESSAGES, NO_MESSAGE, TEXT, CloseCode, Opcode
from .exceptions import PayloadTooBig, RemoteProtocolError, TooManyFragments
from .limits import Limits, bounded
from .reader import FrameReader

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate

__all__ = ["MessageAssembler"]

_TEXT_KIND = Opcode.TEXT
_BINARY_KIND = Opcode.BINARY


class MessageAssembler:
    """Turns the data frames of a reader into messages, or into pieces of them.

    After ``read_payload`` said True, ``data`` is the message or piece, ``kind`` its opcode, ``first`` and ``last`` its
    place in the message.
    """

    __slots__ = (
        "_accumulator",
        "_begun",
        "_compressed",
        "_decode_text",
        "_decoder",
        "_deflate",
        "_filled",
        "_fragments",
        "_frame_size",
        "_max_fragments",
        "_max_frame",
        "_max_size",
        "_max_whole",
        "_view",
        "data",
        "decode_text",
        "delivery",
        "first",
        "inflated",
        "kind",
        "last",
        "opcode",
        "saved",
        "size",
        "wanted",
    )

    def __init__(self, limits: Limits, deflate: PerMessageDeflate | None, decode_text: bool, delivery: int) -> None:
        self._max_size = bounded(limits.max_message_size)
        self._max_frame = bounded(limits.max_fragment_size)
        self._max_fragments = bounded(limits.max_fragments)
        # of a message in one frame
        self._max_whole = min(self._max_size, self._max_frame) if self._max_fragments > 0 else -1
        self._deflate = deflate
        # of the open message, and what is wanted of the next one
        self.delivery = delivery
        self.wanted = delivery
        self._decode_text = decode_text
        self.decode_text = decode_text
        # the message that is open
        self.opcode: int = NO_MESSAGE
        self.size = 0  # bytes after inflate
        self._compressed = False
        self._begun = False  # some of it was taken already
        self._fragments = 0
        self._frame_size = 0
        self.inflated = False  # something was, since somebody last looked
        self.saved = 0  # bytes that inflate has added
        self._accumulator: Accumulator | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        # receive in place
        self._filled = 0
        self._view: memoryview | None = None
        # what is ready
        self.data: str | bytes = b""
        self.kind = _BINARY_KIND
        self.first = False
        self.last = False

    def deliver(self, delivery: int) -> None:
        """Deliver otherwise from now on: finer at once, coarser with the next message."""
        self.wanted = delivery
        if delivery > self.delivery or self.opcode == NO_MESSAGE:
            self.delivery = delivery

    def take_whole(self, reader: FrameReader) -> bool:
        """Take a message that lies at the front of the input in one plain frame: nearly all do.

        False, and nothing taken, if there is none; what comes instead is for ``begin_frame`` and ``read_payload``.
        """
        if self.opcode != NO_MESSAGE:
            return False
        size, first, second, n, key = read_header(reader.data, reader.pos, reader.end)
        start = reader.pos + size
        data: str | bytes | None
        if (second & 0x80) != reader.mask_bit or n < 0 or n > self._max_whole or n > reader.end - start:
            return False
        if first == FIN | TEXT:
            if self.decode_text:
                data = to_str(reader.data, start, n, key)
            else:
                data = _checked(reader.data, start, n, key)
            if data is None:
                return False
            self.data = data
            self.kind = _TEXT_KIND
        elif first == FIN | BINARY:
            self.data = to_bytes(reader.data, start, n, key)
            self.kind = _BINARY_KIND
        else:
            return False
        self.delivery = self.wanted
        self.first = self.last = True
        reader.pos = start + n
        return True

    def begin_frame(self, reader: FrameReader) -> None:
        """Check the header of a data frame against the open message and the limits."""
        if reader.opcode:
            # RFC 6455 5.4: fragments of one message must not be interleaved with those of another
            if self.opcode != NO_MESSAGE:
                opcode = bytes((reader.opcode,))
                raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "expected a continuation frame", opcode)
            self.opcode = reader.opcode
            self.delivery = self.wanted
            self._decode_text = self.decode_text
            self._compressed = reader.rsv1
            self._begun = False
            self.size = 0
            self._fragments = 0
        elif self.opcode == NO_MESSAGE:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "unexpected continuation frame", b"\0")
        self._fragments += 1
        self._frame_size = 0
        if self._fragments > self._max_fragments:
            raise TooManyFragments(self._max_fragments)
        length = reader.remaining
        if length > self._max_size - self.size or length > self._max_frame:
            self._check_room(length)

    def longest_frame(self) -> int:
        """No frame on the wire may be longer."""
        longest = self._max_frame if self._max_frame < self._max_size else self._max_size
        return longest if self._deflate is None else longest + _slack(longest)

    def _check_room(self, length: int) -> None:
        if not self._compressed:
            raise self._too_big(length)
        room = self._room()
        if length - room > _slack(room):
            raise self._too_big(None)

    def _room(self) -> int:
        """How many more bytes after inflate the current frame may bring."""
        message = self._max_size - self.size
        frame = self._max_frame - self._frame_size
        return frame if frame < message else message

    def _too_big(self, size: int | None) -> PayloadTooBig:
        if self._max_frame - self._frame_size < self._max_size - self.size:
            return PayloadTooBig(size, self._max_frame)
        return PayloadTooBig(size, self._max_size, self.size)

    def read_payload(self, reader: FrameReader) -> bool:
        """Take what has arrived of the current frame's payload. True: something is ready.

        False with ``reader.in_frame`` set: more bytes must come first.
        """
        n = reader.available()
        if (
            not self._begun
            and reader.fin
            and n == reader.remaining
            and self.delivery == MESSAGES
            and not self._compressed
        ):
            # RFC 6455 8.1: text that is not UTF-8 fails the connection
            if self.opcode == TEXT:
                self.kind = _TEXT_KIND
                text: str | bytes | None
                if self._decode_text:
                    text = to_str(reader.data, reader.pos, n, reader.key)
                else:
                    text = _checked(reader.data, reader.pos, n, reader.key)
                if text is None:
                    raise self._invalid_text()
                self.data = text
            else:
                self.kind = _BINARY_KIND
                self.data = to_bytes(reader.data, reader.pos, n, reader.key)
            reader.consume(n)
            self.opcode = NO_MESSAGE
            return True
        self._read_piece(reader, n)
        if reader.in_frame:
            if self.delivery != CHUNKS or self._accumulator is None or self._accumulator.size == 0:
                return False
        elif not reader.fin and self.delivery == MESSAGES:
            return False
        self._deliver(reader.fin and not reader.in_frame)
        return True

    def read_rest(self, reader: FrameReader) -> bool:
        """When no more bytes are there: deliver what was collected before ``deliver`` made the delivery finer."""
        if self.opcode == NO_MESSAGE or self.delivery == MESSAGES or (reader.in_frame and self.delivery != CHUNKS):
            return False
        if self._accumulator is None or self._accumulator.size == 0:
            return False
        self._deliver(False)  # the message is open: the frame that was read last may be a Ping amid it
        return True

    def _read_piece(self, reader: FrameReader, n: int) -> None:
        accumulator = self._accumulator
        if accumulator is None:
            accumulator = self._accumulator = Accumulator()
        if not self._begun:
            self._begun = True
            self.first = True
            accumulator.begin(self.opcode == TEXT)
        if self._filled:
            n = self._filled
            self._filled = 0
            self._release_view()
            valid = accumulator.commit(n, reader.key)
            reader.skip(n)
        elif self._compressed:
            piece = to_bytes(reader.data, reader.pos, n, reader.key)
            reader.consume(n)
            data = self._inflate(piece, reader.fin and not reader.in_frame)
            n = len(data)
            self.saved += n - len(piece)
            valid = accumulator.write(data, 0, n, -1)
        else:
            valid = accumulator.write(reader.data, reader.pos, n, reader.key)
            reader.consume(n)
        self.size += n
        self._frame_size += n
        if not valid:
            raise self._invalid_text()

    def _inflate(self, piece: bytes, fin: bool) -> bytes:
        assert self._deflate is not None  # else RSV1 would be reserved
        self.inflated = True
        try:
            return self._deflate.decompress(piece, fin=fin, max_length=self._room())
        except PayloadTooBig:
            raise self._too_big(None) from None

    def _deliver(self, last: bool) -> None:
        accumulator = self._accumulator
        assert accumulator is not None
        if last and accumulator.text and not accumulator.complete():
            raise self._invalid_text()
        if not accumulator.text:
            self.kind = _BINARY_KIND
            self.data = accumulator.take_bytes()
        else:
            self.kind = _TEXT_KIND
            if not self._decode_text:
                self.data = accumulator.take_bytes()
            elif self.delivery == MESSAGES:
                self.data = accumulator.take_str()
            else:
                if self._decoder is None:
                    self._decoder = codecs.getincrementaldecoder("utf-8")()
                self.data = self._decoder.decode(accumulator.take_bytes(), last)
        self.last = last
        if last:
            self.opcode = NO_MESSAGE
            self._accumulator = None
            self._decoder = None

    def _invalid_text(self) -> RemoteProtocolError:
        refused = b""
        if self.delivery != MESSAGES and self._accumulator is not None:  # a piece; of a message it may be much
            begun: bytes = b"" if self._decoder is None else self._decoder.getstate()[0]
            refused = begun + self._accumulator.take_bytes()
        return RemoteProtocolError(CloseCode.INVALID_DATA, "invalid UTF-8 in text message", refused)

    # -- receive in place ------------------------------------------------------

    def space(self, want: int) -> memoryview | None:
        """Memory of the open message for the next ``want`` bytes of its frame; None where that does not apply."""
        if self._compressed or self._accumulator is None or self._filled:
            return None
        self._view = self._accumulator.space(want)
        return self._view

    def filled(self, nbytes: int) -> None:
        """``nbytes`` were written to ``space()``."""
        self._filled = nbytes

    def unread(self) -> int:
        """How many of those bytes ``read_payload`` has not seen."""
        return self._filled

    def _release_view(self) -> None:
        if self._view is not None:
            try:
                self._view.release()
            except BufferError:  # an event loop still holds it; the accumulator copes
                pass
            self._view = None

    def clear(self) -> None:
        """Drop the open message."""
        self.opcode = NO_MESSAGE
        self._filled = 0
        self._release_view()
        self._accumulator = None
        self._decoder = None


def _slack(size: int) -> int:
    """By how much deflate may lengthen what it cannot compress."""
    return (size >> 3) + 1024


def _checked(data: bytes | bytearray, start: int, n: int, key: int) -> bytes | None:
    """``to_str`` for who wants UTF-8 instead."""
    text = to_bytes(data, start, n, key)
    return text if utf8_valid(text) else None
