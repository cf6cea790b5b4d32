"""The vocabulary of RFC 6455: opcodes, close codes, roles, states. Knows no bytes and no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Close", "CloseCode", "CloseTransport", "Opcode", "Role", "SendStatus", "State"]


class Opcode(enum.IntEnum):
    """Frame types (RFC 6455 11.8)."""

    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(enum.IntEnum):
    """Registered close codes (RFC 6455 7.4.1 and the IANA registry)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


class Role(enum.IntEnum):
    """Which end of the connection we are. Clients mask what they send (RFC 6455 5.1)."""

    SERVER = 0
    CLIENT = 1


class State(enum.IntEnum):
    """State of a connection (RFC 6455 4.1, 7.1)."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class CloseTransport(enum.IntEnum):
    """What the owner of the transport must do with it now, after writing all output. Only grows."""

    KEEP = 0  # go on
    SHUTDOWN = 1  # end the sending direction; go on reading until EOF or the next deadline
    CLOSE = 2  # close both directions
    ABORT = 3  # drop it at once, without waiting for unsent output


class SendStatus(enum.IntEnum):
    """What became of a message that ``try_send`` was given. FULL is false."""

    FULL = 0  # not taken: the peer does not read what was sent before, or a fragmented message is under way
    QUEUED = 1  # taken; it waits for the transport
    SENT = 2  # handed to the operating system


# Plain integers for the engine's inner loops; the compiled modules keep them in C variables.
NO_MESSAGE = 0
CONT = int(Opcode.CONT)
TEXT = int(Opcode.TEXT)
BINARY = int(Opcode.BINARY)
CLOSE = int(Opcode.CLOSE)
PING = int(Opcode.PING)
PONG = int(Opcode.PONG)
CONTROL = 0x08  # the bit of an opcode that makes it a control frame (RFC 6455 5.5)
FIN = 0x80  # bits of a frame's first byte
RSV1 = 0x40

# When data is delivered: at the end of a message, of each frame, or as soon as bytes arrive.
MESSAGES = 0
FRAMES = 1
CHUNKS = 2

# What a message counts beside its bytes, in budgets and queues; and the budget that is none.
MESSAGE_COST = 100
NO_BUDGET = -1

# What one task or callback may take before others get a turn, in bytes, with MESSAGE_COST for each message: under 1 ms.
TURN = 2**16

# Output that may wait a little, so that messages leave together, in bytes. And how many messages may be sent before
# other tasks get a turn, although the transport takes them all: about 1 ms.
CORK_SIZE = 2**16
BURST = 128

_CLOSE_CODE_WORDS = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}


@dataclass(frozen=True)
class Close:
    """Code and reason of one Close frame. A frame without a code is ``Close(1005, "")``."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:
            words = "registered"
        elif 4000 <= self.code < 5000:
            words = "private use"
        else:
            words = _CLOSE_CODE_WORDS.get(self.code, "unknown")  # type: ignore[call-overload]
        text = f"{self.code} ({words})"
        return f"{text} {self.reason}" if self.reason else text
