"""``echo``: a server that sends each message back to where it came from."""

from __future__ import annotations

import argparse

from ..asyncio import ServerConnection
from .console import Console
from .serving import EPILOG, add, serve_until_interrupted

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add", "run"]

HELP = "a server that sends each message back"
DESCRIPTION = "Serve WebSocket connections and send each message back: to try clients, and for `bench`."


async def run(options: argparse.Namespace, console: Console) -> int:
    """Returns an exit code. Raises Failure."""
    return await serve_until_interrupted(options, console, _answer)


def _answer(connection: ServerConnection, message: str | bytes) -> None:
    connection.try_send(message)  # never FULL: who does not read is not read from
