"""Label sets without the label that tells replicas apart.

Twin: tests/reference/ha_labels.py.
"""

from __future__ import annotations

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline_checked, kernel, u8_in, u8_out
from mimir_ingest.kernels.varint import read_length
from mimir_ingest.kernels.words import copy_over


@inline_checked
def _find(labels, at, end, name):
    """Return (position, next position) of the first label of this name; `end` twice without one.

    The next position is a negative WireStatus when the bytes contradict themselves.
    """
    while at < end:
        size, content = read_length(labels, at, end)
        if content < 0:
            return end, content
        value_size, value = read_length(labels, content + size, end)
        if value < 0:
            return end, value
        if size == len(name):
            same = True
            for i in range(size):
                same &= labels[content + i] == name[i]
            if same:
                return at, value + value_size
        at = value + value_size
    return end, end


@kernel(i64(u8_in, i64_in, u8_in, u8_out, i64_out), boundscheck=True)
def drop_label(labels, label_offsets, name, labels_out, offsets_out):
    """Copy label sets without the first label of a name.

    Parameters
    ----------
    labels, label_offsets : uint8[...], int64[n + 1]
        Label bytes of n series (model/labels.py).
    name : uint8[k]
    labels_out : uint8[len(labels)], written
    offsets_out : int64[n + 1], written
        Series i without the label is `labels_out[offsets_out[i]:offsets_out[i + 1]]`.

    Returns
    -------
    int64
        Bytes written, or a negative WireStatus when label bytes contradict themselves.
    """
    written = 0
    offsets_out[0] = 0
    for i in range(len(label_offsets) - 1):
        begin, end = label_offsets[i], label_offsets[i + 1]
        at, after = _find(labels, begin, end, name)
        if after < 0:
            return after
        copy_over(labels, begin, at - begin, labels_out, written)
        written += at - begin
        copy_over(labels, after, end - after, labels_out, written)
        written += end - after
        offsets_out[i + 1] = written
    return written
