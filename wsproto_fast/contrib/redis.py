"""``RedisBus``: groups of many processes and machines as one, by what Redis publishes. Needs the package redis.

Knows when Redis is there, and what waits while it is not; knows no members, and what an envelope says is ``Post``'s.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Callable, Hashable, Iterable
from threading import get_ident
from types import TracebackType
from typing import Any, NamedTuple

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from .._reconnecting import Attempts
from ..asyncio._compat import timeout as time_limit
from ..backoff import backoff
from ..groups import Deliver
from ..prepared import PreparedMessage
from ._envelope import Foreign, Post

__all__ = ["BusStats", "RedisBus"]

_logger = logging.getLogger("wsproto_fast.bus")

#: What means that Redis is away, and no defect of ours.
_AWAY = (RedisError, OSError, TimeoutError)
#: What another attempt does not mend: wrong password, missing permission. (Redis' package counts them as its losses.)
_REFUSED = (AuthenticationError, AuthorizationError, ResponseError)
#: Bytes that are sent to Redis before its answer is awaited; one message may be larger.
_BATCH = 2**18
#: What a waiting message costs besides its bytes: two objects and their place.
_OVERHEAD = 200


def _delays() -> Iterable[float]:
    """Between attempts. The first is random: all processes lose Redis at once, and should not come back so."""
    return backoff(initial_delay=1, min_delay=0.5, max_delay=15)


class BusStats(NamedTuple):
    """Counters of a bus."""

    published: int  #: messages that Redis took
    received: int  #: messages of other processes
    dropped: int  #: messages of ours that other processes will not get: too many while Redis was away, or refused by it
    rejected: int  #: what came on our channels and is no message of ours
    gaps: int  #: times that the subscriptions were lost and are back: what others sent meanwhile is missing here


class _Outbox:
    """What waits for Redis, at most ``limit`` bytes, oldest first. Over that the oldest go."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: collections.deque[tuple[bytes, bytes]] = collections.deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, channel: bytes, data: bytes) -> int:
        """Returns how many were dropped for it, itself perhaps included."""
        self._waiting.append((channel, data))
        self.size += len(data) + _OVERHEAD
        return self._shed()

    def put_back(self, batch: list[tuple[bytes, bytes]]) -> int:
        """What ``take`` gave comes first again. Returns how many were dropped."""
        self._waiting.extendleft(reversed(batch))
        self.size += sum(len(data) + _OVERHEAD for _, data in batch)
        return self._shed()

    def _shed(self) -> int:
        dropped = 0
        while self.size > self._limit:
            self._pop()
            dropped += 1
        return dropped

    def _pop(self) -> tuple[bytes, bytes]:
        channel, data = self._waiting.popleft()
        self.size -= len(data) + _OVERHEAD
        return channel, data

    def take(self) -> list[tuple[bytes, bytes]]:
        """The oldest, about ``_BATCH`` bytes of them."""
        batch = []
        size = 0
        while self._waiting and size < _BATCH:
            batch.append(self._pop())
            size += len(batch[-1][1])
        return batch


class RedisBus:
    """A bus for groups: ``Group(bus=RedisBus("redis://localhost"))``. Enter it (``async with``) in their event loop.

    ``url`` is that of the package redis: ``redis://user:password@host:6379``, ``rediss://`` for TLS, ``unix://path``,
    with its options in the query. A group's channel is called ``prefix + channel`` in Redis, whatever the database.

    Messages go to members here at once, whether Redis is there or not; to other processes in the order in which each
    process sent them, at most once. **Redis keeps nothing for subscribers that are away.** While it cannot be reached,
    or does not answer for ``timeout`` seconds, this process

    * tries again and again, 15 seconds apart in the end, and subscribes anew;
    * keeps what its groups send and sends it then: at most ``outbox`` bytes, over which the oldest messages are dropped
      and counted. What is sent faster than Redis takes it waits there too;
    * misses what others send. When it is back, that is counted as a gap and ``on_gap()`` is called: a plain function
      that may, for example, tell clients to load again what they show.

    Anything on a channel that is not of this version of ours is counted and ignored. Still, whoever may publish in
    Redis may speak to your clients. With a ``secret``, bytes that all processes share, messages are signed
    (HMAC-SHA256) and others rejected; they are not encrypted.

    Raises ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "wsproto_fast:",
        secret: bytes | None = None,
        outbox: int = 2**23,
        timeout: float = 10.0,
        on_gap: Callable[[], object] | None = None,
    ) -> None:
        retry = Retry(NoBackoff(), 0)  # when to try again is our business
        self._pool: Any = ConnectionPool.from_url(url, protocol=2, socket_connect_timeout=timeout, retry=retry)
        # It would be waited for with asyncio.wait_for(), which before Python 3.12 may swallow that it is cancelled.
        self._pool.connection_kwargs["socket_timeout"] = None
        if self._pool.connection_kwargs["protocol"] != 2:  # RESP3 has another form for what is subscribed to
            raise ValueError("a Redis URL for RedisBus must not ask for another protocol than 2")
        self._prefix = prefix
        self._post = Post(secret)
        self._timeout = timeout
        self._on_gap = on_gap
        self._receivers: dict[bytes, tuple[Deliver, ...]] = {}
        self._outbox = _Outbox(outbox)
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closed = False
        #: The connections to Redis: one subscribes, the other publishes.
        self._links: tuple[Any, ...] = ()
        #: Channels that the present connection was asked for, and those that it has confirmed.
        self._requested: set[bytes] = set()
        self._subscribed: set[bytes] = set()
        #: The subscriber has something to say.
        self._changed = asyncio.Event()
        #: Something came since somebody last looked; nothing did, so Redis is to be asked for a sign of life.
        self._heard = False
        self._ping_is_due = False
        #: Something waits in the outbox; nothing waits, and nothing is on its way.
        self._mail = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connected = False
        #: All subscriptions are confirmed.
        self._settled = asyncio.Event()
        #: Since when it is known that messages of others are missed: there was an attempt that failed, or a loss.
        self._gap = False
        self._published = self._received = self._dropped = self._rejected = self._gaps = 0

    # Life

    async def start(self) -> None:
        """Connect, and stay so until ``close``.

        Raises what redis raises where another attempt would not help, such as AuthenticationError for a wrong password.
        Where Redis is not there it goes on trying, and does not raise.
        """
        if self._loop is not None:
            raise RuntimeError("a bus is started once")
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        error: Exception | None = None
        try:
            await self._connect()
        except _REFUSED:
            self._closed = True
            raise
        except _AWAY as exc:
            error = exc
        self._task = self._loop.create_task(self._keep(error))

    async def close(self) -> None:
        """Send what waits, if Redis is there, for ``timeout`` seconds at most; then disconnect.

        What cannot be sent any more, now or later, counts as dropped.
        """
        task, self._task = self._task, None
        if task is not None:
            if self._connected:
                with contextlib.suppress(TimeoutError):
                    async with time_limit(self._timeout):
                        await self._idle.wait()
            task.cancel()
            await asyncio.wait([task])
            await self._disconnect()  # the task may never have begun
        self._closed = True
        while self._outbox:
            self._count_dropped(len(self._outbox.take()))

    async def __aenter__(self) -> RedisBus:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether Redis is there, as far as we know."""
        return self._connected

    @property
    def pending(self) -> int:
        """How many messages wait for Redis."""
        return len(self._outbox)

    @property
    def stats(self) -> BusStats:
        """Counters so far."""
        return BusStats(self._published, self._received, self._dropped, self._rejected, self._gaps)

    async def ready(self) -> None:
        """Wait until Redis has confirmed all subscriptions: from then on, nothing that others send is missed."""
        await self._settled.wait()

    # What groups call: see wsproto_fast.groups.Bus

    def join(self, channel: str, deliver: Deliver) -> None:
        self._check_thread()
        name = self._name(channel)
        self._receivers[name] = (*self._receivers.get(name, ()), deliver)
        if name not in self._subscribed:
            self._settled.clear()
            self._changed.set()

    def leave(self, channel: str, deliver: Deliver) -> None:
        if self._loop is None:
            self._remove(self._name(channel), deliver)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._remove, self._name(channel), deliver)

    def _remove(self, name: bytes, deliver: Deliver) -> None:
        rest = tuple(one for one in self._receivers[name] if one is not deliver)
        if rest:
            self._receivers[name] = rest
        else:
            del self._receivers[name]
            self._changed.set()

    def publish(self, channel: str, message: PreparedMessage, key: Hashable, sender: Deliver) -> None:
        self._check_thread()
        name = self._name(channel)
        envelope = self._post.seal(name, message, key)
        self._deliver(name, message, key, sender)
        if self._closed:
            self._count_dropped(1)
            return
        self._count_dropped(self._outbox.put(name, envelope))
        if self._outbox:
            self._idle.clear()
            self._mail.set()

    def _name(self, channel: str) -> bytes:
        return (self._prefix + channel).encode()

    def _check_thread(self) -> None:
        if self._thread not in (0, get_ident()):
            raise RuntimeError("a bus must be used in the thread of its event loop; see loop.call_soon_threadsafe()")

    def _deliver(self, name: bytes, message: PreparedMessage, key: Hashable, sender: Deliver | None) -> None:
        for deliver in self._receivers.get(name, ()):
            if deliver is not sender:
                try:
                    deliver(message, key)
                except Exception:
                    _logger.exception("a group failed")

    def _count_dropped(self, count: int) -> None:
        if count and not self._dropped:
            _logger.warning("messages for other processes are dropped; RedisBus.stats counts them")
        self._dropped += count

    # Being connected

    async def _connect(self) -> None:
        self._links = self._pool.make_connection(), self._pool.make_connection()
        try:
            async with time_limit(self._timeout):
                for link in self._links:
                    await _open(link)
        except BaseException:
            await self._disconnect()
            raise
        self._connected = True

    async def _disconnect(self) -> None:
        self._connected = False
        self._settled.clear()
        for link in self._links:
            with contextlib.suppress(*_AWAY):
                await link.disconnect(nowait=True)

    async def _keep(self, error: Exception | None) -> None:
        """Be connected whenever Redis is there. The first attempt has been made, and may have failed."""
        assert self._loop is not None
        attempts = Attempts(("redis",), _delays)
        while True:
            opened_at = None
            try:
                if error is None:
                    if not self._connected:
                        await self._connect()
                    opened_at = self._loop.time()
                    await self._attend()
            except Exception as exc:
                error = exc
            assert error is not None
            delay = attempts.ended(None if opened_at is None else self._loop.time() - opened_at)
            assert delay is not None
            self._report(error, delay)
            error = None
            await asyncio.sleep(delay)

    def _report(self, error: Exception, delay: float) -> None:
        """One line for each time that Redis goes away; more attempts are for who looks closely."""
        level = logging.DEBUG if self._gap else logging.WARNING
        self._gap = True
        trace = None if isinstance(error, _AWAY) else error
        described = f"{type(error).__name__}: {error}"
        _logger.log(level, "Redis is away, next attempt in %.1f seconds: %s", delay, described, exc_info=trace)

    async def _attend(self) -> None:
        """Use the connections until one fails, which is raised."""
        self._requested, self._subscribed = set(), set()
        self._changed.set()
        subscriber, publisher = self._links
        jobs = [
            asyncio.ensure_future(job)
            for job in (self._listen(subscriber), self._subscribe(subscriber), self._send(publisher), self._watch())
        ]
        try:
            done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            await self._disconnect()

    # Receiving

    async def _listen(self, link: Any) -> None:
        while True:
            reply = await link.read_response(disable_decoding=True)
            self._heard = True
            if isinstance(reply, list):  # else it is the answer to a Ping without subscriptions
                self._on_reply(reply)

    async def _watch(self) -> None:
        """Ask Redis for a sign of life when it is silent. Raises TimeoutError when it gives none."""
        while True:
            self._heard = False
            await asyncio.sleep(self._timeout)
            if not self._heard:
                self._ping_is_due = True
                self._changed.set()
                await asyncio.sleep(self._timeout)
                if not self._heard:
                    raise TimeoutError(f"no answer for {self._timeout:g} seconds")

    def _on_reply(self, reply: list[Any]) -> None:
        kind, channel = reply[:2]
        if kind == b"message":
            self._receive(channel, reply[2])
        elif kind == b"subscribe":
            self._subscribed.add(channel)
            self._check_settled()
        # else it confirms that we have left a channel, or that Redis lives

    def _receive(self, channel: bytes, data: bytes) -> None:
        try:
            opened = self._post.open(channel, data)
        except Foreign as exc:
            self._rejected += 1
            level = logging.WARNING if self._rejected == 1 else logging.DEBUG
            _logger.log(level, "rejected what is no message of ours on channel %r: %s", channel, exc)
            return
        if opened is not None:
            self._received += 1
            self._deliver(channel, opened.message, opened.key, None)

    async def _subscribe(self, link: Any) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = set(self._receivers)
            new, old = wanted - self._requested, self._requested - wanted
            commands: list[tuple[bytes, ...]] = []
            if new:
                commands.append((b"SUBSCRIBE", *new))
            if old:
                commands.append((b"UNSUBSCRIBE", *old))
            if self._ping_is_due:
                commands.append((b"PING",))
                self._ping_is_due = False
            self._requested = wanted
            self._subscribed -= old
            if commands:
                await link.send_packed_command(link.pack_commands(commands), check_health=False)
            self._check_settled()

    def _check_settled(self) -> None:
        if self._settled.is_set() or not self._subscribed.issuperset(self._receivers):
            return
        self._settled.set()
        if self._gap:
            self._gap = False
            self._gaps += 1
            _logger.info("Redis is back")
            if self._on_gap is not None:
                try:
                    self._on_gap()
                except Exception:
                    _logger.exception("on_gap failed")

    # Sending

    async def _send(self, link: Any) -> None:
        while True:
            await self._mail.wait()
            batch = self._outbox.take()
            try:
                async with time_limit(self._timeout):
                    await self._exchange(link, batch)
            except BaseException:
                # Some of it may have arrived; whoever got that knows it by its number.
                self._count_dropped(self._outbox.put_back(batch))
                raise
            if not self._outbox:
                self._mail.clear()
                self._idle.set()

    async def _exchange(self, link: Any, batch: list[tuple[bytes, bytes]]) -> None:
        """Publish, and wait until Redis has taken or refused each."""
        await link.send_packed_command(
            link.pack_commands([(b"PUBLISH", channel, data) for channel, data in batch]), check_health=False
        )
        refusals = []
        for _ in batch:
            try:
                await link.read_response()
            except ResponseError as exc:
                refusals.append(exc)
        if refusals:
            _logger.warning("Redis refused %d messages: %s", len(refusals), refusals[-1])
        self._published += len(batch) - len(refusals)
        self._count_dropped(len(refusals))


async def _open(link: Any) -> None:
    """Raises what Redis has against us: it lets anybody connect, and may want a password for all that follows."""
    await link.connect()
    await link.send_command("PING", check_health=False)
    await link.read_response()
