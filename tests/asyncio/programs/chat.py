"""A chat room: every message goes to everybody, and so do arrivals and departures."""

import json

from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve

ROOM = {}


def announce(**event):
    broadcast(list(ROOM), json.dumps(event))


async def chat(websocket):
    hello = json.loads(await websocket.recv())
    name = hello["name"]
    ROOM[websocket] = name
    announce(type="joined", name=name, here=len(ROOM))
    try:
        async for message in websocket:
            announce(type="said", name=name, text=json.loads(message)["text"])
    finally:
        del ROOM[websocket]
        announce(type="left", name=name, here=len(ROOM))


async def guest(uri, name):
    websocket = await connect(uri)
    await websocket.send(json.dumps({"name": name}))
    return websocket


async def hear(websocket, times):
    for _ in range(times):
        print(json.loads(await websocket.recv()))


async def main():
    async with serve(chat, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        ada = await guest(uri, "Ada")
        await hear(ada, 1)
        bob = await guest(uri, "Bob")
        await hear(ada, 1)
        await hear(bob, 1)
        await ada.send(json.dumps({"text": "hello"}))
        await bob.send(json.dumps({"text": "héllo 🙂"}))
        heard = sorted([await ada.recv(), await ada.recv()])
        print(heard)
        print(sorted([await bob.recv(), await bob.recv()]) == heard)
        await bob.close()
        await hear(ada, 1)
        print(len(server.connections))
        await ada.close()
        print(ada.close_code, repr(ada.close_reason), ada.state.name)
    print(ROOM)
