"""Build a Prometheus block from sorted series: the same samples give the same bytes and the same ULID, everywhere.

The chunks are encoded as if afresh, whatever the head's own were; so a block is a function of its samples, its tenant
and its place in the log. Layout and what is ours in it: docs/format/block.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.histogram_plan import rank_among
from mimir_ingest.model.histogram_chunks import plan_chunks as plan_histogram_chunks
from mimir_ingest.model.samples import SeriesSamples, without_empty_series
from mimir_ingest.tsdb.block_meta import (
    INDEX_FILE,
    META_FILE,
    TOMBSTONES_FILE,
    PartitionRange,
    build_meta,
    encode_meta,
)
from mimir_ingest.tsdb.chunk_files import SEGMENT_BYTES, PlannedChunks, segment_path, write_chunks
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
    chunk_offsets, chunks, times = _plan(samples, samples_per_chunk)
    segments, refs = write_chunks(chunks, segment_bytes=segment_bytes)
    columns = np.concatenate([times, refs[None, :]])
    files = {segment_path(i): segment for i, segment in enumerate(segments)}
    files[INDEX_FILE] = write_index(labels, ChunkColumns(chunk_offsets, columns))
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


def plan_chunks(offsets: np.ndarray, samples_per_chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut each series into chunks of `samples_per_chunk` samples, the last one shorter.

    Parameters
    ----------
    offsets : int64[n + 1]
        Series i has the samples `offsets[i]:offsets[i + 1]`, at least one.

    Returns
    -------
    chunk_offsets : int64[n + 1]
        Series i has the chunks `chunk_offsets[i]:chunk_offsets[i + 1]`.
    starts : int64[k + 1]
        Chunk j has the samples `starts[j]:starts[j + 1]`.
    """
    counts = -(-np.diff(offsets) // samples_per_chunk)
    chunk_offsets = np.concatenate([[0], np.cumsum(counts)])
    number = np.arange(chunk_offsets[-1]) - np.repeat(chunk_offsets[:-1], counts)
    starts = np.repeat(offsets[:-1], counts) + number * samples_per_chunk
    return chunk_offsets, np.concatenate([starts, offsets[-1:]])


def _plan(samples: SeriesSamples, samples_per_chunk: int) -> tuple[np.ndarray, PlannedChunks, np.ndarray]:
    """Return (int64[n + 1] chunk offsets, chunks, int64[2, k] first and last time of each, in the order written)."""
    offsets, ts, histograms = samples.offsets, samples.timestamps, samples.histograms
    if histograms is None:
        chunk_offsets, starts = plan_chunks(offsets, samples_per_chunk)
        times = np.stack([ts[starts[:-1]], ts[starts[1:] - 1]])
        return chunk_offsets, PlannedChunks(ts, samples.values, starts), times
    _check_times(histograms.offsets, histograms.timestamps)
    ranks, histogram_ranks = np.empty(len(ts), np.int64), np.empty(histograms.sample_count, np.int64)
    shared = rank_among(offsets, ts, histograms.offsets, histograms.timestamps, ranks)
    if shared:
        raise InvariantViolated(f"{shared} timestamps have a float and a histogram")
    rank_among(histograms.offsets, histograms.timestamps, offsets, ts, histogram_ranks)
    _, starts = plan_chunks(_run_bounds(offsets, ranks), samples_per_chunk)
    plan = plan_histogram_chunks(
        histograms.values, histograms.offsets, chunk_samples=samples_per_chunk, detect_resets=True, runs=histogram_ranks
    )
    first, last = (
        np.concatenate([ts[starts[bounds] - back], histograms.timestamps[plan.starts[bounds] - back]])
        for bounds, back in ((slice(None, -1), 0), (slice(1, None), 1))
    )
    series = np.concatenate(
        [
            np.searchsorted(offsets, starts[:-1], side="right") - 1,
            np.searchsorted(histograms.offsets, plan.starts[:-1], side="right") - 1,
        ]
    )
    order = np.lexsort((first, series))
    chunk_offsets = np.concatenate([[0], np.cumsum(np.bincount(series, minlength=samples.series_count))])
    chunks = PlannedChunks(ts, samples.values, starts, histograms, plan, order)
    return chunk_offsets, chunks, np.stack([first[order], last[order]])


def _run_bounds(offsets: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the bounds of runs of samples with one series and one rank among the other kind's."""
    if not len(ranks):
        return np.zeros(1, np.int64)
    begins = np.ones(len(ranks), bool)
    begins[1:] = ranks[1:] != ranks[:-1]
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    return np.append(np.flatnonzero(begins), len(ranks))


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
