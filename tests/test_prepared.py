"""PreparedMessage: frames as a server writes them, each made once, and the rule that keeps contexts right."""

from __future__ import annotations

import threading
import zlib
from typing import Any

import pytest
from helpers import encode_frame, parse_frames

from wsproto_fast.constants import Opcode, Role
from wsproto_fast.deflate import DeflateParameters, PerMessageDeflate
from wsproto_fast.limits import DeflateConfig
from wsproto_fast.prepared import PreparedMessage

NEWS = b'{"channel": "news", "items": ["one", "two", "three", "four"]}' * 3
TAKEOVER = DeflateParameters(server_max_window_bits=12)
NO_TAKEOVER = DeflateParameters(server_no_context_takeover=True, server_max_window_bits=12)


def server(parameters: DeflateParameters = TAKEOVER, **config: Any) -> PerMessageDeflate:
    return PerMessageDeflate(Role.SERVER, parameters, DeflateConfig(**config))


def client(parameters: DeflateParameters = TAKEOVER) -> PerMessageDeflate:
    return PerMessageDeflate(Role.CLIENT, parameters)


def received(peer: PerMessageDeflate, payload: bytes) -> bytes:
    return peer.decompress(payload, fin=True, max_length=2**20)


@pytest.mark.parametrize(
    ("data", "text", "opcode", "payload"),
    [
        ("", None, Opcode.TEXT, b""),
        ("naïve", None, Opcode.TEXT, b"na\xc3\xafve"),
        ("naïve", True, Opcode.TEXT, b"na\xc3\xafve"),
        ("naïve", False, Opcode.BINARY, b"na\xc3\xafve"),
        (b"\xff", None, Opcode.BINARY, b"\xff"),
        (b"\xff", False, Opcode.BINARY, b"\xff"),
        (b"\xc3\xaf", True, Opcode.TEXT, b"\xc3\xaf"),
        (bytearray(b"ab"), None, Opcode.BINARY, b"ab"),
        (memoryview(b"ab"), True, Opcode.TEXT, b"ab"),
        (b"x" * 125, None, Opcode.BINARY, b"x" * 125),
        (b"x" * 126, None, Opcode.BINARY, b"x" * 126),
        ("x" * 65536, None, Opcode.TEXT, b"x" * 65536),
    ],
)
def test_plain_frame(data: Any, text: bool | None, opcode: Opcode, payload: bytes) -> None:
    prepared = PreparedMessage(data, text=text)
    assert prepared.opcode is opcode
    assert prepared.payload == payload
    assert type(prepared.payload) is bytes
    assert prepared.frame(None) == encode_frame(0x80 | opcode, payload)
    assert type(prepared.frame()) is bytes
    assert prepared.frame() is prepared.frame(None)
    assert repr(prepared) == f"<PreparedMessage {opcode.name} of {len(payload)} bytes>"


@pytest.mark.parametrize(("data", "text"), [(b"\xff", True), (b"\xc3", True), ("\ud800", None), ("\ud800", False)])
def test_text_must_be_utf8(data: Any, text: bool | None) -> None:
    with pytest.raises(UnicodeError):
        PreparedMessage(data, text=text)


@pytest.mark.parametrize("parameters", [TAKEOVER, NO_TAKEOVER], ids=["takeover", "no takeover"])
@pytest.mark.parametrize("data", [b"", b"Hello", NEWS, bytes(10**5)], ids=len)
def test_compressed_frame(data: bytes, parameters: DeflateParameters) -> None:
    deflate = server(parameters)
    [(first, masked, payload)] = parse_frames(PreparedMessage(data).frame(deflate))
    assert (first, masked) == (0xC2, False)
    assert not deflate.active
    assert received(client(parameters), payload) == data
    [(first, _, _)] = parse_frames(PreparedMessage("x").frame(deflate))
    assert first == 0xC1


def test_compressed_once_for_each_way_to_compress(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    compress_once = PerMessageDeflate.compress_once
    monkeypatch.setattr(
        PerMessageDeflate, "compress_once", lambda self, data: calls.append(self) or compress_once(self, data)
    )
    prepared = PreparedMessage(NEWS * 40)
    alike = [server(), server(), server(NO_TAKEOVER), server(threshold=1)]
    assert len({id(prepared.frame(deflate)) for deflate in alike}) == 1
    assert len(calls) == 1
    different = [
        server(DeflateParameters(server_max_window_bits=9)),
        server(level=1),
        server(mem_level=1),
        server(strategy=zlib.Z_HUFFMAN_ONLY),
        server(zlib=zlib),
    ]
    assert len({id(prepared.frame(deflate)) for deflate in [*alike, *different, *different]}) == 6
    assert len(calls) == 6
    assert prepared.frame() == encode_frame(0x82, NEWS * 40)


def test_deflater_must_be_reset_behind_a_prepared_frame() -> None:
    """DESIGN 5: with context takeover, the next message would else inflate to wrong bytes, without an error."""
    prepared = PreparedMessage(b"prepared " * 20)

    def stream(reset: bool) -> list[bytes]:
        deflate, peer = server(), client()
        result = [received(peer, deflate.compress(NEWS))]
        [(_, _, payload)] = parse_frames(prepared.frame(deflate))
        result.append(received(peer, payload))
        if reset:
            deflate.reset_deflater()
        return result + [received(peer, deflate.compress(NEWS)) for _ in range(2)]

    expected = [NEWS, b"prepared " * 20, NEWS, NEWS]
    assert stream(reset=True) == expected
    wrong = stream(reset=False)
    assert wrong != expected  # the danger is real
    assert wrong[2] != NEWS


def test_threads_get_one_frame() -> None:
    prepared = PreparedMessage(NEWS)
    barrier = threading.Barrier(8)
    frames = []

    def run() -> None:
        deflate = server()
        barrier.wait()
        frames.append(prepared.frame(deflate))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(frames) == 8
    assert len({id(frame) for frame in frames}) == 1
