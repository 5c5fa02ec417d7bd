"""The names of metrics against the specification's lists (ingest storage 2.7, 5.10, 8.8, 9.11)."""

import importlib
import inspect
import pkgutil
import re

import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest import obs
from mimir_ingest.ingester.consumption import ConsumptionMetrics
from mimir_ingest.ingester.ingestion_rates import IngestionRates
from mimir_ingest.obs.metrics import IngesterMetrics

LISTED = {
    "cortex_": """
        discarded_{samples,exemplars,metadata,requests}_total
    """,
    "cortex_distributor_": """
        received_{requests,samples,exemplars,metadata}_total received_native_histogram_{samples,buckets}_total
        {requests,samples,exemplars,metadata}_in_total deduped_samples_total non_ha_samples_received_total
        dropped_native_histograms_total latest_seen_sample_timestamp_seconds sample_delay_seconds samples_per_request
        exemplars_per_request uncompressed_request_body_size_bytes request_body_compression_ratio
        inflight_push_requests inflight_push_requests_bytes ingestion_rate_samples_per_second instance_limits
        instance_rejected_requests_total otlp_requests_total otlp_requests_by_content_type_total otlp_array_lengths
        influx_requests_total influx_uncompressed_request_body_size_bytes query_duration_seconds replication_factor
        ingester_clients hash_collisions_total ingest_storage_enabled
    """,
    "cortex_ingester_": """
        memory_{series,users,metadata} memory_series_{created,removed}_total ingested_{samples,exemplars,metadata}_total
        ingested_{samples,exemplars,metadata}_failures_total local_limits owned_series active_series
        active_series_loading tsdb_compactions_{triggered,failed}_total tsdb_forced_compactions_in_progress
        tsdb_compaction_duration_seconds tsdb_per_tenant_early_compactions_triggered_total idle_tsdb_checks_total
        shipper_{uploads,upload_failures}_total shipper_last_successful_upload_timestamp_seconds
        oldest_unshipped_block_timestamp_seconds tsdb_sample_out_of_order_delta_seconds
        tsdb_out_of_order_samples_appended_total tsdb_wal_fsync_duration_seconds tsdb_head_{min,max}_timestamp_seconds
        tsdb_exemplar_exemplars_appended_total tsdb_exemplar_exemplars_in_storage
        tsdb_exemplar_series_with_exemplars_in_storage tsdb_exemplar_last_exemplars_timestamp_seconds
        tsdb_exemplar_out_of_order_exemplars_total instance_limits instance_rejected_requests_total
        inflight_push_requests prepare_shutdown_requested queries_total queried_{samples,series,exemplars}
    """,
    "cortex_ingest_storage_writer_": """
        latency_seconds {sent,input}_bytes_total records_per_write_request serialize_duration_seconds
        buffered_produce_bytes_distribution buffered_produce_bytes_limit produce_records_{enqueued,failed}_total
        produce_records_enqueue_duration_seconds produce_remaining_deadline_seconds
        kafka_{write_wait,write_time,read_wait,read_time,request_duration_e2e,request_throttled}_seconds
    """,
    "cortex_ingest_storage_reader_": """
        last_{consumed,committed}_offset offset_commit_{requests,failures}_total offset_commit_request_duration_seconds
        receive_delay_seconds receive_and_consume_delay_seconds records_per_fetch fetches_total fetch_errors_total
        records_batch_{wait,process}_duration_seconds records_batch_fetch_max_bytes fetched_discarded_bytes_total
        records_processing_time_seconds missed_records_total buffered_fetched_{records,bytes} estimated_bytes_per_record
        requests_total requests_failed_total pusher_batch_age_seconds pusher_processing_time_seconds
        pusher_timeseries_per_flush pusher_estimated_timeseries_total shards_per_push pushers_per_push
        batching_queue_flush_{total,errors_total} last_produced_offset_{requests,failures}_total
        last_produced_offset_request_duration_seconds partition_start_offset_{requests,failures}_total
        partition_start_offset_request_duration_seconds
    """,
}
NO_COPIES = "series go to partitions, which are not copied among ingesters"
NO_WAL = "there is no local WAL: the partition log is it"
ONE_CUT = "every cut is a record's place in the log; none is a tenant's alone, or forced"
LIBRARY = "what the Kafka library does inside is not told by it"
ONE_THREAD = "a record is applied whole, in one thread; there are no queues and shards in between"
LEFT_OUT = {
    "cortex_distributor_replication_factor": NO_COPIES,
    "cortex_distributor_ingester_clients": NO_COPIES,
    "cortex_distributor_hash_collisions_total": "series are told apart by their label bytes",
    "cortex_ingester_active_series_loading": "activity is read again from the log before the ingester is ready",
    "cortex_ingester_tsdb_forced_compactions_in_progress": ONE_CUT,
    "cortex_ingester_tsdb_per_tenant_early_compactions_triggered_total": ONE_CUT,
    "cortex_ingester_idle_tsdb_checks_total": "idle tenants are forgotten at cuts",
    "cortex_ingester_tsdb_wal_fsync_duration_seconds": NO_WAL,
    "cortex_ingester_tsdb_exemplar_out_of_order_exemplars_total": "among ingested_exemplars_failures_total",
    "cortex_ingester_inflight_push_requests": "an ingester takes no pushes",
    "cortex_ingest_storage_writer_serialize_duration_seconds": "a record is written out in some 10 µs",
    "cortex_ingest_storage_writer_buffered_produce_bytes_distribution": LIBRARY,
    "cortex_ingest_storage_writer_buffered_produce_bytes_limit": LIBRARY,
    "cortex_ingest_storage_writer_produce_records_enqueue_duration_seconds": LIBRARY,
    "cortex_ingest_storage_writer_produce_remaining_deadline_seconds": LIBRARY,
    **{
        f"cortex_ingest_storage_writer_kafka_{name}_seconds": LIBRARY
        for name in ("write_wait", "write_time", "read_wait", "read_time", "request_duration_e2e", "request_throttled")
    },
    **{
        f"cortex_ingest_storage_reader_{name}": LIBRARY
        for name in ("records_batch_fetch_max_bytes", "fetched_discarded_bytes_total", "estimated_bytes_per_record")
    },
    **{
        f"cortex_ingest_storage_reader_{name}": ONE_THREAD
        for name in (
            "buffered_fetched_records",
            "buffered_fetched_bytes",
            "pusher_batch_age_seconds",
            "pusher_processing_time_seconds",
            "pusher_timeseries_per_flush",
            "pusher_estimated_timeseries_total",
            "shards_per_push",
            "pushers_per_push",
            "batching_queue_flush_total",
            "batching_queue_flush_errors_total",
        )
    },
    **{
        f"cortex_ingest_storage_reader_partition_start_offset_{name}": "asked for by the log's own reads"
        for name in ("requests_total", "failures_total", "request_duration_seconds")
    },
}


def listed() -> set[str]:
    names = set()
    for prefix, text in LISTED.items():
        for word in text.split():
            found = re.search(r"\{(.*)\}", word)
            for part in found[1].split(",") if found else [""]:
                names.add(prefix + (word[: found.start()] + part + word[found.end() :] if found else word))
    return names


def registered() -> set[str]:
    """Return the families of every component's metrics, each in a registry of its own, as they are exposed."""
    names = set()
    for module in pkgutil.iter_modules(obs.__path__):
        for _, kind in inspect.getmembers(importlib.import_module(f"mimir_ingest.obs.{module.name}"), inspect.isclass):
            if not kind.__module__.startswith(obs.__name__) or not hasattr(kind, "create"):
                continue
            registry = CollectorRegistry()
            kind.create(registry, **_further(kind))
            for family in registry.collect():
                names.add(family.name + ("_total" if family.type == "counter" else ""))
    return names


def _further(kind: type) -> dict:
    parameters = list(inspect.signature(kind.create).parameters.values())[1:]
    return {p.name: p.name for p in parameters if p.default is inspect.Parameter.empty}


def test_every_metric_of_the_specification_is_there_or_left_out_for_a_reason():
    missing = listed() - registered()
    assert missing == set(LEFT_OUT)


@pytest.fixture
def ingester():
    registry = CollectorRegistry()
    consumption = ConsumptionMetrics(IngesterMetrics.create(registry), IngestionRates(period_s=15, now_s=0))
    return consumption, lambda name, **labels: registry.get_sample_value(f"cortex_ingester_tsdb_{name}", labels)


def test_exemplars_in_memory_are_told_by_tenant_and_gone_with_it(ingester):
    consumption, value = ingester
    consumption.exemplars_held({"a": (5, 2, 1_500), "b": (1, 1, 7_000)})
    assert value("exemplar_exemplars_in_storage") == 6
    assert value("exemplar_series_with_exemplars_in_storage", user="a") == 2
    assert value("exemplar_last_exemplars_timestamp_seconds", user="a") == 1.5
    consumption.exemplars_held({"b": (1, 1, 7_000)})
    assert value("exemplar_exemplars_in_storage") == 1
    assert value("exemplar_series_with_exemplars_in_storage", user="a") is None
    assert value("exemplar_last_exemplars_timestamp_seconds", user="b") == 7


def test_the_time_of_a_cut_is_observed_once_it_is_in_the_bucket(ingester):
    consumption, value = ingester
    for partition in (1, 2):
        consumption.cut_begun(partition)
    consumption.cut_shipped(1)
    consumption.cut_ended(2)
    assert value("compaction_duration_seconds_count") == 1
