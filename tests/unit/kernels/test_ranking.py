"""Rankings of rows by group: the kernel and its twin agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import ranking
from tests.reference import ranking as reference
from tests.support.columns import grid, numbers, rows_and_groups

KINDS = {"top": ranking.TOP, "bottom": ranking.BOTTOM, "first": ranking.FIRST}


@pytest.mark.parametrize("kind", KINDS)
@given(rows_and_groups(st.one_of(st.integers(0, 3).map(float), numbers)), st.integers(-1, 5))
def test_the_same_rows_are_kept_in_the_same_heap(kind, case, limit):
    """Equal values, too: which of them stays follows from the heap."""
    rows, groups, count, steps = case
    members = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(np.array(groups)[members], np.arange(count + 1))
    position = np.full((len(rows), steps), 9, np.int32)
    found = ranking.rank_rows(members, bounds, *grid(rows, steps), np.full(steps, limit), KINDS[kind], position)
    expected = np.zeros_like(position)
    for group in range(count):
        for step in range(steps):
            items = [(i, rows[i][step]) for i, g in enumerate(groups) if g == group and rows[i][step] is not None]
            for place, row in enumerate(reference.keep(items, limit, kind), 1):
                expected[row, step] = place
    np.testing.assert_array_equal(position, expected)
    assert found == np.count_nonzero(expected)


def test_limits_differ_from_step_to_step_and_steps_go_in_parts():
    """More heaps than are kept at a time: 300 steps of up to 70 rows."""
    rows, steps = 70, 300
    values = np.random.default_rng(5).integers(0, 40, (rows, steps)).astype(float)
    present = values > 2
    limits = np.arange(steps) % 75 - 1
    position = np.full((rows, steps), 9, np.int32)
    assert steps * 70 > ranking._HEAP_ROOM
    ranking.rank_rows(np.arange(rows), np.array([0, rows]), values, present, limits, ranking.TOP, position)
    expected = np.zeros_like(position)
    for step, limit in enumerate(limits.tolist()):
        items = [(i, values[i, step]) for i in range(rows) if present[i, step]]
        for place, row in enumerate(reference.keep(items, limit, "top"), 1):
            expected[row, step] = place
    np.testing.assert_array_equal(position, expected)
