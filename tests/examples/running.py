"""Runs the programs of examples/ as users do: as processes, whose output says where they listen."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from peers import ROOT

__all__ = ["LIMIT", "Program", "running"]

EXAMPLES = ROOT / "examples"
#: Seconds until a test gives up what it waits for.
LIMIT = 60


class Program:
    """A program that runs; its output, errors included, line by line."""

    def __init__(self, name: str, *arguments: str, **popen: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "no_proxy": "*"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **popen,
        )  # fmt: skip
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(line.rstrip("\n"))
        self._new.put(None)
        self.process.stdout.close()

    def line(self) -> str:
        """The next line. Raises AssertionError at the end of the output."""
        line = self._new.get(timeout=LIMIT)
        assert line is not None, self.lines
        self.lines.append(line)
        return line

    def find(self, pattern: str) -> re.Match[str]:
        """The next line in which this is found."""
        while True:
            found = re.search(pattern, self.line())
            if found is not None:
                return found

    @functools.cached_property
    def uri(self) -> str:
        """Where it listens."""
        return self.find(r"wss?://\S+")[0].rstrip("/")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> list[str]:
        """Wait until it has ended, with 0. Returns all lines."""
        assert self.process.wait(LIMIT) == 0, self._rest()
        return self._rest()

    def _rest(self) -> list[str]:
        self._reader.join(LIMIT)
        while not self._new.empty():
            line = self._new.get()
            if line is not None:
                self.lines.append(line)
        return self.lines


@contextlib.contextmanager
def running(name: str, *arguments: str, **popen: Any) -> Iterator[Program]:
    """A program of examples/, that has ended when the block ends."""
    program = Program(name, *arguments, **popen)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait(LIMIT)
        program._reader.join(LIMIT)
