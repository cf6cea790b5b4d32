"""The reactor: channels against asyncio's transports as oracle, listeners, clients, and what only the reactor does.

Linux only. A scenario runs on both kinds of transport and tells the same story.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aio import LOOP, REACTOR, run, runner, until

reactor = pytest.importorskip("wsproto_fast.asyncio._reactor", reason="Linux only, and it needs the extensions")
Channel, Listener, Placeholder = reactor.Channel, reactor.Listener, reactor.Placeholder
adopt, reactor_of = reactor.adopt, reactor.reactor_of

if not REACTOR:
    pytest.skip("the reactor is switched off", allow_module_level=True)

RESET = "ConnectionResetError"


# What scenarios are made of


class Recorder(asyncio.Protocol):
    """Writes down what its transport calls. ``on`` has functions to be called then, by name."""

    def __init__(self, **on: Callable[..., Any]) -> None:
        self.calls: list[Any] = []
        self.received = b""
        self.on = on
        self.transport: Any = None
        self.error: BaseException | None = None

    def call(self, name: str, *arguments: Any) -> Any:
        return self.on[name](self, *arguments) if name in self.on else None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append("made")
        self.call("connection_made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        if self.calls[-1] != "data":  # how much comes at once is the transport's business
            self.calls.append("data")
        self.received += data
        self.call("data_received", data)

    def eof_received(self) -> Any:
        self.calls.append("eof")
        return self.call("eof_received")

    def pause_writing(self) -> None:
        self.calls.append("pause")
        self.call("pause_writing")

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.call("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost" if exc is None else f"lost {type(exc).__name__}")
        self.error = exc
        self.call("connection_lost")

    @property
    def lost(self) -> bool:
        return str(self.calls[-1]).startswith("lost")


class BufferedRecorder(asyncio.BufferedProtocol):
    """The same with ``get_buffer``."""

    def __init__(self, **on: Callable[..., Any]) -> None:
        self.buffer = bytearray(1000)
        self.recorder = Recorder(**on)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.recorder, name)

    def connection_made(self, transport: Any) -> None:
        self.recorder.connection_made(transport)

    def get_buffer(self, sizehint: int) -> Any:
        assert sizehint == -1
        replacement = self.recorder.call("get_buffer")
        return self.buffer if replacement is None else replacement

    def buffer_updated(self, nbytes: int) -> None:
        self.recorder.data_received(bytes(self.buffer[:nbytes]))

    def eof_received(self) -> Any:
        return self.recorder.eof_received()

    def pause_writing(self) -> None:
        self.recorder.pause_writing()

    def resume_writing(self) -> None:
        self.recorder.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.recorder.connection_lost(exc)


def tcp_pair(*, small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection; with ``small`` little fits in between. The second one blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.socket()
        if small:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listening.getsockname())
        ours, _ = listening.accept()
    if small:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    peer.settimeout(10)
    return ours, peer


def reset(peer: socket.socket) -> None:
    """Close with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, array.array("i", [1, 0]).tobytes())
    peer.close()


async def read_all(peer: socket.socket) -> bytes:
    """What the peer reads until the end."""
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    chunks = []
    while chunk := await loop.sock_recv(peer, 65536):
        chunks.append(chunk)
    return b"".join(chunks)


async def read_some(peer: socket.socket, size: int) -> bytes:
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        chunk = await loop.sock_recv(peer, size - len(data))
        assert chunk
        data += chunk
    return data


def open_channel(sock: socket.socket | int, protocol: Any) -> Any:
    channel = Channel(reactor_of(asyncio.get_running_loop()), sock, protocol)
    channel.start()
    return channel


@contextlib.asynccontextmanager
async def channel_pair(
    protocol: Any = None, *, small: bool = False
) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """A channel, its protocol, and the socket of its peer."""
    ours, peer = tcp_pair(small=small)
    protocol = protocol or Recorder()
    channel = open_channel(ours, protocol)
    try:
        yield channel, protocol, peer
    finally:
        channel.abort()
        peer.close()
        await asyncio.sleep(0)


Scenario = Callable[[Any, Any, socket.socket], Coroutine[Any, Any, Any]]


def both(scenario: Scenario, make: Callable[[], Any] = Recorder, *, small: bool = False) -> Any:
    """Run a scenario on a channel and on asyncio's own transport, which must agree. Returns the story they tell."""

    async def on_channel() -> Any:
        return await play(None)

    async def on_asyncio() -> Any:
        return await play(asyncio.get_running_loop())

    async def play(loop: asyncio.AbstractEventLoop | None) -> Any:
        ours, peer = tcp_pair(small=small)
        complaints: list[str] = []
        current = asyncio.get_running_loop()
        current.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        protocol = make()
        if loop is None:
            transport = open_channel(ours, protocol)
        else:
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        try:
            told = await scenario(transport, protocol, peer)
        finally:
            if not protocol.lost:
                transport.abort()
            peer.close()
        await until(lambda: protocol.lost)
        return told, protocol.calls, complaints

    story = run(on_channel())
    assert story == asyncio.run(on_asyncio())
    return story


kinds = pytest.mark.parametrize("make", [Recorder, BufferedRecorder])


# Reading


@kinds
def test_data_and_their_end(make: Any) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        peer.sendall(b"one")
        await until(lambda: protocol.received == b"one")
        peer.sendall(b"two")
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: protocol.lost)
        assert peer.recv(1) == b""
        return protocol.received

    assert both(scenario, make) == (b"onetwo", ["made", "data", "eof", "lost"], [])


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 131071, 131072, 131073, 300_000])
def test_reads_of_each_size(size: int) -> None:
    sizes: list[int] = []

    async def main() -> None:
        protocol = Recorder(data_received=lambda _, data: (sizes.append(len(data)), kept.append(data)))
        async with channel_pair(protocol) as (channel, _, peer):
            channel.pause_reading()
            sent = random.randbytes(size)
            loop = asyncio.get_running_loop()
            peer.setblocking(False)
            sending = asyncio.ensure_future(loop.sock_sendall(peer, sent))
            await asyncio.sleep(0)
            channel.resume_reading()
            await sending
            await until(lambda: len(protocol.received) == size)
            assert protocol.received == sent
            assert b"".join(kept) == sent  # memory that was handed over is not used again

    kept: list[bytes] = []
    run(main())
    assert max(sizes) <= 131072


def test_a_buffer_larger_than_a_read() -> None:
    async def main() -> None:
        protocol = BufferedRecorder()
        protocol.buffer = bytearray(300_000)
        async with channel_pair(protocol) as (channel, _, peer):
            channel.pause_reading()
            peer.settimeout(0)
            sent = peer.send(bytes(200_000))
            assert sent > 131072
            await asyncio.sleep(0.001)
            channel.resume_reading()
            await until(lambda: len(protocol.received) == sent)

    run(main())


@kinds
def test_pausing_and_resuming(make: Any) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        states = [transport.is_reading()]
        transport.pause_reading()
        transport.pause_reading()
        states.append(transport.is_reading())
        peer.sendall(b"late")
        await until(lambda: "read=idle" in repr(transport))  # the kernel does not tell of it all the time
        await asyncio.sleep(0.01)
        states.append(protocol.received)
        transport.resume_reading()
        transport.resume_reading()
        states.append(transport.is_reading())
        await until(lambda: bool(protocol.received))
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        return [*states, protocol.received, transport.is_reading()]

    story = both(scenario, make)
    assert story == ([True, False, b"", True, b"late", False], ["made", "data", "lost"], [])


def test_pausing_in_connection_made() -> None:
    async def main() -> None:
        protocol = Recorder(connection_made=lambda protocol: protocol.transport.pause_reading())
        async with channel_pair(protocol) as (channel, _, peer):
            peer.sendall(b"x")
            await asyncio.sleep(0.01)
            assert protocol.calls == ["made"]
            channel.resume_reading()
            await until(lambda: protocol.received == b"x")

    run(main())


@kinds
@pytest.mark.parametrize("name", ["data_received", "eof_received"])
@pytest.mark.parametrize("error", [ValueError, OSError, asyncio.CancelledError])
def test_callbacks_that_raise(make: Any, name: str, error: type[BaseException]) -> None:
    def fail(*_: Any) -> None:
        raise error(1, "mine")

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        peer.sendall(b"one")
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: protocol.lost)
        return protocol.error.args

    told, calls, complaints = both(scenario, lambda: make(**{name: fail}))
    assert told == (1, "mine")
    assert calls[-1] == f"lost {'PermissionError' if error is OSError else error.__name__}"
    called = name if make is Recorder or name == "eof_received" else "buffer_updated"
    expected = [] if error is OSError else [f"Fatal error: protocol.{called}() call failed."]
    assert complaints == expected


def test_a_callback_that_aborts_and_raises() -> None:
    def fail(protocol: Any, *_: Any) -> None:
        protocol.transport.abort()
        raise ValueError

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> None:
        peer.sendall(b"one")
        await until(lambda: protocol.lost)

    expected = (None, ["made", "data", "lost"], ["Fatal error: protocol.data_received() call failed."])
    assert both(scenario, lambda: Recorder(data_received=fail)) == expected


def test_errors_of_buffers() -> None:
    def fail(_: Any) -> None:
        raise ValueError

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> None:
        peer.sendall(b"one")
        await until(lambda: protocol.lost)

    message = "Fatal error: protocol.get_buffer() call failed."
    assert both(scenario, lambda: BufferedRecorder(get_buffer=fail))[2] == [message]
    assert both(scenario, lambda: BufferedRecorder(get_buffer=lambda _: bytearray()))[2] == [message]


def test_a_buffer_that_cannot_be_written() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[str] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        async with channel_pair(BufferedRecorder(get_buffer=lambda _: b"constant")) as (_, protocol, peer):
            peer.sendall(b"one")
            await until(lambda: protocol.lost)
        assert complaints == ["Fatal error: protocol.get_buffer() call failed."]
        assert isinstance(protocol.error, BufferError)

    run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["data_received", "eof_received", "get_buffer"])
def test_what_ends_the_program_ends_the_loop(error: type[BaseException], name: str) -> None:
    """And nothing else: the loop may run again, and the channel with it."""

    def interrupt(protocol: Any, *_: Any) -> None:
        del protocol.on[name]
        raise error

    loop = new_loop()
    try:
        ours, peer = tcp_pair()
        made: list[Any] = []

        async def begin() -> None:
            protocol = (BufferedRecorder if name == "get_buffer" else Recorder)(**{name: interrupt})
            made.extend((open_channel(ours, protocol), protocol))
            peer.sendall(b"one")
            if name == "eof_received":
                peer.shutdown(socket.SHUT_WR)
            await asyncio.sleep(10)

        task = loop.create_task(begin())
        with pytest.raises(error):
            loop.run_forever()

        async def go_on() -> None:
            channel, protocol = made
            if name != "eof_received":
                peer.sendall(b"two")
                await until(lambda: protocol.received.endswith(b"two"))
                channel.close()
            await until(lambda: protocol.lost)
            task.cancel()

        loop.run_until_complete(go_on())
        peer.close()
    finally:
        loop.close()


@pytest.mark.parametrize("where", ["resume_writing", "draining", "delivery"])
def test_what_ends_the_program_loses_nothing(where: str) -> None:
    def interrupt(protocol: Any, *_: Any) -> None:
        protocol.on.clear()
        raise KeyboardInterrupt

    loop = new_loop()
    ours, peer = tcp_pair(small=True)
    protocol = BufferedRecorder(**{"resume_writing" if where == "resume_writing" else "data_received": interrupt})

    async def begin() -> None:
        channel = Channel(reactor_of(loop), ours, protocol)
        channel.start(bytes(3000) if where == "delivery" else b"")
        if where == "resume_writing":
            channel.write(bytes(500_000))
            channel.close()
            await read_all(peer)
        elif where == "draining":
            peer.sendall(bytes(3000))
            fail_output(channel)
        await asyncio.sleep(10)

    async def go_on() -> None:
        if where == "delivery":
            await until(lambda: len(protocol.received) == 3000)
            peer.close()
        await until(lambda: protocol.lost)
        task.cancel()

    task = loop.create_task(begin())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(go_on())
        assert len(protocol.received) == (0 if where == "resume_writing" else 3000)
    finally:
        peer.close()
        loop.close()


def new_loop() -> asyncio.AbstractEventLoop:
    if runner() is asyncio.run:
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


# Writing


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "lines", "many lines"])
def test_partial_writes_and_marks(kind: str) -> None:
    data = random.Random(1).randbytes(1_000_000)

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.set_write_buffer_limits(high=100_000, low=10_000)
        told = [transport.get_write_buffer_limits(), transport.get_write_buffer_size()]
        changing = bytearray(data)
        if kind == "bytes":
            transport.write(data)
        elif kind == "bytearray":
            transport.write(changing)
        elif kind == "memoryview":
            transport.write(memoryview(changing))
        elif kind == "lines":
            half = len(data) // 2
            transport.writelines([data[:half], b"", bytearray(data[half : half + 9]), memoryview(data)[half + 9 :]])
        else:
            transport.writelines([data[at : at + 100] for at in range(0, len(data), 100)])
        if type(transport) is Channel:  # asyncio's of CPython 3.12 and later would send this
            changing[:] = bytes(len(data))
        told.append(transport.get_write_buffer_size() > 100_000)
        transport.write(b"and more")
        told.append(await read_some(peer, len(data) + 8) == data + b"and more")
        await until(lambda: "resume" in protocol.calls)
        told.append(transport.get_write_buffer_size())
        assert "write=<idle" in repr(transport)
        transport.write(b"again")
        told.append(await read_some(peer, 5))
        return told

    if sys.version_info < (3, 12) and "lines" in kind:
        return  # its writelines has no partial writes of its own
    story = both(scenario, small=True)
    told = [(10_000, 100_000), 0, True, True, 0, b"again"]
    assert story == (told, ["made", "pause", "resume", "lost"], [])


@pytest.mark.parametrize("waiting", [False, True])
def test_lines_of_each_kind(waiting: bool) -> None:
    """With output that waits already, and without."""

    async def main() -> None:
        async with channel_pair(small=True) as (channel, protocol, peer):
            expected = bytes(100_000) if waiting else b""
            channel.write(expected)
            assert (channel.get_write_buffer_size() > 0) is waiting
            changing = bytearray(b"ab") * 1000
            lines = [b"", b"1", changing, memoryview(b"0123456789")[::2], array.array("i", [1, 2]), memoryview(b"")]
            large = bytearray(b"x") * 500_000
            expected += b"".join(bytes(line) for line in lines) + large
            channel.writelines(iter([*lines, large]))
            channel.writelines([])
            channel.writelines([b""])
            for other in (changing, large):
                other[:] = bytes(len(other))
            channel.close()
            assert await read_all(peer) == expected
            await until(lambda: protocol.lost)
            assert protocol.calls == ["made", "pause", "resume", "lost"]

    run(main())


def test_thousands_of_lines_leave_in_order() -> None:
    async def main() -> None:
        async with channel_pair() as (channel, _, peer):
            lines = [b"%d\n" % number for number in range(5000)]
            channel.writelines(lines)
            channel.close()
            assert await read_all(peer) == b"".join(lines)

    run(main())


def test_random_writes_arrive() -> None:
    async def main() -> None:
        rng = random.Random(7)
        async with channel_pair(small=True) as (channel, _, peer):
            reading = asyncio.ensure_future(read_all(peer))
            expected = bytearray()
            for _ in range(300):
                lines = [rng.randbytes(rng.choice([0, 1, 10, 1000, 5000, 30_000])) for _ in range(rng.randrange(6))]
                expected += b"".join(lines)
                if rng.random() < 0.5:
                    channel.writelines(lines)
                else:
                    for line in lines:
                        channel.write(rng.choice([bytes, bytearray, memoryview])(line))
                if rng.random() < 0.3:
                    await asyncio.sleep(0)
            channel.write_eof()
            assert await reading == expected

    run(main())


def test_wrong_arguments() -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        told = []
        for act in (
            lambda: transport.write("text"),
            lambda: transport.write(None),
            lambda: transport.set_write_buffer_limits(high=1, low=2),
            lambda: transport.set_write_buffer_limits(high=-1),
        ):
            with pytest.raises((TypeError, ValueError)) as caught:
                act()
            told.append((type(caught.value), str(caught.value)))
        transport.write(b"")
        return told

    told, calls, complaints = both(scenario)
    assert [error for error, _ in told] == [TypeError, TypeError, ValueError, ValueError]
    assert (calls, complaints) == (["made", "lost"], [])


@pytest.mark.parametrize("limits", [{}, {"high": 100}, {"low": 100}, {"high": 7, "low": 7}, {"high": 0}])
def test_marks(limits: dict[str, int]) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.set_write_buffer_limits(**limits)
        return transport.get_write_buffer_limits()

    assert both(scenario)[0][1] == limits.get("high", 65536 if not limits else 400)


def test_limits_set_while_output_waits() -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.set_write_buffer_limits(high=10_000_000)
        transport.write(bytes(1_000_000))
        assert "pause" not in protocol.calls
        transport.set_write_buffer_limits(high=1000)
        transport.set_write_buffer_limits(high=100)

    assert both(scenario, small=True)[1] == ["made", "pause", "lost"]


def test_callbacks_of_marks_that_raise() -> None:
    def fail(*_: Any) -> None:
        raise ValueError

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.write(bytes(1_000_000))
        await read_some(peer, 1_000_000)
        await until(lambda: "resume" in protocol.calls)
        transport.write(b"x")
        return await read_some(peer, 1)

    told, calls, complaints = both(scenario, lambda: Recorder(pause_writing=fail, resume_writing=fail), small=True)
    assert told == b"x"
    assert calls == ["made", "pause", "resume", "lost"]
    assert complaints == ["protocol.pause_writing() failed", "protocol.resume_writing() failed"]


def test_writing_in_resume_writing() -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.write(bytes(1_000_000))
        return (await read_some(peer, 1_000_004))[-4:]

    def write(protocol: Any) -> None:
        protocol.transport.write(b"more")

    assert both(scenario, lambda: Recorder(resume_writing=write), small=True)[0] == b"more"


# The end


@pytest.mark.parametrize("waiting", [0, 1_000_000])
def test_closing(waiting: int) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.write(bytes(waiting))
        told = [transport.is_closing()]
        transport.close()
        transport.close()
        told.append(transport.is_closing())
        told.append(protocol.calls[-1])  # not from within
        peer.setblocking(False)
        if not waiting:
            peer.send(b"unread")
        with contextlib.suppress(ConnectionResetError):  # it has closed without having read that
            told.append(len(await read_all(peer)))
        await until(lambda: protocol.lost)
        return [*told, transport.get_protocol()]

    told, calls, complaints = both(scenario, small=True)
    assert told == [False, True, "pause", waiting, None] if waiting else [False, True, "made", None]
    assert calls == ["made", "pause", "resume", "lost"] if waiting else ["made", "lost"]
    assert complaints == []


def test_aborting() -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.write(bytes(1_000_000))
        transport.abort()
        transport.abort()
        transport.close()
        told = [transport.is_closing(), protocol.calls[-1], transport.get_write_buffer_size()]
        await until(lambda: protocol.lost)
        return [*told, len(await read_all(peer)) < 1_000_000]

    assert both(scenario, small=True) == ([True, "pause", 0, True], ["made", "pause", "lost"], [])


@kinds
@pytest.mark.parametrize("act", ["close", "abort", "close and write", "pause"])
@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received"])
def test_ends_in_callbacks(make: Any, act: str, name: str) -> None:
    if (act, name) == ("pause", "connection_made") and sys.version_info < (3, 11):
        pytest.skip("asyncio's of CPython 3.10 reads nevertheless")

    def end(protocol: Any, *_: Any) -> bool:
        if act == "pause":
            protocol.transport.pause_reading()
        elif act == "abort":
            protocol.transport.abort()
        else:
            protocol.transport.close()
        if act == "close and write":
            protocol.transport.write(b"ignored")
        return True

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        with contextlib.suppress(OSError):
            peer.sendall(b"data")
            peer.shutdown(socket.SHUT_WR)
        if act == "pause":
            await until(lambda: "read=idle" in repr(transport))
            transport.close()
        await until(lambda: protocol.lost)
        with contextlib.suppress(ConnectionResetError):
            return await read_all(peer)
        return b""

    told, _, complaints = both(scenario, lambda: make(**{name: end}))
    assert (told, complaints) == (b"", [])


def test_half_open() -> None:
    """The peer sends no more, and we do."""

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: protocol.calls[-1] == "eof")
        await until(lambda: "read=idle" in repr(transport))
        transport.write(bytes(1_000_000))
        told = [len(await read_some(peer, 1_000_000)), transport.is_closing()]
        transport.write_eof()
        return [*told, await read_all(peer)]

    told, calls, _ = both(scenario, lambda: Recorder(eof_received=lambda _: True), small=True)
    assert told == [1_000_000, False, b""]
    assert calls == ["made", "eof", "pause", "resume", "lost"]


def test_both_ends_are_shut() -> None:
    """Then the kernel tells of a hang-up for ever, whoever listens."""

    async def main() -> None:
        async with channel_pair(Recorder(eof_received=lambda _: True)) as (channel, protocol, peer):
            channel.write_eof()
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.calls[-1] == "eof")
            await until(lambda: "read=idle" in repr(channel))
            channel.pause_reading()
            channel.resume_reading()
            assert "read=idle" in repr(channel)
            await asyncio.sleep(0.01)
            assert protocol.calls == ["made", "eof"]

    run(main())


@pytest.mark.parametrize("waiting", [0, 1_000_000])
def test_write_eof(waiting: int) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        told = [transport.can_write_eof()]
        transport.write(bytes(waiting))
        transport.write_eof()
        transport.write_eof()
        for write in (transport.write, transport.writelines):
            with pytest.raises(RuntimeError, match=r"write_eof\(\)"):
                write([b"x"] if write == transport.writelines else b"x")
        told.append(len(await read_all(peer)))
        peer.setblocking(True)
        peer.sendall(b"answer")
        await until(lambda: protocol.received == b"answer")
        transport.close()
        transport.write_eof()
        return told

    assert both(scenario, small=True)[0] == [True, waiting]


def test_write_eof_after_a_reset() -> None:
    async def main() -> None:
        async with channel_pair() as (channel, protocol, peer):
            reset(peer)
            channel.write_eof()  # asyncio raises OSError
            await until(lambda: protocol.lost)

    run(main())


@kinds
def test_reset_while_reading(make: Any) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        reset(peer)
        await until(lambda: protocol.lost)
        return protocol.error.errno

    assert both(scenario, make) == (errno.ECONNRESET, ["made", f"lost {RESET}"], [])


def test_reset_while_writing() -> None:
    """Reading is over, so it is the write that fails."""

    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: protocol.calls[-1] == "eof")
        transport.write(bytes(1_000_000))
        reset(peer)
        await until(lambda: protocol.lost)
        return type(protocol.error)

    told, calls, complaints = both(scenario, lambda: Recorder(eof_received=lambda _: True), small=True)
    assert told in (ConnectionResetError, BrokenPipeError)
    assert calls[:3] == ["made", "eof", "pause"]
    assert complaints == []


def test_reset_while_closing() -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.write(bytes(1_000_000))
        transport.close()
        reset(peer)
        await until(lambda: protocol.lost)

    assert both(scenario, small=True)[1] == ["made", "pause", f"lost {RESET}"]


def test_writes_to_a_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(transport: Any, protocol: Any, peer: socket.socket) -> Any:
        transport.abort()
        caplog.clear()
        told = []
        for _ in range(7):
            transport.write(b"x")
            told.append(len([record for record in caplog.records if record.levelno >= logging.WARNING]))
        return told

    assert both(scenario)[0] == [0, 0, 0, 0, 1, 2, 3]


# Output that fails does not take the input with it


@kinds
@pytest.mark.parametrize("lines", [False, True])
def test_a_failed_write_loses_no_input(make: Any, lines: bool) -> None:
    """asyncio would drop what the kernel holds."""

    async def main() -> None:
        async with channel_pair(make()) as (channel, protocol, peer):
            sent = random.randbytes(60_000)  # as much as the kernel takes at once
            peer.sendall(sent)
            reset(peer)
            for _ in range(10):
                if lines:
                    channel.writelines([b"x", b"y"])
                else:
                    channel.write(b"x")
            assert channel.is_closing()
            assert channel.get_write_buffer_size() == 0
            assert protocol.calls == ["made"]
            await until(lambda: protocol.lost)
            assert protocol.received == sent
            assert protocol.calls == ["made", "data", f"lost {type(protocol.error).__name__}"]
            assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))

    run(main())


def test_failed_output_that_waited() -> None:
    """It counts as sent, so that nobody waits for it."""

    async def main() -> None:
        async with channel_pair(small=True) as (channel, protocol, peer):
            channel.write(bytes(1_000_000))
            channel.pause_reading()
            peer.sendall(b"received")
            reset(peer)
            await until(lambda: protocol.calls[-1] == "resume")
            await asyncio.sleep(0.01)
            assert protocol.calls == ["made", "pause", "resume"]
            channel.resume_reading()
            await until(lambda: protocol.lost)
            assert protocol.received == b"received"
            assert protocol.calls[-1] in (f"lost {RESET}", "lost BrokenPipeError")

    run(main())


def fail_output(channel: Any) -> None:
    """As if the kernel had refused a write."""
    channel.get_extra_info("socket").shutdown(socket.SHUT_WR)
    channel.write(b"x")
    assert channel.is_closing()


def test_failed_output_of_a_peer_that_lives() -> None:
    """What the kernel holds is delivered; for more nobody waits."""

    async def main() -> None:
        async with channel_pair() as (channel, protocol, peer):
            peer.sendall(b"received")
            fail_output(channel)
            await until(lambda: protocol.lost)
            assert protocol.calls == ["made", "data", "lost BrokenPipeError"]

    run(main())


@pytest.mark.parametrize("act", ["close", "abort"])
def test_ends_after_failed_output(act: str) -> None:
    async def main() -> None:
        async with channel_pair() as (channel, protocol, peer):
            peer.sendall(b"received")
            fail_output(channel)
            getattr(channel, act)()
            await until(lambda: protocol.lost)
            assert protocol.calls == ["made", "lost BrokenPipeError"]

    run(main())


@pytest.mark.parametrize("keep", [False, True])
def test_output_that_fails_in_eof_received(keep: bool) -> None:
    async def main() -> None:
        def fail(protocol: Any) -> bool:
            fail_output(protocol.transport)
            return keep

        async with channel_pair(Recorder(eof_received=fail)) as (_, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.lost)
            assert protocol.calls == ["made", "eof", "lost BrokenPipeError"]

    run(main())


def test_callbacks_that_raise_after_failed_output() -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOENT, "mine")

    async def main() -> None:
        async with channel_pair(Recorder(data_received=fail)) as (channel, protocol, peer):
            peer.sendall(b"received")
            fail_output(channel)
            await until(lambda: protocol.lost)
            assert protocol.calls == ["made", "data", "lost BrokenPipeError"]

    run(main())


@pytest.mark.parametrize("paused", [True, False])
def test_reading_paused_when_output_fails(paused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads on loses nothing; whoever does not must learn of it some time."""
    monkeypatch.setattr(reactor, "PATIENCE", 0.05)

    async def main() -> None:
        async with channel_pair() as (channel, protocol, peer):
            loop = asyncio.get_running_loop()
            peer.sendall(bytes(300_000))
            protocol.on["data_received"] = lambda _, data: channel.pause_reading()
            if paused:
                channel.pause_reading()
            begin = loop.time()
            fail_output(channel)
            if paused:
                channel.resume_reading()
            await until(lambda: len(protocol.received) > 0)
            once = len(protocol.received)  # at most READ_SIZE
            assert once < 300_000
            assert not protocol.lost
            await until(lambda: protocol.lost)
            assert len(protocol.received) == once
            assert protocol.calls[-1] == "lost BrokenPipeError"
            # reading went on in the first period, so there was a second one
            assert loop.time() - begin > (0.09 if paused else 0.045)

    run(main())


# Addresses and sockets


def named_pair(family: int, here: Any, there: Any) -> tuple[socket.socket, socket.socket]:
    """A connected pair, of which the first was accepted."""
    with socket.socket(family) as listening, contextlib.ExitStack() as stack:
        listening.bind(here)
        listening.listen()
        peer = stack.enter_context(socket.socket(family))
        if there is not None:
            peer.bind(there)
        peer.connect(listening.getsockname())
        ours, _ = listening.accept()
        stack.pop_all()
        return ours, peer


ADDRESSES = {
    "IPv4": (socket.AF_INET, ("127.0.0.1", 0), None),
    "IPv6": (socket.AF_INET6, ("::1", 0), None),
    "IPv4 in IPv6": (socket.AF_INET6, ("::ffff:127.0.0.1", 0), None),
    "path": (socket.AF_UNIX, "here", "there"),
    "longest path": (socket.AF_UNIX, "x" * 107, "y" * 107),
    "path that is not UTF-8": (socket.AF_UNIX, b"\xff", b"\xfe"),
    "unnamed": (socket.AF_UNIX, "here", None),
    "abstract": (socket.AF_UNIX, b"\0wsproto_fast %d\0 here" % os.getpid(), b"\0wsproto_fast %d there" % os.getpid()),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours, peer = named_pair(*ADDRESSES[name])

    async def main() -> None:
        expected = (ours.getsockname(), ours.getpeername())
        protocol = Recorder()
        channel = open_channel(ours, protocol)
        sock = channel.get_extra_info("socket")
        assert (sock.getsockname(), sock.getpeername()) == expected
        assert sock.family == peer.family
        assert (channel.get_extra_info("sockname"), channel.get_extra_info("peername")) == expected
        channel.close()
        await until(lambda: protocol.lost)
        await asyncio.sleep(0)
        assert (channel.get_extra_info("sockname"), channel.get_extra_info("peername")) == expected

    with peer:
        run(main())


@pytest.mark.parametrize("name", ["IPv4", "IPv6", "unnamed"])
def test_addresses_of_accepted_connections(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    family, here, _ = ADDRESSES[name]

    async def main() -> None:
        with socket.socket(family) as listening, socket.socket(family) as peer:
            listening.bind(here)
            listening.listen()
            protocols: list[Any] = []
            async with listen(listening, lambda: protocols.append(Recorder()) or protocols[-1]):
                peer.connect(listening.getsockname())
                await until(lambda: bool(protocols))
                channel = protocols[0].transport
                reset(peer)
                await until(lambda: protocols[0].lost)
                await asyncio.sleep(0)
            assert channel.get_extra_info("sockname") == listening.getsockname()
            known = channel.get_extra_info("peername")
            assert known[0] == here[0] if name != "unnamed" else known == ""

    run(main())


def test_scope_of_an_address() -> None:
    """Where there is a link-local address at all."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
        words = next(line.split() for line in lines if line.startswith("fe80"))
    except (OSError, StopIteration):
        pytest.skip("no link-local address")
    host = ":".join(words[0][at : at + 4] for at in range(0, 32, 4))
    ours, peer = named_pair(socket.AF_INET6, (host, 0, 0, int(words[1], 16)), None)

    async def main() -> None:
        expected = ours.getsockname()
        channel = open_channel(ours, Recorder())
        assert channel.get_extra_info("sockname") == expected
        channel.abort()
        await asyncio.sleep(0)

    with peer:
        run(main())


def test_extra_info_of_no_such_name() -> None:
    async def main() -> None:
        async with channel_pair() as (channel, _, _):
            assert channel.get_extra_info("sslcontext") is None
            assert channel.get_extra_info("sslcontext", 1) == 1

    run(main())


def test_the_socket() -> None:
    """Options can be set; it neither closes the descriptor nor survives it."""

    async def main() -> None:
        async with channel_pair() as (channel, protocol, peer):
            sock = channel.get_extra_info("socket")
            assert type(sock) is asyncio.trsock.TransportSocket
            assert channel.get_extra_info("socket") is sock
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.gettimeout() == 0
            assert f"fd={sock.fileno()} " in repr(channel)
            del sock
            gc.collect()
            channel.write(b"x")
            assert peer.recv(1) == b"x"
            sock = channel.get_extra_info("socket")
            channel.close()
            await until(lambda: protocol.lost)
            await asyncio.sleep(0)
            assert sock.fileno() == -1
            assert channel.get_extra_info("socket") is sock
        async with channel_pair() as (channel, protocol, _):
            channel.close()
            await until(lambda: protocol.lost)
            await asyncio.sleep(0)
            assert channel.get_extra_info("socket").fileno() == -1

    run(main())


def test_repr() -> None:
    async def main() -> None:
        async with channel_pair(small=True) as (channel, protocol, _):
            fd = channel.get_extra_info("socket").fileno()
            assert repr(channel) == f"<Channel fd={fd} read=polling write=<idle, bufsize=0>>"
            channel.write(bytes(1_000_000))
            size = channel.get_write_buffer_size()
            assert repr(channel) == f"<Channel fd={fd} read=polling write=<polling, bufsize={size}>>"
            channel.abort()
            assert repr(channel) == f"<Channel closing fd={fd} read=idle write=<idle, bufsize=0>>"
            await until(lambda: protocol.lost)
            await asyncio.sleep(0)
            assert repr(channel) == "<Channel closed fd=-1 read=idle write=<idle, bufsize=0>>"

    run(main())


def test_size() -> None:
    """Of an idle channel, its header for the garbage collector included. With its peer's address: 200 bytes."""

    async def main() -> None:
        async with channel_pair() as (channel, _, _):
            assert sys.getsizeof(channel) <= 152
            assert not hasattr(channel, "__dict__")
            assert weakref.ref(channel)() is channel

    run(main())


def test_protocols_can_be_exchanged() -> None:
    async def main() -> None:
        async with channel_pair() as (channel, first, peer):
            peer.sendall(b"one")
            await until(lambda: bool(first.received))
            second = BufferedRecorder()
            second.connection_made(channel)
            channel.set_protocol(second)
            assert channel.get_protocol() is second
            peer.sendall(b"two")
            await until(lambda: bool(second.received))
            channel.set_protocol(first)
            peer.sendall(b"three")
            await until(lambda: len(first.received) == 8)
            assert (first.received, second.received) == (b"onethree", b"two")

    run(main())


def test_wrong_constructions() -> None:
    async def main() -> None:
        ours, peer = tcp_pair()
        with ours, peer:
            mine = reactor_of(asyncio.get_running_loop())
            with pytest.raises(TypeError):
                Channel(None, ours, Recorder())
            for sock in (-1, socket.socket.__new__(socket.socket)):
                with pytest.raises((ValueError, OSError)):
                    Channel(mine, sock, Recorder())
            with pytest.raises(RuntimeError):
                mine.__init__(asyncio.get_running_loop())
            assert ours.fileno() != -1
            channel = open_channel(ours, Recorder())
            assert ours.fileno() == -1
            with pytest.raises(RuntimeError):
                channel.__init__(mine, peer, Recorder())
            channel.abort()
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError):
                channel.__init__(mine, peer, Recorder())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listener = Listener(mine, listening, Recorder)
            with pytest.raises(RuntimeError):
                listener.__init__(mine, listening, Recorder)
            listener.close()
            listener.close()
            listener.stop()
            with pytest.raises(RuntimeError):
                listener.start()
        for sock in (listening, asyncio.trsock.TransportSocket(listening)):
            with pytest.raises((ValueError, OSError)):
                Listener(mine, sock, Recorder)

    run(main())


def test_connection_made_that_raises() -> None:
    def fail(_: Any) -> None:
        raise ValueError("mine")

    async def main() -> None:
        ours, peer = tcp_pair()
        protocol = Recorder(connection_made=fail)
        channel = Channel(reactor_of(asyncio.get_running_loop()), ours, protocol)
        with pytest.raises(ValueError, match="mine"):
            channel.start()
        assert peer.recv(1) == b""
        assert protocol.calls == ["made"]
        assert "closed" in repr(channel)
        peer.close()

    run(main())


# Listeners


@contextlib.asynccontextmanager
async def listen(sock: socket.socket, factory: Callable[[], Any], backlog: int = 100) -> AsyncIterator[Any]:
    listener = Listener(reactor_of(asyncio.get_running_loop()), sock, factory, backlog)
    listener.start()
    try:
        yield listener
    finally:
        listener.close()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextlib.contextmanager
def clients(listening: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(listening.getsockname())) for _ in range(count)]


async def close_all(protocols: list[Any]) -> None:
    for protocol in protocols:
        protocol.transport.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("backlog", [1, 100])
def test_many_connections_at_once(backlog: int) -> None:
    async def main() -> None:
        protocols: list[Any] = []
        with socket.create_server(("127.0.0.1", 0), backlog=300) as listening, clients(listening, 200) as peers:
            async with listen(listening, lambda: protocols.append(Recorder()) or protocols[-1], backlog):
                await until(lambda: len(protocols) == 200)
            for number, peer in enumerate(peers):
                peer.sendall(b"%d" % number)
            await until(lambda: all(protocol.received for protocol in protocols))
            assert {int(protocol.received) for protocol in protocols} == set(range(200))
            for protocol in protocols:
                sock = protocol.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await close_all(protocols)

    run(main())


def test_stopping_and_starting() -> None:
    async def main() -> None:
        protocols: list[Any] = []
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with listen(listening, lambda: protocols.append(Recorder()) or protocols[-1]) as listener:
                listener.stop()
                listener.stop()
                with clients(listening, 1):
                    await asyncio.sleep(0.01)
                    assert not protocols
                    listener.start()
                    listener.start()
                    await until(lambda: bool(protocols))
                    await close_all(protocols)
            assert listening.fileno() != -1

    run(main())


def test_stopping_while_accepting() -> None:
    """In connection_made: those that have not been accepted stay in the kernel's queue."""

    async def main() -> None:
        protocols: list[Any] = []
        with socket.create_server(("127.0.0.1", 0)) as listening, clients(listening, 5):
            def stop(_: Any) -> None:
                (listener.close if len(protocols) == 2 else listener.stop)()

            make = lambda: protocols.append(Recorder(connection_made=stop)) or protocols[-1]  # noqa: E731
            async with listen(listening, make) as listener:
                await until(lambda: len(protocols) == 1)
                await asyncio.sleep(0.005)
                listener.start()
                await until(lambda: len(protocols) == 2)
                await asyncio.sleep(0.005)
            assert len(protocols) == 2
            await close_all(protocols)

    run(main())


@pytest.mark.parametrize("name", ["factory", "connection_made"])
def test_connections_that_cannot_be_made(name: str) -> None:
    async def main() -> None:
        contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
        protocols: list[Any] = []

        def fail(*_: Any) -> None:
            raise ValueError("mine")

        def factory() -> Any:
            protocol = Recorder(connection_made=fail) if len(protocols) == 0 else Recorder()
            protocols.append(protocol)
            if name == "factory" and len(protocols) == 1:
                fail()
            return protocol

        with socket.create_server(("127.0.0.1", 0)) as listening, clients(listening, 2) as peers:
            async with listen(listening, factory):
                await until(lambda: len(protocols) == 2)
                assert peers[0].recv(1) == b""
                peers[1].sendall(b"works")
                await until(lambda: protocols[1].received == b"works")
            await close_all(protocols[1:])
        (context,) = contexts
        assert str(context["exception"]) == "mine"
        assert context["message"] == "Error on transport creation for incoming connection"
        assert context.get("protocol") is (protocols[0] if name == "connection_made" else None)

    run(main())


def test_what_ends_the_program_while_accepting() -> None:
    before = descriptors()
    loop = new_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listening.getsockname())

    def interrupt() -> None:
        raise KeyboardInterrupt

    listener = Listener(reactor_of(loop), listening, interrupt)
    listener.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert peer.recv(1) == b""
    listener.close()
    loop.close()
    listening.close()
    peer.close()
    del loop, listener
    gc.collect()
    assert descriptors() == before


def run_program(code: str) -> None:
    """Run a program of its own on the loop under test."""
    head = "import sys; sys.path[:0] = sys.argv[1:]\nfrom test_aio_reactor import *\nlogging.disable(logging.WARNING)\n"
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    result = subprocess.run(
        [sys.executable, "-c", head + code, *paths], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr


@pytest.mark.external
@pytest.mark.parametrize("end", ["go on", "stop", "close"])
def test_no_descriptors_left(end: str) -> None:
    run_program(f"""
import resource
reactor.ACCEPT_RETRY_DELAY = 0.2

async def main(end):
    loop = asyncio.get_running_loop()
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    protocols = []
    with socket.create_server(("127.0.0.1", 0)) as listening, clients(listening, 30):
        async with listen(listening, lambda: protocols.append(Recorder()) or protocols[-1]) as listener:
            resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, 4096))
            await until(lambda: len(contexts) >= 2)
            assert 0 < len(protocols) < 10, len(protocols)
            for context in contexts:
                assert context["message"] == "socket.accept() out of system resource"
                assert context["exception"].errno == errno.EMFILE
                assert context["socket"].fileno() == listening.fileno()
            listener.start()  # changes nothing
            before = len(contexts)
            await asyncio.sleep(0.02)
            assert len(contexts) == before
            if end == "stop":
                listener.stop()
            if end == "close":
                listener.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
            if end == "go on":
                await until(lambda: len(protocols) == 30)
            else:
                before = len(contexts), len(protocols)
                await asyncio.sleep(0.3)
                assert (len(contexts), len(protocols)) == before
                if end == "stop":
                    listener.start()
                    await until(lambda: len(protocols) == 30)
        await close_all(protocols)

runner()(main({end!r}))
""")


def test_a_listening_socket_that_is_closed_too_early() -> None:
    """Its owner's mistake, and the descriptor is used again: nobody else must suffer."""

    async def main() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listener = Listener(reactor_of(asyncio.get_running_loop()), listening, Recorder)
        listener.start()
        fd = listening.fileno()
        ours, peer = tcp_pair()
        listening.close()
        assert os.dup(ours.fileno()) == fd
        ours.close()
        protocol = Recorder()
        channel = open_channel(fd, protocol)
        listener.close()
        peer.sendall(b"x")
        await until(lambda: protocol.received == b"x")
        channel.abort()
        peer.close()
        await asyncio.sleep(0)

    run(main())


def test_accept_errors() -> None:
    """A socket that does not listen."""

    async def main() -> None:
        contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
        with socket.socket() as sock:
            async with listen(sock, Recorder):  # of such a socket the kernel tells a hang-up
                await until(lambda: bool(contexts))
                await asyncio.sleep(0.01)
        assert [context["message"] for context in contexts] == ["socket.accept() failed"]

    run(main())


# Clients


async def dial(listening: socket.socket) -> Any:
    transport, _ = await asyncio.get_running_loop().create_connection(Placeholder, *listening.getsockname())
    return transport


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("delay", [0, 0.02])
def test_adopting_loses_nothing(make: Any, delay: float) -> None:
    """Servers that speak first, and end at once."""
    greeting = random.randbytes(5000)

    class Greeter(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(greeting)
            transport.write_eof()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = descriptors()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with listen(listening, Greeter):
                for _ in range(20):
                    transport = await dial(listening)
                    await asyncio.sleep(delay)
                    protocol = make(eof_received=lambda _: True)
                    channel = adopt(reactor_of(loop), transport, protocol)
                    assert protocol.calls == ["made"]
                    await until(lambda: protocol.calls[-1] == "eof")  # noqa: B023
                    assert protocol.received == greeting
                    channel.close()
                    await until(lambda: protocol.lost)  # noqa: B023
                    assert protocol.calls == ["made", "data", "eof", "lost"]
                    assert transport.is_closing()
        await until(lambda: descriptors() == before)

    run(main())


def test_what_the_placeholder_has_read() -> None:
    """All of it comes first, though the protocol pauses or ends in the middle."""

    async def main() -> None:
        for make in (Recorder, BufferedRecorder):
            ours, peer = tcp_pair()
            peer.sendall(b"later")
            protocol = make()
            channel = Channel(reactor_of(asyncio.get_running_loop()), ours, protocol)
            channel.start(b"first " * 500)
            await until(lambda: len(protocol.received) == 3005)  # noqa: B023
            assert protocol.received == b"first " * 500 + b"later"
            channel.abort()
            peer.close()
            await asyncio.sleep(0)

        ours, peer = tcp_pair()
        protocol = BufferedRecorder(data_received=lambda protocol, _: protocol.transport.close())
        channel = Channel(reactor_of(asyncio.get_running_loop()), ours, protocol)
        channel.start(bytes(5000))
        await until(lambda: protocol.lost)
        assert len(protocol.received) == 1000
        peer.close()
        await asyncio.sleep(0)

        ours, peer = tcp_pair()
        protocol = BufferedRecorder(connection_made=lambda protocol: protocol.transport.close())
        channel = Channel(reactor_of(asyncio.get_running_loop()), ours, protocol)
        channel.start(b"x")
        await until(lambda: protocol.lost)
        assert protocol.calls == ["made", "lost"]
        peer.close()
        await asyncio.sleep(0)

    run(main())


def test_output_that_fails_before_what_was_read_is_delivered() -> None:
    async def main() -> None:
        ours, peer = tcp_pair()
        protocol = Recorder(connection_made=lambda protocol: fail_output(protocol.transport))
        channel = Channel(reactor_of(asyncio.get_running_loop()), ours, protocol)
        peer.sendall(b"later")
        channel.start(b"first ")
        await until(lambda: protocol.lost)
        assert protocol.received == b"first later"
        peer.close()

    run(main())


def test_adopting_a_lost_connection() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            transport = await dial(listening)
            peer, _ = listening.accept()
            transport.get_protocol().transport.resume_reading()
            reset(peer)
            placeholder = transport.get_protocol()
            for _ in range(2):
                await until(transport.is_closing)
                with pytest.raises(ConnectionResetError):
                    adopt(reactor_of(asyncio.get_running_loop()), transport, Recorder())
                await until(lambda: placeholder.error is not None)

    run(main())


def test_the_placeholder_reads_once() -> None:
    """Were it to read on, it would read the end of the connection in the channel's place."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            transport = await dial(listening)
            peer, _ = listening.accept()
            placeholder = transport.get_protocol()
            placeholder.transport.resume_reading()
            peer.sendall(b"x")
            await until(lambda: bool(placeholder.received))
            reset(peer)
            await asyncio.sleep(0.01)
            protocol = Recorder()
            adopt(reactor_of(asyncio.get_running_loop()), transport, protocol)
            await until(lambda: protocol.lost)
            assert protocol.calls == ["made", "data", f"lost {RESET}"]

    run(main())


def test_adopting_for_a_protocol_that_raises() -> None:
    def fail(_: Any) -> None:
        raise ValueError("mine")

    async def main() -> None:
        before = descriptors()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            for _ in range(3):
                transport = await dial(listening)
                peer, _ = listening.accept()
                with pytest.raises(ValueError, match="mine"):
                    adopt(reactor_of(asyncio.get_running_loop()), transport, Recorder(connection_made=fail))
                await until(transport.is_closing)
                assert await read_all(peer) == b""
                peer.close()
        await until(lambda: descriptors() == before)

    run(main())


# The reactor


def test_one_reactor_per_loop() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        mine = reactor_of(loop)
        assert reactor_of(loop) is mine
        return mine

    assert run(main()) is not run(main())


def test_no_reactor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(asyncio.AbstractEventLoop):
        pass

    assert reactor_of(Other()) is None

    async def main() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setenv("WSPROTO_FAST_REACTOR", "0")
        assert reactor_of(loop) is None
        monkeypatch.setenv("WSPROTO_FAST_REACTOR", "1")
        assert reactor_of(loop) is not None

    run(main())


def test_a_reactor_outlives_its_loop() -> None:
    async def main() -> Any:
        return reactor_of(asyncio.get_running_loop())

    mine = run(main())
    gc.collect()
    ours, peer = tcp_pair()
    with ours, peer:
        with pytest.raises(RuntimeError):
            Channel(mine, ours, Recorder())
        assert ours.fileno() != -1


def test_the_loop_is_held_while_there_are_sockets() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        mine = reactor_of(loop)

        def held() -> bool:
            return any(other is loop for other in gc.get_referents(mine))

        assert not held()
        async with channel_pair() as (channel, protocol, _):
            assert held()
            channel.close()
            await until(lambda: protocol.lost)
            await asyncio.sleep(0)
            assert not held()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listener = Listener(mine, listening, Recorder)
            assert held()
            listener.close()
            assert not held()
            listener = Listener(mine, listening, Recorder)
            del listener  # the garbage collector may run in any thread: the loop is told later

    run(main())


def test_a_reactor_that_nobody_needs() -> None:
    async def main() -> None:
        mine = weakref.ref(reactor_of(asyncio.get_running_loop()))
        for _ in range(2):
            async with channel_pair():
                pass
            await asyncio.sleep(0)
        gc.collect()
        assert mine() is None
        assert reactor_of(asyncio.get_running_loop()) is not None

    run(main())


def test_the_first_context_is_not_held() -> None:
    class Value:
        pass

    async def main() -> None:
        variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

        async def first() -> Any:
            value = Value()
            variable.set(value)
            pairs.append(tcp_pair())
            open_channel(pairs[0][0], protocols[0])
            return weakref.ref(value)

        pairs: list[Any] = []
        protocols = [Recorder(), Recorder()]
        value = await asyncio.create_task(first())
        async with channel_pair():
            protocols[0].transport.close()
            await until(lambda: protocols[0].lost)
            await asyncio.sleep(0)
            gc.collect()
            assert value() is None
        pairs[0][1].close()

    run(main())


def test_callbacks_run_in_the_context_of_who_opened() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    def see(*_: Any) -> None:
        seen.append(variable.get())

    async def main() -> None:
        on = {"data_received": see, "eof_received": see, "connection_lost": see, "connection_made": see}
        variable.set("server's")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with listen(listening, lambda: Recorder(**on)):
                variable.set("client's")
                peer = socket.create_connection(listening.getsockname())
                protocol = Recorder(**{**on, "connection_made": lambda _: None})
                ours, other = tcp_pair()
                channel = open_channel(ours, protocol)
                variable.set("nobody's")
                other.sendall(b"x")
                await until(lambda: bool(protocol.received))
                channel.close()
                await until(lambda: protocol.lost)
                assert seen == ["server's", "client's", "client's"]
                seen.clear()
                peer.sendall(b"x")
                await until(lambda: bool(seen))
                peer.close()
                other.close()
                await until(lambda: len(seen) == 3)
        assert seen == ["server's"] * 3

    run(main())


def test_closing_others_in_a_callback() -> None:
    """Whatever else the same call of epoll_wait has told of them, or will tell: descriptors are used again."""

    async def main() -> None:
        rng = random.Random(3)
        channels: list[Any] = []
        peers: list[socket.socket] = []
        stories: list[Recorder] = []

        def strike(protocol: Any, data: bytes) -> None:
            """Close another one, and open a new one, which gets the descriptor that became free."""
            victim = rng.randrange(len(channels))
            number = int.from_bytes(data[:4], "big")
            assert stories[number] is protocol
            if not channels[victim].is_closing():
                (channels[victim].abort if rng.random() < 0.5 else channels[victim].close)()
            if len(channels) < 600:
                add()

        def add() -> None:
            ours, peer = tcp_pair()
            stories.append(Recorder(data_received=strike))
            channels.append(open_channel(ours, stories[-1]))
            peer.sendall(len(peers).to_bytes(4, "big"))
            peers.append(peer)

        for _ in range(150):
            add()
        await until(lambda: all(story.received or story.lost for story in stories))
        for channel in channels:
            channel.abort()
        await until(lambda: all(story.lost for story in stories))
        for story in stories:
            assert story.calls in (["made", "data", "lost"], ["made", "lost"], ["made", "data", "eof", "lost"])
        for peer in peers:
            peer.close()

    run(main(), limit=60)


def test_a_descriptor_that_is_used_again_within_a_batch() -> None:
    """The event of the closed one must not reach the new one."""

    async def main() -> None:
        protocols = [Recorder(), Recorder()]
        pairs = [tcp_pair(), tcp_pair()]
        channels = [open_channel(ours, protocol) for (ours, _), protocol in zip(pairs, protocols, strict=True)]
        spare, spare_peer = tcp_pair()
        asked: list[str] = []
        new = BufferedRecorder(get_buffer=lambda _: asked.append("buffer"))

        def replace(protocol: Any, _: bytes) -> None:
            other = channels[1 - protocols.index(protocol)]
            fd = other.get_extra_info("socket").fileno()
            other.abort()
            other._lose_connection(None)  # at once, which the loop never does
            os.dup2(spare.fileno(), fd)
            channels.append(open_channel(fd, new))

        for protocol in protocols:
            protocol.on["data_received"] = replace
        for _, peer in pairs:
            peer.sendall(b"x")
        await until(lambda: any(protocol.received for protocol in protocols))
        await asyncio.sleep(0.01)
        assert new.calls == ["made"]
        assert not asked
        assert sum(bool(protocol.received) for protocol in protocols) == 1
        spare_peer.sendall(b"mine")
        await until(lambda: new.received == b"mine")
        for channel in channels:
            channel.abort()
        for sock in (spare, spare_peer, pairs[0][1], pairs[1][1]):
            sock.close()
        await asyncio.sleep(0)

    run(main())


def test_dropping_the_last_reference_in_a_callback() -> None:
    async def main() -> None:
        class Suicide(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                references.clear()
                gc.collect()

            def connection_lost(self, exc: Exception | None) -> None:
                done.set()

        done = asyncio.Event()
        ours, peer = tcp_pair()
        references = [open_channel(ours, Suicide())]
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        await done.wait()
        peer.close()
        await asyncio.sleep(0)

    run(main())


def test_a_channel_that_nobody_has() -> None:
    """Paused and forgotten, so nothing can ever come of it: it is closed, with a warning, as asyncio's are."""

    async def main() -> None:
        ours, peer = tcp_pair()
        open_channel(ours, Recorder(connection_made=lambda protocol: protocol.transport.pause_reading()))
        mine = weakref.ref(reactor_of(asyncio.get_running_loop()))
        with pytest.warns(ResourceWarning, match="unclosed transport <Channel fd="):
            gc.collect()
        assert peer.recv(1) == b""
        peer.close()
        async with channel_pair():
            pass
        await asyncio.sleep(0)
        gc.collect()
        assert mine() is None  # it has not counted that one on

    run(main())


def descriptors(kind: str = "socket:") -> int:
    """How many sockets this process has. (A reactor's epoll lives as long as whatever still knows the reactor.)"""
    return sum(os.readlink(entry.path).startswith(kind) for entry in os.scandir("/proc/self/fd") if entry.is_symlink())


@pytest.mark.parametrize("way", ["close", "abort", "peer closes", "peer resets"])
def test_no_descriptor_leaks(way: str) -> None:
    async def main() -> None:
        before = descriptors()
        protocols: list[Any] = []
        with socket.create_server(("127.0.0.1", 0), backlog=300) as listening:
            async with listen(listening, lambda: protocols.append(Recorder()) or protocols[-1]):
                for _ in range(10):
                    protocols.clear()
                    with clients(listening, 100) as peers:
                        await until(lambda: len(protocols) == 100)
                        for protocol, peer in zip(protocols, peers, strict=True):
                            if way == "peer closes":
                                peer.close()
                            elif way == "peer resets":
                                reset(peer)
                            else:
                                getattr(protocol.transport, way)()
                        await until(lambda: all(protocol.lost for protocol in protocols))
        await asyncio.sleep(0)
        assert descriptors() == before

    run(main(), limit=60)


@pytest.mark.parametrize("close", [True, False])
def test_a_loop_that_ends_with_open_channels(close: bool) -> None:
    """Closed, or forgotten: their descriptors are closed, and they warn."""
    if not close and runner() is not asyncio.run:
        pytest.skip("uvloop does not let go of a loop that is not closed")
    gc.collect()
    before = descriptors()
    loop = new_loop()
    pairs = [tcp_pair() for _ in range(5)]
    listening = socket.create_server(("127.0.0.1", 0))

    async def begin() -> None:
        for ours, _ in pairs:
            open_channel(ours, Recorder()).get_extra_info("socket")
        Listener(reactor_of(asyncio.get_running_loop()), listening, Recorder).start()

    loop.run_until_complete(begin())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if close:
            loop.close()
        del loop
        gc.collect()
    told = [str(warning.message) for warning in caught if "unclosed transport <Channel" in str(warning.message)]
    assert len(told) == 5, [str(warning.message) for warning in caught]
    for _, peer in pairs:
        assert peer.recv(1) == b""
        peer.close()
    listening.close()
    assert descriptors() == before


def test_a_channel_after_its_loop() -> None:
    """As asyncio's transports: closing it fails, letting go of it closes it."""
    loop = new_loop()
    ours, peer = tcp_pair()

    async def begin() -> Any:
        return open_channel(ours, Recorder())

    channel = loop.run_until_complete(begin())
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        channel.close()
    channel = None
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        gc.collect()
    assert peer.recv(1) == b""
    peer.close()


def test_loops_in_threads() -> None:
    failures: list[BaseException] = []

    async def talk() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            async with listen(listening, Echo):
                for _ in range(30):
                    transport = await dial(listening)
                    protocol = Recorder()
                    channel = adopt(reactor_of(asyncio.get_running_loop()), transport, protocol)
                    sent = random.randbytes(20_000)
                    channel.write(sent)
                    await until(lambda: len(protocol.received) == 20_000)  # noqa: B023
                    assert protocol.received == sent
                    channel.close()
                    await until(lambda: protocol.lost)  # noqa: B023
                    await asyncio.sleep(0)

    def work() -> None:
        try:
            runner()(talk())
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


@pytest.mark.external
def test_forking() -> None:
    """A child that closes what it has inherited, or runs a loop of its own, does not disturb its parent."""
    run_program("""
async def main():
    loop = asyncio.get_running_loop()
    mine = reactor_of(loop)
    ours, peer = tcp_pair()
    protocol = Recorder()
    channel = open_channel(ours, protocol)
    other_ours, other_peer = tcp_pair()
    other = open_channel(other_ours, Recorder())
    other.pause_reading()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listener = Listener(mine, listening, Recorder)
        listener.start()
        child = os.fork()
        if child == 0:
            os._exit(in_child(loop, mine, channel, listener, other, other_peer))
        assert os.waitpid(child, 0)[1] == 0
        assert reactor_of(loop) is mine
        with clients(listening, 1):
            peer.sendall(b"still there")
            await until(lambda: protocol.received == b"still there")
        listener.close()
    other_peer.sendall(b"x")
    other.resume_reading()
    await until(lambda: other.get_protocol().received == b"from the child, x")
    channel.close()
    other.close()
    await asyncio.sleep(0)
    peer.close()
    other_peer.close()

def in_child(loop, mine, channel, listener, other, other_peer):
    try:
        warnings.simplefilter("error")
        listener.stop()
        listener.close()
        channel.pause_reading()
        channel.resume_reading()
        other.resume_reading()
        other_peer.sendall(b"from the child, ")
        mine.ready()
        assert not other.get_protocol().received
        channel.abort()
        channel._lose_connection(None)
        other.abort()
        other._lose_connection(None)
        assert reactor_of(loop) is not mine
        asyncio._set_running_loop(None)
        def work():
            async def talk():
                ours, peer = tcp_pair()
                protocol = Recorder()
                channel = open_channel(ours, protocol)
                peer.sendall(b"x")
                await until(lambda: protocol.received == b"x")
                channel.close()
                await until(lambda: protocol.lost)
                peer.close()
            asyncio.run(talk())
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join()
        del channel, other
        gc.collect()
        return 0
    except BaseException:
        import traceback
        traceback.print_exc()
        return 1

runner()(main())
""")


# Fairness


@pytest.mark.slow
def test_a_thousand_busy_sockets() -> None:
    """All are served alike, and another callback of the loop gets its turn every few milliseconds."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        count = 1000
        turns = [0] * count
        gaps: list[float] = []
        last = time.perf_counter()
        peers: list[socket.socket] = []
        channels: list[Any] = []

        def busy(number: int) -> Callable[..., None]:
            def on_data(protocol: Any, data: bytes) -> None:
                turns[number] += 1
                end = time.perf_counter() + 20e-6  # some work
                while time.perf_counter() < end:
                    pass
                peers[number].send(data)  # there is something to read again at once

            return on_data

        def chain() -> None:
            nonlocal last
            now = time.perf_counter()
            gaps.append(now - last)
            last = now
            if min(turns) < 20:
                loop.call_soon(chain)
            else:
                done.set()

        for number in range(count):
            ours, peer = socket.socketpair()
            ours.setblocking(False)
            channels.append(open_channel(ours, Recorder(data_received=busy(number))))
            peers.append(peer)
        done = asyncio.Event()
        for peer in peers:
            peer.send(b"x")
        last = time.perf_counter()
        chain()
        await done.wait()
        for channel, peer in zip(channels, peers, strict=True):
            channel.abort()
            peer.close()
        await asyncio.sleep(0)
        gaps.sort()
        assert gaps[len(gaps) // 2] < 0.003
        assert gaps[int(len(gaps) * 0.9)] < 0.01
        assert max(turns) <= min(turns) + 2

    run(main(), limit=60)


# One connection alone is told of by the loop itself


def told_by_loop() -> int:
    """How many descriptors asyncio's own loop is told of. Its own pipe and the reactor's epoll are two."""
    return len(asyncio.get_running_loop()._selector.get_map()) - 2  # type: ignore[attr-defined]


@pytest.mark.skipif(LOOP != "asyncio", reason="looks into asyncio's own loop")
def test_one_is_alone_until_there_is_another() -> None:
    async def main() -> None:
        async with channel_pair() as (_, one, peer):
            assert told_by_loop() == 1
            peer.sendall(b"alone")
            await until(lambda: one.received == b"alone")
            async with channel_pair() as (_, two, other):
                assert told_by_loop() == 0
                peer.sendall(b", not alone")
                other.sendall(b"nor I")
                await until(lambda: one.received == b"alone, not alone" and two.received == b"nor I")
            peer.sendall(b", alone again")
            await until(lambda: one.received.endswith(b"again"))
        assert told_by_loop() == -1  # the epoll has gone, too

    run(main())


def test_one_alone_that_waits_to_write() -> None:
    async def main() -> None:
        async with channel_pair(small=True) as (channel, protocol, peer):
            channel.write(bytes(500_000))
            assert channel.get_write_buffer_size()
            peer.sendall(b"read meanwhile")
            await until(lambda: protocol.received == b"read meanwhile")
            assert await read_some(peer, 500_000) == bytes(500_000)
            await until(lambda: not channel.get_write_buffer_size())
            peer.sendall(b" and after")
            await until(lambda: protocol.received == b"read meanwhile and after")

    run(main())


def test_a_loop_that_takes_no_other_reader() -> None:
    """Then the connection goes to the epoll, which the loop has."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        readers: list[Any] = []

        class Reluctant:
            """The loop, for the reactor."""

            def __getattr__(self, name: str) -> Any:
                return getattr(loop, name)

            def add_reader(self, fd: int, callback: Any) -> None:
                if readers:
                    raise OSError("no more")
                readers.append(fd)
                loop.add_reader(fd, callback)

        reluctant = Reluctant()
        ours, peer = tcp_pair()
        protocol = Recorder()
        channel = Channel(reactor.Reactor(reluctant), ours, protocol)
        channel.start()
        peer.sendall(b"here")
        await until(lambda: protocol.received == b"here")
        channel.abort()
        peer.close()
        await until(lambda: protocol.lost)
        assert len(readers) == 1

    run(main())
