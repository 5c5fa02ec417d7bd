"""The endpoints' decisions and answers, over a ring in memory (spec: ingest storage, section 7)."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Gauge

from mimir_ingest.errors import StoreUnavailable
from mimir_ingest.ingester.downscale import Downscale
from mimir_ingest.ingester.drain import Drain
from mimir_ingest.ingester.lease_downscale import DownscaleRefused
from mimir_ingest.ingester.ownership_plan import OwnershipKnobs
from mimir_ingest.ingester.shutdown_marker import ShutdownMarker
from partitions import edits
from partitions.errors import PartitionDoesNotExist, StateChangeLocked
from partitions.kv.memory import MemoryRingStore
from partitions.model import PartitionDesc, PartitionState
from partitions.watch import RingWatcher

NOW_MS = 1_700_000_000_500


class Probe:
    """Says what it is told to."""

    def __init__(self) -> None:
        self.answer: Drain | Exception = Drain(13, 100, 90, 0, pending=True)

    async def probe(self, partition: int) -> Drain:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    """A watcher with one partition, and the endpoints of its owner."""

    def __init__(self, folder) -> None:
        self.watcher = RingWatcher(MemoryRingStore(), writer="ingester-zone-a-13")
        self.probe = Probe()
        self.fenced = False
        self.now_ms = NOW_MS
        self.marker = ShutdownMarker(folder)
        self.gauge = Gauge("requested", "", registry=CollectorRegistry())
        self.downscale = self.endpoints(13)

    def endpoints(self, own_partition, *, unregister=False) -> Downscale:
        return Downscale(
            self.watcher,
            self.marker,
            self.probe,
            knobs=OwnershipKnobs("ingester-zone-a-13", own_partition),
            fenced=lambda _partition: self.fenced,
            unregister_by_default=unregister,
            requested=self.gauge,
            now_ms=lambda: self.now_ms,
        )

    async def set(self, state: PartitionState) -> None:
        await self.watcher.change(lambda _desc: [PartitionDesc(13, state, NOW_MS - 60_000)])


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.watcher.start()
    yield world
    await world.watcher.close()


async def test_post_makes_an_active_partition_inactive_and_delete_brings_it_back(world):
    await world.set(PartitionState.ACTIVE)
    assert (await world.downscale.partition_downscale()).to_json()["timestamp"] == 0
    body = (await world.downscale.prepare_partition_downscale()).to_json()
    assert body == {
        "timestamp": 1_700_000_000,
        "partition": 13,
        "state": "INACTIVE",
        "fenced": False,
        "drained": False,
        "log_end_offset": 100,
        "cut_offset": 90,
    }
    world.now_ms += 5000
    assert (await world.downscale.prepare_partition_downscale()).timestamp_s == 1_700_000_000
    assert (await world.downscale.cancel_partition_downscale()).to_json() == {
        "timestamp": 0,
        "partition": 13,
        "state": "ACTIVE",
    }
    assert (await world.downscale.cancel_partition_downscale()).timestamp_s == 0
    assert world.watcher.desc.partitions[13].state is PartitionState.ACTIVE


async def test_a_pending_partition_is_refused_with_an_empty_text_and_left_alone_by_delete(world):
    await world.set(PartitionState.PENDING)
    with pytest.raises(DownscaleRefused) as refused:
        await world.downscale.prepare_partition_downscale()
    assert (refused.value.http_status, refused.value.message) == (409, "")
    assert (await world.downscale.cancel_partition_downscale()).timestamp_s == 0
    assert world.watcher.desc.partitions[13].state is PartitionState.PENDING


async def test_a_locked_partition_is_refused_with_the_locks_text(world):
    await world.set(PartitionState.ACTIVE)
    await world.watcher.change(lambda desc: edits.lock(desc, 13, True, NOW_MS))
    with pytest.raises(StateChangeLocked, match="partition state change is locked") as refused:
        await world.downscale.prepare_partition_downscale()
    assert refused.value.http_status == 409
    await world.watcher.change(lambda desc: edits.lock(desc, 13, False, NOW_MS))
    await world.downscale.prepare_partition_downscale()
    await world.watcher.change(lambda desc: edits.lock(desc, 13, True, NOW_MS))
    assert (await world.downscale.prepare_partition_downscale()).timestamp_s == 1_700_000_000
    with pytest.raises(StateChangeLocked):
        await world.downscale.cancel_partition_downscale()


async def test_drained_needs_the_fence_a_checkpoint_at_the_logs_end_and_nothing_held(world):
    await world.set(PartitionState.INACTIVE)
    for fenced, drain, drained in [
        (True, Drain(13, 100, 100, 0, pending=False), True),
        (True, Drain(13, 101, 100, 0, pending=False), True),
        (True, Drain(13, 100, 100, 5, pending=False), False),
        (True, Drain(13, 100, 90, 0, pending=True), False),
        (False, Drain(13, 100, 100, 0, pending=False), False),
        (True, Drain(13, 0, None, 0, pending=False), True),
    ]:
        world.fenced, world.probe.answer = fenced, drain
        assert (await world.downscale.partition_downscale()).to_json()["drained"] is drained, (fenced, drain)


async def test_a_bucket_that_does_not_answer_keeps_nobody_from_the_timestamp(world):
    await world.set(PartitionState.ACTIVE)
    world.probe.answer = StoreUnavailable("s3 is down")
    body = (await world.downscale.prepare_partition_downscale()).to_json()
    assert body["timestamp"] == 1_700_000_000
    assert (body["drained"], body["drain_error"]) == (False, "s3 is down")


async def test_leased_partitions_can_be_named_and_unknown_ones_are_refused(world):
    await world.set(PartitionState.ACTIVE)
    leased = world.endpoints(None)
    assert (await leased.prepare_partition_downscale()).timestamp_s == 0, "it is not in the ring, and owns nothing"
    assert (await leased.prepare_partition_downscale(13)).timestamp_s
    with pytest.raises(PartitionDoesNotExist):
        await leased.prepare_partition_downscale(14)


def test_prepare_shutdown_survives_a_restart_and_ends_with_the_shutdown_that_it_asked_for(tmp_path):
    world = World(tmp_path)
    world.downscale.load()
    assert not world.downscale.shutdown_prepared()
    assert not world.downscale.leaving
    world.downscale.prepare_shutdown()
    again = world.endpoints(13)
    again.load()
    for downscale in (world.downscale, again):
        assert downscale.shutdown_prepared()
        assert downscale.leaving
        assert downscale.unregister_on_shutdown
    assert world.gauge.collect()[0].samples[0].value == 1
    again.finish_shutdown()
    assert not World(tmp_path).downscale.shutdown_prepared()


def test_unregister_on_shutdown_is_set_and_goes_back_to_what_is_configured(tmp_path):
    world = World(tmp_path)
    for default in (False, True):
        downscale = world.endpoints(13, unregister=default)
        assert downscale.unregister_on_shutdown is default
        downscale.unregister_on_shutdown = not default
        assert downscale.unregister_on_shutdown is not default
        downscale.reset_unregister_on_shutdown()
        assert downscale.unregister_on_shutdown is default
