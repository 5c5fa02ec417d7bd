"""Rows of one label set: the kernels and their twin agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from mimir_ingest.kernels.rows import find_conflict, merge_index, merge_rows
from tests.reference import rows as reference
from tests.support.columns import assert_same, grid, outputs, rows_and_groups


@given(rows_and_groups())
def test_conflicts_are_found_and_rows_without_any_are_merged(case):
    """The earliest step counts; merged rows have the values of whichever row is present."""
    rows, groups, count, steps = case
    ids, (values, present) = np.array(groups), grid(rows, steps)
    conflict = np.full(3, -7)
    found = find_conflict(ids, count, present, conflict)
    wanted = reference.conflict(groups, rows)
    assert bool(found) == (wanted is not None)
    if wanted is not None:
        assert tuple(conflict.tolist()) == wanted
        return
    merged, there = outputs(count, steps)
    merge_rows(ids, values, present, merged, there)
    index, places = np.arange(len(rows) * steps).reshape(len(rows), steps), np.empty((count, steps), np.int64)
    assert merge_index(ids, index, present, places) == np.count_nonzero(there)
    assert ((places >= 0) == there).all()
    assert np.array_equal(values.reshape(-1)[places[there]], merged[there], equal_nan=True)
    expected: list[list[float | None]] = [[None] * steps for _ in range(count)]
    for row, group in zip(rows, groups, strict=True):
        expected[group] = [old if value is None else value for old, value in zip(expected[group], row, strict=True)]
    assert_same(merged, there, expected)
