"""Well-formedness of protobuf messages, driven by a table: for what a second walk reads once a request is sound.

A schema is uint8[messages * 32]: entry `message * 32 + field` is the wire type that the field must have,
`PACKED | type` for a repeated scalar that may come packed, `CHILD | message` for a nested message, or UNKNOWN. Nesting
below the checked message goes one level deep, which is what exemplars and native histograms need.
"""

from __future__ import annotations

import numba
import numpy as np

from mimir_ingest.kernels._jit import inline_checked
from mimir_ingest.kernels.varint import CUT_OFF, OVERFLOW, WRONG_WIRE_TYPE, read_length, read_tag, skip_field

UNKNOWN, PACKED, CHILD = 0xFF, 0x40, 0x80

(
    WRITE_REQUEST,
    TIME_SERIES,
    LABEL_PAIR,
    SAMPLE,
    EXEMPLAR,
    HISTOGRAM,
    BUCKET_SPAN,
    METRIC_METADATA,
    TIME_SERIES_RW2,
    EXEMPLAR_RW2,
    METADATA_RW2,
) = range(11)

_VARINT, _DOUBLE, _BYTES = 0, 1, 2
_FIELDS = {
    LABEL_PAIR: {1: _BYTES, 2: _BYTES},
    SAMPLE: {1: _DOUBLE, 2: _VARINT},
    EXEMPLAR: {1: CHILD | LABEL_PAIR, 2: _DOUBLE, 3: _VARINT},
    HISTOGRAM: {
        1: _VARINT,
        2: _DOUBLE,
        3: _DOUBLE,
        4: _VARINT,
        5: _DOUBLE,
        6: _VARINT,
        7: _DOUBLE,
        8: CHILD | BUCKET_SPAN,
        9: PACKED | _VARINT,
        10: PACKED | _DOUBLE,
        11: CHILD | BUCKET_SPAN,
        12: PACKED | _VARINT,
        13: PACKED | _DOUBLE,
        14: _VARINT,
        15: _VARINT,
        16: PACKED | _DOUBLE,
    },
    BUCKET_SPAN: {1: _VARINT, 2: _VARINT},
}


def _schema() -> np.ndarray:
    table = np.full(11 * 32, UNKNOWN, np.uint8)
    for message, fields in _FIELDS.items():
        for field, kind in fields.items():
            table[message * 32 + field] = kind
    return table


_SCHEMA = _schema()


@inline_checked
def refuse(message, field, wire_type, error_out):
    """Note that a field has the wrong wire type; return the status."""
    error_out[0] = message
    error_out[1] = field
    error_out[2] = wire_type
    return WRONG_WIRE_TYPE


@inline_checked
def _check_packed(data, at, end, scalar):
    """Check the elements of a packed field; return `end` or a status."""
    if scalar != _VARINT:
        return end if (end - at) % 8 == 0 else np.int64(CUT_OFF)
    open_bytes = 0
    for i in range(at, end):
        open_bytes = open_bytes + 1 if data[i] >= 0x80 else 0
        if open_bytes == 10:
            return np.int64(OVERFLOW)
    return end if open_bytes == 0 else np.int64(CUT_OFF)


@numba.njit(inline="always")
def _check_field(data, at, end, message, error_out):
    """Check one field at `at`; return (child message or -1, start of its content, next position or status).

    Inlined: a call costs as much as a field.
    """
    error_out[0] = message
    tag = np.int64(data[at])
    field, wire_type = tag >> 3, tag & 7
    if field == 0 or tag >= 0x80 or wire_type == 4:
        field, wire_type, at = read_tag(data, at, end, error_out)
    else:
        at += 1
    child, start, stop = np.int64(-1), at, at
    if at >= 0:
        kind = np.int64(UNKNOWN)
        if field < 32:
            kind = np.int64(_SCHEMA[message * 32 + field])
        scalar = kind & 0x3F
        if kind == UNKNOWN:
            stop = skip_field(data, at, end, wire_type, error_out)
        elif kind & CHILD:
            if wire_type != _BYTES:
                stop = refuse(message, field, wire_type, error_out)
            else:
                size, start = read_length(data, at, end)
                child = scalar
                stop = start + size if start >= 0 else start
        elif kind & PACKED and wire_type == _BYTES:
            size, start = read_length(data, at, end)
            stop = _check_packed(data, start, start + size, scalar) if start >= 0 else start
        elif wire_type != scalar:
            stop = refuse(message, field, wire_type, error_out)
        elif wire_type == _VARINT and at < end and data[at] < 0x80:
            stop = at + 1
        else:
            stop = skip_field(data, at, end, wire_type, error_out)
    return child, start, stop


@inline_checked
def check_message(data, at, end, message, error_out):
    """Walk a message and its children; return `end`, or a negative WireStatus with its place in `error_out`."""
    while at < end:
        child, start, at = _check_field(data, at, end, message, error_out)
        if at < 0:
            return at
        if child >= 0:
            inner = start
            while inner < at:
                _, _, inner = _check_field(data, inner, at, child, error_out)
                if inner < 0:
                    return inner
    return at
