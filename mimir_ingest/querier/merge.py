"""Join what heads and blocks hold of the same series.

Sources come in order of precedence: on equal timestamps the earlier source wins. Blocks stand before heads, since the
lowest offset of the log wins and a block holds older offsets than the head. Of a float and a native histogram at one
time the float wins, wherever they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.kernels.merge import merge_order, merge_series, place_series
from mimir_ingest.model.histograms import GAUGE, RESET_UNKNOWN, HistogramSamples
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.model.spans import Check, bounded_spans

_PIECE_SAMPLES, _PIECE_HISTOGRAMS = 1 << 16, 1 << 14
"""Samples that are merged at a time. why: some milliseconds; floats stay in a core's cache from their source to the
result, and little is held beside the two."""


def merge_samples(sources: Sequence[SeriesSamples], budget: SampleBudget | None = None) -> SeriesSamples:
    """Return distinct series in label order with their samples from all sources, deduplicated by timestamp.

    Works on a bounded number of samples at a time; raises QueryError between them if the budget's reads were given up.
    """
    check = None if budget is None else budget.check
    sources = [s for s in sources if s.series_count]
    if not sources:
        return SeriesSamples.empty()
    if len(sources) == 1:
        return sources[0].in_label_order(check)
    frame = LabelFrame.concat([s.labels for s in sources])
    ids, first = frame.group_ids()
    by_label = frame.take(first).sort_order()
    rank = np.empty(len(by_label), np.int64)
    rank[by_label] = np.arange(len(by_label))
    group = rank[ids]
    parts = np.argsort(group, kind="stable")
    groups = _Groups(
        np.searchsorted(group[parts], np.arange(len(first) + 1)),
        parts,
        np.cumsum([0, *(s.series_count for s in sources)]),
        check,
    )
    offsets, timestamps, values = _merge_floats(groups, sources)
    histograms = None
    if any(s.histograms is not None for s in sources):
        every = [HistogramSamples.empty(s.series_count) if s.histograms is None else s.histograms for s in sources]
        histograms = _merge_histograms(groups, every).without_times_of(offsets, timestamps, check)
    return SeriesSamples(frame.take(first[by_label]), offsets, timestamps, values, histograms)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some groups, and where their parts are."""

    first: int
    last: int
    """The groups `first..last - 1`."""
    offsets: np.ndarray
    """int64[last - first + 1]: parts of each group, numbered from 0."""
    bounds: np.ndarray
    """int64[parts + 1]: samples of each part, one after another."""
    origins: list[tuple[int, np.ndarray, np.ndarray]]
    """(source, int64[k]: series of it, int64[k]: the parts which they are)."""


@dataclass(frozen=True, slots=True)
class _Groups:
    """Which series of all sources, numbered through, are one."""

    offsets: np.ndarray
    """int64[g + 1]: group i has the parts `parts[offsets[i]:offsets[i + 1]]`."""
    parts: np.ndarray
    """int64[p]: series, in order of precedence within a group."""
    bases: np.ndarray
    """int64[sources + 1]: number of each source's first series."""
    check: Check | None
    """Called before each piece."""

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.offsets) - 1

    @property
    def scratch(self) -> np.ndarray:
        """Return room for a number of each part of the largest group."""
        return np.empty(int(np.diff(self.offsets).max()), np.int64)

    def pieces(self, counts: np.ndarray, size: int) -> Iterator[_Piece]:
        """Yield groups of about `size` samples together; series have int64[p] `counts` of them."""
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[self.parts])])
        for first, last in bounded_spans(running[self.offsets], size, self.check):
            a, b = self.offsets[first], self.offsets[last]
            own = self.parts[a:b]
            source = np.searchsorted(self.bases, own, side="right") - 1
            origins = [
                (number, own[at] - self.bases[number], at)
                for number in range(len(self.bases) - 1)
                if len(at := np.flatnonzero(source == number))
            ]
            yield _Piece(first, last, self.offsets[first : last + 1] - a, running[a : b + 1] - running[a], origins)


def _merge_floats(groups: _Groups, sources: Sequence[SeriesSamples]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (offsets, timestamps, values) of the groups."""
    counts = np.concatenate([np.diff(s.offsets) for s in sources])
    total, written = int(counts.sum()), 0
    offsets, scratch = np.zeros(groups.count + 1, np.int64), groups.scratch
    ts_out, values_out = np.empty(total, np.int64), np.empty(total, np.float64)
    largest = int(np.add.reduceat(counts[groups.parts], groups.offsets[:-1]).max())
    room = min(total, max(_PIECE_SAMPLES, largest))
    timestamps, values = np.empty(room, np.int64), np.empty(room, np.float64)
    for piece in groups.pieces(counts, _PIECE_SAMPLES):
        for number, series, at in piece.origins:
            source = sources[number]
            columns = source.offsets, series, source.timestamps, source.values
            place_series(*columns, piece.bounds[at], timestamps, values)
        parts, own = np.arange(len(piece.bounds) - 1), np.empty(piece.last - piece.first + 1, np.int64)
        out = ts_out[written:], values_out[written:], own
        found = merge_series(piece.offsets, parts, piece.bounds, timestamps, values, scratch, *out)
        offsets[piece.first + 1 : piece.last + 1] = own[1:] + written
        written += found
    return offsets, ts_out[:written], values_out[:written]


def _merge_histograms(groups: _Groups, sources: Sequence[HistogramSamples]) -> HistogramSamples:
    """Return the histograms of the groups."""
    counts = np.concatenate([np.diff(s.offsets) for s in sources])
    done = [
        _merge_piece(
            piece, [(sources[number].take(series), at) for number, series, at in piece.origins], groups.scratch
        )
        for piece in groups.pieces(counts, _PIECE_HISTOGRAMS)
    ]
    return HistogramSamples.concat(done)


def _merge_piece(
    piece: _Piece, found: Sequence[tuple[HistogramSamples, np.ndarray]], scratch: np.ndarray
) -> HistogramSamples:
    """Return the histograms of a piece's groups; `found` are those of each source, and the parts which they are."""
    histograms = HistogramSamples.concat([samples for samples, _ in found])
    places = np.concatenate([at for _, at in found])
    parts = np.empty(len(places), np.int64)
    parts[places] = np.arange(len(places))
    rows, offsets = np.empty(histograms.sample_count, np.int64), np.empty(len(piece.offsets), np.int64)
    written = merge_order(piece.offsets, parts, histograms.offsets, histograms.timestamps, scratch, rows, offsets)
    rows = rows[:written]
    # What a source says of a reset holds for the sample before it in that source, which may be another one now.
    follows = np.zeros(written, bool)
    follows[1:] = rows[1:] == rows[:-1] + 1
    follows &= ~np.isin(rows, histograms.offsets)
    follows[offsets[:-1][np.diff(offsets) > 0]] = True
    values = histograms.values.take(rows)
    hints = np.where(follows | (values.reset_hint == GAUGE), values.reset_hint, RESET_UNKNOWN).astype(np.uint8)
    return HistogramSamples(offsets, histograms.timestamps[rows], replace(values, reset_hint=hints))


def merge_frames(frames: Sequence[LabelFrame]) -> LabelFrame:
    """Return the distinct label sets of all frames, in label order."""
    frames = [f for f in frames if f.n]
    if not frames:
        return LabelFrame.empty()
    frame = LabelFrame.concat(frames)
    distinct = frame.take(frame.group_ids()[1])
    return distinct.take(distinct.sort_order())


def check_distinct_series(frames: Sequence[LabelFrame], budget: SampleBudget) -> None:
    """Raise QueryError if the distinct series of all frames are more than the budget has."""
    frames = [f for f in frames if f.n]
    if frames:
        frame = frames[0] if len(frames) == 1 else LabelFrame.concat(frames)
        budget.check_series(len(frame.group_ids()[1]))
