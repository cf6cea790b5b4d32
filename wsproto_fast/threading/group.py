"""``Group``: messages to many connections, with a policy for those that read slowly. Knows who waits for room."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator
from time import monotonic

from .._payloads import DataLike
from ..constants import State
from ..groups import BroadcastResult, Members, Policy, cost_of, prepare
from ..prepared import PreparedMessage
from .connection import Connection

__all__ = ["Group"]


class Group(Members[Connection]):
    """A set of connections to which messages are sent together, with a rule for those that do not keep up.

    Any thread may use it. Connections leave by themselves when they close; one may be in any number of groups. For each
    member at most ``budget`` bytes wait: messages in its queue, which count as their payload and 500 bytes more, and
    what its connection has accepted and the operating system has not (``buffered_amount``). What becomes of a message
    when more would wait is the ``policy``:

    * ``"drop-newest"``: it is not sent to that member.
    * ``"drop-oldest"``: queued messages go, the oldest first. The newest always stays.
    * ``"latest"``: the same. Besides, and within the budget too, a message takes the place in the queue of the one
      with the same ``key``, so that a key that changes all the time is not put off for ever.
    * ``"disconnect"``: the member is closed with 1008 "too slow", and what waits for it is dropped.
    * ``"wait"``: whoever sends waits, in ``send``.
    """

    def __init__(
        self, connections: Iterable[Connection] = (), *, policy: Policy = "drop-newest", budget: int = 2**20
    ) -> None:
        #: Guards all that ``Members`` keeps. Whoever has it may take a connection's lock, and nobody the other way.
        self._lock = threading.RLock()
        #: Told when a member has more room, or has left.
        self._room = threading.Condition(self._lock)
        #: Messages are sent in the order in which ``send`` was called.
        self._turn = threading.Lock()
        super().__init__(connections, policy=policy, budget=budget)

    def add(self, connection: Connection) -> None:
        """Make a connection a member. One that is closing or closed has left already."""
        with self._lock:
            super().add(connection)
        if connection.state not in (State.CONNECTING, State.OPEN):  # it was about to leave
            self.discard(connection)

    def discard(self, connection: Connection) -> None:
        """Remove a connection if it is a member; what waits for it is dropped."""
        with self._lock:
            super().discard(connection)

    def __iter__(self) -> Iterator[Connection]:
        """Those who are members now: members may come and go meanwhile."""
        with self._lock:
            return super().__iter__()

    def broadcast(
        self,
        message: DataLike | PreparedMessage,
        *,
        exclude: Iterable[Connection] = (),
        key: Hashable = None,
        text: bool | None = None,
    ) -> BroadcastResult:
        """Send a message to all members but those to ``exclude``. Never waits.

        It is framed once, and compressed once for all members that agreed on the same way to compress. Members that
        can take it are sent it; for the others it is queued, and sent when they can. When more than the budget would
        wait for a member, the policy decides. ``text=True`` sends (UTF-8) bytes as text, ``text=False`` a ``str`` as
        binary. ``key`` is for the policy "latest".

        An error with one member is logged, and counts as dropped. Raises TypeError when ``message`` is neither str
        nor bytes-like nor a PreparedMessage, and RuntimeError when the policy is "wait".
        """
        with self._lock:
            return super().broadcast(message, exclude=exclude, key=key, text=text)

    def send(
        self,
        message: DataLike | PreparedMessage,
        *,
        exclude: Iterable[Connection] = (),
        key: Hashable = None,
        text: bool | None = None,
        timeout: float | None = None,
    ) -> BroadcastResult:
        """As ``broadcast``, but with the policy "wait" waits until every member has room for the message, for
        ``timeout`` seconds at most.

        Members that leave are no longer waited for. With TimeoutError it has sent to nobody.
        """
        prepared = prepare(message, text)
        excluded = set(exclude)
        if self._policy != "wait":
            with self._lock:
                return self._spread(prepared, self._targets(excluded), key)
        deadline = None if timeout is None else monotonic() + timeout
        if not self._turn.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX)):
            raise TimeoutError("timed out while waiting for members to read")
        try:
            with self._room:
                cost = cost_of(prepared)
                rest = None if deadline is None else min(deadline - monotonic(), threading.TIMEOUT_MAX)
                if not self._room.wait_for(lambda: self._all_have_room(cost, excluded), rest):
                    raise TimeoutError("timed out while waiting for members to read")
                return self._spread(prepared, self._targets(excluded), key)
        finally:
            self._turn.release()

    def _all_have_room(self, cost: int, excluded: set[Connection]) -> bool:
        return all(
            self._has_room(connection, cost) or connection.state is not State.OPEN
            for connection in self._targets(excluded)
        )

    # From members, in the thread of the poller or one that closes

    def _writable(self, connection: Connection) -> None:
        with self._lock:
            super()._writable(connection)

    def _left(self, connection: Connection) -> None:
        with self._lock:
            super()._left(connection)

    def _on_change(self, connection: Connection) -> None:
        with self._room:
            self._room.notify_all()
