"""Runs engine tests on both builds: the compiled package, and a pure copy of it loaded from the same ``.py`` files.

``build``   "compiled" or "pure": whoever asks for it (or for ``ws``) runs twice
``ws``      the package of that build: ``ws.Connection``, ``ws.events.Message``, ``ws._codec.COMPILED``, ...

Options and environment:

``--build=compiled`` or ``--build=pure``   run only those halves
``WSPROTO_FAST_TEST_PURE=1``       make ``wsproto_fast`` itself pure, adapters included (``make coverage``)
``WSPROTO_FAST_REQUIRE_EXT=1``     a missing extension is an error, not a skip
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import threading
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PURE = "wsproto_fast_pure"
#: Modules that exist as extensions in the compiled build (setup.py).
COMPILED_MODULES = ("_codec", "clock", "events", "reader", "writer", "messages", "sender", "connection")
#: Layers 0-4 of the design.
ENGINE_MODULES = (
    *("constants", "exceptions", "limits", "backoff", "uri"),
    *("events", "_codec", "http11", "clock"),
    *("reader", "writer", "deflate", "control", "_outbox", "_reconnecting", "_redirecting", "_routing"),
    *("messages", "sender", "handshake", "prepared", "_auth", "proxy"),
    *("connection", "groups"),
)


# pytest shows every difference whole where these are set: for megabytes that takes minutes. See peers.py.
for _name in ("CI", "BUILD_NUMBER"):
    if os.environ.pop(_name, "") not in ("", "0", "false"):
        os.environ["WSPROTO_FAST_CI"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what is to run in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


TEST_PURE = flag("WSPROTO_FAST_TEST_PURE")
REQUIRE_EXT = flag("WSPROTO_FAST_REQUIRE_EXT")


def package_directory() -> Path:
    spec = importlib.util.find_spec("wsproto_fast")
    if spec is None or not spec.submodule_search_locations:
        raise pytest.UsageError("wsproto_fast is not installed here: run `make test`, or `pip install -e .[test]`")
    return Path(next(iter(spec.submodule_search_locations)))


class PureFinder(MetaPathFinder):
    """Loads a package under the given top-level name from ``.py`` files only, whatever extensions lie beside them."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, *parts = fullname.split(".")
        if top != self.name:
            return None
        base = self.directory.joinpath(*parts)
        if (base / "__init__.py").is_file():
            return importlib.util.spec_from_file_location(
                fullname, base / "__init__.py", submodule_search_locations=[str(base)]
            )
        source = base.with_name(f"{base.name}.py")
        if not source.is_file():
            raise ModuleNotFoundError(f"there is no {fullname} in the pure build", name=fullname)
        return importlib.util.spec_from_file_location(fullname, source)


def load(name: str) -> ModuleType:
    """Import a build's package and every engine module of it that exists."""
    package = importlib.import_module(name)
    for module in ENGINE_MODULES:
        if (DIRECTORY / f"{module}.py").is_file():
            importlib.import_module(f"{name}.{module}")
    return package


def missing_extensions() -> list[str]:
    """Engine modules that Python would load from their ``.py`` although setup.py compiles them."""
    return [
        module
        for module in COMPILED_MODULES
        if not any((DIRECTORY / f"{module}{suffix}").is_file() for suffix in EXTENSION_SUFFIXES)
    ]


def outdated_extensions() -> list[str]:
    """Extensions older than their sources."""
    written = {"_codec": "codec.pyx", "asyncio/_reactor": "reactor.pyx", "asyncio/_native": "native.pyx"}
    written["threading/_native"] = "threads.pyx"
    outdated = []
    adapter = [f"asyncio/_{name}" for name in ("reactor", "native", "scheduler", "link", "core", "tls")]
    for module in (*COMPILED_MODULES, *adapter, "threading/_native", "threading/_core", "compat/websockets/protocol"):
        source = DIRECTORY / f"{module}.py"
        if module in written:
            source = DIRECTORY.parent / "ext" / written[module]
        for suffix in EXTENSION_SUFFIXES:
            extension = DIRECTORY / f"{module}{suffix}"
            if extension.is_file() and source.is_file() and source.stat().st_mtime > extension.stat().st_mtime:
                outdated.append(module)
    return outdated


DIRECTORY = package_directory()
if "asan" in os.environ.get("LD_PRELOAD", ""):  # `make asan`: programs that tests start run without instruments
    del os.environ["LD_PRELOAD"]
    os.environ.pop("PYTHONMALLOC", None)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
sys.meta_path.insert(0, PureFinder(PURE, DIRECTORY))
if TEST_PURE:
    sys.meta_path.insert(0, PureFinder("wsproto_fast", DIRECTORY))


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    """A KeyboardInterrupt that happens to come in coverage's function ends all measuring of this thread."""
    trace = sys.gettrace()
    yield
    if sys.gettrace() is not trace:
        sys.settrace(trace)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--build", choices=["compiled", "pure"], help="run tests of both builds on this one only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--build")
    if wanted is None:
        return
    keep, drop = [], []
    for item in items:
        build = getattr(item, "callspec", None) and item.callspec.params.get("build")  # type: ignore[attr-defined]
        (drop if build not in (None, wanted) else keep).append(item)
    config.hook.pytest_deselected(items=drop)
    items[:] = keep


def pytest_sessionfinish() -> None:
    """What the poller has when the process ends would look like a leak; it ends when it has nothing to do."""
    for thread in threading.enumerate():
        if thread.name == "wsproto_fast-poller":
            thread.join(10)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    outdated = [] if TEST_PURE else outdated_extensions()
    if outdated:
        terminalreporter.write_line(
            f"The compiled tests ran on outdated extensions ({', '.join(outdated)}): run `make build`.", red=True
        )


@pytest.fixture(scope="session", params=["compiled", "pure"])
def build(request: pytest.FixtureRequest) -> str:
    """Name of the build under test. Session-wide, so that hypothesis tests may use it."""
    if request.param == "compiled":
        if TEST_PURE:
            pytest.skip("WSPROTO_FAST_TEST_PURE is set")
        missing = missing_extensions()
        if missing and (REQUIRE_EXT or len(missing) < len(COMPILED_MODULES)):
            pytest.fail(f"extensions are missing: {', '.join(missing)}")
        if missing:
            pytest.skip("the extensions are not built")
    return str(request.param)


@pytest.fixture(scope="session")
def ws(build: str) -> ModuleType:
    """The package of the build under test, with all engine modules as its attributes."""
    package = load("wsproto_fast" if build == "compiled" else PURE)
    assert package._codec.COMPILED is (build == "compiled")
    return package
