"""From a listening socket to requests: accepts, does TLS handshakes and reads heads, in one thread and by a deadline.

Knows who has connected and how long that was ago; what becomes of a request is the server's.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl as ssl_module
from time import monotonic
from typing import TYPE_CHECKING

from ._dialing import Deadline
from ._native import RECEIVE_SIZE
from ._server_connection import ServerConnection
from ._tls import TLS

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Acceptor", "Newcomer"]

#: How long a refused client may take to read its answer.
_LINGER = 10.0
#: How long a client that has connected to a server that closes may take to send its request.
_LAST_CALL = 0.5
#: After accept() failed for want of descriptors or memory.
_PAUSE = 0.1
#: What is accepted before somebody else has a turn.
_AT_ONCE = 64


class Newcomer:
    """A client whose request is not there yet, or that was refused and has not gone."""

    def __init__(self, sock: socket.socket, connection: ServerConnection, tls: TLS | None, open_by: float) -> None:
        self.sock = sock
        self.connection = connection
        self.tls = tls
        #: TLS is up.
        self.secured = tls is None
        self.deadline = open_by
        self.open_by = open_by
        self.refused = False
        self.unsent = b""

    def receive(self) -> bool:
        """Take what has come; returns whether the request is there, or cannot be any more. Raises OSError."""
        handshake = self.connection._handshake
        while True:
            try:
                data = self.sock.recv(RECEIVE_SIZE)
            except BlockingIOError:
                return False
            if self.refused:
                if not data:
                    raise ConnectionResetError("the client has gone")
                continue
            if self.tls is not None:
                self.tls.feed(data)
                if not self.secured and not self._secure():
                    return False
                plain = self.tls.read()
                self.send(self.tls.take())
                if plain is None:  # never at the end
                    continue
                data = plain
            if not data:
                raise ConnectionResetError("connection closed before its request was complete")
            handshake.receive_data(data)
            if handshake.request is not None or handshake.error is not None:
                return True

    def _secure(self) -> bool:
        assert self.tls is not None
        try:
            self.secured = self.tls.shake_hands()
        finally:
            self.send(self.tls.take())
        return self.secured

    def send(self, data: bytes) -> None:
        """Send without waiting; the rest goes with the next call."""
        self.unsent += data
        if self.unsent:
            with contextlib.suppress(BlockingIOError):
                self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)

    def half_close(self) -> None:
        """The refusal is sent; closing with bytes of the client unread would reset the connection before it is read."""
        self.refused = True
        self.deadline = monotonic() + _LINGER
        if self.tls is not None:
            self.tls.close()
            self.send(self.tls.take())
        if not self.unsent:
            self.sock.shutdown(socket.SHUT_WR)


class Acceptor:
    """What ``serve_forever`` runs."""

    def __init__(self, server: Server, sock: socket.socket, context: ssl_module.SSLContext | None) -> None:
        self._server = server
        self._listening = sock
        self._context = context
        self._selector = selectors.DefaultSelector()
        self._newcomers: set[Newcomer] = set()
        #: No newcomer's deadline is before it.
        self._first = float("inf")
        self._accept_again_at: float | None = None

    def run(self, doorbell: socket.socket) -> None:
        """Go on until the server closes."""
        selector = self._selector
        selector.register(doorbell, selectors.EVENT_READ, doorbell)
        try:
            self._listening.setblocking(False)
            selector.register(self._listening, selectors.EVENT_READ)
            while not self._server._closing:
                self._turn(doorbell)
            if self._accept_again_at is None:
                selector.unregister(self._listening)
            self._accept_again_at = None
            self._listening.close()
            for newcomer in self._newcomers:
                self._hurry(newcomer)
            while self._newcomers:
                self._turn(doorbell)
        finally:
            self._listening.close()
            for newcomer in list(self._newcomers):
                self._drop(newcomer)
            selector.close()

    def _turn(self, doorbell: socket.socket) -> None:
        for key, events in self._selector.select(self._timeout()):
            if key.data is None:
                self._accept()
            elif key.data is doorbell:
                with contextlib.suppress(BlockingIOError):
                    doorbell.recv(4096)
            else:
                self._serve(key.data, events)
        for newcomer in self._server._take_refused():
            self._linger(newcomer)
        now = monotonic()
        if now >= self._first:
            self._drop_late(now)
        if self._accept_again_at is not None and now >= self._accept_again_at:
            self._accept_again_at = None
            self._selector.register(self._listening, selectors.EVENT_READ)

    def _drop_late(self, now: float) -> None:
        for newcomer in [newcomer for newcomer in self._newcomers if newcomer.deadline <= now]:
            if not newcomer.refused and not self._server._closing:
                newcomer.connection.logger.info("opening handshake timed out")
            self._drop(newcomer)
        self._first = min([newcomer.deadline for newcomer in self._newcomers], default=float("inf"))

    def _timeout(self) -> float | None:
        first = self._first if self._accept_again_at is None else min(self._first, self._accept_again_at)
        return None if first == float("inf") else max(0.0, first - monotonic())

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _address = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._server.logger.exception("accepting failed")
                self._selector.unregister(self._listening)
                self._accept_again_at = monotonic() + _PAUSE
                return
            try:
                self._welcome(sock)
            except Exception:  # of our user's create_connection, or a client that is gone
                self._server.logger.debug("a client came to nothing", exc_info=True)
                sock.close()

    def _welcome(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        connection = self._server._create_connection(self._server)
        tls = None if self._context is None else TLS(self._context, server_side=True)
        timeout = self._server._settings.limits.open_timeout
        open_by = float("inf") if timeout is None else monotonic() + timeout
        newcomer = Newcomer(sock, connection, tls, open_by)
        self._watch(newcomer)
        self._serve(newcomer, selectors.EVENT_READ)  # the request is there as a rule

    def _serve(self, newcomer: Newcomer, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                newcomer.send(b"")
                if newcomer.refused and not newcomer.unsent:
                    newcomer.sock.shutdown(socket.SHUT_WR)
            if newcomer.receive():
                self._consider(newcomer)
            else:
                self._selector.modify(newcomer.sock, newcomer.events(), newcomer)
        except OSError as exc:
            if not newcomer.refused:
                newcomer.connection.logger.debug("opening handshake failed: %s", exc)
            self._drop(newcomer)

    def _consider(self, newcomer: Newcomer) -> None:
        """The request is there, or something that is none."""
        connection = newcomer.connection
        handshake = connection._handshake
        connection.request = handshake.request
        if handshake.request is None or (handshake.error is not None and not self._server._has_hooks()):
            connection._answer(handshake.accept())
        else:
            self._forget(newcomer)
            if self._server._has_thread() and self._server._start_handler(newcomer):
                return
            self._watch(newcomer)
            connection._answer(handshake.reject(503, "Too many connections.\n"))
        self._refuse(newcomer)

    def _refuse(self, newcomer: Newcomer) -> None:
        for data in newcomer.connection._handshake.data_to_send():
            if newcomer.tls is not None:
                newcomer.tls.write(data)
                data = newcomer.tls.take()
            newcomer.send(data)
        newcomer.half_close()
        self._first = min(self._first, newcomer.deadline)
        self._selector.modify(newcomer.sock, newcomer.events(), newcomer)

    def _linger(self, newcomer: Newcomer) -> None:
        """A handler's thread has sent a refusal."""
        try:
            newcomer.sock.setblocking(False)
            newcomer.half_close()
        except OSError:
            newcomer.sock.close()
            return
        self._watch(newcomer)
        if self._server._closing:
            self._hurry(newcomer)

    def _watch(self, newcomer: Newcomer) -> None:
        self._newcomers.add(newcomer)
        self._first = min(self._first, newcomer.deadline)
        self._selector.register(newcomer.sock, newcomer.events(), newcomer)

    def _hurry(self, newcomer: Newcomer) -> None:
        newcomer.deadline = min(newcomer.deadline, monotonic() + _LAST_CALL)
        self._first = min(self._first, newcomer.deadline)

    def _forget(self, newcomer: Newcomer) -> None:
        self._newcomers.discard(newcomer)
        self._selector.unregister(newcomer.sock)

    def _drop(self, newcomer: Newcomer) -> None:
        self._forget(newcomer)
        newcomer.sock.close()


def rest_of(newcomer: Newcomer) -> Deadline:
    """What is left of the time to open."""
    return Deadline(None if newcomer.open_by == float("inf") else newcomer.open_by - monotonic())
