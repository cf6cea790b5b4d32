"""TLS between a transport and a protocol: records in, plaintext out, and the reverse.

Knows handshakes, records and TLS's way to end a connection; knows no WebSocket, and no socket. The transport below is
asyncio's or one with the same interface; so is the protocol above. It does less than asyncio's own TLS: one buffer for
all connections of a thread, decryption straight into the protocol's memory, and one write for all that the protocol
writes while it is given what one read brought.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._compat import WRITELINES_IS_SAFE

__all__ = ["TLSTransport"]

#: What one read of the transport below may bring, and so what may be held while reading is paused. With half of it an
#: echo of 100 KiB costs 5 to 10 % more.
_READ_SIZE = 2**17
#: The most plaintext in a record (RFC 8446 5.1), and the most that is encrypted at once: OpenSSL's memory BIOs never
#: shrink, an idle connection keeps 4/3 of the most that was ever in them.
_RECORD = 2**14
#: Output of a protocol that is being fed may wait until it has this size.
_CORK_SIZE = 2**17

#: As asyncio's.
_HANDSHAKE_TIMEOUT = 60.0
_SHUTDOWN_TIMEOUT = 30.0
#: asyncio's words for a server's connection that never came to be.
_NOT_CREATED = "Error on transport creation for incoming connection"
#: And of a protocol that raises.
_FATAL = "Fatal error on SSL protocol"

# The states of a connection, each with what may follow.
_NEW = 0  # HANDSHAKE
_HANDSHAKE = 1  # OPEN, CLOSED
_OPEN = 2  # CLOSING, CLOSED
_CLOSING = 3  # CLOSED: no more data to or from the protocol; our close_notify is sent as soon as TLS allows it
_CLOSED = 4  # the transport below is closed or closing


class _Buffers(threading.local):
    """Memory that all connections of a thread share, each for the time of one call: a loop has one thread."""

    def __init__(self) -> None:
        #: What the transport below reads into.
        self.records = memoryview(bytearray(_READ_SIZE))
        #: Decrypted for protocols that have no buffers, and what nobody wants.
        self.plaintext = memoryview(bytearray(_READ_SIZE))


_buffers = _Buffers()


class _Core:
    """All of TLSTransport but for its place among asyncio's classes, which a compiled class cannot take."""

    __slots__ = (
        *("_loop", "_protocol", "_buffered", "_context", "_lower", "_ssl", "_incoming", "_outgoing", "_server_side"),
        *("_state", "_established", "_on_handshake", "_handshake_timeout", "_shutdown_timeout", "_timer", "_error"),
        *("_paused", "_more", "_eof", "_corked", "_queue", "_queued", "_stalled", "_lower_full", "_told_full"),
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        handshake_timeout: float | None = None,
        shutdown_timeout: float | None = None,
        on_handshake: Callable[[BaseException | None], object] | None = None,
    ) -> None:
        """``on_handshake`` is called once: with None after the protocol's ``connection_made``, or with what went wrong;
        then the protocol is never called. Timeouts are seconds, asyncio's defaults if None.

        An empty ``server_hostname`` switches the check of the name off, as asyncio's does; None does not. Raises
        ValueError for a name or a timeout that cannot be, and what ``context.wrap_bio`` raises.
        """
        if not server_side and server_hostname is None and context.check_hostname:
            raise ValueError("check_hostname requires server_hostname")
        self._loop = loop
        self._protocol: Any
        self._context = context
        self._lower: Any = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl: Any = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname or None
        )
        self._server_side = server_side
        self._state = _NEW
        #: The protocol has been told that there is a connection, and not yet that it is lost.
        self._established = False
        self._on_handshake = on_handshake
        self._handshake_timeout = _seconds("ssl_handshake_timeout", handshake_timeout, _HANDSHAKE_TIMEOUT)
        self._shutdown_timeout = _seconds("ssl_shutdown_timeout", shutdown_timeout, _SHUTDOWN_TIMEOUT)
        #: For the handshake, then for the end.
        self._timer: asyncio.TimerHandle | None = None
        #: Why the connection ended, if the transport below does not know.
        self._error: BaseException | None = None
        #: The protocol wants nothing now; something may be left to decrypt; the transport below has no more.
        self._paused = False
        self._more = False
        self._eof = False
        #: The protocol is being called, so that what it writes waits in the queue.
        self._corked = False
        self._queue: list[bytes] = []
        self._queued = 0
        #: TLS must read before it can write.
        self._stalled = False
        #: The transport below is over its high mark; the protocol has been told to stop writing.
        self._lower_full = False
        self._told_full = False
        self.set_protocol(protocol)

    def __repr__(self) -> str:
        side = "server" if self._server_side else "client"
        state = ("new", "handshake", "open", "closing", "closed")[self._state]
        return f"<{type(self).__name__} {side} {state} {self._ssl.version() or '-'} over {self._lower!r}>"

    # The handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport below is connected: shake hands."""
        self._lower = transport
        self._state = _HANDSHAKE
        self._timer = self._loop.call_later(self._handshake_timeout, self._on_handshake_timeout)
        self._shake_hands()

    def _shake_hands(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except Exception as exc:
            self._fail_handshake(exc)
        else:
            self._open()

    def _open(self) -> None:
        """The handshake is done. The peer's first data may be there already; our last flight leaves with our first."""
        self._stop_timer()
        self._state = _OPEN
        self._established = True
        self._corked = True
        try:
            self._protocol.connection_made(self)
            self._report_handshake(None)
            self._tell_if_full()
        except Exception as exc:
            self._fatal(exc)
            self._report_handshake(exc)
        finally:
            self._corked = False
        self._feed()

    def _report_handshake(self, exc: BaseException | None) -> None:
        on_handshake, self._on_handshake = self._on_handshake, None
        if on_handshake is not None:
            on_handshake(exc)

    def _fail_handshake(self, exc: BaseException) -> None:
        self._stop_timer()
        self._end_with_alert()
        self._report_handshake(exc)
        if self._server_side and self._loop.get_debug():
            self._complain(exc, _NOT_CREATED)

    def _on_handshake_timeout(self) -> None:
        self._fail_handshake(
            ConnectionAbortedError(
                f"SSL handshake is taking longer than {self._handshake_timeout} seconds: aborting the connection"
            )
        )

    # Records in: asyncio.BufferedProtocol for the transport below

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffers.records

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(_buffers.records[:nbytes])
        if self._state == _OPEN:
            self._feed()
        elif self._state == _HANDSHAKE:
            self._shake_hands()
        elif self._state == _CLOSING:
            self._settle()

    def _feed(self) -> None:
        """Give the protocol what has come, then send what it has written meanwhile."""
        self._corked = True
        try:
            self._read()
        finally:
            self._corked = False
        self._settle()

    def _read(self) -> None:
        """Decrypt what is there and hand it to the protocol, until it pauses or closes."""
        more = True
        while more and self._state == _OPEN and not self._paused:
            try:
                more = self._read_once()
            except Exception as exc:
                self._fatal(exc)
        self._more = more

    def _read_once(self) -> bool:
        """Fill one buffer of the protocol as far as possible. Whether there may be more to read."""
        incoming = self._incoming
        buffer = self._protocol.get_buffer(incoming.pending) if self._buffered else _buffers.plaintext
        if type(buffer) is not memoryview:
            buffer = memoryview(buffer)
        size = len(buffer)
        if not size:
            raise RuntimeError("get_buffer() returned an empty buffer")
        filled = 0
        ended = more = False
        error = None
        try:
            while True:
                count = self._ssl.read(size - filled, buffer[filled:] if filled else buffer)
                if not count:
                    ended = True
                    break
                filled += count
                if filled == size:
                    more = incoming.pending > 0 or self._ssl.pending() > 0
                    break
                if not incoming.pending:  # a read that finds nothing costs an exception
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            error = exc.with_traceback(None)  # which would keep all of us alive
        del buffer
        if filled and self._buffered:
            self._protocol.buffer_updated(filled)
        elif filled:
            self._protocol.data_received(bytes(_buffers.plaintext[:filled]))
        if error is not None:
            self._fatal(error)
        elif ended and self._state == _OPEN:
            if self._paused:
                return True
            self._protocol.eof_received()
            self.close()
        return more

    def _settle(self) -> None:
        """Send what has been written, and what TLS itself wants to send; then go on with the end, if it is that."""
        if self._state == _CLOSED:
            return
        ended = self._state == _CLOSING and self._drop_incoming()
        if self._queue:
            self._stalled = False
            self._flush()
        if self._outgoing.pending:
            self._send()
        if self._state == _CLOSING:
            if not self._queue:
                ended = self._notify()
            if ended or self._eof:
                self._close_lower()

    def eof_received(self) -> bool:
        """There is nothing more from the transport below. True: it is to stay open, as the protocol has paused."""
        self._eof = True
        if self._state == _HANDSHAKE:
            self._fail_handshake(ConnectionResetError("connection closed in the TLS handshake"))
        elif self._state == _OPEN:
            if self._paused:
                return True
            self._truncated()
        return False

    def _truncated(self) -> None:
        """The peer's stream has ended without a close_notify: all of it may not have come (RFC 8446 6.1)."""
        self._error = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        self._corked = True
        try:
            self._protocol.eof_received()
        except Exception as exc:
            self._fatal(exc)
        finally:
            self._corked = False
        self._settle()
        self._close_lower()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport below is gone. What it had brought before, the protocol is given still."""
        if self._state == _OPEN and self._more:
            self._paused = False
            self._feed()
        self._stop_timer()
        self._state = _CLOSED
        self._queue.clear()
        self._queued = 0
        if self._established:
            self._established = False
            protocol, self._protocol = self._protocol, None
            protocol.connection_lost(self._error or exc)
        elif self._on_handshake is not None:
            self._report_handshake(exc or ConnectionAbortedError("connection lost in the TLS handshake"))

    # Records out

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is not bytes:
            data = _as_bytes(data)
        if data and self._state == _OPEN:
            self._queue.append(data)
            self._queued += len(data)
            if not self._corked or self._queued >= _CORK_SIZE:
                self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        chunks = [_as_bytes(data) for data in list_of_data if len(data)]
        if chunks and self._state == _OPEN:
            self._queue += chunks
            self._queued += sum(map(len, chunks))
            if not self._corked or self._queued >= _CORK_SIZE:
                self._flush()

    def _flush(self) -> None:
        """Encrypt the queue and hand it to the transport below."""
        if self._stalled:
            return
        chunks, self._queue = self._queue, []
        size, self._queued = self._queued, 0
        if size > _RECORD:
            self._encrypt(_pieces(chunks))
        else:
            self._encrypt(iter((chunks[0] if len(chunks) == 1 else b"".join(chunks),)))

    def _encrypt(self, pieces: Iterator[bytes | memoryview]) -> None:
        records: list[bytes] = []
        error = None
        for piece in pieces:
            try:
                self._ssl.write(piece)
            except ssl.SSLWantReadError:
                # Memory BIOs take all that is written to them, so it is a renegotiation (RFC 5246 7.4.1.1).
                self._queue = [bytes(piece), *map(bytes, pieces)]
                self._queued = sum(map(len, self._queue))
                self._stalled = True
                break
            except Exception as exc:
                error = exc
                break
            records.append(self._outgoing.read())
        if records:  # only now: who is told to stop writing may write or close
            self._write_records(records)
        if error is not None:
            self._fatal(error)
        self._tell_if_full()

    def _write_records(self, records: list[bytes]) -> None:
        if len(records) == 1:
            self._lower.write(records[0])
        elif WRITELINES_IS_SAFE:
            self._lower.writelines(records)
        else:  # pragma: no cover (some releases of Python)
            self._lower.write(b"".join(records))

    def _send(self) -> None:
        records = self._outgoing.read()
        if records:
            self._lower.write(records)

    # Flow control

    def pause_writing(self) -> None:
        self._lower_full = True
        self._tell_if_full()

    def resume_writing(self) -> None:
        self._lower_full = False
        self._tell_if_full()

    def _tell_if_full(self) -> None:
        full = self._lower_full or self._stalled
        if full != self._told_full and self._established:
            self._told_full = full
            if full:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Those of the transport below: they are about encrypted bytes."""
        self._lower.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        limits: tuple[int, int] = self._lower.get_write_buffer_limits()
        return limits

    def get_write_buffer_size(self) -> int:
        """All bytes that were accepted and that the operating system does not have yet."""
        size: int = self._lower.get_write_buffer_size()
        return self._queued + size

    def is_reading(self) -> bool:
        return self._state == _OPEN and not self._paused

    def pause_reading(self) -> None:
        """Stop decrypting. At most one read of the transport below is held."""
        if self._state == _OPEN and not self._paused:
            self._paused = True
            if not self._eof:
                self._lower.pause_reading()

    def resume_reading(self) -> None:
        if self._state == _OPEN and self._paused:
            self._paused = False
            if not self._eof:
                self._lower.resume_reading()
            self._loop.call_soon(self._go_on_reading)

    def _go_on_reading(self) -> None:
        if self._state == _OPEN and not self._paused:
            if self._more:
                self._feed()
            if self._eof and self._state == _OPEN and not self._paused:
                self._truncated()

    # The end

    def is_closing(self) -> bool:
        return self._state >= _CLOSING

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Send what was written and a close_notify, and close the transport below when the peer's has come or the
        shutdown timeout has passed. What comes in from now on is dropped."""
        if self._state < _OPEN:
            self.abort()
        elif self._state == _OPEN:
            self._state = _CLOSING
            self._timer = self._loop.call_later(self._shutdown_timeout, self._on_shutdown_timeout)
            if self._paused and not self._eof:
                self._lower.resume_reading()
            self._paused = False
            if not self._corked:
                self._settle()

    def _drop_incoming(self) -> bool:
        """Drop what has come. Whether it was the end. OpenSSL takes data after a close_notify for an error, unless they
        are read."""
        buffer = _buffers.plaintext
        try:
            while self._ssl.read(len(buffer), buffer):
                pass
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:  # the peer's close_notify after ours; or else TLS is at its end anyway
            pass
        return True

    def _notify(self) -> bool:
        """Send our close_notify, once. Whether the peer's is there."""
        try:
            self._ssl.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            return False
        except ssl.SSLError:
            pass
        finally:
            self._send()
        return True

    def _close_lower(self) -> None:
        """Let the transport below send what it has, and close it."""
        self._state = _CLOSED
        if self._timer is None:
            self._timer = self._loop.call_later(self._shutdown_timeout, self._on_shutdown_timeout)
        self._lower.close()

    def _on_shutdown_timeout(self) -> None:
        self._error = self._error or TimeoutError("SSL shutdown timed out")
        self._state = _CLOSED
        self._lower.abort()

    def abort(self) -> None:
        self._state = _CLOSED
        if self._lower is not None:
            self._lower.abort()

    def _fatal(self, exc: BaseException) -> None:
        """The connection cannot go on."""
        self._error = exc
        self._end_with_alert()
        if not isinstance(exc, OSError):
            self._complain(exc, _FATAL)

    def _end_with_alert(self) -> None:
        """Close without waiting for the peer. It gets the alert that TLS has for it, unless it has stopped reading."""
        self._state = _CLOSED
        if self._lower.get_write_buffer_size():
            self._lower.abort()
        else:
            self._send()
            self._close_lower()

    def _complain(self, exc: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What else a transport has

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``sslcontext``; after the handshake ``ssl_object``, ``peercert``, ``cipher`` and ``compression``; the rest
        is of the transport below."""
        if name == "sslcontext":
            return self._context
        if self._state >= _OPEN:
            if name == "ssl_object":
                return self._ssl
            if name in ("peercert", "cipher", "compression"):
                with contextlib.suppress(ValueError):  # the handshake has failed
                    return getattr(self._ssl, "getpeercert" if name == "peercert" else name)()
        return default if self._lower is None else self._lower.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)


def _seconds(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


def _as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """What may change after the call is copied."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")


def _pieces(chunks: list[bytes]) -> Iterator[bytes | memoryview]:
    """The chunks in pieces of at most a record: small ones joined, large ones cut and not copied."""
    small: list[bytes] = []
    size = 0
    for chunk in chunks:
        if size and size + len(chunk) > _RECORD:
            yield b"".join(small)
            small = []
            size = 0
        if len(chunk) <= _RECORD:
            small.append(chunk)
            size += len(chunk)
        else:
            view = memoryview(chunk)
            for start in range(0, len(chunk), _RECORD):
                yield view[start : start + _RECORD]
    if small:
        yield b"".join(small)


class TLSTransport(_Core, asyncio.BufferedProtocol):
    """A TLS connection: the protocol of the transport below, which starts it with ``connection_made``, and the
    transport of ``protocol``.

    To ``protocol``, an asyncio.Protocol or asyncio.BufferedProtocol, it is what asyncio's TLS transport is, but that

    * ``get_write_buffer_size`` hides nothing;
    * a stream that ends without the peer's close_notify gives ``eof_received`` and ``connection_lost(SSLEOFError)``;
    * nothing but ``connection_lost`` comes after ``close``, and data of the peer then are no error;
    * a failure sends the alert that says why.
    """

    __slots__ = ("__weakref__",)
