"""Exemplars of write requests to columns; requests and places as in series_fields.py.

Layout (spec ingest-storage 1.2): Exemplar{1 labels, 2 value double, 3 timestamp ms}; ExemplarRW2{1 label refs, 2 value,
3 timestamp}. Labels with an empty value are left out. Twin: tests/reference/exemplar_wire.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_out, i32_out, i64, i64_in, i64_out, inline_checked, kernel, u8_in, u8_out
from mimir_ingest.kernels.remote_write import read_label
from mimir_ingest.kernels.symbols import symbol_size
from mimir_ingest.kernels.varint import read_length, read_tag, read_uvarint, skip_field, write_uvarint
from mimir_ingest.kernels.words import as_float64, copy_over, load64


@inline_checked
def _read_point(data, at, end, wire_type, field, row, timestamps_out, values_out, error):
    """Read the value or the timestamp of an exemplar, or skip another field; return the next position."""
    if field == 2:
        values_out[row] = as_float64(load64(data, at))
        return at + 8
    if field == 3:
        value, at = read_uvarint(data, at, end)
        timestamps_out[row] = np.int64(value)
        return at
    return skip_field(data, at, end, wire_type, error)


@kernel(i64(u8_in, i64_in, i64_in, u8_out, i64_out, i64_out, f64_out, i64_out), boundscheck=True)
def fill_exemplars(data, starts, ends, labels_out, label_offsets_out, timestamps_out, values_out, counts_out):
    """Write exemplars of shape 1.0 as columns; labels in the order received.

    Parameters
    ----------
    data, starts, ends
        Exemplar j is `data[starts[j]:ends[j]]`, its form checked.
    labels_out : uint8[bytes of all + 16], written
    label_offsets_out : int64[m + 1], written
    timestamps_out, values_out : int64[m], float64[m], written
    counts_out : int64[2], written
        Most labels, and most label bytes, of one exemplar.

    Returns
    -------
    int64
        Label bytes.
    """
    error = np.empty(4, np.int64)
    used = np.int64(0)
    label_offsets_out[0] = 0
    counts_out[:] = 0
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        timestamps_out[row] = 0
        values_out[row] = 0.0
        labels = 0
        while at < end:
            field, wire_type, at = read_tag(data, at, end, error)
            if field != 1:
                at = _read_point(data, at, end, wire_type, field, row, timestamps_out, values_out, error)
                continue
            size, at = read_length(data, at, end)
            name, name_size, value, value_size, _ = read_label(data, at, at + size, error)
            at += size
            if value_size > 0:
                used = write_uvarint(np.uint64(name_size), labels_out, used)
                copy_over(data, name, name_size, labels_out, used)
                used = write_uvarint(np.uint64(value_size), labels_out, used + name_size)
                copy_over(data, value, value_size, labels_out, used)
                used += value_size
                labels += 1
        label_offsets_out[row + 1] = used
        counts_out[0] = max(counts_out[0], labels)
        counts_out[1] = max(counts_out[1], used - label_offsets_out[row])
    return used


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i32_out, i64_out, i64_out, f64_out), boundscheck=True)
def fill_exemplar_refs(data, starts, ends, symbols, refs_out, ref_offsets_out, timestamps_out, values_out):
    """Write exemplars with label references as columns.

    Parameters
    ----------
    data, starts, ends
        As `fill_exemplars` takes them.
    symbols : int64[2 * s]
        Bounds of each symbol (kernels.symbols).
    refs_out : int32[bytes of all], written
        Names and values in turn.
    ref_offsets_out : int64[m + 1], written
    timestamps_out, values_out : int64[m], float64[m], written

    Returns
    -------
    int64
        References written.
    """
    error = np.empty(4, np.int64)
    used = 0
    ref_offsets_out[0] = 0
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        timestamps_out[row] = 0
        values_out[row] = 0.0
        name = np.int64(-1)
        while at < end:
            field, wire_type, at = read_tag(data, at, end, error)
            if field != 1:
                at = _read_point(data, at, end, wire_type, field, row, timestamps_out, values_out, error)
                continue
            stop, limit = at + 1, end
            if wire_type == 2:
                size, at = read_length(data, at, end)
                stop = limit = at + size
            while at < stop:
                value, at = read_uvarint(data, at, limit)
                ref = np.int64(np.uint32(value))
                if name < 0:
                    name = ref
                    continue
                if symbol_size(symbols, ref) > 0:
                    refs_out[used] = name
                    refs_out[used + 1] = ref
                    used += 2
                name = np.int64(-1)
        ref_offsets_out[row + 1] = used
    return used
