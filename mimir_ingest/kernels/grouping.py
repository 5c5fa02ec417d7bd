"""Equal rows of a label frame: grouped by hashing their codes, in one pass.

Twin: `tests/reference/grouping.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_out, kernel, types

i32_2d_in = types.Array(types.int32, 2, "C", readonly=True)

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


@kernel(i64(i32_2d_in, i64_out, i64_out, i64_out))
def group_columns(codes, table_out, ids_out, first_out):
    """Number the distinct columns of a matrix by first appearance.

    Parameters
    ----------
    codes : int32[k, n]
        Column i is row i of the frame.
    table_out : int64[size], overwritten
        Scratch; `size` is a power of two and greater than n.
    ids_out : int64[n], written
        Group of each column.
    first_out : int64[n], written
        The first column of each group; entries past the number of groups are left alone.

    Returns
    -------
    int64
        Number of groups.

    Notes
    -----
    Cost: 4 ns a code; sorting combined codes (`np.unique` a label) took 15 times that for 100,000 series.
    """
    k, n = codes.shape
    mask = np.uint64(len(table_out) - 1)
    table_out[:] = -1
    groups = 0
    for i in range(n):
        state = np.uint64(0)
        for j in range(k):
            state = (state ^ np.uint64(codes[j, i] + 1)) * _MULTIPLIER
            state ^= state >> _SHIFT
        slot = np.int64(state & mask)
        while True:
            group = table_out[slot]
            if group < 0:
                table_out[slot] = groups
                first_out[groups] = i
                ids_out[i] = groups
                groups += 1
                break
            other = first_out[group]
            equal = True
            for j in range(k):
                if codes[j, i] != codes[j, other]:
                    equal = False
                    break
            if equal:
                ids_out[i] = group
                break
            slot = np.int64((np.uint64(slot) + np.uint64(1)) & mask)
    return groups
