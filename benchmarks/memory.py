"""Bytes of an idle connection: its state alone, without socket, transport or adapter.

``python -m benchmarks.memory``. Each candidate runs in a process of its own, which makes COUNT connections, lets each
of them take and send one small message and keeps them. "allocated" is what tracemalloc saw (Python's allocators: zlib's
contexts are not in it); "resident" is the growth of the process, everything included.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from . import cases, compare, drivers
from .builds import compiled, pure
from .traffic import ASCII, traffic

COUNT = 2000

MAKERS: dict[str, Callable[[drivers.Traffic], Any]] = {
    "wsproto_fast": lambda load: drivers.engine(compiled or pure, load),
    "wsproto_fast, pure": lambda load: drivers.engine(pure, load),
    cases.WEBSOCKETS: drivers.websockets,
    cases.WSPROTO: drivers.wsproto,
}


def use(connection: Any, name: str, load: drivers.Traffic) -> None:
    """One small message in and one out."""
    [wire] = load.reads
    message: Any = load.messages[0]
    connection.receive_data(wire)
    if name == cases.WSPROTO:
        list(connection.events())
        connection.send(drivers.TextMessage(data=message))
    elif name == cases.WEBSOCKETS:
        connection.events_received()
        connection.send_text(message.encode())
        connection.data_to_send()
    else:
        connection.events()
        connection.send_text(message, compress=False)
        connection.data_to_send()


def resident() -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS: /proc/self/status is needed")


def measure(name: str, deflate: bool, used: bool, traced: bool) -> float:
    """Bytes a connection."""
    make = MAKERS[name]
    plain = traffic(ASCII, 125, server=True, single=True)
    wire = plain.reads[0]
    load = drivers.Traffic(True, True, plain.messages[:1], [wire], deflate=deflate)
    for _ in range(20):  # what is made once, and free memory that the first ones would use up
        use(make(load), name, load)
    gc.collect()
    connections: list[Any] = [None] * COUNT
    if traced:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
    else:
        before = resident()
    for i in range(COUNT):
        connection = connections[i] = make(load)
        if used:
            use(connection, name, load)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if traced else resident()
    return (after - before) / COUNT


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *flags = options.one
        print(measure(name, *(flag == "1" for flag in flags)))
        return
    print(f"Bytes of an idle connection, {COUNT:,} of them in a process. {compare.environment()}\n")
    print(f"{'':20} {'':12} {'new':>11} {'new':>11} {'used':>11} {'used':>11}")
    print(f"{'':20} {'':12} {'allocated':>11} {'resident':>11} {'allocated':>11} {'resident':>11}")
    for deflate in (False, True):
        for name in MAKERS:
            cells = []
            for used in (False, True):
                for traced in (True, False):
                    flags = [str(int(flag)) for flag in (deflate, used, traced)]
                    command = [sys.executable, "-m", __spec__.name, "--one", name, *flags]
                    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                    cells.append(f"{float(output):11,.0f}")
            print(f"{name:20} {'with deflate' if deflate else '':12} {' '.join(cells)}")


if __name__ == "__main__":
    main()
