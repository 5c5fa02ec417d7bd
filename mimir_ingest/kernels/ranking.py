"""Aggregations that keep series: `topk`, `bottomk` and `limitk`, with the heap of Prometheus.

Which of several equal values stays, and in which order an instant query lists them, follows from the layout of Go's
`container/heap`; so the same heap is kept here. Source: Prometheus 3.14 `promql/engine.go` `aggregationK`.
Twin: `tests/reference/ranking.py`.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import bool_2d_in, f64_2d_in, i64, i64_in, inline, kernel
from mimir_ingest.kernels._jit import types as _types

i32_2d_out = _types.Array(_types.int32, 2, "C")

TOP, BOTTOM, FIRST = 0, 1, 2
"""Operations of `rank_rows`."""

_HEAP_ROOM = 1 << 14
"""why: entries of 16 bytes; 256 KiB stay in a core's cache."""


@inline
def _before(a, b, bottom):
    """Whether value `a` stands nearer to the heap's root than `b`: NaN first, then the worst."""
    if math.isnan(a):
        return True
    return a > b if bottom else a < b


@inline
def _is_kept(worst, value, operation):
    """Whether a full heap with this root takes a value."""
    if operation == FIRST:
        return False
    better = worst > value if operation == BOTTOM else worst < value
    return better or (math.isnan(worst) and not math.isnan(value))


@inline
def _sift_up(heap, keys, root, at, bottom):
    while at > 0:
        parent = (at - 1) // 2
        if not _before(keys[root + at], keys[root + parent], bottom):
            break
        heap[root + at], heap[root + parent] = heap[root + parent], heap[root + at]
        keys[root + at], keys[root + parent] = keys[root + parent], keys[root + at]
        at = parent


@inline
def _sift_down(heap, keys, root, size, bottom):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(keys[root + child + 1], keys[root + child], bottom):
            child += 1
        if not _before(keys[root + child], keys[root + at], bottom):
            break
        heap[root + at], heap[root + child] = heap[root + child], heap[root + at]
        keys[root + at], keys[root + child] = keys[root + child], keys[root + at]
        at = child


@kernel(i64(i64_in, i64_in, f64_2d_in, bool_2d_in, i64_in, i64, i32_2d_out))
def rank_rows(members, bounds, values, present, limits, operation, position_out):
    """Keep at most `limits[s]` rows of each group at each step.

    Parameters
    ----------
    members, bounds
        Rows by group (see `kernels.aggregate.quantile_rows`).
    values, present : float64[n, steps], bool[n, steps]
    limits : int64[steps]
        k; below 1 keeps nothing.
    operation : int64
        TOP, BOTTOM or FIRST (the first k in the order of the rows).
    position_out : int32[n, steps], written
        1 + place in the group's heap, 0 for rows that are not kept.

    Returns
    -------
    int64
        Number of values kept.
    """
    widest = 0
    for g in range(len(bounds) - 1):
        widest = max(widest, bounds[g + 1] - bounds[g])
    most = 0
    for s in range(len(limits)):
        most = max(most, min(limits[s], widest))
    position_out[:, :] = 0
    if most == 0:
        return 0
    # A heap a step, as many steps at once as fit a cache: then rows are read along.
    steps = max(1, min(values.shape[1], _HEAP_ROOM // most))
    heap = np.empty(steps * most, np.int64)
    keys = np.empty(steps * most, np.float64)
    sizes = np.empty(steps, np.int64)
    found = 0
    for g in range(len(bounds) - 1):
        for begin in range(0, values.shape[1], steps):
            end = min(begin + steps, values.shape[1])
            sizes[:] = 0
            for j in range(bounds[g], bounds[g + 1]):
                row = members[j]
                for s in range(begin, end):
                    if not present[row, s]:
                        continue
                    value = values[row, s]
                    root = (s - begin) * most
                    size = sizes[s - begin]
                    if size < limits[s]:
                        heap[root + size] = row
                        keys[root + size] = value
                        # A group's first bottomk sample is pushed by the other order; one element has no order.
                        _sift_up(heap, keys, root, size, operation == BOTTOM)
                        sizes[s - begin] = size + 1
                    elif size > 0 and _is_kept(keys[root], value, operation):
                        heap[root] = row
                        keys[root] = value
                        _sift_down(heap, keys, root, size, operation == BOTTOM)
            for s in range(begin, end):
                for j in range(sizes[s - begin]):
                    position_out[heap[(s - begin) * most + j], s] = j + 1
                found += sizes[s - begin]
    return found
