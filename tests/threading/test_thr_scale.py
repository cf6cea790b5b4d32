"""A thousand idle clients in one process: their memory, their threads, their keepalive."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SERVER = """
import asyncio
from wsproto_fast.asyncio import serve

async def main():
    async with serve(None, "127.0.0.1", 0, on_message=print, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, input)

asyncio.run(main())
"""

CLIENT = """
import gc, json, os, sys, threading, time
from wsproto_fast.threading import connect

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

def opened(count):
    return [connect(sys.argv[1], proxy=None, ping_interval=2, ping_timeout=30) for _ in range(count)]

few = opened(100)
before = resident()
many = opened(1000)
memory = (resident() - before) / 1000
threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
end = time.monotonic() + 60
while not all(connection.latency for connection in many) and time.monotonic() < end:
    time.sleep(0.05)
answered = sum(connection.latency > 0 for connection in many)
still_open = sum(connection.state.name == "OPEN" for connection in many)
print(json.dumps({"memory": memory, "threads": threads, "answered": answered, "open": still_open}), flush=True)
os._exit(0)
"""


@pytest.mark.external
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_idle_clients() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert server.stdin is not None
    assert server.stdout is not None
    with server, server.stdin, server.stdout:
        uri = f"ws://127.0.0.1:{server.stdout.readline().strip()}/"
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, uri], capture_output=True, text=True, timeout=110, check=False
        )
        server.kill()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["open"] == told["answered"] == 1000
    assert len(told["threads"]) <= 2
    assert told["memory"] < 6 * 1024
