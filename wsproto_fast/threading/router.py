"""``route``: a server whose handlers are found by URL. Knows no URLs itself: that is werkzeug's business."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .._routing import Router, require_werkzeug
from ..http11 import Request, Response
from ._server_connection import ProcessRequest, ServerConnection
from .server import Server, serve

if TYPE_CHECKING:
    from werkzeug.routing import Map

__all__ = ["Router", "route", "unix_route"]


def route(
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    process_request: ProcessRequest | None = None,
    **kwargs: Any,
) -> Server:
    """``serve`` with a handler for each URL: ``route(Map([Rule("/rooms/<int:number>", endpoint=room)]), host, port)``.

    ``url_map`` is a ``werkzeug.routing.Map``; the handler of the rule that fits is called as ``room(connection,
    number=...)``. A URL without one is answered with 404, a rule's ``redirect_to`` with 302. ``process_request`` is
    asked first. Behind a reverse proxy ``server_name`` is the name that clients know, and ``ssl=True`` says that the
    proxy does TLS; both only matter to redirects. Other arguments are those of ``serve``.

    Raises ImportError without werkzeug, which is the extra ``wsproto_fast[router]``.
    """
    require_werkzeug("route")
    router = (create_router or Router)(url_map, server_name, "ws" if ssl is None else "wss")

    def ask(connection: ServerConnection, request: Request) -> Response | None:
        response = None if process_request is None else process_request(connection, request)
        return router.route_request(connection, request) if response is None else response

    return serve(router.handler, *args, ssl=None if ssl is True else ssl, process_request=ask, **kwargs)


def unix_route(url_map: Map, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """``route`` on a Unix socket."""
    return route(url_map, path=path, **kwargs)
