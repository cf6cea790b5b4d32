"""Groups: who gets a message at once, for whom it waits, and what goes when too much waits.

Knows members by what a ``Member`` can do; knows no I/O, no waiting and no locks: an adapter calls from one place at a
time.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, get_args

from ._payloads import DataLike, DataTypes
from .constants import CloseCode, State
from .prepared import PreparedMessage

__all__ = [
    "Backlog",
    "BroadcastResult",
    "Bus",
    "Deliver",
    "Member",
    "Members",
    "Outcome",
    "Policy",
    "cost_of",
    "prepare",
]

Policy = Literal["drop-newest", "drop-oldest", "latest", "disconnect", "wait"]

#: What a queued message costs besides its payload: itself and its place in a queue, on CPython 3.11 at most 450 bytes.
_OVERHEAD = 500


class BroadcastResult(NamedTuple):
    """What became of one message. Members that are not open, excluded or gone are in none of the counts."""

    sent: int  #: members whose connection has it
    queued: int  #: members for which it waits
    dropped: int  #: messages dropped for this one: itself, or older ones, each for one member
    disconnected: int  #: members disconnected because too much waited for them


class Member(Protocol):
    """What a connection gives to its groups. They are told ``_writable(connection)`` when it may be ready again, and
    ``_left(connection)`` when it will send no more."""

    @property
    def state(self) -> State: ...

    @property
    def buffered_amount(self) -> int: ...

    @property
    def logger(self) -> Any: ...

    def _ready(self) -> bool: ...

    def _send_prepared(self, prepared: PreparedMessage) -> None: ...

    def _fail(self, code: int, reason: str) -> None: ...

    def _watch(self, watcher: Any) -> None: ...

    def _unwatch(self, watcher: Any) -> None: ...


#: How a bus hands a message, and its key, to a group.
Deliver: TypeAlias = Callable[[PreparedMessage, Hashable], None]


class Bus(Protocol):
    """What a group needs to reach the groups of other processes. But for ``leave`` all of it is called in the thread of
    the event loop, and none of it waits."""

    def join(self, channel: str, deliver: Deliver) -> None:
        """From now on, call ``deliver(message, key)`` for what others publish on the channel, in the event loop."""

    def leave(self, channel: str, deliver: Deliver) -> None:
        """Do so no more. May be called in any thread, amid anything: the garbage collector does."""

    def publish(self, channel: str, message: PreparedMessage, key: Hashable, sender: Deliver) -> None:
        """Give a message once to everybody who has joined the channel, here and elsewhere, but to ``sender``.

        Raises TypeError or ValueError, and has sent nothing, for a key that cannot travel. That nobody can be reached
        is no error: the members here get the message all the same.
        """


M = TypeVar("M", bound=Member)


def prepare(message: DataLike | PreparedMessage, text: bool | None) -> PreparedMessage:
    """The message framed once for all. Raises TypeError for anything that is no whole message."""
    if isinstance(message, PreparedMessage):
        if text is not None:
            raise TypeError("text= belongs to where the message is prepared")
        return message
    if not isinstance(message, DataTypes):
        raise TypeError("data must be str or bytes")
    return PreparedMessage(message, text=text)


def cost_of(prepared: PreparedMessage) -> int:
    """What a queued message counts for in a budget. So do empty ones, or they could wait without bound."""
    return len(prepared.payload) + _OVERHEAD


class Outcome(enum.Enum):
    """What a policy decides about a message for a member that cannot take it now."""

    QUEUED = enum.auto()
    DROPPED = enum.auto()
    TOO_SLOW = enum.auto()


class Backlog:
    """The messages that wait for one member, oldest first; ``size`` is their cost."""

    __slots__ = ("_messages", "_policy", "size")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        # By key; a message that nothing may replace has one of its own.
        self._messages: OrderedDict[Hashable, PreparedMessage] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._messages)

    def offer(self, prepared: PreparedMessage, key: Hashable, room: int) -> tuple[Outcome, int]:
        """Decide about a message when the backlog should not grow over ``room``, which may be negative.

        Returns what became of it, and how many older ones were dropped for it.
        """
        if self._policy == "drop-oldest" or self._policy == "latest":
            name = key if key is not None and self._policy == "latest" else object()
            older = self._put(name, prepared) + self._shed(name, room)
            return Outcome.QUEUED, older
        if self._policy != "wait" and cost_of(prepared) > room - self.size:
            return (Outcome.DROPPED if self._policy == "drop-newest" else Outcome.TOO_SLOW), 0
        return Outcome.QUEUED, self._put(object(), prepared)

    def _put(self, name: Hashable, prepared: PreparedMessage) -> int:
        """Queue a message, in the place of the one of that name if there is one; returns how many it replaced."""
        replaced = self._messages.get(name)
        self._messages[name] = prepared
        self.size += cost_of(prepared)
        if replaced is None:
            return 0
        self.size -= cost_of(replaced)
        return 1

    def _shed(self, newest: Hashable, room: int) -> int:
        """Drop the oldest but for ``newest``, which stays even if it is too large alone; returns how many."""
        dropped = 0
        while self.size > room and len(self._messages) > 1:
            names = iter(self._messages)
            oldest = next(names)
            if oldest == newest:  # it took the place of the oldest
                oldest = next(names)
            self.size -= cost_of(self._messages.pop(oldest))
            dropped += 1
        return dropped

    def pop(self) -> PreparedMessage:
        """Take the oldest."""
        _, prepared = self._messages.popitem(last=False)
        self.size -= cost_of(prepared)
        return prepared

    def clear(self) -> None:
        """Drop all."""
        self._messages.clear()
        self.size = 0


class Members(Generic[M]):
    """A set of connections and what waits for each. What a ``Group`` is, but for waiting."""

    def __init__(self, connections: Iterable[M] = (), *, policy: Policy = "drop-newest", budget: int = 2**20) -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}; not {policy!r}")
        if budget < 0:
            raise ValueError("budget must not be negative")
        self._policy: Policy = policy
        self._budget = budget
        self._members: dict[M, None] = {}
        #: Of members for which something waits.
        self._backlogs: dict[M, Backlog] = {}
        #: Of all messages so far: sent, queued, dropped, disconnected.
        self._totals = [0, 0, 0, 0]
        for connection in connections:
            self.add(connection)

    @property
    def policy(self) -> Policy:
        """What becomes of messages for a member when more than ``budget`` would wait for it."""
        return self._policy

    @property
    def budget(self) -> int:
        """How many bytes may wait for one member."""
        return self._budget

    @property
    def totals(self) -> BroadcastResult:
        """The sums of the results of all messages so far."""
        return BroadcastResult(*self._totals)

    def add(self, connection: M) -> None:
        """Make a connection a member. One that is closing or closed has left already."""
        if connection not in self._members and connection.state in (State.CONNECTING, State.OPEN):
            connection._watch(self)
            self._members[connection] = None

    def discard(self, connection: M) -> None:
        """Remove a connection if it is a member; what waits for it is dropped."""
        if connection in self._members:
            connection._unwatch(self)
            self._forget(connection)

    def __contains__(self, connection: object) -> bool:
        return connection in self._members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        """Those who are members now: members may come and go meanwhile."""
        return iter(tuple(self._members))

    def broadcast(
        self,
        message: DataLike | PreparedMessage,
        *,
        exclude: Iterable[M] = (),
        key: Hashable = None,
        text: bool | None = None,
    ) -> BroadcastResult:
        """Send a message to all members but those to ``exclude``. Never waits.

        It is framed once, and compressed once for all members that agreed on the same way to compress. Members that
        can take it are sent it with the end of this turn of the loop; for the others it is queued, and sent when they
        can. When more than the budget would wait for a member, the policy decides. ``text=True`` sends (UTF-8) bytes
        as text, ``text=False`` a ``str`` as binary. ``key`` is for the policy "latest".

        An error with one member is logged, and counts as dropped. Raises TypeError when ``message`` is neither str
        nor bytes-like nor a PreparedMessage, and RuntimeError when the policy is "wait".
        """
        if self._policy == "wait":
            raise RuntimeError('broadcast() never waits, as the policy "wait" demands: use send()')
        return self._spread(prepare(message, text), self._targets(exclude), key)

    # Sending

    def _targets(self, exclude: Iterable[M]) -> Sequence[M]:
        excluded = set(exclude)
        if excluded:
            return [connection for connection in self._members if connection not in excluded]
        return tuple(self._members)

    def _spread(self, prepared: PreparedMessage, targets: Sequence[M], key: Hashable) -> BroadcastResult:
        hash(key)  # raises here, before anybody was sent the message
        sent = queued = dropped = disconnected = 0
        backlogs = self._backlogs
        if not backlogs:
            others = self._send_to_ready(prepared, targets)
            sent = len(targets) - len(others)
            targets = others
        for connection in targets:
            try:
                if connection._ready() and connection not in backlogs:
                    connection._send_prepared(prepared)
                    sent += 1
                elif connection in self._members and connection.state is State.OPEN:
                    outcome, older = self._hold(connection, prepared, key)
                    dropped += older
                    if outcome is Outcome.QUEUED:
                        queued += 1
                    elif outcome is Outcome.DROPPED:
                        dropped += 1
                    else:
                        disconnected += 1
                        self.discard(connection)
                        connection._fail(CloseCode.POLICY_VIOLATION, "too slow")
            except Exception:
                connection.logger.error("broadcast failed", exc_info=True)
                dropped += 1
        result = BroadcastResult(sent, queued, dropped, disconnected)
        for i, count in enumerate(result):
            self._totals[i] += count
        return result

    def _send_to_ready(self, prepared: PreparedMessage, targets: Sequence[M]) -> Sequence[M]:
        """Send to members that can take it at once, if there is a quick way to; returns the others."""
        return targets

    def _hold(self, connection: M, prepared: PreparedMessage, key: Hashable) -> tuple[Outcome, int]:
        backlog = self._backlogs.get(connection)
        if backlog is None:  # it may be there and empty, when its last message is on its way
            backlog = Backlog(self._policy)
        outcome = backlog.offer(prepared, key, self._budget - connection.buffered_amount)
        if backlog:
            self._backlogs[connection] = backlog
        return outcome

    def _has_room(self, connection: M, cost: int) -> bool:
        """Whether a message of that cost can be sent or queued within the budget."""
        backlog = self._backlogs.get(connection)
        if backlog is None:
            return connection._ready() or cost <= self._budget - connection.buffered_amount
        return cost <= self._budget - connection.buffered_amount - backlog.size

    # From members

    def _writable(self, connection: M) -> None:
        backlog = self._backlogs.get(connection)
        if backlog is not None:
            while backlog and connection._ready():
                try:
                    connection._send_prepared(backlog.pop())
                except Exception:
                    connection.logger.error("broadcast failed", exc_info=True)
            if not backlog:
                self._backlogs.pop(connection, None)
        self._on_change(connection)

    def _left(self, connection: M) -> None:
        if connection in self._members:
            self._forget(connection)

    def _forget(self, connection: M) -> None:
        del self._members[connection]
        backlog = self._backlogs.pop(connection, None)
        if backlog is not None:
            backlog.clear()  # it may be on its way to the connection
        self._on_change(connection)

    def _on_change(self, connection: M) -> None:
        """A member may have more room than before, or has left."""
