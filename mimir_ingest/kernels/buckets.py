"""Quantiles and fractions of classic histograms: all histograms and all steps in one call.

Source: Prometheus 3.14 `promql/quantile.go` `BucketQuantile`, `BucketFraction`. Twin: `tests/reference/buckets.py`.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import (
    bool_2d_in,
    bool_2d_out,
    f64_2d_in,
    f64_2d_out,
    f64_in,
    i64,
    i64_in,
    inline,
    kernel,
)

_TOLERANCE = 1e-12
"""Relative difference of neighbouring buckets that counts as a rounding error (`smallDeltaTolerance`)."""
_SMALLEST_NORMAL = 2.2250738585072014e-308
_LARGEST = 1.7976931348623157e308

LOWEST, HIGHEST, LARGEST_DROP = range(3)
"""Columns of `repairs_out`."""


@inline
def _nearly_equal(a, b):
    """Whether two counts differ by no more than rounding errors (`almost.Equal`)."""
    if math.isnan(a) and math.isnan(b):
        return True
    if a == b:
        return True
    total = abs(a) + abs(b)
    difference = abs(a - b)
    if a == 0.0 or b == 0.0 or total < _SMALLEST_NORMAL:
        return difference < _TOLERANCE * _SMALLEST_NORMAL
    return difference / min(total, _LARGEST) < _TOLERANCE


@inline
def _gather(members, first, last, uppers, values, present, step, bounds_scratch, counts_scratch):
    """Collect the buckets present at one step, equal bounds added up; return their number."""
    size = 0
    for j in range(first, last):
        row = members[j]
        if not present[row, step]:
            continue
        if size > 0 and bounds_scratch[size - 1] == uppers[j]:
            counts_scratch[size - 1] += values[row, step]
        else:
            bounds_scratch[size] = uppers[j]
            counts_scratch[size] = values[row, step]
            size += 1
    return size


@inline
def _repair(bounds, counts, size, repair):
    """Make cumulative counts monotonic in place; note in `repair` where they fell; return whether they really did."""
    previous = counts[0]
    forced = False
    for i in range(1, size):
        count = counts[i]
        if count == previous:
            continue
        if _nearly_equal(previous, count):
            counts[i] = previous
        elif count < previous:
            counts[i] = previous
            forced = True
            repair[LOWEST] = min(repair[LOWEST], bounds[i])
            repair[HIGHEST] = max(repair[HIGHEST], bounds[i])
            repair[LARGEST_DROP] = max(repair[LARGEST_DROP], previous - count)
        else:
            previous = count
    return forced


@inline
def _quantile(bounds, counts, size, q):
    """Return the q-quantile of monotonic buckets, the last of which is +Inf, linear inside a bucket."""
    if size < 2 or counts[size - 1] == 0.0:
        return math.nan
    rank = q * counts[size - 1]
    low, high = 0, size - 1
    while low < high:
        middle = (low + high) // 2
        if counts[middle] >= rank:
            high = middle
        else:
            low = middle + 1
    if low == size - 1:
        return bounds[size - 2]
    if low == 0 and bounds[0] <= 0.0:
        return bounds[0]
    start = 0.0
    count = counts[low]
    if low > 0:
        start = bounds[low - 1]
        count -= counts[low - 1]
        rank -= counts[low - 1]
    return start + (bounds[low] - start) * (rank / count)


@kernel(i64(i64_in, i64_in, f64_in, f64_2d_in, bool_2d_in, f64_in, f64_2d_out, bool_2d_out, f64_2d_out))
def quantile_buckets(members, bounds, uppers, values, present, quantiles, values_out, repaired_out, repairs_out):
    """Compute a quantile of each classic histogram at each step.

    Parameters
    ----------
    members : int64[b]
        Rows of `values`, those of histogram 0 first, ascending by upper bound within a histogram.
    bounds : int64[k + 1]
        Histogram g has the buckets `members[bounds[g]:bounds[g + 1]]`.
    uppers : float64[b]
        Upper bounds, parallel to `members`.
    values, present : float64[n, steps], bool[n, steps]
        Cumulative counts.
    quantiles : float64[steps]
    values_out : float64[k, steps], written
        0 where a histogram has no bucket.
    repaired_out : bool[k, steps], written
        Where falling counts were raised.
    repairs_out : float64[k, 3], written
        Lowest and highest bucket that was raised, largest drop.

    Returns
    -------
    int64
        Number of histograms with repairs.
    """
    longest = 0
    for g in range(len(bounds) - 1):
        longest = max(longest, bounds[g + 1] - bounds[g])
    uppers_at = np.empty(longest, np.float64)
    counts_at = np.empty(longest, np.float64)
    repaired = 0
    for g in range(len(bounds) - 1):
        repairs_out[g, LOWEST] = math.inf
        repairs_out[g, HIGHEST] = -math.inf
        repairs_out[g, LARGEST_DROP] = 0.0
        ever = False
        for s in range(values.shape[1]):
            q = quantiles[s]
            size = _gather(members, bounds[g], bounds[g + 1], uppers, values, present, s, uppers_at, counts_at)
            repaired_out[g, s] = False
            if size == 0:
                values_out[g, s] = 0.0
            elif math.isnan(q):
                values_out[g, s] = math.nan
            elif q < 0.0:
                values_out[g, s] = -math.inf
            elif q > 1.0:
                values_out[g, s] = math.inf
            elif uppers_at[size - 1] != math.inf:
                values_out[g, s] = math.nan
            else:
                repaired_out[g, s] = _repair(uppers_at, counts_at, size, repairs_out[g])
                ever = ever or repaired_out[g, s]
                values_out[g, s] = _quantile(uppers_at, counts_at, size, q)
        if ever:
            repaired += 1
    return repaired


@inline
def _rank_inside(lower_bound, upper_bound, rank, count, value):
    """Return how many observations lie below a value inside a bucket; none of an infinite one count."""
    if lower_bound == -math.inf:
        return count
    return rank + (count - rank) * (value - lower_bound) / (upper_bound - lower_bound)


@inline
def _fraction(bounds, counts, size, lower, upper):
    """Return the fraction of observations between two values, linear inside a bucket."""
    total = counts[size - 1]
    if bounds[size - 1] != math.inf or total == 0.0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    rank = lower_rank = upper_rank = 0.0
    lower_set = upper_set = False
    lower_bound = -math.inf if bounds[0] <= 0.0 else 0.0
    for i in range(size):
        if i > 0:
            lower_bound = bounds[i - 1]
        if not lower_set and lower_bound >= lower:
            lower_rank, lower_set = rank, True
        if not upper_set and lower_bound >= upper:
            upper_rank, upper_set = rank, True
        if lower_set and upper_set:
            break
        if not lower_set and lower_bound < lower and bounds[i] > lower:
            lower_rank, lower_set = _rank_inside(lower_bound, bounds[i], rank, counts[i], lower), True
        if not upper_set and lower_bound < upper and bounds[i] > upper:
            upper_rank, upper_set = _rank_inside(lower_bound, bounds[i], rank, counts[i], upper), True
        if lower_set and upper_set:
            break
        rank = counts[i]
    if not lower_set or lower_rank > total:
        lower_rank = total
    if not upper_set or upper_rank > total:
        upper_rank = total
    return (upper_rank - lower_rank) / total


@kernel(i64(i64_in, i64_in, f64_in, f64_2d_in, bool_2d_in, f64_in, f64_in, f64_2d_out))
def fraction_buckets(members, bounds, uppers, values, present, lower, upper, values_out):
    """Compute the fraction of observations in `[lower[s], upper[s]]`, of each classic histogram at each step.

    Parameters as in `quantile_buckets`. Returns the number of values.
    """
    longest = 0
    for g in range(len(bounds) - 1):
        longest = max(longest, bounds[g + 1] - bounds[g])
    uppers_at = np.empty(longest, np.float64)
    counts_at = np.empty(longest, np.float64)
    found = 0
    for g in range(len(bounds) - 1):
        for s in range(values.shape[1]):
            size = _gather(members, bounds[g], bounds[g + 1], uppers, values, present, s, uppers_at, counts_at)
            values_out[g, s] = 0.0
            if size > 0:
                found += 1
                values_out[g, s] = _fraction(uppers_at, counts_at, size, lower[s], upper[s])
    return found
