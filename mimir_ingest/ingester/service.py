"""The ingester: one consumer a partition, and the answers that queries and admin pages get from them.

It owns every partition of the topic. `start` returns at once; `ready_reason` tells what recovery and catching up still
lack. Queries run in threads of their own over immutable views, so that consuming and answering do not wait for each
other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogUnavailable
from mimir_ingest.ingester.consumer import ConsumerKnobs, PartitionConsumer
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.cut import BlockRef
from mimir_ingest.ingester.metadata import FamilyMetadata, MetadataStore
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.shipping import CutShipper
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.obs.metrics import IngesterMetrics
from mimir_ingest.tsdb.head import Head
from mimir_ingest.wire.record import RecordSettings

log = structlog.get_logger()

_Answer = TypeVar("_Answer")

TRIM_DELAY_S = 15.0
"""why: an owner sees another process's record within 20 ms; this forgives it a busy machine and a long batch. One that
is later still resumes from the checkpoint, and answers no queries meanwhile."""

_UPKEEP_S = 5.0
"""why: gauges are scraped every 15 s; the series counts cost microseconds a tenant."""


@dataclass(frozen=True, slots=True)
class PartitionCut:
    """What a partition no longer serves from memory: everything below `cut_offset` that was cut, in these blocks."""

    partition: int
    cut_offset: int
    blocks: tuple[BlockRef, ...]
    """The tenant's blocks of recent cuts; older ones are in every list of blocks."""


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """The ingester's part of a query."""

    series: list[SeriesSamples]
    """In order of precedence: of equal timestamps of a series, the one in the first of these counts."""
    cuts: list[PartitionCut]
    """What the querier has to find in the bucket."""


class Ingester:
    """Owns the heads of all partitions. Used from one event loop; `start`, then anything, then `close`."""

    def __init__(
        self,
        partition_log: PartitionLog,
        bucket: Bucket,
        *,
        metrics: IngesterMetrics,
        default_record_settings: Callable[[str], RecordSettings],
        partition_settings: PartitionSettings | None = None,
        group: str = "mimir-ingest",
        catalog: BlockCatalog | None = None,
        snapshot_folder: Path | None = None,
        snapshot_interval_s: float = 120.0,
        idle_timeout_s: float = 3600.0,
        retention_s: float = 600.0,
        trim_delay_s: float = TRIM_DELAY_S,
        metadata_retain_s: float = 600.0,
        fetch_max_bytes: int = 8 << 20,
        fetch_max_wait_s: float = 1.0,
        append_timeout_s: float = 30.0,
        apply_threads: int = 2,
        query_threads: int = 4,
        ship_concurrency: int = 1,
    ) -> None:
        self._log = partition_log
        self._bucket = bucket
        self._catalog = catalog or BlockCatalog(bucket)
        self._default_record_settings = default_record_settings
        self._settings = partition_settings or PartitionSettings()
        self._knobs = ConsumerKnobs(
            group=group,
            snapshot_folder=snapshot_folder,
            snapshot_interval_s=snapshot_interval_s if snapshot_folder else 0.0,
            idle_timeout_s=idle_timeout_s,
            retention_s=retention_s,
            trim_delay_s=trim_delay_s,
            fetch_max_bytes=fetch_max_bytes,
            fetch_max_wait_s=fetch_max_wait_s,
            append_timeout_s=append_timeout_s,
        )
        self._metrics = ConsumptionMetrics(metrics)
        self._metadata = MetadataStore(retain_s=metadata_retain_s)
        self._apply_pool = ThreadPoolExecutor(apply_threads, "ingest")
        self._query_pool = ThreadPoolExecutor(query_threads, "head-query")
        self._ship_pool = ThreadPoolExecutor(ship_concurrency, "ship")
        self._consumers: dict[int, PartitionConsumer] = {}
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._series_seen: dict[tuple[int, str], tuple[Head, int, int]] = {}

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to consume every partition; the log must be started. Returns before anything is recovered."""
        for partition in await self._log.partitions():
            consumer = PartitionConsumer(
                partition,
                self._log,
                CutShipper(self._bucket, self._catalog, self._log.topic_id, partition),
                knobs=self._knobs,
                settings=self._settings,
                default_record_settings=self._default_record_settings,
                executor=self._apply_pool,
                ship_executor=self._ship_pool,
                metadata=self._metadata,
                metrics=self._metrics,
            )
            self._consumers[partition] = consumer
            self._tasks.append(asyncio.create_task(consumer.run(), name=f"partition-{partition}"))
        self._tasks.append(asyncio.create_task(self._upkeep(), name="ingester-upkeep"))

    async def close(self) -> None:
        """Stop consuming, keep snapshots, refuse queries from now on. Idempotent."""
        self._closed = True
        for consumer in self._consumers.values():
            await consumer.stop()
        tasks, self._tasks = self._tasks, []
        if tasks:
            tasks[-1].cancel()
            await asyncio.wait(tasks)
        for consumer in self._consumers.values():
            await consumer.finish()
        for pool in (self._apply_pool, self._query_pool, self._ship_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    async def shutdown(self) -> None:
        """Cut and ship everything held, then close (spec 7.5, `/ingester/shutdown`)."""
        await self.flush(None, wait=True)
        await self.close()

    def ready_reason(self) -> str | None:
        """Return why queries cannot be answered, or None."""
        if self._closed:
            return "the ingester is stopped"
        for partition, consumer in self._consumers.items():
            if consumer.failed is not None:
                return f"partition {partition} is stopped: {consumer.failed}"
            if not consumer.caught_up:
                state = consumer.state
                at = "recovering" if state is None else f"at offset {state.next_offset} of {consumer.target_offset}"
                return f"partition {partition} is catching up: {at}"
        return None if self._consumers else "the ingester is not started"

    def partition_states(self) -> list[dict[str, int | str | None]]:
        """Return a row a partition for status pages."""
        rows: list[dict[str, int | str | None]] = []
        for partition, consumer in self._consumers.items():
            state = consumer.state
            row: dict[str, int | str | None] = {"partition": partition, "failed": consumer.failed}
            if state is not None:
                row |= {
                    "next_offset": state.next_offset,
                    "last_cut_offset": state.last_cut_offset,
                    "record_time_ms": state.record_time_ms,
                    "held_samples": state.held_count,
                    "series": sum(head.live_count for head in list(state.heads.values())),
                }
            rows.append(row)
        return rows

    # --- queries ----------------------------------------------------------------------------------------------------

    async def select(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget | None = None,
    ) -> HeadAnswer:
        """Return a tenant's samples in `[start_ms, end_ms)`.

        Raises LogUnavailable before a partition has caught up, QueryError for more samples than the budget has.
        """

        def one(consumer: PartitionConsumer) -> tuple[list[SeriesSamples], PartitionCut | None]:
            state = _state_of(consumer)
            view = state.view(tenant, matchers)
            # After the view: what was released before it is named here, what is released now is still in it.
            cut = _released(consumer, tenant)
            return ([] if view is None else view.select(matchers, start_ms, end_ms, budget)), cut

        answers = await self._ask(one)
        series = [samples for found, _ in answers for samples in found]
        self._metrics.queried(sum(s.series_count for s in series), sum(s.sample_count for s in series))
        return HeadAnswer(series, [cut for _, cut in answers if cut is not None])

    async def label_frame(
        self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> list[LabelFrame]:
        """Return the label sets with a sample in `[start_ms, end_ms)`; a set may occur in several frames."""

        def one(consumer: PartitionConsumer) -> list[LabelFrame]:
            view = _state_of(consumer).view(tenant, matchers)
            return [] if view is None else view.label_frames(matchers, start_ms, end_ms)

        return [frame for frames in await self._ask(one) for frame in frames]

    async def _ask(self, one: Callable[[PartitionConsumer], _Answer]) -> list[_Answer]:
        reason = self.ready_reason()
        if reason is not None:
            raise LogUnavailable(f"the ingester cannot answer: {reason}")
        loop = asyncio.get_running_loop()
        return await asyncio.gather(
            *(loop.run_in_executor(self._query_pool, one, consumer) for consumer in self._consumers.values())
        )

    def cuts(self, tenant: str) -> list[PartitionCut]:
        """Return what each partition no longer serves of a tenant."""
        found = [_released(consumer, tenant) for consumer in self._consumers.values() if consumer.state is not None]
        return [cut for cut in found if cut is not None]

    def metadata(self, tenant: str) -> dict[str, list[FamilyMetadata]]:
        """Return family → its distinct metadata items."""
        return self._metadata.of(tenant)

    def tenants(self) -> list[str]:
        """Return the tenants with series in memory, ascending."""
        names = set()
        for consumer in self._consumers.values():
            if consumer.state is not None:
                names |= {t for t, head in list(consumer.state.heads.items()) if head.live_count}
        return sorted(names)

    # --- commands ---------------------------------------------------------------------------------------------------

    async def flush(self, tenants: list[str] | None, wait: bool) -> dict[int, int]:
        """Cut everything held (of some tenants) at a record appended now to every partition.

        With `wait`, return once all of it is in blocks whose checkpoints were read back. Returns partition → offset of
        the record. Raises LogUnavailable.
        """
        offsets = {partition: await c.append_flush(tenants) for partition, c in self._consumers.items()}
        if wait:
            await asyncio.gather(*(self._consumers[p].wait_shipped(offset) for p, offset in offsets.items()))
        return offsets

    async def wait_consumed(self, partition: int, next_offset: int, timeout_s: float) -> None:
        """Return once the partition's records below `next_offset` can be queried. Raises LogUnavailable in time-out."""
        consumer = self._consumers.get(partition)
        if consumer is None:
            raise LogUnavailable(f"partition {partition} is not owned here")
        try:
            await asyncio.wait_for(consumer.wait_consumed(next_offset), timeout_s)
        except TimeoutError as error:
            raise LogUnavailable(
                f"partition {partition} was not consumed up to offset {next_offset} within {timeout_s} s"
            ) from error

    # --- upkeep -----------------------------------------------------------------------------------------------------

    async def _upkeep(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S)
            self._metadata.purge(now_s=time.monotonic())
            self._count_memory()

    def _count_memory(self) -> None:
        series, tenants = 0, set()
        created: dict[str, int] = {}
        removed: dict[str, int] = {}
        for partition, consumer in self._consumers.items():
            heads = [] if consumer.state is None else list(consumer.state.heads.values())
            for head in heads:
                series += head.live_count
                if head.live_count:
                    tenants.add(head.tenant)
                _, made, gone = self._series_seen.get((partition, head.tenant), (head, 0, 0))
                if self._series_seen.get((partition, head.tenant), (head,))[0] is not head:
                    made = gone = 0
                now_made, now_gone = head.created_count, head.created_count - head.live_count
                created[head.tenant] = created.get(head.tenant, 0) + now_made - made
                removed[head.tenant] = removed.get(head.tenant, 0) + now_gone - gone
                self._series_seen[partition, head.tenant] = (head, now_made, now_gone)
            self._metrics.head_bytes(partition, sum(head.nbytes for head in heads))
        self._metrics.memory(
            series=series, tenants=len(tenants), metadata=self._metadata.count(), created=created, removed=removed
        )


def _state_of(consumer: PartitionConsumer) -> PartitionState:
    if consumer.state is None:
        raise LogUnavailable(f"partition {consumer.partition} is recovering")
    return consumer.state


def _released(consumer: PartitionConsumer, tenant: str) -> PartitionCut | None:
    released = _state_of(consumer).released
    if not released:
        return None
    blocks = tuple(block for cut in released for block in cut.blocks if block.tenant == tenant)
    return PartitionCut(consumer.partition, released[-1].cut_offset, blocks)
