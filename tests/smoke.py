"""Does an installed package work? `python -I smoke.py compiled` or `pure`, in any folder but the project's."""

from __future__ import annotations

import asyncio
import sys
import threading

import wsproto_fast
from wsproto_fast import asyncio as for_asyncio
from wsproto_fast import threading as for_threads


async def on_asyncio() -> None:
    async def echo(connection: for_asyncio.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with for_asyncio.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with for_asyncio.connect(f"ws://127.0.0.1:{port}", proxy=None) as connection:
            for message in ("text", b"bytes", "long " * 20_000):
                await connection.send(message)
                assert await connection.recv() == message


def on_threads() -> None:
    def echo(connection: for_threads.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with for_threads.serve(echo, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with for_threads.connect(f"ws://127.0.0.1:{port}", proxy=None) as connection:
            for message in ("text", b"bytes", "long " * 20_000):
                connection.send(message)
                assert connection.recv() == message


assert {"compiled": True, "pure": False}[sys.argv[1]] is wsproto_fast.COMPILED
asyncio.run(on_asyncio())
if sys.platform != "win32":
    on_threads()
print(f"{wsproto_fast.__version__} works on {sys.version.split()[0]}, {sys.argv[1]}")
