"""Many durations in little memory: counts in buckets of 1 %, of which percentiles and a histogram are made.

Knows numbers and text; knows no clock.
"""

from __future__ import annotations

import math

__all__ = ["Latencies", "Row", "histogram", "milliseconds"]

#: Buckets for a factor of e; so each is 1 % wide.
_RESOLUTION = 100
#: A bucket's number is the logarithm of nanoseconds. 2**53 of them are 104 days.
_BUCKETS = math.ceil(math.log(2**53) * _RESOLUTION) + 1
_BAR = 40

#: From, to (both in seconds) and how many.
Row = tuple[float, float, int]


class Latencies:
    """Durations in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.maximum = 0.0

    def add(self, seconds: float) -> None:
        # The clock may stand still between two messages of one read.
        self._counts[int(math.log(seconds * 1e9 + 1.0) * _RESOLUTION)] += 1
        if seconds > self.maximum:
            self.maximum = seconds

    @property
    def count(self) -> int:
        return sum(self._counts)

    def percentile(self, percent: float) -> float:
        """The duration that so many percent of all do not exceed, within 1 %. 0.0 when there are none."""
        rest = math.ceil(self.count * percent / 100)
        for number, count in enumerate(self._counts):
            rest -= count
            if count and rest <= 0:
                return min(_upper(number), self.maximum)
        return 0.0

    def rows(self, limit: int = 16) -> list[Row]:
        """At most so many ranges, all with the same ratio of their ends, without empty ones at either end."""
        used = [number for number, count in enumerate(self._counts) if count]
        if not used:
            return []
        first, last = used[0], used[-1]
        width = math.ceil((last - first + 1) / limit)
        rows = []
        for start in range(first, last + 1, width):
            rows.append((_upper(start - 1), _upper(start + width - 1), sum(self._counts[start : start + width])))
        return rows


def _upper(bucket: int) -> float:
    return (math.exp((bucket + 1) / _RESOLUTION) - 1.0) / 1e9


def histogram(rows: list[Row], bar: str = "#") -> list[str]:
    """A line for each row, in milliseconds, with a bar."""
    total = sum(count for _, _, count in rows)
    most = max((count for _, _, count in rows), default=0)
    lines = []
    for low, high, count in rows:
        length = math.ceil(count / most * _BAR)
        span = f"{milliseconds(low):>7} - {milliseconds(high):>7}"
        lines.append(f"{span}  {bar * length:<{_BAR}} {count:>10,} {count / total:>7.2%}")
    return lines


def milliseconds(seconds: float) -> str:
    """Three digits of it, or all before the point: ``0.123``, ``12.3``, ``1234``."""
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}" if value >= 0.1 else f"{value:.3f}"
