"""The opening handshake: tables of heads, run whole, bytewise and split; then against websockets and wsproto."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import websockets.client
import websockets.headers
import websockets.server
import websockets.uri
import websockets.utils
import wsproto
import wsproto.events
import wsproto.extensions
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory

from wsproto_fast import testing
from wsproto_fast.exceptions import (
    InvalidHeaderFormat,
    InvalidMessage,
    InvalidOrigin,
    InvalidState,
    InvalidStatus,
    NegotiationError,
    SecurityError,
)
from wsproto_fast.handshake import (
    ClientHandshake,
    ServerHandshake,
    ServerRules,
    accept_key,
    generate_key,
    parse_extensions,
    parse_subprotocols,
    parse_token_list,
)
from wsproto_fast.http11 import Headers, Request, RequestParser, Response, ResponseParser
from wsproto_fast.limits import DeflateConfig, Limits
from wsproto_fast.testing import (
    HOSTILE_REQUESTS,
    HOSTILE_RESPONSES,
    LEGAL_REQUESTS,
    RequestCase,
    ResponseCase,
    request,
)
from wsproto_fast.uri import WebSocketURI, parse_uri

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FRAMES = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\r\n\r\n"  # RFC 6455 5.7, and the end of a head
URI = parse_uri("ws://example.com/chat")
REQUEST = dict(RequestParser().feed(request()).headers.raw_items())  # type: ignore[union-attr]


def response(first: str = "HTTP/1.1 101 Switching Protocols", body: bytes = b"", **changes: Any) -> bytes:
    return testing.response(KEY, first, **changes) + body


def ways(wire: bytes) -> Iterator[list[bytes]]:
    """The same bytes: whole, bytewise, split at each point (of long ones: at some)."""
    yield [wire]
    yield [wire[i : i + 1] for i in range(len(wire))]
    for i in range(1, len(wire), 1 + len(wire) // 300):
        yield [wire[:i], wire[i:]]


def serve(wire: bytes, *, eof: bool = False, trailing: bytes = FRAMES, **settings: Any) -> ServerHandshake:
    """Feed a request every way; all ways must tell and answer the same. Returns the last, answered."""
    outcomes = []
    for data in (wire, wire + trailing):
        for chunks in ways(data):
            server = ServerHandshake(**settings)
            for chunk in chunks:
                server.receive_data(chunk)
            if eof:
                server.receive_eof()
            assert server.data_to_send() == []
            assert server.trailing_data == b""
            assert not server.done
            server.send_response(server.accept())
            (answer,) = server.data_to_send()
            assert server.data_to_send() == []
            assert server.done
            assert server.accepted is (server.error is None)
            # Bytes behind the head are frames only after a 101, else they are nothing.
            assert server.trailing_data == (data[len(wire) :] if server.accepted else b"")
            server.answer = answer  # type: ignore[attr-defined]
            outcomes.append((repr(server.request), repr(server.error), answer, server.subprotocol))
    assert len(set(outcomes)) == 1
    return server


def parsed_answer(server: Any) -> Response:
    parser = ResponseParser()
    parsed = parser.feed(server.answer) or parser.feed_eof()
    assert parsed is not None
    return parsed


def connect(wire: bytes, *, eof: bool = False, trailing: bytes = b"", **settings: Any) -> ClientHandshake:
    """Feed a response every way; all ways must end the same. Returns the last."""
    outcomes = []
    for chunks in ways(wire + trailing):
        client = ClientHandshake(URI, **settings)
        client.key = KEY
        rest = iter(chunks)
        for chunk in rest:
            client.receive_data(chunk)
            if client.accepted:
                break
        left = client.trailing_data + b"".join(rest)
        if eof:
            client.receive_eof()
        assert client.accepted is (client.done and client.error is None)
        outcomes.append((repr(client.response), repr(client.error), client.done, client.subprotocol))
        if client.accepted:
            assert left == trailing
    assert len(set(outcomes)) == 1
    return client


# Keys and lists


def test_keys() -> None:
    assert accept_key(KEY) == ACCEPT
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert len(base64.b64decode(key, validate=True)) == 16
        assert type(key) is str
        assert accept_key(key) == websockets.utils.accept_key(key)
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        assert accept_key(key) == base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a\t,\t b ", ["a", "b"]),
        (",a,, b,", ["a", "b"]),  # RFC 9110 5.6.1.2: empty elements are ignored
        ("a.b-c!#$%&'*+^_`|~", ["a.b-c!#$%&'*+^_`|~"]),
        (",".join("a" * 128), ["a"] * 128),
    ],
)
def test_token_list(value: str, tokens: list[str]) -> None:
    assert parse_token_list(value, "X") == parse_subprotocols(value) == tokens
    assert websockets.headers.parse_subprotocol(value.strip()) == tokens


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "expected token at 0 in "),
        (" , ,", "expected token at 4 in  , ,"),
        ("a b", "expected token at 0 in a b"),
        ("a, b c", "expected token at 3 in a, b c"),
        ('"a"', 'expected token at 0 in "a"'),
        ("a, é", "expected token at 3 in a, é"),
        ("a;b", "expected token at 0 in a;b"),
        ("," * 128, "too many elements at 0 in " + "," * 128),
    ],
)
def test_bad_token_list(value: str, text: str) -> None:
    with pytest.raises(InvalidHeaderFormat) as info:
        parse_token_list(value, "X")
    assert info.value.name == "X"
    assert info.value.value == text
    with pytest.raises(InvalidHeaderFormat):
        parse_subprotocols(value)


@pytest.mark.parametrize(
    ("value", "extensions"),
    [
        ("foo", [("foo", [])]),
        ("foo, bar", [("foo", []), ("bar", [])]),
        ("foo; name; token=token; quoted-string=\"quoted-string\", bar; quux; quuux", [
            ("foo", [("name", None), ("token", "token"), ("quoted-string", "quoted-string")]),
            ("bar", [("quux", None), ("quuux", None)]),
        ]),  # RFC 6455 9.1
        ("foo;a=1;b=\"2\",foo", [("foo", [("a", "1"), ("b", "2")]), ("foo", [])]),
        (" \t, foo\t ;\t a\t =\t 1 ; b = \"2\" \t,, ,", [("foo", [("a", "1"), ("b", "2")])]),
        ('foo;a="\\1\\0"', [("foo", [("a", "10")])]),
        ('foo;a="\\b"', [("foo", [("a", "b")])]),
        ("permessage-deflate; client_max_window_bits", [("permessage-deflate", [("client_max_window_bits", None)])]),
    ],
)  # fmt: skip
def test_extensions(value: str, extensions: list[Any]) -> None:
    assert parse_extensions(value) == extensions
    assert websockets.headers.parse_extension(value.strip(" \t")) == extensions


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", "expected token at 0"),
        (" , ", "expected token at 3"),
        ("foo bar", "expected comma at 4"),
        ("foo=1", "expected comma at 3"),
        ("foo;", "expected token at 4"),
        ("foo;;a", "expected token at 4"),
        ("foo;a=", "expected token at 6"),
        ("foo;a=;b", "expected token at 6"),
        ("foo;=1", "expected token at 4"),
        (";a", "expected token at 0"),
        ("é", "expected token at 0"),
        ('foo;a="', "unterminated quoted string at 6"),
        ('foo;a="1', "unterminated quoted string at 6"),
        ('foo;a="1\\"', "quoted string is not a token at 6"),
        ('foo;a=""', "quoted string is not a token at 6"),
        ('foo;a=" 1"', "quoted string is not a token at 6"),
        ('foo;a="1,2"', "quoted string is not a token at 6"),
        ('foo;a="\\""', "quoted string is not a token at 6"),
        ('foo;a="\\\\"', "quoted string is not a token at 6"),
        ('foo;a="1\\\\2"', "quoted string is not a token at 6"),
        ('foo;a="1"2', "expected comma at 9"),
        ('foo;a="1";"b"', "expected token at 10"),
        ('foo;a="é"', "quoted string is not a token at 6"),
        (",".join(["a"] * 129), "too many elements at 0"),
        (";".join(["a"] * 129), "too many elements at 0"),
    ],
)
def test_bad_extensions(value: str, error: str) -> None:
    with pytest.raises(InvalidHeaderFormat) as info:
        parse_extensions(value)
    assert info.value.name == "Sec-WebSocket-Extensions"
    assert info.value.value == f"{error} in {value}"
    if "too many" not in error:
        with pytest.raises(websockets.exceptions.InvalidHeaderFormat):
            websockets.headers.parse_extension(value.strip(" \t"))


# The server


def test_example_of_the_rfc() -> None:
    """RFC 6455 1.2 and 1.3."""
    server = serve(
        b"GET /chat HTTP/1.1\r\n"
        b"Host: server.example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Origin: http://example.com\r\n"
        b"Sec-WebSocket-Protocol: chat, superchat\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
        subprotocols=["chat"],
        origins=["http://example.com"],
    )
    assert server.answer == (  # type: ignore[attr-defined]
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
    assert server.error is None
    assert server.subprotocol == "chat"
    assert server.offered_subprotocols == ["chat", "superchat"]
    assert server.origin == "http://example.com"
    assert server.deflate is server.extensions_header is None
    assert server.request is not None
    assert server.request.path == "/chat"
    with pytest.raises(InvalidState):
        server.receive_data(b"frames")
    server.receive_eof()
    with pytest.raises(InvalidState):
        server.send_response(server.accept())


@pytest.mark.parametrize("case", LEGAL_REQUESTS, ids=str)
def test_accepted(case: RequestCase) -> None:
    server = serve(case.data)
    assert server.error is None
    assert server.subprotocol is None
    assert server.request is not None
    assert parsed_answer(server).headers == Headers(
        Upgrade="websocket",
        Connection="Upgrade",
        **{"Sec-WebSocket-Accept": accept_key(server.request.headers["Sec-WebSocket-Key"])},
    )


#: What the body of a refusal says; for those cases of the corpus where that is worth a line.
REFUSALS = {
    "method-POST": "unsupported HTTP method: POST",
    "method-get": "unsupported HTTP method: get",
    "http-1.0": "unsupported HTTP version: HTTP/1.0",
    "http-2.0": "unsupported HTTP version: HTTP/2.0",
    "no-connection": "missing Connection header",
    "connection-keep-alive": "invalid Connection header: keep-alive",
    "connection-upgraded": "invalid Connection header: upgraded",
    "connection-empty": "empty Connection header",
    "two-connections-without-upgrade": "invalid Connection header: a, b",
    "no-upgrade": "missing Upgrade header",
    "upgrade-h2c": "invalid Upgrade header: h2c",
    "upgrade-websocket-13": "invalid Upgrade header: websocket/13",
    "version-8": "invalid Sec-WebSocket-Version header: 8",
    "no-version": "missing Sec-WebSocket-Version header",
    "two-versions": "invalid Sec-WebSocket-Version header: multiple values",
    "no-key": "missing Sec-WebSocket-Key header",
    "two-keys": "invalid Sec-WebSocket-Key header: multiple values",
    "key-empty": "empty Sec-WebSocket-Key header",
    "key-of-one-letter": "invalid Sec-WebSocket-Key header: x",
    "key-with-an-accent": "invalid Sec-WebSocket-Key header: é" + "A" * 21 + "==",
    "two-origins": "invalid Origin header: multiple values",
    "no-host": "did not receive a valid HTTP request; expected one Host header; got 0",
    "two-hosts": "did not receive a valid HTTP request; expected one Host header; got 2",
    "long-request-line": "request line exceeds 8192 bytes",
    "long-header": "header line exceeds 8192 bytes",
    "long-head": "head exceeds 65536 bytes",
    "129-headers": "expected no more than 128 headers",
}


def test_refusals_are_of_the_corpus() -> None:
    assert REFUSALS.keys() <= {case.name for case in HOSTILE_REQUESTS}


@pytest.mark.parametrize("case", HOSTILE_REQUESTS, ids=str)
def test_refused(case: RequestCase) -> None:
    status, text = case.status, REFUSALS.get(case.name)
    server: Any = serve(case.data, server_header="ours/1")
    assert type(server.error) is case.error
    answer = parsed_answer(server)
    assert answer.status_code == status
    headers = answer.headers
    assert headers["Connection"].partition(",")[0] == "close"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Content-Length"] == str(len(answer.body))
    assert headers["Server"] == "ours/1"
    assert headers.get("Allow") == ("GET" if status == 405 else None)
    assert headers.get("Upgrade") == ("websocket" if status == 426 else None)
    assert ("Upgrade" in headers["Connection"]) is (status == 426)  # RFC 9110 7.8
    wrong_version = status == 426 and "Version" in str(server.error)
    assert headers.get("Sec-WebSocket-Version") == ("13" if wrong_version else None)
    assert server.answer.endswith(answer.body)
    body = bytes(answer.body).decode()
    assert body.startswith("Failed to open a WebSocket connection: ")
    assert len(body) < 800
    assert body.rstrip().endswith(".")
    assert body.count("\n\n") == 1
    if text is not None:
        assert text in body
    # A refused peer may go on sending: nothing of it means anything.
    server.receive_data(FRAMES)
    server.receive_eof()
    assert server.data_to_send() == []
    assert server.trailing_data == b""
    with pytest.raises(InvalidState):
        server.send_response(server.accept())


@pytest.mark.parametrize("wire", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_request_cut_short(wire: bytes) -> None:
    server = serve(wire, eof=True, trailing=b"")
    assert isinstance(server.error, InvalidMessage)
    assert isinstance(server.error.__cause__, EOFError)
    assert server.request is None
    assert parsed_answer(server).status_code == 400


ORIGINS = ["https://example.com", "http://localhost:8080", re.compile(r"https://[a-z]+\.example\.org")]


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [
        ("https://example.com", True),
        ("http://localhost:8080", True),
        ("https://a.example.org", True),
        ("http://example.com", False),
        ("https://example.com:8443", False),
        ("https://example.com.evil.com", False),
        ("https://evilexample.com", False),
        ("https://example.com/", False),
        ("https://example.com evil", False),
        ("https://EXAMPLE.com", False),
        ("https://a.example.org.evil.com", False),
        ("https://evil.com/https://a.example.org", False),
        ("https://aXexample.org", False),
        ("null", False),
        ("*", False),
        ("", False),
        (None, False),
    ],
)
def test_origins(origin: str | None, accepted: bool) -> None:
    server = serve(request(Origin=origin), origins=ORIGINS)
    assert server.accepted is accepted
    if not accepted:
        assert isinstance(server.error, InvalidOrigin)
        assert parsed_answer(server).status_code == 403
    assert server.origin == (origin if accepted else None)
    assert serve(request(Origin=origin)).accepted
    # None accepts a request without one, and nothing else.
    assert serve(request(Origin=origin), origins=[None]).accepted is (origin is None)
    assert not serve(request(Origin=origin), origins=[]).accepted


def test_origins_is_a_list() -> None:
    origins: Any = "https://example.com"
    with pytest.raises(TypeError):
        ServerHandshake(origins=origins)


@pytest.mark.parametrize(
    ("offered", "ours", "chosen"),
    [
        (None, None, None),
        ("chat", None, None),
        ("chat", [], None),
        ("chat", ["chat"], "chat"),
        ("chat, superchat", ["superchat", "chat"], "superchat"),  # our order
        (["chat", "superchat"], ["superchat"], "superchat"),
        ("Chat", ["chat"], NegotiationError("invalid subprotocol; expected one of chat")),
        ("mqtt", ["chat", "x"], NegotiationError("invalid subprotocol; expected one of chat, x")),
        (None, ["chat"], NegotiationError("missing subprotocol")),
    ],
)
def test_subprotocols(offered: Any, ours: list[str] | None, chosen: Any) -> None:
    server = serve(request(Sec_WebSocket_Protocol=offered), subprotocols=ours)
    answer = parsed_answer(server)
    if isinstance(chosen, NegotiationError):
        assert repr(server.error) == repr(chosen)
        assert answer.status_code == 400
    else:
        assert server.subprotocol == chosen
        assert answer.headers.get("Sec-WebSocket-Protocol") == chosen


def test_select_subprotocol() -> None:
    def select(handshake: ServerHandshake, offered: Sequence[str]) -> str | None:
        assert handshake.request is not None
        if "none" in offered:
            raise NegotiationError("no way")
        if "fail" in offered:
            raise RuntimeError("bug in select_subprotocol")
        if "invent" in offered:
            return "invented"
        return offered[-1] if offered else None

    assert serve(request(), subprotocols=["x"], select_subprotocol=select).subprotocol is None
    assert serve(request(Sec_WebSocket_Protocol="a, b"), select_subprotocol=select).subprotocol == "b"
    server = serve(request(Sec_WebSocket_Protocol="none"), select_subprotocol=select)
    assert parsed_answer(server).status_code == 400
    assert str(server.error) == "no way"
    for offer, error in (("fail", RuntimeError), ("invent", ValueError)):
        server = ServerHandshake(select_subprotocol=select)
        server.receive_data(request(Sec_WebSocket_Protocol=offer))
        with pytest.raises(error):
            server.accept()
        assert server.subprotocol is None
        server.send_response(server.reject(500, "sorry"))  # an adapter's way out
        assert server.done
        assert not server.accepted


def ready(**settings: Any) -> ServerHandshake:
    server = ServerHandshake(**settings)
    server.receive_data(request(Sec_WebSocket_Protocol="chat", Sec_WebSocket_Extensions="permessage-deflate"))
    return server


def test_accept_with_arguments() -> None:
    server = ready(server_header="ours/1")
    answer = server.accept(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=é")], subprotocol="chat")
    assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=é"]
    assert answer.headers["Server"] == "ours/1"
    assert answer.headers["Sec-WebSocket-Protocol"] == "chat"
    assert ready(server_header="ours/1").accept(headers={"server": "theirs"}).headers["Server"] == "theirs"
    assert "Server" not in ready().accept().headers
    with pytest.raises(ValueError, match="subprotocol was not offered"):
        server.accept(subprotocol="other")
    with pytest.raises(ValueError, match="subprotocol was not offered"):
        server.accept(subprotocol="chat\r\nX: y")
    for name in ("upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Accept",
                 "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Sec-WebSocket-Key"):  # fmt: skip
        with pytest.raises(ValueError, match="is set by the handshake"):
            server.accept(headers={name: "x"})


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\0b", "\x7f", "€"])
def test_server_user_must_not_inject(text: str) -> None:
    with pytest.raises(ValueError):
        ServerHandshake(server_header=text)
    with pytest.raises(ValueError):
        ServerHandshake(subprotocols=["ok", text])
    server = ready()
    for headers in ({"X": text}, {text: "x"}, [("X", text)]):
        with pytest.raises(ValueError):
            server.accept(headers=headers)
        with pytest.raises(ValueError):
            server.reject(403, "", headers)
    with pytest.raises(ValueError):
        server.send_response(Response(200, text, Headers()))
    assert server.data_to_send() == []
    assert not server.done


@pytest.mark.parametrize("subprotocols", ["chat", 5, {"chat"}])
def test_subprotocols_are_a_list(subprotocols: Any) -> None:
    with pytest.raises(TypeError):
        ServerHandshake(subprotocols=subprotocols)
    with pytest.raises(TypeError):
        ClientHandshake(URI, subprotocols=subprotocols)


@pytest.mark.parametrize(
    ("offers", "agreed"),
    [
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits",
         "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"),
        ('permessage-deflate; client_max_window_bits="10"',
         "permessage-deflate; server_max_window_bits=12; client_max_window_bits=10"),
        ("x-webkit-deflate-frame, permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (["x-foo", "permessage-deflate"], "permessage-deflate; server_max_window_bits=12"),
        # A bad or unknown parameter declines that offer, not the connection.
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; unknown, permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("x-unknown", None),
        (None, None),
    ],
)  # fmt: skip
def test_extension_offers(offers: Any, agreed: str | None) -> None:
    server = serve(request(Sec_WebSocket_Extensions=offers))
    assert server.accepted
    assert server.extensions_header == agreed
    assert parsed_answer(server).headers.get("Sec-WebSocket-Extensions") == agreed
    assert (server.deflate is not None) is (agreed is not None)
    assert serve(request(Sec_WebSocket_Extensions=offers), deflate=None).deflate is None


def test_the_negotiated_deflate_works() -> None:
    server = serve(request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
    client = connect(response(Sec_WebSocket_Extensions=server.extensions_header))
    assert server.deflate is not None
    assert client.deflate is not None
    assert server.deflate.parameters == client.deflate.parameters
    wire = client.deflate.compress(b"hello " * 20)
    assert server.deflate.decompress(wire, fin=True, max_length=1000) == b"hello " * 20
    wire = server.deflate.compress(b"hello " * 20)
    assert client.deflate.decompress(wire, fin=True, max_length=1000) == b"hello " * 20


# Plain HTTP on the same port


@pytest.mark.parametrize(
    ("wire", "method", "protocol"),
    [
        (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "HTTP/1.1"),
        (b"GET /health HTTP/1.0\r\n\r\n", "GET", "HTTP/1.0"),
        (b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD", "HTTP/1.1"),
        (b"OPTIONS /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "OPTIONS", "HTTP/1.1"),
    ],
)
def test_plain_http(wire: bytes, method: str, protocol: str) -> None:
    for chunks in ways(wire):
        server = ServerHandshake(server_header="ours/1")
        for chunk in chunks:
            server.receive_data(chunk)
        assert server.request is not None
        assert (server.request.method, server.request.path, server.request.protocol) == (method, "/health", protocol)
        assert server.error is not None
        server.send_response(server.reject(200, "fine\n"))
        (answer,) = server.data_to_send()
        expected = (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\nServer: ours/1\r\n\r\n"
        )
        assert answer == expected + (b"" if method == "HEAD" else b"fine\n")  # RFC 9110 9.3.2
        assert server.done
        assert not server.accepted


TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
BINARY = b"Content-Type: application/octet-stream\r\n"


def answer_to_get(make: Callable[[ServerHandshake], Response]) -> bytes:
    server = ServerHandshake()
    server.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.send_response(make(server))
    (answer,) = server.data_to_send()
    return answer


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (
            lambda server: server.reject(403),
            b"403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n%b\r\n" % TEXT,
        ),
        (
            lambda server: server.reject(599, "ä", {"X": "y"}),
            b"599 \r\nConnection: close\r\nContent-Length: 2\r\n%bX: y\r\n\r\n\xc3\xa4" % TEXT,
        ),
        (
            lambda server: server.reject(200, b"\x00\xff"),
            b"200 OK\r\nConnection: close\r\nContent-Length: 2\r\n%b\r\n\x00\xff" % BINARY,
        ),
        (
            lambda server: server.reject(200, "{}", {"content-type": "text/x"}),
            b"200 OK\r\nConnection: close\r\nContent-Length: 2\r\ncontent-type: text/x\r\n\r\n{}",
        ),
        (lambda server: server.reject(204, "x"), b"204 No Content\r\nConnection: close\r\n\r\n"),  # RFC 9110 8.6
        (
            lambda server: server.reject(304, "same"),
            b"304 Not Modified\r\nConnection: close\r\nContent-Length: 4\r\n%b\r\n" % TEXT,
        ),
        # A response of our user's own
        (lambda _: Response(200, "OK", Headers(), b"body"), b"200 OK\r\nConnection: close\r\n\r\nbody"),
        (
            lambda _: Response(302, "Found", Headers(Location="/x", Connection="Close")),
            b"302 Found\r\nLocation: /x\r\nConnection: Close\r\n\r\n",
        ),
    ],
)
def test_own_answers(make: Callable[[ServerHandshake], Response], answer: bytes) -> None:
    assert answer_to_get(make) == b"HTTP/1.1 " + answer


def test_a_shared_response_is_not_changed() -> None:
    shared = Response(200, "OK", Headers(), b"ok")
    assert answer_to_get(lambda _: shared) == answer_to_get(lambda _: shared)
    assert shared == Response(200, "OK", Headers(), b"ok")


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, -1])
def test_illegal_status(status: int) -> None:
    server = ready()
    with pytest.raises(ValueError, match="is not an answer"):
        server.reject(status)
    if status != 101:
        with pytest.raises(ValueError, match=r"is not an answer|illegal status line"):
            server.send_response(Response(status, "", Headers()))
        assert not server.done


@pytest.mark.parametrize("name", ["connection", "Content-Length", "Transfer-Encoding"])
def test_reserved_headers_of_refusals(name: str) -> None:
    with pytest.raises(ValueError, match="is set by the handshake"):
        ready().reject(403, "", {name: "5"})


def test_calls_out_of_order() -> None:
    server = ServerHandshake()
    for early in (server.accept, lambda: server.send_response(server.reject(503, "closing"))):
        with pytest.raises(InvalidState):
            early()
    server.receive_data(request())
    with pytest.raises(InvalidState):
        server.receive_request(Request("/", Headers()))
    server.receive_eof()  # after the request: for the connection to judge
    assert server.error is None


def test_a_response_changed_after_accept() -> None:
    """What was agreed on is what the wire says."""
    server = ready(subprotocols=["chat"])
    answer = server.accept()
    assert server.deflate is not None
    del answer.headers["Sec-WebSocket-Extensions"]
    del answer.headers["Sec-WebSocket-Protocol"]
    server.send_response(answer)
    assert server.accepted
    assert server.deflate is server.subprotocol is server.extensions_header is None

    server = ready()
    answer = server.accept()
    answer.headers["Sec-WebSocket-Protocol"] = "chat"
    server.send_response(answer)
    assert server.subprotocol == "chat"
    assert server.deflate is not None

    server = ready(subprotocols=["chat"])
    server.accept()
    server.send_response(server.reject(503))
    assert server.deflate is server.subprotocol is server.extensions_header is None


def test_no_101_over_an_error() -> None:
    server = ServerHandshake()
    server.receive_data(request(Sec_WebSocket_Key="bad"))
    server.send_response(Response(101, "Switching Protocols", Headers(Upgrade="websocket", Connection="Upgrade")))
    assert not server.accepted
    assert server.data_to_send()[0].startswith(b"HTTP/1.1 400 ")


def test_early_data_is_bounded() -> None:
    """A client that sends before our answer cannot fill our memory while the application thinks about it."""
    limits = Limits(max_read_ahead=20)
    for size, accepted in ((20, True), (21, False)):
        early = b"x" * size
        for chunks in ways(request() + early):
            server = ServerHandshake(limits=limits)
            for chunk in chunks:
                server.receive_data(chunk)
            server.send_response(server.accept())
            assert server.accepted is accepted
            assert server.trailing_data == (early if accepted else b"")
            if not accepted:
                assert type(server.error) is SecurityError
                assert server.data_to_send()[0].startswith(b"HTTP/1.1 400 ")
    server = ServerHandshake(limits=Limits(max_read_ahead=None))
    server.receive_data(request() + b"x" * 100_000)
    server.send_response(server.accept())
    assert len(server.trailing_data) == 100_000


def test_early_data_after_accept_and_before_the_answer() -> None:
    server = ServerHandshake(limits=Limits(max_read_ahead=2))
    server.receive_data(request())
    answer = server.accept()
    server.receive_data(b"abc")
    server.send_response(answer)
    assert not server.accepted


def test_receive_request() -> None:
    """For embedders that parse HTTP themselves."""
    server = ServerHandshake()
    server.receive_request(Request("/chat", Headers(REQUEST)))
    server.receive_data(FRAMES)
    server.send_response(server.accept())
    assert server.accepted
    assert server.trailing_data == FRAMES
    for change in ({"Upgrade": "no"}, {"Content-Length": "5"}, {"Host": ""}):
        server = ServerHandshake()
        headers = Headers({**REQUEST, **change})
        if change == {"Host": ""}:
            del headers["Host"]
        server.receive_request(Request("/chat", headers))
        assert server.request is not None
        assert server.error is not None
        server.send_response(server.accept())
        assert not server.accepted


# The client


def sent_headers(*args: Any, **kwargs: Any) -> list[tuple[str, str]]:
    client = ClientHandshake(*args, **kwargs)
    (wire,) = client.data_to_send()
    assert client.data_to_send() == []
    assert wire == client.request.serialize()
    return list(client.request.headers.raw_items())


def test_request_of_the_client() -> None:
    client = ClientHandshake(
        parse_uri("wss://us%40er:pä@example.com:8443/chat?x=%20"),
        origin="https://example.com",
        subprotocols=["chat", "superchat"],
        additional_headers=[("Cookie", "a=1"), ("Cookie", "b=é")],
        user_agent_header="ours/1",
    )
    assert client.data_to_send() == [
        b"GET /chat?x=%20 HTTP/1.1\r\n"
        b"Host: example.com:8443\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: " + client.key.encode() + b"\r\n"
        b"Origin: https://example.com\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: chat, superchat\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n"
        b"Authorization: Basic " + base64.b64encode("us@er:pä".encode()) + b"\r\n"
        b"User-Agent: ours/1\r\n"
        b"Cookie: a=1\r\n"
        b"Cookie: b=\xe9\r\n\r\n"
    ]
    assert client.response is client.error is None
    assert not client.done


def test_short_request_of_the_client() -> None:
    assert dict(sent_headers(URI, deflate=None)).keys() == REQUEST.keys()
    assert "Sec-WebSocket-Protocol" not in dict(sent_headers(URI, subprotocols=[]))
    for uri, host in (("ws://[::1]:80/", "[::1]"), ("ws://[::1]:81/", "[::1]:81"), ("wss://h:80", "h:80")):
        assert ("Host", host) in sent_headers(parse_uri(uri))
    assert ClientHandshake(URI).key != ClientHandshake(URI).key


def test_additional_headers_replace_ours() -> None:
    given = {"host": "other", "authorization": "Bearer x", "origin": "http://o", "user-agent": "ua", "X-A": "b"}
    headers = sent_headers(
        parse_uri("ws://u:p@h/"), origin="http://a", user_agent_header="ours", additional_headers=given
    )
    for name, value in given.items():
        assert [item for key, item in headers if key.lower() == name.lower()] == [value]
    assert ("user-agent", "ua") in sent_headers(URI, additional_headers=given)


@pytest.mark.parametrize(
    "name",
    ["Upgrade", "connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Accept", "Content-Length",
     "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Transfer-Encoding"],
)  # fmt: skip
def test_reserved_headers_of_the_client(name: str) -> None:
    with pytest.raises(ValueError, match="is set by the handshake"):
        ClientHandshake(URI, additional_headers={name: "x"})


@pytest.mark.parametrize(
    "settings",
    [
        *({name: text} for text in ["a\r\nb", "\n", "a\0", "€"] for name in ["origin", "user_agent_header"]),
        *({"subprotocols": [text]} for text in ["", "a b", "a,b", "a\r\nb", "é"]),
        *({"additional_headers": {"X": text}} for text in ["a\r\nb", "\n", "\0", "€"]),
        *({"additional_headers": {text: "x"}} for text in ["", "a b", "a\r\nb: c", "é", "a:"]),
        {"additional_headers": [("Host", "a"), ("Host", "b")]},
    ],
)
def test_client_user_must_not_inject(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ClientHandshake(URI, **settings)


@pytest.mark.parametrize(
    "uri",
    [
        WebSocketURI(False, "a\r\nb", 80, "/", ""),
        WebSocketURI(False, "a b", 80, "/", ""),
        WebSocketURI(False, "", 80, "/", ""),
        WebSocketURI(False, "a:b", 80, "/", ""),
        WebSocketURI(False, "a", 80, "/a b", ""),
        WebSocketURI(False, "a", 80, "/\r\nX: y", ""),
        WebSocketURI(False, "a", 80, "/\0", ""),
        WebSocketURI(False, "a", 80, "/é", ""),
        WebSocketURI(False, "a", 80, "no-slash", ""),
        WebSocketURI(False, "a", 80, "/", "a\nb"),
        WebSocketURI(False, "a", 80, "/", "", "us:er", "p"),
    ],
)
def test_illegal_uri_of_our_user(uri: WebSocketURI) -> None:
    with pytest.raises(ValueError):
        ClientHandshake(uri)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Connection": "keep-alive, UPGRADE"},
        {"Upgrade": "WebSocket"},
        {"Sec_WebSocket_Protocol": "chat"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; server_max_window_bits=12; client_max_window_bits=10"},
        {"Sec_WebSocket_Accept": ACCEPT + "  "},
        {"first": "HTTP/1.1 101"},
        {"first": "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 101 Yes"},
        {"Content_Length": "10"},  # RFC 9112 6.3: a 101 has no body
        {"Date": "now"},
    ],
)
def test_response_accepted(changes: dict[str, Any]) -> None:
    client = connect(response(**changes), subprotocols=["superchat", "chat"], trailing=FRAMES)
    assert client.error is None
    assert client.subprotocol == changes.get("Sec_WebSocket_Protocol")
    assert (client.deflate is not None) is ("Sec_WebSocket_Extensions" in changes)
    client.receive_eof()
    assert client.error is None
    with pytest.raises(InvalidState):
        client.receive_data(b"frames")


GIVING_UP = {
    "no-connection": "missing Connection header",
    "connection-close": "invalid Connection header: close",
    "no-upgrade": "missing Upgrade header",
    "upgrade-h2c": "invalid Upgrade header: h2c",
    "no-accept": "missing Sec-WebSocket-Accept header",
    "two-accepts": "invalid Sec-WebSocket-Accept header: multiple values",
    "accept-of-one-letter": "invalid Sec-WebSocket-Accept header: x",
    "protocol-other": "unsupported subprotocol: other",
    "protocol-with-a-capital": "unsupported subprotocol: Chat",
    "protocol-list": "invalid Sec-WebSocket-Protocol header: multiple values: chat, chat",
    "extension-other": "unsupported extension: x-foo",
    "extension-parameter": "invalid parameter name: x",
    "status-200": "server rejected WebSocket connection: HTTP 200",
    "status-abc": "did not receive a valid HTTP response",
    "ssh": "did not receive a valid HTTP response",
}


def test_reasons_to_give_up_are_of_the_corpus() -> None:
    assert GIVING_UP.keys() <= {case.name for case in HOSTILE_RESPONSES}


@pytest.mark.parametrize("case", HOSTILE_RESPONSES, ids=str)
def test_response_refused(case: ResponseCase) -> None:
    error, text = case.error, GIVING_UP.get(case.name)
    client = connect(case.data(KEY), subprotocols=["superchat", "chat"])
    assert type(client.error) is error
    assert text in (None, str(client.error))
    assert client.done
    assert not client.accepted
    assert client.subprotocol is client.deflate is None
    assert client.trailing_data == b""
    # Whatever still comes means nothing.
    client.receive_data(response())
    client.receive_eof()
    assert type(client.error) is error


def test_nothing_was_offered() -> None:
    client = connect(response(Sec_WebSocket_Protocol="chat"))
    assert str(client.error) == "unsupported subprotocol: chat"
    client = connect(response(Sec_WebSocket_Extensions="permessage-deflate"), deflate=None)
    assert str(client.error) == "no extensions offered; got permessage-deflate"
    client = connect(response(Sec_WebSocket_Extensions="permessage-deflate"))
    assert str(client.error) == "expected server_max_window_bits of at most 12"


@pytest.mark.parametrize(
    ("wire", "eof", "body"),
    [
        (response("HTTP/1.1 503 Busy", Content_Length="4", body=b"busy"), False, b"busy"),
        (
            response("HTTP/1.1 403 No", Transfer_Encoding="chunked", body=b"2\r\nno\r\n1\r\n!\r\n0\r\n\r\n"),
            False,
            b"no!",
        ),
        (response("HTTP/1.1 403 No", body=b"why"), True, b"why"),
        (response("HTTP/1.0 403 No", body=b"why"), True, b"why"),
        (response("HTTP/1.1 301 Moved", Location="ws://b/", Content_Length="0"), False, b""),
        (response("HTTP/1.1 304 Not Modified"), False, b""),
        (response("HTTP/1.1 500 Big", Content_Length="99999", body=b"x" * 300), False, b"x" * 100),
        (response("HTTP/1.1 500 Big", body=b"x" * 300), False, b"x" * 100),
    ],
)
def test_status(wire: bytes, eof: bool, body: bytes) -> None:
    client = connect(wire, eof=eof, limits=Limits(max_body_size=100))
    assert isinstance(client.error, InvalidStatus)
    assert client.error.response is client.response
    assert client.response is not None
    assert client.response.body == body
    assert client.response.status_code == int(wire[9:12])


@pytest.mark.parametrize(
    "wire",
    [b"", b"HTTP/1.1 1", response()[:-1], response("HTTP/1.1 500 Oops", Content_Length="5", body=b"oops"),
     response("HTTP/1.1 500 Oops", Transfer_Encoding="chunked", body=b"5\r\noops")],
)  # fmt: skip
def test_response_cut_short(wire: bytes) -> None:
    client = connect(wire)
    assert not client.done
    client = connect(wire, eof=True)
    assert isinstance(client.error, InvalidMessage)
    assert isinstance(client.error.__cause__, EOFError)
    assert client.done


# Both, and others


SETTINGS = [
    (None, None),
    (DeflateConfig(), None),
    (DeflateConfig(), DeflateConfig(server_no_context_takeover=True, client_max_window_bits=9)),
    (DeflateConfig(server_max_window_bits=15, client_max_window_bits=15), DeflateConfig()),
]


@pytest.mark.parametrize(("client_deflate", "server_deflate"), SETTINGS)
def test_both_ours(client_deflate: DeflateConfig | None, server_deflate: DeflateConfig | None) -> None:
    client = ClientHandshake(URI, subprotocols=["a", "b"], deflate=client_deflate, origin="http://example.com")
    server = ServerHandshake(subprotocols=["b"], deflate=server_deflate, origins=["http://example.com"])
    server.receive_data(b"".join(client.data_to_send()))
    server.send_response(server.accept())
    client.receive_data(b"".join(server.data_to_send()) + FRAMES)
    assert client.accepted
    assert client.subprotocol == server.subprotocol == "b"
    assert client.trailing_data == FRAMES
    assert (client.deflate is None) is (server.deflate is None) is (not (client_deflate and server_deflate))
    if client.deflate is not None and server.deflate is not None:
        assert client.deflate.parameters == server.deflate.parameters


@pytest.mark.parametrize("deflate", [None, DeflateConfig(), DeflateConfig(client_max_window_bits=15)])
def test_our_client_with_servers_of_others(deflate: DeflateConfig | None) -> None:
    client = ClientHandshake(
        parse_uri("ws://u:p@h:81/p?q"), subprotocols=["a", "b"], deflate=deflate, origin="http://o"
    )
    (wire,) = client.data_to_send()
    theirs = websockets.server.ServerProtocol(
        extensions=[ServerPerMessageDeflateFactory()], subprotocols=["b"], origins=["http://o"]
    )
    theirs.receive_data(wire)
    (asked,) = theirs.events_received()
    assert asked.path == "/p?q"
    theirs.send_response(theirs.accept(asked))
    client.receive_data(b"".join(theirs.data_to_send()))
    assert client.accepted, client.error
    assert client.subprotocol == theirs.subprotocol == "b"
    assert (client.deflate is not None) is bool(theirs.extensions) is (deflate is not None)

    client = ClientHandshake(URI, subprotocols=["a", "b"], deflate=deflate)
    other = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    other.receive_data(client.data_to_send()[0])
    (event,) = other.events()
    assert isinstance(event, wsproto.events.Request)
    assert event.subprotocols == ["a", "b"]
    deflates: Any = [wsproto.extensions.PerMessageDeflate()]
    client.receive_data(other.send(wsproto.events.AcceptConnection(subprotocol="a", extensions=deflates)))
    assert client.accepted, client.error
    assert client.subprotocol == "a"
    assert (client.deflate is not None) is (deflate is not None)


def test_our_client_refused_by_others() -> None:
    client = ClientHandshake(URI)
    theirs = websockets.server.ServerProtocol(origins=["http://o"])
    theirs.receive_data(client.data_to_send()[0])
    theirs.send_response(theirs.accept(theirs.events_received()[0]))
    client.receive_data(b"".join(theirs.data_to_send()))
    assert isinstance(client.error, InvalidStatus)
    assert client.response is not None
    assert client.response.status_code == 403
    assert b"missing Origin header" in client.response.body

    client = ClientHandshake(URI)
    other = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    other.receive_data(client.data_to_send()[0])
    list(other.events())
    client.receive_data(other.send(wsproto.events.RejectConnection(status_code=401, has_body=True)))
    client.receive_data(other.send(wsproto.events.RejectData(data=b"go away")))
    assert client.response is not None
    assert (client.response.status_code, client.response.body) == (401, b"go away")


@pytest.mark.parametrize("deflate", [None, DeflateConfig()])
def test_our_server_with_clients_of_others(deflate: DeflateConfig | None) -> None:
    theirs = websockets.client.ClientProtocol(
        websockets.uri.parse_uri("ws://h/p"),
        subprotocols=["a", "b"],
        origin="http://o",
        extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)],
    )
    theirs.send_request(theirs.connect())
    server = serve(b"".join(theirs.data_to_send()), subprotocols=["b"], origins=["http://o"], deflate=deflate)
    theirs.receive_data(server.answer)  # type: ignore[attr-defined]
    theirs.events_received()
    assert theirs.handshake_exc is None
    assert theirs.state is websockets.protocol.OPEN
    assert theirs.subprotocol == server.subprotocol == "b"
    assert bool(theirs.extensions) is (server.deflate is not None) is (deflate is not None)

    other = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    deflates: Any = [wsproto.extensions.PerMessageDeflate()]
    asked = wsproto.events.Request(host="h", target="/p", subprotocols=["a", "b"], extensions=deflates)
    server = serve(other.send(asked), subprotocols=["b"], deflate=deflate)
    other.receive_data(server.answer)  # type: ignore[attr-defined]
    (event,) = other.events()
    assert isinstance(event, wsproto.events.AcceptConnection)
    assert event.subprotocol == server.subprotocol == "b"
    assert bool(event.extensions) is (server.deflate is not None) is (deflate is not None)


def test_our_refusal_read_by_others() -> None:
    theirs = websockets.client.ClientProtocol(websockets.uri.parse_uri("ws://h/p"))
    theirs.send_request(theirs.connect())
    server: Any = serve(b"".join(theirs.data_to_send()), origins=["http://o"])
    theirs.receive_data(server.answer)
    (answer,) = theirs.events_received()
    assert answer.status_code == 403
    assert answer.body == parsed_answer(server).body


# Time, and the corpus of the fuzzer


def seconds(wire: bytes, step: int) -> float:
    """The best of three."""
    best = 60.0
    for _ in range(3):
        server = ServerHandshake(subprotocols=["x"], origins=["http://o"])
        start = time.process_time()
        for i in range(0, len(wire), step):
            server.receive_data(wire[i : i + step])
        server.send_response(server.accept())
        best = min(best, time.process_time() - start)
        assert not server.accepted
    return best


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        " ",
        ",",
        "a,",
        "a ",
        ", ",
        "\t",
        ";",
        "a;",
        "a;a=",
        '"',
        'a;a="',
        'a;a="a",',
        "\\",
        "\\a",
        'a;b="\\a',
        "=",
        "\xff",
    ],
)
@pytest.mark.parametrize(
    "name", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Connection", "Upgrade", "Origin", "X"]
)
def test_a_hostile_head_is_judged_quickly(name: str, pattern: str) -> None:
    """It takes 0.5 ms."""
    value = (pattern * 8000)[:8000]
    several = name not in ("Origin", "X")
    changes: dict[str, Any] = {name: [value] * 7} if several else {name: value, "Y": [value] * 6}
    wire = request("GET / HTTP/1.1", **{"Origin": "http://o", **changes})
    assert len(wire) > 56_000
    assert seconds(wire, 65536) < 0.01


def test_the_corpus_of_the_fuzzer() -> None:
    fuzz = Path(__file__).resolve().parent.parent / "fuzz"
    spec = importlib.util.spec_from_file_location("fuzz_handshake", fuzz / "fuzz_handshake.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    corpus = sorted((fuzz / "corpus" / "handshake").iterdir())
    assert corpus
    for path in corpus:
        module.one_input(path.read_bytes())


# What the handshakes of one server share


def test_rules_are_checked_once() -> None:
    for settings in ({"subprotocols": ["no token"]}, {"server_header": "a\r\nb"}):
        with pytest.raises(ValueError):
            ServerRules(**settings)
    with pytest.raises(TypeError):
        ServerRules(origins="http://o")


def test_handshakes_under_the_same_rules_are_independent() -> None:
    rules = ServerRules(subprotocols=["chat"], server_header="ours")
    deflate = "permessage-deflate; client_max_window_bits"
    one, two, three = (ServerHandshake.under(rules) for _ in range(3))
    one.receive_data(request(Sec_WebSocket_Protocol="chat", Sec_WebSocket_Extensions=deflate))
    two.receive_data(request(Sec_WebSocket_Protocol="chat, x", Sec_WebSocket_Extensions=deflate))
    three.receive_data(request())
    for server in (one, two, three):
        server.send_response(server.accept())
    assert (one.accepted, two.accepted, three.accepted) == (True, True, False)
    assert one.data_to_send() == two.data_to_send() != []
    assert one.deflate is not None
    assert two.deflate is not None
    assert one.deflate is not two.deflate
    assert one.deflate.parameters is two.deflate.parameters  # idle connections: shared
    assert (one.offered_subprotocols, two.offered_subprotocols) == (["chat"], ["chat", "x"])
    assert three.offered_subprotocols == []
    assert three.deflate is None


def test_of_the_offers_of_strangers_only_so_many_are_remembered() -> None:
    rules = ServerRules()

    def answered(offers: str) -> str | None:
        server = ServerHandshake.under(rules)
        server.receive_data(request(Sec_WebSocket_Extensions=offers))
        server.accept()
        return server.extensions_header

    usual = "permessage-deflate"
    expected = answered(usual)
    assert expected is not None
    assert list(rules._agreements) == [usual]
    long = "permessage-deflate; " + "x" * 300 + ", permessage-deflate"
    assert answered(long) == answered(long) == expected
    assert answered("bad;;") is None  # an error
    assert list(rules._agreements) == [usual]
    for i in range(1000):
        assert answered(f"x{i}") is None
        assert answered(f"x{i}, permessage-deflate") == expected
    assert len(rules._agreements) == 64
    assert answered(usual) == expected


@pytest.mark.parametrize("server_header", [None, "ours"])
@pytest.mark.parametrize("subprotocol", [None, "b"])
@pytest.mark.parametrize("deflate", [None, DeflateConfig()])
def test_what_was_said_can_be_repeated(
    deflate: DeflateConfig | None, subprotocol: str | None, server_header: str | None
) -> None:
    """From the request's head alone, whatever chose the subprotocol."""
    rules = ServerRules(origins=["http://o"], deflate=deflate, server_header=server_header)
    server = ServerHandshake.under(rules, lambda *_: subprotocol)
    server.receive_data(
        request(
            Origin="http://o",
            Cookie=["a", "b"],
            Sec_WebSocket_Protocol="a, b",
            Sec_WebSocket_Extensions=["x-nothing", "permessage-deflate; server_max_window_bits=10"],
        )
        + b"\x81\x80abcd"
    )
    response = server.accept()
    server.send_response(response)
    assert server.accepted
    again, answer = rules.repeat(server.head, server.subprotocol)
    assert again == server.request
    assert answer == response
    assert [answer.serialize()] == server.data_to_send()
