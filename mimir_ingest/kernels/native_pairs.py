"""Arithmetic on native histograms, element by element: with one another, with a factor, and between two samples.

Source: Prometheus 3.14 `promql/engine.go` `vectorElemBinop`, `smoothSeries`. Twin: `tests/reference/native_merge.py`.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import f64_in, i64, i64_in, inline, kernel, types
from mimir_ingest.kernels.native_columns import (
    ABSENT,
    CUSTOM,
    HINT,
    HINT_GAUGE,
    HINT_UNKNOWN,
    emit,
    i64_2d_in,
    load,
    native_t,
    output_t,
    workspace_t,
)
from mimir_ingest.kernels.native_merge import COLLISION, INCOMPATIBLE, RECONCILED, compact, merge, merge_row, scale
from mimir_ingest.kernels.native_resets import detect_reset
from mimir_ingest.kernels.native_trim import trim

MULTIPLY, DIVIDE, TRIM_UPPER, TRIM_LOWER, NEGATE = range(5)
"""Operations of `apply_factors`."""
RECONCILED_SUB, RECONCILED_ADD = 1 << 8, 1 << 9
"""Flags: bounds were intersected in a subtraction, in an addition."""

_works_t = types.UniTuple(workspace_t, 3)


@kernel(i64(native_t, native_t, i64_2d_in, i64, _works_t, output_t))
def combine_pairs(left, right, pairs, sign, works, output):
    """Add pairs of histograms, or subtract them.

    Parameters
    ----------
    left, right : Native
    pairs : int64[items, 2]
        Row of each side.
    sign : int64
        1 or -1.
    works : 3 Workspace
    output : Output
        Flags INCOMPATIBLE, RECONCILED, COLLISION; the first and the last leave no result.

    Returns
    -------
    int64
        Items done so far; less than all if `output` is full.
    """
    for item in range(output.cursor[0], len(pairs)):
        load(works[0], left, pairs[item, 0])
        flags = merge_row(works[0], works[1], right, pairs[item, 1], float(sign), False)
        if flags & (INCOMPATIBLE | COLLISION):
            flags |= ABSENT
        else:
            compact(works[0])
            if sign < 0:
                works[0].whole[HINT] = HINT_GAUGE
        if not emit(works[0], output, item, flags):
            break
    return output.cursor[0]


@kernel(i64(native_t, i64_in, f64_in, i64, _works_t, output_t))
def apply_factors(native, rows, factors, operation, works, output):
    """Multiply or divide histograms by numbers, or cut off what lies above or below a number.

    Item i is `rows[i]` with `factors[i]`; `operation` is MULTIPLY, DIVIDE, TRIM_UPPER, TRIM_LOWER or NEGATE (which
    leaves empty buckets in place and takes no factor). Returns the items done so far.
    """
    for item in range(output.cursor[0], len(rows)):
        load(works[0], native, rows[item])
        if operation == NEGATE:
            scale(works[0], -1.0, False)
        elif operation in (MULTIPLY, DIVIDE):
            scale(works[0], factors[item], operation == DIVIDE)
            compact(works[0])
        else:
            trim(works[0], factors[item], operation == TRIM_UPPER)
        if not emit(works[0], output, item, 0):
            break
    return output.cursor[0]


@inline
def interpolate(native, before, after, times, works):
    """Put into `works[0]` what lies between two rows, at `times[0]` and `times[1]`, at the time `times[2]`.

    `times[3]` tells whether this is a counter, which starts from zero after a reset. Returns flags of `native_rate`;
    INCOMPATIBLE leaves nothing of use.
    """
    work, other, _ = works
    if times[2] == times[0]:
        load(work, native, before)
        return 0
    load(work, native, after)
    if times[2] == times[1]:
        return 0
    load(other, native, before)
    fraction = float(times[2] - times[0]) / float(times[1] - times[0])
    if times[3] and detect_reset(work, other):
        scale(work, fraction, False)
        return 0
    flags = 0
    done = merge(work, other, -1.0, False)
    if done & INCOMPATIBLE:
        return INCOMPATIBLE
    if done & RECONCILED:
        flags |= RECONCILED_SUB
    scale(work, fraction, False)
    load(other, native, before)
    if merge(work, other, 1.0, False) & RECONCILED:
        flags |= RECONCILED_ADD
    return flags


@kernel(i64(native_t, i64_2d_in, i64_2d_in, _works_t, output_t))
def interpolate_rows(native, pairs, times, works, output):
    """Give histograms between two samples each, for `smoothed` instant selectors.

    Parameters
    ----------
    native : Native
    pairs : int64[items, 2]
        Rows of the sample before and the sample after; the latter is -1 where there is none.
    times : int64[items, 3]
        Their times, and the time wanted (ms).
    works : 3 Workspace
    output : Output
        Flags INCOMPATIBLE, RECONCILED_SUB, RECONCILED_ADD.

    Returns
    -------
    int64
        Items done so far; less than all if `output` is full.
    """
    for item in range(output.cursor[0], len(pairs)):
        before, after = pairs[item, 0], pairs[item, 1]
        flags = 0
        if after < 0:
            load(works[0], native, before)
            if times[item, 2] != times[item, 0]:
                works[0].whole[HINT] = HINT_UNKNOWN
        else:
            counter = native.reset_hint[before] != HINT_GAUGE or native.reset_hint[after] != HINT_GAUGE
            at = (times[item, 0], times[item, 1], times[item, 2], 1 if counter else 0)
            if (native.schema[before] == CUSTOM) != (native.schema[after] == CUSTOM):
                flags = INCOMPATIBLE
            else:
                flags = interpolate(native, before, after, at, works)
        if flags & INCOMPATIBLE:
            flags |= ABSENT
        if not emit(works[0], output, item, flags):
            break
    return output.cursor[0]
