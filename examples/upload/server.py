"""Receives files of any size in little memory: a message is written to disk frame by frame, as it arrives.

    python server.py FOLDER [--port PORT] [--limit BYTES]
    python client.py ws://localhost:8765 FILE

A client says ``{"name": ..., "size": ...}`` and sends the file as one binary message in fragments. It is answered with
``{"size": ..., "sha256": ...}``, or ``{"error": ...}``. A file appears under its name when it is complete.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from wsproto_fast import CloseCode
from wsproto_fast.asyncio import ServerConnection, serve

#: A message may be as large as it likes; its frames, and so what is held in memory, may not.
MAX_FRAME = 2**20


class Refused(Exception):
    """Why a file is not taken."""


async def receive_files(connection: ServerConnection, folder: Path, limit: int) -> None:
    async for header in connection:
        try:
            answer = await receive_file(connection, json.loads(header), folder, limit)
        except (Refused, ValueError, KeyError, TypeError) as exc:
            await connection.send_json({"error": str(exc)})
            await connection.close(CloseCode.POLICY_VIOLATION, "file refused")  # whatever of it is still to come
        else:
            await connection.send_json(answer)


async def receive_file(connection: ServerConnection, header: Any, folder: Path, limit: int) -> dict[str, Any]:
    name, size = header["name"], header["size"]
    if not re.fullmatch(r"\w[\w. -]{0,99}", name):  # above all no path
        raise Refused("that is no name for a file")
    if not 0 <= size <= limit:
        raise Refused(f"more than {limit} bytes")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".upload-", delete=False) as file:
        partial = Path(file.name)
        try:
            received, digest = 0, hashlib.sha256()
            async for chunk in connection.recv_streaming(decode=False):
                received += len(chunk)
                if received > size:
                    raise Refused(f"more than the {size} bytes that were announced")
                digest.update(chunk)
                file.write(chunk)
            if received < size:
                raise Refused(f"{received} bytes in place of {size}")
            file.close()
            partial.rename(folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return {"size": received, "sha256": digest.hexdigest()}


async def main(folder: Path, port: int, limit: int) -> None:
    async def handler(connection: ServerConnection) -> None:
        await receive_files(connection, folder, limit)

    # Files are often compressed already.
    async with serve(handler, "127.0.0.1", port, max_size=(None, MAX_FRAME), compression=None) as server:
        print(f"Listening on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--limit", type=int, default=2**30)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.folder, arguments.port, arguments.limit))
    except KeyboardInterrupt:
        pass
