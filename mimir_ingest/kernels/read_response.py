"""Remote read responses from columns: one call for all series of a query.

Labels arrive as *pairs*: each distinct (name, value) encoded once as a protobuf field
`0x0A length {0x0A name, 0x12 value}`, and for each series the numbers of its pairs. So a label set is a few copies.

Layout (prometheus/remote.proto, spec http-api 6.9): QueryResult{1 TimeSeries{1 labels, 2 samples{1 double, 2 ms}}};
ChunkedReadResponse{1 ChunkedSeries{1 labels, 2 chunks{1 min ms, 2 max ms, 3 type, 4 data}}, 2 query index}, framed as
`uvarint length | CRC-32C, big-endian | message`.
Twin: tests/reference/read_response.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_in, i64, i64_in, i64_out, inline, kernel, u8_in, u8_out
from mimir_ingest.kernels.crc32c import crc32c_inline
from mimir_ingest.kernels.varint import uvarint_size, write_uvarint
from mimir_ingest.kernels.words import as_bits, copy_over, store64


@inline
def _write_pairs(pairs, pair_offsets, refs, series, width, out, at):
    """Write the labels of a series; return the position behind them."""
    for i in range(series * width, (series + 1) * width):
        ref = refs[i]
        if ref >= 0:
            size = pair_offsets[ref + 1] - pair_offsets[ref]
            copy_over(pairs, pair_offsets[ref], size, out, at)
            at += size
    return at


@inline
def _pairs_size(pair_offsets, refs, series, width):
    size = 0
    for i in range(series * width, (series + 1) * width):
        if refs[i] >= 0:
            size += pair_offsets[refs[i] + 1] - pair_offsets[refs[i]]
    return size


@inline
def _sample_size(timestamp, bits):
    """Return the size of a Sample's content; proto3 leaves out what is zero, but not -0."""
    size = 9 if bits != np.uint64(0) else 0
    return size + (1 + uvarint_size(np.uint64(timestamp)) if timestamp != 0 else 0)


@kernel(i64(i64_in, i64_in, i64_in, i64_in, f64_in, i64_in, i64_out))
def measure_series(pair_offsets, refs, sample_offsets, timestamps, values, more_offsets, sizes_out):
    """Write the size of each TimeSeries' content; return the size of all of them as fields of a QueryResult.

    Parameters
    ----------
    pair_offsets : int64[p + 1]
        Encoded label pair r takes `pair_offsets[r + 1] - pair_offsets[r]` bytes.
    refs : int64[n * width]
        Pairs of each series, ascending by name, -1 where it lacks one.
    sample_offsets : int64[n + 1]
    timestamps : int64[m]
    values : float64[m]
    more_offsets : int64[n + 1] or int64[0]
        Series i has further fields, `more_offsets[i + 1] - more_offsets[i]` bytes of them.
    sizes_out : int64[n], written
    """
    n = len(sizes_out)
    width = len(refs) // n if n else 0
    total = 0
    for series in range(n):
        size = _pairs_size(pair_offsets, refs, series, width)
        for i in range(sample_offsets[series], sample_offsets[series + 1]):
            size += 2 + _sample_size(timestamps[i], as_bits(values[i]))
        if len(more_offsets) > 0:
            size += more_offsets[series + 1] - more_offsets[series]
        sizes_out[series] = size
        total += 1 + uvarint_size(np.uint64(size)) + size
    return total


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i64_in, f64_in, u8_in, i64_in, i64_in, u8_out), boundscheck=True)
def write_series(pairs, pair_offsets, refs, sample_offsets, timestamps, values, more, more_offsets, sizes, out):
    """Write the series as fields of a QueryResult into uint8[size from `measure_series`]; return the bytes written.

    `more` (uint8[...]) has the further fields that `more_offsets` gives to series.
    """
    n = len(sizes)
    width = len(refs) // n if n else 0
    at = 0
    for series in range(n):
        out[at] = 0x0A
        at = write_uvarint(np.uint64(sizes[series]), out, at + 1)
        at = _write_pairs(pairs, pair_offsets, refs, series, width, out, at)
        for i in range(sample_offsets[series], sample_offsets[series + 1]):
            bits = as_bits(values[i])
            size = _sample_size(timestamps[i], bits)
            if at + 2 + size > len(out):
                raise IndexError
            out[at] = 0x12
            out[at + 1] = size
            at += 2
            if bits != np.uint64(0):
                out[at] = 0x09
                store64(out, at + 1, bits)
                at += 9
            if timestamps[i] != 0:
                out[at] = 0x10
                at = write_uvarint(np.uint64(timestamps[i]), out, at + 1)
        if len(more_offsets) > 0:
            size = more_offsets[series + 1] - more_offsets[series]
            copy_over(more, more_offsets[series], size, out, at)
            at += size
    return at


@inline
def _chunk_size(minimum, maximum, data_size):
    """Return the size of a Chunk's content."""
    size = 2 + 1 + uvarint_size(np.uint64(data_size)) + data_size
    if minimum != 0:
        size += 1 + uvarint_size(np.uint64(minimum))
    if maximum != 0:
        size += 1 + uvarint_size(np.uint64(maximum))
    return size


@inline
def _write_chunk(data, start, end, encoding, minimum, maximum, out, at):
    """Write a Chunk as a field of ChunkedSeries; return the position behind it."""
    out[at] = 0x12
    at = write_uvarint(np.uint64(_chunk_size(minimum, maximum, end - start)), out, at + 1)
    if minimum != 0:
        out[at] = 0x08
        at = write_uvarint(np.uint64(minimum), out, at + 1)
    if maximum != 0:
        out[at] = 0x10
        at = write_uvarint(np.uint64(maximum), out, at + 1)
    out[at] = 0x18
    out[at + 1] = encoding
    out[at + 2] = 0x22
    at = write_uvarint(np.uint64(end - start), out, at + 3)
    copy_over(data, start, end - start, out, at)
    return at + end - start


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i64_in, i64_in, u8_in, i64_in, u8_in, i64, i64, u8_out))
def write_frames(
    pairs, pair_offsets, refs, chunk_offsets, minima, maxima, data, ends, encodings, query_index, frame_bytes, out
):
    """Write frames, one or more a series, or measure them.

    Parameters
    ----------
    pairs, pair_offsets, refs
        Labels, as in `write_series`.
    chunk_offsets : int64[n + 1]
        Series i has the chunks `chunk_offsets[i]:chunk_offsets[i + 1]`, at least one.
    minima, maxima : int64[k]
        First and last timestamp of each chunk (ms).
    data : uint8[...]
        Chunks back to back; chunk j is `data[ends[j - 1]:ends[j]]`.
    ends : int64[k]
    encodings : uint8[k]
        1 XOR, 2 histograms, 3 float histograms.
    query_index : int
    frame_bytes : int
        A frame takes chunks until labels and chunks reach this size, then the series goes on in the next frame.
    out : uint8[size], written
        Empty: measure only.

    Returns
    -------
    int64
        Bytes that the frames take.
    """
    n = len(chunk_offsets) - 1
    width = len(refs) // n if n else 0
    tail = 1 + uvarint_size(np.uint64(query_index)) if query_index != 0 else 0
    at = 0
    for series in range(n):
        labels = _pairs_size(pair_offsets, refs, series, width)
        chunk = chunk_offsets[series]
        while chunk < chunk_offsets[series + 1]:
            size = labels
            following = chunk
            while following < chunk_offsets[series + 1] and (following == chunk or size < frame_bytes):
                start = ends[following - 1] if following > 0 else 0
                content = _chunk_size(minima[following], maxima[following], ends[following] - start)
                size += 1 + uvarint_size(np.uint64(content)) + content
                following += 1
            message = 1 + uvarint_size(np.uint64(size)) + size + tail
            if len(out) == 0:
                at += uvarint_size(np.uint64(message)) + 4 + message
                chunk = following
                continue
            crc_at = write_uvarint(np.uint64(message), out, at)
            at = crc_at + 4
            out[at] = 0x0A
            at = write_uvarint(np.uint64(size), out, at + 1)
            at = _write_pairs(pairs, pair_offsets, refs, series, width, out, at)
            while chunk < following:
                start = ends[chunk - 1] if chunk > 0 else 0
                at = _write_chunk(data, start, ends[chunk], encodings[chunk], minima[chunk], maxima[chunk], out, at)
                chunk += 1
            if tail:
                out[at] = 0x10
                at = write_uvarint(np.uint64(query_index), out, at + 1)
            crc = np.uint32(crc32c_inline(out[crc_at + 4 : at]))
            for i in range(4):
                out[crc_at + i] = np.uint8(crc >> np.uint32(24 - 8 * i) & np.uint32(0xFF))
    return at
