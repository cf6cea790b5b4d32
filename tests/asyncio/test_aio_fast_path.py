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
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aio import MASK, REQUEST, ROOT, Peer, pair, peer_of, port_of, run, runner, serving, tasks_of, until, uri_of
from helpers import encode_frame, parse_frames

from wsproto_fast.asyncio import Connection, Server, ServerConnection, broadcast, connect, serve
from wsproto_fast.asyncio._compat import timeout
from wsproto_fast.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

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
    return await asyncio.wait_for(make(), 10)


async def with_a_timeout(make: Callable[[], Any]) -> Any:
    async with timeout(10):
        return await make()


async def shielded(make: Callable[[], Any]) -> Any:
    return await asyncio.shield(make())


async def as_completed(make: Callable[[], Any]) -> Any:
    for future in asyncio.as_completed([make()]):
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
            assert sorted(map(str, results)) == ["0", "cannot reuse already awaited coroutine"]
            assert await ws.recv() == "1"

    run(main())


@pytest.mark.parametrize("name", ["recv", "send", "__anext__"])
def test_never_awaited(name: str) -> None:
    async def main() -> None:
        async with handed_over() as (peer, ws):
            peer.writer.write(frames(b"0"))
            with pytest.warns(RuntimeWarning, match=r"coroutine 'Connection\.\w+' was never awaited"):
                getattr(ws, name)(*["unsent"] * (name == "send"))
                gc.collect()
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
                return await asyncio.wait_for(ws.recv(), 10)
            if receives == "recv":
                return await ws.recv()
            async for message in ws:
                return message

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
