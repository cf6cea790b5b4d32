"""The engine: everything of RFC 6455 and RFC 7692 after the upgrade. Does no I/O and reads no clock."""

from __future__ import annotations

import codecs
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._codec import new_key, utf8_valid
from .constants import (
    BINARY,
    CHUNKS,
    CONT,
    CONTROL,
    FIN,
    FRAMES,
    MESSAGES,
    NO_LIMIT,
    NO_MESSAGE,
    PING,
    PONG,
    RSV1,
    TEXT,
    Close,
    CloseCode,
    CloseTransport,
    Role,
    State,
)
from .events import Closed, CloseReceived, Event, Fragment, Ping, Pong, new_message
from .exceptions import InvalidState, LocalProtocolError, RemoteProtocolError, WebSocketException
from .limits import Keepalive, Limits
from .messages import MessageAssembler
from .reader import FrameReader
from .writer import FrameWriter

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate
    from .prepared import PreparedMessage

__all__ = ["Connection", "Stats"]

# What _advance() found.
NOTHING = 0
DATA = 1
EVENT = 2

# States as C integers.
OPEN = 1
CLOSING = 2
CLOSED = 3

NEVER = math.inf

# A timer that fires later than this part of its time says that the event loop was late, not that the peer was.
LATE = 0.1

_DELIVERY = {"message": MESSAGES, "frame": FRAMES, "chunk": CHUNKS}


@dataclass(frozen=True)
class Stats:
    """Counters of one connection. Bytes are those on the wire; messages are whole messages."""

    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    pings_received: int
    pongs_received: int


class Connection:
    """One WebSocket connection after its opening handshake, as a machine without I/O.

    Feed what the transport reads to ``receive_data`` (or let it read into ``get_buffer``), drink events from
    ``next_event``, ``events`` or ``dispatch``, and write what ``data_to_send`` gives. Nothing is parsed before somebody
    asks for events. Tell the time with ``handle_timeout``: once at the start, and whenever ``next_deadline`` is due.

    ``deflate`` is what the handshake negotiated. ``delivery`` is "message" (``Message`` events), "frame" or "chunk"
    (``Fragment`` events for each data frame, or for pieces as they arrive). ``auto_reply=False`` leaves pongs and the
    answer to a Close frame to the user. ``trailing_data`` is what the handshake read beyond its end.

    Errors of the peer never raise: they queue the Close frame that answers them, and the last event is ``Closed``.
    Misuse raises LocalProtocolError (InvalidState when the connection is not open any more) and changes nothing.
    """

    __slots__ = (
        "__weakref__",
        "_auto_reply",
        "_bytes_received",
        "_bytes_sent",
        "_clock_wanted",
        "_close_by",
        "_close_clock_wanted",
        "_control_frames",
        "_deflate",
        "_deflate_used",
        "_delivery",
        "_discarding",
        "_eof",
        "_event",
        "_events",
        "_excused",
        "_heard",
        "_in_place",
        "_keepalive",
        "_keepalive_ping",
        "_limits",
        "_max_control_frames",
        "_max_read_ahead",
        "_messages",
        "_messages_received",
        "_messages_sent",
        "_paused",
        "_ping_at",
        "_pings",
        "_pings_received",
        "_pong_by",
        "_pongs_received",
        "_rate_since",
        "_reader",
        "_release_at",
        "_send_compressed",
        "_send_opcode",
        "_send_pending",
        "_state",
        "_threshold",
        "_writer",
        "close_code",
        "close_error",
        "close_rcvd",
        "close_rcvd_then_sent",
        "close_reason",
        "close_sent",
        "close_transport",
        "role",
        "subprotocol",
    )

    def __init__(
        self,
        role: Role,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        keepalive: Keepalive | None = None,
        deflate: PerMessageDeflate | None = None,
        decode_text: bool = True,
        delivery: str = "message",
        auto_reply: bool = True,
        trailing_data: bytes = b"",
    ) -> None:
        if delivery not in _DELIVERY:
            raise ValueError(f"delivery must be one of {', '.join(_DELIVERY)}")
        self.role = Role(role)
        self._limits = limits
        self._keepalive = keepalive
        self._deflate = deflate
        self._threshold = 0 if deflate is None else deflate.config.threshold
        self._auto_reply = auto_reply
        self._delivery = _DELIVERY[delivery]
        self._max_read_ahead = NO_LIMIT if limits.max_read_ahead is None else limits.max_read_ahead
        self._max_control_frames = NO_LIMIT if limits.max_control_rate is None else limits.max_control_rate
        self._reader = FrameReader(self.role, deflate is not None)
        self._messages = MessageAssembler(limits, deflate, decode_text, self._delivery)
        self._writer = FrameWriter(self.role)
        # the event that _advance() found, and those that wait behind it
        self._event: Event | None = None
        self._events: deque[Event] | None = None
        # state
        self._state: int = OPEN
        self._paused = False
        self._eof = False
        self._discarding = False
        self._in_place = False
        # the fragmented message that we are sending
        self._send_opcode: int = NO_MESSAGE
        self._send_compressed = False
        self._send_pending = b""
        # our pings that no pong answered: payload -> time of sending if it was the keepalive's
        self._pings: dict[bytes, float | None] | None = None
        self._keepalive_ping = b""
        # time
        self._clock_wanted = keepalive is not None
        self._close_clock_wanted = False
        self._close_by = NEVER
        self._ping_at = NEVER
        self._pong_by = NEVER
        self._release_at = NEVER
        self._rate_since = -NEVER
        self._heard = False
        self._excused = False
        self._deflate_used = False
        self._control_frames = 0
        # counters
        self._messages_received = 0
        self._messages_sent = 0
        self._bytes_received = 0
        self._bytes_sent = 0
        self._pings_received = 0
        self._pongs_received = 0
        # how it ended
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self.close_rcvd: Close | None = None
        self.close_sent: Close | None = None
        self.close_rcvd_then_sent: bool | None = None
        self.close_error: WebSocketException | None = None
        self.close_transport = CloseTransport.KEEP
        if trailing_data:
            self.receive_data(trailing_data)

    @property
    def state(self) -> State:
        """OPEN; CLOSING once a Close frame went either way; CLOSED when the ``Closed`` event is told or about to be."""
        return State(self._state)

    @property
    def stats(self) -> Stats:
        """Counters so far."""
        return Stats(
            messages_received=self._messages_received,
            messages_sent=self._messages_sent,
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
            pings_received=self._pings_received,
            pongs_received=self._pongs_received,
        )

    # -- bytes in --------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the transport. They are parsed when events are asked for.

        ``bytes`` may be kept by reference, anything else is copied. Raises LocalProtocolError, taking nothing, while
        ``read_ahead_full``.
        """
        if self.read_ahead_full:
            raise LocalProtocolError("messages are paused and the read-ahead is full: call resume() first")
        self._received(len(data))
        if not self._discarding:
            self._reader.feed(data)

    def receive_eof(self) -> None:
        """The transport delivers no more bytes: it was closed by the peer, or lost."""
        self._eof = True
        self._grow_close_transport(CloseTransport.CLOSE)

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Memory for the transport to read into, as in asyncio.BufferedProtocol; valid until ``buffer_updated``.

        While a large payload arrives this is the memory of the message itself.
        """
        reader = self._reader
        self._in_place = False
        if reader.wants_in_place() and not self._paused:
            view = self._messages.space(reader.remaining)
            if view is not None:
                self._in_place = True
                return view
        return reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` bytes were written to the memory that ``get_buffer`` gave. Raises LocalProtocolError if they
        cannot have been."""
        if self._in_place:
            self._in_place = False
            if not self._discarding:
                self._messages.filled(nbytes)
        else:
            self._reader.buffer_updated(nbytes)
            if self._discarding:
                self._reader.clear()
        self._received(nbytes)

    def _received(self, nbytes: int) -> None:
        self._heard = True
        self._bytes_received += nbytes

    @property
    def read_ahead_full(self) -> bool:
        """Whether the transport must not be read: messages are paused and ``Limits.max_read_ahead`` bytes wait."""
        if not self._paused:
            return False
        reader = self._reader
        full = reader.end - reader.pos >= self._max_read_ahead
        if full:
            self._excused = True  # the peer's answers to our pings cannot reach us now
        return full

    # -- events out ------------------------------------------------------------

    def next_event(self) -> Event | None:
        """The next event, or None until there are more bytes (or, paused, until ``resume``)."""
        found = self._advance()
        if found == DATA:
            return self._data_event()
        if found == EVENT:
            return self._take_event()
        return None

    def events(self) -> list[Event]:
        """All events that are there now. ``pause`` has no effect in the middle of it."""
        result: list[Event] = []
        event = self.next_event()
        while event is not None:
            result.append(event)
            event = self.next_event()
        return result

    def dispatch(self, on_message: Callable[[str | bytes], object], on_event: Callable[[Event], object]) -> None:
        """Call ``on_message(data)`` for each message and ``on_event(event)`` for any other event that is there.

        The callbacks may call any method. What they raise goes to the caller; what was told is not told again.
        """
        messages = self._messages
        while True:
            found = self._advance()
            if found == DATA:
                if self._delivery == MESSAGES:
                    data = messages.data
                    messages.data = b""
                    on_message(data)
                else:
                    on_event(self._data_event())
            elif found == EVENT:
                on_event(self._take_event())
            else:
                return

    def pause(self) -> None:
        """Tell no further message until ``resume``. Control frames between and behind the waiting messages are
        handled as far as ``Limits.max_read_ahead`` lets them be seen."""
        self._paused = True

    def resume(self) -> None:
        """Go on after ``pause``; ask for events then."""
        self._paused = False

    def _take_event(self) -> Event:
        event = self._event
        assert event is not None
        self._event = None
        return event

    def _data_event(self) -> Event:
        messages = self._messages
        data = messages.data
        messages.data = b""
        if self._delivery == MESSAGES:
            return new_message(data, messages.kind)
        first = messages.first
        messages.first = False
        reader = self._reader
        return Fragment(messages.kind, data, first, messages.last, not reader.in_frame)

    def _advance(self) -> int:
        """Find the next thing to tell. The one place where the peer's errors are caught."""
        if self._events:
            self._event = self._events.popleft()
            return EVENT
        try:
            return self._parse()
        except RemoteProtocolError as error:
            self._fail(error.code, error.reason, error)
            return self._advance()

    def _parse(self) -> int:
        reader = self._reader
        messages = self._messages
        while not self._discarding:
            if self._paused and reader.data_is_next():
                return self._look_ahead()
            if not reader.in_frame:
                if not reader.read_header():
                    break
                if reader.opcode & CONTROL:
                    opcode = reader.opcode
                    payload = reader.take_control()
                    if reader.seen_ahead:
                        continue
                    self._control(opcode, payload)
                    return EVENT
                messages.begin_frame(reader)
            if messages.read_payload(reader):
                if messages.opcode == NO_MESSAGE:
                    self._messages_received += 1
                return DATA
            if reader.in_frame and reader.pos == reader.end:
                break
        reader.settle()
        if self._eof and self._state != CLOSED:
            # RFC 6455 7.1.5: no Close frame came, so the code is 1006
            self._finish(CloseCode.ABNORMAL_CLOSURE, "")
            return self._advance()
        return NOTHING

    def _look_ahead(self) -> int:
        reader = self._reader
        payload = reader.control_ahead()
        if payload is not None:
            self._control(reader.opcode_ahead, payload)
            return EVENT
        reader.settle()
        return NOTHING

    # -- control frames --------------------------------------------------------

    def _control(self, opcode: int, payload: bytes) -> None:
        self._control_frames += 1
        if self._control_frames > self._max_control_frames:
            self._clock_wanted = True
        if opcode == PING:
            self._pings_received += 1
            # RFC 6455 5.5.2: answer a Ping unless a Close frame came before it
            if self._auto_reply:
                self._writer.write_pong(payload)
            self._event = Ping(payload)
        elif opcode == PONG:
            self._pongs_received += 1
            self._event = self._match_pong(payload)
        else:
            self._receive_close(payload)

    def _match_pong(self, payload: bytes) -> Pong:
        # RFC 6455 5.5.3: a Pong answers the most recent Ping, and with it all earlier ones
        if not self._pings or payload not in self._pings:
            return Pong(payload)
        acknowledged = []
        sent_at = None
        for ping in list(self._pings):
            time = self._pings.pop(ping)
            if time is not None:
                sent_at = time
            acknowledged.append(ping)
            if ping == payload:
                break
        return Pong(payload, tuple(acknowledged), sent_at)

    def _receive_close(self, payload: bytes) -> None:
        close = _parse_close(payload)
        self.close_rcvd = close
        self._event = CloseReceived(close.code, close.reason)
        self._state = CLOSING
        self._discard()  # RFC 6455 5.5.1: nothing follows a Close frame
        if self.close_sent is None:
            if not self._auto_reply:
                return
            self._queue_close(close)
        else:
            self.close_rcvd_then_sent = False
        self._finish(close.code, close.reason)

    def _queue_close(self, close: Close) -> None:
        payload = b""
        if close.code != CloseCode.NO_STATUS_RCVD:
            payload = close.code.to_bytes(2, "big") + close.reason.encode()
        self._writer.write_close(payload)
        self._state = CLOSING
        self.close_sent = close
        if self.close_rcvd is not None:
            self.close_rcvd_then_sent = True
        self._clock_wanted = self._close_clock_wanted = True

    def _discard(self) -> None:
        self._discarding = True
        self._reader.clear()
        self._messages.clear()

    def _finish(self, code: int, reason: str, error: WebSocketException | None = None) -> None:
        """Tell that nothing more will come."""
        if self.close_rcvd is not None:
            code = self.close_rcvd.code
            reason = self.close_rcvd.reason
        self._state = CLOSED
        self._discard()
        self.close_code = int(code)
        self.close_reason = reason
        self.close_error = error
        self._ping_at = self._pong_by = NEVER
        if self._events is None:
            self._events = deque()
        self._events.append(Closed(int(code), reason, error))
        if error is not None or self.close_rcvd is None:
            self._grow_close_transport(CloseTransport.SHUTDOWN)
        elif self.role == Role.SERVER:
            # RFC 6455 7.1.1: the server closes the TCP connection first
            self._grow_close_transport(CloseTransport.CLOSE)

    def _fail(self, code: int, reason: str, error: WebSocketException) -> None:
        """RFC 6455 7.1.7: tell the peer why, unless a Close frame was sent already, and stop."""
        if self.close_sent is None:
            self._queue_close(Close(int(code), _cut_reason(reason)))
        self._finish(code, reason, error)

    def _grow_close_transport(self, action: CloseTransport) -> None:
        if action > self.close_transport:
            self.close_transport = action

    # -- messages in, bytes out ------------------------------------------------

    def send_text(self, data: str | bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Send a text message from a ``str`` or its UTF-8 bytes.

        ``compress``: True or False decides for this message where permessage-deflate was negotiated; None compresses
        from ``DeflateConfig.threshold`` on. Raises LocalProtocolError if the text is no valid UTF-8, if a fragmented
        message is open, and InvalidState when the connection is not open.
        """
        if not isinstance(data, str):
            data = bytes(memoryview(data))
            if not utf8_valid(data):
                raise LocalProtocolError("text must be valid UTF-8; use send_binary() for other bytes")
        self._send_message(TEXT, data, compress)

    def send_binary(self, data: bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Send a binary message from any bytes-like object; see ``send_text``.

        A large ``bytes`` object may go out by reference; anything else is copied before this returns.
        """
        if isinstance(data, str):
            raise TypeError("send_binary() takes bytes; use send_text() for str")
        self._send_message(BINARY, data, compress)

    def _send_message(self, opcode: int, data: str | bytes | bytearray | memoryview, compress: bool | None) -> None:
        self._check_can_send()
        if self._send_opcode != NO_MESSAGE:
            raise LocalProtocolError("a fragmented message is open: end it with send_fragment(fin=True) first")
        if (
            self._deflate is not None
            and compress is not False
            and (compress is True or len(data) >= self._threshold)
        ):
            payload = _encode(data) if isinstance(data, str) else data
            payload = self._deflate.compress(payload)
            self._deflate_used = True
            self._writer.write(FIN | RSV1 | opcode, payload)
        else:
            try:
                self._writer.write(FIN | opcode, data)
            except UnicodeEncodeError as error:
                raise _not_encodable() from error
        self._messages_sent += 1

    def _check_can_send(self) -> None:
        if self._state != OPEN:
            raise InvalidState(f"cannot send: the connection is {State(self._state).name}")

    def send_fragment(
        self, data: str | bytes | bytearray | memoryview, *, first: bool, fin: bool, text: bool | None = None
    ) -> None:
        """Send one frame of a fragmented message (RFC 6455 5.4).

        ``first`` begins a message and ``fin`` ends it. The first fragment decides its type: text for ``str``, binary
        for bytes, or as ``text`` says; later fragments of a text may be ``str`` or UTF-8 bytes, cut anywhere. Raises
        as ``send_text`` does, and LocalProtocolError when ``first`` does not fit.
        """
        self._check_can_send()
        if first:
            if self._send_opcode != NO_MESSAGE:
                raise LocalProtocolError("a fragmented message is open: end it before the next")
            opcode = TEXT if (isinstance(data, str) if text is None else text) else BINARY
            compressed = self._deflate is not None
            head = opcode | RSV1 if compressed else opcode
        else:
            if self._send_opcode == NO_MESSAGE:
                raise LocalProtocolError("no fragmented message is open: begin with first=True")
            opcode = self._send_opcode
            compressed = self._send_compressed
            head = CONT
        if opcode == TEXT:
            payload = _encode(data) if isinstance(data, str) else bytes(memoryview(data))
            pending = _check_text(self._send_pending + payload, fin)
        elif isinstance(data, str):
            raise TypeError("the fragments of a binary message must be bytes")
        else:
            payload = bytes(memoryview(data))
            pending = b""
        if compressed:
            assert self._deflate is not None
            payload = self._deflate.compress(payload, fin=fin)
            self._deflate_used = True
        self._writer.write(head | FIN if fin else head, payload)
        self._send_compressed = compressed
        self._send_pending = pending
        if fin:
            self._send_opcode = NO_MESSAGE
            self._messages_sent += 1
        else:
            self._send_opcode = opcode

    def send_prepared(self, prepared: PreparedMessage, *, compress: bool | None = None) -> None:
        """Send a message that was framed (and, for this connection's parameters, compressed) once for many; see
        ``send_text``. A client masks, so it gains nothing from it."""
        if self.role == Role.CLIENT:
            self._send_message(prepared.opcode, prepared.payload, compress)
            return
        self._check_can_send()
        if self._send_opcode != NO_MESSAGE:
            raise LocalProtocolError("a fragmented message is open: end it with send_fragment(fin=True) first")
        deflate = self._deflate
        if (
            deflate is not None
            and compress is not False
            and (compress is True or len(prepared.payload) >= self._threshold)
        ):
            self._writer.append(prepared.frame(deflate))
            # The peer's window now holds a message that our deflater never saw.
            deflate.reset_deflater()
        else:
            self._writer.append(prepared.frame(None))
        self._messages_sent += 1

    def send_ping(self, payload: str | bytes | bytearray | memoryview | None = None) -> bytes:
        """Send a Ping (RFC 6455 5.5.2); returns the payload that its ``Pong`` event will acknowledge.

        None draws four random bytes. Raises LocalProtocolError for more than 125 bytes, or a payload that still
        waits for its pong, and InvalidState when the connection is closed.
        """
        if payload is None:
            data = new_key().to_bytes(4, "little")
            while self._pings and data in self._pings:
                data = new_key().to_bytes(4, "little")
        else:
            data = _control_payload(payload)
            if self._pings and data in self._pings:
                raise LocalProtocolError("a ping with this payload is already waiting for its pong")
        self._send_control(FIN | PING, data)
        self._remember_ping(data, None)
        return data

    def _remember_ping(self, payload: bytes, sent_at: float | None) -> None:
        if self._pings is None:
            self._pings = {}
        self._pings[payload] = sent_at

    def send_pong(self, payload: str | bytes | bytearray | memoryview = b"") -> None:
        """Send a Pong, as the answer to a Ping with ``auto_reply=False`` or unasked for (RFC 6455 5.5.3)."""
        self._send_control(FIN | PONG, _control_payload(payload))

    def _send_control(self, first: int, payload: bytes) -> None:
        if self._state == CLOSED:
            raise InvalidState("cannot send: the connection is CLOSED")
        if self.close_sent is not None:
            raise InvalidState("cannot send: a Close frame was sent")
        self._writer.write(first, payload)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Begin, or with ``auto_reply=False`` answer, the closing handshake (RFC 6455 7.1.2).

        Code 1005 sends a Close frame without code. Raises LocalProtocolError for a code that must not be sent or a
        reason of more than 123 bytes, and InvalidState when a Close frame was sent already.
        """
        close = _checked_close(code, reason)
        if self.close_sent is not None or self._state == CLOSED:
            raise InvalidState(f"cannot close again: the connection is {State(self._state).name}")
        self._queue_close(close)
        if self.close_rcvd is not None:
            self._finish(code, reason)

    def fail(self, code: int = 1011, reason: str = "") -> None:
        """Close at once, as for an error of the peer: send a Close frame, discard all input, tell ``Closed``.

        Raises LocalProtocolError as ``send_close`` does; does nothing when the connection is closed already.
        """
        close = _checked_close(code, reason)
        if self._state != CLOSED:
            self._fail(close.code, close.reason, LocalProtocolError(reason or "failed by the application"))

    def data_to_send(self) -> list[bytes]:
        """All bytes to write to the transport, in chunks for ``writelines`` or ``sendmsg``; empty when there are none.

        Small frames are joined. The chunks belong to the caller.
        """
        self._bytes_sent += self._writer.size
        return self._writer.take()

    @property
    def has_output(self) -> bool:
        """Whether ``data_to_send`` has something."""
        return self._writer.size != 0

    # -- time ------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call ``handle_timeout`` next, on the clock that its argument is read from; None: not needed.

        0.0 asks to be told the time at once. Look again after any event that is no message, after ``send_close`` and
        after ``handle_timeout``.
        """
        if self._clock_wanted:
            return 0.0
        deadline = min(self._close_by, self._ping_at, self._pong_by, self._release_at)
        return None if deadline == NEVER else deadline

    def handle_timeout(self, now: float) -> None:
        """Tell the time, in seconds of any clock that never goes back. Calling it too early or too often is harmless.

        Sends keepalive pings, fails a connection whose peer is silent, and gives up on a closing handshake. Ask for
        events and output afterwards.
        """
        self._clock_wanted = False
        if self._close_clock_wanted:
            self._close_clock_wanted = False
            if self._limits.close_timeout is not None:
                self._close_by = now + self._limits.close_timeout
        if now >= self._close_by:
            self._close_by = NEVER
            if self._state != CLOSED:
                self._finish(CloseCode.ABNORMAL_CLOSURE, "")
            self._grow_close_transport(CloseTransport.ABORT)
        if self._state == OPEN:
            self._check_control_rate(now)
        if self._state == OPEN and self._keepalive is not None:
            self._keep_alive(self._keepalive, now)
        if self._deflate is not None:
            self._release_contexts(now)

    def _check_control_rate(self, now: float) -> None:
        if self._control_frames > self._max_control_frames and now - self._rate_since < 1.0:
            reason = "too many control frames"
            self._fail(
                CloseCode.POLICY_VIOLATION, reason, RemoteProtocolError(CloseCode.POLICY_VIOLATION, reason)
            )
        elif self._control_frames > self._max_control_frames or now - self._rate_since >= 1.0:
            self._control_frames = 0
            self._rate_since = now

    def _keep_alive(self, keepalive: Keepalive, now: float) -> None:
        if keepalive.ping_interval is None:
            return
        if self._ping_at == NEVER:
            self._ping_at = now + keepalive.ping_interval
        if self._heard:
            self._pong_by = NEVER  # any byte proves that the peer lives
        if now >= self._pong_by:
            assert keepalive.ping_timeout is not None
            late = now - self._pong_by
            if self._excused:
                self._pong_by = now + keepalive.ping_timeout
                self._excused = self.read_ahead_full
            elif late > LATE * keepalive.ping_timeout:
                self._pong_by = now + min(late, keepalive.ping_timeout)
            else:
                self._lose_peer()
                return
        if now >= self._ping_at:
            self._ping_at = now + keepalive.ping_interval
            if self._pong_by == NEVER and keepalive.ping_timeout is not None:
                self._heard = False
                self._excused = self.read_ahead_full
                self._pong_by = now + keepalive.ping_timeout
            if self._pings:
                self._pings.pop(self._keepalive_ping, None)  # a peer that never answers must not cost memory
            self._keepalive_ping = self.send_ping()
            self._remember_ping(self._keepalive_ping, now)

    def _lose_peer(self) -> None:
        stuck = self.has_output  # the transport takes nothing: the peer does not read either
        reason = "keepalive ping timeout"
        self._fail(CloseCode.INTERNAL_ERROR, reason, RemoteProtocolError(CloseCode.INTERNAL_ERROR, reason))
        if stuck:
            self._grow_close_transport(CloseTransport.ABORT)

    def _release_contexts(self, now: float) -> None:
        """Free compression contexts that were not used for a whole period; they come back at the next use."""
        assert self._deflate is not None
        idle = self._deflate.config.idle_release
        if idle is None or self._state == CLOSED:
            self._release_at = NEVER
        elif self._release_at == NEVER:
            self._release_at = now + idle
        elif now >= self._release_at:
            used = self._deflate_used or self._messages.inflated
            busy = self._send_opcode != NO_MESSAGE or self._messages.opcode != NO_MESSAGE
            self._deflate_used = self._messages.inflated = False
            if not used and not busy:
                self._deflate.release()
            self._release_at = now + idle


def _sendable(code: int) -> bool:
    # RFC 6455 7.4 and the IANA registry: 1004 is reserved; 1005, 1006 and 1015 never stand in a frame
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _parse_close(payload: bytes) -> Close:
    if not payload:
        return Close(int(CloseCode.NO_STATUS_RCVD), "")
    if len(payload) == 1:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not _sendable(code):
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"invalid close code: {code}")
    if not utf8_valid(payload[2:]):
        raise RemoteProtocolError(CloseCode.INVALID_DATA, "invalid UTF-8 in close reason")
    return Close(code, str(payload[2:], "utf-8"))


def _checked_close(code: int, reason: str) -> Close:
    if code == CloseCode.NO_STATUS_RCVD:
        if reason:
            raise LocalProtocolError("a close frame without a code cannot carry a reason")
    elif not _sendable(code):
        raise LocalProtocolError(f"close code {int(code)} must not be sent; use 1000-1003, 1007-1014 or 3000-4999")
    if len(_encode(reason)) > 123:
        raise LocalProtocolError("a close reason has at most 123 bytes")
    return Close(int(code), reason)


def _cut_reason(reason: str) -> str:
    return str(reason.encode()[:123], "utf-8", "ignore")


def _control_payload(payload: str | bytes | bytearray | memoryview) -> bytes:
    data = _encode(payload) if isinstance(payload, str) else bytes(memoryview(payload))
    if len(data) > 125:  # RFC 6455 5.5
        raise LocalProtocolError("a control frame carries at most 125 bytes")
    return data


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _not_encodable() from error


def _not_encodable() -> LocalProtocolError:
    return LocalProtocolError("text must be valid Unicode: it has a lone surrogate")


def _check_text(data: bytes, fin: bool) -> bytes:
    """The start of an unfinished character at the end of ``data``."""
    try:
        consumed = codecs.utf_8_decode(data, "strict", fin)[1]
    except UnicodeDecodeError as error:
        raise LocalProtocolError("text must be valid UTF-8") from error
    return data[consumed:]
