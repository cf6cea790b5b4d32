"""One connection of a server: the opening handshake with the program's say in it, then its handler.

Knows the thread that does this; what is answered is ``ServerHandshake``'s, how its request came is ``_accepting``'s.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ..constants import CloseCode, Role
from ..exceptions import ConnectionClosed, InvalidState
from ..http11 import Request, Response
from ._dialing import Deadline, Opening
from ._native import monotonic
from .connection import Connection

if TYPE_CHECKING:
    from ._tls import TLS
    from .server import Server

__all__ = ["Handler", "ProcessRequest", "ProcessResponse", "SelectSubprotocol", "ServerConnection"]

Handler = Callable[["ServerConnection"], object]
ProcessRequest = Callable[["ServerConnection", Request], Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Response | None]
SelectSubprotocol = Callable[["ServerConnection", Sequence[str]], str | None]


class ServerConnection(Connection):
    """A server's connection, as handlers get it; ``server`` is the Server.

    Subclasses are made by ``serve(create_connection=...)``, with the server as their only argument.
    """

    __slots__ = ("_handshake", "_thread", "server")

    #: Who has logged in, by ``basic_auth``.
    username: str
    #: What the URL leads to, and the variables in it, by ``route``.
    handler: Callable[..., object]
    handler_kwargs: Mapping[str, Any]

    def __init__(self, server: Server) -> None:
        super().__init__(server._settings, server.logger)
        self.server = server
        self._handshake = server._new_handshake(self)
        #: That of the handler.
        self._thread = 0

    def respond(self, status: int, text: str) -> Response:
        """A plain text response for ``process_request`` and ``process_response`` to return."""
        if self._opened:
            raise InvalidState("the opening handshake is over")
        return self._handshake.reject(status, text)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """As any connection's. Where there is an ``on_message``, the handler's thread calls it meanwhile."""
        if self._callback is not None and get_ident() == self._thread:
            deadline = Deadline(timeout)
            try:
                while not self._call_back(deadline):
                    pass
                return super().wait_closed(deadline.rest())
            except TimeoutError:
                return False
        return super().wait_closed(timeout)

    # The opening handshake, in a thread that may wait

    def _negotiate(self, sock: socket.socket, tls: TLS | None, deadline: Deadline) -> bool:
        """Answer the request. True: the connection is open; else the client may take its time to read the refusal."""
        self._thread = get_ident()
        opening = Opening(sock, deadline)
        opening.tls = tls
        try:
            response = self._ask()
        except Exception:
            response = self._failure()
        self._answer(response)
        for data in self._handshake.data_to_send():
            opening.send(data)
        if self._handshake.accepted:
            self._accepted(sock, tls)
            return True
        return False

    def _ask(self) -> Response:
        """What the hooks want to answer."""
        server = self.server
        request = self.request
        assert request is not None
        response = None
        if server._process_request is not None:
            response = server._process_request(self, request)
        if response is None:
            response = self._handshake.accept()
        else:
            server._rules.complete(response)
        if server._process_response is not None:
            response = server._process_response(self, request, response) or response
        return response

    def _failure(self) -> Response:
        """The answer to a request on which the program failed, which is being handled."""
        self.logger.error("opening handshake failed", exc_info=True)
        return self._handshake.fail()

    def _answer(self, response: Response) -> None:
        """Make the bytes of an answer."""
        handshake = self._handshake
        try:
            if response.status_code == 101 and self.server._closing:
                response = handshake.reject(503, "Server is shutting down.\n")
            handshake.send_response(response)
        except Exception:  # a hook made something that is no answer
            response = self._failure()
            handshake.send_response(response)
        self.response = response
        if response.status_code < 400 and not handshake.accepted:
            self.logger.debug("answered a request with HTTP %d", response.status_code)
        elif not handshake.accepted:
            error = f"; {handshake.error}" if handshake.error else ""
            self.logger.info("connection refused: HTTP %d%s", response.status_code, error)

    def _accepted(self, sock: socket.socket, tls: TLS | None) -> None:
        handshake = self._handshake
        del self._handshake  # it is of no further use
        self._compact()
        self._attach(sock, tls)
        self.server._add(self)
        self._open_after(handshake, Role.SERVER)
        self._close_with_server()  # if it has looked for connections already

    def _close_with_server(self) -> None:
        """Begin to close, if the server does and we are open; else that is done when we are."""
        close_with = self.server._close_with
        with self._lock:
            if close_with is not None and self._opened:
                self._begin_close(*close_with)  # its own deadline ends it
        self._tell_groups()

    # The handler

    def _handle(self, handler: Handler | None) -> None:
        code = CloseCode.INTERNAL_ERROR
        try:
            if handler is None:
                self.wait_closed()
            else:
                handler(self)
            code = CloseCode.NORMAL_CLOSURE
        except ConnectionClosed as exc:
            self.logger.info("connection closed while its handler ran: %s", exc)
        except Exception:
            self.logger.error("connection handler failed", exc_info=True)
        finally:
            with self._lock:
                self._abandon()
                self._begin_close(code, "")  # its own deadline ends it, with no thread of ours
            self._tell_groups()

    def _call_back(self, deadline: Deadline) -> bool:
        """Receive a message and call ``on_message`` for it; True: there will be none any more."""
        try:
            with self._lock:
                if self._write_paused:  # who does not read the replies need not be read
                    rest = deadline.rest()
                    self._drain(-1.0 if rest is None else monotonic() + rest)
                item = self._next(deadline.rest())
        except ConnectionClosed:
            return True
        try:
            self._callback(self, item)
        except Exception as exc:
            self._on_failure(exc)
            self._drop_messages()
        return False

    def _run_callback(self) -> None:
        """That is not the poller's, but the handler's."""

    def _lose(self) -> None:
        super()._lose()
        self.server._discard(self)
