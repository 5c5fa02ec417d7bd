"""Rows of one label set: conflicts between them, and merging them into one.

Twin: `tests/reference/rows.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import (
    bool_2d_in,
    bool_2d_out,
    f64_2d_in,
    f64_2d_out,
    i64,
    i64_in,
    i64_out,
    kernel,
    types,
)

i64_2d_in = types.Array(types.int64, 2, "C", readonly=True)
i64_2d_out = types.Array(types.int64, 2, "C")


@kernel(i64(i64_in, i64, bool_2d_in, i64_out))
def find_conflict(groups, group_count, present, conflict_out):
    """Find the earliest step at which two rows of one group are present.

    Parameters
    ----------
    groups : int64[n]
        Group of each row, in `0..group_count - 1`; -1 for rows that take no part.
    present : bool[n, steps]
    conflict_out : int64[3], written if there is a conflict
        Step, the earlier row, the later row.

    Returns
    -------
    int64
        1 if there is a conflict, else 0.
    """
    steps = present.shape[1]
    owner = np.full((group_count, steps), -1, np.int32)
    earliest = steps
    for i in range(len(groups)):
        g = groups[i]
        if g < 0:
            continue
        for s in range(earliest):
            if not present[i, s]:
                continue
            if owner[g, s] >= 0:
                earliest = s
                conflict_out[0] = s
                conflict_out[1] = owner[g, s]
                conflict_out[2] = i
                break
            owner[g, s] = i
    return 1 if earliest < steps else 0


@kernel(i64(i64_in, f64_2d_in, bool_2d_in, f64_2d_out, bool_2d_out))
def merge_rows(groups, values, present, values_out, present_out):
    """Merge the rows of each group, which must not conflict, into one; return the number of values."""
    values_out[:, :] = 0.0
    present_out[:, :] = False
    found = 0
    for i in range(len(groups)):
        g = groups[i]
        for s in range(values.shape[1]):
            if present[i, s]:
                found += 1
                values_out[g, s] = values[i, s]
                present_out[g, s] = True
    return found


@kernel(i64(i64_in, i64_2d_in, bool_2d_in, i64_2d_out))
def merge_index(groups, index, present, index_out):
    """As `merge_rows`, of int64[n, steps]; -1 where no row of a group is present."""
    index_out[:, :] = -1
    found = 0
    for i in range(len(groups)):
        g = groups[i]
        for s in range(index.shape[1]):
            if present[i, s]:
                found += 1
                index_out[g, s] = index[i, s]
    return found
