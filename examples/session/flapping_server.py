"""A server that goes away every second, and a feed of numbered events: what clients have to cope with.

    python flapping_server.py [--port PORT]

A client says ``{"after": 17}`` and gets all events after number 17, and those that follow. Orders, ``{"order": 5}``,
become events, once each: the same order may come twice, from a client that does not know whether the first one arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random

from wsproto_fast.asyncio import Group, ServerConnection, serve

UP, DOWN = 1.0, 0.3  # seconds
EVENTS_PER_SECOND = 50


class Feed:
    """Events that outlive connections."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.orders: set[int] = set()
        self.readers = Group(policy="disconnect")  # who misses one reconnects, and asks for it

    def add(self, content: str) -> None:
        event = json.dumps({"number": len(self.events) + 1, "content": content})
        self.events.append(event)
        self.readers.broadcast(event)

    async def make(self) -> None:
        while True:
            await asyncio.sleep(1 / EVENTS_PER_SECOND)
            self.add(f"temperature {random.gauss(20, 2):.1f}")

    async def serve(self, connection: ServerConnection) -> None:
        async for text in connection:
            request = json.loads(text)
            if "after" in request:
                for event in self.events[request["after"] :]:
                    connection.try_send(event)
                self.readers.add(connection)
            elif request["order"] not in self.orders:
                self.orders.add(request["order"])
                self.add(f"order {request['order']}")


async def main(port: int) -> None:
    feed = Feed()
    making = asyncio.create_task(feed.make())
    try:
        while True:
            async with serve(feed.serve, "127.0.0.1", port, write_limit=2**24) as server:
                port = server.sockets[0].getsockname()[1]
                print(f"Listening on ws://127.0.0.1:{port}", flush=True)
                await asyncio.sleep(UP)
            print("Gone", flush=True)
            await asyncio.sleep(DOWN)
    finally:
        making.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8765)
    try:
        asyncio.run(main(parser.parse_args().port))
    except KeyboardInterrupt:
        pass
