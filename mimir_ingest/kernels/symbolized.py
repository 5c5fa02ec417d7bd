"""Write requests with a symbol table (fields 4 and 5 of WriteRequest) to columns.

Layout (protobuf, spec ingest-storage 1.2): WriteRequest{2 source, 4 symbols, 5 timeseries, 1000, 1001 skip flags};
TimeSeriesRW2{1 label refs, 2 samples, 3 histograms, 4 exemplars, 5 metadata, 6 created}; Sample{1 value, 2 timestamp,
3 start}; ExemplarRW2{1 label refs, 2 value, 3 timestamp}; MetadataRW2{1 type, 3 help ref, 4 unit ref}.

`data` is the bytes of symbols known beforehand, then the request, which starts at `begin`; `symbols` as in
kernels.symbols.
`error_out` is int64[4]: message, field, tag or wire type of what was refused, and the position of the field.

Labels are read as references first: a few of them may stand for labels much larger than the request, and the caller
decides before it allocates.
Twin: tests/reference/symbolized.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import (
    f64_out,
    i32_out,
    i64,
    i64_in,
    i64_out,
    inline_checked,
    kernel,
    u8_in,
)
from mimir_ingest.kernels.protobuf import (
    EXEMPLAR_RW2,
    HISTOGRAM,
    METADATA_RW2,
    TIME_SERIES_RW2,
    WRITE_REQUEST,
    check_message,
    refuse,
)
from mimir_ingest.kernels.remote_write import read_request_flag, read_sample
from mimir_ingest.kernels.symbols import symbol_size
from mimir_ingest.kernels.varint import (
    WireStatus,
    read_length,
    read_tag,
    read_uvarint,
    skip_field,
)
from mimir_ingest.kernels.words import load64

SERIES, SYMBOLS, SOURCE, SKIP_LABEL_NAMES, SKIP_LABEL_COUNT = range(5)
"""Indexes of `scan`'s counts."""
SAMPLES, EXEMPLARS, HISTOGRAMS, STARTS, CREATED = range(5)
"""Indexes of `fill_samples`'s counts: STARTS samples say when what they count began, CREATED series when they began."""

_METRIC_NAME = np.uint64(int.from_bytes(b"__name__", "little"))
_RW1_TIMESERIES = np.int64(WireStatus.RW1_TIMESERIES)
_RW1_METADATA = np.int64(WireStatus.RW1_METADATA)
_BAD_SYMBOLS = np.int64(WireStatus.RW2_BAD_SYMBOLS)
_ODD_LABELS = np.int64(WireStatus.RW2_ODD_LABELS)
_ODD_EXEMPLAR_LABELS = np.int64(WireStatus.RW2_ODD_EXEMPLAR_LABELS)
_BAD_LABEL = np.int64(WireStatus.RW2_BAD_LABEL)
_BAD_EXEMPLAR_LABEL = np.int64(WireStatus.RW2_BAD_EXEMPLAR_LABEL)
_BAD_HELP = np.int64(WireStatus.RW2_BAD_HELP)
_BAD_UNIT = np.int64(WireStatus.RW2_BAD_UNIT)


@kernel(i64(u8_in, i64, i64_out, i64_out), boundscheck=True)
def scan(data, begin, counts_out, error_out):
    """Count the top-level items of a request.

    Parameters
    ----------
    data : uint8[n], read-only
    begin : int64
    counts_out : int64[5], written
        SERIES, SYMBOLS, SOURCE, SKIP_LABEL_NAMES, SKIP_LABEL_COUNT.
    error_out : int64[4], written

    Returns
    -------
    int64
        0, or a negative WireStatus.
    """
    counts_out[:] = 0
    n = len(data)
    at = begin
    while at < n:
        error_out[0] = WRITE_REQUEST
        error_out[3] = at
        field, wire_type, at = read_tag(data, at, n, error_out)
        if at < 0:
            return at
        if field == 1:
            return _RW1_TIMESERIES
        if field == 3:
            return _RW1_METADATA
        if field == 4 or field == 5:
            if wire_type != 2:
                return refuse(WRITE_REQUEST, field, wire_type, error_out)
            size, at = read_length(data, at, n)
            if at < 0:
                return at
            if field == 5:
                counts_out[SERIES] += 1
            else:
                if counts_out[SYMBOLS] == 0 and size > 0:
                    return _BAD_SYMBOLS
                counts_out[SYMBOLS] += 1
            at += size
        else:
            at = read_request_flag(data, at, field, wire_type, counts_out[SOURCE:], error_out)
            if at < 0:
                return at
    return 0


@inline_checked
def _next_field(data, at, wanted, error_out):
    """Return (start, end) of the next field `wanted` from `at` on, in a request that `scan` accepted; -1 when none."""
    n = len(data)
    while at < n:
        field, wire_type, at = read_tag(data, at, n, error_out)
        if field == wanted:
            size, at = read_length(data, at, n)
            return at, at + size
        at = skip_field(data, at, n, wire_type, error_out)
    return np.int64(-1), np.int64(-1)


@kernel(i64(u8_in, i64, i64_out, i64_out), boundscheck=True)
def fill_symbols(data, begin, symbols_out, error_out):
    """Write where the symbols of the request lie.

    Parameters
    ----------
    data, begin
        A request that `scan` accepted, or the part before the field that it refused.
    symbols_out : int64[2 * SYMBOLS], written
    error_out : int64[4], scratch

    Returns
    -------
    int64
        Symbols written.
    """
    count = 0
    start, end = _next_field(data, begin, 4, error_out)
    while start >= 0:
        symbols_out[2 * count] = start
        symbols_out[2 * count + 1] = end
        count += 1
        start, end = _next_field(data, end, 4, error_out)
    return count


@inline_checked
def _read_ref(data, at, end):
    """Return (reference, next position or status): a uint32, higher bits lost as in generated decoders."""
    value, at = read_uvarint(data, at, end)
    return np.int64(np.uint32(value)), at


@inline_checked
def _read_metadata(data, at, end, symbols, row_out, error_out):
    """Read the MetadataRW2 at `data[at:end]` into a row of type, -, help, unit; return 0 or a status."""
    while at < end:
        error_out[0] = METADATA_RW2
        field, wire_type, at = read_tag(data, at, end, error_out)
        if at < 0:
            return at
        if field != 1 and field != 3 and field != 4:
            at = skip_field(data, at, end, wire_type, error_out)
            if at < 0:
                return at
            continue
        if wire_type != 0:
            return refuse(METADATA_RW2, field, wire_type, error_out)
        value, at = read_uvarint(data, at, end)
        if at < 0:
            return at
        if field == 1:
            row_out[0] = np.int64(value) if value < np.uint64(8) else 0
        else:
            ref = np.int64(np.uint32(value))
            if symbol_size(symbols, ref) < 0:
                return _BAD_HELP if field == 3 else _BAD_UNIT
            row_out[field - 1] = ref
    return np.int64(0)


@inline_checked
def _find_metric_name(data, symbols, refs):
    """Return the reference of the value of the first `__name__` in (name, value) references; -1 when there is none."""
    for pair in range(len(refs) // 2):
        name = np.int64(refs[2 * pair])
        start = symbols[2 * name]
        if symbol_size(symbols, name) == 8 and start + 8 <= len(data) and load64(data, start) == _METRIC_NAME:
            return np.int64(refs[2 * pair + 1])
    return np.int64(-1)


@kernel(i64(u8_in, i64, i64_in, i32_out, i64_out, i64_out, i64_out), boundscheck=True)
def fill_refs(data, begin, symbols, refs_out, ref_offsets_out, metadata_out, error_out):
    """Write the label references and metadata of each series; labels with an empty value are left out.

    Parameters
    ----------
    data, begin, symbols
        See the module.
    refs_out : int32[n], written
        Names and values in turn; a request of n bytes has no more.
    ref_offsets_out : int64[SERIES + 1], written
    metadata_out : int64[4 * SERIES], written
        Rows of type, family, help, unit (references but for the type): one for each series that has both metadata other
        than the default and a metric name.
    error_out : int64[4], written

    Returns
    -------
    int64
        Metadata rows, or a negative WireStatus. A field that only `fill_samples` refuses ends the work: call both.
    """
    ref_offsets_out[0] = 0
    used = series = items = 0
    at, end = _next_field(data, begin, 5, error_out)
    while at >= 0:
        row = metadata_out[4 * items : 4 * items + 4]
        row[:] = 0
        name = np.int64(-1)
        while at < end:
            error_out[0] = TIME_SERIES_RW2
            error_out[3] = at
            field, wire_type, at = read_tag(data, at, end, error_out)
            if at < 0:
                return at
            if field != 1 and field != 5:
                # For `fill_samples`, which refuses it if need be.
                at = skip_field(data, at, end, wire_type, error_out)
                if at < 0:
                    return items
                continue
            if wire_type != 2 and (field == 5 or wire_type != 0):
                return refuse(TIME_SERIES_RW2, field, wire_type, error_out)
            stop, limit = at + 1, end
            if wire_type == 2:
                size, at = read_length(data, at, end)
                if at < 0:
                    return at
                stop = limit = at + size
            if field == 5:
                status = _read_metadata(data, at, stop, symbols, row, error_out)
                if status < 0:
                    return status
                at = stop
                continue
            while at < stop:
                ref, at = _read_ref(data, at, limit)
                if at < 0:
                    return at
                size = symbol_size(symbols, ref)
                if size < 0:
                    return _BAD_LABEL
                if name < 0:
                    name = ref
                    continue
                if size > 0:
                    refs_out[used] = name
                    refs_out[used + 1] = ref
                    used += 2
                name = np.int64(-1)
        if name >= 0:
            error_out[3] = end
            return _ODD_LABELS
        if row[0] > 0 or symbol_size(symbols, row[2]) > 0 or symbol_size(symbols, row[3]) > 0:
            row[1] = _find_metric_name(data, symbols, refs_out[ref_offsets_out[series] : used])
            if row[1] >= 0:
                items += 1
        series += 1
        ref_offsets_out[series] = used
        at, end = _next_field(data, end, 5, error_out)
    return items


@inline_checked
def _check_exemplar(data, at, end, symbols, error_out):
    """Check the ExemplarRW2 at `data[at:end]`; return 0 or a status."""
    refs = 0
    while at < end:
        error_out[0] = EXEMPLAR_RW2
        field, wire_type, at = read_tag(data, at, end, error_out)
        if at < 0:
            return at
        if field == 1:
            if wire_type != 0 and wire_type != 2:
                return refuse(EXEMPLAR_RW2, field, wire_type, error_out)
            stop, limit = at + 1, end
            if wire_type == 2:
                size, at = read_length(data, at, end)
                if at < 0:
                    return at
                stop = limit = at + size
            while at < stop:
                ref, at = _read_ref(data, at, limit)
                if at < 0:
                    return at
                if symbol_size(symbols, ref) < 0:
                    return _BAD_EXEMPLAR_LABEL
                refs += 1
            continue
        if (field == 2 and wire_type != 1) or (field == 3 and wire_type != 0):
            return refuse(EXEMPLAR_RW2, field, wire_type, error_out)
        at = skip_field(data, at, end, wire_type, error_out)
        if at < 0:
            return at
    return _ODD_EXEMPLAR_LABELS if refs % 2 else np.int64(0)


@kernel(i64(u8_in, i64, i64_in, i64_out, i64_out, f64_out, i64_out, i64_out, i64_out, i64_out), boundscheck=True)
def fill_samples(
    data, begin, symbols, sample_offsets_out, timestamps_out, values_out, starts_out, created_out, counts_out, error_out
):
    """Write the samples of each series, and when it was created; check exemplars and histograms, which are not kept.

    Parameters
    ----------
    data, begin, symbols
        See the module.
    sample_offsets_out : int64[SERIES + 1], written
    timestamps_out : int64[n // 2], written
        A request of n bytes has no more samples.
    values_out : float64[n // 2], written
    starts_out : int64[n // 2], written
        When what a sample counts began (ms), 0 where it does not say; not touched while STARTS is 0.
    created_out : int64[SERIES], zeros, written
        When a series was created (ms), where it says so.
    counts_out : int64[5], written
        SAMPLES, EXEMPLARS, HISTOGRAMS, STARTS, CREATED.
    error_out : int64[4], written

    Returns
    -------
    int64
        0, or a negative WireStatus.
    """
    counts_out[:] = 0
    sample_offsets_out[0] = 0
    samples = series = 0
    at, end = _next_field(data, begin, 5, error_out)
    while at >= 0:
        while at < end:
            error_out[0] = TIME_SERIES_RW2
            error_out[3] = at
            field, wire_type, at = read_tag(data, at, end, error_out)
            if at < 0:
                return at
            if field < 2 or field > 4:
                if field == 6:
                    if wire_type != 0:
                        return refuse(TIME_SERIES_RW2, field, wire_type, error_out)
                    created, at = read_uvarint(data, at, end)
                    if at < 0:
                        return at
                    if created != np.uint64(0):
                        created_out[series] = np.int64(created)
                        counts_out[CREATED] += 1
                    continue
                at = skip_field(data, at, end, wire_type, error_out)
                if at < 0:
                    # `fill_refs` refuses the fields that are its own.
                    return 0 if field == 1 or field == 5 else at
                continue
            if wire_type != 2:
                return refuse(TIME_SERIES_RW2, field, wire_type, error_out)
            size, at = read_length(data, at, end)
            if at < 0:
                return at
            stop = at + size
            if field == 2:
                value, timestamp, start, status = read_sample(data, at, stop, error_out)
                if status >= 0:
                    values_out[samples] = value
                    timestamps_out[samples] = timestamp
                    if start != 0:
                        if counts_out[STARTS] == 0:
                            starts_out[:samples] = 0
                        counts_out[STARTS] += 1
                    if counts_out[STARTS] > 0:
                        starts_out[samples] = start
                    samples += 1
            elif field == 3:
                status = min(check_message(data, at, stop, HISTOGRAM, error_out), 0)
                counts_out[HISTOGRAMS] += 1
            else:
                status = _check_exemplar(data, at, stop, symbols, error_out)
                counts_out[EXEMPLARS] += 1
            if status < 0:
                return status
            at = stop
        series += 1
        sample_offsets_out[series] = samples
        at, end = _next_field(data, end, 5, error_out)
    counts_out[SAMPLES] = samples
    return 0
