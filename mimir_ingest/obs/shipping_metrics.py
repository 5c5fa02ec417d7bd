"""Metrics of cuts, their way into the bucket, and snapshots (spec: ingest storage, 9.11)."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from mimir_ingest.obs.histograms import Histogram

_CUT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Of Prometheus's histogram of that name."""


@dataclass(frozen=True)
class ShippingMetrics:
    """What an ingester makes durable."""

    compactions_triggered: Counter
    compactions: Counter
    compactions_failed: Counter
    compaction_duration: Histogram
    uploads: Counter
    upload_failures: Counter
    last_successful_upload: Gauge
    oldest_unshipped_block: Gauge
    snapshots: Counter
    snapshot_failures: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> ShippingMetrics:
        """Register the metrics."""

        def counter(name: str, text: str) -> Counter:
            return Counter(f"cortex_ingester_{name}_total", text, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"cortex_ingester_{name}_timestamp_seconds", text, registry=registry)

        return cls(
            compactions_triggered=counter("tsdb_compactions_triggered", "Cuts that were begun."),
            compactions=counter("tsdb_compactions", "Cuts whose blocks are in the bucket."),
            compactions_failed=counter("tsdb_compactions_failed", "Attempts at a cut that failed."),
            compaction_duration=Histogram(
                "cortex_ingester_tsdb_compaction_duration_seconds",
                "Time (s) from a cut point until the cut's blocks are in the bucket.",
                buckets=_CUT_BUCKETS,
                registry=registry,
            ),
            uploads=counter("shipper_uploads", "Blocks that were uploaded."),
            upload_failures=counter("shipper_upload_failures", "Attempts to ship a cut that failed."),
            last_successful_upload=gauge("shipper_last_successful_upload", "Time (Unix seconds) of the last upload."),
            oldest_unshipped_block=gauge(
                "oldest_unshipped_block", "Time (Unix seconds) when the oldest cut that is in no block began; 0: none."
            ),
            snapshots=counter("snapshots", "Snapshots that were written."),
            snapshot_failures=counter("snapshot_failures", "Snapshots that failed."),
        )
