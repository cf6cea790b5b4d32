"""The surface of websockets 17, by introspection: each name, parameter and default is ours too, or on the page.

The page is docs/from-websockets.md. What it lists must be different, too: the two lists are equal.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from test_aio_programs import MODULES, PAGE

if sys.version_info < (3, 11):
    pytest.skip("websockets 17 needs Python 3.11", allow_module_level=True)
websockets = pytest.importorskip("websockets", minversion="17")

#: Where names of websockets' root are.
ROOTS = ("wsproto_fast", "wsproto_fast.asyncio", "wsproto_fast.asyncio.router", "wsproto_fast.http11")
#: Modules of which applications use names.
PUBLIC = {
    "asyncio.client": [],
    "asyncio.server": [],
    "asyncio.connection": [],
    "asyncio.router": [],
    "exceptions": [],
    "http11": [],
    "datastructures": [],
    "frames": [],
    "protocol": [],
    "uri": [],
    "extensions.permessage_deflate": ["ClientPerMessageDeflateFactory", "ServerPerMessageDeflateFactory"],
}
#: Classes that applications inherit from or use more than by calling them, each after its base.
CLASSES = {
    "asyncio.connection": ["Connection"],
    "asyncio.client": ["ClientConnection", "connect"],
    "asyncio.server": ["ServerConnection", "Server"],
    "asyncio.router": ["Router"],
    "http11": ["Request", "Response"],
    "datastructures": ["Headers"],
    "frames": ["Close", "CloseCode", "Opcode"],
    "protocol": ["State"],
}


def theirs(module: str) -> ModuleType:
    return importlib.import_module(f"websockets.{module}")


ENUMS = {*(theirs("frames").CloseCode, theirs("frames").Opcode), *(theirs("protocol").Side, theirs("protocol").State)}


def ours(module: str) -> ModuleType:
    return importlib.import_module(MODULES[f"websockets.{module}"])


def missing_names() -> Iterator[str]:
    for module, names in PUBLIC.items():
        for name in names or theirs(module).__all__:
            if not hasattr(ours(module), name):
                yield f"{module}.{name}"
    for name in websockets.__all__:
        if not any(name in importlib.import_module(module).__all__ for module in ROOTS):
            yield name


def attributes(cls: Any) -> set[str]:
    """Public names of a class and of its instances, as far as its source tells."""
    found = {name for name in dir(cls) if not name.startswith("_")}
    for each in cls.__mro__:
        found.update(getattr(each, "__annotations__", ()))
        if inspect.isfunction(vars(each).get("__init__")) and "__dataclass_fields__" not in vars(each):
            assigned = r"\bself\.([a-z]\w*)(?:: [^=\n]+)?(?: =|, self|  #|$)"
            found.update(re.findall(assigned, inspect.getsource(each.__init__), re.MULTILINE))
    return {name for name in found if not name.startswith("_")}


#: Set outside of __init__, on either side.
LATER = {"transport"}


def missing_attributes() -> Iterator[str]:
    inherited: set[str] = set()
    for module, names in CLASSES.items():
        for name in names:
            missing = attributes(getattr(theirs(module), name)) - attributes(getattr(ours(module), name)) - LATER
            for attribute in missing - inherited:
                yield f"{name}.{attribute}"
            if name == "Connection":
                inherited = missing


VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def different_parameters(name: str, their_function: Any, our_function: Any) -> Iterator[str]:
    our_parameters = inspect.signature(our_function).parameters
    for parameter in inspect.signature(their_function).parameters.values():
        if parameter.name == "self" or parameter.name.startswith("_") or parameter.kind in VARIABLE:
            continue
        our_parameter = our_parameters.get(parameter.name)
        if (
            our_parameter is None
            or our_parameter.kind is not parameter.kind
            or not same_default(parameter.default, our_parameter.default)
        ):
            yield f"{name}({parameter.name})"


def same_default(their_default: Any, our_default: Any) -> bool:
    if inspect.isfunction(their_default):
        return inspect.isfunction(our_default) and their_default.__name__ == our_default.__name__
    return bool(their_default == our_default)


def different_functions() -> Iterator[str]:
    for module, names in PUBLIC.items():
        if module == "exceptions":
            continue
        for name in names or theirs(module).__all__:
            their_object, our_object = getattr(theirs(module), name), getattr(ours(module), name, None)
            if our_object is None or not callable(their_object) or their_object in ENUMS:
                continue
            if isinstance(their_object, type) and issubclass(their_object, Exception):
                continue  # made by the library
            if not name.endswith(("Connection", "Server")):  # those are made by the library
                yield from different_parameters(name, their_object, our_object)
    for module, names in CLASSES.items():
        for name in names:
            their_class, our_class = getattr(theirs(module), name), getattr(ours(module), name)
            for attribute in sorted(attributes(their_class) & attributes(our_class)):
                method = getattr(their_class, attribute, None)
                if inspect.isfunction(method) and their_class not in ENUMS:
                    yield from different_parameters(f"{name}.{attribute}", method, getattr(our_class, attribute))


def different_exceptions() -> Iterator[str]:
    for name in theirs("exceptions").__all__:
        their_class, our_class = getattr(theirs("exceptions"), name), getattr(ours("exceptions"), name)
        names = [each.__name__ for each in our_class.__mro__]
        for base in their_class.__mro__:
            assert base.__name__ in names, f"{name} is no {base.__name__}"
            names.remove(base.__name__)
        yield from (f"{name}({base})" for base in names)


def missing_attributes_of_exceptions() -> Iterator[str]:
    for name, samples in SAMPLES.items():
        for arguments in samples[:1]:
            error, our_class = getattr(theirs("exceptions"), name)(*arguments), getattr(ours("exceptions"), name)
            yield from (f"{name}.{key}" for key in vars(error) if not hasattr(our_class(*arguments), key))


def on_the_page() -> list[str]:
    section = PAGE.partition("\n## Names that are not there, or different\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_every_difference_is_on_the_page_and_no_other() -> None:
    found = [
        *(*missing_names(), *missing_attributes(), *missing_attributes_of_exceptions()),
        *(*different_functions(), *different_exceptions()),
    ]
    listed = on_the_page()
    assert sorted(set(found) - set(listed)) == [], "not on the page"
    assert sorted(set(listed) - set(found)) == [], "on the page, but not different"
    assert len(listed) == len(set(listed))


def test_what_is_looked_at() -> None:
    """The introspection finds what it is to find."""
    assert {"id", "logger", "latency", "request", "response", "recv", "loop", "pending_pings"} <= attributes(
        theirs("asyncio.connection").Connection
    )
    assert {"id", "logger", "latency", "request", "response", "recv", "stats"} <= attributes(
        ours("asyncio.connection").Connection
    )
    assert "username" in attributes(theirs("asyncio.server").ServerConnection)
    assert list(different_parameters("f", lambda a, *, b=1: 0, lambda a, *, b=2: 0)) == ["f(b)"]
    assert list(different_parameters("f", lambda a, b: 0, lambda a: 0)) == ["f(b)"]
    assert list(different_parameters("f", lambda a: 0, lambda *, a: 0)) == ["f(a)"]


@pytest.mark.parametrize("name", ["CloseCode", "Opcode", "State"])
def test_enumerations(name: str) -> None:
    (their_enum,) = (each for each in ENUMS if each.__name__ == name)
    our_enum = getattr(importlib.import_module("wsproto_fast.constants"), name)
    assert [(each.name, int(each)) for each in our_enum] == [(each.name, int(each)) for each in their_enum]


def close(module: Any, code: int, reason: str = "") -> Any:
    return None if not code else module.Close(code, reason)


SAMPLES: dict[str, list[tuple[Any, ...]]] = {
    "ConnectionClosed": [],
    "InvalidURI": [("ws://", "it has no host")],
    "InvalidProxy": [("ftp://", "of no known kind")],
    "InvalidMethod": [("POST",)],
    "InvalidProtocol": [("HTTP/1.0",)],
    "InvalidHeader": [("Name",), ("Name", ""), ("Name", "value")],
    "InvalidHeaderValue": [("Name",), ("Name", ""), ("Name", "value")],
    "InvalidUpgrade": [("Upgrade",), ("Connection", ""), ("Connection", "close")],
    "InvalidHeaderFormat": [("Name", "expected token", "a,;b", 2)],
    "InvalidOrigin": [(None,), ("",), ("null",)],
    "DuplicateParameter": [("name",)],
    "InvalidParameterName": [("name",)],
    "InvalidParameterValue": [("name", None), ("name", ""), ("name", "9")],
    "PayloadTooBig": [(None, 10), (20, 10)],
    "TooManyFragments": [(4096,)],
}


def test_texts_of_exceptions() -> None:
    their_module, our_module = theirs("exceptions"), ours("exceptions")
    for name in their_module.__all__:
        their_class, our_class = getattr(their_module, name), getattr(our_module, name)
        for arguments in SAMPLES.get(name, [("some text",)] if their_class.__init__ is Exception.__init__ else []):
            their_error, our_error = their_class(*arguments), our_class(*arguments)
            assert str(our_error) == str(their_error), name
            for key, value in vars(their_error).items():
                if f"{name}.{key}" not in on_the_page():
                    assert (getattr(our_error, key) or None) == (value or None)  # current_size: 0 or None


@pytest.mark.parametrize("name", ["ConnectionClosed", "ConnectionClosedOK", "ConnectionClosedError"])
def test_texts_of_closed_connections(name: str) -> None:
    their_frames, our_frames = theirs("frames"), ours("frames")
    codes = [0, 1000, 1001, 1002, 1005, 1006, 1009, 1011, 1012, 1015, 2999, 3000, 3999, 4000, 4999]
    for received in codes:
        for sent in codes:
            for reason in ("", "é why"):
                for order in (True, False) if received and sent else (None,):
                    texts = []
                    for module, frames in ((theirs("exceptions"), their_frames), (ours("exceptions"), our_frames)):
                        error = getattr(module, name)(close(frames, received, reason), close(frames, sent), order)
                        texts.append(f"{error} {error.rcvd} {error.sent} {error.rcvd_then_sent}")
                    assert texts[1] == texts[0]


@pytest.mark.parametrize("name", ["InvalidStatus", "InvalidProxyStatus"])
def test_texts_of_refusals(name: str) -> None:
    texts = []
    for package in (theirs, ours):
        response = package("http11").Response(503, "Service Unavailable", package("datastructures").Headers(), b"no")
        error = getattr(package("exceptions"), name)(response)
        assert error.response is response
        texts.append(str(error))
    assert texts[1] == texts[0]


#: What programs do with headers; each step is evaluated and its result, or the class of its error, compared.
HEADERS = """
h['A'] = '1'; h['a']; h['A'] = '2'; h['a']; h.get_all('A'); h.get('a'); h.get('b', 'c'); 'A' in h; 'b' in h; len(h)
list(h); list(h.raw_items()); str(h); h.serialize(); repr(h); h == H([('a', '1'), ('A', '2')]); h == H({'a': '1'})
h['missing']; del h['a']; len(h); h.get_all('a'); h.update({'x': 'y'}); h.update([('x', 'z')], k='v')
list(h.raw_items()); h.setdefault('n', 'm'); h.setdefault('k', 'w'); c = h.copy(); h.clear(); list(h.raw_items())
list(c.raw_items()); c.pop('k'); c.keys(); dict(H(a='b')); h['bad'] = 'line\\nbreak'
h['e'] = 'é'; h.serialize(); h['s'] = '☃'; H('text'); H(1); H([('a',)]); bool(H())
"""


def test_headers() -> None:
    steps = [step.strip() for step in HEADERS.replace("\n", ";").split(";") if step.strip()]
    assert len(steps) > 40
    results: list[list[object]] = []
    for package in (theirs, ours):
        headers = package("datastructures").Headers
        namespace = {"h": headers(), "H": headers}
        results.append([])
        for step in steps:
            try:
                if " = " in step or step.startswith("del "):
                    exec(step, namespace)
                    results[-1].append((step, None))
                else:
                    results[-1].append((step, str(eval(step, namespace))))
            except Exception as exc:
                results[-1].append((step, next(base.__name__ for base in type(exc).__mro__ if base.__name__[0] != "_")))
    for their_result, our_result in zip(*results, strict=True):
        assert our_result == their_result


def test_samples_are_complete() -> None:
    module = theirs("exceptions")
    own_text = {name for name in module.__all__ if "__init__" in vars(getattr(module, name))}
    assert own_text - {"ConnectionClosed", "InvalidStatus", "InvalidProxyStatus"} <= set(SAMPLES)
