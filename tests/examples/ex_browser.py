"""What tests with a browser in front of the examples' pages share. Knows which example listens how."""

from __future__ import annotations

import asyncio
import contextlib
import json
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aio import NODE_DIRECTORY, ROOT, chromium, node_with

from wsproto_fast.asyncio import serve

__all__ = ["Browser", "load", "start_demo"]

#: Pictures of the pages, to be looked at.
SCREENSHOTS = ROOT / "build" / "screenshots"


def load(example: str) -> SimpleNamespace:
    """The server.py of an example as a module, with a state of its own."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / example / "server.py")))


@contextlib.asynccontextmanager
async def start_demo(demo: SimpleNamespace, host: str, port: int, **options: Any) -> AsyncIterator[Any]:
    """The demo as ``start`` of the others: with options for ``serve``."""
    room = demo.Room()
    async with serve(room.handle, host, port, process_request=demo.process_request, **options) as server:
        ticking = asyncio.create_task(room.tick())
        try:
            yield server
        finally:
            ticking.cancel()


class Browser:
    """tests/node/example_pages.mjs, going through examples: ``Browser(tmp_path, "ws", chat="http://localhost:8766/")``."""

    def __init__(self, directory: Path, name: str, **addresses: str) -> None:
        screenshots = SCREENSHOTS / name
        screenshots.mkdir(parents=True, exist_ok=True)
        script = str(ROOT / "tests" / "node" / "example_pages.mjs")
        self._command = [node_with("playwright-core"), script, str(NODE_DIRECTORY), chromium()]
        self._command += [str(directory / "profile"), str(screenshots)]
        self._command += [f"{example}={address}" for example, address in addresses.items()]

    async def __aenter__(self) -> Browser:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def read(self) -> Any:
        """The next thing it tells."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the browser's script has ended; see above"
        return json.loads(line)

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def end(self) -> None:
        """It has found nothing wrong."""
        assert await self._process.wait() == 0

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
