"""permessage-deflate (RFC 7692): negotiation, and both compression contexts of one connection.

Knows message payloads and extension parameters; knows no frames, no opcodes and no sizes but the one it is told.

A window of 8 bits (256 bytes) is legal on the wire, but ``deflateInit2`` refuses it for raw deflate, and the 9-bit
window that replaces it may look back 506 bytes, more than such a peer keeps (isal does; zlib's own code stops at
250, which it nowhere promises). Hence:

* the peer compresses with 8 bits: any inflate window from 8 bits up reads that; ours has 9;
* we compress with 8 bits: the standard zlib with ``Z_RLE``, documented to look back one byte only. What is left is
  Huffman coding: JSON shrinks to 60 % where a 9-bit window gives 30 %. The peer asked for that, and still
  compresses what it sends.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .constants import CloseCode, Role
from .exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    RemoteProtocolError,
)
from .limits import DeflateConfig

if TYPE_CHECKING:
    from typing import TypeAlias

    #: What ``Sec-WebSocket-Extensions`` holds: names with their parameters, a value is None when there is none.
    Extensions: TypeAlias = Sequence[tuple[str, Sequence[tuple[str, str | None]]]]
    BytesLike: TypeAlias = bytes | bytearray | memoryview

__all__ = ["EXTENSION_NAME", "DeflateParameters", "PerMessageDeflate", "accept_offer", "accept_response", "offer"]

EXTENSION_NAME = "permessage-deflate"

# RFC 7692 7.1.2: "a decimal integer value without leading zeroes between 8 to 15, inclusive"
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}

#: Of windows in bits: their sizes, and twice that. One pair of numbers for all connections.
_WINDOWS = {bits: (1 << max(bits, 9), 2 << max(bits, 9)) for bits in range(8, 16)}

_MAX_SIZE = sys.maxsize
_SYNC_FLUSH = 2  # Z_SYNC_FLUSH, the same in zlib, zlib-ng and isal

# An empty stored block that is not the last one, at a byte boundary; what follows its first byte is the tail that a
# sync flush leaves, and that stays off the wire (RFC 7692 7.2.1).
_EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
_TAIL = _EMPTY_BLOCK[1:]

# The tail gives back what the sender cut off. To a decoder that stands where it must, between two blocks, the empty
# blocks behind it say nothing; one still inside a block takes them for data: output, an error or a stream's end. What
# slips through (1,175 of 41,410 messages cut short) was cut in a block's table of codes, without output to lose.
_TAIL_AND_PROBE = _TAIL + 4 * _EMPTY_BLOCK

_DEFAULT_CONFIG = DeflateConfig()

_OBJECT = 64  # what a bytes object costs besides its bytes, roughly

# Blocks with BFINAL set in one message. A restart costs 1-2 us, and copies at most this much of what follows it.
_MAX_FINAL_BLOCKS = 4096
_STEP = 4096


@dataclass(frozen=True, slots=True)
class DeflateParameters:
    """What was agreed on (RFC 7692 7.1). The defaults are those of an empty agreement."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


def _serialize(no_server_takeover: bool, no_client_takeover: bool, server_bits: int, client_bits: int | None) -> str:
    """The header's value. 0 leaves a window out, None leaves its value out."""
    value = EXTENSION_NAME
    if no_server_takeover:
        value += "; server_no_context_takeover"
    if no_client_takeover:
        value += "; client_no_context_takeover"
    if server_bits:
        value += f"; server_max_window_bits={server_bits}"
    if client_bits != 0:
        value += "; client_max_window_bits" if client_bits is None else f"; client_max_window_bits={client_bits}"
    return value


def _parse(parameters: Sequence[tuple[str, str | None]], *, is_offer: bool) -> dict[str, int]:
    """The parameters by name: 1 for a bare no_context_takeover, 8-15 for a window; 15 for one without value.

    Raises NegotiationError for what RFC 7692 7.1 forbids: unknown or repeated names, values outside the range.
    """
    found: dict[str, int] = {}
    for name, value in parameters:
        if name in found:
            raise DuplicateParameter(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise InvalidParameterValue(name, value)
            found[name] = 1
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None and is_offer and name == "client_max_window_bits":
                found[name] = 15  # RFC 7692 7.1.2.2: in an offer the value is optional
            elif value in _WINDOW_BITS:
                found[name] = _WINDOW_BITS[value]
            else:
                raise InvalidParameterValue(name, value)
        else:
            raise InvalidParameterName(name)
    return found


def offer(config: DeflateConfig) -> str:
    """The value of ``Sec-WebSocket-Extensions`` in a client's request."""
    server_bits = config.server_max_window_bits
    client_bits = config.client_max_window_bits
    return _serialize(
        config.server_no_context_takeover,
        config.client_no_context_takeover,
        server_bits if server_bits < 15 else 0,
        client_bits if client_bits < 15 else None,  # always there, so that the server may choose a smaller window
    )


def accept_offer(config: DeflateConfig, offers: Extensions) -> tuple[DeflateParameters, str] | None:
    """A server's answer to the client's list: the first acceptable offer (RFC 7692 5.1, 7.1).

    Returns what was agreed on, and the value of ``Sec-WebSocket-Extensions`` in the response; None to answer without
    compression. An offer with an unknown, repeated or ill-valued parameter is declined, not an error.
    """
    for name, parameters in offers:
        if name != EXTENSION_NAME:
            continue
        try:
            asked = _parse(parameters, is_offer=True)
        except NegotiationError:
            continue
        server_bits = min(config.server_max_window_bits, asked.get("server_max_window_bits", 15))
        client_bits = 15
        if "client_max_window_bits" in asked:  # RFC 7692 7.1.2.2: else it may not stand in the response
            client_bits = min(config.client_max_window_bits, asked["client_max_window_bits"])
        agreed = DeflateParameters(
            config.server_no_context_takeover or "server_no_context_takeover" in asked,
            config.client_no_context_takeover or "client_no_context_takeover" in asked,
            server_bits,
            client_bits,
        )
        return agreed, _serialize(
            agreed.server_no_context_takeover,
            agreed.client_no_context_takeover,
            server_bits if server_bits < 15 or "server_max_window_bits" in asked else 0,
            client_bits if client_bits < 15 else 0,
        )
    return None


def accept_response(config: DeflateConfig, extensions: Extensions) -> DeflateParameters | None:
    """A client's reading of the answer to ``offer(config)``; None if the server declined.

    Raises NegotiationError, DuplicateParameter, InvalidParameterName or InvalidParameterValue for anything that
    ``offer(config)`` does not allow; the handshake has then failed (RFC 6455 9.1, RFC 7692 5.1).
    """
    if not extensions:
        return None
    for name, _ in extensions:
        if name != EXTENSION_NAME:
            raise NegotiationError(f"unsupported extension: {name}")
    if len(extensions) > 1:
        raise NegotiationError(f"received duplicate {EXTENSION_NAME}")
    answer = _parse(extensions[0][1], is_offer=False)
    # RFC 7692 7.1.1.1, 7.1.2.1: what was asked of the server must be confirmed
    if config.server_no_context_takeover and "server_no_context_takeover" not in answer:
        raise NegotiationError("expected server_no_context_takeover")
    server_bits = answer.get("server_max_window_bits", 15)
    if server_bits > config.server_max_window_bits:
        raise NegotiationError(f"expected server_max_window_bits of at most {config.server_max_window_bits}")
    # RFC 7692 7.1.2.2: a server may ignore our hint, and allow more than we use
    client_bits = min(answer.get("client_max_window_bits", 15), config.client_max_window_bits)
    return DeflateParameters(
        "server_no_context_takeover" in answer,  # also unasked: RFC 7692 7.1.1.1
        config.client_no_context_takeover or "client_no_context_takeover" in answer,  # 7.1.1.2
        server_bits,
        client_bits,
    )


class PerMessageDeflate:
    """The two compression contexts of one connection, each made at its first use.

    An error of ``decompress`` is the peer's, and final: the connection must be failed with its close code.
    """

    __slots__ = (
        *("_deflater", "_final_blocks", "_inflater", "_keep_deflater", "_keep_inflater", "_recent"),
        *("_role", "_room", "_started", "_window", "config", "parameters"),
    )

    def __init__(self, role: Role, parameters: DeflateParameters, config: DeflateConfig = _DEFAULT_CONFIG) -> None:
        self.parameters = parameters
        self.config = config
        self._role = role
        # RFC 7692 7.1.1: whether a context lives on to the next message
        server = role is Role.SERVER
        server_keeps = not parameters.server_no_context_takeover
        client_keeps = not parameters.client_no_context_takeover
        self._keep_deflater = server_keeps if server else client_keeps
        self._keep_inflater = client_keeps if server else server_keeps
        # contexts
        self._deflater: Any = None
        self._inflater: Any = None
        # recent output for a new inflater to take over: the window and up to twice as much, and what is left of that
        bits = parameters.client_max_window_bits if server else parameters.server_max_window_bits
        self._window, self._room = _WINDOWS[bits]
        self._recent: list[bytes] | None = None  # a list with the first inflater
        # the message being received: has it begun, and its blocks with BFINAL set
        self._started = False
        self._final_blocks = 0

    @property
    def active(self) -> bool:
        """Whether a context is alive, so that ``release`` has something to free."""
        return self._deflater is not None or self._inflater is not None

    @property
    def profile(self) -> tuple[Any, ...]:
        """What the bytes of ``compress_once`` depend on, besides the data. Hashable."""
        config = self.config
        return self._deflate_bits(), config.level, config.mem_level, config.strategy, config.zlib

    # Sending

    def compress(self, data: BytesLike, *, fin: bool = True) -> bytes:
        """One frame's payload. ``fin`` ends the message (RFC 7692 7.2.1)."""
        if len(data):
            deflater = self._deflater
            if deflater is None:
                deflater = self._deflater = self._new_deflater()
            payload: bytes = deflater.compress(data) + deflater.flush(_SYNC_FLUSH)
        else:
            payload = _EMPTY_BLOCK  # RFC 7692 7.2.3.6; zlib would give nothing at all after a flush
        if not fin:
            return payload
        if not self._keep_deflater:
            self._deflater = None
        return payload[:-4]

    def compress_once(self, data: BytesLike) -> bytes:
        """A whole message's payload that refers to no other message, for any number of peers of this ``profile``.

        Changes nothing here. Whoever sends it on this connection must call ``reset_deflater``.
        """
        if not len(data):
            return _EMPTY_BLOCK[:-4]
        deflater = self._new_deflater()
        payload: bytes = deflater.compress(data) + deflater.flush(_SYNC_FLUSH)
        return payload[:-4]

    def reset_deflater(self) -> None:
        """Forget what was sent. To be called after a frame of ``compress_once`` went out.

        The peer's window then ends with a message that our deflater never saw: with its context kept, the next
        message would point to the wrong bytes, and inflate to them without any error.
        """
        self._deflater = None

    # Receiving

    def decompress(self, data: bytes, *, fin: bool, max_length: int) -> bytes:
        """Inflate one piece of a message; pieces may split it anywhere. ``fin`` goes with the last one.

        Inflates ``max_length`` bytes at most (0 means none), and one more to know that there are more. Raises
        PayloadTooBig(None, max_length) then, and RemoteProtocolError for data that is not DEFLATE, for a message that
        ends inside a block (1002) and for more than 4096 blocks with BFINAL set (1009).
        """
        if max_length < 0:
            raise ValueError("max_length must not be negative")
        limit = max_length + 1 if max_length < _MAX_SIZE else _MAX_SIZE  # never 0, zlib's "no limit"
        inflater = self._inflater
        if inflater is None or not self._started:
            if not data:
                # Nothing since the message began, or since its last block with BFINAL set: it may end here. RFC 7692
                # 7.2.3.6 wants one byte for an empty message; no byte at all is what a careless sender makes of it.
                if fin:
                    self._end_message()
                return b""
            self._started = True
            if inflater is None:
                inflater = self._new_inflater()
        try:
            output: bytes = inflater.decompress(data, limit)
            if inflater.eof:
                output = self._after_final_block(inflater, output, limit)
                inflater = self._inflater
            elif self._keep_inflater or not fin:
                self._recent.append(output)  # type: ignore[union-attr]  # there is an inflater
                self._room -= len(output) + _OBJECT
                if self._room < 0:
                    self._trim()
            if len(output) >= limit:
                raise PayloadTooBig(None, max_length)
            if fin:
                # RFC 7692 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload"
                if inflater is not None and (inflater.decompress(_TAIL_AND_PROBE, 1) or inflater.eof):
                    raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "compressed message ends inside a block")
                if self._keep_inflater and not self._final_blocks:
                    self._started = False
                else:
                    self._end_message()
        except (self.config.zlib or zlib).error as exc:
            # 1002, as websockets answers: 1007 is for payload that does not fit its message's type (RFC 6455 7.4.1),
            # and there is no payload before it is inflated.
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "decompression failed") from exc
        return output

    def release(self) -> None:
        """Free what can be made anew at the next message: the deflater, and between two messages the inflater.

        The peer's compressor goes on where it was, so of the inflater the window is kept.
        """
        self._deflater = None
        if not self._started:
            self._inflater = None
            if self._recent:
                self._trim()

    # Internals

    def _deflate_bits(self) -> int:
        agreed = self.parameters
        return agreed.server_max_window_bits if self._role is Role.SERVER else agreed.client_max_window_bits

    def _new_deflater(self) -> Any:
        config = self.config
        module = config.zlib or zlib
        level = module.Z_DEFAULT_COMPRESSION if config.level is None else config.level
        bits = self._deflate_bits()
        if bits == 8:  # see the head of this module
            return zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -9, config.mem_level, zlib.Z_RLE)
        return module.compressobj(level, zlib.DEFLATED, -bits, config.mem_level, config.strategy)

    def _new_inflater(self) -> Any:
        module = self.config.zlib or zlib
        bits = self._window.bit_length() - 1
        if self._recent is None:
            self._recent = []
        window = bytearray(b"".join(self._recent))  # one piece at most: release() and final blocks trim
        self._inflater = module.decompressobj(-bits, window)
        window.clear()  # raw inflate has read it by now, but would hold on to it
        return self._inflater

    def _trim(self) -> None:
        recent = self._recent
        assert recent
        last = recent[-1]
        window = (last if len(last) >= self._window else b"".join(recent))[-self._window :]
        self._recent = [window]
        self._room = 2 * self._window - len(window)

    def _end_message(self) -> None:
        self._started = False
        self._final_blocks = 0
        if not self._keep_inflater:
            self._inflater = None
            if self._recent:
                self._recent = []
                self._room = 2 * self._window

    def _after_final_block(self, inflater: Any, output: bytes, limit: int) -> bytes:
        """Inflate what follows a block with BFINAL set, from the next byte boundary on (RFC 7692 7.2.3.4).

        To zlib that block ends its stream. To the peer it ends nothing, and its window lives on: a new inflater starts
        with that window. Leaves no inflater when nothing follows the block. Returns all output, cut at ``limit``.
        """
        outputs = [output]
        rest = memoryview(inflater.unused_data)
        while True:
            limit -= len(output)
            self._recent.append(output)  # type: ignore[union-attr]  # there is an inflater
            self._trim()
            if inflater.eof:
                self._inflater = None
                self._final_blocks += 1
                if self._final_blocks > _MAX_FINAL_BLOCKS:
                    raise RemoteProtocolError(CloseCode.MESSAGE_TOO_BIG, "too many final blocks in one message")
            if not rest or not limit:
                break
            inflater = self._inflater or self._new_inflater()
            step = rest[:_STEP]
            output = inflater.decompress(step, limit)
            outputs.append(output)
            rest = rest[len(step) - len(inflater.unused_data) :]
        return b"".join(outputs)
