"""Whether all that was acknowledged to a partition is in shipped blocks, so that it may go.

A partition is drained once a checkpoint says so: it holds no samples itself, and behind its cut offset the log has no
record with samples (flush commands of several owners and metadata may stand there; they leave nothing to ship). It
stays drained only behind the fence: no distributor acknowledges a write to it any more once it was INACTIVE for
`FENCE_S` (architecture, section 6). Anybody can ask; the answer comes from the log and the bucket alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mimir_ingest.bucket.checkpoints import CheckpointStore
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogUnavailable, OffsetOutOfRange, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.ingester.checkpoint import decode_held
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from mimir_ingest.wire.record import VERSION_CONTROL, decode
from partitions.model import PartitionState, RingDesc, Version

FENCE_S = 20.0
"""How long a partition has to be INACTIVE until nothing more is acknowledged to it. why: distributors stop 10 s after
their view of the ring was last confirmed; the rest forgives an append on its way."""

_READ_BYTES = 1 << 20
_READ_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Drain:
    """What is left of a partition outside of blocks."""

    partition: int
    end_offset: int
    """Log's end."""
    cut_offset: int | None
    """Of the newest checkpoint, None without one."""
    held_samples: int
    """Samples that this checkpoint holds: not in any block."""
    pending: bool
    """Whether the log has samples behind the checkpoint."""

    @property
    def drained(self) -> bool:
        """Whether everything in the log is in blocks."""
        return not self.pending and not self.held_samples


def holds_samples(records: Iterable[Record]) -> bool:
    """Tell whether a record has samples that an owner may accept, or may have: one of an unknown version counts."""
    for record in records:
        if record.version == VERSION_CONTROL:
            continue
        try:
            batch = decode(record.version, record.value).batch
        except RecordCorrupt:
            continue  # owners pass over it, too
        except RecordVersionUnsupported:
            return True
        if batch.sample_count or batch.histograms is not None:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Inactive:
    """That a partition is INACTIVE, as this process sees it."""

    version: Version
    """Of the change."""
    since_s: float
    """When this process saw it first (monotonic)."""


def observe_inactive(known: Mapping[int, Inactive], desc: RingDesc, now_s: float) -> dict[int, Inactive]:
    """Return the INACTIVE partitions; one that was so before, by the same change, keeps its time.

    The time is of this process's own clock, so skewed clocks do not shorten the fence; a restart begins it anew.
    """
    found = {}
    for number, partition in desc.partitions.items():
        if partition.state is PartitionState.INACTIVE:
            before = known.get(number)
            same = before is not None and before.version == partition.state_version
            found[number] = before if same else Inactive(partition.state_version, now_s)
    return found


def is_fenced(inactive: Mapping[int, Inactive], partition: int, now_s: float) -> bool:
    """Tell whether a partition was INACTIVE long enough that nothing is acknowledged to it any more."""
    seen = inactive.get(partition)
    return seen is not None and now_s - seen.since_s >= FENCE_S


def needs_cut_record(
    *, fenced: bool, next_offset: int, unshipped: bool, settled: bool, last_flush_offset: int | None
) -> bool:
    """Tell whether an owner should append a cut record now, so that an INACTIVE partition drains at once.

    Parameters
    ----------
    fenced : of `is_fenced`
    next_offset : first offset that the owner has not applied
    unshipped : whether the owner holds samples, or applied records of data since its last cut
    settled : whether no cut is in flight or waiting
    last_flush_offset : of the cut record that it appended last, None without one
    """
    awaited = last_flush_offset is not None and next_offset <= last_flush_offset
    return fenced and unshipped and settled and not awaited


class DrainProbe:
    """Looks how far partitions are drained. Used from one event loop; remembers what cannot change."""

    def __init__(self, partition_log: PartitionLog, bucket: Bucket) -> None:
        self._log = partition_log
        self._bucket = bucket
        self._held: dict[tuple[int, int], int] = {}
        self._empty_to: dict[int, int] = {}
        self._drained: dict[int, Drain] = {}

    async def probe(self, partition: int) -> Drain:
        """Look at a partition now. Raises LogUnavailable, StoreUnavailable, ColumnsFileCorrupt."""
        end = await self._log.end_offset(partition)
        known = self._drained.get(partition)
        if known is not None and known.end_offset == end:
            return known
        drain = Drain(partition, end, None, 0, pending=False) if end == 0 else await self._look(partition, end)
        if drain.drained:
            self._drained[partition] = drain
        return drain

    async def _look(self, partition: int, end: int) -> Drain:
        start = await self._log.start_offset(partition)
        cut_offset, held = await asyncio.to_thread(self._newest_checkpoint, partition)
        at = max(start, cut_offset or 0, self._empty_to.get(partition, 0))
        pending = False
        while at < end and not pending:
            try:
                records = await self._log.read(partition, at, max_bytes=_READ_BYTES, max_wait_s=_READ_WAIT_S)
            except OffsetOutOfRange as error:
                if at >= error.start_offset:
                    raise LogUnavailable(error.message) from error
                at = error.start_offset  # trimmed since: a cut has covered it
                continue
            if not records:
                raise LogUnavailable(f"partition {partition} gave no records from {at} on, it ends at {end}")
            pending = await asyncio.to_thread(holds_samples, records)
            if not pending:
                at = self._empty_to[partition] = records[-1].offset + 1
        return Drain(partition, end, cut_offset, held, pending)

    def _newest_checkpoint(self, partition: int) -> tuple[int | None, int]:
        checkpoints = CheckpointStore(self._bucket, self._log.topic_id, partition)
        for cut_offset in reversed(checkpoints.list()):
            if (partition, cut_offset) not in self._held:
                data = checkpoints.read(cut_offset)
                if data is None:
                    continue
                try:
                    held = decode_held(data)
                except ColumnsFileCorrupt:
                    continue
                self._held = {key: value for key, value in self._held.items() if key[0] != partition}
                self._held[partition, cut_offset] = held
            return cut_offset, self._held[partition, cut_offset]
        return None, 0
