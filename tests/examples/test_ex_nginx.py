"""The configuration of docs/deploying.md in an nginx, with the chat behind it: clients, a browser, and silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets.exceptions
from aio import ROOT, run
from ex_browser import Browser, load
from example_programs import connects
from peers import make_tls, missing
from redis_servers import free_port

from wsproto_fast.asyncio import ServerConnection, connect, unix_serve
from wsproto_fast.exceptions import ConnectionClosed, InvalidStatus
from wsproto_fast.http11 import Request, Response

pytestmark = pytest.mark.external

AROUND = """
daemon off;
master_process off;  # one process, and as whoever runs the tests
pid nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{documented}
}}
"""


def program() -> str:
    path = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if path is None:
        missing("nginx is not installed (Debian, Ubuntu: apt-get install nginx-light)")
    assert path is not None
    return path


def documented(changes: dict[str, str]) -> str:
    """The page's configuration, with what must differ here. Each text that is to be replaced must be there."""
    [text] = re.findall(r"^```nginx\n(.*?)^```", (ROOT / "docs" / "deploying.md").read_text(), re.MULTILINE | re.DOTALL)
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return str(text)


@contextlib.asynccontextmanager
async def nginx(directory: Path, changes: dict[str, str]) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """It runs in front of ``1.sock`` and ``2.sock`` of the directory. Gives its port, and a context that trusts it."""
    command = program()
    port = free_port()
    files, trusting, _ = make_tls(directory)
    here = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/run/chat/": f"{directory}/",
        "/etc/ssl/chat.pem": files["cert"],
        "/etc/ssl/chat.key": files["key"],
    }
    text = documented({**here, **changes})
    (directory / "nginx.conf").write_text(AROUND.format(documented=text))
    process = await asyncio.create_subprocess_exec(
        *(command, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        lines = []
        async for line in process.stderr:
            lines.append(line.decode())
            if b"event method" in line:  # it listens by now
                break
        else:
            pytest.fail("nginx has ended:\n" + "".join(lines))
        yield port, trusting
    finally:
        process.terminate()
        await process.communicate()


class Handshakes:
    """What reached the server, and what it has answered."""

    def __init__(self) -> None:
        self.seen: list[tuple[Request, Response]] = []

    def record(self, connection: ServerConnection, request: Request, response: Response) -> None:
        if response.status_code == 101:
            self.seen.append((request, response))


@contextlib.asynccontextmanager
async def chat_behind_nginx(
    directory: Path, handshakes: Handshakes, changes: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """The address of the page, ending in a slash. Both sockets lead to the same rooms."""
    chat = load("chat")
    options = {"process_request": chat.process_request, "process_response": handshakes.record, **options}
    async with contextlib.AsyncExitStack() as stack:
        for name in ("1.sock", "2.sock"):
            await stack.enter_async_context(unix_serve(chat.chat, str(directory / name), **options))
        port, trusting = await stack.enter_async_context(nginx(directory, changes or {}))
        yield f"https://localhost:{port}/", trusting


@connects
def test_client(open_connection: Any, tmp_path: Path) -> None:
    handshakes = Handshakes()

    async def main() -> None:
        async with chat_behind_nginx(tmp_path, handshakes) as (address, trusting):
            room = address.replace("https", "wss") + "room/tea"
            options = {"ssl": trusting, "origin": address.rstrip("/"), "proxy": None}
            async with open_connection(room, **options) as one, open_connection(room, **options) as two:
                for connection, nick in [(one, "Ada"), (two, "Grace")]:
                    await connection.send(json.dumps({"nick": nick}))
                    assert json.loads(await connection.recv())["nick"] == nick
                await two.send(json.dumps({"say": "ü" * 1000}))
                while (heard := json.loads(await one.recv()))["type"] != "said":
                    pass
                assert heard["text"] == "ü" * 1000
                await two.close(4321, "enough")
                assert two.close_code == 4321
            with pytest.raises((InvalidStatus, websockets.exceptions.InvalidStatus), match="403"):
                await open_connection(room, **{**options, "origin": "https://evil.example"})
            forged = {"additional_headers": {"X-Forwarded-For": "192.0.2.1"}}
            async with open_connection(room, **options, **forged):
                pass

    run(main())
    for request, response in handshakes.seen:
        assert request.headers["X-Forwarded-Proto"] == "https"
        assert response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    assert [request.headers["X-Forwarded-For"] for request, _ in handshakes.seen] == [
        "127.0.0.1", "127.0.0.1", "192.0.2.1, 127.0.0.1"  # the last is the one that nginx has seen
    ]  # fmt: skip


def test_keepalive_outlasts_the_read_timeout(tmp_path: Path) -> None:
    """A connection on which nobody says anything is held by pings; without them nginx ends it."""
    changes = {"proxy_read_timeout 60s;": "proxy_read_timeout 1s;"}
    (tmp_path / "pings").mkdir()
    (tmp_path / "none").mkdir()

    async def main() -> None:
        handshakes = Handshakes()
        async with contextlib.AsyncExitStack() as stack:
            servers = [
                await stack.enter_async_context(
                    chat_behind_nginx(tmp_path / name, handshakes, changes, ping_interval=interval)
                )
                for name, interval in [("pings", 0.25), ("none", None)]
            ]
            held, cut = [
                await stack.enter_async_context(
                    connect(address.replace("https", "wss") + "room/tea", ssl=trusting, ping_interval=None)
                )
                for address, trusting in servers
            ]
            with pytest.raises(ConnectionClosed):  # a second of silence, of which `held` has had more
                await cut.recv()
            assert cut.close_code == 1006
            await held.send('{"nick": "Ada"}')
            assert json.loads(await held.recv())["nick"] == "Ada"

    run(main())


def test_browser(tmp_path: Path) -> None:
    handshakes = Handshakes()

    async def main() -> None:
        async with chat_behind_nginx(tmp_path, handshakes) as (address, _):
            async with Browser(tmp_path, "nginx", talk=address) as browser:
                seen = await browser.read()
                assert seen["people"] == ["Ada", "Grace"]
                assert seen["said"][:2] == ["<b>Hello</b>, Grace!", "Hello, Ada. Is this fast?"]
                assert seen["elsewhere"] == []
                assert {url.split(":")[0] for url in (await browser.read())["sockets"]} == {"wss"}
                await browser.end()

    run(main(), limit=60)
    assert len(handshakes.seen) == 4
    for request, response in handshakes.seen:
        assert request.headers["X-Forwarded-For"] == "127.0.0.1"
        assert "Chrom" in request.headers["User-Agent"]
        assert response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
