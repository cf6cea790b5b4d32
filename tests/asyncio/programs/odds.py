"""What does not fit elsewhere: sockets of one's own, weak references, messages left at the end, senders in parallel."""

import asyncio
import socket
import uuid
import weakref

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.http11 import Response

VISITORS = weakref.WeakSet()


async def handler(websocket):
    VISITORS.add(websocket)
    match websocket.request.path:
        case "/left":
            for number in range(5):
                await websocket.send(str(number))
            await websocket.close(1000, "bye")
        case "/many":
            await asyncio.gather(websocket.send(pieces(7)), *(websocket.send(str(number)) for number in range(5)))
        case "/timeout":
            try:
                async with asyncio.timeout(0.02):
                    async for _ in websocket:
                        pass
            except TimeoutError:
                await websocket.send("too slow")
        case "/cancelled":
            asyncio.current_task().cancel()
            await asyncio.sleep(1)
        case "/none":
            await websocket.send(websocket.request.headers["Host"])
            await websocket.wait_closed()


async def pieces(number):
    for _ in range(3):
        await asyncio.sleep(0)
        yield str(number)


def process_request(connection, request):
    return Response(402, "Pay", Headers()) if request.path == "/pay" else None


async def main():
    listening = socket.create_server(("127.0.0.1", 0))
    async with serve(handler, sock=listening, process_request=process_request) as server:
        print(server.sockets[0].getsockname() == listening.getsockname(), len(server.sockets))
        port = server.sockets[0].getsockname()[1]
        uri = f"ws://127.0.0.1:{port}"
        async with connect(f"{uri}/left") as websocket:
            await websocket.wait_closed()
            print(websocket.state.name, [message async for message in websocket])
            try:
                await websocket.recv()
            except ConnectionClosedOK as exc:
                print(exc)
        async with connect(f"{uri}/many") as websocket:
            print(sorted([message async for message in websocket]))
        async with connect(f"{uri}/timeout") as websocket:
            print(await websocket.recv())
        websocket = await connect(f"{uri}/cancelled")
        try:
            await websocket.recv()
        except ConnectionClosed as exc:
            print(type(exc).__name__)
        try:
            await connect(f"{uri}/pay")
        except InvalidStatus as exc:
            print(exc, exc.response.reason_phrase)
        async with connect("ws://example.com/none", sock=socket.create_connection(("127.0.0.1", port))) as websocket:
            print(await websocket.recv(), isinstance(websocket.id, uuid.UUID), websocket.id == websocket.id)
        async with connect("ws://example.com:99/none", host="127.0.0.1", port=port, open_timeout=None) as websocket:
            print(await websocket.recv(), len(VISITORS) >= 1)
            reference = weakref.ref(websocket)
            print(reference() is websocket)
    print(len(server.connections))
    server = await serve(handler, "127.0.0.1", 0)
    async with server as same:
        print(same is server, same.is_serving())
    try:
        async with connect(f"ws://127.0.0.1:{port}/none"):
            pass
    except OSError as exc:
        print(type(exc).__name__)
