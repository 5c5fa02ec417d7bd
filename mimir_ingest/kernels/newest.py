"""The newest sample of each of many series, without decoding: what queries of one moment ask for.

Twin: `tests/reference/newest.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import (
    bool_out,
    f64_in,
    f64_out,
    i32_in,
    i64,
    i64_in,
    i64_out,
    kernel,
)


@kernel(
    i64(
        i32_in, i32_in, i64_in, i64_in, i64_in, f64_in, i64, i64,
        bool_out, bool_out, i64_out, f64_out, i64_out, i64_out,
    )
)  # fmt: skip
def newest_of_chunks(
    refs, chunk_refs, chunk_min, chunk_max, chunk_ends, chunk_newest, start_ms, end_ms,
    found, unsure, ts_out, values_out, chunks_out, bytes_out,
):  # fmt: skip
    """Take a segment's newest samples of the series `refs` in `[start_ms, end_ms)`, if newer than those taken before.

    Parameters
    ----------
    refs : int32[n], ascending
    chunk_refs, chunk_min, chunk_max, chunk_ends : int32[c] ascending, int64[c] (ms) twice, int64[c]
        Columns of a segment (`tsdb.segment.Segment`), whose chunks are sorted by series and time.
    chunk_newest : float64[c]
        Value of each chunk's last sample, which is at `chunk_max`.
    found, unsure : bool[n], read and written
        Whether there is a sample; whether a chunk goes on past the range, so that only its samples can tell.
    ts_out, values_out : int64[n] (ms), float64[n], read and written
        The newest samples so far; of equal times the first taken stays.
    chunks_out, bytes_out : int64[n], read and written
        How many chunks overlap the range, and their size.

    Returns
    -------
    int64
        Chunks that overlap the range.
    """
    words, words_out = chunk_newest.view(np.uint64), values_out.view(np.uint64)
    overlapping = at = 0
    count = len(chunk_refs)
    for i in range(len(refs)):
        ref = refs[i]
        step = 1
        while at + step < count and chunk_refs[at + step] < ref:
            step *= 2
        low, high = at, min(at + step, count)
        while low < high:
            middle = (low + high) // 2
            if chunk_refs[middle] < ref:
                low = middle + 1
            else:
                high = middle
        at = low
        while at < count and chunk_refs[at] == ref:
            if chunk_min[at] < end_ms and chunk_max[at] >= start_ms:
                overlapping += 1
                chunks_out[i] += 1
                bytes_out[i] += chunk_ends[at] - (chunk_ends[at - 1] if at > 0 else 0)
                if chunk_max[at] >= end_ms:
                    unsure[i] = True
                elif not found[i] or chunk_max[at] > ts_out[i]:
                    found[i] = True
                    ts_out[i], words_out[i] = chunk_max[at], words[at]
            at += 1
    return overlapping


@kernel(i64(i32_in, i64_in, f64_in, i32_in, i64, i64, bool_out, i64_out, f64_out))
def newest_of_staged(refs, timestamps, values, position_of, start_ms, end_ms, found, ts_out, values_out):
    """Take the staged samples in `[start_ms, end_ms)` of series r with `position_of[r] >= 0` that are newer.

    `position_of` is int32[series]; the other parameters as in `newest_of_chunks`. Returns the samples in the range.
    """
    words, words_out = values.view(np.uint64), values_out.view(np.uint64)
    inside = 0
    for i in range(len(refs)):
        position = position_of[refs[i]]
        if position < 0 or timestamps[i] < start_ms or timestamps[i] >= end_ms:
            continue
        inside += 1
        if not found[position] or timestamps[i] > ts_out[position]:
            found[position] = True
            ts_out[position], words_out[position] = timestamps[i], words[i]
    return inside
