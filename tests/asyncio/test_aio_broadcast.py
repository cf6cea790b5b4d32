"""``broadcast``: that of websockets, bounded, and in as few writes as can be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio import pair, peer_of, run, serving, until, uri_of

from wsproto_fast import PreparedMessage, State
from wsproto_fast.asyncio import Connection, Group, ServerConnection, broadcast, connect
from wsproto_fast.deflate import PerMessageDeflate


async def park(ws: ServerConnection) -> None:
    await ws.wait_closed()


class CountingTransport:
    """A transport that counts its writes."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.transport.write(data)

    def writelines(self, chunks: list[bytes]) -> None:
        self.writes += 1
        self.transport.writelines(chunks)


@contextlib.asynccontextmanager
async def counted(receivers: int, **kwargs: Any) -> AsyncIterator[tuple[list[Connection], list[Any], list[Any]]]:
    """A server's connections, their transports, and their clients."""
    async with serving(park, **kwargs) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(uri_of(server))) for _ in range(receivers)]
        await until(lambda: len(server.connections) == receivers)
        connections: list[Connection] = list(server.connections)
        transports: list[Any] = [CountingTransport(ws.transport) for ws in connections]
        for ws, transport in zip(connections, transports, strict=True):
            ws.transport = transport
        yield connections, transports, clients


@pytest.mark.parametrize("how", ["function", "group", "both"])
@pytest.mark.parametrize("size", [10, 6000])
def test_broadcasts_of_one_turn_are_one_write(how: str, size: int) -> None:
    async def main() -> None:
        async with counted(5) as (connections, transports, clients):
            group = Group(connections)
            for turn in range(1, 3):
                for i in range(8):
                    message = str(i) * size
                    if how == "group" or (how == "both" and i % 2):
                        group.broadcast(message)
                    else:
                        broadcast(connections, message)
                assert all(transport.writes == turn - 1 for transport in transports)
                for client in clients:
                    assert [await client.recv() for _ in range(8)] == [str(i) * size for i in range(8)]
                assert [transport.writes for transport in transports] == [turn] * 5

    run(main())


def test_many_broadcasts_of_one_turn_leave_before_its_end() -> None:
    """Who reads fast is not taken for slow because a program broadcasts 4 MiB without a pause."""

    async def main() -> None:
        async with counted(2, compression=None) as (connections, transports, clients):
            for _ in range(512):
                broadcast(connections, bytes(8192))
            sizes = [ws.buffered_amount for ws in connections if ws.state is State.OPEN]
            assert all(size <= 2**20 + 2 * 8206 for size in sizes)
            assert all(transport.writes for transport in transports)
            for client in clients:
                client.transport.abort()

    run(main())


def test_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compress_once = PerMessageDeflate.compress_once
    monkeypatch.setattr(
        PerMessageDeflate, "compress_once", lambda self, data: calls.append(self) or compress_once(self, data)
    )

    async def main() -> None:
        async with counted(5) as (connections, _, clients):
            prepared = PreparedMessage("known to all " * 100)
            broadcast(connections, prepared)
            broadcast(iter(connections), prepared)
            broadcast(connections, "new " * 100)
            for client in clients:
                assert [await client.recv() for _ in range(3)] == ["known to all " * 100] * 2 + ["new " * 100]
            with pytest.raises(TypeError, match="where the message is prepared"):
                broadcast(connections, prepared, text=True)
            with pytest.raises(TypeError, match="data must be str or bytes"):
                broadcast(connections, ["new"])  # type: ignore[arg-type]

    run(main())
    assert len(calls) == 2


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_texts_are_those_of_websockets(caplog: pytest.LogCaptureFixture) -> None:
    """Amid a fragmented message, and when something fails: skipped, told in the log, and nobody else's concern."""

    async def main() -> None:
        async with serving(park) as server, connect(uri_of(server)) as one, connect(uri_of(server)) as two:
            await until(lambda: len(server.connections) == 2)
            fragmenting, broken = server.connections
            go_on = asyncio.Event()

            async def fragments() -> AsyncIterator[str]:
                yield "a"
                await go_on.wait()

            sending = asyncio.ensure_future(fragmenting.send(fragments()))
            await until(lambda: fragmenting._fragmenting is not None)
            engine = broken.protocol
            engine.send_fragment("b", first=True, fin=False)  # which the adapter does not know
            broadcast([fragmenting, broken], "skipped")
            why = "a fragmented message is open: end it with send_fragment(fin=True) first"
            assert warnings(caplog) == [
                "skipped broadcast: sending a fragmented message",
                f"skipped broadcast: failed to write message: wsproto_fast.exceptions.LocalProtocolError: {why}",
            ]
            if sys.version_info >= (3, 11):
                with pytest.raises(ExceptionGroup, match="skipped broadcast") as info:  # noqa: F821
                    broadcast([fragmenting, broken], "skipped", raise_exceptions=True)
                assert list(map(repr, info.value.exceptions)) == [
                    "ConcurrencyError('sending a fragmented message')",
                    "RuntimeError('failed to write message')",
                ]
                causes = [type(exc.__cause__).__name__ for exc in info.value.exceptions]
                assert causes == ["NoneType", "LocalProtocolError"]
                assert len(warnings(caplog)) == 2
            else:
                with pytest.raises(ValueError, match=r"raise_exceptions requires at least Python 3\.11"):
                    broadcast([fragmenting, broken], "skipped", raise_exceptions=True)
            go_on.set()
            await sending
            engine.send_fragment("", first=False, fin=True)
            broadcast(server.connections, "sent", raise_exceptions=sys.version_info >= (3, 11))
            messages = [await client.recv() for client in (one, two) for _ in range(2)]
            assert sorted(messages) == ["a", "b", "sent", "sent"]

    run(main())


def test_whoever_does_not_read_is_closed() -> None:
    class Audience(set[Connection]):
        """A program's set of connections, from which they are taken as soon as they end."""

        def add(self, connection: Connection) -> None:
            super().add(connection)
            connection._watch(self)

        _left = set.discard

        def _writable(self, connection: Connection) -> None:
            pass

    async def main() -> None:
        async with serving(park, compression=None) as server, peer_of(server, small=True) as peer:
            await until(lambda: len(server.connections) == 1)
            [slow] = server.connections
            async with connect(uri_of(server)) as reader:
                await until(lambda: len(server.connections) == 2)
                audience = Audience()
                for ws in server.connections:
                    audience.add(ws)
                sent = 0
                while slow in audience:
                    broadcast(audience, bytes(50_000))
                    assert slow.buffered_amount <= 2**20 + 2 * 50_010  # it is told in the turn after
                    assert await reader.recv() == bytes(50_000)
                    sent += 1
                assert 20 < sent < 100
                broadcast([slow], "nothing follows")
                assert await peer.expect_close(1008) == "too slow"
                await peer.close()
                await slow.wait_closed()

    run(main())


def test_not_open_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with pair() as ws:
            await ws.close()
            broadcast([ws], "skipped", raise_exceptions=sys.version_info >= (3, 11))
            broadcast([], "for nobody")
            with pytest.raises(UnicodeEncodeError):
                broadcast([], "\ud800")

    run(main())
    assert warnings(caplog) == []


def test_in_another_thread() -> None:
    async def main() -> None:
        async with counted(1) as (connections, _, [client]):
            group = Group(connections)
            for call in (group.broadcast, lambda message: broadcast(connections, message)):
                with pytest.raises(RuntimeError, match="in the thread of its event loop"):
                    await asyncio.to_thread(call, "lost")
            group.broadcast("sent")
            assert await client.recv() == "sent"

    run(main())


def test_nobody_is_late_in_the_turn_of_the_message() -> None:
    async def main() -> None:
        async with serving(park, compression=None) as server:
            server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # of those accepted from now on
            async with connect(uri_of(server), max_size=None) as client:
                await until(lambda: len(server.connections) == 1)
                broadcast(server.connections, bytes(2**22))
                broadcast(server.connections, "and more")
                assert await client.recv() == bytes(2**22)
                assert await client.recv() == "and more"

    run(main())
