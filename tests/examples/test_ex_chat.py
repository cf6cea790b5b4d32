"""examples/chat: the program, put to clients of ours and of websockets."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
from typing import Any

import pytest
from aio import run
from ex_browser import load
from example_programs import Program, connects, get

from wsproto_fast.asyncio import connect
from wsproto_fast.exceptions import InvalidStatus


async def tell(connection: Any, **message: Any) -> None:
    await connection.send(json.dumps(message))


async def hear(connection: Any, kind: str) -> Any:
    """The next message of this type; no other may come before it."""
    message = json.loads(await connection.recv())
    assert message["type"] == kind, message
    return message


async def come_in(connection: Any, nick: str) -> Any:
    """The welcome."""
    await tell(connection, nick=nick)
    welcome = await hear(connection, "welcome")
    assert welcome["nick"] in (await hear(connection, "people"))["people"]
    return welcome


@connects
def test_talk(open_connection: Any) -> None:
    async def main() -> None:
        async with Program("chat", "--port", "0") as chat:
            lobby = f"ws://127.0.0.1:{chat.port}/room/lobby"
            async with open_connection(lobby) as ada, open_connection(lobby) as other, connect(lobby) as silent:
                welcome = await come_in(ada, "  Ada   Lovelace ")
                assert welcome == {"type": "welcome", "nick": "Ada Lovelace", "history": []}
                assert (await come_in(other, "Ada Lovelace"))["nick"] == "Ada Lovelace 2"
                assert (await hear(ada, "people"))["people"] == ["Ada Lovelace", "Ada Lovelace 2"]
                await tell(other, nick="Grace")
                assert (await hear(other, "welcome"))["nick"] == "Grace"
                for connection in (ada, other):
                    assert (await hear(connection, "people"))["people"] == ["Ada Lovelace", "Grace"]
                await tell(ada, say=" \n")  # nothing to say
                await tell(ada, say="Hello")
                for connection in (ada, other):
                    said = await hear(connection, "said")
                    assert (said["nick"], said["text"]) == ("Ada Lovelace", "Hello")
                    assert abs(said["at"] - time.time()) < 60
                await other.close()
                assert (await hear(ada, "people"))["people"] == ["Ada Lovelace"]
                await tell(silent, nick="")  # has been here all the time, and heard nothing
                assert await hear(silent, "welcome") == {"type": "welcome", "nick": "Guest", "history": [said]}
            await chat.end()

    run(main())


def test_rooms_and_history() -> None:
    async def main() -> None:
        async with Program("chat", "--port", "0") as chat:
            rooms = f"ws://127.0.0.1:{chat.port}/room/"
            async with connect(f"{rooms}tea") as tea, connect(f"{rooms}music") as music:
                await come_in(tea, "Ada")
                await come_in(music, "Ada")  # the same name, elsewhere
                for number in range(60):
                    await tell(tea, say=f"{number} {'x' * 2000}")
                for number in range(60):
                    assert (await hear(tea, "said"))["text"] == f"{number} {'x' * 2000}"[:1000]
                await tell(music, say="one")
                assert (await hear(music, "said"))["text"] == "one"  # and nothing of the other room
            async with connect(f"{rooms}tea") as later:  # nobody is left
                history = (await come_in(later, "Grace"))["history"]
                assert [said["text"].split()[0] for said in history] == [str(number) for number in range(10, 60)]
            await chat.end()

    run(main())


@pytest.mark.parametrize("message", ["[", "[]", '{"nick": 1}', '{"say": "who am I?"}', b"\xff"])
def test_what_is_no_message_of_the_page(message: Any) -> None:
    async def main() -> None:
        async with Program("chat", "--port", "0") as chat:
            async with connect(f"ws://127.0.0.1:{chat.port}/room/lobby") as connection:
                await connection.send(message)
                await connection.wait_closed()
                assert connection.close_code == 1003
            await chat.end()

    run(main())


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_page_and_end(signal_number: int) -> None:
    async def main() -> None:
        async with Program("chat", "--port", "0") as chat:
            headers, page = await get(chat.url)  # by a redirect
            assert re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page) == ["/pages.css", "/chat.css", "/chat.js"]
            assert headers["Content-Type"] == "text/html; charset=utf-8"
            for name in ("pages.css", "chat.css", "chat.js", "pages.js", "room/tea"):
                headers, text = await get(chat.url + name)
                assert "default-src 'none'" in headers["Content-Security-Policy"]
                assert "unsafe" not in headers["Content-Security-Policy"]
                assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|innerHTML", text) == []
            for path in ("room/", "room/Tea", "room/" + "x" * 25, "server.py", "../pages.py"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    await get(chat.url + path)
            lobby = f"ws://127.0.0.1:{chat.port}/room/lobby"
            with pytest.raises(InvalidStatus, match="403"):
                await connect(lobby, origin="http://evil.example")
            async with connect(lobby, origin=f"http://127.0.0.1:{chat.port}") as connection:
                await come_in(connection, "Ada")
                await chat.end(signal_number)
                await connection.wait_closed()
                assert connection.close_code == 1001

    run(main())


def test_too_many_rooms() -> None:
    """A new one takes the place of one where nobody is, with what was said there."""
    chat = load("chat")
    names = [f"/room/{number}" for number in range(chat.MAX_ROOMS)]
    for name in names:
        chat.enter(name).nicks[name] = "Ada"
    assert chat.enter("/room/new") is None
    first = chat.enter(names[3])
    assert first is chat.enter(names[3])
    first.leave(names[3])
    assert chat.enter("/room/new") is not None
    assert chat.enter(names[3]) is not first  # "new" was empty, and went for it
    assert len(chat.rooms) == chat.MAX_ROOMS
    chat.enter(names[3]).nicks["x"] = "Ada"
    assert chat.enter("/room/last") is None

    async def main() -> None:
        async with chat.start("127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}/room/last") as connection:
                await connection.wait_closed()
                assert connection.close_code == 1013

    run(main())
