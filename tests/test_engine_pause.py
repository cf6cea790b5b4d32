"""pause() and resume(): messages wait, control frames behind them do not, memory stays bounded."""

from __future__ import annotations

import gc
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, parse_frames, plain
from naive import gist, naive

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]
MIB = 2**20


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def connect(ws: ModuleType, role: int = CLIENT, **arguments: Any) -> Any:
    limits = {name: arguments.pop(name) for name in list(arguments) if name.startswith("max_")}
    return ws.Connection(ws.Role(role), limits=ws.Limits(**limits), **arguments)


def feed(conn: Any, *frames: tuple[int, bytes]) -> list[Any]:
    conn.receive_data(to(conn.role, *frames))
    return gist(conn.events())


def sent(conn: Any) -> list[tuple[int, bytes]]:
    return [(first, payload) for first, _, payload in parse_frames(b"".join(conn.data_to_send()))]


@pytest.mark.parametrize("role", ROLES)
def test_messages_wait(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    conn.pause()
    conn.pause()
    assert feed(conn, (0x81, b"a"), (0x82, b"b"), (0x01, b"c")) == []
    assert feed(conn, (0x80, b"d")) == []
    conn.resume()
    assert gist(conn.events()) == [("Message", "a", 1), ("Message", b"b", 2), ("Message", "cd", 1)]
    conn.resume()
    assert feed(conn, (0x81, b"e")) == [("Message", "e", 1)]


@pytest.mark.parametrize("role", ROLES)
def test_control_frames_behind_them_do_not(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    conn.send_ping(b"mine")
    sent(conn)
    conn.pause()
    told = feed(conn, (0x81, b"a"), (0x89, b"1"), (0x82, b"b"), (0x8A, b"mine"), (0x89, b"2"), (0x01, b"c"))
    assert told == [("Ping", b"1"), ("Pong", b"mine", (b"mine",)), ("Ping", b"2")]
    assert sent(conn) == [(0x8A, b"1"), (0x8A, b"2")]
    assert feed(conn, (0x89, b"3"), (0x80, b"d")) == [("Ping", b"3")]
    conn.resume()
    assert gist(conn.events()) == [("Message", "a", 1), ("Message", b"b", 2), ("Message", "cd", 1)]
    assert sent(conn) == [(0x8A, b"3")]  # each of them once
    assert conn.stats.pings_received == 3
    assert conn.stats.pongs_received == 1


def test_control_frames_before_them_come_in_their_turn(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.pause()
    assert feed(conn, (0x89, b"1"), (0x8A, b"2"), (0x81, b"a")) == [("Ping", b"1"), ("Pong", b"2", ())]


@pytest.mark.parametrize(("where", "expected"), [("between", [("Ping", b"1")]), ("inside", [])])
def test_pause_in_the_middle_of_a_message(ws: ModuleType, where: str, expected: list[Any]) -> None:
    conn = connect(ws)
    if where == "between":
        assert feed(conn, (0x01, b"a")) == []
        rest = to(CLIENT, (0x89, b"1"), (0x80, b"b"))
    else:
        conn.receive_data(b"\x01\x02a")
        assert conn.events() == []
        rest = b"b" + to(CLIENT, (0x80, b""))
    conn.pause()
    conn.receive_data(rest)
    assert gist(conn.events()) == expected
    conn.resume()
    assert gist(conn.events()) == [("Message", "ab", 1)]


@pytest.mark.parametrize("role", ROLES)
def test_a_close_frame_waits_for_its_turn(ws: ModuleType, role: int) -> None:
    """The messages before it belong to the application (RFC 6455 5.5.1); pings before it are still answered."""
    conn = connect(ws, role)
    conn.pause()
    assert feed(conn, (0x81, b"a"), (0x89, b"1"), (0x88, b"\x03\xe8"), (0x89, b"2")) == [("Ping", b"1")]
    assert conn.state is ws.State.OPEN
    conn.resume()
    closes = [("CloseReceived", 1000, ""), ("Closed", 1000, "", None)]
    assert gist(conn.events()) == [("Message", "a", 1), *closes]
    assert sent(conn) == [(0x8A, b"1"), (0x88, b"\x03\xe8")]


def test_a_close_frame_without_messages_before_it_is_told(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.pause()
    assert feed(conn, (0x88, b"\x03\xe8"))[-1] == ("Closed", 1000, "", None)


ILLEGAL = [
    (0x83, b"x"),  # RFC 6455 5.2: reserved opcode
    (0x8B, b"x"),
    (0x91, b"x"),  # reserved bits
    (0xA2, b"x"),
    (0xC1, b"x"),  # RSV1 without an extension
    (0x99, b"x"),
    (0x09, b"x"),  # 5.5
    (0x80, b"x"),  # 5.4: nothing to continue
    (0x00, b"x"),
    (0x82, bytes(2000)),  # over the limit
]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("frame", ILLEGAL, ids=[f"{first:02x}" for first, _ in ILLEGAL])
def test_nothing_behind_an_illegal_frame_is_told(ws: ModuleType, role: int, frame: tuple[int, bytes]) -> None:
    """The look ahead ends at what the reader would refuse; it is refused in its turn (reliability 1.2)."""
    conn = connect(ws, role, max_message_size=1000)
    conn.pause()
    assert feed(conn, (0x81, b"a"), (0x89, b"1"), frame, (0x89, b"2")) == [("Ping", b"1")]
    assert sent(conn) == [(0x8A, b"1")]
    conn.resume()
    told = gist(conn.events())
    assert told == [("Message", "a", 1), ("Closed", 1009 if len(frame[1]) > 125 else 1002, "error")]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("earlier", [[], [(0x01, b"x"), (0x89, b"0")], [(0x81, b"x"), (0x89, b"0")]])
def test_the_look_ahead_knows_whether_a_message_is_open(
    ws: ModuleType, role: int, earlier: list[tuple[int, bytes]]
) -> None:
    """Wherever it begins: at the start of a read, behind a frame that is read in part, after an earlier look ahead."""
    conn = connect(ws, role)
    if earlier:  # a look ahead that ended with a message open, or not
        conn.pause()
        assert feed(conn, *earlier, *earlier[1:]) == [("Ping", b"0")] * 2
        conn.resume()
        conn.events()
        if earlier[0][0] == 0x01:
            feed(conn, (0x80, b""))
    assert feed(conn, (0x01, b"a")) == []
    conn.pause()
    assert feed(conn, (0x80, b"b"), (0x89, b"1"), (0x81, b"c"), (0x89, b"2")) == [("Ping", b"1"), ("Ping", b"2")]
    assert feed(conn, (0x89, b"3"), (0x80, b"illegal"), (0x89, b"4")) == [("Ping", b"3")]
    conn.resume()
    assert gist(conn.events()) == [("Message", "ab", 1), ("Message", "c", 1), ("Closed", 1002, "error")]

    conn = connect(ws, role)
    assert feed(conn, *earlier[:1]) == [("Message", "x", 1)] * (earlier[:1] == [(0x81, b"x")])
    if earlier[:1] == [(0x01, b"x")]:
        feed(conn, (0x80, b""))
    feed(conn, (0x01, b"a"))
    conn.pause()
    assert feed(conn, (0x82, b"illegal"), (0x89, b"1")) == []
    conn.resume()
    assert gist(conn.events()) == [("Closed", 1002, "error")]


def test_nothing_behind_a_wrong_length_or_mask_is_told(ws: ModuleType) -> None:
    for bad in (b"\x82\x7e\x00\x05abcde", b"\x82\x85" + MASKING_KEY + b"abcde", b"\x82\xff" + b"\xff" * 12):
        conn = connect(ws)
        conn.pause()
        conn.receive_data(to(CLIENT, (0x81, b"a")) + bad + to(CLIENT, (0x89, b"2")))
        assert conn.events() == []
        conn.resume()
        assert gist(conn.events()) == [("Message", "a", 1), ("Closed", 1002, "error")]


# -- how much waits -----------------------------------------------------------------------


def test_read_ahead_full(ws: ModuleType) -> None:
    conn = connect(ws, max_read_ahead=100)
    assert conn.read_ahead_full is False
    conn.pause()
    assert conn.read_ahead_full is False
    conn.receive_data(to(CLIENT, (0x82, bytes(97))))  # 99 bytes of wire
    assert conn.events() == []
    assert conn.read_ahead_full is False
    conn.receive_data(b"\x89")
    assert conn.read_ahead_full is True
    before = conn.stats
    with pytest.raises(ws.LocalProtocolError):
        conn.receive_data(b"\x00")
    assert conn.stats == before
    conn.resume()
    assert conn.read_ahead_full is False
    conn.receive_data(b"\x00")
    assert gist(conn.events()) == [("Message", bytes(97), 2), ("Ping", b"")]


def test_control_frames_use_up_no_read_ahead_for_ever(ws: ModuleType) -> None:
    """With nothing but control frames the reader does not fill up."""
    conn = connect(ws, max_read_ahead=50)
    conn.pause()
    for _ in range(100):
        assert feed(conn, (0x89, b"abcdef")) == [("Ping", b"abcdef")]
    assert not conn.read_ahead_full


@pytest.mark.parametrize("limit", [0, 1])
def test_no_read_ahead(ws: ModuleType, limit: int) -> None:
    conn = connect(ws, max_read_ahead=limit)
    assert feed(conn, (0x81, b"a")) == [("Message", "a", 1)]
    conn.pause()
    if limit:
        assert feed(conn, (0x81, b"b")) == []
    assert conn.read_ahead_full
    conn.resume()
    assert not conn.read_ahead_full
    conn.events()
    assert feed(conn, (0x81, b"c")) == [("Message", "c", 1)]


@pytest.mark.parametrize("limit", [0, 100])
def test_after_the_end_nothing_is_full(ws: ModuleType, limit: int) -> None:
    """Input is discarded then: the adapter must go on reading until EOF."""
    conn = connect(ws, max_read_ahead=limit)
    conn.pause()
    if limit:
        conn.receive_data(bytes(limit))
    conn.fail()
    conn.events()
    assert conn.read_ahead_full is False
    conn.receive_data(b"whatever")


def test_without_limit(ws: ModuleType) -> None:
    conn = connect(ws, max_read_ahead=None)
    conn.pause()
    for _ in range(30):
        assert feed(conn, (0x82, bytes(10_000))) == []
    assert not conn.read_ahead_full
    conn.resume()
    assert len(conn.events()) == 30


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_waiting_compressed_messages_stay_wire_bytes(ws: ModuleType, traced: None) -> None:
    """200 messages of 1 MiB wait in 210 KiB (reliability 1.3)."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (deflater.compress(bytes(MIB)) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    deflate = ws.PerMessageDeflate(ws.Role.CLIENT, ws.DeflateParameters(server_no_context_takeover=True))
    conn = connect(ws, deflate=deflate, max_read_ahead=MIB)
    wire = to(CLIENT, (0xC2, packed), (0x89, b""))
    conn.pause()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for _ in range(200):
        conn.receive_data(wire)
        assert gist(conn.events()) == [("Ping", b"")]
        conn.data_to_send()
    current, peak = (size - before for size in tracemalloc.get_traced_memory())
    assert current < 1.2 * 200 * len(wire) + 20_000
    assert peak < 3 * 200 * len(wire) + 70_000
    conn.resume()
    told: list[Any] = []

    def on_message(data: bytes) -> None:
        told.append(len(data))
        conn.pause()

    tracemalloc.reset_peak()
    conn.dispatch(on_message, told.append)
    assert told == [MIB]  # one, not two
    assert tracemalloc.get_traced_memory()[1] - before - current < 4 * MIB


def test_pause_from_a_callback_stops_at_once(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.receive_data(to(CLIENT, (0x81, b"a"), (0x81, b"b"), (0x89, b"1"), (0x81, b"c")))
    told: list[Any] = []

    def on_message(data: Any) -> None:
        told.append(data)
        conn.pause()

    def on_event(event: Any) -> None:
        told.append(plain(event))

    conn.dispatch(on_message, on_event)
    assert told == ["a", ("Ping", b"1")]
    conn.dispatch(on_message, on_event)
    assert told == ["a", ("Ping", b"1")]
    for expected in ("b", "c"):
        conn.resume()
        conn.dispatch(on_message, on_event)
        assert told[-1] == expected
    assert len(told) == 4


@pytest.mark.parametrize("delivery", ["frame", "chunk"])
def test_pause_between_fragments(ws: ModuleType, delivery: str) -> None:
    conn = connect(ws, delivery=delivery)
    conn.receive_data(to(CLIENT, (0x01, b"a"), (0x89, b"1"), (0x80, b"b")))
    assert plain(conn.next_event())[:3] == ("Fragment", 1, "a")
    conn.pause()
    assert plain(conn.next_event()) == ("Ping", b"1")
    assert conn.next_event() is None
    conn.resume()
    assert plain(conn.next_event())[:3] == ("Fragment", 1, "b")


# -- paused in the middle of a large payload --------------------------------------------------


@pytest.mark.parametrize("when", ["before get_buffer", "before buffer_updated", "before events"])
@pytest.mark.parametrize("role", ROLES)
def test_pause_while_a_payload_is_read_in_place(ws: ModuleType, role: int, when: str) -> None:
    """The bytes that were read in place count as read: what follows the frame is found where it is."""
    payload = random.Random(1).randbytes(100_000)
    wire = to(role, (0x82, payload))
    conn = connect(ws, role, max_read_ahead=None)
    start = len(wire) - 100_000
    conn.receive_data(wire[: start + 5])
    assert conn.events() == []
    if when == "before get_buffer":
        conn.pause()
    view = conn.get_buffer()
    n = min(60_000, len(view))
    view[:n] = wire[start + 5 : start + 5 + n]
    if when == "before buffer_updated":
        conn.pause()
    conn.buffer_updated(n)
    conn.pause()
    assert conn.events() == []
    rest = wire[start + 5 + n :] + to(role, (0x89, b"here"), (0x82, b"\x89" * 70_000))
    conn.receive_data(rest[:20_000])
    told = gist(conn.events())
    conn.receive_data(rest[20_000:])
    told += gist(conn.events())
    assert told == [("Ping", b"here")]
    assert sent(conn) == [(0x8A, b"here")]
    conn.resume()
    assert gist(conn.events()) == [("Message", payload, 2), ("Message", b"\x89" * 70_000, 2)]


# -- end of the transport while paused -----------------------------------------------------------


def test_end_while_paused(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.pause()
    conn.receive_data(to(CLIENT, (0x81, b"a")))
    conn.receive_eof()
    assert conn.events() == []
    assert conn.close_transport is ws.CloseTransport.CLOSE
    conn.resume()
    assert gist(conn.events()) == [("Message", "a", 1), ("Closed", 1006, None)]


def test_end_while_paused_with_nothing_waiting(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.pause()
    conn.receive_eof()
    assert gist(conn.events()) == [("Closed", 1006, None)]


# -- at random ---------------------------------------------------------------------------------


def test_pausing_at_random_changes_only_the_order(ws: ModuleType) -> None:
    """Messages in order; pings in order and each answered once; control frames earlier, never later."""
    for seed in range(150):
        rng = random.Random(seed)
        role = rng.choice(ROLES)
        frames: list[tuple[int, bytes]] = []
        for i in range(rng.randrange(1, 12)):
            data = rng.randbytes(rng.choice([0, 3, 130, 70_000 if seed % 10 == 0 else 5]))
            frames += rng.choice(
                [
                    [(0x82, data)],
                    [(0x89, b"%d" % i)],
                    [(0x8A, b"%d" % i)],
                    [(0x02, data), (0x89, b"%d" % i), (0x00, b""), (0x80, data)],
                ]
            )
        if rng.random() < 0.3:
            frames.append(rng.choice([(0x88, b"\x03\xe8"), (0x08, b"")]))
        wire = to(role, *frames)
        expected = naive(wire, server=role == SERVER)
        conn = connect(ws, role, max_read_ahead=rng.choice([200, 2**16, None]))
        told: list[Any] = []
        output = b""
        i = 0
        while i < len(wire):
            conn.pause() if rng.random() < 0.5 else conn.resume()
            n = rng.choice([1, 5, 50, 40_000])
            if conn.read_ahead_full:
                conn.resume()
            elif rng.random() < 0.6:
                view = conn.get_buffer()
                if rng.random() < 0.3:
                    conn.pause()
                n = min(n, len(view), len(wire) - i)
                view[:n] = wire[i : i + n]
                conn.buffer_updated(n)
                i += n
            else:
                conn.receive_data(wire[i : i + n])
                i += n
            if rng.random() < 0.8:
                if rng.random() < 0.3:
                    conn.pause()
                told += gist(conn.events())
            output += b"".join(conn.data_to_send())
        conn.resume()
        told += gist(conn.events())
        output += b"".join(conn.data_to_send())
        for kind in (("Message", "CloseReceived", "Closed"), ("Ping", "Pong")):
            assert [e for e in told if e[0] in kind] == [e for e in expected.events if e[0] in kind], seed
        pongs = [payload for first, _, payload in parse_frames(output) if first == 0x8A]
        assert pongs == [payload for first, payload in expected.frames if first == 0x8A], seed


def test_waiting_bytes_move_with_what_was_seen_of_them(ws: ModuleType) -> None:
    """Pings seen ahead are not told again after the consumed part of the window was dropped in between."""
    conn = connect(ws)
    conn.pause()
    frames = [(first, b"%d" % i) for i in range(20) for first in (0x82, 0x89)]
    told = [event for frame in frames for event in feed(conn, frame)]
    assert told == [("Ping", b"%d" % i) for i in range(20)]
    conn.resume()
    assert gist([conn.next_event() for _ in range(15)]) == [("Message", b"%d" % i, 2) for i in range(15)]
    conn.receive_data(to(CLIENT, (0x89, b"new"), (0x82, b"last")))  # most of the window is consumed, none dropped yet
    expected = [("Message", b"%d" % i, 2) for i in range(15, 20)]
    assert gist(conn.events()) == [*expected, ("Ping", b"new"), ("Message", b"last", 2)]
    assert len(sent(conn)) <= 21
    assert conn.stats.pings_received == 21
