"""The server's side: the opening handshake, then a ``Protocol``."""

from __future__ import annotations

import email.utils
import http
import re
from collections.abc import Callable, Sequence
from typing import cast

from ... import _headers
from ...exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
)
from ...http11 import Headers, Request, RequestParser, Response
from .extensions.base import Extension, ServerExtensionFactory
from .headers import build_extension, parse_extension, parse_subprotocol
from .protocol import CONNECTING, OPEN, SERVER, Protocol, State
from .typing import ExtensionHeader, LoggerLike, Origin, StatusLike, Subprotocol
from .utils import accept_key

__all__ = ["ServerProtocol"]

SelectSubprotocol = Callable[["ServerProtocol", Sequence[Subprotocol]], Subprotocol | None]

_NO_CLIENT = "You cannot access a WebSocket server directly with a browser. You need a WebSocket client.\n"
_SEE_LOG = "Failed to open a WebSocket connection.\nSee server log for more information.\n"


class ServerProtocol(Protocol):
    """A server's connection. The first event is the Request; answer with ``send_response(accept(request))``.

    ``origins``: accepted values of Origin, each an exact str, a compiled pattern for the whole of it, or None for a
    request without one; None in place of the list accepts any. ``extensions``: factories, in order of preference.
    ``subprotocols``: ours, best first. ``select_subprotocol``: ``f(protocol, offered)`` in its place. For ``max_size``
    see Protocol. Methods whose names begin with ``process`` or ``select`` may be overridden.
    """

    def __init__(
        self,
        *,
        origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        select_subprotocol: SelectSubprotocol | None = None,
        state: State = CONNECTING,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(SERVER, state=state, max_size=max_size, logger=logger)
        self.origins = origins
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self._select = select_subprotocol
        #: Whether ``accept`` was asked for the response.
        self.accept_called = False
        self._handshaking = state is CONNECTING
        self._parser = RequestParser()

    # -- the request -----------------------------------------------------------

    def _receive_handshake(self, data: bytes | bytearray | memoryview) -> bytes:
        try:
            request = self._parser.feed(data)
        except InvalidHandshake as exc:
            self._refuse_request(exc)
            return b""
        if request is None:
            return b""
        if self.debug:
            self.logger.debug("< %s %s %s", request.method, request.path, request.protocol)
            self._log_headers("<", request.headers)
        self.events.append(request)
        self._handshaking = False
        return self._parser.trailing_data

    def _end_handshake(self) -> None:
        try:
            self._parser.feed_eof()
        except InvalidMessage as exc:
            self._refuse_request(exc)

    def _refuse_request(self, exc: InvalidHandshake) -> None:
        """Answer what is no request that could be answered."""
        if self.debug:
            self.logger.debug("! no valid HTTP request", exc_info=exc)
        self.handshake_exc = exc
        if isinstance(exc, RequestLineTooLong):
            self.send_response(self._failure(http.HTTPStatus.REQUEST_URI_TOO_LONG, exc))
        elif isinstance(exc, (HeaderLineTooLong, TooManyHeaders)):
            self.send_response(self._failure(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, exc))
        else:
            if not isinstance(exc, InvalidMessage):  # a version that is not HTTP/1
                self.handshake_exc = InvalidMessage("did not receive a valid HTTP request")
                self.handshake_exc.__cause__ = ValueError(str(exc))
            self.send_eof()
            self._discard()

    # -- the answer ------------------------------------------------------------

    def accept(self, request: Request) -> Response:
        """The answer to a request: 101, or the refusal that it deserves; then ``handshake_exc`` says why.

        It may be changed before it is given to ``send_response``.
        """
        self.accept_called = True
        try:
            accept, extensions, subprotocol = self.process_request(request)
        except InvalidHandshake as exc:
            if self.debug:
                self.logger.debug("! invalid handshake", exc_info=True)
            self.handshake_exc = exc
            return self._refusal(exc)
        except Exception as exc:  # of an overridden method
            self.logger.error("opening handshake failed", exc_info=True)
            self.handshake_exc = exc
            return self.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, _SEE_LOG)
        headers = [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ]
        if extensions is not None:
            headers.append(("Sec-WebSocket-Extensions", extensions))
        if subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", subprotocol))
        return Response(101, "Switching Protocols", Headers(headers))

    def reject(self, status: StatusLike, text: str) -> Response:
        """A plain text answer, after which the transport ends. Raises ValueError for a status that is none."""
        status = http.HTTPStatus(status)
        body = text.encode()
        headers = Headers(
            [
                ("Date", email.utils.formatdate(usegmt=True)),
                ("Connection", "close"),
                ("Content-Length", str(len(body))),
                ("Content-Type", "text/plain; charset=utf-8"),
            ]
        )
        return Response(status.value, status.phrase, headers, body)

    def _refusal(self, exc: InvalidHandshake) -> Response:
        """What answers a request that is no handshake, or none that we agree to."""
        if isinstance(exc, InvalidOrigin):
            return self._failure(http.HTTPStatus.FORBIDDEN, exc)
        if isinstance(exc, InvalidMethod):
            response = self._failure(http.HTTPStatus.METHOD_NOT_ALLOWED, exc)
            response.headers["Allow"] = "GET"
        elif isinstance(exc, InvalidProtocol):
            response = self._failure(http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, exc)
        elif isinstance(exc, InvalidUpgrade):
            response = self._failure(http.HTTPStatus.UPGRADE_REQUIRED, exc, "\n" + _NO_CLIENT)
            response.headers["Upgrade"] = "websocket"
        else:
            response = self._failure(http.HTTPStatus.BAD_REQUEST, exc)
        return response

    def _failure(self, status: http.HTTPStatus, exc: InvalidHandshake, hint: str = "") -> Response:
        causes = [str(exc)]
        cause = exc.__cause__
        while cause is not None:
            causes.append(str(cause))
            cause = cause.__cause__
        return self.reject(status, f"Failed to open a WebSocket connection: {'; '.join(causes)}.\n{hint}")

    def send_response(self, response: Response) -> None:
        """Queue the answer. 101 opens the connection, any other ends it.

        Raises ValueError when it must not go on the wire, AssertionError (InvalidState) for a 101 that comes late.
        """
        if response.status_code == 101 and self.state is not CONNECTING:
            raise self._not_in_state()
        if self.debug:
            self.logger.debug("> HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
            self._log_headers(">", response.headers)
            if response.body:
                self.logger.debug("> [body] (%d bytes)", len(response.body))
        self.writes.append(response.serialize())
        if response.status_code == 101:
            self.state = OPEN
            self.logger.info("connection open")
            return
        what = "connection rejected" if self.accept_called else "HTTP response sent"
        self.logger.info("%s (%d %s)", what, response.status_code, response.reason_phrase)
        self.send_eof()
        self._discard()

    # -- what a request must be ------------------------------------------------

    def process_request(self, request: Request) -> tuple[str, str | None, str | None]:
        """The values of Sec-WebSocket-Accept, -Extensions and -Protocol in our 101 (RFC 6455 4.2.2).

        Raises InvalidHandshake for a request that must be refused (RFC 6455 4.2.1).
        """
        if request.method != "GET":
            raise InvalidMethod(request.method)
        if request.protocol != "HTTP/1.1":
            raise InvalidProtocol(request.protocol)
        headers = request.headers
        _headers.check_upgrade(headers)
        key = _headers.single_value(headers, "Sec-WebSocket-Key")
        if not _headers.is_key(key):
            raise InvalidHeaderValue("Sec-WebSocket-Key", key)
        version = _headers.single_value(headers, "Sec-WebSocket-Version")
        if version != "13":
            raise InvalidHeaderValue("Sec-WebSocket-Version", version)
        self.origin = self.process_origin(headers)
        extensions, self.extensions = self.process_extensions(headers)
        self.subprotocol = self.process_subprotocol(headers)
        return accept_key(key), extensions, self.subprotocol

    def process_origin(self, headers: Headers) -> Origin | None:
        """The Origin of the request. Raises InvalidOrigin, or InvalidHeader for several (RFC 6454 7.3)."""
        origin = cast(Origin, _headers.single_value(headers, "Origin")) if "Origin" in headers else None
        if self.origins is None:
            return origin
        for allowed in self.origins:
            if isinstance(allowed, re.Pattern):
                if origin is not None and allowed.fullmatch(origin) is not None:
                    return origin
            elif allowed == origin:
                return origin
        raise InvalidOrigin(origin)

    def process_extensions(self, headers: Headers) -> tuple[str | None, list[Extension]]:
        """Our answer to the extensions that are offered, or None; and what we agree to. Raises InvalidHeaderFormat."""
        answers: list[ExtensionHeader] = []
        accepted: list[Extension] = []
        for header in headers.get_all("Sec-WebSocket-Extensions") if self.available_extensions else ():
            for name, parameters in parse_extension(header):
                for factory in self.available_extensions or ():
                    if factory.name != name:
                        continue
                    try:
                        answer, extension = factory.process_request_params(parameters, accepted)
                    except NegotiationError:
                        continue
                    answers.append((name, answer))
                    accepted.append(extension)
                    break
        return build_extension(answers) if answers else None, accepted

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """The subprotocol that we agree to. Raises InvalidHeaderFormat, and what ``select_subprotocol`` does."""
        offered = [
            subprotocol
            for header in headers.get_all("Sec-WebSocket-Protocol")
            for subprotocol in parse_subprotocol(header)
        ]
        return self.select_subprotocol(offered)

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """The first of ours that is offered; None if we have none. Raises NegotiationError if nothing fits."""
        if self._select is not None:
            return self._select(self, subprotocols)
        ours = self.available_subprotocols
        if not ours:
            return None
        for subprotocol in ours:
            if subprotocol in subprotocols:
                return subprotocol
        if not subprotocols:
            raise NegotiationError("missing subprotocol")
        raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(ours)}")
