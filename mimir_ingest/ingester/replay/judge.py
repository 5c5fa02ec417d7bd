"""One partition's state driven over its log: every cut is built, and compared with what the bucket has.

The state machine is the ingester's own, so what comes out is what every owner of the partition makes. A block counts as
there when its files are, byte for byte, or when a merged block names it in `compaction.sources`. A block of the same
cuts that the replay did not make is reported too: names are hashes of the content, so an owner that had computed
something else would have shipped it under another name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from mimir_ingest.bucket.checkpoints import CheckpointStore
from mimir_ingest.bucket.compare import find_differences
from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.layout import meta_file
from mimir_ingest.bucket.publish import publish_block
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import MemoryBudgetExceeded, StoreUnavailable
from mimir_ingest.ingester.checkpoint import encode_checkpoint
from mimir_ingest.ingester.cut import BlockRef, CutRequest, build_blocks, stays, summarize
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.replay.plan import ReplayPlan
from mimir_ingest.ingester.replay.report import BlockFinding, ReplayReport, Verdict
from mimir_ingest.log.contract import Record
from mimir_ingest.tsdb.block_writer import BuiltBlock

_BLOCK_BYTES_A_SAMPLE, _BLOCK_BYTES_A_SERIES = 64, 512
"""why: what encoding a block was seen to take, its decoded, ordered and encoded columns and its files: 48 to 54 bytes a
sample for long series, 200 a series more for short ones."""

_RETRY_S = 1.0

Answer = TypeVar("Answer")


def largest_block_bytes(request: CutRequest) -> int:
    """Return what building the largest of a cut's blocks may take, beside the head."""
    sizes = [
        held.samples * _BLOCK_BYTES_A_SAMPLE + min(len(head.live), held.samples) * _BLOCK_BYTES_A_SERIES
        for head in request.heads
        for held in head.cut.values()
    ]
    return max(sizes, default=0)


class PartitionReplay:
    """One partition's state driven over its log; every cut is compared, not served. Blocking; one thread at a time."""

    def __init__(
        self,
        state: PartitionState,
        bucket: Bucket,
        plan: ReplayPlan,
        *,
        ship: bool,
        memory_limit_bytes: int = 0,
        timeout_s: float = 0.0,
    ) -> None:
        """Begin with a state at `plan.next_offset`.

        Parameters
        ----------
        ship
            Whether to publish what the bucket lacks.
        memory_limit_bytes
            What samples in memory and the block being built may take; 0 is no limit.
        timeout_s
            How long to go on asking a bucket that does not answer.
        """
        self.report = ReplayReport(plan)
        self.state = state
        self.finished = False
        """Whether a cut has covered everything that was asked for."""
        self._bucket = bucket
        self._catalog = BlockCatalog(bucket)
        self._checkpoints = CheckpointStore(bucket, state.topic_id, state.partition)
        self._ship = ship
        self.memory_limit_bytes = memory_limit_bytes
        self._timeout_s = timeout_s
        self._unbroken = plan.exact
        """Whether every cut so far is whole in the bucket, so that a checkpoint may say so."""
        self._made: dict[str, set[str]] = {}

    def feed(self, records: Sequence[Record]) -> None:
        """Apply records in offset order, and carry out the cuts that they bring.

        Raises StoreUnavailable, RecordVersionUnsupported, and MemoryBudgetExceeded before more is taken than allowed.
        """
        while records and not self.finished:
            applied = self.state.apply(records)
            self.report.records += applied.consumed
            self.report.samples += applied.accepted
            self.report.corrupt_records += len(applied.corrupt)
            records = records[applied.consumed :]
            if applied.cut is not None:
                self._end_cut(applied.cut)
            self.state.maintain()
            self._check_memory(0)
        self.report.not_cut_samples = self.state.held_count

    def finish(self) -> ReplayReport:
        """Look for blocks of the compared cuts that the replay did not make, and return the report."""
        cuts = set(self.report.cut_offsets)
        for tenant, made in sorted(self._made.items()):
            self._asking(self._catalog.refresh, tenant)
            for block in self._catalog.blocks(tenant, -(1 << 63), (1 << 63) - 1):
                span = block.file.partition_range
                if span is None or block.ulid in made or block.sources != (block.ulid,):
                    continue
                if (span.topic_id, span.partition) != (self.state.topic_id, self.state.partition):
                    continue
                if span.cut_offset in cuts:
                    self._note(
                        Verdict.UNEXPECTED,
                        BlockRef(tenant, block.ulid, block.min_time_ms, block.max_time_ms),
                        span.cut_offset,
                        block.file.sample_count,
                        ["the log does not give this block"],
                    )
        return self.report

    def _end_cut(self, request: CutRequest) -> None:
        compared = request.cut_offset > self.report.plan.from_offset
        self._check_memory(largest_block_bytes(request))
        refs: list[BlockRef] = []
        whole = compared
        for head in request.heads:
            self._made.setdefault(head.tenant, set())
        for ref, block in build_blocks(request):
            refs.append(ref)
            if compared:
                self._made[ref.tenant].add(ref.ulid)
                whole &= self._asking(self._judge, ref, block, request.cut_offset).is_sound
        self._unbroken &= whole
        stayed = tuple(stays(head) for head in request.heads)
        cuts = summarize(request, tuple(refs))
        if compared:
            self.report.cut_offsets.append(request.cut_offset)
            data = encode_checkpoint(request, cuts, stayed)
            self._asking(self._judge_checkpoint, request.cut_offset, data)
        self.state.finish_cut(cuts, stayed)
        self.state.release(request.cut_offset)
        self.finished = request.cut_offset >= self.report.plan.to_offset

    def _asking(self, act: Callable[..., Answer], *arguments: object) -> Answer:
        """Do something with the bucket; again, for as long as that may take, when it does not answer."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return act(*arguments)
            except StoreUnavailable:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY_S)

    def _judge(self, ref: BlockRef, block: BuiltBlock, cut_offset: int) -> Verdict:
        tenant, samples = ref.tenant, block.meta["stats"]["numSamples"]
        problems = find_differences(self._bucket, tenant, block)
        if not problems:
            return self._note(Verdict.SAME, ref, cut_offset, samples, [])
        there = self._bucket.exists(meta_file(tenant, ref.ulid))
        if not there and (merged := self._merged_into(ref)):
            return self._note(Verdict.MERGED, ref, cut_offset, samples, [merged])
        lacking = not there or all(problem.endswith("is missing") for problem in problems)
        if lacking and self._ship:
            publish_block(self._bucket, tenant, block)
            left = find_differences(self._bucket, tenant, block)
            return self._note(Verdict.DIFFERS if left else Verdict.SHIPPED, ref, cut_offset, samples, left or problems)
        return self._note(Verdict.MISSING if lacking else Verdict.DIFFERS, ref, cut_offset, samples, problems)

    def _merged_into(self, ref: BlockRef) -> str | None:
        """Return the block that names this one among its sources."""
        self._catalog.refresh(ref.tenant)
        for block in self._catalog.blocks(ref.tenant, ref.min_time_ms, ref.max_time_ms):
            if ref.ulid in block.sources and ref.ulid != block.ulid:
                return block.ulid
        return None

    def _note(self, verdict: Verdict, ref: BlockRef, cut_offset: int, samples: int, problems: Iterable[str]) -> Verdict:
        self.report.blocks.append(
            BlockFinding(
                verdict, ref.tenant, ref.ulid, cut_offset, ref.min_time_ms, ref.max_time_ms, samples, tuple(problems)
            )
        )
        return verdict

    def _judge_checkpoint(self, cut_offset: int, data: bytes) -> None:
        """Compare a checkpoint that is there; write it if the newest one is missing. Older ones are deleted in time."""
        stored = self._checkpoints.read(cut_offset)
        if stored is not None:
            if stored != data:
                self.report.checkpoint_problems.append(f"the checkpoint at {cut_offset} differs")
            return
        newest = max(self._checkpoints.list(), default=-1)
        if self._ship and self._unbroken and newest < cut_offset:
            self._checkpoints.publish(cut_offset, data)
            self.report.checkpoints_shipped += 1

    def _check_memory(self, block_bytes: int) -> None:
        needed_bytes = block_bytes + sum(head.nbytes for head in self.state.heads.values())
        if self.memory_limit_bytes and needed_bytes > self.memory_limit_bytes:
            raise MemoryBudgetExceeded(
                f"partition {self.state.partition} needs about {needed_bytes >> 20} MiB at offset "
                f"{self.state.next_offset}, {block_bytes >> 20} of them for a block; "
                f"the limit is {self.memory_limit_bytes >> 20} MiB"
            )
