"""Atheris: arbitrary bytes from the peer, in any pieces, through the compiled and the pure engine side by side.

    python fuzz/fuzz_engine.py fuzz/corpus/engine [-max_total_time=60 ...]
    python fuzz/fuzz_engine.py --replay fuzz/corpus/engine    # without atheris
    python fuzz/fuzz_engine.py --seed fuzz/corpus/engine      # writes the seed inputs

The first three bytes set up the connection. Then come steps, each a byte: its low three bits choose what is done, the
others how much of the rest is its argument. Checked: both builds tell the same events and states and send the same
bytes (random masking keys aside), only documented exceptions are raised, payloads are exactly bytes or str, Closed is
the last event, output is frames with at most one Close frame, and no deadline lies in the past.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import atheris
except ImportError:
    atheris = None

DIRECTORY = Path(importlib.util.find_spec("wsproto_fast").origin).parent


class PureFinder(MetaPathFinder):
    """Loads the package a second time, from its ``.py`` files only."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        top, *parts = fullname.split(".")
        if top != "wsproto_fast_pure":
            return None
        base = DIRECTORY.joinpath(*parts)
        if (base / "__init__.py").is_file():
            return importlib.util.spec_from_file_location(
                fullname, base / "__init__.py", submodule_search_locations=[str(base)]
            )
        source = base.with_name(f"{base.name}.py")
        return importlib.util.spec_from_file_location(fullname, source) if source.is_file() else None


sys.meta_path.insert(0, PureFinder())
if atheris is not None and __name__ == "__main__" and not {"--replay", "--seed"} & set(sys.argv):
    with atheris.instrument_imports(include=["wsproto_fast_pure"]):
        pure = importlib.import_module("wsproto_fast_pure")
else:
    pure = importlib.import_module("wsproto_fast_pure")
compiled = importlib.import_module("wsproto_fast")

DELIVERIES = ("message", "frame", "chunk")
SIZES = (2**20, 200, 0, None)


def connect(ws: ModuleType, head: bytes) -> Any:
    """A connection set up by three bytes."""
    role = ws.Role(head[0] & 1)
    deflate = None
    if head[0] & 2:
        keep_none = bool(head[0] & 4)
        parameters = ws.DeflateParameters(keep_none, keep_none, 15, 15)
        deflate = ws.PerMessageDeflate(role, parameters, ws.DeflateConfig(threshold=8))
    limits = ws.Limits(
        max_message_size=SIZES[head[1] & 3],
        max_fragment_size=(None, 100)[head[1] >> 2 & 1],
        max_fragments=(4096, 3)[head[1] >> 3 & 1],
        max_read_ahead=(65536, 60, 0, None)[head[1] >> 4 & 3],
        max_control_rate=(10_000, 4)[head[1] >> 6 & 1],
    )
    return ws.Connection(
        role,
        limits=limits,
        deflate=deflate,
        keepalive=ws.Keepalive(20.0, 20.0) if head[2] & 8 else None,
        delivery=DELIVERIES[(head[2] & 3) % 3],
        decode_text=not head[2] & 4,
        auto_reply=not head[2] & 16,
    )


def said(event: Any) -> Any:
    """The repr of an event, the same for both builds."""
    if event is None:
        return None
    for name in getattr(type(event), "__match_args__", ()):
        value = getattr(event, name)
        assert not isinstance(value, (bytearray, memoryview)), event
        assert not isinstance(value, (bytes, str)) or type(value) in (bytes, str), event
    if type(event).__name__ == "Closed":
        return "Closed", event.code, event.reason, type(event.error).__name__, str(event.error)
    return repr(event)


def frames(wire: bytes, masked: bool) -> list[tuple[int, bytes]]:
    """(first byte, payload) of all that was sent."""
    found = []
    while wire:
        assert wire[1] >> 7 == masked
        length, size = wire[1] & 0x7F, 2
        if length >= 126:
            size = 4 if length == 126 else 10
            length = int.from_bytes(wire[2:size], "big")
        key = wire[size : size + 4] if masked else bytes(4)
        size += 4 * masked
        assert len(wire) >= size + length
        mask = (key * (length // 4 + 1))[:length]
        payload = int.from_bytes(wire[size : size + length], "big") ^ int.from_bytes(mask, "big")
        found.append((wire[0], payload.to_bytes(length, "big")))
        wire = wire[size + length :]
    return found


class Side:
    """One build at work."""

    def __init__(self, ws: ModuleType, head: bytes) -> None:
        self.ws = ws
        self.conn = connect(ws, head)
        self.now = 0.0
        self.output = b""
        self.closed = False

    def tell(self, event: Any) -> Any:
        if event is not None:
            assert not self.closed, "an event after Closed"
            self.closed = type(event).__name__ == "Closed"
        return said(event)

    def take(self, data: str | bytes) -> Any:
        assert type(data) in (str, bytes)
        assert not self.closed
        return data

    def step(self, what: int, data: bytes) -> list[Any]:
        """Do it; returns all that could be seen."""
        conn, seen = self.conn, []
        try:
            if what <= 1:
                conn.receive_data(data)
            elif what == 2:
                view = conn.get_buffer()
                n = min(len(data), len(view))
                view[:n] = data[:n]
                conn.buffer_updated(n)
                seen.append(n)
            elif what == 3:
                seen += [self.tell(event) for event in conn.events()]
            elif what == 4:
                conn.dispatch(lambda data: seen.append(self.take(data)), lambda event: seen.append(self.tell(event)))
            elif what == 5:
                self.rare(data, seen)
            elif what == 6:
                (conn.pause, conn.resume)[len(data) & 1]()
            else:
                seen.append(self.tell(conn.next_event()))
        except self.ws.LocalProtocolError as error:
            seen.append((type(error).__name__, str(error)))
        self.output += b"".join(conn.data_to_send())
        deadline = conn.next_deadline()
        for _ in range(2):  # a flood, and then the Close frame that answers it
            if deadline != 0.0:
                break
            conn.handle_timeout(self.now)
            deadline = conn.next_deadline()
        assert deadline is None or deadline > self.now, (deadline, self.now)
        seen += [conn.state.name, conn.close_transport.name, deadline, conn.has_output, conn.read_ahead_full]
        seen += [conn.close_code, conn.close_reason, repr(conn.close_rcvd), repr(conn.close_sent)]
        seen += [conn.close_rcvd_then_sent, repr(conn.stats)]
        return seen

    def rare(self, data: bytes, seen: list[Any]) -> None:
        conn = self.conn
        what = data[0] % 12 if data else 0
        rest = data[1:]
        if what <= 3:
            self.now += (0.5, 10.0, 20.0, 60.0)[what]
            conn.handle_timeout(self.now)
        elif what == 4:
            conn.receive_eof()
        elif what == 5:
            conn.send_close(1000 + 100 * len(rest), "bye")
        elif what == 6:
            conn.delivery = DELIVERIES[len(rest) % 3]
        elif what == 7:
            conn.send_ping(rest)
        elif what == 8:
            conn.send_fragment(rest[1:], first=len(rest) % 2 == 0, fin=rest[:1] < b"a", text=rest[:1] > b"n")
        elif what == 9:
            conn.send_binary(rest)
        elif what == 10:
            conn.send_text(rest)
        else:
            conn.fail(1011, "failed")


def check(data: bytes) -> None:
    if len(data) < 4:
        return
    sides = [Side(compiled, data), Side(pure, data)]
    i = 3
    for _ in range(300):
        if i >= len(data):
            break
        what, size = data[i] & 7, data[i] >> 3
        if size == 31 and i + 1 < len(data):  # long reads
            i += 1
            size = 31 + data[i]
        argument = data[i + 1 : i + 1 + size]
        if what == 1:  # much of the same: frames as large as the buffers
            argument *= 200
        i += 1 + size
        one, other = (side.step(what, argument) for side in sides)
        assert one == other, (what, argument, one, other)
    for what, argument in ((6, b"x"), (3, b""), (5, b"\x04"), (3, b"")):
        one, other = (side.step(what, argument) for side in sides)
        assert one == other, (what, one, other)
    assert all(side.closed for side in sides)
    # The keepalive's pings hold random bytes.
    sent = [
        [
            (first, b"" if first == 0x89 and len(payload) == 4 else payload)
            for first, payload in frames(side.output, mask)
        ]
        for side, mask in ((side, bool(data[0] & 1)) for side in sides)
    ]
    assert sent[0] == sent[1], sent
    firsts = [first for first, _ in sent[0]]
    assert firsts.count(0x88) <= 1
    if 0x88 in firsts:
        assert set(firsts[firsts.index(0x88) + 1 :]) <= {0x8A}, firsts


# -- seeds ---------------------------------------------------------------------------------


def seeds() -> dict[str, bytes]:
    """Inputs that reach each part of the engine."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (deflater.compress(b"Hello" * 9) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def frame(first: int, payload: bytes = b"", masked: bool = False) -> bytes:
        head = bytes([first, len(payload) | (0x80 if masked else 0)])
        return head + (
            b"\x01\x02\x03\x04" + bytes(b ^ (i % 4 + 1) for i, b in enumerate(payload)) if masked else payload
        )

    def feed(data: bytes, what: int = 0) -> bytes:
        assert len(data) < 31
        return bytes([what | len(data) << 3]) + data

    def rare(data: bytes) -> bytes:
        return bytes([5 | len(data) << 3]) + data

    events, dispatch, pause, one = b"\x03", b"\x04", b"\x06", b"\x07"
    client, server, deflated = b"\x01\x00\x08", b"\x00\x00\x08", b"\x03\x00\x00"
    hello = feed(frame(0x81, b"Hello"))
    return {
        "message": client + hello + events,
        "masked": server + feed(frame(0x81, b"Hello", True)) + dispatch,
        "in_place": server + feed(frame(0x82, b"Hello", True), 2) + events,
        "fragments": client + feed(frame(0x01, b"a") + frame(0x89, b"p") + frame(0x80, b"b")) + events,
        "chunks": b"\x01\x00\x02" + feed(b"\x81\x05\xe2\x82") + one + feed(b"\xacab") + one + one,
        "frames": b"\x01\x00\x01" + feed(frame(0x01, b"\xe2") + frame(0x80, b"\x82\xac")) + events,
        "bad_text": client + feed(b"\x81\x09a\xed\xa0") + events,
        "opcode": client + hello + feed(frame(0x83)) + events,
        "length": client + feed(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00") + b"\xf9xxxxxxxxxxxxxxxxxxxx" + events,
        "close": client + feed(frame(0x88, b"\x03\xe8bye")) + events,
        "we_close": client + rare(b"\x05") + feed(frame(0x88, b"\x03\xe8")) + events + rare(b"\x01") + rare(b"\x02"),
        "keepalive": client + rare(b"\x02") + rare(b"\x02") + rare(b"\x02") + events,
        "flood": b"\x01\x40\x00" + (feed(frame(0x89) * 8) + events) * 3,
        "pause": client + pause + feed(frame(0x81, b"a") + frame(0x89, b"p")) + events + b"\x0e." + events,
        "full": b"\x01\x10\x00" + pause + feed(frame(0x82, b"x" * 28)) * 3 + events + b"\x0e." + events,
        "deflate": deflated + feed(frame(0xC1, packed)) + events + feed(frame(0xC1, packed)) + events,
        "deflate_pieces": deflated + feed(frame(0x41, packed[:4]) + frame(0x80, packed[4:])) + events,
        "deflate_bad": deflated + feed(frame(0xC1, b"\xff\xff\xff")) + events,
        "limits": b"\x01\x0d\x00" + feed(frame(0x02, b"") + frame(0x00) + frame(0x00) + frame(0x80)) + events,
        "sends": server + rare(b"\x07ping") + rare(b"\x09data") + rare(b"\x0atext") + rare(b"\x08zab") + rare(b"\x0b"),
        "no_reply": b"\x01\x00\x10" + feed(frame(0x89, b"p") + frame(0x88, b"\x03\xe8")) + events + rare(b"\x05"),
    }


def main() -> None:
    paths = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if "--seed" in sys.argv:
        for name, data in seeds().items():
            (paths[0] / name).write_bytes(data)
        return
    if not compiled.COMPILED:
        sys.exit("the extensions are not built: there is nothing to compare")
    if "--replay" in sys.argv:
        inputs = [path for folder in paths for path in (sorted(folder.iterdir()) if folder.is_dir() else [folder])]
        for path in inputs:
            check(path.read_bytes())
        print(f"{len(inputs)} inputs passed")
        return
    if atheris is None:
        sys.exit("atheris is not installed; --replay works without it")
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
