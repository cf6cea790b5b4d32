"""URLs to handlers, with werkzeug's routing. Knows requests and responses; knows no adapter.

werkzeug is an extra, imported when there is something to route.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .http11 import Request, Response

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import Map

__all__ = ["Router", "require_werkzeug"]

#: What may stand before path and query in a request target (RFC 9112 3.2.2).
_authority = re.compile(r"\A[A-Za-z]+://[^/?]*")


def require_werkzeug(caller: str) -> None:
    """Raise ImportError, with advice, if there is no werkzeug."""
    try:
        import werkzeug.routing  # noqa: F401
    except ImportError as exc:
        raise ImportError(f"{caller}() requires werkzeug: pip install wsproto_fast[router]") from exc


class Router:
    """What ``route`` asks about each request: ``route_request`` finds the handler, ``handler`` calls it.

    ``url_map`` is a ``werkzeug.routing.Map`` whose endpoints are handlers; all its rules become WebSocket rules.
    ``server_name`` and ``url_scheme`` are those of redirects; without a name it is the Host header's. Subclasses may
    override each method, and are given to ``route`` as ``create_router``.
    """

    def __init__(self, url_map: Map, server_name: str | None = None, url_scheme: str = "ws") -> None:
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: Any, request: Request) -> str:
        """Our name as the client sees it. An HTTP/1.0 client need not tell it."""
        if self.server_name is not None:
            return self.server_name
        return request.headers.get("Host", "localhost")

    def redirect(self, connection: Any, url: str) -> Response:
        """The answer when the rule says ``redirect_to``, or the URL lacks a slash."""
        response: Response = connection.respond(302, f"Found at {url}")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: Any) -> Response:
        """The answer when no rule fits."""
        response: Response = connection.respond(404, "Not Found")
        return response

    def route_request(self, connection: Any, request: Request) -> Response | None:
        """A ``process_request``: sets ``connection.handler`` and ``handler_kwargs``, or returns what to answer."""
        from werkzeug.exceptions import HTTPException, NotFound
        from werkzeug.routing import RequestRedirect

        path, _, query = _authority.sub("", request.path).partition("?")
        try:
            adapter = self.url_map.bind(self.get_server_name(connection, request), url_scheme=self.url_scheme)
            handler, kwargs = adapter.match(path_info=path, query_args=query)
        except RequestRedirect as exc:
            return self.redirect(connection, exc.new_url)
        except NotFound:
            return self.not_found(connection)
        except HTTPException as exc:
            return self._refuse(connection, exc)
        connection.handler, connection.handler_kwargs = handler, kwargs
        return None

    def _refuse(self, connection: Any, exc: HTTPException) -> Response:
        """A host that is no name, or a rule that names its methods."""
        response: Response = connection.respond(exc.code or 400, exc.name)
        for name, value in exc.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    def handler(self, connection: Any) -> Any:
        """Call the handler that was found; asyncio's returns something to await."""
        return connection.handler(connection, **connection.handler_kwargs)
