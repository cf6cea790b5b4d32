"""wsproto 1.3 on the engine of wsproto_fast: the same modules and names, several times faster.

``docs/from-wsproto.md`` tells how it differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .connection import Connection, ConnectionState, ConnectionType
from .handshake import H11Handshake

if TYPE_CHECKING:
    from collections.abc import Generator

    from .events import Event
    from .typing import Headers

__all__ = ["ConnectionType", "WSConnection"]

#: The release whose interface this is.
__version__ = "1.3.2"


class WSConnection:
    """One connection, from its opening handshake on."""

    def __init__(self, connection_type: ConnectionType) -> None:
        self.client = connection_type is ConnectionType.CLIENT
        self.handshake = H11Handshake(connection_type)
        self.connection: Connection | None = None

    @property
    def state(self) -> ConnectionState:
        """That of the connection, or of the handshake before it is done."""
        return (self.handshake if self.connection is None else self.connection).state

    def initiate_upgrade_connection(self, headers: Headers, path: bytes | str) -> None:
        """See ``H11Handshake.initiate_upgrade_connection``."""
        self.handshake.initiate_upgrade_connection(headers, path)

    def send(self, event: Event) -> bytes:
        """The bytes of an event. Raises LocalProtocolError when the state does not allow it."""
        if self.connection is not None:
            return self.connection.send(event)
        data = self.handshake.send(event)
        self.connection = self.handshake.connection
        return data

    def receive_data(self, data: bytes | None) -> None:
        """Take bytes from the transport; None: it has ended. See ``H11Handshake`` and ``Connection``."""
        if self.connection is not None:
            self.connection.receive_data(data)
        else:
            self.handshake.receive_data(data)
            self.connection = self.handshake.connection

    def events(self) -> Generator[Event, None, None]:
        """The events that are there. One that is not taken stays for the next call."""
        yield from self.handshake.events()
        if self.connection is not None:
            yield from self.connection.events()
