"""Bytes in, events out: every frame that RFC 6455 allows or forbids, every way it can arrive, on both builds."""

from __future__ import annotations

import array
import itertools
import random
from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, feed_every_way, join_fragments, parse_frames, plain
from naive import gist, legal_close_code, naive, utf8_prefix

from wsproto_fast.testing import HOSTILE_FRAMES, LEGAL_FRAMES, FrameCase

SERVER, CLIENT = 0, 1
ERROR = "error"


def maker(ws: ModuleType, role: int, **arguments: Any) -> Any:
    return lambda **more: ws.Connection(ws.Role(role), **arguments, **more)


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    """Frames as the peer of ``role`` sends them."""
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def check_every_way(
    ws: ModuleType, role: int, wire: bytes, *, trailing: bytes | None = None, **limits: Any
) -> tuple[list[Any], list[Any]]:
    """Feed every way; all must agree with the naive twin. Returns its events and frames."""
    expected = naive(wire, server=role == SERVER, **limits)
    if trailing is None:  # behind a complete frame the start of a Ping is harmless, behind an error anything is
        trailing = b"\x89" if expected.closed or ends_complete(wire, role) else b""
    names = {"max_size": "max_message_size", "max_frame": "max_fragment_size", "max_fragments": "max_fragments"}
    make = maker(ws, role, limits=ws.Limits(**{names[name]: value for name, value in limits.items()}))
    for events, output in feed_every_way(make, wire, trailing=trailing):
        told = gist(events)
        frames = [(first, payload) for first, _, payload in parse_frames(output)]
        if told and told[-1][2:] == (ERROR,):  # the reason's text is free
            assert frames[-1][0] == 0x88
            assert utf8_prefix(frames[-1][1][2:])
            assert len(frames[-1][1]) <= 125
            frames[-1] = (0x88, frames[-1][1][:2])
        assert (told, frames) == (expected.events, expected.frames)
        assert all(masked == (role == CLIENT) for _, masked, _ in parse_frames(output))
        for event in events:
            if event.__class__.__name__ in ("Message", "Ping", "Pong"):
                assert type(plain(event)[1]) in (str, bytes)
    return expected.events, expected.frames


def ends_complete(wire: bytes, role: int) -> bool:
    try:
        parse_frames(wire)
    except ValueError:
        return False
    return True


# -- RFC 6455 5.7: the examples ---------------------------------------------------

EXAMPLES = [
    # (role of the receiver, wire, events, frames sent)
    (CLIENT, "8105 48656c6c6f", [("Message", "Hello", 1)], []),
    (SERVER, "8185 37fa213d 7f9f4d5158", [("Message", "Hello", 1)], []),
    (CLIENT, "0103 48656c 8002 6c6f", [("Message", "Hello", 1)], []),
    (CLIENT, "8905 48656c6c6f", [("Ping", b"Hello")], [(0x8A, b"Hello")]),
    (SERVER, "8a85 37fa213d 7f9f4d5158", [("Pong", b"Hello", ())], []),
    (CLIENT, "827e0100" + "ab" * 256, [("Message", b"\xab" * 256, 2)], []),
    (CLIENT, "827f0000000000010000" + "cd" * 65536, [("Message", b"\xcd" * 65536, 2)], []),
]


@pytest.mark.parametrize(("role", "wire", "events", "frames"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_the_rfc(ws: ModuleType, role: int, wire: str, events: list[Any], frames: list[Any]) -> None:
    raw = bytes.fromhex(wire)
    if len(raw) > 60000:  # a few ways are enough
        for size in (len(raw), 1000, 65536):
            conn = ws.Connection(ws.Role(role))
            told = []
            for i in range(0, len(raw), size):
                conn.receive_data(raw[i : i + size])
                told += conn.events()
            assert gist(told) == events
        return
    assert check_every_way(ws, role, raw) == (events, frames)


# -- legal streams and violations: the corpus of the test kit -----------------------

HELLO = (0x81, b"Hello")
SHORT = 2000  # what is longer is fed every way in no reasonable time; test_testing.py feeds it in two
PLAIN = [case for case in (*LEGAL_FRAMES, *HOSTILE_FRAMES) if not case.deflate and len(case.data) < SHORT]


@pytest.mark.parametrize("case", [case for case in PLAIN if case.code is None], ids=str)
def test_legal_streams(ws: ModuleType, case: FrameCase) -> None:
    told, sent = check_every_way(ws, case.role, case.data)
    assert tuple(event[1] for event in told if event[0] == "Message") == case.messages
    pings = [payload for first, _, payload in parse_frames(case.data) if first == 0x89]
    assert sent == [(0x8A, payload) for payload in pings]  # 5.5.2


@pytest.mark.parametrize("case", [case for case in PLAIN if case in HOSTILE_FRAMES], ids=str)
def test_violations(ws: ModuleType, case: FrameCase) -> None:
    """What came before is told, nothing of the bad frame or after it (reliability 1.2)."""
    role = int(case.role)
    wire = to(role, HELLO, (0x89, b"p")) + case.data
    told, sent = check_every_way(ws, role, wire, trailing=to(role, HELLO, (0x89, b"q"), (0x88, b"")))
    assert told[:2] == [("Message", "Hello", 1), ("Ping", b"p")]
    assert told[-1] == ("Closed", case.code, ERROR)
    assert sent[-1] == (0x88, case.code.to_bytes(2, "big"))
    assert tuple(event[1] for event in told[1:] if event[0] == "Message") == case.messages
    assert ("Ping", b"q") not in told


@pytest.mark.parametrize("beginning", ["83ff", "f1ff", "09ff", "817f", "c1fe"])
def test_beginning_of_a_header(ws: ModuleType, beginning: str) -> None:
    """What its first two bytes forbid is refused although the rest of the header is missing."""
    for told, _ in feed_every_way(maker(ws, SERVER), bytes.fromhex(beginning), trailing=b""):
        assert gist(told) == [("Closed", 1002, ERROR)]
    for told, _ in feed_every_way(maker(ws, SERVER), bytes.fromhex("81ff"), trailing=b""):
        assert told == []


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_every_pair_of_first_bytes(ws: ModuleType, role: int) -> None:
    """All 256 first bytes, alone and behind an open message."""
    for before, first, payload in itertools.product([(), ((0x01, b"a"),)], range(256), (b"", b"\x03\xe8")):
        wire = to(role, *before, (first, payload))
        expected = naive(wire, server=role == SERVER)
        conn = ws.Connection(ws.Role(role))
        conn.receive_data(wire)
        assert gist(conn.events()) == expected.events, (before, first)


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_random_streams_prefix_by_prefix(ws: ModuleType, role: int) -> None:
    """The twin reads each prefix; the engine, fed byte by byte, must have said the same by then, to the very byte."""
    for seed in range(60):
        rng = random.Random(seed)
        frames = []
        for _ in range(rng.randrange(1, 5)):
            first = rng.choice([0x81, 0x01, 0x80, 0x00, 0x82, 0x89, 0x8A, 0x88, rng.randrange(256)])
            payload = rng.choice([b"", b"ab", "é€".encode(), b"\xed\xa0\x80", b"\x03\xe8ok", rng.randbytes(4)])
            frames.append((first, payload))
        wire = to(role, *frames)
        conn = ws.Connection(ws.Role(role))
        told = []
        for i in range(len(wire)):
            conn.receive_data(wire[i : i + 1])
            told += conn.events()
            assert gist(told) == naive(wire[: i + 1], server=role == SERVER).events, (seed, i)


# -- text is checked at once ---------------------------------------------------------


@pytest.mark.parametrize("role", [SERVER, CLIENT])
@pytest.mark.parametrize("delivery", ["message", "frame", "chunk"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("bad", [b"\x80", b"\xc0", b"\xf5", b"\xed\xa0", b"\xf4\x90", b"\xe2\x28", b"\xe0\x9f"])
def test_fail_fast(ws: ModuleType, role: int, delivery: str, in_place: bool, bad: bytes) -> None:
    """Autobahn 6.4: 1007 at the very byte, long before the frame or the message is complete."""
    head = "κόσμε".encode()
    frame = to(role, (0x81, head + bad + bytes(200)))
    start = len(frame) - 200 - len(bad)
    conn = ws.Connection(ws.Role(role), delivery=delivery)
    told = []
    for i in range(start + len(bad)):
        assert not any(event.__class__.__name__ == "Closed" for event in told), f"at byte {i}"
        if in_place:
            conn.get_buffer()[:1] = frame[i : i + 1]
            conn.buffer_updated(1)
        else:
            conn.receive_data(frame[i : i + 1])
        told += conn.events()
    assert gist(told)[-1] == ("Closed", 1007, ERROR)
    assert conn.close_sent.code == 1007


def test_when_reads_are_in_place(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    assert not conn.reads_in_place()
    frame = encode_frame(0x82, bytes(500_000))
    conn.receive_data(frame[:1000])
    conn.events()
    assert conn.reads_in_place()
    conn.pause()
    assert not conn.reads_in_place()
    conn.resume()
    conn.receive_data(frame[1000:-10])
    conn.events()
    assert not conn.reads_in_place()  # so little is missing that it may come with others


def test_fail_fast_in_a_payload_read_in_place(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(encode_frame(0x81, b"a" * 100_000)[:10])
    assert conn.events() == []
    view = conn.get_buffer()
    view[:3] = b"a\xed\xa0"
    conn.buffer_updated(3)
    assert gist(conn.events()) == [("Closed", 1007, ERROR)]


# -- close frames ---------------------------------------------------------------------


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_every_close_code_received(ws: ModuleType, role: int) -> None:
    """RFC 6455 7.4: 0-65535; the legal ones are echoed, the others answered with 1002."""
    for code in range(65536):
        if 5100 < code < 65400 and code % 97:
            continue
        conn = ws.Connection(ws.Role(role))
        conn.receive_data(to(role, (0x88, code.to_bytes(2, "big"))))
        events = gist(conn.events())
        ((first, _, payload),) = parse_frames(b"".join(conn.data_to_send()))
        assert first == 0x88
        if legal_close_code(code):
            assert events == [("CloseReceived", code, ""), ("Closed", code, "", None)]
            assert payload == code.to_bytes(2, "big")
        else:
            assert events == [("Closed", 1002, ERROR)], code
            assert payload[:2] == b"\x03\xea"
            assert conn.close_rcvd is None


@pytest.mark.parametrize("case", [case for case in LEGAL_FRAMES if case.code is not None], ids=str)
def test_close_frames(ws: ModuleType, case: FrameCase) -> None:
    """Told, echoed, and what follows is ignored (RFC 6455 5.5.1)."""
    told, sent = check_every_way(ws, case.role, case.data)
    (payload,) = [payload for first, _, payload in parse_frames(case.data) if first == 0x88]
    reason = payload[2:].decode()
    assert told[-2:] == [("CloseReceived", case.code, reason), ("Closed", case.code, reason, None)]
    assert tuple(event[1] for event in told[:-2]) == case.messages
    assert sent == [(0x88, payload)]


# -- end of the transport ---------------------------------------------------------------

CUTS = [
    # what came before the end, its events
    (b"", []),
    (b"\x81", []),
    (b"\x81\x05He", []),
    (b"\x01\x02He", []),
    (b"\x81\x02He", [("Message", "He", 1)]),
    (b"\x89\x05He", []),
    (b"\x88\x02\x03", []),
    (b"\x82\x7f\x00\x00", []),
]


@pytest.mark.parametrize(("wire", "events"), CUTS)
def test_end_without_close(ws: ModuleType, wire: bytes, events: list[Any]) -> None:
    """RFC 6455 7.1.5: 1006; nothing of an unfinished message is told, nothing is sent."""
    for told, output in feed_every_way(maker(ws, CLIENT), wire, trailing=b"", eof=True):
        assert gist(told) == [*events, ("Closed", 1006, None)]
        assert output == b""


def test_end_of_an_unfinished_text_in_the_middle_of_a_character(ws: ModuleType) -> None:
    for told, _ in feed_every_way(maker(ws, CLIENT), b"\x81\x05\xe2\x82", trailing=b"", eof=True):
        assert gist(told) == [("Closed", 1006, None)]


# -- delivery -----------------------------------------------------------------------------

FRAGMENTED = [(0x01, "aé€".encode()[:4]), (0x89, b"p"), (0x00, b""), (0x80, "aé€".encode()[4:]), (0x82, b"xyz")]


def test_frames(ws: ModuleType) -> None:
    """Each data frame as it is, text decoded as far as its characters are complete (RFC 6455 5.4, 5.6)."""
    for role in (SERVER, CLIENT):
        for told, _ in feed_every_way(maker(ws, role, delivery="frame"), to(role, *FRAGMENTED)):
            assert [plain(event) for event in told] == [
                ("Fragment", 1, "aé", True, False, True),
                ("Ping", b"p"),
                ("Fragment", 1, "", False, False, True),
                ("Fragment", 1, "€", False, True, True),
                ("Fragment", 2, b"xyz", True, True, True),
            ]


def test_frames_undecoded(ws: ModuleType) -> None:
    for told, _ in feed_every_way(maker(ws, CLIENT, delivery="frame", decode_text=False), to(CLIENT, *FRAGMENTED)):
        assert [plain(event)[1:3] for event in told if event.__class__.__name__ == "Fragment"] == [
            (1, b"a\xc3\xa9\xe2"),
            (1, b""),
            (1, b"\x82\xac"),
            (2, b"xyz"),
        ]


@pytest.mark.parametrize("decode_text", [True, False])
def test_chunks(ws: ModuleType, decode_text: bool) -> None:
    """Pieces as they arrive: however the wire is cut, joined they are the frames."""
    for role in (SERVER, CLIENT):
        wire = to(role, *FRAGMENTED)
        ways = feed_every_way(maker(ws, role, delivery="chunk", decode_text=decode_text), wire)
        for told, _ in ways:
            first = [event for event in told if event.__class__.__name__ == "Fragment" and event.first]
            assert [event.opcode for event in first] == [1, 2]
            assert join_fragments(told) == [
                ("Fragment", 1, "aé" if decode_text else b"a\xc3\xa9\xe2", True, False, True),
                ("Ping", b"p"),
                ("Fragment", 1, "" if decode_text else b"", False, False, True),
                ("Fragment", 1, "€" if decode_text else b"\x82\xac", False, True, True),
                ("Fragment", 2, b"xyz", True, True, True),
            ]


def test_chunks_do_not_wait(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT, delivery="chunk")
    for i in range(5):
        conn.receive_data(encode_frame(0x82, b"abcde")[2 + i : 3 + i] if i else b"\x82\x05a")
        (event,) = conn.events()
        assert plain(event) == ("Fragment", 2, b"abcde"[i : i + 1], i == 0, i == 4, i == 4)


@pytest.mark.parametrize("delivery", ["frame", "chunk"])
def test_whole_messages_without_delivery_of_messages(ws: ModuleType, delivery: str) -> None:
    for role in (SERVER, CLIENT):
        wire = to(role, (0x81, "é€".encode()), (0x82, b"xyz"), (0x81, b""), (0x01, b"a"), (0x80, b"b"))
        for told, _ in feed_every_way(maker(ws, role, delivery=delivery), wire):
            assert join_fragments(told) == [
                ("Fragment", 1, "é€", True, True, True),
                ("Fragment", 2, b"xyz", True, True, True),
                ("Fragment", 1, "", True, True, True),
                ("Fragment", 1, "a", True, False, True),
                ("Fragment", 1, "b", False, True, True),
            ]


@pytest.mark.parametrize(
    ("wires", "refused"),
    [
        ((b"\x83\x02ab",), b"\x83\x02"),
        ((b"\x81\x7e\x00\x7d" + bytes(125),), b"\x81\x7e\x00\x7d"),
        ((b"\x81\x81abcd\x00",), b"\x81\x81abcd"),
        ((b"\x80\x00",), b"\x00"),
        ((b"\x01\x01a\x82\x00",), b"\x02"),
        ((b"\x81\x03ab\xff",), b"ab\xff"),
        ((b"\x81\x04ab\xe2", b"a"), b"\xe2a"),  # what was told is not repeated
        ((b"\x81\x02a\xe2",), b"a\xe2"),
        ((b"\x88\x01\x03",), b"\x03"),
        ((b"\x88\x02\x03\xed",), b"\x03\xed"),
        ((b"\x88\x03\x03\xe8\xff",), b"\x03\xe8\xff"),
    ],
)
def test_what_was_refused(ws: ModuleType, wires: tuple[bytes, ...], refused: bytes) -> None:
    conn = ws.Connection(ws.Role.CLIENT, delivery="chunk")
    for wire in wires:
        conn.receive_data(wire)
        conn.events()
    assert conn.close_error.refused == refused


def test_a_refused_message_is_not_kept(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(b"\x81\x03ab\xff")
    assert conn.events()[-1].error.refused == b""


def test_invalid_text_in_pieces(ws: ModuleType) -> None:
    for delivery in ("frame", "chunk"):
        wire = to(CLIENT, (0x01, b"ok"), (0x80, b"\xe2\x82"))
        for told, _ in feed_every_way(maker(ws, CLIENT, delivery=delivery), wire, trailing=b"\x81\x00"):
            events = join_fragments(told)
            assert events[0] == ("Fragment", 1, "ok", True, False, True)
            assert events[-1][:2] == ("Closed", 1007)


def test_undecoded_text_is_still_checked(ws: ModuleType) -> None:
    for frames in ([(0x81, b"a\xff")], [(0x01, b"\xe2"), (0x80, b"\x82")]):
        for told, _ in feed_every_way(maker(ws, CLIENT, decode_text=False), to(CLIENT, *frames), trailing=b""):
            assert gist(told)[-1] == ("Closed", 1007, ERROR)
    for told, _ in feed_every_way(maker(ws, CLIENT, decode_text=False), to(CLIENT, (0x81, "é".encode()), (0x82, b"x"))):
        assert gist(told) == [("Message", "é".encode(), 1), ("Message", b"x", 2)]


def test_delivery_can_be_switched(ws: ModuleType) -> None:
    """Finer at once, also inside a message; coarser with the next message."""
    conn = ws.Connection(ws.Role.CLIENT)
    assert conn.delivery == "message"
    conn.receive_data(to(CLIENT, (0x01, b"abc\xe2")))
    assert conn.events() == []
    conn.delivery = "frame"
    assert conn.delivery == "frame"
    conn.receive_data(to(CLIENT, (0x00, b"\x82\xacd")))
    assert [plain(event) for event in conn.events()] == [("Fragment", 1, "abc€d", True, False, True)]
    conn.delivery = "message"
    conn.receive_data(to(CLIENT, (0x00, b"e"), (0x80, b"f"), (0x01, b"g"), (0x80, b"h")))
    assert [plain(event) for event in conn.events()] == [
        ("Fragment", 1, "e", False, False, True),
        ("Fragment", 1, "f", False, True, True),
        ("Message", "gh", 1),
    ]
    conn.receive_data(b"\x82\x05ab")
    assert conn.events() == []
    conn.delivery = "chunk"
    conn.receive_data(b"c")
    assert [plain(event) for event in conn.events()] == [("Fragment", 2, b"abc", True, False, False)]
    with pytest.raises(ValueError, match="delivery"):
        conn.delivery = "pieces"
    assert conn.delivery == "chunk"


@pytest.mark.parametrize(
    ("delivery", "wire", "expected"),
    [
        ("frame", to(CLIENT, (0x01, b"ab")), ("Fragment", 1, "ab", True, False, True)),
        ("chunk", to(CLIENT, (0x02, b"ab")), ("Fragment", 2, b"ab", True, False, True)),
        ("chunk", b"\x82\x05ab", ("Fragment", 2, b"ab", True, False, False)),
        ("frame", b"\x82\x05ab", None),
        ("chunk", b"\x82\x05", None),
        ("chunk", b"", None),
    ],
)
def test_finer_delivery_gives_what_was_collected(ws: ModuleType, delivery: str, wire: bytes, expected: Any) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(wire)
    assert conn.events() == []
    conn.delivery = delivery
    assert [plain(event) for event in conn.events()] == ([] if expected is None else [expected])
    assert conn.events() == []


@pytest.mark.parametrize("delivery", ["frame", "chunk"])
def test_finer_delivery_behind_a_ping_amid_the_message(ws: ModuleType, delivery: str) -> None:
    """The Ping's FIN is not the message's."""
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(to(CLIENT, (0x01, b"a\xc3"), (0x89, b"p")))
    assert [plain(event) for event in conn.events()] == [("Ping", b"p")]
    conn.delivery = delivery
    assert [plain(event) for event in conn.events()] == [("Fragment", 1, "a", True, False, True)]
    conn.receive_data(to(CLIENT, (0x80, b"\xa4")))
    assert [plain(event) for event in conn.events()] == [("Fragment", 1, "ä", False, True, True)]


def test_delivery_is_checked(ws: ModuleType) -> None:
    with pytest.raises(ValueError, match="delivery"):
        ws.Connection(ws.Role.CLIENT, delivery="all")
    with pytest.raises(ValueError, match="Role"):
        ws.Connection(7)


# -- exact types ----------------------------------------------------------------------------


class Bytes(bytes):
    pass


@pytest.mark.parametrize("role", [SERVER, CLIENT])
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, Bytes])
def test_exact_types(ws: ModuleType, role: int, form: Any) -> None:
    """Whatever goes in, exactly bytes and str come out, of memory of their own."""
    wire = to(role, (0x81, b"Hello"), (0x82, b"xyz"), (0x89, b"p"), (0x8A, b"q"), (0x01, b"a"), (0x80, "é".encode()))
    wire += to(role, (0x02, b"a"), (0x80, b"b"), (0x81, "é€".encode()), (0x88, b"\x03\xe8bye"))
    for size in (len(wire), 1, 7):
        conn = ws.Connection(ws.Role(role))
        events = []
        for i in range(0, len(wire), size):
            raw = bytearray(wire[i : i + size])
            conn.receive_data(form(raw))
            raw[:] = bytes(len(raw))  # the caller's memory is its own again
            events += conn.events()
        types = [tuple(type(value) for value in plain(event)[1:]) for event in events]
        opcode = ws.Opcode
        assert types == [
            (str, opcode),
            (bytes, opcode),
            (bytes,),
            (bytes, tuple, type(None)),
            (str, opcode),
            (bytes, opcode),
            (str, opcode),
            (int, str),
            (int, str, type(None)),
        ]
        assert [plain(event)[1] for event in events[:8]] == ["Hello", b"xyz", b"p", b"q", "aé", b"ab", "é€", 1000]
        assert type(conn.close_code) is int
        assert type(conn.close_rcvd.code) is int


def test_fragments_have_exact_types(ws: ModuleType) -> None:
    for delivery in ("frame", "chunk"):
        conn = ws.Connection(ws.Role.CLIENT, delivery=delivery)
        conn.receive_data(to(CLIENT, (0x81, b"a"), (0x82, b"b")))
        for event, kind in zip(conn.events(), (str, bytes), strict=True):
            assert type(event.data) is kind
            assert type(event.opcode) is ws.Opcode
            assert [type(flag) for flag in (event.first, event.fin, event.frame_fin)] == [bool] * 3


@pytest.mark.parametrize("data", ["text", None, 5, [1, 2]])
def test_receive_data_takes_bytes_only(ws: ModuleType, data: Any) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    with pytest.raises(TypeError):
        conn.receive_data(data)
    assert conn.stats == ws.Connection(ws.Role.CLIENT).stats
    conn.receive_data(b"\x81\x01a")
    assert gist(conn.events()) == [("Message", "a", 1)]


def test_any_buffer_is_counted_in_bytes(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    wire = b"\x81\x06Hello!"
    conn.receive_data(array.array("I", wire))
    conn.receive_data(memoryview(wire).cast("B", (2, 4)))
    conn.receive_data(memoryview(b"".join(bytes([byte, 0]) for byte in wire))[::2])
    assert gist(conn.events()) == [("Message", "Hello!", 1)] * 3
    assert conn.stats.bytes_received == 24


# -- next_event, events, dispatch --------------------------------------------------------------


def test_nothing_is_parsed_before_somebody_asks(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(b"\x89\x00\x83\x00")
    assert not conn.has_output
    assert conn.state is ws.State.OPEN
    assert gist([conn.next_event()]) == [("Ping", b"")]
    assert conn.state is ws.State.OPEN
    assert gist([conn.next_event()]) == [("Closed", 1002, ERROR)]
    assert conn.next_event() is None
    assert conn.events() == []


def drink(conn: Any) -> list[Any]:
    told: list[Any] = []
    conn.dispatch(lambda data: told.append(("data", data)), lambda event: told.append(plain(event)))
    return told


def test_dispatch(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(to(CLIENT, HELLO, (0x89, b""), (0x82, b"x"), (0x88, b"")))
    closes = [("CloseReceived", 1005, ""), ("Closed", 1005, "", None)]
    assert drink(conn) == [("data", "Hello"), ("Ping", b""), ("data", b"x"), *closes]
    assert drink(conn) == []


@pytest.mark.parametrize("delivery", ["frame", "chunk"])
def test_dispatch_of_fragments(ws: ModuleType, delivery: str) -> None:
    conn = ws.Connection(ws.Role.CLIENT, delivery=delivery)
    conn.receive_data(to(CLIENT, HELLO))
    assert drink(conn) == [("Fragment", 1, "Hello", True, True, True)]


def test_what_a_callback_raises(ws: ModuleType) -> None:
    """It goes to the caller; what was told is not told again, the rest is."""
    conn = ws.Connection(ws.Role.CLIENT)
    conn.receive_data(to(CLIENT, (0x81, b"1"), (0x89, b"2"), (0x81, b"3"), (0x83, b"")))
    told: list[Any] = []

    def bad(value: Any) -> None:
        told.append(value)
        raise ZeroDivisionError

    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            conn.dispatch(bad, bad)
    conn.dispatch(bad, bad)
    assert told[0] == "1"
    assert gist(told[1:2]) == [("Ping", b"2")]
    assert told[2] == "3"
    assert gist(told[3:]) == [("Closed", 1002, ERROR)]


def test_callbacks_may_call_anything(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    told: list[Any] = []

    def on_message(data: Any) -> None:
        told.append(data)
        if data == "1":
            conn.receive_data(to(CLIENT, (0x81, b"3")))
            conn.send_text("echo")
            conn.send_ping(b"x")
            assert conn.data_to_send()
            conn.get_buffer()[:2] = b"\x89\x00"
            conn.buffer_updated(2)
        elif data == "2":
            conn.dispatch(on_message, on_event)  # drinks all there is
            told.append("back")
        elif data == "3":
            assert plain(conn.next_event()) == ("Ping", b"")

    def on_event(event: Any) -> None:
        told.append(plain(event))

    conn.receive_data(to(CLIENT, (0x81, b"1"), (0x81, b"2")))
    conn.dispatch(on_message, on_event)
    assert told == ["1", "2", "3", "back"]


@pytest.mark.parametrize("what", ["fail", "send_close", "pause", "receive_eof"])
def test_callbacks_that_end_it(ws: ModuleType, what: str) -> None:
    conn = ws.Connection(ws.Role.CLIENT)
    told: list[Any] = []

    def on_message(data: Any) -> None:
        told.append(data)
        if len(told) == 1:
            getattr(conn, what)()

    conn.receive_data(to(CLIENT, (0x81, b"1"), (0x81, b"2"), (0x81, b"3")))
    conn.dispatch(on_message, lambda event: told.append(plain(event)[:2]))
    assert (
        told
        == {
            "fail": ["1", ("Closed", 1011)],  # all input is discarded
            "send_close": ["1", "2", "3"],  # RFC 6455 5.5.1: what comes before the peer's Close frame counts
            "pause": ["1"],
            "receive_eof": ["1", "2", "3", ("Closed", 1006)],
        }[what]
    )


# -- trailing data -----------------------------------------------------------------------------


def test_trailing_data(ws: ModuleType) -> None:
    for data in (b"\x81\x01a\x81\x01b", bytearray(b"\x81\x01a\x81\x01b")):
        conn = ws.Connection(ws.Role.CLIENT, trailing_data=data)
        assert conn.stats.bytes_received == 6
        assert gist(conn.events()) == [("Message", "a", 1), ("Message", "b", 1)]


# -- events ------------------------------------------------------------------------------------


def test_events_are_values(ws: ModuleType) -> None:
    events = ws.events
    text, binary = ws.Opcode.TEXT, ws.Opcode.BINARY
    makers = [
        lambda: events.Message("a", text),
        lambda: events.Message(b"a", binary),
        lambda: events.Fragment(text, "a", True, False),
        lambda: events.Fragment(text, "a", True, True, False),
        lambda: events.Ping(b"a"),
        lambda: events.Pong(b"a"),
        lambda: events.Pong(b"a", (b"a",)),
        lambda: events.CloseReceived(1000, "a"),
        lambda: events.Closed(1000, "a"),
    ]
    for i, make in enumerate(makers):
        one, other = make(), make()
        assert one == other
        assert hash(one) == hash(other)
        assert (one != other) is False
        assert eval(repr(one).replace("<Opcode.TEXT: 1>", "1").replace("<Opcode.BINARY: 2>", "2"), vars(events)) == one
        for j, make_another in enumerate(makers):
            assert (one == make_another()) is (i == j)
        assert one != "a"
        assert isinstance(one, events.Event)
    match events.Pong(b"a", (b"b",)):
        case events.Pong(payload, acknowledged):
            assert (payload, acknowledged) == (b"a", (b"b",))
    assert events.Fragment(text, "a", True, False).frame_fin is True
    assert events.new_message("a", text) == events.Message("a", text)


def test_errors_of_equal_events(ws: ModuleType) -> None:
    """Closed is a value too, whatever the object that explains it."""
    told = []
    for _ in range(2):
        conn = ws.Connection(ws.Role.CLIENT)
        conn.receive_data(b"\x83\x00")
        told.append(conn.events())
    assert told[0] == told[1]
