"""What an ingester does now and then: it forgets what is over, and shows in gauges what it holds.

With ten thousand tenants a look at all of them takes a fifth of a second, so looks are in threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mimir_ingest.ingester.active_series import ActiveSeriesGauges, CustomTrackers, count_active
from mimir_ingest.ingester.consumer import PartitionConsumer
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.exemplars import ExemplarStore
from mimir_ingest.ingester.head_gauges import HeadGauges
from mimir_ingest.ingester.ingestion_rates import IngestionRates
from mimir_ingest.ingester.knobs import TrackingKnobs
from mimir_ingest.ingester.metadata import MetadataStore
from mimir_ingest.ingester.owned_series import OwnedSeries
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.tenant_facts import describe_tenants
from mimir_ingest.obs.active_series_metrics import ActiveSeriesMetrics

_UPKEEP_S = 5.0
"""why: gauges are scraped every 15 s; the series counts cost microseconds a tenant."""


class IngesterUpkeep:
    """Owns the tasks. `start`, then `close`."""

    def __init__(
        self,
        consumers: Mapping[int, PartitionConsumer],
        *,
        in_thread: Callable[..., Awaitable[Any]],
        metrics: ConsumptionMetrics,
        series_metrics: ActiveSeriesMetrics,
        rates: IngestionRates,
        metadata: MetadataStore,
        exemplars: ExemplarStore,
        tracking: TrackingKnobs,
        trackers_of: Callable[[str], CustomTrackers],
        active_since_ms: Callable[[], int],
        max_series_of: Callable[[str], int],
        owned_series: OwnedSeries | None,
    ) -> None:
        """`in_thread(function, *arguments)` runs one in a thread; `max_series_of` is a tenant's limit a partition."""
        self._consumers, self._in_thread = consumers, in_thread
        self._metrics, self._series_metrics, self._rates = metrics, series_metrics, rates
        self._metadata, self._exemplars = metadata, exemplars
        self._tracking, self._trackers_of, self._active_since_ms = tracking, trackers_of, active_since_ms
        self._max_series_of, self._owned_series = max_series_of, owned_series
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._look(), name="ingester-upkeep")]
        if self._tracking.metrics_enabled:
            self._tasks.append(asyncio.create_task(self._show_active(), name="active-series"))
        if self._owned_series is not None:
            self._tasks.append(asyncio.create_task(self._show_owned(self._owned_series), name="owned-series"))

    async def close(self) -> None:
        """End. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _states(self) -> dict[int, PartitionState]:
        return {p: c.state for p, c in sorted(self._consumers.items()) if c.state is not None}

    async def _look(self) -> None:
        gauges = HeadGauges(self._metrics)
        while True:
            await asyncio.sleep(min(_UPKEEP_S, self._tracking.rate_period_s))
            self._metadata.purge(now_s=time.monotonic())
            self._rates.tick(time.monotonic())
            states = {partition: consumer.state for partition, consumer in self._consumers.items()}
            await self._in_thread(self._show_heads, gauges, states)

    def _show_heads(self, gauges: HeadGauges, states: Mapping[int, PartitionState | None]) -> None:
        """Show what is held, and forget what belongs to tenants that are not known any more."""
        self._exemplars.keep({p: frozenset(list(state.heads)) for p, state in states.items() if state})
        gauges.update(states, metadata_count=self._metadata.count(), exemplars=self._exemplars.held())
        for tenant in {tenant for state in states.values() if state for tenant in list(state.heads)}:
            self._metrics.local_limit(tenant, len(states) * self._max_series_of(tenant))

    async def _show_active(self) -> None:
        gauges = ActiveSeriesGauges(self._series_metrics)
        while True:
            await asyncio.sleep(self._tracking.update_period_s)
            states, since_ms = self._states(), self._active_since_ms()
            counts = await self._in_thread(count_active, [*states.values()], self._trackers_of, since_ms)
            facts = await self._in_thread(describe_tenants, states)
            await self._in_thread(gauges.show, counts, facts)

    async def _show_owned(self, owned: OwnedSeries) -> None:
        while True:
            await asyncio.sleep(self._tracking.owned_period_s)
            states = self._states()
            counts = await self._in_thread(owned.count, states, owned.shards(states))
            await self._in_thread(owned.show, counts)
