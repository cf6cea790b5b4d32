"""picows as a peer: its own interface, of callbacks and frames, and the one that it has after websockets."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio import missing, port_of, run, serving, tls_contexts
from conversations import (
    CLOSES,
    MESSAGES,
    MIB,
    Library,
    answer,
    closes,
    fragments,
    large,
    meeting,
    messages,
    pipeline,
    refusals,
)

from wsproto_fast.asyncio import connect, serve
from wsproto_fast.exceptions import ConnectionClosed

if sys.implementation.name != "cpython" or sys.version_info >= (3, 15):
    pytest.skip("picows has no wheel for this Python", allow_module_level=True)
try:
    import picows
    import picows.websockets
except ImportError:
    missing("picows is not installed")

PICOWS = Library(picows.websockets.serve, picows.websockets.connect, picows.websockets.ConnectionClosed)


OURS = Library(serve, connect, ConnectionClosed)
PAIRS = [pytest.param(PICOWS, OURS, id="server"), pytest.param(OURS, PICOWS, id="client")]
both = pytest.mark.parametrize(("server", "client"), PAIRS)
compressions = pytest.mark.parametrize("compression", ["deflate", None])


@both
@compressions
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_messages(server: Library, client: Library, compression: str | None, tls: bool) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"compression": compression}
        serving = dict(options)
        if tls:  # with it this hangs in `pipeline` now and then, whoever the other one is
            (serving if server is PICOWS else options)["use_aiofastnet"] = False
        async with meeting(server, client, tls=tls, serving=serving, **options) as met:
            assert ("Sec-WebSocket-Extensions" in met.ws.response.headers) is (compression is not None)
            await messages(met.ws)
            await fragments(met.ws)
            async with met.again() as one, met.again() as two:
                await asyncio.gather(pipeline(met.ws), pipeline(one), pipeline(two))

    run(main())


@both
def test_closes(server: Library, client: Library) -> None:
    run(closes(server, client))


@both
@compressions
def test_messages_over_the_limit(server: Library, client: Library, compression: str | None) -> None:
    run(refusals(server, client, compression=compression))


@both
@compressions
def test_large_messages(server: Library, client: Library, compression: str | None) -> None:
    async def main() -> None:
        options = {"compression": compression, "max_size": 17 * MIB}
        async with meeting(server, client, serving=options, **options) as met:
            await large(met.ws)

    run(main(), limit=60)


# Its own interface


class Frames(picows.WSListener):
    """A client's or server's end that keeps what comes: type, fin and payload of each frame; "end" at the end."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        self.frames.put_nowait((frame.msg_type, frame.fin, frame.get_payload_as_bytes()))
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_ws_disconnected(self, transport: Any) -> None:
        self.frames.put_nowait("end")


class Echo(picows.WSListener):
    """A server's end that sends each frame back, closes when it is told to, and pings."""

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        payload = frame.get_payload_as_bytes()
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif payload.startswith(b"/close "):
            _, code, reason = payload.split(b" ")
            transport.send_close(int(code), reason)
        elif frame.msg_type is picows.WSMsgType.PONG:
            transport.send(picows.WSMsgType.TEXT, b"pong " + payload)
        elif payload == b"/ping":
            transport.send_ping(b"of the server")
        elif frame.msg_type is not picows.WSMsgType.PING:
            transport.send(frame.msg_type, payload, fin=frame.fin)


@contextlib.asynccontextmanager
async def echo_server(**options: Any) -> AsyncIterator[str]:
    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0, **options)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def test_server_of_frames() -> None:
    async def main() -> None:
        async with echo_server(max_frame_size=17 * MIB) as uri:
            async with connect(uri, proxy=None, max_size=17 * MIB) as ws:
                assert ws.response is not None
                assert "Sec-WebSocket-Extensions" not in ws.response.headers
                for message in MESSAGES:
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send(["fr", "äg", "", "ments"])
                parts = [part async for part in ws.recv_streaming()]
                assert "".join(parts) == "frägments"
                await (await ws.ping(b"p" * 125))
                await ws.send("/ping")
                assert await ws.recv() == "pong of the server"
                await pipeline(ws)
                await large(ws)
            assert ws.close_code == 1000
            for code, reason in [(1001, "going"), (3000, "registered"), (4999, "private"), (1011, "broken")]:
                async with connect(uri, proxy=None) as ws:
                    await ws.send(f"/close {code} {reason}")
                    with pytest.raises(ConnectionClosed):
                        await ws.recv()
                    assert (ws.close_code, ws.close_reason) == (code, reason)
                async with connect(uri, proxy=None) as ws:
                    await ws.close(code, reason)
                    assert (ws.close_code, ws.close_reason) == (code, reason)  # which it answers with

    run(main(), limit=60)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_client_of_frames(tls: bool) -> None:
    text, binary, more = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION
    ended: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def handler(ws: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            await answer(ws)
        await ws.wait_closed()
        ended.put_nowait((ws.close_code, ws.close_reason))

    async def main() -> None:
        server_tls, client_tls = tls_contexts() if tls else (None, None)
        async with serving(handler, ssl=server_tls, max_size=17 * MIB) as server:

            async def open_client() -> tuple[Any, Any]:
                uri = f"{'wss' if tls else 'ws'}://127.0.0.1:{port_of(server)}/"
                transport, listener = await picows.ws_connect(
                    Frames, uri, ssl_context=client_tls, max_frame_size=17 * MIB
                )
                return transport, listener.frames

            transport, frames = await open_client()
            for message in MESSAGES:
                kind, data = (text, message.encode()) if isinstance(message, str) else (binary, message)
                transport.send(kind, data)
                assert await frames.get() == (kind, True, data)
            transport.send(text, "frä".encode()[:3], fin=False)  # in the middle of a character
            transport.send_ping(b"in between")
            transport.send(more, "frä".encode()[3:], fin=False)
            transport.send(more, b"", fin=True)
            assert [await frames.get(), await frames.get()] == [
                (picows.WSMsgType.PONG, True, b"in between"),
                (text, True, "frä".encode()),
            ]
            transport.send(text, b"/fragments")
            received = [await frames.get()]
            while not received[-1][1]:
                received.append(await frames.get())
            assert b"".join(frame[2] for frame in received).decode() == "frägments"
            assert [frame[0] for frame in received] == [text] + [more] * (len(received) - 1)
            transport.send(text, b"/ping")
            assert await frames.get() == (text, True, b"pinged")
            sent = [(binary, bytes([number % 256]) * number) for number in range(500)]
            for kind, data in sent:
                transport.send(kind, data)
            assert [await frames.get() for _ in sent] == [(kind, True, data) for kind, data in sent]
            data = bytes(range(256)) * (16 * MIB // 256)
            transport.send(binary, data)
            assert await frames.get() == (binary, True, data)
            transport.send_close(4000, b"bye")
            assert await ended.get() == (4000, "bye")
            await transport.wait_disconnected()
            for code, reason in CLOSES:
                transport, frames = await open_client()
                transport.send(text, f"/close {code} {reason}".rstrip().encode())
                assert await frames.get() == (picows.WSMsgType.CLOSE, True, code.to_bytes(2, "big") + reason.encode())
                assert await frames.get() == "end"
                assert await ended.get() == (code, reason)
            transport, frames = await open_client()
            transport.send(text, b"\xff")
            assert (await frames.get())[2][:2] == (1007).to_bytes(2, "big")
            transport.disconnect(graceful=False)
            await ended.get()

    run(main(), limit=60)
