"""Remote read responses: columns to messages.

Two response types (spec http-api 6.9): SAMPLES, one message with everything, which the API sends as a snappy block, and
STREAMED_XOR_CHUNKS, a stream of checksummed frames in which a series has its samples as XOR chunks. Values are
bit-exact in both, `-0` and staleness markers included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels import read_response as kernels
from mimir_ingest.kernels.xor_chunk import encode_xor, max_encoded_size
from mimir_ingest.model.labels import LabelFrame, put_uvarint
from mimir_ingest.model.samples import SeriesSamples

SAMPLES_CONTENT_TYPE = "application/x-protobuf"
STREAMED_CONTENT_TYPE = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
MAX_FRAME_BYTES = 1 << 20
_SAMPLES_A_CALL = 1 << 16
_SAMPLES_A_CHUNK = 120


@dataclass(frozen=True, slots=True)
class _Pairs:
    """The label pairs of a frame, each encoded once (kernels/read_response.py)."""

    encoded: np.ndarray
    offsets: np.ndarray
    refs: np.ndarray
    """int64[n, names]"""


def _encode_pairs(frame: LabelFrame) -> _Pairs:
    encoded: list[bytes] = []
    refs = np.full((frame.n, len(frame.names)), -1, np.int64)
    for row, (name, codes, values) in enumerate(zip(frame.names, frame.codes, frame.values, strict=True)):
        used, inverse = np.unique(codes, return_inverse=True)
        absent = int(len(used) > 0 and used[0] < 0)
        refs[:, row] = np.where(inverse >= absent, inverse + len(encoded) - absent, -1)
        head = _field(1, name.encode())
        encoded += [_field(1, head + _field(2, values[code].encode())) for code in used[absent:].tolist()]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return _Pairs(np.frombuffer(b"".join(encoded), np.uint8), offsets, refs)


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    out = bytearray([number << 3 | 2])
    put_uvarint(out, len(content))
    return bytes(out + content)


def encode_samples(results: Sequence[SeriesSamples]) -> bytes:
    """Return an uncompressed ReadResponse of type SAMPLES: one result a query, series sorted by labels."""
    return b"".join(_field(1, _encode_result(samples)) for samples in results)


def _encode_result(samples: SeriesSamples) -> bytes:
    samples = samples.in_label_order()
    pairs = _encode_pairs(samples.labels)
    refs = pairs.refs.reshape(-1)
    sizes = np.empty(samples.series_count, np.int64)
    total = kernels.measure_series(pairs.offsets, refs, samples.offsets, samples.timestamps, samples.values, sizes)
    out = np.empty(total, np.uint8)
    kernels.write_series(
        pairs.encoded, pairs.offsets, refs, samples.offsets, samples.timestamps, samples.values, sizes, out
    )
    return out.tobytes()


def encode_frames(
    samples: SeriesSamples, query_index: int, *, max_frame_bytes: int = MAX_FRAME_BYTES
) -> Iterator[bytes]:
    """Yield the frames of one query's result, several frames a piece; series sorted by labels.

    Parameters
    ----------
    samples : SeriesSamples
        A series without samples gives no frame.
    query_index : int
        Number of the query in the request.
    max_frame_bytes : int
        A series goes on in another frame, its labels repeated, once labels and chunks of one reach this size.
    """
    samples = samples.in_label_order()
    pairs = _encode_pairs(samples.labels)
    at = 0
    while at < samples.series_count:
        limit = int(samples.offsets[at]) + _SAMPLES_A_CALL
        stop = max(at + 1, int(np.searchsorted(samples.offsets, limit, side="right")) - 1)
        if samples.offsets[stop] > samples.offsets[at]:
            yield _encode_frames(samples, pairs, at, stop, query_index, max_frame_bytes)
        at = stop


def _encode_frames(
    samples: SeriesSamples, pairs: _Pairs, at: int, stop: int, query_index: int, max_frame_bytes: int
) -> bytes:
    """Return the frames of the series `at:stop`, of which one has samples."""
    counts = np.diff(samples.offsets[at : stop + 1])
    chunks = -(-counts // _SAMPLES_A_CHUNK)
    chunk_offsets = np.concatenate([[0], np.cumsum(chunks)]).astype(np.int64)
    within = np.arange(chunk_offsets[-1]) - np.repeat(chunk_offsets[:-1], chunks)
    starts = np.append(np.repeat(samples.offsets[at:stop], chunks) + within * _SAMPLES_A_CHUNK, samples.offsets[stop])
    data = np.empty(max_encoded_size(np.diff(starts)), np.uint8)
    ends = np.empty(len(starts) - 1, np.int64)
    if (status := encode_xor(samples.timestamps, samples.values, starts, data, ends)) < 0:
        raise InvariantViolated(f"{len(ends)} chunks do not fit into {len(data)} bytes: status {status}")
    columns = (
        pairs.encoded,
        pairs.offsets,
        pairs.refs[at:stop].reshape(-1),
        chunk_offsets,
        samples.timestamps[starts[:-1]],
        samples.timestamps[starts[1:] - 1],
        data,
        ends,
        query_index,
        max_frame_bytes,
    )
    out = np.empty(kernels.write_frames(*columns, np.empty(0, np.uint8)), np.uint8)
    kernels.write_frames(*columns, out)
    return out.tobytes()
