"""How each library is fed, and what it leaves to its caller. Knows no clock and no table.

An inbound driver makes ``run()``, which feeds ``traffic.reads`` and takes every message as the ``str`` or ``bytes``
that an application gets; it returns the last one. An outbound driver makes ``run()``, which sends ``traffic.messages``
and takes the bytes to write after each; it returns the last chunk. Whatever a library leaves to its adapter (decoding
text, joining fragments) is done here, in the way of its own adapter, so that all do the same work.

What each does by itself:

=============  =====================================================================================================
wsproto_fast   frames, unmasks, reassembles, validates and decodes UTF-8, limits (message, fragments, control rate)
websockets     frames, unmasks, limits a message; the driver joins fragments and decodes, as its adapters do
wsproto        frames, unmasks, decodes UTF-8 piece by piece; no limits; the driver joins the pieces
aiohttp        frames, unmasks, reassembles, decodes UTF-8, limits a message; checks no masking (a server of it takes
               unmasked frames), knows no close handshake. Its queue is read as ``receive()`` does, by awaiting
               ``queue.read()``, in one coroutine for each read of the transport; its protocol is a stand-in
=============  =====================================================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from websockets import frames as websockets_frames
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import CONT, TEXT
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from websockets.utils import apply_mask as apply_mask_in_python
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

try:
    from aiohttp import WSMsgType
    from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
    from aiohttp.http_websocket import WebSocketWriter
except ImportError:  # before 3.11 they were elsewhere, and other
    WebSocketReader = None

Message = str | bytes
Run = Callable[[], Message]

#: What all sides compress with. wsproto's level and memLevel are those of zlib and cannot be set.
WINDOW_BITS = 12
LEVEL = 6
MEM_LEVEL = 8


@dataclass(frozen=True)
class Traffic:
    """What goes over one connection in one run; ``reads``: the wire bytes of ``messages`` as a transport cuts them."""

    server: bool  # our role: a server gets masked frames and sends unmasked ones
    text: bool
    messages: list[Message]
    reads: list[bytes]
    fragments: int = 1
    deflate: bool = False


def pieces(message: Message, count: int) -> list[Message]:
    step = -(-len(message) // count)
    return [message[i * step : (i + 1) * step] for i in range(count)]


# -- wsproto_fast ------------------------------------------------------------------------------------------------------


def engine(package: ModuleType, traffic: Traffic) -> Any:
    role = package.Role.SERVER if traffic.server else package.Role.CLIENT
    deflate = None
    if traffic.deflate:
        parameters = package.DeflateParameters(
            server_max_window_bits=WINDOW_BITS, client_max_window_bits=WINDOW_BITS
        )
        deflate = package.PerMessageDeflate(
            role, parameters, package.DeflateConfig(level=LEVEL, mem_level=MEM_LEVEL)
        )
    return package.Connection(role, deflate=deflate)


def engine_dispatch(package: ModuleType, traffic: Traffic) -> Run:
    connection = engine(package, traffic)
    receive_data = connection.receive_data
    dispatch = connection.dispatch
    reads = traffic.reads
    last: Any = None

    def on_message(message: Message) -> None:
        nonlocal last
        last = message

    def on_event(event: Any) -> None:
        raise AssertionError(event)

    def run() -> Message:
        for read in reads:
            receive_data(read)
            dispatch(on_message, on_event)
        return last

    return run


def engine_dispatch_to_c(package: ModuleType, traffic: Traffic) -> Run:
    """``dispatch`` to a callable that is no Python function: what is left is the engine."""
    connection = engine(package, traffic)
    receive_data = connection.receive_data
    dispatch = connection.dispatch
    reads = traffic.reads
    last = deque[Any](maxlen=1)
    sink = last.append

    def run() -> Message:
        for read in reads:
            receive_data(read)
            dispatch(sink, sink)
        return last[0]

    return run


def engine_next_event(package: ModuleType, traffic: Traffic) -> Run:
    connection = engine(package, traffic)
    receive_data = connection.receive_data
    next_event = connection.next_event
    reads = traffic.reads

    def run() -> Message:
        last: Any = None
        for read in reads:
            receive_data(read)
            event = next_event()
            while event is not None:
                last = event.data
                event = next_event()
        return last

    return run


def engine_in_place(package: ModuleType, traffic: Traffic) -> Run:
    """Receive into ``get_buffer()``. The copy into it stands for the kernel's, and is part of what is measured."""
    connection = engine(package, traffic)
    get_buffer = connection.get_buffer
    buffer_updated = connection.buffer_updated
    dispatch = connection.dispatch
    wire = memoryview(b"".join(traffic.reads))
    last: Any = None

    def on_message(message: Message) -> None:
        nonlocal last
        last = message

    def on_event(event: Any) -> None:
        raise AssertionError(event)

    def run() -> Message:
        pos = 0
        while pos < len(wire):
            buffer = get_buffer()
            n = min(len(buffer), len(wire) - pos)
            buffer[:n] = wire[pos : pos + n]
            pos += n
            buffer_updated(n)
            dispatch(on_message, on_event)
        return last

    return run


def engine_out(package: ModuleType, traffic: Traffic) -> Run:
    connection = engine(package, traffic)
    send = connection.send_text if traffic.text else connection.send_binary
    send_fragment = connection.send_fragment
    data_to_send = connection.data_to_send
    messages = traffic.messages
    if traffic.fragments == 1:

        def run() -> Message:
            for message in messages:
                send(message)
                chunks = data_to_send()
            return b"".join(chunks)

        return run

    fragmented = [pieces(message, traffic.fragments) for message in messages]

    def run_fragments() -> Message:
        for message in fragmented:
            end = len(message) - 1
            for i, piece in enumerate(message):
                send_fragment(piece, first=i == 0, fin=i == end)
            chunks = data_to_send()
        return b"".join(chunks)

    return run_fragments


# -- websockets --------------------------------------------------------------------------------------------------------


def websockets(traffic: Traffic) -> Any:
    protocol: Any
    if traffic.server:
        protocol = ServerProtocol(state=State.OPEN)
    else:
        protocol = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN)
    if traffic.deflate:
        settings = {"level": LEVEL, "memLevel": MEM_LEVEL}
        protocol.extensions = [WebsocketsDeflate(False, False, WINDOW_BITS, WINDOW_BITS, settings)]
    return protocol


def without_c(driver: Callable[[Traffic], Run], traffic: Traffic) -> Run:
    """websockets as it is where its extension cannot be built: what our pure build competes with."""
    run = driver(traffic)

    def run_without_c() -> Message:
        in_c = websockets_frames.apply_mask
        websockets_frames.apply_mask = apply_mask_in_python
        try:
            return run()
        finally:
            websockets_frames.apply_mask = in_c

    return run_without_c


def websockets_in(traffic: Traffic) -> Run:
    protocol = websockets(traffic)
    receive_data = protocol.receive_data
    events_received = protocol.events_received
    reads = traffic.reads

    def run() -> Message:
        last: Any = None
        text = False
        parts: list[bytes] = []
        for read in reads:
            receive_data(read)
            for frame in events_received():
                if frame.opcode is not CONT:
                    text = frame.opcode is TEXT
                if frame.fin and not parts:
                    data = frame.data
                else:
                    parts.append(frame.data)
                    if not frame.fin:
                        continue
                    data = b"".join(parts)
                    parts = []
                last = str(data, "utf-8") if text else data
        return last

    return run


def websockets_out(traffic: Traffic) -> Run:
    protocol = websockets(traffic)
    send_text, send_binary, send_continuation = protocol.send_text, protocol.send_binary, protocol.send_continuation
    data_to_send = protocol.data_to_send
    messages: Any = traffic.messages
    text = traffic.text
    if traffic.fragments == 1:

        def run() -> Message:
            for message in messages:
                if text:
                    send_text(message.encode())
                else:
                    send_binary(message)
                chunks = data_to_send()
            return b"".join(chunks)

        return run

    fragmented: Any = [pieces(message, traffic.fragments) for message in messages]

    def run_fragments() -> Message:
        for message in fragmented:
            end = len(message) - 1
            for i, piece in enumerate(message):
                data = piece.encode() if text else piece
                if i:
                    send_continuation(data, fin=i == end)
                elif text:
                    send_text(data, fin=False)
                else:
                    send_binary(data, fin=False)
            chunks = data_to_send()
        return b"".join(chunks)

    return run_fragments


# -- wsproto -----------------------------------------------------------------------------------------------------------


def wsproto(traffic: Traffic) -> Any:
    extensions = []
    if traffic.deflate:
        extension = WsprotoDeflate(client_max_window_bits=WINDOW_BITS, server_max_window_bits=WINDOW_BITS)
        extension._enabled = True
        extensions.append(extension)
    return WsprotoConnection(ConnectionType.SERVER if traffic.server else ConnectionType.CLIENT, extensions)


def wsproto_in(traffic: Traffic) -> Run:
    connection = wsproto(traffic)
    receive_data = connection.receive_data
    events = connection.events
    reads = traffic.reads
    empty: Any = "" if traffic.text else b""

    def run() -> Message:
        last: Any = None
        parts: list[Any] = []
        for read in reads:
            receive_data(read)
            for event in events():
                if event.message_finished and not parts:
                    last = event.data
                else:
                    parts.append(event.data)
                    if event.message_finished:
                        last = empty.join(parts)
                        parts = []
        return last

    return run


def wsproto_out(traffic: Traffic) -> Run:
    connection = wsproto(traffic)
    send = connection.send
    event: Any = TextMessage if traffic.text else BytesMessage
    messages = traffic.messages
    if traffic.fragments == 1:

        def run() -> Message:
            for message in messages:
                chunk = send(event(data=message))
            return chunk

        return run

    fragmented = [pieces(message, traffic.fragments) for message in messages]

    def run_fragments() -> Message:
        for message in fragmented:
            end = len(message) - 1
            chunk = b"".join([send(event(data=p, message_finished=i == end)) for i, p in enumerate(message)])
        return chunk

    return run_fragments


# -- aiohttp -----------------------------------------------------------------------------------------------------------


class Endpoint:
    """Stands for aiohttp's protocol and its transport: takes everything, keeps what is written."""

    _reading_paused = False
    _paused = False

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.write = self.chunks.append

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False


def aiohttp_in(traffic: Traffic) -> Run:
    queue = WebSocketDataQueue(Endpoint(), 2**16, loop=None)
    reader = WebSocketReader(queue, 2**24, traffic.deflate, True)
    feed_data = reader.feed_data
    read_message = queue.read
    waiting = queue._buffer
    reads = traffic.reads
    last: Any = None

    async def receive_all() -> None:
        nonlocal last
        while waiting:
            last = (await read_message()).data

    def run() -> Message:
        for read in reads:
            feed_data(read)
            try:
                receive_all().send(None)  # never suspends: it reads what is there
            except StopIteration:
                pass
        return last

    return run


def aiohttp_out(traffic: Traffic) -> Run:
    endpoint: Any = Endpoint()
    send_frame = WebSocketWriter(endpoint, endpoint, use_mask=not traffic.server).send_frame
    chunks = endpoint.chunks
    messages: Any = traffic.messages
    text = traffic.text
    opcode = WSMsgType.TEXT if text else WSMsgType.BINARY

    def run() -> Message:
        for message in messages:
            chunks.clear()
            try:
                send_frame(message.encode() if text else message, opcode).send(None)
            except StopIteration:
                pass
        return b"".join(chunks)

    return run


# -- round trips by an interface that two libraries have ---------------------------------------------------------------


def importable(ours: str, theirs: str) -> list[tuple[str, str]]:
    """Names of candidates with the packages that they are, ours only if it is there."""
    package = f"wsproto_fast.{ours}"
    try:
        found = find_spec(package) is not None
    except ModuleNotFoundError:
        found = False
    return [(ours, package), (theirs, theirs)] if found else [(theirs, theirs)]


def wsproto_round_trip(package: str, message: Message) -> Run:
    connection = import_module(f"{package}.connection")
    text_message = import_module(f"{package}.events").TextMessage
    client = connection.Connection(connection.ConnectionType.CLIENT)
    server = connection.Connection(connection.ConnectionType.SERVER)

    def run() -> Message:
        server.receive_data(client.send(text_message(data=message)))
        for event in server.events():
            client.receive_data(server.send(text_message(data=event.data)))
        last: Any = None
        for event in client.events():
            last = event.data
        return last

    return run


def websockets_round_trip(package: str, message: Any) -> Run:
    state = import_module(f"{package}.protocol").State.OPEN
    server = import_module(f"{package}.server").ServerProtocol(state=state)
    uri = import_module(f"{package}.uri").parse_uri("ws://localhost/")
    client = import_module(f"{package}.client").ClientProtocol(uri, state=state)

    def run() -> Message:
        client.send_text(message.encode())
        for chunk in client.data_to_send():
            server.receive_data(chunk)
        for frame in server.events_received():
            server.send_text(frame.data)
        for chunk in server.data_to_send():
            client.receive_data(chunk)
        last: Any = None
        for frame in client.events_received():
            last = str(frame.data, "utf-8")
        return last

    return run
