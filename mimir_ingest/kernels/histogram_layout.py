"""Which buckets native histograms of one chunk have: those of all of them, so that some are empty in some.

Source: Prometheus tsdb/chunkenc/histogram.go (`expandSpansBothWays`, `recode`).
Twin: tests/reference/histogram_chunk.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_out, i32_in, i32_out, i64, i64_in, i64_out, inline, kernel, u64_out
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.histogram_plan import is_stale


@inline
def _merge_into(h, first, end, layout, begin, size, scratch):
    """Unite the buckets `[first:end]` with `layout[begin:begin + size]`; return the new size."""
    if size == end - first:
        different = 0
        for i in range(size):
            different |= layout[begin + i] ^ h.bucket_index[first + i]
        if different == 0:
            return size
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


@kernel(i64(histograms_in, i64_in, i32_in, i64_in, i64_out, i32_out, f64_out))
def spread_histograms(h, starts, layout, layout_offsets, bucket_offsets_out, bucket_index_out, bucket_count_out):
    """Give each histogram the buckets of its chunk, but not to stale ones.

    Parameters
    ----------
    h : histograms, m rows
    starts, layout, layout_offsets
        As `layout_histograms` takes and wrote them.
    bucket_offsets_out : int64[2m + 1], written
    bucket_index_out, bucket_count_out : int32[...], float64[...], written
        Room for the layout of its chunk for each row.

    Returns
    -------
    int64
        Buckets written.
    """
    to = 0
    bucket_offsets_out[0] = 0
    for chunk in range(len(starts) - 1):
        for row in range(starts[chunk], starts[chunk + 1]):
            for side in range(2):
                i, end = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
                if not is_stale(h.sum[row]):
                    for at in range(layout_offsets[2 * chunk + side], layout_offsets[2 * chunk + side + 1]):
                        filled = i < end and h.bucket_index[i] == layout[at]
                        bucket_index_out[to] = layout[at]
                        bucket_count_out[to] = h.bucket_count[i] if filled else 0.0
                        i += filled
                        to += 1
                bucket_offsets_out[2 * row + side + 1] = to
    return to


@inline
def mix(state, word):
    """Return a digest with one more word."""
    state = (state ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(29))


@kernel(i64(histograms_in, u64_out))
def digest_buckets(h, digests_out):
    """Write what tells the buckets listed by histograms apart (uint64[m]), whatever they count; 0: none. Returns m."""
    for row in range(len(digests_out)):
        middle, end = h.bucket_offsets[2 * row + 1], h.bucket_offsets[2 * row + 2]
        state = np.uint64(1 + end - middle)
        for i in range(middle, end):
            state = mix(state, np.uint64(np.int64(h.bucket_index[i])))
        for i in range(h.bucket_offsets[2 * row], middle):
            state = mix(state, np.uint64(np.int64(h.bucket_index[i])))
        digests_out[row] = state if end > h.bucket_offsets[2 * row] else np.uint64(0)
    return len(digests_out)
