"""A client that comes back: the server is late, restarts, refuses for a while, and refuses for good."""

import http

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

answers = iter([None, 503, None, 502, 500, 504, None, 403])


def at_once():
    while True:
        yield 0


def process_request(connection, request):
    status = next(answers)
    return None if status is None else connection.respond(http.HTTPStatus(status), "Come back later.\n")


async def once(websocket):
    name = await websocket.recv()
    await websocket.send(f"hello {name}")
    if name == "2":
        websocket.transport.abort()  # the power fails


async def main():
    async with serve(once, "127.0.0.1", 0, process_request=process_request) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        visits = 0
        try:
            async for websocket in connect(uri, reconnect_delays=at_once):
                visits += 1
                try:
                    await websocket.send(str(visits))
                    async for message in websocket:
                        print(message)
                except ConnectionClosedError as exc:
                    print(type(exc).__name__)
                    continue
        except InvalidStatus as exc:
            print(exc, exc.response.status_code, bytes(exc.response.body))
        print(visits)

    # An exception of one's own ends the loop, and so does what process_exception makes of an error.
    async with serve(once, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            async for websocket in connect(uri):
                await websocket.send("1")
                raise KeyError(await websocket.recv())
        except KeyError as exc:
            print(repr(exc))
        async for websocket in connect(uri):  # noqa: B007
            break
        print(websocket.state.name)
        await websocket.close()

    def fatal(exc):
        return RuntimeError("enough") if isinstance(exc, OSError) else None

    try:
        async for _ in connect(uri, process_exception=fatal):
            print("the server is gone, this cannot be")
    except RuntimeError as exc:
        print(exc, isinstance(exc.__cause__, OSError))

    def raising(exc):
        raise LookupError("fatal") from exc

    try:
        async for _ in connect(uri, process_exception=raising):
            print("the server is gone, this cannot be")
    except LookupError as exc:
        print(exc, isinstance(exc.__cause__, OSError))
    try:
        await connect(uri)
    except ConnectionClosed:
        print("this cannot be")
    except OSError as exc:
        print(type(exc).__name__)
