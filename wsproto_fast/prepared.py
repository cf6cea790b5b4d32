"""PreparedMessage: one message framed once, and compressed once per way to compress it, for many connections.

Knows payloads and their frames; knows no connection, and not who is to get it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._codec import build_frame
from .constants import FIN, RSV1, Opcode

if TYPE_CHECKING:
    from .deflate import BytesLike, PerMessageDeflate

__all__ = ["PreparedMessage"]

_UNMASKED = -1


class PreparedMessage:
    """A message to be sent by many servers' connections. Immutable, and safe to share between threads.

    ``str`` makes a text message, bytes-like data a binary one; ``text`` overrides that, and bytes sent as text must be
    UTF-8. Raises UnicodeError where they are not: each receiver would fail its connection with 1007. ``opcode`` and
    ``payload`` (exactly ``bytes``, a copy) are what was prepared.
    """

    __slots__ = ("_frames", "opcode", "payload")

    def __init__(self, data: str | BytesLike, *, text: bool | None = None) -> None:
        if isinstance(data, str):
            payload = data.encode()
            text = text is not False
        else:
            payload = bytes(memoryview(data))
            if text:
                payload.decode()
        self.payload = payload
        self.opcode = Opcode.TEXT if text else Opcode.BINARY
        # by PerMessageDeflate.profile, None: not compressed
        self._frames: dict[tuple[Any, ...] | None, bytes] = {}

    def __repr__(self) -> str:
        return f"<PreparedMessage {self.opcode.name} of {len(self.payload)} bytes>"

    def frame(self, compressed_for: PerMessageDeflate | None = None) -> bytes:
        """The whole message as one frame without mask, as servers send it (RFC 6455 5.1).

        With ``compressed_for`` it is compressed as that connection agreed to, with no reference to other messages.
        Whoever sends such a frame must call ``compressed_for.reset_deflater()``.
        """
        profile = None if compressed_for is None else compressed_for.profile
        frame = self._frames.get(profile)
        if frame is None:
            if compressed_for is None:
                frame = build_frame(FIN | self.opcode, self.payload, _UNMASKED)
            else:
                payload = compressed_for.compress_once(self.payload)
                frame = build_frame(FIN | RSV1 | self.opcode, payload, _UNMASKED)
            frame = self._frames.setdefault(profile, frame)  # atomic: threads that race end up with one frame
        return frame
