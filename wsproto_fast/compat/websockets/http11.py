"""Requests and responses: those of the engine. It reads them itself: they have no ``parse`` here."""

from __future__ import annotations

import sys

from ...http11 import Request, Response
from .version import version

__all__ = ["SERVER", "USER_AGENT", "Request", "Response"]

#: What programs that ask for a name of this library tell their peers.
SERVER = USER_AGENT = f"Python/{sys.version_info.major}.{sys.version_info.minor} websockets/{version}"
