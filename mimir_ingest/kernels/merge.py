"""Merge the samples of equal series that several sources hold."""

from __future__ import annotations

import numba

from mimir_ingest.kernels._jit import f64_in, f64_out, i64, i64_in, i64_out, kernel


@numba.njit(inline="always")
def _earliest(parts, first, last, offsets, ts, at):
    """Return the next sample of a group's parts, the first of equal times; -1 if all are done."""
    best = -1
    for k in range(first, last):
        i = at[k - first]
        if i < offsets[parts[k] + 1] and (best < 0 or ts[i] < ts[best]):
            best = i
    return best


@numba.njit(inline="always")
def _pass(parts, first, last, offsets, ts, at, now):
    """Move every part past the time `now`."""
    for k in range(first, last):
        i = at[k - first]
        if i < offsets[parts[k] + 1] and ts[i] == now:
            at[k - first] = i + 1


@kernel(i64(i64_in, i64_in, i64_in, i64_in, f64_in, i64_out, i64_out, f64_out, i64_out))
def merge_series(group_offsets, parts, offsets, ts, values, at, ts_out, values_out, offsets_out):
    """Merge each group's parts by time; on equal timestamps the earliest part wins.

    Parameters
    ----------
    group_offsets : int64[g + 1]
        Group i has the parts `parts[group_offsets[i]:group_offsets[i + 1]]`.
    parts : int64[p]
        Input series, in order of precedence within a group.
    offsets : int64[n + 1]
        Input series s has the samples `offsets[s]:offsets[s + 1]`, timestamps strictly ascending.
    ts, values : int64[m] (ms), float64[m]
        Input samples.
    at : int64[largest group], written
        Scratch: next sample of each part.
    ts_out, values_out : int64[m], float64[m], written
        Merged samples, groups back to back.
    offsets_out : int64[g + 1], written
        Group i has the samples `offsets_out[i]:offsets_out[i + 1]`.

    Returns
    -------
    int64
        Samples written.

    Notes
    -----
    Twin: tests/reference/merge.py::merge_series. Parts that follow one another in time, the usual case of a block and
    then the head, are copied; otherwise one pass over the parts a sample.
    """
    written = 0
    offsets_out[0] = 0
    for group in range(len(group_offsets) - 1):
        first, last = group_offsets[group], group_offsets[group + 1]
        disjoint = True
        end = -(1 << 62)
        for k in range(first, last):
            lo, hi = offsets[parts[k]], offsets[parts[k] + 1]
            if hi > lo:
                if ts[lo] <= end:
                    disjoint = False
                    break
                end = ts[hi - 1]
        if disjoint:
            for k in range(first, last):
                for i in range(offsets[parts[k]], offsets[parts[k] + 1]):
                    ts_out[written] = ts[i]
                    values_out[written] = values[i]
                    written += 1
        else:
            for k in range(first, last):
                at[k - first] = offsets[parts[k]]
            while True:
                best = _earliest(parts, first, last, offsets, ts, at)
                if best < 0:
                    break
                ts_out[written] = ts[best]
                values_out[written] = values[best]
                written += 1
                _pass(parts, first, last, offsets, ts, at, ts[best])
        offsets_out[group + 1] = written
    return written


@kernel(i64(i64_in, i64_in, i64_in, f64_in, i64_in, i64_out, f64_out))
def place_series(offsets, series, ts, values, at, ts_out, values_out):
    """Copy the samples of some series to places of their own; return the number of samples.

    Parameters
    ----------
    offsets, ts, values
        As `merge_series` takes them.
    series : int64[k]
        Series to copy.
    at : int64[k]
        Where the first sample of each goes.
    ts_out, values_out : int64[], float64[], written
        Have room for them.

    Notes
    -----
    Twin: tests/reference/merge.py::place_series.
    """
    written = 0
    for k in range(len(series)):
        first = offsets[series[k]]
        size = offsets[series[k] + 1] - first
        for i in range(size):
            ts_out[at[k] + i] = ts[first + i]
            values_out[at[k] + i] = values[first + i]
        written += size
    return written


@kernel(i64(i64_in, i64_in, i64_in, i64_in, i64_out, i64_out, i64_out))
def merge_order(group_offsets, parts, offsets, ts, at, rows_out, offsets_out):
    """As `merge_series`, but say which samples stay instead of copying them.

    Parameters
    ----------
    group_offsets, parts, offsets, ts, at
        As `merge_series` takes them.
    rows_out : int64[m], written
        Input samples in the order of the result.
    offsets_out : int64[g + 1], written
        Group i has the rows `offsets_out[i]:offsets_out[i + 1]`.

    Returns
    -------
    int64
        Samples that stay.
    """
    written = 0
    offsets_out[0] = 0
    for group in range(len(group_offsets) - 1):
        first, last = group_offsets[group], group_offsets[group + 1]
        for k in range(first, last):
            at[k - first] = offsets[parts[k]]
        while True:
            best = _earliest(parts, first, last, offsets, ts, at)
            if best < 0:
                break
            rows_out[written] = best
            written += 1
            _pass(parts, first, last, offsets, ts, at, ts[best])
        offsets_out[group + 1] = written
    return written
