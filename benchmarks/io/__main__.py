"""``python -m benchmarks.io``: measures, prints the table, writes table.txt, table.md and chart.svg.

The default run takes about seven minutes and wants a machine with nothing else to do. ``--quick`` shows in seconds that
everything works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsproto_fast import _codec

from . import report, running
from .cases import all_cases, selected

BUILD = running.ROOT / "build" / "bench-io"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.io", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORDS", help="rows with all these words in their name")
    parser.add_argument("--list", action="store_true", help="show the names of the rows")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="for all servers and clients")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.25, help="of a candidate in a round")
    parser.add_argument("--quick", action="store_true", help="one short round with few connections")
    parser.add_argument("--output", type=Path, default=BUILD, help="the folder of table.txt, table.md and chart.svg")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        sys.exit("bench-io needs Linux: its floor is epoll, and it reads the CPU clocks of other processes")
    running.raise_file_limit()
    try:
        programs, speaks_tls = running.compiled(BUILD)
    except (OSError, running.Failed) as exc:
        sys.exit(f"bench-io needs a C compiler: {exc}")
    cases = selected(all_cases(certificate() if speaks_tls else None), options.only)
    if options.list:
        print(*(case.name for case in cases), sep="\n")
        return
    if options.quick:
        options.rounds, options.seconds = 1, 0.05
        cases = [case.quick() for case in cases]
    header = environment(options.loop, options.rounds, options.seconds)
    print(header, end="\n\n", flush=True)
    results = []
    remarks = [] if speaks_tls else ["TLS: skipped, load.c found no OpenSSL to link (Debian, Ubuntu: libssl-dev)"]
    for case in cases:
        result = running.measure(case, options.loop, options.rounds, options.seconds, programs)
        remarks += [f"{case.name}: {why}" for why in (*result.missing, *result.failed)]
        results.append(result)
        print(report.line(result), flush=True)
    if not all(result.hurried for result in results):
        remarks.append("not allowed to have real-time priority (root is): other programs disturb more")
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in (("table.txt", report.table(results)), ("table.md", report.markdown(results))):
        (options.output / name).write_text("\n\n".join([header, text, *remarks]) + "\n")
    (options.output / "chart.svg").write_text(report.chart(results, header))
    print(f"\n{report.table(results)}\n", *remarks, f"In {options.output}: table.txt, table.md, chart.svg", sep="\n")
    if not results or any(result.failed for result in results):
        sys.exit("not everything could be measured")


def certificate() -> str | None:
    """A file with a certificate and its key; None without trustme."""
    try:
        import trustme
    except ImportError:
        return None
    path = BUILD / "certificate.pem"
    issued = trustme.CA().issue_cert("localhost")
    path.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    return str(path)


def environment(loop: str, rounds: int, seconds: float) -> str:
    packages = []
    for package in ("wsproto_fast", "uvloop", "picows", "aiofastnet", "websockets", "aiohttp"):
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    where = "pinned to no core" if running.cores() is None else "what is measured and its load on a core each"
    build = f"kernels: {_codec.simd_level()}" if _codec.COMPILED else "the pure build"
    linux = ".".join(platform.release().split(".")[:2])
    return (
        f"CPython {platform.python_version()}, {loop} loop; {', '.join(packages)}; {build}\n"
        f"{cpu()}, Linux {linux}, {where}; load average {os.getloadavg()[0]:.1f} at the start\n"
        f"CPU time a message, delivery or connection, medians of {rounds} interleaved rounds of {seconds} s;\n"
        "in parentheses how many times ours, the median of the rounds' ratios"
    )


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
