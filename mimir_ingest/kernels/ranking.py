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


@inline
def _before(a, b, bottom):
    """Whether value `a` stands nearer to the heap's root than `b`: NaN first, then the worst."""
    if math.isnan(a):
        return True
    return a > b if bottom else a < b


@inline
def _sift_up(heap, keys, at, bottom):
    while at > 0:
        parent = (at - 1) // 2
        if not _before(keys[at], keys[parent], bottom):
            break
        heap[at], heap[parent] = heap[parent], heap[at]
        keys[at], keys[parent] = keys[parent], keys[at]
        at = parent


@inline
def _sift_down(heap, keys, size, bottom):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(keys[child + 1], keys[child], bottom):
            child += 1
        if not _before(keys[child], keys[at], bottom):
            break
        heap[at], heap[child] = heap[child], heap[at]
        keys[at], keys[child] = keys[child], keys[at]
        at = child


@inline
def _offer(heap, keys, size, limit, row, value, operation):
    """Offer one row to a heap of at most `limit`; return the heap's new size."""
    if size < limit:
        heap[size] = row
        keys[size] = value
        # A group's first bottomk sample is pushed by the other order; with one element that makes no difference.
        _sift_up(heap, keys, size, operation == BOTTOM)
        return size + 1
    if operation != FIRST:
        worst = keys[0]
        better = worst > value if operation == BOTTOM else worst < value
        if better or (math.isnan(worst) and not math.isnan(value)):
            heap[0] = row
            keys[0] = value
            if limit > 1:
                _sift_down(heap, keys, size, operation == BOTTOM)
    return size


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
    heap = np.empty(len(members), np.int64)
    keys = np.empty(len(members), np.float64)
    position_out[:, :] = 0
    found = 0
    for g in range(len(bounds) - 1):
        for s in range(values.shape[1]):
            limit = min(limits[s], len(members))
            if limit < 1:
                continue
            size = 0
            for j in range(bounds[g], bounds[g + 1]):
                row = members[j]
                if present[row, s]:
                    size = _offer(heap, keys, size, limit, row, values[row, s], operation)
            for j in range(size):
                position_out[heap[j], s] = j + 1
            found += size
    return found
