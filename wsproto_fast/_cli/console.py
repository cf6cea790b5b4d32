"""What a command writes, and where: messages, remarks, a prompt that stays below them, a line of progress.

On a terminal there are colours, and what arrives is put above the line that is being typed. In pipes and files there
are messages only; remarks go to the standard error. Knows streams; knows no WebSocket.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from .pretty import Line, json_lines, plain_lines, render, rows, visible

__all__ = ["Console"]

_PROMPT = "> "
#: Binary messages on a terminal are cut after so many bytes.
_MAX_SHOWN = 256


class Console:
    """The three streams of a program.

    ``terminal``: the output goes to one. ``interactive``: lines are typed there too.
    """

    def __init__(self, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.terminal = _understands_escapes(stdout)
        self.interactive = self.terminal and stdin.isatty()
        self._colours = self.terminal and not os.environ.get("NO_COLOR")
        self._prompting = False
        for stream in (stdout, stderr):
            if isinstance(stream, io.TextIOWrapper):
                # What is received is UTF-8, and so it goes on; a terminal is asked what it can show.
                encoding = stream.encoding if stream.isatty() else "utf-8"
                stream.reconfigure(encoding=encoding, errors="backslashreplace")

    # Lines

    def say(self, text: str) -> None:
        """A line of the command's own output."""
        self._put(plain_lines(text))

    def message(self, message: str | bytes, *, pretty: bool = False) -> None:
        """A message that was received; ``pretty`` writes JSON with indentation. Binary ones are written in hex."""
        lines = self._lines_of(message, pretty)
        if self.interactive:
            lines = [[("received", "< " if number == 0 else "  "), *line] for number, line in enumerate(lines)]
        self._put(lines)

    def remark(self, text: str, style: str = "dim") -> None:
        """A line about what happens."""
        text = visible(text)
        if self.interactive:
            self._put(plain_lines(text, style))
        else:
            print(text, file=self.stderr, flush=True)

    def error(self, text: str) -> None:
        """Why the program ends."""
        print(f"wsproto-fast: {visible(text)}", file=self.stderr, flush=True)

    def _lines_of(self, message: str | bytes, pretty: bool) -> list[Line]:
        if isinstance(message, bytes):
            return plain_lines(self._hex(message))
        if pretty:
            lines = json_lines(message)
            if lines is not None:
                return [[(style, visible(text)) for style, text in line] for line in lines] if self.terminal else lines
        return plain_lines(visible(message) if self.terminal else message)

    def _hex(self, message: bytes) -> str:
        if not self.interactive:
            return message.hex(" ")
        size = len(message)
        text = f"{size} byte{'' if size == 1 else 's'}: {message[:_MAX_SHOWN].hex(' ')}"
        return f"{text} ..." if size > _MAX_SHOWN else text

    def _put(self, lines: list[Line]) -> None:
        if self._prompting:
            width = self._width()
            text = "".join(_above(render(row, self._colours)) for line in lines for row in rows(line, width))
        else:
            text = "".join(f"{render(line, self._colours)}\n" for line in lines)
        self.stdout.write(text)
        self.stdout.flush()

    def _width(self) -> int:
        with contextlib.suppress(OSError, ValueError):  # it has no descriptor
            return os.get_terminal_size(self.stdout.fileno()).columns or 80
        return 80

    # The prompt

    def prompt(self) -> None:
        """Invite to type a line. From now on everything appears above it."""
        self.stdout.write(_PROMPT)
        self.stdout.flush()
        self._prompting = True

    def end_prompt(self) -> None:
        """No more lines: remove the invitation, and what was typed after it."""
        if self._prompting:
            self._prompting = False
            self.stdout.write("\r\x1b[K")
            self.stdout.flush()

    # Progress

    @property
    def bar(self) -> str:
        """What bars are made of."""
        return "\N{FULL BLOCK}" if self.terminal and "utf" in self.stdout.encoding.lower() else "#"

    @property
    def can_show_progress(self) -> bool:
        return _understands_escapes(self.stderr)

    def progress(self, text: str) -> None:
        """A line on the standard error that the next one replaces; an empty one removes it."""
        self.stderr.write(f"\r{text}\x1b[K")
        self.stderr.flush()


def _above(row: str) -> str:
    """Insert a row above that of the cursor, which stays where it is in what the user types.

    Save the cursor; make sure there is a line below; insert one here, which pushes ours down; write; go back, and down.
    """
    return f"\x1b7\n\x1b[A\r\x1b[L{row}\x1b8\x1b[B"


def _understands_escapes(stream: TextIO) -> bool:
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    if sys.platform == "win32":  # pragma: no cover (coverage is measured elsewhere)
        os.system("")  # makes the console of Windows 10 and newer understand them
    return True
