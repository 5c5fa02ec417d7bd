"""A topic that Mimir's distributors write: records of version 2, built from the published schema by protobuf.

The encoder here shares nothing with ours: the message classes come from the schema, references and symbols from the
rules of the format (spec ingest-storage 1.3 and 1.4): 0 to 63 are the common table, 64 and up the record's own symbols.
"""

import struct
import time

import pytest
from aiokafka import AIOKafkaProducer

from tests.support.observe import metric, wait_until
from tests.support.program import Program
from tests.support.protobuf_schema import WriteRequest

pytestmark = pytest.mark.kafka

COMMON = {"__name__": 1, "le": 4, "job": 19, "instance": 20, "container": 21, "kube-system": 28, "cluster": 16}
"""A part of the common table, by the numbers of the specification."""

STEP_MS = 15_000
ROUNDS = 20
COUNTER, GAUGE = 1, 2


class Symbols:
    """A record's own symbols, behind the common table."""

    def __init__(self):
        self.texts = [""]

    def ref(self, text):
        if text == "":
            return 0
        if text in COMMON:
            return COMMON[text]
        if text not in self.texts:
            self.texts.append(text)
        return 64 + self.texts.index(text)


def version_2(series, metadata=None, created_ms=0):
    """Return a record value of (labels, samples, exemplars) series; metadata is family → (type, help, unit)."""
    symbols, request = Symbols(), WriteRequest(source=0)
    for labels, samples, exemplars in series:
        item = request.timeseries_rw2.add(created_timestamp=created_ms if samples else 0)
        for name, value in sorted(labels.items()):
            item.labels_refs.extend((symbols.ref(name), symbols.ref(value)))
        for at, value in samples:
            item.samples.add(timestamp=at, value=value)
        for at, value in exemplars:
            item.exemplars.add(labels_refs=[symbols.ref("trace_id"), symbols.ref(f"t{at}")], timestamp=at, value=value)
        kind, about, unit = (metadata or {}).get(labels["__name__"], (0, "", ""))
        item.metadata.type = kind
        item.metadata.help_ref, item.metadata.unit_ref = symbols.ref(about), symbols.ref(unit)
    request.symbols.extend(text.encode() for text in symbols.texts)
    return request.SerializeToString()


def version_1(series):
    """Return a record value in the form of versions 0 and 1."""
    request = WriteRequest()
    for labels, samples in series:
        item = request.timeseries.add()
        for name, value in sorted(labels.items()):
            item.labels.add(name=name.encode(), value=value.encode())
        for at, value in samples:
            item.samples.add(timestamp=at, value=value)
    return request.SerializeToString()


def series_labels(i):
    return {
        "__name__": "http_requests_total",
        "job": "kube-system",
        "instance": f"host-{i}",
        "cluster": "eu",
        "städte": "köln" if i % 2 else "",
    }


def round_of(number, start_ms):
    at = start_ms + number * STEP_MS
    return [
        ({k: v for k, v in series_labels(i).items() if v}, [(at, float(number * 10 + i))], [(at, 0.5)])
        for i in range(7)
    ]


async def write_topic(broker, topic, start_ms):
    """Write what Mimir's distributors would, over two partitions; return the number of float samples."""
    producer = AIOKafkaProducer(bootstrap_servers=broker.address)
    await producer.start()

    async def send(partition, tenant, value, version):
        headers = [] if version == 0 else [("Version", struct.pack(">I", version))]
        await producer.send_and_wait(topic, value, key=tenant, partition=partition, headers=headers)

    try:
        about = {"http_requests_total": (COUNTER, "Requests served.", "")}
        created_ms = start_ms - STEP_MS
        for number in range(ROUNDS):
            batch = round_of(number, start_ms)
            await send(0, b"team-a", version_2(batch[:4], about, created_ms), 2)
            await send(1, b"team-a", version_2(batch[4:], about, created_ms), 2)
        # A client's retry writes a record twice; metadata may come alone; older producers write versions 1 and 0.
        await send(0, b"team-a", version_2(round_of(3, start_ms)[:4], about, created_ms), 2)
        await send(1, b"team-a", version_2([({"__name__": "alone"}, [], [])], {"alone": (GAUGE, "Alone.", "bytes")}), 2)
        old = [({"__name__": "old_total", "job": "v"}, [(start_ms, 1.0), (start_ms + STEP_MS, 2.0)])]
        await send(0, b"team-b", version_1(old), 1)
        await send(0, b"team-b", version_1([({"__name__": "older", "le": "1"}, [(start_ms, 4.5)])]), 0)
        # A reference past the record's symbols: passed over, and counted.
        broken = WriteRequest()
        broken.symbols.append(b"")
        broken.timeseries_rw2.add(labels_refs=[1, 99]).samples.add(timestamp=start_ms, value=1.0)
        await send(1, b"team-a", broken.SerializeToString(), 2)
    finally:
        await producer.stop()


def answers(program, start_ms):
    end_ms = start_ms + ROUNDS * STEP_MS
    found = program.query("http_requests_total[1h]", at_ms=end_ms, tenant="team-a")
    return {tuple(sorted(r["metric"].items())): [(round(t * 1000), float(v)) for t, v in r["values"]] for r in found}


def get(program, path, tenant, **parameters):
    answer = program.http.get(f"/prometheus/api/v1/{path}", params=parameters, headers={"X-Scope-OrgID": tenant})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_a_topic_that_mimir_writes_in_version_2_is_consumed_and_answers_queries(tmp_path, kafka_broker):
    topic = f"mimir-{tmp_path.name}"
    start_ms = (int(time.time()) - 1800) * 1000
    program = Program(
        tmp_path / "program",
        f"-ingest-storage.kafka.address={kafka_broker.address}",
        f"-ingest-storage.kafka.topic={topic}",
        "-ingest-storage.kafka.auto-create-topic-default-partitions=2",
        multitenancy=True,
    )
    expected = {
        tuple(sorted((k, v) for k, v in series_labels(i).items() if v)): [
            (start_ms - STEP_MS, 0.0),  # where each counter was created
            *((start_ms + n * STEP_MS, float(n * 10 + i)) for n in range(ROUNDS)),
        ]
        for i in range(7)
    }
    with program:
        program.start()
        await write_topic(kafka_broker, topic, start_ms)
        wait_until(lambda: answers(program, start_ms) == expected, "exactly the samples of the topic")
        wait_until(lambda: get(program, "metadata", "team-a").keys() >= {"alone"}, "the metadata")
        metadata = get(program, "metadata", "team-a")
        assert metadata["http_requests_total"] == [{"type": "counter", "help": "Requests served.", "unit": ""}]
        assert metadata["alone"] == [{"type": "gauge", "help": "Alone.", "unit": "bytes"}]
        assert get(program, "label/städte/values", "team-a") == ["köln"]
        span = {"start": start_ms / 1000 - 60, "end": start_ms / 1000 + 3600, "match[]": '{job="v"}'}
        assert get(program, "series", "team-b", **span) == [{"__name__": "old_total", "job": "v"}]
        assert program.query("old_total", at_ms=start_ms + STEP_MS, tenant="team-b")[0]["value"][1] == "2"
        assert program.query('older{le="1"}', at_ms=start_ms, tenant="team-b")[0]["value"][1] == "4.5"
        assert metric(program, "cortex_ingest_storage_reader_requests_failed_total", {"cause": "client"}) == 1

        # The same out of blocks, by another process that begins with an empty disk.
        assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        assert answers(program, start_ms) == expected
        program.kill()
        program.start()
        assert answers(program, start_ms) == expected
