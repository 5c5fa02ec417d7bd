"""Streamed remote read answers to positions: one call for many frames.

Layout (prometheus/remote.proto, spec http-api 6.9): `uvarint length | CRC-32C, big-endian | message`, the message
ChunkedReadResponse{1 ChunkedSeries{1 labels {1 name, 2 value}, 2 chunks {1 min ms, 2 max ms, 3 type, 4 data}},
2 query index}. Fields that are not known are skipped. Label pairs have to be in the one form that encoders write (name,
then value, neither empty, shortest lengths), so that equal pairs are equal bytes; names ascend within a series.
Twin: tests/reference/read_frames.py.
"""

from __future__ import annotations

import enum

import numpy as np

from mimir_ingest.kernels._jit import i32_in, i64, i64_in, i64_out, inline_checked, kernel, u8_in
from mimir_ingest.kernels.crc32c import crc32c_inline
from mimir_ingest.kernels.validate import is_utf8
from mimir_ingest.kernels.varint import WRONG_WIRE_TYPE, read_length, read_tag, read_uvarint, skip_field
from mimir_ingest.kernels.words import compare_bytes

MAX_FRAME_BYTES = 50_000_000
"""A longer frame is refused; the bound of Prometheus's reader. Writers stay near 1 MiB."""

PAIR_BYTES, CHUNK_BYTES = 8, 15
"""What a label pair and a chunk take at least, so that callers know how many can be in a piece."""

PAIR_COLUMNS, CHUNK_COLUMNS, SERIES_COLUMNS = 5, 3, 2
"""Numbers written for each: see `scan_frames`."""

_MIN_CHUNK_DATA = 11
"""A count, a time and a value."""


class FrameStatus(enum.IntEnum):
    """Why a frame cannot be used; statuses over -100 are those of `varint.WireStatus`."""

    TOO_LARGE = -100
    CHECKSUM = -101
    LABEL_FORM = -102
    LABEL_ORDER = -103
    NO_CHUNKS = -104
    CHUNK_TOO_SHORT = -105
    QUERY_INDEX = -106


_TOO_LARGE = np.int64(FrameStatus.TOO_LARGE)
_CHECKSUM = np.int64(FrameStatus.CHECKSUM)
_LABEL_FORM = np.int64(FrameStatus.LABEL_FORM)
_LABEL_ORDER = np.int64(FrameStatus.LABEL_ORDER)
_NO_CHUNKS = np.int64(FrameStatus.NO_CHUNKS)
_CHUNK_TOO_SHORT = np.int64(FrameStatus.CHUNK_TOO_SHORT)
_QUERY_INDEX = np.int64(FrameStatus.QUERY_INDEX)


@inline_checked
def _string(data, at, end, tag):
    """Return (start, end or status) of the non-empty string in the field `tag` at `at`."""
    if at >= end or data[at] != tag:
        return at, _LABEL_FORM
    size, start = read_length(data, at + 1, end)
    if start < 0 or size == 0 or (start - at > 2 and data[start - 1] == 0):
        return at, _LABEL_FORM
    return start, start + size


@inline_checked
def _scan_chunk(data, at, end, chunks_out, chunk, scratch):
    """Write a chunk's place and type; return `end` or a status."""
    start = stop = kind = np.int64(0)
    while at < end:
        field, wire_type, at = read_tag(data, at, end, scratch)
        if at < 0:
            return at
        if field == 4 and wire_type == 2:
            size, start = read_length(data, at, end)
            if start < 0:
                return start
            at = stop = start + size
        elif field == 3 and wire_type == 0:
            number, at = read_uvarint(data, at, end)
            if at < 0:
                return at
            kind = np.int64(number)
        elif 1 <= field <= 4 and wire_type != 0:
            return WRONG_WIRE_TYPE
        else:
            at = skip_field(data, at, end, wire_type, scratch)
            if at < 0:
                return at
    if stop - start < _MIN_CHUNK_DATA:
        return _CHUNK_TOO_SHORT
    chunks_out[3 * chunk] = start
    chunks_out[3 * chunk + 1] = stop
    chunks_out[3 * chunk + 2] = kind
    return end


@inline_checked
def _scan_series(data, at, end, pairs_out, pair, chunks_out, chunk, scratch):
    """Write a series' pairs and chunks; return (next pair, next chunk, `end` or status)."""
    first_chunk = chunk
    last, last_size = np.int64(0), np.int64(-1)
    while at < end:
        field, wire_type, at = read_tag(data, at, end, scratch)
        if at < 0:
            return pair, chunk, at
        if field > 2:
            at = skip_field(data, at, end, wire_type, scratch)
            if at < 0:
                return pair, chunk, at
            continue
        if wire_type != 2:
            return pair, chunk, WRONG_WIRE_TYPE
        size, start = read_length(data, at, end)
        if start < 0:
            return pair, chunk, start
        at = start + size
        if field == 2:
            status = _scan_chunk(data, start, at, chunks_out, chunk, scratch)
            if status < 0:
                return pair, chunk, status
            chunk += 1
            continue
        name, name_end = _string(data, start, at, 0x0A)
        if name_end < 0:
            return pair, chunk, name_end
        value, value_end = _string(data, name_end, at, 0x12)
        if value_end != at:
            return pair, chunk, _LABEL_FORM
        if last_size >= 0 and compare_bytes(data, last, last_size, name, name_end - name) >= 0:
            return pair, chunk, _LABEL_ORDER
        last, last_size = name, name_end - name
        pairs_out[5 * pair] = start
        pairs_out[5 * pair + 1] = name
        pairs_out[5 * pair + 2] = name_end
        pairs_out[5 * pair + 3] = value
        pairs_out[5 * pair + 4] = at
        pair += 1
    return pair, chunk, (at if chunk > first_chunk else _NO_CHUNKS)


@kernel(i64(u8_in, i64_out, i64_out, i64_out, i64_out), boundscheck=True)
def scan_frames(data, pairs_out, chunks_out, series_out, counts_out):
    """Find the label pairs and chunks in the whole frames at the front of `data`; checksums are verified.

    Parameters
    ----------
    data : uint8[n]
        A piece of a stream that begins with a frame; may be hostile: a negative status is the worst outcome.
    pairs_out : int64[5 * (n // PAIR_BYTES)], written
        (start, name, name end, value, end) of each pair, in series order: `data[start:end]` is the pair as a key,
        `data[name:name end]` its name, `data[value:end]` its value.
    chunks_out : int64[3 * (n // CHUNK_BYTES)], written
        (start, end, type) of each chunk's data.
    series_out : int64[2 * (n // CHUNK_BYTES)], written
        Series i has the pairs and chunks up to these numbers, from those of the series before it on.
    counts_out : int64[3], written
        Series, pairs, chunks.

    Returns
    -------
    int64
        Bytes of the whole frames, or a FrameStatus or WireStatus. Query indexes other than 0 are refused.
    """
    scratch = np.zeros(4, np.int64)
    at = done = 0
    series, pair, chunk = 0, 0, 0
    total = len(data)
    while at < total:
        number, start = read_uvarint(data, at, total)
        if start < 0:
            if total - at >= 10:
                return _TOO_LARGE
            break
        if number > np.uint64(MAX_FRAME_BYTES):
            return _TOO_LARGE
        message = start + 4
        end = message + np.int64(number)
        if end > total:
            break
        checksum = np.uint32(0)
        for i in range(start, message):
            checksum = np.uint32(checksum << np.uint32(8)) | np.uint32(data[i])
        if checksum != crc32c_inline(data[message:end]):
            return _CHECKSUM
        at = message
        while at < end:
            field, wire_type, at = read_tag(data, at, end, scratch)
            if at < 0:
                return at
            if field == 1 and wire_type == 2:
                size, inner = read_length(data, at, end)
                if inner < 0:
                    return inner
                at = inner + size
                pair, chunk, status = _scan_series(data, inner, at, pairs_out, pair, chunks_out, chunk, scratch)
                if status < 0:
                    return status
                series_out[2 * series] = pair
                series_out[2 * series + 1] = chunk
                series += 1
            elif field == 2 and wire_type == 0:
                index, at = read_uvarint(data, at, end)
                if at < 0:
                    return at
                if index != np.uint64(0):
                    return _QUERY_INDEX
            elif field <= 2:
                return WRONG_WIRE_TYPE
            else:
                at = skip_field(data, at, end, wire_type, scratch)
                if at < 0:
                    return at
        done = at
    counts_out[0], counts_out[1], counts_out[2] = series, pair, chunk
    return done


@kernel(i64(u8_in, i64_in, i64_in), boundscheck=True)
def find_invalid_text(data, starts, ends):
    """Return the first of the strings `data[starts[i]:ends[i]]` that is not UTF-8, or how many there are."""
    for i in range(len(starts)):
        if not is_utf8(data, starts[i], ends[i]):
            return i
    return len(starts)


@kernel(i64(i64_in, i32_in, i64_out), boundscheck=True)
def number_series(pair_offsets, pairs, numbers_out):
    """Give series that follow each other with equal pairs one number: parts of one series.

    Parameters
    ----------
    pair_offsets : int64[n + 1]
        Series i has the pairs `pairs[pair_offsets[i]:pair_offsets[i + 1]]`.
    pairs : int32[pair_offsets[n]]
    numbers_out : int64[n], written

    Returns
    -------
    int64
        How many numbers are given, from 0 on.
    """
    number = -1
    for i in range(len(numbers_out)):
        start, end = pair_offsets[i], pair_offsets[i + 1]
        same = i > 0 and end - start == start - pair_offsets[i - 1]
        if same:
            before = pair_offsets[i - 1]
            for j in range(end - start):
                if pairs[before + j] != pairs[start + j]:
                    same = False
                    break
        if not same:
            number += 1
        numbers_out[i] = number
    return number + 1
