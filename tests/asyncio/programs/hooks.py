"""Looking at requests and responses, on both sides; headers that repeat."""

import asyncio
import logging

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response


async def handler(websocket):
    request, response = websocket.request, websocket.response
    print(type(request).__name__, request.path, request.headers.get_all("X-Many"), response.status_code)
    print(websocket.local_address == websocket.transport.get_extra_info("sockname"), len(websocket.remote_address))
    await websocket.send(request.headers["X-One"])


def process_request(connection, request):
    print("request", isinstance(request, Request), connection.state.name, connection.request is request)
    if "refuse" in request.path:
        response = connection.respond(403, "refused: é\n")
        response.headers["X-Reason"] = "path"
        return response
    connection.visitor = request.headers["X-One"]
    return None


async def process_response(connection, request, response):
    await asyncio.sleep(0)
    print("response", isinstance(response, Response), response.status_code, response.headers.get("Upgrade"))
    response.headers["Set-Cookie"] = "a=1"
    response.headers["Set-Cookie"] = "b=2"
    if "late" in request.path:
        return connection.respond(404, "too late\n")
    if "fail" in request.path:
        raise RuntimeError("in a hook")
    return None


async def main():
    logging.getLogger("an.application").propagate = False
    headers = Headers([("X-One", "1"), ("X-Many", "2"), ("X-Many", "3")])
    async with serve(
        handler,
        "127.0.0.1",
        0,
        process_request=process_request,
        process_response=process_response,
        server_header="us",
        logger=logging.getLogger("an.application"),
    ) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for arguments in (headers, [("X-One", "1")], {"x-one": "it"}):
            async with connect(f"{uri}/a?b=c", additional_headers=arguments, user_agent_header="me") as websocket:
                print(await websocket.recv())
                print(websocket.request.headers["User-Agent"], websocket.response.headers["Server"])
                print(websocket.response.headers.get_all("set-cookie"), websocket.response.reason_phrase)
                try:
                    websocket.response.headers["Set-Cookie"]
                except MultipleValuesError as exc:
                    print("several", exc)
        async with connect(f"{uri}/", additional_headers=headers, user_agent_header=None) as websocket:
            print(websocket.request.headers.get("User-Agent"))
        for path in ("refuse", "late", "fail"):
            try:
                await connect(f"{uri}/{path}", additional_headers=headers)
            except InvalidStatus as exc:
                print(exc, exc.response.status_code, bytes(exc.response.body), exc.response.headers.get("X-Reason"))
