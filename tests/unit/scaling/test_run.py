"""Scaling procedures against a ring, a log and a bucket in memory: interrupted, resumed, at the same time."""

import asyncio

import pytest

from mimir_ingest.ingester.drain import FENCE_S, Drain
from mimir_ingest.scaling.run import Cluster, ScalingRefused, ScalingTimeout, run_downscale, run_upscale
from mimir_ingest.wire.record import VERSION_CONTROL
from partitions import edits
from partitions.kv.memory import MemoryRingStore
from partitions.model import PartitionState
from partitions.watch import RingWatcher
from tests.support.memory_log import MemoryLog

NOW_MS = 1_700_000_000_000


class Drains:
    """Says that a partition is drained once the log has as many cut records as it was told to want."""

    def __init__(self, log, cuts_needed=1):
        self.log, self.cuts_needed, self.probes = log, cuts_needed, 0

    async def probe(self, partition):
        self.probes += 1
        cuts = [r for r in self.log.records[partition] if r.version == VERSION_CONTROL]
        left = len(cuts) < self.cuts_needed
        return Drain(partition, len(self.log.records[partition]), None, 0, pending=left)


class World:
    """A started cluster with a clock that runs a second a look."""

    def __init__(self, partitions=2):
        self.store = MemoryRingStore()
        self.watcher = RingWatcher(self.store, writer="operator", now_ms=lambda: NOW_MS)
        self.log = MemoryLog(partitions)
        self.drains = Drains(self.log)
        self.seconds = 0.0
        self.told = []

    async def __aenter__(self):
        await self.watcher.start()
        for number in self.log.records:
            await self.watcher.change(lambda desc, n=number: edits.create_partition(desc, n, NOW_MS))
            await self.watcher.change(lambda desc, n=number: edits.change_state(desc, n, PartitionState.ACTIVE, NOW_MS))
        return self

    async def __aexit__(self, *_):
        await self.watcher.close()

    @property
    def cluster(self):
        return Cluster(self.watcher, self.log, 60_000, None)

    def tick(self):
        self.seconds += 1
        return self.seconds

    async def downscale(self, partition=1, **options):
        return await run_downscale(
            self.cluster,
            self.drains,
            partition,
            tell=self.told.append,
            now_ms=lambda: NOW_MS,
            monotonic_s=self.tick,
            look_s=0,
            **{"timeout_s": 20} | options,
        )

    def state(self, partition):
        return self.watcher.desc.partitions[partition].state


async def test_a_partition_goes_after_fence_cut_and_drain_and_each_step_is_told():
    async with World() as world:
        done = await world.downscale()
        assert done == "partition 1 is out of the ring"
        assert list(world.watcher.desc.partitions) == [0]
        assert [record.version for record in world.log.records[1]] == [VERSION_CONTROL]
        assert world.told[0] == "the partition is INACTIVE: no new series go there"
        assert world.told[-2:] == [
            "a record that cuts everything held was appended",
            "partition 1 was removed from the ring",
        ]
        assert world.seconds >= FENCE_S
        assert await world.downscale() == "partition 1 is out of the ring"


async def test_nothing_is_judged_before_the_fence():
    async with World() as world:
        world.drains.cuts_needed = 0
        task = asyncio.create_task(world.downscale())
        while not any("until no distributor" in text for text in world.told):  # noqa: ASYNC110 - told by a callback
            await asyncio.sleep(0)
        assert world.drains.probes == 0
        await task
        assert world.log.records[1] == []


async def test_an_interrupted_run_is_taken_up_where_the_ring_stands():
    async with World() as world:
        task = asyncio.create_task(world.downscale())
        await world.watcher.wait_for(lambda desc: desc.partitions[1].state is PartitionState.INACTIVE, 60)
        task.cancel()
        await asyncio.wait([task])
        assert world.state(1) is PartitionState.INACTIVE
        assert await world.downscale() == "partition 1 is out of the ring"


async def test_one_that_does_not_drain_is_given_up_in_time_and_stays():
    async with World() as world:
        world.drains.cuts_needed = 99
        with pytest.raises(ScalingTimeout, match="to be in blocks"):
            await world.downscale(timeout_s=0.3)
        assert world.state(1) is PartitionState.INACTIVE
        assert len(world.log.records[1]) == 1


async def test_the_last_active_partition_stays_also_when_two_are_taken_out_at_once():
    async with World() as world:
        done = await asyncio.gather(world.downscale(0), world.downscale(1), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in done) == ["ScalingRefused", "str"]
        assert [p.state for p in world.watcher.desc.partitions.values()] == [PartitionState.ACTIVE]
        with pytest.raises(ScalingRefused, match="last ACTIVE"):
            await world.downscale(next(iter(world.watcher.desc.partitions)))


async def test_what_somebody_takes_back_meanwhile_stays():
    async with World() as world:
        drains = world.drains
        probe = drains.probe

        async def taken_back(partition):
            found = await probe(partition)
            if not found.pending:
                change = edits.change_state
                await world.watcher.change(lambda desc: change(desc, 1, PartitionState.ACTIVE, NOW_MS))
            return found

        drains.probe = taken_back
        with pytest.raises(ScalingRefused, match="changed meanwhile: it is ACTIVE now"):
            await world.downscale()
        assert world.state(1) is PartitionState.ACTIVE


async def test_scaling_out_adds_to_log_and_ring_and_waits_for_owners():
    async with World() as world:
        task = asyncio.create_task(
            run_upscale(world.cluster, 4, tell=world.told.append, now_ms=lambda: NOW_MS, look_s=0, timeout_s=60)
        )
        await world.watcher.wait_for(lambda desc: len(desc.partitions) == 4, 60)
        assert len(world.log.records) == 4
        for number in (2, 3):
            assert world.state(number) is PartitionState.PENDING
            await world.watcher.change(
                lambda desc, n=number: edits.change_state(desc, n, PartitionState.ACTIVE, NOW_MS)
            )
        assert await task == "partitions 0 to 3 are ACTIVE"


async def test_scaling_out_takes_back_what_was_on_its_way_out():
    async with World() as world:
        await world.watcher.change(lambda desc: edits.change_state(desc, 1, PartitionState.INACTIVE, NOW_MS))
        assert await run_upscale(world.cluster, 2, look_s=0, timeout_s=60) == "partitions 0 to 1 are ACTIVE"
