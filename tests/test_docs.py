"""The pages of docs/ are promises: programs run and print what stands below them, and links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_servers import RedisServer, redis_server

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
#: A program, and the output that follows it, if it does.
_program = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_link = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
#: Pages whose programs need a server around them, which their own tests are.
ELSEWHERE = {
    "session.md": "asyncio/test_aio_session.py",
    "broadcast.md": "asyncio/test_aio_group.py",
    "embedding.md": "test_embedding.py",
}

PROGRAMS = [
    pytest.param(code, output, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.name not in ELSEWHERE
    for number, (code, output) in enumerate(_program.findall(page.read_text()))
]


def certificates(directory: Path) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))


class Terminator(logging.Handler):
    """Stops a program that serves until it is told to end: a turn of the loop after it has begun to listen."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("server listening"):
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)


@pytest.fixture
def _terminated() -> Iterator[None]:
    logger, handler = logging.getLogger("wsproto_fast.server"), Terminator()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


@pytest.fixture
def _redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def _registry() -> Iterator[None]:
    """What a program registers is gone afterwards."""
    registry = pytest.importorskip("prometheus_client").REGISTRY
    before = set(registry._collector_to_names)
    yield
    for collector in set(registry._collector_to_names) - before:
        registry.unregister(collector)


@pytest.fixture
def _logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a program does to logging is undone afterwards. pytest has handlers of its own."""
    root, server = logging.getLogger(), logging.getLogger("wsproto_fast.server")
    monkeypatch.setattr(root, "handlers", [])
    before = [(logger, logger.level, list(logger.handlers)) for logger in (root, server)]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.parametrize(("code", "output"), PROGRAMS)
def test_program(
    code: str,
    output: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    if "server.pem" in code:
        certificates(tmp_path)
    if "router" in code:
        pytest.importorskip("werkzeug")
    code = code.replace("8765", str(port))
    output = output.replace("8765", str(port))
    if "redis://localhost" in code:
        pytest.importorskip("redis")
        code = code.replace("redis://localhost", request.getfixturevalue("_redis").url)
    if "prometheus" in code:
        request.getfixturevalue("_registry")
    if "logging" in code:
        request.getfixturevalue("_logging")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    program = compile(code, "docs", "exec")
    if "SIGTERM" in code:
        request.getfixturevalue("_terminated")
    exec(program, namespace)
    printed = capsys.readouterr().out
    assert printed == output if output else printed


def test_programs_that_run_elsewhere() -> None:
    for page, test in ELSEWHERE.items():
        assert page in (ROOT / "tests" / test).read_text(), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    text = page.read_text()
    for target in _link.findall(text):
        assert (page.parent / target).is_file(), target
    assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) <= {"python", "text", "console", "nginx", "ini"}


def own_sources() -> list[Path]:
    """Without those that log what others' packages would."""
    package = ROOT / "wsproto_fast"
    others = [*(package / "compat").rglob("*.py"), package / "contrib" / "uvicorn.py"]
    return sorted(set(package.rglob("*.py")) - set(others))


def logged() -> Iterator[tuple[str, str]]:
    """Level and message of everything that the package logs, as far as the sources tell: "" where the level depends."""
    for path in own_sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not ast.unparse(node.func.value).endswith("logger"):
                continue
            level = {"exception": "ERROR", "log": ""}.get(node.func.attr, node.func.attr.upper())
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    yield level, str(argument.value)


def test_each_message_of_the_log_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+) \| (.*?) \|", page, re.MULTILINE)
    told = {(level, phrase) for level, phrases in rows for phrase in re.findall(r"`(.*?)`", phrases)}
    found = set()
    for level, message in logged():
        start = "%s" if message.startswith("%s") else ""  # then it is the rest of it that must be there
        rest = message.removeprefix("%s").split(" %")[0]
        matching = {
            (row, phrase)
            for row, phrase in told
            if level in ("", row) and (phrase.endswith(rest) if start else message.startswith(phrase))
        }
        assert matching, f"{level}: {message}"
        found |= matching
    assert found == told
    loggers = {
        name
        for path in own_sources()
        for name in re.findall(r'getLogger\("(.*?)"\)', path.read_text())
    }
    assert loggers
    assert loggers <= set(re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE))


def test_index_has_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert {page.name for page in PAGES} - {"index.md"} <= set(_link.findall(index))
