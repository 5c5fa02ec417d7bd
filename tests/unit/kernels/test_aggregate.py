"""Aggregations of rows by group: the kernels and their twins agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import aggregate
from tests.reference import aggregate as reference
from tests.reference.compensated import mean
from tests.reference.over_time import quantile
from tests.support.columns import assert_same, grid, outputs, rows_and_groups

CASES = {
    "sum": (aggregate.sum_rows, (), reference.total),
    "avg": (aggregate.average_rows, (), mean),
    "min": (aggregate.fold_rows, (aggregate.MIN,), lambda v: reference.extreme(v, smallest=True)),
    "max": (aggregate.fold_rows, (aggregate.MAX,), lambda v: reference.extreme(v, smallest=False)),
    "count": (aggregate.fold_rows, (aggregate.COUNT,), lambda v: float(len(v))),
    "group": (aggregate.fold_rows, (aggregate.GROUP,), lambda v: 1.0),
    "stdvar": (aggregate.variance_rows, (), reference.variance),
}


def _members(rows, groups, group, step):
    return [row[step] for row, g in zip(rows, groups, strict=True) if g == group and row[step] is not None]


@pytest.mark.parametrize("name", CASES)
@given(rows_and_groups())
def test_every_aggregation_is_the_twins(name, case):
    """In the order of the rows, absent where no row of the group is present."""
    rows, groups, count, steps = case
    kernel, arguments, twin = CASES[name]
    values, present = outputs(count, steps)
    found = kernel(np.array(groups), *grid(rows, steps), *arguments, values, present)
    picked = [[_members(rows, groups, g, s) for s in range(steps)] for g in range(count)]
    assert_same(values, present, [[twin(p) if p else None for p in row] for row in picked])
    assert found == np.count_nonzero(present)


@given(rows_and_groups(), st.floats(-0.5, 1.5))
def test_quantiles_of_groups_are_the_twins(case, q):
    """Outside [0, 1] they are infinite."""
    rows, groups, count, steps = case
    members = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(np.array(groups)[members], np.arange(count + 1))
    values, present = outputs(count, steps)
    aggregate.quantile_rows(members, bounds, *grid(rows, steps), np.full(steps, q), values, present)
    picked = [[_members(rows, groups, g, s) for s in range(steps)] for g in range(count)]
    assert_same(values, present, [[quantile(q, p) if p else None for p in row] for row in picked])
