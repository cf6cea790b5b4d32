"""``broadcast``: a server that sends each message to all others."""

from __future__ import annotations

import argparse

from ..asyncio import Group, ServerConnection
from .console import Console
from .serving import EPILOG, add, serve_until_interrupted

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add", "run"]

HELP = "a server that sends each message to all other clients"
DESCRIPTION = """\
Serve WebSocket connections and send each message to all other clients. For one that reads slowly, the oldest messages
are dropped when more than 1 MiB waits.
"""


async def run(options: argparse.Namespace, console: Console) -> int:
    """Returns an exit code. Raises Failure."""
    group = Group(policy="drop-oldest")

    async def join(connection: ServerConnection) -> None:
        group.add(connection)
        await connection.wait_closed()

    def pass_on(connection: ServerConnection, message: str | bytes) -> None:
        group.broadcast(message, exclude=[connection])

    return await serve_until_interrupted(options, console, pass_on, join)
