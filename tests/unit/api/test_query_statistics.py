"""Server-Timing of the query API, and the metrics of the same numbers, for a querier that says what it read."""

from __future__ import annotations

import re

import httpx
import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.api.middleware import Router
from mimir_ingest.api.query import QueryApi
from mimir_ingest.api.query_routes import query_routes
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.settings import load
from mimir_ingest.errors import QueryError
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.promql.values import QueryResult, QueryStats, String
from mimir_ingest.querier.service import QueryAnswer, QueryLimits, QueryTimings

LIMITS = load([], {})[0].limits
USUAL = ["querier_wall_time", "response_time", "bytes_processed", "samples_processed"]
EXTENDED = [
    "encode_time_seconds",
    "estimated_series_count",
    "fetched_chunk_bytes",
    "fetched_chunks_count",
    "fetched_index_bytes",
    "fetched_series_count",
    "query_wall_time_seconds",
    "queue_time_seconds",
    "response_size_bytes",
    "response_time",
    "results_cache_hit_bytes",
    "results_cache_miss_bytes",
    "sharded_queries",
    "split_queries",
    "remote_execution_request_count",
]


class KnownQuerier:
    """Reads 3 series, 4 chunks, 500 bytes, and processes 60 samples; `2` fails after its reads."""

    limits = QueryLimits(max_samples=1, timeout_s=60, lookback_ms=1, subquery_step_ms=1)

    async def query(self, tenant, expression, *, reading, **asked):
        reading.fetched_series += 3
        reading.fetched_chunks += 4
        reading.fetched_chunk_bytes += 500
        if getattr(expression, "value", None) == 2:
            raise QueryError("no")
        result = QueryResult(String(0, ""), stats=QueryStats(total_queryable_samples=60))
        return QueryAnswer(result, QueryTimings(0.0, 0.0, 0.0), (), float("inf"))

    async def label_names(self, tenant, selectors, start_ms, end_ms, *, reading):
        return ["a"]


def client(*, statistics: bool = True) -> tuple[httpx.AsyncClient, CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = QueryMetrics.create(registry, statistics=statistics)
    api = QueryApi(KnownQuerier(), limits_for=lambda tenant: LIMITS, now_ms=lambda: 1_700_000_000_000)
    routes = query_routes(api, prefix="/p", tenants=TenantResolver(), metrics=metrics)
    transport = httpx.ASGITransport(Router(routes, fallback=None))
    return httpx.AsyncClient(
        transport=transport, base_url="http://x/p/api/v1", headers={"X-Scope-OrgID": "t"}
    ), registry


def told(answer: httpx.Response) -> list[tuple[str, str, float]]:
    entries = [re.fullmatch(r"(\w+);(dur|val)=([\d.]+)", e) for e in answer.headers["Server-Timing"].split(", ")]
    return [(found[1], found[2], float(found[3])) for found in entries]


RANGE = "/query_range?query=1&start=0&end=60&step=60"


@pytest.mark.parametrize("path", ["/query?query=1", RANGE])
async def test_an_answer_says_how_long_it_took_and_how_much_was_read(path):
    http, _ = client()
    entries = told(await http.get(path))
    assert [name for name, _, _ in entries] == USUAL
    assert [unit for _, unit, _ in entries] == ["dur", "dur", "val", "val"]
    (wall, response), counts = (value for *_, value in entries[:2]), [value for *_, value in entries[2:]]
    assert 0 < wall <= response
    assert counts == [500, 60]


@pytest.mark.parametrize("statistics", [True, False])
async def test_who_asks_is_told_all_even_where_statistics_are_off(statistics):
    http, _ = client(statistics=statistics)
    answer = await http.get(RANGE, headers={"X-Mimir-Response-Query-Stats": "true"})
    entries = told(answer)
    usual = USUAL if statistics else []
    assert [name for name, _, _ in entries[: len(usual)]] == usual
    extended = {name: (unit, value) for name, unit, value in entries[len(usual) :]}
    assert sorted(extended) == sorted(EXTENDED)
    assert {name for name in extended if extended[name][0] == "dur"} == {
        name for name in EXTENDED if name.endswith("_seconds") or name == "response_time"
    }
    counts = ("fetched_chunk_bytes", "fetched_chunks_count", "fetched_series_count", "response_size_bytes")
    assert [extended[name][1] for name in counts] == [500, 4, 3, len(answer.content)]
    assert 0 < extended["encode_time_seconds"][1] <= extended["query_wall_time_seconds"][1]
    assert extended["response_time"][1] == pytest.approx(1000 * extended["query_wall_time_seconds"][1], abs=1e-4)


@pytest.mark.parametrize(
    ("statistics", "headers"), [(False, {}), (False, {"X-Mimir-Response-Query-Stats": "false"}), (False, {"a": "b"})]
)
async def test_nothing_is_told_where_statistics_are_off_and_nobody_asks(statistics, headers):
    http, _ = client(statistics=statistics)
    assert "Server-Timing" not in (await http.get(RANGE, headers=headers)).headers


async def test_lists_read_no_samples_and_errors_say_nothing():
    http, _ = client()
    assert [value for *_, value in told(await http.get("/labels"))[2:]] == [0, 0]
    failed = await http.get("/query?query=2")
    assert failed.status_code == 422
    assert "Server-Timing" not in failed.headers


async def test_requests_are_counted_by_kind_and_failed_ones_with_what_they_read():
    http, registry = client()
    for path in ("/query?query=1", "/query?query=2", "/query?query=(", RANGE, "/labels", "/metadata"):
        await http.get(path)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"user": "t", **labels})

    kinds = ("query", "query_range", "label_names_and_values", "other")
    assert [value("cortex_query_frontend_queries_total", op=kind) for kind in kinds] == [3, 1, 1, 1]
    names = ("fetched_series", "fetched_chunks", "fetched_chunk_bytes", "samples_processed")
    assert [value(f"cortex_query_{name}_total") for name in names] == [9, 12, 1500, 120]
    assert value("cortex_query_seconds_total", sharded="false") > 0
