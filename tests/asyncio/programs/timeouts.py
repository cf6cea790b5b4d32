"""Servers that do not answer, close frames that are not answered, and a backlog that must wait."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError, InvalidHandshake, InvalidMessage


async def main():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    async def rude(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    async def gone(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    for server, arguments in ((silent, {"open_timeout": 0.05}), (rude, {}), (gone, {})):
        async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
            uri = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
            try:
                await connect(uri, **arguments)
            except TimeoutError as exc:
                print(type(exc).__name__, exc)
            except InvalidMessage as exc:
                print(type(exc).__name__, exc, isinstance(exc, InvalidHandshake), type(exc.__cause__).__name__)

    hold = asyncio.Event()

    async def no_hurry(websocket):
        websocket.transport.pause_reading()
        await websocket.send("ready")
        await hold.wait()
        websocket.transport.abort()

    async with serve(no_hurry, "127.0.0.1", 0) as server:
        websocket = await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", close_timeout=0.05)
        print(await websocket.recv())
        await websocket.close()
        print(websocket.state.name, websocket.close_code)
        try:
            await websocket.recv()
        except ConnectionClosedError as exc:
            print(exc)
        hold.set()

    received = []

    async def slow(websocket):
        await hold.wait()
        async for message in websocket:
            received.append(len(message))

    hold.clear()
    async with serve(slow, "127.0.0.1", 0, max_queue=(4, 1), compression=None) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri, compression=None, write_limit=(4096, 1024), max_queue=None) as websocket:
            sent = 0
            try:
                async with asyncio.timeout(0.3):
                    while True:
                        await websocket.send(bytes(100_000))
                        sent += 1
            except TimeoutError:
                print("the sender waits for the receiver")
            hold.set()
            await websocket.send(b"")
    print(set(received[:-1]), received[-1], len(received) - sent in (1, 2))
