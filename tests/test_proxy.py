"""Proxies without I/O: addresses, the choice of one, and what is said to one that speaks HTTP."""

from __future__ import annotations

import pickle
import urllib.request
from typing import Any

import pytest

from wsproto_fast import (
    Headers,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    Limits,
    ProxyError,
    Response,
    SecurityError,
    WebSocketException,
    parse_uri,
)
from wsproto_fast.proxy import Proxy, ProxyHandshake, get_proxy, parse_proxy


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy:8080", Proxy("http", "proxy", 8080)),
        ("http://proxy/", Proxy("http", "proxy", 80)),
        ("HTTP://Proxy", Proxy("http", "proxy", 80)),
        ("https://proxy", Proxy("https", "proxy", 443)),
        ("socks4://proxy", Proxy("socks4", "proxy", 1080)),
        ("socks4a://proxy:1", Proxy("socks4a", "proxy", 1)),
        ("socks5://proxy", Proxy("socks5", "proxy", 1080)),
        ("socks5h://proxy", Proxy("socks5h", "proxy", 1080)),
        ("http://[::1]:8080", Proxy("http", "::1", 8080)),
        ("http://u:p@proxy", Proxy("http", "proxy", 80, "u", "p")),
        ("http://u%40:%3A%C3%A4@proxy", Proxy("http", "proxy", 80, "u@", ":ä")),
        ("http://u:@proxy", Proxy("http", "proxy", 80, "u", "")),
        ("http://pröxy:1", Proxy("http", "xn--prxy-6qa", 1)),
    ],
)
def test_addresses(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


def test_what_a_proxy_is() -> None:
    assert [parse_proxy(f"{scheme}://h").is_socks for scheme in ("http", "https", "socks4", "socks5h")] == [
        *(False, False, True, True),
    ]
    schemes = ("socks4", "socks4a", "socks5", "socks5h")
    assert [parse_proxy(f"{scheme}://h").resolves_names for scheme in schemes] == [False, True, False, True]
    assert parse_proxy("http://h").user_info is None
    assert parse_proxy("http://u:p@h").user_info == ("u", "p")
    assert Proxy("socks4", "h", 1, "u").user_info == ("u", "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "scheme  isn't supported"),
        ("proxy:8080", "scheme proxy isn't supported"),
        ("ftp://proxy", "scheme ftp isn't supported"),
        ("http://", "hostname isn't provided"),
        ("http://:8080", "hostname isn't provided"),
        ("http://proxy/path", "path is meaningless"),
        ("http://proxy?query", "query is meaningless"),
        ("http://proxy#fragment", "fragment is meaningless"),
        ("http://user@proxy", "username provided without password"),
        ("http://proxy:port", None),
        ("http://proxy:65536", None),
        ("http://%ff:p@proxy", None),
        ("http://[::1]proxy", None),
        ("http://ä..de", None),
        ("http://pro xy", "it contains a space or a control character"),
        ("http://proxy\r\n", "it contains a space or a control character"),
    ],
)
def test_no_addresses(text: str, why: str | None) -> None:
    with pytest.raises(InvalidProxy) as info:
        parse_proxy(text)
    assert info.value.proxy == text
    assert str(info.value) == f"{text} isn't a valid proxy: {info.value.msg}"
    assert why in (None, info.value.msg)


def test_exceptions() -> None:
    response = Response(407, "No", Headers())
    assert str(InvalidProxyStatus(response)) == "proxy rejected connection: HTTP 407"
    assert InvalidProxyStatus(response).response is response
    for exception in (InvalidProxy("a", "b"), InvalidProxyStatus(response), InvalidProxyMessage("a"), ProxyError("a")):
        copy = pickle.loads(pickle.dumps(exception))
        assert (type(copy), str(copy)) == (type(exception), str(exception))
    assert issubclass(InvalidProxy, WebSocketException)
    assert not issubclass(InvalidProxy, InvalidHandshake)
    assert issubclass(ProxyError, InvalidHandshake)
    assert issubclass(InvalidProxyMessage, ProxyError)
    assert issubclass(InvalidProxyStatus, ProxyError)


# -- which one ---------------------------------------------------------------------------------------------------------

EVERY = {
    "ws_proxy": "http://ws",
    "wss_proxy": "http://wss",
    "socks_proxy": "http://socks",
    "https_proxy": "http://https",
    "http_proxy": "http://http",
    "all_proxy": "http://all",
}


@pytest.mark.parametrize(
    ("uri", "environment", "proxy"),
    [
        ("ws://example.com/", {}, None),
        ("ws://example.com/", EVERY, "http://ws"),
        ("wss://example.com/", EVERY, "http://wss"),
        ("ws://example.com/", {"wss_proxy": "http://a"}, None),
        ("wss://example.com/", {"ws_proxy": "http://a", "http_proxy": "http://b"}, None),
        ("ws://example.com/", {"socks_proxy": "http://a:1", "https_proxy": "http://b"}, "socks5h://a:1"),
        ("wss://example.com/", {"socks_proxy": "socks4://a:1", "https_proxy": "http://b"}, "socks4://a:1"),
        ("ws://example.com/", {"http_proxy": "http://a", "https_proxy": "http://b"}, "http://b"),
        ("ws://example.com/", {"HTTP_PROXY": "http://a"}, "http://a"),
        ("ws://example.com/", {"http_proxy": ""}, None),
        ("wss://example.com/", {"https_proxy": "http://a", "no_proxy": "example.com"}, None),
        ("wss://a.example.com/", {"https_proxy": "http://a", "no_proxy": ".example.com,b"}, None),
        ("wss://example.com:8443/", {"https_proxy": "http://a", "no_proxy": "example.com:8443"}, None),
        ("wss://example.com/", {"https_proxy": "http://a", "no_proxy": "example.org"}, "http://a"),
        ("wss://example.com/", {"https_proxy": "http://a", "no_proxy": "*"}, None),
        ("ws://[::1]/", {"http_proxy": "http://a", "no_proxy": "::1"}, None),
    ],
)
def test_choice(uri: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # not what Windows or macOS are set to
    monkeypatch.setattr(urllib.request, "getproxies", urllib.request.getproxies_environment)
    monkeypatch.setattr(urllib.request, "proxy_bypass", urllib.request.proxy_bypass_environment)
    for name in (*EVERY, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert get_proxy(parse_uri(uri)) == proxy


def test_the_choice_is_that_of_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("websockets.proxy")
    if not hasattr(theirs, "get_proxy"):
        pytest.skip("an older websockets")
    from websockets.uri import parse_uri as their_parse_uri

    monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: host.startswith("direct"))
    names = ("ws", "wss", "socks", "https", "http", "all")
    for chosen in range(2 ** len(names)):
        proxies = {name: f"http://{name}" for i, name in enumerate(names) if chosen & 1 << i}
        monkeypatch.setattr(urllib.request, "getproxies", lambda proxies=proxies: proxies)
        for uri in ("ws://h/", "wss://h/", "ws://direct/"):
            assert get_proxy(parse_uri(uri)) == theirs.get_proxy(their_parse_uri(uri))


# -- CONNECT -----------------------------------------------------------------------------------------------------------


def handshake(host: str = "example.com", port: int = 80, proxy: str = "http://proxy", **kwargs: Any) -> ProxyHandshake:
    return ProxyHandshake(parse_proxy(proxy), host, port, **kwargs)


@pytest.mark.parametrize(
    ("made", "request_bytes"),
    [
        (handshake(), b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n"),
        (handshake("::1", 443), b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"),
        (
            handshake("h", proxy="http://u:p@proxy", user_agent_header="us"),
            b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nUser-Agent: us\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
        ),
    ],
)
def test_requests(made: ProxyHandshake, request_bytes: bytes) -> None:
    assert made.request == request_bytes


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": "a\r\nb"},
        {"host": "a b"},
        {"host": "ä"},
        {"user_agent_header": "a\nb"},
        {"proxy": "http://us%3Aer:p@proxy"},  # RFC 7617 2
    ],
)
def test_our_user_must_not_inject(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        handshake(**arguments)


def outcomes(wire: bytes, *, eof: bool, **kwargs: Any) -> list[ProxyHandshake]:
    """Fed whole, byte by byte, and cut in two everywhere."""
    cuts = [[wire], [wire[i : i + 1] for i in range(len(wire))], *([wire[:i], wire[i:]] for i in range(1, len(wire)))]
    made = []
    for chunks in cuts:
        made.append(handshake(**kwargs))
        for chunk in chunks:
            made[-1].receive_data(chunk)
        if eof:
            made[-1].receive_eof()
    return made


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 \r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        # RFC 9110 9.3.6: ignored
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n",
    ],
)
@pytest.mark.parametrize("eof", [False, True])
def test_accepted(wire: bytes, eof: bool) -> None:
    for made in outcomes(wire, eof=eof):
        assert made.done
        assert made.error is None
        assert made.response is not None
        assert made.response.body == b""


@pytest.mark.parametrize(
    ("wire", "eof", "status", "body"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\nhello", False, 407, b"hello"),
        (b"HTTP/1.1 403 No\r\n\r\nuntil the end", True, 403, b"until the end"),
        (b"HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", False, 502, b"abc"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n", False, 302, b""),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", False, 101, b""),
    ],
)
def test_refused(wire: bytes, eof: bool, status: int, body: bytes) -> None:
    for made in outcomes(wire, eof=eof):
        made.receive_data(b"more")
        assert made.done
        assert isinstance(made.error, InvalidProxyStatus)
        assert made.error.response is made.response
        assert (made.error.response.status_code, made.error.response.body) == (status, body)


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"", EOFError),
        (b"HTTP/1.1 200 OK\r\n", EOFError),
        (b"HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\nhell", EOFError),
        (b"\x05\xff\r\n\r\n", ValueError),  # a SOCKS proxy
        (b"SSH-2.0-OpenSSH\r\n", ValueError),
        (b"HTTP/2.0 200 OK\r\n\r\n", InvalidHandshake),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100 + b"\r\n\r\n", SecurityError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9 + b"\r\n", SecurityError),
        # Data of the server before our request.
        (b"HTTP/1.1 200 OK\r\n\r\nhello", ValueError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ValueError),
    ],
)
def test_broken(wire: bytes, cause: type[Exception]) -> None:
    for made in outcomes(wire, eof=True, limits=Limits(max_line_size=80, max_headers=8)):
        assert made.done
        assert type(made.error) is InvalidProxyMessage
        assert str(made.error) == "did not receive a valid HTTP response from proxy"
        assert isinstance(made.error.__cause__, cause)


def test_an_answer_in_the_making() -> None:
    made = handshake()
    made.receive_data(b"HTTP/1.1 200 OK\r\n")
    assert not made.done
    assert made.response is None
