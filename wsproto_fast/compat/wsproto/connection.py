"""wsproto's Connection over the engine: bytes to wsproto's events, and back. Knows states; knows no handshake.

The engine reads, in pieces as they arrive, and answers nothing by itself. Frames to be sent are made one by one by
``frame_protocol``, because wsproto hands out the bytes of each event, and goes on sending after the peer broke the
protocol. A connection with an extension of somebody else's is read by ``frame_protocol`` as well.
"""

from __future__ import annotations

import codecs
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from ... import connection as engine
from ...constants import Role
from ...deflate import DeflateParameters
from ...deflate import PerMessageDeflate as Inflater
from ...events import Closed, CloseReceived, Fragment
from ...events import Ping as PingReceived
from ...events import Pong as PongReceived
from ...exceptions import RemoteProtocolError, WebSocketException
from ...limits import Limits
from .events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from .extensions import PerMessageDeflate
from .frame_protocol import (
    CloseReason,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    ParseFailed,
    close_reason,
    out_of_order,
    parse_close,
)
from .utilities import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Generator

    from .extensions import Extension

__all__ = ["CLIENT", "SERVER", "Connection", "ConnectionState", "ConnectionType"]

# Pieces are told as they come and not kept: what is too much is for the embedder to say, as with wsproto.
_LIMITS = Limits(max_message_size=None, max_fragments=None, max_control_rate=None)


class ConnectionState(Enum):
    """State of a connection, or of its handshake."""

    CONNECTING = 0  # the opening handshake is under way
    OPEN = 1
    REMOTE_CLOSING = 2  # the peer's Close frame came, ours was not sent
    LOCAL_CLOSING = 3  # the other way round
    CLOSED = 4
    REJECTING = 5  # the handshake failed; a response body is under way


class ConnectionType(Enum):
    """Which end of the connection we are."""

    CLIENT = 1
    SERVER = 2


CLIENT = ConnectionType.CLIENT
SERVER = ConnectionType.SERVER

_OPEN = ConnectionState.OPEN
_REMOTE_CLOSING = ConnectionState.REMOTE_CLOSING
_LOCAL_CLOSING = ConnectionState.LOCAL_CLOSING
_CLOSED = ConnectionState.CLOSED


class Connection:
    """One connection after its opening handshake.

    ``extensions`` belong to this connection alone; those that are not enabled are passed over. ``trailing_data`` is
    what the handshake read beyond its end.
    """

    def __init__(
        self,
        connection_type: ConnectionType,
        extensions: list[Extension] | None = None,
        trailing_data: bytes = b"",
    ) -> None:
        self.client = connection_type is ConnectionType.CLIENT
        self._events: deque[Event] = deque()  # told first; embedders put events of their own here
        self._proto = FrameProtocol(self.client, extensions or [])
        self._engine = _reader(self.client, self._proto.extensions)
        self._state = _OPEN
        self.receive_data(trailing_data)

    @property
    def state(self) -> ConnectionState:
        """OPEN until a Close frame is sent, or the event for the peer's is told; CLOSED after both, or at the end of
        the transport."""
        return self._state

    def send(self, event: Event) -> bytes:
        """The bytes of an event. Raises LocalProtocolError when the state does not allow it."""
        if self._state is _OPEN:
            if isinstance(event, Message):
                return self._proto.send_data(event.data, event.message_finished)
            if isinstance(event, Ping):
                return self._proto.ping(event.payload)
            if isinstance(event, Pong):
                return self._proto.pong(event.payload)
        if isinstance(event, CloseConnection) and self._state in (_OPEN, _REMOTE_CLOSING):
            data = self._proto.close(event.code, event.reason)
            self._state = _LOCAL_CLOSING if self._state is _OPEN else _CLOSED
            return data
        raise LocalProtocolError(f"Event {event} cannot be sent in state {self.state}.")

    def receive_data(self, data: bytes | None) -> None:
        """Take bytes from the transport; None: it has ended. Ask for ``events`` then.

        ``bytes`` may be kept by reference, anything else is copied. Raises LocalProtocolError when the connection is
        closed; ignores bytes behind the peer's Close frame.
        """
        if data is None:
            # RFC 6455 7.1.5: no Close frame came, so the code is 1006
            self._events.append(CloseConnection(code=CloseReason.ABNORMAL_CLOSURE))
            self._state = _CLOSED
        elif self._state is _OPEN or self._state is _LOCAL_CLOSING:
            if self._engine is not None:
                self._engine.receive_data(data)
            else:
                self._proto.receive_bytes(data)
        elif self._state is _CLOSED:
            raise LocalProtocolError("Connection already closed.")

    def events(self) -> Generator[Event, None, None]:
        """The events that are there. One that is not taken stays for the next call.

        When the peer broke the protocol the last one is a CloseConnection to be sent; the state is still OPEN.
        """
        waiting = self._events
        while waiting:
            yield waiting.popleft()
        if self._engine is None:
            yield from self._events_of_frames()
            return
        next_event = self._engine.next_event
        while True:
            event = next_event()
            if isinstance(event, Fragment):
                data = event.data
                if isinstance(data, str):
                    yield TextMessage(data) if event.fin else TextMessage(data, event.frame_fin, False)
                else:
                    yield BytesMessage(data) if event.fin else BytesMessage(data, event.frame_fin, False)
            elif event is None:
                return
            elif isinstance(event, PingReceived):
                yield Ping(event.payload)
            elif isinstance(event, PongReceived):
                yield Pong(event.payload)
            elif isinstance(event, CloseReceived):
                yield self._close_received(event.code, event.reason)
            else:
                assert isinstance(event, Closed)
                yield self._failed(event.error)

    def _close_received(self, code: int, reason: str) -> CloseConnection:
        self._state = _CLOSED if self._state is _LOCAL_CLOSING else _REMOTE_CLOSING
        return CloseConnection(code=close_reason(code), reason=reason)

    def _failed(self, error: WebSocketException | None) -> CloseConnection:
        assert self._engine is not None
        assert isinstance(error, RemoteProtocolError)  # the engine is never told of an end, so this was the peer
        self._engine.data_to_send()  # its Close frame; ours is sent by the embedder
        failure = _parse_failed(error, FrameDecoder(self.client, self._proto.extensions))
        return CloseConnection(code=failure.code, reason=str(failure))

    def _events_of_frames(self) -> Generator[Event, None, None]:
        try:
            for opcode, payload, frame_finished, message_finished in self._proto.received_frames():
                if isinstance(payload, str):
                    yield TextMessage(payload, frame_finished, message_finished)
                elif isinstance(payload, tuple):
                    yield self._close_received(*payload)
                elif opcode is Opcode.BINARY:
                    yield BytesMessage(payload, frame_finished, message_finished)
                else:
                    yield Ping(payload) if opcode is Opcode.PING else Pong(payload)
        except ParseFailed as failure:
            yield CloseConnection(code=failure.code, reason=str(failure))


def _reader(client: bool, extensions: list[Extension]) -> engine.Connection | None:
    """The engine for these extensions; None where it does not know one of them."""
    role = Role.CLIENT if client else Role.SERVER
    deflate = None
    if extensions:
        extension = extensions[0]
        if len(extensions) > 1 or type(extension) is not PerMessageDeflate:
            return None
        parameters = DeflateParameters(
            extension.server_no_context_takeover,
            extension.client_no_context_takeover,
            extension.server_max_window_bits,
            extension.client_max_window_bits,
        )
        deflate = Inflater(role, parameters)
    return engine.Connection(role, limits=_LIMITS, deflate=deflate, delivery="chunk", auto_reply=False)


def _parse_failed(error: RemoteProtocolError, decoder: FrameDecoder) -> ParseFailed:
    """The engine's refusal in wsproto's words. ``decoder`` is a new one, with the connection's extensions."""
    try:
        if "text message" in error.reason:
            codecs.utf_8_decode(error.refused, "strict", True)
        elif "close" in error.reason:
            parse_close(error.refused)
        elif "continuation" in error.reason:
            return out_of_order(Opcode(error.refused[0]))
        elif error.refused:
            decoder.receive_bytes(error.refused)
            decoder.process_buffer()
        elif error.code != CloseReason.MESSAGE_TOO_BIG:  # permessage-deflate
            return ParseFailed("error in extension", CloseReason.INVALID_FRAME_PAYLOAD_DATA)
    except UnicodeDecodeError as invalid:
        return ParseFailed(str(invalid), CloseReason.INVALID_FRAME_PAYLOAD_DATA)
    except ParseFailed as failure:
        return failure
    return ParseFailed(error.reason, CloseReason(error.code))
