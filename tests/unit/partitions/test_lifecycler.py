"""A process keeps its own entries in the ring: its instance and its partitions."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from partitions import edits, lifecycler
from partitions.errors import RingUnavailable
from partitions.kv.memory import MemoryRing
from partitions.lifecycle import LifecycleKnobs
from partitions.lifecycler import OTHER_PARTITIONS, OWNED_PARTITION, InstanceLifecycler, PartitionLifecycler
from partitions.model import InstanceDesc, InstanceState, OwnerState, PartitionState
from partitions.watch import RingWatcher
from tests.support.ring_stores import UnsteadyRingStore

PENDING, ACTIVE, INACTIVE = PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
ME = InstanceDesc("ingester", "ingester-zone-a-1", address="10.0.0.1:9095", zone="zone-a")


class Cluster:
    """A ring with a clock that only the test moves."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.ring = MemoryRing()
        self.opened = []

    def clock(self) -> int:
        return self.now_ms

    async def watch(self, writer):
        store = UnsteadyRingStore(self.ring)
        watcher = RingWatcher(store, writer=writer, now_ms=self.clock)
        await watcher.start()
        self.opened.append(watcher)
        return watcher, store

    def instance(self, watcher, **options):
        made = InstanceLifecycler(watcher, ME, now_ms=self.clock, **{"heartbeat_period_s": 60.0, **options})
        self.opened.append(Closing(made.close, unregister=False))
        return made

    def partitions(self, watcher, own, **options):
        made = PartitionLifecycler(watcher, ME.id, own=lambda: own, now_ms=self.clock, **{"poll_s": 0.02, **options})
        self.opened.append(made)
        return made


class Closing:
    def __init__(self, call, **options):
        self._call, self._options = call, options

    async def close(self):
        await self._call(**self._options)


@pytest.fixture
async def cluster():
    cluster = Cluster()
    yield cluster
    for opened in reversed(cluster.opened):
        await opened.close()


@pytest.fixture(autouse=True)
def _retries_are_quick(monkeypatch):
    monkeypatch.setattr(lifecycler, "RETRY_S", 0.02)


async def until(holds):
    """Let others run until something holds."""
    for _ in range(6000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never held")


# Instances


async def test_an_instance_registers_and_goes_through_its_states(cluster):
    watcher, _ = await cluster.watch("i")
    other, _ = await cluster.watch("other")
    instance = cluster.instance(watcher)
    assert instance.registered is None
    await instance.start()
    assert instance.registered.state is InstanceState.PENDING
    for state in (InstanceState.JOINING, InstanceState.ACTIVE, InstanceState.LEAVING):
        cluster.now_ms += 1000
        await instance.switch(state)
        seen = (await other.refresh()).instances("ingester")[ME.id]
        assert (seen.state, seen.heartbeat_ms, seen.registered_ms) == (state, cluster.now_ms, START_MS)
        assert (seen.address, seen.zone) == (ME.address, ME.zone)
        assert instance.state is state


async def test_heartbeats_renew_the_time_and_keep_the_rest(cluster):
    watcher, _ = await cluster.watch("i")
    beats = []
    instance = cluster.instance(watcher, heartbeat_period_s=0.02, on_heartbeat=beats.append)
    await instance.start(InstanceState.ACTIVE)
    await watcher.change(lambda desc: edits.set_read_only(desc, "ingester", ME.id, True, cluster.now_ms))
    cluster.now_ms += 15_000
    await watcher.wait_for(lambda desc: desc.instances("ingester")[ME.id].heartbeat_ms == cluster.now_ms, 60)
    assert instance.registered.state is InstanceState.ACTIVE
    assert (instance.registered.read_only, instance.registered.read_only_updated_ms) == (True, START_MS)
    await until(lambda: len(beats) >= 2)
    assert all(beats)


async def test_without_a_period_there_are_no_heartbeats(cluster):
    watcher, _ = await cluster.watch("i")
    beats = []
    instance = cluster.instance(watcher, heartbeat_period_s=0, on_heartbeat=beats.append)
    await instance.start()
    await asyncio.sleep(0.05)
    assert beats == [True]
    await instance.switch(InstanceState.ACTIVE)


async def test_an_instance_that_is_forgotten_while_alive_registers_again_at_once(cluster):
    watcher, _ = await cluster.watch("i")
    other, _ = await cluster.watch("other")
    instance = cluster.instance(watcher)
    await instance.start(InstanceState.ACTIVE)
    cluster.now_ms += 5000
    await other.change(lambda desc: edits.forget_instance(desc, "ingester", ME.id, cluster.now_ms))
    again = await other.wait_for(lambda desc: ME.id in desc.instances("ingester"), 60)
    assert again.instances("ingester")[ME.id].state is InstanceState.ACTIVE
    assert again.instances("ingester")[ME.id].registered_ms == START_MS + 5000


async def test_a_heartbeat_removes_others_of_the_ring_that_are_silent_for_long(cluster):
    watcher, _ = await cluster.watch("i")
    instance = cluster.instance(watcher, forget_after_ms=600_000)
    for name, ring in (("dead", "ingester"), ("late", "ingester"), ("dead", "querier")):
        at_ms = START_MS + (1 if name == "late" else 0)
        member = InstanceDesc(ring, name, InstanceState.ACTIVE)
        await watcher.change(lambda desc, member=member, at_ms=at_ms: edits.heartbeat(desc, member, at_ms))
    await instance.start()
    cluster.now_ms += 600_001
    await instance.switch(InstanceState.ACTIVE)
    assert list(watcher.desc.instances("ingester")) == [ME.id, "late"]
    assert list(watcher.desc.instances("querier")) == ["dead"]


async def test_an_instance_that_closes_is_taken_out_or_stays_as_leaving(cluster):
    watcher, _ = await cluster.watch("i")
    first = cluster.instance(watcher)
    await first.start(InstanceState.ACTIVE)
    await watcher.change(lambda desc: edits.add_owner(desc, ME.id, 1, START_MS))
    await first.switch(InstanceState.LEAVING)
    await first.close(unregister=False)
    await first.close(unregister=True)
    assert watcher.desc.instances("ingester")[ME.id].state is InstanceState.LEAVING
    second = cluster.instance(watcher)
    await second.start()
    assert second.registered.state is InstanceState.PENDING
    await second.close(unregister=True)
    assert watcher.desc.instances("ingester") == {}
    assert watcher.desc.entries[ME.key].deleted
    assert watcher.desc.owned_by(ME.id) == (1,), "a restart keeps its partitions"


async def test_heartbeats_go_on_after_an_outage_and_a_start_waits_for_its_end(cluster):
    watcher, store = await cluster.watch("i")
    beats = []
    instance = cluster.instance(watcher, heartbeat_period_s=0.02, on_heartbeat=beats.append)
    store.down = True
    starting = asyncio.create_task(instance.start(InstanceState.ACTIVE))
    await until(lambda: False in beats)
    assert not starting.done()
    store.down = False
    await asyncio.wait_for(starting, 60)
    store.down = True
    with pytest.raises(RingUnavailable):
        await instance.switch(InstanceState.LEAVING)
    beats.clear()
    await until(lambda: len(beats) >= 2)
    assert beats[:2] == [False, False]
    store.down = False
    await watcher.wait_for(lambda desc: desc.instances("ingester")[ME.id].state is InstanceState.LEAVING, 60)


async def test_closing_in_an_outage_ends(cluster):
    watcher, store = await cluster.watch("i")
    instance = cluster.instance(watcher)
    partitions = cluster.partitions(watcher, {1})
    await instance.start()
    partitions.start()
    partitions.remove_owner_on_shutdown = True
    await watcher.wait_for(lambda desc: desc.owned_by(ME.id), 60)
    store.down = True
    await asyncio.wait_for(instance.close(unregister=True), 60)
    await asyncio.wait_for(partitions.close(), 60)


# Partitions


async def test_an_own_partition_is_created_owned_and_active_after_its_time(cluster):
    watcher, _ = await cluster.watch("i")
    partitions = cluster.partitions(watcher, {1})
    partitions.start()
    desc = await watcher.wait_for(lambda desc: 1 in desc.partitions, 60)
    assert desc.partitions[1].state is PENDING
    assert [(o.instance, o.state) for o in desc.owners_of(1)] == [(ME.id, OwnerState.ACTIVE)]
    cluster.now_ms += 10_000
    assert await partitions.reconcile()
    assert watcher.desc.partitions[1].state is PENDING, "the owner must be older than the duration"
    cluster.now_ms += 1
    await watcher.wait_for(lambda desc: desc.partitions[1].state is ACTIVE, 60)
    assert watcher.ring.active_partitions == (1,)


async def test_a_step_is_made_at_once_when_the_ring_changes_or_when_poked(cluster):
    watcher, _ = await cluster.watch("i")
    other, _ = await cluster.watch("other")
    own = {1}
    partitions = cluster.partitions(watcher, own, poll_s=600)
    partitions.start()
    await watcher.wait_for(lambda desc: desc.owned_by(ME.id) == (1,), 60)
    await other.change(lambda desc: edits.remove_partition(desc, 1, cluster.now_ms))
    await watcher.wait_for(lambda desc: 1 not in desc.partitions, 60)
    await watcher.wait_for(lambda desc: 1 in desc.partitions, 60)
    own.add(4)
    partitions.poke()
    await watcher.wait_for(lambda desc: desc.owned_by(ME.id) == (1, 4), 60)


async def test_with_the_shutdown_marker_a_partition_is_waited_for_and_not_created(cluster):
    watcher, _ = await cluster.watch("i")
    other, _ = await cluster.watch("other")
    partitions = cluster.partitions(watcher, {1})
    partitions.knobs = LifecycleKnobs(create_partition=False)
    partitions.start()
    assert await partitions.reconcile()
    assert watcher.desc.entries == {}
    await other.change(lambda desc: edits.create_partition(desc, 1, cluster.now_ms))
    await watcher.wait_for(lambda desc: desc.owned_by(ME.id) == (1,), 60)


async def test_others_old_partitions_without_owners_are_removed_unless_needed(cluster):
    watcher, _ = await cluster.watch("i")
    for number in (5, 6):
        await watcher.change(lambda desc, number=number: edits.create_partition(desc, number, cluster.now_ms))
        await watcher.change(lambda desc, number=number: edits.change_state(desc, number, INACTIVE, cluster.now_ms))
    partitions = cluster.partitions(watcher, {1}, needed=lambda: {6})
    cluster.now_ms += 13 * HOUR_MS + 1
    partitions.start()
    await watcher.wait_for(lambda desc: set(desc.partitions) == {1, 6}, 60)


async def test_closing_keeps_the_owner_or_removes_it(cluster):
    watcher, _ = await cluster.watch("i")
    for removed in (False, True):
        partitions = cluster.partitions(watcher, {1, 2})
        partitions.start()
        await watcher.wait_for(lambda desc: desc.owned_by(ME.id) == (1, 2), 60)
        partitions.remove_owner_on_shutdown = removed
        await partitions.close()
        await partitions.close()
        assert watcher.desc.owned_by(ME.id) == (() if removed else (1, 2))
    assert set(watcher.desc.partitions) == {1, 2}


async def test_reconciles_are_counted_by_kind_and_outcome_and_go_on_after_an_outage(cluster):
    watcher, store = await cluster.watch("i")
    counted = []
    partitions = cluster.partitions(
        watcher, {1}, on_reconcile=lambda kind, succeeded: counted.append((kind, succeeded))
    )
    store.down = True
    partitions.start()
    await until(lambda: len(counted) >= 4)
    assert set(counted) == {(OWNED_PARTITION, False), (OTHER_PARTITIONS, True)}
    store.down = False
    counted.clear()
    await watcher.wait_for(lambda desc: 1 in desc.partitions, 60)
    await until(lambda: (OWNED_PARTITION, True) in counted)


async def test_a_step_with_nothing_to_do_does_not_ask_the_store(cluster):
    watcher, store = await cluster.watch("i")
    partitions = cluster.partitions(watcher, {1})
    assert await partitions.reconcile()
    end = cluster.ring.next_position
    store.down = True
    assert await partitions.reconcile()
    assert cluster.ring.next_position == end


async def test_two_owners_of_a_partition_agree(cluster):
    one, _ = await cluster.watch("ingester-zone-a-1")
    other, _ = await cluster.watch("ingester-zone-b-1")
    lifecyclers = [
        PartitionLifecycler(watcher, watcher.writer, own=lambda: {1}, now_ms=cluster.clock, poll_s=0.02)
        for watcher in (one, other)
    ]
    for made in lifecyclers:
        made.knobs = replace(made.knobs, min_partition_owners_count=2)
        made.start()
    await one.wait_for(lambda desc: len(desc.owners_of(1)) == 2, 60)
    cluster.now_ms += 10_001
    await one.wait_for(lambda desc: desc.partitions[1].state is ACTIVE, 60)
    for made in lifecyclers:
        await made.close()
    assert await one.refresh() == await other.refresh()
