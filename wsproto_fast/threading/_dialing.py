"""How a client's transport comes about: TCP or a Unix socket, a socket of our user's, a proxy, TLS.

Knows blocking sockets, deadlines and the arguments of ``connect``; knows no WebSocket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl as ssl_module
from collections.abc import Collection
from dataclasses import replace
from time import monotonic
from typing import Any, Literal

from ..exceptions import ProxyError
from ..limits import Limits
from ..proxy import Proxy, ProxyHandshake, check_proxy, choose_proxy, parse_proxy
from ..uri import WebSocketURI
from ._native import RECEIVE_SIZE
from ._tls import TLS

__all__ = ["Deadline", "Dialer", "Opening"]


#: What sockets take as a timeout is milliseconds in 31 bits.
_LONGEST = 1e6


class Deadline:
    """When opening must be over."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else monotonic() + timeout

    def rest(self) -> float | None:
        """Seconds left. Raises TimeoutError when there are none."""
        if self._at is None:
            return None
        rest = self._at - monotonic()
        if rest <= 0:
            raise TimeoutError("timed out during opening handshake")
        return min(rest, _LONGEST)


class Opening:
    """A transport on which one thread talks to the peer by turns, before the connection is open."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self.sock = sock
        self.tls: TLS | None = None
        self._deadline = deadline
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError, and TimeoutError at the deadline."""
        if self.tls is not None:
            self.tls.write(data)
            data = self.tls.take()
        self._send(data)

    def receive(self) -> bytes:
        """Wait for something, ``b""`` at the end. Raises as ``send`` does."""
        while True:
            if self.tls is not None:
                data = self.tls.read()
                self._send(self.tls.take())
                if data is not None:
                    return data
            data = self._receive()
            if self.tls is None:
                return data
            self.tls.feed(data)

    def start_tls(self, context: ssl_module.SSLContext, server_hostname: str | None) -> None:
        """Do a TLS handshake, within TLS if there is some already. Raises SSLError too."""
        tls = TLS(context, server_hostname=server_hostname, below=self.tls)
        done = False
        while not done:
            try:
                done = tls.shake_hands()
            finally:  # if it fails there is an alert
                with contextlib.suppress(BrokenPipeError):
                    self._send(tls.take())
            if not done:
                data = self._receive()
                if not data:
                    raise ConnectionResetError("connection lost during the TLS handshake")
                tls.feed(data)
        self.tls = tls

    def _send(self, data: bytes) -> None:
        if data:
            self.sock.settimeout(self._deadline.rest())
            self.sock.sendall(data)

    def _receive(self) -> bytes:
        self.sock.settimeout(self._deadline.rest())
        return self.sock.recv(RECEIVE_SIZE)


class Dialer:
    """Opens transports. ``options`` are for ``socket.create_connection``."""

    def __init__(
        self,
        *,
        sock: socket.socket | None,
        ssl: ssl_module.SSLContext | None,
        server_hostname: str | None,
        path: str | os.PathLike[str] | None,
        proxy: str | Literal[True] | None,
        proxy_ssl: ssl_module.SSLContext | None,
        proxy_server_hostname: str | None,
        user_agent_header: str | None,
        limits: Limits,
        options: dict[str, Any],
    ) -> None:
        self._sock = sock
        self._ssl = ssl
        self._server_hostname = server_hostname
        self._path = path
        self._proxy = parse_proxy(proxy) if isinstance(proxy, str) else proxy
        self._proxy_ssl = proxy_ssl
        self._proxy_server_hostname = proxy_server_hostname
        self._user_agent_header = user_agent_header
        self._limits = limits
        self._options = options

    @property
    def given(self) -> Collection[str]:
        """Which of "sock", "path" and "host" our user gave."""
        given = {"sock": self._sock, "path": self._path, "host": self._options.get("address")}
        return [name for name, value in given.items() if value is not None]

    def check(self, uri: WebSocketURI) -> None:
        """Raise ValueError when the arguments do not fit a URI."""
        if not uri.secure and self._ssl is not None:
            raise ValueError("ssl argument is incompatible with a ws:// URI")
        if isinstance(self._proxy, Proxy):
            check_proxy(self._proxy, uri.secure, self._proxy_ssl or ...)

    def dial(self, uri: WebSocketURI, deadline: Deadline) -> Opening:
        """A transport to the server. Raises OSError, TimeoutError, ProxyError, InvalidProxy and ValueError."""
        opening = self._open(uri, deadline)
        try:
            if uri.secure:
                opening.start_tls(_context(self._ssl), self._server_hostname or uri.host)
        except BaseException:
            opening.sock.close()
            raise
        return opening

    def _open(self, uri: WebSocketURI, deadline: Deadline) -> Opening:
        if self._sock is not None:
            return Opening(self._sock, deadline)
        if self._path is not None:
            return Opening(_connect_unix(self._path, deadline), deadline)
        host, port = self._options.get("address") or (uri.host, uri.port)
        # Where TCP goes to. TLS and the Host header stay with the URI.
        proxy = choose_proxy(self._proxy, replace(uri, host=host, port=port))
        if proxy is None:
            return Opening(self._connect(host, port, deadline), deadline)
        check_proxy(proxy, uri.secure, self._proxy_ssl or ...)
        if proxy.is_socks:
            return Opening(_connect_socks(proxy, host, port, deadline, self._options.get("source_address")), deadline)
        return self._connect_http(proxy, host, port, deadline)

    def _connect(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        """To the first address of a host that answers; one that is silent leaves time for those after it."""
        options = {key: value for key, value in self._options.items() if key != "address"}
        error = OSError(f"{host} has no address")
        addresses = [found[4] for found in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)]
        for done, address in enumerate(addresses):
            name = str(address[0])
            if len(address) == 4 and address[3]:  # of IPv6, with a scope
                name += f"%{address[3]}"
            rest = deadline.rest()
            timeout = None if rest is None else rest / (len(addresses) - done)
            try:
                return socket.create_connection((name, int(address[1])), **{"timeout": timeout, **options})
            except OSError as exc:
                error = exc
        raise error

    def _connect_http(self, proxy: Proxy, host: str, port: int, deadline: Deadline) -> Opening:
        handshake = ProxyHandshake(proxy, host, port, user_agent_header=self._user_agent_header, limits=self._limits)
        opening = Opening(self._connect(proxy.host, proxy.port, deadline), deadline)
        try:
            if proxy.scheme == "https":
                opening.start_tls(_context(self._proxy_ssl), self._proxy_server_hostname or proxy.host)
            opening.send(handshake.request)
            while not handshake.done:
                data = opening.receive()
                if data:
                    handshake.receive_data(data)
                else:
                    handshake.receive_eof()
            if handshake.error is not None:
                raise handshake.error
        except BaseException:
            opening.sock.close()
            raise
        return opening


def _context(ssl: object) -> ssl_module.SSLContext:
    """What our user gave; True, as for asyncio, and None stand for the default."""
    return ssl if isinstance(ssl, ssl_module.SSLContext) else ssl_module.create_default_context()


def _connect_unix(path: str | os.PathLike[str], deadline: Deadline) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.rest())
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_socks(proxy: Proxy, host: str, port: int, deadline: Deadline, source_address: Any) -> socket.socket:
    try:
        from python_socks import ProxyType
        from python_socks.sync import Proxy as Socks
    except ImportError as exc:
        text = "connecting through a SOCKS proxy requires python-socks: pip install wsproto_fast[proxy]"
        raise ImportError(text) from exc
    version = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    socks = Socks(version, proxy.host, proxy.port, proxy.username, proxy.password, proxy.resolves_names)
    try:
        sock: socket.socket = socks.connect(host, port, timeout=deadline.rest(), local_addr=source_address)
        return sock
    except OSError as exc:  # python-socks has a class of its own for what the system said
        raise (exc.__cause__ if isinstance(exc.__cause__, OSError) else exc) from None
    except Exception as exc:
        raise ProxyError("failed to connect to SOCKS proxy") from exc
