"""Messages in, bytes out: what both roles put on the wire, how it is chunked, and that misuse changes nothing."""

from __future__ import annotations

import array
import random
from types import ModuleType
from typing import Any

import pytest
from helpers import parse_frames
from naive import gist, naive

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]
TEXTS = ["", "a", "é€\U0001f600", "x" * 125, "x" * 126, "é" * 63, "x" * 65535, "é" * 40000, "y" * 4096, "\x00" * 5]
SIZES = [0, 1, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 200_000]


def connect(ws: ModuleType, role: int, **arguments: Any) -> Any:
    return ws.Connection(ws.Role(role), **arguments)


def wire_of(conn: Any) -> bytes:
    chunks = conn.data_to_send()
    assert all(type(chunk) is bytes and chunk for chunk in chunks)
    assert not conn.has_output
    return b"".join(chunks)


def frames(conn: Any) -> list[tuple[int, bytes]]:
    parsed = parse_frames(wire_of(conn))
    assert all(masked == (conn.role == CLIENT) for _, masked, _ in parsed)  # RFC 6455 5.1
    return [(first, payload) for first, _, payload in parsed]


@pytest.mark.parametrize("role", ROLES)
def test_text(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    for text in TEXTS:
        raw = text.encode()
        for data in (text, raw, bytearray(raw), memoryview(raw)):
            conn.send_text(data)
            assert conn.has_output
            wire = wire_of(conn)
            assert naive(wire, server=role == CLIENT).events == [("Message", text, 1)]


@pytest.mark.parametrize("role", ROLES)
def test_binary(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    for size in SIZES:
        data = random.Random(size).randbytes(size)
        for form in (data, bytearray(data), memoryview(data), memoryview(data + data)[:size]):
            conn.send_binary(form)
            assert frames(conn) == [(0x82, data)]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("compressed", [False, True])
def test_any_buffer(ws: ModuleType, role: int, compressed: bool) -> None:
    """Arrays, slices with a step, matrices: the bytes that bytes(data) has."""
    forms = [
        array.array("I", range(100)),
        memoryview(bytes(range(256)))[::2],
        memoryview(bytes(range(256)))[::-1],
        memoryview(bytes(240)).cast("B", (12, 20)),
        memoryview(array.array("d", [1.5] * 50)),
    ]
    for form in forms:
        deflate = ws.PerMessageDeflate(ws.Role(role), ws.DeflateParameters()) if compressed else None
        conn = connect(ws, role, deflate=deflate)
        expected = bytes(memoryview(form))
        conn.send_binary(form)
        conn.send_fragment(form, first=True, fin=True)
        told = naive(wire_of(conn), server=role == CLIENT, takeover=True if compressed else None).events
        assert told == [("Message", expected, 2)] * 2


def test_a_mutable_buffer_is_copied(ws: ModuleType) -> None:
    for role in ROLES:
        conn = connect(ws, role)
        data = bytearray(b"a" * 10_000)
        conn.send_binary(data)
        data[:] = b"b" * 10_000
        assert frames(conn) == [(0x82, b"a" * 10_000)]


def test_large_bytes_go_by_reference(ws: ModuleType) -> None:
    """A server does not copy what needs no mask; small frames around it are joined."""
    conn = connect(ws, SERVER)
    large = bytes(100_000)
    conn.send_text("a")
    conn.send_text("b")
    conn.send_binary(large)
    conn.send_text("c")
    conn.send_text("d")
    chunks = conn.data_to_send()
    assert [len(chunk) for chunk in chunks] == [3 + 3 + 10, 100_000, 6]
    assert chunks[1] is large
    conn.send_text("a")
    conn.send_ping(b"b")
    assert len(conn.data_to_send()) == 1


def test_masked_frames_differ(ws: ModuleType) -> None:
    conn = connect(ws, CLIENT)
    keys = []
    for _ in range(300):
        conn.send_text("x" * 20)
        conn.send_ping()
        wire = wire_of(conn)
        keys += [wire[2:6], wire[28:32]]
    assert len(set(keys)) == 600  # RFC 6455 5.3: a fresh one for each frame


# -- fragments -------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_fragments(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    conn.send_fragment("aé", first=True, fin=False)
    conn.send_ping(b"p")  # RFC 6455 5.4: control frames may come between
    conn.send_fragment(b"\xe2\x82", first=False, fin=False)
    conn.send_fragment(b"", first=False, fin=False)
    conn.send_fragment(b"\xac", first=False, fin=True)
    conn.send_fragment(b"\xff", first=True, fin=True)
    conn.send_fragment(b"text", first=True, fin=False, text=True)
    conn.send_fragment("", first=False, fin=True)
    assert conn.stats.messages_sent == 3
    assert frames(conn) == [
        (0x01, "aé".encode()),
        (0x89, b"p"),
        (0x00, b"\xe2\x82"),
        (0x00, b""),
        (0x80, b"\xac"),
        (0x82, b"\xff"),
        (0x01, b"text"),
        (0x80, b""),
    ]


def test_a_close_frame_may_end_an_unfinished_message(ws: ModuleType) -> None:
    conn = connect(ws, SERVER)
    conn.send_fragment("a", first=True, fin=False)
    conn.send_close()
    assert frames(conn) == [(0x01, b"a"), (0x88, b"\x03\xe8")]


BAD_TEXT = [b"\xff", b"a\xed\xa0\x80", b"\xe2\x82", b"\xc0\x80", b"\xf4\x90\x80\x80"]


def snapshot(conn: Any) -> tuple[Any, ...]:
    return conn.state, conn.stats, conn.has_output, conn.close_sent, conn.next_deadline()


LOCAL_ERRORS = [
    # a call; the exception it must raise
    *[((lambda conn, bad=bad: conn.send_text(bad)), "LocalProtocolError") for bad in BAD_TEXT],
    (lambda conn: conn.send_text("a\ud800"), "LocalProtocolError"),
    (lambda conn: conn.send_text("\udcff" * 5000), "LocalProtocolError"),
    (lambda conn: conn.send_text("\ud800" * 100, compress=True), "LocalProtocolError"),
    (lambda conn: conn.send_text(5), "TypeError"),
    (lambda conn: conn.send_text(None), "TypeError"),
    (lambda conn: conn.send_binary("text"), "TypeError"),
    (lambda conn: conn.send_binary(5), "TypeError"),
    (lambda conn: conn.send_binary([1, 2]), "TypeError"),
    (lambda conn: conn.send_binary(None, compress=True), "TypeError"),
    (lambda conn: conn.send_fragment("a", first=False, fin=True), "LocalProtocolError"),
    (lambda conn: conn.send_fragment(b"\xff", first=True, fin=False, text=True), "LocalProtocolError"),
    (lambda conn: conn.send_fragment(b"\xe2\x82", first=True, fin=True, text=True), "LocalProtocolError"),
    (lambda conn: conn.send_fragment(b"\xed\xa0", first=True, fin=False, text=True), "LocalProtocolError"),
    (lambda conn: conn.send_fragment("\ud800", first=True, fin=False), "LocalProtocolError"),
    (lambda conn: conn.send_fragment("a", first=True, fin=False, text=False), "TypeError"),
    (lambda conn: conn.send_fragment(5, first=True, fin=False), "TypeError"),
    (lambda conn: conn.send_fragment(5, first=True, fin=False, text=True), "TypeError"),
]


@pytest.mark.parametrize("case", range(len(LOCAL_ERRORS)))
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("compressed", [False, True])
def test_misuse_changes_nothing(ws: ModuleType, case: int, role: int, compressed: bool) -> None:
    use, error = LOCAL_ERRORS[case]
    deflate = ws.PerMessageDeflate(ws.Role(role), ws.DeflateParameters()) if compressed else None
    conn = connect(ws, role, deflate=deflate)
    conn.send_text("before" * 50)
    before = snapshot(conn)
    with pytest.raises(getattr(ws, error, TypeError)):
        use(conn)
    assert snapshot(conn) == before
    conn.send_text("after" * 50)
    conn.send_fragment("whole", first=True, fin=True)
    told = naive(wire_of(conn), server=role == CLIENT, takeover=True if compressed else None).events
    assert told == [("Message", text, 1) for text in ("before" * 50, "after" * 50, "whole")]


INSIDE = [
    (lambda conn: conn.send_text("b"), "LocalProtocolError"),
    (lambda conn: conn.send_binary(b"b"), "LocalProtocolError"),
    (lambda conn: conn.send_fragment("b", first=True, fin=True), "LocalProtocolError"),
    (lambda conn: conn.send_fragment(b"\xff", first=False, fin=True), "LocalProtocolError"),
    (lambda conn: conn.send_fragment(b"\xed\xa0", first=False, fin=False), "LocalProtocolError"),
    (lambda conn: conn.send_fragment(5, first=False, fin=True), "TypeError"),
    (lambda conn: conn.send_fragment(b"\xe2", first=False, fin=True), "LocalProtocolError"),
]


@pytest.mark.parametrize("case", range(len(INSIDE)))
@pytest.mark.parametrize("compressed", [False, True])
def test_misuse_inside_a_message_changes_nothing(ws: ModuleType, case: int, compressed: bool) -> None:
    use, error = INSIDE[case]
    deflate = ws.PerMessageDeflate(ws.Role.SERVER, ws.DeflateParameters()) if compressed else None
    conn = connect(ws, SERVER, deflate=deflate)
    conn.send_fragment("a", first=True, fin=False)
    before = snapshot(conn)
    with pytest.raises(getattr(ws, error, TypeError)):
        use(conn)
    with pytest.raises(ws.LocalProtocolError):
        conn.send_prepared(ws.PreparedMessage("x"))
    assert snapshot(conn) == before
    conn.send_fragment("c", first=False, fin=True)
    told = naive(wire_of(conn), server=False, takeover=True if compressed else None).events
    assert told == [("Message", "ac", 1)]


def test_text_fragments_of_a_binary_message(ws: ModuleType) -> None:
    conn = connect(ws, SERVER)
    conn.send_fragment(b"\xff", first=True, fin=False)
    with pytest.raises(TypeError):
        conn.send_fragment("a", first=False, fin=True)
    conn.send_fragment(b"a", first=False, fin=True)
    assert frames(conn) == [(0x02, b"\xff"), (0x80, b"a")]


def test_every_message_cut_everywhere(ws: ModuleType) -> None:
    """Text fragments may split characters anywhere; what is sent is what was given."""
    text = "aé€\U0001f600b"
    raw = text.encode()
    for first in range(len(raw) + 1):
        for second in range(first, len(raw) + 1):
            conn = connect(ws, CLIENT)
            conn.send_fragment(raw[:first], first=True, fin=False, text=True)
            conn.send_fragment(raw[first:second], first=False, fin=False)
            conn.send_fragment(raw[second:], first=False, fin=True)
            wire = wire_of(conn)
            assert naive(wire, server=True).events == [("Message", text, 1)]


# -- prepared messages ---------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_prepared(ws: ModuleType, role: int) -> None:
    conn = connect(ws, role)
    for data in ("Hello", b"\xff" * 10, "x" * 5000, ""):
        prepared = ws.PreparedMessage(data)
        conn.send_prepared(prepared)
        conn.send_prepared(prepared)
        kind = 1 if isinstance(data, str) else 2
        assert naive(wire_of(conn), server=role == CLIENT).events == [("Message", data, kind)] * 2
    assert conn.stats.messages_sent == 8


def test_prepared_when_closed(ws: ModuleType) -> None:
    for role in ROLES:
        conn = connect(ws, role)
        conn.send_close()
        before = snapshot(conn)
        with pytest.raises(ws.InvalidState):
            conn.send_prepared(ws.PreparedMessage("x"))
        assert snapshot(conn) == before


# -- both ends --------------------------------------------------------------------------------


def test_random_conversations(ws: ModuleType) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        role = rng.choice(ROLES)
        conn, peer = connect(ws, role), connect(ws, 1 - role)
        expected: list[Any] = []
        for _ in range(rng.randrange(1, 12)):
            what = rng.choice(["text", "binary", "ping", "pong", "fragments"])
            size = rng.choice([0, 1, 100, 126, 5000, 70_000])
            if what == "text":
                text = rng.choice("aé€\U0001f600") * size
                conn.send_text(text)
                expected.append(("Message", text, 1))
            elif what == "binary":
                data = rng.randbytes(size)
                conn.send_binary(data)
                expected.append(("Message", data, 2))
            elif what == "ping":
                expected.append(("Ping", conn.send_ping()))
            elif what == "pong":
                conn.send_pong(b"x")
                expected.append(("Pong", b"x", ()))
            else:
                parts = [rng.randbytes(rng.choice([0, 3, 200])) for _ in range(4)]
                for i, part in enumerate(parts):
                    conn.send_fragment(part, first=i == 0, fin=i == 3)
                expected.append(("Message", b"".join(parts), 2))
        wire = wire_of(conn)
        told = []
        i = 0
        while i < len(wire):
            n = rng.choice([1, 2, 7, 1000, 65536])
            if rng.random() < 0.5:
                view = peer.get_buffer()
                n = min(n, len(view), len(wire) - i)
                view[:n] = wire[i : i + n]
                peer.buffer_updated(n)
            else:
                peer.receive_data(wire[i : i + n])
            i += n
            told += gist(peer.events())
        assert told == expected, seed
