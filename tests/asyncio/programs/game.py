"""A board game for two: one starts it and gets a key, the other joins with it, a third one watches."""

import itertools
import json

from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve

GAMES = {}
keys = (f"key{number}" for number in itertools.count())


class Board:
    """Four in a row of a single column is enough for a test."""

    def __init__(self):
        self.moves = []

    def play(self, player, column):
        if self.moves and self.moves[-1][0] == player:
            raise ValueError("It isn't your turn.")
        row = sum(1 for _, where, _ in self.moves if where == column)
        if row > 5:
            raise ValueError("This slot is full.")
        self.moves.append((player, column, row))
        return row

    def winner(self):
        for player in ("red", "yellow"):
            for column in range(7):
                if sum(1 for who, where, _ in self.moves if (who, where) == (player, column)) >= 4:
                    return player
        return None


async def error(websocket, message):
    await websocket.send(json.dumps({"type": "error", "message": message}))


async def play(websocket, board, player, connected):
    async for message in websocket:
        event = json.loads(message)
        try:
            row = board.play(player, event["column"])
        except ValueError as exc:
            await error(websocket, str(exc))
            continue
        broadcast(connected, json.dumps({"type": "play", "player": player, "column": event["column"], "row": row}))
        if board.winner() is not None:
            broadcast(connected, json.dumps({"type": "win", "player": board.winner()}))


async def start(websocket):
    board, connected, key = Board(), {websocket}, next(keys)
    GAMES[key] = board, connected
    try:
        await websocket.send(json.dumps({"type": "init", "join": key}))
        await play(websocket, board, "red", connected)
    finally:
        del GAMES[key]


async def join(websocket, key, watch):
    if key not in GAMES:
        await error(websocket, "Game not found.")
        return
    board, connected = GAMES[key]
    connected.add(websocket)
    try:
        for player, column, row in board.moves.copy():
            await websocket.send(json.dumps({"type": "play", "player": player, "column": column, "row": row}))
        if watch:
            await websocket.wait_closed()
        else:
            await play(websocket, board, "yellow", connected)
    finally:
        connected.remove(websocket)


async def handler(websocket):
    event = json.loads(await websocket.recv())
    assert event["type"] == "init"
    if "join" in event:
        await join(websocket, event["join"], event.get("watch", False))
    else:
        await start(websocket)


async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with connect(uri) as red, connect(uri) as yellow, connect(uri) as lost, connect(uri) as watcher:
            await red.send(json.dumps({"type": "init"}))
            key = json.loads(await red.recv())["join"]
            print(key)
            await lost.send(json.dumps({"type": "init", "join": "nope"}))
            print(await lost.recv())
            await yellow.send(json.dumps({"type": "init", "join": key}))
            for number in range(4):
                await red.send(json.dumps({"type": "play", "column": 3}))
                print(await red.recv())
                if number == 1:
                    await red.send(json.dumps({"type": "play", "column": 3}))
                    print(await red.recv())
                if number < 3:
                    await yellow.recv()
                    await yellow.send(json.dumps({"type": "play", "column": 0}))
                    print(await red.recv(), await yellow.recv())
            await watcher.send(json.dumps({"type": "init", "join": key, "watch": True}))
            print([json.loads(await watcher.recv())["row"] for _ in range(7)])
            print(await red.recv())
            await lost.wait_closed()
            print(lost.close_code, [ws.state.name for ws in (red, yellow, lost, watcher)])
    print(GAMES)
