"""The partition log: the contract that every implementation keeps, and nothing else.

A log holds numbered partitions of records. Offsets of a partition grow by one (Kafka may leave gaps: control records
of transactions, compaction), are never reused, and are never decided by a writer. `next_offset` is always the first
offset not yet read or written; `last_offset` never appears in this contract.

Promised
    A record is durable when `append` returns, and visible to every reader of the same log soon after.
    `read` gives records in offset order, each once, none left out between `next_offset` and the last one given.
    Timestamps are stamped by the log, not by the writer, and never decrease within a partition (embedded), or are the
    broker's (Kafka, LogAppendTime); consumers take the running maximum.
Not promised
    An append that failed or was cancelled may still appear later, once. Two appends running at the same time may get
    their offsets in either order.
Errors
    LogUnavailable (retriable) when the broker or database does not answer in time; OffsetOutOfRange when a read starts
    below the start or past the end; RecordTooLarge before anything is sent. Cancelling `read` loses nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from mimir_ingest.errors import LogUnavailable

MAX_PARTITIONS = 10_000
"""What `add_partitions` goes to. why: more is a mistake, such as a date at the end of an instance's id."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read from a partition."""

    partition: int
    offset: int
    timestamp_ms: int
    """The log's stamp, ms since the Unix epoch."""
    key: bytes
    """Tenant id."""
    value: bytes
    """Payload in the format that `version` names (docs/format/record.md)."""
    version: int
    """Header `Version`, unsigned 32 bits; 0 when the header is missing."""


class PartitionLog(ABC):
    """One topic. Created closed; `start` before any other call; used from one event loop."""

    @abstractmethod
    async def start(self) -> None:
        """Connect, create what is missing, wait with back-off for a broker that is down. Cancellable."""

    @abstractmethod
    async def close(self) -> None:
        """Flush what was accepted and release everything. Idempotent."""

    @property
    @abstractmethod
    def topic_id(self) -> str:
        """Identity of the topic itself (a re-created topic of the same name has another one). Known after `start`."""

    @abstractmethod
    async def partitions(self) -> list[int]:
        """Return the numbers of all partitions, ascending."""

    @abstractmethod
    async def add_partitions(self, total: int) -> None:
        """Add partitions until there are `total`; nothing if there are as many already, none is ever removed.

        Every open log of the topic then names them in `partitions()` and can append to them and read them. Safe to
        race. Raises LogUnavailable; not retriable for more than MAX_PARTITIONS, or when Kafka refuses.
        """

    @abstractmethod
    async def append(self, partition: int, key: bytes, value: bytes, version: int, *, timeout_s: float) -> int:
        """Append a record; return its offset once it is durable. Raises LogUnavailable, RecordTooLarge."""

    @abstractmethod
    async def read(self, partition: int, next_offset: int, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        """Return records from `next_offset` on.

        At least one record if any is there, however large; otherwise at most about `max_bytes` of values. Waits up to
        `max_wait_s` for the first one, then returns an empty list. Raises OffsetOutOfRange, LogUnavailable. Several
        readers at different offsets of a partition are independent of each other.
        """

    @abstractmethod
    async def start_offset(self, partition: int) -> int:
        """Return the offset of the oldest record still there (the end offset when there is none)."""

    @abstractmethod
    async def end_offset(self, partition: int) -> int:
        """Return the offset that the next record will get (at least)."""

    @abstractmethod
    async def offset_for_timestamp(self, partition: int, timestamp_ms: int) -> int:
        """Return the offset of the first record stamped at or after `timestamp_ms`, or the end offset."""

    @abstractmethod
    async def commit(self, group: str, partition: int, next_offset: int) -> None:
        """Store a group's position (for lag tools; nothing in this program is decided by it)."""

    @abstractmethod
    async def committed(self, group: str, partition: int) -> int | None:
        """Return a group's stored position, or None."""

    @abstractmethod
    async def trim(self, partition: int, before_offset: int) -> None:
        """Allow the log to drop records below `before_offset`. Kafka keeps its own retention: a no-op there."""

    @property
    @abstractmethod
    def max_record_bytes(self) -> int:
        """Largest value that `append` takes; may change while the log is open."""

    @staticmethod
    def check_growth(total: int) -> None:
        """Raise LogUnavailable, not retriable, for more than MAX_PARTITIONS."""
        if total > MAX_PARTITIONS:
            error = LogUnavailable(f"a log may have at most {MAX_PARTITIONS} partitions, not {total}")
            error.retriable = False
            raise error

    @property
    def waits_for(self) -> str | None:
        """What the log waits for at the moment, as a sentence for people, or None."""
        return None
