"""Opening handshakes: what servers answer, what clients make of answers, and arguments that are refused at once."""

from __future__ import annotations

import base64
from typing import Any

from wsproto_fast import Limits
from wsproto_fast.exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    SecurityError,
)
from wsproto_fast.http11 import Headers, Response

#: A request that any server accepts, but for the empty line; the answer to it has a fixed Sec-WebSocket-Accept.
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)

# -- what a server answers ---------------------------------------------------------------------------------------------

#: A request, and the status that a server answers which takes clients of the origin http://good only.
BAD_REQUESTS: list[tuple[bytes, str]] = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "426"),
    (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    (b"GET / HTTP/1.0\r\n\r\n", "505"),
    (b"nonsense\r\n\r\n", "400"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", "400"),  # a TLS client
    (b"GET / HTTP/1.1\r\n\r\n", "400"),
    (b"GET / HTTP/1.1\r\n" + b"X-Header: y\r\n" * 200 + b"\r\n", "431"),
    (b"GET / HTTP/1.1\r\nX-Header: " + b"y" * 10_000 + b"\r\n\r\n", "431"),
    (b"GET / HTTP/1.1\r\n" + b"X-Header: " + b"y" * 1_000_000 + b"\r\n\r\n", "431"),
    (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", "414"),
    (REQUEST.replace(b"Version: 13", b"Version: 12") + b"\r\n", "426"),
    (REQUEST + b"Content-Length: 5\r\n\r\nhello", "400"),
    (REQUEST + b"Origin: http://evil\r\n\r\n", "403"),
    (REQUEST + b"\r\n" + b"\x81\x85" + b"x" * 100_000, "403"),
]
#: With what a client may leave.
BEFORE_LEAVING = [b"", b"GET / HT", REQUEST]
#: What a program decides, and what fails with it: logged with its traceback, answered with a 500 that says nothing.
HOOKS = ["process_request", "process_response", "select_subprotocol"]
#: What a hook may return by mistake.
NO_ANSWERS: list[Any] = [
    42,
    "OK",
    (200, [], b""),
    Response(200, "OK\r\nX: y", Headers()),
    Response(100, "Continue", Headers()),
    Response(700, "?", Headers()),
]
#: Accepted by ``origins=["http://good", re.compile("http://.*[.]good")]``, and not.
GOOD_ORIGINS = ["http://good", "http://very.good"]
BAD_ORIGINS = ["http://good.evil", "null", None]
#: What ``serve`` refuses at once.
WRONG_SERVER_ARGUMENTS: list[dict[str, Any]] = [
    {"subprotocols": ["a b"]},
    {"server_header": "a\r\nb"},
    {"compression": "brotli"},
    {"max_queue": -1},
    {"limits": Limits(), "max_size": 5},
    {"ping_interval": 0},
]

# Authentication, by ``basic_auth("dev", ("hello", "iloveyou"))``


def basic(credentials: str) -> bytes:
    return b"Authorization: Basic " + base64.b64encode(credentials.encode()) + b"\r\n"


#: Headers of a request, and what its refusal says; None: there is none.
CREDENTIALS: list[tuple[bytes, str | None]] = [
    (b"", "Missing credentials\n"),
    (b"Authorization: Digest username=hello\r\n", "Unsupported credentials\n"),
    (b"Authorization: Basic\r\n", "Unsupported credentials\n"),
    (b"Authorization:\r\n", "Unsupported credentials\n"),
    (b"Authorization: Basic a\xffb=\r\n", "Unsupported credentials\n"),
    (b"Authorization: Basic aGVsbG8=\r\n", "Unsupported credentials\n"),  # no colon
    (b"Authorization: Basic aGVsbG8\r\n", "Unsupported credentials\n"),  # no padding
    (basic("hello:iloveyou") * 2, "Unsupported credentials\n"),
    (basic("hello:ihateyou"), "Invalid credentials\n"),
    (basic("goodbye:iloveyou"), "Invalid credentials\n"),
    (basic("hello:"), "Invalid credentials\n"),
    (basic(":iloveyou"), "Invalid credentials\n"),
    (basic("hello:iloveyou"), None),
    (basic("hello:iloveyou").replace(b"Basic ", b"bAsIc   "), None),
]
CHALLENGE = 'Basic realm="dev", charset="UTF-8"'
#: A TypeError at once.
WRONG_CREDENTIALS: list[Any] = [
    *(42, "ab", [42], ["ab"], [("a", "b"), ("c",)], [("a", b"b")], ("a", b"b"), {"ab": 1}),
]

# -- what a client makes of answers ------------------------------------------------------------------------------------

#: An answer, after which the server ends the connection, and what ``connect`` raises.
BAD_ANSWERS: list[tuple[bytes, type[InvalidHandshake]]] = [
    (b"", InvalidMessage),
    (b"SSH-2.0-OpenSSH\r\n\r\n", InvalidMessage),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", InvalidStatus),
    (b"HTTP/1.1 404 Not Found\r\n\r\nuntil the end", InvalidStatus),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", InvalidMessage),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", InvalidHeader),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n", SecurityError),
]
#: The beginning of an answer, what follows again and again (None: a byte now and then), and what ``connect`` raises.
ENDLESS_ANSWERS: list[tuple[bytes, bytes | None, type[Exception]]] = [
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", b"x" * 1000, InvalidStatus),
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 999999999\r\n\r\n", b"x" * 1000, InvalidStatus),
    (
        b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3e8\r\n" + b"x" * 1000 + b"\r\n",
        InvalidStatus,
    ),
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", None, TimeoutError),
    (b"HTTP/1.1 403 Forbidden\r\nX: ", b"x" * 1000, SecurityError),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n", SecurityError),
    (b"", b"x" * 1000, SecurityError),
    (b"", None, TimeoutError),
]
#: What ``connect`` refuses at once.
WRONG_URIS = ["http://a", "ws://", "ws://a b"]
WRONG_CLIENT_ARGUMENTS: list[dict[str, Any]] = [
    {"ssl": True},
    {"additional_headers": {"X": "a\r\nb"}},
    {"additional_headers": {"X Y": "a"}},
    {"origin": "a\r\nb"},
    {"user_agent_header": "a\nb"},
    {"subprotocols": ["a,b"]},
    {"compression": "brotli"},
    {"max_queue": -1},
    {"limits": Limits(), "max_size": 5},
    {"ping_interval": 0},
    {"max_queue_bytes": -1},
    {"open_timeout": -1},
    {"extensions": [object()]},
]
WRONG_PROXIES = ["proxy:8080", "ftp://proxy", "http://proxy/path"]

# -- redirects ---------------------------------------------------------------------------------------------------------


def found(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


REDIRECTS = [300, 301, 302, 303, 307, 308]
#: Locations that are no URI; an InvalidURI, whose cause is the InvalidStatus.
BROKEN_LOCATIONS = ["ftp://a/", "wss://", "//[", "/a b"]
#: Answers that are no redirects, though they look like one.
NO_REDIRECTS = [b"HTTP/1.1 304 Not Modified\r\nLocation: /\r\n\r\n", b"HTTP/1.1 302 Found\r\n\r\n"]

# -- proxies -----------------------------------------------------------------------------------------------------------

PROXY_SCHEMES = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]
#: Arguments that do not fit a proxy, and what the ValueError says.
WRONG_PROXY_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("ws://a/", {"proxy": "http://p", "proxy_ssl": True}, "proxy_ssl argument is incompatible with an http:// proxy"),
    ("ws://a/", {"proxy": "socks5://p", "proxy_ssl": True}, "proxy_ssl argument is .* with a socks5:// proxy"),
]
#: An HTTP proxy's answer (None: it leaves before the request), whether it stays, and the name of what is raised; by a
#: client of which it is not known what it raises when its own handshake meets an end, "lost".
PROXY_ANSWERS: list[tuple[bytes | None, bool, str]] = [
    (None, False, "InvalidProxyMessage"),
    (b"\x05\x00" + b"\r\n\r\n", False, "InvalidProxyMessage"),
    (b"HTTP/1.1 200 OK\r\n", False, "InvalidProxyMessage"),
    (b"HTTP/1.1 200 OK\r\n\r\nhello", True, "InvalidProxyMessage"),
    (b"HTTP/1.1 407 Authenticate\r\n\r\nuntil the end", False, "InvalidProxyStatus"),
    (b"HTTP/1.1 407 Authenticate\r\n\r\n" + b"x" * 100_000, True, "InvalidProxyStatus"),
    (b"HTTP/1.1 200 OK\r\n\r\n", False, "lost"),
]
