"""examples/dashboard: the program, put to clients of ours and of websockets, one of which does not read."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
from typing import Any

import pytest
from aio import peer_of, run
from ex_browser import load
from example_programs import Program, connects, get

from wsproto_fast.asyncio import connect, serve
from wsproto_fast.exceptions import InvalidStatus


@connects
def test_feed(open_connection: Any) -> None:
    async def main() -> None:
        async with Program("dashboard", "--port", "0") as dashboard:
            feed = f"ws://127.0.0.1:{dashboard.port}/feed"
            started = asyncio.get_running_loop().time()
            async with open_connection(feed) as one, open_connection(feed) as two:
                first = json.loads(await one.recv())
                assert first["tick"] == 0.1
                samples = first["samples"]
                assert len(samples) == 600
                for _ in range(10):
                    message = json.loads(await one.recv())
                    samples += message["samples"]
                assert asyncio.get_running_loop().time() - started > 0.75  # the first comes at once, one may be late
                while message["watchers"] != 2:
                    message = json.loads(await one.recv())
                start = samples[0]["n"]
                assert [sample["n"] for sample in samples] == list(range(start, start + 610))
                for sample in samples:
                    assert set(sample) == {"n", "sun", "wind", "hydro", "gas", "demand", "frequency"}
                    assert min(sample.values()) >= 0
                    assert 49 < sample["frequency"] < 51
                known = json.loads(await two.recv())["samples"]
                after = json.loads(await two.recv())["samples"]
                assert after[0]["n"] == known[-1]["n"] + 1
                await two.close()
                while json.loads(await one.recv())["watchers"] != 1:
                    pass
                await dashboard.end()
                await one.wait_closed()
                assert one.close_code == 1001

    run(main())


def test_page() -> None:
    async def main() -> None:
        async with Program("dashboard", "--port", "0") as dashboard:
            _, page = await get(dashboard.url)
            linked = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page)
            assert linked == ["/pages.css", "/dashboard.css", "/dashboard.js"]
            for name in ("", "pages.css", "dashboard.css", "dashboard.js", "pages.js"):
                headers, text = await get(dashboard.url + name)
                assert "default-src 'none'" in headers["Content-Security-Policy"]
                assert "unsafe" not in headers["Content-Security-Policy"]
                assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|innerHTML", text) == []
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await get(dashboard.url + "server.py")
            with pytest.raises(InvalidStatus, match="403"):
                await connect(f"ws://127.0.0.1:{dashboard.port}/feed", origin="http://evil.example")
            await dashboard.end()

    run(main())


def test_who_does_not_read_misses_samples_but_not_the_newest() -> None:
    dashboard = load("dashboard")

    async def main() -> None:
        feed = dashboard.Feed()
        async with serve(feed.watch, "127.0.0.1", 0, compression=None) as server, peer_of(server, small=True) as slow:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/") as quick:
                while len(feed.watchers) < 2:
                    await asyncio.sleep(0)
                await quick.recv()
                while feed.watchers.totals.dropped < 100:
                    feed.push()
                    assert json.loads(await quick.recv())["samples"][0]["n"] == feed.grid.number
                assert feed.watchers.totals.disconnected == 0
                newest = feed.grid.number
                numbers: list[int] = []
                while not numbers or numbers[-1] != newest:
                    _, payload = await slow.frame()
                    numbers.append(json.loads(payload)["samples"][-1]["n"])
                assert numbers == sorted(set(numbers))
                assert newest - numbers[-2] > 100
                feed.push()  # from here on it keeps up
                _, payload = await slow.frame()
                assert json.loads(payload)["samples"][0]["n"] == newest + 1

    run(main())


def test_a_late_sample_does_not_make_all_others_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn of the loop that took long there is one sample, not a burst of them."""
    dashboard = load("dashboard")
    delays: list[float] = []

    async def main() -> None:
        feed = dashboard.Feed()
        now = [100.0]
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])

        async def sleep(delay: float) -> None:
            delays.append(round(delay, 3))
            now[0] += delay + (0.03 if len(delays) == 1 else 5.0 if len(delays) == 3 else 0)
            if len(delays) == 6:
                raise asyncio.CancelledError

        monkeypatch.setattr(asyncio, "sleep", sleep)
        with pytest.raises(asyncio.CancelledError):
            await feed.run()
        monkeypatch.undo()

    run(main())
    assert delays == [0.1, 0.07, 0.1, 0.0, 0.1, 0.1]
