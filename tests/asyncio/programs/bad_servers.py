"""Servers that answer wrongly: what connect() raises."""

import asyncio
import base64
import hashlib

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

SWITCH = "HTTP/1.1 101 Switching Protocols\r\n"
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
ANSWERS = [
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: {accept}\r\n\r\n",
    SWITCH + UPGRADE + "\r\n",
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: wrong\r\n\r\n",
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    SWITCH + "Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    SWITCH + "Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    SWITCH + "Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    SWITCH + "Upgrade: websocket\r\nConnection: close\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "HTTP/1.1 200 OK\r\n",
    "",
]
#: The class and text of what these raise is one's own.
RARE = [
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: a, b\r\n\r\n",
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: x-unknown\r\n\r\n",
    SWITCH + UPGRADE + "Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: permessage-deflate; a=b\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.1 200 OK\r\n" + "x" * 10_000 + ": y\r\n\r\n",
    "HTTP/1.1 200 " + "x" * 10_000 + "\r\n\r\n",
    "HTTP/1.1 200 OK\r\n" + "a: b\r\n" * 200 + "\r\n",
]


async def main():
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line[19:] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        writer.write(text.replace("{accept}", base64.b64encode(digest).decode()).encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for text in ANSWERS + RARE:
            try:
                websocket = await connect(uri, close_timeout=0.1)
                print("connected", websocket.subprotocol)
                await websocket.close()
            except InvalidStatus as exc:
                print(exc, exc.response.reason_phrase, bytes(exc.response.body))
            except InvalidHandshake as exc:
                print(*(["refused"] if text in RARE else [type(exc).__name__, exc, type(exc.__cause__).__name__]))
