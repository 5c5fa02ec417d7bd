"""Label bytes into canonical order: names ascending, equal names in the order received.

Only for series that a client sent out of order. A merge sort, so that a series of a million labels costs what its bytes
cost, and not their square.
Twin: tests/reference/remote_write.py (which sorts as it decodes).
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline_checked, kernel, u8_out
from mimir_ingest.kernels.varint import read_uvarint
from mimir_ingest.kernels.words import compare_bytes


@inline_checked
def _name_of(labels, at):
    """Return (start of the name, its size, end of the pair) of the label at `labels[at:]`, which is well-formed."""
    size, start = read_uvarint(labels, at, len(labels))
    name_size = np.int64(size)
    size, at = read_uvarint(labels, start + name_size, len(labels))
    return start, name_size, at + np.int64(size)


@inline_checked
def _merge(labels, order, merged, starts, width, count):
    """Merge neighbouring runs of `width` labels by name, stably, from `order` into `merged`."""
    for low in range(0, count, 2 * width):
        left, right = low, min(low + width, count)
        left_end, right_end = right, min(low + 2 * width, count)
        for to in range(low, right_end):
            take_left = right >= right_end
            if left < left_end and not take_left:
                a, a_size, _ = _name_of(labels, starts[order[left]])
                b, b_size, _ = _name_of(labels, starts[order[right]])
                take_left = compare_bytes(labels, a, a_size, b, b_size) <= 0
            if take_left:
                merged[to] = order[left]
                left += 1
            else:
                merged[to] = order[right]
                right += 1


@kernel(i64(i64_in, u8_out, u8_out, i64_out, i64_out, i64_out), boundscheck=True)
def sort_labels(label_offsets, labels_out, scratch_bytes, starts, order, merged):
    """Sort the labels of every series by name, in place and stably; return how many series changed.

    Parameters
    ----------
    label_offsets : int64[n + 1], read-only
    labels_out : uint8[...], read and written
        Well-formed label bytes.
    scratch_bytes : uint8[MOST_LABEL_BYTES]
        Scratch, as are the next three, int64[MOST_LABELS + 1] each.
    """
    changed = 0
    for series in range(len(label_offsets) - 1):
        at, end = label_offsets[series], label_offsets[series + 1]
        in_order = True
        last, last_size, next_at = at, np.int64(0), at
        while next_at < end and in_order:
            start, size, next_at = _name_of(labels_out, next_at)
            in_order = last == at or compare_bytes(labels_out, last, last_size, start, size) <= 0
            last, last_size = start, size
        if in_order:
            continue
        count = 0
        next_at = at
        while next_at < end:
            starts[count] = next_at
            order[count] = count
            count += 1
            _, _, next_at = _name_of(labels_out, next_at)
        starts[count] = end
        width = 1
        while width < count:
            _merge(labels_out, order, merged, starts, width, count)
            order, merged = merged, order
            width *= 2
        used = 0
        for i in range(count):
            start = starts[order[i]]
            size = starts[order[i] + 1] - start
            for k in range(size):
                scratch_bytes[used + k] = labels_out[start + k]
            used += size
        labels_out[at:end] = scratch_bytes[:used]
        changed += 1
    return changed
