"""What stands in the place of Mimir's keys that have no effect here, by the longest matching prefix of the path.

The texts are shown at start-up, one line for each such key that somebody sets, so they say why the setting can be
dropped or which one to use.
"""

from __future__ import annotations

import re

_ALERTS = "there is no Alertmanager here; point Prometheus's or Grafana's alerting at one of your own"
_RING = "ring state lives in the log itself; there is no membership service to run"
_TOKENS = "ingesters have no tokens; partitions have, and they follow from their numbers"
_CLIENT = "components of one process call each other directly; between processes there is HTTP, not gRPC"

_PREFIXES: dict[str, str] = {
    "activity_tracker": "requests in progress are in the log (server.log_level debug)",
    "alertmanager": _ALERTS,
    "alertmanager_storage": _ALERTS,
    "api.alertmanager_http_prefix": "there is no Alertmanager here",
    "blocks_storage.bucket_store": "the querier reads blocks from the bucket itself and sizes its own caches",
    "blocks_storage.swift": "Swift is not among the backends; use its S3 interface with blocks_storage.s3",
    "blocks_storage.tsdb": "the head, its cuts and its shipping follow the log; there is no local WAL to tune",
    "blocks_storage.tsdb.retention_period": "ingest_storage.retention_after_cut says it for memory; blocks stay",
    "blocks_storage.s3.sse": "set the bucket's default encryption; objects are written without a choice of their own",
    "blocks_storage.s3": "the S3 client's own defaults",
    "blocks_storage.gcs": "the GCS client's own defaults",
    "blocks_storage.azure": "the Azure client's own defaults",
    "common.client_cluster_validation": _CLIENT,
    "common.instrument_ref_leaks": "memory is managed by Python; there are no reference counts to watch",
    "common.storage.swift": "Swift is not among the backends; use its S3 interface with common.storage.s3",
    "common.storage": "only the keys that blocks_storage reads are taken from common.storage",
    "compactor": "blocks are cut once for all replicas and not merged; Mimir's compactor can run on this bucket",
    "cost_attribution": "cost attribution is not kept",
    "distributor.ha_tracker": "elections are kept where the rings are: beside the embedded log, or in a Kafka topic",
    "distributor.pool": _CLIENT,
    "distributor.ring": _RING,
    "distributor.ring.instance_enable_ipv6": "set distributor.ring.instance_addr to the IPv6 address",
    "distributor": "the distributor appends columns to the log; it has no buffers or workers to tune",
    "enable_go_runtime_metrics": "Python's own runtime metrics are always on",
    "frontend": "the querier answers queries itself; there is no separate front end or results cache",
    "frontend_worker": "the querier answers queries itself; there is no queue to take work from",
    "include_tenant_id_in_profile_labels": "there are no Go profiles",
    "ingest_storage.enabled": "every write goes through the log, always",
    "ingest_storage.kafka.consume_from": "an ingester starts where its snapshot, its checkpoint or the log says",
    "ingest_storage.kafka.consumer_group_offset_commit_file_enforced": "nothing is decided by the committed position",
    "ingest_storage.kafka.consumer_group_offset_commit_interval": "positions are committed at checkpoints",
    "ingest_storage.kafka.fetch_concurrency_max": "one consumer a partition reads ahead up to max_buffered_bytes",
    "ingest_storage.kafka.ingestion_concurrency": "records are applied as columns, one kernel call a record",
    "ingest_storage.kafka.last_produced_offset_poll_interval": "a partition's end is read when it is asked for",
    "ingest_storage.kafka.max_consumer_lag_at_startup": "ready means: has all that the log held at the start",
    "ingest_storage.kafka.target_consumer_lag_at_startup": "ready means: has all that the log held at the start",
    "ingest_storage.kafka.sasl_msk_iam": "use sasl_mechanism SCRAM-SHA-512, which MSK takes too",
    "ingest_storage.kafka.sasl_oauthbearer": "give the token by sasl_oauthbearer_token or sasl_oauthbearer_file_path",
    "ingest_storage.kafka.tls_server_name": "the name in kafka.address is the one that is checked",
    "ingest_storage.kafka.use_compressed_bytes_as_fetch_max_bytes": "max_buffered_bytes bounds what is read ahead",
    "ingest_storage.kafka.write_clients": "one producer serves all partitions",
    "ingest_storage.migration": "there is no other write path to migrate from; a topic can be shared with Mimir",
    "ingest_storage.write_logs_fsync_before_kafka_commit_concurrency": "there is no local write-ahead log",
    "ingester.partition_ring": _RING,
    "ingester.ring": _RING,
    "ingester.ring.final_sleep": "who reads the ring sees that an ingester leaves; nothing has to spread",
    "ingester.ring.instance_enable_ipv6": "set ingester.ring.instance_addr to the IPv6 address",
    "ingester.ring.num_tokens": _TOKENS,
    "ingester.ring.observe_period": _TOKENS,
    "ingester.ring.replication_factor": "every partition has one owner in each zone, however many zones there are",
    "ingester.ring.spread_minimizing": _TOKENS,
    "ingester.ring.token": _TOKENS,
    "ingester.ring.excluded_zones": "use querier.prefer_availability_zones; what a zone owns stays readable",
    "ingester.ring.zone_awareness_enabled": "zones always count: every partition has one owner in each",
    "ingester": "the ingester's content follows the log alone",
    "ingester.instance_limits": "an ingester takes what the log has; pushes are limited by distributor.instance_limits",
    "ingester_client": _CLIENT,
    "server.http_listen_network": "IPv4 or IPv6 follows from the address",
    "limits.alertmanager": "there is no Alertmanager here",
    "limits.compactor": "blocks are cut once for all replicas, so none are compacted here",
    "limits.cost_attribution": "cost attribution is not kept",
    "limits.ignore_ooo_exemplars": "exemplars out of order are dropped and counted; no sender is told of them",
    "limits.max_cost_attribution": "cost attribution is not kept",
    "limits.max_estimated_fetched_chunks": "chunks are counted before they are read: max_fetched_chunks_per_query",
    "limits.max_estimated_memory": "querier.max_samples and the limits on what is fetched bound a query's memory",
    "limits.max_queriers_per_tenant": "a querier answers whoever asks it; requests are spread in front of it",
    "limits.max_query_parallelism": "a query is not split; it runs over all series at once",
    "limits.results_cache": "there is no results cache",
    "limits.query_sharding": "a query runs over all series at once, in columns",
    "limits.ruler": "rules are not evaluated here; run them in Prometheus against this query API",
    "limits.store_gateway": "the querier reads blocks from the bucket itself",
    "limits.s3_sse": "blocks_storage.s3.sse applies to all tenants",
    "limits": "this limit is not applied",
    "memberlist": _RING,
    "overrides_exporter": "limits in force are at /runtime_config",
    "querier.mimir_query_engine": "there is one query engine, and its plan needs no switches",
    "querier.ring": _RING,
    "querier.store_gateway_client": _CLIENT,
    "querier.minimize_ingester_requests": "one owner of a partition is always enough, so no more are asked at first",
    "querier.query_store_after": "every query asks both heads and bucket, and checks that together they are complete",
    "querier": "the querier reads the log's owners and the bucket; there is nothing to choose",
    "query_scheduler": "the querier answers queries itself; there is no queue between",
    "ruler": "rules are not evaluated here; run them in Prometheus against this query API",
    "ruler_storage": "rules are not evaluated here; run them in Prometheus against this query API",
    "server.cluster_validation": "use server.http_tls_config with client certificates",
    "server.grpc": "there is no gRPC server; everything is HTTP",
    "server.report_grpc": "there is no gRPC server; everything is HTTP",
    "server.log": "request logs have one fixed form",
    "server.trace": "traces are not written",
    "server.create_new_traces": "traces are not written",
    "server": "the HTTP server's own defaults",
    "store_gateway": "the querier reads blocks from the bucket itself",
    "timeseries_unmarshal_caching_optimization_enabled": "push bodies are decoded into columns by a kernel",
    "usage_stats": "nothing is ever reported to anybody",
    "vault": "pass secrets by ${NAME} with -config.expand-env",
}
_SHARED = re.compile(r"\.(kvstore|memcached|grpc_client_config|etcd|consul)\.")
_SHARED_TEXT = {
    "kvstore": _RING,
    "etcd": _RING,
    "consul": _RING,
    "memcached": "caches are in this process's memory",
    "grpc_client_config": _CLIENT,
}


def stand_in(path: str) -> str:
    """Return what stands in the place of a key without effect."""
    best = max((prefix for prefix in _PREFIXES if path.startswith(prefix)), key=len, default=None)
    if best is not None and "." in best:
        return _PREFIXES[best]
    if (shared := _SHARED.search(path)) is not None:
        return _SHARED_TEXT[shared[1]]
    return _PREFIXES[best] if best is not None else "nothing needs it here"
