"""Groups and broadcast over connections of threads: what arrives with each policy, who waits, and who leaves when."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from thr import LIMIT, Peer, peer_of, serving, thread, until, uri_of

from wsproto_fast import Close, ConnectionClosed, PreparedMessage, State
from wsproto_fast.groups import Policy
from wsproto_fast.threading import Connection, Group, Server, broadcast, connect

POLICIES = get_args(Policy)
SIZE = 100_000
BUDGET = 2_500_000
#: What the system takes late is less than lies between the marks.
PLAIN: dict[str, Any] = {"compression": None, "write_limit": (1_000_000, 100_000)}


@contextlib.contextmanager
def joining(*groups: Group, **kwargs: Any) -> Iterator[Server]:
    """A server whose connections join the groups."""

    def join(connection: Any) -> None:
        for group in groups:
            group.add(connection)
        connection.wait_closed()

    with serving(join, **{**PLAIN, **kwargs}) as server:
        yield server


def numbered(i: int, size: int = SIZE) -> bytes:
    """A message of which it shows if a byte is missing."""
    return (b"%08d" % i) * (size // 8)


def number(message: bytes) -> int:
    i = int(message[:8])
    assert message == numbered(i, len(message)), "torn"
    return i


def stall(member: Connection) -> None:
    """Fill what is between a connection and its peer, which does not read, with messages numbered from 900,000 on."""
    i = 900_000
    while member.try_send(numbered(i)) or member._wire.wait(True, 0.1):
        i += 1


def read_all(peer: Peer, last: int) -> list[int]:
    """The numbers of all messages up to that one, without those of ``stall``."""
    numbers: list[int] = []
    while not numbers or numbers[-1] != last:
        first, payload = peer.frame()
        assert first == 0x82
        if number(payload) < 900_000:
            numbers.append(number(payload))
    return numbers


def waiting(group: Group, member: Connection) -> int:
    backlog = group._backlogs.get(member)
    return member.buffered_amount + (backlog.size if backlog else 0)


@contextlib.contextmanager
def five_and_one(group: Group, **kwargs: Any) -> Iterator[tuple[list[Any], Peer, Connection]]:
    """Receivers, and a peer that does not read with the member that it is."""
    with joining(group, **kwargs) as server, peer_of(server, small=True) as peer, contextlib.ExitStack() as stack:
        until(lambda: len(group) == 1)
        [slow] = group
        readers = [stack.enter_context(connect(uri_of(server), compression=None)) for _ in range(5)]
        until(lambda: len(group) == 6)
        stall(slow)
        yield readers, peer, slow


@pytest.mark.parametrize("policy", ["drop-newest", "drop-oldest", "latest"])
def test_one_of_six_does_not_read(policy: Policy) -> None:
    """The others get each message before the next one is sent; it gets in order, and whole, what its policy leaves."""
    group = Group(policy=policy, budget=BUDGET)
    with five_and_one(group) as (readers, peer, slow):
        results = []
        for i in range(60):
            results.append(group.broadcast(numbered(i), key=i % 5))
            for reader in readers:
                assert number(reader.recv()) == i
            assert waiting(group, slow) <= BUDGET
        assert {(result.sent, result.disconnected) for result in results} == {(5, 0)}
        if policy == "drop-newest":
            assert {result.queued + result.dropped for result in results} == {1}
            expected = [i for i, result in enumerate(results) if result.queued]
        else:
            assert {result.queued for result in results} == {1}
            expected = list(range(sum(result.dropped for result in results), 60))
        assert len(expected) == 5 if policy == "latest" else 8 < len(expected) < 20
        with thread(lambda: read_all(peer, 60)) as outcome:
            until(lambda: not group._backlogs and slow._ready())
            assert group.broadcast(numbered(60)) == (6, 0, 0, 0)  # it has caught up
        assert outcome == [[*expected, 60]]


def test_disconnect() -> None:
    group = Group(policy="disconnect", budget=BUDGET)
    with five_and_one(group) as (readers, peer, slow):
        results = []
        while slow in group:
            results.append(group.broadcast(numbered(len(results))))
            for reader in readers:
                assert number(reader.recv()) == len(results) - 1
        assert results == [(5, 1, 0, 0)] * (len(results) - 1) + [(5, 0, 0, 1)]
        assert slow.state is not State.OPEN
        assert group.broadcast("on") == (5, 0, 0, 0)
        assert peer.expect_close(1008) == "too slow"
        peer.sock.close()
        assert slow.wait_closed(LIMIT)


def test_disconnected_although_it_never_reads() -> None:
    group = Group(policy="disconnect", budget=0)
    with five_and_one(group, close_timeout=0.2) as (_, _, slow):
        assert group.broadcast("x") == (5, 0, 0, 1)
        assert slow.wait_closed(LIMIT)
        assert slow.protocol.close_sent == Close(1008, "too slow")


def test_wait() -> None:
    """Nobody misses a message; whoever sends goes as fast as the slowest."""
    group = Group(policy="wait", budget=BUDGET)
    sent = 0

    def publish() -> None:
        nonlocal sent
        for i in range(60):
            result = group.send(numbered(i))
            assert result.sent + result.queued == 6
            sent += 1

    with five_and_one(group) as (readers, peer, slow), thread(publish) as outcome:
        for reader in readers:
            assert [number(reader.recv()) for _ in range(8)] == list(range(8))
        until(lambda: waiting(group, slow) + SIZE > BUDGET)
        with pytest.raises(TimeoutError):
            group.send(numbered(99), timeout=0.05)  # in the line behind it
        assert 8 < sent < 20
        assert waiting(group, slow) <= BUDGET
        with thread(lambda: read_all(peer, 59)) as read:
            with contextlib.ExitStack() as stack:
                got = [
                    stack.enter_context(thread(lambda each=each: [number(each.recv()) for _ in range(52)]))
                    for each in readers
                ]
            assert got == [[list(range(8, 60))]] * 5
        assert read == [list(range(60))]
    assert outcome == [None]


def test_waiting_ends_when_the_slow_one_leaves_or_the_time_is_over() -> None:
    group = Group(policy="wait", budget=0)
    with five_and_one(group) as (readers, peer, _):
        with pytest.raises(TimeoutError):
            group.send("too early", timeout=0.05)
        with thread(lambda: group.send("x")) as outcome:
            peer.sock.close()
        assert outcome == [(5, 0, 0, 0)]
        assert [reader.recv() for reader in readers] == ["x"] * 5
        with pytest.raises(RuntimeError):
            group.broadcast("never waits")


def test_a_line_in_which_nothing_moves() -> None:
    group = Group(policy="wait")
    with group._turn, pytest.raises(TimeoutError):
        group.send("x", timeout=0.01)


def test_members_leave_when_they_close() -> None:
    groups = [Group(), Group(policy="wait")]
    with joining(*groups) as server:
        clients = [connect(uri_of(server), compression=None) for _ in range(3)]
        until(lambda: [len(group) for group in groups] == [3, 3])
        members = {each.remote_address: each for each in groups[0]}
        first, second, third = [members[client.local_address] for client in clients]
        clients[0].close()
        until(lambda: first not in groups[0] and first not in groups[1])
        second.close()
        assert all(list(group) == [third] for group in groups)  # when close() is back
        assert groups[0].broadcast("x") == groups[1].send("x") == (1, 0, 0, 0)
        assert [clients[2].recv(), clients[2].recv()] == ["x", "x"]
        groups[0].add(first)
        assert first not in groups[0]
        groups[0].discard(third)
        assert third in groups[1]
        clients[1].close()
        clients[2].close()
        until(lambda: not any(groups))


def test_exclude_and_kinds() -> None:
    group = Group()
    with joining(group, compression="deflate") as server:
        with connect(uri_of(server)) as one, connect(uri_of(server), compression=None) as two:
            until(lambda: len(group) == 2)
            sender = next(each for each in group if each.remote_address == one.local_address)
            assert group.broadcast("for two", exclude=[sender]) == (1, 0, 0, 0)
            assert group.send("for two", exclude={sender}) == (1, 0, 0, 0)
            assert group.broadcast(b"text", text=True) == (2, 0, 0, 0)
            assert group.send("binary", text=False) == (2, 0, 0, 0)
            assert group.send(PreparedMessage("prepared" * 100)) == (2, 0, 0, 0)
            assert [one.recv() for _ in range(3)] == ["text", b"binary", "prepared" * 100]
            assert [two.recv() for _ in range(5)] == ["for two", "for two", "text", b"binary", "prepared" * 100]
            with pytest.raises(TypeError, match="data must be str or bytes"):
                group.send(["a", "b"])  # type: ignore[arg-type]


def test_many_threads_broadcast() -> None:
    """Each member gets all messages, those of one thread in their order."""
    group = Group(budget=2**24)

    def publish(who: int) -> None:
        for i in range(200):
            group.broadcast(f"{who} {i}")

    with joining(group, write_limit=2**20) as server:
        clients = [connect(uri_of(server), compression=None, max_queue=None) for _ in range(5)]
        until(lambda: len(group) == 5)
        publishers = [threading.Thread(target=publish, args=(who,), daemon=True) for who in range(4)]
        for each in publishers:
            each.start()
        for client in clients:
            received = [client.recv().split() for _ in range(800)]
            for who in "0123":
                assert [int(i) for sender, i in received if sender == who] == list(range(200))
        for each in publishers:
            each.join()
        for client in clients:
            client.close()


def test_members_come_and_go_while_others_broadcast() -> None:
    group = Group(policy="disconnect")
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.0005):
            group.broadcast(numbered(1, 80))

    with joining(group) as server, thread(publish) as outcome:
        for _ in range(40):
            with connect(uri_of(server), compression=None) as client:
                assert number(client.recv()) == 1
        stop.set()
    assert outcome == [None]
    assert not group


# broadcast()


def test_broadcast(caplog: pytest.LogCaptureFixture) -> None:
    members = Group()
    with joining(members) as server, connect(uri_of(server)) as one, connect(uri_of(server)) as two:
        until(lambda: len(members) == 2)
        connections = list(members)
        broadcast(connections, "text")
        broadcast(connections, b"text", text=True, max_workers=3)
        broadcast(connections, PreparedMessage(b"bytes"))
        assert [one.recv() for _ in range(3)] == [two.recv() for _ in range(3)] == ["text", "text", b"bytes"]
        with pytest.raises(TypeError, match="data must be str or bytes"):
            broadcast(connections, ["a"])  # type: ignore[arg-type]
        one.close()
        until(lambda: len(members) == 1)
        broadcast(connections, "on")  # to the one that is open
        assert two.recv() == "on"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_broadcast_amid_a_fragmented_message(caplog: pytest.LogCaptureFixture) -> None:
    go, begun = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        yield "a"
        begun.set()
        go.wait(LIMIT)
        yield "b"

    def handler(connection: Any) -> None:
        connection.send(pieces())
        connection.wait_closed()

    with serving(handler) as server, connect(uri_of(server)) as client:
        assert begun.wait(LIMIT)
        [member] = server.connections
        broadcast([member], "x")
        assert "skipped broadcast: sending a fragmented message" in caplog.text
        if sys.version_info >= (3, 11):
            with pytest.raises(ExceptionGroup, match="skipped broadcast"):  # noqa: F821
                broadcast([member], "x", raise_exceptions=True)
        else:
            with pytest.raises(ValueError, match="raise_exceptions requires"):
                broadcast([member], "x", raise_exceptions=True)
        go.set()
        assert client.recv() == "ab"
        until(lambda: not member._fragmenting)  # type: ignore[attr-defined]
        broadcast([member], "x")
        assert client.recv(LIMIT) == "x"


def test_broadcast_closes_who_is_far_behind() -> None:
    members = Group()
    with five_and_one(members, close_timeout=0.2, write_limit=2**15) as (readers, _, slow):
        connections = list(members)
        for _ in range(150):
            broadcast(connections, numbered(1))
            for reader in readers:
                assert number(reader.recv()) == 1
        assert slow.wait_closed(LIMIT)
        assert slow.protocol.close_sent == Close(1008, "too slow")
        with pytest.raises(ConnectionClosed):
            slow.send("x")
