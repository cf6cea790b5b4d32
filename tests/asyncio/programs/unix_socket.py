"""Over a Unix socket."""

import os
import tempfile

from websockets.asyncio.client import unix_connect
from websockets.asyncio.server import unix_serve


async def echo(websocket):
    async for message in websocket:
        await websocket.send(f"{websocket.request.path} {websocket.request.headers['Host']} {message}")


async def main():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "socket")
        async with unix_serve(echo, path):
            async with unix_connect(path) as websocket:
                await websocket.send("hello")
                print(await websocket.recv(), websocket.remote_address == path)
            async with unix_connect(path, "ws://example.com:8000/a?b=c") as websocket:
                await websocket.send("hello")
                print(await websocket.recv())
                print(websocket.state.name)
