"""Echo client for Autobahn's fuzzingserver: runs every case that the server offers. Argument: the server's URI."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from wsproto_fast import Limits
from wsproto_fast.asyncio import connect
from wsproto_fast.exceptions import ConnectionClosed, InvalidHandshake

AGENT = "wsproto_fast"
#: Cases of group 9 send 16 MiB messages and 65536 fragments.
LIMITS = Limits(max_message_size=None, max_fragments=None)


async def run_case(uri: str, case: int) -> None:
    uri = f"{uri}/runCase?case={case}&agent={AGENT}"
    async with connect(uri, limits=LIMITS, ping_interval=None) as connection:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                await connection.send(message)


async def main(uri: str) -> None:
    async with connect(f"{uri}/getCaseCount") as connection:
        count = int(await connection.recv())
    for case in range(1, count + 1):
        try:
            await run_case(uri, case)
        except InvalidHandshake as error:  # the suite reports the case as failed, or not at all
            print(f"case number {case}: {error!r}", file=sys.stderr)
    async with connect(f"{uri}/updateReports?agent={AGENT}") as connection:
        await connection.wait_closed()
    print(count, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
