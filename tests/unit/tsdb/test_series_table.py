"""What readers of a series table remember."""

from __future__ import annotations

import numpy as np

from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.support.batches import write_batch


def test_label_sets_that_small_reads_are_told_again_are_still_those_of_the_series():
    head = Head("t")
    rows = [({"__name__": "m", "i": str(i)}, [(1, float(i))]) for i in range(300)]
    for part in (rows[:150], rows[150:]):
        head.append(write_batch(part), offset=0, newest_ms=10, range_ms=1000, limits=SeriesLimits(), window_ms=0)
        table = head.table.view()
        for _ in range(2):
            for i in range(head.table.count - 2):
                assert table.frame(np.array([i], np.int32)).to_dicts() == [rows[i][0]]
                assert table.frame(np.array([i + 2, i], np.int32)).to_dicts() == [rows[i + 2][0], rows[i][0]]
        assert table.frame(np.arange(6, dtype=np.int32)).to_dicts() == [labels for labels, _ in rows[:6]]
        assert table.frame(np.empty(0, np.int32)).n == 0
