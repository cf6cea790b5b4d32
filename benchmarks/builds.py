"""Both builds of wsproto_fast in one process: the installed one, and a pure copy of it from the same ``.py`` files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

import wsproto_fast

PURE = "wsproto_fast_pure"
DIRECTORY = Path(wsproto_fast.__file__).parent


class PureFinder(MetaPathFinder):
    """Loads PURE from ``.py`` files only, whatever extensions lie beside them (as ``tests/conftest.py`` does)."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, *parts = fullname.split(".")
        if top != PURE:
            return None
        base = DIRECTORY.joinpath(*parts)
        if (base / "__init__.py").is_file():
            return spec_from_file_location(fullname, base / "__init__.py", submodule_search_locations=[str(base)])
        source = base.with_name(f"{base.name}.py")
        return spec_from_file_location(fullname, source) if source.is_file() else None


sys.meta_path.insert(0, PureFinder())

#: None where no extensions are built: then there is nothing to call compiled.
compiled: ModuleType | None = wsproto_fast if wsproto_fast.COMPILED else None
pure: ModuleType = importlib.import_module(PURE)
