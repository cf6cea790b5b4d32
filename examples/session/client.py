"""A client that misses nothing, of a server that comes and goes: see flapping_server.py.

    python client.py ws://localhost:8765 [--seconds SECONDS]

``Session`` reconnects. Each new connection is told which event was the last, and gets what was missed. Orders that are
made while there is no connection wait in the outbox; those of which no event came are sent again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

from wsproto_fast.asyncio import ClientConnection, Session, SessionState
from wsproto_fast.backoff import backoff


class Client:
    """Events received, and orders made."""

    def __init__(self, uri: str) -> None:
        self.session = Session(uri, on_open=self.on_open, on_state=self.on_state, reconnect_delays=delays)
        self.last = 0
        self.orders: set[int] = set()  # of which no event came yet
        self.done = 0
        self.connections = 0

    async def on_open(self, connection: ClientConnection) -> None:
        """Before anything else on a new connection."""
        self.connections += 1
        await connection.send(json.dumps({"after": self.last}))
        for number in sorted(self.orders):  # those that wait in the outbox come twice, which does no harm
            await connection.send(json.dumps({"order": number}))

    def on_state(self, session: Session, state: SessionState) -> None:
        print(f"{state.name.lower()}; {self.last} events, {self.done} orders done", flush=True)

    async def order(self) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(0.05)
            self.orders.add(number)
            await self.session.send_json({"order": number})

    def receive(self, event: Any) -> None:
        if event["number"] != self.last + 1:
            raise SystemExit(f"event {event['number']} after event {self.last}")
        self.last = event["number"]
        kind, _, value = event["content"].partition(" ")
        if kind == "order":
            self.orders.remove(int(value))
            self.done += 1

    async def run(self, seconds: float) -> None:
        async with self.session:
            ordering = asyncio.create_task(self.order())
            receiving = asyncio.create_task(self._receive())
            await asyncio.wait([ordering, receiving], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            ordering.cancel()
            while self.orders and not receiving.done():  # until all that was promised has been kept
                await asyncio.wait([receiving], timeout=0.1)
            receiving.cancel()
            await asyncio.gather(ordering, receiving, return_exceptions=True)
        print(f"{self.last} events without a gap and {self.done} orders on {self.connections} connections")

    async def _receive(self) -> None:
        while True:
            self.receive(await self.session.recv_json())


def delays() -> Iterator[float]:
    """As usual, but sooner: this server is back in no time."""
    return backoff(initial_delay=0.2, min_delay=0.1, max_delay=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("uri")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    asyncio.run(Client(arguments.uri).run(arguments.seconds))
