"""The topic: made on first use with the settings that the log needs, judged when it exists already, never changed."""

from __future__ import annotations

import asyncio

import structlog

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.log.kafka_cluster import KafkaCluster
from mimir_ingest.log.kafka_protocol import TopicDescription

MAX_MESSAGE_BYTES = 16_000_000
"""`max.message.bytes` of topics created here; Mimir's largest produce batch."""
BATCH_OVERHEAD_BYTES = 16_384
"""Reserved for a batch's and a record's own fields; Mimir's number."""

log = structlog.get_logger()


async def ensure_topic(cluster: KafkaCluster, topic: str, *, create: bool, partitions: int, timeout_s: float) -> str:
    """Return the topic's id once every partition of it has a leader; a missing topic is created if it may be.

    Parameters
    ----------
    create : whether it may
    partitions : of a created topic; -1 is the broker's default
    timeout_s : time for each answer, and for leaders to be found (s)

    Raises LogUnavailable; not retriable when the topic must not be created, or Kafka refuses to.
    """
    description = await cluster.describe_topic(topic, timeout_s=timeout_s)
    if not description.exists:
        if not create:
            error = LogUnavailable(
                f"Kafka has no topic {topic}, and -ingest-storage.kafka.auto-create-topic-enabled is false"
            )
            error.retriable = False
            raise error
        replicas = (await cluster.broker_settings(timeout_s=timeout_s)).get("default.replication.factor")
        settings = topic_settings(replication_factor=int(replicas or 1))
        await cluster.create_topic(topic, partitions=partitions, settings=settings, timeout_s=timeout_s)
        log.info("created the Kafka topic", topic=topic, partitions=partitions, **settings)
    return (await _wait_for_leaders(cluster, topic, partitions=1, timeout_s=timeout_s)).topic_id


async def grow_topic(cluster: KafkaCluster, topic: str, *, total: int, timeout_s: float) -> None:
    """Add partitions until there are `total`, and wait until each has a leader; another process may do the same.

    Raises LogUnavailable; not retriable when Kafka refuses to.
    """
    description = await cluster.describe_topic(topic, timeout_s=timeout_s)
    if len(description.leaders) < total:
        try:
            await cluster.create_partitions(topic, total=total, timeout_s=timeout_s)
            log.info("added partitions to the Kafka topic", topic=topic, before=len(description.leaders), total=total)
        except LogUnavailable:
            if len((await cluster.describe_topic(topic, timeout_s=timeout_s)).leaders) < total:
                raise
    await _wait_for_leaders(cluster, topic, partitions=total, timeout_s=timeout_s)


async def _wait_for_leaders(
    cluster: KafkaCluster, topic: str, *, partitions: int, timeout_s: float
) -> TopicDescription:
    """Return the topic once it has that many partitions, and all of them leaders."""
    description = await cluster.describe_topic(topic, timeout_s=timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            while len(description.leaders) < partitions or min(description.leaders.values(), default=-1) < 0:
                await asyncio.sleep(0.1)
                description = await cluster.describe_topic(topic, timeout_s=timeout_s)
    except TimeoutError:
        leaderless = [partition for partition, leader in description.leaders.items() if leader < 0]
        raise LogUnavailable(f"Kafka: partitions {leaderless} of topic {topic} have no leader") from None
    return description


def topic_settings(*, replication_factor: int) -> dict[str, str]:
    """Return the settings of a topic created here.

    Two replicas must have a record from three replicas on: with fewer, one broker that is down would stop all writes.
    """
    settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    if replication_factor >= 3:
        settings["min.insync.replicas"] = "2"
    return settings


def describe_misfits(settings: dict[str, str], *, max_record_bytes: int) -> list[str]:
    """Return a sentence for each of a topic's settings that does not fit."""
    misfits: list[str] = []
    if (stamp := settings.get("message.timestamp.type", "LogAppendTime")) != "LogAppendTime":
        misfits.append(
            f"the Kafka topic has message.timestamp.type={stamp}: writers' clocks decide where blocks are cut; "
            "set it to LogAppendTime"
        )
    allowed = int(settings["max.message.bytes"]) - BATCH_OVERHEAD_BYTES
    if allowed < max_record_bytes:
        misfits.append(
            f"the Kafka topic has max.message.bytes={settings['max.message.bytes']}: records are split at {allowed} "
            f"bytes instead of {max_record_bytes}; set it to {max_record_bytes + BATCH_OVERHEAD_BYTES}"
        )
    policy = settings.get("cleanup.policy", "delete")
    if "compact" in policy:
        misfits.append(f"the Kafka topic has cleanup.policy={policy}: compaction loses samples; set it to delete")
    return misfits
