"""Basic authentication: who gets in, what others are told, and what a program may give."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections.abc import Callable
from typing import Any

import pytest
from aio import REQUEST, port_of, raw, run, serving, uri_of
from cases.handshakes import CHALLENGE, CREDENTIALS, WRONG_CREDENTIALS, basic

from wsproto_fast._headers import parse_authorization_basic
from wsproto_fast.asyncio import ServerConnection, basic_auth, connect
from wsproto_fast.asyncio import server as server_module
from wsproto_fast.exceptions import InvalidHeader, InvalidStatus


async def greet(ws: ServerConnection) -> None:
    await ws.send(ws.username)


def outcome(process_request: Any, headers: bytes) -> tuple[str, str | None, str]:
    """Status, challenge and body that answer a request with these headers."""

    async def main() -> tuple[str, str | None, str]:
        async with serving(greet, process_request=process_request) as server, raw(server) as (reader, writer):
            writer.write(REQUEST + headers + b"\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = head.split(" ")[1]
            if status == "101":
                frame = await reader.readexactly((await reader.readexactly(2))[1])
                return status, None, frame.decode()
            [challenge] = [line for line in head.split("\r\n") if line.startswith("WWW-Authenticate: ")]
            return status, challenge.partition(": ")[2], (await reader.read()).decode()

    return run(main())


@pytest.mark.parametrize(("headers", "refusal"), CREDENTIALS)
def test_credentials_of_a_client(headers: bytes, refusal: str | None) -> None:
    expected = ("101", None, "hello") if refusal is None else ("401", CHALLENGE, refusal)
    assert outcome(basic_auth("dev", ("hello", "iloveyou")), headers) == expected


def test_names_and_passwords_of_any_kind() -> None:
    pairs = {"grüße": "schön", "a": "with:colon", "empty": "", "": "nameless", "bytes": "\udcff"}
    for process_request in (basic_auth(credentials=pairs.items()), basic_auth(credentials=iter(list(pairs.items())))):
        for username, password in pairs.items():
            credentials = base64.b64encode(f"{username}:{password}".encode(errors="surrogateescape"))
            headers = b"Authorization: Basic " + credentials + b"\r\n"
            assert outcome(process_request, headers) == ("101", None, username)
            assert outcome(process_request, basic(f"{username}:other"))[0] == "401"
    assert outcome(basic_auth(credentials=["ab", "cd"]), basic("ab:cd"))[0] == "101"  # a list is as good as a tuple
    assert outcome(basic_auth(credentials=[]), basic("ab:cd"))[0] == "401"
    assert outcome(basic_auth(credentials=[("a", "old"), ("a", "new")]), basic("a:old"))[0] == "401"


def check_sync(username: str, password: str) -> bool:
    return (username, password) == ("hello", "iloveyou")


async def check_async(username: str, password: str) -> bool:
    await asyncio.sleep(0)
    return check_sync(username, password)


@pytest.mark.parametrize("check", [check_sync, check_async])
def test_check_credentials(check: Callable[[str, str], Any]) -> None:
    process_request = basic_auth(realm="dev", check_credentials=check)
    assert outcome(process_request, basic("hello:iloveyou")) == ("101", None, "hello")
    assert outcome(process_request, basic("hello:x")) == ("401", CHALLENGE, "Invalid credentials\n")


def test_check_credentials_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def check(username: str, password: str) -> bool:
        raise RuntimeError("database is down")

    async def main() -> None:
        async with serving(greet, process_request=basic_auth(check_credentials=check)) as server:
            with pytest.raises(InvalidStatus, match="500"):
                await connect(f"ws://a:b@127.0.0.1:{port_of(server)}/")

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


def test_our_client_logs_in() -> None:
    async def main() -> None:
        process_request = basic_auth("dev", credentials=[("hello", "iloveyou"), ("grüße", "schön")])
        async with serving(greet, process_request=process_request) as server:
            async with connect(f"ws://hello:iloveyou@127.0.0.1:{port_of(server)}/") as ws:
                assert await ws.recv() == "hello"
            async with connect(f"ws://gr%C3%BC%C3%9Fe:sch%C3%B6n@127.0.0.1:{port_of(server)}/") as ws:
                assert await ws.recv() == "grüße"
            with pytest.raises(InvalidStatus, match="401") as info:
                await connect(uri_of(server))
            assert info.value.response.headers["WWW-Authenticate"] == CHALLENGE

    run(main())


def test_connections_without_it_have_no_username() -> None:
    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            await ws.send(str(hasattr(ws, "username")))

        async with serving(handler) as server, connect(uri_of(server)) as ws:
            assert await ws.recv() == "False"

    run(main())


def test_the_time_of_a_comparison_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of equal length are compared by hmac, for unknown users too."""
    compared: list[tuple[int, int]] = []

    def compare_digest(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    process_request = basic_auth(credentials=("hello", "iloveyou"))
    for credentials in ("hello:iloveyou", "hello:i", "nobody:a much longer password"):
        outcome(process_request, basic(credentials))
    assert compared == [(32, 32)] * 3


@pytest.mark.parametrize("wrong", WRONG_CREDENTIALS)
def test_wrong_credentials_argument(wrong: Any) -> None:
    with pytest.raises(TypeError, match="invalid credentials argument"):
        basic_auth(credentials=wrong)


def test_passwords_stay_out_of_the_error() -> None:
    with pytest.raises(TypeError) as info:
        basic_auth(credentials=[("hello", "iloveyou"), "x"])  # type: ignore[list-item]
    assert "iloveyou" not in str(info.value)


def test_neither_or_both() -> None:
    for arguments in ({}, {"credentials": ("a", "b"), "check_credentials": check_sync}):
        with pytest.raises(ValueError, match="provide either credentials or check_credentials"):
            basic_auth("dev", **arguments)  # type: ignore[arg-type]


def test_realm() -> None:
    assert outcome(basic_auth('a "quoted" \\ realm', ("a", "b")), b"")[1] == (
        'Basic realm="a \\"quoted\\" \\\\ realm", charset="UTF-8"'
    )
    assert outcome(basic_auth(credentials=("a", "b")), b"")[1] == 'Basic realm="", charset="UTF-8"'
    for realm in ("a\r\nb", "a\0b", "\u20ac"):
        with pytest.raises(ValueError):
            basic_auth(realm, ("a", "b"))


def test_errors_do_not_show_credentials() -> None:
    """They may end in a log."""
    secret = base64.b64encode(b"secret").decode()
    for value in ("", "Basic", "Digest " + secret, "Basic " + secret, "Basic " + secret[:-1], f"\u20ac {secret}"):
        with pytest.raises(InvalidHeader) as info:
            parse_authorization_basic(value)
        assert secret[:-1] not in str(info.value)
    with pytest.raises(InvalidHeader):
        parse_authorization_basic("Basic \u20ac")  # cannot come from the wire, but from an embedder


def test_importable_as_programs_do() -> None:
    for name in ("basic_auth", "broadcast", "serve", "unix_serve", "Server", "ServerConnection"):
        assert hasattr(server_module, name)
        assert name in server_module.__all__
