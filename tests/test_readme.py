"""The README is a promise: its code blocks run, its commands exist, and its links lead somewhere."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]


def block_with(text: str) -> str:
    (code,) = [code for code in PYTHON if text in code]
    return code


CLIENTS = ("async with connect(", "    with connect(")


def test_every_block_is_covered_here() -> None:
    # The commands of the second console block are run in tests/cli.
    assert sorted(language for language, _ in BLOCKS) == [*["console"] * 2, *["python"] * 4]


def make_targets() -> set[str]:
    files = [ROOT / "Makefile", ROOT / "fuzz" / "fuzz.mk"]
    return {target for file in files for target in re.findall(r"^([a-z-]+):", file.read_text(), re.MULTILINE)}


def test_commands_are_targets() -> None:
    commands = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "bench", "bench-readme", "autobahn", "fuzz", "asan"} <= commands
    assert commands <= make_targets()


def test_benchmark_table_is_there() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    assert len(rows) >= 5
    assert all(peer in README for peer in ("websockets 17", "wsproto 1.3", "aiohttp 3.14"))


def test_named_files_exist() -> None:
    for name in re.findall(r"`([\w./-]+\.(?:md|py|pyx|toml))`", README):
        assert (ROOT / name).is_file(), name


def test_ten_lines_each() -> None:
    for text in ("serve(echo", *CLIENTS):
        lines = [line for line in block_with(text).splitlines() if line.strip()]
        assert len(lines) <= 13, text


@pytest.mark.external
@pytest.mark.parametrize("text", CLIENTS)
def test_server_and_client(tmp_path: Path, text: str) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    server = tmp_path / "server.py"
    client = tmp_path / "client.py"
    # The one change: a port that is free here, and a line that tells when the server listens.
    last_line = "        await server.serve_forever()"
    code = block_with("serve(echo").replace("8765", str(port))
    server.write_text(code.replace(last_line, f"        print('ready', flush=True)\n{last_line}"))
    client.write_text(block_with(text).replace("8765", str(port)))
    process = subprocess.Popen([sys.executable, server], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        done = subprocess.run([sys.executable, client], capture_output=True, text=True, timeout=30, check=False)
        assert (done.stdout, done.stderr) == ("Hello!\n", "")
    finally:
        process.kill()
        _, errors = process.communicate()
    assert errors == ""


@pytest.mark.parametrize("compression", ["deflate", None])
def test_engine_without_io(capsys: pytest.CaptureFixture[str], compression: str | None) -> None:
    from websockets.sync.client import connect

    namespace: dict[str, object] = {}
    exec(compile(block_with("def serve_one"), "README.md", "exec"), namespace)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            namespace["serve_one"](sock)  # type: ignore[operator]

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        port = listener.getsockname()[1]
        with connect(f"ws://127.0.0.1:{port}/", compression=compression, max_size=None) as peer:
            for message in ("Hello!", b"\x00\xff", "é" * 70000, bytes(300_000)):
                peer.send(message)
                assert peer.recv(timeout=10) == message
            assert peer.ping().wait(10)
    finally:
        thread.join(10)
        listener.close()
    assert not thread.is_alive()
    assert "Closed(code=1000" in capsys.readouterr().out
