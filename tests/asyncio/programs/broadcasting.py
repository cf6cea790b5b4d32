"""broadcast: what it skips, and how it tells."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed


async def main():
    release = asyncio.Event()
    under_way = asyncio.Event()

    async def handler(websocket):
        if websocket.request.path == "/fragments":
            await websocket.send(slowly())
        await websocket.wait_closed()

    async def slowly():
        yield "first "
        under_way.set()
        await release.wait()
        yield "last"

    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(f"{uri}/plain") as plain, connect(f"{uri}/fragments") as fragments:
            await under_way.wait()
            closed = await connect(f"{uri}/closed")
            await closed.close()
            members = server.connections | {closed}
            broadcast(members, "one")
            try:
                broadcast(members, "two", raise_exceptions=True)
            except ExceptionGroup as group:  # noqa: F821
                print(group.message, [(type(exc).__name__, str(exc)) for exc in group.exceptions])
            broadcast(members, b"three", raise_exceptions=False)
            broadcast([], "to nobody", raise_exceptions=True)
            release.set()
            print(await fragments.recv())
            broadcast(server.connections, b"four", text=True, raise_exceptions=True)
            broadcast(server.connections, "five", text=False, raise_exceptions=True)
            print([await plain.recv() for _ in range(5)])
            print([await fragments.recv() for _ in range(2)])
            broadcast([plain, fragments], memoryview(b"from the clients"))
            for wrong in (42, ["a", "list"], None):
                try:
                    broadcast(members, wrong)
                except TypeError as exc:
                    print(exc)
        try:
            await plain.recv()
        except ConnectionClosed as exc:
            print(exc)
