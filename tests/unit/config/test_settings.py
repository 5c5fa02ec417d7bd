"""Settings: defaults, what follows from other keys, checks across keys, the views of /config."""

import pytest
import yaml

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import mimir_defaults
from mimir_ingest.config.settings import build, load

KAFKA = ["-ingest-storage.kafka.address=broker:9092", "-ingest-storage.kafka.topic=ingest"]


def settings(*argv, file=None, environ=None):
    flags = [*argv, "-config.file=c.yaml"] if file is not None else list(argv)
    return load(flags, environ or {}, lambda path: {"c.yaml": file}[path])[0]


def test_nothing_set_means_one_process_on_local_directories():
    made = settings()
    assert made.effective.plain("diff") == {}
    assert (made.target, made.multitenancy_enabled, made.server.http_listen_port) == ("all", True, 8080)
    assert (made.ingest_storage.log, made.ingest_storage.embedded.path) == ("embedded", "./data/log")
    assert (made.blocks_storage.backend, made.blocks_storage.filesystem.dir) == ("filesystem", "./data/blocks")
    assert made.ingest_storage.kafka.write_timeout.seconds == 10
    assert made.limits.creation_grace_period.ms == 600_000
    assert made.notices == ()


def test_defaults_differ_from_mimirs_only_where_meant():
    mimir = mimir_defaults()
    ours = settings().effective.values
    changed = {path for path, value in mimir.items() if ours[path] != value}
    assert changed == {
        "ingest_storage.enabled",
        "ingester.ring.min_ready_duration",
        "blocks_storage.filesystem.dir",
        "blocks_storage.tsdb.dir",
        "limits.name_validation_scheme",
        "limits.alertmanager_max_grafana_config_size_bytes",
        "limits.alertmanager_max_grafana_state_size_bytes",
    }


def test_settings_are_immutable():
    with pytest.raises(ValueError, match="frozen"):
        settings().server.http_listen_port = 1
    with pytest.raises(AttributeError):
        settings().limits.ingestion_rate = 1


def test_flags_win_over_the_file():
    made = settings("-server.http-listen-port=2", file="server: {http_listen_port: 1, log_level: warn}")
    assert (made.server.http_listen_port, made.server.log_level) == (2, "warn")


def test_the_file_is_expanded_only_when_asked():
    text = "no_auth_tenant: ${TENANT:other}"
    assert settings("-config.expand-env", file=text, environ={"TENANT": "x"}).no_auth_tenant == "x"
    assert settings("-config.expand-env", file=text).no_auth_tenant == "other"
    with pytest.raises(ConfigError, match="no_auth_tenant"):
        settings(file=text)


def test_a_kafka_address_alone_chooses_the_kafka_log():
    assert settings(*KAFKA).ingest_storage.log == "kafka"
    assert settings(*KAFKA, "-ingest-storage.log=embedded").ingest_storage.log == "embedded"


def test_a_record_version_alone_chooses_mimirs_records():
    assert settings().ingest_storage.record_format == "columnar"
    assert settings("-ingest-storage.kafka.producer-record-version=0").ingest_storage.record_format == "mimir"
    both = settings("-ingest-storage.kafka.producer-record-version=1", "-ingest-storage.record-format=columnar")
    assert both.ingest_storage.record_format == "columnar"


def test_common_storage_fills_what_the_section_leaves_open():
    made = settings(
        "-common.storage.backend=s3",
        "-common.storage.s3.bucket-name=shared",
        "-common.storage.s3.endpoint=minio:9000",
        "-blocks-storage.s3.bucket-name=blocks",
    )
    assert made.blocks_storage.backend == "s3"
    assert (made.blocks_storage.s3.bucket_name, made.blocks_storage.s3.endpoint) == ("blocks", "minio:9000")
    assert made.effective.values["ruler_storage.s3.bucket_name"] == "shared"
    assert made.notices == ()


@pytest.mark.parametrize(
    ("flags", "file", "expected"),
    [
        (["-common.storage.backend=filesystem"], "blocks_storage: {backend: s3}", "filesystem"),
        (["-common.storage.backend=filesystem", "-blocks-storage.backend=s3"], "", "s3"),
        (["-blocks-storage.backend=s3"], "common: {storage: {backend: filesystem}}", "s3"),
        ([], "common: {storage: {backend: filesystem}}\nblocks_storage: {backend: s3}", "s3"),
        ([], "common: {storage: {backend: s3}}", "s3"),
    ],
)
def test_a_flag_of_common_storage_counts_more_than_the_sections_key_in_a_file(flags, file, expected):
    bucket = ["-common.storage.s3.bucket-name=b", "-common.storage.s3.endpoint=minio:9000"]
    assert settings(*bucket, *flags, file=file).blocks_storage.backend == expected


def test_a_key_without_effect_is_noticed_once_with_what_stands_in_its_place():
    made = settings("-memberlist.join=a", file="memberlist: {join_members: [b]}\nruler: {poll_interval: 1m}\n")
    assert [notice.key for notice in made.notices] == ["ruler.poll_interval", "memberlist.join_members"]
    assert all(notice.instead for notice in made.notices)


PROBLEMS = [
    (["-ingest-storage.log=kafka"], ["ingest_storage.kafka.address", "ingest_storage.kafka.topic"]),
    (["-ingest-storage.kafka.address=a"], ["ingest_storage.log is kafka", "ingest_storage.kafka.topic"]),
    ([*KAFKA, "-ingest-storage.kafka.sasl-username=u"], ["sasl_username", "sasl_password"]),
    ([*KAFKA, "-ingest-storage.kafka.sasl-mechanism=SCRAM-SHA-256"], ["sasl_mechanism", "sasl_username"]),
    ([*KAFKA, "-ingest-storage.kafka.sasl-mechanism=MAGIC"], ["sasl_mechanism", "PLAIN"]),
    ([*KAFKA, "-ingest-storage.kafka.sasl-mechanism=OAUTHBEARER"], ["sasl_mechanism", "sasl_oauthbearer_token"]),
    ([*KAFKA, "-ingest-storage.kafka.sasl-mechanism=AWS_MSK_IAM"], ["sasl_mechanism", "PLAIN, SCRAM-SHA-256"]),
    ([*KAFKA, "-ingest-storage.kafka.target-consumer-lag-at-startup=0"], ["target_consumer_lag", "max_consumer_lag"]),
    ([*KAFKA, "-ingest-storage.kafka.max-consumer-lag-at-startup=1s"], ["target_consumer_lag", "max_consumer_lag"]),
    ([*KAFKA, "-ingest-storage.kafka.producer-max-record-size-bytes=5"], ["producer_max_record_size_bytes", "1048576"]),
    ([*KAFKA, "-ingest-storage.kafka.producer-max-record-size-bytes=15983617"], ["producer_max_record_size_bytes"]),
    ([*KAFKA, "-ingest-storage.kafka.producer-record-version=3"], ["producer_record_version"]),
    ([*KAFKA, "-ingest-storage.kafka.fetch-max-wait=1s"], ["fetch_max_wait", "5s to 30s"]),
    ([*KAFKA, "-ingest-storage.kafka.auto-create-topic-default-partitions=0"], ["auto_create_topic"]),
    ([*KAFKA, "-ingest-storage.kafka.max-buffered-bytes=2147483647"], ["max_buffered_bytes"]),
    ([*KAFKA, "-ingest-storage.kafka.write-timeout-overhead=99ms"], ["write_timeout_overhead", "100ms"]),
    ([*KAFKA, "-ingest-storage.kafka.producer-compression=rar"], ["producer_compression", "zstd"]),
    ([*KAFKA, "-ingest-storage.kafka.tls-cert-path=x"], ["tls_cert_path", "tls_key_path"]),
    ([*KAFKA, "-ingest-storage.kafka.client-id=a b"], ["client_id"]),
    (["-target=everything"], ["target", "everything", "it takes all, backend, read, write"]),
    (["-target=read,ingestor"], ["target", "ingestor", "distributor, ingester, querier"]),
    (["-target=compactor"], ["compactor", "not here"]),
    (["-target="], ["target is empty", "it takes all"]),
    (["-server.grpc-listen-port=70000"], ["server.grpc_listen_port"]),
    (["-ingester.partition-ring.ownership=gossip"], ["ingester.partition_ring.ownership", "leases, instance-id"]),
    (["-ingester.partition-ring.min-partition-owners-count=-1"], ["min_partition_owners_count", "negative"]),
    (["-distributor.ring.heartbeat-timeout=-1s"], ["distributor.ring.heartbeat_timeout", "negative"]),
    (["-ingest-storage.retention-after-cut=-1s"], ["ingest_storage.retention_after_cut", "negative"]),
    (["-blocks-storage.backend=s3"], ["blocks_storage.backend", "blocks_storage.s3.bucket_name"]),
    (["-blocks-storage.backend=swift"], ["blocks_storage.backend", "filesystem, s3, gcs, azure, memory"]),
    (["-blocks-storage.s3.access-key-id=x"], ["access_key_id", "secret_access_key"]),
    (["-blocks-storage.s3.endpoint=http://x"], ["blocks_storage.s3.endpoint", "blocks_storage.s3.insecure"]),
    (["-blocks-storage.storage-prefix=a/b"], ["storage_prefix"]),
    (["-server.http-tls-cert-path=x"], ["cert_file", "key_file"]),
    (["-server.http-tls-client-auth=RequireAndVerifyClientCert"], ["client_auth_type", "client_ca_file"]),
    (["-server.http-listen-port=70000"], ["server.http_listen_port"]),
    (["-server.path-prefix=x"], ["server.http_path_prefix", "slash"]),
    (["-http.prometheus-http-prefix=/"], ["api.prometheus_http_prefix"]),
    (["-log.level=loud"], ["server.log_level", "debug, info, warn, error"]),
    (["-auth.no-auth-tenant=a/b"], ["no_auth_tenant"]),
    (["-distributor.retry-after-header.max-backoff=1s"], ["max_backoff", "min_backoff"]),
    (["-distributor.remote-timeout=0"], ["distributor.remote_timeout"]),
    (["-validation.name-validation-scheme=ascii"], ["limits.name_validation_scheme", "legacy, utf8"]),
    (["-validation.max-length-label-name=-1"], ["limits.max_label_name_length", "negative"]),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "named"), PROBLEMS, ids=lambda part: " ".join(part))
def test_what_cannot_be_used_is_refused_naming_the_keys(argv, named):
    with pytest.raises(ConfigError) as error:
        settings(*argv)
    for name in named:
        assert name in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        settings("-target=x", "-log.level=loud", "-querier.timeout=0")
    assert str(error.value).count("\n  - ") == 3


def test_kafka_keys_are_not_checked_when_the_log_is_embedded():
    assert settings("-ingest-storage.kafka.fetch-max-wait=1s").ingest_storage.log == "embedded"


@pytest.mark.parametrize(
    "target", ["all", "read,write,backend", "read, write", "distributor,ingester,querier", "all,read"]
)
def test_a_target_may_name_all_components_in_any_way(target):
    assert settings(f"-target={target}").target == target


def test_a_missing_file_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read -config.file .*none.yaml: No such file"):
        load([f"-config.file={tmp_path}/none.yaml"], {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load([f"-config.file={tmp_path}/binary.yaml"], {})


def test_diff_shows_exactly_what_differs_and_reads_back_the_same():
    made = settings(
        *KAFKA, "-distributor.ingestion-rate-limit=5e4", "-auth.multitenancy-enabled=false", "-memberlist.join=a"
    )
    diff = yaml.safe_load(made.effective.yaml("diff"))
    assert diff == {
        "multitenancy_enabled": False,
        "limits": {"ingestion_rate": 50000},
        "ingest_storage": {"log": "kafka", "kafka": {"address": "broker:9092", "topic": "ingest"}},
        "memberlist": {"join_members": ["a"]},
    }
    assert settings(file=made.effective.yaml("diff")).effective.plain() == made.effective.plain()


@pytest.mark.parametrize("mode", ["full", "defaults"])
def test_the_complete_views_read_back_as_the_same_configuration(mode):
    made = settings()
    assert settings(file=made.effective.yaml(mode)).effective.plain() | {
        "ingest_storage": 0
    } == made.effective.plain() | {"ingest_storage": 0}


def test_an_unset_value_shows_as_go_shows_it():
    lines = settings().effective.yaml("full").splitlines()
    assert '  http_listen_address: ""' in lines
    assert "  http_server_write_timeout: 2m0s" in lines
    assert "  join_members: []" in lines
    assert "  grpc_server_max_connection_age: 2562047h47m16.854775807s" in lines


def test_building_does_not_change_what_was_said():
    from mimir_ingest.config.parse import Explicit

    explicit = Explicit({"target": "all"}, {"target": "flag"})
    build(explicit)
    assert explicit == Explicit({"target": "all"}, {"target": "flag"})
