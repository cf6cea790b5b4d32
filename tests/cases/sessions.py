"""Sessions: ends after which they connect again, and answers after which they do not."""

from __future__ import annotations

#: Codes with which a handler closes: each time there is another connection.
ENDS = [1000, 1001, 1011, 1012, 4000]
#: Statuses of a refusal after which there is another attempt, and after which there is none.
PASSING = [408, 425, 429, 500, 502, 503, 504]
LASTING = [400, 401, 403, 404, 501]
#: What becomes of messages while there is no connection.
OUTBOXES = ["keep", "drop", "error"]


def status(code: int) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % code
