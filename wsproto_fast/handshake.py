"""The opening handshake (RFC 6455 4): requests and responses to an agreement, or to the reason there is none.

Knows the WebSocket headers and what may go on the wire; knows no frames, sockets or time. Text of the peer never
raises: it ends in ``error``. Text of our user raises ValueError before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TypeAlias

from ._headers import (
    Extension,
    accept_key,
    basic_authorization,
    check_upgrade,
    checked_headers,
    checked_subprotocols,
    generate_key,
    is_key,
    parse_extensions,
    parse_subprotocols,
    parse_token_list,
    single_value,
)
from .constants import Role
from .deflate import DeflateParameters, PerMessageDeflate, accept_offer, accept_response, offer
from .exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
    TooManyHeaders,
)
from .http11 import Headers, HeadersLike, Request, RequestParser, Response, ResponseParser, check_request
from .limits import DeflateConfig, Limits
from .uri import WebSocketURI

__all__ = [
    "ClientHandshake",
    "Extension",
    "ServerHandshake",
    "ServerRules",
    "accept_key",
    "generate_key",
    "parse_extensions",
    "parse_subprotocols",
    "parse_token_list",
]

#: Headers that only the handshake itself may set.
_HANDSHAKE_HEADERS = ("Upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Extensions",
                      "Sec-WebSocket-Key", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol")  # fmt: skip
_REFUSAL_HEADERS = ("Connection", "Content-Length", "Transfer-Encoding")


class _Handshake:
    """What both sides have in common: output, outcome."""

    # How all begin. A server makes one of us for each client that connects, whoever that is.

    #: Why there is no connection; None as long as nothing is wrong.
    error: InvalidHandshake | None = None
    #: The handshake is over; accepted: the connection is open.
    done = False
    accepted = False
    #: What was agreed on.
    subprotocol: str | None = None
    deflate: PerMessageDeflate | None = None
    _output: bytes | None = None

    def data_to_send(self) -> list[bytes]:
        """Bytes for the transport, each once."""
        output, self._output = self._output, None
        return [] if output is None else [output]

    def _is_over(self) -> bool:
        """Whether input is to be discarded. Raises InvalidState when it belongs to the connection."""
        if self.accepted:
            raise InvalidState("the handshake is over; data belongs to the connection")
        return self.done


SelectSubprotocol: TypeAlias = "Callable[[ServerHandshake, Sequence[str]], str | None]"
#: Parameters of permessage-deflate, and the value of Sec-WebSocket-Extensions that says so.
Agreement: TypeAlias = "tuple[DeflateParameters, str]"

#: Lists of extensions whose answer a server remembers, and how long they may be. Browsers send a handful.
_MAX_REMEMBERED = 64
_MAX_REMEMBERED_SIZE = 256


class ServerRules:
    """What a server agrees to, checked and shared by all its handshakes. Arguments and errors: see ServerHandshake."""

    def __init__(
        self,
        *,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        subprotocols: Sequence[str] | None = None,
        deflate: DeflateConfig | None = DeflateConfig(),  # noqa: B008 (frozen)
        server_header: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        if isinstance(origins, str):
            raise TypeError("origins must be a list, not a str")
        self.origins = origins
        self.subprotocols = checked_subprotocols(subprotocols)
        self.deflate = deflate
        if server_header is not None:
            Headers(Server=server_header)  # checks it
        self.server_header = server_header
        self.limits = limits
        self._agreements: dict[str, Agreement | None] = {}

    def complete(self, response: object) -> None:
        """Give what a hook wants to answer our Server header. Raises TypeError when it is no Response."""
        if not isinstance(response, Response):
            raise TypeError(f"process_request must return a Response or None, not {type(response).__name__}")
        if self.server_header is not None and "Server" not in response.headers:
            response.headers["Server"] = self.server_header

    def acceptance(
        self, key: str, agreement: Agreement | None, subprotocol: str | None, added: Headers | None = None
    ) -> Response:
        """The 101 (RFC 6455 4.2.2)."""
        items = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_key(key))]
        if agreement is not None:
            items.append(("Sec-WebSocket-Extensions", agreement[1]))
        if subprotocol is not None:
            items.append(("Sec-WebSocket-Protocol", subprotocol))
        if added is not None:
            items += added.raw_items()
        if self.server_header is not None and (added is None or "Server" not in added):
            items.append(("Server", self.server_header))
        return Response(101, "Switching Protocols", Headers.of(items))

    def repeat(self, head: bytes, subprotocol: str | None) -> tuple[Request, Response]:
        """A request that was accepted, and what ``accept`` answered then, from the request's ``head``."""
        request = RequestParser(self.limits).feed(head)
        assert request is not None
        key = request.headers["Sec-WebSocket-Key"]
        return request, self.acceptance(key, self.agreement_with(request.headers), subprotocol)

    def agreement_with(self, headers: Headers) -> Agreement | None:
        """Our answer to a client's extensions, if any. Raises InvalidHeaderFormat."""
        # RFC 6455 11.3.2: several headers are one list
        offers = headers.look_up("sec-websocket-extensions")
        return self._agreement(", ".join(offers)) if offers else None

    def _agreement(self, offers: str) -> Agreement | None:
        if offers in self._agreements:
            return self._agreements[offers]
        extensions = parse_extensions(offers)
        answer = None if self.deflate is None else accept_offer(self.deflate, extensions)
        if len(self._agreements) < _MAX_REMEMBERED and len(offers) <= _MAX_REMEMBERED_SIZE:
            self._agreements[offers] = answer
        return answer


class ServerHandshake(_Handshake):
    """The server's side: from the first byte to 101, or to the refusal after which the transport must be closed.

    Feed ``receive_data`` until ``request`` or ``error`` is set; then ``send_response(accept())``, or with another
    response of your own. Both may be set: a well-formed request that is not a WebSocket handshake, which
    can still be answered as plain HTTP with ``reject`` or any Response. ``accept()`` answers it with the right refusal.

    ``origins``: accepted values of Origin (RFC 6455 10.2), each an exact str, a compiled pattern that must match the
    whole of it, or None for a request without one; ``None`` in place of the list accepts any. ``subprotocols``: ours,
    best first; a client that offers none of them is refused. ``select_subprotocol``: ``f(handshake, offered)`` in its
    place; returns one of the offered subprotocols or None, or raises NegotiationError to refuse. ``deflate``: None
    never agrees on compression. Raises ValueError when ``subprotocols`` or ``server_header`` must not go on the wire.
    """

    def __init__(
        self,
        *,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        subprotocols: Sequence[str] | None = None,
        select_subprotocol: SelectSubprotocol | None = None,
        deflate: DeflateConfig | None = DeflateConfig(),  # noqa: B008 (frozen)
        server_header: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        self._begin(
            ServerRules(
                origins=origins,
                subprotocols=subprotocols,
                deflate=deflate,
                server_header=server_header,
                limits=limits,
            ),
            select_subprotocol,
        )

    @classmethod
    def under(cls, rules: ServerRules, select_subprotocol: SelectSubprotocol | None = None) -> ServerHandshake:
        """A handshake by rules that many share."""
        handshake = cls.__new__(cls)
        handshake._begin(rules, select_subprotocol)
        return handshake

    #: The request, once its head is complete and well-formed.
    request: Request | None = None
    #: Its Origin header, once checked.
    origin: str | None = None
    #: The value of Sec-WebSocket-Extensions in our 101.
    extensions_header: str | None = None
    _key = ""
    #: What we agree to of the extensions that it offers.
    _agreement: Agreement | None = None
    #: Received between the request and its answer.
    _early_data: bytes | bytearray = b""

    def _begin(self, rules: ServerRules, select_subprotocol: SelectSubprotocol | None) -> None:
        self._rules = rules
        self._select = select_subprotocol
        self._parser = RequestParser(rules.limits)
        #: The subprotocols that the request offers.
        self.offered_subprotocols: list[str] = []

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what the transport received. Never raises for what the client did; see ``error``.

        Data behind the head is kept for the connection, at most ``Limits.max_read_ahead`` bytes of it: a client must
        not send before our answer (RFC 6455 4.1). Raises InvalidState after a 101.
        """
        if self._is_over() or self.error is not None:
            return  # a refused peer's data means nothing
        if self.request is not None:
            self._keep_early_data(data)
            return
        try:
            self.request = self._parser.feed(data)
            if self.request is not None:
                self._check_request(self.request)
                self._keep_early_data(self._parser.trailing_data)
        except InvalidHandshake as exc:
            self.error = exc

    def receive_eof(self) -> None:
        """The transport was closed by the client. Before the request this is an error, caused by EOFError."""
        if self.request is None and self.error is None:
            try:
                self._parser.feed_eof()
            except InvalidHandshake as exc:
                self.error = exc

    def receive_request(self, request: Request) -> None:
        """In place of ``receive_data``: take a request whose head an embedder has parsed.

        Raises InvalidState when there is a request already.
        """
        if self.request is not None or self.error is not None:
            raise InvalidState("there is a request already")
        self.request = request
        try:
            check_request(request)
            self._check_request(request)
        except InvalidHandshake as exc:
            self.error = exc

    def accept(self, *, headers: HeadersLike | None = None, subprotocol: str | None = None) -> Response:
        """The answer to the request: 101, or the refusal that fits ``error``. Send it with ``send_response``.

        Here subprotocol and compression are agreed on, which may set ``error`` too. ``subprotocol`` overrides the
        choice. ``headers`` are added to the 101. Raises InvalidState when there is no request yet, ValueError when a
        header must not go on the wire or belongs to the handshake, or when the subprotocol was not offered; and
        whatever ``select_subprotocol`` raises, unless it is InvalidHandshake.
        """
        added = None if headers is None else checked_headers(headers, _HANDSHAKE_HEADERS)
        if self.request is None and self.error is None:
            raise InvalidState("no request to accept yet")
        if self.error is None and subprotocol is None:
            try:
                subprotocol = self._negotiate_subprotocol()
            except InvalidHandshake as exc:
                self.error = exc
        if self.error is not None:
            return self._refuse(self.error)
        # RFC 6455 4.2.2: the value chosen MUST be derived from the client's handshake
        if subprotocol is not None and subprotocol not in self.offered_subprotocols:
            raise ValueError(f"subprotocol was not offered: {subprotocol!r}")
        self.subprotocol = subprotocol
        rules = self._rules
        self.deflate = self.extensions_header = None
        if self._agreement is not None and rules.deflate is not None:
            parameters, self.extensions_header = self._agreement
            self.deflate = PerMessageDeflate(Role.SERVER, parameters, rules.deflate)
        return rules.acceptance(self._key, self._agreement, subprotocol, added)

    def reject(self, status: int, body: str | bytes = "", headers: HeadersLike | None = None) -> Response:
        """A plain HTTP answer. Send it with ``send_response``; the transport is closed after it.

        A str is sent as text/plain in UTF-8, bytes as application/octet-stream, unless ``headers`` say otherwise.
        Raises ValueError when the status isn't 200-599, or when a header must not go on the wire or belongs to the
        handshake.
        """
        return self._reject(status, body, checked_headers(headers, _REFUSAL_HEADERS), "close")

    def fail(self) -> Response:
        """The answer to a request on which the program has failed."""
        return self.reject(500, "Failed to open a WebSocket connection.\nSee server log for more information.\n")

    def send_response(self, response: Response) -> None:
        """Queue the answer. After it ``done`` is True, and ``accepted`` if it is a 101.

        What was agreed on is what the 101 says, whoever changed it after ``accept``. A 101 over an ``error`` is
        replaced by its refusal. Refusals get "Connection: close" if they have no Connection header, the right
        Content-Length if they have a wrong one, and no body where HTTP has none: for HEAD, with 204 and 304 (RFC 9110
        6.4.1). Raises InvalidState when there is nothing to answer or the answer was sent, ValueError when the response
        must not go on the wire.
        """
        if self.done or (self.request is None and self.error is None):
            raise InvalidState("no request to answer")
        if response.status_code == 101 and self.error is not None:
            response = self._refuse(self.error)
        if response.status_code == 101:
            wire = response.serialize()
            if response.headers.look_up("sec-websocket-extensions") != [self.extensions_header]:
                self.deflate = self.extensions_header = None
            self.subprotocol = ", ".join(response.headers.look_up("sec-websocket-protocol")) or None
        else:
            wire = self._serialize_refusal(response)
            self._early_data = b""
            self.subprotocol = self.deflate = self.extensions_header = None
        self._output = wire
        self.accepted = response.status_code == 101
        self.done = True

    @property
    def head(self) -> bytes:
        """The request's head as it came."""
        return self._parser.head

    @property
    def trailing_data(self) -> bytes:
        """What the client sent behind its request: frames, but only once 101 is sent (RFC 6455 4.2.2)."""
        return bytes(self._early_data) if self.accepted else b""

    def _keep_early_data(self, data: bytes | bytearray | memoryview) -> None:
        room = self._rules.limits.max_read_ahead
        if room is not None and len(data) > room - len(self._early_data):
            self.error = SecurityError(f"more than {room} bytes before the answer to the request")
            self._early_data = b""
        elif self._early_data:
            self._early_data += data
        elif data:
            self._early_data = bytearray(data)

    def _check_request(self, request: Request) -> None:
        # RFC 6455 4.2.1
        if request.method != "GET":
            raise InvalidMethod(request.method)
        if request.protocol != "HTTP/1.1":
            raise InvalidProtocol(request.protocol)
        headers = request.headers
        check_upgrade(headers)
        version = single_value(headers, "Sec-WebSocket-Version")
        if version != "13":
            raise InvalidHeaderValue("Sec-WebSocket-Version", version)
        self._key = single_value(headers, "Sec-WebSocket-Key")
        if not is_key(self._key):
            raise InvalidHeaderValue("Sec-WebSocket-Key", self._key)
        self._check_origin(headers)
        # RFC 6455 11.3.4: several headers are one list
        offered = headers.look_up("sec-websocket-protocol")
        if offered:
            self.offered_subprotocols = parse_subprotocols(", ".join(offered))
        self._agreement = self._rules.agreement_with(headers)

    def _check_origin(self, headers: Headers) -> None:
        # RFC 6454 7.3: not more than one
        origin = single_value(headers, "Origin") if "Origin" in headers else None
        origins = self._rules.origins
        if origins is not None and not any(
            origin is not None and allowed.fullmatch(origin) is not None
            if isinstance(allowed, re.Pattern)
            else allowed == origin
            for allowed in origins
        ):
            raise InvalidOrigin(origin)
        self.origin = origin

    def _negotiate_subprotocol(self) -> str | None:
        offered = self.offered_subprotocols
        if self._select is not None:
            return self._select(self, offered)
        ours = self._rules.subprotocols
        for subprotocol in ours:
            if subprotocol in offered:
                return subprotocol
        if not ours:
            return None
        if not offered:
            raise NegotiationError("missing subprotocol")
        raise NegotiationError(f"invalid subprotocol; expected one of {', '.join(ours)}")

    def _reject(self, status: int, body: str | bytes, headers: Headers, connection: str) -> Response:
        if not 200 <= status <= 599:
            raise ValueError(f"status {status:d} is not an answer")
        response = Headers({"Connection": connection})
        content_type = "application/octet-stream"
        if isinstance(body, str):
            body, content_type = body.encode(), "text/plain; charset=utf-8"
        if status != 204:  # RFC 9110 8.6
            response["Content-Length"] = str(len(body))
            if "Content-Type" not in headers:
                response["Content-Type"] = content_type
        response.update(headers)
        if self._rules.server_header is not None and "Server" not in response:
            response["Server"] = self._rules.server_header
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        return Response(int(status), phrase, response, body)

    def _refuse(self, error: InvalidHandshake) -> Response:
        status, hint, headers = _refusal(error)
        reason = str(error) if error.__cause__ is None else f"{error}; {error.__cause__}"
        body = f"Failed to open a WebSocket connection: {reason[:500]}.\n\n{hint}\n"
        # RFC 9110 7.8: who sends Upgrade names it in Connection
        return self._reject(status, body, headers, "close, Upgrade" if "Upgrade" in headers else "close")

    def _serialize_refusal(self, response: Response) -> bytes:
        if response.status_code < 200:
            raise ValueError(f"status {response.status_code:d} is not an answer")
        headers, body = response.headers.copy(), response.body
        if "Connection" not in headers:
            headers["Connection"] = "close"
        head = self.request is not None and self.request.method == "HEAD"
        if headers.get_all("Content-Length") not in ([], [str(len(body))]) and (body or not head):
            del headers["Content-Length"]  # a program has replaced the body
            headers["Content-Length"] = str(len(body))
        if response.status_code in (204, 304) or head:
            body = b""
        return Response(response.status_code, response.reason_phrase, headers, body).serialize()


def _refusal(error: InvalidHandshake) -> tuple[int, str, Headers]:
    """Status, advice and headers that answer an error of the client."""
    if isinstance(error, RequestLineTooLong):
        return 414, "Use a shorter URI.", Headers()
    if isinstance(error, (HeaderLineTooLong, TooManyHeaders)):
        return 431, "Send fewer or shorter headers; cookies of this site may have grown too large.", Headers()
    if isinstance(error, InvalidMethod):
        return 405, "Use GET.", Headers({"Allow": "GET"})
    if isinstance(error, InvalidProtocol):
        return 505, "Use HTTP/1.1.", Headers()
    if isinstance(error, InvalidOrigin):
        return 403, "Connect from a page whose origin this server allows.", Headers()
    if isinstance(error, InvalidUpgrade):
        hint = "You cannot access a WebSocket server directly with a browser. You need a WebSocket client."
        return 426, hint, Headers({"Upgrade": "websocket"})
    if isinstance(error, InvalidHeaderValue) and error.name == "Sec-WebSocket-Version":
        hint = "Use version 13 of the WebSocket protocol."
        return 426, hint, Headers({"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    return 400, "Use a WebSocket client that follows RFC 6455.", Headers()


class ClientHandshake(_Handshake):
    """The client's side: send ``request``, feed ``receive_data`` until ``done``; not ``accepted``: ``error`` says why.

    ``additional_headers`` are added to the request; Host, Authorization, Origin and User-Agent among them replace ours.
    User information in the URI becomes Basic authentication (RFC 7617). ``deflate``: None does not offer compression.
    Raises ValueError when anything given has a character that must not go on the wire, or is a header that belongs to
    the handshake.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        deflate: DeflateConfig | None = DeflateConfig(),  # noqa: B008 (frozen)
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
    ) -> None:
        self.uri = uri
        self.key = generate_key()
        self._subprotocols = checked_subprotocols(subprotocols)
        self._config = deflate
        self._parser = ResponseParser(limits)
        #: Our request, and the server's answer once it is complete.
        self.request = self._build_request(origin, additional_headers, user_agent_header)
        self.response: Response | None = None
        self._output = self.request.serialize()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what the transport received. Never raises for what the server did; see ``error``.

        Raises InvalidState after a 101: such data belongs to the connection.
        """
        if not self._is_over():
            try:
                self._process_response(self._parser.feed(data))
            except InvalidHandshake as exc:
                self.error = exc
                self.done = True

    def receive_eof(self) -> None:
        """The transport was closed by the server: the end of a body, or an error caused by EOFError."""
        if not self.done:
            try:
                self._process_response(self._parser.feed_eof())
            except InvalidHandshake as exc:
                self.error = exc
                self.done = True

    @property
    def trailing_data(self) -> bytes:
        """What the server sent behind its 101: frames."""
        return self._parser.trailing_data if self.accepted else b""

    def _build_request(
        self, origin: str | None, additional_headers: HeadersLike | None, user_agent_header: str | None
    ) -> Request:
        uri = self.uri
        given = checked_headers(additional_headers, (*_HANDSHAKE_HEADERS, "Sec-WebSocket-Version"))
        # RFC 6455 4.1, in its order
        headers = Headers({"Host": uri.authority, "Upgrade": "websocket", "Connection": "Upgrade"})
        headers["Sec-WebSocket-Key"] = self.key
        if origin is not None:
            headers["Origin"] = origin
        headers["Sec-WebSocket-Version"] = "13"
        if self._subprotocols:
            headers["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        if self._config is not None:
            headers["Sec-WebSocket-Extensions"] = offer(self._config)
        if uri.user_info is not None:
            headers["Authorization"] = basic_authorization(*uri.user_info)
        if user_agent_header is not None:
            headers["User-Agent"] = user_agent_header
        for name in ("Host", "Authorization", "Origin", "User-Agent"):
            if len(given.get_all(name)) > 1:
                raise ValueError(f"{name} must not stand twice")
            if name in given and name in headers:
                del headers[name]
        headers.update(given)
        if not uri.resource_name.startswith("/"):
            raise ValueError(f"path must start with a slash: {uri.path!r}")
        return Request(uri.resource_name, headers)

    def _process_response(self, response: Response | None) -> None:
        if response is None:
            return
        self.response = response
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        # RFC 6455 4.1, "the client MUST validate the server's response"
        check_upgrade(headers)
        accept = single_value(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self.key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)
        subprotocol = self._agreed_subprotocol(headers)
        self.deflate = self._agreed_deflate(headers)
        self.subprotocol = subprotocol
        self.done = self.accepted = True

    def _agreed_deflate(self, headers: Headers) -> PerMessageDeflate | None:
        if "Sec-WebSocket-Extensions" not in headers:
            return None
        extensions = parse_extensions(", ".join(headers.get_all("Sec-WebSocket-Extensions")))
        if self._config is None:
            raise NegotiationError(f"no extensions offered; got {extensions[0][0]}")
        parameters = accept_response(self._config, extensions)
        return None if parameters is None else PerMessageDeflate(Role.CLIENT, parameters, self._config)

    def _agreed_subprotocol(self, headers: Headers) -> str | None:
        if "Sec-WebSocket-Protocol" not in headers:
            return None
        subprotocol, *others = parse_subprotocols(", ".join(headers.get_all("Sec-WebSocket-Protocol")))
        if others:  # RFC 6455 11.3.4: one in the response
            raise InvalidHeader("Sec-WebSocket-Protocol", f"multiple values: {', '.join([subprotocol, *others])}")
        if subprotocol not in self._subprotocols:
            raise NegotiationError(f"unsupported subprotocol: {subprotocol}")
        return subprotocol
