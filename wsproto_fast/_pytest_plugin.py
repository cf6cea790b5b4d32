"""Fixtures of the test kit, found by pytest wherever wsproto_fast is installed. Imports the kit when one is used.

``ws_pair``     a ``testing.Pair``; indirect parameters are its arguments:
                ``@pytest.mark.parametrize("ws_pair", [{}, {"deflate": DeflateConfig()}], indirect=True)``
``ws_peer``     a function: ``ws_peer(connection)`` is a ``testing.ScriptedPeer`` of that connection
``ws_hostile_frame``, ``ws_hostile_request``, ``ws_hostile_response``, ``ws_legal_frame``, ``ws_legal_request``
                run the test once for each case of ``testing.HOSTILE_FRAMES``, ...
"""

from __future__ import annotations

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
        from . import testing

        metafunc.parametrize(name, getattr(testing, _CASES[name]), ids=str)


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
