"""Clients to be measured: ``python -m benchmarks.io.clients NAME PORT --size 32 --window 1``, run by ``running.py``.

One connection; the client sends ``window`` messages, takes as many replies and checks them, and again. Prints "open",
and for each line of standard input, SECONDS, what ``load.c`` prints: messages, nanoseconds of CPU time of its own, wall
time, 0.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from wsproto_fast import ClientHandshake, Connection, Role, parse_uri

from .servers import MAX_SIZE, run_on


class Options(argparse.Namespace):
    name: str
    port: int
    size: int
    window: int
    loop: str

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"


#: Sends and receives; returns how many messages.
Round = Callable[[], Awaitable[int]]


def messages(options: Options) -> list[str]:
    """All different, so that their order can be checked."""
    return [f"{number:08x}".ljust(options.size, "-") for number in range(options.window)]


async def ours(options: Options) -> Round:
    from wsproto_fast.asyncio import connect

    return await _as_websockets(options, connect)


async def ours_callback(options: Options) -> Round:
    from wsproto_fast.asyncio import connect

    turn = Turn(messages(options), lambda message: connection.try_send(message))
    settings: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": MAX_SIZE}
    connection = await connect(options.uri, on_message=lambda _, message: turn.received(message), **settings)
    return turn.run


async def websockets(options: Options) -> Round:
    from websockets.asyncio.client import connect

    return await _as_websockets(options, connect)


async def picows_websockets(options: Options) -> Round:
    from picows.websockets import connect

    return await _as_websockets(options, connect)


async def _as_websockets(options: Options, connect: Any) -> Round:
    connection = await connect(options.uri, compression=None, ping_interval=None, max_size=MAX_SIZE)
    batch = messages(options)

    async def run() -> int:
        for message in batch:
            await connection.send(message)
        for message in batch:
            if await connection.recv() != message:
                raise SystemExit("what came back differs")
        return len(batch)

    return run


async def aiohttp(options: Options) -> Round:
    from aiohttp import ClientSession

    session = ClientSession()
    connection = await session.ws_connect(options.uri, compress=0, max_msg_size=MAX_SIZE)
    batch = messages(options)

    async def run() -> int:
        for message in batch:
            await connection.send_str(message)
        for message in batch:
            if await connection.receive_str() != message:
                raise SystemExit("what came back differs")
        return len(batch)

    return run


#: Between two looks at the clock.
ROUNDS_AT_ONCE = 100


class Turn:
    """Rounds of a client with callbacks: the next one starts in the callback of the last reply, without a task."""

    def __init__(self, batch: list[Any], send: Callable[[Any], object]) -> None:
        self._batch = batch
        self._send = send
        self._missing = 0

    async def run(self) -> int:
        self._missing_rounds = ROUNDS_AT_ONCE
        self._over = asyncio.get_running_loop().create_future()
        self._start()
        await self._over
        return ROUNDS_AT_ONCE * len(self._batch)

    def _start(self) -> None:
        self._missing = len(self._batch)
        for message in self._batch:
            self._send(message)

    def received(self, message: Any) -> None:
        if message != self._batch[-self._missing]:
            raise SystemExit("what came back differs")
        self._missing -= 1
        if not self._missing:
            self._missing_rounds -= 1
            if self._missing_rounds:
                self._start()
            else:
                self._over.set_result(None)


async def picows(options: Options) -> Round:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    class Client(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            turn.received(frame.get_payload_as_bytes())

    transport, _ = await ws_connect(Client, options.uri, max_frame_size=MAX_SIZE)
    batch = [message.encode() for message in messages(options)]
    turn = Turn(batch, lambda message: transport.send(WSMsgType.TEXT, message))
    return turn.run


# Without an event loop: ``window`` messages are in flight, and each reply is followed by one more.


async def threads_ours(options: Options) -> Round:
    from wsproto_fast.threading import connect

    connection = connect(options.uri, compression=None, ping_interval=None, max_size=MAX_SIZE, proxy=None)
    return _one_for_each(options, connection.send, connection.recv)


async def threads_websockets(options: Options) -> Round:
    from websockets.sync.client import connect

    connection = connect(options.uri, compression=None, ping_interval=None, max_size=MAX_SIZE, proxy=None)
    return _one_for_each(options, connection.send, connection.recv)


async def threads_websocket_client(options: Options) -> Round:
    from websocket import create_connection

    connection = create_connection(options.uri, enable_multithread=True)
    return _one_for_each(options, connection.send, connection.recv)


async def threads_raw(options: Options) -> Round:
    """A blocking socket that sends frames made before, and looks at nothing but the number of bytes that come back."""
    sock = socket.create_connection(("127.0.0.1", options.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    handshake = ClientHandshake(parse_uri(options.uri))
    sock.sendall(b"".join(handshake.data_to_send()))
    while handshake.response is None:
        handshake.receive_data(sock.recv(65536))
    connection = Connection(Role.CLIENT)
    frames = []
    for message in messages(options):
        connection.send_text(message)
        frames.append(b"".join(connection.data_to_send()))
    size = len(frames[0]) - 4  # a server does not mask

    async def run() -> int:
        for frame in frames:
            sock.send(frame)
        missing = size * len(frames)
        while missing:
            missing -= len(sock.recv(65536))
        return len(frames)

    return run


def _one_for_each(options: Options, send: Callable[[str], object], receive: Callable[[], object]) -> Round:
    batch = messages(options)
    for message in batch:
        send(message)

    async def run() -> int:
        for _ in range(ROUNDS_AT_ONCE):
            for message in batch:
                if receive() != message:
                    raise SystemExit("what came back differs")
                send(message)
        return ROUNDS_AT_ONCE * len(batch)

    return run


CLIENTS: dict[str, Callable[[Options], Awaitable[Round]]] = {
    function.__name__: function
    for function in (
        *(ours, ours_callback, websockets, picows_websockets, picows, aiohttp),
        *(threads_ours, threads_websockets, threads_websocket_client, threads_raw),
    )
}


async def run_when_told(options: Options) -> None:
    run = await CLIENTS[options.name](options)
    print("open", flush=True)
    while line := sys.stdin.readline():
        done, start, cpu = 0, time.monotonic_ns(), time.process_time_ns()
        end = start + float(line) * 1e9
        while time.monotonic_ns() < end:
            done += await run()
        print(done, time.process_time_ns() - cpu, time.monotonic_ns() - start, 0, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.io.clients", description=__doc__)
    parser.add_argument("name", choices=CLIENTS)
    parser.add_argument("port", type=int)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args(namespace=Options())
    logging.basicConfig(level=logging.ERROR)
    run_on(options.loop, run_when_told(options))


if __name__ == "__main__":
    main()
