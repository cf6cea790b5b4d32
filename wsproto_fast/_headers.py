"""Texts of the WebSocket headers: keys, lists, extensions (RFC 6455 4, 9.1). Knows no handshake, agrees on nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence

from .exceptions import InvalidHeader, InvalidHeaderFormat, InvalidHeaderValue, InvalidUpgrade
from .http11 import Headers, HeadersLike, is_token

__all__ = [
    "Extension",
    "accept_key",
    "basic_authorization",
    "check_upgrade",
    "checked_headers",
    "checked_subprotocols",
    "generate_key",
    "is_key",
    "parse_authorization_basic",
    "parse_extensions",
    "parse_subprotocols",
    "parse_token_list",
    "quoted_string",
    "single_value",
]

#: Name and parameters of one element of Sec-WebSocket-Extensions; the value of a parameter without one is None.
Extension = tuple[str, list[tuple[str, str | None]]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Elements of a list header. No real peer sends ten; 64 KiB of "a," would cost 50 ms.
_MAX_ELEMENTS = 128
# One character class each: no backtracking.
_is_quotable = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_is_key = re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch
_token_at = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+").match
_space_at = re.compile(r"[ \t]*").match
_separators_at = re.compile(r"[ \t,]*").match


def generate_key() -> str:
    """A new value of Sec-WebSocket-Key: 16 bytes from the operating system (RFC 6455 4.1, 10.3)."""
    return binascii.b2a_base64(os.urandom(16), newline=False).decode()


def accept_key(key: str) -> str:
    """The value of Sec-WebSocket-Accept that answers ``key`` (RFC 6455 4.2.2)."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def is_key(value: str) -> bool:
    """Whether ``value`` is the base64 of 16 bytes (RFC 6455 4.2.1)."""
    return _is_key(value) is not None


def parse_token_list(value: str, header_name: str) -> list[str]:
    """The tokens of a comma-separated list, ``1#token`` (RFC 9110 5.6.1); empty elements are skipped.

    Raises InvalidHeaderFormat when an element is not a token, when there is none, or when there are too many.
    """
    if value.count(",") >= _MAX_ELEMENTS:
        raise InvalidHeaderFormat(header_name, "too many elements", value, 0)
    tokens = [item for item in map(_strip, value.split(",")) if item]
    for token in tokens:
        if not is_token(token):
            raise InvalidHeaderFormat(header_name, "expected token", value, value.find(token))
    if not tokens:
        raise InvalidHeaderFormat(header_name, "expected token", value, len(value))
    return tokens


def parse_subprotocols(value: str) -> list[str]:
    """The elements of Sec-WebSocket-Protocol. Raises InvalidHeaderFormat."""
    return parse_token_list(value, "Sec-WebSocket-Protocol")


def parse_extensions(value: str) -> list[Extension]:
    """The elements of Sec-WebSocket-Extensions (RFC 6455 9.1), quoted values unquoted; one pass, no backtracking.

    Raises InvalidHeaderFormat when it breaks the grammar, is empty, or has too many elements.
    """
    if value.count(",") + value.count(";") >= _MAX_ELEMENTS:
        raise _bad_extensions("too many elements", value, 0)
    extensions: list[Extension] = []
    pos = _separators_at(value).end()  # type: ignore[union-attr]  # may match nothing, but matches
    while pos < len(value):
        name, pos = _token(value, pos)
        parameters: list[tuple[str, str | None]] = []
        while value.startswith(";", pos):
            parameter, pos = _token(value, _skip_space(value, pos + 1))
            content = None
            if value.startswith("=", pos):
                pos = _skip_space(value, pos + 1)
                content, pos = (_quoted_token if value.startswith('"', pos) else _token)(value, pos)
            parameters.append((parameter, content))
        extensions.append((name, parameters))
        if pos < len(value) and value[pos] != ",":
            raise _bad_extensions("expected comma", value, pos)
        pos = _separators_at(value, pos).end()  # type: ignore[union-attr]
    if not extensions:
        raise _bad_extensions("expected token", value, len(value))
    return extensions


def _strip(text: str) -> str:
    return text.strip(" \t")


def _skip_space(value: str, pos: int) -> int:
    return _space_at(value, pos).end()  # type: ignore[union-attr]


def _token(value: str, pos: int) -> tuple[str, int]:
    """The token at ``pos``, and where the next thing stands."""
    match = _token_at(value, pos)
    if match is None:
        raise _bad_extensions("expected token", value, pos)
    return match.group(), _skip_space(value, match.end())


def _quoted_token(value: str, pos: int) -> tuple[str, int]:
    # RFC 6455 9.1: after unescaping the value MUST conform to the token ABNF. A token has neither quotes nor
    # backslashes, so the next quote is the closing one, and a backslash may stand before anything but a backslash or
    # that quote.
    end = value.find('"', pos + 1)
    if end < 0:
        raise _bad_extensions("unterminated quoted string", value, pos)
    raw = value[pos + 1 : end]
    token = raw.replace("\\", "")
    if "\\\\" in raw or raw.endswith("\\") or not is_token(token):
        raise _bad_extensions("quoted string is not a token", value, pos)
    return token, _skip_space(value, end + 1)


def _bad_extensions(error: str, value: str, pos: int) -> InvalidHeaderFormat:
    return InvalidHeaderFormat("Sec-WebSocket-Extensions", error, value, pos)


def single_value(headers: Headers, name: str) -> str:
    """The value of a header that must stand once. Raises InvalidHeader."""
    values = headers.look_up(name.lower())
    if not values:
        raise InvalidHeader(name)
    if len(values) > 1:
        raise InvalidHeader(name, "multiple values")
    return values[0]


def check_upgrade(headers: Headers) -> None:
    """Raise InvalidUpgrade unless Connection and Upgrade ask for WebSocket, or grant it (RFC 6455 4.1, 4.2.1).

    Both are lists whose elements ignore case (RFC 9110 7.6.1, 7.8); Firefox sends "keep-alive, Upgrade".
    """
    for name, wanted in (("Connection", "upgrade"), ("Upgrade", "websocket")):
        values = headers.look_up(name.lower())
        value = ",".join(values).lower()
        if value != wanted and wanted not in map(_strip, value.split(",", _MAX_ELEMENTS)):
            raise InvalidUpgrade(name, ", ".join(values) if values else None)


def checked_subprotocols(subprotocols: Sequence[str] | None) -> Sequence[str]:
    """Our user's subprotocols, () for None. Raises ValueError when one is not a token, TypeError for a mere str."""
    if subprotocols is None:
        return ()
    if isinstance(subprotocols, str) or not isinstance(subprotocols, Sequence):
        raise TypeError("subprotocols must be a list of str")
    for subprotocol in subprotocols:
        if not is_token(subprotocol):
            raise ValueError(f"subprotocol is not a token: {subprotocol!r}")
    return subprotocols


def checked_headers(headers: HeadersLike | None, reserved: Sequence[str]) -> Headers:
    """Our user's headers. Raises ValueError when one must not go on the wire, or is reserved to the handshake."""
    result = Headers(headers or ())
    for name in reserved if result else ():
        if name in result:
            raise ValueError(f"{name} is set by the handshake")
    return result


def basic_authorization(username: str, password: str) -> str:
    """The value of Authorization (RFC 7617 2). Raises ValueError when the user name has a colon."""
    if ":" in username:
        raise ValueError("a user name with a colon cannot be used for Basic authentication")
    credentials = f"{username}:{password}".encode(errors="surrogateescape")
    return "Basic " + binascii.b2a_base64(credentials, newline=False).decode()


def parse_authorization_basic(value: str) -> tuple[str, str]:
    """User name and password in a value of Authorization (RFC 7617 2). Bytes that are no UTF-8 become surrogates.

    Raises InvalidHeaderFormat or InvalidHeaderValue, neither of which has the credentials in its text.
    """
    scheme, space, credentials = value.partition(" ")
    if not is_token(scheme):
        raise InvalidHeaderFormat("Authorization", "expected token", "", 0)
    if scheme.lower() != "basic":  # RFC 9110 11.1: case-insensitive
        raise InvalidHeaderValue("Authorization", f"unsupported scheme: {scheme}")
    if not space:
        raise InvalidHeaderFormat("Authorization", "expected space after scheme", scheme, len(scheme))
    try:
        # RFC 9110 11.4: one or more spaces
        decoded = base64.b64decode(credentials.lstrip(" ").encode("iso-8859-1"), validate=True)
    except ValueError:
        raise InvalidHeaderValue("Authorization", "expected base64-encoded credentials") from None
    username, colon, password = decoded.decode(errors="surrogateescape").partition(":")
    if not colon:
        raise InvalidHeaderValue("Authorization", "expected username:password credentials")
    return username, password


def quoted_string(value: str) -> str:
    """``value`` as a quoted string (RFC 9110 5.6.4). Raises ValueError when it must not go on the wire."""
    if _is_quotable(value) is None:
        raise ValueError(f"illegal character in quoted string: {value!r}")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
