"""wsproto's frame layer: frames out for every connection, frames in where an extension wants to see them.

Knows frames, extensions and close codes; knows no events and no state of a connection. Headers, masks and copies are
the engine's codec. ``connection`` reads with the engine itself; it comes here when there is an extension that the
engine does not know, and to say in wsproto's words what the engine refused.
"""

from __future__ import annotations

import codecs
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..._codec import build_frame, new_key, rotate_key, to_bytes
from ...constants import CONTROL, FIN, RSV1, CloseCode
from ...constants import Opcode as _Opcode
from ...control import cut_reason

if TYPE_CHECKING:
    from collections.abc import Generator

    from .extensions import Extension

__all__ = [
    "LOCAL_ONLY_CLOSE_REASONS",
    "Buffer",
    "CloseReason",
    "Frame",
    "FrameDecoder",
    "FrameProtocol",
    "Header",
    "MessageDecoder",
    "Opcode",
    "ParseFailed",
    "RsvBits",
    "XorMaskerNull",
    "XorMaskerSimple",
]

# RFC 6455 5.2
PAYLOAD_LENGTH_TWO_BYTE = 126
PAYLOAD_LENGTH_EIGHT_BYTE = 127
MAX_PAYLOAD_NORMAL = 125
MAX_PAYLOAD_TWO_BYTE = 2**16 - 1
MAX_PAYLOAD_EIGHT_BYTE = 2**64 - 1
MAX_FRAME_PAYLOAD = MAX_PAYLOAD_EIGHT_BYTE
MASK_MASK = 0x80
PAYLOAD_LEN_MASK = 0x7F
FIN_MASK = FIN
RSV1_MASK = RSV1
RSV2_MASK = 0x20
RSV3_MASK = 0x10
OPCODE_MASK = 0x0F
NULL_MASK = bytes(4)

# RFC 6455 7.4.2
MIN_CLOSE_REASON = 1000
MIN_PROTOCOL_CLOSE_REASON = 1000
MAX_PROTOCOL_CLOSE_REASON = 2999
MIN_LIBRARY_CLOSE_REASON = 3000
MAX_LIBRARY_CLOSE_REASON = 3999
MIN_PRIVATE_CLOSE_REASON = 4000
MAX_PRIVATE_CLOSE_REASON = 4999
MAX_CLOSE_REASON = 4999


class Opcode(IntEnum):
    """RFC 6455 5.2."""

    CONTINUATION = _Opcode.CONT
    TEXT = _Opcode.TEXT
    BINARY = _Opcode.BINARY
    CLOSE = _Opcode.CLOSE
    PING = _Opcode.PING
    PONG = _Opcode.PONG

    def iscontrol(self) -> bool:
        """Whether it is that of a control frame (RFC 6455 5.5)."""
        return bool(self & CONTROL)


class CloseReason(IntEnum):
    """Close codes under wsproto's names (RFC 6455 7.4.1 and the IANA registry)."""

    NORMAL_CLOSURE = CloseCode.NORMAL_CLOSURE
    GOING_AWAY = CloseCode.GOING_AWAY
    PROTOCOL_ERROR = CloseCode.PROTOCOL_ERROR
    UNSUPPORTED_DATA = CloseCode.UNSUPPORTED_DATA
    NO_STATUS_RCVD = CloseCode.NO_STATUS_RCVD
    ABNORMAL_CLOSURE = CloseCode.ABNORMAL_CLOSURE
    INVALID_FRAME_PAYLOAD_DATA = CloseCode.INVALID_DATA
    POLICY_VIOLATION = CloseCode.POLICY_VIOLATION
    MESSAGE_TOO_BIG = CloseCode.MESSAGE_TOO_BIG
    MANDATORY_EXT = CloseCode.MANDATORY_EXTENSION
    INTERNAL_ERROR = CloseCode.INTERNAL_ERROR
    SERVICE_RESTART = CloseCode.SERVICE_RESTART
    TRY_AGAIN_LATER = CloseCode.TRY_AGAIN_LATER
    TLS_HANDSHAKE_FAILED = CloseCode.TLS_HANDSHAKE


#: Codes that say what happened here, and never stand in a frame.
LOCAL_ONLY_CLOSE_REASONS = (
    CloseReason.NO_STATUS_RCVD,
    CloseReason.ABNORMAL_CLOSURE,
    CloseReason.TLS_HANDSHAKE_FAILED,
)


class ParseFailed(Exception):
    """The peer's bytes are no legal frames; ``code`` is the close code that answers them."""

    def __init__(self, msg: str, code: CloseReason = CloseReason.PROTOCOL_ERROR) -> None:
        super().__init__(msg)
        self.code = code


class RsvBits(NamedTuple):
    """The reserved bits of a frame."""

    rsv1: bool
    rsv2: bool
    rsv3: bool


class Header(NamedTuple):
    """A frame's header."""

    fin: bool
    rsv: RsvBits
    opcode: Opcode
    payload_len: int
    masking_key: bytes | None


class Frame(NamedTuple):
    """A frame, or the piece of a data frame that has arrived.

    ``payload`` is a code and a reason for a Close frame, and ``str`` for text behind a MessageDecoder.
    """

    opcode: Opcode
    payload: bytes | str | tuple[int, str]
    frame_finished: bool
    message_finished: bool


_NO_RSV = RsvBits(False, False, False)


def close_reason(code: int) -> int:
    """The CloseReason that has this code, or else the code."""
    try:
        return CloseReason(code)
    except ValueError:
        return code


class XorMaskerSimple:
    """Masks, or unmasks, what is given to it piece by piece (RFC 6455 5.3)."""

    def __init__(self, masking_key: bytes | bytearray) -> None:
        self._key = int.from_bytes(masking_key, "little")

    def process(self, data: bytes | bytearray) -> bytearray:
        """The next piece, masked."""
        result = to_bytes(data, 0, len(data), self._key)
        self._key = rotate_key(self._key, len(data))
        return bytearray(result)


class XorMaskerNull:
    """What stands for a masker where frames are not masked."""

    def process(self, data: bytearray) -> bytearray:
        """The same piece."""
        return data


class Buffer:
    """Received bytes: taken tentatively, then dropped by ``commit`` or given back by ``rollback``."""

    def __init__(self, initial_bytes: bytes | None = None) -> None:
        self.buffer = bytearray(initial_bytes or b"")
        self.bytes_used = 0

    def feed(self, new_bytes: bytes) -> None:
        """Append."""
        self.buffer += new_bytes

    def consume_at_most(self, nbytes: int) -> bytearray:
        """The next ``nbytes``, or as many as there are."""
        data = self.buffer[self.bytes_used : self.bytes_used + nbytes]
        self.bytes_used += len(data)
        return data

    def consume_exactly(self, nbytes: int) -> bytearray | None:
        """The next ``nbytes``, or None while there are fewer."""
        return self.consume_at_most(nbytes) if len(self.buffer) - self.bytes_used >= nbytes else None

    def commit(self) -> None:
        """Drop what was taken."""
        del self.buffer[: self.bytes_used]
        self.bytes_used = 0

    def rollback(self) -> None:
        """Take it again from the start."""
        self.bytes_used = 0

    def __len__(self) -> int:
        return len(self.buffer)


class MessageDecoder:
    """The order of the frames of a message, and its text (RFC 6455 5.4, 8.1)."""

    def __init__(self) -> None:
        self.opcode: Opcode | None = None
        self.decoder: codecs.IncrementalDecoder | None = None

    def process_frame(self, frame: Frame) -> Frame:
        """The data frame with its message's opcode and its text decoded; ``message_finished`` is set on the last piece
        only. Raises ParseFailed."""
        if (self.opcode is None) == (frame.opcode is Opcode.CONTINUATION):
            raise out_of_order(frame.opcode)
        if self.opcode is None:
            self.opcode = frame.opcode
            if frame.opcode is Opcode.TEXT:
                self.decoder = codecs.getincrementaldecoder("utf-8")()
        finished = frame.frame_finished and frame.message_finished
        payload = frame.payload
        if self.decoder is not None:
            assert isinstance(payload, (bytes, bytearray))
            try:
                payload = self.decoder.decode(payload, finished)
            except UnicodeDecodeError as error:
                raise ParseFailed(str(error), CloseReason.INVALID_FRAME_PAYLOAD_DATA) from error
        frame = Frame(self.opcode, payload, frame.frame_finished, finished)
        if finished:
            self.opcode = None
            self.decoder = None
        return frame


def out_of_order(opcode: Opcode) -> ParseFailed:
    """What is wrong about a data frame with this opcode that does not fit the message."""
    if opcode is Opcode.CONTINUATION:
        return ParseFailed("unexpected CONTINUATION")
    return ParseFailed(f"expected CONTINUATION, got {opcode!r}")


class FrameDecoder:
    """Bytes to frames, which each extension sees in its turn. ``client``: the bytes are a server's."""

    def __init__(self, client: bool, extensions: list[Extension] | None = None) -> None:
        self.client = client
        self.extensions = extensions or []
        self.buffer = Buffer()
        self.header: Header | None = None
        self.effective_opcode: Opcode | None = None
        self.masker: XorMaskerNull | XorMaskerSimple = XorMaskerNull()
        self.payload_required = 0
        self.payload_consumed = 0
        self._header_shown = False  # to the extensions, once; its key may come later

    def receive_bytes(self, data: bytes) -> None:
        """Take bytes."""
        self.buffer.feed(data)

    def process_buffer(self) -> Frame | None:
        """The next frame, or piece of a data frame; None until there are more bytes. Raises ParseFailed.

        The pieces of a frame after the first have the opcode CONTINUATION.
        """
        if self.header is None and not self.parse_header():
            return None
        assert self.header is not None
        assert self.effective_opcode is not None
        length = self.header.payload_len
        if len(self.buffer) < self.payload_required:
            return None
        piece = self.buffer.consume_at_most(length - self.payload_consumed)
        if length and not piece:
            return None
        self.buffer.commit()
        self.payload_consumed += len(piece)
        finished = self.payload_consumed == length
        payload = self._through_extensions(bytes(self.masker.process(piece)), finished)
        frame = Frame(self.effective_opcode, payload, finished, self.header.fin)
        if finished:
            self.header = self.effective_opcode = None
        else:
            self.effective_opcode = Opcode.CONTINUATION
        return frame

    def _through_extensions(self, payload: bytes, finished: bool) -> bytes:
        for extension in self.extensions:
            payload = bytes(_unless_refused(extension.frame_inbound_payload_data(self, payload)))
        if finished:
            assert self.header is not None
            for extension in self.extensions:
                payload += _unless_refused(extension.frame_inbound_complete(self, self.header.fin)) or b""
        return payload

    def parse_header(self) -> bool:
        """Read a header. False while bytes are missing; ParseFailed as soon as it cannot become a legal one."""
        start = self.buffer.consume_exactly(2)
        if start is None:
            return False
        first, second = start
        fin = bool(first & FIN)
        try:
            opcode = Opcode(first & OPCODE_MASK)
        except ValueError:
            raise ParseFailed(f"Invalid opcode {first & OPCODE_MASK:#x}") from None
        if opcode.iscontrol() and not fin:
            raise ParseFailed("Invalid attempt to fragment control frame")
        length = self.parse_extended_payload_length(opcode, second & PAYLOAD_LEN_MASK)
        if length is None:
            self.buffer.rollback()
            return False
        masked = bool(second & MASK_MASK)
        rsv = RsvBits(bool(first & RSV1_MASK), bool(first & RSV2_MASK), bool(first & RSV3_MASK))
        if not self._header_shown:
            self.extension_processing(opcode, rsv, length)
            self._header_shown = True
        # RFC 6455 5.1: clients mask, servers do not
        if masked and self.client:
            raise ParseFailed("client received unexpected masked frame")
        if not masked and not self.client:
            raise ParseFailed("server received unexpected unmasked frame")
        key = self.buffer.consume_exactly(4) if masked else bytearray()
        if key is None:
            self.buffer.rollback()
            return False
        self._header_shown = False
        self.buffer.commit()
        self.masker = XorMaskerSimple(key) if masked else XorMaskerNull()
        self.header = Header(fin, rsv, opcode, length, None)
        self.effective_opcode = opcode
        self.payload_required = length if opcode.iscontrol() else 0  # a control frame is taken whole
        self.payload_consumed = 0
        return True

    def parse_extended_payload_length(self, opcode: Opcode, payload_len: int) -> int | None:
        """The payload's length, from the 7 bits of it and what follows; None while bytes are missing.

        ParseFailed for one that is too long for a control frame, or not written in the fewest bytes (RFC 6455 5.2).
        """
        if opcode.iscontrol() and payload_len > MAX_PAYLOAD_NORMAL:
            raise ParseFailed("Control frame with payload len > 125")
        if payload_len <= MAX_PAYLOAD_NORMAL:
            return payload_len
        data = self.buffer.consume_exactly(2 if payload_len == PAYLOAD_LENGTH_TWO_BYTE else 8)
        if data is None:
            return None
        length = int.from_bytes(data, "big")
        if len(data) == 2 and length <= MAX_PAYLOAD_NORMAL:
            raise ParseFailed("Payload length used 2 bytes when 1 would have sufficed")
        if len(data) == 8 and length <= MAX_PAYLOAD_TWO_BYTE:
            raise ParseFailed("Payload length used 8 bytes when 2 would have sufficed")
        if length >> 63:
            raise ParseFailed("8-byte payload length with non-zero MSB")
        return length

    def extension_processing(self, opcode: Opcode, rsv: RsvBits, payload_len: int) -> None:
        """Show the header to the extensions; ParseFailed for a reserved bit that none of them uses (RFC 6455 5.2)."""
        used = [False, False, False]
        for extension in self.extensions:
            bits = _unless_refused(extension.frame_inbound_header(self, opcode, rsv, payload_len))
            used = [a or bool(b) for a, b in zip(used, bits, strict=True)]
        if any(bit and not expected for bit, expected in zip(rsv, used, strict=True)):
            raise ParseFailed("Reserved bit set unexpectedly")


_T = TypeVar("_T")


def _unless_refused(answer: _T | CloseReason) -> _T:
    """What an extension answered; ParseFailed if that was a close code."""
    if isinstance(answer, CloseReason):
        raise ParseFailed("error in extension", answer)
    return answer


class FrameProtocol:
    """Both directions of a connection at the level of frames. ``extensions`` that are not enabled are left out."""

    def __init__(self, client: bool, extensions: list[Extension]) -> None:
        self.client = client
        self.extensions = [extension for extension in extensions if extension.enabled()]
        self._frame_decoder = FrameDecoder(client, self.extensions)
        self._message_decoder = MessageDecoder()
        self._done = False  # a Close frame came, or an error
        self._outbound_opcode: Opcode | None = None

    # -- frames in -------------------------------------------------------------

    def receive_bytes(self, data: bytes) -> None:
        """Take bytes."""
        if not self._done:
            self._frame_decoder.receive_bytes(data)

    def received_frames(self) -> Generator[Frame, None, None]:
        """The frames, and pieces of frames, that are there. Nothing follows a Close frame, or ParseFailed."""
        while not self._done:
            try:
                frame = self._next_frame()
            except BaseException:
                self._done = True
                raise
            if frame is None:
                return
            yield frame

    def _next_frame(self) -> Frame | None:
        frame = self._frame_decoder.process_buffer()
        if frame is None:
            return None
        if not frame.opcode.iscontrol():
            return self._message_decoder.process_frame(frame)
        if frame.opcode is Opcode.CLOSE:
            assert isinstance(frame.payload, bytes)
            self._done = True
            return Frame(Opcode.CLOSE, parse_close(frame.payload), True, True)
        return frame

    # -- frames out ------------------------------------------------------------

    def close(self, code: int | None = None, reason: str | None = None) -> bytes:
        """A Close frame. Codes that must not be sent become 1000, NO_STATUS_RCVD none. A reason is cut to 123 bytes.

        Raises TypeError for a reason without a code.
        """
        if code is CloseReason.NO_STATUS_RCVD:
            code = None
        if code is None and reason:
            raise TypeError("cannot specify a reason without a code")
        if code in LOCAL_ONLY_CLOSE_REASONS:
            code = CloseReason.NORMAL_CLOSURE
        payload = b""
        if code is not None:
            payload = struct.pack("!H", code) + cut_reason(reason or "").encode()
        return self._serialize_frame(Opcode.CLOSE, payload)

    def ping(self, payload: bytes = b"") -> bytes:
        """A Ping frame. Raises ValueError for more than 125 bytes."""
        return self._serialize_frame(Opcode.PING, payload)

    def pong(self, payload: bytes = b"") -> bytes:
        """A Pong frame. Raises ValueError for more than 125 bytes."""
        return self._serialize_frame(Opcode.PONG, payload)

    def send_data(self, payload: bytes | bytearray | memoryview | str = b"", fin: bool = True) -> bytes:
        """A data frame; ``fin`` ends the message. The type of its first payload is that of the whole message.

        Raises TypeError when a later one has another.
        """
        if isinstance(payload, str):
            opcode = Opcode.TEXT
        elif isinstance(payload, (bytes, bytearray, memoryview)):
            opcode = Opcode.BINARY
        else:
            raise TypeError("Must provide bytes or text")
        begun = self._outbound_opcode
        if begun is None and fin and not self.extensions:  # nearly every message
            return build_frame(FIN | opcode, payload, new_key() if self.client else -1)
        if isinstance(payload, str):
            payload = payload.encode()
        if begun is not None and begun is not opcode:
            raise TypeError("Data type mismatch inside message")
        self._outbound_opcode = None if fin else opcode
        return self._serialize_frame(opcode if begun is None else Opcode.CONTINUATION, payload, fin)

    def _serialize_frame(self, opcode: Opcode, payload: bytes | bytearray | memoryview, fin: bool = True) -> bytes:
        payload = bytes(payload)
        rsv = _NO_RSV
        for extension in reversed(self.extensions):
            rsv, payload = extension.frame_outbound(self, opcode, rsv, bytes(payload), fin)
        if opcode.iscontrol() and len(payload) > MAX_PAYLOAD_NORMAL:
            raise ValueError("payload too long for control frame")
        first = bool(fin) << 7 | bool(rsv.rsv1) << 6 | bool(rsv.rsv2) << 5 | bool(rsv.rsv3) << 4 | opcode
        return build_frame(first, payload, new_key() if self.client else -1)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a Close frame (RFC 6455 5.5.1). Raises ParseFailed."""
    if not payload:
        return CloseReason.NO_STATUS_RCVD, ""
    if len(payload) == 1:
        raise ParseFailed("CLOSE with 1 byte payload")
    code = close_reason(int.from_bytes(payload[:2], "big"))
    if not MIN_CLOSE_REASON <= code <= MAX_CLOSE_REASON:
        raise ParseFailed("CLOSE with invalid code")
    if code in LOCAL_ONLY_CLOSE_REASONS:
        raise ParseFailed("remote CLOSE with local-only reason")
    # 1014 has no name in wsproto, but one in the IANA registry
    if code <= MAX_PROTOCOL_CLOSE_REASON and not isinstance(code, CloseReason) and code != CloseCode.BAD_GATEWAY:
        raise ParseFailed("CLOSE with unknown reserved code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError as error:
        text = f"Error decoding CLOSE reason: {error}"
        raise ParseFailed(text, CloseReason.INVALID_FRAME_PAYLOAD_DATA) from error
