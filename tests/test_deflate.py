"""permessage-deflate: negotiation tables, the RFC's own examples, limits, other libraries as peers."""

from __future__ import annotations

import importlib
import json
import random
import sys
import tracemalloc
import zlib
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsproto_fast import deflate
from wsproto_fast.constants import Role
from wsproto_fast.deflate import DeflateParameters, PerMessageDeflate, accept_offer, accept_response, offer
from wsproto_fast.exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    RemoteProtocolError,
)
from wsproto_fast.limits import DeflateConfig

PMD = "permessage-deflate"
FULL = DeflateConfig(server_max_window_bits=15, client_max_window_bits=15)
DEFAULTS = DeflateParameters()
TAIL = b"\x00\x00\xff\xff"
NO_LIMIT = sys.maxsize


def params(text: str) -> list[tuple[str, str | None]]:
    """ "a; b=1" as the handshake's parser hands it over."""
    pairs = [item.strip().partition("=") for item in text.split(";") if item.strip()]
    return [(name, value if equals else None) for name, equals, value in pairs]


def pmd(text: str = "") -> list[tuple[str, list[tuple[str, str | None]]]]:
    return [(PMD, params(text))]


def agreed(text: str) -> DeflateParameters:
    """ "sn cn s=12 c=11" as parameters."""
    values: dict[str, Any] = {}
    for word in text.split():
        name, _, bits = word.partition("=")
        key = {
            "sn": "server_no_context_takeover",
            "cn": "client_no_context_takeover",
            "s": "server_max_window_bits",
            "c": "client_max_window_bits",
        }[name]
        values[key] = int(bits) if bits else True
    return DeflateParameters(**values)


def configured(text: str) -> DeflateConfig:
    parameters = agreed(text)
    return DeflateConfig(
        parameters.server_no_context_takeover,
        parameters.client_no_context_takeover,
        parameters.server_max_window_bits,
        parameters.client_max_window_bits,
    )


BAD_PARAMETERS = [
    ("unknown", InvalidParameterName),
    ("Server_no_context_takeover", InvalidParameterName),
    ("server_no_context_takeover; server_no_context_takeover", DuplicateParameter),
    ("client_no_context_takeover; client_no_context_takeover", DuplicateParameter),
    ("server_max_window_bits=10; server_max_window_bits=10", DuplicateParameter),
    ("client_max_window_bits=10; client_max_window_bits=11", DuplicateParameter),
    ("server_no_context_takeover=1", InvalidParameterValue),
    ("server_no_context_takeover=", InvalidParameterValue),
    ("client_no_context_takeover=true", InvalidParameterValue),
    ("server_max_window_bits", InvalidParameterValue),
    *(
        (f"{side}_max_window_bits={value}", InvalidParameterValue)
        for side in ("server", "client")
        for value in ("", "0", "7", "16", "08", "010", "+9", "-9", "1e1", "9.0", " 9", "9 ", "٩", "999", '"9"')
    ),
]


# Negotiation


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("s=12 c=12", "; server_max_window_bits=12; client_max_window_bits=12"),
        ("", "; client_max_window_bits"),
        ("sn cn", "; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"),
        ("s=8 c=9", "; server_max_window_bits=8; client_max_window_bits=9"),
    ],
)
def test_offer(config: str, expected: str) -> None:
    assert offer(configured(config)) == PMD + expected


@pytest.mark.parametrize(
    ("config", "offered", "result", "response"),
    [
        # nothing asked, nothing wanted
        ("", "", "", ""),
        # 7.1.1.1: the server must comply, or may do so unasked
        ("", "server_no_context_takeover", "sn", "; server_no_context_takeover"),
        ("sn", "", "sn", "; server_no_context_takeover"),
        # 7.1.1.2: a hint of the client, which we take; and an order of ours
        ("", "client_no_context_takeover", "cn", "; client_no_context_takeover"),
        ("cn", "", "cn", "; client_no_context_takeover"),
        # 7.1.2.1: same or smaller value, always confirmed
        ("", "server_max_window_bits=15", "s=15", "; server_max_window_bits=15"),
        ("", "server_max_window_bits=10", "s=10", "; server_max_window_bits=10"),
        ("s=11", "server_max_window_bits=10", "s=10", "; server_max_window_bits=10"),
        ("s=9", "server_max_window_bits=10", "s=9", "; server_max_window_bits=9"),
        ("s=12", "", "s=12", "; server_max_window_bits=12"),
        ("", "server_max_window_bits=8", "s=8", "; server_max_window_bits=8"),
        # 7.1.2.2: only for a client that offered it
        ("c=12", "", "c=15", ""),
        ("c=12", "client_max_window_bits", "c=12", "; client_max_window_bits=12"),
        ("c=12", "client_max_window_bits=11", "c=11", "; client_max_window_bits=11"),
        ("c=12", "client_max_window_bits=13", "c=12", "; client_max_window_bits=12"),
        ("", "client_max_window_bits", "", ""),
        ("", "client_max_window_bits=15", "", ""),
        ("", "client_max_window_bits=8", "c=8", "; client_max_window_bits=8"),
        # any order
        (
            "s=12 c=12",
            "client_max_window_bits; client_no_context_takeover; server_max_window_bits=9; server_no_context_takeover",
            "sn cn s=9 c=12",
            (
                "; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=9; client_max_window_bits=12"
            ),
        ),
    ],
)
def test_accept_offer(config: str, offered: str, result: str, response: str) -> None:
    assert accept_offer(configured(config), pmd(offered)) == (agreed(result), PMD + response)


@pytest.mark.parametrize("text", [text for text, _ in BAD_PARAMETERS])
def test_bad_offer_is_declined_and_the_next_one_taken(text: str) -> None:
    bad = [(PMD, [(name, value) for name, value in raw(text)])]
    assert accept_offer(FULL, bad) is None
    good = pmd("server_max_window_bits=10")
    assert accept_offer(FULL, bad + good) == (agreed("s=10"), f"{PMD}; server_max_window_bits=10")


def raw(text: str) -> list[tuple[str, str | None]]:
    """Like ``params``, but keeps the blanks of a value."""
    pairs = [item.partition("=") for item in text.split("; ")]
    return [(name, value if equals else None) for name, equals, value in pairs]


def test_offers_are_taken_in_order() -> None:
    others: Any = [("x-webkit-deflate-frame", []), ("Permessage-Deflate", [])]
    assert accept_offer(FULL, []) is None
    assert accept_offer(FULL, others) is None
    first = accept_offer(FULL, others + pmd("client_max_window_bits=9") + pmd())
    assert first == (agreed("c=9"), f"{PMD}; client_max_window_bits=9")


@pytest.mark.parametrize(
    ("config", "answer", "result"),
    [
        ("", "", ""),
        # unasked, but binding: 7.1.1.1, 7.1.1.2, 7.1.2.1
        ("", "server_no_context_takeover", "sn"),
        ("", "client_no_context_takeover", "cn"),
        ("", "server_max_window_bits=10", "s=10"),
        ("", "server_max_window_bits=8; client_max_window_bits=8", "s=8 c=8"),
        # asked
        ("sn", "server_no_context_takeover", "sn"),
        ("cn", "", "cn"),
        ("s=12", "server_max_window_bits=12", "s=12"),
        ("s=12", "server_max_window_bits=9", "s=9"),
        ("s=12 c=12", "server_max_window_bits=12; client_max_window_bits=12", "s=12 c=12"),
        # our hint holds without an answer
        ("c=12", "", "c=12"),
        ("c=12", "client_max_window_bits=9", "c=9"),
        ("c=12", "client_max_window_bits=15", "c=12"),  # it allows more than we offered to use: Autobahn does
    ],
)
def test_accept_response(config: str, answer: str, result: str) -> None:
    assert accept_response(configured(config), pmd(answer)) == agreed(result)


@pytest.mark.parametrize(
    ("config", "answer", "error"),
    [
        ("sn", "", NegotiationError),
        ("sn", "client_no_context_takeover", NegotiationError),
        ("s=12", "", NegotiationError),
        ("s=12", "server_max_window_bits=13", NegotiationError),
        ("", "client_max_window_bits", InvalidParameterValue),  # 7.1.2.2: without value only in an offer
        *(("", text, error) for text, error in BAD_PARAMETERS),
    ],
)
def test_bad_response(config: str, answer: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        accept_response(configured(config), [(PMD, raw(answer) if answer else [])])


def test_response_that_was_not_offered() -> None:
    assert accept_response(FULL, []) is None
    for extensions in ([("x-other", [])], [*pmd(), ("x-other", [])], pmd() + pmd()):
        with pytest.raises(NegotiationError):
            accept_response(FULL, extensions)


CONFIGS = [
    configured(f"{takeover} s={server} c={client}")
    for takeover in ("", "sn", "cn", "sn cn")
    for server in (9, 12, 15)
    for client in (9, 12, 15)
]


def websockets_side(role: Role, config: DeflateConfig) -> Any:
    module = pytest.importorskip("websockets.extensions.permessage_deflate")
    names = ("server_no_context_takeover", "client_no_context_takeover")
    names += ("server_max_window_bits", "client_max_window_bits")
    values = {name: getattr(config, name) for name in names}
    factory = module.ServerPerMessageDeflateFactory if role is Role.SERVER else module.ClientPerMessageDeflateFactory
    return factory(**values)


def reparse(header: str) -> list[tuple[str, str | None]]:
    name, _, rest = header.partition(";")
    assert name == PMD
    return params(rest)


def same_agreement(theirs: Any, ours: DeflateParameters, role: Role) -> None:
    """``theirs`` is the websockets extension on the other side; ``role`` is ours."""
    remote_no_takeover, remote_bits = theirs.remote_no_context_takeover, theirs.remote_max_window_bits
    local_no_takeover, local_bits = theirs.local_no_context_takeover, theirs.local_max_window_bits
    if role is Role.SERVER:
        assert ours == DeflateParameters(remote_no_takeover, local_no_takeover, remote_bits, local_bits)
    else:
        assert ours == DeflateParameters(local_no_takeover, remote_no_takeover, local_bits, remote_bits)


@pytest.mark.parametrize("theirs", CONFIGS[::3], ids=str)
def test_negotiation_with_websockets(theirs: DeflateConfig) -> None:
    agreements = 0
    for config in CONFIGS:
        server = websockets_side(Role.SERVER, theirs)
        response, extension = server.process_request_params(reparse(offer(config)), [])
        ours = accept_response(config, [(PMD, response)])
        assert ours is not None
        same_agreement(extension, ours, Role.CLIENT)

        client = websockets_side(Role.CLIENT, theirs)
        accepted = accept_offer(config, [(PMD, client.get_request_params())])
        assert accepted is not None
        extension = client.process_response_params(reparse(accepted[1]), [])
        same_agreement(extension, accepted[0], Role.SERVER)
        agreements += 2
    assert agreements == 2 * len(CONFIGS)


@pytest.mark.parametrize("server", CONFIGS, ids=str)
def test_negotiation_with_ourselves(server: DeflateConfig) -> None:
    for client in CONFIGS:
        extension, response = accept_offer(server, [(PMD, reparse(offer(client)))]) or (None, "")
        assert extension == accept_response(client, [(PMD, reparse(response))])


# Messages


@pytest.fixture(params=["zlib", "zlib_ng.zlib_ng", "isal.isal_zlib"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    pytest.importorskip(request.param.partition(".")[0])
    return importlib.import_module(request.param)


def other_zlib(module: ModuleType) -> Any:
    return None if module is zlib else module


def pair(parameters: DeflateParameters = DEFAULTS, **config: Any) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    settings = DeflateConfig(**config)
    return (
        PerMessageDeflate(Role.SERVER, parameters, settings),
        PerMessageDeflate(Role.CLIENT, parameters, settings),
    )


def receiver(text: str = "", module: ModuleType = zlib) -> PerMessageDeflate:
    return PerMessageDeflate(Role.SERVER, agreed(text), DeflateConfig(zlib=other_zlib(module)))


def inflate(context: PerMessageDeflate, *pieces: bytes, max_length: int = 2**20) -> bytes:
    """A whole message; the last piece is its end."""
    result = b""
    for i, piece in enumerate(pieces, 1):
        output = context.decompress(piece, fin=i == len(pieces), max_length=max_length - len(result))
        assert type(output) is bytes
        result += output
    return result


def every_split(wire: bytes) -> list[list[bytes]]:
    splits = [[wire], [wire, b""], [b"", wire], [wire[i : i + 1] for i in range(len(wire))]]
    return splits + [[wire[:i], wire[i:]] for i in range(1, len(wire))]


def documents(count: int, seed: int = 0) -> list[bytes]:
    """Messages of many sizes that share much of their text."""
    rng = random.Random(seed)
    words = ["subscribe", "channel", "price", "volume", "timestamp", "ok", "error", "naïve", "日本"]
    result = [b"", b"x", rng.randbytes(5000), b"a" * 70_000]
    while len(result) < count:
        rows = [{rng.choice(words): rng.randrange(10**6)} for _ in range(int(rng.paretovariate(0.7)) % 900)]
        result.append(json.dumps(rows, ensure_ascii=False).encode())
    rng.shuffle(result)
    return result


JSON = json.dumps([{"id": i * i, "name": f"user{i % 17}"} for i in range(150)]).encode()
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ("f2 48 cd c9 c9 07 00", b"Hello"),  # 7.2.3.1
        ("00 05 00 fa ff 48 65 6c 6c 6f 00", b"Hello"),  # 7.2.3.3
        ("f3 48 cd c9 c9 07 00 00", b"Hello"),  # 7.2.3.4, BFINAL
        ("f3 48 cd c9 c9 07 00", b"Hello"),  # the same, its last byte forgotten
        ("f2 48 05 00 00 00 ff ff ca c9 c9 07 00", b"Hello"),  # 7.2.3.5
        ("00", b""),  # 7.2.3.6
        ("02 00", b""),  # isal's empty message, and any with an empty block of fixed codes
        ("01 00 00 ff ff 00", b""),
        ("", b""),  # no byte where one should be
        ("f3 48 cd c9 c9 07 00 f3 48 cd c9 c9 07 00 00", b"HelloHello"),
        ("f3 48 cd c9 c9 07 00 01 00 00 ff ff 01 00 00 ff ff f2 00 11 00 00", b"HelloHello"),
    ],
)
@pytest.mark.parametrize("takeover", ["", "cn"])
def test_examples_of_the_rfc(wire: str, message: bytes, takeover: str, module: ModuleType) -> None:
    for pieces in every_split(bytes.fromhex(wire)):
        context = receiver(takeover, module)
        for _ in range(3):  # RFC 7692 7.2.3.2: and the context stands where it should afterwards
            assert inflate(context, *pieces) == message
            assert inflate(context, HELLO) == b"Hello"
            if not takeover and message:
                assert inflate(context, bytes.fromhex("f2 00 11 00 00")) == b"Hello"  # 7.2.3.2


def test_sharing_the_window() -> None:
    sender, peer = pair()
    assert sender.compress(b"Hello") == HELLO
    second = sender.compress(b"Hello")
    assert second == bytes.fromhex("f2 00 11 00 00")  # 7.2.3.2
    assert inflate(peer, HELLO) == b"Hello"
    assert inflate(peer, second) == b"Hello"
    sender, peer = pair(agreed("sn"))
    assert [sender.compress(b"Hello") for _ in range(3)] == [HELLO] * 3


@pytest.mark.parametrize("takeover", ["", "sn"])
def test_compress_once_refers_to_nothing(takeover: str, module: ModuleType) -> None:
    sender, _ = pair(agreed(takeover), zlib=other_zlib(module))
    fresh, _ = pair(agreed(takeover), zlib=other_zlib(module))
    assert sender.compress_once(b"") == b"\x00"
    assert not sender.active
    sender.compress(JSON)
    for message in documents(20):
        wire = sender.compress_once(message)
        assert wire == fresh.compress(message)
        assert inflate(receiver(), wire) == message
        fresh.reset_deflater()
    assert len(sender.compress(JSON)) < len(fresh.compress(JSON)) / 2 or takeover  # its own context is untouched


def test_empty_messages_and_frames() -> None:
    for text in ("", "sn"):
        sender, peer = pair(agreed(text))
        assert not sender.active
        assert sender.compress(b"") == b"\x00"  # 7.2.3.6
        assert not sender.active
        assert inflate(peer, b"\x00") == b""
        frames = [sender.compress(part, fin=False) for part in (b"", b"ab", b"", b"ab" * 9)] + [sender.compress(b"")]
        assert frames[0] == b"\x00" + TAIL
        assert frames[-1] == b"\x00"
        assert all(frame.endswith(TAIL) for frame in frames[:-1])
        assert inflate(peer, *frames) == b"ab" * 10
        assert sender.active is (text == "")
        for _ in range(2):
            assert inflate(peer, sender.compress(b"after")) == b"after"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_compress_takes_any_buffer(kind: Any) -> None:
    sender, peer = pair()
    for data in (b"", b"some data " * 20):
        wire = sender.compress(kind(data))
        assert type(wire) is bytes
        assert inflate(peer, wire) == data


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("takeover", ["", "sn"])
@pytest.mark.parametrize("level", [None, 0, 1, 3])
def test_every_window_and_module(bits: int, takeover: str, level: int | None, module: ModuleType) -> None:
    """What we compress keeps inside the window: the judge is the standard zlib with exactly that window."""
    parameters = agreed(f"{takeover} s={bits}")
    sender, peer = pair(parameters, zlib=other_zlib(module), level=level)
    judge = zlib.decompressobj(-bits)
    for message in documents(30, seed=bits):
        frames = [sender.compress(part, fin=False) for part in (message[:100], message[100:9000])]
        frames.append(sender.compress(message[9000:]))
        if takeover:
            judge = zlib.decompressobj(-bits)
        assert judge.decompress(b"".join(frames) + TAIL) == message
        assert inflate(peer, *frames) == message


def test_level_memory_and_strategy_reach_zlib() -> None:
    text = JSON * 3
    sizes = [
        len(pair(mem_level=8, **config)[0].compress(text))
        for config in ({"level": 9}, {"level": 1}, {"strategy": zlib.Z_HUFFMAN_ONLY}, {"level": 0})
    ]
    assert sizes == sorted(set(sizes))
    default, _ = pair()
    expected = zlib.compressobj(-1, zlib.DEFLATED, -15, 5)
    assert default.compress(text) == (expected.compress(text) + expected.flush(zlib.Z_SYNC_FLUSH))[:-4]
    with pytest.raises(ValueError):
        pair(level=42)[0].compress(b"x")


def test_eight_bits_look_back_one_byte() -> None:
    """The module's promise for peers with a window of 256 bytes, whatever the configured module and level."""
    rng = random.Random(8)
    block = rng.randbytes(40)
    sender, _ = pair(agreed("s=8"), level=9, strategy=zlib.Z_FIXED)
    judge = zlib.decompressobj(-8)
    for distance in (41, 255, 256, 257, 300, 506, 512):
        message = block + rng.randbytes(distance - 40) + block
        wire = sender.compress(message)
        assert len(wire) >= len(message)  # no reference to the first block
        assert judge.decompress(wire + TAIL) == message
    assert len(sender.compress(b"a" * 5000)) < 100


def test_peer_with_eight_bits_may_look_back_further(module: ModuleType) -> None:
    """A library that takes 9 bits for 8 has promised 256 bytes and may use 506."""
    block = random.Random(8).randbytes(400)
    peer = zlib.compressobj(9, zlib.DEFLATED, -10)
    first, second = ((peer.compress(block) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    assert len(second) < 20
    context = receiver("c=8", module)
    assert [inflate(context, first), inflate(context, second)] == [block, block]


# Errors


def cut_messages() -> list[bytes]:
    sender, _ = pair()
    stored = b"\x00\x05\x00\xfa\xffHello\x00"
    dynamic = sender.compress(JSON)[:200]
    return [HELLO[:i] for i in range(1, len(HELLO))] + [stored[:i] for i in range(2, 10)] + [dynamic]


@pytest.mark.parametrize(
    "wire",
    [
        b"\x07",  # block type 3
        b"\xff" * 10,
        bytes.fromhex("f2 00 11 00 00"),  # looks back before the first byte
        b"\x00\x05\x00\xfa\xfeHello\x00",  # stored block, wrong complement
        HELLO + b"\x06",  # garbage behind the message
        HELLO[:-1] + b"\x00" + TAIL,  # the tail left on
        HELLO + TAIL + b"Hello",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x07",  # garbage behind a block with BFINAL set
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x02",  # and a cut block
        *cut_messages(),
    ],
    ids=bytes.hex,
)
@pytest.mark.parametrize("takeover", ["", "cn"])
def test_corrupt_data(wire: bytes, takeover: str, module: ModuleType) -> None:
    for pieces in every_split(wire)[:20]:
        context = receiver(takeover, module)
        with pytest.raises(RemoteProtocolError) as info:
            inflate(context, *pieces)
        assert info.value.code == 1002
        assert type(info.value) is RemoteProtocolError
        assert str(info.value) in ("decompression failed", "compressed message ends inside a block")


def test_probe_finds_the_end_of_a_stream_in_its_own_bytes() -> None:
    """A cut block that the probe completes, to a block with BFINAL set, is still a cut block."""
    context = receiver()
    with pytest.raises(RemoteProtocolError, match="inside a block"):
        inflate(context, b"\x01")  # stored, final: the tail is its length, and it is empty


def test_window_is_enforced(module: ModuleType) -> None:
    noise = random.Random(1).randbytes(3000)
    sender = PerMessageDeflate(Role.CLIENT, DEFAULTS)
    first, second = sender.compress(noise), sender.compress(noise)
    small, large = receiver("c=9", module), receiver("c=12", module)
    assert [inflate(large, first), inflate(large, second)] == [noise, noise]
    assert inflate(small, first) == noise
    with pytest.raises(RemoteProtocolError, match="decompression failed"):
        inflate(small, second)


# Limits


def zeros(size: int) -> bytes:
    peer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (peer.compress(bytes(size)) + peer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def final(data: bytes, *, more: bytes = b"", zdict: bytes = b"") -> bytes:
    """One stream that ends with BFINAL set, and what follows it."""
    peer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=zdict)
    return peer.compress(data) + peer.flush(zlib.Z_FINISH) + more


@pytest.mark.parametrize("size", [1, 2, 257, 258, 259, 4096, 16384, 32768, 65537, 2**20])
@pytest.mark.parametrize("shape", ["one block", "final block", "two streams"])
def test_limit_is_exact(size: int, shape: str, module: ModuleType) -> None:
    if shape == "one block":
        wire = zeros(size)
    elif shape == "final block":
        wire = final(bytes(size), more=b"\x00")
    else:
        wire = final(bytes(size // 2), more=final(bytes(size - size // 2), more=b"\x00"))
    for pieces in ([wire], [wire, b""], [wire[:5], wire[5:]], [wire[:-1], wire[-1:]]):
        assert inflate(receiver("", module), *pieces, max_length=size) == bytes(size)
        assert inflate(receiver("cn", module), *pieces, max_length=NO_LIMIT) == bytes(size)
        with pytest.raises(PayloadTooBig) as info:
            inflate(receiver("", module), *pieces, max_length=size - 1)
        assert info.value.code == 1009
        assert info.value.size is None
        assert info.value.max_size <= size - 1


def test_limit_zero(module: ModuleType) -> None:
    """ "0 bytes left" never means "no limit", and neither does a caller's miscount."""
    context = receiver("", module)
    assert inflate(context, b"\x00", max_length=0) == b""
    assert inflate(context, b"\x00", b"", max_length=0) == b""
    for wire in (b"\x00\x01\x00\xfe\xff!\x00", zeros(10**7), final(b"!")):
        with pytest.raises(PayloadTooBig) as info:
            inflate(receiver("", module), wire, max_length=0)
        assert info.value.max_size == 0
    with pytest.raises(ValueError):
        context.decompress(b"\x00", fin=True, max_length=-1)
    # exactly full after the first piece
    with pytest.raises(PayloadTooBig):
        inflate(receiver("", module), b"\x00\x01\x00\xfe\xff!", zeros(10**7), max_length=1)


@pytest.mark.parametrize("limit", [NO_LIMIT - 1, NO_LIMIT, NO_LIMIT + 1, 2**70])
def test_no_limit(limit: int, module: ModuleType) -> None:
    context = receiver("", module)
    for wire, size in ((zeros(10**6), 10**6), (final(bytes(99), more=final(bytes(99))), 198)):
        assert context.decompress(wire, fin=True, max_length=limit) == bytes(size)


class Recorder:
    """A zlib module that notes how it is called."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.limits: list[int] = []
        self.windows: list[Any] = []
        self.copied = 0  # bytes behind final blocks

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def decompressobj(self, wbits: int, zdict: Any) -> Any:
        self.windows.append(zdict)
        inner = self.module.decompressobj(wbits, zdict)
        proxy = SimpleNamespace(eof=False, unused_data=b"")

        def decompress(data: Any, max_length: int) -> bytes:
            self.limits.append(max_length)
            output: bytes = inner.decompress(data, max_length)
            proxy.eof, proxy.unused_data = inner.eof, inner.unused_data
            self.copied += len(inner.unused_data)
            return output

        proxy.decompress = decompress
        return proxy


@pytest.mark.parametrize("shape", ["stored", "fixed", "dynamic"])
def test_zlib_is_never_called_without_limit(shape: str, module: ModuleType) -> None:
    """A final block that fills the limit to its last byte, one more or one less, and a bomb behind it."""
    data = {"stored": b"abc", "fixed": b"Hello", "dynamic": JSON}[shape]
    level = 0 if shape == "stored" else 9
    peer = zlib.compressobj(level, zlib.DEFLATED, -15)
    stream = peer.compress(data) + peer.flush(zlib.Z_FINISH)
    for behind in (zeros(10**6), final(bytes(10**6)), stream + zeros(10**6)):
        for limit in {0, len(data) - 1, len(data), len(data) + 1, 2 * len(data) - 1, 2 * len(data)}:
            for pieces in ([stream + behind], [stream, behind], [stream[:-1], stream[-1:] + behind]):
                recorder = Recorder(module)
                context = PerMessageDeflate(Role.SERVER, DEFAULTS, DeflateConfig(zlib=recorder))
                with pytest.raises(PayloadTooBig):
                    inflate(context, *pieces, max_length=limit)
                assert 0 < min(recorder.limits) <= max(recorder.limits) <= limit + 1


def test_inflater_does_not_keep_a_second_window(module: ModuleType) -> None:
    recorder = Recorder(module)
    context = PerMessageDeflate(Role.SERVER, DEFAULTS, DeflateConfig(zlib=recorder))
    sender = PerMessageDeflate(Role.CLIENT, DEFAULTS)
    for _ in range(3):
        assert inflate(context, sender.compress(JSON)) == JSON
        context.release()
    assert [len(window) for window in recorder.windows] == [0, 0, 0]  # 0 by now


@pytest.mark.parametrize("many_streams", [False, True])
def test_bomb_memory(many_streams: bool, module: ModuleType) -> None:
    limit = 2**20
    wire = b"".join([final(bytes(2 * 10**6))] * 50) if many_streams else zeros(10**8)
    assert len(wire) < 110_000
    for pieces in ([wire], [wire[i : i + 1000] for i in range(0, len(wire), 1000)]):
        context = receiver("", module)
        tracemalloc.start()
        try:
            with pytest.raises(PayloadTooBig):
                inflate(context, *pieces, max_length=limit)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < limit + 2**23


# Blocks with BFINAL set


def test_final_blocks_are_bounded(module: ModuleType) -> None:
    stream = b"\x01\x00\x00\xff\xff"
    bound = deflate._MAX_FINAL_BLOCKS
    for pieces in ([stream * bound], [stream] * bound, [stream * 96] + [stream, b""] * (bound - 96)):
        context = receiver("", module)
        for _ in range(2):  # a count per message
            assert inflate(context, *pieces) == b""
        with pytest.raises(RemoteProtocolError, match="too many final blocks") as info:
            inflate(context, *pieces, stream)
        assert info.value.code == 1009


def test_final_blocks_take_linear_time() -> None:
    """4096 streams before a megabyte of data: what follows is not copied once per stream."""
    recorder = Recorder(zlib)
    context = PerMessageDeflate(Role.SERVER, DEFAULTS, DeflateConfig(zlib=recorder))
    wire = b"\x01\x00\x00\xff\xff" * 4096 + (b"\x00\xff\xff\x00\x00" + bytes(65535)) * 15 + b"\x00"
    assert inflate(context, wire) == bytes(15 * 65535)
    assert recorder.copied < 25 * 2**20


def test_window_goes_on_behind_a_final_block(module: ModuleType) -> None:
    """Messages that point back over final blocks and messages; lengths around one and two windows."""
    rng = random.Random(5)
    context = receiver("c=9", module)
    seen = b""
    for size in (600, 300, 100, 511, 512, 513, 1023, 1024, 1025, 1, 0, 250, 5000, 7):
        for _ in range(3):
            part = rng.randbytes(size // 2)
            message = part + seen[-(size - size // 2) :] if size > 1 else part
            stream = zlib.compressobj(9, zlib.DEFLATED, -9, zdict=seen[-512:])
            wire = stream.compress(message) + stream.flush(zlib.Z_FINISH) + b"\x00"
            assert inflate(context, wire) == message
            seen += message
            assert sum(map(len, context._recent)) <= 1024 + 512
            if rng.random() < 0.3:
                context.release()


class Sender:
    """A peer that ends its blocks as told: with a sync flush, or BFINAL and a fresh stream over the same window."""

    def __init__(self, bits: int, takeover: bool) -> None:
        self.bits = bits
        self.takeover = takeover
        self.seen = b""

    def message(self, parts: list[tuple[bytes, bool, int]]) -> bytes:
        wire = b""
        if not self.takeover:
            self.seen = b""
        stream: Any = None
        for data, is_final, level in parts:
            if stream is None:
                stream = zlib.compressobj(level, zlib.DEFLATED, -self.bits, zdict=self.seen[-(1 << self.bits) :])
            wire += stream.compress(data) + stream.flush(zlib.Z_FINISH if is_final else zlib.Z_SYNC_FLUSH)
            self.seen += data
            stream = None if is_final else stream
        return wire + b"\x00"


texts = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda data, n: data * n, st.binary(min_size=1, max_size=300), st.integers(1, 40)),
    st.builds(lambda seed, n: random.Random(seed).randbytes(n), st.integers(0, 3), st.integers(0, 3000)),
)
part_lists = st.lists(st.tuples(texts, st.booleans(), st.integers(0, 9)), max_size=5)


@settings(deadline=None, max_examples=300)
@given(
    messages=st.lists(part_lists, max_size=6),
    bits=st.sampled_from([9, 10, 15]),
    takeover=st.booleans(),
    name=st.sampled_from(["zlib", "zlib_ng.zlib_ng", "isal.isal_zlib"]),
    rng=st.randoms(use_true_random=False),
)
def test_any_split_inflates_to_the_same(
    messages: list[list[tuple[bytes, bool, int]]], bits: int, takeover: bool, name: str, rng: random.Random
) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError:
        module = zlib
    sender = Sender(bits, takeover)
    context = receiver(f"{'' if takeover else 'cn'} c={bits}", module)
    for parts in messages:
        wire = sender.message(parts)
        expected = b"".join(data for data, _, _ in parts)
        cuts = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.randrange(6)))
        pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        assert inflate(context, *pieces, max_length=len(expected)) == expected
        if rng.random() < 0.2:
            context.release()


# Contexts


def test_release(module: ModuleType) -> None:
    sender, peer = pair(agreed("s=10 c=10"), zlib=other_zlib(module))
    messages = documents(60)
    for i, message in enumerate(messages):
        assert inflate(peer, sender.compress(message)) == message
        assert sender.active >= bool(message)
        assert peer.active
        if i % 3 == 0:
            sender.release()
            assert not sender.active
        if i % 2 == 0:
            peer.release()  # the sender's window goes on
            assert not peer.active
            peer.release()
            assert sum(map(len, peer._recent)) <= 1024


@pytest.mark.parametrize("takeover", ["", "sn"])
def test_release_inside_a_message(takeover: str) -> None:
    sender, peer = pair(agreed(takeover))
    text = b"the same words again and again; "
    wire = b""
    for _ in range(4):
        wire += sender.compress(text, fin=False)
        sender.release()  # legal between two frames: whatever follows points nowhere
    wire += sender.compress(text)
    half = len(wire) // 2
    first = peer.decompress(wire[:half], fin=False, max_length=1000)
    peer.release()
    assert peer.active  # there is a block to finish
    assert first + peer.decompress(wire[half:], fin=True, max_length=1000) == text * 5
    assert peer.active is (takeover == "")
    peer.release()
    assert not peer.active


def test_contexts_live_as_long_as_agreed() -> None:
    for role, deflate_stays, inflate_stays, text in [
        (Role.SERVER, True, True, ""),
        (Role.SERVER, False, True, "sn"),
        (Role.SERVER, True, False, "cn"),
        (Role.CLIENT, True, False, "sn"),
        (Role.CLIENT, False, True, "cn"),
    ]:
        context = PerMessageDeflate(role, agreed(text))
        assert not context.active
        context.compress(b"Hello")
        assert context.active is deflate_stays
        context.reset_deflater()
        assert not context.active
        assert inflate(context, HELLO[:3], HELLO[3:]) == b"Hello"
        assert context.active is inflate_stays
        assert not context._started
        assert bool(context._recent) is inflate_stays
        assert (context._room == 2 * context._window) is not inflate_stays


def test_roles_use_their_own_window() -> None:
    parameters = agreed("s=9 c=11")
    assert PerMessageDeflate(Role.SERVER, parameters).profile[0] == 9
    assert PerMessageDeflate(Role.CLIENT, parameters).profile[0] == 11
    assert PerMessageDeflate(Role.SERVER, parameters)._window == 2048
    assert PerMessageDeflate(Role.CLIENT, parameters)._window == 512


def test_memory_of_a_context_is_bounded() -> None:
    context = receiver("c=12")
    sender = PerMessageDeflate(Role.CLIENT, agreed("c=12"))
    for message in [b"", b"x"] * 2000 + [bytes([i % 256]) * 37 for i in range(3000)] + [bytes(10**6)] + documents(50):
        assert inflate(context, sender.compress(message)) == message
        assert sum(sys.getsizeof(piece) for piece in context._recent) <= 2 * 4096 + 64


def test_idle_memory() -> None:
    """Bytes a connection holds. zlib's own share: deflate 12/5 about 38 KiB, inflate 12 about 11 KiB."""

    def held(count: int, use: Any) -> float:
        parameters = agreed("s=12 c=12")
        warm = use(PerMessageDeflate(Role.SERVER, parameters))
        tracemalloc.start()
        try:
            contexts = [use(PerMessageDeflate(Role.SERVER, agreed("s=12 c=12"))) for _ in range(count)]
            return (tracemalloc.get_traced_memory()[0]) / len(contexts)
        finally:
            tracemalloc.stop()
            del warm

    message = b"%a" % list(range(230))
    wire = PerMessageDeflate(Role.CLIENT, agreed("c=12")).compress(message)

    def use(context: PerMessageDeflate) -> PerMessageDeflate:
        context.compress(message)
        inflate(context, wire)
        return context

    def release(context: PerMessageDeflate) -> PerMessageDeflate:
        use(context).release()
        return context

    assert held(100, lambda context: context) < 400
    assert held(50, use) < 2**16
    assert held(50, release) < 4096 + 700


# Other libraries as peers

COMBINATIONS = [f"{takeover} s={server} c={client}" for takeover in ("", "sn", "cn", "sn cn")
                for server, client in ((9, 15), (12, 12), (15, 9), (15, 15))]  # fmt: skip


@pytest.mark.parametrize("text", COMBINATIONS)
@pytest.mark.parametrize("role", list(Role))
def test_websockets_as_peer(text: str, role: Role, module: ModuleType) -> None:
    theirs = pytest.importorskip("websockets.extensions.permessage_deflate")
    frames = pytest.importorskip("websockets.frames")
    parameters = agreed(text)
    ours = PerMessageDeflate(role, parameters, DeflateConfig(zlib=other_zlib(module), level=1))
    no_takeover = (parameters.client_no_context_takeover, parameters.server_no_context_takeover)
    bits = (parameters.client_max_window_bits, parameters.server_max_window_bits)
    if role is Role.SERVER:
        no_takeover, bits = no_takeover[::-1], bits[::-1]
    peer = theirs.PerMessageDeflate(*no_takeover, *bits)
    for message in documents(60):
        wire = ours.compress(message[:50], fin=False), ours.compress(message[50:])
        decoded = [
            peer.decode(frames.Frame(opcode, payload, fin, opcode != 0)).data
            for opcode, fin, payload in ((frames.Opcode.BINARY, False, wire[0]), (frames.Opcode.CONT, True, wire[1]))
        ]
        assert b"".join(decoded) == message

        encoded = [
            bytes(peer.encode(frames.Frame(opcode, payload, fin)).data)
            for opcode, fin, payload in (
                (frames.Opcode.BINARY, False, message[:50]),
                (frames.Opcode.CONT, True, message[50:]),
            )
        ]
        assert inflate(ours, *encoded, max_length=len(message)) == message


@pytest.mark.parametrize("text", COMBINATIONS)
@pytest.mark.parametrize("role", list(Role))
def test_wsproto_as_peer(text: str, role: Role) -> None:
    theirs = pytest.importorskip("wsproto.extensions")
    frames = pytest.importorskip("wsproto.frame_protocol")
    parameters = agreed(text)
    ours = PerMessageDeflate(role, parameters)
    peer = theirs.PerMessageDeflate(
        parameters.client_no_context_takeover,
        parameters.client_max_window_bits,
        parameters.server_no_context_takeover,
        parameters.server_max_window_bits,
    )
    proto: Any = SimpleNamespace(client=role is Role.SERVER)
    compressed, plain = frames.RsvBits(True, False, False), frames.RsvBits(False, False, False)
    for message in documents(60):
        wire = ours.compress(message)
        peer.frame_inbound_header(proto, frames.Opcode.BINARY, compressed, len(wire))
        decoded = peer.frame_inbound_payload_data(proto, wire)
        assert decoded + peer.frame_inbound_complete(proto, True) == message

        _, encoded = peer.frame_outbound(proto, frames.Opcode.BINARY, plain, message, True)
        assert inflate(ours, encoded, max_length=len(message)) == message
