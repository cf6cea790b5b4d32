"""``--version``: which build is active, and on what it runs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import zlib

from .. import COMPILED, __version__, simd_level
from ..asyncio import _transports

__all__ = ["report"]


async def report(loop: str) -> str:
    """One fact in each line; ``loop`` is the name of the loop that runs this, which is the one that commands use."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    facts = {
        "wsproto_fast": __version__,
        "build": f"compiled, kernels for {simd_level()}" if COMPILED else "pure Python",
        "zlib": _zlib(),
        "event loop": f"uvloop {_version_of('uvloop')}" if loop == "uvloop" else _asyncio(),
        "sockets": "reactor of wsproto_fast (epoll)" if _transports._reactor() is not None else "those of the loop",
        "Python": f"{python}, {platform.system()} {platform.machine()}",
    }
    return "\n".join(f"{name:<13} {value}" for name, value in facts.items())


def _zlib() -> str:
    """What compresses unless a DeflateConfig says otherwise, and what else could."""
    text = f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    others = [f"{name} {version}" for name in ("zlib-ng", "isal") if (version := _version_of(name))]
    return f"{text}; installed for DeflateConfig(zlib=): {', '.join(others)}" if others else text


def _asyncio() -> str:
    version = _version_of("uvloop")
    return f"asyncio; uvloop {version} is installed" if version else "asyncio; uvloop is not installed"


def _version_of(distribution: str) -> str:
    """"" when it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
