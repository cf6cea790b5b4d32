"""wsproto's extensions: what each may do to a connection's frames, and permessage-deflate as one of them.

Knows frames and extension parameters; knows no headers and no connection. What a connection *receives* through
PerMessageDeflate, and nothing else, is inflated by the engine; the methods here do it beside another extension.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import Any

from .frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

__all__ = ["SUPPORTED_EXTENSIONS", "Extension", "PerMessageDeflate"]

_DATA = (Opcode.TEXT, Opcode.BINARY)  # what may begin a message

# What a sync flush ends with, and what stays off the wire (RFC 7692 7.2.1).
_TAIL = b"\x00\x00\xff\xff"


class Extension(ABC):
    """One extension of one connection (RFC 6455 9). Frames go through it once it is ``enabled``."""

    name: str

    def enabled(self) -> bool:
        """Whether the handshake has agreed on it."""
        return False

    @abstractmethod
    def offer(self) -> bool | str:
        """The client's offer: its parameters, True for none, False not to offer it."""

    def accept(self, offer: str) -> bool | str | None:  # noqa: B027 - to be overridden, or not
        """The server's answer to an offer, which begins with the name: parameters, True for none; None or False to
        decline."""

    def finalize(self, offer: str) -> None:  # noqa: B027
        """The client learns what the server answered."""

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """A frame begins: which reserved bits may be set in it, or why to close."""
        return RsvBits(False, False, False)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        """What becomes of a piece of payload, or why to close."""
        return data

    def frame_inbound_complete(  # noqa: B027
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """A frame ends: what to add to its payload, or why to close."""

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        """What becomes of a frame to be sent."""
        return rsv, data


class PerMessageDeflate(Extension):
    """permessage-deflate (RFC 7692), windows of 9 to 15 bits. Every message is compressed, with zlib's defaults."""

    name = "permessage-deflate"

    DEFAULT_CLIENT_MAX_WINDOW_BITS = 15
    DEFAULT_SERVER_MAX_WINDOW_BITS = 15

    def __init__(
        self,
        client_no_context_takeover: bool = False,
        client_max_window_bits: int | None = None,
        server_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
    ) -> None:
        self.client_no_context_takeover = client_no_context_takeover
        self.server_no_context_takeover = server_no_context_takeover
        self._client_max_window_bits = self.DEFAULT_CLIENT_MAX_WINDOW_BITS
        self._server_max_window_bits = self.DEFAULT_SERVER_MAX_WINDOW_BITS
        if client_max_window_bits is not None:
            self.client_max_window_bits = client_max_window_bits
        if server_max_window_bits is not None:
            self.server_max_window_bits = server_max_window_bits
        self._enabled = False
        # each made at its first use
        self._compressor: Any = None
        self._decompressor: Any = None
        # of the frame, and of the message
        self._inbound_is_compressible = False
        self._inbound_compressed = False

    @property
    def client_max_window_bits(self) -> int:
        """The client's window, in bits; ValueError when it is set outside 9-15."""
        return self._client_max_window_bits

    @client_max_window_bits.setter
    def client_max_window_bits(self, value: int) -> None:
        self._client_max_window_bits = _checked_bits(value)

    @property
    def server_max_window_bits(self) -> int:
        """The server's window, in bits; ValueError when it is set outside 9-15."""
        return self._server_max_window_bits

    @server_max_window_bits.setter
    def server_max_window_bits(self, value: int) -> None:
        self._server_max_window_bits = _checked_bits(value)

    def enabled(self) -> bool:
        return self._enabled

    def _takeovers(self) -> list[str]:
        return [name for name in ("client_no_context_takeover", "server_no_context_takeover") if getattr(self, name)]

    def offer(self) -> bool | str:
        bits = [
            f"client_max_window_bits={self.client_max_window_bits}",
            f"server_max_window_bits={self.server_max_window_bits}",
        ]
        return "; ".join(bits + self._takeovers())

    def finalize(self, offer: str) -> None:
        """As for any extension. Raises ValueError for a window that is no number from 9 to 15."""
        client_bits, server_bits = self._read_parameters(offer, is_answer=True)
        if client_bits is not None:
            self.client_max_window_bits = client_bits
        if server_bits is not None:
            self.server_max_window_bits = server_bits
        self._enabled = True

    def accept(self, offer: str) -> bool | str | None:
        try:
            client_bits, server_bits = self._read_parameters(offer, is_answer=False)
            parameters = self._takeovers()
            if client_bits is not None:
                parameters.append(f"client_max_window_bits={client_bits}")
                self.client_max_window_bits = client_bits
            if server_bits is not None:
                parameters.append(f"server_max_window_bits={server_bits}")
                self.server_max_window_bits = server_bits
        except ValueError:
            return None
        self._enabled = True
        return "; ".join(parameters)

    def _read_parameters(self, text: str, *, is_answer: bool) -> tuple[int | None, int | None]:
        """Take over the flags of an offer or an answer; return both windows, None for what is not mentioned, and our
        own for one that an offer has without a value. Unknown parameters are passed over."""
        client_bits = server_bits = None
        for parameter in text.split(";")[1:]:
            name, equals, value = parameter.partition("=")
            name = name.strip()
            if name in ("client_no_context_takeover", "server_no_context_takeover"):
                setattr(self, name, True)
            elif name == "client_max_window_bits":
                client_bits = int(value) if equals or is_answer else self.client_max_window_bits
            elif name == "server_max_window_bits":
                server_bits = int(value) if equals or is_answer else self.server_max_window_bits
        return client_bits, server_bits

    # -- frames in -------------------------------------------------------------

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        if rsv.rsv1 and opcode not in _DATA:  # RFC 7692 6.1: on the first frame of a message only
            return CloseReason.PROTOCOL_ERROR
        self._inbound_is_compressible = not opcode.iscontrol()
        if opcode in _DATA:
            self._inbound_compressed = rsv.rsv1
            if rsv.rsv1 and self._decompressor is None:
                bits = self.server_max_window_bits if proto.client else self.client_max_window_bits
                self._decompressor = zlib.decompressobj(-bits)
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(self, proto: FrameDecoder | FrameProtocol, data: bytes) -> bytes | CloseReason:
        if not self._inbound_compressed or not self._inbound_is_compressible:
            return data
        try:
            inflated: bytes = self._decompressor.decompress(bytes(data))
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return inflated

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> bytes | CloseReason | None:
        if not fin or not self._inbound_compressed or not self._inbound_is_compressible:
            return None
        try:
            rest: bytes = self._decompressor.decompress(_TAIL) + self._decompressor.flush()
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inbound_compressed = False
        if self.server_no_context_takeover if proto.client else self.client_no_context_takeover:
            self._decompressor = None
        return rest

    # -- frames out ------------------------------------------------------------

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol():
            return rsv, data
        if opcode is not Opcode.CONTINUATION:
            rsv = rsv._replace(rsv1=True)
        compressor = self._compressor
        if compressor is None:
            bits = self.client_max_window_bits if proto.client else self.server_max_window_bits
            compressor = self._compressor = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -bits)
        payload: bytes = compressor.compress(bytes(data))
        if fin:
            # RFC 7692 7.2.3.6: an empty message is one byte; zlib gives nothing at all for a second flush
            payload = (payload + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] or b"\x00"
            if self.client_no_context_takeover if proto.client else self.server_no_context_takeover:
                self._compressor = None
        return rsv, payload

    def __repr__(self) -> str:
        parameters = [f"client_max_window_bits={self.client_max_window_bits}"]
        if self.client_no_context_takeover:
            parameters.append("client_no_context_takeover")
        parameters.append(f"server_max_window_bits={self.server_max_window_bits}")
        if self.server_no_context_takeover:
            parameters.append("server_no_context_takeover")
        return f"<{type(self).__name__} {'; '.join(parameters)}>"


def _checked_bits(value: int) -> int:
    if not 9 <= value <= 15:
        raise ValueError("Window size must be between 9 and 15 inclusive")
    return value


#: Extensions by name.
SUPPORTED_EXTENSIONS = {PerMessageDeflate.name: PerMessageDeflate}
