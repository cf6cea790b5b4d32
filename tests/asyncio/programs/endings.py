"""How connections end, and what the exceptions say: the texts that people read and search for in logs."""


from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

SEEN = []


async def handler(websocket):
    match websocket.request.path[1:]:
        case "return":
            pass
        case "raise":
            raise RuntimeError("not your business")
        case "abort":
            websocket.transport.abort()
        case "twice":
            await websocket.close(1000, "first")
            await websocket.close(1011, "second")
        case "echo":
            async for message in websocket:
                await websocket.send(message)
        case code:
            await websocket.close(int(code), "why")
            SEEN.append((websocket.close_code, websocket.close_reason))


def tell(who, exc):
    cause = type(exc.__cause__).__name__
    print(who, type(exc).__name__, "|", exc, "|", exc.rcvd, "|", exc.sent, "|", exc.rcvd_then_sent, "|", cause)


async def listen(uri, **kwargs):
    websocket = await connect(uri, **kwargs)
    try:
        async for message in websocket:
            print("message", message)
        print("iteration ended")
    except ConnectionClosedError as exc:
        tell("iteration", exc)
    for operation in (websocket.recv, lambda: websocket.send("x"), websocket.ping, websocket.pong):
        try:
            await operation()
        except ConnectionClosedOK as exc:
            tell("ok", exc)
        except ConnectionClosed as exc:
            tell("error", exc)
    await websocket.close()
    await websocket.wait_closed()
    print(websocket.close_code, repr(websocket.close_reason), websocket.state.name, int(websocket.state))


async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for path in ("return", "raise", "twice", "1000", "1001", "1008", "1011", "3000", "4000", "4999"):
            print("---", path)
            await listen(f"{uri}/{path}")
        print("--- abort")
        websocket = await connect(f"{uri}/abort")
        try:
            await websocket.recv()
        except ConnectionClosedError as exc:
            print(exc, "|", exc.rcvd, exc.sent, exc.rcvd_then_sent)
        print(websocket.close_code, repr(websocket.close_reason))
        print("--- our own close")
        for code, reason in ((1000, ""), (1001, "moving on"), (4001, "é" * 61), (3999, "")):
            async with connect(f"{uri}/echo") as websocket:
                await websocket.send("last words")
                print(await websocket.recv())
                await websocket.close(code, reason)
                try:
                    await websocket.recv()
                except ConnectionClosed as exc:
                    tell("after close", exc)
        print("--- an exception in the block")
        try:
            async with connect(f"{uri}/echo") as websocket:
                raise KeyError("mine")
        except KeyError as exc:
            print(repr(exc), websocket.close_code, websocket.state.name)
        print("--- too big")
        async with connect(f"{uri}/echo", max_size=1000) as websocket:
            await websocket.send(bytes(1000))
            print(len(await websocket.recv()))
            await websocket.send(bytes(1001))
            try:
                await websocket.recv()
            except ConnectionClosedError as exc:
                print(exc, "|", type(exc.__cause__).__name__)
        async with connect(f"{uri}/echo", max_size=(1000, 10), compression=None) as websocket:
            await websocket.send("12345678901")
            try:
                await websocket.recv()
            except ConnectionClosedError as exc:
                tell("too big", exc)
                print(exc.__cause__)
        print("--- not UTF-8")
        async with connect(f"{uri}/echo") as websocket:
            await websocket.send(b"\xff")
            try:
                await websocket.recv(decode=True)
            except ConnectionClosedError as exc:
                tell("not text", exc)
                print(exc.__cause__)
    print(SEEN)
    async with serve(handler, "127.0.0.1", 0, max_size=1000) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for message in ("x" * 1001, ["x" * 600, "y" * 600], ["x"] * 5000):
            async with connect(f"{uri}/echo", compression=None) as websocket:
                try:
                    await websocket.send(message)
                    await websocket.recv()
                except ConnectionClosedError as exc:
                    print(exc.rcvd)
