"""Connection classes of one's own: a new attribute, a method that does more, a factory function."""


from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, broadcast, serve


class Account(ServerConnection):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.messages = 0
        self.user = None

    async def send(self, message, *args, **kwargs):
        self.messages += 1
        await super().send(f"{self.messages}: {message}", *args, **kwargs)

    def respond(self, status, text):
        response = super().respond(status, text)
        response.headers["X-Account"] = "yes"
        return response


class Loud(ClientConnection):
    async def recv(self, *args, **kwargs):
        return (await super().recv(*args, **kwargs)).upper()


class Counting(connect):
    made = 0

    async def __aenter__(self):
        type(self).made += 1
        return await super().__aenter__()


async def handler(websocket):
    print(type(websocket).__name__, isinstance(websocket, ServerConnection), hash(websocket) == hash(websocket))
    websocket.user = await websocket.recv()
    await websocket.send(f"hello {websocket.user}")
    await websocket.send("again")
    print(websocket.messages, len(websocket.server.connections))
    broadcast({websocket}, "to all")


async def main():
    async with serve(handler, "127.0.0.1", 0, create_connection=Account) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri, create_connection=Loud) as websocket:
            await websocket.send("Ada")
            print(type(websocket).__name__, await websocket.recv(), await websocket.recv(), await websocket.recv())
            print([message async for message in websocket])
        async with Counting(uri) as websocket:
            await websocket.send("Bob")
            print(await websocket.recv(), Counting.made)
    async with serve(handler, "127.0.0.1", 0, create_connection=lambda *args, **kwargs: Account(*args, **kwargs)) as s:
        async with connect(f"ws://127.0.0.1:{s.sockets[0].getsockname()[1]}/") as websocket:
            await websocket.send("Eve")
            print([message async for message in websocket])
