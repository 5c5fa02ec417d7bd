"""Native histograms in the engine beyond the scripts: limits, weights, sharing of columns, mixed labels, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mimir_ingest.api.render import limited, result_json
from mimir_ingest.errors import QueryError
from mimir_ingest.promql.values import Matrix, Vector
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample
from tests.support.series_notation import HistogramValue


def _histogram(k: int, **more) -> HistogramValue:
    buckets = {-1: float(k), 0: 2.0 * k, 3: 1.0}
    return HistogramValue(count=3.0 * k + 4, sum=k * 1.5, zero_count=3.0, zero_threshold=0.3, positive=buckets, **more)


def _json(value: Vector | Matrix) -> list[dict]:
    return json.loads(f"{{{result_json(value)}}}")["result"]


@pytest.fixture
def target() -> EngineTarget:
    """Four counters of 60 histograms, 10 s apart, and four floats of their labels but for the name."""
    target = EngineTarget(delayed_name_removal=False)
    for i in range(4):
        target.append({"__name__": "h", "i": str(i)}, [Sample(t * 10_000, _histogram(t)) for t in range(60)])
        target.append({"__name__": "f", "i": str(i)}, [Sample(t * 10_000, float(t)) for t in range(60)])
    return target


@pytest.mark.parametrize("query", ["h", "h * 2", "rate(h[1m])", "sum by (i) (h)", "h + h", "sum_over_time(h[1m])"])
def test_a_histogram_counts_for_many_samples(target: EngineTarget, query: str) -> None:
    """Four series at 50 steps are 200 samples, but 13 times that in histograms."""
    with pytest.raises(QueryError, match="too many samples"):
        target.query(query, 100_000, 590_000, 10_000, max_samples=1_500)
    target.query(query, 100_000, 590_000, 10_000, max_samples=20_000)


def test_samples_read_are_weighed_by_the_size_of_histograms(target: EngineTarget) -> None:
    """176 bytes, three buckets and two spans are 13 samples; without buckets 11."""
    assert target.query("h{i='0'}", 300_000, 300_000, 0).stats.samples_read == 13
    assert target.query("histogram_count(h{i='0'})", 300_000, 300_000, 0).stats.samples_read == 11
    assert target.query("histogram_quantile(0.5, h{i='0'})", 300_000, 300_000, 0).stats.samples_read == 13
    assert target.query("sum_over_time(h{i='0'}[1m])", 300_000, 300_000, 0).stats.total_queryable_samples == 6 * 13


def test_steps_that_show_one_sample_share_its_columns(target: EngineTarget) -> None:
    """A selector copies no histogram, however dense its steps."""
    matrix = target.query("h @ 300", 300_000, 400_000, 1_000).value
    assert isinstance(matrix, Matrix)
    assert len(matrix.histograms.rows) == 4 * 101
    assert len(np.unique(matrix.histograms.rows)) == 4


def test_histograms_are_shown_as_prometheus_shows_them(target: EngineTarget) -> None:
    """A bucket that reaches into the zero bucket begins where that ends; empty ones are left out."""
    assert _json(target.query("h{i='1'}", 20_000, 20_000, 0).value) == [
        {
            "metric": {"__name__": "h", "i": "1"},
            "histogram": [
                20,
                {
                    "count": "10",
                    "sum": "3",
                    "buckets": [
                        [3, "-0.3", "0.3", "3"],
                        [0, "0.3", "0.5", "2"],
                        [0, "0.5", "1", "4"],
                        [0, "4", "8", "1"],
                    ],
                },
            ],
        }
    ]


def test_a_series_with_both_kinds_shows_two_lists(target: EngineTarget) -> None:
    """Numbers as values, histograms as histograms; a limit cuts both."""
    target.append({"__name__": "both"}, [Sample(0, 1.0), Sample(10_000, HistogramValue()), Sample(20_000, 2.0)])
    matrix = target.query("both", 0, 20_000, 10_000).value
    assert _json(matrix) == [
        {
            "metric": {"__name__": "both"},
            "values": [[0, "1"], [20, "2"]],
            "histograms": [[10, {"count": "0", "sum": "0"}]],
        }
    ]
    everything = target.query('{__name__=~"f|h"}', 0, 20_000, 10_000).value
    cut, is_cut = limited(everything, 5)
    assert is_cut
    series = _json(cut)
    assert ["histograms" in s for s in series] == [False] * 4 + [True]
    vector, is_cut = limited(target.query('{__name__=~"f|h"}', 0, 0, 0).value, 5)
    assert is_cut
    assert isinstance(vector, Vector)
    assert ["histogram" in s for s in _json(vector)] == [True, False, True, False, True]


def test_numbers_and_histograms_of_equal_labels_meet_at_the_end(target: EngineTarget) -> None:
    """A range query shows both, an instant query the histogram; two numbers are still an error."""
    query = '-{__name__=~"f|h", i="2"}'
    series = _json(target.query(query, 0, 20_000, 10_000).value)
    assert len(series) == 1
    assert len(series[0]["values"]) == len(series[0]["histograms"]) == 3
    series = _json(target.query(query, 20_000, 20_000, 0).value)
    assert [sorted(s) for s in series] == [["histogram", "metric"]]
    target.append({"__name__": "g", "i": "2"}, [Sample(20_000, 1.0)])
    with pytest.raises(QueryError, match="same labelset"):
        target.query('-{__name__=~"f|g", i="2"}', 20_000, 20_000, 0)


def test_values_are_counted_where_there_is_no_step(target: EngineTarget) -> None:
    """A subquery's range may hold none."""
    answer = target.query('sum_over_time(count_values("v", h)[1ms:1h])', 5_000_001, 5_000_001, 0).value
    assert answer.labels.n == 0


def test_the_time_is_looked_at_between_parts_of_long_windows(target: EngineTarget, monkeypatch) -> None:
    """However few results a kernel writes, it does not look at more than some histograms at a time."""
    asked = []
    query = "avg_over_time(h[5m])"
    target.query(query, 300_000, 590_000, 10_000, deadline=lambda: asked.append(1))
    before = len(asked)
    monkeypatch.setattr("mimir_ingest.promql.native._MOST_MEMBERS", 100)
    asked.clear()
    result = target.query(query, 300_000, 590_000, 10_000, deadline=lambda: asked.append(1)).value
    assert len(asked) > before + 30
    monkeypatch.undo()
    assert _json(result) == _json(target.query(query, 300_000, 590_000, 10_000).value)
