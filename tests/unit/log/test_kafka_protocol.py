"""Metadata answers of new and old brokers are read alike; requests have the bytes that Kafka's definitions say."""

from aiokafka.protocol.metadata import MetadataResponse_v5

from mimir_ingest.log.kafka_protocol import (
    CreateTopicRequest,
    MetadataRequest_v10,
    MetadataResponse_v10,
    TopicMetadataRequest,
    describe_topic,
)


def test_the_request_for_one_topic_has_kafkas_bytes():
    request = TopicMetadataRequest("abc").prepare({3: (0, 13)})
    assert isinstance(request, MetadataRequest_v10)
    # one topic (count + 1), no id, name (length + 1), no tags; do not create; no operations twice; no tags
    assert request.encode() == b"\x02" + bytes(16) + b"\x04abc\x00" + b"\x00\x00\x00" + b"\x00"


def test_a_broker_that_gives_ids_is_read():
    partitions = [(0, 0, 7, 1, [7], [7], [], {}), (0, 1, -1, 1, [7], [], [7], {})]
    topics = [(0, "abc", bytes(range(16)), False, partitions, -1, {})]
    answer = MetadataResponse_v10(0, [(7, "host", 9092, None, {})], "cluster", 7, topics, -1, {})
    described = describe_topic(MetadataResponse_v10.decode(answer.encode()))
    assert described.topic_id == "000102030405060708090a0b0c0d0e0f"
    assert described.leaders == {0: 7, 1: -1}
    assert described.exists


def test_an_older_brokers_topic_is_known_by_cluster_and_name():
    assert TopicMetadataRequest("abc").prepare({3: (0, 7)}).API_VERSION == 5
    topics = [(0, "abc", False, [(0, 0, 7, [7], [7], [])])]
    answer = MetadataResponse_v5(0, [(7, "host", 9092, None)], "cluster", 7, topics)
    described = describe_topic(MetadataResponse_v5.decode(answer.encode()))
    assert (described.topic_id, described.leaders) == ("cluster/abc", {0: 7})


def test_a_missing_topic_does_not_exist():
    answer = MetadataResponse_v10(0, [], "cluster", 7, [(3, "abc", bytes(16), False, [], -1, {})], -1, {})
    assert not describe_topic(MetadataResponse_v10.decode(answer.encode())).exists


def test_a_topic_is_created_by_the_version_that_takes_the_brokers_default():
    request = CreateTopicRequest("abc", partitions=-1, replication_factor=-1, settings={"a": "b"}, timeout_ms=5)
    built = request.prepare({19: (2, 7)})
    assert built.API_VERSION == 4
    assert built.encode() == (
        b"\x00\x00\x00\x01\x00\x03abc\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"
        b"\x00\x00\x00\x01\x00\x01a\x00\x01b\x00\x00\x00\x05\x00"
    )
