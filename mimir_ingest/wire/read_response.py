"""Remote read responses: columns to messages.

Two response types (spec http-api 6.9): SAMPLES, one message with everything, which the API sends as a snappy block, and
STREAMED_XOR_CHUNKS, a stream of checksummed frames in which a series has its samples as chunks. Values are
bit-exact in both, `-0` and staleness markers included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels import read_response as kernels
from mimir_ingest.model.labels import LabelFrame, put_uvarint
from mimir_ingest.model.samples import SeriesSamples, without_empty_series
from mimir_ingest.model.series_chunks import SeriesChunks, plan_series
from mimir_ingest.wire.histograms import TIME_SERIES, encode_histograms

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
    return b"".join(_field(1, encode_series(samples)) for samples in results)


def encode_series(samples: SeriesSamples) -> bytes:
    """Return series as fields 1 of type TimeSeries, sorted by labels: a QueryResult, and as well a WriteRequest 1.0."""
    samples = samples.in_label_order()
    pairs = _encode_pairs(samples.labels)
    refs = pairs.refs.reshape(-1)
    sizes = np.empty(samples.series_count, np.int64)
    floats = samples.offsets, samples.timestamps, samples.values
    histograms, offsets = np.empty(0, np.uint8), np.empty(0, np.int64)
    if samples.histograms is not None:
        histograms, offsets = encode_histograms(samples.histograms, TIME_SERIES[1])
    out = np.empty(kernels.measure_series(pairs.offsets, refs, *floats, offsets, sizes), np.uint8)
    kernels.write_series(pairs.encoded, pairs.offsets, refs, *floats, histograms, offsets, sizes, out)
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
    samples = without_empty_series(samples).in_label_order()
    pairs = _encode_pairs(samples.labels)
    chunks = plan_series(samples, _SAMPLES_A_CHUNK, in_block=False)
    running = np.concatenate([[0], np.cumsum(chunks.weights)])[chunks.chunk_offsets]
    at = 0
    while at < samples.series_count:
        stop = max(at + 1, int(np.searchsorted(running, running[at] + _SAMPLES_A_CALL, side="right")) - 1)
        yield _encode_frames(chunks, pairs, at, stop, query_index, max_frame_bytes)
        at = stop


def _encode_frames(
    chunks: SeriesChunks, pairs: _Pairs, at: int, stop: int, query_index: int, max_frame_bytes: int
) -> bytes:
    """Return the frames of the series `at:stop`."""
    first, last = int(chunks.chunk_offsets[at]), int(chunks.chunk_offsets[stop])
    data, ends, encodings = chunks.encode(first, last)
    columns = (
        pairs.encoded,
        pairs.offsets,
        pairs.refs[at:stop].reshape(-1),
        chunks.chunk_offsets[at : stop + 1] - first,
        chunks.min_ts[first:last],
        chunks.max_ts[first:last],
        data,
        ends,
        encodings,
        query_index,
        max_frame_bytes,
    )
    out = np.empty(kernels.write_frames(*columns, np.empty(0, np.uint8)), np.uint8)
    kernels.write_frames(*columns, out)
    return out.tobytes()
