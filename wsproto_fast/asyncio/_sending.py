"""What may be sent, and the pieces of what is sent in pieces. Knows Python's types; knows no connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping

__all__ = ["BytesLike", "DataLike", "Message", "each", "kind_of", "to_bytes"]

BytesLike = (bytes, bytearray, memoryview)
DataLike = str | bytes | bytearray | memoryview
Message = DataLike | Iterable[DataLike] | AsyncIterable[DataLike]


def to_bytes(data: DataLike) -> bytes:
    """The payload of a control frame. Raises TypeError for anything but str and bytes-like."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, BytesLike):
        return bytes(data)
    raise TypeError("data must be str or bytes-like")


def kind_of(chunk: object) -> type:
    """``str`` or ``bytes``. Raises TypeError for anything that is neither text nor bytes-like."""
    if isinstance(chunk, str):
        return str
    if isinstance(chunk, BytesLike):
        return bytes
    raise TypeError("iterable must contain bytes or str")


async def each(message: object) -> AsyncGenerator[DataLike, None]:
    """The items of an iterable of either kind. Raises TypeError when it is none."""
    if isinstance(message, Mapping):  # a common mistake: send(dict)
        raise TypeError("data is a dict-like object")
    if isinstance(message, AsyncIterable):
        async for chunk in message:
            yield chunk
    elif isinstance(message, Iterable):
        for chunk in message:
            yield chunk
    else:
        raise TypeError("data must be str, bytes, iterable, or async iterable")
