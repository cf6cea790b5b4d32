"""Groups over real connections: what arrives with each policy, what waits meanwhile, and who is not held up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aio import ROOT, Peer, pair, peer_of, run, serving, until, uri_of
from cases.groups import (
    BROADCASTS,
    BUDGET,
    POLICIES,
    SIZE,
    check_disconnecting,
    expected_numbers,
    number,
    numbered,
)

from wsproto_fast import Close, PreparedMessage, State
from wsproto_fast.asyncio import Connection, Group, Server, ServerConnection, connect
from wsproto_fast.deflate import PerMessageDeflate
from wsproto_fast.groups import BroadcastResult, Policy

#: What a connection may hold besides: its write_limit by default, and one message that went over it.
WRITE_LIMIT = 2**16


@contextlib.asynccontextmanager
async def joining(*groups: Group, **kwargs: Any) -> AsyncIterator[Server]:
    """A server whose connections join the groups."""

    async def join(ws: ServerConnection) -> None:
        for group in groups:
            group.add(ws)
        await ws.wait_closed()

    async with serving(join, compression=None, **kwargs) as server:
        yield server


async def stall(group: Group, member: Connection) -> None:
    """Fill what is between a connection and its peer, which does not read, with messages numbered from 900,000 on."""
    i = 900_000
    while member._ready():
        await member.send(numbered(i))
        i += 1
        await asyncio.sleep(0)
    assert member not in group._backlogs


async def read_all(peer: Peer, last: int) -> list[int]:
    """The numbers of all messages up to that one, without those of ``stall``."""
    numbers = []
    while not numbers or numbers[-1] != last:
        first, payload = await peer.frame()
        assert first == 0x82
        if number(payload) < 900_000:
            numbers.append(number(payload))
    return numbers


def waiting(group: Group, member: Connection) -> int:
    backlog = group._backlogs.get(member)
    return member.buffered_amount + (backlog.size if backlog else 0)


# -- the policies ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def nineteen_and_one(group: Group) -> AsyncIterator[tuple[list[Any], Peer, Connection]]:
    """Receivers, and a peer that does not read with the member that it is."""
    async with joining(group) as server, peer_of(server, small=True) as peer:
        await until(lambda: len(group) == 1)
        [slow] = group
        async with contextlib.AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(connect(uri_of(server), compression=None)) for _ in range(19)]
            await until(lambda: len(group) == 20)
            await stall(group, slow)
            yield readers, peer, slow


@pytest.mark.parametrize("policy", ["drop-newest", "drop-oldest", "latest"])
def test_one_of_twenty_does_not_read(policy: Policy) -> None:
    """The others get each message before the next one is sent; it gets in order, and whole, what its policy leaves."""

    async def main() -> None:
        group = Group(policy=policy, budget=BUDGET)
        async with nineteen_and_one(group) as (readers, peer, slow):
            results = []
            for i in range(BROADCASTS):
                results.append(group.broadcast(numbered(i), key=i % 5))
                for reader in readers:
                    assert number(await reader.recv()) == i
                assert waiting(group, slow) <= BUDGET
            expected = expected_numbers(policy, results)

            reading = asyncio.ensure_future(read_all(peer, 60))
            await until(lambda: not group._backlogs and slow._ready())
            assert group.broadcast(numbered(60)) == (20, 0, 0, 0)  # it has caught up
            assert await reading == [*expected, 60]

    run(main())


def test_disconnect() -> None:
    async def main() -> None:
        group = Group(policy="disconnect", budget=BUDGET)
        async with nineteen_and_one(group) as (readers, peer, slow):
            results: list[BroadcastResult] = []
            while slow in group:
                results.append(group.broadcast(numbered(len(results))))
                for reader in readers:
                    assert number(await reader.recv()) == len(results) - 1
            check_disconnecting(results)
            assert not group._backlogs
            assert slow.state is not State.OPEN
            assert group.broadcast("on") == (19, 0, 0, 0)
            # Behind what it was sent before, nothing of what waited, only:
            assert await peer.expect_close(1008) == "too slow"
            await peer.close()
            await slow.wait_closed()

    run(main())


def test_disconnected_although_it_never_reads() -> None:
    async def main() -> None:
        group = Group(policy="disconnect", budget=0)
        async with joining(group, close_timeout=0.2) as server, peer_of(server, small=True):
            await until(lambda: len(group) == 1)
            [slow] = group
            await stall(group, slow)
            assert group.broadcast("x") == (0, 0, 0, 1)
            await slow.wait_closed()
            assert slow.protocol.close_sent == Close(1008, "too slow")

    run(main())


def test_wait() -> None:
    """Nobody misses a message; whoever sends goes as fast as the slowest."""

    async def main() -> None:
        group = Group(policy="wait", budget=BUDGET)
        async with nineteen_and_one(group) as (readers, peer, slow):
            sent = 0

            async def publish() -> None:
                nonlocal sent
                for i in range(60):
                    result = await group.send(numbered(i))
                    assert result.sent + result.queued == 20
                    assert result.dropped == result.disconnected == 0
                    assert waiting(group, slow) <= BUDGET
                    sent += 1

            publishing = asyncio.ensure_future(publish())
            await until(lambda: group._room is not None)
            assert 10 < sent < 20
            for reader in readers:
                assert [number(await reader.recv()) for _ in range(10)] == list(range(10))
            assert sent < 20  # in all that time
            reading = asyncio.ensure_future(read_all(peer, 59))

            async def rest(reader: Connection) -> list[int]:
                return [number(bytes(await reader.recv())) for _ in range(50)]

            assert await asyncio.gather(*map(rest, readers)) == [list(range(10, 60))] * 19
            await publishing
            assert await reading == list(range(60))

    run(main())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [8, SIZE])
def test_memory(policy: Policy, size: int) -> None:
    """Ten times the budget, tiny messages too, cost about the budget."""
    count = 10 * BUDGET // (size + 500)

    async def main() -> None:
        group = Group(policy=policy, budget=BUDGET)
        async with joining(group, close_timeout=0.2) as server, peer_of(server, small=True):
            await until(lambda: len(group) == 1)
            [slow] = group
            await stall(group, slow)
            gc.collect()
            tracemalloc.start()
            try:
                for i in range(count):
                    if policy == "wait":
                        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                            await group.send(numbered(i, size), timeout=0 if i % 50 else 0.001)
                    else:
                        group.broadcast(numbered(i, size), key=i)
                gc.collect()
                now, _ = tracemalloc.get_traced_memory()
                assert now <= BUDGET + 10_000
                if policy == "disconnect":
                    await slow.wait_closed()
                else:
                    assert now > BUDGET // 4  # it is what waits that was measured
            finally:
                tracemalloc.stop()

    run(main(), limit=60)


def test_many_broadcasts_in_one_turn_are_no_way_around_the_budget() -> None:
    async def main() -> None:
        group = Group(budget=BUDGET)
        async with joining(group) as server, peer_of(server, small=True) as peer:
            await until(lambda: len(group) == 1)
            [member] = group
            results = [group.broadcast(numbered(i)) for i in range(1000)]
            assert waiting(group, member) <= BUDGET
            kept = sum(result.sent + result.queued for result in results)
            assert results[0].sent == results[-1].dropped == 1
            assert await read_all(peer, kept - 1) == list(range(kept))

    run(main())


# -- members -----------------------------------------------------------------------------------------------------------


def test_members_leave_when_they_close() -> None:
    async def main() -> None:
        groups = [Group(), Group(policy="wait")]
        async with joining(*groups) as server:
            clients = [await connect(uri_of(server), compression=None) for _ in range(4)]
            await until(lambda: [len(group) for group in groups] == [4, 4])
            members = {ws.remote_address: ws for ws in groups[0]}
            closed, aborted, closing, stays = [members[client.local_address] for client in clients]
            await clients[0].close()
            clients[1].transport.abort()
            await until(lambda: aborted not in groups[0])
            assert closed not in groups[1]
            task = asyncio.ensure_future(closing.close())
            await asyncio.sleep(0)
            assert all(list(group) == [stays] for group in groups)  # at once: no message can be sent any more
            assert groups[0].broadcast("x") == await groups[1].send("x") == BroadcastResult(1, 0, 0, 0)
            assert [await clients[3].recv(), await clients[3].recv()] == ["x", "x"]
            with contextlib.suppress(Exception):
                await clients[2].recv()
            await task
            groups[0].add(closed)
            assert closed not in groups[0]
            await clients[3].close()
            await until(lambda: not any(groups))
            assert all(ws._watchers == () for ws in members.values())

    run(main())


def test_gone_amid_a_stream_of_broadcasts() -> None:
    async def main() -> None:
        group = Group()
        async with joining(group) as server:
            clients = [await connect(uri_of(server), compression=None, max_queue=None) for _ in range(8)]
            await until(lambda: len(group) == 8)
            staying, leaving = clients[:4], clients[4:]
            for i in range(40):
                group.broadcast(numbered(i, 800))
                if i % 8 == 7 and leaving:
                    client = leaving.pop()
                    if i % 16 == 7:
                        client.transport.abort()
                    else:
                        await client.close()
                await asyncio.sleep(0)
            for client in staying:
                assert [number(await client.recv()) for _ in range(40)] == list(range(40))
                await client.close()
            await until(lambda: len(group) == 0)

    run(main())


def test_exclude_and_kinds() -> None:
    async def main() -> None:
        group = Group()
        async with joining(group) as server, connect(uri_of(server)) as one, connect(uri_of(server)) as two:
            await until(lambda: len(group) == 2)
            sender = next(ws for ws in group if ws.remote_address == one.local_address)
            assert group.broadcast("for two", exclude=[sender]) == (1, 0, 0, 0)
            assert await group.send("for two", exclude={sender}) == (1, 0, 0, 0)
            assert group.broadcast(b"text", text=True) == (2, 0, 0, 0)
            assert await group.send("binary", text=False) == (2, 0, 0, 0)
            assert await group.send(PreparedMessage("prepared")) == (2, 0, 0, 0)
            assert [await one.recv() for _ in range(3)] == ["text", b"binary", "prepared"]
            assert [await two.recv() for _ in range(5)] == ["for two", "for two", "text", b"binary", "prepared"]
            with pytest.raises(TypeError, match="data must be str or bytes"):
                await group.send(["a", "b"])  # type: ignore[arg-type]

    run(main())


def test_keys_that_change() -> None:
    async def main() -> None:
        group = Group(policy="latest")
        async with joining(group) as server, peer_of(server, small=True) as peer:
            await until(lambda: len(group) == 1)
            [slow] = group
            await stall(group, slow)
            results = [group.broadcast(numbered(i), key="ab"[i % 2]) for i in range(10)]
            assert results == [(0, 1, 0, 0)] * 2 + [(0, 1, 1, 0)] * 8
            assert await read_all(peer, 9) == [8, 9]

    run(main())


def test_amid_a_fragmented_message() -> None:
    async def main() -> None:
        group = Group()
        async with joining(group) as server, connect(uri_of(server)) as client:
            await until(lambda: len(group) == 1)
            [member] = group
            go_on = asyncio.Event()

            async def fragments() -> AsyncIterator[str]:
                yield "a"
                await go_on.wait()
                yield "b"

            sending = asyncio.ensure_future(member.send(fragments()))
            await until(lambda: member._fragmenting is not None)
            assert group.broadcast("one") == (0, 1, 0, 0)
            go_on.set()
            await sending
            assert group.broadcast("two") == (1, 0, 0, 0)
            assert [await client.recv() for _ in range(3)] == ["ab", "one", "two"]

    run(main())


def test_own_messages_are_not_put_off_by_those_of_groups() -> None:
    """Whoever waits in ``send`` goes before what waits in a group, although that could fill the buffer for ever."""

    async def main() -> None:
        group = Group(policy="drop-oldest", budget=BUDGET)
        async with joining(group) as server, peer_of(server, small=True) as peer:
            await until(lambda: len(group) == 1)
            [member] = group
            await stall(group, member)
            for i in range(30):
                group.broadcast(numbered(i))
            sending = asyncio.ensure_future(member.send("own"))
            await until(lambda: bool(member._drain_waiters))
            before = 0
            while (await peer.frame())[0] != 0x81:
                before += 1
                group.broadcast(numbered(before))
            await sending
            assert group._backlogs  # it came before them

    run(main())


# -- send --------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def full_group() -> AsyncIterator[tuple[Group, Server, Peer, Connection, Any, Connection]]:
    """A group that waits for a member that does not read; another one reads."""
    group = Group(policy="wait", budget=0)
    async with joining(group, close_timeout=0.2) as server, peer_of(server, small=True) as peer:
        await until(lambda: len(group) == 1)
        [slow] = group
        async with connect(uri_of(server), compression=None) as client:
            await until(lambda: len(group) == 2)
            _, ready = group
            await stall(group, slow)
            yield group, server, peer, slow, client, ready


async def blocked(group: Group) -> None:
    await until(lambda: group._room is not None)


def test_cancelled_or_late_sends_to_nobody() -> None:
    async def main() -> None:
        async with full_group() as (group, _, peer, slow, client, _):
            sending = asyncio.ensure_future(group.send("cancelled"))
            await asyncio.sleep(0)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            sending = asyncio.ensure_future(group.send("cancelled"))
            await blocked(group)
            behind = asyncio.ensure_future(group.send("cancelled"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in (behind, sending):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await group.send("late", timeout=0.01)
            assert group._room is None
            assert await group.send("not to the slow one", exclude=[slow], timeout=0) == (1, 0, 0, 0)
            assert await client.recv() == "not to the slow one"
            sending = asyncio.ensure_future(group.send(numbered(1)))
            assert await read_all(peer, 1) == [1]
            assert await sending == (2, 0, 0, 0)
            assert number(await client.recv()) == 1

    run(main())


@pytest.mark.parametrize("how", ["abort", "close", "discard"])
def test_whoever_leaves_is_not_waited_for(how: str) -> None:
    async def main() -> None:
        async with full_group() as (group, _, _, slow, client, ready):
            sending = asyncio.ensure_future(group.send("x"))
            await blocked(group)
            group._writable(ready)  # is not the one
            assert group._room is not None
            group._writable(slow)  # has no room yet
            assert group._room is not None
            if how == "abort":
                slow.transport.abort()
            elif how == "close":
                closing = asyncio.ensure_future(slow.close())
            else:
                group.discard(slow)
            assert await sending == (1, 0, 0, 0)
            assert await client.recv() == "x"
            if how == "close":
                await closing

    run(main())


def test_whoever_is_not_open_yet_is_not_waited_for() -> None:
    async def main() -> None:
        group = Group(policy="wait", budget=0)
        go_on = asyncio.Event()

        async def join(ws: ServerConnection, request: object) -> None:
            group.add(ws)
            await go_on.wait()

        async with serving(process_request=join) as server:
            connecting = asyncio.ensure_future(connect(uri_of(server)).__aenter__())
            await until(lambda: len(group) == 1)
            assert await group.send("missed") == (0, 0, 0, 0)
            go_on.set()
            client = await connecting
            assert await group.send("sent") == (1, 0, 0, 0)
            assert await client.recv() == "sent"
            await client.close()

    run(main())


def test_left_just_before_it_is_cancelled() -> None:
    async def main() -> None:
        async with full_group() as (group, _, _, slow, client, _):
            sending = asyncio.ensure_future(group.send("x"))
            await blocked(group)
            sending.cancel()
            group.discard(slow)
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert await group.send("y") == (1, 0, 0, 0)
            assert await client.recv() == "y"

    run(main())


def test_several_publishers_keep_their_order() -> None:
    async def main() -> None:
        async with full_group() as (group, server, peer, _, client, _):
            sending = [asyncio.ensure_future(group.send(numbered(i))) for i in range(30)]
            await blocked(group)
            async with connect(uri_of(server), compression=None) as late:  # a member that comes while they wait
                await until(lambda: len(group) == 3)
                assert await read_all(peer, 29) == list(range(30))
                for task in sending:
                    assert (await task).sent == 3
                for reader in (client, late):
                    assert [number(await reader.recv()) for _ in range(30)] == list(range(30))

    run(main())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_loop_of_sends_reaches_readers(policy: Policy) -> None:
    """It gives the transports their turn: nothing is dropped for members that read."""

    async def main() -> None:
        group = Group(policy=policy, budget=BUDGET)
        async with joining(group) as server, connect(uri_of(server), compression=None, max_queue=None) as client:
            await until(lambda: len(group) == 1)
            for i in range(1500):  # more than fits into the kernel
                assert (await group.send(numbered(i))).dropped == 0
            assert [number(bytes(await client.recv())) for _ in range(1500)] == list(range(1500))

    run(main())


def test_made_without_a_loop() -> None:
    group = Group(policy="wait")

    async def main() -> None:
        async with joining(group) as server, connect(uri_of(server)) as client:
            await until(lambda: len(group) == 1)
            assert await group.send("x", timeout=5) == (1, 0, 0, 0)
            assert await client.recv() == "x"
        await until(lambda: not group)

    run(main())
    run(main())


# -- compression -------------------------------------------------------------------------------------------------------


def test_mixed_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to compress that was agreed on, checked by websockets: messages of the group, some of which wait, among
    those of the connection's own. DESIGN 5: its deflater must forget what it knew."""
    from websockets.asyncio.client import connect as other_connect
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Deflate

    calls = []
    compress_once = PerMessageDeflate.compress_once
    monkeypatch.setattr(
        PerMessageDeflate, "compress_once", lambda self, data: calls.append(self) or compress_once(self, data)
    )
    offers: list[Any] = [
        *(None, None),
        *(Deflate(), Deflate(), Deflate(client_no_context_takeover=True)),
        *(Deflate(server_no_context_takeover=True), Deflate(server_max_window_bits=9)),
        *(Deflate(server_max_window_bits=9, server_no_context_takeover=True), Deflate(server_max_window_bits=10)),
    ]

    def text(what: str, i: int) -> str:
        return f'{{"{what}": {i}, "symbols": {[f"{what}{i}-{j * i * 7919 % 1000}" for j in range(60)]}}}'

    async def main() -> None:
        group = Group()

        async def join(ws: ServerConnection) -> None:
            group.add(ws)
            await ws.wait_closed()

        async with serving(join) as server, contextlib.AsyncExitStack() as stack:
            clients = []
            for offer in offers:
                extensions = None if offer is None else [offer]
                client = other_connect(uri_of(server), compression=None, extensions=extensions, proxy=None)
                clients.append(await stack.enter_async_context(client))
            await until(lambda: len(group) == len(clients))
            expected = []
            for i in range(20):
                for ws in group:
                    await ws.send(text("own", i))
                    await ws.send(text("own", i))
                group.broadcast(text("all", i))
                if i % 3 == 0:
                    group.broadcast(text("more", i).encode())
                expected += [text("own", i), text("own", i), text("all", i)]
                expected += [text("more", i).encode()] if i % 3 == 0 else []
            for client in clients:
                assert [await client.recv() for _ in expected] == expected
        ways = 3  # to compress: windows of 12 (our default), 10 and 9 bits; else they differ in what is kept
        assert len(calls) == 27 * ways

    run(main())


# -- docs/broadcast.md -------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "broadcast.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def block_with(words: str) -> str:
    (code,) = [block for block in BLOCKS if words in block]
    return code


def test_docs_have_no_other_programs() -> None:
    words = ("room = Group()", "Group([one, two])", 'policy="latest"', 'policy="wait"', "broadcast, serve")
    assert sorted(map(block_with, words)) == sorted(BLOCKS)


@contextlib.asynccontextmanager
async def program(words: str, uri: str = "") -> AsyncIterator[asyncio.Future[str]]:
    """Run one of the page's programs in this loop; yields the URI of its server. It ends here if not by itself."""
    started = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def serve(handler: Any, host: str, port: int) -> AsyncIterator[Server]:
        assert (host, port) == ("localhost", 8765)
        async with serving(handler) as server:
            started.set_result(uri_of(server))
            yield server

    code = block_with(words).replace("ws://localhost:8765", uri)
    assert code.endswith("\n\nasyncio.run(main())\n")
    namespace: dict[str, Any] = {}
    exec(compile(code.replace("asyncio.run(main())\n", ""), "broadcast.md", "exec"), namespace)
    namespace["serve"] = serve
    running = asyncio.ensure_future(namespace["main"]())
    try:
        yield started
    finally:
        if not running.done():
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_docs_chat() -> None:
    async def main() -> None:
        async with program("room = Group()") as uri, connect(await uri) as one, connect(await uri) as two:
            await one.send("hello")
            assert await two.recv() == "hello"
            await two.send("you too")
            assert await one.recv() == "you too"

    run(main())


def test_docs_counts(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        output = ""

        def printed() -> bool:
            nonlocal output
            output += capsys.readouterr().out
            return output.count("\n") == 2

        async with serving() as server, program("Group([one, two])", uri_of(server)):
            await until(printed)
        assert output == "BroadcastResult(sent=2, queued=0, dropped=0, disconnected=0)\n2 hello hello\n"

    run(main())


def test_docs_latest() -> None:
    async def main() -> None:
        async with program('policy="latest"') as uri, connect(await uri) as client:
            assert {str(await client.recv())[:4] for _ in range(2)} == {"EUR ", "USD "}

    run(main())


def test_docs_wait() -> None:
    async def main() -> None:
        async with program('policy="wait"') as uri, connect(await uri) as client:
            assert [await client.recv() for _ in range(100)] == [f"line {i}" for i in range(100)]

    run(main())


def test_docs_broadcast() -> None:
    async def main() -> None:
        async with program("broadcast, serve") as uri, connect(await uri) as one, connect(await uri) as two:
            await one.send("hello")
            assert await one.recv() == await two.recv() == "hello"

    run(main())


def test_groups_belong_to_the_thread_of_their_connections() -> None:
    async def main() -> None:
        async with pair() as ws:
            group = Group([ws])
            for call in (lambda: group.discard(ws), lambda: Group([ws]), lambda: ws.cork().__enter__()):
                with pytest.raises(RuntimeError, match="thread"):
                    await asyncio.get_running_loop().run_in_executor(None, call)
            assert ws in group

    run(main())
