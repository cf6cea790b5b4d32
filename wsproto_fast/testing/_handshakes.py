"""Opening handshakes that are hostile, from either end: what each must be answered with.

Knows RFC 6455 4, RFC 9110 and RFC 9112; knows no engine but the names of its errors.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
)

__all__ = [
    "HOSTILE_REQUESTS",
    "HOSTILE_RESPONSES",
    "KEY",
    "LEGAL_REQUESTS",
    "RequestCase",
    "ResponseCase",
    "accept_for",
    "request",
    "response",
]

RFC = "RFC 6455 "
HTTP = "RFC 9112 "
LIMITS = "RFC 6585 5"

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3

#: A header's value; None leaves it out, a list repeats it.
Value: TypeAlias = "str | list[str] | None"

_REQUEST = {
    "Host": "example.com",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
_RESPONSE = {"Connection": "Upgrade", "Upgrade": "websocket"}


@dataclass(frozen=True)
class RequestCase:
    """What a client sends for its opening handshake, and what the server must answer."""

    #: Unique; says what is wrong.
    name: str
    data: bytes
    #: The status of the answer; behind any but 101 the server must close the connection.
    status: int
    #: Where that stands.
    section: str
    #: What ``ServerHandshake.error`` is then; None: the handshake is accepted.
    error: type[InvalidHandshake] | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ResponseCase:
    """What a server answers to an opening handshake on which the client must give up.

    The client offers the subprotocols "superchat" and "chat", with or without permessage-deflate.
    """

    #: Unique; says what is wrong.
    name: str
    first: str
    changes: Mapping[str, Value]
    #: Where it stands that the client must not go on.
    section: str
    #: What ``ClientHandshake.error`` is then.
    error: type[InvalidHandshake]

    def __str__(self) -> str:
        return self.name

    def data(self, key: str = KEY) -> bytes:
        """The answer to the request with this Sec-WebSocket-Key."""
        return response(key, self.first, **self.changes)


def accept_for(key: str) -> str:
    """RFC 6455 4.2.2: the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


def request(first: str = "GET /chat HTTP/1.1", /, **changes: Value) -> bytes:
    """A request that any server takes, but for ``changes``: headers by name, with ``_`` for ``-``."""
    return _head(first, _REQUEST, changes)


def response(key: str = KEY, first: str = "HTTP/1.1 101 Switching Protocols", /, **changes: Value) -> bytes:
    """An answer that any client takes, but for ``changes``, as in ``request``."""
    return _head(first, {**_RESPONSE, "Sec-WebSocket-Accept": accept_for(key)}, changes)


def _head(first: str, headers: Mapping[str, Value], changes: Mapping[str, Value]) -> bytes:
    lines = [first]
    for name, value in {**headers, **{name.replace("_", "-"): value for name, value in changes.items()}}.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                lines.append(f"{name}: {item}")
    return "\r\n".join([*lines, "", ""]).encode("iso-8859-1")


# -- requests ----------------------------------------------------------------------

#: What is no base64 of 16 bytes.
BAD_KEYS = {
    "of-one-letter": "x",
    "without-its-first-letter": KEY[1:],
    "with-more-padding": KEY + "=",
    "of-18-bytes": "A" * 24,
    "behind-its-padding": "A" * 22 + "==A",
    "of-21-letters": "A" * 21 + "==",
    "of-dashes": "-" * 22 + "==",
    "of-17-bytes": "A" * 23 + "=",
    "with-a-space": "A" * 11 + " " + "A" * 10 + "==",
    "with-an-accent": "é" + "A" * 21 + "==",
}


def bad_requests() -> Iterator[RequestCase]:
    yield from bad_upgrades()
    yield from bad_values()
    yield from smuggling()
    yield from bad_lines()
    for name, data, status, error in (
        ("long-request-line", request("GET /" + "x" * 8192 + " HTTP/1.1"), 414, RequestLineTooLong),
        ("long-header", request(Cookie="x" * 8192), 431, HeaderLineTooLong),
        ("long-head", request(Cookie=["x" * 8100] * 9), 431, HeaderLineTooLong),
        ("129-headers", request(Cookie=["x"] * 124), 431, TooManyHeaders),
    ):
        yield RequestCase(name, data, status, LIMITS if status == 431 else "RFC 9110 15.5.15", error)


def bad_upgrades() -> Iterator[RequestCase]:
    """Well-formed HTTP that asks for something else."""
    for method in ("POST", "get"):
        data = request(f"{method} /chat HTTP/1.1")
        yield RequestCase(f"method-{method}", data, 405, RFC + "4.2.1", InvalidMethod)
    for version in ("1.0", "2.0"):
        data = request(f"GET /chat HTTP/{version}")
        yield RequestCase(f"http-{version}", data, 505, RFC + "4.2.1", InvalidProtocol)
    values: tuple[tuple[str, dict[str, Value]], ...] = (
        ("no-connection", {"Connection": None}),
        ("connection-keep-alive", {"Connection": "keep-alive"}),
        ("connection-upgraded", {"Connection": "upgraded"}),
        ("connection-empty", {"Connection": ""}),
        ("two-connections-without-upgrade", {"Connection": ["a", "b"]}),
        ("connection-of-200-commas", {"Connection": "," * 200 + "upgrade"}),
        ("no-upgrade", {"Upgrade": None}),
        ("upgrade-h2c", {"Upgrade": "h2c"}),
        ("upgrade-websocket-13", {"Upgrade": "websocket/13"}),
    )
    for name, changes in values:
        yield RequestCase(name, request(**changes), 426, RFC + "4.2.1", InvalidUpgrade)


def bad_values() -> Iterator[RequestCase]:
    """Handshakes with a header that must not have this value, or not twice."""
    section = RFC + "4.4"
    for version in ("8", "13, 8", "+13", "0"):
        name = f"version-{version.replace(', ', '-and-')}"
        yield RequestCase(name, request(Sec_WebSocket_Version=version), 426, section, InvalidHeaderValue)
    # which wins: the version says what all else means
    data = request(Sec_WebSocket_Version="0", Sec_WebSocket_Key=None)
    yield RequestCase("version-0-without-key", data, 426, section, InvalidHeaderValue)
    section = RFC + "4.2.1"
    for name, key in BAD_KEYS.items():
        yield RequestCase(f"key-{name}", request(Sec_WebSocket_Key=key), 400, section, InvalidHeaderValue)
    rows: tuple[tuple[str, dict[str, Value], str, type[InvalidHandshake]], ...] = (
        ("no-version", {"Sec_WebSocket_Version": None}, section, InvalidHeader),
        ("two-versions", {"Sec_WebSocket_Version": ["13", "13"]}, RFC + "11.3.5", InvalidHeader),
        ("no-key", {"Sec_WebSocket_Key": None}, section, InvalidHeader),
        ("two-keys", {"Sec_WebSocket_Key": [KEY, KEY]}, RFC + "11.3.1", InvalidHeader),
        ("key-empty", {"Sec_WebSocket_Key": ""}, section, InvalidHeaderValue),
        ("two-origins", {"Origin": ["http://a", "http://a"]}, "RFC 6454 7.3", InvalidHeader),
        ("protocol-with-a-space", {"Sec_WebSocket_Protocol": "a b"}, RFC + "11.3.4", InvalidHeaderFormat),
        ("protocol-empty", {"Sec_WebSocket_Protocol": ""}, RFC + "11.3.4", InvalidHeaderFormat),
        ("protocol-no-ascii", {"Sec_WebSocket_Protocol": "\xff\xff"}, RFC + "11.3.4", InvalidHeaderFormat),
        ("extension-with-half-a-string", {"Sec_WebSocket_Extensions": 'a; b="'}, RFC + "9.1", InvalidHeaderFormat),
        ("extension-without-a-name", {"Sec_WebSocket_Extensions": ["a", ";"]}, RFC + "9.1", InvalidHeaderFormat),
    )
    for name, changes, section, error in rows:
        yield RequestCase(name, request(**changes), 400, section, error)


def smuggling() -> Iterator[RequestCase]:
    """Requests that another server on the way may read otherwise (RFC 9112 11.2)."""
    rows: tuple[tuple[str, dict[str, Value], str], ...] = (
        ("no-host", {"Host": None}, HTTP + "3.2"),
        ("two-hosts", {"Host": ["a", "b"]}, HTTP + "3.2"),
        ("host-with-a-space", {"Host": "a b"}, HTTP + "3.2"),
        ("host-with-a-path", {"Host": "a/b"}, HTTP + "3.2"),
        ("host-with-a-user", {"Host": "a@b"}, HTTP + "3.2"),
        ("transfer-encoding", {"Transfer_Encoding": "chunked"}, HTTP + "6.1"),
        ("transfer-encoding-identity", {"Transfer_Encoding": "identity"}, HTTP + "6.1"),
        ("content-length", {"Content_Length": "5"}, HTTP + "6.2"),
        ("two-content-lengths", {"Content_Length": ["0", "5"]}, HTTP + "6.3"),
        ("content-length-list", {"Content_Length": "0, 0"}, HTTP + "6.3"),
        ("content-length-negative", {"Content_Length": "-1"}, HTTP + "6.2"),
        ("content-length-empty", {"Content_Length": ""}, HTTP + "6.2"),
        ("cr-in-a-value", {"A": "x\ry"}, HTTP + "2.2"),
        ("lf-in-a-value", {"A": "x\nB: y"}, HTTP + "2.2"),
        ("nul-in-a-value", {"A": "x\0y"}, "RFC 9110 5.5"),
        ("delete-in-a-value", {"A": "x\x7fy"}, "RFC 9110 5.5"),
        ("folded-value", {"A": "x\r\n y"}, HTTP + "5.2"),
        ("folded-header", {"A": "x\r\n\tHost: y"}, HTTP + "5.2"),
        ("space-before-the-colon", {"A ": "x"}, HTTP + "5.1"),
        ("tab-before-the-colon", {"A\t": "x"}, HTTP + "5.1"),
        ("no-name", {"": "x"}, HTTP + "5.1"),
        ("space-in-a-name", {"A b": "x"}, HTTP + "5.1"),
        ("parenthesis-in-a-name", {"A(": "x"}, HTTP + "5.1"),
        ("nul-in-a-name", {"A\0": "x"}, HTTP + "5.1"),
        ("name-no-ascii", {"é": "x"}, HTTP + "5.1"),
        ("no-colon", {"A": "x\r\nno colon"}, HTTP + "5.1"),
    )
    for name, changes, section in rows:
        yield RequestCase(name, request(**changes), 400, section, InvalidMessage)


def bad_lines() -> Iterator[RequestCase]:
    """What does not even begin as HTTP does, or whose lines do not end so."""
    section = HTTP + "3"
    for name, first in (
        ("request-line-without-version", "GET /chat"),
        ("request-line-with-two-spaces", "GET  /chat HTTP/1.1"),
        ("request-line-with-a-space-behind", "GET /chat HTTP/1.1 "),
        ("request-line-with-a-space-before", " GET /chat HTTP/1.1"),
        ("request-line-with-a-tab", "GET /chat\t HTTP/1.1"),
        ("request-line-with-cr", "GET /chat\r HTTP/1.1"),
        ("request-line-with-nul", "GET /chat HTTP/1.1\0"),
        ("path-no-ascii", "GET /é HTTP/1.1"),
        ("method-no-token", "G(T /chat HTTP/1.1"),
        ("http-in-small-letters", "GET /chat http/1.1"),
        ("http-without-a-dot", "GET /chat HTTP/11"),
    ):
        yield RequestCase(name, request(first), 400, section, InvalidMessage)
    section = HTTP + "2.2"
    for name, data in (
        ("bare-lf", request().replace(b"\r\n", b"\n")),
        ("bare-lf-in-the-end", request()[:-2] + b"\n"),
        ("empty-line-first", b"\r\n" + request()),
        ("tls", b"\x16\x03\x01\x00\xfa\x01\x00\n"),
    ):
        yield RequestCase(name, data, 400, section, InvalidMessage)


def legal_requests() -> Iterator[RequestCase]:
    rows: tuple[tuple[str, dict[str, Value]], ...] = (
        ("as-the-rfc-says", {}),
        ("connection-keep-alive-and-upgrade", {"Connection": "keep-alive, Upgrade"}),
        ("connection-in-capitals", {"Connection": "keep-alive,UPGRADE , x"}),
        ("two-connections", {"Connection": ["keep-alive", "upgrade"]}),
        ("upgrade-with-a-capital", {"Upgrade": "WebSocket"}),
        ("upgrade-h2c-or-websocket", {"Upgrade": "h2c, websocket"}),
        ("two-upgrades", {"Upgrade": ["TLS/1.2", "websocket"]}),
        ("content-length-0", {"Content_Length": "0"}),
        ("host-with-port", {"Host": "example.com:8080"}),
        ("unknown-extension", {"Sec_WebSocket_Extensions": "x-unknown; a=b"}),
        ("key-with-loose-bits", {"Sec_WebSocket_Key": "AQIDBAUGBwgJCgsMDQ4PEC=="}),
        ("value-no-ascii", {"X_Custom": "\x80\xe9"}),
        ("128-headers", {"Cookie": ["x"] * 123}),
    )
    for name, changes in rows:
        yield RequestCase(name, request(**changes), 101, RFC + "4.2.1", None)
    absolute = request("GET ws://example.com/chat?x HTTP/1.1")
    yield RequestCase("path-with-scheme", absolute, 101, HTTP + "3.2.2", None)


# -- responses ---------------------------------------------------------------------

OFFERED = "Sec-WebSocket-Protocol"
EXTENSIONS = "Sec-WebSocket-Extensions"
ACCEPT = "Sec-WebSocket-Accept"
WINDOW = "permessage-deflate; server_max_window_bits"


def bad_responses() -> Iterator[ResponseCase]:
    rows: tuple[tuple[str, dict[str, Value], str, type[InvalidHandshake]], ...] = (
        ("no-connection", {"Connection": None}, "4.1", InvalidUpgrade),
        ("connection-close", {"Connection": "close"}, "4.1", InvalidUpgrade),
        ("no-upgrade", {"Upgrade": None}, "4.1", InvalidUpgrade),
        ("upgrade-h2c", {"Upgrade": "h2c"}, "4.1", InvalidUpgrade),
        ("no-accept", {ACCEPT: None}, "4.1", InvalidHeader),
        ("two-accepts", {ACCEPT: [accept_for(KEY)] * 2}, "11.3.3", InvalidHeader),
        ("accept-of-one-letter", {ACCEPT: "x"}, "4.1", InvalidHeaderValue),
        ("accept-of-another-key", {ACCEPT: accept_for("x" + KEY)}, "4.1", InvalidHeaderValue),
        ("accept-in-small-letters", {ACCEPT: accept_for(KEY).lower()}, "4.1", InvalidHeaderValue),
        # nothing that was not offered
        ("protocol-other", {OFFERED: "other"}, "4.1", NegotiationError),
        ("protocol-with-a-capital", {OFFERED: "Chat"}, "4.1", NegotiationError),
        ("protocol-list", {OFFERED: "chat, chat"}, "11.3.4", InvalidHeader),
        ("two-protocols", {OFFERED: ["chat", "chat"]}, "11.3.4", InvalidHeader),
        ("protocol-empty", {OFFERED: ""}, "11.3.4", InvalidHeaderFormat),
        ("protocol-with-a-space", {OFFERED: "a b"}, "11.3.4", InvalidHeaderFormat),
        ("extension-other", {EXTENSIONS: "x-foo"}, "4.1", NegotiationError),
        ("extension-parameter", {EXTENSIONS: "permessage-deflate; x"}, "9.1", InvalidParameterName),
        ("extension-with-a-large-window", {EXTENSIONS: f"{WINDOW}=16"}, "9.1", InvalidParameterValue),
        ("two-extensions", {EXTENSIONS: [f"{WINDOW}=9"] * 2}, "9.1", NegotiationError),
        ("extension-without-a-name", {EXTENSIONS: ";"}, "9.1", InvalidHeaderFormat),
        ("long-header", {"Cookie": "x" * 8192}, "10", HeaderLineTooLong),
        ("129-headers", {"Cookie": ["x"] * 128}, "10", TooManyHeaders),
    )
    switching = "HTTP/1.1 101 Switching Protocols"
    for name, changes, section, error in rows:
        yield ResponseCase(name, switching, changes, RFC + section, error)
    yield ResponseCase("status-200", "HTTP/1.1 200 OK", {"Content-Length": "0"}, RFC + "4.1", InvalidStatus)
    yield ResponseCase("http-1.0", "HTTP/1.0 101 Switching", {}, RFC + "4.1", InvalidProtocol)
    yield ResponseCase("status-abc", "HTTP/1.1 abc", {}, HTTP + "4", InvalidMessage)
    yield ResponseCase("ssh", "SSH-2.0-OpenSSH_9.6", {}, HTTP + "4", InvalidMessage)


#: Each must be refused, and the connection closed.
HOSTILE_REQUESTS = tuple(bad_requests())
#: Each must be answered with 101.
LEGAL_REQUESTS = tuple(legal_requests())
#: On each the client must give up, with an error, and send no frame.
HOSTILE_RESPONSES = tuple(bad_responses())
