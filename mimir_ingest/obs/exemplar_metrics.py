"""Metrics of the exemplars in memory, under the names of Prometheus's storage of them (spec: ingest storage, 9.11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

_PREFIX = "cortex_ingester_tsdb_exemplar_"


@dataclass(frozen=True)
class ExemplarMetrics:
    """What an ingester took and keeps."""

    appended: Counter
    in_storage: Gauge
    series: Gauge
    newest: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry) -> ExemplarMetrics:
        """Register the `cortex_ingester_tsdb_exemplar_*` family."""

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, labels, registry=registry)

        return cls(
            appended=Counter(f"{_PREFIX}exemplars_appended_total", "Exemplars that were taken.", registry=registry),
            in_storage=gauge("exemplars_in_storage", "Exemplars in memory."),
            series=gauge("series_with_exemplars_in_storage", "Series with exemplars in memory.", "user"),
            newest=gauge("last_exemplars_timestamp_seconds", "Time (Unix seconds) of the newest exemplar.", "user"),
        )

    def show(self, held: Mapping[str, tuple[int, int, int]]) -> None:
        """Set the gauges; `held` has a tenant's exemplars, series and newest time (ms). Others' gauges go."""
        self.in_storage.set(sum(count for count, _, _ in held.values()))
        for gauge in (self.series, self.newest):
            for (tenant,) in [values for values in list(gauge._metrics) if values[0] not in held]:
                gauge.remove(tenant)
        for tenant, (_, series, newest_ms) in held.items():
            self.series.labels(tenant).set(series)
            self.newest.labels(tenant).set(newest_ms / 1000)
