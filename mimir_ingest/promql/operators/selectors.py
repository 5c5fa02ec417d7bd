"""Selectors: from raw samples to instant vectors and to the samples that windows slide over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mimir_ingest.errors import InvariantViolated
from mimir_ingest.kernels.lookback import interpolate_latest, select_latest
from mimir_ingest.kernels.windows import measure_windows
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.model.histograms import GAUGE, RESET_UNKNOWN
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.operators.base import Evaluation, filled_rows, reference_times
from mimir_ingest.promql.operators.native_selectors import (
    add_latest_histograms,
    histogram_points,
    interpolate_histograms,
    is_stale,
    only_statistics,
    window_sizes,
)
from mimir_ingest.promql.plan_nodes import InstantSelect, PlanNode, RangeSelect, Subquery
from mimir_ingest.promql.values import HistogramPoints, RangeBlock, Steps, VectorBlock, count_true

_STALE_BITS = np.uint64(STALE_NAN_BITS)


def select_instant(evaluation: Evaluation, node: InstantSelect, steps: Steps) -> VectorBlock:
    """Evaluate an instant-vector selector."""
    samples = evaluation.data[node.select]
    ends = reference_times(node.shift, steps)
    if node.smoothed:
        return _interpolated(evaluation, samples, ends, node)
    return latest(evaluation, samples, ends, statistics=node.statistics)


def latest(
    evaluation: Evaluation,
    samples: SeriesSamples,
    ends: np.ndarray,
    *,
    timestamps: bool = False,
    statistics: bool = False,
) -> VectorBlock:
    """Return the newest sample of each series at each of `ends` (int64[steps], ms), or its timestamp (ms) instead.

    `statistics`: leave the buckets of histograms out.
    """
    shape = (samples.series_count, len(ends))
    evaluation.reserve(*shape)
    values, present = np.empty(shape), np.empty(shape, bool)

    def select(a: int, b: int) -> int:
        offsets, out = samples.offsets[a : b + 1], (values[a:b], present[a:b])
        data, lookback_ms = (samples.timestamps, samples.values), evaluation.lookback_ms
        return select_latest(offsets, *data, ends, lookback_ms, timestamps, *out)

    found = evaluation.run_chunks(*shape, select)
    cells = None
    if samples.histograms is not None and samples.histograms.sample_count:
        series = histogram_points(samples)
        if statistics:
            series = only_statistics(evaluation, series, ends, evaluation.lookback_ms)
        cells, found = add_latest_histograms(evaluation, samples, series, ends, values, present, timestamps=timestamps)
    evaluation.stats.total_queryable_samples += found
    evaluation.stats.samples_read += found
    found_block = VectorBlock(samples.labels, values, present, np.zeros(shape[0], bool), cells)
    if evaluation.stats.per_step:
        by_step = found_block.points_by_step
        evaluation.stats.add_steps(by_step, by_step)
    return found_block if shape[0] == 1 and found else filled_rows(found_block)


def _interpolated(evaluation: Evaluation, samples: SeriesSamples, ends: np.ndarray, node: InstantSelect) -> VectorBlock:
    """Return the values of `smoothed` at each of `ends`."""
    block = without_stale(samples)
    if node.statistics and block.histograms is not None and len(ends):
        reach = int(ends[-1] - ends[0]) + 2 * evaluation.lookback_ms
        last = ends[-1:] + evaluation.lookback_ms
        block = replace(block, histograms=only_statistics(evaluation, block.histograms, last, reach))
    shape = (samples.series_count, len(ends))
    evaluation.reserve(*shape)
    values, present = np.empty(shape), np.empty(shape, bool)

    lookback_ms = evaluation.lookback_ms
    longest, last = np.empty((2, shape[0]), np.int64)

    def interpolate(a: int, b: int) -> int:
        offsets, out = block.offsets[a : b + 1], (values[a:b], present[a:b])
        counted = np.zeros(2 + 2 * (b - a), np.int64)
        measure_windows(offsets, block.timestamps, ends + lookback_ms, 2 * lookback_ms, counted)
        longest[a:b], last[a:b] = counted[2:].reshape(-1, 2).T
        interpolate_latest(offsets, block.timestamps, block.values, ends, lookback_ms, *out)
        return 0

    evaluation.run_chunks(*shape, interpolate)
    if block.histograms is not None:
        series, sizes = window_sizes(block, ends, np.array((lookback_ms, lookback_ms)))
        if sizes.size:
            longest[series], last[series] = sizes.max(axis=1), sizes[:, -1]
    # Prometheus does not count the points, and forgets to let go of a series' last window.
    evaluation.hold_windows(longest, last, last)
    cells = None
    if block.histograms is not None:
        cells = interpolate_histograms(evaluation, block, ends, node, values, present)
    return filled_rows(VectorBlock(samples.labels, values, present, np.zeros(shape[0], bool), cells))


def without_stale(samples: SeriesSamples) -> RangeBlock:
    """Return the samples without staleness markers."""
    keep = samples.values.view(np.uint64) != _STALE_BITS
    drop_name = np.zeros(samples.series_count, bool)
    histograms = None
    if samples.histograms is not None and samples.histograms.sample_count:
        histograms = histogram_points(samples)
        stale = is_stale(histograms.histograms)
        histograms = histograms.keep(~stale) if stale.any() else histograms
    if np.count_nonzero(keep) == len(keep):
        return RangeBlock(samples.labels, samples.offsets, samples.timestamps, samples.values, drop_name, histograms)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)))[samples.offsets]
    return RangeBlock(samples.labels, offsets, samples.timestamps[keep], samples.values[keep], drop_name, histograms)


def range_samples(evaluation: Evaluation, node: PlanNode, steps: Steps) -> tuple[RangeBlock, np.ndarray, int]:
    """Evaluate a range vector: its samples, the windows' ends (int64[steps], ms) and their length (ms)."""
    if isinstance(node, RangeSelect):
        block, ends = without_stale(evaluation.data[node.select]), reference_times(node.shift, steps)
        if node.statistics and block.histograms is not None:
            before = evaluation.lookback_ms if node.anchored or node.smoothed else 0
            after = evaluation.lookback_ms if node.smoothed else 0
            reach = node.range_ms + before + after
            block = replace(block, histograms=only_statistics(evaluation, block.histograms, ends + after, reach))
        return block, ends, node.range_ms
    if isinstance(node, Subquery):
        return _subquery_samples(evaluation, node, steps), reference_times(node.shift, steps), node.range_ms
    raise InvariantViolated(f"{type(node).__name__} at {node.pos} is no range vector")


def _subquery_samples(evaluation: Evaluation, node: Subquery, steps: Steps) -> RangeBlock:
    """Evaluate a subquery; of what it reads counts what lies in the windows over it, once.

    These windows count its points; what its selectors found does not count again.
    """
    inner, stats = subquery_steps(node, steps), evaluation.stats
    apart = node.shift.at_ms is None and steps.step_ms > node.range_ms
    with evaluation.counting_apart(inner, per_step=apart or stats.per_step) as counted:
        block = evaluation.vector(node.child, inner)
    if counted.read_per_step is None:
        stats.samples_read += counted.samples_read
    else:
        ends, times = reference_times(node.shift, steps), inner.times_ms
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(counted.read_per_step)])
        last = np.searchsorted(times, ends, "right")
        first = np.searchsorted(times, ends - node.range_ms, "right")
        read = running[last] - running[np.maximum(first, np.concatenate([first[:1], last[:-1]]))]
        stats.samples_read += int(read.sum())
        stats.add_steps(0, read)
    return _without_resets(points(block, inner.times_ms))


def samples_in(block: RangeBlock) -> int:
    """Return for how many samples a range vector counts."""
    points = block.histograms
    return len(block.timestamps) + (0 if points is None else int(points.weights[points.rows].sum()))


def subquery_steps(node: Subquery, steps: Steps) -> Steps:
    """Return the steps at which a subquery's expression is evaluated: multiples of its step in UTC."""
    ends = reference_times(node.shift, steps)
    if not len(ends):
        return Steps(steps.start_ms, node.step_ms, 0)
    after = int(ends[0]) - node.range_ms
    # Go's division truncates towards zero.
    first = node.step_ms * (abs(after) // node.step_ms) * (1 if after >= 0 else -1)
    if first <= after:
        first += node.step_ms
    return Steps.spanning(first, int(ends[-1]), node.step_ms)


def points(block: VectorBlock, times_ms: np.ndarray) -> RangeBlock:
    """Return a block's points as samples; `times_ms` is int64[steps]."""
    n, steps = block.present.shape
    if block.histograms is None and count_true(block.present) == n * steps:
        timestamps = times_ms if n == 1 else np.tile(times_ms, n)
        values = np.ascontiguousarray(block.values).reshape(-1)
        return RangeBlock(block.labels, np.arange(n + 1) * steps, timestamps, values, block.drop_name)
    numbers = block.float_present
    offsets, timestamps = _offsets_and_times(numbers, times_ms)
    histograms = None
    if block.histograms is not None:
        here = block.histogram_present
        if here.any():
            cells = block.histograms
            histograms = HistogramPoints(
                *_offsets_and_times(here, times_ms), cells.index[here], cells.rows, cells.weights
            )
    return RangeBlock(block.labels, offsets, timestamps, block.values[numbers], block.drop_name, histograms)


def _offsets_and_times(present: np.ndarray, times_ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(present) + 1, np.int64)
    np.cumsum(np.count_nonzero(present, axis=1), out=offsets[1:])
    return offsets, np.broadcast_to(times_ms, present.shape)[present]


def _without_resets(block: RangeBlock) -> RangeBlock:
    """Return a subquery's samples without what their histograms say of resets, since its steps may skip samples."""
    if block.histograms is None:
        return block
    histograms = block.histograms.histograms
    hints = np.where(histograms.reset_hint == GAUGE, np.uint8(GAUGE), np.uint8(RESET_UNKNOWN))
    return replace(block, histograms=replace(block.histograms, histograms=replace(histograms, reset_hint=hints)))
