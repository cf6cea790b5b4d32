"""``wsproto-fast connect`` in a pipe: what goes in, what comes out, and the exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pty")
from command_line import LIMIT, Inside, Process, Program, echo, exit_code, serving, text_stream
from peers import make_tls
from websockets.exceptions import ConnectionClosed

from wsproto_fast.threading import serve as serve_ours

RUNS = [pytest.param(Inside, id="inside"), pytest.param(Process, id="process", marks=pytest.mark.external)]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs ``connect`` with the arguments given: in this process, unless the test is parametrized."""
    kind = getattr(request, "param", Inside)
    running: list[Program] = []

    def run(*arguments: str) -> Program:
        running.append(kind("connect", *arguments))
        return running[-1]

    yield run
    for program in running:
        program.close()


in_both_ways = pytest.mark.parametrize("connect", RUNS, indirect=True)


@pytest.fixture(scope="module", params=["websockets", "ours"])
def echo_server(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "websockets":
        with serving(echo) as uri:
            yield uri
        return
    with serve_ours(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"
        server.shutdown()
        thread.join(LIMIT)


# Input and output


@in_both_ways
def test_each_line_is_a_message(connect: Any, echo_server: str) -> None:
    text = "one\nzwölf\r\n\n/close\nno end of line"
    assert connect(echo_server, "-n5").end(text) == (0, "one\nzwölf\n\n/close\nno end of line\n", "")


@pytest.mark.parametrize("arguments", [["-w.2"], ["--wait", "0.2", "--compression", "none"]])
def test_quiet_ends_it(connect: Any, echo_server: str, arguments: list[str]) -> None:
    assert connect(echo_server, *arguments).end("one\ntwo\n") == (0, "one\ntwo\n", "")


def test_an_answer_may_come_after_the_end_of_the_input(connect: Any) -> None:
    def slow(connection: Any) -> None:
        message = connection.recv()
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0.3)  # a client that went away would raise ConnectionClosed
        connection.send(f"{message}, after all")
        with pytest.raises(ConnectionClosed):
            connection.recv()

    with serving(slow) as uri:
        assert connect(uri).end("hello") == (0, "hello, after all\n", "")


def test_lines_are_sent_while_the_input_is_open(connect: Any, echo_server: str) -> None:
    program = connect(echo_server, "--answers=3")
    for text in ("first", "second"):
        program.write(f"{text}\n")
        assert program.line() == text
    program.write("th")
    program.write("ird\n")
    assert (program.line(), program.wait()) == ("third", 0)  # the input is still open


@pytest.mark.external
@pytest.mark.parametrize("connect", RUNS[1:], indirect=True)
def test_much_input(connect: Any, echo_server: str) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    assert connect(echo_server, "-n50000").end(text) == (0, text, "")


def test_large_messages(connect: Any) -> None:
    text = "x" * 5_000_000
    with serving(echo, max_size=None) as uri:
        assert connect(uri, "-n1").end(text) == (0, f"{text}\n", "")


def test_messages_in_place_of_the_input(connect: Any, echo_server: str) -> None:
    program = connect(echo_server, "-m", "one", "--message", "two")
    assert program.wait() == 0
    assert program.end("not read") == (0, "one\ntwo\n", "")


def test_answers_that_do_not_come(connect: Any, echo_server: str) -> None:
    program = connect(echo_server, "-m", "one", "-n2", "-w.1")
    assert program.end() == (1, "one\n", "wsproto-fast: 1 of 2 answers came\n")


def test_more_answers_than_are_wanted(connect: Any) -> None:
    def talkative(connection: Any) -> None:
        with pytest.raises(ConnectionClosed):
            while True:
                connection.send("again")

    with serving(talkative) as uri:
        assert connect(uri, "-n2").end() == (0, "again\nagain\n", "")


def test_no_wait(connect: Any) -> None:
    ends: list[int] = []

    def silent(connection: Any) -> None:
        with pytest.raises(ConnectionClosed):
            connection.recv()
        ends.append(connection.close_code)

    with serving(silent) as uri:
        assert connect(uri, "--wait=0").end() == (0, "", "")
    assert ends == [1000]


def test_wait_for_the_server_to_close(connect: Any) -> None:
    released = threading.Event()

    def feed(connection: Any) -> None:
        connection.send("ready")
        assert released.wait(LIMIT)
        connection.send("news")

    with serving(feed) as uri:
        program = connect(uri, "--wait=inf")
        program.close_input()
        assert program.line() == "ready"
        released.set()
        assert program.end() == (0, "news\n", "")


def test_binary_messages_are_hex(connect: Any) -> None:
    def send(connection: Any) -> None:
        connection.send(bytes(range(20)))
        connection.send(b"")

    with serving(send) as uri:
        assert connect(uri, "-winf").end() == (0, bytes(range(20)).hex(" ") + "\n\n", "")


def test_json(connect: Any, echo_server: str) -> None:
    source = '{"b":[1.10,2e400,{}],"a":"\\u00e9\\n","b":null,"c":[]}'
    pretty = '{\n  "b": [\n    1.10,\n    2e400,\n    {}\n  ],\n  "a": "é\\n",\n  "b": null,\n  "c": []\n}\n'
    assert connect(echo_server, "--json", "-n2").end(f"{source}\nno JSON\n") == (0, pretty + "no JSON\n", "")


def test_what_is_not_utf8_is_not_sent(connect: Any, echo_server: str) -> None:
    assert connect(echo_server).end(b"good\n\xff\n")[::2] == (1, "wsproto-fast: line 2 of the input is not UTF-8\n")


# The handshake


def test_headers(connect: Any) -> None:
    def headers(connection: Any) -> None:
        connection.send(json.dumps([list(item) for item in connection.request.headers.raw_items()]))

    def subprotocol(connection: Any, offered: Any) -> Any:
        assert offered == ["a", "b"]
        return "b"

    more = ["-H", "X-One: 1", "--header", "Authorization:Bearer x:y", "-o", "https://example.org", "-s", "a", "-s", "b"]
    with serving(headers, select_subprotocol=subprotocol) as uri:
        code, output, errors = connect(uri, *more, "--compression=none", "-n1").end()
    assert (code, errors) == (0, "")
    received = dict(json.loads(output))
    assert received["X-One"] == "1"
    assert received["Authorization"] == "Bearer x:y"
    assert received["Origin"] == "https://example.org"
    assert received["Sec-WebSocket-Protocol"] == "a, b"
    assert "Sec-WebSocket-Extensions" not in received


def test_deflate_is_offered(connect: Any) -> None:
    def extensions(connection: Any) -> None:
        connection.send(connection.request.headers["Sec-WebSocket-Extensions"].partition(";")[0])

    with serving(extensions) as uri:
        assert connect(uri, "-n1").end() == (0, "permessage-deflate\n", "")


@in_both_ways
def test_tls(connect: Any, tmp_path: Any) -> None:
    files, _, server = make_tls(tmp_path)
    with serving(echo, ssl=server) as uri:
        assert connect(uri, "-m", "safe", "--cafile", files["authority"]).end() == (0, "safe\n", "")
        assert connect(uri, "-m", "unsafe", "--insecure").end() == (0, "unsafe\n", "")


# The end


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "errors"),
    [
        (1000, "", 0, ""),
        (1001, "", 0, ""),
        (1000, "that was all", 0, "Closed by the server: 1000 (OK) that was all\n"),
        (
            1011,
            "oops",
            1,
            "Closed with an error: received 1011 (internal error) oops; then sent 1011 (internal error) oops\n",
        ),
        (4001, "", 1, "Closed with an error: received 4001 (private use); then sent 4001 (private use)\n"),
    ],
)
def test_the_server_closes(connect: Any, code: int, reason: str, exit_code: int, errors: str) -> None:
    def close(connection: Any) -> None:
        connection.send("last words")
        connection.close(code, reason)

    with serving(close) as uri:
        program = connect(uri)
        assert program.line() == "last words"
        assert program.wait() == exit_code  # although the input is open
        assert program.end() == (exit_code, "", errors)


def test_the_server_closes_too_early(connect: Any) -> None:
    with serving(lambda connection: connection.send("one")) as uri:
        assert connect(uri, "-n2").end() == (1, "one\n", "wsproto-fast: 1 of 2 answers came\n")


def test_the_connection_is_lost(connect: Any) -> None:
    def drop(connection: Any) -> None:
        connection.recv()
        linger = struct.pack("ii", 1, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.socket.shutdown(socket.SHUT_RDWR)

    with serving(drop) as uri:
        code, output, errors = connect(uri).end("hello")
    assert (code, output) == (1, "")
    assert errors.startswith("Connection lost: no close frame received or sent")
    assert errors.count("\n") == 1


@in_both_ways
def test_nobody_reads_the_output(connect: Any, echo_server: str) -> None:
    program = connect(echo_server, "-winf")
    program.stdout.close()
    program.write("hello\n")
    assert program.wait() == 141
    assert program.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_the_output_cannot_be_written(echo_server: str) -> None:
    errors = text_stream()
    with open("/dev/full", "w") as full:
        assert exit_code(["connect", echo_server, "-m", "hello"], text_stream(), full, errors) == 1
    errors.seek(0)
    assert errors.read() == f"wsproto-fast: cannot write the output: {os.strerror(errno.ENOSPC)}\n"


@pytest.mark.external
@pytest.mark.parametrize("connect", RUNS[1:], indirect=True)
def test_interrupt(connect: Any) -> None:
    codes: list[Any] = []

    def hold(connection: Any) -> None:
        connection.send("ready")
        with pytest.raises(ConnectionClosed):
            connection.recv()
        codes.append(connection.close_code)

    with serving(hold) as uri:
        program = connect(uri)
        assert program.line() == "ready"
        program.interrupt(signal.SIGINT)
        assert program.end() == (130, "", "")
    assert codes == [1000]


# Pings


def test_ping(connect: Any) -> None:
    pings = threading.Event()

    def count(connection: Any) -> None:
        assert pings.wait(LIMIT)

    with serving(count) as uri:
        program = connect(uri, "--ping=0.02")
        for _ in range(2):
            line = program.stderr.readline().decode()
            assert line.startswith("ping: ")
            assert line.endswith(" ms\n")
            assert 0 < float(line.split()[1]) < 10_000
        pings.set()
        assert program.end()[0] == 0
