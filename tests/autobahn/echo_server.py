"""Echo server for Autobahn's fuzzingclient. Prints its port and serves until it is terminated."""

from __future__ import annotations

import asyncio
import contextlib

from wsproto_fast import Limits
from wsproto_fast.asyncio import ServerConnection, serve
from wsproto_fast.exceptions import ConnectionClosed


async def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


async def main() -> None:
    # Cases of group 9 send 16 MiB messages and 65536 fragments; none expects pings of ours.
    limits = Limits(max_message_size=None, max_fragments=None)
    async with serve(echo, "127.0.0.1", 0, limits=limits, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
