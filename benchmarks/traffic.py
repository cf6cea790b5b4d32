"""The messages and wire bytes that the benchmarks use: the same in each run."""

from __future__ import annotations

import json
import random
import zlib

from .builds import pure
from .drivers import LEVEL, MEM_LEVEL, WINDOW_BITS, Message, Traffic

READ = 65536

ASCII = "text"
UNICODE = "unicode"
BINARY = "binary"

_LINE = "The quick brown fox jumps over the lazy dog, 0123456789. "
_WORLD = "Größe 東京 Привет мир 🙂 naïve "


def message(kind: str, size: int) -> Message:
    """A message of ``size`` bytes in UTF-8."""
    if kind == BINARY:
        return random.Random(size).randbytes(size)
    if kind == ASCII:
        return (_LINE * (size // len(_LINE) + 1))[:size]
    data = (_WORLD.encode() * (size // len(_WORLD) + 1))[:size]
    text = data.decode(errors="ignore")
    return text + "." * (size - len(text.encode()))


def documents(size: int, count: int) -> list[Message]:
    """Different JSON documents of about ``size`` bytes, such as an API sends."""
    rng = random.Random(size)
    result: list[Message] = []
    for number in range(count):
        rows: list[dict[str, object]] = []
        while len(json.dumps(rows)) < size - 60:
            rows.append(
                {
                    "id": rng.randrange(10**6),
                    "symbol": rng.choice(["EURUSD", "GBPUSD", "USDJPY", "BTCUSD"]),
                    "price": round(rng.uniform(1, 200), 4),
                    "side": rng.choice(["buy", "sell"]),
                    "active": rng.random() < 0.5,
                }
            )
        result.append(json.dumps({"type": "update", "sequence": number, "rows": rows}))
    return result


def frames(traffic_messages: list[Message], *, masked: bool, fragments: int, deflate: bool) -> list[bytes]:
    """Each message on the wire."""
    codec = pure._codec
    rng = random.Random(len(traffic_messages))
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEM_LEVEL)
    result = []
    for item in traffic_messages:
        opcode = 1 if isinstance(item, str) else 2
        payload = item.encode() if isinstance(item, str) else item
        if deflate:
            # Such a stream may be repeated: what it refers back to lies within itself.
            payload = (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
            opcode |= 0x40
        step = -(-len(payload) // fragments)
        wire = b""
        for i in range(fragments):
            first = (0 if i else opcode) | (0x80 if i == fragments - 1 else 0)
            key = rng.getrandbits(32) if masked else -1
            wire += codec.build_frame(first, payload[i * step : (i + 1) * step], key)
        result.append(wire)
    return result


def traffic(
    kind: str,
    size: int,
    *,
    server: bool,
    inbound: bool = True,
    single: bool = False,
    fragments: int = 1,
    deflate: bool = False,
) -> Traffic:
    """``single``: each read brings one whole message. Otherwise a read is 64 KiB, full of frames if they are small."""
    one = message(kind, size)
    if deflate:
        messages = documents(size, max(4, READ // 2 // size))
        one = messages[0]
    elif single or not inbound:
        messages = [one] * (32 if size < 65536 else 1)
    else:
        header = len(frames([one], masked=server, fragments=fragments, deflate=False)[0]) - size
        messages = [one] * max(1, READ // (size + header))
    wire = []
    if inbound:
        wire = frames(messages, masked=server, fragments=fragments, deflate=deflate)
        if not single:
            joined = b"".join(wire)
            wire = [joined[i : i + READ] for i in range(0, len(joined), READ)]
    return Traffic(server, isinstance(one, str), messages, wire, fragments, deflate)
