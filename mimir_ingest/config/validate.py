"""Checks across keys. Each problem names the keys it is about, with the values, and says what would be right.

Pure: values in, sentences out. The rules on Kafka are Mimir's (address and topic, SASL, lags, sizes, versions), applied
only when the Kafka log is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mimir_ingest.config.effective import EffectiveConfig
from mimir_ingest.config.limits import limit_problems
from mimir_ingest.config.targets import COMPONENTS, GROUPS, MIMIR_ONLY, names
from mimir_ingest.config.tls_names import CIPHERS, TLS13_CIPHERS, VERSIONS, suites

MIN_RECORD_BYTES, MAX_RECORD_BYTES = 1 << 20, 15_983_616
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "ingest_storage.log": ("embedded", "kafka"),
    "ingester.partition_ring.ownership": ("leases", "instance-id"),
    "ingest_storage.record_format": ("columnar", "mimir"),
    "blocks_storage.backend": ("filesystem", "s3", "gcs", "azure", "memory"),
    "blocks_storage.s3.bucket_lookup_type": ("auto", "path", "virtual-hosted", "virtual-host"),
    "server.log_format": ("logfmt", "json"),
    "server.log_level": ("debug", "info", "warn", "error"),
}
_NOT_NEGATIVE = (
    "shutdown_delay",
    "server.graceful_shutdown_timeout",
    "server.http_server_read_timeout",
    "server.http_server_read_header_timeout",
    "server.http_server_write_timeout",
    "server.http_server_idle_timeout",
    "server.http_listen_conn_limit",
    "ingest_storage.snapshot_interval",
    "ingest_storage.retention_after_cut",
    "blocks_storage.bucket_store.index_header.lazy_loading_idle_timeout",
    "distributor.instance_limits.max_ingestion_rate",
    "distributor.instance_limits.max_inflight_push_requests",
    "distributor.instance_limits.max_inflight_push_requests_bytes",
    "ingester.ring.min_ready_duration",
    "ingester.ring.heartbeat_period",
    "ingester.ring.heartbeat_timeout",
    "distributor.ring.heartbeat_period",
    "distributor.ring.heartbeat_timeout",
    "ingester.partition_ring.min_partition_owners_count",
    "ingester.partition_ring.min_partition_owners_duration",
    "ingester.partition_ring.delete_inactive_partition_after",
    "querier.minimize_ingester_requests_hedging_delay",
)
_POSITIVE = (
    "distributor.max_recv_msg_size",
    "distributor.max_otlp_request_size",
    "distributor.remote_timeout",
    "querier.max_concurrent",
    "tenant_federation.max_concurrent",
    "querier.timeout",
    "querier.lookback_delta",
    "querier.default_evaluation_interval",
    "runtime_config.period",
    "self_monitoring.interval",
    "ingest_storage.embedded.partitions",
    "blocks_storage.tsdb.ship_concurrency",
    "blocks_storage.bucket_store.bucket_index.idle_timeout",
    "ingester.rate_update_period",
    "ingester.active_series_metrics_update_period",
    "ingester.active_series_metrics_idle_timeout",
    "ingester.owned_series_update_interval",
)
_TENANT = re.compile(r"[A-Za-z0-9!\-_.*'()]{1,150}")


def problems(effective: EffectiveConfig) -> list[str]:
    """Return everything that is wrong, in a stable order; empty when the configuration can be used."""
    values = effective.values
    found: list[str] = []
    for check in _CHECKS:
        found += check(values)
    found += limit_problems({path[7:]: value for path, value in values.items() if path.startswith("limits.")})
    return found


def _choices(values: Mapping[str, Any]) -> Iterator[str]:
    for path, choices in _CHOICES.items():
        if values[path] not in choices:
            listed = ", ".join(choice for choice in choices if choice)
            yield f'{path} is "{values[path]}"; it takes {listed}'


def _ranges(values: Mapping[str, Any]) -> Iterator[str]:
    for path in _NOT_NEGATIVE:
        if values[path] < 0:
            yield f"{path} is {values[path]}; it cannot be negative"
    for path in _POSITIVE:
        if values[path] <= 0:
            yield f"{path} is {values[path]}; it must be above zero"
    for path in ("server.http_listen_port", "server.grpc_listen_port", "server.admin_listen_port"):
        if not 0 <= values[path] <= 65535:
            yield f"{path} is {values[path]}; a port is 0 to 65535"


def _targets(values: Mapping[str, Any]) -> Iterator[str]:
    named = names(values["target"])
    if not named:
        yield "target is empty; it takes all, or the components to run"
    taken = ", ".join((*GROUPS, *COMPONENTS))
    for name in named:
        if name in MIMIR_ONLY:
            yield f'target names "{name}", a component of Mimir\'s that is not here; it takes {taken}'
        elif name not in COMPONENTS and name not in GROUPS:
            yield f'target names "{name}"; it takes {taken}'


def _tenants(values: Mapping[str, Any]) -> Iterator[str]:
    for path in ("no_auth_tenant", "self_monitoring.tenant"):
        if not _TENANT.fullmatch(values[path]) or values[path] in (".", "..", "__mimir_cluster"):
            yield f'{path} is "{values[path]}", not a tenant id: 1 to 150 letters, digits and !-_.*\'()'


def _prefixes(values: Mapping[str, Any]) -> Iterator[str]:
    if not values["api.prometheus_http_prefix"].strip("/"):
        yield "api.prometheus_http_prefix is empty; the query API needs a prefix of its own, such as /prometheus"
    for path in ("api.prometheus_http_prefix", "server.http_path_prefix"):
        if values[path] and not values[path].startswith("/"):
            yield f'{path} is "{values[path]}"; it must start with a slash'


def _server(values: Mapping[str, Any]) -> Iterator[str]:
    yield from _listener_tls(values, "server.http_tls_config.")
    yield from _listener_tls(values, "server.grpc_tls_config.")
    yield from _tls_bounds(values, "server.")
    admin = values["server.admin_listen_port"]
    if admin and admin == values["server.http_listen_port"]:
        yield f"server.admin_listen_port and server.http_listen_port are both {admin}; they must differ"
    client = "ingester_client.grpc_client_config."
    yield from _tls_bounds(values, client)
    if bool(values[client + "tls_cert_path"]) != bool(values[client + "tls_key_path"]):
        yield f"{client}tls_cert_path and {client}tls_key_path must both be set or both be empty"


def _listener_tls(values: Mapping[str, Any], tls: str) -> Iterator[str]:
    for inline, file in (("cert", "cert_file"), ("key", "key_file"), ("client_ca", "client_ca_file")):
        if values[tls + inline] and values[tls + file]:
            yield f"{tls}{inline} and {tls}{file} are both set; set one"
    cert, key, authorities = (
        bool(values[tls + name] or values[f"{tls}{name}_file"]) for name in ("cert", "key", "client_ca")
    )
    if cert != key:
        yield f"{tls}cert_file and {tls}key_file must both be set or both be empty"
    auth = values[tls + "client_auth_type"]
    if auth in ("RequestClientCert", "RequireAnyClientCert"):
        yield (
            f"{tls}client_auth_type is {auth}, which takes any certificate unverified; set VerifyClientCertIfGiven or "
            "RequireAndVerifyClientCert"
        )
    elif auth not in ("", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"):
        yield (
            f'{tls}client_auth_type is "{auth}"; it takes NoClientCert, VerifyClientCertIfGiven or '
            "RequireAndVerifyClientCert"
        )
    elif auth not in ("", "NoClientCert"):
        if not authorities:
            yield f"{tls}client_auth_type asks for client certificates, so {tls}client_ca_file must be set"
        if not cert:
            yield f"{tls}client_auth_type asks for client certificates, so {tls}cert_file and key_file must be set"
    if authorities and auth in ("", "NoClientCert"):
        yield (
            f"{tls}client_ca_file is set, but {tls}client_auth_type asks for no client certificates; set "
            "RequireAndVerifyClientCert"
        )


def _tls_bounds(values: Mapping[str, Any], section: str) -> Iterator[str]:
    version = values[section + "tls_min_version"]
    if version and version not in VERSIONS:
        yield f'{section}tls_min_version is "{version}"; it takes {", ".join(VERSIONS)}'
    for name in suites(values[section + "tls_cipher_suites"]):
        if name not in CIPHERS and name not in TLS13_CIPHERS:
            yield f'{section}tls_cipher_suites names "{name}"; it takes {", ".join(CIPHERS)}'


def _retry_after(values: Mapping[str, Any]) -> Iterator[str]:
    prefix = "distributor.retry_after_header."
    low, high = values[prefix + "min_backoff"], values[prefix + "max_backoff"]
    if values[prefix + "enabled"] and low.seconds < 1:
        yield f"{prefix}min_backoff is {low}; it must be at least 1s"
    if values[prefix + "enabled"] and high < low:
        yield f"{prefix}max_backoff ({high}) must be at least {prefix}min_backoff ({low})"


def _storage(values: Mapping[str, Any]) -> Iterator[str]:
    backend = values["blocks_storage.backend"]
    needed = {"s3": "s3.bucket_name", "gcs": "gcs.bucket_name", "azure": "azure.container_name"}
    if backend in needed and not values[f"blocks_storage.{needed[backend]}"]:
        yield f"blocks_storage.backend is {backend}, so blocks_storage.{needed[backend]} must be set"
    s3 = "blocks_storage.s3."
    if bool(values[s3 + "access_key_id"]) != bool(values[s3 + "secret_access_key"]):
        yield f"{s3}access_key_id and {s3}secret_access_key must both be set or both be empty"
    if values[s3 + "endpoint"].startswith(("http://", "https://")):
        yield f"{s3}endpoint is host:port without a scheme; for HTTP set {s3}insecure"
    prefix = values["blocks_storage.storage_prefix"]
    if not re.fullmatch(r"[0-9a-zA-Z]*", prefix):
        yield f'blocks_storage.storage_prefix is "{prefix}"; it takes letters and digits'
    if backend == "filesystem" and not values["blocks_storage.filesystem.dir"]:
        yield "blocks_storage.backend is filesystem, so blocks_storage.filesystem.dir must be set"


def _kafka(values: Mapping[str, Any]) -> Iterator[str]:
    if values["ingest_storage.log"] != "kafka":
        return
    kafka = {
        path.rpartition(".")[2]: value for path, value in values.items() if path.startswith("ingest_storage.kafka.")
    }
    for name in ("address", "topic"):
        if not kafka[name]:
            yield f"ingest_storage.log is kafka, so ingest_storage.kafka.{name} must be set"
    size = kafka["producer_max_record_size_bytes"]
    if not MIN_RECORD_BYTES <= size <= MAX_RECORD_BYTES:
        yield f"{_k('producer_max_record_size_bytes')} is {size}; it takes {MIN_RECORD_BYTES} to {MAX_RECORD_BYTES}"
    target, largest = kafka["target_consumer_lag_at_startup"], kafka["max_consumer_lag_at_startup"]
    both = f"{_k('target_consumer_lag_at_startup')} ({target}) and {_k('max_consumer_lag_at_startup')} ({largest})"
    if bool(target) != bool(largest) or target < 0 or largest < 0:
        yield f"{both} must both be zero or both be above zero"
    elif largest < target:
        yield f"{both}: the second must be at least the first"
    if kafka["producer_record_version"] not in (0, 1):
        yield (
            f"{_k('producer_record_version')} is {kafka['producer_record_version']}; versions 0 and 1 can be written, "
            "2 is read only"
        )
    if not 5 <= kafka["fetch_max_wait"].seconds <= 30:
        yield f"{_k('fetch_max_wait')} is {kafka['fetch_max_wait']}; it takes 5s to 30s"
    if kafka["auto_create_topic_default_partitions"] != -1 and kafka["auto_create_topic_default_partitions"] < 1:
        yield f"{_k('auto_create_topic_default_partitions')} must be -1 (the broker's default) or at least 1"
    if not 0 < kafka["max_buffered_bytes"] < (1 << 31) - 1:
        yield f"{_k('max_buffered_bytes')} is {kafka['max_buffered_bytes']}; it must be above 0 and below 2^31-1"
    if kafka["producer_max_buffered_bytes"] < 0:
        yield f"{_k('producer_max_buffered_bytes')} cannot be negative; 0 is no limit"
    if kafka["write_timeout_overhead"].ms < 100:
        yield f"{_k('write_timeout_overhead')} is {kafka['write_timeout_overhead']}; it must be at least 100ms"
    if kafka["producer_compression"] not in _CODECS:
        yield f'{_k("producer_compression")} is "{kafka["producer_compression"]}"; it takes {", ".join(_CODECS)}'
    for name in ("dial_timeout", "write_timeout", "consumer_group_offset_commit_interval"):
        if kafka[name] <= 0:
            yield f"{_k(name)} is {kafka[name]}; it must be above zero"
    if len(kafka["client_id"]) > 255 or not re.fullmatch(r"[a-zA-Z0-9._\-=,]*", kafka["client_id"]):
        yield f"{_k('client_id')} takes at most 255 characters of a-z A-Z 0-9 . _ - = ,"


def _kafka_security(values: Mapping[str, Any]) -> Iterator[str]:
    if values["ingest_storage.log"] != "kafka":
        return
    kafka = {
        path.rpartition(".")[2]: value for path, value in values.items() if path.startswith("ingest_storage.kafka.")
    }
    mechanism = kafka["sasl_mechanism"]
    if mechanism not in _MECHANISMS:
        yield f'{_k("sasl_mechanism")} is "{mechanism}"; it takes {", ".join(_MECHANISMS)}'
    if bool(kafka["sasl_username"]) != bool(kafka["sasl_password"]):
        yield f"{_k('sasl_username')} and {_k('sasl_password')} must both be set or both be empty"
    if mechanism.startswith("SCRAM") and not kafka["sasl_username"]:
        yield f"{_k('sasl_mechanism')} is {mechanism}, so {_k('sasl_username')} and {_k('sasl_password')} must be set"
    ways = ["sasl_oauthbearer_token", "sasl_oauthbearer_file_path"]
    if mechanism == "OAUTHBEARER" and sum(bool(kafka[way]) for way in ways) != 1:
        yield f"{_k('sasl_mechanism')} is {mechanism}, so exactly one of {', '.join(map(_k, ways))} must be set"
    if bool(kafka["tls_cert_path"]) != bool(kafka["tls_key_path"]):
        yield f"{_k('tls_cert_path')} and {_k('tls_key_path')} must both be set or both be empty"
    if kafka["tls_min_version"] not in ("", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"):
        yield f'{_k("tls_min_version")} is "{kafka["tls_min_version"]}"; it takes VersionTLS12 or VersionTLS13'


def _k(name: str) -> str:
    return f"ingest_storage.kafka.{name}"


_CHECKS: tuple[Callable[[Mapping[str, Any]], Iterator[str]], ...] = (
    _choices, _ranges, _targets, _tenants, _prefixes, _server, _retry_after, _storage,
    _kafka, _kafka_security,
)  # fmt: skip
