"""Envelopes: a message of a group as the bytes that travel between processes. Knows what they must look like to be
believed; knows no bus.

Version 1, integers big-endian: ``wsf`` and the version; 16 bytes that name the sender; 8 bytes that count its messages;
1 byte of flags; 2 bytes of the key's length; the key; the payload; and, if signed, 32 bytes of HMAC-SHA256 of the
channel's length in 4 bytes, the channel, and all that comes before.
"""

from __future__ import annotations

import hmac
import os
import struct
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

from ..constants import Opcode
from ..prepared import PreparedMessage

__all__ = ["Foreign", "Opened", "Post"]

_VERSION = b"wsf\x01"
_HEAD = struct.Struct(">4s16sQBH")
_DIGEST = "sha256"
_DIGEST_SIZE = 32

# Flags: one for text, one for a signature, and the type of the key.
_TEXT = 1
_SIGNED = 2
_KEY_TYPE = 12
_NO_KEY, _STR_KEY, _BYTES_KEY, _INT_KEY = 0, 4, 8, 12

#: So many senders are remembered with the number of their last message: a process that lives has one.
_MAX_SENDERS = 4096


class Foreign(ValueError):
    """Not an envelope of ours: of another version, torn, or with the wrong signature."""


class Opened(NamedTuple):
    """What was in an envelope."""

    message: PreparedMessage
    key: Hashable


class Post:
    """Seals the messages of one sender and opens those of the others, each once.

    ``secret``: sign, and believe nothing that is not signed with the same.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret
        self._sender = os.urandom(16)
        self._number = 0
        #: Of each other sender, the number of its last message; the one that was heard last comes last.
        self._last: OrderedDict[bytes, int] = OrderedDict()

    def seal(self, channel: bytes, message: PreparedMessage, key: Hashable) -> bytes:
        """Raises TypeError or ValueError for a key that cannot travel."""
        key_type, key_bytes = _pack_key(key)
        flags = key_type | (_TEXT if message.opcode == Opcode.TEXT else 0) | (0 if self._secret is None else _SIGNED)
        self._number += 1
        head = _HEAD.pack(_VERSION, self._sender, self._number, flags, len(key_bytes))
        envelope = b"".join((head, key_bytes, message.payload))
        return envelope if self._secret is None else envelope + self._sign(channel, envelope)

    def open(self, channel: bytes, data: bytes) -> Opened | None:
        """None for what is our own, or was opened already. Raises Foreign for anything that is no envelope."""
        if len(data) < _HEAD.size or not data.startswith(_VERSION):
            raise Foreign("no envelope of this version")
        _, sender, number, flags, key_size = _HEAD.unpack_from(data)
        if bool(flags & _SIGNED) is (self._secret is None):
            raise Foreign("signed, and we have no secret" if self._secret is None else "not signed")
        end = len(data)
        if self._secret is not None:
            end -= _DIGEST_SIZE
            if not hmac.compare_digest(data[end:], self._sign(channel, data[:end])):
                raise Foreign("wrong signature")
        start = _HEAD.size + key_size
        if start > end:
            raise Foreign("torn")
        key = _unpack_key(flags & _KEY_TYPE, data[_HEAD.size : start])
        if sender == self._sender or number <= self._last.get(sender, 0):
            return None
        try:
            message = PreparedMessage(data[start:end], text=bool(flags & _TEXT))
        except UnicodeError as error:
            raise Foreign("its text is not UTF-8") from error
        self._remember(sender, number)
        return Opened(message, key)

    def _remember(self, sender: bytes, number: int) -> None:
        self._last[sender] = number
        self._last.move_to_end(sender)
        if len(self._last) > _MAX_SENDERS:
            self._last.popitem(last=False)

    def _sign(self, channel: bytes, envelope: bytes) -> bytes:
        assert self._secret is not None
        return hmac.digest(self._secret, struct.pack(">I", len(channel)) + channel + envelope, _DIGEST)


def _pack_key(key: Hashable) -> tuple[int, bytes]:
    if key is None:
        return _NO_KEY, b""
    if isinstance(key, str):
        key_type, data = _STR_KEY, key.encode()
    elif isinstance(key, bytes):
        key_type, data = _BYTES_KEY, key
    elif isinstance(key, int):
        key_type, data = _INT_KEY, str(int(key)).encode()
    else:
        raise TypeError(f"a key that travels must be str, bytes, int or None; not {type(key).__name__}")
    if len(data) > 0xFFFF:
        raise ValueError("a key that travels must be shorter than 64 KiB")
    return key_type, data


def _unpack_key(key_type: int, data: bytes) -> Hashable:
    if key_type == _NO_KEY:
        return None
    if key_type == _BYTES_KEY:
        return data
    try:
        return data.decode() if key_type == _STR_KEY else int(data)
    except ValueError as error:
        raise Foreign("its key cannot be read") from error
