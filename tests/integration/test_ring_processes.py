"""Processes change one ring at the same time, on SQLite and on a real Kafka: no change is lost, all see the same."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from partitions import edits
from partitions.kv.kafka import KafkaRingStore
from partitions.merge import join_entries
from partitions.model import RingDesc, Version
from partitions.replica import Replica
from partitions.watch import RingWatcher
from tests.support.ring_stores import SHARED_PARTITION, open_ring_store, spawn

ROUNDS = 15
SKEWS_MS = {"writer-1": -3_600_000, "writer-2": 0, "writer-3": 90_000}


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def recipe(request, tmp_path):
    """Where the ring of one test is."""
    if request.param == "sqlite":
        return {"kind": "sqlite", "path": str(tmp_path / "log.sqlite")}
    broker = request.getfixturevalue("kafka_broker")
    return {"kind": "kafka", "addresses": broker.address, "topic": f"ring-{uuid.uuid4().hex}"}


@pytest.fixture
async def watch(recipe):
    """A function that starts a watcher of the ring in this process."""
    opened = []

    async def start(writer):
        opened.append(RingWatcher(open_ring_store(recipe), writer=writer))
        await opened[-1].start()
        return opened[-1]

    yield start
    for watcher in opened:
        await watcher.close()


async def until(holds):
    """Let others run until something holds."""
    for _ in range(2400):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never held")


async def finished(child):
    """Return what a child printed, at its end."""
    output = (await asyncio.to_thread(child.communicate))[0]
    assert child.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


async def test_changes_of_processes_with_skewed_clocks_are_all_there_and_the_newest_toggle_stands(recipe, watch):
    along = await watch("along")
    children = [spawn("contend", recipe, writer, skew_ms, ROUNDS) for writer, skew_ms in SKEWS_MS.items()]
    rounds = [row for rows in await asyncio.gather(*map(finished, children)) for row in rows]
    assert len(rounds) == 3 * ROUNDS
    versions = [Version(*version) for version, _ in rounds]
    assert len(set(versions)) == 3 * ROUNDS
    desc = await along.refresh()
    assert desc.partitions[SHARED_PARTITION].state_version == max(versions)
    assert set(desc.partitions) == {SHARED_PARTITION, *(created for _, created in rounds)}
    late = await watch("late")
    assert late.desc == desc
    assert late.slots == along.slots
    if recipe["kind"] == "kafka":  # nothing was compacted yet, so every change can be looked at as it was read
        assert await shown_when_read(recipe) >= set(versions)


async def shown_when_read(recipe):
    """Return the versions of the toggles that stood in the join at their own record."""
    store = open_ring_store(recipe)
    await store.start()
    replica, shown, position, end = Replica(), set(), 0, await store.end()
    while position < end:
        records, position = await store.read(position, max_wait_s=5)
        for record in records:
            replica.apply([record])
            if record.key == f"partition/{SHARED_PARTITION}":
                version = replica.desc.partitions[SHARED_PARTITION].state_version
                if version.writer == record.writer:
                    shown.add(version)
    await store.close()
    return shown


async def test_what_a_killed_process_was_told_is_there_and_others_go_on(recipe, watch):
    killed = spawn("contend", recipe, "writer-1", 0, 100_000)
    other = spawn("contend", recipe, "writer-2", 0, 40)
    told = [json.loads(await asyncio.to_thread(killed.stdout.readline)) for _ in range(10)]
    killed.kill()
    told += [json.loads(line) for line in killed.communicate()[0].splitlines(keepends=True) if line.endswith(b"\n")]
    rounds = await finished(other)
    desc = (await watch("late")).desc
    created = {number for _, number in told + rounds}
    assert created <= set(desc.partitions)
    assert desc.partitions[SHARED_PARTITION].state_version >= max(Version(*version) for version, _ in told + rounds)
    assert join_entries(RingDesc(), desc.entries.values()) == desc


@pytest.mark.kafka
async def test_a_ring_topic_that_is_deleted_is_made_again_with_everything_in_it(kafka_broker):
    topic = f"ring-{uuid.uuid4().hex}"
    watchers = []
    for name in ("one", "other"):
        store = KafkaRingStore(kafka_broker.address, topic, timeout_s=10)
        watchers.append(RingWatcher(store, writer=name))
        await watchers[-1].start()
    for number in range(5):
        desc = await watchers[number % 2].change(lambda desc, n=number: edits.create_partition(desc, n, 1))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_broker.address)
    await admin.start()
    await admin.delete_topics([topic])
    for watcher in watchers:
        await until(lambda watcher=watcher: watcher.waits_for is not None)
        assert watcher.desc == desc, "the view stays"
    for watcher in watchers:
        await until(lambda watcher=watcher: watcher.waits_for is None)
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    assert {entry[0]: entry[1] for entry in answer.resources[0][4]}["cleanup.policy"] == "compact"
    await admin.close()
    for watcher in watchers:
        await watcher.upkeep()
    late = RingWatcher(KafkaRingStore(kafka_broker.address, topic), writer="late")
    await late.start()
    assert late.desc == (await watchers[0].refresh()) == (await watchers[1].refresh()) == desc
    for watcher in (late, *watchers):
        await watcher.close()
