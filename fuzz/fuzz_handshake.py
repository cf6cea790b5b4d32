"""Fuzzes the opening handshake, both sides and their HTTP parsers: how the input is cut must not change the outcome.

    python fuzz/fuzz_handshake.py fuzz/corpus/handshake             needs atheris; takes libFuzzer's options
    python fuzz/fuzz_handshake.py --replay fuzz/corpus/handshake    needs nothing

An input is four bytes and a wire: what to run (see ``one_input``), and three sizes in which the wire is cut in turn.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if "--replay" not in sys.argv and __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["wsproto_fast"]):
        import wsproto_fast.handshake  # noqa: F401

from wsproto_fast.exceptions import InvalidHandshake, InvalidURI
from wsproto_fast.handshake import ClientHandshake, ServerHandshake
from wsproto_fast.http11 import Request, RequestParser, Response, ResponseParser
from wsproto_fast.limits import Limits
from wsproto_fast.uri import parse_uri

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3
URI = parse_uri("ws://example.com/chat")
TIGHT = Limits(max_line_size=80, max_head_size=400, max_headers=12, max_body_size=20, max_read_ahead=16)
Outcome = tuple[Any, ...]


def cut(wire: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """``wire`` in pieces of these sizes, cyclically."""
    pos = 0
    for size in itertools.cycle(sizes):
        if pos >= len(wire):
            return
        yield wire[pos : pos + size]
        pos += size


def parse(parser: RequestParser | ResponseParser, chunks: Iterator[bytes]) -> Outcome:
    """What a parser makes of it: the result with what is left, or the error."""
    try:
        result: Request | Response | None = None
        for chunk in chunks:
            result = parser.feed(chunk)
            if result is not None:
                return (repr(result), parser.trailing_data + b"".join(chunks))
        return repr(parser.feed_eof()), b""
    except InvalidHandshake as exc:
        return type(exc), str(exc), repr(exc.__cause__)


def serve(limits: Limits, chunks: Iterator[bytes]) -> Outcome:
    """The server's side, up to its answer."""
    handshake = ServerHandshake(
        origins=["https://example.com", re.compile(r"https://[a-z]+\.example\.com"), None],
        subprotocols=["chat", "superchat"],
        select_subprotocol=lambda _, offered: offered[-1] if offered else None,
        limits=limits,
    )
    for chunk in chunks:
        handshake.receive_data(chunk)
    handshake.receive_eof()
    assert handshake.request is not None or handshake.error is not None
    handshake.send_response(handshake.accept())
    assert handshake.done
    assert handshake.accepted == (handshake.error is None)
    (answer,) = handshake.data_to_send()
    if handshake.request is not None and handshake.request.method == "HEAD":
        head, _, body = answer.partition(b"\r\n\r\n")
        assert body == b""  # RFC 9110 9.3.2, though Content-Length tells of one
        answer = re.sub(rb"(?i)\r\nContent-Length: \d+", b"", head) + b"\r\n\r\n"
    parser = ResponseParser()
    response = parser.feed(answer) or parser.feed_eof()
    assert response is not None
    assert (response.status_code == 101) == handshake.accepted
    assert parser.trailing_data == b""
    return (
        repr(handshake.request),
        repr(handshake.error),
        answer,
        handshake.trailing_data,
        handshake.subprotocol,
        handshake.extensions_header,
    )


def connect(limits: Limits, chunks: Iterator[bytes]) -> Outcome:
    """The client's side."""
    handshake = ClientHandshake(URI, subprotocols=["chat", "superchat"], limits=limits)
    handshake.key = KEY
    for chunk in chunks:
        if handshake.accepted:
            return repr(handshake.response), handshake.subprotocol, handshake.trailing_data + chunk + b"".join(chunks)
        handshake.receive_data(chunk)
    handshake.receive_eof()
    assert handshake.done
    assert handshake.accepted == (handshake.error is None)
    error = handshake.error
    if error is None:
        return repr(handshake.response), handshake.subprotocol, handshake.trailing_data
    return type(error), str(error), repr(error.__cause__), repr(handshake.response)


TARGETS: list[Callable[[Limits, Iterator[bytes]], Outcome]] = [
    serve,
    connect,
    lambda limits, chunks: parse(RequestParser(limits), chunks),
    lambda limits, chunks: parse(ResponseParser(limits), chunks),
]


def one_input(data: bytes) -> None:
    """Run a target: bits 0-1 of ``data[0]`` name it, bit 2 takes tight limits, bit 3 a URI instead of it all."""
    if len(data) < 4:
        return
    what, *sizes = data[:4]
    wire = data[4:]
    if what & 8:
        with contextlib.suppress(InvalidURI):
            ClientHandshake(parse_uri(wire.decode("utf-8", "surrogateescape")))
        return
    target = TARGETS[what % 4]
    limits = TIGHT if what & 4 else Limits()
    expected = target(limits, iter([wire]))
    assert target(limits, cut(wire, [size + 1 for size in sizes])) == expected
    assert target(limits, cut(wire, [1])) == expected


def main() -> None:
    if sys.argv[1:2] == ["--replay"]:
        for directory in sys.argv[2:]:
            for path in sorted(Path(directory).iterdir()):
                one_input(path.read_bytes())
    else:
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
