"""Join what heads and blocks hold of the same series.

Sources come in order of precedence: on equal timestamps the earlier source wins. Blocks stand before heads, since the
lowest offset of the log wins and a block holds older offsets than the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ingest.kernels.merge import merge_series
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples


def merge_samples(sources: Sequence[SeriesSamples]) -> SeriesSamples:
    """Return distinct series in label order with their samples from all sources, deduplicated by timestamp."""
    sources = [s for s in sources if s.series_count]
    if not sources:
        return SeriesSamples.empty()
    if len(sources) == 1:
        return _in_label_order(sources[0])
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
    return SeriesSamples(frame.take(first[by_label]), offsets_out, ts_out[:written], values_out[:written])


def _in_label_order(samples: SeriesSamples) -> SeriesSamples:
    order = samples.labels.sort_order()
    if (order[1:] > order[:-1]).all():
        return samples
    sizes = np.diff(samples.offsets)[order]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    at = np.repeat(samples.offsets[:-1][order] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return SeriesSamples(samples.labels.take(order), offsets, samples.timestamps[at], samples.values[at])


def merge_frames(frames: Sequence[LabelFrame]) -> LabelFrame:
    """Return the distinct label sets of all frames, in label order."""
    frames = [f for f in frames if f.n]
    if not frames:
        return LabelFrame.empty()
    frame = LabelFrame.concat(frames)
    distinct = frame.take(frame.group_ids()[1])
    return distinct.take(distinct.sort_order())
