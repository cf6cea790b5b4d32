"""Messages in threads: the tables of ``cases.messages``, driven by threads that call at the same time."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cases.messages import (
    CODECS,
    COMPRESSED,
    DECODED,
    ENDLESS_QUEUES,
    JSON_TEXT,
    JSON_VALUES,
    MESSAGES,
    NO_JSON,
    NOT_FOR_TRY_SEND,
    NOT_SENDABLE,
    QUEUES,
    QUEUES_IN_BYTES,
    SENT,
    BytesJSON,
    codec_of,
)
from helpers import encode_frame
from thr import LIMIT, MASK, Peer, handed_over, pair, serving, thread, tls_contexts, until, uri_of

from wsproto_fast import DeflateConfig, SendStatus
from wsproto_fast.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from wsproto_fast.threading import connect

# -- receiving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("compression", ["deflate", None, DeflateConfig(threshold=0)])
def test_echo(compression: Any, tls: bool) -> None:
    server_tls, client_tls = tls_contexts() if tls else (None, None)
    with serving(compression=compression, ssl=server_tls) as server:
        uri = uri_of(server).replace("ws:", "wss:") if tls else uri_of(server)
        with connect(uri, compression=compression, ssl=client_tls) as connection:
            for message in MESSAGES:
                connection.send(message)
                received = connection.recv()
                assert received == message
                assert type(received) is type(message)


@pytest.mark.parametrize(("payload", "text", "decode", "expected"), DECODED)
@pytest.mark.parametrize("waits", [False, True])
def test_decode(payload: bytes, text: bool, decode: bool | None, expected: str | bytes, waits: bool) -> None:
    """Of a message that comes to a thread that waits, and of one that is in the queue."""
    frame = (0x81 if text else 0x82, payload)
    with handed_over() as (connection, peer):
        if waits:
            with thread(lambda: connection.recv(decode=decode)) as outcome:
                until(lambda: connection._reader)
                peer.send(*frame)
            assert outcome == [expected]
        else:
            peer.send(*frame)
            until(lambda: connection._queue)
            assert connection.recv(decode=decode) == expected
        peer.send(*frame)
        assert list(connection.recv_streaming(decode)) == [expected]


# -- sending -----------------------------------------------------------------------------------------------------------


def as_generator(message: Any) -> Any:
    """Iterables of any kind will do."""
    return (piece for piece in message) if isinstance(message, list) else message


@pytest.mark.parametrize(("message", "text", "frames"), SENT)
def test_frames_of_messages(message: Any, text: bool | None, frames: list[tuple[int, bytes]]) -> None:
    with handed_over(compression=None) as (connection, peer):
        connection.send(as_generator(message), text=text)
        connection.pong(b"end")
        assert [peer.frame() for _ in frames] == frames
        assert peer.frame() == (0x8A, b"end")
        assert connection.buffered_amount == 0
        if not isinstance(message, list):
            assert connection.try_send(message, text=text) is SendStatus.SENT
            assert [peer.frame()] == frames


@pytest.mark.parametrize(("message", "error", "ends"), NOT_SENDABLE)
def test_what_cannot_be_sent(message: Any, error: type[Exception], ends: bool) -> None:
    with pair() as connection:
        with pytest.raises(error):
            connection.send(as_generator(message))
        if ends:
            assert connection.wait_closed(LIMIT)
            assert connection.protocol.close_code == 1011
        else:  # nothing was sent
            connection.send("still open")
            assert connection.recv() == "still open"


@pytest.mark.parametrize("message", NOT_FOR_TRY_SEND)
def test_what_try_send_does_not_take(message: Any) -> None:
    with pair() as connection:
        with pytest.raises(TypeError, match="str or bytes-like"):
            connection.try_send(message)
        with pytest.raises(UnicodeEncodeError):
            connection.try_send("\ud800")
        assert connection.stats.messages_sent == 0
        connection.close()
        with pytest.raises(ConnectionClosedOK):
            connection.try_send("late")


@pytest.mark.parametrize("how", ["send", "try_send", "send_json", "fragments"])
@pytest.mark.parametrize(("compress", "size", "compressed"), COMPRESSED)
def test_compress(how: str, compress: bool | None, size: int, compressed: bool) -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    with handed_over(headers=offer) as (connection, peer):
        if how == "send":
            connection.send("x" * size, compress=compress)
        elif how == "try_send":
            connection.try_send("x" * size, compress=compress)
        elif how == "send_json":
            connection.send_json("x" * size, compress=compress)
        else:
            connection.send(["x" * size, "y"], compress=compress)
        first, _ = peer.frame()
        assert bool(first & 0x40) is compressed or (how == "fragments" and compress is None)


def test_many_threads_send_at_once() -> None:
    """Whole messages, and some over the limit; each thread's stay in its order."""
    with pair(server={"max_queue": None}, write_limit=2000, max_queue=None) as connection:

        def run(name: int) -> None:
            for number in range(60):
                connection.send(f"{name} {number} " + "x" * (3000 if number % 3 else 10))

        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in range(8)]
        for each in threads:
            each.start()
        seen: dict[str, list[int]] = {}
        for _ in range(480):
            name, number, _ = connection.recv(10, decode=True).split(" ")
            seen.setdefault(name, []).append(int(number))
        for each in threads:
            each.join()
        assert seen == {str(name): list(range(60)) for name in range(8)}


def test_large_messages_are_echoed_while_more_are_sent() -> None:
    """Neither side reads all before it writes: nobody may wait for the other for ever."""
    options: dict[str, Any] = {"max_size": None, "compression": None}
    with pair(server=options, **options) as connection:
        messages = [bytes([number]) * 3_000_000 for number in range(5)]
        with thread(lambda: [connection.send(message) for message in messages]):
            for message in messages:
                assert connection.recv(LIMIT) == message


def test_amid_a_message_in_fragments() -> None:
    """Whole messages of other threads: an error, as in websockets; control frames pass."""
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        yield "a"
        begun.set()
        assert go_on.wait(LIMIT)
        yield "b"

    with pair() as connection, thread(lambda: connection.send(pieces())) as outcome:
        assert begun.wait(LIMIT)
        for message in ("between", ["between"]):
            with pytest.raises(ConcurrencyError, match="send"):
                connection.send(message)
        assert connection.try_send("between") is SendStatus.FULL
        assert connection.ping().wait(LIMIT)
        go_on.set()
        assert connection.recv(LIMIT) == "ab"
        until(lambda: outcome)
        connection.send("after")
        assert connection.recv(LIMIT) == "after"
    assert outcome == [None]


# -- the queue ---------------------------------------------------------------------------------------------------------


def numbers(peer: Peer, count: int) -> None:
    peer.sock.sendall(b"".join(encode_frame(0x81, b"%d" % i, mask=MASK) for i in range(count)))


@pytest.mark.parametrize(("max_queue", "high", "low"), QUEUES)
def test_limits_in_messages(max_queue: Any, high: int, low: int) -> None:
    with handed_over(max_queue=max_queue) as (connection, peer):
        numbers(peer, 100)
        until(lambda: len(connection._queue) == high)
        taken = 0
        while taken < 100:
            before = len(connection._queue)
            assert connection.recv() == str(taken)
            taken += 1
            if before - 1 > low:
                assert len(connection._queue) == before - 1  # no more before the low mark
            else:
                until(lambda taken=taken: len(connection._queue) == min(high, 100 - taken))


@pytest.mark.parametrize("max_queue", ENDLESS_QUEUES)
def test_no_limit_in_messages(max_queue: Any) -> None:
    with handed_over(max_queue=max_queue) as (connection, peer):
        numbers(peer, 5000)
        until(lambda: len(connection._queue) == 5000)
        for _ in range(5):
            peer.send(0x82, bytes(2**20))  # nor in bytes, then
        until(lambda: len(connection._queue) == 5005)
        assert [connection.recv() for _ in range(5000)] == [str(i) for i in range(5000)]


@pytest.mark.parametrize(("limit", "held"), QUEUES_IN_BYTES)
def test_limits_in_bytes(limit: int, held: int) -> None:
    with handed_over(max_queue=1000, max_queue_bytes=limit) as (connection, peer):
        with thread(lambda: peer.sock.sendall(encode_frame(0x82, bytes(1000), mask=MASK) * 100)):
            until(lambda: len(connection._queue) == held)
            assert connection._queue_bytes == held * 1000
            for left in range(99, -1, -1):
                before = len(connection._queue)
                assert len(connection.recv(LIMIT)) == 1000
                if (before - 1) * 1000 > limit // 2:
                    assert len(connection._queue) == before - 1
                else:
                    until(lambda left=left: len(connection._queue) == min(held, left))


def test_nothing_is_lost_between_the_poller_and_receivers() -> None:
    """Threads that receive come and go; meanwhile the poller fills the queue. Nothing is lost, doubled or crossed."""
    count = 3000
    with handed_over(max_queue=4) as (connection, peer):
        rng = random.Random(7)

        def feed() -> None:
            for i in range(count):
                peer.send(0x81, b"%d" % i)
                if rng.random() < 0.02:
                    until(lambda: (not connection._queue and not connection._reader) or connection._paused)

        with thread(feed):
            got = 0
            while got < count:
                way = rng.randrange(4)
                try:
                    if way == 0:
                        message: Any = connection.recv(rng.choice((0, 0.001, 10)))
                    elif way == 1:
                        message = connection.recv_json(rng.choice((0, 0.001)))
                    elif way == 2:
                        message = "".join(connection.recv_streaming(decode=True))
                    else:
                        with thread(connection.recv) as outcome:
                            pass
                        message = outcome[0]
                except TimeoutError:
                    continue
                assert int(message) == got
                got += 1


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Any:
    return codec_of(request.param)


def test_there_and_back(codec: Any) -> None:
    with pair(json=codec) as connection:
        for value in JSON_VALUES:
            connection.send_json(value)
            assert connection.recv_json() == value
        for value in JSON_VALUES:  # all under way together
            connection.send_json(value, compress=True, timeout=10)
        assert [connection.recv_json(LIMIT) for _ in JSON_VALUES] == JSON_VALUES
    raw = not isinstance(codec.dumps(0), str)
    assert set(codec.seen) == ({bytes} if raw else {str})


def test_json_is_sent_as_text(codec: Any) -> None:
    with handed_over(json=codec, compression=None) as (connection, peer):
        connection.send_json({"name": JSON_TEXT})
        first, payload = peer.frame()
        assert first == 0x81
        assert json.loads(payload) == {"name": JSON_TEXT}


def test_binary_messages_are_json_too(codec: Any) -> None:
    with pair(json=codec) as connection:
        for value in JSON_VALUES:
            connection.send(json.dumps(value).encode())
            assert connection.recv_json() == value
        connection.send(b"[1]")
        connection.send("[2]")
        assert connection.recv_json() == [1]
        assert connection.recv() == "[2]"


@pytest.mark.parametrize("bad", NO_JSON)
def test_what_is_no_json_leaves_the_connection_usable(codec: Any, bad: str | bytes) -> None:
    with pair(json=codec) as connection:
        connection.send(bad)
        connection.send("[1]")
        with pytest.raises(ValueError):
            connection.recv_json()
        assert connection.recv_json() == [1]  # the bad one is gone
        connection.send(bad)
        assert connection.recv() == bad


def test_what_cannot_be_said_in_json_leaves_the_connection_usable(codec: Any) -> None:
    with pair(json=codec) as connection:
        for value in (object(), {"x": [object()]}):
            with pytest.raises(TypeError):
                connection.send_json(value)
        connection.send_json("after")
        assert connection.recv_json() == "after"
        assert connection.stats.messages_sent == 1


def test_text_that_is_not_utf8_fails_the_connection(codec: Any) -> None:
    """Also where nobody decodes it (RFC 6455 8.1)."""
    with handed_over(json=codec) as (connection, peer), thread(connection.recv_json) as outcome:
        peer.send(0x81, b'"\xc3\x28"')
        peer.expect_close(1007)
    assert isinstance(outcome[0], ConnectionClosedError)


def test_recv_json_when_the_connection_ends(codec: Any) -> None:
    with pair(lambda connection: connection.send_json(1), server={"json": codec}, json=codec) as connection:
        assert connection.wait_closed(LIMIT)
        assert connection.recv_json() == 1
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK):
                connection.recv_json()
        with pytest.raises(ConnectionClosedOK):
            connection.send_json(1)


WHOLE = '"é日"'.encode()
PIECES = [WHOLE[:2], WHOLE[2:4], WHOLE[4:]]  # cut within characters
WAYS = ["recv", "recv_json", "recv_streaming"]


@pytest.mark.parametrize("codec_", [json, BytesJSON], ids=["str", "bytes"])
@pytest.mark.parametrize("begin", WAYS[:2])
@pytest.mark.parametrize("middle", WAYS[:2])
@pytest.mark.parametrize("end", WAYS)
@pytest.mark.parametrize("opcode", [1, 2])
def test_changing_ones_mind_in_the_middle_of_a_message(
    codec_: Any, begin: str, middle: str, end: str, opcode: int
) -> None:
    """The time to wait for a message is over when some of its fragments have come, twice, and something else asks."""

    def has_come(nbytes: int) -> None:
        until(lambda: connection.stats.bytes_received >= nbytes)

    def late(way: str) -> None:
        with pytest.raises(TimeoutError):
            getattr(connection, way)(0.001)

    def take(way: str, opcode: int) -> None:
        if way == "recv_json":
            assert connection.recv_json() == "é日"
            return
        got: Any = connection.recv() if way == "recv" else list(connection.recv_streaming())
        if way == "recv_streaming":
            assert {type(part) for part in got} == {bytes if opcode == 2 else str}
            got = (b"" if opcode == 2 else "").join(got)
        assert got == (WHOLE if opcode == 2 else WHOLE.decode())

    with handed_over(json=codec_, compression=None) as (connection, peer):
        late(begin)
        peer.send(opcode, PIECES[0])
        has_come(6 + len(PIECES[0]))
        late(begin)
        late(middle)
        peer.send(0x00, PIECES[1])
        has_come(12 + len(PIECES[0] + PIECES[1]))
        late(middle)
        peer.send(0x80, PIECES[2])
        take(end, opcode)
        for first in (0x81, 0x82, 0x81):  # the next ones are as they should be
            peer.send(first, WHOLE)
            take("recv", first & 15)
        peer.send(0x81, WHOLE)
        assert connection.recv_json() == "é日"


def test_all_ways_to_receive_in_turn(codec: Any) -> None:
    """The messages all wait, or come one by one."""
    rng = random.Random(5)

    def send_all(values: list[Any], kinds: list[int]) -> None:
        for value, kind in zip(values, kinds, strict=True):
            data = json.dumps(value, ensure_ascii=False)
            message: Any = (data, data.encode(), [data[:3], data[3:7], data[7:]])[kind]
            connection.send(message)

    with pair(json=codec, max_queue=4) as connection:
        for together in (1, 10, 50):
            values = [rng.choice([JSON_TEXT, [JSON_TEXT], 17, {"b": JSON_TEXT * 3000}]) for _ in range(together)]
            kinds = [rng.randrange(3) for _ in values]
            with thread(lambda values=values, kinds=kinds: send_all(values, kinds)):
                for value, kind in zip(values, kinds, strict=True):
                    way = rng.randrange(4)
                    if way == 0:
                        got = connection.recv()
                    elif way == 1:
                        assert connection.recv_json() == value
                        continue
                    elif way == 2:
                        parts = list(connection.recv_streaming())
                        got = (b"" if isinstance(parts[0], bytes) else "").join(parts)  # type: ignore[arg-type]
                    else:
                        assert json.loads(connection.recv(decode=rng.random() < 0.5)) == value
                        continue
                    assert type(got) is (bytes if kind == 1 else str)
                    assert json.loads(got) == value
