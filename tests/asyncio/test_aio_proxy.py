"""Clients behind proxies: real ones that speak HTTP and SOCKS, ones that misbehave, and TLS around and inside."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aio import port_of, run, serving, tls_contexts, until, uri_of
from answering import answering, descriptors, found
from cases.handshakes import PROXY_ANSWERS, PROXY_SCHEMES, WRONG_PROXY_ARGUMENTS
from proxies import proxying

from wsproto_fast import InvalidMessage, InvalidProxy, InvalidProxyMessage, InvalidProxyStatus, ProxyError, exceptions
from wsproto_fast.asyncio import _compat, connect, unix_connect
from wsproto_fast.asyncio._proxying import _Tunnel
from wsproto_fast.proxy import ProxyHandshake, parse_proxy

needs_tls_in_tls = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no TLS in TLS")


async def exchange(uri: str, **kwargs: Any) -> None:
    async with connect(uri, **kwargs) as ws:
        for size in (0, 5, 100_000):
            await ws.send("x" * size)
            assert await ws.recv() == "x" * size


@contextlib.asynccontextmanager
async def misbehaving(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **kwargs: Any
) -> AsyncIterator[int]:
    """A proxy made of bytes; yields its port, and waits at its end until the client has gone."""
    open_connections = 0

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_connections
        open_connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        open_connections -= 1

    async with await asyncio.start_server(on_connection, "127.0.0.1", 0, **kwargs) as server:
        yield server.sockets[0].getsockname()[1]
        for _ in range(5):  # so that what is in the listener's queue has come to `on_connection`
            await asyncio.sleep(0)
        await until(lambda: not open_connections)


def answers(response: bytes, *, stay: bool = False) -> Any:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        if stay:
            await reader.read()

    return talk


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    await reader.read()


async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


# -- proxies that work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("authenticated", [False, True])
def test_proxies(scheme: str, secure: bool, authenticated: bool) -> None:
    if scheme == "https" and secure and sys.version_info < (3, 11):
        pytest.skip("asyncio has no TLS in TLS")

    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        proxy_server_tls, proxy_client_tls = tls_contexts()  # of another authority
        kwargs: dict[str, Any] = {"ssl": client_tls} if secure else {}
        if scheme == "https":
            kwargs["proxy_ssl"] = proxy_client_tls
        credentials = {"username": "us@er", "password": "pass"} if authenticated else {}
        async with (
            serving(ssl=server_tls if secure else None) as server,
            proxying(scheme, tls=proxy_server_tls, **credentials) as proxy,
        ):
            uri = f"ws{'s' * secure}://localhost:{port_of(server)}/"
            await exchange(uri, proxy=proxy.uri("us%40er:pass@" if authenticated else ""), **kwargs)
            host = "127.0.0.1" if scheme in ("socks4", "socks5") else "localhost"
            assert proxy.asked == [(host, port_of(server))]

    run(main())


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5"])
def test_proxies_that_are_not_given_credentials(scheme: str) -> None:
    async def main() -> None:
        async with serving() as server, proxying(scheme, username="user", password="pass") as proxy:
            for user_info in ("", "other:pass@"):
                with pytest.raises(ProxyError) as info:
                    await connect(uri_of(server), proxy=proxy.uri(user_info))
                if scheme == "http":
                    assert isinstance(info.value, InvalidProxyStatus)
                    assert info.value.response.status_code == 401
                else:
                    assert str(info.value) == "failed to connect to SOCKS proxy"
                    assert info.value.__cause__ is not None

    run(main())


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_servers_that_the_proxy_does_not_reach(scheme: str) -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        kwargs = {"proxy_ssl": client_tls} if scheme == "https" else {}
        async with proxying(scheme, tls=server_tls) as proxy:
            with pytest.raises(ProxyError) as info:
                await connect("ws://localhost:1/", proxy=proxy.uri(), **kwargs)
            assert isinstance(info.value, InvalidProxyStatus) is scheme.startswith("http")

    run(main())


def test_the_systems_own_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def main() -> None:
        async with serving(ssl=server_tls) as server, serving() as plain:
            async with proxying("http") as proxy:
                await exchange(f"wss://localhost:{port_of(server)}/", proxy=proxy.uri())
            async with proxying("https", tls=server_tls) as proxy:
                await exchange(uri_of(plain), proxy=proxy.uri())

    run(main())


def test_names_of_tls() -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        async with serving(ssl=server_tls) as server, serving() as plain:
            async with proxying("http") as proxy:
                uri = f"wss://127.0.0.2:{port_of(server)}/"
                kwargs = {"proxy": proxy.uri(), "ssl": client_tls}
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(uri, host="127.0.0.1", **kwargs)
                await exchange(uri, host="127.0.0.1", server_hostname="localhost", **kwargs)
                assert proxy.asked == [("127.0.0.1", port_of(server))] * 2
            async with proxying("socks5h") as proxy:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(uri, proxy=proxy.uri(), host="127.0.0.1", ssl=client_tls)
            async with proxying("https", tls=server_tls) as proxy:
                address = proxy.uri().replace("localhost", "127.0.0.1")
                kwargs = {"proxy": address, "proxy_ssl": client_tls, "proxy_ssl_handshake_timeout": 10}
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(uri_of(plain), proxy_server_hostname="example.com", **kwargs)
                await exchange(uri_of(plain), proxy_server_hostname="localhost", local_addr=("127.0.0.1", 0), **kwargs)

    run(main())


def test_redirects_go_through_the_proxy() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            answering(lambda _: found(uri_of(server))) as first,
            proxying("http") as proxy,
        ):
            await exchange(first.uri(), proxy=proxy.uri())
            assert proxy.asked == [("localhost", first.port), ("127.0.0.1", port_of(server))]

    run(main())


# -- which one ---------------------------------------------------------------------------------------------------------


def test_proxies_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        for name in ("ws_proxy", "socks_proxy", "https_proxy", "http_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        async with serving() as server, proxying("http") as proxy:
            uri = uri_of(server)
            await exchange(uri)
            await exchange(uri, proxy_ssl=None, proxy_server_hostname="without a proxy there is no use for it")
            monkeypatch.setenv("ws_proxy", proxy.uri())
            await exchange(uri, proxy=None)
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            sock = writer.get_extra_info("socket").dup()
            writer.close()
            await exchange(uri, sock=sock)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            await exchange(uri)
            await exchange("ws://example.com/", host="127.0.0.1", port=port_of(server))
            monkeypatch.delenv("no_proxy")
            with pytest.raises(OSError):
                await unix_connect(tmp_path / "nothing")
            assert proxy.asked == []
            await exchange(uri)
            await exchange(uri, proxy=True)
            assert len(proxy.asked) == 2
            monkeypatch.setenv("ws_proxy", "ftp://proxy")
            with pytest.raises(InvalidProxy):
                await connect(uri)

    run(main())


@pytest.mark.parametrize(
    ("uri", "kwargs", "text"),
    [
        *WRONG_PROXY_ARGUMENTS,
        ("ws://a/", {"proxy": "https://p", "proxy_ssl": None}, "proxy_ssl=None is incompatible with an https:// proxy"),
        (
            "ws://a/",
            {"proxy": "https://p", "proxy_ssl": False},
            "proxy_ssl=False is .* with an https:// proxy",
        ),
    ],
)
def test_illegal_arguments(uri: str, kwargs: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=text):
        connect(uri, **kwargs)
    rest = {name: value for name, value in kwargs.items() if name != "proxy"}
    monkeypatch.setenv("ws_proxy", kwargs["proxy"])
    monkeypatch.delenv("no_proxy", raising=False)

    async def main() -> None:
        with pytest.raises(ValueError, match=text):
            await connect(uri, **rest)

    run(main())


def test_tls_in_tls_where_asyncio_has_it_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "HAS_TLS_IN_TLS", False)
    connect("ws://localhost/", proxy="https://proxy")
    with pytest.raises(ValueError, match=r"a wss:// URI is incompatible with an https:// proxy before Python 3\.11"):
        connect("wss://localhost/", proxy="https://proxy")


def test_without_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)

    async def main() -> None:
        with pytest.raises(ImportError) as info:
            await connect("ws://localhost/", proxy="socks5://localhost:1")
        assert "requires python-socks" in str(info.value)
        assert "pip install wsproto_fast[proxy]" in str(info.value)

    run(main())


def test_what_an_http_proxy_is_told() -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n")

    async def main() -> None:
        async with misbehaving(talk) as port:
            for user_agent in ("us", None):
                with pytest.raises(InvalidProxyStatus):
                    await connect(
                        "ws://example.com/",
                        proxy=f"http://u:p@127.0.0.1:{port}",
                        user_agent_header=user_agent,
                        additional_headers={"Authorization": "secret"},
                    )

    run(main())
    head = b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n"
    assert heads == [
        head + agent + b"Proxy-Authorization: Basic dTpw\r\n\r\n" for agent in (b"User-Agent: us\r\n", b"")
    ]


# -- proxies that do not work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("response", "stays", "error"), PROXY_ANSWERS)
@pytest.mark.parametrize("secure", [False, True])
def test_answers_of_http_proxies(response: bytes | None, stays: bool, error: str, secure: bool) -> None:
    talk = leave if response is None else answers(response, stay=stays)
    errors = (InvalidMessage, OSError) if error == "lost" else getattr(exceptions, error)

    async def main() -> None:
        before = descriptors()
        async with misbehaving(talk) as port:
            with pytest.raises(errors) as info:
                await connect(f"ws{'s' * secure}://localhost/", proxy=f"http://localhost:{port}")
            if talk is leave:
                assert isinstance(info.value.__cause__, EOFError)
        await until(lambda: descriptors() <= before)

    run(main())


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
@pytest.mark.parametrize("talk", [leave, answers(b"HTTP/1.1 400 Bad Request\r\n\r\n")])
def test_answers_of_socks_proxies(scheme: str, talk: Any) -> None:
    async def main() -> None:
        async def any_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            if talk is not leave:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with misbehaving(any_request) as port:
            with pytest.raises((ProxyError, OSError)):
                await connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:{port}")

    run(main())


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_no_proxy_there(scheme: str) -> None:
    async def main() -> None:
        with pytest.raises(OSError) as caught:
            await connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:1")
        assert type(caught.value) is ConnectionRefusedError

    run(main())


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_proxies_that_hang(scheme: str) -> None:
    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        kwargs: dict[str, Any] = {"proxy_ssl": client_tls} if scheme == "https" else {}
        before = descriptors()
        for tls in {None, server_tls if scheme == "https" else None}:
            async with misbehaving(hang, ssl=tls) as port:
                kwargs["proxy"] = f"{scheme}://localhost:{port}"
                with pytest.raises(TimeoutError) as info:
                    await connect("ws://127.0.0.1/", open_timeout=0.1, **kwargs)
                assert str(info.value) == "timed out during opening handshake"
                task = asyncio.ensure_future(connect("ws://127.0.0.1/", **kwargs)._connect())
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await until(lambda: descriptors() <= before)
        assert len(asyncio.all_tasks()) == 1

    run(main())


@pytest.mark.parametrize("scheme", [*PROXY_SCHEMES[:2], "socks5h"])
@pytest.mark.parametrize("secure", [False, True])
def test_cancellation_at_any_time(scheme: str, secure: bool) -> None:
    if scheme == "https" and secure and sys.version_info < (3, 11):
        pytest.skip("asyncio has no TLS in TLS")

    async def main() -> None:
        server_tls, client_tls = tls_contexts()
        kwargs: dict[str, Any] = {"ssl": client_tls} if secure else {}
        if scheme == "https":
            kwargs["proxy_ssl"] = client_tls
        before = descriptors()
        async with answering(tls=server_tls if secure else None) as server, proxying(scheme, tls=server_tls) as proxy:
            count = descriptors()
            connected, turns = False, 0
            while not connected:
                task = asyncio.ensure_future(connect(server.uri(), proxy=proxy.uri(), **kwargs)._connect())
                for _ in range(turns):
                    await asyncio.sleep(0)
                turns += 1 + turns // 8
                if task.done():
                    connected = True
                    await (await task).close()
                else:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
            await until(lambda: not server.open and not proxy.open)
            await until(lambda: descriptors() == count)
        await until(lambda: descriptors() <= before)

    run(main())


def test_servers_that_are_not_trusted_or_go_behind_a_proxy() -> None:
    async def main() -> None:
        server_tls, _ = tls_contexts()
        _, client_tls = tls_contexts()
        before = descriptors()
        for scheme in ("http", "socks5"):
            async with serving(ssl=server_tls) as server, proxying(scheme) as proxy:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(f"wss://localhost:{port_of(server)}/", proxy=proxy.uri(), ssl=client_tls)
                with pytest.raises(ValueError, match="ssl_handshake_timeout"):  # found by asyncio
                    await connect(f"wss://localhost:{port_of(server)}/", proxy=proxy.uri(), ssl_handshake_timeout=-1)
            async with answering(lambda _: None) as ending, proxying(scheme) as proxy:
                with pytest.raises(InvalidMessage):
                    await connect(ending.uri(), proxy=proxy.uri())
        await until(lambda: descriptors() <= before)

    run(main())


def test_what_goes_wrong_between_tls_and_the_handshake() -> None:
    """Events of one turn of the loop, which no peer can be made to hit."""

    def tunnel() -> _Tunnel:
        made = _Tunnel(ProxyHandshake(parse_proxy("http://proxy"), "localhost", 443))
        made.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
        assert made.answered.done()
        made.check()
        return made

    async def main() -> None:
        early = tunnel()
        early.data_received(b"hello")
        with pytest.raises(InvalidProxyMessage):
            early.check()
        ended = tunnel()
        ended.eof_received()
        ended.check()  # the end of the transport follows
        cause = OSError()
        ended.connection_lost(cause)
        with pytest.raises(ConnectionResetError) as info:
            ended.check()
        assert info.value.__cause__ is cause

    run(main())
