"""Sums and averages of many native histograms: of a group's series at a step, or of a window's samples.

Source: Prometheus 3.14 `promql/engine.go` `aggregation`, `promql/functions.go` `funcSumOverTime`, `funcAvgOverTime`.
Twin: `tests/reference/native_merge.py`.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline, kernel, types
from mimir_ingest.kernels.native_columns import (
    ABSENT,
    HINT_NO_RESET,
    HINT_RESET,
    emit,
    i64_2d_in,
    load,
    native_t,
    output_t,
    workspace_t,
)
from mimir_ingest.kernels.native_merge import (
    COLLISION,
    INCOMPATIBLE,
    OVERFLOW,
    RECONCILED,
    add_lost,
    compact,
    has_overflow,
    merge,
    merge_row,
    scale,
)

AVERAGE, COMPACT = 1, 2
"""Flags of `mode`: divide by the number of members; leave empty buckets out."""
MIXED = 8
"""Floats and histograms together; the other flags are those of `native_merge`."""

_works_t = types.UniTuple(workspace_t, 2)


@inline
def _seen(hint):
    """Return the bit of a hint that contradicts the other's: 1 for reset, 2 for no reset."""
    return 1 if hint == HINT_RESET else 2 if hint == HINT_NO_RESET else 0


@inline
def _add_to_mean(native, row, work, other, count):
    """Add a histogram to a mean of `count - 1`."""
    scale(work, (count - 1.0) / count, False)
    load(other, native, row)
    scale(other, count, True)
    return merge(work, other, 1.0, True)


@inline
def _mean_before(native, members, lo, j, work, other):
    """Make `work` the mean of the histograms `members[lo:j]`, whose sum is still finite."""
    load(work, native, members[lo])
    for k in range(lo + 1, j):
        if members[k] >= 0:
            merge_row(work, other, native, members[k], 1.0, True)
    scale(work, float(j - lo), True)


@inline
def _fold(native, members, lo, hi, mode, works):
    """Fold one item into `works[0]`; return (flags, the member that did not fit)."""
    work, other = works
    flags = seen = 0
    count = 0.0
    floats = began = incremental = infinite = False
    for j in range(lo, hi):
        row = members[j]
        count += 1.0
        if row < 0:
            floats = True
            continue
        if j == lo:
            load(work, native, row)
            infinite = mode & AVERAGE != 0 and has_overflow(work)
            began = True
            seen |= _seen(native.reset_hint[row])
            continue
        if not began:
            # A group that begins with a float has no result; its histograms are not looked at.
            continue
        seen |= _seen(native.reset_hint[row])
        added = 0
        if not incremental:
            added = merge_row(work, other, native, row, 1.0, True)
            infinite = infinite or added & OVERFLOW != 0
        if mode & AVERAGE and infinite and added & INCOMPATIBLE == 0:
            if not incremental:
                incremental = True
                _mean_before(native, members, lo, j, work, other)
            added |= _add_to_mean(native, row, work, other, count)
        flags |= added & RECONCILED
        if added & INCOMPATIBLE:
            return flags | INCOMPATIBLE | ABSENT | (MIXED if floats else 0), j
    if floats:
        return flags | MIXED | ABSENT, -1
    if mode & AVERAGE and not incremental:
        scale(work, count, True)
    if hi - lo > 1:
        add_lost(work)
    if mode & COMPACT:
        compact(work)
    return flags | (COLLISION if seen == 3 else 0), -1


@kernel(i64(native_t, i64_in, i64_2d_in, i64, _works_t, output_t, i64_out))
def fold_histograms(native, members, spans, mode, works, output, failed_out):
    """Sum or average histograms, compensated.

    Parameters
    ----------
    native : Native
    members : int64[m]
        Rows of `native`; -1 stands for a float. An item with both has no result.
    spans : int64[items, 2]
        Item i folds `members[spans[i, 0]:spans[i, 1]]`, at least one, at least one of them a histogram.
    mode : int64
        AVERAGE | COMPACT. An average is that of the sum; from the member on that makes it overflow, an incremental one.
    works : 2 Workspace
    output : Output
        Flags INCOMPATIBLE, RECONCILED, COLLISION (members say reset and no reset), MIXED, ABSENT.
    failed_out : int64[items], written
        Place in `members` of the one that is INCOMPATIBLE with those before it, else -1.

    Returns
    -------
    int64
        Items done so far; less than all if `output` is full.
    """
    for item in range(output.cursor[0], len(spans)):
        flags, failed = _fold(native, members, spans[item, 0], spans[item, 1], mode, works)
        failed_out[item] = failed
        if not emit(works[0], output, item, flags):
            break
    return output.cursor[0]
