"""Instructions per message: exact where clocks are not, so two versions can be told apart on a busy machine.

``python -m benchmarks.callgrind`` runs each case with N and with 2N messages under ``valgrind --tool=callgrind`` and
divides the difference by N, so that starting Python cancels out. Calls are made from Python, and what the interpreter
spends on them is in the count; ``nothing`` is the bare loop. Valgrind has no AVX-512: the kernels are those of AVX2.

``--functions`` adds where they went, by the same difference; ``--keep DIRECTORY`` keeps the profiles of the larger runs
for callgrind_annotate.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .builds import compiled, pure  # and no peers: what their import costs is not the same in each run

N = 20_000
TEXT = ("The quick brown fox jumps over the lazy dog, 0123456789. " * 3)[:125]
KEY = 0x3D21FA37


def server(package: Any, frames: int) -> tuple[Any, bytes]:
    """A server's connection and a read with this many masked frames."""
    frame = pure._codec.build_frame(0x81, TEXT, KEY)
    return package.Connection(package.Role.SERVER), frame * frames


def dispatch(package: Any) -> Callable[[int], None]:
    connection, read = server(package, 500)
    sink = deque[Any](maxlen=0).append

    def run(n: int) -> None:
        for _ in range(n // 500):
            connection.receive_data(read)
            connection.dispatch(sink, sink)

    return run


def next_event(package: Any) -> Callable[[int], None]:
    connection, read = server(package, 500)

    def run(n: int) -> None:
        for _ in range(n // 500):
            connection.receive_data(read)
            while connection.next_event() is not None:
                pass

    return run


def one_a_read(package: Any) -> Callable[[int], None]:
    connection, read = server(package, 1)
    sink = deque[Any](maxlen=0).append

    def run(n: int) -> None:
        for _ in range(n):
            connection.receive_data(read)
            connection.dispatch(sink, sink)

    return run


def one_in_buffer(package: Any) -> Callable[[int], None]:
    connection, read = server(package, 1)
    size = len(read)
    sink = deque[Any](maxlen=0).append

    def run(n: int) -> None:
        for _ in range(n):
            connection.get_buffer()[:size] = read
            connection.buffer_updated(size)
            connection.dispatch(sink, sink)

    return run


def send(package: Any, role: str) -> Callable[[int], None]:
    connection = package.Connection(package.Role[role])

    def run(n: int) -> None:
        for _ in range(n):
            connection.send_text(TEXT)
            connection.data_to_send()

    return run


def send_32(package: Any) -> Callable[[int], None]:
    connection = package.Connection(package.Role.CLIENT)

    def run(n: int) -> None:
        for _ in range(n // 32):
            for _ in range(32):
                connection.send_text(TEXT)
            connection.data_to_send()

    return run


def nothing(package: Any) -> Callable[[int], None]:
    def run(n: int) -> None:
        for _ in range(n):
            pass

    return run


CASES: dict[str, Callable[[Any], Callable[[int], None]]] = {
    "dispatch": dispatch,
    "next_event": next_event,
    "one-a-read": one_a_read,
    "one-in-buffer": one_in_buffer,
    "send-client": lambda package: send(package, "CLIENT"),
    "send-server": lambda package: send(package, "SERVER"),
    "send-client-of-32": send_32,
    "nothing": nothing,
}


def instructions(case: str, build: str, n: int, profile: Path) -> int:
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", "--dump-instr=yes", sys.executable]
    command += ["-m", __spec__.name, "--run", build, case, str(n)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    with open(profile) as lines:
        for line in lines:
            if line.startswith(("totals:", "summary:")):
                return int(line.split()[1])
    raise SystemExit(f"no total in {profile}")


def functions(profile: Path) -> Counter[str]:
    """Instructions of each function itself."""
    command = ["callgrind_annotate", "--threshold=100", "--auto=no", str(profile)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: Counter[str] = Counter()
    for line in output.splitlines():
        match = re.match(r" *([\d,]+) \( *[\d.]+%\)  .*?:([^ :]+)(?: \[|$)", line)
        if match:
            name = re.sub(r"^__pyx_(\w+?)_12wsproto_fast_", r"\1: ", match[2].partition("'")[0])
            result[name] += int(match[1].replace(",", ""))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.callgrind", description=__doc__)
    parser.add_argument("case", nargs="*", choices=[[], *CASES], help="default: all")
    parser.add_argument("-n", type=int, default=N, help="messages of the smaller run")
    parser.add_argument("--pure", action="store_true", help="the build without extensions")
    parser.add_argument("--functions", action="store_true", help="the functions that these instructions are in")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        build, case, n = options.run
        run = CASES[case](pure if build == "pure" else compiled)
        gc.disable()
        run(int(n))
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is needed (Debian, Ubuntu: apt-get install valgrind)")
    build = "pure" if options.pure or compiled is None else "compiled"
    n = options.n // 1000 * 1000
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"Instructions a message of 125 B of text, {build}:")
        for case in options.case or CASES:
            half, whole = Path(temporary) / "half", folder / f"callgrind.{build}.{case}"
            once = instructions(case, build, n, half)
            twice = instructions(case, build, 2 * n, whole)
            print(f"  {case:18} {(twice - once) / n:10.1f}", flush=True)
            if options.functions:
                spent = functions(whole)
                spent.subtract(functions(half))
                for name, count in spent.most_common():
                    if count / n >= 1:
                        print(f"  {'':18} {count / n:10.1f}  {name}")


if __name__ == "__main__":
    main()
