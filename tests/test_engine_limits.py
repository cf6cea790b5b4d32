"""Limits: each exact to the byte, checked before memory is spent, in both roles and every delivery mode."""

from __future__ import annotations

import gc
import time
import tracemalloc
import zlib
from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, feed_every_way, join_fragments, parse_frames
from naive import gist, naive

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]
DELIVERIES = ["message", "frame", "chunk"]
MIB = 2**20


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def connect(ws: ModuleType, role: int = CLIENT, *, compressed: bool = False, **arguments: Any) -> Any:
    limits = {name: arguments.pop(name) for name in list(arguments) if name.startswith("max_")}
    if compressed:
        arguments["deflate"] = ws.PerMessageDeflate(ws.Role(role), ws.DeflateParameters())
    return ws.Connection(ws.Role(role), limits=ws.Limits(**limits), **arguments)


def feed(conn: Any, wire: bytes) -> list[Any]:
    conn.receive_data(wire)
    return gist(conn.events())


def pack(data: bytes) -> bytes:
    """One compressed message (RFC 7692 7.2.1), no context kept."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def peak(function: Any) -> int:
    """Bytes allocated at most while it runs."""
    gc.collect()
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


TOO_BIG = [("Closed", 1009, "error")]

# -- size of a message ------------------------------------------------------------

SIZES = [
    # limits, frames, passes
    ({"max_message_size": 5}, [(0x81, b"abcde")], True),
    ({"max_message_size": 5}, [(0x81, b"abcdef")], False),
    ({"max_message_size": 5}, [(0x02, b"abc"), (0x00, b""), (0x80, b"de")], True),
    ({"max_message_size": 5}, [(0x02, b"abc"), (0x89, b"pinging"), (0x80, b"def")], False),
    ({"max_message_size": 5}, [(0x02, b"abcde"), (0x00, b""), (0x80, b"")], True),
    ({"max_message_size": 5}, [(0x02, b"abcde"), (0x80, b"f")], False),
    ({"max_message_size": 5}, [(0x82, b"abcde"), (0x82, b"fghij"), (0x02, b"k"), (0x80, b"lmno")], True),
    ({"max_message_size": 0}, [(0x81, b"")], True),  # 0 bytes left is not unlimited
    ({"max_message_size": 0}, [(0x01, b""), (0x00, b""), (0x80, b"")], True),
    ({"max_message_size": 0}, [(0x82, b"a")], False),
    ({"max_message_size": 0}, [(0x02, b""), (0x80, b"a")], False),
    ({"max_message_size": None}, [(0x82, bytes(70000))], True),
    ({"max_fragment_size": 3}, [(0x82, b"abc")], True),
    ({"max_fragment_size": 3}, [(0x82, b"abcd")], False),
    ({"max_fragment_size": 3}, [(0x02, b"abc"), (0x00, b"def"), (0x80, b"ghi")], True),
    ({"max_fragment_size": 3}, [(0x02, b"abc"), (0x80, b"defg")], False),
    ({"max_fragment_size": 3, "max_message_size": 5}, [(0x02, b"abc"), (0x80, b"de")], True),
    ({"max_fragment_size": 3, "max_message_size": 5}, [(0x02, b"abc"), (0x80, b"def")], False),
    ({"max_fragment_size": 9, "max_message_size": 5}, [(0x82, b"abcdef")], False),
    ({"max_fragment_size": 0}, [(0x01, b""), (0x80, b"")], True),
    ({"max_fragment_size": 0}, [(0x81, b"a")], False),
    # fragments, the empty ones too
    ({"max_fragments": 2}, [(0x01, b"a"), (0x80, b"b")], True),
    ({"max_fragments": 2}, [(0x01, b"a"), (0x00, b"b"), (0x80, b"c")], False),
    ({"max_fragments": 2}, [(0x01, b""), (0x00, b""), (0x00, b"")], False),
    ({"max_fragments": 2}, [(0x01, b""), (0x89, b""), (0x89, b""), (0x80, b""), (0x01, b""), (0x80, b"")], True),
    ({"max_fragments": 1}, [(0x81, b"a"), (0x82, b"b")], True),
    ({"max_fragments": 1}, [(0x01, b"a"), (0x80, b"")], False),
    ({"max_fragments": 0}, [(0x81, b"")], False),
    ({"max_fragments": None}, [(0x01, b"a"), *[(0x00, b"")] * 10, (0x80, b"b")], True),
]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("case", range(len(SIZES)))
def test_exact_limits(ws: ModuleType, role: int, delivery: str, case: int) -> None:
    limits, frames, passes = SIZES[case]
    wire = to(role, *frames)
    names = {"max_message_size": "max_size", "max_fragment_size": "max_frame", "max_fragments": "max_fragments"}
    infinite = {names[name]: float("inf") if value is None else value for name, value in limits.items()}
    expected = naive(wire, server=role == SERVER, **infinite)
    assert (expected.events[-1:] != TOO_BIG) is passes
    settings = {"limits": ws.Limits(**limits), "delivery": delivery}
    if len(wire) < 1000:
        ways = feed_every_way(
            lambda **more: ws.Connection(ws.Role(role), **settings, **more), wire, trailing=b"\x89" if passes else b"xx"
        )
    else:
        conn = connect(ws, role, delivery=delivery, **limits)
        conn.receive_data(wire)
        ways = [(conn.events(), b"".join(conn.data_to_send()))]
    for events, output in ways:
        if delivery == "message":
            assert gist(events) == expected.events
        else:
            told = join_fragments(events)
            data = b"".join(e[2].encode() if type(e[2]) is str else e[2] for e in told if e[0] == "Fragment")
            whole = b"".join(payload for first, payload in frames if first <= 0x82)
            assert whole.startswith(data)
            assert data == whole or not passes
            assert (told[-1][:2] == ("Closed", 1009)) is not passes
        if not passes:
            assert parse_frames(output)[-1][2][:2] == b"\x03\xf1"


def test_errors_say_by_how_much(ws: ModuleType) -> None:
    conn = connect(ws, max_message_size=5)
    feed(conn, to(CLIENT, (0x02, b"abc"), (0x80, b"defg")))
    error = conn.close_error
    assert type(error) is ws.PayloadTooBig
    assert (error.size, error.max_size, error.current_size, error.code) == (4, 5, 3, 1009)
    conn = connect(ws, max_fragment_size=3)
    feed(conn, to(CLIENT, (0x82, b"abcd")))
    assert (conn.close_error.size, conn.close_error.max_size, conn.close_error.current_size) == (4, 3, 0)
    conn = connect(ws, max_fragments=1)
    feed(conn, to(CLIENT, (0x01, b""), (0x80, b"")))
    assert type(conn.close_error) is ws.TooManyFragments
    conn = connect(ws, compressed=True, max_message_size=5)
    feed(conn, to(CLIENT, (0xC2, pack(b"abcdefgh"))))
    assert (conn.close_error.size, conn.close_error.max_size) == (None, 5)


@pytest.mark.parametrize("limit", [2**31, 2**32 + 5, 2**62, 2**63 - 1, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("name", ["max_message_size", "max_fragment_size", "max_fragments", "max_read_ahead"])
def test_huge_limits(ws: ModuleType, name: str, limit: int) -> None:
    """sys.maxsize and more are what people write for "no limit"; both builds must take them alike."""
    both = {"max_message_size": limit, "max_fragment_size": limit} if "size" in name else {name: limit}
    conn = connect(ws, compressed=True, **both)
    assert feed(conn, to(CLIENT, (0x82, b"abc"), (0xC2, pack(b"x" * 500)))) == [
        ("Message", b"abc", 2),
        ("Message", b"x" * 500, 2),
    ]
    conn.pause()
    conn.receive_data(to(CLIENT, (0x82, b"abc")))
    assert conn.read_ahead_full is False


# -- from the header alone ------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("length", [MIB + 1, 2**31, 2**32, 2**62, 2**63 - 1])
@pytest.mark.parametrize("in_place", [False, True])
def test_too_big_is_told_from_the_header_alone(ws: ModuleType, role: int, length: int, in_place: bool) -> None:
    """Nothing is allocated from an announced length (reliability 1.2)."""
    header = bytes([0x82, 0x7F | (0x80 if role == SERVER else 0)]) + length.to_bytes(8, "big")
    header += MASKING_KEY if role == SERVER else b""
    conn = connect(ws, role)
    told: list[Any] = []

    def run() -> None:
        if in_place:
            conn.get_buffer()[: len(header)] = header
            conn.buffer_updated(len(header))
        else:
            conn.receive_data(header)
        told.extend(conn.events())

    assert peak(run) < 100_000
    assert gist(told) == TOO_BIG
    assert conn.close_error.size == length


@pytest.mark.parametrize("length", [2**31, 2**40, 2**62])
def test_without_a_limit_memory_follows_what_arrives(ws: ModuleType, length: int) -> None:
    header = b"\x82\x7f" + length.to_bytes(8, "big")
    conn = connect(ws, max_message_size=None)

    def run() -> None:
        conn.receive_data(header + b"abc")
        assert conn.events() == []
        for _ in range(3):
            view = conn.get_buffer()
            assert len(view) <= 2 * 65536
            conn.buffer_updated(10)
            assert conn.events() == []

    assert peak(run) < 600_000


def test_a_long_message_costs_little_more_than_its_bytes(ws: ModuleType) -> None:
    size = 8 * MIB
    conn = connect(ws, max_message_size=size)
    piece = bytes(65536)

    def run() -> None:
        conn.receive_data(b"\x82\x7f" + size.to_bytes(8, "big"))
        for _ in range(size // len(piece)):
            conn.receive_data(piece)
            event = conn.next_event()
        assert len(event.data) == size

    # Growing by doubling: the old and the new memory for a moment, then the message's own copy in the pure build.
    assert peak(run) < 3.2 * size


@pytest.mark.parametrize("payload", [b"", b"a"])
def test_tiny_fragments_cost_their_bytes(ws: ModuleType, payload: bytes) -> None:
    """No object a fragment (ws CVE-2026-48779): bytes + 64 KiB at most."""
    conn = connect(ws, max_fragments=None)
    wire = to(CLIENT, (0x02, b"")) + encode_frame(0x00, payload) * 50_000

    def run() -> None:
        for i in range(0, len(wire), 1000):
            conn.receive_data(wire[i : i + 1000])
            assert conn.next_event() is None

    assert peak(run) < 50_000 * len(payload) * 2.3 + 65536


def test_fragments_of_the_default(ws: ModuleType) -> None:
    for count, passes in ((4096, True), (4097, False)):
        conn = connect(ws)
        wire = encode_frame(0x02) + encode_frame(0x00) * (count - 2)
        assert feed(conn, wire) == []
        assert feed(conn, encode_frame(0x80)) == ([("Message", b"", 2)] if passes else TOO_BIG)


def test_pieces_cost_no_quadratic_time(ws: ModuleType) -> None:
    """A megabyte in frames of one byte, read in pieces of one byte's frame: linear."""

    def run(count: int) -> float:
        conn = connect(ws, SERVER, max_fragments=None)
        start = time.process_time()
        conn.receive_data(to(SERVER, (0x02, b"")))
        frame = to(SERVER, (0x00, b"a"))
        for _ in range(count):
            conn.receive_data(frame)
            conn.next_event()
        return time.process_time() - start

    one, four = min(run(5000) for _ in range(3)), min(run(20_000) for _ in range(3))
    assert four < 10 * one


# -- decompression -----------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("size", [0, 1, 100, 65536])
def test_the_limit_is_on_the_inflated_message(ws: ModuleType, role: int, delivery: str, size: int) -> None:
    """A message of exactly the limit passes, one more byte does not (reliability 1.3)."""
    for extra in (0, 1):
        packed = pack(bytes(size + extra))
        wire = to(role, (0xC2, packed))
        for step in {len(wire), 1, 7} if size < 1000 else {len(wire), 13}:
            conn = connect(ws, role, compressed=True, delivery=delivery, max_message_size=size)
            told: list[Any] = []
            for i in range(0, len(wire), step):
                told += feed(conn, wire[i : i + step])
            data = b"".join(event[1 if event[0] == "Message" else 2] for event in told if event[0] != "Closed")
            if extra:
                assert told[-1:] == TOO_BIG
                assert len(data) <= size
            else:
                assert data == bytes(size)
                assert all(event[0] != "Closed" for event in told)


def test_the_limit_counts_all_compressed_fragments(ws: ModuleType) -> None:
    packed = pack(b"abcdefghij")
    for size, passes in ((10, True), (9, False)):
        for cut in range(len(packed) + 1):
            conn = connect(ws, compressed=True, max_message_size=size)
            told = feed(conn, to(CLIENT, (0x42, packed[:cut]), (0x00, b""), (0x80, packed[cut:])))
            assert told == ([("Message", b"abcdefghij", 2)] if passes else TOO_BIG)


def test_the_limit_on_compressed_fragments(ws: ModuleType) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = deflater.compress(b"abcde") + deflater.flush(zlib.Z_SYNC_FLUSH)
    two = (deflater.compress(b"fghij") + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for limit, passes in ((5, True), (4, False)):
        conn = connect(ws, compressed=True, max_fragment_size=limit)
        told = feed(conn, to(CLIENT, (0x42, one), (0x80, two)))
        assert told == ([("Message", b"abcdefghij", 2)] if passes else TOO_BIG)


@pytest.mark.parametrize("fragments", [1, 5])
def test_a_bomb(ws: ModuleType, fragments: int) -> None:
    """256 MiB in 260 KiB: 1009, at limit + 8 MiB at most."""
    bomb = pack(bytes(256 * MIB))
    size = len(bomb) // fragments + 1
    pieces = [bomb[i : i + size] for i in range(0, len(bomb), size)]
    frames = [
        ((0x42 if i == 0 else 0x00) | (0x80 if i == len(pieces) - 1 else 0), piece) for i, piece in enumerate(pieces)
    ]
    wire = to(CLIENT, *frames)
    conn = connect(ws, compressed=True)
    told: list[Any] = []

    def run() -> None:
        for i in range(0, len(wire), 65536):
            conn.receive_data(wire[i : i + 65536])
            told.extend(conn.events())

    assert peak(run) < 9 * MIB
    assert gist(told) == TOO_BIG


def test_many_legal_bombs_inflate_on_demand(ws: ModuleType) -> None:
    """One read holds 60 messages that inflate to 1 MiB each: whoever takes one has one (reliability 1.3)."""
    wire = to(CLIENT, (0xC2, pack(bytes(MIB)))) * 60
    conn = connect(ws, compressed=True)
    conn.receive_data(wire)

    def take() -> None:
        for _ in range(60):
            assert len(conn.next_event().data) == MIB
        assert conn.next_event() is None

    assert peak(take) < 5 * MIB


def test_a_compressed_frame_may_be_longer_than_its_data(ws: ModuleType) -> None:
    """Stored blocks lengthen what cannot be compressed; the wire's length alone proves nothing."""
    deflater = zlib.compressobj(0, zlib.DEFLATED, -15)
    data = bytes(range(256)) * 4
    stored = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(stored) > 1024
    conn = connect(ws, compressed=True, max_message_size=1024)
    assert feed(conn, to(CLIENT, (0xC2, stored))) == [("Message", data, 2)]


def test_a_compressed_frame_far_over_the_limit_is_refused_at_once(ws: ModuleType) -> None:
    conn = connect(ws, compressed=True, max_message_size=1000)
    assert feed(conn, b"\xc2\x7f" + (2**40).to_bytes(8, "big")) == TOO_BIG


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_message_size", "max_fragment_size", "max_fragments", "max_read_ahead"])
def test_negative_limits(ws: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ws.Limits(**{name: -1})
