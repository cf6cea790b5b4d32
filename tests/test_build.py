"""What setup.py builds: everything, or with no compiler the pure package, and never half of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from peers import IN_CI

ROOT = Path(__file__).resolve().parent.parent
EXTENSIONS = {"_codec", "clock", "events", "reader", "writer", "messages", "sender", "connection"}
EXTENSIONS |= {"_scheduler", "_native", "_tls", "_link", "_core"}  # some of either adapter
EXTENSIONS.add("protocol")  # of compat.websockets
if sys.platform == "linux":
    EXTENSIONS.add("_reactor")

pytestmark = [
    pytest.mark.external,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy gets the pure build"),
]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WSPROTO_FAST_")}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def extensions_in(folder: Path) -> set[str]:
    """Names of the extension modules under a folder."""
    return {path.name.partition(".")[0] for suffix in EXTENSION_SUFFIXES for path in folder.rglob(f"*{suffix}")}


def report(site: Path, cwd: Path) -> str:
    """What the package installed in ``site`` says of itself."""
    code = "import wsproto_fast, wsproto_fast._codec as c; print(wsproto_fast.Connection.__module__, c.COMPILED)"
    result = run(sys.executable, "-c", code, cwd=cwd, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stdout
    return result.stdout.strip()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of a copy of this tree."""
    pytest.importorskip("Cython", reason="building needs Cython and setuptools: make build")
    pytest.importorskip("setuptools", reason="building needs Cython and setuptools: make build")
    tree = tmp_path_factory.mktemp("build") / "tree"
    unwanted = shutil.ignore_patterns(
        "build", "dist", "corpus", "node_modules", "__pycache__", "*.egg-info", "*.so", ".*", "*.pyd"
    )
    shutil.copytree(ROOT, tree, ignore=unwanted)
    result = run(sys.executable, "setup.py", "--quiet", "sdist", cwd=tree)
    assert result.returncode == 0, result.stdout
    (archive,) = (tree / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def source(sdist: Path) -> Path:
    """The unpacked sdist; the tests build in it, each into its own folder."""
    with tarfile.open(sdist) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(sdist.parent, filter="data")
        else:
            archive.extractall(sdist.parent)
    return sdist.with_name(sdist.name.removesuffix(".tar.gz"))


def build(source: Path, into: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    arguments = ["build", "--build-temp", into / "temp", "--build-lib", into / "lib"]
    return run(sys.executable, "setup.py", *arguments, cwd=source, **environment)


def test_sdist_holds_what_a_build_needs(source: Path) -> None:
    files = {path.relative_to(source).as_posix() for path in source.rglob("*")}
    for folder, patterns in {"ext": ["*.pyx", "*.h"], "wsproto_fast": ["*.py", "*.pxd", "py.typed"]}.items():
        for pattern in patterns:
            expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}
            assert expected
            assert expected <= files
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= files
    assert not any(name.endswith(".so") for name in files)


def test_an_sdist_is_reproducible(source: Path, tmp_path: Path) -> None:
    archives = []
    for name in ("one", "two"):
        folder = tmp_path / name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("build", "*.egg-info"))
        result = run(sys.executable, "setup.py", "--quiet", "sdist", cwd=folder, SOURCE_DATE_EPOCH="1000000000")
        assert result.returncode == 0, result.stdout
        (archive,) = (folder / "dist").glob("*.tar.gz")
        archives.append(archive.read_bytes())
    assert archives[0] == archives[1]


def test_without_a_compiler(source: Path, tmp_path: Path) -> None:
    result = build(source, tmp_path, CC="/bin/false")
    assert result.returncode == 0, result.stdout
    assert "WARNING: the extensions of wsproto_fast could not be built" in result.stdout
    assert "Falling back to the pure-Python build" in result.stdout
    assert extensions_in(tmp_path) == set()
    assert report(tmp_path / "lib", tmp_path) == "wsproto_fast.connection False"


def test_without_a_compiler_where_extensions_are_required(source: Path, tmp_path: Path) -> None:
    result = build(source, tmp_path, CC="/bin/false", WSPROTO_FAST_REQUIRE_EXT="1")
    assert result.returncode != 0
    assert "Falling back" not in result.stdout


def test_one_failure_drops_every_extension(source: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *writer.c*) echo "no writer today" >&2; exit 1;; esac\nexec cc "$@" -O0\n'
    )
    compiler.chmod(0o755)
    result = build(source, tmp_path, CC=str(compiler))
    assert result.returncode == 0, result.stdout
    assert "no writer today" in result.stdout
    assert list((tmp_path / "temp").rglob("reader*.o")), "others were compiled before it"
    assert extensions_in(tmp_path / "lib") == set()
    assert report(tmp_path / "lib", tmp_path) == "wsproto_fast.connection False"


def test_no_ext_makes_a_pure_wheel(source: Path, tmp_path: Path) -> None:
    stale = source / "wsproto_fast" / f"reader{EXTENSION_SUFFIXES[0]}"
    stale.write_bytes(b"not an extension")
    result = run(
        sys.executable, "setup.py", "bdist_wheel", "--dist-dir", tmp_path, cwd=source, WSPROTO_FAST_NO_EXT="1"
    )
    assert result.returncode == 0, result.stdout
    assert [path.name for path in tmp_path.glob("*.whl")] == [f"{source.name}-py3-none-any.whl"]
    assert not stale.exists(), "it would shadow reader.py"


def test_wheel_holds_what_cimport_needs(source: Path, tmp_path: Path) -> None:
    """The .pxd files are the C interface of the compiled modules."""
    result = run(
        sys.executable, "setup.py", "bdist_wheel", "--dist-dir", tmp_path, cwd=source, WSPROTO_FAST_NO_EXT="1"
    )
    assert result.returncode == 0, result.stdout
    (wheel,) = tmp_path.glob("*.whl")
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wsproto_fast").rglob("*.pxd")}
    assert {"wsproto_fast/__init__.pxd", "wsproto_fast/connection.pxd"} <= expected
    with zipfile.ZipFile(wheel) as archive:
        assert expected <= set(archive.namelist())
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert b"wsproto_fast = wsproto_fast._pytest_plugin" in archive.read(entry_points)


@pytest.mark.skipif(not IN_CI, reason="takes a minute and the package index; runs under CI=true")
def test_sdist_installs_by_itself(sdist: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--target", site]
    result = run(*pip, sdist, cwd=tmp_path, WSPROTO_FAST_REQUIRE_EXT="1")
    assert result.returncode == 0, result.stdout
    assert extensions_in(site) == EXTENSIONS
    assert {path.name for path in (site / "wsproto_fast").glob("*.pxd")} == {
        path.name for path in (ROOT / "wsproto_fast").glob("*.pxd")
    }
    assert report(site, tmp_path) == "wsproto_fast.connection True"
    example = shutil.copytree(ROOT / "examples" / "cython", tmp_path / "example")  # cimports from what was installed
    result = run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=example, PYTHONPATH=str(site))
    assert result.returncode == 0, result.stdout
