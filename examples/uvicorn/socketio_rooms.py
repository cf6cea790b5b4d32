"""Rooms with python-socketio: ``python socketio_rooms.py``, for clients of socket.io on http://127.0.0.1:8000."""

from typing import Any

import socketio
import uvicorn

server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*")
app = socketio.ASGIApp(server)


@server.event
async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    if not auth or "name" not in auth:
        raise socketio.exceptions.ConnectionRefusedError("who are you?")
    await server.save_session(sid, {"name": auth["name"]})


@server.event
async def join(sid: str, room: str) -> int:
    """Answers how many were there."""
    before = len(list(server.manager.get_participants("/", room)))
    await server.enter_room(sid, room)
    name = (await server.get_session(sid))["name"]
    await server.emit("joined", {"room": room, "name": name}, room=room, skip_sid=sid)
    return before


@server.event
async def say(sid: str, room: str, what: Any) -> None:
    """``what`` may be anything that is JSON, or bytes."""
    name = (await server.get_session(sid))["name"]
    await server.emit("said", (name, what), room=room)


if __name__ == "__main__":
    uvicorn.run(app, ws="wsproto_fast.contrib.uvicorn:WebSocketProtocol")
