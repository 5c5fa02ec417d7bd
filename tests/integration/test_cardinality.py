"""The cardinality endpoints and a tenant's statistics, over owners in other processes; plain Python counts along."""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import cramjam
import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from mimir_ingest.api.all_user_stats import all_user_stats_router
from mimir_ingest.api.cardinality import cardinality_router
from mimir_ingest.api.middleware import Gzip, plain_routing
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.settings import load
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.obs.querier_metrics import IngesterClientMetrics
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.querier.all_ingesters import AllIngesters
from mimir_ingest.querier.ingester_client import IngesterClient
from mimir_ingest.querier.owner import LocalOwner
from tests.support.histograms import Row, bits
from tests.support.read_cluster import NOW_MS, Cluster

BASE = "/prometheus/api/v1/cardinality"
ON = {"cardinality_analysis_enabled": True}
LATER_MS = NOW_MS + 1_800_000

OLD = [{"__name__": "m", "job": "old", "i": str(i)} for i in range(3)]
API = [{"__name__": "m", "job": "api", "i": str(i)} for i in range(6)]
DB = [{"__name__": "n", "job": "db", "i": str(i)} for i in range(4, 12)] + [{"__name__": "up"}]
BUCKETS = {("lat", "a"): 3, ("lat", "b"): 5, ("size", "a"): 2}
LATENCIES = [{"__name__": name, "z": z} for name, z in BUCKETS]
NEW = API + DB + LATENCIES


def rows(labels, at_ms):
    return [(own, [(at_ms, 1.0)]) for own in labels]


def histogram(buckets):
    counts = tuple((i, 1.0) for i in range(buckets))
    return Row(3, 0, False, 2.0**-128, 0.0, float(buckets), bits(1.0), (), counts, ())


@contextlib.asynccontextmanager
async def asking(folder, *, local=True, sharding=False, **limits):
    """Give a client of the endpoints. Three series got their last sample half an hour ago, on a clock that stands."""
    async with Cluster(folder, partitions=2) as cluster:
        await cluster.push(rows(OLD, NOW_MS))
        cluster.now_ms = LATER_MS
        for partition in range(2):
            await cluster.set_partition(partition)
        options = {"wall_ms": lambda: cluster.now_ms, "partition_settings": PartitionSettings()}
        first = await cluster.add_node("a-0", [0], zone="a", **options)
        await cluster.add_node("a-1", [1], zone="a", **options)
        await cluster.add_node("b-0", [0, 1], zone="b", **options)
        await cluster.consumed(0, await cluster.push(rows(API, LATER_MS)))
        latencies = [(own, [(LATER_MS, histogram(n))]) for own, n in zip(LATENCIES, BUCKETS.values(), strict=True)]
        await cluster.consumed(1, await cluster.push(rows(DB, LATER_MS) + latencies, partition=1))
        querier = await cluster.querier(local=first if local else None)
        settings = load([], {})[0].limits
        off, on = settings, settings.overridden(ON | limits)
        application = FastAPI()
        plain_routing(application)
        application.include_router(
            cardinality_router(
                querier,
                prefix="/prometheus",
                tenants=TenantResolver(federation_enabled=True),
                limits_for=lambda tenant: off if tenant == "off" else on,
                metrics=QueryMetrics.create(registry := CollectorRegistry()),
                sharding=sharding,
            )
        )
        transport = httpx.ASGITransport(Gzip(application))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://q", headers={"X-Scope-OrgID": "a"}
        ) as client:
            client.cluster, client.registry = cluster, registry
            yield client


def names_answer(series, limit=20):
    values = {(name, value) for labels in series for name, value in labels.items()}
    counts = sorted(Counter(name for name, _ in values).items(), key=lambda row: (-row[1], row[0]))
    return {
        "label_values_count_total": len(values),
        "label_names_count": len(counts),
        "cardinality": [{"label_name": n, "label_values_count": c} for n, c in counts[:limit]],
    }


def values_answer(series, names, total, limit=20):
    labels = []
    for name in names:
        counts = Counter(own[name] for own in series if name in own)
        ordered = sorted(counts.items(), key=lambda row: (-row[1], row[0]))[:limit]
        listed = [{"label_value": v, "series_count": c} for v, c in ordered]
        row = {"label_name": name, "label_values_count": len(counts), "series_count": counts.total()}
        if counts:
            labels.append(row | {"cardinality": listed})
    labels.sort(key=lambda row: (-row["series_count"], row["label_name"]))
    return {"series_count_total": total, "labels": labels}


@pytest.mark.parametrize("local", [True, False])
async def test_label_names_and_values_are_counted_once_a_partition_in_the_orders_of_the_specification(tmp_path, local):
    everything = OLD + NEW
    async with asking(tmp_path, local=local) as client:

        async def get(path, **params):
            answer = await client.get(f"{BASE}/{path}", params=params)
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/json"
            return answer.json()

        assert await get("label_names") == names_answer(everything)
        assert await get("label_names", limit=2) == names_answer(everything, 2)
        assert await get("label_names", limit=0) == names_answer(everything, 0)
        assert await get("label_names", count_method="active") == names_answer(NEW)
        assert await get("label_names", selector='{job=~"api|old"}') == names_answer(OLD + API)
        assert await get("label_names", selector='m{job!="old"}', count_method="active") == names_answer(API)
        assert await get("label_names", selector="nothing") == names_answer([])

        three = ["i", "job", "nosuch"]
        total = len(everything)
        assert await get("label_values", **{"label_names[]": three}) == values_answer(everything, three, total)
        assert await get("label_values", **{"label_names[]": three}, limit=2) == values_answer(
            everything, three, total, 2
        )
        assert await get("label_values", **{"label_names[]": "__name__"}, limit=0) == values_answer(
            everything, ["__name__"], total, 0
        )
        # The total is the tenant's, whatever the selector.
        assert await get("label_values", **{"label_names[]": ["i"]}, selector="m") == values_answer(
            OLD + API, ["i"], total
        )
        active = {"count_method": "active", "label_names[]": ["i", "z"]}
        assert await get("label_values", **active) == values_answer(NEW, ["i", "z"], len(NEW))
        posted = await client.post(f"{BASE}/label_values", data={"label_names[]": three, "limit": "2"})
        assert posted.json() == values_answer(everything, three, total, 2)

        other = await client.get(f"{BASE}/label_names", headers={"X-Scope-OrgID": "nobody"})
        assert other.json() == names_answer([])


async def test_answers_say_what_they_cost_and_are_counted_as_mimirs_front_end_counts_them(tmp_path):
    selector = {"selector": '{job="api"}'}
    asked = {
        "label_names": ({}, "cardinality"),
        "label_values": ({"label_names[]": "job"}, "cardinality"),
        "active_series": (selector, "active_series"),
        "active_native_histogram_metrics": (selector, "active_native_histogram_metrics"),
    }
    async with asking(tmp_path) as client:
        for path, (params, _) in asked.items():
            answer = await client.get(f"{BASE}/{path}", params=params, headers={"X-Mimir-Response-Query-Stats": "true"})
            assert answer.status_code == 200, answer.text
            told = dict(item.split(";", 1) for item in answer.headers["server-timing"].split(", "))
            assert told.keys() >= {"querier_wall_time", "response_time", "bytes_processed", "fetched_series_count"}
            if path != "active_series":
                assert told["response_size_bytes"] == f"val={len(answer.content)}"
        assert (await client.get("/api/v1/user_stats")).headers.get("server-timing") is None
        for kind, count in Counter(kind for _, kind in asked.values()).items():
            labels = {"op": kind, "user": "a"}
            assert client.registry.get_sample_value("cortex_query_frontend_queries_total", labels) == count
        assert client.registry.get_sample_value("cortex_query_seconds_total", {"user": "a", "sharded": "false"}) > 0


async def test_active_series_and_histograms_are_those_with_a_sample_within_the_idle_timeout(tmp_path):
    async with asking(tmp_path) as client:

        async def series(selector, **options):
            answer = await client.post(f"{BASE}/active_series", data={"selector": selector}, **options)
            assert answer.status_code == 200, answer.text
            return answer

        def key(labels):
            return sorted(labels.items())

        assert sorted((await series("m")).json()["data"], key=key) == sorted(API, key=key)
        assert sorted((await series("{}")).json()["data"], key=key) == sorted(NEW, key=key)
        assert (await series('{job="old"}')).json() == {"data": []}
        framed = await series("m", headers={"Accept-Encoding": "x-snappy-framed"})
        assert framed.headers["content-encoding"] == "x-snappy-framed"
        assert len(json.loads(bytes(cramjam.snappy.decompress(framed.content)))["data"]) == len(API)

        path = f"{BASE}/active_native_histogram_metrics"
        answer = await client.get(path, params={"selector": '{z=~".+"}'})
        assert answer.json() == {
            "data": [
                {
                    "metric": "lat",
                    "series_count": 2,
                    "bucket_count": 8,
                    "avg_bucket_count": 4.0,
                    "min_bucket_count": 3,
                    "max_bucket_count": 5,
                },
                {
                    "metric": "size",
                    "series_count": 1,
                    "bucket_count": 2,
                    "avg_bucket_count": 2.0,
                    "min_bucket_count": 2,
                    "max_bucket_count": 2,
                },
            ]
        }
        assert (await client.get(path, params={"selector": "m"})).json() == {"data": []}


JSON_ERRORS = [
    ("label_names", [("selector", "a"), ("selector", "b")], "multiple 'selector' params are not allowed"),
    (
        "label_names",
        [("selector", "{")],
        "failed to parse selector: 1:2: parse error: unexpected end of input inside braces",
    ),
    ("label_names", [("limit", "1"), ("limit", "2")], "multiple 'limit' params are not allowed"),
    ("label_names", [("limit", "-1")], "'limit' param cannot be less than '0'"),
    ("label_names", [("limit", "501")], "'limit' param cannot be greater than '500'"),
    ("label_names", [("limit", "x")], 'strconv.Atoi: parsing "x": invalid syntax'),
    ("label_names", [("limit", "")], 'strconv.Atoi: parsing "": invalid syntax'),
    (
        "label_names",
        [("count_method", "dead")],
        "invalid 'count_method' param 'dead'. valid options are: [active,inmemory]",
    ),
    ("label_values", [], "'label_names[]' param is required"),
    ("label_values", [("label_names[]", "0a")], "invalid 'label_names' param '0a'"),
    ("label_values", [("label_names[]", "olá")], "invalid 'label_names' param 'olá'"),
    ("label_values", [("label_names[]", "a"), ("limit", "501")], "'limit' param cannot be greater than '500'"),
]
TEXT_ERRORS = [
    ("label_names", "off", {}, 400, "cardinality analysis is disabled for the tenant: off"),
    ("label_values", "off", {"label_names[]": "a"}, 400, "cardinality analysis is disabled for the tenant: off"),
    ("active_series", "off", {}, 400, "cardinality analysis is disabled for the tenant: off"),
    ("active_native_histogram_metrics", "off", {}, 400, "cardinality analysis is disabled for the tenant: off"),
    ("label_names", "a", {"limit": "41"}, 400, "'limit' param cannot be greater than '40'"),
    (
        "label_values",
        "a",
        {"label_names[]": ["a", "b", "c"]},
        400,
        "label values cardinality request label names limit (limit: 2 actual: 3) exceeded",
    ),
    ("label_names", "a", {}, 500, "size of distinct label names and values is greater than 30 bytes"),
    ("active_series", "a", {}, 400, "missing 'selector' parameter"),
    ("active_series", "a", {"selector": ["a", "b"]}, 400, "multiple 'selector' params are not allowed"),
    ("active_series", "a", {"selector": "{}"}, 413, "response too large: try increasing the requested shard count"),
    ("active_native_histogram_metrics", "a", {}, 400, "missing 'selector' parameter"),
    ("label_names", "a|b", {}, 400, "multiple org IDs present"),
    ("active_series", "a|b", {"selector": "m"}, 400, "multiple org IDs present"),
    ("label_names", "", {}, 401, "no org id"),
]


async def test_what_the_front_end_refuses_is_json_and_what_the_querier_refuses_is_text(tmp_path):
    limits = {
        "cardinality_analysis_max_results": 40,
        "label_values_max_cardinality_label_names_per_request": 2,
        "label_names_and_values_results_max_size_bytes": 30,
        "active_series_results_max_size_bytes": 60,
    }
    async with asking(tmp_path, **limits) as client:
        for path, params, text in JSON_ERRORS:
            # The gate comes after the parameters.
            for tenant in ("a", "off"):
                answer = await client.get(f"{BASE}/{path}", params=params, headers={"X-Scope-OrgID": tenant})
                assert answer.status_code == 400, (path, params)
                assert answer.json() == {"status": "error", "errorType": "bad_data", "error": text}
        for path, tenant, params, status, text in TEXT_ERRORS:
            answer = await client.get(f"{BASE}/{path}", params=params, headers={"X-Scope-OrgID": tenant})
            assert (answer.status_code, answer.text) == (status, text + "\n"), (path, params)
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert (await client.get(f"{BASE}/active_series", params={"selector": '{i="1"}'})).status_code == 200
        for path in ("label_names?selector=%ff", "label_names?count_method=%ff", "active_series?selector=%ff"):
            assert (await client.get(f"{BASE}/{path}")).status_code == 400
        assert (await client.get(f"{BASE}/label_values?label_names[]=%ff")).status_code == 400

        for node in client.cluster.nodes.values():
            node.listener.fault = "hang"
            await node.ingester.close()
            await node.listener.stop()
        gone = await client.get(f"{BASE}/label_values", params={"label_names[]": "i"})
        assert gone.status_code == 500
        assert gone.headers["content-type"] == "text/plain; charset=utf-8"


SHARDED_ERRORS = [
    ("a", "9", {}, 400, "bad_data", "shard count 9 exceeds allowed maximum (8)"),
    ("a", "4", {}, 400, "bad_data", "selector parameter is required"),
    ("a", "4", {"selector": ""}, 400, "bad_data", "selector parameter is required"),
    ("a", "", {}, 400, "bad_data", "selector parameter is required"),
    ("a", "-1", {}, 400, "bad_data", "selector parameter is required"),
    ("a", "4", {"selector": "{"}, 400, "bad_data", "invalid selector: 1:2: parse error: "),
    ("a", "2", {"selector": "{}"}, 413, "too_large_entry", "shard count too low: try increasing the requested "),
    (
        "off",
        "4",
        {"selector": "m"},
        500,
        "internal",
        "received unexpected response from upstream: status 400, body: "
        "cardinality analysis is disabled for the tenant: off",
    ),
]


async def test_shards_of_a_request_for_active_series_multiply_its_bound_and_have_answers_of_their_own(tmp_path):
    nbytes = 100  # Enough in eight shards, not in two.
    limits = {
        "active_series_results_max_size_bytes": nbytes,
        "query_sharding_max_sharded_queries": 8,
        "query_sharding_total_shards": 4,
    }
    async with asking(tmp_path, sharding=True, **limits) as client:
        for tenant, shards, params, status, kind, text in SHARDED_ERRORS:
            headers = {"X-Scope-OrgID": tenant, "Sharding-Control": shards}
            answer = await client.get(f"{BASE}/active_series", params=params, headers=headers)
            error = answer.json()
            assert (answer.status_code, error["errorType"]) == (status, kind), (shards, params)
            assert error["status"] == "error"
            assert error["error"].startswith(text)
        headers = {"Sharding-Control": "8"}
        whole = await client.get(f"{BASE}/active_series", params={"selector": "{}"}, headers=headers)
        assert whole.status_code == 200
        assert len(whole.json()["data"]) == len(NEW)
        for off in ("0", "1"):
            headers = {"Sharding-Control": off}
            answer = await client.get(f"{BASE}/active_series", params={"selector": "{}"}, headers=headers)
            text = "response too large: try increasing the requested shard count\n"
            assert (answer.status_code, answer.text) == (413, text)
        path = f"{BASE}/active_native_histogram_metrics"
        answer = await client.get(path, headers={"Sharding-Control": "4"})
        assert (answer.status_code, answer.json()["error"]) == (400, "selector parameter is required")


@pytest.mark.parametrize("fault", ["garble", "cut", "lie"])
async def test_an_owners_answer_that_is_not_whole_is_asked_of_the_other_zone(tmp_path, fault):
    async with asking(tmp_path) as client:
        client.cluster.nodes["a-1"].listener.fault = fault
        answer = await client.get(f"{BASE}/label_values", params={"label_names[]": "i"})
        assert answer.json() == values_answer(OLD + NEW, ["i"], len(OLD + NEW))


async def test_a_tenants_statistics_count_each_partition_once(tmp_path):
    async with asking(tmp_path) as client:
        answer = await client.get("/api/v1/user_stats")
        assert answer.json() == {
            "ingestionRate": 0.0,
            "numSeries": len(OLD + NEW),
            "APIIngestionRate": 0.0,
            "RuleIngestionRate": 0.0,
        }
        several = await client.get("/api/v1/user_stats", headers={"X-Scope-OrgID": "a|b"})
        assert (several.status_code, several.text) == (500, "multiple org IDs present\n")


async def test_all_tenants_statistics_sum_over_all_ingesters_and_need_every_one_of_them(tmp_path):
    async with asking(tmp_path) as client:
        cluster = client.cluster
        async with IngesterClient(IngesterClientMetrics.create(CollectorRegistry())) as connections:
            ingesters = AllIngesters(
                lambda: cluster.watcher.desc,
                connections,
                local_id="a-0",
                local=LocalOwner(cluster.nodes["a-0"].ingester),
                heartbeat_timeout_ms=60_000,
                now_ms=lambda: cluster.now_ms,
            )
            application = FastAPI()
            application.include_router(all_user_stats_router(ingesters, now_ms=lambda: cluster.now_ms))
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://d") as page:
                path = "/distributor/all_user_stats"
                answer = await page.get(path, headers={"Accept": "text/json"})
                # Once a zone: two owners of each partition.
                assert [(row["userID"], row["numSeries"]) for row in answer.json()] == [("a", 2 * len(OLD + NEW))]
                assert "Ingester Stats" in (await page.get(path)).text

                await cluster.nodes["b-0"].listener.stop()
                assert (await page.get(path)).status_code == 500
                cluster.now_ms += 61_000
                stale = await page.get(path)
                assert (stale.status_code, stale.text) == (500, "too many unhealthy instances in the ring\n")
