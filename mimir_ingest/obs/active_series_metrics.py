"""Metrics of the series in memory that are counted now and then (spec: ingest storage, 9.7, 9.8 and 9.11)."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge


@dataclass(frozen=True)
class ActiveSeriesMetrics:
    """Gauges by tenant, and by the tenant's custom trackers; a tenant or tracker without series has none."""

    series: Gauge
    otlp_series: Gauge
    histogram_series: Gauge
    histogram_buckets: Gauge
    tracked_series: Gauge
    tracked_histogram_series: Gauge
    tracked_histogram_buckets: Gauge
    owned_series: Gauge
    head_min_seconds: Gauge
    head_max_seconds: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry) -> ActiveSeriesMetrics:
        """Register the `cortex_ingester_active_*` family, owned series and the times of the heads."""

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cortex_ingester_active_{name}", text, ["user", *labels], registry=registry)

        return cls(
            series=gauge("series", "Series that got a sample lately."),
            otlp_series=gauge("otlp_series", "Active series whose last sample came by OTLP."),
            histogram_series=gauge("native_histogram_series", "Active series of native histograms."),
            histogram_buckets=gauge("native_histogram_buckets", "Buckets of active native histograms."),
            tracked_series=gauge("series_custom_tracker", "Active series that a custom tracker selects.", "name"),
            tracked_histogram_series=gauge(
                "native_histogram_series_custom_tracker", "Active native histograms that a tracker selects.", "name"
            ),
            tracked_histogram_buckets=gauge(
                "native_histogram_buckets_custom_tracker", "Buckets of the histograms that a tracker selects.", "name"
            ),
            owned_series=Gauge(
                "cortex_ingester_owned_series",
                "Series in memory whose tokens the ring gives to the partition that they are in.",
                ["user"],
                registry=registry,
            ),
            head_min_seconds=Gauge(
                "cortex_ingester_tsdb_head_min_timestamp_seconds",
                "Oldest sample of all tenants that is in no block yet (Unix seconds).",
                registry=registry,
            ),
            head_max_seconds=Gauge(
                "cortex_ingester_tsdb_head_max_timestamp_seconds",
                "Newest sample of all tenants that is in no block yet (Unix seconds).",
                registry=registry,
            ),
        )
