"""Instant selection: the kernel and its twin agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.lookback import interpolate_latest, select_latest
from tests.reference import lookback as reference
from tests.support.columns import assert_same, columns, ends, numbers, outputs, series

STALE = float(np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0])


@given(series(st.one_of(numbers, st.just(STALE))), ends(), st.integers(1, 120), st.booleans())
def test_the_newest_sample_within_the_lookback_is_selected_unless_stale(rows, at, lookback_ms, timestamps):
    """Values and timestamps come from the same sample."""
    values, present = outputs(len(rows), len(at))
    found = select_latest(*columns(rows), np.array(at, np.int64), lookback_ms, timestamps, values, present)
    hits = [[reference.latest(samples, end, lookback_ms) for end in at] for samples in rows]
    expected = [[None if h is None else float(h[0]) if timestamps else h[1] for h in row] for row in hits]
    assert_same(values, present, expected)
    assert found == sum(h is not None for row in hits for h in row)


@given(series(), ends(), st.integers(1, 120))
def test_smoothed_values_lie_between_the_samples_around(rows, at, lookback_ms):
    """Without a sample after it, the one before is carried forward."""
    values, present = outputs(len(rows), len(at))
    interpolate_latest(*columns(rows), np.array(at, np.int64), lookback_ms, values, present)
    expected = [[reference.interpolated(samples, end, lookback_ms) for end in at] for samples in rows]
    assert_same(values, present, expected)
