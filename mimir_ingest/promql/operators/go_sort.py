"""The order in which Go's sort leaves items, equal ones included: a pattern-defeating quicksort.

Go promises nothing about equal items, but what it does with them follows from the comparisons alone; so the same
comparisons are made here. Source: Go 1.26 `sort.Sort` and `slices.SortFunc`, which agree; O. R. L. Peters,
"Pattern-defeating Quicksort" (2021).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_INSERTED = 12
"""Up to so many items are sorted by insertion."""
_NINTHER, _SHUFFLED, _SHIFTED = 50, 8, 50
"""From so many items on: nine are looked at for a pivot, patterns are broken, items out of place are moved."""
_MOST_SWAPS = 12
"""Exchanges among the nine when all stand in falling order."""
_MOVES = 5
_MASK = (1 << 64) - 1


def go_sorted(count: int, before: Callable[[int, int], bool]) -> np.ndarray:
    """Return int64[count]: the items 0 to count - 1 in order; `before(a, b)` may contradict itself."""
    sorting = _Sorting(count, before)
    sorting.sort(0, count, count.bit_length())
    return np.array(sorting.items, np.int64)


class _Sorting:
    """Items while they are sorted. All positions are those in `items`; ranges exclude their end."""

    def __init__(self, count: int, before: Callable[[int, int], bool]) -> None:
        self.items = list(range(count))
        self._before = before

    def _less(self, i: int, j: int) -> bool:
        return self._before(self.items[i], self.items[j])

    def _swap(self, i: int, j: int) -> None:
        self.items[i], self.items[j] = self.items[j], self.items[i]

    def sort(self, a: int, b: int, bad_pivots: int) -> None:
        """Sort a range; after so many bad pivots by a heap."""
        balanced = partitioned = True
        while b - a > _INSERTED:
            if bad_pivots == 0:
                self._heap_sort(a, b)
                return
            if not balanced:
                self._break_patterns(a, b)
                bad_pivots -= 1
            pivot, swaps = self._choose_pivot(a, b)
            if swaps == _MOST_SWAPS:
                self.items[a:b] = self.items[a:b][::-1]
                pivot, swaps = a + b - 1 - pivot, 0
            if balanced and partitioned and swaps == 0 and self._is_nearly_sorted(a, b):
                return
            if a > 0 and not self._less(a - 1, pivot):
                a = self._skip_equal(a, b, pivot)
                continue
            middle, partitioned = self._partition(a, b, pivot)
            left, right = middle - a, b - middle
            balanced = min(left, right) >= (b - a) // 8
            if left < right:
                self.sort(a, middle, bad_pivots)
                a = middle + 1
            else:
                self.sort(middle + 1, b, bad_pivots)
                b = middle
        self._insertion_sort(a, b)

    def _insertion_sort(self, a: int, b: int) -> None:
        for i in range(a + 1, b):
            self._sink(i, a)

    def _sink(self, at: int, least: int) -> None:
        """Move an item towards the front as long as it comes before its neighbour."""
        while at > least and self._less(at, at - 1):
            self._swap(at, at - 1)
            at -= 1

    def _heap_sort(self, a: int, b: int) -> None:
        for root in range((b - a - 1) // 2, -1, -1):
            self._sift_down(a, root, b - a)
        for last in range(b - a - 1, -1, -1):
            self._swap(a, a + last)
            self._sift_down(a, 0, last)

    def _sift_down(self, a: int, root: int, size: int) -> None:
        while (child := 2 * root + 1) < size:
            if child + 1 < size and self._less(a + child, a + child + 1):
                child += 1
            if not self._less(a + root, a + child):
                return
            self._swap(a + root, a + child)
            root = child

    def _break_patterns(self, a: int, b: int) -> None:
        """Exchange three items in the middle with others; which ones follows from the range's length."""
        length = b - a
        if length < _SHUFFLED:
            return
        state, mask = length, (1 << length.bit_length()) - 1
        middle = a + length // 4 * 2
        for at in (middle - 1, middle, middle + 1):
            state ^= state << 13 & _MASK
            state ^= state >> 7
            state ^= state << 17 & _MASK
            other = state & mask
            self._swap(at, a + (other - length if other >= length else other))

    def _choose_pivot(self, a: int, b: int) -> tuple[int, int]:
        """Return a position, and how many of the items looked at stood in falling order."""
        quarter = (b - a) // 4
        places, swaps = [a + quarter, a + 2 * quarter, a + 3 * quarter], 0
        if b - a >= _NINTHER:
            for k, place in enumerate(places):
                places[k], more = self._median(place - 1, place, place + 1)
                swaps += more
        pivot, more = self._median(*places)
        return pivot, swaps + more

    def _median(self, a: int, b: int, c: int) -> tuple[int, int]:
        swaps = 0
        if self._less(b, a):
            a, b, swaps = b, a, swaps + 1
        if self._less(c, b):
            b, c, swaps = c, b, swaps + 1
        if self._less(b, a):
            a, b, swaps = b, a, swaps + 1
        return b, swaps

    def _is_nearly_sorted(self, a: int, b: int) -> bool:
        """Move a few items to their places; whether all are sorted then."""
        i = a + 1
        for _ in range(_MOVES):
            while i < b and not self._less(i, i - 1):
                i += 1
            if i == b:
                return True
            if b - a < _SHIFTED:
                return False
            self._swap(i, i - 1)
            if i - a >= 2:
                self._sink(i - 1, 0)
            if b - i >= 2:
                for j in range(i + 1, b):
                    if not self._less(j, j - 1):
                        break
                    self._swap(j, j - 1)
        return False

    def _partition(self, a: int, b: int, pivot: int) -> tuple[int, bool]:
        """Put what comes before the pivot in front of it; return its place, and whether nothing else had to move."""
        self._swap(a, pivot)
        i, j = self._misplaced(a, a + 1, b - 1)
        untouched = i > j
        while i <= j:
            self._swap(i, j)
            i, j = self._misplaced(a, i + 1, j - 1)
        self._swap(j, a)
        return j, untouched

    def _misplaced(self, pivot: int, i: int, j: int) -> tuple[int, int]:
        """Return the next pair of positions whose items stand on the wrong sides; i > j without one."""
        while i <= j and self._less(i, pivot):
            i += 1
        while i <= j and not self._less(j, pivot):
            j -= 1
        return i, j

    def _skip_equal(self, a: int, b: int, pivot: int) -> int:
        """Put what equals the pivot, the least item, in front; return where the others begin."""
        self._swap(a, pivot)
        i, j = a + 1, b - 1
        while True:
            while i <= j and not self._less(a, i):
                i += 1
            while i <= j and self._less(a, j):
                j -= 1
            if i > j:
                return i
            self._swap(i, j)
            i, j = i + 1, j - 1
