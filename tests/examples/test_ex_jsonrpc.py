"""examples/jsonrpc: its client against its server, and the server by the examples of the specification."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import pytest
from running import EXAMPLES, running
from websockets.sync.client import connect

from wsproto_fast import ConnectionClosed

pytestmark = pytest.mark.external


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with running("jsonrpc/server.py", "--port", "0") as server:
        yield server.uri


def test_client(uri: str) -> None:
    with running("jsonrpc/client.py", uri) as client:
        slept = [round(0.2 - n / 100, 10) for n in range(10)]
        lines = client.end()
    assert lines[:2] == ["2 + 3 = 5", "6 / 4 = 1.5"]
    assert [round(value, 10) for value in json.loads(lines[2].removeprefix("slept "))] == slept
    assert lines[3:] == ["error 1: division by zero", "that took too long"]


def error(code: int, id: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "code": code}


# Requests and answers as in section 7 of the specification; of errors, their codes.
@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1}, {"jsonrpc": "2.0", "result": 3, "id": 1}),
        (
            {"jsonrpc": "2.0", "method": "add", "params": {"b": 1, "a": 2}, "id": "x"},
            {"jsonrpc": "2.0", "result": 3, "id": "x"},
        ),
        ({"jsonrpc": "2.0", "method": "foobar", "id": "1"}, error(-32601, "1")),
        ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', error(-32700)),
        ({"jsonrpc": "2.0", "method": 1, "params": "bar"}, error(-32600)),
        ([], error(-32600)),
        ([1], [error(-32600)]),
        ({"jsonrpc": "2.0", "method": "add", "params": [1], "id": 1}, error(-32602, 1)),
        ({"jsonrpc": "2.0", "method": "add", "params": ["a", 1], "id": 1}, error(-32603, 1)),
        ({"jsonrpc": "2.0", "method": "divide", "params": [1, 0], "id": 1}, error(1, 1)),
        (
            [
                {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": "1"},
                {"jsonrpc": "2.0", "method": "add", "params": [7, 7]},
                {"foo": "boo"},
                {"jsonrpc": "2.0", "method": "foo.get", "id": "5"},
            ],
            [{"jsonrpc": "2.0", "result": 3, "id": "1"}, error(-32600), error(-32601, "5")],
        ),
    ],
)
def test_server(uri: str, request_: Any, answer: Any) -> None:
    def shape(answer: Any) -> Any:
        if isinstance(answer, list):
            return [shape(each) for each in answer]
        if "error" in answer:
            assert isinstance(answer["error"]["message"], str)
            return error(answer["error"]["code"], answer["id"])
        return answer

    with connect(uri, proxy=None) as connection:
        connection.send(request_ if isinstance(request_, str) else json.dumps(request_))
        assert shape(json.loads(connection.recv(10))) == answer


def test_answers_come_as_calls_end_and_notifications_have_none(uri: str) -> None:
    with connect(uri, proxy=None) as connection:
        for call in (
            {"method": "sleep", "params": [0.3], "id": "slow"},
            {"method": "add", "params": [1, 1]},
            {"method": "sleep", "params": [0], "id": "quick"},
        ):
            connection.send(json.dumps({"jsonrpc": "2.0", **call}))
        assert [json.loads(connection.recv(10))["id"] for _ in range(2)] == ["quick", "slow"]


def test_more_calls_than_may_run_at_a_time(uri: str) -> None:
    with connect(uri, proxy=None) as connection:
        for number in range(250):
            call = {"jsonrpc": "2.0", "method": "sleep", "params": [0.01], "id": number}
            connection.send(json.dumps(call))
        assert {json.loads(connection.recv(10))["id"] for _ in range(250)} == set(range(250))


def test_calls_of_the_client_end_with_its_connection() -> None:
    spec = importlib.util.spec_from_file_location("jsonrpc_client", EXAMPLES / "jsonrpc" / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    async def main(uri: str, end: Any) -> None:
        async with module.Client(uri, proxy=None) as client:
            call = asyncio.create_task(client.call("sleep", 60))
            assert await client.call("add", 1, 1) == 2
            end()
            with pytest.raises(ConnectionClosed):
                await call
            with pytest.raises(TypeError, match="not both"):
                await client.call("add", 1, b=2)

    with running("jsonrpc/server.py", "--port", "0") as server:
        asyncio.run(main(server.uri, server.process.kill))
