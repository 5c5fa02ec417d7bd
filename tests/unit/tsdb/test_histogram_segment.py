"""Staged histograms stay few parts, in order, whatever the records' sizes."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from mimir_ingest.tsdb.histogram_segment import StagedHistograms, staged_with
from tests.support.histograms import Row, as_rows, of_rows


@given(st.lists(st.integers(1, 9), max_size=60))
@example([9, 8, 7, 6, 5, 4, 3, 2, 1])
def test_parts_keep_their_order_and_are_no_more_than_their_logarithm(sizes):
    parts, number = (), 0
    for size in sizes:
        rows = [Row(0, 0, False, 0.0, 0.0, float(number + i), 0, (), ()) for i in range(size)]
        times = np.arange(number, number + size)
        parts = staged_with(parts, StagedHistograms(np.full(size, 7, np.int32), times, of_rows(rows)))
        number += size
        assert len(parts) <= number.bit_length()
    assert [row.count for part in parts for row in as_rows(part.values)] == [float(i) for i in range(number)]
    assert [t for part in parts for t in part.timestamps.tolist()] == list(range(number))
