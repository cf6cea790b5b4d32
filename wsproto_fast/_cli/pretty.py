"""Text for people: JSON with indentation and colours, rows that fit a terminal, control characters made visible.

Knows columns and escape sequences; writes nothing.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from typing import Any

__all__ = ["Line", "json_lines", "plain_lines", "render", "rows", "visible"]

#: One line: pieces of text, each with the name of its style or "".
Line = list[tuple[str, str]]

_STYLES = {
    "dim": "2",
    "error": "31",
    "received": "36",
    "key": "34",
    "string": "32",
    "literal": "33",
}
_INDENT = "  "

#: A peer must not be able to move the cursor, change the title or retype what the user typed.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in b"\n\t"}


def visible(text: str) -> str:
    """The text without control characters but for tabs and ends of lines: ``\\x1b`` in their place."""
    return text.translate(_CONTROLS)


def plain_lines(text: str, style: str = "") -> list[Line]:
    return [[(style, line)] for line in text.split("\n")]


def render(line: Line, colours: bool) -> str:
    return "".join(
        f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colours and style and text else text for style, text in line
    )


# Rows ----------------------------------------------------------------------------------------------------------------


def rows(line: Line, width: int) -> Iterator[Line]:
    """The line in rows of at most ``width`` columns. Tabs become spaces."""
    row: Line = []
    column = 0
    for style, text in line:
        start = 0
        text = text.replace("\t", " " * 4)
        for index, character in enumerate(text):
            columns = _columns(character)
            if column + columns > width:
                yield [*row, (style, text[start:index])]
                row, column, start = [], 0, index
            column += columns
        row.append((style, text[start:]))
    yield row


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


# JSON ----------------------------------------------------------------------------------------------------------------


class _Number(str):
    """A number as it was written: 1.10 stays 1.10, and no digit is lost."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """Members in their order, those with equal names too."""

    __slots__ = ()


def json_lines(text: str) -> list[Line] | None:
    """JSON with one member or element in each line; None when ``text`` is none, or nested too deep to tell."""
    try:
        value = json.loads(
            text, object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_no_constant
        )
        lines: list[Line] = [[]]
        _write(value, lines, "")
    except (ValueError, RecursionError):
        return None
    return lines


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _write(value: Any, lines: list[Line], indent: str) -> None:
    line = lines[-1]
    if isinstance(value, _Object):
        _write_all("{}", value, lines, indent)
    elif isinstance(value, list):
        _write_all("[]", [(None, element) for element in value], lines, indent)
    elif isinstance(value, _Number):
        line.append(("literal", str(value)))
    elif isinstance(value, str):
        line.append(("string", _quoted(value)))
    else:
        line.append(("literal", json.dumps(value)))


def _write_all(brackets: str, members: list[tuple[Any, Any]], lines: list[Line], indent: str) -> None:
    if not members:
        lines[-1].append(("", brackets))
        return
    lines[-1].append(("", brackets[0]))
    deeper = indent + _INDENT
    for number, (name, value) in enumerate(members, 1):
        lines.append([("", deeper)])
        if name is not None:
            lines[-1] += [("key", _quoted(name)), ("", ": ")]
        _write(value, lines, deeper)
        if number < len(members):
            lines[-1].append(("", ","))
    lines.append([("", indent + brackets[1])])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
