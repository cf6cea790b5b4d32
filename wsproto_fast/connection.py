"""The engine: everything of RFC 6455 and RFC 7692 after the upgrade. Does no I/O and reads no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._codec import new_key
from .clock import Clock
from .constants import (
    BINARY,
    CHUNKS,
    CONTROL,
    FIN,
    FRAMES,
    MESSAGE_COST,
    MESSAGES,
    NO_BUDGET,
    NO_MESSAGE,
    PING,
    PONG,
    TEXT,
    Close,
    CloseCode,
    CloseTransport,
    Opcode,
    Role,
    State,
)
from .control import checked_close, close_payload, control_payload, cut_reason, is_normal, parse_close
from .events import Closed, CloseReceived, Event, Ping, Pong, new_fragment, new_message
from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    LocalProtocolError,
    RemoteProtocolError,
    WebSocketException,
)
from .limits import Keepalive, Limits, bounded
from .messages import MessageAssembler
from .reader import FrameReader
from .sender import MessageSender
from .writer import FrameWriter

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate
    from .prepared import PreparedMessage

__all__ = ["Connection", "Stats"]

# What _advance() found.
NOTHING = 0
DATA = 1
EVENT = 2

CLIENT = Role.CLIENT  # looked up in the Enum it costs more than all of send_prepared()

# States as C integers.
OPEN = 1
CLOSING = 2
CLOSED = 3

_DELIVERY = {"message": MESSAGES, "frame": FRAMES, "chunk": CHUNKS}  # coarse to fine


@dataclass(frozen=True)
class Stats:
    """Counters of one connection. Bytes are those on the wire; messages are whole messages. ``inflated`` bytes are the
    same with payloads as they are before deflate and after inflate."""

    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    pings_received: int
    pongs_received: int
    inflated_bytes_received: int
    inflated_bytes_sent: int


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
        "_clock",
        "_deflate",
        "_discarding",
        "_eof",
        "_event",
        "_in_place",
        "_keepalive_ping",
        "_last_event",
        "_lost",
        "_max_read_ahead",
        "_messages",
        "_messages_received",
        "_pings",
        "_pings_received",
        "_pongs_received",
        "_reader",
        "_room",
        "_sender",
        "_state",
        "_writer",
        "close_code",
        "close_error",
        "close_rcvd",
        "close_rcvd_then_sent",
        "close_reason",
        "close_sent",
        "close_transport",
        "paused",
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
        self._deflate = deflate
        self._auto_reply = auto_reply
        self._max_read_ahead = bounded(limits.max_read_ahead)
        self._reader = FrameReader(self.role, deflate is not None)
        self._messages = MessageAssembler(limits, deflate, decode_text, _DELIVERY[delivery])
        self._writer = FrameWriter(self.role)
        self._sender = MessageSender(self._writer, deflate)
        self._clock = Clock(limits, keepalive, None if deflate is None else deflate.config.idle_release)
        # the event that _advance() found, and the one that ends all
        self._event: Event | None = None
        self._last_event: Event | None = None
        # state
        self._state: int = OPEN
        self._eof = False  # no more input is taken
        self._lost: RemoteProtocolError | None = None  # why, if not for the transport
        self._discarding = False
        # the read that is under way: how much room it has, and whether in the message itself
        self._room = 0
        self._in_place = False
        # our pings that no pong answered: payload -> time of sending if it was the keepalive's
        self._pings: dict[bytes, float | None] | None = None
        self._keepalive_ping = b""
        # counters
        self._messages_received = 0
        self._bytes_received = 0
        self._pings_received = 0
        self._pongs_received = 0
        #: Messages are held back by ``pause``, or by the ``budget`` of ``dispatch``.
        self.paused = False
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
        """OPEN; CLOSING once a Close frame went either way or the input ended; CLOSED when the ``Closed`` event is told
        or about to be."""
        return State(self._state)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: ``state is State.OPEN``, sooner said."""
        return self._state == OPEN

    @property
    def delivery(self) -> str:
        """"message", "frame" or "chunk"; a finer one takes effect at once, a coarser one with the next message."""
        return next(name for name, mode in _DELIVERY.items() if mode == self._messages.wanted)

    @delivery.setter
    def delivery(self, delivery: str) -> None:
        if delivery not in _DELIVERY:
            raise ValueError(f"delivery must be one of {', '.join(_DELIVERY)}")
        self._messages.deliver(_DELIVERY[delivery])

    @property
    def decode_text(self) -> bool:
        """Whether text is told as ``str``, else as its UTF-8 ``bytes``; may be set, for the next message."""
        return self._messages.decode_text

    @decode_text.setter
    def decode_text(self, decode_text: bool) -> None:
        self._messages.decode_text = decode_text

    @property
    def message_opcode(self) -> Opcode:
        """TEXT or BINARY: what the message told last was."""
        return self._messages.kind

    def closed_exception(self) -> ConnectionClosed:
        """A new exception that tells how the connection ended, caused by ``close_error``: ConnectionClosedOK if both
        Close frames were exchanged with 1000, 1001 or no code, else ConnectionClosedError."""
        rcvd = self.close_rcvd
        sent = self.close_sent
        normal = rcvd is not None and sent is not None and is_normal(rcvd) and is_normal(sent)
        error = (ConnectionClosedOK if normal else ConnectionClosedError)(rcvd, sent, self.close_rcvd_then_sent)
        error.__cause__ = self.close_error
        return error

    @property
    def stats(self) -> Stats:
        """Counters so far."""
        return Stats(
            messages_received=self._messages_received,
            messages_sent=self._sender.sent,
            bytes_received=self._bytes_received,
            bytes_sent=self._writer.taken,
            pings_received=self._pings_received,
            pongs_received=self._pongs_received,
            inflated_bytes_received=self._bytes_received + self._messages.saved,
            inflated_bytes_sent=self._writer.taken + self._sender.saved,
        )

    # -- bytes in --------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the transport. They are parsed when events are asked for.

        ``bytes`` may be kept by reference, anything else is copied. Raises LocalProtocolError, taking nothing, while
        ``read_ahead_full``. A ``get_buffer`` that no ``buffer_updated`` followed is forgotten.
        """
        self._check_read_ahead()
        self._room = 0
        self._in_place = False
        if not self._discarding and not self._eof:
            nbytes = self._reader.feed(data)
            self._bytes_received += nbytes
            if nbytes:
                self._clock.heard = True

    def receive_eof(self) -> None:
        """The transport delivers no more bytes: it was closed by the peer, or lost."""
        self._eof = True
        if self._state == OPEN:
            self._state = CLOSING  # what was received is still told, but nobody would get what we send
        if self.close_sent is None:
            self._clock.begin_close()  # the transport must end even if it never takes the rest of our output
        self._grow_close_transport(CloseTransport.CLOSE)

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Memory for the transport to read into, as in asyncio.BufferedProtocol; valid until ``buffer_updated``.

        While a large payload arrives this is the memory of the message itself. Raises as ``receive_data`` does.
        """
        self._check_read_ahead()
        reader = self._reader
        self._in_place = False
        if reader.wants_in_place() and not self.paused:
            view = self._messages.space(reader.remaining)
            if view is not None:
                self._in_place = True
                self._room = len(view)
                return view
        view = reader.get_buffer()
        self._room = len(view)
        return view

    def reads_in_place(self) -> bool:
        """Whether so much of a payload is missing that ``get_buffer`` gives the memory of the message itself: else
        whoever has read into memory of his own loses nothing by ``receive_data``."""
        return self._reader.wants_in_place() and not self.paused and not self._discarding

    def buffer_updated(self, nbytes: int) -> None:
        """``nbytes`` bytes were written to the memory that ``get_buffer`` gave. Raises LocalProtocolError if they
        cannot have been."""
        if not 0 <= nbytes <= self._room:
            raise LocalProtocolError("buffer_updated() needs get_buffer() first, and no more bytes than its size")
        if nbytes:
            self._clock.heard = True
        self._room = 0
        if self._in_place:
            self._in_place = False
            if self._discarding:
                return
            self._messages.filled(nbytes)
        else:
            self._reader.buffer_updated(nbytes)
            if self._discarding or self._eof:
                self._reader.clear()
                return
        self._bytes_received += nbytes

    def _check_read_ahead(self) -> None:
        if self.paused and self.read_ahead_full:
            raise LocalProtocolError("messages are paused and the read-ahead is full: call resume() first")

    @property
    def read_ahead_full(self) -> bool:
        """Whether the transport must not be read: messages are paused and ``Limits.max_read_ahead`` bytes wait."""
        if not self.paused or self._discarding:
            return False
        reader = self._reader
        full = reader.end - reader.pos >= self._max_read_ahead
        if full:
            self._clock.excused = True  # the peer's answers to our pings cannot reach us now
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

    def dispatch(
        self,
        on_message: Callable[[str | bytes], object],
        on_event: Callable[[Event], object],
        budget: int = NO_BUDGET,
    ) -> None:
        """Call ``on_message(data)`` for each message and ``on_event(event)`` for any other event that is there.

        The callbacks may call any method. What they raise goes to the caller; what was told is not told again.
        ``budget`` makes it ``pause`` after so many bytes of messages, where each counts 100 more: a read full of tiny
        or highly compressed messages must not keep everything else waiting.
        """
        messages = self._messages
        remaining = budget
        while True:
            found = self._advance()
            if found == DATA:
                if messages.delivery == MESSAGES:
                    data = messages.data
                    messages.data = b""
                    if budget != NO_BUDGET:
                        remaining -= len(data) + MESSAGE_COST
                        if remaining < 0:
                            self.paused = True
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
        self.paused = True

    def resume(self) -> None:
        """Go on after ``pause``; ask for events then."""
        self.paused = False

    def _take_event(self) -> Event:
        event = self._event
        assert event is not None
        self._event = None
        return event

    def _data_event(self) -> Event:
        messages = self._messages
        data = messages.data
        messages.data = b""
        if messages.delivery == MESSAGES:
            return new_message(data, messages.kind)
        first = messages.first
        messages.first = False
        reader = self._reader
        return new_fragment(messages.kind, data, first, messages.last, not reader.in_frame)

    def _advance(self) -> int:
        """Find the next thing to tell."""
        reader = self._reader
        if (
            not self.paused
            and not reader.in_frame
            and reader.pos != reader.end  # never so when the last event waits: then all input is discarded
            and self._messages.take_whole(reader)
        ):
            self._messages_received += 1
            return DATA
        return self._advance_further()

    def _advance_further(self) -> int:
        """The one place where the peer's errors are caught."""
        if self._last_event is not None:
            self._event = self._last_event
            self._last_event = None
            return EVENT
        reader = self._reader
        if reader.pos == reader.end and self._messages.opcode == NO_MESSAGE and not self._eof:
            reader.settle()
            return NOTHING
        try:
            return self._parse()
        except RemoteProtocolError as error:
            self._fail(error.code, error.reason, error.with_traceback(None))  # a traceback would hold us alive
            return self._advance()

    def _parse(self) -> int:
        reader = self._reader
        messages = self._messages
        while not self._discarding:
            if self.paused and reader.data_is_next():
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
            elif reader.pos == reader.end and not messages.unread():
                break
            if messages.read_payload(reader):
                if messages.opcode == NO_MESSAGE:
                    self._messages_received += 1
                return DATA
        if not self._in_place and messages.read_rest(reader):
            return DATA
        reader.settle()
        if self._eof and self._state != CLOSED:
            # RFC 6455 7.1.5: no Close frame came, so the code is 1006, unless we had to tell another
            error = self._lost
            if error is None:
                self._finish(CloseCode.ABNORMAL_CLOSURE, "")
            else:
                self._finish(error.code, error.reason, error)
            return self._advance()
        return NOTHING

    def _look_ahead(self) -> int:
        reader = self._reader
        messages = self._messages
        message_open = not reader.fin if reader.in_frame else messages.opcode != NO_MESSAGE
        payload = reader.control_ahead(messages.unread(), message_open, messages.longest_frame())
        if payload is not None:
            self._control(reader.opcode_ahead, payload)
            return EVENT
        reader.settle()
        return NOTHING

    # -- control frames --------------------------------------------------------

    def _control(self, opcode: int, payload: bytes) -> None:
        self._clock.count_control_frame()
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
        waiting = list(self._pings)
        acknowledged = tuple(waiting[: waiting.index(payload) + 1])
        times = [self._pings.pop(ping) for ping in acknowledged]
        return Pong(payload, acknowledged, max([time for time in times if time is not None], default=None))

    def _receive_close(self, payload: bytes) -> None:
        close = parse_close(payload)
        self.close_rcvd = close
        self._event = CloseReceived(close.code, close.reason)
        self._state = CLOSING
        self._clock.stop()
        self._discard()  # RFC 6455 5.5.1: nothing follows a Close frame
        if self.close_sent is None:
            if not self._auto_reply:
                return
            self._queue_close(close)
        else:
            self.close_rcvd_then_sent = False
        self._finish(close.code, close.reason)

    def _queue_close(self, close: Close) -> None:
        self._writer.write_close(close_payload(close))
        self._state = CLOSING
        self.close_sent = close
        if self.close_rcvd is not None:
            self.close_rcvd_then_sent = True
        self._clock.begin_close()

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
        self._clock.stop()
        self._last_event = Closed(int(code), reason, error)
        if error is not None or self.close_rcvd is None:
            self._grow_close_transport(CloseTransport.SHUTDOWN)
        elif self.role == Role.SERVER:
            # RFC 6455 7.1.1: the server closes the TCP connection first
            self._grow_close_transport(CloseTransport.CLOSE)

    def _fail(self, code: int, reason: str, error: WebSocketException) -> None:
        """RFC 6455 7.1.7: tell the peer why, unless a Close frame was sent already, and stop."""
        if self.close_sent is None:
            self._queue_close(Close(int(code), cut_reason(reason)))
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
        self.send_message(TEXT, data, compress)

    def send_binary(self, data: bytes | bytearray | memoryview, *, compress: bool | None = None) -> None:
        """Send a binary message from any bytes-like object; see ``send_text``.

        A large ``bytes`` object may go out by reference; anything else is copied before this returns.
        """
        self.send_message(BINARY, data, compress)

    def send_message(
        self, opcode: int, data: str | bytes | bytearray | memoryview, compress: bool | None = None
    ) -> None:
        """``send_text`` or ``send_binary``, by the opcode TEXT or BINARY."""
        if self._state != OPEN:
            raise self._not_open()
        self._sender.send(opcode, data, compress)

    def _not_open(self) -> InvalidState:
        return InvalidState(f"cannot send: the connection is {State(self._state).name}")

    def send_fragment(
        self,
        data: str | bytes | bytearray | memoryview,
        *,
        first: bool,
        fin: bool,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> None:
        """Send one frame of a fragmented message (RFC 6455 5.4).

        ``first`` begins a message and ``fin`` ends it. The first fragment decides its type: text for ``str``, binary
        for bytes, or as ``text`` says; later fragments of a text may be ``str`` or UTF-8 bytes, cut anywhere. It is
        compressed where that was negotiated, unless ``compress=False`` comes with the first. Raises as ``send_text``
        does, and LocalProtocolError when ``first`` does not fit.
        """
        if self._state != OPEN:
            raise self._not_open()
        self._sender.send_fragment(data, first, fin, text, compress)

    def send_prepared(self, prepared: PreparedMessage, compress: bool | None = None) -> None:
        """Send a message that was framed (and, for this connection's parameters, compressed) once for many; see
        ``send_text``. A client masks, so it gains nothing from it."""
        if self._state != OPEN:
            raise self._not_open()
        if self.role is CLIENT:
            self._sender.send(prepared.opcode, prepared.payload, compress)
        else:
            self._sender.send_prepared(prepared, compress)

    def send_ping(self, payload: str | bytes | bytearray | memoryview | None = None) -> bytes:
        """Send a Ping (RFC 6455 5.5.2); returns the payload that its ``Pong`` event will acknowledge.

        None draws four random bytes. Raises LocalProtocolError for more than 125 bytes, or a payload that still
        waits for its pong, and InvalidState when the connection is closed.
        """
        if payload is None:
            data = b""
            while not data or (self._pings and data in self._pings):
                data = new_key().to_bytes(4, "little")
        else:
            data = control_payload(payload)
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
        self._send_control(FIN | PONG, control_payload(payload))

    def _send_control(self, first: int, payload: bytes) -> None:
        if self._state == CLOSED:
            raise InvalidState("cannot send: the connection is CLOSED")
        if self.close_sent is not None or self._eof:
            raise InvalidState("cannot send: a Close frame was sent, or the peer is gone")
        self._writer.write(first, payload)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Begin, or with ``auto_reply=False`` answer, the closing handshake (RFC 6455 7.1.2).

        Code 1005 sends a Close frame without code. Raises LocalProtocolError for a code that must not be sent or a
        reason of more than 123 bytes, and InvalidState when a Close frame was sent already.
        """
        close = checked_close(code, reason)
        if self.close_sent is not None or self._state == CLOSED:
            raise InvalidState(f"cannot close again: the connection is {State(self._state).name}")
        self._queue_close(close)
        if self.close_rcvd is not None:
            self._finish(close.code, close.reason)

    def fail(self, code: int = 1011, reason: str = "") -> None:
        """Close at once, as for an error of the peer: send a Close frame, discard all input, tell ``Closed``.

        Raises LocalProtocolError as ``send_close`` does; does nothing when the connection is closed already.
        """
        close = checked_close(code, reason)
        if self._state != CLOSED:
            self._fail(close.code, close.reason, LocalProtocolError(reason or "failed by the application"))

    def data_to_send(self) -> list[bytes]:
        """All bytes to write to the transport, in chunks for ``writelines`` or ``sendmsg``; empty when there are none.

        Small frames are joined. The chunks belong to the caller.
        """
        self._clock.stuck = False
        return self._writer.take()

    @property
    def has_output(self) -> bool:
        """Whether ``data_to_send`` has something."""
        return self._writer.size != 0

    @property
    def output_size(self) -> int:
        """How many bytes wait in ``data_to_send``."""
        return self._writer.size

    # -- time ------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When to call ``handle_timeout`` next, on the clock that its argument is read from; None: not needed.

        0.0 asks to be told the time at once. Look again after any event that is no message, after ``send_close`` and
        after ``handle_timeout``.
        """
        return self._clock.deadline()

    def handle_timeout(self, now: float) -> None:
        """Tell the time, in seconds of any clock that never goes back. Calling it too early or too often is harmless.

        Sends keepalive pings, fails a connection whose peer is silent, and gives up on a closing handshake. Ask for
        events and output afterwards.
        """
        clock = self._clock
        if clock.close_overdue(now):
            self._eof = True
            self._grow_close_transport(CloseTransport.ABORT)
        if self._state == OPEN:
            if clock.flooded(now):
                error = RemoteProtocolError(CloseCode.POLICY_VIOLATION, "too many control frames")
                self._fail(error.code, error.reason, error)
            elif clock.peer_lost(now, self.read_ahead_full, self._writer.size != 0):
                self._lose_peer()
            elif clock.ping_due(now, self.read_ahead_full):
                self._send_heartbeat(now)
        if clock.contexts_idle(now):
            self._release_contexts()

    def _send_heartbeat(self, now: float) -> None:
        if self._pings:
            self._pings.pop(self._keepalive_ping, None)  # a peer that never answers must not cost memory
        payload = self._clock.heartbeat()
        if isinstance(payload, str) and self._sender.opcode == NO_MESSAGE:
            self.send_text(payload)
        else:  # amid a fragmented message too: control frames may go between its frames (RFC 6455 5.4)
            self._keepalive_ping = self.send_ping(None if isinstance(payload, str) else payload)
            self._remember_ping(self._keepalive_ping, now)

    def _lose_peer(self) -> None:
        """End a connection whose peer is silent; what it sent before is still delivered."""
        stuck = self.has_output  # the transport takes nothing, so the peer does not read either
        self._lost = RemoteProtocolError(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        self._queue_close(Close(self._lost.code, self._lost.reason))
        self._eof = True
        self._grow_close_transport(CloseTransport.ABORT if stuck else CloseTransport.SHUTDOWN)

    def _release_contexts(self) -> None:
        """Free compression contexts that were not used since the last call; they come back at the next use."""
        sender = self._sender
        messages = self._messages
        used = sender.deflated or messages.inflated
        sender.deflated = messages.inflated = False
        if self._deflate is not None and not used and sender.opcode == messages.opcode == NO_MESSAGE:
            self._deflate.release()
