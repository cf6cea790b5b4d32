"""echo_server.py with threads. Prints its port and serves until it is terminated."""

from __future__ import annotations

import contextlib

from wsproto_fast import Limits
from wsproto_fast.exceptions import ConnectionClosed
from wsproto_fast.threading import ServerConnection, serve


def echo(connection: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)


if __name__ == "__main__":
    limits = Limits(max_message_size=None, max_fragments=None)
    with serve(echo, "127.0.0.1", 0, limits=limits, ping_interval=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()
