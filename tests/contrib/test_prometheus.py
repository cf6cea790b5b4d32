"""``Metrics`` as a scrape shows them, beside what real connections did."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from aio import ROOT, missing, pair, peer_of, run, serving, until, uri_of
from helpers import encode_frame

from wsproto_fast import PreparedMessage, State
from wsproto_fast import threading as threaded
from wsproto_fast.asyncio import Connection, Group, ServerConnection, connect

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    missing("the package prometheus-client is not installed")
from wsproto_fast.contrib.prometheus import Metrics

Sample = tuple[str, frozenset[tuple[str, str]]]


class Scraped:
    """A registry with one ``Metrics``, and what a server of Prometheus would see."""

    def __init__(self, **kwargs: Any) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.metrics = Metrics(registry=self.registry, prefix="ws", **kwargs)
        self._highest: dict[Sample, float] = {}

    def __call__(self) -> dict[Sample, float]:
        samples = {}
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in samples, "twice"
                samples[key] = sample.value
                if family.type == "counter":
                    assert sample.value >= self._highest.get(key, 0), "a counter went back"
                    self._highest[key] = sample.value
        return samples

    def value(self, name: str, **labels: str) -> float | None:
        return self().get((f"ws_{name}", frozenset(labels.items())))

    def both(self, name: str) -> tuple[float | None, float | None]:
        return self.value(name, direction="received"), self.value(name, direction="sent")


def test_connections() -> None:
    scraped = Scraped()

    async def main() -> None:
        async with serving(observer=scraped.metrics) as server:
            assert (scraped.value("connections"), scraped.value("connections_opened_total")) == (0, 0)
            async with connect(uri_of(server)), connect(uri_of(server)):
                await until(lambda: scraped.value("connections") == 2)
                async with connect(uri_of(server), observer=scraped.metrics):  # both ends
                    await until(lambda: scraped.value("connections") == 4)
            await until(lambda: scraped.value("connections") == 0)
            assert scraped.value("connections_opened_total") == 4
        closed = {labels: count for (name, labels), count in scraped().items() if name == "ws_connections_closed_total"}
        assert sum(closed.values()) == 4
        assert not scraped.metrics._open

    run(main())


def test_what_goes_over_the_wire() -> None:
    """Counted in bytes that were made without the engine, while the connection lives and after."""
    scraped = Scraped()

    async def main() -> None:
        async def handler(connection: Connection) -> None:
            async for message in connection:
                await connection.send(message)

        async with serving(handler, observer=scraped.metrics) as server, peer_of(server) as peer:
            for _ in range(3):
                peer.write(0x82, bytes(200))
                assert await peer.frame() == (0x82, bytes(200))
            received, sent = (3 * len(encode_frame(0x82, bytes(200), mask=mask)) for mask in (bytes(4), None))
            for _ in range(2):
                assert scraped.both("messages_total") == (3, 3)
                assert scraped.both("wire_bytes_total") == (received, sent)
                assert scraped.both("inflated_bytes_total") == (received, sent)
                if scraped.value("connections"):
                    await peer.close()
                    await until(lambda: scraped.value("connections") == 0)

    run(main())


def test_inflated_bytes() -> None:
    scraped = Scraped()

    async def main() -> None:
        async with pair(server={"observer": scraped.metrics}) as client:
            for _ in range(5):
                await client.send(b"x" * 100_000)
                await client.recv()
            for direction in ("received", "sent"):
                assert 0 < (scraped.value("wire_bytes_total", direction=direction) or 0) < 5000
                assert 500_000 < (scraped.value("inflated_bytes_total", direction=direction) or 0) < 500_100

    run(main())


@pytest.mark.parametrize(
    ("end", "code", "by"),
    [
        ("the peer: 1000", "1000", "peer"),
        ("the peer: 1001", "1001", "peer"),
        ("the peer: 1005", "1005", "peer"),
        ("the peer: 3456", "3xxx", "peer"),
        ("the peer: 4001", "4xxx", "peer"),
        ("here: 1000", "1000", "here"),
        ("here: 4001", "4001", "here"),
        ("a callback fails", "1011", "here"),
        ("protocol error", "1002", "here"),
        ("connection lost", "1006", "nobody"),
    ],
)
def test_close_codes(end: str, code: str, by: str) -> None:
    scraped = Scraped()

    async def main() -> None:
        async def handler(connection: Connection) -> None:
            if end == "here: 4001":
                await connection.close(4001)
            elif end == "a callback fails":
                raise ValueError("on purpose")
            elif end != "here: 1000":
                await connection.wait_closed()

        async with serving(handler, observer=scraped.metrics) as server, peer_of(server) as peer:
            if end.startswith("the peer"):
                number = int(end[-4:])
                peer.write(0x88, b"" if number == 1005 else number.to_bytes(2, "big"))
            elif end == "protocol error":
                peer.write(0x83, b"")
                assert (await peer.frame())[0] == 0x88
                await peer.close()
            elif end == "connection lost":
                peer.writer.transport.abort()
            else:
                first, payload = await peer.frame()
                assert first == 0x88
                peer.write(0x88, payload)
            await until(lambda: scraped.value("connections") == 0)
            closed = {
                dict(labels)["code"] + " by " + dict(labels)["by"]: count
                for (name, labels), count in scraped().items()
                if name == "ws_connections_closed_total"
            }
            assert closed == {f"{code} by {by}": 1}

    run(main())


def test_pings(caplog: pytest.LogCaptureFixture) -> None:
    scraped = Scraped(ping_buckets=[5.0])

    async def main() -> None:
        server = {"observer": scraped.metrics, "ping_interval": 0.01}
        async with pair(server=server, observer=scraped.metrics) as client:
            await (await client.ping())
            await until(lambda: (scraped.value("ping_seconds_count") or 0) >= 5)
            await client.pong(b"that nobody asked for")
            await client.send("x")
            await client.recv()
        assert 0 < (scraped.value("ping_seconds_sum") or 0) < 5
        count = scraped.value("ping_seconds_count")
        assert scraped.value("ping_seconds_bucket", le="5.0") == count
        assert not caplog.records

    run(main())


def test_groups() -> None:
    scraped = Scraped()

    async def main() -> None:
        group = Group(policy="drop-oldest", budget=50_000)
        scraped.metrics.watch(group, "prices")
        scraped.metrics.watch(group, "prices")
        with pytest.raises(ValueError, match="'prices' already"):
            scraped.metrics.watch(Group(), "prices")

        async def join(connection: Connection) -> None:
            group.add(connection)
            await connection.wait_closed()

        async with pair(join, server={"compression": None}, max_queue=1) as client:
            client.transport.pause_reading()
            await until(lambda: len(group) == 1)
            assert scraped.value("group_members", group="prices") == 1
            totals = [0, 0, 0, 0]
            while not totals[2]:
                totals = [a + b for a, b in zip(totals, group.broadcast(bytes(10_000)), strict=True)]
                await asyncio.sleep(0)
            for outcome, count in zip(("sent", "queued", "dropped", "disconnected"), totals, strict=True):
                labels = {"group": "prices", "policy": "drop-oldest", "outcome": outcome}
                assert scraped.value("group_messages_total", **labels) == count
            client.transport.abort()
            await until(lambda: not group)

    run(main())


def test_a_group_that_is_gone_is_forgotten() -> None:
    scraped = Scraped()

    async def main() -> None:
        scraped.metrics.watch(Group(), "prices")
        gc.collect()
        assert not [name for name, _ in scraped() if name.startswith("ws_group")]
        scraped.metrics.watch(Group(), "prices")
        gc.collect()
        another = Group()
        scraped.metrics.watch(another, "prices")
        assert scraped.value("group_members", group="prices") == 0

    run(main())


def test_messages_take_their_usual_way() -> None:
    scraped = Scraped()

    async def main() -> None:
        seen: list[Any] = []

        async def handler(connection: Connection) -> None:
            seen.append(connection)
            connection._send_prepared(PreparedMessage("hello"))
            await connection.wait_closed()

        async with pair(handler, server={"observer": scraped.metrics}) as client:
            assert await client.recv() == "hello"
            for name in ("_on_message", "_put", "_send_message", "_send_prepared", "_send_fragment"):
                assert getattr(type(seen[0]), name) is getattr(ServerConnection, name)
            assert scraped.both("messages_total") == (0, 1)

    run(main())


def test_threads_and_a_scrape_at_any_time() -> None:
    """Connections of the blocking adapter come and go while another thread scrapes; counters never go back."""
    scraped = Scraped()
    number, messages = 8, 10
    done = threading.Event()
    errors: list[BaseException] = []

    def scrape() -> None:
        try:
            while not done.is_set():
                scraped()
        except BaseException as exc:
            errors.append(exc)

    def handler(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    scraper = threading.Thread(target=scrape, daemon=True)
    with threaded.serve(handler, "127.0.0.1", 0, observer=scraped.metrics) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        scraper.start()
        port = server.socket.getsockname()[1]
        for _ in range(number):
            with threaded.connect(f"ws://127.0.0.1:{port}") as client:
                for _ in range(messages):
                    client.send("x")
                    assert client.recv() == "x"
    thread.join()
    done.set()
    scraper.join()
    assert not errors
    assert scraped.both("messages_total") == (number * messages, number * messages)
    assert (scraped.value("connections"), scraped.value("connections_opened_total")) == (0, number)


def test_a_connection_that_is_about_to_open_is_counted_without_its_stats() -> None:
    class About:
        state = State.CONNECTING

        @property
        def stats(self) -> Any:
            return ServerConnection.stats.fget(self)  # type: ignore[attr-defined]

        def _must_be_open(self) -> None:
            ServerConnection._must_be_open(self)  # type: ignore[arg-type]

        _opened = False

    scraped = Scraped()
    scraped.metrics.connection_opened(About())
    assert scraped.value("connections") == 1
    assert scraped.both("messages_total") == (0, 0)


def test_no_registry() -> None:
    metrics = Metrics(registry=None)
    assert {family.name for family in metrics.collect()} == {
        *("wsproto_fast_connections", "wsproto_fast_connections_opened", "wsproto_fast_connections_closed"),
        *("wsproto_fast_messages", "wsproto_fast_wire_bytes", "wsproto_fast_inflated_bytes"),
        *("wsproto_fast_ping_seconds", "wsproto_fast_group_members", "wsproto_fast_group_messages"),
    }


def test_each_metric_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for family in Metrics(registry=None).collect():
        assert f"`{family.name.removeprefix('wsproto_fast_')}" in page, family.name


def test_a_refused_handshake_is_no_connection() -> None:
    scraped = Scraped()

    async def main() -> None:
        async with serving(observer=scraped.metrics, origins=["https://example.com"]) as server:
            with pytest.raises(Exception, match="403"):
                await connect(uri_of(server))
        assert scraped.value("connections_opened_total") == 0

    run(main())
