"""Reads from Kafka: one aiokafka consumer for each reader of a partition, never moved.

A consumer is made at the offset asked for and then only goes forward: moving one would wait for its long poll, and
aiokafka holds back fetches of all partitions of a consumer while one has undrained records. A read is served by the
idle consumer that stands exactly where the read starts, else by a new one; a few idle ones a partition are kept.

A consumer that raised anything is thrown away: after an error inside a batch aiokafka moves on past records that it
never handed out.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaConsumer, TopicPartition

from mimir_ingest.errors import LogUnavailable, RecordCorrupt
from mimir_ingest.log.contract import Record
from mimir_ingest.log.kafka_cluster import close_quietly, renamed_errors

VERSION_HEADER = "Version"
IDLE_READERS = 2
# why: an ingester's and a second one's; each costs a connection to the partition's leader.
_SILENCE_S = 2.0
# why: allowance on top of the long poll before an unanswered fetch counts as "Kafka does not answer".
_FIRST_ESTIMATE_BYTES = 10_000


class PastEnd(Exception):
    """The broker says that the offset is out of its range."""


class PartitionReader:
    """One consumer at one place. Not for concurrent use."""

    def __init__(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, next_offset: int, *, poll_s: float
    ) -> None:
        self.next_offset = next_offset
        """Offset after the last record given out."""
        self._consumer = consumer
        self._partition = partition
        self._poll_s = poll_s
        self._answered_at_s = time.time()
        self._estimate_bytes = _FIRST_ESTIMATE_BYTES
        self._held: deque[Any] = deque()
        """Records as aiokafka gave them, not yet given out."""

    async def take(self, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        """Return the next records, see PartitionLog.read; cancelled, lose none. Raises LogUnavailable, PastEnd."""
        if not self._held:
            await self._fill(max_bytes, wait_s=max_wait_s)
        held_bytes = sum(value_bytes(record) for record in self._held)
        while self._held and held_bytes < max_bytes:
            if not (added_bytes := await self._fill(max_bytes - held_bytes, wait_s=0.0)):
                break
            held_bytes += added_bytes
        taken: list[Record] = []
        while self._held and (not taken or value_bytes(self._held[0]) <= max_bytes):
            try:
                record = decode_record(self._held[0])
            except RecordCorrupt:
                if taken:
                    break  # those before it are good; the next read, which starts at it, fails
                raise
            self._held.popleft()
            max_bytes -= len(record.value)
            taken.append(record)
        if taken:
            self.next_offset = taken[-1].offset + 1
        return taken

    async def close(self) -> None:
        """Close the consumer."""
        await close_quietly(self._consumer.stop())

    async def _fill(self, max_bytes: int, *, wait_s: float) -> int:
        """Move records out of the consumer; return their bytes."""
        count = max(1, max_bytes // self._estimate_bytes)
        try:
            with renamed_errors(f"reading partition {self._partition.partition}"):
                found = await self._consumer.getmany(self._partition, timeout_ms=int(wait_s * 1000), max_records=count)
        except kafka_errors.ConsumerStoppedError as error:
            raise LogUnavailable("the Kafka log is closed") from error
        except LogUnavailable as error:
            if isinstance(error.__cause__, kafka_errors.OffsetOutOfRangeError):
                raise PastEnd from error
            raise
        records = found.get(self._partition, ())
        self._held.extend(records)
        added_bytes = sum(value_bytes(record) for record in records)
        if records:
            self._estimate_bytes = max(1, (self._estimate_bytes * 4 + added_bytes // len(records)) // 5)
        elif wait_s > 0.0:
            self._check_answers()
        return added_bytes

    def _check_answers(self) -> None:
        if (answered_ms := self._consumer.last_poll_timestamp(self._partition)) is not None:
            self._answered_at_s = max(self._answered_at_s, answered_ms / 1000)
        silent_s = time.time() - self._answered_at_s
        if silent_s > self._poll_s + _SILENCE_S:
            raise LogUnavailable(
                f"Kafka: partition {self._partition.partition} has not been readable for {silent_s:.0f} s"
            )


class ReaderPool:
    """The readers of a topic.

    Parameters
    ----------
    topic : topic to read
    open_consumer : connects a consumer; raises LogUnavailable
    poll_s : how long a broker may hold back an empty answer (s)
    """

    def __init__(self, topic: str, *, open_consumer: Callable[[], Awaitable[AIOKafkaConsumer]], poll_s: float) -> None:
        self._topic = topic
        self._open_consumer = open_consumer
        self._poll_s = poll_s
        self._idle: dict[int, list[PartitionReader]] = {}
        self._busy: set[PartitionReader] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(self, partition: int, next_offset: int, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        """Return records, see PartitionLog.read. Raises LogUnavailable, PastEnd."""
        if self._closed:
            raise LogUnavailable("the Kafka log is closed")
        reader = await self._reader_at(partition, next_offset)
        self._busy.add(reader)
        try:
            records = await reader.take(max_bytes=max_bytes, max_wait_s=max_wait_s)
        except asyncio.CancelledError:
            self._keep(partition, reader)
            raise
        except BaseException:
            self._let_go(reader)
            raise
        finally:
            self._busy.discard(reader)
        self._keep(partition, reader)
        return records

    async def close(self) -> None:
        """Close every reader. Idempotent."""
        self._closed = True
        idle = [reader for readers in self._idle.values() for reader in readers]
        self._idle.clear()
        for reader in (*idle, *self._busy):
            self._let_go(reader)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _reader_at(self, partition: int, next_offset: int) -> PartitionReader:
        idle = self._idle.setdefault(partition, [])
        for reader in idle:
            if reader.next_offset == next_offset:
                idle.remove(reader)
                return reader
        consumer = await self._open_consumer()
        place = TopicPartition(self._topic, partition)
        consumer.assign([place])
        consumer.seek(place, next_offset)
        return PartitionReader(consumer, place, next_offset, poll_s=self._poll_s)

    def _keep(self, partition: int, reader: PartitionReader) -> None:
        if self._closed:
            self._let_go(reader)
            return
        idle = self._idle.setdefault(partition, [])
        idle.append(reader)
        if len(idle) > IDLE_READERS:
            self._let_go(idle.pop(0))

    def _let_go(self, reader: PartitionReader) -> None:
        task = asyncio.create_task(reader.close(), name="kafka-reader-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def value_bytes(record: Any) -> int:
    """Return the size of the value of one of aiokafka's records."""
    return len(record.value) if record.value is not None else 0


def decode_record(record: Any) -> Record:
    """Return one of aiokafka's records as ours. Raises RecordCorrupt for a version header under 4 bytes."""
    version = 0
    for name, raw in record.headers:
        if name == VERSION_HEADER:
            if raw is None or len(raw) < 4:
                raise RecordCorrupt(
                    f"record {record.offset} of partition {record.partition}: "
                    f"header {VERSION_HEADER} has {len(raw or b'')} bytes, 4 are needed"
                )
            version = struct.unpack(">I", raw[:4])[0]
            break
    return Record(record.partition, record.offset, record.timestamp, record.key or b"", record.value or b"", version)


def encode_headers(version: int) -> list[tuple[str, bytes]]:
    """Return a record's headers: its version, left out when it is 0 as Mimir does."""
    return [(VERSION_HEADER, struct.pack(">I", version))] if version else []
