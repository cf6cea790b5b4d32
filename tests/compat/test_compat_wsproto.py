"""The façade's Connection and wsproto's: the same calls, the same answers, but for what docs/from-wsproto.md names."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto_twins import BOTH, ORIGINAL, OURS, _same_random_bytes, frame, make, outcome, plain, record

__all__ = ["_same_random_bytes"]

MODULES = ("connection", "events", "extensions", "frame_protocol", "handshake", "typing", "utilities")


def connections(client: bool, *, foreign: bool = False) -> list[Any]:
    """One of each library. ``foreign``: with an extension that does nothing, so the engine does not read."""
    return [
        library.connection.Connection(
            library.connection.CLIENT if client else library.connection.SERVER,
            [stranger(library)] if foreign else None,
        )
        for library in BOTH
    ]


def stranger(library: Any) -> Any:
    class Stranger(library.extensions.Extension):  # type: ignore[misc]
        name = "stranger"

        def enabled(self) -> bool:
            return True

        def offer(self) -> bool:
            return True

    return Stranger()


def compare(client: bool, operations: list[tuple[Any, ...]], *, foreign: bool = False) -> list[Any]:
    expected, got = [
        record(library, connection, operations)
        for library, connection in zip(BOTH, connections(client, foreign=foreign), strict=True)
    ]
    assert got == expected
    return got


# Surface --------------------------------------------------------------------------------------------------------------


def public(module: Any) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", module.__name__) == module.__name__
        if not inspect.ismodule(value) and name not in ("annotations", "os", "TYPE_CHECKING", "T")
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_there(module: str) -> None:
    original, ours = [importlib.import_module(f"{library.__name__}.{module}") for library in BOTH]
    assert module == "typing" or len(public(original)) > 2
    assert module != "typing" or ours.Headers == original.Headers
    for name in public(original):
        theirs, mine = getattr(original, name), getattr(ours, name)
        if inspect.isclass(theirs) and issubclass(theirs, int):
            assert [(item.name, item.value) for item in theirs] == [(item.name, item.value) for item in mine]
        elif inspect.isclass(theirs):
            missing = {key for key in dir(theirs) if not key.startswith("_")} - set(dir(mine))
            assert not missing, f"{name} lacks {missing}"
            assert parameters(theirs) == parameters(mine), name
            for key, method in inspect.getmembers(theirs, inspect.isfunction):
                if not key.startswith("_"):
                    assert parameters(method) == parameters(getattr(mine, key)), f"{name}.{key}"
        elif inspect.isfunction(theirs) and name != "normed_header_dict":
            assert parameters(theirs) == parameters(mine), name
        elif isinstance(theirs, (int, bytes)):
            assert theirs == mine, name


def parameters(function: Any) -> list[tuple[str, Any]]:
    try:
        signature = inspect.signature(function)
    except ValueError:
        return []
    empty = inspect.Parameter.empty
    return [
        (name, parameter.default if parameter.default is empty or not callable(parameter.default) else "made")
        for name, parameter in signature.parameters.items()
    ]


def test_package() -> None:
    assert set(ORIGINAL.__all__) == set(OURS.__all__)
    assert OURS.__version__.rpartition(".")[0] == ORIGINAL.__version__.rpartition(".")[0]
    for name in ("Connection", "ConnectionState", "ConnectionType", "H11Handshake", "WSConnection"):
        assert hasattr(OURS, name), name


# Bytes in -------------------------------------------------------------------------------------------------------------

texts = st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
payloads = st.one_of(texts, st.binary(max_size=20), st.integers(120, 130).map(bytes), st.just(b"ab" * 40_000))
controls = st.binary(max_size=20)
closes = st.one_of(
    st.just(b""),
    st.tuples(st.sampled_from([1000, 1001, 1011, 3000, 4999, 1007]), st.text(max_size=10)).map(
        lambda close: close[0].to_bytes(2, "big") + close[1].encode("utf-8", "replace")
    ),
)


@st.composite
def legal_frames(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Messages, some of them fragmented with control frames between; perhaps a Close frame in the end."""
    frames: list[tuple[int, bytes]] = []
    for _ in range(draw(st.integers(0, 4))):
        opcode = draw(st.sampled_from([1, 2]))
        whole = draw(st.text(max_size=40)).encode() if opcode == 1 else draw(payloads)
        cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
        parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        for i, part in enumerate(parts):
            frames.append(((0 if i else opcode) | (0x80 if i == len(parts) - 1 else 0), part))
            if draw(st.booleans()):
                frames.append((draw(st.sampled_from([0x89, 0x8A])), draw(controls)))
    if draw(st.booleans()):
        frames.append((0x88, draw(closes)))
    return frames


def cut(draw: st.DrawFn, wire: bytes) -> list[bytes]:
    points = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    return [wire[a:b] for a, b in zip([0, *points], [*points, len(wire)], strict=True)]


sends = st.one_of(
    st.tuples(st.just("TextMessage"), st.text(max_size=5), st.booleans(), st.booleans()),
    st.tuples(st.just("BytesMessage"), st.binary(max_size=5), st.booleans(), st.booleans()),
    st.tuples(st.just("Message"), st.sampled_from(["a", b"b", bytearray(b"c"), memoryview(b"d"), 5])),
    st.tuples(st.sampled_from(["Ping", "Pong"]), st.sampled_from([b"", b"p", b"x" * 126, "text"])),
    st.tuples(
        st.just("CloseConnection"),
        st.sampled_from([1000, 1005, 1006, 1015, 999, 4000, 70000, None]),
        st.sampled_from([None, "", "bye", "é" * 100]),
    ),
    st.tuples(st.just("AcceptConnection")),
)
others = st.one_of(
    sends.map(lambda what: ("send", *what)),
    st.sampled_from([("events",), ("event",), ("receive", None), ("receive", b"")]),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_any_conversation(data: st.DataObject, client: bool, foreign: bool) -> None:
    wire = b"".join(frame(first, payload, client=client) for first, payload in data.draw(legal_frames()))
    operations: list[tuple[Any, ...]] = []
    for piece in cut(data.draw, wire):
        operations += [("receive", piece), *data.draw(st.lists(others, max_size=2))]
        if data.draw(st.booleans()):
            operations.append(("events",))
    compare(client, [*operations, ("events",), ("events",)], foreign=foreign)


@settings(max_examples=300, suppress_health_check=[HealthCheck.data_too_large], deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_any_bytes(data: st.DataObject, client: bool, foreign: bool) -> None:
    """Frames of all kinds, right and wrong; what is wrong stands whole in one read."""
    wires = [
        frame(
            data.draw(st.integers(0, 255)),
            data.draw(st.one_of(st.binary(max_size=4), closes, st.just(bytes(126)), st.just(bytes(65536)))),
            client=client,
            bits=data.draw(st.sampled_from([0, 0, 0, 0x80])),
            size=data.draw(st.sampled_from([None, None, 2, 8])) if data.draw(st.booleans()) else None,
        )
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    operations: list[tuple[Any, ...]] = []
    for wire in wires:
        operations += [("receive", wire + bytes(14)), ("events",)]
    compare(client, operations, foreign=foreign)


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize(
    "frames",
    [
        [(0x83, b"")],
        [(0x0B, b"")],
        [(0x09, b"")],
        [(0x89, bytes(126))],
        [(0x09, bytes(126))],
        [(0xC1, b"")],
        [(0xA1, b"")],
        [(0x91, b"")],
        [(0xF3, b"")],
        [(0x80, b"a")],
        [(0x00, b"a")],
        [(0x01, b"a"), (0x82, b"b")],
        [(0x02, b"a"), (0x81, b"b")],
        [(0x01, b"a"), (0x01, b"b")],
        [(0x81, b"ab\xff")],
        [(0x81, b"\xc3\xa9\xe2")],
        [(0x01, b"\xc3\xa9\xe2"), (0x80, b"")],
        [(0x01, b"ab\xe2"), (0x80, b"\x82c")],
        [(0x01, b"ab\xf0\x9f"), (0x89, b""), (0x00, b"\x98"), (0x80, b"\x80\xff")],
        [(0x81, b"\xed\xa0\x80")],
        [(0x88, b"\x03")],
        [(0x88, b"\x03\xe8\xff")],
        [(0x88, b"\x03\xe8\xc3")],
        *[[(0x88, code.to_bytes(2, "big"))] for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)],
    ],
)
def test_broken_rules(client: bool, frames: list[tuple[int, bytes]], foreign: bool) -> None:
    """Each text and code of an error; whole, and with each byte on its own where that makes no difference."""
    wire = b"".join(frame(first, payload, client=client) for first, payload in frames)
    more = [("receive", b"more"), ("events",), ("send", "Ping")]
    answered = compare(client, [("receive", wire), ("events",), *more], foreign=foreign)
    assert answered[1][1][-1][0] == "CloseConnection"
    assert answered[-1][1].__class__ is bytes  # the state is OPEN still
    bytewise: list[tuple[Any, ...]] = []
    for i in range(len(wire)):
        bytewise += [("receive", wire[i : i + 1]), ("events",)]
    told = []
    for library, connection in zip(BOTH, connections(client, foreign=foreign), strict=True):
        answers = record(library, connection, bytewise)
        told.append([event for operation, events, _ in answers if operation == ("events",) for event in events])
    if b"\xed\xa0" in frames[0][1] and not foreign:  # we see sooner that a surrogate is none
        assert told[0].pop(1)[0] == "TextMessage"
    assert told[0] == told[1]


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
def test_lengths(client: bool, size: int, length: int) -> None:
    if size == 8 or length < 65536:
        wire = frame(0x82, bytes(length), client=client, size=size)
        compare(client, [("receive", wire), ("events",)])


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("client", [True, False])
def test_headers_in_pieces(client: bool, foreign: bool) -> None:
    wire = frame(0x82, bytes(126), client=client) + frame(0x81, bytes(65536), client=client)
    operations: list[tuple[Any, ...]] = []
    for piece in [*[wire[i : i + 1] for i in range(160)], wire[160:]]:
        operations += [("receive", piece), ("events",)]
    compare(client, operations, foreign=foreign)


@pytest.mark.parametrize("client", [True, False])
def test_huge_length(client: bool) -> None:
    for top in (0x80, 0x7F):
        wire = bytes((0x82, 127 if client else 255, top)) + bytes(7) + bytes(0 if client else 4)
        told = [
            record(lib, conn, [("receive", wire), ("events",)])
            for lib, conn in zip(BOTH, connections(client), strict=True)
        ]
        if top == 0x80:
            assert told[0] == told[1]
        else:  # no limit there, and what cannot be refused here at once
            assert told[1][1][1][0][:2] == ("CloseConnection", ("CloseReason", 1009))


@pytest.mark.parametrize("client", [True, False])
def test_wrong_masking(client: bool) -> None:
    compare(client, [("receive", frame(0x81, b"abcd", client=not client)), ("events",)])


def test_bad_gateway_is_a_close_code() -> None:
    """RFC 6455 7.4.2: registered since. wsproto refuses it."""
    operations = [("receive", frame(0x88, (1014).to_bytes(2, "big"), client=True)), ("events",)]
    original, ours = [record(lib, conn, operations) for lib, conn in zip(BOTH, connections(True), strict=True)]
    assert original[1][1][0][1] == ("CloseReason", 1002)
    assert ours[1][1][0][1] == ("int", 1014)
    protocol = OURS.frame_protocol.FrameProtocol(True, [])
    protocol.receive_bytes(operations[0][1])
    assert [item.payload for item in protocol.received_frames()] == [(1014, "")]


def test_surrogates_are_refused_at_once() -> None:
    connection = OURS.connection.Connection(OURS.connection.CLIENT)
    connection.receive_data(b"\x01\x02\xed\xa0")
    (event,) = connection.events()
    assert (event.code, event.reason) == (
        1007,
        "'utf-8' codec can't decode byte 0xed in position 0: invalid continuation byte",
    )


# Other calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [bytearray(b"\x81\x01a"), memoryview(b"\x81\x01a")])
def test_receive_takes_any_bytes(data: Any) -> None:
    compare(True, [("receive", data), ("events",)])


def test_trailing_data() -> None:
    for library in BOTH:
        connection = library.connection.Connection(library.connection.CLIENT, trailing_data=b"\x81\x01a\x81")
        assert [plain(event) for event in connection.events()] == [plain(library.events.TextMessage("a"))]


def test_events_of_the_embedder_come_first() -> None:
    class Relay(OURS.Connection):
        """As a proxy has it."""

        def __init__(self, *args: Any, name: str) -> None:
            super().__init__(*args)
            self.name = name

    connection = Relay(OURS.ConnectionType.SERVER, [], name="relay")
    connection.receive_data(frame(0x81, b"second", client=False))
    connection._events.extend([OURS.events.TextMessage("first")])
    assert [event.data for event in connection.events()] == ["first", "second"]


def test_a_closed_connection_can_be_told_so() -> None:
    for connection, library in zip(connections(True), BOTH, strict=True):
        connection._state = library.connection.ConnectionState.CLOSED
        assert outcome(lambda c=connection: c.receive_data(b""))[:2] == (
            "LocalProtocolError",
            "Connection already closed.",
        )


def test_memory_of_a_connection_that_failed_does_not_grow() -> None:
    connection = OURS.connection.Connection(OURS.connection.CLIENT)
    connection.receive_data(b"\x83\x00")
    (event,) = connection.events()
    for _ in range(3):
        connection.receive_data(bytes(1000))
    assert connection._engine.stats.bytes_received == 2
    assert not connection._engine.has_output
    assert connection.send(event)[:2] == b"\x88\x8f"[:1] + bytes((0x80 | 2 + len(event.reason),))


def test_close_codes_by_name() -> None:
    for name in ("NO_STATUS_RCVD", "ABNORMAL_CLOSURE", "GOING_AWAY"):
        for reason in (None, "", "bye"):
            told = []
            for library in BOTH:
                protocol = library.frame_protocol.FrameProtocol(False, [])
                code = library.frame_protocol.CloseReason[name]
                told.append(outcome(lambda: protocol.close(code, reason)))  # noqa: B023
            assert told[0] == told[1]
    for library in BOTH:
        assert outcome(library.frame_protocol.FrameProtocol(False, []).close) == b"\x88\0"


# Events ---------------------------------------------------------------------------------------------------------------

EVENTS: list[tuple[Any, ...]] = [
    ("Request", "host", "/"),
    ("AcceptConnection",),
    ("RejectConnection",),
    ("RejectData", b"x"),
    ("CloseConnection", 1000),
    ("CloseConnection", 1000, "bye"),
    ("Message", b"x"),
    ("TextMessage", "x"),
    ("TextMessage", "x", False, False),
    ("BytesMessage", b"x", True, False),
    ("Ping",),
    ("Pong", b"x"),
]


@pytest.mark.parametrize("what", EVENTS, ids=repr)
def test_events(what: tuple[Any, ...]) -> None:
    import copy
    import dataclasses
    import pickle

    theirs, mine = [make(library, what) for library in BOTH]
    assert repr(mine) == repr(theirs)
    assert plain(mine) == plain(theirs)
    assert plain(dataclasses.asdict(mine)) == plain(dataclasses.asdict(theirs))
    assert type(mine).__match_args__ == type(theirs).__match_args__
    assert outcome(lambda: type(hash(mine))) == outcome(lambda: type(hash(theirs)))  # a list has none
    same = make(OURS, what)
    assert mine == same
    assert mine != make(OURS, EVENTS[EVENTS.index(what) - 1])
    assert copy.copy(mine) == pickle.loads(pickle.dumps(mine)) == mine
    name = dataclasses.fields(mine)[0].name if dataclasses.fields(mine) else "anything"
    for event in (mine, theirs):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, name, 1)


def test_messages_with_and_without_defaults_are_equal() -> None:
    events = OURS.events
    assert events.TextMessage("a", True, True) == events.TextMessage(data="a")
    assert hash(events.TextMessage("a", True, True)) == hash(events.TextMessage("a"))
    assert events.TextMessage("a") != events.TextMessage("a", message_finished=False)
    assert events.TextMessage("a") != events.Message("a")
    assert events.Ping(b"x").response() == events.Pong(b"x")
    assert OURS.events.CloseConnection(1000, "x").response() == OURS.events.CloseConnection(1000, "x")
