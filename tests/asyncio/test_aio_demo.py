"""The demo: its server as a process, its page in a headless Chromium."""

from __future__ import annotations

import asyncio
import functools
import re
import signal
import socket
import urllib.error
from pathlib import Path

import pytest
from aio import NODE_DIRECTORY, ROOT, chromium, node_with, run
from example_programs import Program, get

from wsproto_fast.asyncio import connect
from wsproto_fast.exceptions import ConnectionClosedOK, InvalidStatus

Demo = functools.partial(Program, "demo")


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_pages_and_graceful_end(signal_number: int) -> None:
    async def main() -> None:
        async with Demo("--port", "0") as demo:
            headers, page = await get(demo.url)
            assert headers["Content-Type"] == "text/html; charset=utf-8"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page) == ["room.css", "room.js"]
            for name in ("room.css", "room.js"):
                _, text = await get(demo.url + name)
                assert re.findall(r"https?://|@import|innerHTML", text) == []
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await get(demo.url + "../server.py")
            async with connect(f"ws://127.0.0.1:{demo.port}/ws", origin=f"http://127.0.0.1:{demo.port}") as ws:
                assert '"welcome"' in await ws.recv()
                await demo.end(signal_number)
                with pytest.raises(ConnectionClosedOK):
                    while True:
                        await ws.recv()
                assert ws.close_code == 1001

    run(main())


def test_other_pages_are_refused() -> None:
    async def main() -> None:
        async with Demo("--port", "0") as demo:
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"ws://127.0.0.1:{demo.port}/ws", origin="http://evil.example")
            async with connect(f"ws://127.0.0.1:{demo.port}/ws") as ws:
                await ws.recv()
                await ws.send("[]")
                await ws.wait_closed()
                assert ws.close_code == 1003
            await demo.end()

    run(main())


def test_next_free_port() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("127.0.0.1", 8765))
                taken.listen()
            except OSError:
                pass  # somebody else has it: as good
            async with Demo() as demo:
                assert 8765 < demo.port < 8785
                await demo.end()

    run(main())


def test_two_tabs(tmp_path: Path) -> None:
    arguments = (node_with("playwright-core"), str(ROOT / "tests" / "node" / "demo_tabs.mjs"), str(NODE_DIRECTORY))
    browser = chromium()

    async def main() -> None:
        async with Demo("--port", "0") as demo:
            tabs = await asyncio.create_subprocess_exec(
                *(*arguments, browser, demo.url, str(tmp_path / "profile")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                assert tabs.stdin is not None
                assert tabs.stdout is not None
                assert await tabs.stdout.readline() == b"talked\n"
                await demo.end()
                assert await tabs.stdout.readline() == b"offline\n"
                async with Demo("--port", str(demo.port)) as again:
                    tabs.stdin.write(b"restarted\n")
                    assert await tabs.stdout.readline() == b"back\n"
                    assert await tabs.wait() == 0
                    await again.end()
            finally:
                if tabs.returncode is None:
                    tabs.kill()
                    await tabs.wait()

    run(main(), limit=90)
