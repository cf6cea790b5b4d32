"""Requests and responses as JSON by hand, several under way at once."""

import asyncio
import itertools
import json

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def serve_requests(websocket):
    async for message in websocket:
        try:
            request = json.loads(message)
            result = {"add": lambda a, b: a + b, "upper": str.upper}[request["method"]](*request["params"])
            response = {"id": request["id"], "result": result}
        except Exception as exc:
            response = {"error": type(exc).__name__}
        await websocket.send(json.dumps(response))


class Client:
    def __init__(self, websocket):
        self.websocket = websocket
        self.ids = itertools.count()
        self.pending = {}

    async def run(self):
        async for message in self.websocket:
            response = json.loads(message)
            if "id" in response:
                self.pending.pop(response["id"]).set_result(response["result"])
            else:
                print(response)

    async def call(self, method, *params):
        number = next(self.ids)
        self.pending[number] = asyncio.get_running_loop().create_future()
        await self.websocket.send(json.dumps({"id": number, "method": method, "params": params}))
        return await self.pending[number]


async def main():
    async with serve(serve_requests, "127.0.0.1", 0) as server:
        async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as websocket:
            client = Client(websocket)
            task = asyncio.create_task(client.run())
            calls = (client.call("add", number, 1) for number in range(200))
            print(await asyncio.gather(*calls) == list(range(1, 201)), await client.call("upper", "ß é"))
            await websocket.send("no json")
            await websocket.send(b'{"method": "nothing"}')
            print(await client.call("add", [1], [2]))
        await task
        print(client.pending)
