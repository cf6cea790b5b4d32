"""Proxies: which one to use, what its address says, and the handshake with one that speaks HTTP.

Knows the settings of the system, URIs and CONNECT (RFC 9110 9.3.6); knows no sockets, TLS or SOCKS.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from ._headers import basic_authorization
from .exceptions import InvalidHandshake, InvalidProxy, InvalidProxyMessage, InvalidProxyStatus, ProxyError
from .http11 import Headers, Request, Response, ResponseParser
from .limits import Limits
from .uri import WebSocketURI, check_brackets

__all__ = ["Proxy", "ProxyHandshake", "check_proxy", "choose_proxy", "get_proxy", "parse_proxy"]

#: The port of each scheme, which is also the list of schemes. SOCKS: RFC 1928 3.
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_find_illegal = re.compile(r"[\x00-\x20\x7f]").search


@dataclass(frozen=True)
class Proxy:
    """The address of a proxy.

    ``scheme`` is "http", "https", "socks4", "socks4a", "socks5" or "socks5h"; ``host`` is in lower case and without the
    brackets of an IPv6 address; ``port`` is always set; ``username`` and ``password`` are decoded, and None together.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def resolves_names(self) -> bool:
        """Whether a SOCKS proxy is given the server's name, and not an address that we have looked up."""
        return self.scheme in ("socks4a", "socks5h")

    @property
    def user_info(self) -> tuple[str, str] | None:
        """User name and password, or None."""
        if self.username is None:
            return None
        return self.username, self.password or ""


def parse_proxy(proxy: str) -> Proxy:
    """Parse the address of a proxy. Raises InvalidProxy, and nothing else."""
    if _find_illegal(proxy):  # urlsplit() would remove some of them silently
        raise InvalidProxy(proxy, "it contains a space or a control character")
    try:
        return _parse_proxy(proxy)
    except InvalidProxy:
        raise
    except ValueError as exc:  # of urlsplit, its port, IDNA or unquote
        raise InvalidProxy(proxy, str(exc)) from exc


def _parse_proxy(proxy: str) -> Proxy:
    parts = urllib.parse.urlsplit(proxy)
    if parts.scheme not in _PORTS:
        raise InvalidProxy(proxy, f"scheme {parts.scheme} isn't supported")
    if not parts.hostname:
        raise InvalidProxy(proxy, "hostname isn't provided")
    if parts.path not in ("", "/"):
        raise InvalidProxy(proxy, "path is meaningless")
    if parts.query:
        raise InvalidProxy(proxy, "query is meaningless")
    if parts.fragment:
        raise InvalidProxy(proxy, "fragment is meaningless")
    check_brackets(parts.netloc)
    host = parts.hostname
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    username, password = parts.username, parts.password
    if username is not None:
        if password is None:
            raise InvalidProxy(proxy, "username provided without password")
        username = urllib.parse.unquote(username, errors="strict")
        password = urllib.parse.unquote(password, errors="strict")
    return Proxy(parts.scheme, host, parts.port or _PORTS[parts.scheme], username, password)


def get_proxy(uri: WebSocketURI) -> str | None:
    """The address of the proxy that the environment or the operating system asks for, if any.

    In this order: a proxy for the URI's own scheme (``wss_proxy``, ``ws_proxy``), one for SOCKS, for https, and for a
    ws:// URI for http (RFC 6455 4.1.3 prefers SOCKS, then the proxy for https). ``no_proxy`` is heeded.
    """
    import urllib.request  # slow to import, and only clients need it

    if urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        return None
    proxies = urllib.request.getproxies()
    for scheme in ("wss", "socks", "https") if uri.secure else ("ws", "socks", "https", "http"):
        proxy = proxies.get(scheme)
        if proxy is not None:
            # Settings of operating systems have no scheme, and getproxies() writes http:// before each.
            if scheme == "socks" and proxy.startswith("http://"):
                return "socks5h://" + proxy.removeprefix("http://")
            return proxy
    return None


def choose_proxy(proxy: Proxy | bool | None, address: WebSocketURI) -> Proxy | None:
    """The proxy to ``address``: the one given, or with True that of the environment or the operating system."""
    if not isinstance(proxy, bool):
        return proxy
    found = get_proxy(address)
    return None if found is None else parse_proxy(found)


def check_proxy(proxy: Proxy, secure: bool, ssl: object, has_tls_in_tls: bool = True) -> None:
    """Raise ValueError when a proxy does not fit ``proxy_ssl`` (``...``: it was not given) or the URI."""
    if proxy.scheme != "https":
        if ssl is not None and ssl is not ...:
            article = "a" if proxy.is_socks else "an"
            raise ValueError(f"proxy_ssl argument is incompatible with {article} {proxy.scheme}:// proxy")
    elif not ssl:
        raise ValueError(f"proxy_ssl={ssl} is incompatible with an https:// proxy")
    elif secure and not has_tls_in_tls:
        raise ValueError("a wss:// URI is incompatible with an https:// proxy before Python 3.11")


class _Parser(ResponseParser):
    """Answers to CONNECT."""

    def _frame_body(self, headers: Headers) -> None:
        if 200 <= self._status_code < 300:  # RFC 9110 9.3.6: what follows is the tunnel, whatever the headers say
            self._length = 0
        else:
            super()._frame_body(headers)


class ProxyHandshake:
    """Asks an HTTP proxy for a tunnel to ``host`` and ``port``.

    Send ``request``, feed ``receive_data`` until ``done``. Then the tunnel is open, unless ``error`` says why not:
    InvalidProxyStatus when the proxy refuses, InvalidProxyMessage when its answer makes no sense. Raises ValueError
    when anything given must not go on the wire.
    """

    def __init__(
        self,
        proxy: Proxy,
        host: str,
        port: int,
        *,
        user_agent_header: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"  # RFC 9112 3.2.3
        headers = Headers({"Host": target})
        if user_agent_header is not None:
            headers["User-Agent"] = user_agent_header
        if proxy.user_info is not None:
            headers["Proxy-Authorization"] = basic_authorization(*proxy.user_info)
        self.request = Request(target, headers, "CONNECT").serialize()
        self.error: ProxyError | None = None
        self.done = False
        #: The proxy's answer, once it is complete.
        self.response: Response | None = None
        self._parser = _Parser(limits)

    def receive_data(self, data: bytes) -> None:
        """Take what the transport received. Never raises for what the proxy did; see ``error``."""
        if not self.done:
            data = self._parse(data)
        if data and self.error is None:
            # The server must not speak before us. If it seems to, somebody disagrees on where the answer ends.
            self.error = _invalid_message(ValueError("data behind the answer"))

    def receive_eof(self) -> None:
        """The transport was closed by the proxy: the end of a body, or an error caused by EOFError."""
        if not self.done:
            self._parse(None)

    def _parse(self, data: bytes | None) -> bytes:
        """Returns what stands behind the answer. None is the end of the stream."""
        try:
            self.response = self._parser.feed_eof() if data is None else self._parser.feed(data)
        except InvalidHandshake as exc:
            self.error = _invalid_message(exc.__cause__ or exc)
            self.done = True
            return b""
        if self.response is None:
            return b""
        if not 200 <= self.response.status_code < 300:
            self.error = InvalidProxyStatus(self.response)
        self.done = True
        return self._parser.trailing_data


def _invalid_message(cause: BaseException) -> InvalidProxyMessage:
    error = InvalidProxyMessage("did not receive a valid HTTP response from proxy")
    error.__cause__ = cause
    return error
