"""Prices for everybody, however slowly they read: a client that is behind gets each symbol's newest price, no backlog.

    python market_data.py [--port PORT] [--seconds SECONDS]

Runs the feed, a client that reads all of it, and one that pauses after each message, and tells what each of them got.
Meanwhile others may look: ``python -m wsproto_fast connect ws://localhost:8765 --json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import time
from dataclasses import dataclass, field

from wsproto_fast import ConnectionClosed
from wsproto_fast.asyncio import Group, ServerConnection, connect, serve

SYMBOLS = [f"{one}{other}" for one in ("EUR", "GBP", "JPY", "CHF", "SEK") for other in ("USD", "CAD", "AUD", "NZD")]
TICKS_PER_SECOND = 2000
#: What the system buffers for one client is old when it is read, so there is little room for it.
SYSTEM_BUFFER = 2**14


@dataclass
class Seen:
    """What one client has got."""

    ticks: int = 0
    oldest: float = 0.0  # seconds from when a price was made to when it was read
    numbers: dict[str, int] = field(default_factory=dict)  # of the newest tick of each symbol

    def __str__(self) -> str:
        return f"{self.ticks} ticks, the oldest {self.oldest * 1000:.0f} ms"


async def publish(group: Group, seconds: float) -> int:
    """Make prices. Returns how many."""
    prices = dict.fromkeys(SYMBOLS, 1.0)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for _ in range(TICKS_PER_SECOND // 100):
            number += 1
            symbol = random.choice(SYMBOLS)
            prices[symbol] *= 1 + random.gauss(0, 1e-4)
            book = [[round(prices[symbol] * (1 + level / 1e4), 6), random.randrange(1000)] for level in range(-30, 31)]
            tick = {"symbol": symbol, "number": number, "time": time.time(), "book": book}
            group.broadcast(json.dumps(tick), key=symbol)
        await asyncio.sleep(0.01)
    return number


async def watch(uri: str, pause: float) -> Seen:
    """Read until the feed ends, with a pause after each message."""
    seen = Seen()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SYSTEM_BUFFER)
    host, port = uri.removeprefix("ws://").split(":")
    sock.connect((host, int(port)))
    async with connect(uri, sock=sock, max_queue=4, compression=None) as connection:
        try:
            while True:
                tick = await connection.recv_json()
                seen.ticks += 1
                seen.oldest = max(seen.oldest, time.time() - tick["time"])
                seen.numbers[tick["symbol"]] = tick["number"]
                if pause:
                    await asyncio.sleep(pause)
        except ConnectionClosed:
            return seen


async def main(port: int, seconds: float) -> None:
    group = Group(policy="latest", budget=2**16)
    both = asyncio.Event()

    async def subscribe(connection: ServerConnection) -> None:
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SYSTEM_BUFFER)
        group.add(connection)
        if len(group) == 2:
            both.set()
        await connection.wait_closed()

    async with serve(subscribe, "127.0.0.1", port, compression=None, write_limit=2**12) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print(f"Listening on {uri}", flush=True)
        fast = asyncio.create_task(watch(uri, 0))
        slow = asyncio.create_task(watch(uri, 0.005))
        await both.wait()
        ticks = await publish(group, seconds)
        await asyncio.sleep(1)  # for the slow one to read the newest prices
        totals = group.totals
    print(f"feed: {ticks} ticks; sent {totals.sent}, waited {totals.queued}, replaced by newer ones {totals.dropped}")
    print(f"fast client: {await fast}")
    print(f"slow client: {await slow}")
    same = (await fast).numbers == (await slow).numbers
    print(f"both have the same newest prices: {'yes' if same else 'no'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.port, arguments.seconds))
