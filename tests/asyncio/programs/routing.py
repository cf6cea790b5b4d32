"""Handlers by URL, with werkzeug's rules."""


from websockets.asyncio.client import connect
from websockets.asyncio.router import Router, route
from websockets.exceptions import InvalidStatus
from werkzeug.routing import Map, Rule


async def room(websocket, number, name="nobody"):
    await websocket.send(f"room {number} for {name}: {websocket.handler_kwargs}")


async def lobby(websocket):
    await websocket.send(f"lobby, path {websocket.request.path}")


def refuse_banned(connection, request):
    if request.headers.get("X-Banned"):
        return connection.respond(403, "go away\n")
    return None


class Strict(Router):
    def not_found(self, connection):
        return connection.respond(410, "gone\n")


URL_MAP = Map(
    [
        Rule("/lobby", endpoint=lobby),
        Rule("/rooms/<int:number>", endpoint=room),
        Rule("/rooms/<int:number>/<name>", endpoint=room),
        Rule("/entrance", redirect_to="/lobby"),
    ]
)


async def visit(address, path, **kwargs):
    try:
        async with connect(f"ws://{address}{path}", **kwargs) as websocket:
            print(path, "->", await websocket.recv())
    except InvalidStatus as exc:
        print(path, "->", exc.response.status_code, bytes(exc.response.body))


async def main():
    for arguments in ({}, {"create_router": Strict}):
        async with route(URL_MAP, "127.0.0.1", 0, process_request=refuse_banned, **arguments) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for path in ("/lobby", "/lobby?x=1", "/rooms/7", "/rooms/7/Ada", "/rooms/x", "/", "/entrance", "/nowhere"):
                await visit(address, path)
            await visit(address, "/lobby", additional_headers={"X-Banned": "1"})
