"""The same application, client and settings on uvicorn's default WebSocket class and on ours: the application is told,
the client sees, and the log says the same."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgi_serving import OURS, THEIRS, App, Message, Receive, Send, run, serving, uri_of
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

Client = Callable[[str], Awaitable[Any]]
CONNECT = {"type": "websocket.connect"}
ACCEPT: Message = {"type": "websocket.accept"}


def text(data: str) -> Message:
    return {"type": "websocket.send", "text": data}


def body(data: bytes, **more: Any) -> Message:
    return {"type": "websocket.http.response.body", "body": data, **more}


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


# -- applications ------------------------------------------------------------------------------------------------------


def sends(*messages: Message, connect: bool = True, listen: bool = True) -> App:
    """Takes the first message, sends these, and receives until it is told the end."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if connect:
            await receive()
        for message in messages:
            await send(message)
        while listen and (await receive())["type"] != "websocket.disconnect":
            pass

    return app


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def sends_late(scope: Message, receive: Receive, send: Send) -> None:
    """What it sends when the client is gone is an OSError; so it ends quietly."""
    await echo(scope, receive, send)
    await send(text("too late"))


async def closes_late(scope: Message, receive: Receive, send: Send) -> None:
    await echo(scope, receive, send)
    await send({"type": "websocket.close"})


async def sends_after_closing(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send(ACCEPT)
    await send({"type": "websocket.close", "code": 3000})
    try:
        await send(text("too late"))
    except RuntimeError:
        await receive()


async def asks_before_it_accepts(scope: Message, receive: Receive, send: Send) -> None:
    """Another task waits for a message while the handshake is under way."""
    await receive()
    early = asyncio.create_task(receive())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await send(ACCEPT)
    await send(text("go on"))
    await early


async def tries_odd_messages(scope: Message, receive: Receive, send: Send) -> None:
    for kind in ("websocket.send", "websocket.http.response.body", "nonsense"):
        with pytest.raises(RuntimeError):
            await send({"type": kind})
    await send(ACCEPT)
    for kind in ("websocket.accept", "websocket.http.response.start", "nonsense"):
        with pytest.raises(RuntimeError):
            await send({"type": kind})
    await send({"type": "websocket.close", "reason": None})


async def looks_at_its_scope(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    own = {**scope, "asgi": scope["asgi"]["version"], "server": scope["server"][0], "client": scope["client"][0]}
    own["headers"] = [item for item in own["headers"] if item[0] not in (b"host", b"sec-websocket-key")]
    await send(ACCEPT)
    await send(text(repr(own)))


# -- clients -----------------------------------------------------------------------------------------------------------


async def hears(uri: str, **options: Any) -> Any:
    """Listens until it is refused, or closed."""
    try:
        async with connect(uri, subprotocols=["a", "b"], **options) as connection:  # type: ignore[list-item]
            heard: list[Any] = [connection.subprotocol]
            assert connection.response is not None
            names = ("server", "x-mine", "sec-websocket-extensions")
            heard += [connection.response.headers.get_all(name) for name in names]
            try:
                while True:
                    heard.append(await connection.recv())
            except ConnectionClosed as exc:
                heard.append(exc.rcvd)
            return heard
    except InvalidStatus as exc:
        response = exc.response
        names = ("content-length", "content-type", "connection", "location")
        return response.status_code, response.body, [response.headers.get_all(name) for name in names]


async def talks(uri: str) -> Any:
    async with connect(uri) as connection:
        await connection.send("grüße")
        await connection.send(b"\x00\xff" * 40_000)
        await connection.send(["in ", "three ", "pieces"])
        await connection.send("")
        await (await connection.ping())
        heard = [await connection.recv() for _ in range(4)]
        await connection.close(4001, "that was all")
        return heard, connection.close_code


async def leaves_without_code(uri: str) -> Any:
    async with connect(uri) as connection:
        connection.protocol.send_frame(Frame(Opcode.CLOSE, b""))
        connection.transport.write(b"".join(connection.protocol.data_to_send()))
        await connection.wait_closed()
        return connection.close_code


async def says_one_thing(uri: str) -> Any:
    async with connect(uri) as connection:
        heard = await connection.recv()
        await connection.send("here")
        return heard


async def looks(uri: str) -> Any:
    headers = {"X-Odd": "\xe9\xff", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "wss"}
    async with connect(uri, subprotocols=["x", "y"], additional_headers=headers) as connection:  # type: ignore[list-item]
        return await connection.recv()


# -- both --------------------------------------------------------------------------------------------------------------


def recorded(app: App, told: list[Any]) -> App:
    async def recording(scope: Message, receive: Receive, send: Send) -> Any:
        async def recorded_receive() -> Message:
            told.append(await receive())
            return dict(told[-1])

        async def recorded_send(message: Message) -> None:
            try:
                await send(message)
            except Exception as exc:
                told.append(("OSError" if isinstance(exc, OSError) else type(exc).__name__, str(exc)))
                raise

        return await app(scope, recorded_receive, recorded_send)

    return recording


def story(app: App, client: Client, caplog: pytest.LogCaptureFixture, ws: str, target: str, options: Any) -> Any:
    told: list[Any] = []

    async def main() -> Any:
        async with serving(recorded(app, told), ws, **options) as server:
            return await client(uri_of(server, target))

    caplog.clear()
    with caplog.at_level(5 if "log_level" in options else logging.INFO, logger="uvicorn.error"):
        seen = run(main())
    records = [record for record in caplog.records if record.name == "uvicorn.error"]
    lines = [re.sub(r":\d+", ":PORT", record.getMessage()) for record in records]
    return {"told": told, "seen": seen, "log": lines}


CLOSE_LATE: Message = {"type": "websocket.close", "code": 3000, "reason": "enough"}
DETAIL = (b"content-type", b"application/json"), (b"location", b"/elsewhere")

CASES: dict[str, tuple[App, Client]] = {
    "echo": (echo, talks),
    "accepts, with headers and a subprotocol": (
        sends({**ACCEPT, "subprotocol": "b", "headers": [(b"x-mine", b"1"), (b"X-Mine", b"\xe9")]}, CLOSE_LATE),
        hears,
    ),
    "accepts before it is asked": (sends(ACCEPT, text("x"), CLOSE_LATE, connect=False), hears),
    "closes without a code": (sends(ACCEPT, {"type": "websocket.close"}), hears),
    "sends and closes": (sends(ACCEPT, text("x"), {"type": "websocket.send", "bytes": b"y"}, CLOSE_LATE), hears),
    "bytes go before text": (sends(ACCEPT, {**text("x"), "bytes": b"y"}, CLOSE_LATE), hears),
    "no text beside None": (sends(ACCEPT, {**text("x"), "bytes": None}, CLOSE_LATE), hears),
    "refuses": (sends({"type": "websocket.close"}), hears),
    "refuses before it is asked": (sends({"type": "websocket.close"}, connect=False), hears),
    "refuses with a response": (sends(start(401, *DETAIL), body(b'{"detail": "no"}')), hears),
    "refuses with one in parts": (sends(start(404, *DETAIL), body(b"x" * 10, more_body=True), body(b"y")), hears),
    "refuses with a status of its own": (sends(start(599, *DETAIL), body(b"")), hears),
    "sends too early": (sends(text("x")), hears),
    "ends before it has answered": (sends(listen=False), hears),
    "fails before it has answered": (sends({"type": "websocket.accept", "headers": [(b"x",)]}), hears),
    "is told of a client that leaves": (echo, leaves_without_code),
    "sends when the client is gone": (sends_late, talks),
    "closes when the client is gone": (closes_late, talks),
    "sends after closing": (sends_after_closing, hears),
    "asks before it accepts": (asks_before_it_accepts, says_one_thing),
    "tries odd messages": (tries_odd_messages, hears),
}


#: Lines that their log has and ours has not, because they are not true.
UNTRUE = {
    "refuses with a response": "ASGI callable returned without completing handshake.",
    "refuses with one in parts": "ASGI callable returned without completing handshake.",
    "refuses with a status of its own": "ASGI callable returned without completing handshake.",
    "fails before it has answered": '127.0.0.1:PORT - "WebSocket /a%20b?c=%64" [accepted]',
}


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("case", CASES)
def test_twins(case: str, http: str, caplog: pytest.LogCaptureFixture) -> None:
    app, client = CASES[case]
    theirs, ours = [story(app, client, caplog, ws, "/a%20b?c=%64", {"http": http}) for ws in (THEIRS, OURS)]
    if case in UNTRUE:
        theirs["log"].remove(UNTRUE[case])
    assert ours == theirs
    assert ours["told"] or ours["log"]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("/", {}),
        ("/one%2Ftwo/%C3%A9?q=%20&r", {"root_path": "/root"}),
        ("//x/?", {"forwarded_allow_ips": "*"}),
        ("/", {"ws_per_message_deflate": False, "proxy_headers": False}),
    ],
)
def test_scope(target: str, options: Any, caplog: pytest.LogCaptureFixture) -> None:
    theirs, ours = [story(looks_at_its_scope, looks, caplog, ws, target, options) for ws in (THEIRS, OURS)]
    assert ours == theirs
    assert "websocket.http.response" in ours["seen"]


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [("X-Mine", "of the server")]},
        {"headers": [("Server", "mine")]},
        {"server_header": False, "date_header": False},
        {"ws_per_message_deflate": False},
    ],
    ids=str,
)
def test_headers(options: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = sends({**ACCEPT, "headers": [(b"x-mine", b"of the application")]}, CLOSE_LATE)
    theirs, ours = [story(app, hears, caplog, ws, "/", options) for ws in (THEIRS, OURS)]
    assert ours == theirs


def test_the_trace_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("uvicorn.access", "uvicorn.asgi"):
        caplog.set_level(logging.INFO, logger=name)  # to be restored: the server's settings change it
    options = {"log_level": "trace"}
    theirs, ours = [story(echo, talks, caplog, ws, "/", options)["log"] for ws in (THEIRS, OURS)]
    lines = [[line for line in log if "WebSocket connection" in line] for log in (theirs, ours)]
    assert lines[0] == lines[1]
    assert len(lines[1]) == 2
