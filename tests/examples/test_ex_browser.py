"""Pages of examples/ in a headless Chromium, over ws and wss: what they show, and what the servers agreed to."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from aio import port_of, run, tls_contexts
from ex_browser import Browser, load, start_demo

from wsproto_fast.asyncio import ServerConnection
from wsproto_fast.http11 import Request, Response

pytestmark = pytest.mark.external

SAID = [
    "<b>Hello</b>, Grace!",
    "Hello, Ada. Is this fast?",
    "As fast as I can type 🐍",
    "And a longer line, so that one sees how the bubbles wrap when somebody has more to say than usual.",
    "I see it.",
]


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_pages(scheme: str, tmp_path: Path) -> None:
    agreed: list[tuple[str, str | None]] = []  # path and extensions of each handshake, as the server has answered it

    def record(connection: ServerConnection, request: Request, response: Response) -> None:
        if response.status_code == 101:
            agreed.append((request.path, response.headers.get("Sec-WebSocket-Extensions")))

    options: dict[str, Any] = {"process_response": record}
    if scheme == "wss":
        options["ssl"] = tls_contexts()[0]
    chat, dashboard, demo = map(load, ["chat", "dashboard", "demo"])

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            chatting = await chat.start("127.0.0.1", 0, **options)
            watched = await stack.enter_async_context(dashboard.start("127.0.0.1", 0, **options))
            shown = await stack.enter_async_context(start_demo(demo, "127.0.0.1", 0, **options))
            http = scheme.replace("ws", "http")
            ports = {"chat": port_of(chatting), "dashboard": port_of(watched), "demo": port_of(shown)}
            addresses = {example: f"{http}://localhost:{port}/" for example, port in ports.items()}
            browser = await stack.enter_async_context(Browser(tmp_path, scheme, **addresses))

            seen = await browser.read()
            assert seen == {
                "addresses": [f"{addresses['chat']}room/{room}" for room in ("lobby", "tea")],
                "people": ["Ada", "Grace"],
                "said": SAID,
                "mine": [SAID[0], *SAID[2:4]],
                "bold": 0,
                "elsewhere": [],
            }
            chatting.close()
            await chatting.wait_closed()
            browser.go_on()
            assert await browser.read() == "offline"
            await stack.enter_async_context(chat.start("127.0.0.1", ports["chat"], **options))
            browser.go_on()
            assert await browser.read() == {"people": ["Ada", "Grace"], "last": "written meanwhile"}

            seen = await browser.read()
            assert seen["drawn"] == seen["moving"] == [True] * 3
            assert seen["still"]
            assert seen["rate"] > 1
            assert 49 < seen["frequency"] < 51
            assert await browser.read() == {"people": "2", "said": ["over the wire"]}

            sockets = (await browser.read())["sockets"]
            origins = {example: address.replace("http", "ws") for example, address in addresses.items()}
            rooms = [f"{origins['chat']}room/{room}" for room in ("lobby", "tea")]
            assert sorted(url.partition("?")[0] for url in sockets) == sorted(
                [*rooms, f"{origins['dashboard']}feed", f"{origins['demo']}ws"]
            )
            await browser.end()

    run(main(), limit=100)
    assert {path.partition("?")[0] for path, _ in agreed} == {"/room/lobby", "/room/tea", "/feed", "/ws"}
    assert all(extensions is not None and "permessage-deflate" in extensions for _, extensions in agreed), agreed
