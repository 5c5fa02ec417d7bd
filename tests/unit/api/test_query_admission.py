"""A tenant's limits in the query API: what is refused, cut or warned of, with Mimir's texts."""

from __future__ import annotations

import orjson
import pytest

from mimir_ingest.api.params import Params
from mimir_ingest.api.query import ApiRequest, QueryApi
from mimir_ingest.config.durations import Duration
from mimir_ingest.config.settings import load
from mimir_ingest.errors import QueryError
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.promql.values import QueryResult, String
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.service import QueryAnswer, QueryLimits, QueryTimings

DEFAULTS = load([], {})[0].limits
NOW_MS = 1_700_000_000_000
HOUR = Duration(3_600_000_000_000)


class RecordingQuerier:
    """Answers nothing of interest; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict = {}
        self.limits = QueryLimits(max_samples=1, timeout_s=60, lookback_ms=1, subquery_step_ms=1)

    async def query(self, tenant, expression, **asked):
        self.asked = asked
        plan_query(
            expression,
            start_ms=asked["start_ms"],
            end_ms=asked["end_ms_incl"],
            step_ms=asked["step_ms"],
            lookback_ms=300_000,
        )
        return QueryAnswer(QueryResult(String(0, "")), QueryTimings(0, 0, 0), (), float("inf"))

    async def label_frame(self, tenant, selectors, start_ms, end_ms, *, reading):
        self.asked = {"start_ms": start_ms, "end_ms": end_ms}
        return LabelFrame.from_dicts([{"a": str(i)} for i in range(5)])

    async def label_names(self, tenant, selectors, start_ms, end_ms, *, reading):
        self.asked = {"start_ms": start_ms, "end_ms": end_ms}
        return list("abcde")


def api_with(**limits) -> tuple[QueryApi, RecordingQuerier]:
    querier = RecordingQuerier()
    own = {"team-a": DEFAULTS.overridden(limits)}
    return QueryApi(querier, limits_for=lambda tenant: own.get(tenant, DEFAULTS), now_ms=lambda: NOW_MS), querier


def asked(tenant: str = "team-a", **params: object) -> ApiRequest:
    values = {name.replace("match", "match[]"): [str(value)] for name, value in params.items()}
    return ApiRequest(tenant, Params(values), Reading(), {"type": "http", "headers": []})


@pytest.mark.parametrize(
    ("limits", "query", "message"),
    [
        ({"max_query_expression_size_bytes": 3}, "up + 1", "err-mimir-max-query-expression-size-bytes"),
        ({"max_total_query_length": HOUR}, "up", "query length: 2h0m0s, limit: 1h0m0s"),
        ({"blocked_queries": [{"pattern": "sum by (a) (up)"}]}, "sum(up)  by(a)", "err-mimir-query-blocked"),
        ({"blocked_queries": [{"pattern": ".*up.*", "regex": True}]}, "up > 1", "err-mimir-query-blocked"),
        ({}, "limitk(1, up)", 'invalid parameter "query": experimental aggregation "limitk" is not enabled for tenant'),
        (
            {"enabled_promql_experimental_functions": "sort_by_label_desc,limitk"},
            "sort_by_label(up, 'a')",
            'invalid parameter "query": experimental function "sort_by_label" is not enabled for tenant',
        ),
        (
            {"enabled_promql_experimental_functions": "all"},
            "rate(up[1m] smoothed)",
            'experimental extended range selector modifier "smoothed" is not enabled for tenant',
        ),
    ],
)
async def test_a_query_against_the_limits_of_its_tenant_is_bad_data(limits, query, message) -> None:
    api, querier = api_with(**limits)
    times = {"start": NOW_MS / 1000 - 7200, "end": NOW_MS / 1000, "step": 60}
    with pytest.raises(QueryError) as raised:
        await api.query_range(asked(query=query, **times))
    assert message in raised.value.message
    assert (raised.value.http_status, raised.value.error_type) == (400, "bad_data")
    assert not querier.asked


@pytest.mark.parametrize(
    ("limits", "query"),
    [
        ({"enabled_promql_experimental_functions": "limitk, sort_by_label"}, "sort_by_label(limitk(1, up), 'a')"),
        ({"enabled_promql_extended_range_selectors": "smoothed"}, "rate(up[1m] smoothed)"),
        ({"enabled_promql_extended_range_selectors": "all"}, "rate(up[1m] anchored)"),
        ({}, "rate(up[1m + 1m]) + fill(0) up"),
    ],
)
async def test_features_are_enabled_for_one_tenant_and_not_for_others(limits, query) -> None:
    api, _ = api_with(**limits)
    await api.query(asked(query=query))
    if limits:
        with pytest.raises(QueryError, match="is not enabled for tenant"):
            await api.query(asked("team-b", query=query))


async def test_a_query_begins_where_the_look_back_ends_and_reads_nothing_older() -> None:
    api, querier = api_with(max_query_lookback=HOUR, compactor_blocks_retention_period=Duration(2 * HOUR))
    await api.query_range(asked(query="up", start=0, end=NOW_MS / 1000, step=10**9))
    assert querier.asked["start_ms"] == querier.asked["earliest_ms"] == NOW_MS - HOUR.ms
    querier.asked = {}
    response = await api.query(asked(query="up", time=NOW_MS / 1000 - 3601))
    assert orjson.loads(response.body) == {"status": "success", "data": {"resultType": "matrix", "result": []}}
    assert not querier.asked


async def test_the_bounds_of_what_is_read_reach_the_querier() -> None:
    api, querier = api_with(
        max_fetched_series_per_query=1, max_fetched_chunk_bytes_per_query=3, max_partial_query_length=HOUR
    )
    await api.query(asked(query="up"))
    limits = querier.asked["tenant_limits"]
    assert (limits.fetch.max_series, limits.fetch.max_chunks, limits.fetch.max_chunk_bytes) == (1, 2_000_000, 3)
    assert limits.max_partial_length_ms == HOUR.ms


async def test_requests_for_labels_and_series_are_cut_in_time_and_in_number() -> None:
    api, querier = api_with(max_labels_query_length=HOUR, max_series_query_limit=2, max_label_names_limit=4)
    answer = orjson.loads((await api.series(asked(match="up", limit=3))).body)
    assert len(answer["data"]) == 2
    assert answer["warnings"] == [
        "results may be truncated due to querier.max-series-query-limit (requested limit: 4, enforced: 2)"
    ]
    assert querier.asked == {"start_ms": NOW_MS - HOUR.ms, "end_ms": NOW_MS + 1}
    answer = orjson.loads((await api.labels(asked(limit=3))).body)
    assert answer == {"status": "success", "data": list("abc"), "warnings": ["results truncated due to limit"]}
    old, querier = api_with(max_query_lookback=HOUR)
    assert orjson.loads((await old.labels(asked(end=5))).body)["data"] == []
    assert not querier.asked
