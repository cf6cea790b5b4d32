"""What goes wrong, in one line that says what to do. Knows the exceptions of opening and listening; prints nothing."""

from __future__ import annotations

import errno
import re
import socket
import ssl

from ..exceptions import InvalidStatus, InvalidURI, WebSocketException

__all__ = ["ENDED", "INTERRUPTED", "NOT_OPENED", "OK", "OUTPUT_CLOSED", "USAGE", "Failure", "explain", "shown", "usage"]

#: Exit codes; docs/command-line.md has them too.
OK = 0
ENDED = 1  # the connection was lost, closed with an error, or did not bring what was expected
USAGE = 2  # argparse's own
NOT_OPENED = 3  # could not connect, or listen
INTERRUPTED = 130  # Ctrl-C, as shells count it: 128 + SIGINT
OUTPUT_CLOSED = 141  # who read our output has gone: 128 + SIGPIPE

#: OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_NAME = (62, 64)
_HINTS = {
    301: "the redirect leads nowhere that can be followed",
    401: "it wants a name and password: ws://name:password@host, or --header 'Authorization: ...'",
    403: "it may want another --origin, or a token in a --header",
    404: "is the path right?",
    426: "it wants another protocol or version",
    503: "it is overloaded or restarting",
}
_hide_password = re.compile(r"//([^/?#@:]*):[^/?#]*@").sub
_find_errnos = re.compile(r"\[Errno (\d+)\]").findall


class Failure(Exception):
    """Ends the program: with this text on stderr, unless it is empty, and this exit code."""

    def __init__(self, text: str, code: int = ENDED) -> None:
        super().__init__(text)
        self.code = code


def usage(text: str) -> Failure:
    """What the user asked for cannot be."""
    return Failure(text, USAGE)


def shown(uri: str) -> str:
    """The URI without the password that it may hold: screens and logs are seen by others."""
    return _hide_password(r"//\1:***@", uri)


def explain(exc: BaseException, uri: str) -> Failure:
    """Why ``uri`` could not be opened. For OSError, ValueError, ImportError and WebSocketException."""
    if isinstance(exc, InvalidURI):
        return usage(f"{exc}{_other_scheme(uri)}")
    if isinstance(exc, InvalidStatus):
        text = _status(exc)
    elif isinstance(exc, ssl.SSLCertVerificationError):
        text = _certificate(exc)
    elif isinstance(exc, ssl.SSLError):
        text = f"the TLS handshake failed ({exc.reason}): does this port speak TLS? ws:// goes without"
    elif isinstance(exc, socket.gaierror):
        text = f"the host's name is not known ({exc.strerror})"
    elif isinstance(exc, OSError):
        text = _system(exc)
    elif isinstance(exc, WebSocketException):
        text = _with_cause(exc)
    else:  # of headers and subprotocols that must not go on the wire, or for want of an optional package
        return usage(str(exc))
    return Failure(f"cannot connect to {shown(uri)}: {text}", NOT_OPENED)


def _other_scheme(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return f"; did you mean ws://{uri}?"
    known = {"http": "ws", "https": "wss"}.get(scheme.lower())
    return f"; did you mean {known}://{rest}?" if known else ""


def _status(exc: InvalidStatus) -> str:
    response = exc.response
    text = f"the server answered HTTP {response.status_code} {response.reason_phrase}".rstrip()
    hint = _HINTS.get(response.status_code)
    return f"{text} in place of 101; {hint}" if hint else f"{text} in place of 101; is this a WebSocket server?"


def _certificate(exc: ssl.SSLCertVerificationError) -> str:
    reason = exc.verify_message.rstrip(".")
    if exc.verify_code in _OTHER_NAME:
        return f"the certificate is for another host ({reason}); use its name, or --insecure to skip all checks"
    return f"the certificate is not trusted ({reason}); --cafile FILE trusts an authority, --insecure skips all checks"


def _system(exc: OSError) -> str:
    """``loop.create_connection`` joins the errors of several addresses in one text, without a number."""
    if isinstance(exc, TimeoutError):
        return "the server did not answer in time"
    numbers = {str(exc.errno)} if exc.errno else set(_find_errnos(str(exc)))
    if numbers == {str(errno.ECONNREFUSED)}:
        return "connection refused; does a server listen there?"
    if numbers == {str(errno.EMFILE)}:
        return "too many open files; `ulimit -n` allows more"
    return exc.strerror or str(exc)


def _with_cause(exc: WebSocketException) -> str:
    cause = exc.__cause__
    return f"{exc} ({cause})" if cause is not None and str(cause) else str(exc)
