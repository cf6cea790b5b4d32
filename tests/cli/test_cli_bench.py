"""``wsproto-fast bench`` against servers of websockets, and its arithmetic; ``--version``."""

from __future__ import annotations

import contextlib
import json
import math
import random
import signal
import statistics
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pty")
from command_line import LIMIT, Inside, Process, Terminal, echo, exit_code, serving, text_stream
from websockets.exceptions import ConnectionClosed

import wsproto_fast
from wsproto_fast._cli.bench import _bytes
from wsproto_fast._cli.latencies import Latencies, histogram, milliseconds


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with serving(echo) as uri:
        yield uri


def bench(*arguments: str) -> tuple[int, str, str]:
    with contextlib.closing(Inside("bench", *arguments)) as program:
        return program.end()


@pytest.mark.parametrize("more", [[], ["--binary"], ["--compression", "deflate"], ["--size", "0"], ["--depth", "7"]])
def test_report(uri: str, more: list[str]) -> None:
    code, output, errors = bench(uri, "-c", "3", "-t", "0.2", *more)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    depth = more[1] if "--depth" in more else "1"
    assert lines[0] == f"3 connections, {depth} in flight on each"
    facts = dict(line.split("  ", 1) for line in lines[3:8] if line)
    assert list(facts) == ["time", "messages", "payload", "on the wire", "latency, ms"]
    total = int(facts["messages"].split(",")[0].strip()) if facts["messages"].count(",") == 1 else None
    if total is not None:
        assert total > 0
    bars = lines[9:]
    assert bars
    assert all(line.count("-") == 1 and line.endswith("%") for line in bars)


def test_json(uri: str) -> None:
    code, output, errors = bench(uri, "-c", "2", "-d", "4", "-t", "0.2", "--size", "100", "--json")
    assert (code, errors) == (0, "")
    result = json.loads(output)
    messages = result["messages"]
    assert messages > 8
    assert (result["uri"], result["connections"], result["depth"], result["size"]) == (uri, 2, 4, 100)
    assert result["messages_per_second"] == pytest.approx(messages / result["seconds"])
    assert result["payload_bytes_per_second"] == pytest.approx(100 * messages / result["seconds"])
    # A masked frame of 100 bytes has a header of 6, an answer's one of 2; up to 8 are in flight at the end.
    assert 106 * messages <= result["wire_bytes_sent"] <= 106 * (messages + 8) + 100
    assert 102 * messages <= result["wire_bytes_received"]
    assert sum(row["messages"] for row in result["histogram"]) == messages
    times = result["latency_ms"]
    assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["p99.9"] <= times["max"]


def test_progress_on_a_terminal(uri: str) -> None:
    with contextlib.closing(Terminal("bench", uri, "-c", "2", "-t", "0.6", size=(120, 40))) as terminal:
        terminal.until(lambda rows: rows[-1].endswith(" ms") and " messages/s   p50 " in rows[-1])
        rows = terminal.until(lambda rows: rows[-1].endswith("%"))
        assert terminal.wait() == 0
    assert not any("p50" in row and "messages/s" in row for row in rows)  # it is gone
    assert any("\N{FULL BLOCK}" in row for row in rows)


def test_interrupted(uri: str) -> None:
    """By Ctrl-C in the main thread, where there is a handler."""

    def interrupt() -> None:
        assert began.wait(LIMIT)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None
    began = threading.Event()

    def handler(connection: Any) -> None:
        for message in connection:
            connection.send(message)
            began.set()

    output, errors = text_stream(), text_stream()
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with serving(handler) as slow:
        code = exit_code(["bench", slow, "-t", "60"], text_stream(), output, errors)
    thread.join(LIMIT)
    assert code == 130
    output.seek(0)
    assert "latency, ms" in output.read()


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (lambda connection: connection.send("unasked"), "an answer is not what was sent; is it an echo server?"),
        (lambda connection: connection.close(4000, "no"), "the server has closed a connection: 4000 (private use) no"),
        (lambda connection: connection.socket.shutdown(2), "the server has closed a connection: "),
    ],
)
def test_no_echo_server(handler: Any, text: str) -> None:
    def after_the_first(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            connection.recv()
            handler(connection)
            connection.recv()

    with serving(after_the_first) as uri:
        code, output, errors = bench(uri, "-c", "1", "-t", "30")
    assert (code, output) == (1, "")
    assert errors.startswith(f"wsproto-fast: {text}")


def test_answers_that_answer_nothing() -> None:
    def twice(connection: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            message = connection.recv()
            connection.send(message)
            connection.recv()
            while True:
                connection.send("more")

    with serving(twice) as uri:
        code, _, errors = bench(uri, "-c", "1", "-t", "30")
    assert code == 1
    assert "is it an echo server?" in errors


def test_no_answers() -> None:
    with serving(lambda connection: connection.recv() and connection.recv()) as uri:
        code, output, errors = bench(uri, "-c", "1", "-t", "0.1")
    assert (code, output) == (1, "")
    assert errors == f"wsproto-fast: no answer came from {uri}; is it an echo server?\n"


def test_closed_before_it_begins() -> None:
    with serving(lambda connection: connection.close()) as uri:
        code, _, errors = bench(uri, "-c", "8", "-t", "1")
    assert code == 1
    assert errors.startswith("wsproto-fast: the server has closed a connection: ")


def test_nobody_there() -> None:
    code, output, errors = bench("ws://127.0.0.1:1/")
    assert (code, output) == (3, "")
    assert "connection refused" in errors


# Numbers


def test_percentiles() -> None:
    source = random.Random(1)
    values = [source.lognormvariate(-8, 2) for _ in range(5000)]
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    cuts = statistics.quantiles(values, n=1000, method="inclusive")
    for percent in (50, 90, 99, 99.9):
        assert latencies.percentile(percent) == pytest.approx(cuts[round(percent * 10) - 1], rel=0.05)
    assert latencies.percentile(100) == latencies.maximum == max(values)
    rows = latencies.rows()
    assert len(rows) <= 16
    assert sum(count for _, _, count in rows) == latencies.count == 5000
    for low, high, count in rows:
        assert sum(low < value <= high for value in values) == pytest.approx(count, abs=25)


def test_no_values() -> None:
    latencies = Latencies()
    assert (latencies.count, latencies.percentile(50), latencies.rows(), histogram([])) == (0, 0.0, [], [])
    latencies.add(0.0)
    assert latencies.percentile(50) == 0.0
    assert math.isclose(latencies.rows()[0][0], 0.0, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.000"), (0.00000123, "0.001"), (0.000123, "0.123"), (0.0123, "12.3"), (1.234, "1234")]
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (5_250_000_000, "5.25 GB")],
)
def test_bytes(number: float, text: str) -> None:
    assert _bytes(number) == text


# --version


def version(*arguments: str) -> dict[str, str]:
    output = text_stream()
    assert exit_code([*arguments, "--version"], text_stream(), output, text_stream()) == 0
    output.seek(0)
    return {line[:13].rstrip(): line[13:].strip() for line in output.read().splitlines()}


def test_version() -> None:
    facts = version("--loop", "asyncio")
    assert facts["wsproto_fast"] == wsproto_fast.__version__
    assert facts["build"].startswith("compiled, kernels for " if wsproto_fast.COMPILED else "pure Python")
    assert facts["zlib"].startswith("zlib ")
    assert facts["event loop"].startswith("asyncio; uvloop ")


def test_version_with_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert version()["event loop"] == version("--loop", "uvloop")["event loop"] == f"uvloop {uvloop.__version__}"


def test_version_where_less_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsproto_fast._cli.version._version_of", lambda name: "")
    facts = version("--loop", "asyncio")
    assert facts["event loop"] == "asyncio; uvloop is not installed"
    assert "DeflateConfig" not in facts["zlib"]


def test_a_distribution_that_is_not_there() -> None:
    from wsproto_fast._cli.version import _version_of

    assert _version_of("no-such-distribution") == ""


@pytest.mark.external
def test_the_real_program_and_a_closed_pipe(uri: str) -> None:
    with contextlib.closing(Process("--version")) as program:
        code, output, errors = program.end()
        assert (code, errors) == (0, "")
        assert output.startswith("wsproto_fast ")
    with contextlib.closing(Process("bench", uri, "-t", "0.2")) as program:
        program.stdout.close()
        assert program.wait() == 141
