"""websockets and our façade of it side by side: the same calls go to both, and what they answer is compared."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from helpers import encode_frame, unmask_output

websockets = pytest.importorskip("websockets", minversion="17")

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
DATE = re.compile(rb"(?m)^Date: .*\r\n")
MODULES = (
    *("client", "server", "protocol", "frames", "headers", "http11", "datastructures", "exceptions", "uri", "utils"),
    *("streams", "typing", "version", "extensions", "extensions.base", "extensions.permessage_deflate"),
)


def library(package: str) -> Any:
    """The modules of websockets, or of a façade of it, as attributes; dots are underscores."""
    found = {name.replace(".", "_"): importlib.import_module(f"{package}.{name}") for name in MODULES}
    return SimpleNamespace(
        **found, deflate=found["extensions_permessage_deflate"], root=importlib.import_module(package)
    )


ORIGINAL = library("websockets")
OURS = library("wsproto_fast.compat.websockets")


def facade(ws: ModuleType) -> Any:
    """Ours, of the build under test."""
    return library(f"{ws.__name__}.compat.websockets")


def plain(value: Any) -> Any:
    """What compares whichever library it comes from."""
    if isinstance(value, BaseException):
        return type(value).__name__, str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, int):
        return int(value)
    kind = type(value).__name__
    if kind == "Frame":
        return kind, plain([value.opcode, value.data, value.fin, value.rsv1, value.rsv2, value.rsv3])
    if kind == "Close":
        return kind, int(value.code), value.reason
    if kind == "Request":
        return kind, value.method, value.path, value.protocol, list(value.headers.raw_items())
    if kind == "Response":
        headers = [item for item in value.headers.raw_items() if item[0] != "Date"]
        return kind, value.status_code, value.reason_phrase, headers, bytes(value.body)
    return value if isinstance(value, (str, type(None))) else repr(value)


def sent(protocol: Any) -> list[bytes]:
    """``data_to_send``, without what is random in it."""
    chunks = []
    for chunk in protocol.data_to_send():
        head = chunk.startswith((b"GET ", b"HTTP/"))
        chunks.append(DATE.sub(b"", chunk) if head else unmask_output(chunk))
    return chunks


def snapshot(protocol: Any) -> dict[str, Any]:
    """All that a connection shows. Takes what it has."""
    names = (
        *("state", "side", "current_size", "expect_continuation_frame", "close_rcvd", "close_sent", "subprotocol"),
        *("close_rcvd_then_sent", "close_code", "close_reason", "eof_sent", "handshake_exc", "parser_exc", "origin"),
        "extensions",
    )
    shown = {name: plain(getattr(protocol, name)) for name in names}
    shown["close_expected"] = protocol.close_expected()
    shown["close_exc"] = tried(lambda: protocol.close_exc)[-1:]
    shown["events"] = plain(protocol.events_received())
    shown["sent"] = sent(protocol)
    return shown


def tried(call: Any) -> list[Any]:
    """What a call returns or raises. InvalidState stands for the assertions of the original."""
    try:
        return [plain(call())]
    except Exception as exc:
        return ["AssertionError"] if isinstance(exc, AssertionError) and "state" not in str(exc) else [plain(exc)]


def perform(protocol: Any, steps: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call ``(method, *arguments)`` one after the other; what came of each."""
    seen = []
    for method, *arguments in steps:
        if method == "state":
            protocol.state = type(protocol.state)[arguments[0]]
            seen.append((method, [], snapshot(protocol)))
            continue
        outcome = tried(lambda method=method, arguments=arguments: getattr(protocol, method)(*arguments))
        seen.append((method, outcome, snapshot(protocol)))
    return seen


class Log(logging.Handler):
    """A logger that keeps its lines: what came, what went, what state it is."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.logger = logging.Logger("twins", logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if not line.startswith("!") and "Date:" not in line:
            self.lines.append(line)


def to_server(*frames: tuple[int, bytes]) -> bytes:
    return b"".join(encode_frame(first, payload, mask=b"\x01\xfe\x03\x80") for first, payload in frames)


def to_client(*frames: tuple[int, bytes]) -> bytes:
    return b"".join(encode_frame(first, payload) for first, payload in frames)


REQUEST = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY.decode(),
    "Sec-WebSocket-Version": "13",
}
RESPONSE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


def head(first_line: str, headers: Any) -> bytes:
    items = headers.items() if isinstance(headers, dict) else headers
    lines = [f"{name}: {value}\r\n" for name, value in items if value is not None]
    return f"{first_line}\r\n{''.join(lines)}\r\n".encode("iso-8859-1")
