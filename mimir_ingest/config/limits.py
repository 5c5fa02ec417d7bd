"""Tenant limits: the `limits` section, with a tenant's overrides on top.

`Limits` is one tenant's complete set: typed attributes for the limits that this program applies, and all limits of
Mimir's by name, for `/runtime_config`. It is immutable; a reload of the runtime configuration builds new ones.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from mimir_ingest.config.durations import Duration
from mimir_ingest.config.keys import Key, KeyRegistry
from mimir_ingest.errors import QueryError
from mimir_ingest.model.blocked_queries import parse_blocked_queries
from mimir_ingest.model.relabel import parse_rules
from mimir_ingest.promql.parser import parse_metric_selector
from mimir_ingest.wire.otlp_names import STRATEGIES

MIN_SHORTENED_BYTES = 71
"""Length of the hash that ends or replaces a label value that is shortened."""
MIN_FAILOVER_MARGIN_NS = 1_000_000_000
"""A replica that is seen and written down in time must not be taken for silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One tenant's limits. Zero means no limit, unless a field says otherwise."""

    request_rate: float
    """Pushes a second."""
    request_burst_size: int
    """Pushes at once."""
    ingestion_rate: float
    """Samples, exemplars and metadata items a second."""
    ingestion_burst_size: int
    """Items at once; not used when the burst factor is 1 or more."""
    ingestion_burst_factor: float
    """Items at once as a multiple of the rate; below 1 it is off."""
    accept_ha_samples: bool
    """Whether the tenant's senders are replicas that send the same; the label that tells them apart is taken off."""
    ha_cluster_label: str
    """Label that names the cluster that a replica is one of."""
    ha_replica_label: str
    """Label that tells the replicas of a cluster apart."""
    ha_max_clusters: int
    """Clusters of replicas."""
    ha_tracker_update_timeout: Duration
    """Age from which the time at which an elected replica was seen is written down again."""
    ha_tracker_update_timeout_jitter_max: Duration
    """That age is up to so much more, or less, in each process."""
    ha_tracker_failover_timeout: Duration
    """Silence of an elected replica after which another one is elected."""
    ha_tracker_sample_failover_timeout: Duration
    """So far must the other replica's samples be ahead of that silence's start; 0 does not look at them."""
    ingestion_artificial_delay: Duration
    """Time, more or less a tenth, that a push takes at least; what is left of it is waited for before the answer."""
    max_label_name_length: int
    """Bytes of a label name."""
    max_label_value_length: int
    """Bytes of a label value."""
    label_value_length_over_limit_strategy: str
    """What happens to a longer label value: error, truncate or drop."""
    max_label_names_per_series: int
    """Labels of a series."""
    max_label_names_per_info_series: int
    """Labels of a series whose name ends in _info."""
    max_metadata_length: int
    """Bytes of a metadata item's metric name, unit and help."""
    creation_grace_period: Duration
    """How far in the future a sample may be."""
    past_grace_period: Duration
    """How far in the past a sample may be, beyond the out-of-order window; 0 is no limit."""
    enforce_metadata_metric_name: bool
    """Refuse metadata without a metric name."""
    metric_relabel_configs: Sequence[Mapping[str, Any]]
    """Prometheus's relabelling rules, applied to pushed series first; `__meta_tenant_id` is the tenant."""
    drop_labels: Sequence[str]
    """Labels that pushed series lose after that."""
    max_global_exemplars_per_user: int
    """Exemplars in memory of the tenant, over all partitions; 0 keeps none."""
    max_exemplars_per_series_per_request: int
    """Exemplars of a series in one push."""
    max_native_histogram_buckets: int
    """Buckets of a native histogram, empty ones included."""
    reduce_native_histogram_over_max_buckets: bool
    """Lower the resolution of a native histogram with too many buckets, instead of refusing it."""
    native_histograms_ingestion_enabled: bool
    """Whether native histograms are stored; else they are validated, counted and dropped."""
    max_global_series_per_user: int
    """Series in memory of the tenant, over all partitions."""
    max_global_series_per_metric: int
    """Series in memory of one of the tenant's metrics, over all partitions."""
    max_global_metadata_per_user: int
    """Metadata items in memory of the tenant, over all partitions."""
    max_global_metadata_per_metric: int
    """Metadata items in memory of one of the tenant's metrics, all of which are in one partition."""
    separate_metrics_group_label: str
    """Label of a push's first series whose value is the label group of the counters of discarded samples."""
    ingestion_partitions_tenant_shard_size: int
    """Partitions that the tenant's series go to; 0 is all."""
    query_ingesters_within: Duration
    """How long after a change of the ring the tenant's reads go to partitions that may hold its older samples, too."""
    ingest_storage_read_consistency: str
    """What the tenant's queries see that name no consistency: strong (all acknowledged before) or eventual."""
    out_of_order_time_window: Duration
    """How much older than the tenant's newest sample a sample may be and still be stored out of order."""
    name_validation_scheme: str
    """Rule for metric and label names: legacy or utf8."""
    otel_metric_suffixes_enabled: bool
    """Whether names of OTLP metrics end in their unit and type, such as _seconds_total."""
    otel_translation_strategy: str
    """How OTLP's names become Prometheus's; empty: as otel_metric_suffixes_enabled and name_validation_scheme say."""
    otel_label_name_underscore_sanitization: bool
    """Whether OTLP attributes with one underscore in front get `key` there."""
    otel_label_name_preserve_multiple_underscores: bool
    """Whether several underscores in a row stay in the names of OTLP attributes."""
    promote_otel_resource_attributes: str
    """OTLP resource attributes that become labels of every series, comma-separated."""
    otel_keep_identifying_resource_attributes: bool
    """Whether target_info has service.name, service.namespace and service.instance.id, too."""
    otel_promote_scope_metadata: bool
    """Whether an OTLP scope's name, version, schema and attributes become labels."""
    otel_convert_histograms_to_nhcb: bool
    """Whether OTLP histograms with explicit bounds become native histograms with custom buckets."""
    otel_native_delta_ingestion: bool
    """Store OTLP metrics of delta temporality as they are; else they are added up (with Mimir's records: refused)."""
    otel_created_timestamp_zero_ingestion_enabled: bool
    """Write a zero at the start of an OTLP counter or histogram, if it lies at most 5 minutes before the sample."""
    max_fetched_chunks_per_query: int
    """Chunks that a query reads, from heads and blocks."""
    max_fetched_series_per_query: int
    """Distinct series that a query reads."""
    max_fetched_chunk_bytes_per_query: int
    """Bytes of the chunks that a query reads."""
    max_query_lookback: Duration
    """How old the data may be that queries read; older parts of a query's time range are left out."""
    compactor_blocks_retention_period: Duration
    """How old the data may be that queries read, as max_query_lookback; a compactor deletes what is older."""
    max_partial_query_length: Duration
    """Longest time range that a selector of a query reads, windows and look-back included."""
    max_total_query_length: Duration
    """Longest time from a query's start to its end."""
    max_labels_query_length: Duration
    """Longest time range of requests for series, label names and label values; the older part is left out."""
    max_series_query_limit: int
    """Label sets that a request for series gets."""
    max_label_names_limit: int
    """Names that a request for label names gets."""
    max_label_values_limit: int
    """Values that a request for label values gets."""
    max_query_expression_size_bytes: int
    """Bytes of a query's expression."""
    blocked_queries: Sequence[Mapping[str, Any]]
    """Queries that are refused: rules with a pattern, whether it is a regular expression (regex), and a reason."""
    enabled_promql_experimental_functions: str
    """Experimental PromQL functions that may be used, comma-separated."""
    enabled_promql_extended_range_selectors: str
    """Extended range selectors that may be used, comma-separated."""
    enable_delayed_name_removal: bool
    """Whether metric names are dropped at the end of a query and not in each function."""
    active_series_custom_trackers: Mapping[str, str]
    """Name to selector: active series of the tenant that are counted apart, in metrics of that name."""
    active_series_additional_custom_trackers: Mapping[str, str]
    """More of these, on top of the others; of equal names these count."""
    max_active_series_additional_custom_trackers: int
    """Most additional trackers that a configuration may name; one with more is refused. 0 is no limit."""
    cardinality_analysis_enabled: bool
    """Whether the tenant may ask the cardinality endpoints."""
    cardinality_analysis_max_results: int
    """Items that one answer of these may list."""
    label_values_max_cardinality_label_names_per_request: int
    """Label names that one request for label values may name."""
    label_names_and_values_results_max_size_bytes: int
    """Bytes of the label names and values that such an answer may be counted from."""
    active_series_results_max_size_bytes: int
    """Bytes of the label sets that one request for active series, or each shard of it, may give."""
    query_sharding_total_shards: int
    """Shards of a request for active series that names none, with frontend.shard_active_series_queries."""
    query_sharding_max_sharded_queries: int
    """Shards that such a request may ask for."""

    values: Mapping[str, Any] = field(repr=False)
    """All limits by key below `limits.`, in the registry's order, those without an attribute included."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Limits:
        """Build from all limits by key below `limits.`."""
        return cls(**{name: values[name] for name in LIMIT_NAMES}, values=MappingProxyType(dict(values)))

    def overridden(self, overrides: Mapping[str, Any]) -> Limits:
        """Return these limits with some replaced."""
        return Limits.from_values({**self.values, **overrides})


LIMIT_NAMES = tuple(item.name for item in fields(Limits) if item.name != "values")
"""The limits that this program applies."""


def limit_texts() -> dict[str, str]:
    """Return the sentence that stands under each field of `Limits`, for help and the reference page."""
    body = ast.parse(inspect.getsource(Limits)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: doc.value.value
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)
    }


_CHOICES = {
    "label_value_length_over_limit_strategy": ("error", "truncate", "drop"),
    "name_validation_scheme": ("legacy", "utf8"),
    "ingest_storage_read_consistency": ("strong", "eventual"),
    "otel_translation_strategy": ("", *STRATEGIES),
}


def limit_keys(registry: KeyRegistry) -> list[Key]:
    """Return the keys of all limits, in the registry's order."""
    return [key for key in registry if key.is_limit]


def limit_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with limits given by key below `limits.`; unset ones are not looked at."""
    problems = [
        f'limits.{name} is "{values[name]}"; it takes {", ".join(choices)}'
        for name, choices in _CHOICES.items()
        if name in values and values[name] not in choices
    ]
    strategy, length = values.get("label_value_length_over_limit_strategy"), values.get("max_label_value_length")
    if strategy in ("truncate", "drop") and length is not None and length < MIN_SHORTENED_BYTES:
        problems.append(
            f"limits.max_label_value_length is {length}; with limits.label_value_length_over_limit_strategy {strategy} "
            f"it must be at least {MIN_SHORTENED_BYTES}, the length of what replaces a value"
        )
    problems += _tracker_problems(values)
    problems += _translation_problems(values)
    problems += _replica_problems(values)
    try:
        parse_rules(values.get("metric_relabel_configs") or ())
    except (ValueError, TypeError) as error:
        problems.append(f"limits.metric_relabel_configs: {error}")
    try:
        parse_blocked_queries(values.get("blocked_queries"))
    except (ValueError, TypeError) as error:
        problems.append(f"limits.blocked_queries: {error}")
    problems += [
        f"limits.{name} is {value}; it cannot be negative"
        for name, value in values.items()
        if name in LIMIT_NAMES and isinstance(value, int | float) and value < 0
    ]
    return problems


def _replica_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with labels of replicas and with times of their elections."""
    problems = [
        f"limits.{name} is empty; it takes the name of a label"
        for name in ("ha_cluster_label", "ha_replica_label")
        if values.get(name) == ""
    ]
    names = [f"ha_tracker_{name}" for name in ("update_timeout", "update_timeout_jitter_max", "failover_timeout")]
    update, jitter, failover = (values.get(name) for name in names)
    if None not in (update, jitter, failover) and failover < update + jitter + MIN_FAILOVER_MARGIN_NS:
        problems.append(
            f"limits.{names[2]} is {failover}; it must be at least 1s more than limits.{names[0]} ({update}) and "
            f"limits.{names[1]} ({jitter}) together"
        )
    return problems


def _tracker_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with trackers of active series: selectors that do not parse, too many additional ones."""
    problems = []
    added = len(values.get("active_series_additional_custom_trackers") or {})
    most = values.get("max_active_series_additional_custom_trackers") or 0
    if 0 < most < added:
        problems.append(
            f"limits.active_series_additional_custom_trackers validation failed: the number of custom trackers "
            f"[{added}] exceeds the configured limit [{most}]"
        )
    for name in ("active_series_custom_trackers", "active_series_additional_custom_trackers"):
        for tracker, selector in (values.get(name) or {}).items():
            try:
                parse_metric_selector(selector)
            except QueryError as error:
                problems.append(f'limits.{name}: tracker "{tracker}" has no selector, {selector!r}: {error.message}')
    return problems


def _translation_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a translation strategy that the other two settings contradict."""
    strategy = values.get("otel_translation_strategy")
    scheme, suffixes = values.get("name_validation_scheme"), values.get("otel_metric_suffixes_enabled")
    if not strategy or strategy not in STRATEGIES or STRATEGIES[strategy] == (scheme, suffixes):
        return []
    wanted_scheme, wanted_suffixes = STRATEGIES[strategy]
    return [
        f"limits.otel_translation_strategy {strategy} needs limits.name_validation_scheme {wanted_scheme} and "
        f"limits.otel_metric_suffixes_enabled {str(wanted_suffixes).lower()}; they are {scheme} and "
        f"{str(suffixes).lower()}"
    ]
