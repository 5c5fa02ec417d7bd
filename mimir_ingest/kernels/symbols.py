"""References to symbols into label bytes.

`symbols` is int64[2 * n]: symbol i is `data[symbols[2 * i]:symbols[2 * i + 1]]`; an end before its start marks a
reference that means nothing.
Twin: tests/reference/symbolized.py (which resolves references as it decodes).
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i32_in, i64, i64_in, i64_out, inline_checked, kernel, u8_in, u8_out
from mimir_ingest.kernels.varint import uvarint_size, write_uvarint
from mimir_ingest.kernels.words import compare_bytes, copy_over

UNSORTED, MOST_LABELS, MOST_LABEL_BYTES = range(3)
"""Indexes of `measure_labels`'s counts; the last two are maxima over series whose labels are out of order."""


@inline_checked
def symbol_size(symbols, ref):
    """Return the size of a symbol; negative when the reference means nothing."""
    if 2 * ref >= len(symbols):
        return np.int64(-1)
    return symbols[2 * ref + 1] - symbols[2 * ref]


@kernel(i64(u8_in, i64_in, i32_in, i64_in, i64_out, i64_out), boundscheck=True)
def measure_labels(data, symbols, refs, ref_offsets, label_offsets_out, counts_out):
    """Work out where the label bytes of each series will lie, and which are out of order.

    Parameters
    ----------
    data, symbols
        See the module.
    refs : int32[...], read-only
        References to names and values in turn, all valid, as the next.
    ref_offsets : int64[SERIES + 1], read-only
    label_offsets_out : int64[SERIES + 1], written
    counts_out : int64[3], written
        UNSORTED (series), MOST_LABELS, MOST_LABEL_BYTES.

    Returns
    -------
    int64
        Label bytes of all series.
    """
    counts_out[:] = 0
    total = np.int64(0)
    label_offsets_out[0] = 0
    for series in range(len(ref_offsets) - 1):
        first, end = ref_offsets[series], ref_offsets[series + 1]
        in_order = True
        for i in range(first, end):
            ref = np.int64(refs[i])
            size = symbol_size(symbols, ref)
            total += uvarint_size(np.uint64(size)) + size
            if in_order and i % 2 == 0 and i > first and refs[i - 2] != refs[i]:
                last = np.int64(refs[i - 2])
                order = compare_bytes(data, symbols[2 * last], symbol_size(symbols, last), symbols[2 * ref], size)
                in_order = order <= 0
        if not in_order:
            counts_out[UNSORTED] += 1
            counts_out[MOST_LABELS] = max(counts_out[MOST_LABELS], (end - first) // 2)
            counts_out[MOST_LABEL_BYTES] = max(counts_out[MOST_LABEL_BYTES], total - label_offsets_out[series])
        label_offsets_out[series + 1] = total
    return total


@kernel(i64(u8_in, i64_in, i32_in, u8_out), boundscheck=True)
def write_labels(data, symbols, refs, labels_out):
    """Write label bytes, in the order of `refs`, to uint8[what `measure_labels` returned]; return how many."""
    to = np.int64(0)
    for i in range(len(refs)):
        start = symbols[2 * refs[i]]
        size = symbols[2 * refs[i] + 1] - start
        to = write_uvarint(np.uint64(size), labels_out, to)
        copy_over(data, start, size, labels_out, to)
        to += size
    return to
