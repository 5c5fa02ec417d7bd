"""Native histograms of deltas to running totals, and the empty histograms in front of a series' first observation.

A total has the coarsest resolution of its deltas, and at most MAX_SPAN buckets from the first to the last of a side, as
OpenTelemetry's SDKs have it. Deltas of another zero bucket or other custom bounds begin a new total, with a hint. Empty
buckets that a delta lists are room in its sender's memory: no total lists them, and none gets coarser for them.
Twin: tests/reference/histogram_totals.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline, kernel
from mimir_ingest.kernels.histogram_check import CUSTOM_SCHEMA, MIN_SCHEMA
from mimir_ingest.kernels.histogram_columns import histograms_in, histograms_out
from mimir_ingest.kernels.histogram_plan import is_stale
from mimir_ingest.kernels.words import as_bits, as_float64

MAX_SPAN = 160
"""Buckets from the first to the last of a side. why: OpenTelemetry's default, so that a total of deltas has the
resolution that the same observations would have had as a cumulative histogram."""

_UNKNOWN, _RESET = np.uint8(0), np.uint8(1)
_NAN = np.uint64(0x7FF8000000000001)


@inline
def _lowered(index, shift):
    """Return the number of a bucket at a resolution that is `shift` coarser."""
    return ((np.int64(index) - 1) >> shift) + 1


@inline
def _span(h, row, side, shift):
    """Return (first, last) filled bucket of a side at a coarser resolution; (1, 0) without any."""
    low, high = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
    while low < high and h.bucket_count[high - 1] == 0:
        high -= 1
    while low < high and h.bucket_count[low] == 0:
        low += 1
    if low == high:
        return np.int64(1), np.int64(0)
    return _lowered(h.bucket_index[low], shift), _lowered(h.bucket_index[high - 1], shift)


@inline
def _fits(a, row_a, shift_a, b, row_b, shift_b):
    """Whether the buckets of both, at these resolutions, span at most MAX_SPAN on each side."""
    for side in range(2):
        first_a, last_a = _span(a, row_a, side, shift_a)
        first_b, last_b = _span(b, row_b, side, shift_b)
        if first_a > last_a:
            first_a, last_a = first_b, last_b
        elif first_b <= last_b:
            first_a, last_a = min(first_a, first_b), max(last_a, last_b)
        if last_a - first_a >= MAX_SPAN:
            return False
    return True


@inline
def _common_schema(a, row_a, b, row_b):
    """Return the finest schema at which the sum of both fits; one below MIN_SCHEMA when none is coarse enough."""
    schema = min(np.int64(a.schema[row_a]), np.int64(b.schema[row_b]))
    while schema >= MIN_SCHEMA and not _fits(a, row_a, a.schema[row_a] - schema, b, row_b, b.schema[row_b] - schema):
        schema -= 1
    return schema


@inline
def _same_layout(a, row_a, b, row_b):
    """Whether two histograms can be added: one kind of schema, zero bucket and custom bounds."""
    if (a.schema[row_a] == CUSTOM_SCHEMA) != (b.schema[row_b] == CUSTOM_SCHEMA):
        return False
    if as_bits(a.zero_threshold[row_a]) != as_bits(b.zero_threshold[row_b]):
        return False
    first_a, first_b = a.custom_offsets[row_a], b.custom_offsets[row_b]
    count = a.custom_offsets[row_a + 1] - first_a
    if b.custom_offsets[row_b + 1] - first_b != count:
        return False
    differing = 0
    for i in range(count):
        differing += as_bits(a.custom_values[first_a + i]) != as_bits(b.custom_values[first_b + i])
    return differing == 0


@inline
def _put_layout(h, row, out, to, schema, hint):
    """Write what is not a count of histogram `to`, like that of `h[row]`."""
    out.schema[to] = schema
    out.reset_hint[to] = hint
    out.is_float[to] = h.is_float[row]
    out.zero_threshold[to] = h.zero_threshold[row]
    at = out.custom_offsets[to]
    for i in range(h.custom_offsets[row], h.custom_offsets[row + 1]):
        out.custom_values[at] = h.custom_values[i]
        at += 1
    out.custom_offsets[to + 1] = at


@inline
def _put_empty(h, row, out, to, schema):
    """Write a histogram of the layout of `h[row]` before any observation."""
    _put_layout(h, row, out, to, schema, _RESET)
    out.zero_count[to] = out.count[to] = out.sum[to] = 0.0
    out.bucket_offsets[2 * to + 1] = out.bucket_offsets[2 * to + 2] = out.bucket_offsets[2 * to]


@inline
def _put_bucket(out, first, at, index, count):
    """Add a bucket behind those in `[first:at]`, unless it is empty; return the new end."""
    if count == 0:
        return at
    if at > first and out.bucket_index[at - 1] == index:
        out.bucket_count[at - 1] += count
        return at
    out.bucket_index[at], out.bucket_count[at] = index, count
    return at + 1


@inline
def _put_as_it_is(h, row, out, to):
    """Write `h[row]` with all buckets that it lists."""
    _put_layout(h, row, out, to, np.int64(h.schema[row]), h.reset_hint[row])
    out.zero_count[to], out.count[to], out.sum[to] = h.zero_count[row], h.count[row], h.sum[row]
    at = out.bucket_offsets[2 * to]
    for side in range(2):
        for i in range(h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]):
            out.bucket_index[at], out.bucket_count[at] = h.bucket_index[i], h.bucket_count[i]
            at += 1
        out.bucket_offsets[2 * to + side + 1] = at


@inline
def _put_copy(h, row, out, to, schema, hint):
    """Write what `h[row]` holds at the resolution `schema`."""
    _put_layout(h, row, out, to, schema, hint)
    out.zero_count[to], out.count[to], out.sum[to] = h.zero_count[row], h.count[row], h.sum[row]
    shift = np.int64(h.schema[row]) - schema
    for side in range(2):
        first = at = out.bucket_offsets[2 * to + side]
        for i in range(h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]):
            index = _lowered(h.bucket_index[i], shift) if shift > 0 else np.int64(h.bucket_index[i])
            at = _put_bucket(out, first, at, index, h.bucket_count[i])
        out.bucket_offsets[2 * to + side + 1] = at


@inline
def _put_sum(a, row_a, b, row_b, out, to, schema):
    """Write the sum of two histograms of one layout at the resolution `schema`."""
    _put_layout(b, row_b, out, to, schema, _UNKNOWN)
    out.is_float[to] = a.is_float[row_a] or b.is_float[row_b]
    out.zero_count[to] = a.zero_count[row_a] + b.zero_count[row_b]
    out.count[to] = a.count[row_a] + b.count[row_b]
    total = a.sum[row_a] + b.sum[row_b]
    out.sum[to] = total if total == total else as_float64(_NAN)
    shift_a, shift_b = np.int64(a.schema[row_a]) - schema, np.int64(b.schema[row_b]) - schema
    for side in range(2):
        first = at = out.bucket_offsets[2 * to + side]
        i, end_a = a.bucket_offsets[2 * row_a + side], a.bucket_offsets[2 * row_a + side + 1]
        j, end_b = b.bucket_offsets[2 * row_b + side], b.bucket_offsets[2 * row_b + side + 1]
        while i < end_a or j < end_b:
            index_a = index_b = np.int64(1 << 62)
            if i < end_a:
                index_a = _lowered(a.bucket_index[i], shift_a) if shift_a > 0 else np.int64(a.bucket_index[i])
            if j < end_b:
                index_b = _lowered(b.bucket_index[j], shift_b) if shift_b > 0 else np.int64(b.bucket_index[j])
            if index_a <= index_b:
                at = _put_bucket(out, first, at, index_a, a.bucket_count[i])
                i += 1
            else:
                at = _put_bucket(out, first, at, index_b, b.bucket_count[j])
                j += 1
        out.bucket_offsets[2 * to + side + 1] = at


@inline
def _put_first(h, row, out, to, hint):
    """Write the total of one delta."""
    schema = np.int64(h.schema[row])
    if schema != CUSTOM_SCHEMA:
        lower = _common_schema(h, row, h, row)
        if lower >= MIN_SCHEMA:
            schema = lower
    _put_copy(h, row, out, to, schema, hint)


@inline
def _add_delta(out, at, h, row, to):
    """Write the sum of the total `out[at]` and the delta `h[row]`."""
    custom = h.schema[row] == CUSTOM_SCHEMA
    schema = np.int64(MIN_SCHEMA - 1)
    if _same_layout(out, at, h, row):
        schema = np.int64(CUSTOM_SCHEMA) if custom else _common_schema(out, at, h, row)
    if schema >= MIN_SCHEMA or schema == CUSTOM_SCHEMA:
        _put_sum(out, at, h, row, out, to, schema)
    else:
        _put_first(h, row, out, to, _RESET)


@kernel(i64(histograms_in, i64_in, i64_in, i64_out, i64, histograms_out))
def fold_histograms(h, rows, slots, newest, first, out):
    """Write the histograms that are stored for those accepted of a record.

    Parameters
    ----------
    h : histograms
        The record's, as they are stored (`Histograms.stored`).
    rows : int64[k]
        Accepted ones in order; -1 - i for the one in front of `h[i]`, where what it counts began.
    slots : int64[k]
        Which total each belongs to; -1 for those that are no deltas.
    newest : int64[s], read and written
        Row of `out` in which the total of each slot stands; -1: there is none.
    first : int64
        Rows of `out` in front of those to write: what deltas came to before.
    out : histograms, first + k rows, written
        With room for MAX_SPAN buckets a side, or as many as the widest of `h` and of the totals has, and the most
        custom bounds, in each.

    Returns
    -------
    int64
        k.
    """
    for i in range(len(rows)):
        to, in_front = first + i, rows[i] < 0
        row = -1 - rows[i] if in_front else rows[i]
        at = newest[slots[i]] if slots[i] >= 0 else np.int64(-1)
        if in_front and at >= 0:
            _put_copy(out, at, out, to, np.int64(out.schema[at]), _UNKNOWN)
        elif in_front:
            _put_empty(h, row, out, to, h.schema[row])
        elif slots[i] < 0 or is_stale(h.sum[row]):
            _put_as_it_is(h, row, out, to)
        else:
            if at >= 0:
                _add_delta(out, at, h, row, to)
            else:
                _put_first(h, row, out, to, _UNKNOWN)
            # A total that is not finite would stay so for ever.
            finite = np.isfinite(out.sum[to]) and np.isfinite(out.count[to])
            newest[slots[i]] = to if finite else -1
    return len(rows)
