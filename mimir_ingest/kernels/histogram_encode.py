"""Native histograms to Prometheus chunks, many chunks a call.

One chunk is `uint16 BE count | header byte | bit stream` (bit_stream.py):

    layout     zero threshold: byte 0 (zero), 1 to 254 (a power of two), or 255 and 64 bits
               schema varbit_int; positive spans, negative spans: how many, then length and offset of each
               schema -53: number of custom bounds, then each: a multiple of 0.001 as varbit_uint + 1, else 0 + 64 bits
    sample 0   t varbit_int; count, zero count varbit_uint; sum, 64 bits; buckets varbit_int (each minus the one before)
    sample n   t, count, zero count: deltas of deltas, varbit_int; sum as in XOR chunks; buckets: deltas of deltas

Float histograms have count, zero count, sum and absolute buckets as in XOR chunks (64 bits in sample 0). Positive
buckets come before negative ones. A stale sample ends after its sum.

A chunk has one layout of buckets (histogram_layout.py); those that a sample lacks are written as empty.
Source: Prometheus tsdb/chunkenc/histogram.go, float_histogram.go, v3. Twin: tests/reference/histogram_chunk.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i32_in, i64, i64_in, i64_out, inline, kernel, u8_in, u8_out, u64_out
from mimir_ingest.kernels.bit_stream import end_bits, put_bits, put_varbit_int, put_varbit_uint, put_xor
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.histogram_plan import is_stale
from mimir_ingest.kernels.words import as_bits

MAX_SAMPLES = 0xFFFF
OUT_TOO_SMALL, TOO_MANY_SAMPLES = -1, -2
"""Statuses of `encode_histograms`."""

STATE_WORDS = 3
"""Words of scratch that each bucket of a layout takes."""

NUMBERS = 11
"""Words that `put_row` keeps besides."""

CUSTOM_SCHEMA = -53

_T, _STEP, _COUNT, _ZEROS, _SUM = 0, 1, 2, 5, 8
"""Places in these words; the last three have, beside the value, its delta or leading zeros, and trailing zeros."""

_U0, _U1, _U8, _U64 = (np.uint64(n) for n in (0, 1, 8, 64))
_NO_WINDOW = np.uint64(0xFF)


@inline
def layout_room(buckets, bounds):
    """Bytes that `put_layout` may write, and write ahead."""
    return 64 + 18 * buckets + 10 * bounds


@inline
def row_room(buckets):
    """Bytes that `put_row` may write, and write ahead."""
    return 80 + 10 * buckets


@inline
def _put_zero_threshold(out, at, register, used, threshold):
    bits = as_bits(threshold)
    if threshold == 0.0:
        return put_bits(out, at, register, used, _U0, _U8)
    # A power of two between 2^-243 and 2^10 has no mantissa and is told by its exponent.
    code = np.int64(bits >> np.uint64(52)) - 779
    if bits & np.uint64(0xFFFFFFFFFFFFF) == _U0 and 1 <= code <= 254:
        return put_bits(out, at, register, used, np.uint64(code), _U8)
    at, register, used = put_bits(out, at, register, used, np.uint64(255), _U8)
    return put_bits(out, at, register, used, bits, _U64)


@inline
def _put_spans(out, at, register, used, layout, first, end):
    spans = 0
    for i in range(first, end):
        spans += i == first or layout[i] != layout[i - 1] + 1
    at, register, used = put_varbit_uint(out, at, register, used, np.uint64(spans))
    i = first
    while i < end:
        stop = i + 1
        while stop < end and layout[stop] == layout[stop - 1] + 1:
            stop += 1
        offset = np.int64(layout[i])
        if i > first:
            offset -= np.int64(layout[i - 1]) + 1
        at, register, used = put_varbit_uint(out, at, register, used, np.uint64(stop - i))
        at, register, used = put_varbit_int(out, at, register, used, offset)
        i = stop
    return at, register, used


@inline
def _put_bounds(out, at, register, used, values, first, end):
    at, register, used = put_varbit_uint(out, at, register, used, np.uint64(end - first))
    for i in range(first, end):
        thousandths = values[i] * 1000.0
        whole = False
        rounded = 0.0
        if 0.0 <= thousandths <= 33554430.0:
            rounded = np.floor(thousandths)
            if thousandths - rounded >= 0.5:
                rounded += 1.0
            whole = rounded / 1000.0 == values[i]
        if whole:
            at, register, used = put_varbit_uint(out, at, register, used, np.uint64(np.int64(rounded)) + _U1)
        else:
            at, register, used = put_bits(out, at, register, used, _U0, _U1)
            at, register, used = put_bits(out, at, register, used, as_bits(values[i]), _U64)
    return at, register, used


@inline
def _as_uint64(count):
    """The nearest uint64 of a count that is not negative."""
    if count >= 18446744073709551615.0:
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    if count >= 9223372036854775808.0:
        return np.uint64(np.int64(count - 9223372036854775808.0)) | (_U1 << np.uint64(63))
    return np.uint64(np.int64(count)) if count > 0.0 else _U0


@inline
def _put_integers(h, row, side, layout, begin, end, is_first, state, out, at, register, used):
    """Append one side's buckets as integers; `state` has the last value and its delta of each bucket."""
    i, stop = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
    previous = _U0
    for bucket in range(begin, end):
        count = _U0
        if i < stop and h.bucket_index[i] == layout[bucket]:
            count = _as_uint64(h.bucket_count[i])
            i += 1
        value = count - previous
        previous = count
        slot = 3 * bucket
        if is_first:
            at, register, used = put_varbit_int(out, at, register, used, np.int64(value))
            state[slot + 1] = _U0
        else:
            delta = value - state[slot]
            at, register, used = put_varbit_int(out, at, register, used, np.int64(delta - state[slot + 1]))
            state[slot + 1] = delta
        state[slot] = value
    return at, register, used


@inline
def _put_floats(h, row, side, layout, begin, end, is_first, state, out, at, register, used):
    """Append one side's buckets as floats; `state` has the last bits, leading and trailing zeros of each bucket."""
    i, stop = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
    for bucket in range(begin, end):
        word = _U0
        if i < stop and h.bucket_index[i] == layout[bucket]:
            word = as_bits(h.bucket_count[i])
            i += 1
        slot = 3 * bucket
        if is_first:
            at, register, used = put_bits(out, at, register, used, word, _U64)
            state[slot + 1], state[slot + 2] = _NO_WINDOW, _U0
        else:
            at, register, used, state[slot + 1], state[slot + 2] = put_xor(
                out, at, register, used, word ^ state[slot], state[slot + 1], state[slot + 2]
            )
        state[slot] = word
    return at, register, used


@inline
def _put_first(h, row, t, is_float, out, at, register, used):
    """Append a chunk's first time, counts and sum."""
    at, register, used = put_varbit_int(out, at, register, used, t)
    if is_float:
        at, register, used = put_bits(out, at, register, used, as_bits(h.count[row]), _U64)
        at, register, used = put_bits(out, at, register, used, as_bits(h.zero_count[row]), _U64)
    else:
        at, register, used = put_varbit_uint(out, at, register, used, _as_uint64(h.count[row]))
        at, register, used = put_varbit_uint(out, at, register, used, _as_uint64(h.zero_count[row]))
    return put_bits(out, at, register, used, as_bits(h.sum[row]), _U64)


@inline
def put_layout(h, row, layout, begin, middle, end, out, at, register, used):
    """Append a chunk's layout: the zero bucket, schema and bounds of its first row, and the buckets of all."""
    at, register, used = _put_zero_threshold(out, at, register, used, h.zero_threshold[row])
    at, register, used = put_varbit_int(out, at, register, used, np.int64(h.schema[row]))
    at, register, used = _put_spans(out, at, register, used, layout, middle, end)
    at, register, used = _put_spans(out, at, register, used, layout, begin, middle)
    if h.schema[row] == CUSTOM_SCHEMA:
        first, last = h.custom_offsets[row], h.custom_offsets[row + 1]
        at, register, used = _put_bounds(out, at, register, used, h.custom_values, first, last)
    return at, register, used


@inline
def _put_later(h, row, t, numbers, out, at, register, used):
    """Append the time, counts and sum of a row that is not its chunk's first."""
    step = np.uint64(t) - numbers[_T]
    at, register, used = put_varbit_int(out, at, register, used, np.int64(step - numbers[_STEP]))
    numbers[_STEP] = step
    for which in range(2):
        count = h.count[row] if which == 0 else h.zero_count[row]
        slot = _COUNT + 3 * which
        if h.is_float[row]:
            word = as_bits(count)
            at, register, used, numbers[slot + 1], numbers[slot + 2] = put_xor(
                out, at, register, used, word ^ numbers[slot], numbers[slot + 1], numbers[slot + 2]
            )
        else:
            word = numbers[slot] + numbers[slot + 1] if is_stale(h.sum[row]) else _as_uint64(count)
            delta = word - numbers[slot]
            at, register, used = put_varbit_int(out, at, register, used, np.int64(delta - numbers[slot + 1]))
            numbers[slot + 1] = delta
        numbers[slot] = word
    at, register, used, numbers[_SUM + 1], numbers[_SUM + 2] = put_xor(
        out, at, register, used, as_bits(h.sum[row]) ^ numbers[_SUM], numbers[_SUM + 1], numbers[_SUM + 2]
    )
    return at, register, used


@inline
def put_row(h, row, t, is_first, layout, begin, middle, end, numbers, state, out, at, register, used):
    """Append a row to a chunk; `numbers` and `state` have what the encoding needs of the row before."""
    is_float = h.is_float[row]
    if is_first:
        at, register, used = _put_first(h, row, t, is_float, out, at, register, used)
        numbers[_STEP] = _U0
        for which in range(2):
            count = h.count[row] if which == 0 else h.zero_count[row]
            numbers[_COUNT + 3 * which] = as_bits(count) if is_float else _as_uint64(count)
        for slot in (_COUNT, _ZEROS, _SUM):
            numbers[slot + 1] = _NO_WINDOW if is_float or slot == _SUM else _U0
            numbers[slot + 2] = _U0
    else:
        at, register, used = _put_later(h, row, t, numbers, out, at, register, used)
    numbers[_T], numbers[_SUM] = np.uint64(t), as_bits(h.sum[row])
    if is_stale(h.sum[row]):
        return at, register, used
    for part in range(2):
        # Positive buckets come first.
        low, high = (middle, end) if part == 0 else (begin, middle)
        if is_float:
            at, register, used = _put_floats(
                h, row, 1 - part, layout, low, high, is_first, state, out, at, register, used
            )
        else:
            at, register, used = _put_integers(
                h, row, 1 - part, layout, low, high, is_first, state, out, at, register, used
            )
    return at, register, used


@kernel(i64(histograms_in, i64_in, i64_in, u8_in, i32_in, i64_in, u64_out, u8_out, i64_out))
def encode_histograms(h, timestamps, starts, headers, layout, layout_offsets, state, out, ends_out):
    """Encode histograms as chunks, back to back.

    Parameters
    ----------
    h, timestamps : histograms, int64[m] (ms)
    starts : int64[k + 1]
        Chunk j has the rows `starts[j]:starts[j + 1]`, at least one and at most MAX_SAMPLES, as
        `histogram_plan.plan_histogram_chunks` splits them.
    headers : uint8[k]
        What a chunk says of counter resets (histogram_plan).
    layout, layout_offsets
        As `histogram_layout.layout_histograms` wrote them.
    state : uint64[STATE_WORDS * len(layout)], written
        Scratch.
    out : uint8[...], written
    ends_out : int64[k], written
        Chunk j is `out[ends_out[j - 1]:ends_out[j]]` (from 0 for j = 0).

    Returns
    -------
    int64
        Bytes written, or OUT_TOO_SMALL, or TOO_MANY_SAMPLES.
    """
    at = 0
    numbers = np.empty(NUMBERS, np.uint64)
    for chunk in range(len(starts) - 1):
        first, last = starts[chunk], starts[chunk + 1]
        begin, middle, end = layout_offsets[2 * chunk], layout_offsets[2 * chunk + 1], layout_offsets[2 * chunk + 2]
        bounds = h.custom_offsets[first + 1] - h.custom_offsets[first]
        if last - first > MAX_SAMPLES:
            return TOO_MANY_SAMPLES
        if at + layout_room(end - begin, bounds) > len(out):
            return OUT_TOO_SMALL
        out[at], out[at + 1] = (last - first) >> 8, (last - first) & 0xFF
        header = headers[chunk]
        # RESET is the first bit, NO_RESET the second, GAUGE both.
        out[at + 2] = (0x80 if header == 1 or header == 3 else 0) | (0x40 if header >= 2 else 0)
        at += 3
        register, used = _U0, _U0
        at, register, used = put_layout(h, first, layout, begin, middle, end, out, at, register, used)
        for row in range(first, last):
            if at + row_room(end - begin) > len(out):
                return OUT_TOO_SMALL
            at, register, used = put_row(
                h,
                row,
                timestamps[row],
                row == first,
                layout,
                begin,
                middle,
                end,
                numbers,
                state,
                out,
                at,
                register,
                used,
            )
        at = end_bits(out, at, register, used)
        ends_out[chunk] = at
    return at
