"""The façade's handshake and wsproto's: the same requests, responses and calls, the same answers and bytes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto_twins import BOTH, OURS, _same_random_bytes, make, operate, outcome, plain

__all__ = ["_same_random_bytes"]

HEADERS = [
    (b"Host", b"example.com"),
    (b"Connection", b"keep-alive, Upgrade"),
    (b"Upgrade", b"WebSocket"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"AQIDBAECAwQBAgMEAQIDBA=="),
]
NOTHING = plain(None)
Pairs = list[tuple[bytes, bytes]]


def request(headers: Pairs = HEADERS, line: bytes = b"GET /chat?x=1 HTTP/1.1") -> bytes:
    return line + b"\r\n" + b"".join(b"%s: %s\r\n" % item for item in headers) + b"\r\n"


def without(name: bytes, *more: tuple[bytes, bytes]) -> Pairs:
    return [item for item in HEADERS if item[0] != name] + list(more)


def servers() -> list[Any]:
    return [library.WSConnection(library.ConnectionType.SERVER) for library in BOTH]


def clients() -> list[Any]:
    return [library.WSConnection(library.ConnectionType.CLIENT) for library in BOTH]


def run(pair: list[Any], operations: list[tuple[Any, ...]]) -> list[Any]:
    """Both must answer the same; their answers."""
    answers: list[list[Any]] = []
    for library, connection in zip(BOTH, pair, strict=True):
        answers.append([(operate(library, connection, item), str(connection.state)) for item in operations])
    assert answers[1] == answers[0]
    return answers[1]


# Server ---------------------------------------------------------------------------------------------------------------

REQUESTS = {
    "plain": request(),
    "http 1.0": request(line=b"GET / HTTP/1.0"),
    "options": request(
        [
            *HEADERS,
            (b"Sec-WebSocket-Protocol", b"a, b"),
            (b"Sec-WebSocket-Extensions", b"x; y=1, permessage-deflate; client_max_window_bits"),
            (b"Sec-WebSocket-Protocol", b"c"),
            (b"X-Latin", b"\xe9"),
            (b"Cookie", b"a=b"),
            (b"Cookie", b"c=d"),
        ]
    ),
    "bytes behind it": request() + b"\x81\x80abcd",
    "no host in 1.0": request(without(b"Host"), b"GET / HTTP/1.0"),
    "idna": request(without(b"Host", (b"Host", b"xn--7ks3rz39bh7u"))),
    "port": request(without(b"Host", (b"Host", b"[::1]:80"))),
    "post": request(line=b"POST / HTTP/1.1"),
    "head": request(line=b"HEAD / HTTP/1.1"),
    "no connection": request(without(b"Connection")),
    "other connection": request(without(b"Connection", (b"Connection", b"no-upgrade"))),
    "no version": request(without(b"Sec-WebSocket-Version")),
    "old version": request(without(b"Sec-WebSocket-Version", (b"Sec-WebSocket-Version", b"8"))),
    "no key": request(without(b"Sec-WebSocket-Key")),
    "two keys": request([*HEADERS, (b"Sec-WebSocket-Key", b"x")]),
    "no upgrade": request(without(b"Upgrade")),
    "other upgrade": request(without(b"Upgrade", (b"Upgrade", b"h2c"))),
    "no http": b"broken nonsense\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01",
    "two hosts": request([*HEADERS, (b"Host", b"b")]),
    "no host": request(without(b"Host")),
    "bad name": request([*HEADERS, (b"a b", b"c")]),
    "bad value": request([*HEADERS, (b"a", b"b\0c")]),
}

ANSWERS: list[tuple[Any, ...]] = [
    ("AcceptConnection",),
    ("AcceptConnection", "b", [], [(b"X-Extra", b"1"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")]),
    ("AcceptConnection", "unheard"),
    ("RejectConnection",),
    ("RejectConnection", 404, [(b"Content-Type", b"text/plain")]),
    ("RejectConnection", 204),
    ("RejectConnection", 403, [(b"Content-Length", b"3")], True),
    ("RejectConnection", 403, [(b"content-length", b"3"), (b"Content-Length", b"3")], True),
    ("RejectConnection", 403, [(b"Transfer-Encoding", b"Chunked")], True),
    ("RejectConnection", 403, [(b"Connection", b"keep-alive, x")], True),
    ("RejectConnection", 204, [], True),
    ("RejectConnection", 403, [(b"Content-Length", b"x")], True),
    ("RejectConnection", 403, [(b"Content-Length", b"3")]),
    ("RejectConnection", 403, [(b"Transfer-Encoding", b"gzip")], True),
    ("RejectConnection", 101),
    ("RejectData", b"early"),
    ("Request", "host", "/"),
    ("Ping",),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
@pytest.mark.parametrize("name", REQUESTS)
def test_server(name: str, answer: tuple[Any, ...]) -> None:
    told = [("receive", REQUESTS[name]), ("events",)]
    run_some_alike(servers(), [*told, ("send", *answer), ("send", "RejectData", b"abc"), ("receive", b""), ("events",)])


#: Where wsproto hands out h11's exceptions, or stumbles over its own assertions: ours is LocalProtocolError.
FOREIGN = {"AssertionError", "LocalProtocolError"}


def run_some_alike(pair: list[Any], operations: list[tuple[Any, ...]]) -> None:
    """As ``run``, up to the first misuse: what follows it is free."""
    for operation in operations:
        answers = [operate(library, connection, operation) for library, connection in zip(BOTH, pair, strict=True)]
        kinds = [answer[0] if isinstance(answer, tuple) else None for answer in answers]
        if kinds[0] in FOREIGN:
            assert kinds[1] == "LocalProtocolError", (operation, answers)
            return
        assert answers[1] == answers[0], operation
        assert str(pair[0].state) == str(pair[1].state)


@pytest.mark.parametrize("name", REQUESTS)
def test_server_hears_it_bytewise(name: str) -> None:
    told = []
    for library, server in zip(BOTH, servers(), strict=True):
        errors, events = [], []
        for i in range(len(REQUESTS[name])):
            error = operate(library, server, ("receive", REQUESTS[name][i : i + 1]))
            if error != NOTHING:
                errors.append(error)
                break
            events += operate(library, server, ("events",))
        told.append((errors, events))
    assert told[0] == told[1]


@pytest.mark.parametrize("body", [b"", b"abc"])
@pytest.mark.parametrize("headers", [[], [(b"Content-Length", b"6")], [(b"Transfer-Encoding", b"chunked")]])
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0"])
def test_bodies_of_refusals(line: bytes, headers: Pairs, body: bytes) -> None:
    run_some_alike(
        servers(),
        [
            ("receive", request(line=line)),
            ("send", "RejectConnection", 400, headers, True),
            ("send", "RejectData", body, False),
            ("send", "RejectData", b"", False),
            ("send", "RejectData", b"def", True),
            ("send", "RejectData", b"", True),
        ],
    )


def test_a_refusal_needs_no_request() -> None:
    for headers in ([], [(b"content-length", b"0")]):
        run(servers(), [("send", "RejectConnection", 503, headers, True)])


@pytest.mark.parametrize("end", [None, b""])
def test_server_hears_the_end(end: bytes | None) -> None:
    run(servers(), [("receive", end), ("events",), ("receive", end), ("receive", b"x")])
    run(servers(), [("receive", b"GET"), ("receive", end), ("receive", end), ("events",)])
    run(servers(), [("receive", request()), ("receive", end), ("events",)])


def test_a_request_that_somebody_else_read() -> None:
    for headers, path in ((HEADERS, "/a"), (HEADERS, b"/b"), (without(b"Upgrade"), "/")):
        told = []
        for server in servers():
            answer = outcome(functools.partial(server.initiate_upgrade_connection, headers, path))
            told.append((answer, plain(list(server.events()))))
        assert told[0] == told[1]
    for client in clients():
        answer = outcome(functools.partial(client.initiate_upgrade_connection, HEADERS, "/"))
        assert answer[:2] == ("LocalProtocolError", "Cannot initiate an upgrade connection when acting as the client")
    wrong = [(without(b"Host"), "/"), (HEADERS, "/ ")]
    wrong += [([*HEADERS, (b"a b", b"c")], "/"), ([*HEADERS, (b"a", b"\n")], "/")]
    for headers, path in wrong:
        for server in servers():
            kind = outcome(functools.partial(server.initiate_upgrade_connection, headers, path))[0]
            assert kind == "LocalProtocolError"


# Client ---------------------------------------------------------------------------------------------------------------

ACCEPT = [(b"Upgrade", b"WebSocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", b"")]


def response(headers: Pairs, line: bytes = b"HTTP/1.1 101 Switching Protocols", body: bytes = b"") -> bytes:
    nonce = OURS.utilities.generate_nonce()
    token = OURS.utilities.generate_accept_token(nonce)
    lines = [b"%s: %s\r\n" % (name, value or token) for name, value in headers]
    return line + b"\r\n" + b"".join(lines) + b"\r\n" + body


REFUSED = b"HTTP/1.1 403 Forbidden"
CHUNKED = [(b"Transfer-Encoding", b"chunked")]
RESPONSES = {
    "accepted": lambda: response(ACCEPT),
    "with data": lambda: response([*ACCEPT, (b"Server", b"x")], body=b"\x81\x01a\x89"),
    "subprotocol": lambda: response([*ACCEPT, (b"Sec-WebSocket-Protocol", b"b")]),
    "other subprotocol": lambda: response([*ACCEPT, (b"Sec-WebSocket-Protocol", b"z")]),
    "other extension": lambda: response([*ACCEPT, (b"Sec-WebSocket-Extensions", b"z")]),
    "no connection": lambda: response([ACCEPT[0], ACCEPT[2]]),
    "no upgrade": lambda: response(ACCEPT[1:]),
    "other upgrade": lambda: response([(b"Upgrade", b"h2c"), *ACCEPT[1:]]),
    "no token": lambda: response(ACCEPT[:2]),
    "other token": lambda: response([*ACCEPT[:2], (b"Sec-WebSocket-Accept", b"x")]),
    "interim": lambda: response([(b"A", b"b")], b"HTTP/1.1 103 Early Hints"),
    "interim, then accepted": lambda: response([], b"HTTP/1.1 100 Continue") + response(ACCEPT),
    "no body": lambda: response([(b"Content-Length", b"0")], REFUSED),
    "no content": lambda: response([], b"HTTP/1.1 204 "),
    "body": lambda: response([(b"Content-Length", b"5"), (b"A", b"b")], REFUSED, b"abcde"),
    "until the end": lambda: response([], REFUSED, b"abcde"),
    "1.0": lambda: response([], b"HTTP/1.0 403 No", b"abcde"),
    "chunked": lambda: response(CHUNKED, REFUSED, b"3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\n\r\n"),
    "trailer": lambda: response(CHUNKED, REFUSED, b"0\r\na: b\r\n\r\n"),
    "bad chunk": lambda: response(CHUNKED, REFUSED, b"x\r\n"),
    "bad chunk end": lambda: response(CHUNKED, REFUSED, b"1\r\naXY"),
    "other chunk end": lambda: response(CHUNKED, REFUSED, b"1\r\naX\n\n"),
    "no http": lambda: b"nonsense\r\n\r\n",
    "bad length": lambda: response([(b"Content-Length", b"x")], REFUSED),
}


def events_joined(answers: list[Any]) -> list[Any]:
    """Events with the pieces of a body joined."""
    joined: list[Any] = []
    for event in answers:
        if event[0] == "RejectData" and joined and joined[-1][0] == "RejectData":
            event = ("RejectData", joined.pop()[1] + event[1], event[2])
        joined.append(event)
    return joined


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize("name", RESPONSES)
def test_client(name: str, cut: int) -> None:
    wire = RESPONSES[name]()
    told = []
    for library, client in zip(BOTH, clients(), strict=True):
        sent = client.send(library.events.Request("example.com", "/a", subprotocols=["a", "b"]))
        events, errors = [], []
        for start in range(0, len(wire), cut or len(wire)):
            error = operate(library, client, ("receive", wire[start : start + (cut or len(wire))]))
            events += operate(library, client, ("events",))
            if error != NOTHING:
                errors.append(error)
                break
        else:
            errors.append(operate(library, client, ("receive", None)))
            events += operate(library, client, ("events",))
        told.append((sent, errors, events if cut == 0 else events_joined(events), str(client.state)))
    assert told[0] == told[1]


@pytest.mark.parametrize("first", [[], [("send", "Request", "h", "/")]])
def test_client_hears_the_end(first: list[Any]) -> None:
    run(clients(), [*first, ("receive", None), ("events",), ("receive", b""), ("receive", b"x")])
    run(clients(), [*first, ("receive", b"HTTP"), ("receive", None), ("receive", None)])


def test_body_that_is_cut_short() -> None:
    for headers, body in (([(b"Content-Length", b"5")], b"ab"), ([(b"Transfer-Encoding", b"chunked")], b"5\r\nab")):
        wire = response(headers, REFUSED, body)
        run(clients(), [("send", "Request", "h", "/"), ("receive", wire), ("events",), ("receive", None), ("events",)])


@pytest.mark.parametrize(
    "what",
    [
        ("Request", "example.com:80", "/?q"),
        ("Request", "bücher.example", "/", [], [(b"Origin", b"x"), (b"X", b"y")], ["a", "b"]),
        ("Request", "h", "/ x"),
        ("Request", "h", "/", [], [(b"Host", b"two")]),
        ("Request", "h", "/", [], [(b"A", b"b\r\nc: d")]),
        ("AcceptConnection",),
        ("RejectConnection",),
        ("RejectData", b""),
        ("Pong",),
    ],
    ids=repr,
)
def test_client_sends(what: tuple[Any, ...]) -> None:
    run_some_alike(clients(), [("send", *what), ("send", *what)])


def test_both_ends() -> None:
    for clients_library in BOTH:
        for servers_library in BOTH:
            client = clients_library.WSConnection(clients_library.ConnectionType.CLIENT)
            server = servers_library.WSConnection(servers_library.ConnectionType.SERVER)
            deflate = clients_library.extensions.PerMessageDeflate()
            server.receive_data(client.send(make(clients_library, ("Request", "h", "/", [deflate]))))
            assert len(list(server.events())) == 1
            deflate = servers_library.extensions.PerMessageDeflate()
            client.receive_data(server.send(make(servers_library, ("AcceptConnection", None, [deflate]))))
            (accepted,) = client.events()
            assert [item.name for item in accepted.extensions] == ["permessage-deflate"]
            for sender, receiver, library in ((client, server, clients_library), (server, client, servers_library)):
                for data in ("text" * 50, "", "again" * 50):
                    receiver.receive_data(sender.send(library.events.TextMessage(data)))
                    assert "".join(event.data for event in receiver.events()) == data


def test_repr() -> None:
    for client, server in zip(clients(), servers(), strict=True):
        assert repr(client.handshake) == "H11Handshake(client=True, state=ConnectionState.CONNECTING)"
        assert repr(server.handshake) == "H11Handshake(client=False, state=ConnectionState.CONNECTING)"


def test_no_extension_in_common() -> None:
    for library, server in zip(BOTH, servers(), strict=True):
        server.receive_data(REQUESTS["options"])
        other = type("Other", (library.extensions.PerMessageDeflate,), {"name": "other"})()
        assert b"Extensions" not in server.send(library.events.AcceptConnection(extensions=[other]))


# What is ours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        request().replace(b"\r\n", b"\n"),
        request([*HEADERS, (b"A", b"b\r\n c")]),
        request([*HEADERS, (b"Content-Length", b"5")]),
        request(without(b"Connection", (b"Connection", b"Upgrade, \xe9"))),
        request(without(b"Host", (b"Host", b"xn--99999999.example"))),
    ],
    ids=["bare LF", "folded", "body", "latin connection", "long label"],
)
def test_requests_that_only_we_refuse(wire: bytes) -> None:
    """And those on which wsproto raises what no embedder expects."""
    server = OURS.WSConnection(OURS.ConnectionType.SERVER)
    with pytest.raises(OURS.utilities.RemoteProtocolError, match="Bad HTTP message") as info:
        server.receive_data(wire)
    assert info.value.event_hint == OURS.events.RejectConnection()


def test_connection_is_a_list_over_several_lines() -> None:
    """RFC 9110 5.3, 7.6.1. wsproto looks at the last line only."""
    server = OURS.WSConnection(OURS.ConnectionType.SERVER)
    server.receive_data(request([*HEADERS, (b"Connection", b"keep-alive")]))
    assert len(list(server.events())) == 1


def test_responses_that_only_we_refuse() -> None:
    def client(extensions: list[Any]) -> Any:
        connection = OURS.WSConnection(OURS.ConnectionType.CLIENT)
        connection.send(OURS.events.Request("h", "/", extensions=extensions))
        return connection

    deflate = OURS.extensions.PerMessageDeflate()
    answer = (b"Sec-WebSocket-Extensions", b"permessage-deflate; server_max_window_bits=99")
    with pytest.raises(OURS.utilities.RemoteProtocolError, match="unacceptable parameters of extension"):
        client([deflate]).receive_data(response([*ACCEPT, answer]))
    with pytest.raises(OURS.utilities.RemoteProtocolError, match="Bad HTTP message"):
        client([]).receive_data(response([*ACCEPT, (b"Sec-WebSocket-Protocol", b"\xff")]))
    unasked = OURS.WSConnection(OURS.ConnectionType.CLIENT)
    with pytest.raises(OURS.utilities.RemoteProtocolError, match="Bad HTTP message"):
        unasked.receive_data(response(ACCEPT))


def test_endless_lines_are_refused() -> None:
    for wire in (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000, b"x" * 70_000):
        server = OURS.WSConnection(OURS.ConnectionType.SERVER)
        assert outcome(lambda: server.receive_data(wire))[1] == "Bad HTTP message"  # noqa: B023
    client = OURS.WSConnection(OURS.ConnectionType.CLIENT)
    client.send(OURS.events.Request("h", "/"))
    client.receive_data(response([(b"Transfer-Encoding", b"chunked")], REFUSED, b"0" * 10))
    assert outcome(lambda: client.receive_data(b"0" * 70_000))[1] == "Bad HTTP message"


PARTS = [b"GET / HTTP/1.1\r\n", b"HTTP/1.1 403 \r\n", b"Host: a\r\n", b"\r\n", b"A: b", b"\xff"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS)))
def test_any_bytes_raise_nothing_else(parts: list[bytes]) -> None:
    for kind in (OURS.ConnectionType.SERVER, OURS.ConnectionType.CLIENT):
        connection = OURS.WSConnection(kind)
        if kind is OURS.ConnectionType.CLIENT:
            connection.send(OURS.events.Request("h", "/"))
        for part in parts:
            answer = outcome(functools.partial(connection.receive_data, part))
            assert answer in (NOTHING, ("RemoteProtocolError", answer[1], plain(OURS.events.RejectConnection())))
        list(connection.events())
