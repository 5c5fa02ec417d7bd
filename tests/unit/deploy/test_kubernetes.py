"""The Kubernetes manifests name what exists (flags, keys, ports, paths) and what the rollout-operator knows."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from mimir_ingest.config.durations import parse_go_duration
from mimir_ingest.config.settings import load

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS = [found for name in KUSTOMIZATION["resources"] for found in yaml.safe_load_all((FOLDER / name).read_text())]
CONFIG = {"/etc/mimir-ingest/mimir-ingest.yaml": (FOLDER / "mimir-ingest.yaml").read_text()}
WORKLOADS = {found["metadata"]["name"]: found for found in OBJECTS if found["kind"] in ("Deployment", "StatefulSet")}
ZONES = {name: found for name, found in WORKLOADS.items() if found["kind"] == "StatefulSet"}
# The rollout-operator's own names (its pkg/config/config.go): two of them have no prefix.
LABELS = {"rollout-group", "grafana.com/prepare-downscale", "grafana.com/min-time-between-zones-downscale"}
ANNOTATIONS = {
    "rollout-max-unavailable",
    "grafana.com/prepare-downscale-http-path",
    "grafana.com/prepare-downscale-http-port",
    "grafana.com/rollout-downscale-leader",
    "grafana.com/rollout-upscale-only-when-leader-ready",
    "grafana.com/rollout-mirror-replicas-from-resource-name",
    "grafana.com/rollout-mirror-replicas-from-resource-kind",
    "grafana.com/rollout-mirror-replicas-from-resource-api-version",
    "grafana.com/rollout-delayed-downscale",
    "grafana.com/rollout-prepare-delayed-downscale-url",
}


def container(name):
    (found,) = WORKLOADS[name]["spec"]["template"]["spec"]["containers"]
    return found


def settings(name, pod="pod-0"):
    """The settings of a pod, its environment filled in as the kubelet does."""
    environ = {"POD_NAME": pod, "POD_IP": "10.1.2.3", "S3_ACCESS_KEY_ID": "id", "S3_SECRET_ACCESS_KEY": "key"}
    known = {item["name"] for item in container(name).get("env", [])}
    arguments = [re.sub(r"\$\((\w+)\)", lambda m: environ[m[1]], a) for a in container(name)["args"]]
    return load(arguments, {k: v for k, v in environ.items() if k in known}, CONFIG.__getitem__)[0]


def get(kind, name):
    (found,) = [o for o in OBJECTS if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def test_every_file_is_listed_and_nothing_needs_anchors():
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    listed |= {file for made in KUSTOMIZATION["configMapGenerator"] for file in made["files"]}
    assert listed == {path.name for path in FOLDER.iterdir()}
    for path in FOLDER.iterdir():
        assert not re.search(r"^[^#]*: [&*]\w|<<:", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_every_flag_and_key_exists_and_has_an_effect(name):
    made = settings(name)
    assert made.notices == ()
    assert made.target == name.partition("-")[0]
    assert made.ingest_storage.log == "kafka"
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    assert ports["http"] == made.server.http_listen_port
    assert ports.get("internal", made.server.grpc_listen_port) == made.server.grpc_listen_port
    assert container(name)["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
    assert container(name)["image"] == KUSTOMIZATION["images"][0]["name"]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_selectors_volumes_and_config_maps_fit(name):
    spec = WORKLOADS[name]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert get("Service", name)["spec"]["selector"].items() <= labels.items()
    mounted = {mount["name"] for mount in container(name)["volumeMounts"]}
    volumes = spec["template"]["spec"]["volumes"]
    assert mounted == {volume["name"] for volume in volumes}
    maps = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    assert maps == {made["name"] for made in KUSTOMIZATION["configMapGenerator"]}
    named = {port.get("name") for port in container(name)["ports"]}
    for port in get("Service", name)["spec"]["ports"]:
        assert port["targetPort"] in named


def test_only_what_touches_the_bucket_gets_its_keys():
    with_keys = {name for name in WORKLOADS if "secretKeyRef" in str(container(name).get("env"))}
    assert with_keys == {*ZONES, "querier", "backend"}


@pytest.mark.parametrize("name", sorted(ZONES))
def test_a_pod_owns_the_partition_of_its_number_in_its_zone(name):
    made = settings(name, f"{name}-7")
    ring = made.ingester.ring
    assert ring.instance_id == f"{name}-7"
    assert ring.instance_addr == "10.1.2.3"
    assert ring.instance_availability_zone == name.removeprefix("ingester-")
    assert made.ingester.partition_ring.ownership == "instance-id"
    mount = next(m for m in container(name)["volumeMounts"] if m["name"] == "snapshots")
    assert mount["mountPath"] == made.blocks_storage.tsdb.dir


@pytest.mark.parametrize("name", sorted(ZONES))
def test_stateful_sets_have_the_rollout_operators_labels_and_annotations(name):
    found = ZONES[name]
    labels, annotations = found["metadata"]["labels"], found["metadata"]["annotations"]
    assert labels.keys() >= LABELS
    assert set(annotations) <= ANNOTATIONS
    assert labels["rollout-group"] == "ingester"
    assert labels["grafana.com/prepare-downscale"] == "true"
    assert annotations["grafana.com/prepare-downscale-http-path"] == "ingester/prepare-shutdown"
    assert annotations["grafana.com/prepare-downscale-http-port"] == str(settings(name).server.http_listen_port)
    assert found["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert get("Service", found["spec"]["serviceName"])["spec"]["clusterIP"] == "None"


def test_the_leader_follows_the_template_and_delays_and_the_others_follow_the_leader():
    leaders = [n for n, f in ZONES.items() if "grafana.com/rollout-delayed-downscale" in f["metadata"]["annotations"]]
    assert leaders == ["ingester-zone-a"]
    said = ZONES["ingester-zone-a"]["metadata"]["annotations"]
    prefix = "grafana.com/rollout-mirror-replicas-from-resource"
    template = get(said[f"{prefix}-kind"], said[f"{prefix}-name"])
    assert template["apiVersion"] == said[f"{prefix}-api-version"]
    assert template["spec"]["replicas"] == ZONES["ingester-zone-a"]["spec"]["replicas"]
    url = urlsplit(said["grafana.com/rollout-prepare-delayed-downscale-url"])
    assert (url.path, url.port) == ("/ingester/prepare-partition-downscale", 8080)
    assert parse_go_duration(said["grafana.com/rollout-delayed-downscale"]).seconds > 60, "well over the fence of 20 s"
    for name in ZONES.keys() - leaders:
        assert ZONES[name]["metadata"]["annotations"]["grafana.com/rollout-downscale-leader"] in ZONES


def test_a_disruption_takes_one_ingester_of_all_zones_at_a_time():
    budget = get("PodDisruptionBudget", "ingester")["spec"]
    assert budget["maxUnavailable"] == 1
    for name in ZONES:
        assert (
            budget["selector"]["matchLabels"].items() <= ZONES[name]["spec"]["template"]["metadata"]["labels"].items()
        )


def test_the_internal_port_is_for_the_clusters_own_pods_only():
    policy = get("NetworkPolicy", "mimir-ingest-internal")["spec"]
    internal = [
        rule for rule in policy["ingress"] if rule["ports"] == [{"port": settings("querier").server.grpc_listen_port}]
    ]
    assert [rule["from"] for rule in internal] == [[{"podSelector": policy["podSelector"]}]]
    assert all(rule["ports"][0]["port"] != 9095 or "from" in rule for rule in policy["ingress"])
