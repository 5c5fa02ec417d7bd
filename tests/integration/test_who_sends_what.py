"""Active series, cardinality, statistics and pages of one running program; Prometheus counts the same series."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.program import Program
from tests.support.prometheus import run_prometheus
from tests.support.remote_write import body

TENANT = {"X-Scope-OrgID": "team-a"}
JSON = {"Accept": "application/json"}
FLAGS = [
    "-querier.cardinality-analysis-enabled=true",
    "-ingester.active-series-metrics-update-period=500ms",
    "-ingester.rate-update-period=500ms",
    '-ingester.active-series-custom-trackers=api:{job="api"};nothing:{job="nosuch"};odd:{i=~".*[13579]"}',
]


def series():
    for i in range(40):
        yield {"__name__": "requests_total", "job": "api" if i % 4 else "web", "i": str(i)}
    for i in range(7):
        yield {"__name__": "up", "job": "db", "instance": f"h{i}:9090"}


@dataclass(frozen=True)
class Both:
    """The program and its judge, holding the same samples."""

    ours: Program
    theirs: httpx.Client
    at_ms: int

    def get(self, path, **params):
        answer = self.ours.http.get(path, params=params, headers=TENANT)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def both(prometheus_bin, tmp_path_factory) -> Iterator[Both]:
    at_ms = time.time_ns() // 1_000_000 - 1000
    sent = body([(labels, [(at_ms, 1.0)]) for labels in series()])
    with (
        run_prometheus(
            prometheus_bin, tmp_path_factory.mktemp("judge"), "--web.enable-remote-write-receiver"
        ) as theirs,
        Program(tmp_path_factory.mktemp("program"), *FLAGS, multitenancy=True).start() as ours,
    ):
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        assert theirs.post("/api/v1/write", content=sent, headers=headers).status_code == 204
        assert ours.push(sent, tenant="team-a").status_code == 200
        assert ours.push(body([({"__name__": "one"}, [(at_ms, 1.0)])]), tenant="team-b").status_code == 200
        found = Both(ours, theirs, at_ms)
        until(lambda: found.get("/api/v1/user_stats")["numSeries"] == 47)
        yield found


def until(condition, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_labels_are_counted_as_prometheus_counts_its_head(both):
    judged = both.theirs.get("/api/v1/status/tsdb", params={"limit": 100}).json()["data"]
    names = both.get("/prometheus/api/v1/cardinality/label_names", limit=100)
    ours = {row["label_name"]: row["label_values_count"] for row in names["cardinality"]}
    assert ours == {row["name"]: row["value"] for row in judged["labelValueCountByLabelName"]}

    labels = both.get("/prometheus/api/v1/cardinality/label_values", **{"label_names[]": list(ours)}, limit=100)
    assert labels["series_count_total"] == judged["headStats"]["numSeries"] == 47
    pairs = {
        f"{label['label_name']}={row['label_value']}": row["series_count"]
        for label in labels["labels"]
        for row in label["cardinality"]
    }
    assert pairs == {row["name"]: row["value"] for row in judged["seriesCountByLabelValuePair"]}

    active = both.get("/prometheus/api/v1/cardinality/active_series", selector='{i=~"1.|2"}')["data"]
    judged = both.theirs.get("/api/v1/series", params={"match[]": '{i=~"1.|2"}'}).json()["data"]
    assert sorted(map(str, active)) == sorted(str(dict(sorted(labels.items()))) for labels in judged)


def samples_of(both, name):
    """Return the program's own metric by its labels."""
    text = both.ours.http.get("/metrics").text
    return {m[1]: float(m[2]) for m in re.finditer(rf"^cortex_ingester_{name}{{(.*)}} (\S+)$", text, re.MULTILINE)}


def test_active_series_and_custom_trackers_have_gauges(both):
    everything = {'user="team-a"': 47.0, 'user="team-b"': 1.0}
    until(lambda: samples_of(both, "active_series") == everything)
    # What selects nothing has no gauge.
    assert samples_of(both, "active_series_custom_tracker") == {
        'name="api",user="team-a"': 30.0,
        'name="odd",user="team-a"': 20.0,
    }
    assert samples_of(both, "active_native_histogram_series") == {}


def test_ingestion_rates_and_series_are_told_by_tenant_and_for_all_tenants(both):
    def rising():
        row = [({"__name__": "one"}, [(time.time_ns() // 1_000_000, 1.0)])]
        assert both.ours.push(body(row), tenant="team-b").status_code == 200
        stats = both.ours.http.get("/api/v1/user_stats", headers={"X-Scope-OrgID": "team-b"}).json()
        return stats if stats["ingestionRate"] > 0.1 else None

    stats = until(rising)
    assert stats == {
        "ingestionRate": stats["APIIngestionRate"],
        "numSeries": 1,
        "APIIngestionRate": stats["APIIngestionRate"],
        "RuleIngestionRate": 0.0,
    }
    answer = both.ours.http.get("/distributor/all_user_stats", headers=JSON)
    assert answer.headers["content-type"] == "application/json"
    assert [(row["userID"], row["numSeries"]) for row in answer.json()] == [("team-a", 47), ("team-b", 1)]
    page = both.ours.http.get("/distributor/all_user_stats")
    assert "<title>Ingester Stats</title>" in page.text
    assert re.search(r"<code>team-a</code></td>\s*<td>47</td>\s*<td>\d+\.\d\d</td>", page.text)


def test_tenants_pages_tell_the_heads_and_the_blocks_of_each_tenant(both):
    http = both.ours.http
    assert http.post("/ingester/flush", params={"tenant": "team-a", "wait": "true"}).status_code == 204
    rows = {row["Tenant"]: row for row in http.get("/ingester/tenants", headers=JSON).json()["Tenants"]}
    assert list(rows) == ["team-a", "team-b"]
    assert rows["team-a"]["Blocks"] >= 1
    assert rows["team-a"]["MinTime"] == "math.MaxInt64"
    assert re.fullmatch(rf"20..-..-..T..:..:..Z \({both.at_ms}\)", rows["team-b"]["MinTime"])
    assert (rows["team-b"]["PastGracePeriod"], rows["team-b"]["FutureGracePeriod"]) == (0, 600_000_000_000)

    page = http.get("/ingester/tsdb/team-a", headers=JSON).json()
    assert sum(block["Stats"]["numSeries"] for block in page["Blocks"]) == 47
    assert {block["Compaction"]["level"] for block in page["Blocks"]} == {1}
    assert page["Head"]["NumSeries"] == 47
    assert page["Head"]["AppendableMinValidTime"].endswith(")")
    missing = http.get("/ingester/tsdb/nobody")
    assert (missing.status_code, missing.text) == (404, "TSDB not found for tenant nobody\n")
    assert 'href="tsdb/team-a"' in http.get("/ingester/tenants").text
    head_only, with_block = http.get("/ingester/tsdb/team-b").text, http.get("/ingester/tsdb/team-a").text
    assert "<th>Number of series</th><td>1</td>" in head_only
    assert f"<code>{page['Blocks'][0]['ID']}</code>" in with_block
    index = http.get("/").text
    assert all(f'href="{path}"' in index for path in ("ingester/tenants", "distributor/all_user_stats"))


def test_a_tenant_reads_the_metrics_of_its_own_head(both):
    answer = both.ours.http.get("/ingester/tsdb_metrics", headers={**TENANT, "Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert "\nprometheus_tsdb_head_series 47.0\n" in answer.text
    unknown = both.ours.http.get("/ingester/tsdb_metrics", headers={"X-Scope-OrgID": "nobody"})
    assert (unknown.status_code, unknown.text) == (404, "user registry not found\n")
    assert both.ours.http.get("/ingester/tsdb_metrics").status_code == 401
