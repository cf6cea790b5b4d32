"""A live room: what one browser tab types, every tab sees.

    python examples/demo/server.py [--host HOST] [--port PORT]

One port serves the page (plain HTTP, through ``process_request``) and the WebSocket behind it. Ctrl-C or SIGTERM closes
every connection with 1001 and ends the server; open pages wait until it is back.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import itertools
import json
import random
import re
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wsproto_fast import Request, Response
from wsproto_fast.asyncio import Server, ServerConnection, broadcast, serve

HERE = Path(__file__).resolve().parent
PAGES = {
    "/": ("room.html", "text/html; charset=utf-8"),
    "/room.css": ("room.css", "text/css; charset=utf-8"),
    "/room.js": ("room.js", "text/javascript; charset=utf-8"),
}
#: Nothing from elsewhere, nothing inline, in no frame.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

DEFAULT_PORT = 8765
TICK = 0.5  # seconds between two points of the graphs
MAX_TEXT = 500
MAX_SAMPLES = 120

ADJECTIVES = [
    "Amber",
    "Brave",
    "Calm",
    "Clever",
    "Eager",
    "Gentle",
    "Golden",
    "Lucky",
    "Quiet",
    "Rapid",
    "Silver",
    "Sunny",
]
ANIMALS = ["Badger", "Crane", "Dolphin", "Falcon", "Fox", "Heron", "Koala", "Lynx", "Marten", "Otter", "Panda", "Robin"]


class Room:
    """Who is here, what was said, and how busy it is."""

    def __init__(self) -> None:
        self.people: dict[ServerConnection, dict[str, Any]] = {}
        self.said: deque[dict[str, Any]] = deque(maxlen=50)
        self.samples: deque[dict[str, Any]] = deque(maxlen=MAX_SAMPLES)
        self.messages = 0  # received and delivered since the last tick
        self.ids = itertools.count(1)

    async def handle(self, connection: ServerConnection) -> None:
        """One visitor, from the first message to the last."""
        person = self.people[connection] = self.new_person(connection)
        try:
            await connection.send(
                json.dumps(
                    {
                        "type": "welcome",
                        "you": person,
                        "people": list(self.people.values()),
                        "said": list(self.said),
                        "samples": list(self.samples),
                    }
                )
            )
            self.tell({"type": "join", "person": person}, but=connection)
            async for message in connection:
                await self.receive(connection, person, message)
        finally:
            del self.people[connection]
            self.tell({"type": "leave", "id": person["id"]})

    async def receive(self, connection: ServerConnection, person: dict[str, Any], message: str | bytes) -> None:
        self.messages += 1
        try:
            data = json.loads(message)
            kind, text = data["type"], str(data.get("text", ""))[:MAX_TEXT]
        except (ValueError, TypeError, KeyError, AttributeError):
            await connection.close(1003, "expected JSON objects with a type")
            return
        if kind == "probe":  # the browser measures the round trip
            self.messages += 1
            await connection.send(message)
        elif kind == "draft":
            person["draft"] = text  # for those who come now
            self.tell({"type": "draft", "id": person["id"], "text": text}, but=connection)
        elif kind == "say" and text.strip():
            person["draft"] = ""
            said = {"type": "say", "id": person["id"], "name": person["name"], "hue": person["hue"], "text": text}
            self.said.append(said)
            self.tell(said)

    def tell(self, event: dict[str, Any], but: ServerConnection | None = None) -> None:
        """One message to everybody. It is framed once, and waits for nobody."""
        receivers = [connection for connection in self.people if connection is not but]
        self.messages += len(receivers)
        broadcast(receivers, json.dumps(event))

    def new_person(self, connection: ServerConnection) -> dict[str, Any]:
        assert connection.request is not None
        name = parse_qs(urlsplit(connection.request.path).query).get("name", [""])[0]
        if not re.fullmatch(r"[A-Z][a-z]{1,11} [A-Z][a-z]{1,11}", name):
            name = f"{random.choice(ADJECTIVES)} {random.choice(ANIMALS)}"
        number = next(self.ids)
        return {"id": number, "name": name, "draft": "", "hue": number * 137 % 360}  # hues far from each other

    async def tick(self) -> None:
        """Measure, and tell everybody, for ever."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            sample = {"people": len(self.people), "rate": round(self.messages / (now - last), 1)}
            self.messages, last = 0, now
            self.samples.append(sample)
            broadcast(self.people, json.dumps({"type": "sample", **sample}))


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    """Answer plain HTTP; let WebSocket through if it comes from our own page."""
    path = request.path.partition("?")[0]
    if path == "/ws":
        # A browser would let any page on the web connect to us. Not every page may: only ours.
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
            return connection.respond(403, "Open the page on this server.\n")
        return None
    if path not in PAGES:
        return connection.respond(404, "There is no such page.\n")
    name, content_type = PAGES[path]
    response = connection.respond(200, (HERE / name).read_text(encoding="utf-8"))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    response.headers.update(SECURITY_HEADERS)
    return response


async def listen(room: Room, host: str, port: int | None) -> Server:
    """Start the server on ``port``; None: on the usual one, or the next that is free."""
    ports: Iterator[int] = iter([port]) if port is not None else iter(range(DEFAULT_PORT, DEFAULT_PORT + 20))
    for candidate in ports:
        try:
            return await serve(
                room.handle, host, candidate, process_request=process_request, max_size=4096, close_timeout=2
            )
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or port is not None:
                raise
    raise OSError(errno.EADDRINUSE, f"ports {DEFAULT_PORT} to {DEFAULT_PORT + 19} are taken; give another with --port")


async def main(host: str, port: int | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows: KeyboardInterrupt cancels us instead
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
    room = Room()
    async with await listen(room, host, port) as server:
        address = server.sockets[0].getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0].replace("127.0.0.1", "localhost")
        print(f"The room is open: http://{name}:{address[1]}/   (Ctrl-C closes it)", flush=True)
        ticking = loop.create_task(room.tick())
        await stop.wait()
        ticking.cancel()
    print("\nThe room is closed.", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help=f"0 for any (default: {DEFAULT_PORT}, or the next that is free)")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(main(arguments.host, arguments.port))
        except OSError as exc:
            parser.exit(1, f"cannot listen: {exc}\n")
