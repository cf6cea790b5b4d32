"""What ``connect`` of either adapter keeps and decides: the request, where redirects lead, which errors pass.

Knows what is said in the handshake and what an attempt's end means; opens nothing and waits for nothing.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._redirecting import redirected, same_origin, without_credentials
from .exceptions import InvalidStatus, SecurityError
from .handshake import ClientHandshake
from .http11 import Headers, HeadersLike
from .limits import DeflateConfig
from .uri import WebSocketURI, parse_uri

if TYPE_CHECKING:
    from ._settings import Settings

__all__ = ["CLIENT_DEFLATE", "USER_AGENT", "Connecting", "client_logger"]

USER_AGENT = f"Python/{sys.version_info.major}.{sys.version_info.minor} wsproto_fast"

#: No demand on the server's window: not every server that compresses can meet one, or even reads it.
CLIENT_DEFLATE = DeflateConfig(server_max_window_bits=15)

client_logger = logging.getLogger("wsproto_fast.client")


class Connecting:
    """The part of ``connect`` that knows no I/O. Subclasses have a ``_given``: which of "sock", "path", "host" and
    "port" our user gave."""

    _given: Collection[str]
    #: Where the current attempt goes; redirects change it until the next.
    uri: str

    def _set_up(
        self,
        uri: str,
        settings: Settings,
        headers: HeadersLike | None,
        request: dict[str, Any],
        process_exception: Callable[[Exception], Exception | None],
        reconnect_delays: Callable[[], Iterable[float]],
        logger: logging.Logger | logging.LoggerAdapter[Any] | None,
    ) -> WebSocketURI:
        """Raises here what would else be raised when it connects."""
        self.uri = self._first_uri = uri
        self._settings = settings
        # A mapping may be changed between two attempts, to hold a fresh token; an iterator has only one.
        live = headers is None or isinstance(headers, Mapping)
        self._headers = headers if live else Headers(headers or ())
        self._request = request
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._logger = client_logger if logger is None else logger
        parsed = parse_uri(uri)
        self._new_handshake(parsed, self._headers)
        return parsed

    def _new_handshake(self, uri: WebSocketURI, headers: HeadersLike | None) -> ClientHandshake:
        settings = self._settings
        return ClientHandshake(
            uri,
            deflate=settings.deflate,
            limits=settings.limits,
            additional_headers=headers,
            **self._request,
        )

    def _begin(self) -> HeadersLike | None:
        """A new attempt: forget where redirects led. Returns the headers for it."""
        self.uri = self._first_uri
        return self._headers

    def _follow(self, exc: Exception, headers: HeadersLike | None) -> HeadersLike | None:
        """An attempt has raised ``exc``: set ``uri`` to where it redirects to and return the headers that may go there,
        or raise."""
        result = self.process_redirect(exc)
        if result is exc:
            raise exc
        if isinstance(result, Exception):
            raise result from exc
        old, self.uri = parse_uri(self.uri), result
        return headers if same_origin(old, parse_uri(result)) else without_credentials(headers)

    def process_redirect(self, exc: Exception) -> Exception | str:
        """What follows from an attempt at ``self.uri`` that raised ``exc``: a URI to go to, or what to raise.

        For subclasses that follow fewer redirects or others.
        """
        if not isinstance(exc, InvalidStatus):
            return exc
        try:
            uri = redirected(self.uri, exc.response, self._given)
        except (SecurityError, ValueError) as error:
            return error
        return exc if uri is None else uri

    def _raise_unless_transient(self, exc: Exception) -> None:
        try:
            error = self._process_exception(exc)
        except Exception as raised:  # a frequent mistake, which websockets forgives too
            error = raised
        if error is exc:
            raise exc
        if error is not None:
            raise error from exc

    def _log_failure(self, exc: Exception, delay: float) -> None:
        reason = traceback.format_exception_only(exc)[0].strip()
        self._logger.info("connect failed; reconnecting in %.1f seconds: %s", delay, reason)
