"""What a program does with an open connection, our client against our server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from typing import Any

import pytest
from aio import Peer, byte_server, echo, pair, port_of, run, serving, until, uri_of
from cases.messages import MESSAGES, NOT_SENDABLE

from wsproto_fast import DeflateConfig, Limits, State
from wsproto_fast.asyncio import ClientConnection, ServerConnection, connect, serve
from wsproto_fast.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    LocalProtocolError,
    PayloadTooBig,
)


@pytest.mark.parametrize("compression", ["deflate", None, DeflateConfig(threshold=0)])
def test_echo(compression: Any) -> None:
    async def main() -> None:
        async with pair(server={"compression": compression}, compression=compression) as ws:
            for message in MESSAGES:
                await ws.send(message)
                received = await ws.recv()
                assert received == message
                assert type(received) is type(message)

    run(main())


def test_pipelined_echo_in_order() -> None:
    async def main() -> None:
        async with pair() as ws:
            expected = [str(i) * (i % 300) for i in range(2000)]

            async def produce() -> None:
                for message in expected:
                    await ws.send(message)

            producer = asyncio.ensure_future(produce())
            assert [await ws.recv() for _ in expected] == expected
            await producer

    run(main())


def test_recv_decode() -> None:
    async def main() -> None:
        async with pair() as ws:
            await ws.send("é")
            assert await ws.recv(decode=False) == "é".encode()
            await ws.send("é".encode())
            assert await ws.recv(decode=True) == "é"
            await ws.send("é")
            assert await ws.recv(decode=True) == "é"
            await ws.send(b"\xff")
            assert await ws.recv(decode=False) == b"\xff"

    run(main())


def test_recv_decode_of_what_is_no_text_closes_with_1007() -> None:
    async def main() -> None:
        closed: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

        async def handler(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                await echo(ws)
            await ws.wait_closed()
            closed.set_result(ws)

        async with pair(handler) as ws:
            await ws.send(b"a\xff")
            with pytest.raises(ConnectionClosedError) as info:
                await ws.recv(decode=True)
            assert info.value.sent is not None
            assert info.value.sent.code == 1007
            assert isinstance(info.value.__cause__, UnicodeDecodeError)
            assert (await closed).close_code == 1007

    run(main())


def test_send_text_argument() -> None:
    async def main() -> None:
        async with pair() as ws:
            for data in (b"text", bytearray(b"text"), memoryview(b"text")):
                await ws.send(data, text=True)
                assert await ws.recv() == "text"
                await ws.send(data)
                assert await ws.recv() == b"text"
            await ws.send("bytes", text=False)
            assert await ws.recv() == b"bytes"
            await ws.send(["a", "b"], text=False)
            assert await ws.recv() == b"ab"
            await ws.send([b"\xc3", b"\xa9"], text=True)
            assert await ws.recv() == "é"

    run(main())


@pytest.mark.parametrize(("message", "error", "ends"), NOT_SENDABLE)
def test_send_what_cannot_be_sent(message: Any, error: type[Exception], ends: bool) -> None:
    async def main() -> None:
        async with pair() as ws:
            with pytest.raises(error):
                await ws.send(message)
            if ends:
                await ws.wait_closed()
                assert ws.protocol.close_code == 1011
            else:  # nothing was sent
                await ws.send("still open")
                assert await ws.recv() == "still open"

    run(main())


def test_send_fragments() -> None:
    async def main() -> None:
        async def generate(*chunks: Any) -> Any:
            for chunk in chunks:
                await asyncio.sleep(0)
                yield chunk

        async with pair() as ws:
            await ws.send(["a", "b", "c"])
            assert await ws.recv() == "abc"
            await ws.send(iter([b"a", bytearray(b"b"), memoryview(b"c")]))
            assert await ws.recv() == b"abc"
            await ws.send(generate("ä", "ö"))
            assert await ws.recv() == "äö"
            await ws.send([])
            await ws.send(generate())
            await ws.send("after nothing")
            assert await ws.recv() == "after nothing"

    run(main())


def test_other_sends_wait_for_a_fragmented_message() -> None:
    async def main() -> None:
        async with pair() as ws:
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def slowly(*chunks: str) -> Any:
                for chunk in chunks:
                    yield chunk
                    begun.set()
                    await go_on.wait()

            sends = [asyncio.ensure_future(ws.send(slowly("1", "2")))]
            await begun.wait()
            sends.append(asyncio.ensure_future(ws.send("whole")))
            sends.append(asyncio.ensure_future(ws.send(["3", "4"])))
            await asyncio.sleep(0.01)
            await (await ws.ping())  # control frames pass
            assert [send.done() for send in sends] == [False, False, False]
            go_on.set()
            received = [await ws.recv() for _ in range(3)]
            assert received[0] == "12"
            assert sorted(received) == ["12", "34", "whole"]
            await asyncio.gather(*sends)

    run(main())


def test_two_fragmented_messages_at_once() -> None:
    async def main() -> None:
        async with pair() as ws:

            async def slowly(text: str) -> Any:
                for character in text:
                    await asyncio.sleep(0)
                    yield character

            await asyncio.gather(ws.send(slowly("abcdef")), ws.send(slowly("ghi")), ws.send("z"))
            assert sorted([await ws.recv() for _ in range(3)]) == ["abcdef", "ghi", "z"]

    run(main())


class Oops(Exception):
    pass


@pytest.mark.parametrize("how", ["exception", "cancel", "close"])
def test_torn_fragmented_message_closes_with_1011(how: str) -> None:
    async def main() -> None:
        closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        async def handler(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                await ws.recv()
            await ws.wait_closed()
            closed.set_result(ws.close_code)

        async with pair(handler) as ws:
            begun = asyncio.Event()

            async def fragments() -> Any:
                yield "begun"
                begun.set()
                if how == "exception":
                    raise Oops
                await asyncio.Event().wait()

            task = asyncio.ensure_future(ws.send(fragments()))
            await begun.wait()
            if how == "cancel":
                task.cancel()
            if how == "close":
                await ws.close()
                task.cancel()  # it waits for its iterable
            with pytest.raises((Oops, asyncio.CancelledError)):
                await task
            assert await closed == 1011
            with pytest.raises(ConnectionClosedError):
                await ws.send("more")

    run(main())


def test_send_on_a_closed_connection_with_iterable() -> None:
    async def main() -> None:
        async with pair() as ws:
            await ws.close()
            for message in ("a", b"a", ["a"]):
                with pytest.raises(ConnectionClosedOK):
                    await ws.send(message)
            with pytest.raises(ConnectionClosedOK):
                await ws.ping()
            with pytest.raises(ConnectionClosedOK):
                await ws.pong()
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()

    run(main())


def test_close_in_the_middle_of_a_fragmented_send_that_goes_on() -> None:
    async def main() -> None:
        async with pair() as ws:
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def fragments() -> Any:
                yield "a"
                begun.set()
                await go_on.wait()
                yield "b"

            task = asyncio.ensure_future(ws.send(fragments()))
            await begun.wait()
            waiting = asyncio.ensure_future(ws.send("another"))
            await asyncio.sleep(0)
            await ws.close()
            go_on.set()
            for send in (task, waiting):
                with pytest.raises(ConnectionClosedError):
                    await send

    run(main())


def test_lone_surrogates() -> None:
    async def main() -> None:
        async with pair() as ws:
            with pytest.raises((LocalProtocolError, UnicodeEncodeError)):
                await ws.send("\ud800")
            await ws.send("fine")
            assert await ws.recv() == "fine"

    run(main())


def test_recv_twice_at_once() -> None:
    async def main() -> None:
        async with pair() as ws:
            first = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError, match="cannot call recv while"):
                await ws.recv()
            with pytest.raises(ConcurrencyError, match="cannot call recv_streaming while"):
                await ws.recv_streaming().__anext__()
            await ws.send("for the first")
            assert await first == "for the first"

    run(main())


def test_cancelled_recv_loses_nothing() -> None:
    async def main() -> None:
        async with pair() as ws:
            for i in range(50):
                task = asyncio.ensure_future(ws.recv())
                await asyncio.sleep(0)
                if i % 2:  # cancelled when the message is there, but the task has not run
                    inject(ws, b"\x81" + bytes([len(str(i))]) + str(i).encode())
                else:
                    await ws.send(str(i))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await ws.recv() == str(i)

    run(main())


def test_iteration() -> None:
    async def three(ws: ServerConnection) -> None:
        for i in range(3):
            await ws.send(str(i))

    async def main() -> None:
        async with pair(three) as ws:
            assert [message async for message in ws] == ["0", "1", "2"]
            assert ws.close_code == 1000
            assert [message async for message in ws] == []

        async def fail(ws: ServerConnection) -> None:
            await ws.send("x")
            await ws.close(4000, "private")

        async with pair(fail) as ws:
            received = []
            with pytest.raises(ConnectionClosedError) as info:
                async for message in ws:
                    received.append(message)
            assert received == ["x"]
            assert str(info.value) == "received 4000 (private use) private; then sent 4000 (private use) private"

    run(main())


def test_messages_before_the_close_are_delivered() -> None:
    async def many(ws: ServerConnection) -> None:
        for i in range(100):
            await ws.send(str(i))

    async def main() -> None:
        async with pair(many) as ws:
            await asyncio.sleep(0.05)  # the close stands in the socket behind a full queue
            assert [int(message) async for message in ws] == list(range(100))
            assert ws.close_code == 1000

    run(main())


def test_messages_can_be_taken_after_close() -> None:
    async def main() -> None:
        async with pair() as ws:
            await ws.send("a")
            await ws.send("b")
            await until(lambda: len(ws._queue) == 2)
            await ws.close()
            assert await ws.recv() == "a"
            assert await ws.recv() == "b"
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()

    run(main())


def test_ping_and_latency() -> None:
    async def main() -> None:
        async with pair() as ws:
            assert ws.latency == 0.0
            latency = await (await ws.ping())
            assert 0 < latency < 5
            assert ws.latency == latency
            waiters = [await ws.ping(data) for data in ("text", b"bytes", bytearray(b"array"), None)]
            with pytest.raises(ConcurrencyError):
                await ws.ping(b"text")
            assert len([await waiter for waiter in waiters]) == 4
            await ws.pong()
            await ws.pong("unsolicited")
            with pytest.raises(TypeError):
                await ws.ping(1)
            with pytest.raises(LocalProtocolError):
                await ws.ping(b"x" * 126)
            cancelled = await ws.ping()
            assert isinstance(cancelled, asyncio.Future)
            cancelled.cancel()
            await (await ws.ping())

    run(main())


def test_pings_end_with_the_connection() -> None:
    async def main() -> None:
        async def silent(peer: Any) -> None:
            await peer.frame()
            await peer.frame()
            peer.write(0x88, b"\x03\xe8")
            await peer.frame()

        async with byte_server(silent) as uri, connect(uri) as ws:
            first, second = await ws.ping(), await ws.ping()
            assert isinstance(second, asyncio.Future)
            second.cancel()
            with pytest.raises(ConnectionClosedOK):
                await first

    run(main())


def test_keepalive_measures_latency() -> None:
    async def main() -> None:
        async with pair(ping_interval=0.02) as ws:
            await until(lambda: ws.latency > 0)

    run(main())


def test_close() -> None:
    async def main() -> None:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def handler(ws: ServerConnection) -> None:
            try:
                await ws.recv()
            except ConnectionClosed as exc:
                ended.set_result(exc)

        async with pair(handler) as ws:
            assert ws.state is State.OPEN
            assert ws.close_code is None
            assert ws.close_reason is None
            with pytest.raises(LocalProtocolError):
                await ws.close(1006)
            with pytest.raises(LocalProtocolError):
                await ws.close(1000, "x" * 124)
            await asyncio.gather(ws.close(1001, "bye"), ws.close(), ws.wait_closed())
            await ws.close()
            await ws.wait_closed()
            assert ws.state is State.CLOSED
            assert (ws.close_code, ws.close_reason) == (1001, "bye")
            assert str(await ended) == "received 1001 (going away) bye; then sent 1001 (going away) bye"

    run(main())


def test_use_while_closing() -> None:
    async def main() -> None:
        async with pair() as ws:
            closing = asyncio.ensure_future(ws.close())
            await asyncio.sleep(0)
            assert ws.state is State.CLOSING
            with pytest.raises(ConnectionClosedOK):
                await ws.send("too late")
            await closing

    run(main())


def test_leaving_the_block() -> None:
    async def main() -> None:
        codes: asyncio.Queue[int | None] = asyncio.Queue()

        async def handler(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosedError):
                await echo(ws)
            codes.put_nowait(ws.close_code)

        async with serving(handler) as server:
            async with connect(uri_of(server)):
                pass
            assert await codes.get() == 1000
            with pytest.raises(Oops):
                async with connect(uri_of(server)):
                    raise Oops
            assert await codes.get() == 1011
            async with await connect(uri_of(server)):
                pass
            assert await codes.get() == 1000

    run(main())


def test_cancelled_close_drops_the_transport() -> None:
    async def main() -> None:
        async def deaf(peer: Any) -> None:
            await peer.frame()
            with contextlib.suppress(ConnectionError):
                await peer.expect_eof()

        async with byte_server(deaf) as uri:
            ws = await connect(uri)
            task = asyncio.ensure_future(ws.close())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ws.wait_closed()
            assert ws.state is State.CLOSED
            assert ws.close_code == 1006

    run(main())


def test_attributes() -> None:
    async def main() -> None:
        connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

        async def handler(ws: ServerConnection) -> None:
            connections.put_nowait(ws)
            await ws.wait_closed()

        async with serve(handler, "127.0.0.1", 0, subprotocols=["chat"]) as server:
            async with connect(uri_of(server, "/path?query"), subprotocols=["other", "chat"], origin="http://a") as ws:
                other = await connections.get()
                assert ws.local_address == other.remote_address
                assert ws.remote_address == other.local_address == ("127.0.0.1", port_of(server))
                assert ws.subprotocol == other.subprotocol == "chat"
                assert other.request is not None
                assert other.request.path == "/path?query"
                assert ws.response is not None
                assert ws.response.status_code == 101
                assert other.request.headers["Origin"] == "http://a"
                assert other.server is server
                assert isinstance(ws.id, uuid.UUID)
                assert ws.id == ws.id != other.id
                assert isinstance(ws.logger, logging.LoggerAdapter)
                assert ws.logger.extra == {"websocket": ws}
                with pytest.raises(InvalidState, match="handshake is over"):
                    other.respond(200, "too late")
                with pytest.raises(AttributeError, match="no attribute 'nothing'"):
                    _ = ws.nothing

    run(main())


def test_max_size() -> None:
    async def main() -> None:
        async with pair(server={"max_size": None}, max_size=1000) as ws:
            await ws.send(b"x" * 1000)
            assert len(await ws.recv()) == 1000
            await ws.send(b"x" * 1001)
            with pytest.raises(ConnectionClosedError) as info:
                await ws.recv()
            assert isinstance(info.value.__cause__, PayloadTooBig)
            assert info.value.sent is not None
            assert info.value.sent.code == 1009
        async with pair(max_size=(1000, 10)) as ws:
            await ws.send(b"x" * 11)
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
        async with pair(limits=Limits(max_message_size=10)) as ws:
            await ws.send(b"x" * 11)
            with pytest.raises(ConnectionClosedError):
                await ws.recv()

    run(main())


def test_streaming() -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        sends: list[Any] = []

        async def handler(ws: ServerConnection) -> None:
            async def fragments() -> Any:
                for piece in ("a", "b", "c"):
                    yield piece
                    await go_on.wait()
                    go_on.clear()

            await ws.recv()
            await ws.send(fragments())
            await ws.send("whole")
            await ws.send(b"binary")
            await ws.send(["d", "e"])
            await echo(ws)

        async with pair(handler) as ws:
            pieces = []
            asyncio.get_running_loop().call_later(0.01, lambda: sends.append(asyncio.ensure_future(ws.send("go"))))
            async for piece in ws.recv_streaming():
                pieces.append(piece)
                if piece:  # the rest is sent only once this piece was here
                    go_on.set()
            assert [piece for piece in pieces if piece] == ["a", "b", "c"]
            assert await ws.recv() == "whole"
            assert [piece async for piece in ws.recv_streaming(decode=True)] == ["binary"]
            assert b"".join([piece async for piece in ws.recv_streaming(decode=False)]) == b"de"
            await ws.send("end")
            assert await ws.recv() == "end"

    run(main())


def test_sending_waits_for_the_reason_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as the closing takes, if messages can be received meanwhile."""
    monkeypatch.setattr("wsproto_fast.asyncio._sending.ABANDONED", 0.01)

    async def main() -> None:
        asked, answer = asyncio.Event(), asyncio.Event()

        async def talk(peer: Peer) -> None:
            await peer.expect_close(1000)
            asked.set()
            await answer.wait()
            peer.write(0x88, b"\x03\xe8")

        async with byte_server(talk) as uri, connect(uri) as ws:
            closing = asyncio.ensure_future(ws.close())
            await asked.wait()
            sending = asyncio.ensure_future(ws.send("x"))
            await asyncio.sleep(0.1)
            assert not sending.done()
            answer.set()
            with pytest.raises(ConnectionClosedOK, match="then received 1000"):
                await sending
            await closing

    run(main())


def test_streaming_of_a_message_that_has_begun() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def handler(ws: ServerConnection) -> None:
            async def fragments() -> Any:
                yield "a"
                await asyncio.wait_for(go_on.wait(), 30)

            await ws.send(fragments())

        async with pair(handler) as ws:
            await asyncio.sleep(0.02)
            stream = ws.recv_streaming()
            assert await stream.__anext__() == "a"
            go_on.set()
            assert [piece async for piece in stream] == [""]

    run(main())


def inject(ws: Any, data: bytes) -> None:
    """Bytes from the server, without a turn of the loop."""
    ws._engine.receive_data(data)
    ws._pump()


def test_streaming_given_up_before_the_message() -> None:
    async def main() -> None:
        async with pair() as ws:
            task = asyncio.ensure_future(ws.recv_streaming().__anext__())
            await asyncio.sleep(0)
            with pytest.raises(ConcurrencyError):
                await ws.recv()
            with pytest.raises(ConcurrencyError):
                await ws.recv_streaming().__anext__()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ws.send(["a", "b"])
            assert await ws.recv() == "ab"

    run(main())


def test_streaming_left_in_the_middle() -> None:
    async def main() -> None:
        async with pair() as ws:
            stream = ws.recv_streaming()
            asyncio.get_running_loop().call_soon(inject, ws, b"\x01\x01a\x80\x01b")
            assert await stream.__anext__() == "a"
            await stream.aclose()
            with pytest.raises(ConcurrencyError):
                await ws.recv()

    run(main())


@pytest.mark.parametrize(("opcode", "whole"), [(b"\x01", "abc"), (b"\x02", b"abc")])
def test_recv_of_frames_that_a_cancelled_stream_asked_for(opcode: bytes, whole: str | bytes) -> None:
    async def main() -> None:
        async with pair() as ws:
            stream = asyncio.ensure_future(ws.recv_streaming().__anext__())
            await asyncio.sleep(0)
            inject(ws, opcode + b"\x01a\x00\x01b")
            stream.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stream
            receiving = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)  # it has taken both
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            receiving = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            inject(ws, b"\x80\x01c")
            assert await receiving == whole

    run(main())


def test_streaming_at_the_end_of_the_connection() -> None:
    async def nothing(ws: ServerConnection) -> None:
        pass

    async def main() -> None:
        async with pair(nothing) as ws:
            with pytest.raises(ConnectionClosedOK):
                await ws.recv_streaming().__anext__()
            with pytest.raises(ConnectionClosedOK):
                await ws.recv()

    run(main())


def test_recv_after_a_stream_that_was_cut_off() -> None:
    async def main() -> None:
        async with pair() as ws:
            stream = ws.recv_streaming()
            inject(ws, b"\x01\x01a")
            assert await stream.__anext__() == "a"
            ws.transport.abort()
            with pytest.raises(ConnectionClosedError):
                await stream.__anext__()
            for receive in (ws.recv, ws.recv_json, lambda: ws.recv_streaming().__anext__()):
                with pytest.raises(ConnectionClosedError):
                    await receive()

    run(main())


def test_iteration_asks_the_recv_of_a_subclass() -> None:
    class Shouting(ClientConnection):
        async def recv(self) -> str:  # type: ignore[override]
            return str(await super().recv()).upper()

    async def talk(ws: Any) -> None:
        await ws.send("hello")

    async def main() -> None:
        async with pair(talk, create_connection=Shouting) as ws:
            assert [message async for message in ws] == ["HELLO"]

    run(main())
