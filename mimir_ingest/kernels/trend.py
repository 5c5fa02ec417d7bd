"""Sliding windows over decoded columns: lines and smoothing through a window's samples.

Windows are those of `kernels.windows`. Source: Prometheus 3.14 `promql/functions.go` `linearRegression`,
`funcDoubleExponentialSmoothing`. Twin: `tests/reference/trend.py`.
"""

from __future__ import annotations

import math

from mimir_ingest.kernels._jit import bool_2d_out, f64_2d_in, f64_2d_out, f64_in, i64, i64_in, inline, kernel
from mimir_ingest.kernels.compensated import add

DERIV, PREDICT_LINEAR, DOUBLE_EXPONENTIAL = 0, 1, 2
"""Operations of `fit_windows`."""


@inline
def _line(timestamps, values, lo, hi, origin):
    """Return (slope per second, value at `origin`) of the least-squares line; a constant series is exact."""
    first = values[lo]
    constant = True
    n = sum_x = lost_x = sum_y = lost_y = sum_xy = lost_xy = sum_xx = lost_xx = 0.0
    for i in range(lo, hi):
        if constant and i > lo and values[i] != first:
            constant = False
        n += 1.0
        x = float(timestamps[i] - origin) / 1e3
        sum_x, lost_x = add(x, sum_x, lost_x)
        sum_y, lost_y = add(values[i], sum_y, lost_y)
        sum_xy, lost_xy = add(x * values[i], sum_xy, lost_xy)
        sum_xx, lost_xx = add(x * x, sum_xx, lost_xx)
    if constant:
        if math.isinf(first):
            return math.nan, math.nan
        return 0.0, first
    sum_x += lost_x
    sum_y += lost_y
    sum_xy += lost_xy
    sum_xx += lost_xx
    slope = (sum_xy - sum_x * sum_y / n) / (sum_xx - sum_x * sum_x / n)
    return slope, sum_y / n - slope * sum_x / n


@inline
def _smooth(values, lo, hi, smoothing, trend_factor):
    """Return the last value of double exponential smoothing."""
    before = 0.0
    level = values[lo]
    trend = values[lo + 1] - values[lo]
    for i in range(lo + 1, hi):
        if i > lo + 1:
            trend = trend_factor * (level - before) + (1.0 - trend_factor) * trend
        before, level = level, smoothing * values[i] + (1.0 - smoothing) * (level + trend)
    return level


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_in, f64_2d_in, f64_2d_out, bool_2d_out))
def fit_windows(offsets, timestamps, values, ends, window, arguments, values_out, present_out):
    """Compute `deriv`, `predict_linear` or `double_exponential_smoothing`; each needs two samples.

    Parameters
    ----------
    window : int64[2]
        Range (ms); operation.
    arguments : float64[3, steps]
        Row 0: evaluation time (ms) for PREDICT_LINEAR. Rows 1 and 2: seconds to predict, unused; or smoothing and
        trend factor.

    Other parameters and the result as in `kernels.over_time.reduce_windows`.
    """
    range_ms, operation = window[0], window[1]
    found = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        for s in range(len(ends)):
            while hi < stop and timestamps[hi] <= ends[s]:
                hi += 1
            while lo < hi and timestamps[lo] <= ends[s] - range_ms:
                lo += 1
            present_out[i, s] = hi - lo > 1
            values_out[i, s] = 0.0
            if hi - lo <= 1:
                continue
            found += 1
            if operation == DOUBLE_EXPONENTIAL:
                values_out[i, s] = _smooth(values, lo, hi, arguments[1, s], arguments[2, s])
            elif operation == DERIV:
                values_out[i, s] = _line(timestamps, values, lo, hi, timestamps[lo])[0]
            else:
                slope, at_origin = _line(timestamps, values, lo, hi, int(arguments[0, s]))
                values_out[i, s] = slope * arguments[1, s] + at_origin
    return found
