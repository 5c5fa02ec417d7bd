"""Native histograms of write requests to columns, and how far each is from being one that can be stored.

Works on requests whose form another kernel has checked (remote_write.py, symbolized.py); histograms are rare there, so
they are found by a second walk that reads tags and lengths only. Layout: spec ingest-storage 1.2, `Histogram`,
`BucketSpan`; a float histogram is one whose last count is `count_float`. Twin: tests/reference/histogram_wire.py.
"""

from __future__ import annotations

import numba
import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline_checked, kernel, u8_in
from mimir_ingest.kernels.histogram_columns import histograms_out
from mimir_ingest.kernels.words import as_float64, load64

OK, SPAN_NEGATIVE_OFFSET, SPANS_BUCKETS_MISMATCH = range(3)
"""Problems that columns cannot show; such a histogram comes out without buckets and with NO_SCHEMA."""

NO_SCHEMA = -128

TIMESTAMP, SCHEMA, BUCKETS, PROBLEM, SIDE, WANTED, FOUND, START, FACTS = range(9)
"""Facts of a histogram: ms; schema as received; deltas or counts received; a problem, its side (0 negative, 1 positive)
and what the message about it names: number and offset of the span, or buckets of the spans and buckets received; ms at
which what it counts began, 0 where it does not say."""

_MIN_INDEX, _MAX_INDEX = -(1 << 31), (1 << 31) - 1
_U0, _U1, _U7, _LOW7 = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(0x7F)


@numba.njit(inline="always")
def _uvarint(data, at):
    """Return (uint64, next position). Inlined, and without the tests of `read_uvarint`: the form was checked."""
    byte = np.uint64(data[at])
    at += 1
    value = byte & _LOW7
    shift = _U7
    while byte > _LOW7:
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & _LOW7) << shift
        shift += _U7
    return value, at


@numba.njit(inline="always")
def _tag(data, at):
    """Return (field, wire type, next position)."""
    tag, at = _uvarint(data, at)
    return np.int64(tag >> np.uint64(3)), np.int64(tag & _U7), at


@numba.njit(inline="always")
def _skip(data, at, wire_type):
    """Return the position behind a field's content."""
    if wire_type == 0:
        _, at = _uvarint(data, at)
        return at
    if wire_type == 2:
        size, at = _uvarint(data, at)
        return at + np.int64(size)
    return at + (8 if wire_type == 1 else 4)


@inline_checked
def _list_size(data, at, end, wire_type, is_double):
    """Return (entries of the repeated scalar at `data[at:]`, next position)."""
    if wire_type != 2:
        if is_double:
            return 1, at + 8
        _, at = _uvarint(data, at)
        return 1, at
    word, at = _uvarint(data, at)
    size = np.int64(word)
    if is_double:
        return size // 8, at + size
    count = 0
    for i in range(at, at + size):
        count += data[i] < 0x80
    return count, at + size


@kernel(i64(u8_in, i64_in, i64_in, i64_out), boundscheck=True)
def measure_histograms(data, starts, ends, totals_out):
    """Count what histograms may hold, before memory is taken for it.

    `totals_out` (int64[2]) gets upper bounds of the buckets and of the custom bounds of all of them. Returns 0.
    """
    totals_out[:] = 0
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        deltas = counts = 0
        while at < end:
            field, wire_type, at = _tag(data, at)
            if field in (9, 12):
                size, at = _list_size(data, at, end, wire_type, False)
                deltas += size
            elif field in (10, 13):
                size, at = _list_size(data, at, end, wire_type, True)
                counts += size
            elif field == 16:
                size, at = _list_size(data, at, end, wire_type, True)
                totals_out[1] += size
            else:
                at = _skip(data, at, wire_type)
        totals_out[0] += max(deltas, counts)
    return 0


@inline_checked
def _unzigzag(value):
    return np.int64((value >> _U1) ^ (_U0 - (value & _U1)))


@inline_checked
def _read_double(data, at):
    return as_float64(load64(data, at))


@inline_checked
def _read_scalars(data, at, end, row, out, facts):
    """Read what is neither a span nor a list of a histogram; return the sizes of the four lists of buckets."""
    negative_deltas = negative_counts = positive_deltas = positive_counts = 0
    float_zeros = False
    while at < end:
        field, wire_type, at = _tag(data, at)
        if field in (1, 4, 6, 14, 15):
            value, at = _uvarint(data, at)
            if field == 1:
                out.count[row], out.is_float[row] = np.float64(value), False
            elif field == 4:
                facts[SCHEMA] = np.int64(np.int32(_unzigzag(value & np.uint64(0xFFFFFFFF))))
            elif field == 6:
                out.zero_count[row], float_zeros = np.float64(value), False
            elif field == 14:
                out.reset_hint[row] = np.uint8(value) if value < np.uint64(4) else 0
            else:
                facts[TIMESTAMP] = np.int64(value)
        elif field == 17 and wire_type == 0:
            value, at = _uvarint(data, at)
            facts[START] = np.int64(value)
        elif field in (2, 3, 5, 7):
            value = _read_double(data, at)
            at += 8
            if field == 2:
                out.count[row], out.is_float[row] = value, True
            elif field == 3:
                out.sum[row] = value
            elif field == 5:
                out.zero_threshold[row] = value
            else:
                out.zero_count[row], float_zeros = value, True
        elif field in (9, 12):
            size, at = _list_size(data, at, end, wire_type, False)
            if field == 9:
                negative_deltas += size
            else:
                positive_deltas += size
        elif field in (10, 13):
            size, at = _list_size(data, at, end, wire_type, True)
            if field == 10:
                negative_counts += size
            else:
                positive_counts += size
        else:
            at = _skip(data, at, wire_type)
    if float_zeros != out.is_float[row]:
        # The zero count of the other kind reads as its default.
        out.zero_count[row] = 0.0
    if out.is_float[row]:
        return negative_counts, positive_counts
    return negative_deltas, positive_deltas


@inline_checked
def _read_span(data, at, end):
    """Return (offset, length) of the BucketSpan at `data[at:end]`."""
    offset, length = np.int64(0), np.int64(0)
    while at < end:
        field, wire_type, at = _tag(data, at)
        if field == 1:
            value, at = _uvarint(data, at)
            offset = np.int64(np.int32(_unzigzag(value & np.uint64(0xFFFFFFFF))))
        elif field == 2:
            value, at = _uvarint(data, at)
            length = np.int64(np.uint32(value))
        else:
            at = _skip(data, at, wire_type)
    return offset, length


@inline_checked
def _read_spans(data, at, end, wanted, count, first_must_not_be_negative, index_out, to, facts):
    """Write the numbers of `count` buckets at `index_out[to:]`; return a problem, described in `facts`."""
    index, spans, found = np.int64(0), np.int64(0), np.int64(0)
    outside = False
    while at < end:
        field, wire_type, at = _tag(data, at)
        if field != wanted:
            at = _skip(data, at, wire_type)
            continue
        word, at = _uvarint(data, at)
        size = np.int64(word)
        offset, length = _read_span(data, at, at + size)
        at += size
        spans += 1
        if offset < 0 and (spans > 1 or first_must_not_be_negative):
            facts[WANTED], facts[FOUND] = spans, offset
            return SPAN_NEGATIVE_OFFSET
        index += offset
        for i in range(min(length, count - found)):
            index_out[to + found + i] = np.int32(index + i)
        found += length
        index += length
        outside |= length > 0 and not _MIN_INDEX <= index - length <= index - 1 <= _MAX_INDEX
    if found != count or outside:
        facts[WANTED], facts[FOUND] = found, count
        return SPANS_BUCKETS_MISMATCH
    return OK


@inline_checked
def _numbers(data, at, wire_type):
    """Return where the numbers of a field begin, and a place in the last one: packed there are many, else one."""
    if wire_type != 2:
        return at, at + 1
    size, at = _uvarint(data, at)
    return at, at + np.int64(size)


@inline_checked
def _read_buckets(data, at, end, wanted, is_float, count_out, to):
    """Write the absolute counts of the deltas or counts in the field `wanted`."""
    running = _U0
    while at < end:
        field, wire_type, at = _tag(data, at)
        if field != wanted:
            at = _skip(data, at, wire_type)
            continue
        at, stop = _numbers(data, at, wire_type)
        while at < stop:
            if is_float:
                count_out[to] = _read_double(data, at)
                at += 8
            else:
                value, at = _uvarint(data, at)
                running += np.uint64(_unzigzag(value))
                count_out[to] = np.float64(np.int64(running))
            to += 1


@inline_checked
def _read_bounds(data, at, end, values_out, to):
    """Write the custom bounds; return the next position of the output."""
    while at < end:
        field, wire_type, at = _tag(data, at)
        if field != 16:
            at = _skip(data, at, wire_type)
            continue
        at, stop = _numbers(data, at, wire_type)
        while at < stop:
            values_out[to] = _read_double(data, at)
            at += 8
            to += 1
    return to


@kernel(i64(u8_in, i64_in, i64_in, histograms_out, i64_out), boundscheck=True)
def fill_histograms(data, starts, ends, out, facts_out):
    """Write histograms as columns.

    Parameters
    ----------
    data, starts, ends
        As `series_fields.locate_fields` found them.
    out : histograms, m rows, written
        With room for the buckets and bounds that `measure_histograms` counted. A schema that no int8 holds becomes
        NO_SCHEMA.
    facts_out : int64[FACTS * m], written
        A row of facts each: TIMESTAMP, …

    Returns
    -------
    int64
        Histograms with a problem.
    """
    problems = buckets = bounds = 0
    out.bucket_offsets[0] = out.custom_offsets[0] = 0
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        facts = facts_out[FACTS * row : FACTS * row + FACTS]
        facts[:] = 0
        out.reset_hint[row] = 0
        out.is_float[row] = False
        out.zero_threshold[row] = out.zero_count[row] = out.count[row] = out.sum[row] = 0.0
        negative, positive = _read_scalars(data, at, end, row, out, facts)
        schema = facts[SCHEMA]
        out.schema[row] = schema if -128 < schema <= 127 else NO_SCHEMA
        facts[BUCKETS] = negative + positive
        for side in range(2):
            count = negative if side == 0 else positive
            if facts[PROBLEM] == OK:
                # Custom buckets begin at zero.
                facts[PROBLEM] = _read_spans(
                    data, at, end, 8 + 3 * side, count, schema == -53, out.bucket_index, buckets, facts
                )
                facts[SIDE] = side
            if facts[PROBLEM] == OK:
                field = 9 + 3 * side + (1 if out.is_float[row] else 0)
                _read_buckets(data, at, end, field, out.is_float[row], out.bucket_count, buckets)
                buckets += count
            out.bucket_offsets[2 * row + side + 1] = buckets
        if facts[PROBLEM] != OK:
            problems += 1
            out.schema[row] = NO_SCHEMA
            buckets = out.bucket_offsets[2 * row]
            out.bucket_offsets[2 * row + 1] = out.bucket_offsets[2 * row + 2] = buckets
        bounds = _read_bounds(data, at, end, out.custom_values, bounds)
        out.custom_offsets[row + 1] = bounds
    return problems
