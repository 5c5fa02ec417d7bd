"""Ingesters of one log, bucket and ring: leases move, partitions leave, nothing is lost or stored twice."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogUnavailable, StoreUnavailable
from mimir_ingest.ingester.downscale import Downscale
from mimir_ingest.ingester.drain import FENCE_S, DrainProbe
from mimir_ingest.ingester.membership import Membership
from mimir_ingest.ingester.ownership import Ownership, OwnershipPace
from mimir_ingest.ingester.ownership_plan import OwnershipKnobs
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.ingester.shutdown_marker import ShutdownMarker
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.obs.metrics import IngesterMetrics
from partitions import edits
from partitions.kv.memory import MemoryRing, MemoryRingStore
from partitions.lifecycle import LifecycleKnobs
from partitions.lifecycler import InstanceLifecycler, PartitionLifecycler
from partitions.model import InstanceDesc, PartitionDesc, PartitionState
from partitions.watch import RingWatcher
from tests.support.ingester_world import LIMITS, SETTINGS, World, held, row, until

PACE = OwnershipPace(look_s=0.02, linger_s=0.0, adopt_period_s=0.1)


class Member:
    """One ingester process: its place in the ring, what it owns, what it consumes."""

    def __init__(self, cluster: Cluster, name: str, *, zone: str = "a", own_partition: int | None = None) -> None:
        self.name = name
        self.skipped_s = 0.0
        metrics = IngesterMetrics.create(CollectorRegistry())
        self.watcher = RingWatcher(MemoryRingStore(cluster.ring), writer=name)
        self.ingester = Ingester(
            cluster.world.log,
            cluster.bucket,
            metrics=metrics,
            default_record_settings=lambda _tenant: LIMITS,
            partition_settings=SETTINGS,
            snapshot_folder=cluster.world.folder / name,
            snapshot_interval_s=3600.0,
            retention_s=0.0,
            trim_delay_s=0.0,
            fetch_max_wait_s=0.05,
        )
        self.instance = InstanceLifecycler(self.watcher, InstanceDesc("ingester", name, address="x:1", zone=zone))
        self.probe = DrainProbe(cluster.world.log, cluster.bucket)
        self.ownership = Ownership(
            self.watcher,
            self.ingester,
            cluster.world.log,
            self.probe,
            knobs=OwnershipKnobs(name, own_partition),
            pace=PACE,
            monotonic_s=lambda: time.monotonic() + self.skipped_s,
        )
        self.lifecycler = PartitionLifecycler(
            self.watcher,
            name,
            own=self.ownership.own,
            needed=self.ownership.needed,
            knobs=LifecycleKnobs(min_partition_owners_duration_ms=0),
            poll_s=0.05,
        )
        self.downscale = Downscale(
            self.watcher,
            ShutdownMarker(cluster.world.folder / name),
            self.probe,
            knobs=OwnershipKnobs(name, own_partition),
            fenced=self.ownership.fenced,
            unregister_by_default=True,
            requested=metrics.prepare_shutdown_requested,
        )
        self.membership = Membership(
            name,
            self.watcher,
            self.ingester,
            instance=self.instance,
            ownership=self.ownership,
            lifecycler=self.lifecycler,
            downscale=self.downscale,
            flush_on_shutdown=False,
        )

    async def start(self, log: EmbeddedLog, *, leased: bool) -> None:
        await self.watcher.start()
        if leased:
            existing = await log.partitions()
            await self.watcher.change(
                lambda desc: [] if desc.partitions else [PartitionDesc(p, PartitionState.ACTIVE, 1) for p in existing]
            )
        await self.membership.start()
        await until(lambda: self.membership.ready_reason() is None)

    async def close(self) -> None:
        await self.membership.close()
        await self.watcher.close()

    def owned(self) -> set[int]:
        """What the ring says it owns."""
        return set(self.watcher.desc.owned_by(self.name))


class ShakyBucket(Bucket):
    """Takes nothing while it is told so."""

    down = False

    def write_atomic(self, path, data):
        if self.down:
            raise StoreUnavailable("no route to the bucket")
        super().write_atomic(path, data)


class Cluster:
    """What members share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bucket = ShakyBucket(world.bucket.url)
        self.ring = MemoryRing()

    @asynccontextmanager
    async def member(self, name: str, *, zone: str = "a", own_partition: int | None = None):
        member = Member(self, name, zone=zone, own_partition=own_partition)
        await member.start(self.world.log, leased=own_partition is None)
        try:
            yield member
        finally:
            await member.close()

    async def everything(self, *members: Member) -> dict[str, list[int]]:
        """What the heads of the registered owners hold."""
        found: dict[str, list[int]] = {}
        for member in members:
            for partition in member.owned():
                answer = await held(member.ingester, partitions={partition})
                found |= {i: sorted({*found.get(i, []), *times}) for i, times in answer.items()}
        return found


@pytest.fixture
async def cluster(tmp_path):
    world = World(tmp_path)
    world.log = EmbeddedLog(tmp_path / "log", partitions=4, clock_ms=world.clock)
    await world.log.start()
    yield Cluster(world)
    await world.log.close()


async def test_leases_spread_over_a_second_member_without_a_moment_that_nobody_can_answer(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("a1") as first:
        await until(lambda: first.owned() == {0, 1, 2, 3})
        assert first.ingester.ready_reason() is None
        pushed = {str(p): [t] for p in range(4)}
        for partition in range(4):
            await world.push([row(partition, t)], partition=partition)
        await first.ingester.flush(None, wait=True)
        for partition in range(4):
            offset = await world.push([row(partition, t + 1)], partition=partition)
            pushed[str(partition)] = [t + 1]
            await first.ingester.wait_consumed(partition, offset + 1, 60)
        owners_seen: set[int] = set()

        def watch(desc) -> None:
            owners_seen.add(min(len(desc.owners_of(p)) for p in range(4)))

        async with cluster.member("a2") as second:
            while len(second.owned()) < 2 or len(first.owned()) > 2:
                watch(first.watcher.desc)
                await asyncio.sleep(0.005)
            assert 0 not in owners_seen
            assert first.owned() | second.owned() == {0, 1, 2, 3}
            assert await cluster.everything(first, second) == pushed
            await until(lambda: first.ingester.owned == first.owned())
            gone = min(second.owned())
            with pytest.raises(LogUnavailable, match=f"partition {gone} is not owned here"):
                await held(first.ingester, partitions={gone})
        # It left the ring: its leases go back.
        await until(lambda: first.owned() == {0, 1, 2, 3})
        await until(lambda: first.ingester.owned == {0, 1, 2, 3})
        assert await cluster.everything(first) == pushed


async def test_a_member_that_prepares_to_go_hands_its_leases_over_takes_them_back_and_then_leaves(cluster):
    async with cluster.member("a1") as first:
        async with cluster.member("a2") as second:
            await until(lambda: len(first.owned()) == len(second.owned()) == 2)
            asked = await second.downscale.prepare_partition_downscale()
            assert asked.timestamp_s
            await until(lambda: first.owned() == {0, 1, 2, 3} and not second.owned())
            again = await second.downscale.prepare_partition_downscale()
            assert (again.timestamp_s, again.partitions) == (asked.timestamp_s, ())
            assert {p.state for p in first.watcher.desc.partitions.values()} == {PartitionState.ACTIVE}
            assert (await second.downscale.cancel_partition_downscale()).timestamp_s == 0
            await until(lambda: len(first.owned()) == len(second.owned()) == 2)
            await second.downscale.prepare_partition_downscale()
            await until(lambda: first.owned() == {0, 1, 2, 3} and not second.owned())
            second.downscale.prepare_shutdown()
        await until(lambda: "a2" not in first.watcher.desc.instances("ingester"))
        assert first.owned() == {0, 1, 2, 3}
        assert not (cluster.world.folder / "a2" / "shutdown-requested.txt").exists()


async def test_every_zone_has_an_owner_of_each_partition_and_blocks_are_stored_once(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(cluster.member(name, zone=name[0])) for name in ("a1", "a2", "b1", "b2")
        ]
        await until(lambda: all(len(m.owned()) == 2 for m in members))
        for step in range(3):
            for partition in range(4):
                await world.push([row(partition, t + step)], partition=partition)
        await asyncio.gather(*(m.ingester.flush(None, wait=True) for m in members))
        blocks = world.blocks()
        stored = [(labels["i"], at) for series in blocks.values() for labels, points in series for at, _ in points]
        assert sorted(stored) == sorted((str(p), t + step) for p in range(4) for step in range(3))
        assert len(blocks) == 4


async def test_an_id_with_a_number_grows_the_topic_and_activates_its_partition(cluster):
    async with cluster.member("ingester-zone-a-5", own_partition=5) as member:
        assert member.ingester.owned == {5}
        await until(lambda: member.owned() == {5})
        await until(lambda: member.watcher.desc.partitions[5].state is PartitionState.ACTIVE)
        assert 5 in await cluster.world.log.partitions()


async def test_an_inactive_partition_is_cut_behind_the_fence_and_is_drained_then(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("a1") as member:
        await until(lambda: 3 in member.owned())
        offset = await world.push([row(0, t)], partition=3)
        await member.ingester.wait_consumed(3, offset + 1, 60)
        await member.watcher.change(
            lambda desc: edits.change_state(desc, 3, PartitionState.INACTIVE, time.time_ns() // 10**6)
        )
        await asyncio.sleep(0.2)
        assert not member.ownership.fenced(3)
        assert not (await member.probe.probe(3)).drained
        assert await world.log.end_offset(3) == offset + 1
        member.skipped_s = FENCE_S + 1
        await until(lambda: len(world.blocks()) == 1)
        await until(lambda: member.ownership.fenced(3))
        async with asyncio.timeout(120):
            while not (await member.probe.probe(3)).drained:  # noqa: ASYNC110 - the bucket tells nobody
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert await world.log.end_offset(3) == offset + 2
        assert 3 in member.owned()


async def test_a_record_that_slipped_into_a_partition_that_left_the_ring_is_shipped_and_the_partition_let_go(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("a1") as first, cluster.member("b1", zone="b") as second:
        await until(lambda: first.owned() == second.owned() == {0, 1, 2, 3})
        await first.watcher.change(lambda desc: edits.remove_partition(desc, 2, 1))
        for member in (first, second):
            await until(lambda m=member: m.owned() == m.ingester.owned == {0, 1, 3})
        await world.push([row(7, t)], partition=2)
        await until(lambda: len(world.blocks()) == 1)
        for member in (first, second):
            await until(lambda m=member: m.owned() == m.ingester.owned == {0, 1, 3})
        assert 2 not in first.watcher.desc.partitions
        ends = await world.log.end_offset(2)
        await asyncio.sleep(0.5)
        assert await world.log.end_offset(2) == ends
        assert (await first.probe.probe(2)).drained


async def test_what_was_held_when_the_partition_left_the_ring_is_shipped_before_its_owner_lets_go(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("a1") as member:
        await until(lambda: member.owned() == {0, 1, 2, 3})
        offset = await world.push([row(7, t)], partition=2)
        await member.ingester.wait_consumed(2, offset + 1, 60)
        await member.watcher.change(lambda desc: edits.remove_partition(desc, 2, 1))
        await until(lambda: member.owned() == {0, 1, 3})
        assert len(world.blocks()) == 1


async def test_a_partition_that_nobody_owns_stays_in_the_ring_until_it_is_shipped(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("ingester-0", own_partition=0) as member:
        await until(lambda: member.owned() == {0})
        await world.push([row(7, t)], partition=1)
        old = [PartitionDesc(number, PartitionState.INACTIVE, 1) for number in (1, 9)]
        await member.watcher.change(lambda _desc: old)
        await until(lambda: member.watcher.desc.partitions.keys() == {0})
        assert len(world.blocks()) == 1
        assert member.ingester.owned == {0}


async def test_a_plain_restart_keeps_the_owner_entry_and_leaves_the_samples_to_log_and_snapshot(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("ingester-zone-b-0", zone="b", own_partition=0) as other:
        async with cluster.member("ingester-zone-a-0", own_partition=0) as member:
            offset = await world.push([row(0, t)])
            await member.ingester.wait_consumed(0, offset + 1, 60)
        await until(lambda: "ingester-zone-a-0" not in other.watcher.desc.instances("ingester"))
        assert other.watcher.desc.owned_by("ingester-zone-a-0") == (0,)
        assert world.blocks() == {}
    async with cluster.member("ingester-zone-a-0", own_partition=0) as member:
        assert await held(member.ingester) == {"0": [t]}


async def test_a_prepared_shutdown_ships_everything_leaves_the_ring_and_only_then_unsets_its_marker(cluster):
    world, t = cluster.world, cluster.world.clock.now_ms
    async with cluster.member("ingester-zone-b-0", zone="b", own_partition=0) as other:
        async with cluster.member("ingester-zone-a-0", own_partition=0) as member:
            offset = await world.push([row(0, t)])
            await member.ingester.wait_consumed(0, offset + 1, 60)
            member.downscale.prepare_shutdown()
            marker = world.folder / "ingester-zone-a-0" / "shutdown-requested.txt"
            cluster.bucket.down = True
            closing = asyncio.create_task(member.membership.close())
            await until(lambda: other.watcher.desc.instances("ingester")["ingester-zone-a-0"].state.name == "LEAVING")
            await asyncio.sleep(0.3)
            assert marker.exists()
            assert member.owned() == {0}
            cluster.bucket.down = False
            await closing
            assert not marker.exists()
            assert len(world.blocks()) == 1
        await until(lambda: "ingester-zone-a-0" not in other.watcher.desc.instances("ingester"))
        assert other.watcher.desc.owned_by("ingester-zone-a-0") == ()
        assert other.owned() == {0}


async def test_an_ingester_that_could_not_ship_stays_an_owner_keeps_its_marker_and_creates_nothing_at_its_next_start(
    cluster,
):
    world = cluster.world
    marker = world.folder / "ingester-zone-a-5" / "shutdown-requested.txt"
    async with cluster.member("ingester-zone-a-5", own_partition=5) as member:
        await until(lambda: member.watcher.desc.partitions[5].state is PartitionState.ACTIVE)
        member.downscale.prepare_shutdown()
        await world.log.append(5, b"a", b"?", 77, timeout_s=60)
        await until(lambda: member.membership.ready_reason() is not None)
        assert "partition 5 is stopped: record 0" in member.membership.ready_reason()
        await member.membership.close()
        assert member.owned() == {5}
        assert marker.exists()
        await member.watcher.change(
            lambda desc: [*edits.remove_partition(desc, 5, 1), *edits.remove_owner(desc, member.name, 5, 1)]
        )
    late = Member(cluster, "ingester-zone-a-5", own_partition=5)
    await late.watcher.start()
    await late.membership.start()
    assert late.downscale.leaving
    await asyncio.sleep(0.3)
    assert 5 not in late.watcher.desc.partitions
    assert late.owned() == set()
    await late.close()


async def test_a_log_that_does_not_answer_at_the_start_is_waited_for_and_readiness_says_so(cluster, monkeypatch):
    real, down = EmbeddedLog.partitions, [True]

    async def partitions(self):
        if down:
            raise LogUnavailable("no broker answers")
        return await real(self)

    monkeypatch.setattr(EmbeddedLog, "partitions", partitions)
    member = Member(cluster, "ingester-zone-a-1", own_partition=1)
    await member.watcher.start()
    await member.membership.start()
    await until(lambda: member.membership.ready_reason() == "the ingester is not started (no broker answers)")
    down.clear()
    await until(lambda: member.membership.ready_reason() is None)
    assert member.owned() == {1}
    await member.close()
