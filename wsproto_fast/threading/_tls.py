"""TLS as two streams of bytes: what was received goes in, what is to be sent comes out. Knows no sockets and no locks.

``ssl.SSLSocket`` must not be used by two threads at once; this is used under its connection's lock.
"""

from __future__ import annotations

import contextlib
import ssl

__all__ = ["TLS"]

_READ_SIZE = 2**16
#: So much is encrypted at once.
_WRITE_SIZE = 2**18


class TLS:
    """One side of a TLS connection, perhaps within another one (``below``), which a proxy ends."""

    __slots__ = ("_below", "_ended", "_incoming", "_outgoing", "ssl")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        below: TLS | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._below = below
        self._ended = False
        #: For what is not here: the certificate, the cipher.
        self.ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )

    def shake_hands(self) -> bool:
        """Go on with the handshake; returns whether it is over. Raises SSLError."""
        self._rise()
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        """Take what was received, ``b""`` at the end."""
        if self._below is not None:
            self._below.feed(data)
        elif data:
            self._incoming.write(data)
        else:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._incoming.write_eof()

    def _rise(self) -> None:
        """Take what the connection below has for us."""
        if self._below is None:
            return
        while not self._ended and (data := self._below.read()) is not None:
            if data:
                self._incoming.write(data)
            else:
                self._end()

    def read(self) -> bytes | None:
        """What the peer has sent, ``b""`` at the end; None: more must be received first. Raises SSLError."""
        self._rise()
        try:
            return self.ssl.read(_READ_SIZE)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""  # whether the end is one of the messages too is seen by the Close frame

    def write(self, data: bytes) -> None:
        """Encrypt. Raises SSLError."""
        if len(data) <= _WRITE_SIZE:
            self.ssl.write(data)
            return
        view = memoryview(data)
        while view:
            view = view[self.ssl.write(view[:_WRITE_SIZE]) :]

    def close(self) -> None:
        """Tell the peer that nothing more comes; it is in ``take``."""
        with contextlib.suppress(ssl.SSLError):
            self.ssl.unwrap()

    def take(self) -> bytes:
        """What is to be sent now."""
        data = self._outgoing.read()
        if self._below is None:
            return data
        if data:
            self._below.write(data)
        return self._below.take()
