"""permessage-deflate (RFC 7692) for negotiation by factories. Its contexts are the engine's."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any, Literal

from .... import deflate
from ....constants import Role
from ....exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    RemoteProtocolError,
)
from ....limits import DeflateConfig
from ..frames import CONT, CTRL_OPCODES, Frame
from ..typing import ExtensionName, ExtensionParameter
from .base import ClientExtensionFactory, Extension, ServerExtensionFactory

__all__ = [
    "ClientPerMessageDeflateFactory",
    "PerMessageDeflate",
    "ServerPerMessageDeflateFactory",
    "enable_client_permessage_deflate",
    "enable_server_permessage_deflate",
]

NAME = ExtensionName(deflate.EXTENSION_NAME)
_WINDOWS = {str(bits): bits for bits in range(8, 16)}


class PerMessageDeflate(Extension):
    """What was agreed on, and both contexts of the connection. Each message that is sent is compressed.

    ``compress_settings``: ``level``, ``memLevel``, ``strategy`` of ``zlib.compressobj``. Raises TypeError for others.
    """

    name = NAME

    def __init__(
        self,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        self.remote_no_context_takeover = remote_no_context_takeover
        self.local_no_context_takeover = local_no_context_takeover
        self.remote_max_window_bits = remote_max_window_bits
        self.local_max_window_bits = local_max_window_bits
        self.compress_settings = compress_settings or {}
        # The engine asks who is the server; here the remote side always is.
        agreed = deflate.DeflateParameters(
            remote_no_context_takeover, local_no_context_takeover, remote_max_window_bits, local_max_window_bits
        )
        #: For the engine, which inflates what it receives.
        self.contexts = deflate.PerMessageDeflate(Role.CLIENT, agreed, _config(**self.compress_settings))
        self._message_open = False  # a compressed one that is received

    def __repr__(self) -> str:
        return (
            f"PerMessageDeflate(remote_no_context_takeover={self.remote_no_context_takeover}, "
            f"local_no_context_takeover={self.local_no_context_takeover}, "
            f"remote_max_window_bits={self.remote_max_window_bits}, "
            f"local_max_window_bits={self.local_max_window_bits})"
        )

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a received frame. Raises PayloadTooBig, ProtocolError for what is not compressed as it must be."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        if not (self._message_open if frame.opcode is CONT else frame.rsv1):
            return frame
        if frame.opcode is CONT and frame.rsv1:
            raise ProtocolError("RSV1 bit set in continuation frame")
        self._message_open = not frame.fin
        limit = sys.maxsize if max_size is None else max_size
        try:
            data = self.contexts.decompress(bytes(frame.data), fin=frame.fin, max_length=limit)
        except PayloadTooBig:
            raise
        except RemoteProtocolError as exc:
            raise ProtocolError(str(exc)) from exc.__cause__
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """Deflate a frame to be sent."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        data = self.contexts.compress(bytes(memoryview(frame.data)), fin=frame.fin)
        return Frame(frame.opcode, data, frame.fin, frame.opcode is not CONT, frame.rsv2, frame.rsv3)


@functools.lru_cache
def _config(level: int | None = None, memLevel: int = 8, strategy: int = 0) -> DeflateConfig:  # noqa: N803 - zlib's names
    return DeflateConfig(level=level, mem_level=memLevel, strategy=strategy, threshold=0)


class _Factory:
    """What both sides are configured with. Window sizes are in bits."""

    name = NAME

    def __init__(
        self,
        server_no_context_takeover: bool,
        client_no_context_takeover: bool,
        server_max_window_bits: int | None,
        client_max_window_bits: int | Literal[True] | None,
        compress_settings: dict[str, Any] | None,
    ) -> None:
        if compress_settings is not None and "wbits" in compress_settings:
            window = f"{self._side}_max_window_bits"
            raise ValueError(f"compress_settings must not include wbits, set {window} instead")
        self.server_no_context_takeover = server_no_context_takeover
        self.client_no_context_takeover = client_no_context_takeover
        self.server_max_window_bits = server_max_window_bits
        self.client_max_window_bits = client_max_window_bits
        self.compress_settings = compress_settings

    _side: str

    def _check_window(self, side: str, bits: int | None) -> None:
        # zlib has no raw deflate with a window of 8 bits
        least = 9 if side == self._side else 8
        if bits is not None and bits is not True and not least <= bits <= 15:
            raise ValueError(f"{side}_max_window_bits must be between {least} and 15")


class ClientPerMessageDeflateFactory(_Factory, ClientExtensionFactory):
    """What a client offers. ``client_max_window_bits=True`` leaves its window to the server.

    Raises ValueError for window sizes that are not 8-15 (9-15 for our own), or ``wbits`` in ``compress_settings``.
    """

    _side = "client"

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | Literal[True] | None = True,
        compress_settings: dict[str, Any] | None = None,
    ) -> None:
        self._check_window("server", server_max_window_bits)
        self._check_window("client", client_max_window_bits)
        super().__init__(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            compress_settings,
        )

    def get_request_params(self) -> list[ExtensionParameter]:
        """The parameters of our offer (RFC 7692 7.1)."""
        return _parameters(
            self.server_no_context_takeover,
            self.client_no_context_takeover,
            self.server_max_window_bits,
            self.client_max_window_bits,
        )

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> PerMessageDeflate:
        """What the server's answer agrees on. Raises NegotiationError if it is no answer to our offer."""
        if any(other.name == NAME for other in accepted_extensions):
            raise NegotiationError(f"received duplicate {NAME}")
        answer = _parsed(params, is_offer=False)
        # RFC 7692 7.1.1.1, 7.1.2.1: what was asked of the server must be confirmed
        if self.server_no_context_takeover and "server_no_context_takeover" not in answer:
            raise NegotiationError("expected server_no_context_takeover")
        server_bits = answer.get("server_max_window_bits")
        if self.server_max_window_bits is not None:
            if server_bits is None:
                raise NegotiationError("expected server_max_window_bits")
            if server_bits > self.server_max_window_bits:
                raise NegotiationError("unsupported server_max_window_bits")
        # RFC 7692 7.1.2.2: only an offer of it allows it in the answer
        client_bits = answer.get("client_max_window_bits")
        ours = self.client_max_window_bits
        if client_bits is not None:
            if ours is None:
                raise NegotiationError("unexpected client_max_window_bits")
            if ours is not True and client_bits > ours:
                raise NegotiationError("unsupported client_max_window_bits")
            if client_bits == 8:
                raise NegotiationError("unsupported client_max_window_bits = 8, use 9")
        elif ours is not True:
            client_bits = ours
        return PerMessageDeflate(
            "server_no_context_takeover" in answer,
            self.client_no_context_takeover or "client_no_context_takeover" in answer,
            server_bits or 15,
            client_bits or 15,
            self.compress_settings,
        )


class ServerPerMessageDeflateFactory(_Factory, ServerExtensionFactory):
    """What a server accepts. With ``require_client_max_window_bits`` it declines a client that cannot limit its window.

    Raises ValueError for window sizes that are not 8-15 (9-15 for our own), or ``wbits`` in ``compress_settings``.
    """

    _side = "server"

    def __init__(
        self,
        server_no_context_takeover: bool = False,
        client_no_context_takeover: bool = False,
        server_max_window_bits: int | None = None,
        client_max_window_bits: int | None = None,
        compress_settings: dict[str, Any] | None = None,
        require_client_max_window_bits: bool = False,
    ) -> None:
        self._check_window("server", server_max_window_bits)
        self._check_window("client", client_max_window_bits)
        super().__init__(
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
            compress_settings,
        )
        if client_max_window_bits is None and require_client_max_window_bits:
            raise ValueError("require_client_max_window_bits is enabled, but client_max_window_bits isn't configured")
        self.require_client_max_window_bits = require_client_max_window_bits

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Our answer to an offer, and what it agrees on. Raises NegotiationError to decline."""
        if any(other.name == NAME for other in accepted_extensions):
            raise NegotiationError(f"skipped duplicate {NAME}")
        asked = _parsed(params, is_offer=True)
        server_keeps_nothing = self.server_no_context_takeover or "server_no_context_takeover" in asked
        client_keeps_nothing = self.client_no_context_takeover or "client_no_context_takeover" in asked
        server_bits = _smaller(self.server_max_window_bits, asked.get("server_max_window_bits"))
        if server_bits == 8:
            raise NegotiationError("unsupported server_max_window_bits = 8, use 9")
        # RFC 7692 7.1.2.2: only an offer of it allows it in the answer
        client_bits = asked.get("client_max_window_bits")
        if client_bits is True:
            client_bits = self.client_max_window_bits
        elif client_bits is not None:
            client_bits = _smaller(self.client_max_window_bits, client_bits)
        elif self.require_client_max_window_bits:
            raise NegotiationError("required client_max_window_bits")
        return (
            _parameters(server_keeps_nothing, client_keeps_nothing, server_bits, client_bits),
            PerMessageDeflate(
                client_keeps_nothing,
                server_keeps_nothing,
                client_bits or 15,
                server_bits or 15,
                self.compress_settings,
            ),
        )


def enable_client_permessage_deflate(
    extensions: Sequence[ClientExtensionFactory] | None,
) -> Sequence[ClientExtensionFactory]:
    """``extensions`` with permessage-deflate, unless it is there already."""
    extensions = extensions or []
    if any(factory.name == NAME for factory in extensions):
        return extensions
    return [*extensions, ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})]


def enable_server_permessage_deflate(
    extensions: Sequence[ServerExtensionFactory] | None,
) -> Sequence[ServerExtensionFactory]:
    """``extensions`` with permessage-deflate, unless it is there already."""
    extensions = extensions or []
    if any(factory.name == NAME for factory in extensions):
        return extensions
    deflate_factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=12, client_max_window_bits=12, compress_settings={"memLevel": 5}
    )
    return [*extensions, deflate_factory]


def _smaller(ours: int | None, asked: int | None) -> int | None:
    """Of two limits, either of which may be missing."""
    return min(filter(None, (ours, asked)), default=None)


def _parameters(
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: int | None,
    client_max_window_bits: int | Literal[True] | None,
) -> list[ExtensionParameter]:
    parameters: list[ExtensionParameter] = []
    if server_no_context_takeover:
        parameters.append(("server_no_context_takeover", None))
    if client_no_context_takeover:
        parameters.append(("client_no_context_takeover", None))
    if server_max_window_bits:
        parameters.append(("server_max_window_bits", str(server_max_window_bits)))
    if client_max_window_bits:
        value = None if client_max_window_bits is True else str(client_max_window_bits)
        parameters.append(("client_max_window_bits", value))
    return parameters


def _parsed(params: Sequence[ExtensionParameter], *, is_offer: bool) -> dict[str, Any]:
    """The parameters by name: True if it has no value, 8-15 for a window. Raises NegotiationError (RFC 7692 7.1)."""
    found: dict[str, Any] = {}
    for name, value in params:
        has_window = name in ("server_max_window_bits", "client_max_window_bits")
        if not has_window and name not in ("server_no_context_takeover", "client_no_context_takeover"):
            raise InvalidParameterName(name)
        if name in found:
            raise DuplicateParameter(name)
        may_be_bare = not has_window or (is_offer and name == "client_max_window_bits")
        if value is None and may_be_bare:
            found[name] = True
        elif has_window and value in _WINDOWS:
            found[name] = _WINDOWS[value]
        else:
            raise InvalidParameterValue(name, value)
    return found
