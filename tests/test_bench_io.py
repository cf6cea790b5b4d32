"""``make bench-io``: its programs work, its load notices every wrong byte, and its report says what was measured."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        not sys.platform.startswith("linux")
        or not (ROOT / "benchmarks").is_dir()
        or shutil.which(os.environ.get("CC", "cc").split()[0]) is None,
        reason="needs Linux, benchmarks/ and a C compiler",
    ),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.io.running import compiled
    finally:
        sys.path.remove(str(ROOT))
    folder, _ = compiled(tmp_path_factory.mktemp("programs"))
    return folder


ROWS = ["callback: 64", "client recv 32 B", "threads", "connection opened", "resident callback"]


@pytest.mark.parametrize("row", ROWS)
def test_quick_run(tmp_path: Path, row: str) -> None:
    command = [sys.executable, "-m", "benchmarks.io", "--quick", "--only", row, "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "table.txt").read_text()
    assert "ours" in table
    markdown = (tmp_path / "table.md").read_text()
    assert "| ---: |" in markdown
    ElementTree.fromstring((tmp_path / "chart.svg").read_text())


def load(programs: Path, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(programs / "load"), *options, f"port={port}", f"pid={os.getpid()}"]
    return subprocess.run(command, input="0.01\n", capture_output=True, text=True, timeout=60, check=False)


def spoiled(programs: Path, spoil: Callable[[bytes], bytes], *options: str) -> str:
    """What the load says of a server that echoes, but for what ``spoil`` does to what it reads."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            while data := sock.recv(65536):
                sock.sendall(spoil(data))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        done = load(programs, listener.getsockname()[1], "raw", *options)
        thread.join()
    return done.stderr if done.returncode else f"fine: {done.stdout}"


def test_load_takes_an_echo(programs: Path) -> None:
    assert spoiled(programs, bytes, "size=100", "window=3").startswith("fine: open\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1] + b"?",
        lambda data: data + data,
        lambda data: data[100:] + data[:100],  # another order
    ],
    ids=["changed", "twice", "reordered"],
)
def test_load_notices(programs: Path, spoil: Callable[[bytes], bytes]) -> None:
    assert "differs" in (said := spoiled(programs, spoil, "size=100", "window=3")) or "nobody sent" in said


def test_floor_answers_the_handshake_of_others(programs: Path) -> None:
    """Its SHA-1 and Base64 are its own; the load always uses the same key."""
    from websockets.sync.client import connect

    server = subprocess.Popen([str(programs / "echo"), "ws"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        for message in ("x", "y" * 126, bytes(70000)):
            with connect(f"ws://127.0.0.1:{port}/", compression=None, max_size=None) as peer:
                peer.send(message)
                assert peer.recv(timeout=10) == message
                assert peer.ping().wait(10)
        server.stdin.close()
