"""Numbers out of native histograms: quantiles, fractions and variances, interpolated inside buckets.

Source: Prometheus 3.14 `promql/quantile.go` `HistogramQuantile`, `HistogramFraction`, `promql/functions.go`
`histogramVariance`. Twin: `tests/reference/native_quantile.py`.
"""

from __future__ import annotations

import math

from mimir_ingest.kernels._jit import f64_in, f64_out, i64, i64_in, i64_out, inline, kernel
from mimir_ingest.kernels.compensated import add
from mimir_ingest.kernels.native_bounds import bucket_bound, exp2_of, fraction_below, log2_of
from mimir_ingest.kernels.native_columns import CUSTOM, native_t

NAN_RESULT, NAN_SKEW = 1, 2
"""Flags: observations of NaN decide the result; they move it."""


@inline
def bucket_total(native, row):
    """Return how many buckets there are, the zero bucket included if it is populated."""
    zero = 1 if native.schema[row] != CUSTOM and native.zero_count[row] > 0.0 else 0
    return native.bucket_offsets[2 * row + 2] - native.bucket_offsets[2 * row] + zero


@inline
def _count_at(native, row, k):
    """Return the count of the bucket `k`, by rising bounds."""
    start, middle = native.bucket_offsets[2 * row], native.bucket_offsets[2 * row + 1]
    if k < middle - start:
        return native.bucket_count[middle - 1 - k]
    if native.schema[row] != CUSTOM and native.zero_count[row] > 0.0:
        if k == middle - start:
            return native.zero_count[row]
        k -= 1
    return native.bucket_count[start + k]


@inline
def bucket_at(native, row, k):
    """Return (lower bound, upper bound, count) of the bucket `k`, by rising bounds.

    A bucket that reaches into the zero bucket ends where that begins.
    """
    schema, threshold = native.schema[row], native.zero_threshold[row]
    start, middle = native.bucket_offsets[2 * row], native.bucket_offsets[2 * row + 1]
    custom_start = native.custom_offsets[row]
    bounds = native.custom_offsets[row + 1] - custom_start
    negatives = middle - start
    if k < negatives:
        at = middle - 1 - k
        index = native.bucket_index[at]
        lower = -bucket_bound(index, schema, native.custom_values, custom_start, bounds)
        upper = -bucket_bound(index - 1, schema, native.custom_values, custom_start, bounds)
        if upper < 0.0 and upper > -threshold:
            upper = -threshold
        return lower, upper, native.bucket_count[at]
    at = middle + k - negatives
    if schema != CUSTOM and native.zero_count[row] > 0.0:
        if k == negatives:
            return -threshold, threshold, native.zero_count[row]
        at -= 1
    index = native.bucket_index[at]
    upper = bucket_bound(index, schema, native.custom_values, custom_start, bounds)
    lower = bucket_bound(index - 1, schema, native.custom_values, custom_start, bounds)
    if lower > 0.0 and lower < threshold:
        lower = threshold
    elif upper < 0.0 and upper > -threshold:
        upper = -threshold
    return lower, upper, native.bucket_count[at]


@inline
def _one_sided(native, row, lower, upper):
    """Return the zero bucket's bounds; it ends at 0 where all other buckets are on one side."""
    negatives = native.bucket_offsets[2 * row + 1] - native.bucket_offsets[2 * row]
    positives = native.bucket_offsets[2 * row + 2] - native.bucket_offsets[2 * row + 1]
    if negatives == 0 and positives > 0:
        return 0.0, upper
    if positives == 0 and negatives > 0:
        return lower, 0.0
    return lower, upper


@inline
def _inside(lower, upper, share, linear):
    """Return the value at a share of a bucket."""
    if linear or (lower <= 0.0 and upper >= 0.0):
        return lower + (upper - lower) * share
    log_lower, log_upper = log2_of(abs(lower)), log2_of(abs(upper))
    if lower > 0.0:
        return exp2_of(log_lower + (log_upper - log_lower) * share)
    return -exp2_of(log_upper + (log_lower - log_upper) * (1.0 - share))


@inline
def _quantile(native, row, q):
    """Return (the q-quantile, flags)."""
    if q < 0.0:
        return -math.inf, 0
    if q > 1.0:
        return math.inf, 0
    observations = native.count[row]
    if observations == 0.0 or math.isnan(q):
        return math.nan, 0
    total = bucket_total(native, row)
    broken = math.isnan(native.sum[row])
    forward = broken or q < 0.5
    rank = q * observations if forward else (1.0 - q) * observations
    lower = upper = here = seen = 0.0
    k = 0
    while k < total:
        here = _count_at(native, row, k if forward else total - 1 - k)
        k += 1
        if here == 0.0:
            continue
        seen += here
        if seen >= rank:
            break
    if k > 0:
        lower, upper, here = bucket_at(native, row, k - 1 if forward else total - k)
    custom = native.schema[row] == CUSTOM
    if not custom:
        if lower < 0.0 and upper > 0.0:
            lower, upper = _one_sided(native, row, lower, upper)
    elif lower == -math.inf:
        if upper <= 0.0:
            return upper, 0
        lower = 0.0
    elif upper == math.inf:
        return lower, 0
    if seen > observations:
        seen = observations
    if seen < rank:
        return (math.nan, NAN_RESULT) if broken else (upper, 0)
    rank = rank - (seen - here) if forward else seen - rank
    flags = 0
    if broken:
        # Prometheus goes on to the last bucket here and then interpolates in that one.
        if k < total:
            lower, upper, here = bucket_at(native, row, total - 1)
        while k < total:
            seen += _count_at(native, row, k)
            k += 1
        if seen < observations:
            flags = NAN_SKEW
    return _inside(lower, upper, rank / here, custom), flags


@inline
def _rank_at(lower, upper, count, rank, value, linear):
    """Return how many observations lie below a value inside a bucket; none of a bucket from -Inf count there."""
    if linear and lower == -math.inf:
        return count
    return rank + count * fraction_below(value, lower, upper, linear)


@inline
def _fraction(native, row, low, high):
    """Return (the fraction of observations between two values, flags)."""
    observations = native.count[row]
    if observations == 0.0 or math.isnan(low) or math.isnan(high):
        return math.nan, 0
    if low >= high:
        return 0.0, 0
    total = bucket_total(native, row)
    count = rank = low_rank = high_rank = 0.0
    low_set = high_set = False
    k = 0
    while k < total:
        lower, upper, here = bucket_at(native, row, k)
        k += 1
        count += here
        linear = native.schema[row] == CUSTOM
        if lower <= 0.0 and upper >= 0.0:
            linear = True
            lower, upper = _one_sided(native, row, lower, upper)
        if not low_set and lower >= low:
            low_rank, low_set = rank, True
        if not high_set and lower >= high:
            high_rank, high_set = rank, True
        if low_set and high_set:
            break
        if not low_set and lower < low and upper > low:
            low_rank, low_set = _rank_at(lower, upper, here, rank, low, linear), True
        if not high_set and lower < high and upper > high:
            high_rank, high_set = _rank_at(lower, upper, here, rank, high, linear), True
        if low_set and high_set:
            break
        rank += here
    flags = 0
    if math.isnan(native.sum[row]):
        while k < total:
            count += _count_at(native, row, k)
            k += 1
        if count < observations:
            flags = NAN_RESULT
    else:
        count = observations
    if not low_set or low_rank > count:
        low_rank = count
    if not high_set or high_rank > count:
        high_rank = count
    return (high_rank - low_rank) / observations, flags


@kernel(i64(native_t, i64_in, f64_in, f64_out, i64_out))
def quantile_histograms(native, rows, quantiles, values_out, flags_out):
    """Compute a quantile of each of some histograms.

    Parameters
    ----------
    native : Native
    rows : int64[items]
    quantiles : float64[items]
    values_out : float64[items], written
    flags_out : int64[items], written
        NAN_RESULT, NAN_SKEW or 0.

    Returns
    -------
    int64
        Number of items with flags.
    """
    flagged = 0
    for item in range(len(rows)):
        values_out[item], flags_out[item] = _quantile(native, rows[item], quantiles[item])
        flagged += 1 if flags_out[item] else 0
    return flagged


@kernel(i64(native_t, i64_in, f64_in, f64_in, f64_out, i64_out))
def fraction_histograms(native, rows, lower, upper, values_out, flags_out):
    """Compute the fraction of observations between `lower[i]` and `upper[i]` of the histogram `rows[i]`.

    `flags_out` is NAN_RESULT where observations of NaN belong to no fraction. The rest as in `quantile_histograms`.
    """
    flagged = 0
    for item in range(len(rows)):
        values_out[item], flags_out[item] = _fraction(native, rows[item], lower[item], upper[item])
        flagged += 1 if flags_out[item] else 0
    return flagged


@kernel(i64(native_t, i64_in, f64_out))
def variance_histograms(native, rows, values_out):
    """Estimate the variance of the observations of some histograms. Returns their number.

    All observations of a bucket count as its geometric mean, in custom buckets as the arithmetic one, in the zero
    bucket as zero.
    """
    for item in range(len(rows)):
        row = rows[item]
        custom = native.schema[row] == CUSTOM
        mean = native.sum[row] / native.count[row]
        variance = lost = 0.0
        for k in range(bucket_total(native, row)):
            lower, upper, here = bucket_at(native, row, k)
            if here == 0.0:
                continue
            value = 0.0
            if custom:
                value = (upper + lower) / 2.0
            elif lower > 0.0 or upper < 0.0:
                value = math.sqrt(upper * lower)
                if upper < 0.0:
                    value = -value
            delta = value - mean
            variance, lost = add(here * delta * delta, variance, lost)
        values_out[item] = (variance + lost) / native.count[row]
    return len(rows)
