"""HTTP heads: tables of bytes, each run whole, bytewise, split at each point and with trailing data."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import sys
import time
from collections.abc import Iterator
from typing import Any

import h11
import pytest
import websockets.datastructures
import websockets.http11

from wsproto_fast.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from wsproto_fast.http11 import (
    Headers,
    MultipleValuesError,
    Request,
    RequestParser,
    Response,
    ResponseParser,
    check_request,
    is_token,
)
from wsproto_fast.limits import Limits

TRAILING = b"\x81\x00\r\n\r\n\x00"
SMALL = Limits(max_line_size=40, max_head_size=100, max_headers=3, max_body_size=10)


def ways(wire: bytes) -> Iterator[list[bytes]]:
    """The same bytes: whole, bytewise, split at each point (of long ones: at some)."""
    yield [wire]
    yield [wire[i : i + 1] for i in range(len(wire))]
    for i in range(1, len(wire), 1 + len(wire) // 500):
        yield [wire[:i], wire[i:]]


def outcome(parser: Any, chunks: list[bytes], *, eof: bool = False) -> Any:
    """What the parser returns and leaves, or what it raises."""
    try:
        for i, chunk in enumerate(chunks):
            result = parser.feed(chunk)
            if result is not None:
                return result, parser.trailing_data + b"".join(chunks[i + 1 :])
        return parser.feed_eof() if eof else None
    except InvalidHandshake as exc:
        return type(exc), str(exc), type(exc.__cause__), str(exc.__cause__)


def every_way(make_parser: Any, wire: bytes, *, eof: bool = False) -> Any:
    """The one outcome of all ways."""
    first, *others = [outcome(make_parser(), chunks, eof=eof) for chunks in ways(wire)]
    for other in others:
        assert other == first
    return first


# Headers


def test_headers_follow_websockets() -> None:
    """The same operations on both classes, each result compared."""
    for make in (Headers, websockets.datastructures.Headers):
        headers: Any = make([("X-A", "1"), ("x-a", "2")], B="3")
        expected_error = MultipleValuesError if make is Headers else websockets.datastructures.MultipleValuesError
        with pytest.raises(expected_error) as info:
            headers["X-A"]
        assert str(info.value) == "'X-A'"
        assert issubclass(expected_error, LookupError)
        with pytest.raises(expected_error):
            headers.get("X-A")
        with pytest.raises(KeyError):
            headers["nope"]
        assert headers["b"] == headers.get("B") == "3"
        assert headers.get("nope") is None
        assert headers.get_all("X-a") == ["1", "2"]
        assert headers.get_all("nope") == []
        assert list(headers.raw_items()) == [("X-A", "1"), ("x-a", "2"), ("B", "3")]
        assert list(headers) == ["x-a", "b"]
        assert len(headers) == 2
        assert "x-A" in headers
        assert "nope" not in headers
        assert 1 not in headers
        assert repr(headers) == "Headers([('X-A', '1'), ('x-a', '2'), ('B', '3')])"
        assert str(headers) == "X-A: 1\r\nx-a: 2\r\nB: 3\r\n\r\n"
        assert headers.serialize() == b"X-A: 1\r\nx-a: 2\r\nB: 3\r\n\r\n"
        assert headers == make([("x-a", "1"), ("X-A", "2"), ("b", "3")])
        assert headers != make([("x-a", "1")])
        assert headers != {"x-a": "1"}
        headers["B"] = "4"  # appends
        assert headers.get_all("b") == ["3", "4"]
        del headers["b"]
        assert "b" not in headers
        with pytest.raises(KeyError):
            del headers["b"]
        assert list(headers.raw_items()) == [("X-A", "1"), ("x-a", "2")]
        assert headers.setdefault("C", "5") == "5"
        assert headers.setdefault("C", "6") == "5"
        headers.update(make([("D", "7"), ("D", "8")]))
        assert headers.get_all("D") == ["7", "8"]
        headers.update({"E": "9"})
        headers.update([("E", "10")], F="11")
        assert headers.get_all("E") == ["9", "10"]
        assert headers.pop("F") == "11"
        headers.set_insecure("G", "\n")
        assert headers["g"] == "\n"
        copied = headers.copy()
        assert type(copied) is make
        assert copied == headers
        copied["H"] = "12"
        assert "H" not in headers
        headers.clear()
        assert not headers
        assert list(headers.raw_items()) == []
        with pytest.raises(TypeError):
            hash(headers)


def test_headers_are_independent() -> None:
    headers = Headers(a="1")
    copied = headers.copy()
    copied["a"] = "2"
    assert headers.get_all("a") == ["1"]  # websockets 17.4 shares the list
    headers.get_all("a").append("3")
    assert headers["a"] == "1"
    assert copy.deepcopy(headers) == headers
    assert pickle.loads(pickle.dumps(headers)) == headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "v") for name in ["", "a b", "a:", "a\r\nb", "a\n", "a\x00", "é", "a\r\nX: y", "(a)", "a\x7f"]),
        *(("n", value) for value in ["a\r\nb", "\n", "\r", "\x00", "\x1f", "\x7f", "€", "a\x0bb", "\ud800"]),
    ],
)
def test_illegal_headers_of_our_user(name: str, value: str) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="illegal character in header") as info:
        headers[name] = value
    assert isinstance(info.value, InvalidHeaderValue)  # what websockets raises
    with pytest.raises(ValueError):
        Headers([(name, value)])
    with pytest.raises(ValueError):
        headers.update({name: value})
    assert list(headers.raw_items()) == []


def test_header_values() -> None:
    headers: Any = Headers()
    headers["n"] = "\t !~\x80\xff é"
    headers["Content-Length"] = 12
    assert headers.serialize() == b"n: \t !~\x80\xff \xe9\r\nContent-Length: 12\r\n\r\n"
    for value in (b"bytes", None, 1.5):
        with pytest.raises(TypeError):
            headers["x"] = value


def test_multiple_values_error_text() -> None:
    assert str(MultipleValuesError("a", "b")) == "('a', 'b')"


# Requests


def request(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (request(), Request("/", Headers(Host="h"))),
        (
            request(b"A:b", b"a: \t c \t", b"Empty:", b"Blank:   ", first=b"GET /x?y=%20 HTTP/1.1"),
            Request("/x?y=%20", Headers([("Host", "h"), ("A", "b"), ("a", "c"), ("Empty", ""), ("Blank", "")])),
        ),
        (request(b"A: b: c\td"), Request("/", Headers({"Host": "h", "A": "b: c\td"}))),
        (request(b"A: \xe9\x80\xff"), Request("/", Headers({"Host": "h", "A": "é\x80ÿ"}))),  # RFC 9110 5.5: obs-text
        (request(b"!#$%&'*+-.^_`|~09aZ: x"), Request("/", Headers({"Host": "h", "!#$%&'*+-.^_`|~09aZ": "x"}))),
        (request(first=b"HEAD /h HTTP/1.1"), Request("/h", Headers(Host="h"), "HEAD")),
        (request(first=b"OPTIONS * HTTP/1.1"), Request("*", Headers(Host="h"), "OPTIONS")),
        (request(first=b"GET http://h/p HTTP/1.1"), Request("http://h/p", Headers(Host="h"))),  # RFC 9112 3.2.2
        (request(first=b"GET / HTTP/1.0"), Request("/", Headers(Host="h"), "GET", "HTTP/1.0")),
        (request(first=b"GET / HTTP/1.0", host=b""), Request("/", Headers(), "GET", "HTTP/1.0")),
        (request(host=b"Host:"), Request("/", Headers(Host=""))),
        (request(host=b"hOST: [::1]:80"), Request("/", Headers(hOST="[::1]:80"))),
        (
            request(b"Content-Length: 0", b"Content-Length: 0"),
            Request("/", Headers([("Host", "h"), ("Content-Length", "0"), ("Content-Length", "0")])),
        ),
    ],
)
def test_request(wire: bytes, expected: Request) -> None:
    assert every_way(RequestParser, wire) == (expected, b"")
    assert every_way(RequestParser, wire + TRAILING) == (expected, TRAILING)
    parsed, _ = every_way(RequestParser, wire)
    assert type(parsed.path) is str
    assert list(parsed.headers.raw_items()) == list(expected.headers.raw_items())
    # The other way round, and what others read in it
    assert every_way(RequestParser, parsed.serialize()) == (expected, b"")
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(parsed.serialize())
    theirs = connection.next_event()
    assert isinstance(theirs, h11.Request)
    assert (theirs.method.decode(), theirs.target.decode()) == (expected.method, expected.path)


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"\r\n", "invalid request line: ''"),
        (b"\n", "line without CR: ''"),
        (b"GET / HTTP/1.1\nHost: h\n\n", "line without CR: 'GET / HTTP/1.1'"),  # bare LF
        (request(b"A: b\nC: d"), "line without CR: 'A: b'"),
        (request()[:-2] + b"\n", "line without CR: ''"),
        (request(b"A: b\rC: d"), "control character in header value: 'A: b\\rC: d'"),  # bare CR
        (request(b"A: b\r"), "control character in header value: 'A: b\\r'"),
        (request(b"A: \x00"), "control character in header value: 'A: \\x00'"),
        (request(b"A: \x7f"), "control character in header value: 'A: \\x7f'"),
        (request(b"A: \x0b"), "control character in header value: 'A: \\x0b'"),
        (request(b"A: b", b" c"), "obsolete line folding: ' c'"),
        (request(b"A: b", b"\tc: d"), "obsolete line folding: '\\tc: d'"),
        (request(b" A: b", host=b""), "obsolete line folding: ' A: b'"),
        (request(b"A : b"), "space between header name and colon: 'A : b'"),
        (request(b"A\t: b"), "space between header name and colon: 'A\\t: b'"),
        (request(b": b"), "invalid header name: ': b'"),
        (request(b"A b: c"), "invalid header name: 'A b: c'"),
        (request(b"A\x00: c"), "invalid header name: 'A\\x00: c'"),
        (request(b"\xe9: c"), "invalid header name: 'é: c'"),
        (request(b"A(: c"), "invalid header name: 'A(: c'"),
        (request(b"no colon"), "header line without colon: 'no colon'"),
        (request(b"x" * 100), "header line without colon: '" + "x" * 77 + "...'"),
        (request(first=b"GET /"), "invalid request line: 'GET /'"),
        (request(first=b"GET  / HTTP/1.1"), "invalid request line: 'GET  / HTTP/1.1'"),
        (request(first=b"GET / HTTP/1.1 "), "invalid request line: 'GET / HTTP/1.1 '"),
        (request(first=b" GET / HTTP/1.1"), "invalid request line: ' GET / HTTP/1.1'"),
        (request(first=b"GET /\t HTTP/1.1"), "invalid request line: 'GET /\\t HTTP/1.1'"),
        (request(first=b"GET /\xe9 HTTP/1.1"), "invalid request line: 'GET /é HTTP/1.1'"),
        (request(first=b"GET /\r HTTP/1.1"), "invalid request line: 'GET /\\r HTTP/1.1'"),
        (request(first=b"G(T / HTTP/1.1"), "invalid request line: 'G(T / HTTP/1.1'"),
        (request(first=b"GET / HTTP/1.1\x00"), "invalid request line: 'GET / HTTP/1.1\\x00'"),
        (request(first=b"GET / http/1.1"), "invalid request line: 'GET / http/1.1'"),
        (request(first=b"GET / HTTP/11"), "invalid request line: 'GET / HTTP/11'"),
        (b"\x16\x03\x01\x02\x00\x01\x00\n", "line without CR: '\\x16\\x03\\x01\\x02\\x00\\x01\\x00'"),  # TLS
        (request(host=b""), "expected one Host header; got 0"),
        (request(b"host: h"), "expected one Host header; got 2"),
        (request(b"host: h", first=b"GET / HTTP/1.0"), "expected one Host header; got 2"),
        (request(host=b"Host: a b"), "invalid Host header: 'a b'"),
        (request(host=b"Host: a/b"), "invalid Host header: 'a/b'"),
        (request(host=b"Host: a@b"), "invalid Host header: 'a@b'"),
        (request(b"Transfer-Encoding: chunked"), "a request body is not supported; got Transfer-Encoding"),
        (request(b"transfer-encoding: identity"), "a request body is not supported; got Transfer-Encoding"),
        (request(b"Content-Length: 1"), "a request body is not supported; got Content-Length"),
        (request(b"Content-Length: 0", b"Content-Length: 5"), "a request body is not supported; got Content-Length"),
        (request(b"Content-Length: 0, 0"), "a request body is not supported; got Content-Length"),
        (request(b"Content-Length: -1"), "a request body is not supported; got Content-Length"),
        (request(b"Content-Length:"), "a request body is not supported; got Content-Length"),
    ],
)
def test_malformed_request(wire: bytes, cause: str) -> None:
    expected = (InvalidMessage, "did not receive a valid HTTP request", ValueError, cause)
    assert every_way(RequestParser, wire) == expected
    assert every_way(RequestParser, wire + TRAILING) == expected


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/3.0"])
def test_other_versions(version: bytes) -> None:
    got = every_way(RequestParser, request(first=b"GET / " + version))
    assert got[:2] == (InvalidProtocol, f"unsupported HTTP version: {version.decode()}")
    assert every_way(RequestParser, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0] is InvalidProtocol


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"GET /" + b"x" * 24 + b" HTTP/1.1\r\n", None),  # 40 bytes
        (b"GET /" + b"x" * 25 + b" HTTP/1.1\r\n", (RequestLineTooLong, "request line exceeds 40 bytes")),
        (b"G" * 40, None),
        (b"G" * 41, (RequestLineTooLong, "request line exceeds 40 bytes")),
        (request(b"A: " + b"x" * 35)[:-2], None),
        (request(b"A: " + b"x" * 36)[:-2], (HeaderLineTooLong, "header line exceeds 40 bytes")),
        (request(b"A" * 41), (HeaderLineTooLong, "header line exceeds 40 bytes")),
        (request(b"A: b", b"C: d")[:-2], None),
        (request(b"A: b", b"C: d", b"E: f"), (TooManyHeaders, "expected no more than 3 headers")),
        (request(b"A: " + b"x" * 30, b"B: " + b"x" * 33)[:-1], None),  # 99 of 100 bytes
        (request(b"A: " + b"x" * 30, b"B: " + b"x" * 34), (HeaderLineTooLong, "head exceeds 100 bytes")),
        (request(b"A: " + b"x" * 31, b"B: " + b"x" * 60), (HeaderLineTooLong, "head exceeds 100 bytes")),
        (request(b"A: " + b"x" * 30, b"B: " + b"x" * 60), (HeaderLineTooLong, "header line exceeds 40 bytes")),
    ],
)
def test_request_limits(wire: bytes, error: tuple[object, str] | None) -> None:
    got = every_way(lambda: RequestParser(SMALL), wire)
    assert (got and got[:2]) == error
    if error is not None:
        assert issubclass(got[0], SecurityError)


def test_a_head_of_exactly_the_limit() -> None:
    wire = request(b"A: " + b"x" * 30, b"B: " + b"x" * 33)
    assert len(wire) == 100
    assert every_way(lambda: RequestParser(SMALL), wire + TRAILING)[1] == TRAILING


def test_default_limits() -> None:
    assert every_way(RequestParser, request(*[b"A: b"] * 127))[1] == b""
    assert every_way(RequestParser, request(*[b"A: b"] * 128))[0] is TooManyHeaders
    assert outcome(RequestParser(), [request(b"A: " + b"x" * 8187)])[1] == b""
    assert outcome(RequestParser(), [request(b"A: " + b"x" * 8188)])[0] is HeaderLineTooLong
    assert outcome(RequestParser(), [request(*[b"A: " + b"x" * 8000] * 8)])[1] == b""
    assert outcome(RequestParser(), [request(*[b"A: " + b"x" * 8180] * 9)])[0] is HeaderLineTooLong


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"", "connection closed while reading HTTP request line"),
        (b"GET / HTTP/1.1\r", "connection closed while reading HTTP request line"),
        (b"GET / HTTP/1.1\r\n", "connection closed while reading HTTP headers"),
        (request()[:-1], "connection closed while reading HTTP headers"),
    ],
)
def test_request_cut_short(wire: bytes, cause: str) -> None:
    got = every_way(RequestParser, wire, eof=True)
    assert got == (InvalidMessage, "did not receive a valid HTTP request", EOFError, cause)


def test_bytes_like_input() -> None:
    wire = request(b"A: b")
    for make in (bytes, bytearray, memoryview):
        data: Any = make(wire + TRAILING)
        parser = RequestParser()
        parsed = parser.feed(data)
        assert parsed == Request("/", Headers(Host="h", A="b"))
        assert type(parser.trailing_data) is bytes
        assert parser.trailing_data == TRAILING


@pytest.mark.parametrize(
    "bad",
    [
        Request("/a b", Headers()),
        Request("", Headers()),
        Request("/a\r\nX: y", Headers()),
        Request("/\xe9", Headers()),
        Request("/", Headers(), "G T"),
        Request("/", Headers(), ""),
        Request("/", Headers(), "GET", "HTTP/1.1\r\n"),
        Response(99, "", Headers()),
        Response(600, "", Headers()),
        Response(200, "a\r\nb", Headers()),
        Response(200, "a\x00", Headers()),
        Response(200, "€", Headers()),
    ],
)
def test_what_must_not_be_serialized(bad: Request | Response) -> None:
    with pytest.raises(ValueError, match=r"illegal (request|status) line"):
        bad.serialize()


def test_check_request() -> None:
    check_request(Request("/", Headers(Host="h")))
    with pytest.raises(InvalidMessage):
        check_request(Request("/", Headers()))


def test_is_token() -> None:
    assert is_token("a-Z!#$%&'*+.^_`|~09")
    assert not any(map(is_token, ["", " ", "a b", 'a"', "a,", "é", "a\n"]))


# Responses


def response(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join([first, *lines, b"", body])


SWITCHING = b"HTTP/1.1 101 Switching Protocols"
CHUNKED = b"Transfer-Encoding: chunked"
BIG = Limits(max_body_size=10)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (response(first=SWITCHING), Response(101, "Switching Protocols", Headers())),
        (response(first=b"HTTP/1.1 101 "), Response(101, "", Headers())),
        (response(first=b"HTTP/1.1 101"), Response(101, "", Headers())),
        (response(first=b"HTTP/1.1 101 \xe9\ta  b"), Response(101, "é\ta  b", Headers())),
        # RFC 9112 6.3: never a body
        (response(b"Content-Length: 5", first=SWITCHING), Response(101, "Switching Protocols", Headers())),
        (response(CHUNKED, first=SWITCHING), Response(101, "Switching Protocols", Headers())),
        (response(b"Content-Length: 5", first=b"HTTP/1.1 204 No"), Response(204, "No", Headers())),
        (response(b"Content-Length: 5", first=b"HTTP/1.1 304 No"), Response(304, "No", Headers())),
        (response(b"Content-Length: 0"), Response(200, "OK", Headers())),
        (response(b"Content-Length: 5", body=b"hello"), Response(200, "OK", Headers(), b"hello")),
        (response(b"Content-Length: 5, 5", b"content-length: 5", body=b"hello"),
         Response(200, "OK", Headers(), b"hello")),
        # Bodies are cut at the limit.
        (response(b"Content-Length: 11", body=b"0123456789"), Response(200, "OK", Headers(), b"0123456789")),
        (response(b"Content-Length: 999999999999999999", body=b"0123456789"),
         Response(200, "OK", Headers(), b"0123456789")),
        (response(body=b"0123456789"), Response(200, "OK", Headers(), b"0123456789")),
        (response(CHUNKED, body=b"B\r\n0123456789"), Response(200, "OK", Headers(), b"0123456789")),
        (response(CHUNKED, body=b"1\r\na\r\nfffffffffffffff\r\n123456789"),
         Response(200, "OK", Headers(), b"a123456789")),
        # RFC 9112 7.1
        (response(CHUNKED, body=b"0\r\n"), Response(200, "OK", Headers(), b"")),
        (response(CHUNKED, body=b"5\r\nhello\r\n000\r\n"), Response(200, "OK", Headers(), b"hello")),
        (response(CHUNKED, body=b'2;a=b \r\nhe\r\n3 ;"\r\nllo\r\n0;\r\n'), Response(200, "OK", Headers(), b"hello")),
        (response(b"Transfer-Encoding: gzip, Chunked", body=b"1\r\n\x00\r\n0\r\n"),
         Response(200, "OK", Headers(), b"\x00")),
        (response(b"Content-Length: 9", b"transfer-encoding: gzip", CHUNKED, body=b"1\r\n\x00\r\n0\r\n"),
         Response(200, "OK", Headers(), b"\x00")),
        # Interim responses
        (response(first=b"HTTP/1.1 100 Continue") + response(b"Link: x", first=b"HTTP/1.1 103 Early")
         + response(first=SWITCHING), Response(101, "Switching Protocols", Headers())),
        (response(b"Content-Length: 5", first=b"HTTP/1.1 102 Processing") + response(b"Content-Length: 1", body=b"!"),
         Response(200, "OK", Headers(), b"!")),
        # 1.0 can refuse.
        (response(b"Content-Length: 1", first=b"HTTP/1.0 503 No", body=b"!"), Response(503, "No", Headers(), b"!")),
    ],
)  # fmt: skip
def test_response(wire: bytes, expected: Response) -> None:
    for trailing in (b"", TRAILING):
        got, left = every_way(lambda: ResponseParser(BIG), wire + trailing)
        assert type(got.body) is bytes
        assert (got.status_code, got.reason_phrase, got.body) == (
            expected.status_code,
            expected.reason_phrase,
            expected.body,
        )
        if got.status_code == 101:
            assert left == trailing


def test_headers_of_a_response_without_those_before_it() -> None:
    wire = response(b"A: b", first=b"HTTP/1.1 103 Early Hints") + response(b"C: d", first=SWITCHING)
    got, _ = every_way(ResponseParser, wire)
    assert got.headers == Headers(C="d")


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        (response(), b""),
        (response(body=b"hello"), b"hello"),
        (response(b"Transfer-Encoding: gzip", body=b"hello"), b"hello"),
        (response(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n"), b"0\r\n"),
        (response(first=b"HTTP/1.0 403 No", body=b"hello"), b"hello"),
    ],
)
def test_body_until_the_end(wire: bytes, body: bytes) -> None:
    assert every_way(ResponseParser, wire) is None
    got = every_way(ResponseParser, wire, eof=True)
    assert got.body == body
    assert type(got.body) is bytes


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"", "status line"),
        (SWITCHING, "status line"),
        (SWITCHING + b"\r\nA: b\r\n", "headers"),
        (response(first=b"HTTP/1.1 100 Continue"), "status line"),
        (response(b"Content-Length: 5", body=b"hell"), "response body"),
        (response(CHUNKED, body=b"5\r\nhell"), "response body"),
        (response(CHUNKED, body=b"5\r\nhello"), "response body"),
        (response(CHUNKED, body=b"5\r\nhello\r"), "response body"),
        (response(CHUNKED, body=b"5\r\nhello\r\n0"), "response body"),
    ],
)
def test_response_cut_short(wire: bytes, cause: str) -> None:
    assert every_way(ResponseParser, wire, eof=True) == (
        InvalidMessage,
        "did not receive a valid HTTP response",
        EOFError,
        f"connection closed while reading HTTP {cause}",
    )


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"\r\n", "invalid status line: ''"),
        (b"HTTP/1.1\r\n", "invalid status line: 'HTTP/1.1'"),
        (b"HTTP/1.1 \r\n", "invalid status line: 'HTTP/1.1 '"),
        (b"HTTP/1.1  200 OK\r\n", "invalid status line: 'HTTP/1.1  200 OK'"),
        (b"HTTP/1.1 20 OK\r\n", "invalid status line: 'HTTP/1.1 20 OK'"),
        (b"HTTP/1.1 2000 OK\r\n", "invalid status line: 'HTTP/1.1 2000 OK'"),
        (b"HTTP/1.1 099 OK\r\n", "invalid status line: 'HTTP/1.1 099 OK'"),
        (b"HTTP/1.1 600 OK\r\n", "invalid status line: 'HTTP/1.1 600 OK'"),
        (b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n", "invalid status line: 'HTTP/1.1 ²²² OK'"),
        (b"HTTP/1.1 200 \x00\r\n", "invalid status line: 'HTTP/1.1 200 \\x00'"),
        (b"HTTP/1.1 200 a\rb\r\n", "invalid status line: 'HTTP/1.1 200 a\\rb'"),
        (b"ICY 200 OK\r\n", "invalid status line: 'ICY 200 OK'"),
        (b"HTTP/1.1 200 OK\n", "line without CR: 'HTTP/1.1 200 OK'"),
        (response(b"A : b"), "space between header name and colon: 'A : b'"),
        (response(b"Content-Length: 5", b"Content-Length: 6"), None),
        (response(b"Content-Length: -1"), "invalid Content-Length header: '-1'"),
        (response(b"Content-Length: +1"), "invalid Content-Length header: '+1'"),
        (response(b"Content-Length: "), "invalid Content-Length header: ''"),
        (response(b"Content-Length: 1_0"), "invalid Content-Length header: '1_0'"),
        (response(b"Content-Length: " + b"1" * 19), "invalid Content-Length header: '" + "1" * 19 + "'"),
        (response(CHUNKED, body=b"\r\n"), "invalid chunk size: '\\r\\n'"),
        (response(CHUNKED, body=b"g\r\n"), "invalid chunk size: 'g\\r\\n'"),
        (response(CHUNKED, body=b"-1\r\n"), "invalid chunk size: '-1\\r\\n'"),
        (response(CHUNKED, body=b"0x1\r\n"), "invalid chunk size: '0x1\\r\\n'"),
        (response(CHUNKED, body=b"1\n"), "invalid chunk size: '1\\n'"),
        (response(CHUNKED, body=b"1" * 16 + b"\r\n"), "invalid chunk size: '" + "1" * 16 + "\\r\\n'"),
        (response(CHUNKED, body=b"1\r\nab\r\n"), "chunk without CRLF at its end"),
        (response(CHUNKED, body=b"1\r\na\n\n"), "chunk without CRLF at its end"),
    ],
)
def test_malformed_response(wire: bytes, cause: str | None) -> None:
    got = every_way(ResponseParser, wire + TRAILING)
    assert got[:3] == (InvalidMessage, "did not receive a valid HTTP response", ValueError)
    assert cause in (None, got[3])


@pytest.mark.parametrize("first", [b"HTTP/1.0 101 Switching", b"HTTP/2.0 200 OK", b"HTTP/1.2 101 x"])
def test_response_of_another_version(first: bytes) -> None:
    assert every_way(ResponseParser, response(first=first))[0] is InvalidProtocol


TIGHT = Limits(max_line_size=20, max_head_size=60, max_headers=2, max_body_size=5)


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"HTTP/1.1 200 OK567\r\n", None),
        (b"HTTP/1.1 200 OK5678\r\n", (StatusLineTooLong, "status line exceeds 20 bytes")),
        (b"HTTP/1.1 200 OK\r\nA" + b"b" * 20, (HeaderLineTooLong, "header line exceeds 20 bytes")),
        (response(b"A: b", b"B: b", b"C: d"), (TooManyHeaders, "expected no more than 2 headers")),
        # All interim heads together obey the limits of one head.
        (response(first=b"HTTP/1.1 100 C") * 3, None),
        (response(first=b"HTTP/1.1 100 C") * 4, (HeaderLineTooLong, "head exceeds 60 bytes")),
        (response(CHUNKED[:1], first=b"HTTP/1.1 100 C"), (InvalidMessage, "did not receive a valid HTTP response")),
    ],
)
def test_response_limits(wire: bytes, error: tuple[object, str] | None) -> None:
    got = every_way(lambda: ResponseParser(TIGHT), wire)
    assert (got and got[:2]) == error


def test_chunk_limits() -> None:
    limits = Limits(max_line_size=30, max_head_size=60, max_body_size=9)

    def parse(body: bytes) -> Any:
        return every_way(lambda: ResponseParser(limits), response(CHUNKED, body=body))

    error = (SecurityError, "chunk size line exceeds 30 bytes", type(None), "None")
    assert parse(b"1;" + b"x" * 28) is None
    assert parse(b"1;" + b"x" * 29) == error
    assert parse(b"1;" + b"x" * 27 + b"\r\na") == error
    assert parse(b"1;" + b"x" * 26 + b"\r\na") is None
    # Size lines of more than a head in all: the body ends there.
    got, _ = parse((b"1;" + b"x" * 26 + b"\r\na\r\n") * 5)
    assert got.body == b"aaa"


def test_no_body_wanted() -> None:
    for body in (b"5\r\n", b"0\r\n"):
        got, _ = every_way(lambda: ResponseParser(Limits(max_body_size=0)), response(CHUNKED, body=body))
        assert got.body == b""
    assert every_way(lambda: ResponseParser(Limits(max_body_size=0)), response())[0].body == b""


@pytest.mark.parametrize("body", [b"", b"hello", bytearray(b"hello")])
def test_serialize_response(body: bytes) -> None:
    ours = Response(403, "Forbidden", Headers({"Content-Length": str(len(body)), "A": "é"}), body)
    wire = ours.serialize()
    assert wire == b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nA: \xe9\r\n\r\n" % len(body) + body
    assert type(wire) is bytes
    assert every_way(ResponseParser, wire) == (ours, b"")
    del ours.headers["A"]  # websockets wrote UTF-8 before 17
    headers = websockets.datastructures.Headers(ours.headers.raw_items())
    theirs = websockets.http11.Response(403, "Forbidden", headers, body)
    assert theirs.serialize() == ours.serialize()


# Time


def seconds(parser: Any, wire: bytes, step: int) -> float:
    """The best of three."""
    best = 60.0
    for _ in range(3):
        fresh = parser()
        start = time.process_time()
        try:
            for i in range(0, len(wire), step):
                if fresh.feed(wire[i : i + step]) is not None:
                    break
        except InvalidHandshake:
            pass
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize(
    "wire",
    [
        request(*[b"A: " + b"x" * 8180] * 7),
        request(*[b"A: " + b" " * 8180] * 7),
        request(*[b"A: " + b"\xff" * 8180] * 7),
        request(*[b"A" * 8000 + b":"] * 7),
        request(*[b"A: " + b"x" * 500] * 127),
        b"G" * 65536,
        b"\r" * 65536,
        b" " * 65536,
        b"GET / HTTP/1.1\r\n" + b"A:b\r\n" * 13000,
    ],
)
def test_a_big_head_is_judged_quickly(wire: bytes) -> None:
    """10 ms whole and 100 ms bytewise are demanded; it takes 0.5 and 35. The rest of that is for coverage."""
    assert seconds(RequestParser, wire, 65536) < 0.01
    assert seconds(RequestParser, wire, 1) < 0.5


@pytest.mark.parametrize(
    ("parser", "start"),
    [
        (RequestParser, b"GET /"),
        (ResponseParser, response(CHUNKED, body=b"1;")),
        (ResponseParser, response(CHUNKED, body=b"FFFFFFF\r\n")),
    ],
)
def test_time_is_linear(parser: Any, start: bytes) -> None:
    """Four times the bytes in four times the time; 13 times, if the buffer were searched from its start."""
    limits = Limits(max_line_size=2**22, max_head_size=2**22, max_body_size=2**22)
    short, long = (seconds(lambda: parser(limits), start + b"x" * size, 16) for size in (2**19, 2**21))
    assert long < 8 * short


# Usual heads, which are taken in one piece, and those that look like them


@pytest.mark.parametrize(
    ("lines", "items"),
    [
        (b"A: 1\r\nb: 2\r\n", [("A", "1"), ("b", "2")]),
        (b"A: 1\r\na: 2\r\nA: 3\r\n", [("A", "1"), ("a", "2"), ("A", "3")]),
        (b"A: x: y,  z\r\n", [("A", "x: y,  z")]),
        (b"A: \xe9\xa0\xff\r\n", [("A", "\xe9\xa0\xff")]),
        (b"A:1\r\n", [("A", "1")]),
        (b"A:\r\nB: \r\nC:  \r\n", [("A", ""), ("B", ""), ("C", "")]),
        (b"A:  1\r\n", [("A", "1")]),
        (b"A: 1 \r\n", [("A", "1")]),
        (b"A: 1 \r\nB: 2\t\r\n", [("A", "1"), ("B", "2")]),
        (b"A: \t1\r\nB:\t2\r\n", [("A", "1"), ("B", "2")]),
        (b"A: 1\t2\r\n", [("A", "1\t2")]),
        (b"A: 1\nB: 2\r\n", "line without CR"),
        (b"A: 1\n", "line without CR"),
        (b"A: 1\rB: 2\r\n", "control character"),
        (b"A: 1\r\n B: 2\r\n", "line folding"),
        (b"A B: 1\r\n", "invalid header name"),
        (b"A : 1\r\n", "space between"),
        (b": 1\r\n", "invalid header name"),
        (b"A\r\n", "without colon"),
        (b"A: \x00\r\n", "control character"),
        (b"A: \x7f\r\n", "control character"),
    ],
)
def test_usual_and_unusual_lines(lines: bytes, items: Any) -> None:
    outcome = every_way(RequestParser, b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    if isinstance(items, str):
        assert outcome[0] is InvalidMessage
        assert items in outcome[3]
    else:
        assert list(outcome[0].headers.raw_items()) == [("Host", "a"), *items]
        assert outcome[0].headers == Headers([("Host", "a"), *items])


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\nA: 1", b"GET /\n HTTP/1.1", b"\n", b"", b"GET / HTTP/1.1\r"])
def test_unusual_first_lines(first: bytes) -> None:
    outcome = every_way(RequestParser, first + b"\r\nHost: a\r\n\r\n")
    assert outcome[0] is InvalidMessage


@pytest.mark.parametrize("line", [b"%s", b"A: %s\x00", b"A: b%s\n", b"A%s: \x00"])
@pytest.mark.parametrize("filling", [b"A", b" ", b":"])
def test_usual_lines_take_linear_time(line: bytes, filling: bytes) -> None:
    """16 times the bytes in 16 times the time; 256 times, if the pattern went back and forth."""
    limits = Limits(max_line_size=2**22, max_head_size=2**22)
    wires = [b"GET / HTTP/1.1\r\n%s\r\n\r\n" % (line % (filling * size)) for size in (2**14, 2**18)]
    short, long = (seconds(lambda: RequestParser(limits), wire, len(wire)) for wire in wires)
    assert long < 80 * max(short, 5e-5)


def test_the_head_as_it_came() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nA:  1\r\n\r\n"
    for chunks in ways(head):
        parser = RequestParser()
        for chunk in chunks:
            parser.feed(chunk)
        assert parser.head == head
    parser = RequestParser()
    parser.feed(head + TRAILING)
    assert (parser.head, parser.trailing_data) == (head, TRAILING)


# Headers that are kept


COMPACT: list[list[tuple[str, str]]] = [
    [],
    [("A", "1")],
    [("A", "1"), ("b", "2"), ("a", "3")],
    [("X", ""), ("Y", "a: b: c"), ("Z", "\xe9\x85\xa0"), ("W", "tab\there")],
]


@pytest.mark.parametrize("items", COMPACT)
def test_compact_headers_are_the_same_headers(items: list[tuple[str, str]]) -> None:
    def made() -> Headers:
        headers = Headers(items)
        headers.compact()
        return headers

    plain = Headers(items)
    assert made() == plain
    assert plain == made()
    assert list(made().raw_items()) == items
    assert list(made()) == list(plain)
    assert len(made()) == len(plain)
    assert repr(made()) == repr(plain)
    assert str(made()) == str(plain)
    assert made().serialize() == plain.serialize()
    assert made().copy() == plain
    assert copy.copy(made()) == plain
    assert copy.deepcopy(made()) == plain
    assert pickle.loads(pickle.dumps(made())) == plain
    for name, _ in items:
        assert name.upper() in made()
        assert made().get_all(name) == plain.get_all(name)
    assert made().get("Nope") is None
    headers = made()
    headers.compact()  # twice
    headers["New"] = "x"
    headers.compact()
    assert list(headers.raw_items()) == [*items, ("New", "x")]
    headers = made()
    headers.clear()
    assert list(headers.raw_items()) == []


def test_compact_headers_have_no_other_attributes() -> None:
    headers = Headers(a="1")
    headers.compact()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = headers.nonsense
    assert headers["a"] == "1"


def test_compact_headers_take_less_memory() -> None:
    def size(headers: Headers) -> int:
        seen = 0
        todo: list[Any] = [headers]
        while todo:
            item = todo.pop()
            seen += sys.getsizeof(item)
            if not isinstance(item, (str, bytes)):
                todo += gc.get_referents(item) if item is not headers else list(state(item).values())
        return seen

    def state(headers: Headers) -> dict[str, Any]:
        names = [name for cls in type(headers).__mro__ for name in getattr(cls, "__slots__", ())]
        found = {name: headers.__dict__[name] for name in getattr(headers, "__dict__", {})}
        for name in names:
            with contextlib.suppress(AttributeError):
                found[name] = object.__getattribute__(headers, name)
        return found

    headers = Headers([(f"X-Header-{i}", f"value {i}") for i in range(12)])
    before = size(headers)
    headers.compact()
    assert size(headers) < before / 4
