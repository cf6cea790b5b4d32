"""What ``contrib.prometheus`` costs an echo server: its CPU time for each message, with and without metrics.

Run it with ``python -m benchmarks.metrics``. Two servers live at once, one of each kind; short loads go to them in
turn, so that what else happens on the machine happens to both.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from typing import Any

from wsproto_fast.asyncio import connect, serve

CONNECTIONS = 20


def serve_echo(kind: str, pipe: Any) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    from wsproto_fast.contrib.prometheus import Metrics

    registry = CollectorRegistry()

    async def handler(connection: Any) -> None:
        async for message in connection:
            if message == "scrape":
                started = time.process_time()
                generate_latest(registry)
                await connection.send(str(time.process_time() - started))
            elif message == "cpu":
                await connection.send(str(time.process_time()))
            else:
                await connection.send(message)

    async def main() -> None:
        observer = Metrics(registry=registry) if kind == "metrics" else None
        async with serve(handler, "127.0.0.1", 0, observer=observer) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(main())


async def ask(connection: Any, what: str) -> float:
    await connection.send(what)
    return float(await connection.recv())


async def load(connections: list[Any], messages: int, depth: int) -> None:
    async def talk(connection: Any) -> None:
        for _ in range(messages // depth):
            for _ in range(depth):
                await connection.send("x" * 32)
            for _ in range(depth):
                await connection.recv()

    await asyncio.gather(*map(talk, connections))


async def measure(ports: dict[str, int], rounds: int, messages: int, depth: int) -> dict[str, list[float]]:
    connections = {
        kind: [await connect(f"ws://127.0.0.1:{port}") for _ in range(CONNECTIONS)] for kind, port in ports.items()
    }
    costs: dict[str, list[float]] = {kind: [] for kind in ports}
    for number in range(-2, rounds):  # two to warm up
        for kind in sorted(ports, reverse=bool(number % 2)):
            before = await ask(connections[kind][0], "cpu")
            await load(connections[kind], messages, depth)
            cost = await ask(connections[kind][0], "cpu") - before
            if number >= 0:
                costs[kind].append(cost / messages / CONNECTIONS)
    return costs


async def scrape(port: int, number: int) -> float:
    connections = [await connect(f"ws://127.0.0.1:{port}") for _ in range(number)]
    return min([await ask(connections[0], "scrape") for _ in range(5)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--messages", type=int, default=200, help="by each connection in a round")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ports, servers = {}, []
    for kind in ("plain", "metrics"):
        here, there = context.Pipe()
        servers.append(context.Process(target=serve_echo, args=(kind, there), daemon=True))
        servers[-1].start()
        ports[kind] = here.recv()
    for depth in (1, 20):
        costs = asyncio.run(measure(ports, arguments.rounds, arguments.messages, depth))
        ratios = [with_ / without for with_, without in zip(costs["metrics"], costs["plain"], strict=True)]
        middle = statistics.median(ratios)
        spread = 1.2533 * statistics.stdev(ratios) / len(ratios) ** 0.5  # the standard error of a median
        print(
            f"{depth:2} in flight: {statistics.median(costs['plain']) * 1e6:.2f} us plain, "
            f"{statistics.median(costs['metrics']) * 1e6:.2f} us with metrics: "
            f"{(middle - 1) * 100:+.2f} % (standard error {spread * 100:.2f} %)"
        )
    number = 500
    print(f"a scrape of {number} connections: {asyncio.run(scrape(ports['metrics'], number)) * 1e3:.2f} ms")
    for server in servers:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
