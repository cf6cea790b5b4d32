"""A chat with FastAPI: ``python fastapi_chat.py``, then open http://127.0.0.1:8000 in two tabs."""

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

app = FastAPI()

PAGE = """<!doctype html>
<title>Chat</title>
<form><input id="text" autocomplete="off" autofocus> <button>Send</button></form>
<ul id="messages"></ul>
<script>
  const name = Math.random().toString(36).slice(2, 6);
  const socket = new WebSocket(`ws://${location.host}/rooms/lobby/${name}`);
  socket.onmessage = ({ data }) => {
    const item = document.createElement("li");
    item.textContent = data;
    document.getElementById("messages").append(item);
  };
  document.forms[0].onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.getElementById("text").value);
    document.forms[0].reset();
  };
</script>
"""


class Room:
    """Everybody in it hears everybody."""

    def __init__(self) -> None:
        self.members: set[WebSocket] = set()

    async def tell(self, text: str) -> None:
        for member in list(self.members):
            try:
                await member.send_text(text)
            except WebSocketDisconnect:
                self.members.discard(member)


rooms: dict[str, Room] = {}


@app.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.websocket("/rooms/{room_name}/{name}")
async def talk(websocket: WebSocket, room_name: str, name: str) -> None:
    await websocket.accept()
    room = rooms.setdefault(room_name, Room())
    room.members.add(websocket)
    await room.tell(f"{name} comes")
    try:
        while True:
            await room.tell(f"{name}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        room.members.discard(websocket)
        await room.tell(f"{name} goes")


if __name__ == "__main__":
    uvicorn.run(app, ws="wsproto_fast.contrib.uvicorn:WebSocketProtocol")
