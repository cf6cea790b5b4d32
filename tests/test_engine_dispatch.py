"""What adapters use beside messages: dispatch with a budget, both forms of text, what waits for the transport, and the
heartbeat's payload."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, parse_frames, plain

SERVER, CLIENT = 0, 1
COST = 100


def connection(ws: ModuleType, role: int = SERVER, **arguments: Any) -> Any:
    return ws.Connection(ws.Role(role), **arguments)


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def dispatch(conn: Any, *budget: int) -> tuple[list[Any], list[Any]]:
    messages: list[Any] = []
    events: list[Any] = []
    conn.dispatch(messages.append, events.append, *budget)
    return messages, plain(events)


def output(conn: Any) -> list[tuple[int, bytes]]:
    return [(first, payload) for first, _, payload in parse_frames(b"".join(conn.data_to_send()))]


# The budget


@pytest.mark.parametrize("size", [0, 1, 500, 5000])
@pytest.mark.parametrize("budget", [0, 1, 99, 100, 1000, 10_000])
@pytest.mark.parametrize("first", [0x81, 0x82])
def test_a_budget_stops_after_the_message_that_passes_it(ws: ModuleType, size: int, budget: int, first: int) -> None:
    conn = connection(ws)
    total = 30
    conn.receive_data(to(SERVER, *[(first, bytes(size))] * total))
    at_once = budget // (size + COST) + 1
    told = 0
    while told < total:
        messages, events = dispatch(conn, budget)
        told += len(messages)
        assert events == []
        assert len(messages) == min(at_once, total - told + len(messages))
        if told < total:
            assert conn.paused
            assert dispatch(conn, budget) == ([], [])  # until resume
            conn.resume()
    assert conn.stats.messages_received == total


def test_no_budget(ws: ModuleType) -> None:
    for budget in ((), (ws.constants.NO_BUDGET,)):
        conn = connection(ws)
        conn.receive_data(to(SERVER, *[(0x82, bytes(1000))] * 60))
        messages, _ = dispatch(conn, *budget)
        assert len(messages) == 60
        assert not conn.paused


def test_a_budget_counts_what_comes_of_compressed_messages(ws: ModuleType) -> None:
    parameters = ws.deflate.DeflateParameters()
    sender, receiver = (
        connection(ws, role, deflate=ws.deflate.PerMessageDeflate(ws.Role(role), parameters))
        for role in (CLIENT, SERVER)
    )
    for _ in range(10):
        sender.send_binary(bytes(100_000))
    for chunk in sender.data_to_send():
        receiver.receive_data(chunk)
    for _ in range(10):
        messages, _ = dispatch(receiver, 2**16)
        assert messages == [bytes(100_000)]
        receiver.resume()
    assert dispatch(receiver) == ([], [])


def test_fragmented_messages_count_once(ws: ModuleType) -> None:
    conn = connection(ws)
    conn.receive_data(to(SERVER, *[(0x02, b"a"), (0x00, b"b"), (0x80, b"c")] * 10))
    messages, _ = dispatch(conn, 3 * (3 + COST))
    assert messages == [b"abc"] * 4
    conn.resume()
    assert dispatch(conn)[0] == [b"abc"] * 6


@pytest.mark.parametrize("delivery", ["frame", "chunk"])
def test_fragments_do_not_count(ws: ModuleType, delivery: str) -> None:
    """Who takes messages in pieces pauses as it likes."""
    conn = connection(ws, delivery=delivery)
    conn.receive_data(to(SERVER, *[(0x82, bytes(1000))] * 10))
    messages, events = dispatch(conn, 100)
    assert messages == []
    assert len(events) == 10
    assert not conn.paused


def test_control_frames_behind_a_spent_budget_are_answered(ws: ModuleType) -> None:
    conn = connection(ws)
    conn.receive_data(to(SERVER, (0x81, b"1"), (0x81, b"2"), (0x89, b"ping"), (0x81, b"3")))
    messages, events = dispatch(conn, 0)
    assert messages == ["1"]
    assert events == [("Ping", b"ping")]
    assert output(conn) == [(0x8A, b"ping")]
    conn.resume()
    assert dispatch(conn)[0] == ["2", "3"]


def test_a_budget_holds_back_the_end_too(ws: ModuleType) -> None:
    for end in ("close", "eof"):
        conn = connection(ws)
        frames = [(0x81, b"1"), (0x81, b"2")] + ([(0x88, b"\x03\xe8")] if end == "close" else [])
        conn.receive_data(to(SERVER, *frames))
        if end == "eof":
            conn.receive_eof()
        assert dispatch(conn, 0) == (["1"], [])
        conn.resume()
        messages, events = dispatch(conn, 1000)
        assert messages == ["2"]
        assert events[-1][0] == "Closed"


def test_a_callback_may_resume(ws: ModuleType) -> None:
    """The budget is spent all the same: each message more pauses again."""
    conn = connection(ws)
    conn.receive_data(to(SERVER, *[(0x81, b"x")] * 10))
    messages: list[str] = []

    def on_message(message: str) -> None:
        messages.append(message)
        if len(messages) < 5:
            conn.resume()

    conn.dispatch(on_message, None, 0)
    assert len(messages) == 5
    assert conn.paused


def test_an_exception_of_the_message_that_spends_the_budget(ws: ModuleType) -> None:
    conn = connection(ws)
    conn.receive_data(to(SERVER, *[(0x81, b"x")] * 3))

    def on_message(message: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        conn.dispatch(on_message, None, 0)
    assert conn.paused
    conn.resume()
    assert dispatch(conn)[0] == ["x", "x"]  # what was told is not told again


def test_paused(ws: ModuleType) -> None:
    conn = connection(ws)
    assert not conn.paused
    conn.pause()
    assert conn.paused
    conn.resume()
    assert not conn.paused


# Text as str and as bytes


TEXT = "é€😀"
WIRE = TEXT.encode()


@pytest.mark.parametrize("first", [True, False])
def test_decode_text_may_be_set(ws: ModuleType, first: bool) -> None:
    conn = connection(ws, decode_text=first)
    assert conn.decode_text is first
    for decode in (first, not first, first, not first):
        conn.decode_text = decode
        assert conn.decode_text is decode
        fragments = [(0x01, WIRE[:1]), (0x00, WIRE[1:3]), (0x80, WIRE[3:])]
        conn.receive_data(to(SERVER, (0x81, WIRE), *fragments, (0x82, WIRE), (0x81, b"")))
        text: Any = TEXT if decode else WIRE
        messages, _ = dispatch(conn)
        assert messages == [text, text, WIRE, text[:0]]
        assert [type(message) for message in messages] == [type(text), type(text), bytes, type(text)]


@pytest.mark.parametrize("decode", [True, False])
def test_a_message_that_has_begun_stays_as_it_is(ws: ModuleType, decode: bool) -> None:
    for delivery in ("message", "frame"):
        conn = connection(ws, decode_text=decode, delivery=delivery)
        conn.receive_data(to(SERVER, (0x01, WIRE[:2])))
        conn.events()
        conn.decode_text = not decode
        conn.receive_data(to(SERVER, (0x80, WIRE[2:]), (0x81, WIRE)))
        events = conn.events()
        kinds = (str, bytes) if decode else (bytes, str)
        assert (type(events[0].data), type(events[1].data)) == kinds


def test_setting_it_within_a_callback(ws: ModuleType) -> None:
    conn = connection(ws)
    conn.receive_data(to(SERVER, *[(0x81, WIRE)] * 4))
    messages: list[Any] = []

    def on_message(message: Any) -> None:
        messages.append(message)
        conn.decode_text = not conn.decode_text

    conn.dispatch(on_message, None)
    assert messages == [TEXT, WIRE, TEXT, WIRE]


def test_undecoded_text_is_checked_after_the_change(ws: ModuleType) -> None:
    conn = connection(ws)
    conn.decode_text = False
    conn.receive_data(to(SERVER, (0x81, b"fine"), (0x81, b"\xff")))
    messages, events = dispatch(conn)
    assert messages == [b"fine"]
    assert events[-1][:2] == ("Closed", 1007)


def test_message_opcode(ws: ModuleType) -> None:
    """Right within the callback too, behind a look-ahead or a fragment of the next message."""
    conn = connection(ws, decode_text=False)
    frames = [(0x81, b"1"), (0x82, b"2"), (0x01, b"3"), (0x89, b""), (0x80, b""), (0x82, b""), (0x81, b""), (0x02, b"")]
    conn.receive_data(to(SERVER, *frames))
    told: list[Any] = []
    conn.dispatch(lambda data: told.append((data, conn.message_opcode)), lambda event: None)
    opcode = ws.Opcode
    assert told == [
        (b"1", opcode.TEXT),
        (b"2", opcode.BINARY),
        (b"3", opcode.TEXT),
        (b"", opcode.BINARY),
        (b"", opcode.TEXT),
    ]
    assert all(kind is opcode.TEXT or kind is opcode.BINARY for _, kind in told)


# What waits


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_output_size(ws: ModuleType, role: int) -> None:
    conn = connection(ws, role)
    head = 2 if role == SERVER else 6
    assert conn.output_size == 0
    assert not conn.has_output
    conn.send_text("hello")
    assert conn.output_size == head + 5
    conn.send_binary(bytes(100_000))  # by reference
    assert conn.output_size == head + 5 + head + 8 + 100_000
    conn.send_ping(b"x")
    total = conn.output_size
    assert total == 3 * head + 8 + 5 + 100_000 + 1
    assert conn.has_output
    assert sum(map(len, conn.data_to_send())) == total
    assert conn.output_size == 0
    assert not conn.has_output


def test_output_size_with_replaced_pongs(ws: ModuleType) -> None:
    conn = connection(ws)
    for i in range(100):
        conn.receive_data(to(SERVER, (0x89, b"%03d" % i)))
        conn.events()
    size = conn.output_size
    assert size <= sum(map(len, conn.data_to_send())) <= size + 127  # the latest one may be replaced yet
    assert conn.output_size == 0


def test_is_open(ws: ModuleType) -> None:
    conn = connection(ws)
    assert conn.is_open
    conn.send_close()
    assert not conn.is_open
    conn = connection(ws)
    conn.receive_data(to(SERVER, (0x88, b"\x03\xe8")))
    assert conn.is_open  # nobody has looked
    conn.events()
    assert not conn.is_open
    conn = connection(ws)
    conn.receive_eof()
    assert not conn.is_open
    conn = connection(ws)
    conn.fail()
    assert not conn.is_open
    assert conn.state is ws.State.CLOSED


@pytest.mark.parametrize("compress", [None, True, False])
def test_send_fragment_where_nothing_was_agreed_on(ws: ModuleType, compress: bool | None) -> None:
    conn = connection(ws)
    conn.send_fragment("a" * 100, first=True, fin=False, compress=compress)
    conn.send_fragment("b" * 100, first=False, fin=True, compress=compress)
    assert output(conn) == [(0x01, b"a" * 100), (0x80, b"b" * 100)]


@pytest.mark.parametrize("compress", [None, True, False])
@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_the_first_fragment_decides_whether_a_message_is_compressed(
    ws: ModuleType, role: int, compress: bool | None
) -> None:
    parameters = ws.deflate.DeflateParameters()
    sender, receiver = (
        connection(ws, each, deflate=ws.deflate.PerMessageDeflate(ws.Role(each), parameters))
        for each in (role, 1 - role)
    )
    for later in (None, True, False):  # has no say
        sender.send_fragment("a" * 100, first=True, fin=False, compress=compress)
        sender.send_fragment("é" * 100, first=False, fin=False, compress=later)
        sender.send_fragment("", first=False, fin=True, compress=later)
        wire = b"".join(sender.data_to_send())
        rsv1 = 0x40 if compress is not False else 0
        assert [first for first, _, _ in parse_frames(wire)] == [0x01 | rsv1, 0x00, 0x80]
        assert len(wire) < 100 or not rsv1
        receiver.receive_data(wire)
        assert dispatch(receiver)[0] == ["a" * 100 + "é" * 100]


# The heartbeat


def beating(ws: ModuleType, payload: Any, **arguments: Any) -> Any:
    conn = connection(ws, keepalive=ws.Keepalive(10.0, 10.0, payload), **arguments)
    conn.handle_timeout(0.0)
    return conn


def test_a_heartbeat_of_bytes(ws: ModuleType) -> None:
    beats = iter([b"one", b"two", b""])
    conn = beating(ws, lambda: next(beats))
    for now, beat in ((10.0, b"one"), (20.0, b"two"), (30.0, b"")):
        conn.handle_timeout(now)
        assert output(conn) == [(0x89, beat)]
        conn.receive_data(to(SERVER, (0x8A, beat)))
        [pong] = conn.events()
        assert pong.acknowledged == (beat,)
        assert pong.sent_at == now


def test_a_heartbeat_of_text(ws: ModuleType) -> None:
    conn = beating(ws, lambda: '{"op":"é"}')
    conn.handle_timeout(10.0)
    assert output(conn) == [(0x81, '{"op":"é"}'.encode())]
    conn.receive_data(to(SERVER, (0x81, b"{}")))
    conn.events()
    conn.handle_timeout(20.0)
    assert conn.is_open
    conn.handle_timeout(30.0)
    conn.events()
    assert not conn.is_open  # silent since


def test_a_heartbeat_of_text_amid_a_message_is_a_ping(ws: ModuleType) -> None:
    conn = beating(ws, lambda: "beat")
    conn.send_fragment("a", first=True, fin=False)
    conn.handle_timeout(10.0)
    conn.send_fragment("b", first=False, fin=True)
    first, beat, last = output(conn)
    assert (first, last) == ((0x01, b"a"), (0x80, b"b"))
    assert beat[0] == 0x89
    assert len(beat[1]) == 4


@pytest.mark.parametrize("payload", [lambda: bytes(126), lambda: "\ud800", lambda: 1 // 0, lambda: 1])
def test_a_heartbeat_that_fails_raises_once(ws: ModuleType, payload: Any) -> None:
    """The adapter is told; it may go on."""
    conn = beating(ws, payload)
    with pytest.raises((ws.LocalProtocolError, ZeroDivisionError, TypeError)):
        conn.handle_timeout(10.0)
    conn.handle_timeout(10.0)
    assert conn.is_open
    assert not conn.has_output
    assert conn.next_deadline() == 20.0


def test_no_heartbeat_is_made_when_none_is_due(ws: ModuleType) -> None:
    made: list[int] = []
    conn = beating(ws, lambda: made.append(1) or b"")
    for now in (0.0, 5.0, 9.9):
        conn.handle_timeout(now)
    assert made == []
    conn.send_close()
    conn.handle_timeout(20.0)
    assert made == []


# A peer that takes nothing, and is not read for it


def fill(conn: Any) -> None:
    conn.pause()
    while not conn.read_ahead_full:
        conn.receive_data(to(SERVER, (0x82, bytes(10_000))))
    conn.events()


def test_who_takes_nothing_is_lost_although_we_do_not_read(ws: ModuleType) -> None:
    conn = connection(ws, keepalive=ws.Keepalive(20.0, 20.0))
    conn.handle_timeout(0.0)
    fill(conn)
    conn.send_binary(b"waits")
    conn.handle_timeout(20.0)
    conn.handle_timeout(39.9)
    assert conn.is_open
    conn.handle_timeout(40.0)
    assert conn.close_transport is ws.CloseTransport.ABORT


def test_who_takes_the_ping_is_excused_until_it_takes_nothing_more(ws: ModuleType) -> None:
    conn = connection(ws, keepalive=ws.Keepalive(20.0, 20.0))
    conn.handle_timeout(0.0)
    fill(conn)
    now = 0.0
    for _ in range(10):
        now += 20.0
        conn.handle_timeout(now)
        conn.data_to_send()
    assert conn.is_open
    for _ in range(4):
        now += 20.0
        conn.handle_timeout(now)
    assert conn.close_transport is ws.CloseTransport.ABORT


def test_output_at_the_deadline_only_is_no_stall(ws: ModuleType) -> None:
    conn = connection(ws, keepalive=ws.Keepalive(20.0, 20.0))
    conn.handle_timeout(0.0)
    fill(conn)
    for now in range(20, 400, 20):
        conn.send_binary(b"just sent")
        conn.handle_timeout(float(now))
        conn.data_to_send()
    assert conn.is_open
