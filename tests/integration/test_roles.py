"""Roles as processes on one embedded log: each serves what is its own, and partitions are leased, scaled in and out."""

import pytest

from tests.support.cluster import Cluster
from tests.support.observe import now_ms, one, wait_until

ROUTES = {
    ("POST", "/api/v1/push"): {"distributor"},
    ("GET", "/prometheus/api/v1/query?query=1"): {"querier"},
    ("POST", "/prometheus/api/v1/read"): {"querier"},
    ("GET", "/ingester/unregister-on-shutdown"): {"ingester"},
    ("GET", "/ingester/prepare-shutdown"): {"ingester"},
    ("GET", "/ingester/tenants"): {"ingester"},
    ("GET", "/distributor/all_user_stats"): {"distributor"},
    ("GET", "/api/v1/user_stats"): {"querier"},
    ("GET", "/ingester/ring"): {"distributor", "ingester", "querier", "backend"},
    ("GET", "/distributor/ring"): {"distributor", "ingester", "querier", "backend"},
    ("GET", "/ingester/partition-ring"): {"distributor", "ingester", "querier", "backend"},
    ("GET", "/memberlist"): {"distributor", "ingester", "querier", "backend"},
    ("GET", "/metrics"): {"distributor", "ingester", "querier", "backend"},
}
MODULES = {
    "distributor": {"server", "runtime-config", "ring", "log", "distributor"},
    "ingester": {"server", "internal-server", "runtime-config", "ring", "log", "bucket", "ingester"},
    "querier": {"server", "runtime-config", "ring", "log", "bucket", "querier"},
    "backend": {"server", "ring", "bucket", "bucket-upkeep"},
}
SERIES = 40


@pytest.fixture
def cluster(tmp_path):
    flags = [
        f"-ingest-storage.embedded.path={tmp_path / 'log'}",
        "-ingest-storage.embedded.partitions=2",
        "-ingester.partition-ring.ownership=leases",
    ]
    with Cluster(tmp_path, *flags) as cluster:
        for name, target in (("d", "distributor"), ("i1", "ingester"), ("i2", "ingester"), ("q", "querier")):
            cluster.add(name, target)
        cluster.add("b", "backend")
        yield cluster


def series_of(cluster):
    answer = cluster["q"].http.get(
        "/prometheus/api/v1/query",
        params={"query": "count(roles)", "time": cluster.at_ms / 1000},
        headers={"X-Read-Consistency": "strong"},
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()["data"]["result"]
    return int(found[0]["value"][1]) if found else 0


def push(cluster, first):
    for number in range(first, first + SERIES):
        answer = cluster["d"].push(one("roles", 1.0, cluster.at_ms, i=str(number)))
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-read-consistency-offsets"].startswith("v1=")


def owners(cluster):
    return {number: row["owner_ids"] for number, row in cluster.partition_ring().items()}


def test_roles_serve_their_own_and_leases_follow_scaling(cluster):
    cluster.start(["d", "i1", "q", "b"])
    cluster.at_ms = now_ms()
    for (method, path), served_by in ROUTES.items():
        for name in ("d", "i1", "q", "b"):
            target = {"d": "distributor", "i1": "ingester", "q": "querier", "b": "backend"}[name]
            missing = cluster[name].http.request(method, path).status_code == 404
            assert missing == (target not in served_by), (name, path)
    for name, target in (("d", "distributor"), ("i1", "ingester"), ("q", "querier"), ("b", "backend")):
        states = cluster[name].http.get("/services", headers={"Accept": "application/json"}).json()["services"]
        assert {row["name"] for row in states} == MODULES[target]
        assert {row["status"] for row in states} == {"Running"}
    assert not (cluster["q"].directory / "data" / "tsdb").exists()
    assert not (cluster["d"].directory / "data" / "tsdb").exists()

    # The first ingester leases both partitions, which were ACTIVE from the start; a second one takes one of them over.
    assert owners(cluster) == {0: ["i1"], 1: ["i1"]}
    push(cluster, 0)
    assert series_of(cluster) == SERIES
    cluster.start(["i2"])
    wait_until(lambda: sorted(owners(cluster).values()) == [["i1"], ["i2"]], "one lease for each")
    push(cluster, SERIES)
    assert series_of(cluster) == 2 * SERIES
    assert cluster["q"].http.get("/api/v1/user_stats").json()["numSeries"] == 2 * SERIES
    everybody = cluster["d"].http.get("/distributor/all_user_stats", headers={"Accept": "application/json"}).json()
    assert [row["numSeries"] for row in everybody] == [2 * SERIES]

    # One command takes a partition out, whoever owns it; nobody has to be stopped.
    said = cluster.begin("downscale", "--partition=1").end()
    assert "partition 1 is out of the ring" in said
    assert list(cluster.partition_ring()) == [0]
    assert series_of(cluster) == 2 * SERIES
    push(cluster, 2 * SERIES)
    assert series_of(cluster) == 3 * SERIES
    assert "partition 1 is out of the ring" in cluster.begin("downscale", "--partition=1").end()

    # And one brings it back.
    assert "are ACTIVE" in cluster.begin("upscale", "--partitions=2").end()
    cluster.wait_active([0, 1])
    push(cluster, 3 * SERIES)
    assert series_of(cluster) == 4 * SERIES

    # An ingester that goes for good gives its partition to the other one.
    assert cluster["i2"].http.post("/ingester/prepare-shutdown").status_code == 204
    assert cluster["i2"].stop() == 0
    wait_until(lambda: owners(cluster) == {0: ["i1"], 1: ["i1"]}, "the leases of the one that left")
    assert series_of(cluster) == 4 * SERIES
