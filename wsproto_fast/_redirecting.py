"""Redirects of the opening handshake: where one leads, and what must not follow it.

Knows URIs and headers; knows no connection. RFC 6455 4.1 lets a client follow them (RFC 9110 15.4).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Container

from .exceptions import InvalidURI, SecurityError
from .http11 import Headers, HeadersLike, Response
from .uri import WebSocketURI, check_characters, parse_uri

__all__ = ["MAX_REDIRECTS", "redirected", "same_origin", "without_credentials"]

#: Followed for one connection. As many as in websockets.
MAX_REDIRECTS = 10
_STATUSES = (300, 301, 302, 303, 307, 308)
_CREDENTIALS = ("Authorization", "Cookie", "Proxy-Authorization")
_SCHEMES = {"http": "ws", "https": "wss"}


def redirected(uri: str, response: Response, given: Container[str] = ()) -> str | None:
    """The URI to which a server's answer to a request for ``uri`` sends us; None when it does not.

    ``given`` tells where our user said to connect, whatever the URI says: some of "sock", "path" (of a Unix socket),
    "host" and "port". Raises ValueError when that rules the redirect out, SecurityError when it leads from wss to ws,
    InvalidURI when its Location isn't one.
    """
    locations = response.headers.get_all("Location")
    if response.status_code not in _STATUSES or len(locations) != 1:
        return None
    target = _resolve(uri, locations[0])
    old, new = parse_uri(uri), parse_uri(target)
    if "sock" in given:
        raise ValueError(f"cannot follow redirect to {target} with a preexisting socket")
    if old.secure and not new.secure:
        raise SecurityError(f"cannot follow redirect to non-secure URI {target}")
    if same_origin(old, new):
        return target if new.user_info else _with_user_info(target, uri)
    if "path" in given:
        raise ValueError(f"cannot follow cross-origin redirect to {target} with a Unix socket")
    if "host" in given or "port" in given:
        raise ValueError(f"cannot follow cross-origin redirect to {target} with an explicit host or port")
    return _without_user_info(target)


def same_origin(uri: WebSocketURI, other: WebSocketURI) -> bool:
    """Whether what is meant for one may be told to the other (RFC 6454 5)."""
    return (uri.secure, uri.host, uri.port) == (other.secure, other.host, other.port)


def without_credentials(headers: HeadersLike | None) -> Headers:
    """The headers that may go to another origin."""
    result = Headers(headers or ())
    for name in _CREDENTIALS:
        if name in result:
            del result[name]
    return result


def _resolve(uri: str, location: str) -> str:
    check_characters(location)
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(_without_user_info(uri), location))
    except ValueError as exc:
        raise InvalidURI(location, str(exc)) from exc
    # Servers that redirect before they look at Upgrade say http, and a fragment is nothing to us (RFC 9110 10.2.2).
    return parts._replace(scheme=_SCHEMES.get(parts.scheme, parts.scheme), fragment="").geturl()


def _without_user_info(uri: str) -> str:
    parts = urllib.parse.urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _with_user_info(uri: str, other: str) -> str:
    """``uri``, which has none, with the user information of ``other``."""
    parts = urllib.parse.urlsplit(uri)
    user_info, at, _ = urllib.parse.urlsplit(other).netloc.rpartition("@")
    return parts._replace(netloc=user_info + at + parts.netloc).geturl()
