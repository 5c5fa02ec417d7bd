"""Columns to the items of a WriteRequest (spec ingest-storage 1.2): one pass for sizes, one for bytes.

Items are TimeSeries (field 1) and MetricMetadata (field 3), without the tag and length of the item itself. A field with
its default value is left out, as generated encoders do; minus zero is not the default of a double, so that values
survive bit for bit.
Twin: tests/reference/write_request.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_in, i64, i64_in, i64_out, inline_checked, kernel, u8_in, u8_out
from mimir_ingest.kernels.varint import read_length, uvarint_size, write_uvarint
from mimir_ingest.kernels.words import as_bits, copy_over, store64


@inline_checked
def _bytes_field(size):
    """Return the size of a field of bytes with its tag and length; 0 when there are none."""
    if size == 0:
        return np.int64(0)
    return 1 + uvarint_size(np.uint64(size)) + size


@inline_checked
def _pair_size(at, name_size, middle, value_size, stop):
    """Return the size of a LabelPair with name and value, lengths in front, at `[at:middle]` and `[middle:stop]`."""
    size = np.int64(0)
    if name_size > 0:
        size += 1 + middle - at
    if value_size > 0:
        size += 1 + stop - middle
    return size


@inline_checked
def _sample_size(timestamp, value):
    """Return the size of a Sample's content."""
    size = 0
    if as_bits(value) != np.uint64(0):
        size += 9
    if timestamp != 0:
        size += 1 + uvarint_size(np.uint64(timestamp))
    return size


@inline_checked
def _string_field(tag, source, at, size, out, to):
    """Write a field of bytes, unless it is empty; return the position behind it."""
    if size == 0:
        return to
    out[to] = tag
    to = write_uvarint(np.uint64(size), out, to + 1)
    copy_over(source, at, size, out, to)
    return to + size


@kernel(i64(u8_in, i64_in, i64_in, i64_in, f64_in, i64_in, i64_out), boundscheck=True)
def measure_series(labels, label_offsets, sample_offsets, timestamps, values, more_offsets, sizes_out):
    """Work out the size of each series as a TimeSeries.

    Parameters
    ----------
    labels, label_offsets, sample_offsets, timestamps, values
        Columns of model.batch.WriteBatch with n series.
    more_offsets : int64[n + 1] or int64[0]
        Series i has further fields, `more_offsets[i + 1] - more_offsets[i]` bytes of them.
    sizes_out : int64[n], written
        Bytes of each TimeSeries, without its tag and length.

    Returns
    -------
    int64
        0, or -1 - i when the label bytes of series i are not well-formed.
    """
    for series in range(len(sizes_out)):
        size = np.int64(0)
        at, end = label_offsets[series], label_offsets[series + 1]
        while at < end:
            name_size, name = read_length(labels, at, end)
            if name < 0:
                return -1 - series
            value_size, value = read_length(labels, name + name_size, end)
            if value < 0:
                return -1 - series
            pair = _pair_size(at, name_size, name + name_size, value_size, value + value_size)
            at = value + value_size
            size += 1 + uvarint_size(np.uint64(pair)) + pair
        for i in range(sample_offsets[series], sample_offsets[series + 1]):
            size += 2 + _sample_size(timestamps[i], values[i])
        if len(more_offsets) > 0:
            size += more_offsets[series + 1] - more_offsets[series]
        sizes_out[series] = size
    return 0


@kernel(i64(u8_in, i64_in, i64_in, i64_in, f64_in, u8_in, i64_in, i64_in, u8_out), boundscheck=True)
def write_series(labels, label_offsets, sample_offsets, timestamps, values, more, more_offsets, sizes, out):
    """Write each series as field 1 of a WriteRequest.

    Parameters
    ----------
    labels, label_offsets, sample_offsets, timestamps, values, more_offsets, sizes
        As `measure_series` took them and filled them.
    more : uint8[...]
        Further fields, which follow the samples.
    out : uint8[...], written
        Exactly as long as the result.

    Returns
    -------
    int64
        Bytes written.
    """
    to = np.int64(0)
    for series in range(len(sizes)):
        out[to] = 0x0A
        to = write_uvarint(np.uint64(sizes[series]), out, to + 1)
        at, end = label_offsets[series], label_offsets[series + 1]
        while at < end:
            name_size, name = read_length(labels, at, end)
            middle = name + name_size
            value_size, value = read_length(labels, middle, end)
            stop = value + value_size
            out[to] = 0x0A
            to = write_uvarint(np.uint64(_pair_size(at, name_size, middle, value_size, stop)), out, to + 1)
            # Label bytes have the lengths in front, in protobuf's encoding.
            if name_size > 0:
                out[to] = 0x0A
                copy_over(labels, at, middle - at, out, to + 1)
                to += 1 + middle - at
            if value_size > 0:
                out[to] = 0x12
                copy_over(labels, middle, stop - middle, out, to + 1)
                to += 1 + stop - middle
            at = stop
        for i in range(sample_offsets[series], sample_offsets[series + 1]):
            timestamp, bits = timestamps[i], as_bits(values[i])
            out[to] = 0x12
            out[to + 1] = np.uint8(_sample_size(timestamp, values[i]))
            to += 2
            if bits != np.uint64(0):
                if to + 9 > len(out):
                    raise IndexError
                out[to] = 0x09
                store64(out, to + 1, bits)
                to += 9
            if timestamp != 0:
                out[to] = 0x10
                to = write_uvarint(np.uint64(timestamp), out, to + 1)
        if len(more_offsets) > 0:
            size = more_offsets[series + 1] - more_offsets[series]
            copy_over(more, more_offsets[series], size, out, to)
            to += size
    return to


@kernel(i64(u8_in, i64_in, i64_out), boundscheck=True)
def measure_metadata(types, offsets, sizes_out):
    """Work out the size of each item as a MetricMetadata.

    Parameters
    ----------
    types, offsets
        Columns of model.batch.MetadataColumns with k items.
    sizes_out : int64[k], written
        Bytes of each item, without its tag and length.

    Returns
    -------
    int64
        0.
    """
    for item in range(len(types)):
        size = np.int64(0)
        if types[item] != 0:
            size += 1 + uvarint_size(np.uint64(types[item]))
        for string in range(3 * item, 3 * item + 3):
            size += _bytes_field(offsets[string + 1] - offsets[string])
        sizes_out[item] = size
    return 0


@kernel(i64(u8_in, u8_in, i64_in, i64_in, u8_out), boundscheck=True)
def write_metadata(types, text, offsets, sizes, out):
    """Write each item as field 3 of a WriteRequest; `out` (uint8[...]) is as long as the result. Returns its bytes."""
    to = np.int64(0)
    for item in range(len(types)):
        out[to] = 0x1A
        to = write_uvarint(np.uint64(sizes[item]), out, to + 1)
        if types[item] != 0:
            out[to] = 0x08
            to = write_uvarint(np.uint64(types[item]), out, to + 1)
        for part in range(3):
            start = offsets[3 * item + part]
            tag = 0x12 if part == 0 else (0x22 if part == 1 else 0x2A)
            to = _string_field(tag, text, start, offsets[3 * item + part + 1] - start, out, to)
    return to
