"""Mistakes, and what one is told."""

import asyncio

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConcurrencyError, InvalidURI, ProtocolError, WebSocketException


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def attempt(what, awaitable):
    try:
        await awaitable
    except ProtocolError:
        print(what, "-> ProtocolError")
    except (WebSocketException, TypeError, ValueError, RuntimeError) as exc:
        print(what, "->", type(exc).__name__, exc)
    else:
        print(what, "-> fine")


async def main():
    for uri in ("http://localhost/", "localhost", "ws://", "ws:///path", "ws://localhost/#fragment", "ws://user@localhost/"):
        try:
            connect(uri)
        except InvalidURI as exc:
            print(exc.uri, "|", exc)
    async with serve(echo, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri) as websocket:
            await attempt("dict", websocket.send({"a": 1}))
            await attempt("int", websocket.send(42))
            await attempt("none", websocket.send(None))
            await attempt("ping", websocket.ping("x" * 126))
            first = asyncio.create_task(websocket.recv())
            await asyncio.sleep(0)
            try:
                await websocket.recv()
            except ConcurrencyError as exc:
                print(exc)
            try:
                async for _ in websocket.recv_streaming():
                    pass
            except ConcurrencyError as exc:
                print(exc)
            await websocket.send("for the first")
            print(await first)
            cancelled = asyncio.create_task(websocket.recv())
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            try:
                await asyncio.wait_for(websocket.recv(), 0.01)
            except TimeoutError:
                print("timeout")
            await websocket.send("not lost")
            print(await websocket.recv())
            await attempt("code 1006", websocket.close(1006))
            await attempt("code 999", websocket.close(999))
            await attempt("code 5000", websocket.close(5000))
            await attempt("long reason", websocket.close(1000, "x" * 124))
            print(websocket.state.name)
        async with connect(uri) as websocket:
            await attempt("mixed", websocket.send(["a", b"b"]))
            await attempt("after", websocket.recv())
        async with connect(uri) as websocket:
            await attempt("numbers", websocket.send([1, 2]))
        async with connect(uri) as websocket:
            def broken():
                yield "a"
                raise LookupError("in a generator")

            try:
                await websocket.send(broken())
            except LookupError as exc:
                print(exc)
            await attempt("after", websocket.recv())
        opening = connect(uri)
        async with opening as websocket:
            try:
                async with opening:
                    pass
            except RuntimeError as exc:
                print(exc)
        async with opening as websocket:
            print(websocket.state.name)
    try:
        connect("ws://localhost/", compression="gzip")
    except ValueError as exc:
        print(exc)
    try:
        await serve(echo, "127.0.0.1", 0, no_such_argument=True)
    except TypeError as exc:
        print("no_such_argument" in str(exc))
    try:
        await connect(uri, no_such_argument=True)
    except TypeError as exc:
        print("no_such_argument" in str(exc))
    print(issubclass(ProtocolError, WebSocketException))
