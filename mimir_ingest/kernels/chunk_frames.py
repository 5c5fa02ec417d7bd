"""Chunks as they lie in a chunk segment file: `uvarint len(data) | encoding u8 | data | crc32c(encoding, data) BE`.

Source: Prometheus tsdb/docs/format/chunks.md. Twin: tests/reference/block_index.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline, kernel, u8_in, u8_out
from mimir_ingest.kernels.crc32c import crc32c_inline
from mimir_ingest.kernels.index_entries import put_be32, put_uvarint

ENCODING_XOR, ENCODING_HISTOGRAM, ENCODING_FLOAT_HISTOGRAM = 1, 2, 3
HISTOGRAM_ENCODINGS = (ENCODING_HISTOGRAM, ENCODING_FLOAT_HISTOGRAM)

FRAME_OVERHEAD = 10
"""Bytes of a frame beyond its data, at most: five of length, one of encoding, four of checksum."""

BAD_LENGTH, BAD_CHECKSUM = 1, 2
"""Reasons in the status of `scan_frames`, which is `-(4 * frame + reason)`."""


@kernel(i64(u8_in, i64_in, u8_in, u8_out, i64_out))
def write_frames(data, ends, encodings, out, starts_out):
    """Frame chunks `data[ends[i - 1]:ends[i]]`, encoded as `encodings[i]`, back to back; return the bytes written.

    `starts_out` (int64[k]) gets the position of each frame in `out`.
    """
    at = 0
    begin = 0
    for i in range(len(ends)):
        end = ends[i]
        starts_out[i] = at
        at = put_uvarint(out, at, np.uint64(end - begin))
        body = at
        out[at] = encodings[i]
        at += 1
        out[at : at + end - begin] = data[begin:end]
        at += end - begin
        at = put_be32(out, at, np.int64(crc32c_inline(out[body:at])))
        begin = end
    return at


@inline
def _be32(data, at):
    return (
        (np.int64(data[at]) << 24)
        | (np.int64(data[at + 1]) << 16)
        | (np.int64(data[at + 2]) << 8)
        | np.int64(data[at + 3])
    )


@kernel(i64(u8_in, i64_in, i64_in, i64_out, i64_out, i64_out), boundscheck=True)
def scan_frames(data, starts, limits, data_starts_out, data_ends_out, encodings_out):
    """Find and checksum the data of frames.

    Parameters
    ----------
    data : uint8[...]
        Pieces of chunk segments; may be hostile.
    starts, limits : int64[k]
        Frame i begins at `starts[i]`, and `data` has its piece up to `limits[i]`.
    data_starts_out, data_ends_out : int64[k], written
        Its data is `data[data_starts_out[i]:data_ends_out[i]]`. If the piece ends before the frame does,
        `encodings_out[i]` is -1 and `data_ends_out[i]` is at least the end of the data.
    encodings_out : int64[k], written

    Returns
    -------
    int64
        Number of frames whose piece is too short, or `-(4 * frame + reason)`.
    """
    short = 0
    for i in range(len(starts)):
        at, limit = starts[i], min(limits[i], np.int64(len(data)))
        size, shift = np.int64(0), 0
        complete = False
        while 0 <= at < limit:
            byte = np.int64(data[at])
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                complete = True
                break
            shift += 7
            if shift > 28:
                return -(4 * i + BAD_LENGTH)
        data_starts_out[i] = at + 1
        data_ends_out[i] = at + 1 + size
        if not complete or at + 1 + size + 4 > limit:
            encodings_out[i] = -1
            short += 1
            continue
        end = at + 1 + size
        if np.int64(crc32c_inline(data[at:end])) != _be32(data, end):
            return -(4 * i + BAD_CHECKSUM)
        encodings_out[i] = data[at]
    return short
