"""What the distributor needs to know of a tenant's limits. Defaults are Mimir's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mimir_ingest.distributor.ha_election import HaLimits
from mimir_ingest.model.relabel import NO_RELABELLING, Relabelling

MIN_SHORTENED_BYTES = 71
"""Length of `(hash:<64 hex digits>)`, which ends (or replaces) a label value that is shortened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributorLimits:
    """One tenant's limits on writes, in the units of the names (spec: ingest storage, 8.4, 8.5 and 8.7)."""

    request_rate: float = 0.0
    """Requests a second over all distributors; 0 is no limit."""
    request_burst_size: int = 0
    """Requests at once; 0 is no limit."""
    ingestion_rate: float = 10_000.0
    """Items (samples, histograms, exemplars, metadata) a second over all distributors."""
    ingestion_burst_size: int = 200_000
    """Items at once, at each distributor."""
    ingestion_burst_factor: float = 0.0
    """From 1 on: the burst is this many seconds of the local rate, instead of the burst size."""
    ha: HaLimits | None = None
    """`accept_ha_samples` and what goes with it; None: nobody looks for replicas."""
    ingestion_artificial_delay_s: float = 0.0
    """Time that a request takes at least, give or take a tenth; 0 is none."""
    max_label_names_per_series: int = 30
    max_label_names_per_info_series: int = 80
    max_label_name_length: int = 1024
    """Bytes."""
    max_label_value_length: int = 2048
    """Bytes; at least MIN_SHORTENED_BYTES unless the strategy is `error`."""
    label_value_length_over_limit_strategy: Literal["error", "truncate", "drop"] = "error"
    name_validation_scheme: Literal["legacy", "utf8"] = "legacy"
    creation_grace_period_ms: int = 600_000
    """A sample may lie this far in the future."""
    past_grace_period_ms: int = 0
    """A sample may lie this far in the past, and the out-of-order window more; 0 is no limit."""
    out_of_order_time_window_ms: int = 0
    enforce_metadata_metric_name: bool = True
    max_metadata_length: int = 1024
    """Bytes of a metadata item's metric name, help or unit."""
    ingestion_partitions_tenant_shard_size: int = 0
    """Partitions that the tenant's series go to; 0 is all."""
    relabelling: Relabelling = NO_RELABELLING
    """`metric_relabel_configs` and `drop_labels`."""
    max_global_series_per_user: int = 150_000
    """Series in memory over all partitions; travels in each record as the partition's share. 0 is no limit."""
    max_global_series_per_metric: int = 0
    """Series in memory of a metric over all partitions; travels likewise. 0 is no limit."""
    unlimited_metrics: tuple[str, ...] = ()
    """Metrics to which the limit of a metric's series does not apply; a setting of the process."""
    max_global_metadata_per_user: int = 0
    """Metadata items in memory over all partitions; 0 is no limit."""
    max_global_metadata_per_metric: int = 0
    """Metadata items in memory of a metric; 0 is no limit."""
    separate_metrics_group_label: str = ""
    """Label of a request's first series whose value groups the counters of discarded samples; empty: none."""
    max_native_histogram_buckets: int = 0
    """Buckets of a native histogram, empty ones included; 0 is no limit."""
    reduce_native_histogram_over_max_buckets: bool = True
    """Lower the resolution of a native histogram with more buckets, instead of refusing it."""
    max_global_exemplars_per_user: int = 0
    """Exemplars in memory over all partitions; 0 keeps none."""
    max_exemplars_per_series_per_request: int = 0
    """0 is no limit."""
    native_histograms_ingestion_enabled: bool = True
    """Whether native histograms are stored; else they are validated and dropped."""
