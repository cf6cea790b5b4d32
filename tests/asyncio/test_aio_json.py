"""recv_json and send_json with each codec, and all ways to receive mixed on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import random
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio import Peer, byte_server, pair, peer_of, run, serving
from cases.messages import CODECS, JSON_TEXT, JSON_VALUES, NO_JSON, ORJSON, codec_of
from helpers import encode_frame

from wsproto_fast import InvalidState
from wsproto_fast._settings import Settings
from wsproto_fast.asyncio import Connection, connect
from wsproto_fast.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    return codec_of(request.param)


@pytest.fixture(params=CODECS[1:])
def raw_codec(request: pytest.FixtureRequest) -> Any:
    """One that makes bytes."""
    return codec_of(request.param)


def test_there_and_back(codec: Any) -> None:
    async def main() -> None:
        async with pair(json=codec) as client:
            for value in JSON_VALUES:
                await client.send_json(value)
                assert await client.recv_json() == value
            for value in JSON_VALUES:  # all under way together
                await client.send_json(value, compress=True)
            assert [await client.recv_json() for _ in JSON_VALUES] == JSON_VALUES
        raw = not isinstance(codec.dumps(0), str)
        assert set(codec.seen) == ({bytes} if raw else {str})

    run(main())


def test_json_is_sent_as_text(codec: Any) -> None:
    async def main() -> None:
        async def handler(connection: Connection) -> None:
            await connection.send_json({"name": JSON_TEXT})
            await connection.wait_closed()

        async with serving(handler, json=codec, compression=None) as server, peer_of(server) as peer:
            first, payload = await peer.frame()
            assert first == 0x81
            assert json.loads(payload) == {"name": JSON_TEXT}

    run(main())


@pytest.mark.parametrize("make", ["json.JSONEncoder", ORJSON, "msgspec"])
def test_codecs_of_every_shape(make: str) -> None:
    """Modules, and objects with dumps and loads or encode and decode, bound or not."""

    class Indenting:
        def dumps(self, data: Any) -> str:
            return json.dumps(data, indent=1)

        def loads(self, data: str) -> Any:
            return json.loads(data)

    async def main(codec: Any) -> None:
        async with pair(json=codec) as client:
            await client.send_json({"x": 1})
            assert await client.recv_json() == {"x": 1}

    codec = Indenting() if make == "json.JSONEncoder" else pytest.importorskip(make)
    run(main(codec.json if make == "msgspec" else codec))


def test_binary_messages_are_json_too(codec: Any) -> None:
    async def main() -> None:
        async with pair(json=codec) as client:
            for value in JSON_VALUES:
                await client.send(json.dumps(value).encode())
                assert await client.recv_json() == value
            await client.send(b"[1]")
            await client.send("[2]")
            assert await client.recv_json() == [1]
            assert await client.recv() == "[2]"

    run(main())


@pytest.mark.parametrize("bad", NO_JSON)
def test_what_is_no_json_leaves_the_connection_usable(codec: Any, bad: str | bytes) -> None:
    async def main() -> None:
        async with pair(json=codec) as client:
            await client.send(bad)
            await client.send("[1]")
            with pytest.raises(ValueError):
                await client.recv_json()
            assert await client.recv_json() == [1]  # the bad one is gone
            await client.send(bad)
            assert await client.recv() == bad

    run(main())


def test_what_cannot_be_said_in_json_leaves_the_connection_usable(codec: Any) -> None:
    async def main() -> None:
        async with pair(json=codec) as client:
            with pytest.raises(TypeError):
                await client.send_json(object())
            with pytest.raises(TypeError):
                await client.send_json({"x": [object()]})
            await client.send_json("after")
            assert await client.recv_json() == "after"
            assert client.stats.messages_sent == 1

    run(main())


def test_a_codec_that_fails_otherwise() -> None:
    class Odd:
        def dumps(self, data: Any) -> str:
            return json.dumps(data)

        def loads(self, data: Any) -> Any:
            raise ZeroDivisionError

    async def main() -> None:
        async with pair(json=Odd()) as client:
            await client.send("1")
            with pytest.raises(ZeroDivisionError):
                await client.recv_json()
            await client.send("2")
            assert await client.recv() == "2"

    run(main())


@pytest.mark.parametrize("name", CODECS)
def test_text_that_is_not_utf8_fails_the_connection(name: str) -> None:
    """Also where nobody decodes it (RFC 6455 8.1)."""

    async def main() -> None:
        async def handler(connection: Connection) -> None:
            with pytest.raises(ConnectionClosedError, match="1007"):
                await connection.recv_json()

        async with serving(handler, json=pytest.importorskip(name)) as server, peer_of(server) as peer:
            peer.write(0x81, b'"\xc3\x28"')
            await peer.expect_close(1007)

    run(main())


def test_recv_json_when_the_connection_ends(codec: Any) -> None:
    async def main() -> None:
        async def handler(connection: Connection) -> None:
            await connection.send_json(1)

        async with pair(handler, json=codec) as client:
            await client.wait_closed()
            assert await client.recv_json() == 1
            for _ in range(2):
                with pytest.raises(ConnectionClosedOK):
                    await client.recv_json()
            with pytest.raises(ConnectionClosedOK):
                await client.send_json(1)

    run(main())


# Mixed


def test_each_way_to_receive_takes_over_from_each_other(codec: Any) -> None:
    """The messages all wait, or come one by one."""

    async def main() -> None:
        rng = random.Random(5)
        async with pair(json=codec, max_queue=4) as client:
            for together in (1, 10, 50):
                for _ in range(10):
                    values = [
                        rng.choice([JSON_TEXT, [JSON_TEXT], 17, {"b": JSON_TEXT * 3000}]) for _ in range(together)
                    ]
                    kinds = [rng.randrange(3) for _ in values]
                    sending = asyncio.ensure_future(send_all(client, values, kinds))
                    for value, kind in zip(values, kinds, strict=True):
                        await receive_somehow(rng, client, value, kind)
                    await sending

    async def send_all(client: Any, values: list[Any], kinds: list[int]) -> None:
        for value, kind in zip(values, kinds, strict=True):
            data = json.dumps(value, ensure_ascii=False)
            if kind == 0:
                await client.send(data)
            elif kind == 1:
                await client.send(data.encode())
            else:
                await client.send([data[:3], data[3:7], data[7:]])

    async def receive_somehow(rng: random.Random, client: Any, value: Any, kind: int) -> None:
        way = rng.randrange(4)
        if rng.random() < 0.3:  # a cancelled attempt first
            other = rng.randrange(3)
            attempt: Any = (client.recv, client.recv_json, functools.partial(drain, client))[other]
            task = asyncio.ensure_future(attempt())
            await asyncio.sleep(0)
            if not task.done() and client._receiver is not None:
                task.cancel()
            try:
                got = await task
            except asyncio.CancelledError:
                pass
            else:
                check(got if other != 1 else None, value, kind, got if other == 1 else None)
                return
        if way == 0:
            check(await client.recv(), value, kind)
        elif way == 1:
            assert await client.recv_json() == value
        elif way == 2:
            check(await drain(client), value, kind)
        else:
            assert json.loads(await client.recv(decode=rng.random() < 0.5)) == value

    async def drain(client: Any) -> Any:
        parts = [part async for part in client.recv_streaming()]
        return (b"" if isinstance(parts[0], bytes) else "").join(parts)

    def check(got: Any, value: Any, kind: int, parsed: Any = None) -> None:
        if got is None:
            assert parsed == value
        else:
            assert type(got) is (bytes if kind == 1 else str)
            assert json.loads(got) == value

    run(main(), limit=60)


@contextlib.asynccontextmanager
async def byte_pair(codec: Any, **kwargs: Any) -> AsyncIterator[tuple[Any, Peer]]:
    """A client and the server's end of it as bytes."""
    ready: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def talk(peer: Peer) -> None:
        ready.set_result(peer)
        await over.wait()

    async with byte_server(talk) as uri:
        async with connect(uri, json=codec, compression=None, **kwargs) as client:
            try:
                yield client, await ready
            finally:
                over.set()


async def cancelled(coroutine: Any) -> None:
    """Begin it, and cancel it where it waits."""
    task = asyncio.ensure_future(coroutine)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def has_come(client: Any, nbytes: int) -> None:
    while client.stats.bytes_received < nbytes:
        await asyncio.sleep(0.001)


async def streamed(client: Any) -> list[Any]:
    return [part async for part in client.recv_streaming()]


async def first_frame(client: Any) -> Any:
    return await client.recv_streaming().__anext__()


WHOLE = '"é日"'.encode()
PIECES = [WHOLE[:2], WHOLE[2:4], WHOLE[4:]]  # cut within characters


@pytest.mark.parametrize("begin", ["recv", "recv_json", "recv_streaming"])
@pytest.mark.parametrize("middle", ["recv", "recv_json", "recv_streaming"])
@pytest.mark.parametrize("end", ["recv", "recv_json", "recv_streaming"])
@pytest.mark.parametrize("opcode", [1, 2])
def test_changing_ones_mind_in_the_middle_of_a_message(
    codec: Any, begin: str, middle: str, end: str, opcode: int
) -> None:
    """What waits for a message is cancelled when some of its fragments have come, twice, and something else asks."""
    ways = {
        "recv": lambda client: client.recv(),
        "recv_json": lambda client: client.recv_json(),
        "recv_streaming": first_frame,
    }

    async def main() -> None:
        async with byte_pair(codec) as (client, peer):
            await cancelled(ways[begin](client))  # before anything has come
            peer.write(opcode, PIECES[0])
            await has_come(client, 2 + len(PIECES[0]))
            if client._queue:
                pytest.fail("a fragment that nobody asked for")
            if begin != "recv_streaming":
                await cancelled(ways[begin](client))
            if middle != "recv_streaming":
                await cancelled(ways[middle](client))
            peer.write(0x00, PIECES[1])
            await has_come(client, 4 + len(PIECES[0] + PIECES[1]))
            if middle != "recv_streaming":
                await cancelled(ways[middle](client))
            peer.write(0x80, PIECES[2])
            await has_come(client, 6 + len(WHOLE))
            await take(client, end, opcode)
            for first, payload in ((0x81, WHOLE), (0x82, WHOLE), (0x81, WHOLE)):  # the next ones are as they should be
                peer.write(first, payload)
                await take(client, "recv", first & 15)
            peer.write(0x81, WHOLE)
            assert await client.recv_json() == "é日"

    async def take(client: Any, way: str, opcode: int) -> None:
        if way == "recv_json":
            assert await client.recv_json() == "é日"
            return
        got = await client.recv() if way == "recv" else await streamed(client)
        if way == "recv_streaming":
            assert {type(part) for part in got} == {bytes if opcode == 2 else str}
            got = (b"" if opcode == 2 else "").join(got)
        assert got == (WHOLE if opcode == 2 else WHOLE.decode())

    run(main())


@pytest.mark.parametrize("ways", [("recv_json", "recv"), ("recv", "recv_json"), ("recv_json", "recv_streaming")])
@pytest.mark.parametrize("opcode", [1, 2])
def test_the_rest_of_a_message_comes_after_the_change(codec: Any, ways: tuple[str, str], opcode: int) -> None:
    async def main() -> None:
        async with byte_pair(codec) as (client, peer):
            waiting = asyncio.ensure_future(getattr(client, ways[0])())
            await asyncio.sleep(0)
            peer.write(opcode, PIECES[0])
            await has_come(client, 4)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            method = streamed if ways[1] == "recv_streaming" else getattr(type(client), ways[1])
            waiting = asyncio.ensure_future(method(client))
            await asyncio.sleep(0)
            peer.write(0x00, PIECES[1])
            peer.write(0x80, PIECES[2])
            got = await waiting
            if ways[1] == "recv_json":
                assert got == "é日"
                return
            if ways[1] == "recv_streaming":
                assert len(got) >= 2
                got = (b"" if isinstance(got[0], bytes) else "").join(got)
            assert got == (WHOLE if opcode == 2 else WHOLE.decode())

    run(main())


def test_fragments_that_a_cancelled_stream_had_asked_for(codec: Any) -> None:
    """recv puts them back when it is cancelled; recv_json takes them then."""

    async def main() -> None:
        async with byte_pair(codec) as (client, peer):
            streaming = asyncio.ensure_future(first_frame(client))
            await asyncio.sleep(0)
            streaming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await streaming
            streaming = asyncio.ensure_future(first_frame(client))
            await asyncio.sleep(0)
            client.protocol.receive_data(encode_frame(0x01, PIECES[0]))
            client._pump()  # as when its task is not woken at once
            assert client._queue
            streaming.cancel()  # in the turn in which the frame has come
            with pytest.raises(asyncio.CancelledError):
                await streaming
            for attempt in (client.recv, client.recv_json, client.recv):
                await cancelled(attempt())
                assert client._queue_bytes == sum(len(item.data) for item in client._queue)
            peer.write(0x00, PIECES[1])
            await has_come(client, 4 + len(PIECES[0] + PIECES[1]))
            await cancelled(client.recv_json())
            assert client._queue_bytes == sum(len(item.data) for item in client._queue) > 0
            peer.write(0x80, PIECES[2])
            peer.write(0x81, b"[1]")
            assert await client.recv_json() == "é日"
            assert await client.recv_json() == [1]
            assert client._queue_bytes == 0

    run(main())


def test_a_raw_text_that_waits_can_be_received_in_any_way(raw_codec: Any) -> None:
    async def main() -> None:
        async with byte_pair(raw_codec) as (client, peer):
            await cancelled(client.recv_json())
            for _ in range(4):
                peer.write(0x81, WHOLE)
            peer.write(0x82, WHOLE)
            await has_come(client, 5 * (2 + len(WHOLE)))
            text = WHOLE.decode()
            assert await client.recv() == text
            assert await client.recv(decode=False) == WHOLE
            assert await streamed(client) == [text]
            assert [part async for part in client.recv_streaming(decode=False)] == [WHOLE]
            assert await client.recv() == WHOLE

    run(main())


def test_only_one_receives_at_a_time(codec: Any) -> None:
    async def main() -> None:
        async with byte_pair(codec) as (client, peer):
            waiting = asyncio.ensure_future(client.recv())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError, match="recv_json"):
                await client.recv_json()
            peer.write(0x81, WHOLE)
            assert await waiting == WHOLE.decode()  # as it was wanted
            waiting = asyncio.ensure_future(client.recv_json())
            await asyncio.sleep(0)
            for other in (client.recv(), client.recv_json(), streamed(client)):
                with pytest.raises(ConcurrencyError):
                    await other
            peer.write(0x82, WHOLE)
            assert await waiting == "é日"
            stream = client.recv_streaming()
            waiting = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError):
                await client.recv_json()
            peer.write(0x81, WHOLE)
            assert await waiting == WHOLE.decode()
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()

    run(main())


def test_before_the_handshake_is_over(raw_codec: Any) -> None:
    async def main() -> None:
        import logging

        connection = Connection(Settings(json=raw_codec), logging.getLogger("test"))
        with pytest.raises(InvalidState):
            await connection.recv_json()
        assert not connection._raw

    run(main())


def test_where_messages_go_to_a_callback(codec: Any) -> None:
    """A refused recv_json changes nothing of what the callback gets."""

    async def main() -> None:
        got: list[Any] = []
        async with byte_pair(codec, on_message=lambda _, message: got.append(message)) as (client, peer):
            for refused in (client.recv_json, client.recv, client.recv_json, client.recv_json, client.recv):
                with pytest.raises(ConcurrencyError):
                    await refused()
                peer.write(0x81, WHOLE)
                count = len(got)
                while len(got) == count:
                    await asyncio.sleep(0.001)
            assert got == [WHOLE.decode()] * 5

    run(main())


@pytest.mark.parametrize("last", ["recv", "recv_json"])
def test_a_closed_connection_is_let_go(codec: Any, last: str) -> None:
    """Without the garbage collector, although texts were wanted as bytes, before its end or after it."""

    async def main() -> None:
        async def handler(connection: Connection) -> None:
            await connection.send_json(1)
            await connection.send_json(2)

        async with serving(handler) as server:
            uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            client = await connect(uri, json=codec)
            if last == "recv_json":
                assert await client.recv_json() == 1
            await client.wait_closed()
            while True:
                try:
                    await getattr(client, last)()
                except ConnectionClosedOK:
                    break
            with pytest.raises(ConnectionClosedOK):
                await client.recv_json()
            reference = weakref.ref(client)
            await asyncio.sleep(0)
            gc.collect()
            gc.disable()
            try:
                del client
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert reference() is None
            finally:
                gc.enable()

    run(main())
