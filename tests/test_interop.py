"""The sans-I/O engines of websockets and wsproto as the other end: conversations, closing handshakes, violations.

Both directions and both roles; `test_properties.py` draws streams for the same pairs.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from naive import gist
from test_properties import make, sent_by_websockets, sent_by_wsproto, websockets_end, wsproto_end

SERVER, CLIENT = 0, 1
ROLES = [SERVER, CLIENT]

AGREEMENTS: list[dict[str, Any] | None] = [None] + [
    {
        "server_no_context_takeover": server,
        "client_no_context_takeover": client,
        "server_max_window_bits": bits,
        "client_max_window_bits": 24 - bits,
    }
    for server, client, bits in ((False, False, 15), (True, False, 12), (False, True, 9), (True, True, 10))
]
MESSAGES = [
    ("text", ""),
    ("text", "Hello, wörld " * 30),
    ("binary", bytes(range(256)) * 20),
    ("text fragments", ["aé", "", "€" * 100]),
    ("fragments", [b"", b"x" * 1000, b""]),
    ("text", "Hello, wörld " * 30),
    ("pong", b"unsolicited"),
    ("binary", b""),
]


def ours(conn: Any) -> bytes:
    return b"".join(conn.data_to_send())


def websockets_frames(end: Any, wire: bytes) -> list[tuple[str, bytes]]:
    end.receive_data(wire)
    return [(frame.opcode.name, bytes(frame.data)) for frame in end.events_received()]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("agreement", AGREEMENTS, ids=["plain", "takeover", "server none", "client none", "none"])
@pytest.mark.parametrize("step", [1, 100, 10**6])
def test_streams(ws: ModuleType, role: int, agreement: dict[str, Any] | None, step: int) -> None:
    """The same context is used up and down over several messages."""
    for sent, end in (
        (sent_by_websockets, websockets_end(1 - role, agreement)),
        (sent_by_wsproto, wsproto_end(1 - role, agreement)),
    ):
        conn = make(ws, role, agreement)
        for _ in range(2):
            wire = sent(end, MESSAGES)
            told: list[Any] = []
            for i in range(0, len(wire), step):
                conn.receive_data(wire[i : i + step])
                told += gist(conn.events())
            assert [event[1] for event in told] == [
                "".join(data) if kind == "text fragments" else b"".join(data) if kind == "fragments" else data
                for kind, data in MESSAGES
            ]


# -- websockets ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_pings_with_websockets(ws: ModuleType, role: int) -> None:
    conn, end = make(ws, role, None), websockets_end(1 - role, None)
    payloads = [conn.send_ping() for _ in range(3)]
    assert websockets_frames(end, ours(conn)) == [("PING", payload) for payload in payloads]
    conn.receive_data(b"".join(end.data_to_send()))
    assert [event.acknowledged for event in conn.events()] == [(payload,) for payload in payloads]
    end.send_ping(b"theirs")
    conn.receive_data(b"".join(end.data_to_send()))
    assert gist(conn.events()) == [("Ping", b"theirs")]
    assert websockets_frames(end, ours(conn)) == [("PONG", b"theirs")]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "gone"), (3000, "é" * 50), (4999, "x" * 123)])
def test_we_close_websockets(ws: ModuleType, role: int, code: int, reason: str) -> None:
    conn, end = make(ws, role, None), websockets_end(1 - role, None)
    conn.send_close(code, reason)
    websockets_frames(end, ours(conn))
    assert (end.close_rcvd.code, end.close_rcvd.reason) == (code, reason)
    conn.receive_data(b"".join(end.data_to_send()))
    assert gist(conn.events()) == [("CloseReceived", code, reason), ("Closed", code, reason, None)]
    assert conn.close_rcvd_then_sent is False
    assert end.close_rcvd_then_sent is True
    assert end.parser_exc is None
    transport = ws.CloseTransport.CLOSE if role == SERVER else ws.CloseTransport.KEEP
    assert conn.close_transport is transport
    end.receive_eof()
    assert end.state.name == "CLOSED"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "oops"), (None, ""), (1012, "ü")])
def test_websockets_closes_us(ws: ModuleType, role: int, code: int | None, reason: str) -> None:
    conn, end = make(ws, role, None), websockets_end(1 - role, None)
    end.send_close(code, reason)
    conn.receive_data(b"".join(end.data_to_send()))
    told = 1005 if code is None else code
    assert gist(conn.events()) == [("CloseReceived", told, reason), ("Closed", told, reason, None)]
    websockets_frames(end, ours(conn))
    assert end.close_rcvd == end.close_sent
    assert end.parser_exc is None


VIOLATIONS = [
    # frames by hand, the close code: RFC 6455 5, 7, 8
    (b"\x83\x80\x00\x00\x00\x00", 1002),
    (b"\x91\x80\x00\x00\x00\x00", 1002),
    (b"\x81\x00", 1002),
    (b"\x80\x80\x00\x00\x00\x00", 1002),
    (b"\x09\x80\x00\x00\x00\x00", 1002),
    (b"\x88\x81\x00\x00\x00\x00\x03", 1002),
    (b"\x88\x82\x00\x00\x00\x00\x03\xee", 1002),
    (b"\x88\x83\x00\x00\x00\x00\x03\xe8\xff", 1007),
    (b"\x82\xff\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00", 1009),
    (b"\x01\x81\x00\x00\x00\x00a\x81\x80\x00\x00\x00\x00", 1002),
]


@pytest.mark.parametrize("case", range(len(VIOLATIONS)))
def test_the_same_verdicts_as_websockets(ws: ModuleType, case: int) -> None:
    wire, code = VIOLATIONS[case]
    conn, end = make(ws, SERVER, None), websockets_end(SERVER, None)
    conn.receive_data(wire)
    assert gist(conn.events()) == [("Closed", code, "error")]
    end.receive_data(wire)
    assert end.close_sent.code == conn.close_sent.code == code
    peer = websockets_end(CLIENT, None)  # and our Close frame is one that websockets understands
    websockets_frames(peer, ours(conn))
    assert peer.close_rcvd.code == code
    assert peer.parser_exc is None


# -- wsproto --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_pings_with_wsproto(ws: ModuleType, role: int) -> None:
    from wsproto import events

    conn, end = make(ws, role, None), wsproto_end(1 - role, None)
    payload = conn.send_ping()
    end.receive_data(ours(conn))
    (ping,) = end.events()
    assert bytes(ping.payload) == payload
    conn.receive_data(end.send(ping.response()))
    (pong,) = conn.events()
    assert pong.acknowledged == (payload,)
    conn.receive_data(end.send(events.Ping(payload=b"theirs")))
    assert gist(conn.events()) == [("Ping", b"theirs")]
    end.receive_data(ours(conn))
    assert [bytes(event.payload) for event in end.events()] == [b"theirs"]


@pytest.mark.parametrize("role", ROLES)
def test_closing_with_wsproto(ws: ModuleType, role: int) -> None:
    from wsproto import events

    conn, end = make(ws, role, None), wsproto_end(1 - role, None)
    conn.send_close(4000, "é")
    end.receive_data(ours(conn))
    (close,) = end.events()
    assert (close.code, close.reason) == (4000, "é")
    conn.receive_data(end.send(close.response()))
    assert gist(conn.events()) == [("CloseReceived", 4000, "é"), ("Closed", 4000, "é", None)]
    assert end.state.name == "CLOSED"

    conn, end = make(ws, role, None), wsproto_end(1 - role, None)
    conn.receive_data(end.send(events.CloseConnection(code=1001, reason="bye")))
    assert gist(conn.events()) == [("CloseReceived", 1001, "bye"), ("Closed", 1001, "bye", None)]
    end.receive_data(ours(conn))
    assert [event.code for event in end.events()] == [1001]
    assert end.state.name == "CLOSED"


@pytest.mark.parametrize("case", range(len(VIOLATIONS)))
def test_wsproto_understands_our_verdict(ws: ModuleType, case: int) -> None:
    wire, code = VIOLATIONS[case]
    conn, end = make(ws, SERVER, None), wsproto_end(CLIENT, None)
    conn.receive_data(wire)
    conn.events()
    end.receive_data(ours(conn))
    (close,) = end.events()
    assert close.code == code
    assert close.reason == conn.close_reason
