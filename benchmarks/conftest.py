"""Measures with pytest-benchmark, then once more in interleaved rounds for the table that is printed last.

pytest-benchmark times one candidate after the other: good for ``--benchmark-json`` and for comparing two runs, too
much at the mercy of a busy machine for ratios. Its own report has hundreds of rows and shows with ``-v`` only.
"""

from __future__ import annotations

import pytest

from . import compare
from .cases import Case

measured: dict[str, Case] = {}
results: list[compare.Result] = []


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.verbose < 1:
        config.option.benchmark_quiet = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.option.benchmark_disable or session.config.option.collectonly:
        return
    results.extend(compare.measure(case) for case in measured.values())


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if results:
        terminalreporter.section("ratios")
        terminalreporter.write_line(compare.legend())
        terminalreporter.write_line("")
        terminalreporter.write_line(compare.table(results))
