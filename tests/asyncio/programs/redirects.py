"""A server that has moved."""


from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus, SecurityError


async def handler(websocket):
    await websocket.send(f"{websocket.request.path} {websocket.request.headers.get('Authorization')}")


def process_request(connection, request):
    moves = {"/old": "/new?x=1", "/loop": "/loop", "/twice": "old", "/elsewhere": f"{OTHER[0]}/there"}
    if request.path in moves:
        response = connection.respond(302, "Moved\n")
        response.headers["Location"] = moves[request.path]
        return response
    if request.path == "/nowhere":
        return connection.respond(302, "Moved, but where?\n")
    return None


OTHER = []


async def main():
    async with (
        serve(handler, "127.0.0.1", 0) as other,
        serve(handler, "127.0.0.1", 0, process_request=process_request) as server,
    ):
        OTHER.append(f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}")
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for path in ("/old", "/twice", "/elsewhere", "/new"):
            async with connect(f"{uri}{path}", additional_headers={"Authorization": "secret"}) as websocket:
                print(path, "->", await websocket.recv(), websocket.request.path)
        for path in ("/loop", "/nowhere"):
            try:
                await connect(f"{uri}{path}")
            except (SecurityError, InvalidStatus) as exc:
                print(path, "->", type(exc).__name__, exc)
        OTHER.clear()
