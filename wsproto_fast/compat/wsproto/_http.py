"""HTTP/1.1 of a handshake, both ends (RFC 9112): what comes in strictly, what goes out as given.

Knows heads, their headers as wsproto has them (pairs of bytes), and how a refusal's body is framed; knows nothing of
WebSocket. The parsers are the engine's.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from ...exceptions import InvalidHandshake
from ...http11 import Headers as ParsedHeaders
from ...http11 import RequestParser, ResponseParser
from ...limits import Limits
from .utilities import LocalProtocolError

if TYPE_CHECKING:
    from .typing import Headers

__all__ = ["BadMessage", "RequestReader", "ResponseReader", "ResponseWriter", "checked", "head"]

# Heads as long as wsproto takes them in one piece; a body is told in pieces and not kept.
_LIMITS = Limits(max_line_size=2**16, max_head_size=2**16, max_headers=1024, max_body_size=2**62)

# RFC 9110 5.6.2, 5.5; RFC 9112 3.2
_is_name = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[ \t\x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?").fullmatch
_is_chunk_size = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n").fullmatch  # RFC 9112 7.1
_is_target = re.compile(rb"[\x21-\x7e]+").fullmatch


class BadMessage(Exception):
    """The peer sends something else than HTTP/1.1."""


def _bytes(text: str | bytes) -> bytes:
    return text.encode("ascii") if isinstance(text, str) else bytes(text)


def checked(headers: Iterable[tuple[bytes | str, bytes | str]]) -> Headers:
    """The headers as bytes. LocalProtocolError for what must not go on the wire."""
    result = []
    for raw_name, raw_value in headers:
        name, value = _bytes(raw_name), _bytes(raw_value)
        if _is_name(name) is None:
            raise LocalProtocolError(f"Illegal header name {name!r}")
        if _is_value(value) is None:
            raise LocalProtocolError(f"Illegal header value {value!r}")
        result.append((name, value))
    return result


def checked_target(target: str | bytes) -> bytes:
    """A request target as bytes. LocalProtocolError for what must not go on the wire."""
    data = _bytes(target)
    if _is_target(data) is None:
        raise LocalProtocolError(f"illegal request target {data!r}")
    return data


def head(first_line: bytes, headers: Headers) -> bytes:
    """A head as it goes on the wire; Host comes first (RFC 9110 7.2)."""
    headers = sorted(headers, key=lambda item: item[0].lower() != b"host")
    lines = b"".join([b"%s: %s\r\n" % item for item in headers])
    return b"%s\r\n%s\r\n" % (first_line, lines)


def _pairs(headers: ParsedHeaders) -> Headers:
    """Received headers as wsproto has them: names in lower case."""
    return [(name.lower().encode("ascii"), value.encode("iso-8859-1")) for name, value in headers.raw_items()]


def _without(headers: Headers, *names: bytes) -> Headers:
    return [item for item in headers if item[0].lower() not in names]


def _checked_lengths(headers: Headers) -> Headers:
    """Content-Length once, if at all. LocalProtocolError where a body's length is contradictory, or not known to us."""
    lengths = tokens(headers, b"content-length")
    if any(length != lengths[0] for length in lengths):
        raise LocalProtocolError("conflicting Content-Length headers")
    if lengths and not lengths[0].isdigit():
        raise LocalProtocolError("bad Content-Length")
    if tokens(headers, b"transfer-encoding") not in ([], [b"chunked"]):
        raise LocalProtocolError("Only Transfer-Encoding: chunked is supported")
    first = next((item for item in headers if item[0].lower() == b"content-length"), None)
    return [item for item in headers if item is first or item[0].lower() != b"content-length"]


class RequestReader:
    """Bytes to the head of one request. ``read`` returns True when it is there; then its parts are set."""

    method = b""
    target = ""
    headers: Headers = []

    def __init__(self) -> None:
        self._parser = RequestParser(_LIMITS)
        self._begun = False
        self.persistent = True  # RFC 9112 9.3: the connection may live on behind the response
        self.http_1_1 = False  # so the response may be chunked

    def read(self, data: bytes) -> bool:
        """Take bytes, at least one. Raises BadMessage."""
        if not self._begun and data[:1] <= b" ":  # TLS, say, which would have no end of line for long
            raise BadMessage
        self._begun = True
        try:
            request = self._parser.feed(data)
        except InvalidHandshake as error:
            raise BadMessage from error
        if request is None:
            return False
        self.method = request.method.encode("ascii")
        self.target = request.path
        self.headers = _pairs(request.headers)
        self.http_1_1 = request.protocol == "HTTP/1.1"
        self.persistent = self.http_1_1 and b"close" not in tokens(self.headers, b"connection")
        return True

    def end(self) -> None:
        """No more bytes come. Raises BadMessage amid a head."""
        if self._begun:
            raise BadMessage


def tokens(headers: Headers, name: bytes) -> list[bytes]:
    """The items of a comma-separated header, in lower case, however many lines it takes."""
    values = b",".join([value for key, value in headers if key.lower() == name])
    return [item for item in [item.strip().lower() for item in values.split(b",")] if item]


class ResponseReader(ResponseParser):
    """Bytes to one response head after the other, until one is final, and then to its body as it arrives.

    What reads raises BadMessage, and is of no further use then.
    """

    def __init__(self) -> None:
        super().__init__(_LIMITS)
        self.status_code = 0
        self.headers: Headers = []
        self.ended = False  # to be set when no more bytes come
        self._pieces = self._body_in_pieces()

    def receive(self, data: bytes) -> None:
        """Take bytes."""
        self._buffer += data

    def read_head(self) -> bool:
        """Whether another head is there; then ``status_code`` and ``headers`` are its."""
        try:
            headers = self._parse_head()
            if headers is None:
                self._wait()
                return False
            self._frame_body(headers)
        except InvalidHandshake as error:
            raise BadMessage from error
        self.status_code = self._status_code
        self.headers = _pairs(headers)
        return True

    def read_piece(self) -> bytes | None:
        """The next piece of the body, b"" at its end; None until there is one."""
        return next(self._pieces)

    @property
    def empty(self) -> bool:
        """Whether nothing was received, or all of it told."""
        return not self._buffer

    def _wait(self) -> None:
        if self.ended:
            raise BadMessage

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _body_in_pieces(self) -> Generator[bytes | None, None, None]:
        self._take(self._line_start)
        if self._chunked:
            yield from self._chunks()
        elif self._length is not None:
            yield from self._span(self._length)
        else:
            while self._buffer or not self.ended:
                yield self._take(len(self._buffer)) or None
        yield b""

    def _chunks(self) -> Generator[bytes | None, None, None]:
        # RFC 9112 7.1
        size = -1
        while size:
            line = _is_chunk_size((yield from self._line()))
            if line is None:
                raise BadMessage
            size = int(line[1], 16)
            yield from self._span(size)
            if size and (yield from self._line(2)) != b"\r\n":
                raise BadMessage
        while (yield from self._line()) != b"\r\n":  # the trailer section
            pass

    def _span(self, size: int) -> Generator[bytes | None, None, None]:
        while size:
            piece = self._take(size)
            size -= len(piece)
            if not piece:
                self._wait()
            yield piece or None

    def _line(self, max_size: int = _LIMITS.max_line_size) -> Generator[None, None, bytes]:
        while b"\n" not in self._buffer:
            if len(self._buffer) >= max_size:
                raise BadMessage
            self._wait()
            yield None
        return self._take(self._buffer.find(b"\n") + 1)


class ResponseWriter:
    """A refusal: ``head`` is its head, with the framing that its body needs. ``request`` is what it answers.

    LocalProtocolError for what is no legal response, or a body that is not as long as announced.
    """

    def __init__(self, status_code: int, headers: Headers, request: RequestReader) -> None:
        if not 200 <= status_code < 1000:
            raise LocalProtocolError(f"Response status_code should be in range [200, 1000), not {status_code}")
        self._chunked = False
        self._left: int | None = None  # bytes of the body that must follow; None: any
        self._close = not request.persistent
        headers = _checked_lengths(checked(headers))
        bodiless = status_code in (204, 304)  # RFC 9112 6.3
        if not bodiless:
            headers = self._frame(headers, request.http_1_1)
        if bodiless or request.method == b"HEAD":
            self._chunked, self._left = False, 0
        if self._close:
            options = {*tokens(headers, b"connection"), b"close"} - {b"keep-alive"}
            headers = [*_without(headers, b"connection"), *[(b"Connection", option) for option in sorted(options)]]
        self.head = head(b"HTTP/1.1 %d " % status_code, headers)

    def _frame(self, headers: Headers, http_1_1: bool) -> Headers:
        """RFC 9112 6: a body that does not say how long it is, is chunked, or ends with the connection."""
        lengths = tokens(headers, b"content-length")
        if lengths and not tokens(headers, b"transfer-encoding"):
            self._left = int(lengths[0])
            return headers
        headers = _without(headers, b"content-length", b"transfer-encoding")
        if http_1_1:
            self._chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        else:
            self._close = True
        return headers

    def data(self, data: bytes) -> bytes:
        """A piece of the body."""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise LocalProtocolError("Too much data for declared Content-Length")
        return b"%x\r\n%s\r\n" % (len(data), data) if self._chunked and data else bytes(data)

    def end(self) -> bytes:
        """The end of the body."""
        if self._left:
            raise LocalProtocolError("Too little data for declared Content-Length")
        return b"0\r\n\r\n" if self._chunked else b""
