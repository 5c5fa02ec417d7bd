"""Carry out a cut: publish its blocks, then its checkpoint, and read that back. Blocking; call it in a thread.

Every step may be repeated, by this owner after an error or a crash or by another owner at the same time: names and
bytes are functions of the log. What has its checkpoint, or lives on merged into another block, is not published again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mimir_ingest.bucket.checkpoints import CheckpointStore
from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.publish import publish_block
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.ingester.checkpoint import PartitionFacts, decode_checkpoint, decode_facts, encode_checkpoint
from mimir_ingest.ingester.cut import BlockRef, CutRequest, CutSummary, build_blocks, stays, summarize
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import Segment

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ShippedCut:
    """A cut whose checkpoint was read back."""

    cuts: tuple[CutSummary, ...]
    """What the checkpoint lists."""
    stays: tuple[Segment, ...]
    """The samples that stayed, a segment a head of the request."""
    uploaded: int
    """Blocks that were written."""


class CutShipper:
    """Publishes the cuts of one partition and finds its checkpoints."""

    def __init__(self, bucket: Bucket, catalog: BlockCatalog, topic_id: str, partition: int) -> None:
        self._bucket = bucket
        self._catalog = catalog
        self._partition = partition
        self._checkpoints = CheckpointStore(bucket, topic_id, partition)

    def ship(self, request: CutRequest, on_upload: Callable[[], None] = lambda: None) -> ShippedCut:
        """Publish a cut, unless its checkpoint exists.

        Raises `StoreUnavailable` (call again) and `BlockCorrupt` (a block did not verify: no checkpoint is written).
        """
        stayed = tuple(stays(head) for head in request.heads)
        known = self._known_cuts(request)
        if known is not None:
            return ShippedCut(known, stayed, 0)
        refs: list[BlockRef] = []
        refreshed: set[str] = set()
        uploaded = 0
        for ref, block in build_blocks(request):
            if ref.tenant not in refreshed:
                self._catalog.refresh(ref.tenant)
                refreshed.add(ref.tenant)
            if not self._merged_elsewhere(ref) and publish_block(self._bucket, ref.tenant, block):
                uploaded += 1
                on_upload()
            refs.append(ref)
        cuts = summarize(request, tuple(refs))
        self._checkpoints.publish(request.cut_offset, encode_checkpoint(request, cuts, stayed))
        return ShippedCut(cuts, stayed, uploaded)

    def _merged_elsewhere(self, ref: BlockRef) -> bool:
        blocks = self._catalog.blocks(ref.tenant, ref.min_time_ms, ref.max_time_ms)
        return any(ref.ulid in block.sources and ref.ulid != block.ulid for block in blocks)

    def _known_cuts(self, request: CutRequest) -> tuple[CutSummary, ...] | None:
        """Return the cuts up to this one when a checkpoint covers it; they are written in the order of the cuts."""
        for offset in self._checkpoints.list():
            if offset < request.cut_offset:
                continue
            data = self._checkpoints.read(offset)
            try:
                facts = None if data is None else decode_facts(data)
            except ColumnsFileCorrupt as error:
                log.error("checkpoint is corrupt", partition=self._partition, cut_offset=offset, error=error.message)
                continue
            if facts is None:
                continue
            cuts = tuple(cut for cut in facts.cuts if cut.cut_offset <= request.cut_offset)
            if not cuts or cuts[-1].cut_offset != request.cut_offset:
                # So long ago that the later checkpoint lists it no more: its blocks are in every list of blocks.
                cuts = (*cuts, CutSummary(request.cut_offset, request.record_time_ms, ()))
            return cuts
        return None

    def cut_offsets(self) -> list[int]:
        """Return the offsets of all cuts with a checkpoint in the bucket, ascending."""
        return self._checkpoints.list()

    def newest(self) -> tuple[PartitionFacts, dict[str, Head]] | None:
        """Return the newest checkpoint that is not damaged."""
        for offset in reversed(self._checkpoints.list()):
            data = self._checkpoints.read(offset)
            if data is None:
                continue
            try:
                return decode_checkpoint(data)
            except ColumnsFileCorrupt as error:
                log.error("checkpoint is corrupt", partition=self._partition, cut_offset=offset, error=error.message)
        return None
