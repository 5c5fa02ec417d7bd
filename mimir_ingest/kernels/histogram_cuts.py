"""Where Prometheus's head would cut native histograms into chunks: by size, beside what `histogram_plan` says.

A chunk is cut so that those of its range of two hours are of like size, near TARGET_BYTES; so each row is encoded, and
when one brings new buckets, the chunk is encoded anew, as there. Which rows share a chunk decides which empty buckets
they are read with. Source: Prometheus tsdb/head_append.go (`histogramsAppendPreprocessor`, `computeChunkEndTime`).
Twin: tests/reference/histogram_cuts.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i32_out, i64, i64_in, i64_out, inline, kernel, u8_out, u64_out
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.histogram_encode import NUMBERS, layout_room, put_layout, put_row, row_room
from mimir_ingest.kernels.histogram_plan import GAUGE, GOES_ON, NO_RESET, is_stale, own_header, relation

RANGE_MS = 7_200_000
TARGET_BYTES, MIN_SAMPLES = 1024, 10
OUT_TOO_SMALL = -1
"""Status of `cut_histograms`."""

_HEADER_BYTES = 3
_U0 = np.uint64(0)
_U7, _U3 = np.uint64(7), np.uint64(3)


@inline
def _range_end(t):
    """Return the end of the range that a time lies in, where division is Go's."""
    quotient = t // RANGE_MS
    if t < 0 and quotient * RANGE_MS != t:
        quotient += 1
    return quotient * RANGE_MS + RANGE_MS


@inline
def _predicted_end(start, now, end, size):
    """Return when the chunk should end so that all chunks up to `end` are of like size."""
    ratio = float(TARGET_BYTES) / float(size)
    chunks = float(end - start) / (float(now - start + 1) * ratio)
    if chunks <= 1.0:
        return end
    return np.int64(float(start) + float(end - start) / np.floor(chunks))


@inline
def _unite(h, row, layout, middle, end, united):
    """Write the buckets of a layout and of a row to `united`; return (middle, end) there."""
    to = new_middle = 0
    for side in range(2):
        at, stop = (0, middle) if side == 0 else (middle, end)
        i, last = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
        while at < stop or i < last:
            if i == last or (at < stop and layout[at] < h.bucket_index[i]):
                united[to] = layout[at]
                at += 1
            else:
                united[to] = h.bucket_index[i]
                at += at < stop and layout[at] == h.bucket_index[i]
                i += 1
            to += 1
        if side == 0:
            new_middle = to
    return new_middle, to


@kernel(i64(histograms_in, i64_in, i64_in, i64_in, i32_out, i32_out, u64_out, u8_out, i64_out, u8_out))
def cut_histograms(h, timestamps, offsets, runs, layout, united, state, out, starts_out, headers_out):
    """Split each series' histograms into chunks.

    Parameters
    ----------
    h, timestamps : histograms, int64[m] (ms)
        In order of time within a series.
    offsets : int64[n + 1]
        Series i has the rows `offsets[i]:offsets[i + 1]`.
    runs : int64[m], or int64[0]
        A chunk has rows of one run only.
    layout, united : int32[b], written
        Scratch for the most buckets that a chunk may have.
    state : uint64[STATE_WORDS * b], written
        Scratch.
    out : uint8[...], written
        Scratch for the largest chunk.
    starts_out : int64[m + 1], written
        Chunk j has the rows `starts_out[j]:starts_out[j + 1]`.
    headers_out : uint8[m], written
        UNKNOWN, RESET, NO_RESET or GAUGE, a chunk.

    Returns
    -------
    int64
        Chunks, or OUT_TOO_SMALL.
    """
    chunks = at = first = middle = end = 0
    begun_ms = next_ms = np.int64(0)
    register = used = _U0
    numbers = np.empty(NUMBERS, np.uint64)
    predicted = False
    for series in range(len(offsets) - 1):
        for row in range(offsets[series], offsets[series + 1]):
            t = timestamps[row]
            header, begins = own_header(h, row), True
            if (
                row == offsets[series]
                or (len(runs) > 0 and runs[row] != runs[row - 1])
                or h.is_float[row] != h.is_float[row - 1]
            ):
                predicted = False
            else:
                size = at + np.int64((used + _U7) >> _U3)
                range_end = _range_end(begun_ms) if predicted else next_ms
                if not predicted and size >= TARGET_BYTES // 4:
                    next_ms, predicted = _predicted_end(begun_ms, timestamps[row - 1], next_ms, size), True
                full = (t >= next_ms or size >= 2 * TARGET_BYTES) and (row - first >= MIN_SAMPLES or t >= range_end)
                # A chunk that begins for another reason inherits that an end was predicted, as there.
                predicted = predicted and not full
                header = relation(h, row - 1, row, True)
                begins = full or header != GOES_ON
                if header == GOES_ON:
                    header = np.int64(GAUGE if h.reset_hint[row] == GAUGE else NO_RESET)
            start = row
            if begins:
                starts_out[chunks], headers_out[chunks] = row, header
                chunks += 1
                first, begun_ms, next_ms = row, t, _range_end(t)
                middle = end = 0
            if not is_stale(h.sum[row]):
                new_middle, new_end = _unite(h, row, layout, middle, end, united)
                if new_end != end:
                    for i in range(new_end):
                        layout[i] = united[i]
                    middle, end, start = new_middle, new_end, first
            for again in range(start, row + 1):
                if again == first:
                    at, register, used = _HEADER_BYTES, _U0, _U0
                    if at + layout_room(end, h.custom_offsets[first + 1] - h.custom_offsets[first]) > len(out):
                        return OUT_TOO_SMALL
                    at, register, used = put_layout(h, first, layout, 0, middle, end, out, at, register, used)
                if at + row_room(end) > len(out):
                    return OUT_TOO_SMALL
                at, register, used = put_row(
                    h,
                    again,
                    timestamps[again],
                    again == first,
                    layout,
                    0,
                    middle,
                    end,
                    numbers,
                    state,
                    out,
                    at,
                    register,
                    used,
                )
    starts_out[chunks] = offsets[len(offsets) - 1]
    return chunks
