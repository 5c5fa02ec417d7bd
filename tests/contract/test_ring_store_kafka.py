"""The ring store in Kafka keeps the contract on a real broker, through compaction, restarts and outages."""

import asyncio
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from structlog.testing import capture_logs

from mimir_ingest.log.kafka_security import KafkaSecurity, build_client_arguments
from partitions.errors import RingPositionLost, RingUnavailable
from partitions.kv.contract import RingRecord
from partitions.kv.kafka import TOPIC_SETTINGS, KafkaRingStore
from tests.contract.ring_store_contract import RingPlace, RingStoreContract, newest, read_all, record
from tests.support.kafka_broker import PASSWORDS
from tests.support.ring_stores import SHARED_KEY, spawn

pytestmark = pytest.mark.kafka


class KafkaPlace(RingPlace):
    def __init__(self, broker):
        super().__init__()
        self.broker = broker
        self.topic = f"ring-{uuid.uuid4().hex}"

    @property
    def recipe(self):
        return {"kind": "kafka", "addresses": self.broker.address, "topic": self.topic}

    def make(self, **options):
        return KafkaRingStore(self.broker.address, self.topic, **options)

    async def open(self, **options):
        store = self.make(**options)
        self._opened.append(store)
        await store.start()
        return store

    async def with_admin(self, run):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.address)
        await admin.start()
        try:
            return await run(admin)
        finally:
            await admin.close()

    async def settings(self):
        resource = ConfigResource(ConfigResourceType.TOPIC, self.topic)
        [answer] = await self.with_admin(lambda admin: admin.describe_configs([resource]))
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}

    async def alter(self, **settings):
        configs = {name.replace("_", "."): value for name, value in settings.items()}
        resource = ConfigResource(ConfigResourceType.TOPIC, self.topic, configs=configs)
        await self.with_admin(lambda admin: admin.alter_configs([resource]))

    async def create(self, *, partitions=1, **settings):
        configs = {name.replace("_", "."): value for name, value in settings.items()}
        topic = NewTopic(self.topic, num_partitions=partitions, replication_factor=1, topic_configs=configs)
        await self.with_admin(lambda admin: admin.create_topics([topic]))

    async def stored(self):
        """Return (offset, key, value) of what the broker still has, read by a plain consumer."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker.address, auto_offset_reset="none")
        await consumer.start()
        partition = TopicPartition(self.topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        end = (await consumer.end_offsets([partition]))[partition]
        found = []
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [(r.offset, r.key, r.value) for r in records]
        await consumer.stop()
        return found


@pytest.fixture
async def place(kafka_broker):
    place = KafkaPlace(kafka_broker)
    yield place
    await place.close()


class TestKafkaRingStore(RingStoreContract):
    pass


async def test_the_topic_is_made_with_one_partition_and_compacted_and_taken_by_the_next(place):
    with capture_logs() as lines:
        await asyncio.gather(*(place.open() for _ in range(3)))
        await place.open()
    assert [line["topic"] for line in lines if line["event"] == "created the ring's Kafka topic"] == [place.topic]
    settings = await place.settings()
    assert {name: settings[name] for name in TOPIC_SETTINGS} == {
        "cleanup.policy": "compact",
        "segment.ms": "600000",
        "min.cleanable.dirty.ratio": "0.1",
    }
    [described] = await place.with_admin(lambda admin: admin.describe_topics([place.topic]))
    assert len(described["partitions"]) == 1


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
async def test_a_topic_that_retention_cleans_is_refused_with_what_to_do(place, policy):
    await place.create(cleanup_policy=policy)
    with pytest.raises(RingUnavailable, match=f"cleanup.policy={policy}, which loses the ring; set it to") as caught:
        await place.open()
    assert not caught.value.retriable
    await place.alter(cleanup_policy="compact")
    await (await place.open()).append([record(0)])


async def test_a_topic_with_several_partitions_is_refused(place):
    await place.create(partitions=3, cleanup_policy="compact")
    with pytest.raises(RingUnavailable, match="has 3 partitions, the ring's topic has to have one") as caught:
        await place.open()
    assert not caught.value.retriable


async def test_another_programs_records_are_refused_by_offset(place):
    store = await place.open()
    await store.append([record(0)])
    async with AIOKafkaProducer(bootstrap_servers=place.broker.address) as producer:
        await producer.send_and_wait(place.topic, b"x", key=b"something", partition=0)
    with pytest.raises(RingUnavailable, match=r"offset 1 of Kafka topic .* another program writes") as caught:
        await read_all(store)
    assert not caught.value.retriable


async def test_a_password_lets_the_store_in(place):
    security = KafkaSecurity(sasl_mechanism="SCRAM-SHA-512", sasl_username="scram512", sasl_password="scram512-secret")
    assert PASSWORDS["scram512"] == security.sasl_password
    store = KafkaRingStore(
        place.broker.sasl_address, place.topic, client_arguments=build_client_arguments(security), timeout_s=5
    )
    await store.start()
    await store.append([record(0)])
    assert await read_all(store) == [record(0)]
    await store.close()


async def test_processes_append_at_the_same_time(place):
    store = await place.open()
    children = [spawn("append", place.recipe, name, 30) for name in ("left", "right")]
    position, seen = 0, []
    while newest(seen) != {(SHARED_KEY, "left"): b"29", (SHARED_KEY, "right"): b"29"}:
        found, position = await store.read(position, max_wait_s=30)
        seen += found
    outputs = [(await asyncio.to_thread(child.communicate))[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(int(line) for output in outputs for line in output.split()) == list(range(1, 61))
    for name in ("left", "right"):
        assert [r.value for r in seen if r.writer == name] == [b"%d" % number for number in range(30)]


async def test_compaction_keeps_the_newest_of_each_key_and_writer_for_readers_that_start_later(new_kafka_broker):
    broker = new_kafka_broker(log_cleaner_backoff_ms="200", log_segment_delete_delay_ms="100").start()
    place = KafkaPlace(broker)
    running = await place.open()
    await place.alter(
        **{name.replace(".", "_"): value for name, value in TOPIC_SETTINGS.items()}
        | {"segment_ms": "100", "min_cleanable_dirty_ratio": "0.01", "delete_retention_ms": "0"}
    )
    await running.append([RingRecord("owner/gone/1", "a", b"0"), RingRecord("owner/kept/1", "b", b"0")])
    appended, last = 2, 0
    seen = {}
    position = 0
    while not 0 < len(await place.stored()) < appended / 3:
        for _ in range(10):
            last += 1
            appended += 1
            await running.append([record(last, writer="ab"[last % 2])])
        await running.append([RingRecord("owner/gone/1", "a", None)])
        appended += 1
        found, position = await running.read(position, max_wait_s=1)
        seen |= newest(found)
        await asyncio.sleep(0.1)
    found = await read_all(running, position)
    seen |= newest(found)
    assert {(key, writer): value for (key, writer), value in seen.items() if value is not None} == {
        ("owner/kept/1", "b"): b"0",
        ("partition/1", "ab"[last % 2]): b"%d" % last,
        ("partition/1", "ab"[(last - 1) % 2]): b"%d" % (last - 1),
    }
    late = await place.open()
    of_late = newest(await read_all(late))
    assert {slot: value for slot, value in of_late.items() if value is not None} == {
        slot: value for slot, value in seen.items() if value is not None
    }
    await asyncio.to_thread(broker.restart)
    assert newest(await read_all(late)) == of_late
    assert await late.append([record(last + 1)]) == appended + 1
    assert (await read_all(running))[-1] == record(last + 1)
    await place.close()


async def test_an_outage_fails_in_time_and_ends_by_itself(new_kafka_broker):
    broker = new_kafka_broker()
    place = KafkaPlace(broker)
    with pytest.raises(RingUnavailable) as caught:
        await place.open(timeout_s=1)
    assert caught.value.retriable
    broker.start()
    store = await place.open(timeout_s=2)
    await store.append([record(0)])
    assert await read_all(store) == [record(0)]

    broker.pause()
    with pytest.raises(RingUnavailable, match="no answer in time"):
        await store.append([record(1)])
    with pytest.raises(RingUnavailable):
        await store.end()
    broker.resume()
    after = await eventually(lambda: store.append([record(2)]))
    assert newest(await read_all(store)) == {("partition/1", "a"): b"2"}

    await asyncio.to_thread(broker.kill)
    for call in (store.append([record(3)]), store.end()):
        with pytest.raises(RingUnavailable) as caught:
            await call
        assert caught.value.retriable
    await asyncio.to_thread(broker.start)
    assert await eventually(lambda: store.append([record(4)])) > after
    assert newest(await eventually(lambda: read_all(store)))[("partition/1", "a")] == b"4"

    await place.with_admin(lambda admin: admin.delete_topics([place.topic]))
    again = await eventually(place.open)
    assert await again.end() == 0
    with pytest.raises(RingPositionLost):
        await again.read(after, max_wait_s=60)
    await place.close()


async def eventually(call):
    """Try until the store answers, as who uses it does."""
    for _ in range(600):
        try:
            return await call()
        except RingUnavailable as error:
            if not error.retriable:
                raise
            await asyncio.sleep(0.2)
    raise AssertionError("the store never answered")
