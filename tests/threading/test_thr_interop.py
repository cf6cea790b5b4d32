"""Other people's clients and servers: websocket-client, and ws of node."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from peers import NODE_DIRECTORY, ROOT, node_with
from thr import LIMIT, echo, serving, tls_contexts, uri_of

from wsproto_fast.threading import connect

MESSAGES: list[str | bytes] = ["", "hello", "ünïcödé 🐍", "x" * 70_000, b"", b"\x00\xff", b"y" * 300_000]


@pytest.mark.parametrize("secure", [False, True])
def test_websocket_client(secure: bool) -> None:
    websocket = pytest.importorskip("websocket")
    server_tls, client_tls = tls_contexts()
    with serving(echo, ssl=server_tls if secure else None, subprotocols=["chat"]) as server:
        uri = uri_of(server).replace("ws://127.0.0.1", "wss://localhost") if secure else uri_of(server)
        client = websocket.create_connection(uri, subprotocols=["chat"], sslopt={"context": client_tls}, timeout=10)
        assert client.getsubprotocol() == "chat"
        for message in MESSAGES:
            if isinstance(message, str):
                client.send(message)
            else:
                client.send_binary(message)
            assert client.recv() == message
        client.ping("there?")
        assert client.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"there?")
        client.close(4000, b"bye")


@pytest.mark.external
@pytest.mark.parametrize("compression", ["deflate", None])
def test_server_of_node(compression: Any) -> None:
    program = """
    import { createRequire } from "node:module";
    const { WebSocketServer } = createRequire(process.argv[1] + "/")("ws");
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: true });
    server.on("listening", () => console.log(server.address().port));
    server.on("connection", (socket) => {
      socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
      socket.on("close", (code) => { console.log(code); });
    });
    process.stdin.on("end", () => process.exit(0)).resume();
    """
    process = subprocess.Popen(
        [node_with("ws"), "--input-type=module", "-e", program, str(NODE_DIRECTORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdout, process.stdin:
        port = int(process.stdout.readline())
        with connect(f"ws://127.0.0.1:{port}/", compression=compression) as connection:
            assert connection.response is not None
            assert ("Sec-WebSocket-Extensions" in connection.response.headers) is (compression is not None)
            for message in MESSAGES:
                connection.send(message)
                assert connection.recv(timeout=10) == message
            assert connection.ping().wait(LIMIT)
            connection.close(4000)
            assert connection.close_code == 4000
        assert process.stdout.readline() == "4000\n"


@pytest.mark.external
def test_client_of_node() -> None:
    script = ROOT / "tests" / "node" / "ws_client.mjs"
    with serving(echo) as server:
        say = ["a", "ü" * 70_000, {"hex": "00ff"}]
        scenario = {"uri": uri_of(server), "say": say, "expect": 3, "close": [4001, "x"]}
        done = subprocess.run(
            [node_with("ws"), str(script), str(NODE_DIRECTORY)],
            input=json.dumps(scenario) + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    seen = json.loads(done.stdout)
    assert seen["messages"] == say
    assert seen["code"] == 4001
