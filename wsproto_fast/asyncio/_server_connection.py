"""One connection of a server: the opening handshake with the program's say in it, then its handler.

Knows tasks and the open deadline; what is answered is ``ServerHandshake``'s, and whom the server waits for its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..constants import CloseCode, Role
from ..exceptions import ConnectionClosed, InvalidState
from ..http11 import Request, Response
from .connection import Connection

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Handler", "ProcessRequest", "ProcessResponse", "SelectSubprotocol", "ServerConnection", "maybe_await"]

Handler = Callable[["ServerConnection"], Awaitable[None]]
ProcessRequest = Callable[["ServerConnection", Request], Awaitable[Response | None] | Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Awaitable[Response | None] | Response | None]
SelectSubprotocol = Callable[["ServerConnection", Sequence[str]], str | None]

#: How long a refused client may take to read its answer, where there is no open deadline.
_LINGER = 10.0
#: How long a client that has connected to a server that closes may take to send its request.
_LAST_CALL = 0.5


class ServerConnection(Connection):
    """A server's connection, as handlers get it; ``server`` is the Server.

    Subclasses are made by ``serve(create_connection=...)``, with the server as their only argument.
    """

    __slots__ = ("_answered", "_asked", "_handshake", "_open_by", "_task", "server")

    #: Who has logged in, by ``basic_auth``.
    username: str
    #: What the URL leads to, and the variables in it, by ``route``.
    handler: Callable[..., Awaitable[None]]
    handler_kwargs: Mapping[str, Any]

    def __init__(self, server: Server) -> None:
        super().__init__(server._settings, server.logger)
        self.server = server
        self._handshake = server._new_handshake(self)
        #: The whole handshake, TLS included, must be over by then; asyncio makes us when it accepts.
        open_timeout = self._settings.limits.open_timeout
        self._open_by = None if open_timeout is None else self._loop.time() + open_timeout
        #: Runs the hooks and the handler, or the handler; there is none where there is neither.
        self._task: asyncio.Task[None] | None = None
        #: Request and response; or the request's head, of which both can be made anew.
        self._asked: Request | bytes | None = None
        self._answered: Response | None = None

    @property
    def request(self) -> Request | None:
        """What was asked in the opening handshake."""
        if isinstance(self._asked, bytes):
            self._asked, self._answered = self.server._rules.repeat(self._asked, self.subprotocol)
        return self._asked

    @request.setter
    def request(self, request: Request | None) -> None:
        self._asked = request

    @property
    def response(self) -> Response | None:
        """What was answered in the opening handshake."""
        _ = self.request
        return self._answered

    @response.setter
    def response(self, response: Response | None) -> None:
        self._answered = response

    def respond(self, status: int, text: str) -> Response:
        """A plain text response for ``process_request`` and ``process_response`` to return."""
        if self._opened:
            raise InvalidState("the opening handshake is over")
        return self._handshake.reject(status, text)

    # The opening handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.server._alive.add(self)
        if self._open_by is not None:
            self._call_at(self._open_by)
            self._open_by = None
        if self.server._closing:
            self._shut_out()

    def _call_at(self, when: float) -> None:
        """Set the open deadline. It stays when the connection opens: to the engine it is one look at the clock more."""
        self._cancel_entry()
        self._entry = self._scheduler.call_at(when, self)

    def _cancel_entry(self) -> None:
        if self._entry is not None:
            self._scheduler.cancel(self._entry)
            self._entry = None

    def _on_timer(self, now: float) -> None:
        if self._opened:
            super()._on_timer(now)
            return
        self._entry = None
        if self._handshake.done:
            self.transport.abort()  # it has not read our refusal
        elif self.server._closing and self._task is None:
            self.transport.close()
        else:
            self.logger.info("opening handshake timed out")
            if self._task is not None:
                self._task.cancel()
            self.transport.abort()

    def _handshake_received(self, data: bytes) -> None:
        handshake = self._handshake
        handshake.receive_data(data)
        if handshake.done or self._task is not None:
            return  # refused, or about to be answered
        if handshake.request is not None:
            self.request = handshake.request
            self._consider()
        elif handshake.error is not None:
            self._answer(handshake.accept())

    def _handshake_eof(self) -> None:
        handshake = self._handshake
        handshake.receive_eof()
        if handshake.done:
            self.transport.close()  # it has read our refusal
        elif handshake.request is None and not self.transport.is_closing():
            self.logger.debug("connection closed before its request was complete")
            self.transport.close()
        # else somebody thinks about the answer

    def _consider(self) -> None:
        """The request is there. Answer it now if the program has no say in it: a scanner is not worth a task."""
        server = self.server
        if server._process_request is not None or server._process_response is not None:
            # Frames must wait for our answer (RFC 6455 4.1); what comes early stays in the socket.
            self._pause_reading(True)
            self._start(self._negotiate())
            return
        try:
            response = self._handshake.accept()
        except Exception:  # of select_subprotocol
            response = self._failure()
        if self._answer(response) and server._handler is not None:
            self._start(self._handle(server._handler))

    async def _negotiate(self) -> None:
        try:
            response = await self._ask()
        except Exception:
            response = self._failure()
        handler = self.server._handler
        if self._answer(response) and handler is not None:
            await self._handle(handler)

    async def _ask(self) -> Response:
        """What the hooks want to answer."""
        server = self.server
        request = self.request
        assert request is not None
        response = None
        if server._process_request is not None:
            response = await maybe_await(server._process_request(self, request))
        if response is None:
            response = self._handshake.accept()
        else:
            server._rules.complete(response)
        if server._process_response is not None:
            response = await maybe_await(server._process_response(self, request, response)) or response
        return response

    def _failure(self) -> Response:
        """The answer to a request on which the program failed, which is being handled."""
        self.logger.error("opening handshake failed", exc_info=True)
        return self._handshake.fail()

    def _answer(self, response: Response) -> bool:
        """Send the answer to the request. True: the connection is open."""
        handshake = self._handshake
        try:
            if response.status_code == 101 and self.server._closing:
                response = handshake.reject(503, "Server is shutting down.\n")
            handshake.send_response(response)
        except Exception:  # a hook made something that is no answer
            response = self._failure()
            handshake.send_response(response)
        self.response = response
        self._pause_reading(False)
        if self.transport.is_closing():
            return False
        for data in handshake.data_to_send():
            self.transport.write(data)
        if handshake.accepted:
            self._accepted()
            return True
        if response.status_code < 400:
            self.logger.debug("answered a request with HTTP %d", response.status_code)
        else:
            error = f"; {handshake.error}" if handshake.error else ""
            self.logger.info("connection refused: HTTP %d%s", response.status_code, error)
        self._linger()
        return False

    def _accepted(self) -> None:
        handshake = self._handshake
        if self.server._head_is_enough:
            self._asked, self._answered = handshake.head, None
        else:
            self._compact()
        del self._handshake  # it is of no further use
        self._open_after(handshake, Role.SERVER)

    def _linger(self) -> None:
        """Let the client read our refusal: closing with bytes of it unread would reset the connection."""
        if not self._can_half_close():
            self.transport.close()
            return
        self._half_close()
        if self._entry is None:
            self._call_at(self._loop.time() + _LINGER)

    def _shut_out(self) -> None:
        """The server closes before a request was there: one that is on its way still gets its answer, a 503."""
        if self._task is None and not self._handshake.done:
            self._call_at(self._loop.time() + _LAST_CALL)

    # The handler

    async def _handle(self, handler: Handler) -> None:
        code = CloseCode.INTERNAL_ERROR
        try:
            await handler(self)
            code = CloseCode.NORMAL_CLOSURE
        except ConnectionClosed as exc:
            self.logger.info("connection closed while its handler ran: %s", exc)
        except asyncio.CancelledError:
            self._abandon()
            await self.close(code)  # cancelled again it drops the transport
            raise
        except Exception:
            self.logger.error("connection handler failed", exc_info=True)
        finally:
            self._abandon()
            self._begin_close(code, "")  # its own deadline ends it, with no task of ours

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._on_task_done, context=self.server._context)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            self.transport.abort()
        if self._lost:
            self._forget()

    # The end

    def connection_lost(self, exc: Exception | None) -> None:
        entry = None
        if self._task is not None and not self._opened:  # the deadline is that of the hooks too
            entry, self._entry = self._entry, None
        super().connection_lost(exc)
        self._entry = entry
        if self._task is None:
            self._forget()

    def _forget(self) -> None:
        self._cancel_entry()
        self.server._alive.discard(self)
        self.server._check_closed()


async def maybe_await(result: Any) -> Any:
    """What a function or coroutine function of the program has returned."""
    return await result if isinstance(result, Awaitable) else result
