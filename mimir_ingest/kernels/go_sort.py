"""The order in which Go's sort leaves numbers, equal ones included.

Source and algorithm: `promql/operators/go_sort.py`, which takes any comparison and is the twin.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import f64_out, i64, i64_out, inline, kernel

_INSERTED, _NINTHER, _SHUFFLED, _SHIFTED, _MOST_SWAPS, _MOVES = 12, 50, 8, 50, 12, 5
_STACK = 128
"""why: of two parts the smaller is sorted first, so that no more ranges wait than a count has bits."""
_U7, _U13, _U17 = np.uint64(7), np.uint64(13), np.uint64(17)


@inline
def _less(keys, i, j):
    return math.isnan(keys[j]) or keys[i] < keys[j]


@inline
def _swap(keys, items, i, j):
    keys[i], keys[j] = keys[j], keys[i]
    items[i], items[j] = items[j], items[i]


@inline
def _sink(keys, items, at, least):
    while at > least and _less(keys, at, at - 1):
        _swap(keys, items, at, at - 1)
        at -= 1


@inline
def _sift_down(keys, items, a, root, size):
    while True:
        child = 2 * root + 1
        if child >= size:
            return
        if child + 1 < size and _less(keys, a + child, a + child + 1):
            child += 1
        if not _less(keys, a + root, a + child):
            return
        _swap(keys, items, a + root, a + child)
        root = child


@inline
def _heap_sort(keys, items, a, b):
    for root in range((b - a - 1) // 2, -1, -1):
        _sift_down(keys, items, a, root, b - a)
    for last in range(b - a - 1, -1, -1):
        _swap(keys, items, a, a + last)
        _sift_down(keys, items, a, 0, last)


@inline
def _bit_length(count):
    bits = 0
    while count > 0:
        count >>= 1
        bits += 1
    return bits


@inline
def _break_patterns(keys, items, a, b):
    length = b - a
    if length < _SHUFFLED:
        return
    state, mask = np.uint64(length), np.uint64((1 << _bit_length(length)) - 1)
    middle = a + length // 4 * 2
    for at in range(middle - 1, middle + 2):
        state ^= state << _U13
        state ^= state >> _U7
        state ^= state << _U17
        other = np.int64(state & mask)
        _swap(keys, items, at, a + (other - length if other >= length else other))


@inline
def _median(keys, a, b, c, swaps):
    """Return (the position of the middle one, how many stood in falling order)."""
    if _less(keys, b, a):
        a, b, swaps = b, a, swaps + 1
    if _less(keys, c, b):
        b, c, swaps = c, b, swaps + 1
    if _less(keys, b, a):
        a, b, swaps = b, a, swaps + 1
    return b, swaps


@inline
def _choose_pivot(keys, a, b):
    quarter = (b - a) // 4
    first, second, third, swaps = a + quarter, a + 2 * quarter, a + 3 * quarter, 0
    if b - a >= _NINTHER:
        first, swaps = _median(keys, first - 1, first, first + 1, swaps)
        second, swaps = _median(keys, second - 1, second, second + 1, swaps)
        third, swaps = _median(keys, third - 1, third, third + 1, swaps)
    return _median(keys, first, second, third, swaps)


@inline
def _is_nearly_sorted(keys, items, a, b):
    i = a + 1
    for _ in range(_MOVES):
        while i < b and not _less(keys, i, i - 1):
            i += 1
        if i == b:
            return True
        if b - a < _SHIFTED:
            return False
        _swap(keys, items, i, i - 1)
        if i - a >= 2:
            _sink(keys, items, i - 1, 0)
        if b - i >= 2:
            for j in range(i + 1, b):
                if not _less(keys, j, j - 1):
                    break
                _swap(keys, items, j, j - 1)
    return False


@inline
def _partition(keys, items, a, b, pivot):
    """Return (the pivot's place, whether nothing else had to move)."""
    _swap(keys, items, a, pivot)
    i, j, untouched = a + 1, b - 1, True
    while True:
        while i <= j and _less(keys, i, a):
            i += 1
        while i <= j and not _less(keys, j, a):
            j -= 1
        if i > j:
            break
        untouched = False
        _swap(keys, items, i, j)
        i, j = i + 1, j - 1
    _swap(keys, items, j, a)
    return j, untouched


@inline
def _skip_equal(keys, items, a, b, pivot):
    _swap(keys, items, a, pivot)
    i, j = a + 1, b - 1
    while True:
        while i <= j and not _less(keys, a, i):
            i += 1
        while i <= j and _less(keys, a, j):
            j -= 1
        if i > j:
            return i
        _swap(keys, items, i, j)
        i, j = i + 1, j - 1


@inline
def _reverse(keys, items, a, b):
    while a < b - 1:
        b -= 1
        _swap(keys, items, a, b)
        a += 1


@kernel(i64(f64_out, i64_out))
def go_sort_numbers(keys, items):
    """Sort numbers as Go's `sort.Sort` does with `b` being NaN, or `a < b`, for its comparison.

    `keys` (float64[n]) is sorted in place; `items` (int64[n], written) is the place that each had. Returns n.
    """
    n = len(keys)
    for i in range(n):
        items[i] = i
    waiting = np.empty((_STACK, 5), np.int64)
    waiting[0] = 0
    waiting[0, 1], waiting[0, 2], waiting[0, 3], waiting[0, 4] = n, _bit_length(n), 1, 1
    depth = 1
    while depth > 0:
        depth -= 1
        a, b, bad_pivots = waiting[depth, 0], waiting[depth, 1], waiting[depth, 2]
        balanced, partitioned = waiting[depth, 3] == 1, waiting[depth, 4] == 1
        while b - a > _INSERTED:
            if bad_pivots == 0:
                _heap_sort(keys, items, a, b)
                a = b
                break
            if not balanced:
                _break_patterns(keys, items, a, b)
                bad_pivots -= 1
            pivot, swaps = _choose_pivot(keys, a, b)
            if swaps == _MOST_SWAPS:
                _reverse(keys, items, a, b)
                pivot, swaps = a + b - 1 - pivot, 0
            if balanced and partitioned and swaps == 0 and _is_nearly_sorted(keys, items, a, b):
                a = b
                break
            if a > 0 and not _less(keys, a - 1, pivot):
                a = _skip_equal(keys, items, a, b, pivot)
                continue
            middle, partitioned = _partition(keys, items, a, b, pivot)
            left, right = middle - a, b - middle
            balanced = min(left, right) >= (b - a) // 8
            # The larger part waits as it stands; the smaller begins afresh.
            row = waiting[depth]
            if left < right:
                row[0], row[1], b = middle + 1, b, middle
            else:
                row[0], row[1], a = a, middle, middle + 1
            row[2], row[3], row[4] = bad_pivots, 1 if balanced else 0, 1 if partitioned else 0
            depth += 1
            balanced = partitioned = True
        for i in range(a + 1, b):
            _sink(keys, items, i, a)
    return n
