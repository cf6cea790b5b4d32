"""Values of the WebSocket headers, read and written."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import cast

from ... import _headers
from ..._headers import basic_authorization as build_authorization_basic
from ..._headers import checked_subprotocols, parse_authorization_basic, quoted_string
from ...exceptions import InvalidHeaderFormat
from .typing import ConnectionOption, ExtensionHeader, ExtensionName, ExtensionParameter, Subprotocol, UpgradeProtocol

__all__ = [
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_subprotocols",
]

_is_protocol = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+(/[-!#$%&'*+.^_`|~0-9A-Za-z]+)?").fullmatch  # RFC 9110 7.8


def build_host(host: str, port: int, secure: bool, *, always_include_port: bool = False) -> str:
    """The value of Host: brackets around an IPv6 address, and the port unless it is the scheme's own."""
    try:
        if ipaddress.ip_address(host).version == 6:
            host = f"[{host}]"
    except ValueError:
        pass  # a name
    return f"{host}:{port}" if always_include_port or port != (443 if secure else 80) else host


def parse_connection(header: str) -> list[ConnectionOption]:
    """The options in Connection. Raises InvalidHeaderFormat, as all of these do."""
    return cast("list[ConnectionOption]", _headers.parse_token_list(header, "Connection"))


def parse_upgrade(header: str) -> list[UpgradeProtocol]:
    """The protocols in Upgrade, each with or without a version."""
    protocols = [protocol for item in header.split(",") if (protocol := item.strip(" \t"))]
    for protocol in protocols or [header]:
        if _is_protocol(protocol) is None:
            raise InvalidHeaderFormat("Upgrade", "expected protocol", header, header.find(protocol))
    return cast("list[UpgradeProtocol]", protocols)


def parse_extension(header: str) -> list[ExtensionHeader]:
    """The extensions in Sec-WebSocket-Extensions with their parameters; one without a value has None."""
    return cast("list[ExtensionHeader]", _headers.parse_extensions(header))


def build_extension(extensions: Sequence[ExtensionHeader]) -> str:
    """The value of Sec-WebSocket-Extensions."""
    return ", ".join(_build_extension_item(name, parameters) for name, parameters in extensions)


def _build_extension_item(name: ExtensionName, parameters: Sequence[ExtensionParameter]) -> str:
    return "; ".join([name, *(key if value is None else f"{key}={value}" for key, value in parameters)])


def parse_subprotocol(header: str) -> list[Subprotocol]:
    """The subprotocols in Sec-WebSocket-Protocol."""
    return cast("list[Subprotocol]", _headers.parse_subprotocols(header))


def build_subprotocol(subprotocols: Sequence[Subprotocol]) -> str:
    """The value of Sec-WebSocket-Protocol."""
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: Sequence[Subprotocol]) -> None:
    """Raise ValueError unless all are tokens, TypeError unless they are a list."""
    checked_subprotocols(subprotocols)


def build_www_authenticate_basic(realm: str) -> str:
    """The value of WWW-Authenticate. Raises ValueError when ``realm`` must not go on the wire."""
    return f'Basic realm={quoted_string(realm)}, charset="UTF-8"'


# their names of before
parse_extension_list = parse_extension
build_extension_list = build_extension
parse_subprotocol_list = parse_subprotocol
build_subprotocol_list = build_subprotocol
