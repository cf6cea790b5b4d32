"""wsproto's opening handshake, client and server (RFC 6455 4). Knows headers, extensions and events; knows no frames.

The class is called H11Handshake as there; the HTTP is our own, and stricter than h11's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ._http import BadMessage, RequestReader, ResponseReader, ResponseWriter, checked, checked_target, head
from .connection import Connection, ConnectionState, ConnectionType
from .events import AcceptConnection, Event, RejectConnection, RejectData, Request
from .extensions import Extension
from .utilities import (
    LocalProtocolError,
    RemoteProtocolError,
    generate_accept_token,
    generate_nonce,
    normed_header_dict,
    split_comma_header,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from .typing import Headers

__all__ = [
    "WEBSOCKET_UPGRADE",
    "WEBSOCKET_VERSION",
    "H11Handshake",
    "client_extensions_handshake",
    "server_extensions_handshake",
]

# RFC 6455 4.1
WEBSOCKET_VERSION = b"13"
WEBSOCKET_UPGRADE = b"websocket"


class H11Handshake:
    """The opening handshake over HTTP/1.1. ``connection`` is there once it is done."""

    def __init__(self, connection_type: ConnectionType) -> None:
        self.client = connection_type is ConnectionType.CLIENT
        self._state = ConnectionState.CONNECTING
        self._connection: Connection | None = None
        self._events: deque[Event] = deque()
        self._initiating_request: Request | None = None
        self._nonce = b""
        # the peer's side of it
        self._request = RequestReader()  # a server's
        self._response = ResponseReader()  # a client's
        self._ended = False
        self._broken = False
        self._head_done = False  # nothing more is read, but a client reads the body of a refusal
        # our refusal
        self._refusal: ResponseWriter | None = None

    @property
    def state(self) -> ConnectionState:
        """CONNECTING, OPEN; REJECTING while the body of a refusal is under way, CLOSED after it."""
        return self._state

    @property
    def connection(self) -> Connection | None:
        """The connection; None before the handshake has succeeded."""
        return self._connection

    def initiate_upgrade_connection(self, headers: Headers, path: bytes | str) -> None:
        """Take a request that somebody else has read and parsed. Raises as ``receive_data`` does, and
        LocalProtocolError for what is no legal request."""
        if self.client:
            raise LocalProtocolError("Cannot initiate an upgrade connection when acting as the client")
        self.receive_data(_request_head(path, headers))

    def send(self, event: Event) -> bytes:
        """The bytes of Request, AcceptConnection, RejectConnection or RejectData. Raises LocalProtocolError when the
        role or the state does not allow it."""
        if isinstance(event, Request):
            return self._initiate(event)
        if isinstance(event, AcceptConnection):
            return self._accept(event)
        if isinstance(event, RejectConnection):
            return self._reject(event)
        if isinstance(event, RejectData):
            return self._send_reject_data(event)
        raise LocalProtocolError(f"Event {event} cannot be sent during the handshake")

    def receive_data(self, data: bytes | None) -> None:
        """Take bytes from the transport; None or b"": it has ended. Ask for ``events`` then.

        Raises RemoteProtocolError with the event to answer with as its ``event_hint``.
        """
        if data and self._ended:
            raise RuntimeError("received close, then received more data?")
        self._ended = not data
        if self._broken:
            raise _bad_message()
        try:
            if self.client:
                self._receive_response(data or b"")
            elif not self._head_done:
                self._receive_request(data or b"")
        except BadMessage as error:
            self._broken = True
            raise _bad_message() from error

    def events(self) -> Generator[Event, None, None]:
        """The events that are there."""
        while self._events:
            yield self._events.popleft()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(client={self.client}, state={self.state})"

    # -- server ----------------------------------------------------------------

    def _receive_request(self, data: bytes) -> None:
        if not data:
            self._request.end()
        elif self._request.read(data):
            self._head_done = True
            self._events.append(self._process_request())

    def _process_request(self) -> Request:
        # RFC 6455 4.2.1
        request = self._request
        if request.method != b"GET":
            raise _refused("Request method must be GET")
        kept: Headers = []
        found: dict[bytes, bytes] = {}
        items: dict[bytes, list[str]] = {name: [] for name in _LISTS}
        host = None
        try:
            for name, value in request.headers:
                if name in items:
                    items[name] += split_comma_header(value)
                if name == b"host":
                    host = value.decode("idna")
                elif name not in (b"sec-websocket-extensions", b"sec-websocket-protocol"):
                    kept.append((name, value))
                    found[name] = value
        except UnicodeError:
            raise _bad_message() from None
        _check_upgrade(items[b"connection"])
        version = found.get(b"sec-websocket-version")
        if version != WEBSOCKET_VERSION:
            raise RemoteProtocolError(
                "Missing header, 'Sec-WebSocket-Version'",
                event_hint=RejectConnection(
                    headers=[(b"Sec-WebSocket-Version", WEBSOCKET_VERSION)], status_code=426 if version else 400
                ),
            )
        if b"sec-websocket-key" not in found:
            raise _refused("Missing header, 'Sec-WebSocket-Key'")
        _check_websocket(found.get(b"upgrade", b""))
        if host is None:
            raise _refused("Missing header, 'Host'")
        self._initiating_request = Request(
            host=host,
            target=request.target,
            extensions=items[b"sec-websocket-extensions"],
            extra_headers=kept,
            subprotocols=items[b"sec-websocket-protocol"],
        )
        return self._initiating_request

    def _accept(self, event: AcceptConnection) -> bytes:
        request = self._initiating_request
        if self.client or request is None or self._state is not ConnectionState.CONNECTING:
            raise LocalProtocolError(f"Connection cannot be accepted in state {self.state}")
        # RFC 6455 4.2.2
        nonce = normed_header_dict(request.extra_headers)[b"sec-websocket-key"]
        headers: Headers = [
            (b"Upgrade", WEBSOCKET_UPGRADE),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", generate_accept_token(nonce)),
        ]
        if event.subprotocol is not None:
            if event.subprotocol not in request.subprotocols:
                raise LocalProtocolError(f"unexpected subprotocol {event.subprotocol}")
            headers.append((b"Sec-WebSocket-Protocol", event.subprotocol.encode("ascii")))
        if event.extensions:
            offers = [offer for offer in request.extensions if isinstance(offer, str)]
            accepted = server_extensions_handshake(offers, event.extensions)
            if accepted:
                headers.append((b"Sec-WebSocket-Extensions", accepted))
        data = head(b"HTTP/1.1 101 Switching Protocols", checked([*headers, *event.extra_headers]))
        self._connection = Connection(ConnectionType.SERVER, event.extensions)
        self._state = ConnectionState.OPEN
        return data

    def _reject(self, event: RejectConnection) -> bytes:
        if self.client or self._state is not ConnectionState.CONNECTING:
            raise LocalProtocolError(f"Connection cannot be rejected in state {self.state}")
        headers = list(event.headers)
        if not event.has_body:
            headers.append((b"content-length", b"0"))
        refusal = ResponseWriter(event.status_code, headers, self._request)
        self._refusal = refusal
        self._state = ConnectionState.REJECTING
        if event.has_body:
            return refusal.head
        return refusal.head + self._end_refusal(refusal)

    def _send_reject_data(self, event: RejectData) -> bytes:
        refusal = self._refusal
        if refusal is None or self._state is not ConnectionState.REJECTING:
            raise LocalProtocolError(f"Cannot send rejection data in state {self.state}")
        data = refusal.data(event.data)
        return data + self._end_refusal(refusal) if event.body_finished else data

    def _end_refusal(self, refusal: ResponseWriter) -> bytes:
        data = refusal.end()
        self._state = ConnectionState.CLOSED
        return data

    # -- client ----------------------------------------------------------------

    def _initiate(self, request: Request) -> bytes:
        if not self.client or self._initiating_request is not None:
            raise LocalProtocolError(f"Event {request} cannot be sent in state {self.state}")
        # RFC 6455 4.1
        nonce = generate_nonce()
        headers: Headers = [
            (b"Host", request.host.encode("idna")),
            (b"Upgrade", WEBSOCKET_UPGRADE),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", nonce),
            (b"Sec-WebSocket-Version", WEBSOCKET_VERSION),
        ]
        if request.subprotocols:
            headers.append((b"Sec-WebSocket-Protocol", ", ".join(request.subprotocols).encode("ascii")))
        offers = {extension.name: extension.offer() for extension in _objects(request.extensions)}
        if any(offers.values()):
            headers.append((b"Sec-WebSocket-Extensions", _extensions_value(offers)))
        data = _request_head(request.target, [*headers, *request.extra_headers])
        self._initiating_request = request
        self._nonce = nonce
        return data

    def _receive_response(self, data: bytes) -> None:
        response = self._response
        response.receive(data)
        response.ended = self._ended
        if self._initiating_request is None and response.empty:
            return
        while not self._head_done:
            if not response.read_head():
                return
            self._process_response(response)
        while self._state is ConnectionState.REJECTING:
            piece = response.read_piece()
            if piece is None:
                return
            self._events.append(RejectData(data=piece, body_finished=not piece))
            if not piece:
                self._state = ConnectionState.CLOSED

    def _process_response(self, response: ResponseReader) -> None:
        status_code = response.status_code
        if status_code == 101:
            self._head_done = True
            self._events.append(self._establish(response))
            return
        final = status_code >= 200
        self._head_done = final
        self._state = ConnectionState.REJECTING if final else ConnectionState.CLOSED
        self._events.append(RejectConnection(headers=response.headers, status_code=status_code, has_body=final))

    def _establish(self, response: ResponseReader) -> AcceptConnection:
        request = self._initiating_request
        if request is None:
            raise BadMessage
        # RFC 6455 4.1, the client's part behind its request
        kept: Headers = []
        found: dict[bytes, bytes] = {}
        items: dict[bytes, list[str]] = {name: [] for name in _LISTS}
        try:
            for name, value in response.headers:
                if name == b"sec-websocket-protocol":
                    found[name] = value
                    value.decode("ascii")
                elif name in items:
                    items[name] += split_comma_header(value)
                elif name in (b"sec-websocket-accept", b"upgrade"):
                    found[name] = value
                else:
                    kept.append((name, value))
        except UnicodeError:
            raise BadMessage from None
        _check_upgrade(items[b"connection"])
        _check_websocket(found.get(b"upgrade", b""))
        if found.get(b"sec-websocket-accept") != generate_accept_token(self._nonce):
            raise _refused("Bad accept token")
        subprotocol = None
        if b"sec-websocket-protocol" in found:
            subprotocol = found[b"sec-websocket-protocol"].decode("ascii")
            if subprotocol not in request.subprotocols:
                raise _refused(f"unrecognized subprotocol {subprotocol}")
        extensions = client_extensions_handshake(items[b"sec-websocket-extensions"], _objects(request.extensions))
        self._connection = Connection(ConnectionType.CLIENT, extensions, response.trailing_data)
        self._state = ConnectionState.OPEN
        return AcceptConnection(subprotocol=subprotocol, extensions=extensions, extra_headers=kept)


#: Headers that are lists, over however many lines (RFC 9110 5.3).
_LISTS = (b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol")


def _objects(extensions: Sequence[Extension] | Sequence[str]) -> list[Extension]:
    return [extension for extension in extensions if not isinstance(extension, str)]


def _request_head(target: bytes | str, headers: Headers) -> bytes:
    headers = checked(headers)
    if sum(name.lower() == b"host" for name, _ in headers) != 1:
        raise LocalProtocolError("a request needs exactly one Host header")
    return head(b"GET %s HTTP/1.1" % checked_target(target), headers)


def _refused(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(message, event_hint=RejectConnection())


def _bad_message() -> RemoteProtocolError:
    return _refused("Bad HTTP message")


def _check_upgrade(options: list[str]) -> None:
    if not any(option.lower() == "upgrade" for option in options):
        raise _refused("Missing header, 'Connection: Upgrade'")


def _check_websocket(upgrade: bytes) -> None:
    if upgrade.lower() != WEBSOCKET_UPGRADE:
        raise _refused("Missing header, 'Upgrade: websocket'")


def _extensions_value(extensions: dict[str, str | bool]) -> bytes:
    """The value of Sec-WebSocket-Extensions (RFC 6455 9.1): parameters by name, True or "" for none, False to leave
    it out."""
    items = [
        f"{name}; {parameters}" if isinstance(parameters, str) and parameters else name
        for name, parameters in extensions.items()
        if parameters is not False
    ]
    return ", ".join(items).encode("ascii")


def server_extensions_handshake(requested: Iterable[str], supported: list[Extension]) -> bytes | None:
    """Have the extensions of a server answer the client's offers; the header's value, None if none is accepted."""
    accepted: dict[str, str | bool] = {}
    for offer in requested:
        name = offer.partition(";")[0].strip()
        for extension in supported:
            if extension.name == name:
                answer = extension.accept(offer)
                if answer is not None and answer is not False:
                    accepted[name] = answer
    return _extensions_value(accepted) if accepted else None


def client_extensions_handshake(accepted: Iterable[str], supported: Sequence[Extension]) -> list[Extension]:
    """Tell the extensions of a client what the server accepted; those to use.

    Raises RemoteProtocolError for one that is not supported, or for parameters that are not.
    """
    extensions = []
    for answer in accepted:
        name = answer.partition(";")[0].strip()
        extension = next((extension for extension in supported if extension.name == name), None)
        if extension is None:
            raise _refused(f"unrecognized extension {name}")
        try:
            extension.finalize(answer)
        except ValueError:
            raise _refused(f"unacceptable parameters of extension {name}") from None
        extensions.append(extension)
    return extensions
