"""Who may import whom: the layers of the design, checked by reading every module's import statements."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parent.parent / "wsproto_fast"

LAYERS = {
    **dict.fromkeys(("constants", "exceptions", "limits", "backoff", "observer", "uri", "extensions"), 0),
    **dict.fromkeys(("events", "_codec", "http11", "clock", "_payloads", "_settings"), 1),
    **dict.fromkeys(("reader", "writer", "deflate", "control", "_headers"), 2),
    **dict.fromkeys(("_outbox", "_reconnecting", "_redirecting", "_routing"), 2),
    **dict.fromkeys(("messages", "sender", "handshake", "prepared", "_auth", "proxy"), 3),
    **dict.fromkeys(("connection", "groups"), 4),
    "__init__": 4,  # the public names of layers 0-4
    **dict.fromkeys(("asyncio", "threading"), 5),
    **dict.fromkeys(("_broadcasting", "_connecting", "_facts", "_incoming", "_observing", "_session"), 5),
    **dict.fromkeys(("compat", "contrib", "testing", "_pytest_plugin", "_cli", "__main__"), 6),
}
ADAPTERS = {"asyncio", "threading"}
IO_AND_TIME = {"asyncio", "socket", "ssl", "select", "selectors", "threading", "time"}

#: exceptions.py holds them all, so it needs the codes and Close of constants.py: within layer 0 a module may import
#: its neighbours, as long as the imports make no circle (Python itself tells).
SAME_LAYER_ALLOWED = {0, 5, 6}


def is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import that can happen at run time, those inside functions included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        else:
            yield from imports(node)


def imported_names(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    """Absolute dotted names of what a statement imports; ``package`` is the importing module's package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else []
    module = [*base, *(node.module.split(".") if node.module else [])]
    # `from . import reader` imports a module, `from .reader import Reader` a name: either way the first two tell.
    return [".".join([*module, alias.name]) for alias in node.names]


def layer_of(unit: str) -> int:
    """Layer of a top-level module or subpackage; of a name that wsproto_fast/__init__.py exports: its layer."""
    return LAYERS.get(unit, LAYERS["__init__"])


def violations(path: Path, source: str) -> list[str]:
    """Sentences on the imports of one module that break the table; ``path`` is relative to the package."""
    parts = path.with_suffix("").parts
    unit = parts[0]
    if unit not in LAYERS:
        return [f"{path}: belongs to no layer; add it to the table"]
    layer = LAYERS[unit]
    package = ["wsproto_fast", *parts[:-1]]
    found = []
    for node in imports(ast.parse(source)):
        where = f"{path}:{node.lineno}"
        for name in imported_names(node, package):
            top, _, rest = name.partition(".")
            if top != "wsproto_fast":
                if layer <= 4 and top in IO_AND_TIME:
                    found.append(f"{where}: layer {layer} imports {top}")
                continue
            if layer <= 4 and not (isinstance(node, ast.ImportFrom) and node.level):
                # The pure copy of the tests lives under another name: an absolute import would leave it.
                found.append(f"{where}: absolute import of wsproto_fast in layer {layer}")
            other = rest.partition(".")[0] or "__init__"
            if other == unit:
                continue
            if unit in ADAPTERS and other in ADAPTERS:
                found.append(f"{where}: {unit}/ imports {other}/")
            elif other not in LAYERS and layer < layer_of(other):
                found.append(f"{where}: layer {layer} imports the package")
            elif layer_of(other) > layer:
                found.append(f"{where}: layer {layer} imports {other} of layer {layer_of(other)}")
            elif layer_of(other) == layer and layer not in SAME_LAYER_ALLOWED and unit != "__init__":
                found.append(f"{where}: layer {layer} imports {other} of the same layer")
    return found


@pytest.mark.parametrize(
    "path", sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")), ids=lambda path: path.as_posix()
)
def test_imports(path: Path) -> None:
    assert violations(path, (PACKAGE / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("reader.py", "import time", "imports time"),
        ("reader.py", "import asyncio.events", "imports asyncio"),
        ("uri.py", "from socket import AF_INET", "imports socket"),
        ("connection.py", "def f():\n    import threading", "imports threading"),
        ("connection.py", "try:\n    import ssl\nexcept ImportError:\n    ssl = None", "imports ssl"),
        ("reader.py", "from .messages import Assembler", "imports messages of layer 3"),
        ("reader.py", "from . import messages", "imports messages of layer 3"),
        ("reader.py", "from .writer import Writer", "of the same layer"),
        ("reader.py", "from . import Connection", "imports the package"),
        ("reader.py", "import wsproto_fast.limits", "absolute import"),
        ("reader.py", "from wsproto_fast.limits import Limits", "absolute import"),
        ("limits.py", "from .events import Message", "imports events of layer 1"),
        ("__init__.py", "from .asyncio import connect", "imports asyncio of layer 5"),
        ("asyncio/client.py", "from ..threading import poller", "asyncio/ imports threading/"),
        ("asyncio/client.py", "from .. import threading", "asyncio/ imports threading/"),
        ("threading/client.py", "import wsproto_fast.asyncio.client", "threading/ imports asyncio/"),
        ("asyncio/client.py", "from ..testing import Pair", "imports testing of layer 6"),
        ("surprise.py", "", "belongs to no layer"),
        ("reader.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import time", "imports time"),
    ],
)
def test_violations_are_found(path: str, source: str, complaint: str) -> None:
    found = violations(Path(path), source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reader.py", "if TYPE_CHECKING:\n    from .connection import Connection\n    import socket"),
        ("reader.py", "import typing\nif typing.TYPE_CHECKING:\n    import asyncio"),
        ("reader.py", "from .limits import Limits\nfrom ._codec import parse_header\nimport zlib"),
        ("exceptions.py", "from .constants import Close"),
        ("__init__.py", "from .connection import Connection\nfrom .uri import parse_uri"),
        ("asyncio/client.py", "import asyncio\nfrom .. import Connection\nfrom .connection import ClientConnection"),
        ("compat/wsproto/__init__.py", "from ...connection import Connection\nfrom ...asyncio import connect"),
        ("contrib/redis.py", "from wsproto_fast.asyncio import Group"),
    ],
)
def test_what_is_allowed(path: str, source: str) -> None:
    assert violations(Path(path), source) == []
