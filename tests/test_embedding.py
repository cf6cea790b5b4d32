"""docs/embedding.md and its server: the page's programs run; the server is the file, put to clients and the corpus."""

from __future__ import annotations

import contextlib
import re
import runpy
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_docs import _program
from test_testing import nested_pytest

from wsproto_fast import Role
from wsproto_fast.testing import SocketPeer, check_server, close, encode_frame, ping, pong, request, text

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "examples" / "embedding" / "server.py"
PAGE = ROOT / "docs" / "embedding.md"


PROGRAMS = _program.findall(PAGE.read_text())


# -- the page ----------------------------------------------------------------------


@pytest.mark.parametrize(("code", "output"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_program(code: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "DefaultSelector" in code:
        assert code == SERVER.read_text()  # which the tests below run
        assert len([line for line in code.splitlines() if line.strip()]) < 60
        return
    if "def test_" in code:
        status, reports = nested_pytest(tmp_path, code)
        assert status == 0, capsys.readouterr().out
        assert len(reports) > 400
        return
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    exec(compile(code.replace("8765", str(port)), "docs", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == output


def test_the_tables_of_the_page() -> None:
    """What it says to call is there."""
    from wsproto_fast import CloseTransport, Connection, Limits

    page = PAGE.read_text()
    for name in re.findall(r"`([a-z_]+)\(", page):
        if name.startswith(("receive", "get_buffer", "buffer", "handle", "dispatch", "next", "events", "data_to")):
            assert hasattr(Connection, name) or name == "receive_request", name
    for name in re.findall(r"`Limits\.(\w+)`", page):
        assert hasattr(Limits, name)
    assert re.findall(r"^\| `([A-Z]+)` \|", page, re.MULTILINE) == [item.name for item in CloseTransport]


# -- the server --------------------------------------------------------------------


class Stop(Exception):
    """Ends a server that serves for ever."""


@contextlib.contextmanager
def serving(capsys: pytest.CaptureFixture[str] | None = None) -> Iterator[Callable[[], socket.socket]]:
    """The example's server in a thread; gives what connects. It ends at a listener that is closed."""
    program = runpy.run_path(str(SERVER))
    stopped = False

    class Selector(program["DefaultSelector"]):  # type: ignore[misc]
        """One that can be stopped, and that closes what is open then."""

        def select(self, timeout: float | None = None) -> Any:
            if stopped:
                for key in list(self.get_map().values()):
                    self.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                self.close()
                raise Stop
            return super().select(timeout)

    serve = program["serve"]
    serve.__globals__["DefaultSelector"] = Selector
    listener = socket.create_server(("127.0.0.1", 0))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            serve(listener)
        except Stop:
            pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    address = listener.getsockname()
    try:
        yield lambda: socket.create_connection(address, 10)
    finally:
        stopped = True
        with contextlib.suppress(OSError):
            socket.create_connection(address).close()  # wakes it
        thread.join(10)
    assert not thread.is_alive()
    assert failures == []


def uri(connect: Callable[[], socket.socket]) -> str:
    with connect() as sock:
        return "ws://{}:{}/".format(*sock.getpeername())


@contextlib.contextmanager
def peer(connect: Callable[[], socket.socket]) -> Iterator[SocketPeer]:
    with connect() as sock:
        sock.sendall(request())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        yield SocketPeer(sock, Role.SERVER)


MESSAGES = ["Hello!", "", b"\x00\xff", "é" * 70_000, bytes(300_000)]


@pytest.mark.parametrize("compression", ["deflate", None])
def test_with_websockets(compression: str | None) -> None:
    from websockets.sync.client import connect as theirs

    with serving() as connect, theirs(uri(connect), compression=compression, max_size=None) as client:
        for message in MESSAGES:
            client.send(message)
            assert client.recv(timeout=10) == message
        assert client.ping().wait(10)
        client.close(1001, "bye")
        assert client.close_code == 1001


@pytest.mark.parametrize("compression", ["deflate", None])
def test_with_our_client(compression: str | None) -> None:
    from wsproto_fast.threading import connect as ours

    with serving() as connect, ours(uri(connect), compression=compression, max_size=None) as client:
        for message in MESSAGES:
            client.send(message)
            assert client.recv(timeout=10) == message


def test_the_corpus() -> None:
    with serving() as connect:
        left_out = check_server(connect)
    assert all(name.endswith("-client") for name in left_out)


def test_a_client_that_does_not_read() -> None:
    """It is not heard any more, others are; and when it reads all is there."""
    with serving() as connect, peer(connect) as slow, peer(connect) as other:
        slow.sock.settimeout(0.2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                slow.sock.sendall(encode_frame(0x82, bytes(2000), mask=b"abcd"))
                sent += 1
        other.send(text("Hello"))
        other.expect(text("Hello"))
        slow.sock.settimeout(10)
        for _ in range(sent):
            frame = slow.next_frame()
            assert frame is not None
            assert frame.payload == bytes(2000)


def test_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test: a ping after 20 s, the end 20 s later, and no handshake takes longer than 10 s."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with serving() as connect, peer(connect) as patient, peer(connect) as silent, connect() as half:
        for client in (patient, silent):
            client.send(ping(b"1"))
            client.expect(pong(b"1"))
        half.sendall(b"GET / HTTP/1.1\r\n")
        now += 10.1
        assert half.recv(100) == b""
        now += 10.0
        for client in (patient, silent):
            frame = client.next_frame()
            assert frame is not None
            assert frame.first == 0x89
        patient.send(pong(b"any byte will do"), ping(b"2"))
        patient.expect(pong(b"2"))
        now += 20.0
        assert silent.expect_close(1011) == "keepalive ping timeout"
        silent.expect_end()
        frame = patient.next_frame()
        assert frame is not None
        assert frame.first == 0x89
        patient.send(close(1000))
        patient.expect_close(1000)


def test_clients_that_go_without_a_word() -> None:
    with serving() as connect:
        for _ in range(3):
            connect().close()
            with peer(connect) as client:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset
        with peer(connect) as client:
            client.send_eof()
            client.expect_end()
        with peer(connect) as client:
            client.send(text("Hello"))
            client.expect(text("Hello"))
