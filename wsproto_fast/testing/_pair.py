"""A client and a server connected in memory, under a virtual clock.

Does what an adapter does, in the order in which it must be done: bytes in, events out, bytes out, transport, time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..connection import Connection
from ..constants import CloseTransport, Role
from ..events import Event
from ..handshake import ClientHandshake, ServerHandshake
from ..limits import DeflateConfig
from ..uri import parse_uri
from ._stream import Faults, Stream

__all__ = ["Pair"]


class Pair:
    """Two connections, their opening handshake done, and the streams between them.

    ``deflate`` and ``subprotocols`` are what both offer and accept. ``client`` and ``server`` are further arguments for
    the ``Connection`` of that end. ``faults`` and ``seed`` are those of the streams. Use ``client`` and ``server`` as
    any Connection, and ``pump`` to let their bytes through; what they tell is appended to ``client_events`` and
    ``server_events``, which may be cleared.
    """

    def __init__(
        self,
        *,
        deflate: DeflateConfig | None = None,
        subprotocols: Sequence[str] | None = None,
        client: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        faults: Faults = Faults(),  # noqa: B008 (frozen)
        seed: int = 0,
    ) -> None:
        ours, theirs = _shake_hands(deflate, subprotocols)
        up, down = Stream(faults, 2 * seed), Stream(faults, 2 * seed + 1)
        #: Seconds since the handshake.
        self.now = 0.0
        self.client = Connection(Role.CLIENT, deflate=ours.deflate, **(client or {}))
        self.server = Connection(Role.SERVER, deflate=theirs.deflate, **(server or {}))
        self.client.subprotocol, self.server.subprotocol = ours.subprotocol, theirs.subprotocol
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []
        self._ends = (
            _End(self.client, down, up, self.client_events),
            _End(self.server, up, down, self.server_events),
        )

    def pump(self) -> None:
        """Deliver both ways what arrives without any time passing, until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            for end in self._ends:
                moved = end.step(self.now) or moved

    def advance(self, seconds: float) -> None:
        """Let time pass: streams deliver, and each end is told the time when it wants to know it. Raises ValueError for
        time that would run backwards."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._run(self.now + seconds, waiting=False)

    def settle(self) -> None:
        """Let time pass until nothing is under way any more."""
        self._run(float("inf"), waiting=True)

    def _run(self, until: float, *, waiting: bool) -> None:
        self.pump()
        while (at := self._next_time(waiting)) is not None and at <= until:
            self.now = at
            self.pump()
        if not waiting:
            self.now = until
            self.pump()

    def _next_time(self, waiting: bool) -> float | None:
        times = [end.incoming.next_arrival() for end in self._ends]
        if not waiting or any(time is not None for time in times):
            times += [end.connection.next_deadline() for end in self._ends]
        return min([time for time in times if time is not None and time > self.now], default=None)


class _End:
    """One end: its connection, what comes in, what goes out, what it has told."""

    def __init__(self, connection: Connection, incoming: Stream, outgoing: Stream, events: list[Event]) -> None:
        self.connection = connection
        self.incoming = incoming
        self.events = events
        self._outgoing = outgoing
        self._reads = True

    def step(self, now: float) -> bool:
        """Read, tell, write. Returns whether anything moved."""
        connection = self.connection
        deadline = connection.next_deadline()
        if deadline is not None and deadline <= now:
            connection.handle_timeout(now)
        told = len(self.events)
        self._drain()
        moved = self._read(now) or len(self.events) != told
        for chunk in connection.data_to_send():
            self._outgoing.write(chunk, now)
            moved = True
        if connection.close_transport >= CloseTransport.SHUTDOWN:
            self._outgoing.write_eof(now)
        if connection.close_transport >= CloseTransport.CLOSE and self._reads:
            self._reads = False
            connection.receive_eof()
            moved = True
        return moved

    def _read(self, now: float) -> bool:
        connection = self.connection
        moved = False
        # a read-ahead that is full leaves the rest in the stream, as it would in the kernel
        while not (self._reads and connection.read_ahead_full) and (data := self.incoming.read(now)) is not None:
            moved = True
            if not self._reads:
                continue  # the transport is closed: nobody takes it
            if data:
                connection.receive_data(data)
            else:
                connection.receive_eof()
            self._drain()
        return moved

    def _drain(self) -> None:
        self.events.extend(self.connection.events())


def _shake_hands(
    deflate: DeflateConfig | None, subprotocols: Sequence[str] | None
) -> tuple[ClientHandshake, ServerHandshake]:
    client = ClientHandshake(parse_uri("ws://localhost/"), deflate=deflate, subprotocols=subprotocols)
    server = ServerHandshake(deflate=deflate, subprotocols=subprotocols)
    server.receive_data(b"".join(client.data_to_send()))
    server.send_response(server.accept())
    client.receive_data(b"".join(server.data_to_send()))
    return client, server
