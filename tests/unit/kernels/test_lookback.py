"""Instant selection: the kernel and its twin agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.lookback import interpolate_latest, locate_latest, locate_windows, select_latest
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


@given(series(), ends(), st.integers(1, 120), st.integers(0, 50))
def test_places_of_the_newest_samples_and_of_windows_are_found(rows, at, back_ms, beyond_ms):
    """A window is open on the left; -1 stands for no sample."""
    offsets, timestamps, _ = columns(rows)
    shape = (len(rows), len(at))
    places, first, last = (np.empty(shape, np.int64) for _ in range(3))
    locate_latest(offsets, timestamps, np.array(at, np.int64), places)
    locate_windows(offsets, timestamps, np.array(at, np.int64), np.array([back_ms, beyond_ms]), first, last)
    for i, samples in enumerate(rows):
        for s, end in enumerate(at):
            before = [k for k, sample in enumerate(samples) if sample[0] <= end]
            assert places[i, s] == (offsets[i] + before[-1] if before else -1)
            inside = [k for k, sample in enumerate(samples) if end - back_ms < sample[0] <= end + beyond_ms]
            assert list(range(first[i, s], last[i, s])) == [offsets[i] + k for k in inside]
