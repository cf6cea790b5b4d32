"""Every candidate of every row under pytest-benchmark. Which rows there are stands in cases.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from .cases import Case, all_cases
from .compare import calibrate
from .conftest import measured

ROUNDS = 5
ROUND_TIME = 0.002  # seconds, at least one run

CASES: dict[str, Case] = {case.name: case for case in all_cases()}

# Names, not cases: --benchmark-json writes the parameters down, and a case holds its wire bytes.
PARAMETERS = [
    pytest.param(case.name, candidate, id=f"{case.name}-{candidate}".replace(", ", " ").replace(" ", "_"))
    for case in CASES.values()
    for candidate in case.candidates
]


@pytest.mark.benchmark(timer=time.perf_counter)
@pytest.mark.parametrize(("name", "candidate"), PARAMETERS)
def test_candidate(benchmark: Any, name: str, candidate: str) -> None:
    """Times are those of one run; ``extra_info`` tells how many messages a run has."""
    case = CASES[name]
    run: Callable[[], Any] = case.candidates[candidate]()
    case.check(candidate, run())
    measured.setdefault(case.name, case)
    benchmark.group = case.name
    benchmark.extra_info.update(candidate=candidate, messages=case.messages)
    benchmark.pedantic(run, rounds=ROUNDS, iterations=calibrate(run, ROUND_TIME))
