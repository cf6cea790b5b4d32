"""HTTP Basic authentication as a server demands it (RFC 7617). Knows credentials; answers nothing itself."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any

from ._headers import parse_authorization_basic, quoted_string
from .exceptions import InvalidHeader
from .http11 import Request, Response

__all__ = ["BasicAuth", "Credentials"]

Credentials = tuple[str, str] | Iterable[tuple[str, str]]


class BasicAuth:
    """Who may come in: those with ``credentials``, a pair or several, or those for whom ``check_credentials`` is true.

    Raises ValueError unless exactly one of them is given, and for a realm that must not go on the wire; TypeError for
    credentials that are no pairs of str.
    """

    def __init__(
        self,
        realm: str,
        credentials: Credentials | None,
        check_credentials: Callable[[str, str], Any] | None,
    ) -> None:
        if check_credentials is None and credentials is not None:
            check_credentials = _Passwords(credentials).check
        elif check_credentials is None or credentials is not None:
            raise ValueError("provide either credentials or check_credentials")
        #: ``f(username, password)``; may be a coroutine function of our user.
        self.check: Callable[[str, str], Any] = check_credentials
        #: The value of WWW-Authenticate in the 401.
        self.challenge = f'Basic realm={quoted_string(realm)}, charset="UTF-8"'

    def claim(self, request: Request) -> tuple[str, str] | str:
        """User name and password of a request, not checked, or the sentence that refuses it."""
        values = request.headers.get_all("Authorization")
        if not values:
            return "Missing credentials\n"
        try:
            return parse_authorization_basic(", ".join(values))  # several make none
        except InvalidHeader:
            return "Unsupported credentials\n"

    def refusal(self, connection: Any, sentence: str) -> Response:
        """The 401."""
        response: Response = connection.respond(401, sentence)
        response.headers["WWW-Authenticate"] = self.challenge
        return response


#: Compared with in place of the digest of a user who is unknown. Nothing has it.
_NOBODY = bytes(32)


class _Passwords:
    """Fixed credentials. The time of a check tells neither how much of a password is right nor whose name exists."""

    def __init__(self, credentials: Credentials) -> None:
        # What was given stays out of the text: it may be passwords.
        error = TypeError("invalid credentials argument: expected (username, password), or several such pairs")
        if isinstance(credentials, str) or not isinstance(credentials, Iterable):
            raise error
        given: list[Any] = list(credentials)
        pairs = [given] if _is_pair(given) else given
        if not all(map(_is_pair, pairs)):
            raise error
        self._digests = {username: _digest(password) for username, password in pairs}

    def check(self, username: str, password: str) -> bool:
        expected = self._digests.get(username, _NOBODY)
        return hmac.compare_digest(expected, _digest(password))


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2 and all(isinstance(part, str) for part in item)


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode(errors="surrogateescape")).digest()
