"""Immutable pieces of a head: samples sorted by series, in chunks, and the columns that find them.

A head's samples are a list of segments, oldest first, and staged samples that are in no segment yet. A sample stands in
the segment of its acceptance, so that of equal timestamps in several segments the one of the earliest segment counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.head import group_samples, pick_chunks, pick_staged, plan_chunks
from mimir_ingest.kernels.histogram_plan import rank_among
from mimir_ingest.kernels.small_reads import place_of
from mimir_ingest.kernels.xor_chunk import count_xor, decode_xor, encode_xor, max_encoded_size
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.histogram_chunks import as_read
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.model.spans import bounded_spans
from mimir_ingest.tsdb.histogram_segment import HistogramSegment, StagedHistograms, read_histograms
from mimir_ingest.tsdb.histogram_segment import rewrite as rewrite_histograms
from mimir_ingest.tsdb.histogram_segment import seal as seal_histograms
from mimir_ingest.tsdb.pieces import PickedChunks, PickedSamples, Pieces, checked, concatenated
from mimir_ingest.tsdb.small_reads import FEW_SERIES, read_few

CHUNK_SAMPLES = 180
"""why: 120 is Prometheus's target; series of 121 to 180 samples stay in one chunk and save 16 bytes."""

MIN_MS, MAX_MS = -(1 << 63), (1 << 63) - 1
"""An unbounded range of time."""

_SLICE_SAMPLES = 1 << 20
"""why: bounds the decoded columns of a merge to about 50 MB, whatever the segments' size."""


@frozen
class Staged:
    """Samples in the order accepted."""

    refs: np.ndarray
    """int32[m]."""
    timestamps: np.ndarray
    """int64[m] (ms)."""
    values: np.ndarray
    """float64[m]."""
    histograms: tuple[StagedHistograms, ...] = ()
    """Native histograms, parts in the order accepted."""

    @classmethod
    def empty(cls) -> Staged:
        """Return no samples."""
        return cls.reserved(0)

    @classmethod
    def reserved(cls, capacity: int) -> Staged:
        """Return columns to write to."""
        return cls(np.empty(capacity, np.int32), np.empty(capacity, np.int64), np.empty(capacity, np.float64))


@dataclass(frozen=True, slots=True)
class Segment:
    """Chunks sorted by (ref, time). Timestamps of one ref ascend strictly over its chunks."""

    refs: np.ndarray
    """int32[c]: series of each chunk, ascending."""
    ends: np.ndarray
    """int64[c]: chunk i is `data[ends[i - 1]:ends[i]]`, from 0 for i = 0."""
    min_ts: np.ndarray
    """int64[c] (ms)."""
    max_ts: np.ndarray
    """int64[c] (ms)."""
    data: np.ndarray
    """uint8[...]: XOR chunks."""
    sample_count: int
    """Floats and histograms."""
    level: int
    """How often its samples were merged."""
    histograms: HistogramSegment | None = None
    newest: np.ndarray | None = None
    """float64[c]: value of each chunk's last sample, which is at `max_ts`; None: it is read from the chunks."""
    span: tuple[int, int] = field(init=False, repr=False, compare=False)
    """First and last time (ms) of the samples of both kinds; the last before the first if there are none."""
    place: np.ndarray = field(init=False, repr=False, compare=False)
    """Where the columns are, for `small_reads`."""

    def __post_init__(self) -> None:
        kinds = [k for k in (self, self.histograms) if k is not None and len(k.refs)]
        first = min((int(k.min_ts.min()) for k in kinds), default=MAX_MS)
        object.__setattr__(self, "span", (first, max((int(k.max_ts.max()) for k in kinds), default=MIN_MS)))
        object.__setattr__(self, "place", place_of(self.refs, self.min_ts, self.max_ts, self.ends, self.data))
        if self.newest is None:
            object.__setattr__(self, "newest", _last_values(self.data, self.starts, self.ends))

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        floats = sum(c.nbytes for c in (self.refs, self.ends, self.min_ts, self.max_ts, self.data, self.newest))
        return floats + (0 if self.histograms is None else self.histograms.nbytes)

    @property
    def all_refs(self) -> np.ndarray:
        """int32[...]: the series of each chunk, of either kind."""
        return self.refs if self.histograms is None else np.concatenate([self.refs, self.histograms.refs])

    def overlaps(self, start_ms: int, end_ms: int) -> bool:
        """Whether samples may lie in `[start_ms, end_ms)`."""
        first, last = self.span
        return first < end_ms and last >= start_ms

    @property
    def starts(self) -> np.ndarray:
        """int64[c]: where each chunk begins."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]]) if len(self.ends) else self.ends

    def starts_of(self, chunks: np.ndarray) -> np.ndarray:
        """Return where the chunks `chunks` (int64[k]) begin."""
        return np.where(chunks > 0, self.ends[chunks - 1], 0)

    @classmethod
    def empty(cls) -> Segment:
        """Return a segment without samples."""
        return build_segment(np.empty(0, np.int32), np.zeros(1, np.int64), *(np.empty(0, t) for t in "qd"))

    def renumbered(self, new_refs: np.ndarray) -> Segment:
        """Return the same chunks under other refs (int32[old refs], ascending where in use)."""
        histograms = None if self.histograms is None else self.histograms.renumbered(new_refs)
        return replace(self, refs=new_refs[self.refs], histograms=histograms)

    def with_histograms(self, histograms: HistogramSegment | None) -> Segment:
        """Return the same floats, and these histograms."""
        if histograms is None:
            return self
        return replace(self, histograms=histograms, sample_count=self.sample_count + histograms.sample_count)


def build_segment(
    refs: np.ndarray, offsets: np.ndarray, timestamps: np.ndarray, values: np.ndarray, *, level: int = 0
) -> Segment:
    """Encode sorted samples: series `refs[i]` (int32[n], ascending) has the samples `offsets[i]:offsets[i + 1]`."""
    most = len(timestamps) // CHUNK_SAMPLES + len(refs)
    starts = np.empty(most + 1, np.int64)
    series = np.empty(most, np.int64)
    chunks = plan_chunks(offsets, CHUNK_SAMPLES, starts, series)
    starts, series = starts[: chunks + 1], series[:chunks]
    ends = np.empty(chunks, np.int64)
    out = np.empty(max_encoded_size(np.diff(starts)), np.uint8)
    size = encode_xor(timestamps, values, starts, out, ends)
    if size < 0:
        raise InvariantViolated(f"encoding {len(timestamps)} samples in {chunks} chunks failed with status {size}")
    data, times = out[:size].copy(), (timestamps[starts[:-1]], timestamps[starts[1:] - 1])
    return Segment(refs[series], ends, *times, data, len(timestamps), level, newest=values[starts[1:] - 1])


def _last_values(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return float64[c]: the value of the last sample of each chunk, decoding a bounded number at a time."""
    counts = np.empty(len(ends), np.int64)
    checked(count_xor(data, starts, counts))
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    found = np.empty(len(ends))
    for first, last in bounded_spans(running, _SLICE_SAMPLES):
        offsets = running[first : last + 1] - running[first]
        ts, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1])
        checked(decode_xor(data, starts[first:last], ends[first:last], offsets, ts, values))
        found[first:last] = values[offsets[1:] - 1]
    return found


def seal(staged: Staged, series_count: int) -> Segment:
    """Sort staged samples into a segment; of equal timestamps of a series the first stays."""
    m = len(staged.refs)
    groups = min(m, series_count)
    refs, offsets = np.empty(groups, np.int32), np.empty(groups + 1, np.int64)
    ts, values, spare_ts, spare_values = (np.empty(m, t) for t in "qdqd")
    scratch = np.zeros(series_count + 1, np.int64)
    count = group_samples(
        staged.refs, staged.timestamps, staged.values, scratch, refs, offsets, ts, values, spare_ts, spare_values
    )
    end = offsets[count]
    floats = build_segment(refs[:count], offsets[: count + 1], ts[:end], values[:end])
    return floats.with_histograms(seal_histograms(staged.histograms))


@frozen
class FoundSamples:
    """Samples of n series; some may have none."""

    offsets: np.ndarray
    """int64[n + 1]: series i has the floats `offsets[i]:offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m] (ms)."""
    values: np.ndarray
    """float64[m]."""
    histograms: HistogramSamples | None
    """With the hints and buckets received; None: there are none."""

    @property
    def filled(self) -> np.ndarray:
        """int64[...]: the series that have samples."""
        counts = self.offsets[1:] - self.offsets[:-1]
        if self.histograms is not None:
            counts = counts + np.diff(self.histograms.offsets)
        return counts.nonzero()[0]

    def whole(self, labels: LabelFrame) -> SeriesSamples:
        """Return all series, whose label sets are given."""
        return SeriesSamples(labels, self.offsets, self.timestamps, self.values, self.histograms)

    def of(self, filled: np.ndarray, labels: LabelFrame) -> SeriesSamples:
        """Return the series `filled`, whose label sets are given."""
        histograms = self.histograms
        if histograms is not None:
            histograms = replace(histograms, offsets=np.append(histograms.offsets[filled], histograms.offsets[-1]))
        offsets = np.append(self.offsets[filled], self.offsets[-1])
        return SeriesSamples(labels, offsets, self.timestamps, self.values, histograms)

    def as_read(self, *, alike: bool = False) -> FoundSamples:
        """Return the same samples with reset hints and buckets as a reader of their blocks would see them.

        `alike`: all histograms of a series are known to list the same buckets.
        """
        histograms = self.histograms
        if histograms is None:
            return self
        runs = np.empty(histograms.sample_count, np.int64)
        rank_among(histograms.offsets, histograms.timestamps, self.offsets, self.timestamps, runs)
        values = as_read(histograms.values, histograms.timestamps, histograms.offsets, runs, alike=alike)
        return replace(self, histograms=replace(histograms, values=values))


def read_series(
    segments: Sequence[Segment],
    staged: Staged,
    refs: np.ndarray,
    series_count: int,
    start_ms: int,
    end_ms: int,
    rank: np.ndarray | None = None,
    budget: SampleBudget | None = None,
) -> FoundSamples:
    """Return the samples of both kinds (arguments: `read_samples`); of equal timestamps the float stays."""
    offsets, ts, values = read_samples(segments, staged, refs, series_count, start_ms, end_ms, rank, budget)
    sealed = [s.histograms for s in segments if s.histograms is not None]
    if not sealed and not staged.histograms:
        return FoundSamples(offsets, ts, values, None)
    histograms = read_histograms(sealed, staged.histograms, refs, start_ms, end_ms, rank, budget)
    if histograms is not None:
        histograms = histograms.without_times_of(offsets, ts)
    return FoundSamples(offsets, ts, values, histograms)


def read_samples(
    segments: Sequence[Segment],
    staged: Staged,
    refs: np.ndarray,
    series_count: int,
    start_ms: int,
    end_ms: int,
    rank: np.ndarray | None = None,
    budget: SampleBudget | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the float samples of some series in `[start_ms, end_ms)`.

    With a budget, samples are taken from it before they are decoded, and many are decoded a slice at a time.

    Parameters
    ----------
    segments, staged
        Oldest first; staged samples are younger than all segments.
    refs : int32[n], ascending
        Series.
    series_count : int
        More than every ref in use.
    rank : int64[n], optional
        Place of series `refs[i]` in the result, instead of i.
    budget : SampleBudget, optional
        What the query may read; not together with `rank`.

    Returns
    -------
    offsets, timestamps, values : int64[n + 1], int64[m] (ms), float64[m]
        Series i of the result has the samples `offsets[i]:offsets[i + 1]`, timestamps strictly ascending.
    """
    if rank is None and len(refs) <= FEW_SERIES:
        few = read_few(segments, staged, refs, start_ms, end_ms, budget)
        if few is not None:
            return few
    pieces = _pick(segments, staged, refs, series_count, start_ms, end_ms)
    if budget is None:
        return pieces.join(rank)
    if budget.limits_series:
        budget.check_series(int(np.count_nonzero(pieces.per_series())))
    budget.take_chunks(sum(len(c.starts) for c in pieces.chunks), pieces.chunk_bytes)
    if pieces.samples <= 4 * _SLICE_SAMPLES:
        budget.take(pieces.samples_inside)
        return pieces.join()
    # Only samples in the range are held for all series.
    parts = []
    for _, _, part in pieces.split(_SLICE_SAMPLES):
        budget.take(part.samples_inside)
        parts.append(part.join())
    return concatenated(parts)


def _pick(
    segments: Sequence[Segment], staged: Staged, refs: np.ndarray, series_count: int, start_ms: int, end_ms: int
) -> Pieces:
    """Find what some series have in `[start_ms, end_ms)`; arguments as `read_samples` takes them."""
    picked = []
    most = max((len(segment.refs) for segment in segments), default=0)
    chunk_room, series_room = np.empty(most, np.int64), np.empty(most, np.int64)
    for segment in segments:
        columns = segment.refs, segment.min_ts, segment.max_ts
        found = pick_chunks(refs, *columns, start_ms, end_ms, chunk_room, series_room)
        if found:
            chunks, series = chunk_room[:found].copy(), series_room[:found].copy()
            starts, counts = segment.starts_of(chunks), np.empty(found, np.int64)
            checked(count_xor(segment.data, starts, counts))
            whole = (segment.min_ts[chunks] >= start_ms) & (segment.max_ts[chunks] < end_ms)
            picked.append(PickedChunks(segment.data, starts, segment.ends[chunks], counts, whole, series))
    late = _pick_staged(staged, refs, series_count, start_ms, end_ms)
    return Pieces(len(refs), start_ms, end_ms, tuple(picked), late)


def _pick_staged(staged: Staged, refs: np.ndarray, series_count: int, start_ms: int, end_ms: int) -> PickedSamples:
    m = len(staged.refs)
    if not m or not len(refs):
        return PickedSamples(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
    position_of = positions_of(refs, series_count)
    where, ts, values = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.float64)
    found = pick_staged(staged.refs, staged.timestamps, staged.values, position_of, start_ms, end_ms, where, ts, values)
    return PickedSamples(where[:found], ts[:found], values[:found])


def positions_of(refs: np.ndarray, series_count: int) -> np.ndarray:
    """Return int32[series_count]: the place of each series in `refs`, -1 for those that are not there."""
    position_of = np.full(series_count, -1, np.int32)
    position_of[refs] = np.arange(len(refs), dtype=np.int32)
    return position_of


def present_refs(segments: Sequence[Segment], staged: Staged) -> np.ndarray:
    """Return int32[n], ascending: the series that have a sample."""
    histograms = [part.refs for part in staged.histograms]
    return np.unique(np.concatenate([staged.refs, *histograms, *(s.all_refs for s in segments)]))


def rewrite(
    segments: Sequence[Segment], series_count: int, *, start_ms: int = MIN_MS, end_ms: int = MAX_MS, level: int
) -> Segment:
    """Return one segment with the samples of all in `[start_ms, end_ms)`, decoding a bounded number at a time."""
    nothing = Staged.empty()
    refs = np.unique(np.concatenate([np.empty(0, np.int32), *(s.refs for s in segments)]))
    per_ref = np.zeros(series_count, np.int64)
    for segment in segments:
        counts = np.empty(len(segment.refs), np.int64)
        checked(count_xor(segment.data, segment.starts, counts))
        np.add.at(per_ref, segment.refs, counts)
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_ref[refs])])
    parts: list[Segment] = []
    for first, last in bounded_spans(running, _SLICE_SAMPLES):
        offsets, ts, values = read_samples(segments, nothing, refs[first:last], series_count, start_ms, end_ms)
        filled = np.flatnonzero(np.diff(offsets))
        bounds = np.append(offsets[filled], offsets[-1])
        parts.append(build_segment(refs[first:last][filled], bounds, ts, values, level=level))
    histograms = [s.histograms for s in segments if s.histograms is not None]
    return _concatenated(parts, level).with_histograms(rewrite_histograms(histograms, start_ms=start_ms, end_ms=end_ms))


def _concatenated(parts: Sequence[Segment], level: int) -> Segment:
    """Return one segment of parts with ascending, disjoint refs."""
    if not parts:
        return replace(Segment.empty(), level=level)
    if len(parts) == 1:
        return parts[0]
    shifts = np.cumsum([0, *(len(p.data) for p in parts[:-1])])
    return Segment(
        np.concatenate([p.refs for p in parts]),
        np.concatenate([p.ends + shift for p, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([p.min_ts for p in parts]),
        np.concatenate([p.max_ts for p in parts]),
        np.concatenate([p.data for p in parts]),
        sum(p.sample_count for p in parts),
        level,
        newest=np.concatenate([p.newest for p in parts]),
    )
