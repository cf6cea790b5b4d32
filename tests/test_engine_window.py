"""The input window: what waits is kept once, moved seldom, and never in memory that somebody else writes to."""

from __future__ import annotations

from types import ModuleType

import pytest
from helpers import encode_frame


@pytest.mark.parametrize("taken", range(1, 20))
def test_a_backlog_that_is_taken_and_fed_in_turn(ws: ModuleType, taken: int) -> None:
    """Whatever share of it is consumed when more arrives, each message comes once, in order."""
    texts = [f"message {i}" for i in range(200)]
    frames = [encode_frame(0x81, text.encode(), mask=None) for text in texts]
    conn = ws.Connection(ws.Role.CLIENT)
    told = []
    while frames:
        wire = b"".join(frames[:15])
        del frames[:15]
        conn.receive_data(wire[:40])  # a cut inside a frame
        conn.receive_data(wire[40:])
        for _ in range(taken):
            event = conn.next_event()
            if event is not None:
                told.append(event.data)
    told += [event.data for event in conn.events()]
    assert told == texts


def test_a_receive_buffer_that_is_still_held_is_not_reused(ws: ModuleType) -> None:
    """uvloop holds the view while ``buffer_updated`` runs; whoever holds it longer must reach no other."""
    first = ws.Connection(ws.Role.CLIENT)
    view = first.get_buffer()
    holder = memoryview(view)
    wire = encode_frame(0x82, b"abc", mask=None)
    view[: len(wire)] = wire
    first.buffer_updated(len(wire))
    assert [event.data for event in first.events()] == [b"abc"]
    others = [ws.Connection(ws.Role.CLIENT) for _ in range(8)]
    views = [other.get_buffer() for other in others]
    for other_view in views:
        other_view[: len(wire)] = wire
    holder[: len(wire)] = bytes(len(wire))
    for other in others:
        other.buffer_updated(len(wire))
        assert [event.data for event in other.events()] == [b"abc"]
    holder.release()
