"""Sends a file in fragments, tells how far it is, and compares checksums: see server.py.

    python client.py ws://localhost:8765 FILE
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from wsproto_fast import ConnectionClosed
from wsproto_fast.asyncio import connect

CHUNK = 2**16


async def upload(uri: str, path: Path) -> str:
    """Returns the SHA-256 that both have calculated. Raises ValueError when the server refuses the file."""
    digest = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        sent = 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                yield chunk  # and wait here while the server is slow
                sent += len(chunk)
                show(sent)
            if not sent:
                yield b""

    size = path.stat().st_size

    def show(sent: int) -> None:
        done = sent * 100 // size
        if done > (sent - CHUNK) * 100 // size:
            print(f"\r{path.name}: {done} %", end="\n" if sent == size else "", file=sys.stderr, flush=True)

    async with connect(uri, compression=None) as connection:
        await connection.send_json({"name": path.name, "size": size})
        try:
            await connection.send(chunks())
        except ConnectionClosed:
            pass  # it is said below why
        answer = await connection.recv_json()
    if "error" in answer:
        raise ValueError(answer["error"])
    if answer["sha256"] != digest.hexdigest():
        raise ValueError("the file arrived damaged")
    return str(answer["sha256"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("uri")
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    try:
        print(asyncio.run(upload(arguments.uri, arguments.file)))
    except (ValueError, OSError) as exc:
        sys.exit(f"not uploaded: {exc}")
