"""Buckets of OTLP's histograms to those of native ones.

Twin: tests/reference/otlp.py, compared in `tests/unit/wire/test_otlp_columns.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import boolean, f64_out, i32_out, i64, i64_in, i64_out, kernel, u64_in

LISTED_GAP = 2
"""Empty buckets in a gap that are listed; of a longer gap none is."""
_MIN_INDEX, _MAX_INDEX = -(1 << 31), (1 << 31) - 1


@kernel(i64(u64_in, i64_in, i64_in, i64_in, i64_in, boolean, i32_out, f64_out, i64_out, i64_out), boundscheck=True)
def list_buckets(counts, starts, ends, shifts, downs, custom, index_out, count_out, offsets_out, wrong_out):
    """Number the buckets that Prometheus's receiver lists: filled ones, the last one, and empty ones in short gaps.

    Parameters
    ----------
    counts : uint64[...]
    starts, ends : int64[n]
        Side i has the counts `counts[starts[i]:ends[i]]`.
    shifts, downs : int64[n]
        Its bucket j has the number `((j + shifts[i]) >> downs[i]) + 1`; those of the same number are one.
    custom : bool
        Whether nothing is listed in front of the first filled bucket, and without one nothing at all.
    index_out, count_out : int32[room], float64[room], written
        With room for all counts.
    offsets_out : int64[n + 1], written
        Side i has the buckets `offsets_out[i]:offsets_out[i + 1]`.
    wrong_out : int64[n], written
        The last number of a filled bucket of a side that has one that is no int32, else 0; such a side has no buckets.

    Returns
    -------
    int64
        Buckets written.
    """
    to = np.int64(0)
    offsets_out[0] = 0
    for side in range(len(starts)):
        shift, down = shifts[side], downs[side]
        begin = to
        outside = False
        wrong_out[side] = 0
        before = number = shift >> down
        for at in range(starts[side], ends[side] + 1):
            if at < ends[side]:
                count = counts[at]
                if count == np.uint64(0):
                    continue
                number = ((at - starts[side] + shift) >> down) + 1
                outside |= not _MIN_INDEX <= number <= _MAX_INDEX
                if outside:
                    continue
                if to > begin and number == before:
                    count_out[to - 1] += np.float64(count)
                    continue
            else:
                # The last bucket, unless it is listed or there is none.
                if outside or at == starts[side] or (custom and to == begin):
                    break
                count = np.uint64(0)
                number = min(((at - 1 - starts[side] + shift) >> down) + 1, _MAX_INDEX)
                if number <= before:
                    break
            if number - before - 1 <= LISTED_GAP and not (custom and to == begin):
                for gap in range(before + 1, number):
                    index_out[to], count_out[to] = gap, 0.0
                    to += 1
            index_out[to], count_out[to] = number, np.float64(count)
            to += 1
            before = number
        if outside:
            to, wrong_out[side] = begin, number
        offsets_out[side + 1] = to
    return to
