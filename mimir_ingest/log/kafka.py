"""The partition log in Kafka: one topic, behaviour as in Mimir's ingest storage where that can be seen from outside.

    appends    kafka_producer   acks=all, idempotent, manual partition, header `Version` when it is not 0
    reads      kafka_reader     manual assignment, no group, no automatic reset, no automatic commit
    topic      kafka_topic      created on first use, its settings judged
    the rest   kafka_cluster    offsets, groups' positions, metadata
    access     kafka_security   TLS and SASL

The topic is created on first use with LogAppendTime stamps. An existing topic is taken as it is; where its settings do
not fit, that is said once at start. `topic_id` is Kafka's own topic id; only a broker that does not give one (before
2.8) makes it the cluster's id and the topic's name, which a re-created topic shares.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from mimir_ingest.errors import LogUnavailable, OffsetOutOfRange, RecordTooLarge
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.log.kafka_cluster import (
    EARLIEST,
    LATEST,
    METADATA_MAX_AGE_MS,
    KafkaCluster,
    close_quietly,
    renamed_errors,
)
from mimir_ingest.log.kafka_producer import KafkaWriter
from mimir_ingest.log.kafka_reader import PastEnd, ReaderPool, encode_headers
from mimir_ingest.log.kafka_security import KafkaSecurity, build_client_arguments
from mimir_ingest.log.kafka_topic import (
    BATCH_OVERHEAD_BYTES,
    MAX_MESSAGE_BYTES,
    describe_misfits,
    ensure_topic,
    grow_topic,
)

_BATCH_BYTES = 4 << 20
# why: counts uncompressed bytes; some eight columnar records. A larger record travels alone.
_UNKNOWN_MAX_MESSAGE_BYTES = 1_048_588
# why: Kafka's default of max.message.bytes, assumed where the topic's settings may not be read.
_START_PAUSE_S = (0.25, 5.0)
_READ_REQUEST_TIMEOUT_S = 30.0

LOOK_S = 5.0
"""How often a partition that gives no records is looked up, to see that it is still there."""

log = structlog.get_logger()


class KafkaLog(PartitionLog):
    """See `PartitionLog`. Owns its connections and tasks from `start` to `close`.

    Parameters
    ----------
    addresses : seed brokers, `host:port`, comma-separated
    topic : topic name
    security : TLS and SASL
    client_id : sent to Kafka with every request
    client_rack : rack of this process; reads then prefer a replica there; empty is none
    dial_timeout_s : time to open a connection to a seed broker
    write_timeout_s : time after which the producer gives up on a record
    write_timeout_overhead_s : added to that for a produce request's own answer
    read_timeout_s : time allowed to lookups of offsets, positions and metadata
    auto_create_topic : create the topic when it is missing
    auto_create_topic_default_partitions : partitions of a created topic, -1 is the broker's default
    max_record_bytes : largest value; less where the topic's max.message.bytes is smaller
    max_buffered_bytes : values that may wait for acknowledgement (bytes), 0 is no limit
    compression : none, gzip, snappy, lz4 or zstd
    linger_s : how long a batch waits for more records
    fetch_max_wait_s : how long a broker holds back an empty fetch
    fetch_max_bytes : bytes fetched at a time by each reader, as compressed in Kafka
    """

    def __init__(
        self,
        addresses: str,
        topic: str,
        *,
        security: KafkaSecurity | None = None,
        client_id: str = "mimir-ingest",
        client_rack: str = "",
        dial_timeout_s: float = 2.0,
        write_timeout_s: float = 10.0,
        write_timeout_overhead_s: float = 2.0,
        read_timeout_s: float = 10.0,
        auto_create_topic: bool = True,
        auto_create_topic_default_partitions: int = -1,
        max_record_bytes: int = MAX_MESSAGE_BYTES - BATCH_OVERHEAD_BYTES,
        max_buffered_bytes: int = 1 << 30,
        compression: str = "snappy",
        linger_s: float = 0.01,
        fetch_max_wait_s: float = 5.0,
        fetch_max_bytes: int = 8 << 20,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = addresses
        self._topic = topic
        self._security = security or KafkaSecurity()
        self._client_id = client_id
        self._client_rack = client_rack
        self._dial_timeout_s = dial_timeout_s
        self._write_timeout_s = write_timeout_s
        self._write_request_timeout_s = write_timeout_s + write_timeout_overhead_s
        self._read_timeout_s = read_timeout_s
        self._auto_create_topic = auto_create_topic
        self._default_partitions = auto_create_topic_default_partitions
        self._configured_max_record_bytes = max_record_bytes
        self._max_record_bytes = max_record_bytes
        self._max_message_bytes = _UNKNOWN_MAX_MESSAGE_BYTES
        self._max_buffered_bytes = max_buffered_bytes
        self._compression = None if compression in ("none", "") else compression
        self._linger_s = linger_s
        self._fetch_max_wait_s = fetch_max_wait_s
        self._fetch_max_bytes = fetch_max_bytes
        self._monotonic_s = monotonic_s
        self._topic_id = ""
        self._down_since_s: float | None = None
        self._waits_for: str | None = None
        self._security_arguments: dict[str, Any] = {}
        self._cluster: KafkaCluster | None = None
        self._writer: KafkaWriter | None = None
        self._looked_s: dict[int, float] = {}
        self._readers: ReaderPool | None = None

    async def start(self) -> None:
        """See PartitionLog. Raises LogUnavailable for what waiting cannot mend: access refused, no such topic."""
        _quieten_library()
        self._security_arguments = build_client_arguments(self._security)
        cluster = self._cluster = KafkaCluster(
            self._addresses,
            client_id=self._client_id,
            dial_timeout_s=self._dial_timeout_s,
            request_timeout_s=_READ_REQUEST_TIMEOUT_S,
            security_arguments=self._security_arguments,
        )
        pause_s = _START_PAUSE_S[0]
        while True:
            try:
                await cluster.connect()
                self._topic_id = await ensure_topic(
                    cluster,
                    self._topic,
                    create=self._auto_create_topic,
                    partitions=self._default_partitions,
                    timeout_s=self._read_timeout_s,
                )
                await self._read_limits(cluster, warn=True)
                break
            except LogUnavailable as error:
                if not error.retriable:
                    await self.close()
                    raise
                self._report(error.message)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _START_PAUSE_S[1])
        self._report(None)
        self._writer = KafkaWriter(
            self._topic,
            open_producer=self._open_producer,
            write_timeout_s=self._write_timeout_s,
            max_buffered_bytes=self._max_buffered_bytes,
            report=self._report,
        )
        self._readers = ReaderPool(self._topic, open_consumer=self._open_consumer, poll_s=self._fetch_max_wait_s)

    async def close(self) -> None:
        """See PartitionLog."""
        writer, readers, cluster = self._writer, self._readers, self._cluster
        self._writer = self._readers = self._cluster = None
        if writer is not None:
            await writer.close()
        if readers is not None:
            await readers.close()
        if cluster is not None:
            await cluster.close()

    @property
    def topic_id(self) -> str:
        """See PartitionLog."""
        return self._topic_id

    @property
    def max_record_bytes(self) -> int:
        """See PartitionLog; follows the topic's max.message.bytes whenever the producer is opened."""
        return self._max_record_bytes

    @property
    def waits_for(self) -> str | None:
        """See PartitionLog; the last reason why Kafka did not answer."""
        return self._waits_for

    async def partitions(self) -> list[int]:
        """See PartitionLog."""
        description = await self._opened().describe_topic(self._topic, timeout_s=self._read_timeout_s)
        return sorted(description.leaders)

    async def add_partitions(self, total: int) -> None:
        """See PartitionLog. Needs the right to alter the topic."""
        self.check_growth(total)
        await grow_topic(self._opened(), self._topic, total=total, timeout_s=self._read_timeout_s)

    async def append(self, partition: int, key: bytes, value: bytes, version: int, *, timeout_s: float) -> int:
        """See PartitionLog. RecordTooLarge comes late only when the broker's limit was lowered since the last look."""
        if len(value) > self._max_record_bytes:
            raise RecordTooLarge(f"a record of {len(value)} bytes is over the limit of {self._max_record_bytes} bytes")
        self._opened()
        assert self._writer is not None
        try:
            return await self._writer.append(partition, key, value, encode_headers(version), timeout_s=timeout_s)
        except RecordTooLarge:
            # The next producer looks at the topic's limit again; where that may not be read, halves get there too.
            self._max_record_bytes = max(1, min(self._max_record_bytes, len(value) // 2))
            raise

    async def read(self, partition: int, next_offset: int, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        """See PartitionLog."""
        self._opened()
        assert self._readers is not None
        try:
            records = await self._readers.read(partition, next_offset, max_bytes=max_bytes, max_wait_s=max_wait_s)
            if not records and time.monotonic() - self._looked_s.get(partition, 0.0) > LOOK_S:
                # The client passes over a topic that is gone: only a lookup fails.
                self._looked_s[partition] = time.monotonic()
                if await self.end_offset(partition) < next_offset:
                    raise PastEnd
            return records
        except PastEnd as error:
            start, end = await self.start_offset(partition), await self.end_offset(partition)
            if start <= next_offset <= end:
                raise LogUnavailable(
                    f"Kafka: offset {next_offset} of partition {partition} is not readable at the moment"
                ) from error
            raise OffsetOutOfRange(
                partition=partition, offset=next_offset, start_offset=start, end_offset=end
            ) from error
        except LogUnavailable as error:
            self._report(error.message)
            raise

    async def start_offset(self, partition: int) -> int:
        """See PartitionLog."""
        return await self._list_offset(partition, EARLIEST)

    async def end_offset(self, partition: int) -> int:
        """See PartitionLog."""
        return await self._list_offset(partition, LATEST)

    async def offset_for_timestamp(self, partition: int, timestamp_ms: int) -> int:
        """See PartitionLog."""
        found = await self._list_offset(partition, max(timestamp_ms, 0))
        return found if found >= 0 else await self.end_offset(partition)

    async def commit(self, group: str, partition: int, next_offset: int) -> None:
        """See PartitionLog."""
        await self._opened().commit(group, self._topic, partition, next_offset, timeout_s=self._read_timeout_s)

    async def committed(self, group: str, partition: int) -> int | None:
        """See PartitionLog."""
        return await self._opened().committed(group, self._topic, partition, timeout_s=self._read_timeout_s)

    async def trim(self, partition: int, before_offset: int) -> None:
        """Do nothing: Kafka's own retention drops records."""

    def _opened(self) -> KafkaCluster:
        if self._cluster is None:
            raise LogUnavailable("the Kafka log is not open")
        return self._cluster

    async def _list_offset(self, partition: int, timestamp_ms: int) -> int:
        return await self._opened().list_offset(self._topic, partition, timestamp_ms, timeout_s=self._read_timeout_s)

    async def _read_limits(self, cluster: KafkaCluster, *, warn: bool) -> None:
        """Take over what the topic's settings allow; say what does not fit."""
        try:
            settings = await cluster.topic_settings(self._topic, timeout_s=self._read_timeout_s)
        except LogUnavailable as error:
            if error.retriable:
                raise
            log.warning("the Kafka topic's settings cannot be read", topic=self._topic, reason=error.message)
            return
        self._max_message_bytes = int(settings["max.message.bytes"])
        allowed = self._max_message_bytes - BATCH_OVERHEAD_BYTES
        self._max_record_bytes = max(1, min(self._configured_max_record_bytes, allowed))
        for message in describe_misfits(settings, max_record_bytes=self._configured_max_record_bytes) if warn else ():
            log.warning(message, topic=self._topic)

    async def _open_producer(self) -> AIOKafkaProducer:
        cluster = self._opened()
        seed = await cluster.probe()
        await self._read_limits(cluster, warn=False)
        producer = AIOKafkaProducer(
            bootstrap_servers=seed,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            compression_type=self._compression,
            linger_ms=int(self._linger_s * 1000),
            max_batch_size=max(1, min(_BATCH_BYTES, self._max_message_bytes - BATCH_OVERHEAD_BYTES)),
            max_request_size=(1 << 31) - 1,  # why: aiokafka compares uncompressed bytes; `append` has checked already
            request_timeout_ms=int(self._write_request_timeout_s * 1000),
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            **self._security_arguments,
        )
        try:
            with renamed_errors("opening the producer"):
                async with asyncio.timeout(self._write_request_timeout_s):
                    await producer.start()
        except BaseException:
            await close_quietly(producer.stop())
            raise
        return producer

    async def _open_consumer(self) -> AIOKafkaConsumer:
        seed = await self._opened().probe()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=seed,
            client_id=self._client_id,
            client_rack=self._client_rack or None,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(self._fetch_max_wait_s * 1000),
            fetch_max_bytes=self._fetch_max_bytes,
            max_partition_fetch_bytes=self._fetch_max_bytes,
            request_timeout_ms=int((_READ_REQUEST_TIMEOUT_S + self._fetch_max_wait_s) * 1000),
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            **self._security_arguments,
        )
        try:
            with renamed_errors("opening a consumer"):
                await consumer.start()
        except BaseException:
            await close_quietly(consumer.stop())
            raise
        return consumer

    def _report(self, reason: str | None) -> None:
        """Log a change between answering and not answering, once each."""
        self._waits_for = None if reason is None else f"Kafka at {self._addresses} does not answer: {reason}"
        if reason is not None and self._down_since_s is None:
            self._down_since_s = self._monotonic_s()
            log.warning("Kafka does not answer, waiting for it", addresses=self._addresses, reason=reason)
        elif reason is None and self._down_since_s is not None:
            down_s = self._monotonic_s() - self._down_since_s
            self._down_since_s = None
            log.info("Kafka answers again", addresses=self._addresses, after_s=round(down_s, 3))


def _quieten_library() -> None:
    """Keep aiokafka's own lines out of the log: every lost connection is several; what matters is in our errors."""
    library = logging.getLogger("aiokafka")
    if library.level == logging.NOTSET:
        library.setLevel(logging.CRITICAL)
