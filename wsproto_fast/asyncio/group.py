"""``Group``: messages to many connections, with a policy for those that read slowly. Knows who waits for room, and what
a bus is told."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable, Iterable, Sequence

from .._payloads import DataLike
from ..constants import State
from ..groups import BroadcastResult, Bus, Deliver, Members, Policy, cost_of, prepare
from ..prepared import PreparedMessage
from . import _compat
from ._core import send_to_ready
from .connection import Connection

__all__ = ["Group"]


class Group(Members[Connection]):
    """A set of connections to which messages are sent together, with a rule for those that do not keep up.

    Connections leave by themselves when they close; one may be in any number of groups. For each member at most
    ``budget`` bytes wait: messages in its queue, which count as their payload and 500 bytes more, and what its
    connection has accepted and the operating system has not (``buffered_amount``). What becomes of a message when
    more would wait is the ``policy``:

    * ``"drop-newest"``: it is not sent to that member.
    * ``"drop-oldest"``: queued messages go, the oldest first. The newest always stays.
    * ``"latest"``: the same. Besides, and within the budget too, a message takes the place in the queue of the one
      with the same ``key``, so that a key that changes all the time is not put off for ever.
    * ``"disconnect"``: the member is closed with 1008 "too slow", and what waits for it is dropped.
    * ``"wait"``: whoever sends waits, in ``send``.

    A message larger than the budget is sent to members that can take one at once; for others the policy decides. So
    no more can wait for a member than the budget, or one larger message, and its connection's ``write_limit``.

    With a ``bus``, such as ``contrib.redis.RedisBus``, messages go to the members of all groups of that ``channel``,
    in whatever process, and each applies its own policy. ``exclude`` and the results are about members here. Keys are
    ``str``, ``bytes``, ``int`` or None then. ``broadcast`` and ``send`` do not wait for a bus, and "wait" has none. A
    group leaves its bus when nobody refers to it any more, members included.
    """

    def __init__(
        self,
        connections: Iterable[Connection] = (),
        *,
        policy: Policy = "drop-newest",
        budget: int = 2**20,
        bus: Bus | None = None,
        channel: str = "group",
    ) -> None:
        if bus is not None and policy == "wait":
            raise ValueError('a group with a bus cannot wait for members of other processes: use a policy but "wait"')
        #: While somebody waits for room: the members without it, how much is needed, and who waits.
        self._full: set[Connection] = set()
        self._cost = 0
        self._room: asyncio.Future[None] | None = None
        #: Messages are sent in the order in which ``send`` was called.
        self._turn = asyncio.Lock()
        super().__init__(connections, policy=policy, budget=budget)
        self._bus = bus
        self._channel = channel
        self._deliver = _deliver_to(weakref.ref(self))
        if bus is not None:
            bus.join(channel, self._deliver)
            weakref.finalize(self, bus.leave, channel, self._deliver).atexit = False

    async def send(
        self,
        message: DataLike | PreparedMessage,
        *,
        exclude: Iterable[Connection] = (),
        key: Hashable = None,
        text: bool | None = None,
        timeout: float | None = None,
    ) -> BroadcastResult:
        """As ``broadcast``, but lets other tasks run first, and with the policy "wait" waits until every member has
        room for the message, for ``timeout`` seconds at most.

        Members that leave are no longer waited for. Cancelled, or with TimeoutError, it has sent to nobody.
        """
        prepared = prepare(message, text)
        excluded = set(exclude)
        await asyncio.sleep(0)  # a loop of sends must not keep output from leaving
        if self._policy != "wait":
            return self._spread(prepared, self._targets(excluded), key)
        async with _compat.timeout(timeout), self._turn:
            await self._room_for(cost_of(prepared), excluded)
            return self._spread(prepared, self._targets(excluded), key)

    def _spread(
        self, prepared: PreparedMessage, targets: Sequence[Connection], key: Hashable
    ) -> BroadcastResult:
        if self._bus is not None:
            self._bus.publish(self._channel, prepared, key, self._deliver)
        return super()._spread(prepared, targets, key)

    def _spread_here(self, prepared: PreparedMessage, key: Hashable) -> None:
        """What has come by the bus."""
        super()._spread(prepared, self._targets(()), key)

    def _targets(self, exclude: Iterable[Connection]) -> Sequence[Connection]:
        for connection in self._members:
            connection._check_thread()
            break  # the others are of the same loop
        return super()._targets(exclude)

    def _send_to_ready(self, prepared: PreparedMessage, targets: Sequence[Connection]) -> Sequence[Connection]:
        return send_to_ready(targets, prepared)

    async def _room_for(self, cost: int, excluded: set[Connection]) -> None:
        self._cost = cost
        while True:
            targets = self._targets(excluded)
            self._full = {connection for connection in targets if self._keeps_waiting(connection)}
            if not self._full:
                return
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._full = set()
                self._room = None

    def _keeps_waiting(self, connection: Connection) -> bool:
        return not self._has_room(connection, self._cost) and connection.state is State.OPEN

    def _on_change(self, connection: Connection) -> None:
        if connection in self._full and not (connection in self._members and self._keeps_waiting(connection)):
            self._full.remove(connection)
            if not self._full and self._room is not None and not self._room.done():
                self._room.set_result(None)


def _deliver_to(reference: weakref.ref[Group]) -> Deliver:
    """For a bus: it must not keep a group alive."""

    def deliver(prepared: PreparedMessage, key: Hashable) -> None:
        group = reference()
        if group is not None:
            group._spread_here(prepared, key)

    return deliver
