"""``Metrics``: connections and groups as metrics. Needs the package prometheus-client.

Reads the counters that connections keep anyway, when it is scraped; is told of their beginnings, ends and pongs, and of
no message. Knows no HTTP.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..constants import CloseCode
from ..exceptions import InvalidState
from ..observer import Observer

__all__ = ["PING_BUCKETS", "Metrics"]

#: Upper bounds in seconds: from the same machine to a phone with bad reception.
PING_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Of ``Stats``: name of the metric, what it is, and the fields for both directions.
_COUNTED = (
    ("messages", "Whole messages.", "messages_received", "messages_sent"),
    ("wire_bytes", "Bytes on the wire, without TLS.", "bytes_received", "bytes_sent"),
    ("inflated_bytes", "The same without compression.", "inflated_bytes_received", "inflated_bytes_sent"),
)
_DIRECTIONS = ("received", "sent")
_FIELDS = tuple(field for _, _, *fields in _COUNTED for field in fields)
_counts = operator.attrgetter(*_FIELDS)


class Metrics(Observer, Collector):
    """An observer for any number of servers and clients, of either adapter: ``serve(..., observer=Metrics())``.

    It registers itself with ``registry``, under names that begin with ``prefix`` and an underscore:

    * ``connections``: open now; ``connections_opened_total``;
    * ``connections_closed_total``, by ``code`` and ``by``: who sent the first Close frame, ``peer`` or ``here``, and
      with which code; ``nobody`` and 1006 if there was none. Peers choose among 2000 codes from 3000 on: theirs are
      counted as ``3xxx`` and ``4xxx``;
    * ``messages_total``, ``wire_bytes_total``, ``inflated_bytes_total``, by ``direction``: ``received``, ``sent``;
    * ``ping_seconds``: a histogram of round-trip times, of keepalive and other Pings;
    * of each group that ``watch`` was told of: ``group_members`` and ``group_messages_total``, by ``group``, ``policy``
      and ``outcome``: ``sent``, ``queued``, ``dropped``, ``disconnected``.

    A scrape may come in any thread. Messages still unread, behind a full queue, when their connection ended are not
    counted.
    """

    def __init__(
        self,
        *,
        prefix: str = "wsproto_fast",
        ping_buckets: Sequence[float] = PING_BUCKETS,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self._prefix = prefix
        #: Guards all below: a scrape must not see a connection among the open ones and among the sums.
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self._opened = 0
        self._closed: Counter[tuple[str, str]] = Counter()
        #: Of connections that are closed, in the order of _FIELDS.
        self._sums = [0] * len(_FIELDS)
        self._groups: dict[str, weakref.ref[Any]] = {}
        self._pings = Histogram(
            f"{prefix}_ping_seconds", "Round-trip times of Pings.", buckets=ping_buckets, registry=None
        )
        if registry is not None:
            registry.register(self)

    def watch(self, group: Any, name: str) -> None:
        """Tell of a group too, as long as it lives. Raises ValueError while another has that name.

        Each name is some time series more for ever: fit for a handful of groups, not for one per room.
        """
        with self._lock:
            if self._watched(name) not in (None, group):
                raise ValueError(f"a group is called {name!r} already")
            self._groups[name] = weakref.ref(group)

    def _watched(self, name: str) -> Any:
        reference = self._groups.get(name)
        return None if reference is None else reference()

    # Observer

    def connection_opened(self, connection: Any) -> None:
        with self._lock:
            self._opened += 1
            self._open.add(connection)

    def connection_closed(self, connection: Any) -> None:
        ending = _ending(connection.protocol)
        stats = connection.stats
        with self._lock:
            self._open.discard(connection)
            self._closed[ending] += 1
            self._sums = _plus(self._sums, stats)

    def pong_received(self, connection: Any, latency: float | None) -> None:
        if latency is not None:
            self._pings.observe(latency)

    # Collector

    def collect(self) -> Iterator[Metric]:
        """What there is to tell now."""
        with self._lock:
            opened = self._opened
            connections = len(self._open)
            closed = dict(self._closed)
            sums = self._sums
            for connection in self._open:
                with contextlib.suppress(InvalidState):  # in another thread, it is just about to open
                    sums = _plus(sums, connection.stats)
            groups = [(name, group) for name in self._groups if (group := self._watched(name)) is not None]
            self._groups = {name: weakref.ref(group) for name, group in groups}
        yield self._gauge("connections", "Connections that are open.", connections)
        yield self._counter("connections_opened", "Connections that were opened.", [], [((), opened)])
        yield self._counter("connections_closed", "Connections that have ended.", ["code", "by"], closed.items())
        count = dict(zip(_FIELDS, sums, strict=True))
        for name, documentation, *fields in _COUNTED:
            samples = [((direction,), count[field]) for direction, field in zip(_DIRECTIONS, fields, strict=True)]
            yield self._counter(name, documentation, ["direction"], samples)
        yield from self._pings.collect()
        yield from self._of_groups(groups)

    def _of_groups(self, groups: Sequence[tuple[str, Any]]) -> Iterator[Metric]:
        members = GaugeMetricFamily(f"{self._prefix}_group_members", "Members of a group.", labels=["group"])
        samples = []
        for name, group in groups:
            members.add_metric([name], len(group))
            for outcome, count in group.totals._asdict().items():
                samples.append(((name, group.policy, outcome), count))
        yield members
        labels = ["group", "policy", "outcome"]
        yield self._counter("group_messages", "What became of messages, for each member.", labels, samples)

    def _gauge(self, name: str, documentation: str, value: float) -> Metric:
        return GaugeMetricFamily(f"{self._prefix}_{name}", documentation, value=value)

    def _counter(self, name: str, documentation: str, labels: Sequence[str], samples: Any) -> Metric:
        family = CounterMetricFamily(f"{self._prefix}_{name}", documentation, labels=labels)
        for values, count in samples:
            family.add_metric(values, count)
        return family


def _plus(sums: list[int], stats: Any) -> list[int]:
    return [total + count for total, count in zip(sums, _counts(stats), strict=True)]


def _ending(engine: Any) -> tuple[str, str]:
    """Of which code the first Close frame was, and who sent it."""
    rcvd, sent = engine.close_rcvd, engine.close_sent
    if rcvd is not None and (sent is None or engine.close_rcvd_then_sent):
        code = int(rcvd.code)
        return (str(code) if code < 3000 else f"{code // 1000}xxx"), "peer"
    if sent is not None:
        return str(int(sent.code)), "here"
    return str(int(CloseCode.ABNORMAL_CLOSURE)), "nobody"
