"""What a partition's consumer does with its cuts: ship one at a time, then let go of what it has made durable.

    begin ─► ship in a thread, tried again for ever ─► shipped ─► let_go: commit; release and trim when their time comes

Data stays served for `retention_s` and in the log for `trim_delay_s` after its checkpoint was read back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from mimir_ingest.errors import IngestError, LogError
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.cut import CutRequest
from mimir_ingest.ingester.knobs import ConsumerKnobs
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.shipping import CutShipper, ShippedCut
from mimir_ingest.log.contract import PartitionLog

log = structlog.get_logger()

_TRIM_RETRY_S = 15.0
"""why: a full disk is the usual cause, and takes people to mend."""

_MAX_SHIP_BACKOFF_S = 30.0


class CutRunner:
    """Carries out the cuts of one partition. Used by its consumer's task, which alone changes the state."""

    def __init__(
        self,
        partition: int,
        partition_log: PartitionLog,
        shipper: CutShipper,
        *,
        knobs: ConsumerKnobs,
        executor: Executor,
        metrics: ConsumptionMetrics,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task: asyncio.Task[ShippedCut] | None = None
        """The cut in flight."""
        self.error: str | None = None
        """Why the cut in flight could not be shipped at the last attempt."""
        self._partition = partition
        self._log = partition_log
        self._shipper = shipper
        self._knobs = knobs
        self._executor = executor
        self._metrics = metrics
        self._now_s = now_s
        self._releases: list[tuple[float, int]] = []
        self._trims: list[tuple[float, int]] = []

    def begin(self, request: CutRequest) -> None:
        """Ship a cut in the background; there must be none in flight."""
        self.task = asyncio.create_task(self._ship(request), name=f"cut-{self._partition}")

    async def _ship(self, request: CutRequest) -> ShippedCut:
        """Ship a cut; errors are retried for ever."""
        backoff = self._knobs.min_backoff_s
        self._metrics.cut_begun(self._partition)
        while True:
            try:
                shipped = await asyncio.get_running_loop().run_in_executor(
                    self._executor, self._shipper.ship, request, self._metrics.uploaded
                )
                self.error = None
                self._metrics.cut_shipped(self._partition)
                return shipped
            except IngestError as error:
                self._metrics.cut_failed()
                self.error = f"the cut at {request.cut_offset} could not be shipped: {error.message}"
                log.error(
                    "a cut could not be shipped; it is tried again",
                    partition=self._partition,
                    cut_offset=request.cut_offset,
                    error=error.message,
                )
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _MAX_SHIP_BACKOFF_S)

    async def shipped(self, stopping: asyncio.Event) -> ShippedCut | None:
        """Wait for the cut in flight; return None if `stopping` comes first, and keep it in flight."""
        task = self.task
        if task is None:
            return None
        if not task.done():
            stop = asyncio.create_task(stopping.wait())
            try:
                await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
            if not task.done():
                return None
        self.task = None
        return task.result()

    async def let_go(self, state: PartitionState, cut_offset: int) -> None:
        """Commit a finished cut; release and trim what it covers, now or when it is time."""
        self._releases.append((self._now_s() + self._knobs.retention_s, cut_offset))
        # Cuts by size come faster than retention ends: memory is bounded, and readers find the blocks by their names.
        while len(self._releases) > 1 and state.retained_count > state.settings.cut_max_samples:
            state.release(self._releases.pop(0)[1])
        self.trim_later(cut_offset)
        await self._commit(cut_offset)
        await self.trim_due()

    def next_release_s(self) -> float | None:
        """Return the seconds until the next release, None if nothing waits for one."""
        return self._releases[0][0] - self._now_s() if self._releases else None

    def release_due(self, state: PartitionState) -> None:
        """Serve no longer what was shipped a retention period ago."""
        now = self._now_s()
        while self._releases and self._releases[0][0] <= now:
            state.release(self._releases.pop(0)[1])

    def trim_later(self, cut_offset: int) -> None:
        """Have the log trimmed up to a cut once the delay is over."""
        self._trims.append((self._now_s() + self._knobs.trim_delay_s, cut_offset))

    async def trim_due(self) -> None:
        """Trim the log up to the newest cut whose delay is over; a failure costs space, and is tried again."""
        now = self._now_s()
        before_offset = max((offset for deadline, offset in self._trims if deadline <= now), default=None)
        if before_offset is None:
            return
        self._trims = [(deadline, offset) for deadline, offset in self._trims if deadline > now]
        try:
            await self._log.trim(self._partition, before_offset)
        except LogError as error:
            self._trims.append((self._now_s() + _TRIM_RETRY_S, before_offset))
            log.warning("trim failed, it is tried again", partition=self._partition, error=error.message)

    async def _commit(self, cut_offset: int) -> None:
        """Commit up to a cut; a failure costs nothing but lag tools' view until the next cut."""
        began = self._now_s()
        try:
            await self._log.commit(self._knobs.group, self._partition, cut_offset)
            self._metrics.committed(self._partition, cut_offset, seconds=self._now_s() - began)
        except LogError as error:
            self._metrics.commit_failed(self._partition, seconds=self._now_s() - began)
            log.warning("commit failed", partition=self._partition, error=error.message)

    async def reset(self) -> None:
        """Forget the cut in flight and all that waits; it is carried out again from what is durable."""
        task, self.task, self.error = self.task, None, None
        self._releases, self._trims = [], []
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._metrics.cut_ended(self._partition)
