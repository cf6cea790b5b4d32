"""HTTP/1.1 heads and the little of bodies that a WebSocket handshake meets (RFC 9110, RFC 9112).

Knows lines, headers, framing and their limits; knows nothing of WebSocket, sockets or time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .exceptions import (
    HeaderLineTooLong,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from .limits import Limits

__all__ = [
    "Headers",
    "HeadersLike",
    "MultipleValuesError",
    "Request",
    "RequestParser",
    "Response",
    "ResponseParser",
    "check_request",
    "is_token",
]

# Each pattern is one character class: it cannot backtrack (no ReDoS) whatever a peer sends.
_is_token = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 5.6.2
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110 5.5, obs-text included
_is_target = re.compile(r"[\x21-\x7e]+").fullmatch  # RFC 9112 3.2, without a closer look
_is_host = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=%:\[\]]*").fullmatch  # RFC 3986 3.2.2 and 3.2.3
_is_version = re.compile(r"HTTP/[0-9]\.[0-9]").fullmatch  # RFC 9112 2.3
_is_status = re.compile(r"[1-5][0-9][0-9]").fullmatch
_is_size = re.compile(r"[0-9]{1,18}").fullmatch
_is_chunk_size = re.compile(r"[0-9A-Fa-f]{1,15}").fullmatch
# Header lines as everybody writes them. No class has the character that follows it: no backtracking here either.
_usual_lines = re.compile(r"^([-!#$%&'*+.^_`|~0-9A-Za-z]+): ([\x20-\x7e\x80-\xff]+)\r\n", re.MULTILINE).findall


def is_token(text: str) -> bool:
    """Whether ``text`` is a token (RFC 9110 5.6.2): what header names, methods and subprotocols consist of."""
    return _is_token(text) is not None


class MultipleValuesError(LookupError):
    """A header that was asked for as one value has several."""

    def __str__(self) -> str:
        return repr(self.args[0]) if len(self.args) == 1 else super().__str__()


class _IllegalHeader(InvalidHeaderValue, ValueError):
    """Our user gave a header that must not go on the wire. Also an InvalidHeaderValue, as it is in websockets."""

    def __str__(self) -> str:
        return f"illegal character in header {self.name!r}: {self.value!r}"


class _KeysAndGetItem(Protocol):
    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, key: str, /) -> str: ...


class Headers(MutableMapping[str, str]):
    """HTTP headers: a multi-map whose names ignore case, in the order they came in.

    As long as no name stands twice it behaves like a dict with lower-case keys. Otherwise ``headers[name]`` raises
    MultipleValuesError, ``headers[name] = value`` *appends*, and ``del headers[name]`` removes all values; ``get_all``
    and ``raw_items`` show everything. ``len`` and iteration count each name once.

    Values are ISO-8859-1 where they are not ASCII (RFC 9110 5.5), so any byte that is legal on the wire can be read and
    written; for another encoding: ``headers[name].encode("iso-8859-1").decode("utf-8")``.

    A name that is not a token, or a value with CR, LF, NUL, another control character or one outside ISO-8859-1, raises
    ValueError when it is set. Values are str; an int is converted.
    """

    __slots__ = ("_dict", "_list", "_wire")

    def __init__(self, headers: HeadersLike = (), /, **kwargs: str) -> None:
        self._dict: dict[str, list[str]] = {}
        self._list: list[tuple[str, str]] = []
        if headers or kwargs:
            self.update(headers, **kwargs)

    def __str__(self) -> str:
        """The header section with the empty line that ends it."""
        return "".join([name + ": " + value + "\r\n" for name, value in self._list]) + "\r\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._list!r})"

    def serialize(self) -> bytes:
        """The header section with the empty line that ends it, as it goes on the wire."""
        return str(self).encode("iso-8859-1")

    @classmethod
    def of(cls, items: list[tuple[str, str]]) -> Headers:
        """Headers of what is known to be legal. The list becomes theirs."""
        headers = cls.__new__(cls)
        headers._list = items
        return headers

    def compact(self) -> None:
        """Take a tenth of the memory until somebody looks: for headers that are kept as long as their connection."""
        self._wire = self.serialize()
        self._dict = {}  # nobody may have looked
        del self._dict, self._list

    def __getattr__(self, name: str) -> Any:
        """``_list`` is missing after ``compact``, ``_dict`` until somebody looks for a name."""
        if name == "_list":
            lines = self._wire.decode("iso-8859-1").split("\r\n")[:-2]
            self._list = [(key, value) for key, _, value in [line.partition(": ") for line in lines]]
            del self._wire
            return self._list
        if name == "_dict":
            self._dict = _index(self._list)
            return self._dict
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def copy(self) -> Headers:
        """An independent copy."""
        return type(self).of(self._list.copy())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._dict

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __getitem__(self, name: str) -> str:
        values = self._dict[name.lower()]
        if len(values) > 1:
            raise MultipleValuesError(name)
        return values[0]

    def __setitem__(self, name: str, value: str | int) -> None:
        if isinstance(value, int):
            value = str(value)
        if _is_token(name) is None or _is_value(value) is None:
            raise _IllegalHeader(name, value)
        self.set_insecure(name, value)

    def __delitem__(self, name: str) -> None:
        key = name.lower()
        del self._dict[key]
        self._list = [item for item in self._list if item[0].lower() != key]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._dict == other._dict

    def clear(self) -> None:
        """Remove all headers."""
        self._dict = {}
        self._list = []

    def update(self, headers: HeadersLike = (), /, **kwargs: str) -> None:
        """Append all of ``headers``, repeated ones included. Raises ValueError as setting one does."""
        super().update(headers.raw_items() if isinstance(headers, Headers) else headers, **kwargs)

    def get_all(self, name: str) -> list[str]:
        """All values of a header, oldest first, perhaps none."""
        return self._dict.get(name.lower(), [])[:]

    def look_up(self, key: str) -> Sequence[str]:
        """``get_all`` for a name in lower case. Not to be changed."""
        return self._dict.get(key, ())

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """All ``(name, value)`` pairs, names as they were written."""
        return iter(self._list)

    def set_insecure(self, name: str, value: str) -> None:
        """Append a header without looking at it: only for what is known to be legal."""
        self._dict.setdefault(name.lower(), []).append(value)
        self._list.append((name, value))


def _index(items: list[tuple[str, str]]) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for name, value in items:
        key = name.lower()
        if key in index:
            index[key].append(value)
        else:
            index[key] = [value]
    return index


HeadersLike = Headers | Mapping[str, str] | Iterable[tuple[str, str]] | _KeysAndGetItem


@dataclass
class Request:
    """The head of an HTTP request. ``path`` is the request target: path and query, not decoded."""

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        """The head as it goes on the wire (RFC 9112 3).

        Raises ValueError when the method is not a token or the path has other than visible ASCII characters.
        """
        if not (_is_token(self.method) and _is_target(self.path) and _is_version(self.protocol)):
            raise ValueError(f"illegal request line: {f'{self.method} {self.path} {self.protocol}'!r}")
        return f"{self.method} {self.path} {self.protocol}\r\n{self.headers}".encode("iso-8859-1")


@dataclass
class Response:
    """An HTTP response with its body. Non-ASCII characters of the reason phrase are ISO-8859-1."""

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes | bytearray = b""

    def serialize(self) -> bytes:
        """Head and body as they go on the wire (RFC 9112 4).

        Raises ValueError when the status code is not 100-599 or the reason phrase holds a control character or one
        outside ISO-8859-1.
        """
        if not (_is_status(f"{self.status_code:d}") and _is_value(self.reason_phrase)):
            raise ValueError(f"illegal status line: {f'{self.status_code} {self.reason_phrase}'!r}")
        head = f"HTTP/1.1 {self.status_code:d} {self.reason_phrase}\r\n{self.headers}"
        return head.encode("iso-8859-1") + self.body


def check_request(request: Request) -> None:
    """Check what every HTTP server must refuse with 400, whatever it serves.

    Raises InvalidMessage, its cause a ValueError that says why, when a request has no Host header (HTTP/1.1), several
    or a malformed one (RFC 9112 3.2), or announces a body: none of the requests we answer has one, and what follows a
    head that two parties read differently is request smuggling (RFC 9112 11.2).
    """
    headers = request.headers
    hosts = headers.look_up("host")
    if len(hosts) != 1 and (hosts or request.protocol != "HTTP/1.0"):
        raise _invalid_message("request", f"expected one Host header; got {len(hosts)}")
    if hosts and _is_host(hosts[0]) is None:
        raise _invalid_message("request", f"invalid Host header: {_quote(hosts[0])}")
    if headers.look_up("transfer-encoding"):
        raise _invalid_message("request", "a request body is not supported; got Transfer-Encoding")
    if any(length != "0" for length in headers.look_up("content-length")):
        raise _invalid_message("request", "a request body is not supported; got Content-Length")


def _quote(text: str) -> str:
    """For error messages: no control characters, and not kilobytes of them."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _invalid_message(what: str, cause: str | Exception) -> InvalidMessage:
    exc = InvalidMessage(f"did not receive a valid HTTP {what}")
    exc.__cause__ = ValueError(cause) if isinstance(cause, str) else cause
    return exc


class _HeadParser:
    """Lines into a first line and headers, each byte looked at once however the input is cut.

    A line is judged when it is complete or has become too long, so errors do not depend on the cuts either.
    """

    _what: str
    _first_line_name: str
    _first_line_too_long: type[SecurityError]

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        self._limits = limits
        self._buffer = bytearray()
        self._line_start = 0
        self._scanned = 0  # no line end from _line_start to here
        self._line_limit = min(limits.max_line_size, limits.max_head_size)  # where this line must have ended
        self._in_headers = False  # the first line is complete
        self._items: list[tuple[str, str]] = []

    def _parse_first_line(self, line: str) -> None:
        """Keep its parts. Raises InvalidMessage or InvalidProtocol."""

    def _parse_usual_head(self) -> Headers | None:
        """Headers of a head that is all there and has nothing unusual in it. Else None: look at it line by line."""
        end = self._buffer.find(b"\r\n\r\n", 0, self._line_limit)  # where no line of it can be too long
        if end < 0:
            return None
        text = self._buffer[: end + 2].decode("iso-8859-1")
        first_line, _, section = text.partition("\r\n")
        items = _usual_lines(section)
        # Each has one line end, its last. So when there are no other line ends, they are the whole section.
        if len(items) + 1 != text.count("\n") or len(items) > self._limits.max_headers:
            return None
        if ":  " in section or " \r\n" in section:
            return None  # perhaps space around a value
        self._parse_first_line(first_line)
        self._line_start = self._scanned = end + 4
        self._line_limit = min(self._line_start + self._limits.max_line_size, self._limits.max_head_size)
        return Headers.of(items)

    def _parse_head(self) -> Headers | None:
        """Headers when the empty line that ends the head is reached, else None: feed more."""
        if self._scanned == 0:
            headers = self._parse_usual_head()
            if headers is not None:
                return headers
        buffer = self._buffer
        start, limit = self._line_start, self._line_limit
        end = buffer.find(b"\n", self._scanned)
        limits, items = self._limits, self._items
        while 0 <= end < limit:
            # RFC 9112 2.2: a recipient may take a bare LF as a line end. We don't: smugglers live on that.
            if end == start or buffer[end - 1] != 13:
                raise _invalid_message(self._what, f"line without CR: {_quote(buffer[start:end].decode('iso-8859-1'))}")
            line = buffer[start : end - 1].decode("iso-8859-1")
            start = end + 1
            limit = min(start + limits.max_line_size, limits.max_head_size)
            if not self._in_headers:
                self._parse_first_line(line)
                self._in_headers = True
            elif line:
                name, colon, value = line.partition(":")
                value = value.strip(" \t")
                # what is printable in ISO-8859-1 is legal, and quicker to see
                if not (colon and _is_token(name) and (value.isprintable() or _is_value(value))):
                    raise self._bad_header(line, name)
                if len(items) >= limits.max_headers:
                    raise TooManyHeaders(f"expected no more than {limits.max_headers} headers")
                items.append((name, value))
            else:
                self._line_start = self._scanned = start
                self._line_limit = limit
                self._in_headers, self._items = False, []
                return Headers.of(items)
            end = buffer.find(b"\n", start)
        self._line_start = start
        self._line_limit = limit
        self._scanned = len(buffer)
        if end >= limit or len(buffer) > limit:
            raise self._too_long(start)
        return None

    def _too_long(self, start: int) -> SecurityError:
        if start + self._limits.max_line_size > self._limits.max_head_size:
            return HeaderLineTooLong(f"head exceeds {self._limits.max_head_size} bytes")
        if not self._in_headers:
            return self._first_line_too_long(f"{self._first_line_name} exceeds {self._limits.max_line_size} bytes")
        return HeaderLineTooLong(f"header line exceeds {self._limits.max_line_size} bytes")

    def _bad_header(self, line: str, name: str) -> InvalidMessage:
        if line[0] in " \t":
            error = "obsolete line folding"  # RFC 9112 5.2
        elif ":" not in line:
            error = "header line without colon"
        elif name.endswith((" ", "\t")):
            error = "space between header name and colon"  # RFC 9112 5.1
        elif not is_token(name):
            error = "invalid header name"
        else:
            error = "control character in header value"
        return _invalid_message(self._what, f"{error}: {_quote(line)}")

    def _end_of_head(self) -> InvalidMessage:
        """What is wrong when the stream ends before the head does."""
        part = "headers" if self._in_headers else self._first_line_name
        return _invalid_message(self._what, EOFError(f"connection closed while reading HTTP {part}"))

    @property
    def head(self) -> bytes:
        """What was fed up to the end of the head. Meaningful for a RequestParser that has returned its result."""
        return bytes(memoryview(self._buffer)[: self._line_start])

    @property
    def trailing_data(self) -> bytes:
        """What was fed behind the head. Only meaningful once the parser has returned its result."""
        return bytes(memoryview(self._buffer)[self._line_start :])


class RequestParser(_HeadParser):
    """Bytes to one Request (RFC 9112 3). Once it has returned it or raised, a parser is of no further use."""

    _what = "request"
    _first_line_name = "request line"
    _first_line_too_long = RequestLineTooLong

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Take the next bytes; return the Request when its head is complete, else None.

        Raises RequestLineTooLong, HeaderLineTooLong or TooManyHeaders when a limit is passed, InvalidProtocol when the
        version is neither 1.1 nor 1.0, InvalidMessage with the reason as its cause for anything else that is not a
        well-formed request without a body (see check_request).
        """
        self._buffer += data
        headers = self._parse_head()
        if headers is None:
            return None
        request = Request(self._path, headers, self._method, self._protocol)
        check_request(request)
        return request

    def feed_eof(self) -> None:
        """Raise InvalidMessage, caused by EOFError: the stream ended before the head."""
        raise self._end_of_head()

    def _parse_first_line(self, line: str) -> None:
        parts = line.split(" ")
        if len(parts) != 3 or not (_is_token(parts[0]) and _is_target(parts[1]) and _is_version(parts[2])):
            raise _invalid_message("request", f"invalid request line: {_quote(line)}")
        self._method, self._path, self._protocol = parts
        if self._protocol not in ("HTTP/1.1", "HTTP/1.0"):
            raise InvalidProtocol(self._protocol)


class ResponseParser(_HeadParser):
    """Bytes to one Response with its body (RFC 9112 4, 6.3). Once it has returned or raised it is of no further use.

    Interim responses (1xx, but not 101) are skipped (RFC 9110 15.2); all heads together obey the limits of one. At most
    ``Limits.max_body_size`` bytes of a body are kept, the rest is not waited for.
    """

    _what = "response"
    _first_line_name = "status line"
    _first_line_too_long = StatusLineTooLong

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
        super().__init__(limits)
        self._response: Response | None = None  # its head is complete
        self._length: int | None = None  # of the body, cut at max_body_size; None: until the end of the stream
        self._chunked = False
        self._body = bytearray()  # chunked: decoded so far
        self._overhead = 0  # chunked: bytes of size lines so far

    def feed(self, data: bytes | bytearray | memoryview) -> Response | None:
        """Take the next bytes; return the Response when head and body are complete, else None.

        Raises StatusLineTooLong, HeaderLineTooLong or TooManyHeaders when a limit is passed, InvalidProtocol when the
        version is not 1.1 (1.0 may refuse, but not switch protocols), InvalidMessage with the reason as its cause for
        anything else that is not a well-formed response.
        """
        self._buffer += data
        while self._response is None:
            headers = self._parse_head()
            if headers is None:
                return None
            if self._status_code == 101 or self._status_code >= 200:
                self._response = Response(self._status_code, self._reason, headers)
                self._frame_body(headers)
        return self._read_chunks(self._response) if self._chunked else self._read_body(self._response)

    def feed_eof(self) -> Response | None:
        """The stream ended: return the Response if that is what ends its body.

        Raises InvalidMessage, caused by EOFError, if it is not.
        """
        if self._response is None:
            raise self._end_of_head()
        if self._chunked or self._length is not None:
            raise _invalid_message("response", EOFError("connection closed while reading HTTP response body"))
        self._response.body = self.trailing_data
        return self._response

    def _parse_first_line(self, line: str) -> None:
        version, _, rest = line.partition(" ")
        status, _, self._reason = rest.partition(" ")
        if not (_is_version(version) and _is_status(status) and _is_value(self._reason)):
            raise _invalid_message("response", f"invalid status line: {_quote(line)}")
        self._status_code = int(status)
        if version != "HTTP/1.1" and (version != "HTTP/1.0" or self._status_code == 101):
            raise InvalidProtocol(version)

    def _frame_body(self, headers: Headers) -> None:
        # RFC 9112 6.3, in its order
        if self._status_code in (101, 204, 304):
            self._length = 0
        elif "Transfer-Encoding" in headers:
            coding = headers.get_all("Transfer-Encoding")[-1].rpartition(",")[2].strip(" \t").lower()
            self._chunked = coding == "chunked"  # otherwise until the end of the stream
        elif "Content-Length" in headers:
            length, *others = {item.strip(" \t") for item in ",".join(headers.get_all("Content-Length")).split(",")}
            if others or not _is_size(length):
                raise _invalid_message("response", f"invalid Content-Length header: {_quote(length)}")
            self._length = min(int(length), self._limits.max_body_size)

    def _read_body(self, response: Response) -> Response | None:
        size = self._limits.max_body_size if self._length is None else self._length
        if len(self._buffer) - self._line_start < size:
            return None
        end = self._line_start + size
        response.body = bytes(self._buffer[self._line_start : end])
        self._line_start = end
        return response

    def _read_chunks(self, response: Response) -> Response | None:
        # RFC 9112 7.1. Done at the last chunk: no one wants the trailer section of a refusal.
        buffer = self._buffer
        while True:
            if self._length is None:  # at a size line
                end = buffer.find(b"\n", self._scanned)
                self._scanned = len(buffer)
                line_limit = self._line_start + self._limits.max_line_size
                if end >= line_limit or (end < 0 and len(buffer) > line_limit):
                    raise SecurityError(f"chunk size line exceeds {self._limits.max_line_size} bytes")
                if end < 0:
                    return None
                line = buffer[self._line_start : end + 1].decode("iso-8859-1")
                digits = line.partition(";")[0].rstrip(" \t\r\n")
                if not line.endswith("\r\n") or not _is_chunk_size(digits):
                    raise _invalid_message("response", f"invalid chunk size: {_quote(line)}")
                self._length = int(digits, 16)
                self._line_start = end + 1
                self._overhead += len(line)
            room = self._limits.max_body_size - len(self._body)
            size = min(self._length, room)
            if len(buffer) - self._line_start < size:
                return None
            # Chunks of one byte each with an extension of 8 KiB would make 64 KiB of body cost 512 MiB.
            if self._length == 0 or self._length >= room or self._overhead > self._limits.max_head_size:
                response.body = bytes(self._body + buffer[self._line_start : self._line_start + size])
                return response
            end = self._line_start + size
            if len(buffer) < end + 2:
                return None
            if buffer[end : end + 2] != b"\r\n":
                raise _invalid_message("response", "chunk without CRLF at its end")
            self._body += buffer[self._line_start : end]
            self._line_start = self._scanned = end + 2
            self._length = None
