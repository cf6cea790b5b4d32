"""A consumer and a producer on one connection: whichever ends first ends the other."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def consume(websocket, queue):
    async for message in websocket:
        await queue.put(message)


async def produce(websocket, queue):
    while True:
        message = await queue.get()
        if message == "enough":
            return
        await websocket.send(message.upper())


async def handler(websocket):
    queue = asyncio.Queue()
    tasks = [asyncio.create_task(consume(websocket, queue)), asyncio.create_task(produce(websocket, queue))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        print("first:", task.get_coro().__name__, task.exception())


async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri) as websocket:
            await websocket.send("one")
            await websocket.send("two")
            print(await websocket.recv(), await websocket.recv())
            await websocket.send("enough")
            async for message in websocket:
                print("unexpected", message)
            print(websocket.close_code, websocket.state.name)
        async with connect(uri) as websocket:
            await websocket.send("three")
            print(await websocket.recv())
        async with connect(uri) as websocket, asyncio.TaskGroup() as group:
            async def talk():
                for number in range(5):
                    await websocket.send(f"message {number}")
                await websocket.send("enough")

            async def listen():
                return [message async for message in websocket]

            group.create_task(talk())
            task = group.create_task(listen())
        print(task.result())
