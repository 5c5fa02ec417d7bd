"""A partition log in a dict, for tests of what stands in front of one. Appends can be delayed or made to fail."""

from __future__ import annotations

import asyncio

from mimir_ingest.errors import OffsetOutOfRange, RecordTooLarge
from mimir_ingest.log.contract import PartitionLog, Record


class MemoryLog(PartitionLog):
    """Keeps the contract as far as one reader and writer can tell."""

    def __init__(self, partitions: int = 1, *, max_record_bytes: int = 15_983_616) -> None:
        self.records: dict[int, list[Record]] = {p: [] for p in range(partitions)}
        self.failures: dict[int, Exception] = {}
        """What an append to a partition raises."""
        self.delays_s: dict[int, float] = {}
        """How long an append to a partition takes."""
        self._max_record_bytes = max_record_bytes

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    @property
    def topic_id(self) -> str:
        return "memory"

    async def partitions(self) -> list[int]:
        return list(self.records)

    async def add_partitions(self, total: int) -> None:
        for partition in range(len(self.records), total):
            self.records[partition] = []

    async def append(self, partition: int, key: bytes, value: bytes, version: int, *, timeout_s: float) -> int:
        if len(value) > self._max_record_bytes:
            raise RecordTooLarge(f"record of {len(value)} bytes")
        await asyncio.sleep(self.delays_s.get(partition, 0))
        if partition in self.failures:
            raise self.failures[partition]
        offset = len(self.records[partition])
        self.records[partition].append(Record(partition, offset, offset, key, value, version))
        return offset

    async def read(self, partition: int, next_offset: int, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        end = len(self.records[partition])
        if not 0 <= next_offset <= end:
            raise OffsetOutOfRange(partition=partition, offset=next_offset, start_offset=0, end_offset=end)
        return self.records[partition][next_offset:]

    async def start_offset(self, partition: int) -> int:
        return 0

    async def end_offset(self, partition: int) -> int:
        return len(self.records[partition])

    async def offset_for_timestamp(self, partition: int, timestamp_ms: int) -> int:
        return min(max(timestamp_ms, 0), len(self.records[partition]))

    async def commit(self, group: str, partition: int, next_offset: int) -> None: ...

    async def committed(self, group: str, partition: int) -> int | None:
        return None

    async def trim(self, partition: int, before_offset: int) -> None: ...

    @property
    def max_record_bytes(self) -> int:
        return self._max_record_bytes
