"""What examples with a page share: files over plain HTTP on the port of the WebSocket, how a program starts and ends.

Knows nothing of what goes over the WebSocket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

from wsproto_fast import Request, Response
from wsproto_fast.asyncio import Server, ServerConnection

#: What both pages need: a connection that comes back, colours and their controls.
SHARED = {"/pages.js": Path(__file__).with_name("pages.js"), "/pages.css": Path(__file__).with_name("pages.css")}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    # Nothing from elsewhere, nothing inline, in no frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def page(connection: ServerConnection, file: Path | None) -> Response:
    """The response with this file; without one, 404."""
    if file is None:
        return connection.respond(404, "There is no such page.\n")
    response = connection.respond(200, file.read_text(encoding="utf-8"))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = f"{TYPES[file.suffix]}; charset=utf-8"
    response.headers.update(HEADERS)
    return response


def only_our_page(connection: ServerConnection, request: Request) -> Response | None:
    """For a handshake: None, or 403 if a page of another site asks. A browser would let any page on the web connect."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        return connection.respond(403, "Open the page on this server.\n")
    return None


def main(start: Callable[[str, int], AbstractAsyncContextManager[Server]], description: str, port: int) -> None:
    """Serve what ``start(host, port)`` gives until Ctrl-C or SIGTERM, which closes every connection with 1001."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="0 for any (default: %(default)s)")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(start(arguments.host, arguments.port)))


async def _serve(starting: AbstractAsyncContextManager[Server]) -> None:
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: KeyboardInterrupt cancels us instead
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with starting as server:
        host, port = server.sockets[0].getsockname()[:2]
        name = {"127.0.0.1": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
        print(f"Open http://{name}:{port}/   (Ctrl-C ends it)", flush=True)
        await stop.wait()
