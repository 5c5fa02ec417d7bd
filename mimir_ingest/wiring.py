"""From settings to components: the one place that knows which setting goes where.

Nothing here starts anything; the composition root (`app`) and the command line do.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.limits import Limits
from mimir_ingest.config.runtime import RuntimeConfigWatcher
from mimir_ingest.config.sections import BlocksStorageSection, IngestStorageSection, KafkaSection
from mimir_ingest.config.settings import Settings
from mimir_ingest.distributor.admission import InstanceLimits
from mimir_ingest.distributor.ha_election import HaLimits
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.service import DistributorOptions
from mimir_ingest.ingester.active_series import CustomTrackers
from mimir_ingest.ingester.knobs import TrackingKnobs
from mimir_ingest.ingester.limiter import IngesterLimits
from mimir_ingest.log.contract import PartitionLog
from mimir_ingest.model.relabel import Relabelling, parse_rules
from mimir_ingest.promql.parser import parse_metric_selector
from mimir_ingest.querier.service import QueryLimits
from mimir_ingest.wire.otlp_labels import OtlpSettings
from mimir_ingest.wire.otlp_names import strategy_of
from mimir_ingest.wire.record import VERSION_COLUMNAR

if TYPE_CHECKING:
    from mimir_ingest.log.kafka_security import KafkaSecurity

Built = TypeVar("Built")

FETCH_BYTES = 8 << 20
"""Values that an ingester asks of a partition at a time. why: some 30,000 samples, 4 ms of work for a kernel."""


def instance_id(settings: Settings) -> str:
    """Return this process's name: configured, else the host's."""
    return settings.ingester.ring.instance_id or socket.gethostname()


def make_bucket(storage: BlocksStorageSection) -> Bucket:
    """Return access to the bucket that `blocks_storage` describes."""
    prefix = f"/{storage.storage_prefix}" if storage.storage_prefix else ""
    match storage.backend:
        case "filesystem":
            return Bucket(str(Path(storage.filesystem.dir).absolute()) + prefix)
        case "s3":
            s3 = storage.s3
            return Bucket(
                f"s3://{s3.bucket_name}{prefix}",
                endpoint=s3.endpoint,
                region=s3.region,
                access_key_id=s3.access_key_id,
                secret_access_key=s3.secret_access_key.get_secret_value(),
                session_token=s3.session_token.get_secret_value(),
                insecure=s3.insecure,
                bucket_lookup_type=s3.bucket_lookup_type,
                storage_class=s3.storage_class,
            )
        case "gcs":
            account = storage.gcs.service_account.get_secret_value()
            options = {"token": json.loads(account)} if account else {}
            return Bucket(f"gs://{storage.gcs.bucket_name}{prefix}", **options)
        case "azure":
            azure = storage.azure
            secret = azure.connection_string.get_secret_value()
            options = (
                {"connection_string": secret}
                if secret
                else {"account_name": azure.account_name, "account_key": azure.account_key.get_secret_value()}
            )
            return Bucket(f"abfs://{azure.container_name}{prefix}", **options)
        case "memory":
            return Bucket(f"memory://mimir-ingest{prefix}")
    raise ConfigError(f"blocks_storage.backend is {storage.backend!r}; it takes filesystem, s3, gcs, azure or memory")


def make_catalog(bucket: Bucket, storage: BlocksStorageSection) -> BlockCatalog:
    """Return the blocks of a bucket, kept in memory as long as `blocks_storage.bucket_store` says."""
    return BlockCatalog(
        bucket,
        list_idle_s=storage.bucket_store.bucket_index.idle_timeout.seconds,
        open_idle_s=storage.bucket_store.index_header.lazy_loading_idle_timeout.seconds,
    )


def make_log(storage: IngestStorageSection) -> PartitionLog:
    """Return the partition log that `ingest_storage` describes, not yet started."""
    kafka = storage.kafka
    if storage.log == "kafka":
        return _kafka_log(kafka)
    from mimir_ingest.log.embedded import EmbeddedLog

    return EmbeddedLog(
        storage.embedded.path,
        partitions=storage.embedded.partitions,
        max_record_bytes=kafka.producer_max_record_size_bytes,
        max_buffered_bytes=kafka.producer_max_buffered_bytes,
    )


def kafka_security(kafka: KafkaSection) -> KafkaSecurity:
    """Return how clients of Kafka encrypt and authenticate."""
    from mimir_ingest.log.kafka_security import KafkaSecurity

    return KafkaSecurity(
        tls_enabled=kafka.tls_enabled,
        tls_ca_path=kafka.tls_ca_path,
        tls_cert_path=kafka.tls_cert_path,
        tls_key_path=kafka.tls_key_path,
        tls_insecure_skip_verify=kafka.tls_insecure_skip_verify,
        tls_min_version=kafka.tls_min_version,
        tls_cipher_suites=kafka.tls_cipher_suites,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=kafka.sasl_password.get_secret_value(),
        oauthbearer_token=kafka.sasl_oauthbearer_token.get_secret_value(),
        oauthbearer_token_path=kafka.sasl_oauthbearer_file_path,
        oauthbearer_extensions=kafka.sasl_oauthbearer_extensions,
    )


def _kafka_log(kafka: KafkaSection) -> PartitionLog:
    from mimir_ingest.log.kafka import KafkaLog

    return KafkaLog(
        kafka.address,
        kafka.topic,
        security=kafka_security(kafka),
        client_id=kafka.client_id or "mimir-ingest",
        client_rack=kafka.client_rack,
        dial_timeout_s=kafka.dial_timeout.seconds,
        write_timeout_s=kafka.write_timeout.seconds,
        write_timeout_overhead_s=kafka.write_timeout_overhead.seconds,
        read_timeout_s=kafka.last_produced_offset_retry_timeout.seconds,
        auto_create_topic=kafka.auto_create_topic_enabled,
        auto_create_topic_default_partitions=kafka.auto_create_topic_default_partitions,
        max_record_bytes=kafka.producer_max_record_size_bytes,
        max_buffered_bytes=kafka.producer_max_buffered_bytes,
        compression=kafka.producer_compression,
        fetch_max_wait_s=kafka.fetch_max_wait.seconds,
    )


def ingester_options(settings: Settings) -> dict[str, Any]:
    """Return the keyword arguments of `Ingester` that come from settings."""
    storage, tsdb = settings.ingest_storage, settings.blocks_storage.tsdb
    kafka = storage.kafka
    return {
        "group": kafka.consumer_group or instance_id(settings),
        "snapshot_folder": Path(tsdb.dir),
        "snapshot_interval_s": storage.snapshot_interval.seconds,
        "retention_s": storage.retention_after_cut.seconds,
        "trim_delay_s": storage.embedded.trim_delay.seconds,
        "metadata_retain_s": settings.ingester.metadata_retain_period.seconds,
        "fetch_max_bytes": min(FETCH_BYTES, kafka.max_buffered_bytes),
        "fetch_max_wait_s": kafka.fetch_max_wait.seconds,
        "append_timeout_s": kafka.write_timeout.seconds,
        "strong_read_timeout_s": kafka.wait_strong_read_consistency_timeout.seconds,
        "ship_concurrency": tsdb.ship_concurrency,
        "tracking": TrackingKnobs(
            metrics_enabled=settings.ingester.active_series_metrics_enabled,
            update_period_s=settings.ingester.active_series_metrics_update_period.seconds,
            idle_timeout_s=settings.ingester.active_series_metrics_idle_timeout.seconds,
            owned_period_s=settings.ingester.owned_series_update_interval.seconds,
            rate_period_s=settings.ingester.rate_update_period.seconds,
        ),
    }


def custom_trackers(limits_for: Callable[[str], Limits]) -> Callable[[str], CustomTrackers]:
    """Return a function from tenant to its trackers of active series, built once for each set of limits."""
    return _once_each(limits_for, _custom_trackers)


def _custom_trackers(limits: Limits) -> CustomTrackers:
    selectors = {**limits.active_series_custom_trackers, **limits.active_series_additional_custom_trackers}
    return {name: parse_metric_selector(selector) for name, selector in selectors.items()}


def distributor_options(settings: Settings) -> DistributorOptions:
    """Return the process's settings of the write path."""
    storage = settings.ingest_storage
    return DistributorOptions(
        max_recv_msg_size=settings.distributor.max_recv_msg_size,
        remote_timeout_s=settings.distributor.remote_timeout.seconds,
        write_timeout_s=storage.kafka.write_timeout.seconds,
        record_version=_record_version(settings),
        max_record_bytes=storage.kafka.producer_max_record_size_bytes,
        skip_label_name_validation_header=settings.api.skip_label_name_validation_header_enabled,
        skip_label_count_validation_header=settings.api.skip_label_count_validation_header_enabled,
    )


def _record_version(settings: Settings) -> int:
    storage = settings.ingest_storage
    return VERSION_COLUMNAR if storage.record_format == "columnar" else storage.kafka.producer_record_version


def instance_limits(settings: Settings, runtime: RuntimeConfigWatcher) -> Callable[[], InstanceLimits]:
    """Return a function to the process's own limits on pushes that are in force."""
    limits = settings.distributor.instance_limits
    main = {
        "max_ingestion_rate": limits.max_ingestion_rate,
        "max_inflight_push_requests": limits.max_inflight_push_requests,
        "max_inflight_push_requests_bytes": limits.max_inflight_push_requests_bytes,
    }
    return lambda: InstanceLimits(**runtime.instance_limits("distributor.instance_limits.", main))


def ingester_limits(settings: Settings, runtime: RuntimeConfigWatcher) -> Callable[[], IngesterLimits]:
    """Return a function to the limits in force on what an ingester holds."""
    limits = settings.ingester.instance_limits
    main = {"max_tenants": limits.max_tenants, "max_series": limits.max_series}
    return lambda: IngesterLimits(**runtime.instance_limits("ingester.instance_limits.", main))


def distributor_limits(settings: Settings, limits_for: Callable[[str], Limits]) -> Callable[[str], DistributorLimits]:
    """Return a function from tenant to what the distributor needs of its limits, built once for each set of limits."""
    unlimited = _listed(settings.ingester.ignore_series_limit_for_metric_names)
    return _once_each(limits_for, partial(_distributor_limits, unlimited_metrics=unlimited))


def _listed(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list that are not empty."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def otlp_settings(settings: Settings, limits_for: Callable[[str], Limits]) -> Callable[[str], OtlpSettings]:
    """Return a function from tenant to its translation of OTLP, built once for each set of limits."""
    # Mimir's records cannot say that a series has deltas.
    accumulates = _record_version(settings) == VERSION_COLUMNAR
    return _once_each(limits_for, partial(_otlp_settings, accumulate_deltas=accumulates))


def ha_limits(limits_for: Callable[[str], Limits]) -> Callable[[str], HaLimits]:
    """Return a function from tenant to how its replicas are elected, built once for each set of limits."""
    return _once_each(limits_for, _ha_limits)


def _once_each(limits_for: Callable[[str], Limits], build: Callable[[Limits], Built]) -> Callable[[str], Built]:
    known: dict[int, tuple[Limits, Built]] = {}

    def of(tenant: str) -> Built:
        limits = limits_for(tenant)
        found = known.get(id(limits))
        if found is None or found[0] is not limits:
            if len(known) > 10_000:
                known.clear()
            found = known[id(limits)] = (limits, build(limits))
        return found[1]

    return of


def _otlp_settings(limits: Limits, *, accumulate_deltas: bool) -> OtlpSettings:
    derived = strategy_of(limits.name_validation_scheme, limits.otel_metric_suffixes_enabled)
    return OtlpSettings(
        strategy=limits.otel_translation_strategy or derived,
        promote_resource_attributes=frozenset(_listed(limits.promote_otel_resource_attributes)),
        promote_scope_metadata=limits.otel_promote_scope_metadata,
        keep_identifying_resource_attributes=limits.otel_keep_identifying_resource_attributes,
        convert_histograms_to_nhcb=limits.otel_convert_histograms_to_nhcb,
        native_delta_ingestion=limits.otel_native_delta_ingestion,
        accumulate_deltas=accumulate_deltas,
        created_timestamp_zero_ingestion=limits.otel_created_timestamp_zero_ingestion_enabled,
        label_name_underscore_sanitization=limits.otel_label_name_underscore_sanitization,
        label_name_preserve_multiple_underscores=limits.otel_label_name_preserve_multiple_underscores,
    )


def _distributor_limits(limits: Limits, *, unlimited_metrics: tuple[str, ...]) -> DistributorLimits:
    return DistributorLimits(
        request_rate=limits.request_rate,
        request_burst_size=limits.request_burst_size,
        ingestion_rate=limits.ingestion_rate,
        ingestion_burst_size=limits.ingestion_burst_size,
        ingestion_burst_factor=limits.ingestion_burst_factor,
        ha=_ha_limits(limits) if limits.accept_ha_samples else None,
        ingestion_artificial_delay_s=limits.ingestion_artificial_delay.seconds,
        max_label_names_per_series=limits.max_label_names_per_series,
        max_label_names_per_info_series=limits.max_label_names_per_info_series,
        max_label_name_length=limits.max_label_name_length,
        max_label_value_length=limits.max_label_value_length,
        label_value_length_over_limit_strategy=limits.label_value_length_over_limit_strategy,  # type: ignore[arg-type]
        name_validation_scheme=limits.name_validation_scheme,  # type: ignore[arg-type]
        creation_grace_period_ms=limits.creation_grace_period.ms,
        past_grace_period_ms=limits.past_grace_period.ms,
        out_of_order_time_window_ms=limits.out_of_order_time_window.ms,
        enforce_metadata_metric_name=limits.enforce_metadata_metric_name,
        relabelling=Relabelling(parse_rules(limits.metric_relabel_configs or ()), tuple(limits.drop_labels)),
        max_metadata_length=limits.max_metadata_length,
        ingestion_partitions_tenant_shard_size=limits.ingestion_partitions_tenant_shard_size,
        max_global_series_per_user=limits.max_global_series_per_user,
        max_global_series_per_metric=limits.max_global_series_per_metric,
        unlimited_metrics=unlimited_metrics,
        max_global_metadata_per_user=limits.max_global_metadata_per_user,
        max_global_metadata_per_metric=limits.max_global_metadata_per_metric,
        separate_metrics_group_label=limits.separate_metrics_group_label,
        max_global_exemplars_per_user=limits.max_global_exemplars_per_user,
        max_exemplars_per_series_per_request=limits.max_exemplars_per_series_per_request,
        max_native_histogram_buckets=limits.max_native_histogram_buckets,
        reduce_native_histogram_over_max_buckets=limits.reduce_native_histogram_over_max_buckets,
        native_histograms_ingestion_enabled=limits.native_histograms_ingestion_enabled,
    )


def _ha_limits(limits: Limits) -> HaLimits:
    return HaLimits(
        cluster_label=limits.ha_cluster_label.encode(),
        replica_label=limits.ha_replica_label.encode(),
        max_clusters=limits.ha_max_clusters,
        update_timeout_ms=limits.ha_tracker_update_timeout.ms,
        update_timeout_jitter_max_ms=limits.ha_tracker_update_timeout_jitter_max.ms,
        failover_timeout_ms=limits.ha_tracker_failover_timeout.ms,
        sample_failover_timeout_ms=limits.ha_tracker_sample_failover_timeout.ms,
    )


def query_limits(settings: Settings) -> QueryLimits:
    """Return the bounds of one query."""
    querier = settings.querier
    return QueryLimits(
        max_samples=querier.max_samples,
        timeout_s=querier.timeout.seconds,
        lookback_ms=querier.lookback_delta.ms,
        subquery_step_ms=querier.default_evaluation_interval.ms,
    )
