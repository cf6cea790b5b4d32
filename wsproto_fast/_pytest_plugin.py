"""Fixtures of the test kit, found by pytest wherever wsproto_fast is installed. Imports the kit when one is used.

``ws_pair``     a ``testing.Pair``; indirect parameters are its arguments:
                ``@pytest.mark.parametrize("ws_pair", [{}, {"deflate": DeflateConfig()}], indirect=True)``
``ws_peer``     a function: ``ws_peer(connection)`` is a ``testing.ScriptedPeer`` of that connection
``ws_hostile_frame``, ``ws_hostile_request``, ``ws_hostile_response``, ``ws_legal_frame``, ``ws_legal_request``
                run the test once for each case of ``testing.HOSTILE_FRAMES``, ..., unless the test is parametrized by
                that name, or there is a fixture of yours with that name
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .testing import Pair, ScriptedPeer

_CASES = {
    "ws_hostile_frame": "HOSTILE_FRAMES",
    "ws_hostile_request": "HOSTILE_REQUESTS",
    "ws_hostile_response": "HOSTILE_RESPONSES",
    "ws_legal_frame": "LEGAL_FRAMES",
    "ws_legal_request": "LEGAL_REQUESTS",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name in _CASES.keys() & metafunc.fixturenames:
        if name in metafunc._arg2fixturedefs or name in _parametrized(metafunc):
            continue
        from . import testing

        metafunc.parametrize(name, getattr(testing, _CASES[name]), ids=str)


def _parametrized(metafunc: pytest.Metafunc) -> set[str]:
    """By which names a test is parametrized by marks."""
    names: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        argnames = mark.args[0] if mark.args else mark.kwargs["argnames"]
        names.update(re.split(r"\s*,\s*", argnames) if isinstance(argnames, str) else argnames)
    return names


@pytest.fixture
def ws_pair(request: pytest.FixtureRequest) -> Pair:
    """A client and a server connected in memory: ``wsproto_fast.testing.Pair``."""
    from .testing import Pair

    return Pair(**getattr(request, "param", {}))


@pytest.fixture
def ws_peer() -> Callable[..., ScriptedPeer]:
    """Makes the scripted peer of a connection: ``wsproto_fast.testing.ScriptedPeer``."""
    from .testing import ScriptedPeer

    return ScriptedPeer
