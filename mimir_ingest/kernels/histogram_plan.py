"""Which native histograms of a series share a chunk, and what each chunk's header says of counter resets.

A chunk has one kind (integer or float), schema, zero threshold and set of custom bounds, holds counters or gauges, and
has no counter reset inside. After a stale sample only stale ones follow. Buckets that are not listed are empty.
Source: Prometheus tsdb/chunkenc/histogram.go (`appendable`). Twin: tests/reference/histogram_chunk.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline, kernel, u8_in, u8_out
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.words import as_bits

UNKNOWN, RESET, NO_RESET, GAUGE = 0, 1, 2, 3
"""Hints, and headers of chunks; the numbers of model.histograms."""

STALE = np.uint64(0x7FF0000000000002)

GOES_ON = -1
"""What `relation` says of rows that share a chunk."""

DETECT, SAME_BUCKETS, HINTED = 1, 2, 4
"""Modes of `plan_histogram_chunks`: look for counter resets, not only in hints; all rows of a chunk list the same
buckets, so that they are read as they are; rows were read from chunks and their hints stay: a counter of which nothing
is known begins a chunk, and one that is known to go on says so in the header of the chunk that it begins."""


@inline
def is_stale(value):
    """Whether a sum is the staleness marker."""
    return as_bits(value) == STALE


@inline
def _shrinks(h, before, after):
    """Whether a bucket has fewer observations in row `after` than in row `before`."""
    for side in range(2):
        i, end = h.bucket_offsets[2 * before + side], h.bucket_offsets[2 * before + side + 1]
        j, stop = h.bucket_offsets[2 * after + side], h.bucket_offsets[2 * after + side + 1]
        while i < end:
            while j < stop and h.bucket_index[j] < h.bucket_index[i]:
                j += 1
            if j < stop and h.bucket_index[j] == h.bucket_index[i]:
                if h.bucket_count[j] < h.bucket_count[i]:
                    return True
            elif h.bucket_count[i] > 0.0:
                return True
            i += 1
    return False


@inline
def _same_bounds(h, before, after):
    first, last = h.custom_offsets[before], h.custom_offsets[before + 1]
    other = h.custom_offsets[after]
    if h.custom_offsets[after + 1] - other != last - first:
        return False
    while first < last and h.custom_values[first] == h.custom_values[other]:
        first += 1
        other += 1
    return first == last


@inline
def _same_buckets(h, before, after):
    for side in range(2):
        first, last = h.bucket_offsets[2 * before + side], h.bucket_offsets[2 * before + side + 1]
        other = h.bucket_offsets[2 * after + side]
        if h.bucket_offsets[2 * after + side + 1] - other != last - first:
            return False
        different = 0
        for i in range(last - first):
            different |= h.bucket_index[first + i] ^ h.bucket_index[other + i]
        if different != 0:
            return False
    return True


@inline
def own_header(h, row):
    """Return what the sender's hint says of a chunk that begins with a row."""
    hint = h.reset_hint[row]
    return np.int64(hint) if hint in (RESET, GAUGE) else np.int64(UNKNOWN)


@inline
def relation(h, before, after, detect):
    """Return how row `after` follows row `before`: GOES_ON, or the header of the chunk that it begins."""
    if h.is_float[before] != h.is_float[after]:
        return own_header(h, after)
    if is_stale(h.sum[after]):
        return np.int64(GOES_ON)
    gauge = h.reset_hint[after] == GAUGE
    if is_stale(h.sum[before]) or gauge != (h.reset_hint[before] == GAUGE) or h.reset_hint[after] == RESET:
        return own_header(h, after)
    if detect and not gauge and h.count[after] < h.count[before]:
        return np.int64(RESET)
    if h.schema[before] != h.schema[after] or h.zero_threshold[before] != h.zero_threshold[after]:
        return own_header(h, after)
    if not _same_bounds(h, before, after):
        return np.int64(RESET) if detect and not gauge else own_header(h, after)
    if detect and not gauge and (h.zero_count[after] < h.zero_count[before] or _shrinks(h, before, after)):
        return np.int64(RESET)
    return np.int64(GOES_ON)


@kernel(i64(histograms_in, i64_in, i64_in, i64, i64, i64_out, u8_out))
def plan_histogram_chunks(h, offsets, runs, chunk_samples, mode, starts_out, headers_out):
    """Split each series' histograms into chunks.

    Parameters
    ----------
    h : histograms, m rows
        In order of time within a series.
    offsets : int64[n + 1]
        Series i has the rows `offsets[i]:offsets[i + 1]`.
    runs : int64[m], or int64[0]
        A chunk has rows of one run only.
    chunk_samples : int64
        Most rows of a chunk.
    mode : int64
        DETECT | SAME_BUCKETS | HINTED.
    starts_out : int64[m + 1], written
        Chunk j has the rows `starts_out[j]:starts_out[j + 1]`.
    headers_out : uint8[m], written
        UNKNOWN, RESET, NO_RESET or GAUGE, a chunk.

    Returns
    -------
    int64
        Chunks.
    """
    chunks = 0
    detect, hinted = mode & DETECT != 0, mode & HINTED != 0
    for series in range(len(offsets) - 1):
        for row in range(offsets[series], offsets[series + 1]):
            if row == offsets[series] or (len(runs) > 0 and runs[row] != runs[row - 1]):
                header = own_header(h, row)
                if hinted and h.reset_hint[row] == NO_RESET:
                    header = np.int64(NO_RESET)
            else:
                header = relation(h, row - 1, row, detect)
                if header == GOES_ON:
                    unknown = hinted and h.reset_hint[row] == UNKNOWN and not is_stale(h.sum[row])
                    room = row - starts_out[chunks - 1] < chunk_samples and not unknown
                    if room and (mode & SAME_BUCKETS == 0 or _same_buckets(h, row - 1, row)):
                        continue
                    header = np.int64(GAUGE)
                    if h.reset_hint[row] != GAUGE:
                        header = np.int64(NO_RESET) if detect and not unknown else np.int64(UNKNOWN)
            starts_out[chunks] = row
            headers_out[chunks] = header
            chunks += 1
    starts_out[chunks] = offsets[len(offsets) - 1]
    return chunks


@kernel(i64(histograms_in, i64_in, u8_in, u8_out))
def hint_resets(h, starts, headers, hints_out):
    """Write the hint that a reader of chunks gives each row; of a counter's first in a chunk nothing is known.

    The chunk before may be lost, or have been written later.

    Parameters
    ----------
    h : histograms, m rows
    starts, headers : int64[k + 1], uint8[k]
        Chunks, as `plan_histogram_chunks` splits them.
    hints_out : uint8[m], written

    Returns
    -------
    int64
        Chunks.
    """
    for chunk in range(len(headers)):
        header = headers[chunk]
        for row in range(starts[chunk], starts[chunk + 1]):
            if is_stale(h.sum[row]):
                hints_out[row] = UNKNOWN
            elif header == GAUGE:
                hints_out[row] = GAUGE
            else:
                hints_out[row] = NO_RESET if row > starts[chunk] else UNKNOWN
    return len(headers)


@kernel(i64(i64_in, i64_in, i64_in, i64_in, i64_out))
def rank_among(offsets, timestamps, other_offsets, other_timestamps, ranks_out):
    """Count, for each sample, the other samples of its series that are older.

    Parameters
    ----------
    offsets, timestamps : int64[n + 1], int64[m] (ms)
        Ascending within a series.
    other_offsets, other_timestamps : int64[n + 1], int64[k] (ms)
        Other samples of the same series, ascending too.
    ranks_out : int64[m], written
        `2 * (older samples)`, and 1 more if one has the same time.

    Returns
    -------
    int64
        Samples that share their time with another.
    """
    shared = 0
    for series in range(len(offsets) - 1):
        first, end = other_offsets[series], other_offsets[series + 1]
        at = first
        for i in range(offsets[series], offsets[series + 1]):
            while at < end and other_timestamps[at] < timestamps[i]:
                at += 1
            ranks_out[i] = 2 * (at - first)
            if at < end and other_timestamps[at] == timestamps[i]:
                ranks_out[i] += 1
                shared += 1
    return shared
