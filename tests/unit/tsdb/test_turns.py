"""Rows of a record in turns: what each turn takes at once keeps every series' order."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.tsdb.turns import in_turns

ROWS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), st.integers(0, 2)), max_size=12)


@given(ROWS)
def test_floats_before_histograms_in_every_turn_is_the_order_of_the_rows(rows):
    refs = np.array([ref for ref, _, _ in rows], np.int32)
    floats, histograms = (np.concatenate(([0], np.cumsum([row[k] for row in rows]))).astype(np.int64) for k in (1, 2))
    found = in_turns(refs, floats, histograms)
    order, begins = (np.arange(len(rows)), np.array([0, len(rows)])) if found is None else found
    assert sorted(order.tolist()) == list(range(len(rows)))
    assert (begins[0], begins[-1]) == (0, len(rows))
    taken = []
    for low, high in pairwise(begins.tolist()):
        assert found is None or low < high
        for kind in (1, 2):
            taken += [(row, kind) for row in order[low:high].tolist() if rows[row][kind]]
    for ref in range(3):
        own = [(row, kind) for row, kind in taken if rows[row][0] == ref]
        assert own == sorted(own)


def test_records_of_one_kind_or_of_kinds_that_never_change_back_are_one_turn():
    refs, one, none = np.array([0, 0, 1], np.int32), np.array([0, 1, 2, 3]), np.zeros(4, np.int64)
    assert in_turns(refs, one, none) is None
    assert in_turns(refs, none, one) is None
    assert in_turns(refs, np.array([0, 1, 1, 1]), np.array([0, 0, 1, 2])) is None
