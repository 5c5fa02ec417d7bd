"""Rates over sliding windows: the kernels and their twins agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import windows
from tests.reference import windows as reference
from tests.support.columns import assert_same, columns, counters, ends, numbers, outputs, series

MODES = {"delta": 0, "increase": windows.COUNTER, "rate": windows.COUNTER | windows.PER_SECOND}


@pytest.mark.parametrize("name", MODES)
@given(series(st.one_of(counters, numbers)), ends(), st.integers(1, 200))
def test_rates_extrapolate_as_the_twin_does(name, rows, at, range_ms):
    """Counter resets, the 1.1 rule, the zero point and the counts of samples are the same."""
    values, present = outputs(len(rows), len(at))
    counts = np.zeros(2 + 2 * len(rows), np.int64)
    counts[:2] = 100, 10
    window = np.array([range_ms, MODES[name]])
    found = windows.extrapolate_rate(*columns(rows), np.array(at, np.int64), window, values, present, counts)
    flags = {"counter": name != "delta", "per_second": name == "rate"}
    expected = [
        [reference.extrapolated(reference.window(samples, end, range_ms), end, range_ms, **flags) for end in at]
        for samples in rows
    ]
    assert_same(values, present, expected)
    assert found == np.count_nonzero(present)
    measured = [reference.measure(samples, at, range_ms) for samples in rows]
    assert counts[0] == 100 + sum(m[0] for m in measured)
    assert counts[1] == 10 + sum(m[1] for m in measured)
    assert counts[2:].reshape(-1, 2).tolist() == [list(m[2:]) for m in measured]


@pytest.mark.parametrize("smoothed", [False, True], ids=["anchored", "smoothed"])
@pytest.mark.parametrize("name", MODES)
@given(series(st.one_of(counters, st.floats(-1e3, 1e3))), ends(), st.integers(1, 150), st.integers(1, 90))
def test_extended_ranges_take_values_at_their_borders_as_the_twin_does(name, smoothed, rows, at, range_ms, lookback_ms):
    """Anchored and smoothed windows."""
    values, present = outputs(len(rows), len(at))
    mode = MODES[name] | (windows.SMOOTHED if smoothed else windows.ANCHORED)
    window = np.array([range_ms, mode, lookback_ms])
    counts = np.zeros(2 + 2 * len(rows), np.int64)
    windows.extend_rate(*columns(rows), np.array(at, np.int64), window, values, present, counts)
    flags = {"counter": name != "delta", "per_second": name == "rate", "smoothed": smoothed}
    expected = [[reference.extended(s, end, range_ms, lookback_ms, **flags) for end in at] for s in rows]
    assert_same(values, present, expected)


@given(series(), ends(), st.integers(1, 200))
def test_windows_are_measured_as_the_twin_does(rows, at, range_ms):
    """Samples in all windows, new ones, and each series' longest window and its last."""
    offsets, timestamps, _ = columns(rows)
    counts = np.zeros(2 + 2 * len(rows), np.int64)
    filled = windows.measure_windows(offsets, timestamps, np.array(at, np.int64), range_ms, counts)
    measured = [reference.measure(samples, at, range_ms) for samples in rows]
    assert counts[:2].tolist() == [sum(m[0] for m in measured), sum(m[1] for m in measured)]
    assert counts[2:].reshape(-1, 2).tolist() == [list(m[2:]) for m in measured]
    assert filled == sum(bool(reference.window(samples, end, range_ms)) for samples in rows for end in at)


@pytest.mark.parametrize("smoothed", [False, True], ids=["anchored", "smoothed"])
@given(series(st.floats(-1e3, 1e3)), st.integers(-50, 50), st.integers(1, 100))
def test_a_window_alone_is_given_with_samples_at_its_borders(smoothed, rows, start, length):
    """Interpolated, or those of the samples before."""
    end = start + length
    rows = [[s for s in samples if s[0] <= end or smoothed] for samples in rows]
    offsets, timestamps, values = columns(rows)
    size = len(timestamps) + 2 * len(rows)
    out = (np.empty(len(rows) + 1, np.int64), np.empty(size, np.int64), np.empty(size))
    mode = windows.SMOOTHED if smoothed else windows.ANCHORED
    found = windows.extend_samples(offsets, timestamps, values, np.array([start, end, mode]), *out)
    expected = [reference.bordered(samples, start, end, smoothed) for samples in rows]
    assert out[0].tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    got = list(zip(out[1][:found].tolist(), out[2][:found].tolist(), strict=True))
    assert got == [pair for samples in expected for pair in samples]
