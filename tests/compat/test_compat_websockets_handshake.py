"""Opening handshakes: our façades of websockets' ``ServerProtocol`` and ``ClientProtocol`` beside the originals."""

from __future__ import annotations

import logging
import re
from types import ModuleType
from typing import Any

import pytest
from websockets_twins import (
    KEY,
    ORIGINAL,
    REQUEST,
    RESPONSE,
    Log,
    facade,
    head,
    perform,
    plain,
    sent,
    snapshot,
    to_client,
    to_server,
    tried,
)

GET = "GET /chat?x=1 HTTP/1.1"
SWITCHING = "HTTP/1.1 101 Switching Protocols"


class Op:
    """An extension, and both of its factories, that agree on one operation."""

    name = "x-op"

    def __init__(self, op: str, error: type[Exception]) -> None:
        self.op = op
        self.error = error

    def __repr__(self) -> str:
        return f"x-op={self.op}"

    def get_request_params(self) -> list[tuple[str, str | None]]:
        return [("op", self.op)]

    def process_response_params(self, params: Any, accepted: Any) -> Op:
        if params != [("op", self.op)]:
            raise self.error("no such operation")
        return self

    def process_request_params(self, params: Any, accepted: Any) -> Any:
        return [("op", self.op)], self.process_response_params(params, accepted)

    def decode(self, frame: Any, *, max_size: int | None = None) -> Any:
        return frame

    def encode(self, frame: Any) -> Any:
        return frame


def extensions(lib: Any, side: str, wanted: str) -> list[Any] | None:
    """Factories by their names: "deflate", and operations of ``x-op``."""
    if not wanted:
        return None
    deflate = getattr(lib.deflate, f"{side}PerMessageDeflateFactory")
    error = lib.exceptions.NegotiationError
    return [deflate() if name == "deflate" else Op(name, error) for name in wanted.split()]


# -- the server ----------------------------------------------------------------

#: What of the request differs; arguments of the server. Values: None leaves a header out.
REQUESTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"Connection": None}, {}),
    ({"Connection": "close"}, {}),
    ({"Connection": "upgrade"}, {}),
    ({"Upgrade": None}, {}),
    ({"Upgrade": "h2c"}, {}),
    ({"Upgrade": "WebSocket"}, {}),
    ({"Sec-WebSocket-Key": None}, {}),
    ({"Sec-WebSocket-Key": "c2hvcnQ="}, {}),
    ({"Sec-WebSocket-Version": None}, {}),
    ({"Sec-WebSocket-Version": "8"}, {}),
    # origins
    ({"Origin": "https://a.example"}, {}),
    ({"Origin": "https://a.example"}, {"origins": ["https://a.example"]}),
    ({"Origin": "https://b.example"}, {"origins": ["https://a.example", re.compile(r"https://[bc]\.example")]}),
    ({"Origin": "https://b.example.org"}, {"origins": [re.compile(r"https://[bc]\.example")]}),
    ({"Origin": "https://b.example"}, {"origins": ["https://a.example"]}),
    ({}, {"origins": [re.compile("x"), None]}),
    ({}, {"origins": [re.compile("x"), "y"]}),
    ({"Origin": ""}, {"origins": ["y"]}),
    # subprotocols
    ({"Sec-WebSocket-Protocol": "chat, superchat"}, {}),
    ({"Sec-WebSocket-Protocol": "chat, superchat"}, {"subprotocols": ["superchat", "chat"]}),
    ({"Sec-WebSocket-Protocol": "otherchat"}, {"subprotocols": ["superchat", "chat"]}),
    ({}, {"subprotocols": ["superchat", "chat"]}),
    ({}, {"subprotocols": []}),
    ({"Sec-WebSocket-Protocol": "chat"}, {"select_subprotocol": lambda protocol, offered: offered[0]}),
    ({"Sec-WebSocket-Protocol": "chat"}, {"select_subprotocol": lambda protocol, offered: None}),
    ({"Sec-WebSocket-Protocol": "chat"}, {"select_subprotocol": lambda protocol, offered: 1 // 0}),
    # extensions
    ({"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}, {}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}, {"extensions": "deflate"}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate; unknown, permessage-deflate"}, {"extensions": "deflate"}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate, permessage-deflate"}, {"extensions": "deflate"}),
    ({"Sec-WebSocket-Extensions": "x-op; op=a"}, {"extensions": "b a"}),
    ({"Sec-WebSocket-Extensions": "x-op; op=c, permessage-deflate, x-op; op=b"}, {"extensions": "a b deflate"}),
    ({"Sec-WebSocket-Extensions": "x-op; op=c"}, {"extensions": "a"}),
    ({"Sec-WebSocket-Extensions": "x-op; ="}, {}),
    ({"Sec-WebSocket-Extensions": "x-op; ="}, {"extensions": "a"}),
]


def servers(ws: ModuleType, arguments: dict[str, Any]) -> list[Any]:
    made = []
    for lib in (ORIGINAL, facade(ws)):
        more = {**arguments, "extensions": extensions(lib, "Server", arguments.get("extensions", ""))}
        made.append(lib.server.ServerProtocol(**more))
    return made


def accept(protocol: Any, data: bytes) -> list[Any]:
    """Feed a request and answer it as embedders do; what came of it."""
    seen: list[Any] = []
    protocol.receive_data(data)
    for event in protocol.events_received():
        response = protocol.accept(event)
        seen += [plain(event), plain(response), protocol.accept_called]
        protocol.send_response(response)
    return [*seen, snapshot(protocol)]


@pytest.mark.parametrize("case", range(len(REQUESTS)))
def test_request(ws: ModuleType, case: int) -> None:
    changed, arguments = REQUESTS[case]
    theirs, ours = (accept(server, head(GET, {**REQUEST, **changed})) for server in servers(ws, arguments))
    assert ours == theirs
    assert len(ours) == 4


@pytest.mark.parametrize("case", [0, 1, 5, 7, 15])
def test_request_with_log(ws: ModuleType, case: int) -> None:
    changed, arguments = REQUESTS[case]
    logs = []
    for lib in (ORIGINAL, facade(ws)):
        log = Log()
        protocol = lib.server.ServerProtocol(**arguments, logger=log.logger)
        accept(protocol, head(GET, {**REQUEST, **changed}))
        protocol.receive_eof()
        logs.append([line for line in log.lines if "user-agent" not in line.lower()])
    assert logs[0] == logs[1]


@pytest.mark.parametrize("data", [b"HELO relay.invalid\r\n", b"GET / HTTP/1.1\r\n" + 129 * b"X: y\r\n" + b"\r\n"])
def test_no_request_with_log(ws: ModuleType, data: bytes) -> None:
    logs = []
    for lib in (ORIGINAL, facade(ws)):
        log = Log()
        protocol = lib.server.ServerProtocol(logger=log.logger)
        protocol.receive_data(data)
        logs.append([line for line in log.lines if "body" not in line and "Content-Length" not in line])
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    "data",
    [
        head("POST / HTTP/1.1", REQUEST),
        head("GET / HTTP/1.0", REQUEST),
        head(GET, [*REQUEST.items(), ("Sec-WebSocket-Key", KEY.decode())]),
        head(GET, [*REQUEST.items(), ("Sec-WebSocket-Version", "13")]),
        head(GET, [*REQUEST.items(), ("Origin", "a"), ("Origin", "b")]),
        head(GET, [*REQUEST.items(), ("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "b")]),
        head(GET, [*REQUEST.items(), ("X", "ÿ")]),
        b"HELO relay.invalid\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"",
    ],
)
def test_any_request(ws: ModuleType, data: bytes) -> None:
    """Byte by byte, to the end of the stream. The texts of causes are the parser's own."""
    seen = []
    for server in servers(ws, {"subprotocols": ["b"]}):
        for i in range(len(data)):
            server.receive_data(data[i : i + 1])
        one = accept(server, b"")
        server.receive_eof()
        cause = None if server.handshake_exc is None else type(server.handshake_exc.__cause__).__name__
        coded = b"Transfer-Encoding" in data  # to the original that is not implemented
        seen.append([*one, snapshot(server), cause if len(one) == 1 and not coded else None])
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + bytes(9000).replace(b"\0", b"a") + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nX: " + bytes(9000).replace(b"\0", b"a") + b"\r\n",
        b"GET / HTTP/1.1\r\n" + 129 * b"X: y\r\n" + b"\r\n",
    ],
)
def test_too_long_request(ws: ModuleType, data: bytes) -> None:
    """The same status and the same kind of error; its text has another wording."""
    seen = []
    for server in servers(ws, {}):
        server.receive_data(data)
        answer, end = server.data_to_send()
        assert server.events_received() == []
        seen.append((answer.split(b"\r\n")[0], end, type(server.handshake_exc).__name__, server.close_expected()))
    assert seen[0] == seen[1]


def test_early_frames(ws: ModuleType) -> None:
    """A client that does not wait for the answer: its frames are told before it is accepted, and read on after it."""
    seen = []
    request = head(GET, {**REQUEST, "Sec-WebSocket-Extensions": "permessage-deflate"})
    for server in servers(ws, {"extensions": "deflate"}):
        server.receive_data(request + to_server((0x81, b"early"), (0x01, b"Hel"))[:-2])
        first, *events = server.events_received()
        server.send_response(server.accept(first))
        server.receive_data(
            to_server((0x01, b"Hel"))[-2:] + to_server((0x80, b"lo"), (0xC1, b"\xf2\x48\xcd\xc9\xc9\x07\0"))
        )
        seen.append((plain(events), snapshot(server)))
    assert seen[0] == seen[1]
    assert [event[1][1] for event in seen[1][1]["events"]] == [b"Hel", b"lo", b"Hello"]


def test_early_error(ws: ModuleType) -> None:
    seen = []
    for server in servers(ws, {}):
        server.receive_data(head(GET, REQUEST) + to_server((0x83, b"")))
        seen.append(snapshot(server))
    assert seen[0] == seen[1]


def test_frames_after_the_answer(ws: ModuleType) -> None:
    seen = []
    for server in servers(ws, {"extensions": "deflate"}):
        accept(server, head(GET, {**REQUEST, "Sec-WebSocket-Extensions": "permessage-deflate"}))
        steps = [
            (
                "receive_data",
                to_server((0xC1, b"\xf2\x48\xcd\xc9\xc9\x07\0"), (0x41, b"\xf2\x48\xcd"), (0x80, b"\xc9\xc9\x07\0")),
            ),
            ("send_text", b"Hello"),
            ("send_binary", b"Hello" * 1000, False),
            ("send_ping", b"p"),
            ("send_continuation", memoryview(b"Hello" * 1000), True),
            ("send_close", 1000),
            ("receive_data", to_server((0xC1, b"\xff\xff"))),
            ("receive_eof",),
        ]
        seen.append(perform(server, steps))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("status", "text"), [(403, "no"), (200, ""), (404, "é"), (99, ""), (700, "")])
def test_reject(ws: ModuleType, status: int, text: str) -> None:
    seen = []
    for server in servers(ws, {}):
        server.receive_data(head(GET, REQUEST))
        server.events_received()
        answer = tried(lambda server=server: server.reject(status, text))
        if 200 <= status < 600:
            server.send_response(server.reject(status, text))
        server.receive_data(b"late")
        server.receive_eof()
        seen.append((answer, snapshot(server)))
    assert seen[0] == seen[1]


def test_response_that_was_changed(ws: ModuleType) -> None:
    """uvicorn takes our Date away and adds headers of its own."""
    seen = []
    for server in servers(ws, {}):
        server.receive_data(head(GET, REQUEST))
        response = server.accept(server.events_received()[0])
        del response.headers["Date"]
        response.headers.update([("server", "uvicorn"), ("Sec-WebSocket-Protocol", "chat")])
        server.send_response(response)
        seen.append(sent(server))
    assert seen[0] == seen[1]


def test_second_acceptance(ws: ModuleType) -> None:
    for server in servers(ws, {}):
        server.receive_data(head(GET, REQUEST))
        response = server.accept(server.events_received()[0])
        server.send_response(response)
        with pytest.raises(AssertionError):
            server.send_response(response)


def test_handshake_of_somebody_else(ws: ModuleType) -> None:
    """sanic reads the request itself, asks for the answer, and opens the connection by its state."""
    seen = []
    for lib in (ORIGINAL, facade(ws)):
        server = lib.server.ServerProtocol(state=lib.protocol.OPEN, subprotocols=["chat"], max_size=100)
        headers = lib.datastructures.Headers({**REQUEST, "Sec-WebSocket-Protocol": "chat"})
        response = server.accept(lib.http11.Request("/chat", headers))
        server.receive_data(to_server((0x81, b"Hello")))
        seen.append((plain(response), snapshot(server)))
    assert seen[0] == seen[1]


def test_overridden_methods(ws: ModuleType) -> None:
    seen = []
    for lib in (ORIGINAL, facade(ws)):

        class Server(lib.server.ServerProtocol):  # type: ignore[misc,name-defined]
            def process_origin(self, headers: Any) -> str:
                return "somewhere"

            def select_subprotocol(self, subprotocols: Any) -> str:
                return str(subprotocols[-1])

        seen.append(accept(Server(), head(GET, {**REQUEST, "Sec-WebSocket-Protocol": "a, b"})))
    assert seen[0] == seen[1]


def test_error_with_a_cause(ws: ModuleType) -> None:
    """The whole chain is told, as it is for errors of the original's own."""
    seen = []
    for lib in (ORIGINAL, facade(ws)):

        class Server(lib.server.ServerProtocol):  # type: ignore[misc,name-defined]
            error = lib.exceptions.InvalidHeaderValue

            def process_request(self, request: Any) -> Any:
                raise self.error("Cookie", "x") from ValueError("no such session")

        seen.append(accept(Server(), head(GET, REQUEST)))
    assert seen[0] == seen[1]


def test_host_is_needed(ws: ModuleType) -> None:
    """RFC 9112 3.2. The original leaves it to the HTTP stack, which embedders of it do not have."""
    data = head(GET, {**REQUEST, "Host": None})
    theirs, ours = servers(ws, {})
    theirs.receive_data(data)
    ours.receive_data(data)
    assert len(theirs.events_received()) == 1
    assert plain(ours.handshake_exc) == ("InvalidMessage", "did not receive a valid HTTP request")
    assert ours.events_received() == []
    assert ours.close_expected()


def test_illegal_heads_are_not_sent(ws: ModuleType) -> None:
    lib = facade(ws)
    client = clients(ws, {})[1]
    _, server = servers(ws, {})
    server.receive_data(head(GET, REQUEST))
    server.events_received()
    for path in ("/a b", "/a\r\nX: y"):
        with pytest.raises(ValueError, match="illegal request line"):
            client.send_request(lib.http11.Request(path, lib.datastructures.Headers()))
    with pytest.raises(ValueError, match="illegal character in header"):
        client.connect().headers["X: y\r\n"] = "z"
    with pytest.raises(ValueError, match="illegal status line"):
        server.send_response(lib.http11.Response(403, "a\r\nX: y", lib.datastructures.Headers()))
    assert client.data_to_send() == server.data_to_send() == []


# -- the client ----------------------------------------------------------------

#: What of the response differs; arguments of the client.
RESPONSES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"Connection": None}, {}),
    ({"Connection": "close"}, {}),
    ({"Upgrade": None}, {}),
    ({"Upgrade": "WebSocket"}, {}),
    ({"Sec-WebSocket-Accept": None}, {}),
    ({"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOO="}, {}),
    ({}, {"origin": "https://example.com"}),
    ({}, {"subprotocols": ["chat", "superchat"]}),
    ({"Sec-WebSocket-Protocol": "superchat"}, {"subprotocols": ["chat", "superchat"]}),
    ({"Sec-WebSocket-Protocol": "otherchat"}, {"subprotocols": ["chat", "superchat"]}),
    ({"Sec-WebSocket-Protocol": "chat, superchat"}, {"subprotocols": ["chat", "superchat"]}),
    ({"Sec-WebSocket-Protocol": "chat"}, {}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate"}, {"extensions": "deflate"}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits=10"}, {"extensions": "a deflate"}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate; x"}, {"extensions": "deflate"}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate, permessage-deflate"}, {"extensions": "deflate"}),
    ({"Sec-WebSocket-Extensions": "x-op; op=b, permessage-deflate"}, {"extensions": "a b deflate"}),
    ({"Sec-WebSocket-Extensions": "x-op; op=c"}, {"extensions": "a b"}),
    ({"Sec-WebSocket-Extensions": "permessage-deflate"}, {}),
]

URIS = ("ws://example.com/chat?x=1", "wss://user:pass@[::1]:8443", "ws://127.0.0.1:80/")


def clients(ws: ModuleType, arguments: dict[str, Any], uri: str = URIS[0], log: bool = False) -> list[Any]:
    made = []
    for lib in (ORIGINAL, facade(ws)):
        more = {**arguments, "extensions": extensions(lib, "Client", arguments.get("extensions", ""))}
        client = lib.client.ClientProtocol(lib.uri.parse_uri(uri), **more)
        client.key = KEY.decode()
        made.append(client)
    return made


def connect(client: Any, data: bytes) -> list[Any]:
    request = client.connect()
    client.send_request(request)
    client.receive_data(data)
    return [plain(request), snapshot(client)]


@pytest.mark.parametrize("case", range(len(RESPONSES)))
@pytest.mark.parametrize("uri", URIS)
def test_response(ws: ModuleType, case: int, uri: str) -> None:
    changed, arguments = RESPONSES[case]
    data = head(SWITCHING, {**RESPONSE, **changed}) + to_client((0x81, b"Hello"))
    theirs, ours = (connect(client, data) for client in clients(ws, arguments, uri))
    assert ours == theirs


@pytest.mark.parametrize(
    "data",
    [
        head(SWITCHING, [*RESPONSE.items(), ("Sec-WebSocket-Accept", "x")]),
        head(SWITCHING, RESPONSE),
        head("HTTP/1.1 403 Forbidden", {"Content-Length": "2"}) + b"no",
        head("HTTP/1.1 403 Forbidden", {"Transfer-Encoding": "chunked"}) + b"2\r\nno\r\n0\r\n\r\n",
        head("HTTP/1.1 403 Forbidden", {}) + b"no",
        head("HTTP/1.1 403 Forbidden", {"Content-Length": "3"}) + b"no",
        head("HTTP/1.1 204 No Content", {}),
        b"220 smtp.invalid\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade",
        b"HTTP/2.0 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 " + bytes(9000).replace(b"\0", b"1") + b"\r\n",
        b"HTTP/1.1 101 x\r\nX: " + bytes(9000).replace(b"\0", b"1") + b"\r\n",
        b"",
    ],
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_any_response(ws: ModuleType, data: bytes, step: int) -> None:
    """However it arrives, to the end of the stream. The texts of causes, and of limits, are the parser's own."""
    seen = []
    for client in clients(ws, {}):
        for i in range(0, len(data), step):
            client.receive_data(data[i : i + step])
        client.receive_eof()
        shown = snapshot(client)
        if client.handshake_exc is not None and "TooLong" in type(client.handshake_exc).__name__:
            shown["handshake_exc"] = type(client.handshake_exc).__name__
        seen.append(shown)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("data", [head(SWITCHING, RESPONSE), head("HTTP/1.1 403 No", {"Content-Length": "2"}) + b"no"])
def test_response_with_log(ws: ModuleType, data: bytes) -> None:
    logs = []
    for lib in (ORIGINAL, facade(ws)):
        log = Log()
        client = lib.client.ClientProtocol(lib.uri.parse_uri(URIS[0]), logger=log.logger)
        client.key = KEY.decode()
        connect(client, data)
        client.receive_eof()
        logs.append(log.lines)
    assert logs[0] == logs[1]


def test_response_after_the_end(ws: ModuleType) -> None:
    for client in clients(ws, {}):
        client.receive_eof()
        with pytest.raises(EOFError, match="stream ended"):
            client.receive_data(b"")


def test_both_sides(ws: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Our client and their server, and the other way round, with compression."""
    caplog.set_level(logging.INFO)
    for client, server in zip(
        clients(ws, {"extensions": "deflate"}), reversed(servers(ws, {"extensions": "deflate"})), strict=True
    ):
        client.send_request(client.connect())
        server.receive_data(b"".join(client.data_to_send()))
        server.send_response(server.accept(server.events_received()[0]))
        server.send_text(b"Hello" * 100)
        client.receive_data(b"".join(server.data_to_send()))
        response, message = client.events_received()
        assert (response.status_code, bytes(message.data)) == (101, b"Hello" * 100)
        client.send_binary(b"")
        client.send_binary(b"Hello" * 100, False)
        client.send_continuation(b"", True)
        server.receive_data(b"".join(client.data_to_send()))
        assert [(bytes(frame.data), frame.fin) for frame in server.events_received()] == [
            (b"", True),
            (b"Hello" * 100, False),
            (b"", True),
        ]
        client.send_close(1000)
        server.receive_data(b"".join(client.data_to_send()))
        *answer, eof = server.data_to_send()
        assert eof == b""
        client.receive_data(b"".join(answer))
        client.receive_eof()
        server.receive_eof()
        assert (type(client.close_exc).__name__, client.close_code, server.close_code) == (
            "ConnectionClosedOK",
            1000,
            1000,
        )
    assert {record.getMessage() for record in caplog.records} == {"connection open", "connection closed"}
