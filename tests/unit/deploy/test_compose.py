"""Everything in deploy/ refers to what exists: flags, configuration keys, files, services, paths of the API."""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from mimir_ingest.cli import command_list
from mimir_ingest.config.settings import load

ROOT = Path(__file__).parents[3]
CONFIG_IN_IMAGE = "/etc/mimir-ingest/mimir-ingest.yaml"
CONFIG = ROOT / "deploy" / "mimir-ingest.yaml"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
SERVICES = COMPOSE["services"]
OF_OUR_IMAGE = sorted(n for n, service in SERVICES.items() if service.get("image", "").startswith("mimir-ingest"))
OURS = [name for name in OF_OUR_IMAGE if name != "scale"]
INGESTERS = [name for name in OURS if name.startswith("ingester-")]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def interpolate(text, environ):
    """Replace ${NAME} and ${NAME:-default} as Compose does."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda match: environ.get(match[1]) or match[2] or "", text)


def environment(name, environ):
    return {key: interpolate(value, environ) for key, value in SERVICES[name]["environment"].items()}


def settings(name, environ):
    mounted = {CONFIG_IN_IMAGE: CONFIG.read_text()}
    return load(SERVICES[name]["command"], environment(name, environ), mounted.__getitem__)[0]


def test_there_are_real_roles_with_two_ingesters_in_each_of_two_zones():
    zones = [f"ingester-zone-{zone}-{number}" for zone in "ab" for number in (0, 1)]
    assert ["backend", "distributor", *zones, "querier"] == OURS
    for name in OURS:
        made = settings(name, {})
        assert made.target == name.partition("-")[0]
        assert made.ingester.partition_ring.ownership == "leases"
    for name in INGESTERS:
        ring = settings(name, {}).ingester.ring
        assert ring.instance_id == name
        assert ring.instance_availability_zone == name[len("ingester-") : -2]


def test_one_command_scales_in_and_one_out():
    scale = SERVICES["scale"]
    assert scale["profiles"] == ["tools"]
    shell = scale["entrypoint"]
    assert shell[:2] == ["/bin/sh", "-c"]
    for arguments in (["downscale", "--partition", "3"], ["upscale", "--partitions", "4"]):
        assert f"run --rm scale {' '.join(arguments)}" in (ROOT / "docker-compose.kafka.yml").read_text()
        line = shell[2].replace("$$", "$").replace("exec mimir-ingest", "printf '%s\\n'")
        done = subprocess.run(["/bin/sh", "-c", line, shell[3], *arguments], capture_output=True, text=True, check=True)
        given = done.stdout.splitlines()
        assert given[: len(arguments)] == arguments
        made = load(given[len(arguments) :], {}, {CONFIG_IN_IMAGE: CONFIG.read_text()}.__getitem__)[0]
        assert made.effective.sources["ingester.partition_ring.ownership"]
    assert "downscale" in dict(command_list())
    assert "upscale" in dict(command_list())


@pytest.mark.parametrize("name", OURS)
def test_every_flag_and_key_exists_and_has_an_effect(name):
    made = settings(name, {})
    assert made.notices == ()
    assert made.ingest_storage.log == "kafka"
    assert made.ingest_storage.kafka.address == "redpanda:9092"
    assert settings(name, {"KAFKA_ADDRESS": "kafka:9092"}).ingest_storage.kafka.address == "kafka:9092"


@pytest.mark.parametrize("name", OURS)
def test_processes_share_log_and_bucket_and_keep_own_names(name):
    made, first = settings(name, {}), settings(OURS[0], {})
    assert made.ingest_storage.kafka.topic == first.ingest_storage.kafka.topic
    assert made.blocks_storage.s3 == first.blocks_storage.s3
    assert len({SERVICES[other]["hostname"] for other in OURS}) == len(OURS)


def test_the_image_has_the_configuration_where_the_commands_look():
    assert f"COPY deploy/mimir-ingest.yaml {CONFIG_IN_IMAGE}" in DOCKERFILE
    for name in OURS:
        assert f"-config.file={CONFIG_IN_IMAGE}" in SERVICES[name]["command"]
        assert f"./deploy/mimir-ingest.yaml:{CONFIG_IN_IMAGE}:ro" in SERVICES[name]["volumes"]


def test_the_object_store_has_the_bucket_and_keys_that_the_configuration_names():
    made = settings("querier", {})
    s3 = made.blocks_storage.s3
    assert urlsplit(f"//{s3.endpoint}").hostname in SERVICES
    (command,) = SERVICES["create-bucket"]["command"]
    assert f"s3/{s3.bucket_name}" in command
    assert f"http://{s3.endpoint}" in command
    store = environment("s3", {})
    assert (store["MINIO_ROOT_USER"], store["MINIO_ROOT_PASSWORD"]) == (
        s3.access_key_id,
        s3.secret_access_key.get_secret_value(),
    )


def test_brokers_advertise_the_name_they_are_reached_by():
    assert "--advertise-kafka-addr=redpanda:9092" in SERVICES["redpanda"]["command"]
    assert SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://kafka:9092"
    assert (SERVICES["kafka"]["profiles"], "profiles" in SERVICES["redpanda"]) == (["kafka"], False)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_refer_to_files_volumes_and_services_that_exist(name):
    service = SERVICES[name]
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
    if name not in OF_OUR_IMAGE:
        assert re.search(r":v?[A-Z]*\.?\d[\w.\-]*$", service["image"]), "images of others are pinned"


def test_prometheus_scrapes_and_writes_to_services_of_the_file():
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    targets = {
        target for job in config["scrape_configs"] for group in job["static_configs"] for target in group["targets"]
    }
    assert {target.split(":")[0] for target in targets} - {"localhost"} <= set(SERVICES)
    assert {f"{name}:8080" for name in OURS} <= targets
    (write,) = config["remote_write"]
    assert (urlsplit(write["url"]).hostname, urlsplit(write["url"]).path) == ("distributor", "/api/v1/push")
    assert write["headers"]["X-Scope-OrgID"]


@pytest.mark.peer
def test_promtool_accepts_the_prometheus_configuration(promtool_bin):
    config = ROOT / "deploy" / "prometheus.yml"
    done = subprocess.run([promtool_bin, "check", "config", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_reads_the_tenant_that_prometheus_writes():
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "mimir-ingest.yaml").read_text())["datasources"]
    made = settings("querier", {})
    tenant = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["remote_write"][0]["headers"][
        "X-Scope-OrgID"
    ]
    assert [source["secureJsonData"]["httpHeaderValue1"] for source in sources] == [tenant, made.self_monitoring.tenant]
    for source in sources:
        url = urlsplit(source["url"])
        assert (url.hostname in OURS, url.port, url.path) == (
            True,
            made.server.http_listen_port,
            made.api.prometheus_http_prefix,
        )
        assert source["jsonData"]["httpHeaderName1"] == "X-Scope-OrgID"
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in SERVICES["grafana"]["volumes"]


def test_the_image_runs_as_a_user_of_its_own_with_warmed_kernels_and_a_health_check():
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    last_user = [line.split()[1] for line in lines if line.startswith("USER ")][-1]
    assert last_user not in ("root", "0")
    assert lines.index("RUN mimir-ingest warm") > lines.index(f"USER {last_user}")
    (check,) = [line for line in lines if line.startswith("HEALTHCHECK ")]
    assert "/ready" in check
    entry = json.loads(next(line for line in lines if line.startswith("ENTRYPOINT ")).partition(" ")[2])
    arguments = json.loads(next(line for line in lines if line.startswith("CMD ")).partition(" ")[2])
    assert entry == ["mimir-ingest"]
    assert load(arguments, {})[0].target == "all"


def test_the_image_copies_only_what_exists_and_is_not_ignored():
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for line in DOCKERFILE.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert source in kept, source
                assert (ROOT / source).exists(), source
