"""WebSocket URIs (RFC 6455 3). Knows their text; knows no HTTP and opens nothing."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]

#: Everything a URI may consist of, "%" included: quoting with it as ``safe`` encodes nothing but non-ASCII characters.
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
#: RFC 3986 3.2.2: reg-name. An IPv6 address is checked by ipaddress instead.
_is_reg_name = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=%]+").fullmatch
_is_bracketed = re.compile(r"\[[^\[\]]+\](:[0-9]*)?").fullmatch
_find_illegal = re.compile(r"[\x00-\x20\x7f]").search


@dataclass(frozen=True)
class WebSocketURI:
    """The parts of a ws:// or wss:// URI (RFC 6455 3).

    ``host`` is in lower case and without the brackets of an IPv6 address; ``port`` is always set; ``path`` and
    ``query`` are percent-encoded and may be empty; ``username`` and ``password`` are decoded, and None together.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    @property
    def resource_name(self) -> str:
        """Path and query as they stand in the request line (RFC 6455 3)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password, or None."""
        if self.username is None:
            return None
        return self.username, self.password or ""

    @property
    def authority(self) -> str:
        """Host, and port unless it is the scheme's own, as they stand in the Host header (RFC 9110 7.2).

        Raises ValueError when the host is not one. An IPv6 zone is of local significance only (RFC 6874 1) and left
        out.
        """
        host = self.host
        if ":" in host:
            host = f"[{ipaddress.IPv6Address(host.partition('%')[0])}]"
        elif _is_reg_name(host) is None:
            raise ValueError(f"invalid host: {host!r}")
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_uri(uri: str) -> WebSocketURI:
    """Parse a WebSocket URI; an IRI is converted: its host with IDNA, the rest to percent-encoded UTF-8.

    Raises InvalidURI, and nothing else, when ``uri`` isn't a WebSocket URI, when it contains a space or a control
    character, a fragment, or a user name without a password (Basic authentication needs both).
    """
    check_characters(uri)
    try:
        return _parse_uri(uri)
    except InvalidURI:
        raise
    except ValueError as exc:  # of urlsplit, its port, ipaddress, IDNA or unquote
        raise InvalidURI(uri, str(exc)) from exc


def check_characters(uri: str) -> None:
    """Raise InvalidURI for what urlsplit() removes silently: tabs, line ends, leading spaces; and for their like."""
    if _find_illegal(uri):
        raise InvalidURI(uri, "it contains a space or a control character")


def check_brackets(netloc: str) -> None:
    """Raise ValueError for misplaced brackets: to an older urlsplit(), "[::1]evil" is the host "::1"."""
    address = netloc.rpartition("@")[2]
    if ("[" in address or "]" in address) and not _is_bracketed(address):
        raise ValueError("misplaced brackets")


def _parse_uri(uri: str) -> WebSocketURI:
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("ws", "wss"):
        raise InvalidURI(uri, "scheme isn't ws or wss")
    if not parts.hostname:
        raise InvalidURI(uri, "hostname isn't provided")
    if parts.fragment:  # RFC 6455 3: fragment identifiers are meaningless and MUST NOT be used
        raise InvalidURI(uri, "fragment identifier is meaningless")
    check_brackets(parts.netloc)
    secure = parts.scheme == "wss"
    port = parts.port
    if port is None:
        port = 443 if secure else 80
    elif port == 0:
        raise InvalidURI(uri, "port 0 cannot be connected to")
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if ":" in host:
        host = host.replace("%25", "%", 1)  # RFC 6874 2: the zone of a link-local address
    username, password = parts.username, parts.password
    if username is not None:
        if password is None:
            raise InvalidURI(uri, "username provided without password")
        username = urllib.parse.unquote(username, errors="strict")
        password = urllib.parse.unquote(password, errors="strict")
        if ":" in username:  # RFC 7617 2
            raise InvalidURI(uri, "username contains a colon")
    path = urllib.parse.quote(parts.path, safe=_ASCII)
    query = urllib.parse.quote(parts.query, safe=_ASCII)
    result = WebSocketURI(secure, host, port, path, query, username, password)
    _ = result.authority  # checks the host
    return result
