"""What is in dist/, installed into fresh environments as users would: `make dist` runs it.

For each interpreter named: the sdist, the wheel that is made of it (and left in dist/), and once the pure wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIST = HERE.parent / "dist"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")


def run(*command: str | Path, **environment: str) -> None:
    subprocess.run(command, cwd="/", check=True, env={**os.environ, **environment})


def wheel(python: str, sdist: Path, **environment: str) -> Path:
    """The wheel that an sdist becomes, in dist/."""
    with tempfile.TemporaryDirectory() as folder:
        run(python, *PIP, "wheel", "--no-deps", "--wheel-dir", folder, sdist, **environment)
        (made,) = Path(folder).glob("*.whl")
        shutil.move(made, DIST / made.name)
    return DIST / made.name


def check(python: str, package: Path, build: str, **environment: str) -> None:
    """Install a package into an environment of its own, and use it."""
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        installed = Path(folder, "bin", "python")
        run(installed, *PIP, "install", package, **environment)
        run(installed, "-I", HERE / "smoke.py", build)


def main(pythons: list[str]) -> None:
    (sdist,) = DIST.glob("*.tar.gz")
    pure = wheel(pythons[0], sdist, WSPROTO_FAST_NO_EXT="1", WSPROTO_FAST_REQUIRE_EXT="")
    for python in pythons:
        check(python, sdist, "compiled", WSPROTO_FAST_REQUIRE_EXT="1")
        check(python, wheel(python, sdist, WSPROTO_FAST_REQUIRE_EXT="1"), "compiled")
        check(python, pure, "pure")
    print("\n".join(sorted(path.name for path in DIST.iterdir())))


if __name__ == "__main__":
    main(sys.argv[1:])
