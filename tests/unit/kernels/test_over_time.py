"""Reductions of sliding windows: the kernels and their twins agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import over_time
from tests.reference import over_time as reference
from tests.reference.windows import window
from tests.support.columns import assert_same, columns, counters, ends, numbers, outputs, series


@pytest.mark.parametrize("name", reference.REDUCTIONS)
@given(series(st.one_of(numbers, counters)), ends(), st.integers(1, 200))
def test_every_reduction_is_the_twins(name, rows, at, range_ms):
    """Compensated sums, NaN rules, first and last of equal values."""
    values, present = outputs(len(rows), len(at))
    spec = np.array([range_ms, getattr(over_time, name), 0])
    counts = np.zeros(2 + 2 * len(rows), np.int64)
    found = over_time.reduce_windows(*columns(rows), np.array(at, np.int64), spec, values, present, counts)
    reduce = reference.REDUCTIONS[name]
    points = [[window(samples, end, range_ms) for end in at] for samples in rows]
    assert_same(values, present, [[reduce(p) if p else None for p in row] for row in points])
    assert found == np.count_nonzero(present)


@pytest.mark.parametrize("name", ["CHANGES", "RESETS"])
@given(series(counters), ends(), st.integers(1, 150), st.integers(1, 90))
def test_anchored_windows_start_at_the_newest_sample_before_them(name, rows, at, range_ms, lookback_ms):
    """A window without samples of its own gives nothing."""
    values, present = outputs(len(rows), len(at))
    spec = np.array([range_ms, getattr(over_time, name), lookback_ms])
    counts = np.zeros(2 + 2 * len(rows), np.int64)
    over_time.reduce_windows(*columns(rows), np.array(at, np.int64), spec, values, present, counts)
    points = [[reference.anchored(samples, end, range_ms, lookback_ms) for end in at] for samples in rows]
    assert_same(values, present, [[reference.REDUCTIONS[name](p) if p else None for p in row] for row in points])


@given(series(), ends(), st.integers(1, 200), st.sampled_from([0.0, 0.5, 0.93, 1.0, -1.0, 2.0, float("nan"), None]))
def test_quantiles_and_median_deviations_are_the_twins(rows, at, range_ms, q):
    """NaN stand before all numbers; None asks for the median deviation."""
    values, present = outputs(len(rows), len(at))
    spec = (*columns(rows), np.array(at, np.int64), np.array([range_ms]))
    if q is None:
        over_time.deviation_windows(*spec, values, present)
    else:
        over_time.quantile_windows(*spec, np.full(len(at), q), values, present)
    points = [[[v for _, v in window(samples, end, range_ms)] for end in at] for samples in rows]
    rank = reference.median_deviation if q is None else lambda p: reference.quantile(q, p)
    assert_same(values, present, [[rank(p) if p else None for p in row] for row in points])


@pytest.mark.parametrize("name", ["MIN", "MAX", "MIN_TIME", "MAX_TIME"])
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan")]), min_size=1, max_size=40), st.integers(1, 12))
def test_extremes_slide_over_equal_values_and_nan(name, values_in, width):
    """A window moves by one sample a step, so every sample enters and leaves at the ends of the queue."""
    samples = [(10 * i, v) for i, v in enumerate(values_in)]
    at = [t for t, _ in samples]
    values, present = outputs(1, len(at))
    spec = np.array([10 * width, getattr(over_time, name), 0])
    over_time.reduce_windows(*columns([samples]), np.array(at, np.int64), spec, values, present, np.zeros(4, np.int64))
    assert_same(values, present, [[reference.REDUCTIONS[name](window(samples, end, 10 * width)) for end in at]])


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, -7.5, float("nan")]), min_size=8, max_size=60), st.integers(8, 30)
)
def test_quantiles_stay_exact_while_values_enter_and_leave(values_in, width):
    """Equal values, zeros of both signs and NaN are taken out of the order that they were put in."""
    samples = [(10 * i, v) for i, v in enumerate(values_in)]
    at = [t for t, _ in samples]
    values, present = outputs(1, len(at))
    spec = (*columns([samples]), np.array(at, np.int64), np.array([10 * width]), np.full(len(at), 0.9))
    over_time.quantile_windows(*spec, values, present)
    expected = [reference.quantile(0.9, [v for _, v in window(samples, end, 10 * width)]) for end in at]
    assert [str(v) if v else v for v in values[0].tolist()] == [str(v) if v else v for v in expected]
