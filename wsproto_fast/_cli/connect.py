"""``connect``: send lines, see messages. A conversation on a terminal, or a filter between pipes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
from collections.abc import Coroutine
from typing import Any

from ..asyncio import ClientConnection
from ..asyncio import connect as open_connection
from ..constants import State
from ..exceptions import ConnectionClosed, ConnectionClosedOK, ProtocolError, WebSocketException
from .console import Console
from .failures import ENDED, INTERRUPTED, OK, Failure, explain, shown
from .lines import lines_of
from .options import (
    MAX_SIZE,
    add_client_options,
    add_compression,
    add_loop,
    client_arguments,
    positive,
    positive_seconds,
    seconds,
)
from .running import interruptible

__all__ = ["DESCRIPTION", "EPILOG", "HELP", "add", "run"]

HELP = "send lines as messages and print the messages that come"
DESCRIPTION = """\
Connect to a WebSocket server. On a terminal, each line that you type is sent as a text message, and messages appear
above the line that you type; /help lists the commands for pings, binary messages and close codes. Ctrl-D closes the
connection.

In a pipe, each line of the input is a text message, and each message a line of the output; binary messages are
written in hex. At the end of the input the connection is closed as soon as no message has come for a second (--wait),
or when as many have come as were asked for (--answers).
"""
EPILOG = """\
exit codes: 0 closed normally, 1 connection lost or closed with an error, or answers are missing, 2 wrong arguments,
3 could not connect, 130 Ctrl-C in a pipe, 141 the reader of the output has gone
"""
COMMANDS = """\
/ping            send a Ping and tell how long the answer takes
/binary 00 ff    send a binary message
/close           close the connection; /close 4000 reason, with a code and a reason
/help            this list
//text           send "/text\""""

#: How long an answer may take. One that was asked for may take longer than one that need not come.
_WAIT = 1.0
_WAIT_FOR_ANSWERS = 10.0


def add(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_client_options(parser)
    group = parser.add_argument_group("conversation")
    group.add_argument(
        "-m",
        "--message",
        action="append",
        metavar="TEXT",
        help="send this message in place of the input, and wait for as many answers; may be repeated",
    )
    group.add_argument(
        "-n", "--answers", type=positive, metavar="N", help="close the connection after N messages have come"
    )
    group.add_argument(
        "-w",
        "--wait",
        type=seconds,
        metavar="SECONDS",
        help="at the end of the input, wait until no message has come for so long; "
        f"inf: until the server closes (default: {_WAIT:g}, with --answers or --message {_WAIT_FOR_ANSWERS:g})",
    )
    group.add_argument(
        "-j", "--json", action="store_true", help="print JSON with indentation, on a terminal in colours"
    )
    group.add_argument(
        "--ping",
        type=positive_seconds,
        metavar="SECONDS",
        help="send a Ping so often and tell how long its answer takes",
    )
    add_compression(parser, "deflate")
    add_loop(parser)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Returns an exit code. Raises Failure."""
    arguments = client_arguments(options)
    try:
        connection = await open_connection(options.uri, max_size=MAX_SIZE, **arguments)
    except (OSError, ValueError, ImportError, WebSocketException) as exc:
        raise explain(exc, options.uri) from exc
    async with connection:
        if console.interactive and options.message is None:
            console.remark(f"Connected to {shown(options.uri)}{_agreed(connection)}")
            console.remark("Lines that you type are sent; /help lists commands; Ctrl-D closes")
        return await Conversation(connection, options, console).run()


def _agreed(connection: ClientConnection) -> str:
    assert connection.response is not None
    agreed = [f"subprotocol {connection.subprotocol}"] if connection.subprotocol else []
    # Of an extension its name; the parameters are for whoever looks at the header itself.
    agreed += [value.partition(";")[0] for value in connection.response.headers.get_all("Sec-WebSocket-Extensions")]
    return f" ({', '.join(agreed)})" if agreed else ""


class Conversation:
    """What is said on one connection, until somebody ends it."""

    def __init__(self, connection: ClientConnection, options: argparse.Namespace, console: Console) -> None:
        self._connection = connection
        self._console = console
        self._pretty: bool = options.json
        self._ping_interval: float | None = options.ping
        self._messages: list[str] | None = options.message
        #: Lines are typed: there is a prompt, and commands.
        self._typed = console.interactive and options.message is None
        #: How many messages must come; None if nobody has said.
        self._wanted: int | None = options.answers
        if self._wanted is None and options.message is not None:
            self._wanted = len(options.message)
        self._wait: float = options.wait
        if self._wait is None:
            self._wait = _WAIT if self._wanted is None else _WAIT_FOR_ANSWERS
        self._received = 0
        self._last_heard = 0.0
        #: Nothing more is to be printed: all that was wanted has come, or nobody reads it.
        self._enough = asyncio.Event()
        self._output_error: OSError | None = None
        #: Pings under way.
        self._pings: set[asyncio.Task[None]] = set()
        #: That we closed the connection, or began to.
        self._ours = False
        self._closed: ConnectionClosed | None = None

    async def run(self) -> int:
        """Talk until the end. Returns the exit code. Raises Failure, and OSError when the output is broken."""
        with interruptible(signal.SIGINT) as interrupted:
            receiving = asyncio.create_task(self._receive())
            talking = asyncio.create_task(self._talk())
            ends = [receiving, talking, *(asyncio.create_task(event.wait()) for event in (interrupted, self._enough))]
            others = [*ends, asyncio.create_task(self._ping_regularly())]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                self._console.end_prompt()
                self._ours = self._ours or self._connection.state is State.OPEN
                await self._connection.close()
                await receiving
                if talking.done():
                    talking.result()
            finally:
                self._console.end_prompt()
                others += self._pings
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
            return self._verdict(interrupted.is_set())

    def _verdict(self, interrupted: bool) -> int:
        assert self._closed is not None
        if self._output_error is not None:
            raise self._output_error
        if self._typed or not self._ours:
            self._tell_end(self._closed)
        if interrupted and not self._typed:
            return INTERRUPTED
        if not (self._ours or isinstance(self._closed, ConnectionClosedOK)):
            return ENDED
        if self._wanted is not None and self._received < self._wanted:
            self._console.error(f"{self._received} of {self._wanted} answers came")
            return ENDED
        return OK

    def _tell_end(self, closed: ConnectionClosed) -> None:
        if closed.rcvd is None:
            cause = f" ({closed.__cause__})" if closed.__cause__ is not None else ""
            self._console.remark(f"Connection lost: {closed}{cause}", "error")
        elif self._ours:
            self._console.remark(f"Closed: {closed.rcvd}")
        elif not isinstance(closed, ConnectionClosedOK):
            self._console.remark(f"Closed with an error: {closed}", "error")
        elif self._typed or closed.rcvd.reason:
            self._console.remark(f"Closed by the server: {closed.rcvd}")

    # Receiving

    async def _receive(self) -> None:
        """Print messages until there were enough; return when the connection has ended."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                message = await self._connection.recv()
                if self._enough.is_set():
                    continue
                try:
                    self._console.message(message, pretty=self._pretty)
                except OSError as exc:
                    self._output_error = exc
                    self._enough.set()
                    continue
                self._last_heard = loop.time()
                self._received += 1
                if self._received == self._wanted:
                    self._enough.set()
        except ConnectionClosed as exc:
            self._closed = exc

    async def _quiet(self) -> None:
        """Return when no message has come for as long as we wait."""
        if math.isinf(self._wait):
            await self._connection.wait_closed()
        loop = asyncio.get_running_loop()
        self._last_heard = loop.time()
        while True:
            rest = self._last_heard + self._wait - loop.time()
            if rest <= 0:
                return
            await asyncio.sleep(rest)

    # Sending

    async def _talk(self) -> None:
        """Send what there is to send; return when the connection is to be closed."""
        with contextlib.suppress(ConnectionClosed):  # _receive has it too
            if self._messages is not None:
                for message in self._messages:
                    await self._connection.send(message)
            elif self._typed:
                await self._say_typed_lines()
                return
            else:
                await self._say_lines()
            await self._quiet()

    async def _say_lines(self) -> None:
        number = 0
        async for line in lines_of(self._console.stdin):
            number += 1
            await self._connection.send(_text(line, f"line {number} of the input"))

    async def _say_typed_lines(self) -> None:
        self._console.prompt()
        async for line in lines_of(self._console.stdin):
            self._console.prompt()
            await self._say_typed(line)

    async def _say_typed(self, line: bytes) -> None:
        try:
            text = _text(line, "that")
        except Failure as exc:
            self._console.remark(f"{exc}; nothing was sent", "error")
            return
        if text.startswith("//"):
            await self._connection.send(text[1:])
        elif text.startswith("/"):
            await self._obey(*text[1:].split(maxsplit=1))
        elif text:
            await self._connection.send(text)

    async def _obey(self, command: str = "", argument: str = "") -> None:
        """One of COMMANDS."""
        if command == "help":
            self._console.remark(COMMANDS)
        elif command == "ping":
            self._begin(self._ping())
        elif command == "binary":
            try:
                data = bytes.fromhex(argument)
            except ValueError:
                self._console.remark("/binary wants bytes in hex: /binary 00 ff", "error")
            else:
                await self._connection.send(data)
        elif command == "close":
            await self._close(argument)
        else:
            self._console.remark(f"/{command} is not a command, see /help; //{command} sends it", "error")

    async def _close(self, argument: str) -> None:
        code, _, reason = argument.partition(" ")
        try:
            self._ours = True
            await self._connection.close(int(code or 1000), reason.strip())
        except (ValueError, ProtocolError) as exc:
            self._ours = False
            text = str(exc) if isinstance(exc, ProtocolError) else f"{code} is not a close code"
            self._console.remark(f"{text}; nothing was sent", "error")

    # Pings

    async def _ping_regularly(self) -> None:
        while self._ping_interval is not None:
            await asyncio.sleep(self._ping_interval)
            self._begin(self._ping())

    def _begin(self, ping: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ping)
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            latency = await (await self._connection.ping())
            self._console.remark(f"ping: {latency * 1000:.3g} ms")


def _text(line: bytes, what: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise Failure(f"{what} is not UTF-8") from None
