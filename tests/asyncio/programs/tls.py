"""wss with a certificate, and what a client says that does not trust it."""

import ssl

from aio import tls_contexts
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def main():
    server_context, client_context = tls_contexts()
    async with serve(echo, "127.0.0.1", 0, ssl=server_context) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"wss://127.0.0.1:{port}/", ssl=client_context) as websocket:
            await websocket.send("secret")
            await websocket.send(bytes(100_000))
            print(await websocket.recv(), len(await websocket.recv()))
            print(websocket.transport.get_extra_info("ssl_object").version())
        async with connect("wss://localhost/", host="127.0.0.1", port=port, ssl=client_context) as websocket:
            print(websocket.request.headers["Host"])
        try:
            await connect(f"wss://127.0.0.1:{port}/", ssl=client_context, server_hostname="other.example")
        except ssl.SSLCertVerificationError as exc:
            print(type(exc).__name__, exc.verify_message)
        try:
            await connect(f"wss://127.0.0.1:{port}/")
        except ssl.SSLError as exc:
            print(type(exc).__name__)
        for uri, arguments in ((f"ws://127.0.0.1:{port}/", {"ssl": client_context}), ("wss://a/", {"ssl": None})):
            try:
                await connect(uri, **arguments)
            except ValueError as exc:
                print(exc)
