"""Native histograms of a head as they are read: with the buckets of the chunks that Prometheus would have of them.

Which histograms share a chunk follows from all samples of a range of two hours, and a chunk's buckets also from samples
outside of what is asked for. Where all histograms of a series list the same buckets, as is usual, none of that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mimir_ingest.kernels.head import pick_chunks
from mimir_ingest.kernels.histogram_cuts import RANGE_MS
from mimir_ingest.model.histogram_chunks import digest_layouts
from mimir_ingest.model.histograms import Histograms, HistogramSamples
from mimir_ingest.tsdb.segment import MIN_MS, FoundSamples, Segment, Staged, read_series

_MOST_SAMPLES = 1 << 16
"""Histograms that are read beside those asked for. why: of many series that is most of the work of a short window, and
with more, buckets are those of the samples asked for."""


def as_read(
    found: FoundSamples,
    segments: Sequence[Segment],
    staged: Staged,
    refs: np.ndarray,
    series_count: int,
    start_ms: int,
    end_ms: int,
    before_ms: int,
) -> FoundSamples:
    """Return the samples with hints and buckets as a reader of a Prometheus with the same samples would see them.

    Parameters
    ----------
    found : FoundSamples
        What `read_series` found of the series `refs` (int32[n], ascending) in `[start_ms, end_ms)`.
    segments, staged, series_count
        All of the head, as `read_series` takes them.
    before_ms : int
        End of what is held.
    """
    histograms = found.histograms
    if histograms is None:
        return found
    first_ms = max(MIN_MS, start_ms // RANGE_MS * RANGE_MS)
    last_ms = min(before_ms, -(-end_ms // RANGE_MS) * RANGE_MS)
    counts = np.diff(histograms.offsets)
    touched = [s for s in segments if s.overlaps(first_ms, last_ms)]
    varied = _varied(touched, staged, refs, first_ms, last_ms)
    if varied is None:
        return found.as_read()
    varied &= counts > 0
    if not varied.any():
        return found.as_read(alike=True)
    whole = read_series(touched, staged, refs[varied], series_count, first_ms, last_ms).as_read().histograms
    assert whole is not None
    inside = (whole.timestamps >= start_ms) & (whole.timestamps < end_ms)
    of_varied = np.repeat(varied, counts)
    alike = replace(found, histograms=histograms.keep(~of_varied)).as_read(alike=True).histograms
    assert alike is not None
    places = np.empty(len(of_varied), np.int64)
    places[~of_varied] = np.arange(alike.sample_count)
    places[of_varied] = alike.sample_count + np.arange(np.count_nonzero(of_varied))
    values = Histograms.concat([alike.values, whole.values.take(inside)]).take(places)
    return replace(found, histograms=HistogramSamples(histograms.offsets, histograms.timestamps, values))


def _varied(
    segments: Sequence[Segment], staged: Staged, refs: np.ndarray, first_ms: int, last_ms: int
) -> np.ndarray | None:
    """Return bool[n]: which series list various buckets in a range; None if these have too many samples."""
    nothing = np.empty(0, np.int64)
    series, digests, counts = [nothing], [np.empty(0, np.uint64)], [nothing]
    for segment in (s.histograms for s in segments if s.histograms is not None):
        chunks, where = np.empty(len(segment.refs), np.int64), np.empty(len(segment.refs), np.int64)
        k = pick_chunks(refs, segment.refs, segment.min_ts, segment.max_ts, first_ms, last_ms, chunks, where)
        samples, found = digest_layouts(segment.data, segment.starts[chunks[:k]], segment.ends[chunks[:k]])
        series.append(where[:k])
        digests.append(found)
        counts.append(samples)
    for part in staged.histograms:
        at = np.minimum(np.searchsorted(refs, part.refs), max(len(refs) - 1, 0))
        inside = (refs[at] == part.refs) & (part.timestamps >= first_ms) & (part.timestamps < last_ms)
        series.append(at[inside])
        digests.append(part.values.bucket_digests()[inside])
        counts.append(np.ones(np.count_nonzero(inside), np.int64))
    by, digest, samples = np.concatenate(series), np.concatenate(digests), np.concatenate(counts)
    lowest, highest = np.full(len(refs), np.iinfo(np.uint64).max, np.uint64), np.zeros(len(refs), np.uint64)
    np.minimum.at(lowest, by, digest)
    np.maximum.at(highest, by, digest)
    varied = lowest < highest
    return varied if samples[varied[by]].sum() <= _MOST_SAMPLES else None
