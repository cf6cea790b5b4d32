"""Only pages of our own may connect."""

import re

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus


async def handler(websocket):
    await websocket.send(websocket.request.headers.get("Origin", "no origin"))


async def main():
    for origins in (
        ["https://example.com"],
        ["https://example.com", None],
        [re.compile(r"https://(www|api)\.example\.com"), "http://localhost:8000"],
        [],
        None,
    ):
        async with serve(handler, "127.0.0.1", 0, origins=origins) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            for origin in (
                None,
                "https://example.com",
                "https://www.example.com",
                "https://www.example.com.evil.example",
                "http://localhost:8000",
                "null",
            ):
                try:
                    async with connect(uri, origin=origin) as websocket:
                        print(origin, "->", await websocket.recv())
                except InvalidStatus as exc:
                    print(origin, "->", exc, exc.response.body.decode().splitlines()[0])
