"""FastAPI and python-socketio over uvicorn with our WebSocket class: the examples, talked to by real clients."""

from __future__ import annotations

import asyncio
import json
import runpy
from typing import Any

import pytest
from asgi_serving import ROOT, port_of, run, serving, uri_of
from peers import NODE_DIRECTORY, node_with

from wsproto_fast.asyncio import connect

# FastAPI imports pydantic, whose compiled half loses memory when it is imported: nothing for the sanitizers.
pytestmark = pytest.mark.external



def app_of(example: str) -> Any:
    return runpy.run_path(str(ROOT / "examples" / "uvicorn" / example))["app"]


def test_fastapi_chat() -> None:
    pytest.importorskip("fastapi")

    async def main() -> None:
        async with serving(app_of("fastapi_chat.py")) as server:
            async with connect(uri_of(server, "/rooms/a/ann")) as ann, connect(uri_of(server, "/rooms/b/eve")) as eve:
                assert await ann.recv() == "ann comes"
                assert await eve.recv() == "eve comes"
                async with connect(uri_of(server, "/rooms/a/b%20ob")) as bob:
                    assert await bob.recv() == await ann.recv() == "b ob comes"
                    await ann.send("grüße")
                    assert await bob.recv() == await ann.recv() == "ann: grüße"
                assert await ann.recv() == "b ob goes"
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert b"new WebSocket" in await reader.read()
            writer.close()

    run(main())


def test_fastapi_refuses_what_it_does_not_know() -> None:
    """Starlette closes before it accepts."""
    pytest.importorskip("fastapi")
    from wsproto_fast.exceptions import InvalidStatus

    async def main() -> int:
        async with serving(app_of("fastapi_chat.py")) as server:
            with pytest.raises(InvalidStatus) as caught:
                await connect(uri_of(server, "/nowhere"))
        return caught.value.response.status_code

    assert run(main()) == 403


@pytest.mark.parametrize("transports", ["websocket", "polling,websocket"])
def test_socketio_rooms(transports: str) -> None:
    pytest.importorskip("socketio")
    node = node_with("socket.io-client")

    async def main() -> Any:
        async with serving(app_of("socketio_rooms.py")) as server:
            script = str(ROOT / "tests" / "node" / "socketio_client.mjs")
            process = await asyncio.create_subprocess_exec(
                *(node, script, NODE_DIRECTORY, str(port_of(server)), transports),
                stdout=asyncio.subprocess.PIPE,
                limit=2**20,
            )
            try:
                output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert process.returncode == 0
            return json.loads(output)

    seen = run(main())
    assert seen["refusal"] == "who are you?"
    assert seen["counts"] == [0, 1]
    assert seen["joined"] == [{"room": "lobby", "name": "bob"}]
    assert seen["said"][0] == ["bob", {"text": "grüße", "numbers": [1, 2.5, None]}]
    assert seen["said"][1] == ["bob", {"hex": "0001feff"}]
    assert seen["said"][2:] == [["bob", "x" * number * 50] for number in range(100)]
    assert seen["transport"] == ["websocket", "websocket"]
    assert seen["gone"] == "io client disconnect"
