"""Streams of frames that are hostile, and some that only look so: what an end must answer to each.

Knows what RFC 6455 and RFC 7692 demand; knows no engine. Where the RFCs leave the choice to the receiver, the cases say
what the engine does, with the default ``Limits``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..constants import Role
from ._wire import MASKING_KEY, Frame, binary, close, continuation, encode_frame, ping, pong, text

__all__ = ["BAD_UTF8", "HOSTILE_FRAMES", "LEGAL_FRAMES", "FrameCase"]

RFC = "RFC 6455 "
DEFLATE = "RFC 7692 "


@dataclass(frozen=True)
class FrameCase:
    """What a peer sends after the opening handshake, and what the end of ``role``, which receives it, must do."""

    #: Unique; says what is wrong and who receives it.
    name: str
    #: What the peer of ``role`` sends.
    data: bytes
    #: The end that receives it: the one under test.
    role: Role
    #: The code of the Close frame that must be sent, after which nothing more may be. None: nothing is wrong, and the
    #: connection stays open.
    code: int | None
    #: Where that stands.
    section: str
    #: permessage-deflate was negotiated.
    deflate: bool = False
    #: Messages that are delivered all the same.
    messages: tuple[str | bytes, ...] = ()
    #: The payload of the Pong that must be sent, if any (5.5.2).
    pong: bytes | None = None

    def __str__(self) -> str:
        return self.name


def wire(role: Role, *frames: Frame) -> bytes:
    """Frames as the peer of ``role`` sends them."""
    mask = MASKING_KEY if role is Role.SERVER else None
    return b"".join([encode_frame(first, payload, mask=mask) for first, payload in frames])


def both(
    name: str,
    section: str,
    code: int | None,
    *frames: Frame,
    deflate: bool = False,
    messages: tuple[str | bytes, ...] = (),
) -> Iterator[FrameCase]:
    """The same frames for each role."""
    # 5.5.3: a Pong for the last Ping will do
    pings = [] if code is not None else [frame.payload for frame in frames if frame.first == 0x89]
    answer = pings[-1] if pings else None
    for role in Role:
        full_name = f"{name}-{role.name.lower()}"
        yield FrameCase(full_name, wire(role, *frames), role, code, section, deflate, messages, answer)


def pack(data: bytes) -> bytes:
    """A message's payload, compressed as RFC 7692 7.2.1 tells."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -12)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


# -- what is no UTF-8 --------------------------------------------------------------

#: Name, bytes. The last four only lack their ends.
BAD_UTF8 = {
    "stray-continuation": b"\x80",
    "overlong-nul": b"\xc0\x80",
    "overlong-2": b"\xc1\xbf",
    "overlong-3": b"\xe0\x80\x80",
    "overlong-4": b"\xf0\x80\x80\x80",
    "low-surrogate": b"\xed\xa0\x80",
    "high-surrogate": b"\xed\xbf\xbf",
    "over-10ffff": b"\xf4\x90\x80\x80",
    "over-13ffff": b"\xf5\x80\x80\x80",
    "five-bytes": b"\xf8\x88\x80\x80\x80",
    "ff": b"\xff",
    "broken-sequence": b"\xe2\x28\xa1",
    "behind-greek": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
    "cut-2": b"\xc3",
    "cut-3": b"\xe2\x82",
    "cut-4": b"\xf0\x9f\x98",
    "cut-behind-text": b"text\xe2\x82",
}
CUT = [name for name in BAD_UTF8 if name.startswith("cut")]


def bad_text() -> Iterator[FrameCase]:
    section = RFC + "8.1"
    for name, data in BAD_UTF8.items():
        yield from both(f"utf8-{name}", section, 1007, text(data))
        yield from both(f"utf8-{name}-over-fragments", section, 1007, text(data[:1], fin=False), continuation(data[1:]))
        if name not in CUT:
            # at once: the end of the message is no excuse to wait
            yield from both(
                f"utf8-{name}-amid-fragments",
                section,
                1007,
                *(text(b"", fin=False), continuation(data, fin=False), ping(), continuation(b"")),
            )
    yield from both("utf8-cut-by-the-last-fragment", section, 1007, text(b"ab\xe2", fin=False), continuation(b"\x82"))
    yield from both("utf8-cut-by-the-next-character", section, 1007, text(b"\xe2\x82", fin=False), continuation(b"a"))
    for role in Role:
        # a frame that says 100 bytes, of which three come: what is wrong already is told already (Autobahn 6.4)
        whole = wire(role, text(b"a\xed\xa0" + bytes(97)))
        yield FrameCase(f"utf8-in-half-a-frame-{role.name.lower()}", whole[:-97], role, 1007, section)


# -- headers -----------------------------------------------------------------------


def bad_headers() -> Iterator[FrameCase]:
    section = RFC + "5.2"
    for rsv, name in ((0x40, "rsv1"), (0x20, "rsv2"), (0x10, "rsv3"), (0x70, "all-rsv")):
        yield from both(f"{name}-text", section, 1002, Frame(0x81 | rsv, b"x"))
        yield from both(f"{name}-binary", section, 1002, Frame(0x82 | rsv, b"x"))
        for opcode, kind in ((0x88, "close"), (0x89, "ping"), (0x8A, "pong")):
            yield from both(f"{name}-{kind}", section, 1002, Frame(opcode | rsv))
    yield from both("rsv1-continuation", section, 1002, text("a", fin=False), Frame(0x40, b"b"))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield from both(f"opcode-{opcode}", section, 1002, Frame(0x80 | opcode))
    for opcode in (3, 7, 11, 15):
        yield from both(f"opcode-{opcode}-not-final", section, 1002, Frame(opcode))
    yield from bad_lengths()
    for opcode, kind in (
        *((0x81, "text"), (0x01, "first-fragment"), (0x82, "binary")),
        *((0x88, "close"), (0x89, "ping"), (0x8A, "pong")),
    ):
        frame = Frame(opcode, b"\x03\xe8")
        for role, name in ((Role.SERVER, "unmasked"), (Role.CLIENT, "masked")):
            other = wire(Role(1 - role), frame)
            yield FrameCase(f"{name}-{kind}-{role.name.lower()}", other, role, 1002, RFC + "5.1")


def bad_lengths() -> Iterator[FrameCase]:
    kinds = ((0x81, "text"), (0x02, "first-fragment"), (0x89, "ping"), (0x88, "close"))
    for role in Role:
        mask, key = (0x80, MASKING_KEY) if role is Role.SERVER else (0, b"")

        def header(first: int, length: int, size: int, mask: int = mask, key: bytes = key) -> bytes:
            return bytes([first, mask | {2: 126, 8: 127}[size]]) + length.to_bytes(size, "big") + key

        for first, kind in kinds:
            # "the minimal number of bytes MUST be used", "the most significant bit MUST be 0"
            for size, length in (*((2, n) for n in (0, 5, 125)), *((8, n) for n in (0, 5, 126, 2**16 - 1))):
                name = f"length-{length}-in-{size}-bytes-{kind}-{role.name.lower()}"
                yield FrameCase(name, header(first, length, size), role, 1002, RFC + "5.2")
            for length, word in ((2**63, "2^63"), (2**63 + 5, "2^63+5"), (2**64 - 1, "2^64-1")):
                name = f"length-{word}-{kind}-{role.name.lower()}"
                yield FrameCase(name, header(first, length, 8), role, 1002, RFC + "5.2")


# -- control frames and fragments --------------------------------------------------

#: Codes that must not stand in a Close frame (7.4.1, 7.4.2), at the edges of what may.
BAD_CLOSE_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 2**16 - 1)
GOOD_CLOSE_CODES = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)


def bad_control_frames() -> Iterator[FrameCase]:
    for opcode, kind in ((8, "close"), (9, "ping"), (10, "pong")):
        yield from both(f"fragmented-{kind}", RFC + "5.5", 1002, Frame(opcode))
        yield from both(f"{kind}-of-126-bytes", RFC + "5.5", 1002, Frame(0x80 | opcode, b"\x03\xe8" + bytes(124)))
    yield from both("ping-of-65536-bytes", RFC + "5.5", 1002, ping(bytes(65536)))
    yield from both("close-with-half-a-code", RFC + "5.5.1", 1002, Frame(0x88, b"\x03"))
    for code in BAD_CLOSE_CODES:
        yield from both(f"close-{code}", RFC + "7.4", 1002, close(code))
    for name, data in (("ff", b"\xff"), ("cut", b"\xe2\x82"), ("surrogate", b"bye\xed\xa0\x80")):
        yield from both(f"close-reason-{name}", RFC + "5.5.1", 1007, Frame(0x88, b"\x03\xe8" + data))


def bad_fragments() -> Iterator[FrameCase]:
    section = RFC + "5.4"
    yield from both("continuation-of-nothing", section, 1002, continuation(b"x"))
    yield from both("continuation-of-nothing-not-final", section, 1002, continuation(b"x", fin=False))
    yield from both("empty-continuation-of-nothing", section, 1002, continuation(b"", fin=False))
    yield from both(
        "continuation-behind-a-message", section, 1002, text("a"), continuation("b"), messages=("a",)
    )
    yield from both(
        *("continuation-behind-fragments", section, 1002),
        *(text("a", fin=False), continuation("b"), continuation("c")),
        messages=("ab",),
    )
    yield from both("text-amid-fragments", section, 1002, text("a", fin=False), text("b"))
    yield from both("text-behind-an-empty-fragment", section, 1002, text("", fin=False), text(""))
    yield from both("fragment-amid-fragments", section, 1002, binary(b"", fin=False), binary(b"", fin=False))


# -- limits and compression --------------------------------------------------------

MIB = 2**20


def too_much() -> Iterator[FrameCase]:
    """RFC 6455 7.4.1, 10.4: judged from the header alone, so no case is long."""
    section = RFC + "10.4"
    for role in Role:
        side = role.name.lower()
        mask, key = (0x80, MASKING_KEY) if role is Role.SERVER else (0, b"")

        def header(first: int, length: int, mask: int = mask, key: bytes = key) -> bytes:
            return bytes([first, mask | 127]) + length.to_bytes(8, "big") + key

        for length, word in ((MIB + 1, "limit+1"), (2**31, "2^31"), (2**32, "2^32"), (2**63 - 1, "2^63-1")):
            for first, kind in ((0x81, "text"), (0x02, "first-fragment")):
                yield FrameCase(f"size-{word}-{kind}-{side}", header(first, length), role, 1009, section)
        start = wire(role, binary(b"a", fin=False))
        yield FrameCase(f"size-of-fragments-limit+1-{side}", start + header(0x80, MIB), role, 1009, section)
        yield FrameCase(f"size-of-fragments-wraps-{side}", start + header(0x80, 2**63 - 1), role, 1009, section)
    many = [text("", fin=False), *[continuation("", fin=False)] * 4096]
    yield from both("4097-empty-fragments", section, 1009, *many)


def bad_compression() -> Iterator[FrameCase]:
    section = DEFLATE + "6"
    hello = Frame(0xC1, pack(b"Hello"))
    for opcode, kind in ((0xC8, "close"), (0xC9, "ping"), (0xCA, "pong")):
        frames = (hello, Frame(opcode, b"" if kind == "close" else pack(b"x")))
        yield from both(f"compressed-{kind}", section, 1002, *frames, deflate=True, messages=("Hello",))
    half = pack(b"Hello")
    yield from both(
        *("rsv1-on-a-compressed-continuation", section, 1002),
        *(Frame(0x41, half[:3]), Frame(0xC0, half[3:])),
        deflate=True,
    )
    yield from both("rsv1-continuation-of-nothing", section, 1002, Frame(0xC0, b"\x00"), deflate=True)
    for rsv, name in ((0xE1, "rsv2"), (0xD1, "rsv3")):
        yield from both(f"{name}-on-a-compressed-message", section, 1002, Frame(rsv, b"\x00"), deflate=True)
    section = DEFLATE + "7.2.2"
    # the RFC names no code for what cannot be inflated
    yield from both("no-deflate", section, 1002, hello, Frame(0xC2, b"\xff" * 4), deflate=True, messages=("Hello",))
    yield from both("deflate-that-ends-in-a-block", section, 1002, Frame(0xC1, half[:2]), deflate=True)
    for name in ("ff", "low-surrogate", "cut-3"):
        yield from both(f"compressed-utf8-{name}", RFC + "8.1", 1007, Frame(0xC1, pack(BAD_UTF8[name])), deflate=True)
    bomb = pack(bytes(4 * MIB))
    section = RFC + "10.4"
    yield from both("bomb", section, 1009, Frame(0xC2, bomb), deflate=True)
    yield from both("bomb-of-limit+1", section, 1009, Frame(0xC2, pack(bytes(MIB + 1))), deflate=True)
    pieces = [bomb[i : i + 1000] for i in range(0, len(bomb), 1000)]
    yield from both(
        *("bomb-over-fragments", section, 1009),
        *(Frame(0x42, pieces[0]), *[Frame(0x00, piece) for piece in pieces[1:]]),
        deflate=True,
    )


# -- what is allowed ---------------------------------------------------------------


def legal() -> Iterator[FrameCase]:
    def fine(name: str, section: str, *frames: Frame, messages: tuple[str | bytes, ...] = ()) -> Iterator[FrameCase]:
        return both(name, RFC + section, None, *frames, messages=messages)

    yield from fine("empty-text", "5.2", text(""), messages=("",))
    yield from fine("empty-binary", "5.2", binary(b""), messages=(b"",))
    yield from fine("binary-that-is-no-utf8", "5.6", binary(b"\x00\xff"), messages=(b"\x00\xff",))
    yield from fine("greek-text", "5.6", text("κόσμε"), messages=("κόσμε",))
    yield from fine("noncharacters", "5.6", text("\ufffe\U0010ffff\x00"), messages=("\ufffe\U0010ffff\x00",))
    for size in (125, 126, 127, 65535, 65536):
        yield from fine(f"binary-of-{size}-bytes", "5.2", binary(bytes(size)), messages=(bytes(size),))
    yield from fine("empty-first-fragment", "5.4", text("", fin=False), continuation(""), messages=("",))
    yield from fine(
        *("empty-fragments", "5.4"),
        *(binary(b"a", fin=False), continuation(b"", fin=False), continuation(b"b", fin=False), continuation(b"")),
        messages=(b"ab",),
    )
    yield from fine(
        *("nothing-but-the-last-fragment", "5.4"),
        *(binary(b"", fin=False), continuation(b"", fin=False), continuation(b"x")),
        messages=(b"x",),
    )
    yield from fine(
        *("character-over-three-fragments", "5.6"),
        *(text(b"\xe2", fin=False), continuation(b"\x82", fin=False), continuation(b"\xac")),
        messages=("€",),
    )
    yield from fine(
        *("character-around-an-empty-fragment", "5.6"),
        *(text(b"\xf0\x9f", fin=False), continuation(b"", fin=False), continuation(b"\x98\x80")),
        messages=("\U0001f600",),
    )
    yield from fine("empty-ping", "5.5.2", ping())
    yield from fine("ping-of-125-bytes", "5.5.2", ping(bytes(range(125))))
    yield from fine("unsolicited-pong", "5.5.3", pong())
    yield from fine(
        "ping-amid-fragments", "5.4", text("a", fin=False), ping(b"1"), continuation("b"), messages=("ab",)
    )
    yield from fine(
        *("control-frames-amid-fragments", "5.4"),
        *(binary(b"", fin=False), pong(b"1"), continuation(b"a", fin=False), ping(b"2"), continuation(b"b"), text("c")),
        messages=(b"ab", "c"),
    )
    yield from fine(
        *("ping-amid-a-character", "5.4"),
        *(text(b"\xc3", fin=False), ping(b"\xff"), continuation(b"\xa9")),
        messages=("é",),
    )
    yield from fine("three-messages", "5.2", text("a"), binary(b"b"), text("c"), messages=("a", b"b", "c"))
    yield from legal_closes()
    yield from legal_compression()


def legal_closes() -> Iterator[FrameCase]:
    hello, behind = text("Hello"), (text("Hello"), ping(), Frame(0x83))  # 5.5.1: what follows means nothing
    for code in GOOD_CLOSE_CODES:
        yield from both(f"close-{code}", RFC + "7.4", code, hello, close(code), *behind, messages=("Hello",))
    for name, frame in (
        ("without-code", close(None)),
        ("with-a-reason", close(1001, "bye")),
        ("with-123-bytes-of-reason", close(1000, "x" * 123)),
        ("with-61-characters-of-two-bytes", close(4000, "é" * 61)),
    ):
        code = int.from_bytes(frame.payload[:2], "big") or 1005
        yield from both(f"close-{name}", RFC + "5.5.1", code, frame, *behind)
    yield from both("close-amid-fragments", RFC + "5.4", 1000, text("a", fin=False), close())


def legal_compression() -> Iterator[FrameCase]:
    """The examples of RFC 7692 7.2.3."""

    def fine(
        name: str, section: str, *frames: tuple[int, str], messages: tuple[str | bytes, ...]
    ) -> Iterator[FrameCase]:
        unpacked = [Frame(first, bytes.fromhex(payload)) for first, payload in frames]
        return both(f"compressed-{name}", DEFLATE + section, None, *unpacked, deflate=True, messages=messages)

    hello = (0xC1, "f248cdc9c90700")
    once, twice = ("Hello",), ("Hello", "Hello")
    yield from fine("hello", "7.2.3.1", hello, messages=once)
    yield from fine("fragments", "7.2.3.1", (0x41, "f248cd"), (0x80, "c9c90700"), messages=once)
    yield from fine("sharing-the-window", "7.2.3.2", hello, (0xC1, "f200110000"), messages=twice)
    yield from fine("stored-block", "7.2.3.3", (0xC1, "000500faff48656c6c6f00"), messages=once)
    yield from fine("bfinal", "7.2.3.4", (0xC1, "f348cdc9c9070000"), messages=once)
    yield from fine("behind-bfinal", "7.2.3.4", (0xC1, "f348cdc9c9070000"), hello, messages=twice)
    yield from fine("two-blocks", "7.2.3.5", (0xC1, "f24805000000ffffcac9c90700"), messages=once)
    yield from fine("empty", "7.2.3.6", (0xC1, "00"), messages=("",))
    yield from fine("empty-then-hello", "7.2.3.6", (0xC2, "00"), hello, messages=(b"", "Hello"))
    yield from fine("empty-fragments", "6", (0x41, ""), (0x00, ""), (0x80, hello[1]), messages=once)
    yield from fine("empty-last-fragment", "6", (0x41, hello[1]), (0x80, ""), messages=once)
    yield from fine("plain-ones-between", "6", (0x81, "61"), hello, (0x81, "62"), messages=("a", "Hello", "b"))
    yield from fine("ping-between", "6.1", (0x41, "f248cd"), (0x89, "70"), (0x80, "c9c90700"), messages=once)


#: Each must end with a Close frame of the case's code.
HOSTILE_FRAMES = (
    *bad_headers(),
    *bad_control_frames(),
    *bad_fragments(),
    *bad_text(),
    *too_much(),
    *bad_compression(),
)
#: Each must be taken; those with a code end with a Close frame of the peer, which is answered in kind.
LEGAL_FRAMES = tuple(legal())
