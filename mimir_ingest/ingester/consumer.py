"""One partition's owner: the shell around `PartitionState`. It owns the tasks, reads the clock and does the I/O.

    recover ─► read the log ─► apply (thread) ─► cut point: ship (thread, one at a time) ─► commit, trim, release later
                     ▲               │
                     └───────────────┘   between batches: seal and merge, snapshot, idle flush

Every error of the log or the bucket is retried with back-off for ever; nothing is dropped meanwhile, reading just
waits. An error that is a bug throws the state away and recovers it from what is durable. A record of an unknown version
stops the partition, and says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from mimir_ingest.errors import (
    IngestError,
    LogError,
    LogUnavailable,
    OffsetOutOfRange,
    RecordCorrupt,
    RecordVersionUnsupported,
)
from mimir_ingest.ingester import snapshot as snapshots
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.cut import CutRequest
from mimir_ingest.ingester.metadata import MetadataStore
from mimir_ingest.ingester.partition import Applied, PartitionState
from mimir_ingest.ingester.recovery import ResumeFrom, plan_resume
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.shipping import CutShipper, ShippedCut
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from mimir_ingest.wire.record import VERSION_CONTROL, RecordSettings, encode_flush

log = structlog.get_logger()

_TRIM_RETRY_S = 15.0
"""why: a full disk is the usual cause, and takes people to mend."""


@dataclass(frozen=True, slots=True)
class ConsumerKnobs:
    """Time and size settings of a consumer; none of them changes any content."""

    group: str
    """Consumer group whose offset is committed."""
    snapshot_folder: Path | None
    """Where snapshots are kept; None: nowhere."""
    snapshot_interval_s: float
    idle_timeout_s: float
    """A partition without records this long that holds samples is flushed; 0: never."""
    retention_s: float
    """How long shipped samples are still served, so that every reader's list of blocks has their blocks."""
    trim_delay_s: float
    """How long what was cut stays in the log, so that another owner that is a little behind still finds it."""
    fetch_max_bytes: int
    fetch_max_wait_s: float
    append_timeout_s: float
    min_backoff_s: float = 0.25
    max_backoff_s: float = 2.0


class PartitionConsumer:
    """Owns one partition. Created on the event loop; `run` is its only task, `state` its only data."""

    def __init__(
        self,
        partition: int,
        partition_log: PartitionLog,
        shipper: CutShipper,
        *,
        knobs: ConsumerKnobs,
        settings: PartitionSettings,
        default_record_settings: Callable[[str], RecordSettings],
        executor: Executor,
        ship_executor: Executor,
        metadata: MetadataStore,
        metrics: ConsumptionMetrics,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.partition = partition
        self.state: PartitionState | None = None
        """None until recovered."""
        self.caught_up = False
        """Whether everything in the log at start has been applied."""
        self.failed: str | None = None
        """Why the partition is not consumed any more."""
        self.target_offset = 0
        """Log's end when the consumer started."""
        self._log = partition_log
        self._shipper = shipper
        self._knobs = knobs
        self._settings = settings
        self._default_record_settings = default_record_settings
        self._executor = executor
        self._ship_executor = ship_executor
        self._metadata = metadata
        self._metrics = metrics
        self._now_s = now_s
        self._progress = asyncio.Condition()
        self._cut_task: asyncio.Task[ShippedCut] | None = None
        self._snapshot_task: asyncio.Task[None] | None = None
        self._releases: list[tuple[float, int]] = []
        self._trims: list[tuple[float, int]] = []
        self._last_record_s = self._last_snapshot_s = now_s()
        self._snapshot_offset = -1
        self._stopping = asyncio.Event()
        self._reading: asyncio.Task[list[Record]] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until stopped. Cancelling it loses nothing but work."""
        backoff = self._knobs.min_backoff_s
        while not self._stopping.is_set():
            try:
                await self._step(self.state or await self._recover())
                backoff = self._knobs.min_backoff_s
                continue
            except (RecordVersionUnsupported, RecordCorrupt) as error:
                # Corrupt values are passed over in `apply`; this one's version cannot be read, so it may hold anything.
                await self._fail(f"record {self.state.next_offset if self.state else '?'}: {error.message}")
                return
            except OffsetOutOfRange as error:
                log.error("the log does not have the next offset", partition=self.partition, error=error.message)
                await self._discard()
            except IngestError as error:
                if not error.retriable:
                    log.error("state is discarded after an error", partition=self.partition, error=error.message)
                    await self._discard()
                self._metrics.failed(error)
            except Exception:  # outermost wrapper of the partition's task
                log.exception("state is discarded after an unexpected error", partition=self.partition)
                await self._discard()
            await self._pause(backoff)
            backoff = min(2 * backoff, self._knobs.max_backoff_s)

    async def stop(self) -> None:
        """End `run` after its present step, and write a last snapshot if no cut is in flight."""
        self._stopping.set()
        if self._reading is not None:
            self._reading.cancel()  # a read that waits for records; nothing is lost
        async with self._progress:
            self._progress.notify_all()

    async def finish(self) -> None:
        """After `run` has ended: end the tasks, keep a snapshot for the next start."""
        await self._end_tasks()
        if self.state is not None and self._knobs.snapshot_interval_s:
            await self._begin_snapshot(self.state)
            if self._snapshot_task is not None:
                await self._snapshot_task

    async def _fail(self, reason: str) -> None:
        self.failed = reason
        log.error("partition is not consumed any more", partition=self.partition, reason=reason)
        async with self._progress:
            self._progress.notify_all()

    async def _discard(self) -> None:
        """Throw the state away; it is recovered from what is durable."""
        await self._end_tasks()
        self.state, self._cut_task, self._releases, self._trims, self.caught_up = None, None, [], [], False

    async def _end_tasks(self) -> None:
        if self._cut_task is not None:
            self._cut_task.cancel()
            await asyncio.wait([self._cut_task])
        if self._snapshot_task is not None:
            # Its thread cannot be stopped, and two must not write the same temporary file.
            await asyncio.wait([self._snapshot_task])
            self._snapshot_task = None

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    # --- recovery ---------------------------------------------------------------------------------------------------

    async def _recover(self) -> PartitionState:
        """Build the state from what is durable."""
        start = await self._log.start_offset(self.partition)
        end = await self._log.end_offset(self.partition)
        stored = await self._thread(self._read_snapshot)
        cut_offsets = await self._thread(self._shipper.cut_offsets)
        plan = plan_resume(
            topic_id=self._log.topic_id,
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
        if plan.source is ResumeFrom.SNAPSHOT and stored is not None:
            state = await self._thread(lambda: stored.restore(default_record_settings=self._default_record_settings))
        else:
            state = await self._thread(self._from_checkpoint, start)
        if state.next_offset < start:
            lost = start - state.next_offset
            log.error(
                "records were dropped by the log before they were consumed; they are lost",
                partition=self.partition,
                first_offset=state.next_offset,
                last_offset=start - 1,
            )
            self._metrics.missed(lost)
            state.next_offset = start
        self.target_offset = end
        self.state = state
        self._snapshot_offset = state.next_offset if plan.source is ResumeFrom.SNAPSHOT else -1
        self._last_record_s = self._now_s()
        if state.last_cut_offset is not None:
            # The process before may have ended between a cut and its trim.
            self._trims = [(self._now_s() + self._knobs.trim_delay_s, state.last_cut_offset)]
        log.info(
            "partition resumes",
            partition=self.partition,
            source=str(plan.source),
            next_offset=state.next_offset,
            end=end,
        )
        return state

    def _from_checkpoint(self, log_start_offset: int) -> PartitionState:
        newest = self._shipper.newest()
        if newest is not None:
            return PartitionState.restore(*newest, default_record_settings=self._default_record_settings)
        return PartitionState(
            self._log.topic_id,
            self.partition,
            settings=self._settings,
            default_record_settings=self._default_record_settings,
            start_offset=log_start_offset,
        )

    def _read_snapshot(self) -> snapshots.Snapshot | None:
        if self._knobs.snapshot_folder is None:
            return None
        try:
            return snapshots.read_snapshot(self._knobs.snapshot_folder, self.partition)
        except ColumnsFileCorrupt as error:
            log.warning("snapshot is discarded", partition=self.partition, reason=error.message)
            return None

    # --- consumption ------------------------------------------------------------------------------------------------

    async def _step(self, state: PartitionState) -> None:
        """Read and apply one batch, and do what is due."""
        if not self.caught_up and state.next_offset >= self.target_offset:
            self.caught_up = True
            await self._notify()
        records = await self._read(state.next_offset)
        if records:
            self._last_record_s = self._now_s()
            self._metrics.received(records, starting=not self.caught_up)
            await self._apply(state, records)
        await self._do_due(state)

    async def _read(self, next_offset: int) -> list[Record]:
        """Read a batch; return early, with nothing, when the cut in flight is shipped or the consumer is to stop."""
        reading = self._log.read(
            self.partition, next_offset, max_bytes=self._knobs.fetch_max_bytes, max_wait_s=self._wait_s()
        )
        task = self._reading = asyncio.create_task(reading, name=f"read-{self.partition}")
        try:
            cut = () if self._cut_task is None else (self._cut_task,)
            await asyncio.wait({task, *cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._reading = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return [] if task.cancelled() else task.result()

    def _wait_s(self) -> float:
        due = [deadline - self._now_s() for deadline, _ in self._releases[:1]]
        return max(0.01, min([self._knobs.fetch_max_wait_s, *due]))

    async def _apply(self, state: PartitionState, records: list[Record]) -> None:
        while True:
            began = self._now_s()
            applied: Applied = await self._thread(state.apply, records)
            self._metrics.applied(self.partition, state, applied, seconds=self._now_s() - began)
            for tenant, columns in applied.metadata:
                self._metrics.metadata(tenant, self._metadata.add(tenant, columns, now_s=self._now_s()))
            records = records[applied.consumed :]
            if applied.cut is not None:
                self._cut_task = asyncio.create_task(self._ship(applied.cut), name=f"cut-{self.partition}")
            await self._notify()
            if self._cut_task is not None and (applied.blocked or self._cut_task.done()):
                await self._end_cut(state)
                if self._cut_task is not None:
                    return  # stopping; what was not applied is read again at the next start
            if not records:
                break
        await self._thread(state.maintain)

    async def _do_due(self, state: PartitionState) -> None:
        if self._cut_task is not None and self._cut_task.done():
            await self._end_cut(state)
        if not state.settled and state.in_flight is None:
            await self._apply(state, [])
        now = self._now_s()
        while self._releases and self._releases[0][0] <= now:
            state.release(self._releases.pop(0)[1])
        await self._trim_due()
        idle = self._knobs.idle_timeout_s
        if idle and now - self._last_record_s >= idle and state.settled and state.held_count:
            await self.append_flush(None)
            self._last_record_s = self._now_s()
        interval = self._knobs.snapshot_interval_s
        if interval and now - self._last_snapshot_s >= interval:
            await self._begin_snapshot(state)

    async def _notify(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    # --- cuts -------------------------------------------------------------------------------------------------------

    async def _ship(self, request: CutRequest) -> ShippedCut:
        """Ship a cut; errors are retried for ever."""
        backoff = self._knobs.min_backoff_s
        self._metrics.cut_begun()
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    self._ship_executor, self._shipper.ship, request, self._metrics.uploaded
                )
            except IngestError as error:
                self._metrics.cut_failed()
                log.error(
                    "a cut could not be shipped; it is tried again",
                    partition=self.partition,
                    cut_offset=request.cut_offset,
                    error=error.message,
                )
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, 30.0)

    async def _end_cut(self, state: PartitionState) -> None:
        """Wait for the cut in flight, then let go of what it has made durable; stopping ends the wait."""
        task = self._cut_task
        if not task.done():
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopping.cancel()
            if not task.done():
                return
        self._cut_task = None
        shipped = task.result()
        await self._thread(state.finish_cut, shipped.cuts, shipped.stays)
        cut_offset = shipped.cuts[-1].cut_offset
        log.info(
            "cut is shipped",
            partition=self.partition,
            cut_offset=cut_offset,
            blocks=len(shipped.cuts[-1].blocks),
            uploaded=shipped.uploaded,
        )
        self._releases.append((self._now_s() + self._knobs.retention_s, cut_offset))
        # Cuts by size come faster than retention ends: memory is bounded, and readers find the blocks by their names.
        while len(self._releases) > 1 and state.retained_count > state.settings.cut_max_samples:
            state.release(self._releases.pop(0)[1])
        await self._notify()
        self._trims.append((self._now_s() + self._knobs.trim_delay_s, cut_offset))
        await self._commit(cut_offset)
        await self._trim_due()

    async def _commit(self, cut_offset: int) -> None:
        """Commit up to a cut; a failure costs nothing but lag tools' view until the next cut."""
        try:
            await self._log.commit(self._knobs.group, self.partition, cut_offset)
            self._metrics.committed(self.partition, cut_offset)
        except LogError as error:
            self._metrics.commit_failed(self.partition)
            log.warning("commit failed", partition=self.partition, error=error.message)

    async def _trim_due(self) -> None:
        """Trim the log up to the newest cut whose delay is over; a failure costs space, and is tried again."""
        now = self._now_s()
        before_offset = max((offset for deadline, offset in self._trims if deadline <= now), default=None)
        if before_offset is None:
            return
        self._trims = [(deadline, offset) for deadline, offset in self._trims if deadline > now]
        try:
            await self._log.trim(self.partition, before_offset)
        except LogError as error:
            self._trims.append((self._now_s() + _TRIM_RETRY_S, before_offset))
            log.warning("trim failed, it is tried again", partition=self.partition, error=error.message)

    # --- snapshots --------------------------------------------------------------------------------------------------

    async def _begin_snapshot(self, state: PartitionState) -> None:
        """Take the state now, write it while consumption goes on."""
        busy = self._snapshot_task is not None and not self._snapshot_task.done()
        folder = self._knobs.snapshot_folder
        if folder is None or busy or not state.settled or state.next_offset == self._snapshot_offset:
            return
        self._last_snapshot_s, self._snapshot_offset = self._now_s(), state.next_offset
        captured = await self._thread(snapshots.capture, state)
        self._snapshot_task = asyncio.create_task(
            self._write_snapshot(folder, captured), name=f"snapshot-{self.partition}"
        )

    async def _write_snapshot(self, folder: Path, captured: snapshots.CapturedState) -> None:
        try:
            await self._thread(snapshots.write_snapshot, folder, captured)
            self._metrics.snapshot_written()
        except OSError as error:
            self._snapshot_offset = -1
            self._metrics.snapshot_failed()
            log.warning("snapshot could not be written", partition=self.partition, error=str(error))

    # --- for others -------------------------------------------------------------------------------------------------

    async def append_flush(self, tenants: list[str] | None) -> int:
        """Append a record that cuts everything held (of some tenants); return its offset."""
        return await self._log.append(
            self.partition, b"", encode_flush(tenants), VERSION_CONTROL, timeout_s=self._knobs.append_timeout_s
        )

    async def wait_consumed(self, next_offset: int) -> None:
        """Return once everything below `next_offset` is applied. Raises LogUnavailable when that cannot be any more."""
        await self._wait(lambda: self.state is not None and self.state.next_offset >= next_offset)

    async def wait_shipped(self, offset: int) -> None:
        """Return once everything up to a flush record's offset is in blocks whose checkpoint was read back."""

        def shipped() -> bool:
            state = self.state
            if state is None or state.next_offset <= offset:
                return False
            in_flight = state.in_flight
            return state.pending_cut_offset is None and (in_flight is None or in_flight.cut_offset > offset + 1)

        await self._wait(shipped)

    async def _wait(self, reached: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: reached() or self.failed is not None or self._stopping.is_set())
        if not reached():
            raise LogUnavailable(f"partition {self.partition} is not consumed any more: {self.failed or 'stopping'}")
