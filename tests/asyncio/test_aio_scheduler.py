"""The timer and the flush that all connections of a loop share: whom they call, when, and what it costs."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from aio import LOOP, echo, run, runner, serving, until, uri_of
from helpers import SOON

from wsproto_fast import Connection as Engine
from wsproto_fast import Role
from wsproto_fast._settings import Settings
from wsproto_fast.asyncio import Connection, _scheduler, connect
from wsproto_fast.asyncio._scheduler import Scheduler, scheduler_of
from wsproto_fast.constants import BURST, MESSAGE_COST, TURN

stock_loop = pytest.mark.skipif(LOOP != "asyncio", reason="looks at the timers of asyncio's own loop")


class Caller:
    """Notes when it is called, then does something."""

    def __init__(self, calls: list[Any], name: Any, then: Callable[[], object] = lambda: None) -> None:
        self.calls = calls
        self.name = name
        self.then = then

    def _on_timer(self, now: float) -> None:
        self.calls.append(self.name)
        self.then()

    def _on_turn_end(self) -> None:
        self.calls.append(self.name)
        self.then()


def fail() -> None:
    raise ValueError("on purpose")


async def until_called(calls: list[Any], count: int) -> None:
    while len(calls) < count:
        await asyncio.sleep(0.001)


def complaints_of(loop: asyncio.AbstractEventLoop) -> list[Any]:
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context.get("exception")))
    return complaints


# The timer


def test_in_the_order_of_time_and_never_early() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[Any] = []
        early: list[Any] = []
        start = loop.time()

        class Timed(Caller):
            def _on_timer(self, now: float) -> None:
                super()._on_timer(now)
                if now < start + self.name[0] or now > loop.time():
                    early.append((now, self.name))

        delays = [0.03, 0.01, 0.02, 0.0, 0.025, 0.01, -1.0]
        for i, delay in enumerate(delays):
            scheduler.call_at(start + delay, Timed(calls, (delay, i)))
        await until_called(calls, len(delays))
        assert calls == sorted((delay, i) for i, delay in enumerate(delays))
        assert early == []

    run(main())


def test_equal_times_in_the_order_of_asking() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[int] = []
        when = loop.time() + 0.005
        for i in range(50):
            scheduler.call_at(when, Caller(calls, i))
        await until_called(calls, 50)
        assert calls == list(range(50))

    run(main())


def test_an_earlier_entry_wakes_earlier() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[str] = []
        late = scheduler.call_at(loop.time() + 3600, Caller(calls, "late"))
        scheduler.call_at(loop.time() + 0.01, Caller(calls, "soon"))
        await until_called(calls, 1)
        assert calls == ["soon"]
        scheduler.cancel(late)

    run(main())


def test_cancelled_entries_call_nobody() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[int] = []
        when = loop.time() + 0.005
        entries = [scheduler.call_at(when, Caller(calls, i)) for i in range(10)]
        for entry in entries[::2]:
            scheduler.cancel(entry)
        await until_called(calls, 5)
        assert calls == [1, 3, 5, 7, 9]
        assert scheduler._heap == []
        assert scheduler._cancelled == 0

    run(main())


def test_a_call_may_cancel_the_next_one() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[str] = []
        when = loop.time() + 0.005
        entries: list[Any] = []
        scheduler.call_at(when, Caller(calls, "first", lambda: scheduler.cancel(entries[0])))
        entries.append(scheduler.call_at(when, Caller(calls, "cancelled")))
        scheduler.call_at(when, Caller(calls, "last"))
        await until_called(calls, 2)
        assert calls == ["first", "last"]

    run(main())


def test_cancelled_entries_are_cleared_out() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[Any] = []
        kept = [scheduler.call_at(loop.time() + 3600 + i, Caller(calls, i)) for i in range(10)]
        for _ in range(10_000):
            scheduler.cancel(scheduler.call_at(loop.time() + 3600, Caller(calls, "cancelled")))
            assert len(scheduler._heap) <= 10 + 2 * _scheduler._MAX_CANCELLED
        assert sum(entry[2] is not None for entry in scheduler._heap) == 10
        for entry in kept:
            scheduler.cancel(entry)

    run(main())


def test_clearing_out_within_a_call() -> None:
    """The heap is replaced while it is being worked on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[str] = []
        far = [scheduler.call_at(loop.time() + 3600, Caller(calls, "far")) for _ in range(500)]
        when = loop.time() + 0.005
        scheduler.call_at(when, Caller(calls, "first", lambda: [scheduler.cancel(entry) for entry in far]))
        scheduler.call_at(when, Caller(calls, "second"))
        await until_called(calls, 2)
        assert calls == ["first", "second"]
        assert len(scheduler._heap) <= 1 + _scheduler._MAX_CANCELLED
        await asyncio.sleep(0.02)
        assert calls == ["first", "second"]

    run(main())


def test_many_at_once_let_others_run() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[int] = []
        seen: list[int] = []
        count = 10 * _scheduler._BATCH
        when = loop.time() + 0.001
        for i in range(count):
            scheduler.call_at(when, Caller(calls, i))
        while len(calls) < count:
            seen.append(len(calls))
            await asyncio.sleep(0)
        steps = [after - before for before, after in zip(seen, [*seen[1:], count], strict=True)]
        assert max(steps) <= _scheduler._BATCH
        assert calls == list(range(count))

    run(main())


def test_one_ring_for_what_is_due_nearly_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[int] = []
        rings: list[int] = []
        call_at = loop.call_at

        def count(when: float, callback: Any, *arguments: Any, **options: Any) -> Any:
            rings.append(getattr(callback, "__name__", "") == "_ring")
            return call_at(when, callback, *arguments, **options)

        monkeypatch.setattr(loop, "call_at", count)
        start = loop.time()
        for i in range(200):
            scheduler.call_at(start + i / 2000, Caller(calls, i))  # over 100 ms
        await until_called(calls, 200)
        assert 1 <= sum(rings) <= 0.1 / _scheduler._RESOLUTION + 3
        assert calls == list(range(200))

    run(main())


def test_an_exception_harms_no_other_call() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints = complaints_of(loop)
        scheduler = scheduler_of(loop)
        calls: list[Any] = []
        when = loop.time() + 0.001
        for i in range(5):
            scheduler.call_at(when, Caller(calls, i, fail if i in (1, 2) else lambda: None))
        await until_called(calls, 5)
        assert calls == list(range(5))
        assert [type(error) for error in complaints] == [ValueError, ValueError]

    run(main())


def test_a_call_may_ask_anew() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[str] = []
        caller = Caller(calls, "again")

        def again() -> None:
            if len(calls) < 5:
                scheduler.call_at(loop.time(), caller)

        caller.then = again
        scheduler.call_at(loop.time(), caller)
        await until_called(calls, 5)
        assert scheduler._heap == []

    run(main())


# The end of a turn


def test_the_end_of_a_turn_comes_once_and_after_all_that_was_ready() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        calls: list[str] = []
        loop.call_soon(calls.append, "before")
        scheduler.at_turn_end(Caller(calls, "a"))
        scheduler.at_turn_end(Caller(calls, "b"))
        assert calls == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert calls[0] == "before"
        assert sorted(calls[1:]) == ["a", "b"]
        await asyncio.sleep(0)
        assert len(calls) == 3

    run(main())


def test_an_exception_at_the_end_of_a_turn_harms_nobody_else() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints = complaints_of(loop)
        scheduler = scheduler_of(loop)
        calls: list[Any] = []
        for i in range(6):
            scheduler.at_turn_end(Caller(calls, i, fail if i in (0, 3, 5) else lambda: None))
        await until_called(calls, 6)
        assert sorted(calls) == list(range(6))  # each once
        assert len(complaints) == 3

    run(main())


def test_who_asks_at_the_end_of_a_turn_gets_the_next_one() -> None:
    async def main() -> None:
        scheduler = scheduler_of(asyncio.get_running_loop())
        calls: list[str] = []
        scheduler.at_turn_end(Caller(calls, "first", lambda: scheduler.at_turn_end(Caller(calls, "second"))))
        await asyncio.sleep(0)
        assert calls == ["first"]
        await asyncio.sleep(0)
        assert calls == ["first", "second"]

    run(main())


# One per loop


def test_a_few_of_those_in_line_go_on_in_one_turn() -> None:
    async def main() -> None:
        scheduler = scheduler_of(asyncio.get_running_loop())
        called: list[int] = []
        for number in range(10):
            scheduler.call_in_turn(functools.partial(called.append, number))
        after_each_turn = []
        while len(called) < 10:
            await asyncio.sleep(0)
            after_each_turn.append(len(called))
        assert called == [*range(10)]
        assert after_each_turn == [4, 8, 10]

    run(main())


def test_who_is_called_in_turn_may_ask_anew_or_fail() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        called: list[str] = []
        complaints = complaints_of(loop)

        def ask_anew() -> None:
            called.append("first")
            scheduler.call_in_turn(lambda: called.append("last"))

        def fail() -> None:
            raise ValueError("mine")

        for callback in (ask_anew, fail, lambda: called.append("second")):
            scheduler.call_in_turn(callback)
        while len(called) < 3:
            await asyncio.sleep(0)
        assert called == ["first", "second", "last"]
        assert [str(exc) for exc in complaints] == ["mine"]
        leaving = asyncio.ensure_future(scheduler.turn())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(scheduler.turn(), 30)  # the line moves again, past who has left
        assert leaving.cancelled()
        assert len(complaints) == 1

    run(main())


@pytest.mark.parametrize("way", ["recv", "send", "on_message"])
def test_who_has_had_its_share_goes_to_the_end_of_the_line(way: str) -> None:
    """Before it come forty others: ten turns of the loop."""
    ended: list[int] = []
    count = TURN // MESSAGE_COST + BURST  # more than one share, of either kind

    async def handler(ws: Any) -> None:
        if way == "on_message":
            await ws.wait_closed()
            return
        await ws.recv()
        fill_the_line()
        for _ in range(count):
            if way == "recv":
                await ws.recv()
            else:
                await ws.send("")
        ended.append(asked())

    messages = 0

    def on_message(ws: Any, message: Any) -> None:
        nonlocal messages
        messages += 1
        if messages == 2:
            fill_the_line()
        elif messages == count:
            ended.append(asked())

    line: list[int] = []

    def asked() -> int:
        return len(line)

    def fill_the_line() -> None:
        scheduler = scheduler_of(asyncio.get_running_loop())
        for number in range(40):
            scheduler.call_in_turn(functools.partial(line.append, number))

    async def main() -> None:
        settings: Any = {"on_message": on_message} if way == "on_message" else {}
        async with serving(handler, max_queue=None, **settings) as server, connect(uri_of(server)) as ws:
            with ws.cork():
                for _ in range(count + 1):
                    ws.try_send("")
            await until(lambda: bool(ended))
            assert ended == [40]

    run(main())


def test_each_loop_has_its_own() -> None:
    found: dict[str, list[Scheduler]] = {}
    both = threading.Barrier(2)
    calls: dict[str, list[int]] = {"a": [], "b": []}

    async def main(name: str) -> None:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        found[name] = [scheduler]
        for i in range(200):
            scheduler.call_at(loop.time() + i / 20_000, Caller(calls[name], (threading.get_ident(), i)))
        both.wait(5)  # both loops live
        await until_called(calls[name], 200)
        found[name].append(scheduler_of(loop))

    threads = [threading.Thread(target=lambda name=name: runner()(main(name)), daemon=True) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found["a"][0] is found["a"][1]
    assert found["b"][0] is found["b"][1]
    assert found["a"][0] is not found["b"][0]
    for name in "ab":
        assert [i for _, i in calls[name]] == list(range(200))
        assert len({thread for thread, _ in calls[name]}) == 1


def test_a_loop_is_let_go() -> None:
    """With entries left, and with none."""

    async def main(entries: int) -> tuple[weakref.ref[Any], weakref.ref[Any]]:
        loop = asyncio.get_running_loop()
        scheduler = scheduler_of(loop)
        for _ in range(entries):
            scheduler.call_at(loop.time() + 3600, Caller([], ""))
        scheduler.at_turn_end(Caller([], ""))
        return weakref.ref(loop), weakref.ref(scheduler)

    for entries in (0, 3):
        loop, scheduler = runner()(main(entries))
        gc.collect()
        assert loop() is None
        assert scheduler() is None


def test_a_program_may_run_one_loop_after_the_other() -> None:
    async def main() -> str:
        async with serving() as server, connect(uri_of(server)) as connection:
            await connection.send("hello")
            reply = await connection.recv()
            assert isinstance(reply, str)
            return reply

    assert [run(main()) for _ in range(3)] == ["hello"] * 3


# With connections


class NullTransport(asyncio.Transport):
    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        pass

    def writelines(self, list_of_data: Any) -> None:
        pass

    def abort(self) -> None:
        pass

    close = abort


def make(**settings: Any) -> Connection:
    connection = Connection(Settings(**settings), logging.getLogger("test"))
    connection.connection_made(NullTransport())
    connection._open(Engine(Role.SERVER, keepalive=connection._settings.keepalive, limits=connection._settings.limits))
    return connection


@stock_loop
def test_thousands_of_connections_have_one_timer() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = len(loop._scheduled)
        tasks = len(asyncio.all_tasks())
        connections = [make(ping_interval=20 + i / 1000) for i in range(3000)]
        await asyncio.sleep(0)
        live = [handle for handle in loop._scheduled if not handle.cancelled()]
        assert len(live) - before == 1
        assert len(loop._scheduled) - before < 10  # and few were thrown away
        assert len(asyncio.all_tasks()) == tasks
        for connection in connections:
            connection.connection_lost(None)
        scheduler = connections[0]._scheduler
        assert sum(entry[2] is not None for entry in scheduler._heap) == 0
        assert len(scheduler._heap) <= _scheduler._MAX_CANCELLED

    run(main())


@stock_loop
def test_connections_over_sockets_have_one_timer() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with serving() as server:
            connections = [await connect(uri_of(server)) for _ in range(30)]
            await asyncio.gather(*[connection.send("x") for connection in connections])
            await asyncio.gather(*[connection.recv() for connection in connections])
            live = [handle for handle in loop._scheduled if not handle.cancelled()]
            assert len(live) <= 2  # the test's own limit, and ours
            await asyncio.gather(*[connection.close() for connection in connections])

    run(main())


def test_deadlines_that_move() -> None:
    async def main() -> None:
        connection = make(ping_interval=0.2, ping_timeout=None, close_timeout=0.05)
        loop = asyncio.get_running_loop()
        entry = connection._entry
        assert entry is not None
        assert 0.1 < entry[0] - loop.time() <= 0.201
        connection._begin_close(1000, "")  # earlier: the end of the closing handshake
        assert connection._entry is not None
        assert connection._entry is not entry
        assert connection._entry[0] - loop.time() <= 0.051
        assert entry[2] is None

        connection = make(ping_interval=0.02, ping_timeout=None, close_timeout=3600)
        entry = connection._entry
        connection._begin_close(1000, "")  # later: the entry stays, and the deadline is looked at when it is due
        assert connection._entry is entry
        started = time.perf_counter()
        while connection._entry is entry:
            await asyncio.sleep(0.001)
        assert time.perf_counter() - started < SOON
        assert connection._entry is not None
        assert connection._entry[0] - loop.time() > 3000
        connection.connection_lost(None)
        assert connection._entry is None

    run(main())


def test_an_idle_server_arms_no_timer_without_keepalive() -> None:
    async def main() -> None:
        connection = make(ping_interval=None)
        assert connection._entry is None
        connection.connection_lost(None)

    run(main())


def test_a_server_that_is_used_from_two_threads_each_with_its_loop() -> None:
    results: list[int] = []

    async def main() -> None:
        async with serving(echo) as server:
            async with connect(uri_of(server), ping_interval=0.01) as connection:
                for i in range(200):
                    await connection.send(str(i))
                    results.append(int(await connection.recv()) - i)

    threads = [threading.Thread(target=lambda: runner()(main()), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [0] * 400
