"""Native histograms to Prometheus chunks, many chunks a call.

One chunk is `uint16 BE count | header byte | bit stream` (bit_stream.py):

    layout     zero threshold: byte 0 (zero), 1 to 254 (a power of two), or 255 and 64 bits
               schema varbit_int; positive spans, negative spans: how many, then length and offset of each
               schema -53: number of custom bounds, then each: a multiple of 0.001 as varbit_uint + 1, else 0 + 64 bits
    sample 0   t varbit_int; count, zero count varbit_uint; sum, 64 bits; buckets varbit_int (each minus the one before)
    sample n   t, count, zero count: deltas of deltas, varbit_int; sum as in XOR chunks; buckets: deltas of deltas

Float histograms have count, zero count, sum and absolute buckets as in XOR chunks (64 bits in sample 0). Positive
buckets come before negative ones. A stale sample ends after its sum.

The layout of a chunk is the union of the buckets of its samples; those that a sample lacks are written as empty.
Source: Prometheus tsdb/chunkenc/histogram.go, float_histogram.go, v3. Twin: tests/reference/histogram_chunk.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i32_in, i32_out, i64, i64_in, i64_out, inline, kernel, u8_in, u8_out, u64_out
from mimir_ingest.kernels.bit_stream import end_bits, put_bits, put_varbit_int, put_varbit_uint, put_xor
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.histogram_plan import is_stale
from mimir_ingest.kernels.words import as_bits

MAX_SAMPLES = 0xFFFF
OUT_TOO_SMALL, TOO_MANY_SAMPLES = -1, -2
"""Statuses of `encode_histograms`."""

STATE_WORDS = 3
"""Words of scratch that each bucket of a layout takes."""

CUSTOM_SCHEMA = -53

_U0, _U1, _U8, _U64 = (np.uint64(n) for n in (0, 1, 8, 64))
_NO_WINDOW = np.uint64(0xFF)


@inline
def _merge_into(h, first, end, layout, begin, size, scratch):
    """Unite the buckets `[first:end]` with `layout[begin:begin + size]`; return the new size."""
    at = begin
    missing = False
    for i in range(first, end):
        while at < begin + size and layout[at] < h.bucket_index[i]:
            at += 1
        if at == begin + size or layout[at] != h.bucket_index[i]:
            missing = True
            break
    if not missing:
        return size
    count, at, i = 0, begin, first
    while at < begin + size or i < end:
        if i == end or (at < begin + size and layout[at] < h.bucket_index[i]):
            scratch[count] = layout[at]
            at += 1
        else:
            if at < begin + size and layout[at] == h.bucket_index[i]:
                at += 1
            scratch[count] = h.bucket_index[i]
            i += 1
        count += 1
    for i in range(count):
        layout[begin + i] = scratch[i]
    return count


@kernel(i64(histograms_in, i64_in, i32_out, i32_out, i64_out))
def layout_histograms(h, starts, scratch, layout_out, layout_offsets_out):
    """Work out the buckets of each chunk.

    Parameters
    ----------
    h : histograms
    starts : int64[k + 1]
        Chunk j has the rows `starts[j]:starts[j + 1]`.
    scratch : int32[b], written
        b: buckets of all rows.
    layout_out : int32[b], written
        Bucket numbers, ascending within a side.
    layout_offsets_out : int64[2k + 1], written
        Chunk j has the negative buckets `[2j]:[2j + 1]` of the layout and the positive ones `[2j + 1]:[2j + 2]`.

    Returns
    -------
    int64
        Most buckets of a chunk.
    """
    begin = most = 0
    layout_offsets_out[0] = 0
    for chunk in range(len(starts) - 1):
        before = begin
        for side in range(2):
            size = 0
            for row in range(starts[chunk], starts[chunk + 1]):
                first, end = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
                size = _merge_into(h, first, end, layout_out, begin, size, scratch)
            begin += size
            layout_offsets_out[2 * chunk + side + 1] = begin
        most = max(most, begin - before)
    return most


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
def _put_layout(h, row, layout, begin, middle, end, out, at, register, used):
    """Append a chunk's layout: that of its first row, and the buckets of all."""
    at, register, used = _put_zero_threshold(out, at, register, used, h.zero_threshold[row])
    at, register, used = put_varbit_int(out, at, register, used, np.int64(h.schema[row]))
    at, register, used = _put_spans(out, at, register, used, layout, middle, end)
    at, register, used = _put_spans(out, at, register, used, layout, begin, middle)
    if h.schema[row] == CUSTOM_SCHEMA:
        first, last = h.custom_offsets[row], h.custom_offsets[row + 1]
        at, register, used = _put_bounds(out, at, register, used, h.custom_values, first, last)
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
        As `layout_histograms` wrote them.
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
    for chunk in range(len(starts) - 1):
        first, last = starts[chunk], starts[chunk + 1]
        begin, middle, end = layout_offsets[2 * chunk], layout_offsets[2 * chunk + 1], layout_offsets[2 * chunk + 2]
        bounds = h.custom_offsets[first + 1] - h.custom_offsets[first]
        if last - first > MAX_SAMPLES:
            return TOO_MANY_SAMPLES
        if at + 64 + 18 * (end - begin) + 10 * bounds > len(out):
            return OUT_TOO_SMALL
        out[at], out[at + 1] = (last - first) >> 8, (last - first) & 0xFF
        header = headers[chunk]
        # RESET is the first bit, NO_RESET the second, GAUGE both.
        out[at + 2] = (0x80 if header == 1 or header == 3 else 0) | (0x40 if header >= 2 else 0)
        at += 3
        is_float = h.is_float[first]
        register, used = _U0, _U0
        at, register, used = _put_layout(h, first, layout, begin, middle, end, out, at, register, used)
        t = delta = count = count_delta = zeros = zeros_delta = total = _U0
        leading = count_leading = zeros_leading = _NO_WINDOW
        trailing = count_trailing = zeros_trailing = _U0
        for row in range(first, last):
            if at + 80 + 10 * (end - begin) > len(out):
                return OUT_TOO_SMALL
            stale = is_stale(h.sum[row])
            new_t, new_total = np.uint64(timestamps[row]), as_bits(h.sum[row])
            if is_float:
                new_count, new_zeros = as_bits(h.count[row]), as_bits(h.zero_count[row])
            else:
                new_count, new_zeros = _as_uint64(h.count[row]), _as_uint64(h.zero_count[row])
            if row == first:
                at, register, used = _put_first(h, row, timestamps[row], is_float, out, at, register, used)
            else:
                at, register, used = put_varbit_int(out, at, register, used, np.int64(new_t - t - delta))
                delta = new_t - t
                if is_float:
                    at, register, used, count_leading, count_trailing = put_xor(
                        out, at, register, used, new_count ^ count, count_leading, count_trailing
                    )
                    at, register, used, zeros_leading, zeros_trailing = put_xor(
                        out, at, register, used, new_zeros ^ zeros, zeros_leading, zeros_trailing
                    )
                else:
                    if stale:
                        new_count, new_zeros = count + count_delta, zeros + zeros_delta
                    at, register, used = put_varbit_int(
                        out, at, register, used, np.int64(new_count - count - count_delta)
                    )
                    at, register, used = put_varbit_int(
                        out, at, register, used, np.int64(new_zeros - zeros - zeros_delta)
                    )
                    count_delta, zeros_delta = new_count - count, new_zeros - zeros
                at, register, used, leading, trailing = put_xor(
                    out, at, register, used, new_total ^ total, leading, trailing
                )
            t, count, zeros, total = new_t, new_count, new_zeros, new_total
            if stale:
                continue
            for part in range(2):
                # Positive buckets come first.
                low, high = (middle, end) if part == 0 else (begin, middle)
                if is_float:
                    at, register, used = _put_floats(
                        h, row, 1 - part, layout, low, high, row == first, state, out, at, register, used
                    )
                else:
                    at, register, used = _put_integers(
                        h, row, 1 - part, layout, low, high, row == first, state, out, at, register, used
                    )
        at = end_bits(out, at, register, used)
        ends_out[chunk] = at
    return at
