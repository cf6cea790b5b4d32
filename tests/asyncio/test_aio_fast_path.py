"""The awaitables of a connection, and what may be done in the middle of a read, by a callback or by a task that is
woken there.

The same tests for every transport and loop: nothing here knows which one it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aio import (
    LOOP,
    MASK,
    REACTOR,
    REQUEST,
    ROOT,
    UVLOOPS_TRANSPORTS,
    Peer,
    pair,
    peer_of,
    port_of,
    run,
    serving,
    tasks_of,
    until,
    uri_of,
)
from helpers import encode_frame, parse_frames

from wsproto_fast._codec import COMPILED
from wsproto_fast.asyncio import Connection, Server, ServerConnection, broadcast, connect, serve
from wsproto_fast.asyncio._compat import timeout
from wsproto_fast.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK

needs_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Python 3.11")
needs_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")


def frames(*payloads: bytes) -> bytes:
    return b"".join(encode_frame(0x81, payload, mask=MASK) for payload in payloads)


@contextlib.asynccontextmanager
async def handed_over(**settings: Any) -> AsyncIterator[tuple[Peer, ServerConnection]]:
    """A peer and the server's connection to it, which the test uses as its handler would."""
    connections: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def handler(ws: ServerConnection) -> None:
        connections.put_nowait(ws)
        await ws.wait_closed()

    async with serving(handler, **settings) as server, peer_of(server) as peer:
        yield peer, await connections.get()


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# The awaitables: each way to wait for one ---------------------------------------------------------------------------


async def awaited(make: Callable[[], Any]) -> Any:
    return await make()


async def in_a_task(make: Callable[[], Any]) -> Any:
    return await asyncio.create_task(make())


async def in_a_named_task(make: Callable[[], Any]) -> Any:
    task = asyncio.get_running_loop().create_task(make(), name="receives")
    await turns()
    assert "receives" in repr(task)
    assert isinstance(task.get_stack(), list)
    assert task in asyncio.all_tasks() or task.done()
    return await task


async def ensured(make: Callable[[], Any]) -> Any:
    return await asyncio.ensure_future(make())


async def gathered(make: Callable[[], Any]) -> Any:
    result, _ = await asyncio.gather(make(), asyncio.sleep(0))
    return result


async def waited(make: Callable[[], Any]) -> Any:
    done, pending = await asyncio.wait({asyncio.create_task(make())}, timeout=10)
    assert not pending
    return done.pop().result()


async def waited_for(make: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(make(), 30)


async def with_a_timeout(make: Callable[[], Any]) -> Any:
    async with timeout(30):
        return await make()


async def shielded(make: Callable[[], Any]) -> Any:
    return await asyncio.shield(make())


async def as_completed(make: Callable[[], Any]) -> Any:
    (future,) = asyncio.as_completed([make()])
    return await future


async def in_a_group(make: Callable[[], Any]) -> Any:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined]
        task = group.create_task(make())
    return task.result()


async def from_a_thread(make: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()

    def other() -> Any:
        return asyncio.run_coroutine_threadsafe(make(), loop).result(10)

    return await loop.run_in_executor(None, other)


async def eagerly(make: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    task = asyncio.Task(make(), loop=loop, eager_start=True)  # type: ignore[call-arg]
    return await task


async def by_hand(make: Callable[[], Any]) -> Any:
    """As a task would, with the generator's interface of what ``__await__`` returns."""

    class Wrapped:
        def __await__(self) -> Any:
            iterator = make().__await__()
            assert iter(iterator) is not None
            while True:
                try:
                    future = next(iterator)
                except StopIteration as exc:
                    return exc.value
                yield future

    return await Wrapped()


async def yielded_from(make: Callable[[], Any]) -> Any:
    class Wrapped:
        def __await__(self) -> Any:
            return (yield from make().__await__())

    return await Wrapped()


WAYS = [
    awaited,
    in_a_task,
    in_a_named_task,
    ensured,
    gathered,
    waited,
    waited_for,
    with_a_timeout,
    shielded,
    as_completed,
    pytest.param(in_a_group, marks=needs_3_11),
    from_a_thread,
    pytest.param(eagerly, marks=needs_3_12),
    by_hand,
    yielded_from,
]


@pytest.mark.parametrize("when", ["before", "after", "many"])
@pytest.mark.parametrize("way", WAYS)
def test_recv_in_each_way(way: Any, when: str) -> None:
    """Messages that are there before it is awaited, that come one by one, or three in a read."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            if when == "before":
                peer.writer.write(frames(b"0", b"1", b"2"))
                await until(lambda: len(ws._queue) == 3)
                assert [await way(ws.recv) for _ in range(3)] == ["0", "1", "2"]
            elif when == "many":
                first = asyncio.ensure_future(way(ws.recv))
                await turns()
                peer.writer.write(frames(b"0", b"1", b"2"))
                assert [await first, await way(ws.recv), await way(ws.__anext__)] == ["0", "1", "2"]
            else:
                for number in range(3):
                    waiting = asyncio.ensure_future(way(ws.recv))
                    await turns()
                    peer.writer.write(frames(b"%d" % number))
                    assert await waiting == str(number)
            assert ws._receiver is None

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_send_in_each_way(way: Any) -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            for number in range(3):
                assert await way(lambda number=number: ws.send(f"{number}")) is None
            assert [await peer.frame() for _ in range(3)] == [(0x81, b"0"), (0x81, b"1"), (0x81, b"2")]

    run(main())


@pytest.mark.parametrize("way", WAYS)
def test_the_end_in_each_way(way: Any) -> None:
    """What raises, raises so in every way; before, while and after it is waited for."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            waiting = asyncio.ensure_future(way(ws.recv))
            iterating = asyncio.ensure_future(turns())
            await turns()
            peer.write(0x88, (1000).to_bytes(2, "big"))
            expected: Any = ConnectionClosedOK
            if way is in_a_group:
                expected = ExceptionGroup  # type: ignore[name-defined]  # noqa: F821
            with pytest.raises(expected):
                await waiting
            await iterating
            with pytest.raises(expected):
                await way(ws.recv)
            await ws.wait_closed()
            with pytest.raises(expected):
                await way(lambda: ws.send("late"))
            if way is awaited:
                with pytest.raises(StopAsyncIteration):
                    await way(ws.__anext__)

    run(main())


@needs_3_12
def test_eager_tasks() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with pair() as ws:
            for number in range(10):
                assert await asyncio.create_task(ws.send(str(number))) is None
                assert await asyncio.create_task(ws.recv()) == str(number)
            both = [asyncio.create_task(ws.recv()), asyncio.create_task(ws.send("x"))]
            assert await asyncio.gather(*both) == ["x", None]

    run(main())


def test_iteration_is_left_and_gone_on_with() -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            peer.writer.write(frames(*[b"%d" % number for number in range(9)]))
            seen = []
            async for message in ws:
                seen.append(message)
                if len(seen) == 2:
                    break
            seen.append(await anext(ws))  # type: ignore[arg-type]
            seen.append(await ws.recv())
            async for message in ws:
                seen.append(message)
                if message == "8":
                    break
            assert seen == [str(number) for number in range(9)]
            waiting = asyncio.ensure_future(anext(ws, "nothing"))  # type: ignore[arg-type]
            await turns()
            peer.write(0x88, (1000).to_bytes(2, "big"))
            assert await waiting == "nothing"
            assert [message async for message in ws] == []

    run(main())


# The awaitables: what they are --------------------------------------------------------------------------------------


def test_coroutines_to_the_world() -> None:
    async def main() -> None:
        async with pair() as ws:
            for coroutine in (ws.recv(), ws.send("x"), ws.__anext__()):
                assert inspect.isawaitable(coroutine)
                assert isinstance(coroutine, Coroutine)
                assert isinstance(coroutine, Awaitable)
                assert asyncio.iscoroutine(coroutine)
                assert not asyncio.isfuture(coroutine)
                coroutine.close()
            assert not hasattr(ws.recv, "__await__")

    run(main())


@pytest.mark.parametrize("name", ["recv", "send"])
def test_awaited_twice(name: str) -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            peer.writer.write(frames(b"0", b"1"))
            coroutine = ws.recv() if name == "recv" else ws.send("sent")
            await coroutine
            for _ in range(2):
                with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                    await coroutine
            assert await ws.recv() == ("1" if name == "recv" else "0")
            await ws.send("end")
            if name == "send":
                assert await peer.frame() == (0x81, b"sent")
            assert await peer.frame() == (0x81, b"end")

    run(main())


def test_two_tasks_with_one_coroutine() -> None:
    """One of them has the message, the other an error; nobody waits for ever."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            coroutine = ws.recv()
            tasks = [asyncio.create_task(coroutine) for _ in range(2)]
            await turns()
            peer.writer.write(frames(b"0", b"1"))
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert list(map(str, results)) == ["0", "coroutine is being awaited already"]
            assert await ws.recv() == "1"

    run(main())


def test_who_awaits_it_a_second_time_does_not_disturb_the_first() -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            coroutine = ws.recv()
            first = asyncio.create_task(coroutine)
            await turns()
            with pytest.raises(RuntimeError, match="being awaited already"):
                await asyncio.wait_for(coroutine, 0.01)
            with pytest.raises(ConcurrencyError):
                await ws.recv()
            peer.writer.write(frames(b"0", b"1"))
            assert await first == "0"
            assert await ws.recv() == "1"

    run(main())


@pytest.mark.parametrize("name", ["recv", "send", "__anext__"])
def test_never_awaited(name: str) -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            peer.writer.write(frames(b"0"))
            with pytest.warns(RuntimeWarning, match=r"coroutine 'Connection\.\w+' was never awaited"):
                getattr(ws, name)(*["unsent"] * (name == "send"))
            assert await ws.recv() == "0"
            await ws.send("sent")
            assert await peer.frame() == (0x81, b"sent")

    run(main())


def test_errors_wait_until_it_is_awaited() -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            coroutine: Any = ws.send(object())  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await coroutine
            with pytest.raises(UnicodeEncodeError):
                await ws.send("\ud800")
            waiting = asyncio.ensure_future(ws.recv())
            await turns()
            second = ws.recv()
            with pytest.raises(ConcurrencyError):
                await second
            with pytest.raises(RuntimeError, match="already awaited"):
                await second
            peer.writer.write(frames(b"0"))
            assert await waiting == "0"

    run(main())


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["recv", "send"])
def test_closed_and_thrown_at_before_it_begins(name: str) -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            peer.writer.write(frames(b"0"))

            def make() -> Any:
                return ws.recv() if name == "recv" else ws.send("unsent")

            coroutine = make()
            coroutine.close()
            coroutine.close()
            with pytest.raises(RuntimeError, match="already awaited"):
                await coroutine
            for arguments in ((Stop(),), (Stop,), (Stop, "text"), (Stop, Stop("text"), None)):
                coroutine = make()
                with pytest.raises(Stop) as caught:
                    coroutine.throw(*arguments)
                assert str(caught.value) == ("text" if len(arguments) > 1 else "")
                with pytest.raises(RuntimeError, match="already awaited"):
                    await coroutine
            assert await ws.recv() == "0"
            await ws.send("sent")
            assert await peer.frame() == (0x81, b"sent")

    run(main())


@pytest.mark.parametrize("how", ["close", "throw"])
def test_closed_and_thrown_at_while_it_waits(how: str) -> None:
    """Driven by nobody's task: afterwards another may receive, and has everything."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            coroutine: Any = ws.recv()
            future = coroutine.send(None)
            assert asyncio.isfuture(future)
            with pytest.raises(ConcurrencyError):
                await ws.recv()
            if how == "close":
                coroutine.close()
            else:
                with pytest.raises(Stop):
                    coroutine.throw(Stop())
            waiting = asyncio.ensure_future(ws.recv())
            await turns()
            peer.writer.write(frames(b"0", b"1"))
            assert await waiting == "0"
            assert await ws.recv() == "1"

    run(main())


@pytest.mark.parametrize("name", ["recv", "send"])
def test_closed_and_thrown_at_when_it_is_over(name: str) -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            peer.writer.write(frames(b"0", b"1"))
            coroutine: Any = ws.recv() if name == "recv" else ws.send("sent")
            await coroutine
            coroutine.close()
            with pytest.raises((Stop, RuntimeError)):
                coroutine.throw(Stop())
            assert await ws.recv() == ("1" if name == "recv" else "0")

    run(main())


def test_thrown_at_while_it_joins_fragments() -> None:
    """A message of which ``recv_streaming`` had asked for the frames; what waits has a coroutine of its own."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            streaming = ws.recv_streaming()
            first = asyncio.ensure_future(streaming.__anext__())
            await turns()
            peer.write(0x01, b"a")
            await until(lambda: bool(ws._queue) or first.done())
            first.cancel()
            await asyncio.wait([first])
            if first.cancelled():
                for how in ("cancel", "throw", "close"):
                    coroutine: Any = ws.recv()
                    if how == "cancel":
                        task = asyncio.ensure_future(coroutine)
                        await turns()
                        task.cancel()
                        await asyncio.wait([task])
                        assert task.cancelled()
                        continue
                    coroutine.send(None)
                    if how == "throw":
                        with pytest.raises(asyncio.CancelledError):
                            coroutine.throw(asyncio.CancelledError())
                    else:
                        break
                task = asyncio.ensure_future(coroutine)
                peer.write(0x80, b"b")
                assert await task == "ab"

    run(main())


# The task that is woken ---------------------------------------------------------------------------------------------

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody's")


def test_a_woken_task_has_its_own_context_and_is_the_current_one() -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def handler(ws: ServerConnection) -> None:
            VARIABLE.set(f"of {ws.remote_address[1]}")
            mine = asyncio.current_task()
            async for message in ws:
                seen.append((VARIABLE.get(), asyncio.current_task() is mine, mine in asyncio.all_tasks()))
                await ws.send(message)
                VARIABLE.set(VARIABLE.get() + "!")

        VARIABLE.set("the main task's")
        async with serving(handler) as server, connect(uri_of(server)) as a, connect(uri_of(server)) as b:
            for ws in (a, b, a):
                await ws.send("hello")
                await ws.recv()
                assert VARIABLE.get() == "the main task's"
        ports = [ws.local_address[1] for ws in (a, b)]
        expected = [f"of {ports[0]}", f"of {ports[1]}", f"of {ports[0]}!"]
        assert seen == [(name, True, True) for name in expected]
        assert asyncio.current_task() is not None

    run(main())


def test_no_task_is_current_in_a_callback_or_after_a_task_was_woken() -> None:
    async def main() -> None:
        seen: list[Any] = []

        def on_message(ws: Connection, message: Any) -> None:
            seen.append(asyncio.current_task())
            ws.try_send(message)

        async with serving(None, on_message=on_message) as server:  # type: ignore[arg-type]
            async with connect(uri_of(server)) as ws:
                for _ in range(3):
                    await ws.send("x")
                    await ws.recv()  # woken by the reply
        assert seen == [None] * 3

    run(main())


def test_a_coroutine_that_no_task_drives() -> None:
    """Then there is nothing to call back, and its future is done as any other."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            coroutine = ws.recv()
            waiter = coroutine.send(None)
            peer.write(0x81, b"hello")
            await until(waiter.done)
            with pytest.raises(StopIteration) as caught:
                coroutine.send(None)
            assert caught.value.value == "hello"

    run(main())


@pytest.mark.skipif(UVLOOPS_TRANSPORTS, reason="uvloop's have the context of their server")
def test_what_a_callback_sets_is_not_seen_by_other_connections() -> None:
    """As with asyncio's transports, each of which has a context of its own."""

    async def main() -> None:
        seen: list[str] = []

        def on_message(ws: Connection, message: Any) -> None:
            seen.append(VARIABLE.get())
            VARIABLE.set(message)
            ws.try_send(message)

        async def handler(ws: ServerConnection) -> None:
            seen.append(VARIABLE.get())
            await ws.wait_closed()

        async with serving(handler, on_message=on_message) as server:
            for name in ("a", "b"):
                async with connect(uri_of(server)) as ws:
                    await ws.send(name)
                    assert await ws.recv() == name
        assert seen == ["nobody's"] * 4

    run(main())


def test_in_debug_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        async with pair() as ws:
            for number in range(20):
                await ws.send(f"{number}")
                task = asyncio.create_task(ws.recv())
                assert await task == str(number)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ws.recv(), 0.001)
            await asyncio.gather(*[ws.send(f"{number}") for number in range(50)])
            assert [await ws.recv() for _ in range(50)] == [str(number) for number in range(50)]

    run(main())


def test_an_exception_of_a_woken_handler_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            async for message in ws:
                await ws.send(message)
                if message == "1":
                    raise Stop("of the handler")

        async with serving(handler) as server, peer_of(server) as peer:
            await turns()
            peer.writer.write(frames(b"0", b"1", b"2"))
            assert [await peer.frame() for _ in range(2)] == [(0x81, b"0"), (0x81, b"1")]
            await peer.expect_close(1011)

    run(main())
    assert [record.message for record in caplog.records] == ["connection handler failed"]
    assert "of the handler" in caplog.text


# Cancelled around the delivery --------------------------------------------------------------------------------------


async def numbers_of(ws: Connection, seen: list[int], stop: int) -> None:
    """Receives until it is cancelled, or has this number."""
    while not seen or seen[-1] != stop:
        seen.append(int(await ws.recv()))


@pytest.mark.parametrize("when", ["before", "same turn, before", "same turn, after", "after"])
@pytest.mark.parametrize("count", [1, 3])
def test_cancelled_around_the_delivery(when: str, count: int) -> None:
    """Whatever it got, the next one gets what follows."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            sock: socket.socket = peer.writer.get_extra_info("socket")
            seen: list[int] = []
            for number in range(0, 60, count):
                task = asyncio.create_task(numbers_of(ws, seen, number + count - 1))
                await turns(2)
                data = frames(*[b"%d" % (number + i) for i in range(count)])
                if when == "before":
                    task.cancel()
                    os.write(sock.fileno(), data)
                elif when == "same turn, before":
                    os.write(sock.fileno(), data)
                    task.cancel()  # it is told in the next turn, in which the message is read, too
                elif when == "same turn, after":
                    os.write(sock.fileno(), data)
                    asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    os.write(sock.fileno(), data)
                    await until(lambda task=task: task.done())  # type: ignore[misc]
                    task.cancel()
                await asyncio.wait([task])
                await numbers_of(ws, seen, number + count - 1)
            assert seen == list(range(60))

    run(main())


@pytest.mark.parametrize("receives", ["recv", "async for", "wait_for"])
def test_cancelled_by_a_task_that_is_woken_in_the_same_tick(receives: str) -> None:
    """Both have events at once; each cancels the other as soon as it has a message, and all go on afterwards."""

    async def main() -> None:
        rounds = 50
        seen: dict[int, list[str]] = {0: [], 1: []}
        tasks: dict[int, Any] = {}
        cancelled = 0
        connections: list[ServerConnection] = []

        async def next_message(ws: Connection) -> Any:
            if receives == "wait_for":
                return await asyncio.wait_for(ws.recv(), 30)
            if receives == "async for":
                async for message in ws:
                    return message
            return await ws.recv()

        async def receive(index: int) -> None:
            nonlocal cancelled
            ws = connections[index]
            while len(seen[index]) < 2 * rounds:
                try:
                    message = await next_message(ws)
                except asyncio.CancelledError:
                    cancelled += 1
                    continue
                seen[index].append(message)
                if not tasks[1 - index].done():
                    tasks[1 - index].cancel()

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            await ws.wait_closed()

        async with serving(handler) as server, peer_of(server) as a, peer_of(server) as b:
            await until(lambda: len(connections) == 2)
            connections.sort(key=lambda ws: ws.remote_address[1] != a.writer.get_extra_info("sockname")[1])
            for index in (0, 1):
                tasks[index] = asyncio.create_task(receive(index))
            await turns()
            for number in range(rounds):
                for peer in (a, b):  # in one turn of the loop: one batch of its selector
                    data = frames(b"%d" % (2 * number), b"%d" % (2 * number + 1))
                    os.write(peer.writer.get_extra_info("socket").fileno(), data)
                await until(lambda wanted=2 * number + 2: all(len(each) >= wanted for each in seen.values()))
            await asyncio.wait(tasks.values())
        assert seen == {index: [str(number) for number in range(2 * rounds)] for index in (0, 1)}
        assert cancelled

    run(main())


def test_a_woken_task_cancels_itself() -> None:
    """It goes on until it waits, as every task; what it took is echoed, and the rest is for the next one."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            seen: list[str] = []

            async def receive() -> None:
                async for message in ws:
                    seen.append(message)
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    await asyncio.sleep(0)

            for _ in range(3):
                task = asyncio.create_task(receive())
                await turns()
                if not seen:
                    peer.writer.write(frames(b"0", b"1", b"2"))
                await asyncio.wait([task])
                assert task.cancelled()
            assert seen == ["0", "1", "2"]

    run(main())


# In the middle of a read --------------------------------------------------------------------------------------------

BIG = "x" * 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


class Scene:
    """A server, and clients of ours: the actor, whose messages come in one read, and others that are to notice nothing.

    ``act(scene, ws)`` is called when the server's connection to the actor has answered message "1" of "0" to "4".
    What it returns is awaited, in a callback's case by a task.
    """

    def __init__(self, mode: str, act: Callable[[Scene, ServerConnection], Any]) -> None:
        self.mode = mode
        self.act = act
        self.server: Server
        self.uri = ""
        #: The server's connections, by their paths, and the tasks of their handlers.
        self.connections: dict[str, ServerConnection] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.started: list[asyncio.Future[Any]] = []

    async def handler(self, ws: ServerConnection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.admit(ws, task)
        if self.mode == "callback":
            await ws.wait_closed()
            return
        async for message in ws:
            if message == "end":
                return
            await ws.send(message)
            if message == "1" and self.connections["/actor"] is ws:
                result = self.act(self, ws)
                if result is not None:
                    await result

    def admit(self, ws: ServerConnection, task: asyncio.Task[Any]) -> None:
        assert ws.request is not None
        self.connections[ws.request.path] = ws
        self.tasks[ws.request.path] = task

    def on_message(self, ws: ServerConnection, message: str) -> None:
        if message == "end":
            self.start(ws.close())
            return
        ws.try_send(message)
        if message == "1" and self.connections["/actor"] is ws:
            result = self.act(self, ws)
            if result is not None:
                self.start(result)

    def start(self, awaitable: Any) -> None:
        self.started.append(asyncio.ensure_future(awaitable))

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        settings: dict[str, Any] = {"on_message": self.on_message} if self.mode == "callback" else {}
        async with serving(self.handler, close_timeout=2, **settings) as self.server:
            self.uri = uri_of(self.server, "")
            yield
            with contextlib.suppress(ConnectionClosed):
                await asyncio.gather(*self.started)

    async def play(self) -> tuple[list[str], int | None, list[str]]:
        """What the actor's client got and its close code, and what the third one got."""
        async with self.serving():
            async with connect(self.uri + "/witness") as witness, connect(self.uri + "/third") as third:
                others = asyncio.create_task(witnessed(witness)), asyncio.create_task(received(third))
                actor = await connect(self.uri + "/actor", max_queue=None)
                await until(lambda: len(self.connections) == 3)
                await turns()
                with actor.cork():
                    for message in (*"01234", "end"):
                        actor.try_send(message)
                got = await received(actor)
                await actor.close()
                assert await others[0]
                await turns()
                await third.close()
                return got, actor.close_code, await others[1]


async def witnessed(ws: Connection) -> int:
    """How many messages were echoed, in order, while others acted; those of a server that closes may be fewer."""
    number = 0
    with contextlib.suppress(ConnectionClosed):
        for number in range(1, 100):
            await ws.send(f"w{number}")
            assert await ws.recv() == f"w{number}"
    return number


async def received(ws: Connection) -> list[str]:
    messages: list[Any] = []
    with contextlib.suppress(ConnectionClosed):
        async for message in ws:
            messages.append(message)
    return messages


async def pinged(scene: Scene, ws: ServerConnection) -> None:
    latency = await (await ws.ping())
    assert latency > 0


async def connected(scene: Scene, ws: ServerConnection) -> None:
    async with connect(scene.uri + "/new") as client:
        await client.send("hello")
        assert await client.recv() == "hello"


async def cancelled(scene: Scene, ws: ServerConnection) -> None:
    scene.tasks["/actor"].cancel()
    await asyncio.sleep(0)


async def told_the_third(scene: Scene, ws: ServerConnection) -> None:
    """And the third tells the witness's, and that one us: all of them are woken."""
    for number in range(3):
        await scene.connections["/third"].send(f"to the third {number}")
        broadcast([scene.connections["/third"]], f"to all {number}")


def pause_and_resume(scene: Scene, ws: ServerConnection) -> None:
    ws.transport.pause_reading()
    ws.transport.resume_reading()


def raise_stop(scene: Scene, ws: ServerConnection) -> None:
    raise Stop


def fill(scene: Scene, ws: ServerConnection) -> None:
    with ws.cork():
        assert ws.try_send("a")
        assert ws.try_send("b")


async def lets_others_run(scene: Scene, ws: ServerConnection) -> None:
    await turns(5)


def collect(scene: Scene, ws: ServerConnection) -> None:
    gc.collect()


def third(scene: Scene) -> ServerConnection:
    return scene.connections["/third"]


ALL = [*"01234"]
TWO = [*"01"]
#: What it does; what the actor's client gets if a task does it, or a callback; its close code; what the third gets.
ACTIONS: dict[str, tuple[Callable[[Scene, ServerConnection], Any], Any, Any, int, list[str]]] = {
    "send": (lambda scene, ws: ws.send("x"), [*"01x234"], [*ALL, "x"], 1000, []),
    "send 1 MiB": (lambda scene, ws: ws.send(BIG), [*"01", BIG, *"234"], [*ALL, BIG], 1000, []),
    "try_send": (lambda scene, ws: ws.try_send("x") and None, [*"01x234"], [*"01x234"], 1000, []),
    "fragments": (lambda scene, ws: ws.send(["a", "b"]), [*"01", "ab", *"234"], [*ALL, "ab"], 1000, []),
    "cork": (fill, [*"01ab234"], [*"01ab234"], 1000, []),
    "close": (lambda scene, ws: ws.close(4001), TWO, ALL, 4001, []),
    "abort": (lambda scene, ws: ws.transport.abort(), None, None, 1006, []),
    "close the transport": (lambda scene, ws: ws.transport.close(), None, None, 1006, []),
    "raise": (raise_stop, TWO, TWO, 1011, []),
    "cancel itself": (cancelled, TWO, None, 1011, []),
    "cancel the third": (lambda scene, ws: scene.tasks["/third"].cancel() and None, ALL, ALL, 1000, []),
    "abort the third": (lambda scene, ws: third(scene).transport.abort(), ALL, ALL, 1000, []),
    "close the third": (lambda scene, ws: third(scene).close(4002), ALL, ALL, 1000, []),
    "tell the third": (
        *(told_the_third, ALL, ALL, 1000),
        [f"to {whom} {number}" for number in range(3) for whom in ("the third", "all")],
    ),
    "pause and resume": (pause_and_resume, ALL, ALL, 1000, []),
    "close the server": (lambda scene, ws: scene.server.close(), TWO, TWO, 1001, []),
    "ping": (pinged, ALL, ALL, 1000, []),
    "connect": (connected, ALL, ALL, 1000, []),
    "let others run": (lets_others_run, ALL, ALL, 1000, []),
    "collect garbage": (collect, ALL, ALL, 1000, []),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("mode", ["callback", "task"])
def test_in_the_middle_of_a_read(mode: str, action: str, caplog: pytest.LogCaptureFixture) -> None:
    act, by_task, by_callback, code, third_gets = ACTIONS[action]
    expected = by_task if mode == "task" else by_callback
    before: list[int] = []

    async def main() -> None:
        async with serving():  # what the loop opens once
            before.append(descriptors())
        scene = Scene(mode, act)
        got, close_code, third_got = await scene.play()
        await until(lambda: not scene.server._alive)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        if expected is None:
            assert ALL[: len(got)] == got
        else:
            assert sorted(got) == sorted(expected)  # what a callback's task sends comes when it comes
            assert [message for message in got if message in ALL] == [each for each in expected if each in ALL]
            if mode == "task":
                assert got == expected
        if action != "cancel itself" or mode == "task":  # else its message "end" may close it before
            assert close_code == code
        assert third_got == third_gets
        await until(lambda: descriptors() < before[0])

    run(main())
    assert ("handler failed" in caplog.text) == (action == "raise")


@pytest.mark.parametrize("mode", ["callback", "task"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, "stop"])
def test_the_loop_goes_on_after_it_was_left(mode: str, error: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Left in the middle of a read of three messages, with events of others still to be told."""
    raised: list[Any] = []

    def act(ws: ServerConnection) -> None:
        if not raised:
            raised.append(error)
            if error == "stop":
                asyncio.get_running_loop().stop()
            else:
                raise error

    def on_message(ws: ServerConnection, message: str) -> None:
        ws.try_send(message)
        if message == "1":
            act(ws)

    async def handler(ws: ServerConnection) -> None:
        if mode == "callback":
            await ws.wait_closed()
            return
        async for message in ws:
            await ws.send(message)
            if message == "1":
                act(ws)

    settings: Any = {"on_message": on_message} if mode == "callback" else {}
    loop = new_loop()
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        server = loop.run_until_complete(start(serve(handler, "127.0.0.1", 0, **settings)))
        actor, witness = (loop.run_until_complete(start(connect(uri_of(server)))) for _ in range(2))

        async def tell() -> None:
            await turns(10)
            with actor.cork():
                for message in "012":
                    actor.try_send(message)
            await witness.send("w")

        telling = loop.create_task(tell())
        if error == "stop":
            loop.run_forever()
        else:
            with pytest.raises(error):
                loop.run_forever()
        assert raised

        async def rest() -> list[Any]:
            await telling
            await witness.send("v")
            seen = [await witness.recv(), await witness.recv()]
            seen += [await actor.recv() for _ in range(3 if error == "stop" else 2)]
            async with connect(uri_of(server)) as new:
                await new.send("new")
                seen.append(await new.recv())
            return seen

        expected = ["w", "v", *("012" if error == "stop" else "01"), "new"]
        assert loop.run_until_complete(asyncio.wait_for(rest(), 30)) == expected
        loop.run_until_complete(asyncio.wait_for(ended(server, actor, witness), 30))
        assert not server._alive
    finally:
        loop.run_until_complete(turns(5))
        loop.close()
        gc.collect()
    assert not [each for each in complaints if type(each.get("exception")) is not error]


@pytest.mark.parametrize("mode", ["callback", "task"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_was_sent_before_the_loop_was_left_leaves(mode: str, error: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Replies of a read wait for its end, which does not come."""

    def on_message(ws: ServerConnection, message: str) -> None:
        ws.try_send(message)
        if message == "1":
            raise error

    async def handler(ws: ServerConnection) -> None:
        if mode == "callback":
            await ws.wait_closed()
            return
        async for message in ws:
            await ws.send(message)
            if message == "1":
                raise error

    settings: Any = {"on_message": on_message} if mode == "callback" else {}
    loop = new_loop()
    loop.set_exception_handler(lambda _, context: None)
    try:
        server = loop.run_until_complete(start(serve(handler, "127.0.0.1", 0, **settings)))
        client = loop.run_until_complete(start(connect(uri_of(server))))
        with client.cork():
            for message in "012":
                client.try_send(message)
        with pytest.raises(error):
            loop.run_forever()

        async def rest() -> list[Any]:
            return [await asyncio.wait_for(client.recv(), 30) for _ in range(2)]

        assert loop.run_until_complete(rest()) == ["0", "1"]
        loop.run_until_complete(asyncio.wait_for(ended(server, client), 30))
    finally:
        loop.run_until_complete(turns(5))
        loop.close()
        gc.collect()


def new_loop() -> asyncio.AbstractEventLoop:
    if LOOP != "uvloop":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def start(awaitable: Any) -> Any:
    return await awaitable


async def ended(server: Server, *clients: Connection) -> None:
    for client in clients:
        await client.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("mode", ["callback", "task"])
@pytest.mark.parametrize("how", ["abort", "close the transport", "close", "cancel", "fail"])
def test_whoever_is_ended_has_events_in_the_same_batch(how: str, mode: str) -> None:
    """Each of ten connections ends the others; whose descriptor it had, has none of its events."""

    async def main() -> None:
        connections: list[ServerConnection] = []
        firsts: list[ServerConnection] = []
        tasks: dict[ServerConnection, asyncio.Task[Any]] = {}
        closing: list[Any] = []

        def end_others(first: ServerConnection) -> None:
            if firsts:
                return
            firsts.append(first)
            for ws in connections:
                if ws is first:
                    continue
                if how == "abort":
                    ws.transport.abort()
                elif how == "close the transport":
                    ws.transport.close()
                elif how == "close":
                    closing.append(asyncio.ensure_future(ws.close()))
                elif how == "cancel":
                    tasks[ws].cancel()
                else:
                    ws._fail(1008, "others first")

        def on_message(ws: ServerConnection, message: str) -> None:
            if ws._engine.is_open:
                ws.try_send(message)
            end_others(ws)

        async def handler(ws: ServerConnection) -> None:
            connections.append(ws)
            tasks[ws] = asyncio.current_task()  # type: ignore[assignment]
            if mode == "callback":
                await ws.wait_closed()
                return
            async for message in ws:
                await ws.send(message)
                end_others(ws)

        settings: Any = {"on_message": on_message} if mode == "callback" else {}
        async with serving(handler, close_timeout=1, **settings) as server:
            for _ in range(5):
                async with contextlib.AsyncExitStack() as stack:
                    peers = [await stack.enter_async_context(peer_of(server)) for _ in range(10)]
                    await until(lambda: len(connections) == 10)
                    for peer in peers:
                        os.write(peer.writer.get_extra_info("socket").fileno(), frames(b"0", b"1"))
                    await until(lambda: bool(firsts))
                    port = firsts[0].remote_address[1]
                    for peer in peers:
                        if peer.writer.get_extra_info("sockname")[1] == port:
                            assert [await peer.frame() for _ in range(2)] == [(0x81, b"0"), (0x81, b"1")]
                            peer.write(0x88, (1000).to_bytes(2, "big"))
                            await peer.expect_close(1000)
                        else:
                            with contextlib.suppress(ConnectionError, RuntimeError):  # which is uvloop's
                                peer.write(0x88, (1000).to_bytes(2, "big"))
                                assert parse_frames(await peer.reader.read()) is not None
                    async with peer_of(server) as another:
                        another.writer.write(frames(b"another"))
                        assert await another.frame() == (0x81, b"another")
                    await asyncio.gather(*closing)
                await until(lambda: not server._alive)
                for each in (connections, firsts, tasks, closing):
                    each.clear()

    run(main())


@pytest.mark.skipif(UVLOOPS_TRANSPORTS, reason="uvloop's hold the protocol that they had")
@pytest.mark.parametrize("how", ["task", "callback"])
def test_a_connection_that_is_gone_when_its_task_has_run(how: str) -> None:
    """Its channel goes on with another protocol, and nobody else has the connection."""

    class Heir(asyncio.Protocol):
        def __init__(self) -> None:
            self.data = b""

        def data_received(self, data: bytes) -> None:
            self.data += data

    async def main() -> None:
        heir = Heir()
        held: list[Any] = []

        async def handler(ws: ServerConnection) -> None:
            await ws.send(await ws.recv())
            await ws.wait_closed()

        def hand_over(ws: Connection, message: Any) -> None:
            ws.transport.set_protocol(heir)
            held[1:] = [ws.transport]

        async def receive(ws: Connection) -> None:
            hand_over(ws, await ws.recv())

        async with serving(handler) as server:
            settings: Any = {"on_message": hand_over} if how == "callback" else {}
            # No timer has it either: no keepalive, and no compressor to be let go when it is idle.
            ws = await connect(uri_of(server), ping_interval=None, compression=None, **settings)
            gone = weakref.ref(ws)
            await ws.send("x")
            held.append(asyncio.create_task(receive(ws)) if how == "task" else None)
            del ws
            await until(lambda: len(held) == 2)
            if how == "task":
                await held[0]
            held[0] = None
            if how == "task":
                await until(lambda: gone() is None)
            for connection in server._alive:
                connection.try_send("for the heir")
            await until(lambda: bool(heir.data))
            assert heir.data == b"\x81\x0cfor the heir"
            held.pop().abort()
            await turns(5)

    run(main())


@pytest.mark.parametrize("how", ["returns", "closes", "raises"])
def test_the_last_reference_goes_while_its_task_is_woken(how: str) -> None:
    """A client of which only its task knows: gone with it once the connection has ended, without the collector."""

    async def main() -> None:
        async def receive(ws: Connection) -> None:
            await ws.send("0")
            await ws.recv()
            if how == "closes":
                await ws.close()
            elif how == "raises":
                raise Stop

        async with serving() as server:
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    ws = await connect(uri_of(server), ping_interval=None)
                    gone = weakref.ref(ws)
                    transport: Any = ws.transport
                    task = asyncio.create_task(receive(ws))
                    del ws
                    await asyncio.wait([task])
                    if how == "raises":
                        assert isinstance(task.exception(), Stop)
                    del task
                    transport.abort()
                    del transport
                    await until(lambda gone=gone: gone() is None)  # type: ignore[misc]
            finally:
                gc.enable()

    run(main())


# Joined, and not kept -----------------------------------------------------------------------------------------------


class Counting:
    """Counts what is handed to a transport. The rest is the transport's."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def writelines(self, chunks: Any) -> None:
        self.writes += 1
        self._transport.writelines(chunks)


def counting(ws: Any) -> Counting:
    transport = ws.transport = Counting(ws.transport)
    return transport


@pytest.mark.parametrize("how", ["async for", "recv", "create_task", "callback", "try_send"])
def test_replies_to_one_read_leave_in_one_write(how: str) -> None:
    async def main() -> None:
        counted: list[Counting] = []

        async def handler(ws: ServerConnection) -> None:
            counted.append(counting(ws))
            if how == "async for":
                async for message in ws:
                    await ws.send(message)
            elif how == "try_send":
                async for message in ws:
                    ws.try_send(message)
            elif how == "callback":
                await ws.wait_closed()
            else:
                while True:
                    await ws.send(await (ws.recv() if how == "recv" else asyncio.create_task(ws.recv())))

        settings: Any = {"on_message": lambda ws, message: ws.try_send(message)} if how == "callback" else {}
        async with serving(handler, max_queue=None, **settings) as server, peer_of(server) as peer:
            await until(lambda: bool(counted))
            await turns()
            for number in range(1, 21):
                peer.writer.write(frames(*[b"%d" % i for i in range(32)]))
                for i in range(32):
                    assert await peer.frame() == (0x81, b"%d" % i)
                # A task that is made for each message lets the loop turn between two of them.
                assert counted[0].writes <= number * (32 if how == "create_task" else 1)
            assert counted[0].writes >= 20

    run(main())


STRACED = """
import asyncio, sys
sys.path[:0] = [{tests!r}, {aio!r}]
from aio import uri_of
from wsproto_fast.asyncio import serve

async def main():
    over = asyncio.Event()
    async def handler(ws):
        async for message in ws:
            await ws.send(message)
        over.set()
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        print(uri_of(server), flush=True)
        await over.wait()

asyncio.run(main())
"""


@pytest.mark.external
@pytest.mark.skipif(not REACTOR, reason="is about the reactor")
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_one_send_for_each_recv(tmp_path: Path) -> None:
    """As the kernel sees it: a client with 32 messages in flight."""
    if not may_trace():
        pytest.skip("strace may not trace")
    report = tmp_path / "calls"
    calls = "sendto,sendmsg,recvfrom,write,writev,read"
    program = STRACED.format(tests=str(ROOT / "tests"), aio=str(ROOT / "tests" / "asyncio"))
    command = ["strace", "-f", "-e", f"trace={calls}", "-o", str(report), sys.executable, "-c", program]
    rounds, flight = 200, 32
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1].strip("/")))) as sock:
            sock.sendall(REQUEST + b"\r\n")
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65536)
            for _ in range(rounds):
                sock.sendall(frames(*[b"x" * 100] * flight))
                size = 0
                while size < 102 * flight:
                    size += len(sock.recv(65536))
            sock.sendall(encode_frame(0x88, (1000).to_bytes(2, "big"), mask=MASK))
            while sock.recv(65536):
                pass
        assert process.wait(10) == 0
    lines = report.read_text().splitlines()
    sends = [line for line in lines if "sendto(" in line or "sendmsg(" in line]
    receives = [line for line in lines if "recvfrom(" in line and "EAGAIN" not in line]
    assert rounds <= len(sends) <= rounds + 5  # and the answer, and the Close frame
    assert len(sends) <= len(receives)


def may_trace() -> bool:
    return subprocess.run(["strace", "-o", os.devnull, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize(
    "how", ["async for", "recv", "create_task", "from a timer", "later in the turn", "after joined"]
)
def test_a_lone_message_leaves_at_once(how: str) -> None:
    """The next line of whoever sends it keeps the loop until the peer has it: a thread with a plain socket."""

    async def main() -> None:
        arrived = threading.Event()
        gone = threading.Event()
        results: list[bool] = []

        def other(port: int) -> None:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(REQUEST + b"\r\n")
                data = b""
                while b"\r\n\r\n" not in data:
                    data += sock.recv(65536)
                if how == "after joined":
                    sock.sendall(frames(b"a", b"b", b"c"))
                    while not data.endswith(b"\x81\x01c"):
                        data += sock.recv(65536)
                sock.sendall(frames(b"hello"))
                while not data.endswith(b"lone"):
                    data += sock.recv(65536)
                arrived.set()
                gone.wait(10)

        async def say(ws: ServerConnection) -> None:
            await ws.send("lone")
            results.append(arrived.wait(5))

        async def handler(ws: ServerConnection) -> None:
            if how == "async for":
                async for _ in ws:
                    await say(ws)
                    return
            if how == "after joined":
                for _ in range(3):
                    await ws.send(await ws.recv())
            await (asyncio.create_task(ws.recv()) if how == "create_task" else ws.recv())
            if how == "from a timer":
                await asyncio.sleep(0.001)
            elif how == "later in the turn":
                await turns()
            await say(ws)

        async with serving(handler) as server:
            thread = asyncio.get_running_loop().run_in_executor(None, other, port_of(server))
            await until(lambda: bool(results))
            gone.set()
            await thread
        assert results == [True]

    run(main())


def test_messages_in_a_row_all_leave_in_order() -> None:
    """Sent by a task, by others and by broadcasts, with and without a turn of the loop between; then nothing else
    happens that could take along what was kept."""

    async def main() -> None:
        async with handed_over() as (peer, ws):
            number = 0

            async def expect(count: int) -> None:
                nonlocal number
                for _ in range(count):
                    assert await peer.frame() == (0x81, b"%d" % number)
                    number += 1

            await ws.send("0")
            await ws.send("1")
            await expect(2)
            broadcast([ws], "2")
            await ws.send("3")
            broadcast([ws], "4")
            ws.try_send("5")
            with ws.cork():
                ws.try_send("6")
                broadcast([ws], "7")
                await ws.send("8")
            await ws.send("9")
            await expect(8)
            await asyncio.gather(*[ws.send(str(10 + i)) for i in range(20)])
            await expect(20)
            sent = number
            for _ in range(200):  # more than may be sent without a turn of the loop
                await ws.send(str(sent))
                sent += 1
            await expect(200)
            for _ in range(20):
                await ws.send(str(number))
                await expect(1)

    run(main())


@pytest.mark.parametrize("end", ["close", "return", "raise"])
def test_what_was_sent_in_a_row_leaves_before_the_close_frame(end: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def handler(ws: ServerConnection) -> None:
            await ws.recv()
            for number in range(5):
                await ws.send(str(number))
            if end == "close":
                await ws.close()
            elif end == "raise":
                raise Stop

        async with serving(handler) as server, peer_of(server) as peer:
            await turns()
            peer.writer.write(frames(b"x", b"y"))
            for number in range(5):
                assert await peer.frame() == (0x81, b"%d" % number)
            await peer.expect_close(1011 if end == "raise" else 1000)

    run(main())


# Made and dropped ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["recv", "async for", "callback", "recv_json"])
@pytest.mark.parametrize("end", ["close", "abort", "cancel"])
def test_connections_that_end_while_they_are_waited_for_are_let_go(end: str, mode: str) -> None:
    """Of server and client; in the compiled build without the collector."""

    async def main() -> None:
        seen: list[Any] = []
        connections: list[ServerConnection] = []

        async def handler(ws: ServerConnection) -> None:
            seen.append(weakref.ref(ws))
            connections.append(ws)
            if mode == "async for":
                async for _ in ws:
                    pass
            elif mode == "callback":
                await ws.wait_closed()
            elif mode == "recv_json":
                await ws.recv_json()
            else:
                await ws.recv()

        def ignored(ws: Connection, message: Any) -> None:
            pass

        settings: Any = {"on_message": ignored} if mode == "callback" else {}
        async with serving(handler, close_timeout=1, **settings) as server:
            gc.collect()
            gc.disable()
            try:
                for count in (20, 20):
                    for _ in range(count):
                        client = await connect(uri_of(server))
                        seen.append(weakref.ref(client))
                        receiving = asyncio.create_task(client.recv())
                        await turns()
                        await until(lambda: bool(connections))
                        ws = connections.pop()
                        if end == "close":
                            await client.close()
                        elif end == "abort":
                            client.transport.abort()
                        else:
                            tasks_of(server).pop().cancel()
                        await asyncio.wait([receiving])
                        assert isinstance(receiving.exception(), ConnectionClosed)
                        del client, receiving, ws
                    await until(lambda: not server._alive)
                    await turns(5)
                    if not COMPILED:  # Python's frames and the exceptions raised in them refer to each other
                        gc.collect()
                    await until(lambda: not any(each() for each in seen))
            finally:
                gc.enable()

    run(main())
