"""Build a partition's state from what is durable: snapshot, checkpoint or the log's start, as `recovery` chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import structlog

from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.recovery import ResumeFrom, plan_resume
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.shipping import CutShipper
from mimir_ingest.ingester.snapshot_keeper import SnapshotKeeper
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.wire.record import RecordSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Resumed:
    """A state to go on with."""

    state: PartitionState
    lost: tuple[int, int] | None
    """Offsets `[first, end)` that the log dropped before they were consumed; the state stands before them."""
    end_offset: int
    """Log's end."""


@dataclass(frozen=True, slots=True)
class StateSource:
    """What one partition's state is built from. Blocking steps run in the executor."""

    partition: int
    partition_log: PartitionLog
    shipper: CutShipper
    snapshots: SnapshotKeeper
    settings: PartitionSettings
    default_record_settings: Callable[[str], RecordSettings]
    executor: Executor

    async def resume(self) -> Resumed:
        """Build the state. Raises LogUnavailable, StoreUnavailable."""
        start = await self.partition_log.start_offset(self.partition)
        end = await self.partition_log.end_offset(self.partition)
        stored = await self.snapshots.read()
        cut_offsets = await self.cut_offsets()
        plan = plan_resume(
            topic_id=self.partition_log.topic_id,
            partition=self.partition,
            log_start_offset=start,
            log_end_offset=end,
            checkpoint_cut_offset=cut_offsets[-1] if cut_offsets else None,
            snapshot=stored.facts if stored else None,
            snapshot_cut_known=not stored
            or not stored.facts.cuts
            or any(offset >= stored.facts.cuts[-1].cut_offset for offset in cut_offsets),
        )
        if plan.snapshot_refused:
            log.warning("snapshot is not used", partition=self.partition, reason=plan.snapshot_refused)
        from_snapshot = plan.source is ResumeFrom.SNAPSHOT and stored is not None
        if from_snapshot:
            state = await self._thread(lambda: stored.restore(default_record_settings=self.default_record_settings))
        else:
            state = await self._thread(self._from_checkpoint, start)
        self.snapshots.resumed(state.next_offset if from_snapshot else None)
        log.info(
            "partition resumes",
            partition=self.partition,
            source=str(plan.source),
            next_offset=state.next_offset,
            end=end,
        )
        return Resumed(state, (state.next_offset, start) if state.next_offset < start else None, end)

    async def cut_offsets(self) -> list[int]:
        """Return the cut offsets with a checkpoint in the bucket, ascending. Raises StoreUnavailable."""
        return await self._thread(self.shipper.cut_offsets)

    def _from_checkpoint(self, log_start_offset: int) -> PartitionState:
        newest = self.shipper.newest()
        if newest is not None:
            return PartitionState.restore(*newest, default_record_settings=self.default_record_settings)
        return PartitionState(
            self.partition_log.topic_id,
            self.partition,
            settings=self.settings,
            default_record_settings=self.default_record_settings,
            start_offset=log_start_offset,
        )

    async def _thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *args)
