"""Native histograms as they are shown and weighed: their buckets with bounds, and their size in samples.

Source: Prometheus 3.14 `util/jsonutil/marshal.go` `MarshalHistogram`, `promql/value.go` `HPoint.size`.
Twin: `tests/reference/native_quantile.py`.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import f64_out, i64, i64_in, i64_out, kernel
from mimir_ingest.kernels.native_columns import CUSTOM, native_t
from mimir_ingest.kernels.native_quantile import bucket_at, bucket_total

_HEADER_BYTES = 168 + 8
"""A histogram without buckets, and its timestamp, in Prometheus's memory on 64 bits."""
_BYTES_A_SAMPLE = 16

OPEN_LEFT, OPEN_RIGHT, OPEN, CLOSED = range(4)
"""Which bounds belong to a bucket: the upper one, the lower one, none, both."""


@kernel(i64(native_t, i64_out))
def weigh_histograms(native, weights_out):
    """Weigh histograms in float samples, by the memory that Prometheus gives them: int64[n]. Returns the sum."""
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
        weights_out[row] = (_HEADER_BYTES + 8 * words) // _BYTES_A_SAMPLE
        total += weights_out[row]
    return total


@kernel(i64(native_t, i64_in, i64_out, i64_out, f64_out, f64_out, f64_out))
def list_buckets(native, rows, offsets_out, kinds_out, lower_out, upper_out, count_out):
    """List the populated buckets of some histograms, by rising bounds.

    Parameters
    ----------
    native : Native
    rows : int64[items]
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
    at = 0
    offsets_out[0] = 0
    for item in range(len(rows)):
        row = rows[item]
        negatives = native.bucket_offsets[2 * row + 1] - native.bucket_offsets[2 * row]
        zero = native.schema[row] != CUSTOM and native.zero_count[row] > 0.0
        for k in range(bucket_total(native, row)):
            lower, upper, here = bucket_at(native, row, k)
            if here == 0.0:
                continue
            with_lower, with_upper = lower < 0.0, upper > 0.0
            if native.schema[row] == CUSTOM:
                with_lower = native.bucket_index[native.bucket_offsets[2 * row + 1] + k] == 0
                with_upper = True
            elif zero and k == negatives:
                with_lower = with_upper = True
            kinds_out[at] = OPEN
            if with_lower:
                kinds_out[at] = CLOSED if with_upper else OPEN_RIGHT
            elif with_upper:
                kinds_out[at] = OPEN_LEFT
            lower_out[at] = lower
            upper_out[at] = upper
            count_out[at] = here
            at += 1
        offsets_out[item + 1] = at
    return at
