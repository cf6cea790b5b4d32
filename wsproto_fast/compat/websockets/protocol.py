"""A connection as websockets' sans-I/O layer shows it: frames in, frames out, states, the closing handshake.

Knows frames, extensions and when the transport must end. What arrives is read by the engine: masks, fragmentation,
UTF-8, inflate, limits. Frames of a connection with an extension that the engine does not know, or of a peer that did
not wait for the answer to its request, are read one by one with ``Frame.parse`` instead.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Generator
from typing import Any

from ..._codec import build_frame, new_key
from ...connection import Connection
from ...constants import FIN, Role, State
from ...control import cut_reason
from ...events import Closed, CloseReceived, Fragment, Ping, Pong
from ...events import Event as EngineEvent
from ...exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    PayloadTooBig,
    ProtocolError,
    RemoteProtocolError,
)
from ...http11 import Headers, Request, Response
from ...limits import Limits
from .extensions.base import Extension
from .extensions.permessage_deflate import PerMessageDeflate
from .frames import BINARY, CLOSE, CONT, NO_KEY, OK_CLOSE_CODES, PING, PONG, TEXT, Close, CloseCode, Frame, Opcode
from .streams import StreamReader
from .typing import BytesLike, LoggerLike, Origin, Subprotocol

__all__ = ["SEND_EOF", "Event", "Protocol", "Side", "State"]

#: What ``events_received`` gives.
Event = Request | Response | Frame

Side = Role
SERVER = Role.SERVER
CLIENT = Role.CLIENT

CONNECTING = State.CONNECTING
OPEN = State.OPEN
CLOSING = State.CLOSING
CLOSED = State.CLOSED

#: In ``data_to_send``: end the sending direction of the transport.
SEND_EOF = b""

#: The engine's words that are others here.
_WORDS = {
    "close frame with half a code": "close frame too short",
    "invalid close code": "invalid status code",
}


class Protocol:
    """One connection, open from the start unless ``state`` says otherwise; without I/O and without time.

    ``max_size``: bytes of a message, or ``(message, frame)``, after inflate; None lifts a limit. Feed ``receive_data``
    and ``receive_eof``, then take ``data_to_send`` and ``events_received``; errors of the peer do not raise, they are
    told by ``parser_exc`` and answered. Frames are told as they came: text as bytes, which are valid UTF-8 however they
    are cut, and messages not joined.

    ``state`` may be assigned, by whoever makes the opening handshake himself. ``extensions`` must be there before the
    first frame is received.
    """

    def __init__(
        self,
        side: Side,
        *,
        state: State = OPEN,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        self.id = uuid.uuid4()
        self.logger: LoggerLike = logging.getLogger(f"websockets.{side.name.lower()}") if logger is None else logger
        self.debug = self.logger.isEnabledFor(logging.DEBUG)
        self.side = side
        self.state = state
        self.max_message_size, self.max_fragment_size = max_size if isinstance(max_size, tuple) else (max_size, None)
        # of the fragmented message that is received, so far; and whether one is sent
        self.current_size: int | None = None
        self.expect_continuation_frame = False
        # what was agreed on
        self.origin: Origin | None = None
        self.extensions: list[Extension] = []
        self.subprotocol: Subprotocol | None = None
        # how it ended
        self.close_rcvd: Close | None = None
        self.close_sent: Close | None = None
        self.close_rcvd_then_sent: bool | None = None
        #: Why there was no opening handshake, and what the peer did wrong after it.
        self.handshake_exc: Exception | None = None
        self.parser_exc: Exception | None = None
        self.eof_sent = False
        # what nobody has taken yet
        self.events: list[Event] = []
        self.writes: list[bytes] = []
        # who reads what arrives: one of these at a time, none at the start and at the end
        self._engine: Connection | None = None
        self._frames: Generator[None, None, None] | None = None
        self._handshaking = False
        self._discarding = False
        self._reader = StreamReader()
        self._masking = side is CLIENT

    # -- state -----------------------------------------------------------------

    @property
    def state(self) -> State:
        """CONNECTING; OPEN; CLOSING once a Close frame was sent; CLOSED once the transport has ended."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if self.debug:
            self.logger.debug("= connection is %s", state.name)
        self._state = state

    @property
    def close_code(self) -> int | None:
        """The peer's close code when CLOSED, 1006 if it sent no Close frame (RFC 6455 7.1.5); None before."""
        if self._state is not CLOSED:
            return None
        return CloseCode.ABNORMAL_CLOSURE if self.close_rcvd is None else self.close_rcvd.code

    @property
    def close_reason(self) -> str | None:
        """The peer's close reason when CLOSED (RFC 6455 7.1.6); None before."""
        if self._state is not CLOSED:
            return None
        return "" if self.close_rcvd is None else self.close_rcvd.reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """A new exception that tells how the connection ended, caused by ``parser_exc``. InvalidState before CLOSED."""
        if self._state is not CLOSED:
            raise InvalidState("connection isn't closed yet")
        rcvd, sent = self.close_rcvd, self.close_sent
        normal = rcvd is not None and sent is not None and {rcvd.code, sent.code} <= OK_CLOSE_CODES
        exc = (ConnectionClosedOK if normal else ConnectionClosedError)(rcvd, sent, self.close_rcvd_then_sent)
        exc.__cause__ = self.parser_exc
        return exc

    def close_expected(self) -> bool:
        """Whether the transport should end soon: if it does not, close it."""
        return self._state is CLOSING or (self._state is CONNECTING and self.eof_sent)

    # -- bytes in --------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what the transport received. Raises EOFError after ``receive_eof``."""
        engine = self._engine
        if engine is None:
            engine, data = self._receive_otherwise(data)
            if engine is None:
                return
        engine.receive_data(data)
        for event in engine.events():
            if type(event) is not Fragment:
                self._receive_event(event)
                continue
            fragment = event
            # A call of the class costs twice as much; its fields that are not set here have their defaults.
            frame = Frame.__new__(Frame)
            frame.opcode = fragment.opcode if fragment.first else CONT
            frame.data = fragment.data  # type: ignore[assignment] # bytes, since we do not decode text
            frame.fin = fragment.fin
            if self.debug:
                self.logger.debug("< %s", frame)
            if not (fragment.first and fragment.fin):
                self._count_fragment(frame)
            self.events.append(frame)

    def receive_eof(self) -> None:
        """The transport delivers no more bytes. Once is enough."""
        if self._reader.eof:
            return
        self._reader.feed_eof()
        if self._handshaking:
            self._end_handshake()
        elif not self._discarding:
            if self.debug:
                self.logger.debug("< EOF")
            self._end_frames()
        # RFC 6455 7.1.1: the server closes first
        if self.side is CLIENT and self._state is not CONNECTING:
            self.send_eof()
        self.state = CLOSED
        if self.side is SERVER:
            self.logger.info("connection closed")

    def _receive_otherwise(self, data: Any) -> tuple[Connection | None, Any]:
        """Take data that is not for the engine; returns the engine with the first that is."""
        if self._reader.eof:
            raise EOFError("stream ended")
        if self._handshaking:
            data = self._receive_handshake(data)
            if not data:
                return None, data
        if self._discarding:
            return None, data
        if self._frames is None:
            if self._state is not CONNECTING and self._is_known_to_engine():
                self._engine = self._new_engine()
                return self._engine, data
            self._frames = self._parse_frames()
        self._reader.feed_data(data)
        self._read_frames()
        return None, data

    def _receive_handshake(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take data of the opening handshake; returns what is behind it. Only sides have one."""
        raise NotImplementedError

    def _end_handshake(self) -> None:
        """The transport ended amid the opening handshake."""
        raise NotImplementedError

    def _end_frames(self) -> None:
        if self._frames is None:
            self._refuse(EOFError("unexpected end of stream"))
        else:
            self._read_frames()

    def _discard(self) -> None:
        """Take no notice of anything but the end of the transport from now on."""
        self._discarding = True
        self._handshaking = False
        self._engine = self._frames = None
        self._reader.discard()

    # -- frames of the engine --------------------------------------------------

    def _is_known_to_engine(self) -> bool:
        return [type(extension) for extension in self.extensions] in ([], [PerMessageDeflate])

    def _new_engine(self) -> Connection:
        deflate = None
        for extension in self.extensions:
            assert isinstance(extension, PerMessageDeflate)
            deflate = extension.contexts
        limits = _limits(self.max_message_size, self.max_fragment_size)
        # Pongs and Close frames are written here, so that nothing of what the engine would send is used.
        return Connection(
            self.side, limits=limits, deflate=deflate, decode_text=False, delivery="frame", auto_reply=False
        )

    def _receive_event(self, event: EngineEvent) -> None:
        if isinstance(event, Closed):
            assert isinstance(event.error, RemoteProtocolError)  # the engine sees neither our Close frames nor an end
            self._refuse(_translated(event.error, self.side is SERVER))
        elif isinstance(event, CloseReceived):
            payload = b"" if event.code == CloseCode.NO_STATUS_RCVD else Close(event.code, event.reason).serialize()
            try:
                self._receive_frame(Frame(CLOSE, payload))
            except ProtocolError as exc:
                self._refuse(exc)
        else:
            assert isinstance(event, (Ping, Pong))
            self._receive_frame(Frame(PING if isinstance(event, Ping) else PONG, event.payload))

    # -- frames read one by one ------------------------------------------------

    def _parse_frames(self) -> Generator[None, None, None]:
        while not self._discarding:
            if (yield from self._reader.at_eof()):
                raise EOFError("unexpected end of stream")
            frame = yield from Frame.parse(
                self._reader.read_exact,
                mask=self.side is SERVER,
                max_size=self._room(),
                extensions=self.extensions,
            )
            self._receive_frame(frame)

    def _room(self) -> int | None:
        """How long the next frame may be."""
        message, frame = self.max_message_size, self.max_fragment_size
        if message is None:
            return frame
        message -= self.current_size or 0
        return message if frame is None else min(message, frame)

    def _read_frames(self) -> None:
        assert self._frames is not None
        try:
            next(self._frames, None)
        except PayloadTooBig as exc:
            before = self.current_size or 0
            if self.max_message_size is not None and exc.max_size == self.max_message_size - before:
                exc = PayloadTooBig(exc.size, self.max_message_size, before)
            self._refuse(exc)
        except (ProtocolError, UnicodeDecodeError, EOFError) as exc:
            self._refuse(exc)
        except Exception as exc:  # of somebody's extension
            self.logger.error("parser failed", exc_info=True)
            self.fail(CloseCode.INTERNAL_ERROR)
            self.parser_exc = exc

    # -- what frames mean ------------------------------------------------------

    def _receive_frame(self, frame: Frame) -> None:
        if self.debug:
            self.logger.debug("< %s", frame)
        if frame.opcode is PING:
            self.send_frame(Frame(PONG, frame.data))  # RFC 6455 5.5.2
        elif frame.opcode is CLOSE:
            self._receive_close(frame)
        elif frame.opcode is not PONG:
            self._count_fragment(frame)
        self.events.append(frame)

    def _count_fragment(self, frame: Frame) -> None:
        # RFC 6455 5.4: fragments of one message must not be interleaved with those of another
        if frame.opcode is CONT:
            if self.current_size is None:
                raise ProtocolError("unexpected continuation frame")
        elif self.current_size is not None:
            raise ProtocolError("expected a continuation frame")
        self.current_size = None if frame.fin else (self.current_size or 0) + len(frame.data)

    def _receive_close(self, frame: Frame) -> None:
        self.close_rcvd = Close.parse(frame.data)
        if self._state is CLOSING:
            self.close_rcvd_then_sent = False
        if self.current_size is not None:
            raise ProtocolError("incomplete fragmented message")
        if self._state is OPEN:
            self._send_close(self.close_rcvd, frame.data)  # RFC 6455 5.5.1
        if self.side is SERVER:
            self.send_eof()  # RFC 6455 7.1.1
        self._discard()

    def _refuse(self, exc: Exception) -> None:
        """RFC 6455 7.1.7, for an error of the peer."""
        reason = str(exc)
        if isinstance(exc, PayloadTooBig):
            code = CloseCode.MESSAGE_TOO_BIG
        elif isinstance(exc, EOFError):
            code = CloseCode.ABNORMAL_CLOSURE
        elif isinstance(exc, UnicodeDecodeError):
            code = CloseCode.INVALID_DATA
            reason = f"{exc.reason} at position {exc.start}"
        else:
            code = CloseCode.PROTOCOL_ERROR
        self.fail(code, cut_reason(reason))
        self.parser_exc = exc

    # -- frames out ------------------------------------------------------------

    def send_continuation(self, data: BytesLike, fin: bool) -> None:
        """Send a frame that goes on with a fragmented message, or ends it with ``fin``.

        This and the other methods raise ProtocolError when such a frame must not come now, InvalidState when the
        connection is not open; nothing is sent then.
        """
        if not self.expect_continuation_frame:
            raise ProtocolError("unexpected continuation frame")
        self._send_data(CONT, data, fin)

    def send_text(self, data: BytesLike, fin: bool = True) -> None:
        """Send a text message in UTF-8, which is not checked, or the first frame of one."""
        if self.expect_continuation_frame:
            raise ProtocolError("expected a continuation frame")
        self._send_data(TEXT, data, fin)

    def send_binary(self, data: BytesLike, fin: bool = True) -> None:
        """Send a binary message, or the first frame of one."""
        if self.expect_continuation_frame:
            raise ProtocolError("expected a continuation frame")
        self._send_data(BINARY, data, fin)

    def _send_data(self, opcode: Opcode, data: Any, fin: bool) -> None:
        if self._state is not OPEN:
            raise self._not_in_state()
        if self.extensions or self.debug or type(data) is str:
            self.send_frame(Frame(opcode, data, fin))
        else:
            first = opcode | FIN if fin else opcode
            self.writes.append(build_frame(first, data, new_key() if self._masking else NO_KEY))
        self.expect_continuation_frame = not fin

    def send_ping(self, data: BytesLike) -> None:
        """Send a Ping with a payload of at most 125 bytes; also after a Close frame, while CLOSING."""
        self._send_control(Frame(PING, data))

    def send_pong(self, data: BytesLike) -> None:
        """Send a Pong, beside those that answer Pings; likewise."""
        self._send_control(Frame(PONG, data))

    def _send_control(self, frame: Frame) -> None:
        if self._state is not OPEN and self._state is not CLOSING:
            raise self._not_in_state()
        self.send_frame(frame)

    def send_close(self, code: CloseCode | int | None = None, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 7.1.2). Raises ProtocolError for a code that must not be sent, a reason
        without a code, or one of more than 123 bytes."""
        if self._state is not OPEN:
            raise self._not_in_state()
        if code is None:
            if reason:
                raise ProtocolError("cannot send a reason without a code")
            self._send_close(Close(CloseCode.NO_STATUS_RCVD, ""), b"")
        else:
            close = Close(code, reason)
            self._send_close(close, close.serialize())

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 7.1.7): send a Close frame if it is open, take nothing more.

        1006 sends no Close frame. Raises ProtocolError as ``send_close`` does.
        """
        if self._state is OPEN and code != CloseCode.ABNORMAL_CLOSURE:
            close = Close(code, reason)
            self._send_close(close, close.serialize())
        if self.side is SERVER:
            self.send_eof()
        self._discard()

    def _send_close(self, close: Close, payload: BytesLike) -> None:
        self.send_frame(Frame(CLOSE, payload))
        self.close_sent = close
        if self.close_rcvd is not None:
            self.close_rcvd_then_sent = True
        self.state = CLOSING

    def send_frame(self, frame: Frame) -> None:
        """Queue a frame, whatever the state."""
        if self.debug:
            self.logger.debug("> %s", frame)
        self.writes.append(frame.serialize(mask=self._masking, extensions=self.extensions))

    def send_eof(self) -> None:
        """End the sending direction of the transport, once."""
        if self.eof_sent:
            return
        self.eof_sent = True
        if self.debug:
            self.logger.debug("> EOF")
        self.writes.append(SEND_EOF)

    def _log_headers(self, direction: str, headers: Headers) -> None:
        for name, value in headers.raw_items():
            self.logger.debug("%s %s: %s", direction, name, value)

    def _not_in_state(self) -> InvalidState:
        return InvalidState(f"connection is {self._state.name.lower()}")

    # -- what is there ---------------------------------------------------------

    def events_received(self) -> list[Event]:
        """What was received since the last call."""
        events = self.events
        self.events = []
        return events

    def data_to_send(self) -> list[bytes]:
        """What to write to the transport, one frame or HTTP head in each element; ``SEND_EOF`` may be the last."""
        writes = self.writes
        self.writes = []
        return writes


@functools.lru_cache
def _limits(max_message_size: int | None, max_fragment_size: int | None) -> Limits:
    # How many frames a message has, and how often somebody pings, is for the owner of the frames to judge.
    return Limits(
        max_message_size=max_message_size,
        max_fragment_size=max_fragment_size,
        max_fragments=None,
        max_control_rate=None,
    )


def _translated(error: RemoteProtocolError, from_client: bool) -> Exception:
    """The engine's error as it is told here."""
    reason, refused = error.reason, error.refused
    if isinstance(error, PayloadTooBig):
        return error
    if error.code == CloseCode.INVALID_DATA:
        try:
            str(refused[2:] if "close" in reason else refused, "utf-8")
        except UnicodeDecodeError as exc:
            return exc
        # a character that one frame began and the next one does not go on with
        return UnicodeDecodeError("utf-8", refused, 0, 1, "invalid continuation byte")
    if "close" in reason:
        reason = _WORDS[reason.partition(":")[0]]
    elif len(refused) > 1:  # a header, and all that is wrong with it: this order is known
        if refused[0] & 0x0F not in set(Opcode):
            reason = "invalid opcode"
        elif (refused[1] >= 0x80) != from_client:
            reason = "incorrect masking"
    return ProtocolError(reason)
