"""Copy chosen spans of one buffer next to each other in another."""

from __future__ import annotations

from mimir_ingest.kernels._jit import f64_in, f64_out, i64, i64_in, i64_out, kernel, u8_in, u8_out
from mimir_ingest.kernels.words import copy_over


@kernel(i64(u8_in, i64_in, i64_in, i64_in, u8_out))
def gather_bytes(data, offsets, index, offsets_out, out):
    """Copy the spans `index` of `data`.

    Parameters
    ----------
    data : uint8[...]
    offsets : int64[n + 1]
        Span i is `data[offsets[i]:offsets[i + 1]]`.
    index : int64[k]
        Spans to copy, each in `[0, n)`.
    offsets_out : int64[k + 1]
        Where each copy goes, worked out by the caller.
    out : uint8[offsets_out[-1]], written

    Returns
    -------
    int64
        Bytes written.
    """
    for row in range(len(index)):
        at = offsets[index[row]]
        copy_over(data, at, offsets[index[row] + 1] - at, out, offsets_out[row])
    return offsets_out[len(index)]


@kernel(i64(i64_in, f64_in, i64_in, i64_in, i64_out, f64_out))
def gather_samples(timestamps, values, offsets, index, timestamps_out, values_out):
    """Copy the samples of the series `index`; parameters as in `gather_bytes`. Returns samples written."""
    written = 0
    for row in range(len(index)):
        for i in range(offsets[index[row]], offsets[index[row] + 1]):
            timestamps_out[written] = timestamps[i]
            values_out[written] = values[i]
            written += 1
    return written
