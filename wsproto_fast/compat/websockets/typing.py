"""Names for types in signatures."""

from __future__ import annotations

import http
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NewType

__all__ = [
    "BytesLike",
    "Data",
    "DataLike",
    "ExtensionName",
    "ExtensionParameter",
    "LoggerLike",
    "Origin",
    "PathLike",
    "StatusLike",
    "Subprotocol",
]

Data = str | bytes
BytesLike = bytes | bytearray | memoryview
DataLike = str | bytes | bytearray | memoryview
StatusLike = http.HTTPStatus | int
if TYPE_CHECKING:
    PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    LoggerLike = logging.Logger | logging.LoggerAdapter[Any]
else:
    PathLike = str | bytes | os.PathLike
    LoggerLike = logging.Logger | logging.LoggerAdapter  # no generic at run time on Python 3.10

Origin = NewType("Origin", str)
Subprotocol = NewType("Subprotocol", str)
ExtensionName = NewType("ExtensionName", str)
#: Name and value, or None for one without.
ExtensionParameter = tuple[str, str | None]

# Elements of the headers of the same names.
ExtensionHeader = tuple[ExtensionName, Sequence[ExtensionParameter]]
ConnectionOption = NewType("ConnectionOption", str)
UpgradeProtocol = NewType("UpgradeProtocol", str)
