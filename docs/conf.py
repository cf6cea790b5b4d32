"""Sphinx: `make docs` builds these pages into build/docs."""

from __future__ import annotations

import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = str(ROOT / "wsproto_fast")


def _from_source(path: str) -> FileFinder:
    """The sources, not what was compiled of them: Python can look at their signatures."""
    if not path.startswith(_PACKAGE):
        raise ImportError
    return FileFinder(path, (SourceFileLoader, SOURCE_SUFFIXES))


sys.path.insert(0, str(ROOT))
sys.path_hooks.insert(0, _from_source)

import wsproto_fast  # noqa: E402

project = "wsproto_fast"
author = "wsproto_fast contributors"
copyright = f"2026, {author}"  # noqa: A001 (Sphinx wants the name)
release = version = wsproto_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
nitpicky = False
html_theme = "furo"
html_title = f"wsproto_fast {release}"
html_copy_source = False
templates_path: list[str] = []
exclude_patterns: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
