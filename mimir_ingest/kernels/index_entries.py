"""Write the series-heavy parts of a Prometheus index: symbols, series, postings, postings offset table.

Label sets come as the codes of a `LabelFrame` (int32[names, n]); a flat array maps the code `c` of column `l` to what
stands for its value: entry `column_starts[l] + c`.

    symbol           uvarint len | bytes
    series           pad to 16 | uvarint len | body | crc32c(body) BE
    body             uvarint #labels | (uvarint name, uvarint value)* | uvarint #chunks | first chunk | next chunk*
    first chunk      varint min time | uvarint max - min | uvarint ref
    next chunk       uvarint min - previous max | uvarint max - min | varint ref - previous ref
    postings list    u32 BE len | u32 BE #entries | u32 BE series offset / 16 ascending ... | crc32c BE over all but len
    table entry      02 | uvarint len, name | uvarint len, value | uvarint offset of the postings list

Source: Prometheus tsdb/docs/format/index.md, version 2. Twin: tests/reference/block_index.py.
"""

from __future__ import annotations

import numpy as np
from numba import types

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline, kernel, u8_in, u8_out
from mimir_ingest.kernels.crc32c import crc32c_inline

i32_2d_in = types.Array(types.int32, 2, "C", readonly=True)
i64_2d_in = types.Array(types.int64, 2, "C", readonly=True)

SERIES_ALIGNMENT = 16


@inline
def put_uvarint(out, at, value):
    """Write an unsigned LEB128 number (uint64); return the position after it."""
    while value >= np.uint64(0x80):
        out[at] = (value & np.uint64(0x7F)) | np.uint64(0x80)
        value >>= np.uint64(7)
        at += 1
    out[at] = value
    return at + 1


@inline
def put_varint(out, at, value):
    """Write a zig-zag number (int64); return the position after it."""
    return put_uvarint(out, at, np.uint64((value << 1) ^ (value >> 63)))


@inline
def put_be32(out, at, value):
    """Write four bytes, most significant first; return the position after them."""
    out[at] = (value >> 24) & 0xFF
    out[at + 1] = (value >> 16) & 0xFF
    out[at + 2] = (value >> 8) & 0xFF
    out[at + 3] = value & 0xFF
    return at + 4


@inline
def _uvarint_size(value):
    size = 1
    while value >= np.uint64(0x80):
        value >>= np.uint64(7)
        size += 1
    return size


@inline
def _put_string(out, at, text, start, end):
    at = put_uvarint(out, at, np.uint64(end - start))
    for i in range(start, end):
        out[at] = text[i]
        at += 1
    return at


@kernel(i64(u8_in, i64_in, u8_out))
def write_symbols(text, offsets, out):
    """Write symbols `text[offsets[i]:offsets[i + 1]]`; return the bytes written (at most 5 a symbol more than text)."""
    at = 0
    for i in range(len(offsets) - 1):
        at = _put_string(out, at, text, offsets[i], offsets[i + 1])
    return at


@inline
def _follows(codes, refs, column_starts, series):
    """Whether label set `series` is greater than the one before, compared as sequences of (name, value)."""
    columns = codes.shape[0]
    for column in range(columns):
        before, own = codes[column, series - 1], codes[column, series]
        if before == own:
            continue
        if before >= 0 and own >= 0:
            return refs[column_starts[column] + before] < refs[column_starts[column] + own]
        # One has this label, the other has ended (it is less) or goes on with a greater name (it is greater).
        shorter = series - 1 if before < 0 else series
        goes_on = False
        for later in range(column + 1, columns):
            if codes[later, shorter] >= 0:
                goes_on = True
                break
        return goes_on == (own < 0)
    return False


@kernel(i64(i32_2d_in, i64_in, i64_in, i64_in, i64_in, i64_2d_in, u8_out, i64_out))
def write_series(codes, name_refs, value_refs, column_starts, chunk_offsets, chunks, out, refs_out):
    """Write series entries, the first at `out[0]`.

    Parameters
    ----------
    codes : int32[names, n]
        Codes of a LabelFrame.
    name_refs : int64[names]
        Symbol of each label name, ascending.
    value_refs, column_starts
        Symbol of each value, as in the module's header.
    chunk_offsets : int64[n + 1]
        Series i has the chunks `chunk_offsets[i]:chunk_offsets[i + 1]`, in order.
    chunks : int64[3, k]
        Min time (ms), max time (ms) and chunk reference.
    out : uint8[...], written
        Room for the entries: 20 bytes a label, 30 a chunk, 64 a series are always enough.
    refs_out : int64[n], written
        Each entry's offset in `out`, over 16.

    Returns
    -------
    int64
        Bytes written, or `-i` if series i is not greater than series i - 1.
    """
    at = 0
    columns, n = codes.shape
    for series in range(n):
        if series > 0 and not _follows(codes, value_refs, column_starts, series):
            return -series
        while at % SERIES_ALIGNMENT:
            out[at] = 0
            at += 1
        refs_out[series] = at // SERIES_ALIGNMENT
        # The length's own size is known afterwards: leave two bytes, and move the body when it needs other than that.
        body = at + 2
        end = body
        count = 0
        for column in range(columns):
            if codes[column, series] >= 0:
                count += 1
        end = put_uvarint(out, end, np.uint64(count))
        for column in range(columns):
            code = codes[column, series]
            if code >= 0:
                end = put_uvarint(out, end, np.uint64(name_refs[column]))
                end = put_uvarint(out, end, np.uint64(value_refs[column_starts[column] + code]))
        first, last = chunk_offsets[series], chunk_offsets[series + 1]
        end = put_uvarint(out, end, np.uint64(last - first))
        for chunk in range(first, last):
            min_time, max_time, ref = chunks[0, chunk], chunks[1, chunk], chunks[2, chunk]
            if chunk == first:
                end = put_varint(out, end, min_time)
            else:
                end = put_uvarint(out, end, np.uint64(min_time - chunks[1, chunk - 1]))
            end = put_uvarint(out, end, np.uint64(max_time - min_time))
            if chunk == first:
                end = put_uvarint(out, end, np.uint64(ref))
            else:
                end = put_varint(out, end, ref - chunks[2, chunk - 1])
        size = end - body
        shift = _uvarint_size(np.uint64(size)) - 2
        if shift < 0:
            for i in range(body, end):
                out[i + shift] = out[i]
        elif shift > 0:
            for i in range(end - 1, body - 1, -1):
                out[i + shift] = out[i]
        body += shift
        put_uvarint(out, at, np.uint64(size))
        at = put_be32(out, body + size, np.int64(crc32c_inline(out[body : body + size])))
    return at


@kernel(i64(i32_2d_in, i64_in, i64_in, i64_out))
def count_postings(codes, posting_of, column_starts, counts_out):
    """Add the series of each postings list to `counts_out`; return the number of labels."""
    columns, n = codes.shape
    total = 0
    for column in range(columns):
        for series in range(n):
            code = codes[column, series]
            if code >= 0:
                counts_out[posting_of[column_starts[column] + code]] += 1
                total += 1
    return total


@kernel(i64(i32_2d_in, i64_in, i64_in, i64_in, i64_in, i64_out, u8_out))
def write_postings(codes, posting_of, column_starts, series_refs, list_starts, cursors_out, out):
    """Write all postings lists.

    Parameters
    ----------
    codes, column_starts
        As in `write_series`.
    posting_of : int64[...]
        List of each value, as in the module's header; list 0 holds every series.
    series_refs : int64[n]
        Offset of each series in the file, over 16; ascending.
    list_starts : int64[p + 1]
        List i is written to `out[list_starts[i]:list_starts[i + 1]]`, which is 12 bytes and 4 an entry.
    cursors_out : int64[p]
        Scratch.

    Returns
    -------
    int64
        Entries written.
    """
    columns, n = codes.shape
    lists = len(list_starts) - 1
    for i in range(lists):
        cursors_out[i] = list_starts[i] + 8
    for series in range(n):
        cursors_out[0] = put_be32(out, cursors_out[0], series_refs[series])
    for column in range(columns):
        for series in range(n):
            code = codes[column, series]
            if code >= 0:
                i = posting_of[column_starts[column] + code]
                cursors_out[i] = put_be32(out, cursors_out[i], series_refs[series])
    total = 0
    for i in range(lists):
        start, end = list_starts[i], cursors_out[i]
        count = (end - start - 8) // 4
        put_be32(out, start, 4 + 4 * count)
        put_be32(out, start + 4, count)
        put_be32(out, end, np.int64(crc32c_inline(out[start + 4 : end])))
        total += count
    return total


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i64_in, u8_out))
def write_postings_offsets(text, symbol_offsets, name_refs, value_refs, list_offsets, out):
    """Write the entries of the postings offset table; return the bytes written.

    Entry i is for symbols `name_refs[i]` and `value_refs[i]` and the list at file offset `list_offsets[i]`; it takes at
    most 21 bytes more than its strings.
    """
    at = 0
    for i in range(len(name_refs)):
        out[at] = 2
        name, value = name_refs[i], value_refs[i]
        at = _put_string(out, at + 1, text, symbol_offsets[name], symbol_offsets[name + 1])
        at = _put_string(out, at, text, symbol_offsets[value], symbol_offsets[value + 1])
        at = put_uvarint(out, at, np.uint64(list_offsets[i]))
    return at
