"""The client's side: the opening handshake, then a ``Protocol``."""

from __future__ import annotations

from collections.abc import Sequence

from ... import _headers
from ...backoff import backoff, process_exception
from ...exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidStatus,
    NegotiationError,
    StatusLineTooLong,
)
from ...http11 import Headers, Request, Response, ResponseParser
from ...limits import Limits
from ...uri import WebSocketURI
from .extensions.base import ClientExtensionFactory, Extension
from .headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    parse_extension,
    parse_subprotocol,
)
from .protocol import CLIENT, CONNECTING, OPEN, Protocol, State
from .typing import LoggerLike, Origin, Subprotocol
from .utils import accept_key, generate_key

__all__ = ["ClientProtocol", "backoff", "process_exception"]

#: As much of a refusal as websockets takes.
_LIMITS = Limits(max_body_size=2**20)


class ClientProtocol(Protocol):
    """A client's connection. ``send_request(connect())`` begins it; the first event is the Response.

    ``extensions``: factories, in order of preference. ``subprotocols``: best first. For ``max_size`` see Protocol.
    Methods whose names begin with ``process`` may be overridden.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: Origin | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        state: State = CONNECTING,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(CLIENT, state=state, max_size=max_size, logger=logger)
        self.uri = uri
        self.origin = origin
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self.key = generate_key()
        self._handshaking = state is CONNECTING
        self._parser = ResponseParser(_LIMITS)

    # -- the request -----------------------------------------------------------

    def connect(self) -> Request:
        """Our request (RFC 6455 4.1), which may be changed before it is given to ``send_request``."""
        uri = self.uri
        headers = Headers({"Host": build_host(uri.host, uri.port, uri.secure)})
        if uri.user_info is not None:
            headers["Authorization"] = build_authorization_basic(*uri.user_info)
        if self.origin is not None:
            headers["Origin"] = self.origin
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Key"] = self.key
        headers["Sec-WebSocket-Version"] = "13"
        if self.available_extensions is not None:
            offers = [(factory.name, factory.get_request_params()) for factory in self.available_extensions]
            headers["Sec-WebSocket-Extensions"] = build_extension(offers)
        if self.available_subprotocols is not None:
            headers["Sec-WebSocket-Protocol"] = build_subprotocol(self.available_subprotocols)
        return Request(uri.resource_name, headers)

    def send_request(self, request: Request) -> None:
        """Queue the request. Raises ValueError when it must not go on the wire."""
        if self.debug:
            self.logger.debug("> GET %s HTTP/1.1", request.path)
            self._log_headers(">", request.headers)
        self.writes.append(request.serialize())

    # -- the response ----------------------------------------------------------

    def _receive_handshake(self, data: bytes | bytearray | memoryview) -> bytes:
        try:
            response = self._parser.feed(data)
        except InvalidHandshake as exc:
            self._abandon(exc)
            return b""
        self._receive_response(response)
        return b"" if self._handshaking else self._parser.trailing_data

    def _end_handshake(self) -> None:
        try:
            response = self._parser.feed_eof()
        except InvalidMessage as exc:
            self._abandon(exc)
        else:
            self._receive_response(response)

    def _receive_response(self, response: Response | None) -> None:
        if response is None:
            return
        if self.debug:
            self.logger.debug("< HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
            self._log_headers("<", response.headers)
            if response.body:
                self.logger.debug("< [body] (%d bytes)", len(response.body))
        self.events.append(response)
        try:
            self.process_response(response)
        except InvalidHandshake as exc:
            self._give_up(exc)
            return
        self.state = OPEN
        self._handshaking = False

    def _abandon(self, exc: InvalidHandshake) -> None:
        """There is no response that could be told."""
        if not isinstance(exc, (InvalidMessage, StatusLineTooLong)):
            cause, exc = exc, InvalidMessage("did not receive a valid HTTP response")
            exc.__cause__ = cause
        self._give_up(exc)

    def _give_up(self, exc: InvalidHandshake) -> None:
        self.handshake_exc = exc
        self.send_eof()
        self._discard()

    # -- what a response must be -----------------------------------------------

    def process_response(self, response: Response) -> None:
        """Take a response as the answer to ``connect`` (RFC 6455 4.1). Raises InvalidHandshake if it is none."""
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        _headers.check_upgrade(headers)
        accept = _headers.single_value(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self.key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)
        self.extensions = self.process_extensions(headers)
        self.subprotocol = self.process_subprotocol(headers)

    def process_extensions(self, headers: Headers) -> list[Extension]:
        """The extensions that the server agrees to. Raises InvalidHandshake if they are not what was offered."""
        accepted: list[Extension] = []
        for header in headers.get_all("Sec-WebSocket-Extensions"):
            if self.available_extensions is None:
                raise NegotiationError("no extensions supported")
            for name, parameters in parse_extension(header):
                for factory in self.available_extensions:
                    if factory.name != name:
                        continue
                    try:
                        accepted.append(factory.process_response_params(parameters, accepted))
                    except NegotiationError:
                        continue
                    break
                else:
                    raise NegotiationError(f"Unsupported extension: name = {name}, params = {parameters}")
        return accepted

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """The subprotocol that the server agrees to. Raises InvalidHeader, NegotiationError for one not offered."""
        agreed = [
            subprotocol
            for header in headers.get_all("Sec-WebSocket-Protocol")
            for subprotocol in parse_subprotocol(header)
        ]
        if not agreed:
            return None
        if self.available_subprotocols is None:
            raise NegotiationError("no subprotocols supported")
        if len(agreed) > 1:  # RFC 6455 11.3.4
            raise InvalidHeader("Sec-WebSocket-Protocol", f"multiple values: {', '.join(agreed)}")
        if agreed[0] not in self.available_subprotocols:
            raise NegotiationError(f"unsupported subprotocol: {agreed[0]}")
        return agreed[0]
