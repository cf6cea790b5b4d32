"""``wsproto-fast echo`` and ``broadcast``, talked to by websockets."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pty")
from command_line import LIMIT, Process, exit_code, uri_of
from peers import make_tls
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as theirs

from wsproto_fast._cli.serving import _reason


def connect(uri: str, **arguments: Any) -> Any:
    return theirs(uri, proxy=None, **arguments)


def interrupted(*arguments: str, talk: Callable[[str], None], by: signal.Signals = signal.SIGINT) -> list[str]:
    """Run a server here, in the main thread, until ``talk(uri)`` has ended in another. Returns its last lines."""
    source, sink = os.pipe()
    lines = os.fdopen(source)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            talk(uri_of(lines.readline().rstrip("\n")))
        except BaseException as exc:
            errors.append(exc)
        finally:
            signal.pthread_kill(main, by)

    main = threading.main_thread().ident
    assert main is not None
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    with lines, os.fdopen(sink, "w") as output, open(os.devnull) as nothing:
        assert exit_code([*arguments, "--port", "0"], nothing, output, output) == 0
        output.close()
        thread.join(LIMIT)
        if errors:
            raise errors[0]
        return lines.read().splitlines()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_echo(loop: str, by: signal.Signals) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")

    def talk(uri: str) -> None:
        connection = stack.enter_context(connect(uri, max_size=None))
        for message in ("hello", b"\x00\xff", "x" * 2_000_000):
            connection.send(message)
            assert connection.recv(LIMIT) == message
        connections.append(connection)

    connections: list[Any] = []
    with contextlib.ExitStack() as stack:
        assert interrupted("--loop", loop, "echo", talk=talk, by=by) == ["Closing 1 connection"]
        with pytest.raises(ConnectionClosed):
            connections[0].recv(LIMIT)
        assert connections[0].close_code == 1001


def test_broadcast() -> None:
    def talk(uri: str) -> None:
        with connect(uri) as one, connect(uri) as two, connect(uri) as three:
            for connection in (one, two, three):  # the pong says that each is a member
                assert connection.ping().wait(LIMIT)
            one.send("hello")
            assert [two.recv(LIMIT), three.recv(LIMIT)] == ["hello", "hello"]
            two.send(b"\x01")
            assert [one.recv(LIMIT), three.recv(LIMIT)] == [b"\x01", b"\x01"]

    assert interrupted("broadcast", talk=talk) == ["Closing 0 connections"]


def test_tls_and_no_compression(tmp_path: Path) -> None:
    files, client, _ = make_tls(tmp_path)

    def talk(uri: str) -> None:
        assert uri.startswith("wss://127.0.0.1:")
        with connect(uri, ssl=client) as connection:
            assert "Sec-WebSocket-Extensions" not in connection.response.headers
            connection.send("hello")
            assert connection.recv(LIMIT) == "hello"

    interrupted("echo", "--cert", files["cert"], "--key", files["key"], "--compression", "none", talk=talk)


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_ipv6() -> None:
    def talk(uri: str) -> None:
        assert uri.startswith("ws://[::1]:")
        with connect(uri) as connection:
            connection.send("hello")
            assert connection.recv(LIMIT) == "hello"

    interrupted("echo", "--host", "::1", talk=talk)


@pytest.mark.external
@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
def test_two_processes_on_one_port() -> None:
    with contextlib.closing(Process("echo", "--port", "0", "--reuse-port")) as first:
        uri = uri_of(first.line())
        port = uri.rstrip("/").rpartition(":")[2]
        with contextlib.closing(Process("echo", "--port", port, "--reuse-port")) as second:
            assert uri_of(second.line()) == uri
            second.interrupt()
            assert second.end()[0] == 0
        with contextlib.closing(Process("echo", "--port", port)) as third:
            code, output, errors = third.end()
            assert (code, output) == (3, "")
            assert errors.endswith("another program listens there; --port 0 takes a free port\n")
        first.interrupt(signal.SIGTERM)
        assert first.end() == (0, "Closing 0 connections\n", "")


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "ports below 1024 are for the administrator"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the host's name is not known (Name or "),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "Cannot assign requested address"),
        (OSError("all went wrong"), "all went wrong"),
        (ValueError("reuse_port not supported by socket module"), "reuse_port not supported by socket module"),
    ],
)
def test_reasons_not_to_listen(exc: Exception, text: str) -> None:
    assert _reason(exc).startswith(text)
