"""The link's corners that real transports show only on some versions or systems: a transport made by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from aio import MASK, echo, run, until
from helpers import encode_frame

from wsproto_fast import Close, Limits, Pong, Role, State
from wsproto_fast import Connection as Engine
from wsproto_fast._settings import Settings
from wsproto_fast.asyncio import Connection, ServerConnection, _compat, _server_connection, broadcast, serve
from wsproto_fast.asyncio._link import Link
from wsproto_fast.asyncio._receiving import Receiver
from wsproto_fast.exceptions import ConnectionClosedError


class Transport(asyncio.Transport):
    """Remembers what it is told. ``broken``: its peer has reset the connection."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.broken = broken
        self.closing = False

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.calls.append([bytes(data) for data in list_of_data])

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self.broken:
            raise OSError("not connected")
        self.calls.append("eof")

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.calls.append("close")

    def abort(self) -> None:
        self.closing = True
        self.calls.append("abort")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def make(transport: Transport, **settings: Any) -> Connection:
    """An open server's connection on that transport."""
    connection = Connection(Settings(ping_interval=None, **settings), logging.getLogger("test"))
    connection.connection_made(transport)
    connection._open(Engine(Role.SERVER, limits=connection._settings.limits))
    return connection


def feed(connection: Connection, data: bytes) -> None:
    """As asyncio does, whatever get_buffer() gives."""
    while data:
        buffer = connection.get_buffer(-1)
        n = min(len(buffer), len(data))
        memoryview(buffer)[:n] = data[:n]
        connection.buffer_updated(n)
        data = data[n:]


def text(payload: bytes) -> bytes:
    return encode_frame(0x81, payload, mask=b"abcd")


@pytest.mark.parametrize("safe", [True, False])
def test_large_messages_go_by_reference_where_writelines_is_safe(safe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "WRITELINES_IS_SAFE", safe)

    async def main() -> None:
        transport = Transport()
        connection = make(transport)
        await connection.send(b"x" * 100_000)
        [call] = transport.calls
        assert isinstance(call, list if safe else bytes)
        assert len(b"".join(call) if safe else call) == 100_010

    run(main())


def test_replies_leave_together() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport)
        feed(connection, text(b"a") * 10)
        for _ in range(5):
            await connection.send(await connection.recv())
        assert transport.calls == []
        await asyncio.sleep(0)  # at the end of the loop's turn
        assert transport.calls == [b"\x81\x01a" * 5]
        for _ in range(5):
            await connection.send(await connection.recv())
        assert transport.calls == [b"\x81\x01a" * 5] * 2  # at once with the last
        await asyncio.sleep(0)
        connection._sent_at = 0.0  # long ago
        await connection.send("alone")
        assert transport.calls[2:] == [b"\x81\x05alone"]
        feed(connection, text(b"a") * 10)
        await connection.send("x" * 65536)  # much is not held back
        assert len(transport.calls) == 4
        # pongs of one read leave together
        transport.calls.clear()
        feed(connection, encode_frame(0x89, b"", mask=b"abcd") * 3)
        assert transport.calls == [b"\x8a\x00" * 3]

    run(main())


def test_only_the_latest_pings_are_answered_over_the_high_mark() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport)
        connection.pause_writing()
        for i in range(1000):
            feed(connection, encode_frame(0x89, b"%03d" % i, mask=b"abcd"))
        assert transport.calls == []
        connection.resume_writing()
        [output] = transport.calls
        assert len(output) < 200
        assert output.endswith(b"\x8a\x03999")

    run(main())


def test_bytes_that_come_although_reading_is_paused() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport, limits=Limits(max_read_ahead=100))
        count = 2000
        feed(connection, b"".join(text(b"%d" % i) for i in range(count)))  # more than one buffer
        assert transport.calls == ["pause"]
        feed(connection, text(b"end"))
        feed(connection, text(b"end"))
        connection.eof_received()
        assert [int(await connection.recv()) for _ in range(count)] == list(range(count))
        assert [await connection.recv() for _ in range(2)] == ["end"] * 2
        with pytest.raises(ConnectionClosedError):
            await connection.recv()

    run(main())


def test_reading_goes_on_when_there_is_room() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport, limits=Limits(max_read_ahead=100))
        feed(connection, b"".join(text(b"%d" % i) for i in range(100)))
        feed(connection, text(b"100"))
        assert transport.calls == ["pause"]
        assert [int(await connection.recv()) for _ in range(101)] == list(range(101))
        assert transport.calls[:2] == ["pause", "resume"]
        assert transport.calls[-1] == "resume"

    run(main())


def test_half_close_of_a_connection_that_is_reset() -> None:
    async def main() -> None:
        transport = Transport(broken=True)
        connection = make(transport)
        feed(connection, text(b"\xff"))
        assert transport.calls[0][:1] == b"\x88"
        with pytest.raises(ConnectionClosedError):
            await connection.recv()
        feed(connection, b"whatever")
        connection.eof_received()
        assert transport.calls[-1] == "close"
        connection.connection_lost(None)
        assert connection._entry is None

    run(main())


def test_nothing_is_written_to_a_closing_transport() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport)
        transport.closing = True
        await connection.send("lost")
        assert transport.calls == []

    run(main())


def test_a_refusal_larger_than_the_write_buffer() -> None:
    async def main() -> None:
        receiver = Receiver(Settings())
        receiver.pause_writing()
        receiver.resume_writing()
        assert not receiver._write_paused

    run(main())


def test_connections_accepted_by_a_server_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS handshake may end only then."""
    monkeypatch.setattr(_server_connection, "_LAST_CALL", 0)

    async def main() -> None:
        server = await serve(echo, "127.0.0.1", 0)
        server.close()
        await server.wait_closed()
        transport = Transport()
        connection = ServerConnection(server)
        connection.connection_made(transport)
        assert transport.calls == []  # its request may be on its way
        await until(lambda: transport.calls == ["close"])
        connection.connection_lost(None)
        await server.wait_closed()

    run(main())


def test_what_subclasses_do() -> None:
    async def main() -> None:
        link = Link(Settings())
        for call in (
            lambda: Receiver(Settings())._on_pong(Pong(b"")),
            lambda: link._handshake_received(b""),
            link._handshake_eof,
            lambda: link._on_message(""),
            lambda: link._on_event(None),  # type: ignore[arg-type]
            link._on_end,
            link._on_budget_spent,
            lambda: link._on_failure(ValueError()),
        ):
            with pytest.raises(NotImplementedError):
                call()

    run(main())


def test_a_transport_that_is_full_again_at_once_wakes_nobody() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport)
        connection.pause_writing()
        connection.protocol.send_text("what waited")
        send = asyncio.ensure_future(connection.send("more"))
        await asyncio.sleep(0)
        write, transport.write = transport.write, lambda data: connection.pause_writing()  # type: ignore[method-assign]
        connection.resume_writing()
        await asyncio.sleep(0)
        assert not send.done()
        transport.write = write  # type: ignore[method-assign]
        connection.resume_writing()
        await send
        assert transport.calls == [b"\x81\x04more"]

    run(main())


def test_who_reads_is_not_overdue() -> None:
    """``broadcast`` closes who has more than 1 MiB to read of earlier turns, and nobody who has read enough of it."""

    async def main() -> None:
        transport = Transport()
        connection = make(transport, compression=None)
        waiting = 2**21
        transport.get_write_buffer_size = lambda: waiting  # type: ignore[method-assign]
        connection.pause_writing()
        broadcast([connection], "in the turn of the large message")
        await asyncio.sleep(0)
        waiting = 2**19  # over the low mark still
        broadcast([connection], "it reads")
        assert connection.state is State.OPEN
        waiting = 2**21
        broadcast([connection], "much again")
        await asyncio.sleep(0)
        assert connection.state is State.OPEN
        broadcast([connection], "too late")
        assert connection.protocol.close_sent == Close(1008, "too slow")

    run(main())


def test_bytes_that_somebody_else_has_read() -> None:
    """As the reactor hands them over."""

    async def main() -> None:
        transport = Transport()
        connection = make(transport)
        connection._received(text(b"a"), False)
        assert await connection.recv() == "a"
        waiting = asyncio.ensure_future(connection.recv())
        await asyncio.sleep(0)
        connection._received(text(b"b") + text(b"c"), False)
        assert await waiting == "b"
        assert await connection.recv() == "c"

    run(main())


def test_closing_coroutine_objects_that_wait_for_more() -> None:
    async def main() -> None:
        transport = Transport()
        connection = make(transport)

        connection.pause_writing()
        sending = connection.send("x")
        sending.send(None)
        sending.close()
        connection.resume_writing()
        assert transport.calls == []

        stream = connection.recv_streaming()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        connection.protocol.receive_data(encode_frame(0x01, b"frag", mask=MASK))
        connection._pump()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        receiving = connection.recv()
        receiving.send(None)
        receiving.close()
        connection._received(encode_frame(0x80, b"ment", mask=MASK), False)
        assert await connection.recv() == "fragment"

    run(main())
