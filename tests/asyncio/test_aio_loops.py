"""That the suite runs where it says: on the event loop that was asked for, with what is left behind found out."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aio import LOOP, ROOT, pair, run


def test_the_loop_that_was_asked_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert type(loop).__module__.split(".")[0] == LOOP
        assert loop.get_debug() is (os.environ.get("PYTHONASYNCIODEBUG", "") != "" or sys.flags.dev_mode)
        async with pair() as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"

    run(main())


#: Tests that leave something behind, and what debug mode says of it.
BAD_TESTS = """
import asyncio
from aio import run

async def nothing():
    pass

async def broken():
    raise KeyError

def test_unawaited():
    async def main():
        nothing()
    run(main())

def test_transport():
    async def main():
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    run(main())

def test_thread():
    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, loop.call_soon, print)
    run(main())

def test_exception():
    async def main():
        cycle = [asyncio.ensure_future(broken())]
        cycle.append(cycle)
        await asyncio.sleep(0)
    run(main())

def test_good():
    run(nothing())
"""
COMPLAINTS = ["was never awaited", "unclosed transport", "Non-thread-safe operation", "exception was never retrieved"]


@pytest.mark.external
def test_debug_mode_finds_out(tmp_path: Path) -> None:
    (tmp_path / "test_bad.py").write_text(BAD_TESTS)
    tests = ROOT / "tests"
    environment = {
        **os.environ,
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tests), str(tests / "asyncio")]),
        "WSPROTO_FAST_LOOP": "",
    }
    arguments = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "4 failed, 1 passed" in result.stdout, result.stdout + result.stderr
    for complaint in COMPLAINTS:
        assert complaint in result.stdout
