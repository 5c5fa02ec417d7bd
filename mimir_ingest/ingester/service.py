"""The ingester: one consumer a partition, and the answers that queries and admin pages get from them.

`own` says which partitions it consumes, and may be called again at any time; it returns before anything is recovered,
and `ready_reason` tells what recovery and catching up still lack. Partitions fail alone: a read concerns those that it
asks for. Queries run in threads of their own over immutable views, so that consuming and answering do not wait for
each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import LogUnavailable
from mimir_ingest.ingester.active_series import CustomTrackers
from mimir_ingest.ingester.census import CensusAsk, CensusPart, TenantTotals, count_partition, join_parts, total_tenants
from mimir_ingest.ingester.consumer import PartitionConsumer
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.exemplars import ExemplarStore, SeriesExemplars
from mimir_ingest.ingester.head_answer import HeadAnswer, PartitionCut, describe, released_cut, state_of
from mimir_ingest.ingester.ingestion_rates import IngestionRates
from mimir_ingest.ingester.knobs import (
    STALLED_AFTER_S,
    STRONG_READ_TIMEOUT_S,
    TRIM_DELAY_S,
    ConsumerKnobs,
    TrackingKnobs,
)
from mimir_ingest.ingester.lag import PartitionLag, read_lag
from mimir_ingest.ingester.metadata import FamilyMetadata, MetadataLimits, MetadataStore
from mimir_ingest.ingester.owned_series import OwnedSeries
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.read_gate import ALL_OWNED, Demand, ReadGate
from mimir_ingest.ingester.reader_health import explain_unready
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.shipping import CutShipper
from mimir_ingest.ingester.tenant_facts import TenantFacts, describe_tenant, describe_tenants, read_published
from mimir_ingest.ingester.upkeep import IngesterUpkeep
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.model.spans import Check, while_wanted
from mimir_ingest.obs.metrics import IngesterMetrics
from mimir_ingest.obs.tenant_metrics import MetricGroups
from mimir_ingest.tsdb.block_meta import MetaFile
from mimir_ingest.tsdb.small_reads import FEW_SERIES
from mimir_ingest.wire.record import RecordSettings
from partitions.ring import PartitionRing

_Answer = TypeVar("_Answer")

_FEW_PARTITIONS = 4
"""What is read on the event loop. why: so little takes at most 1 ms, and going to a thread and back 0.1 to 0.3 ms."""


class Ingester:
    """Owns the heads of some partitions. Used from one event loop; `start`, then anything, then `close`."""

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
        metadata_limits: Callable[[str], MetadataLimits] | None = None,
        max_exemplars: Callable[[str], int] = lambda _: 0,
        groups: MetricGroups | None = None,
        group_label: Callable[[str], str] = lambda _: "",
        tracking: TrackingKnobs | None = None,
        trackers_of: Callable[[str], CustomTrackers] = lambda _: {},
        shard_of: Callable[[str], PartitionRing] | None = None,
        fetch_max_bytes: int = 8 << 20,
        fetch_max_wait_s: float = 1.0,
        append_timeout_s: float = 30.0,
        stalled_after_s: float = STALLED_AFTER_S,
        strong_read_timeout_s: float = STRONG_READ_TIMEOUT_S,
        apply_threads: int = 2,
        query_threads: int = 4,
        ship_concurrency: int = 1,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
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
            stalled_after_s=stalled_after_s,
        )
        self._tracking = tracking or TrackingKnobs()
        self._wall_ms = wall_ms
        self._rates = IngestionRates(period_s=self._tracking.rate_period_s, now_s=time.monotonic())
        self._metrics = ConsumptionMetrics(metrics, self._rates, groups=groups, group_label=group_label)
        self._metadata = MetadataStore(retain_s=metadata_retain_s, limits_of=metadata_limits)
        self._exemplars = ExemplarStore(max_exemplars)
        self._apply_pool = ThreadPoolExecutor(apply_threads, "ingest")
        self._query_pool = ThreadPoolExecutor(query_threads, "head-query")
        self._ship_pool = ThreadPoolExecutor(ship_concurrency, "ship")
        self._consumers: dict[int, PartitionConsumer] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._ending: dict[int, asyncio.Task[None]] = {}
        self._gate = ReadGate(
            self._consumers, partition_log, timeout_s=strong_read_timeout_s, metrics=metrics.strong_reads
        )
        self._changing = asyncio.Lock()
        self._told = False
        self._closed = False
        self._upkeep = IngesterUpkeep(
            self._consumers,
            in_thread=self._in_thread,
            metrics=self._metrics,
            series_metrics=metrics.active_series,
            rates=self._rates,
            metadata=self._metadata,
            exemplars=self._exemplars,
            tracking=self._tracking,
            trackers_of=trackers_of,
            active_since_ms=self._active_since_ms,
            max_series_of=lambda tenant: default_record_settings(tenant).max_series,
            owned_series=OwnedSeries(metrics.active_series.owned_series, shard_of) if shard_of else None,
        )

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin the upkeep; nothing is consumed before `own`."""
        await self._upkeep.start()

    async def own(self, partitions: Collection[int]) -> None:
        """Consume exactly these partitions; the log must be started.

        New ones begin, and are recovered in the background. Those that are not named any more refuse reads at once;
        they are ended, a snapshot kept, before this returns. The process is ready once the partitions of the first
        call have caught up; later ones join in without changing that. Does nothing after `close`.
        """
        async with self._changing:
            if self._closed:
                return
            await self._ended([])
            for partition in sorted(set(partitions) - set(self._consumers)):
                self._begin(partition)
            self._told = True
            gone = [self._consumers.pop(p) for p in sorted(set(self._consumers) - set(partitions))]
            await self._ended(gone)

    def _begin(self, partition: int) -> None:
        consumer = self._consumers[partition] = PartitionConsumer(
            partition,
            self._log,
            CutShipper(self._bucket, self._catalog, self._log.topic_id, partition),
            knobs=self._knobs,
            settings=self._settings,
            default_record_settings=self._default_record_settings,
            executor=self._apply_pool,
            ship_executor=self._ship_pool,
            metadata=self._metadata,
            exemplars=self._exemplars,
            metrics=self._metrics,
            joining=self._told,
        )
        self._runs[partition] = asyncio.create_task(consumer.run(), name=f"partition-{partition}")

    async def _ended(self, consumers: Sequence[PartitionConsumer]) -> None:
        """End consumers, all the way even if the call is cancelled."""
        for consumer in consumers:
            self._ending[consumer.partition] = asyncio.create_task(self._end(consumer), name="consumer-end")
        if self._ending:
            await asyncio.wait(self._ending.values())
            self._ending.clear()

    async def _end(self, consumer: PartitionConsumer) -> None:
        await consumer.stop()
        await asyncio.wait([self._runs.pop(consumer.partition)])
        await consumer.finish()
        self._exemplars.forget(consumer.partition)
        self._metrics.let_go(consumer.partition)

    async def close(self) -> None:
        """Stop consuming, keep snapshots, refuse queries from now on. Idempotent."""
        self._closed = True
        async with self._changing:
            await self._upkeep.close()
            await self._ended([c for p, c in self._consumers.items() if p in self._runs])
        for pool in (self._apply_pool, self._query_pool, self._ship_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    # --- what it has ------------------------------------------------------------------------------------------------

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that are consumed."""
        return frozenset(self._consumers)

    def consumer(self, partition: int) -> PartitionConsumer | None:
        """Return a partition's consumer, None if it is not owned."""
        return self._consumers.get(partition)

    async def wait_caught_up(self) -> None:
        """Return once every partition consumed now has caught up, or cannot any more."""
        await asyncio.gather(*(c.wait_caught_up() for c in self._consumers.values()), return_exceptions=True)

    def ready_reason(self) -> str | None:
        """Return why the process cannot be relied on, a reason a partition, or None."""
        if self._closed:
            return "the ingester is stopped"
        if not self._told:
            return "the ingester is not started"
        stalled_after_s = self._knobs.stalled_after_s + self._knobs.fetch_max_wait_s
        reasons = (explain_unready(c.facts, stalled_after_s=stalled_after_s) for c in self._consumers.values())
        return "; ".join(reason for reason in reasons if reason is not None) or None

    def partition_states(self) -> list[dict[str, int | str | list | None]]:
        """Return a row a partition for status pages."""
        return [describe(consumer) for _, consumer in sorted(self._consumers.items())]

    def tenants(self) -> list[str]:
        """Return the tenants with series in memory, ascending."""
        names = set()
        for consumer in self._consumers.values():
            if consumer.state is not None:
                names |= {t for t, head in list(consumer.state.heads.items()) if head.live_count}
        return sorted(names)

    async def lags(self, tenant: str) -> list[PartitionLag]:
        """Return how far each partition is behind the log, and what of a tenant's is pending. Raises LogUnavailable."""
        reached = [(p, c.state.next_offset) for p, c in sorted(self._consumers.items()) if c.state is not None]
        return await asyncio.gather(*(read_lag(self._log, p, offset, tenant) for p, offset in reached))

    # --- queries ----------------------------------------------------------------------------------------------------

    async def select(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget | None = None,
        *,
        demand: Demand = ALL_OWNED,
        newest_only: bool = False,
    ) -> HeadAnswer:
        """Return a tenant's samples in `[start_ms, end_ms)`; with `newest_only` perhaps but the newest of each series.

        Raises LogUnavailable for a partition that cannot be read, ReadConsistencyUnmet, QueryError for more samples
        than the budget has.
        """

        def one(consumer: PartitionConsumer, _: Check) -> tuple[int, list[SeriesSamples], PartitionCut | None]:
            state = state_of(consumer)
            next_offset = state.next_offset
            view = state.view(tenant, matchers)
            # After the view: what was released before it is named here, what is released now is still in it.
            cut = released_cut(consumer, tenant)
            return next_offset, view.select(matchers, start_ms, end_ms, budget, newest_only=newest_only), cut

        consumers = await self._admit(demand)
        few = self._select_few(consumers, tenant, matchers, (start_ms, end_ms), budget)
        return self._answer(consumers, await self._ask(consumers, one)) if few is None else few

    def select_now(
        self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int, budget: SampleBudget, demand: Demand
    ) -> HeadAnswer | None:
        """Return what `select` does if that needs no waiting and so little is read that a thread would cost more.

        Else None; then nothing was taken from the budget. Raises QueryError.
        """
        consumers = None if self._closed or not self._told else self._gate.at_hand(demand)
        if consumers is None:
            return None
        return self._select_few(consumers, tenant, matchers, (start_ms, end_ms), budget)

    def _select_few(
        self,
        consumers: Sequence[PartitionConsumer],
        tenant: str,
        matchers: Sequence[Matcher],
        times: tuple[int, int],
        budget: SampleBudget | None,
    ) -> HeadAnswer | None:
        if len(consumers) > _FEW_PARTITIONS:
            return None
        ready = []
        for consumer in consumers:
            state = state_of(consumer)
            next_offset = state.next_offset
            view = state.view_now(tenant, matchers)
            found = None if view is None else view.find_few(FEW_SERIES)
            if view is None or found is None:
                return None
            # After the view: what was released before it is named here, what is released now is still in it.
            ready.append((next_offset, view, found, released_cut(consumer, tenant)))
        answers = []
        for next_offset, view, found, cut in ready:
            answers.append((next_offset, view.select(matchers, *times, budget, found=found), cut))
        return self._answer(consumers, answers)

    def _answer(
        self,
        consumers: Sequence[PartitionConsumer],
        answers: Sequence[tuple[int, list[SeriesSamples], PartitionCut | None]],
    ) -> HeadAnswer:
        """Join what partitions gave: how far each goes, its series, and what it has let go of."""
        joined = HeadAnswer([], [], {})
        series = samples = 0
        for consumer, (next_offset, found, cut) in zip(consumers, answers, strict=True):
            joined.next_offsets[consumer.partition] = next_offset
            if cut is not None:
                joined.cuts.append(cut)
            joined.series.extend(found)
            for part in found:
                series += part.series_count
                samples += len(part.timestamps)
                if part.histograms is not None:
                    samples += part.histogram_count
        self._metrics.queried(series, samples)
        return joined

    async def label_frame(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        *,
        demand: Demand = ALL_OWNED,
    ) -> list[LabelFrame]:
        """Return the label sets with a sample in `[start_ms, end_ms)`; a set may occur in several frames.

        What the answer contains at least is what `next_offsets` said before; what it lacks, `cuts` says afterwards.
        Raises LogUnavailable, ReadConsistencyUnmet.
        """

        def one(consumer: PartitionConsumer, check: Check) -> list[LabelFrame]:
            return state_of(consumer).view(tenant, matchers).label_frames(matchers, start_ms, end_ms, check)

        consumers = await self._admit(demand)
        return [frame for frames in await self._ask(consumers, one) for frame in frames]

    async def metadata(self, tenant: str, *, demand: Demand = ALL_OWNED) -> dict[str, list[FamilyMetadata]]:
        """Return family → its distinct metadata items, of all partitions consumed here (items are not kept apart).

        Raises LogUnavailable for a partition asked for that cannot be read, ReadConsistencyUnmet.
        """
        await self._admit(demand)
        return self._metadata.of(tenant)

    async def exemplars(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        *,
        demand: Demand = ALL_OWNED,
    ) -> list[SeriesExemplars]:
        """Return the exemplars in `[start_ms, end_ms)` of the series that satisfy all matchers.

        Raises LogUnavailable for a partition that cannot be read, ReadConsistencyUnmet.
        """
        consumers = await self._admit(demand)
        asked = {consumer.partition for consumer in consumers}
        with while_wanted() as check:
            found = await self._in_thread(self._exemplars.select, tenant, matchers, start_ms, end_ms, asked, check)
        self._metrics.queried_exemplars(sum(len(series.exemplars) for series in found))
        return found

    async def census(
        self, tenant: str, matchers: Sequence[Matcher], ask: CensusAsk, *, demand: Demand = ALL_OWNED
    ) -> CensusPart:
        """Count a tenant's series in memory; those that satisfy all matchers in detail.

        Raises LogUnavailable for a partition that cannot be read, ReadConsistencyUnmet, QueryError for an answer over
        its bound.
        """
        consumers = await self._admit(demand)
        since_ms = self._active_since_ms()
        parts = await self._ask(
            consumers, lambda c, k: count_partition(state_of(c), tenant, matchers, ask, since_ms, k)
        )
        return join_parts(parts, self._rates.of(tenant, [c.partition for c in consumers]), ask.kind)

    def _active_since_ms(self) -> int:
        return self._wall_ms() - round(self._tracking.idle_timeout_s * 1000)

    def tenant_totals(self) -> dict[str, TenantTotals]:
        """Return tenant → series and rates in the partitions consumed here, whether or not they have caught up."""
        return total_tenants(self._states(), self._rates)

    async def tenant_facts(self) -> list[TenantFacts]:
        """Return what is here of every tenant, ascending."""
        return await self._in_thread(describe_tenants, self._states())

    async def facts_of(self, tenant: str) -> TenantFacts | None:
        """Return what is here of a tenant, None if nothing."""
        return await self._in_thread(describe_tenant, self._states(), tenant)

    async def published(self, facts: TenantFacts) -> list[tuple[MetaFile, int]]:
        """Return a tenant's recent blocks that are in the bucket, and when (ms) they came. Raises StoreUnavailable."""
        return await self._in_thread(read_published, self._bucket, facts.blocks)

    async def _in_thread(self, function: Callable[..., _Answer], *args: Any) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._query_pool, function, *args)

    def _states(self) -> dict[int, PartitionState]:
        return {p: c.state for p, c in sorted(self._consumers.items()) if c.state is not None}

    async def _admit(self, demand: Demand) -> list[PartitionConsumer]:
        if self._closed or not self._told:
            raise LogUnavailable(f"the ingester cannot answer: {self.ready_reason()}")
        return await self._gate.admit(demand)

    async def _ask(
        self, consumers: Sequence[PartitionConsumer], one: Callable[[PartitionConsumer, Check], _Answer]
    ) -> list[_Answer]:
        """Return what `one` says of each in a thread; its check raises once nobody waits for the answer."""
        with while_wanted() as check:
            return await asyncio.gather(*(self._in_thread(one, c, check) for c in consumers))

    def cuts(self, tenant: str, partitions: Collection[int] | None = None) -> list[PartitionCut]:
        """Return what each partition (of these) no longer serves of a tenant."""
        consumers = [c for p, c in self._consumers.items() if partitions is None or p in partitions]
        found = [released_cut(consumer, tenant) for consumer in consumers if consumer.caught_up]
        return [cut for cut in found if cut is not None]

    def next_offsets(self, partitions: Collection[int] | None = None) -> dict[int, int]:
        """Return partition → first offset not applied, of those (of these) that have caught up."""
        return {
            p: c.state.next_offset
            for p, c in self._consumers.items()
            if (partitions is None or p in partitions) and c.caught_up and c.state is not None
        }

    # --- commands ---------------------------------------------------------------------------------------------------

    async def flush(
        self, tenants: list[str] | None, wait: bool, partitions: Collection[int] | None = None
    ) -> dict[int, int]:
        """Cut everything held (of some tenants) at a record appended now to every partition (of these).

        With `wait`, return once all of it is in blocks whose checkpoints were read back. Returns partition → offset of
        the record. Raises LogUnavailable, after every partition that can be flushed was.
        """
        consumers = [c for p, c in self._consumers.items() if partitions is None or p in partitions]

        async def one(consumer: PartitionConsumer) -> int:
            offset = await consumer.append_flush(tenants)
            if wait:
                await consumer.wait_shipped(offset)
            return offset

        outcomes = await asyncio.gather(*(one(c) for c in consumers), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return {c.partition: offset for c, offset in zip(consumers, outcomes, strict=True)}

    async def wait_consumed(self, partition: int, next_offset: int, timeout_s: float) -> None:
        """Return once the partition's records below `next_offset` can be queried. Raises LogUnavailable in time-out."""
        consumer = self._consumers.get(partition)
        if consumer is None:
            raise LogUnavailable(f"partition {partition} is not owned here")
        await self._gate.wait_consumed(consumer, next_offset, timeout_s)
