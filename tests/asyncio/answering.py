"""Servers that give bytes for an answer, any number of times, and a count of what is open."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from aio import answer, until
from cases.handshakes import found
from peers import descriptors

__all__ = ["Answering", "answering", "descriptors", "found"]


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
