"""Memory: receive buffers, reading in place, views that somebody still holds, and what an idle connection costs."""

from __future__ import annotations

import gc
import pickle
import random
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, receive_in_place
from naive import gist

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


def connect(ws: ModuleType, role: int = CLIENT, **arguments: Any) -> Any:
    return ws.Connection(ws.Role(role), **arguments)


@pytest.fixture
def hold() -> Iterator[Callable[[memoryview], Any]]:
    """Exports a view as a C caller (uvloop) does: it cannot be released meanwhile."""
    held: list[Any] = []

    def export(view: memoryview) -> Any:
        held.append(pickle.PickleBuffer(view))
        with pytest.raises(BufferError):
            view.release()
        return held[-1]

    yield export
    for holder in held:  # CPython crashes when it collects a cycle with an exported memoryview in it
        holder.release()


def begin_large(conn: Any, size: int = 100_000, first: int = 0x82, fill: bytes = b"x") -> bytes:
    """Announce a payload and feed its first three bytes; returns the rest of the frame."""
    frame = to(conn.role, (first, fill * size))
    cut = len(frame) - size + 3
    conn.receive_data(frame[:cut])
    assert conn.events() == []
    return frame[cut:]


def fill(conn: Any, data: bytes) -> int:
    """One read into the connection's memory."""
    view = conn.get_buffer()
    n = min(len(view), len(data))
    view[:n] = data[:n]
    del view
    conn.buffer_updated(n)
    return n


# -- get_buffer and buffer_updated ----------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("hint", [-1, 0, 1, 10, 2**20])
def test_get_buffer(ws: ModuleType, role: int, hint: int) -> None:
    conn = connect(ws, role)
    view = conn.get_buffer(hint)
    assert type(view) is memoryview
    assert (view.format, view.readonly, view.ndim) == ("B", False, 1)
    assert len(view) >= 1024
    wire = to(role, (0x81, b"a"), (0x82, b"b"))
    view[: len(wire)] = wire
    conn.buffer_updated(len(wire))
    assert gist(conn.events()) == [("Message", "a", 1), ("Message", b"b", 2)]


def test_a_view_is_dead_after_buffer_updated(ws: ModuleType) -> None:
    conn = connect(ws)
    view = conn.get_buffer()
    conn.buffer_updated(0)
    with pytest.raises(ValueError, match="released"):
        view[0] = 1
    rest = begin_large(conn)
    view = conn.get_buffer()
    view[:10] = rest[:10]
    conn.buffer_updated(10)
    conn.events()
    with pytest.raises(ValueError, match="released"):
        view[0] = 1


def test_get_buffer_again_and_again(ws: ModuleType) -> None:
    """A read that brought nothing (EAGAIN) is no buffer_updated."""
    conn = connect(ws)
    for _ in range(5):
        conn.get_buffer()
    fill(conn, b"\x81\x01a")
    assert gist(conn.events()) == [("Message", "a", 1)]
    rest = begin_large(conn)
    for _ in range(5):
        conn.get_buffer()
    while rest:
        conn.get_buffer()
        rest = rest[fill(conn, rest) :]
        events = conn.events()
    assert gist(events) == [("Message", b"x" * 100_000, 2)]


WRONG = [-1, -(2**40), 65537, 2**31, 2**62]


@pytest.mark.parametrize("nbytes", [*WRONG, 2**70])
@pytest.mark.parametrize("large", [False, True])
def test_wrong_nbytes(ws: ModuleType, nbytes: int, large: bool) -> None:
    """LocalProtocolError, and nothing changed: the right number is still welcome."""
    conn = connect(ws)
    wire = begin_large(conn) if large else b"\x81\x01a"
    before = conn.stats
    view = conn.get_buffer()
    data = wire[: len(view)]
    view[: len(data)] = data
    with pytest.raises(ws.LocalProtocolError):
        conn.buffer_updated(nbytes)
    with pytest.raises(ws.LocalProtocolError):
        conn.buffer_updated(len(view) + 1)
    assert conn.stats == before
    conn.buffer_updated(len(data))
    receive_in_place(conn, wire[len(data) :], lambda: None)
    assert gist(conn.events()) == [("Message", b"x" * 100_000, 2) if large else ("Message", "a", 1)]


def test_buffer_updated_without_get_buffer(ws: ModuleType) -> None:
    conn = connect(ws)
    with pytest.raises(ws.LocalProtocolError):
        conn.buffer_updated(1)
    fill(conn, b"\x81")
    with pytest.raises(ws.LocalProtocolError):
        conn.buffer_updated(1)
    conn.receive_data(b"\x01a")
    assert gist(conn.events()) == [("Message", "a", 1)]
    rest = begin_large(conn)
    fill(conn, rest[:10])
    with pytest.raises(ws.LocalProtocolError):
        conn.buffer_updated(1)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("delivery", ["message", "frame", "chunk"])
@pytest.mark.parametrize("size", [32768, 65535, 65536, 65537, 200_000, 1_000_000])
def test_large_payloads_in_place(ws: ModuleType, role: int, delivery: str, size: int) -> None:
    """Whatever the reads bring: the same message, of memory of its own."""
    rng = random.Random(size)
    payload = rng.randbytes(size)
    wire = to(role, (0x02, payload[:100]), (0x80, payload[100:]), (0x81, b"next"))
    for biggest in (5000, 65536, 10**9):
        conn = connect(ws, role, delivery=delivery)
        told: list[Any] = []
        i = 0
        while i < len(wire):
            n = rng.randrange(1, min(biggest, len(wire) - i) + 1)
            i += fill(conn, wire[i : i + n])
            told += conn.events()
        if delivery == "message":
            assert gist(told) == [("Message", payload, 2), ("Message", "next", 1)]
        else:
            data = [event.data for event in told if event.opcode == 2]
            assert b"".join(data) == payload
            assert {type(piece) for piece in data} == {bytes}
        assert conn.stats.bytes_received == len(wire)


def test_in_place_means_in_place(ws: ModuleType) -> None:
    """A read never reaches behind the frame, and room grows with what has come."""
    conn = connect(ws)
    rest = begin_large(conn, 1_000_000)
    rooms = []
    while rest:
        rooms.append(len(conn.get_buffer()))
        rest = rest[fill(conn, rest) :]
        events = conn.events()
    assert gist(events) == [("Message", b"x" * 1_000_000, 2)]
    assert sum(rooms) <= 1_000_000 + 65536
    assert len(rooms) < 12


@pytest.mark.parametrize("role", ROLES)
def test_text_in_place(ws: ModuleType, role: int) -> None:
    text = "aé€\U0001f600" * 20_000
    conn = connect(ws, role)
    rest = to(role, (0x81, text.encode()))
    while rest:
        rest = rest[fill(conn, rest[:33_333]) :]
        events = conn.events()
    assert gist(events) == [("Message", text, 1)]


# -- views that somebody still holds -----------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_a_view_held_during_buffer_updated(ws: ModuleType, hold: Any, large: bool) -> None:
    """uvloop releases its export after buffer_updated returned."""
    conn = connect(ws)
    wire = begin_large(conn, 300_000) if large else to(CLIENT, (0x82, b"abc")) * 50
    told: list[Any] = []
    while wire:
        view = conn.get_buffer()
        holder = hold(view)
        n = min(len(view), len(wire), 40_000 if large else 33)
        view[:n] = wire[:n]
        conn.buffer_updated(n)
        told += gist(conn.events())
        del view
        holder.release()
        wire = wire[n:]
    assert told == [("Message", b"x" * 300_000, 2)] if large else [("Message", b"abc", 2)] * 50


def test_a_view_held_for_ever(ws: ModuleType, hold: Any) -> None:
    """Misuse, but it must neither crash nor change what was told."""
    conn = connect(ws)
    rest = begin_large(conn, 300_000)
    kept: list[Any] = []
    while rest:
        view = conn.get_buffer()
        kept += [hold(view), view]
        n = min(len(view), len(rest))
        view[:n] = rest[:n]
        conn.buffer_updated(n)
        rest = rest[n:]
        events = conn.events()
    for view in kept[1::2]:
        view[:5] = b"wrong"
    assert gist(events) == [("Message", b"x" * 300_000, 2)]
    fill(conn, to(CLIENT, (0x81, b"a")))
    assert gist(conn.events()) == [("Message", "a", 1)]


@pytest.mark.parametrize("large", [False, True])
def test_get_buffer_while_the_last_one_is_held(ws: ModuleType, hold: Any, large: bool) -> None:
    """A cancelled read (proactor, io_uring) may still hold the memory when the next one begins."""
    conn = connect(ws)
    wire = begin_large(conn) if large else to(CLIENT, (0x82, b"x" * 100_000))[3:]
    if not large:
        conn.receive_data(to(CLIENT, (0x82, b"x" * 100_000))[:3])
    holder = hold(conn.get_buffer())
    while wire:
        wire = wire[fill(conn, wire) :]
        events = conn.events()
    assert gist(events) == [("Message", b"x" * 100_000, 2)]
    holder.release()


def test_two_connections_share_no_buffer(ws: ModuleType, hold: Any) -> None:
    """A view that one connection handed out and never got back is never handed out by another."""
    one = connect(ws)
    view = one.get_buffer()
    holder = hold(view)
    one.get_buffer()
    one.buffer_updated(0)
    one.events()
    other = connect(ws)
    theirs = other.get_buffer()
    theirs[:3] = b"abc"
    view[:3] = b"xyz"
    assert bytes(theirs[:3]) == b"abc"
    holder.release()


def test_a_held_buffer_does_not_come_back(ws: ModuleType, hold: Any) -> None:
    """Consumed and given back, but somebody still has a view of it: nobody else gets that memory."""
    one, other = connect(ws), connect(ws)
    view = one.get_buffer()
    holder = hold(view)
    view[:3] = b"\x81\x01a"
    one.buffer_updated(3)
    assert gist(one.events()) == [("Message", "a", 1)]
    theirs = other.get_buffer()
    assert len(theirs) == len(view)
    theirs[:3] = b"\x81\x01b"
    view[:3] = b"xyz"
    other.buffer_updated(3)
    assert gist(other.events()) == [("Message", "b", 1)]
    holder.release()


# -- other calls between get_buffer and buffer_updated ------------------------------------------


BETWEEN = {
    "events": lambda conn: conn.events(),
    "send": lambda conn: conn.send_text("x"),
    "pause": lambda conn: (conn.pause(), conn.events(), conn.resume()),
    "chunk": lambda conn: (setattr(conn, "delivery", "chunk"), conn.events(), setattr(conn, "delivery", "message")),
    "time": lambda conn: conn.handle_timeout(5.0),
    "stats": lambda conn: (conn.stats, conn.read_ahead_full, conn.next_deadline()),
}


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("large", [False, True])
def test_calls_between_get_buffer_and_buffer_updated(ws: ModuleType, name: str, large: bool) -> None:
    """A read that is under way (proactor, io_uring) while the application does something else."""
    conn = connect(ws)
    rest = begin_large(conn) if large else to(CLIENT, (0x82, b"x" * 100_000))
    told: list[Any] = []
    while rest:
        view = conn.get_buffer()
        n = min(len(view), len(rest), 30_000)
        view[:n] = rest[:n]
        events = BETWEEN[name](conn)
        told += events if type(events) is list else events[1] if name in ("pause", "chunk") else []
        conn.buffer_updated(n)
        rest = rest[n:]
        told += conn.events()
    if name == "chunk":
        assert b"".join(event.data for event in told) == b"x" * 100_000
    else:
        assert gist(told) == [("Message", b"x" * 100_000, 2)]


@pytest.mark.parametrize("large", [False, True])
def test_receive_data_between_get_buffer_and_buffer_updated(ws: ModuleType, large: bool) -> None:
    """Two ways in at once is misuse: refused, or harmless, but never bytes that nobody sent."""
    conn = connect(ws)
    rest = begin_large(conn) if large else to(CLIENT, (0x82, b"x" * 100_000))
    view = conn.get_buffer()
    n = min(len(view), 1000)
    view[:n] = b"x" * n
    told: list[Any] = []
    try:
        conn.receive_data(rest + to(CLIENT, (0x82, b"y" * 50_000))[:100])
        told += gist(conn.events())
        conn.buffer_updated(n)
        told += gist(conn.events())
    except ws.LocalProtocolError:
        pass
    for event in told:
        if event[0] == "Message":
            assert event[1] == b"x" * 100_000


@pytest.mark.parametrize("large", [False, True])
def test_failing_between_get_buffer_and_buffer_updated(ws: ModuleType, large: bool) -> None:
    conn = connect(ws)
    if large:
        begin_large(conn)
    view = conn.get_buffer()
    conn.fail()
    assert gist(conn.events()) == [("Closed", 1011, "error")]
    try:
        view[:3] = b"abc"
    except ValueError:  # released: as good
        assert large
    conn.buffer_updated(3)
    assert conn.events() == []
    fill(conn, b"more")
    assert conn.events() == []


# -- what it costs ------------------------------------------------------------------------------


def cost(make: Any, count: int = 200) -> float:
    """Bytes that each of the things that ``make`` returns holds."""
    make()
    gc.collect()
    tracemalloc.start()
    try:
        kept = [make() for _ in range(count)]
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - sys.getsizeof(kept)) / count
    finally:
        tracemalloc.stop()


def idle(ws: ModuleType, *wires: bytes, **arguments: Any) -> Any:
    def make() -> Any:
        deflate = ws.PerMessageDeflate(ws.Role.SERVER, ws.DeflateParameters())
        conn = connect(ws, SERVER, deflate=deflate, keepalive=KEEPALIVES[ws.__name__], **arguments)
        conn.handle_timeout(0.0)
        for wire in wires:
            fill(conn, wire)
            conn.events()
            conn.data_to_send()
        return conn

    KEEPALIVES[ws.__name__] = ws.Keepalive()
    return make


KEEPALIVES: dict[str, Any] = {}


def test_an_idle_connection(ws: ModuleType) -> None:
    """Under 1.5 KiB with permessage-deflate negotiated (compiled; 4 KiB pure): all its parts, without buffers."""
    limit = 1536 if ws._codec.COMPILED else 4096
    assert cost(idle(ws)) < limit


@pytest.mark.parametrize(
    "wire",
    [
        to(SERVER, (0x81, b"Hello")) * 100,
        to(SERVER, (0x81, b"Hello"), (0x89, b"ping"), (0x82, bytes(60_000))),
        to(SERVER, (0x81, b"Hello")) * 100 + b"\x81",  # the start of a header
        to(SERVER, (0x81, b"Hello")) * 100 + b"\x89\x85\x01\x02",  # of a control frame
    ],
    ids=["messages", "large", "header", "control"],
)
def test_no_buffer_is_held_while_idle(ws: ModuleType, wire: bytes) -> None:
    assert cost(idle(ws, wire), 50) < 5000


def test_an_empty_read_holds_no_buffer(ws: ModuleType) -> None:
    assert cost(idle(ws, b"", b""), 50) < 5000


def test_a_message_in_the_making_costs_its_bytes(ws: ModuleType) -> None:
    wire = to(SERVER, (0x02, bytes(1000)), (0x82, bytes(9000)))[:-8900]
    assert cost(idle(ws, to(SERVER, (0x02, bytes(1000))), to(SERVER, (0x00, bytes(1000)))), 50) < 9000
    assert wire


def test_callers_memory_is_not_kept(ws: ModuleType) -> None:
    """A long read whose last bytes are the start of a frame: the read's memory goes."""

    def make() -> Any:
        conn = connect(ws, CLIENT)
        conn.receive_data(encode_frame(0x82, bytes(500)) * 100 + b"\x82\x05a")
        conn.events()
        return conn

    assert cost(make, 50) < 5000


def test_buffers_are_reused(ws: ModuleType) -> None:
    connections = [connect(ws) for _ in range(100)]
    fill(connections[0], b"\x81\x01a")
    connections[0].events()
    gc.collect()
    tracemalloc.start()
    try:
        for conn in connections:
            fill(conn, b"\x81\x01a")
            assert gist(conn.events()) == [("Message", "a", 1)]
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_the_pool_of_buffers_is_bounded(ws: ModuleType) -> None:
    connections = [connect(ws) for _ in range(50)]
    gc.collect()
    tracemalloc.start()
    try:
        for conn in connections:
            fill(conn, b"\x81\x01a")  # all at once, and nobody drinks
        for conn in connections:
            conn.events()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 10 * 65536
    finally:
        tracemalloc.stop()


def test_an_answered_message_leaves_nothing(ws: ModuleType) -> None:
    """Event after event, nothing accumulates: not in the reader, not in the writer."""
    conn = connect(ws, SERVER)
    wire = to(SERVER, (0x81, b"x" * 1000), (0x89, b"p"), (0x01, b"a"), (0x80, b"b"))

    def round_trip() -> None:
        fill(conn, wire)
        for event in conn.events():
            if event.__class__.__name__ == "Message":
                conn.send_text(event.data)
        conn.data_to_send()

    round_trip()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(300):
            round_trip()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


def test_the_last_message_is_not_kept(ws: ModuleType) -> None:
    for how in ("next_event", "events", "dispatch"):
        conn = connect(ws)
        conn.receive_data(encode_frame(0x82, bytes(100_000)))
        gc.collect()
        tracemalloc.start()
        try:
            if how == "dispatch":
                conn.dispatch(lambda data: None, print)
            else:
                getattr(conn, how)()
                assert conn.next_event() is None
            assert tracemalloc.get_traced_memory()[0] < 3000
        finally:
            tracemalloc.stop()


def test_a_connection_dies_with_its_last_reference(ws: ModuleType) -> None:
    for end in ("open", "failed", "closed", "in place"):
        conn = connect(ws, SERVER)
        conn.receive_data(to(SERVER, (0x81, b"a"), (0x89, b"b")))
        conn.events()
        if end == "failed":
            conn.receive_data(b"\x83\x00")
            conn.events()
        elif end == "closed":
            conn.send_close()
            conn.receive_eof()
            conn.events()
        elif end == "in place":
            begin_large(conn)
            conn.get_buffer()
        reference = weakref.ref(conn)
        gc.disable()
        try:
            del conn
            assert reference() is None, end  # without the help of the collector
        finally:
            gc.enable()
