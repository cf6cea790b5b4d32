# cython: nonecheck=True
"""The hot half of a connection: from the socket to the thread that waits for a message, and whole messages to it.

Knows which thread reads, what waits in which queue, and when somebody must wait; knows no protocol. ``_lock`` guards
everything here. It is only held to compute, and for system calls that do not wait: a thread that waits has let it go.

One thread at a time reads: the one in ``recv``, else the poller (see ``_poller``), which calls the methods at the end.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
from typing import Any, NoReturn

from .._payloads import DataLike
from .._settings import Settings
from ..connection import Connection as Engine
from ..constants import BINARY, CORK_SIZE, TEXT, CloseTransport, SendStatus
from ..events import Event, Fragment, Message
from ..exceptions import ConcurrencyError, ConnectionClosed, InvalidState, LocalProtocolError
from ..prepared import PreparedMessage
from ._native import TICK, Lock, Wire, monotonic
from ._poller import Entry, poller
from ._tls import TLS

__all__ = ["Core", "Item", "busy", "unwrapped"]

#: A message for ``recv``, a frame that ``recv_streaming`` asked for, or a text that ``recv_json`` wants as bytes.
Item = str | bytes | Fragment | Message

#: The queue of a connection that never had a message to keep: a deque takes 760 bytes.
_EMPTY: collections.deque[Item] = collections.deque()

# Members of an Enum are looked up slowly.
SENT, QUEUED, FULL = SendStatus.SENT, SendStatus.QUEUED, SendStatus.FULL
KEEP = CloseTransport.KEEP

#: How long somebody who waits for a message goes on when another thread closes the connection, in seconds: as a rule
#: the peer's Close frame comes, and the end is a normal one.
_GRACE = 0.5

#: With SO_LINGER, close() drops what was not sent and resets the connection.
_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"


class Core:
    """The hot half of a connection."""

    __slots__ = (
        *("_settings", "_lock", "_engine", "_wire", "_tls", "_opened"),
        *("_queue", "_queue_bytes", "_queue_high", "_queue_bytes_high", "_arrived", "_paused", "_abandoned"),
        *("_reader", "_reads", "_swept", "_candidate", "_streaming", "_raw", "_eof", "_ended", "_changed"),
        *("_unsent", "_unsent_size", "_write_paused", "_write_high", "_write_low", "_fragmenting", "_corks"),
        *("_taker", "_held", "_watchers", "_leaving", "_writable"),
        *("_attended", "_watched", "_entry", "_deadline", "_news", "_users", "_closing_since"),
        *("_close_transport", "_half_closed", "_transport_error", "_lost", "_names", "_sink", "_callback"),
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._engine: Engine
        self._wire: Wire
        self._tls: TLS | None = None
        self._opened = False
        # messages received
        self._queue = _EMPTY
        self._queue_bytes = 0
        self._queue_high = settings.queue_high
        self._queue_bytes_high = settings.queue_bytes
        #: The message that a waiting thread is given: it need not go through the queue.
        self._arrived: str | bytes | None = None
        #: The queue is full, and the engine holds messages back.
        self._paused = False
        self._abandoned = False
        # who reads
        #: The thread that is in recv, or 0.
        self._reader = 0
        #: Counts that; the poller compares it with what it was in its last sweep.
        self._reads = 0
        self._swept = 0
        #: The poller looks at us in its next sweep.
        self._candidate = False
        #: recv_streaming is in the middle of a message, or waits for one.
        self._streaming = False
        #: Texts are wanted as bytes, for ``recv_json``.
        self._raw = False
        self._eof = False
        #: All that was received has been delivered, or the transport is gone.
        self._ended = False
        #: For those who wait for ``_ended`` or ``_lost``.
        self._changed: threading.Condition | None = None
        # messages sent
        #: Bytes taken from the engine that the operating system has not taken.
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        #: Much waits to be sent: ``send`` waits until little does.
        self._write_paused = False
        self._write_high = settings.write_high
        self._write_low = settings.write_high // 4 if settings.write_low is None else settings.write_low
        #: A message is sent in fragments.
        self._fragmenting = False
        #: Blocks of ``cork`` that are open: output waits.
        self._corks = 0
        #: The thread that took the last message. While more wait, what it sends is held, to leave together.
        self._taker = 0
        #: The poller sends what is held in a moment, if that thread does not come back for the next message.
        self._held = False
        #: Groups, and what they are to be told by the poller.
        self._watchers: tuple[Any, ...] = ()
        self._leaving: tuple[Any, ...] = ()
        self._writable = False
        # the poller
        #: It was asked to look at us; it watches the socket; when it is to tell the time.
        self._attended = False
        self._watched = 0
        self._entry: Entry | None = None
        self._deadline: float | None = None
        #: The engine has told something else than messages: its deadline may be another.
        self._news = False
        # the end
        #: Threads in a system call without the lock: until they are out the descriptor must not be closed.
        self._users = 0
        self._closing_since: float | None = None
        self._close_transport = KEEP
        self._half_closed = False
        self._transport_error: Exception | None = None
        #: The transport is closed.
        self._lost = False
        #: The socket's two addresses, once somebody asked or it is closed.
        self._names: tuple[Any, Any] | None = None
        #: Who is called for each message if not ``_on_message``; the callback of our user.
        self._sink: Any = None
        self._callback: Any = settings.on_message

    # What subclasses do

    def _set_raw(self, raw: bool) -> None:
        raise NotImplementedError

    def _on_event(self, event: Event) -> None:
        raise NotImplementedError

    def _on_failure(self, exc: BaseException) -> None:
        """Something of our user's raised this."""
        raise NotImplementedError

    def _on_end(self) -> None:
        """Nothing more will be sent or come, but for what a paused engine still holds. May be told twice."""
        raise NotImplementedError

    def _closed_error(self) -> ConnectionClosed:
        raise NotImplementedError

    def _convert(self, item: Any, decode: bool | None) -> str | bytes:
        raise NotImplementedError

    def _run_callback(self) -> None:
        raise NotImplementedError

    # Receiving

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Any:
        """The next message: ``str`` for text and ``bytes`` for binary; ``decode`` True or False: ``str`` or ``bytes``.

        Waits for ``timeout`` seconds at most, then TimeoutError; 0 takes what is there. Raises ConnectionClosed, and
        ConcurrencyError while another thread is in it or where messages go to ``on_message``.
        """
        self._lock.acquire()
        try:
            if self._reader or self._streaming:
                raise busy("recv")
            if self._raw:
                self._set_raw(False)
            if self._callback is not None:
                raise ConcurrencyError("cannot receive: messages go to on_message")
            item = self._next(timeout)
        finally:
            self._lock.release()
        if decode is None and (type(item) is str or type(item) is bytes):
            return item
        return self._convert(item, decode)

    def _next(self, timeout: float | None) -> Any:
        """What comes next."""
        if not self._queue and self._arrived is None:
            self._check_open()
            if not self._ended:
                self._receive(timeout)
        if self._arrived is not None:
            self._taker = self._lock._owner
            data, self._arrived = self._arrived, None
            return data
        if not self._queue:
            raise self._closed_error()
        return self._take()

    def _receive(self, timeout: float | None) -> None:
        """Read until there is a message, or there will be none."""
        deadline = -1.0 if timeout is None else monotonic() + max(timeout, 0.0)
        if self._engine._writer.size and not self._corks:
            self._flush()  # what was held
        self._reader = self._lock._owner
        self._reads += 1
        try:
            while not self._ended and self._arrived is None and not self._queue:
                if self._closing_since is not None and monotonic() - self._closing_since > _GRACE:
                    raise self._closed_error()
                self._read(deadline)
        finally:
            self._reader = 0
            if not self._candidate and not self._lost:
                self._candidate = True
                poller().left(self)
            if self._ended and not self._lost:
                self._attend()

    def _read(self, deadline: float) -> None:
        """Wait for bytes without the lock, and take them in."""
        wire = self._wire
        in_place = self._tls is None and self._engine.reads_in_place()
        # A view of our own: the engine, at its end, releases the one that it gave.
        view: Any = memoryview(self._engine.get_buffer()) if in_place else None
        data: Any = None
        count = -1
        error: OSError | None = None
        waits = True
        self._users += 1
        self._lock.release()
        try:
            if deadline >= 0:
                waits = wire.wait(False, deadline - monotonic())
            if waits:
                if in_place:
                    count = wire.receive_into(view, deadline < 0)
                else:
                    data = wire.receive(deadline < 0)
        except OSError as exc:
            error = exc
        finally:
            self._lock.acquire()
            self._users -= 1
            if in_place:
                view.release()
        if self._lost:
            self._dispose()
        elif error is not None:
            self._fail_transport(error)
        elif data is not None:
            self._received(data)
        elif count > 0:
            self._engine.buffer_updated(count)
            self._pump()
        elif count == 0:
            self._received(b"")
        elif not waits and monotonic() >= deadline:
            raise TimeoutError("timed out while waiting for a message")

    def _take(self) -> Any:
        self._taker = self._lock._owner
        item: Any = self._queue.popleft()
        self._queue_bytes -= len(item) if type(item) is bytes or type(item) is str else len(item.data)
        if self._paused:
            if len(self._queue) <= self._settings.queue_low and self._queue_bytes <= self._queue_bytes_high // 2:
                self._paused = False
                self._resume_input()
        return item

    def _resume_input(self) -> None:
        """There is room for messages again."""
        self._engine.resume()
        if self._tls is not None:
            self._decrypt()
        self._pump()
        if not self._candidate and not self._lost:
            self._candidate = True
            poller().left(self)

    def _received(self, data: bytes) -> None:
        """Take in what was read, ``b""`` at the end."""
        if self._tls is not None:
            self._tls.feed(data)
            self._decrypt()
        elif data:
            self._engine.receive_data(data)
        else:
            self._end_input()
        self._pump()

    def _decrypt(self) -> None:
        assert self._tls is not None
        try:
            while not self._eof and not (self._engine.paused and self._engine.read_ahead_full):
                data = self._tls.read()
                if data is None:
                    break
                if data:
                    self._engine.receive_data(data)
                else:
                    self._end_input()
        except OSError as exc:
            self._transport_error = exc.with_traceback(None)
            self._end_input()
        self._send_records()

    def _end_input(self) -> None:
        self._eof = True
        self._engine.receive_eof()

    def _on_message(self, data: str | bytes) -> None:
        if self._reader and self._arrived is None and not self._queue:
            self._arrived = data
        else:
            self._put(data, len(data))

    def _put(self, item: Any, size: int) -> None:
        queue = self._queue
        if queue is _EMPTY:
            queue = self._queue = collections.deque()
        queue.append(item)
        self._queue_bytes += size
        if len(queue) >= self._queue_high or self._queue_bytes >= self._queue_bytes_high:
            if self._abandoned:
                queue.pop()
                self._queue_bytes -= size
            else:
                self._pause_input()

    def _pause_input(self) -> None:
        """The queue is full."""
        self._paused = True
        self._engine.pause()

    def _pump(self) -> None:
        """Deliver what the engine has received, then do what follows from it."""
        self._engine.dispatch(self._on_message if self._sink is None else self._sink, self._on_news)
        if self._news:
            self._settle()
        elif self._engine._writer.size:
            self._flush()

    def _on_news(self, event: Event) -> None:
        self._news = True
        self._on_event(event)

    # Sending

    def send(
        self, message: Any, *, text: bool | None = None, compress: bool | None = None, timeout: float | None = None
    ) -> None:
        """Send a message: ``str`` as text, bytes-like as binary, an iterable of either in fragments.

        ``text=True`` sends (UTF-8) bytes as text, ``text=False`` a ``str`` as binary. ``compress`` says whether to
        compress this message, where permessage-deflate was agreed on; None decides by its size. Waits while the peer
        does not read what was sent before, for ``timeout`` seconds at most: then TimeoutError, and nothing of this
        message was sent. In an ``on_message`` of a client it does not wait; that is not called again until the peer has
        read most of what was sent.

        Raises ConnectionClosed; ConcurrencyError while another thread sends a message in fragments; TypeError, for a
        dict too; UnicodeEncodeError when the text has lone surrogates.
        """
        if type(message) is not str and type(message) is not bytes:
            if not isinstance(message, (str, bytes, bytearray, memoryview)):
                self._send_fragments(message, text, compress, timeout)
                return
        deadline = -1.0 if timeout is None else monotonic() + timeout
        self._lock.acquire()
        try:
            if self._write_paused or self._fragmenting or not self._opened:
                self._sendable(deadline)
            try:
                self._send_message(message, text, compress)
            except InvalidState:
                self._raise_closed()
            except LocalProtocolError as exc:
                raise unwrapped(exc) from None
            if self._unsent_size:
                self._drain(deadline)
            if self._half_closed:  # the engine was open, but the system took nothing
                self._raise_closed()
        finally:
            self._lock.release()

    def try_send(self, message: DataLike, *, text: bool | None = None, compress: bool | None = None) -> SendStatus:
        """Send a whole message without waiting: SENT or QUEUED, or FULL, which is false, if ``send`` would wait.

        SENT: the operating system has it. QUEUED: it was taken and follows what waits; that includes all that is sent
        in a block of ``cork``, or between two of the messages that came together. FULL: it was not taken. Raises
        ConnectionClosed, TypeError and UnicodeEncodeError as ``send`` does.
        """
        if not isinstance(message, (str, bytes, bytearray, memoryview)):
            raise TypeError("data must be str or bytes-like")
        self._lock.acquire()
        try:
            if self._write_paused or self._fragmenting:
                return FULL
            self._check_open()
            try:
                self._send_message(message, text, compress)
            except InvalidState:
                raise self._closed_error()  # noqa: B904 (has its cause)
            except LocalProtocolError as exc:
                raise unwrapped(exc) from None
            if self._unsent_size:
                self._attend()
                return QUEUED
            return QUEUED if self._engine._writer.size else SENT
        finally:
            self._lock.release()

    def _send_message(self, message: DataLike, text: bool | None, compress: bool | None) -> None:
        if isinstance(message, str):
            if text is False:
                self._engine.send_message(BINARY, message.encode(), compress)
            else:
                self._engine.send_message(TEXT, message, compress)
        elif text:
            self._engine.send_message(TEXT, bytes(message), compress)
        else:
            self._engine.send_message(BINARY, message, compress)
        if self._engine._writer.size >= CORK_SIZE or not (self._corks or (self._queue and self._is_between())):
            self._flush()

    def _is_between(self) -> bool:
        """Messages are received, and it is who took the one before them that sends: the answers can leave together."""
        if self._lock._owner != self._taker:
            return False
        if not self._held:
            self._held = True
            poller().hold(self)
        return True

    def _send_prepared(self, prepared: PreparedMessage) -> None:
        """Send without waiting. Raises InvalidState when not open; must not be called amid a fragmented message."""
        with self._lock:
            self._engine.send_prepared(prepared)
            self._flush()
            if self._unsent_size:
                self._attend()

    def _send_fragments(self, message: Any, text: bool | None, compress: bool | None, timeout: float | None) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        """Raise InvalidState in the opening handshake."""
        if not self._opened:
            raise InvalidState("the opening handshake is not over")

    def _sendable(self, deadline: float) -> None:
        """Wait until nothing hinders a new message."""
        self._check_open()
        while True:
            if self._fragmenting:
                raise ConcurrencyError("cannot call send while another thread is already running send")
            if not self._write_paused or not self._engine.is_open or poller().is_here():
                return
            if 0 <= deadline <= monotonic():
                raise TimeoutError("timed out while waiting for the peer to read")
            self._await_writable(deadline)

    def _drain(self, deadline: float) -> None:
        """A message was taken; wait until not too much of it waits. Its time may run out: the poller sends the rest."""
        try:
            while self._write_paused and self._engine.is_open and not 0 <= deadline <= monotonic():
                if poller().is_here():
                    break  # all connections wait for it
                self._await_writable(deadline)
        finally:
            if self._unsent_size:
                self._attend()

    def _await_writable(self, deadline: float) -> None:
        """Wait a while, without the lock, for the socket to take more; then give it more."""
        self._users += 1
        self._lock.release()
        try:
            with contextlib.suppress(OSError):
                self._wire.wait(True, TICK if deadline < 0 else deadline - monotonic())
        finally:
            self._lock.acquire()
            self._users -= 1
            if self._lost:
                self._dispose()
        self._settle()

    def _raise_closed(self) -> NoReturn:
        """The engine takes no message. Its reason is known when what was received has been delivered."""
        if not self._ended and not poller().is_here():
            self._attend()
            self._wait_for(self._is_over, _GRACE)
        raise self._closed_error()

    def _is_over(self) -> bool:
        return self._ended

    @property
    def buffered_amount(self) -> int:
        """How many bytes were accepted for sending, framed and perhaps compressed, that the operating system does not
        have yet."""
        if not self._opened or self._lost:
            return 0
        return self._engine.output_size + self._unsent_size

    # Output

    def _flush(self) -> None:
        """Give all output to the operating system, as far as it takes it now."""
        if self._unsent_size and not self._send_unsent():
            self._weigh()
            return
        if not self._engine._writer.size:
            self._weigh()
            return
        chunks = self._engine.data_to_send()
        if self._half_closed or self._lost:
            return
        if self._tls is None and len(chunks) == 1:
            data: bytes = chunks[0]
            try:
                sent = self._wire.send(data, 0)
            except OSError as exc:
                self._fail_output(exc)
                return
            if sent == len(data):
                if self._write_paused:
                    self._weigh()
                return
            self._unsent.append(data[sent:] if sent else data)
            self._unsent_size = len(data) - sent
        else:
            self._send_chunks(chunks)
        self._weigh()

    def _weigh(self) -> None:
        """Has too much come to wait, or does little wait again?"""
        waiting = self._unsent_size + self._engine._writer.size
        if not self._write_paused:
            if waiting > self._write_high:
                self._on_full()
        elif waiting <= self._write_low:
            self._write_paused = False
            self._on_writable()

    def _send_chunks(self, chunks: list[bytes]) -> None:
        """What is not the usual case: TLS, and large payloads that stand apart from their headers."""
        if self._tls is None:
            self._unsent += chunks
            self._unsent_size = sum([len(chunk) for chunk in chunks])
            self._send_unsent()
            return
        try:
            for chunk in chunks:
                self._tls.write(chunk)
        except OSError as exc:
            self._fail_output(exc)
            return
        self._send_records()

    def _send_records(self) -> None:
        """Send what TLS made of it."""
        assert self._tls is not None
        records = self._tls.take()
        if records and not self._lost:
            self._unsent.append(records)
            self._unsent_size += len(records)
            self._send_unsent()

    def _send_unsent(self) -> bool:
        """Whether all of it is gone."""
        unsent = self._unsent
        done = 0
        try:
            for data in unsent:
                sent = self._wire.send(data, 0)
                self._unsent_size -= sent
                if sent < len(data):
                    unsent[done] = data[sent:] if sent else data
                    break
                done += 1
        except OSError as exc:
            self._fail_output(exc)
            return False
        del unsent[:done]
        return not unsent

    def _on_full(self) -> None:
        """Much waits to be sent."""
        self._write_paused = True

    def _on_writable(self) -> None:
        """Little waits to be sent again."""
        if self._watchers or self._callback is not None:
            self._writable = True
            self._attend()

    def _settle(self) -> None:
        """Do what the engine asks for: write, end the transport, look at the clock."""
        self._news = False
        self._flush()
        engine = self._engine
        if engine.close_transport is not self._close_transport and not self._lost:
            self._obey(engine.close_transport)
        deadline = engine.next_deadline()
        if deadline != self._deadline:
            self._rearm(deadline)

    # The time

    def _rearm(self, deadline: float | None) -> None:
        """Tell the engine the time at its deadline. An earlier entry of ours stays: the deadline is looked at then."""
        self._deadline = deadline
        if deadline is None or self._lost:
            return
        now = monotonic()
        if deadline <= now:
            self._tell_time(now)
        elif self._entry is None or self._entry[0] > deadline:
            if self._entry is not None:
                poller().cancel(self._entry)
            self._entry = poller().call_at(deadline, self)

    def _tell_time(self, now: float) -> None:
        self._deadline = None  # looked at anew by _settle()
        try:
            self._engine.handle_timeout(now)
        except Exception as exc:  # of our user's heartbeat
            self._on_failure(exc)
        self._news = True
        self._pump()

    # The end

    def _fail_output(self, exc: OSError) -> None:
        """The peer takes nothing any more. What it sent before is still to be had."""
        self._keep_error(exc)
        self._drop_output()
        while self._tls is None and not self._reader and not self._eof and not self._engine.read_ahead_full:
            data = None
            with contextlib.suppress(OSError):
                data = self._wire.receive(False)
            if not data:
                break
            self._engine.receive_data(data)
            self._pump()
        if not self._reader:
            self._fail_transport(exc)
        # else the reader learns of it from the socket

    def _fail_transport(self, exc: OSError) -> None:
        self._keep_error(exc)
        self._drop_output()
        if not self._eof:
            self._end_input()
            self._news = True
            self._pump()
        self._lose()

    def _keep_error(self, exc: OSError) -> None:
        if self._transport_error is None:
            self._transport_error = exc.with_traceback(None)  # its frames would keep us alive

    def _drop_output(self) -> None:
        """Nothing more can be sent."""
        self._half_closed = True
        self._unsent.clear()
        self._unsent_size = 0
        self._write_paused = False

    def _obey(self, action: CloseTransport) -> None:
        if action is CloseTransport.ABORT:
            self._drop_output()
            with contextlib.suppress(OSError):
                self._wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif self._unsent_size:
            self._attend()  # when it is gone
            return
        self._close_transport = action
        if action is CloseTransport.SHUTDOWN:
            self._half_close()
        else:
            self._lose()

    def _half_close(self) -> None:
        """Tell the peer that nothing more comes."""
        if self._tls is not None:
            self._tls.close()
            self._send_records()
        self._half_closed = True
        with contextlib.suppress(OSError):  # the peer may have reset the connection
            self._wire.sock.shutdown(socket.SHUT_WR)
        self._attend()

    def _lose(self) -> None:
        """The end of the transport. May be told twice."""
        if self._lost:
            return
        if self._tls is not None and not self._half_closed:
            self._tls.close()
            self._send_records()
        self._drop_output()
        self._lost = True
        if self._entry is not None:
            poller().cancel(self._entry)
            self._entry = None
        if not self._eof:
            self._end_input()
            self._pump()
        self._addresses()
        if self._users or self._watched:
            with contextlib.suppress(OSError):
                self._wire.sock.shutdown(socket.SHUT_RDWR)  # who waits for it wakes up
        self._on_end()
        self._dispose()

    def _dispose(self) -> None:
        """Close the descriptor, unless somebody is using it: it might be another's by then."""
        if self._watched:
            self._attend()
        elif not self._users and self._lost:
            self._wire.sock.close()

    def _addresses(self) -> tuple[Any, Any]:
        """Ours and the peer's. None is one that cannot be told any more."""
        if self._names is None:
            names = []
            for ask in (self._wire.sock.getsockname, self._wire.sock.getpeername):
                try:
                    names.append(ask())
                except OSError:
                    names.append(None)
            self._names = (names[0], names[1])
        return self._names

    # Waiting

    def _wait_for(self, condition: Any, timeout: float | None) -> bool:
        """Wait until ``condition()`` is so; the lock is let go meanwhile. Returns whether it is."""
        if self._changed is None:
            self._changed = threading.Condition(self._lock)  # type: ignore[arg-type]
        if timeout is not None:
            timeout = min(timeout, threading.TIMEOUT_MAX)
        return bool(self._changed.wait_for(condition, timeout))

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.notify_all()

    # The poller, in whose thread all of this is called

    def _attend(self) -> None:
        """Ask the poller to look at us."""
        if not self._attended:
            self._attended = True
            poller().attend(self)

    def _sweep(self) -> int:
        """Since the last sweep: 0, somebody waits in recv, or it is over; 1, somebody was there; 2, nobody was."""
        with self._lock:
            if self._reads != self._swept and not self._lost:
                self._swept = self._reads
                return 1
            self._candidate = False
            return 0 if self._reader or self._lost else 2

    def _look(self, watch: Any) -> None:
        """Read and write what there is. ``watch(sock, events, before, self)`` is called when something else is to be
        watched than before: 0 nothing, 1 to read, 2 to write, 3 both."""
        with self._lock:
            self._attended = False
            if not self._lost:
                if self._unsent_size or self._news:
                    self._settle()
                if self._may_read():
                    self._read_now()
                if not self._lost and self._engine.close_transport is not self._close_transport:
                    self._settle()
            events = 0
            if not self._lost:
                events = (1 if self._may_read() else 0) | (2 if self._unsent_size else 0)
            if events != self._watched:
                watch(self._wire.sock, events, self._watched, self)
                self._watched = events
            if self._lost:
                self._dispose()
            writable, self._writable = self._writable, False
            leaving, self._leaving = self._leaving, ()
            watchers = self._watchers if writable else ()
        for watcher in watchers:
            watcher._writable(self)
        for watcher in leaving:
            watcher._left(self)
        if self._callback is not None:
            self._run_callback()

    def _may_read(self) -> bool:
        """Whether the poller is to read."""
        return not self._reader and not self._eof and not (self._engine.paused and self._engine.read_ahead_full)

    def _read_now(self) -> None:
        try:
            data = self._wire.receive(False)
        except OSError as exc:
            self._fail_transport(exc)
            return
        if data is not None:
            self._received(data)

    def _release(self) -> None:
        """A moment has passed since something was held."""
        with self._lock:
            self._held = False
            if self._engine._writer.size and not self._corks:
                self._flush()
                if self._unsent_size:
                    self._attend()

    def _on_timer(self, now: float) -> None:
        with self._lock:
            self._entry = None
            if not self._lost:
                self._tell_time(now)
                if self._unsent_size:
                    self._attend()


def busy(name: str) -> ConcurrencyError:
    """Somebody receives already."""
    return ConcurrencyError(f"cannot call {name} while another thread is already running recv or recv_streaming")


def unwrapped(exc: LocalProtocolError) -> Exception:
    """A text with lone surrogates is UnicodeEncodeError everywhere in Python."""
    cause = exc.__cause__
    return UnicodeEncodeError(*cause.args) if isinstance(cause, UnicodeEncodeError) else exc
