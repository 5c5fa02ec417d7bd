"""What an ingester says about a topic on a real Kafka that lost records, was deleted, or was made anew."""

from __future__ import annotations

import asyncio
import time

import pytest

from mimir_ingest.log.kafka import KafkaLog
from tests.contract.test_log_kafka import KafkaPlace
from tests.support.ingester_world import World, held, row, until

pytestmark = pytest.mark.kafka


@pytest.fixture
async def place(kafka_broker):
    place = KafkaPlace(kafka_broker)
    await place.create(partitions=2)
    yield place
    await place.close()


@pytest.fixture
async def world(tmp_path, place):
    world = World(tmp_path)
    world.clock.now_ms = time.time_ns() // 10**6
    world.log = await place.make_started()
    return world


@pytest.fixture
def gate(monkeypatch):
    """Holds back reads of partition 0 while it is shut."""

    class Gate:
        shut = False

    gate, real = Gate(), KafkaLog.read

    async def read(self, partition, next_offset, **bounds):
        while gate.shut and partition == 0:  # noqa: ASYNC110 - tests set it like a switch
            await asyncio.sleep(0.01)
        return await real(self, partition, next_offset, **bounds)

    monkeypatch.setattr(KafkaLog, "read", read)
    return gate


async def test_records_that_kafka_deleted_before_they_were_read_are_named_and_the_rest_is_kept(world, place, gate):
    async with world.ingester() as ingester:
        t = world.clock.now_ms
        offset = await world.push([row(0, t)])
        await ingester.wait_consumed(0, offset + 1, 60)
        gate.shut = True
        await asyncio.sleep(0.2)
        for i in (1, 2, 3):
            last = await world.push([row(i, t)])
        await place.drop_below(world.log, 0, 3)
        gate.shut = False
        await ingester.wait_consumed(0, last + 1, 60)
        ((first, end),) = ingester.partition_states()[0]["lost_offsets"]
        assert (first in (1, 2), end) == (True, 3)  # the client may have fetched record 1 before it was deleted
        assert await held(ingester) == {str(i): [t] for i in (*range(first), 3)}
        assert world.registry.get_sample_value("cortex_ingest_storage_reader_missed_records_total") == end - first
        await until(lambda: ingester.ready_reason() is None)


async def test_a_topic_that_is_deleted_makes_the_process_not_ready_and_one_made_anew_is_not_taken_for_it(world, place):
    async with world.ingester(stalled_after_s=0.5) as ingester:
        t = world.clock.now_ms
        for i in range(3):
            offset = await world.push([row(i, t)])
        await ingester.wait_consumed(0, offset + 1, 60)
        await place.recreate()
        for partition in ("partition 0", "partition 1"):
            await until(lambda name=partition: name in (ingester.ready_reason() or ""), timeout_s=60)
        await place.create(partitions=2)
        expected = "offset 3 of partition 0 is outside the log's range [0, 0]"
        await until(lambda: expected in (ingester.ready_reason() or ""), timeout_s=60)
