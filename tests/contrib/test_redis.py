"""``RedisBus`` and a real Redis: who gets what, once, over losses, restarts and strangers on the channel."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
import struct
import threading
from collections.abc import AsyncIterator, Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aio import ROOT, missing, run, serving, until, uri_of
from redis_servers import RedisServer, redis_server

from wsproto_fast import PreparedMessage
from wsproto_fast.asyncio import Connection, Group, connect
from wsproto_fast.groups import Bus, Deliver

try:
    import redis as client
    from redis.asyncio import Redis
except ImportError:
    missing("the package redis is not installed")
from wsproto_fast.contrib import redis as module
from wsproto_fast.contrib._envelope import Foreign, Post
from wsproto_fast.contrib.redis import RedisBus

pytestmark = pytest.mark.external

TOO_MUCH = 10_000
PREFIX = b"wsproto_fast:"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """For tests that do it no harm; each has a prefix of its own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_delays", lambda: iter(lambda: 0.01, None))


class Listener:
    """In place of a group: keeps what comes."""

    def __init__(self, bus: Bus, channel: str = "group") -> None:
        self.got: list[tuple[str | bytes, Hashable]] = []
        bus.join(channel, self.deliver)

    def deliver(self, message: PreparedMessage, key: Hashable) -> None:
        data = message.payload if message.opcode == 2 else message.payload.decode()
        self.got.append((data, key))

    def data(self) -> list[str | bytes]:
        return [data for data, _ in self.got]


def nobody(message: PreparedMessage, key: Hashable) -> None:
    """A sender that has joined nothing."""


def publish(bus: RedisBus, data: str | bytes, key: Hashable = None, channel: str = "group") -> None:
    bus.publish(channel, PreparedMessage(data), key, nobody)


@contextlib.asynccontextmanager
async def buses(url: str, number: int = 2, **kwargs: Any) -> AsyncIterator[list[RedisBus]]:
    """As many as there would be processes; whoever listens must have joined before ``ready``."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(RedisBus(url, **kwargs)) for _ in range(number)]


async def pinged(server: RedisServer, times: int) -> None:
    """Wait until Redis was asked so often from now on whether it lives."""
    async with Redis.from_url(server.url) as observer:

        async def pings() -> int:
            stats = await observer.info("commandstats")
            return int(stats.get("cmdstat_ping", {"calls": 0})["calls"])

        before = await pings()
        while await pings() < before + times:
            await asyncio.sleep(0.01)


class Process:
    """A server with a group of its members, as each of many processes has."""

    def __init__(self, bus: RedisBus, stack: contextlib.AsyncExitStack, **kwargs: Any) -> None:
        self.bus = bus
        self.group = Group(bus=bus, **kwargs)
        self._stack = stack

    async def begin(self, clients: int) -> list[Any]:
        async def join(connection: Connection) -> None:
            self.group.add(connection)
            await connection.wait_closed()

        server = await self._stack.enter_async_context(serving(join, compression=None))
        connections = [await self._stack.enter_async_context(connect(uri_of(server))) for _ in range(clients)]
        await until(lambda: len(self.group) == clients)
        await self.bus.ready()
        return connections


# -- who gets it -------------------------------------------------------------------------------------------------------


def test_members_of_all_processes_get_it_once(shared: RedisServer) -> None:
    async def main() -> None:
        async with buses(shared.url, 3, prefix="once:") as three, contextlib.AsyncExitStack() as stack:
            processes = [Process(bus, stack) for bus in three]
            clients = [await process.begin(2) for process in processes]
            messages: list[Any] = ["é", b"\xff\x00", "", b"x" * 200_000, PreparedMessage("prepared")]
            for message in messages:
                result = processes[0].group.broadcast(message)
                assert result.sent + result.queued == 2
            assert (await processes[1].group.send("from the second")).sent == 2
            excluded = next(iter(processes[2].group))
            processes[2].group.broadcast("end", exclude=[excluded])
            wanted = ["é", b"\xff\x00", "", b"x" * 200_000, "prepared"]
            for i, client in enumerate(one for pair in clients for one in pair):
                got: list[Any] = []
                while len(got) < (6 if i == 4 else 7):
                    got.append(await client.recv())
                assert [message for message in got if message not in ("from the second", "end")] == wanted
                assert got.count("from the second") == 1
                assert got.count("end") == (0 if i == 4 else 1)
            await until(lambda: sum(bus.stats.published for bus in three) == 7)
            assert [bus.stats.received for bus in three] == [2, 6, 6]
            assert not any(bus.stats.dropped or bus.stats.rejected or bus.stats.gaps for bus in three)

    run(main())


def test_a_message_is_prepared_once_in_each_process(shared: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[Any] = []

    class Counted(PreparedMessage):
        def __init__(self, *arguments: Any, **kwargs: Any) -> None:
            prepared.append(self)
            super().__init__(*arguments, **kwargs)

    monkeypatch.setattr("wsproto_fast.contrib._envelope.PreparedMessage", Counted)

    async def main() -> None:
        async with buses(shared.url, prefix="prepared:") as (one, two):
            listeners = [Listener(two) for _ in range(3)]
            await two.ready()
            publish(one, "x")
            await until(lambda: all(listener.got for listener in listeners))

    run(main())
    assert len(prepared) == 1


@pytest.mark.parametrize("key", ["EUR", b"\xff", 7, -(10**30), None])
def test_keys(shared: RedisServer, key: Hashable) -> None:
    async def main() -> None:
        async with buses(shared.url, prefix="keys:") as (one, two):
            listener = Listener(two)
            await two.ready()
            publish(one, "x", key)
            await until(lambda: bool(listener.got))
            assert listener.got == [("x", key)]

    run(main())


def test_keys_that_cannot_travel_are_told_before_anybody_gets_the_message(shared: RedisServer) -> None:
    async def main() -> None:
        async with buses(shared.url, 1, prefix="bad keys:") as (bus,), contextlib.AsyncExitStack() as stack:
            process = Process(bus, stack, policy="latest")
            [client] = await process.begin(1)
            for key in (("a", 1), 1.5):
                with pytest.raises(TypeError, match="must be str, bytes, int or None"):
                    process.group.broadcast("no", key=key)
            with pytest.raises(ValueError, match="64 KiB"):
                process.group.broadcast("no", key="x" * 2**16)
            process.group.broadcast("yes", key="x" * (2**16 - 1))
            assert await client.recv() == "yes"

    run(main())


def test_groups_of_one_process_and_channel(shared: RedisServer) -> None:
    """Each gets what the other sends, without Redis; other channels are other channels."""

    async def main() -> None:
        async with buses(shared.url, prefix="channels:") as (bus, other), contextlib.AsyncExitStack() as stack:
            first = Process(bus, stack, channel="a")
            second = Process(bus, stack, channel="a", policy="drop-oldest")
            third = Process(bus, stack, channel="b")
            far = Process(other, stack, channel="a")
            clients = [(await process.begin(1))[0] for process in (first, second, third, far)]
            first.group.broadcast("to a")
            third.group.broadcast("to b")
            for client, wanted in zip(clients, ("to a", "to a", "to b", "to a"), strict=True):
                assert await client.recv() == wanted
            assert first.group.totals.sent == second.group.totals.sent == far.group.totals.sent == 1

    run(main())


def test_a_slow_member_elsewhere_holds_up_nobody(shared: RedisServer) -> None:
    """Its group's policy decides, and its process goes on reading from Redis."""

    async def main() -> None:
        async with buses(shared.url, prefix="slow:") as (one, two), contextlib.AsyncExitStack() as stack:
            here, there = Process(one, stack), Process(two, stack, policy="latest", budget=2**17)
            await here.begin(0)
            slow, quick = await there.begin(2)
            slow.transport.pause_reading()
            number = 0
            while not there.group._backlogs:
                for _ in range(50):
                    here.group.broadcast(b"%08d" % number * 1000, key="only the newest")
                    number += 1
                last = await quick.recv()
                while int(last[:8]) < number - 1:
                    last = await quick.recv()
            while int(last[:8]) < number - 1:
                last = await quick.recv()
            slow.transport.resume_reading()
            while int(last[:8]) < number - 1:
                last = await slow.recv()

    run(main(), limit=60)


# -- Redis goes and comes ----------------------------------------------------------------------------------------------


def test_a_restart_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsproto_fast.bus")
    gaps: list[str] = []

    async def main(server: RedisServer) -> None:
        async with buses(server.url, on_gap=lambda: gaps.append("gap")) as (one, two):
            async with contextlib.AsyncExitStack() as stack:
                here, there = Process(one, stack), Process(two, stack)
                [client], [far] = await here.begin(1), await there.begin(1)
                sent = 0
                for _ in range(3):
                    for _ in range(100):
                        here.group.broadcast(str(sent))
                        sent += 1
                    server.stop()
                    await until(lambda: not one.connected and not two.connected)
                    for _ in range(100):
                        here.group.broadcast(str(sent))
                        assert await until_number(client, sent) is None  # whatever Redis does
                        sent += 1
                    assert one.pending >= 100
                    server.start()
                    await one.ready()
                    await two.ready()
                await until(lambda: one.pending == 0)
                here.group.broadcast("end")
                got = []
                while (message := await far.recv()) != "end":
                    got.append(int(message))
                # What was published before the other had subscribed again is lost: that is what a gap is.
                assert got == sorted(set(got))
                assert one.stats.published + one.stats.dropped >= sent
                assert one.stats.dropped == 0
                assert {one.stats.gaps, two.stats.gaps} == {3}

    async def until_number(client: Any, number: int) -> None:
        while int(await client.recv()) < number:
            pass

    with redis_server(tmp_path) as server:
        run(main(server), limit=60)
    assert gaps == ["gap"] * 6
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 12  # one line when it goes, one when it comes, for each bus
    assert sum(message.startswith("Redis is away, next attempt in") for message in messages) == 6
    assert messages.count("Redis is back") == 6


def test_what_waits_arrives_in_order_when_redis_comes(tmp_path: Path) -> None:
    """Redis is not there yet when the program starts; the sender finds it later than the receiver."""

    async def main(server: RedisServer) -> None:
        receiver = RedisBus(server.url)
        listener = Listener(receiver)
        server.stop()
        sender = RedisBus(server.url)
        async with sender:
            assert not sender.connected
            for i in range(1000):
                publish(sender, str(i))
            await asyncio.sleep(0)
            assert sender.pending == 1000
            holding = module._delays
            module._delays = lambda: iter(lambda: 3600.0, None)  # type: ignore[assignment]
            sender._task.cancel()  # type: ignore[union-attr]
            await asyncio.wait([sender._task])  # type: ignore[list-item, type-var]
            module._delays = holding
            server.start()
            async with receiver:
                await receiver.ready()
                sender._task = asyncio.ensure_future(sender._keep(None))
                await until(lambda: len(listener.got) == 1000)
                assert listener.data() == [str(i) for i in range(1000)]
                assert (sender.stats.published, sender.stats.gaps, receiver.stats.gaps) == (1000, 1, 0)

    with redis_server(tmp_path) as server:
        run(main(server), limit=60)


def test_the_outbox_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main(server: RedisServer) -> None:
        async with RedisBus(server.url, outbox=10_000) as bus, RedisBus(server.url) as other:
            listener = Listener(other)
            await other.ready()
            publish(bus, "before")
            await until(lambda: bool(listener.got))
            server.stop()
            await until(lambda: not bus.connected)
            for i in range(100):
                publish(bus, b"%04d" % i * 200)
                assert bus._outbox.size <= 10_000
            assert 5 < bus.pending < 12
            kept = bus.pending
            assert bus.stats.dropped == 100 - kept
            publish(bus, bytes(20_000))  # larger than all
            assert (bus.pending, bus.stats.dropped) == (0, 101)
            publish(bus, "after")
            server.start()
            await other.ready()
            await until(lambda: bus.stats.published == 2)
            assert bus.stats.dropped == 101

    with redis_server(tmp_path) as server:
        run(main(server))
    complaints = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert complaints == ["messages for other processes are dropped; RedisBus.stats counts them"]


def test_a_batch_that_was_not_sent_comes_first_again() -> None:
    outbox = module._Outbox(10_000)
    for number in range(10):
        assert outbox.put(b"c", b"%d" % number) == 0
    batch = outbox.take()
    assert (len(batch), len(outbox), outbox.size) == (10, 0, 0)
    assert outbox.put(b"c", b"later") == 0
    assert outbox.put_back(batch) == 0
    assert [data for _, data in outbox.take()] == [*(data for _, data in batch), b"later"]
    assert outbox.put(b"c", bytes(9000)) == 0
    assert outbox.put_back(batch) == 7  # the oldest go


@pytest.mark.parametrize("busy", [False, True], ids=["silent", "with a message for it"])
def test_a_redis_that_answers_no_more_is_away(tmp_path: Path, busy: bool) -> None:
    """Its connections live on. What it may have got of a batch is sent once more, and nobody gets that twice."""

    async def main(server: RedisServer) -> None:
        async with RedisBus(server.url, timeout=0.3) as one, RedisBus(server.url, timeout=3600) as two:
            listener = Listener(two)
            await two.ready()
            with server.frozen():
                if busy:
                    publish(one, "x")  # into the socket's buffer: it will have it when it wakes
                await until(lambda: not one.connected)
            await one.ready()
            publish(one, "y")
            await until(lambda: "y" in listener.data())
            assert listener.data() == (["x", "y"] if busy else ["y"])
            assert (one.stats.gaps, two.stats.gaps) == (1, 0)

    with redis_server(tmp_path) as server:
        run(main(server))


def test_a_quiet_redis_is_not_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is asked, with and without a subscription, and answers."""

    async def main(server: RedisServer) -> None:
        for joined in (False, True):
            async with RedisBus(server.url, timeout=0.05) as bus:
                if joined:
                    Listener(bus)
                await bus.ready()
                await pinged(server, 3)
                assert bus.connected
                assert bus.stats.gaps == 0

    with redis_server(tmp_path) as server:
        run(main(server))
    assert not caplog.records


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_either_connection_may_be_lost(tmp_path: Path, kind: str) -> None:
    async def main(server: RedisServer) -> None:
        async with buses(server.url) as (one, two), Redis.from_url(server.url) as observer:
            listener = Listener(two)
            Listener(one)
            await one.ready()
            await two.ready()
            await observer.client_kill_filter(_type=kind, skipme=True)
            if kind == "normal":  # that of the publisher, who notices when it has something to say
                publish(one, "x")
                await until(lambda: bool(listener.got))
                publish(two, "z")
            await until(lambda: one.stats.gaps == two.stats.gaps == 1)
            await one.ready()
            await two.ready()
            publish(one, "y")
            await until(lambda: "y" in listener.data())
            assert [data for data in listener.data() if data != "z"] == (["x", "y"] if kind == "normal" else ["y"])

    with redis_server(tmp_path) as server:
        run(main(server))


def test_on_gap_may_raise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    async def main(server: RedisServer) -> None:
        async with RedisBus(server.url, on_gap=fail) as bus, Redis.from_url(server.url) as observer:
            Listener(bus)
            await bus.ready()
            await observer.client_kill_filter(_type="pubsub")
            await until(lambda: bus.stats.gaps == 1)
            await bus.ready()

    with redis_server(tmp_path) as server:
        run(main(server))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["on_gap failed"]


def test_a_defect_of_ours_is_logged_and_does_not_end_it(
    shared: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with RedisBus(shared.url, prefix="defect:") as bus:
            Listener(bus)
            await bus.ready()
            with monkeypatch.context() as patch:
                patch.setattr(RedisBus, "_on_reply", lambda *_: 1 / 0)
                Listener(bus, "another")
                await until(lambda: not bus.connected)
            await bus.ready()

    run(main())
    [record] = [record for record in caplog.records if record.exc_info and record.levelno == logging.WARNING]
    assert "ZeroDivisionError" in record.getMessage()


# -- strangers ---------------------------------------------------------------------------------------------------------

OURS = Post().seal(b"c", PreparedMessage("x"), "key")
SIGNED = Post(b"secret").seal(b"c", PreparedMessage("x"), "key")
HEAD = struct.Struct(">4s16sQBH")

#: (what comes, the secret of who gets it, what is said)
STRANGE = [
    (b"", None, "no envelope"),
    (b'{"type": "chat"}' * 10, None, "no envelope"),
    (b"wsf\x02" + OURS[4:], None, "no envelope"),
    (OURS[: HEAD.size - 1], None, "no envelope"),
    (OURS[: HEAD.size + 2], None, "torn"),
    (HEAD.pack(b"wsf\x01", bytes(16), 1, 1, 0) + b"\xff", None, "not UTF-8"),
    (HEAD.pack(b"wsf\x01", bytes(16), 1, 4, 1) + b"\xff", None, "key"),
    (HEAD.pack(b"wsf\x01", bytes(16), 1, 12, 3) + b"1.5", None, "key"),
    (SIGNED, None, "signed"),
    (OURS, b"secret", "not signed"),
    (OURS[:28] + bytes([OURS[28] | 2]) + OURS[29:], b"secret", "signature"),
    (SIGNED[:-40] + b"y" + SIGNED[-39:], b"secret", "signature"),
    (SIGNED[:-1], b"secret", "signature"),
    (SIGNED[:40], b"secret", "signature"),
    (SIGNED, b"another", "signature"),
]


@pytest.mark.parametrize(("data", "secret", "reason"), STRANGE)
def test_strangers_are_rejected(data: bytes, secret: bytes | None, reason: str) -> None:
    with pytest.raises(Foreign, match=reason):
        Post(secret).open(b"c", data)


def test_a_signature_is_for_one_channel() -> None:
    post = Post(b"secret")
    with pytest.raises(Foreign, match="signature"):
        post.open(b"d", SIGNED)
    opened = post.open(b"c", SIGNED)
    assert opened is not None
    assert (opened.message.payload, opened.message.opcode, opened.key) == (b"x", 1, "key")


def test_each_is_opened_once() -> None:
    sender, receiver = Post(), Post()
    one, two, three = (sender.seal(b"c", PreparedMessage(str(i)), None) for i in range(3))
    assert sender.open(b"c", one) is None
    opened = [receiver.open(b"c", envelope) for envelope in (one, two, one, two, three, three)]
    assert [None if item is None else item.message.payload for item in opened] == [b"0", b"1", None, None, b"2", None]


def test_not_every_sender_there_ever_was_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsproto_fast.contrib._envelope._MAX_SENDERS", 3)
    receiver = Post()
    message = PreparedMessage("x")
    lively = Post()
    envelope = lively.seal(b"c", message, None)
    assert receiver.open(b"c", envelope) is not None
    for _ in range(10):
        assert receiver.open(b"c", envelope) is None  # of who was heard lately it is known
        once = Post().seal(b"c", message, None)
        assert receiver.open(b"c", once) is not None
        assert receiver.open(b"c", once) is None
        envelope = lively.seal(b"c", message, None)
        assert receiver.open(b"c", envelope) is not None
        assert receiver.open(b"c", envelope) is None
    assert len(receiver._last) == 3


def test_strangers_on_the_channel_do_no_harm(shared: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with buses(shared.url, prefix="strange:", secret=b"s") as (one, two), Redis.from_url(shared.url) as other:
            listener = Listener(two)
            await two.ready()
            for data, *_ in STRANGE:
                await other.publish("strange:group", data)
            await other.publish("strange:group", bytes(2**22))
            publish(one, "hello")
            await until(lambda: bool(listener.got))
            assert listener.data() == ["hello"]
            assert two.stats.rejected == len(STRANGE) + 1
            assert two.connected

    run(main())
    assert len([record for record in caplog.records if "rejected" in record.getMessage()]) == 1


# -- who may -----------------------------------------------------------------------------------------------------------


def test_a_password(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        wrong = server.url.replace("//", "//:wrong@")
        for url in (wrong, server.url):
            bus = RedisBus(url)
            with pytest.raises(client.AuthenticationError):
                await bus.start()
            await bus.close()
        async with buses(server.url.replace("//", "//:open%20sesame@")) as (one, two):
            listener = Listener(two)
            await two.ready()
            publish(one, "x")
            await until(lambda: bool(listener.got))

    with redis_server(tmp_path, "--requirepass", "open sesame") as server:
        run(main(server))


def test_what_redis_refuses_is_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A user that may publish on one channel only."""

    async def main(server: RedisServer) -> None:
        url = server.url.replace("//", "//limited:pass@")
        async with RedisBus(server.url) as other, RedisBus(url) as bus:
            listeners = [Listener(other, "one"), Listener(other, "two")]
            await other.ready()
            publish(bus, "x", channel="two")
            publish(bus, "y", channel="one")
            await until(lambda: bool(listeners[0].got))
            assert listeners[0].data() == ["y"]
            assert listeners[1].data() == []
            assert (bus.stats.published, bus.stats.dropped) == (1, 1)

    users = tmp_path / "users"
    users.write_text("user limited on >pass &wsproto_fast:one +@all\nuser default on nopass ~* &* +@all\n")
    with redis_server(tmp_path, "--aclfile", str(users)) as server:
        run(main(server))
    assert any("Redis refused 1 messages" in record.getMessage() for record in caplog.records)
    assert not any("pass@" in record.getMessage() for record in caplog.records)


def test_the_least_that_a_user_must_be_allowed(tmp_path: Path) -> None:
    """It is in the docs."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    [user] = re.findall(r"^ACL SETUSER (\w+) (.*)$", page, re.MULTILINE)

    async def main(server: RedisServer) -> None:
        async with buses(server.url.replace("//", "//chat:password@"), timeout=0.1) as (one, two):
            for channel in ("stays", "goes"):
                listener = Listener(two, channel)
                await two.ready()
                publish(one, "x", channel=channel)
                await until(lambda listener=listener: bool(listener.got))  # type: ignore[misc]
            two.leave("goes", listener.deliver)
            await pinged(server, 4)
            assert two._requested == {b"wsproto_fast:stays"}
            assert one.connected
            assert two.connected
            assert not any(bus.stats.gaps or bus.stats.dropped for bus in (one, two))

    users = tmp_path / "users"
    users.write_text(f"user {user[0]} {user[1]}\nuser default on nopass ~* &* +@all\n")
    with redis_server(tmp_path, "--aclfile", str(users)) as server:
        run(main(server))


@pytest.mark.parametrize("url", ["http://localhost", "localhost", "redis://localhost?protocol=3"])
def test_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="Redis URL"):
        RedisBus(url)


# -- life --------------------------------------------------------------------------------------------------------------


def test_a_group_that_nobody_knows_leaves_its_channel(shared: RedisServer) -> None:
    async def main() -> None:
        async with RedisBus(shared.url, prefix="leave:") as bus, Redis.from_url(shared.url) as other:

            async def subscribers() -> dict[bytes, int]:
                return dict(await other.pubsub_numsub("leave:a", "leave:b"))

            group = Group(bus=bus, channel="a")
            keeps = Group(bus=bus, channel="b")
            await bus.ready()
            twin = Group(bus=bus, channel="a")
            assert bus._settled.is_set()  # nothing is to be done
            assert await subscribers() == {b"leave:a": 1, b"leave:b": 1}
            del twin
            gc.collect()
            await bus.ready()
            assert await subscribers() == {b"leave:a": 1, b"leave:b": 1}
            del group
            gc.collect()
            while await subscribers() != {b"leave:a": 0, b"leave:b": 1}:
                await asyncio.sleep(0.01)
            again = Group(bus=bus, channel="a")
            await bus.ready()
            assert await subscribers() == {b"leave:a": 1, b"leave:b": 1}
            del again, keeps
        late = Group(bus=bus, channel="c")
        assert late.broadcast("to nobody").sent == 0
        assert bus.stats.dropped == 1
        late_groups.append(late)

    late_groups: list[Group] = []
    run(main())
    late_groups.clear()  # now the loop is closed
    gc.collect()


def test_the_end_while_redis_is_away(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with RedisBus(server.url, timeout=3600) as bus:
            await bus.ready()
            server.stop()
            await until(lambda: not bus.connected)
            publish(bus, "x")
        assert (bus.stats.dropped, bus.pending) == (1, 0)

    with redis_server(tmp_path) as server:
        run(main(server))


def test_joining_and_leaving_before_the_start(shared: RedisServer) -> None:
    async def main() -> None:
        bus = RedisBus(shared.url, prefix="early:")
        gone = Group(bus=bus, channel="gone")
        stays = Listener(bus, "stays")
        publish(bus, "early", channel="stays")
        assert stays.data() == ["early"]
        del gone
        gc.collect()
        async with bus, Redis.from_url(shared.url) as other:
            await bus.ready()
            assert await other.pubsub_channels("early:*") == [b"early:stays"]
            await until(lambda: bus.stats.published == 1)

    run(main())


def test_a_group_that_is_gone_amid_a_message() -> None:
    """A bus may still have its ``deliver`` in hand."""
    delivers: list[Deliver] = []

    class Holding:
        def join(self, channel: str, deliver: Deliver) -> None:
            delivers.append(deliver)

        def leave(self, channel: str, deliver: Deliver) -> None:
            assert (channel, deliver) == ("group", delivers[0])

        def publish(self, channel: str, message: PreparedMessage, key: Hashable, sender: Deliver) -> None:
            raise AssertionError

    group = Group(bus=Holding())
    del group
    gc.collect()
    delivers[0](PreparedMessage("x"), None)


def test_what_waits_is_sent_before_the_end(shared: RedisServer) -> None:
    async def main() -> None:
        async with RedisBus(shared.url, prefix="flush:") as other:
            listener = Listener(other)
            await other.ready()
            async with RedisBus(shared.url, prefix="flush:") as bus:
                for i in range(300):
                    publish(bus, b"%04d" % i * 1000)
            assert (bus.stats.published, bus.stats.dropped, bus.pending) == (300, 0, 0)
            await until(lambda: len(listener.got) == 300)
            publish(bus, "too late")
            assert (bus.stats.dropped, bus.pending) == (1, 0)
            await bus.close()

    run(main())


def test_the_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        bus = RedisBus(server.url, timeout=0.2)
        await bus.start()
        with server.frozen():
            publish(bus, "x")
            publish(bus, "y")
            await bus.close()
        assert (bus.connected, bus.stats.published, bus.stats.dropped) == (False, 0, 2)

    with redis_server(tmp_path) as server:
        run(main(server))


def test_an_end_at_once(shared: RedisServer) -> None:
    async def main() -> None:
        bus = RedisBus(shared.url)
        await bus.start()
        links = bus._links
        assert [link.is_connected for link in links] == [True, True]
        await bus.close()
        assert [link.is_connected for link in links] == [False, False]

    run(main())


def test_misuse(shared: RedisServer) -> None:
    async def main() -> None:
        async with RedisBus(shared.url, prefix="misuse:") as bus:
            with pytest.raises(RuntimeError, match="started once"):
                await bus.start()
            with pytest.raises(ValueError, match="cannot wait"):
                Group(policy="wait", bus=bus)
            errors: list[BaseException] = []

            def elsewhere() -> None:
                for wrong in (lambda: publish(bus, "x"), lambda: Listener(bus)):
                    try:
                        wrong()
                    except RuntimeError as exc:
                        errors.append(exc)

            thread = threading.Thread(target=elsewhere, daemon=True)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert ["thread of its event loop" in str(error) for error in errors] == [True, True]

    run(main())


def test_a_group_that_fails_does_not_keep_others_from_the_message(
    shared: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: PreparedMessage, key: Hashable) -> None:
        raise ValueError("on purpose")

    async def main() -> None:
        async with buses(shared.url, prefix="fail:") as (one, two):
            two.join("group", fail)
            listener = Listener(two)
            await two.ready()
            publish(one, "x")
            await until(lambda: bool(listener.got))

    run(main())
    assert [record.getMessage() for record in caplog.records] == ["a group failed"]


def test_delays_are_short_at_first_and_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    firsts, lasts = set(), set()
    for _ in range(20):
        delays = list(zip(range(20), module._delays(), strict=False))
        firsts.add(delays[0][1])
        lasts.add(delays[-1][1])
    assert len(firsts) == 20
    assert max(firsts) <= 1
    assert lasts == {15}
