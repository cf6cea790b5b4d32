"""Builds the extension modules. Metadata and tools are configured in pyproject.toml.

One source, two builds: an extension stands beside the ``.py`` of the same name and Python prefers it, so a package
without extensions is the pure-Python package. Environment:

``WSPROTO_FAST_NO_EXT=1``       build no extension
``WSPROTO_FAST_REQUIRE_EXT=1``  a failed build is an error; otherwise it falls back to the pure package and says so
``WSPROTO_FAST_SANITIZE=1``     instrument with AddressSanitizer and UndefinedBehaviorSanitizer (``make asan``)
``SOURCE_DATE_EPOCH=seconds``   the time of everything in an archive: the same files give the same archive
"""

from __future__ import annotations

import gzip
import os
import sys
import sysconfig
import tarfile
import traceback
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent

#: Extension modules with a source of their own.
WRITTEN = {"_codec": "ext/codec.pyx", "asyncio._native": "ext/native.pyx"}
if sys.platform == "linux":
    WRITTEN["asyncio._reactor"] = "ext/reactor.pyx"
if sys.platform != "win32":
    WRITTEN["threading._native"] = "ext/threads.pyx"
#: Modules compiled from their own ``.py``, which their ``.pxd`` augments.
COMPILED = (
    *("clock", "events", "reader", "writer", "messages", "sender", "connection"),
    *("asyncio._scheduler", "asyncio._link", "asyncio._core", "asyncio._tls"),
    "compat.websockets.protocol",
    *(("threading._core",) if sys.platform != "win32" else ()),
)

DIRECTIVES = {
    "language_level": 3,
    # Annotations are for type checkers; C types come from the .pxd alone. Otherwise `data: bytes` would refuse a
    # subclass of bytes in the compiled build only.
    "annotation_typing": False,
    # Plain method descriptors: CPython 3.11+ specialises calls of them, and not of Cython's own function type.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",  # fills __text_signature__, so inspect.signature and help() still work
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": False,
}


def flag(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


SANITIZE = flag("WSPROTO_FAST_SANITIZE")
REQUIRE_EXT = flag("WSPROTO_FAST_REQUIRE_EXT")
NO_EXT = flag("WSPROTO_FAST_NO_EXT") or (sys.implementation.name != "cpython" and not REQUIRE_EXT)


def extensions() -> list[Extension]:
    sources = {**WRITTEN, **{name: f"wsproto_fast/{name.replace('.', '/')}.py" for name in COMPILED}}
    headers = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "ext").glob("*.h"))
    return [
        Extension(f"wsproto_fast.{name}", [source], depends=headers, include_dirs=["ext"])
        for name, source in sources.items()
    ]


def remove_extensions(folder: Path) -> None:
    """Remove this interpreter's extensions from a package folder: left behind, they would shadow newer sources."""
    for name in (*WRITTEN, *COMPILED):
        path = name.replace(".", "/") + sysconfig.get_config_var("EXT_SUFFIX")
        (folder / path).unlink(missing_ok=True)


class BuildPy(build_py):
    """build_py that leaves no stale extension beside the sources when none is built."""

    def run(self) -> None:
        if NO_EXT:
            remove_extensions(ROOT / "wsproto_fast")
        super().run()


class BuildExt(build_ext):
    """build_ext that builds all extensions or none."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        if SANITIZE:  # never mix instrumented objects with ordinary ones
            self.build_temp = os.path.join(self.build_temp, "sanitize")

    def run(self) -> None:
        try:
            self.translate()
            super().run()
        except (Exception, SystemExit) as error:  # whatever goes wrong, from no Cython to no linker
            if REQUIRE_EXT:
                raise
            traceback.print_exc()
            self.fall_back(error)

    def translate(self) -> None:
        """Turn Cython and Python sources into C files under build/."""
        from Cython.Build import cythonize

        translated = cythonize(
            [Extension(extension.name, list(extension.sources)) for extension in self.extensions],
            build_dir=os.path.join("build", "cython"),
            compiler_directives=DIRECTIVES,
            include_path=["."],
            force=bool(self.force) or self.is_stale(),
        )
        for extension, with_c_source in zip(self.extensions, translated, strict=True):
            extension.sources = with_c_source.sources

    @staticmethod
    def is_stale() -> bool:
        """Whether a .pxd or this file is newer than some C file. (Cython misses that codec.pyx has _codec.pxd.)"""
        inputs = [Path(__file__), *(ROOT / "wsproto_fast").rglob("*.pxd")]
        outputs = list((ROOT / "build" / "cython").rglob("*.c"))
        oldest = min((path.stat().st_mtime for path in outputs), default=0.0)
        return any(path.stat().st_mtime > oldest for path in inputs)

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc":
            compile_args, link_args = ["/O2"], []
        elif SANITIZE:
            link_args = ["-fsanitize=address,undefined"]
            compile_args = [*link_args, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]
        else:
            compile_args, link_args = ["-O3"], []
        for extension in self.extensions:
            extension.extra_compile_args = compile_args
            extension.extra_link_args = link_args
        super().build_extensions()

    def fall_back(self, error: BaseException) -> None:
        """Drop every extension, those already built included: a half-compiled package is never installed."""
        remove_extensions(Path(self.build_lib) / "wsproto_fast")
        remove_extensions(ROOT / "wsproto_fast")
        self.extensions = []
        self.distribution.ext_modules = []
        line = "*" * 78
        print(
            f"{line}\n"
            f"WARNING: the extensions of wsproto_fast could not be built ({type(error).__name__}).\n"
            "Falling back to the pure-Python build: it does the same, many times slower.\n"
            "Install a C compiler and the Python headers, then reinstall; the reason stands above.\n"
            "WSPROTO_FAST_REQUIRE_EXT=1 turns this warning into an error.\n"
            f"{line}",
            file=sys.stderr,
        )


class Sdist(sdist):
    """sdist of which the bytes depend on the files alone, where SOURCE_DATE_EPOCH is set."""

    def make_archive(self, base_name: str, format: str, *args: object, **kwargs: object) -> str:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, *args, **kwargs)

        def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.mtime = int(epoch)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        name = f"{base_name}.tar.gz"
        self.mkpath(os.path.dirname(name))
        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(kwargs["base_dir"], filter=anonymous)
        return name


setup(
    ext_modules=[] if NO_EXT else extensions(),
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy, "sdist": Sdist},
)
