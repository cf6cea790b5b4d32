"""Frozen settings of the engine, each default with its reason. Knows no behaviour."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["DeflateConfig", "Keepalive", "Limits"]


#: Stands for "no limit" inside the engine; leaves room for sums in 64 bits.
NO_LIMIT = 2**62


def bounded(limit: int | None) -> int:
    """A limit as the engine counts with it."""
    return NO_LIMIT if limit is None else min(limit, NO_LIMIT)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Limits:
    """What a peer may make us hold or do. Sizes are bytes, times are seconds; ``None`` lifts a limit, but those of the
    HTTP head cannot be lifted.

    Raises ValueError when a limit is negative.
    """

    #: A whole message, after inflate. 1 MiB, as in websockets.
    max_message_size: int | None = 2**20
    #: One frame's payload, after inflate. ``None``: only the message counts.
    max_fragment_size: int | None = None
    #: Frames of one message, empty ones included: 4096 need little work, 131072 were an attack on ws.
    max_fragments: int | None = 4096
    #: Wire bytes kept unread while messages are paused, so that control frames behind them are still seen.
    max_read_ahead: int | None = 2**16
    #: Control frames in any one second. Real peers send a few a minute, a ping flood hundreds of thousands.
    max_control_rate: int | None = 10_000
    #: Waiting for the peer's Close frame, and then for the end of its transport. 10 s, as in websockets.
    close_timeout: float | None = 10.0
    #: From the first byte to the end of the opening handshake. Kept by the adapters.
    open_timeout: float | None = 10.0
    #: One line of an HTTP head, a whole head, its number of headers, the body of a refusal.
    max_line_size: int = 8192
    max_head_size: int = 2**16
    max_headers: int = 128
    max_body_size: int = 2**16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check(value is None or value >= 0, f"{name} must not be negative; None lifts a limit")
        for name in ("max_line_size", "max_head_size", "max_headers", "max_body_size"):
            _check(getattr(self, name) is not None, f"{name} cannot be lifted")


@dataclass(frozen=True)
class Keepalive:
    """When to ping, and how long a silent peer is trusted. Times in seconds; ``None`` switches a part off.

    Any received byte proves that the peer lives. Time in which we did not read, because the application had paused
    or the event loop was late, is not counted against it.
    """

    #: Time between two pings. 20 s stays under the idle timeouts of common proxies (30-60 s).
    ping_interval: float | None = 20.0
    #: Silence after a ping that ends the connection with 1011.
    ping_timeout: float | None = 20.0
    #: Called for each heartbeat: ``bytes`` are the payload of its Ping (at most 125, and new each time); a ``str`` is
    #: sent as a text message in its place, for peers that answer to their own kind. ``None``: four random bytes.
    payload: Callable[[], str | bytes] | None = None

    def __post_init__(self) -> None:
        for name in ("ping_interval", "ping_timeout"):
            value = getattr(self, name)
            _check(value is None or value > 0, f"{name} must be positive; None switches it off")


@dataclass(frozen=True)
class DeflateConfig:
    """What to offer or accept of permessage-deflate (RFC 7692), and how to compress.

    The defaults hold a used connection under 64 KiB: a 12-bit window costs 1.5 % of compression on JSON
    messages of 1 KiB and saves 230 KiB a connection against zlib's own defaults.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    #: 8-15, LZ77 windows of 2**bits bytes. 8 is Huffman coding only, because zlib has no raw deflate with it.
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    #: zlib's level (``None``: the module's default), memLevel and strategy.
    level: int | None = None
    mem_level: int = 5
    strategy: int = 0
    #: Messages shorter than this are sent plain unless ``compress=True``: deflate wins nothing on them.
    threshold: int = 64
    #: Seconds after which unused compression contexts are released. ``None``: never.
    idle_release: float | None = 60.0
    #: A module with zlib's interface (``zlib_ng.zlib_ng``, ``isal.isal_zlib``). ``None``: zlib.
    zlib: Any = None

    def __post_init__(self) -> None:
        for name in ("server_max_window_bits", "client_max_window_bits"):
            _check(8 <= getattr(self, name) <= 15, f"{name} must be between 8 and 15")
        _check(1 <= self.mem_level <= 9, "mem_level must be between 1 and 9")
        _check(self.threshold >= 0, "threshold must not be negative")
        _check(self.idle_release is None or self.idle_release > 0, "idle_release must be positive, or None")
        module = zlib if self.zlib is None else self.zlib
        try:  # else a wrong level would only be found by the first message that is compressed
            level = module.Z_DEFAULT_COMPRESSION if self.level is None else self.level
            module.compressobj(level, module.DEFLATED, -9, self.mem_level, self.strategy)
        except (ValueError, module.error) as error:
            raise ValueError(f"{module.__name__} knows no such level ({self.level}) or strategy") from error
