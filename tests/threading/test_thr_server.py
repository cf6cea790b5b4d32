"""Servers in threads: the handshake with the program's say in it, handlers, limits, shutdown."""

from __future__ import annotations

import contextlib
import logging
import re
import selectors
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON
from thr import (
    LIMIT,
    MASK,
    REQUEST,
    Peer,
    echo,
    peer_of,
    port_of,
    raw,
    running,
    serving,
    thread,
    tls_contexts,
    until,
    uri_of,
)

from wsproto_fast import ConnectionClosedError, ConnectionClosedOK, InvalidState, InvalidStatus, Response
from wsproto_fast.http11 import Headers
from wsproto_fast.threading import Server, ServerConnection, basic_auth, connect, serve, unix_connect, unix_serve


def status_of(server: Server, **kwargs: Any) -> int:
    with pytest.raises(InvalidStatus) as info:
        connect(uri_of(server), **kwargs)
    return info.value.response.status_code


# Handlers


def test_a_handler_that_returns_closes_with_1000() -> None:
    with serving(lambda connection: connection.send("x")) as server, connect(uri_of(server)) as connection:
        assert list(connection) == ["x"]
        assert connection.close_code == 1000


def test_a_handler_that_fails_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    def handler(connection: Any) -> None:
        raise RuntimeError("handler")

    with serving(handler) as server, connect(uri_of(server)) as connection:
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        assert connection.close_code == 1011
    assert "connection handler failed" in caplog.text


def test_a_handler_whose_client_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(lambda connection: connection.recv()) as server, peer_of(server):
        pass
    assert "connection closed while its handler ran" in caplog.text


def test_each_has_a_thread_of_its_own() -> None:
    threads: list[threading.Thread] = []
    both = threading.Barrier(3, timeout=5)

    def handler(connection: Any) -> None:
        threads.append(threading.current_thread())
        both.wait()

    with serving(handler) as server, connect(uri_of(server)), connect(uri_of(server)):
        both.wait()
    assert len(set(threads)) == 2
    assert {each.name for each in threads} == {"wsproto_fast-handler"}


def test_max_handlers() -> None:
    with serving(max_handlers=1) as server:
        with connect(uri_of(server)) as connection:
            assert status_of(server) == 503
            connection.send("x")
            assert connection.recv() == "x"
        until(lambda: not server._threads)
        with connect(uri_of(server)) as connection:
            connection.send("x")


def test_connections() -> None:
    with serving() as server:
        assert server.connections == set()
        with connect(uri_of(server)):
            until(lambda: server.connections)
            (connection,) = server.connections
            assert isinstance(connection, ServerConnection)
            assert connection.server is server
            assert connection.remote_address[0] == "127.0.0.1"
        until(lambda: not server.connections)


def test_what_came_early_is_not_lost() -> None:
    with serving() as server, raw(server) as peer:
        peer.sock.sendall(REQUEST + b"\r\n" + b"\x81\x81" + MASK + b"y")
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        assert peer.frame()[0] == 0x81


def test_on_message() -> None:
    threads: list[Any] = []

    def on_message(connection: Any, message: Any) -> None:
        threads.append(threading.current_thread())
        connection.send(message[::-1])

    with serving(None, on_message=on_message) as server, connect(uri_of(server)) as connection:
        connection.send("stressed")
        assert connection.recv() == "desserts"
        connection.send("x")
        assert connection.recv() == "x"
    assert threads[0] is threads[1]
    assert threads[0].name == "wsproto_fast-handler"


def test_on_message_with_a_handler() -> None:
    def handler(connection: Any) -> None:
        assert not connection.wait_closed(0.01)
        connection.send("hello")
        assert connection.wait_closed()
        told.append("over")

    told: list[Any] = []
    on_message = lambda _, message: told.append(message)  # noqa: E731
    with serving(handler, on_message=on_message) as server, connect(uri_of(server)) as connection:
        assert connection.recv() == "hello"
        connection.send("x")
    assert told == ["x", "over"]


def test_on_message_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def on_message(connection: Any, message: Any) -> None:
        raise RuntimeError("callback")

    with serving(None, on_message=on_message) as server, connect(uri_of(server)) as connection:
        connection.send("x")
        with pytest.raises(ConnectionClosedError):
            connection.recv()
        assert connection.close_code == 1011
    assert "callback" in caplog.text


def test_there_must_be_something_to_do() -> None:
    with pytest.raises(TypeError, match="handler or on_message"):
        serve(None, "127.0.0.1", 0)


# The handshake


def test_hooks() -> None:
    seen: list[Any] = []

    def process_request(connection: Any, request: Any) -> Response | None:
        seen.append(request.path)
        return connection.respond(200, "OK\n") if request.path == "/health" else None

    def process_response(connection: Any, request: Any, response: Response) -> Response | None:
        response.headers["X-Seen"] = "yes"
        return connection.respond(418, "teapot") if request.path == "/tea" else None

    with serving(process_request=process_request, process_response=process_response) as server:
        with connect(uri_of(server)) as connection:
            assert connection.response is not None
            assert connection.response.headers["X-Seen"] == "yes"
        with raw(server) as peer:
            peer.sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = peer.head()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"Server: " in head
            assert peer.read(3) == b"OK\n"
            peer.expect_eof()
        with pytest.raises(InvalidStatus) as info:
            connect(uri_of(server, "/tea"))
        assert info.value.response.body == b"teapot"
    assert seen == ["/", "/health", "/tea"]


@pytest.mark.parametrize("answer", ["no response", Response(99, "", Headers())])
def test_hooks_that_make_no_answer(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serving(process_request=lambda connection, request: answer) as server:
        assert status_of(server) == 500
    assert "opening handshake failed" in caplog.text


def test_hooks_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    with serving(process_response=lambda *_: 1 / 0) as server:  # type: ignore[arg-type, return-value]
        assert status_of(server) == 500
    assert "ZeroDivisionError" in caplog.text


def test_respond_after_the_handshake() -> None:
    def handler(connection: Any) -> None:
        with pytest.raises(InvalidState):
            connection.respond(200, "")
        connection.send("x")

    with serving(handler) as server, connect(uri_of(server)) as connection:
        assert connection.recv() == "x"


def test_origins() -> None:
    with serving(origins=["https://a.example", re.compile(r"https://.*\.b\.example"), None]) as server:
        for origin in ("https://a.example", "https://x.b.example", None):
            with connect(uri_of(server), origin=origin):
                pass
        assert status_of(server, origin="https://evil.example") == 403


def test_subprotocols() -> None:
    with serving(subprotocols=["a", "b"]) as server:
        with connect(uri_of(server), subprotocols=["b", "a"]) as connection:
            assert connection.subprotocol == "a"
        assert status_of(server) == 400

    def select(connection: Any, offered: Any) -> str | None:
        assert isinstance(connection, ServerConnection)
        return str(offered[-1])

    with serving(select_subprotocol=select) as server:
        with connect(uri_of(server), subprotocols=["b", "a"]) as connection:
            assert connection.subprotocol == "a"


def test_basic_auth() -> None:
    def handler(connection: Any) -> None:
        connection.send(connection.username)

    auth = basic_auth("realm", check_credentials=lambda name, password: (name, password) == ("me", "secret"))
    with serving(handler, process_request=auth) as server:
        with connect(uri_of(server).replace("//", "//me:secret@")) as connection:
            assert connection.recv() == "me"
        for credentials in ("", "me:wrong@"):
            with pytest.raises(InvalidStatus) as info:
                connect(uri_of(server).replace("//", f"//{credentials}"))
            assert info.value.response.status_code == 401
            assert "realm" in info.value.response.headers["WWW-Authenticate"]


def test_route() -> None:
    from werkzeug.routing import Map, Rule

    from wsproto_fast.threading.router import route, unix_route

    def room(connection: Any, number: int) -> None:
        connection.send(f"room {number}")

    def refuse(connection: Any, request: Any) -> Response | None:
        return connection.respond(403, "no") if request.path == "/rooms/13" else None

    url_map = Map([Rule("/rooms/<int:number>", endpoint=room), Rule("/old", redirect_to="rooms/1")])
    with running(route(url_map, "127.0.0.1", 0, process_request=refuse)) as server:
        with connect(uri_of(server, "/rooms/7")) as connection:
            assert connection.recv() == "room 7"
        with connect(uri_of(server, "/old")) as connection:
            assert connection.recv() == "room 1"
        for path, status in (("/nowhere", 404), ("/rooms/13", 403)):
            with pytest.raises(InvalidStatus) as info:
                connect(uri_of(server, path))
            assert info.value.response.status_code == status
    with socket.socket() as sock, pytest.raises(ValueError):
        unix_route(url_map, sock=sock, path="x")
    with running(route(url_map, "127.0.0.1", 0, ssl=True)) as server:
        with connect(uri_of(server, "/rooms/7")) as connection:
            assert connection.recv() == "room 7"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"426"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (REQUEST.replace(b"13", b"12") + b"\r\n", b"426"),
    ],
)
def test_bad_requests(request_: bytes, status: bytes) -> None:
    with serving() as server, raw(server) as peer:
        peer.sock.sendall(request_ + b"more")
        assert peer.head().split()[1] == status
        peer.sock.sendall(b"and more")
        with contextlib.suppress(ConnectionError):
            while peer.sock.recv(4096):
                pass


def test_a_request_in_pieces() -> None:
    with serving() as server, raw(server) as peer:
        for byte in REQUEST + b"\r\n":
            peer.sock.sendall(bytes([byte]))
        assert peer.head().startswith(b"HTTP/1.1 101 ")


def test_slow_requests_end_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(open_timeout=0.2) as server, raw(server) as peer, raw(server) as other:
        peer.sock.sendall(REQUEST)
        start = time.monotonic()
        peer.expect_eof()
        other.expect_eof()
        assert time.monotonic() - start < SOON
        with connect(uri_of(server)) as connection:
            time.sleep(0.25)
            connection.send("x")
            assert connection.recv() == "x"
    assert "opening handshake timed out" in caplog.text


def test_a_hook_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(open_timeout=0.1, process_request=lambda *_: time.sleep(0.2)) as server:
        with pytest.raises((ConnectionError, OSError, Exception)):
            connect(uri_of(server))
    assert "opening handshake failed" in caplog.text


def test_clients_that_go_before_their_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving() as server:
        with raw(server):
            pass
        with raw(server) as peer:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        until(lambda: caplog.text.count("opening handshake failed") == 2)
        with connect(uri_of(server)) as connection:
            connection.send("x")
            assert connection.recv() == "x"


def test_no_open_timeout() -> None:
    with serving(open_timeout=None) as server, connect(uri_of(server), open_timeout=None) as connection:
        connection.send("x")
        assert connection.recv() == "x"


def test_create_connection_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(create_connection=lambda server: 1 / 0) as server:
        with pytest.raises(Exception):  # noqa: B017
            connect(uri_of(server))
    assert "ZeroDivisionError" in caplog.text


def test_a_connection_of_ones_own() -> None:
    class Mine(ServerConnection):
        def shout(self) -> None:
            self.send(self.recv().upper())

    with serving(lambda connection: connection.shout(), create_connection=Mine) as server:
        with connect(uri_of(server)) as connection:
            connection.send("x")
            assert connection.recv() == "X"


def test_accept_that_fails(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(socket.socket):
        failures = 1

        def accept(self) -> Any:
            if Failing.failures:
                Failing.failures -= 1
                raise OSError(24, "Too many open files")
            return super().accept()

    listening = Failing(socket.AF_INET)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    with serving(echo, None, None, sock=listening) as server, connect(uri_of(server)) as connection:
        connection.send("x")
        assert connection.recv() == "x"
    assert "accepting failed" in caplog.text


# Listening


def test_arguments() -> None:
    with socket.socket() as sock:
        for name, value in (("host", "x"), ("port", 1), ("path", "x")):
            with pytest.raises(ValueError, match=f"{name} is incompatible with sock"):
                serve(echo, sock=sock, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing path"):
        unix_serve(echo)


def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running(unix_serve(echo, path)), unix_connect(path) as connection:
        connection.send("x")
        assert connection.recv() == "x"


def test_any_address() -> None:
    with serving(echo, None, None) as server, connect(uri_of(server)) as connection:
        connection.send("x")
        assert connection.recv() == "x"


def test_fileno_is_for_selectors() -> None:
    with serve(echo, "127.0.0.1", 0) as server, selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        assert not selector.select(0)
        with raw(server):
            assert selector.select(LIMIT)
            selector.unregister(server)
    assert server.fileno() == -1


# The end


def test_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as server:
        connection = connect(uri_of(server))
        with thread(connection.recv) as outcome:
            start = time.monotonic()
            server.shutdown(code=1012, reason="restart")
            server.shutdown()
        assert time.monotonic() - start < SOON
        assert isinstance(outcome[0], ConnectionClosedError)
        assert (connection.close_code, connection.close_reason) == (1012, "restart")
        assert server.serve_forever() is None
    for text in ("server listening on 127.0.0.1:", "server closing", "server closed"):
        assert text in caplog.text


def test_shutdown_that_lets_connections_go_on() -> None:
    with serving() as server:
        connection = connect(uri_of(server))
        with thread(lambda: server.shutdown(close_connections=False)) as outcome:
            until(lambda: server.fileno() == -1)
            connection.send("x")
            assert connection.recv() == "x"
            assert not outcome
            connection.close()
        assert connection.close_code == 1000


def test_shutdown_in_a_handler() -> None:
    def handler(connection: Any) -> None:
        with pytest.raises(RuntimeError, match="in a handler"):
            connection.server.shutdown()
        connection.send("x")

    with serving(handler) as server, connect(uri_of(server)) as connection:
        assert connection.recv() == "x"


def test_shutdown_during_handshakes() -> None:
    def process_request(connection: Any, request: Any) -> None:
        asked.set()
        go.wait(5)

    asked, go = threading.Event(), threading.Event()
    with serving(process_request=process_request) as server:
        with raw(server) as silent, raw(server) as late, raw(server) as peer:
            late.sock.sendall(REQUEST)
            peer.sock.sendall(REQUEST + b"\r\n")
            assert asked.wait(LIMIT)
            with thread(server.shutdown):
                until(lambda: server._closing)
                go.set()
                late.sock.sendall(b"\r\n")
                assert peer.head().startswith(b"HTTP/1.1 503 ")
                assert late.head().startswith(b"HTTP/1.1 503 ")
                silent.expect_eof()


def test_shutdown_while_a_connection_opens() -> None:
    class Slow(ServerConnection):
        def _open_after(self, handshake: Any, role: Any) -> None:
            opening.set()
            assert go.wait(LIMIT)
            super()._open_after(handshake, role)

    opening, go = threading.Event(), threading.Event()
    with serving(create_connection=Slow) as server, connect(uri_of(server)) as connection:
        assert opening.wait(LIMIT)
        with thread(server.shutdown) as outcome:
            until(lambda: server.fileno() == -1)
            go.set()
            with pytest.raises(ConnectionClosedOK):
                connection.recv(LIMIT)
        assert connection.close_code == 1001
    assert outcome == [None]


def test_shutdown_of_a_server_that_never_served() -> None:
    server = serve(echo, "127.0.0.1", 0)
    server.shutdown()
    assert server.fileno() == -1


def test_serving_twice() -> None:
    with serving() as server:
        until(lambda: server._serving)
        with pytest.raises(RuntimeError, match="runs already"):
            server.serve_forever()
        with pytest.raises(Exception, match="1006"):
            server.shutdown(code=1006)


def test_the_end_of_a_connection_that_opens_while_the_server_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    added = Server._add

    def add(self: Server, connection: Any) -> None:
        added(self, connection)
        self._close_with = (1001, "late")

    monkeypatch.setattr(Server, "_add", add)
    with serving() as server, connect(uri_of(server)) as connection:
        with pytest.raises(ConnectionClosedOK):
            connection.recv()
        assert connection.close_reason == "late"


# TLS


def test_tls() -> None:
    server_context, client_context = tls_contexts()
    with serving(ssl=server_context) as server:
        uri = f"wss://localhost:{port_of(server)}"
        with connect(uri, ssl=client_context, compression=None) as connection:
            for size in (1, 1000, 100_000, 3_000_000):
                connection.send(bytes(size) if size < 10**6 else [bytes(2**19)] * 1)
                connection.recv()
            assert connection.ping().wait(LIMIT)
            with thread(lambda: [connection.recv() for _ in range(300)]) as outcome:
                for number in range(300):
                    connection.send(f"{number}")
            assert outcome == [[str(number) for number in range(300)]]
        assert connection.close_code == 1000
        with raw(server) as peer:
            peer.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
            with contextlib.suppress(ConnectionError):
                while peer.sock.recv(4096):
                    pass
        with raw(server):
            pass


def test_bad_requests_over_tls() -> None:
    server_context, client_context = tls_contexts()
    with serving(ssl=server_context) as server, raw(server) as tcp:
        with client_context.wrap_socket(tcp.sock, server_hostname="localhost") as sock:
            peer = Peer(sock, MASK)
            sock.sendall(b"nonsense\r\n")
            time.sleep(0.05)
            sock.sendall(b"\r\n")
            assert peer.head().startswith(b"HTTP/1.1 400 ")


def test_a_tls_client_that_goes() -> None:
    server_context, client_context = tls_contexts()
    with serving(ssl=server_context) as server:
        with raw(server) as tcp, client_context.wrap_socket(tcp.sock, server_hostname="localhost"):
            pass
