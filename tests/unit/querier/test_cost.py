"""Which queries are evaluated on the event loop."""

from __future__ import annotations

import pytest

from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.querier import cost
from mimir_ingest.querier.cost import is_small
from tests.support.blocks import make_samples

MINUTE = 60_000


def small(text: str, *, series: int = 1, minutes: int = 60, step_ms: int = 15_000) -> bool:
    """Judge a query over `minutes` of 15 s samples."""
    expression = parse_expr(text)
    plan = plan_query(expression, start_ms=0, end_ms=minutes * MINUTE, step_ms=step_ms, lookback_ms=5 * MINUTE)
    data = make_samples(
        [
            ({"__name__": "m", "i": str(i)}, [(t, 1.0) for t in range(0, minutes * MINUTE, 15_000)])
            for i in range(series)
        ]
    )
    return is_small(expression, plan, [data] * len(plan.selects))


@pytest.mark.parametrize("text", ["1", "m", "rate(m[5m])", "sum by (i) (rate(m[5m])) / 2", "vector(1)"])
def test_a_panel_of_one_series_is_small(text):
    assert small(text)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("m", {"series": 200}),
        ("quantile_over_time(0.5, m[1h])", {"series": 3}),
        ("max_over_time(m[5m:15s])", {}),
        ("-" * 40 + "m", {}),
        ("vector(1) + vector(1) + vector(1) + vector(1) + vector(1)", {"step_ms": 1, "minutes": 1}),
    ],
)
def test_many_values_windows_that_overlap_much_subqueries_and_long_expressions_are_not(text, bounds):
    assert not small(text, **bounds)


@pytest.mark.parametrize("text", ["ln(m)", "m ^ 2", "1 + sin(vector(1))"])
def test_a_query_whose_kernels_may_have_to_be_compiled_is_not_small(text):
    assert not small(text, minutes=1)


def test_what_is_asked_again_is_judged_alike_and_long_expressions_are_not_held():
    short, long = parse_expr("m"), parse_expr(f"m{' ' * 10}" + f'{{a="{"x" * 2000}"}}')
    samples = make_samples([({"__name__": "m"}, [(t, 1.0) for t in range(0, 60 * MINUTE, 15_000)])])
    for expression in (short, long):
        plan = plan_query(expression, start_ms=0, end_ms=60 * MINUTE, step_ms=15_000, lookback_ms=5 * MINUTE)
        assert [is_small(expression, plan, [samples]) for _ in range(2)] == [True, True]
    held = [expression for expression, _ in cost._known_nodes.values()]
    assert any(expression is short for expression in held)
    assert not any(expression is long for expression in held)
