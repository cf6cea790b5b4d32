"""Settings refuse nonsense at once; close codes and exceptions say what `websockets` says, which programs grep for."""

from __future__ import annotations

import dataclasses
import functools
import json
import pickle
import zlib
from collections.abc import Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
import websockets.exceptions as theirs
from websockets.frames import Close as TheirClose
from websockets.http11 import Response as TheirResponse

import wsproto_fast as ours
from wsproto_fast import Close, CloseCode, DeflateConfig, Headers, Keepalive, Limits, Response
from wsproto_fast._settings import MAX_QUEUE_BYTES, JSONCodec, Settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Limits(max_message_size=-1), "max_message_size must not be negative"),
        (lambda: Limits(max_headers=-1), "max_headers must not be negative"),
        (lambda: Limits(max_line_size=None), "max_line_size cannot be lifted"),  # type: ignore[arg-type]
        (lambda: Limits(close_timeout=-0.1), "close_timeout must not be negative"),
        (lambda: Keepalive(ping_interval=0), "ping_interval must be positive"),
        (lambda: Keepalive(ping_timeout=-1), "ping_timeout must be positive"),
        (lambda: DeflateConfig(server_max_window_bits=16), "server_max_window_bits must be between 8 and 15"),
        (lambda: DeflateConfig(client_max_window_bits=7), "client_max_window_bits must be between 8 and 15"),
        (lambda: DeflateConfig(mem_level=0), "mem_level must be between 1 and 9"),
        (lambda: DeflateConfig(threshold=-1), "threshold must not be negative"),
        (lambda: DeflateConfig(idle_release=0), "idle_release must be positive"),
        (lambda: DeflateConfig(level=10), "zlib knows no such level"),
        (lambda: DeflateConfig(strategy=99), "zlib knows no such level"),
    ],
)
def test_nonsense(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_limit_can_be_lifted() -> None:
    for field in dataclasses.fields(Limits):
        if "None" in str(field.type):
            assert getattr(Limits(**{field.name: None}), field.name) is None
    assert Keepalive(None, None).ping_interval is None
    assert DeflateConfig(idle_release=None, level=9).level == 9


def test_settings_are_frozen() -> None:
    for settings in (Limits(), Keepalive(), DeflateConfig()):
        field = dataclasses.fields(settings)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field, None)


@pytest.mark.parametrize("code", [*range(990, 1020), 2999, 3000, 3999, 4000, 4999, 5000, 65535])
@pytest.mark.parametrize("reason", ["", "because"])
def test_close_reads_as_theirs(code: int, reason: str) -> None:
    assert str(Close(code, reason)) == str(TheirClose(code, reason))


CLOSES = [None, (1000, ""), (1001, "going"), (1005, ""), (1011, "keepalive ping timeout"), (4000, "x")]


@pytest.mark.parametrize("rcvd", CLOSES)
@pytest.mark.parametrize("sent", CLOSES)
@pytest.mark.parametrize("order", [True, False])
def test_connection_closed_reads_as_theirs(
    rcvd: tuple[int, str] | None, sent: tuple[int, str] | None, order: bool
) -> None:
    rcvd_then_sent = order if rcvd and sent else None
    mine = ours.ConnectionClosed(rcvd and Close(*rcvd), sent and Close(*sent), rcvd_then_sent)
    other = theirs.ConnectionClosed(rcvd and TheirClose(*rcvd), sent and TheirClose(*sent), rcvd_then_sent)
    assert str(mine) == str(other)
    assert mine.code == (CloseCode.ABNORMAL_CLOSURE if rcvd is None else rcvd[0])
    assert mine.reason == ("" if rcvd is None else rcvd[1])


THEIR_RESPONSE = TheirResponse(404, "Not Found", None)  # type: ignore[arg-type]
SAME_TEXT = [
    ("InvalidURI", ("http://x", "bad scheme")),
    ("InvalidMethod", ("POST",)),
    ("InvalidProtocol", ("HTTP/1.0",)),
    ("InvalidHeader", ("Upgrade",)),
    ("InvalidHeader", ("Upgrade", "")),
    ("InvalidHeader", ("Upgrade", "h2c")),
    ("InvalidHeaderFormat", ("Sec-WebSocket-Protocol", "expected token", "a,,b", 2)),
    ("InvalidHeaderValue", ("Sec-WebSocket-Version", "8")),
    ("InvalidOrigin", ("https://evil.example",)),
    ("InvalidOrigin", (None,)),
    ("InvalidUpgrade", ("Connection", "close")),
    ("DuplicateParameter", ("a",)),
    ("InvalidParameterName", ("a",)),
    ("InvalidParameterValue", ("a", None)),
    ("InvalidParameterValue", ("a", "")),
    ("InvalidParameterValue", ("a", "b")),
]


of_17 = pytest.mark.skipif(not hasattr(theirs, "InvalidMethod"), reason="compares with websockets 17")


@of_17
@pytest.mark.parametrize(("name", "arguments"), SAME_TEXT)
def test_exceptions_read_as_theirs(name: str, arguments: tuple[str, ...]) -> None:
    assert str(getattr(ours, name)(*arguments)) == str(getattr(theirs, name)(*arguments))


def test_invalid_status_reads_as_theirs() -> None:
    status = int(HTTPStatus.NOT_FOUND)
    assert str(ours.InvalidStatus(Response(status, "Not Found", Headers()))) == str(
        theirs.InvalidStatus(TheirResponse(status, "Not Found", None))  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", [name for name in ours.exceptions.__all__ if hasattr(theirs, name)])
def test_taxonomy_is_theirs(name: str) -> None:
    """The bases that their class has and we know, ours has too; `except` clauses go on working after a port."""
    bases = {base.__name__ for base in getattr(theirs, name).__mro__}
    mine = {base.__name__ for base in getattr(ours, name).__mro__}
    known = set(ours.exceptions.__all__) | {"RuntimeError", "AssertionError"}
    assert bases & known <= mine


@pytest.mark.parametrize(
    "error",
    [
        ours.PayloadTooBig(None, 10),
        ours.PayloadTooBig(20, 10, 5),
        ours.TooManyFragments(3),
        ours.RemoteProtocolError(1002, "reserved bits must be 0"),
        ours.ConnectionClosedError(Close(1000), None),
        ours.InvalidURI("x", "y"),
    ],
)
def test_exceptions_survive_pickle(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@of_17
def test_payload_too_big_reads_as_theirs() -> None:
    # Their second number is what is left of the limit, ours the limit.
    for size in (20, None):
        assert str(ours.PayloadTooBig(size, 10)) == str(theirs.PayloadTooBig(size, 10))
        assert str(ours.PayloadTooBig(size, 30, 15)) == str(theirs.PayloadTooBig(size, 15, 15))
    assert str(ours.TooManyFragments(5)) == str(theirs.TooManyFragments(5))


# What clients and servers of every adapter are told


def test_defaults() -> None:
    settings = Settings()
    assert settings.limits == Limits()
    assert settings.deflate == DeflateConfig()
    assert settings.keepalive == Keepalive()
    assert (settings.queue_high, settings.queue_low, settings.queue_bytes) == (16, 4, MAX_QUEUE_BYTES)
    assert (settings.write_high, settings.write_low) == (2**16, None)
    assert settings.on_message is None
    assert settings.observer is None
    assert settings.json.dumps is json.dumps
    assert not settings.json.raw


def their_factory(role: str, **arguments: Any) -> Any:
    from websockets.extensions import permessage_deflate

    name = "ServerPerMessageDeflateFactory" if role == "server" else "ClientPerMessageDeflateFactory"
    return getattr(permessage_deflate, name)(**arguments)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"server_max_window_bits": 15, "client_max_window_bits": 15, "mem_level": 8}),
        (
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            {
                "server_no_context_takeover": True,
                "client_no_context_takeover": True,
                "server_max_window_bits": 15,
                "client_max_window_bits": 15,
                "mem_level": 8,
            },
        ),
        (
            {"server_max_window_bits": 11, "client_max_window_bits": 9},
            {"server_max_window_bits": 11, "client_max_window_bits": 9, "mem_level": 8},
        ),
        (
            {"compress_settings": {"memLevel": 5, "level": 1, "strategy": zlib.Z_HUFFMAN_ONLY}},
            {
                "server_max_window_bits": 15,
                "client_max_window_bits": 15,
                "mem_level": 5,
                "level": 1,
                "strategy": zlib.Z_HUFFMAN_ONLY,
            },
        ),
    ],
)
def test_factories_of_websockets(role: str, arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    settings = Settings(extensions=[their_factory(role, **arguments)], compression=None)
    assert settings.deflate == DeflateConfig(**expected)


def test_a_client_may_leave_the_size_of_its_window_to_the_server() -> None:
    settings = Settings(extensions=[their_factory("client", client_max_window_bits=True)])
    assert settings.deflate is not None
    assert settings.deflate.client_max_window_bits == 15


def test_extensions_go_before_compression() -> None:
    config = DeflateConfig(mem_level=9)
    assert Settings(extensions=[config]).deflate is config
    assert Settings(extensions=[config, object()]).deflate is config  # one counts
    assert Settings(extensions=[config], compression=None).deflate is config
    assert Settings(extensions=[], compression=None).deflate is None
    assert Settings(extensions=None, compression=config).deflate is config
    for wrong in (object(), "permessage-deflate", SimpleNamespace(name="permessage-bzip2")):
        with pytest.raises(ValueError, match="unsupported extension"):
            Settings(extensions=[wrong])
    with pytest.raises(ValueError, match="unsupported compression: gzip"):
        Settings(compression="gzip")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["json", pytest.param("orjson", marks=pytest.mark.external), "msgspec.json"])
def test_json_codecs(name: str) -> None:
    module = pytest.importorskip(name)
    codec = JSONCodec(module)
    assert codec.raw is (name != "json")
    assert codec.loads(codec.dumps({"é": [1, None]})) == {"é": [1, None]}
    assert type(codec.dumps("é")) is (bytes if codec.raw else str)


def test_json_codecs_of_ones_own() -> None:
    by_names = JSONCodec(SimpleNamespace(encode=lambda data: bytearray(b"[]"), decode=lambda text: []))
    assert by_names.raw
    for half in ({"dumps": json.dumps}, {"loads": json.loads}, {"encode": json.dumps}, {}):
        with pytest.raises(TypeError, match="a JSON codec has dumps"):
            Settings(json=SimpleNamespace(**half))
    with pytest.raises(TypeError, match="a JSON codec has dumps"):
        Settings(json=None)


@pytest.mark.parametrize(
    ("max_queue", "max_queue_bytes", "expected"),
    [
        (16, 10, (16, 4, 10)),
        (1, MAX_QUEUE_BYTES, (1, 0, MAX_QUEUE_BYTES)),
        (0, 0, (1, 0, 1)),
        ((8, 8), 1, (8, 7, 1)),
        ((8, None), 1, (8, 2, 1)),
        ((8, 0), None, (8, 0, 2**62)),
        (None, 5, (2**62, 2**60, 5)),
        (None, MAX_QUEUE_BYTES, (2**62, 2**60, 2**62)),
        ((None, 3), MAX_QUEUE_BYTES, (2**62, 3, 2**62)),
        (2**80, 2**80, (2**62, 2**60, 2**62)),
    ],
)
def test_limits_of_the_queue(max_queue: Any, max_queue_bytes: int | None, expected: tuple[int, int, int]) -> None:
    settings = Settings(max_queue=max_queue, max_queue_bytes=max_queue_bytes)
    assert (settings.queue_high, settings.queue_low, settings.queue_bytes) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_queue": -1}, "max_queue must not be negative"),
        ({"max_queue": (1, -1)}, "max_queue must not be negative"),
        ({"max_queue": (-1, None)}, "max_queue must not be negative"),
        ({"max_queue_bytes": -1}, "max_queue_bytes must not be negative"),
        ({"limits": Limits(), "max_size": 5}, "either limits or max_size"),
        ({"ping_interval": 0}, "ping_interval must be positive"),
    ],
)
def test_nonsense_in_settings(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**arguments)


def test_on_message_is_a_plain_function() -> None:
    async def coroutine(connection: Any, message: Any) -> None: ...

    class Bound:
        async def method(self, connection: Any, message: Any) -> None: ...

        async def __call__(self, connection: Any, message: Any) -> None: ...

    for wrong in (coroutine, Bound().method, Bound(), functools.partial(coroutine)):
        with pytest.raises(TypeError, match="plain function"):
            Settings(on_message=wrong)
    for right in (lambda connection, message: None, print, [].append):
        assert Settings(on_message=right).on_message == right


def test_the_heartbeat() -> None:
    settings = Settings(ping_interval=1, ping_timeout=None, ping_payload=bytes)
    assert settings.keepalive == Keepalive(1, None, bytes)
    assert Settings(ping_interval=None, ping_payload=bytes).keepalive is None
