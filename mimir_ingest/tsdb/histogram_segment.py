"""The native histograms of a head: staged ones as columns, sealed ones in Prometheus's histogram chunks.

Beside the floats of the same segment (segment.py), by the same rules. A chunk here begins anew where the buckets change
or a hint says so; counter resets are looked for when samples are read or cut, in their final order, so that content
does not depend on how samples came to lie in segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.head import pick_chunks
from mimir_ingest.model.histogram_chunks import (
    HistogramChunkCorrupt,
    count_samples,
    decode_chunks,
    encode_chunks,
    plan_chunks,
)
from mimir_ingest.model.histograms import Histograms, HistogramSamples, histogram_weight
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.model.spans import Check, bounded_spans

CHUNK_SAMPLES = 120

_SLICE_SAMPLES = 1 << 16
"""why: bounds the decoded columns of a merge to some 20 MB, whatever the segments' size."""

SEGMENT_COLUMNS = ("refs", "ends", "min_ts", "max_ts", "kinds", "data")


@dataclass(frozen=True, slots=True)
class StagedHistograms:
    """Histograms in the order accepted."""

    refs: np.ndarray
    """int32[m]."""
    timestamps: np.ndarray
    """int64[m] (ms)."""
    values: Histograms
    """As they are stored (`Histograms.stored`)."""


def staged_with(parts: tuple[StagedHistograms, ...], part: StagedHistograms) -> tuple[StagedHistograms, ...]:
    """Return the parts with one more behind them, those of like size joined.

    why: with a part a record, reading and copying the list would take as long as there were records. So each
    part is more than twice as long as the next: there are no more parts than the logarithm of the samples, and a
    histogram is copied twice as often at most. Were it only longer, records that get smaller would each stay a part.
    """
    joined = [part]
    kept = len(parts)
    while kept and len(parts[kept - 1].refs) <= 2 * sum(len(p.refs) for p in joined):
        kept -= 1
        joined.insert(0, parts[kept])
    if len(joined) > 1:
        part = StagedHistograms(
            np.concatenate([p.refs for p in joined]),
            np.concatenate([p.timestamps for p in joined]),
            Histograms.concat([p.values for p in joined]),
        )
    return (*parts[:kept], part)


@dataclass(frozen=True, slots=True)
class HistogramSegment:
    """Chunks sorted by (ref, time). Timestamps of one ref ascend strictly over its chunks."""

    refs: np.ndarray
    """int32[c]: series of each chunk, ascending."""
    ends: np.ndarray
    """int64[c]: chunk i is `data[ends[i - 1]:ends[i]]`, from 0 for i = 0."""
    min_ts: np.ndarray
    """int64[c] (ms)."""
    max_ts: np.ndarray
    """int64[c] (ms)."""
    kinds: np.ndarray
    """uint8[c]: 1 for float histograms, 0 for integer ones."""
    data: np.ndarray
    """uint8[...]."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(getattr(self, name).nbytes for name in SEGMENT_COLUMNS)

    @property
    def starts(self) -> np.ndarray:
        """int64[c]: where each chunk begins."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])[:-1]

    @property
    def sample_count(self) -> int:
        """Number of histograms."""
        return int(count_samples(self.data, self.starts, self.ends)[:, 0].sum())

    def renumbered(self, new_refs: np.ndarray) -> HistogramSegment:
        """Return the same chunks under other refs (int32[old refs], ascending where in use)."""
        return replace(self, refs=new_refs[self.refs])


def build_segment(refs: np.ndarray, samples: HistogramSamples) -> HistogramSegment:
    """Encode sorted samples; series i of them is `refs[i]` (int32[n], ascending)."""
    plan = plan_chunks(
        samples.values, samples.offsets, chunk_samples=CHUNK_SAMPLES, detect_resets=False, same_buckets=True
    )
    chunks = encode_chunks(samples.timestamps, samples.values, plan)
    series = np.searchsorted(samples.offsets, plan.starts[:-1], side="right") - 1
    return HistogramSegment(
        refs[series],
        chunks.ends,
        samples.timestamps[plan.starts[:-1]],
        samples.timestamps[plan.starts[1:] - 1],
        chunks.is_float.astype(np.uint8),
        chunks.data,
    )


def seal(staged: Sequence[StagedHistograms]) -> HistogramSegment | None:
    """Sort staged histograms into a segment; of equal timestamps of a series the first stays. None without any."""
    if not staged:
        return None
    refs = np.concatenate([part.refs for part in staged])
    used, positions = np.unique(refs, return_inverse=True)
    timestamps = np.concatenate([part.timestamps for part in staged])
    values = Histograms.concat([part.values for part in staged])
    rows = np.arange(len(timestamps))
    return build_segment(used.astype(np.int32), _joined(positions, timestamps, values, rows, len(used)))


def _joined(
    positions: np.ndarray,
    timestamps: np.ndarray,
    values: Histograms,
    at: np.ndarray,
    series: int,
    check: Check | None = None,
) -> HistogramSamples:
    """Sort samples by series and time; of equal timestamps the first in the order given stays.

    The histograms are `values`' rows `at`, int64[m].
    """
    order = np.lexsort((timestamps, positions))
    by, ts = positions[order], timestamps[order]
    kept = np.ones(len(order), bool)
    kept[1:] = (by[1:] != by[:-1]) | (ts[1:] != ts[:-1])
    rows = order[kept]
    offsets = np.zeros(series + 1, np.int64)
    np.cumsum(np.bincount(positions[rows], minlength=series), out=offsets[1:])
    return HistogramSamples(offsets, timestamps[rows], values.take(at[rows], check))


def read_histograms(
    segments: Sequence[HistogramSegment],
    staged: Sequence[StagedHistograms],
    refs: np.ndarray,
    start_ms: int,
    end_ms: int,
    rank: np.ndarray | None = None,
    budget: SampleBudget | None = None,
) -> HistogramSamples | None:
    """Return the histograms of some series in `[start_ms, end_ms)`; None without any.

    Hints and buckets are those received.

    Parameters
    ----------
    segments, staged
        Oldest first; staged samples are younger than all segments.
    refs : int32[n], ascending
        Series.
    rank : int64[n], optional
        Place of series `refs[i]` in the result, instead of i.
    budget : SampleBudget, optional
        What the query may read; taken from before histograms are decoded.
    """
    picked = []
    for segment in segments:
        chunks, where = np.empty(len(segment.refs), np.int64), np.empty(len(segment.refs), np.int64)
        found = pick_chunks(refs, segment.refs, segment.min_ts, segment.max_ts, start_ms, end_ms, chunks, where)
        if found:
            picked.append((segment, chunks[:found], where[:found]))
    if budget is not None and picked:
        if budget.limits_series:
            budget.check_series(np.count_nonzero(np.bincount(np.concatenate([where for _, _, where in picked]))))
        size_bytes = sum(int((s.ends[chunks] - s.starts[chunks]).sum()) for s, chunks, _ in picked)
        budget.take_chunks(sum(len(chunks) for _, chunks, _ in picked), size_bytes)
        budget.take(sum(_weight(segment, chunks) for segment, chunks, _ in picked))
    check = None if budget is None else budget.check
    parts = [_decode(*one, check) for one in picked]
    for part in staged:
        at = np.minimum(np.searchsorted(refs, part.refs), max(len(refs) - 1, 0))
        wanted = refs[at] == part.refs if len(refs) else np.zeros(len(at), bool)
        parts.append((at[wanted], part.timestamps[wanted], part.values.take(wanted)))
    positions = np.concatenate([np.empty(0, np.int64), *(p for p, _, _ in parts)])
    timestamps = np.concatenate([np.empty(0, np.int64), *(ts for _, ts, _ in parts)])
    inside = (timestamps >= start_ms) & (timestamps < end_ms)
    if not inside.any():
        return None
    values = Histograms.concat([v for _, _, v in parts])
    rows = np.flatnonzero(inside)
    positions = positions[rows]
    return _joined(positions if rank is None else rank[positions], timestamps[rows], values, rows, len(refs), check)


def _weight(segment: HistogramSegment, chunks: np.ndarray) -> int:
    samples, buckets, _ = count_samples(segment.data, segment.starts[chunks], segment.ends[chunks]).T
    return int((samples * histogram_weight(buckets)).sum())


def _decode(
    segment: HistogramSegment, chunks: np.ndarray, where: np.ndarray, check: Check | None
) -> tuple[np.ndarray, np.ndarray, Histograms]:
    """Return (positions, timestamps, histograms) of the samples of some chunks."""
    try:
        offsets, timestamps, values = decode_chunks(
            segment.data,
            segment.starts[chunks],
            segment.ends[chunks],
            segment.kinds[chunks] != 0,
            resets_begin_chunks=False,
            check=check,
        )
    except HistogramChunkCorrupt as error:
        raise InvariantViolated(f"chunk {error.chunk} of a head segment does not decode: {error.reason}") from error
    return np.repeat(where, np.diff(offsets)), timestamps, values


def rewrite(segments: Sequence[HistogramSegment], *, start_ms: int, end_ms: int) -> HistogramSegment | None:
    """Return one segment with the samples of all in `[start_ms, end_ms)`, decoding a bounded number at a time."""
    if not segments:
        return None
    refs = np.unique(np.concatenate([s.refs for s in segments]))
    counts = [count_samples(s.data, s.starts, s.ends)[:, 0] for s in segments]
    running = np.cumsum(
        sum(np.bincount(np.searchsorted(refs, s.refs), c, len(refs)) for s, c in zip(segments, counts, strict=True))
    )
    parts: list[HistogramSegment] = []
    for first, last in bounded_spans(np.concatenate([np.zeros(1, np.int64), running]), _SLICE_SAMPLES):
        found = read_histograms(segments, (), refs[first:last], start_ms, end_ms)
        if found is not None:
            filled = np.flatnonzero(np.diff(found.offsets))
            parts.append(build_segment(refs[first:last][filled], found.take(filled)))
    if len(parts) < 2:
        return parts[0] if parts else None
    shifts = np.cumsum([0, *(len(p.data) for p in parts[:-1])])
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in SEGMENT_COLUMNS}
    columns["ends"] = np.concatenate([p.ends + shift for p, shift in zip(parts, shifts, strict=True)])
    return HistogramSegment(**columns)
