"""The newest records of a partition, kept in memory so that a reader at the end takes them without touching the disk.

Holds a contiguous run [start_offset, next_offset) and nothing else: a record that does not follow the run (another
process appended in between) starts a new run. Records never change, so what is held is right whoever else writes.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from mimir_ingest.log.contract import Record


class TailCache:
    """One partition's run. Not thread-safe."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._records: deque[Record] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes of the values held."""
        return self._held_bytes

    def extend(self, record: Record) -> None:
        """Add the record at the end; drop the oldest ones beyond the limit."""
        if self._records and record.offset != self._records[-1].offset + 1:
            self.clear()
        self._records.append(record)
        self._held_bytes += len(record.value)
        while self._held_bytes > self._max_bytes:
            self._held_bytes -= len(self._records.popleft().value)

    def take(self, next_offset: int, *, max_bytes: int) -> list[Record]:
        """Return records from `next_offset` on: at least one if held, else about `max_bytes` of values."""
        if not self._records:
            return []
        skip = next_offset - self._records[0].offset
        if not 0 <= skip < len(self._records):
            return []
        taken: list[Record] = []
        for record in islice(self._records, skip, None):
            max_bytes -= len(record.value)
            if taken and max_bytes < 0:
                break
            taken.append(record)
        return taken

    def drop_below(self, offset: int) -> None:
        """Forget records below `offset`."""
        while self._records and self._records[0].offset < offset:
            self._held_bytes -= len(self._records.popleft().value)

    def clear(self) -> None:
        """Forget everything."""
        self._records.clear()
        self._held_bytes = 0
