"""What a connection of either adapter tells about itself, and how it gets its engine. Knows the engine; does no I/O."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any, TypeAlias

from .connection import Connection as Engine
from .connection import Stats
from .constants import Role, State
from .exceptions import ConnectionClosed, InvalidState
from .handshake import ClientHandshake, ServerHandshake
from .http11 import Request, Response

if TYPE_CHECKING:
    from ._settings import Settings

__all__ = ["Facts", "LoggerLike", "new_engine"]

LoggerLike: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"  # no generic at run time on Python 3.10


class Facts:
    """Goes before the class that has these fields."""

    __slots__ = ()

    if TYPE_CHECKING:
        request: Request | None
        response: Response | None
        _engine: Engine
        _opened: bool
        _lost: bool
        _transport_error: Exception | None
        _logger: LoggerLike
        _uuid: uuid.UUID | None

    @property
    def id(self) -> uuid.UUID:
        """Identifies the connection, in logs for example."""
        if self._uuid is None:
            self._uuid = uuid.uuid4()  # type: ignore[misc]
        return self._uuid

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """Logs with the connection as the record's ``websocket``."""
        return logging.LoggerAdapter(self._logger, {"websocket": self})

    def _log_failure(self, exc: BaseException) -> None:
        """Our user's callback, or another function of his, raised this."""
        if isinstance(exc, ConnectionClosed) and not self._engine.is_open:
            self.logger.info("connection closed while its callback ran: %s", exc)  # as for handlers
        else:
            self.logger.error("connection handler failed", exc_info=exc)

    @property
    def state(self) -> State:
        """CONNECTING in the opening handshake, then the engine's."""
        if self._lost:
            return State.CLOSED
        return self._engine.state if self._opened else State.CONNECTING

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on, if anything."""
        return self._engine.subprotocol if self._opened else None

    @property
    def close_code(self) -> int | None:
        """The peer's close code (RFC 6455 7.1.5), 1006 if there was none; None until the connection is closed."""
        return self._closed_error().code if self._opened and self.state is State.CLOSED else None

    @property
    def close_reason(self) -> str | None:
        """The peer's close reason (RFC 6455 7.1.6); None until the connection is closed."""
        return self._closed_error().reason if self._opened and self.state is State.CLOSED else None

    @property
    def protocol(self) -> Engine:
        """The engine, for what is not here. Raises InvalidState in the opening handshake."""
        self._must_be_open()
        return self._engine

    @property
    def stats(self) -> Stats:
        """Counters of messages, bytes, pings and pongs. Raises InvalidState in the opening handshake."""
        self._must_be_open()
        return self._engine.stats

    def _must_be_open(self) -> None:
        if not self._opened:
            raise InvalidState("the opening handshake is not over")

    def _closed_error(self) -> ConnectionClosed:
        """Why the connection ended, made anew for whoever is told."""
        error = self._engine.closed_exception()
        if error.__cause__ is None:
            error.__cause__ = self._transport_error
        return error

    def _compact(self) -> None:
        """The opening handshake's messages are kept, perhaps for ever."""
        for message in (self.request, self.response):
            assert message is not None
            message.headers.compact()


def new_engine(settings: Settings, handshake: ClientHandshake | ServerHandshake, role: Role) -> Engine:
    """An engine for what an opening handshake has agreed on."""
    engine = Engine(
        role,
        limits=settings.limits,
        keepalive=settings.keepalive,
        deflate=handshake.deflate,
        trailing_data=handshake.trailing_data,
    )
    engine.subprotocol = handshake.subprotocol
    return engine
