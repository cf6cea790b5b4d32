"""What is measured, and on whom. Knows no process and no clock.

A case is a row of the table, a candidate a cell in it. The first columns are floors: C, asyncio without WebSocket, or
what is there without the thing that the row is about. All work alike: text up to 4 KiB, binary above; no compression
but where the row says so; messages in flight are sent at once, or singly: one for each reply, with a send of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

FLOOR = "C"
RAW = "raw TCP"
SOCKET = "socket object"
UNCOMPRESSED = "ours, no deflate"
OURS = "ours"
UVLOOP = "on uvloop"
TRANSPORTS = "no reactor"
PICOWS = "picows"
PICOWS_WEBSOCKETS = "picows.websockets"
WEBSOCKETS = "websockets"
AIOHTTP = "aiohttp"
WEBSOCKETS_SYNC = "websockets.sync"
WEBSOCKET_CLIENT = "websocket-client"
RAW_SOCKET = "raw socket"
#: Columns, from left to right.
COLUMNS = (
    *(FLOOR, RAW, RAW_SOCKET, SOCKET, UNCOMPRESSED, OURS, UVLOOP, TRANSPORTS, PICOWS, PICOWS_WEBSOCKETS, WEBSOCKETS),
    *(AIOHTTP, WEBSOCKETS_SYNC, WEBSOCKET_CLIENT),
)

SERVER = "server"
CLIENT = "client"
RESIDENT = "resident"
TRACED = "traced"


@dataclass(frozen=True)
class Candidate:
    column: str
    #: A function of servers.py or clients.py; "echo" and "load" are the programs in C.
    program: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    loop: str | None = None  # the one that was asked for
    needs: str | None = None  # a module
    #: What differs from the load of the case.
    load: tuple[tuple[str, int], ...] = ()

    @property
    def missing(self) -> bool:
        return self.needs is not None and importlib.util.find_spec(self.needs) is None


@dataclass(frozen=True)
class Case:
    """``load`` has the options of load.c, or of clients.py; of what is sent, ``job`` says what becomes of it."""

    name: str
    candidates: tuple[Candidate, ...]
    load: dict[str, int] = field(default_factory=dict)
    job: str = "echo"
    way: str = SERVER
    #: In the chart too.
    shown: bool = False

    @property
    def unit(self) -> str:
        return "µs" if self.way in (SERVER, CLIENT) else "KiB"

    def quick(self) -> Case:
        """The same with few connections."""
        limits = {"conns": 20 if self.way == SERVER else 50}
        return replace(self, load={key: min(value, limits.get(key, value)) for key, value in self.load.items()})


C_ECHO = Candidate(FLOOR, "echo")
C_CLIENT = Candidate(FLOOR, "load")
RAW_ECHO = Candidate(RAW, "raw")
PICOWS_CORE = Candidate(PICOWS, "picows", needs="picows")
PEERS = (
    Candidate(PICOWS_WEBSOCKETS, "picows_websockets", needs="picows"),
    Candidate(WEBSOCKETS, "websockets", needs="websockets"),
    Candidate(AIOHTTP, "aiohttp", needs="aiohttp"),
)


def ours(program: str = "ours", *arguments: str) -> tuple[Candidate, ...]:
    """On the loop that was asked for, on uvloop, and on asyncio's own transports."""
    plain = Candidate(OURS, program, arguments)
    return (
        plain,
        replace(plain, column=UVLOOP, loop="uvloop", needs="uvloop"),
        replace(plain, column=TRANSPORTS, environment=(("WSPROTO_FAST_REACTOR", "0"),)),
    )


def small(conns: int, size: int = 32, window: int = 1, **others: int) -> dict[str, int]:
    return {"conns": conns, "size": size, "window": window, "text": 1, **others}


def all_cases(tls: str | None) -> list[Case]:
    """``tls`` is a file with certificate and key; without it there is no TLS."""
    return [*_echoes(), *_clients(), *_threads(), *(_tls(tls) if tls else ()), *_broadcasts(), *_connections()]


def _echoes() -> Iterator[Case]:
    for conns in (64, 200):
        yield Case(
            f"server, callback: {conns} conns, 32 B",
            (C_ECHO, *ours("ours_callback"), PICOWS_CORE),
            small(conns),
            shown=conns == 200,
        )
    for conns in (64, 200):
        yield Case(
            f"server, async for: {conns} conns, 32 B", (C_ECHO, *ours(), *PEERS), small(conns), shown=conns == 200
        )
    everyone = (C_ECHO, *ours(), PICOWS_CORE, *PEERS)
    yield Case("server, async for: 8 conns, 125 B, 32 in flight", everyone, small(8, 125, 32), shown=True)
    yield Case("server, async for: 20 conns, 125 B, 32 in flight, singly", everyone, small(20, 125, 32, each=1))
    yield Case("server, async for: 8 conns, 1 KiB, 16 in flight", everyone, small(8, 1024, 16))
    large = (C_ECHO, RAW_ECHO, *everyone[1:])
    for kib, conns, window in ((16, 8, 4), (100, 4, 2)):
        load = {"conns": conns, "size": kib * 1024, "window": window}
        yield Case(f"server, async for: {conns} conns, {kib} KiB, {window} in flight", large, load, shown=kib == 16)


def _clients() -> Iterator[Case]:
    for name, load in (("32 B", {"size": 32, "window": 1}), ("125 B, 32 in flight", {"size": 125, "window": 32})):
        yield Case(f"client, callback: {name}", (C_CLIENT, *ours("ours_callback"), PICOWS_CORE), load, way=CLIENT)
        candidates = (C_CLIENT, *ours(), *PEERS)
        yield Case(f"client, recv(): {name}", candidates, load, way=CLIENT, shown="flight" in name)


def _threads() -> Iterator[Case]:
    everyone = (
        Candidate(RAW_SOCKET, "threads_raw"),
        Candidate(OURS, "threads_ours"),
        Candidate(WEBSOCKETS_SYNC, "threads_websockets", needs="websockets"),
        Candidate(WEBSOCKET_CLIENT, "threads_websocket_client", needs="websocket"),
    )
    yield Case("client in threads: 32 B", everyone, {"size": 32, "window": 1}, way=CLIENT)
    many = {"size": 125, "window": 32}
    yield Case("client in threads: 125 B, 32 in flight, singly", everyone[1:], many, way=CLIENT, shown=True)


def _tls(pem: str) -> Iterator[Case]:
    def over_tls(*candidates: Candidate) -> tuple[Candidate, ...]:
        return tuple(replace(each, arguments=("--tls", pem)) for each in candidates if each.column != AIOHTTP)

    everyone = over_tls(*ours(), PICOWS_CORE, *PEERS)
    yield Case("TLS server, callback: 64 conns, 32 B", over_tls(*ours("ours_callback"), PICOWS_CORE), small(64, tls=1))
    yield Case("TLS server, async for: 64 conns, 32 B", everyone, small(64, tls=1))
    yield Case("TLS server, async for: 8 conns, 32 B, 32 in flight", everyone, small(8, window=32, tls=1), shown=True)


def _broadcasts(members: int = 1000) -> Iterator[Case]:
    for name, size in (("128 B", 128), ("4 KiB", 4096)):
        load = small(members, size)
        everyone = (C_ECHO, *ours(), PICOWS_CORE, *PEERS)
        yield Case(f"broadcast() to {members:,}: {name}", everyone, load, job="broadcast", shown=size == 128)
        yield Case(f"Group.broadcast() to {members:,}: {name}", (C_ECHO, *ours()), load, job="group")
    plain = replace(ours()[0], column=UNCOMPRESSED, load=(("deflate", 0),))
    for name, size in (("128 B", 128), ("4 KiB", 4096)):
        compressed = [replace(candidate, arguments=("--deflate",)) for candidate in (*ours(), *PEERS)]
        load = small(members, size, deflate=1)
        title = f"broadcast() to {members:,}: {name}, deflate"
        yield Case(title, (plain, *compressed), load, job="broadcast", shown=size == 128)


def _connections() -> Iterator[Case]:
    """A connection's beginning and end, and what it takes while nothing happens."""
    everyone = (C_ECHO, *ours(), PICOWS_CORE, *PEERS)
    yield Case("connection opened and closed", everyone, {"conns": 16}, job="handshake", shown=True)
    sockets = Candidate(SOCKET, "sockets")
    for way in (RESIDENT, TRACED):
        callbacks = (sockets, *ours("ours_callback"), PICOWS_CORE)
        tasks = (sockets, *ours(), *PEERS)
        load = {"conns": 2000}
        yield Case(f"idle connection, {way}: callback", callbacks, load, job="idle", way=way)
        yield Case(f"idle connection, {way}: async for", tasks, load, job="idle", way=way, shown=way == RESIDENT)
        compressed = tuple(replace(candidate, arguments=("--deflate",)) for candidate in tasks[1:])
        load = {"conns": 1000, "deflate": 1}
        yield Case(f"idle connection, {way}: async for, deflate", compressed, load, job="idle", way=way)


def selected(cases: Iterable[Case], pattern: str) -> list[Case]:
    """Those with every word of the pattern in their name."""
    words = pattern.lower().split()
    return [case for case in cases if all(word in case.name.lower() for word in words)]
