"""Read the series-heavy parts of a Prometheus index; layouts are in `index_entries`. All input may be hostile.

Positions are byte offsets in the file. Failures are `-(8 * item + reason)`, see `explain_status`.

Source: Prometheus tsdb/docs/format/index.md, version 2. Twin: tests/reference/block_index.py.
"""

from __future__ import annotations

import numpy as np
from numba import types

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline_checked, kernel, u8_in
from mimir_ingest.kernels.crc32c import crc32c_inline

i64_2d_out = types.Array(types.int64, 2, "C")

CUT_OFF, BAD_CHECKSUM, BAD_COUNT, NOT_SORTED = 1, 2, 3, 4

_REASONS = {
    CUT_OFF: "it passes the end of its section, or a number in it is too long",
    BAD_CHECKSUM: "its checksum differs",
    BAD_COUNT: "its number of entries contradicts its length",
    NOT_SORTED: "it is not greater than the one before",
}


def explain_status(status: int) -> tuple[int, str]:
    """Return (item, reason) of a negative status."""
    return (-status) // 8, _REASONS[(-status) % 8]


@inline_checked
def _uvarint(data, at, end):
    """Return (uint64, next position), position -1 if it passes `end` or has more than ten bytes."""
    value, shift = np.uint64(0), np.uint64(0)
    while 0 <= at < end and shift < np.uint64(64):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return value, at
        shift += np.uint64(7)
    return value, np.int64(-1)


@inline_checked
def _be32(data, at):
    return (
        (np.int64(data[at]) << 24)
        | (np.int64(data[at + 1]) << 16)
        | (np.int64(data[at + 2]) << 8)
        | np.int64(data[at + 3])
    )


@inline_checked
def _string(data, at, end):
    """Return (start, end) of a length-prefixed string, start -1 if it passes `end`."""
    size, at = _uvarint(data, at, end)
    if at < 0 or size > np.uint64(end - at):
        return np.int64(-1), np.int64(-1)
    return at, at + np.int64(size)


@inline_checked
def _compare(data, start, end, other_start, other_end):
    """Compare two strings: negative, 0 or positive."""
    for i in range(min(end - start, other_end - other_start)):
        difference = np.int64(data[start + i]) - np.int64(data[other_start + i])
        if difference:
            return difference
    return (end - start) - (other_end - other_start)


@kernel(i64(u8_in, i64, i64, i64_out, i64_out), boundscheck=True)
def scan_symbols(data, at, end, starts_out, ends_out):
    """Find `len(starts_out)` symbols in `data[at:end]`, ascending; return the position after the last, or a status."""
    for i in range(len(starts_out)):
        start, at = _string(data, at, end)
        if start < 0:
            return -(8 * i + CUT_OFF)
        if i > 0 and _compare(data, starts_out[i - 1], ends_out[i - 1], start, at) >= 0:
            return -(8 * i + NOT_SORTED)
        starts_out[i], ends_out[i] = start, at
    return at


@kernel(i64(u8_in, i64, i64, i64_2d_out), boundscheck=True)
def scan_postings_offsets(data, at, end, entries_out):
    """Find the entries of a postings offset table in `data[at:end]`, ascending by name, then value.

    Parameters
    ----------
    entries_out : int64[6, n], written
        Rows: name start, name end, value start, value end, offset of the postings list, number of the name (0 for the
        first name, one more for each other).

    Returns
    -------
    int64
        The position after the last entry, or a status.
    """
    for i in range(entries_out.shape[1]):
        keys, at = _uvarint(data, at, end)
        if at < 0:
            return -(8 * i + CUT_OFF)
        if keys != np.uint64(2):
            return -(8 * i + BAD_COUNT)
        name_start, name_end = _string(data, at, end)
        if name_start < 0:
            return -(8 * i + CUT_OFF)
        value_start, value_end = _string(data, name_end, end)
        if value_start < 0:
            return -(8 * i + CUT_OFF)
        offset, at = _uvarint(data, value_end, end)
        if at < 0 or offset > np.uint64(len(data)):
            return -(8 * i + CUT_OFF)
        number = np.int64(0)
        if i > 0:
            order = _compare(data, entries_out[0, i - 1], entries_out[1, i - 1], name_start, name_end)
            number = entries_out[5, i - 1] + (1 if order else 0)
            if order == 0:
                order = _compare(data, entries_out[2, i - 1], entries_out[3, i - 1], value_start, value_end)
            if order >= 0:
                return -(8 * i + NOT_SORTED)
        entries_out[0, i], entries_out[1, i] = name_start, name_end
        entries_out[2, i], entries_out[3, i] = value_start, value_end
        entries_out[4, i], entries_out[5, i] = np.int64(offset), number
    return at


@kernel(i64(u8_in, i64_in, i64, i64_out), boundscheck=True)
def count_postings(data, lists, end, counts_out):
    """Read the entry counts of postings lists at `lists` (int64[k]), which end by `end`; return the sum or a status."""
    total = 0
    for i in range(len(lists)):
        at = lists[i]
        if at < 0 or at + 12 > end or end > len(data):
            return -(8 * i + CUT_OFF)
        size, count = _be32(data, at), _be32(data, at + 4)
        if size != 4 + 4 * count:
            return -(8 * i + BAD_COUNT)
        if at + 4 + size + 4 > end:
            return -(8 * i + CUT_OFF)
        counts_out[i] = count
        total += count
    return total


@kernel(i64(u8_in, i64_in, i64_in, i64_out), boundscheck=True)
def read_postings(data, lists, offsets, refs_out):
    """Read postings lists that `count_postings` has accepted into `refs_out[offsets[i]:offsets[i + 1]]`.

    Return the number of entries, or a status: a wrong checksum, or entries that do not ascend.
    """
    for i in range(len(lists)):
        at = lists[i] + 8
        count = offsets[i + 1] - offsets[i]
        end = at + 4 * count
        if np.int64(crc32c_inline(data[at - 4 : end])) != _be32(data, end):
            return -(8 * i + BAD_CHECKSUM)
        before = np.int64(-1)
        for j in range(offsets[i], offsets[i + 1]):
            ref = _be32(data, at)
            if ref <= before:
                return -(8 * i + NOT_SORTED)
            refs_out[j] = ref
            before = ref
            at += 4
    return offsets[len(lists)]


@kernel(i64(u8_in, i64_in, i64, i64_out, i64_out), boundscheck=True)
def measure_series(data, refs, end, label_counts_out, chunk_counts_out):
    """Check the series entries at byte offsets `16 * refs` (int64[n]) that lie before `end`, and count their parts.

    Return n or a status; `read_series` may be called only after success.
    """
    for i in range(len(refs)):
        size, at = _uvarint(data, refs[i] * 16, end)
        if at < 0 or size > np.uint64(end - at) or at + np.int64(size) + 4 > end:
            return -(8 * i + CUT_OFF)
        stop = at + np.int64(size)
        if np.int64(crc32c_inline(data[at:stop])) != _be32(data, stop):
            return -(8 * i + BAD_CHECKSUM)
        labels, at = _uvarint(data, at, stop)
        if at < 0 or labels > size:
            return -(8 * i + CUT_OFF)
        for _ in range(2 * np.int64(labels)):
            _, at = _uvarint(data, at, stop)
            if at < 0:
                return -(8 * i + CUT_OFF)
        chunks, at = _uvarint(data, at, stop)
        if at < 0 or chunks > size:
            return -(8 * i + CUT_OFF)
        for _ in range(3 * np.int64(chunks)):
            _, at = _uvarint(data, at, stop)
            if at < 0:
                return -(8 * i + CUT_OFF)
        if at != stop:
            return -(8 * i + BAD_COUNT)
        label_counts_out[i], chunk_counts_out[i] = np.int64(labels), np.int64(chunks)
    return np.int64(len(refs))


@inline_checked
def _unzigzag(value):
    return np.int64((value >> np.uint64(1)) ^ (np.uint64(0) - (value & np.uint64(1))))


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i64_2d_out, i64_2d_out), boundscheck=True)
def read_series(data, refs, label_offsets, chunk_offsets, labels_out, chunks_out):
    """Read series entries that `measure_series` has accepted.

    Parameters
    ----------
    data, refs
        As for `measure_series`.
    label_offsets, chunk_offsets : int64[n + 1]
        Running sums of the counts.
    labels_out : int64[2, label_offsets[-1]], written
        Symbol numbers of names and values.
    chunks_out : int64[3, chunk_offsets[-1]], written
        Min time (ms), max time (ms), reference.

    Returns
    -------
    int64
        n.
    """
    end = np.int64(len(data))
    for i in range(len(refs)):
        _, at = _uvarint(data, refs[i] * 16, end)
        _, at = _uvarint(data, at, end)
        for j in range(label_offsets[i], label_offsets[i + 1]):
            name, at = _uvarint(data, at, end)
            value, at = _uvarint(data, at, end)
            labels_out[0, j], labels_out[1, j] = np.int64(name), np.int64(value)
        _, at = _uvarint(data, at, end)
        first = chunk_offsets[i]
        for j in range(first, chunk_offsets[i + 1]):
            time, at = _uvarint(data, at, end)
            span, at = _uvarint(data, at, end)
            ref, at = _uvarint(data, at, end)
            if j == first:
                chunks_out[0, j], chunks_out[2, j] = _unzigzag(time), np.int64(ref)
            else:
                chunks_out[0, j] = chunks_out[1, j - 1] + np.int64(time)
                chunks_out[2, j] = chunks_out[2, j - 1] + _unzigzag(ref)
            chunks_out[1, j] = chunks_out[0, j] + np.int64(span)
    return np.int64(len(refs))
