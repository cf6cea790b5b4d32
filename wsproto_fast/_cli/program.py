"""The program: its commands, its exit codes, and what becomes of everything that goes wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TextIO

from . import bench, broadcast, connect, echo
from .console import Console
from .failures import ENDED, INTERRUPTED, OK, OUTPUT_CLOSED, USAGE, Failure
from .options import add_loop
from .running import choose_loop, run
from .version import report

__all__ = ["main"]

PROGRAM = "wsproto-fast"
DESCRIPTION = "WebSocket from the command line: talk to a server, be one, or measure one."
EPILOG = f"""\
{PROGRAM} COMMAND --help has the options of a command, and examples of all are in the documentation.

  {PROGRAM} connect wss://example.com/feed --json
  {PROGRAM} echo --port 8765
  {PROGRAM} bench ws://localhost:8765 --connections 50 --depth 8
"""
Command = Callable[[argparse.Namespace, Console], Coroutine[Any, Any, int]]
COMMANDS = {"connect": connect, "echo": echo, "broadcast": broadcast, "bench": bench}


def main(
    argv: Sequence[str] | None = None,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Run one command, by default that of ``sys.argv`` on the process's own streams. Returns its exit code.

    Raises SystemExit, as argparse does, for ``--help`` and for arguments that cannot be parsed. Streams are text
    streams with a ``buffer``.
    """
    with contextlib.ExitStack() as stack:
        if stdin is None:
            # There is none where a service manager, or ``<&-``, has closed it.
            stdin = sys.stdin or stack.enter_context(open(os.devnull))
        console = Console(stdin, stdout or sys.stdout, stderr or sys.stderr)
        try:
            return _run(_parser().parse_args(argv), console)
        except Failure as exc:
            console.error(str(exc))
            return exc.code
        except KeyboardInterrupt:
            return INTERRUPTED
        except OSError as exc:  # of the output: others have become a Failure
            _discard(console.stdout)
            if isinstance(exc, BrokenPipeError):
                return OUTPUT_CLOSED
            console.error(f"cannot write the output: {exc.strerror}")
            return ENDED


def _run(options: argparse.Namespace, console: Console) -> int:
    loop = choose_loop(options.loop)
    if options.version:
        console.say(run(report(loop), loop))
        return OK
    if options.command is None:
        _parser().print_help(console.stderr)
        return USAGE
    command: Command = COMMANDS[options.command].run
    return run(command(options, console), loop)


def _discard(stream: TextIO) -> None:
    """Whoever closes this stream, as the interpreter does at its end, writes what is left in its buffer to nowhere."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-V", "--version", action="store_true", help="tell which build is active, and on what it runs")
    add_loop(parser, default="auto")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        command.add(
            commands.add_parser(
                name,
                help=command.HELP,
                description=command.DESCRIPTION,
                epilog=command.EPILOG,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser
