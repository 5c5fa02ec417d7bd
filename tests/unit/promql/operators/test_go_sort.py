"""Sorting as Go does it; which order it gives equal items is judged by a real Prometheus in the integration tests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.promql.operators.go_sort import _Sorting, go_sorted


@given(st.lists(st.integers(0, 40), max_size=300) | st.lists(st.integers(), max_size=300))
def test_items_are_sorted(numbers: list[int]) -> None:
    order = go_sorted(len(numbers), lambda a, b: numbers[a] < numbers[b]).tolist()
    assert sorted(order) == list(range(len(numbers)))
    assert [numbers[i] for i in order] == sorted(numbers)


@given(st.integers(0, 200), st.randoms(use_true_random=False))
def test_no_item_is_lost_by_comparisons_that_contradict_themselves(count: int, random) -> None:
    order = go_sorted(count, lambda a, b: random.random() < 0.5)
    assert sorted(order.tolist()) == list(range(count))


@given(st.lists(st.integers(0, 40), min_size=13, max_size=300))
def test_after_too_many_bad_pivots_a_heap_sorts(numbers: list[int]) -> None:
    sorting = _Sorting(len(numbers), lambda a, b: numbers[a] < numbers[b])
    sorting.sort(0, len(numbers), bad_pivots=0)
    assert [numbers[i] for i in sorting.items] == sorted(numbers)
