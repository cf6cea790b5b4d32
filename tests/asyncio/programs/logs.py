"""Logs: a logger of one's own, adapters that say which connection it was."""

import io
import logging

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


class Where(logging.LoggerAdapter):
    """Puts in front which connection it was."""

    def process(self, message, kwargs):
        websocket = kwargs["extra"]["websocket"]
        name = websocket.request.path if websocket.request else "?"
        return f"[{name}] {message}", kwargs


class Tagged(logging.LoggerAdapter):
    def process(self, message, kwargs):
        return f"<{self.extra['tag']}> {message}", {**kwargs, "extra": {**self.extra, **kwargs.get("extra", {})}}


async def handler(websocket):
    websocket.logger.info("hello from the handler")
    if websocket.request.path == "/fail":
        raise LookupError("of the program")
    async for message in websocket:
        logging.LoggerAdapter(websocket.logger, {"x": 1}).warning("received %s", message)


async def main():
    output = io.StringIO()
    logger = logging.getLogger("an.application")
    logger.propagate = False
    stream = logging.StreamHandler(output)
    stream.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(stream)
    logger.setLevel(logging.INFO)
    seen = set()

    def note(record):
        if hasattr(record, "websocket"):
            seen.add(str(record.websocket.id))
        return True

    stream.addFilter(note)
    for each in (logger, Tagged(logger, {"tag": "blue"})):
        async with serve(handler, "127.0.0.1", 0, logger=each) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with connect(f"ws://{address}/fine") as websocket:
                await websocket.send("tick")
            async with connect(f"ws://{address}/fail") as websocket:
                await websocket.wait_closed()
                print(websocket.close_code)
    text = output.getvalue().replace(address, "ADDRESS")
    for line in text.splitlines():
        if line.startswith(("INFO hello", "INFO <blue> hello", "WARNING", "LookupError", "ERROR")):
            print(line)
    print(len(seen))
    logger.removeHandler(stream)
