"""Watchers with skewed clocks, on a store that is late, fails and loses answers, agree, and no change is lost."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from partitions import edits
from partitions.errors import ChangeRefused, RingUnavailable
from partitions.kv.memory import MemoryRing
from partitions.model import PartitionDesc, PartitionState, RingDesc
from partitions.watch import RingWatcher
from tests.support.ring_stores import UnsteadyRingStore, hurried_watchers

NOW_MS = 1_700_000_000_000
PARTITIONS = 3
STATES = (PartitionState.ACTIVE, PartitionState.INACTIVE)

edit = st.one_of(
    st.tuples(st.just("create"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("switch"), st.integers(0, PARTITIONS - 1), st.sampled_from(STATES)),
    st.tuples(st.just("lock"), st.integers(0, PARTITIONS - 1), st.booleans()),
    st.tuples(st.just("remove"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("own"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("disown"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("upkeep")),
)
fault = st.sampled_from(["none", "none", "late", "down", "lose"])
script = st.lists(st.tuples(fault, edit), max_size=12)


class Writer:
    """One watcher that goes through its script, and what it was told."""

    def __init__(self, ring: MemoryRing, name: str, skew_ms: int, steps: list) -> None:
        self.store = UnsteadyRingStore(ring)
        self.now_ms = NOW_MS + skew_ms
        self.watcher = RingWatcher(self.store, writer=name, now_ms=self.clock)
        self.steps = steps
        self.shown: list = []

    def clock(self) -> int:
        self.now_ms += random.randrange(3)
        return self.now_ms

    async def run(self) -> None:
        for kind, step in self.steps:
            self.store.down, self.store.lose_answers = kind == "down", kind == "lose"
            self.store.delay_s = 0.001 if kind == "late" else 0.0
            try:
                if step[0] == "upkeep":
                    await self.watcher.upkeep()
                else:
                    await self.change(step)
            except (RingUnavailable, ChangeRefused):
                pass
        self.store.down = self.store.lose_answers = False
        self.store.delay_s = 0.0

    async def change(self, step: tuple) -> None:
        wanted: list = []

        def decide(desc: RingDesc) -> list:
            wanted[:] = entries_of(step, desc, self.watcher.writer, self.now_ms)
            return wanted

        await self.watcher.change(decide)
        for entry in wanted:
            self.shown.append(self.watcher.slots[entry.key][self.watcher.writer])


def entries_of(step: tuple, desc: RingDesc, instance: str, now_ms: int) -> list:
    """The entries of one step of a script."""
    match step:
        case ("create", number):
            return edits.create_partition(desc, number, now_ms)
        case ("switch", number, state):
            return edits.change_state(desc, number, state, now_ms)
        case ("lock", number, locked):
            return edits.lock(desc, number, locked, now_ms)
        case ("remove", number):
            return edits.remove_partition(desc, number, now_ms)
        case ("own", number):
            return edits.add_owner(desc, instance, number, now_ms)
        case ("disown", number):
            return edits.remove_owner(desc, instance, number, now_ms)
    raise AssertionError(step)


def registers(entry) -> tuple:
    """Versions of an entry's registers."""
    return (entry.state_version, entry.lock_version) if isinstance(entry, PartitionDesc) else (entry.version,)


async def play(scripts: list, skews_ms: list[int]) -> None:
    ring = MemoryRing(superseded_kept=0)
    writers = [Writer(ring, f"w{n}", skews_ms[n], steps) for n, steps in enumerate(scripts)]
    for writer in writers:
        await writer.watcher.start()
    await asyncio.gather(*(writer.run() for writer in writers))
    descs = [await writer.watcher.refresh() for writer in writers]
    late = RingWatcher(UnsteadyRingStore(ring), writer="late")
    await late.start()
    descs.append(late.desc)
    for watcher in [late, *(writer.watcher for writer in writers)]:
        await watcher.close()
    assert all(desc == descs[0] for desc in descs)
    for told in (entry for writer in writers for entry in writer.shown):
        known = descs[0].entries[told.key]
        assert all(now >= then for now, then in zip(registers(known), registers(told), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(script, min_size=2, max_size=4),
    st.lists(st.sampled_from([-7_200_000, -3, 0, 1, 50_000, 3_600_000]), min_size=4, max_size=4),
)
def test_all_views_agree_also_a_late_one_and_what_was_told_stands_unless_something_newer_does(scripts, skews_ms):
    with hurried_watchers():
        asyncio.run(play(scripts, skews_ms))
