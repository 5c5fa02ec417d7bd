"""A real Kafka that is late, killed, frozen, strict or newer than us, seen from a whole process."""

import asyncio
import random
import struct
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.support.observe import metric, now_ms, one, push_until_taken, values, wait_until
from tests.support.program import Program
from tests.support.remote_write import body
from tests.support.retrying_sender import SERIES, Sender, wait_stored

pytestmark = pytest.mark.kafka

FROZEN_S = 15.0
UNKNOWN_VERSION = 99
RECORDS_APPLIED = "cortex_ingest_storage_reader_requests_total"


def kafka_program(directory, broker, topic, *flags):
    return Program(
        directory,
        "-distributor.ingestion-rate-limit=1e9",
        f"-ingest-storage.kafka.address={broker.address}",
        f"-ingest-storage.kafka.topic={topic}",
        "-ingest-storage.kafka.auto-create-topic-default-partitions=1",
        *flags,
    )


def test_a_broker_that_is_down_at_start_is_waited_for(tmp_path, new_kafka_broker):
    broker, at = new_kafka_broker(), now_ms()
    with kafka_program(tmp_path / "program", broker, "late") as program:
        program.start(wait=False)
        not_ready = wait_until(lambda: program.http.get("/ready"), "an answer")
        assert not_ready.status_code == 503
        wait_until(
            lambda: "ring: Starting" in program.http.get("/ready").text,
            "the state of the ring, which is kept beside the log, in /ready",
        )
        wait_until(lambda: broker.address in program.http.get("/ready").text, "the broker's address in /ready")
        refused = program.push(one("late", 1.0, at))
        assert refused.status_code == 500
        assert refused.text.strip() == "distributor is unavailable (current state: New)"
        assert program.http.get("/prometheus/api/v1/query", params={"query": "late"}).status_code >= 500
        broker.start()
        program.wait_ready()
        assert program.push(one("late", 2.0, at)).status_code == 200
        wait_until(lambda: values(program, "late", at) == [2.0], "the sample")
        assert "the ring store answers again" in program.log_path.read_text()
        assert program.stop() == 0


def test_sigterm_while_the_broker_is_waited_for_ends_the_process(tmp_path, new_kafka_broker):
    with kafka_program(tmp_path / "program", new_kafka_broker(), "never") as program:
        program.start(wait=False)
        wait_until(lambda: program.http.get("/ready").status_code == 503, "an answer")
        assert program.stop() == 0


@pytest.mark.slow
def test_a_broker_killed_and_frozen_under_load_costs_nothing_that_was_acknowledged(tmp_path, new_kafka_broker):
    broker = new_kafka_broker().start()
    with kafka_program(tmp_path / "program", broker, "outages") as program:
        program.start()
        sender = Sender(program, (int(time.time()) - 3000) * 1000)
        sender.start()
        wait_until(lambda: sender.rounds >= 5, "some rounds")
        for _ in range(2):
            broker.kill()
            failed = len(sender.failed)
            wait_until(lambda failed=failed: len(sender.failed) > failed, "a push that fails")
            rounds = sender.rounds
            broker.start()
            wait_until(lambda rounds=rounds: sender.rounds >= rounds + 5, "rounds after a restart")
        broker.pause()
        thawed_at = time.monotonic() + FROZEN_S
        failed = len(sender.failed)
        while time.monotonic() < thawed_at:
            answer = program.push(one("frozen", 1.0, now_ms()))
            assert answer.status_code == 500
            assert answer.text.startswith("send data to partitions: ")
        assert program.http.get("/ready").status_code == 200
        broker.resume()
        rounds = sender.rounds
        wait_until(lambda: sender.rounds >= rounds + 5, "rounds after the freeze")
        sender.finish()
        assert sender.cut_off == 0
        assert len(sender.failed) > failed
        assert all(text.startswith("send data to partitions: ") for text in sender.failed), set(sender.failed)
        wait_stored(program, sender)
        assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        program.kill()
        program.start()
        wait_stored(program, sender)
        assert sender.rounds * SERIES >= 15 * SERIES
        assert program.stop() == 0


async def set_max_message_bytes(broker, topic, size):
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        limit = {"max.message.bytes": str(size)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=limit)])
    finally:
        await admin.close()


def large_body(name, at_ms, *, series, seed):
    """A body that does not compress."""
    draw = random.Random(seed)
    return body(
        [({"__name__": name, "noise": draw.randbytes(400).hex(), "n": str(i)}, [(at_ms, i)]) for i in range(series)]
    )


async def test_a_record_the_broker_refuses_is_split_at_the_next_try_and_stops_nothing(tmp_path, kafka_broker):
    topic, at = f"strict-{tmp_path.name}", now_ms()
    with kafka_program(tmp_path / "program", kafka_broker, topic) as program:
        program.start()
        assert program.push(one("small", 1.0, at)).status_code == 200
        await set_max_message_bytes(kafka_broker, topic, 100_000)
        large = large_body("large", at, series=600, seed=1)
        first = program.push(large)
        assert first.status_code == 500, first.text
        assert first.text.startswith("send data to partitions: failed pushing to partition 0: ")
        # The partition's later writes work, and the sender's next tries go in, in smaller records.
        push_until_taken(program, one("small", 2.0, at + 1000))
        push_until_taken(program, large)
        assert program.push(one("small", 3.0, at + 2000)).status_code == 200
        wait_until(lambda: values(program, "small", at + 2000) == [3.0], "the last sample")
        assert values(program, "count_over_time(small[1m])", at + 2000) == [3.0]
        assert values(program, "count(large)", at) == [600.0]


async def test_a_topic_with_a_small_limit_gets_records_that_fit(tmp_path, kafka_broker):
    topic, at = f"small-{tmp_path.name}", now_ms()
    directory = tmp_path / "program"
    with kafka_program(directory, kafka_broker, topic, "-validation.max-label-names-per-series=100") as program:
        program.start()
        assert program.stop() == 0
        await set_max_message_bytes(kafka_broker, topic, 100_000)
        program.start()
        assert program.push(large_body("large", at, series=600, seed=2)).status_code == 200
        wait_until(lambda: values(program, "count(large)", at) == [600.0], "all series")
        item = {"__name__": "item", **{f"l{i:03d}": random.Random(i).randbytes(900).hex() for i in range(60)}}
        refused = program.push(body([(item, [(at, 1.0)])]))
        assert refused.status_code == 400
        assert "item which is larger that the maximum allowed size of 83616 bytes" in refused.text
        assert program.push(one("small", 1.0, at)).status_code == 200


async def test_a_record_of_an_unknown_version_stops_its_partition_and_is_not_skipped(tmp_path, kafka_broker):
    topic, at = f"newer-{tmp_path.name}", now_ms()
    with kafka_program(tmp_path / "program", kafka_broker, topic) as program:
        program.start()
        assert program.push(one("before", 1.0, at)).status_code == 200
        wait_until(lambda: values(program, "before", at) == [1.0], "the first sample")
        producer = AIOKafkaProducer(bootstrap_servers=kafka_broker.address)
        await producer.start()
        try:
            headers = [("Version", struct.pack(">I", UNKNOWN_VERSION))]
            sent = await producer.send_and_wait(topic, b"from the future", key=b"anonymous", headers=headers)
        finally:
            await producer.stop()

        for _ in range(2):
            reason = wait_until(stopped_for(program, sent.offset), "/ready that says why")
            assert "Ingester not ready: partition 0 is stopped" in reason
            assert str(UNKNOWN_VERSION) in reason
            assert "partition is not consumed any more" in program.log_path.read_text()
            # The log takes more; nothing past the record is applied, and no query answers without it.
            assert program.push(one("after", 1.0, at)).status_code == 200
            await asyncio.sleep(1.0)
            assert metric(program, RECORDS_APPLIED) <= sent.offset
            answer = program.http.get("/prometheus/api/v1/query", params={"query": "before"})
            assert answer.status_code >= 500
            assert "partition 0 is stopped" in answer.text
            assert program.stop() == 0
            program.start(wait=False)


def stopped_for(program, offset):
    def stopped():
        answer = program.http.get("/ready")
        return answer.text if answer.status_code == 503 and f"record {offset}:" in answer.text else None

    return stopped
