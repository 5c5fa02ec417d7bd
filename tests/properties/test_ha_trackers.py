"""Trackers with skewed clocks, on a store that is late, fails and loses answers, end with the same elections."""

from __future__ import annotations

import asyncio
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from mimir_ingest.distributor import ha_tracker
from mimir_ingest.distributor.ha_election import SILENT_MS, HaLimits
from mimir_ingest.distributor.ha_labels import Sender
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.errors import ElectionUnavailable, LimitExceeded, ReplicasDidNotMatch
from mimir_ingest.obs.ha_metrics import HaTrackerMetrics
from partitions.kv.memory import MemoryRing
from partitions.watch import RingWatcher
from tests.support.ring_stores import UnsteadyRingStore, hurried_watchers

NOW_MS = 1_700_000_000_000
CLUSTERS, REPLICAS = ("eu", "us"), ("r0", "r1", "r2")
LIMITS = HaLimits(max_clusters=2)

step = st.one_of(
    st.tuples(st.just("push"), st.sampled_from(CLUSTERS), st.sampled_from(REPLICAS)),
    st.tuples(st.just("push"), st.sampled_from(CLUSTERS), st.sampled_from(REPLICAS)),
    st.tuples(st.just("renew")),
    st.tuples(st.just("clean up")),
    st.tuples(st.just("time goes on"), st.sampled_from([0, 1, 16_000, 31_000, SILENT_MS])),
)
fault = st.sampled_from(["none", "none", "none", "late", "down", "lose"])
script = st.lists(st.tuples(fault, step), max_size=15)


class Process:
    """One distributor's tracker, its clock and its store."""

    def __init__(self, ring: MemoryRing, name: str, skew_ms: int) -> None:
        self.store = UnsteadyRingStore(ring)
        self.now_ms = NOW_MS + skew_ms
        self.watcher = RingWatcher(self.store, writer=name, now_ms=lambda: self.now_ms)
        self.tracker = HaTracker(
            self.watcher,
            limits_for=lambda _: LIMITS,
            metrics=HaTrackerMetrics.create(CollectorRegistry()),
            timeout_s=0.05,
            now_ms=lambda: self.now_ms,
        )

    async def run(self, steps: list) -> None:
        for kind, action in steps:
            self.store.down, self.store.lose_answers = kind == "down", kind == "lose"
            self.store.delay_s = 0.001 if kind == "late" else 0.0
            match action:
                case ("push", cluster, replica):
                    await self.push(cluster, replica)
                case ("renew",):
                    await asyncio.wait_for(self.patient(self.tracker.renew()), 30)
                case ("clean up",):
                    await asyncio.wait_for(self.patient(self.tracker.clean_up()), 30)
                case ("time goes on", ms):
                    self.now_ms += ms
        self.heal()

    async def patient(self, change) -> None:
        """A change that the store does not answer would wait for its time-out; let the store come back before."""
        changing = asyncio.ensure_future(change)
        await asyncio.wait([changing], timeout=0.02)
        self.heal()
        await changing

    def heal(self) -> None:
        self.store.down = self.store.lose_answers = False
        self.store.delay_s = 0.0

    async def push(self, cluster: str, replica: str) -> bool | None:
        """Return whether the replica is taken; None when nobody could say."""
        view = self.tracker.desc
        try:
            await self.tracker.admit("t", Sender(cluster, replica), LIMITS, counts=(1, 0, 0))
        except ReplicasDidNotMatch:
            return False
        except (ElectionUnavailable, LimitExceeded):
            return None
        known = view.elections.get("t", {}).get(cluster)
        assert known is None or known.replica == replica, "taken against what was known"
        return True


async def play(scripts: list, skews_ms: list[int]) -> None:
    ring = MemoryRing(superseded_kept=0)
    processes = [Process(ring, f"d{n}", skews_ms[n]) for n in range(len(scripts))]
    for process in processes:
        await process.tracker.start()
    await asyncio.gather(*(process.run(steps) for process, steps in zip(processes, scripts, strict=True)))
    for cluster in CLUSTERS:
        told = [await processes[0].push(cluster, "r0") for _ in range(50)]
        assert told[-1] is not None, "the store answers again"
    descs = [await process.watcher.refresh() for process in processes]
    assert all(desc == descs[0] for desc in descs)
    for cluster in CLUSTERS:
        told = [[await process.push(cluster, replica) for replica in REPLICAS] for process in processes]
        assert sorted(told[0]) == [False, False, True]
        assert all(row == told[0] for row in told)
    for slots in processes[0].watcher.slots.values():
        assert len(slots) <= len(processes)
    for process in processes:
        await process.tracker.close()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(script, min_size=2, max_size=3),
    st.lists(st.sampled_from([-7_200_000, -3, 0, 1, 50_000, 3_600_000]), min_size=3, max_size=3),
)
def test_whatever_fails_all_trackers_take_the_same_replica_in_the_end(scripts, skews_ms):
    with hurried_watchers(), mock.patch.object(ha_tracker, "LOOK_S", 3600.0):
        asyncio.run(play(scripts, skews_ms))
