"""What does not work is said in one line, which helps, and by the exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pty")
from command_line import LIMIT, Process, echo, exit_code, serving, text_stream
from peers import make_tls
from websockets.exceptions import ConnectionClosed

from wsproto_fast import _cli
from wsproto_fast._cli.console import Console
from wsproto_fast._cli.failures import Failure, explain
from wsproto_fast._cli.pretty import json_lines
from wsproto_fast.exceptions import ProxyError


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and the one line of errors, without the program's name."""
    output, errors = text_stream(), text_stream()
    code = exit_code(arguments, text_stream(), output, errors)
    errors.seek(0)
    (line,) = errors.read().splitlines()
    assert output.buffer.getvalue() == b""
    return code, line.removeprefix("wsproto-fast: ")


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that says this, whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(LIMIT)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("localhost:1", "localhost:1 isn't a valid URI: scheme isn't ws or wss; did you mean ws://localhost:1?"),
        ("http://x/y", "http://x/y isn't a valid URI: scheme isn't ws or wss; did you mean ws://x/y?"),
        ("https://x", "https://x isn't a valid URI: scheme isn't ws or wss; did you mean wss://x?"),
        ("ftp://x", "ftp://x isn't a valid URI: scheme isn't ws or wss"),
        ("ws://", "ws:// isn't a valid URI: hostname isn't provided"),
    ],
)
@pytest.mark.parametrize("command", ["connect", "bench"])
def test_uris(command: str, uri: str, text: str) -> None:
    assert run(command, uri) == (2, text)


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("command", ["connect", "bench"])
def test_refused(command: str, host: str, loop: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"ws://{host}:{probe.getsockname()[1]}/"
        text = f"cannot connect to {uri}: connection refused; does a server listen there?"
        assert run(command, uri, "--loop", loop) == (3, text)


def test_unknown_host() -> None:
    code, text = run("connect", "ws://no-such-host.invalid/")
    assert code == 3
    assert text.startswith("cannot connect to ws://no-such-host.invalid/: the host's name is not known (")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "HTTP 401 Unauthorized in place of 101; it wants a name and password"),
        (403, "HTTP 403 Forbidden in place of 101; it may want another --origin, or a token in a --header"),
        (404, "HTTP 404 Not Found in place of 101; is the path right?"),
        (500, "HTTP 500 Internal Server Error in place of 101; is this a WebSocket server?"),
    ],
)
def test_status(status: int, text: str) -> None:
    def refuse(connection: Any, request: Any) -> Any:
        return connection.respond(HTTPStatus(status), "no")

    with serving(echo, process_request=refuse) as uri:
        code, line = run("connect", uri)
    assert code == 3
    assert line.startswith(f"cannot connect to {uri}: the server answered {text}")


def test_no_http() -> None:
    with answering(b"220 mail.example ESMTP\r\n") as address:
        code, line = run("connect", f"ws://me:secret@{address}/")
    assert code == 3
    assert line.startswith(f"cannot connect to ws://me:***@{address}/: did not receive a valid HTTP response (")


def test_certificates(tmp_path: Path) -> None:
    files, _, server = make_tls(tmp_path)
    with serving(echo, ssl=server) as uri:
        code, text = run("connect", uri)
        assert code == 3
        assert text.startswith(f"cannot connect to {uri}: the certificate is not trusted (")
        assert text.endswith("); --cafile FILE trusts an authority, --insecure skips all checks")
        other = uri.replace("localhost", "127.1")
        code, text = run("connect", other, "--cafile", files["authority"])
        assert code == 3
        assert text.startswith(f"cannot connect to {other}: the certificate is for another host (")
        assert text.endswith("); use its name, or --insecure to skip all checks")


def test_no_tls() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        code, text = run("connect", f"wss://{address}/")
    assert code == 3
    assert "the TLS handshake failed (" in text
    assert text.endswith("): does this port speak TLS? ws:// goes without")


def test_files(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    files, _, _ = make_tls(tmp_path)
    for arguments in (["connect", "wss://x", "--cafile"], ["echo", "--cert"]):
        code, text = run(*arguments, str(missing))
        assert (code, text) == (2, f"cannot use {arguments[-1]} {missing}: No such file or directory")
        code, text = run(*arguments, str(empty))
        assert code == 2
        assert text.startswith(f"cannot use {arguments[-1]} {empty}: not the PEM file that is wanted (")
    code, text = run("echo", "--cert", files["cert"], "--key", str(missing))
    assert (code, text) == (2, f"cannot use --cert {files['cert']} with {missing}: No such file or directory")


def test_a_key_with_a_passphrase(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    files, _, _ = make_tls(tmp_path)
    plain = serialization.load_pem_private_key(Path(files["key"]).read_bytes(), None)
    key.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    code, text = run("echo", "--cert", files["cert"], "--key", str(key))
    assert code == 2
    assert text.startswith(f"cannot use --cert {files['cert']} with {key}: ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["connect", "ws://x", "--insecure"], "--insecure and --cafile are for wss://, and ws://x goes without TLS"),
        (["echo", "--key", "key.pem"], "--key needs --cert"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], text: str) -> None:
    assert run(*arguments) == (2, text)


def test_a_header_that_must_not_be() -> None:
    with serving(echo) as uri:
        text = f"cannot connect to {uri}: illegal character in header 'Bad Name': 'x'"
        assert run("connect", uri, "-H", "Bad Name: x") == (3, text)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["connect", "ws://x", "-H", "no colon"], "argument -H/--header: 'no colon' is not 'Name: value'"),
        (["connect", "ws://x", "-H", ": x"], "argument -H/--header: ': x' is not 'Name: value'"),
        (["connect", "ws://x", "-n", "0"], "argument -n/--answers: '0' is not 1 or more"),
        (["connect", "ws://x", "-n", "x"], "argument -n/--answers: 'x' is not a number"),
        (["connect", "ws://x", "-w", "-1"], "argument -w/--wait: '-1' is not a number of seconds"),
        (["connect", "ws://x", "-w", "nan"], "argument -w/--wait: 'nan' is not a number of seconds"),
        (["connect", "ws://x", "--ping", "0"], "argument --ping: '0' is not a number of seconds above 0"),
        (["connect", "ws://x", "--ping", "inf"], "argument --ping: 'inf' is not a number of seconds above 0"),
        (["bench", "ws://x", "--size", "-1"], "argument --size: '-1' is not 0 or more"),
        (["echo", "--port", "65536"], "argument -p/--port: '65536' is not a port: 0 to 65535"),
        (["nonsense"], "argument COMMAND: invalid choice: 'nonsense'"),
        (["connect"], "the following arguments are required: URI"),
    ],
)
def test_arguments_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert exit_code(arguments) == 2
    assert text in capsys.readouterr().err.splitlines()[-1]


def test_no_command() -> None:
    errors = text_stream()
    assert exit_code([], text_stream(), text_stream(), errors) == 2
    errors.seek(0)
    assert errors.read().startswith("usage: wsproto-fast ")


def test_no_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("--loop", "uvloop", "--version") == (
        2,
        "uvloop is not installed; `pip install uvloop`, or leave --loop out",
    )


@pytest.mark.parametrize(
    ("exc", "code", "text"),
    [
        (TimeoutError("timed out during opening handshake"), 3, "the server did not answer in time"),
        (OSError(24, "Too many open files"), 3, "too many open files; `ulimit -n` allows more"),
        (OSError("Multiple exceptions: [Errno 111] a, [Errno 113] b"), 3, "Multiple exceptions: [Errno 111] a"),
        (OSError(113, "No route to host"), 3, "No route to host"),
        (ProxyError("no way"), 3, "no way"),
        (ImportError("SOCKS needs python-socks"), 2, "SOCKS needs python-socks"),
    ],
)
def test_rare_errors(exc: Exception, code: int, text: str) -> None:
    failure = explain(exc, "ws://x")
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert text in str(failure)


@pytest.mark.external
def test_no_traceback_in_the_real_program() -> None:
    with contextlib.closing(Process("connect", "ws://127.0.0.1:1/")) as program:
        code, output, errors = program.end()
    text = "cannot connect to ws://127.0.0.1:1/: connection refused; does a server listen there?"
    assert (code, output, errors) == (3, "", f"wsproto-fast: {text}\n")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"cannot listen on 127.0.0.1:{port}: another program listens there; --port 0 takes a free port"
        assert run("echo", "--port", str(port)) == (3, text)


def test_ctrl_c_in_a_pipe() -> None:
    """In the main thread, where there is a handler."""

    def interrupt(connection: Any) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        with contextlib.suppress(ConnectionClosed):
            connection.recv()

    main = threading.main_thread().ident
    assert main is not None
    source, sink = os.pipe()
    with os.fdopen(source) as stdin, os.fdopen(sink, "w"), serving(interrupt) as uri:
        assert exit_code(["connect", uri], stdin, text_stream(), text_stream()) == 130


def test_ctrl_c_before_there_is_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(name: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsproto_fast._cli.program.choose_loop", interrupt)
    assert exit_code(["--version"], text_stream(), text_stream(), text_stream()) == 130


def test_python_dash_m(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    program = Path(_cli.__file__).parent.parent / "__main__.py"
    code = compile(program.read_text(), program, "exec")
    monkeypatch.setattr(sys, "argv", ["wsproto-fast", "--version"])
    exec(code, {"__name__": "imported", "__package__": "wsproto_fast"})
    with pytest.raises(SystemExit) as info:
        exec(code, {"__name__": "__main__", "__package__": "wsproto_fast"})
    assert info.value.code == 0
    assert "wsproto_fast" in capfd.readouterr().out


def test_streams_without_a_descriptor() -> None:
    output = io.StringIO()
    console = Console(io.StringIO(), output, io.StringIO())
    console.prompt()
    console.say("x" * 81)
    assert "x" * 81 not in output.getvalue()
    assert "x" * 80 in output.getvalue()


@pytest.mark.parametrize("text", ["[NaN]", "[" * 100_000, "{'a': 1}"])
def test_what_is_no_json(text: str) -> None:
    assert json_lines(text) is None
