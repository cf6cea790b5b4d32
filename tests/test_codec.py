"""The codec of both builds against each other, against Python's own codecs and against loops over single bytes."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from conftest import PURE, load
from helpers import encode_frame
from naive import utf8_prefix

KEYS = [-1, 0, 1, 0x01020304, 0x80000000, 0xFFFFFFFF, 0xFF, 0xFF000000]
SIZES = [*range(34), 63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 1023, 4096, 65537]


@pytest.fixture(scope="session")
def codec(ws: ModuleType) -> Any:
    return ws._codec


def masked(data: bytes, key: int) -> bytes:
    """RFC 6455 5.3, octet by octet."""
    if key < 0:
        return data
    octets = key.to_bytes(4, "little")
    return bytes(data[i] ^ octets[i % 4] for i in range(len(data)))


def random_bytes(n: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n)


# -- headers -------------------------------------------------------------------

HEADERS = [
    # (bytes, size of the header, first, second, length, key): RFC 6455 5.2
    (b"\x81\x00", (2, 0x81, 0x00, 0, -1)),
    (b"\x81\x05", (2, 0x81, 0x05, 5, -1)),
    (b"\x01\x7d", (2, 0x01, 0x7D, 125, -1)),
    (b"\x82\x7e\x00\x7e", (4, 0x82, 0x7E, 126, -1)),
    (b"\x82\x7e\x01\x00", (4, 0x82, 0x7E, 256, -1)),  # 5.7: 256 bytes, unmasked
    (b"\x82\x7e\xff\xff", (4, 0x82, 0x7E, 65535, -1)),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", (10, 0x82, 0x7F, 65536, -1)),  # 5.7: 64 KiB, unmasked
    (b"\x82\x7f\x7f" + b"\xff" * 7, (10, 0x82, 0x7F, 2**63 - 1, -1)),
    (b"\x81\x85\x37\xfa\x21\x3d", (6, 0x81, 0x85, 5, 0x3D21FA37)),  # 5.7: masked "Hello"
    (b"\xff\xfe\x00\x7e\xff\xff\xff\xff", (8, 0xFF, 0xFE, 126, 0xFFFFFFFF)),
    (b"\x00\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x00\x00\x80", (14, 0x00, 0xFF, 65536, 0x80000001)),
    # not minimal, or the top bit set: length -1
    (b"\x82\x7e\x00\x00", (4, 0x82, 0x7E, -1, -1)),
    (b"\x82\x7e\x00\x7d", (4, 0x82, 0x7E, -1, -1)),
    (b"\x82\x7f" + bytes(8), (10, 0x82, 0x7F, -1, -1)),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", (10, 0x82, 0x7F, -1, -1)),
    (b"\x82\x7f\x80" + bytes(7), (10, 0x82, 0x7F, -1, -1)),
    (b"\x82\x7f" + b"\xff" * 8, (10, 0x82, 0x7F, -1, -1)),
    (b"\x82\xfe\x00\x05\x00\x00\x00\x00", (8, 0x82, 0xFE, -1, 0)),
]


@pytest.mark.parametrize(("wire", "expected"), HEADERS, ids=[wire.hex() for wire, _ in HEADERS])
def test_read_header(codec: Any, wire: bytes, expected: tuple[int, ...]) -> None:
    for data in (wire, bytearray(wire), b"xyz" + wire + b"more", bytearray(b"xyz" + wire)):
        pos = 0 if data[:3] != b"xyz" else 3
        assert tuple(codec.read_header(data, pos, pos + len(wire))) == expected
        assert tuple(codec.read_header(data, pos, len(data))) == expected
        for cut in range(len(wire)):  # nothing before all of it is there
            assert codec.read_header(data, pos, pos + cut)[0] == 0


@pytest.mark.parametrize(("pos", "end"), [(-1, 2), (0, 5), (3, 1), (5, 7), (-3, -1)])
def test_read_header_outside_the_data(codec: Any, pos: int, end: int) -> None:
    assert tuple(codec.read_header(b"\x81\x00\x81\x00", pos, end)) == (0, 0, 0, 0, -1)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 2**32, 2**63 - 1])
@pytest.mark.parametrize("key", KEYS)
def test_header_round_trip(codec: Any, length: int, key: int) -> None:
    for first in (0x00, 0x81, 0xC2, 0xFF):
        header = codec.frame_header(first, length, key)
        assert type(header) is bytes
        size, read_first, _, read_length, read_key = codec.read_header(header, 0, len(header))
        assert (size, read_first, read_length, read_key) == (len(header), first, length, key)
        if length < 70000:
            mask = None if key < 0 else key.to_bytes(4, "little")
            assert header == encode_frame(first, bytes(length), mask=mask)[: len(header)]


# -- masks ---------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_to_bytes(codec: Any, key: int) -> None:
    data = random_bytes(65600)
    for n in SIZES:
        for pos in (0, 1, 3, 7, 13):
            expected = masked(data[pos : pos + n], key)
            for kind in (bytes, bytearray):
                result = codec.to_bytes(kind(data), pos, n, key) if n < 4097 else codec.to_bytes(data, pos, n, key)
                assert type(result) is bytes
                assert result == expected


@pytest.mark.parametrize("key", KEYS)
def test_rotate_key(codec: Any, key: int) -> None:
    data = random_bytes(40)
    for offset in (*range(20), 4096, 65537, 2**40 + 3):
        rotated = codec.rotate_key(key, offset)
        start = offset % 4
        assert masked(data, key)[start:] == masked(data[start:], rotated)


@pytest.mark.parametrize(
    "span", [(-1, 1), (0, -1), (0, 11), (11, 0), (10, 1), (5, 6), (2**62, 2**62), (1, 2**63 - 1), (2**63 - 1, 1)]
)
def test_spans_outside_the_data(codec: Any, span: tuple[int, int]) -> None:
    for function in (codec.to_bytes, codec.to_str):
        with pytest.raises(ValueError, match="span"):
            function(b"0123456789", *span, -1)
    with pytest.raises(ValueError, match="span"):
        codec.Accumulator().write(b"0123456789", *span, -1)


# -- UTF-8 ---------------------------------------------------------------------


def interesting_utf8() -> list[bytes]:
    """All of one and two bytes; longer ones from the borders of Unicode's table 3-7."""
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE]
    edges += [0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    cases = [bytes([a]) for a in range(256)] + [bytes([a, b]) for a in range(256) for b in range(256)]
    cases += [bytes(case) for n in (3, 4) for case in itertools.product(edges, repeat=n) if case[0] >= 0xC0]
    return cases


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_utf8_of_every_kind(codec: Any) -> None:
    for case in interesting_utf8():
        valid = is_utf8(case)
        assert codec.utf8_valid(case) is valid, case
        assert codec.to_str(case, 0, len(case), -1) == (case.decode() if valid else None)


@pytest.mark.parametrize("padding", [0, 1, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130])
def test_utf8_at_every_place(codec: Any, padding: int) -> None:
    samples = [b"\xc3\xa9", b"\xe2\x82\xac", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"]
    samples += [b"\xe2\x82", b"\xf0\x9f\x98", b"\xc3", b"\x80", b"\xff", b"\xef\xbf\xbf", b"\x00", b"\xf8\x88\x80\x80"]
    for sample in samples:
        for text in (b"a" * padding + sample, sample + b"a" * padding, b"\xc3\xa9" * padding + sample + b"b" * 40):
            assert codec.utf8_valid(text) is is_utf8(text)
            assert codec.utf8_valid(bytearray(text)) is is_utf8(text)
            for key in (-1, 0x7F3D21FA):
                wire = b"." + masked(text, key)
                assert codec.to_str(wire, 1, len(text), key) == (text.decode() if is_utf8(text) else None)


def test_text_is_exact(codec: Any) -> None:
    for text in ("", "a", "é", "a" * 100, "€" * 100, "\U0010ffff" * 33, "\x00\x7f", "a" * 64 + "ÿ"):
        raw = text.encode()
        result = codec.to_str(raw, 0, len(raw), -1)
        assert type(result) is str
        assert result == text
        assert hash(result) == hash(text)
        assert result.isascii() is text.isascii()


# -- frames --------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_build_frame(codec: Any, key: int) -> None:
    mask = None if key < 0 else key.to_bytes(4, "little")
    for n in (0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 300, 65535, 65536, 65537):
        payload = random_bytes(n)
        expected = encode_frame(0x82, payload, mask=mask)
        for form in (payload, bytearray(payload), memoryview(payload)):
            frame = codec.build_frame(0x82, form, key)
            assert type(frame) is bytes
            assert frame == expected
    for text in ("", "Hello", "é", "€" * 50, "\U0001f600" * 40, "a" * 200):
        assert codec.build_frame(0x81, text, key) == encode_frame(0x81, text.encode(), mask=mask)
    spread = memoryview(bytes(range(200)))[::3]
    assert codec.build_frame(0x82, spread, key) == encode_frame(0x82, bytes(spread), mask=mask)
    square = memoryview(bytes(range(12))).cast("B", (3, 4))
    assert codec.build_frame(0x82, square, key) == encode_frame(0x82, bytes(range(12)), mask=mask)


@pytest.mark.parametrize("payload", [5, None, 1.5, ["a"], object()])
def test_build_frame_of_no_bytes(codec: Any, payload: Any) -> None:
    with pytest.raises(TypeError):
        codec.build_frame(0x82, payload, -1)


def test_build_frame_of_a_lone_surrogate(codec: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        codec.build_frame(0x81, "a\ud800", -1)


# -- accumulator ---------------------------------------------------------------


def test_accumulator_is_a_simple_buffer(codec: Any) -> None:
    """Against a bytearray, through random operations."""
    for seed in range(40):
        rng = random.Random(seed)
        accumulator = codec.Accumulator()
        accumulator.begin(False)
        twin = bytearray()
        for _ in range(30):
            key = rng.choice([-1, rng.getrandbits(32)])
            n = rng.choice([0, 1, 5, 64, 1000, 70000])
            data = rng.randbytes(n + 4)
            what = rng.random()
            if what < 0.5:
                assert accumulator.write(data, 3, n, key) is True
                twin += masked(data[3 : 3 + n], key)
            elif what < 0.9:
                want = max(n, 1)
                view = accumulator.space(want)
                assert 1 <= len(view) <= want
                assert len(view) <= max(65536, len(twin))
                used = rng.randrange(len(view) + 1)
                data = rng.randbytes(used)
                view[:used] = data
                if rng.random() < 0.5:
                    view.release()
                assert accumulator.commit(used, key) is True
                twin += masked(data, key)
            elif what < 0.97:
                result = accumulator.take_bytes()
                assert type(result) is bytes
                assert result == twin
                twin.clear()
            else:
                accumulator.begin(False)
                twin.clear()
            assert accumulator.size == len(twin)
        assert accumulator.take_bytes() == twin
        assert accumulator.size == 0


def test_accumulator_checks_text_at_the_very_byte(codec: Any) -> None:
    for case in [*interesting_utf8()[256::7], b"ab\xe2\x82\xac", b"\xf0\x9f\x98\x80\xed\xbf\xbf"]:
        accumulator = codec.Accumulator()
        accumulator.begin(True)
        for i in range(len(case)):
            good = accumulator.write(case, i, 1, -1)
            assert bool(good) is utf8_prefix(case[: i + 1]), case
            if not good:
                break
        else:
            assert bool(accumulator.complete()) is is_utf8(case)
            if is_utf8(case):
                assert accumulator.take_str() == case.decode()


def test_accumulator_checks_across_a_take(codec: Any) -> None:
    accumulator = codec.Accumulator()
    accumulator.begin(True)
    assert accumulator.write(b"a\xe2\x82", 0, 3, -1)
    assert accumulator.take_bytes() == b"a\xe2\x82"
    assert not accumulator.complete()
    assert accumulator.write(b"\xac", 0, 1, -1)
    assert accumulator.complete()
    assert accumulator.take_bytes() == b"\xac"
    accumulator.begin(True)
    assert accumulator.take_str() == ""


def test_accumulator_leaves_its_memory_to_a_held_view(codec: Any) -> None:
    """As an event loop does that still exports the buffer while it tells how much it wrote."""
    accumulator = codec.Accumulator()
    accumulator.begin(False)
    held = []
    expected = b""
    for i in range(6):
        view = accumulator.space(50000)
        held.append(view[:])
        view[:40000] = bytes([i]) * 40000
        accumulator.commit(40000, -1)
        expected += bytes([i]) * 40000
    result = accumulator.take_bytes()
    assert result == expected
    for view in held:
        if len(view):
            view[:10] = b"overwritte"
    assert result == expected  # bytes never change
    accumulator.write(b"xyz", 0, 3, -1)
    assert accumulator.take_bytes() == b"xyz"


def test_accumulator_commit_outside_its_space(codec: Any) -> None:
    accumulator = codec.Accumulator()
    accumulator.begin(False)
    view = accumulator.space(10)
    assert len(view) == 10
    for n in (11, -1, 2**62):
        with pytest.raises(ValueError, match="span"):
            accumulator.commit(n, -1)
    view[:] = b"0123456789"
    assert accumulator.commit(10, -1)
    assert accumulator.take_bytes() == b"0123456789"


def test_block_does_not_export_what_it_handed_over(ws: ModuleType) -> None:
    if not ws._codec.COMPILED:
        pytest.skip("the compiled build has blocks")
    accumulator = ws._codec.Accumulator()
    view = accumulator.space(10)
    block = view.obj
    view.release()
    accumulator.commit(10, -1)
    accumulator.take_bytes()
    with pytest.raises(BufferError):
        memoryview(block)


# -- masking keys --------------------------------------------------------------


def test_keys_are_unbiased(codec: Any) -> None:
    """RFC 6455 10.3: each bit is set in half of 4096 keys, within five standard deviations; no key comes twice."""
    keys = [codec.new_key() for _ in range(4096)]
    assert all(type(key) is int and 0 <= key < 2**32 for key in keys)
    for bit in range(32):
        assert abs(sum(key >> bit & 1 for key in keys) - 2048) < 160, bit
    for bit in range(32):  # neighbours are independent
        flips = sum((one ^ other) >> bit & 1 for one, other in itertools.pairwise(keys))
        assert abs(flips - 2047) < 160, bit
    assert len(set(keys)) > 4080  # 2 repeats are expected


def test_keys_come_from_no_mersenne_twister(codec: Any) -> None:
    def untemper(y: int) -> int:
        y ^= y >> 18
        y ^= (y << 15) & 0xEFC60000
        x = y
        for _ in range(5):
            x = y ^ ((x << 7) & 0x9D2C5680)
        y = x
        for _ in range(3):
            x = y ^ (x >> 11)
        return x

    def predicts(outputs: list[int]) -> bool:
        twister = random.Random()
        twister.setstate((3, (*map(untemper, outputs[:624]), 624), None))
        return [twister.getrandbits(32) for _ in range(8)] == outputs[624:632]

    twister = random.Random(7)
    assert predicts([twister.getrandbits(32) for _ in range(632)])  # the test would see one
    for order in (1, -1):
        assert not predicts([codec.new_key() for _ in range(632)][::order])


def test_keys_have_full_linear_complexity(codec: Any) -> None:
    """A linear generator (xorshift, LFSR) of n bits shows n; random bits show half the length (Berlekamp-Massey)."""
    bits = [codec.new_key() & 1 for _ in range(1500)]
    c, b = 1, 1
    length, m = 0, -1
    for n in range(len(bits)):
        window = 0
        for i in range(length + 1):
            window |= bits[n - i] << i if n - i >= 0 else 0
        if bin(c & window).count("1") & 1:
            t = c
            c ^= b << (n - m)
            if length <= n // 2:
                length, m, b = n + 1 - length, n, t
    assert 735 <= length <= 765


@pytest.mark.external
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_keys_of_its_own(build: str) -> None:
    program = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from conftest import PURE, load
codec = load({"'wsproto_fast'" if build == "compiled" else "PURE"})._codec
codec.new_key()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, repr([codec.new_key() for _ in range(50)]).encode())
    os._exit(0)
mine = [codec.new_key() for _ in range(50)]
os.wait()
theirs = eval(os.read(read, 65536))
assert len(set(mine) & set(theirs)) == 0, "the child repeats its parent's keys"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# -- both builds ---------------------------------------------------------------


def test_the_twins_agree(ws: ModuleType) -> None:
    one, other = ws._codec, load(PURE)._codec
    assert sorted(one.__all__) == sorted(other.__all__)
    for seed in range(1500):
        rng = random.Random(seed)
        data = rng.randbytes(rng.randrange(40))
        if data and rng.random() < 0.7:
            data = bytes([data[0], rng.choice([126, 127, 254, 255])]) + bytes(rng.randrange(9)) + data
        pos, end = rng.randrange(-1, 20), rng.randrange(-1, 50)
        assert tuple(one.read_header(data, pos, end)) == tuple(other.read_header(data, pos, end))


def test_names_of_levels(ws: ModuleType) -> None:
    level = ws._codec.simd_level()
    assert level in (("avx512", "avx2", "sse2", "neon", "portable") if ws._codec.COMPILED else ("python",))
    if ws._codec.COMPILED:
        with pytest.raises(ValueError, match="no such kernels"):
            ws._codec.use_simd_level("such")
        ws._codec.use_simd_level(level)
