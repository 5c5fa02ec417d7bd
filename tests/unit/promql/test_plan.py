"""Plans: what is read, for which times, and what is evaluated once."""

from __future__ import annotations

import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.promql import plan_nodes as planned
from mimir_ingest.promql.nodes import ValueType
from mimir_ingest.promql.parser import MAX_DEPTH, parse_expr
from mimir_ingest.promql.plan import plan_query

START, END, STEP, LOOKBACK = 1_000_000, 2_000_000, 10_000, 300_000


def _plan(text: str, *, start_ms: int = START, end_ms: int = END, step_ms: int = STEP) -> planned.Plan:
    return plan_query(parse_expr(text), start_ms=start_ms, end_ms=end_ms, step_ms=step_ms, lookback_ms=LOOKBACK)


@pytest.mark.parametrize(
    ("text", "start_ms", "end_ms"),
    [
        # From Prometheus 3.14 `getTimeRangesForSelector`: inclusive there, half-open here.
        ("m", START - LOOKBACK + 1, END + 1),
        ("m offset 1m", START - LOOKBACK - 60_000 + 1, END - 60_000 + 1),
        ("m offset -1m", START - LOOKBACK + 60_000 + 1, END + 60_000 + 1),
        ("m @ 500", 500_000 - LOOKBACK + 1, 500_001),
        ("m @ start() offset 30s", START - 30_000 - LOOKBACK + 1, START - 30_000 + 1),
        ("m @ end()", END - LOOKBACK + 1, END + 1),
        ("rate(m[2m])", START - 120_000 + 1, END + 1),
        ("rate(m[2m] offset 1m)", START - 180_000 + 1, END - 60_000 + 1),
        ("rate(m[2m] @ 700)", 580_001, 700_001),
        ("rate(m[2m] anchored)", START - 120_000 - LOOKBACK + 1, END + 1),
        ("rate(m[2m] smoothed)", START - 120_000 - LOOKBACK + 1, END + LOOKBACK + 1),
        ("max_over_time(m[10m:1m])", START - 600_000 - LOOKBACK + 1, END + 1),
        ("max_over_time(m[10m:1m] offset 2m)", START - 720_000 - LOOKBACK + 1, END - 120_000 + 1),
        ("max_over_time(rate(m[1m] offset 5s)[10m:1m] @ 900)", 900_000 - 665_000 + 1, 900_000 - 5_000 + 1),
        ("max_over_time(max_over_time(m[5m:1m] offset 1m)[10m:])", START - 960_000 - LOOKBACK + 1, END - 60_000 + 1),
        ("rate(m[step() * 3])", START - 30_000 + 1, END + 1),
        ("m offset (range() / 10)", START - 100_000 - LOOKBACK + 1, END - 100_000 + 1),
    ],
)
def test_a_select_covers_exactly_the_times_that_can_matter(text: str, start_ms: int, end_ms: int) -> None:
    """Left-open ranges and lookbacks begin a millisecond later."""
    (select,) = _plan(text).selects
    assert (select.start_ms, select.end_ms) == (start_ms, end_ms)


def test_hints_name_the_nearest_function_and_grouping() -> None:
    """As `storage.SelectHints` has them."""
    rate, plain, grouped = _plan("sum by (a) (rate(x[1m])) + y / max without (b) (z)").selects
    assert (rate.hints.function, rate.hints.grouping, rate.hints.range_ms) == ("rate", (), 60_000)
    assert (plain.hints.function, plain.hints.range_ms, plain.hints.step_ms) == ("", 0, STEP)
    assert (grouped.hints.function, grouped.hints.grouping, grouped.hints.by) == ("max", ("b",), False)
    assert _plan("max_over_time(x[10m:30s])").selects[0].hints.step_ms == 30_000


@pytest.mark.parametrize(
    ("text", "invariant"),
    [
        ("m @ 1", True),
        ("sum(m @ 1) + 2", True),
        ("rate(m[1m] @ 1)", True),
        ("max_over_time(m[5m:1m] @ 1)", True),
        ("timestamp(m @ 1)", True),
        ("pi()", True),
        ("timestamp(abs(m @ 1))", False),
        ("predict_linear(m[1m] @ 1, 2)", False),
        ("m @ 1 + m", False),
        ("time()", False),
        ("hour(m @ 1)", False),
    ],
)
def test_what_is_the_same_at_every_step_is_evaluated_once(text: str, invariant: bool) -> None:
    """The root is wrapped exactly where Prometheus wraps it."""
    assert isinstance(_plan(text).root, planned.StepInvariant) == invariant


def test_info_reads_the_info_series_with_the_wanted_labels() -> None:
    """Without matchers on the name it is `target_info`."""
    base, info = _plan('info(m @ 5, {version=~"v.+"})').selects
    assert [str(m) for m in base.matchers] == ['__name__="m"']
    assert [str(m) for m in info.matchers] == ['__name__="target_info"', 'version=~"v.+"']
    assert (info.start_ms, info.end_ms) == (5_000 - LOOKBACK + 1, 5_001)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m[5m]", 'invalid expression type "range vector" for range query, must be Scalar or instant Vector'),
        ("'x'", 'invalid expression type "string" for range query, must be Scalar or instant Vector'),
        ("rate(m[5m - 5m])", "7:14: duration must be greater than 0"),
        ("rate(m[1m / (step() - 10)])", "7:24: division by zero"),
        ("rate(m[10 ^ 400])", "7:15: duration is NaN or infinite"),
    ],
)
def test_queries_that_cannot_be_planned_are_bad_data(text: str, message: str) -> None:
    """With Prometheus's texts."""
    with pytest.raises(QueryError) as caught:
        _plan(text)
    assert caught.value.error_type == "bad_data"
    assert caught.value.message == message


def test_the_tallest_tree_can_be_planned() -> None:
    """The parser's limit is the only one."""
    depth = MAX_DEPTH - 2
    plan = _plan("abs(" * depth + "m" + ")" * depth)
    assert len(plan.selects) == 1


MOVING = [
    "up",
    "up offset 5m",
    "up @ 1700000000.5",
    "up @ start() + up @ end()",
    "sum by (a) (rate(up[5m])) / up",
    "max_over_time(up[10m:1m]) + up @ 3",
    "max_over_time(rate(up[5m] @ 77)[10m:1m] @ 99)",
    "sum_over_time(up[1m + step()])",
    "time() - start() + range() + step()",
    "vector(end())",
    "up[5m] smoothed",
    "info(up)",
    "timestamp(up @ 5)",
    "1 + 2",
]


@pytest.mark.parametrize("text", MOVING)
@pytest.mark.parametrize("step_ms", [0, 15_000])
def test_a_plan_made_again_is_the_one_that_was_not_made_before(text, step_ms):
    expression = parse_expr(text)
    if step_ms and expression.type not in (ValueType.VECTOR, ValueType.SCALAR):
        return
    span_ms = step_ms * 240
    for lookback_ms in (300_000, 60_000):
        for start_ms in (1_700_000_000_000, 1_700_000_015_000, -7):
            times = {"start_ms": start_ms, "end_ms": start_ms + span_ms, "step_ms": step_ms, "lookback_ms": lookback_ms}
            assert plan_query(expression, **times) == plan_query(parse_expr(text), **times)


@pytest.mark.parametrize(
    ("text", "newest_only"),
    [
        ("m", True),
        ("sum(m offset 1m)", True),
        ("rate(m[1m])", False),
        ("max_over_time(m[5m:1m])", False),
        ("max_over_time(m[5m:1m] @ 900)", False),
        ("max_over_time((m @ 500)[5m:1m])", True),
        ("m smoothed", False),
    ],
)
def test_only_the_newest_samples_matter_to_an_instant_selector_that_is_evaluated_at_one_time(text, newest_only):
    [select] = _plan(text, end_ms=START).selects
    assert select.hints.newest_only is newest_only


@pytest.mark.parametrize(("text", "newest_only"), [("m", False), ("m @ 500", True), ("m @ end()", True)])
def test_at_many_times_only_the_newest_samples_matter_where_all_look_at_one(text, newest_only):
    [select] = _plan(text).selects
    assert select.hints.newest_only is newest_only
