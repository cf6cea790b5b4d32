"""The parts of our façade of websockets: frames, headers, extensions, names; each beside the original."""

from __future__ import annotations

import importlib
import itertools
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets_twins import MODULES, ORIGINAL, OURS, plain, tried

import wsproto_fast
from wsproto_fast import constants

BOTH = (ORIGINAL, OURS)
PACKAGE = "wsproto_fast.compat.websockets"

# -- frames --------------------------------------------------------------------

opcodes = st.sampled_from([0, 1, 2, 8, 9, 10])
payloads = st.one_of(
    st.binary(max_size=30),
    st.binary(min_size=290, max_size=330),
    st.text(max_size=200).map(str.encode),
    st.text(alphabet="aé€😀\n", min_size=70, max_size=330).map(str.encode),
    st.integers(0, 6000).map(lambda code: code.to_bytes(2, "big") + b"reason"),
    st.text(alphabet="é€😀", min_size=1, max_size=9).flatmap(
        lambda text: st.integers(0, len(text.encode())).map(lambda cut: text.encode()[cut:])
    ),
    st.text(alphabet="é€😀", min_size=1, max_size=200).map(lambda text: text.encode()[:-1]),
)


def frames_of(arguments: tuple[Any, ...]) -> list[Any]:
    return [lib.frames.Frame(lib.frames.Opcode(arguments[0]), *arguments[1:]) for lib in BOTH]


@given(opcodes, payloads, st.booleans(), st.sampled_from([bytes, bytearray, memoryview]))
def test_frame_as_a_line(opcode: int, payload: bytes, fin: bool, kind: Any) -> None:
    if opcode == 8 and kind is memoryview:
        return  # no Close frame has such a payload: the original asserts it
    if not fin and payload and all(byte & 0xC0 == 0x80 for byte in payload[-4:]):
        return  # continues characters that never began: the original takes it for text
    theirs, ours = frames_of((opcode, kind(payload), fin))
    assert str(ours) == str(theirs)


@given(opcodes, payloads, st.booleans(), st.booleans(), st.booleans())
def test_frame_on_the_wire(opcode: int, payload: bytes, fin: bool, rsv1: bool, rsv3: bool) -> None:
    theirs, ours = frames_of((opcode, payload, fin, rsv1, False, rsv3))
    for frame in (theirs, ours):
        wire = tried(lambda frame=frame: frame.serialize(mask=False))
        assert wire == tried(lambda: theirs.serialize(mask=False))
    masked = tried(lambda: ours.serialize(mask=True))
    if isinstance(masked[0], bytes):
        assert plain(parsed(ORIGINAL, masked[0], mask=True)[0]) == plain(theirs)
        assert plain(parsed(OURS, masked[0], mask=True)[0]) == plain(ours)


def parsed(lib: Any, wire: bytes, **arguments: Any) -> list[Any]:
    """What ``Frame.parse`` makes of ``wire``, or why nothing."""
    reader = lib.streams.StreamReader()
    parser = lib.frames.Frame.parse(reader.read_exact, **arguments)
    try:
        for i in range(len(wire)):
            next(parser)
            reader.feed_data(wire[i : i + 1])
        next(parser)
    except StopIteration as stop:
        return [stop.value]
    except Exception as exc:
        return [plain(exc)]
    return [None]


@pytest.mark.parametrize(
    ("wire", "arguments"),
    [
        (b"\x83\x00", {"mask": False}),
        (b"\x81\x80", {"mask": False}),
        (b"\x81\x00", {"mask": True}),
        (b"\x82\x05hello", {"mask": False, "max_size": 4}),
        (b"\x82\x05hello", {"mask": False, "max_size": 5}),
        (b"\x82\x05hell", {"mask": False}),
        (b"\xc2\x00", {"mask": False}),
        (b"\x09\x00", {"mask": False}),
        (b"\x82\x7e\x00\x7e" + bytes(126), {"mask": False}),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), {"mask": False}),
        (b"\x89\x7e\x00\x7e" + bytes(126), {"mask": False}),
    ],
)
def test_frame_from_the_wire(wire: bytes, arguments: dict[str, Any]) -> None:
    assert plain(parsed(OURS, wire, **arguments)) == plain(parsed(ORIGINAL, wire, **arguments))


def test_frame_that_holds_text() -> None:
    for lib in BOTH:
        with pytest.raises(TypeError, match="bytes-like object is required"):
            lib.frames.Frame(lib.frames.TEXT, "text").serialize(mask=False)


@pytest.mark.parametrize(
    "payload", [b"", b"\x03", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", b"\x03\xe8\xff", b"\x0f\xa0\xc3\xa9"]
)
def test_close_from_a_payload(payload: bytes) -> None:
    theirs, ours = (tried(lambda lib=lib: lib.frames.Close.parse(payload)) for lib in BOTH)
    assert ours == theirs


@pytest.mark.parametrize("code", [999, 1000, 1004, 1005, 1006, 1014, 1015, 2999, 3000, 3999, 4000, 4999, 5000])
@pytest.mark.parametrize("reason", ["", "é"])
def test_close(code: int, reason: str) -> None:
    theirs, ours = (lib.frames.Close(code, reason) for lib in BOTH)
    assert str(ours) == str(theirs)
    assert tried(ours.serialize) == tried(theirs.serialize)


def test_close_is_the_engines() -> None:
    """What our adapters tell compares with what a program of websockets expects, in either order."""
    expected = OURS.frames.Close(1000, "bye")
    assert expected == constants.Close(1000, "bye")
    assert constants.Close(1000, "bye") == expected
    assert constants.Close(1001, "bye") != expected
    assert expected != "bye"
    assert {expected} == {OURS.frames.Close(1000, "bye")}


# -- extensions ----------------------------------------------------------------

WINDOWS = (None, 8, 9, 15)
PARAMETERS: list[tuple[str, str | None]] = [
    ("server_no_context_takeover", None),
    ("server_no_context_takeover", "yes"),
    ("client_no_context_takeover", None),
    ("server_max_window_bits", None),
    ("server_max_window_bits", "8"),
    ("server_max_window_bits", "10"),
    ("server_max_window_bits", "010"),
    ("client_max_window_bits", None),
    ("client_max_window_bits", "8"),
    ("client_max_window_bits", "10"),
    ("client_max_window_bits", "15"),
    ("client_max_window_bits", "16"),
    ("client_max_window_bits", ""),
    ("unknown", None),
]
CHOICES = [list(chosen) for n in range(3) for chosen in itertools.product(PARAMETERS, repeat=n)]


def factories(side: str, arguments: tuple[Any, ...]) -> list[Any]:
    """Both libraries' factories, or what they raise."""
    name = f"{side}PerMessageDeflateFactory"
    made = []
    for lib in BOTH:
        try:
            made.append(getattr(lib.deflate, name)(*arguments))
        except ValueError as exc:
            made.append(str(exc))
    return made


@pytest.mark.parametrize("server_bits", [*WINDOWS, 7, 16])
@pytest.mark.parametrize("client_bits", [*WINDOWS, True, 7, 16])
def test_negotiation_of_a_client(server_bits: Any, client_bits: Any) -> None:
    for nothing_kept in itertools.product((False, True), repeat=2):
        theirs, ours = factories("Client", (*nothing_kept, server_bits, client_bits))
        if isinstance(theirs, str):
            assert ours == theirs
            continue
        assert ours.get_request_params() == theirs.get_request_params()
        for parameters in CHOICES:
            assert negotiated(ours, parameters) == negotiated(theirs, parameters), parameters


@pytest.mark.parametrize("server_bits", [*WINDOWS, 7, 16])
@pytest.mark.parametrize("client_bits", [*WINDOWS, 7, 16])
@pytest.mark.parametrize("required", [False, True])
def test_negotiation_of_a_server(server_bits: Any, client_bits: Any, required: bool) -> None:
    for nothing_kept in itertools.product((False, True), repeat=2):
        theirs, ours = factories("Server", (*nothing_kept, server_bits, client_bits, None, required))
        if isinstance(theirs, str):
            assert ours == theirs
            continue
        for parameters in CHOICES:
            assert negotiated(ours, parameters) == negotiated(theirs, parameters), parameters


def negotiated(factory: Any, parameters: Any) -> Any:
    method = getattr(factory, "process_response_params", None) or factory.process_request_params
    return tried(lambda: method(parameters, []))


def test_negotiation_twice() -> None:
    for side, process in (("Client", "process_response_params"), ("Server", "process_request_params")):
        seen = []
        for lib in BOTH:
            agreed = lib.deflate.PerMessageDeflate(False, False, 15, 15)
            factory = getattr(lib.deflate, f"{side}PerMessageDeflateFactory")()
            seen.append(
                tried(lambda factory=factory, agreed=agreed, process=process: getattr(factory, process)([], [agreed]))
            )
        assert seen[0] == seen[1]


@pytest.mark.parametrize("side", ["Client", "Server"])
def test_compress_settings(side: str) -> None:
    for settings in ({"wbits": 9}, {"memLevel": 5}, {"level": 1, "strategy": 2}):
        theirs, ours = factories(side, (False, False, None, None, settings))
        assert isinstance(ours, str) == isinstance(theirs, str)
        assert ours == theirs or ours.compress_settings == theirs.compress_settings
    with pytest.raises(TypeError, match="zdict"):
        OURS.deflate.PerMessageDeflate(False, False, 15, 15, {"zdict": b"x"})


@pytest.mark.parametrize("side", ["client", "server"])
def test_enable(side: str) -> None:
    seen = []
    for lib in BOTH:
        enable = getattr(lib.deflate, f"enable_{side}_permessage_deflate")
        [one] = enable(None)
        assert list(enable([one])) == [one]
        [other, two] = enable([type("Other", (), {"name": "x"})])
        seen.append([vars(one), vars(two)["compress_settings"], other.name])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("settings", [None, {"memLevel": 1, "level": 9}])
def test_deflate(keeps: bool, settings: Any) -> None:
    """Frames are compressed to the same bytes, and inflated to the same frames; control frames stay as they are."""
    text = [b"Hello", b"Hello" * 1000, b"x"]
    seen = []
    for lib in BOTH:
        extension = lib.deflate.PerMessageDeflate(not keeps, not keeps, 12, 12, settings)
        frame, codes = lib.frames.Frame, lib.frames
        frames = [frame(codes.TEXT, data) for data in text]
        frames += [frame(codes.BINARY, text[1], False), frame(codes.PING, b"p"), frame(codes.CONT, memoryview(text[0]))]
        encoded = [extension.encode(one) for one in frames]
        decoder = lib.deflate.PerMessageDeflate(not keeps, not keeps, 12, 12)
        decoded = [decoder.decode(one) for one in encoded]
        assert plain(decoded) == plain([frame(one.opcode, bytes(one.data), one.fin) for one in frames])
        plainly = [frame(codes.TEXT, b"a", False), frame(codes.CONT, b"b")]
        seen.append([plain(encoded), plain([decoder.decode(one) for one in plainly]), repr(extension)])
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("frames", "max_size"),
    [
        ([(1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", True, True)], 5),
        ([(1, b"\xf2\x48\xcd\xc9\xc9\x07\x00", True, True)], 4),
        ([(1, b"\xff\xff", True, True)], None),
        ([(1, b"\xf2\x48", False, True), (0, b"", True, True)], None),
        ([(1, b"", True, False)], 0),
    ],
)
def test_inflate(frames: list[Any], max_size: int | None) -> None:
    seen = []
    for lib in BOTH:
        extension = lib.deflate.PerMessageDeflate(False, False, 15, 15)
        made = [lib.frames.Frame(lib.frames.Opcode(opcode), *rest) for opcode, *rest in frames]
        seen.append([tried(lambda one=one, e=extension: e.decode(one, max_size=max_size)) for one in made])
    assert seen[0] == seen[1]


def test_bases_of_extensions() -> None:
    for lib in BOTH:
        frame = lib.frames.Frame(lib.frames.TEXT, b"")
        base = lib.extensions_base
        for call in (
            lambda base=base, frame=frame: base.Extension().decode(frame),
            lambda base=base, frame=frame: base.Extension().encode(frame),
            lambda base=base: base.ClientExtensionFactory().get_request_params(),
            lambda base=base: base.ClientExtensionFactory().process_response_params([], []),
            lambda base=base: base.ServerExtensionFactory().process_request_params([], []),
        ):
            with pytest.raises(NotImplementedError):
                call()


# -- headers -------------------------------------------------------------------

HEADERS: list[tuple[str, tuple[Any, ...]]] = [
    *(("build_host", (host, port, secure)) for host in ("a.b", "::1", "1.2.3.4")
      for port, secure in ((80, False), (80, True), (443, True))),
    *(("parse_connection", (text,)) for text in ("keep-alive, Upgrade", "close", ",", "", "a b", "a;b", ", a,,b ,")),
    *(("parse_upgrade", (text,)) for text in ("websocket", "h2c, websocket", "http/3.0", "a/b/c", "", ", a,,b ,", "/")),
    *(("parse_subprotocol", (text,)) for text in ("chat, superchat", "chat", "", "a b")),
    *(("parse_extension", (text,)) for text in ("foo", "foo, bar; baz=1; bat", 'foo; bar="baz"')),
    *(("parse_extension", (text,)) for text in ("foo; bar=", "foo;;", "")),
    ("build_extension", ([("foo", [("bar", None), ("baz", "1")]), ("x", [])],)),
    ("build_subprotocol", (["a", "b"],)),
    *(("validate_subprotocols", (value,)) for value in (["a", "b"], ("a",), ["a b"], "a", iter("a"), [])),
    *(("build_www_authenticate_basic", (realm,)) for realm in ("me", 'm"e\\', "é", "\n")),
    *(("parse_authorization_basic", (text,)) for text in ("Basic YTpi", "basic YTpiOmM=", "Digest x")),
    *(("parse_authorization_basic", (text,)) for text in ("Basic", "Basic YQ==")),
    ("build_authorization_basic", ("a", "é")),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(HEADERS)))
def test_header(case: int) -> None:
    """The same value, or the same kind of error: its text says where it is in other words."""
    name, arguments = HEADERS[case]
    theirs, ours = (tried(lambda lib=lib: getattr(lib.headers, name)(*arguments)) for lib in BOTH)
    if isinstance(theirs[0], tuple):
        assert ours[0][0] == theirs[0][0]
    else:
        assert ours == theirs


def test_host_with_any_port() -> None:
    assert {lib.headers.build_host("a", 80, False, always_include_port=True) for lib in BOTH} == {"a:80"}


# -- the rest ------------------------------------------------------------------


@given(st.binary(max_size=40), st.binary(min_size=4, max_size=4))
def test_mask(data: bytes, mask: bytes) -> None:
    expected = ORIGINAL.utils.apply_mask(data, mask)
    for kind in (bytes, bytearray, memoryview):
        assert OURS.utils.apply_mask(kind(data), mask) == expected


def test_mask_of_another_size() -> None:
    assert len({str(tried(lambda lib=lib: lib.utils.apply_mask(b"a", b"abc"))) for lib in BOTH}) == 1


def test_keys() -> None:
    assert OURS.utils.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == ORIGINAL.utils.accept_key("dGhlIHNhbXBsZSBub25jZQ==")
    assert len(OURS.utils.generate_key()) == len(ORIGINAL.utils.generate_key())


READS: list[tuple[str, tuple[Any, ...]]] = [
    ("read_line", (8,)),
    ("read_line", (4,)),
    ("read_line", (2, ValueError)),
    ("read_exact", (0,)),
    ("read_exact", (4,)),
    ("read_exact", (100,)),
    ("read_to_eof", (5,)),
    ("read_to_eof", (500,)),
    ("at_eof", ()),
]


@pytest.mark.parametrize(("method", "arguments"), READS)
@pytest.mark.parametrize("data", [b"", b"spam\neggs", b"a", b"spam and eggs\n"])
def test_stream(method: str, arguments: tuple[Any, ...], data: bytes) -> None:
    """Byte by byte, up to the end of the stream."""
    seen = []
    for lib in BOTH:
        reader = lib.streams.StreamReader()
        read = getattr(reader, method)(*arguments)
        steps: list[Any] = []
        for i in range(len(data) + 2):
            steps.append(tried(lambda read=read: next(read)))
            if i < len(data):
                reader.feed_data(data[i : i + 1])
            elif i == len(data):
                reader.feed_eof()
        steps += [bytes(reader.buffer), tried(reader.feed_eof), tried(lambda reader=reader: reader.feed_data(b""))]
        reader.discard()
        seen.append((steps, bytes(reader.buffer)))
    assert seen[0] == seen[1]


#: Public names of the original that we do not have.
MISSING = {"utils": {"get_socket_name"}}


@pytest.mark.parametrize("name", ["", *(name for name in MODULES if name != "streams"), "proxy"])
def test_names(name: str) -> None:
    theirs = importlib.import_module(f"websockets.{name}" if name else "websockets")
    ours = importlib.import_module(f"{PACKAGE}.{name}" if name else PACKAGE)
    missing = set(theirs.__all__) - MISSING.get(name, set()) - set(ours.__all__)
    assert not missing
    for public in ours.__all__:
        assert getattr(ours, public) is not None


def test_names_of_frames() -> None:
    for name in ("CONT", "TEXT", "BINARY", "CLOSE", "PING", "PONG", "DATA_OPCODES", "CTRL_OPCODES", "OK_CLOSE_CODES"):
        theirs, ours = (getattr(lib.frames, name) for lib in BOTH)
        assert ours == theirs
    assert OURS.frames.EXTERNAL_CLOSE_CODES == ORIGINAL.frames.EXTERNAL_CLOSE_CODES
    assert OURS.frames.OP_TEXT is OURS.frames.TEXT
    assert OURS.root.__version__ == OURS.version.version
    assert OURS.http11.USER_AGENT.startswith("Python/")


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'spam'"):
        _ = OURS.root.spam


def test_exceptions_are_the_engines() -> None:
    for name in OURS.exceptions.__all__:
        ours, theirs = getattr(OURS.exceptions, name), getattr(ORIGINAL.exceptions, name)
        assert ours is getattr(wsproto_fast, name)
        assert {base.__name__ for base in theirs.__mro__} <= {base.__name__ for base in ours.__mro__}


def test_frames_and_uris_can_be_kept() -> None:
    frame = OURS.frames.Frame(OURS.frames.TEXT, b"Hello")
    assert pickle.loads(pickle.dumps(frame)) == frame
    assert OURS.uri.parse_uri is wsproto_fast.parse_uri


@pytest.mark.parametrize("module", ["client", "server", "connection", "router"])
@pytest.mark.parametrize(("adapter", "ours"), [("asyncio", "asyncio"), ("sync", "threading")])
def test_adapters(adapter: str, ours: str, module: str) -> None:
    """Their classes and functions under the names of websockets."""
    if module == "router":
        pytest.importorskip("werkzeug")
    theirs = importlib.import_module(f"websockets.{adapter}.{module}")
    here = importlib.import_module(f"{PACKAGE}.{adapter}.{module}")
    assert set(theirs.__all__) <= set(here.__all__)
    for name in theirs.__all__:
        assert getattr(here, name) is getattr(importlib.import_module(f"wsproto_fast.{ours}.{module}"), name, None) or (
            name == "broadcast" and getattr(here, name).__module__ == f"wsproto_fast.{ours}.broadcast"
        )


@pytest.mark.parametrize("name", ["connect", "serve", "broadcast", "basic_auth", "ClientConnection", "Server"])
def test_asyncio_from_the_root(name: str) -> None:
    module = "client" if name in ("connect", "ClientConnection") else "server"
    assert getattr(OURS.root, name) is getattr(importlib.import_module(f"{PACKAGE}.asyncio.{module}"), name)


def test_imports_no_event_loop() -> None:
    """Embedders bring their own."""
    imported = "'asyncio' in sys.modules, 'ssl' in sys.modules"
    code = f"import sys, {PACKAGE}, {PACKAGE}.server, {PACKAGE}.client; print({imported})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False False\n"
