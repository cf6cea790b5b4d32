"""Clients of the threading adapter: addresses, redirects, proxies, TLS, and what failed attempts leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import pytest
import trustme
import websockets.sync.server
from anyio.streams.tls import TLSListener
from helpers import SOON
from thr import LIMIT, SERVERS, Peer, answer, echo, finish, linked, listening, ours, start, theirs, tls_contexts, until
from tiny_proxy import HttpProxyHandler, Socks4ProxyHandler, Socks5ProxyHandler

from wsproto_fast import (
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    SecurityError,
)
from wsproto_fast._connecting import USER_AGENT
from wsproto_fast.limits import DeflateConfig, Limits
from wsproto_fast.threading import ClientConnection, _dialing, connect, unix_connect

both = pytest.mark.parametrize("server", SERVERS)


def descriptors() -> int:
    """How many sockets this process has open."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("no way to count descriptors")
    count = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # of the listing itself
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return count


@pytest.fixture(autouse=True)
def _no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("ws_proxy", "wss_proxy", "socks_proxy", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    connect_once()  # the poller has its own
    before = descriptors()
    yield
    until(lambda: descriptors() <= before)


def connect_once() -> None:
    with linked():
        pass


def exchange(uri: str, **kwargs: Any) -> None:
    with connect(uri, **kwargs) as connection:
        for size in (0, 5, 100_000):
            connection.send("x" * size)
            assert connection.recv(LIMIT) == "x" * size


def answers(response: bytes, heads: list[bytes] | None = None) -> Callable[[Peer], None]:
    def talk(peer: Peer) -> None:
        head = peer.head()
        if heads is not None:
            heads.append(head)
        peer.sock.sendall(response)

    return talk


def hang(peer: Peer) -> None:
    while peer.sock.recv(1000):
        pass


def found(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


# -- the request -------------------------------------------------------------------------------------------------------


def test_what_the_request_says() -> None:
    heads: list[bytes] = []
    with listening(answers(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", heads)) as port:
        uri = f"ws://user:pass@localhost:{port}/path?query"
        with pytest.raises(InvalidStatus) as info:
            connect(
                uri,
                origin="http://origin",
                subprotocols=["a", "b"],
                additional_headers={"X-Mine": "1"},
                user_agent_header="us",
            )
        assert (info.value.response.status_code, info.value.response.body) == (403, b"no")
        with pytest.raises(InvalidStatus):
            connect(uri, compression=None, user_agent_header=None)
        with pytest.raises(InvalidStatus):
            connect(uri, compression=DeflateConfig(client_no_context_takeover=True))
        with pytest.raises(InvalidStatus):
            connect(uri, extensions=[DeflateConfig(server_no_context_takeover=True)])
    first, second, third, fourth = (head.decode().split("\r\n") for head in heads)
    assert first[0] == "GET /path?query HTTP/1.1"
    assert {
        f"Host: localhost:{port}",
        "Origin: http://origin",
        "Sec-WebSocket-Protocol: a, b",
        "X-Mine: 1",
        "User-Agent: us",
        "Authorization: Basic dXNlcjpwYXNz",
    } <= set(first)
    assert any(line.startswith("Sec-WebSocket-Extensions: permessage-deflate") for line in first)
    assert not any(line.startswith(("Sec-WebSocket-Extensions", "User-Agent", "Origin")) for line in second)
    assert f"User-Agent: {USER_AGENT}" in third
    assert any("client_no_context_takeover" in line for line in third)
    assert any("server_no_context_takeover" in line for line in fourth)


@pytest.mark.parametrize(
    ("uri", "kwargs", "error"),
    [
        ("http://a/", {}, InvalidURI),
        ("ws://a/", {"ssl": True}, ValueError),
        ("ws://a/", {"proxy": "ftp://p"}, InvalidProxy),
        ("ws://a/", {"proxy": "http://p", "proxy_ssl": True}, ValueError),
        ("ws://a/", {"proxy": "socks5://p", "proxy_ssl": True}, ValueError),
        ("ws://a/", {"origin": "a\r\nb"}, ValueError),
        ("ws://a/", {"subprotocols": ["a b"]}, ValueError),
        ("ws://a/", {"compression": "zip"}, ValueError),
        ("ws://a/", {"max_queue": -1}, ValueError),
        ("ws://a/", {"max_size": 1, "limits": Limits()}, ValueError),
        ("ws://localhost/", {"nonsense": 1}, TypeError),
    ],
)
def test_illegal_arguments(uri: str, kwargs: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        connect(uri, **kwargs)


def test_a_connection_of_our_users_own() -> None:
    class Own(ClientConnection):
        pass

    class Broken(ClientConnection):
        def __init__(self, *args: Any) -> None:
            raise ZeroDivisionError

    with theirs() as uri:
        with connect(uri, create_connection=Own) as connection:
            assert type(connection) is Own
        with pytest.raises(ZeroDivisionError):
            connect(uri, create_connection=Broken)


# -- addresses ---------------------------------------------------------------------------------------------------------


@both
def test_where_to_connect(server: str) -> None:
    with SERVERS[server]() as uri:
        port = int(uri.split(":")[2].rstrip("/"))
        exchange(uri)
        exchange("ws://example.com/", address=("127.0.0.1", port))
        exchange("ws://example.com/", sock=socket.create_connection(("127.0.0.1", port)))
        exchange("ws://example.com/", sock=socket.create_connection(("127.0.0.1", port)), open_timeout=None)
        exchange(uri, source_address=("127.0.0.2", 0), timeout=LIMIT)
        exchange(uri, open_timeout=None)
        with connect(uri, source_address=("127.0.0.3", 0), address=("127.0.0.1", port)) as connection:
            assert connection.local_address[0] == "127.0.0.3"


@both
def test_unix_sockets(server: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with contextlib.ExitStack() as stack:
        if server == "ours":
            from wsproto_fast.threading import unix_serve

            listener: Any = stack.enter_context(unix_serve(echo, path))
        else:
            listener = stack.enter_context(websockets.sync.server.unix_serve(echo, str(path)))
        running = start(listener.serve_forever)
        with unix_connect(path) as connection:
            connection.send("a")
            assert connection.recv() == "a"
            assert connection.request is not None
            assert connection.request.headers["Host"] == "localhost"
        with unix_connect(os.fsencode(path), "ws://example.com/x") as connection:
            assert connection.request is not None
            assert connection.request.headers["Host"] == "example.com"
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        with unix_connect(sock=sock) as connection:
            connection.send("a")
            assert connection.recv() == "a"
        listener.shutdown()
        finish(running)
    with pytest.raises(OSError):
        unix_connect(tmp_path / "nothing")
    with pytest.raises(ValueError, match="missing path argument"):
        unix_connect()


def test_unix_sockets_with_tls(tmp_path: Path) -> None:
    server_tls, client_tls = tls_contexts()
    path = str(tmp_path / "socket")
    with websockets.sync.server.unix_serve(echo, path, ssl=server_tls) as server:
        running = start(server.serve_forever)
        with unix_connect(path, ssl=client_tls) as connection:
            connection.send("a")
            assert connection.recv() == "a"
        server.shutdown()
        finish(running)


def test_all_addresses_of_a_name_within_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with theirs() as uri, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = int(uri.split(":")[2].rstrip("/"))
        names = {
            "refused": [("127.0.0.1", 1), ("127.0.0.1", port)],
            "nobody": [("127.0.0.1", 1), ("127.0.0.1", 2)],
            "deaf": [full.getsockname()] * 5,
        }

        def getaddrinfo(host: str, *args: Any) -> list[Any]:
            addresses = names.get(host, [(host, *args[:1])])
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:  # which its queue is full of
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        monkeypatch.setattr(_dialing.socket, "getaddrinfo", getaddrinfo)
        exchange("ws://refused/")
        with pytest.raises(ConnectionRefusedError):
            connect("ws://nobody/")
        began = monotonic()
        with pytest.raises(TimeoutError, match="timed out during opening handshake"):
            connect("ws://deaf/", open_timeout=1.8)
        assert monotonic() - began < SOON
        for sock in waiting:
            sock.close()
        names["no family"] = [("127.0.0.1", 1)]

        def no_socket(*args: Any) -> Any:
            raise OSError("no such family")

        with monkeypatch.context() as patch:
            patch.setattr(_dialing.socket, "socket", no_socket)
            with pytest.raises(OSError, match="no such family"):
                connect("ws://nobody/")


# -- the handshake -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", InvalidMessage),
        (b"SSH-2.0\r\n\r\n", InvalidMessage),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\ncut", (InvalidStatus, InvalidMessage)),
    ],
)
def test_refusals(response: bytes, error: Any) -> None:
    with listening(answers(response)) as port, pytest.raises(error):
        connect(f"ws://localhost:{port}/")


def test_servers_that_hang() -> None:
    with listening(hang) as port:
        for scheme in ("ws", "wss"):
            began = monotonic()
            with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                connect(f"{scheme}://localhost:{port}/", open_timeout=0.1)
            assert monotonic() - began < SOON
        with pytest.raises(TimeoutError):
            connect(f"ws://localhost:{port}/", open_timeout=0)


def test_an_answer_that_comes_byte_by_byte() -> None:
    def talk(peer: Peer) -> None:
        for byte in answer(peer.head()) + b"\x81\x01a":
            peer.sock.sendall(bytes([byte]))
        peer.frame()

    with listening(talk) as port, connect(f"ws://localhost:{port}/") as connection:
        assert connection.recv() == "a"


@both
def test_basic_auth(server: str) -> None:
    process: Any
    if server == "ours":
        from wsproto_fast.threading import basic_auth

        process = basic_auth(realm="r", credentials=("user", "pass"))
    else:
        process = websockets.sync.server.basic_auth(realm="r", credentials=("user", "pass"))
    with SERVERS[server](process_request=process) as uri:
        exchange(uri.replace("//", "//user:pass@"))
        with pytest.raises(InvalidStatus) as info:
            connect(uri)
        assert info.value.response.status_code == 401


# -- redirects ---------------------------------------------------------------------------------------------------------


def test_redirects() -> None:
    heads: list[bytes] = []
    with theirs() as uri:
        target = uri.replace("localhost", "127.0.0.1") + "target"
        with listening(answers(found(target), heads)) as port:
            here = f"ws://user:pass@localhost:{port}/"
            with connect(here, additional_headers={"Authorization": "secret", "X-Mine": "1"}) as connection:
                assert connection.request is not None
                assert connection.request.path == "/target"
                assert "Authorization" not in connection.request.headers
                assert connection.request.headers["X-Mine"] == "1"
            assert b"Authorization: secret" in heads[0]
            with pytest.raises(ValueError, match="explicit"):
                connect(here, address=("localhost", port))
            with pytest.raises(ValueError, match="preexisting socket"):
                connect(here, sock=socket.create_connection(("localhost", port)))
    with listening(answers(found("/next"))) as port, pytest.raises(SecurityError, match="more than 10 redirects"):
        connect(f"ws://localhost:{port}/")
    with listening(answers(found("http://[/"))) as port, pytest.raises(InvalidURI):
        connect(f"ws://localhost:{port}/")


# -- TLS ---------------------------------------------------------------------------------------------------------------


@both
def test_tls(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server_tls, client_tls = tls_contexts()
    with SERVERS[server](ssl=server_tls) as uri:
        exchange(uri, ssl=client_tls)
        exchange(uri.replace("localhost", "127.0.0.1"), ssl=client_tls, server_hostname="localhost")
        for trusting in (None, True):
            with pytest.raises(OSError, match="(?i)certificate verify failed"):
                connect(uri, ssl=trusting)
        exchange(uri, ssl=client_tls)


def test_what_ends_tls_in_its_handshake() -> None:
    def leave(peer: Peer) -> None:
        peer.sock.recv(10_000)

    with listening(leave) as port, pytest.raises(OSError):
        connect(f"wss://localhost:{port}/")

    def no_tls(peer: Peer) -> None:
        peer.sock.recv(10_000)
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(no_tls) as port, pytest.raises(OSError, match="(?i)ssl"):
        connect(f"wss://localhost:{port}/")


# -- proxies -----------------------------------------------------------------------------------------------------------


class Proxying:
    """A proxy that works, and what it has been asked for."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.port = 0
        self.asked: list[tuple[str, int]] = []
        self.loop: asyncio.AbstractEventLoop
        self.task: asyncio.Task[None]
        self.ready = threading.Event()

    def uri(self, user_info: str = "") -> str:
        return f"{self.scheme}://{user_info}localhost:{self.port}"

    async def serve(self, handler: Any, tls: Any) -> None:
        self.loop = asyncio.get_running_loop()
        listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        if self.scheme == "https":
            listener = TLSListener(listener, tls, standard_compatible=False)
        create = handler.create_proxy

        def create_proxy(stream: Any) -> Any:
            made = create(stream)
            negotiate = made.negotiate

            async def remember() -> Any:
                result = await negotiate()
                self.asked.append(result if isinstance(result, tuple) else (result.host, result.port))
                return result

            made.negotiate = remember
            return made

        handler.create_proxy = create_proxy
        self.task = asyncio.ensure_future(listener.serve(handler.handle))
        self.ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await listener.aclose()


@contextlib.contextmanager
def proxying(
    scheme: str, username: str | None = None, password: str | None = None, tls: Any = None
) -> Iterator[Proxying]:
    handler: Any
    if scheme.startswith("http"):
        handler = HttpProxyHandler(username, password)
    elif scheme.startswith("socks4"):
        handler = Socks4ProxyHandler(username)
    else:
        handler = Socks5ProxyHandler(username, password)
    proxy = Proxying(scheme)
    running = start(lambda: asyncio.run(proxy.serve(handler, tls)))
    assert proxy.ready.wait(LIMIT), running
    try:
        yield proxy
    finally:
        proxy.loop.call_soon_threadsafe(proxy.task.cancel)
        finish(running)


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks4a", "socks5", "socks5h"])
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("authenticated", [False, True])
def test_proxies(scheme: str, secure: bool, authenticated: bool) -> None:
    server_tls, client_tls = tls_contexts()
    kwargs: dict[str, Any] = {"ssl": client_tls} if secure else {}
    if scheme == "https":
        kwargs["proxy_ssl"] = client_tls
    user_info, credentials = ("user:pass@", ("user", "pass")) if authenticated else ("", (None, None))
    with theirs(**({"ssl": server_tls} if secure else {})) as uri:
        with proxying(scheme, *credentials, tls=server_tls) as proxy:
            exchange(uri, proxy=proxy.uri(user_info), **kwargs)
            assert len(proxy.asked) == 1
            if scheme in ("http", "https", "socks5h", "socks4a"):
                assert proxy.asked[0][0] in ("localhost", b"localhost")


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with theirs() as uri, proxying("http") as proxy:
        exchange(uri)
        monkeypatch.setenv("ws_proxy", proxy.uri())
        exchange(uri, proxy=None)
        exchange(uri, sock=socket.create_connection(("localhost", int(uri.split(":")[2].rstrip("/")))))
        assert proxy.asked == []
        exchange(uri)
        exchange(uri, proxy=True)
        assert len(proxy.asked) == 2
        with pytest.raises(ValueError, match="proxy_ssl argument is incompatible with an http:// proxy"):
            connect(uri, proxy_ssl=True)
        monkeypatch.setenv("ws_proxy", "ftp://proxy")
        with pytest.raises(InvalidProxy):
            connect(uri)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", InvalidProxyMessage),
        (b"\x05\x00\r\n\r\n", InvalidProxyMessage),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", InvalidProxyMessage),
        (b"HTTP/1.1 407 Authenticate\r\n\r\nuntil the end", InvalidProxyStatus),
        (b"HTTP/1.1 200 OK\r\n\r\n", (InvalidMessage, OSError)),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_answers_of_http_proxies(response: bytes, error: Any, secure: bool) -> None:
    with listening(answers(response)) as port, pytest.raises(error):
        connect(f"ws{'s' * secure}://localhost/", proxy=f"http://localhost:{port}")


def test_what_an_http_proxy_is_told() -> None:
    heads: list[bytes] = []
    with listening(answers(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", heads)) as port:
        for user_agent in ("us", None):
            with pytest.raises(InvalidProxyStatus):
                connect(
                    "ws://example.com/",
                    proxy=f"http://u:p@127.0.0.1:{port}",
                    user_agent_header=user_agent,
                    additional_headers={"Authorization": "secret"},
                )
    head = b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n"
    assert heads == [
        head + agent + b"Proxy-Authorization: Basic dTpw\r\n\r\n" for agent in (b"User-Agent: us\r\n", b"")
    ]


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_answers_of_socks_proxies(scheme: str) -> None:
    def talk(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(talk) as port, pytest.raises((ProxyError, OSError)):
        connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5"])
def test_no_proxy_there_or_one_that_hangs(scheme: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:1")
    with listening(hang) as port, pytest.raises(TimeoutError, match="timed out during opening handshake"):
        connect("ws://127.0.0.1/", proxy=f"{scheme}://127.0.0.1:{port}", open_timeout=0.1)


def test_without_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ImportError) as info:
        connect("ws://localhost/", proxy="socks5://localhost:1")
    assert "pip install wsproto_fast[proxy]" in str(info.value)


def test_a_proxys_certificate() -> None:
    server_tls, client_tls = tls_contexts()
    other = trustme.CA()
    server_tls_2 = tls_contexts()[0]
    other.configure_trust(client_tls)
    with ours() as uri, proxying("https", tls=server_tls) as proxy:
        exchange(uri, proxy=proxy.uri(), proxy_ssl=client_tls, proxy_server_hostname="127.0.0.1")
        with pytest.raises(OSError, match="(?i)mismatch"):
            connect(uri, proxy=proxy.uri(), proxy_ssl=client_tls, proxy_server_hostname="example.com")
    with ours() as uri, proxying("https", tls=server_tls_2) as proxy:
        with pytest.raises(OSError, match="(?i)verify failed"):
            connect(uri, proxy=proxy.uri(), proxy_ssl=client_tls)
