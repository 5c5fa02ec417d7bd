"""What a query takes of memory: some bytes a sample that the limit on samples counts, and nothing before it is judged.

numpy tells `tracemalloc` of its arrays, so that the numbers depend neither on the machine nor on what else it does.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from mimir_ingest.errors import QueryError
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.promql.engine import evaluate
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.promql.values import QueryResult
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import build_segment
from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.support.batches import write_batch

SERIES, ROUNDS, STEP_MS = 1000, 240, 15_000
SAMPLES = SERIES * ROUNDS
BYTES_A_SAMPLE = 96
"""Of those that are held at the peak. Measured at a million: 16 while read, 25 to 66 at the peak of a query."""
BUCKETS = ("0.1", "1", "10", "+Inf")


@pytest.fixture(scope="module")
def head() -> Head:
    """Counters `m` in groups of ten, which are buckets, too."""
    head = Head("t")
    labels = [{"__name__": "m", "i": str(i), "g": str(i // 4), "le": BUCKETS[i % 4]} for i in range(SERIES)]
    rows = [(each, [(0, 0.0)]) for each in labels]
    head.append(write_batch(rows), offset=0, newest_ms=1, range_ms=7_200_000, limits=SeriesLimits(), window_ms=0)
    head.seal(force=True)
    times = np.tile(np.arange(ROUNDS) * STEP_MS, SERIES)
    values = np.cumsum(np.random.default_rng(1).random((SERIES, ROUNDS)) + np.arange(SERIES)[:, None] % 4, axis=1)
    head.segments = (
        build_segment(np.arange(SERIES, dtype=np.int32), np.arange(SERIES + 1) * ROUNDS, times, values.ravel()),
    )
    return head


def ask(head: Head, text: str, max_samples: int, step_ms: int = STEP_MS) -> QueryResult:
    """Answer a range query over all times."""
    plan = plan_query(parse_expr(text), start_ms=0, end_ms=(ROUNDS - 1) * STEP_MS, step_ms=step_ms, lookback_ms=300_000)
    budget, read = SampleBudget(max_samples), {}
    for select in plan.selects:
        key = select.matchers, select.start_ms, select.end_ms
        if key not in read:
            [read[key]] = head.view(select.matchers).select(*key, budget)
    data = [read[s.matchers, s.start_ms, s.end_ms] for s in plan.selects]
    return evaluate(plan, data, max_samples=max_samples)


def peak_of(work: Callable[[], object]) -> tuple[int, object]:
    """Return how many bytes there were at a time beside those before, and what the work gives."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = work()
        return tracemalloc.get_traced_memory()[1] - before, found
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        "m",
        "sum by (le) (rate(m[5m]))",
        "avg(quantile_over_time(0.9, m[10m]))",
        "topk(5, max_over_time(m[10m]))",
        "rate(m[5m]) / on (i, g) group_left () rate(m[5m])",
        "max_over_time(rate(m[5m])[30m:15s])",
        "histogram_quantile(0.9, sum by (le, g) (rate(m[5m])))",
        "quantile by (le) (0.5, m * 2 + 1 > 5)",
        "m or m",
        "label_replace(m, 'x', '$1', 'i', '(.*)')",
    ],
)
def test_a_query_takes_some_bytes_for_each_sample_that_it_holds(head, text):
    ask(head, text, 10 * SAMPLES)  # what is made once, such as postings and deferred kernels
    size, result = peak_of(lambda: ask(head, text, 10 * SAMPLES))
    assert result.stats.peak_samples > 0.9 * SAMPLES
    assert size < BYTES_A_SAMPLE * result.stats.peak_samples


def test_a_query_for_too_many_samples_is_refused_before_they_are_read(head):
    ask(head, "m", SAMPLES)

    def refused() -> None:
        with pytest.raises(QueryError, match="too many samples"):
            ask(head, "m", SAMPLES - 1)

    size, _ = peak_of(refused)
    assert size < SAMPLES


def test_a_query_for_too_many_cells_is_refused_before_there_is_one(head):
    def refused() -> None:
        with pytest.raises(QueryError, match="too many samples"):
            ask(head, "m + 1", SAMPLES, step_ms=100)

    refused()
    size, _ = peak_of(refused)
    # Cells of which most are empty: 36,000 steps of each series. Only the samples are held.
    assert size < BYTES_A_SAMPLE * SAMPLES
