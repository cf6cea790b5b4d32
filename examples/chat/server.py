"""A chat with rooms: the address of the page says which, and everybody who opens it is in.

    python examples/chat/server.py [--host HOST] [--port PORT]

A room's page and its WebSocket have the same address, /room/NAME. Messages are JSON. From the page: ``{"nick": ...}``,
first and whenever somebody takes another name; ``{"say": ...}``. To the page: ``welcome`` with the name one has got and
what was said last, ``people`` whenever somebody comes, goes or is renamed, ``said``.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from wsproto_fast import Request, Response
from wsproto_fast.asyncio import Group, Server, ServerConnection, serve

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import pages  # noqa: E402

PORT = 8766
FIRST_ROOM = "/room/lobby"
ROOM_PATH = re.compile(r"/room/[a-z0-9-]{1,24}")
FILES = {**pages.SHARED, "/chat.css": HERE / "chat.css", "/chat.js": HERE / "chat.js"}
HISTORY = 50  # messages that those who come later see
MAX_ROOMS = 200
MAX_NICK = 20
MAX_TEXT = 1000


class Room:
    """Who is here, and what was said last."""

    def __init__(self) -> None:
        self.group = Group()
        self.nicks: dict[ServerConnection, str] = {}
        self.history: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    async def receive(self, connection: ServerConnection, message: str | bytes) -> None:
        try:
            data = json.loads(message)
        except ValueError:
            data = None
        match data:
            case {"nick": str(nick)}:
                await self.rename(connection, nick)
            case {"say": str(text)} if connection in self.nicks:
                self.say(self.nicks[connection], text)
            case _:
                await connection.close(1003, "expected a nick, then something to say")

    async def rename(self, connection: ServerConnection, wanted: str) -> None:
        others = {nick for member, nick in self.nicks.items() if member is not connection}
        nick = self.nicks[connection] = free_nick(" ".join(wanted.split())[:MAX_NICK] or "Guest", others)
        await connection.send(json.dumps({"type": "welcome", "nick": nick, "history": list(self.history)}))
        self.group.add(connection)  # after the welcome: until then it hears nothing
        self.tell_people()

    def say(self, nick: str, text: str) -> None:
        if text.strip():
            said = {"type": "said", "nick": nick, "text": text[:MAX_TEXT], "at": round(time.time())}
            self.history.append(said)
            self.group.broadcast(json.dumps(said))

    def leave(self, connection: ServerConnection) -> None:
        if self.nicks.pop(connection, None):  # the group knows already
            self.tell_people()

    def tell_people(self) -> None:
        self.group.broadcast(json.dumps({"type": "people", "people": list(self.nicks.values())}))


def free_nick(wanted: str, taken: set[str]) -> str:
    """``wanted``, with a number behind it if somebody has that name."""
    candidates = (f"{wanted} {number}" if number > 1 else wanted for number in range(1, len(taken) + 2))
    return next(nick for nick in candidates if nick not in taken)


rooms: dict[str, Room] = {}


async def chat(connection: ServerConnection) -> None:
    """One visitor of a room, from the first message to the last."""
    assert connection.request is not None
    room = enter(connection.request.path)
    if room is None:
        await connection.close(1013, "too many rooms")
        return
    try:
        async for message in connection:
            await room.receive(connection, message)
    finally:
        room.leave(connection)


def enter(path: str) -> Room | None:
    """The room with this address, a new one if need be. None: there are too many, and somebody is in each."""
    if path not in rooms and len(rooms) >= MAX_ROOMS:
        empty = next((path for path, room in rooms.items() if not room.nicks), None)
        if empty is None:
            return None
        del rooms[empty]  # and what was said in it
    return rooms.setdefault(path, Room())


def process_request(connection: ServerConnection, request: Request) -> Response | None:
    """Pages and files for plain HTTP; through with a WebSocket that a page of ours asks for."""
    path = request.path
    if path == "/":
        response = connection.respond(302, "")
        response.headers["Location"] = FIRST_ROOM
        return response
    if not ROOM_PATH.fullmatch(path):
        return pages.page(connection, FILES.get(path))
    if "Upgrade" in request.headers:
        return pages.only_our_page(connection, request)
    return pages.page(connection, HERE / "chat.html")


def start(host: str | None, port: int | None, **options: Any) -> Server:
    return serve(chat, host, port, process_request=process_request, max_size=2**14, close_timeout=2, **options)


if __name__ == "__main__":
    pages.main(start, "A chat with rooms.", PORT)
