"""When a partition's snapshot is taken, and the task that writes it while consumption goes on; one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import structlog

from mimir_ingest.ingester import snapshot as snapshots
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt

log = structlog.get_logger()


class SnapshotKeeper:
    """Reads, takes and writes the snapshots of one partition. Used by its consumer's task."""

    def __init__(
        self,
        partition: int,
        folder: Path | None,
        *,
        interval_s: float,
        executor: Executor,
        metrics: ConsumptionMetrics,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partition = partition
        self._folder = folder
        self._interval_s = interval_s
        self._executor = executor
        self._metrics = metrics
        self._now_s = now_s
        self._task: asyncio.Task[None] | None = None
        self._taken_s = now_s()
        self._stored_offset = -1

    async def read(self) -> snapshots.Snapshot | None:
        """Return the snapshot on disk, None without one or for a damaged one."""
        if self._folder is None:
            return None
        try:
            return await self._thread(snapshots.read_snapshot, self._folder, self._partition)
        except ColumnsFileCorrupt as error:
            log.warning("snapshot is discarded", partition=self._partition, reason=error.message)
            return None

    def resumed(self, snapshot_offset: int | None) -> None:
        """Note the offset of the snapshot that the state was built from, None if it was built from something else."""
        self._stored_offset = -1 if snapshot_offset is None else snapshot_offset

    async def take_due(self, state: PartitionState) -> None:
        """Take a snapshot if it is time."""
        if self._interval_s and self._now_s() - self._taken_s >= self._interval_s:
            await self._take(state)

    async def take_last(self, state: PartitionState) -> None:
        """Take a snapshot of a state that will not change any more, and wait until it is written."""
        if self._interval_s:
            await self._take(state)
            await self.wait()

    async def wait(self) -> None:
        """Wait for the write under way: its thread cannot be stopped, and two must not write the same file."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None

    async def _take(self, state: PartitionState) -> None:
        """Take the state now, write it while consumption goes on."""
        busy = self._task is not None and not self._task.done()
        if self._folder is None or busy or not state.settled or state.next_offset == self._stored_offset:
            return
        self._taken_s, self._stored_offset = self._now_s(), state.next_offset
        captured = await self._thread(snapshots.capture, state)
        self._task = asyncio.create_task(self._write(self._folder, captured), name=f"snapshot-{self._partition}")

    async def _write(self, folder: Path, captured: snapshots.CapturedState) -> None:
        try:
            await self._thread(snapshots.write_snapshot, folder, captured)
            self._metrics.snapshot_written()
        except OSError as error:
            self._stored_offset = -1
            self._metrics.snapshot_failed()
            log.warning("snapshot could not be written", partition=self._partition, error=str(error))

    async def _thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
