"""One partition's owner: the shell around `PartitionState`. It owns the tasks, reads the clock and does the I/O.

    resume ─► read the log ─► apply (thread) ─► cut point: ship (thread, one at a time) ─► commit, trim, release later
                    ▲               │
                    └───────────────┘   between batches: seal and merge, snapshot, idle flush

Every error of the log or the bucket is retried with back-off for ever; nothing is dropped meanwhile, reading just
waits. An error that is a bug throws the state away and recovers it from what is durable. A record of an unknown version
stops the partition, and says so. What the log has dropped is taken over from another owner's checkpoint; where there is
none, the range is lost: it is named, counted and passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
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
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.cutting import CutRunner
from mimir_ingest.ingester.exemplars import ExemplarStore
from mimir_ingest.ingester.knobs import ConsumerKnobs
from mimir_ingest.ingester.metadata import MetadataStore
from mimir_ingest.ingester.partition import NO_RECORD, Applied, PartitionState
from mimir_ingest.ingester.reader_health import ReaderFacts, bound_delay
from mimir_ingest.ingester.resume import StateSource
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.shipping import CutShipper
from mimir_ingest.ingester.snapshot_keeper import SnapshotKeeper
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.wire.record import VERSION_CONTROL, RecordSettings, encode_flush
from partitions.offsets import OffsetWatch

log = structlog.get_logger()


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
        exemplars: ExemplarStore,
        metrics: ConsumptionMetrics,
        joining: bool = False,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
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
        self.lost: list[tuple[int, int]] = []
        """Offsets `[first, end)` that the log dropped before they were consumed."""
        self._log = partition_log
        self._knobs = knobs
        self._executor = executor
        self._metadata = metadata
        self._exemplars = exemplars
        self._metrics = metrics
        self._now_s = now_s
        self._wall_s = wall_s
        self._snapshots = SnapshotKeeper(
            partition,
            knobs.snapshot_folder,
            interval_s=knobs.snapshot_interval_s,
            executor=executor,
            metrics=metrics,
            now_s=now_s,
        )
        self._cuts = CutRunner(
            partition, partition_log, shipper, knobs=knobs, executor=ship_executor, metrics=metrics, now_s=now_s
        )
        self._source = StateSource(
            partition, partition_log, shipper, self._snapshots, settings, default_record_settings, executor
        )
        self.offsets = OffsetWatch(partition)
        """Where reads wait for what they have to see."""
        self._joining = joining
        self._progress = asyncio.Condition()
        self._last_record_s = self._fetched_s = now_s()
        self._at_end_s: float | None = None
        self._error: str | None = None
        self._stopping = asyncio.Event()
        self._reading: asyncio.Task[list[Record]] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until stopped. Cancelling it loses nothing but work."""
        backoff = self._knobs.min_backoff_s
        while not self._stopping.is_set():
            try:
                await self._step(self.state or await self._resume())
                backoff = self._knobs.min_backoff_s
                continue
            except (RecordVersionUnsupported, RecordCorrupt) as error:
                # Corrupt values are passed over in `apply`; this one's version cannot be read, so it may hold anything.
                await self._fail(f"record {self.state.next_offset if self.state else '?'}: {error.message}")
                return
            except IngestError as error:
                self._error = error.message
                if not error.retriable and not isinstance(error, LogError):
                    log.error("state is discarded after an error", partition=self.partition, error=error.message)
                    await self._discard()
                self._metrics.failed(error)
            except Exception as error:  # outermost wrapper of the partition's task
                log.exception("state is discarded after an unexpected error", partition=self.partition)
                self._error = f"unexpected error: {error!r}"
                await self._discard()
            await self._pause(backoff)
            backoff = min(2 * backoff, self._knobs.max_backoff_s)

    async def stop(self) -> None:
        """End `run` after its present step, and write a last snapshot if no cut is in flight."""
        self._stopping.set()
        self.offsets.fail("it stops")
        if self._reading is not None:
            self._reading.cancel()  # a read that waits for records; nothing is lost
        await self._notify()

    async def finish(self) -> None:
        """After `run` has ended: end the tasks, keep a snapshot for the next start."""
        await self._cuts.reset()
        await self._snapshots.wait()
        if self.state is not None:
            await self._snapshots.take_last(self.state)

    async def _fail(self, reason: str) -> None:
        self.failed = reason
        self.offsets.fail(reason)
        log.error("partition is not consumed any more", partition=self.partition, reason=reason)
        await self._notify()

    async def _discard(self) -> None:
        """Throw the state away; it is recovered from what is durable."""
        await self._cuts.reset()
        await self._snapshots.wait()
        self.state, self.caught_up, self._at_end_s = None, False, None

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def _resume(self) -> PartitionState:
        """Build the state from what is durable, and go on with it."""
        resumed = await self._source.resume()
        state = resumed.state
        if resumed.lost is not None:
            self._pass_lost(state, resumed.lost[1])
        self.target_offset = resumed.end_offset
        self.state = state
        self.offsets.advance(state.next_offset)
        self._last_record_s = self._fetched_s = self._now_s()
        if state.last_cut_offset is not None:
            # The process before may have ended between a cut and its trim.
            self._cuts.trim_later(state.last_cut_offset)
        return state

    # --- consumption ------------------------------------------------------------------------------------------------

    async def _step(self, state: PartitionState) -> None:
        """Read and apply one batch, and do what is due."""
        if not self.caught_up and state.next_offset >= self.target_offset:
            self.caught_up, self._joining = True, False
            await self._notify()
        began = self._now_s()
        try:
            records = await self._read(state.next_offset)
        except OffsetOutOfRange as error:
            await self._leave_gap(state, error)
            return
        if records is not None:
            self._fetched_s, self._error = self._now_s(), None
            if not records:
                self._at_end_s = began
        if records:
            self._last_record_s = self._now_s()
            self._metrics.received(records, starting=not self.caught_up, waited_s=self._last_record_s - began)
            await self._apply(state, records)
            self._metrics.consumed(records, seconds=self._now_s() - self._last_record_s)
        await self._do_due(state)

    async def _read(self, next_offset: int) -> list[Record] | None:
        """Read a batch; return early, with None, when the cut in flight is shipped or the consumer is to stop."""
        reading = self._log.read(
            self.partition, next_offset, max_bytes=self._knobs.fetch_max_bytes, max_wait_s=self._wait_s()
        )
        task = self._reading = asyncio.create_task(reading, name=f"read-{self.partition}")
        try:
            cut = () if self._cuts.task is None else (self._cuts.task,)
            await asyncio.wait({task, *cut}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._reading = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        return None if task.cancelled() else task.result()

    def _wait_s(self) -> float:
        due = self._cuts.next_release_s()
        waits = [self._knobs.fetch_max_wait_s] if due is None else [self._knobs.fetch_max_wait_s, due]
        return max(0.01, min(waits))

    async def _leave_gap(self, state: PartitionState, error: OffsetOutOfRange) -> None:
        """The log does not have the next offset: go on from another owner's checkpoint, else behind what is lost."""
        self._metrics.failed(error)
        cut_offsets = await self._source.cut_offsets()
        dropped = error.offset == state.next_offset < error.start_offset
        if dropped and (not cut_offsets or cut_offsets[-1] <= state.next_offset):
            self._pass_lost(state, error.start_offset)
            return
        self._error = error.message
        log.error("the log does not have the next offset", partition=self.partition, error=error.message)
        await self._discard()
        await self._pause(self._knobs.min_backoff_s)

    def _pass_lost(self, state: PartitionState, start_offset: int) -> None:
        """Go on at the log's start; what lies before it can be had from nowhere."""
        log.error(
            "records were dropped by the log before they were consumed; they are lost",
            partition=self.partition,
            first_offset=state.next_offset,
            last_offset=start_offset - 1,
        )
        self.lost.append((state.next_offset, start_offset))
        self._metrics.missed(start_offset - state.next_offset)
        state.next_offset = start_offset

    async def _apply(self, state: PartitionState, records: list[Record]) -> None:
        while True:
            began = self._now_s()
            applied: Applied = await self._thread(state.apply, records)
            self.offsets.advance(state.next_offset)
            self._metrics.applied(self.partition, state, applied, seconds=self._now_s() - began)
            for tenant, columns in applied.metadata:
                self._metrics.metadata(tenant, self._metadata.add(tenant, columns, now_s=self._now_s()))
            for received in applied.exemplars:
                taken = self._exemplars.add(self.partition, received)
                self._metrics.exemplars(received.batch.exemplar_count, taken)
            records = records[applied.consumed :]
            if applied.cut is not None:
                self._cuts.begin(applied.cut)
            await self._notify()
            if self._cuts.task is not None and (applied.blocked or self._cuts.task.done()):
                await self._end_cut(state)
                if self._cuts.task is not None:
                    return  # stopping; what was not applied is read again at the next start
            if not records:
                break
        if state.maintenance_due:
            await self._thread(state.maintain)

    async def _end_cut(self, state: PartitionState) -> None:
        """Wait for the cut in flight, then let go of what it has made durable; stopping ends the wait."""
        shipped = await self._cuts.shipped(self._stopping)
        if shipped is None:
            return
        await self._thread(state.finish_cut, shipped.cuts, shipped.stays)
        cut = shipped.cuts[-1]
        log.info(
            "cut is shipped",
            partition=self.partition,
            cut_offset=cut.cut_offset,
            blocks=len(cut.blocks),
            uploaded=shipped.uploaded,
        )
        await self._notify()
        await self._cuts.let_go(state, cut.cut_offset)

    async def _do_due(self, state: PartitionState) -> None:
        if self._cuts.task is not None and self._cuts.task.done():
            await self._end_cut(state)
        if not state.settled and state.in_flight is None:
            await self._apply(state, [])
        self._cuts.release_due(state)
        await self._cuts.trim_due()
        idle = self._knobs.idle_timeout_s
        if idle and self._now_s() - self._last_record_s >= idle and state.settled and state.held_count:
            await self.append_flush(None)
            self._last_record_s = self._now_s()
        await self._snapshots.take_due(state)

    async def _notify(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    # --- for others -------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> ReaderFacts:
        """What the reader says about itself."""
        return ReaderFacts(
            self.partition,
            self.failed,
            None if self.state is None else self.state.next_offset,
            self.target_offset,
            self.caught_up,
            self._now_s() - self._fetched_s,
            self._error or self._cuts.error,
            self._joining,
        )

    def delay_s(self) -> float:
        """Return how old (s) the newest write that is missing from a view can be at most."""
        record_ms = NO_RECORD if self.state is None else self.state.record_time_ms
        return bound_delay(
            at_end_age_s=None if self._at_end_s is None else self._now_s() - self._at_end_s,
            newest_record_age_s=None if record_ms == NO_RECORD else self._wall_s() - record_ms / 1000,
        )

    async def append_flush(self, tenants: list[str] | None) -> int:
        """Append a record that cuts everything held (of some tenants); return its offset."""
        return await self._log.append(
            self.partition, b"", encode_flush(tenants), VERSION_CONTROL, timeout_s=self._knobs.append_timeout_s
        )

    async def wait_shipped(self, offset: int) -> None:
        """Return once everything up to a flush record's offset is in blocks whose checkpoint was read back."""

        def shipped() -> bool:
            state = self.state
            if state is None or state.next_offset <= offset:
                return False
            in_flight = state.in_flight
            return state.pending_cut_offset is None and (in_flight is None or in_flight.cut_offset > offset + 1)

        await self._wait(shipped)

    async def wait_caught_up(self) -> None:
        """Return once everything in the log at the start is applied. Raises LogUnavailable when that cannot be."""
        await self._wait(lambda: self.caught_up)

    async def _wait(self, reached: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: reached() or self.failed is not None or self._stopping.is_set())
        if not reached():
            raise LogUnavailable(f"partition {self.partition} is not consumed any more: {self.failed or 'stopping'}")
