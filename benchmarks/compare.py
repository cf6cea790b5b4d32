"""Ratios from interleaved rounds: A B C A B C ... in one process, each round its own ratio, the median of them told.

``python -m benchmarks.compare`` prints the README's table, ``--all`` every row, ``-k WORD`` those with that word.

Times are CPU time of this thread, so that other programs disturb little; read the ratios all the same. The garbage
collector is off during a round. Callbacks are Python functions that keep their argument; loops read ``event.data``.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from . import cases
from .builds import compiled
from .cases import AIOHTTP, PURE, WEBSOCKETS, WEBSOCKETS_NO_C, WSPROTO, Case

ROUNDS = 7
ROUND_TIME = 0.002  # seconds that one candidate gets in a round, at least one run

_clock: Callable[[], int] = getattr(time, "thread_time_ns", time.perf_counter_ns)


@dataclass
class Result:
    """Nanoseconds per message, by candidate and round."""

    case: Case
    rounds: dict[str, list[float]]

    def nanoseconds(self, candidate: str) -> float:
        return statistics.median(self.rounds[candidate])

    def ratio(self, candidate: str, to: str | None = None) -> float:
        """Median of the rounds' ratios: how many times the time of ``to`` (of ours) ``candidate`` takes."""
        base = self.rounds[to or self.ours]
        return statistics.median([a / b for a, b in zip(self.rounds[candidate], base, strict=True)])

    @property
    def ours(self) -> str:
        return next(iter(self.rounds))


def timed(run: Callable[[], Any], iterations: int) -> int:
    times = range(iterations)
    start = _clock()
    for _ in times:
        run()
    return _clock() - start


def calibrate(run: Callable[[], Any], round_time: float) -> int:
    """How many runs fill ``round_time`` seconds. The first runs fault their memory in: the fastest counts."""
    once = min(timed(run, 1) for _ in range(3))
    return max(1, round(round_time * 1e9 / max(once, 1)))


def measure(case: Case, rounds: int = ROUNDS, round_time: float = ROUND_TIME) -> Result:
    """Check every candidate's result, then time them in turn."""
    runs = {name: make() for name, make in case.candidates.items()}
    iterations = {}
    for name, run in runs.items():
        case.check(name, run())
        iterations[name] = calibrate(run, round_time)
    result: dict[str, list[float]] = {name: [] for name in runs}
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in runs.items():
                run()  # the caches are full of what the last candidate did
                result[name].append(timed(run, iterations[name]) / iterations[name] / case.messages)
    finally:
        if enabled:
            gc.enable()
    return Result(case, result)


# -- the table of all rows ---------------------------------------------------------------------------------------------

_PEERS = (WEBSOCKETS, WSPROTO, AIOHTTP)
_COLUMNS = (
    *("ns", "websockets", "wsproto", "aiohttp"),
    *("pure: ns", "websockets", "without C"),
    "others, of ours; remarks",
)


def number(value: float) -> str:
    """Three digits are all that can be believed."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def row(result: Result) -> list[str]:
    rounds = result.rounds
    ours = result.ours
    others = []
    for name in rounds:
        if name != ours and name not in (*_PEERS, *PURE, WEBSOCKETS_NO_C):
            others.append(f"{name} {number(result.ratio(name))}")
    fastest_pure = next((name for name in rounds if name in PURE), None)
    cells = ["-" if ours in PURE else number(result.nanoseconds(ours))]
    cells += [f"{number(result.ratio(peer))}" if peer in rounds else "" for peer in _PEERS]
    cells.append("" if fastest_pure is None else number(result.nanoseconds(fastest_pure)))
    for peer in (WEBSOCKETS, WEBSOCKETS_NO_C):
        cells.append(number(result.ratio(peer, fastest_pure)) if fastest_pure and peer in rounds else "")
    if result.case.work:
        others.append(f"({result.case.work})")
    return [result.case.name, *cells, " ".join(others)]


def table(results: Iterable[Result]) -> str:
    """Every row. Columns of peers: how many times our time they take."""
    rows = [["", *_COLUMNS], *(row(result) for result in results)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(rows[0]))]
    lines = []
    for cells in rows:
        first, *middle, last = cells
        padded = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded, last]).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def legend() -> str:
    return (
        "Nanoseconds a message with wsproto_fast (by dispatch, send_text/send_binary + data_to_send, or the codec),\n"
        "and how many times as long others take: median of the ratios of interleaved rounds. `pure` is the build\n"
        "without extensions, beside it websockets over pure, with its C mask and without. memcpy: bytes(bytearray),\n"
        "into a new object; memcpy in place: into memory that is there. What each library does by itself stands in\n"
        "benchmarks/drivers.py.\n"
        f"{environment()}"
    )


def environment() -> str:
    names = []
    for package in (WEBSOCKETS, WSPROTO, AIOHTTP):
        try:
            names.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    kernels = compiled.simd_level() if compiled is not None else "not built"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.machine()}, kernels: {kernels}; {', '.join(names)}"


# -- the README's table ------------------------------------------------------------------------------------------------


def times(value: float) -> str:
    return f"{number(value)}x"


def readme() -> str:
    """The targets of the project, as far as they are the engine's."""
    by_name = {case.name: case for case in cases.all_cases()}

    def result(name: str) -> Result:
        return measure(by_name[name], rounds=15, round_time=0.01)

    lines = ["| | time | against |", "|---|---|---|"]

    def add(what: str, found: Result, peers: Iterable[str]) -> None:
        against = ", ".join(f"{peer} {times(found.ratio(peer))}" for peer in peers if peer in found.rounds)
        lines.append(f"| {what} | {number(found.nanoseconds(found.ours))} ns | {against} |")

    if compiled is not None:
        small = result("in server text 125 B")
        add("text of 125 B in, masked, by `dispatch` to a Python function", small, _PEERS)
        add("the same to `deque.append`", swapped(small, cases.DISPATCH_TO_C), _PEERS)
        big = result("in server binary 1 MiB, one a read")
        lines.append(
            f"| binary of 1 MiB in, masked | {number(big.nanoseconds(big.ours) / 1000)} µs | "
            f"{times(1 / big.ratio(cases.MEMCPY))} of one `memcpy` into a new object |"
        )
        add("text of 125 B out, masked", result("out client text 125 B"), _PEERS)
    pure = [
        result(f"{way} {role} {kind} {label}")
        for way, role in (("in", "server"), ("out", "client"))
        for kind in (cases.ASCII, cases.BINARY)
        for label in cases.SMALL
    ]
    for peer in (WEBSOCKETS_NO_C, WEBSOCKETS):
        worst = min(pure, key=lambda found: found.ratio(peer, pure_name(found)))
        name = pure_name(worst)
        lines.append(
            f"| pure-Python build, masked, the worst of 16 B to 1 KiB: {worst.case.name} | "
            f"{number(worst.nanoseconds(name))} ns | {peer} {times(worst.ratio(peer, name))} |"
        )
    for case in cases.compat_cases():
        if "125 B" in case.name:
            found = measure(case, rounds=15, round_time=0.01)
            add(f"{case.name} of text", found, _PEERS)
    return "\n".join([*lines, "", environment()])


def swapped(result: Result, ours: str) -> Result:
    """``result`` with another candidate as ours."""
    return Result(result.case, {ours: result.rounds[ours], **result.rounds})


def pure_name(result: Result) -> str:
    return next(name for name in result.rounds if name in PURE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every row, instead of the README's table")
    parser.add_argument("-k", metavar="WORD", help="rows with this word in their name")
    options = parser.parse_args()
    if not options.all and options.k is None:
        print(readme())
        return
    results = []
    for case in cases.all_cases():
        if options.k is None or options.k in case.name:
            results.append(measure(case))
            print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    print(legend(), table(results), sep="\n\n")


if __name__ == "__main__":
    main()
