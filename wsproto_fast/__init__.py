"""wsproto_fast: a WebSocket engine (RFC 6455, RFC 7692) without I/O.

The names here need no event loop, socket or thread. For ready-made connections see ``wsproto_fast.asyncio``.
"""

from __future__ import annotations

from ._codec import COMPILED, simd_level
from .connection import Connection, Stats
from .constants import Close, CloseCode, CloseTransport, Opcode, Role, SendStatus, State
from .deflate import DeflateParameters, PerMessageDeflate
from .events import Closed, CloseReceived, Event, Fragment, Message, Ping, Pong
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    LocalProtocolError,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    RemoteProtocolError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyFragments,
    TooManyHeaders,
    WebSocketException,
)
from .handshake import ClientHandshake, ServerHandshake
from .http11 import Headers, MultipleValuesError, Request, Response
from .limits import DeflateConfig, Keepalive, Limits
from .prepared import PreparedMessage
from .uri import WebSocketURI, parse_uri

__version__ = "0.1.0"

__all__ = [
    "COMPILED",
    "ClientHandshake",
    "Close",
    "CloseCode",
    "CloseReceived",
    "CloseTransport",
    "Closed",
    "ConcurrencyError",
    "Connection",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DeflateConfig",
    "DeflateParameters",
    "DuplicateParameter",
    "Event",
    "Fragment",
    "HeaderLineTooLong",
    "Headers",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "Keepalive",
    "Limits",
    "LocalProtocolError",
    "Message",
    "MultipleValuesError",
    "NegotiationError",
    "Opcode",
    "PayloadTooBig",
    "PerMessageDeflate",
    "Ping",
    "Pong",
    "PreparedMessage",
    "ProtocolError",
    "RemoteProtocolError",
    "Request",
    "RequestLineTooLong",
    "Response",
    "Role",
    "SecurityError",
    "SendStatus",
    "ServerHandshake",
    "State",
    "Stats",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
    "WebSocketURI",
    "__version__",
    "parse_uri",
    "simd_level",
]
