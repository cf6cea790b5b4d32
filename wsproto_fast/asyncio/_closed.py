"""How an engine's end is told to the user. Knows the exceptions; knows no transport."""

from __future__ import annotations

from ..connection import Connection as Engine
from ..constants import CloseCode
from ..exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

__all__ = ["closed_exception"]

_NORMAL = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD)


def closed_exception(engine: Engine) -> ConnectionClosed:
    """A new ConnectionClosedOK if both Close frames were exchanged with normal codes, else a ConnectionClosedError."""
    rcvd, sent = engine.close_rcvd, engine.close_sent
    normal = rcvd is not None and sent is not None and rcvd.code in _NORMAL and sent.code in _NORMAL
    error = (ConnectionClosedOK if normal else ConnectionClosedError)(rcvd, sent, engine.close_rcvd_then_sent)
    error.__cause__ = engine.close_error
    return error
