"""Numbers in the order in which Go's sort leaves them, against the sort that takes any comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.go_sort import go_sort_numbers
from mimir_ingest.promql.operators.go_sort import go_sorted


def orders(numbers: list[float]) -> tuple[list[int], list[int]]:
    """The kernel's and the plain one's."""
    keys, items = np.array(numbers, np.float64), np.empty(len(numbers), np.int64)
    assert go_sort_numbers(keys, items) == len(numbers)
    assert np.array_equal(keys, np.array(numbers)[items], equal_nan=True)
    plain = go_sorted(len(numbers), lambda a, b: math.isnan(numbers[b]) or numbers[a] < numbers[b])
    return items.tolist(), plain.tolist()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, math.inf, -math.inf, math.nan]), max_size=200)
    | st.lists(st.integers(0, 60).map(float), max_size=400)
    | st.lists(st.floats(), max_size=100)
)
def test_numbers_stand_as_the_plain_sort_leaves_them(numbers):
    ours, plain = orders(numbers)
    assert ours == plain


def organ(n: int) -> list[float]:
    return [float(min(i, n - i)) for i in range(n)]


def against_the_pivots(n: int) -> list[float]:
    """Numbers that make each pivot one of the least: an adversary answers comparisons (McIlroy, 1999)."""
    gas = n
    found, solid, candidate = [float(gas)] * n, 0, 0

    def before(a: int, b: int) -> bool:
        nonlocal solid, candidate
        if found[a] == gas and found[b] == gas:
            found[a if a == candidate else b] = float(solid)
            solid += 1
        if found[a] == gas:
            candidate = a
        elif found[b] == gas:
            candidate = b
        return found[a] < found[b]

    go_sorted(n, before)
    return found


@pytest.mark.parametrize(
    "numbers",
    [
        [float(i) for i in range(3000, 0, -1)],
        [1.0] * 3000,
        organ(3000),
        [float(i % 2) for i in range(3000)],
        [*map(float, range(2000)), 3.0, 5.0, 5.0, math.nan, 2.0],
        [math.nan] * 500 + [1.0] * 500 + [math.nan, 0.0] * 100,
        against_the_pivots(2000),
    ],
    ids=["falling", "equal", "organ pipes", "two values", "nearly sorted", "not numbers", "bad pivots"],
)
def test_patterns_stand_as_the_plain_sort_leaves_them(numbers):
    ours, plain = orders(numbers)
    assert ours == plain
