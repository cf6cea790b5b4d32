"""WebSockets for uvicorn: ``uvicorn.run(app, ws="wsproto_fast.contrib.uvicorn:WebSocketProtocol")``.

Between the messages of ASGI 3 (WebSocket 2.5, with the extension "websocket.http.response") and a connection of the
asyncio adapter, which feeds and flushes the engine. Knows uvicorn's settings; knows no frames, bytes or time.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import weakref
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)

from .._settings import Settings
from ..asyncio import Connection
from ..constants import CloseCode, Role
from ..exceptions import ConnectionClosed
from ..handshake import ServerHandshake, ServerRules
from ..http11 import Headers, Request, Response

if TYPE_CHECKING:
    from uvicorn.server import ServerState

__all__ = ["WebSocketProtocol"]

logger = logging.getLogger("uvicorn.error")

Message = dict[str, Any]

#: What all connections of one server share, made of its settings.
_shared: weakref.WeakKeyDictionary[Config, tuple[Settings, ServerRules]] = weakref.WeakKeyDictionary()


class _Phase(enum.Enum):
    """What the application may send now."""

    WAITING = enum.auto()  # nothing: there is no request yet
    ASKED = enum.auto()  # whether to accept or to refuse
    REFUSING = enum.auto()  # the body of the response that it has begun
    ACCEPTED = enum.auto()  # messages
    DONE = enum.auto()  # nothing more


# Members of an Enum are looked up slowly.
WAITING, ASKED, REFUSING, ACCEPTED, DONE = _Phase


class WebSocketProtocol(Connection):
    """One connection, from the request that uvicorn's HTTP protocol hands over to its end, and the application's task.

    Messages wait for the application until there are ``ws_max_queue`` of them, or 2 MiB; then the client is not read
    from. A client that does not answer our Close frame within 10 seconds is dropped. One task at a time may be in
    ``receive()``; others get ConcurrencyError.
    """

    __slots__ = ("_app_state", "_body", "_client", "_config", "_disconnect", "_handshake", "_phase", "_refusal",
                 "_scope", "_server_state", "_settled", "_told")  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        settings, rules = _shared_by(config)
        super().__init__(settings, logger)
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._handshake = ServerHandshake.under(rules)
        self._phase = WAITING
        self._client: tuple[str, int] | None = None
        self._scope: Message = {}
        #: The application has taken "websocket.connect".
        self._told = False
        #: Set when the handshake is over, for whoever wants to receive before.
        self._settled: asyncio.Event | None = None
        #: The response in place of a WebSocket, and its body as far as it is there.
        self._refusal: Response | None = None
        self._body = bytearray()
        #: How it ends, where the client has no say in it.
        self._disconnect: Message | None = None

    # What uvicorn calls, beside the methods of the adapter that transports call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._client = get_remote_addr(self.transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._trace("WebSocket connection made")

    def data_received(self, data: bytes) -> None:
        """The request, repeated by the HTTP protocol. What follows comes through ``get_buffer``."""
        self._received(data, asyncio.current_task(self._loop) is None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._trace("WebSocket connection lost")
        super().connection_lost(exc)
        if not self._opened:
            self._settle_handshake()

    def shutdown(self) -> None:
        """The server closes. A client is told 1012 and may answer; before the handshake is over it gets a 500."""
        if self._opened and self._engine.close_sent is None:
            self._leave_with(CloseCode.SERVICE_RESTART, None)
        else:
            self._refuse_failed()
            self.transport.close()

    def _trace(self, what: str) -> None:
        if logger.level <= TRACE_LOG_LEVEL:
            client = "{}:{} - ".format(*self._client) if self._client else ""
            logger.log(TRACE_LOG_LEVEL, "%s%s", client, what)

    # The opening handshake

    def _handshake_received(self, data: bytes) -> None:
        handshake = self._handshake
        handshake.receive_data(data)
        if self._phase is not WAITING:
            return
        if handshake.error is not None:
            self._answer(handshake.accept())  # the refusal that fits
        elif handshake.request is not None:
            self._start(handshake.request)

    def _handshake_eof(self) -> None:
        self.transport.close()  # who does not listen any more needs no answer

    def _start(self, request: Request) -> None:
        """Ask the application."""
        self._phase = ASKED
        self._scope = self._new_scope(request)
        tasks = self._server_state.tasks
        task = self._loop.create_task(self._run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _new_scope(self, request: Request) -> Message:
        path, _, query = request.path.partition("?")
        root_path = self._config.root_path
        headers = [(name.lower().encode(), value.encode("iso-8859-1")) for name, value in request.headers.raw_items()]
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": self._client,
            "root_path": root_path,
            "path": root_path + unquote(path),
            "raw_path": (root_path + path).encode(),
            "query_string": query.encode(),
            "headers": headers,
            "subprotocols": list(self._handshake.offered_subprotocols),
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    def _answer(self, response: Response) -> None:
        """Send the answer to the request; a 101 opens the connection."""
        handshake = self._handshake
        if response.status_code != 101:
            headers = response.headers
            headers.update([(name, value) for name, value in self._default_headers() if name not in headers])
        handshake.send_response(response)
        for data in handshake.data_to_send():
            self.transport.write(data)
        if handshake.accepted:
            logger.info("connection open")
            self._phase = ACCEPTED
            self._open_after(handshake, Role.SERVER)
            del self._handshake  # it is of no further use
            if self._settled is not None:
                self._settled.set()
        else:
            logger.info("connection rejected (%d %s)", response.status_code, response.reason_phrase)
            self._settle_handshake()
            self.transport.close()

    def _settle_handshake(self) -> None:
        """There will be no WebSocket."""
        self._phase = DONE
        self._disconnect = _disconnect(CloseCode.ABNORMAL_CLOSURE, None)
        if self._settled is not None:
            self._settled.set()

    def _default_headers(self) -> list[tuple[str, str]]:
        return _decoded(self._server_state.default_headers)

    def _accept(self, message: Message) -> None:
        headers = self._default_headers() + _decoded(message.get("headers") or ())
        response = self._handshake.accept(headers=headers, subprotocol=message.get("subprotocol") or None)
        self._log_answer("[accepted]" if response.status_code == 101 else response.status_code)
        self._answer(response)
        if not self._opened:
            raise ClientDisconnected  # it has sent more than it may before our answer

    def _refuse(self, status: int) -> None:
        self._log_answer(status)
        self._answer(self._handshake.reject(status))

    def _refuse_failed(self) -> None:
        """The application has not said, or not all of it, what to answer, and will not."""
        if self._phase in (ASKED, REFUSING):
            self._answer(self._handshake.reject(500, "Internal Server Error"))

    def _begin_refusal(self, message: Message) -> None:
        status = message["status"]
        if not 200 <= status < 600:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        headers = Headers(_decoded(message.get("headers") or ()))
        if "Transfer-Encoding" in headers:  # what we send has a Content-Length
            del headers["Transfer-Encoding"]
        phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
        self._refusal = Response(status, phrase, headers)
        self._phase = REFUSING
        self._log_answer(status)

    def _end_refusal(self) -> None:
        refusal = self._refusal
        assert refusal is not None
        refusal.body = bytes(self._body)
        if "Content-Length" not in refusal.headers and refusal.status_code != 204:  # RFC 9110 8.6
            refusal.headers["Content-Length"] = str(len(refusal.body))
        self._answer(refusal)

    def _log_answer(self, answer: str | int) -> None:
        scope: Any = self._scope
        logger.info('%s - "WebSocket %s" %s', get_client_addr(scope), get_path_with_query_string(scope), answer)

    # The application

    async def _run(self) -> None:
        failed = True
        try:
            result = await self._config.loaded_app(self._scope, self._receive, self._send)
            failed = result is not None
            if self._phase is ASKED:
                logger.error("ASGI callable returned without completing handshake.")
            elif self._phase is REFUSING:
                logger.error("ASGI callable returned without completing response.")
            elif failed:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
        except ClientDisconnected:
            pass
        except BaseException:  # what uvicorn does, too
            logger.exception("Exception in ASGI application\n")
        self._end(failed)

    def _end(self, failed: bool) -> None:
        """The application sends nothing more."""
        if self._opened:
            self._abandon()
            self._begin_close(CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE, "")
        else:
            self._refuse_failed()

    async def _receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        if not self._opened and self._disconnect is None:
            if self._settled is None:
                self._settled = asyncio.Event()
            await self._settled.wait()
        if self._disconnect is None or self._queue:
            try:
                data = await self.recv()
            except ConnectionClosed:
                pass
            else:
                return {"type": "websocket.receive", "text" if type(data) is str else "bytes": data}
        if self._disconnect is None:
            self._disconnect = _disconnect(self._engine.close_code, self._engine.close_reason)
        return self._disconnect.copy()

    async def _send(self, message: Message) -> None:
        if self._phase is ACCEPTED and message["type"] == "websocket.send":
            if not self._engine.is_open:
                raise ClientDisconnected
            data: Any = message.get("bytes")
            text = data is None
            if text:
                data = message.get("text")
                if data is None:
                    return
            if not isinstance(data, str if text else _BYTES):  # an iterable would become a message in fragments
                raise TypeError(f"{'text' if text else 'bytes'} must not be {type(data).__name__}")
            try:
                await self.send(data)
            except ConnectionClosed as exc:
                raise ClientDisconnected from exc
        else:
            await self._writable()
            self._send_other(message)

    def _send_other(self, message: Message) -> None:
        """What is no message of the WebSocket."""
        kind = message["type"]
        if self._lost or (self._phase is not ACCEPTED and self.transport.is_closing()):
            raise ClientDisconnected
        if self._phase is ACCEPTED:
            if kind != "websocket.close":
                raise RuntimeError(
                    f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'."
                )
            code = message.get("code")
            self._leave_with(CloseCode.NORMAL_CLOSURE if code is None else code, message.get("reason") or "")
            self._phase = DONE
        elif self._phase is REFUSING:
            if kind != "websocket.http.response.body":
                raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{kind}'.")
            self._body += message.get("body", b"")
            if len(self._body) > _MAX_BODY:
                raise RuntimeError(f"The body of a response in place of a WebSocket has more than {_MAX_BODY} bytes.")
            if not message.get("more_body", False):
                self._end_refusal()
        elif self._phase is DONE:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(HTTPStatus.FORBIDDEN)
        elif kind == "websocket.http.response.start":
            self._begin_refusal(message)
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' "
                f"or 'websocket.http.response.start' but got '{kind}'."
            )

    def _leave_with(self, code: int, reason: str | None) -> None:
        """Begin the closing handshake. The application gets what is in the queue, and then its end without waiting."""
        if not self._engine.is_open:
            return  # it ends already
        self._begin_close(code, reason or "")
        self._disconnect = _disconnect(code, reason)
        self._sink = _ignore
        self._abandon()
        self._on_end()


def _shared_by(config: Config) -> tuple[Settings, ServerRules]:
    shared = _shared.get(config)
    if shared is None:
        settings = Settings(
            compression="deflate" if config.ws_per_message_deflate else None,
            max_size=config.ws_max_size,
            max_queue=config.ws_max_queue,
            ping_interval=config.ws_ping_interval or None,  # uvicorn's 0 is off, too
            ping_timeout=config.ws_ping_timeout or None,
        )
        shared = _shared[config] = (settings, ServerRules(deflate=settings.deflate, limits=settings.limits))
    return shared


_STATUSES = frozenset(HTTPStatus)
_BYTES = (bytes, bytearray, memoryview)
#: The body of a response in place of a WebSocket is kept until it is whole.
_MAX_BODY = 2**20


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("iso-8859-1"), value.decode("iso-8859-1")) for name, value in headers]


def _disconnect(code: int | None, reason: str | None) -> Message:
    message: Message = {"type": "websocket.disconnect", "code": None if code is None else int(code)}
    if reason is not None:
        message["reason"] = reason
    return message


def _ignore(data: str | bytes) -> None:
    """For messages that come after the end."""
