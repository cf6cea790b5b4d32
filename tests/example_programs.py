"""Programs of examples/ as processes that serve a page, the page's files over plain HTTP, clients for the rest."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import urllib.request
from email.message import Message

import pytest
import websockets.asyncio.client
from peers import ROOT

from wsproto_fast.asyncio import connect

__all__ = ["Program", "connects", "get"]

#: For a test's ``open_connection``.
connects = pytest.mark.parametrize(
    "open_connection", [connect, websockets.asyncio.client.connect], ids=["ours", "websockets"]
)


class Program:
    """The server.py of an example, running; it says on its first line where."""

    def __init__(self, example: str, *arguments: str) -> None:
        self._command = [sys.executable, str(ROOT / "examples" / example / "server.py"), *arguments]

    async def __aenter__(self) -> Program:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        match = re.search(r"http://localhost:(\d+)/", line)
        assert match is not None, line
        self.port = int(match[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    async def end(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; it must end well."""
        self.process.send_signal(signal_number)
        assert await self.process.wait() == 0

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def get(url: str) -> tuple[Message, str]:
    """Headers and text of a page. Raises urllib's HTTPError."""

    def read() -> tuple[Message, str]:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.headers, response.read().decode()

    return await asyncio.get_running_loop().run_in_executor(None, read)
