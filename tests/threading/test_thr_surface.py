"""The surface of websockets.sync 17, by introspection: what is not here, or different, stands in docs/threading.md."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("websockets 17 needs Python 3.11", allow_module_level=True)
pytest.importorskip("websockets", minversion="17")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "threading.md").read_text().partition("## Beside websockets")[2]
#: Inner workings of websockets, which it documents for nobody, and the name of a mistake of old programs.
INNER = {
    *("acknowledge_pings", "close_exc", "close_socket", "handshake", "keepalive", "maybe_raise_legacy_warning"),
    *("process_event", "recv_events", "send_context", "send_data", "set_connection_exc", "start_keepalive"),
    "terminate_pending_pings",
}
#: Functions whose parameters are those of a class here.
ELSEWHERE = {"connect": "reconnect"}


def different_parameters(name: str, theirs: Any, ours: Any) -> Iterator[str]:
    mine = inspect.signature(ours).parameters
    for parameter in inspect.signature(theirs).parameters.values():
        if parameter.name in ("self", "legacy") or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        other = mine.get(parameter.name)
        if other is None or other.kind is not parameter.kind or not same(parameter.default, other.default):
            yield f"{name}({parameter.name})"


def same(theirs: Any, ours: Any) -> bool:
    if inspect.isfunction(theirs):
        return inspect.isfunction(ours) and ours.__name__ == theirs.__name__
    if isinstance(theirs, str) and "websockets/" in theirs:  # names itself
        return isinstance(ours, str)
    return bool(theirs == ours)


def differences() -> Iterator[str]:
    for module in ("client", "server", "connection", "router"):
        theirs = importlib.import_module(f"websockets.sync.{module}")
        ours = importlib.import_module(f"wsproto_fast.threading.{module}")
        for name in theirs.__all__:
            if not hasattr(ours, name):
                yield name
                continue
            their_object, our_object = getattr(theirs, name), getattr(ours, ELSEWHERE.get(name, name))
            if not inspect.isclass(their_object):
                yield from different_parameters(name, their_object, our_object)
                continue
            for attribute in dir(their_object):
                if attribute.startswith("_") or attribute in INNER:
                    continue
                if not hasattr(our_object, attribute):
                    yield f"{name}.{attribute}"
                elif inspect.isfunction(getattr(their_object, attribute)):
                    pair = getattr(their_object, attribute), getattr(our_object, attribute)
                    yield from different_parameters(f"{name}.{attribute}", *pair)


def test_every_difference_is_on_the_page_and_no_other() -> None:
    inherited = re.compile(r"^(Client|Server)Connection\.")
    found = {inherited.sub("Connection.", each) for each in differences()}
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    assert found - listed == set(), "not on the page"
    assert listed - found - {"write_limit", "recv", "close"} == set(), "on the page, but not different"
