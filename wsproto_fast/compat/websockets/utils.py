"""Keys and masks."""

from __future__ import annotations

from ..._codec import to_bytes
from ..._headers import accept_key, generate_key
from .typing import BytesLike

__all__ = ["accept_key", "apply_mask", "generate_key"]


def apply_mask(data: BytesLike, mask: BytesLike) -> bytes:
    """``data`` XORed with the four bytes of ``mask``, again and again (RFC 6455 5.3). Raises ValueError for others."""
    if len(mask) != 4:
        raise ValueError("mask must contain 4 bytes")
    data = bytes(data)
    return to_bytes(data, 0, len(data), int.from_bytes(mask, "little"))
