"""Session: one object over reconnects. What is delivered, what is kept, when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aio import ROOT, Peer, answer, echo, run, serving, uri_of
from cases.sessions import ENDS, LASTING, OUTBOXES, PASSING, status

from wsproto_fast import SendStatus, State
from wsproto_fast.asyncio import ServerConnection, Session, SessionState, serve
from wsproto_fast.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    InvalidStatus,
    InvalidURI,
    LocalProtocolError,
    ProtocolError,
)

CONNECTING, OPEN, WAITING, CLOSED = SessionState


def at_once() -> Iterator[float]:
    return itertools.repeat(0.0)


def session_of(uri: Any, **kwargs: Any) -> Session:
    """A session that does not wait between attempts."""
    return Session(uri, **{"reconnect_delays": at_once, **kwargs})


Script = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(*scripts: Script | bytes) -> AsyncIterator[str]:
    """A server whose first connection is the first script's, and so on. ``bytes``: an answer instead of a handshake.

    Connections are closed when their script is done. All scripts must be played; connections after them are refused.
    """
    left = list(scripts)
    handlers: set[asyncio.Task[None]] = set()
    errors: list[BaseException] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, None)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            script = left.pop(0) if left else status(503)
            if isinstance(script, bytes):
                writer.write(script)
            else:
                writer.write(answer(head))
                await script(peer)
        except BaseException as exc:
            errors.append(exc)
        finally:
            await peer.close()

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.ensure_future(play(reader, writer)))

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if handlers:
            await asyncio.wait(handlers)
    assert not errors, errors
    assert not left


def reset(peer: Peer) -> None:
    """End the connection with a TCP RST."""
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


def say(*messages: str, close: int | None = None) -> Script:
    """Send messages; then a Close frame, or the end of the stream."""

    async def script(peer: Peer) -> None:
        for message in messages:
            peer.write(0x81, message.encode())
        if close is not None:
            peer.write(0x88, struct.pack("!H", close))
            await peer.expect_close(close)

    return script


def hear(heard: list[str], count: int | None = None) -> Script:
    """Note messages until there are ``count`` of them, or until the Close frame, which is answered."""

    async def script(peer: Peer) -> None:
        for _ in itertools.count() if count is None else range(count):
            first, payload = await peer.frame()
            if first == 0x88:
                heard.append(f"close {int.from_bytes(payload[:2], 'big')}")
                peer.write(0x88, payload)
                return
            heard.append(payload.decode())

    return script


async def wait_for_state(session: Session, state: SessionState) -> None:
    while session.state is not state:
        await session._wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Reconnecting


def ended_by_handler(code: int) -> Callable[[ServerConnection, str], Awaitable[None]]:
    async def end(ws: ServerConnection, message: str) -> None:
        await ws.send(message)
        await ws.close(code)

    return end


async def vanish(ws: ServerConnection, message: str) -> None:
    await ws.send(message)
    ws.transport.close()


async def fail(ws: ServerConnection, message: str) -> None:
    await ws.send(message)
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "end",
    [*map(ended_by_handler, ENDS), vanish, fail],
    ids=[*map(str, ENDS), "eof", "error"],
)
def test_it_connects_again_however_a_connection_ended(end: Any) -> None:
    async def main() -> None:
        numbers = itertools.count()

        async def handler(ws: ServerConnection) -> None:
            await end(ws, f"connection {next(numbers)}")

        async with serving(handler, logger=logging.getLogger("quiet")) as server:
            async with session_of(uri_of(server)) as session:
                assert [await session.recv() for _ in range(5)] == [f"connection {i}" for i in range(5)]

    logging.getLogger("quiet").disabled = True
    run(main())


def test_a_reset(caplog: pytest.LogCaptureFixture) -> None:
    async def break_off(peer: Peer) -> None:
        peer.write(0x81, b"first")
        assert await peer.frame() == (0x81, b"got it")
        reset(peer)

    async def main() -> None:
        async with scripted(break_off, say("second")) as uri:
            async with session_of(uri) as session:
                assert await session.recv() == "first"
                await session.send("got it")
                assert await session.recv() == "second"

    run(main())
    assert "connection ended, next attempt in 0.0 seconds: ConnectionClosedError" in caplog.text


def test_a_server_that_restarts() -> None:
    async def main() -> None:
        port = free_port()
        async with session_of(f"ws://127.0.0.1:{port}/") as session:
            await session.send("before there is a server")
            for i in range(3):
                async with serve(echo, "127.0.0.1", port):
                    if i == 0:
                        assert await session.recv() == "before there is a server"
                    await session.send(f"run {i}")
                    assert await session.recv() == f"run {i}"
                await wait_for_state(session, WAITING)
                assert session.connection is None
            assert session.attempts >= 0

    run(main())


def test_a_server_of_websockets() -> None:
    from websockets.asyncio.server import serve as their_serve

    async def main() -> None:
        closes = itertools.cycle([1000, 1001, 1012])

        async def handler(ws: Any) -> None:
            await ws.send(await ws.recv())
            await ws.close(next(closes))

        async with their_serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with session_of(f"ws://127.0.0.1:{port}/") as session:
                for i in range(10):
                    await session.send(f"message {i}")
                    assert await session.recv() == f"message {i}"

    run(main())


def test_received_messages_come_before_those_of_the_next_connection() -> None:
    async def main() -> None:
        async with scripted(say("1", "2", "3", close=1011), say(), say("4", "5")) as uri:
            async with session_of(uri, give_up=lambda session, exc: session.attempts == 7) as session:
                assert await session.recv() == "1"  # the rest waits until all connections have ended
                await wait_for_state(session, WAITING)
                states: list[SessionState] = []
                session._on_state = lambda _, state: states.append(state)
                while states.count(OPEN) < 2:
                    await session._wait()
                assert [await session.recv() for _ in range(4)] == ["2", "3", "4", "5"]

    run(main())


def test_a_reader_who_is_busy_when_the_connection_ends() -> None:
    async def main() -> None:
        messages = [f"{i} " + "x" * 1000 for i in range(300)]
        async with scripted(say(*messages), say("next")) as uri:
            async with session_of(uri, max_queue=None) as session:
                connection = await session.wait_open()
                while connection.state is not State.CLOSED:
                    await asyncio.sleep(0)
                assert session.connection is connection
                assert [await session.recv() for _ in range(301)] == [*messages, "next"]

    run(main())


def test_messages_that_nobody_takes_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        big = "x" * 10_000
        async with scripted(say(big), say(big, "y"), say("z")) as uri:
            session = session_of(uri)
            session._inbox._max_bytes = 5000
            states: list[SessionState] = []
            session._on_state = lambda _, state: states.append(state)
            async with session:
                while states.count(WAITING) < 3:
                    await session._wait()
                assert session.missed == 2
                assert [await session.recv() for _ in range(2)] == ["y", "z"]

    run(main())
    assert "nobody received 1 messages of earlier connections: dropped" in caplog.text


def test_decode_and_json() -> None:
    class Codec:
        @staticmethod
        def dumps(data: Any) -> bytes:
            return json.dumps(data).encode()

        loads = staticmethod(json.loads)

    async def sender(ws: ServerConnection) -> None:
        async for message in ws:
            for _ in range(2):  # one for the connection, and one for the inbox
                for each in ("é", "é", b"b", b"b", '{"a": 1}', b"\xff", message):
                    await ws.send(each)

    async def main(codec: Any) -> None:
        async with serving(sender, max_queue=100) as server:
            async with session_of(uri_of(server), json=codec, max_queue=100) as session:
                await session.send_json({"b": [2]})
                for _ in range(2):
                    assert await session.recv(decode=False) == "é".encode()
                    assert await session.recv(decode=True) == "é"
                    assert await session.recv(decode=True) == "b"
                    assert await session.recv(decode=False) == b"b"
                    assert await session.recv_json() == {"a": 1}
                    with pytest.raises(UnicodeDecodeError):
                        await session.recv(decode=True)
                    assert await session.recv() == '{"b": [2]}'

    for codec in (json, Codec):
        run(main(codec))


def test_decode_and_json_from_the_inbox() -> None:
    async def main() -> None:
        async with scripted(say("1", "é", "é", '{"a": 1}', close=1000), say()) as uri:
            async with session_of(uri) as session:
                assert await session.recv() == "1"
                await wait_for_state(session, WAITING)
                assert await session.recv(decode=False) == "é".encode()
                assert await session.recv(decode=True) == "é"
                assert await session.recv_json() == {"a": 1}
                while session.state is not OPEN:
                    await session._wait()

    run(main())


def test_callback_in_place_of_recv() -> None:
    async def main() -> None:
        got: list[str] = []
        done = asyncio.get_running_loop().create_future()

        def on_message(connection: Any, message: str) -> None:
            got.append(message)
            if len(got) == 4:
                done.set_result(None)

        async with scripted(say("1", "2", close=1000), say("3", "4")) as uri:
            async with session_of(uri, on_message=on_message) as session:
                await done
                await wait_for_state(session, WAITING)
        assert got == ["1", "2", "3", "4"]

    run(main())


def test_receiving_from_the_connection_itself_does_no_harm() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def half(peer: Peer) -> None:
            peer.write(0x01, b"half a mess")
            await go.wait()

        async with scripted(half, say("whole")) as uri:
            async with session_of(uri) as session:
                connection = await session.wait_open()
                with pytest.raises(ConnectionClosedError):
                    async for _ in connection.recv_streaming():
                        go.set()
                await wait_for_state(session, WAITING)
                assert await session.recv() == "whole"

    run(main())


# Opening


def test_on_open_comes_before_everything() -> None:
    async def main() -> None:
        heard: list[str] = []
        welcomed = 0

        async def subscribe(connection: Any) -> None:
            nonlocal welcomed
            await connection.send("subscribe")
            assert await connection.recv() == "subscribed"
            welcomed += 1

        async def welcome(peer: Peer) -> None:
            heard.append((await peer.frame())[1].decode())
            peer.write(0x81, b"subscribed")
            peer.write(0x81, b"news")
            await hear(heard, 2)(peer)

        async with scripted(welcome, welcome) as uri:
            async with session_of(uri, on_open=subscribe) as session:
                for i in range(2):
                    await wait_for_state(session, CONNECTING)
                    await session.send(f"a{i}")
                    assert session.try_send(f"b{i}") is SendStatus.QUEUED
                    assert session.pending == 2
                    assert await session.recv() == "news"
                    assert welcomed == i + 1
                    await wait_for_state(session, WAITING)
        assert heard == ["subscribe", "a0", "b0", "subscribe", "a1", "b1"]

    run(main())


@pytest.mark.parametrize("error", [OSError, TimeoutError, asyncio.TimeoutError])
def test_on_open_may_fail_like_an_attempt(error: type[Exception]) -> None:
    async def main() -> None:
        heard: list[str] = []
        tries = itertools.count()

        def on_open(connection: Any) -> None:
            if next(tries) < 2:
                raise error("not yet")

        async with scripted(hear(heard), hear(heard), say("third")) as uri:
            async with session_of(uri, on_open=on_open) as session:
                assert await session.recv() == "third"
        assert heard == ["close 1011"] * 2

    run(main())


def test_the_connection_may_end_in_on_open() -> None:
    async def main() -> None:
        async def on_open(connection: Any) -> None:
            assert await connection.recv() == "welcome"

        async with scripted(say(close=1012), say("welcome", "news")) as uri:
            async with session_of(uri, on_open=on_open) as session:
                assert await session.recv() == "news"

    run(main())


def test_another_error_in_on_open_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        heard: list[str] = []

        async def on_open(connection: Any) -> None:
            raise KeyError("mistake")

        async with scripted(hear(heard)) as uri:
            async with session_of(uri, on_open=on_open) as session:
                for _ in range(3):
                    with pytest.raises(KeyError, match="mistake") as caught:
                        await session.recv()
                assert len(caught.traceback) < 12  # it does not grow
                with pytest.raises(KeyError):
                    await session.send("x")
                with pytest.raises(KeyError):
                    await session.wait_open()
                with pytest.raises(KeyError):
                    async for _ in session:
                        pass
                assert session.state is CLOSED
        assert heard == ["close 1011"]

    run(main())
    assert "session ended: KeyError: 'mistake'" in caplog.text


def test_on_open_must_not_wait_for_its_session() -> None:
    async def main() -> None:
        waiting: list[asyncio.Future[None]] = []
        heard: list[str] = []
        async with scripted(hear(heard)) as uri:

            async def on_open(connection: Any) -> None:
                await session.send("this is kept")
                waiting.append(asyncio.ensure_future(session.send("this waits")))
                await asyncio.sleep(0)
                for call in (session.recv, session.wait_open, lambda: session.send("no room")):
                    with pytest.raises(ConcurrencyError, match="on_open must use its connection"):
                        await call()

            async with session_of(uri, on_open=on_open, outbox_limit=1) as session:
                await wait_for_state(session, OPEN)
                await asyncio.gather(*waiting)
        assert heard == ["this is kept", "this waits", "close 1000"]

    run(main())


# Attempts


@pytest.mark.parametrize("code", PASSING)
def test_statuses_that_may_pass(code: int) -> None:
    async def main() -> None:
        async with scripted(status(code), status(code), say("at last")) as uri:
            async with session_of(uri) as session:
                assert await session.recv() == "at last"

    run(main())


@pytest.mark.parametrize("code", LASTING)
def test_statuses_that_will_not_pass(code: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with scripted(status(code)) as uri:
            async with session_of(uri) as session:
                await session.send("kept, and never sent")
                with pytest.raises(InvalidStatus) as caught:
                    await session.recv()
                assert caught.value.response.status_code == code

    run(main())
    assert f"session ended: InvalidStatus: server rejected WebSocket connection: HTTP {code}" in caplog.text
    assert "session ended: 1 messages of the outbox were not sent" in caplog.text


def test_a_server_that_ends_the_handshake() -> None:
    async def main() -> None:
        async with scripted(b"", b"", say("at last")) as uri:
            async with session_of(uri) as session:
                assert await session.recv() == "at last"

    run(main())


def test_the_end_of_the_delays_is_the_end_of_the_session(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with session_of(f"ws://127.0.0.1:{free_port()}/", reconnect_delays=lambda: [0.0, 0.0]) as session:
            with pytest.raises(OSError):
                await session.recv()
            assert session.attempts == 3

    run(main())
    lines = [record.getMessage() for record in caplog.records if record.name == "wsproto_fast.session"]
    assert len(lines) == 3
    assert all(
        line.startswith("connecting failed, next attempt in 0.0 seconds: ConnectionRefused") for line in lines[:2]
    )


def test_give_up_rule() -> None:
    async def main() -> None:
        async with session_of(
            f"ws://127.0.0.1:{free_port()}/", give_up=lambda session, exc: session.attempts >= 4
        ) as session:
            with pytest.raises(OSError):
                await session.wait_open()
            assert session.attempts == 4
        async with scripted(say("one", close=1000)) as uri:
            async with session_of(uri, give_up=lambda _, exc: isinstance(exc, ConnectionClosedOK)) as session:
                assert [message async for message in session] == ["one"]
            assert session.state is CLOSED
        async with scripted(say("one", close=4001)) as uri:
            async with session_of(uri, give_up=lambda _, exc: isinstance(exc, ConnectionClosed)) as session:
                with pytest.raises(ConnectionClosedError, match="4001"):
                    async for message in session:
                        assert message == "one"

    run(main())


def test_a_rule_that_fails_ends_the_session() -> None:
    def rule(session: Session, exc: Exception) -> bool:
        raise ZeroDivisionError

    async def main() -> None:
        async with scripted(say("x")) as uri, session_of(uri, give_up=rule) as session:
            assert await session.recv() == "x"
            with pytest.raises(ZeroDivisionError):
                await session.recv()

    run(main())


def test_backoff_begins_anew() -> None:
    async def main() -> None:
        attempts: list[int] = []

        def rule(session: Session, exc: Exception) -> bool:
            attempts.append(session.attempts)
            return False

        async with scripted(status(503), status(503), say("x"), status(503), say("y")) as uri:
            async with session_of(uri, give_up=rule) as session:
                assert [await session.recv() for _ in range(2)] == ["x", "y"]
        assert attempts[:4] == [1, 2, 0, 1]

    run(main())


def test_several_uris() -> None:
    async def main() -> None:
        async with scripted(status(503), say("first")) as one, scripted(say("second")) as two:
            async with session_of([one, two]) as session:
                assert await session.recv() == "second"
                assert await session.recv() == "first"

    run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_uri_and_headers_are_asked_for_each_time(is_async: bool) -> None:
    async def main() -> None:
        tokens = itertools.count()
        seen: list[str] = []

        async def handler(ws: ServerConnection) -> None:
            assert ws.request is not None
            seen.append(f"{ws.request.path} {ws.request.headers['Authorization']}")
            await ws.send("x")

        async with serving(handler) as server:

            def uri() -> str:
                return uri_of(server, f"/{next(tokens)}")

            def headers() -> dict[str, str]:
                return {"Authorization": f"token {next(tokens)}"}

            async def async_uri() -> str:
                return uri()

            async def async_headers() -> dict[str, str]:
                return headers()

            sources: Any = (async_uri, async_headers) if is_async else (uri, headers)
            async with session_of(sources[0], additional_headers=sources[1]) as session:
                for _ in range(2):
                    await session.recv()
        assert seen[:2] == ["/0 token 1", "/2 token 3"]

    run(main())


def test_headers_that_do_not_change() -> None:
    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            assert ws.request is not None
            await ws.send(ws.request.headers["X-Name"])

        async with serving(handler) as server:
            async with session_of(uri_of(server), additional_headers={"X-Name": "value"}) as session:
                assert [await session.recv() for _ in range(2)] == ["value"] * 2

    run(main())


def test_errors_of_callables() -> None:
    def results() -> Iterator[str]:
        yield "http://not.a.websocket/"

    async def main() -> None:
        uris = results()
        async with session_of(lambda: next(uris)) as session:
            with pytest.raises(InvalidURI):
                await session.recv()

        tries = itertools.count()

        async def headers() -> dict[str, str]:
            if next(tries) < 3:
                raise OSError("no token server")
            raise LookupError("no token")

        async with session_of("ws://127.0.0.1:1/", additional_headers=headers) as session:
            with pytest.raises(LookupError):
                await session.recv()
            assert next(tries) == 4

    run(main())


def test_arguments_are_checked_at_once() -> None:
    with pytest.raises(InvalidURI):
        Session("http://x/")
    with pytest.raises(InvalidURI):
        Session(["ws://x/", "x"])
    with pytest.raises(ValueError, match="needs a URI"):
        Session([])
    with pytest.raises(ValueError, match="policy"):
        Session("ws://x/", outbox="hold")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="socket"):
        Session("ws://x/", sock=socket.socket)
    with pytest.raises(ValueError):
        Session("ws://x/", additional_headers={"X": "a\r\nb"})
    with pytest.raises(TypeError):
        Session("ws://x/", json=object())


# Sending


def test_keep_has_a_limit() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def on_open(connection: Any) -> None:
            await go.wait()

        async with scripted(hear(heard, 7)) as uri:
            async with session_of(uri, on_open=on_open, outbox_limit=(2, None)) as session:
                await session.send("1")
                await session.send("2")
                assert session.try_send("no") is SendStatus.FULL
                with pytest.raises(TimeoutError):
                    await session.send("no", timeout=0.001)
                waiting = [asyncio.ensure_future(session.send(str(i))) for i in range(3, 8)]
                await asyncio.sleep(0)
                waiting[1].cancel()
                assert session.try_send("no") is SendStatus.FULL
                go.set()
                await asyncio.wait(waiting)
                await session.send("8")
                await session.send("9", timeout=5)
                await wait_for_state(session, WAITING)
                assert session.pending == 0
        assert heard == ["1", "2", "3", "5", "6", "7", "8"]

    run(main())


def test_nobody_overtakes_who_waits() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def on_open(connection: Any) -> None:
            await go.wait()

        async with scripted(hear(heard)) as uri:
            async with session_of(uri, on_open=on_open, outbox_limit=1) as session:
                await session.send("1")
                waiting = asyncio.ensure_future(session.send("2"))
                await asyncio.sleep(0)
                session._outbox.pop()  # there is room, and nobody was told
                assert session.try_send("no") is SendStatus.FULL
                after = asyncio.ensure_future(session.send("3"))
                await asyncio.sleep(0)
                session._notify()
                go.set()
                await asyncio.gather(waiting, after)
        assert heard == ["2", "3", "close 1000"]

    run(main())


def test_limit_in_bytes() -> None:
    async def main() -> None:
        async with session_of(f"ws://127.0.0.1:{free_port()}/", outbox_limit=(None, 10)) as session:
            assert session.try_send("x" * 9) is SendStatus.QUEUED
            assert session.try_send("é") is SendStatus.FULL
            assert session.try_send(b"y") is SendStatus.QUEUED
            assert session.pending == 2

    run(main())


def test_drop() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted(hear(heard)) as uri:
            async with session_of(uri, outbox="drop") as session:
                await session.send("dropped")
                assert session.try_send("not taken") is SendStatus.FULL
                assert session.dropped == 1
                await session.wait_open()
                await session.send("1")
                assert session.try_send("2")  # QUEUED, if right after the other
        assert heard == ["1", "2", "close 1000"]

    run(main())


def test_error() -> None:
    async def main() -> None:
        heard: list[str] = []
        port = free_port()
        async with session_of([f"ws://127.0.0.1:{port}/"], outbox="error") as session:
            with pytest.raises(ConnectionClosedError) as caught:
                await session.send("x")
            assert caught.value.__cause__ is None  # nothing has failed yet
            await wait_for_state(session, WAITING)
            for send in (session.send, session.try_send):
                with pytest.raises(ConnectionClosedError) as caught:
                    await send("x")  # type: ignore[misc]
                assert isinstance(caught.value.__cause__, OSError)
        async with scripted(hear(heard)) as uri:
            async with session_of(uri, outbox="error") as session:
                await session.wait_open()
                await session.send("1")
                assert session.try_send("2")  # QUEUED, if right after the other
        assert heard == ["1", "2", "close 1000"]

    run(main())


@pytest.mark.parametrize("outbox", OUTBOXES)
def test_a_connection_that_ends_while_messages_wait_to_be_sent(outbox: Any) -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def stall(peer: Peer) -> None:
            await go.wait()
            reset(peer)

        async with scripted(stall, hear(heard, 4)) as uri:
            async with session_of(uri, outbox=outbox, write_limit=1, compression=None) as session:
                await session.wait_open()
                session.try_send(bytes(2**24))  # more than the kernel takes
                waiting = [asyncio.ensure_future(session.send(str(i))) for i in range(3)]
                await asyncio.sleep(0)
                assert not any(task.done() for task in waiting)
                go.set()
                done = await asyncio.gather(*waiting, return_exceptions=True)
                if outbox == "error":
                    assert [type(each) for each in done] == [ConnectionClosedError] * 3
                else:
                    assert done == [None] * 3
                assert session.dropped == (3 if outbox == "drop" else 0)
                assert session.pending == (3 if outbox == "keep" else 0)
                await session.wait_open()
                for i in range(3, 7 if outbox != "keep" else 4):
                    await session.send(str(i))
                await wait_for_state(session, WAITING)
        assert heard == (["0", "1", "2", "3"] if outbox == "keep" else ["3", "4", "5", "6"])

    run(main())


def test_what_is_put_back_comes_before_what_was_sent_later() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def stall(peer: Peer) -> None:
            await go.wait()
            reset(peer)

        async with scripted(stall, hear(heard, 3)) as uri:
            async with session_of(uri, write_limit=1, compression=None) as session:
                connection = await session.wait_open()
                session.try_send(bytes(2**24))
                waiting = [asyncio.ensure_future(session.send(str(i))) for i in (1, 2)]
                closing = asyncio.ensure_future(connection.close())
                await asyncio.sleep(0)
                assert session.try_send("3") is SendStatus.FULL  # others wait
                waiting.append(asyncio.ensure_future(session.send("3")))
                go.set()
                await asyncio.gather(*waiting, closing)
                await session.wait_open()
                await wait_for_state(session, WAITING)
        assert heard == ["1", "2", "3"]

    run(main())


def test_who_waits_for_room_is_told() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def late(peer: Peer) -> None:
            await go.wait()
            await peer.reader.readexactly(14 + 2**24)
            await hear(heard)(peer)

        async with scripted(late) as uri:
            async with session_of(uri, write_limit=1, compression=None, outbox_limit=(2, None)) as session:
                await session.send(bytes(2**24))
                await session.send("1")
                await session.wait_open()
                assert session.pending == 1
                await session.send("2")
                waiting = asyncio.ensure_future(session.send("3"))
                await asyncio.sleep(0)
                assert not waiting.done()
                go.set()
                await waiting
        assert heard == ["1", "2", "3", "close 1000"]

    run(main())


def test_a_flush_that_breaks_goes_on_with_the_next_connection() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def stall(peer: Peer) -> None:
            await go.wait()
            reset(peer)

        async with scripted(stall, hear(heard, 2)) as uri:
            async with session_of(uri, write_limit=1, compression=None, outbox_limit=None) as session:
                for message in (bytes(2**24), b"1", b"2"):
                    await session.send(message)
                await session.wait_open()
                assert session.pending == 2
                go.set()
                await wait_for_state(session, WAITING)
                assert session.pending == 2
                await session.wait_open()
                await wait_for_state(session, WAITING)
        assert heard == ["1", "2"]

    run(main())


def test_a_sender_who_learns_late_of_the_end_tries_the_next_connection() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def leave(peer: Peer) -> None:
            await go.wait()

        async with scripted(leave, hear(heard)) as uri:
            async with session_of(uri) as session:
                connection = await session.wait_open()
                blocked = asyncio.Event()
                send = type(connection).send

                async def slow_send(self: Any, *args: Any, **kwargs: Any) -> None:
                    if self is connection:
                        await blocked.wait()
                    await send(self, *args, **kwargs)

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(type(connection), "send", slow_send)
                    patch.setattr(type(connection), "try_send", lambda *_, **__: SendStatus.FULL)
                    sender = asyncio.ensure_future(session.send("late"))
                    await asyncio.sleep(0)
                    go.set()
                    await wait_for_state(session, WAITING)
                    await session.wait_open()
                    blocked.set()
                    await sender
        assert heard == ["late", "close 1000"]

    run(main())


def test_what_is_kept_has_its_type() -> None:
    async def main() -> None:
        frames: list[tuple[int, bytes]] = []

        async def note(peer: Peer) -> None:
            for _ in range(6):
                frames.append(await peer.frame())

        async with scripted(note) as uri:
            async with session_of(uri, compression=None) as session:
                buffer = bytearray(b"buffer")
                await session.send("text")
                await session.send("binary", text=False)
                await session.send(b"text", text=True)
                await session.send(buffer)
                buffer[:] = b"reused"
                await session.send_json([1, None])
                with pytest.raises(UnicodeEncodeError):
                    await session.send("\ud800")
                with pytest.raises(LocalProtocolError):
                    await session.send(b"\xff", text=True)
                with pytest.raises(TypeError):
                    await session.send(["frag", "ments"])  # type: ignore[arg-type]
                with pytest.raises(TypeError):
                    session.try_send(1)  # type: ignore[arg-type]
                assert session.try_send(memoryview(b"view")) is SendStatus.QUEUED
                await wait_for_state(session, OPEN)
                await wait_for_state(session, WAITING)
        assert frames == [
            *((0x81, b"text"), (0x82, b"binary"), (0x81, b"text"), (0x82, b"buffer")),
            *((0x81, b"[1, null]"), (0x82, b"view")),
        ]

    run(main())


# States


def test_states_are_told() -> None:
    async def main() -> None:
        told: list[SessionState] = []

        def on_state(session: Session, state: SessionState) -> None:
            assert session.state is state
            assert (session.connection is not None) == (state is OPEN)
            told.append(state)

        async with scripted(status(503), say("x", close=1000), say("y")) as uri:
            session = session_of(uri, on_state=on_state)
            assert session.state is CLOSED
            async with session:
                assert [await session.recv() for _ in range(2)] == ["x", "y"]
        assert told == [CONNECTING, WAITING, CONNECTING, OPEN, WAITING, CONNECTING, OPEN, CLOSED]

    run(main())


def test_on_state_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def on_state(session: Session, state: SessionState) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with serving() as server, session_of(uri_of(server), on_state=on_state) as session:
            await session.send("x")
            assert await session.recv() == "x"

    run(main())
    assert "on_state failed" in caplog.text


def test_it_logs_where_it_is_told() -> None:
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    async def main() -> None:
        logger = logging.Logger("mine")
        logger.addHandler(Handler())
        async with scripted(status(404)) as uri, session_of(uri, logger=logger) as session:
            with pytest.raises(InvalidStatus):
                await session.recv()

    run(main())
    assert "session ended" in messages[-1]


def test_one_task_and_none_afterwards() -> None:
    async def main() -> None:
        async with serving() as server:
            before = len(asyncio.all_tasks())
            async with session_of(uri_of(server)) as session:
                assert len(asyncio.all_tasks()) == before + 1
                connection = await session.wait_open()
                await connection.ping()
                in_server = len(server.connections) if hasattr(server, "connections") else 1
                assert len(asyncio.all_tasks()) <= before + 1 + in_server
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0)

    run(main())


def test_misuse() -> None:
    async def main() -> None:
        session = session_of("ws://127.0.0.1:1/")
        for call in (lambda: session.send("x"), session.recv, session.recv_json, session.wait_open):
            with pytest.raises(InvalidState, match="was not entered"):
                await call()
        with pytest.raises(InvalidState, match="was not entered"):
            session.try_send("x")
        await session.close()
        async with session:
            with pytest.raises(RuntimeError, match="only once"):
                await session.__aenter__()
            first = asyncio.ensure_future(session.recv())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError, match="already running recv"):
                await session.recv_json()
        with pytest.raises(ConnectionClosedOK):
            await first

    run(main())


# The end


def test_after_the_end() -> None:
    async def main() -> None:
        async with serving() as server:
            async with session_of(uri_of(server)) as session:
                await session.wait_open()
                await session.send("x")
                await session.connection.ping()  # type: ignore[union-attr]
                while not session.connection._queue:  # type: ignore[union-attr]
                    await asyncio.sleep(0)
                await session.close(4000, "bye")
                assert await session.recv() == "x"
                for call in (lambda: session.send("x"), session.recv, session.recv_json, session.wait_open):
                    with pytest.raises(ConnectionClosedOK):
                        await call()
                with pytest.raises(ConnectionClosedOK):
                    session.try_send("x")
                assert [message async for message in session] == []
                await session.close()
            assert session.state is CLOSED
            assert session.connection is None

    run(main())


def test_leaving_sends_the_outbox() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted(hear(heard)) as uri:
            async with session_of(uri) as session:
                for i in range(100):
                    await session.send(f"{i}")
                await session.wait_open()
        assert heard == [*map(str, range(100)), "close 1000"]

    run(main())


def test_leaving_waits_for_a_slow_peer() -> None:
    async def main() -> None:
        heard: list[str] = []
        go = asyncio.Event()

        async def late(peer: Peer) -> None:
            await go.wait()
            await peer.reader.readexactly(14 + 2**24)
            await hear(heard)(peer)

        async with scripted(late) as uri:
            async with session_of(uri, write_limit=1, compression=None, outbox_limit=None) as session:
                await session.send(bytes(2**24))
                await session.send("1")
                await session.wait_open()
                assert session.pending == 1
                go.set()
        assert heard == ["1", "close 1000"]

    run(main())


def test_a_message_that_waits_when_the_session_is_left_is_not_taken() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def stall(peer: Peer) -> None:
            await go.wait()
            reset(peer)

        async with scripted(stall) as uri:
            async with session_of(uri, write_limit=1, compression=None) as session:
                await session.wait_open()
                session.try_send(bytes(2**24))
                waiting = asyncio.ensure_future(session.send("1"))
                await asyncio.sleep(0)
                go.set()
            with pytest.raises(ConnectionClosedError):
                await waiting
            assert session.pending == 0

    run(main())


@pytest.mark.parametrize("leaves", [False, True])
def test_leaving_does_not_wait_for_ever(leaves: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def stall(peer: Peer) -> None:
            await go.wait()
            reset(peer)

        async with scripted(stall) as uri:
            close_timeout = 60 if leaves else 0.05
            async with session_of(
                uri, write_limit=1, compression=None, outbox_limit=(3, None), close_timeout=close_timeout
            ) as session:
                for _ in range(3):
                    await session.send(bytes(2**24))  # more than the kernel takes
                await session.wait_open()
                assert session.pending == 2
                await session.send("3")
                blocked = asyncio.ensure_future(session.send("4"))
                await asyncio.sleep(0)
                if leaves:
                    go.set()
            with pytest.raises(ConnectionClosedOK):
                await blocked
            assert session.pending == 3
            go.set()

    run(main())
    assert "session ended: 3 messages of the outbox were not sent" in caplog.text


def test_an_exception_in_the_block_closes_with_1011() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted(hear(heard)) as uri:
            with pytest.raises(ZeroDivisionError):
                async with session_of(uri) as session:
                    await session.send("last")
                    await session.wait_open()
                    raise ZeroDivisionError
        assert heard == ["last", "close 1011"]

    run(main())


def test_closing_before_there_is_a_connection() -> None:
    async def main() -> None:
        port = free_port()
        async with session_of(f"ws://127.0.0.1:{port}/"):
            pass  # the runner has not run
        told: list[SessionState] = []
        async with session_of(
            f"ws://127.0.0.1:{port}/", reconnect_delays=lambda: [1e6], on_state=lambda _, state: told.append(state)
        ) as session:
            await wait_for_state(session, WAITING)
        assert told == [CONNECTING, WAITING, CLOSED]

        asked = asyncio.Event()

        async def uri() -> str:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with session_of(uri):
            await asked.wait()

        async def stubborn() -> str:
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            raise OSError

        asked.clear()
        async with session_of(stubborn) as session:
            await asked.wait()
        assert session.state is CLOSED

    run(main())


def test_closing_in_on_open() -> None:
    async def main() -> None:
        heard: list[str] = []
        inside = asyncio.Event()

        async def on_open(connection: Any) -> None:
            inside.set()
            await asyncio.Event().wait()

        async with scripted(hear(heard), hear(heard)) as uri:
            async with session_of(uri, on_open=on_open):
                await inside.wait()
            assert heard == ["close 1000"]

            async def close_it(connection: Any) -> None:
                await session.close()

            async with session_of(uri, on_open=close_it) as session:
                assert [message async for message in session] == []
        assert heard == ["close 1000"] * 2

    run(main())


def test_a_close_code_that_must_not_be_sent() -> None:
    async def main() -> None:
        async with scripted(say_nothing) as uri:
            async with session_of(uri, close_timeout=0.1) as session:
                await session.wait_open()
                with pytest.raises(ProtocolError):
                    await session.close(1006)
            assert session.state is CLOSED

    async def say_nothing(peer: Peer) -> None:
        await peer.reader.read()

    run(main())


@pytest.mark.parametrize("where", ["connecting", "flushing", "closing", "on_open"])
def test_cancelled_close_ends_at_once(where: str) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def on_open(connection: Any) -> None:
            if where == "on_open":
                inside.set()
                await asyncio.Event().wait()

        async def uri() -> str:
            if where == "connecting":
                inside.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                await asyncio.Event().wait()
            return address

        async def stall(peer: Peer) -> None:
            with contextlib.suppress(OSError):
                if where == "flushing":
                    await over.wait()
                await peer.reader.read()

        over = asyncio.Event()
        scripts = [stall] if where != "connecting" else []
        async with scripted(*scripts) as address:
            async with session_of(
                uri, on_open=on_open, write_limit=1, compression=None, outbox_limit=(9, None), close_timeout=1e6
            ) as session:
                if where == "flushing":
                    await session.send(bytes(2**24))
                    await session.send("follows")
                if where in ("flushing", "closing"):
                    await session.wait_open()
                else:
                    await inside.wait()
                closing = asyncio.ensure_future(session.close())
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not closing.done()
                closing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await closing
                over.set()
            assert session.state is CLOSED

    run(main())


def test_cancelled_from_outside() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted(hear(heard)) as uri:
            async with session_of(uri) as session:
                await session.wait_open()
                receiver = asyncio.ensure_future(session.recv())
                await asyncio.sleep(0)
                assert session._runner is not None
                session._runner.cancel()  # as asyncio.run() does at its end
                with pytest.raises(ConnectionClosedOK):
                    await receiver
                with pytest.raises(ConnectionClosedOK):
                    await session.send("x")
        assert heard == ["close 1000"]

    run(main())


# Cancellation


async def flaky(ws: ServerConnection, rng: random.Random, received: list[str]) -> None:
    """Take messages, and leave in one of many ways. What was taken is what counts: a number confirms it."""
    for _ in range(rng.randrange(40)):
        received.append(await ws.recv())  # type: ignore[arg-type]
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    how = rng.randrange(4)
    if how == 0:
        await ws.close(rng.choice([1000, 1001, 1011, 1012]))
    elif how == 1:
        ws.transport.abort()
    elif how == 2:
        ws.transport.close()


@pytest.mark.parametrize("seed", range(5))
def test_cancelled_sends_are_sent_or_not(seed: int) -> None:
    """Cancel sends at random points, on connections that break. The order of the calls holds, nothing comes twice, and
    what was cancelled or timed out never comes."""

    async def main() -> None:
        rng = random.Random(seed)
        received: list[str] = []
        taken: list[str] = []
        refused: set[str] = set()

        async def handler(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                await flaky(ws, rng, received)

        async with serving(handler) as server:
            async with session_of(
                uri_of(server), outbox_limit=rng.choice([1, 5, 1000]), write_limit=1, close_timeout=1
            ) as session:
                for i in range(400):
                    message = f"{i} " + "x" * rng.choice([0, 10, 5000, 100_000])
                    task = asyncio.ensure_future(session.send(message, timeout=rng.choice([None, None, 1e-9])))
                    for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8])):
                        await asyncio.sleep(0)
                    if rng.random() < 0.5:
                        task.cancel()
                    try:
                        await task
                        taken.append(message)
                    except (asyncio.CancelledError, TimeoutError):
                        refused.add(message)
        numbers = [int(message.split()[0]) for message in received]
        assert numbers == sorted(set(numbers))
        assert not refused & set(received)
        assert set(received) <= set(taken)
        assert len(refused) > 5
        assert len(received) > 50

    run(main(), limit=60)


def test_kept_messages_arrive_once_and_in_order_over_clean_restarts() -> None:
    """A server that reads all it was sent before it leaves: nothing may be lost, whatever is cancelled meanwhile."""

    async def main() -> None:
        rng = random.Random(7)
        received: list[str] = []

        async def handler(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(rng.randrange(1, 30)):
                    received.append(await ws.recv())  # type: ignore[arg-type]
                # The peer answers our Close frame behind all that it sent before.
                closing = asyncio.ensure_future(ws.close(1012))
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        received.append(await ws.recv())  # type: ignore[arg-type]
                await closing

        async with serving(handler) as server:
            taken: list[str] = []
            async with session_of(uri_of(server), outbox_limit=5) as session:
                for i in range(1500):
                    task = asyncio.ensure_future(session.send(str(i)))
                    if rng.random() < 0.3:
                        for _ in range(rng.randrange(5)):
                            await asyncio.sleep(0)
                        task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                        taken.append(str(i))
                await session.wait_open()
                while session.pending:
                    await session._wait()
                await session.wait_open()
        assert received == taken
        assert len(taken) < 1500

    run(main(), limit=60)


def test_cancelled_receives_lose_nothing() -> None:
    async def main() -> None:
        rng = random.Random(3)
        numbers = itertools.count()
        sent: list[str] = []

        async def handler(ws: ServerConnection) -> None:
            for _ in range(rng.randrange(1, 30)):
                sent.append(str(next(numbers)))
                await ws.send(sent[-1])
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            await ws.close(rng.choice([1000, 1012]))  # the client answers it behind all that it received

        async with serving(handler) as server:
            async with session_of(uri_of(server)) as session:
                received: list[str] = []
                cancelled = 0
                while len(received) < 1500:
                    task = asyncio.ensure_future(session.recv())
                    for _ in range(rng.randrange(6)):
                        await asyncio.sleep(0)
                    task.cancel()
                    try:
                        received.append(await task)  # type: ignore[arg-type]
                    except asyncio.CancelledError:
                        cancelled += 1
                assert received == [str(i) for i in range(len(received))]
                assert cancelled > 100

    run(main(), limit=60)


def test_cancelled_closes_leave_nothing_behind() -> None:
    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            async for _ in ws:
                pass

        async with serving(handler) as server:
            before = asyncio.all_tasks()

            async def use(turns: int) -> None:
                async with session_of(uri_of(server), close_timeout=1) as session:
                    await session.send("x")
                    for _ in range(turns):
                        await asyncio.sleep(0)

            for turns in range(0, 24, 2):
                for later in range(0, 24, 2):
                    task = asyncio.ensure_future(use(turns))
                    for _ in range(later):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0)

    run(main(), limit=60)


# docs/session.md

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "session.md").read_text(), re.MULTILINE | re.DOTALL)
OUTPUTS = {
    "subscribe prices": ["subscribed", "1", "bye"],
    "fresh_headers": ["{'hello': 'world'}"],
    "SendStatus": ["full", "one", "two", "four"],
    "give_up": ["gave up after 6 attempts"],
    "on_state": ["connecting", "open", "closed"],
}


@pytest.mark.parametrize("words", OUTPUTS)
def test_docs(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [block for block in BLOCKS if words in block]

    async def handler(ws: ServerConnection) -> None:
        async for message in ws:
            if message == "subscribe prices":
                for each in ("subscribed", "1", "bye"):
                    await ws.send(each)
            else:
                await ws.send(message)

    async def main() -> None:
        async with serving(handler) as server:
            program = code.replace("ws://localhost:8765", uri_of(server))
            assert program != code or words == "give_up"
            await asyncio.to_thread(exec, compile(program, "session.md", "exec"), {})

    run(main())
    assert capsys.readouterr().out.splitlines() == OUTPUTS[words]


def test_docs_have_no_other_programs() -> None:
    assert len(BLOCKS) == len(OUTPUTS)


def test_a_code_that_must_not_be_sent_changes_nothing() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted(hear(heard)) as uri, session_of(uri) as session:
            with pytest.raises(LocalProtocolError):
                await session.close(999)
            await session.wait_open()
            with pytest.raises(LocalProtocolError):
                await session.close(99999)
            await session.send("still there")
        assert heard == ["still there", "close 1000"]

    run(main())


def test_messages_leave_in_the_order_of_the_calls() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted(hear(heard)) as uri, session_of(uri) as session:
            connection = await session.wait_open()
            connection.pause_writing()
            first = asyncio.ensure_future(session.send("first"))
            await asyncio.sleep(0)
            connection.resume_writing()
            await session.send("second")
            assert first.done()
            for i in range(300):
                await session.send(str(i))
        assert heard == ["first", "second", *map(str, range(300)), "close 1000"]

    run(main())


def test_a_session_that_only_sends_lets_others_run() -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        async with scripted(hear([])) as uri, session_of(uri) as session:
            await session.wait_open()
            begin = ticks
            for _ in range(1000):
                await session.send("x")
            assert ticks - begin >= 7
        ticking.cancel()

    run(main())
