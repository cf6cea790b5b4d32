"""A test kit for programs that embed the engine. Needs neither a network nor, for most of it, any time.

``Pair``                a client and a server connected in memory, under a virtual clock
``ScriptedPeer``        the other end of a ``Connection`` as a script: frames that come, frames that must go;
``SocketPeer``          the same at the end of a socket
``Stream``, ``Faults``  a byte stream that splits, delays, stalls and cuts, the same way for the same seed
``HOSTILE_FRAMES``, ``HOSTILE_REQUESTS``, ``HOSTILE_RESPONSES``     what peers must not send, and what to answer
``LEGAL_FRAMES``, ``LEGAL_REQUESTS``                                what must be taken, however odd it looks
``check_connection``, ``check_server``, ``check_client``            put all of these to an engine, a server, a client

pytest finds fixtures for them by itself: see ``wsproto_fast._pytest_plugin``.
"""

from __future__ import annotations

from ._check import check_client, check_connection, check_server
from ._frames import BAD_UTF8, HOSTILE_FRAMES, LEGAL_FRAMES, FrameCase
from ._handshakes import (
    HOSTILE_REQUESTS,
    HOSTILE_RESPONSES,
    LEGAL_REQUESTS,
    RequestCase,
    ResponseCase,
    accept_for,
    request,
    response,
)
from ._pair import Pair
from ._peer import ScriptedPeer, SocketPeer
from ._stream import Faults, Stream
from ._wire import Frame, binary, close, continuation, encode_frame, ping, pong, text

__all__ = [
    "BAD_UTF8",
    "HOSTILE_FRAMES",
    "HOSTILE_REQUESTS",
    "HOSTILE_RESPONSES",
    "LEGAL_FRAMES",
    "LEGAL_REQUESTS",
    "Faults",
    "Frame",
    "FrameCase",
    "Pair",
    "RequestCase",
    "ResponseCase",
    "ScriptedPeer",
    "SocketPeer",
    "Stream",
    "accept_for",
    "binary",
    "check_client",
    "check_connection",
    "check_server",
    "close",
    "continuation",
    "encode_frame",
    "ping",
    "pong",
    "request",
    "response",
    "text",
]
