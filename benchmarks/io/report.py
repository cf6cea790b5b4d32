"""Results as a table, as Markdown, as a chart in SVG. Knows no case by name."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .cases import COLUMNS, OURS, TRANSPORTS, UVLOOP
from .running import Result


def number(value: float) -> str:
    """Three digits at most can be believed."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(result: Result, column: str) -> str:
    if column not in result.rounds:
        return ""
    value = number(result.value(column))
    if column == OURS or OURS not in result.rounds:
        return value
    return f"{value} ({number(result.ratio(column))})"


def line(result: Result) -> str:
    """A result on its own, while others are still to come."""
    cells = (f"{column} {cell(result, column)}" for column in COLUMNS if column in result.rounds)
    return f"{result.case.name} [{result.case.unit}]: {', '.join(cells)}"


def rows(results: Sequence[Result]) -> list[list[str]]:
    columns = [column for column in COLUMNS if any(column in result.rounds for result in results)]
    found = [["", "unit", *columns]]
    for result in results:
        found.append([result.case.name, result.case.unit, *(cell(result, column) for column in columns)])
    return found


def table(results: Sequence[Result]) -> str:
    cells = rows(results)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        padded = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def markdown(results: Sequence[Result]) -> str:
    head, *others = rows(results)
    lines = [head, ["---", *("---:" for _ in head[1:])], *others]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# -- the chart ---------------------------------------------------------------------------------------------------------

_WIDTH, _LEFT, _BAR, _STEP, _GROUP = 760, 150, 14, 19, 44
#: Its colours follow the reader's: dark text on light, light on dark. Nothing is drawn behind.
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.note { font-size: 11px; fill: #6e7781; }
.ours { fill: #0a7d54; }
.other { fill: #8c96a3; }
.floor { fill: none; stroke: #8c96a3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9198a1; }
  .ours { fill: #3fb27f; }
}
"""


def chart(results: Sequence[Result], note: str) -> str:
    """A group of bars for each row that is shown; in a group they share a scale, between groups they do not."""
    top = 24
    parts = [_text(0, 14, "title", "CPU time per message, delivery or connection: shorter is better")]
    for result in results:
        if not result.case.shown or not result.rounds:
            continue
        top += _GROUP - _STEP
        parts.append(_text(0, top - 8, "title", f"{result.case.name} ({result.case.unit})"))
        columns = [column for column in COLUMNS if column in result.rounds and column not in (UVLOOP, TRANSPORTS)]
        longest = max(result.value(column) for column in columns)
        for column in columns:
            width = max(1, round((_WIDTH - _LEFT - 120) * result.value(column) / longest, 1))
            kind = "ours" if column == OURS else "floor" if COLUMNS.index(column) < COLUMNS.index(OURS) else "other"
            parts.append(_text(_LEFT - 8, top + 11, "", "wsproto_fast" if column == OURS else column, "end"))
            parts.append(f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width}" height="{_BAR}" rx="2"/>')
            parts.append(_text(_LEFT + width + 6, top + 11, "", cell(result, column)))
            top += _STEP
    for text in note.splitlines():
        top += 17
        parts.append(_text(0, top + 8, "note", text))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {_WIDTH + 16} {top + 20}" role="img" '
        f'aria-label="CPU time of WebSocket libraries">\n<style>{_STYLE}</style>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, kind: str, text: str, anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    return f'<text{attributes} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
