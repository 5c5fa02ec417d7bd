"""What the HA tracker tells requests, what it stores and how often, and how several of them agree."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.distributor import ha_tracker
from mimir_ingest.distributor.ha_election import SILENT_MS, HaLimits
from mimir_ingest.distributor.ha_labels import Sender
from mimir_ingest.distributor.ha_tracker import HaTracker
from mimir_ingest.errors import ElectionUnavailable, LimitExceeded, ReplicasDidNotMatch
from mimir_ingest.obs.ha_metrics import ElectionCollector, HaTrackerMetrics
from partitions.kv.memory import MemoryRing
from partitions.watch import RingWatcher
from tests.support.ring_stores import UnsteadyRingStore

T0 = 1_700_000_000_000


@pytest.fixture(autouse=True)
def nothing_happens_by_itself(monkeypatch):
    monkeypatch.setattr(ha_tracker, "LOOK_S", 3600.0)
    monkeypatch.setattr(ha_tracker.random, "uniform", lambda low, high: (low + high) / 2)


class CountingStore(UnsteadyRingStore):
    """Counts appends."""

    appends = 0

    async def append(self, records):
        self.appends += 1
        return await super().append(records)


class World:
    """Trackers of one ring, with one clock."""

    def __init__(self, limits: HaLimits | None = None) -> None:
        self.ring = MemoryRing()
        self.now_ms = T0
        self.limits = limits or HaLimits()
        self.stores: dict[str, CountingStore] = {}
        self.registries: dict[str, CollectorRegistry] = {}

    @asynccontextmanager
    async def tracker(self, name="a", **options):
        store = self.stores[name] = CountingStore(self.ring)
        registry = self.registries[name] = CollectorRegistry()
        watcher = RingWatcher(store, writer=name, now_ms=lambda: self.now_ms)
        ElectionCollector(registry, view=lambda: watcher.desc, elected_replica=True)
        tracker = HaTracker(
            watcher,
            limits_for=lambda _: self.limits,
            metrics=HaTrackerMetrics.create(registry),
            now_ms=lambda: self.now_ms,
            **options,
        )
        await tracker.start()
        try:
            yield tracker
        finally:
            await tracker.close()

    async def push(self, tracker, replica, *, cluster="eu", tenant="t", sample_ms=None) -> str:
        """Push once; return what became of it."""
        sender = Sender(cluster, replica)
        try:
            await tracker.admit(tenant, sender, self.limits, counts=(2, 1, 5), sample_ms=sample_ms)
        except (ReplicasDidNotMatch, LimitExceeded, ElectionUnavailable) as error:
            return error.message
        return "taken"

    def metric(self, metric, tracker="a", **labels):
        return self.registries[tracker].get_sample_value(f"cortex_{metric}", labels)


def refused(replica, elected):
    return f"replicas did not match, rejecting sample: replica={replica}, elected={elected}"


async def until(holds):
    for _ in range(24000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never held")


async def test_the_first_replica_is_elected_in_its_request_and_the_others_are_refused():
    world = World()
    async with world.tracker() as tracker:
        assert await world.push(tracker, "r0") == "taken"
        assert await world.push(tracker, "r1") == refused("r1", "r0")
        assert await world.push(tracker, "r1", cluster="us") == "taken", "clusters are apart"
        assert await world.push(tracker, "r1", tenant="u") == "taken", "and so are tenants"
        await until(lambda: world.metric("ha_tracker_elected_replica_change_propagation_time_seconds_count") == 3)
        eu = {"user": "t", "cluster": "eu"}
        assert world.metric("distributor_deduped_samples_total", **eu) == 3, "exemplars are no samples"
        assert world.metric("ha_tracker_kv_store_cas_total", **eu) == 1
        assert world.metric("ha_tracker_elected_replica_changes_total", **eu) == 1
        assert world.metric("ha_tracker_elected_replica_timestamp_seconds", **eu) == T0 / 1000
        assert world.metric("ha_tracker_last_election_timestamp_seconds", **eu) == T0 / 1000
        assert world.metric("ha_tracker_elected_replica_status", **eu, replica="r0") == 1


async def test_a_refused_request_says_what_was_dropped_on_purpose():
    world = World()
    async with world.tracker() as tracker:
        await world.push(tracker, "r0")
        with pytest.raises(ReplicasDidNotMatch) as error:
            await tracker.admit("t", Sender("eu", "r1"), world.limits, counts=(2, 1, 5))
        assert (error.value.http_status, error.value.dropped) == (202, (2, 1, 5))


async def test_the_elected_one_that_dies_is_followed_by_another_once_and_stays_out():
    world = World()
    async with world.tracker() as tracker:
        for second in range(0, 12, 2):
            world.now_ms = T0 + second * 1000
            assert await world.push(tracker, "r0") == "taken"
            assert await world.push(tracker, "r1") == refused("r1", "r0")
            await tracker.renew()
        told = []
        for second in range(12, 60, 2):
            world.now_ms = T0 + second * 1000
            told.append(await world.push(tracker, "r1"))
            await tracker.renew()
        # Seen last at 10 s, which was written down when the 0 s before were old; it is over 30 s after that.
        first = told.index("taken")
        assert 12 + 2 * first == 42
        assert set(told[:first]) == {refused("r1", "r0")}
        assert set(told[first:]) == {"taken"}
        assert await world.push(tracker, "r0") == refused("r0", "r1")
        assert world.metric("ha_tracker_elected_replica_changes_total", user="t", cluster="eu") == 2


async def test_store_traffic_does_not_grow_with_requests_and_many_clusters_are_one_append():
    world = World(HaLimits(max_clusters=0))
    clusters = [f"c{i}" for i in range(300)]
    async with world.tracker() as tracker:
        store = world.stores["a"]
        told = await asyncio.gather(*(world.push(tracker, r, cluster=c) for c in clusters for r in ("r0", "r1")))
        assert told.count("taken") == 300
        assert store.appends <= 2
        for second in range(1, 61):
            world.now_ms = T0 + second * 1000
            for cluster in clusters:
                assert await world.push(tracker, "r0", cluster=cluster) == "taken"
            await tracker.renew()
        assert store.appends <= 2 + 4, "once in 15 s, whatever is pushed"


async def test_a_tenant_has_its_number_of_clusters_also_when_all_come_at_once():
    world = World(HaLimits(max_clusters=3))
    too_many = (
        "the write request has been rejected because the maximum number of high-availability (HA) clusters has been "
        "reached for this tenant (limit: 3) (err-mimir-tenant-too-many-ha-clusters). To adjust the related per-tenant "
        "limit, configure -distributor.ha-tracker.max-clusters, or contact your service administrator."
    )
    async with world.tracker() as tracker:
        told = await asyncio.gather(*(world.push(tracker, "r0", cluster=f"c{i}") for i in range(10)))
        assert sorted(told) == sorted(["taken"] * 3 + [too_many] * 7)
        assert await world.push(tracker, "r0", cluster="late") == too_many
        assert await world.push(tracker, "r0", tenant="u") == "taken"


async def test_while_the_store_is_down_known_clusters_go_on_and_new_ones_fail():
    world = World()
    async with world.tracker(timeout_s=2.0) as tracker:
        assert await world.push(tracker, "r0") == "taken"
        world.stores["a"].down = True
        world.now_ms += 60_000
        assert await world.push(tracker, "r0") == "taken"
        assert await world.push(tracker, "r1") == refused("r1", "r0")
        await tracker.renew()
        told = await world.push(tracker, "r0", cluster="new")
        assert told.startswith("the election of a replica")
        world.stores["a"].down = False
        await until(lambda: tracker.waits_for is None)
        told = [await world.push(tracker, "r0", cluster="new") for _ in range(100)]
        assert told[-1] == "taken"


async def test_an_election_outlives_its_processes():
    world = World()
    async with world.tracker("a") as tracker:
        assert await world.push(tracker, "r1") == "taken"
    world.now_ms += 20_000
    async with world.tracker("b") as tracker:
        assert await world.push(tracker, "r0") == refused("r0", "r1")
        assert await world.push(tracker, "r1") == "taken"
        await tracker.renew()
        assert tracker.desc.elections["t"]["eu"].received_ms == world.now_ms


async def test_two_trackers_elect_one_replica_between_them():
    world = World()
    async with world.tracker("a") as a, world.tracker("b") as b:
        told = await asyncio.gather(world.push(a, "r0"), world.push(b, "r1"))
        assert sorted(told)[1] == "taken"
        assert sorted(told)[0] in (refused("r0", "r1"), refused("r1", "r0"))
        winner = "r0" if told[0] == "taken" else "r1"
        assert {await world.push(a, winner), await world.push(b, winner)} == {"taken"}

        # One of them sees the elected one, the other one sees only the other one: nobody fails over.
        loser = "r1" if winner == "r0" else "r0"
        for _ in range(100):
            world.now_ms += 1000
            assert await world.push(a, winner) == "taken"
            assert await world.push(b, loser) == refused(loser, winner)
            await asyncio.gather(a.renew(), b.renew())
            await until(lambda: a.desc == b.desc)
        # The elected one dies: both would have the other one, one of them says so, and both do.
        for _ in range(40):
            world.now_ms += 1000
            await asyncio.gather(world.push(b, loser), world.push(a, loser))
            await asyncio.gather(a.renew(), b.renew())
            await until(lambda: a.desc == b.desc)
        assert {await world.push(a, loser), await world.push(b, loser)} == {"taken"}
        assert a.desc.elections["t"]["eu"].elected_changes == 2


async def test_a_silent_cluster_is_given_up_and_forgotten_everywhere():
    world = World(HaLimits(max_clusters=1))
    async with world.tracker("a") as a, world.tracker("b") as b:
        assert await world.push(a, "r0") == "taken"
        await until(lambda: "t" in b.desc.elections)
        assert await world.push(b, "r1") == refused("r1", "r0")
        world.now_ms += SILENT_MS - 1
        await a.clean_up()
        assert "t" in a.desc.elections
        world.now_ms += 1
        await a.clean_up()
        await until(lambda: "t" not in b.desc.elections)
        labels = {"user": "t", "cluster": "eu"}
        await until(lambda: world.metric("distributor_deduped_samples_total", "b", **labels) is None)
        assert world.metric("ha_tracker_elected_replica_timestamp_seconds", **labels) is None
        assert world.metric("ha_tracker_replicas_cleanup_started_total") == 2
        assert world.metric("ha_tracker_replicas_cleanup_marked_for_deletion_total") == 1
        assert await world.push(b, "r1", cluster="us") == "taken", "there is room again"


async def test_what_is_due_is_done_without_being_asked(monkeypatch):
    monkeypatch.setattr(ha_tracker, "LOOK_S", 0.01)
    world = World()
    async with world.tracker() as tracker:
        await world.push(tracker, "r0")
        world.now_ms += 30_000
        await world.push(tracker, "r1")
        await until(lambda: tracker.desc.elections["t"]["eu"].replica == "r1")


async def test_the_earliest_sample_of_a_request_decides_where_samples_are_asked():
    world = World(HaLimits(sample_failover_timeout_ms=50_000))
    async with world.tracker() as tracker:
        await world.push(tracker, "r0", sample_ms=T0)
        world.now_ms += 60_000
        assert await world.push(tracker, "r1", sample_ms=T0 + 49_999) == refused("r1", "r0")
        await tracker.renew()
        assert await world.push(tracker, "r1", sample_ms=T0 + 99_000) == refused("r1", "r0")
        await tracker.renew()
        assert await world.push(tracker, "r1", sample_ms=T0 + 99_000) == "taken"
