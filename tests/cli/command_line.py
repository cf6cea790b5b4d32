"""Running the program ``wsproto-fast``: as a process, or inside of this one, where coverage sees it; pipes, terminals.

And servers for it to talk to, in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyte
import websockets.sync.server
from peers import ROOT

from wsproto_fast._cli import main

__all__ = ["Inside", "Process", "Program", "Terminal", "environment", "serving", "uri_of"]

COMMAND = (sys.executable, "-m", "wsproto_fast")
#: Seconds until a test gives up what it waits for.
LIMIT = 60


def environment(**more: str) -> dict[str, str]:
    unwanted = ("NO_COLOR", "COLUMNS", "PYTHONASYNCIODEBUG")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONPATH": str(ROOT), "no_proxy": "*", "TERM": "xterm", **more}


class Program:
    """A run of the program with a pipe for each of its streams. Subclasses say where."""

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def write(self, text: str | bytes) -> None:
        self.stdin.write(text.encode() if isinstance(text, str) else text)
        self.stdin.flush()

    def line(self) -> str:
        """The next line of the output without its end."""
        return str(self.stdout.readline().decode().removesuffix("\n"))

    def end(self, text: str | bytes = "") -> tuple[int, str, str]:
        """Write the rest of the input and its end. Returns the exit code, and the rest of output and errors."""
        output, errors = [], []
        threads = [
            threading.Thread(target=lambda: output.append(self.stdout.read()), daemon=True),
            threading.Thread(target=lambda: errors.append(self.stderr.read()), daemon=True),
        ]
        for thread in threads:
            thread.start()
        with contextlib.suppress(BrokenPipeError):
            if text:
                self.write(text)
        self.close_input()
        code = self.wait()
        for thread in threads:
            thread.join(LIMIT)
        return code, output[0].decode(), errors[0].decode()

    def close_input(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()

    def wait(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Process(Program):
    """The real thing."""

    def __init__(self, *arguments: str, **more: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(**more),
        )
        super().__init__(self.process.stdin, self.process.stdout, self.process.stderr)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        super().close()


class Inside(Program):
    """In a thread of this process."""

    def __init__(self, *arguments: str) -> None:
        ends = [os.pipe() for _ in range(3)]
        (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = ends
        super().__init__(os.fdopen(to_stdin, "wb"), os.fdopen(from_stdout, "rb"), os.fdopen(from_stderr, "rb"))
        self._streams = (os.fdopen(stdin), os.fdopen(stdout, "w"), os.fdopen(stderr, "w"))
        self._code: int | None = None
        self._thread = threading.Thread(target=self._run, args=(arguments,), daemon=True)
        self._thread.start()

    def _run(self, arguments: Sequence[str]) -> None:
        try:
            self._code = exit_code(arguments, *self._streams)
        finally:
            for stream in self._streams[1:]:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def wait(self) -> int:
        self._thread.join(LIMIT)
        assert self._code is not None
        return self._code

    def close(self) -> None:
        super().close()  # the end of its input lets the thread that reads it go
        self._streams[0].close()


def exit_code(arguments: Sequence[str], *streams: Any) -> int:
    """``main`` as the interpreter runs it."""
    try:
        return main(arguments, *streams)
    except SystemExit as exc:
        return int(str(exc.code))


class Terminal:
    """A run of the program on a terminal, of which ``screen`` knows what it shows. ``inside``: in this process."""

    def __init__(self, *arguments: str, inside: bool = True, size: tuple[int, int] = (80, 24), **more: str) -> None:
        columns, lines = size
        self.screen = pyte.Screen(columns or 80, lines or 24)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._code: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        if inside:
            self._streams = [os.fdopen(os.dup(slave), mode) for mode in ("r", "w", "w")]
            self._thread = threading.Thread(target=self._run, args=(arguments,), daemon=True)
            self._thread.start()
        else:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment(**more)
            )
        os.close(slave)

    def _run(self, arguments: Sequence[str]) -> None:
        self._code = exit_code(arguments, *self._streams)
        for stream in self._streams[1:]:
            stream.flush()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    @property
    def shown(self) -> list[str]:
        """The rows of the screen up to the last one that is not empty."""
        rows = [row.rstrip() for row in self.screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows or [""]

    def expect(self, *wanted: str) -> list[str]:
        """Read until the screen ends with these rows; returns all."""
        return self.until(lambda rows: tuple(rows[-len(wanted) :]) == wanted)

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        while not condition(self.shown):
            readable, _, _ = select.select([self._master], [], [], LIMIT)
            assert readable, "\n".join(self.shown)
            try:
                data = os.read(self._master, 65536)
            except OSError:  # how Linux says that nobody has the other end any more
                data = b""
            assert data or condition(self.shown), "\n".join(self.shown)
            self._stream.feed(data)
        return self.shown

    def colour_of(self, text: str) -> str:
        """That of the last place where the screen shows this text."""
        for number in reversed(range(self.screen.lines)):
            column = self.screen.display[number].find(text)
            if column >= 0:
                return str(self.screen.buffer[number][column].fg)
        raise AssertionError(text)

    def wait(self) -> int:
        if self.process is not None:
            return self.process.wait(LIMIT)
        self._thread.join(LIMIT)
        assert self._code is not None
        return self._code

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(LIMIT)
        else:
            self.type("\n\x04")  # the end of the input, if it still reads
            while self._thread.is_alive():
                if select.select([self._master], [], [], 0.01)[0]:
                    os.read(self._master, 65536)
            for stream in self._streams:
                stream.close()
        os.close(self._master)


@contextlib.contextmanager
def serving(handler: Callable[[Any], None], **arguments: Any) -> Iterator[str]:
    """A server of websockets in a thread. Yields its URI."""
    with websockets.sync.server.serve(handler, "127.0.0.1", 0, **arguments) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            scheme = "wss" if "ssl" in arguments else "ws"
            yield f"{scheme}://localhost:{server.socket.getsockname()[1]}/"
        finally:
            server.shutdown()
            thread.join(LIMIT)


def uri_of(line: str) -> str:
    """Where a server says that it listens."""
    assert line.startswith("Listening on ws"), line
    return line.removeprefix("Listening on ")


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


def text_stream(data: bytes = b"") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


