"""Who a process is in the rings, and where these are kept, by its settings."""

import socket
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.config.settings import load
from mimir_ingest.ring_wiring import (
    describe_ring_store,
    identity,
    instance_address,
    internal_host,
    make_election_store,
    make_ha_tracker,
    make_ring_store,
    ring_members,
)
from partitions.kv.kafka import KafkaRingStore
from partitions.kv.sqlite import SqliteRingStore
from partitions.upkeep import keeper
from partitions.watch import RingWatcher
from tests.support.ring import ingester, ring_of

HOST = socket.gethostname()
OWN = f"{HOST}:8080"
KAFKA = "-ingest-storage.kafka.address=kafka:9092"


def settings(*flags):
    return load(flags, {})[0]


@pytest.mark.parametrize(
    ("flags", "ingester", "distributor", "writer"),
    [
        ([], OWN, OWN, OWN),
        (["-ingester.ring.instance-id=a"], "a", "a", "a"),
        (["-ingester.ring.instance-id=a", "-distributor.ring.instance-id=b"], "a", "b", "a"),
        (["-ingester.partition-ring.ownership=instance-id"], HOST, HOST, HOST),
        (["-target=distributor", "-distributor.ring.instance-id=b"], HOST, "b", "b"),
        (["-target=distributor"], HOST, OWN, OWN),
        (["-target=querier"], HOST, OWN, OWN),
    ],
)
def test_processes_of_one_machine_have_different_ids_unless_they_are_told_others(flags, ingester, distributor, writer):
    monitored = [flag for flag in flags if not flag.startswith("-target")]
    target = next((flag.partition("=")[2] for flag in flags if flag.startswith("-target")), "all")
    made = settings(*monitored, f"-target={target}")
    found = identity(made, 8080)
    assert (found.distributor, found.writer) == (distributor, writer)
    assert found.ingester == ingester


def test_the_embedded_log_keeps_the_ring_in_its_database_and_listens_on_the_loopback():
    made = settings("-ingest-storage.embedded.path=/d")
    assert isinstance(make_ring_store(made.ingest_storage), SqliteRingStore)
    assert describe_ring_store(made.ingest_storage) == "the embedded log's database /d/log.sqlite"
    assert internal_host(made) == "127.0.0.1"
    assert instance_address(made, made.ingester.ring, 1234) == "127.0.0.1:1234"
    other = settings("-server.grpc-listen-address=10.0.0.7")
    assert instance_address(other, other.ingester.ring, 1234) == "10.0.0.7:1234"


def test_kafka_keeps_the_ring_in_a_topic_beside_the_log_and_everybody_can_reach_the_process():
    made = settings(KAFKA, "-ingest-storage.kafka.topic=ingest")
    assert isinstance(make_ring_store(made.ingest_storage), KafkaRingStore)
    assert describe_ring_store(made.ingest_storage) == "the Kafka topic ingest-ring"
    named = settings(KAFKA, "-ingest-storage.kafka.topic=ingest", "-ingest-storage.kafka.ring-topic=rings")
    assert describe_ring_store(named.ingest_storage) == "the Kafka topic rings"
    assert internal_host(made) == ""


def test_elections_are_kept_beside_the_ring_and_nobody_opens_them_unasked(tmp_path):
    embedded, kafka = (
        settings("-ingest-storage.embedded.path=/d"),
        settings(KAFKA, "-ingest-storage.kafka.topic=ingest"),
    )
    named = settings(KAFKA, "-ingest-storage.kafka.topic=ingest", "-ingest-storage.kafka.ha-tracker-topic=elected")
    assert str(make_election_store(embedded.ingest_storage)._path) == "/d/ha-tracker.sqlite"
    assert make_election_store(kafka.ingest_storage)._topic == "ingest-ha-tracker"
    assert make_election_store(named.ingest_storage)._topic == "elected"
    assert make_ring_store(named.ingest_storage)._topic_flag == "-ingest-storage.kafka.ring-topic"
    assert make_election_store(named.ingest_storage)._topic_flag == "-ingest-storage.kafka.ha-tracker-topic"
    rings = RingWatcher(make_ring_store(embedded.ingest_storage), writer="d")
    for flags, made in (([], False), (["-distributor.ha-tracker.enable=true"], True)):
        tracker = make_ha_tracker(
            settings(*flags),
            identity(embedded, 8080),
            rings,
            lambda _: embedded.limits,
            CollectorRegistry(),
            now_ms=lambda: 0,
        )
        assert (tracker is not None) == made


def test_elections_are_kept_up_by_a_distributor_whoever_comes_first_in_the_ring():
    distributor = replace(ingester("d", heartbeat_ms=5), ring="distributor")
    desc = ring_of(ingester("a", heartbeat_ms=5), distributor)
    assert keeper(desc, 5, 60_000) == "a"
    assert keeper(ring_members(desc, "distributor"), 5, 60_000) == "d"


def test_address_and_port_in_the_ring_may_be_given():
    made = settings("-ingester.ring.instance-addr=pod-0.example", "-ingester.ring.instance-port=80")
    assert instance_address(made, made.ingester.ring, 1234) == "pod-0.example:80"
    assert instance_address(made, made.distributor.ring, 1234) == "127.0.0.1:1234"
