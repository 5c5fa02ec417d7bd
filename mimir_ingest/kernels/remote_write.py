"""Remote write 1.0 bodies to columns: one pass that counts, one that fills.

Layout (protobuf, spec ingest-storage 1.2): WriteRequest{1 timeseries, 2 source, 3 metadata, 1000, 1001 skip flags};
TimeSeries{1 labels, 2 samples, 3 exemplars, 4 histograms, 6 created}; LabelPair{1 name, 2 value};
Sample{1 value double, 2 timestamp ms}.

Arrays are sized by `scan`, except for samples: `fill_series` gets room for a plausible number, goes on counting when it
is full, and is called again with the exact number. So a hostile body costs no more than a fixed multiple of its size.
`error_out` is int64[4]: message, field, tag or wire type of what was refused, and the position of the top-level field.
Twin: tests/reference/remote_write.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_out, i64, i64_out, inline_checked, kernel, u8_in, u8_out
from mimir_ingest.kernels.protobuf import (
    EXEMPLAR,
    HISTOGRAM,
    LABEL_PAIR,
    METRIC_METADATA,
    SAMPLE,
    TIME_SERIES,
    WRITE_REQUEST,
    check_message,
    refuse,
)
from mimir_ingest.kernels.varint import (
    CUT_OFF,
    WireStatus,
    read_length,
    read_tag,
    read_uvarint,
    skip_field,
    write_uvarint,
)
from mimir_ingest.kernels.words import (
    as_float64,
    byteswap64,
    compare_bytes,
    copy_blocks,
    copy_over,
    load8,
    load64,
    sort_key,
)

SERIES, METADATA, METADATA_BYTES, SOURCE, SKIP_LABEL_NAMES, SKIP_LABEL_COUNT = range(6)
"""Indexes of `scan`'s counts."""
LABEL_BYTES, SAMPLES, EXEMPLARS, HISTOGRAMS, UNSORTED, MOST_LABELS, MOST_LABEL_BYTES, CREATED = range(8)
"""Indexes of `fill_series`'s counts; MOST_… are maxima over series whose labels are out of order; CREATED counts the
series that say when they were created."""

_TAKEN = np.uint32(256)  # no byte: the label at hand has been copied already
_RW2_SYMBOLS = np.int64(WireStatus.RW2_SYMBOLS)
_RW2_TIMESERIES = np.int64(WireStatus.RW2_TIMESERIES)


@inline_checked
def read_request_flag(body, at, field, wire_type, flags_out, error_out):
    """Read source (field 2) or a skip flag (1000, 1001) of a WriteRequest at `body[at:]`; skip any other field.

    `flags_out` is int64[3] or longer: source, skip label names, skip label count. Returns the position after the field,
    or a negative WireStatus.
    """
    if field != 2 and field != 1000 and field != 1001:
        return skip_field(body, at, len(body), wire_type, error_out)
    if wire_type != 0:
        return refuse(WRITE_REQUEST, field, wire_type, error_out)
    value, at = read_uvarint(body, at, len(body))
    if at < 0:
        return at
    if field == 2:
        flags_out[0] = np.int64(np.int32(np.uint32(value)))
    else:
        flags_out[1 + field - 1000] = value != np.uint64(0)
    return at


@kernel(i64(u8_in, i64_out, i64_out), boundscheck=True)
def scan(body, counts_out, error_out):
    """Count the top-level items of a WriteRequest.

    Parameters
    ----------
    body : uint8[n], read-only
        The decompressed request.
    counts_out : int64[6], written
        SERIES, METADATA, METADATA_BYTES (upper bound of their strings), SOURCE, SKIP_LABEL_NAMES, SKIP_LABEL_COUNT.
    error_out : int64[4], written
        See the module; `[3]` is where the refused top-level field starts.

    Returns
    -------
    int64
        0, or a negative WireStatus.
    """
    counts_out[:] = 0
    n = len(body)
    at = 0
    while at < n:
        error_out[0] = WRITE_REQUEST
        error_out[3] = at
        if body[at] == 0x0A:
            size, at = read_length(body, at + 1, n)
            if at < 0:
                return at
            counts_out[SERIES] += 1
            at += size
            continue
        field, wire_type, at = read_tag(body, at, n, error_out)
        if at < 0:
            return at
        if field == 4:
            return _RW2_SYMBOLS
        if field == 5:
            return _RW2_TIMESERIES
        if field == 1 or field == 3:
            if wire_type != 2:
                return refuse(WRITE_REQUEST, field, wire_type, error_out)
            size, at = read_length(body, at, n)
            if at < 0:
                return at
            if field == 1:
                counts_out[SERIES] += 1
            else:
                counts_out[METADATA] += 1
                counts_out[METADATA_BYTES] += size
            at += size
        else:
            at = read_request_flag(body, at, field, wire_type, counts_out[SOURCE:], error_out)
            if at < 0:
                return at
    return 0


@inline_checked
def read_label(body, at, end, error_out):
    """Return (name start, name size, value start, value size, status) of the LabelPair at `body[at:end]`."""
    name = value = at
    name_size = value_size = 0
    while at < end:
        error_out[0] = LABEL_PAIR
        field, wire_type, at = read_tag(body, at, end, error_out)
        if at < 0:
            return name, name_size, value, value_size, at
        if field == 1 or field == 2:
            if wire_type != 2:
                return name, name_size, value, value_size, refuse(LABEL_PAIR, field, wire_type, error_out)
            size, at = read_length(body, at, end)
            if at < 0:
                return name, name_size, value, value_size, at
            if field == 1:
                name, name_size = at, size
            else:
                value, value_size = at, size
            at += size
        else:
            at = skip_field(body, at, end, wire_type, error_out)
            if at < 0:
                return name, name_size, value, value_size, at
    return name, name_size, value, value_size, 0


@inline_checked
def read_sample(body, at, end, error_out):
    """Return (value, timestamp, start of what it counts or 0, status) of the Sample at `body[at:end]`."""
    value = 0.0
    timestamp = start = np.int64(0)
    while at < end:
        error_out[0] = SAMPLE
        field, wire_type, at = read_tag(body, at, end, error_out)
        if at < 0:
            return value, timestamp, start, at
        if field == 1:
            if wire_type != 1:
                return value, timestamp, start, refuse(SAMPLE, field, wire_type, error_out)
            if end - at < 8:
                return value, timestamp, start, CUT_OFF
            value = as_float64(load64(body, at))
            at += 8
        elif field == 2:
            if wire_type != 0:
                return value, timestamp, start, refuse(SAMPLE, field, wire_type, error_out)
            bits, at = read_uvarint(body, at, end)
            if at < 0:
                return value, timestamp, start, at
            timestamp = np.int64(bits)
        elif field == 3 and wire_type == 0:
            bits, at = read_uvarint(body, at, end)
            if at < 0:
                return value, timestamp, start, at
            start = np.int64(bits)
        else:
            at = skip_field(body, at, end, wire_type, error_out)
            if at < 0:
                return value, timestamp, start, at
    return value, timestamp, start, 0


@inline_checked
def six_byte_varint(word):
    """Return the int64 of the varint in the low six bytes of `word`, which ends there."""
    return np.int64(
        (word & np.uint64(0x7F))
        | (word >> np.uint64(1) & np.uint64(0x7F << 7))
        | (word >> np.uint64(2) & np.uint64(0x7F << 14))
        | (word >> np.uint64(3) & np.uint64(0x7F << 21))
        | (word >> np.uint64(4) & np.uint64(0x7F << 28))
        | (word >> np.uint64(5) & np.uint64(0x7F << 35))
    )


@inline_checked
def other_field(body, at, end, field, wire_type, series, counts_out, created_out, error_out):
    """Check a field of TimeSeries that holds no label and no float sample, and note when the series was created.

    Returns the next position or a status.
    """
    if field == 3 or field == 4:
        if wire_type != 2:
            return refuse(TIME_SERIES, field, wire_type, error_out)
        size, at = read_length(body, at, end)
        if at < 0:
            return at
        counts_out[EXEMPLARS if field == 3 else HISTOGRAMS] += 1
        return check_message(body, at, at + size, EXEMPLAR if field == 3 else HISTOGRAM, error_out)
    if field == 6:
        if wire_type != 0:
            return refuse(TIME_SERIES, field, wire_type, error_out)
        created, at = read_uvarint(body, at, end)
        if at >= 0 and created != np.uint64(0):
            created_out[series] = np.int64(created)
            counts_out[CREATED] += 1
        return at
    return skip_field(body, at, end, wire_type, error_out)


@kernel(i64(u8_in, u8_out, i64_out, i64_out, i64_out, f64_out, i64_out, i64_out, i64_out), boundscheck=True)
def fill_series(
    body, labels_out, label_offsets_out, sample_offsets_out, timestamps_out, values_out, created_out, counts_out,
    error_out,
):  # fmt: skip
    """Write the series of a WriteRequest as columns; labels in the order received, empty values left out.

    Parameters
    ----------
    body : uint8[n], read-only
        A request that `scan` accepted, or the part of it before the field that `scan` refused.
    labels_out : uint8[n + 16], written
        Label bytes.
    label_offsets_out, sample_offsets_out : int64[series + 1], written
    timestamps_out : int64[m], written
        Samples past m are counted, not written.
    values_out : float64[m], written
    created_out : int64[series], zeros, written
        When each series was created (ms), where it says so.
    counts_out : int64[8], written
        LABEL_BYTES, SAMPLES, EXEMPLARS, HISTOGRAMS, UNSORTED (series), MOST_LABELS, MOST_LABEL_BYTES, CREATED.
    error_out : int64[4], written

    Returns
    -------
    int64
        0, or a negative WireStatus.

    Notes
    -----
    The two `if` branches in front recognise a label pair and a sample as every client writes them (both fields, in
    order, lengths under 128) and are checked completely by their conditions; everything else takes the general readers.
    """
    n = len(body)
    room = len(timestamps_out)
    capacity = len(labels_out)
    counts_out[:] = 0
    at = 0
    series = 0
    samples = 0
    used = 0
    label_offsets_out[0] = 0
    sample_offsets_out[0] = 0
    while at < n:
        error_out[0] = WRITE_REQUEST
        error_out[3] = at
        field, wire_type, at = read_tag(body, at, n, error_out)
        if field != 1:
            at = skip_field(body, at, n, wire_type, error_out)
            if at < 0:
                return at
            continue
        size, at = read_length(body, at, n)
        if at < 0:
            return at
        end = at + size
        key = np.uint64(0)
        labels = 0
        last = used
        last_size = np.int64(0)
        sorted_so_far = True
        while at < end:
            start = np.int64(-1)
            name_size = np.int64(0)
            previous = key
            kind = np.uint32(body[at])
            if kind == 0x0A and at + 152 <= n and used + 152 <= capacity and load8(body, at + 2) == 0x0A:
                stop = at + 2 + np.int64(load8(body, at + 1))
                name_size = np.int64(load8(body, at + 3))
                value = at + name_size + 6
                if value <= stop and stop <= at + 129 and stop <= end and load8(body, value - 2) == 0x12:
                    value_size = np.int64(load8(body, value - 1))
                    if value + value_size == stop:
                        if value_size > 0:
                            copy_blocks(body, at + 3, name_size + 1, labels_out, used)
                            start = used + 1
                            copy_blocks(body, value - 1, value_size + 1, labels_out, start + name_size)
                            used = start + name_size + value_size + 1
                            previous = key
                            key = byteswap64(load64(body, at + 4))
                            if name_size < 8:
                                key &= ~(np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(8 * name_size))
                        at = stop
                        kind = _TAKEN
            elif kind == 0x12 and end - at >= 18 and load8(body, at + 1) == 16 and load8(body, at + 2) == 0x09:
                # Then the tag of the timestamp, and its six bytes: 2 Nov 1971 to 2109.
                word = load64(body, at + 10)
                if word & np.uint64(0x808080808080FF00) == np.uint64(0x0080808080801000):
                    if samples < room:
                        values_out[samples] = as_float64(load64(body, at + 3))
                        timestamps_out[samples] = six_byte_varint(word >> np.uint64(16))
                    samples += 1
                    at += 18
                    continue
            if kind != _TAKEN:
                field, wire_type, at = read_tag(body, at, end, error_out)
                error_out[0] = TIME_SERIES
                if at < 0:
                    return at
                if field > 2:
                    at = other_field(body, at, end, field, wire_type, series, counts_out, created_out, error_out)
                    if at < 0:
                        return at
                    continue
                if wire_type != 2:
                    return refuse(TIME_SERIES, field, wire_type, error_out)
                size, at = read_length(body, at, end)
                if at < 0:
                    return at
                if field == 2:
                    sample_value, timestamp, _, status = read_sample(body, at, at + size, error_out)
                    if samples < room:
                        values_out[samples] = sample_value
                        timestamps_out[samples] = timestamp
                    samples += 1
                else:
                    name, name_size, value, value_size, status = read_label(body, at, at + size, error_out)
                    if value_size > 0 and status == 0:
                        start = write_uvarint(np.uint64(name_size), labels_out, used)
                        copy_over(body, name, name_size, labels_out, start)
                        used = write_uvarint(np.uint64(value_size), labels_out, start + name_size)
                        copy_over(body, value, value_size, labels_out, used)
                        used += value_size
                        previous = key
                        key = sort_key(body, name, name_size)
                if status < 0:
                    return status
                at += size
            if start >= 0:
                labels += 1
                if (
                    key <= previous
                    and labels > 1
                    and (key < previous or compare_bytes(labels_out, last, last_size, start, name_size) > 0)
                ):
                    sorted_so_far = False
                last = start
                last_size = name_size
        if not sorted_so_far:
            counts_out[UNSORTED] += 1
            counts_out[MOST_LABELS] = max(counts_out[MOST_LABELS], labels)
            counts_out[MOST_LABEL_BYTES] = max(counts_out[MOST_LABEL_BYTES], used - label_offsets_out[series])
        series += 1
        label_offsets_out[series] = used
        sample_offsets_out[series] = samples
    counts_out[LABEL_BYTES] = used
    counts_out[SAMPLES] = samples
    return 0


@kernel(i64(u8_in, u8_out, u8_out, i64_out, i64_out), boundscheck=True)
def fill_metadata(body, types_out, text_out, offsets_out, error_out):
    """Write the metadata of a WriteRequest as columns (model.batch.MetadataColumns).

    Parameters
    ----------
    body : uint8[n], read-only
        A request that `scan` accepted, or the part before the field that it refused.
    types_out : uint8[k], written
        Numbers of METRIC_TYPES; one that nobody has defined becomes 0 (unknown).
    text_out : uint8[METADATA_BYTES + 16], written
    offsets_out : int64[3 * k + 1], written

    Returns
    -------
    int64
        0, or a negative WireStatus.
    """
    n = len(body)
    at = 0
    item = 0
    used = 0
    offsets_out[0] = 0
    while at < n:
        error_out[0] = WRITE_REQUEST
        error_out[3] = at
        field, wire_type, at = read_tag(body, at, n, error_out)
        if field != 3:
            at = skip_field(body, at, n, wire_type, error_out)
            if at < 0:
                return at
            continue
        size, at = read_length(body, at, n)
        if at < 0:
            return at
        end = at + size
        starts = (at, at, at)
        sizes = (0, 0, 0)
        kind = np.uint64(0)
        while at < end:
            error_out[0] = METRIC_METADATA
            field, wire_type, at = read_tag(body, at, end, error_out)
            if at < 0:
                return at
            if field == 1:
                if wire_type != 0:
                    return refuse(METRIC_METADATA, field, wire_type, error_out)
                kind, at = read_uvarint(body, at, end)
                if at < 0:
                    return at
            elif field == 2 or field == 4 or field == 5:
                if wire_type != 2:
                    return refuse(METRIC_METADATA, field, wire_type, error_out)
                size, at = read_length(body, at, end)
                if at < 0:
                    return at
                if field == 2:
                    starts, sizes = (at, starts[1], starts[2]), (size, sizes[1], sizes[2])
                elif field == 4:
                    starts, sizes = (starts[0], at, starts[2]), (sizes[0], size, sizes[2])
                else:
                    starts, sizes = (starts[0], starts[1], at), (sizes[0], sizes[1], size)
                at += size
            else:
                at = skip_field(body, at, end, wire_type, error_out)
                if at < 0:
                    return at
        types_out[item] = np.uint8(kind) if kind < np.uint64(8) else np.uint8(0)
        for part in range(3):
            copy_over(body, starts[part], sizes[part], text_out, used)
            used += sizes[part]
            offsets_out[3 * item + part + 1] = used
        item += 1
    return 0
