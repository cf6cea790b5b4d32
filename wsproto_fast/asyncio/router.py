"""``route``: a server whose handlers are found by URL. Knows no URLs itself: that is werkzeug's business."""

from __future__ import annotations

import os
import ssl as ssl_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .._routing import Router, require_werkzeug
from ..http11 import Request, Response
from ._server_connection import ProcessRequest, ServerConnection, maybe_await
from .server import Server, serve, unix_serve

if TYPE_CHECKING:
    from werkzeug.routing import Map

__all__ = ["Router", "route", "unix_route"]


def route(
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
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
    return _route(serve, url_map, *args, server_name=server_name, ssl=ssl, create_router=create_router, **kwargs)


def unix_route(url_map: Map, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Server:
    """``route`` on a Unix socket."""
    require_werkzeug("unix_route")
    return _route(unix_serve, url_map, path, **kwargs)


def _route(
    serve_on: Callable[..., Server],
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    process_request: ProcessRequest | None = None,
    **kwargs: Any,
) -> Server:
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    router = (create_router or Router)(url_map, server_name, "ws" if ssl is None else "wss")
    ask = router.route_request if process_request is None else _both(process_request, router)
    return serve_on(router.handler, *args, process_request=ask, **kwargs)


def _both(process_request: ProcessRequest, router: Router) -> ProcessRequest:
    async def ask_both(connection: ServerConnection, request: Request) -> Response | None:
        response: Response | None = await maybe_await(process_request(connection, request))
        return router.route_request(connection, request) if response is None else response

    return ask_both
