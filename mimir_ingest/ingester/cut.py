"""A cut: what leaves a partition's heads, as blocks, and what stays, as its checkpoint.

Pure functions of a `CutRequest`, which is a function of the log; the bytes they give are, too. They touch no state of
the partition that goes on being filled, so they may run in another thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.tsdb.block_writer import BuiltBlock, build_block
from mimir_ingest.tsdb.frozen_head import FrozenHead
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS, Segment, Staged, present_refs, read_series, rewrite

LISTED_MS = 48 * 3_600_000
"""Blocks of cuts this recent (record time) stand in a checkpoint; older ones are in every reader's list of blocks."""

_STAYS_LEVEL = 1
"""why: what stays is one segment of full chunks, as after a merge."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block that a cut has published; its samples are in `[min_time_ms, max_time_ms)`."""

    tenant: str
    ulid: str
    min_time_ms: int
    max_time_ms: int


@dataclass(frozen=True, slots=True)
class CutSummary:
    """A cut that is done."""

    cut_offset: int
    """First offset that did not contribute."""
    record_time_ms: int
    blocks: tuple[BlockRef, ...]


class ReleasedCuts:
    """Cuts whose samples are no longer served from memory. Never changes.

    Blocks are found by tenant: every query asks, and the blocks of two days may be a quarter of a million.
    """

    def __init__(self, cuts: Sequence[CutSummary]) -> None:
        """`cuts` are recent ones, oldest first."""
        self.cut_offset = cuts[-1].cut_offset if cuts else -1
        """Everything below it that was cut is in the blocks; -1 without a cut."""
        found: dict[str, list[BlockRef]] = {}
        for cut in cuts:
            for block in cut.blocks:
                found.setdefault(block.tenant, []).append(block)
        self._blocks = {tenant: tuple(blocks) for tenant, blocks in found.items()}

    def blocks_of(self, tenant: str) -> tuple[BlockRef, ...]:
        """Return a tenant's blocks, those of the oldest cut first."""
        return self._blocks.get(tenant, ())


@dataclass(frozen=True, slots=True)
class CutRequest:
    """A cut point, with everything that its blocks and checkpoint are made of."""

    topic_id: str
    partition: int
    cut_offset: int
    record_time_ms: int
    """Record time at the cut point, the record there included."""
    boundary_ms: int
    """End of the first range that was not yet due; it is cut when record time reaches it and the grace."""
    settings: PartitionSettings
    """Settings that the blocks are written with."""
    next_settings: PartitionSettings
    """Settings from here on."""
    heads: tuple[FrozenHead, ...]
    """Every tenant's, by tenant."""
    recent: tuple[CutSummary, ...]
    """Earlier cuts of the last LISTED_MS, oldest first."""


def build_blocks(request: CutRequest) -> Iterator[tuple[BlockRef, BuiltBlock]]:
    """Give the cut's blocks, by tenant and range, one in memory at a time."""
    range_ms = request.settings.range_ms
    for head in request.heads:
        for number in sorted(head.cut):
            block = build_block(
                # The outermost ranges reach past what 64 bits hold.
                _range_samples(head, max(MIN_MS, number * range_ms), min(MAX_MS, (number + 1) * range_ms)),
                tenant=head.tenant,
                partition=request.partition,
                topic_id=request.topic_id,
                start_offset=head.cut[number].first_offset,
                cut_offset=request.cut_offset,
                samples_per_chunk=request.settings.samples_per_chunk,
            )
            yield BlockRef(head.tenant, block.ulid, block.meta["minTime"], block.meta["maxTime"]), block


def _range_samples(head: FrozenHead, start_ms: int, end_ms: int) -> SeriesSamples:
    """Return a range's samples, series in label order, none empty."""
    table, nothing = head.table, Staged.empty()
    touched = [s for s in head.segments if s.overlaps(start_ms, end_ms)]
    refs = present_refs(touched, nothing)
    frame = table.frame(refs)
    order = frame.sort_order()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    found = read_series(touched, nothing, refs, table.series_count, start_ms, end_ms, rank)
    filled = found.filled
    return found.of(filled, frame.take(order[filled]))


def stays(head: FrozenHead) -> Segment:
    """Return the samples that a cut leaves in its head."""
    if head.before_ms == MAX_MS or not head.held:
        return Segment.empty()
    return rewrite(head.segments, head.table.series_count, start_ms=head.before_ms, level=_STAYS_LEVEL)


def summarize(request: CutRequest, blocks: tuple[BlockRef, ...]) -> tuple[CutSummary, ...]:
    """Return the cuts that this cut's checkpoint lists: itself and those of the last LISTED_MS, oldest first."""
    since = request.record_time_ms - LISTED_MS
    recent = tuple(cut for cut in request.recent if cut.record_time_ms >= since)
    return (*recent, CutSummary(request.cut_offset, request.record_time_ms, blocks))
