"""Whether native histograms are consistent, and the same observations at a lower resolution.

Source: Prometheus model/histogram (`Validate`, `ReduceResolution`). Twin: tests/reference/histogram_check.py.
"""

from __future__ import annotations

import enum

import numpy as np

from mimir_ingest.kernels._jit import f64_out, i8_out, i32_out, i64, i64_out, inline, kernel, u8_out, u64_out
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.histogram_layout import mix
from mimir_ingest.kernels.words import as_bits

CUSTOM_SCHEMA, MIN_SCHEMA, MAX_SCHEMA = -53, -4, 8

EXACT = float(1 << 53)
"""Counts up to this are exact; larger ones may have been rounded on the way here."""


class HistogramFault(enum.IntEnum):
    """What is wrong with a histogram."""

    NONE = 0
    UNKNOWN_SCHEMA = 1
    """Or one of which nothing else could be decoded."""
    CUSTOM_BUCKETS_INVALID = 2
    CUSTOM_BUCKETS_INFINITE = 3
    CUSTOM_BUCKETS_MISMATCH = 4
    CUSTOM_BUCKETS_BESIDES = 5
    """Custom buckets with a zero bucket or negative buckets."""
    BOUNDS_WITHOUT_CUSTOM_BUCKETS = 6
    NEGATIVE_BUCKET_COUNT = 7
    COUNT_MISMATCH = 8
    COUNT_NOT_BIG_ENOUGH = 9


_NONE = np.uint8(HistogramFault.NONE)
_UNKNOWN_SCHEMA = np.uint8(HistogramFault.UNKNOWN_SCHEMA)
_INVALID = np.uint8(HistogramFault.CUSTOM_BUCKETS_INVALID)
_INFINITE = np.uint8(HistogramFault.CUSTOM_BUCKETS_INFINITE)
_MISMATCH = np.uint8(HistogramFault.CUSTOM_BUCKETS_MISMATCH)
_BESIDES = np.uint8(HistogramFault.CUSTOM_BUCKETS_BESIDES)
_BOUNDS = np.uint8(HistogramFault.BOUNDS_WITHOUT_CUSTOM_BUCKETS)
_NEGATIVE = np.uint8(HistogramFault.NEGATIVE_BUCKET_COUNT)
_COUNT = np.uint8(HistogramFault.COUNT_MISMATCH)
_NOT_BIG = np.uint8(HistogramFault.COUNT_NOT_BIG_ENOUGH)


@inline
def _check_custom(h, row):
    first, end = h.custom_offsets[row], h.custom_offsets[row + 1]
    for i in range(first, end):
        if h.custom_values[i] != h.custom_values[i] or (i > first and h.custom_values[i] <= h.custom_values[i - 1]):
            return _INVALID
    if end > first and h.custom_values[end - 1] == np.inf:
        return _INFINITE
    low, middle, high = h.bucket_offsets[2 * row], h.bucket_offsets[2 * row + 1], h.bucket_offsets[2 * row + 2]
    if high > middle and (h.bucket_index[high - 1] > end - first or h.bucket_index[middle] < 0):
        return _MISMATCH
    if middle > low or h.zero_count[row] != 0.0 or h.zero_threshold[row] != 0.0:
        return _BESIDES
    return _NONE


@inline
def _check_counts(h, row):
    total = h.zero_count[row]
    for i in range(h.bucket_offsets[2 * row], h.bucket_offsets[2 * row + 2]):
        if h.bucket_count[i] < 0.0:
            return _NEGATIVE
        total += h.bucket_count[i]
    if h.is_float[row]:
        # Sums of floats may differ by rounding: not compared.
        return _NONE
    difference = total - h.count[row]
    slack = 0.0 if max(total, h.count[row]) <= EXACT else max(total, h.count[row]) * 2.0**-40
    if h.sum[row] != h.sum[row]:
        return _NOT_BIG if difference > slack else _NONE
    return _COUNT if abs(difference) > slack else _NONE


@kernel(i64(histograms_in, u8_out))
def check_histograms(h, faults_out):
    """Write the first fault of each histogram (HistogramFault; uint8[m]). Returns how many have one."""
    faulty = 0
    for row in range(len(faults_out)):
        schema = h.schema[row]
        if schema == CUSTOM_SCHEMA:
            fault = _check_custom(h, row)
        elif MIN_SCHEMA <= schema <= MAX_SCHEMA:
            fault = _BOUNDS if h.custom_offsets[row + 1] > h.custom_offsets[row] else _NONE
        else:
            fault = _UNKNOWN_SCHEMA
        if fault == _NONE:
            fault = _check_counts(h, row)
        faults_out[row] = fault
        faulty += fault != _NONE
    return faulty


@inline
def _halve(index_out, count_out, first, end):
    """Merge neighbouring buckets of `[first:end]` in place; return the new end."""
    to = first
    for i in range(first, end):
        index = ((index_out[i] - 1) >> 1) + 1
        if to > first and index_out[to - 1] == index:
            count_out[to - 1] += count_out[i]
        else:
            index_out[to], count_out[to] = index, count_out[i]
            to += 1
    return to


@kernel(i64(histograms_in, i64, i8_out, i64_out, i32_out, f64_out, u8_out))
def reduce_histograms(h, limit, schema_out, bucket_offsets_out, bucket_index_out, bucket_count_out, refused_out):
    """Halve the resolution of histograms with more than `limit` buckets until they have fewer (sic).

    Parameters
    ----------
    h : histograms, m rows
    limit : int64
    schema_out, bucket_offsets_out, bucket_index_out, bucket_count_out
        Columns like those of `h` and of their sizes, written; histograms within the limit are copied.
    refused_out : uint8[m], written
        1: the histogram cannot be reduced so far; its buckets are left as they were.

    Returns
    -------
    int64
        Histograms that are refused.
    """
    refused = to = 0
    bucket_offsets_out[0] = 0
    for row in range(len(schema_out)):
        low, high = h.bucket_offsets[2 * row], h.bucket_offsets[2 * row + 2]
        schema = np.int64(h.schema[row])
        for i in range(low, high):
            bucket_index_out[to + i - low], bucket_count_out[to + i - low] = h.bucket_index[i], h.bucket_count[i]
        middle, end = to + h.bucket_offsets[2 * row + 1] - low, to + high - low
        refused_out[row] = 0
        if end - to > limit:
            while end - to >= limit and schema > MIN_SCHEMA:
                new_middle = _halve(bucket_index_out, bucket_count_out, to, middle)
                new_end = _halve(bucket_index_out, bucket_count_out, middle, end)
                for i in range(middle, new_end):
                    bucket_index_out[new_middle + i - middle] = bucket_index_out[i]
                    bucket_count_out[new_middle + i - middle] = bucket_count_out[i]
                middle, end = new_middle, new_middle + new_end - middle
                schema -= 1
            if end - to >= limit:
                refused_out[row] = 1
                refused += 1
        schema_out[row] = schema
        bucket_offsets_out[2 * row + 1], bucket_offsets_out[2 * row + 2] = middle, end
        to = end
    return refused


@kernel(i64(histograms_in, u64_out))
def digest_histograms(h, digests_out):
    """Write 64 bits that tell histograms apart (uint64[m]); reset hints and empty buckets do not count. Returns m.

    Stored in checkpoints as a series' last value: never change it.
    """
    for row in range(len(digests_out)):
        state = np.uint64(1 if h.is_float[row] else 2)
        state = mix(state, np.uint64(np.int64(h.schema[row])))
        state = mix(state, as_bits(h.zero_threshold[row]))
        state = mix(state, as_bits(h.zero_count[row]))
        state = mix(state, as_bits(h.count[row]))
        state = mix(state, as_bits(h.sum[row]))
        for side in range(2):
            first, end = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
            filled = 0
            for i in range(first, end):
                filled += h.bucket_count[i] != 0.0
            state = mix(state, np.uint64(filled))
            for i in range(first, end):
                if h.bucket_count[i] != 0.0:
                    state = mix(state, np.uint64(np.int64(h.bucket_index[i])))
                    state = mix(state, as_bits(h.bucket_count[i]))
        for i in range(h.custom_offsets[row], h.custom_offsets[row + 1]):
            state = mix(state, as_bits(h.custom_values[i]))
        digests_out[row] = state
    return len(digests_out)
