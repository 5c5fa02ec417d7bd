"""The catalogue of metric names: every metric of this program is declared here and nowhere else.

One frozen dataclass a component, built once from a `CollectorRegistry` by its `create` classmethod and passed down by
the composition root. Names, labels and meanings are Mimir's where the metric is the same; per-tenant metrics carry the
label `user`. A component never registers a metric of its own and never touches the default global registry.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from mimir_ingest.obs.active_series_metrics import ActiveSeriesMetrics
from mimir_ingest.obs.exemplar_metrics import ExemplarMetrics
from mimir_ingest.obs.histograms import Histogram
from mimir_ingest.obs.memory_map_metrics import MemoryMapCollector
from mimir_ingest.obs.shipping_metrics import ShippingMetrics
from mimir_ingest.obs.tsdb_metrics import OutOfOrderDeltas

REQUEST_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)
"""Upper bounds (seconds) of request durations; those of Mimir's server library."""

BYTES_BUCKETS = tuple(float(1 << power) for power in range(10, 28, 2))
"""Upper bounds (bytes) of body sizes: 1 KiB to 64 MiB."""


def new_registry() -> CollectorRegistry:
    """Return an empty registry for one process, without `_created` series (Mimir has none)."""
    disable_created_metrics()
    return CollectorRegistry()


@dataclass(frozen=True)
class ProcessMetrics:
    """The process itself: build information, and what prometheus-client collects about process, platform and GC."""

    build_info: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry, *, version: str, revision: str, branch: str) -> ProcessMetrics:
        """Register `process_*`, `python_*` and `cortex_build_info` (always 1)."""
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        MemoryMapCollector(registry)
        build_info = Gauge(
            "cortex_build_info",
            "Constant 1, labelled by version, revision and branch of the build and by the runtime's version.",
            ["version", "revision", "branch", "goversion"],
            registry=registry,
        )
        runtime = f"python{platform.python_version()}"
        build_info.labels(version=version, revision=revision, branch=branch, goversion=runtime).set(1)
        return cls(build_info=build_info)


@dataclass(frozen=True)
class ServerMetrics:
    """The HTTP server."""

    request_duration_seconds: Histogram
    inflight_requests: Gauge
    request_message_bytes: Histogram
    response_message_bytes: Histogram

    @classmethod
    def create(cls, registry: CollectorRegistry) -> ServerMetrics:
        """Register the `cortex_request_*` family."""
        return cls(
            request_duration_seconds=Histogram(
                "cortex_request_duration_seconds",
                "Time (seconds) spent serving HTTP requests.",
                ["method", "route", "status_code", "ws"],
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            ),
            inflight_requests=Gauge(
                "cortex_inflight_requests", "Requests being served.", ["method", "route"], registry=registry
            ),
            request_message_bytes=Histogram(
                "cortex_request_message_bytes",
                "Size (bytes) of request bodies as received.",
                ["method", "route"],
                buckets=BYTES_BUCKETS,
                registry=registry,
            ),
            response_message_bytes=Histogram(
                "cortex_response_message_bytes",
                "Size (bytes) of response bodies as sent.",
                ["method", "route"],
                buckets=BYTES_BUCKETS,
                registry=registry,
            ),
        )


@dataclass(frozen=True)
class RuntimeConfigMetrics:
    """Reloading of the runtime configuration file."""

    last_reload_successful: Gauge
    config_hash: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry) -> RuntimeConfigMetrics:
        """Register the `cortex_runtime_config_*` family."""
        return cls(
            last_reload_successful=Gauge(
                "cortex_runtime_config_last_reload_successful",
                "1 if the last reload of the runtime configuration succeeded, else 0.",
                registry=registry,
            ),
            config_hash=Gauge(
                "cortex_runtime_config_hash",
                "Constant 1, labelled by the hash of the runtime configuration in force.",
                ["sha256"],
                registry=registry,
            ),
        )


SAMPLE_DELAY_BUCKETS = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 1800.0, 3600.0, 7200.0, 10800.0, 21600.0, 86400.0)
"""Upper bounds (seconds) of how late samples are; Mimir's."""

WRITE_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)
"""Upper bounds (seconds) of the time until the log has a request."""


@dataclass(frozen=True)
class DistributorMetrics:
    """Write requests from arrival to the partition log (spec: ingest storage, 8.8)."""

    requests_in: Counter
    otlp_requests: Counter
    influx_requests: Counter
    influx_uncompressed_request_body_size_bytes: Histogram
    otlp_requests_by_content_type: Counter
    otlp_array_lengths: Histogram
    samples_in: Counter
    non_ha_samples_received: Counter
    exemplars_in: Counter
    metadata_in: Counter
    received_requests: Counter
    received_samples: Counter
    received_exemplars: Counter
    received_metadata: Counter
    received_native_histogram_samples: Counter
    received_native_histogram_buckets: Counter
    dropped_native_histograms: Counter
    discarded_samples: Counter
    discarded_exemplars: Counter
    discarded_metadata: Counter
    discarded_requests: Counter
    latest_seen_sample_timestamp_seconds: Gauge
    sample_delay_seconds: Histogram
    samples_per_request: Histogram
    exemplars_per_request: Histogram
    uncompressed_request_body_size_bytes: Histogram
    request_body_compression_ratio: Histogram
    inflight_push_requests: Gauge
    inflight_push_requests_bytes: Gauge
    ingestion_rate_samples_per_second: Gauge
    instance_limits: Gauge
    instance_rejected_requests: Counter
    ingest_storage_enabled: Gauge

    @classmethod
    def create(cls, registry: CollectorRegistry) -> DistributorMetrics:
        """Register the `cortex_distributor_*` and the distributor's `cortex_discarded_*` families."""

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cortex_{name}_total", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cortex_distributor_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"cortex_distributor_{name}", text, labels, buckets=buckets, registry=registry)

        counts = tuple(float(4**power) for power in range(10))
        return cls(
            requests_in=counter("distributor_requests_in", "Requests that came in.", "user", "version"),
            otlp_requests=counter("distributor_otlp_requests", "OTLP requests that could be read.", "user"),
            influx_requests=counter("distributor_influx_requests", "Influx requests that could be read.", "user"),
            influx_uncompressed_request_body_size_bytes=histogram(
                "influx_uncompressed_request_body_size_bytes", "Size (bytes) of Influx bodies.", BYTES_BUCKETS, "user"
            ),
            otlp_requests_by_content_type=counter(
                "distributor_otlp_requests_by_content_type", "The same by media type.", "content_type"
            ),
            otlp_array_lengths=histogram(
                "otlp_array_lengths", "Elements of the lists in OTLP requests.", counts, "field"
            ),
            samples_in=counter("distributor_samples_in", "Samples that came in, rejected ones included.", "user"),
            non_ha_samples_received=counter(
                "distributor_non_ha_samples_received",
                "Samples without labels of a replica, of tenants that send through several.",
                "user",
            ),
            exemplars_in=counter("distributor_exemplars_in", "Exemplars that came in.", "user"),
            metadata_in=counter("distributor_metadata_in", "Metadata items that came in.", "user"),
            received_requests=counter("distributor_received_requests", "Requests within the rate limits.", "user"),
            received_samples=counter("distributor_received_samples", "Valid samples within the rate limits.", "user"),
            received_exemplars=counter(
                "distributor_received_exemplars", "Valid exemplars within the rate limits.", "user"
            ),
            received_metadata=counter(
                "distributor_received_metadata", "Valid metadata items within the rate limits.", "user"
            ),
            received_native_histogram_samples=counter(
                "distributor_received_native_histogram_samples", "Valid native histograms within the limits.", "user"
            ),
            received_native_histogram_buckets=counter(
                "distributor_received_native_histogram_buckets", "Buckets of these native histograms.", "user"
            ),
            dropped_native_histograms=counter(
                "distributor_dropped_native_histograms", "Native histograms of tenants that store none.", "user"
            ),
            discarded_samples=counter("discarded_samples", "Samples that were discarded.", "user", "group", "reason"),
            discarded_exemplars=counter("discarded_exemplars", "Exemplars that were discarded.", "user", "reason"),
            discarded_metadata=counter("discarded_metadata", "Metadata items that were discarded.", "user", "reason"),
            discarded_requests=counter("discarded_requests", "Requests that were discarded.", "user", "reason"),
            latest_seen_sample_timestamp_seconds=gauge(
                "latest_seen_sample_timestamp_seconds", "Newest sample time received (Unix seconds).", "user"
            ),
            sample_delay_seconds=histogram(
                "sample_delay_seconds",
                "How far (seconds) a request's newest sample lies behind the wall clock.",
                SAMPLE_DELAY_BUCKETS,
            ),
            samples_per_request=histogram("samples_per_request", "Samples of a request.", counts, "user"),
            exemplars_per_request=histogram("exemplars_per_request", "Exemplars of a request.", counts, "user"),
            uncompressed_request_body_size_bytes=histogram(
                "uncompressed_request_body_size_bytes",
                "Size (bytes) of decompressed bodies.",
                BYTES_BUCKETS,
                "user",
                "handler",
            ),
            request_body_compression_ratio=histogram(
                "request_body_compression_ratio",
                "Decompressed size by received size.",
                (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 22.0),
            ),
            inflight_push_requests=gauge("inflight_push_requests", "Push requests being handled."),
            inflight_push_requests_bytes=gauge(
                "inflight_push_requests_bytes", "Bytes, as received and decompressed, of push requests being handled."
            ),
            ingestion_rate_samples_per_second=gauge(
                "ingestion_rate_samples_per_second", "Moving average of the items this process takes a second."
            ),
            instance_limits=gauge("instance_limits", "Limits of this process; 0 is none.", "limit"),
            instance_rejected_requests=counter(
                "distributor_instance_rejected_requests", "Requests over a limit of this process.", "reason"
            ),
            ingest_storage_enabled=gauge("ingest_storage_enabled", "1: writes go to the partition log."),
        )


@dataclass(frozen=True)
class WriterMetrics:
    """Records on their way into the partition log (spec: ingest storage, 2.7)."""

    latency_seconds: Histogram
    sent_bytes: Counter
    input_bytes: Counter
    records_per_write_request: Histogram
    produce_records_enqueued: Counter
    produce_records_failed: Counter

    @classmethod
    def create(cls, registry: CollectorRegistry) -> WriterMetrics:
        """Register the `cortex_ingest_storage_writer_*` family."""
        prefix = "cortex_ingest_storage_writer_"
        return cls(
            latency_seconds=Histogram(
                f"{prefix}latency_seconds",
                "Time (seconds) until the log had all records of a request, or did not.",
                ["outcome"],
                buckets=WRITE_SECONDS_BUCKETS,
                registry=registry,
            ),
            sent_bytes=Counter(f"{prefix}sent_bytes_total", "Bytes of records the log has taken.", registry=registry),
            input_bytes=Counter(f"{prefix}input_bytes_total", "Bytes of records handed to the log.", registry=registry),
            records_per_write_request=Histogram(
                f"{prefix}records_per_write_request",
                "Records that a request became.",
                buckets=tuple(float(1 << power) for power in range(11)),
                registry=registry,
            ),
            produce_records_enqueued=Counter(
                f"{prefix}produce_records_enqueued_total", "Records handed to the log.", registry=registry
            ),
            produce_records_failed=Counter(
                f"{prefix}produce_records_failed_total", "Records the log did not take.", ["reason"], registry=registry
            ),
        )


@dataclass(frozen=True)
class StrongReadMetrics:
    """Reads that wait for offsets (spec: ingest storage, 6.5); shared by all components of a process."""

    requests: Counter
    failures: Counter
    wait_duration_seconds: Histogram
    topic: str
    """Value of the label `topic`."""

    @classmethod
    def create(cls, registry: CollectorRegistry, *, topic: str = "") -> StrongReadMetrics:
        """Register the `cortex_ingest_storage_strong_consistency_*` family."""
        prefix = "cortex_ingest_storage_strong_consistency_"
        return cls(
            requests=Counter(
                f"{prefix}requests_total",
                "Reads with strong consistency.",
                ["component", "with_offset", "topic"],
                registry=registry,
            ),
            failures=Counter(
                f"{prefix}failures_total",
                "Reads with strong consistency that failed while they waited.",
                ["component", "topic"],
                registry=registry,
            ),
            wait_duration_seconds=Histogram(
                f"{prefix}wait_duration_seconds",
                "Time (seconds) that a read with strong consistency waited.",
                ["component", "topic"],
                buckets=REQUEST_SECONDS_BUCKETS,
                registry=registry,
            ),
            topic=topic,
        )


@dataclass(frozen=True)
class IngesterMetrics:
    """Heads, their consumption of the partition log, and shipping (spec: ingest storage, 5.10 and 9.11)."""

    memory_series: Gauge
    local_limits: Gauge
    memory_users: Gauge
    memory_metadata: Gauge
    memory_series_created: Counter
    memory_series_removed: Counter
    ingested_samples: Counter
    ingested_samples_failures: Counter
    out_of_order_samples_appended: Counter
    out_of_order_deltas: OutOfOrderDeltas
    ingested_metadata: Counter
    ingested_metadata_failures: Counter
    discarded_metadata: Counter
    ingested_exemplars: Counter
    ingested_exemplars_failures: Counter
    exemplars: ExemplarMetrics
    discarded_samples: Counter
    held_samples: Gauge
    head_bytes: Gauge
    shipping: ShippingMetrics
    queries: Counter
    queried_series: Histogram
    queried_samples: Histogram
    queried_exemplars: Histogram
    last_consumed_offset: Gauge
    last_committed_offset: Gauge
    offset_commit_requests: Counter
    offset_commit_failures: Counter
    offset_commit_request_duration_seconds: Histogram
    receive_delay_seconds: Histogram
    receive_and_consume_delay_seconds: Histogram
    records_batch_wait_duration_seconds: Histogram
    records_batch_process_duration_seconds: Histogram
    records_per_fetch: Histogram
    fetches: Counter
    fetch_errors: Counter
    records_processing_time_seconds: Histogram
    missed_records: Counter
    requests: Counter
    requests_failed: Counter
    prepare_shutdown_requested: Gauge
    strong_reads: StrongReadMetrics
    active_series: ActiveSeriesMetrics

    @classmethod
    def create(
        cls,
        registry: CollectorRegistry,
        *,
        distributor: DistributorMetrics | None = None,
        strong_reads: StrongReadMetrics | None = None,
    ) -> IngesterMetrics:
        """Register the `cortex_ingester_*` and `cortex_ingest_storage_reader_*` families.

        `distributor` and `strong_reads` are the metrics of the distributor and the querier of the same process, if
        there are such: some names are shared.
        """

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cortex_{name}_total", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"cortex_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"cortex_{name}", text, labels, buckets=buckets, registry=registry)

        counts = tuple(float(4**power) for power in range(12))
        reader = "ingest_storage_reader_"
        return cls(
            memory_series=gauge("ingester_memory_series", "Series in memory."),
            local_limits=gauge("ingester_local_limits", "A tenant's limits here; 0 is none.", "limit", "user"),
            memory_users=gauge("ingester_memory_users", "Tenants with series in memory."),
            memory_metadata=gauge("ingester_memory_metadata", "Metadata items in memory."),
            memory_series_created=counter("ingester_memory_series_created", "Series that were created.", "user"),
            memory_series_removed=counter("ingester_memory_series_removed", "Series that were forgotten.", "user"),
            ingested_samples=counter("ingester_ingested_samples", "Samples accepted.", "user"),
            ingested_samples_failures=counter("ingester_ingested_samples_failures", "Samples rejected.", "user"),
            out_of_order_samples_appended=counter(
                "ingester_tsdb_out_of_order_samples_appended", "Samples accepted out of order.", "user"
            ),
            out_of_order_deltas=OutOfOrderDeltas(registry),
            ingested_exemplars=counter("ingester_ingested_exemplars", "Exemplars that were taken."),
            ingested_exemplars_failures=counter(
                "ingester_ingested_exemplars_failures", "Exemplars that were repeated, too old or of a tenant without."
            ),
            exemplars=ExemplarMetrics.create(registry),
            ingested_metadata=counter("ingester_ingested_metadata", "Metadata items taken.", "user"),
            ingested_metadata_failures=counter(
                "ingester_ingested_metadata_failures", "Metadata items over a limit.", "user"
            ),
            discarded_metadata=distributor.discarded_metadata
            if distributor
            else counter("discarded_metadata", "Metadata items that were discarded.", "user", "reason"),
            discarded_samples=distributor.discarded_samples
            if distributor
            else counter("discarded_samples", "Samples that were discarded.", "user", "group", "reason"),
            held_samples=gauge("ingester_held_samples", "Samples accepted and not cut.", "partition"),
            head_bytes=gauge("ingester_head_bytes", "Bytes of labels, staged samples and chunks.", "partition"),
            shipping=ShippingMetrics.create(registry),
            queries=counter("ingester_queries", "Queries answered."),
            queried_series=histogram("ingester_queried_series", "Series of a query.", counts),
            queried_samples=histogram("ingester_queried_samples", "Samples of a query.", counts),
            queried_exemplars=histogram("ingester_queried_exemplars", "Exemplars of a query for them.", counts),
            last_consumed_offset=gauge(reader + "last_consumed_offset", "Last offset consumed.", "partition"),
            last_committed_offset=gauge(reader + "last_committed_offset", "Last offset committed.", "partition"),
            offset_commit_requests=counter(reader + "offset_commit_requests", "Commits tried.", "partition"),
            offset_commit_failures=counter(reader + "offset_commit_failures", "Commits failed.", "partition"),
            offset_commit_request_duration_seconds=histogram(
                reader + "offset_commit_request_duration_seconds",
                "Time (seconds) of a commit.",
                REQUEST_SECONDS_BUCKETS,
                "partition",
            ),
            receive_and_consume_delay_seconds=histogram(
                reader + "receive_and_consume_delay_seconds",
                "Time (seconds) from a record's stamp until it could be queried.",
                REQUEST_SECONDS_BUCKETS,
            ),
            records_batch_wait_duration_seconds=histogram(
                reader + "records_batch_wait_duration_seconds",
                "Time (seconds) that a fetch with records was waited for.",
                REQUEST_SECONDS_BUCKETS,
            ),
            records_batch_process_duration_seconds=histogram(
                reader + "records_batch_process_duration_seconds",
                "Time (seconds) to apply a fetch, waiting for a cut included.",
                REQUEST_SECONDS_BUCKETS,
            ),
            receive_delay_seconds=histogram(
                reader + "receive_delay_seconds",
                "Time (seconds) from a record's stamp to its receipt.",
                REQUEST_SECONDS_BUCKETS,
                "phase",
            ),
            records_per_fetch=histogram(reader + "records_per_fetch", "Records of a fetch.", counts),
            fetches=counter(reader + "fetches", "Fetches with at least one record."),
            fetch_errors=counter(reader + "fetch_errors", "Fetches that failed."),
            records_processing_time_seconds=histogram(
                reader + "records_processing_time_seconds",
                "Time (seconds) to apply a fetch.",
                REQUEST_SECONDS_BUCKETS,
            ),
            missed_records=counter(reader + "missed_records", "Offsets that the log no longer had."),
            requests=counter(reader + "requests", "Records applied."),
            requests_failed=counter(reader + "requests_failed", "Records that could not be applied.", "cause"),
            prepare_shutdown_requested=gauge(
                "ingester_prepare_shutdown_requested", "1: the next shutdown ships everything and leaves for good."
            ),
            strong_reads=strong_reads or StrongReadMetrics.create(registry),
            active_series=ActiveSeriesMetrics.create(registry),
        )
