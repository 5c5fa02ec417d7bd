"""Two Kafka requests in versions that aiokafka 0.14 does not know, in its own terms.

Metadata 10 (KIP-516) tells the topic's id, which a re-created topic of the same name does not share. CreateTopics 4
(KIP-464) takes -1 for "the broker's default number of partitions"; its bytes are those of version 3.
Source: Kafka's message definitions MetadataRequest.json, MetadataResponse.json, CreateTopicsRequest.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.protocol.admin import CreateTopicsRequest_v3, CreateTopicsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

_NO_ID = bytes(16)
NO_ERROR, NO_SUCH_TOPIC, NO_LEADER = 0, 3, 5
"""Error codes of a topic in a metadata answer that are not failures."""


class Uuid(AbstractType[bytes]):
    """Sixteen bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """Return the bytes."""
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        """Take sixteen bytes."""
        return data.read(16)


class MetadataResponse_v10(Response):
    """Brokers, the cluster id, and topics with their ids and partitions."""

    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class MetadataRequest_v10(RequestStruct):
    """Ask for topics by name (or by id, which is not used here)."""

    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicMetadataRequest(Request[MetadataRequest_v5 | MetadataRequest_v10]):
    """Ask for one topic, without creating it."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request in the version that the broker and this module both know."""
        if request_struct_class is MetadataRequest_v10:
            return MetadataRequest_v10([(_NO_ID, self._topic, {})], False, False, False, {})
        return MetadataRequest_v5([self._topic], False)


class CreateTopicsResponse_v4(Response):
    """An error code and text for each topic."""

    API_KEY = 19
    API_VERSION = 4
    SCHEMA = CreateTopicsResponse_v3.SCHEMA


class CreateTopicsRequest_v4(RequestStruct):
    """Version 3's bytes; -1 is allowed for partitions and replicas."""

    API_KEY = 19
    API_VERSION = 4
    RESPONSE_TYPE = CreateTopicsResponse_v4
    SCHEMA = CreateTopicsRequest_v3.SCHEMA


class CreateTopicRequest(Request[CreateTopicsRequest_v4]):
    """Create one topic; -1 partitions or replicas are the broker's default."""

    API_KEY = 19

    def __init__(
        self, topic: str, *, partitions: int, replication_factor: int, settings: dict[str, str], timeout_ms: int
    ) -> None:
        self._topics = [(topic, partitions, replication_factor, [], list(settings.items()))]
        self._timeout_ms = timeout_ms

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request in the version that the broker and this module both know."""
        return request_struct_class(self._topics, self._timeout_ms, False)


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What a metadata answer says of a topic."""

    error_code: int
    topic_id: str
    """Kafka's topic id as 32 hex digits; where the broker is older than that, `<cluster id>/<topic>`."""
    leaders: dict[int, int]
    """Partition to the node id of its leader, -1 where there is none."""

    @property
    def exists(self) -> bool:
        """Whether there is such a topic."""
        return self.error_code != NO_SUCH_TOPIC


def describe_topic(response: Any) -> TopicDescription:
    """Read the answer to a `TopicMetadataRequest`."""
    topic = response.topics[0]
    partitions = topic[4] if response.API_VERSION >= 10 else topic[3]
    topic_id = topic[2].hex() if response.API_VERSION >= 10 else f"{response.cluster_id}/{topic[1]}"
    return TopicDescription(topic[0], topic_id, {partition[1]: partition[2] for partition in partitions})
