"""Frames as objects, the payload of Close frames, and their bytes (RFC 6455 5.2). Knows no connection."""

from __future__ import annotations

import codecs
import dataclasses
import re
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ... import constants
from ..._codec import build_frame, new_key, to_bytes
from ...constants import FIN, RSV1, CloseCode, Opcode
from ...exceptions import PayloadTooBig, ProtocolError
from .typing import BytesLike

if TYPE_CHECKING:
    from .extensions.base import Extension

__all__ = ["Close", "CloseCode", "Frame", "Opcode"]

CONT = Opcode.CONT
TEXT = Opcode.TEXT
BINARY = Opcode.BINARY
CLOSE = Opcode.CLOSE
PING = Opcode.PING
PONG = Opcode.PONG

# Their names up to websockets 16.
OP_CONT, OP_TEXT, OP_BINARY = CONT, TEXT, BINARY
OP_CLOSE, OP_PING, OP_PONG = CLOSE, PING, PONG

DATA_OPCODES = CONT, TEXT, BINARY
CTRL_OPCODES = CLOSE, PING, PONG

#: What may stand in a Close frame, beside 3000-4999.
EXTERNAL_CLOSE_CODES = set(CloseCode) - {
    CloseCode.NO_STATUS_RCVD,
    CloseCode.ABNORMAL_CLOSURE,
    CloseCode.TLS_HANDSHAKE,
}
OK_CLOSE_CODES = {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD}

#: In place of a masking key: there is none.
NO_KEY = -1

_RSV2 = 0x20
_RSV3 = 0x10
_is_printable = re.compile(rb"[\t-\r\x20-\x7e]*").fullmatch

Self = TypeVar("Self", bound="Close")


@dataclasses.dataclass
class Frame:
    """One frame. Its mask and its length are the wire's business. ``str(frame)`` is one line for a log."""

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    @classmethod
    def parse(
        cls,
        read_exact: Callable[[int], Generator[None, None, bytes | bytearray]],
        *,
        mask: bool,
        max_size: int | None = None,
        extensions: Sequence[Extension] | None = None,
    ) -> Generator[None, None, Frame]:
        """Read a frame and undo its ``extensions``, last first; for ``yield from``.

        ``read_exact(n)`` yields until it can return ``n`` bytes; ``mask`` tells whether the sender must have masked.
        Raises ProtocolError, PayloadTooBig for more than ``max_size`` bytes of payload, and whatever ``read_exact`` and
        the extensions raise.
        """
        first, second = yield from read_exact(2)
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError as exc:
            raise ProtocolError("invalid opcode") from exc
        if (second >= 0x80) != mask:
            raise ProtocolError("incorrect masking")
        length = second & 0x7F
        if length > 125:
            least = 126 if length == 126 else 1 << 16
            length = int.from_bytes((yield from read_exact(2 if length == 126 else 8)), "big")
            # RFC 6455 5.2: the minimal number of bytes must be used; the most significant bit must be 0
            if not least <= length < 1 << 63:
                raise ProtocolError("invalid payload length")
        if max_size is not None and length > max_size:
            raise PayloadTooBig(length, max_size)
        key = int.from_bytes((yield from read_exact(4)), "little") if mask else NO_KEY
        data = to_bytes((yield from read_exact(length)), 0, length, key)
        frame = cls(opcode, data, first >= FIN, first & RSV1 != 0, first & _RSV2 != 0, first & _RSV3 != 0)
        for extension in reversed(extensions or ()):
            frame = extension.decode(frame, max_size=max_size)
        frame.check()
        return frame

    def serialize(self, *, mask: bool, extensions: Sequence[Extension] | None = None) -> bytes:
        """The frame's bytes, after its ``extensions``, first first. Raises ProtocolError as ``check`` does."""
        self.check()
        frame: Frame = self
        for extension in extensions or ():
            frame = extension.encode(frame)
        data: Any = frame.data
        if isinstance(data, str):  # the engine would take it
            raise TypeError("a bytes-like object is required, not 'str'")
        first = frame.opcode | FIN * frame.fin | RSV1 * frame.rsv1 | _RSV2 * frame.rsv2 | _RSV3 * frame.rsv3
        return build_frame(first, data, new_key() if mask else NO_KEY)

    def check(self) -> None:
        """Raise ProtocolError for what no frame may be, extensions apart (RFC 6455 5.2, 5.5)."""
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise ProtocolError("reserved bits must be 0")
        if self.opcode in CTRL_OPCODES:
            if len(self.data) > 125:
                raise ProtocolError("control frame too long")
            if not self.fin:
                raise ProtocolError("fragmented control frame")

    #: How long the payload in ``str(frame)`` may be, in characters: a multiple of 3.
    MAX_LOG_SIZE = 75

    def __str__(self) -> str:
        payload, kind = self._payload_in_words()
        limit = self.MAX_LOG_SIZE
        if len(payload) > limit:
            payload = payload[: 2 * (limit // 3 - 1)] + "..." + payload[1 - limit // 3 :]
        # a kind that the opcode tells already goes unsaid
        expected = {TEXT: "text", BINARY: "binary", CLOSE: "text"}.get(self.opcode)
        size = len(self.data)
        facts = [kind if kind != expected and size else "", f"{size} byte{'s' * (size != 1)}"]
        if not self.fin:
            facts.append("continued")
        return f"{self.opcode.name} {payload} [{', '.join(filter(None, facts))}]"

    def _payload_in_words(self) -> tuple[str, str]:
        """The payload, at least what a log shows of it, and whether that is text or binary."""
        data = self.data
        if not data:
            return "''", ""
        if self.opcode is CLOSE:
            try:
                return str(Close.parse(data)), "text"
            except (ProtocolError, UnicodeDecodeError):
                return _hex(data), "binary"
        if self.opcode in CTRL_OPCODES:
            # Not any UTF-8: four random bytes often are.
            return (repr(str(data, "ascii")), "text") if _is_printable(data) else (_hex(data), "binary")
        text = self._text()
        if text is not None:
            return text, "text"
        shown = self.MAX_LOG_SIZE // 3
        if len(data) > shown:
            part = (shown - 1) // 3
            data = bytes(data[: 2 * part]) + b"\0\0" + bytes(data[-part:])  # two more, so that it is cut between
        return _hex(data), "binary"

    def _text(self) -> str | None:
        """The payload as text, its middle left out if it is long; None if it is none.

        Binary messages are often text, and fragments begin and end amid a character.
        """
        data = self.data
        limit = 4 * self.MAX_LOG_SIZE
        pieces = [data] if len(data) <= limit else [data[: 2 * limit // 3], data[-(limit // 3) :]]
        whole = [bytes(piece) for piece in pieces]
        try:
            decoded = [
                _decode(piece, begins=number == 0 and self.opcode is not CONT, ends=piece is whole[-1] and self.fin)
                for number, piece in enumerate(whole)
            ]
        except UnicodeDecodeError:
            return None
        if any("\\x" in repr(text) for text in decoded):
            return None  # control characters: no text that somebody wrote
        return repr(b"".join(whole).decode(errors="replace"))


def _hex(data: BytesLike) -> str:
    return bytes(data).hex(" ")


def _decode(data: bytes, begins: bool, ends: bool) -> str:
    """The whole characters of UTF-8 that ``begins`` and ``ends`` with one, or may not. Raises UnicodeDecodeError."""
    start = 0
    while not begins and start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return codecs.utf_8_decode(data[start:], "strict", ends)[0]


class Close(constants.Close):
    """Code and reason of a Close frame; equal to any other of the engine with the same."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, constants.Close):
            return NotImplemented
        return (self.code, self.reason) == (other.code, other.reason)

    __hash__ = constants.Close.__hash__

    @classmethod
    def parse(cls: type[Self], data: BytesLike) -> Self:
        """What the payload of a Close frame says. Raises ProtocolError, UnicodeDecodeError if it must not say that."""
        if not data:
            return cls(CloseCode.NO_STATUS_RCVD, "")
        if len(data) < 2:
            raise ProtocolError("close frame too short")
        close = cls(int.from_bytes(data[:2], "big"), str(data[2:], "utf-8"))
        close.check()
        return close

    def serialize(self) -> bytes:
        """The payload of the Close frame. Raises ProtocolError as ``check`` does."""
        self.check()
        return self.code.to_bytes(2, "big") + self.reason.encode()

    def check(self) -> None:
        """Raise ProtocolError for a code that must not stand in a frame (RFC 6455 7.4)."""
        if not (self.code in EXTERNAL_CLOSE_CODES or 3000 <= self.code <= 4999):
            raise ProtocolError("invalid status code")
