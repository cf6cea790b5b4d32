"""``wsproto-fast connect`` on a terminal: what somebody who sits before it sees."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pty")
from command_line import LIMIT, Terminal, echo, serving
from websockets.exceptions import ConnectionClosed

HINT = "Lines that you type are sent; /help lists commands; Ctrl-D closes"
CTRL_D = "\x04"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def connect() -> Iterator[Any]:
    running: list[Terminal] = []

    def run(*arguments: str, **more: Any) -> Terminal:
        running.append(Terminal("connect", *arguments, **more))
        return running[-1]

    yield run
    for terminal in running:
        terminal.close()


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with serving(echo, compression=None) as uri:
        yield uri


@pytest.mark.parametrize(
    "inside", [True, pytest.param(False, marks=pytest.mark.external)], ids=["inside", "process"]
)
def test_conversation(connect: Any, uri: str, inside: bool) -> None:
    terminal = connect(uri, inside=inside)
    terminal.expect(f"Connected to {uri}", HINT, ">")
    terminal.type("hello\n")
    terminal.expect(HINT, "> hello", "< hello", ">")
    terminal.type("\n")  # an empty line is not sent
    terminal.expect("< hello", ">", ">")
    terminal.type("again\n")
    terminal.expect("> again", "< again", ">")
    terminal.type(CTRL_D)
    terminal.expect("> again", "< again", "Closed: 1000 (OK)")
    assert terminal.wait() == 0


def test_messages_appear_above_what_is_typed(connect: Any) -> None:
    go = threading.Event()

    def talk(connection: Any) -> None:
        assert go.wait(LIMIT)
        connection.send("first\nof two lines")
        connection.send("ab" * 30)
        with pytest.raises(ConnectionClosed):
            while True:
                connection.send(f"got: {connection.recv()}")

    with serving(talk) as uri:
        terminal = connect(uri, size=(40, 12))
        terminal.until(lambda rows: rows[-1] == ">")
        terminal.type("half a ")
        terminal.until(lambda rows: rows[-1] == "> half a")
        go.set()
        terminal.expect("< first", "  of two lines", "< " + "ab" * 19, "ab" * 11, "> half a")
        terminal.type("line\n")
        terminal.expect("> half a line", "< got: half a line", ">")
        for number in range(10):  # the screen scrolls
            terminal.type(f"{number}\n")
            terminal.expect(f"> {number}", f"< got: {number}", ">")


def test_wide_characters_fit(connect: Any, uri: str) -> None:
    terminal = connect(uri, size=(20, 24))
    terminal.until(lambda rows: rows[-1] == ">")
    terminal.type("日本語\te\u0301\n")
    terminal.until(lambda rows: rows[-1] == ">" and any(row.startswith("<") for row in rows))
    text = "日本語日本語日本語日"
    terminal.type(f"{text}\n")
    terminal.until(lambda rows: rows[-1] == ">" and len([row for row in rows if row.startswith("<")]) == 2)
    shown = [row.replace(" ", "") for row in terminal.shown[-3:]]  # pyte puts an empty cell behind each
    assert shown == ["<日本語日本語日本語", "日", ">"]


def test_a_server_cannot_control_the_terminal(connect: Any) -> None:
    def attack(connection: Any) -> None:
        connection.send("\x1b[2J\x1b]0;title\x07\rover\x9b1A")
        connection.send('{"\x9b": 1}')
        connection.close(4000, "\x1b[31m")

    with serving(attack) as uri:
        terminal = connect(uri, "--json", size=(200, 24))
        rows = terminal.until(lambda rows: "Closed" in rows[-1])
    assert rows[-5:] == [
        r"< \x1b[2J\x1b]0;title\x07\x0dover\x9b1A",
        "< {",
        r'    "\x9b": 1',
        "  }",
        r"Closed with an error: received 4000 (private use) \x1b[31m; then sent 4000 (private use) \x1b[31m",
    ]
    assert terminal.wait() == 1


def test_colours(connect: Any) -> None:
    def send(connection: Any) -> None:
        connection.send('{"key": ["string", 1.5, true]}')
        connection.close(1011, "bad")

    with serving(send) as uri:
        terminal = connect(uri, "--json")
        terminal.until(lambda rows: "Closed" in "".join(rows))
        assert terminal.wait() == 1
    assert [terminal.colour_of(text) for text in ("< {", '"key"', '"string"', "1.5", "true", "Closed with")] == [
        "cyan",
        "blue",
        "green",
        "brown",
        "brown",
        "red",
    ]


def test_no_colours(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with serving(lambda connection: connection.send('{"key": 1}')) as uri:
        terminal = connect(uri, "--json")
        terminal.until(lambda rows: "Closed by the server: 1000 (OK)" in rows)
        assert terminal.wait() == 0
    assert [terminal.colour_of(text) for text in ("<", '"key"', "Closed")] == ["default"] * 3


@pytest.mark.parametrize("arguments", [[], ["-m", "hello"]])
def test_a_terminal_without_escape_sequences_is_as_a_pipe(
    connect: Any, monkeypatch: pytest.MonkeyPatch, uri: str, arguments: list[str]
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = connect(uri, "-n1", *arguments)
    if not arguments:
        terminal.type("hello\n")
    terminal.until(lambda rows: rows[-1:] == ["hello"])
    assert terminal.wait() == 0


def test_messages_of_the_command_line(connect: Any, uri: str) -> None:
    terminal = connect(uri, "-m", "hello")
    terminal.expect("< hello")
    assert terminal.wait() == 0
    assert terminal.shown == ["< hello"]


def test_what_was_agreed_on(connect: Any) -> None:
    with serving(echo, subprotocols=["chat"]) as uri:
        terminal = connect(uri, "-s", "chat", size=(0, 0))  # a terminal that does not know its size
        terminal.until(lambda rows: rows[-1:] == [">"])
        assert terminal.shown[0] == f"Connected to {uri} (subprotocol chat, permessage-deflate)"
        terminal.type("hello\n")
        terminal.expect("> hello", "< hello", ">")


def test_the_password_is_not_shown(connect: Any, uri: str) -> None:
    terminal = connect(uri.replace("//", "//me:secret@"))
    terminal.until(lambda rows: rows[-1:] == [">"])
    assert terminal.shown[0] == "Connected to " + uri.replace("//", "//me:***@")


# Commands


def test_ping(connect: Any, uri: str) -> None:
    terminal = connect(uri)
    terminal.until(lambda rows: rows[-1:] == [">"])
    terminal.type("/ping\n")
    rows = terminal.until(lambda rows: rows[-1] == ">" and "ms" in rows[-2])
    name, number, unit = rows[-2].split()
    assert (name, unit, float(number) > 0) == ("ping:", "ms", True)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/binary 00 ff", "< 2 bytes: 00 ff"),
        ("/binary 7f", "< 1 byte: 7f"),
        ("/binary", "< 0 bytes:"),
        ("/binary 0", "/binary wants bytes in hex: /binary 00 ff"),
        ("//ping me", "< /ping me"),
        ("/", "/ is not a command, see /help; // sends it"),
        ("/foo bar", "/foo is not a command, see /help; //foo sends it"),
        ("/help", '//text           send "/text"'),
        ("/close 4000x", "4000x is not a close code; nothing was sent"),
        (
            "/close 1006",
            "close code 1006 must not be sent; use 1000-1003, 1007-1014 or 3000-4999; nothing was sent",
        ),
    ],
)
def test_commands(connect: Any, uri: str, line: str, answer: str) -> None:
    terminal = connect(uri, size=(120, 24))
    terminal.until(lambda rows: rows[-1:] == [">"])
    terminal.type(f"{line}\n")
    rows = terminal.until(lambda rows: rows[-1] == ">" and rows[-2] == answer)
    assert f"> {line}" in rows
    terminal.type("still here\n")
    terminal.expect("> still here", "< still here", ">")


def test_long_binary_messages_are_cut(connect: Any, uri: str) -> None:
    terminal = connect(uri, size=(1000, 24))
    terminal.until(lambda rows: rows[-1:] == [">"])
    terminal.type(f"/binary {'ab' * 257}\n")
    terminal.until(lambda rows: rows[-1] == ">" and rows[-2] == f"< 257 bytes: {'ab ' * 256}...")


def test_what_is_not_utf8_is_not_sent(connect: Any, uri: str) -> None:
    terminal = connect(uri)
    terminal.until(lambda rows: rows[-1:] == [">"])
    os.write(terminal._master, b"\xff\n")
    terminal.until(lambda rows: rows[-2:] == ["that is not UTF-8; nothing was sent", ">"])


@pytest.mark.parametrize(
    ("line", "close", "shown"),
    [
        ("/close", (1000, ""), "Closed: 1000 (OK)"),
        ("/close 4000", (4000, ""), "Closed: 4000 (private use)"),
        ("/close 4000  so long ", (4000, "so long"), "Closed: 4000 (private use) so long"),
    ],
)
def test_close(connect: Any, line: str, close: tuple[int, str], shown: str) -> None:
    closed = []

    def hold(connection: Any) -> None:
        with pytest.raises(ConnectionClosed):
            connection.recv()
        closed.append((connection.close_code, connection.close_reason))

    with serving(hold) as uri:
        terminal = connect(uri)
        terminal.until(lambda rows: rows[-1:] == [">"])
        terminal.type(f"{line}\n")
        terminal.expect(shown)
        assert terminal.wait() == 0
    assert closed == [close]


@pytest.mark.external
def test_interrupt(connect: Any, uri: str) -> None:
    terminal = connect(uri, inside=False)
    terminal.until(lambda rows: rows[-1:] == [">"])
    terminal.process.send_signal(2)
    terminal.expect(HINT, "Closed: 1000 (OK)")
    assert terminal.wait() == 0


def test_the_connection_is_lost(connect: Any) -> None:
    with serving(lambda connection: connection.socket.shutdown(2)) as uri:
        terminal = connect(uri)
        rows = terminal.until(lambda rows: "Connection lost: no close frame received or sent" in rows)
        assert terminal.wait() == 1
        assert ">" not in rows
