"""Evaluates plans: all series and all steps of an operator at once, over columns that were read before.

Synchronous; runs in a thread, where the kernels release the GIL. The operators are in `promql/operators`, one function
a kind of plan node; the table below is the only place that knows them all. Source of the semantics: Prometheus 3.14
`promql/engine.go`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mimir_ingest.errors import InvariantViolated, QueryError
from mimir_ingest.kernels.windows import ANCHORED, SMOOTHED, extend_samples
from mimir_ingest.model.histograms import gather_rows
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql import plan_nodes as planned
from mimir_ingest.promql.depth import make_room
from mimir_ingest.promql.nodes import ValueType
from mimir_ingest.promql.operators import conversions, histograms, relabel
from mimir_ingest.promql.operators.aggregates import aggregate_series
from mimir_ingest.promql.operators.base import METADATA_LABELS, Evaluation, Operator, filled_rows, unique_rows
from mimir_ingest.promql.operators.binary import apply_binary, negate
from mimir_ingest.promql.operators.elementwise import ELEMENTWISE, map_values
from mimir_ingest.promql.operators.info_join import join_info
from mimir_ingest.promql.operators.native_statistics import STATISTICS, histogram_statistic
from mimir_ingest.promql.operators.rollups import ROLLUPS, roll_up
from mimir_ingest.promql.operators.selectors import (
    points,
    samples_in,
    select_instant,
    subquery_steps,
    without_stale,
)
from mimir_ingest.promql.operators.sorting import SORTS, sort_series
from mimir_ingest.promql.plan_nodes import Plan
from mimir_ingest.promql.values import (
    HistogramCells,
    Matrix,
    QueryResult,
    QueryStats,
    RangeBlock,
    Scalar,
    Steps,
    String,
    Vector,
    VectorBlock,
    count_true,
)

_FUNCTIONS: dict[str, Operator] = {
    **dict.fromkeys(ROLLUPS, roll_up),
    **dict.fromkeys(ELEMENTWISE, map_values),
    **dict.fromkeys(SORTS, sort_series),
    **dict.fromkeys(STATISTICS, histogram_statistic),
    "absent": conversions.absent,
    "histogram_fraction": histograms.histogram_fraction,
    "histogram_quantile": histograms.histogram_quantile,
    "histogram_quantiles": histograms.histogram_quantiles,
    "label_join": relabel.label_join,
    "label_replace": relabel.label_replace,
    "max_of": conversions.extreme_of,
    "min_of": conversions.extreme_of,
    "pi": conversions.pi,
    "scalar": conversions.scalar_of_vector,
    "start_timestamp": conversions.start_timestamp,
    "time": conversions.time_of_steps,
    "timestamp": conversions.timestamp,
    "vector": conversions.vector_of_scalar,
}


def _call(evaluation: Evaluation, node: planned.Call, steps: Steps) -> VectorBlock | np.ndarray:
    """Evaluate a function call."""
    return _FUNCTIONS[node.name](evaluation, node, steps)


_OPERATORS: dict[type, Operator] = {
    planned.Aggregate: aggregate_series,
    planned.Binary: apply_binary,
    planned.Call: _call,
    planned.InfoJoin: join_info,
    planned.InstantSelect: select_instant,
    planned.Negate: negate,
    planned.Number: conversions.number,
    planned.Plus: conversions.unchanged,
    planned.StepInvariant: conversions.step_invariant,
}


def evaluate(
    plan: Plan,
    data: Sequence[SeriesSamples],
    *,
    max_samples: int,
    deadline: float | Callable[[], bool] | None = None,
    cancelled: Callable[[], bool] | None = None,
    delayed_name_removal: bool = False,
    type_and_unit_labels: bool = False,
    per_step_stats: bool = False,
) -> QueryResult:
    """Evaluate a plan over what was read for it.

    Parameters
    ----------
    plan : Plan
    data : sequence of SeriesSamples
        One for each of `plan.selects`, with at least the samples in its range. An instant query lists series in the
        order in which they come here.
    max_samples : int
        Most samples (raw samples of a window, and points of operands and results) to hold at a time.
    deadline : float or callable, optional
        Time on the monotonic clock (s), or whether the time is over; asked between operators and chunks of their work.
    cancelled : callable, optional
        Whether nobody waits for the result any more; asked as `deadline`.
    delayed_name_removal : bool
        Drop metric names at the end of the query and not in each function (`promql-delayed-name-removal`).
    type_and_unit_labels : bool
        Tell counters by `__type__` and not by the metric's name (`type-and-unit-labels`).
    per_step_stats : bool
        Count samples by step, too (`promql-per-step-stats`).

    Raises
    ------
    QueryError
        Evaluation failed (execution), the limit is exceeded (execution), time is over (timeout) or the query was
        cancelled (canceled).
    """
    if len(data) != len(plan.selects):
        raise InvariantViolated(f"{len(plan.selects)} selects, but data for {len(data)}")
    make_room()
    evaluation = Evaluation(
        data=data,
        lookback_ms=plan.lookback_ms,
        operators=_OPERATORS,
        max_samples=max_samples,
        interrupted=_interruption(deadline, cancelled),
        instant=plan.instant,
        delayed_name_removal=delayed_name_removal,
        type_and_unit_labels=type_and_unit_labels,
        stats=QueryStats.by_step(plan.steps) if per_step_stats else QueryStats(),
    )
    evaluation.check()
    value = _result(evaluation, plan)
    return QueryResult(value, evaluation.annotations, evaluation.stats)


def _interruption(
    deadline: float | Callable[[], bool] | None, cancelled: Callable[[], bool] | None
) -> Callable[[], str | None]:
    """Return a function that says why to stop, or None."""
    limit = deadline if isinstance(deadline, int | float) else None
    over = deadline if callable(deadline) else None

    def reason() -> str | None:
        if cancelled is not None and cancelled():
            return "canceled"
        if limit is not None and time.monotonic() > limit:
            return "timeout"
        return "timeout" if over is not None and over() else None

    return reason


def _result(evaluation: Evaluation, plan: Plan) -> Vector | Matrix | Scalar | String:
    """Evaluate the root and give the result its form."""
    root, steps = plan.root, plan.steps
    if isinstance(root, planned.Text):
        return String(steps.start_ms, root.value)
    if plan.type is ValueType.MATRIX:
        return _range_result(evaluation, root, steps)
    value = evaluation.evaluate(root, steps)
    if plan.instant and not isinstance(value, VectorBlock):
        return Scalar(steps.start_ms, float(value[0]))
    if not isinstance(value, VectorBlock):
        value = VectorBlock.of_scalar(value)
    block = filled_rows(_without_dropped_names(value))
    if plan.instant:
        return _vector(block, steps.start_ms)
    return _matrix(_joined(points(block, steps.times_ms)))


def _vector(block: VectorBlock, timestamp_ms: int) -> Vector:
    """Return a block's only step; where a number and a histogram met in one series, the histogram."""
    cells = block.histograms
    if cells is None:
        return Vector(block.labels, timestamp_ms, block.values[:, 0])
    ids, first = block.labels.group_ids()
    if len(first) < block.labels.n:
        chosen = first.copy()
        chosen[ids[block.histogram_present[:, 0]]] = np.flatnonzero(block.histogram_present[:, 0])
        block = block.take(chosen)
        cells = block.histograms
    return Vector(
        block.labels,
        timestamp_ms,
        block.values[:, 0],
        HistogramCells(cells.index[:, 0], cells.rows, cells.weights),
    )


def _joined(block: RangeBlock) -> RangeBlock:
    """Return the samples with series of equal labels made one; at most one of these has numbers, and one histograms."""
    if block.histograms is None:
        return block
    ids, first = block.labels.group_ids()
    if len(first) == block.labels.n:
        return block
    order = np.argsort(ids, kind="stable")
    at, bounds = gather_rows(block.offsets, order)
    ends = np.searchsorted(ids[order], np.arange(len(first)), "right")
    histograms = block.histograms.take(order)
    begins = np.concatenate((np.zeros(1, np.int64), ends))
    return RangeBlock(
        block.labels.take(first),
        bounds[begins],
        block.timestamps[at],
        block.values[at],
        block.drop_name[first],
        replace(histograms, offsets=histograms.offsets[begins]),
    )


def _without_dropped_names(block: VectorBlock) -> VectorBlock:
    """Drop the metric names whose removal was delayed; series with equal labels are merged."""
    if not count_true(block.drop_name):
        return block
    bare = relabel.dropped_names(block.labels, block.drop_name, METADATA_LABELS)
    return unique_rows(block.relabelled(bare), apart=True)


def _range_result(evaluation: Evaluation, root: planned.PlanNode, steps: Steps) -> Matrix:
    """Evaluate an instant query for a range vector: its raw samples, or the points of a subquery."""
    if isinstance(root, planned.Subquery):
        inner = subquery_steps(root, steps)
        with evaluation.counting_apart(inner, per_step=False) as counted:
            block = evaluation.vector(root.child, inner)
        evaluation.stats.total_queryable_samples += counted.total_queryable_samples
        evaluation.stats.samples_read += counted.samples_read
        evaluation.stats.add_steps(counted.total_queryable_samples, counted.samples_read)
        return _matrix(_joined(points(_without_dropped_names(block), inner.times_ms)))
    if not isinstance(root, planned.RangeSelect):
        raise InvariantViolated(f"{type(root).__name__} at {root.pos} is no range vector")
    end = (steps.start_ms if root.shift.at_ms is None else root.shift.at_ms) - root.shift.offset_ms
    before = evaluation.lookback_ms if root.anchored or root.smoothed else 0
    after = evaluation.lookback_ms if root.smoothed else 0
    block = _clipped(without_stale(evaluation.data[root.select]), end - root.range_ms - before, end + after)
    evaluation.note_samples(samples_in(block))
    if root.anchored or root.smoothed:
        block = _extended(root, block, end)
    samples = samples_in(block)
    evaluation.stats.total_queryable_samples += samples
    evaluation.stats.samples_read += samples
    evaluation.stats.add_steps(samples, samples)
    return _matrix(block)


def _extended(node: planned.RangeSelect, block: RangeBlock, end_ms: int) -> RangeBlock:
    """Return an `anchored` or `smoothed` window of its samples and those around; QueryError if there are histograms."""
    if block.histograms is not None and len(block.histograms.rows):
        modifier = "smoothed" if node.smoothed else "anchored"
        raise QueryError(f"{modifier} modifier is not supported with histograms")
    n = len(block.timestamps) + 2 * block.labels.n
    offsets, timestamps, values = np.empty(block.labels.n + 1, np.int64), np.empty(n, np.int64), np.empty(n)
    window = np.array((end_ms - node.range_ms, end_ms, SMOOTHED if node.smoothed else ANCHORED))
    size = extend_samples(block.offsets, block.timestamps, block.values, window, offsets, timestamps, values)
    return RangeBlock(block.labels, offsets, timestamps[:size], values[:size], block.drop_name)


def _clipped(block: RangeBlock, after_ms: int, end_ms: int) -> RangeBlock:
    """Return the samples in `(after_ms, end_ms]`."""
    keep = (block.timestamps > after_ms) & (block.timestamps <= end_ms)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)))[block.offsets]
    points = block.histograms
    if points is not None:
        points = points.keep((points.timestamps > after_ms) & (points.timestamps <= end_ms))
    return RangeBlock(block.labels, offsets, block.timestamps[keep], block.values[keep], block.drop_name, points)


def _matrix(block: RangeBlock) -> Matrix:
    """Return the series that have points, in label order."""
    if block.labels.n == 1 and len(block.values):
        return Matrix(block.labels, block.offsets, block.timestamps, block.values, block.histograms)
    sizes = np.diff(block.offsets)
    filled = sizes > 0 if block.histograms is None else (sizes > 0) | (np.diff(block.histograms.offsets) > 0)
    order = block.labels.sort_order()
    order = order[filled[order]]
    if len(order) == len(sizes) and np.array_equal(order, np.arange(len(order))):
        return Matrix(block.labels, block.offsets, block.timestamps, block.values, block.histograms)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes[order])))
    at = np.repeat(block.offsets[:-1][order] - offsets[:-1], sizes[order]) + np.arange(offsets[-1])
    labels: LabelFrame = block.labels.take(order)
    histograms = None if block.histograms is None else block.histograms.take(order)
    return Matrix(labels, offsets, block.timestamps[at], block.values[at], histograms)
