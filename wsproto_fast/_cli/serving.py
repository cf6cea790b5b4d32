"""What the commands that serve share: listen, say where, and end when told to. Knows no messages."""

from __future__ import annotations

import argparse
import errno
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from ..asyncio import ServerConnection, serve
from .console import Console
from .failures import NOT_OPENED, OK, Failure
from .options import MAX_SIZE, add_compression, add_loop, add_server_options, compression_of, server_context
from .running import interruptible

__all__ = ["EPILOG", "add", "serve_until_interrupted"]

EPILOG = """\
Ctrl-C or SIGTERM closes all connections with 1001 and ends the program; a second one ends it at once.
Any page in a browser may connect to this server: leave it on 127.0.0.1 unless that is what you want.

exit codes: 0 ended by Ctrl-C or SIGTERM, 2 wrong arguments, 3 could not listen
"""


def add(parser: argparse.ArgumentParser) -> None:
    """The options of a server."""
    add_server_options(parser)
    add_compression(parser, "deflate")
    add_loop(parser)


async def serve_until_interrupted(
    options: argparse.Namespace,
    console: Console,
    on_message: Callable[[ServerConnection, str | bytes], object],
    handler: Callable[[ServerConnection], Awaitable[None]] | None = None,
) -> int:
    """Serve until a signal comes. Returns an exit code. Raises Failure."""
    context = server_context(options)
    more: dict[str, Any] = {"reuse_port": True} if options.reuse_port else {}
    server = serve(
        handler,
        options.host,
        options.port,
        ssl=context,
        compression=compression_of(options),
        max_size=MAX_SIZE,
        on_message=on_message,
        **more,
    )
    with interruptible(signal.SIGINT, signal.SIGTERM) as interrupted:
        try:
            await server
        except (OSError, ValueError) as exc:  # ValueError: a system without SO_REUSEPORT
            raise Failure(f"cannot listen on {options.host}:{options.port}: {_reason(exc)}", NOT_OPENED) from exc
        async with server:
            for sock in server.sockets:
                console.say(f"Listening on {'ws' if context is None else 'wss'}://{_address(sock)}/")
            await interrupted.wait()
            number = len(server.connections)
            console.say(f"Closing {number} connection{'' if number == 1 else 's'}")
    return OK


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError):
        if exc.errno == errno.EADDRINUSE:
            return "another program listens there; --port 0 takes a free port"
        if exc.errno == errno.EACCES:
            return "ports below 1024 are for the administrator"
        if isinstance(exc, socket.gaierror):
            return f"the host's name is not known ({exc.strerror})"
        return exc.strerror or str(exc)
    return str(exc)


def _address(sock: Any) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
