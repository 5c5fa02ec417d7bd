"""Limits of a query: which are refused, with Mimir's texts, and which times and numbers are cut."""

from __future__ import annotations

import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.model.blocked_queries import BlockedQuery, parse_blocked_queries
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.querier import query_limits

HOUR = 3_600_000


def _refused(call, *args) -> tuple[int, str, str]:
    with pytest.raises(QueryError) as raised:
        call(*args)
    return raised.value.http_status, raised.value.error_type, raised.value.message


def test_an_expression_over_its_size_is_refused() -> None:
    query_limits.check_expression_size("é" * 5, 10)
    query_limits.check_expression_size("é" * 500, 0)
    assert _refused(query_limits.check_expression_size, "é" * 5 + "x", 10) == (
        400,
        "bad_data",
        "the raw query size in bytes exceeds the limit (query size: 11, limit: 10) "
        "(err-mimir-max-query-expression-size-bytes). To adjust the related per-tenant limit, configure "
        "-query-frontend.max-query-expression-size-bytes, or contact your service administrator.",
    )


def test_a_query_over_its_length_is_refused() -> None:
    query_limits.check_total_length(0, HOUR, HOUR)
    query_limits.check_total_length(0, 1 << 50, 0)
    assert _refused(query_limits.check_total_length, 0, HOUR + 500, HOUR) == (
        400,
        "bad_data",
        "the total query time range exceeds the limit (query length: 1h0m0.5s, limit: 1h0m0s) "
        "(err-mimir-max-total-query-length). To adjust the related per-tenant limit, configure "
        "-query-frontend.max-total-query-length, or contact your service administrator.",
    )


def test_a_selector_that_reads_too_long_a_range_is_refused() -> None:
    def selects(text: str):
        plan = plan_query(parse_expr(text), start_ms=0, end_ms=HOUR, step_ms=60_000, lookback_ms=300_000)
        return plan.selects

    query_limits.check_partial_lengths(selects("a + rate(b[1h] offset 5d)"), 2 * HOUR)
    query_limits.check_partial_lengths(selects("rate(b[9y])"), 0)
    query_limits.check_partial_lengths((), 1)
    assert _refused(query_limits.check_partial_lengths, selects("a + rate(b[61m])"), 2 * HOUR) == (
        422,
        "execution",
        "the query time range exceeds the limit (query length: 2h1m0s, limit: 2h0m0s) (err-mimir-max-query-length). "
        "To adjust the related per-tenant limit, configure -querier.max-partial-query-length, or contact your service "
        "administrator.",
    )


@pytest.mark.parametrize(
    ("rule", "blocked"),
    [
        (BlockedQuery(" sum(up) "), True),
        (BlockedQuery("sum"), False),
        (BlockedQuery("sum.*"), False),
        (BlockedQuery("sum.*", regex=True), True),
        (BlockedQuery("um", regex=True), False),
        (BlockedQuery("sum(", regex=True), False),
    ],
)
def test_a_rule_blocks_a_whole_expression_or_what_its_pattern_matches_wholly(rule: BlockedQuery, blocked: bool) -> None:
    if not blocked:
        query_limits.check_blocked(("sum(up)",), (rule,))
        return
    assert _refused(query_limits.check_blocked, ("other", "sum(up)"), (BlockedQuery("x"), rule)) == (
        400,
        "bad_data",
        "the request has been blocked by the cluster administrator (err-mimir-query-blocked)",
    )


def test_a_rule_tells_its_reason() -> None:
    rules = parse_blocked_queries([{"pattern": "up", "reason": "too dear"}])
    assert _refused(query_limits.check_blocked, ("up",), rules)[2] == (
        "the request has been blocked by the cluster administrator too dear (err-mimir-query-blocked)"
    )


@pytest.mark.parametrize("rules", [["up"], [{"regex": True}], [{"pattern": 3}]])
def test_a_rule_needs_a_pattern(rules: list) -> None:
    with pytest.raises(ValueError, match="needs a pattern"):
        parse_blocked_queries(rules)


@pytest.mark.parametrize(
    ("periods", "asked", "expected"),
    [
        ((0, 0), (5, 10), (5, 10)),
        ((HOUR, 0), (0, 10 * HOUR), (9 * HOUR, 10 * HOUR)),
        ((0, 2 * HOUR), (0, 10 * HOUR), (8 * HOUR, 10 * HOUR)),
        ((HOUR, 2 * HOUR), (0, 9 * HOUR), (9 * HOUR, 9 * HOUR)),
        ((HOUR, 2 * HOUR), (0, 9 * HOUR - 1), None),
    ],
)
def test_what_is_too_old_is_left_out_of_a_time_range(periods, asked, expected) -> None:
    assert query_limits.clamp_range(*asked, query_limits.earliest_ms(10 * HOUR, *periods)) == expected


@pytest.mark.parametrize(
    ("asked", "length", "expected"),
    [
        ((0, 100), 0, (0, 100)),
        ((0, 100), 30, (70, 100)),
        ((80, 100), 30, (80, 100)),
        ((0, 10**9), 30, (470, 500)),
        ((600, 10**9), 30, (600, 600)),
    ],
)
def test_requests_for_labels_keep_the_newest_part_of_their_range(asked, length, expected) -> None:
    assert query_limits.clamp_labels_range(*asked, now_ms=500, max_length_ms=length) == expected


@pytest.mark.parametrize(
    ("limit", "most", "expected"),
    [
        (0, 0, (0, None)),
        (7, 0, (7, None)),
        (7, 8, (7, None)),
        (7, 7, (7, "results may be truncated due to f (requested limit: 8, enforced: 7)")),
        (9, 7, (7, "results may be truncated due to f (requested limit: 10, enforced: 7)")),
        (0, 7, (7, "results may be truncated due to f (requested limit: 0, enforced: 7)")),
    ],
)
def test_the_smaller_limit_of_items_holds(limit, most, expected) -> None:
    assert query_limits.clamp_count(limit, most, "f") == expected
