"""The harness for other projects' suites: what replaces an import, and the table of results in the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import suites

HERE = Path(__file__).parent

PROGRAM = """
import sys
import alias
alias.pytest_configure()
import wsproto.events
from wsproto import WSConnection, frame_protocol
import wsproto_fast.compat.wsproto as ours
assert wsproto is ours and WSConnection is ours.WSConnection
assert wsproto.events is ours.events and frame_protocol is ours.frame_protocol
assert wsproto.__spec__.name == ours.__name__ == "wsproto_fast.compat.wsproto"
assert not [name for name in sys.modules if name == "h11"]
alias.pytest_sessionfinish()
try:
    import wsproto.nothing
except ModuleNotFoundError as error:
    print(error.name)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path[:0] = {[str(HERE), str(suites.ROOT)]}\n{program}"
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_alias() -> None:
    finished = run(PROGRAM)
    assert (finished.stdout, finished.stderr) == ("wsproto.nothing\n", "")


def test_alias_that_comes_too_late() -> None:
    late = run("import wsproto, alias; alias.pytest_configure()").stderr
    assert "imported before they could be replaced: {'wsproto'}" in late
    assert "wsproto was not replaced" in run("import wsproto, alias; alias.pytest_sessionfinish()").stderr


def test_table() -> None:
    """Each suite was run in its version, and lost nothing."""
    table = suites.PAGE.read_text(encoding="utf-8").split(suites.BEGIN)[1].split(suites.END)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()[2:]]
    known = {suite.title: suite for suite in suites.SUITES.values()}
    assert [row[0] for row in rows] == list(known)
    for title, version, replaced, original, ours, remarks in rows:
        suite = known[title]
        assert (version, replaced) == (suite.version, ", ".join(suite.alias) or "a class")
        assert min(int(original), int(ours)) > 0
        assert "lost" not in remarks


def test_rows_of_other_suites_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "compat.md"
    page.write_text(f"before\n{suites.BEGIN}\n{suites.END}\nafter\n")
    monkeypatch.setattr(suites, "PAGE", page)
    first, second = list(suites.SUITES)[:2]
    for name, count in ((second, 1), (first, 2), (second, 3)):
        suites.write({name: f"| {suites.SUITES[name].title} | {count} |"})
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert lines[4:6] == [f"| {suites.SUITES[first].title} | 2 |", f"| {suites.SUITES[second].title} | 3 |"]
