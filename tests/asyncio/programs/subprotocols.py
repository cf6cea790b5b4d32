"""Subprotocols: offered, chosen, refused."""


from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidHandshake, InvalidStatus, NegotiationError


async def handler(websocket):
    await websocket.send(str(websocket.subprotocol))


def newest(connection, offered):
    print("offered", offered, connection.state.name)
    if "none" in offered:
        raise NegotiationError("none of these")
    return max(offered, default=None)


async def attempt(uri, **kwargs):
    try:
        async with connect(uri, **kwargs) as websocket:
            header = websocket.response.headers.get("Sec-WebSocket-Protocol")
            print(await websocket.recv(), websocket.subprotocol, header)
    except InvalidStatus as exc:
        print(exc, exc.response.body.decode().splitlines()[0])
    except InvalidHandshake as exc:
        print(type(exc).__name__, exc)


async def main():
    for arguments in (
        {"subprotocols": ["chat.v2", "chat.v1"]},
        {"subprotocols": ["chat.v2"], "select_subprotocol": newest},
        {"select_subprotocol": newest},
        {},
    ):
        async with serve(handler, "127.0.0.1", 0, **arguments) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            await attempt(uri, subprotocols=["chat.v1", "chat.v2"])
            await attempt(uri, subprotocols=["chat.v1"])
            await attempt(uri, subprotocols=["none"])
            await attempt(uri)
    for wrong in ("chat", [1], ["a b"], 7):
        for function, arguments in ((connect, ["ws://localhost/"]), (serve, [handler])):
            try:
                function(*arguments, subprotocols=wrong)
            except (TypeError, ValueError) as exc:
                print(wrong, type(exc).__name__)
            else:
                print(wrong, "taken")
