"""A counter that all users share and see, and the number of users."""

import json
import logging

from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve

USERS = set()
VALUE = 0


def users_event():
    return json.dumps({"type": "users", "count": len(USERS)})


def value_event():
    return json.dumps({"type": "value", "value": VALUE})


async def counter(websocket):
    global VALUE
    try:
        USERS.add(websocket)
        broadcast(USERS, users_event())
        await websocket.send(value_event())
        async for message in websocket:
            event = json.loads(message)
            if event["action"] == "minus":
                VALUE -= 1
                broadcast(USERS, value_event())
            elif event["action"] == "plus":
                VALUE += 1
                broadcast(USERS, value_event())
            else:
                logging.error("unsupported event: %s", event)
    finally:
        USERS.remove(websocket)
        broadcast(USERS, users_event())


async def main():
    async with serve(counter, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri) as first:
            print(await first.recv(), await first.recv())
            async with connect(uri) as second:
                print(await first.recv(), await second.recv(), await second.recv())
                for action in ("plus", "plus", "minus", "plus"):
                    await second.send(json.dumps({"action": action}))
                    print(await first.recv(), await second.recv())
            print(await first.recv())
    print(len(USERS), VALUE)
