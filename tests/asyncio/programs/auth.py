"""Basic authentication, by a list and by a coroutine; credentials in the URI and in a header."""

import asyncio
import base64

from websockets.asyncio.client import connect
from websockets.asyncio.server import basic_auth, serve
from websockets.exceptions import InvalidStatus


async def greet(websocket):
    await websocket.send(f"hello {websocket.username}")


async def check_credentials(username, password):
    await asyncio.sleep(0)
    return username == password[::-1]


async def attempt(address, credentials="", **kwargs):
    try:
        async with connect(f"ws://{credentials}{address}/", **kwargs) as websocket:
            print(await websocket.recv())
    except InvalidStatus as exc:
        response = exc.response
        print(exc)
        print(response.status_code, response.reason_phrase, response.headers["WWW-Authenticate"], bytes(response.body))


async def main():
    for arguments in (
        {"realm": "kitchen", "credentials": ("ada", "s3cret:!")},
        {"realm": 'a "quoted" name', "credentials": [("ada", "s3cret:!"), ("bob", "drowssap")]},
        {"check_credentials": check_credentials},
        {"check_credentials": lambda username, password: True},
    ):
        async with serve(greet, "127.0.0.1", 0, process_request=basic_auth(**arguments)) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            await attempt(address)
            await attempt(address, "ada:s3cret%3A%21@")
            await attempt(address, "bob:drowssap@")
            await attempt(address, "bob:bob@")
            token = base64.b64encode(b"bob:bob").decode()
            await attempt(address, additional_headers={"Authorization": f"Basic {token}"})
            await attempt(address, additional_headers={"Authorization": "Bearer abc"})
            await attempt(address, additional_headers={"Authorization": "Basic !!!"})
    for arguments in (
        {},
        {"credentials": ("a", "b"), "check_credentials": check_credentials},
        {"credentials": 42},
        {"credentials": ("a", 1)},
    ):
        try:
            basic_auth(**arguments)
        except (TypeError, ValueError) as exc:
            print(type(exc).__name__, str(exc).partition(":")[0])
