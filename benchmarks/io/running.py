"""Runs the cases: compiles, starts and pins processes, lets them work in turn, and reads their CPU time.

One core has what is measured, another the load, where there are two; as root both get real-time priority, so that
other programs disturb little. CPU time is user and system time of the whole process, in nanoseconds.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shlex
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .cases import CLIENT, OURS, RESIDENT, SERVER, TRACED, Candidate, Case

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PATIENCE = 60  # seconds for what should take a second


class Failed(Exception):
    """A process ended, or said what it should not."""


# -- programs in C -----------------------------------------------------------------------------------------------------


def compiled(folder: Path) -> tuple[Path, bool]:
    """Compile echo.c and load.c into ``folder``; tells whether the load speaks TLS, for which OpenSSL must be there."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]

    def compile_one(name: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*compiler, "-O2", "-o", str(folder / name), str(HERE / f"{name}.c"), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    tls = compile_one("load", "-DHAVE_TLS", "-lssl", "-lcrypto").returncode == 0
    for done in (compile_one("echo"), *([] if tls else [compile_one("load")])):
        if done.returncode:
            raise Failed(done.stderr)
    return folder, tls


# -- processes ---------------------------------------------------------------------------------------------------------


def cores() -> tuple[int, int] | None:
    """For what is measured, and for the load."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else None


class Process:
    """Takes lines on its standard input and answers them; ends when that is closed."""

    def __init__(self, command: list[str], core: int, environment: dict[str, str]) -> None:
        pinned = cores()
        self._command = shlex.join(command)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid
        if pinned is not None:
            os.sched_setaffinity(self.pid, {pinned[core]})

    def hurry(self) -> bool:
        """Real-time priority, if allowed."""
        try:
            os.sched_setscheduler(self.pid, os.SCHED_RR, os.sched_param(1))
        except (AttributeError, PermissionError):
            return False
        return True

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise Failed(f"{self._command}: no answer for {PATIENCE} s")
        line = self._process.stdout.readline().decode().strip()
        if not line:
            assert self._process.stderr is not None
            self._process.kill()
            errors = self._process.stderr.read().decode(errors="replace").strip()
            raise Failed(f"{self._command}: {errors or 'ended'}")
        return line

    def resident(self) -> int:
        """Bytes of memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.kill()
        self._process.wait()


# -- one candidate -----------------------------------------------------------------------------------------------------


class Pair:
    """What is measured, and who keeps it busy."""

    def __init__(self, case: Case, candidate: Candidate, loop: str, programs: Path) -> None:
        self._case = case
        self._candidate = candidate
        self._programs = programs
        self._started: list[Process] = []
        try:
            self._start(candidate.loop or loop)
        except BaseException:
            self.end()
            raise

    def _run(self, command: list[str], core: int) -> Process:
        environment = dict(self._candidate.environment)
        if self._case.way == TRACED:
            environment["PYTHONTRACEMALLOC"] = "1"
        process = Process(command, core, environment)
        self._started.append(process)
        return process

    def _start(self, loop: str) -> None:
        case, program = self._case, self._candidate.program
        python = [sys.executable, "-m"]
        load_options = {**case.load, **dict(self._candidate.load)}
        options = [f"{key}={value}" for key, value in load_options.items()]
        echo = [str(self._programs / "echo")]
        load = [str(self._programs / "load")]
        if case.way == CLIENT:
            server = self._run([*echo, "ws"], 1)
            port = server.answer()
            if program == "load":
                asked = [*load, "echo", f"port={port}", f"pid={os.getpid()}", "text=1", *options]
            else:
                asked = [*python, "benchmarks.io.clients", program, port, "--loop", loop]
                asked += [f"--{option}" for option in options]
            self._busy = self._run(asked, 0)
            self._measured = self._busy
        else:
            job = case.job if case.job in ("broadcast", "group") else "echo"
            if program == "echo":
                server = self._run([*echo, "ws" if job == "echo" else "broadcast"], 0)
            else:
                asked = [*python, "benchmarks.io.servers", program, job, "--loop", loop]
                server = self._run([*asked, *self._candidate.arguments], 0)
            port = server.answer()
            mode = {"group": "broadcast"}.get(case.job, case.job)
            mode = "raw" if program == "raw" else mode
            self._measured = server
            if case.way in (RESIDENT, TRACED):
                self._run([*load, "idle", f"port={port}", f"pid={server.pid}", "conns=50"], 1).answer()
                self._held = self._memory()
            self._busy = self._run([*load, mode, f"port={port}", f"pid={server.pid}", *options], 1)
        self._busy.answer()
        for process in self._started:
            self.hurried = process.hurry()

    def work(self, seconds: float) -> float:
        """Microseconds of CPU time a message."""
        messages, cpu, _, own = map(int, self._busy.ask(str(seconds)).split())
        if self._candidate.program == "load":
            cpu = own
        return cpu / messages / 1000

    def memory(self) -> float:
        """KiB a connection."""
        return (self._memory() - self._held) / self._case.load["conns"] / 1024

    def _memory(self) -> int:
        traced = int(self._measured.ask("memory"))
        return traced if self._case.way == TRACED else self._measured.resident()

    def end(self) -> None:
        for process in reversed(self._started):
            process.end()


# -- a case ------------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Microseconds of CPU time a message (or delivery, or connection), or KiB a connection: by column and round."""

    case: Case
    rounds: dict[str, list[float]]
    #: What could not be measured, and why: it is not installed, or did not do what it should.
    missing: list[str]
    failed: list[str]
    #: Whether it had real-time priority.
    hurried: bool = False

    def value(self, column: str) -> float:
        return median(self.rounds[column])

    def ratio(self, column: str, to: str = OURS) -> float:
        """How many times as much as ``to`` it takes: the median of the rounds' ratios."""
        return median([a / b for a, b in zip(self.rounds[column], self.rounds[to], strict=True)])


def measure(case: Case, loop: str, rounds: int, seconds: float, programs: Path) -> Result:
    """All candidates in turn, and again."""
    result = Result(case, {}, [], [])
    with contextlib.ExitStack() as stack:
        pairs: dict[str, Pair] = {}
        for candidate in case.candidates:
            if candidate.missing:
                result.missing.append(f"{candidate.column}: {candidate.needs} is not installed")
                continue
            if candidate.loop == loop:
                continue  # it is there already
            try:
                pair = Pair(case, candidate, loop, programs)
                stack.callback(pair.end)
                if case.way in (SERVER, CLIENT):
                    pair.work(seconds / 4)  # caches, allocators, specialising interpreters
            except Failed as exc:
                result.failed.append(f"{candidate.column}: {exc}")
            else:
                pairs[candidate.column] = pair
        for _ in range(rounds if case.way in (SERVER, CLIENT) else 1):
            for column, pair in list(pairs.items()):
                try:
                    value = pair.work(seconds) if case.way in (SERVER, CLIENT) else pair.memory()
                except Failed as exc:
                    result.failed.append(f"{column}: {exc}")
                    result.rounds.pop(column, None)
                    del pairs[column]
                else:
                    result.rounds.setdefault(column, []).append(value)
        result.hurried = all(pair.hurried for pair in pairs.values())
    return result


def raise_file_limit(wanted: int = 16384) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
