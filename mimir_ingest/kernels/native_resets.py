"""Whether a native histogram follows another without a counter reset, and whether two are equal.

Source: Prometheus 3.14 `model/histogram/float_histogram.go` `DetectReset`, `Equals`.
Twin: `tests/reference/native_merge.py`.
"""

from __future__ import annotations

import math

from mimir_ingest.kernels._jit import bool_in, bool_out, i64, i64_in, inline, kernel, u8_in, u8_out
from mimir_ingest.kernels.native_bounds import exponential_bound
from mimir_ingest.kernels.native_columns import (
    BOUNDS,
    COUNT,
    CUSTOM,
    HINT,
    HINT_NO_RESET,
    HINT_RESET,
    HINT_UNKNOWN,
    LIVE,
    SCHEMA,
    SIZE,
    THRESHOLD,
    ZERO,
    load,
    native_t,
    workspace_t,
)
from mimir_ingest.kernels.native_merge import same_bounds, zero_count_up_to


@inline
def _next_bucket(work, side, at, shift):
    """Return (next place, index, count) of the bucket from `at` on, merged to a schema coarser by `shift`."""
    live = work.whole[LIVE + side]
    target = ((work.index[side, live, at] - 1) >> shift) + 1
    count = 0.0
    while at < work.whole[SIZE + side] and ((work.index[side, live, at] - 1) >> shift) + 1 == target:
        count += work.count[side, live, at]
        at += 1
    return at, target, count


@inline
def _past_threshold(work, side, shift, schema, threshold):
    """Return the first place whose bucket, at the target schema, reaches above the threshold."""
    at = 0
    while threshold != 0.0 and at < work.whole[SIZE + side]:
        after, index, _ = _next_bucket(work, side, at, shift)
        if exponential_bound(index, schema) > threshold:
            break
        at = after
    return at


@inline
def _side_fell(current, previous, side):
    """Whether any bucket of one side lost observations; `previous` has at least the resolution of `current`."""
    schema, threshold = current.whole[SCHEMA], current.parts[THRESHOLD]
    shift = 0
    at = before = 0
    if schema != CUSTOM:
        shift = previous.whole[SCHEMA] - schema
        at = _past_threshold(current, side, 0, schema, threshold)
        before = _past_threshold(previous, side, shift, schema, threshold)
    live = current.whole[LIVE + side]
    while before < previous.whole[SIZE + side]:
        before, index, count = _next_bucket(previous, side, before, shift)
        while at < current.whole[SIZE + side] and current.index[side, live, at] < index:
            at += 1
        if at < current.whole[SIZE + side] and current.index[side, live, at] == index:
            if current.count[side, live, at] < count:
                return True
        elif count != 0.0:
            return True
    return False


@inline
def _count_up_to(work, at, bound):
    """Return (next place, count) of the custom buckets from `at` on whose upper bounds are at most `bound`."""
    live = work.whole[LIVE + 1]
    count = 0.0
    while at < work.whole[SIZE + 1]:
        index = work.index[1, live, at]
        upper = work.custom[index] if index < work.whole[BOUNDS] else math.inf
        if upper > bound:
            break
        count += work.count[1, live, at]
        at += 1
    return at, count


@inline
def _shared_bounds_fell(current, previous):
    """Whether, between bounds that both have, observations were lost."""
    i = j = at = before = 0
    while i <= current.whole[BOUNDS] and j <= previous.whole[BOUNDS]:
        a = current.custom[i] if i < current.whole[BOUNDS] else math.inf
        b = previous.custom[j] if j < previous.whole[BOUNDS] else math.inf
        if a == b:
            at, count = _count_up_to(current, at, a)
            before, earlier = _count_up_to(previous, before, a)
            if count < earlier:
                return True
        if a <= b:
            i += 1
        if b <= a:
            j += 1
    return False


@inline
def detect_reset(current, previous):
    """Whether there was a counter reset between two histograms."""
    if current.whole[HINT] == HINT_RESET:
        return True
    if current.whole[HINT] == HINT_NO_RESET:
        return False
    if current.parts[COUNT] < previous.parts[COUNT]:
        return True
    if current.whole[SCHEMA] == CUSTOM:
        if previous.whole[SCHEMA] != CUSTOM:
            return True
        if not same_bounds(current, previous):
            return _shared_bounds_fell(current, previous)
    if current.whole[SCHEMA] > previous.whole[SCHEMA] or current.parts[THRESHOLD] < previous.parts[THRESHOLD]:
        return True
    zero = previous.parts[ZERO]
    if current.parts[THRESHOLD] != previous.parts[THRESHOLD]:
        zero, _, threshold = zero_count_up_to(previous, current.parts[THRESHOLD])
        if threshold != current.parts[THRESHOLD]:
            return True
    if current.parts[ZERO] < zero:
        return True
    return _side_fell(current, previous, 1) or _side_fell(current, previous, 0)


@inline
def _same_bits(a, b):
    """Whether two numbers have the same bits, but for the payload of NaN."""
    return (a == b and (a != 0.0 or math.copysign(1.0, a) == math.copysign(1.0, b))) or (
        math.isnan(a) and math.isnan(b)
    )


@inline
def equal(native, row, other, other_row):
    """Whether two rows are equal, empty buckets included; hints do not count."""
    if native.schema[row] != other.schema[other_row]:
        return False
    if not _same_bits(native.count[row], other.count[other_row]) or not _same_bits(
        native.sum[row], other.sum[other_row]
    ):
        return False
    if native.zero_threshold[row] != other.zero_threshold[other_row]:
        return False
    if not _same_bits(native.zero_count[row], other.zero_count[other_row]):
        return False
    start, other_start = native.custom_offsets[row], other.custom_offsets[other_row]
    bounds = native.custom_offsets[row + 1] - start
    if bounds != other.custom_offsets[other_row + 1] - other_start:
        return False
    for k in range(bounds):
        if native.custom_values[start + k] != other.custom_values[other_start + k]:
            return False
    for side in range(2):
        start, other_start = native.bucket_offsets[2 * row + side], other.bucket_offsets[2 * other_row + side]
        size = native.bucket_offsets[2 * row + side + 1] - start
        if size != other.bucket_offsets[2 * other_row + side + 1] - other_start:
            return False
        for k in range(size):
            if native.bucket_index[start + k] != other.bucket_index[other_start + k]:
                return False
            if not _same_bits(native.bucket_count[start + k], other.bucket_count[other_start + k]):
                return False
    return True


@kernel(i64(native_t, i64_in, i64_in, workspace_t, workspace_t, bool_out))
def find_resets(native, offsets, rows, work, other, resets_out):
    """Find the samples before which a counter was reset.

    Parameters
    ----------
    native : Native
    offsets : int64[n + 1]
        Series i has the samples `offsets[i]:offsets[i + 1]`.
    rows : int64[m]
        The histogram of each sample.
    work, other : Workspace
        With room for any of the histograms.
    resets_out : bool[m], written
        False for the first sample of a series.

    Returns
    -------
    int64
        Number of resets.
    """
    found = 0
    for i in range(len(offsets) - 1):
        for j in range(offsets[i], offsets[i + 1]):
            resets_out[j] = False
            if j == offsets[i]:
                continue
            hint = native.reset_hint[rows[j]]
            if hint == HINT_NO_RESET:
                continue
            if hint == HINT_RESET:
                resets_out[j] = True
            else:
                load(work, native, rows[j])
                load(other, native, rows[j - 1])
                resets_out[j] = detect_reset(work, other)
            found += 1 if resets_out[j] else 0
    return found


@kernel(i64(native_t, i64_in, i64_in, bool_out))
def find_changes(native, rows, before, changed_out):
    """Tell where the histograms `rows` (int64[m]) differ from those of `before` (int64[m]). Returns how many do."""
    found = 0
    for j in range(len(rows)):
        changed_out[j] = not equal(native, rows[j], native, before[j])
        found += 1 if changed_out[j] else 0
    return found


@kernel(i64(native_t, native_t, i64_in, i64_in, bool_out))
def compare_rows(left, right, left_rows, right_rows, equal_out):
    """Tell which pairs of histograms are equal. Returns how many are."""
    found = 0
    for j in range(len(left_rows)):
        equal_out[j] = equal(left, left_rows[j], right, right_rows[j])
        found += 1 if equal_out[j] else 0
    return found


@kernel(i64(i64_in, i64_in, u8_in, bool_in, i64_in, i64, u8_out))
def detect_hints(offsets, timestamps, hints, resets, ends, reach_ms, hints_out):
    """Give samples of unknown hint the one that a reader of one statistic finds on its way (`HistogramStatsIterator`).

    Parameters
    ----------
    offsets, timestamps : int64[n + 1], int64[m]
        Samples of n series (ms).
    hints, resets : uint8[m], bool[m]
        Stored hints; what `find_resets` says.
    ends : int64[steps]
        Where the query looks (ms), not descending; it jumps to `end - reach_ms` if that is past all it has seen, and
        does not know the sample before the one where it lands.
    reach_ms : int64
    hints_out : uint8[m], written

    Returns
    -------
    int64
        Number of hints detected.
    """
    found = 0
    for i in range(len(offsets) - 1):
        at, stop = offsets[i], offsets[i + 1]
        for j in range(at, stop):
            hints_out[j] = hints[j]
        known = started = False
        newest = -1
        for s in range(len(ends)):
            if at == stop:
                break
            if not started or ends[s] - reach_ms > timestamps[at]:
                started = True
                known = known and ends[s] - reach_ms <= timestamps[at]
                while at < stop and timestamps[at] < ends[s] - reach_ms:
                    at += 1
            while at < stop and timestamps[at] <= ends[s]:
                if known and at != newest and hints[at] == HINT_UNKNOWN:
                    hints_out[at] = HINT_RESET if resets[at] else HINT_NO_RESET
                    found += 1
                known = True
                newest = at
                if timestamps[at] == ends[s]:
                    break
                at += 1
    return found
