"""Sliding windows over decoded columns: `rate`, `increase` and `delta`.

A window is `(end - range, end]`: left-open, as since Prometheus 3.0. Two indices move over a series' samples while the
steps go by, so a step costs the samples that enter and leave, not the window. Staleness markers must have been taken
out. Source: Prometheus 3.14 `promql/functions.go` `extrapolatedRate`, `extendedRate`.
Twin: `tests/reference/windows.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import bool_2d_out, f64_2d_out, f64_in, f64_out, i64, i64_in, i64_out, inline, kernel

COUNTER, PER_SECOND = 1, 2
"""Flags of `mode`: correct for counter resets; divide by the range."""
ANCHORED, SMOOTHED = 4, 8
"""Flags of `mode` for `extend_rate`: take values at the borders from the samples around them, or between those."""


@inline
def seconds(duration_ms):
    """Return a duration in seconds, rounded as Go's `Duration.Seconds`."""
    return float(duration_ms // 1000) + float(duration_ms % 1000 * 1000000) / 1e9


@inline
def link_resets(values, start, stop, next_reset):
    """Write into `next_reset[j - start]` the smallest k >= j where the counter fell below its previous value."""
    following = stop
    for j in range(stop - 1, start - 1, -1):
        if j > start and values[j] < values[j - 1]:
            following = j
        next_reset[j - start] = following
    next_reset[stop - start] = stop


@inline
def has_resets(values, start, stop):
    """Whether the counter falls anywhere."""
    falls = 0
    for j in range(start + 1, stop):
        falls += 1 if values[j] < values[j - 1] else 0
    return falls > 0


@inline
def longest_series(offsets):
    """Return the sample count of the longest series."""
    longest = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest


@inline
def extrapolated_spans(before_ms, after_ms, sampled_ms, samples):
    """Return how far (s) a window's samples stand for before the first and after the last, and the time between these.

    `before_ms` and `after_ms` are the gaps between the window's borders and its samples, of which there are at least 2.
    """
    to_start = float(before_ms) / 1000.0
    to_end = float(after_ms) / 1000.0
    sampled = float(sampled_ms) / 1000.0
    average = sampled / float(samples - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2.0
    if to_end >= threshold:
        to_end = average / 2.0
    return to_start, to_end, sampled


@inline
def start_of_counter(to_start, sampled, delta, first_value):
    """Return `to_start` (s), or less: a counter does not reach back past the point where it would have been zero."""
    # From twice the increase on it would have been zero before `to_start`, which is below 1.1 times `sampled`.
    if delta > 0.0 and 0.0 <= first_value < 2.0 * delta:
        to_zero = sampled * (first_value / delta)
        if to_zero < to_start:
            return to_zero
    return to_start


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_in, f64_2d_out, bool_2d_out, i64_out))
def extrapolate_rate(offsets, timestamps, values, ends, window, values_out, present_out, counts_out):
    """Compute `rate`, `increase` or `delta` for all series at all steps.

    Parameters
    ----------
    offsets, timestamps, values
        Samples (see `kernels.lookback.select_latest`), without staleness markers.
    ends : int64[steps]
        Ends of the windows (ms), not descending.
    window : int64[2]
        Range (ms, > 0); mode: COUNTER | PER_SECOND.
    values_out : float64[n, steps], written
    present_out : bool[n, steps], written
        Whether the window held two samples.
    counts_out : int64[2 + 2 * n]
        Samples over all windows, and those that the step before had not, both added to; then for each series the
        samples of its longest window, and of its last.

    Returns
    -------
    int64
        Number of values.
    """
    range_ms, mode = window[0], window[1]
    counter = mode & COUNTER != 0
    divisor = seconds(range_ms) if mode & PER_SECOND else 1.0
    next_reset = np.empty(longest_series(offsets) + 1, np.int64)
    # Regular samples lie in the same places of each window: what follows from these places alone is kept.
    before_ms = after_ms = sampled_ms = samples = np.int64(-1)
    to_start = to_end = sampled = factor = 0.0
    found = total = fresh = 0
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        resets = counter and has_resets(values, start, stop)
        if resets:
            link_resets(values, start, stop, next_reset)
        lo = hi = start
        longest = 0
        for s in range(len(ends)):
            end = ends[s]
            seen = hi
            while hi < stop and timestamps[hi] <= end:
                hi += 1
            while lo < hi and timestamps[lo] <= end - range_ms:
                lo += 1
            total += hi - lo
            fresh += hi - max(lo, seen)
            longest = max(longest, hi - lo)
            present_out[i, s] = hi - lo > 1
            if hi - lo <= 1:
                values_out[i, s] = 0.0
                continue
            found += 1
            first_ms, last_ms = timestamps[lo], timestamps[hi - 1]
            if (
                before_ms != first_ms - (end - range_ms)
                or after_ms != end - last_ms
                or sampled_ms != last_ms - first_ms
                or samples != hi - lo
            ):
                before_ms, after_ms = first_ms - (end - range_ms), end - last_ms
                sampled_ms, samples = last_ms - first_ms, hi - lo
                to_start, to_end, sampled = extrapolated_spans(before_ms, after_ms, sampled_ms, samples)
                factor = (sampled + to_start + to_end) / sampled / divisor
            delta = values[hi - 1] - values[lo]
            scale = factor
            if resets:
                at = next_reset[lo + 1 - start]
                while at < hi:
                    delta += values[at - 1]
                    at = next_reset[at + 1 - start]
            if counter:
                begin = start_of_counter(to_start, sampled, delta, values[lo])
                if begin != to_start:
                    scale = (sampled + begin + to_end) / sampled / divisor
            values_out[i, s] = delta * scale
        counts_out[2 + 2 * i], counts_out[3 + 2 * i] = longest, hi - lo
    counts_out[0] += total
    counts_out[1] += fresh
    return found


@inline
def _between(timestamps, values, before, after, at, counter):
    """Return the value at `at` on the line between two samples; a counter that fell starts from zero."""
    y1, y2 = values[before], values[after]
    if counter and y2 < y1:
        y1 = 0.0
    return y1 + (y2 - y1) * float(at - timestamps[before]) / float(timestamps[after] - timestamps[before])


@inline
def first_at_or_before(timestamps, lo, last, border):
    """Return the last index in `lo..last - 1` at or before `border`, or `lo` if there is none."""
    first = lo
    while first < last and timestamps[first] <= border:
        first += 1
    return max(lo, first - 1)


@inline
def _extend(timestamps, values, lo, hi, start_time, end_time, mode):
    """Return (found, increase) between the values at both borders of one window (`anchored`, `smoothed`)."""
    counter, smoothed = mode & COUNTER != 0, mode & SMOOTHED != 0
    last = hi - 1
    first = first_at_or_before(timestamps, lo, last, start_time)
    if smoothed:
        at = lo
        while at < last and timestamps[at] < end_time:
            at += 1
        last = at
    if timestamps[last] <= start_time or (smoothed and timestamps[first] > end_time):
        return False, 0.0
    left, right = values[first], values[last]
    if smoothed and timestamps[first] < start_time:
        left = _between(timestamps, values, first, first + 1, start_time, counter)
    if smoothed and last > lo and timestamps[last] > end_time:
        right = _between(timestamps, values, last - 1, last, end_time, counter)
    increase = right - left
    if counter:
        if timestamps[first] <= start_time:
            first += 1
        if timestamps[last] >= end_time:
            last -= 1
        correction = 0.0
        previous = left
        for j in range(first, last + 1):
            if values[j] < previous:
                correction += previous
            previous = values[j]
        if right < previous:
            correction += previous
        increase += correction
    return True, increase


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_in, f64_2d_out, bool_2d_out, i64_out))
def extend_rate(offsets, timestamps, values, ends, window, values_out, present_out, counts_out):
    """Compute `rate`, `increase` or `delta` of `anchored` and `smoothed` range vectors.

    As `extrapolate_rate`, but `window` is int64[3]: range, mode (with ANCHORED or SMOOTHED), lookback (ms). Samples up
    to a lookback before the window, and for SMOOTHED after it, give the values at its borders.
    """
    range_ms, mode, lookback_ms = window[0], window[1], window[2]
    divisor = seconds(range_ms) if mode & PER_SECOND else 1.0
    after_ms = lookback_ms if mode & SMOOTHED else 0
    found = total = fresh = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        longest = 0
        for s in range(len(ends)):
            end = ends[s]
            seen = hi
            while hi < stop and timestamps[hi] <= end + after_ms:
                hi += 1
            while lo < hi and timestamps[lo] <= end - range_ms - lookback_ms:
                lo += 1
            total += hi - lo
            fresh += hi - max(lo, seen)
            longest = max(longest, hi - lo)
            present_out[i, s] = False
            values_out[i, s] = 0.0
            if hi == lo:
                continue
            some, increase = _extend(timestamps, values, lo, hi, end - range_ms, end, mode)
            if some:
                found += 1
                present_out[i, s] = True
                values_out[i, s] = increase / divisor
        counts_out[2 + 2 * i], counts_out[3 + 2 * i] = longest, hi - lo
    counts_out[0] += total
    counts_out[1] += fresh
    return found


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64_out, i64_out, f64_out))
def extend_samples(offsets, timestamps, values, window, offsets_out, timestamps_out, values_out):
    """Give the samples of one `anchored` or `smoothed` window, with what the series are worth at its borders.

    Parameters
    ----------
    offsets, timestamps, values
        Samples from a lookback before the window to its end, or a lookback after it (SMOOTHED).
    window : int64[3]
        Start and end (ms); mode: ANCHORED or SMOOTHED.
    offsets_out : int64[n + 1], written
    timestamps_out, values_out : int64[m + 2 * n], float64[m + 2 * n], written
        A series has samples at both borders and those between them, or none if there is none after the start.

    Returns
    -------
    int64
        Number of samples.
    """
    start_time, end_time, smoothed = window[0], window[1], window[2] & SMOOTHED != 0
    at = 0
    offsets_out[0] = 0
    for i in range(len(offsets) - 1):
        lo, last = offsets[i], offsets[i + 1] - 1
        first = first_at_or_before(timestamps, lo, last, start_time)
        if smoothed:
            k = lo
            while k < last and timestamps[k] < end_time:
                k += 1
            last = k
        if last >= lo and offsets[i + 1] > lo and timestamps[last] > start_time:
            left, right = values[first], values[last]
            if smoothed and timestamps[first] < start_time:
                left = _between(timestamps, values, first, first + 1, start_time, False)
            if smoothed and last > lo and timestamps[last] > end_time:
                right = _between(timestamps, values, last - 1, last, end_time, False)
            timestamps_out[at], values_out[at] = start_time, left
            at += 1
            for k in range(first + 1 if timestamps[first] <= start_time else first, last + 1):
                if timestamps[k] < end_time:
                    timestamps_out[at], values_out[at] = timestamps[k], values[k]
                    at += 1
            timestamps_out[at], values_out[at] = end_time, right
            at += 1
        offsets_out[i + 1] = at
    return at


@kernel(i64(i64_in, i64_in, i64_in, i64, i64_out))
def measure_windows(offsets, timestamps, ends, range_ms, counts_out):
    """Count the samples of all windows into `counts_out` (as `extrapolate_rate`). Returns the windows with samples."""
    filled = total = fresh = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        longest = 0
        for s in range(len(ends)):
            seen = hi
            while hi < stop and timestamps[hi] <= ends[s]:
                hi += 1
            while lo < hi and timestamps[lo] <= ends[s] - range_ms:
                lo += 1
            total += hi - lo
            fresh += hi - max(lo, seen)
            longest = max(longest, hi - lo)
            filled += 1 if hi > lo else 0
        counts_out[2 + 2 * i], counts_out[3 + 2 * i] = longest, hi - lo
    counts_out[0] += total
    counts_out[1] += fresh
    return filled
