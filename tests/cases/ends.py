"""How connections end: codes, errors of the peer, floods, and peers that fall silent in the middle of something."""

from __future__ import annotations

import random
import zlib

from helpers import encode_frame

#: What may be said at the end, by either side; the other one is told.
CLOSES = [(1000, ""), (1001, "going"), (3000, "registered"), (4999, "priväte"), (1011, "")]
#: What may not: LocalProtocolError, and the connection is as it was.
WRONG_CLOSES = [(999, ""), (1005, "x"), (1006, ""), (1015, ""), (2999, ""), (5000, ""), (1000, "x" * 124)]


def deflate(data: bytes) -> bytes:
    """The payload of a compressed message."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


#: A frame that is illegal for a connection with compression and a ``max_size`` of 1000, and the code that we close
#: with; None: it is zlib that notices, and either of 1002 and 1007 will do.
ERRORS_OF_THE_PEER: list[tuple[int, bytes, int | None]] = [
    (0x83, b"", 1002),  # reserved opcode
    (0x80, b"x", 1002),  # continuation of nothing
    (0x09, b"", 1002),  # fragmented ping
    (0xA1, b"x", 1002),  # RSV2, of no extension
    (0x89, b"x" * 126, 1002),
    (0x88, b"\x03", 1002),  # half a close code
    (0x88, b"\x03\xe7", 1002),  # 999
    (0x88, b"\x03\xed", 1002),  # 1005 on the wire
    (0x81, b"\xff", 1007),
    (0x88, b"\x03\xe8\xff", 1007),
    (0x82, b"x" * 2000, 1009),
    (0xC2, deflate(bytes(10_000_000)), 1009),  # bomb
    (0xC2, b"\xff\xff\xff\xff", None),  # not deflate
]
#: The beginning of something, after which the peer is silent.
HALVES: dict[str, bytes] = {
    "header": b"\x81",
    "payload": b"\x82\xfe\xff\xff\x00\x00",
    "message": b"\x02\x81\x00\x00\x00\x00x",
    "ping": b"\x89\x84\x00\x00\x00\x00p",
}
#: What a peer sends without end and without reading an answer: the first byte of its frames and their payload.
STALLED: dict[str, tuple[int, bytes]] = {
    "pings": (0x89, b"x" * 125),
    "echoes": (0x82, random.Random(1).randbytes(10_000)),
    "bombs": (0xC2, deflate(bytes(2**20))),
}

_MASK = b"\x00\x00\x00\x00"
#: Bytes for one busy client among others.
FLOODS: dict[str, bytes] = {
    "pings": encode_frame(0x89, b"x" * 125, mask=_MASK) * 500,
    "tiny frames": encode_frame(0x82, b"x", mask=_MASK) * 9000,
    "empty frames": encode_frame(0x81, b"", mask=_MASK) * 9000,
    "tiny fragments": encode_frame(0x02, b"x", mask=_MASK)
    + encode_frame(0x00, b"x", mask=_MASK) * 4000
    + encode_frame(0x80, b"x", mask=_MASK),
    "bombs": encode_frame(0xC2, deflate(bytes(2**20)), mask=_MASK) * 64,
}
