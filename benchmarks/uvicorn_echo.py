"""uvicorn's server CPU per echoed message: our WebSocket class beside uvicorn's own.

``python -m benchmarks.uvicorn_echo [--rounds 7] [--seconds 0.5] [--loop asyncio]``. A Starlette application echoes 125
bytes of text to 64 connections. Every server is a process of its own, with httptools; ``benchmarks/io/load.c`` keeps it
busy. Ratios are medians of the ratios of interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

from . import compare
from .io.running import ROOT, Process, compiled

DEFAULT = "uvicorn's default"
#: What ``ws=`` is.
SERVERS = {
    "wsproto_fast": "wsproto_fast.contrib.uvicorn:WebSocketProtocol",
    DEFAULT: "auto",
    "websockets-sansio": "websockets-sansio",
    "websockets": "websockets",
    "wsproto": "wsproto",
}
#: How the load is called, and its options beside the number and size of messages.
LOADS = {
    "1 in flight": {"window": 1},
    "16 in flight, a message for each reply": {"window": 16, "each": 1},
    "16 in flight, all at once": {"window": 16},
}
CONNECTIONS = 64
SIZE = 125


async def echo(websocket: Any) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def be_server(name: str, loop: str) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    warnings.simplefilter("ignore")  # one of them is deprecated
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/", echo)]),
        port=0,
        ws=SERVERS[name],
        http="httptools",
        loop=loop,  # type: ignore[arg-type]
        log_level="error",
    )

    class Server(uvicorn.Server):
        async def startup(self, *args: Any, **options: Any) -> None:
            await super().startup(*args, **options)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    Server(config).run()


def microseconds(load: Process, seconds: float) -> float:
    """Of the server's CPU time, for a message."""
    messages, cpu, _, _ = map(int, load.ask(str(seconds)).split())
    return cpu / messages / 1000


def measure(load: dict[str, int], options: argparse.Namespace, program: Path) -> dict[str, list[float]]:
    costs: dict[str, list[float]] = {}
    loads = {}
    with contextlib.ExitStack() as stack:
        for name in options.servers:
            command = [sys.executable, "-m", __spec__.name, "--server", name, "--loop", options.loop]
            server = Process(command, 0, {})
            stack.callback(server.end)
            settings = {"port": server.answer(), "pid": server.pid, "conns": CONNECTIONS, "size": SIZE, "text": 1}
            arguments = [f"{key}={value}" for key, value in {**settings, **load}.items()]
            loads[name] = Process([str(program), "echo", *arguments], 1, {})
            stack.callback(loads[name].end)
            loads[name].answer()
            microseconds(loads[name], options.seconds)  # caches, allocators, specialising interpreters
        for _ in range(options.rounds):
            for name, busy in loads.items():
                costs.setdefault(name, []).append(microseconds(busy, options.seconds))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uvicorn_echo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--servers", nargs="*", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        be_server(options.server, options.loop)
        return
    folder, _ = compiled(ROOT / "build" / "bench-io")
    ours = next(iter(SERVERS))
    print(f"{compare.environment()}\nserver CPU per message, microseconds; and ours / it")
    for title, load in LOADS.items():
        print(f"\n{title}")
        costs = measure(load, options, folder / "load")
        for name, rounds in costs.items():
            ratio = statistics.median([mine / its for mine, its in zip(costs[ours], rounds, strict=True)])
            print(f"  {name:20} {statistics.median(rounds):7.1f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
