"""What may be sent: the types of payloads, told apart and converted. Knows Python's types; knows no connection."""

from __future__ import annotations

__all__ = ["BytesLike", "DataLike", "DataTypes", "kind_of", "to_bytes"]

BytesLike = (bytes, bytearray, memoryview)
DataTypes = (str, *BytesLike)
DataLike = str | bytes | bytearray | memoryview


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
