"""A redis-server of a test's own, which it may stop, freeze and start again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aio import missing

__all__ = ["RedisServer", "redis_server"]


def program() -> str:
    path = shutil.which("redis-server")
    if path is None:
        missing("redis-server is not installed (Debian, Ubuntu: apt-get install redis-server)")
    assert path is not None
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """Keeps nothing on disk. Has a port of its own, the same over restarts."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._command = [program(), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory), *options]
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        process = subprocess.Popen(
            [*self._command, "--port", str(self.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ready to accept connections" in line:
                self._process = process
                return
        process.stdout.close()
        process.wait()
        pytest.fail("redis-server has ended:\n" + "".join(lines))

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It has connections, and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def redis_server(directory: Path, *options: str) -> Iterator[RedisServer]:
    """A server that runs until the end of the block."""
    server = RedisServer(directory, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
