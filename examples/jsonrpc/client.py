"""A client for JSON-RPC 2.0 over WebSocket: ``await client.call("add", a=1, b=2)``, many of them at the same time.

    python client.py ws://localhost:8765
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

from wsproto_fast import ConnectionClosed
from wsproto_fast.asyncio import ClientConnection, connect


class RpcError(Exception):
    """What the server says is wrong: ``code``, the message, and perhaps ``data``."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Client:
    """Calls methods of a server, within ``async with``. Answers may come in any order."""

    def __init__(self, uri: str, **arguments: Any) -> None:
        self._connecting = connect(uri, **arguments)
        self._connection: ClientConnection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> Client:
        self._connection = await self._connecting
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()
        await self._reader

    async def call(self, method: str, *args: Any, timeout: float | None = 10, **kwargs: Any) -> Any:
        """Call a method with arguments by position or by name. Raises RpcError, TimeoutError, ConnectionClosed."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._connection.send_json(request(method, args, kwargs, id=number))
            return await asyncio.wait_for(answer, timeout)
        finally:
            del self._waiting[number]

    async def notify(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call a method without waiting for it. Nothing tells whether it worked."""
        await self._connection.send_json(request(method, args, kwargs))

    async def _read(self) -> None:
        try:
            while True:
                self._settle(await self._connection.recv_json())
        except ConnectionClosed as exc:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(exc)

    def _settle(self, response: dict[str, Any]) -> None:
        answer = self._waiting.get(response["id"])
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if "error" in response:
            answer.set_exception(RpcError(**response["error"]))
        else:
            answer.set_result(response["result"])


def request(method: str, args: tuple[Any, ...], kwargs: dict[str, Any], **more: Any) -> dict[str, Any]:
    if args and kwargs:
        raise TypeError("JSON-RPC has arguments by position or by name, not both")
    return {"jsonrpc": "2.0", "method": method, "params": kwargs or args, **more}


async def main(uri: str) -> None:
    async with Client(uri) as client:
        print("2 + 3 =", await client.call("add", 2, 3))
        print("6 / 4 =", await client.call("divide", a=6, b=4))
        # Ten calls that take a fifth of a second each, at the same time.
        print("slept", await asyncio.gather(*(client.call("sleep", 0.2 - n / 100) for n in range(10))))
        try:
            await client.call("divide", 1, 0)
        except RpcError as exc:
            print(f"error {exc.code}: {exc}")
        try:
            await client.call("sleep", 10, timeout=0.1)
        except asyncio.TimeoutError:
            print("that took too long")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
