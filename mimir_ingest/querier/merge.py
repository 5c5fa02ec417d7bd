"""Join what heads and blocks hold of the same series.

Sources come in order of precedence: on equal timestamps the earlier source wins. Blocks stand before heads, since the
lowest offset of the log wins and a block holds older offsets than the head. Of a float and a native histogram at one
time the float wins, wherever they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mimir_ingest.kernels.merge import merge_order, merge_series
from mimir_ingest.model.histograms import GAUGE, RESET_UNKNOWN, HistogramSamples
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SampleBudget, SeriesSamples


def merge_samples(sources: Sequence[SeriesSamples]) -> SeriesSamples:
    """Return distinct series in label order with their samples from all sources, deduplicated by timestamp."""
    sources = [s for s in sources if s.series_count]
    if not sources:
        return SeriesSamples.empty()
    if len(sources) == 1:
        return sources[0].in_label_order()
    frame = LabelFrame.concat([s.labels for s in sources])
    shifts = np.cumsum([0, *(s.sample_count for s in sources[:-1])])
    offsets = np.concatenate(
        [s.offsets[:-1] + shift for s, shift in zip(sources, shifts, strict=True)]
        + [np.array([sum(s.sample_count for s in sources)], np.int64)]
    )
    timestamps = np.concatenate([s.timestamps for s in sources])
    values = np.concatenate([s.values for s in sources])
    ids, first = frame.group_ids()
    by_label = frame.take(first).sort_order()
    rank = np.empty(len(by_label), np.int64)
    rank[by_label] = np.arange(len(by_label))
    group = rank[ids]
    parts = np.argsort(group, kind="stable")
    group_offsets = np.searchsorted(group[parts], np.arange(len(first) + 1))
    ts_out = np.empty(len(timestamps), np.int64)
    values_out = np.empty(len(timestamps), np.float64)
    offsets_out = np.empty(len(first) + 1, np.int64)
    scratch = np.empty(int(np.diff(group_offsets).max()), np.int64)
    written = merge_series(group_offsets, parts, offsets, timestamps, values, scratch, ts_out, values_out, offsets_out)
    histograms = None
    if any(s.histograms is not None for s in sources):
        every = [HistogramSamples.empty(s.series_count) if s.histograms is None else s.histograms for s in sources]
        histograms = _merge_histograms(HistogramSamples.concat(every), group_offsets, parts, scratch)
        histograms = histograms.without_times_of(offsets_out, ts_out[:written])
    return SeriesSamples(frame.take(first[by_label]), offsets_out, ts_out[:written], values_out[:written], histograms)


def _merge_histograms(
    histograms: HistogramSamples, group_offsets: np.ndarray, parts: np.ndarray, scratch: np.ndarray
) -> HistogramSamples:
    """Merge groups of series (arguments: kernels.merge.merge_order)."""
    rows, offsets = np.empty(histograms.sample_count, np.int64), np.empty(len(group_offsets), np.int64)
    written = merge_order(group_offsets, parts, histograms.offsets, histograms.timestamps, scratch, rows, offsets)
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
