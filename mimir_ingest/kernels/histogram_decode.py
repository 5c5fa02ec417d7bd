"""Prometheus chunks of native histograms to columns, many chunks a call. Format: histogram_encode.py.

Bytes may be hostile: a negative status, `-(8 * chunk + reason)`, is the worst outcome. Every sample has all
buckets of its chunk, but a stale one its sum alone. Twin: tests/reference/histogram_chunk.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import bool_in, i64, i64_in, i64_out, inline_checked, kernel, u8_in, u64_out
from mimir_ingest.kernels.bit_stream import bit_window, take64, take_varbit_int, take_varbit_uint, take_xor
from mimir_ingest.kernels.histogram_columns import histograms_out
from mimir_ingest.kernels.histogram_encode import CUSTOM_SCHEMA
from mimir_ingest.kernels.histogram_layout import mix
from mimir_ingest.kernels.histogram_plan import GAUGE, NO_RESET, RESET, STALE
from mimir_ingest.kernels.words import as_bits, as_float64

TRUNCATED, COUNT_DIFFERS, BAD_LAYOUT, UNKNOWN_SCHEMA, TOO_LARGE = range(1, 6)
"""Reasons in a status."""

_REASONS = {
    TRUNCATED: "the bit stream ends early",
    COUNT_DIFFERS: "the sample count is not the expected one",
    BAD_LAYOUT: "its spans overlap or leave the numbers of buckets",
    UNKNOWN_SCHEMA: "its histogram schema is not supported",
    TOO_LARGE: "its custom bounds, once for each sample, are too many",
}

STATE_WORDS = 5
"""Words of scratch that each bucket of a layout takes."""

MAX_BOUNDS = 1 << 24
"""Custom bounds times samples of one chunk. why: a few bytes may stand for thousands of bounds in each sample."""

SAMPLES, BUCKETS, BOUNDS = range(3)
"""Columns of `measure_histograms`'s counts."""

_U0, _U1, _U64 = np.uint64(0), np.uint64(1), np.uint64(64)
_MIN_INDEX, _MAX_INDEX = -(1 << 31), (1 << 31) - 1


def explain_status(status: int) -> tuple[int, str]:
    """Return (chunk, reason) of a negative status."""
    return (-status) // 8, _REASONS[(-status) % 8]


@inline_checked
def _take_zero_threshold(data, bit):
    """Return (threshold's bits, next bit)."""
    code = bit_window(data, bit) >> np.uint64(56)
    bit += 8
    if code == _U0:
        return _U0, bit
    if code == np.uint64(255):
        return take64(data, bit), bit + 64
    return (code + np.uint64(779)) << np.uint64(52), bit


@inline_checked
def _take_spans(data, bit, end_bit, state, count):
    """Read spans; bucket numbers go to every STATE_WORDS-th word of `state` from bucket `count` on, if it has room.

    Returns (buckets so far, next bit or -reason).
    """
    spans, bit = take_varbit_uint(data, bit)
    if bit > end_bit or spans > np.uint64(end_bit - bit):
        return count, np.int64(-TRUNCATED)
    index = np.int64(0)
    for span in range(np.int64(spans)):
        length, bit = take_varbit_uint(data, bit)
        offset, bit = take_varbit_int(data, bit)
        # A bucket takes one bit of the first sample at least.
        if bit > end_bit or length > np.uint64(end_bit - bit) or count + np.int64(length) > end_bit - bit:
            return count, np.int64(-TRUNCATED)
        if (span > 0 and offset < 0) or not _MIN_INDEX <= offset <= _MAX_INDEX:
            return count, np.int64(-BAD_LAYOUT)
        index += offset
        if index < _MIN_INDEX or index + np.int64(length) - 1 > _MAX_INDEX:
            return count, np.int64(-BAD_LAYOUT)
        for _ in range(np.int64(length)):
            if STATE_WORDS * count < len(state):
                state[STATE_WORDS * count] = np.uint64(index)
            index += 1
            count += 1
    return count, bit


@inline_checked
def _take_layout(data, start, end, state):
    """Read a chunk's layout; positive buckets first.

    Returns (positive buckets, all buckets, threshold's bits, schema, custom bounds, bit of the first bound or -reason).
    """
    end_bit = end * 8
    threshold, bit = _take_zero_threshold(data, (start + 3) * 8)
    schema, bit = take_varbit_int(data, bit)
    zero = np.int64(0)
    if bit > end_bit:
        return zero, zero, threshold, schema, zero, np.int64(-TRUNCATED)
    if schema != CUSTOM_SCHEMA and not -4 <= schema <= 8:
        return zero, zero, threshold, schema, zero, np.int64(-UNKNOWN_SCHEMA)
    positive, bit = _take_spans(data, bit, end_bit, state, np.int64(0))
    if bit < 0:
        return zero, zero, threshold, schema, zero, bit
    count, bit = _take_spans(data, bit, end_bit, state, positive)
    if bit < 0:
        return zero, zero, threshold, schema, zero, bit
    bounds = zero
    if schema == CUSTOM_SCHEMA:
        many, bit = take_varbit_uint(data, bit)
        # A bound takes five bits at least.
        if bit > end_bit or many > np.uint64((end_bit - bit) // 5):
            return zero, zero, threshold, schema, zero, np.int64(-TRUNCATED)
        bounds = np.int64(many)
    return positive, count, threshold, schema, bounds, bit


@kernel(i64(u8_in, i64_in, i64_in, i64_out), boundscheck=True)
def measure_histograms(data, starts, ends, counts_out):
    """Read the sizes of chunks, before memory is taken for them.

    Parameters
    ----------
    data : uint8[...]
    starts, ends : int64[k]
        Chunk j is `data[starts[j]:ends[j]]`.
    counts_out : int64[3k], written
        SAMPLES, BUCKETS (of the layout), BOUNDS (custom ones), a chunk.

    Returns
    -------
    int64
        0, or a negative status.
    """
    state = np.empty(0, np.uint64)
    for chunk in range(len(starts)):
        start, end = starts[chunk], ends[chunk]
        if start < 0 or end > len(data) or start + 3 > end:
            return -(8 * chunk + TRUNCATED)
        samples = np.int64(data[start]) << 8 | np.int64(data[start + 1])
        counts_out[3 * chunk + SAMPLES] = samples
        counts_out[3 * chunk + BUCKETS] = counts_out[3 * chunk + BOUNDS] = 0
        if samples == 0:
            continue
        # A sample takes four bits at least.
        if samples > 2 * (end - start):
            return -(8 * chunk + TRUNCATED)
        _, count, _, _, bounds, bit = _take_layout(data, start, end, state)
        if bit < 0:
            return bit - 8 * chunk
        if bounds * samples > MAX_BOUNDS:
            return -(8 * chunk + TOO_LARGE)
        counts_out[3 * chunk + BUCKETS] = count
        counts_out[3 * chunk + BOUNDS] = bounds
    return 0


@kernel(i64(u8_in, i64_in, i64_in, u64_out, u64_out), boundscheck=True)
def digest_layouts(data, starts, ends, state, digests_out):
    """Write what tells the buckets of chunks apart (uint64[k]), as `histogram_layout.digest_buckets` does.

    Arguments as in `decode_histograms`; returns 0 or a negative status.
    """
    for chunk in range(len(starts)):
        positive, count, _, _, _, bit = _take_layout(data, starts[chunk], ends[chunk], state)
        if bit < 0:
            return bit - 8 * chunk
        digest = np.uint64(1 + positive)
        for bucket in range(count):
            digest = mix(digest, state[STATE_WORDS * bucket])
        digests_out[chunk] = digest if count > 0 else _U0
    return 0


@inline_checked
def _take_bounds(data, bit, end_bit, count, values_out, to):
    """Read custom bounds to `values_out[to:]`; return the next bit or -TRUNCATED."""
    for i in range(count):
        code, bit = take_varbit_uint(data, bit)
        if code == _U0:
            values_out[to + i] = as_float64(take64(data, bit))
            bit += 64
        else:
            values_out[to + i] = np.float64(code - _U1) / 1000.0
        if bit > end_bit:
            return np.int64(-TRUNCATED)
    return bit


@inline_checked
def _take_buckets(data, bit, end_bit, is_float, is_first, positive, count, state):
    """Read all buckets of a sample; `state` keeps their numbers, values and what the encoding needs.

    Words of a bucket: number, value (for integers minus the one before), delta or leading zeros, trailing zeros,
    absolute count as bits of a float64. Returns the next bit or -TRUNCATED.
    """
    running = _U0
    for bucket in range(count):
        slot = STATE_WORDS * bucket
        if bucket == 0 or bucket == positive:
            running = _U0
        if is_float:
            if is_first:
                state[slot + 1] = take64(data, bit)
                state[slot + 2] = state[slot + 3] = _U0
                bit += 64
            else:
                x, bit, state[slot + 2], state[slot + 3] = take_xor(data, bit, state[slot + 2], state[slot + 3])
                state[slot + 1] ^= x
            state[slot + 4] = state[slot + 1]
        else:
            value, bit = take_varbit_int(data, bit)
            if is_first:
                state[slot + 1], state[slot + 2] = np.uint64(value), _U0
            else:
                state[slot + 2] += np.uint64(value)
                state[slot + 1] += state[slot + 2]
            running += state[slot + 1]
            state[slot + 4] = as_bits(np.float64(np.int64(running)))
        if bit > end_bit:
            return np.int64(-TRUNCATED)
    return bit


@inline_checked
def _write_side(state, first, last, index_out, count_out, to):
    """Write the buckets `[first:last]`; return the next position."""
    for bucket in range(first, last):
        slot = STATE_WORDS * bucket
        index_out[to] = np.int32(np.int64(state[slot]))
        count_out[to] = as_float64(state[slot + 4])
        to += 1
    return to


@kernel(i64(u8_in, i64_in, i64_in, bool_in, i64_in, i64, i64, u64_out, i64_out, histograms_out), boundscheck=True)
def decode_histograms(
    data, starts, ends, is_float, sample_offsets, goes_on_hint, later_hint, state, timestamps_out, out
):
    """Expand chunks into columns.

    Parameters
    ----------
    data, starts, ends
        As `measure_histograms` takes them, and accepted them.
    is_float : bool[k]
        The chunk's encoding: float histograms, else integer ones.
    sample_offsets : int64[k + 1]
        Chunk j must hold `sample_offsets[j + 1] - sample_offsets[j]` samples; they go to these rows.
    goes_on_hint : int64
        Reset hint of a counter that is the first of a chunk whose header says that it did not reset.
    later_hint : int64
        Reset hint of counters after the first sample of a chunk. NO_RESET is for readers: they do not trust the
        header's RESET, for the chunk before may be lost, or have been written later.
    state : uint64[STATE_WORDS * most buckets of a layout], written
        Scratch.
    timestamps_out : int64[m], written
    out : histograms, m rows, written
        Buckets and bounds: room for `min(samples * buckets, 8 * bytes)` and `samples * bounds` of each chunk. They go
        to where those of the rows before `sample_offsets[0]` end; row 0's begin must be set.

    Returns
    -------
    int64
        Samples written, or a negative status.
    """
    buckets = out.bucket_offsets[2 * sample_offsets[0]]
    bounds_at = out.custom_offsets[sample_offsets[0]]
    for chunk in range(len(starts)):
        start, end = starts[chunk], ends[chunk]
        first, last = sample_offsets[chunk], sample_offsets[chunk + 1]
        if start < 0 or end > len(data) or start + 3 > end:
            return -(8 * chunk + TRUNCATED)
        if (np.int64(data[start]) << 8 | np.int64(data[start + 1])) != last - first:
            return -(8 * chunk + COUNT_DIFFERS)
        if first == last:
            continue
        end_bit = end * 8
        header = np.int64(data[start + 2]) >> 6
        positive, count, threshold, schema, bounds, bit = _take_layout(data, start, end, state)
        if bit < 0:
            return bit - 8 * chunk
        bit = _take_bounds(data, bit, end_bit, bounds, out.custom_values, bounds_at)
        if bit < 0:
            return bit - 8 * chunk
        own_bounds = bounds_at
        kind = is_float[chunk]
        t = delta = total = number = number_delta = zeros = zeros_delta = _U0
        leading = trailing = number_leading = number_trailing = zeros_leading = zeros_trailing = _U0
        for row in range(first, last):
            step, bit = take_varbit_int(data, bit)
            if row == first:
                t = np.uint64(step)
                if kind:
                    number, zeros = take64(data, bit), take64(data, bit + 64)
                    bit += 128
                else:
                    number, bit = take_varbit_uint(data, bit)
                    zeros, bit = take_varbit_uint(data, bit)
                total = take64(data, bit)
                bit += 64
            else:
                delta += np.uint64(step)
                t += delta
                if kind:
                    x, bit, number_leading, number_trailing = take_xor(data, bit, number_leading, number_trailing)
                    number ^= x
                    x, bit, zeros_leading, zeros_trailing = take_xor(data, bit, zeros_leading, zeros_trailing)
                    zeros ^= x
                else:
                    step, bit = take_varbit_int(data, bit)
                    number_delta += np.uint64(step)
                    number += number_delta
                    step, bit = take_varbit_int(data, bit)
                    zeros_delta += np.uint64(step)
                    zeros += zeros_delta
                x, bit, leading, trailing = take_xor(data, bit, leading, trailing)
                total ^= x
            if bit > end_bit:
                return -(8 * chunk + TRUNCATED)
            stale = total == STALE
            timestamps_out[row] = np.int64(t)
            out.sum[row] = as_float64(total)
            out.is_float[row] = kind
            if stale:
                out.schema[row] = out.reset_hint[row] = 0
                out.zero_threshold[row] = out.zero_count[row] = out.count[row] = 0.0
            else:
                out.schema[row] = schema
                out.zero_threshold[row] = as_float64(threshold)
                out.count[row] = as_float64(number) if kind else np.float64(number)
                out.zero_count[row] = as_float64(zeros) if kind else np.float64(zeros)
                hint = later_hint
                if header == 3:
                    hint = GAUGE
                elif row == first:
                    hint = RESET if header == 2 and later_hint != NO_RESET else goes_on_hint if header == 1 else 0
                out.reset_hint[row] = hint
                bit = _take_buckets(data, bit, end_bit, kind, row == first, positive, count, state)
                if bit < 0:
                    return bit - 8 * chunk
                buckets = _write_side(state, positive, count, out.bucket_index, out.bucket_count, buckets)
            out.bucket_offsets[2 * row + 1] = buckets
            if not stale:
                buckets = _write_side(state, 0, positive, out.bucket_index, out.bucket_count, buckets)
                if row > first:
                    for i in range(bounds):
                        out.custom_values[bounds_at + i] = out.custom_values[own_bounds + i]
                bounds_at += bounds
            out.bucket_offsets[2 * row + 2] = buckets
            out.custom_offsets[row + 1] = bounds_at
    return sample_offsets[len(starts)]
