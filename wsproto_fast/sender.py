"""Messages to frames. Knows fragmentation, UTF-8 and deflate on the way out; knows no masks, sockets or close codes."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from ._codec import utf8_valid
from .constants import BINARY, CONT, FIN, NO_MESSAGE, RSV1, TEXT
from .control import encode
from .exceptions import LocalProtocolError
from .writer import FrameWriter

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate
    from .prepared import PreparedMessage

__all__ = ["MessageSender"]


class MessageSender:
    """The sending half of a connection. LocalProtocolError means that nothing was sent and nothing changed."""

    __slots__ = ("_compressed", "_deflate", "_pending", "_threshold", "_writer", "deflated", "opcode", "saved", "sent")

    def __init__(self, writer: FrameWriter, deflate: PerMessageDeflate | None) -> None:
        self._writer = writer
        self._deflate = deflate
        self._threshold = 0 if deflate is None else deflate.config.threshold
        # the fragmented message that is open
        self.opcode: int = NO_MESSAGE
        self._compressed = False
        self._pending = b""  # an unfinished character at the end of the last fragment
        self.sent = 0  # messages
        self.saved = 0  # bytes that deflate has taken away
        self.deflated = False  # something was, since somebody last looked

    def send(self, opcode: int, data: str | bytes | bytearray | memoryview, compress: bool | None) -> None:
        """Send a whole message."""
        if self.opcode != NO_MESSAGE:
            raise _message_open()
        if isinstance(data, str):
            if opcode == BINARY:
                raise TypeError("a binary message must be bytes; send_text() takes str")
        elif opcode == TEXT:
            data = _checked_text(data)
        head = FIN | opcode
        if self._deflate is not None:
            payload = encode(data) if isinstance(data, str) else data
            if self._compresses(len(payload), compress):
                if not isinstance(payload, bytes):
                    payload = bytes(memoryview(payload))  # deflate takes no gaps
                size = len(payload)
                payload = self._deflate.compress(payload)
                self.deflated = True
                self.saved += size - len(payload)
                head |= RSV1
            data = payload
        try:
            self._writer.write(head, data)
        except UnicodeEncodeError:
            encode(str(data))  # says what to do
        self.sent += 1

    def send_fragment(
        self,
        data: str | bytes | bytearray | memoryview,
        first: bool,
        fin: bool,
        text: bool | None,
        compress: bool | None,
    ) -> None:
        """Send one frame of a fragmented message (RFC 6455 5.4)."""
        opcode = self.opcode
        head = CONT
        compressed = self._compressed
        if first:
            if self.opcode != NO_MESSAGE:
                raise _message_open()
            opcode = TEXT if (isinstance(data, str) if text is None else text) else BINARY
            compressed = self._deflate is not None and compress is not False
            # RFC 7692 6.1: RSV1 on the first frame only
            head = opcode | RSV1 if compressed else opcode
        elif opcode == NO_MESSAGE:
            raise LocalProtocolError("no fragmented message is open: begin with first=True")
        pending = b""
        if opcode == TEXT:
            payload = encode(data) if isinstance(data, str) else bytes(memoryview(data))
            if self._pending or not isinstance(data, str):  # a str has whole characters
                pending = _unfinished(self._pending + payload, fin)
        elif isinstance(data, str):
            raise TypeError("the fragments of a binary message must be bytes")
        else:
            payload = bytes(memoryview(data))
        if compressed:
            assert self._deflate is not None
            size = len(payload)
            payload = self._deflate.compress(payload, fin=fin)
            self.deflated = True
            self.saved += size - len(payload)
        self._writer.write(head | FIN if fin else head, payload)
        self._compressed = compressed
        self._pending = pending
        self.opcode = opcode
        if fin:
            self.opcode = NO_MESSAGE
            self.sent += 1

    def send_prepared(self, prepared: PreparedMessage, compress: bool | None) -> None:
        """Send frames that were made once for many connections; for a server, whose frames have no mask."""
        if self.opcode != NO_MESSAGE:
            raise _message_open()
        deflate = self._deflate
        if deflate is not None and self._compresses(len(prepared.payload), compress):
            frame = prepared.frame(deflate)
            self._writer.append(frame)
            self.saved += len(prepared.payload) - _payload_size(frame)
            # The peer's window now holds a message that our deflater never saw.
            deflate.reset_deflater()
        else:
            self._writer.append(prepared.frame(None))
        self.sent += 1

    def _compresses(self, size: int, compress: bool | None) -> bool:
        if compress is None:
            return size >= self._threshold
        return compress


def _checked_text(data: bytes | bytearray | memoryview) -> bytes:
    text = bytes(memoryview(data))
    if not utf8_valid(text):
        raise LocalProtocolError("text must be valid UTF-8; use send_binary() for other bytes")
    return text


def _payload_size(frame: bytes) -> int:
    """Of a whole frame without mask."""
    length = frame[1]
    return len(frame) - (2 if length < 126 else 4 if length == 126 else 10)


def _unfinished(data: bytes, fin: bool) -> bytes:
    """The start of an unfinished character at the end of ``data``."""
    try:
        consumed = codecs.utf_8_decode(data, "strict", fin)[1]
    except UnicodeDecodeError as error:
        raise LocalProtocolError("text must be valid UTF-8") from error
    rest = data[consumed:]
    if rest[:1] == b"\xed" and rest[1:2] >= b"\xa0":  # the decoder waits for a third byte of a surrogate
        raise LocalProtocolError("text must be valid UTF-8: it has a surrogate")
    return rest


def _message_open() -> LocalProtocolError:
    return LocalProtocolError("a fragmented message is open: end it with send_fragment(fin=True) first")
