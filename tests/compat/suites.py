"""Runs the test suites of other projects, unmodified, with the library that they embed and with ours in its place.

``python tests/compat/suites.py [NAME ...]`` fetches each project's source archive, makes an environment for it under
``build/compat/``, runs its tests twice and writes the counts to ``docs/compat.md`` (all suites: ``make compat``). Exits
with 1 if a test that passes with the original does not pass with ours, and is not listed here with its reason.

Needs an index of packages. Knows nothing of the suites but this table.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "compat"
PAGE = ROOT / "docs" / "compat.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
TIMEOUT = 900.0  # seconds for one run of a suite


@dataclass(frozen=True)
class Suite:
    """One project's tests. ``requires`` is what they need beside the project; ``alias`` what is replaced.

    ``plugin`` replaces it, a module beside this one.
    """

    title: str
    package: str
    version: str
    requires: tuple[str, ...]
    alias: tuple[str, ...] = ("wsproto",)
    plugin: str = "alias"
    arguments: tuple[str, ...] = ()  # to pytest
    environment: dict[str, str] = field(default_factory=dict)
    deselected: dict[str, str] = field(default_factory=dict)  # test: why it is run with neither
    # test, whatever its parameters: why it does not pass with ours, on purpose
    different: dict[str, str] = field(default_factory=dict)


WSPROTO = "wsproto==1.3.2"
WEBSOCKETS = "websockets==17.4"
#: What uvicorn's tests need, and the tests.
UVICORN = ("pytest>=9.1.1", "pytest-mock", "trustme", "cryptography", "httpx2", "a2wsgi", "httptools", "zttp")
UVICORN_MODULE = "tests.protocols.test_websocket"
CLIENT = "looks into `websockets`' asyncio client, which the import replaces, too"
UVICORN_TESTS = ("-o", "addopts=", "tests/protocols/test_websocket.py", "-k")

SUITES = {
    "wsproto": Suite("wsproto", "wsproto", "1.3.2", ("pytest<9", "h11")),
    "trio-websocket": Suite(
        "trio-websocket",
        "trio-websocket",
        "0.12.2",
        (WSPROTO, "pytest<9", "pytest-trio", "trustme", "attrs"),
        arguments=("-o", "trio_mode=true"),  # from a file that the archive lacks
    ),
    "simple-websocket": Suite(
        "simple-websocket", "simple-websocket", "1.1.0", (WSPROTO, "pytest<9"), arguments=("-p", "offline")
    ),
    "hypercorn": Suite(
        "hypercorn",
        "hypercorn",
        "0.18.0",
        (WSPROTO, "h2==4.3.0", "pytest<9", "pytest-asyncio<1.3", "pytest-trio", "httpx", "hypothesis", "mock", "trio"),
        arguments=("-o", "addopts="),
    ),
    "httpx-ws": Suite(
        "httpx-ws",
        "httpx-ws",
        "0.9.0",
        (WSPROTO, "pytest<9", "starlette", "uvicorn[standard]", "trio"),
        arguments=("-o", "addopts="),
    ),
    "uvicorn-wsproto": Suite(
        "uvicorn, its wsproto implementation",
        "uvicorn[standard]",
        "0.54.0",
        (WSPROTO, *UVICORN),
        arguments=(*UVICORN_TESTS, "wsproto"),
    ),
    "uvicorn-websockets": Suite(
        "uvicorn, its websockets-sansio implementation",
        "uvicorn[standard]",
        "0.54.0",
        (WSPROTO, WEBSOCKETS, *UVICORN),
        alias=("websockets",),
        arguments=(*UVICORN_TESTS, "sansio"),
        different={
            f"{UVICORN_MODULE}::test_supports_permessage_deflate_extension": CLIENT,
            f"{UVICORN_MODULE}::test_can_disable_permessage_deflate_extension": CLIENT,
            f"{UVICORN_MODULE}::test_server_keepalive_ping_timeout": CLIENT,
        },
    ),
    "uvicorn": Suite(
        "uvicorn, [our class](uvicorn.md) for its websockets-sansio one",
        "uvicorn[standard]",
        "0.54.0",
        (WSPROTO, WEBSOCKETS, *UVICORN),
        alias=(),
        plugin="uvicorn_plugin",
        arguments=(*UVICORN_TESTS, "sansio"),
        different={
            f"{UVICORN_MODULE}::test_duplicate_handshake": "a Close frame with 1011 in place of a cut connection",
            f"{UVICORN_MODULE}::test_asgi_return_value": "likewise",
            f"{UVICORN_MODULE}::test_close_transport_on_asgi_return": "likewise, with 1000",
            f"{UVICORN_MODULE}::test_close_resumes_reads_paused_on_an_unconsumed_message": "one message pauses nothing",
        },
    ),
}


def run(*command: str | Path, **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]


def fetched(suite: Suite) -> Path:
    """The project's sources, from its source archive."""
    name = suite.package.partition("[")[0]
    folder = BUILD / "sources"
    found = [path for path in folder.glob("*") if path.is_dir() and _is_release(path.name, name, suite.version)]
    if not found:
        archives = BUILD / "archives"
        requirement = f"{name}=={suite.version}"
        run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-binary", ":all:", "--dest", archives, requirement)  # fmt: skip
        for archive in archives.glob("*.tar.gz"):
            if _is_release(archive.name.removesuffix(".tar.gz"), name, suite.version):
                with tarfile.open(archive) as file:
                    file.extractall(folder, filter="data")
                found = [folder / archive.name.removesuffix(".tar.gz")]
    (folder / "pytest.ini").touch()  # for projects without settings, which would get ours
    return found[0]


def _is_release(text: str, name: str, version: str) -> bool:
    return re.sub(r"[-_.]+", "-", text).lower() == re.sub(r"[-_.]+", "-", f"{name}-{version}").lower()


def environment(name: str, suite: Suite) -> Path:
    """The Python of an environment with the project, what its tests need, and this tree."""
    folder = BUILD / "environments" / f"{name}-{suite.version}-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / ".complete"
    wanted = "\n".join([f"{suite.package}=={suite.version}", *suite.requires])
    if not complete.is_file() or complete.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted.split("\n"))
        show = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout.strip()
        # Behind everything else: the project's own `tests` must be found before ours.
        Path(site, "wsproto_fast_tree.pth").write_text(f"{ROOT}\n{Path(__file__).parent}\n")
        complete.write_text(wanted)
    return python


def outcomes(name: str, suite: Suite, *, ours: bool) -> dict[str, str]:
    """What became of each test: "passed", "failed" or "skipped"."""
    which = "ours" if ours else "original"
    report = BUILD / f"{name}.{which}.xml"
    report.unlink(missing_ok=True)
    arguments = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", *suite.arguments]
    arguments += [f"--deselect={test}" for test in suite.deselected]
    variables = {**os.environ, **suite.environment, "WSPROTO_FAST_ALIAS": ",".join(suite.alias)}
    variables.pop("PYTHONPATH", None)
    if ours:
        arguments += ["-p", suite.plugin]
    with open(BUILD / f"{name}.{which}.log", "w") as log:
        status = subprocess.run(
            [environment(name, suite), "-m", "pytest", *arguments],
            cwd=fetched(suite), env=variables, stdout=log, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False,
        ).returncode  # fmt: skip
    if status not in (0, 1):
        sys.exit(f"{name}: pytest did not run to its end; see {log.name}")
    result = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        result[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return result


def row(name: str, suite: Suite) -> tuple[str, list[str]]:
    """A line of the table, and the tests that should pass with ours and do not."""
    original, ours = [outcomes(name, suite, ours=which) for which in (False, True)]
    passed = {test for test, outcome in original.items() if outcome == "passed"}
    failed = {test for test in passed if ours.get(test) != "passed"}
    lost = sorted(test for test in failed if test.partition("[")[0] not in suite.different)
    mended = sorted(suite.different.keys() - {test.partition("[")[0] for test in failed})
    remarks = [f"`{test.rpartition('::')[2]}`: {reason}" for test, reason in suite.different.items()]
    remarks += [f"not run with either: `{test}`: {reason}" for test, reason in suite.deselected.items()]
    remarks += [f"**lost**: `{test}`" for test in lost]
    if not passed:
        lost.append("none passes with the original")
    lost += [f"{test} is listed as different, and is not" for test in mended]
    replaced = ", ".join(suite.alias) or "a class"
    counts = [str(len(passed)), str(len(passed) - len(failed))]
    cells = [suite.title, suite.version, replaced, *counts, "; ".join(remarks) or "none"]
    return f"| {' | '.join(cells)} |", lost


def write(rows: dict[str, str]) -> None:
    """Put rows into the page, in the order of the table here; rows of suites that were not run stay."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    for line in table.splitlines():
        for name, suite in SUITES.items():
            if line.startswith(f"| {suite.title} |"):
                rows.setdefault(name, line)
    head = "| suite | version | replaced | pass with the original | of these pass with ours | differences |"
    lines = [head, "|---" * 6 + "|", *[rows[name] for name in SUITES if name in rows]]
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def main(names: list[str]) -> int:
    unknown = set(names) - SUITES.keys()
    if unknown:
        sys.exit(f"no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    status = 0
    for name in names or SUITES:
        line, lost = row(name, SUITES[name])
        print(line, flush=True)
        write({name: line})
        for test in lost:
            print(f"  {name}: {test}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
