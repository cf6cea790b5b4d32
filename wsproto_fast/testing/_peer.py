"""The other end as a script: which frames come, and which must go.

Speaks frames by itself (``_wire``), so it can send what no engine would, and it believes nothing of the end under test.
"""

from __future__ import annotations

import socket
from typing import NoReturn, Protocol

from ..constants import CloseTransport, Role
from ..events import Event
from ._wire import MASKING_KEY, Frame, decode_frame, encode_frame

__all__ = ["ScriptedPeer", "SocketPeer"]


class Engine(Protocol):
    """What a scripted peer needs of a ``Connection``, or of what embeds one."""

    @property
    def role(self) -> Role: ...
    @property
    def close_transport(self) -> CloseTransport: ...
    def receive_data(self, data: bytes, /) -> object: ...
    def receive_eof(self) -> object: ...
    def events(self) -> list[Event]: ...
    def data_to_send(self) -> list[bytes]: ...


class _Peer:
    """What all scripted peers can do. Failures are AssertionErrors that show what went to and fro before."""

    def __init__(self, role: Role) -> None:
        #: The end under test; the peer is the other one.
        self.role = role
        self._mask = MASKING_KEY if role is Role.SERVER else None
        self._input = bytearray()
        self._transcript: list[str] = []

    def send(self, *items: Frame | bytes) -> None:
        """Send frames, masked if the peer is a client, and raw bytes as they are."""
        for item in items:
            if isinstance(item, Frame):
                self._note(f"sent {item}")
                item = encode_frame(item.first, item.payload, mask=self._mask)
            else:
                self._note(f"sent bytes {item[:40].hex(' ')}{'...' if len(item) > 40 else ''}")
            self._write(item)

    def expect(self, *frames: Frame) -> None:
        """These must be the next frames that come, to the byte."""
        for expected in frames:
            got = self.next_frame()
            if got != expected:
                self._fail(str(expected), got)

    def expect_close(self, code: int) -> str:
        """The next frame must be a Close frame of this code (1005: without one); returns its reason."""
        got = self.next_frame()
        if got is None or got.first != 0x88 or (int.from_bytes(got.payload[:2], "big") or 1005) != code:
            self._fail(f"Close {code}", got)
        return got.payload[2:].decode()

    def expect_end(self) -> None:
        """The end under test must have closed its side of the transport, with no frame before that."""
        got = self.next_frame()
        if got is not None or self._input or not self._ended():
            self._fail("the end", got)

    def next_frame(self) -> Frame | None:
        """The next frame that came; None when there is none (a socket: when it was closed)."""
        while (decoded := decode_frame(self._input)) is None:
            data = self._read()
            if not data:
                return None
            self._input += data
        frame, masked, end = decoded
        del self._input[:end]
        self._note(f"got {frame}")
        # RFC 6455 5.1: a client masks all that it sends, a server nothing
        if masked != (self.role is Role.CLIENT):
            self._fail(f"a frame that is {'not ' * masked}masked", frame)
        return frame

    def _note(self, line: str) -> None:
        self._transcript.append(line)

    def _fail(self, expected: str, got: Frame | None) -> NoReturn:
        nothing = f"half a frame: {bytes(self._input[:40]).hex(' ')}" if self._input else "nothing"
        story = "".join([f"\n  {line}" for line in self._transcript])
        raise AssertionError(f"expected {expected}, got {nothing if got is None else got}{story and ':' + story}")

    def _write(self, data: bytes) -> None:
        raise NotImplementedError

    def _read(self) -> bytes:
        raise NotImplementedError

    def _ended(self) -> bool:
        raise NotImplementedError


class ScriptedPeer(_Peer):
    """The peer of a ``Connection`` under test, without I/O. ``events`` holds what the connection has told so far."""

    def __init__(self, connection: Engine) -> None:
        super().__init__(connection.role)
        self.connection = connection
        self.events: list[Event] = []

    def send_eof(self) -> None:
        """Close the peer's side of the transport."""
        self._note("sent the end")
        self.connection.receive_eof()
        self._drain()

    def expect_nothing(self) -> None:
        """No frame must have come."""
        got = self.next_frame()
        if got is not None or self._input:
            self._fail("nothing", got)

    def _write(self, data: bytes) -> None:
        self.connection.receive_data(data)
        self._drain()

    def _read(self) -> bytes:
        self._drain()
        return b"".join(self.connection.data_to_send())

    def _ended(self) -> bool:
        return self.connection.close_transport >= CloseTransport.SHUTDOWN

    def _drain(self) -> None:
        self.events.extend(self.connection.events())


class SocketPeer(_Peer):
    """The peer of a program at the other end of a connected socket, whose opening handshake is done.

    The socket's own timeout bounds each wait; when it is over, TimeoutError comes. ``received`` is what was read behind
    the handshake. Whoever made the socket closes it.
    """

    def __init__(self, sock: socket.socket, role: Role, received: bytes = b"") -> None:
        super().__init__(role)
        self.sock = sock
        self._input += received

    def send_eof(self) -> None:
        """Close the peer's side of the transport."""
        self._note("sent the end")
        self.sock.shutdown(socket.SHUT_WR)

    def _write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _read(self) -> bytes:
        return self.sock.recv(65536)

    def _ended(self) -> bool:
        return True  # or there would be something to read, or TimeoutError
