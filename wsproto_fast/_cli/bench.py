"""``bench``: load for an echo server, and how long its answers take.

One process, one thread, the callback path: the load costs little beside what most servers cost, but it is not free.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import signal
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..asyncio import ClientConnection, connect
from ..constants import Close
from ..exceptions import ConnectionClosed, WebSocketException
from ..observer import Observer
from .console import Console
from .failures import ENDED, INTERRUPTED, OK, Failure, explain, shown
from .latencies import Latencies, histogram, milliseconds
from .options import (
    add_client_options,
    add_compression,
    add_loop,
    client_arguments,
    not_negative,
    positive,
    positive_seconds,
)
from .running import interruptible

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add", "run"]

HELP = "load an echo server and measure its answers"
DESCRIPTION = """\
Open connections to an echo server, keep messages in flight on each of them, and check every answer. At the end:
messages and bytes per second, percentiles of the time from a message to its answer, and a histogram.
"""
EPILOG = """\
With --depth 1 the times are those of single messages; a greater depth gives more messages per second, and each waits
for those before it. One process makes the load: when it uses a whole core, the times are its own. Ctrl-C ends the
measurement early.

exit codes: 0 done, 1 a connection ended or an answer was wrong, or none came, 2 wrong arguments, 3 could not connect,
130 Ctrl-C
"""

PERCENTILES = (50, 90, 99, 99.9)
#: Handshakes under way at a time: more would only fill the server's backlog.
_OPENING = 64
#: So many different messages follow each other on a connection: a server that mixes answers up is found out.
_VARIANTS = 16
#: Seconds between two lines of progress.
_TICK = 0.25
_WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet", "kilo", "lima")


def add(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_client_options(parser)
    group = parser.add_argument_group("load")
    group.add_argument("-c", "--connections", type=positive, default=10, metavar="N", help="how many (default: 10)")
    group.add_argument(
        "-d", "--depth", type=positive, default=1, metavar="N", help="messages in flight on each of them (default: 1)"
    )
    group.add_argument(
        "--size", type=not_negative, default=128, metavar="BYTES", help="payload of each message (default: 128)"
    )
    group.add_argument(
        "-t", "--seconds", type=positive_seconds, default=10.0, help="how long to measure (default: 10)"
    )
    group.add_argument("--binary", action="store_true", help="random bytes; otherwise words, which deflate well")
    add_compression(group, "none")
    parser.add_argument("-j", "--json", action="store_true", help="print the result as JSON")
    add_loop(parser)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Returns an exit code. Raises Failure."""
    load = Load(options)
    with interruptible(signal.SIGINT) as interrupted:
        try:
            await load.open()
            await load.measure(interrupted, console)
        finally:
            await load.close()
    result = load.result()
    if not result.messages:
        raise Failure(f"no answer came from {shown(options.uri)}; is it an echo server?", ENDED)
    console.say(json.dumps(as_dict(result, options), indent=2) if options.json else as_text(result, options, console))
    return INTERRUPTED if interrupted.is_set() else OK


class Client:
    """One connection with ``depth`` messages in flight. An answer is followed by the next message."""

    __slots__ = ("_connection", "_flight", "_load", "_messages")

    def __init__(self, load: Load) -> None:
        self._load = load
        self._messages = itertools.cycle(load.payloads)
        #: What was sent and not answered, and when.
        self._flight: deque[tuple[str | bytes, float]] = deque()
        self._connection: ClientConnection | None = None

    async def open(self, **arguments: Any) -> ClientConnection:
        self._connection = await connect(on_message=self.on_message, **arguments)
        return self._connection

    def start(self, depth: int) -> None:
        """Send the first messages. Raises ConnectionClosed."""
        assert self._connection is not None
        with self._connection.cork():
            for _ in range(depth):
                self._send(self._connection, time.perf_counter())

    def on_message(self, connection: ClientConnection, message: str | bytes) -> None:
        """An answer, it is hoped."""
        now = time.perf_counter()
        load = self._load
        if not load.running:
            return
        expected, sent_at = self._flight.popleft() if self._flight else (None, now)
        if message == expected:
            load.latencies.add(now - sent_at)
            self._send(connection, now)
        elif expected is None:
            load.fail("the server has sent a message that answers none; is it an echo server?")
        else:
            load.fail("an answer is not what was sent; is it an echo server?")

    def _send(self, connection: ClientConnection, now: float) -> None:
        message = next(self._messages)
        self._flight.append((message, now))
        connection.try_send(message)  # never FULL: write_limit has room for all


class Watcher(Observer):
    """Tells when a server closes a connection."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def connection_closed(self, connection: Any) -> None:
        self._load.fail(f"the server has closed a connection: {Close(connection.close_code, connection.close_reason)}")


@dataclass(frozen=True)
class Result:
    """What was measured; ``seconds`` as it took, times in seconds, payload bytes in each direction."""

    seconds: float
    opening: float
    messages: int
    payload: int
    wire_sent: int
    wire_received: int
    latencies: Latencies


class Load:
    """Connections, and what is measured on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.payloads = payloads(options.size, options.binary)
        self.latencies = Latencies()
        #: Whether messages are sent and counted.
        self.running = False
        self._options = options
        # Everything in flight must have room, or both ends might wait for each other to read.
        room = options.depth * (options.size + 64)
        self._arguments = {
            **client_arguments(options),
            "uri": options.uri,
            "max_size": options.size + 1024,
            "write_limit": max(2 * room, 2**16),
            "observer": Watcher(self),
        }
        self._clients = [Client(self) for _ in range(options.connections)]
        self._connections: list[ClientConnection] = []
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._opening = 0.0
        self._seconds = 0.0

    def fail(self, text: str) -> None:
        """Something has gone wrong; only the first time counts, and what ends after the measurement does not."""
        if self.running and not self._failed.done():
            self._failed.set_result(text)

    async def open(self) -> None:
        """Open all connections. Raises Failure."""
        began = time.perf_counter()
        turns = asyncio.Semaphore(_OPENING)

        async def open_one(client: Client) -> None:
            async with turns:
                self._connections.append(await client.open(**self._arguments))

        tasks = [asyncio.create_task(open_one(client)) for client in self._clients]
        try:
            await asyncio.gather(*tasks)
        except (OSError, ValueError, ImportError, WebSocketException) as exc:
            raise explain(exc, self._options.uri) from exc
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._opening = time.perf_counter() - began

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(connection.close() for connection in self._connections))

    async def measure(self, interrupted: asyncio.Event, console: Console) -> None:
        """Send and count for as long as was asked for. Raises Failure."""
        interruption = asyncio.create_task(interrupted.wait())
        began = time.perf_counter()
        self.running = True
        try:
            self._start()
            rest = seconds = self._options.seconds
            while rest > 0 and not interrupted.is_set() and not self._failed.done():
                ends: set[asyncio.Future[Any]] = {interruption, self._failed}
                await asyncio.wait(ends, timeout=min(rest, _TICK), return_when=asyncio.FIRST_COMPLETED)
                self._seconds = time.perf_counter() - began
                rest = seconds - self._seconds
                if console.can_show_progress:
                    console.progress(self._progress())
        finally:
            self.running = False
            interruption.cancel()
            if console.can_show_progress:
                console.progress("")
        if self._failed.done():
            raise Failure(self._failed.result(), ENDED)

    def _start(self) -> None:
        try:
            for client in self._clients:
                client.start(self._options.depth)
        except ConnectionClosed as exc:
            raise Failure(f"the server has closed a connection: {exc}", ENDED) from exc

    def _progress(self) -> str:
        latencies = self.latencies
        middle, slow = (milliseconds(latencies.percentile(percent)) for percent in (50, 99))
        rate = latencies.count / self._seconds
        return f"{self._seconds:6.1f} s {rate:>12,.0f} messages/s   p50 {middle} ms   p99 {slow} ms"

    def result(self) -> Result:
        messages = self.latencies.count
        stats = [connection.stats for connection in self._connections]
        return Result(
            seconds=self._seconds,
            opening=self._opening,
            messages=messages,
            payload=messages * self._options.size,
            wire_sent=sum(counters.bytes_sent for counters in stats),
            wire_received=sum(counters.bytes_received for counters in stats),
            latencies=self.latencies,
        )


def payloads(size: int, binary: bool) -> list[str | bytes]:
    """Different messages of ``size`` bytes each, the same ones every time."""
    source = random.Random(0)
    if binary:
        return [source.randbytes(size) for _ in range(_VARIANTS)]
    return [" ".join(source.choices(_WORDS, k=size // 4 + 1))[:size] for _ in range(_VARIANTS)]


# The report -----------------------------------------------------------------------------------------------------------


def as_text(result: Result, options: argparse.Namespace, console: Console) -> str:
    latencies, seconds = result.latencies, result.seconds
    kind = "binary" if options.binary else "text"
    times = [f"p{percent:g} {milliseconds(latencies.percentile(percent))}" for percent in PERCENTILES]
    lines = [
        f"{options.connections:,} connections, {options.depth} in flight on each",
        f"messages of {options.size:,} bytes, {kind}, compression {options.compression}",
        "",
        f"time         {seconds:.2f} s, after {result.opening:.2f} s for the connections",
        f"messages     {result.messages:,}, {result.messages / seconds:,.0f}/s",
        f"payload      {_bytes(result.payload)} each way, {_bytes(result.payload / seconds)}/s",
        f"on the wire  {_bytes(result.wire_sent)} sent, {_bytes(result.wire_received)} received",
        f"latency, ms  {'   '.join([*times, f'max {milliseconds(latencies.maximum)}'])}",
        "",
        *histogram(latencies.rows(), console.bar),
    ]
    return "\n".join(lines)


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.2f} GB"


def as_dict(result: Result, options: argparse.Namespace) -> dict[str, Any]:
    latencies = result.latencies
    return {
        "wsproto_fast": __version__,
        "uri": shown(options.uri),
        "connections": options.connections,
        "depth": options.depth,
        "size": options.size,
        "binary": options.binary,
        "compression": options.compression,
        "seconds": result.seconds,
        "opening_seconds": result.opening,
        "messages": result.messages,
        "messages_per_second": result.messages / result.seconds,
        "payload_bytes_per_second": result.payload / result.seconds,
        "wire_bytes_sent": result.wire_sent,
        "wire_bytes_received": result.wire_received,
        "latency_ms": {
            **{f"p{percent:g}": latencies.percentile(percent) * 1000 for percent in PERCENTILES},
            "max": latencies.maximum * 1000,
        },
        "histogram": [
            {"from_ms": low * 1000, "to_ms": high * 1000, "messages": count} for low, high, count in latencies.rows()
        ],
    }
