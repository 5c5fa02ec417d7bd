"""Columns to native histograms of write requests and remote read: one pass for sizes, one for bytes.

A histogram is written as a field of its series, tag and length included: fields ascending, defaults left out, but for
the counts, which say what kind it is. Layout: spec ingest-storage 1.2. Twin: tests/reference/histogram_wire.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline_checked, kernel, u8_out
from mimir_ingest.kernels.histogram_columns import histograms_in
from mimir_ingest.kernels.varint import uvarint_size, write_uvarint
from mimir_ingest.kernels.words import as_bits, store64

_U1 = np.uint64(1)


@inline_checked
def _zigzag(value):
    return (np.uint64(value) << _U1) ^ np.uint64(value >> 63)


@inline_checked
def _integer(count):
    """The nearest uint64 of a count that is not negative."""
    if count >= 18446744073709551615.0:
        return np.uint64(0xFFFFFFFFFFFFFFFF)
    if count >= 9223372036854775808.0:
        return np.uint64(np.int64(count - 9223372036854775808.0)) | (_U1 << np.uint64(63))
    return np.uint64(np.int64(count)) if count > 0.0 else np.uint64(0)


@inline_checked
def _varint_field(tag, value, out, at):
    """Write (or, into no array, measure) a field of one number; return the next position."""
    if len(out):
        out[at] = tag
        write_uvarint(value, out, at + 1)
    return at + 1 + uvarint_size(value)


@inline_checked
def _double(bits, out, at):
    if len(out):
        if at < 0 or at + 8 > len(out):
            raise IndexError
        store64(out, at, bits)
    return at + 8


@inline_checked
def _double_field(tag, value, out, at):
    if len(out):
        out[at] = tag
    return _double(as_bits(value), out, at + 1)


@inline_checked
def _spans(h, first, end, tag, out, at):
    """Write the spans of the buckets `[first:end]`."""
    i = first
    while i < end:
        stop = i + 1
        while stop < end and h.bucket_index[stop] == h.bucket_index[stop - 1] + 1:
            stop += 1
        offset = np.int64(h.bucket_index[i])
        if i > first:
            offset -= np.int64(h.bucket_index[i - 1]) + 1
        code, length = _zigzag(offset), np.uint64(stop - i)
        size = 1 + uvarint_size(length) + (1 + uvarint_size(code) if offset != 0 else 0)
        if len(out):
            out[at] = tag
            out[at + 1] = size
        at += 2
        if offset != 0:
            at = _varint_field(0x08, code, out, at)
        at = _varint_field(0x10, length, out, at)
        i = stop
    return at


@inline_checked
def _deltas(h, first, end, tag, out, at):
    """Write the differences of the counts `[first:end]`, packed."""
    if first == end:
        return at
    size = 0
    previous = np.uint64(0)
    for i in range(first, end):
        count = _integer(h.bucket_count[i])
        size += uvarint_size(_zigzag(np.int64(count - previous)))
        previous = count
    at = _varint_field(tag, np.uint64(size), out, at)
    if len(out):
        previous = np.uint64(0)
        to = at
        for i in range(first, end):
            count = _integer(h.bucket_count[i])
            to = write_uvarint(_zigzag(np.int64(count - previous)), out, to)
            previous = count
    return at + size


@inline_checked
def _doubles(values, first, end, tag, out, at):
    """Write the numbers `[first:end]`, packed."""
    if first == end:
        return at
    at = _varint_field(tag, np.uint64(8 * (end - first)), out, at)
    for i in range(first, end):
        at = _double(as_bits(values[i]), out, at)
    return at


@inline_checked
def _message(h, row, timestamp, out, at):
    """Write a Histogram; return the position behind it."""
    if h.is_float[row]:
        at = _double_field(0x11, h.count[row], out, at)
    else:
        at = _varint_field(0x08, _integer(h.count[row]), out, at)
    if as_bits(h.sum[row]) != np.uint64(0):
        at = _double_field(0x19, h.sum[row], out, at)
    if h.schema[row] != 0:
        at = _varint_field(0x20, _zigzag(np.int64(h.schema[row])), out, at)
    if as_bits(h.zero_threshold[row]) != np.uint64(0):
        at = _double_field(0x29, h.zero_threshold[row], out, at)
    if h.is_float[row]:
        at = _double_field(0x39, h.zero_count[row], out, at)
    else:
        at = _varint_field(0x30, _integer(h.zero_count[row]), out, at)
    for side in range(2):
        first, end = h.bucket_offsets[2 * row + side], h.bucket_offsets[2 * row + side + 1]
        tag = 0x42 + 0x18 * side
        at = _spans(h, first, end, tag, out, at)
        if h.is_float[row]:
            at = _doubles(h.bucket_count, first, end, tag + 16, out, at)
        else:
            at = _deltas(h, first, end, tag + 8, out, at)
    if h.reset_hint[row] != 0:
        at = _varint_field(0x70, np.uint64(h.reset_hint[row]), out, at)
    if timestamp != 0:
        at = _varint_field(0x78, np.uint64(timestamp), out, at)
    first, end = h.custom_offsets[row], h.custom_offsets[row + 1]
    if first < end:
        # Field 16: a tag of two bytes.
        if len(out):
            out[at] = 0x82
        at = _doubles(h.custom_values, first, end, 0x01, out, at + 1)
    return at


@kernel(i64(histograms_in, i64_in, i64_out), boundscheck=True)
def measure_messages(h, timestamps, ends_out):
    """Work out where messages end, each with its tag and length.

    `ends_out` is int64[m]; `timestamps` int64[m] (ms). Returns the bytes of all.
    """
    nothing = np.empty(0, np.uint8)
    total = np.int64(0)
    for row in range(len(timestamps)):
        size = _message(h, row, timestamps[row], nothing, np.int64(0))
        total += 1 + uvarint_size(np.uint64(size)) + size
        ends_out[row] = total
    return total


@kernel(i64(histograms_in, i64_in, i64_in, i64, u8_out), boundscheck=True)
def write_messages(h, timestamps, ends, tag, out):
    """Write histograms as length-delimited fields, back to back.

    Parameters
    ----------
    h, timestamps : histograms, int64[m] (ms)
    ends : int64[m]
        As `measure_messages` wrote it.
    tag : int64
        One byte in front of each: field << 3 | 2.
    out : uint8[ends[-1]], written

    Returns
    -------
    int64
        Bytes written.
    """
    at = np.int64(0)
    nothing = np.empty(0, np.uint8)
    for row in range(len(timestamps)):
        size = _message(h, row, timestamps[row], nothing, np.int64(0))
        out[at] = tag
        at = write_uvarint(np.uint64(size), out, at + 1)
        at = _message(h, row, timestamps[row], out, at)
        if at != ends[row]:
            raise IndexError
    return at
