"""permessage-deflate with settings of one's own."""


from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def main():
    for server_arguments in (
        {"compression": None},
        {
            "extensions": [
                ServerPerMessageDeflateFactory(
                    server_max_window_bits=11, client_max_window_bits=11, compress_settings={"memLevel": 4}
                )
            ]
        },
        {
            "compression": None,
            "extensions": [
                ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
            ],
        },
    ):
        async with serve(echo, "127.0.0.1", 0, **server_arguments) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            for client_arguments in (
                {"compression": None},
                {
                    "extensions": [
                        ClientPerMessageDeflateFactory(
                            server_max_window_bits=10, client_max_window_bits=10, compress_settings={"level": 9}
                        )
                    ]
                },
                {"extensions": [ClientPerMessageDeflateFactory(client_no_context_takeover=True)]},
            ):
                async with connect(uri, **client_arguments) as websocket:
                    print(websocket.response.headers.get("Sec-WebSocket-Extensions"))
                    for message in ("tick " * 1000, bytes(5000), "é", ""):
                        await websocket.send(message)
                        assert await websocket.recv() == message
    try:
        connect("ws://localhost/", compression="xz")
    except ValueError as exc:
        print(exc)
