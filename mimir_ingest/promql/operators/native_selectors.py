"""Native histograms in selectors: which one is the newest, what lies between two, and what count and sum alone say.

Source: Prometheus 3.14 `promql/engine.go` `vectorSelectorSingle`, `smoothSeries`, `promql/histogram_stats_iterator.go`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mimir_ingest.kernels.lookback import locate_latest, locate_windows
from mimir_ingest.kernels.native_merge import INCOMPATIBLE
from mimir_ingest.kernels.native_pairs import RECONCILED_ADD, RECONCILED_SUB, interpolate_rows
from mimir_ingest.kernels.native_resets import detect_hints, find_resets
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.model.histograms import Histograms, gather_rows
from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.native import cells_of, columns_of, run_items, weigh, workspaces
from mimir_ingest.promql.operators.base import HISTOGRAM_CELLS, Evaluation
from mimir_ingest.promql.plan_nodes import InstantSelect
from mimir_ingest.promql.values import HistogramCells, HistogramPoints, RangeBlock

_NEVER = np.iinfo(np.int64).min


def histogram_points(samples: SeriesSamples) -> HistogramPoints:
    """Return the histograms of what was read, staleness markers included."""
    read = samples.histograms
    rows = np.arange(read.sample_count)
    return HistogramPoints(read.offsets, read.timestamps, rows, read.values, weigh(read.values))


def is_stale(histograms: Histograms) -> np.ndarray:
    """Return bool[n]: which histograms are staleness markers."""
    return np.ascontiguousarray(histograms.sum).view(np.uint64) == np.uint64(STALE_NAN_BITS)


def resets_of(evaluation: Evaluation, points: HistogramPoints) -> np.ndarray:
    """Return bool[m]: before which points a counter was reset."""
    columns = columns_of(points.histograms)
    resets = np.empty(len(points.rows), bool)
    works, series = workspaces([columns], 2), len(points.offsets) - 1
    for at in evaluation.pieces(series, HISTOGRAM_CELLS * len(points.rows) // max(1, series)):
        find_resets(columns, points.offsets[at.start : at.stop + 1], points.rows, *works, resets)
    return resets


def window_sizes(block: RangeBlock, ends: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the series that have histograms, int64[k], and for how many samples their windows count, int64[k, steps].

    Windows go from `reach[0]` before each of `ends` (int64[steps]) to `reach[1]` after it (ms); floats count, too.
    """
    points = block.histograms
    series = np.flatnonzero(np.diff(points.offsets))
    sizes = np.zeros((len(series), len(ends)), np.int64)
    floats = np.ones(len(block.timestamps), np.int64)
    for offsets, timestamps, weights in (
        (block.offsets, block.timestamps, floats),
        (points.offsets, points.timestamps, points.weights[points.rows]),
    ):
        at, bounds = gather_rows(offsets, series)
        first, last = np.empty_like(sizes), np.empty_like(sizes)
        locate_windows(bounds, timestamps[at], ends, reach, first, last)
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(weights[at])])
        sizes += running[last] - running[first]
    return series, sizes


def only_statistics(
    evaluation: Evaluation, points: HistogramPoints, ends: np.ndarray, reach_ms: int
) -> HistogramPoints:
    """Return the points with count and sum only; the hints say what their buckets said.

    `ends` is int64[steps]: where the query looks (ms), and `reach_ms` how far back from there.
    """
    stale = is_stale(points.histograms)[points.rows]
    live = points.keep(~stale)
    hints = points.histograms.reset_hint[points.rows]
    detected = np.empty(len(live.rows), np.uint8)
    detect_hints(live.offsets, live.timestamps, hints[~stale], resets_of(evaluation, live), ends, reach_ms, detected)
    hints[~stale] = detected
    n = len(points.rows)
    plain = Histograms(
        schema=points.histograms.schema[points.rows],
        reset_hint=hints,
        is_float=points.histograms.is_float[points.rows],
        zero_threshold=np.zeros(n),
        zero_count=np.zeros(n),
        count=points.histograms.count[points.rows],
        sum=points.histograms.sum[points.rows],
        bucket_offsets=np.zeros(2 * n + 1, np.int64),
        bucket_index=np.empty(0, np.int32),
        bucket_count=np.empty(0),
        custom_offsets=np.zeros(n + 1, np.int64),
        custom_values=np.empty(0),
    )
    return replace(points, rows=np.arange(n), histograms=plain, weights=weigh(plain))


def _times_at(timestamps: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the times of samples, long ago where there is none (-1)."""
    if not len(timestamps):
        return np.full(places.shape, _NEVER)
    return np.where(places >= 0, timestamps[places], _NEVER)


def _locate(offsets: np.ndarray, timestamps: np.ndarray, series: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return int64[k, steps]: the newest sample of the series (int64[k]) at each end, -1 for none."""
    at, bounds = gather_rows(offsets, series)
    places = np.empty((len(series), len(ends)), np.int64)
    locate_latest(bounds, timestamps[at], ends, places)
    # The series' samples lie apart in the whole: move each row.
    return np.where(places >= 0, places + (offsets[series] - bounds[:-1])[:, None], -1)


def add_latest_histograms(
    evaluation: Evaluation,
    samples: SeriesSamples,
    points: HistogramPoints,
    ends: np.ndarray,
    values: np.ndarray,
    present: np.ndarray,
    *,
    timestamps: bool,
) -> tuple[HistogramCells | None, int]:
    """Put the histograms that are newer than any float into a vector of floats; `values` and `present` are changed.

    Returns the cells, none for `timestamps`, and the number of samples selected in all.
    """
    series = np.flatnonzero(np.diff(points.offsets))
    places = _locate(points.offsets, points.timestamps, series, ends)
    times = _times_at(points.timestamps, places)
    floats = _times_at(samples.timestamps, _locate(samples.offsets, samples.timestamps, series, ends))
    newer = times > floats
    rows = np.where(places >= 0, points.rows[places], 0)
    hit = newer & (times > ends - evaluation.lookback_ms) & ~is_stale(points.histograms)[rows]
    present[series] = np.where(newer, hit, present[series])
    found = int(np.count_nonzero(present))
    if timestamps:
        values[series] = np.where(hit, times.astype(np.float64), np.where(newer, 0.0, values[series]))
        evaluation.limit_samples(found)
        return None, found
    values[series] = np.where(newer, 0.0, values[series])
    index = np.full(values.shape, -1, np.int64)
    index[series] = np.where(hit, rows, -1)
    found += int((points.weights[rows[hit]] - 1).sum())
    evaluation.limit_samples(found)
    return HistogramCells(index, points.histograms, points.weights), found


def interpolate_histograms(
    evaluation: Evaluation,
    block: RangeBlock,
    ends: np.ndarray,
    node: InstantSelect,
    values: np.ndarray,
    present: np.ndarray,
) -> HistogramCells | None:
    """Put the histograms of `smoothed` into a vector of floats; `values` and `present` are changed."""
    points, lookback = block.histograms, evaluation.lookback_ms
    series = np.flatnonzero(np.diff(points.offsets))
    before, after = _neighbours(points.offsets, points.timestamps, series, ends, lookback)
    earlier, later = _neighbours(block.offsets, block.timestamps, series, ends, lookback)
    some = (before >= 0) | (after >= 0)
    mixed = some & ((earlier >= 0) | (later >= 0))
    names = block.labels.take(series).strings(METRIC_NAME)
    for i in np.flatnonzero(mixed.any(axis=1)).tolist():
        evaluation.annotations.warn(texts.mixed_samples(names[i]), node.pos)
    present[series] &= ~mixed
    at = np.nonzero((before >= 0) & ~mixed)
    if not len(at[0]):
        return None
    first, second = before[at], after[at]
    wanted = ends[at[1]]
    second = np.where(points.timestamps[first] == wanted, -1, second)
    pairs = np.stack((points.rows[first], np.where(second >= 0, points.rows[second], -1)), axis=1)
    times = np.stack((points.timestamps[first], points.timestamps[second], wanted), axis=1)
    columns = columns_of(points.histograms)
    works = workspaces([columns], 3)
    rows, flags = run_items(
        lambda output: interpolate_rows(columns, pairs, times, works, output),
        len(pairs),
        evaluation.check,
        evaluation.limit_samples,
    )
    hit = flags & INCOMPATIBLE == 0
    for i in np.unique(at[0][~hit]).tolist():
        evaluation.annotations.warn(texts.mixed_schemas(names[i]), node.pos)
    for flag, operation in ((RECONCILED_SUB, "subtraction"), (RECONCILED_ADD, "addition")):
        if (flags & flag).any():
            evaluation.annotations.inform(texts.reconciled_bounds(operation), node.pos)
    index = np.full(values.shape, -1, np.int64)
    cells = (series[at[0][hit]], at[1][hit])
    index[cells] = np.arange(len(rows))
    present[cells] = True
    values[cells] = 0.0
    return cells_of(index, rows)


def _neighbours(
    offsets: np.ndarray, timestamps: np.ndarray, series: np.ndarray, ends: np.ndarray, lookback_ms: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[k, steps] twice: the sample at or before each end, and the one after, within a lookback; else -1."""
    before = _locate(offsets, timestamps, series, ends)
    next_place = np.where(before >= 0, before + 1, offsets[series][:, None])
    inside = next_place < offsets[series + 1][:, None]
    after = np.where(inside, next_place, -1)
    after = np.where(inside & (_times_at(timestamps, after) <= ends + lookback_ms), after, -1)
    before = np.where(_times_at(timestamps, before) > ends - lookback_ms, before, -1)
    return before, after
