"""Instant selectors: the newest sample of every series at every step.

Source: Prometheus 3.14 `promql/engine.go` `vectorSelectorSingle`: the newest sample at or before the reference time,
if it is younger than the lookback and no staleness marker. Twin: `tests/reference/lookback.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import bool_2d_out, boolean, f64_2d_out, f64_in, i64, i64_in, kernel, types

i64_2d_out = types.Array(types.int64, 2, "C")

_STALE = np.uint64(0x7FF0000000000002)


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64, boolean, f64_2d_out, bool_2d_out))
def select_latest(offsets, timestamps, values, ends, lookback_ms, take_timestamps, values_out, present_out):
    """Select the sample of each series at each reference time.

    Parameters
    ----------
    offsets : int64[n + 1]
        Series i has the samples `offsets[i]:offsets[i + 1]`, timestamps ascending.
    timestamps : int64[m]
        ms.
    values : float64[m]
        Bit-exact: staleness markers are recognised by their bits.
    ends : int64[steps]
        Reference times (ms), not descending; a sample counts in `(end - lookback_ms, end]`.
    lookback_ms : int64
    take_timestamps : bool
        Write the sample's timestamp (ms) in place of its value.
    values_out : float64[n, steps], written
        0 where there is no sample.
    present_out : bool[n, steps], written

    Returns
    -------
    int64
        Number of samples selected.
    """
    bits = values.view(np.uint64)
    found = 0
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        at = start
        for s in range(len(ends)):
            end = ends[s]
            while at < stop and timestamps[at] <= end:
                at += 1
            newest = at - 1
            hit = newest >= start and timestamps[newest] > end - lookback_ms and bits[newest] != _STALE
            present_out[i, s] = hit
            if hit:
                found += 1
                values_out[i, s] = float(timestamps[newest]) if take_timestamps else values[newest]
            else:
                values_out[i, s] = 0.0
    return found


@kernel(i64(i64_in, i64_in, i64_in, i64_2d_out))
def locate_latest(offsets, timestamps, ends, places_out):
    """Find the newest sample of each series at or before each reference time.

    Parameters as in `select_latest`; `places_out` is int64[n, steps], written: its place in `timestamps`, -1 for none.
    Returns the samples found.
    """
    found = 0
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        at = start
        for s in range(len(ends)):
            while at < stop and timestamps[at] <= ends[s]:
                at += 1
            places_out[i, s] = at - 1 if at > start else -1
            found += 1 if at > start else 0
    return found


@kernel(i64(i64_in, i64_in, i64_in, i64_in, i64_2d_out, i64_2d_out))
def locate_windows(offsets, timestamps, ends, window, first_out, last_out):
    """Find the samples of each series in each window.

    Parameters
    ----------
    offsets, timestamps, ends
        As in `select_latest`.
    window : int64[2]
        How far the window reaches back from its end, exclusive, and beyond it (ms).
    first_out, last_out : int64[n, steps], written
        The window holds the samples `first:last`.

    Returns
    -------
    int64
        Windows with samples.
    """
    filled = 0
    for i in range(len(offsets) - 1):
        stop = offsets[i + 1]
        lo = hi = offsets[i]
        for s in range(len(ends)):
            while hi < stop and timestamps[hi] <= ends[s] + window[1]:
                hi += 1
            while lo < hi and timestamps[lo] <= ends[s] - window[0]:
                lo += 1
            first_out[i, s] = lo
            last_out[i, s] = hi
            filled += 1 if hi > lo else 0
    return filled


@kernel(i64(i64_in, i64_in, f64_in, i64_in, i64, f64_2d_out, bool_2d_out))
def interpolate_latest(offsets, timestamps, values, ends, lookback_ms, values_out, present_out):
    """Select as `select_latest`, interpolating between the samples around each reference time (`smoothed`).

    Values lie on the line between the newest sample in `(end - lookback, end]` and the oldest one in
    `(end, end + lookback]`; without the latter the former is carried forward, without the former there is none.
    Samples must hold no staleness markers. Source: `promql/engine.go` `smoothSeries`. Returns the samples selected.
    """
    found = 0
    for i in range(len(offsets) - 1):
        start, stop = offsets[i], offsets[i + 1]
        at = start
        for s in range(len(ends)):
            end = ends[s]
            while at < stop and timestamps[at] <= end:
                at += 1
            before = at - 1
            hit = before >= start and timestamps[before] > end - lookback_ms
            present_out[i, s] = hit
            values_out[i, s] = 0.0
            if not hit:
                continue
            found += 1
            value = values[before]
            if timestamps[before] != end and at < stop and timestamps[at] <= end + lookback_ms:
                elapsed = float(end - timestamps[before])
                value += (values[at] - value) * elapsed / float(timestamps[at] - timestamps[before])
            values_out[i, s] = value
    return found
