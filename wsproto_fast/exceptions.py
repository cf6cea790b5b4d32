"""Every exception of the package. Two families: our user's mistakes and the peer's. Knows no bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .constants import Close, CloseCode

if TYPE_CHECKING:
    from .http11 import Response

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeaderLineTooLong",
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
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "LocalProtocolError",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RemoteProtocolError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
]


class WebSocketException(Exception):
    """Base of every exception defined here."""


class ConnectionClosed(WebSocketException):
    """The connection is closed. Its cause, if any, is the error that closed it.

    ``rcvd`` and ``sent`` are the Close frames received and sent, or None; ``rcvd_then_sent`` tells their order and is
    None when either is missing.
    """

    def __init__(self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    def __str__(self) -> str:
        if self.rcvd is None:
            if self.sent is None:
                return "no close frame received or sent"
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"

    @property
    def code(self) -> int:
        """The peer's close code, 1006 when it sent none (RFC 6455 7.1.5)."""
        return CloseCode.ABNORMAL_CLOSURE if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The peer's close reason (RFC 6455 7.1.6)."""
        return "" if self.rcvd is None else self.rcvd.reason


class ConnectionClosedOK(ConnectionClosed):
    """Both Close frames were exchanged, each with 1000, 1001 or no code."""


class ConnectionClosedError(ConnectionClosed):
    """The connection ended in any other way: an error code, or no Close frame at all."""


class InvalidURI(WebSocketException, ValueError):
    """Not a usable ws:// or wss:// URI."""

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.uri} isn't a valid URI: {self.msg}"


class InvalidProxy(WebSocketException, ValueError):
    """Not a usable address of a proxy."""

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.proxy} isn't a valid proxy: {self.msg}"


class InvalidHandshake(WebSocketException):
    """Base of everything that can go wrong in the opening handshake."""


class SecurityError(InvalidHandshake):
    """A handshake request or response breaks a security rule or a limit."""


class RequestLineTooLong(SecurityError):
    """The request line exceeds ``Limits.max_line_size``; answered with 414."""


class StatusLineTooLong(SecurityError):
    """The status line exceeds ``Limits.max_line_size``."""


class HeaderLineTooLong(SecurityError):
    """A header line, or the whole head, exceeds its limit; answered with 431."""


class TooManyHeaders(SecurityError):
    """More headers than ``Limits.max_headers``; answered with 431."""


class ProxyError(InvalidHandshake):
    """A proxy could not be used; the cause, if any, says why."""


class InvalidProxyMessage(ProxyError):
    """The proxy's answer is not well-formed HTTP/1.1; the cause says why."""


class InvalidProxyStatus(ProxyError):
    """The proxy refuses to connect us. ``response`` is its whole answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


class InvalidMessage(InvalidHandshake):
    """The peer's request or response is not well-formed HTTP/1.1; the cause says why."""


class InvalidMethod(InvalidHandshake):
    """The request's method is not GET; answered with 405."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {self.method}"


class InvalidProtocol(InvalidHandshake):
    """The request's or response's protocol is not HTTP/1.1; a request is answered with 505."""

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {self.protocol}"


class InvalidStatus(InvalidHandshake):
    """The server answered with another status than 101. ``response`` is its whole answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"


class InvalidHeader(InvalidHandshake):
    """A header is missing, or its value is refused."""

    def __init__(self, name: str, value: str | None = None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if self.value == "":
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {self.value}"


class InvalidHeaderFormat(InvalidHeader):
    """A header cannot be parsed."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")


class InvalidHeaderValue(InvalidHeader):
    """A header has a well-formed value that makes no sense."""


class InvalidOrigin(InvalidHeader):
    """The Origin header is not allowed; answered with 403."""

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)


class InvalidUpgrade(InvalidHeader):
    """The Upgrade or Connection header does not ask for WebSocket; answered with 426."""


class NegotiationError(InvalidHandshake):
    """Subprotocols or extensions could not be agreed on."""


class DuplicateParameter(NegotiationError):
    """An extension parameter stands twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {self.name}"


class InvalidParameterName(NegotiationError):
    """An extension parameter has an unknown name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {self.name}"


class InvalidParameterValue(NegotiationError):
    """An extension parameter has a value out of its range."""

    def __init__(self, name: str, value: str | None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if self.value == "":
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {self.value}"


class ProtocolError(WebSocketException):
    """Base of the violations of RFC 6455 and RFC 7692."""


class LocalProtocolError(ProtocolError):
    """Our user asked for something that the protocol does not allow now. Nothing was changed or sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol or a limit. ``code`` is the close code that answers it.

    ``refused`` holds the bytes that are wrong, for whoever wants to say more: a frame's header (of a data frame that
    fits no message its opcode alone), the part of a text that is not UTF-8 where parts are told, or a Close frame's
    payload. Empty for anything else.
    """

    def __init__(self, code: int, reason: str, refused: bytes = b"") -> None:
        super().__init__(int(code), reason)
        self.code = int(code)
        self.reason = reason
        self.refused = refused

    def __str__(self) -> str:
        return self.reason


class PayloadTooBig(RemoteProtocolError):
    """A message exceeds ``Limits.max_message_size`` or a frame ``Limits.max_fragment_size``; closed with 1009.

    ``size`` is the announced size of the offending frame, or None when it is compressed and so unknown;
    ``current_size`` the size of the message before it.
    """

    def __init__(self, size: int | None, max_size: int, current_size: int = 0) -> None:
        frame = "frame" if size is None else f"frame with {size} bytes"
        before = f" after reading {current_size} bytes" if current_size else ""
        super().__init__(CloseCode.MESSAGE_TOO_BIG, f"{frame}{before} exceeds limit of {max_size} bytes")
        self.size = size
        self.max_size = max_size
        self.current_size = current_size

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size, self.max_size, self.current_size)


class TooManyFragments(RemoteProtocolError):
    """A message has more frames than ``Limits.max_fragments``; closed with 1009."""

    def __init__(self, max_fragments: int) -> None:
        super().__init__(CloseCode.MESSAGE_TOO_BIG, f"fragmented message exceeds limit of {max_fragments} frames")
        self.max_fragments = max_fragments

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_fragments,)


class InvalidState(LocalProtocolError, AssertionError):
    """The operation does not fit the state of the connection."""


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two tasks or threads do at once what only one may do at a time."""
