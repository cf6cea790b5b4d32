"""Pings, pongs and the closing handshake, from both ends, in every order."""

from __future__ import annotations

import contextlib
import pickle
import random
from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, parse_frames, plain
from naive import gist, legal_close_code

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def connect(ws: ModuleType, role: int = CLIENT, **arguments: Any) -> Any:
    return ws.Connection(ws.Role(role), **arguments)


def feed(conn: Any, *frames: tuple[int, bytes]) -> list[Any]:
    conn.receive_data(to(conn.role, *frames))
    return gist(conn.events())


def sent(conn: Any) -> list[tuple[int, bytes]]:
    return [(first, payload) for first, _, payload in parse_frames(b"".join(conn.data_to_send()))]


def outcome(conn: Any) -> tuple[Any, ...]:
    """All that a connection says about its state."""
    return (
        conn.state.name,
        conn.close_code,
        conn.close_reason,
        plain(conn.close_error),
        conn.close_rcvd and (conn.close_rcvd.code, conn.close_rcvd.reason),
        conn.close_sent and (conn.close_sent.code, conn.close_sent.reason),
        conn.close_rcvd_then_sent,
        conn.close_transport.name,
        conn.has_output,
    )


# -- pings and pongs --------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_pings_are_answered_in_order(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    payloads = [b"", b"a", bytes(125), b"\xff\xfe"]
    assert feed(conn, *[(0x89, payload) for payload in payloads]) == [("Ping", payload) for payload in payloads]
    assert sent(conn) == [(0x8A, payload) for payload in payloads]  # RFC 6455 5.5.3: identical application data


def test_pings_are_not_answered_without_auto_reply(ws: ModuleType) -> None:
    conn = connect(ws, auto_reply=False)
    assert feed(conn, (0x89, b"a")) == [("Ping", b"a")]
    assert not conn.has_output
    conn.send_pong(b"a")
    assert sent(conn) == [(0x8A, b"a")]


def test_a_ping_flood_costs_nothing(ws: ModuleType) -> None:
    """Undrained, few pongs wait and the latest ping is answered (RFC 6455 5.5.3; reliability 1.3)."""
    conn = connect(ws, SERVER, limits=ws.Limits(max_control_rate=None))
    for i in range(20_000):
        conn.receive_data(to(SERVER, (0x89, i.to_bytes(125, "big"))))
        conn.next_event()
    waiting = sent(conn)
    numbers = [int.from_bytes(payload, "big") for first, payload in waiting if first == 0x8A]
    assert len(numbers) == len(waiting) <= 20
    assert numbers == sorted(numbers)
    assert numbers[-1] == 19_999
    assert feed(conn, (0x89, b"next")) == [("Ping", b"next")]
    assert sent(conn) == [(0x8A, b"next")]


def test_a_ping_flood_between_messages_of_ours(ws: ModuleType) -> None:
    """Pongs are dropped, never data; and the Close frame stays the last frame."""
    conn = connect(ws, SERVER)
    for i in range(40):
        feed(conn, (0x89, b"%d" % i))
        conn.send_text(f"m{i}")
    conn.send_close()
    frames = sent(conn)
    assert [payload for first, payload in frames if first == 0x81] == [b"m%d" % i for i in range(40)]
    assert [payload for first, payload in frames if first == 0x8A][-1] == b"39"
    assert frames[-1] == (0x88, b"\x03\xe8")


@pytest.mark.parametrize("role", ROLES)
def test_pongs_acknowledge(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    for payload in (b"1", b"2", b"3", b"4"):
        assert conn.send_ping(payload) == payload
    assert feed(conn, (0x8A, b"2")) == [("Pong", b"2", (b"1", b"2"))]  # RFC 6455 5.5.3
    assert feed(conn, (0x8A, b"2")) == [("Pong", b"2", ())]
    assert feed(conn, (0x8A, b"1")) == [("Pong", b"1", ())]
    assert feed(conn, (0x8A, b"x")) == [("Pong", b"x", ())]
    assert feed(conn, (0x8A, b"4"), (0x8A, b"3")) == [("Pong", b"4", (b"3", b"4")), ("Pong", b"3", ())]
    assert conn.send_ping(b"2") == b"2"  # free again
    assert sent(conn) == [(0x89, payload) for payload in (b"1", b"2", b"3", b"4", b"2")]
    assert conn.stats.pongs_received == 6


def test_pings_of_our_own(ws: ModuleType) -> None:
    conn = connect(ws)
    drawn = [conn.send_ping() for _ in range(50)]
    assert len(set(drawn)) == 50
    assert all(type(payload) is bytes and len(payload) == 4 for payload in drawn)
    assert conn.send_ping("é") == "é".encode()
    assert conn.send_ping(bytearray(b"x")) == b"x"
    assert type(conn.send_ping(memoryview(b"y"))) is bytes
    (event,) = feed(conn, (0x8A, b"y"))
    assert event == ("Pong", b"y", (*drawn, "é".encode(), b"x", b"y"))


def test_pongs_unasked_for(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.send_pong()
    conn.send_pong("é")
    conn.send_pong(bytes(125))
    assert sent(conn) == [(0x8A, b""), (0x8A, "é".encode()), (0x8A, bytes(125))]


# -- the closing handshake ------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "transport"),
    [(SERVER, "CLOSE"), (CLIENT, "KEEP")],  # RFC 6455 7.1.1: the server closes TCP first
)
def test_peer_closes(ws: ModuleType, role: int, transport: str) -> None:
    conn = connect(ws, role)
    assert feed(conn, (0x88, b"\x0f\xa0bye")) == [("CloseReceived", 4000, "bye"), ("Closed", 4000, "bye", None)]
    assert outcome(conn) == (*("CLOSED", 4000, "bye", None, (4000, "bye"), (4000, "bye"), True, transport, True),)
    assert sent(conn) == [(0x88, b"\x0f\xa0bye")]
    conn.receive_eof()
    assert conn.events() == []
    assert conn.close_transport is ws.CloseTransport.CLOSE


@pytest.mark.parametrize(("role", "transport"), [(SERVER, "CLOSE"), (CLIENT, "KEEP")])
def test_we_close(ws: ModuleType, role: int, transport: str) -> None:
    conn = connect(ws, role)
    conn.send_close(1001, "going")
    assert outcome(conn) == ("CLOSING", None, None, None, None, (1001, "going"), None, "KEEP", True)
    assert sent(conn) == [(0x88, b"\x03\xe9going")]
    # RFC 6455 5.5.1: what the peer sent before its Close frame still counts
    assert feed(conn, (0x81, b"late"), (0x01, b"a"), (0x80, b"b")) == [("Message", "late", 1), ("Message", "ab", 1)]
    assert conn.state is ws.State.CLOSING
    assert feed(conn, (0x88, b"\x03\xe8"), (0x81, b"x")) == [("CloseReceived", 1000, ""), ("Closed", 1000, "", None)]
    assert outcome(conn) == ("CLOSED", 1000, "", None, (1000, ""), (1001, "going"), False, transport, False)


@pytest.mark.parametrize("role", ROLES)
def test_closes_cross(ws: ModuleType, role: int) -> None:
    """Both ends close at once: each takes the other's frame for the answer."""
    ends = [connect(ws, SERVER), connect(ws, CLIENT)]
    ends[0].send_close(1000, "server")
    ends[1].send_close(4001, "client")
    wires = [b"".join(end.data_to_send()) for end in ends]
    for end, wire in zip(ends, reversed(wires), strict=True):
        end.receive_data(wire)
        end.events()
        assert end.state is ws.State.CLOSED
        assert end.close_rcvd_then_sent is False
        assert not end.has_output
    assert (ends[0].close_code, ends[1].close_code) == (4001, 1000)


def test_close_without_code(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.send_close(1005)
    assert sent(conn) == [(0x88, b"")]
    assert feed(conn, (0x88, b"")) == [("CloseReceived", 1005, ""), ("Closed", 1005, "", None)]
    assert conn.close_code == 1005


@pytest.mark.parametrize("role", ROLES)
def test_the_user_answers_the_close(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role, auto_reply=False)
    assert feed(conn, (0x88, b"\x03\xe9x"), (0x81, b"no")) == [("CloseReceived", 1001, "x")]
    assert outcome(conn) == ("CLOSING", None, None, None, (1001, "x"), None, None, "KEEP", False)
    with pytest.raises(ws.InvalidState):
        conn.send_text("no")
    conn.send_pong(b"still allowed")
    conn.receive_data(to(role, (0x81, b"ignored"), (0x89, b"")))
    assert conn.events() == []
    conn.send_close(4000, "mine")
    assert sent(conn) == [(0x8A, b"still allowed"), (0x88, b"\x0f\xa0mine")]
    assert gist(conn.events()) == [("Closed", 1001, "x", None)]  # RFC 6455 7.1.5: the peer's code
    transport = "CLOSE" if role == SERVER else "KEEP"
    assert outcome(conn) == ("CLOSED", 1001, "x", None, (1001, "x"), (4000, "mine"), True, transport, False)


@pytest.mark.parametrize("role", ROLES)
def test_the_user_never_answers_the_close(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role, auto_reply=False)
    feed(conn, (0x88, b"\x03\xe9x"))
    conn.receive_eof()
    assert gist(conn.events()) == [("Closed", 1001, "x", None)]
    assert outcome(conn) == ("CLOSED", 1001, "x", None, (1001, "x"), None, None, "CLOSE", False)


def test_pings_after_our_close(ws: ModuleType) -> None:
    """RFC 6455 5.5.2: a Ping is answered unless a Close frame was *received*."""
    conn = connect(ws)
    conn.send_close()
    assert feed(conn, (0x89, b"a")) == [("Ping", b"a")]
    assert sent(conn) == [(0x88, b"\x03\xe8"), (0x8A, b"a")]


# -- end of the transport, in each state ---------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_eof_while_open(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    conn.receive_data(to(role, (0x81, b"last")))
    conn.receive_eof()
    assert conn.close_transport is ws.CloseTransport.CLOSE
    assert gist(conn.events()) == [("Message", "last", 1), ("Closed", 1006, None)]
    assert outcome(conn) == ("CLOSED", 1006, "", None, None, None, None, "CLOSE", False)
    conn.receive_eof()
    assert conn.events() == []


@pytest.mark.parametrize("role", ROLES)
def test_eof_after_our_close(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    conn.send_close(1000, "x")
    conn.receive_eof()
    assert gist(conn.events()) == [("Closed", 1006, None)]
    assert outcome(conn) == ("CLOSED", 1006, "", None, None, (1000, "x"), None, "CLOSE", True)


@pytest.mark.parametrize("role", ROLES)
def test_eof_after_a_violation(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    assert feed(conn, (0x83, b"")) == [("Closed", 1002, "error")]
    code, reason, error = conn.close_code, conn.close_reason, conn.close_error
    assert (code, error.code, error.reason) == (1002, 1002, reason)
    assert type(error).__name__ == "RemoteProtocolError"
    assert outcome(conn) == ("CLOSED", 1002, reason, plain(error), None, (1002, reason), None, "SHUTDOWN", True)
    conn.receive_data(b"whatever" * 100)
    conn.get_buffer()[:3] = b"abc"
    conn.buffer_updated(3)
    assert conn.events() == []
    conn.receive_eof()
    assert conn.events() == []
    assert conn.close_transport is ws.CloseTransport.CLOSE


@pytest.mark.parametrize("role", ROLES)
def test_a_violation_after_our_close(ws: ModuleType, role: int) -> None:
    """No second Close frame."""
    conn = connect(ws, role)
    conn.send_close()
    sent(conn)
    assert feed(conn, (0x83, b""), (0x88, b"\x03\xe8")) == [("Closed", 1002, "error")]
    assert not conn.has_output
    assert conn.close_transport is ws.CloseTransport.SHUTDOWN
    assert conn.close_sent.code == 1000


# -- fail --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_fail(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    conn.receive_data(to(role, (0x81, b"never told")))
    conn.send_text("before")
    conn.fail(1008, "policy")
    assert conn.state is ws.State.CLOSED
    ((_, code, reason, error),) = [plain(event) for event in conn.events()]
    assert (code, reason) == (1008, "policy")
    assert error == ("LocalProtocolError", "policy")
    assert conn.close_transport is ws.CloseTransport.SHUTDOWN
    conn.fail(1011)  # does nothing
    assert sent(conn) == [(0x81, b"before"), (0x88, b"\x03\xf0policy")]
    assert conn.events() == []
    for code, reason in ((1006, ""), (1000, "x" * 124)):
        with pytest.raises(ws.LocalProtocolError):
            connect(ws, role).fail(code, reason)


def test_fail_by_default(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.fail()
    assert sent(conn) == [(0x88, b"\x03\xf3")]


def test_fail_after_our_close(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.send_close(1000)
    conn.fail(1011, "x")
    assert sent(conn) == [(0x88, b"\x03\xe8")]
    assert gist(conn.events()) == [("Closed", 1011, "error")]
    assert conn.close_sent.code == 1000


def test_fail_after_the_peers_close(ws: ModuleType) -> None:
    conn = connect(ws, auto_reply=False)
    feed(conn, (0x88, b"\x03\xe9bye"))
    conn.fail(1011, "x")
    assert sent(conn) == [(0x88, b"\x03\xf3x")]
    assert gist(conn.events()) == [("Closed", 1001, "error")]  # RFC 6455 7.1.5: the peer's
    assert conn.close_rcvd_then_sent is True


# -- what may be sent: codes, reasons, states -------------------------------------------------


def test_every_close_code_sent(ws: ModuleType) -> None:
    """We never put an illegal code on the wire (reliability 1.2); 1005 stands for a frame without code."""
    for code in [*range(-3, 5100), 9999, 2**15, 2**16 - 1, 2**16, 2**16 + 1000, 2**31 - 1, 2**31, 2**63, 2**64 + 1000]:
        conn = connect(ws)
        before = outcome(conn)
        if code == 1005 or legal_close_code(code):
            conn.send_close(code)
            assert sent(conn) == [(0x88, b"" if code == 1005 else code.to_bytes(2, "big"))]
        else:
            with pytest.raises(ws.LocalProtocolError):
                conn.send_close(code)
            assert outcome(conn) == before
            with pytest.raises(ws.LocalProtocolError):
                conn.fail(code)
            assert outcome(conn) == before


BAD_REASONS = [(1000, "x" * 124), (1000, "é" * 62), (1005, "x"), (1000, "\ud800"), (1000, "a\udcff")]


@pytest.mark.parametrize(("code", "reason"), BAD_REASONS)
def test_reasons_that_must_not_be_sent(ws: ModuleType, code: int, reason: str) -> None:
    conn = connect(ws)
    before = outcome(conn)
    for send in (conn.send_close, conn.fail):
        with pytest.raises(ws.LocalProtocolError):
            send(code, reason)
        assert outcome(conn) == before
    conn.send_close(1000, "é" * 61 + "x")  # 123 bytes
    assert sent(conn) == [(0x88, b"\x03\xe8" + "é".encode() * 61 + b"x")]


@pytest.mark.parametrize("arguments", [("1000",), (None,), ([],), (1000, None), (1000, b"bye"), (1000, 5)])
def test_close_of_the_wrong_types(ws: ModuleType, arguments: tuple[Any, ...]) -> None:
    conn = connect(ws)
    before = outcome(conn)
    for send in (conn.send_close, conn.fail):
        with pytest.raises(TypeError):
            send(*arguments)
        assert outcome(conn) == before


MISUSE = [
    lambda conn: conn.send_text("a"),
    lambda conn: conn.send_binary(b"a"),
    lambda conn: conn.send_fragment("a", first=True, fin=True),
    lambda conn: conn.send_ping(),
    lambda conn: conn.send_ping(b"x"),
    lambda conn: conn.send_pong(),
    lambda conn: conn.send_close(),
]


@pytest.mark.parametrize("use", range(len(MISUSE)))
@pytest.mark.parametrize("how", ["closing", "closed", "failed", "eof"])
def test_nothing_is_sent_after_the_close_frame(ws: ModuleType, use: int, how: str) -> None:
    conn = connect(ws)
    if how == "failed":
        conn.fail()
    elif how == "eof":
        conn.receive_eof()
        conn.events()
    else:
        conn.send_close()
        if how == "closed":
            feed(conn, (0x88, b""))
    before = outcome(conn)
    with pytest.raises(ws.InvalidState):
        MISUSE[use](conn)
    assert outcome(conn) == before
    assert [first for first, _ in sent(conn)] == ([] if how == "eof" else [0x88])
    assert issubclass(ws.InvalidState, ws.LocalProtocolError)


@pytest.mark.parametrize("payload", [bytes(126), "é" * 63, bytearray(200)])
def test_control_payloads_that_are_too_long(ws: ModuleType, payload: Any) -> None:
    conn = connect(ws)
    for send in (conn.send_ping, conn.send_pong):
        with pytest.raises(ws.LocalProtocolError):
            send(payload)
    for send in (conn.send_ping, conn.send_pong):
        with pytest.raises(ws.LocalProtocolError):
            send("\ud800")
        for wrong in (5, [1], 1.5):
            with pytest.raises(TypeError):
                send(wrong)
    assert not conn.has_output
    assert feed(conn, (0x8A, bytes(126)[:125])) == [("Pong", bytes(125), ())]


def test_a_ping_that_still_waits(ws: ModuleType) -> None:
    conn = connect(ws)
    conn.send_ping(b"a")
    with pytest.raises(ws.LocalProtocolError):
        conn.send_ping(b"a")
    assert sent(conn) == [(0x89, b"a")]
    assert feed(conn, (0x8A, b"a")) == [("Pong", b"a", (b"a",))]


# -- close_transport only grows, the state only goes on -------------------------------------------


def test_random_lives(ws: ModuleType) -> None:
    """Whatever happens in whatever order: one Closed event, the last one; at most one Close frame; monotonic."""
    for seed in range(400):
        rng = random.Random(seed)
        conn = connect(ws, rng.choice(ROLES), auto_reply=rng.random() < 0.7, keepalive=ws.Keepalive(20, 20))
        told: list[Any] = []
        output = b""
        now = 0.0
        transport, state = 0, 1

        def step(conn: Any, rng: random.Random) -> None:
            what = rng.choice(["feed", "bad", "close", "eof", "send", "send_close", "fail", "time", "ping", "pause"])
            if what == "feed":
                first = rng.choice([(0x81, b"x"), (0x89, b"x"), (0x8A, b"x")])
                if not conn.read_ahead_full:
                    conn.receive_data(to(conn.role, first))
            elif what == "bad" and rng.random() < 0.3:
                conn.receive_data(to(conn.role, (0x83, b"")))
            elif what == "close":
                conn.receive_data(to(conn.role, (0x88, b"\x03\xe9")))
            elif what == "eof" and rng.random() < 0.3:
                conn.receive_eof()
            elif what == "send":
                conn.send_text("x")
            elif what == "send_close" and rng.random() < 0.5:
                conn.send_close(4000)
            elif what == "fail" and rng.random() < 0.2:
                conn.fail(1011)
            elif what == "ping":
                conn.send_ping()
            elif what == "pause":
                rng.choice([conn.pause, conn.resume])()

        for _ in range(rng.randrange(1, 30)):
            with contextlib.suppress(ws.LocalProtocolError):
                step(conn, rng)
            now += rng.choice([0.0, 1.0, 11.0])
            conn.handle_timeout(now)
            told += gist(conn.events())
            output += b"".join(conn.data_to_send())
            assert conn.close_transport >= transport
            assert conn.state >= state
            transport, state = conn.close_transport, conn.state
            deadline = conn.next_deadline()
            assert deadline is None or deadline == 0.0 or deadline > now, f"seed {seed}: a deadline in the past"
        closed = [i for i, event in enumerate(told) if event[0] == "Closed"]
        assert len(closed) <= 1
        if closed:
            assert closed[0] == len(told) - 1
            assert conn.state is ws.State.CLOSED
            assert conn.close_code == told[-1][1]
        frames = [first for first, _, _ in parse_frames(output)]
        assert frames.count(0x88) <= 1
        if 0x88 in frames:
            assert conn.close_sent is not None
            assert set(frames[frames.index(0x88) + 1 :]) <= {0x8A}


ENDINGS = [
    # sent, received (None: EOF), OK?                                   7.4.1
    (1000, b"\x03\xe8", True),
    (1001, b"\x03\xe8", True),
    (1005, b"", True),
    (1000, b"\x03\xe9bye", True),
    (1000, b"\x03\xf3", False),
    (1011, b"\x03\xe8", False),
    (4000, b"\x0f\xa0", False),
    (1000, None, False),
    (None, b"\x03\xe8", True),
    (None, b"\x0f\xa0", False),
    (None, None, False),
]


@pytest.mark.parametrize(("code", "answer", "ok"), ENDINGS)
def test_closed_exception(ws: ModuleType, code: int | None, answer: bytes | None, ok: bool) -> None:
    conn = connect(ws)
    if code is not None:
        conn.send_close(code)
    if answer is not None:
        feed(conn, (0x88, answer))
    conn.receive_eof()
    conn.events()
    error = conn.closed_exception()
    assert type(error) is (ws.ConnectionClosedOK if ok else ws.ConnectionClosedError)
    assert (error.rcvd, error.sent, error.rcvd_then_sent) == (
        *(conn.close_rcvd, conn.close_sent, conn.close_rcvd_then_sent),
    )
    assert error.__cause__ is None
    assert conn.closed_exception() is not error


def test_closed_exception_has_its_cause(ws: ModuleType) -> None:
    conn = connect(ws)
    feed(conn, (0x83, b""))
    error = conn.closed_exception()
    assert type(error) is ws.ConnectionClosedError
    assert error.__cause__ is conn.close_error is not None


def test_a_payload_that_was_drawn_before(ws: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random payload that still waits for its pong is not used again."""
    if ws._codec.COMPILED:
        pytest.skip("the compiled build's random source cannot be replaced")
    keys = iter([1, 1, 1, 2])
    monkeypatch.setattr(ws.connection, "new_key", lambda: next(keys))
    conn = connect(ws, SERVER)
    assert [conn.send_ping(), conn.send_ping()] == [b"\x01\0\0\0", b"\x02\0\0\0"]


# -- stats, plain attributes, errors ------------------------------------------------------------------


def test_stats(ws: ModuleType) -> None:
    conn = connect(ws, SERVER)
    wire = to(SERVER, (0x81, b"a"), (0x01, b"b"), (0x80, b"c"), (0x89, b""), (0x8A, b""), (0x8A, b"x"))
    conn.receive_data(wire)
    conn.events()
    conn.send_text("abc")
    conn.send_binary(bytes(5000))
    conn.send_fragment("a", first=True, fin=False)
    conn.send_fragment("b", first=False, fin=True)
    stats = conn.stats
    assert (stats.messages_received, stats.bytes_received, stats.pings_received, stats.pongs_received) == (
        *(2, len(wire), 1, 2),
    )
    assert (stats.messages_sent, stats.bytes_sent) == (3, 0)
    size = sum(map(len, conn.data_to_send()))
    assert conn.stats.bytes_sent == size
    assert conn.data_to_send() == []
    assert conn.stats.bytes_sent == size
    conn.get_buffer()[:2] = to(SERVER, (0x81, b""))[:2]
    conn.buffer_updated(2)
    assert conn.stats.bytes_received == len(wire) + 2
    with pytest.raises(AttributeError):
        conn.stats.bytes_sent = 5  # frozen


def test_bytes_sent_counts_every_pong(ws: ModuleType) -> None:
    for pings in (1, 16, 17, 18, 40):
        conn = connect(ws, SERVER)
        feed(conn, *[(0x89, b"abc")] * pings)
        assert sum(map(len, conn.data_to_send())) == conn.stats.bytes_sent


@pytest.mark.parametrize("delivery", ["message", "frame", "chunk"])
def test_messages_received_counts_whole_messages(ws: ModuleType, delivery: str) -> None:
    conn = connect(ws, delivery=delivery)
    counts = []
    for byte in to(CLIENT, (0x01, b"ab"), (0x00, b""), (0x80, b"c"), (0x82, b""), (0x82, b"xy")):
        conn.receive_data(bytes([byte]))
        conn.events()
        counts.append(conn.stats.messages_received)
    assert counts[-1] == 3
    assert counts[:8] == [0] * 8


def test_subprotocol_is_a_plain_attribute(ws: ModuleType) -> None:
    conn = connect(ws)
    assert conn.subprotocol is None
    conn.subprotocol = "chat"
    assert conn.subprotocol == "chat"
    assert conn.role is ws.Role.CLIENT


def test_errors_pickle(ws: ModuleType) -> None:
    """They cross process borders (multiprocessing, test runners)."""
    if ws.__name__ != "wsproto_fast":
        pytest.skip("the pure copy has no importable name")
    conn = connect(ws, limits=ws.Limits(max_message_size=3))
    feed(conn, (0x81, b"abcd"))
    copy = pickle.loads(pickle.dumps(conn.close_error))
    assert (copy.size, copy.max_size, copy.code, str(copy)) == (4, 3, 1009, str(conn.close_error))
