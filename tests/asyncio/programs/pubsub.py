"""Publish and subscribe: a queue and a relay task for each subscriber, so that a slow one only delays itself."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

TOPICS = {"news": set(), "sport": set()}


async def relay(queue, websocket):
    while True:
        message = await queue.get()
        await websocket.send(message)


async def subscriber(websocket):
    topic = websocket.request.path.strip("/")
    if topic not in TOPICS:
        await websocket.close(1008, "no such topic")
        return
    queue = asyncio.Queue()
    TOPICS[topic].add(queue)
    task = asyncio.create_task(relay(queue, websocket))
    try:
        await websocket.wait_closed()
    finally:
        TOPICS[topic].remove(queue)
        task.cancel()


def publish(topic, message):
    for queue in TOPICS[topic]:
        queue.put_nowait(message)


async def main():
    async with serve(subscriber, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(f"{uri}/news") as one, connect(f"{uri}/news") as two, connect(f"{uri}/sport") as three:
            while sum(map(len, TOPICS.values())) < 3:
                await asyncio.sleep(0.001)
            for number in range(100):
                publish("news", f"headline {number}")
            publish("sport", b"\x00\x01")
            for websocket in (one, two):
                received = [await websocket.recv() for _ in range(100)]
                print(received[0], received[-1], len(set(received)))
            print(await three.recv())
        try:
            async with connect(f"{uri}/weather") as websocket:
                await websocket.recv()
        except ConnectionClosed as exc:
            print(type(exc).__name__, exc, exc.rcvd, exc.sent, exc.rcvd_then_sent)
    print(TOPICS)
