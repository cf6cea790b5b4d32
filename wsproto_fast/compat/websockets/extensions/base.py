"""What an extension has to be. A connection with any but our permessage-deflate is read frame by frame in Python."""

from __future__ import annotations

from collections.abc import Sequence

from ..frames import Frame
from ..typing import ExtensionName, ExtensionParameter

__all__ = ["ClientExtensionFactory", "Extension", "ServerExtensionFactory"]


class Extension:
    """What was agreed on for one connection."""

    #: As it stands in Sec-WebSocket-Extensions.
    name: ExtensionName

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """A received frame without what the peer's extension did to it.

        Raises PayloadTooBig if it would have more than ``max_size`` bytes.
        """
        raise NotImplementedError

    def encode(self, frame: Frame) -> Frame:
        """A frame as it is to be sent."""
        raise NotImplementedError


class ClientExtensionFactory:
    """What a client offers, once for many connections."""

    name: ExtensionName

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """The parameters in the request."""
        raise NotImplementedError

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> Extension:
        """The extension that a response's parameters agree on. Raises NegotiationError if they are not acceptable.

        ``accepted_extensions`` were agreed on before it, by the same response.
        """
        raise NotImplementedError


class ServerExtensionFactory:
    """What a server accepts, once for many connections."""

    name: ExtensionName

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        """The response's parameters, and the extension that they agree on. Raises NegotiationError to decline.

        ``accepted_extensions`` were agreed on before it, with the same request.
        """
        raise NotImplementedError
