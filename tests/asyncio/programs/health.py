"""Plain HTTP on the WebSocket port: health checks, other paths, and clients that are no WebSocket clients."""

import asyncio
import http

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response


async def process_request(connection, request):
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK\n")
    if request.path == "/teapot":
        return Response(418, "I'm a teapot", Headers({"Content-Type": "text/html", "Content-Length": "4"}), b"<b/>")
    if request.path == "/broken":
        raise RuntimeError("the program is wrong")
    if request.path == "/private" and "Cookie" not in request.headers:
        return connection.respond(http.HTTPStatus.FORBIDDEN, "Who are you?\n")
    return None


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def get(port, head):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    lines, _, body = answer.decode().partition("\r\n\r\n")
    status, *headers = lines.split("\r\n")
    headers = sorted(line for line in headers if not line.startswith(("Date", "Server", "Connection")))
    print(status, headers, repr(body))


async def main():
    async with serve(echo, "127.0.0.1", 0, process_request=process_request) as server:
        port = server.sockets[0].getsockname()[1]
        await get(port, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await get(port, "GET /teapot HTTP/1.1\r\nHost: a\r\n\r\n")
        await get(port, "GET /private HTTP/1.1\r\nHost: a\r\n\r\n")
        await get(port, "GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
        for path in ("healthz", "teapot", "private", "broken"):
            try:
                await connect(f"ws://127.0.0.1:{port}/{path}")
            except InvalidStatus as exc:
                print(exc, "|", exc.response.reason_phrase, bytes(exc.response.body))
        async with connect(f"ws://127.0.0.1:{port}/private", additional_headers={"Cookie": "a=b"}) as websocket:
            await websocket.send("let in")
            print(await websocket.recv())
