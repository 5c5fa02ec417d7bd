"""One tenant's children of the distributor's metrics, looked up once; and what each request adds to them."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from mimir_ingest.distributor.formats import OtlpMetrics, WriteFormat
from mimir_ingest.distributor.plan import PlannedWrite
from mimir_ingest.distributor.rate_limit import RATE_LIMITED
from mimir_ingest.obs.metrics import DistributorMetrics
from mimir_ingest.obs.tenant_metrics import MetricGroups
from mimir_ingest.wire.remote_write_v1 import DecodedWrite

OTLP_PARSE_ERROR = "otlp_parse_error"
"""Discard reason of OTLP metrics that cannot be converted; they are counted, not their data points."""


@dataclass(slots=True)
class TenantCounters:
    """`count_in` may be called from any thread, `count_planned` from the event loop."""

    metrics: DistributorMetrics
    tenant: str
    groups: MetricGroups
    samples_in: Counter
    received_requests: Counter
    received_samples: Counter
    latest_seen: Gauge
    samples_per_request: Histogram
    newest_ms: int = 0
    """Largest valid timestamp so far."""
    seen_s: float = 0.0
    """Monotonic seconds of the last request."""

    @classmethod
    def create(cls, metrics: DistributorMetrics, tenant: str, groups: MetricGroups) -> TenantCounters:
        """Look up the children that every request needs."""
        return cls(
            metrics,
            tenant,
            groups,
            metrics.samples_in.labels(tenant),
            metrics.received_requests.labels(tenant),
            metrics.received_samples.labels(tenant),
            metrics.latest_seen_sample_timestamp_seconds.labels(tenant),
            metrics.samples_per_request.labels(tenant),
        )

    def count_in(self, write: DecodedWrite, written: WriteFormat, *, compressed: int, decompressed: int) -> None:
        """Count a request as it came in; sizes in bytes."""
        metrics, metadata = self.metrics, len(write.batch.metadata)
        samples = write.batch.sample_count + write.histogram_count
        metrics.requests_in.labels(self.tenant, written.version).inc()
        self.samples_in.inc(samples)
        self.samples_per_request.observe(samples)
        metrics.uncompressed_request_body_size_bytes.labels(self.tenant, written.handler).observe(decompressed)
        if isinstance(written, OtlpMetrics):
            metrics.otlp_requests_by_content_type.labels(written.content_type).inc()
        if written.version == "influx":
            metrics.influx_requests.labels(self.tenant).inc()
            metrics.influx_uncompressed_request_body_size_bytes.labels(self.tenant).observe(decompressed)
        if compressed:
            metrics.request_body_compression_ratio.observe(decompressed / compressed)
        if metadata:
            metrics.metadata_in.labels(self.tenant).inc(metadata)
        if (points := write.data_points) is not None:
            metrics.otlp_requests.labels(self.tenant).inc()
            for name, lengths in points.array_lengths.items():
                observe = metrics.otlp_array_lengths.labels(name).observe
                for length in lengths:
                    observe(length)
            if points.unconverted_metrics:
                metrics.discarded_samples.labels(self.tenant, "", OTLP_PARSE_ERROR).inc(points.unconverted_metrics)
        if write.exemplar_count:
            metrics.exemplars_in.labels(self.tenant).inc(write.exemplar_count)
            metrics.exemplars_per_request.labels(self.tenant).observe(write.exemplar_count)

    def count_planned(self, planned: PlannedWrite, *, now_ms: int) -> None:
        """Count what was decided about a request."""
        metrics, tenant = self.metrics, self.tenant
        group = self.groups.of(tenant, planned.group)
        for reason, count in planned.discarded_samples.items():
            metrics.discarded_samples.labels(tenant, group, reason).inc(count)
        for reason, count in planned.discarded_metadata.items():
            metrics.discarded_metadata.labels(tenant, reason).inc(count)
        for reason, count in planned.discarded_exemplars.items():
            metrics.discarded_exemplars.labels(tenant, reason).inc(count)
        if planned.dropped_histograms:
            metrics.dropped_native_histograms.labels(tenant).inc(planned.dropped_histograms)
        if planned.newest_ms is not None:
            if planned.newest_ms > self.newest_ms:
                self.newest_ms = planned.newest_ms
                self.latest_seen.set(planned.newest_ms / 1000)
            metrics.sample_delay_seconds.observe((now_ms - planned.newest_ms) / 1000)
        if planned.rejected:
            if planned.samples or planned.histograms:
                metrics.discarded_samples.labels(tenant, group, RATE_LIMITED).inc(planned.samples + planned.histograms)
            if planned.exemplars:
                metrics.discarded_exemplars.labels(tenant, RATE_LIMITED).inc(planned.exemplars)
            if planned.metadata:
                metrics.discarded_metadata.labels(tenant, RATE_LIMITED).inc(planned.metadata)
            return
        if planned.records:
            self.received_requests.inc()
            self.received_samples.inc(planned.samples + planned.histograms)
            if planned.histograms:
                metrics.received_native_histogram_samples.labels(tenant).inc(planned.histograms)
                metrics.received_native_histogram_buckets.labels(tenant).inc(planned.histogram_buckets)
            if planned.exemplars:
                metrics.received_exemplars.labels(tenant).inc(planned.exemplars)
            if planned.metadata:
                metrics.received_metadata.labels(tenant).inc(planned.metadata)
