"""Long messages in pieces: from a generator, an asynchronous one, a list; received piece by piece or whole."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)
        pieces = [piece async for piece in websocket.recv_streaming()]
        await websocket.send("in pieces:")
        await websocket.send(pieces)


def numbers():
    for number in range(3):
        yield f"{number} é "


async def ticks():
    for number in range(4):
        await asyncio.sleep(0)
        yield bytes([number])


async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for compression in ("deflate", None):
            async with connect(uri, compression=compression) as websocket:
                for message, whole in (
                    (numbers(), "".join(numbers())),
                    (ticks(), bytes(range(4))),
                    (["one"], "one"),
                    ([bytearray(b"a"), memoryview(b"b"), b"c"], b"abc"),
                    ("plain", "plain"),
                ):
                    await websocket.send("first")
                    print(await websocket.recv())
                    await websocket.send(message)
                    print(await websocket.recv())
                    pieces = [piece async for piece in websocket.recv_streaming()]
                    print(type(pieces[0]).__name__, type(whole)().join(pieces) == whole)
                await websocket.send("first")
                await websocket.recv()
                await websocket.send([])
                await websocket.send("not empty")
                print(await websocket.recv())
                print(b"".join([piece async for piece in websocket.recv_streaming(decode=False)]))
                await websocket.send("é", text=False)
                print(await websocket.recv())
                await websocket.send(["b", "c"], text=False)
                print(await websocket.recv(), await websocket.recv(decode=True))
                await websocket.send("é".encode(), text=True)
                print(await websocket.recv(decode=False))
