"""Time as an argument: keepalive, close deadlines, rates, idle contexts, with a clock that only the test moves."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from helpers import MASKING_KEY, encode_frame, parse_frames
from naive import gist

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]
LOST = [("Closed", 1011, "error")]


def to(role: int, *frames: tuple[int, bytes]) -> bytes:
    mask = MASKING_KEY if role == SERVER else None
    return b"".join(encode_frame(first, payload, mask=mask) for first, payload in frames)


class Life:
    """A connection, its clock, and an adapter that does what the docstrings ask of it."""

    def __init__(self, ws: ModuleType, role: int = CLIENT, *, start: float = 1000.0, **arguments: Any) -> None:
        arguments.setdefault("keepalive", ws.Keepalive(20.0, 20.0))
        self.ws = ws
        self.conn = ws.Connection(ws.Role(role), **arguments)
        self.start = self.now = start
        self.events: list[Any] = []
        self.wire = b""
        self.calls = 0
        self.drains = True
        self.conn.handle_timeout(self.now)

    def pump(self) -> None:
        for _ in range(3):
            self.events += self.conn.events()
            if self.drains:
                self.wire += b"".join(self.conn.data_to_send())
            if self.conn.next_deadline() == 0.0:
                self.conn.handle_timeout(self.now)
        assert self.conn.next_deadline() != 0.0

    def feed(self, *frames: tuple[int, bytes]) -> None:
        self.conn.receive_data(to(self.conn.role, *frames))
        self.pump()

    def run(self, seconds: float, *, late: float = 0.0) -> None:
        """Let the time pass, telling it when it is due (and ``late`` seconds after that)."""
        end = self.now + seconds
        self.pump()
        while True:
            deadline = self.conn.next_deadline()
            if deadline is None or deadline + late > end:
                break
            assert deadline + late > self.now or late, "a deadline in the past: the adapter's timer would spin"
            self.now = max(self.now, deadline + late)
            self.conn.handle_timeout(self.now)
            self.calls += 1
            assert self.calls < 10_000, "the timer spins"
            self.pump()
        self.now = end

    @property
    def passed(self) -> float:
        return self.now - self.start

    def pings(self) -> list[bytes]:
        return [payload for first, _, payload in parse_frames(self.wire) if first == 0x89]

    def open(self) -> bool:
        return bool(self.conn.state == self.ws.State.OPEN)


# -- keepalive -------------------------------------------------------------------------


def test_the_time_is_wanted_at_the_start(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT, keepalive=ws.Keepalive(20, 20))
    assert conn.next_deadline() == 0.0
    conn.handle_timeout(500.0)
    assert conn.next_deadline() == 520.0
    assert not conn.has_output
    assert ws.Connection(ws.Role.CLIENT).next_deadline() is None


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_answers_lives(ws: ModuleType, role: int) -> None:
    life = Life(ws, role)
    for i in range(1, 10):
        life.run(15.0 if i > 1 else 20.0)
        assert len(life.pings()) == i
        life.run(5.0)
        life.feed((0x8A, life.pings()[-1]))
        assert life.events[-1].acknowledged == (life.pings()[-1],)
        assert life.events[-1].sent_at == life.now - 5.0
    assert life.open()
    assert len(set(life.pings())) == 9


@pytest.mark.parametrize("role", ROLES)
def test_a_silent_peer_is_lost(ws: ModuleType, role: int) -> None:
    """Gone 40 s after its last sign of life, with 1011 (reliability 1.4)."""
    life = Life(ws, role)
    life.run(39.9)
    assert life.open()
    assert len(life.pings()) == 1
    life.run(0.2)
    assert gist(life.events) == LOST
    assert life.conn.close_reason == "keepalive ping timeout"
    assert life.conn.close_sent.code == 1011
    assert type(life.conn.close_error) is ws.RemoteProtocolError
    assert life.conn.close_transport is ws.CloseTransport.SHUTDOWN
    life.run(9.8)
    assert life.conn.close_transport is ws.CloseTransport.SHUTDOWN
    life.run(0.2)
    assert life.conn.close_transport is ws.CloseTransport.ABORT
    assert life.conn.next_deadline() is None


def test_a_peer_that_falls_silent(ws: ModuleType) -> None:
    for silence in (1.0, 19.0, 21.0, 39.0, 41.0):
        life = Life(ws)
        step = 0.5
        while life.passed < silence:
            life.run(step)
            life.feed((0x81, b"x"))
        life.run(19.9)
        assert life.open()
        life.run(40.2)
        assert not life.open(), f"silent since {silence}"


def test_any_byte_is_a_sign_of_life(ws: ModuleType) -> None:
    """Also of a frame that takes for ever, also read into the engine's own memory."""
    for in_place in (False, True):
        life = Life(ws)
        frame = encode_frame(0x82, bytes(1000))
        for i in range(40):
            life.run(15.0)
            if in_place:
                life.conn.get_buffer()[:1] = frame[i : i + 1]
                life.conn.buffer_updated(1)
            else:
                life.conn.receive_data(frame[i : i + 1])
        assert life.open()
        assert len(life.pings()) == 30


def test_no_byte_is_no_sign_of_life(ws: ModuleType) -> None:
    for in_place in (False, True):
        life = Life(ws)
        for _ in range(20):
            life.run(5.0)
            if in_place:
                life.conn.get_buffer()
                life.conn.buffer_updated(0)
            else:
                life.conn.receive_data(b"")
        assert not life.open()


def test_an_unread_output_is_aborted(ws: ModuleType) -> None:
    """A peer that reads nothing and says nothing: waiting for the output to leave would be waiting for ever."""
    life = Life(ws, SERVER)
    life.drains = False
    life.conn.send_binary(bytes(100_000))
    life.run(40.1)
    assert gist(life.events) == LOST
    assert life.conn.close_transport is ws.CloseTransport.ABORT


def test_unanswered_pings_cost_no_memory(ws: ModuleType) -> None:
    """A peer that talks but never pongs."""
    life = Life(ws)
    for _ in range(200):
        life.run(10.0)
        life.feed((0x81, b"x"))
    assert life.open()
    assert len(life.pings()) == 100
    last = life.pings()[-1]
    life.feed((0x8A, last))
    assert life.events[-1].acknowledged == (last,)


def test_pings_of_the_user_are_kept_apart(ws: ModuleType) -> None:
    life = Life(ws)
    mine = life.conn.send_ping()
    life.run(20.0)
    keepalive = life.pings()[-1]
    assert keepalive != mine
    life.feed((0x8A, keepalive))
    assert life.events[-1].acknowledged == (mine, keepalive)
    assert life.events[-1].sent_at == life.now
    mine = life.conn.send_ping()
    life.feed((0x8A, mine))
    assert life.events[-1].sent_at is None


@pytest.mark.parametrize(
    ("interval", "timeout", "pings", "lost"),
    [
        (None, 20.0, 0, False),
        (20.0, None, 49, False),
        (None, None, 0, False),
        (5.0, 30.0, 6, True),
        (50.0, 10.0, 1, True),
    ],
)
def test_parts_switched_off(
    ws: ModuleType, interval: float | None, timeout: float | None, pings: int, lost: bool
) -> None:
    life = Life(ws, keepalive=ws.Keepalive(interval, timeout))
    life.run(999.0)
    assert len(life.pings()) == pings
    assert life.open() is not lost
    if interval is None:
        assert life.conn.next_deadline() is None


def test_settings(ws: ModuleType) -> None:
    for wrong in (0, -1.0):
        with pytest.raises(ValueError, match="ping"):
            ws.Keepalive(ping_interval=wrong)
        with pytest.raises(ValueError, match="ping"):
            ws.Keepalive(ping_timeout=wrong)


def test_asking_too_often_is_harmless(ws: ModuleType) -> None:
    life = Life(ws)
    for _ in range(400):
        life.now += 0.05
        life.conn.handle_timeout(life.now)
    life.pump()
    assert len(life.pings()) <= 1
    life.feed((0x81, b""))
    for _ in range(400):
        life.now += 0.05
        life.conn.handle_timeout(life.now)
    assert life.open()


def test_time_may_start_anywhere(ws: ModuleType) -> None:
    for start in (0.0, -500.0, 1e9):
        life = Life(ws, start=start)
        life.run(39.0)
        assert life.open()
        life.run(2.0)
        assert not life.open()


def test_time_as_an_integer(ws: ModuleType) -> None:
    conn = ws.Connection(ws.Role.CLIENT, keepalive=ws.Keepalive(20, 20))
    conn.handle_timeout(5)
    assert conn.next_deadline() == 25
    for wrong in ("1", None):
        with pytest.raises(TypeError):
            conn.handle_timeout(wrong)


# -- what is not the peer's fault ---------------------------------------------------------


@pytest.mark.parametrize("late", [3.0, 19.0, 25.0, 300.0])
def test_a_late_loop_is_not_the_peers_fault(ws: ModuleType, late: float) -> None:
    """The loop stood still; the pong waits in the transport. Reading comes after the timer: still in time."""
    life = Life(ws)
    life.run(20.0)
    life.now += 20.0 + late
    life.conn.handle_timeout(life.now)
    assert life.open()
    life.feed((0x8A, life.pings()[0]))
    life.run(15.0)
    assert life.open()


def test_a_late_loop_does_not_save_the_dead(ws: ModuleType) -> None:
    for late in (0.0, 0.5, 3.0, 10.0, 30.0):
        life = Life(ws)
        life.run(400.0, late=late)
        assert not life.open(), f"late by {late} each time"


def test_a_paused_reader_is_not_the_peers_fault(ws: ModuleType) -> None:
    """Our application does not read for minutes, the read-ahead is full: pongs cannot reach us."""
    life = Life(ws, limits=ws.Limits(max_read_ahead=100))
    life.conn.pause()
    life.feed((0x82, bytes(200)))
    assert life.conn.read_ahead_full
    life.run(300.0)
    assert life.open()
    life.conn.resume()
    life.pump()
    life.run(19.0)
    assert life.open()
    life.feed((0x8A, life.pings()[-1]))
    life.run(20.0)
    assert life.open()


def test_a_peer_that_died_while_we_paused(ws: ModuleType) -> None:
    life = Life(ws, limits=ws.Limits(max_read_ahead=100))
    life.conn.pause()
    life.feed((0x82, bytes(200)))
    life.run(300.0)
    life.conn.resume()
    life.pump()
    life.run(61.0)
    assert not life.open()


def test_a_short_pause_counts_too(ws: ModuleType) -> None:
    """Full for a moment after the ping, and nobody asked in between but the adapter."""
    life = Life(ws, limits=ws.Limits(max_read_ahead=100))
    life.run(20.0)
    life.run(1.0)
    life.conn.pause()
    life.feed((0x82, bytes(200)))
    assert life.conn.read_ahead_full
    life.run(18.0)
    life.conn.resume()
    life.run(5.0)
    assert life.open()


def test_pongs_are_seen_behind_waiting_messages(ws: ModuleType) -> None:
    life = Life(ws)
    life.conn.pause()
    life.feed((0x81, b"waits"))
    for _ in range(20):
        life.run(20.0)
        life.feed((0x8A, life.pings()[-1]))
        assert life.events[-1].acknowledged
    assert life.open()
    life.conn.resume()
    life.pump()
    assert gist(life.events)[-1] == ("Message", "waits", 1)


def test_what_was_received_outlives_the_peer(ws: ModuleType) -> None:
    """The peer sent a message and ended TCP; a slow application still gets it, and the right end."""
    life = Life(ws)
    life.conn.pause()
    life.feed((0x81, b"bye"))
    life.conn.receive_eof()
    life.run(500.0)
    life.conn.resume()
    life.pump()
    assert gist(life.events) == [("Message", "bye", 1), ("Closed", 1006, None)]


# -- closing ------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("keepalive", [True, False])
@pytest.mark.parametrize("quiet", [0.0, 15.0, 30.0])
def test_a_peer_that_never_answers_the_close(ws: ModuleType, role: int, keepalive: bool, quiet: float) -> None:
    """10 s after our Close frame: Closed with 1006, ABORT; until then the timer is quiet."""
    life = Life(ws, role, keepalive=ws.Keepalive(20, 20) if keepalive else None)
    life.run(quiet)
    life.conn.send_close(1000)
    assert life.conn.next_deadline() == 0.0
    calls = life.calls
    life.run(9.9)
    assert life.conn.state is ws.State.CLOSING
    assert life.conn.close_transport is ws.CloseTransport.KEEP
    life.run(0.2)
    assert gist(life.events) == [("Closed", 1006, None)]
    assert life.conn.close_transport is ws.CloseTransport.ABORT
    assert life.conn.next_deadline() is None
    assert life.calls - calls <= 3
    assert len(life.pings()) == (1 if keepalive and quiet >= 20 else 0)


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_floods_instead_of_closing(ws: ModuleType, role: int) -> None:
    life = Life(ws, role)
    life.conn.send_close()
    for _ in range(50):
        life.feed((0x82, bytes(1000)), (0x89, b""))
        life.run(0.3)
    assert life.conn.state is ws.State.CLOSED
    assert life.conn.close_transport is ws.CloseTransport.ABORT


def test_a_server_that_never_ends_tcp(ws: ModuleType) -> None:
    """RFC 6455 7.1.1: the client waits for the server to close TCP, but only so long."""
    life = Life(ws, CLIENT)
    life.feed((0x88, b"\x03\xe8"))
    assert life.conn.state is ws.State.CLOSED
    life.run(9.9)
    assert life.conn.close_transport is ws.CloseTransport.KEEP
    life.run(0.2)
    assert life.conn.close_transport is ws.CloseTransport.ABORT
    assert life.conn.next_deadline() is None


@pytest.mark.parametrize("role", ROLES)
def test_after_a_failure(ws: ModuleType, role: int) -> None:
    life = Life(ws, role)
    life.feed((0x83, b""))
    assert life.conn.close_transport is ws.CloseTransport.SHUTDOWN
    life.run(10.1)
    assert life.conn.close_transport is ws.CloseTransport.ABORT
    assert life.conn.next_deadline() is None


@pytest.mark.parametrize("timeout", [0.0, 0.5, 60.0])
def test_close_timeout(ws: ModuleType, timeout: float) -> None:
    life = Life(ws, limits=ws.Limits(close_timeout=timeout), keepalive=None)
    life.conn.send_close()
    life.pump()
    life.run(timeout)
    assert life.conn.close_transport is ws.CloseTransport.ABORT


def test_no_close_timeout(ws: ModuleType) -> None:
    life = Life(ws, limits=ws.Limits(close_timeout=None))
    life.run(10.0)
    life.conn.send_close()
    life.run(100_000.0)
    assert life.conn.state is ws.State.CLOSING
    assert life.conn.next_deadline() is None
    life.feed((0x88, b""))
    assert life.conn.state is ws.State.CLOSED


def test_a_user_that_never_answers_the_close(ws: ModuleType) -> None:
    """auto_reply=False: the connection waits for its user, but the timer must not spin meanwhile."""
    life = Life(ws, auto_reply=False)
    life.run(10.0)
    life.feed((0x88, b""))
    life.run(500.0)
    assert life.conn.state is ws.State.CLOSING


def test_eof_ends_the_timer(ws: ModuleType) -> None:
    life = Life(ws)
    life.conn.receive_eof()
    life.run(500.0)
    assert gist(life.events) == [("Closed", 1006, None)]
    assert life.conn.next_deadline() is None
    assert life.pings() == []


def test_closed_with_output_that_nobody_takes(ws: ModuleType) -> None:
    """close_timeout goes on after EOF: the owner of the transport is told to abort."""
    life = Life(ws, SERVER)
    life.drains = False
    life.feed((0x88, b""))
    life.conn.receive_eof()
    assert life.conn.close_transport is ws.CloseTransport.CLOSE
    life.run(10.1)
    assert life.conn.close_transport is ws.CloseTransport.ABORT


# -- floods of control frames ----------------------------------------------------------------


@pytest.mark.parametrize("first", [0x89, 0x8A])
@pytest.mark.parametrize("role", ROLES)
def test_a_flood_of_control_frames(ws: ModuleType, role: int, first: int) -> None:
    life = Life(ws, role, limits=ws.Limits(max_control_rate=100))
    count = 0
    while life.open() and count < 1000:
        life.feed((first, b""))
        life.now += 0.0001
        count += 1
    assert 101 <= count <= 203
    assert gist(life.events)[-1] == ("Closed", 1008, "error")


def test_a_flood_in_one_read(ws: ModuleType) -> None:
    life = Life(ws, limits=ws.Limits(max_control_rate=100))
    life.run(5.0)
    for _ in range(3):
        life.feed(*[(0x89, b"")] * 500)
    assert gist(life.events)[-1] == ("Closed", 1008, "error")


def test_a_flood_without_keepalive(ws: ModuleType) -> None:
    life = Life(ws, keepalive=None, limits=ws.Limits(max_control_rate=100))
    for _ in range(3):
        life.feed(*[(0x89, b"")] * 500)
    assert gist(life.events)[-1] == ("Closed", 1008, "error")


def test_a_flood_behind_waiting_messages(ws: ModuleType) -> None:
    life = Life(ws, keepalive=None, limits=ws.Limits(max_control_rate=100))
    life.conn.pause()
    for _ in range(3):
        life.feed((0x81, b""), *[(0x89, b"")] * 500)
    assert gist(life.events)[-1] == ("Closed", 1008, "error")


def test_a_steady_stream_of_control_frames_is_no_flood(ws: ModuleType) -> None:
    life = Life(ws, limits=ws.Limits(max_control_rate=100))
    for _ in range(3000):
        life.feed((0x89, b""))
        life.run(0.0111)  # 90 a second
    assert life.open()
    life = Life(ws, limits=ws.Limits(max_control_rate=None))
    life.feed(*[(0x89, b"")] * 20_000)
    assert life.open()


# -- idle compression contexts -----------------------------------------------------------------


class Contexts:
    """Counts what the engine asks of permessage-deflate."""

    def __init__(self, ws: ModuleType, idle_release: float | None) -> None:
        config = ws.DeflateConfig(idle_release=idle_release, threshold=0)
        self.inner = ws.PerMessageDeflate(ws.Role.CLIENT, ws.DeflateParameters(), config)
        self.config = config
        self.released = 0

    def release(self) -> None:
        self.released += 1
        self.inner.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_idle_contexts_are_released(ws: ModuleType) -> None:
    deflate = Contexts(ws, 60.0)
    life = Life(ws, keepalive=None, deflate=deflate)
    for _ in range(10):  # used
        life.conn.send_text("Hello, world! " * 10)
        life.run(30.0)
    assert deflate.active
    assert deflate.released == 0
    life.run(121.0)
    assert deflate.released >= 1
    assert not deflate.active
    life.conn.send_text("Hello")
    assert deflate.active
    packed = bytes.fromhex("f248cdc9c90700")  # RFC 7692 7.2.3.1: "Hello"
    life.feed((0xC1, packed))
    released = deflate.released
    for _ in range(5):  # received only
        life.run(59.0)
        life.feed((0xC1, packed))
    assert deflate.released == released
    life.run(121.0)
    assert deflate.released > released
    life.feed((0xC1, packed))
    assert gist(life.events)[-1] == ("Message", "Hello", 1)


def test_contexts_of_an_open_message_are_kept(ws: ModuleType) -> None:
    deflate = Contexts(ws, 60.0)
    life = Life(ws, keepalive=None, deflate=deflate)
    life.conn.send_fragment("a" * 100, first=True, fin=False)
    life.run(300.0)
    assert deflate.released == 0
    life.conn.send_fragment("a" * 100, first=False, fin=True)
    life.feed((0x41, bytes.fromhex("f248")))
    life.run(300.0)
    assert deflate.released == 0
    life.feed((0x80, bytes.fromhex("cdc9c90700")))
    assert gist(life.events) == [("Message", "Hello", 1)]
    life.run(300.0)
    assert deflate.released


def test_no_idle_release(ws: ModuleType) -> None:
    deflate = Contexts(ws, None)
    life = Life(ws, keepalive=None, deflate=deflate)
    assert life.conn.next_deadline() is None
    life.conn.send_text("x" * 100)
    life.run(10_000.0)
    assert deflate.released == 0


def test_no_release_after_the_end(ws: ModuleType) -> None:
    deflate = Contexts(ws, 60.0)
    life = Life(ws, deflate=deflate)
    life.conn.receive_eof()
    life.run(300.0)
    assert life.conn.next_deadline() is None
