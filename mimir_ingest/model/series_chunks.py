"""Series as Prometheus chunks: which samples share a chunk, in which order chunks stand, and their bytes.

What blocks and remote read write. Chunks of a series follow one another in time: where floats and native histograms
take turns, each turn has chunks of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels import chunk_frames
from mimir_ingest.kernels.gather import gather_bytes
from mimir_ingest.kernels.histogram_plan import rank_among
from mimir_ingest.kernels.xor_chunk import encode_xor, max_encoded_size
from mimir_ingest.model.histogram_chunks import ChunkPlan, EncodedChunks, cut_chunks, encode_chunks
from mimir_ingest.model.histogram_chunks import plan_chunks as plan_histogram_chunks
from mimir_ingest.model.samples import SeriesSamples

_HISTOGRAM_WEIGHT = 16
"""Float samples that a histogram stands for where work is bounded."""


@dataclass(frozen=True, slots=True)
class SeriesChunks:
    """Planned chunks of n series, in the order in which they are written."""

    samples: SeriesSamples
    chunk_offsets: np.ndarray
    """int64[n + 1]: series i has the chunks `chunk_offsets[i]:chunk_offsets[i + 1]`."""
    min_ts: np.ndarray
    """int64[k] (ms): first sample of each chunk."""
    max_ts: np.ndarray
    """int64[k] (ms): last sample of each chunk."""
    weights: np.ndarray
    """int64[k]: samples of each chunk, a histogram counting as several."""
    starts: np.ndarray
    """int64[f + 1]: float chunk j holds the samples `starts[j]:starts[j + 1]`."""
    histogram_plan: ChunkPlan | None
    order: np.ndarray | None
    """int64[k]: chunks by number, f and more being histogram chunks; None: there are none of these."""

    def encode(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode the chunks `[first:last]`; return (uint8[...] data, int64[n] ends, uint8[n] encodings)."""
        if self.order is None:
            data, ends = self._encode_floats(first, last)
            return data, ends, np.full(len(ends), chunk_frames.ENCODING_XOR, np.uint8)
        numbers = self.order[first:last]
        is_float = numbers < len(self.starts) - 1
        # Numbers of a kind follow one another, since both kinds are numbered by series and time.
        floats, histograms = numbers[is_float], numbers[~is_float] - (len(self.starts) - 1)
        data, ends = self._encode_floats(int(floats[0]), int(floats[-1]) + 1) if len(floats) else _NOTHING
        if not len(histograms):
            return data, ends, np.full(len(ends), chunk_frames.ENCODING_XOR, np.uint8)
        others = self._encode_histograms(int(histograms[0]), int(histograms[-1]) + 1)
        offsets = np.concatenate([[0], ends, others.ends + len(data)])
        kinds = np.where(others.is_float, chunk_frames.ENCODING_FLOAT_HISTOGRAM, chunk_frames.ENCODING_HISTOGRAM)
        encodings = np.full(len(numbers), chunk_frames.ENCODING_XOR, np.uint8)
        encodings[~is_float] = kinds
        where = np.where(is_float, np.cumsum(is_float) - 1, len(floats) + np.cumsum(~is_float) - 1)
        placed = np.concatenate([[0], np.cumsum(np.diff(offsets)[where])])
        out = np.empty(placed[-1], np.uint8)
        gather_bytes(np.concatenate([data, others.data]), offsets, where, placed, out)
        return out, placed[1:], encodings

    def _encode_floats(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        starts = self.starts[first : last + 1]
        encoded = np.empty(max_encoded_size(np.diff(starts)), np.uint8)
        ends = np.empty(last - first, np.int64)
        size = encode_xor(self.samples.timestamps, self.samples.values, starts, encoded, ends)
        if size < 0:
            raise InvariantViolated(f"chunks of up to {np.diff(starts).max()} samples do not encode: status {size}")
        return encoded[:size], ends

    def _encode_histograms(self, first: int, last: int) -> EncodedChunks:
        plan, histograms = self.histogram_plan, self.samples.histograms
        assert plan is not None
        assert histograms is not None
        starts = plan.starts[first : last + 1]
        rows = np.arange(starts[0], starts[-1])
        part = ChunkPlan(starts - starts[0], plan.headers[first:last])
        return encode_chunks(histograms.timestamps[rows], histograms.values.take(rows), part)


_NOTHING = np.empty(0, np.uint8), np.empty(0, np.int64)


def plan_series(samples: SeriesSamples, samples_per_chunk: int, *, in_block: bool) -> SeriesChunks:
    """Split series into chunks of at most `samples_per_chunk` samples, counted from a series' first sample.

    Native histograms: in a block, the chunks that Prometheus would make, so that they are read with the buckets with
    which they are read there; else chunks of at most so many, in which histograms keep the buckets and hints that they
    have.

    Timestamps ascend within a series, over both kinds together. Raises InvariantViolated for a time with both.
    """
    offsets, ts, histograms = samples.offsets, samples.timestamps, samples.histograms
    if histograms is None:
        chunk_offsets, starts = plan_chunks(offsets, samples_per_chunk)
        first, last = ts[starts[:-1]], ts[starts[1:] - 1]
        return SeriesChunks(samples, chunk_offsets, first, last, np.diff(starts), starts, None, None)
    ranks, histogram_ranks = np.empty(len(ts), np.int64), np.empty(histograms.sample_count, np.int64)
    shared = rank_among(offsets, ts, histograms.offsets, histograms.timestamps, ranks)
    if shared:
        raise InvariantViolated(f"{shared} timestamps have a float and a histogram")
    rank_among(histograms.offsets, histograms.timestamps, offsets, ts, histogram_ranks)
    _, starts = plan_chunks(_run_bounds(offsets, ranks), samples_per_chunk)
    if in_block:
        plan = cut_chunks(histograms.values, histograms.timestamps, histograms.offsets, histogram_ranks)
    else:
        plan = plan_histogram_chunks(
            histograms.values,
            histograms.offsets,
            chunk_samples=samples_per_chunk,
            detect_resets=True,
            same_buckets=True,
            hinted=True,
            runs=histogram_ranks,
        )
    first = np.concatenate([ts[starts[:-1]], histograms.timestamps[plan.starts[:-1]]])
    last = np.concatenate([ts[starts[1:] - 1], histograms.timestamps[plan.starts[1:] - 1]])
    weights = np.concatenate([np.diff(starts), _HISTOGRAM_WEIGHT * np.diff(plan.starts)])
    series = np.concatenate(
        [
            np.searchsorted(offsets, starts[:-1], side="right") - 1,
            np.searchsorted(histograms.offsets, plan.starts[:-1], side="right") - 1,
        ]
    )
    order = np.lexsort((first, series))
    chunk_offsets = np.concatenate([[0], np.cumsum(np.bincount(series, minlength=samples.series_count))])
    return SeriesChunks(samples, chunk_offsets, first[order], last[order], weights[order], starts, plan, order)


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


def _run_bounds(offsets: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the bounds of runs of samples with one series and one rank among the other kind's."""
    if not len(ranks):
        return np.zeros(1, np.int64)
    begins = np.ones(len(ranks), bool)
    begins[1:] = ranks[1:] != ranks[:-1]
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    return np.append(np.flatnonzero(begins), len(ranks))
