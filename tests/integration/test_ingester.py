"""The ingester on the embedded log and a local bucket: reading, cutting, restarting, and parts that fail."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from dataclasses import replace

import pytest

from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogUnavailable, RecordCorrupt, StoreUnavailable
from mimir_ingest.ingester import snapshot as snapshots
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.wire.record import VERSION_COLUMNAR, encode_columnar
from tests.support.batches import exemplar_batch, write_batch
from tests.support.ingester_world import FOREVER, LIMITS, World, held, row, until


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    world.log = EmbeddedLog(tmp_path / "log", partitions=2, clock_ms=world.clock)
    await world.log.start()
    yield world
    await world.log.close()


async def test_what_was_pushed_is_read_once_its_offset_is_consumed(world):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        offset = await world.push([row(0, t), row(1, t)], partition=1)
        await ingester.wait_consumed(1, offset + 1, 60)
        assert await held(ingester) == {"0": [t], "1": [t]}
        only = [Matcher(MatchType.EQUAL, "i", "1")]
        assert await held(ingester, matchers=only) == {"1": [t]}
        assert await held(ingester, "other") == {}
        frames = await ingester.label_frame("a", only, t, t + 1)
        assert [d for f in frames for d in f.to_dicts()] == [{"__name__": "m", "i": "1"}]
        assert ingester.tenants() == ["a"]
        with pytest.raises(LogUnavailable, match="past the log's end"):
            await ingester.wait_consumed(1, offset + 2, 0.1)


async def test_a_flush_puts_everything_into_blocks_and_then_names_them(world):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        await world.push([row(0, t), row(1, t + 70_000)])
        await ingester.flush(None, wait=True)
        blocks = world.blocks()
        assert len(blocks) == 2
        await until(lambda: bool(ingester.cuts("a")))
        answer = await ingester.select("a", [], *FOREVER)
        assert answer.series == []
        (cut,) = [c for c in answer.cuts if c.blocks]
        assert {b.ulid for b in cut.blocks} == set(blocks)
        assert await world.log.start_offset(0) == cut.cut_offset
        assert await world.log.committed("mimir-ingest", 0) == cut.cut_offset
        await ingester.flush(None, wait=True)
        assert world.blocks() == blocks


async def test_shipped_samples_are_served_during_the_retention(world):
    async with world.ingester(retention_s=3600.0) as ingester:
        t = world.clock.now_ms
        await world.push([row(0, t)])
        await ingester.flush(None, wait=True)
        assert await held(ingester) == {"0": [t]}
        assert ingester.cuts("a") == []
        await world.push([row(0, t + 1)])
        offset = await world.push([row(0, t + 2)])
        await ingester.wait_consumed(0, offset + 1, 60)
        assert await held(ingester) == {"0": [t, t + 1, t + 2]}


@pytest.mark.parametrize("lost", ["nothing", "the snapshot", "a byte of the snapshot"])
async def test_a_restart_goes_on_where_it_was(world, lost):
    t = world.clock.now_ms
    async with world.ingester() as ingester:
        await world.push([row(0, t)])
        await ingester.flush(None, wait=True)
        offset = await world.push([row(0, t + 1), row(1, t + 90_000)])
        await ingester.wait_consumed(0, offset + 1, 60)
        blocks = world.blocks()
    snapshot = world.folder / "snapshots" / "partition-0.snapshot"
    assert snapshot.exists()
    if lost == "the snapshot":
        shutil.rmtree(snapshot.parent)
    elif lost == "a byte of the snapshot":
        data = bytearray(snapshot.read_bytes())
        data[-20] ^= 1
        snapshot.write_bytes(bytes(data))
    async with world.ingester() as ingester:
        assert await held(ingester) == {"0": [t + 1], "1": [t + 90_000]}
        assert {b.ulid for c in ingester.cuts("a") for b in c.blocks} == set(blocks)
        # A retry of the push before the cut is not stored again.
        offset = await world.push([row(0, t + 1), row(1, t + 90_000)])
        await ingester.wait_consumed(0, offset + 1, 60)
        await ingester.flush(None, wait=True)
        stored = [p for series in world.blocks().values() for _, points in series for p in points]
        assert sorted(t for t, _ in stored) == [t, t + 1, t + 90_000]


async def test_record_time_cuts_by_itself_and_an_idle_partition_flushes(world):
    t = world.clock.now_ms
    async with world.ingester():
        await world.push([row(0, t)])
        world.clock.now_ms += 120_000
        await world.push([row(1, t + 119_000)])
        await until(lambda: len(world.blocks()) == 1)
    async with world.ingester(idle_timeout_s=0.3) as ingester:
        await until(lambda: len(world.blocks()) == 2)
        await until(lambda: not any(s["held_samples"] for s in ingester.partition_states()))


class ShakyBucket(Bucket):
    """Fails while it is told to."""

    down = True

    def write_atomic(self, path, data):
        if self.down:
            raise StoreUnavailable("no route to the bucket")
        super().write_atomic(path, data)


async def test_the_log_keeps_what_was_cut_until_the_trim_delay_is_over_and_a_restart_does_not_forget_to_trim(world):
    async with world.ingester(trim_delay_s=3600.0) as ingester:
        offset = await world.push([row(0, world.clock.now_ms)])
        await ingester.flush(None, wait=True)
        await until(lambda: ingester.partition_states()[0]["last_cut_offset"] is not None)
        assert await world.log.start_offset(0) == 0
        # Another owner that is behind still finds the record.
        assert (await world.log.read(0, 0, max_bytes=1, max_wait_s=1))[0].offset == offset
    async with world.ingester():
        async with asyncio.timeout(120):
            while await world.log.start_offset(0) <= offset:  # noqa: ASYNC110 - the log tells nobody
                await asyncio.sleep(0.02)


async def test_a_bucket_that_is_down_is_waited_for_while_consuming_goes_on(world):
    bucket = ShakyBucket(str(world.folder / "bucket"))
    began = time.time()
    async with world.ingester(bucket=bucket) as ingester:
        t = world.clock.now_ms
        await world.push([row(0, t)])
        await ingester.flush(None, wait=False)
        offset = await world.push([row(1, t)])
        await ingester.wait_consumed(0, offset + 1, 60)
        assert await held(ingester) == {"0": [t], "1": [t]}
        await until(lambda: (world.registry.get_sample_value("cortex_ingester_shipper_upload_failures_total") or 0) > 1)
        assert await world.log.start_offset(0) == 0
        oldest = "cortex_ingester_oldest_unshipped_block_timestamp_seconds"
        assert began <= world.registry.get_sample_value(oldest) <= time.time()
        bucket.down = False
        await until(lambda: world.registry.get_sample_value(oldest) == 0)
        await until(lambda: len(world.blocks()) == 1)
        await until(lambda: any(cut.blocks for cut in ingester.cuts("a")))
        assert await held(ingester) == {"1": [t]}


async def test_samples_out_of_order_and_exemplars_of_a_query_are_counted(world):
    async with world.ingester(max_exemplars=lambda _: 10) as ingester:
        t = world.clock.now_ms
        settings = replace(LIMITS, out_of_order_window_ms=60_000)
        late = ({"__name__": "m", "i": "0"}, [(t - 10, 1.0), (t + 1, 1.0)]), row(1, t - 50_000), row(0, t - 10)
        for rows in ([row(0, t)], late):
            value = encode_columnar(write_batch(rows), settings)
            await world.log.append(0, b"a", value, VERSION_COLUMNAR, timeout_s=60)
        exemplars = [(t + k, 1.0, {"trace_id": str(k)}) for k in range(3)]
        value = encode_columnar(exemplar_batch(({"__name__": "m", "i": "0"}, exemplars)), settings)
        offset = await world.log.append(0, b"a", value, VERSION_COLUMNAR, timeout_s=60)
        await ingester.wait_consumed(0, offset + 1, 60)
        found = world.registry.get_sample_value
        # Of two accepted samples of the same time the first one counts, but both were appended.
        assert found("cortex_ingester_tsdb_out_of_order_samples_appended_total", {"user": "a"}) == 3
        assert len((await ingester.exemplars("a", [], t, t + 2))[0].exemplars) == 2
        assert found("cortex_ingester_queried_exemplars_sum") == 2
        assert found("cortex_ingester_queried_exemplars_count") == found("cortex_ingester_queries_total") == 1


async def test_two_cut_points_in_a_row_wait_for_each_other(world):
    bucket = ShakyBucket(str(world.folder / "bucket"))
    async with world.ingester(bucket=bucket) as ingester:
        t = world.clock.now_ms
        for i in range(3):
            await world.push([row(i, t)])
            await ingester.flush(None, wait=False)
        await asyncio.sleep(0.3)
        assert world.blocks() == {}
        bucket.down = False
        await until(lambda: len(world.blocks()) == 3)
        await ingester.flush(None, wait=True)
        await until(lambda: [len(c.blocks) for c in ingester.cuts("a") if c.partition == 0] == [3])
        assert await held(ingester) == {}


async def test_a_record_of_an_unknown_version_stops_its_partition_loudly(world):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        await world.push([row(0, t)])
        await world.log.append(0, b"a", b"?", 77, timeout_s=60)
        await until(lambda: ingester.ready_reason() is not None)
        assert "partition 0 is stopped: record 1" in ingester.ready_reason()
        with pytest.raises(LogUnavailable, match="partition 0 is stopped"):
            await ingester.select("a", [], *FOREVER)
        with pytest.raises(LogUnavailable, match=r"partition reader service is not running \(record 1"):
            await ingester.wait_consumed(0, 2, 60)


async def test_a_record_whose_version_cannot_be_read_stops_its_partition_loudly(world, monkeypatch):
    real = EmbeddedLog.read

    async def read(self, partition, next_offset, **bounds):
        records = await real(self, partition, next_offset, **bounds)
        if any(record.value == b"?" for record in records):
            raise RecordCorrupt("header Version has 2 bytes, 4 are needed")
        return records

    monkeypatch.setattr(EmbeddedLog, "read", read)
    async with world.ingester() as ingester:
        await world.log.append(0, b"a", b"?", 77, timeout_s=60)
        await until(lambda: ingester.ready_reason() is not None)
        assert "header Version has 2 bytes" in ingester.ready_reason()


async def test_a_snapshot_under_way_at_the_end_is_written_before_the_last_one(world, monkeypatch):
    real, running, most = snapshots.write_snapshot, [], []

    def slow(folder, captured):
        running.append(captured)
        most.append(sum(c.meta["partition"] == captured.meta["partition"] for c in running))
        time.sleep(0.3)
        size = real(folder, captured)
        running.remove(captured)
        return size

    monkeypatch.setattr(snapshots, "write_snapshot", slow)
    async with world.ingester(snapshot_interval_s=0.01) as ingester:
        first = await world.push([row(0, world.clock.now_ms)])
        await ingester.wait_consumed(0, first + 1, 60)
        await until(lambda: any(captured.meta["partition"] == 0 for captured in running))
        last = await world.push([row(1, world.clock.now_ms)])
        await ingester.wait_consumed(0, last + 1, 60)
    assert max(most) == 1
    assert snapshots.read_snapshot(world.folder / "snapshots", 0).facts.next_offset == last + 1


async def test_a_record_that_does_not_decode_is_counted_and_passed_over(world):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        await world.log.append(0, b"a", b"\xff" * 3, VERSION_COLUMNAR, timeout_s=60)
        await world.log.append(
            0, b"../x", encode_columnar(write_batch([row(0, t)]), LIMITS), VERSION_COLUMNAR, timeout_s=60
        )
        offset = await world.push([row(0, t), row(0, t - 1), row(0, t + 10**9)])
        await ingester.wait_consumed(0, offset + 1, 60)
        assert await held(ingester) == {"0": [t]}
        value = world.registry.get_sample_value
        assert value("cortex_ingest_storage_reader_requests_failed_total", {"cause": "client"}) == 2
        for reason in ("sample-out-of-order", "sample-too-far-in-future"):
            labels = {"user": "a", "group": "", "reason": reason}
            assert value("cortex_discarded_samples_total", labels) == 1


async def test_a_flush_before_the_end_leaves_nothing_in_memory_only(world):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        await world.push([row(0, t)])
        await world.push([row(1, t)], tenant="b", partition=1)
        await ingester.flush(None, wait=True)
        await ingester.close()
        assert len(world.blocks("a")) == len(world.blocks("b")) == 1
        with pytest.raises(LogUnavailable, match="the ingester is stopped"):
            await held(ingester)


async def test_restarts_under_load_give_every_acknowledged_sample_once(world):
    rng = random.Random(5)
    t, pushed = world.clock.now_ms, set()
    for life in range(6):
        async with world.ingester(snapshot_interval_s=0.05) as ingester:
            for _ in range(20):
                world.clock.now_ms += 3000
                t += 3000
                await world.push([row(i, t) for i in range(4)], partition=rng.randrange(2))
                pushed |= {(i, t) for i in range(4)}
                await asyncio.sleep(rng.choice([0, 0, 0.02]))
        if life % 2:
            shutil.rmtree(world.folder / "snapshots", ignore_errors=True)
    async with world.ingester() as ingester:
        await ingester.flush(None, wait=True)
    stored = [
        (int(labels["i"]), at) for series in world.blocks().values() for labels, points in series for at, _ in points
    ]
    assert len(stored) == len(set(stored))
    assert set(stored) == pushed


async def test_stopping_wakes_a_read_that_waits_for_records(world):
    t = world.clock.now_ms
    async with asyncio.timeout(120):
        async with world.ingester(fetch_max_wait_s=600) as ingester:
            offset = await world.push([row(0, t)])
            await ingester.wait_consumed(0, offset + 1, 60)
        await world.push([row(1, t)])
        async with world.ingester(fetch_max_wait_s=600) as ingester:
            assert await held(ingester) == {"0": [t], "1": [t]}


async def test_stopping_does_not_wait_for_a_bucket_that_is_down_and_loses_nothing(world):
    class Down(Bucket):
        def write_atomic(self, path, data):
            raise StoreUnavailable("down")

    t = world.clock.now_ms
    async with asyncio.timeout(120):
        async with world.ingester(bucket=Down(str(world.folder / "bucket"))) as ingester:
            for i in range(3):  # the second cut has to wait for the first, and what follows for both
                await world.push([row(i, t)])
                await ingester.flush(None, wait=False)
            consumer = ingester._consumers[0]
            await until(lambda: consumer.state is not None and consumer.state.in_flight is not None)
            await asyncio.sleep(0.3)
    async with world.ingester() as ingester:
        await ingester.flush(None, wait=True)
        await until(lambda: any(c.partition == 0 and len(c.blocks) == 3 for c in ingester.cuts("a")))
        assert await held(ingester) == {}
    kept = [(labels["i"], ts) for samples in world.blocks().values() for labels, points in samples for ts, _ in points]
    assert sorted(kept) == [("0", t), ("1", t), ("2", t)]
