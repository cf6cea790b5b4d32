"""What is compared: rows of candidates that do the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from websockets.frames import apply_mask

from . import drivers
from .builds import compiled, pure
from .drivers import Run, Traffic
from .traffic import ASCII, BINARY, UNICODE, message, traffic

SIZES = {"16 B": 16, "125 B": 125, "1 KiB": 1024, "16 KiB": 16384, "64 KiB": 65536, "1 MiB": 1 << 20}
SMALL = {label: size for label, size in SIZES.items() if size <= 1024}
KINDS = (ASCII, UNICODE, BINARY)
ROLES = {"server": True, "client": False}

# Candidates. The first that a row has is "ours": the other times are divided by its time.
DISPATCH = "dispatch"
NEXT_EVENT = "next_event"
SEND = "send"
IN_PLACE = "in place"
CODEC = "codec"
PURE_DISPATCH = "pure dispatch"
PURE_NEXT_EVENT = "pure next_event"
PURE_SEND = "pure send"
PURE_CODEC = "pure codec"
DISPATCH_TO_C = "dispatch to deque.append"
WEBSOCKETS = "websockets"
WEBSOCKETS_NO_C = "websockets without C"
WSPROTO = "wsproto"
AIOHTTP = "aiohttp"
COMPAT_WSPROTO = "compat.wsproto"
COMPAT_WEBSOCKETS = "compat.websockets"
DECODE = "bytes.decode"
MEMCPY = "memcpy"  # into a new object: bytes(bytearray)
MEMCPY_HERE = "memcpy in place"  # into memory that is there: memoryview slice assignment
NAIVE = "naive loop"

PURE = (PURE_DISPATCH, PURE_NEXT_EVENT, PURE_SEND, PURE_CODEC)


@dataclass
class Case:
    """One row. ``candidates`` make the function to time, which handles ``messages`` messages and returns its last
    result; all of a case's results must be equal, unless ``check`` says how to look at them."""

    name: str
    messages: int
    candidates: dict[str, Callable[[], Callable[[], Any]]]
    work: str = ""
    check: Callable[[str, Any], Any] = field(default=lambda candidate, result: result)


def inbound(name: str, load: Traffic, work: str = "") -> Case:
    candidates: dict[str, Callable[[], Run]] = {}
    if compiled is not None:
        candidates[DISPATCH] = partial(drivers.engine_dispatch, compiled, load)
        candidates[NEXT_EVENT] = partial(drivers.engine_next_event, compiled, load)
    candidates[PURE_DISPATCH] = partial(drivers.engine_dispatch, pure, load)
    candidates[PURE_NEXT_EVENT] = partial(drivers.engine_next_event, pure, load)
    candidates[WEBSOCKETS] = partial(drivers.websockets_in, load)
    if load.server:  # the extension does nothing but masks
        candidates[WEBSOCKETS_NO_C] = partial(drivers.without_c, drivers.websockets_in, load)
    candidates[WSPROTO] = partial(drivers.wsproto_in, load)
    if drivers.WebSocketReader is not None:
        candidates[AIOHTTP] = partial(drivers.aiohttp_in, load)

    def check(candidate: str, result: Any) -> Any:
        assert type(result) is str or candidate in (WEBSOCKETS, WEBSOCKETS_NO_C, WSPROTO) or type(result) is bytes
        assert result == load.messages[-1], candidate

    if load.text:
        left = "websockets: driver joins and decodes" if load.fragments > 1 else "websockets: driver decodes"
    else:
        left = "websockets, wsproto: driver joins" if load.fragments > 1 else ""
    return Case(name, len(load.messages), candidates, work or left, check)


def outbound(name: str, load: Traffic, work: str = "") -> Case:
    candidates: dict[str, Callable[[], Run]] = {}
    if compiled is not None:
        candidates[SEND] = partial(drivers.engine_out, compiled, load)
    candidates[PURE_SEND] = partial(drivers.engine_out, pure, load)
    candidates[WEBSOCKETS] = partial(drivers.websockets_out, load)
    if not load.server:
        candidates[WEBSOCKETS_NO_C] = partial(drivers.without_c, drivers.websockets_out, load)
    candidates[WSPROTO] = partial(drivers.wsproto_out, load)
    if drivers.WebSocketReader is not None and load.fragments == 1 and not load.deflate:
        candidates[AIOHTTP] = partial(drivers.aiohttp_out, load)

    def check(candidate: str, result: Any) -> Any:
        if not load.deflate:  # there the context would be missing
            received = drivers.websockets_in(Traffic(not load.server, load.text, [], [result], load.fragments))()
            assert received == load.messages[-1], candidate

    return Case(name, len(load.messages), candidates, work, check)


def engine_cases() -> Iterator[Case]:
    for role, server in ROLES.items():
        for kind in KINDS:
            for label, size in SIZES.items():
                load = traffic(kind, size, server=server)
                case = inbound(f"in {role} {kind} {label}", load)
                if compiled is not None and size == 125:
                    case.candidates[DISPATCH_TO_C] = partial(drivers.engine_dispatch_to_c, compiled, load)
                yield case
    for role, server in ROLES.items():
        for label, size in SMALL.items():
            load = traffic(ASCII, size, server=server, single=True)
            yield inbound(f"in {role} {ASCII} {label}, one a read", load)
        load = traffic(BINARY, 1 << 20, server=server, single=True)
        yield with_memcpy(inbound(f"in {role} {BINARY} 1 MiB, one a read", load), load)
    for role, server in ROLES.items():
        for label in ("1 KiB", "64 KiB"):
            load = traffic(ASCII, SIZES[label], server=server, fragments=8)
            yield inbound(f"in {role} {ASCII} {label}, 8 fragments", load)
    for role, server in ROLES.items():
        for kind in KINDS:
            for label, size in SIZES.items():
                work = "driver encodes for websockets, aiohttp" if kind != BINARY else ""
                yield outbound(
                    f"out {role} {kind} {label}", traffic(kind, size, server=server, inbound=False), work
                )
    for role, server in ROLES.items():
        for label in ("1 KiB", "64 KiB"):
            load = traffic(ASCII, SIZES[label], server=server, inbound=False, fragments=8)
            yield outbound(f"out {role} {ASCII} {label}, 8 fragments", load)
    work = f"windows of {drivers.WINDOW_BITS} bits, level {drivers.LEVEL}, memLevel {drivers.MEM_LEVEL}"
    for role, server in ROLES.items():
        for label in ("1 KiB", "16 KiB"):
            load = traffic(ASCII, SIZES[label], server=server, deflate=True)
            yield inbound(f"in {role} JSON {label}, deflate", load, work)
            load = traffic(ASCII, SIZES[label], server=server, inbound=False, deflate=True)
            yield outbound(f"out {role} JSON {label}, deflate", load, f"{work}; aiohttp has level 1 only")


def with_memcpy(case: Case, load: Traffic) -> Case:
    """``case`` beside copies of its message, and receiving it in place."""
    payload = load.messages[-1]
    assert isinstance(payload, bytes)
    if compiled is not None:
        case.candidates[IN_PLACE] = partial(drivers.engine_in_place, compiled, load)
    case.candidates[MEMCPY] = lambda: memcpy(payload, load.messages)
    case.candidates[MEMCPY_HERE] = lambda: memcpy_here(payload, load.messages)
    case.work = "in place includes the copy into get_buffer()"
    return case


def memcpy(payload: bytes, messages: list[Any]) -> Callable[[], bytes]:
    source = bytearray(payload)

    def run() -> bytes:
        for _ in messages:
            copy = bytes(source)
        return copy

    return run


def memcpy_here(payload: bytes, messages: list[Any]) -> Callable[[], bytes]:
    source = memoryview(payload)
    target = memoryview(bytearray(len(payload)))

    def run() -> bytes:
        for _ in messages:
            target[:] = source
        return payload

    return run


# -- masking and UTF-8 -------------------------------------------------------------------------------------------------


def repeat(function: Callable[..., Any], *arguments: Any, count: int) -> Callable[[], Any]:
    times = range(count)

    def run() -> Any:
        for _ in times:
            result = function(*arguments)
        return result

    return run


def naive_mask(data: bytes, key: bytes) -> bytes:
    return bytes([byte ^ key[i & 3] for i, byte in enumerate(data)])


def naive_decode(data: bytes) -> str:
    """RFC 3629 byte by byte."""
    result = []
    end = len(data)
    i = 0
    while i < end:
        lead = data[i]
        i += 1
        if lead < 0x80:
            result.append(lead)
            continue
        if 0xC2 <= lead < 0xE0:
            more, value, least = 1, lead & 0x1F, 0x80
        elif 0xE0 <= lead < 0xF0:
            more, value, least = 2, lead & 0x0F, 0x800
        elif 0xF0 <= lead < 0xF5:
            more, value, least = 3, lead & 0x07, 0x10000
        else:
            raise ValueError("invalid lead byte")
        if i + more > end:
            raise ValueError("cut short")
        for byte in data[i : i + more]:
            if byte & 0xC0 != 0x80:
                raise ValueError("invalid continuation byte")
            value = value << 6 | byte & 0x3F
        if value < least or 0xD800 <= value < 0xE000 or value > 0x10FFFF:
            raise ValueError("invalid character")
        result.append(value)
        i += more
    return "".join(map(chr, result))


def codec_cases() -> Iterator[Case]:
    key = 0x3D21FA37
    key_bytes = key.to_bytes(4, "little")
    for label, size in SIZES.items():
        count = max(1, 65536 // max(size, 256))
        loop = partial(repeat, count=count)
        data = message(BINARY, size)
        assert isinstance(data, bytes)
        candidates: dict[str, Callable[[], Callable[[], Any]]] = {}
        if compiled is not None:
            candidates[CODEC] = partial(loop, compiled._codec.to_bytes, data, 0, size, key)
        candidates[PURE_CODEC] = partial(loop, pure._codec.to_bytes, data, 0, size, key)
        candidates[WEBSOCKETS] = partial(loop, apply_mask, data, key_bytes)
        candidates[WEBSOCKETS_NO_C] = partial(loop, drivers.apply_mask_in_python, data, key_bytes)
        if size <= 1024:
            candidates[NAIVE] = partial(loop, naive_mask, data, key_bytes)
        candidates[MEMCPY] = partial(loop, bytes, bytearray(data))
        candidates[MEMCPY_HERE] = partial(memcpy_here, data, [data] * count)
        masked = naive_mask(data, key_bytes)

        def check(candidate: str, result: Any, masked: bytes = masked) -> Any:
            assert result == masked or candidate in (MEMCPY, MEMCPY_HERE), candidate

        yield Case(f"mask {label}", count, candidates, "websockets: apply_mask() in C", check)
    for kind in (ASCII, UNICODE):
        for label, size in SIZES.items():
            count = max(1, 65536 // max(size, 256))
            loop = partial(repeat, count=count)
            text = message(kind, size)
            assert isinstance(text, str)
            encoded = text.encode()
            candidates = {}
            if compiled is not None:
                candidates[CODEC] = partial(loop, compiled._codec.to_str, encoded, 0, size, -1)
            candidates[PURE_CODEC] = partial(loop, pure._codec.to_str, encoded, 0, size, -1)
            candidates[DECODE] = partial(loop, str, encoded, "utf-8")
            if size <= 1024:
                candidates[NAIVE] = partial(loop, naive_decode, encoded)
            candidates[MEMCPY] = partial(loop, bytes, bytearray(encoded))

            def check_text(candidate: str, result: Any, text: str = text) -> Any:
                assert result == text or candidate == MEMCPY, candidate

            yield Case(f"decode {kind} {label}", count, candidates, "", check_text)


# -- drop-in modules ---------------------------------------------------------------------------------------------------


def compat_cases() -> Iterator[Case]:
    """A whole round trip by the peers' own interfaces: client to server and back."""
    for label, size in SMALL.items():
        text = message(ASCII, size)
        wsproto_makers = {
            name: partial(drivers.wsproto_round_trip, module, text)
            for name, module in drivers.importable(COMPAT_WSPROTO, WSPROTO)
        }
        if COMPAT_WSPROTO in wsproto_makers:
            yield Case(f"round trip, wsproto's interface, {label}", 1, dict(wsproto_makers))
        websockets_makers = {
            name: partial(drivers.websockets_round_trip, module, text)
            for name, module in drivers.importable(COMPAT_WEBSOCKETS, WEBSOCKETS)
        }
        if COMPAT_WEBSOCKETS in websockets_makers:
            yield Case(f"round trip, websockets' sans-I/O interface, {label}", 1, dict(websockets_makers))


def all_cases() -> list[Case]:
    return [*engine_cases(), *codec_cases(), *compat_cases()]
