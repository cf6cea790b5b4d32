"""Groups: twenty members of which one does not read, and what each policy makes of it."""

from __future__ import annotations

from typing import get_args

from wsproto_fast.groups import BroadcastResult, Policy

POLICIES: tuple[Policy, ...] = get_args(Policy)
#: Of a message, and what may wait for a member.
SIZE = 10_000
BUDGET = 200_000
#: How many broadcasts of ``numbered(i)`` with the key ``i % 5`` there are while one member does not read.
BROADCASTS = 60


def numbered(i: int, size: int = SIZE) -> bytes:
    """A message of which it shows if a byte is missing."""
    return (b"%08d" % i) * (size // 8)


def number(message: bytes) -> int:
    i = int(message[:8])
    assert message == numbered(i, len(message)), "torn"
    return i


def expected_numbers(policy: Policy, results: list[BroadcastResult]) -> list[int]:
    """What the one that did not read gets in the end; checks that the results say so.

    For the three policies that neither wait nor disconnect.
    """
    assert {(result.sent, result.disconnected) for result in results} == {(19, 0)}
    if policy == "drop-newest":  # as the kernel takes a little more now and then, a late one may fit
        assert {result.queued + result.dropped for result in results} == {1}
        expected = [i for i, result in enumerate(results) if result.queued]
        assert expected[:10] == list(range(10))
    else:
        assert {result.queued for result in results} == {1}
        kept = BROADCASTS - sum(result.dropped for result in results)
        expected = list(range(BROADCASTS - kept, BROADCASTS))
    assert len(expected) == 5 if policy == "latest" else 10 < len(expected) < 20
    return expected


def check_disconnecting(results: list[BroadcastResult]) -> None:
    """Broadcasts of the policy "disconnect", the last of which was too much for the one that did not read."""
    assert 10 < len(results) < 20
    assert results == [(19, 1, 0, 0)] * (len(results) - 1) + [(19, 0, 0, 1)]
