"""examples/cython: built as its README says, and put to the corpus."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import wsproto_fast
from wsproto_fast import CloseTransport, DeflateConfig, DeflateParameters, PerMessageDeflate, Role
from wsproto_fast.testing import HOSTILE_FRAMES, LEGAL_FRAMES, FrameCase, check_connection, encode_frame

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "cython"

pytestmark = [
    pytest.mark.external,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not wsproto_fast.COMPILED, reason="the pure build has nothing to cimport"),
]


def run(*arguments: str, cwd: Path) -> str:
    """What a Python program prints that finds this package."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, built."""
    pytest.importorskip("Cython", reason="building needs Cython and setuptools: make build")
    pytest.importorskip("setuptools", reason="building needs Cython and setuptools: make build")
    copy = tmp_path_factory.mktemp("cython") / "example"
    unwanted = shutil.ignore_patterns("build", "*.c", "*.so", "*.pyd", "__pycache__")
    shutil.copytree(EXAMPLE, copy, ignore=unwanted)
    run("setup.py", "--quiet", "build_ext", "--inplace", cwd=copy)
    return copy


@pytest.fixture(scope="module")
def echo(directory: Path) -> ModuleType:
    (extension,) = [path for path in directory.glob("echo.*") if path.suffix in (".so", ".pyd")]
    spec = importlib.util.spec_from_file_location("echo", extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_as_the_readme_says(directory: Path) -> None:
    block = re.search(r"^\$ python -c \"(.*)\"\n(.*)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    assert block is not None
    assert run("-c", block[1], cwd=directory) == f"{block[2]}\n"


def test_echo(echo: ModuleType) -> None:
    client = echo.Echo()
    wire = b"".join(encode_frame(first, b"Hello", mask=b"abcd") for first in (0x81, 0x82))
    assert b"".join(client.receive(wire)) == b"\x81\x05Hello\x82\x05Hello"
    assert (client.messages, client.closed) == (2, False)
    assert client.receive(b"") == []
    assert (client.closed, client.connection.close_code) == (True, 1006)


def test_the_corpus(echo: ModuleType) -> None:
    class Checked:
        """An Echo as check_connection wants it. Its events stay in C: it tells them by what it counts, in the end."""

        role = Role.SERVER

        def __init__(self, case: FrameCase) -> None:
            deflate = PerMessageDeflate(Role.SERVER, DeflateParameters(), DeflateConfig()) if case.deflate else None
            self.echo = echo.Echo(deflate=deflate)
            self.case = case
            self.output: list[bytes] = []
            self.told = False

        @property
        def close_transport(self) -> CloseTransport:
            return CloseTransport(self.echo.connection.close_transport)

        def receive_data(self, data: bytes) -> None:
            self.output += self.echo.receive(data)

        def events(self) -> list[Any]:
            if self.told or not self.echo.closed:
                return []
            self.told = True
            messages = [wsproto_fast.Message(data, wsproto_fast.Opcode.TEXT) for data in self.case.messages]
            assert self.echo.messages == len(messages)
            return [*messages, wsproto_fast.Closed(self.echo.connection.close_code, "")]

        def data_to_send(self) -> list[bytes]:
            output, self.output = self.output, []
            return output

    cases = [case for case in (*HOSTILE_FRAMES, *LEGAL_FRAMES) if case.role is Role.SERVER]
    check_connection(Checked, cases)
