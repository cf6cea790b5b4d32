"""A pytest plugin: whoever imports another library gets our façade of it. For the suites of others, unmodified.

``pytest -p alias`` with ``WSPROTO_FAST_ALIAS=wsproto,websockets`` in the environment, and this file's folder on the
path; without that variable it is ``wsproto``. What is imported is the very module ``wsproto_fast.compat.<name>``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

TARGET = "wsproto_fast.compat."


class Alias(MetaPathFinder, Loader):
    """Finds the modules of some packages in ours."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.names:
            return None
        if importlib.util.find_spec(TARGET + fullname) is None:
            raise ModuleNotFoundError(f"our façade has no {fullname}", name=fullname)
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(TARGET + spec.name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It was run under its own name, which its relative imports need again."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


NAMES = os.environ.get("WSPROTO_FAST_ALIAS", "wsproto").split(",")


def pytest_configure() -> None:
    early = sys.modules.keys() & set(NAMES)
    assert not early, f"imported before they could be replaced: {early}"
    sys.meta_path.insert(0, Alias(NAMES))


def pytest_sessionfinish() -> None:
    for name in NAMES:
        assert sys.modules[name].__name__ == TARGET + name, f"{name} was not replaced"
