"""A partition log over a list of records, gaps and all; retention trims it when told to."""

from __future__ import annotations

from collections.abc import Sequence

from mimir_ingest.errors import LogUnavailable, OffsetOutOfRange
from mimir_ingest.log.contract import Record
from tests.support.memory_log import MemoryLog


class RecordedLog(MemoryLog):
    """One partition of a topic, to be read."""

    def __init__(self, records: Sequence[Record], *, topic_id: str, start_offset: int = 0) -> None:
        super().__init__()
        self.partition = records[0].partition
        self.records = {self.partition: [r for r in records if r.offset >= start_offset]}
        self.silent_reads = 0
        """Reads yet to come that fail as with a broker that is away."""
        self._topic_id, self._start, self._end = topic_id, start_offset, records[-1].offset + 1

    @property
    def topic_id(self) -> str:
        return self._topic_id

    async def start_offset(self, partition: int) -> int:
        return self._start

    async def end_offset(self, partition: int) -> int:
        return self._end

    async def offset_for_timestamp(self, partition: int, timestamp_ms: int) -> int:
        return next((r.offset for r in self.records[partition] if r.timestamp_ms >= timestamp_ms), self._end)

    async def read(self, partition: int, next_offset: int, *, max_bytes: int, max_wait_s: float) -> list[Record]:
        if self.silent_reads:
            self.silent_reads -= 1
            raise LogUnavailable("the broker is away")
        if not self._start <= next_offset <= self._end:
            raise OffsetOutOfRange(
                partition=partition, offset=next_offset, start_offset=self._start, end_offset=self._end
            )
        found: list[Record] = []
        for record in self.records[partition]:
            if record.offset >= next_offset and (not found or max_bytes > 0):
                found.append(record)
                max_bytes -= len(record.value)
        return found
