"""Pings, pongs, latency, and a peer that has gone silent."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri, ping_interval=None) as websocket:
            print(websocket.latency)
            pong = await websocket.ping()
            latency = await pong
            print(0 <= latency < 5, websocket.latency == latency)
            named = await websocket.ping("héllo")
            other = await websocket.ping(b"other")
            for again in ("héllo", b"other"):
                try:
                    await websocket.ping(again)
                except ConcurrencyError as exc:
                    print(type(exc).__name__, isinstance(exc, RuntimeError), exc)
            await other
            print(named.done())
            await websocket.pong()
            await websocket.pong(b"nobody asked")
            try:
                await websocket.ping(42)
            except TypeError as exc:
                print(type(exc).__name__)
        async with connect(uri, ping_interval=0.01) as websocket:
            while websocket.latency == 0:
                await asyncio.sleep(0.001)
            print(websocket.latency < 5)
        lost = await connect(uri)
        waiter = await lost.ping()
        lost.transport.abort()
        try:
            await waiter
        except ConnectionClosed as exc:
            print(type(exc).__name__, exc)

    async with serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        websocket = await connect(uri, ping_interval=0.02, ping_timeout=0.05, close_timeout=0.05)
        (peer,) = server.connections
        peer.transport.pause_reading()  # the peer hangs
        try:
            await websocket.recv()
        except ConnectionClosedError as exc:
            print(exc, exc.rcvd, exc.sent, exc.rcvd_then_sent)
        print(websocket.state.name)
        peer.transport.abort()
