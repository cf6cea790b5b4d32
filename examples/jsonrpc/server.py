"""JSON-RPC 2.0 over WebSocket: calls run at the same time and are answered as they end; notifications, batches, errors.

    python server.py [--port PORT]
    python client.py ws://localhost:8765

The specification is at jsonrpc.org. A method's ``RpcError`` reaches the caller; of any other exception only
"internal error" does, and the traceback goes to the log.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from wsproto_fast import ConnectionClosed
from wsproto_fast.asyncio import ServerConnection, serve

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
#: Calls of one client that run at the same time; it is not read from while there are so many.
MAX_CALLS = 100

logger = logging.getLogger("jsonrpc")
METHODS: dict[str, Callable[..., Awaitable[Any]]] = {}


class RpcError(Exception):
    """An error that the caller is told."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def method(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Clients may call it, by its name."""
    METHODS[function.__name__] = function
    return function


@method
async def add(a: float, b: float) -> float:
    return a + b


@method
async def divide(a: float, b: float) -> float:
    if b == 0:
        raise RpcError(1, "division by zero", {"a": a})
    return a / b


@method
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


# -- the protocol ------------------------------------------------------------------------------------------------------


async def serve_rpc(connection: ServerConnection) -> None:
    """Answer one client until it has gone; then its calls are cancelled."""
    calls: set[asyncio.Task[None]] = set()
    try:
        async for message in connection:
            call = asyncio.create_task(reply(connection, message))
            calls.add(call)
            call.add_done_callback(calls.discard)
            if len(calls) >= MAX_CALLS:
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for call in calls:
            call.cancel()


async def reply(connection: ServerConnection, message: str | bytes) -> None:
    try:
        request = json.loads(message)
    except ValueError:
        answer: Any = failed(None, PARSE_ERROR, "parse error")
    else:
        answer = await (run_all(request) if isinstance(request, list) else run(request))
    if answer is not None:
        try:
            await connection.send_json(answer)
        except ConnectionClosed:
            pass


async def run_all(requests: list[Any]) -> Any:
    """A batch. None: there is nothing to answer."""
    if not requests:
        return failed(None, INVALID_REQUEST, "an empty batch")
    answers = await asyncio.gather(*map(run, requests))
    return [answer for answer in answers if answer is not None] or None


async def run(request: Any) -> dict[str, Any] | None:
    """One call. None for a notification, whatever becomes of it."""
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
        return failed(None, INVALID_REQUEST, "not a request of JSON-RPC 2.0")
    answer = await call(request)
    if "id" not in request:
        return None
    return {"jsonrpc": "2.0", "id": request["id"], **answer}


async def call(request: dict[str, Any]) -> dict[str, Any]:
    function = METHODS.get(request["method"])
    if function is None:
        return error(METHOD_NOT_FOUND, f"no method {request['method']!r}")
    params = request.get("params", [])
    try:
        args, kwargs = ((), params) if isinstance(params, dict) else (params, {})
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as exc:
        return error(INVALID_PARAMS, str(exc))
    try:
        return {"result": await function(*args, **kwargs)}
    except RpcError as exc:
        return error(exc.code, str(exc), exc.data)
    except Exception:
        logger.exception("%s failed", request["method"])
        return error(INTERNAL_ERROR, "internal error")


def error(code: int, message: str, data: Any = None) -> dict[str, Any]:
    content = {"code": code, "message": message}
    return {"error": content if data is None else {**content, "data": data}}


def failed(id: Any, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, **error(code, message)}


async def main(port: int) -> None:
    async with serve(serve_rpc, "127.0.0.1", port) as server:
        print(f"Listening on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8765)
    try:
        asyncio.run(main(parser.parse_args().port))
    except KeyboardInterrupt:
        pass
