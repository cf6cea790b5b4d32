"""TLSTransport: TLS over memory BIOs, in memory, and against asyncio's, the ssl module's and openssl's TLS."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import re
import shutil
import socket
import ssl
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aio import FAILED_HANDSHAKE, LOOP, missing, run, tls_contexts, until

from wsproto_fast.asyncio._tls import TLSTransport

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
BIG = os.urandom(2**20) * 10
RECORD = 2**14


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls_contexts()


def fresh(version: ssl.TLSVersion | None = None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts that a test may change."""
    pair = tls_contexts()
    if version is not None:
        for context in pair:
            context.minimum_version = context.maximum_version = version
    return pair


# The protocols above


class Upper:
    """Records its calls; a test overrides what it does meanwhile."""

    def __init__(self, **hooks: Callable[..., object]) -> None:
        self.calls: list[Any] = []
        self.data = b""
        self.hooks = hooks
        self.transport: Any = None
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def _call(self, name: str, *args: Any) -> Any:
        self.calls.append(name)
        return self.hooks.get(name, lambda *_: None)(self, *args)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._call("connection_made")

    def _received(self, data: bytes) -> None:
        self.data += data
        if self.calls[-1:] != ["data"]:
            self.calls.append("data")
        self.hooks.get("data", lambda *_: None)(self, data)

    def eof_received(self) -> Any:
        return self._call("eof_received")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._call("connection_lost", exc)
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self._call("pause_writing")

    def resume_writing(self) -> None:
        self._call("resume_writing")


class Flat(Upper, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self._received(data)


class Buffered(Upper, asyncio.BufferedProtocol):
    size = 65536

    def get_buffer(self, sizehint: int) -> Any:
        self.buffer = bytearray(self.size)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self.buffer[:nbytes]))


class Narrow(Buffered):
    """Has little memory, as a memoryview."""

    size = 7

    def get_buffer(self, sizehint: int) -> Any:
        return memoryview(super().get_buffer(sizehint))


UPPERS = pytest.mark.parametrize("kind", [Flat, Buffered, Narrow])


def echo(upper: Upper, data: bytes) -> None:
    upper.transport.write(data)


# In memory: the transport below and the peer


class Timers:
    """A loop that knows its timers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.timers: list[asyncio.TimerHandle] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        self.timers.append(self._loop.call_later(delay, callback, *args))
        return self.timers[-1]


class Lower:
    """A transport that keeps what is written."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        #: Nothing is to come after it.
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.protocol: Any = None
        self.written: list[bytes] = []
        self.closed = self.aborted = self.reading_paused = False
        self.buffered = 0
        self.limits: tuple[int | None, int | None] = (None, None)

    def write(self, data: bytes) -> None:
        assert data
        self.written.append(data)

    def writelines(self, chunks: list[bytes]) -> None:
        self.write(b"".join(chunks))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        self.protocol.connection_lost(None)
        assert all(timer.cancelled() or timer.when() < self.timers.time() for timer in self.timers.timers)
        self.lost.set_result(None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        assert not self.reading_paused
        self.reading_paused = True

    def resume_reading(self) -> None:
        assert self.reading_paused
        self.reading_paused = False

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (low, high)

    def get_write_buffer_limits(self) -> tuple[int | None, int | None]:
        return self.limits

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": "peer"}.get(name, default)

    def deliver(self, data: bytes) -> None:
        """As a transport reads."""
        while data:
            buffer = self.protocol.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.protocol.buffer_updated(size)
            data = data[size:]


class Lab:
    """A TLSTransport, the transport below it, and its peer made of an SSLObject."""

    def __init__(
        self,
        upper: Any,
        *,
        server_side: bool = True,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        session: ssl.SSLSession | None = None,
        **options: Any,
    ) -> None:
        server, client = tls or contexts()
        self.upper = upper
        self.outcome: list[Any] = []
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        if server_side:
            ours = server
            self.peer = client.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)
        else:
            ours = client
            self.peer = server.wrap_bio(self.incoming, self.outgoing, server_side=True)
            options.setdefault("server_hostname", "localhost")
        timers = Timers()
        self.tls = TLSTransport(
            timers,  # type: ignore[arg-type]
            upper,
            ours,
            server_side=server_side,
            on_handshake=self.outcome.append,
            **options,
        )
        self.lower = Lower(timers)
        self.lower.protocol = self.tls

    def start(self) -> None:
        self.tls.connection_made(self.lower)  # type: ignore[arg-type]

    def take(self) -> bytes:
        """What the peer is given."""
        records = b"".join(self.lower.written)
        self.lower.written.clear()
        self.incoming.write(records)
        return records

    def shake(self, deliver: Callable[[bytes], None] | None = None) -> None:
        """Shake hands. The peer's last flight is left to be delivered."""
        deliver = deliver or self.lower.deliver
        while True:
            self.take()
            try:
                self.peer.do_handshake()
            except ssl.SSLWantReadError:
                deliver(self.outgoing.read())
            else:
                return

    def send(self, *data: bytes) -> bytes:
        """The peer's records with these data."""
        for chunk in data:
            self.peer.write(chunk)
        return self.outgoing.read()

    def hangs_up(self) -> bytes:
        """The peer's close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.peer.unwrap()
        return self.outgoing.read()

    def read(self) -> bytes:
        """What the peer can decrypt; ends with "EOF" if that is what it found."""
        self.take()
        data = b""
        try:
            while chunk := self.peer.read(2**16):
                data += chunk
        except ssl.SSLWantReadError:
            return data
        except ssl.SSLZeroReturnError:
            pass
        return data + b"EOF"


def lab(upper: Any = None, **options: Any) -> Lab:
    """Of an open connection."""
    lab = Lab(upper or Buffered(), **options)
    lab.start()
    lab.shake()
    lab.lower.deliver(lab.outgoing.read())
    lab.read()
    assert lab.outcome == [None]
    assert lab.upper.calls == ["connection_made"]
    return lab


def records_in(data: bytes) -> int:
    """How many TLS records (RFC 8446 5.1: type, version, length)."""
    count = 0
    while data:
        data = data[5 + int.from_bytes(data[3:5], "big") :]
        count += 1
    return count


# The handshake


@VERSIONS
@pytest.mark.parametrize("server_side", [True, False])
@pytest.mark.parametrize("kind", [Flat, Buffered, Narrow])
def test_handshake_and_echo_bytewise(version: ssl.TLSVersion, server_side: bool, kind: Any) -> None:
    async def main() -> None:
        lab = Lab(kind(data=echo), server_side=server_side, tls=fresh(version))

        def deliver(data: bytes) -> None:
            for byte in data:
                lab.lower.deliver(bytes([byte]))

        lab.start()
        lab.shake(deliver)
        deliver(lab.outgoing.read() + lab.send(b"one", b"two"))
        assert lab.upper.calls == ["connection_made", "data"]
        assert lab.read() == b"onetwo"
        assert lab.outcome == [None]

    run(main())


@VERSIONS
@pytest.mark.parametrize("server_side", [True, False])
def test_cut_at_every_point(version: ssl.TLSVersion, server_side: bool) -> None:
    async def main() -> None:
        tls = fresh(version)
        cut, size = 0, 1
        while cut < size:
            size = await conversation_cut_at(cut, server_side=server_side, tls=tls)
            cut += 1 if cut < 300 or size - cut < 300 else 37

    run(main(), limit=60)


async def conversation_cut_at(cut: int, **options: Any) -> int:
    """A handshake and an echo; what is received comes in one more piece. Returns its size."""
    lab = Lab(Buffered(data=echo), **options)
    size = 0

    def deliver(data: bytes) -> None:
        nonlocal size
        here = max(cut - size, 0)
        size += len(data)
        lab.lower.deliver(data[:here])
        lab.lower.deliver(data[here:])

    lab.start()
    lab.shake(deliver)
    deliver(lab.outgoing.read() + lab.send(b"hello"))
    assert lab.read() == b"hello", cut
    lab.tls.abort()
    await lab.upper.lost
    return size


@VERSIONS
def test_first_data_come_along_with_finished_and_are_answered_in_one_write(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        lab = Lab(Buffered(connection_made=lambda upper: upper.transport.write(b"hi "), data=echo), tls=fresh(version))
        lab.start()
        lab.shake()
        lab.read()
        if version == ssl.TLSVersion.TLSv1_3:  # in 1.2 the server is the last to speak
            lab.lower.deliver(lab.outgoing.read() + lab.send(b"first"))
            assert len(lab.lower.written) == 1
            assert lab.read() == b"hi first"

    run(main())


def test_what_a_transport_tells() -> None:
    async def main() -> None:
        server, client = fresh()
        server.set_alpn_protocols(["http/1.1"])
        client.set_alpn_protocols(["h2", "http/1.1"])
        names: list[str | None] = []
        server.sni_callback = lambda _object, name, _context: names.append(name)
        current = Lab(Buffered(), server_side=False, tls=(server, client))
        assert "client new" in repr(current.tls)
        assert current.tls.get_extra_info("peername", 1) == 1
        assert current.tls.get_extra_info("cipher", 2) == 2
        current.start()
        assert "handshake" in repr(current.tls)
        assert current.tls.get_extra_info("sslcontext") is client
        current.shake()
        current.lower.deliver(current.outgoing.read())
        tls = current.tls
        assert names == ["localhost"]
        assert tls.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert ("DNS", "localhost") in tls.get_extra_info("peercert")["subjectAltName"]
        assert tls.get_extra_info("cipher") == current.peer.cipher()
        assert tls.get_extra_info("compression") is None
        assert tls.get_extra_info("peername") == "peer"
        assert tls.get_extra_info("nothing", 5) == 5
        assert "client open TLSv1.3" in repr(tls)
        assert not tls.can_write_eof()
        with pytest.raises(NotImplementedError):
            tls.write_eof()
        assert tls.get_protocol() is current.upper
        tls.set_write_buffer_limits(10, 5)
        assert tls.get_write_buffer_limits() == (5, 10)

    run(main())


@pytest.mark.parametrize("name", ["handshake_timeout", "shutdown_timeout"])
def test_timeouts_are_positive(name: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=f"ssl_{name} should be a positive number, got 0"):
            Lab(Buffered(), **{name: 0})

    run(main())


def test_a_host_name_must_be_checked() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="check_hostname requires server_hostname"):
            Lab(Buffered(), server_side=False, server_hostname=None)
        Lab(Buffered(), server_side=False, server_hostname="")

    run(main())


@pytest.mark.parametrize("hostname", ["localhost", "example.com"])
def test_a_client_that_does_not_trust_the_server(hostname: str) -> None:
    async def main() -> None:
        server, client = fresh()
        if hostname == "localhost":
            client = ssl.create_default_context()
        lab = Lab(Buffered(), server_side=False, server_hostname=hostname, tls=(server, client))
        lab.start()
        with pytest.raises(ssl.SSLError, match="(?i)alert"):  # the peer is told
            while True:
                lab.shake()
                lab.peer.do_handshake()
                lab.lower.deliver(lab.outgoing.read())
                lab.read()
        assert lab.lower.closed
        assert not lab.lower.aborted
        await lab.lower.lost
        assert [type(exc) for exc in lab.outcome] == [ssl.SSLCertVerificationError]
        assert lab.upper.calls == []
        assert lab.tls.is_closing()
        assert lab.tls.get_extra_info("peercert", 3) in (3, {})

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_a_server_is_not_told_of_a_failed_handshake(debug: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        lab = Lab(Buffered())
        lab.start()
        lab.lower.deliver(b"GET / HTTP/1.1\r\n\r\n")
        assert lab.lower.closed
        await lab.lower.lost
        assert lab.upper.calls == []
        assert isinstance(lab.outcome[0], ssl.SSLError)
        assert len(lab.outcome) == 1
        assert [context["message"] for context in complaints] == [FAILED_HANDSHAKE] * debug
        loop.set_debug(False)

    run(main())


def test_handshake_timeout() -> None:
    async def main() -> None:
        lab = Lab(Buffered(), handshake_timeout=0.01)
        lab.start()
        await until(lambda: bool(lab.outcome))
        assert isinstance(lab.outcome[0], ConnectionAbortedError)
        assert str(lab.outcome[0]) == ("SSL handshake is taking longer than 0.01 seconds: aborting the connection")
        assert lab.lower.closed
        assert lab.upper.calls == []

    run(main())


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda lab: lab.tls.abort(), ConnectionAbortedError),
        (lambda lab: lab.tls.close(), ConnectionAbortedError),
        (lambda lab: lab.tls.eof_received(), ConnectionResetError),
        (lambda lab: lab.tls.connection_lost(OSError("reset")), OSError),
    ],
)
def test_end_in_the_handshake(end: Callable[[Lab], object], error: type[Exception]) -> None:
    async def main() -> None:
        lab = Lab(Buffered(), server_side=False)
        lab.start()
        end(lab)
        lab.lower.abort()
        await until(lambda: bool(lab.outcome))
        assert [type(exc) for exc in lab.outcome] == [error]
        await lab.lower.lost
        lab.lower.deliver(b"late")
        assert lab.upper.calls == []

    run(main())


def test_nothing_below_yet() -> None:
    async def main() -> None:
        lab = Lab(Buffered())
        lab.tls.abort()
        assert lab.tls.is_closing()

    run(main())


@VERSIONS
@pytest.mark.parametrize("has_certificate", [True, False])
def test_client_certificates(version: ssl.TLSVersion, has_certificate: bool) -> None:
    import trustme

    async def main() -> None:
        server, client = fresh(version)
        authority = trustme.CA()
        authority.configure_trust(server)
        server.verify_mode = ssl.CERT_REQUIRED
        if has_certificate:
            authority.issue_cert("someone").configure_cert(client)
        lab = Lab(Buffered(data=echo), tls=(server, client))
        lab.start()
        with contextlib.nullcontext() if has_certificate else pytest.raises(ssl.SSLError, match="(?i)alert"):
            lab.shake()
            lab.lower.deliver(lab.outgoing.read())
            lab.read()
        if has_certificate:
            assert lab.outcome == [None]
            assert "subject" in lab.tls.get_extra_info("peercert")
            lab.lower.deliver(lab.send(b"x"))
            assert lab.read() == b"x"
        else:
            assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(lab.outcome[0])
            assert lab.upper.calls == []

    run(main())


@pytest.mark.external  # no program, but CPython leaks what is given as session=, and LeakSanitizer sees it
@VERSIONS
def test_a_session_is_resumed(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        tls = fresh(version)
        first = lab(tls=tls)
        assert not first.peer.session_reused
        second = lab(tls=tls, session=first.peer.session)
        assert second.peer.session_reused

    run(main())


def test_a_protocol_that_fails_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))

        def fail(upper: Upper) -> None:
            raise RuntimeError("connection_made")

        lab = Lab(Buffered(connection_made=fail))
        lab.start()
        lab.shake()
        lab.lower.deliver(lab.outgoing.read())
        assert str(await lab.upper.lost) == "connection_made"
        assert [str(exc) for exc in lab.outcome] == ["connection_made"]
        assert [context["message"] for context in complaints] == ["Fatal error on SSL protocol"]

    run(main())


def test_abort_and_close_in_connection_made() -> None:
    async def main() -> None:
        for method in ("abort", "close"):
            lab = Lab(Buffered(connection_made=lambda upper, method=method: getattr(upper.transport, method)()))
            lab.start()
            lab.shake()
            lab.lower.deliver(lab.outgoing.read() + lab.send(b"unheard"))
            assert lab.outcome == [None]
            if method == "close":
                assert lab.read() == b"EOF"
                lab.lower.deliver(lab.hangs_up())
            assert await lab.upper.lost is None
            assert lab.upper.calls == ["connection_made", "connection_lost"]

    run(main())


# Data


@UPPERS
def test_many_records_in_one_read_are_one_call_and_one_write(kind: Any) -> None:
    async def main() -> None:
        current = lab(kind(data=echo))
        current.lower.deliver(current.send(*[b"%03d" % n for n in range(100)]))
        assert len(current.lower.written) == 1
        assert records_in(current.lower.written[0]) == 1
        assert current.read() == b"".join(b"%03d" % n for n in range(100))

    run(main())


def test_no_read_that_finds_nothing() -> None:
    """A record that came whole costs one call of OpenSSL."""
    reads = 0

    class Counting(ssl.SSLObject):
        def read(self, *args: Any) -> Any:
            nonlocal reads
            reads += 1
            return super().read(*args)

    async def main() -> None:
        server, client = fresh()
        server.sslobject_class = Counting
        current = lab(tls=(server, client))
        before = reads
        current.lower.deliver(current.send(b"a"))
        assert reads == before + 1

    run(main())


def test_a_write_leaves_at_once() -> None:
    async def main() -> None:
        current = lab()
        current.tls.write(b"a")
        assert current.read() == b"a"
        current.tls.write(bytearray(b"b"))
        current.tls.write(memoryview(b"xcx")[1:2])
        current.tls.write(b"")
        assert len(current.lower.written) == 2
        assert current.read() == b"bc"
        current.tls.writelines([b"d", b"", bytearray(b"e"), memoryview(b"f")])
        assert records_in(b"".join(current.lower.written)) == 1
        assert current.read() == b"def"
        current.tls.writelines([])
        assert current.lower.written == []
        with pytest.raises(TypeError, match="data: expecting a bytes-like instance, got str"):
            current.tls.write("text")  # type: ignore[arg-type]

    run(main())


@pytest.mark.parametrize(
    ("sizes", "records"),
    [
        ([RECORD], 1),
        ([RECORD + 1], 2),
        ([10, 5 * RECORD, 10, 10], 7),
        ([RECORD - 1, 1], 1),
        ([RECORD - 1, 2], 2),
        ([100] * 400, 3),
        ([20 * RECORD], 20),
        ([16 * RECORD], 16),
    ],
)
def test_few_records(sizes: list[int], records: int) -> None:
    async def main() -> None:
        current = lab()
        chunks = [os.urandom(size) for size in sizes]
        current.tls.writelines(chunks)
        assert records_in(b"".join(current.lower.written)) == records
        assert len(current.lower.written) == 1
        assert current.read() == b"".join(chunks)

    run(main())


def test_a_cork_holds_128_kib() -> None:
    sizes: list[int] = []

    def reply(upper: Upper, data: bytes) -> None:
        for _ in range(9):
            upper.transport.write(bytes(20_000))
            sizes.append(upper.transport.get_write_buffer_size())
        upper.transport.writelines([bytes(60_000), bytes(60_000)])
        sizes.append(upper.transport.get_write_buffer_size())

    async def main() -> None:
        current = lab(Buffered(data=reply))
        current.lower.deliver(current.send(b"go"))
        assert sizes == [20_000, 40_000, 60_000, 80_000, 100_000, 120_000, 0, 20_000, 40_000, 0]
        assert len(current.read()) == 300_000

    run(main())


def test_what_changes_after_the_call_is_copied() -> None:
    async def main() -> None:
        def reply(upper: Upper, data: bytes) -> None:
            buffer = bytearray(b"before")
            upper.transport.write(buffer)
            upper.transport.writelines([buffer])
            buffer[:] = b"after!"

        current = lab(Buffered(data=reply))
        current.lower.deliver(current.send(b"go"))
        assert current.read() == b"beforebefore"

    run(main())


def test_much_is_encrypted_in_parts() -> None:
    """OpenSSL's memory BIOs never shrink."""
    sizes: list[int] = []

    class Measuring(ssl.SSLObject):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return super().write(data)

    async def main() -> None:
        server, client = fresh()
        server.sslobject_class = Measuring
        current = lab(tls=(server, client))
        current.tls.write(BIG)
        assert current.read() == BIG
        current.tls.writelines([bytes(100)] * 400)
        assert sum(sizes) == len(BIG) + 40_000
        assert max(sizes) == RECORD

    run(main())


@pytest.mark.parametrize("method", ["write", "close"])
def test_who_is_told_to_stop_does_something_else(method: str) -> None:
    """What was written before comes before it."""

    async def main() -> None:
        action = {
            "write": lambda upper: upper.transport.write(b"last"),
            "close": lambda upper: upper.transport.close(),
        }[method]
        current = lab(Buffered(pause_writing=action))
        write = current.lower.write

        def write_and_stop(data: bytes) -> None:
            write(data)
            current.tls.pause_writing()

        current.lower.write = write_and_stop  # type: ignore[method-assign]
        current.tls.write(BIG)
        assert current.read() == BIG + {"write": b"last", "close": b"EOF"}[method]

    run(main())


def test_no_garbage() -> None:
    async def main() -> None:
        for end in (
            lambda current: current.lower.deliver(current.hangs_up()),
            lambda current: current.lower.deliver(current.send(b"x") + bytes(100)),
            lambda current: current.tls.abort(),
            lambda current: current.tls.eof_received(),
        ):
            current = lab()
            end(current)
            await current.lower.lost
            current.lower.protocol = None  # as asyncio's transports do
            tls = weakref.ref(current.tls)
            gc.disable()
            try:
                del current
                await asyncio.sleep(0)
                assert tls() is None
            finally:
                gc.enable()

    run(main())


def test_a_protocol_is_replaced() -> None:
    async def main() -> None:
        current = lab(Flat())
        other = Buffered()
        current.tls.set_protocol(other)
        current.lower.deliver(current.send(b"x"))
        assert other.calls == ["data"]
        assert current.tls.get_protocol() is other

    run(main())


def test_no_memory() -> None:
    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        upper = Buffered()
        upper.size = 0
        current = lab(upper)
        current.lower.deliver(current.send(b"x"))
        assert str(await upper.lost) == "get_buffer() returned an empty buffer"
        assert len(complaints) == 1

    run(main())


@pytest.mark.parametrize("hook", ["data", "eof_received"])
def test_a_protocol_that_fails(hook: str) -> None:
    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

        def fail(upper: Upper, *_: Any) -> None:
            raise RuntimeError(hook)

        for end in (lambda lab: lab.lower.deliver(lab.send(b"x") + lab.hangs_up()), lambda lab: lab.tls.eof_received()):
            current = lab(Buffered(**{hook: fail}))
            end(current)
            lost = await current.upper.lost
            if hook == "data" and isinstance(lost, ssl.SSLEOFError):
                continue
            assert str(lost) == hook
            assert complaints.pop()["exception"] is lost

    run(main())


def test_an_interrupt_goes_through() -> None:
    async def main() -> None:
        def fail(upper: Upper, *_: Any) -> None:
            upper.transport.write(b"1")
            raise KeyboardInterrupt

        current = lab(Buffered(data=fail))
        with pytest.raises(KeyboardInterrupt):
            current.lower.deliver(current.send(b"x"))
        current.tls.write(b"2")
        assert current.read() == b"12"

    run(main())


# Pausing


@UPPERS
def test_paused(kind: Any) -> None:
    async def main() -> None:
        current = lab(kind())
        tls, upper = current.tls, current.upper
        assert tls.is_reading()
        tls.pause_reading()
        tls.pause_reading()
        assert current.lower.reading_paused
        assert not tls.is_reading()
        current.lower.deliver(current.send(b"later"))
        assert upper.data == b""
        tls.resume_reading()
        tls.resume_reading()
        assert not current.lower.reading_paused
        tls.pause_reading()
        await asyncio.sleep(0)
        assert upper.data == b""
        tls.resume_reading()
        assert upper.data == b""
        await asyncio.sleep(0)
        assert upper.data == b"later"
        tls.pause_reading()
        tls.resume_reading()
        await asyncio.sleep(0)
        assert upper.data == b"later"

    run(main())


@UPPERS
def test_pause_while_fed(kind: Any) -> None:
    def one(upper: Upper, data: bytes) -> None:
        upper.transport.pause_reading()

    async def main() -> None:
        current = lab(kind(data=one))
        data = os.urandom(3 * RECORD)
        current.lower.deliver(current.send(data) + current.hangs_up())
        while len(current.upper.data) < len(data):
            before = len(current.upper.data)
            await asyncio.sleep(0)
            assert len(current.upper.data) == before
            current.tls.resume_reading()
            await asyncio.sleep(0)
            assert len(current.upper.data) > before
        assert current.upper.data == data
        assert "eof_received" not in current.upper.calls
        current.tls.resume_reading()
        assert await current.upper.lost is None
        assert current.upper.calls == ["connection_made", "data", "eof_received", "connection_lost"]

    run(main(), limit=60)


def test_pause_and_resume_while_fed() -> None:
    def both(upper: Upper, data: bytes) -> None:
        upper.transport.pause_reading()
        upper.transport.resume_reading()

    async def main() -> None:
        current = lab(Narrow(data=both))
        current.lower.deliver(current.send(b"x" * 100))
        assert current.upper.data == b"x" * 100

    run(main())


def test_eof_while_paused() -> None:
    async def main() -> None:
        current = lab()
        current.tls.pause_reading()
        current.lower.deliver(current.send(b"last"))
        assert current.tls.eof_received()
        await asyncio.sleep(0)
        assert current.upper.calls == ["connection_made"]
        current.tls.resume_reading()
        assert current.lower.reading_paused  # there is nothing more
        assert isinstance(await current.upper.lost, ssl.SSLEOFError)
        assert current.upper.calls == ["connection_made", "data", "eof_received", "connection_lost"]
        assert current.upper.data == b"last"

    run(main())


def test_eof_while_paused_and_paused_again() -> None:
    async def main() -> None:
        current = lab(Buffered(data=lambda upper, _: upper.transport.pause_reading()))
        current.tls.pause_reading()
        current.lower.deliver(current.send(b"last"))
        assert current.tls.eof_received()
        current.tls.resume_reading()
        await asyncio.sleep(0)
        assert current.upper.calls == ["connection_made", "data"]
        current.tls.resume_reading()
        current.tls.close()
        assert await current.upper.lost is None
        assert current.upper.calls == ["connection_made", "data", "connection_lost"]

    run(main())


def test_eof_while_paused_then_close() -> None:
    async def main() -> None:
        current = lab()
        current.tls.pause_reading()
        assert current.tls.eof_received()
        current.tls.close()
        assert await current.upper.lost is None
        assert current.read() == b"EOF"

    run(main())


def test_close_while_paused() -> None:
    async def main() -> None:
        current = lab()
        current.tls.pause_reading()
        current.lower.deliver(current.send(b"unheard"))
        current.tls.close()
        assert not current.lower.reading_paused
        assert not current.tls.is_reading()
        current.tls.pause_reading()
        current.tls.resume_reading()
        assert current.read() == b"EOF"
        current.lower.deliver(current.hangs_up())
        assert await current.upper.lost is None
        assert current.upper.data == b""

    run(main())


def test_what_was_received_is_delivered_before_the_loss() -> None:
    async def main() -> None:
        current = lab()
        current.tls.pause_reading()
        current.lower.deliver(current.send(b"last"))
        reset = ConnectionResetError()
        current.tls.connection_lost(reset)
        assert await current.upper.lost is reset
        assert current.upper.data == b"last"
        assert current.upper.calls == ["connection_made", "data", "connection_lost"]

    run(main())


# Flow control of what is written


def test_flow_control_is_that_of_the_transport_below() -> None:
    async def main() -> None:
        current = Lab(Buffered())
        current.start()
        current.tls.pause_writing()  # by the handshake's flights
        current.shake()
        assert current.upper.calls == []
        current.lower.deliver(current.outgoing.read())
        assert current.upper.calls == ["connection_made", "pause_writing"]
        current.tls.resume_writing()
        assert current.upper.calls == ["connection_made", "pause_writing", "resume_writing"]
        current.lower.buffered = 77
        assert current.tls.get_write_buffer_size() == 77

    run(main())


class Stalling(ssl.SSLObject):
    """Must read before it can write, while ``stalled``, as in a renegotiation."""

    stalled = False

    def write(self, data: Any) -> int:
        if Stalling.stalled:
            raise ssl.SSLWantReadError
        return super().write(data)


def test_a_write_that_needs_a_read() -> None:
    async def main() -> None:
        server, client = fresh()
        server.sslobject_class = Stalling
        current = lab(tls=(server, client))
        tls, upper = current.tls, current.upper
        Stalling.stalled = True
        tls.write(b"1" * 20_000)
        assert upper.calls == ["connection_made", "pause_writing"]
        tls.write(b"2")
        tls.writelines([b"3"])
        assert tls.get_write_buffer_size() == 20_002
        current.lower.deliver(current.send(b"x"))
        assert current.lower.written == []
        assert tls.get_write_buffer_size() == 20_002
        tls.close()
        assert current.lower.written == []
        Stalling.stalled = False
        current.lower.deliver(current.send(b"x"))
        assert upper.calls == ["connection_made", "pause_writing", "data", "resume_writing"]
        assert current.read() == b"1" * 20_000 + b"23EOF"
        current.lower.deliver(current.hangs_up())
        assert await upper.lost is None

    run(main())


def test_a_write_that_fails() -> None:
    class Failing(ssl.SSLObject):
        def write(self, data: Any) -> int:
            if len(data) < RECORD:
                raise ssl.SSLError("no")
            return super().write(data)

    async def main() -> None:
        server, client = fresh()
        server.sslobject_class = Failing
        current = lab(tls=(server, client))
        current.tls.write(bytes(RECORD + 1))
        assert isinstance(await current.upper.lost, ssl.SSLError)
        assert current.read() == bytes(RECORD)

    run(main())


# The end


@VERSIONS
def test_close(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        current = lab(tls=fresh(version))
        current.tls.write(b"bye")
        current.tls.close()
        current.tls.close()
        assert current.tls.is_closing()
        current.tls.write(b"lost")
        current.tls.writelines([b"lost"])
        assert current.read() == b"byeEOF"
        assert not current.lower.closed
        current.lower.deliver(current.hangs_up())
        assert await current.upper.lost is None
        assert current.upper.calls == ["connection_made", "connection_lost"]

    run(main())


@VERSIONS
def test_data_after_close_are_dropped_and_no_error(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        current = lab(tls=fresh(version))
        before = current.send(b"not yet read", bytes(RECORD))
        current.tls.close()
        current.lower.deliver(before[:100])
        current.lower.deliver(before[100:] + current.send(b"more"))
        assert not current.lower.closed
        current.read()
        current.lower.deliver(current.send(b"and more") + current.hangs_up())
        assert await current.upper.lost is None
        assert current.upper.calls == ["connection_made", "connection_lost"]

    run(main())


def test_close_while_fed() -> None:
    def close(upper: Upper, data: bytes) -> None:
        upper.transport.write(b"bye")
        upper.transport.close()
        upper.transport.write(b"lost")

    async def main() -> None:
        current = lab(Narrow(data=close))
        current.lower.deliver(current.send(bytes(100), bytes(100)))
        assert len(current.upper.data) == 7
        assert current.read() == b"byeEOF"
        current.lower.deliver(current.hangs_up())
        assert await current.upper.lost is None

    run(main())


def test_abort_while_fed() -> None:
    async def main() -> None:
        current = lab(Narrow(data=lambda upper, _: upper.transport.abort()))
        current.lower.deliver(current.send(bytes(100)))
        assert len(current.upper.data) == 7
        assert current.lower.aborted
        assert await current.upper.lost is None
        assert current.lower.written == []
        current.tls.close()
        current.tls.write(b"x")
        current.tls.pause_reading()
        current.tls.resume_reading()
        assert current.tls.get_protocol() is None

    run(main())


def test_shutdown_timeout() -> None:
    async def main() -> None:
        current = lab(shutdown_timeout=0.01)
        current.tls.close()
        lost = await current.upper.lost
        assert isinstance(lost, TimeoutError)
        assert str(lost) == "SSL shutdown timed out"
        assert current.lower.aborted

    run(main())


@pytest.mark.parametrize("hangs_up", [True, False])
def test_a_peer_that_takes_nothing_delays_the_end_no_longer(hangs_up: bool) -> None:
    async def main() -> None:
        current = lab(shutdown_timeout=0.01)
        close, current.lower.close = current.lower.close, lambda: None  # type: ignore[method-assign]
        current.lower.deliver(current.hangs_up() if hangs_up else bytes(10))
        current.lower.close = close  # type: ignore[method-assign]
        assert isinstance(await current.upper.lost, TimeoutError if hangs_up else ssl.SSLError)

    run(main())


def test_a_failed_handshake_ends_although_the_peer_takes_nothing() -> None:
    async def main() -> None:
        lab = Lab(Buffered(), handshake_timeout=0.01, shutdown_timeout=0.01)
        lab.start()
        close, lab.lower.close = lab.lower.close, lambda: None  # type: ignore[method-assign]
        lab.lower.deliver(b"GET / HTTP/1.1\r\n\r\n")
        lab.lower.close = close  # type: ignore[method-assign]
        await lab.lower.lost
        assert lab.lower.aborted
        assert len(lab.outcome) == 1

    run(main())


@VERSIONS
def test_the_peer_closes(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        upper = Buffered(eof_received=lambda upper: upper.transport.write(b"last") or True)
        current = lab(upper, tls=fresh(version))
        current.lower.deliver(current.send(b"data") + current.hangs_up())
        assert current.upper.calls == ["connection_made", "data", "eof_received"]
        assert current.read() == b"lastEOF"
        assert await current.upper.lost is None

    run(main())


def test_a_truncated_stream() -> None:
    async def main() -> None:
        upper = Buffered(eof_received=lambda upper: upper.transport.write(b"last"))
        current = lab(upper)
        current.lower.deliver(current.send(b"data") + current.send(b"half")[:-1])
        assert not current.tls.eof_received()
        assert isinstance(await upper.lost, ssl.SSLEOFError)
        assert upper.calls == ["connection_made", "data", "eof_received", "connection_lost"]
        assert upper.data == b"data"
        assert current.read() == b"last"

    run(main())


def test_eof_after_close_is_no_error() -> None:
    async def main() -> None:
        current = lab()
        current.tls.close()
        assert not current.tls.eof_received()
        current.lower.close()
        assert await current.upper.lost is None
        assert not current.tls.eof_received()

    run(main())


@VERSIONS
@pytest.mark.parametrize("clogged", [False, True])
def test_a_bad_record(version: ssl.TLSVersion, clogged: bool) -> None:
    async def main() -> None:
        current = lab(tls=fresh(version))
        good, bad = current.send(b"good"), bytearray(current.send(b"bad"))
        bad[-1] ^= 1
        current.lower.buffered = clogged
        current.lower.deliver(good + bad)
        assert isinstance(await current.upper.lost, ssl.SSLError)
        assert current.upper.data == b"good"
        assert current.upper.calls == ["connection_made", "data", "connection_lost"]
        assert current.lower.aborted == clogged
        if not clogged:
            with pytest.raises(ssl.SSLError, match="(?i)alert bad record mac"):
                current.read()

    run(main())


def test_a_bad_record_after_close() -> None:
    async def main() -> None:
        current = lab()
        bad = bytearray(current.send(b"bad"))
        bad[-1] ^= 1
        current.tls.close()
        current.lower.deliver(bytes(bad))
        assert await current.upper.lost is None

    run(main())


def test_a_bad_record_before_close() -> None:
    async def main() -> None:
        current = lab()
        bad = bytearray(current.send(b"bad"))
        bad[-1] ^= 1
        current.tls.pause_reading()
        current.lower.deliver(bytes(bad))
        current.tls.close()
        assert await current.upper.lost is None

    run(main())


# Against others


@contextlib.asynccontextmanager
async def server_of_ours(factory: Callable[[], Any], context: ssl.SSLContext, **options: Any) -> AsyncIterator[int]:
    """Yields its port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: TLSTransport(loop, factory(), context, server_side=True, **options), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1]


async def client_of_ours(
    upper: Any, port: int, context: ssl.SSLContext, *, server_hostname: str = "localhost", **options: Any
) -> TLSTransport:
    """A connection, or what its handshake raises."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def on_handshake(exc: BaseException | None) -> None:
        if exc is None:
            done.set_result(None)
        else:
            done.set_exception(exc)

    _, tls = await loop.create_connection(
        lambda: TLSTransport(
            loop,
            upper,
            context,
            server_side=False,
            server_hostname=server_hostname,
            on_handshake=on_handshake,
            **options,
        ),
        "127.0.0.1",
        port,
    )
    await done
    return tls


async def stream_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Echo(Buffered):
    """Stops the peer that does not read."""

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()


@VERSIONS
@pytest.mark.parametrize("kind", [Echo, functools.partial(Flat, data=echo)])
def test_asyncio_client(version: ssl.TLSVersion, kind: Any) -> None:
    uppers: list[Any] = []

    def factory() -> Any:
        uppers.append(kind())
        return uppers[-1]

    async def main() -> None:
        server, client = fresh(version)
        async with server_of_ours(factory, server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
            writer.write(BIG)
            assert await reader.readexactly(len(BIG)) == BIG
            writer.close()
            await writer.wait_closed()
            assert await uppers[0].lost is None
            assert uppers[0].calls[-2:] == ["eof_received", "connection_lost"]

    run(main(), limit=60)


@VERSIONS
def test_asyncio_server(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        server_context, client_context = fresh(version)
        server = await asyncio.start_server(stream_echo, "127.0.0.1", 0, ssl=server_context)
        async with server:
            upper = Buffered()
            tls = await client_of_ours(upper, server.sockets[0].getsockname()[1], client_context)
            tls.write(BIG)
            await until(lambda: upper.data.endswith(BIG[-100:]) and len(upper.data) == len(BIG))
            assert upper.data == BIG
            tls.close()
            assert await upper.lost is None

    run(main(), limit=60)


def test_ours_both_ways() -> None:
    async def main() -> None:
        server_context, client_context = contexts()
        upper = Buffered()
        async with server_of_ours(Echo, server_context) as port:
            tls = await client_of_ours(upper, port, client_context)
            assert tls.get_extra_info("peername") == ("127.0.0.1", port)
            tls.write(b"hello")
            await until(lambda: upper.data == b"hello")
            tls.close()
            assert await upper.lost is None

    run(main())


def test_a_client_is_told_why() -> None:
    async def main() -> None:
        server_context, client_context = contexts()
        upper = Buffered()
        async with server_of_ours(Buffered, server_context) as port:
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                await client_of_ours(upper, port, client_context, server_hostname="example.com")
            assert upper.calls == []

    run(main())


def test_a_slow_reader_stops_us() -> None:
    uppers: list[Any] = []

    def factory() -> Any:
        uppers.append(Echo())
        return uppers[-1]

    async def main() -> None:
        server_context, client_context = contexts()
        async with server_of_ours(factory, server_context) as port:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context, server_hostname="localhost", limit=1000
            )
            writer.write(BIG)
            await until(lambda: bool(uppers) and "pause_writing" in uppers[0].calls)
            tls = uppers[0].transport
            assert 2**16 < tls.get_write_buffer_size() < 2**18
            assert await reader.readexactly(len(BIG)) == BIG
            assert "resume_writing" in uppers[0].calls
            assert tls.get_write_buffer_size() == 0
            writer.close()
            await writer.wait_closed()
            await uppers[0].lost

    run(main(), limit=60)


def in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    return asyncio.get_running_loop().run_in_executor(None, work)


@VERSIONS
@pytest.mark.parametrize("unwraps", [True, False])
def test_blocking_client(version: ssl.TLSVersion, unwraps: bool) -> None:
    uppers: list[Any] = []

    def factory() -> Any:
        uppers.append(Echo())
        return uppers[-1]

    async def main() -> None:
        server_context, client_context = fresh(version)
        async with server_of_ours(factory, server_context) as port:

            def work() -> None:
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    with client_context.wrap_socket(raw, server_hostname="localhost") as sock:
                        for size in (1, 1000, 50_000):
                            sock.sendall(BIG[:size])
                            data = b""
                            while len(data) < size:
                                data += sock.recv(size)
                            assert data == BIG[:size]
                        if unwraps:
                            sock.unwrap()

            await in_thread(work)
            lost = await uppers[0].lost
            assert (lost is None) == unwraps
            assert uppers[0].calls == ["connection_made", "eof_received", "connection_lost"]

    run(main())


@VERSIONS
def test_blocking_server(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        server_context, client_context = fresh(version)
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def work() -> None:
                raw, _ = listener.accept()
                with server_context.wrap_socket(raw, server_side=True) as sock:
                    assert sock.recv(100) == b"ping"
                    sock.sendall(b"pong")
                    assert sock.recv(100) == b""
                    sock.unwrap().close()

            done = in_thread(work)
            upper = Buffered(data=lambda upper, _: upper.transport.close())
            tls = await client_of_ours(upper, listener.getsockname()[1], client_context)
            tls.write(b"ping")
            await done
            assert await upper.lost is None
            assert upper.data == b"pong"

    run(main())


def test_tls_within_tls() -> None:
    async def main() -> None:
        server_context, client_context = contexts()
        loop = asyncio.get_running_loop()
        inner_server = functools.partial(Flat, data=echo)
        async with server_of_ours(
            lambda: TLSTransport(loop, inner_server(), server_context, server_side=True), server_context
        ) as port:
            upper = Buffered()
            inner = TLSTransport(loop, upper, client_context, server_side=False, server_hostname="localhost")
            await client_of_ours(inner, port, client_context)
            await until(lambda: bool(upper.calls))
            upper.transport.write(BIG)
            await until(lambda: len(upper.data) == len(BIG))
            assert upper.data == BIG
            upper.transport.close()
            assert await upper.lost is None

    run(main(), limit=60)


def calls_of_asyncio_and_ours(
    work: Callable[[ssl.SSLSocket], None], version: ssl.TLSVersion, **hooks: Callable[..., object]
) -> tuple[list[Any], list[Any]]:
    """What a server's protocol is told, by asyncio's TLS and by ours, when a client does this."""

    async def main() -> tuple[list[Any], list[Any]]:
        loop = asyncio.get_running_loop()
        server_context, client_context = fresh(version)
        calls = []
        for ours in (False, True):
            uppers: list[Any] = []

            def factory(uppers: list[Any] = uppers, ours: bool = ours) -> Any:
                uppers.append(Flat(**hooks))
                if ours:
                    return TLSTransport(loop, uppers[-1], server_context, server_side=True)
                return uppers[-1]

            server = await loop.create_server(factory, "127.0.0.1", 0, ssl=None if ours else server_context)
            port = server.sockets[0].getsockname()[1]

            def client(port: int = port) -> None:
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    with client_context.wrap_socket(raw, server_hostname="localhost") as sock:
                        work(sock)

            async with server:
                await in_thread(client)
                lost = await uppers[0].lost
                calls.append([*uppers[0].calls, uppers[0].data, type(lost)])
        return calls[0], calls[1]

    return run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio's TLS was another one")
@VERSIONS
def test_calls_are_those_of_asyncio(version: ssl.TLSVersion) -> None:
    def polite(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        sock.unwrap()

    theirs, ours = calls_of_asyncio_and_ours(polite, version, data=echo)
    assert ours == theirs == ["connection_made", "data", "eof_received", "connection_lost", b"hello", type(None)]

    def server_closes(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"hello")
        assert sock.recv(100) == b""
        sock.unwrap()

    theirs, ours = calls_of_asyncio_and_ours(server_closes, version, data=lambda upper, _: upper.transport.close())
    assert theirs == ["connection_made", "data", "eof_received", "connection_lost", b"hello", type(None)]
    assert ours == ["connection_made", "data", "connection_lost", b"hello", type(None)]

    def truncates(sock: ssl.SSLSocket) -> None:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"

    theirs, ours = calls_of_asyncio_and_ours(truncates, version, data=echo)
    if LOOP == "asyncio":  # uvloop does not tell of the EOF, as it may not be the peer's
        assert theirs == ["connection_made", "data", "eof_received", "connection_lost", b"hello", type(None)]
    assert ours == ["connection_made", "data", "eof_received", "connection_lost", b"hello", ssl.SSLEOFError]


@contextlib.asynccontextmanager
async def openssl(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    if shutil.which("openssl") is None:
        missing("openssl is not installed")
    process = await asyncio.create_subprocess_exec(
        "openssl",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.external
@pytest.mark.parametrize("command", [b"K", b"k"])
def test_key_update(command: bytes) -> None:
    """RFC 8446 4.6.3; with K we are asked to update our own keys too."""
    uppers: list[Any] = []

    def factory() -> Any:
        uppers.append(Buffered(data=echo))
        return uppers[-1]

    async def main() -> None:
        server_context, _ = contexts()
        async with server_of_ours(factory, server_context) as port:
            async with openssl("s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3") as process:
                assert process.stdin is not None
                assert process.stdout is not None
                await process.stdout.readuntil(b"Verify return code")
                process.stdin.write(b"before\n")
                await process.stdout.readuntil(b"before\n")
                process.stdin.write(command + b"\n")
                await process.stdout.readuntil(b"KEYUPDATE\n")
                process.stdin.write(b"after\n")
                await process.stdout.readuntil(b"after\n")
                process.stdin.write(b"Q\n")
                await uppers[0].lost
        assert uppers[0].data == b"before\nafter\n"

    run(main())


@pytest.mark.external
def test_renegotiation(tmp_path: Any) -> None:
    """TLS 1.2: the server asks for a new handshake, in which nothing can be written. RFC 5246 7.4.1.1."""
    import trustme

    async def main() -> None:
        authority = trustme.CA()
        identity = tmp_path / "identity.pem"
        identity.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        client_context = ssl.create_default_context()
        client_context.maximum_version = ssl.TLSVersion.TLSv1_2
        client_context.options &= ~ssl.OP_NO_RENEGOTIATION
        authority.configure_trust(client_context)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with openssl("s_server", "-accept", str(port), "-cert", str(identity), "-tls1_2") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdout.readuntil(b"ACCEPT\n")
            upper = Buffered()
            tls = await client_of_ours(upper, port, client_context)
            tls.write(b"before\n")
            await process.stdout.readuntil(b"before\n")
            process.stdin.write(b"r\n")
            lines = 0
            while "pause_writing" not in upper.calls:
                if lines % 100 == 99:
                    process.stdin.write(b"r\n")
                tls.write(b"<%d>\n" % lines)
                lines += 1
                await asyncio.sleep(0)
            tls.write(b"end\n")
            output = await process.stdout.readuntil(b"end\n")
            assert re.findall(rb"<(\d+)>", output) == [b"%d" % n for n in range(lines)]
            await until(lambda: upper.calls[-1] == "resume_writing")
            process.stdin.write(b"reply\n")
            await until(lambda: upper.data == b"reply\n")
            tls.abort()
            await upper.lost

    run(main())
