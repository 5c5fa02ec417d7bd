"""No operator works on a vector of any size in one go: it asks for the deadline piece by piece, and stops there.

The clock of these tests is the number of questions: a deadline passes when it was asked for so many times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mimir_ingest.api.render import result_json
from mimir_ingest.errors import QueryError
from mimir_ingest.promql import native
from mimir_ingest.promql.operators import base, rollups
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample
from tests.support.series_notation import HistogramValue

SERIES = 40
FLOATS = (
    "abs(m_total)",
    "sin(m_total)",
    "hour(m_total)",
    "round(m_total, 7)",
    "clamp(m_total, 3, 50)",
    "-m_total",
    "m_total + 1",
    "m_total ^ 0.5",
    "m_total > 20",
    "m_total > bool 20",
    "m_total + m_total",
    "m_total == m_total",
    "m_total * on (half) group_left sum by (half) (m_total)",
    "m_total + fill (1) m_total",
    "m_total and m_total",
    "m_total or m_total",
    "m_total unless m_total",
    "sum(m_total)",
    "sum by (half) (m_total)",
    "avg without (i) (m_total)",
    "min by (half) (m_total)",
    "count(m_total)",
    "stddev(m_total)",
    "quantile(0.3, m_total)",
    "count_values('v', m_total)",
    "topk(3, m_total)",
    "bottomk by (half) (3, m_total)",
    "limitk(3, m_total)",
    "limit_ratio(0.5, m_total)",
    "label_replace(m_total, 'a', '$1', 'i', '(.*)')",
    "label_join(m_total, 'a', ',', 'i', 'half')",
    "histogram_quantile(0.5, b_bucket)",
    "histogram_fraction(1, 2, b_bucket)",
    "info(m_total)",
)
LONG_WINDOWS = (
    "rate(m_total[10m])",
    "max_over_time(m_total[10m])",
    "stddev_over_time(m_total[10m])",
    "quantile_over_time(0.4, m_total[10m])",
    "mad_over_time(m_total[10m])",
    "predict_linear(m_total[10m], 60)",
    "double_exponential_smoothing(m_total[10m], 0.5, 0.5)",
    "sum_over_time(m_total[10m:5s])",
    "changes(m_total[10m:5s])",
)
HISTOGRAMS = (
    "histogram_quantile(0.5, h)",
    "histogram_fraction(0, 2, h)",
    "histogram_stddev(h)",
    "h == h",
    "h + h",
    "h * 2",
    "-h",
    "sum(h)",
    "avg by (half) (h)",
    "count_values('v', h)",
    "rate(h[1m])",
    "avg_over_time(h[1m])",
    "irate(h[1m])",
    "resets(h[2m])",
    "changes(h[2m])",
    "histogram_count(rate(h[1m]))",
)


@pytest.fixture(scope="module")
def target() -> EngineTarget:
    """Forty counters of 100 samples, 10 s apart, ten classic and forty native histograms of less, an info metric."""
    target = EngineTarget(delayed_name_removal=False)
    for i in range(SERIES):
        labels = {"i": str(i), "half": str(i % 2), "instance": str(i), "job": "j"}
        floats = [Sample(t * 10_000, float(t * (i + 1) % 97)) for t in range(100)]
        target.append({"__name__": "m_total", **labels}, floats)
        target.append({"__name__": "target_info", "instance": str(i), "job": "j", "zone": str(i % 3)}, floats)
        target.append({"__name__": "b_bucket", "i": str(i // 4), "le": ("1", "2", "4", "+Inf")[i % 4]}, floats)
        histograms = [Sample(t * 10_000, _histogram((t * (i + 1)) % 17 + 1)) for t in range(40)]
        target.append({"__name__": "h", **labels}, histograms)
    return target


def _histogram(k: int) -> HistogramValue:
    buckets = {-1: float(k), 0: 2.0 * k, 3: 1.0}
    return HistogramValue(count=3.0 * k + 1, sum=k * 1.5, positive=buckets)


class Patience:
    """A deadline that passes after so many questions."""

    def __init__(self, questions: float = float("inf")) -> None:
        self.asked = 0
        self._questions = questions
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        with self._lock:
            self.asked += 1
            return self.asked > self._questions


def _looks(target: EngineTarget, expression: str, times: tuple[int, int, int]) -> tuple[int, str, object]:
    """Return how often the deadline is asked for, and the answer."""
    patience = Patience()
    result = target.query(expression, *times, deadline=patience)
    return patience.asked, result_json(result.value), result.stats


def _prove(target: EngineTarget, expression: str, times: tuple[int, int, int], shrink: Callable[[], None]) -> None:
    """Small pieces give the same answer with more looks, and a deadline at any of these stops the query."""
    whole, answer, stats = _looks(target, expression, times)
    shrink()
    looks, again, counted = _looks(target, expression, times)
    assert looks >= whole + 5
    assert (again, counted) == (answer, stats)
    for questions in (looks - 1, (looks + whole) // 2):
        patience = Patience(questions)
        with pytest.raises(QueryError) as raised:
            target.query(expression, *times, deadline=patience)
        assert (raised.value.message, raised.value.error_type, raised.value.http_status) == (
            "query timed out in expression evaluation",
            "timeout",
            503,
        )
        # Two threads may share the work: each asks once more at most.
        assert patience.asked <= questions + 2


@pytest.mark.parametrize("expression", FLOATS)
def test_an_operator_over_floats_stops_between_pieces(target, monkeypatch, expression):
    def shrink() -> None:
        monkeypatch.setattr(base, "_PIECE_CELLS", 4 * 91)
        monkeypatch.setattr(base, "_LEAST_STEPS", 4)
        monkeypatch.setattr(base, "_ITEMS", 4)

    _prove(target, expression, (0, 900_000, 10_000), shrink)


@pytest.mark.parametrize("expression", ["sort_by_label(m_total, 'half')", "sort_by_label_desc(m_total, 'i', 'half')"])
def test_a_sort_by_labels_stops_between_comparisons(target, monkeypatch, expression):
    _prove(target, expression, (500_000, 500_000, 0), lambda: monkeypatch.setattr(base, "_ITEMS", 4))


@pytest.mark.parametrize("expression", LONG_WINDOWS)
def test_long_windows_make_small_chunks_and_stop_within_a_series(target, monkeypatch, expression):
    """A chunk of many windows has few rows; one series with more than that is worked on a few steps at a time."""

    def shrink() -> None:
        monkeypatch.setattr(rollups, "_USUAL_SAMPLES", 1)
        monkeypatch.setattr(rollups, "_LONGEST_ROW", 100)
        monkeypatch.setattr(base, "_CHUNK_CELLS", 91)
        monkeypatch.setattr(base, "_PIECE_CELLS", 512)

    _prove(target, expression, (0, 900_000, 10_000), shrink)


@pytest.mark.parametrize("expression", HISTOGRAMS)
def test_an_operator_over_histograms_stops_between_pieces(target, monkeypatch, expression):
    def shrink() -> None:
        monkeypatch.setattr(base, "_PIECE_CELLS", 10 * base.HISTOGRAM_CELLS)
        monkeypatch.setattr(native, "_LEAST_BUCKETS", 64)
        monkeypatch.setattr(native, "_MOST_BUCKETS", 64)
        monkeypatch.setattr(native, "_MOST_MEMBERS", 64)

    _prove(target, expression, (0, 400_000, 20_000), shrink)


def test_one_series_of_many_steps_is_worked_on_a_few_steps_at_a_time(target, monkeypatch):
    def shrink() -> None:
        monkeypatch.setattr(base, "_PIECE_CELLS", 10)

    for expression in ("abs(m_total{i='3'})", "time() * 2", "m_total{i='3'} / time()", "-time()"):
        _prove(target, expression, (0, 900_000, 10_000), shrink)
        monkeypatch.undo()
