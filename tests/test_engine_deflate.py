"""permessage-deflate inside the engine: the RFC's examples, contexts, prepared messages, errors."""

from __future__ import annotations

import json
import random
import zlib
from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, feed_every_way, join_fragments, parse_frames
from naive import gist, naive

from wsproto_fast.testing import HOSTILE_FRAMES, LEGAL_FRAMES, FrameCase

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]
HELLO = ("Message", "Hello", 1)
TAIL = b"\x00\x00\xff\xff"


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def connect(ws: ModuleType, role: int = CLIENT, *, no_takeover: bool = False, **arguments: Any) -> Any:
    parameters = ws.DeflateParameters(
        server_no_context_takeover=no_takeover,
        client_no_context_takeover=no_takeover,
        server_max_window_bits=arguments.pop("bits", 15),
        client_max_window_bits=15,
    )
    config = arguments.pop("config", ws.DeflateConfig())
    return ws.Connection(ws.Role(role), deflate=ws.PerMessageDeflate(ws.Role(role), parameters, config), **arguments)


def feed(conn: Any, *frames: tuple[int, bytes]) -> list[Any]:
    conn.receive_data(to(conn.role, *frames))
    return gist(conn.events())


COMPRESSED = [case for case in (*LEGAL_FRAMES, *HOSTILE_FRAMES) if case.deflate and len(case.data) < 500]


@pytest.mark.parametrize("case", [case for case in COMPRESSED if case.code is None], ids=str)
def test_examples_of_the_rfc(ws: ModuleType, case: FrameCase) -> None:
    for told, _ in feed_every_way(lambda **more: connect(ws, case.role, **more), case.data):
        assert tuple(event[1] for event in gist(told) if event[0] == "Message") == case.messages
    for delivery in ("frame", "chunk"):
        for told, _ in feed_every_way(
            lambda delivery=delivery, **more: connect(ws, case.role, delivery=delivery, **more), case.data
        ):
            text = "".join(event[2] or "" for event in join_fragments(told) if event[0] == "Fragment" and event[1] == 1)
            assert text == "".join(message for message in case.messages if message)


@pytest.mark.parametrize("case", [case for case in COMPRESSED if case.code is not None], ids=str)
def test_violations(ws: ModuleType, case: FrameCase) -> None:
    hello = to(case.role, (0xC1, bytes.fromhex("f248cdc9c90700")))
    ways = feed_every_way(lambda **more: connect(ws, case.role, **more), hello + case.data, trailing=hello)
    for told, output in ways:
        told = gist(told)
        assert told[0] == HELLO
        assert tuple(event[1] for event in told[1:-1]) == case.messages
        assert told[-1] == ("Closed", case.code, "error")
        assert int.from_bytes(parse_frames(output)[-1][2][:2], "big") == case.code


def pack(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("bad", [b"ok\xff", b"\xed\xa0\x80", b"\xe2\x82"])
@pytest.mark.parametrize("delivery", ["message", "frame", "chunk"])
def test_inflated_text_is_checked(ws: ModuleType, bad: bytes, delivery: str) -> None:
    wire = to(CLIENT, (0xC1, pack(bad)))
    ways = feed_every_way(lambda **more: connect(ws, delivery=delivery, **more), wire, trailing=b"\x81\x00")
    for told, _ in ways:
        assert gist(told)[-1] == ("Closed", 1007, "error")
        assert "Message" not in [event[0] for event in gist(told)]
    half = pack("é".encode())
    told = feed(connect(ws), (0x41, half[:2]), (0x00, half[2:3]), (0x80, half[3:]))
    assert told == [("Message", "é", 1)]


def test_fail_fast_behind_deflate(ws: ModuleType) -> None:
    """1007 as soon as the bad byte is inflated, in the middle of an endless message."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = deflater.compress(b"a\xff") + deflater.flush(zlib.Z_SYNC_FLUSH)
    conn = connect(ws)
    wire = to(CLIENT, (0x41, piece + bytes(100)))
    conn.receive_data(wire[: 2 + len(piece)])
    assert gist(conn.events()) == [("Closed", 1007, "error")]


# -- sending ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("no_takeover", [False, True])
def test_round_trip(ws: ModuleType, role: int, no_takeover: bool) -> None:
    conn = connect(ws, role, no_takeover=no_takeover)
    data = [json.dumps({"seq": i, "user": "someone", "text": "é€" * (i % 7)}) for i in range(50)]
    for i, text in enumerate(data):
        conn.send_text(text if i % 2 else text.encode())
        conn.send_binary(bytearray(text.encode()))
    conn.send_text("")
    wire = b"".join(conn.data_to_send())
    told = naive(wire, server=role == CLIENT, takeover=not no_takeover).events
    assert told == [m for text in data for m in (("Message", text, 1), ("Message", text.encode(), 2))] + [
        ("Message", "", 1)
    ]
    assert len(wire) < sum(len(text.encode()) for text in data) * 2


@pytest.mark.parametrize(
    ("size", "compress", "compressed"),
    [(63, None, False), (64, None, True), (63, True, True), (1000, False, False), (0, True, True), (0, None, False)],
)
def test_what_is_compressed(ws: ModuleType, size: int, compress: bool | None, compressed: bool) -> None:
    for role in ROLES:
        conn = connect(ws, role)
        conn.send_text("x" * size, compress=compress)
        conn.send_binary(b"x" * size, compress=compress)
        conn.send_prepared(ws.PreparedMessage("x" * size), compress=compress)
        frames = parse_frames(b"".join(conn.data_to_send()))
        assert [bool(first & 0x40) for first, _, _ in frames] == [compressed] * 3
        plain = ws.Connection(ws.Role(role))
        plain.send_text("x" * size, compress=compress)
        plain.send_prepared(ws.PreparedMessage("x" * size), compress=compress)
        for first, _, payload in parse_frames(b"".join(plain.data_to_send())):
            assert (first, payload) == (0x81, b"x" * size)


def test_the_threshold_is_in_bytes(ws: ModuleType) -> None:
    """A text and its UTF-8 are the same message."""
    conn = connect(ws)
    conn.send_text("é" * 40)
    conn.send_text(("é" * 40).encode())
    one, other = parse_frames(b"".join(conn.data_to_send()))
    assert one[0] == other[0]


def test_fragments(ws: ModuleType) -> None:
    """RFC 7692 6.1: RSV1 on the first frame of a message, never on the others."""
    for role in ROLES:
        conn = connect(ws, role)
        conn.send_fragment("a" * 100, first=True, fin=False)
        conn.send_ping(b"p")
        conn.send_fragment("", first=False, fin=False)
        conn.send_fragment("b" * 100, first=False, fin=True)
        conn.send_fragment(b"", first=True, fin=False)
        conn.send_fragment(b"", first=False, fin=True)
        wire = b"".join(conn.data_to_send())
        assert [first for first, _, _ in parse_frames(wire)] == [0x41, 0x89, 0x00, 0x80, 0x42, 0x80]
        assert naive(wire, server=role == CLIENT, takeover=True).events == [
            ("Ping", b"p"),
            ("Message", "a" * 100 + "b" * 100, 1),
            ("Message", b"", 2),
        ]


def test_prepared_messages_and_the_context(ws: ModuleType) -> None:
    """After a prepared compressed frame the deflater starts anew: its peer's window has moved (DESIGN 5)."""
    rng = random.Random(3)
    for no_takeover in (False, True):
        for bits in (9, 12, 15):
            conn = connect(ws, SERVER, no_takeover=no_takeover, bits=bits)
            expected = []
            prepared = [ws.PreparedMessage(rng.randbytes(200) * 5) for _ in range(3)]
            for _ in range(60):
                if rng.random() < 0.5:
                    item = rng.choice(prepared)
                    conn.send_prepared(item, compress=rng.choice([None, True, False]))
                    expected.append(("Message", item.payload, 2))
                else:
                    data = rng.choice(prepared).payload[rng.randrange(100) :] + rng.randbytes(20)
                    conn.send_binary(data)
                    expected.append(("Message", data, 2))
            assert naive(b"".join(conn.data_to_send()), server=False, takeover=not no_takeover).events == expected


def test_released_contexts_come_back(ws: ModuleType) -> None:
    """Messages before and after an idle release inflate to the right bytes on both ends."""
    server, client = connect(ws, SERVER), connect(ws, CLIENT)
    rng = random.Random(5)
    words = [rng.randbytes(50) for _ in range(10)]
    now = 0.0
    for i in range(40):
        data = b"".join(rng.choices(words, k=20))
        for one, other in ((server, client), (client, server)):
            one.send_binary(data)
            other.receive_data(b"".join(one.data_to_send()))
            assert gist(other.events()) == [("Message", data, 2)], i
        now += rng.choice([10.0, 130.0])
        for end in (server, client):
            end.handle_timeout(now)
            end.handle_timeout(now + 61)
            end.handle_timeout(now + 122)


def test_a_masked_compressed_payload_in_pieces(ws: ModuleType) -> None:
    """Unmasking keeps its place over pieces; a large compressed payload is never read in place."""
    data = random.Random(1).randbytes(200_000)
    for role in ROLES:
        wire = to(role, (0xC2, pack(data)))
        conn = connect(ws, role)
        i = 0
        told: list[Any] = []
        while i < len(wire):
            view = conn.get_buffer()
            n = min(len(view), 50_001, len(wire) - i)
            view[:n] = wire[i : i + n]
            conn.buffer_updated(n)
            i += n
            told += gist(conn.events())
        assert told == [("Message", data, 2)]


def test_text_in_pieces_of_every_size(ws: ModuleType) -> None:
    text = "aé€\U0001f600" * 50
    wire = to(SERVER, (0xC1, pack(text.encode())))
    for step in range(1, 40):
        for delivery in ("message", "frame", "chunk"):
            conn = connect(ws, SERVER, delivery=delivery)
            told: list[Any] = []
            for i in range(0, len(wire), step):
                conn.receive_data(wire[i : i + step])
                told += conn.events()
            assert "".join(event.data for event in told) == text


def test_stats_count_wire_bytes(ws: ModuleType) -> None:
    conn = connect(ws, SERVER)
    conn.send_text("x" * 10_000)
    size = len(b"".join(conn.data_to_send()))
    assert conn.stats.bytes_sent == size < 100
    wire = to(SERVER, (0xC1, pack(b"x" * 10_000)))
    conn.receive_data(wire)
    conn.events()
    assert conn.stats.bytes_received == len(wire)
    assert TAIL not in wire


# -- counters ----------------------------------------------------------------------------------------------------------


def payload_size(wire: bytes) -> int:
    return sum(len(payload) for _, _, payload in parse_frames(wire))


@pytest.mark.parametrize("size", [200, 70_000, 9_000_000], ids=["2-byte header", "4-byte header", "10-byte header"])
def test_stats_without_compression(ws: ModuleType, size: int) -> None:
    """Of every way to send, and whatever the length of the header."""
    noise = random.Random(size).randbytes(size // 100)
    messages = [
        b"plain",
        noise * 100,
        memoryview(b"abcd" * size).cast("I"),
        "é" * size,
        [b"x" * size, b"y" * size],
        ws.PreparedMessage(noise * 100),
        ws.PreparedMessage("short"),
    ]
    lengths = [5, len(noise) * 100, 4 * size, 2 * size, 2 * size, len(noise) * 100, 5]
    server = connect(ws, SERVER)
    client = connect(ws, CLIENT, limits=ws.Limits(max_message_size=None))
    for message in messages:
        if isinstance(message, ws.PreparedMessage):
            server.send_prepared(message)
        elif isinstance(message, list):
            server.send_fragment(message[0], first=True, fin=False)
            server.send_fragment(message[1], first=False, fin=True)
        elif isinstance(message, str):
            server.send_text(message, compress=True)
        else:
            server.send_binary(message)
    wire = b"".join(server.data_to_send())
    assert len(wire) < sum(lengths) / 2
    client.receive_data(wire)
    assert len(client.events()) == len(messages)
    headers = len(wire) - payload_size(wire)
    assert server.stats.inflated_bytes_sent == headers + sum(lengths)
    assert client.stats.inflated_bytes_received == headers + sum(lengths)
    assert (server.stats.inflated_bytes_received, client.stats.inflated_bytes_sent) == (0, 0)
