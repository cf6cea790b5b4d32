"""Options that several commands have, and what they become. Knows argparse and TLS contexts; opens nothing."""

from __future__ import annotations

import argparse
import math
import ssl
from typing import Any, Literal

from ..exceptions import InvalidURI
from ..uri import parse_uri
from .failures import explain, usage
from .running import LOOPS

__all__ = [
    "MAX_SIZE",
    "add_client_options",
    "add_compression",
    "add_loop",
    "add_server_options",
    "client_arguments",
    "compression_of",
    "positive",
    "positive_seconds",
    "seconds",
    "server_context",
]

#: For one message. A person who looks at a server should not meet the limit that protects programs.
MAX_SIZE = 2**26


# Types of arguments: argparse shows their names and the texts of their errors


def header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not 'Name: value'")
    return name.strip(), value.strip()


def seconds(text: str) -> float:
    value = _number(text, float)
    if not value >= 0:  # nor NaN
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(value)


def positive_seconds(text: str) -> float:
    value = seconds(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def positive(text: str) -> int:
    value = _number(text, int)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(value)


def not_negative(text: str) -> int:
    value = _number(text, int)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or more")
    return int(value)


def port(text: str) -> int:
    value = _number(text, int)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(value)


def _number(text: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


# Groups of options


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """What ``client_arguments`` reads."""
    parser.add_argument("uri", metavar="URI", help="ws://host:port/path, or wss:// for TLS")
    group = parser.add_argument_group("opening handshake")
    group.add_argument(
        "-H",
        "--header",
        type=header,
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header of the request, for example 'Authorization: Bearer ...'; may be repeated",
    )
    group.add_argument(
        "-s",
        "--subprotocol",
        action="append",
        metavar="NAME",
        help="a subprotocol to offer; may be repeated, the best one first",
    )
    group.add_argument("-o", "--origin", help="the Origin header, as a browser on a page of this site sends it")
    group = parser.add_argument_group("TLS, with wss://")
    group.add_argument("--cafile", metavar="FILE", help="trust the certificate authorities in this PEM file, no others")
    group.add_argument(
        "-k", "--insecure", action="store_true", help="check no certificate: anybody can pretend to be the server"
    )


def add_compression(parser: argparse._ActionsContainer, default: str) -> None:
    parser.add_argument(
        "--compression",
        choices=("deflate", "none"),
        default=default,
        help=f"permessage-deflate, if the other end agrees, or none (default: {default})",
    )


def add_loop(parser: argparse._ActionsContainer, default: str = argparse.SUPPRESS) -> None:
    """For the program it has a default; a command's own, which comes later, must not undo what was said before."""
    parser.add_argument(
        "--loop",
        choices=LOOPS,
        default=default,
        help="the event loop; auto is uvloop where it is installed, and asyncio's own elsewhere (default: auto)",
    )


def add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 or :: for all (default: 127.0.0.1)"
    )
    parser.add_argument(
        "-p", "--port", type=port, default=8765, help="port to listen on; 0 takes a free one (default: 8765)"
    )
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="let other processes with this option listen on the same port; Linux spreads connections over them",
    )
    group = parser.add_argument_group("TLS")
    group.add_argument("--cert", metavar="FILE", help="speak wss:// with the certificate chain in this PEM file")
    group.add_argument("--key", metavar="FILE", help="the private key, if it is not in the file of --cert")


# What they become


def client_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments for ``connect``. Raises Failure."""
    try:
        secure = parse_uri(options.uri).secure
    except InvalidURI as exc:
        raise explain(exc, options.uri) from None
    arguments = {
        "origin": options.origin,
        "subprotocols": options.subprotocol,
        "additional_headers": options.header,
        "compression": compression_of(options),
    }
    if secure:
        arguments["ssl"] = _client_context(options)
    elif options.insecure or options.cafile is not None:
        raise usage(f"--insecure and --cafile are for wss://, and {options.uri} goes without TLS")
    return arguments


def compression_of(options: argparse.Namespace) -> Literal["deflate"] | None:
    return None if options.compression == "none" else "deflate"


def _client_context(options: argparse.Namespace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except OSError as exc:
        raise usage(f"cannot use --cafile {options.cafile}: {_of_file(exc)}") from None
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """For ``serve``; None without --cert. Raises Failure."""
    if options.cert is None:
        if options.key is not None:
            raise usage("--key needs --cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Asked for the passphrase of a key, OpenSSL would read the terminal amid everything else.
        context.load_cert_chain(options.cert, options.key, password=lambda: "")
    except OSError as exc:
        names = options.cert if options.key is None else f"{options.cert} with {options.key}"
        raise usage(f"cannot use --cert {names}: {_of_file(exc)}") from None
    return context


def _of_file(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"not the PEM file that is wanted ({exc.reason or exc})"
    return exc.strerror or str(exc)
