"""Sums and differences of native histograms, in workspaces.

Operands of other resolution, zero bucket or custom bounds are reconciled as Prometheus does. `compensated` keeps what
each addition loses. Source: Prometheus 3.14 `model/histogram/float_histogram.go` `Add`, `KahanAdd`, `Sub`.
Twin: `tests/reference/native_merge.py`.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import inline
from mimir_ingest.kernels.compensated import add as add_term
from mimir_ingest.kernels.native_bounds import exponential_bound
from mimir_ingest.kernels.native_columns import (
    BOUNDS,
    COUNT,
    CUSTOM,
    HINT,
    HINT_GAUGE,
    HINT_UNKNOWN,
    LIVE,
    LOST_COUNT,
    LOST_SUM,
    LOST_ZERO,
    SCHEMA,
    SIZE,
    SUM,
    THRESHOLD,
    ZERO,
    load,
)

INCOMPATIBLE, RECONCILED, COLLISION, OVERFLOW = 1, 2, 4, 16
"""What `merge_row` and `merge` return, or 0: nothing done, one has custom bounds; bounds were intersected; hints
contradicted; and, of compensated sums by `merge_row`, a place has become infinite or was."""


@inline
def reduce_resolution(work, schema):
    """Merge buckets to a coarser exponential schema; what is lost is kept beside."""
    shift = work.whole[SCHEMA] - schema
    if shift <= 0:
        return
    for side in range(2):
        live = work.whole[LIVE + side]
        size = 0
        for k in range(work.whole[SIZE + side]):
            target = ((work.index[side, live, k] - 1) >> shift) + 1
            count, lost = work.count[side, live, k], work.lost[side, live, k]
            if size > 0 and work.index[side, live, size - 1] == target:
                total, rest = add_term(count, work.count[side, live, size - 1], work.lost[side, live, size - 1])
                total, rest = add_term(lost, total, rest)
                work.count[side, live, size - 1] = total
                work.lost[side, live, size - 1] = rest
            else:
                work.index[side, live, size] = target
                work.count[side, live, size] = count
                work.lost[side, live, size] = lost
                size += 1
        work.whole[SIZE + side] = size
    work.whole[SCHEMA] = schema


@inline
def compact(work):
    """Remove empty buckets."""
    for side in range(2):
        live = work.whole[LIVE + side]
        index, count, lost = work.index[side, live], work.count[side, live], work.lost[side, live]
        total = work.whole[SIZE + side]
        size = 0
        while size < total and (count[size] != 0.0 or lost[size] != 0.0):
            size += 1
        for k in range(size, total):
            if count[k] == 0.0 and lost[k] == 0.0:
                continue
            index[size], count[size], lost[size] = index[k], count[k], lost[k]
            size += 1
        work.whole[SIZE + side] = size


@inline
def zero_count_up_to(work, threshold):
    """Return (zero count, lost, threshold) as if the zero bucket reached to `threshold`.

    A populated bucket that the threshold falls into belongs to it as a whole, which moves the threshold.
    """
    schema = work.whole[SCHEMA]
    again = True
    zero, lost = work.parts[ZERO], work.parts[LOST_ZERO]
    while again:
        again = False
        # What is lost is not reset when the search starts anew, as there.
        zero = work.parts[ZERO]
        for side in (1, 0):
            live = work.whole[LIVE + side]
            for k in range(work.whole[SIZE + side]):
                index = work.index[side, live, k]
                if exponential_bound(index - 1, schema) >= threshold:
                    break
                zero, lost = add_term(work.count[side, live, k], zero, lost)
                zero, lost = add_term(work.lost[side, live, k], zero, lost)
                upper = exponential_bound(index, schema)
                if upper > threshold:
                    if work.count[side, live, k] != 0.0:
                        threshold = upper
                        again = side == 0
                    break
            if again:
                break
    return zero, lost, threshold


@inline
def _drop_below_threshold(work):
    """Remove the buckets inside the zero bucket, and all empty ones."""
    for side in range(2):
        live = work.whole[LIVE + side]
        for k in range(work.whole[SIZE + side]):
            if exponential_bound(work.index[side, live, k] - 1, work.whole[SCHEMA]) >= work.parts[THRESHOLD]:
                break
            work.count[side, live, k] = 0.0
            work.lost[side, live, k] = 0.0
    compact(work)


@inline
def _reconcile_zero_buckets(work, other):
    """Widen the zero bucket of `work` until both fit; return `other`'s zero count (and lost) at that threshold."""
    zero, lost = other.parts[ZERO], 0.0
    threshold = other.parts[THRESHOLD]
    while threshold != work.parts[THRESHOLD]:
        if work.parts[THRESHOLD] > threshold:
            zero, lost, threshold = zero_count_up_to(other, work.parts[THRESHOLD])
        if threshold > work.parts[THRESHOLD]:
            work.parts[ZERO], work.parts[LOST_ZERO], work.parts[THRESHOLD] = zero_count_up_to(work, threshold)
            _drop_below_threshold(work)
    return zero, lost


@inline
def _join_hints(work, hint):
    """Set the hint of a sum; return COLLISION if one says reset and the other no reset."""
    own = work.whole[HINT]
    if own in (hint, HINT_GAUGE):
        return 0
    if hint == HINT_GAUGE:
        work.whole[HINT] = HINT_GAUGE
        return 0
    work.whole[HINT] = HINT_UNKNOWN
    return COLLISION if own != HINT_UNKNOWN and hint != HINT_UNKNOWN else 0


@inline
def _all_known(work, other, side, first):
    """Whether every bucket of `other` from `first` on has its place in `work`."""
    live, size = work.whole[LIVE + side], work.whole[SIZE + side]
    other_live = other.whole[LIVE + side]
    at = 0
    for k in range(first, other.whole[SIZE + side]):
        index = other.index[side, other_live, k]
        while at < size and work.index[side, live, at] < index:
            at += 1
        if at == size or work.index[side, live, at] != index:
            return False
        at += 1
    return True


@inline
def _put(work, side, copy, place, index, count, lost):
    work.index[side, copy, place] = index
    work.count[side, copy, place] = count
    work.lost[side, copy, place] = lost


@inline
def _add_bucket(work, side, copy, place, count, lost, compensated):
    """Add to one bucket."""
    if not compensated:
        work.count[side, copy, place] += count
        return
    total, rest = add_term(count, work.count[side, copy, place], work.lost[side, copy, place])
    if lost != 0.0:
        total, rest = add_term(lost, total, rest)
    work.count[side, copy, place] = total
    work.lost[side, copy, place] = rest


@inline
def _add_side(work, other, side, sign, compensated):
    """Add one side's buckets; those of `other` inside the zero bucket are passed over."""
    first = 0
    other_live, other_size = other.whole[LIVE + side], other.whole[SIZE + side]
    if work.whole[SCHEMA] != CUSTOM and work.parts[THRESHOLD] > 0.0:
        while (
            first < other_size
            and exponential_bound(other.index[side, other_live, first], work.whole[SCHEMA]) <= work.parts[THRESHOLD]
        ):
            first += 1
    live, size = work.whole[LIVE + side], work.whole[SIZE + side]
    if _all_known(work, other, side, first):
        at = 0
        for k in range(first, other_size):
            while work.index[side, live, at] < other.index[side, other_live, k]:
                at += 1
            count, lost = sign * other.count[side, other_live, k], sign * other.lost[side, other_live, k]
            _add_bucket(work, side, live, at, count, lost, compensated)
        return
    spare = 1 - live
    at = merged = 0
    for k in range(first, other_size):
        index = other.index[side, other_live, k]
        while at < size and work.index[side, live, at] < index:
            _put(
                work,
                side,
                spare,
                merged,
                work.index[side, live, at],
                work.count[side, live, at],
                work.lost[side, live, at],
            )
            at += 1
            merged += 1
        count, lost = sign * other.count[side, other_live, k], sign * other.lost[side, other_live, k]
        if at < size and work.index[side, live, at] == index:
            _put(work, side, spare, merged, index, work.count[side, live, at], work.lost[side, live, at])
            _add_bucket(work, side, spare, merged, count, lost, compensated)
            at += 1
        else:
            _put(work, side, spare, merged, index, count, lost if compensated else 0.0)
        merged += 1
    while at < size:
        _put(
            work, side, spare, merged, work.index[side, live, at], work.count[side, live, at], work.lost[side, live, at]
        )
        at += 1
        merged += 1
    work.whole[LIVE + side] = spare
    work.whole[SIZE + side] = merged


@inline
def same_bounds(work, other):
    """Whether the custom bounds are equal."""
    if work.whole[BOUNDS] != other.whole[BOUNDS]:
        return False
    different = 0
    for k in range(work.whole[BOUNDS]):
        different += 1 if work.custom[k] != other.custom[k] else 0
    return different == 0


@inline
def _map_buckets(work, source, sign, with_lost, shared):
    """Add custom buckets to the spare copy of `work`, whose bounds are the first `shared` in the scratch half."""
    scratch = len(work.custom) // 2
    spare = 1 - work.whole[LIVE + 1]
    live = source.whole[LIVE + 1]
    at = 0
    for k in range(source.whole[SIZE + 1]):
        index = source.index[1, live, k]
        target = shared
        if index < source.whole[BOUNDS]:
            while at < shared and work.custom[scratch + at] < source.custom[index]:
                at += 1
            target = at
        total, rest = add_term(
            sign * source.count[1, live, k], work.count[1, spare, target], work.lost[1, spare, target]
        )
        if with_lost:
            total, rest = add_term(source.lost[1, live, k], total, rest)
        work.count[1, spare, target] = total
        work.lost[1, spare, target] = rest


@inline
def _merge_custom(work, other, sign, compensated):
    """Add custom buckets of other bounds: both are mapped to the bounds they share; empty buckets go."""
    scratch = len(work.custom) // 2
    shared = i = j = 0
    while i < work.whole[BOUNDS] and j < other.whole[BOUNDS]:
        a, b = work.custom[i], other.custom[j]
        if a == b:
            work.custom[scratch + shared] = a
            shared += 1
        if a <= b:
            i += 1
        if b <= a:
            j += 1
    spare = 1 - work.whole[LIVE + 1]
    for k in range(shared + 1):
        _put(work, 1, spare, k, k, 0.0, 0.0)
    _map_buckets(work, work, 1.0, compensated, shared)
    _map_buckets(work, other, sign, False, shared)
    work.whole[LIVE + 1] = spare
    work.whole[SIZE + 1] = shared + 1
    compact(work)
    if not compensated:
        for k in range(work.whole[SIZE + 1]):
            work.lost[1, spare, k] = 0.0
    work.whole[BOUNDS] = shared
    for k in range(shared):
        work.custom[k] = work.custom[scratch + k]


@inline
def merge(work, other, sign, compensated):
    """Add `other` (times `sign`, 1 or -1) to `work`; `other` may lose its resolution. Returns flags."""
    custom = work.whole[SCHEMA] == CUSTOM
    if custom != (other.whole[SCHEMA] == CUSTOM):
        return INCOMPATIBLE
    flags = _join_hints(work, other.whole[HINT])
    zero = zero_lost = 0.0
    if not custom:
        zero, zero_lost = _reconcile_zero_buckets(work, other)
    if compensated:
        if not custom:
            total, rest = add_term(zero, work.parts[ZERO], work.parts[LOST_ZERO])
            work.parts[ZERO], work.parts[LOST_ZERO] = add_term(zero_lost, total, rest)
        work.parts[COUNT], work.parts[LOST_COUNT] = add_term(
            other.parts[COUNT], work.parts[COUNT], work.parts[LOST_COUNT]
        )
        work.parts[SUM], work.parts[LOST_SUM] = add_term(other.parts[SUM], work.parts[SUM], work.parts[LOST_SUM])
    else:
        work.parts[ZERO] += sign * zero
        work.parts[COUNT] += sign * other.parts[COUNT]
        work.parts[SUM] += sign * other.parts[SUM]
    if custom:
        if same_bounds(work, other):
            _add_side(work, other, 1, sign, compensated)
            return flags
        _merge_custom(work, other, sign, compensated)
        return flags | RECONCILED
    coarser = min(work.whole[SCHEMA], other.whole[SCHEMA])
    reduce_resolution(work, coarser)
    reduce_resolution(other, coarser)
    if not compensated:
        for side in range(2):
            for k in range(work.whole[SIZE + side]):
                work.lost[side, work.whole[LIVE + side], k] = 0.0
    _add_side(work, other, 1, sign, compensated)
    _add_side(work, other, 0, sign, compensated)
    return flags


@inline
def _same_layout(work, native, row):
    """Whether a row has the schema, the zero bucket, the bounds and the buckets of `work`, none in the zero bucket."""
    schema, threshold = work.whole[SCHEMA], work.parts[THRESHOLD]
    if native.schema[row] != schema or native.zero_threshold[row] != threshold:
        return False
    start = native.custom_offsets[row]
    if native.custom_offsets[row + 1] - start != work.whole[BOUNDS]:
        return False
    for k in range(work.whole[BOUNDS]):
        if native.custom_values[start + k] != work.custom[k]:
            return False
    for side in range(2):
        start = native.bucket_offsets[2 * row + side]
        size = work.whole[SIZE + side]
        if native.bucket_offsets[2 * row + side + 1] - start != size:
            return False
        index = work.index[side, work.whole[LIVE + side]]
        different = 0
        for k in range(size):
            different |= index[k] ^ native.bucket_index[start + k]
        if different != 0:
            return False
        if size > 0 and schema != CUSTOM and threshold > 0.0 and exponential_bound(index[0], schema) <= threshold:
            return False
    return True


@inline
def _add_parts(work, zero, count, total, sign, compensated):
    if compensated:
        work.parts[ZERO], work.parts[LOST_ZERO] = add_term(zero, work.parts[ZERO], work.parts[LOST_ZERO])
        work.parts[COUNT], work.parts[LOST_COUNT] = add_term(count, work.parts[COUNT], work.parts[LOST_COUNT])
        work.parts[SUM], work.parts[LOST_SUM] = add_term(total, work.parts[SUM], work.parts[LOST_SUM])
    else:
        work.parts[ZERO] += sign * zero
        work.parts[COUNT] += sign * count
        work.parts[SUM] += sign * total


@inline
def merge_row(work, other, native, row, sign, compensated):
    """Add a row (times `sign`) to `work` as `merge` does; `other` is scratch. Compensated sums have `sign` 1."""
    if not _same_layout(work, native, row):
        load(other, native, row)
        flags = merge(work, other, sign, compensated)
        return flags | OVERFLOW if compensated and has_overflow(work) else flags
    flags = _join_hints(work, np.int64(native.reset_hint[row]))
    _add_parts(work, native.zero_count[row], native.count[row], native.sum[row], sign, compensated)
    infinite = math.isinf(work.parts[ZERO]) or math.isinf(work.parts[COUNT]) or math.isinf(work.parts[SUM])
    for side in range(2):
        live = work.whole[LIVE + side]
        count, lost = work.count[side, live], work.lost[side, live]
        start = native.bucket_offsets[2 * row + side]
        if compensated:
            for k in range(work.whole[SIZE + side]):
                count[k], lost[k] = add_term(native.bucket_count[start + k], count[k], lost[k])
                infinite |= math.isinf(count[k])
        else:
            for k in range(work.whole[SIZE + side]):
                count[k] += sign * native.bucket_count[start + k]
    return flags | OVERFLOW if compensated and infinite else flags


@inline
def add_lost(work):
    """Add what was lost to each place."""
    work.parts[ZERO] += work.parts[LOST_ZERO]
    work.parts[COUNT] += work.parts[LOST_COUNT]
    work.parts[SUM] += work.parts[LOST_SUM]
    for side in range(2):
        live = work.whole[LIVE + side]
        count, lost = work.count[side, live], work.lost[side, live]
        for k in range(work.whole[SIZE + side]):
            count[k] += lost[k]
            lost[k] = 0.0
    work.parts[LOST_ZERO] = 0.0
    work.parts[LOST_COUNT] = 0.0
    work.parts[LOST_SUM] = 0.0


@inline
def scale(work, factor, divide):
    """Multiply every place by a factor, or divide it; a division by zero removes the buckets."""
    for k in range(ZERO, LOST_SUM + 1):
        work.parts[k] = work.parts[k] / factor if divide else work.parts[k] * factor
    if divide and factor == 0.0:
        work.whole[SIZE] = 0
        work.whole[SIZE + 1] = 0
        return
    for side in range(2):
        live = work.whole[LIVE + side]
        count, lost = work.count[side, live], work.lost[side, live]
        if divide:
            for k in range(work.whole[SIZE + side]):
                count[k] /= factor
                lost[k] /= factor
        else:
            for k in range(work.whole[SIZE + side]):
                count[k] *= factor
                lost[k] *= factor
    if factor < 0.0:
        work.whole[HINT] = HINT_GAUGE


@inline
def has_overflow(work):
    """Whether any place is infinite."""
    if math.isinf(work.parts[ZERO]) or math.isinf(work.parts[COUNT]) or math.isinf(work.parts[SUM]):
        return True
    for side in range(2):
        live = work.whole[LIVE + side]
        for k in range(work.whole[SIZE + side]):
            if math.isinf(work.count[side, live, k]):
                return True
    return False
