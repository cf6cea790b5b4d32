"""Settings of permessage-deflate under websockets' names, for programs that were written for it.

``DeflateConfig`` says the same and more. Knows no negotiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

__all__ = ["ClientPerMessageDeflateFactory", "ServerPerMessageDeflateFactory"]


@dataclass
class ClientPerMessageDeflateFactory:
    """What a client offers: an element of ``connect(extensions=[...])``.

    ``server_max_window_bits`` and ``client_max_window_bits``: 8-15; ``compress_settings`` are the arguments ``level``,
    ``memLevel`` and ``strategy`` of ``zlib.compressobj``.
    """

    name: ClassVar[str] = "permessage-deflate"

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | Literal[True] | None = True
    compress_settings: dict[str, Any] | None = None


@dataclass
class ServerPerMessageDeflateFactory:
    """What a server accepts: an element of ``serve(extensions=[...])``. See ``ClientPerMessageDeflateFactory``."""

    name: ClassVar[str] = "permessage-deflate"

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None
    compress_settings: dict[str, Any] | None = None
