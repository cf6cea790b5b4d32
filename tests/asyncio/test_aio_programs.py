"""Programs written for websockets: with its imports and with ours they say the same.

Each file in ``programs`` is a program in the shape of one in websockets' documentation: a server, its clients, and what
they print. Only the modules in its imports change, by the table of docs/from-websockets.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aio import REQUEST, ROOT, run

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="websockets 17 wants Python 3.11")
pytest.importorskip("websockets", minversion="17")

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
PAGE = (ROOT / "docs" / "from-websockets.md").read_text()
#: The page's table of modules: "| `websockets.asyncio.client` | `wsproto_fast.asyncio.client` |".
MODULES = dict(re.findall(r"^\| `(websockets[\w.]*)` \| `(wsproto_fast[\w.]*)` \|", PAGE, re.MULTILINE))
_import = re.compile(r"^(from|import) (websockets[\w.]*)", re.MULTILINE)


def translated(source: str) -> str:
    """The program with our modules in its import lines."""
    return _import.sub(lambda match: f"{match[1]} {MODULES[match[2]]}", source)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy this machine uses."""
    monkeypatch.setenv("no_proxy", "*")


def output_of(source: str, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(source, name, "exec"), namespace)
    run(namespace["main"]())
    return capsys.readouterr().out


@pytest.mark.parametrize("path", PROGRAMS, ids=[path.stem for path in PROGRAMS])
def test_program(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = path.read_text()
    ours = translated(source)
    theirs = output_of(source, f"{path.stem}, with websockets", capsys)
    assert theirs.count("\n") >= 3
    assert output_of(ours, f"{path.stem}, with wsproto_fast", capsys).splitlines() == theirs.splitlines()


def test_programs_are_there() -> None:
    assert len(PROGRAMS) >= 25


# Deliberate differences: each behavioural row of the page, reproduced with both


class Library:
    """The names of one of the two that the cases below use."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.connect = self._get("asyncio.client", "connect")
        self.serve = self._get("asyncio.server", "serve")
        self.broadcast = self._get("asyncio.server", "broadcast")
        self.exceptions = self._get("exceptions", None)
        self.datastructures = self._get("datastructures", None)

    def _get(self, module: str, name: str | None) -> Any:
        module = f"websockets.{module}"
        found = importlib.import_module(module if self.name == "websockets" else MODULES[module])
        return getattr(found, name) if name else found

    @contextlib.asynccontextmanager
    async def pair(self, handler: Any, server: dict[str, Any] | None = None, **client: Any) -> AsyncIterator[Any]:
        logger = logging.getLogger("nobody")
        async with self.serve(handler, "127.0.0.1", 0, **{"logger": logger, **(server or {})}) as listening:
            uri = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
            async with self.connect(uri, **client) as websocket:
                yield websocket


async def wait(websocket: Any) -> None:
    await websocket.wait_closed()


async def keepalive(library: Library) -> Any:
    """A program that does not receive, and a healthy peer that has sent much."""
    ended = asyncio.Event()

    async def flood(websocket: Any) -> None:
        with contextlib.suppress(library.exceptions.ConnectionClosed):
            for _ in range(50):
                await websocket.send("x" * 10_000)
        await websocket.wait_closed()
        ended.set()

    arguments = {"max_queue": 1, "ping_interval": 0.02, "ping_timeout": 0.04, "compression": None}
    async with library.pair(flood, **arguments) as websocket:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.3)
        state = "open" if websocket.state.name == "OPEN" else "disconnected"
        with contextlib.suppress(library.exceptions.ConnectionClosed):
            for _ in range(50):
                await websocket.recv()
        return state


async def broadcast_backlog(library: Library) -> Any:
    release = asyncio.Event()
    result: list[Any] = []

    async def handler(websocket: Any) -> None:
        for _ in range(200):
            library.broadcast({websocket}, bytes(100_000))
            await asyncio.sleep(0)
        result.append(websocket.state.name)
        websocket.transport.abort()
        release.set()

    async with library.pair(handler, compression=None) as websocket:
        websocket.transport.pause_reading()
        await release.wait()
        websocket.transport.abort()
    return result[0]


async def queue_of_frames(library: Library) -> Any:
    """How many messages of many frames come before reading stops: max_queue=4 are less than one of 20 frames."""
    release = asyncio.Event()

    async def handler(websocket: Any) -> None:
        await websocket.send(["x"] * 20)
        await websocket.send("next")
        release.set()
        await websocket.wait_closed()

    async with library.pair(handler, max_queue=4, compression=None) as websocket:
        await release.wait()
        await asyncio.sleep(0.02)
        reading = websocket.transport.is_reading()
        await websocket.recv()
        return reading


async def streaming(library: Library) -> Any:
    async def handler(websocket: Any) -> None:
        await websocket.send(["a", "b"])
        await websocket.send("done")
        await websocket.wait_closed()

    async with library.pair(handler) as websocket:
        await asyncio.sleep(0.02)
        return [piece async for piece in websocket.recv_streaming()]


async def broken_text(library: Library) -> Any:
    async def handler(websocket: Any) -> None:
        websocket.transport.write(b"\x81\x01\xff")
        await websocket.wait_closed()

    async with library.pair(handler) as websocket:
        try:
            return await websocket.recv(decode=False)
        except library.exceptions.ConnectionClosedError as exc:
            return exc.sent.code


async def close_without_code(library: Library) -> Any:
    async with library.pair(wait) as websocket:
        try:
            await websocket.close(1005)
        except library.exceptions.ProtocolError:
            return "ProtocolError"
        return websocket.close_code


async def cancelled_iterable(library: Library) -> Any:
    async def endless() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    async with library.pair(wait) as websocket:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(websocket.send(endless()), 0.01)
        try:
            await websocket.send("b")
        except (library.exceptions.ProtocolError, library.exceptions.ConnectionClosedError) as exc:
            return type(exc).__name__


async def several_iterables(library: Library) -> Any:
    async def pieces() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield "a"
        await asyncio.sleep(0)
        yield "b"

    async with library.pair(wait, compression=None) as websocket:
        results = await asyncio.gather(*(websocket.send(pieces()) for _ in range(2)), return_exceptions=True)
        return [type(result).__name__ for result in results]


async def cancelled_close(library: Library) -> Any:
    release = asyncio.Event()

    async def deaf(websocket: Any) -> None:
        websocket.transport.pause_reading()
        await websocket.send("ready")
        await release.wait()
        websocket.transport.abort()

    async with library.pair(deaf) as websocket:
        await websocket.recv()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(websocket.close(), 0.01)
        await asyncio.sleep(0)
        state = websocket.state.name
        release.set()
        return state


def recording() -> tuple[logging.Logger, list[tuple[str, str]]]:
    records: list[tuple[str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append((record.levelname, record.getMessage()))  # type: ignore[method-assign]
    logger = logging.Logger("an application's")
    logger.addHandler(handler)
    return logger, records


async def closed_in_handler(library: Library) -> Any:
    logger, records = recording()

    async def receive(websocket: Any) -> None:
        await websocket.recv()

    async with library.pair(receive, {"logger": logger}):
        pass
    return [level for level, text in records if "handler" in text]


async def logs(library: Library) -> Any:
    """The records of a connection on which a message is received: how many as info, and whether frames are in them."""
    logger, records = recording()

    async def receive(websocket: Any) -> None:
        async for _ in websocket:
            pass

    async with library.pair(receive, {"logger": logger}) as websocket:
        await websocket.send("needle")
    levels = [level for level, text in records if not text.startswith("server ")]
    return levels.count("INFO"), any("needle" in text for _, text in records)


async def reserved_header(library: Library) -> Any:
    try:
        async with library.pair(wait, additional_headers={"Sec-WebSocket-Version": "13"}):
            pass
    except (ValueError, library.exceptions.InvalidStatus) as exc:
        return type(exc).__name__


async def header_name(library: Library) -> Any:
    headers = library.datastructures.Headers()
    try:
        headers["no token"] = "x"
    except ValueError:
        return "ValueError"
    return headers.serialize()


async def impossible_arguments(library: Library) -> Any:
    errors = 0
    for make in (
        lambda: library.connect("ws://localhost/", max_queue=-1),
        lambda: library.serve(None),
        lambda: library.connect("ws://localhost/", additional_headers={"a": "b\n"}),
    ):
        try:
            make()
        except (TypeError, ValueError):
            errors += 1
    return errors


async def short_messages(library: Library) -> Any:
    """The first byte of the frame of a short text: is RSV1 set?"""
    async def handler(websocket: Any) -> None:
        await websocket.send("short short")
        await websocket.wait_closed()

    got: list[bytes] = []
    async with library.pair(handler, compression="deflate") as websocket:
        await websocket.recv()
        compressed = websocket.response.headers["Sec-WebSocket-Extensions"]
        got.append(compressed.encode())
    async with library.serve(handler, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(REQUEST + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        first = (await reader.readexactly(1))[0]
        writer.transport.abort()
    return got[0].decode(), hex(first)


async def refusal(library: Library) -> Any:
    try:
        async with library.pair(wait, {"origins": []}):
            pass
    except library.exceptions.InvalidStatus as exc:
        return bytes(exc.response.body).decode().split("\n")


async def other_extension(library: Library) -> Any:
    class Factory:
        name = "x-other"

    try:
        library.connect("ws://localhost/", extensions=[Factory()])
    except ValueError:
        return "ValueError"
    return "taken"


NEGOTIATED = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
REFUSED = "Failed to open a WebSocket connection: missing Origin header."

#: Case, what websockets does, what ours does.
DIFFERENCES: list[tuple[Callable[[Library], Any], Any, Any]] = [
    (keepalive, "disconnected", "open"),
    (broadcast_backlog, "OPEN", "CLOSED"),
    (queue_of_frames, False, True),
    (streaming, ["a", "b", ""], ["ab"]),
    (broken_text, b"\xff", 1007),
    (close_without_code, "ProtocolError", 1005),
    (cancelled_iterable, "ProtocolError", "ConnectionClosedError"),
    (several_iterables, ["NoneType", "AssertionError"], ["NoneType", "NoneType"]),
    (cancelled_close, "CLOSING", "CLOSED"),
    (closed_in_handler, ["ERROR"], ["INFO"]),
    (logs, (2, True), (0, False)),
    (reserved_header, "InvalidStatus", "ValueError"),
    (header_name, b"no token: x\r\n\r\n", "ValueError"),
    (impossible_arguments, 0, 3),
    (short_messages, (NEGOTIATED, "0xc1"), (NEGOTIATED, "0x81")),
    (refusal, [REFUSED, ""], [REFUSED, "", "Connect from a page whose origin this server allows.", ""]),
    (other_extension, "taken", "ValueError"),
]


@pytest.mark.parametrize(("case", "websockets", "ours"), DIFFERENCES, ids=[case.__name__ for case, _, _ in DIFFERENCES])
def test_difference(case: Callable[[Library], Any], websockets: Any, ours: Any) -> None:
    assert run(case(Library("websockets"))) == websockets
    assert run(case(Library("wsproto_fast"))) == ours
