"""A browser as a peer: a page in a headless Chromium that talks to servers of ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from aio import NODE_DIRECTORY, ROOT, chromium, node_with, run, serving, until, uri_of
from conversations import MIB, answer
from test_aio_node import Node

from wsproto_fast.asyncio import ServerConnection
from wsproto_fast.exceptions import ConnectionClosed
from wsproto_fast.http11 import Request, Response

pytestmark = pytest.mark.external

CLOSES = [(1000, ""), (1001, "going"), (1011, ""), (3000, "registered"), (4999, "priväte")]
PAGE_CLOSES = [(1000, ""), (3000, "registered"), (4999, "priväte")]  # a page may send no other


def page(connection: ServerConnection, request: Request) -> Response | None:
    if request.path != "/page":
        return None
    response = connection.respond(200, "<!doctype html><title>Peer</title>")
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    return response


def test_browser(tmp_path: Path) -> None:
    program, browser = node_with("playwright-core"), chromium()
    ended: list[tuple[int | None, str | None]] = []

    async def handler(ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            if ws.request is not None and ws.request.path == "/sink":
                total = 0
                while not isinstance(message := await ws.recv(), str):
                    total += len(message)
                await ws.send(str(total))
            await answer(ws)
        await ws.wait_closed()
        ended.append((ws.protocol.close_code, ws.protocol.close_reason))

    async def main() -> None:
        options: dict[str, Any] = {
            "process_request": page,
            "subprotocols": ["best", "good"],
            "origins": [re.compile(r"http://127\.0\.0\.1:\d+"), None],
        }
        async with serving(handler, **options) as compressed, serving(handler, compression=None, **options) as plain:
            address = uri_of(compressed, "/page").replace("ws:", "http:")
            script = [program, str(ROOT / "tests" / "node" / "browser.mjs"), str(NODE_DIRECTORY), browser, address]
            process = await asyncio.create_subprocess_exec(
                *(*script, uri_of(compressed), uri_of(plain), str(tmp_path / "profile")),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                seen = await Node(process).read()
                for name, extensions in [("compressed", "permessage-deflate"), ("plain", "")]:
                    assert seen[name]["wrong"] == []
                    assert seen[name]["extensions"].split(";")[0] == extensions
                    assert seen[name]["protocol"] == "good"
                    assert seen[name]["answers"] == ["frägments", "pinged"]
                    assert (seen[name]["code"], seen[name]["wasClean"]) == (1005, True)  # close() without a code
                assert seen["many"] == [True, True]
                for buffered in seen["buffered"]:
                    assert buffered["total"] == 16 * MIB
                    assert 0 < buffered["amount"] <= 16 * MIB
                closes = [(event["code"], event["reason"]) for event in seen["closes"]["seen"]]
                assert closes == CLOSES + PAGE_CLOSES
                assert all(event["wasClean"] for event in seen["closes"]["seen"])
                assert seen["closes"]["large"]["code"] == 1009
                assert seen["closes"]["refused"] == {"code": 1006, "reason": "", "wasClean": False}
                await until(lambda: len(ended) == 6 + len(CLOSES + PAGE_CLOSES) + 1)  # the handlers are told last
                assert ended == [(1005, "")] * 6 + CLOSES + PAGE_CLOSES + [(1009, ended[-1][1])]
                assert await Node(process).read() is None
                compressed.close()
                assert await Node(process).read() == {"code": 1001, "reason": "", "wasClean": True}
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    run(main(), limit=60)
