"""Read targets over time: what reads share, and when it ends."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.querier.ring_view import RingView
from partitions.model import PartitionState
from partitions.owners import read_targets, targets_last_until_ms
from tests.support.ring import ingester, owner, partition, ring_of

TIMEOUT_MS = 60_000


class Watched:
    """A ring document that was confirmed just now."""

    confirmed_s = 0.0
    ring = None

    def __init__(self, *entries) -> None:
        partitions = (partition(number, PartitionState.ACTIVE) for number in (0, 1))
        self.desc = ring_of(*partitions, owner("a", 0), owner("b", 0), owner("b", 1), *entries)


class Clock:
    now_ms = 1_000_000


def view_of(watched: Watched, clock: Clock, timeout_ms: int = TIMEOUT_MS) -> RingView:
    return RingView(
        watched,
        shard_size_of=lambda tenant: 0,
        lookback_ms=0,
        heartbeat_timeout_ms=timeout_ms,
        now_ms=lambda: clock.now_ms,
        monotonic_s=lambda: 0.0,
        random=Random(1),
    )


def ids(view: RingView, *partitions: int) -> dict[int, list[str]]:
    return {p: [i.id for i in found] for p, found in view.targets(frozenset(partitions)).items()}


def test_targets_are_shared_until_a_heartbeat_grows_old_the_ring_changes_or_others_are_asked_for():
    clock = Clock()
    watched = Watched(ingester("a", "z", heartbeat_ms=1_000_000), ingester("b", "z", heartbeat_ms=990_000))
    view = view_of(watched, clock)
    first = view.targets(frozenset((0, 1)))
    clock.now_ms = 1_050_000
    assert view.targets(frozenset((0, 1))) is first
    assert set(ids(view, 0)) == {0}
    assert set(ids(view, 0, 1)[0]) == {"a", "b"}
    clock.now_ms += 1
    assert ids(view, 0, 1) == {0: ["a"], 1: []}
    clock.now_ms -= 1  # a clock that is set back
    assert ids(view, 0, 1)[1] == ["b"]
    watched.desc = Watched(ingester("b", "z", heartbeat_ms=1_000_000)).desc
    assert ids(view, 0, 1) == {0: ["b"], 1: ["b"]}


def test_the_order_of_several_zones_stays_a_matter_of_chance():
    view = view_of(Watched(ingester("a", "x", heartbeat_ms=1_000_000), ingester("b", "y", heartbeat_ms=0)), Clock(), 0)
    assert {tuple(ids(view, 0)[0]) for _ in range(50)} == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize("timeout_ms", [0, 20])
@given(beats=st.tuples(st.integers(0, 60), st.integers(0, 60)), now_ms=st.integers(0, 60))
def test_targets_last_as_long_as_they_say(timeout_ms, beats, now_ms):
    desc = Watched(*(ingester(name, "z", heartbeat_ms=at) for name, at in zip("ab", beats, strict=True))).desc

    def at(ms: int):
        return read_targets(desc, [0, 1], ["z"], now_ms=ms, heartbeat_timeout_ms=timeout_ms)

    last_ms = targets_last_until_ms(desc, now_ms=now_ms, heartbeat_timeout_ms=timeout_ms)
    changes = [ms for ms in range(now_ms, 200) if at(ms) != at(now_ms)]
    assert last_ms == (changes[0] - 1 if changes else float("inf"))
