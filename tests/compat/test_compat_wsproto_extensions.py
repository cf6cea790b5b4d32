"""Extensions in the façade and in wsproto: permessage-deflate, and those of others."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto_twins import BOTH, ORIGINAL, OURS, _same_random_bytes, frame, outcome, plain

__all__ = ["_same_random_bytes"]


def deflate(library: Any, agreed: str = "", **arguments: Any) -> Any:
    extension = library.extensions.PerMessageDeflate(**arguments)
    extension.finalize(f"permessage-deflate; {agreed}")
    return extension


def connection(library: Any, client: bool, *extensions: Any) -> Any:
    return library.connection.Connection(
        library.connection.CLIENT if client else library.connection.SERVER, list(extensions)
    )


def joined(events: list[Any]) -> list[Any]:
    """Plain events with the pieces of a frame joined: wsproto tells pieces that inflate to nothing, the engine not."""
    result: list[Any] = []
    for event in map(plain, events):
        if result and result[-1][0] == event[0] and event[0].endswith("Message") and not result[-1][2][1]:
            before = result.pop()
            data = before[1] + event[1] if isinstance(event[1], bytes) else ("str", before[1][1] + event[1][1])
            event = (event[0], data, *event[2:])
        result.append(event)
    return result


# permessage-deflate ---------------------------------------------------------------------------------------------------

AGREEMENTS = [
    "",
    "client_no_context_takeover; server_no_context_takeover",
    "client_max_window_bits=9; server_max_window_bits=10",
    "server_no_context_takeover; client_max_window_bits=12",
]
messages = st.lists(
    st.tuples(st.one_of(st.text(max_size=30).map(lambda t: t * 40), st.binary(max_size=2000)), st.integers(0, 3)),
    max_size=5,
)


def pieces(payload: Any, cuts: int) -> list[tuple[Any, bool]]:
    """A message in fragments, the last one marked."""
    edges = [len(payload) * i // (cuts + 1) for i in range(cuts + 2)]
    return [(payload[a:b], i == cuts) for i, (a, b) in enumerate(itertools.pairwise(edges))]


@settings(deadline=None)
@given(messages, st.sampled_from(AGREEMENTS), st.booleans(), st.data())
def test_deflate(sent: list[tuple[Any, int]], agreed: str, client: bool, data: st.DataObject) -> None:
    """The same bytes leave, and the same events come of them, from both, through the engine and not."""
    senders = [connection(library, not client, deflate(library, agreed)) for library in BOTH]
    receivers = [connection(library, client, deflate(library, agreed)) for library in BOTH]
    subclass = type("Deflate", (OURS.extensions.PerMessageDeflate,), {})()
    subclass.finalize(f"permessage-deflate; {agreed}")
    receivers.append(connection(OURS, client, subclass))
    assert [receiver._engine is None for receiver in receivers[1:]] == [False, True]
    told: list[list[Any]] = [[], [], []]
    for payload, cuts in sent:
        for part, last in pieces(payload, cuts if payload else 0):
            wires = []
            for library, sender in zip(BOTH, senders, strict=True):
                kind = library.events.TextMessage if isinstance(part, str) else library.events.BytesMessage
                wires.append(sender.send(kind(part, message_finished=last)))
            assert wires[1] == wires[0] or not payload  # RFC 7692 7.2.3.6: an empty message is not empty
            cut = data.draw(st.integers(0, len(wires[1])))
            for receiver, events in zip(receivers, told, strict=True):
                for piece in (wires[1][:cut], wires[1][cut:]):
                    receiver.receive_data(piece)
                    events += receiver.events()
    assert joined(told[1]) == joined(told[0])
    assert joined(told[2]) == joined(told[0])


def compressed(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_ping_amid_a_compressed_message() -> None:
    """RFC 6455 5.4. wsproto takes the rest of the message for plain."""
    whole = compressed(b"text " * 20)
    for extension in (deflate(OURS), type("Other", (OURS.extensions.PerMessageDeflate,), {})()):
        extension.finalize("permessage-deflate")
        receiver = connection(OURS, True, extension)
        for first, payload in ((0x41, whole[:5]), (0x89, b""), (0x80, whole[5:])):
            receiver.receive_data(frame(first, payload, client=True))
        events = [event for event in receiver.events() if isinstance(event, OURS.events.TextMessage)]
        assert "".join(event.data for event in events) == "text " * 20


def test_final_block_ends_no_stream() -> None:
    """RFC 7692 7.2.3.4. wsproto tells nothing of what follows it."""
    compressor = zlib.compressobj(wbits=-15)
    final = compressor.compress(b"one ") + compressor.flush(zlib.Z_FINISH)
    receiver = connection(OURS, True, deflate(OURS))
    receiver.receive_data(frame(0xC2, final + b"\0", client=True) + frame(0xC2, compressed(b"two"), client=True))
    assert b"".join(event.data for event in receiver.events()) == b"one two"


@pytest.mark.parametrize(
    ("frames", "same"),
    [
        ([(0xC1, b"\xff\xff")], True),
        ([(0xC9, b"")], True),
        ([(0x41, b""), (0xC0, b"")], True),
        ([(0xA1, b"")], True),
        ([(0xC1, b"\x00\x05")], True),  # only its end tells
        ([(0xC2, compressed(b"abc" * 100)[:-1])], False),  # wsproto tells a message that was cut short
    ],
)
def test_what_deflate_refuses(frames: list[tuple[int, bytes]], same: bool) -> None:
    told = []
    for extension in (deflate(ORIGINAL), deflate(OURS), type("Other", (OURS.extensions.PerMessageDeflate,), {})()):
        extension.finalize("permessage-deflate")
        receiver = connection(ORIGINAL if not told else OURS, True, extension)
        for first, payload in frames:
            receiver.receive_data(frame(first, payload, client=True))
        told.append(joined(list(receiver.events())))
    assert told[1][-1][0] == "CloseConnection"
    assert (told[0] == told[1]) is same
    assert told[0] == told[2]


@pytest.mark.parametrize("client", [True, False])
def test_an_empty_message_has_one_byte(client: bool) -> None:
    sender = connection(OURS, client, deflate(OURS))
    for i in range(3):
        wire = sender.send(OURS.events.BytesMessage(b"x" * i))
        assert wire[1] & 0x7F > 0
    assert sender.send(OURS.events.TextMessage(""))[1] & 0x7F == 1


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "client_max_window_bits",
        "client_max_window_bits=10; server_max_window_bits= 11 ",
        "client_max_window_bits=8",
        "server_max_window_bits=16",
        "server_max_window_bits",
        "server_no_context_takeover; client_no_context_takeover",
        "unknown=1",
    ],
)
def test_negotiation(offer: str) -> None:
    text = f"permessage-deflate; {offer}"
    for arguments in ({}, {"client_no_context_takeover": True, "server_max_window_bits": 12}):
        answers = []
        for library in BOTH:
            server, client = [library.extensions.PerMessageDeflate(**arguments) for _ in range(2)]
            accepted = outcome(lambda: library.handshake.server_extensions_handshake([text], [server]))  # noqa: B023
            agreed = [repr(server), server.enabled(), repr(client), client.offer()]
            if "=8" not in offer and "=16" not in offer and not offer.endswith("bits"):
                agreed += [outcome(lambda: client.finalize(text)), repr(client), client.enabled()]  # noqa: B023
            answers.append((accepted, agreed))
        assert answers[0] == answers[1]


@pytest.mark.parametrize("bits", [8, 16])
def test_windows_out_of_range(bits: int) -> None:
    for library in BOTH:
        for name in ("client_max_window_bits", "server_max_window_bits"):
            with pytest.raises(ValueError, match="Window size must be between 9 and 15 inclusive"):
                library.extensions.PerMessageDeflate(**{name: bits})
            with pytest.raises(ValueError, match="Window size"):
                library.extensions.PerMessageDeflate().finalize(f"x; {name}={bits}")
    with pytest.raises(ValueError, match="invalid literal"):  # wsproto: IndexError
        OURS.extensions.PerMessageDeflate().finalize("x; client_max_window_bits")


def test_an_offer_that_is_no_number_is_declined() -> None:
    """wsproto raises ValueError for it, out of the server's send()."""
    extension = OURS.extensions.PerMessageDeflate()
    assert extension.accept("permessage-deflate; server_max_window_bits=many") is None
    assert not extension.enabled()


@pytest.mark.parametrize("answer", [True, False, None, "", "a=1"])
def test_answers_of_extensions(answer: Any) -> None:
    told = []
    for library in BOTH:
        extension = shouting(library)
        extension.accept = lambda offer: answer
        extension.offer = lambda: answer
        accepted = library.handshake.server_extensions_handshake(["other", "shout; b=2", "shout"], [extension])
        offered = None
        if answer:  # no offer at all is an error there, and "" becomes "shout; "
            client = library.WSConnection(library.ConnectionType.CLIENT)
            offered = client.send(library.events.Request("h", "/", extensions=[extension]))
        told.append((accepted, offered))
    assert told[0] == told[1]
    quiet = OURS.WSConnection(OURS.ConnectionType.CLIENT)
    extension = shouting(OURS)
    extension.offer = lambda: False
    assert b"Extensions" not in quiet.send(OURS.events.Request("h", "/", extensions=[extension]))


# Extensions of others -------------------------------------------------------------------------------------------------


def shouting(library: Any) -> Any:
    """Text in capitals, marked by RSV3; "quit" and the like at each stage fail the connection."""
    fp = library.frame_protocol

    class Shouting(library.extensions.Extension):  # type: ignore[misc]
        name = "shout"

        def enabled(self) -> bool:
            return True

        def offer(self) -> bool:
            return True

        def frame_inbound_header(self, proto: Any, opcode: Any, rsv: Any, payload_length: int) -> Any:
            self.marked = rsv.rsv3
            return fp.CloseReason.POLICY_VIOLATION if payload_length == 13 else fp.RsvBits(False, False, True)

        def frame_inbound_payload_data(self, proto: Any, data: bytes) -> Any:
            if data == b"quit":
                return fp.CloseReason.GOING_AWAY
            return bytearray(data.upper()) if self.marked else data

        def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
            if not self.marked:
                return None
            return b"!" if fin else fp.CloseReason.MANDATORY_EXT

        def frame_outbound(self, proto: Any, opcode: Any, rsv: Any, data: bytes, fin: bool) -> Any:
            return (rsv._replace(rsv3=True), data.lower()) if opcode is fp.Opcode.TEXT else (rsv, data)

    return Shouting()


parts = st.sampled_from([b"abc", b"", b"quit", b"thirteen byte", b"xyz" * 50])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0x81, 0x91, 0x11, 0x01, 0x80, 0x89, 0x82, 0x92, 0xA1]), parts)), st.data())
def test_extension_of_somebody_else(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    client = data.draw(st.booleans())
    more = data.draw(st.booleans())
    wire = b"".join(frame(first, payload, client=client) for first, payload in frames)
    cut = data.draw(st.integers(0, len(wire)))
    answers = []
    for library in BOTH:
        extensions = [shouting(library), deflate(library)] if more else [shouting(library)]
        receiver = connection(library, client, *extensions)
        told = []
        for piece in (wire[:cut], wire[cut:]):
            receiver.receive_data(piece)
            told.append(joined(list(receiver.events())))
        told.append(outcome(lambda: receiver.send(library.events.TextMessage("ABC"))))  # noqa: B023
        told.append(outcome(lambda: receiver.send(library.events.Ping(b"ABC"))))  # noqa: B023
        answers.append(told)
    assert answers[0] == answers[1]


def test_an_extension_that_raises_ends_the_frames() -> None:
    class Broken(OURS.extensions.Extension):  # type: ignore[misc]
        name = "broken"

        def enabled(self) -> bool:
            return True

        def offer(self) -> bool:
            return True

        def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
            raise ZeroDivisionError

    receiver = connection(OURS, True, Broken())
    receiver.receive_data(b"\x81\x00\x81\x00")
    with pytest.raises(ZeroDivisionError):
        list(receiver.events())
    receiver.receive_data(b"\x81\x00")
    assert list(receiver.events()) == []


def test_extensions_that_are_not_enabled_are_passed_over() -> None:
    receiver = connection(OURS, True, OURS.extensions.PerMessageDeflate())
    assert receiver._proto.extensions == []
    receiver.receive_data(b"\xc1\x00")
    assert [event.reason for event in receiver.events()] == ["Reserved bit set unexpectedly"]


@pytest.mark.parametrize("opcode", range(16))
def test_opcodes(opcode: int) -> None:
    told = [outcome(lambda library=library: library.frame_protocol.Opcode(opcode).iscontrol()) for library in BOTH]
    assert told[0] == told[1]


def test_an_extension_is_not_enabled_by_itself() -> None:
    class Quiet(OURS.extensions.Extension):  # type: ignore[misc]
        name = "quiet"

        def offer(self) -> bool:
            return True

    assert Quiet().enabled() is False
    assert (Quiet().accept("quiet"), Quiet().finalize("quiet")) == (None, None)
    with pytest.raises(TypeError):
        OURS.extensions.Extension()


def test_supported_extensions() -> None:
    assert list(OURS.extensions.SUPPORTED_EXTENSIONS) == list(ORIGINAL.extensions.SUPPORTED_EXTENSIONS)
