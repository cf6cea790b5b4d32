"""Messages: what can be sent and comes back, what cannot, how much waits, JSON, compression."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

#: Each comes back as it was sent, of the type that it had.
MESSAGES: list[str | bytes] = [
    *("", "hello", "ünïcödé 🐍", "x" * 70_000),
    *(b"", b"\x00\xff", bytes(range(256)) * 2000, b"y" * 1_000_000),
]
#: How a message arrived, as text or not; what ``recv(decode=...)`` makes of it.
DECODED: list[tuple[bytes, bool, bool | None, str | bytes]] = [
    ("hä".encode(), True, None, "hä"),
    ("hä".encode(), True, True, "hä"),
    ("hä".encode(), True, False, "hä".encode()),
    ("hä".encode(), False, None, "hä".encode()),
    ("hä".encode(), False, False, "hä".encode()),
    ("hä".encode(), False, True, "hä"),
    (b"\xff", False, False, b"\xff"),
]
#: What ``send`` is given, and the frames that leave: their first bytes and payloads.
SENT: list[tuple[Any, bool | None, list[tuple[int, bytes]]]] = [
    ("hä", None, [(0x81, "hä".encode())]),
    ("hä", True, [(0x81, "hä".encode())]),
    ("hä", False, [(0x82, "hä".encode())]),
    (b"h", None, [(0x82, b"h")]),
    (b"h", False, [(0x82, b"h")]),
    (b"h", True, [(0x81, b"h")]),
    (bytearray(b"h"), True, [(0x81, b"h")]),
    (memoryview(b"h"), None, [(0x82, b"h")]),
    (["a", "b"], None, [(0x01, b"a"), (0x00, b"b"), (0x80, b"")]),
    (["a", "b"], False, [(0x02, b"a"), (0x00, b"b"), (0x80, b"")]),
    ([b"a", bytearray(b"b"), memoryview(b"c")], None, [(0x02, b"a"), (0x00, b"b"), (0x00, b"c"), (0x80, b"")]),
    ([b"\xc3", b"\xa9"], True, [(0x01, b"\xc3"), (0x00, b"\xa9"), (0x80, b"")]),
    ([], None, []),
]
#: What cannot be sent, with the error, and whether something of it had left: then the connection ends with 1011.
NOT_SENDABLE: list[tuple[Any, type[Exception], bool]] = [
    ({"a": 1}, TypeError, False),
    (1, TypeError, False),
    (None, TypeError, False),
    ([1], TypeError, False),
    ([None, "a"], TypeError, False),
    ("\ud800", UnicodeEncodeError, False),
    (["\ud800"], UnicodeEncodeError, False),
    (["a", b"b"], TypeError, True),
    ([b"b", "a"], TypeError, True),
    (["a", 1], TypeError, True),
    (["a", "\ud800"], UnicodeEncodeError, True),
]
#: What ``try_send`` refuses as well: messages in fragments.
NOT_FOR_TRY_SEND: list[Any] = [None, 1, ["a"], {"a": 1}, iter("a")]
#: compress=, the size of a message, and whether it leaves compressed where that was agreed on.
COMPRESSED: list[tuple[bool | None, int, bool]] = [
    *((None, 10, False), (None, 1000, True), (True, 1, True), (True, 1000, True), (False, 1000, False)),
]

# -- how much waits ----------------------------------------------------------------------------------------------------

#: max_queue, how many messages wait at most, and how few make room for more.
QUEUES: list[tuple[Any, int, int]] = [
    *((16, 16, 4), (1, 1, 0), (0, 1, 0), (2, 2, 0)),
    *(((10, 3), 10, 3), ((10, 0), 10, 0), ((10, 50), 10, 9), ((10, None), 10, 2)),
]
#: Values of max_queue that lift the limit.
ENDLESS_QUEUES: list[Any] = [None, (None, None), (None, 5)]
#: max_queue_bytes, and how many messages of 1000 bytes wait at most.
QUEUES_IN_BYTES = [(10_000, 10), (10_001, 11), (1000, 1), (1, 1), (0, 1), (100_000, 100)]

# -- JSON --------------------------------------------------------------------------------------------------------------

#: orjson leaks 191 bytes at its import, which LeakSanitizer would report.
ORJSON = pytest.param("orjson", marks=pytest.mark.external)
CODECS: list[Any] = ["json", ORJSON, "msgspec.json"]
JSON_TEXT = "naïve 日本 \U0001f600 "
JSON_VALUES: list[Any] = [
    *(None, True, 0, -1.5, "", JSON_TEXT, [], {}),
    *({"a": [1, {"b": JSON_TEXT * 1000}]}, list(range(5000))),
]
#: The codec says ValueError, and the next message can be received.
NO_JSON: list[str | bytes] = ["no json", "", "[1", b"\xff\xfe\xfd", b"\x00", "NaN]"]


def codec_of(name: str) -> Any:
    """The module's codec; ``seen`` has the types of what its ``loads`` was given."""
    module = pytest.importorskip(name)
    seen: list[type] = []
    dumps = getattr(module, "dumps", None) or module.encode
    loads = getattr(module, "loads", None) or module.decode

    def noting_loads(data: Any) -> Any:
        seen.append(type(data))
        return loads(data)

    return SimpleNamespace(dumps=dumps, loads=noting_loads, seen=seen)


class BytesJSON:
    """A codec that makes bytes, and is given bytes: texts go through the queue in another form."""

    dumps = staticmethod(lambda data: json.dumps(data).encode())
    loads = staticmethod(json.loads)


# -- compression -------------------------------------------------------------------------------------------------------

WINDOWS = ["server_max_window_bits", "client_max_window_bits"]
TAKEOVERS = ["server_no_context_takeover", "client_no_context_takeover"]
#: Agreements on compression: each window size on each side, and each context kept or not.
AGREEMENTS: list[dict[str, Any]] = [
    *({window: bits} for window in WINDOWS for bits in range(9, 16)),
    *({takeover: True} for takeover in TAKEOVERS),
    dict.fromkeys(TAKEOVERS, True),
    {WINDOWS[0]: 9, WINDOWS[1]: 10, TAKEOVERS[0]: True},
]
