"""Lines and smoothing through windows: the kernel and its twin agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import trend
from tests.reference import trend as reference
from tests.reference.windows import window
from tests.support.columns import assert_same, columns, ends, numbers, outputs, series


def _run(rows, at, range_ms, operation, arguments):
    values, present = outputs(len(rows), len(at))
    spec = np.array([range_ms, operation])
    trend.fit_windows(*columns(rows), np.array(at, np.int64), spec, arguments, values, present)
    return values, present, [[window(samples, end, range_ms) for end in at] for samples in rows]


@given(series(), ends(), st.integers(1, 200))
def test_slopes_are_the_twins(rows, at, range_ms):
    """`deriv` measures time from the window's first sample."""
    values, present, points = _run(rows, at, range_ms, trend.DERIV, np.zeros((3, len(at))))
    expected = [[reference.line(p, p[0][0])[0] if len(p) > 1 else None for p in row] for row in points]
    assert_same(values, present, expected)


@given(series(), ends(), st.integers(1, 200), st.floats(-100, 100))
def test_predictions_are_the_twins(rows, at, range_ms, ahead):
    """`predict_linear` measures time from the evaluation."""
    arguments = np.zeros((3, len(at)))
    arguments[0] = [end + 7 for end in at]
    arguments[1] = ahead
    values, present, points = _run(rows, at, range_ms, trend.PREDICT_LINEAR, arguments)

    def predict(p, end):
        if len(p) < 2:
            return None
        slope, start = reference.line(p, end + 7)
        return slope * ahead + start

    assert_same(values, present, [[predict(p, end) for p, end in zip(row, at, strict=True)] for row in points])


@given(series(numbers), ends(), st.integers(1, 200), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_smoothing_is_the_twins(rows, at, range_ms, smoothing, factor):
    """`double_exponential_smoothing`."""
    arguments = np.zeros((3, len(at)))
    arguments[1], arguments[2] = smoothing, factor
    values, present, points = _run(rows, at, range_ms, trend.DOUBLE_EXPONENTIAL, arguments)
    expected = [[reference.smooth(p, smoothing, factor) if len(p) > 1 else None for p in row] for row in points]
    assert_same(values, present, expected)
