"""Clients in threads: redirects, proxies, reconnection, TLS; what failed attempts leave behind, which is nothing."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets.sync.server
from cases.handshakes import (
    BROKEN_LOCATIONS,
    NO_REDIRECTS,
    PROXY_ANSWERS,
    PROXY_SCHEMES,
    REDIRECTS,
    WRONG_PROXY_ARGUMENTS,
    found,
)
from helpers import SOON
from proxies import Proxying, proxying
from thr import (
    LIMIT,
    Peer,
    answer,
    answering,
    descriptors,
    echo,
    elsewhere,
    pair,
    port_of,
    running,
    serving,
    talking,
    thread,
    tls_contexts,
    until,
    uri_of,
)

from wsproto_fast import (
    DeflateConfig,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    SecurityError,
    State,
    exceptions,
)
from wsproto_fast.exceptions import ConnectionClosed, ConnectionClosedError
from wsproto_fast.threading import ClientConnection, ServerConnection, connect, reconnect, serve, unix_connect


@pytest.fixture(autouse=True)
def _no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ws_proxy", "wss_proxy", "socks_proxy", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with pair():  # the poller has its own
        pass
    before = descriptors()
    yield
    until(lambda: descriptors() <= before)


def by_path(answers: dict[str, Callable[[bytes], bytes] | bytes]) -> Callable[[bytes], bytes]:
    def respond(request: bytes) -> bytes:
        made = answers[request.split(b" ")[1].decode()]
        return made if isinstance(made, bytes) else made(request)

    return respond


def fail(request: bytes) -> bytes:
    return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def exchange(uri: str, **kwargs: Any) -> None:
    with connect(uri, **kwargs) as connection:
        for size in (0, 5, 100_000):
            connection.send("x" * size)
            assert connection.recv(LIMIT) == "x" * size


# -- redirects ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REDIRECTS)
def test_redirects_of_websockets(status: int) -> None:
    def process_request(connection: Any, request: Any) -> Any:
        if request.path == "/old":
            response = connection.respond(status, "")
            response.headers["Location"] = "/new?query"
            return response
        return None

    def handler(connection: Any) -> None:
        connection.send(connection.request.path)
        connection.wait_closed()

    with websockets.sync.server.serve(handler, "127.0.0.1", 0, process_request=process_request) as server:
        with thread(server.serve_forever):
            with connect(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/old") as connection:
                assert connection.recv() == "/new?query"
            server.shutdown()


def test_credentials_stay_within_the_origin() -> None:
    headers = {"Cookie": "a", "Proxy-Authorization": "b", "X-Other": "c"}
    with answering() as other:
        routes = {
            "/same": found("/here"),
            "/absolute": lambda _: found(one.uri("/here")),
            "/other": found(other.uri("/there").replace("ws:", "http:")),
            "/here": answer,
        }
        with answering(by_path(routes)) as one:
            for path in ("/same", "/absolute"):
                uri = one.uri(path).replace("ws://", "ws://user:pass@")
                with connect(uri, additional_headers=headers):
                    assert one.headers().items() >= {**headers, "Authorization": "Basic dXNlcjpwYXNz"}.items()
            connecting = reconnect(one.uri("/other").replace("ws://", "ws://u:p@"), additional_headers=headers)
            for _ in range(2):  # each attempt begins where our user said, and with all headers
                with connecting as connection:
                    assert connecting.uri == other.uri("/there")
                    assert connection.request is not None
                    assert connection.request.headers["Host"] == f"localhost:{other.port}"
                    assert one.headers().keys() >= {"Authorization", *headers}
                    assert other.headers().keys() & {"Authorization", *headers} == {"X-Other"}


def test_the_number_of_redirects_is_limited() -> None:
    left = 10

    def respond(request: bytes) -> bytes:
        nonlocal left
        left -= 1
        return answer(request) if left < 0 else found("/")

    with answering(respond) as server:
        with connect(server.uri()):
            assert len(server.requests) == 11
        left = 11
        with pytest.raises(SecurityError) as info:
            connect(server.uri())
        assert str(info.value) == "more than 10 redirects"
        assert len(server.requests) == 22


@pytest.mark.parametrize("location", BROKEN_LOCATIONS)
def test_broken_locations(location: str) -> None:
    with answering(lambda _: found(location)) as server, pytest.raises(InvalidURI) as info:
        connect(server.uri())
    assert isinstance(info.value.__cause__, InvalidStatus)


def test_redirects_that_nothing_can_follow() -> None:
    with answering() as other, answering(lambda _: found(other.uri())) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(ValueError, match="cannot follow redirect to .* with a preexisting socket"):
            connect(server.uri(), sock=sock)
        with pytest.raises(ValueError, match="cannot follow cross-origin redirect to .* explicit host or port"):
            connect(server.uri(), address=("127.0.0.1", server.port))
        assert other.requests == []
        with connect(server.uri()):
            assert len(other.requests) == 1
    for response in NO_REDIRECTS:
        with answering(lambda _, response=response: response + b"\0" * 2**16) as server:
            with pytest.raises(InvalidStatus):
                connect(server.uri())
            assert len(server.requests) == 1


def test_redirects_between_schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with answering(tls=server_tls) as secure, answering(lambda _: found(secure.uri())) as plain:
        with connect(plain.uri()):
            assert len(secure.requests) == 1
        secure.respond = lambda _: found(plain.uri())
        for uri in (secure.uri(), plain.uri()):
            with pytest.raises(SecurityError, match="cannot follow redirect to non-secure URI"):
                connect(uri)


def test_the_deadline_is_one_for_all_redirects() -> None:
    with answering(lambda _: b"") as silent, answering(lambda _: found(silent.uri())) as server:
        with pytest.raises(TimeoutError, match="timed out during opening handshake"):
            connect(server.uri(), open_timeout=0.1)
        assert len(silent.requests) == 1


def test_a_rule_of_our_users_own() -> None:
    class Stubborn(reconnect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc if self.uri.endswith("/stay") else super().process_redirect(exc)

    with answering(by_path({"/": found("/stay"), "/stay": found("/")})) as server:
        with pytest.raises(InvalidStatus):
            Stubborn(server.uri()).connect()
        assert len(server.requests) == 2


# -- connecting again --------------------------------------------------------------------------------------------------


def instantly() -> Iterator[float]:
    return itertools.repeat(0.0)


class NoMore(Exception):
    pass


def test_a_server_that_goes_away_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast.client")
    with contextlib.ExitStack() as servers:
        first = contextlib.ExitStack()
        server = first.enter_context(serving())
        port = port_of(server)
        attempts: list[Exception] = []

        def process_exception(exc: Exception) -> None:
            attempts.append(exc)
            assert isinstance(exc, OSError)
            if len(attempts) == 2:
                servers.enter_context(running(serve(echo, "127.0.0.1", port)))

        seen: list[ClientConnection] = []
        for connection in reconnect(uri_of(server), reconnect_delays=instantly, process_exception=process_exception):
            if seen:
                assert seen[-1].close_code in (1000, 1001)
            seen.append(connection)
            connection.send("hello")
            assert connection.recv() == "hello"
            if len(seen) == 2:
                first.close()
                with pytest.raises(ConnectionClosed):
                    connection.recv()
            if len(seen) == 4:
                break
        assert len(attempts) == 2
    records = [record for record in caplog.records if "connect failed" in record.message]
    assert len(records) == 2
    for record in records:
        assert record.levelno == logging.INFO
        assert record.exc_info is None
        assert record.message.startswith("connect failed; reconnecting in 0.0 seconds: ")
        assert "\n" not in record.message
        assert "Error: " in record.message


def test_each_pass_closes_the_connection_before() -> None:
    ends: list[tuple[int | None, int]] = []

    def handler(connection: ServerConnection) -> None:
        try:
            connection.recv()
        except ConnectionClosed as exc:
            ends.append((connection.close_code, exc.code))

    with serving(handler) as server:
        iterating: Any = iter(connect(uri_of(server), legacy=False))
        first = next(iterating)
        assert first.state is State.OPEN
        second = next(iterating)
        assert first.state is State.CLOSED
        assert second.state is State.OPEN
        iterating.close()  # what `break` comes to
        assert second.state is State.CLOSED
        until(lambda: len(ends) == 2)
        assert ends == [(1000, 1000), (1000, 1000)]


def test_success_resets_the_delays() -> None:
    made: list[int] = []

    def delays() -> Iterator[float]:
        made.append(0)
        while True:
            made[-1] += 1
            yield 0.0

    plan = iter([fail, fail, answer, fail, fail, fail, answer, answer])
    with answering(lambda request: next(plan)(request)) as server:
        for passes, _ in enumerate(reconnect(server.uri(), reconnect_delays=delays)):
            if passes == 2:
                break
    assert made == [2, 3]


def test_fatal_errors_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast.client")
    with answering(lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as server:
        with pytest.raises(InvalidStatus) as info:
            for _ in reconnect(server.uri()):
                pytest.fail("not reached")
        assert info.value.response.status_code == 404
        assert info.value.__cause__ is None
        assert len(server.requests) == 1
    assert caplog.records == []


@pytest.mark.parametrize("how", ["return", "raise", "same"])
def test_process_exception(how: str) -> None:
    seen: list[Exception] = []

    def process_exception(exc: Exception) -> Exception | None:
        seen.append(exc)
        if len(seen) < 3:
            return None
        if how == "raise":
            raise NoMore
        return NoMore() if how == "return" else exc

    with answering(lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as server:
        with pytest.raises(InvalidStatus if how == "same" else NoMore) as info:
            for _ in reconnect(server.uri(), process_exception=process_exception, reconnect_delays=instantly):
                pytest.fail("not reached")
        assert len(seen) == len(server.requests) == 3
        if how == "same":
            assert info.value is seen[-1]
        else:
            assert info.value.__cause__ is seen[-1]


def test_delays_that_come_to_an_end() -> None:
    with answering(fail) as server:
        with pytest.raises(InvalidStatus):
            for _ in reconnect(server.uri(), reconnect_delays=lambda: [0.0, 0.0]):
                pytest.fail("not reached")
        assert len(server.requests) == 3


def test_headers_of_later_attempts() -> None:
    with answering() as server:
        token = {"X-Token": "0"}
        iterating: Any = iter(reconnect(server.uri(), additional_headers=token))
        for i in range(3):
            token["X-Token"] = str(i)
            next(iterating)
            assert server.headers()["X-Token"] == str(i)
        iterating.close()


def test_a_body_that_raises_closes_with_1011() -> None:
    codes: list[int | None] = []

    def handler(connection: ServerConnection) -> None:
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        codes.append(connection.close_code)

    with serving(handler) as server:
        for opening in (connect(uri_of(server)), reconnect(uri_of(server))):
            with pytest.raises(NoMore), opening:
                raise NoMore
        until(lambda: len(codes) == 2)
    assert codes == [1011, 1011]


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_a_connection_of_our_users_own() -> None:
    class Mine(ClientConnection):
        def shout(self, text: str) -> None:
            self.send(text.upper())

    made: list[Any] = []

    def factory(*arguments: Any) -> ClientConnection:
        made.append(arguments)
        return Mine(*arguments)

    with serving() as server:
        for create_connection in (Mine, factory):
            with connect(uri_of(server), create_connection=create_connection) as connection:
                assert type(connection) is Mine
                connection.shout("hello")
                assert connection.recv() == "HELLO"
        settings, handshake, logger = made[0]
        assert settings is connection._settings
        assert handshake.request is connection.request
        assert logger is logging.getLogger("wsproto_fast.client")
        with pytest.raises(ZeroDivisionError):
            connect(uri_of(server), create_connection=lambda *_: 1 / 0)  # type: ignore[arg-type, return-value]


def test_loggers() -> None:
    adapter = logging.LoggerAdapter(logging.getLogger("mine"), {"a": 1})
    with pair(logger=adapter) as connection:
        assert connection.logger.logger is adapter
    with pair() as connection:
        assert connection.logger.logger.name == "wsproto_fast.client"


def test_arguments_of_ours() -> None:
    class Codec:
        dumps = staticmethod(lambda obj: "<" + json.dumps(obj) + ">")
        loads = staticmethod(lambda data: json.loads(data[1:-1]))

    class Observer:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: told.append(name)

    told: list[str] = []
    with pair(json=Codec, observer=Observer()) as connection:
        connection.send_json([1])
        assert connection.recv() == "<[1]>"
    assert {"connection_opened", "message_sent", "message_received", "connection_closed"} <= set(told)
    beats: list[Any] = []
    with pair(
        lambda connection: beats.append(connection.recv()),
        ping_interval=0.01,
        ping_payload=lambda: "beat",
        max_queue_bytes=5,
    ) as connection:
        until(lambda: beats == ["beat"])
        assert connection._settings.queue_bytes == 5


def test_extensions() -> None:
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

    with answering() as server:
        for extensions, offer in (
            ([ClientPerMessageDeflateFactory(client_no_context_takeover=True)], "client_no_context_takeover"),
            ([DeflateConfig(server_max_window_bits=10)], "server_max_window_bits=10"),
        ):
            with connect(server.uri(), extensions=extensions):
                assert offer in server.headers()["Sec-WebSocket-Extensions"]


def test_arguments_for_the_socket() -> None:
    with serving() as server:
        with connect(uri_of(server), source_address=("127.0.0.1", 0)) as connection:
            assert connection.local_address[0] == "127.0.0.1"
            assert connection.remote_address == ("127.0.0.1", port_of(server))
            assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with pytest.raises(TypeError):
            connect(uri_of(server), nonsense=1)


def test_unix_sockets(tmp_path: Path) -> None:
    server_tls, client_tls = tls_contexts()
    for tls, path in ((None, tmp_path / "plain"), (server_tls, str(tmp_path / "tls"))):
        with websockets.sync.server.unix_serve(echo, str(path), ssl=tls) as server, thread(server.serve_forever):
            kwargs: dict[str, Any] = {} if tls is None else {"ssl": client_tls}
            with unix_connect(path, **kwargs) as connection:
                connection.send("a")
                assert connection.recv() == "a"
                assert connection.request is not None
                assert connection.request.headers["Host"] == "localhost"
            with unix_connect(path, f"ws{'s' * bool(tls)}://localhost/path", **kwargs) as connection:
                assert connection.request is not None
                assert connection.request.path == "/path"
            if tls is None:
                with unix_connect(path, "ws://example.com/") as connection:
                    assert connection.request is not None
                    assert connection.request.headers["Host"] == "example.com"
            server.shutdown()
    with pytest.raises(OSError):
        unix_connect(tmp_path / "nothing")


def test_redirects_of_unix_sockets(tmp_path: Path) -> None:
    def process_request(connection: Any, request: Any) -> Any:
        where = {"/": "/here", "/other": "ws://other/"}.get(request.path)
        if where is None:
            return None
        response = connection.respond(302, "")
        response.headers["Location"] = where
        return response

    path = tmp_path / "socket"
    with websockets.sync.server.unix_serve(echo, str(path), process_request=process_request) as server:
        with thread(server.serve_forever):
            with unix_connect(path) as connection:
                assert connection.request is not None
                assert (connection.request.path, connection.request.headers["Host"]) == ("/here", "localhost")
            with pytest.raises(ValueError, match="cannot follow cross-origin redirect to ws://other/ with a Unix sock"):
                unix_connect(path, "ws://localhost/other")
            server.shutdown()


def test_names_of_tls() -> None:
    server_tls, client_tls = tls_contexts()
    with serving(ssl=server_tls) as server:
        uri = f"wss://example.com:{port_of(server)}/"
        address = ("127.0.0.1", port_of(server))
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(uri, address=address, ssl=client_tls)
        with connect(uri, address=address, ssl=client_tls, server_hostname="localhost") as connection:
            assert connection.request is not None
            assert connection.request.headers["Host"] == f"example.com:{port_of(server)}"
        with connect("wss://localhost/", sock=socket.create_connection(address), ssl=client_tls) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(f"wss://localhost:{port_of(server)}/")


# -- failures ----------------------------------------------------------------------------------------------------------


def test_every_failure_returns_its_descriptors() -> None:
    server_tls, _ = tls_contexts()
    before = descriptors()
    with (
        answering(lambda _: None) as ending,
        answering(lambda _: b"nonsense\r\n\r\n") as nonsense,
        answering(lambda _: b"") as silent,
        answering(fail) as refusing,
        answering(tls=server_tls) as secure,
    ):
        count = descriptors()
        for uri, error in (
            (ending.uri(), InvalidMessage),
            (nonsense.uri(), InvalidMessage),
            (silent.uri(), TimeoutError),
            (refusing.uri(), InvalidStatus),
            (secure.uri(), ssl.SSLCertVerificationError),
            (secure.uri().replace("wss", "ws"), InvalidMessage),
            ("ws://localhost:1/", OSError),
            ("ws://" + "a" * 70 + "/", ValueError),
        ):
            with pytest.raises(error):
                connect(uri, open_timeout=0.2 if uri == silent.uri() else 10)
        until(lambda: descriptors() == count)
    assert descriptors() == before


def test_the_server_ends_before_anything() -> None:
    with answering(lambda _: None) as server:
        with pytest.raises(InvalidMessage) as info:
            connect(server.uri())
        assert isinstance(info.value.__cause__, EOFError)
        plan = iter([lambda _: None, lambda _: None, answer])
        server.respond = lambda request: next(plan)(request)
        iterating: Any = iter(reconnect(server.uri(), reconnect_delays=instantly))
        next(iterating)
        assert len(server.requests) == 4
        iterating.close()


Addresses = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Addresses:
    """Addresses of names that exist for this test."""
    names: Addresses = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host not in names:
            return real(host, *args, **kwargs)
        family = socket.AF_INET6 if names[host] and len(names[host][0]) == 4 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", address) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def test_all_addresses_of_a_name(names: Addresses) -> None:
    with serving() as server:
        names["refused"] = [("127.0.0.1", 1), ("127.0.0.1", port_of(server))]
        names["nobody"] = [("127.0.0.1", 1), ("127.0.0.1", 2)]
        names["nothing"] = []
        names["scoped"] = [("fe80::1", 1, 0, 7)]
        for timeout in (10, None):
            exchange(f"ws://refused:{port_of(server)}/", open_timeout=timeout)
        with pytest.raises(ConnectionRefusedError):
            connect("ws://nobody:1/")
        with pytest.raises(OSError, match="nothing has no address"):
            connect("ws://nothing/")
        tried: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "create_connection", lambda address, **_: tried.append(address) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                connect("ws://scoped:1/")
        assert tried == [("fe80::1%7", 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer for a full queue")
@pytest.mark.parametrize("addresses", [1, 5])
def test_servers_that_are_deaf(addresses: int, names: Addresses) -> None:
    """The deadline is one for all addresses of a name, and none takes the time of the one after it."""
    with serving() as server, contextlib.ExitStack() as stack:
        port = port_of(server)
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.2", port))
        full.listen(0)
        for _ in range(4):  # which its queue is full of
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        names["deaf"] = [("127.0.0.2", port)] * addresses
        names["one is not"] = [("127.0.0.2", port), ("127.0.0.1", port)]
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out during opening handshake"):
            connect(f"ws://deaf:{port}/", open_timeout=1.8)
        assert time.monotonic() - begin < SOON
        exchange(f"ws://deaf:{port}/", address=("one is not", port), open_timeout=3)


# -- proxies -----------------------------------------------------------------------------------------------------------


def through(scheme: str, *, username: str | None = None, password: str | None = None, tls: Any = None) -> Any:
    """A proxy that runs in a thread."""
    return elsewhere(lambda: proxying(scheme, username=username, password=password, tls=tls))


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("authenticated", [False, True])
def test_proxies(scheme: str, secure: bool, authenticated: bool) -> None:
    server_tls, client_tls = tls_contexts()
    proxy_server_tls, proxy_client_tls = tls_contexts()  # of another authority
    kwargs: dict[str, Any] = {"ssl": client_tls} if secure else {}
    if scheme == "https":
        kwargs["proxy_ssl"] = proxy_client_tls
    credentials = {"username": "us@er", "password": "pass"} if authenticated else {}
    proxy: Proxying
    with (
        serving(ssl=server_tls if secure else None) as server,
        through(scheme, tls=proxy_server_tls, **credentials) as proxy,
    ):
        uri = f"ws{'s' * secure}://localhost:{port_of(server)}/"
        exchange(uri, proxy=proxy.uri("us%40er:pass@" if authenticated else ""), **kwargs)
        host = "127.0.0.1" if scheme in ("socks4", "socks5") else "localhost"
        assert proxy.asked == [(host, port_of(server))]


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5"])
def test_proxies_that_are_not_given_credentials(scheme: str) -> None:
    with serving() as server, through(scheme, username="user", password="pass") as proxy:
        for user_info in ("", "other:pass@"):
            with pytest.raises(ProxyError) as info:
                connect(uri_of(server), proxy=proxy.uri(user_info))
            if scheme == "http":
                assert isinstance(info.value, InvalidProxyStatus)
                assert info.value.response.status_code == 401
            else:
                assert str(info.value) == "failed to connect to SOCKS proxy"
                assert info.value.__cause__ is not None


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_servers_that_the_proxy_does_not_reach(scheme: str) -> None:
    server_tls, client_tls = tls_contexts()
    kwargs = {"proxy_ssl": client_tls} if scheme == "https" else {}
    with through(scheme, tls=server_tls) as proxy, pytest.raises(ProxyError) as info:
        connect("ws://localhost:1/", proxy=proxy.uri(), **kwargs)
    assert isinstance(info.value, InvalidProxyStatus) is scheme.startswith("http")


def test_names_of_tls_behind_proxies() -> None:
    server_tls, client_tls = tls_contexts()
    with serving(ssl=server_tls) as server, serving() as plain:
        with through("http") as proxy:
            kwargs = {"proxy": proxy.uri(), "ssl": client_tls, "address": ("127.0.0.1", port_of(server))}
            uri = f"wss://127.0.0.2:{port_of(server)}/"
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(uri, **kwargs)
            exchange(uri, server_hostname="localhost", **kwargs)
            assert proxy.asked == [("127.0.0.1", port_of(server))] * 2
        with through("https", tls=server_tls) as proxy:
            address = proxy.uri().replace("localhost", "127.0.0.1")
            kwargs = {"proxy": address, "proxy_ssl": client_tls}
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(uri_of(plain), proxy_server_hostname="example.com", **kwargs)
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(uri_of(plain), proxy=address)
            exchange(uri_of(plain), proxy_server_hostname="localhost", source_address=("127.0.0.1", 0), **kwargs)


def test_redirects_go_through_the_proxy() -> None:
    with serving() as server, answering(lambda _: found(uri_of(server))) as first, through("http") as proxy:
        exchange(first.uri(), proxy=proxy.uri())
        assert proxy.asked == [("localhost", first.port), ("127.0.0.1", port_of(server))]


def test_proxies_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, through("http") as proxy:
        uri = uri_of(server)
        exchange(uri)
        monkeypatch.setenv("ws_proxy", proxy.uri())
        exchange(uri, proxy=None)
        exchange(uri, sock=socket.create_connection(("127.0.0.1", port_of(server))))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        exchange(uri)
        exchange("ws://example.com/", address=("127.0.0.1", port_of(server)))
        monkeypatch.delenv("no_proxy")
        with pytest.raises(OSError):
            unix_connect(tmp_path / "nothing")
        assert proxy.asked == []
        exchange(uri)
        exchange(uri, proxy=True)
        assert len(proxy.asked) == 2
        monkeypatch.setenv("ws_proxy", "ftp://proxy")
        with pytest.raises(InvalidProxy):
            connect(uri)


@pytest.mark.parametrize(("uri", "kwargs", "text"), WRONG_PROXY_ARGUMENTS)
def test_arguments_that_do_not_fit_a_proxy(
    uri: str, kwargs: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=text):
        connect(uri, **kwargs)
    rest = {name: value for name, value in kwargs.items() if name != "proxy"}
    monkeypatch.setenv("ws_proxy", kwargs["proxy"])
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ValueError, match=text):
        connect(uri, **rest)


def test_without_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError) as info:
        connect("ws://localhost/", proxy="socks5://localhost:1")
    assert "requires python-socks" in str(info.value)
    assert "pip install wsproto_fast[proxy]" in str(info.value)


def test_what_an_http_proxy_is_told() -> None:
    with answering(lambda _: b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n") as server:
        for user_agent in ("us", None):
            with pytest.raises(InvalidProxyStatus):
                connect(
                    "ws://example.com/",
                    proxy=f"http://u:p@127.0.0.1:{server.port}",
                    user_agent_header=user_agent,
                    additional_headers={"Authorization": "secret"},
                )
        head = b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n"
        assert server.requests == [
            head + agent + b"Proxy-Authorization: Basic dTpw\r\n\r\n" for agent in (b"User-Agent: us\r\n", b"")
        ]


@pytest.mark.parametrize(("response", "stays", "error"), PROXY_ANSWERS)
@pytest.mark.parametrize("secure", [False, True])
def test_answers_of_http_proxies(response: bytes | None, stays: bool, error: str, secure: bool) -> None:
    def talk(peer: Peer) -> None:
        if response is None:
            peer.read(1)
            return
        peer.head()
        peer.sock.sendall(response)
        if stays:
            peer.rest()

    errors = (InvalidMessage, OSError) if error == "lost" else getattr(exceptions, error)
    with talking(talk) as port, pytest.raises(errors) as info:
        connect(f"ws{'s' * secure}://localhost/", proxy=f"http://localhost:{port}")
    if response is None:
        assert isinstance(info.value.__cause__, (EOFError, OSError))


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_answers_of_socks_proxies(scheme: str, response: bytes) -> None:
    def talk(peer: Peer) -> None:
        peer.read(1)
        peer.sock.sendall(response)

    with talking(talk) as port, pytest.raises((ProxyError, OSError)):
        connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_no_proxy_there(scheme: str) -> None:
    with pytest.raises(OSError) as caught:
        connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:1")
    assert type(caught.value) is ConnectionRefusedError


@pytest.mark.parametrize("scheme", PROXY_SCHEMES)
def test_proxies_that_hang(scheme: str) -> None:
    server_tls, client_tls = tls_contexts()
    kwargs: dict[str, Any] = {"proxy_ssl": client_tls} if scheme == "https" else {}
    for tls in {None, server_tls if scheme == "https" else None}:
        with talking(Peer.rest, tls=tls) as port:
            begin = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                connect("ws://127.0.0.1/", open_timeout=0.1, proxy=f"{scheme}://localhost:{port}", **kwargs)
            assert time.monotonic() - begin < SOON


def test_servers_that_are_not_trusted_or_go_behind_a_proxy() -> None:
    server_tls, _ = tls_contexts()
    _, client_tls = tls_contexts()
    for scheme in ("http", "socks5"):
        with serving(ssl=server_tls) as server, through(scheme) as proxy:
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(f"wss://localhost:{port_of(server)}/", proxy=proxy.uri(), ssl=client_tls)
        with answering(lambda _: None) as ending, through(scheme) as proxy, pytest.raises(InvalidMessage):
            connect(ending.uri(), proxy=proxy.uri())


def test_connecting_in_many_threads() -> None:
    """A ``reconnect`` for each; settings that are the same objects."""
    server_tls, client_tls = tls_contexts()
    config = DeflateConfig(threshold=0)
    with serving(ssl=server_tls) as server:
        uri = f"wss://localhost:{port_of(server)}/"
        failures: list[BaseException] = []

        def run() -> None:
            try:
                for _ in range(5):
                    exchange(uri, ssl=client_tls, compression=config)
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failures == []
