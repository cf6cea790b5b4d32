"""Bytes to frame headers. Knows the input window and the shape of a frame; knows no messages and no state machine."""

from __future__ import annotations

from ._codec import has_views, read_header, rotate_key, to_bytes
from .constants import CONTROL, FIN, PING, PONG, RSV1, CloseCode, Role
from .exceptions import RemoteProtocolError

__all__ = ["FrameReader"]

# One recv() of this size holds hundreds of small messages; larger ones gain nothing over loopback.
RECEIVE_SIZE = 65536

_VALID_OPCODES = 0x0707  # bit n set: opcode n is defined (RFC 6455 5.2)

# Receive buffers that no connection uses now. list.append and list.pop are atomic, so threads may share it.
_spare: list[bytearray] = []
_MAX_SPARE = 4


class FrameReader:
    """The bytes received and not yet consumed, ``data[pos:end]``, and the frame that begins or goes on there.

    ``data`` is the caller's own ``bytes`` (then nothing was copied), a shared receive buffer (then it is given back
    before anybody else runs), or a bytearray of ours that grows while messages are paused.
    """

    __slots__ = (
        "_mine",
        "_open_ahead",
        "_receive_buffer",
        "_shared",
        "_view",
        "ahead",
        "data",
        "end",
        "fin",
        "in_frame",
        "key",
        "mask_bit",
        "opcode",
        "opcode_ahead",
        "pos",
        "remaining",
        "reserved_bits",
        "rsv1",
        "seen_ahead",
    )

    def __init__(self, role: Role, compression: bool) -> None:
        self.data: bytes | bytearray = b""
        self.pos = 0
        self.end = 0
        self._mine = False
        self._shared = False
        self._receive_buffer: bytearray | None = None
        self._view: memoryview | None = None
        # RFC 6455 5.1: clients mask, servers do not
        self.mask_bit = 0x80 if role == Role.SERVER else 0
        self.reserved_bits = 0x30 if compression else 0x70
        self.in_frame = False
        self.opcode = 0
        self.fin = False
        self.rsv1 = False
        self.remaining = 0
        self.key = -1
        # Control frames before `ahead` were reported while messages were paused.
        self.ahead = 0
        self._open_ahead = False
        self.opcode_ahead = 0
        self.seen_ahead = False

    # -- input ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray | memoryview) -> int:
        """Append received bytes; returns their number. ``bytes`` are kept by reference when nothing is waiting."""
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        if self.pos == self.end:
            if self._shared:
                self._drop_shared()
            self.data = data
            self._mine = False
            self.pos = self.ahead = 0
            self.end = len(data)
        else:
            self._append(data)
        return len(data)

    def get_buffer(self) -> memoryview:
        """Memory for the next read; see ``buffer_updated``."""
        self._release_view()
        if self._receive_buffer is None:
            self._receive_buffer = _take_spare()
        self._view = memoryview(self._receive_buffer)
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take in ``nbytes`` that were written into ``get_buffer()``."""
        buffer = self._receive_buffer
        assert buffer is not None
        self._release_view()
        self._receive_buffer = None
        if self.pos == self.end:
            self._drop()
            self.data = buffer
            self.end = nbytes
            self._shared = True
        else:
            self._append(to_bytes(buffer, 0, nbytes, -1))
            _give_back(buffer)

    def _release_view(self) -> None:
        if self._view is not None:
            try:
                self._view.release()
            except BufferError:  # somebody still holds it, as uvloop does: let him have it
                self._receive_buffer = None
            self._view = None

    def _append(self, data: bytes) -> None:
        if not self._mine:
            waiting = bytearray(self.data[self.pos : self.end])
            self._forget_consumed()
            self.data = waiting
            self._mine = True
        elif self.pos > self.end - self.pos:  # at most one copy of a byte for each byte consumed
            assert isinstance(self.data, bytearray)
            del self.data[: self.pos]
            self._forget_consumed()
        self.data += data
        self.end = len(self.data)

    def _forget_consumed(self) -> None:
        if self._shared:
            self._drop_shared()
        self.ahead -= self.pos
        self.end -= self.pos
        self.pos = 0

    def settle(self) -> None:
        """Keep only the bytes that are not consumed, in memory of their own. Call when no more can be parsed now."""
        if self.pos == self.end:
            if self.end or self._shared:
                self._drop()
        elif self._shared or self.pos > self.end - self.pos:
            waiting = to_bytes(self.data, self.pos, self.end - self.pos, -1)
            self._forget_consumed()
            self.data = waiting
            self._mine = False

    def clear(self) -> None:
        """Drop everything that was received and not consumed."""
        self.pos = self.end
        self.in_frame = False
        self._drop()

    def _drop(self) -> None:
        if self._shared:
            self._drop_shared()
        self.data = b""
        self._mine = False
        self.pos = self.end = self.ahead = 0

    def _drop_shared(self) -> None:
        self._shared = False
        assert isinstance(self.data, bytearray)
        _give_back(self.data)

    # -- frames --------------------------------------------------------------

    def read_header(self) -> bool:
        """Read the header at ``pos``. False while bytes are missing. RemoteProtocolError if it is not a legal frame.

        ``in_frame`` is True until ``remaining`` bytes of payload were consumed; ``seen_ahead`` tells that
        ``control_ahead`` reported this control frame already.
        """
        size, first, second, length, key = read_header(self.data, self.pos, self.end)
        if size == 0:
            self._check_beginning()
            return False
        if not self._is_legal(first, second, length):
            raise self._illegal(size, first, second, length)
        opcode = first & 0x0F
        if opcode & CONTROL and length > self.end - self.pos - size:
            return False  # a control frame is taken whole
        self.opcode = opcode
        self.fin = (first & FIN) != 0
        self.rsv1 = (first & RSV1) != 0
        self.remaining = length
        self.key = key
        self.seen_ahead = self.pos < self.ahead
        self.pos += size
        self.in_frame = True
        return True

    def _check_beginning(self) -> None:
        """Refuse a header by its first two bytes, where they suffice: the rest of it may never come."""
        if self.end - self.pos >= 2:
            first = self.data[self.pos]
            second = self.data[self.pos + 1]
            if not self._is_legal(first, second, 0):
                raise self._illegal(2, first, second, 0)

    def _is_legal(self, first: int, second: int, length: int) -> bool:
        opcode = first & 0x0F
        return not (
            first & self.reserved_bits
            or (second & 0x80) != self.mask_bit
            or length < 0
            or not (_VALID_OPCODES >> opcode) & 1
            or (opcode & CONTROL and (length > 125 or (first & (FIN | RSV1)) != FIN))
            or (opcode == 0 and first & RSV1)
        )

    def _illegal(self, size: int, first: int, second: int, length: int) -> RemoteProtocolError:
        opcode = first & 0x0F
        if first & self.reserved_bits or (first & RSV1 and (opcode & CONTROL or opcode == 0)):
            # RFC 6455 5.2 and RFC 7692 6: RSV1 only on the first frame of a message, and only when negotiated
            reason = "reserved bits must be 0"
        elif not (_VALID_OPCODES >> opcode) & 1:
            reason = f"invalid opcode: {opcode:#x}"
        elif (second & 0x80) != self.mask_bit:
            reason = "incorrect masking"
        elif length < 0:
            # RFC 6455 5.2: the minimal number of bytes must be used; the most significant bit must be 0
            reason = "invalid payload length"
        elif not first & FIN:
            reason = "fragmented control frame"
        else:
            reason = "control frame too long"
        return RemoteProtocolError(CloseCode.PROTOCOL_ERROR, reason, to_bytes(self.data, self.pos, size, -1))

    def available(self) -> int:
        """How many bytes of the current frame's payload are here."""
        have = self.end - self.pos
        return self.remaining if self.remaining < have else have

    def consume(self, n: int) -> None:
        """Go on behind ``n`` payload bytes of the current frame."""
        self.pos += n
        self.remaining -= n
        if self.remaining:
            self.key = rotate_key(self.key, n)
        else:
            self.in_frame = False

    def skip(self, n: int) -> None:
        """Count ``n`` payload bytes of the current frame that were received elsewhere."""
        self.consume(n)
        self.pos -= n

    def wants_in_place(self) -> bool:
        """Whether so much of the current payload is missing that it should be read straight into the message."""
        return self.in_frame and self.pos == self.end and self.remaining >= RECEIVE_SIZE // 2

    def data_is_next(self) -> bool:
        """Whether what comes next is a data frame, or more of one."""
        return self.in_frame or (self.pos < self.end and not self.data[self.pos] & CONTROL)

    def take_control(self) -> bytes:
        """The payload of the control frame whose header was just read."""
        n = self.remaining
        payload = to_bytes(self.data, self.pos, n, self.key)
        self.consume(n)
        return payload

    def control_ahead(self, received: int, message_open: bool, max_length: int) -> bytes | None:
        """The payload of the next Ping or Pong behind data frames that must wait, with ``opcode_ahead``; None if none.

        ``received`` bytes of the current payload are here but not consumed, beside those in the window;
        ``message_open`` tells whether the frame after the current one belongs to a message that has begun, and
        ``max_length`` how long a frame may be. Never
        consumes: ``ahead`` tells up to where control frames were seen. A Close frame, or a frame that is illegal, ends
        the look ahead; it is met again in its turn.
        """
        start = self.pos
        if self.in_frame:
            if self.remaining - received > self.end - self.pos:
                return None
            start += self.remaining - received
        if self.ahead <= start:
            self.ahead = start
            self._open_ahead = message_open
        while self.ahead < self.end:
            size, first, second, length, key = read_header(self.data, self.ahead, self.end)
            if size == 0 or not self._is_legal(first, second, length) or length > self.end - self.ahead - size:
                return None
            opcode = first & 0x0F
            if opcode & CONTROL:
                if opcode != PING and opcode != PONG:
                    return None
                payload = to_bytes(self.data, self.ahead + size, length, key)
                self.ahead += size + length
                self.opcode_ahead = opcode
                return payload
            if (opcode == 0) != self._open_ahead or length > max_length:
                return None
            self._open_ahead = not first & FIN
            self.ahead += size + length
        return None


def _take_spare() -> bytearray:
    """A receive buffer that nobody else has a view of."""
    while True:
        try:
            buffer = _spare.pop()
        except IndexError:
            # Two more stay in the list: one that becomes empty and filled again is reallocated each time.
            _spare.extend((bytearray(RECEIVE_SIZE), bytearray(RECEIVE_SIZE)))
            return bytearray(RECEIVE_SIZE)
        if not has_views(buffer):
            return buffer


def _give_back(buffer: bytearray) -> None:
    if len(_spare) < _MAX_SPARE:
        _spare.append(buffer)
