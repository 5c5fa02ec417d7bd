"""Sliding windows over decoded columns: the functions that reduce a window to one value.

Windows are those of `kernels.windows`. Source: Prometheus 3.14 `promql/functions.go`.
Twin: `tests/reference/over_time.py`.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import bool_2d_out, f64_2d_out, f64_in, i64, i64_in, i64_out, inline, kernel
from mimir_ingest.kernels.compensated import add, mean_of
from mimir_ingest.kernels.windows import longest_series

COUNT, SUM, AVG, MIN, MAX, FIRST, LAST, PRESENT, STDDEV, STDVAR = range(10)
CHANGES, RESETS, IRATE, IDELTA, FIRST_TIME, LAST_TIME, MIN_TIME, MAX_TIME = range(10, 18)
"""Operations of `reduce_windows`; the last four give timestamps (s)."""


@inline
def _sum(values, lo, hi):
    total = lost = 0.0
    for i in range(lo, hi):
        total, lost = add(values[i], total, lost)
    return total if math.isinf(total) else total + lost


@inline
def _variance(values, lo, hi):
    count = mean = mean_lost = aux = aux_lost = 0.0
    for i in range(lo, hi):
        count += 1.0
        delta = values[i] - (mean + mean_lost)
        mean, mean_lost = add(delta / count, mean, mean_lost)
        aux, aux_lost = add(delta * (values[i] - (mean + mean_lost)), aux, aux_lost)
    return (aux + aux_lost) / count


@inline
def _transitions(values, lo, hi, resets):
    """Count the falls, or the changes (NaN to NaN is none), from sample to sample."""
    seen = 0.0
    for i in range(lo + 1, hi):
        before, value = values[i - 1], values[i]
        if resets:
            if value < before:
                seen += 1.0
        elif value != before and not (math.isnan(value) and math.isnan(before)):
            seen += 1.0
    return seen


@inline
def _last_step(timestamps, values, hi, per_second):
    """Return the difference of the last two samples, for `irate` per second and after a reset from zero."""
    before, value = values[hi - 2], values[hi - 1]
    if not (per_second and value < before):
        value -= before
    if per_second:
        value /= float(timestamps[hi - 1] - timestamps[hi - 2]) / 1000.0
    return value


@inline
def _reduce(operation, timestamps, values, lo, hi):
    """Return the value of one window; it has at least one sample, two for IRATE and IDELTA."""
    if operation == COUNT:
        return float(hi - lo)
    if operation == SUM:
        return _sum(values, lo, hi)
    if operation == AVG:
        return mean_of(values, lo, hi)
    if operation == FIRST:
        return values[lo]
    if operation == LAST:
        return values[hi - 1]
    if operation == STDDEV:
        return math.sqrt(_variance(values, lo, hi))
    if operation == STDVAR:
        return _variance(values, lo, hi)
    if operation in (CHANGES, RESETS):
        return _transitions(values, lo, hi, operation == RESETS)
    if operation in (IRATE, IDELTA):
        return _last_step(timestamps, values, hi, operation == IRATE)
    if operation == FIRST_TIME:
        return float(timestamps[lo]) / 1000.0
    if operation == LAST_TIME:
        return float(timestamps[hi - 1]) / 1000.0
    return 1.0


@inline
def _is_beaten(old, new, smallest, newest):
    """Whether a value can be the extreme of no window any more that also holds the later value `new`."""
    if math.isnan(old):
        return newest or not math.isnan(new)
    return (new < old if smallest else new > old) or (newest and new == old)


@inline
def _slide_extremes(offsets, timestamps, values, ends, window, values_out, present_out, counts_out):
    """Do what `reduce_windows` does for MIN, MAX, MIN_TIME and MAX_TIME, at a constant cost a sample.

    `queue[front:back]` holds the indices of the samples that are the extreme of the window, or can become it once those
    before them have left: values never improve from front to back.
    """
    range_ms, operation = window[0], window[1]
    smallest = operation in (MIN, MIN_TIME)
    newest = operation in (MIN_TIME, MAX_TIME)
    queue = np.empty(longest_series(offsets), np.int64)
    found = total = fresh = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        longest = 0
        front = back = 0
        for s in range(len(ends)):
            end = ends[s]
            seen = hi
            while hi < stop and timestamps[hi] <= end:
                while back > front and _is_beaten(values[queue[back - 1]], values[hi], smallest, newest):
                    back -= 1
                queue[back] = hi
                back += 1
                hi += 1
            while lo < hi and timestamps[lo] <= end - range_ms:
                lo += 1
            while front < back and queue[front] < lo:
                front += 1
            total += hi - lo
            fresh += hi - max(lo, seen)
            longest = max(longest, hi - lo)
            present_out[i, s] = hi > lo
            values_out[i, s] = 0.0
            if hi > lo:
                found += 1
                best = queue[front]
                values_out[i, s] = float(timestamps[best]) / 1000.0 if newest else values[best]
        counts_out[2 + 2 * i], counts_out[3 + 2 * i] = longest, hi - lo
    counts_out[0] += total
    counts_out[1] += fresh
    return found


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_in, f64_2d_out, bool_2d_out, i64_out))
def reduce_windows(offsets, timestamps, values, ends, window, values_out, present_out, counts_out):
    """Reduce the windows of all series at all steps to one value each.

    Parameters
    ----------
    offsets, timestamps, values, ends, values_out, present_out, counts_out
        As for `kernels.windows.extrapolate_rate`.
    window : int64[3]
        Range (ms); operation; anchor (ms): 0, or how far before the window its first sample may lie (`anchored`;
        for CHANGES and RESETS): then the newest of these counts, if any sample is in the window itself.

    Returns
    -------
    int64
        Number of values.
    """
    range_ms, operation, anchor_ms = window[0], window[1], window[2]
    if operation in (MIN, MAX, MIN_TIME, MAX_TIME):
        return _slide_extremes(offsets, timestamps, values, ends, window, values_out, present_out, counts_out)
    least = 2 if operation in (IRATE, IDELTA) else 1
    found = total = fresh = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        longest = 0
        for s in range(len(ends)):
            end = ends[s]
            seen = hi
            while hi < stop and timestamps[hi] <= end:
                hi += 1
            while lo < hi and timestamps[lo] <= end - range_ms - anchor_ms:
                lo += 1
            total += hi - lo
            fresh += hi - max(lo, seen)
            longest = max(longest, hi - lo)
            first = lo
            hit = hi - lo >= least
            if anchor_ms > 0 and hit:
                hit = timestamps[hi - 1] > end - range_ms
                while first + 1 < hi and timestamps[first + 1] <= end - range_ms:
                    first += 1
            present_out[i, s] = hit
            values_out[i, s] = _reduce(operation, timestamps, values, first, hi) if hit else 0.0
            found += 1 if hit else 0
        counts_out[2 + 2 * i], counts_out[3 + 2 * i] = longest, hi - lo
    counts_out[0] += total
    counts_out[1] += fresh
    return found


@inline
def quantile_of(ordered, first, size, q):
    """Return the q-quantile of `ordered[first:first + size]` (NaN first, then ascending), between ranks on a line."""
    if size == 0 or math.isnan(q):
        return math.nan
    if q < 0.0:
        return -math.inf
    if q > 1.0:
        return math.inf
    rank = q * float(size - 1)
    lower = math.floor(rank)
    weight = rank - lower
    low = int(max(0.0, lower))
    high = min(size - 1, low + 1)
    return ordered[first + low] * (1.0 - weight) + ordered[first + high] * weight


@inline
def order_values(scratch, size):
    """Sort `scratch[:size]` in place: NaN first, then ascending."""
    nans = 0
    for i in range(size):
        if math.isnan(scratch[i]):
            scratch[i] = scratch[nans]
            scratch[nans] = math.nan
            nans += 1
    scratch[nans:size].sort()


@inline
def _median_deviation(scratch, size):
    """Return the median of the absolute deviations from the median; NaN if any value is."""
    for i in range(size):
        if math.isnan(scratch[i]):
            return math.nan
    order_values(scratch, size)
    median = quantile_of(scratch, 0, size, 0.5)
    for i in range(size):
        scratch[i] = abs(scratch[i] - median)
    order_values(scratch, size)
    return quantile_of(scratch, 0, size, 0.5)


@inline
def _place_of(ordered, first, last, value):
    """Return the first place in `ordered[first:last]` whose value is not less than `value`, which is no NaN."""
    # Values that only grow or only fall go to an end.
    if first == last or ordered[last - 1] < value:
        return last
    if ordered[first] >= value:
        return first
    low, size = first, last - first
    while size > 1:
        half = size >> 1
        low = low + half if ordered[low + half - 1] < value else low
        size -= half
    return low + 1 if ordered[low] < value else low


@inline
def _insert(ordered, first, last, nans, value):
    """Put a value into `ordered[first:last]`, where there is room on both sides; return the new (first, last, nans).

    `nans`: so many NaN stand first.
    """
    if math.isnan(value):
        ordered[first - 1] = value
        return first - 1, last, nans + 1
    at = _place_of(ordered, first + nans, last, value)
    if at - first < last - at:
        for j in range(first, at):
            ordered[j - 1] = ordered[j]
        ordered[at - 1] = value
        return first - 1, last, nans
    for j in range(last, at, -1):
        ordered[j] = ordered[j - 1]
    ordered[at] = value
    return first, last + 1, nans


@inline
def _remove(ordered, first, last, nans, value):
    """Take a value out of `ordered[first:last]`; return the new (first, last, nans)."""
    if math.isnan(value):
        return first + 1, last, nans - 1
    at = _place_of(ordered, first + nans, last, value)
    # Zeros are equal and of two signs: the one that leaves has the sign of the one that came.
    while at + 1 < last and math.copysign(1.0, ordered[at]) != math.copysign(1.0, value):
        at += 1
    if at - first < last - at:
        for j in range(at, first, -1):
            ordered[j] = ordered[j - 1]
        return first + 1, last, nans
    for j in range(at, last - 1):
        ordered[j] = ordered[j + 1]
    return first, last - 1, nans


@inline
def _fill(ordered, first, last, values, at):
    """Put `values[at:]` into `ordered[first:last]` in order; return how many NaN stand first."""
    nans = 0
    for j in range(first, last):
        value = values[at + j - first]
        ordered[j] = value
        nans += 1 if math.isnan(value) else 0
    order_values(ordered[first:last], last - first)
    return nans


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_in, f64_in, f64_2d_out, bool_2d_out))
def quantile_windows(offsets, timestamps, values, ends, window, quantiles, values_out, present_out):
    """Compute `quantile_over_time`.

    The window's values are kept in order from step to step; where a step shares little with the one before, they are
    sorted anew. `window` is int64[1], the range (ms); `quantiles` is float64[steps]. The rest as in `reduce_windows`.
    """
    range_ms = window[0]
    # The values in order stand at `first:last`; whatever the steps do, they come to no end before they are moved back.
    longest = longest_series(offsets)
    ordered = np.empty(4 * longest + 4, np.float64)
    found = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        first = last = longest
        nans = 0
        for s in range(len(ends)):
            left, entered = lo, hi
            while hi < stop and timestamps[hi] <= ends[s]:
                hi += 1
            while lo < hi and timestamps[lo] <= ends[s] - range_ms:
                lo += 1
            changes = (hi - entered) + (min(lo, entered) - left)
            if changes > (hi - lo) >> 2 or first <= changes or last + changes >= len(ordered):
                first = (len(ordered) - (hi - lo)) >> 1
                last = first + hi - lo
                nans = _fill(ordered, first, last, values, lo)
            else:
                for j in range(left, lo):
                    first, last, nans = _remove(ordered, first, last, nans, values[j])
                for j in range(entered, hi):
                    first, last, nans = _insert(ordered, first, last, nans, values[j])
            present_out[i, s] = hi > lo
            values_out[i, s] = 0.0
            if hi > lo:
                found += 1
                values_out[i, s] = quantile_of(ordered, first, last - first, quantiles[s])
    return found


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_in, f64_2d_out, bool_2d_out))
def deviation_windows(offsets, timestamps, values, ends, window, values_out, present_out):
    """Compute `mad_over_time`. `window` is int64[1], the range (ms). The rest as in `reduce_windows`."""
    range_ms = window[0]
    scratch = np.empty(longest_series(offsets), np.float64)
    found = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        for s in range(len(ends)):
            while hi < stop and timestamps[hi] <= ends[s]:
                hi += 1
            while lo < hi and timestamps[lo] <= ends[s] - range_ms:
                lo += 1
            size = hi - lo
            present_out[i, s] = size > 0
            values_out[i, s] = 0.0
            if size > 0:
                found += 1
                for j in range(size):
                    scratch[j] = values[lo + j]
                values_out[i, s] = _median_deviation(scratch, size)
    return found
