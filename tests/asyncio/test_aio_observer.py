"""Observers: told everything once and in order, whatever they raise; connections without one know nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from typing import Any

import pytest
from aio import echo, pair, peer_of, run, serving, until, uri_of
from cases.messages import ORJSON

from wsproto_fast import PreparedMessage
from wsproto_fast.asyncio import ClientConnection, Connection, ServerConnection, connect
from wsproto_fast.asyncio._observing import observed
from wsproto_fast.exceptions import ConnectionClosed, InvalidHandshake
from wsproto_fast.observer import Observer

HOOKS = [name for name in vars(Observer) if not name.startswith("_")]


class Notebook(Observer):
    """Writes down what it is told. ``fails``: and raises."""

    def __init__(self, fails: bool = False) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self.fails = fails

    def __getattribute__(self, name: str) -> Any:
        if name not in HOOKS:
            return super().__getattribute__(name)

        def note(connection: Any, *arguments: Any) -> None:
            self.connections.add(connection)
            self.notes.append((name, *arguments))
            if name == "connection_closed":
                self.notes.append((connection.close_code, connection.close_reason))
            if self.fails:
                raise ValueError("on purpose")

        return note

    def names(self) -> list[str]:
        return [note[0] for note in self.notes if isinstance(note[0], str)]


def test_a_conversation() -> None:
    async def main() -> None:
        here, there = Notebook(), Notebook()
        async with pair(server={"observer": there}, observer=here) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            client.try_send(b"try")
            assert await client.recv() == b"try"
            await client.send(["a", "b"])
            assert await client.recv() == "ab"
            await client.send_json([1])
            assert await client.recv_json() == [1]
            await (await client.ping())
            await client.close(4000, "bye")
        await until(lambda: "connection_closed" in there.names())
        assert here.notes[0] == ("connection_opened",)
        sent = [note[1] for note in here.notes if note[0] == "message_sent"]
        assert sent[:2] == ["hello", b"try"]
        assert "".join(map(str, filter(None, sent[2:-1]))) == "ab"
        assert sent[-1] == "[1]"
        assert [note[1] for note in here.notes if note[0] == "message_received"] == ["hello", b"try", "ab", "[1]"]
        [pong] = [note for note in here.notes if note[0] == "pong_received"]
        assert pong[1] == client.latency > 0
        assert here.notes[-2:] == [("connection_closed",), (4000, "bye")]
        assert there.notes[-2:] == [("connection_closed",), (4000, "bye")]
        assert [note[1] for note in there.notes if note[0] == "message_received"] == ["hello", b"try", "ab", "[1]"]
        assert there.names().count("connection_opened") == there.names().count("connection_closed") == 1

    run(main())


@pytest.mark.parametrize("mode", ["queue", "callback"])
def test_an_observer_that_raises_is_logged_and_changes_nothing(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        notebook = Notebook(fails=True)
        kwargs: dict[str, Any] = {"observer": notebook}
        if mode == "callback":
            kwargs["on_message"] = lambda connection, message: connection.try_send(message)
        async with serving(echo if mode == "queue" else None, **kwargs) as server:  # type: ignore[arg-type]
            async with connect(uri_of(server)) as client:
                for i in range(10):
                    await client.send(str(i))
                    assert await client.recv() == str(i)
                await (await client.ping())
            assert client.close_code == 1000
            await until(lambda: "connection_closed" in notebook.names())
        assert notebook.names().count("message_received") == 10
        assert notebook.names().count("message_sent") == 10

    run(main())
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) >= 22
    assert {record.getMessage() for record in failures} == {"observer failed"}
    assert all(record.exc_info is not None and record.exc_info[0] is ValueError for record in failures)


def test_the_callback_path() -> None:
    async def main() -> None:
        notebook = Notebook()
        got: list[Any] = []
        async with serving(None, on_message=lambda _, message: got.append(message), observer=notebook) as server:  # type: ignore[arg-type]
            async with connect(uri_of(server)) as client:
                for i in range(3000):
                    await client.send(str(i))
            await until(lambda: "connection_closed" in notebook.names())
        assert got == [str(i) for i in range(3000)]
        assert [note[1] for note in notebook.notes if note[0] == "message_received"] == got

    run(main())


def test_a_callback_that_raises_is_told_of_its_end() -> None:
    def on_message(connection: Connection, message: str | bytes) -> None:
        raise ValueError("on purpose")

    async def main() -> None:
        notebook = Notebook()
        async with serving(None, on_message=on_message, observer=notebook) as server, peer_of(server) as peer:  # type: ignore[arg-type]
            peer.write(0x81, b"x")
            await peer.expect_close(1011)
            await peer.close()
            await until(lambda: "connection_closed" in notebook.names())
            assert notebook.names() == ["connection_opened", "message_received", "connection_closed"]

    run(main())


def test_flow_control() -> None:
    async def main() -> None:
        notebook = Notebook()
        go_on = asyncio.Event()

        async def handler(connection: Connection) -> None:
            while connection.try_send(bytes(10_000)):
                pass
            await go_on.wait()
            async for _ in connection:
                pass

        async with serving(handler, observer=notebook, max_queue=1, compression=None) as server:
            async with peer_of(server, small=True) as peer:
                await until(lambda: "writing_paused" in notebook.names())
                sending = asyncio.ensure_future(flood(peer))
                await until(lambda: "reading_paused" in notebook.names())
                assert "reading_resumed" not in notebook.names()
                assert "writing_resumed" not in notebook.names()
                while "writing_resumed" not in notebook.names():
                    await peer.frame()
                go_on.set()
                await sending
                names = notebook.names
                await until(lambda: names().count("reading_resumed") == names().count("reading_paused"))

    async def flood(peer: Any) -> None:
        for _ in range(500):
            peer.write(0x82, bytes(10_000))
            await peer.writer.drain()

    run(main())


def test_prepared_messages() -> None:
    async def main() -> None:
        notebook = Notebook()

        async def handler(connection: Connection) -> None:
            connection._send_prepared(PreparedMessage("é"))
            await connection.wait_closed()

        async with pair(handler, server={"observer": notebook}) as client:
            assert await client.recv() == "é"
        assert ("message_sent", "é".encode()) in notebook.notes

    run(main())


def test_fragments_of_a_stream() -> None:
    async def main() -> None:
        notebook = Notebook()
        go_on = asyncio.Event()

        async def handler(connection: Connection) -> None:
            await go_on.wait()
            await connection.send([b"a", b"b"])
            await connection.wait_closed()

        async with pair(handler, observer=notebook) as client:
            go_on.set()
            parts = [part async for part in client.recv_streaming()]
            assert b"".join(parts) == b"ab"
        received = [note[1] for note in notebook.notes if note[0] == "message_received"]
        assert received == parts

    run(main())


@pytest.mark.parametrize("codec", ["json", ORJSON])
def test_json_is_told_as_it_came(codec: str) -> None:
    async def main() -> None:
        notebook = Notebook()
        async with pair(json=pytest.importorskip(codec), observer=notebook) as client:
            waiting = asyncio.ensure_future(client.recv_json())
            await asyncio.sleep(0)
            await client.send_json("é")
            assert await waiting == "é"
        told = [note[1] for note in notebook.notes if note[0] == "message_received"]
        assert told in (['"é"'], ['"\\u00e9"'], ['"é"'.encode()])

    run(main())


def test_a_refused_connection_is_not_told() -> None:
    async def main() -> None:
        here, there = Notebook(), Notebook()
        async with serving(echo, observer=there, origins=["https://example.com"]) as server:
            with pytest.raises(InvalidHandshake):
                await connect(uri_of(server), observer=here)
        assert here.notes == []
        assert there.notes == []

    run(main())


@pytest.mark.parametrize("end", ["abort", "reset", "abandoned"])
def test_every_end_is_told_once(end: str) -> None:
    """Also of a connection whose queue is full, and of which nobody will ever take the rest."""

    async def main() -> None:
        notebook = Notebook()
        connections: list[Any] = []

        async def handler(connection: Connection) -> None:
            connections.append(connection)
            if end == "abandoned":
                await until(lambda: connection._paused)
                await connection.wait_closed()
            else:
                with contextlib.suppress(ConnectionClosed):
                    await echo(connection)

        async with serving(handler, observer=notebook, max_queue=1) as server:
            client = await connect(uri_of(server))
            await client.send("x" * 1000)
            if end == "abandoned":
                for _ in range(20):
                    await client.send("x" * 1000)
                await until(lambda: bool(connections) and connections[0]._paused)
                client.transport.abort()
            elif end == "abort":
                await until(lambda: bool(connections))
                connections[0].transport.abort()
            else:
                client.transport.abort()
            await client.wait_closed()
            await until(lambda: "connection_closed" in notebook.names())
        assert notebook.names().count("connection_opened") == 1
        assert notebook.names().count("connection_closed") == 1

    run(main())


def test_subclasses() -> None:
    async def main() -> None:
        notebook = Notebook()

        class Mine(ServerConnection):
            __slots__ = ("seen",)

            def __init__(self, server: Any) -> None:
                super().__init__(server)
                self.seen = 0
                self.anything = "goes"

            def _on_message(self, data: Any) -> None:
                self.seen += 1
                super()._on_message(data)

        class Client(ClientConnection):
            pass

        async def handler(connection: Any) -> None:
            assert isinstance(connection, Mine)
            assert type(connection).__name__ == "ObservedMine"
            assert connection.anything == "goes"
            await echo(connection)
            assert connection.seen == 2

        async with serving(handler, observer=notebook, create_connection=Mine) as server:
            async with connect(uri_of(server), observer=notebook, create_connection=Client) as client:
                assert isinstance(client, Client)
                for _ in range(2):
                    await client.send("x")
                    await client.recv()
        assert notebook.names().count("connection_opened") == 2
        assert notebook.names().count("connection_closed") == 2

    run(main())


def test_a_class_is_made_once_and_only_at_need() -> None:
    assert observed(ServerConnection, Notebook()) is observed(ServerConnection, Notebook())

    async def main() -> None:
        async with pair() as client:
            assert type(client) is ClientConnection

    run(main())


def test_messages_of_an_observer_without_interest_in_them_take_the_usual_way() -> None:
    """Also for a subclass, for an observer that is no Observer, and for one whose method is set on the object."""

    class Quiet(Observer):
        def __init__(self) -> None:
            self.names: list[str] = []

        def connection_opened(self, connection: Any) -> None:
            self.names.append("opened")

        def pong_received(self, connection: Any, latency: float | None) -> None:
            self.names.append("pong")

        def connection_closed(self, connection: Any) -> None:
            self.names.append("closed")

    class Duck:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: told.append(name)

    told: list[str] = []
    counting = Observer()
    counting.message_sent = lambda *_: told.append("counted")  # type: ignore[method-assign, assignment]

    async def main() -> None:
        quiet = Quiet()
        async with serving(echo) as server:
            for observer in (quiet, Duck(), counting):
                async with connect(uri_of(server), observer=observer) as client:
                    usual = all(
                        getattr(type(client), name) is getattr(ClientConnection, name)
                        for name in ("_on_message", "_put", "_send_message", "_send_prepared", "_send_fragment")
                    )
                    assert usual is (observer is quiet)
                    await client.send("x")
                    assert await client.recv() == "x"
                    await (await client.ping())
        assert quiet.names == ["opened", "pong", "closed"]

    run(main())
    assert told == [
        *("connection_opened", "message_sent", "message_received", "pong_received", "connection_closed"),
        "counted",
    ]


def test_an_observed_connection_is_let_go() -> None:
    """Without the garbage collector; in both modes."""

    async def main(on_message: Any) -> None:
        notebook = Notebook()
        async with serving(echo) as server:
            gc.collect()
            gc.disable()
            try:
                client = await connect(uri_of(server), observer=notebook, on_message=on_message)
                await client.send("x")
                await until(lambda: "message_received" in notebook.names())
                await client.close()
                reference = weakref.ref(client)
                del client
                await until(lambda: reference() is None)
            finally:
                gc.enable()

    run(main(None))
    run(main(lambda connection, message: None))


def test_the_base_class_does_nothing() -> None:
    async def main() -> None:
        async with pair(server={"observer": Observer()}, observer=Observer()) as client:
            await client.send("x")
            assert await client.recv() == "x"
            await (await client.ping())

    run(main())


def test_a_client_that_leaves_messages_unread_is_told_of_its_end() -> None:
    async def talk(connection: Connection) -> None:
        for i in range(40):
            await connection.send(str(i))

    async def main() -> None:
        notebook = Notebook()
        async with serving(talk) as server:
            async with connect(uri_of(server), observer=notebook, close_timeout=0.1) as client:
                await until(lambda: client._paused)
        assert notebook.names().count("connection_closed") == 1
        assert client.close_code == 1006  # its Close frame is behind what nobody took

    run(main())
