"""Increases of native histograms between the borders of windows: range vectors with `anchored` or `smoothed`.

Source: Prometheus 3.14 `promql/functions.go` `extendedHistogramRate`. Twin: `tests/reference/native_rate.py`.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import i64, i64_in, inline, kernel, types
from mimir_ingest.kernels.native_columns import (
    ABSENT,
    CUSTOM,
    HINT,
    HINT_GAUGE,
    copy,
    emit,
    i64_2d_in,
    load,
    native_t,
    output_t,
    points_t,
    workspace_t,
)
from mimir_ingest.kernels.native_merge import INCOMPATIBLE, RECONCILED, compact, merge, scale
from mimir_ingest.kernels.native_pairs import RECONCILED_ADD, RECONCILED_SUB, interpolate
from mimir_ingest.kernels.native_rate import NOT_COUNTER, NOT_GAUGE
from mimir_ingest.kernels.native_resets import detect_reset
from mimir_ingest.kernels.windows import COUNTER, PER_SECOND, SMOOTHED, first_at_or_before, seconds

_works_t = types.UniTuple(workspace_t, 7)


@inline
def _at_border(native, points, place, neighbour, border, counter, works):
    """Put into `works[0]` the sample at `place`, or what lies between it and its neighbour (-1: none) at the border."""
    if neighbour < 0:
        load(works[0], native, points.rows[place])
        return 0
    before, after = min(place, neighbour), max(place, neighbour)
    times = (points.timestamps[before], points.timestamps[after], border, 1 if counter else 0)
    return interpolate(native, points.rows[before], points.rows[after], times, works)


@inline
def _checked(native, points, first, last, counter):
    """Return the flags of the samples `first..last`; INCOMPATIBLE if they mix schemas."""
    flags = 0
    custom = native.schema[points.rows[first]] == CUSTOM
    for j in range(first, last + 1):
        row = points.rows[j]
        if (native.schema[row] == CUSTOM) != custom:
            return flags | INCOMPATIBLE
        if counter and native.reset_hint[row] == HINT_GAUGE:
            flags |= NOT_COUNTER
    return flags


@inline
def _add_correction(correction, began, before, other):
    """Add the histogram before a reset to the correction; return flags."""
    if not began:
        copy(correction, before)
        return 0
    copy(other, before)
    return merge(correction, other, 1.0, False)


@inline
def _correct(native, points, first, last, skips, works):
    """Put into `works[3]` what the counter had before each reset inside; return (flags, whether there was any).

    `works[0]` and `works[1]` are the histograms at the borders; with `skips` the left one spans a reset already.
    """
    left, right, _, correction, before, current, other = works
    began = False
    flags = 0
    begin = first + 1
    copy(before, left)
    if skips:
        load(before, native, points.rows[first + 1])
        begin += 1
    # The last sample is `right`, as it is or interpolated.
    if begin > last:
        return flags, False
    for j in range(begin, last):
        load(current, native, points.rows[j])
        if detect_reset(current, before):
            flags |= _add_correction(correction, began, before, other)
            began = True
        copy(before, current)
    if detect_reset(right, before):
        flags |= _add_correction(correction, began, before, other)
        began = True
    return flags, began


@inline
def _extend(native, points, lo, hi, start, end, mode, works):
    """Put the increase between a window's borders into `works[2]`; return flags."""
    left, right, result, correction, other, spare, third = works
    counter, smoothed = mode & COUNTER != 0, mode & SMOOTHED != 0
    timestamps = points.timestamps
    last = hi - 1
    first = first_at_or_before(timestamps, lo, last, start)
    if smoothed:
        at = lo
        while at < last and timestamps[at] < end:
            at += 1
        last = at
    if timestamps[last] <= start or (smoothed and timestamps[first] > end):
        return ABSENT
    flags = _checked(native, points, first, last, counter)
    if flags & INCOMPATIBLE:
        return flags | ABSENT
    neighbour = first + 1 if smoothed and timestamps[first] < start else -1
    flags |= _at_border(native, points, first, neighbour, start, counter, (left, other, spare))
    if flags & INCOMPATIBLE:
        return flags | ABSENT
    neighbour = last - 1 if smoothed and last > lo and timestamps[last] > end else -1
    flags |= _at_border(native, points, last, neighbour, end, counter, (right, other, spare))
    if flags & INCOMPATIBLE:
        return flags | ABSENT
    if not counter and (left.whole[HINT] != HINT_GAUGE or right.whole[HINT] != HINT_GAUGE):
        flags |= NOT_GAUGE
    copy(result, right)
    copy(other, left)
    done = merge(result, other, -1.0, False)
    if done & RECONCILED:
        flags |= RECONCILED_SUB
    if counter:
        skips = False
        if smoothed and timestamps[first] < start:
            load(other, native, points.rows[first + 1])
            load(spare, native, points.rows[first])
            skips = detect_reset(other, spare)
        done, corrected = _correct(
            native, points, first, last, skips, (left, right, result, correction, other, spare, third)
        )
        if corrected:
            copy(other, correction)
            done |= merge(result, other, 1.0, False)
        if done & RECONCILED:
            flags |= RECONCILED_ADD
    return flags


@kernel(i64(native_t, points_t, i64_2d_in, i64_in, _works_t, output_t))
def extend_histograms(native, points, spans, window, works, output):
    """Compute `rate`, `increase` or `delta` of `anchored` and `smoothed` windows that hold histograms only.

    As `native_rate.extrapolate_histograms`; items hold at least one sample, also those up to a lookback outside of the
    window, and the mode has ANCHORED or SMOOTHED (see `kernels.windows`).
    """
    divisor = seconds(window[0])
    for item in range(output.cursor[0], len(spans)):
        start, end = spans[item, 2], spans[item, 3]
        flags = _extend(native, points, spans[item, 0], spans[item, 1], start, end, window[1], works)
        if flags & ABSENT == 0:
            if window[1] & PER_SECOND:
                scale(works[2], divisor, True)
            works[2].whole[HINT] = HINT_GAUGE
            compact(works[2])
        if not emit(works[2], output, item, flags):
            break
    return output.cursor[0]
