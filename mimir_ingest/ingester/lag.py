"""How far a partition's reader is behind the log, and what a tenant has among the records it has not read yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from mimir_ingest.errors import OffsetOutOfRange, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.wire.record import VERSION_CONTROL, decode

SCAN_BYTES = 8 << 20
"""Pending values that are looked through for a tenant's samples. why: a second of reading at full speed at most."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """A partition's distance from the log's end."""

    partition: int
    next_offset: int
    """First offset not applied."""
    end_offset: int
    """Log's end."""
    oldest_record_ms: int | None
    """Stamp (ms since the Unix epoch) of the oldest record not applied, None if there is none."""
    tenant_records: int
    """Records of the tenant among the pending ones that were looked through."""
    oldest_sample_ms: int | None
    """Oldest sample of the tenant among them."""
    complete: bool
    """Whether all pending records were looked through."""

    @property
    def records_behind(self) -> int:
        """Pending offsets."""
        return max(0, self.end_offset - self.next_offset)


def find_oldest_sample(records: Iterable[Record], tenant: str) -> tuple[int, int | None]:
    """Return how many records are the tenant's, and their oldest sample (ms). What does not decode has no samples."""
    count, oldest = 0, None
    for record in records:
        if record.key != tenant.encode() or record.version == VERSION_CONTROL:
            continue
        count += 1
        try:
            batch = decode(record.version, record.value).batch
        except (RecordCorrupt, RecordVersionUnsupported):
            continue
        times = [batch.timestamps, *([batch.histograms.timestamps] if batch.histograms is not None else [])]
        found = [int(column.min()) for column in times if len(column)]
        oldest = min([*found, *([oldest] if oldest is not None else [])], default=None)
    return count, oldest


async def read_lag(
    partition_log: PartitionLog, partition: int, next_offset: int, tenant: str, *, scan_bytes: int = SCAN_BYTES
) -> PartitionLag:
    """Measure how far behind a reader at `next_offset` is. Raises LogUnavailable."""
    end = await partition_log.end_offset(partition)
    records: list[Record] = []
    at = next_offset
    while at < end and scan_bytes > 0:
        try:
            batch = await partition_log.read(partition, at, max_bytes=scan_bytes, max_wait_s=1.0)
        except OffsetOutOfRange as error:
            if at >= error.start_offset:
                break
            at = error.start_offset
            continue
        if not batch:
            break
        records += batch
        scan_bytes -= sum(len(record.value) for record in batch)
        at = batch[-1].offset + 1
    count, oldest_sample_ms = await asyncio.to_thread(find_oldest_sample, records, tenant)
    return PartitionLag(
        partition,
        next_offset,
        end,
        records[0].timestamp_ms if records else None,
        count,
        oldest_sample_ms,
        complete=at >= end,
    )
