"""Properties over drawn streams: the two builds agree on anything, our ends read each other, and so do the others.

HYPOTHESIS_PROFILE=ci draws more examples.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import pytest
from conftest import PURE, load
from helpers import encode_frame, parse_frames, plain, unmask_output
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import gist, naive

SERVER, CLIENT = 0, 1

settings.register_profile("default", max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=1500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# -- what is drawn -------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "é" * 70, "\U0010ffff", "x" * 126, "aé€\U0001f600" * 40]),
)
PAYLOADS = st.one_of(
    st.binary(max_size=12),
    TEXTS.map(str.encode),
    st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x0b\xb8", b"\xed\xa0\x80", b"\xe2\x82", bytes(126)]),
    st.sampled_from([bytes(125), b"x" * 5000, b"y" * 40_000, b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\x00", b"\xf2\x48"]),
)
FIRST_BYTES = st.one_of(
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0x41]), st.integers(0, 255)
)
FRAMES = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8A, 0xC1]), FIRST_BYTES),
        PAYLOADS,
        st.binary(min_size=4, max_size=4),
    ),
    max_size=8,
)
LENGTHS = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 70_000)), min_size=1, max_size=12)


def wire_for(role: int, frames: list[tuple[int, bytes, bytes]]) -> bytes:
    return b"".join(
        encode_frame(first, payload, mask=key if role == SERVER else None) for first, payload, key in frames
    )


def cut(wire: bytes, lengths: list[int]) -> list[bytes]:
    """The wire in pieces of these lengths, again and again."""
    pieces = []
    i = n = 0
    while i < len(wire):
        pieces.append(wire[i : i + lengths[n % len(lengths)]])
        i += len(pieces[-1])
        n += 1
        if n > 400:
            pieces.append(wire[i:])
            break
    return pieces


@st.composite
def settings_of_a_connection(draw: Any) -> dict[str, Any]:
    return {
        "role": draw(st.sampled_from([SERVER, CLIENT])),
        "delivery": draw(st.sampled_from(["message", "frame", "chunk"])),
        "decode_text": draw(st.booleans()),
        "auto_reply": draw(st.booleans()),
        "deflate": draw(st.sampled_from([None, "takeover", "no takeover"])),
        "max_message_size": draw(st.sampled_from([2**20, 30, 0, None])),
        "max_fragment_size": draw(st.sampled_from([None, 20])),
        "max_fragments": draw(st.sampled_from([4096, 2])),
        "max_read_ahead": draw(st.sampled_from([2**16, 100, 0])),
        "max_control_rate": draw(st.sampled_from([10_000, 3])),
    }


STEPS = st.lists(
    st.one_of(
        *[st.tuples(st.just("feed"), st.booleans())] * 3,
        st.tuples(st.just("events")),
        st.tuples(st.sampled_from(["events", "next_event", "dispatch", "pause", "resume", "drain", "eof"])),
        st.tuples(st.just("time"), st.sampled_from([0.0, 1.0, 10.0, 25.0, 70.0])),
        st.tuples(
            st.just("send"), st.sampled_from(["text", "binary", "ping", "pong", "fragment", "prepared"]), PAYLOADS
        ),
        st.tuples(st.just("close"), st.sampled_from([1000, 1005, 1006, 4000]), TEXTS),
        st.tuples(st.just("delivery"), st.sampled_from(["message", "frame", "chunk"])),
    ),
    max_size=40,
)


class Driver:
    """One build's connection driven step by step; everything it says ends up in ``log``."""

    def __init__(self, ws: ModuleType, setup: dict[str, Any]) -> None:
        self.ws = ws
        setup = dict(setup)
        self.role = ws.Role(setup.pop("role"))
        limits = ws.Limits(**{name: setup.pop(name) for name in list(setup) if name.startswith("max_")})
        deflate = setup.pop("deflate")
        if deflate is not None:
            keep = deflate == "takeover"
            parameters = ws.DeflateParameters(not keep, not keep, 15, 15)
            deflate = ws.PerMessageDeflate(self.role, parameters, ws.DeflateConfig(threshold=4, idle_release=50.0))
        self.conn = ws.Connection(self.role, limits=limits, deflate=deflate, keepalive=ws.Keepalive(20, 20), **setup)
        self.now = 0.0
        self.log: list[Any] = []
        self.output = b""

    def do(self, step: tuple[Any, ...], pieces: list[bytes]) -> None:
        try:
            self._do(step, pieces)
        except (self.ws.LocalProtocolError, TypeError, UnicodeDecodeError) as error:
            self.log.append((type(error).__name__, str(error)))
        conn = self.conn
        self.log.append(
            (conn.state.name, conn.close_transport.name, conn.next_deadline(), conn.has_output, conn.read_ahead_full)
        )

    def _do(self, step: tuple[Any, ...], pieces: list[bytes]) -> None:
        conn = self.conn
        what, *arguments = step
        if what == "feed":
            (in_place,) = arguments
            piece = pieces[0] if pieces else b""
            if in_place:
                view = conn.get_buffer()
                room = len(view)
                piece = piece[:room]
                view[: len(piece)] = piece
                conn.buffer_updated(len(piece))
                self.log.append(len(piece))
            else:
                conn.receive_data(piece)
        elif what == "events":
            self.log += map(plain, conn.events())
        elif what == "next_event":
            self.log.append(plain(conn.next_event()))
        elif what == "dispatch":
            conn.dispatch(self.log.append, lambda event: self.log.append(plain(event)))
        elif what == "drain":
            self.output += b"".join(conn.data_to_send())
        elif what == "eof":
            conn.receive_eof()
        elif what == "time":
            self.now += arguments[0]
            conn.handle_timeout(self.now)
        elif what == "delivery":
            conn.delivery = arguments[0]
        elif what == "close":
            conn.send_close(*arguments)
        elif what == "send":
            kind, payload = arguments
            if kind == "fragment":
                conn.send_fragment(
                    payload, first=len(payload) % 2 == 0, fin=len(payload) % 3 == 0, text=payload[:1] < b"a"
                )
            elif kind == "prepared":
                conn.send_prepared(self.ws.PreparedMessage(payload))
            elif kind == "ping":
                conn.send_ping(payload)
            else:
                getattr(conn, f"send_{kind}")(payload)
        else:
            getattr(conn, what)()


def without_keys(driver: Driver) -> list[tuple[int, bytes]]:
    """What was sent; a Ping of the keepalive holds random bytes."""
    return [
        (first, b"" if first == 0x89 and len(payload) == 4 else payload)
        for first, _, payload in parse_frames(driver.output)
    ]


@given(setup=settings_of_a_connection(), frames=FRAMES, junk=st.binary(max_size=20), lengths=LENGTHS, steps=STEPS)
def test_the_builds_agree_on_anything(
    setup: dict[str, Any], frames: list[Any], junk: bytes, lengths: list[int], steps: list[Any]
) -> None:
    compiled = load("wsproto_fast")
    if not compiled._codec.COMPILED:
        pytest.skip("the extensions are not built")
    drivers = [Driver(compiled, setup), Driver(load(PURE), setup)]
    pieces = cut(wire_for(setup["role"], frames) + junk, lengths)
    for step in [*steps, ("drain",), ("resume",), ("events",), ("eof",), ("events",), ("drain",)]:
        left = []
        for driver in drivers:
            driver.do(step, pieces)
            left.append(driver.log)
        if step[0] == "feed":
            pieces = pieces[1:]
        assert drivers[0].log == drivers[1].log
    for piece in pieces[:1]:
        for driver in drivers:
            driver.do(("feed", False), [piece])
    assert drivers[0].log == drivers[1].log
    assert without_keys(drivers[0]) == without_keys(drivers[1])
    assert plain(drivers[0].conn.stats.__dict__) == plain(drivers[1].conn.stats.__dict__)


@given(role=st.sampled_from([SERVER, CLIENT]), frames=FRAMES, junk=st.binary(max_size=12), lengths=LENGTHS)
def test_the_engine_agrees_with_the_naive_twin(
    ws: ModuleType, role: int, frames: list[Any], junk: bytes, lengths: list[int]
) -> None:
    wire = wire_for(role, frames) + junk
    conn = ws.Connection(ws.Role(role))
    told: list[Any] = []
    output = b""
    fed = 0
    for piece in cut(wire, lengths):
        conn.receive_data(piece)
        told += gist(conn.events())
        output += b"".join(conn.data_to_send())
        fed += len(piece)
        if len(wire) < 1000:  # at each point, not only in the end
            assert told == naive(wire[:fed], server=role == SERVER).events
    expected = naive(wire, server=role == SERVER)
    assert told == expected.events
    sent = [(first, payload) for first, _, payload in parse_frames(output)]
    if told and told[-1][2:] == ("error",):
        sent[-1] = (sent[-1][0], sent[-1][1][:2])
    assert sent == expected.frames


# -- ends that talk to each other -------------------------------------------------------

MESSAGES = st.lists(
    st.one_of(
        TEXTS.map(lambda text: ("text", text)),
        st.one_of(st.binary(max_size=30), st.sampled_from([bytes(126), b"ab" * 3000, bytes(70_000)])).map(
            lambda data: ("binary", data)
        ),
        st.lists(st.binary(max_size=30), min_size=1, max_size=4).map(lambda parts: ("fragments", parts)),
        st.lists(TEXTS, min_size=1, max_size=4).map(lambda parts: ("text fragments", parts)),
        st.binary(max_size=125).map(lambda payload: ("pong", payload)),
        TEXTS.map(lambda text: ("prepared", text)),
    ),
    max_size=8,
)


@st.composite
def agreements(draw: Any) -> dict[str, Any] | None:
    """Parameters of permessage-deflate, or none."""
    if draw(st.booleans()):
        return None
    return {
        "server_no_context_takeover": draw(st.booleans()),
        "client_no_context_takeover": draw(st.booleans()),
        "server_max_window_bits": draw(st.integers(9, 15)),
        "client_max_window_bits": draw(st.integers(9, 15)),
    }


def make(ws: ModuleType, role: int, agreement: dict[str, Any] | None, **arguments: Any) -> Any:
    if agreement is not None:
        config = ws.DeflateConfig(threshold=10)
        arguments["deflate"] = ws.PerMessageDeflate(ws.Role(role), ws.DeflateParameters(**agreement), config)
    return ws.Connection(ws.Role(role), **arguments)


def send(ws: ModuleType, conn: Any, messages: list[Any]) -> list[Any]:
    """Send them; returns the events that the other end must tell."""
    events: list[Any] = []
    for kind, data in messages:
        if kind == "text":
            conn.send_text(data)
            events.append(("Message", data, 1))
        elif kind == "prepared":
            conn.send_prepared(ws.PreparedMessage(data))
            events.append(("Message", data, 1))
        elif kind == "binary":
            conn.send_binary(data)
            events.append(("Message", data, 2))
        elif kind == "pong":
            conn.send_pong(data)
            events.append(("Pong", data, ()))
        else:
            for i, part in enumerate(data):
                conn.send_fragment(part, first=i == 0, fin=i == len(data) - 1)
            whole = ("" if kind == "text fragments" else b"").join(data)
            events.append(("Message", whole, 1 if kind == "text fragments" else 2))
    return events


@given(role=st.sampled_from([SERVER, CLIENT]), messages=MESSAGES, agreement=agreements(), lengths=LENGTHS)
def test_our_ends_read_each_other(
    ws: ModuleType, role: int, messages: list[Any], agreement: dict[str, Any] | None, lengths: list[int]
) -> None:
    sender, receiver = make(ws, role, agreement), make(ws, 1 - role, agreement)
    expected = send(ws, sender, messages)
    wire = b"".join(sender.data_to_send())
    told: list[Any] = []
    for n, piece in enumerate(cut(wire, lengths)):
        if n % 2:
            receiver.receive_data(piece)
        else:
            while piece:
                view = receiver.get_buffer()
                room = min(len(view), len(piece))
                view[:room] = piece[:room]
                receiver.buffer_updated(room)
                told += gist(receiver.events())
                piece = piece[room:]
        told += gist(receiver.events())
    assert told == expected
    if agreement is None:
        assert naive(wire, server=role == CLIENT).events == expected
        assert unmask_output(wire) == unmask_output(unmask_output(wire))


# -- websockets and wsproto as the other end -----------------------------------------------


def websockets_end(role: int, agreement: dict[str, Any] | None) -> Any:
    protocol = pytest.importorskip("websockets.protocol")
    extensions = pytest.importorskip("websockets.extensions.permessage_deflate")
    end = protocol.Protocol(protocol.Side.SERVER if role == SERVER else protocol.Side.CLIENT)
    if agreement is not None:
        server = agreement["server_no_context_takeover"], agreement["server_max_window_bits"]
        client = agreement["client_no_context_takeover"], agreement["client_max_window_bits"]
        (no_local, local), (no_remote, remote) = (server, client) if role == SERVER else (client, server)
        end.extensions = [extensions.PerMessageDeflate(no_remote, no_local, remote, local)]
    return end


def wsproto_end(role: int, agreement: dict[str, Any] | None) -> Any:
    connection = pytest.importorskip("wsproto.connection")
    extension = pytest.importorskip("wsproto.extensions")
    extensions = []
    if agreement is not None:
        deflate = extension.PerMessageDeflate(
            client_no_context_takeover=agreement["client_no_context_takeover"],
            client_max_window_bits=agreement["client_max_window_bits"],
            server_no_context_takeover=agreement["server_no_context_takeover"],
            server_max_window_bits=agreement["server_max_window_bits"],
        )
        deflate._enabled = True
        extensions = [deflate]
    kind = connection.ConnectionType.SERVER if role == SERVER else connection.ConnectionType.CLIENT
    return connection.Connection(kind, extensions)


def read_by_websockets(end: Any, pieces: list[bytes]) -> list[Any]:
    """Its frames, joined to messages."""
    told: list[Any] = []
    kind, parts = 0, b""
    for piece in pieces:
        end.receive_data(piece)
        for frame in end.events_received():
            if frame.opcode >= 8:
                told.append(("Ping" if frame.opcode == 9 else "Pong", bytes(frame.data)))
                continue
            kind = int(frame.opcode) or kind
            parts += bytes(frame.data)
            if frame.fin:
                told.append(("Message", parts.decode() if kind == 1 else parts, kind))
                parts = b""
    assert end.parser_exc is None
    return told


def read_by_wsproto(end: Any, pieces: list[bytes]) -> list[Any]:
    from wsproto import events

    told: list[Any] = []
    parts: list[Any] = []
    for piece in pieces:
        end.receive_data(piece)
        for event in end.events():
            if isinstance(event, events.Message):
                parts.append(event.data)
                if event.message_finished:
                    text = isinstance(event, events.TextMessage)
                    data = ("" if text else b"").join(x if text else bytes(x) for x in parts)
                    told.append(("Message", data, 1 if text else 2))
                    parts = []
            elif isinstance(event, events.Pong):
                told.append(("Pong", bytes(event.payload)))
            else:
                raise AssertionError(event)
    return told


@given(role=st.sampled_from([SERVER, CLIENT]), messages=MESSAGES, agreement=agreements(), lengths=LENGTHS)
def test_others_read_what_we_send(
    ws: ModuleType, role: int, messages: list[Any], agreement: dict[str, Any] | None, lengths: list[int]
) -> None:
    sender = make(ws, role, agreement)
    expected = [event[:2] if event[0] == "Pong" else event for event in send(ws, sender, messages)]
    pieces = cut(b"".join(sender.data_to_send()), lengths)
    assert read_by_websockets(websockets_end(1 - role, agreement), pieces) == expected
    assert read_by_wsproto(wsproto_end(1 - role, agreement), pieces) == expected


def sent_by_websockets(end: Any, messages: list[Any]) -> bytes:
    for kind, data in messages:
        if kind in ("text", "prepared"):
            end.send_text(data.encode())
        elif kind == "binary":
            end.send_binary(data)
        elif kind == "pong":
            end.send_pong(data)
        else:
            for i, part in enumerate(data):
                raw, fin = part.encode() if kind == "text fragments" else part, i == len(data) - 1
                if i:
                    end.send_continuation(raw, fin)
                elif kind == "text fragments":
                    end.send_text(raw, fin)
                else:
                    end.send_binary(raw, fin)
    return b"".join(end.data_to_send())


def sent_by_wsproto(end: Any, messages: list[Any]) -> bytes:
    from wsproto import events

    wire = b""
    for kind, data in messages:
        if kind in ("text", "prepared"):
            wire += end.send(events.TextMessage(data=data))
        elif kind == "binary":
            wire += end.send(events.BytesMessage(data=data))
        elif kind == "pong":
            wire += end.send(events.Pong(payload=data))
        else:
            make_event = events.TextMessage if kind == "text fragments" else events.BytesMessage
            for i, part in enumerate(data):
                wire += end.send(make_event(data=part, message_finished=i == len(data) - 1))
    return wire


@given(role=st.sampled_from([SERVER, CLIENT]), messages=MESSAGES, agreement=agreements(), lengths=LENGTHS)
def test_we_read_what_others_send(
    ws: ModuleType, role: int, messages: list[Any], agreement: dict[str, Any] | None, lengths: list[int]
) -> None:
    expected = send(ws, make(ws, role, None), messages)
    wires = [sent_by_websockets(websockets_end(role, agreement), messages)]
    wires.append(sent_by_wsproto(wsproto_end(role, agreement), messages))
    for wire in wires:
        receiver = make(ws, 1 - role, agreement)
        told: list[Any] = []
        for piece in cut(wire, lengths):
            receiver.receive_data(piece)
            told += gist(receiver.events())
        assert told == expected
