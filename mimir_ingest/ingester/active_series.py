"""Active series: gauges of the series that got a sample within the idle timeout, and of custom trackers among them.

They are counted anew at every update, so that a tracker that was just configured counts at once, and nothing is kept
besides the heads' columns. Source: spec ingest-storage.md 9.8.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from prometheus_client import Gauge

from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.tenant_facts import TenantFacts
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.obs.active_series_metrics import ActiveSeriesMetrics
from mimir_ingest.tsdb.census import SeriesTotals
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS

CustomTrackers = Mapping[str, tuple[Matcher, ...]]
"""Tracker's name → what its series satisfy."""


@dataclass(frozen=True, slots=True)
class ActiveTotals:
    """A tenant's active series in all partitions."""

    all: SeriesTotals
    tracked: Mapping[str, SeriesTotals]


def count_active(
    states: Collection[PartitionState], trackers_of: Callable[[str], CustomTrackers], since_ms: int
) -> dict[str, ActiveTotals]:
    """Return tenant → its series with a sample at `since_ms` (record time) or later. Any thread."""
    found: dict[str, ActiveTotals] = {}
    for state in states:
        for tenant, head in list(state.heads.items()):
            trackers = trackers_of(tenant)
            census = head.census([m for matchers in trackers.values() for m in matchers])
            known = found.get(tenant, ActiveTotals(SeriesTotals(), {}))
            totals = census.totals(census.select((), since_ms))
            if not totals.series:
                continue
            tracked = {
                name: known.tracked.get(name, SeriesTotals()).plus(census.totals(census.select(matchers, since_ms)))
                for name, matchers in trackers.items()
            }
            found[tenant] = ActiveTotals(known.all.plus(totals), {**known.tracked, **tracked})
    return found


class ActiveSeriesGauges:
    """Shows counts, and takes away what has none any more."""

    def __init__(self, metrics: ActiveSeriesMetrics) -> None:
        self._metrics = metrics
        self._shown: set[tuple[Gauge, tuple[str, ...]]] = set()

    def show(self, counts: Mapping[str, ActiveTotals], heads: Collection[TenantFacts]) -> None:
        """Set the gauges of all tenants; those of tenants and trackers without series go.

        `heads` are all tenants', for their times.
        """
        self._metrics.head_min_seconds.set(min((f.min_ms for f in heads if f.min_ms != MAX_MS), default=0) / 1000)
        self._metrics.head_max_seconds.set(max((f.max_ms for f in heads if f.max_ms != MIN_MS), default=0) / 1000)
        metrics = self._metrics
        now: dict[tuple[Gauge, tuple[str, ...]], int] = {}
        for tenant, found in counts.items():
            now[metrics.series, (tenant,)] = found.all.series
            now[metrics.otlp_series, (tenant,)] = found.all.otlp
            now[metrics.histogram_series, (tenant,)] = found.all.histograms
            now[metrics.histogram_buckets, (tenant,)] = found.all.buckets
            for name, totals in found.tracked.items():
                now[metrics.tracked_series, (tenant, name)] = totals.series
                now[metrics.tracked_histogram_series, (tenant, name)] = totals.histograms
                now[metrics.tracked_histogram_buckets, (tenant, name)] = totals.buckets
        shown = {key: value for key, value in now.items() if value}
        for gauge, labels in self._shown - shown.keys():
            gauge.remove(*labels)
        for (gauge, labels), value in shown.items():
            gauge.labels(*labels).set(value)
        self._shown = set(shown)
