"""A second reading of RFC 6455 and RFC 7692 for the tests: one end's receiving side, slow and simple.

Takes everything that was received at once and never streams; so running it on each prefix of some wire tells at which
byte an error must show. Shares no line with the engine, and knows no limits but those it is told.
"""

from __future__ import annotations

import codecs
import zlib
from dataclasses import dataclass, field
from typing import Any

from helpers import plain

__all__ = ["Naive", "gist", "legal_close_code", "naive", "utf8_prefix"]

REGISTERED = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}  # IANA, those that are sent


class Failed(Exception):
    """The connection fails with this close code."""

    def __init__(self, code: int) -> None:
        self.code = code


def legal_close_code(code: int) -> bool:
    """RFC 6455 7.4.1, 7.4.2: may it stand in a Close frame?"""
    return code in REGISTERED or 3000 <= code < 5000


def utf8_prefix(data: bytes) -> bool:
    """Whether some valid UTF-8 text begins with ``data``."""
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(data, False)
    except UnicodeDecodeError:
        return False
    # Python waits for the third byte of a surrogate, but no valid text goes on from its second (Unicode, table 3-7).
    return not (data[-2:-1] == b"\xed" and data[-1] >= 0xA0)


@dataclass
class Naive:
    """What one end tells and sends when it has received some bytes. Compare ``events`` with ``gist``."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    frames: list[tuple[int, bytes]] = field(default_factory=list)  # sent: first byte, payload
    closed: bool = False


def naive(
    wire: bytes,
    *,
    server: bool,
    max_size: float = 2**20,
    max_frame: float = float("inf"),
    max_fragments: float = 4096,
    takeover: bool | None = None,
    eof: bool = False,
) -> Naive:
    """``takeover``: whether the peer's deflate context lives on; None without permessage-deflate."""
    result = Naive()
    try:
        _receive(wire, server, max_size, max_frame, max_fragments, takeover, result)
    except Failed as failed:
        result.events.append(("Closed", failed.code, "error"))
        result.frames.append((0x88, failed.code.to_bytes(2, "big")))
        result.closed = True
    if eof and not result.closed:
        result.events.append(("Closed", 1006, None))
        result.closed = True
    return result


def _receive(
    wire: bytes,
    server: bool,
    max_size: float,
    max_frame: float,
    max_fragments: float,
    takeover: bool | None,
    result: Naive,
) -> None:
    kind = 0  # of the open message
    compressed = False
    message = b""
    fragments = 0
    context: Any = None
    while True:
        # The header (RFC 6455 5.2), if it is there
        if len(wire) < 2:
            return
        fin, rsv1, rsv23 = wire[0] >> 7, wire[0] >> 6 & 1, wire[0] >> 4 & 3
        opcode = wire[0] & 15
        masked, length = wire[1] >> 7, wire[1] & 127
        extra = {126: 2, 127: 8}.get(length, 0)
        size = 2 + extra + 4 * masked
        if rsv23 or opcode not in (0, 1, 2, 8, 9, 10) or masked != server:
            raise Failed(1002)
        if rsv1 and (takeover is None or opcode not in (1, 2)):  # RFC 7692 6
            raise Failed(1002)
        if opcode >= 8 and not fin:  # RFC 6455 5.5
            raise Failed(1002)
        if len(wire) < size:
            return
        if extra:
            length = int.from_bytes(wire[2 : 2 + extra], "big")
            if length < {2: 126, 8: 2**16}[extra] or length >= 2**63:
                raise Failed(1002)
        if opcode >= 8 and length > 125:  # RFC 6455 5.5
            raise Failed(1002)
        key = wire[size - 4 : size] if masked else bytes(4)
        payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(wire[size : size + length]))
        complete = len(payload) == length

        if opcode >= 8:
            if not complete:
                return
            wire = wire[size + length :]
            if opcode == 8:
                _close(payload, result)
                return
            result.events.append(("Ping", payload) if opcode == 9 else ("Pong", payload, ()))
            if opcode == 9:
                result.frames.append((0x8A, payload))
            continue

        if (opcode == 0) != (kind != 0):  # RFC 6455 5.4
            raise Failed(1002)
        if opcode:
            kind, compressed, message, fragments = opcode, bool(rsv1), b"", 0
        fragments += 1
        if fragments > max_fragments:
            raise Failed(1009)
        if not compressed and (length > max_frame or length > max_size - len(message)):
            raise Failed(1009)
        if compressed:
            # Well-formed streams only: the tests of the inflater's errors are elsewhere.
            if context is None:
                context = zlib.decompressobj(-15)
            data = context.decompress(payload)
            if fin and complete:
                data += context.decompress(b"\x00\x00\xff\xff")
                if not takeover:
                    context = None
            if len(data) > max_frame or len(data) > max_size - len(message):
                raise Failed(1009)
        else:
            data = payload
        message += data
        if kind == 1 and not utf8_prefix(message):  # RFC 6455 8.1, at once
            raise Failed(1007)
        if not complete:
            return
        wire = wire[size + length :]
        if fin:
            if kind == 1:
                try:
                    result.events.append(("Message", message.decode(), 1))
                except UnicodeDecodeError:
                    raise Failed(1007) from None
            else:
                result.events.append(("Message", message, 2))
            kind = 0


def _close(payload: bytes, result: Naive) -> None:
    # RFC 6455 5.5.1, 7.1.5, 7.1.6
    if len(payload) == 1:
        raise Failed(1002)
    code = int.from_bytes(payload[:2], "big") if payload else 1005
    if payload and not legal_close_code(code):
        raise Failed(1002)
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError:
        raise Failed(1007) from None
    result.events.append(("CloseReceived", code, reason))
    result.events.append(("Closed", code, reason, None))
    result.frames.append((0x88, payload))
    result.closed = True


def gist(events: list[Any]) -> list[tuple[Any, ...]]:
    """Events as ``Naive`` tells them: of an error only the close code, since its text is free."""
    told = []
    for event in map(plain, events):
        if event[0] == "Closed" and event[3] is not None:
            event = ("Closed", event[1], "error")
        elif event[0] == "Closed" and event[1] == 1006:
            event = ("Closed", 1006, None)
        elif event[0] == "Pong":
            event = event[:3]  # when we sent the ping is no matter of the wire
        told.append(event)
    return told
