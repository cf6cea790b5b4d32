"""The commands of docs/command-line.md, run in a shell against the server that the page starts first."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("pty")
from command_line import LIMIT, Process, environment, uri_of
from peers import ROOT

pytestmark = pytest.mark.external

PAGE = (ROOT / "docs" / "command-line.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
#: Each command, and what stands below it.
COMMANDS = [pair for block in BLOCKS for pair in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)]


def labels(text: str) -> list[str]:
    """The lines but for what differs from machine to machine: values behind names, and what follows an ellipsis."""
    return [line.partition("  ")[0] for line in text.partition("...\n")[0].splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for a shell")
def test_commands_print_what_stands_below_them() -> None:
    (first, listening), *others = COMMANDS
    assert (first, listening) == ("wsproto-fast echo", "Listening on ws://127.0.0.1:8765/\n")
    assert len(others) >= 6
    with contextlib.closing(Process("echo", "--port", "0")) as server:
        port = uri_of(server.line()).rstrip("/").rpartition(":")[2]
        for command, expected in others:
            script = f'wsproto-fast() {{ "{sys.executable}" -m wsproto_fast "$@"; }}\n{command.replace("8765", port)}'
            done = subprocess.run(
                ["bash", "-c", script],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(),
                timeout=LIMIT,
                check=False,
            )
            if "--version" in command or " bench " in command:
                wanted = labels(expected)
                assert labels(done.stdout)[: len(wanted)] == wanted
            else:
                assert done.stdout == expected


def test_commands_of_the_readme() -> None:
    commands = re.findall(r"^\$ python -m wsproto_fast (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    (serve, connect, bench) = [command.split() for command in commands]
    with contextlib.closing(Process(*serve, "--port", "0")) as server:
        uri = uri_of(server.line()).rstrip("/")
        replace = {"ws://localhost:8765": uri}
        with contextlib.closing(Process(*[replace.get(word, word) for word in connect])) as program:
            assert program.end("hello\n") == (0, "hello\n", "")
        with contextlib.closing(Process(*[replace.get(word, word) for word in bench], "--seconds", "0.2")) as program:
            code, output, errors = program.end()
            assert (code, errors) == (0, "")
            assert output.startswith("50 connections, 8 in flight on each\n")
