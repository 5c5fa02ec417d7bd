"""Increases of native histograms over windows: `rate`, `increase`, `delta`, `irate` and `idelta`.

Source: Prometheus 3.14 `promql/functions.go` `histogramRate`, `extrapolatedRate`, `instantValue`.
Twin: `tests/reference/native_rate.py`.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import i64, i64_in, inline, kernel, types
from mimir_ingest.kernels.native_columns import (
    ABSENT,
    COUNT,
    CUSTOM,
    HINT,
    HINT_GAUGE,
    HINT_RESET,
    clear,
    emit,
    i64_2d_in,
    load,
    native_t,
    output_t,
    points_t,
    workspace_t,
)
from mimir_ingest.kernels.native_merge import (
    INCOMPATIBLE,
    RECONCILED,
    compact,
    merge,
    merge_row,
    reduce_resolution,
    scale,
)
from mimir_ingest.kernels.native_pairs import RECONCILED_ADD, RECONCILED_SUB
from mimir_ingest.kernels.windows import COUNTER, PER_SECOND, extrapolated_spans, seconds, start_of_counter

NOT_COUNTER, NOT_GAUGE = 1 << 10, 1 << 11
"""Flags, beside INCOMPATIBLE, RECONCILED_SUB and RECONCILED_ADD: a gauge, or no gauge, where it should be otherwise."""

_works_t = types.UniTuple(workspace_t, 3)


@inline
def _scan(native, points, lo, hi, counter):
    """Look at a window's hints and schemas; return (flags, coarsest schema). INCOMPATIBLE: it mixes schemas."""
    first, last = points.rows[lo], points.rows[hi - 1]
    flags = 0
    if counter and (native.reset_hint[first] == HINT_GAUGE or native.reset_hint[last] == HINT_GAUGE):
        flags |= NOT_COUNTER
    if not counter and (native.reset_hint[first] != HINT_GAUGE or native.reset_hint[last] != HINT_GAUGE):
        flags |= NOT_GAUGE
    # After a reset before the second sample nothing of the first one matters.
    head = points.rows[lo + 1] if counter and points.resets[lo + 1] else first
    custom = native.schema[head] == CUSTOM
    coarsest = min(native.schema[last], native.schema[head])
    if (native.schema[last] == CUSTOM) != custom:
        return (flags & NOT_COUNTER) | INCOMPATIBLE, coarsest
    if counter:
        for j in range(lo + 1, hi - 1):
            row = points.rows[j]
            if native.reset_hint[row] == HINT_GAUGE:
                flags |= NOT_COUNTER
            if (native.schema[row] == CUSTOM) != custom:
                return INCOMPATIBLE, coarsest
            coarsest = min(coarsest, native.schema[row])
    return flags, coarsest


@inline
def _increase(native, points, lo, hi, counter, works):
    """Put the increase from the first to the last sample of a window into `works[0]`; return flags."""
    work, other, empty = works
    flags, coarsest = _scan(native, points, lo, hi, counter)
    if flags & INCOMPATIBLE:
        return flags | ABSENT
    load(work, native, points.rows[hi - 1])
    if coarsest != CUSTOM:
        reduce_resolution(work, coarsest)
    begins_anew = counter and points.resets[lo + 1]
    if begins_anew:
        load(other, native, points.rows[lo + 1])
        clear(empty, other)
        if merge(work, empty, -1.0, False) & RECONCILED:
            flags |= RECONCILED_SUB
        # Prometheus adds what was before each reset, here nothing; but that, too, reconciles bounds.
        clear(empty, other)
        if native.reset_hint[points.rows[lo + 1]] == HINT_RESET and merge(work, empty, 1.0, False) & RECONCILED:
            flags |= RECONCILED_ADD
    elif merge_row(work, other, native, points.rows[lo], -1.0, False) & RECONCILED:
        flags |= RECONCILED_SUB
    if counter:
        for j in range(lo + 2, hi):
            if not points.resets[j]:
                continue
            done = merge_row(work, other, native, points.rows[j - 1], 1.0, False)
            if done & INCOMPATIBLE:
                return INCOMPATIBLE | ABSENT
            if done & RECONCILED:
                flags |= RECONCILED_ADD
    work.whole[HINT] = HINT_GAUGE
    compact(work)
    return flags


@kernel(i64(native_t, points_t, i64_2d_in, i64_in, _works_t, output_t))
def extrapolate_histograms(native, points, spans, window, works, output):
    """Compute `rate`, `increase` or `delta` of windows that hold histograms only.

    Parameters
    ----------
    native : Native
    points : Points
    spans : int64[items, 4]
        Item i: its samples `points[spans[i, 0]:spans[i, 1]]`, at least two; the window's start and end (ms).
    window : int64[2]
        Range (ms); mode: COUNTER | PER_SECOND.
    works : 3 Workspace
    output : Output

    Returns
    -------
    int64
        Items done so far; less than all if `output` is full.
    """
    counter = window[1] & COUNTER != 0
    divisor = seconds(window[0]) if window[1] & PER_SECOND else 1.0
    for item in range(output.cursor[0], len(spans)):
        lo, hi = spans[item, 0], spans[item, 1]
        flags = _increase(native, points, lo, hi, counter, works)
        if flags & ABSENT == 0:
            first = native.count[points.rows[lo]]
            first_ms, last_ms = points.timestamps[lo], points.timestamps[hi - 1]
            to_start, to_end, sampled = extrapolated_spans(
                first_ms - spans[item, 2], spans[item, 3] - last_ms, last_ms - first_ms, hi - lo
            )
            if counter:
                to_start = start_of_counter(to_start, sampled, works[0].parts[COUNT], first)
            scale(works[0], (sampled + to_start + to_end) / sampled / divisor, False)
        if not emit(works[0], output, item, flags):
            break
    return output.cursor[0]


@kernel(i64(native_t, points_t, i64_in, i64, _works_t, output_t))
def last_increase(native, points, places, per_second, works, output):
    """Compute `irate` (`per_second`) or `idelta` from two samples each: `places[i] - 1` and `places[i]` in `points`.

    Returns the items done so far.
    """
    work, other, _ = works
    for item in range(output.cursor[0], len(places)):
        at = places[item]
        last, before = points.rows[at], points.rows[at - 1]
        flags = 0
        if per_second and (native.reset_hint[last] == HINT_GAUGE or native.reset_hint[before] == HINT_GAUGE):
            flags |= NOT_COUNTER
        if not per_second and (native.reset_hint[last] != HINT_GAUGE or native.reset_hint[before] != HINT_GAUGE):
            flags |= NOT_GAUGE
        load(work, native, last)
        if not per_second or not points.resets[at]:
            done = merge_row(work, other, native, before, -1.0, False)
            if done & INCOMPATIBLE:
                flags |= INCOMPATIBLE | ABSENT
            if done & RECONCILED:
                flags |= RECONCILED_SUB
        work.whole[HINT] = HINT_GAUGE
        compact(work)
        if per_second:
            scale(work, float(points.timestamps[at] - points.timestamps[at - 1]) / 1000.0, True)
        if not emit(work, output, item, flags):
            break
    return output.cursor[0]
