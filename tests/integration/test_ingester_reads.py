"""Reads that wait for offsets, bound their delay, or ask for some partitions; and what a stuck reader says."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from fastapi import FastAPI

from mimir_ingest.api.ingester import ingester_router
from mimir_ingest.errors import LogError, LogUnavailable, OffsetOutOfRange, ReadConsistencyUnmet
from mimir_ingest.ingester.lag import PartitionLag, read_lag
from mimir_ingest.ingester.read_gate import Demand
from mimir_ingest.log.embedded import EmbeddedLog
from mimir_ingest.obs.services import ServiceRegistry
from mimir_ingest.wire.record import VERSION_COLUMNAR
from tests.support.ingester_world import World, held, row, until


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    world.log = EmbeddedLog(tmp_path / "log", partitions=2, clock_ms=world.clock)
    await world.log.start()
    yield world
    await world.log.close()


@pytest.fixture
def gate(monkeypatch):
    """Holds back reads of partition 0 while it is told to, or makes them fail."""

    class Gate:
        shut = False
        error: Exception | None = None
        log: EmbeddedLog | None = None
        """Whose reads; None: all logs'."""

    gate, real = Gate(), EmbeddedLog.read

    async def read(self, partition, next_offset, **bounds):
        gated = partition == 0 and gate.log in (None, self)
        while True:
            if gated and gate.error is not None:
                raise gate.error
            if gated and gate.shut:
                await asyncio.sleep(0.01)
                continue
            records = await real(self, partition, next_offset, **bounds)
            if not (gated and gate.shut):  # else it was under way when the gate was shut, and may have seen too much
                return records

    monkeypatch.setattr(EmbeddedLog, "read", read)
    return gate


async def test_a_read_waits_for_the_offsets_that_it_demands_and_says_which_it_has(world, gate):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        gate.shut = True
        offset = await world.push([row(0, t)])
        assert await held(ingester) == {}
        assert (await ingester.select("a", [], t, t + 1)).next_offsets == {0: 0, 1: 0}
        demand = {"partitions": {0}, "wait_offsets": {0: offset + 1, 1: 10**6}}
        reading = asyncio.create_task(held(ingester, **demand))
        naming = asyncio.create_task(ingester.label_frame("a", [], t, t + 1, demand=Demand(**demand)))
        await asyncio.sleep(0.7)
        assert not reading.done()
        assert not naming.done()
        gate.shut = False
        assert await reading == {"0": [t]}
        assert [d for frame in await naming for d in frame.to_dicts()] == [{"__name__": "m", "i": "0"}]
        assert (await ingester.select("a", [], t, t + 1)).next_offsets == {0: 1, 1: 0}
        assert await ingester.metadata("a", demand=Demand(**demand)) == {}
        value = world.registry.get_sample_value
        labels = {"component": "partition-reader", "topic": ""}
        assert value("cortex_ingest_storage_strong_consistency_requests_total", {**labels, "with_offset": "true"}) == 3
        assert value("cortex_ingest_storage_strong_consistency_failures_total", labels) is None


async def test_a_read_that_waits_too_long_fails_with_the_specs_text(world, gate):
    async with world.ingester(strong_read_timeout_s=0.6) as ingester:
        gate.shut = True
        offset = await world.push([row(0, world.clock.now_ms)])
        with pytest.raises(
            ReadConsistencyUnmet,
            match="wait for read consistency: wait strong read consistency timeout exceeded: context deadline exceeded",
        ):
            await held(ingester, wait_offsets={0: offset + 1})
        assert await held(ingester, wait_offsets={1: 0}) == {}
        gate.shut = False


async def test_an_offset_that_the_log_does_not_have_is_refused_before_the_time_is_over(world):
    async with world.ingester(strong_read_timeout_s=600) as ingester:
        async with asyncio.timeout(120):
            with pytest.raises(ReadConsistencyUnmet, match="offset 7 of partition 0 is past the log's end 0"):
                await held(ingester, wait_offsets={0: 8})


async def test_a_bounded_delay_is_checked_against_what_may_be_missing(world, gate):
    world.clock.now_ms = time.time_ns() // 10**6
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        offset = await world.push([row(0, t)])
        await ingester.wait_consumed(0, offset + 1, 60)
        assert await held(ingester, max_delay_s=60.0) == {"0": [t]}
        gate.shut = True
        await asyncio.sleep(0.3)
        # At the log's end nothing is missing, however long ago the last record came.
        assert await held(ingester, max_delay_s=0.1) == {"0": [t]}
        await world.push([row(0, t + 1)])
        assert await held(ingester, max_delay_s=60.0) == {"0": [t]}
        assert await held(ingester, max_delay_s=0.1, partitions={1}) == {}
        with pytest.raises(ReadConsistencyUnmet, match="lagging behind more than the allowed max delay"):
            await held(ingester, max_delay_s=0.1)
        gate.shut = False


async def test_only_the_partitions_that_a_read_asks_for_have_to_be_readable(world):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        offset = await world.push([row(1, t)], partition=1)
        await ingester.wait_consumed(1, offset + 1, 60)
        await world.log.append(0, b"a", b"?", 77, timeout_s=60)
        await until(lambda: ingester.ready_reason() is not None)
        assert await held(ingester, partitions={1}) == {"1": [t]}
        with pytest.raises(LogUnavailable, match="partition 0 is stopped"):
            await held(ingester, partitions={0, 1})
        with pytest.raises(ReadConsistencyUnmet, match=r"partition reader service is not running \(state: Failed\)"):
            await held(ingester, partitions={0}, wait_offsets={0: 0})
        with pytest.raises(LogUnavailable, match="partition 5 is not owned here"):
            await held(ingester, partitions={5})
        # A flush reaches the others, then says what could not be flushed.
        with pytest.raises(LogUnavailable, match="partition 0 is not consumed any more"):
            await ingester.flush(None, wait=True)
        assert len(world.blocks()) == 1


async def test_partitions_begin_and_end_at_run_time_and_come_back_where_they_were(world):
    async with world.ingester(partitions=[0]) as ingester:
        t = world.clock.now_ms
        for partition in (0, 1):
            await world.push([row(partition, t)], partition=partition)
        await until(lambda: ingester.next_offsets() == {0: 1})
        assert await held(ingester) == {"0": [t]}
        await ingester.own([0, 1])
        assert ingester.ready_reason() is None
        await ingester.wait_caught_up()
        assert await held(ingester) == {"0": [t], "1": [t]}
        await ingester.own([1])
        assert (ingester.owned, await held(ingester)) == ({1}, {"1": [t]})
        await ingester.own([])
        assert (await held(ingester), ingester.ready_reason()) == ({}, None)
        await ingester.own([0, 1])
        await ingester.wait_caught_up()
        assert await held(ingester) == {"0": [t], "1": [t]}


async def test_a_reader_that_gets_nothing_makes_the_process_not_ready_and_says_why(world, gate):
    async with world.ingester(stalled_after_s=0.2) as ingester:
        t = world.clock.now_ms
        offset = await world.push([row(0, t)])
        await ingester.wait_consumed(0, offset + 1, 60)
        gate.error = LogError("there is no topic samples")
        await until(lambda: ingester.ready_reason() is not None)
        reason = ingester.ready_reason()
        assert reason.startswith("partition 0 has read nothing for")
        assert reason.endswith("there is no topic samples")
        assert await held(ingester) == {"0": [t]}
        gate.error = LogUnavailable("no broker answers")
        await until(lambda: (ingester.ready_reason() or "").endswith("no broker answers"))
        gate.error = None
        await until(lambda: ingester.ready_reason() is None)


async def test_a_log_that_ends_before_what_was_consumed_is_reported_and_not_passed_over(world, gate):
    async with world.ingester() as ingester:
        gate.error = OffsetOutOfRange(partition=0, offset=0, start_offset=0, end_offset=0)
        await until(lambda: ingester.ready_reason() is not None)
        await until(
            lambda: "offset 0 of partition 0 is outside the log's range [0, 0]" in (ingester.ready_reason() or "")
        )
        gate.error = None
        await until(lambda: ingester.ready_reason() is None)


async def ask(ingester, path) -> dict:
    """Return what an endpoint answers."""
    app = FastAPI(openapi_url=None)
    app.include_router(
        ingester_router(ingester, ingester, ServiceRegistry())
    )  # it has the `ready_reason` that is asked
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        return (await client.get(path)).json()


async def test_what_retention_deleted_is_named_counted_and_shown_and_what_was_consumed_before_stays(world, gate):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        offset = await world.push([row(0, t)])
        await ingester.wait_consumed(0, offset + 1, 60)
        gate.shut = True
        for i in (1, 2, 3):
            await world.push([row(i, t)])
        await world.log.trim(0, 3)
        gate.shut = False
        await ingester.wait_consumed(0, 4, 60)
        assert await held(ingester) == {"0": [t], "3": [t]}
        shown, other = (await ask(ingester, "/ingester/partitions"))["partitions"]
        assert (shown["partition"], shown["next_offset"], shown["lost_offsets"]) == (0, 4, [[1, 3]])
        assert (shown["unreadable"], shown["error"], other["lost_offsets"]) == (None, None, [])
        assert world.registry.get_sample_value("cortex_ingest_storage_reader_missed_records_total") == 2
        assert ingester.ready_reason() is None


async def test_what_was_trimmed_behind_another_owners_cut_is_taken_from_its_checkpoint(world, gate):
    t = world.clock.now_ms
    second = EmbeddedLog(world.folder / "log", clock_ms=world.clock)
    await second.start()
    gate.log = second
    try:
        async with world.ingester(log=second, snapshot_folder=world.folder / "slow") as slow:
            registry = world.registry
            offset = await world.push([row(0, t)])
            await slow.wait_consumed(0, offset + 1, 60)
            gate.shut = True
            await world.push([row(1, t)])
            async with world.ingester(snapshot_folder=world.folder / "fast") as fast:
                await fast.flush(None, wait=True)
                await until(lambda: fast.cuts("a") != [])
            assert await world.log.start_offset(0) == 3
            gate.shut = False
            offset = await world.push([row(2, t)])
            await until(lambda: slow.next_offsets().get(0) == offset + 1)
            assert await held(slow) == {"2": [t]}
            assert registry.get_sample_value("cortex_ingest_storage_reader_missed_records_total") == 0
    finally:
        await second.close()


async def test_lag_tells_what_a_tenant_has_among_the_records_not_read_yet(world):
    t = world.clock.now_ms
    await world.push([row(0, t)])
    world.clock.now_ms += 5
    await world.push([row(0, t - 60_000)], tenant="b")
    await world.push([row(0, t + 3), row(1, t + 2)])
    await world.log.append(0, b"a", b"\xff", VERSION_COLUMNAR, timeout_s=60)
    await world.push([row(0, t + 4)])
    assert await read_lag(world.log, 0, 1, "a") == PartitionLag(
        partition=0,
        next_offset=1,
        end_offset=5,
        oldest_record_ms=t + 5,
        tenant_records=3,
        oldest_sample_ms=t + 2,
        complete=True,
    )
    assert (await read_lag(world.log, 0, 1, "a")).records_behind == 4
    part = await read_lag(world.log, 0, 1, "a", scan_bytes=1)
    assert (part.tenant_records, part.oldest_sample_ms, part.complete) == (0, None, False)
    async with world.ingester() as ingester:
        assert [(lag.partition, lag.next_offset, lag.records_behind) for lag in await ingester.lags("a")] == [
            (0, 5, 0),
            (1, 0, 0),
        ]
