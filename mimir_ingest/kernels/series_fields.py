"""Where nested messages of each series lie in a write request whose form was checked.

Native histograms and exemplars are rare: they are found by a second walk that reads tags and lengths only, so that
requests without them cost nothing more. Twin: tests/reference/histogram_wire.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_out, kernel, u8_in
from mimir_ingest.kernels.varint import read_length, read_tag, skip_field


@kernel(i64(u8_in, i64, i64, i64, i64_out, i64_out, i64_out), boundscheck=True)
def locate_fields(data, begin, series_field, wanted, starts_out, ends_out, offsets_out):
    """Find the messages in one field of each series.

    Parameters
    ----------
    data, begin
        A request, checked, from `data[begin]` on.
    series_field, wanted : int64
        Fields of the series in the request, and of the messages in a series.
    starts_out, ends_out : int64[m], written
        Message j is `data[starts_out[j]:ends_out[j]]`.
    offsets_out : int64[series + 1], written
        Series i has the messages `offsets_out[i]:offsets_out[i + 1]`.

    Returns
    -------
    int64
        Messages, m.
    """
    error = np.empty(4, np.int64)
    found = series = 0
    offsets_out[0] = 0
    at, n = begin, len(data)
    while at < n:
        field, wire_type, at = read_tag(data, at, n, error)
        if field != series_field:
            at = skip_field(data, at, n, wire_type, error)
            continue
        size, at = read_length(data, at, n)
        end = at + size
        while at < end:
            field, wire_type, at = read_tag(data, at, end, error)
            if field == wanted:
                size, at = read_length(data, at, end)
                starts_out[found] = at
                ends_out[found] = at + size
                found += 1
                at += size
            else:
                at = skip_field(data, at, end, wire_type, error)
        series += 1
        offsets_out[series] = found
    return found
