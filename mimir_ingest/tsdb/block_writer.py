"""Build a Prometheus block from sorted series: the same samples give the same bytes and the same ULID, everywhere.

The chunks are encoded as if afresh, whatever the head's own were; so a block is a function of its samples, its tenant
and its place in the log. Layout and what is ours in it: docs/format/block.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.model.samples import SeriesSamples, without_empty_series
from mimir_ingest.model.series_chunks import plan_series
from mimir_ingest.tsdb.block_meta import (
    INDEX_FILE,
    META_FILE,
    TOMBSTONES_FILE,
    PartitionRange,
    build_meta,
    encode_meta,
)
from mimir_ingest.tsdb.chunk_files import SEGMENT_BYTES, segment_path, write_chunks
from mimir_ingest.tsdb.index_writer import ChunkColumns, write_index
from mimir_ingest.tsdb.tombstones import encode_tombstones
from mimir_ingest.tsdb.ulid import format_ulid


@dataclass(frozen=True, slots=True)
class BuiltBlock:
    """A block in memory."""

    ulid: str
    meta: dict
    """The document of `meta.json`."""
    files: dict[str, bytes]
    """By relative path, in the order of publication: chunk segments, index, tombstones, and last `meta.json`."""


def build_block(
    samples: SeriesSamples,
    *,
    tenant: str,
    partition: int,
    topic_id: str,
    start_offset: int,
    cut_offset: int,
    samples_per_chunk: int = 120,
    segment_bytes: int = SEGMENT_BYTES,
) -> BuiltBlock:
    """Encode series in label order as one block.

    Series without samples are left out. Chunk j of a series of floats holds its samples `j * samples_per_chunk` and
    following; where native histograms stand between floats, and where their layout changes or a counter resets, another
    chunk begins. Raises `InvariantViolated` if the label sets or the timestamps of a series do not ascend, or if there
    is no sample.
    """
    samples = without_empty_series(samples)
    if not samples.series_count:
        raise InvariantViolated("a block without samples was asked for")
    labels = samples.labels
    _check_times(samples.offsets, samples.timestamps)
    if samples.histograms is not None:
        _check_times(samples.histograms.offsets, samples.histograms.timestamps)
    chunks = plan_series(samples, samples_per_chunk, in_block=True)
    segments, refs = write_chunks(chunks, segment_bytes=segment_bytes)
    columns = np.stack([chunks.min_ts, chunks.max_ts, refs])
    files = {segment_path(i): segment for i, segment in enumerate(segments)}
    files[INDEX_FILE] = write_index(labels, ChunkColumns(chunks.chunk_offsets, columns))
    max_time_ms = int(columns[1].max()) + 1
    ulid = format_ulid(max_time_ms, block_entropy(tenant, partition, cut_offset, files))
    files[TOMBSTONES_FILE] = encode_tombstones()
    meta = build_meta(
        ulid=ulid,
        min_time_ms=int(columns[0].min()),
        max_time_ms=max_time_ms,
        series_count=len(labels),
        sample_count=samples.sample_count,
        histogram_count=samples.histograms.sample_count if samples.histograms is not None else 0,
        chunk_count=len(refs),
        partition_range=PartitionRange(topic_id, partition, start_offset, cut_offset),
        file_sizes={path: len(file) for path, file in files.items()},
    )
    files[META_FILE] = encode_meta(meta)
    return BuiltBlock(ulid, meta, files)


def block_entropy(tenant: str, partition: int, cut_offset: int, files: dict[str, bytes]) -> bytes:
    """Return the ten bytes that tell blocks of one time apart: a hash over the place in the log and the content.

    `files` are the chunk segments in order, then the index; each goes in with its length.
    """
    digest = hashlib.sha256()
    for part in (tenant.encode(), str(partition).encode(), str(cut_offset).encode(), *files.values()):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()[:10]


def _check_times(offsets: np.ndarray, timestamps: np.ndarray) -> None:
    if offsets[0] != 0 or offsets[-1] != len(timestamps):
        raise InvariantViolated(f"offsets {offsets[0]} to {offsets[-1]} do not cover {len(timestamps)} samples")
    ascends = timestamps[1:] > timestamps[:-1]
    inner = offsets[1:-1]
    ascends[inner[(inner > 0) & (inner < len(timestamps))] - 1] = True
    if not ascends.all():
        at = int(np.argmin(ascends))
        series = int(np.searchsorted(offsets, at, side="right")) - 1
        raise InvariantViolated(
            f"series {series}: timestamp {timestamps[at + 1]} follows {timestamps[at]}, they must ascend"
        )
