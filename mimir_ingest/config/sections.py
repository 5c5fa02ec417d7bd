"""Typed, frozen sections of the configuration: exactly the keys that this program reads, each with its meaning.

A field is named like its YAML key; type, default and flag stand in the key tables, so nothing is said twice. A key of
the tables without a field here (or in `limits.Limits`) is accepted and has no effect; `stand_ins` says what stands in
its place. Durations are `Duration` (`.seconds`, `.ms`), sizes are bytes, secrets are `SecretStr`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, SecretStr

from mimir_ingest.config.durations import Duration

Span = InstanceOf[Duration]


def said(text: str) -> Any:
    """Describe a field, for help and the reference page."""
    return Field(description=text)


class Section(BaseModel):
    """Base of all sections: immutable, no unknown fields, no conversion behind the back of `values`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ApiSection(Section):
    """`api`"""

    skip_label_name_validation_header_enabled: Annotated[
        bool, said("Let a push skip label name validation with the header X-Mimir-SkipLabelNameValidation: true.")
    ]
    skip_label_count_validation_header_enabled: Annotated[
        bool, said("Let a push skip the label count limit with the header X-Mimir-SkipLabelCountValidation: true.")
    ]
    otlp_translation_headers_enabled: bool
    prometheus_http_prefix: Annotated[str, said("Path prefix of Prometheus's query API.")]


class TlsSection(Section):
    """`server.http_tls_config`, `server.grpc_tls_config`"""

    cert: Annotated[str, said("The server's certificate itself, as PEM, in the place of cert_file.")]
    key: Annotated[SecretStr, said("The certificate's key itself, as PEM, in the place of key_file.")]
    client_ca: Annotated[str, said("The authorities themselves, as PEM, in the place of client_ca_file.")]
    cert_file: Annotated[
        str, said("PEM file with the server's certificate; with its key turns TLS on. Read again when it changes.")
    ]
    key_file: Annotated[str, said("PEM file with the certificate's key.")]
    client_auth_type: Annotated[
        str,
        said(
            "What is asked of clients: empty or NoClientCert, VerifyClientCertIfGiven, or RequireAndVerifyClientCert."
        ),
    ]
    client_ca_file: Annotated[str, said("PEM file with the authorities that sign client certificates.")]


class ServerSection(Section):
    """`server`"""

    http_listen_address: Annotated[str, said("Address to listen on; empty is all addresses.")]
    http_listen_port: Annotated[int, said("Port to listen on; 0 takes a free one.")]
    http_listen_conn_limit: Annotated[
        int, said("Connections open at a time on a listener; further ones are answered 503. 0 is no limit.")
    ]
    grpc_listen_address: Annotated[
        str,
        said(
            "Address of the listener for this cluster's own processes, which speaks HTTP. Empty is all addresses; with "
            "the embedded log, which one machine shares, the loopback."
        ),
    ]
    grpc_listen_port: Annotated[int, said("Port of that listener; 0 takes a free one.")]
    admin_listen_address: str
    admin_listen_port: int
    tls_cipher_suites: Annotated[
        str, said("Cipher suites of the listeners by Go's names, comma-separated; empty is Python's choice.")
    ]
    tls_min_version: Annotated[str, said("Lowest TLS version of the listeners: VersionTLS12 (also empty) or others.")]
    http_tls_config: TlsSection
    grpc_tls_config: TlsSection
    register_instrumentation: Annotated[bool, said("Serve /metrics.")]
    graceful_shutdown_timeout: Annotated[Span, said("Time allowed to open requests when the process stops.")]
    http_server_read_timeout: Annotated[
        Span, said("Time in which a request must have arrived, its body included; 0 is no limit.")
    ]
    http_server_read_header_timeout: Annotated[
        Span, said("Time in which a request's headers must have arrived; 0 is http_server_read_timeout.")
    ]
    http_server_write_timeout: Annotated[
        Span, said("Time from a request's headers to the end of its answer; 0 is no limit.")
    ]
    http_server_idle_timeout: Annotated[Span, said("How long an idle connection is kept open.")]
    log_format: Annotated[str, said("Form of log lines: logfmt or json.")]
    log_level: Annotated[str, said("Lowest level logged: debug, info, warn or error.")]
    log_request_at_info_level_enabled: Annotated[bool, said("Log requests at level info rather than debug.")]
    http_path_prefix: Annotated[str, said("Prefix of every path, those of /ready and /metrics included.")]


class AuthSection(Section):
    """`auth`"""

    credentials_file: str


class GrpcClientSection(Section):
    """`ingester_client.grpc_client_config`: requests to the internal listeners of other processes, over HTTP"""

    tls_enabled: Annotated[bool, said("Reach other processes over TLS; their server.grpc_tls_config must be set.")]
    tls_cert_path: Annotated[str, said("PEM file with the client certificate; needs tls_key_path.")]
    tls_key_path: Annotated[str, said("PEM file with the client certificate's key; needs tls_cert_path.")]
    tls_ca_path: Annotated[
        str, said("PEM file with the authorities that other processes' certificates are checked against.")
    ]
    tls_server_name: Annotated[
        str, said("Name expected in other processes' certificates; empty is the address in the ring.")
    ]
    tls_insecure_skip_verify: Annotated[bool, said("Do not check other processes' certificates. For tests only.")]
    tls_cipher_suites: Annotated[str, said("Cipher suites by Go's names, comma-separated; empty is Python's choice.")]
    tls_min_version: Annotated[str, said("Lowest TLS version: VersionTLS12 (also empty) or others.")]


class IngesterClientSection(Section):
    """`ingester_client`"""

    grpc_client_config: GrpcClientSection


class RetryAfterSection(Section):
    """`distributor.retry_after_header`"""

    enabled: Annotated[bool, said("Send Retry-After with answers 429 and 5xx to a push.")]
    min_backoff: Annotated[Span, said("Smallest wait asked for; at least 1s.")]
    max_backoff: Annotated[Span, said("Largest wait asked for; at least 1s.")]


class DistributorLimitsSection(Section):
    """`distributor.instance_limits`; overridden by `distributor_limits` of the runtime configuration."""

    max_ingestion_rate: Annotated[float, said("Samples a second that this process takes; 0 is no limit.")]
    max_inflight_push_requests: Annotated[int, said("Pushes served at a time; 0 is no limit.")]
    max_inflight_push_requests_bytes: Annotated[int, said("Bytes of pushes served at a time; 0 is no limit.")]


class DistributorRingSection(Section):
    """`distributor.ring`"""

    instance_id: Annotated[
        str, said("Name of this distributor in the ring. Not set: that of the ingester, or host and port.")
    ]
    instance_addr: Annotated[str, said("Address written into the ring; empty finds one.")]
    instance_interface_names: Annotated[
        tuple[str, ...], said("Interfaces whose address is taken, the first that has one.")
    ]
    instance_port: Annotated[int, said("Port written into the ring; 0 is the one listened on.")]
    heartbeat_period: Annotated[Span, said("How often this distributor says that it is alive.")]
    heartbeat_timeout: Annotated[Span, said("Silence after which a distributor no longer counts.")]
    auto_forget_unhealthy_periods: Annotated[
        int,
        said("Heartbeat timeouts of silence after which the others remove a distributor from the ring; 0 is never."),
    ]


class HaTrackerSection(Section):
    """`distributor.ha_tracker`"""

    enable_ha_tracker: Annotated[
        bool,
        said(
            "Take the samples of one replica of each cluster, of tenants with limits.accept_ha_samples. Not set: every "
            "replica's samples are taken."
        ),
    ]
    enable_elected_replica_metric: Annotated[
        bool, said("Show the elected replicas by name in cortex_ha_tracker_elected_replica_status.")
    ]


class DistributorSection(Section):
    """`distributor`"""

    ring: DistributorRingSection
    ha_tracker: HaTrackerSection
    retry_after_header: RetryAfterSection
    max_recv_msg_size: Annotated[int, said("Largest body of a push, compressed or not (bytes).")]
    max_otlp_request_size: Annotated[int, said("Largest body of OTLP metrics, compressed or not (bytes).")]
    influx_endpoint_enabled: Annotated[bool, said("Serve /api/v1/push/influx/write.")]
    max_influx_request_size: Annotated[int, said("Largest body of Influx lines, compressed or not (bytes).")]
    remote_timeout: Annotated[Span, said("Time allowed to the log before a push fails.")]
    instance_limits: DistributorLimitsSection


class IngesterRingSection(Section):
    """`ingester.ring`"""

    instance_id: Annotated[
        str,
        said(
            "Name of this process: in the rings, as consumer group, in the label instance of its own metrics. With "
            "ingester.partition_ring.ownership=instance-id the number at its end is the partition that it owns."
        ),
    ]
    instance_addr: Annotated[str, said("Address at which others reach this ingester; empty finds one.")]
    instance_interface_names: Annotated[
        tuple[str, ...], said("Interfaces whose address is taken, the first that has one.")
    ]
    instance_port: Annotated[int, said("Port written into the ring; 0 is the one listened on.")]
    instance_availability_zone: Annotated[
        str, said("Zone of this ingester. Each partition has one owner in every zone.")
    ]
    heartbeat_period: Annotated[Span, said("How often this ingester says that it is alive.")]
    heartbeat_timeout: Annotated[Span, said("Silence after which an ingester is not asked any more.")]
    unregister_on_shutdown: Annotated[bool, said("Leave the ring when the process stops.")]
    min_ready_duration: Span


class PartitionRingSection(Section):
    """`ingester.partition_ring`"""

    ownership: str
    min_partition_owners_count: Annotated[int, said("Owners that a PENDING partition needs to become ACTIVE; 0: none.")]
    min_partition_owners_duration: Annotated[
        Span, said("How long a PENDING partition must have had these owners before it becomes ACTIVE.")
    ]
    delete_inactive_partition_after: Annotated[
        Span, said("How long an INACTIVE partition without owners is kept in the ring; 0 keeps it.")
    ]


class IngesterLimitsSection(Section):
    """`ingester.instance_limits`; overridden by `ingester_limits` of the runtime configuration."""

    max_tenants: Annotated[int, said("Tenants in memory at which this process takes no pushes of others; 0: no limit.")]
    max_series: Annotated[int, said("Series in memory at which this process takes no pushes with new ones; 0: none.")]


class IngesterSection(Section):
    """`ingester`"""

    ring: IngesterRingSection
    partition_ring: PartitionRingSection
    metadata_retain_period: Annotated[Span, said("How long metric metadata is kept after it was last received.")]
    track_ingester_owned_series: Annotated[bool, said("Count owned series in a metric, for autoscaling.")]
    owned_series_update_interval: Annotated[Span, said("How often owned series are counted.")]
    rate_update_period: Annotated[Span, said("How often the ingestion rates of statistics pages are updated.")]
    active_series_metrics_enabled: Annotated[bool, said("Count active series in metrics.")]
    active_series_metrics_update_period: Annotated[Span, said("How often active series are counted.")]
    active_series_metrics_idle_timeout: Annotated[
        Span, said("How long after its last sample (as the log has it) a series is active.")
    ]
    instance_limits: IngesterLimitsSection
    ignore_series_limit_for_metric_names: Annotated[
        str, said("Metrics without a limit of their series, comma-separated. Read where pushes are taken.")
    ]


class KafkaSection(Section):
    """`ingest_storage.kafka`"""

    address: Annotated[str, said("Kafka's seed brokers, host:port, comma-separated.")]
    topic: Annotated[str, said("Topic that samples are written to and read from.")]
    ring_topic: str
    ha_tracker_topic: str
    client_id: Annotated[str, said("Client id sent to Kafka.")]
    client_rack: str
    dial_timeout: Annotated[Span, said("Time allowed to open a connection to a broker.")]
    write_timeout: Annotated[Span, said("Time allowed to deliver a record.")]
    wait_strong_read_consistency_timeout: Annotated[
        Span, said("How long a read waits for the offsets that it demands; 0 is as long as the query may take.")
    ]
    write_timeout_overhead: Span
    sasl_username: Annotated[str, said("SASL user name; empty turns SASL off for PLAIN and SCRAM.")]
    sasl_password: Annotated[SecretStr, said("SASL password.")]
    sasl_mechanism: Annotated[str, said("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.")]
    sasl_oauthbearer_token: SecretStr
    sasl_oauthbearer_extensions: dict[str, str]
    sasl_oauthbearer_file_path: str
    tls_enabled: bool
    tls_ca_path: str
    tls_cert_path: str
    tls_key_path: str
    tls_insecure_skip_verify: bool
    tls_cipher_suites: str
    tls_min_version: str
    consumer_group: Annotated[
        str, said("Consumer group that positions are committed under; <partition> is replaced. Empty: instance id.")
    ]
    last_produced_offset_retry_timeout: Annotated[Span, said("Time allowed to find a partition's end.")]
    auto_create_topic_enabled: Annotated[bool, said("Create the topic when it is missing.")]
    auto_create_topic_default_partitions: Annotated[int, said("Partitions of a created topic; -1 is the broker's.")]
    producer_max_record_size_bytes: Annotated[int, said("Largest record written (bytes).")]
    producer_max_buffered_bytes: Annotated[int, said("Bytes that may wait for acknowledgement; 0 is no limit.")]
    producer_record_version: Annotated[int, said("Version of Mimir's record format to write: 0 or 1.")]
    producer_compression: str
    fetch_max_wait: Annotated[Span, said("Longest time that a broker holds back an empty fetch.")]
    max_buffered_bytes: Annotated[int, said("Bytes read ahead of ingestion, all partitions together.")]


class EmbeddedLogSection(Section):
    """`ingest_storage.embedded`"""

    path: str
    partitions: int
    trim_delay: Span


class IngestStorageSection(Section):
    """`ingest_storage`"""

    log: str
    record_format: str
    kafka: KafkaSection
    embedded: EmbeddedLogSection
    snapshot_interval: Span
    retention_after_cut: Span


class S3Section(Section):
    """`blocks_storage.s3`"""

    endpoint: Annotated[str, said("Host and port of the S3 service, without a scheme.")]
    region: Annotated[str, said("Region; empty lets the client find it.")]
    bucket_name: Annotated[str, said("Bucket.")]
    secret_access_key: Annotated[SecretStr, said("Secret access key.")]
    access_key_id: Annotated[str, said("Access key id.")]
    session_token: Annotated[SecretStr, said("Session token.")]
    insecure: Annotated[bool, said("Use HTTP, not HTTPS.")]
    bucket_lookup_type: Annotated[str, said("auto, path or virtual-hosted.")]
    storage_class: Annotated[str, said("Storage class of objects written; empty is the bucket's.")]


class GcsSection(Section):
    """`blocks_storage.gcs` (needs the extra `gcs`)"""

    bucket_name: Annotated[str, said("Bucket.")]
    service_account: Annotated[SecretStr, said("Service account key as JSON; empty takes the machine's.")]


class AzureSection(Section):
    """`blocks_storage.azure` (needs the extra `azure`)"""

    account_name: Annotated[str, said("Storage account.")]
    account_key: Annotated[SecretStr, said("Account key.")]
    connection_string: Annotated[SecretStr, said("Connection string; wins over name and key.")]
    container_name: Annotated[str, said("Container.")]


class FilesystemSection(Section):
    """`blocks_storage.filesystem`"""

    dir: str


class TsdbSection(Section):
    """`blocks_storage.tsdb`"""

    dir: str
    ship_concurrency: Annotated[int, said("Blocks uploaded at a time.")]
    flush_blocks_on_shutdown: Annotated[bool, said("Cut and ship everything held when the process stops.")]


class BucketIndexSection(Section):
    """`blocks_storage.bucket_store.bucket_index`"""

    idle_timeout: Annotated[Span, said("How long a tenant's list of blocks is kept that nobody asks for.")]


class IndexHeaderSection(Section):
    """`blocks_storage.bucket_store.index_header`"""

    lazy_loading_idle_timeout: Annotated[
        Span, said("How long a block stays open that nobody reads; 0 is until its room is wanted.")
    ]


class BucketStoreSection(Section):
    """`blocks_storage.bucket_store`"""

    bucket_index: BucketIndexSection
    index_header: IndexHeaderSection


class BlocksStorageSection(Section):
    """`blocks_storage`; keys of `common.storage` fill what is not set here."""

    backend: Annotated[str, said("Where blocks are kept: filesystem, s3, gcs, azure, or memory (lost at exit).")]
    storage_prefix: Annotated[str, said("Prefix of all objects; letters and digits.")]
    s3: S3Section
    gcs: GcsSection
    azure: AzureSection
    filesystem: FilesystemSection
    bucket_store: BucketStoreSection
    tsdb: TsdbSection


class QuerierSection(Section):
    """`querier`"""

    max_concurrent: Annotated[int, said("Queries evaluated at a time.")]
    timeout: Annotated[Span, said("Longest time of a query.")]
    max_samples: Annotated[int, said("Samples that a query may load into memory.")]
    prefer_availability_zones: Annotated[
        str, said("Zones whose ingesters are asked first, comma-separated; the others when these fail.")
    ]
    minimize_ingester_requests_hedging_delay: Annotated[
        Span, said("How long an ingester is waited for before another one is asked as well; 0 is for ever.")
    ]
    shuffle_sharding_ingesters_enabled: Annotated[
        bool, said("Ask only the partitions that a tenant's series may be in; false asks all.")
    ]
    default_evaluation_interval: Annotated[Span, said("Step of subqueries that name none.")]
    lookback_delta: Annotated[Span, said("How far an instant vector looks back for a sample.")]


class FrontendSection(Section):
    """`frontend`"""

    query_stats_enabled: Annotated[
        bool, said("Tell what a query cost, in its answer's Server-Timing and in metrics by tenant.")
    ]
    shard_active_series_queries: Annotated[
        bool,
        said("Count active series in shards, as Sharding-Control asks, and bound each shard instead of an answer."),
    ]


class TenantFederationSection(Section):
    """`tenant_federation`"""

    enabled: Annotated[bool, said("Allow queries of several tenants, a|b in X-Scope-OrgID.")]
    max_concurrent: Annotated[int, said("Tenants of one query that are read at a time.")]
    max_tenants: Annotated[int, said("Tenants that a query may name; 0 is no limit.")]


class RuntimeConfigSection(Section):
    """`runtime_config`"""

    period: Annotated[Span, said("How often the files are read again.")]
    file: Annotated[str, said("YAML files with overrides, comma-separated; maps merge, later files win.")]


class SelfMonitoringSection(Section):
    """`self_monitoring`"""

    enabled: bool
    interval: Span
    tenant: str
