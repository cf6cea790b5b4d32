"""The C kernels (ext/mask.h, ext/utf8.h) against naive twins, at every level this machine has.

The tests proper are in tests/c/test_kernels.c; this compiles them in several ways and runs them.
"""

import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "tests" / "c" / "test_kernels.c"

CC = shlex.split(os.environ.get("CC", "")) or ["cc"]
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
SANITIZE = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(shutil.which(CC[0]) is None, reason=f"no C compiler ({CC[0]})")


def run(*command):
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def build(compiler, flags, tmp_path):
    program = tmp_path / "test_kernels"
    result = run(*compiler, *flags, "-I", ROOT / "ext", SOURCE, "-o", program)
    assert result.returncode == 0, result.stdout
    return program


def can_sanitize(tmp_path):
    """Whether $CC compiles, links and runs a program with the sanitizers."""
    source, program = tmp_path / "empty.c", tmp_path / "empty"
    source.write_text("int main(void) { return 0; }\n")
    compiled = run(*CC, *SANITIZE, source, "-o", program).returncode == 0
    return compiled and run(program).returncode == 0


def check_every_level(program):
    levels = run(program)
    assert levels.returncode == 0, levels.stdout
    assert levels.stdout.split()[0] == "portable"
    for level in levels.stdout.split():
        result = run(program, level)
        assert result.returncode == 0, f"{level}: {result.stdout[-4000:]}"
    return levels.stdout.split()


@pytest.mark.slow
def test_sanitized(tmp_path):
    flags = SANITIZE if can_sanitize(tmp_path) else ["-O1", "-g"]
    check_every_level(build(CC, flags, tmp_path))


@pytest.mark.slow
def test_optimised(tmp_path):
    check_every_level(build(CC, ["-O3"], tmp_path))


def test_no_warnings(tmp_path):
    check_every_level(build(CC, STRICT, tmp_path))


@pytest.mark.slow
def test_clang(tmp_path):
    # Without clang this runs the strict build once more: it must not be skipped.
    compiler = ["clang"] if shutil.which("clang") else CC
    check_every_level(build(compiler, STRICT, tmp_path))


def test_without_simd(tmp_path):
    """The code that processors without a level of their own get, short payloads included."""
    assert check_every_level(build(CC, [*STRICT, "-DWSF_NO_SIMD"], tmp_path)) == ["portable"]


def test_unknown_level_is_an_error(tmp_path):
    assert run(build(CC, STRICT, tmp_path), "mmx").returncode == 2
