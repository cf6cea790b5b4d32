"""Opening handshakes in threads: the tables of ``cases.handshakes``, and when the deadline comes."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from typing import Any

import pytest
from cases.handshakes import (
    BAD_ANSWERS,
    BAD_ORIGINS,
    BAD_REQUESTS,
    BEFORE_LEAVING,
    CHALLENGE,
    CREDENTIALS,
    ENDLESS_ANSWERS,
    GOOD_ORIGINS,
    HOOKS,
    NO_ANSWERS,
    REQUEST,
    WRONG_CLIENT_ARGUMENTS,
    WRONG_CREDENTIALS,
    WRONG_PROXIES,
    WRONG_SERVER_ARGUMENTS,
    WRONG_URIS,
)
from helpers import SOON
from thr import (
    Peer,
    answer,
    byte_server,
    echo,
    peer_of,
    port_of,
    raw,
    serving,
    talking,
    thread,
    tls_contexts,
    until,
    uri_of,
)

from wsproto_fast import Headers, Limits, Request, Response, State
from wsproto_fast.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidState,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
)
from wsproto_fast.threading import ServerConnection, basic_auth, connect, serve, unix_connect

# -- the server's side -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(("request_bytes", "status"), BAD_REQUESTS)
def test_malformed_requests_are_answered(
    request_bytes: bytes, status: str, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "wsproto_fast")
    server_tls, client_tls = tls_contexts() if tls else (None, None)
    with serving(origins=["http://good"], ssl=server_tls) as server, raw(server) as peer:
        sock: Any = peer.sock
        if client_tls is not None:
            sock = client_tls.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)
        with sock:
            sock.sendall(request_bytes)
            response = Peer(sock, None).rest().decode()
        assert response.startswith(f"HTTP/1.1 {status} "), response
        assert "Connection: close" in response
    records = [record for record in caplog.records if "refused" in record.message]
    assert [record.levelno for record in records] == [logging.INFO]
    assert all(record.exc_info is None and "\n" not in record.message for record in caplog.records)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("request_bytes", BEFORE_LEAVING)
def test_clients_that_leave_before_their_request(
    request_bytes: bytes, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast")
    with serving() as server:
        with raw(server) as peer:
            peer.sock.sendall(request_bytes)
            if how == "reset":
                peer.reset()
            else:
                peer.sock.shutdown(socket.SHUT_WR)
                assert peer.rest() == b""
        with connect(uri_of(server)) as connection:
            connection.send("x")
            assert connection.recv() == "x"
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_slow_handshakes_are_cut_at_the_deadline() -> None:
    """However often a byte comes."""
    with serving(open_timeout=0.15) as server, raw(server) as peer:
        gone = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                for byte in REQUEST:
                    peer.sock.sendall(bytes([byte]))
                    if gone.wait(0.02):
                        return

        with thread(drip):
            begin = time.monotonic()
            assert peer.rest() == b""
            assert 0.1 < time.monotonic() - begin < SOON
            gone.set()


def test_silent_tls_handshake_is_cut_at_the_deadline() -> None:
    server_tls, client_tls = tls_contexts()
    with serving(ssl=server_tls, open_timeout=0.15) as server:
        with raw(server) as peer:
            assert peer.rest() == b""
        with raw(server) as peer, client_tls.wrap_socket(peer.sock, server_hostname="localhost") as sock:
            with contextlib.suppress(OSError):  # it ends in the middle of TLS
                assert sock.recv(1) == b""


def test_tls_clients_that_go_amid_their_handshake(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast")
    server_tls, client_tls = tls_contexts()
    other_tls = tls_contexts()[1]
    with serving(ssl=server_tls) as server:
        with raw(server) as peer:
            peer.sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        with raw(server) as peer:
            peer.sock.sendall(b"\x16\x03\x01\x02\x00\x01")
            peer.reset()
        with pytest.raises(OSError, match="(?i)certificate verify failed"):
            connect(f"wss://localhost:{port_of(server)}/", ssl=other_tls)
        with connect(f"wss://localhost:{port_of(server)}/", ssl=client_tls) as connection:
            connection.send("x")
            assert connection.recv() == "x"
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_silent_clients_do_not_keep_others_out() -> None:
    """Who has connected and says nothing costs a descriptor, and no thread."""
    with serving() as server:
        before = threading.active_count()
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", port_of(server))))
            with connect(uri_of(server)) as connection:
                connection.send("x")
                assert connection.recv() == "x"
                assert threading.active_count() <= before + 2  # its handler, and the poller


def test_refused_clients_that_do_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsproto_fast.threading import _accepting

    monkeypatch.setattr(_accepting, "_LINGER", 0.1)
    with serving(process_request=lambda connection, request: connection.respond(403, "no")) as server:
        for request in (b"nonsense\r\n\r\n", REQUEST + b"\r\n"):
            with raw(server) as peer:
                peer.sock.sendall(request)
                assert b" 40" in peer.rest()
                with pytest.raises(OSError):  # it is gone
                    while True:
                        peer.sock.sendall(b"x")
                        time.sleep(0.001)


@pytest.mark.parametrize("seen", [False, True])
def test_what_a_connection_remembers_of_its_handshake(seen: bool) -> None:
    got: list[ServerConnection] = []

    def handler(connection: ServerConnection) -> None:
        got.append(connection)
        connection.wait_closed()

    def process_response(connection: ServerConnection, request: Request, response: Response) -> None:
        response.headers["X-Seen"] = "1"

    options: dict[str, Any] = {"process_response": process_response} if seen else {}
    with serving(handler, subprotocols=["b", "a"], server_header="ours", **options) as server:
        with connect(uri_of(server, "/chat?x=1"), subprotocols=["a", "b"]) as client:
            until(lambda: got)
            (connection,) = got
            assert connection.request == client.request
            assert connection.response == client.response
            assert connection.response is not None
            assert connection.response.headers["Sec-WebSocket-Protocol"] == "b"
            assert connection.response.headers["Server"] == "ours"
            assert "Sec-WebSocket-Extensions" in connection.response.headers
            assert ("X-Seen" in connection.response.headers) is seen


def test_process_request() -> None:
    seen: list[Any] = []

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        seen.append((connection.state, request.path, connection.request is request, connection.subprotocol))
        assert connection.close_code is None
        assert connection.close_reason is None
        if request.path == "/health":
            return connection.respond(200, "OK\n")
        if request.path == "/raw":
            return Response(200, "OK", Headers({"Content-Length": "2"}), b"ok")
        return None

    with serving(process_request=process_request, server_header="test") as server:
        for path in ("health", "raw"):
            with raw(server) as peer:
                peer.sock.sendall(b"GET /" + path.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                response = peer.rest().decode()
                assert response.startswith("HTTP/1.1 200 OK\r\n")
                assert response.lower().endswith(("ok", "ok\n"))
        with connect(uri_of(server, "/chat")) as connection:
            assert connection.response is not None
            assert connection.response.headers["Server"] == "test"
        with pytest.raises(InvalidStatus, match="200"):
            connect(uri_of(server, "/health"))
    assert seen[0] == (State.CONNECTING, "/health", True, None)
    assert seen[2][1] == "/chat"


@pytest.mark.parametrize("where", HOOKS)
def test_exceptions_of_the_program_are_logged_and_answered(where: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("secret")

    options: dict[str, Any] = {where: fail}
    with serving(**options) as server, pytest.raises(InvalidStatus) as info:
        connect(uri_of(server))
    assert info.value.response.status_code == 500
    assert b"secret" not in info.value.response.body
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in records] == ["opening handshake failed"]
    assert records[0].exc_info is not None


@pytest.mark.parametrize("answer", NO_ANSWERS)
@pytest.mark.parametrize("hook", ["process_request", "process_response"])
def test_hooks_that_return_no_answer(hook: str, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    options: dict[str, Any] = {hook: lambda *_: answer}
    with serving(**options) as server, pytest.raises(InvalidStatus, match="500"):
        connect(uri_of(server))
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.message, record.exc_info is not None) == ("opening handshake failed", True)


def test_large_refusals() -> None:
    def process_request(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(200, "x" * 3_000_000)

    with serving(process_request=process_request) as server, raw(server) as peer:
        peer.sock.sendall(REQUEST + b"\r\n")
        assert len(peer.rest()) > 3_000_000


def test_refusals_of_clients_that_do_not_read_them() -> None:
    """They do not keep a thread for longer than the deadline."""

    def process_request(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(200, "x" * 30_000_000)

    with serving(process_request=process_request, open_timeout=0.2) as server, raw(server, small=True) as peer:
        peer.sock.sendall(REQUEST + b"\r\n")
        until(lambda: server._threads)
        until(lambda: not server._threads)


def test_subprotocols() -> None:
    def select(connection: ServerConnection, offered: Any) -> str | None:
        assert isinstance(connection, ServerConnection)
        if "bad" in offered:
            raise NegotiationError("no bad ones")
        return offered[-1] if offered else None

    with serving(select_subprotocol=select) as server:
        with connect(uri_of(server), subprotocols=["a", "b"]) as connection:
            assert connection.subprotocol == "b"
        with connect(uri_of(server)) as connection:
            assert connection.subprotocol is None
        with pytest.raises(InvalidStatus):
            connect(uri_of(server), subprotocols=["bad"])
    with serving(subprotocols=["a"]) as server, pytest.raises(InvalidStatus):
        connect(uri_of(server))


def test_origins() -> None:
    with serving(origins=["http://good", re.compile("http://.*[.]good")]) as server:
        for origin in GOOD_ORIGINS:
            with connect(uri_of(server), origin=origin):
                pass
        for origin in BAD_ORIGINS:
            with pytest.raises(InvalidStatus, match="403"):
                connect(uri_of(server), origin=origin)


def test_frames_with_the_request_wait_for_the_answer() -> None:
    go_on = threading.Event()
    with serving(process_request=lambda *_: go_on.wait(5) and None) as server, raw(server) as peer:
        peer.sock.sendall(REQUEST + b"\r\n" + b"\x81\x81\0\0\0\0a")
        until(lambda: server._threads)
        peer.sock.sendall(b"\x81\x81\0\0\0\0b")
        go_on.set()
        peer.head()
        assert peer.read(6) == b"\x81\x01a\x81\x01b"


def test_server_arguments_are_checked_at_once() -> None:
    for wrong in WRONG_SERVER_ARGUMENTS:
        with pytest.raises(ValueError):
            serve(echo, "127.0.0.1", 0, **wrong)


# Authentication


def greet(connection: ServerConnection) -> None:
    connection.send(connection.username)


def outcome(process_request: Any, headers: bytes) -> tuple[str, str | None, str]:
    """Status, challenge and body that answer a request with these headers."""
    with serving(greet, process_request=process_request) as server, raw(server) as peer:
        peer.sock.sendall(REQUEST + headers + b"\r\n")
        head = peer.head().decode()
        status = head.split(" ")[1]
        if status == "101":
            return status, None, peer.frame()[1].decode()
        [challenge] = [line for line in head.split("\r\n") if line.startswith("WWW-Authenticate: ")]
        return status, challenge.partition(": ")[2], peer.rest().decode()


@pytest.mark.parametrize(("headers", "refusal"), CREDENTIALS)
def test_credentials_of_a_client(headers: bytes, refusal: str | None) -> None:
    expected = ("101", None, "hello") if refusal is None else ("401", CHALLENGE, refusal)
    assert outcome(basic_auth("dev", ("hello", "iloveyou")), headers) == expected


@pytest.mark.parametrize("wrong", WRONG_CREDENTIALS)
def test_wrong_credentials_argument(wrong: Any) -> None:
    with pytest.raises(TypeError, match="invalid credentials argument"):
        basic_auth(credentials=wrong)


def test_a_check_of_credentials_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def check(username: str, password: str) -> bool:
        raise RuntimeError("database is down")

    with serving(greet, process_request=basic_auth(check_credentials=check)) as server:
        with pytest.raises(InvalidStatus, match="500"):
            connect(f"ws://a:b@127.0.0.1:{port_of(server)}/")
    assert "database is down" in caplog.text


# -- the client's side -------------------------------------------------------------------------------------------------


def test_client_arguments_are_checked_at_once() -> None:
    for uri in WRONG_URIS:
        with pytest.raises(InvalidURI):
            connect(uri)
    for wrong in WRONG_CLIENT_ARGUMENTS:
        with pytest.raises(ValueError):
            connect("ws://localhost/", **wrong)
    for proxy in WRONG_PROXIES:
        with pytest.raises(InvalidProxy):
            connect("ws://localhost/", proxy=proxy)
    with pytest.raises(ValueError, match="ws://"):
        unix_connect("/nowhere", "ws://localhost/", ssl=tls_contexts()[1])
    with pytest.raises(ValueError, match="missing path"):
        unix_connect()
    with socket.socket() as sock, pytest.raises(ValueError, match="incompatible with sock"):
        unix_connect("/nowhere", sock=sock)


def test_client_headers() -> None:
    requests: list[Request] = []

    def process_request(connection: ServerConnection, request: Request) -> None:
        requests.append(request)

    with serving(process_request=process_request) as server:
        uri = f"ws://user:pass@127.0.0.1:{port_of(server)}/"
        with connect(uri, additional_headers={"X-A": "1"}, user_agent_header=None, compression=None):
            headers = requests[0].headers
            assert headers["X-A"] == "1"
            assert headers["Authorization"] == "Basic dXNlcjpwYXNz"
            assert "User-Agent" not in headers
            assert "Sec-WebSocket-Extensions" not in headers
        with connect(uri):
            assert "wsproto_fast" in requests[1].headers["User-Agent"]


@pytest.mark.parametrize(("response", "error"), BAD_ANSWERS)
def test_bad_answers(response: bytes, error: type[InvalidHandshake]) -> None:
    def talk(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(response)

    with byte_server(talk, handshake=False) as uri, pytest.raises(error):
        connect(uri)


@pytest.mark.parametrize(("head", "filler", "error"), ENDLESS_ANSWERS)
def test_endless_answers(head: bytes, filler: bytes | None, error: type[Exception]) -> None:
    gone = threading.Event()

    def talk(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(head)
        while not (filler is None and gone.wait(0.01)):
            peer.sock.sendall(b"x" if filler is None else filler)

    with talking(talk) as port, pytest.raises(error) as info:
        try:
            connect(f"ws://127.0.0.1:{port}/", open_timeout=0.2 if filler is None else 10)
        finally:
            gone.set()
    if isinstance(info.value, InvalidStatus):
        assert len(info.value.response.body) == 2**16


def test_extensions_that_were_not_offered() -> None:
    def talk(peer: Peer) -> None:
        peer.sock.sendall(answer(peer.head(), b"Sec-WebSocket-Extensions: x-snappy\r\n"))
        peer.rest()

    with byte_server(talk, handshake=False) as uri, pytest.raises(NegotiationError):
        connect(uri)


def test_reset_during_the_handshake() -> None:
    def talk(peer: Peer) -> None:
        peer.head()
        peer.reset()

    with byte_server(talk, handshake=False) as uri, pytest.raises((InvalidMessage, OSError)) as info:
        connect(uri)
    if isinstance(info.value, InvalidMessage):
        assert info.value.__cause__ is not None


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            connect(f"ws://127.0.0.1:{taken.getsockname()[1]}/")


def test_client_open_timeout() -> None:
    for scheme in ("ws", "wss"):
        with byte_server(Peer.rest, handshake=False) as uri:
            begin = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out during opening handshake"):
                connect(uri.replace("ws:", f"{scheme}:"), open_timeout=0.05)
            assert time.monotonic() - begin < SOON


def test_existing_socket_and_other_address() -> None:
    with serving() as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        with connect("ws://example.com/", sock=sock) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
        with connect("ws://example.com/", address=("127.0.0.1", port_of(server))) as connection:
            assert connection.request is not None
            assert connection.request.headers["Host"] == "example.com"


def test_connecting_is_not_reentrant() -> None:
    with serving() as server:
        connecting = connect(uri_of(server), legacy=False)
        with pytest.raises(InvalidState):
            connecting.__exit__(None, None, None)
        with connecting, pytest.raises(RuntimeError, match="reentrant"):
            connecting.__enter__()
        with connecting as connection:  # but it can be used again
            connection.send("hello")
            assert connection.recv() == "hello"


def test_frames_right_behind_the_answer() -> None:
    def talk(peer: Peer) -> None:
        peer.send(0x88, b"\x03\xe8")
        peer.frame()

    with byte_server(talk, then=b"\x81\x05early") as uri, connect(uri) as connection:
        assert list(connection) == ["early"]


def test_an_answer_that_comes_byte_by_byte() -> None:
    def talk(peer: Peer) -> None:
        for byte in answer(peer.head()) + b"\x81\x01a":
            peer.sock.sendall(bytes([byte]))
        peer.answer_close()

    with byte_server(talk, handshake=False) as uri, connect(uri) as connection:
        assert connection.recv() == "a"


def test_limits_of_the_handshake_are_our_users() -> None:
    def talk(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 403 No\r\n" + b"X: y\r\n" * 20 + b"\r\n")

    with byte_server(talk, handshake=False) as uri, pytest.raises(InvalidHandshake, match="(?i)headers"):
        connect(uri, limits=Limits(max_headers=10))


def test_pair_and_peer_helpers_agree() -> None:
    """The byte peer of these tests is understood by our own server."""
    with serving() as server, peer_of(server) as peer:
        peer.send(0x81, b"hello")
        assert peer.frame() == (0x81, b"hello")
