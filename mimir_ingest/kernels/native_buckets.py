"""Native histograms as they are shown and weighed: their buckets with bounds, and their size in samples.

Source: Prometheus 3.14 `util/jsonutil/marshal.go` `MarshalHistogram`, `promql/value.go` `HPoint.size`.
Twin: `tests/reference/native_quantile.py`.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import f64_out, i64, i64_in, i64_out, inline, kernel
from mimir_ingest.kernels.native_bounds import bucket_bound
from mimir_ingest.kernels.native_columns import CUSTOM, native_t

_HEADER_BYTES = 168 + 8
"""A histogram without buckets, and its timestamp, in Prometheus's memory on 64 bits."""
_BYTES_A_SAMPLE = 16

OPEN_LEFT, OPEN_RIGHT, OPEN, CLOSED = range(4)
"""Which bounds belong to a bucket: the upper one, the lower one, none, both."""


@kernel(i64(native_t, i64, i64_out))
def weigh_histograms(native, more_bytes, weights_out):
    """Weigh histograms in float samples, by the memory that Prometheus gives them: int64[n]. Returns the sum.

    `more_bytes` are added to each before it is rounded down.
    """
    total = 0
    for row in range(len(weights_out)):
        spans = 0
        for side in range(2):
            before = 0
            for k in range(native.bucket_offsets[2 * row + side], native.bucket_offsets[2 * row + side + 1]):
                first = k == native.bucket_offsets[2 * row + side]
                spans += 1 if first or native.bucket_index[k] != before + 1 else 0
                before = native.bucket_index[k]
        words = spans + native.bucket_offsets[2 * row + 2] - native.bucket_offsets[2 * row]
        words += native.custom_offsets[row + 1] - native.custom_offsets[row]
        weights_out[row] = (_HEADER_BYTES + more_bytes + 8 * words) // _BYTES_A_SAMPLE
        total += weights_out[row]
    return total


@inline
def _kind(with_lower, with_upper):
    if with_lower:
        return CLOSED if with_upper else OPEN_RIGHT
    return OPEN_LEFT if with_upper else OPEN


@inline
def _bounds(native, row, side, at, whole):
    """Return (lower bound, upper bound, which belong to it) of the bucket at a place of the columns."""
    schema, threshold = native.schema[row], native.zero_threshold[row]
    index = native.bucket_index[at]
    start = native.custom_offsets[row]
    customs = native.custom_offsets[row + 1] - start
    lower = bucket_bound(index - 1, schema, native.custom_values, start, customs)
    upper = bucket_bound(index, schema, native.custom_values, start, customs)
    if schema == CUSTOM:
        return lower, upper, _kind(index == 0, True)
    if side == 0:
        lower, upper = -upper, -lower
    kind = _kind(lower < 0.0, upper > 0.0)
    if not whole:
        if side == 0 and upper < 0.0 and upper > -threshold:
            upper = -threshold
        elif side == 1 and lower > 0.0 and lower < threshold:
            lower = threshold
    return lower, upper, kind


@kernel(i64(native_t, i64_in, i64, i64_out, i64_out, f64_out, f64_out, f64_out))
def list_buckets(native, rows, whole, offsets_out, kinds_out, lower_out, upper_out, count_out):
    """List the populated buckets of some histograms, by rising bounds.

    Parameters
    ----------
    native : Native
    rows : int64[items]
    whole : int64
        1: with the bounds that buckets have by their schema, zero buckets below zero included; 0: a bucket that
        reaches into the zero bucket ends where that begins.
    offsets_out : int64[items + 1], written
        Item i has the buckets `offsets_out[i]:offsets_out[i + 1]`.
    kinds_out : int64[b], written
        OPEN_LEFT, OPEN_RIGHT, OPEN or CLOSED.
    lower_out, upper_out, count_out : float64[b], written
        Room for all buckets of the items, the zero buckets included.

    Returns
    -------
    int64
        Number of buckets.
    """
    size = 0
    offsets_out[0] = 0
    for item in range(len(rows)):
        row = rows[item]
        start, middle = native.bucket_offsets[2 * row], native.bucket_offsets[2 * row + 1]
        for k in range(start, native.bucket_offsets[2 * row + 2] + 1):
            # Negative buckets backwards, the zero bucket, positive buckets.
            side, at = (0, middle - 1 - (k - start)) if k < middle else (1, k - 1)
            if k == middle:
                zero = native.zero_count[row]
                if native.schema[row] == CUSTOM or not (zero > 0.0 or (whole and zero != 0.0)):
                    continue
                lower_out[size], upper_out[size] = -native.zero_threshold[row], native.zero_threshold[row]
                kinds_out[size], count_out[size] = CLOSED, zero
                size += 1
            elif native.bucket_count[at] != 0.0:
                lower_out[size], upper_out[size], kinds_out[size] = _bounds(native, row, side, at, whole)
                count_out[size] = native.bucket_count[at]
                size += 1
        offsets_out[item + 1] = size
    return size
