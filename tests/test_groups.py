"""Groups without I/O: each policy against a naive model of it, and members that misbehave."""

from __future__ import annotations

import logging
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsproto_fast import PreparedMessage, State
from wsproto_fast.groups import Backlog, BroadcastResult, Members, Outcome, Policy, cost_of, prepare

POLICIES = get_args(Policy)
LOGGER = logging.getLogger("wsproto_fast.test")


class Member:
    """A connection that takes ``capacity`` messages, and as many more as ``resume`` says."""

    def __init__(self, capacity: int = 10**6, buffered_amount: int = 0) -> None:
        self.capacity = capacity
        self.buffered_amount = buffered_amount
        self.state = State.OPEN
        self.logger = LOGGER
        self.received: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.watchers: list[Any] = []
        self.meanwhile = lambda: None

    def _ready(self) -> bool:
        return self.state is State.OPEN and self.capacity > 0

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        assert self._ready()
        self.capacity -= 1
        self.received.append(prepared.payload)
        self.meanwhile()

    def _fail(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self.leave()

    def _watch(self, watcher: Any) -> None:
        self.watchers.append(watcher)

    def _unwatch(self, watcher: Any) -> None:
        self.watchers.remove(watcher)

    def resume(self, capacity: int = 10**6) -> None:
        self.capacity = capacity
        for watcher in tuple(self.watchers):
            watcher._writable(self)

    def leave(self) -> None:
        self.state = State.CLOSED
        for watcher in tuple(self.watchers):
            watcher._left(self)
        self.watchers.clear()


def members_of(policy: Policy, *members: Member, budget: int = 2**20) -> Members[Member]:
    return Members(members, policy=policy, budget=budget)


# -- against a model ---------------------------------------------------------------------------------------------------


class Naive:
    """What a group must do for one member, in lists."""

    def __init__(self, policy: str, budget: int, member: Member) -> None:
        self.policy = policy
        self.budget = budget
        self.buffered = member.buffered_amount
        self.capacity = member.capacity
        self.queue: list[tuple[object, bytes]] = []
        self.received: list[bytes] = []
        self.gone = False

    def over(self) -> bool:
        return self.buffered + sum(len(payload) + 500 for _, payload in self.queue) > self.budget

    def offer(self, payload: bytes, key: object) -> BroadcastResult:
        if self.capacity and not self.queue:
            self.capacity -= 1
            self.received.append(payload)
            return BroadcastResult(1, 0, 0, 0)
        before = len(self.queue)
        mine = (key, payload)
        places = [i for i, (other, _) in enumerate(self.queue) if self.policy == "latest" and None is not key == other]
        if places:
            self.queue[places[0]] = mine
            before -= 1
            dropped = 1
        else:
            self.queue.append(mine)
            dropped = 0
        if self.policy in ("drop-oldest", "latest"):
            while self.over() and len(self.queue) > 1:
                self.queue.remove(next(one for one in self.queue if one is not mine))
                dropped += 1
        elif self.over() and self.policy == "drop-newest":
            self.queue.pop()
            return BroadcastResult(0, 0, 1, 0)
        elif self.over():
            self.gone = True
            return BroadcastResult(0, 0, 0, 1)
        return BroadcastResult(0, 1, dropped, 0)

    def resume(self, capacity: int) -> None:
        self.capacity = capacity
        while self.queue and self.capacity:
            self.capacity -= 1
            self.received.append(self.queue.pop(0)[1])


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("broadcast"), st.integers(0, 2000), st.sampled_from([None, "a", "b", 3]), st.sets(st.integers(0, 2))
        ),
        st.tuples(st.just("resume"), st.integers(0, 2), st.integers(0, 4)),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("discard"), st.integers(0, 2)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "wait"])
@given(STEPS, st.integers(0, 6000), st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 1500))] * 3))
def test_policies(policy: Policy, steps: list[Any], budget: int, starts: tuple[tuple[int, int], ...]) -> None:
    members = [Member(*each) for each in starts]
    group = members_of(policy, *members, budget=budget)
    models = {member: Naive(policy, budget, member) for member in members}
    for number, (step, *arguments) in enumerate(steps):
        if step == "broadcast":
            size, key, excluded = arguments
            payload = b"%d " % number + bytes(size)
            result = group.broadcast(payload, key=key, exclude=[members[i] for i in excluded])
            offered = [model for member, model in models.items() if members.index(member) not in excluded]
            expected = [model.offer(payload, key) for model in offered]
            assert result == BroadcastResult(*(sum(counts) for counts in zip((0, 0, 0, 0), *expected, strict=True)))
        elif step == "resume":
            members[arguments[0]].resume(arguments[1])
            if members[arguments[0]] in models:
                models[members[arguments[0]]].resume(arguments[1])
        elif step == "leave":
            members[arguments[0]].leave()
            models.pop(members[arguments[0]], None)
        else:
            group.discard(members[arguments[0]])
            models.pop(members[arguments[0]], None)
        for member, model in tuple(models.items()):
            assert member.received == model.received
            assert member.closed == ((1008, "too slow") if model.gone else None)
            assert (member in group) is not model.gone
            if model.gone:
                del models[member]
        assert list(group) == list(models)
        assert len(group) == len(models)
    for member, model in models.items():
        member.resume()
        model.resume(10**6)
        assert member.received == model.received
    assert not group._backlogs


# -- one rule each -----------------------------------------------------------------------------------------------------


def messages(*sizes: int) -> list[bytes]:
    return [b"%d" % i + bytes(size - 1) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("policy", "results", "received"),
    [
        ("drop-newest", [(0, 1, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 1, 0)], "01"),
        ("drop-oldest", [(0, 1, 0, 0), (0, 1, 0, 0), (0, 1, 1, 0), (0, 1, 1, 0)], "23"),
        ("latest", [(0, 1, 0, 0), (0, 1, 0, 0), (0, 1, 1, 0), (0, 1, 1, 0)], "23"),
        ("disconnect", [(0, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0)], ""),
    ],
)
@pytest.mark.parametrize("buffered", [0, 200])
def test_over_the_budget(policy: Policy, results: list[Any], received: str, buffered: int) -> None:
    """The budget counts payloads, 500 bytes a message, and what the connection holds; it may be used up."""
    slow = Member(0, buffered)
    group = members_of(policy, slow, budget=1200 + buffered)
    assert [group.broadcast(message) for message in messages(100, 100, 1, 1)] == results
    slow.resume()
    assert "".join(chr(payload[0]) for payload in slow.received) == received


@pytest.mark.parametrize(
    ("policy", "result"),
    [
        ("drop-newest", (1, 0, 1, 0)),
        ("drop-oldest", (1, 1, 0, 0)),
        ("latest", (1, 1, 0, 0)),
        ("disconnect", (1, 0, 0, 1)),
    ],
)
def test_larger_than_the_budget(policy: Policy, result: Any) -> None:
    """Whoever is ready gets it; with the policies that keep the newest it waits alone."""
    ready, slow = Member(), Member(0)
    group = members_of(policy, ready, slow, budget=1000)
    assert group.broadcast(bytes(5000)) == result
    assert ready.received == [bytes(5000)]


def test_latest_takes_the_place_of_its_key() -> None:
    slow = Member(0)
    group = members_of("latest", slow, budget=3000)
    for key, message in [("a", "a1"), ("b", "b1"), (None, "x"), ("a", "a2"), (None, "y"), ("b", "b2")]:
        group.broadcast(message, key=key)
    slow.resume()
    assert slow.received == [b"a2", b"b2", b"x", b"y"]
    slow.capacity = 0
    for key, size in [("a", 1), ("b", 1), ("c", 1), ("a", 1500)]:  # the last one is the oldest place, but the newest
        result = group.broadcast(b"%s" % key.encode() * size, key=key)
    assert result == (0, 1, 2, 0)
    slow.resume()
    assert [payload[:1] for payload in slow.received[4:]] == [b"a", b"c"]


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy not in ("latest", "wait")])
def test_keys_are_for_latest(policy: Policy) -> None:
    slow = Member(0)
    group = members_of(policy, slow)
    group.broadcast("one", key="a")
    group.broadcast("two", key="a")
    slow.resume()
    assert slow.received == [b"one", b"two"]


def test_wait_keeps_all_and_never_broadcasts() -> None:
    backlog = Backlog("wait")
    for message in messages(10, 10):
        assert backlog.offer(prepare(message, None), None, 0) == (Outcome.QUEUED, 0)
    assert (len(backlog), backlog.size) == (2, 1020)
    member = Member()
    group = members_of("wait", member)
    with pytest.raises(RuntimeError, match=r"never waits.*send\(\)"):
        group.broadcast("x")
    assert not member.received


def test_room() -> None:
    member = Member(0, 100)
    group = members_of("wait", member, budget=2000)
    cost = cost_of(PreparedMessage(bytes(400)))
    assert cost == 900
    assert group._has_room(member, 1900)
    assert not group._has_room(member, 1901)
    member.capacity = 1
    assert group._has_room(member, 10**6)  # at once
    member.capacity = 0
    assert group._spread(PreparedMessage(bytes(400)), group, None) == (0, 1, 0, 0)
    assert group._has_room(member, 1000)
    assert not group._has_room(member, 1001)


# -- members -----------------------------------------------------------------------------------------------------------


def test_what_a_group_is_made_of() -> None:
    one, two = Member(), Member()
    group = Members([one, two, one], policy="latest", budget=0)
    assert (group.policy, group.budget, len(group), list(group)) == ("latest", 0, 2, [one, two])
    assert (Members[Member]().policy, Members[Member]().budget) == ("drop-newest", 2**20)
    assert one in group
    assert "one" not in group
    for member in group:
        group.discard(member)
        group.discard(member)
    assert (len(group), one.watchers, two.watchers) == (0, [], [])
    with pytest.raises(ValueError, match="policy must be one of drop-newest, .*; not 'drop'"):
        Members(policy="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="budget must not be negative"):
        Members(budget=-1)


def test_members_come_open_and_leave_closed() -> None:
    member, connecting, closing, closed = Member(), Member(0), Member(), Member()
    connecting.state, closing.state, closed.state = State.CONNECTING, State.CLOSING, State.CLOSED
    groups = [Members([member, connecting, closing, closed]) for _ in range(2)]
    for group in groups:
        assert list(group) == [member, connecting]
        assert group.broadcast("x") == (1, 0, 0, 0)  # nothing waits for whoever has yet to open
    member.state = State.CLOSING
    assert groups[0].broadcast("y") == (0, 0, 0, 0)
    member.leave()
    assert [list(group) for group in groups] == [[connecting], [connecting]]
    groups[0]._left(member)  # told twice
    groups[0]._writable(member)


def test_what_waits_goes_with_the_member() -> None:
    for end in (lambda group, member: member.leave(), Members.discard):
        slow = Member(0)
        group = members_of("drop-newest", slow)
        group.broadcast("x")
        assert len(group._backlogs) == 1
        end(group, slow)
        assert not group._backlogs
        slow.state = State.OPEN
        slow.resume()
        assert slow.received == []


def test_what_waits_is_sent_as_far_as_the_member_takes_it() -> None:
    slow = Member(0)
    group = members_of("drop-newest", slow)
    for message in ("one", "two", "three"):
        group.broadcast(message)
    slow.resume(2)
    assert slow.received == [b"one", b"two"]
    slow.resume(1)
    assert slow.received == [b"one", b"two", b"three"]
    assert not group._backlogs


def test_what_waits_goes_first() -> None:
    """A member that can take messages again, but has not said so yet, gets none before those that wait."""
    slow = Member(0)
    group = members_of("drop-newest", slow)
    group.broadcast("one")
    slow.capacity = 10
    assert group.broadcast("two") == (0, 1, 0, 0)
    slow.resume()
    assert slow.received == [b"one", b"two"]


def test_changes_amid_a_broadcast() -> None:
    """What a member's connection calls while it is sent to may change the group."""
    first, leaves, stalls, removed = Member(), Member(), Member(0), Member(0)
    newcomer = Member()
    group = members_of("drop-newest", first, leaves, stalls, removed)

    def meanwhile() -> None:
        leaves.leave()
        group.discard(removed)
        group.add(newcomer)

    first.meanwhile = meanwhile
    assert group.broadcast("x") == (1, 1, 0, 0)
    assert (leaves.received, newcomer.received, removed.received) == ([], [], [])
    assert set(group._backlogs) == {stalls}


def test_removed_while_its_queue_is_sent() -> None:
    slow = Member(0)
    group = members_of("drop-newest", slow)
    for message in ("one", "two"):
        group.broadcast(message)
    slow.meanwhile = lambda: group.discard(slow)
    slow.resume()
    assert slow.received == [b"one"]
    assert not group._backlogs


def test_more_comes_while_a_queue_is_sent() -> None:
    slow = Member(0)
    group = members_of("drop-newest", slow)
    group.broadcast("one")
    slow.meanwhile = lambda: len(slow.received) < 3 and group.broadcast("more")
    slow.resume()
    assert slow.received == [b"one", b"more", b"more"]
    assert not group._backlogs


def test_an_error_is_one_members_own(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Member):
        def _send_prepared(self, prepared: PreparedMessage) -> None:
            raise OSError("broken")

        def _fail(self, code: int, reason: str) -> None:
            raise OSError("broken")

    first, broken, last = Member(), Broken(), Member()
    group = members_of("disconnect", first, broken, last, budget=600)
    assert group.broadcast("x") == (2, 0, 1, 0)
    assert first.received == last.received == [b"x"]
    broken.capacity = 0
    assert group.broadcast("y") == (2, 1, 0, 0)
    broken.resume()
    assert len(group._backlogs) == 0
    broken.capacity = 0
    assert group.broadcast("y") == (2, 1, 0, 0)
    assert group.broadcast("z") == (2, 0, 1, 1)
    assert list(group) == [first, last]
    errors = [(record.message, record.exc_info is not None) for record in caplog.records]
    assert errors == [("broadcast failed", True)] * 3


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [1, None, ["x"], {"a": 1}])
def test_no_message(message: Any) -> None:
    member = Member()
    with pytest.raises(TypeError, match="data must be str or bytes"):
        members_of("drop-newest", member).broadcast(message)


def test_nobody_gets_what_cannot_be_sent() -> None:
    member = Member()
    group = members_of("latest", member)
    with pytest.raises(UnicodeEncodeError):
        group.broadcast("\ud800")
    with pytest.raises(UnicodeDecodeError):
        group.broadcast(b"\xff", text=True)
    with pytest.raises(TypeError, match="unhashable"):
        group.broadcast("x", key=[])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not iterable"):
        group.broadcast("x", exclude=member)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="where the message is prepared"):
        group.broadcast(PreparedMessage("x"), text=False)
    assert member.received == []


def test_messages_are_prepared_once() -> None:
    prepared = PreparedMessage("x")
    assert prepare(prepared, None) is prepared
    assert prepare("x", False).opcode == 2
    assert prepare(memoryview(b"x"), True).opcode == 1
    slow = [Member(0) for _ in range(3)]
    group = members_of("latest", *slow)
    group.broadcast(prepared)
    assert {id(backlog.pop()) for backlog in group._backlogs.values()} == {id(prepared)}
