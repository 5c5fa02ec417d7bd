"""Messages of OTLP in protobuf to columns, one type of message at a time, driven by a table of its fields.

A type's table is two uint8[FIELDS]: what each field is (SKIP, VARINT, …, MARK added where the row says which field came
last), and the column of its row where it goes. Text must be UTF-8; of a field that may come once the last one counts.
Twin: tests/reference/otlp.py, over the protobuf library; compared in `tests/unit/wire/test_otlp_columns.py`.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_out, i32_in, i32_out, i64, i64_out, kernel, u8_in, u8_out, u64_out
from mimir_ingest.kernels.validate import is_utf8
from mimir_ingest.kernels.varint import (
    CUT_OFF,
    WRONG_WIRE_TYPE,
    read_length,
    read_tag,
    read_uvarint,
    skip_field,
)
from mimir_ingest.kernels.words import as_float64, load64

FIELDS = 32
"""Fields with a higher number are skipped."""

SKIP, VARINT, ZIGZAG, FIXED, TEXT, BYTES, CHILD, FIXED_LIST, VARINT_LIST = range(9)
"""What a field is. TEXT and BYTES take two columns, begin and end. CHILD and the lists go to the table of children:
each message, each packed run of numbers, each number that stands alone."""
MARK = 0x80
"""Column 0 of the row is the number of the field of this mark that came last."""

NOT_UTF8 = -40
"""Status, besides those of varint.WireStatus."""

_KEY, _VALUE, _STRING = 1, 2, 1


@kernel(
    i64(u8_in, i32_in, i32_in, u8_in, u8_in, i64, i64_out, i32_out, u8_out, i32_out, i32_out, i64_out),
    boundscheck=True,
)
def read_messages(
    data, starts, ends, kinds, columns, width, rows_out, parents_out, fields_out, starts_out, ends_out, error_out
):
    """Read messages of one type.

    Parameters
    ----------
    data : uint8[...]
        The request.
    starts, ends : int32[n]
        Message i is `data[starts[i]:ends[i]]`.
    kinds, columns : uint8[FIELDS]
        See the module.
    width : int64
        Columns of a row.
    rows_out : int64[n * width], zeros, written
        Bits of numbers; varints as they came, ZIGZAG's as int32.
    parents_out, fields_out, starts_out, ends_out : int32[room], uint8[room], int32[room], int32[room], written
        Children: their message, field and place, as far as there is room.
    error_out : int64[4], written
        Tag or wire type of what was refused, in `[2]`.

    Returns
    -------
    int64
        Children, or a negative status.
    """
    found = 0
    for row in range(len(starts)):
        at, end = np.int64(starts[row]), np.int64(ends[row])
        base = row * width
        while at < end:
            tag = np.int64(data[at])
            field, wire_type = tag >> 3, tag & 7
            if field == 0 or tag >= 0x80 or wire_type == 4:
                field, wire_type, at = read_tag(data, at, end, error_out)
                if at < 0:
                    return at
            else:
                at += 1
            kind = np.int64(kinds[field]) if field < FIELDS else np.int64(SKIP)
            what = kind & 0x7F
            if what == SKIP:
                at = skip_field(data, at, end, wire_type, error_out)
                if at < 0:
                    return at
                continue
            column = base + np.int64(columns[field])
            if kind & MARK:
                rows_out[base] = field
            first = at
            if wire_type == 2:
                if at < end and data[at] < 0x80:
                    first = at + 1
                    at = first + np.int64(data[first - 1])
                    if at > end:
                        return np.int64(CUT_OFF)
                else:
                    size, first = read_length(data, at, end)
                    if first < 0:
                        return first
                    at = first + size
                if what < TEXT or (what == FIXED_LIST and (at - first) % 8 != 0):
                    error_out[2] = wire_type
                    return np.int64(WRONG_WIRE_TYPE) if what < TEXT else np.int64(CUT_OFF)
                if what == TEXT and not is_utf8(data, first, at):
                    return np.int64(NOT_UTF8)
                if what == VARINT_LIST and at > first and data[at - 1] >= 0x80:
                    return np.int64(CUT_OFF)
                if what in (TEXT, BYTES):
                    rows_out[column], rows_out[column + 1] = first, at
            elif wire_type == 1 and (what in (FIXED, FIXED_LIST)):
                if end - at < 8:
                    return np.int64(CUT_OFF)
                rows_out[column] = np.int64(load64(data, at)) if what == FIXED else rows_out[column]
                at += 8
            elif wire_type == 0 and (what in (VARINT, ZIGZAG, VARINT_LIST)):
                word, at = read_uvarint(data, at, end)
                if at < 0:
                    return at
                if what == VARINT:
                    rows_out[column] = np.int64(word)
                elif what == ZIGZAG:
                    word &= np.uint64(0xFFFFFFFF)
                    word = (word >> np.uint64(1)) ^ (np.uint64(0) - (word & np.uint64(1)))
                    rows_out[column] = np.int64(np.int32(np.uint32(word & np.uint64(0xFFFFFFFF))))
            else:
                error_out[2] = wire_type
                return np.int64(WRONG_WIRE_TYPE)
            if what >= CHILD:
                if found < len(parents_out):
                    parents_out[found] = row
                    fields_out[found] = field
                    starts_out[found] = first
                    ends_out[found] = at
                found += 1
    return found


@kernel(i64(u8_in, i32_in, i32_in, i64_out, i64_out, u8_out, i64_out, i64_out, i64_out), boundscheck=True)
def read_attributes(
    data, starts, ends, key_starts_out, key_ends_out, kinds_out, value_starts_out, value_ends_out, error_out
):
    """Read KeyValue messages.

    Parameters
    ----------
    data, starts, ends, error_out
        As in `read_messages`.
    key_starts_out, key_ends_out : int64[n], written
        Where the key lies.
    kinds_out : uint8[n], written
        Field of AnyValue that counts; 0 for an empty value.
    value_starts_out, value_ends_out : int64[n], written
        Where the text of a string lies; of another kind, the AnyValue.

    Returns
    -------
    int64
        0, or a negative status.
    """
    for row in range(len(starts)):
        at, end = np.int64(starts[row]), np.int64(ends[row])
        key = key_end = value = value_end = np.int64(0)
        while at < end:
            field, wire_type, at = read_tag(data, at, end, error_out)
            if at < 0:
                return at
            if field != _KEY and field != _VALUE:
                at = skip_field(data, at, end, wire_type, error_out)
                if at < 0:
                    return at
                continue
            if wire_type != 2:
                error_out[2] = wire_type
                return np.int64(WRONG_WIRE_TYPE)
            size, at = read_length(data, at, end)
            if at < 0:
                return at
            if field == _KEY:
                key, key_end = at, at + size
            else:
                value, value_end = at, at + size
            at += size
        kind, at = np.int64(0), value
        text, text_end = value, value_end
        while at < value_end:
            field, wire_type, at = read_tag(data, at, value_end, error_out)
            if at < 0:
                return at
            if field == _STRING:
                if wire_type != 2:
                    error_out[2] = wire_type
                    return np.int64(WRONG_WIRE_TYPE)
                size, at = read_length(data, at, value_end)
                if at < 0:
                    return at
                text, text_end = at, at + size
                at += size
            else:
                at = skip_field(data, at, value_end, wire_type, error_out)
                if at < 0:
                    return at
            if field <= 8:
                kind = field
        if kind != _STRING:
            text, text_end = value, value_end
        elif not is_utf8(data, text, text_end):
            return np.int64(NOT_UTF8)
        if not is_utf8(data, key, key_end):
            return np.int64(NOT_UTF8)
        key_starts_out[row], key_ends_out[row] = key, key_end
        kinds_out[row] = kind
        value_starts_out[row], value_ends_out[row] = text, text_end
    return 0


@kernel(i64(u8_in, i32_in, i32_in, f64_out), boundscheck=True)
def read_doubles(data, starts, ends, values_out):
    """Read the doubles of FIXED_LIST children, back to back, into float64[all of them]; return how many."""
    count = 0
    for run in range(len(starts)):
        for at in range(np.int64(starts[run]), np.int64(ends[run]), 8):
            values_out[count] = as_float64(load64(data, at))
            count += 1
    return count


@kernel(i64(u8_in, i32_in, i32_in, i64_out), boundscheck=True)
def count_varints(data, starts, ends, counts_out):
    """Count the numbers of each VARINT_LIST child in `counts_out` (int64[n]); return how many there are."""
    total = 0
    for run in range(len(starts)):
        count = 0
        for at in range(starts[run], ends[run]):
            count += data[at] < 0x80
        counts_out[run] = count
        total += count
    return total


@kernel(i64(u8_in, i32_in, i32_in, u64_out), boundscheck=True)
def read_varints(data, starts, ends, values_out):
    """Read the numbers of VARINT_LIST children, back to back, into uint64[all of them].

    Returns how many, or a negative status.
    """
    count = 0
    for run in range(len(starts)):
        at, end = np.int64(starts[run]), np.int64(ends[run])
        while at < end:
            byte = data[at]
            if byte < 0x80:
                values_out[count] = np.uint64(byte)
                at += 1
            else:
                word, at = read_uvarint(data, at, end)
                if at < 0:
                    return at
                values_out[count] = word
            count += 1
    return count
