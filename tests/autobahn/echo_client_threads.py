"""echo_client.py with threads. Argument: the URI of the suite's server."""

from __future__ import annotations

import contextlib
import sys

from echo_client import AGENT, LIMITS

from wsproto_fast.exceptions import ConnectionClosed, InvalidHandshake
from wsproto_fast.threading import connect


def run_case(uri: str, case: int) -> None:
    with connect(f"{uri}/runCase?case={case}&agent={AGENT}", limits=LIMITS, ping_interval=None) as connection:
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                connection.send(message)


def main(uri: str) -> None:
    with connect(f"{uri}/getCaseCount") as connection:
        count = int(connection.recv())
    for case in range(1, count + 1):
        try:
            run_case(uri, case)
        except InvalidHandshake as error:
            print(f"case number {case}: {error!r}", file=sys.stderr)
    with connect(f"{uri}/updateReports?agent={AGENT}") as connection:
        connection.wait_closed()
    print(count, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
