"""URIs: what they parse to, and that nothing but InvalidURI comes out."""

from __future__ import annotations

import pytest

from wsproto_fast.exceptions import InvalidURI
from wsproto_fast.uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "parts", "resource_name", "authority"),
    [
        ("ws://localhost/", (False, "localhost", 80, "/", ""), "/", "localhost"),
        ("wss://localhost", (True, "localhost", 443, "", ""), "/", "localhost"),
        ("ws://example.com/path?query", (False, "example.com", 80, "/path", "query"), "/path?query", "example.com"),
        ("ws://example.com?a=b", (False, "example.com", 80, "", "a=b"), "/?a=b", "example.com"),
        ("WS://Example.COM/PATH", (False, "example.com", 80, "/PATH", ""), "/PATH", "example.com"),
        ("ws://localhost:443/", (False, "localhost", 443, "/", ""), "/", "localhost:443"),
        ("wss://localhost:80/", (True, "localhost", 80, "/", ""), "/", "localhost:80"),
        ("wss://localhost:443/", (True, "localhost", 443, "/", ""), "/", "localhost"),
        ("ws://localhost:/", (False, "localhost", 80, "/", ""), "/", "localhost"),  # RFC 3986 3.2.3: port may be empty
        ("ws://my_service:8000/", (False, "my_service", 8000, "/", ""), "/", "my_service:8000"),
        ("ws://127.0.0.1:8/", (False, "127.0.0.1", 8, "/", ""), "/", "127.0.0.1:8"),
        ("ws://[::1]/", (False, "::1", 80, "/", ""), "/", "[::1]"),
        ("wss://[2001:DB8::1]:8443/", (True, "2001:db8::1", 8443, "/", ""), "/", "[2001:db8::1]:8443"),
        ("ws://[fe80::1%25eth0]/", (False, "fe80::1%eth0", 80, "/", ""), "/", "[fe80::1]"),  # RFC 6874
        # An IRI becomes a URI; what is percent-encoded already stays as it is.
        ("wss://höst.de/π?ä=%20", (True, "xn--hst-sna.de", 443, "/%CF%80", "%C3%A4=%20"), "/%CF%80?%C3%A4=%20", None),
        ("ws://h/%C3%A4;a=b,c/@:!$&'()*+=~", (False, "h", 80, "/%C3%A4;a=b,c/@:!$&'()*+=~", ""), None, "h"),
        ("ws://h/#", (False, "h", 80, "/", ""), "/", "h"),
    ],
)
def test_parse(uri: str, parts: tuple[object, ...], resource_name: str | None, authority: str | None) -> None:
    parsed = parse_uri(uri)
    assert (parsed.secure, parsed.host, parsed.port, parsed.path, parsed.query) == parts
    assert parsed.user_info is None
    assert resource_name in (None, parsed.resource_name)
    assert authority in (None, parsed.authority)


@pytest.mark.parametrize(
    ("uri", "user_info"),
    [
        ("ws://hello:iloveyou@localhost/", ("hello", "iloveyou")),
        ("ws://us%40er:%C3%A4%3A@localhost/", ("us@er", "ä:")),
        ("ws://us@er:p@localhost/", ("us@er", "p")),
        ("ws://u:@localhost/", ("u", "")),
        ("ws://:@localhost/", ("", "")),
    ],
)
def test_user_info(uri: str, user_info: tuple[str, str]) -> None:
    parsed = parse_uri(uri)
    assert parsed.user_info == user_info
    assert (parsed.username, parsed.password) == user_info
    assert parsed.authority == "localhost"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "localhost",
        "http://localhost/",
        "ws:/localhost",
        "ws:localhost",
        "ws://",
        "ws:///path",
        "ws://:8080/",
        "ws://h/#fragment",
        "ws://user@h/",  # Basic authentication needs both
        "ws://us%3Aer:p@h/",  # RFC 7617 2
        "ws://%ff:p@h/",
        "ws://h:65536/",
        "ws://h:-1/",
        "ws://h:+1/",
        "ws://h:x/",
        "ws://h:0/",
        "ws://h:٣/",
        "ws://[::1/",
        "ws://::1]/",
        "ws://[::1]evil/",
        "ws://evil[::1]/",
        "ws://[::g]/",
        "ws://[]/",
        "ws://::1/",
        "ws://a:b:c/",
        'ws://a"b/',
        "ws://a<b/",
        "ws://a\\b/",
        "ws://ex℀mple.com/",  # NFKC makes a slash of it
        "ws://ä..de/",
        "ws://h/\ud800",
        "ws://\udc80/",
        *(f"ws://h{char}/" for char in "\r\n\t \x00\x7f"),
        *(f"ws://h/{char}" for char in "\r\n\t \x00\x7f"),
        *(f"ws://h/?{char}" for char in "\r\n\t \x00\x7f"),
        "\nws://h/",
        " ws://h/",
        "ws://h/\r\nHost: evil",
    ],
)
def test_invalid(uri: str) -> None:
    with pytest.raises(InvalidURI) as info:
        parse_uri(uri)
    assert info.value.uri == uri
    assert str(info.value) == f"{uri} isn't a valid URI: {info.value.msg}"
    assert "isn't a valid URI" not in info.value.msg


@pytest.mark.parametrize("host", ["", "a b", "a\r\nb", "a/b", "a@b", "a:b", "::1]", "hö"])
def test_illegal_host_of_our_user(host: str) -> None:
    with pytest.raises(ValueError):
        _ = WebSocketURI(False, host, 80, "/", "").authority


def test_user_name_alone() -> None:
    assert WebSocketURI(False, "h", 80, "/", "", "user").user_info == ("user", "")


def test_value() -> None:
    assert parse_uri("ws://h/") == WebSocketURI(False, "h", 80, "/", "")
    assert hash(parse_uri("ws://h/")) == hash(WebSocketURI(False, "h", 80, "/", ""))
