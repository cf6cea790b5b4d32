"""Servers that give bytes for an answer, any number of times, and a count of what is open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import stat
from collections.abc import AsyncIterator, Callable

import pytest
from aio import answer, until


class Answering:
    """A server made of bytes. ``respond`` makes the answer to each request; b"" is none, None the end at once."""

    def __init__(self, respond: Callable[[bytes], bytes | None], scheme: str = "ws") -> None:
        self.respond = respond
        self.scheme = scheme
        self.port = 0
        self.requests: list[bytes] = []
        #: Connections that the client has not ended.
        self.open = 0

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            response = self.respond(self.requests[-1])
            if response is not None:
                writer.write(response)
                if await reader.read(1):
                    writer.write(b"\x88\x02\x03\xe8")  # to what must be a Close frame
        self.open -= 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def uri(self, path: str = "/", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def headers(self, request: int = -1) -> dict[str, str]:
        lines = self.requests[request].decode().split("\r\n")[1:-2]
        return dict(line.split(": ", 1) for line in lines)


@contextlib.asynccontextmanager
async def answering(
    respond: Callable[[bytes], bytes | None] = answer, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Answering]:
    server = Answering(respond, "ws" if tls is None else "wss")
    async with await asyncio.start_server(server.on_connection, "127.0.0.1", 0, ssl=tls) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server
        await until(lambda: not server.open)


def found(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def descriptors() -> int:
    """How many sockets this process has open. Loops open other files when they first need them."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("no way to count descriptors")
    count = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # of the listing itself
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return count
