"""The keyword arguments that clients and servers share, translated into the engine's settings. Knows no I/O."""

from __future__ import annotations

import dataclasses
from typing import Literal

from ..limits import DeflateConfig, Keepalive, Limits

__all__ = [
    "CLOSE_TIMEOUT",
    "MAX_SIZE",
    "OPEN_TIMEOUT",
    "WRITE_LIMIT",
    "Compression",
    "MaxQueue",
    "MaxSize",
    "Settings",
    "WriteLimit",
]

MaxSize = int | None | tuple[int | None, int | None]
MaxQueue = int | None | tuple[int | None, int | None]
WriteLimit = int | tuple[int, int | None]
Compression = Literal["deflate"] | None | DeflateConfig

OPEN_TIMEOUT = 10.0
CLOSE_TIMEOUT = 10.0
MAX_SIZE = 2**20
#: websockets has 32 KiB; 64 KiB is asyncio's own mark and one full read of the peer.
WRITE_LIMIT = 2**16


def make_limits(
    limits: Limits | None, max_size: MaxSize, open_timeout: float | None, close_timeout: float | None
) -> Limits:
    """``limits`` stands in place of ``max_size``. A timeout given as an argument goes before the one in ``limits``.

    Raises ValueError when both limits and a max_size are given.
    """
    if limits is None:
        message, fragment = max_size if isinstance(max_size, tuple) else (max_size, None)
        limits = Limits(max_message_size=message, max_fragment_size=fragment)
    elif max_size != MAX_SIZE:
        raise ValueError("give either limits or max_size")
    if open_timeout == OPEN_TIMEOUT:
        open_timeout = limits.open_timeout
    if close_timeout == CLOSE_TIMEOUT:
        close_timeout = limits.close_timeout
    return dataclasses.replace(limits, open_timeout=open_timeout, close_timeout=close_timeout)


def make_deflate(compression: Compression) -> DeflateConfig | None:
    """Raises ValueError for anything but "deflate", None and a DeflateConfig."""
    if compression == "deflate":
        return DeflateConfig()
    if compression is None or isinstance(compression, DeflateConfig):
        return compression
    raise ValueError(f"unsupported compression: {compression}")


class Settings:
    """What every connection of one client or server is made with."""

    __slots__ = (
        "deflate",
        "keepalive",
        "limits",
        "queue_bytes",
        "queue_high",
        "queue_low",
        "write_high",
        "write_low",
    )

    def __init__(
        self,
        *,
        compression: Compression = "deflate",
        open_timeout: float | None = OPEN_TIMEOUT,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = CLOSE_TIMEOUT,
        max_size: MaxSize = MAX_SIZE,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = WRITE_LIMIT,
        limits: Limits | None = None,
    ) -> None:
        self.limits = make_limits(limits, max_size, open_timeout, close_timeout)
        self.deflate = make_deflate(compression)
        self.keepalive = None
        if ping_interval is not None:
            self.keepalive = Keepalive(ping_interval=ping_interval, ping_timeout=ping_timeout)
        high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
        if (high is not None and high < 0) or (low is not None and low < 0):
            raise ValueError("max_queue must not be negative; None lifts it")
        #: Messages wait in the receive queue until there are this many, and are let in again at ``queue_low``.
        self.queue_high = None if high is None else max(high, 1)
        self.queue_low = (high or 0) // 4 if low is None else low
        if self.queue_high is not None:
            self.queue_low = min(self.queue_low, self.queue_high - 1)
        #: ... or until they are this large together: two of the largest.
        self.queue_bytes = 2 * (MAX_SIZE if self.limits.max_message_size is None else self.limits.max_message_size)
        self.write_high, self.write_low = write_limit if isinstance(write_limit, tuple) else (write_limit, None)
