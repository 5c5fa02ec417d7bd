"""Native histograms of scripts, one by one and as columns; and what Prometheus's storage makes of a series of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mimir_ingest.model.histograms import GAUGE, NO_RESET, RESET, RESET_UNKNOWN, Histograms
from tests.support import series_notation as notation
from tests.support.series_notation import HistogramValue, is_stale

HINT_NUMBERS = {
    notation.UNKNOWN_RESET: RESET_UNKNOWN,
    notation.RESET: RESET,
    notation.NOT_RESET: NO_RESET,
    notation.GAUGE: GAUGE,
}
"""Reset hints by the names of the notation."""
_NAMES = {number: name for name, number in HINT_NUMBERS.items()}
_CUSTOM = -53


def to_columns(values: Sequence[HistogramValue]) -> Histograms:
    """Return histograms as columns; empty buckets stay."""
    buckets = [sorted(side.items()) for value in values for side in (value.negative, value.positive)]
    return Histograms(
        schema=np.array([v.schema for v in values], np.int8),
        reset_hint=np.array([HINT_NUMBERS[v.hint] for v in values], np.uint8),
        is_float=np.ones(len(values), bool),
        zero_threshold=np.array([v.zero_threshold for v in values], np.float64),
        zero_count=np.array([v.zero_count for v in values], np.float64),
        count=np.array([v.count for v in values], np.float64),
        sum=np.array([v.sum for v in values], np.float64),
        bucket_offsets=np.cumsum([0, *map(len, buckets)], dtype=np.int64),
        bucket_index=np.array([index for side in buckets for index, _ in side], np.int32),
        bucket_count=np.array([count for side in buckets for _, count in side], np.float64),
        custom_offsets=np.cumsum([0, *(len(v.custom_values) for v in values)], dtype=np.int64),
        custom_values=np.array([bound for v in values for bound in v.custom_values], np.float64),
    )


def to_values(histograms: Histograms, rows: Sequence[int]) -> list[HistogramValue]:
    """Return some rows of columns one by one."""
    return [_to_value(histograms, row) for row in rows]


def _to_value(histograms: Histograms, row: int) -> HistogramValue:
    sides = []
    for side in range(2):
        a, b = histograms.bucket_offsets[2 * row + side : 2 * row + side + 2].tolist()
        index, count = histograms.bucket_index[a:b].tolist(), histograms.bucket_count[a:b].tolist()
        sides.append(dict(zip(index, count, strict=True)))
    a, b = histograms.custom_offsets[row : row + 2].tolist()
    return HistogramValue(
        schema=int(histograms.schema[row]),
        count=float(histograms.count[row]),
        sum=float(histograms.sum[row]),
        zero_count=float(histograms.zero_count[row]),
        zero_threshold=float(histograms.zero_threshold[row]),
        positive=sides[1],
        negative=sides[0],
        custom_values=tuple(histograms.custom_values[a:b].tolist()),
        hint=_NAMES[int(histograms.reset_hint[row])],
    )


def as_stored(values: Sequence[HistogramValue | None]) -> list[HistogramValue | None]:
    """Return a series' histograms as they are read back: hints by chunks, and each chunk's buckets in all its samples.

    None is a float between them, which ends a chunk.
    """
    chunks: list[list[int]] = []
    for i, value in enumerate(values):
        if value is None:
            chunks.append([])
        elif not chunks or not chunks[-1] or not _continues(values[chunks[-1][-1]], value):
            chunks.append([i])
        else:
            chunks[-1].append(i)
    out = list(values)
    for chunk in chunks:
        buckets = {
            side: sorted({index for i in chunk for index in getattr(values[i], side)})
            for side in ("positive", "negative")
        }
        for place, i in enumerate(chunk):
            value = values[i]
            hint = value.hint
            if hint != notation.GAUGE:
                hint = notation.NOT_RESET if place else notation.UNKNOWN_RESET
            sides = {
                side: {index: getattr(value, side).get(index, 0.0) for index in indexes}
                for side, indexes in buckets.items()
            }
            out[i] = HistogramValue(**{**vars(value), "hint": hint, **sides})
    return out


def _continues(before: HistogramValue, value: HistogramValue) -> bool:
    """Whether a histogram goes into the chunk of the one before it (`tsdb/chunkenc/float_histogram.go`)."""
    gauge = value.hint == notation.GAUGE
    if gauge != (before.hint == notation.GAUGE) or value.hint == notation.RESET:
        return False
    if is_stale(value.sum):
        return True
    if is_stale(before.sum) or value.schema != before.schema or value.zero_threshold != before.zero_threshold:
        return False
    if value.schema == _CUSTOM and value.custom_values != before.custom_values:
        return False
    if gauge:
        return True
    if value.count < before.count or value.zero_count < before.zero_count:
        return False
    return all(
        count <= getattr(value, side).get(index, -math.inf if count else 0.0)
        for side in ("positive", "negative")
        for index, count in getattr(before, side).items()
    )
