"""The smaller programs of examples/: market data, a session that comes back, a bot in threads, uploads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import ROOT
from running import LIMIT, Program, running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import wsproto_fast.threading

pytestmark = pytest.mark.external


def test_market_data() -> None:
    with running("market_data.py", "--port", "0", "--seconds", "2") as program:
        with wsproto_fast.threading.connect(program.uri, proxy=None) as connection:
            tick = json.loads(connection.recv(LIMIT))
            assert tick["symbol"][:3] != tick["symbol"][3:]
            assert len(tick["book"]) == 61
        lines = program.end()
    feed, fast, slow, same = lines[-4:]
    ticks = int(re.search(r"feed: (\d+) ticks", feed)[1])  # type: ignore[index]
    assert fast.startswith(f"fast client: {ticks} ticks")
    assert int(re.search(r"slow client: (\d+) ticks", slow)[1]) < ticks / 2  # type: ignore[index]
    assert same == "both have the same newest prices: yes"


def test_session() -> None:
    with running("session/flapping_server.py", "--port", "0") as server:
        with running("session/client.py", server.uri, "--seconds", "3") as client:
            last = client.end()[-1]
        server.interrupt()
        assert server.end()
    events, orders, connections = map(int, re.findall(r"\d+", last))
    assert "without a gap" in last
    assert events > 100
    assert orders >= 20
    assert connections >= 2


@contextlib.contextmanager
def chat() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "wsproto_fast", "broadcast", "--port", "0"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()
            process.wait(LIMIT)


def ask(connection: Any, line: str) -> str:
    connection.send(line)
    return str(connection.recv(LIMIT))


def test_bot() -> None:
    with chat() as uri, connect(uri, proxy=None) as connection:
        assert connection.ping().wait(LIMIT)
        with running("threaded_bot.py", uri) as bot:
            assert connection.recv(LIMIT) == "bot: hello, I know !help"
            connection.send("hello, bot")  # nothing for it
            assert ask(connection, "!help") == "bot: !time, !roll 2d6, !remind SECONDS TEXT"
            assert ask(connection, "!") == "bot: !time, !roll 2d6, !remind SECONDS TEXT"
            assert re.fullmatch(r"bot: \d\d:\d\d:\d\d", ask(connection, "!time"))
            one, two, total = map(int, re.findall(r"\d+", ask(connection, "!roll 2d6")))
            assert one + two == total
            assert max(one, two) <= 6
            assert ask(connection, "!roll many") == "bot: !roll 2d6 rolls two dice with six sides"
            assert ask(connection, "!remind tea") == "bot: !remind 5 tea says so in five seconds"
            assert ask(connection, "!remind 999 cake") == "bot: in 999 seconds: cake"
            assert ask(connection, "!remind 0.1 tea") == "bot: in 0.1 seconds: tea"
            assert connection.recv(LIMIT) == "bot: it is time: tea"
            bot.interrupt()
            assert connection.recv(LIMIT) == "bot: goodbye"
            assert bot.end() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def uploads(folder: Path) -> Iterator[Program]:
    with running("upload/server.py", str(folder), "--port", "0", "--limit", "50000000") as server:
        yield server


@pytest.mark.parametrize("size", [0, 1, 2**16, 30_000_001])
def test_upload(uploads: Program, folder: Path, tmp_path: Path, size: int) -> None:
    file = tmp_path / "some file.bin"
    file.write_bytes(os.urandom(size))
    with running("upload/client.py", uploads.uri, str(file)) as client:
        lines = client.end()
    assert lines[-1] == hashlib.sha256(file.read_bytes()).hexdigest()
    if size:
        assert lines[-2].endswith("some file.bin: 100 %")
    assert (folder / "some file.bin").read_bytes() == file.read_bytes()
    assert [path.name for path in folder.iterdir()] == ["some file.bin"]


def test_upload_of_too_much(uploads: Program, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(50_000_001)
    with running("upload/client.py", uploads.uri, str(file)) as client:
        assert client.process.wait(LIMIT) == 1
        client._reader.join(LIMIT)
        assert client._rest()[-1].endswith("not uploaded: more than 50000000 bytes")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "body", "error"),
    [
        ('{"name": "../evil", "size": 1}', [b"x"], "that is no name for a file"),
        ('{"name": ".hidden", "size": 1}', [b"x"], "that is no name for a file"),
        ('{"name": "x", "size": 3}', [b"ab", b"cd"], "more than the 3 bytes that were announced"),
        ('{"name": "x", "size": 3}', [b"a", b"b"], "2 bytes in place of 3"),
        ("no json", [], "Expecting value"),
    ],
)
def test_uploads_that_are_refused(uploads: Program, folder: Path, header: str, body: list[bytes], error: str) -> None:
    with connect(uploads.uri, proxy=None) as connection:
        connection.send(header)
        with contextlib.suppress(ConnectionClosed):
            if body:
                connection.send(body)
        assert error in json.loads(connection.recv(LIMIT))["error"]
        with pytest.raises(ConnectionClosed):
            connection.recv(LIMIT)
        assert connection.close_code == 1008
    assert list(folder.iterdir()) == []


def test_an_upload_that_is_cut_off(uploads: Program, folder: Path) -> None:
    with connect(uploads.uri, proxy=None) as connection:
        connection.send('{"name": "x", "size": 3}')

        def chunks() -> Iterator[bytes]:
            yield b"a"
            while not list(folder.iterdir()):
                pass
            connection.socket.shutdown(2)
            yield b"b"

        with pytest.raises(ConnectionClosed):
            connection.send(chunks())
            connection.recv(LIMIT)
    with connect(uploads.uri, proxy=None) as connection:  # by now it has noticed, and goes on
        connection.send('{"name": "y", "size": 1}')
        connection.send([b"y"])
        assert json.loads(connection.recv(LIMIT))["size"] == 1
    while len(list(folder.iterdir())) > 1:
        pass
    assert [path.name for path in folder.iterdir()] == ["y"]
