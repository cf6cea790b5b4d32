"""Where a Location leads, what rules it out, and which headers stay behind."""

from __future__ import annotations

import pytest

from wsproto_fast import Headers, InvalidURI, Response, SecurityError
from wsproto_fast._redirecting import redirected, same_origin, without_credentials
from wsproto_fast.uri import parse_uri


def answer(*locations: str, status: int = 302) -> Response:
    return Response(status, "Found", Headers([("Location", location) for location in locations]))


@pytest.mark.parametrize(
    ("uri", "location", "target"),
    [
        ("ws://h/a/b?c", "d", "ws://h/a/d"),
        ("ws://h/a/b?c", "/d", "ws://h/d"),
        ("ws://h/a/b?c", "../d?e", "ws://h/d?e"),
        ("ws://h/a/b?c", "?e", "ws://h/a/b?e"),
        ("ws://h/a/b?c", "", "ws://h/a/b?c"),
        ("ws://h/a", "ws://h/b", "ws://h/b"),
        ("ws://h/a", "ws://other:8/b", "ws://other:8/b"),
        ("ws://h/a", "//other/b", "ws://other/b"),
        ("wss://h/a", "//other/b", "wss://other/b"),
        ("ws://h/a", "wss://h/a", "wss://h/a"),
        ("ws://h/a", "http://h/b", "ws://h/b"),
        ("ws://h/a", "HTTPS://h/b", "wss://h/b"),
        ("wss://h/a", "https://h/b", "wss://h/b"),
        ("ws://h/a", "/b#fragment", "ws://h/b"),
        ("ws://[::1]:8/a", "b", "ws://[::1]:8/b"),
        ("ws://h/a", "/é", "ws://h/é"),
        # User information stays within its origin, and none comes from another.
        ("ws://u:p@h/a", "b", "ws://u:p@h/b"),
        ("ws://u:p@h/a", "ws://h/b", "ws://u:p@h/b"),
        ("ws://u:p@h/a", "http://H:80/b", "ws://u:p@H:80/b"),
        ("ws://u:p@h/a", "ws://x:y@h/b", "ws://x:y@h/b"),
        ("ws://u:p@h/a", "ws://other/b", "ws://other/b"),
        ("ws://u:p@h/a", "ws://h:81/b", "ws://h:81/b"),
        ("ws://u:p@h/a", "wss://h/b", "wss://h/b"),
        ("ws://u:p@h/a", "ws://x:y@other/b", "ws://other/b"),
    ],
)
def test_targets(uri: str, location: str, target: str) -> None:
    assert redirected(uri, answer(location)) == target
    parse_uri(target)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects(status: int) -> None:
    assert redirected("ws://h/", answer("/a", status=status)) == "ws://h/a"


@pytest.mark.parametrize(
    "response",
    [
        *(answer("/a", status=status) for status in (200, 201, 304, 305, 306, 309, 400, 503)),
        answer(),
        answer("/a", "/b"),  # which one?
    ],
    ids=repr,
)
def test_no_redirects(response: Response) -> None:
    assert redirected("ws://h/", response) is None


@pytest.mark.parametrize(
    "location",
    ["ftp://h/", "mailto:a@b", "wss://", "//[", "ws://h:port/", "ws://h:0/", "/a b", "/a\tb", "ws://u@h/"],
)
def test_broken_locations(location: str) -> None:
    with pytest.raises(InvalidURI):
        redirected("ws://h/", answer(location))


@pytest.mark.parametrize("location", ["ws://h/b", "http://h/b", "ws://h:443/b"])
def test_tls_is_not_given_up(location: str) -> None:
    with pytest.raises(SecurityError) as info:
        redirected("wss://h/a", answer(location))
    assert str(info.value) == f"cannot follow redirect to non-secure URI {location.replace('http', 'ws')}"


@pytest.mark.parametrize(
    ("given", "location", "text"),
    [
        ("sock", "/b", "cannot follow redirect to ws://h/b with a preexisting socket"),
        ("path", "ws://o/", "cannot follow cross-origin redirect to ws://o/ with a Unix socket"),
        ("host", "ws://o/", "cannot follow cross-origin redirect to ws://o/ with an explicit host or port"),
        ("port", "ws://h:81/", "cannot follow cross-origin redirect to ws://h:81/ with an explicit host or port"),
    ],
)
def test_redirects_away_from_where_our_user_said(given: str, location: str, text: str) -> None:
    with pytest.raises(ValueError) as info:
        redirected("ws://u:p@h/a", answer(location), [given])
    assert str(info.value) == text
    if given != "sock":
        assert redirected("ws://h/a", answer("/b"), [given]) == "ws://h/b"
    assert redirected("ws://h/a", answer(location), ["ssl", "family"]) is not None


@pytest.mark.parametrize(
    ("uri", "other", "same"),
    [
        ("ws://h/a", "ws://H:80/b?c", True),
        ("ws://h/", "ws://u:p@h/", True),
        ("ws://h/", "wss://h/", False),
        ("ws://h/", "wss://h:80/", False),
        ("ws://h/", "ws://h:81/", False),
        ("ws://h/", "ws://www.h/", False),
    ],
)
def test_origins(uri: str, other: str, same: bool) -> None:
    assert same_origin(parse_uri(uri), parse_uri(other)) is same


def test_credentials_are_left_behind() -> None:
    headers = [
        *(("authorization", "a"), ("COOKIE", "b"), ("Cookie", "c"), ("Proxy-Authorization", "d")),
        *(("X-Other", "e"), ("X-Other", "f")),
    ]
    assert list(without_credentials(headers).raw_items()) == [("X-Other", "e"), ("X-Other", "f")]
    assert len(headers) == 6
    assert without_credentials({"Cookie": "a"}) == Headers()
    assert without_credentials(None) == Headers()
