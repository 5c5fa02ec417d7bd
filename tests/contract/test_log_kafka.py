"""The Kafka log keeps the contract on a real broker, and holds where aiokafka and brokers are known to trip."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from structlog.testing import capture_logs

from mimir_ingest.errors import LogUnavailable, RecordCorrupt, RecordTooLarge
from mimir_ingest.log.kafka import KafkaLog
from mimir_ingest.log.kafka_security import KafkaSecurity, build_client_arguments
from mimir_ingest.log.kafka_topic import describe_misfits, topic_settings
from tests.contract.log_contract import MANY, PARTITIONS, LogContract, LogPlace, put, read_all
from tests.support.kafka_broker import PASSWORDS
from tests.support.peers import pick_free_port

pytestmark = pytest.mark.kafka


class KafkaPlace(LogPlace):
    def __init__(self, broker):
        super().__init__()
        self.broker = broker
        self.topic = f"topic-{uuid.uuid4().hex}"

    @property
    def recipe(self):
        return {"kind": "kafka", "addresses": self.broker.address, "topic": self.topic}

    def make(self, **options):
        log = KafkaLog(self.broker.address, self.topic, **{"fetch_max_wait_s": 1.0, "linger_s": 0.0, **options})
        self._opened.append(log)
        return log

    async def make_started(self, **options):
        log = self.make(**options)
        await log.start()
        return log

    async def admin(self):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.address)
        await admin.start()
        return admin

    async def drop_below(self, log, partition, offset):
        admin = await self.admin()
        await admin.delete_records({TopicPartition(self.topic, partition): RecordsToDelete(before_offset=offset)})
        await admin.close()

    async def recreate(self):
        admin = await self.admin()
        await admin.delete_topics([self.topic])
        for _ in range(200):
            if self.topic not in await admin.list_topics():
                break
            await asyncio.sleep(0.05)
        await admin.close()

    async def create(self, *, partitions=PARTITIONS, **settings):
        admin = await self.admin()
        topic_configs = {name.replace("_", "."): value for name, value in settings.items()}
        topic = NewTopic(self.topic, num_partitions=partitions, replication_factor=1, topic_configs=topic_configs)
        await admin.create_topics([topic])
        await admin.close()

    async def alter(self, **settings):
        admin = await self.admin()
        configs = {name.replace("_", "."): value for name, value in settings.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic, configs=configs)])
        await admin.close()

    async def settings(self):
        admin = await self.admin()
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic)])
        await admin.close()
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}


@pytest.fixture
async def place(kafka_broker):
    place = KafkaPlace(kafka_broker)
    yield place
    await place.close()


@pytest.fixture
async def own_place(new_kafka_broker):
    """A place on a broker that the test may stop; not started."""
    place = KafkaPlace(new_kafka_broker())
    yield place
    await place.close()


class TestKafkaLog(LogContract):
    pass


# The topic


async def test_a_new_topic_stamps_records_and_takes_large_ones(place):
    await place.make_started()
    settings = await place.settings()
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["max.message.bytes"] == "16000000"
    assert settings["min.insync.replicas"] == "1"


async def test_a_new_topic_has_the_partitions_asked_for(place):
    log = await place.make_started(auto_create_topic_default_partitions=7)
    assert await log.partitions() == list(range(7))


def test_two_replicas_must_have_a_record_from_three_replicas_on():
    assert "min.insync.replicas" not in topic_settings(replication_factor=1)
    assert "min.insync.replicas" not in topic_settings(replication_factor=2)
    assert topic_settings(replication_factor=3)["min.insync.replicas"] == "2"


async def test_a_missing_topic_is_refused_when_it_must_not_be_created(place):
    with pytest.raises(LogUnavailable, match="auto-create-topic-enabled is false") as caught:
        await place.make_started(auto_create_topic=False)
    assert not caught.value.retriable


async def test_an_existing_topic_stays_as_it_is_and_what_does_not_fit_is_said(place):
    await place.create(message_timestamp_type="CreateTime", max_message_bytes="2000000", cleanup_policy="compact")
    with capture_logs() as lines:
        log = await place.make_started()
    said = " ".join(line["event"] for line in lines if line["log_level"] == "warning")
    assert "message.timestamp.type=CreateTime" in said
    assert "max.message.bytes=2000000" in said
    assert "cleanup.policy=compact" in said
    assert (await place.settings())["message.timestamp.type"] == "CreateTime"
    assert log.max_record_bytes == 2_000_000 - 16_384
    assert await put(log, 0, random.Random(1).randbytes(log.max_record_bytes)) == [0]


def test_a_topic_that_fits_gives_no_warning():
    assert describe_misfits(topic_settings(replication_factor=1), max_record_bytes=15_983_616) == []


async def test_a_topic_name_that_kafka_refuses_stops_the_start(place):
    place.topic = "not a topic name"
    with pytest.raises(LogUnavailable) as caught:
        await place.make_started()
    assert not caught.value.retriable


async def test_the_topic_id_is_kafkas_own(place):
    log = await place.make_started()
    await put(log, 0, b"a")  # at the latest with its first record, Kafka writes the file
    files = list((place.broker.directory / "data" / f"{place.topic}-0").glob("partition.metadata"))
    written = dict(line.split(": ") for line in files[0].read_text().splitlines())["topic_id"]
    assert log.topic_id == base64.urlsafe_b64decode(written + "==").hex()


# Records


async def test_the_version_header_is_four_bytes_and_left_out_for_version_0(place):
    log = await place.make_started()
    await log.append(0, b"tenant", b"a", 0, timeout_s=60)
    await log.append(0, b"tenant", b"b", 1, timeout_s=60)
    await log.append(0, b"tenant", b"c", 0x4D490001, timeout_s=60)
    consumer = AIOKafkaConsumer(bootstrap_servers=place.broker.address)
    await consumer.start()
    consumer.assign([TopicPartition(place.topic, 0)])
    await consumer.seek_to_beginning()
    records = [await consumer.getone() for _ in range(3)]
    await consumer.stop()
    assert [record.headers for record in records] == [
        (),
        (("Version", b"\x00\x00\x00\x01"),),
        (("Version", b"\x4d\x49\x00\x01"),),
    ]
    assert {record.timestamp_type for record in records} == {1}
    assert {record.key for record in records} == {b"tenant"}


async def test_records_of_other_writers_are_read_with_their_first_version_header(place):
    log = await place.make_started()
    async with AIOKafkaProducer(bootstrap_servers=place.broker.address) as producer:
        headers = [("traceparent", b"00-1"), ("Version", b"\x00\x00\x00\x02rest"), ("Version", b"\x00\x00\x00\x01")]
        await producer.send_and_wait(place.topic, b"a", partition=0, headers=headers)
        await producer.send_and_wait(place.topic, None, key=b"k", partition=0)
        await producer.send_and_wait(place.topic, b"c", partition=0, headers=[("Version", b"\x01")])
    first, second = await log.read(0, 0, max_bytes=MANY, max_wait_s=60)
    assert (first.version, first.key, first.value) == (2, b"", b"a")
    assert (second.version, second.key, second.value) == (0, b"k", b"")
    with pytest.raises(RecordCorrupt, match="record 2 of partition 0: header Version has 1 bytes"):
        await log.read(0, 2, max_bytes=1, max_wait_s=60)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_is_written_and_read(place, compression):
    log = await place.make_started(compression=compression, linger_s=0.02)
    values = [b"label=value;" * 5000 + b"%d" % number for number in range(20)]
    await asyncio.gather(*(log.append(0, b"t", value, 1, timeout_s=60) for value in values))
    assert sorted(record.value for record in await read_all(log, 0)) == sorted(values)
    size = (place.broker.directory / "data" / f"{place.topic}-0" / f"{0:020d}.log").stat().st_size
    assert (size > 1_000_000) == (compression == "none")


# Refused records, and other ends of a producer


async def test_a_record_that_the_broker_refuses_does_not_stop_later_ones(place):
    log = await place.make_started(compression="none")
    await put(log, 0, b"before")
    await place.alter(max_message_bytes="100000")
    refused = random.Random(2).randbytes(300_000)
    outcomes = await asyncio.gather(
        log.append(0, b"t", refused, 0, timeout_s=60),
        *(log.append(partition, b"t", b"meanwhile", 0, timeout_s=60) for partition in range(PARTITIONS)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], (RecordTooLarge, LogUnavailable))
    assert all(isinstance(outcome, (int, LogUnavailable)) for outcome in outcomes[1:])
    for partition in range(PARTITIONS):
        assert await put(log, partition, b"after", b"after that")
    values = [record.value for record in await read_all(log, 0)]
    assert values[0] == b"before"
    assert values[-2:] == [b"after", b"after that"]
    assert refused not in values
    assert log.max_record_bytes == 100_000 - 16_384
    with pytest.raises(RecordTooLarge):
        await log.append(0, b"t", refused, 0, timeout_s=60)


async def test_one_record_alone_that_the_broker_refuses_is_the_clients_fault(place):
    log = await place.make_started(compression="none")
    await place.alter(max_message_bytes="100000")
    with pytest.raises(RecordTooLarge, match=r"smaller max\.message\.bytes") as caught:
        await log.append(0, b"t", random.Random(3).randbytes(300_000), 0, timeout_s=60)
    assert caught.value.http_status == 400
    assert await put(log, 0, b"after") == [0]


async def test_many_large_records_to_many_partitions_at_once_stay_under_the_brokers_request_limit(place):
    log = await place.make_started(compression="none", auto_create_topic_default_partitions=9)
    blob = random.Random(4).randbytes(15_000_000)
    offsets = await asyncio.gather(*(log.append(p, b"t", blob, 0, timeout_s=120) for p in range(9)))
    assert offsets == [0] * 9


async def test_bytes_that_wait_for_acknowledgement_are_bounded_and_given_back(own_place):
    own_place.broker.start()
    log = await own_place.make_started(max_buffered_bytes=1000)
    await put(log, 0, b"x" * 1000, b"x" * 1000)
    own_place.broker.pause()
    waiting = asyncio.create_task(log.append(0, b"t", b"x" * 900, 0, timeout_s=30))
    await asyncio.sleep(0.2)
    with pytest.raises(LogUnavailable, match="900 bytes already wait"):
        await log.append(0, b"t", b"x" * 101, 0, timeout_s=30)
    own_place.broker.resume()
    assert await waiting == 2
    assert await put(log, 0, b"x" * 1000) == [3]


# Outages


async def test_a_broker_that_is_down_at_start_is_waited_for_and_that_is_said_once(own_place):
    log = own_place.make()
    with capture_logs() as lines:
        starting = asyncio.create_task(log.start())
        await asyncio.sleep(2.0)
        assert not starting.done()
        await asyncio.to_thread(own_place.broker.start)
        await asyncio.wait_for(starting, 60)
    said = [line["event"] for line in lines if "answer" in line["event"]]
    assert said == ["Kafka does not answer, waiting for it", "Kafka answers again"]
    assert await put(log, 0, b"a") == [0]


async def test_waiting_for_a_broker_can_be_cancelled(own_place):
    log = own_place.make()
    starting = asyncio.create_task(log.start())
    await asyncio.sleep(0.5)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await log.close()


async def test_a_seed_address_that_is_dead_is_passed_over(place):
    dead = f"127.0.0.1:{pick_free_port()}"
    log = KafkaLog(f"{dead}, {place.broker.address}", place.topic)
    await log.start()
    assert await put(log, 0, b"a") == [0]
    await log.close()


async def test_a_broker_that_goes_away_fails_appends_in_time_and_is_used_again(own_place):
    own_place.broker.start()
    log = await own_place.make_started()
    await put(log, 0, b"a")
    assert len(await read_all(log, 0)) == 1
    await asyncio.to_thread(own_place.broker.kill)
    began = time.monotonic()
    with pytest.raises(LogUnavailable, match=r"not acknowledged within 1 s") as caught:
        await log.append(0, b"t", b"in the outage", 0, timeout_s=1)
    assert caught.value.retriable
    assert time.monotonic() - began < 60
    with pytest.raises(LogUnavailable, match=r"has not been readable|gave up after"):
        await read_until_something(log, 1)
    await asyncio.to_thread(own_place.broker.start)
    await put_until_taken(log, b"b")
    values = [record.value for record in await read_all(log, 0)]
    assert values[0] == b"a"
    assert values.count(b"b") >= 1
    assert await log.end_offset(0) == len(values)


async def test_a_frozen_broker_does_not_hold_an_append_past_its_time_and_the_producer_is_replaced(own_place):
    own_place.broker.start()
    log = await own_place.make_started(write_timeout_s=1.5, write_timeout_overhead_s=0.5)
    await put(log, 0, b"a")
    own_place.broker.pause()
    with capture_logs() as lines, pytest.raises(LogUnavailable, match="producer was replaced: nothing acknowledged"):
        await log.append(0, b"t", b"frozen", 0, timeout_s=60)
    assert "the Kafka producer is replaced" in [line["event"] for line in lines]
    own_place.broker.resume()
    await put_until_taken(log, b"b")
    assert [record.value for record in await read_all(log, 0)].count(b"a") == 1


async def read_until_something(log, next_offset):
    """Read at the end of a log that nobody writes to, for a while."""
    for _ in range(20):
        assert await log.read(0, next_offset, max_bytes=MANY, max_wait_s=1) == []


async def put_until_taken(log, value):
    """Append until it works, as a client that retries does."""
    for _ in range(300):
        try:
            return await log.append(0, b"t", value, 0, timeout_s=5)
        except LogUnavailable:
            await asyncio.sleep(0.2)
    raise AssertionError("the log never took the record")


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
async def test_a_broker_restarted_in_traffic_loses_nothing_acknowledged(own_place, kill):
    own_place.broker.start()
    log = await own_place.make_started()
    done = asyncio.Event()
    acknowledged: dict[int, bytes] = {}
    failed: set[bytes] = set()

    async def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            value = b"%d-%d" % (writer, number)
            try:
                acknowledged[await log.append(0, b"t", value, 0, timeout_s=8)] = value
            except LogUnavailable:
                failed.add(value)
            number += 1

    async def follow() -> list[bytes]:
        seen: list[bytes] = []
        while not done.is_set() or len(seen) < await log.end_offset(0):
            try:
                got = await log.read(0, len(seen), max_bytes=MANY, max_wait_s=1)
            except LogUnavailable:
                continue
            assert [record.offset for record in got] == list(range(len(seen), len(seen) + len(got)))
            seen += [record.value for record in got]
        return seen

    writers = [asyncio.create_task(write(number)) for number in range(4)]
    following = asyncio.create_task(follow())
    await asyncio.sleep(1.0)
    await asyncio.to_thread(own_place.broker.restart, kill=kill)
    target = len(acknowledged) + 100
    while len(acknowledged) < target:
        await asyncio.wait([following], timeout=0.1)
    done.set()
    await asyncio.gather(*writers)
    seen = await asyncio.wait_for(following, 60)
    assert {offset: seen[offset] for offset in acknowledged} == acknowledged
    assert len(seen) == len(set(seen)), "an append was stored twice"
    assert set(seen) - set(acknowledged.values()) <= failed


# Access


def unsigned_token(*, expires_in_s: int) -> str:
    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    now = int(time.time())
    return f"{part({'alg': 'none'})}.{part({'sub': 'tester', 'iat': now - 1, 'exp': now + expires_in_s})}."


@pytest.mark.parametrize(
    ("mechanism", "user"), [("PLAIN", "plain"), ("SCRAM-SHA-256", "scram256"), ("SCRAM-SHA-512", "scram512")]
)
async def test_a_password_lets_in_and_a_wrong_one_is_said_at_once(place, mechanism, user):
    for password, fits in ((PASSWORDS[user], True), ("wrong", False)):
        security = KafkaSecurity(sasl_mechanism=mechanism, sasl_username=user, sasl_password=password)
        log = KafkaLog(place.broker.sasl_address, place.topic, security=security)
        if fits:
            await log.start()
            assert await put(log, 0, b"a") == [0]
            assert len(await read_all(log, 0)) == 1
            await log.commit("group", 0, 1)
            await log.close()
            continue
        with pytest.raises(LogUnavailable, match=r"(?i)authentication failed") as caught:
            await asyncio.wait_for(log.start(), 20)
        assert not caught.value.retriable
        assert "wrong" not in caught.value.message


async def test_a_mechanism_that_the_broker_does_not_offer_is_said_at_once(place, new_kafka_broker):
    broker = new_kafka_broker(sasl_enabled_mechanisms="PLAIN").start()
    security = KafkaSecurity(sasl_mechanism="SCRAM-SHA-256", sasl_username="scram256", sasl_password="x")
    with pytest.raises(LogUnavailable) as caught:
        await asyncio.wait_for(KafkaLog(broker.sasl_address, place.topic, security=security).start(), 20)
    assert not caught.value.retriable


async def test_a_token_lets_in_from_a_setting_and_from_a_file(place, tmp_path):
    file = tmp_path / "token"
    file.write_text(unsigned_token(expires_in_s=600) + "\n")
    for security in (
        KafkaSecurity(sasl_mechanism="OAUTHBEARER", oauthbearer_token=unsigned_token(expires_in_s=600)),
        KafkaSecurity(sasl_mechanism="OAUTHBEARER", oauthbearer_token_path=str(file)),
    ):
        log = KafkaLog(place.broker.sasl_address, place.topic, security=security)
        await asyncio.wait_for(log.start(), 20)
        await put(log, 0, b"a")
        await log.close()
    expired = KafkaSecurity(sasl_mechanism="OAUTHBEARER", oauthbearer_token=unsigned_token(expires_in_s=-600))
    with pytest.raises(LogUnavailable, match="the token was refused") as caught:
        await asyncio.wait_for(KafkaLog(place.broker.sasl_address, place.topic, security=expired).start(), 20)
    assert not caught.value.retriable


async def test_tls_with_a_client_certificate(place):
    authority = place.broker.authority
    security = KafkaSecurity(
        tls_enabled=True,
        tls_ca_path=str(authority.ca_file),
        tls_cert_path=str(authority.client_cert_file),
        tls_key_path=str(authority.client_key_file),
    )
    log = KafkaLog(place.broker.tls_address, place.topic, security=security)
    await asyncio.wait_for(log.start(), 20)
    assert await put(log, 0, b"a") == [0]
    assert len(await read_all(log, 0)) == 1
    await log.close()


async def test_a_server_of_an_unknown_authority_is_refused_unless_told_otherwise(place):
    authority = place.broker.authority
    own = {"tls_cert_path": str(authority.client_cert_file), "tls_key_path": str(authority.client_key_file)}
    strict = KafkaSecurity(tls_enabled=True, **own)
    with pytest.raises(LogUnavailable, match="certificate verify failed") as caught:
        await asyncio.wait_for(KafkaLog(place.broker.tls_address, place.topic, security=strict).start(), 20)
    assert not caught.value.retriable
    lax = KafkaSecurity(tls_enabled=True, tls_insecure_skip_verify=True, **own)
    log = KafkaLog(place.broker.tls_address, place.topic, security=lax)
    await asyncio.wait_for(log.start(), 20)
    assert await put(log, 0, b"a") == [0]
    await log.close()


@pytest.mark.parametrize(
    ("security", "message"),
    [
        (KafkaSecurity(tls_enabled=True, tls_ca_path="/nowhere/ca.pem"), "/nowhere/ca.pem"),
        (KafkaSecurity(tls_enabled=True, tls_min_version="VersionSSL30"), "unknown TLS version"),
        (KafkaSecurity(sasl_mechanism="AWS_MSK_IAM"), "AWS_MSK_IAM is not supported"),
        (KafkaSecurity(sasl_mechanism="OAUTHBEARER"), "needs a token"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(security, message):
    with pytest.raises(LogUnavailable, match=message) as caught:
        build_client_arguments(security)
    assert not caught.value.retriable


def test_secrets_are_not_shown():
    security = KafkaSecurity(sasl_password="hidden-a", oauthbearer_token="hidden-b")
    assert "hidden" not in repr(security)
