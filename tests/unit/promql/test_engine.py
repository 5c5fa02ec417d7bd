"""The engine beyond the conformance scripts: limits, time-outs, counts, order, depth, annotations."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.promql.parser import MAX_DEPTH
from mimir_ingest.promql.values import Matrix, Scalar, String, Vector
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample


@pytest.fixture
def target() -> EngineTarget:
    """Ten counters of 100 samples, 10 s apart, and one stale series."""
    target = EngineTarget(delayed_name_removal=False)
    for i in range(10):
        labels = {"__name__": "m_total", "i": str(i), "half": str(i % 2)}
        target.append(labels, [Sample(t * 10_000, float(t * (i + 1))) for t in range(100)])
    return target


def test_the_four_kinds_of_results_have_their_types(target: EngineTarget) -> None:
    """Instant queries give what the expression is, range queries a matrix."""
    assert isinstance(target.query("m_total", 500_000, 500_000, 0).value, Vector)
    assert isinstance(target.query("m_total[1m]", 500_000, 500_000, 0).value, Matrix)
    assert target.query("1 + 1", 500_000, 500_000, 0).value == Scalar(500_000, 2.0)
    assert target.query("'x'", 500_000, 500_000, 0).value == String(500_000, "x")
    matrix = target.query("1 + 1", 0, 20_000, 10_000).value
    assert isinstance(matrix, Matrix)
    assert (matrix.timestamps.tolist(), matrix.values.tolist()) == ([0, 10_000, 20_000], [2.0, 2.0, 2.0])


@pytest.mark.parametrize(("factor", "text"), [("1.5", "1.500000"), ("Inf", "+Inf"), ("-Inf", "-Inf")])
def test_a_bad_factor_of_smoothing_is_named_as_go_prints_it(target: EngineTarget, factor: str, text: str) -> None:
    with pytest.raises(QueryError) as caught:
        target.query(f"double_exponential_smoothing(m_total[1m], 0.5, {factor})", 500_000, 500_000, 0)
    assert caught.value.message == f"invalid trend factor. Expected: 0 < tf < 1, got: {text}"


@pytest.mark.parametrize(
    ("matchers", "labels"),
    [
        ("a='1'", {"a": "1"}),
        ("a!='2',a='1',b='3'", {"b": "3"}),
        ("a='1',a!='2',b='3'", {"b": "3"}),
        ("a='1',a='1'", {}),
        ("a=~'1'", {}),
    ],
)
def test_an_absent_series_has_the_labels_that_one_matcher_alone_gives(
    target: EngineTarget, matchers: str, labels: dict[str, str]
) -> None:
    assert target.query(f"absent(nothing{{{matchers}}})", 0, 0, 0).value.labels.to_dicts() == [labels]


def test_the_time_of_the_last_sample_is_never_before_the_epoch() -> None:
    """As Prometheus 3.14 has it; the other times are."""
    target = EngineTarget()
    target.append({"__name__": "m"}, [Sample(-20_000, 1.0), Sample(-10_000, 2.0)])
    assert target.query("ts_of_last_over_time(m[1m])", 0, 0, 0).value.values.tolist() == [0.0]
    assert target.query("ts_of_first_over_time(m[1m])", 0, 0, 0).value.values.tolist() == [-20.0]


@pytest.mark.parametrize(
    ("bounds", "quantile"),
    [
        (("NaN", "2", "1", "+Inf"), 1.5),
        (("2", "1", "NaN", "+Inf"), 1.5),
        (("1", "+Inf", "NaN", "2"), np.nan),
        (("2", "1_0", "0x1p3", "+Inf"), 4 / 3),
    ],
)
def test_a_bucket_of_nan_stays_where_it_is(bounds: tuple[str, ...], quantile: float) -> None:
    """Buckets are sorted on either side of it."""
    target = EngineTarget()
    counts = {"NaN": 0.0, "1": 1.0, "2": 3.0, "0x1p3": 4.0, "1_0": 4.0, "+Inf": 4.0}
    for bound in bounds:
        target.append({"__name__": "b", "le": bound}, [Sample(0, counts[bound])])
    found = target.query("histogram_quantile(0.5, b)", 0, 0, 0).value.values
    np.testing.assert_array_equal(found, [quantile])


def test_of_two_errors_of_matching_the_earlier_step_s_is_told() -> None:
    target = EngineTarget()
    for i, first in ((0, 0), (1, 10_000)):
        target.append({"__name__": "many", "i": str(i)}, [Sample(t, 1.0) for t in (0, 10_000)])
        target.append({"__name__": "one", "i": str(i)}, [Sample(t, 1.0) for t in range(first, 20_000, 10_000)])
    for start_ms, text in ((0, "multiple matches for labels: many-to-one"), (10_000, "found duplicate series")):
        with pytest.raises(QueryError, match=text):
            target.query("many < on() one", start_ms, 10_000, 10_000)


def test_a_subquery_without_a_step_is_not_evaluated(target: EngineTarget) -> None:
    """So what would fail there does not; the next step's time is 600 s."""
    failing = "label_join(m_total, '', 'i')"
    assert target.query(f"{failing}[10s:5m]", 500_000, 500_000, 0).value.labels.n == 0
    assert target.query(f"count_over_time({failing}[10s:5m])", 500_000, 500_000, 0).value.labels.n == 0
    with pytest.raises(QueryError, match="invalid destination label name"):
        target.query(f"count_over_time({failing}[10s:5m])", 500_000, 600_000, 50_000)


def test_times_of_an_annotation_are_cut_towards_the_epoch() -> None:
    """As Prometheus's whole seconds are."""
    target = EngineTarget()
    for bound, count in (("1", 3.0), ("+Inf", 1.0)):
        target.append({"__name__": "b", "le": bound}, [Sample(-1_700, count)])
    result = target.query("histogram_quantile(0.5, b)", -1_500, -1_500, 0)
    (info,) = result.annotations.render("histogram_quantile(0.5, b)")[1]
    assert "from 1969-12-31T23:59:59Z to 1969-12-31T23:59:59Z" in info


@pytest.mark.parametrize("op", ["</", ">/"])
def test_numbers_cannot_be_trimmed(target: EngineTarget, op: str) -> None:
    with pytest.raises(QueryError) as caught:
        target.query(f"1 {op} (2)", 0, 0, 0)
    assert (caught.value.message, caught.value.http_status) == (
        f'operator "{op}" not allowed for Scalar operations',
        422,
    )


@pytest.mark.parametrize("query", ["m_total", "rate(m_total[1m])", "sum(m_total)", "m_total + m_total", "m_total @ 9"])
def test_too_many_samples_are_refused(target: EngineTarget, query: str) -> None:
    """With Prometheus's text, and the same query passes under a higher limit."""
    with pytest.raises(QueryError) as caught:
        target.query(query, 0, 900_000, 10_000, max_samples=500)
    assert caught.value.message == "query processing would load too many samples into memory in query execution"
    assert caught.value.error_type == "execution"
    target.query(query, 0, 900_000, 10_000, max_samples=5_000)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("label_replace(", ", 'i', '$1$1$1$1$1$1$1$1$1$1', 'i', '(.*)')"),
        ("label_join(", ", 'i', '', 'i', 'i', 'i', 'i', 'i', 'i', 'i', 'i', 'i', 'i')"),
    ],
)
def test_text_that_grows_in_nested_calls_counts_against_the_limit_on_samples(begin, end):
    """Ten times as long a call: after nine calls it would be a gigabyte."""
    target = EngineTarget(delayed_name_removal=False)
    target.append({"__name__": "m", "i": "x"}, [Sample(0, 1.0)])
    assert target.query(f"{begin}m{end}", 0, 0, 0).value.labels.to_dicts() == [{"__name__": "m", "i": 10 * "x"}]
    with pytest.raises(QueryError, match="would load too many samples"):
        target.query(f"{9 * begin}m{9 * end}", 0, 0, 0, max_samples=1_000_000)


@pytest.mark.parametrize("query", ["vector(1)[1000d:1ms]", "sum_over_time(m_total[1000d:1ms])", "1 + time()"])
def test_more_steps_than_memory_are_refused_before_they_are_made(target: EngineTarget, query: str) -> None:
    """Even where there is no sample at all."""
    step_ms = 0 if ":" in query else 1
    with pytest.raises(QueryError, match="would load too many samples"):
        target.query(query, 0, 86_400_000_000 * (step_ms > 0), step_ms, max_samples=1_000_000)


@pytest.mark.parametrize("deadline", [0.0, lambda: True], ids=["time", "callable"])
def test_a_query_whose_time_is_over_stops(target: EngineTarget, deadline: object) -> None:
    """With Prometheus's text and status."""
    with pytest.raises(QueryError) as caught:
        target.query("sum(m_total)", 0, 900_000, 10_000, deadline=deadline)
    assert (caught.value.error_type, caught.value.http_status) == ("timeout", 503)
    assert caught.value.message == "query timed out in expression evaluation"


def test_the_deadline_is_asked_between_operators_and_stops_in_the_middle(target: EngineTarget) -> None:
    """The third question is answered yes: some of the work has been done, the rest is not."""
    asked = []

    def over() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(QueryError, match="timed out"):
        target.query("sum(abs(ceil(floor(m_total))))", 0, 900_000, 10_000, deadline=over)
    assert len(asked) == 4


def test_a_cancelled_query_stops(target: EngineTarget) -> None:
    """The error type tells it from a time-out."""
    with pytest.raises(QueryError) as caught:
        target.query("m_total", 0, 900_000, 10_000, cancelled=lambda: True)
    assert (caught.value.error_type, caught.value.message) == (
        "canceled",
        "query was canceled in expression evaluation",
    )


def test_samples_are_counted_as_prometheus_does(target: EngineTarget) -> None:
    """Windows count whole at every step; only new samples count as read."""
    stats = target.query("rate(m_total[1m])", 600_000, 700_000, 20_000).stats
    assert stats.total_queryable_samples == 10 * 6 * 6
    assert stats.samples_read == 10 * (6 + 5 * 2)
    stats = target.query("m_total @ 600", 600_000, 700_000, 20_000).stats
    assert (stats.total_queryable_samples, stats.samples_read) == (60, 10)
    assert stats.peak_samples >= 60


@pytest.mark.parametrize("query", ["m_total", "m_total + m_total", "m_total or sum(m_total)", "sum(m_total) * 2"])
def test_counts_of_samples_are_numbers_that_json_has(target: EngineTarget, query: str) -> None:
    """Instant and range queries."""
    for end_ms, step_ms in ((600_000, 0), (700_000, 20_000)):
        stats = target.query(query, 600_000, end_ms, step_ms).stats
        counts = (stats.total_queryable_samples, stats.samples_read, stats.peak_samples)
        assert [type(count) for count in counts] == [int, int, int]


def test_series_of_a_matrix_come_in_label_order_and_of_a_vector_as_they_were_read(target: EngineTarget) -> None:
    """A ranking orders an instant result, best first."""
    matrix = target.query("topk(3, m_total)", 500_000, 520_000, 10_000).value
    assert [s["i"] for s in matrix.labels.to_dicts()] == ["8", "7", "9"]
    vector = target.query("topk(3, m_total)", 500_000, 500_000, 0).value
    assert [s["i"] for s in vector.labels.to_dicts()] == ["9", "8", "7"]
    vector = target.query("m_total", 500_000, 500_000, 0).value
    assert [s["i"] for s in vector.labels.to_dicts()] == [str(i) for i in range(10)]


def test_no_data_gives_empty_results_everywhere(target: EngineTarget) -> None:
    """Every operator takes operands without series."""
    for query in (
        "nope",
        "rate(nope[1m])",
        "sum by (a) (nope)",
        "topk(2, nope)",
        "quantile(0.5, nope)",
        "count_values('v', nope)",
        "nope + on(i) m_total",
        "nope and m_total",
        "histogram_quantile(0.5, nope)",
        "histogram_quantiles(nope, 'q', 0.5)",
        "histogram_fraction(0, 1, nope)",
        "label_replace(nope, 'a', '$1', 'b', '(.*)')",
        "label_join(nope, 'a', ',', 'b')",
        "max_over_time(nope[5m:1m])",
        "sort_by_label(nope, 'a')",
        "info(nope)",
        "limit_ratio(0.5, nope)",
        "quantile_over_time(0.5, nope[1m])",
        "-nope",
        "round(nope, 0.1)",
        "timestamp(nope)",
    ):
        assert target.query(query, 500_000, 500_000, 0).value.labels.n == 0, query
        assert target.query(query, 500_000, 600_000, 10_000).value.labels.n == 0, query


@pytest.mark.parametrize(
    ("offset", "time"),
    [("", 500), ("offset -1m", 500), ("offset 1m", 440), ("offset 299s", 201), ("offset 5m", None)],
)
def test_times_of_samples_at_a_fixed_time_are_looked_for_there(
    target: EngineTarget, offset: str, time: float | None
) -> None:
    """The offset only decides which samples there are, as in Prometheus 3.14."""
    target.append({"__name__": "slow"}, [Sample(at * 1000, 1.0) for at in (190, 201, 440, 500, 530)])
    vector = target.query(f"timestamp(slow @ 500 {offset})", 900_000, 900_000, 0).value
    assert vector.values.tolist() == ([] if time is None else [time])


def test_the_tallest_tree_can_be_evaluated(target: EngineTarget) -> None:
    """Functions, operators and signs nested as deep as the parser lets them."""
    depth = MAX_DEPTH - 2
    assert target.query("abs(" * depth + "m_total" + ")" * depth, 500_000, 500_000, 0).value.labels.n == 10
    assert target.query("-" * depth + "m_total", 500_000, 500_000, 0).value.labels.n == 10
    assert target.query("1 + (" * (depth // 2) + "1" + ")" * (depth // 2), 0, 0, 0).value.value == depth // 2 + 1


def test_annotations_show_positions_and_are_limited() -> None:
    """Equal texts are one annotation; columns count bytes of the query."""
    target = EngineTarget(delayed_name_removal=False)
    for name in ("a", "b", "c"):
        target.append({"__name__": name, "of": name}, [Sample(t * 10_000, float(t)) for t in range(100)])
    query = '# ü\nrate({__name__=~"a|b|c"}[1m])'
    annotations = target.query(query, 500_000, 500_000, 0).annotations
    assert len(annotations) == 3
    text = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "
    assert annotations.render(query) == ([], [f'{text}"{name}" (2:6)' for name in "abc"])
    assert annotations.render(query, limit=1) == ([], [f'{text}"a" (2:6)', "2 more info annotations omitted"])


def test_evaluation_does_not_change_what_was_read(target: EngineTarget) -> None:
    """Blocks may be views of the samples; nothing writes into them."""
    from mimir_ingest.model.labels import LabelFrame
    from mimir_ingest.model.samples import SeriesSamples
    from mimir_ingest.promql.engine import evaluate
    from mimir_ingest.promql.parser import parse_expr
    from mimir_ingest.promql.plan import plan_query

    arrays = (np.array([0, 3, 6]), np.array([1, 2, 3, 1, 2, 3]) * 10_000, np.arange(6.0))
    for array in arrays:
        array.flags.writeable = False
    samples = SeriesSamples(LabelFrame.from_dicts([{"a": "1"}, {"a": "2"}]), *arrays)
    for query in (
        "-{a!=''}",
        "sum(rate({a!=''}[1m]))",
        "sqrt({a!=''}) + {a!=''}",
        "quantile_over_time(0.5, {a!=''}[1m])",
    ):
        plan = plan_query(parse_expr(query), start_ms=10_000, end_ms=30_000, step_ms=10_000, lookback_ms=60_000)
        evaluate(plan, [samples] * len(plan.selects), max_samples=1000)


def test_label_names_that_are_no_legacy_names_are_quoted_in_errors() -> None:
    engine = EngineTarget()
    for value in ("a", "b"):
        engine.append({"__name__": "m", "room.no": "é", "x": value}, [Sample(0, 1.0)])
    with pytest.raises(QueryError) as raised:
        engine.query('m * on ("room.no") m', 0, 0, 0)
    assert '{"room.no"="é"} on the right' in raised.value.message
    assert '[{__name__="m", "room.no"="é", x="a"}, ' in raised.value.message


def test_durations_of_a_subquery_are_judged_step_first() -> None:
    with pytest.raises(QueryError, match=r"^19:25: duration must be greater than 0"):
        EngineTarget().query("(m)[(0s + range()):step()]", 0, 0, 0)


@pytest.mark.parametrize(
    ("query", "negative"),
    [
        ("clamp_max(vector(0), -0.0)", True),
        ("clamp_max(vector(-0.0), 0)", True),
        ("clamp_min(vector(-0.0), 0)", False),
        ("clamp_min(vector(-0.0), -0.0)", True),
        ("vector(max_of(-0.0, 0))", False),
        ("vector(min_of(0, -0.0))", True),
    ],
)
def test_of_two_zeros_the_sign_decides_which_is_smaller(query: str, negative: bool) -> None:
    values = EngineTarget().query(query, 0, 0, 0).value.values
    assert np.signbit(values).tolist() == [negative]


@pytest.mark.parametrize(("window", "warned"), [("[61s:2m]", False), ("[3m:2m]", True)])
def test_a_sort_in_a_subquery_without_steps_is_not_warned_of(window: str, warned: bool) -> None:
    result = EngineTarget().query(f"max_over_time(sort(vector(time())){window})", 110_000, 110_000, 0)
    assert bool(result.annotations.render("x")[0]) is warned
