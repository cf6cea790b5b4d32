"""A live dashboard: the server pushes ten times a second, pages draw.

    python examples/dashboard/server.py [--host HOST] [--port PORT]

The figures are those of a simulated power grid in which a day takes two minutes. A page gets the last minute at once,
then each sample as it comes. Nobody waits for a page that does not keep up: of what is late it gets the newest sample
only, and sees by its number how many it has missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from wsproto_fast import Request, Response
from wsproto_fast.asyncio import Group, Server, ServerConnection, serve

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import pages  # noqa: E402

PORT = 8767
TICK = 0.1  # seconds between two samples
HISTORY = 600  # samples, a minute
DAY = 1200  # samples
FILES = {
    **pages.SHARED,
    "/": HERE / "dashboard.html",
    "/dashboard.css": HERE / "dashboard.css",
    "/dashboard.js": HERE / "dashboard.js",
}


class Grid:
    """What is generated and used, in MW: the sun follows the day, the wind wanders, gas fills the gap with some delay.
    The frequency, in Hz, shows how far it is behind."""

    def __init__(self) -> None:
        self.number = 0
        self.weather = random.Random()
        self.wind, self.clouds, self.gas, self.frequency = 320.0, 0.8, 300.0, 50.0

    def step(self) -> dict[str, float]:
        """The next sample."""
        self.number += 1
        chance = self.weather.gauss
        hour = self.number / DAY % 1 * 24 + 6
        self.wind = min(max(self.wind + chance(0, 6) + (300 - self.wind) * 0.004, 20), 600)
        self.clouds = min(max(self.clouds + chance(0, 0.012) + (0.8 - self.clouds) * 0.01, 0.3), 1)
        sun = 520 * max(math.sin((hour - 6) / 12 * math.pi), 0) * self.clouds
        habits = 140 * math.sin((hour - 9) / 12 * math.pi) + 90 * math.sin((hour - 6) / 6 * math.pi)
        demand = 780 + habits + chance(0, 4)
        missing = demand - self.wind - sun - 150 - self.gas
        self.gas = max(self.gas + missing * 0.12, 0)
        self.frequency += (50 - missing * 0.0008 - self.frequency) * 0.3
        return {
            "n": self.number,
            "sun": round(sun),
            "wind": round(self.wind),
            "hydro": 150,
            "gas": round(self.gas),
            "demand": round(demand),
            "frequency": round(self.frequency, 3),
        }


class Feed:
    """Pushes samples to whoever watches."""

    def __init__(self) -> None:
        self.grid = Grid()
        self.watchers = Group(policy="latest", budget=2**16)
        self.samples = deque((self.grid.step() for _ in range(HISTORY)), maxlen=HISTORY)

    async def watch(self, connection: ServerConnection) -> None:
        """One page. It says nothing."""
        await connection.send(json.dumps({"tick": TICK, "samples": list(self.samples)}))
        self.watchers.add(connection)
        await connection.wait_closed()

    def push(self) -> None:
        sample = self.grid.step()
        self.samples.append(sample)
        self.watchers.broadcast(json.dumps({"watchers": len(self.watchers), "samples": [sample]}), key="sample")

    async def run(self) -> None:
        """For ever. Late once does not mean late from then on."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.push()
            due = max(due + TICK, loop.time())
            await asyncio.sleep(due - loop.time())


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    """Pages and files for plain HTTP; through with a WebSocket that a page of ours asks for."""
    if request.path == "/feed":
        return pages.only_our_page(connection, request)
    return pages.page(connection, FILES.get(request.path))


@contextlib.asynccontextmanager
async def start(host: str | None, port: int | None, **options: Any) -> AsyncIterator[Server]:
    feed = Feed()
    async with serve(
        feed.watch, host, port, process_request=process_request, max_size=1024, close_timeout=2, **options
    ) as server:
        running = asyncio.create_task(feed.run())
        try:
            yield server
        finally:
            running.cancel()


if __name__ == "__main__":
    pages.main(start, "A live dashboard.", PORT)
