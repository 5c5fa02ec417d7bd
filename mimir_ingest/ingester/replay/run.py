"""The shell of a replay: it reads the log, hands records to `PartitionReplay` in a thread, and tells progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mimir_ingest.bucket.checkpoints import CheckpointStore
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogError, LogUnavailable
from mimir_ingest.ingester.checkpoint import decode_checkpoint
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.replay.judge import PartitionReplay
from mimir_ingest.ingester.replay.plan import LogPlace, ReplayPlan, plan_replay
from mimir_ingest.ingester.replay.report import ReplayReport
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.log.contract import PartitionLog, Record
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from mimir_ingest.wire.record import RecordSettings

_FETCH_BYTES = 8 << 20
_POLL_S = 1.0
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What to replay, and how."""

    partition: int
    first: LogPlace | None
    """None: the earliest place that can be rebuilt."""
    end: LogPlace | None
    """First place that is not needed; None: the log's end."""
    ship: bool
    memory_limit_bytes: int
    """0 is no limit."""
    timeout_s: float
    """How long the log or the bucket may fail to answer."""


async def replay_partition(
    log: PartitionLog,
    bucket: Bucket,
    request: ReplayRequest,
    *,
    default_record_settings: Callable[[str, int], RecordSettings],
    on_progress: Callable[[PartitionReplay], None] = lambda replay: None,
) -> ReplayReport:
    """Replay one partition of a log that is not started (it is started and closed here).

    `default_record_settings` gives, for a tenant and the number of partitions, what the ingesters take for records that
    carry none (Mimir's). `on_progress` is called in the event loop after every batch.

    Raises LogError and its kinds (a partition or range that is not there, nothing that can be rebuilt, a shipping
    replay that would not be exact, no answer in time, a record of a later version), StoreUnavailable,
    MemoryBudgetExceeded. Cancelled, what was shipped stays, whole blocks only.
    """
    try:
        try:
            async with asyncio.timeout(request.timeout_s):
                await log.start()
                known = await log.partitions()
            if request.partition not in known:
                raise LogError(f"there is no partition {request.partition}; the log has {', '.join(map(str, known))}")
            plan, state, damaged = await _begin(
                log, bucket, request, lambda tenant: default_record_settings(tenant, len(known))
            )
        except TimeoutError:
            raise LogUnavailable(f"the log did not answer within {request.timeout_s:g} s") from None
        replay = PartitionReplay(
            state,
            bucket,
            plan,
            ship=request.ship,
            memory_limit_bytes=request.memory_limit_bytes,
            timeout_s=request.timeout_s,
        )
        await _run(log, replay, request, on_progress)
        report = await asyncio.to_thread(replay.finish)
        for offset in damaged.keys() - set(report.cut_offsets):
            report.checkpoint_problems.append(f"the checkpoint at {offset} cannot be read: {damaged[offset]}")
        return report
    finally:
        await log.close()


async def _begin(
    log: PartitionLog,
    bucket: Bucket,
    request: ReplayRequest,
    default_record_settings: Callable[[str], RecordSettings],
) -> tuple[ReplayPlan, PartitionState, dict[int, str]]:
    """Choose where to begin; return the state there too, and why damaged checkpoints were passed over."""
    partition, store = request.partition, CheckpointStore(bucket, log.topic_id, request.partition)
    async with asyncio.timeout(request.timeout_s):
        start, end = await log.start_offset(partition), await log.end_offset(partition)
        first, last = [await _offset(log, partition, place) for place in (request.first, request.end)]
    damaged: dict[int, str] = {}
    checkpoints = set(await asyncio.to_thread(store.list))
    while True:
        plan = plan_replay(
            partition=partition,
            log_start_offset=start,
            log_end_offset=end,
            checkpoints=checkpoints,
            from_offset=first,
            to_offset=last,
        )
        if request.ship and not plan.exact:
            raise LogError(
                f"partition {partition} has no checkpoint, and the log has lost what came before offset {start}: what "
                "can be rebuilt is not certain to be what owners made, so nothing is shipped"
            )
        if plan.checkpoint is None:
            state = PartitionState(
                log.topic_id,
                partition,
                settings=PartitionSettings(),
                default_record_settings=default_record_settings,
                start_offset=plan.next_offset,
            )
            return plan, state, damaged
        data = await asyncio.to_thread(store.read, plan.checkpoint)
        try:
            if data is not None:
                facts, heads = await asyncio.to_thread(decode_checkpoint, data)
                state = PartitionState.restore(facts, heads, default_record_settings=default_record_settings)
                return plan, state, damaged
        except ColumnsFileCorrupt as error:
            damaged[plan.checkpoint] = error.message
        checkpoints.discard(plan.checkpoint)


async def _offset(log: PartitionLog, partition: int, place: LogPlace | None) -> int | None:
    if place is None or place.time_ms is None:
        return None if place is None else place.offset
    return await log.offset_for_timestamp(partition, place.time_ms)


async def _run(
    log: PartitionLog, replay: PartitionReplay, request: ReplayRequest, on_progress: Callable[[PartitionReplay], None]
) -> None:
    """Read and feed up to a cut that covers everything asked for, or the log's end."""
    end = await log.end_offset(request.partition)
    while not replay.finished and replay.state.next_offset < end:
        records = await _patiently(request.timeout_s, lambda: _read(log, replay, end))
        await asyncio.to_thread(replay.feed, records)
        on_progress(replay)


async def _read(log: PartitionLog, replay: PartitionReplay, end: int) -> list[Record]:
    """Return the next records. Raises LogUnavailable when none come."""
    partition, next_offset = replay.state.partition, replay.state.next_offset
    limit = replay.memory_limit_bytes
    records = await log.read(
        partition,
        next_offset,
        max_bytes=min(_FETCH_BYTES, limit // 8) if limit else _FETCH_BYTES,
        max_wait_s=_POLL_S,
    )
    if not records:
        raise LogUnavailable(f"partition {partition} gives no record at offset {next_offset}, its end is {end}")
    return records


async def _patiently(timeout_s: float, read: Callable[[], Awaitable[list[Record]]]) -> list[Record]:
    """Read; again, for as long as it may take, when the log is not available."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return await read()
        except LogUnavailable:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(_RETRY_S)
