"""SIGTERM ends the server gracefully: clients get 1001, handlers come to their end, newcomers get no connection."""

import asyncio
import os
import signal

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

log = []


async def handler(websocket):
    try:
        async for message in websocket:
            await websocket.send(message)
        log.append("iteration ended")
    finally:
        await asyncio.sleep(0)
        log.append("cleaned up")


async def main():
    loop = asyncio.get_running_loop()
    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        loop.add_signal_handler(signal.SIGTERM, server.close)
        clients = [await connect(uri) for _ in range(3)]
        for websocket in clients:
            await websocket.send("ready")
            print(await websocket.recv())
        os.kill(os.getpid(), signal.SIGTERM)
        await server.wait_closed()
        loop.remove_signal_handler(signal.SIGTERM)
        print(server.is_serving(), list(server.sockets), sorted(log))
        try:
            await clients[0].recv()
        except ConnectionClosedOK as exc:
            print(exc, "|", exc.rcvd, "|", exc.sent, exc.rcvd_then_sent)
        try:
            await clients[1].send("too late")
        except ConnectionClosed as exc:
            print(type(exc).__name__, exc)
        print([message async for message in clients[2]], clients[2].close_code, repr(clients[2].close_reason))
        try:
            await connect(uri)
        except OSError as exc:
            print(type(exc).__name__)

    # A reason and a code of one's own; and a server that lets its clients finish.
    server = await serve(handler, "127.0.0.1", 0)
    uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    websocket = await connect(uri)
    server.close(code=1012, reason="new version")
    try:
        await websocket.recv()
    except ConnectionClosed as exc:
        print(type(exc).__name__, exc)
    await server.wait_closed()

    server = await serve(handler, "127.0.0.1", 0)
    uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    websocket = await connect(uri)
    server.close(close_connections=False)
    await websocket.send("still there?")
    print(await websocket.recv())
    await websocket.close()
    await server.wait_closed()

    server = await serve(handler, "127.0.0.1", 0, start_serving=False)
    print(server.is_serving())
    await server.start_serving()
    print(server.is_serving(), server.get_loop() is loop)
    forever = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    forever.cancel()
    try:
        await forever
    except asyncio.CancelledError:
        print("cancelled", server.is_serving())
