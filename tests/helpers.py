"""What several test modules need. Knows the wire format from the test kit, which shares no line with the engine."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from wsproto_fast.testing._wire import MASKING_KEY, decode_frame, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "MASKING_KEY",
    "SOON",
    "encode_frame",
    "feed_every_way",
    "join_fragments",
    "parse_frames",
    "plain",
    "unmask_output",
]

#: Seconds: an upper bound for what a short timeout ends, on the slowest machine. Less than any default timeout (10 s).
SOON = 8.0


def parse_frames(data: bytes) -> list[tuple[int, bool, bytes]]:
    """(first byte, masked, payload without its mask) of each frame. Raises ValueError if the last one is cut."""
    frames = []
    pos = 0
    while pos < len(data):
        decoded = decode_frame(data, pos)
        if decoded is None:
            raise ValueError("cut frame")
        (first, payload), masked, pos = decoded
        frames.append((first, masked, payload))
    return frames


def unmask_output(data: bytes) -> bytes:
    """The same frames with masking key 0: what a client sends, without its randomness."""
    return b"".join(
        encode_frame(first, payload, mask=bytes(4) if masked else None) for first, masked, payload in parse_frames(data)
    )


def plain(value: Any) -> Any:
    """Events and errors as tuples, so that those of the two builds compare: their classes are different objects."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, BaseException):
        return (type(value).__name__, str(value))
    names = getattr(type(value), "__match_args__", None)
    if names is None or isinstance(value, tuple):
        return value
    return (type(value).__name__, *(plain(getattr(value, name)) for name in names))


def join_fragments(events: Iterable[Any]) -> list[Any]:
    """Plain events with the pieces of one frame joined: chunk delivery cuts wherever the reads cut."""
    joined: list[Any] = []
    for event in map(plain, events):
        if event[0] == "Fragment" and joined and joined[-1][0] == "Fragment" and not joined[-1][5]:
            _, opcode, data, first, _, _ = joined.pop()
            joined.append(("Fragment", opcode, data + event[2], first, event[4], event[5]))
        else:
            joined.append(event)
    return joined


def feed_every_way(
    make_connection: Callable[..., Any], wire: bytes, *, trailing: bytes = b"\x89", eof: bool = False
) -> list[tuple[list[Any], bytes]]:
    """Feed the same bytes to fresh connections: whole, bytewise, split at each point, each by both input methods; with
    trailing data, and as the constructor's ``trailing_data`` if ``make_connection`` takes it.

    Returns (events, output) of each way, output without random masking keys; the caller asserts that all are equal,
    and equal to what they should be. Adjacent pieces of chunk delivery are left as they came (``join_fragments``).

    ``trailing`` must bring no event behind ``wire``; by default it is the first byte of a Ping frame, legal behind
    any complete frame. ``b""`` leaves that way out, which a ``wire`` that ends inside a frame needs. ``eof`` calls
    ``receive_eof()`` in the end.
    """
    return [
        drive(make_connection(**arguments), chunks, eof=eof, in_place=in_place, one_by_one=one_by_one)
        for arguments, chunks, in_place, one_by_one in ways(wire, trailing, takes_trailing_data(make_connection))
    ]


def ways(
    wire: bytes, trailing: bytes, takes_trailing_data: bool
) -> Iterator[tuple[dict[str, bytes], list[bytes], bool, bool]]:
    """(arguments for the connection, chunks to feed, in place, events one by one)."""
    for in_place in (False, True):
        yield {}, [wire], in_place, False
        yield {}, [wire], in_place, True
        yield {}, [wire[i : i + 1] for i in range(len(wire))], in_place, False
        for point in split_points(len(wire)):
            yield {}, [wire[:point], wire[point:]], in_place, bool(point % 2)
        if trailing:
            yield {}, [wire + trailing], in_place, False
            yield {}, [wire, trailing], in_place, True
    if takes_trailing_data:
        yield {"trailing_data": wire}, [], False, False
        for point in split_points(len(wire)):
            yield {"trailing_data": wire[:point]}, [wire[point:]], bool(point % 2), False


def split_points(length: int) -> Iterable[int]:
    """Each point of up to 600 bytes; of more, those near both ends (headers, last bytes) and a few between."""
    if length <= 600:
        return range(1, length)
    return [*range(1, 40), *range(40, length - 40, length // 20), *range(length - 40, length)]


def takes_trailing_data(make_connection: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(make_connection).parameters.values()
    except (TypeError, ValueError):  # an extension type tells no signature
        return True
    return any(p.name == "trailing_data" or p.kind is p.VAR_KEYWORD for p in parameters)


def drive(
    connection: Any, chunks: Iterable[bytes], *, eof: bool, in_place: bool, one_by_one: bool
) -> tuple[list[Any], bytes]:
    events: list[Any] = []
    output = bytearray()

    def drain() -> None:
        if one_by_one:
            while (event := connection.next_event()) is not None:
                events.append(event)
        else:
            events.extend(connection.events())
        for chunk in connection.data_to_send():
            output.extend(chunk)

    drain()  # what trailing_data brought
    for chunk in chunks:
        if in_place:
            receive_in_place(connection, chunk, drain)
        else:
            connection.receive_data(chunk)
            drain()
    if eof:
        connection.receive_eof()
        drain()
    return events, unmask_output(bytes(output))


def receive_in_place(connection: Any, chunk: bytes, drain: Callable[[], None]) -> None:
    """As asyncio.BufferedProtocol does: write into the connection's memory, as often as its size demands."""
    while chunk:
        buffer = connection.get_buffer(len(chunk))
        size = min(len(buffer), len(chunk))
        assert size > 0, "get_buffer() must return room"
        buffer[:size] = chunk[:size]
        del buffer
        connection.buffer_updated(size)
        drain()
        chunk = chunk[size:]
