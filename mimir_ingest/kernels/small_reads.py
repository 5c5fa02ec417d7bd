"""A small read of a head in few calls: chunks of a segment found and decoded at once, staged samples found quickly.

What both find are *pieces* of series, in the order of the calls, for `kernels.head.join_pieces`. They are written to
columns with a fixed room; a read that does not fit is not small. Twin: `tests/reference/small_reads.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_in, f64_out, i32_in, i64, i64_in, i64_out, kernel, u8_in
from mimir_ingest.kernels.addresses import address_of, i32_at, i64_at, u8_at
from mimir_ingest.kernels.xor_chunk import count_xor, decode_xor

NO_ROOM = -(1 << 40)
"""Status: more pieces or samples than fit. Below what a chunk that does not decode gives (`explain_status`)."""

PIECES, SAMPLES, INSIDE, CHUNK_BYTES = range(4)
"""Columns of a tally: pieces and samples so far; samples that certainly lie in the range; bytes of chunks."""

_PLACE = 7
"""Numbers of a `place_of`."""

_BLOCK, _FILTER = 512, 1 << 12
"""why: sixteen staged refs are compared at a time; a table of 4 kB passes over nearly all that are not wanted."""


@kernel(
    i64(i32_in, i32_in, i64_in, i64_in, i64_in, u8_in, i64, i64, i64_out, i64_out, i64_out, i64_out, i64_out, f64_out)
)
def read_chunks(
    refs, chunk_refs, chunk_min, chunk_max, chunk_ends, data, start_ms, end_ms,
    tally, spans, positions_out, offsets_out, ts_out, values_out,
):  # fmt: skip
    """Decode the XOR chunks of the series `refs` that overlap `[start_ms, end_ms)`.

    Parameters
    ----------
    refs : int32[n], ascending
    chunk_refs, chunk_min, chunk_max, chunk_ends, data
        Columns of a segment (`tsdb.segment.Segment`), whose chunks are sorted by series and time.
    tally : int64[4], read and written
        Of the calls so far.
    spans : int64[3 * pieces], written
        Scratch.
    positions_out, offsets_out : int64[pieces], int64[pieces + 1], written from the piece `tally[PIECES]` on
        Piece p is of the series `refs[positions_out[p]]` and has the samples `offsets_out[p]:offsets_out[p + 1]`.
    ts_out, values_out : int64[samples] (ms), float64[samples], written

    Returns
    -------
    int64
        Pieces so far, NO_ROOM, or the negative status of a chunk (`kernels.xor_chunk.explain_status`).
    """
    room, before = len(positions_out), tally[PIECES]
    starts, ends, counts = spans[:room], spans[room : 2 * room], spans[2 * room : 3 * room]
    found, at, count = 0, 0, len(chunk_refs)
    for i in range(len(refs)):
        ref = refs[i]
        low, high = at, count
        while low < high:
            middle = (low + high) // 2
            if chunk_refs[middle] < ref:
                low = middle + 1
            else:
                high = middle
        at = low
        while at < count and chunk_refs[at] == ref:
            if chunk_min[at] < end_ms and chunk_max[at] >= start_ms:
                if before + found == room:
                    return NO_ROOM
                starts[found] = chunk_ends[at - 1] if at > 0 else 0
                ends[found] = chunk_ends[at]
                positions_out[before + found] = i
                # For now how much of it lies inside; the counts are in the chunks.
                offsets_out[before + found + 1] = 1 if chunk_min[at] >= start_ms and chunk_max[at] < end_ms else 0
                found += 1
            at += 1
    if found == 0:
        return before
    status = count_xor(data, starts[:found], counts[:found])
    if status < 0:
        return status
    samples = tally[SAMPLES]
    if samples + status > len(ts_out):
        return NO_ROOM
    offsets_out[before] = samples
    for j in range(found):
        tally[INSIDE] += offsets_out[before + j + 1] * counts[j]
        tally[CHUNK_BYTES] += ends[j] - starts[j]
        samples += counts[j]
        offsets_out[before + j + 1] = samples
    status = decode_xor(
        data, starts[:found], ends[:found], offsets_out[before : before + found + 1], ts_out, values_out
    )
    if status < 0:
        return status
    tally[PIECES], tally[SAMPLES] = before + found, samples
    return before + found


def place_of(
    refs: np.ndarray, min_ts: np.ndarray, max_ts: np.ndarray, ends: np.ndarray, data: np.ndarray
) -> np.ndarray:
    """Return int64[_PLACE]: where the columns of a segment are; they have to be held as long as it is used.

    Raises TypeError for columns that are not contiguous or of another type than `read_chunks` takes.
    """
    times = (address_of(column, np.int64) for column in (min_ts, max_ts, ends))
    return np.array([len(refs), address_of(refs, np.int32), *times, len(data), address_of(data, np.uint8)], np.int64)


@kernel(i64(i32_in, i64_in, i64, i64, i64_out, i64_out, i64_out, i64_out, i64_out, f64_out))
def read_segments(refs, places, start_ms, end_ms, tally, spans, positions_out, offsets_out, ts_out, values_out):
    """Do as `read_chunks` with one segment after the other; `places` has the `place_of` each, back to back."""
    pieces = tally[PIECES]
    for at in range(0, len(places), _PLACE):
        chunks = places[at]
        pieces = read_chunks(
            refs,
            i32_at(places[at + 1], chunks),
            i64_at(places[at + 2], chunks),
            i64_at(places[at + 3], chunks),
            i64_at(places[at + 4], chunks),
            u8_at(places[at + 6], places[at + 5]),
            start_ms, end_ms, tally, spans, positions_out, offsets_out, ts_out, values_out,
        )  # fmt: skip
        if pieces < 0:
            return pieces
    return pieces


@kernel(i64(i32_in, i32_in, i64_in, f64_in, i64, i64, i64_out, i64_out, i64_out, i64_out, f64_out))
def read_staged(
    refs, staged_refs, timestamps, values, start_ms, end_ms, tally, positions_out, offsets_out, ts_out, values_out
):
    """Copy the staged samples of the series `refs` in `[start_ms, end_ms)`, in order, each a piece.

    Parameters as in `read_chunks`; the samples stand in parallel columns. Returns the pieces so far, or NO_ROOM.
    """
    words, words_out = values.view(np.uint64), values_out.view(np.uint64)
    pieces, samples = tally[PIECES], tally[SAMPLES]
    begun = pieces
    lowest, span = refs[0], np.uint32(refs[len(refs) - 1] - refs[0])
    likely = np.zeros(_FILTER, np.uint8)
    for i in range(len(refs)):
        likely[refs[i] & (_FILTER - 1)] = 1
    for block in range(0, len(staged_refs), _BLOCK):
        part = staged_refs[block : block + _BLOCK]
        near = np.uint32(0)
        for j in range(len(part)):
            near += np.uint32(np.uint32(part[j] - lowest) <= span)
        if near == 0:
            continue
        for i in range(block, block + len(part)):
            ref = staged_refs[i]
            if likely[ref & (_FILTER - 1)] == 0 or not start_ms <= timestamps[i] < end_ms:
                continue
            low = 0
            while low < len(refs) and refs[low] != ref:
                low += 1
            if low == len(refs):
                continue
            if pieces == len(positions_out) or samples == len(ts_out):
                return NO_ROOM
            positions_out[pieces] = low
            offsets_out[pieces] = samples
            ts_out[samples], words_out[samples] = timestamps[i], words[i]
            pieces += 1
            samples += 1
            offsets_out[pieces] = samples
    tally[INSIDE] += pieces - begun
    tally[PIECES], tally[SAMPLES] = pieces, samples
    return pieces
