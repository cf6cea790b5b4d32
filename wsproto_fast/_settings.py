"""The keyword arguments that clients and servers of all adapters share, translated into the engine's settings.

Knows names, defaults and their checks; knows no I/O.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from .limits import DeflateConfig, Keepalive, Limits, bounded

__all__ = [
    "CLOSE_TIMEOUT",
    "MAX_QUEUE_BYTES",
    "MAX_SIZE",
    "OPEN_TIMEOUT",
    "WRITE_LIMIT",
    "Compression",
    "JSONCodec",
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
#: Two messages of the default ``max_size``.
MAX_QUEUE_BYTES = 2**21


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


def make_deflate(compression: Compression, extensions: Sequence[Any] | None = None) -> DeflateConfig | None:
    """What to agree on. ``extensions`` is websockets' way to say it: permessage-deflate factories, of which one counts.

    Raises ValueError for a compression but "deflate", None and a DeflateConfig, and for another extension.
    """
    for extension in extensions or ():
        if isinstance(extension, DeflateConfig):
            return extension
        if getattr(extension, "name", None) != "permessage-deflate":
            raise ValueError(f"unsupported extension: {extension!r}")
        return _from_factory(extension)
    if compression == "deflate":
        return DeflateConfig()
    if compression is None or isinstance(compression, DeflateConfig):
        return compression
    raise ValueError(f"unsupported compression: {compression}")


def _from_factory(factory: Any) -> DeflateConfig:
    """The settings of one of websockets' PerMessageDeflateFactory."""
    compress = dict(factory.compress_settings or {})
    client_bits = factory.client_max_window_bits
    return DeflateConfig(
        server_no_context_takeover=factory.server_no_context_takeover,
        client_no_context_takeover=factory.client_no_context_takeover,
        server_max_window_bits=factory.server_max_window_bits or 15,
        client_max_window_bits=15 if client_bits is None or client_bits is True else client_bits,
        level=compress.get("level"),
        mem_level=compress.get("memLevel", 8),
        strategy=compress.get("strategy", 0),
    )


class JSONCodec:
    """How ``send_json`` and ``recv_json`` translate. ``raw``: the codec's texts are UTF-8 ``bytes``, not ``str``."""

    __slots__ = ("dumps", "loads", "raw")

    def __init__(self, codec: Any) -> None:
        dumps = getattr(codec, "dumps", None) or getattr(codec, "encode", None)
        loads = getattr(codec, "loads", None) or getattr(codec, "decode", None)
        if dumps is None or loads is None:
            raise TypeError(f"a JSON codec has dumps() and loads(), or encode() and decode(); {codec!r} has not")
        self.dumps: Callable[[Any], str | bytes] = dumps
        self.loads: Callable[[Any], Any] = loads
        self.raw = not isinstance(self.dumps([]), str)


class Settings:
    """What every connection of one client or server is made with."""

    __slots__ = (
        "deflate",
        "json",
        "keepalive",
        "limits",
        "observer",
        "on_message",
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
        max_queue_bytes: int | None = MAX_QUEUE_BYTES,
        limits: Limits | None = None,
        extensions: Sequence[Any] | None = None,
        ping_payload: Callable[[], str | bytes] | None = None,
        on_message: Callable[[Any, Any], object] | None = None,
        json: Any = json,
        observer: Any = None,
    ) -> None:
        self.limits = make_limits(limits, max_size, open_timeout, close_timeout)
        self.deflate = make_deflate(compression, extensions)
        self.keepalive = None
        if ping_interval is not None:
            self.keepalive = Keepalive(ping_interval=ping_interval, ping_timeout=ping_timeout, payload=ping_payload)
        high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
        if (high is not None and high < 0) or (low is not None and low < 0):
            raise ValueError("max_queue must not be negative; None lifts it")
        if max_queue_bytes is not None and max_queue_bytes < 0:
            raise ValueError("max_queue_bytes must not be negative; None lifts it")
        #: Messages wait in the receive queue until there are this many, and are let in again at ``queue_low``.
        self.queue_high = max(bounded(high), 1)
        self.queue_low = min(self.queue_high // 4 if low is None else low, self.queue_high - 1)
        if high is None and max_queue_bytes == MAX_QUEUE_BYTES:
            max_queue_bytes = None  # websockets' way to say: no flow control
        #: ... or until they are this large together.
        self.queue_bytes = max(bounded(max_queue_bytes), 1)
        self.write_high, self.write_low = write_limit if isinstance(write_limit, tuple) else (write_limit, None)
        if inspect.iscoroutinefunction(on_message) or inspect.iscoroutinefunction(type(on_message).__call__):
            raise TypeError("on_message must be a plain function; use a handler, or connection.recv(), to await")
        #: ``f(connection, message)``, called for each message in place of the queue.
        self.on_message = on_message
        self.json = JSONCodec(json)
        #: See ``Observer``.
        self.observer = observer
