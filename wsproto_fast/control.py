"""Payloads of control frames: which close codes, reasons and pings are legal. Knows no frames and no state."""

from __future__ import annotations

from ._codec import utf8_valid
from .constants import Close, CloseCode
from .exceptions import LocalProtocolError, RemoteProtocolError

__all__ = ["checked_close", "close_payload", "control_payload", "cut_reason", "encode", "is_normal", "parse_close"]


def _in_a_frame(code: int) -> bool:
    # RFC 6455 7.4 and the IANA registry: 1004 is reserved; 1005, 1006 and 1015 never stand in a frame
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def is_normal(close: Close) -> bool:
    """Whether a Close frame tells of no error: 1000, 1001 or no code."""
    return close.code in (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)


def parse_close(payload: bytes) -> Close:
    """What a received Close frame says (RFC 6455 5.5.1); RemoteProtocolError if it must not say that."""
    if not payload:
        return Close(int(CloseCode.NO_STATUS_RCVD))
    if len(payload) == 1:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "close frame with half a code", payload)
    code = int.from_bytes(payload[:2], "big")
    if not _in_a_frame(code):
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"invalid close code: {code}", payload)
    if not utf8_valid(payload[2:]):
        raise RemoteProtocolError(CloseCode.INVALID_DATA, "invalid UTF-8 in close reason", payload)
    return Close(code, str(payload[2:], "utf-8"))


def checked_close(code: int, reason: str) -> Close:
    """What our user wants to send; LocalProtocolError if it must not be sent."""
    if code == CloseCode.NO_STATUS_RCVD:
        if reason:
            raise LocalProtocolError("a close frame without a code cannot carry a reason")
    elif not _in_a_frame(code):
        raise LocalProtocolError(f"close code {int(code)} must not be sent; use 1000-1003, 1007-1014 or 3000-4999")
    if len(encode(reason)) > 123:
        raise LocalProtocolError("a close reason has at most 123 bytes")
    return Close(int(code), reason)


def close_payload(close: Close) -> bytes:
    """The payload of a Close frame; 1005 stands for none."""
    if close.code == CloseCode.NO_STATUS_RCVD:
        return b""
    return close.code.to_bytes(2, "big") + close.reason.encode()


def cut_reason(reason: str) -> str:
    """As much of ``reason`` as a Close frame holds, cut between two characters."""
    return str(reason.encode()[:123], "utf-8", "ignore")


def control_payload(payload: str | bytes | bytearray | memoryview) -> bytes:
    """The payload of a Ping or Pong of our user; LocalProtocolError if it is too long."""
    data = encode(payload) if isinstance(payload, str) else bytes(memoryview(payload))
    if len(data) > 125:  # RFC 6455 5.5
        raise LocalProtocolError("a control frame carries at most 125 bytes")
    return data


def encode(text: str) -> bytes:
    """``text`` in UTF-8; LocalProtocolError for lone surrogates."""
    try:
        return str.encode(text)  # TypeError for what is no str
    except UnicodeEncodeError as error:
        raise LocalProtocolError("text must be valid Unicode: it has a lone surrogate") from error
