"""Grouping of equal label sets: the kernel and its twin agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.grouping import group_columns
from tests.reference import grouping as reference


@given(st.integers(0, 4).flatmap(lambda k: st.lists(st.tuples(*[st.integers(-1, 3)] * k), max_size=60)))
def test_columns_are_grouped_by_first_appearance(columns):
    """Also without any column, and with columns of no rows, which are all equal."""
    k = len(columns[0]) if columns else 2
    codes = np.ascontiguousarray(np.array(columns, np.int32).reshape(len(columns), k).T)
    ids, first = np.empty(len(columns), np.int64), np.empty(len(columns), np.int64)
    table = np.empty(1 << max(1, len(columns)).bit_length(), np.int64)
    groups = group_columns(codes, table, ids, first)
    assert (ids.tolist(), first[:groups].tolist()) == reference.group(columns)
