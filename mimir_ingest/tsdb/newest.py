"""Reads of each series' newest sample, which is all that a query of one moment needs of an instant selector.

A segment keeps the last sample of each chunk beside it, so chunks are decoded only where they go on past the range.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ingest.kernels.newest import newest_of_chunks, newest_of_staged
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.tsdb.segment import FoundSamples, Segment, Staged, positions_of, read_samples


def holds_histograms(segments: Sequence[Segment], staged: Staged, refs: np.ndarray, series_count: int) -> bool:
    """Whether any of the series `refs` may have native histograms there."""
    parts = [*(s.histograms for s in segments if s.histograms is not None), *staged.histograms]
    if not parts:
        return False
    held = np.zeros(series_count, bool)
    for part in parts:
        held[part.refs] = True
    return bool(held[refs].any())


def read_newest(
    segments: Sequence[Segment],
    staged: Staged,
    refs: np.ndarray,
    series_count: int,
    start_ms: int,
    end_ms: int,
    budget: SampleBudget | None = None,
) -> FoundSamples:
    """Return the newest sample of each series in `[start_ms, end_ms)`, where there is one.

    Arguments and errors as in `segment.read_samples`; the series have no histograms. Chunks count as fetched, decoded
    or not; samples only where they are read.
    """
    n = len(refs)
    found, unsure = np.zeros(n, bool), np.zeros(n, bool)
    ts, values = np.empty(n, np.int64), np.empty(n, np.float64)
    chunks, sizes = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for segment in segments:
        columns = segment.refs, segment.min_ts, segment.max_ts, segment.ends, segment.newest
        newest_of_chunks(refs, *columns, start_ms, end_ms, found, unsure, ts, values, chunks, sizes)
    if len(staged.refs):
        places = positions_of(refs, series_count)
        newest_of_staged(staged.refs, staged.timestamps, staged.values, places, start_ms, end_ms, found, ts, values)
    if budget is not None:
        if budget.limits_series:
            budget.check_series(int(np.count_nonzero(found | unsure)))
        budget.take_chunks(int(chunks[~unsure].sum()), int(sizes[~unsure].sum()))
        budget.take(int(np.count_nonzero(found & ~unsure)))
    if unsure.any():
        offsets, ts_read, values_read = read_samples(
            segments, staged, refs[unsure], series_count, start_ms, end_ms, budget=budget
        )
        filled = offsets[1:] > offsets[:-1]
        at = offsets[1:][filled] - 1
        places = unsure.nonzero()[0][filled]
        found[unsure] = filled
        ts[places], values[places] = ts_read[at], values_read[at]
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(found, out=offsets[1:])
    if offsets[-1] < n:
        ts, values = ts[found], values[found]
    return FoundSamples(offsets, ts, values, None)
