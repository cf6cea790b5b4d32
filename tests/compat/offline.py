"""A pytest plugin for suites that look up names of the outside world, and then talk to a mock: they are this host's."""

from __future__ import annotations

import socket
from typing import Any

_look_up = socket.getaddrinfo


def _look_up_here(host: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return _look_up(host, *arguments, **options)
    except socket.gaierror:
        return _look_up("127.0.0.1", *arguments, **options)


def pytest_configure() -> None:
    socket.getaddrinfo = _look_up_here
